"""Cycles a second of the simulators: ``python benchmarks/simulation.py --data-dir DIR``.

The same core, ``mnist_sfc`` folded for 100,000 frames a second on an ULX3S-85F, in Amaranth's
simulator for a few frames and compiled for the 10,000 digits of MNIST's test set (without
``--data-dir``, ten times the 1,000 digits that come with the package). Seconds are those of one
core's processor time, so that other work on the machine counts less. Ends with 0 only if no frame
differs from the golden model, the 10,000 frames take less than a minute, and the compiled core is
at least 100 times as fast.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from xnorflow.assemble import assemble
from xnorflow.boards.board import load as load_board
from xnorflow.datasets import load_dataset, sample_digits
from xnorflow.frontend import load
from xnorflow.golden import activations, quantize
from xnorflow.lowering import lower
from xnorflow.planning import plan
from xnorflow.sim import amaranth_engine, cxxrtl_engine

ROOT = Path(__file__).resolve().parents[1]
FRAMES, SECONDS, FACTOR = 10_000, 60.0, 100.0


@click.command()
@click.option("--data-dir", metavar="DIR", help="Folder with MNIST.")
@click.option("--amaranth-frames", default=4, show_default=True, help="Frames for Amaranth.")
@click.option("--json", "json_file", metavar="FILE", help="Also write the result as JSON.")
def main(data_dir: str | None, amaranth_frames: int, json_file: str | None) -> None:
    lowered = lower(load(ROOT / "models" / "mnist_sfc.onnx"))
    folding = plan(lowered, load_board("ulx3s-85f"), target_fps=100_000).folding
    frames = sample_digits() if data_dir is None else load_dataset("mnist", "test", data_dir)
    x = np.resize(frames.x, (FRAMES, *frames.x.shape[1:]))
    quantized = quantize(lowered, x)
    expected = activations(lowered, quantized)[-1]
    bits = lowered.input.to_bits(quantized)

    rows = []
    for engine, run, count in (
        ("amaranth", amaranth_engine.run_core, amaranth_frames),
        ("cxxrtl, first run", cxxrtl_engine.run_core, 1),
        ("cxxrtl", cxxrtl_engine.run_core, FRAMES),
    ):
        core = assemble(lowered, folding)
        began = time.perf_counter()
        start = time.process_time()
        result = run(core, bits[:count])
        seconds = time.process_time() - start
        rows.append(
            {
                "engine": engine,
                "frames": count,
                "mismatches": int((result.scores != expected[:count]).any(axis=1).sum()),
                "cycles": int(result.last_output_cycles[-1] - result.first_input_cycle + 1),
                "seconds": seconds,
                "wall_seconds": time.perf_counter() - began,
            }
        )
    table = Table("engine", "frames", "differ", "cycles", "s", "wall s", "cycles/s")
    for row in rows:
        row["cycles_per_second"] = row["cycles"] / row["seconds"]
        table.add_row(
            str(row["engine"]),
            f"{row['frames']:,}",
            str(row["mismatches"]),
            f"{row['cycles']:,}",
            f"{row['seconds']:.1f}",
            f"{row['wall_seconds']:.1f}",
            f"{row['cycles_per_second']:,.0f}",
        )
    Console().print(table)
    slow, _, fast = rows
    factor = fast["cycles_per_second"] / slow["cycles_per_second"]
    print(f"{fast['seconds']:.1f} s for {FRAMES:,} frames (target: below {SECONDS:.0f} s)")
    print(f"{factor:,.0f} times as fast as Amaranth's simulator (target: {FACTOR:.0f})")
    met = fast["seconds"] < SECONDS and factor >= FACTOR
    met = met and not any(row["mismatches"] for row in rows)
    if json_file is not None:
        text = json.dumps({"engines": rows, "factor": factor, "met": met}, indent=2)
        Path(json_file).write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
