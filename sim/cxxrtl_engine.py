"""Run a streaming core as compiled C++: the engine for whole test sets."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_uint8, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Value
from numpy.typing import NDArray

from xnorflow.elaboration import uncollected
from xnorflow.hw.core import StreamingCore
from xnorflow.progress import Progress, quiet
from xnorflow.sim.cxxrtl.compile import Design, load_library
from xnorflow.sim.cxxrtl.wrapper import CoreWrapper
from xnorflow.sim.run import CoreRun, decode, hangs, has_elements, wait_at_most

__all__ = ["RawRun", "drive", "run_core", "run_library"]

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
    watched = [stage for _, stage in core.placed if watch_layers and has_elements(stage)]
    wrapper = CoreWrapper(core, watched)
    with uncollected():
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
    beats = np.packbits(bits.reshape(-1, core.i_lanes), axis=1, bitorder="little")
    total, patience = len(bits) * core.o_beats, wait_at_most(core, stall)

    def told(done: int) -> None:
        if progress is not None:
            progress(done // core.o_beats)

    raw = drive(library, beats, total, stall, seed, patience, len(watched), vcd, told)
    if len(raw.cycles) < total:
        raise hangs(core, patience, len(raw.cycles), len(bits))
    stages = {stage.name: stage for _, stage in core.placed}
    taps = {
        name: tap.reshape(-1, _bytes(stages[name].unit.o))
        for name, tap in zip(watched, raw.taps, strict=True)
    }
    return decode(core, raw.output.reshape(total, _bytes(core.o)), raw.cycles, raw.first, taps)


@dataclass(frozen=True, eq=False)
class RawRun:
    """What came out of a library.

    Attributes
    ----------
    output : ndarray of uint8
        Beats one behind the other, each in whole bytes, least significant first.
    cycles : ndarray of int64, shape (beats,)
        In which they left.
    first : int
        Cycle in which the first input beat was taken.
    taps : list of ndarray of uint8
        What passed at each tap, as `output`.
    """

    output: NDArray[np.uint8]
    cycles: NDArray[np.int64]
    first: int
    taps: list[NDArray[np.uint8]]


def drive(
    library: ctypes.CDLL,
    beats: NDArray[np.uint8],
    total: int,
    stall: float,
    seed: int,
    patience: int,
    taps: int = 0,
    vcd: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> RawRun:
    """Send beats through a library that was compiled with ``core.cc``.

    Parameters
    ----------
    library : CDLL
    beats : ndarray of uint8, shape (N, bytes of a beat)
        Least significant byte first.
    total : int
        Beats to take; fewer come back if none comes for `patience` cycles.
    stall, seed, vcd
        See `run_core`.
    taps : int
        Number of watched stages.
    progress : callable
        Told the beats that have come.
    """
    beats = np.ascontiguousarray(beats)
    handle = c_void_p(
        _function(library, "new", c_void_p)(
            beats.ctypes.data_as(POINTER(c_uint8)),
            c_uint64(len(beats)),
            c_uint64(int(stall * 2**64)),
            *(c_uint64(int(word)) for word in np.random.SeedSequence(seed).generate_state(2, "u8")),
            c_uint64(taps),
            c_char_p(None if vcd is None else str(vcd).encode()),
        )
    )
    run = _function(library, "run", c_uint64)
    done, quiet_for, cycles = 0, 0, 1000
    progress(0)
    try:
        while done < total and quiet_for < patience:
            start = perf_counter()
            done = run(handle, c_uint64(total), c_uint64(cycles), c_uint64(patience))
            quiet_for = _function(library, "quiet", c_uint64)(handle)
            progress(done)
            if perf_counter() - start < INTERVAL_S / 2:
                cycles *= 2
        if taps:
            # Pixels that no window needs may still be on their way when the last score leaves.
            run(handle, c_uint64(total + 1), c_uint64(patience), c_uint64(2 * patience))

        def copy(name: str, size: int, *which: c_uint64) -> NDArray[np.uint8]:
            pointer = _function(library, name, c_void_p)(handle, *which)
            return np.frombuffer(ctypes.string_at(pointer, size) if size else b"", np.uint8)

        tap_size = _function(library, "tap_size", c_uint64)
        return RawRun(
            copy("output", _function(library, "output_size", c_uint64)(handle)),
            copy("cycles", 8 * done).view(np.int64),
            _function(library, "first", c_uint64)(handle),
            [copy("tap", tap_size(handle, c_uint64(n)), c_uint64(n)) for n in range(taps)],
        )
    finally:
        _function(library, "delete", None)(handle)


def _bytes(port: Any) -> int:
    """Return the whole bytes that a beat of a stream takes."""
    return -(-len(Value.cast(port.payload)) // 8)


def _function(library: ctypes.CDLL, name: str, result: type | None) -> Callable[..., int]:
    function = library[f"xnorflow_{name}"]
    function.restype = result
    return function
