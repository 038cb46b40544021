"""``xnorflow emulate``: a board without a board, as a serial port for ``xnorflow run``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click
from rich.console import Console

from xnorflow.assemble import assemble
from xnorflow.boards.board import load as load_board
from xnorflow.boards.flow import first_clock
from xnorflow.builder import board_top
from xnorflow.cli.common import (
    check_writable,
    import_options,
    json_option,
    load_lowered,
    make_plan,
    objective_options,
    write_json,
)
from xnorflow.cli.steps import Steps
from xnorflow.frontend.options import ImportOptions
from xnorflow.sim.emulator import Emulator
from xnorflow.sim.line import Line, LineFaults
from xnorflow.sim.virtual_board import VirtualBoard

__all__ = ["emulate_command"]


def _probability(name: str, help_: str) -> Any:
    return click.option(name, type=float, default=0.0, metavar="P", show_default=True, help=help_)


@click.command("emulate")
@click.argument("model")
@import_options
@click.option("--board", required=True, metavar="BOARD", help="Board name or .toml file.")
@objective_options
@click.option(
    "--clock", type=float, metavar="MHz", help="Core clock (default: the board's planned one)."
)
@click.option(
    "--port",
    metavar="PATH",
    help="Also make a link to the serial port here, for `xnorflow run --port PATH`.",
)
@_probability("--damage", "Probability that a byte on the line is dropped, flipped or added.")
@_probability("--flood", "Probability of a burst of random bytes before a byte.")
@_probability("--unplug", "Probability for every byte that the cable is pulled for a moment.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the damage.")
@json_option
def emulate_command(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    board: str,
    wanted: dict[str, Any],
    clock: float | None,
    port: str | None,
    damage: float,
    flood: float,
    unplug: float,
    seed: int,
    json_file: str | None,
) -> None:
    """Be a board that holds MODEL, at a serial port of this computer, until Ctrl-C.

    The complete top level is compiled and simulated, from the UART's pins through the link and the
    core and back. `xnorflow run MODEL --port PORT` finds no difference to a real board, but that
    this one is slower.
    """
    check_writable(json_file, "--json")
    faults = LineFaults(damage, flood, unplug)
    _, lowered = load_lowered(model, options, verify_import)
    chosen = load_board(board)
    setting = first_clock(chosen, clock)
    plan = make_plan(lowered, chosen, wanted)
    console = Console()

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    for note in plan.notes:
        line(f"note: {note}")
    with Steps(console) as steps:

        def make(to_board: Line, from_board: Line) -> VirtualBoard:
            core = assemble(lowered, plan.folding)
            return VirtualBoard(
                board_top(core, lowered, chosen, setting.without_pll()),
                to_board=to_board,
                from_board=from_board,
                compiling=steps.progress,
            )

        emulator = Emulator(make, port, faults, seed)
    with emulator:
        name = port or emulator.port
        line(
            f"{chosen.name} at {setting.mhz:g} MHz with {lowered.name}, "
            f"{plan.cycles_per_frame:,} cycles a frame, is at {name}; in another terminal:"
        )
        line(f"  xnorflow run {model} --port {name} --baud {emulator.board.baud}")
        line("Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            emulator.serve()
        result = emulator.as_json()
    for way, text in (("to_board", "to the board"), ("from_board", "from the board")):
        counts = result[way]
        harm = [f"{counts[kind]:,} {kind}" for kind in list(counts)[1:] if counts[kind]]
        line(f"{counts['passed']:,} bytes {text}" + (f": {', '.join(harm)}" if harm else ""))
    write_json(json_file, result)
