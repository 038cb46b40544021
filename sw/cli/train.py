"""``xnorflow train``: train a recipe and write the model file."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xnorflow.cli.common import check_writable, json_option, write_json
from xnorflow.datasets import load_dataset
from xnorflow.errors import UserError
from xnorflow.files import write_files
from xnorflow.train.curve import curve_page
from xnorflow.train.export import save_qonnx
from xnorflow.train.methods import METHODS, Method
from xnorflow.train.recipes import DATASETS, RECIPES, TOPOLOGIES, Recipe, recipe_for

if TYPE_CHECKING:
    from xnorflow.train.loop import Epoch

__all__ = ["train_command"]


def _listed(title: str, entries: dict[str, str]) -> str:
    return f"\b\n{title}:\n" + "\n".join(f"  {name}: {text}" for name, text in entries.items())


_EPILOG = "\n\n".join(
    (
        _listed("Recipes", {name: recipe.summary for name, recipe in RECIPES.items()}),
        _listed("Methods", METHODS),
        _listed("Topologies", {name: topology.summary for name, topology in TOPOLOGIES.items()}),
        "DIR holds MNIST's or Fashion-MNIST's four idx*-ubyte.gz files, CIFAR-10's "
        "cifar-10-binary.tar.gz, SVHN's two *_32x32.mat, or train.npz and test.npz, each with "
        "x (N, H, W, C; uint8) and y (N,).",
    )
)


@click.command("train", epilog=_EPILOG)
@click.argument("recipe", required=False)
@click.option("--method", metavar="NAME", help="One of the methods below (default: bnn).")
@click.option("--dataset", metavar="NAME", help=f"One of {', '.join(DATASETS)}.")
@click.option("--topology", metavar="NAME", help="One of the topologies below.")
@click.option("--weight-bits", type=int, metavar="K", help="Of dorefa (default: 2).")
@click.option("--activation-bits", type=int, metavar="K", help="Of dorefa (default: 2).")
@click.option("--weight-bases", type=int, metavar="M", help="Of abc (default: 2).")
@click.option("--activation-bases", type=int, metavar="N", help="Of abc (default: 2).")
@click.option(
    "--fraction-bits", type=int, metavar="F", help="Of abc: bits of a coefficient (default: 4)."
)
@click.option("--first-bits", type=int, metavar="K", help="Bits of the first layer's weights.")
@click.option("--last-bits", type=int, metavar="K", help="Bits of the last layer's weights.")
@click.option(
    "--pixel-gains",
    is_flag=True,
    help="Of xnor: multiply sums by K, the mean magnitude of what is under a window.",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["plain", "shift"]),
    help="shift has powers of two for factors (default: plain).",
)
@click.option("--data-dir", metavar="DIR", help="Folder with the data set, see below.")
@click.option("--output", metavar="FILE", help="Model file to write (default: RECIPE.onnx).")
@click.option("--epochs", type=int, metavar="N", help="Epochs (default: the recipe's).")
@click.option("--patience", type=int, metavar="N", help="Stop after N epochs without a better one.")
@click.option("--rate", type=float, metavar="R", help="Highest learning rate.")
@click.option("--seed", type=int, metavar="N", default=1, show_default=True, help="Random seed.")
@json_option
def train_command(
    recipe: str | None,
    method: str | None,
    dataset: str | None,
    topology: str | None,
    batch_norm: str | None,
    data_dir: str | None,
    output: str | None,
    epochs: int | None,
    patience: int | None,
    rate: float | None,
    seed: int,
    json_file: str | None,
    **settings: Any,
) -> None:
    """Train a network and write it as a QONNX file.

    RECIPE names a data set, a topology and a method; or give --dataset, --topology and --method.
    The epoch is chosen on training frames that are held out; the test frames are looked at once,
    at the end. Without --data-dir the data set is downloaded once.

    A training that was interrupted goes on when its command is given again: FILE.checkpoint keeps
    its last epoch, and is deleted at the end. FILE.curve.html shows loss and accuracy by epoch.
    """
    settings["pixel_gains"] = settings["pixel_gains"] or None
    chosen = _recipe(recipe, method, dataset, topology, settings)
    if batch_norm is not None:
        chosen = replace(chosen, batch_norm=batch_norm)
    if rate is not None:
        if not 0 < rate <= 1:
            raise UserError(f"--rate {rate} is out of range; give a number above 0, up to 1")
        chosen = replace(chosen, peak_rate=rate)
    count = chosen.epochs if epochs is None else epochs
    if count < 1:
        raise UserError(f"--epochs {count} trains nothing; give at least 1")
    if patience is not None and patience < 1:
        raise UserError(f"--patience {patience} stops before it begins; give at least 1")
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed} is out of range; give a number from 0 to 2^63 - 1")
    target = Path(output or f"{chosen.name}.onnx")
    check_writable(str(target), "--output")
    checkpoint, curve = (Path(f"{target}{end}") for end in (".checkpoint", ".curve.html"))
    check_writable(str(curve), "the curve")
    check_writable(json_file, "--json")
    if importlib.util.find_spec("torch") is None:
        raise UserError("training needs torch; install it with: pip install 'xnorflow[train]'")

    console = Console()
    frames = load_dataset(chosen.dataset, "train", data_dir, console.print)
    test = load_dataset(chosen.dataset, "test", data_dir, console.print)
    from xnorflow.train.loop import accuracy, train

    console.print(
        f"{chosen.name}: {chosen.summary}; {chosen.weight_bits:,} weight bits, seed {seed}"
    )
    if checkpoint.exists():
        console.print(f"going on from {checkpoint}", soft_wrap=True, markup=False)
    with _EpochLines(console, count) as lines:
        training = train(
            chosen, frames, count, seed, lines.show, patience=patience, checkpoint=checkpoint
        )
    started = time.perf_counter()
    validation = training.best.validation_accuracy
    tested = accuracy(training.net, test)
    save_qonnx(
        training.model,
        target,
        {
            "recipe": chosen.name,
            "dataset": chosen.dataset,
            "topology": chosen.topology,
            "method": chosen.method.text,
            "batch_norm": chosen.batch_norm,
            "seed": str(seed),
            "epochs": str(count),
            "validation_accuracy": f"{validation:.4f}",
            "test_accuracy": f"{tested:.4f}",
        },
    )
    history = [
        {
            "epoch": epoch.number,
            "loss": epoch.loss,
            "validation_accuracy": epoch.validation_accuracy,
        }
        for epoch in training.epochs
    ]
    page = curve_page(
        chosen.name,
        chosen.summary,
        history,
        best=training.best.number,
        test_accuracy=tested,
        seed=seed,
    )
    write_files({"the curve": (str(curve), page)})
    seconds = training.seconds + time.perf_counter() - started
    console.print(
        f"validation {validation:.2%} (epoch {training.best.number}), test {tested:.2%}, "
        f"{seconds:.0f} s"
    )
    console.print(f"wrote {target} and {curve}", soft_wrap=True, markup=False)
    write_json(
        json_file,
        {
            "recipe": chosen.name,
            "dataset": chosen.dataset,
            "topology": chosen.topology,
            "method": chosen.method.text,
            "batch_norm": chosen.batch_norm,
            "weight_bits": chosen.weight_bits,
            "seed": seed,
            "epochs": count,
            "best_epoch": training.best.number,
            "seconds": round(seconds, 1),
            "validation_accuracy": validation,
            "test_accuracy": tested,
            "history": history,
            "output": str(target),
            "curve": str(curve),
        },
    )
    checkpoint.unlink(missing_ok=True)


class _EpochLines:
    """A line for each epoch, and on a terminal a progress bar below them."""

    def __init__(self, console: Console, epochs: int) -> None:
        self._console = console
        self._epochs = epochs
        self._progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("epoch", total=epochs, note="")

    def __enter__(self) -> _EpochLines:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, epoch: Epoch) -> None:
        note = f"loss {epoch.loss:.4f}, validation {epoch.validation_accuracy:.2%}"
        self._progress.update(self._task, completed=epoch.number, note=note)
        mark = " (best so far)" if epoch.best else ""
        self._console.print(f"epoch {epoch.number}/{self._epochs}: {note}{mark}")


def _recipe(
    name: str | None,
    method: str | None,
    dataset: str | None,
    topology: str | None,
    settings: dict[str, Any],
) -> Recipe:
    """Return the recipe of a name, or of a combination."""
    if name is None:
        if dataset is None or topology is None:
            raise UserError("there is nothing to train; give RECIPE, or --dataset and --topology")
        return recipe_for(dataset, topology, Method.of(method or "bnn", **settings))
    given = {"--method": method, "--dataset": dataset, "--topology": topology}
    for option, value in given.items():
        if value is not None:
            raise UserError(f"the recipe {name} has its {option[2:]}; leave {option} or {name} out")
    if name not in RECIPES:
        known = ", ".join(RECIPES)
        raise UserError(f"there is no recipe '{name}'; choose one of: {known}")
    recipe = RECIPES[name]
    if all(value is None for value in settings.values()):
        return recipe
    return recipe_for(recipe.dataset, recipe.topology, Method.of(recipe.method.name, **settings))
