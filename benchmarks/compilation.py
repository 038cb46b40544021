"""How long it takes from a model file to RTLIL, and the most memory it holds.

    python benchmarks/compilation.py [MODEL BOARD FOLDING.json]

Prints one JSON object. Without arguments: CNV for the ULX3S-85F at the shipped folding. Processor
time is what counts: it is that of a machine with nothing else to do.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib.resources import files
from pathlib import Path

from amaranth.back import rtlil

from xnorflow.assemble import assemble
from xnorflow.boards import board as boards
from xnorflow.elaboration import uncollected
from xnorflow.frontend import load
from xnorflow.lowering import lower
from xnorflow.planning import plan

FOLDING = Path(__file__).parent.parent / "examples/foldings/cifar10_cnv_ulx3s-85f.json"


def peak_kb() -> int:
    """Return the most memory that this program had; getrusage counts who started it as well."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(model: str, board_name: str, folding: str) -> None:
    """Compile a model and print what that took."""
    wall = time.monotonic()
    lowered = lower(load(model))
    board = boards.load(board_name)
    planned = plan(lowered, board, folding=folding)
    core = assemble(lowered, planned.folding, board.family)
    with uncollected():
        text = rtlil.convert(core, emit_src=False)
    result = {
        "model": Path(model).name,
        "cpu_seconds": round(time.process_time(), 2),
        "seconds": round(time.monotonic() - wall, 2),
        "peak_mb": round(peak_kb() / 1024),
        "rtlil_mb": round(len(text) / 1e6, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*given or (str(files("xnorflow.models") / "cifar10_cnv.onnx"), "ulx3s-85f", str(FOLDING)))
