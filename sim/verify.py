"""Compare what the hardware gives with what the golden model gives, frame by frame."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnorflow.boards.board import Board
from xnorflow.errors import UserError
from xnorflow.files import check_writable
from xnorflow.golden import activations
from xnorflow.hw.core import StreamingCore
from xnorflow.lowered import LoweredNetwork
from xnorflow.planning import Plan
from xnorflow.progress import Progress, quiet
from xnorflow.sim import amaranth_engine, cxxrtl_engine, netlist_engine
from xnorflow.sim.cxxrtl.compile import CompilerMissing, compiler
from xnorflow.sim.run import CoreRun

__all__ = ["ENGINES", "Verification", "verify"]

#: Engines by the name that the user gives; `auto` is one of the others.
ENGINES = ("auto", "amaranth", "cxxrtl", "netlist")

#: Cycles that Amaranth's simulator does in less time than a core takes to be compiled.
SHORT = 10_000


@dataclass(frozen=True, eq=False)
class Verification:
    """The outcome of a simulation.

    Attributes
    ----------
    engine : str
        Name of the engine that did it.
    frames : int
        Frames simulated.
    mismatches : int
        Frames in which any output bit differs from the golden model's.
    layer_mismatches : dict of str to int, or None
        The same for what each stage before the last sends on, where asked for.
    accuracy : float or None
        Share of frames whose hardware class is the label; None without labels.
    latency_cycles, latency_cycles_predicted : int
        Of the first frame, from an idle core; see `StreamingCore.latency`.
    cycles_per_frame : float or None
        Measured in steady state: the mean spacing of the last beats of the second half of the
        frames, without the last one if others are left, a whole number where all are equal; None
        with fewer than two frames.
    cycles_per_frame_predicted : int
        The core's initiation interval.
    stall : float
        Probability of an idle cycle before every beat; measured timing matches the predicted one
        only at 0.
    seed : int
        Seed of the stalls.
    seconds : float
        Time the simulation took.
    classes : ndarray of int64, shape (N,)
        The hardware's class of every frame.
    scores : ndarray of int64, shape (N, classes)
        The hardware's scores; the golden model's are `xnorflow.golden.Prediction.scores`.
    plan : Plan or None
        The folding that was simulated, if it was chosen with `xnorflow.planning.plan`.
    notes : tuple of str
        Sentences for the user.
    """

    engine: str
    frames: int
    mismatches: int
    layer_mismatches: dict[str, int] | None
    accuracy: float | None
    latency_cycles: int
    latency_cycles_predicted: int
    cycles_per_frame: float | None
    cycles_per_frame_predicted: int
    stall: float
    seed: int
    seconds: float
    classes: NDArray[np.int64]
    scores: NDArray[np.int64]
    plan: Plan | None = None
    notes: tuple[str, ...] = ()

    @property
    def timing_as_predicted(self) -> bool:
        """Whether latency and cycles per frame were measured exactly as predicted."""
        return self.latency_cycles == self.latency_cycles_predicted and (
            self.cycles_per_frame in (None, self.cycles_per_frame_predicted)
        )

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of the command line's contract."""
        return {
            "engine": self.engine,
            "frames": self.frames,
            "mismatches": self.mismatches,
            "layer_mismatches": self.layer_mismatches,
            "accuracy": self.accuracy,
            "latency_cycles": self.latency_cycles,
            "latency_cycles_predicted": self.latency_cycles_predicted,
            "cycles_per_frame": self.cycles_per_frame,
            "cycles_per_frame_predicted": self.cycles_per_frame_predicted,
            "stall": self.stall,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
        }


def verify(
    core: StreamingCore,
    lowered: LoweredNetwork,
    quantized: NDArray,
    labels: NDArray[np.int64] | None = None,
    *,
    engine: str = "amaranth",
    stall: float = 0.0,
    seed: int = 0,
    watch_layers: bool = False,
    vcd: str | Path | None = None,
    progress: Progress = quiet,
    plan: Plan | None = None,
    board: Board | None = None,
) -> Verification:
    """Simulate `core` on frames and compare every output with the golden model.

    Parameters
    ----------
    core : StreamingCore
        The hardware.
    lowered : LoweredNetwork
        What it must compute.
    quantized : ndarray of bool or unsigned integers, shape (N, F)
        At least one frame, as `xnorflow.golden.quantize` gives them.
    labels : ndarray of int, shape (N,), optional
    engine : str
        One of `ENGINES`. `auto` takes Amaranth's simulator for short runs and ``cxxrtl``, which
        must compile the core first, for longer ones. Without a C++ compiler Amaranth's simulator
        does it all, and a note says so. ``netlist`` runs the cells that synthesis for `board` makes
        of the core; it has no layers to watch and no waveforms.
    stall, seed, watch_layers, vcd
        See `xnorflow.sim.amaranth_engine.run_core`.
    progress : callable
        Told the frames that are done.
    plan : Plan, optional
        What `core` was made from; goes into the result.
    board : Board, optional
        What ``netlist`` synthesises for.

    Raises
    ------
    UserError
        If `engine`, `stall` or `seed` is out of range, `vcd` cannot be written, or ``netlist`` is
        asked for what it cannot do.
    WorkFailed
        If the core stops giving beats.
    """
    if engine not in ENGINES:
        raise UserError(f"`engine` is {engine!r} but must be one of {', '.join(ENGINES)}")
    if not 0 <= stall < 1:
        raise UserError(f"`stall` is {stall:g} but must be at least 0 and below 1")
    if seed < 0:
        raise UserError(f"`seed` is {seed} but must not be negative")
    check_writable(vcd, "`vcd`")
    total = len(quantized)
    if engine == "netlist":
        _check_netlist(board, watch_layers, vcd)
    engine, notes = _choose(engine, core, total)
    options: dict[str, Any] = {
        "stall": stall,
        "seed": seed,
        "progress": lambda done: progress("simulate", f"{total} frames", done, total),
    }
    views: dict[str, Any] = {
        "watch_layers": watch_layers,
        "vcd": None if vcd is None else Path(vcd),
    }
    bits = lowered.input.to_bits(quantized)
    start = time.perf_counter()
    match engine:
        case "amaranth":
            progress("simulate", f"{total} frames", 0, total)
            run = amaranth_engine.run_core(core, bits, **options, **views)
        case "cxxrtl":
            run = cxxrtl_engine.run_core(core, bits, **options, **views, compiling=progress)
        case _:
            assert board is not None
            run = netlist_engine.run_core(core, bits, board, **options, compiling=progress)
    seconds = time.perf_counter() - start
    *inner, scores = activations(lowered, quantized)
    wrong = (run.scores != scores).any(axis=1) | (run.classes != scores.argmax(axis=1))
    layer_mismatches = None
    if watch_layers:
        layer_mismatches = {}
        for step, expected in zip(lowered.flow()[:-1], inner, strict=True):
            stage = step.op
            # Where a layer is padded, only the channels of the network have a meaning.
            pixels = expected.reshape(total, -1, stage.o_shape[-1])
            got = run.stages[stage.name].reshape(*pixels.shape[:2], -1)
            differs = (got[:, :, : pixels.shape[2]] != pixels).any(axis=(1, 2))
            layer_mismatches[stage.name] = int(differs.sum())
            wrong |= differs
    return Verification(
        engine=engine,
        frames=len(quantized),
        mismatches=int(wrong.sum()) if run.framed else len(quantized),
        layer_mismatches=layer_mismatches,
        accuracy=None if labels is None else float((run.classes == labels).mean()),
        latency_cycles=int(run.last_output_cycles[0]) - run.first_input_cycle,
        latency_cycles_predicted=core.latency,
        cycles_per_frame=_spacing(run),
        cycles_per_frame_predicted=core.cycles_per_frame,
        stall=stall,
        seed=seed,
        seconds=seconds,
        classes=run.classes,
        scores=run.scores,
        plan=plan,
        notes=notes,
    )


def _check_netlist(board: Board | None, watch_layers: bool, vcd: str | Path | None) -> None:
    if board is None:
        raise UserError("`engine` netlist synthesises the core for a device; give a `board` too")
    if watch_layers or vcd is not None:
        raise UserError(
            "`engine` netlist has neither `layers` nor `vcd`, since synthesis renames what is "
            "inside; leave them out or take cxxrtl"
        )


def _choose(engine: str, core: StreamingCore, frames: int) -> tuple[str, tuple[str, ...]]:
    """Return the engine that can do the work, and a sentence where it is not what was asked for."""
    short = core.latency + frames * core.cycles_per_frame < SHORT
    if engine == "amaranth" or (engine == "auto" and short):
        return "amaranth", ()
    try:
        compiler()
    except CompilerMissing as error:
        return "amaranth", (f"{error}; Amaranth's simulator does it instead, which is slower",)
    return ("netlist" if engine == "netlist" else "cxxrtl"), ()


def _spacing(run: CoreRun) -> float | None:
    """Return the cycles between frames in steady state.

    Only the second half counts: while the pipeline fills, a layer may wait for its output once. The
    last frame does not count if there are others: none behind it holds it up.
    """
    gaps = np.diff(run.last_output_cycles)
    gaps = gaps[len(gaps) // 2 : max(len(gaps) - 1, len(gaps) // 2 + 1)]
    if not len(gaps):
        return None
    return int(gaps[0]) if np.all(gaps == gaps[0]) else float(gaps.mean())
