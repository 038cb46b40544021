"""What an engine gives back after it has run frames through a core."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data
from numpy.typing import NDArray

from xnorflow.errors import WorkFailed
from xnorflow.hw.core import CoreStage, StreamingCore

__all__ = ["CoreRun", "Timed", "beat_bytes", "decode", "hangs", "has_elements", "wait_at_most"]


@dataclass(frozen=True, eq=False)
class CoreRun:
    """Outputs and timing of N frames.

    Attributes
    ----------
    scores : ndarray of int64, shape (N, classes)
    classes : ndarray of int64, shape (N,)
        The arg-max that the hardware gave in each frame's last beat.
    framed : bool
        Whether `last` was set in every frame's last beat and in no other.
    first_input_cycle : int
        Cycle in which the first frame's first beat was taken.
    last_output_cycles : ndarray of int64, shape (N,)
        Cycle in which each frame's last beat left.
    stages : dict of ndarray of int, each of shape (N, elements)
        What each stage of the core sent on, by name; empty unless asked for.
    """

    scores: NDArray[np.int64]
    classes: NDArray[np.int64]
    framed: bool
    first_input_cycle: int
    last_output_cycles: NDArray[np.int64]
    stages: dict[str, NDArray[np.int64]] = field(default_factory=dict)


class Timed(Protocol):
    """What is known of a core's timing, in cycles."""

    @property
    def latency(self) -> int:
        """From a frame's first beat to its last score, in an idle core."""

    @property
    def cycles_per_frame(self) -> int:
        """The initiation interval."""


def wait_at_most(core: Timed, stall: float) -> int:
    """Return cycles without a beat after which a core hangs: far more than any beat can take."""
    return int(10 * (core.latency + core.cycles_per_frame + 100) / (1 - stall) ** 2)


def hangs(core: StreamingCore, patience: int, beats: int, frames: int) -> WorkFailed:
    """Return what to raise when a core gave `beats` and then nothing for `patience` cycles."""
    return WorkFailed(
        f"simulation: no output for {patience} cycles after {beats // core.o_beats} of {frames} "
        "frames; the core hangs, please report it with the model and the folding"
    )


def beat_bytes(payloads: Sequence[int], layout: data.Layout) -> NDArray[np.uint8]:
    """Return payloads as bytes, shape (beats, ceil(bits / 8)), least significant byte first."""
    size = -(-layout.size // 8)
    raw = b"".join(payload.to_bytes(size, "little") for payload in payloads)
    return np.frombuffer(raw, np.uint8).reshape(len(payloads), size)


def has_elements(stage: CoreStage) -> bool:
    """Tell whether a stage sends on elements of up to 32 bits, which `decode` can take apart."""
    layout = stage.unit.o.payload.shape()
    return isinstance(layout, data.ArrayLayout) and Shape.cast(layout.elem_shape).width <= 32


def decode(
    core: StreamingCore,
    beats: NDArray[np.uint8],
    cycles: NDArray[np.int64],
    first_input_cycle: int,
    taps: Mapping[str, NDArray[np.uint8]],
) -> CoreRun:
    """Take apart what came out of a core.

    Parameters
    ----------
    core : StreamingCore
    beats : ndarray of uint8, shape (frames * o_beats, bytes of a beat)
        Payloads of the output stream, see `beat_bytes`.
    cycles : ndarray of int, shape (frames * o_beats,)
        In which they left.
    first_input_cycle : int
    taps : dict of ndarray of uint8, shape (at least frames * beats of a frame, bytes of a beat)
        What stages that `has_elements` sent on, by name.
    """
    layout = data.Layout.cast(core.o.payload.shape())
    bits = np.unpackbits(beats, axis=1, bitorder="little")
    ends = slice(core.o_beats - 1, None, core.o_beats)
    frames = len(beats) // core.o_beats

    def part(name: str) -> NDArray[np.int64]:
        where = layout[name]
        shape = where.shape
        element = shape.elem_shape if isinstance(shape, data.ArrayLayout) else shape
        width = Shape.cast(shape).width
        return _elements(bits[:, where.offset : where.offset + width], Shape.cast(element))

    last = part("last").reshape(frames, -1)
    stages = {}
    for _, stage in core.placed:
        if stage.name in taps:
            shape = stage.unit.o.payload.shape()
            raw = np.unpackbits(
                taps[stage.name][: frames * stage.o_beats],
                axis=1,
                count=data.Layout.cast(shape).size,
                bitorder="little",
            )
            elements = _elements(raw, Shape.cast(shape.elem_shape))
            stages[stage.name] = elements.reshape(frames, -1)
    return CoreRun(
        scores=part("scores").reshape(frames, core.classes),
        classes=part("index")[ends, 0],
        framed=bool(np.all(last[:, -1] == 1) and not last[:, :-1].any()),
        first_input_cycle=first_input_cycle,
        last_output_cycles=cycles[ends],
        stages=stages,
    )


def _elements(bits: NDArray[np.uint8], shape: Shape) -> NDArray[np.int64]:
    """Return the integers of `shape` that rows of bits hold, lowest first."""
    values = bits.reshape(len(bits), -1, shape.width) @ (np.int64(1) << np.arange(shape.width))
    if shape.signed:
        values -= (values >> shape.width - 1) << shape.width
    return values
