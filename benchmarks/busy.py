"""Busy share of the slowest layer in steady state, for every model that is shipped.

``python benchmarks/busy.py [MODEL ...] [--board ulx3s-85f] [--target-fps F]`` simulates frames
back to back and divides the cycles that the slowest stage works in a frame by the cycles between
frames, measured on the second half of the frames.
"""

from __future__ import annotations

import json
import time
from importlib import resources
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from xnorflow.assemble import assemble
from xnorflow.boards.board import load as load_board
from xnorflow.frontend import load
from xnorflow.lowering import lower
from xnorflow.planning import plan
from xnorflow.sim.verify import verify


@click.command()
@click.argument("models", nargs=-1)
@click.option("--board", default="ulx3s-85f", show_default=True)
@click.option("--target-fps", type=float, help="Default: what each board plans by itself.")
@click.option("--frames", default=6, show_default=True)
@click.option("--json", "json_file", metavar="FILE")
def main(
    models: tuple[str, ...],
    board: str,
    target_fps: float | None,
    frames: int,
    json_file: str | None,
) -> None:
    """Simulate MODELS, by default all that are shipped, on random frames."""
    shipped = resources.files("xnorflow.models")
    paths = models or sorted(str(f) for f in shipped.iterdir() if f.name.endswith(".onnx"))
    table = Table()
    for heading in ("model", "slowest stage"):
        table.add_column(heading, no_wrap=True)
    for heading in ("its cycles", "cycles a frame", "busy", "wrong", "seconds"):
        table.add_column(heading, justify="right")
    results = []
    for path in paths:
        lowered = lower(load(path))
        planned = plan(lowered, load_board(board), target_fps=target_fps)
        core = assemble(lowered, planned.folding)
        rng = np.random.default_rng(0)
        quantized = rng.integers(
            0, lowered.input.levels + 1, (frames, lowered.input.features)
        ).astype(np.uint16)
        start = time.perf_counter()
        result = verify(core, lowered, quantized)
        assert result.cycles_per_frame is not None
        busy = core.slowest.cycles / result.cycles_per_frame
        table.add_row(
            Path(path).stem,
            core.slowest.name,
            f"{core.slowest.cycles:,}",
            f"{result.cycles_per_frame:,g}",
            f"{busy:.4f}",
            str(result.mismatches),
            f"{time.perf_counter() - start:.0f}",
        )
        results.append(
            {"model": Path(path).stem, "slowest": core.slowest.name, "busy": busy}
            | {"cycles": core.slowest.cycles, "cycles_per_frame": result.cycles_per_frame}
            | {"mismatches": result.mismatches}
        )
    Console().print(table)
    if json_file is not None:
        Path(json_file).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
