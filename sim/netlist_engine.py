"""Run what synthesis made of a streaming core: its cells, with their simulation models."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from amaranth.back import rtlil
from numpy.typing import NDArray

from xnorflow.boards.board import Board
from xnorflow.boards.flow import READ, synthesis_command
from xnorflow.boards.refine import refine
from xnorflow.boards.tools import ToolFailed, find, run
from xnorflow.elaboration import uncollected
from xnorflow.errors import WorkFailed
from xnorflow.hw.core import StreamingCore
from xnorflow.progress import Progress, quiet
from xnorflow.sim.cxxrtl.compile import Design, load_library
from xnorflow.sim.cxxrtl.wrapper import CoreWrapper
from xnorflow.sim.cxxrtl_engine import run_library
from xnorflow.sim.run import CoreRun

__all__ = ["MODELS", "RESOLVE", "netlist", "run_core"]

#: Commands that read the simulation models of a family's cells: yosys' own, and ours of ECP5's
#: block RAM and multiplier, which it has not. Deferred, since all of iCE40's take two minutes.
MODELS = {
    "ice40": "read_verilog -defer -DICE40_{speed}=1 +/ice40/cells_sim.v",
    "ecp5": "read_verilog -nooverwrite +/ecp5/cells_sim.v\ndelete DP16KD\n"
    "read_verilog ecp5_cells.v",
}

#: Wires become single bits: a bus along which a chain of LUTs goes bit by bit would look like a
#: loop.
SCRIPT = """\
read_json netlist.json
{models}
{resolve}
splitnets
"""

#: Replace cells by what their models do.
RESOLVE = """\
hierarchy -check -top top
proc
flatten
opt -full
memory -nomap
opt -full"""


def netlist(core: StreamingCore, board: Board) -> Design:
    """Return the mapped netlist of a core's wrapper, ready to be compiled.

    The core is mapped by the command that a build for `board` maps it with, and its netlist is
    refined as the build does it.
    """
    wrapper = CoreWrapper(core)
    with uncollected():
        text = rtlil.convert(wrapper, name="top", ports=wrapper.ports, emit_src=False)
    command = synthesis_command(board)
    sources = {"netlist.json": _mapped(text, command)}
    if board.family == "ecp5":
        model = files("xnorflow.sim.netlist").joinpath("ecp5_cells.v")
        sources["ecp5_cells.v"] = model.read_text(encoding="utf-8")
    speed = command.rpartition(" ")[2].upper()
    script = SCRIPT.format(
        models=MODELS[board.family].format(speed=speed),
        resolve=RESOLVE,
    )
    # Thousands of single bits: -O3 takes the compiler ten minutes where -O1 takes two.
    return Design(script, sources, defines=("XNORFLOW_TAPS=",), optimise="-O1")


@lru_cache(maxsize=2)
def _mapped(text: str, command: str) -> str:
    """Return the netlist that nextpnr would be given of a design in RTLIL."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "top.il").write_text(text, encoding="utf-8")
        # Only the cells of `top` are kept, not the models that synthesis itself has of them.
        script = f"{READ}\n{command} -top top\nselect top\nwrite_json -selected netlist.json\n"
        (folder / "top.ys").write_text(script, encoding="utf-8")
        log = folder / "yosys.log"
        try:
            run(find("yosys"), ["top.ys"], folder, log, "synthesise", lambda step, text: None)
        except ToolFailed as failed:
            # Its log goes with the folder.
            raise WorkFailed(f"yosys could not synthesise the design: {failed.error}") from None
        netlist = (folder / "netlist.json").read_text(encoding="utf-8")
    design = json.loads(netlist)
    refine(design)
    for cell in design["modules"]["top"]["cells"].values():
        # nextpnr wants to see the outputs that nothing reads; yosys takes that for a constant.
        pins, directions = cell["connections"], cell["port_directions"]
        for pin in [p for p, bits in pins.items() if bits == ["x"] and directions[p] == "output"]:
            del pins[pin], directions[pin]
    return json.dumps(design)


def run_core(
    core: StreamingCore,
    bits: NDArray[np.bool_],
    board: Board,
    *,
    stall: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    compiling: Progress = quiet,
) -> CoreRun:
    """Send frames through the netlist of `core` and take what comes out.

    Parameters
    ----------
    core : StreamingCore
    bits, stall, seed, progress, compiling
        See `xnorflow.sim.cxxrtl_engine.run_core`; the stalls are the same.
    board : Board
        Whose device the core is synthesised for.

    Raises
    ------
    CompilerMissing
        If there is no C++ compiler.
    WorkFailed
        If synthesis fails or the core stops giving beats.
    """
    compiling("compile", f"the core to cells of {board.device} and those to C++", 0, None)
    library = load_library(netlist(core, board), "core.cc", compiling)
    return run_library(library, core, bits, stall, seed, [], None, progress)
