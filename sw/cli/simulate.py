"""``xnorflow simulate``: run the hardware in simulation and compare it with the golden model."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from xnorflow.assemble import assemble
from xnorflow.cli.common import (
    check_writable,
    data_option,
    divisor_option,
    engine_option,
    folding_options,
    frames_option,
    import_options,
    json_option,
    load_lowered,
    make_plan,
    optional_board,
    read_frames,
    write_json,
)
from xnorflow.cli.steps import Steps
from xnorflow.errors import WorkFailed
from xnorflow.frontend.options import ImportOptions
from xnorflow.sim.verify import Verification, verify

__all__ = ["describe", "simulate_command"]


@click.command("simulate")
@click.argument("model")
@import_options
@data_option
@divisor_option
@frames_option(20)
@engine_option
@folding_options
@click.option("--layers", is_flag=True, help="Check every layer's output stream too (slower).")
@click.option(
    "--stall",
    type=float,
    default=0.0,
    metavar="P",
    show_default=True,
    help="Probability of an idle cycle before every beat: random back-pressure.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the stalls.")
@click.option("--vcd", metavar="FILE", help="Write the waveforms of all signals.")
@json_option
def simulate_command(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    data: str | None,
    divide_by: float | None,
    frames: int,
    engine: str,
    board: str | None,
    wanted: dict[str, Any],
    layers: bool,
    stall: float,
    seed: int,
    vcd: str | None,
    json_file: str | None,
) -> None:
    """Simulate MODEL's hardware on frames and compare every output bit with the golden model."""
    check_writable(json_file, "--json")
    _, lowered = load_lowered(model, options, verify_import)
    chosen = read_frames(data, lowered, frames, divide_by)
    chosen_board = optional_board(board)
    plan = make_plan(lowered, chosen_board, wanted)
    console = Console()
    for note in plan.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    # The cells of a family are simulated as a netlist only.
    family = chosen_board.family if chosen_board is not None and engine == "netlist" else None
    with Steps(console) as steps:
        result = verify(
            assemble(lowered, plan.folding, family),
            lowered,
            chosen.quantized,
            chosen.y,
            engine=engine,
            stall=stall,
            seed=seed,
            watch_layers=layers,
            vcd=vcd,
            progress=steps.progress,
            plan=plan,
            board=chosen_board,
        )
    describe(console, result)
    write_json(json_file, result.as_json())
    if result.mismatches:
        raise WorkFailed(
            f"{result.mismatches} of {result.frames} frames differ from the golden model; run "
            "again with `layers` and `vcd` to see where"
        )


def describe(console: Console, result: Verification) -> None:
    """Print the outcome of a simulation."""
    for note in result.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    line(
        f"{result.frames} frames in {result.engine}: {result.mismatches} mismatches"
        + ("" if result.accuracy is None else f", accuracy {result.accuracy:.2%}")
    )
    for name, count in (result.layer_mismatches or {}).items():
        line(f"  layer {name}: {count} frames differ")
    measured = "-" if result.cycles_per_frame is None else f"{result.cycles_per_frame:g}"
    line(
        f"cycles a frame: {measured} measured, {result.cycles_per_frame_predicted} predicted; "
        f"latency: {result.latency_cycles} measured, {result.latency_cycles_predicted} predicted"
        + (f" (stalls at probability {result.stall:g} slow it down)" if result.stall else "")
    )
