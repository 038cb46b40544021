"""``xnorflow explore``: many configurations estimated, a chosen few built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xnorflow.boards.board import load as load_board
from xnorflow.cache_folder import cache_folder
from xnorflow.cli.build import parse_clock
from xnorflow.cli.common import (
    check_writable,
    data_option,
    divisor_option,
    import_options,
    json_option,
    load_lowered,
    read_frames,
    write_json,
)
from xnorflow.cli.steps import Steps
from xnorflow.errors import UserError, WorkFailed
from xnorflow.explore import Exploration, explore
from xnorflow.explore.cache import Cache
from xnorflow.explore.output import folder_for, write_results
from xnorflow.frontend.options import ImportOptions

__all__ = ["explore_command"]


@click.command("explore")
@click.argument("model")
@import_options
@click.option(
    "--board", "boards", required=True, metavar="BOARDS", help="Board names or files, by commas."
)
@click.option(
    "--budget",
    type=int,
    default=8,
    metavar="N",
    show_default=True,
    help="Build N configurations, spread over the estimated fronts.",
)
@click.option(
    "--clock",
    "clocks",
    default="auto",
    metavar="MHz",
    show_default=True,
    help="Core clocks by commas; auto takes what a design reaches.",
)
@click.option(
    "--seeds", default="1", metavar="LIST", show_default=True, help="Seeds of placement, by commas."
)
@data_option
@divisor_option
@click.option(
    "--frames",
    type=int,
    default=1,
    metavar="N",
    show_default=True,
    help="Simulate the first N frames before each build.",
)
@click.option("--jobs", type=int, metavar="N", help="Processes; by default one for each core.")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use the workers of a Dask scheduler instead; needs pip install 'xnorflow[cluster]'.",
)
@click.option(
    "--cache",
    metavar="DIR",
    help="Where finished points are kept (default: xnorflow/explore in the user's cache folder).",
)
@click.option("--output", metavar="DIR", help="Folder to make (default: explore-MODEL).")
@json_option
def explore_command(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    boards: str,
    budget: int,
    clocks: str,
    seeds: str,
    data: str | None,
    divide_by: float | None,
    frames: int,
    jobs: int | None,
    scheduler: str | None,
    cache: str | None,
    output: str | None,
    json_file: str | None,
) -> None:
    """Estimate MODEL's fronts of speed and size on some boards, and build points of them.

    Finished points are kept: a run that was interrupted goes on where it was. The output folder
    gets points.csv, points.json and explore.html.
    """
    check_writable(json_file, "--json")
    if frames < 1:
        raise UserError(f"--frames is {frames} but must be at least 1")
    chosen_boards = [load_board(name) for name in _listed(boards, "--board")]
    _, lowered = load_lowered(model, options, verify_import)
    prepared = read_frames(data, lowered, frames, divide_by)
    folder = folder_for(output or f"explore-{lowered.name}")
    console = Console()
    with Steps(console) as steps:
        result = explore(
            lowered,
            chosen_boards,
            prepared,
            Cache(Path(cache) if cache else cache_folder("explore")),
            budget=budget,
            clocks=[parse_clock(clock) for clock in _listed(clocks, "--clock")],
            seeds=[_seed(seed) for seed in _listed(seeds, "--seeds")],
            simulated=frames,
            jobs=jobs,
            scheduler=scheduler,
            progress=steps.progress,
        )
    page = write_results(result, folder)
    _show(console, result)
    console.print(f"page: {page}", highlight=False, soft_wrap=True)
    write_json(json_file, {"model": result.model, "reused": result.reused, "points": result.points})
    if all(point["failed"] for point in result.points):
        raise WorkFailed("none of the points could be built; the table says why of each")


def _listed(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserError(f"{option} is {text!r}; give one or more, separated by commas")
    return list(dict.fromkeys(words))


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise UserError(f"--seeds has {text!r}; give whole numbers from 0 to 999999999")
    return int(text)


def _show(console: Console, result: Exploration) -> None:
    """Print the points, the fastest of each board first."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("board", no_wrap=True)
    for heading in ("frames/s", "MHz", "cycles", "LUT", "LC", "BRAM", "µJ", "seed"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("front")
    for point in sorted(result.points, key=_order):
        table.add_row(*map(Text, _cells(point)))
    console.print(table)


def _order(point: dict[str, Any]) -> tuple[str, float]:
    return point["board"], -(point.get("fps") or 0.0)


def _cells(point: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    seed = str(point["point"]["seed"])
    if point["failed"]:
        estimated = f"~{point['point']['estimated']['fps']:,.0f}"
        return [point["board"], estimated, *["-"] * 6, seed, point["failed"]]
    resources = point["resources"]
    used = {name: f"{usage['used']:,}" for name, usage in resources.items()}
    return [
        point["board"],
        f"{point['fps']:,.0f}",
        f"{point['clock_mhz']:.4g}",
        f"{point['cycles_per_frame']:,}",
        used["lut"],
        used.get("lc", "-"),
        used["bram"],
        f"~{point['energy']['uj_per_frame']:.3g}" if point.get("energy") else "-",
        seed,
        "yes" if point["front"] else "",
    ]
