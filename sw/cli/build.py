"""``xnorflow build``: from a model to a bitstream and a report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from xnorflow.boards.board import load as load_board
from xnorflow.boards.flow import SEED
from xnorflow.builder import Build, Request, build
from xnorflow.cli.common import (
    check_writable,
    data_option,
    divisor_option,
    engine_option,
    import_options,
    json_option,
    load_lowered,
    objective_options,
    read_frames,
    write_json,
)
from xnorflow.cli.steps import Steps
from xnorflow.errors import UserError
from xnorflow.frontend.options import ImportOptions

__all__ = ["build_command", "show_report"]


@click.command("build")
@click.argument("model")
@import_options
@click.option("--board", required=True, metavar="BOARD", help="Board name or .toml file.")
@objective_options
@click.option(
    "--clock",
    "clock_mhz",
    default="auto",
    metavar="auto|MHz",
    show_default=True,
    help="Core clock; auto takes what the design reaches, or what --target-fps needs.",
)
@click.option("--seed", type=int, metavar="N", help="Seed of placement (default: 1).")
@click.option("--seeds", metavar="1,2,3", help="Place with each of these, keep the best clock.")
@click.option("--fast", is_flag=True, help="A quick look: synthesis only, no bitstream.")
@data_option
@divisor_option
@click.option(
    "--frames",
    type=int,
    default=20,
    metavar="N",
    show_default=True,
    help="Simulate the first N frames.",
)
@engine_option
@click.option("--output", metavar="DIR", help="Folder to make (default: build-MODEL-BOARD).")
@json_option
def build_command(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    board: str,
    wanted: dict[str, Any],
    clock_mhz: str,
    seed: int | None,
    seeds: str | None,
    fast: bool,
    data: str | None,
    divide_by: float | None,
    frames: int,
    engine: str,
    output: str | None,
    json_file: str | None,
) -> None:
    """Verify MODEL's hardware in simulation, then build its bitstream and a report.

    The folding is the smallest that reaches --target-fps, the one in --folding, the fastest that
    fits with --max, that of fewest LUTs with --min-area or of least latency with --latency; without
    any of them the target is 10,000 frames/s, or less if that does not fit.
    """
    check_writable(json_file, "--json")
    chosen_board = load_board(board)
    network, lowered = load_lowered(model, options, verify_import)
    chosen = read_frames(data, lowered, None, divide_by)
    request = Request(
        lowered=lowered,
        board=chosen_board,
        **wanted,
        simulated=frames,
        clock_mhz=parse_clock(clock_mhz),
        seeds=parse_seeds(seed, seeds),
        fast=fast,
        engine=engine,
        command="xnorflow " + shlex.join(sys.argv[1:]),
        notes=network.notes,
    )
    console = Console()
    with Steps(console) as steps:
        built = build(request, chosen, Path(output) if output else None, steps.progress)
    show_report(console, built)
    write_json(json_file, built.report)


def parse_clock(text: str) -> float | None:
    """Return the core clock in MHz, or None for ``auto``."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--clock is {text!r} but must be auto or a number of MHz") from None


def parse_seeds(seed: int | None, seeds: str | None) -> tuple[int, ...]:
    """Return the seeds that --seed or --seeds ask for."""
    if seed is not None and seeds is not None:
        raise UserError("give only one of --seed and --seeds")
    if seeds is None:
        return (SEED if seed is None else seed,)
    try:
        return tuple(int(word) for word in seeds.split(","))
    except ValueError:
        raise UserError(f"--seeds is {seeds!r} but must be integers, such as 1,2,3") from None


def show_report(console: Console, built: Build) -> None:
    """Print what was built."""
    report = built.report
    layers = Table(title=f"{report['model']} on {report['board']} ({report['device']})")
    for heading in ("layer", "inputs", "outputs", "PE", "SIMD", "cycles", "busy", "weights in"):
        layers.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in report["layers"]:
        layers.add_row(
            row["name"],
            *(str(row[key]) for key in ("mw", "mh", "pe", "simd")),
            f"{row['cycles']:,}",
            f"{row['busy']:.0%}",
            row["weights_in"],
        )
    console.print(layers)

    resources = Table()
    for heading in ("resource", "used", "available", "share", "estimated"):
        resources.add_column(heading, justify="left" if heading == "resource" else "right")
    for name, usage in report["resources"].items():
        share = f"{usage['used'] / usage['available']:.0%}" if usage["available"] else "-"
        estimated = "-" if usage["estimated"] is None else f"{usage['estimated']:,}"
        resources.add_row(
            name.upper(), f"{usage['used']:,}", f"{usage['available']:,}", share, estimated
        )
    console.print(resources)

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    verification, accuracy = report["verification"], report["accuracy"]
    line(
        f"verified:  {verification['frames']} frames simulated, "
        f"{verification['mismatches']} mismatches; {verification['cycles_per_frame']} cycles a "
        f"frame measured, {verification['cycles_per_frame_predicted']} predicted"
    )
    if accuracy["accuracy"] is not None:
        line(f"accuracy:  {accuracy['accuracy']:.2%} on {accuracy['frames']:,} frames")
    if report["fast"]:
        line(f"clock:     {report['clock_mhz']:g} MHz is planned; not placed and routed")
    else:
        line(
            f"clock:     {report['clock_mhz']:g} MHz (place and route reached "
            f"{report['fmax_mhz']:.1f})"
        )
    if len(report["seeds"]) > len(report["attempts"]):
        reached = ", ".join(
            f"{each['seed']} "
            + ("no place" if each["fmax_mhz"] is None else f"{each['fmax_mhz']:.1f}")
            for each in report["seeds"]
        )
        line(f"seeds:     {report['seed']} has the best clock; MHz by seed: {reached}")
    unrouted = " at the planned clock, not routed" if report["fast"] else ""
    line(
        f"speed:     {report['fps']:,.0f} frames/s{unrouted}, latency {report['latency_us']:.1f} µs"
    )
    if report["energy"]:
        line(
            f"energy:    about {report['energy']['uj_per_frame']:.2g} µJ a frame, an estimate "
            f"(within a factor of {report['energy']['uncertainty']:g})"
        )
    line(
        f"link:      the serial line at {report['link']['baud']:,} baud carries "
        f"{report['link']['fps']:,.0f} frames/s"
    )
    for note in report["notes"]:
        line(f"note:      {note}")
    if built.bitstream is not None:
        line(f"bitstream: {built.bitstream}")
    spent = ", ".join(f"{name} {value:.1f}" for name, value in report["seconds"].items())
    line(f"seconds:   {spent}")
    line(f"report:    {built.page}")
