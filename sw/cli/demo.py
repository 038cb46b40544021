"""``xnorflow demo``: the main job on a model, digits and a board that need nothing else."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click
from rich.console import Console

from xnorflow.boards.board import load as load_board
from xnorflow.builder import Request, build
from xnorflow.cli.build import show_report
from xnorflow.cli.common import check_writable, json_option, load_lowered, read_frames, write_json
from xnorflow.cli.steps import Steps
from xnorflow.golden import predict_quantized

__all__ = ["demo_command"]

#: What the demo runs.
MODEL, BOARD, FRAMES = "mnist_cnn", "icebreaker", 4

#: Frames a second to build for: twice what the serial line carries, at half the chip.
TARGET_FPS = 1800


@click.command("demo")
@click.option("--output", metavar="DIR", default="demo-output", show_default=True, help="Folder.")
@json_option
def demo_command(output: str, json_file: str | None) -> None:
    """Classify digits, simulate the hardware and build a bitstream for the iCEBreaker.

    Needs no board, no data and no other tools; the digits and the model come with xnorflow.
    """
    check_writable(json_file, "--json")
    console = Console()
    with resources.as_file(resources.files("xnorflow.models") / f"{MODEL}.onnx") as path:
        network, lowered = load_lowered(str(path))
    chosen = read_frames(None, lowered, None)
    right = int((predict_quantized(lowered, chosen.quantized).classes == chosen.y).sum())
    console.print(
        f"golden model: {MODEL} classifies {right} of {len(chosen)} digits "
        f"({right / len(chosen):.1%})",
        highlight=False,
    )
    board = load_board(BOARD)
    request = Request(
        lowered=lowered,
        board=board,
        target_fps=TARGET_FPS,
        simulated=FRAMES,
        # One placement at the planned clock is enough to show; build looks for a faster one.
        clock_mhz=board.clock.planned_mhz,
        command=f"xnorflow demo --output {output}",
        notes=network.notes,
    )
    with Steps(console) as steps:
        built = build(request, chosen, Path(output), steps.progress)
    show_report(console, built)
    write_json(json_file, built.report)
