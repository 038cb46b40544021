"""``xnorflow train``: train a recipe and write the model file."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xnorflow.cli.common import check_writable, json_option, write_json
from xnorflow.datasets import load_dataset
from xnorflow.errors import UserError
from xnorflow.train.export import save_qonnx
from xnorflow.train.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from xnorflow.train.loop import Epoch

__all__ = ["train_command"]

_EPILOG = (
    "\b\nRecipes:\n"
    + "\n".join(f"  {r.name}: {r.summary}" for r in RECIPES.values())
    + "\n\nDIR holds MNIST's or Fashion-MNIST's four idx*-ubyte.gz files, CIFAR-10's "
    "cifar-10-binary.tar.gz, or train.npz and test.npz, each with x (N, H, W, C; uint8) and y (N,)."
)


@click.command("train", epilog=_EPILOG)
@click.argument("recipe")
@click.option("--data-dir", metavar="DIR", help="Folder with the data set, see below.")
@click.option("--output", metavar="FILE", help="Model file to write (default: RECIPE.onnx).")
@click.option("--epochs", type=int, metavar="N", help="Epochs (default: the recipe's).")
@click.option("--seed", type=int, metavar="N", default=1, show_default=True, help="Random seed.")
@json_option
def train_command(
    recipe: str,
    data_dir: str | None,
    output: str | None,
    epochs: int | None,
    seed: int,
    json_file: str | None,
) -> None:
    """Train RECIPE on its data set and write it as a QONNX file.

    The epoch is chosen on training frames that are held out; the test frames are looked at once,
    at the end. Without --data-dir the data set is downloaded once.
    """
    chosen = _recipe(recipe)
    count = chosen.epochs if epochs is None else epochs
    if count < 1:
        raise UserError(f"--epochs {count} trains nothing; give at least 1")
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed} is out of range; give a number from 0 to 2^63 - 1")
    target = Path(output or f"{chosen.name}.onnx")
    check_writable(str(target), "--output")
    check_writable(json_file, "--json")
    if importlib.util.find_spec("torch") is None:
        raise UserError("training needs torch; install it with: pip install 'xnorflow[train]'")

    console = Console()
    started = time.perf_counter()
    frames = load_dataset(chosen.dataset, "train", data_dir, console.print)
    test = load_dataset(chosen.dataset, "test", data_dir, console.print)
    from xnorflow.train.loop import accuracy, train

    console.print(
        f"{chosen.name}: {chosen.summary}; {chosen.weight_bits:,} weight bits, seed {seed}"
    )
    with _EpochLines(console, count) as lines:
        training = train(chosen, frames, count, seed, lines.show)
    validation = training.best.validation_accuracy
    tested = accuracy(training.net, test)
    save_qonnx(
        training.model,
        target,
        {
            "recipe": chosen.name,
            "seed": str(seed),
            "epochs": str(count),
            "validation_accuracy": f"{validation:.4f}",
            "test_accuracy": f"{tested:.4f}",
        },
    )
    seconds = time.perf_counter() - started
    console.print(
        f"validation {validation:.2%} (epoch {training.best.number}), test {tested:.2%}, "
        f"{seconds:.0f} s"
    )
    console.print(f"wrote {target}", soft_wrap=True, markup=False)
    write_json(
        json_file,
        {
            "recipe": chosen.name,
            "seed": seed,
            "epochs": count,
            "seconds": round(seconds, 1),
            "validation_accuracy": validation,
            "test_accuracy": tested,
            "output": str(target),
        },
    )


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


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        known = ", ".join(RECIPES)
        raise UserError(f"there is no recipe '{name}'; choose one of: {known}")
    return RECIPES[name]
