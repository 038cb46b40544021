"""``xnorflow emulate``: a board without a board, as a serial port for ``xnorflow run``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
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
from xnorflow.errors import UserError
from xnorflow.frontend.options import ImportOptions
from xnorflow.sim.bitstream import circuit_of_build
from xnorflow.sim.emulator import Emulator
from xnorflow.sim.line import Line, LineFaults
from xnorflow.sim.virtual_board import Circuit, VirtualBoard, circuit_of_top

__all__ = ["emulate_command"]


def _probability(name: str, help_: str) -> Any:
    return click.option(name, type=float, default=0.0, metavar="P", show_default=True, help=help_)


@click.command("emulate")
@click.argument("what", metavar="MODEL|BUILD")
@import_options
@click.option("--board", metavar="BOARD", help="Board name or .toml file; needed for a model.")
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
    what: str,
    options: ImportOptions,
    verify_import: bool | None,
    board: str | None,
    wanted: dict[str, Any],
    clock: float | None,
    port: str | None,
    damage: float,
    flood: float,
    unplug: float,
    seed: int,
    json_file: str | None,
) -> None:
    """Be a board at a serial port of this computer, until Ctrl-C.

    Of MODEL, the complete top level is compiled and simulated, from the UART's pins through the
    link and the core and back. Of BUILD, the output folder of a build for an iCE40, it is the
    bitstream itself. `xnorflow run MODEL --port PORT` finds no difference to a real board, but that
    this one is slower.
    """
    check_writable(json_file, "--json")
    faults = LineFaults(damage, flood, unplug)
    console = Console()

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    with Steps(console) as steps:
        if Path(what).is_dir():
            if board is not None or clock is not None or any(wanted.values()):
                raise UserError(
                    f"{what} is a build, whose board, clock and folding are fixed; leave the "
                    "options out that choose them, or give a model"
                )
            steps.progress("unpack", "the bitstream")
            report, circuit = circuit_of_build(Path(what))
            title = f"{report['board']} with the bitstream of {report['model']}"
            cycles, model = report["cycles_per_frame"], "MODEL"
        else:
            title, cycles, circuit = _circuit_of_model(
                what, options, verify_import, board, wanted, clock, line
            )
            model = what

        def make(to_board: Line, from_board: Line) -> VirtualBoard:
            return VirtualBoard(
                circuit, to_board=to_board, from_board=from_board, compiling=steps.progress
            )

        emulator = Emulator(make, port, faults, seed)
    with emulator:
        name = port or emulator.port
        line(
            f"{title} at {circuit.clock_hz / 1e6:g} MHz, {cycles:,} cycles a frame, is at {name}; "
            "in another terminal:"
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


def _circuit_of_model(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    board: str | None,
    wanted: dict[str, Any],
    clock: float | None,
    tell: Callable[[str], None],
) -> tuple[str, int, Circuit]:
    """Return what is emulated, its cycles a frame, and the circuit."""
    _, lowered = load_lowered(model, options, verify_import)
    if board is None:
        raise UserError("--board is needed to emulate a model; `xnorflow boards` lists them")
    chosen = load_board(board)
    setting = first_clock(chosen, clock).without_pll()
    plan = make_plan(lowered, chosen, wanted)
    for note in plan.notes:
        tell(f"note: {note}")
    top = board_top(assemble(lowered, plan.folding), lowered, chosen, setting)
    return f"{chosen.name} with {lowered.name}", plan.cycles_per_frame, circuit_of_top(top)
