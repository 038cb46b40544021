"""Run a streaming core as compiled C++: the engine for whole test sets."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_uint8, c_uint64, c_void_p
from pathlib import Path
from time import perf_counter

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Value
from amaranth.lib import data
from numpy.typing import NDArray

from xnorflow.hw.core import StreamingCore
from xnorflow.progress import Progress, quiet
from xnorflow.sim.cxxrtl.compile import Design, load_library
from xnorflow.sim.cxxrtl.wrapper import CoreWrapper
from xnorflow.sim.run import CoreRun, decode, hangs, has_elements, wait_at_most

__all__ = ["run_core", "run_library"]

#: Seconds between two looks at the progress and at the keyboard.
INTERVAL_S = 0.1


def run_core(
    core: StreamingCore,
    bits: NDArray[np.bool_],
    *,
    stall: float = 0.0,
    seed: int = 0,
    watch_layers: bool = False,
    vcd: Path | None = None,
    progress: Callable[[int], None] | None = None,
    compiling: Progress = quiet,
) -> CoreRun:
    """Send frames through `core` back to back and take what comes out.

    The parameters are those of `xnorflow.sim.amaranth_engine.run_core`; the stalls have the same
    probability but are others. The first run of a core compiles it, which `compiling` is told.

    Raises
    ------
    CompilerMissing
        If there is no C++ compiler.
    WorkFailed
        If the core stops giving beats.
    """
    compiling("compile", "the core", 0, None)
    watched = [stage for stage in core.stages if watch_layers and has_elements(stage)]
    wrapper = CoreWrapper(core, watched)
    text = rtlil.convert(wrapper, name="top", ports=wrapper.ports, emit_src=False)
    taps = " ".join(f"TAP({number})" for number in range(len(watched)))
    design = Design(
        "read_rtlil top.il",
        {"top.il": text},
        debug=0 if vcd is None else 4,
        defines=(f"XNORFLOW_TAPS={taps}",),
    )
    library = load_library(design, "core.cc", compiling)
    names = [stage.name for stage in watched]
    return run_library(library, core, bits, stall, seed, names, vcd, progress)


def run_library(
    library: ctypes.CDLL,
    core: StreamingCore,
    bits: NDArray[np.bool_],
    stall: float,
    seed: int,
    watched: list[str],
    vcd: Path | None,
    progress: Callable[[int], None] | None,
) -> CoreRun:
    """Drive what ``core.cc`` was compiled with: a `CoreWrapper` of `core` or a netlist of one.

    Parameters
    ----------
    library : CDLL
    core : StreamingCore
        Tells shapes and timing.
    bits, stall, seed, vcd, progress
        See `run_core`.
    watched : list of str
        Stages with taps, in their order.

    Raises
    ------
    WorkFailed
        If the core stops giving beats.
    """
    beats = len(bits) * core.i_beats
    packed = np.packbits(bits.reshape(beats, core.i_lanes), axis=1, bitorder="little")
    handle = c_void_p(
        _function(library, "new", c_void_p)(
            packed.ctypes.data_as(POINTER(c_uint8)),
            c_uint64(beats),
            c_uint64(int(stall * 2**64)),
            *(c_uint64(int(word)) for word in np.random.SeedSequence(seed).generate_state(2, "u8")),
            c_uint64(len(watched)),
            c_char_p(None if vcd is None else str(vcd).encode()),
        )
    )
    run = _function(library, "run", c_uint64)
    total, patience = len(bits) * core.o_beats, wait_at_most(core, stall)
    done, cycles = 0, 1000
    if progress is not None:
        progress(0)
    try:
        while done < total:
            start = perf_counter()
            done = run(handle, c_uint64(total), c_uint64(cycles), c_uint64(patience))
            if _function(library, "quiet", c_uint64)(handle) >= patience:
                raise hangs(core, patience, done, len(bits))
            if progress is not None:
                progress(done // core.o_beats)
            if perf_counter() - start < INTERVAL_S / 2:
                cycles *= 2
        if watched:
            # Pixels that no window needs may still be on their way when the last score leaves.
            run(handle, c_uint64(total + 1), c_uint64(patience), c_uint64(2 * patience))

        def copy(name: str, size: int, *which: c_uint64) -> NDArray[np.uint8]:
            pointer = _function(library, name, c_void_p)(handle, *which)
            return np.frombuffer(ctypes.string_at(pointer, size) if size else b"", np.uint8)

        taps = {}
        stages = {stage.name: stage for stage in core.stages}
        for number, name in enumerate(watched):
            which = c_uint64(number)
            size = _function(library, "tap_size", c_uint64)(handle, which)
            layout = data.Layout.cast(stages[name].unit.o.payload.shape())
            taps[name] = copy("tap", size, which).reshape(-1, -(-layout.size // 8))
        width = -(-len(Value.cast(core.o.payload)) // 8)
        return decode(
            core,
            copy("output", total * width).reshape(total, width),
            copy("cycles", total * 8).view(np.int64),
            _function(library, "first", c_uint64)(handle),
            taps,
        )
    finally:
        _function(library, "delete", None)(handle)


def _function(library: ctypes.CDLL, name: str, result: type | None) -> Callable[..., int]:
    function = library[f"xnorflow_{name}"]
    function.restype = result
    return function
