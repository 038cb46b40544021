"""``xnorflow faults``: accuracy against flipped bits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from xnorflow.cli.common import (
    check_files,
    data_option,
    divisor_option,
    frames_option,
    import_options,
    json_option,
    load_lowered,
    read_frames,
)
from xnorflow.cli.steps import Steps
from xnorflow.errors import UserError
from xnorflow.faults.output import as_csv, critical
from xnorflow.faults.page import render
from xnorflow.faults.study import Point, Study, study
from xnorflow.files import write_files
from xnorflow.frontend.options import ImportOptions

__all__ = ["faults_command"]

T = TypeVar("T")


@click.command("faults")
@click.argument("model")
@import_options
@data_option
@divisor_option
@frames_option(None)
@click.option(
    "--in",
    "hit",
    metavar="LIST",
    help="Which bits flip: weights, thresholds, activations, inputs, by commas (default: each).",
)
@click.option(
    "--layer", "layers", metavar="NAMES", help="Only in these layers, pools or joins, by commas."
)
@click.option("--per-layer", is_flag=True, help="Study every layer and pool alone.")
@click.option(
    "--flips", metavar="LIST", help="Numbers of flipped bits; of streams, in every frame."
)
@click.option(
    "--rates", metavar="LIST", help="Instead: shares of the bits (default: up to half of them)."
)
@click.option(
    "--trials",
    type=int,
    default=10,
    metavar="N",
    show_default=True,
    help="Random draws for each number of flips.",
)
@click.option("--seed", type=int, default=1, metavar="N", show_default=True, help="Of the draws.")
@click.option("--jobs", type=int, metavar="N", help="Processes; by default one for each core.")
@click.option("--plot", "plot_file", metavar="FILE.html", help="Also write a page with a plot.")
@click.option("--csv", "csv_file", metavar="FILE", help="Also write a line for each point.")
@json_option
def faults_command(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    data: str | None,
    divide_by: float | None,
    frames: int | None,
    hit: str | None,
    layers: str | None,
    per_layer: bool,
    flips: str | None,
    rates: str | None,
    trials: int,
    seed: int,
    jobs: int | None,
    plot_file: str | None,
    csv_file: str | None,
    json_file: str | None,
) -> None:
    """Measure MODEL's accuracy with flipped bits in the hardware.

    Weights and thresholds are stored: their bits flip once and stay so for all frames. Activations
    and inputs are on their way: each frame has flips of its own. Without labels in the data, the
    share of frames is given that keep the class of the fault-free network.
    """
    check_files({"--plot": plot_file, "--csv": csv_file, "--json": json_file}, model, data)
    if plot_file is not None and Path(plot_file).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--plot {plot_file} is no page; give it a name that ends in .html")
    numbers = None if flips is None else _listed(flips, "--flips", _count, "numbers of bits")
    shares = None if rates is None else _listed(rates, "--rates", float, "shares of the bits")
    targets = None if hit is None else _listed(hit, "--in", str, "what is hit")
    names = None if layers is None else _listed(layers, "--layer", str, "names of layers")
    _, lowered = load_lowered(model, options, verify_import)
    prepared = read_frames(data, lowered, frames, divide_by)
    console = Console()
    with Steps(console) as steps:
        result = study(
            lowered,
            prepared,
            hit=targets,
            layers=names,
            per_layer=per_layer,
            flips=numbers,
            rates=shares,
            trials=trials,
            seed=seed,
            jobs=os.cpu_count() or 1 if jobs is None else jobs,
            progress=steps.progress,
        )
    show(console, result)
    texts: dict[str, tuple[str, str]] = {}
    if plot_file is not None:
        texts["--plot"] = (plot_file, render(result))
    if csv_file is not None:
        texts["--csv"] = (csv_file, as_csv(result))
    if json_file is not None:
        texts["--json"] = (json_file, json.dumps(result.as_json(), indent=2) + "\n")
    write_files(texts)
    if plot_file is not None:
        console.print(f"page: {plot_file}", highlight=False, markup=False, soft_wrap=True)


def _listed(text: str, option: str, read: Callable[[str], T], what: str) -> list[T]:
    try:
        words = [word.strip() for word in text.split(",")]
        if all(words):
            return [read(word) for word in words]
    except ValueError:
        pass
    raise UserError(f"{option} is {text!r}; give {what}, separated by commas")


def _count(text: str) -> int:
    """Read a whole number; ``1e4`` is one too."""
    number = float(text)
    if number != number or abs(number) > 1e15 or number != int(number):
        raise ValueError(text)
    return int(number)


def show(console: Console, result: Study) -> None:
    """Print the points of each series, and how many flips cost a percentage point."""
    what = "accuracy" if result.labelled else "agreement with the fault-free classes"
    for series in result.series:
        per = ", new ones for each frame" if series.transient else ""
        console.print(f"{series.name}: {series.bits:,} bits{per}", highlight=False, markup=False)
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for heading in ("flips", "% of the bits", f"{result.metric} %"):
            table.add_column(heading, justify="right")
        for heading in ("95 % interval", "deviation", "min", "max"):
            table.add_column(heading, justify="right")
        for point in series.points:
            table.add_row(*_cells(point))
        console.print(table)
        console.print()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("one point is lost at", overflow="fold")
    for heading in ("flips", "% of the bits", "of"):
        table.add_column(heading, justify="right")
    for series in result.series:
        flips, share = critical(series)
        table.add_row(series.name, flips, share, f"{series.bits:,} bits")
    console.print(table)
    without = "" if not result.labelled else f", {result.fault_free:.2%} without faults"
    console.print(
        f"{what} on {result.frames:,} frames{without}; {result.trials} trials, seed {result.seed}"
        + ("" if result.labelled else " (no labels in the data)"),
        highlight=False,
        soft_wrap=True,
    )
    for note in result.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _cells(point: Point) -> list[str]:
    """Return a row of the table."""
    interval = (
        "–" if point.interval is None else " to ".join(f"{100 * e:.2f}" for e in point.interval)
    )
    return [
        f"{point.flips:,}",
        f"{100 * point.share:.3g}",
        f"{100 * point.mean:.2f}",
        interval,
        "–" if point.deviation is None else f"{100 * point.deviation:.2f}",
        f"{100 * min(point.values):.2f}",
        f"{100 * max(point.values):.2f}",
    ]
