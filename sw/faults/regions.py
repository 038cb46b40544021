"""Where bits can flip: weight and threshold memories, and the streams between the stages.

The words are those of the hardware without padded channels. A matrix-vector unit holds one bit a
synapse and plane of its weights and, for each neuron, the least counts of agreements that reach its
thresholds (`xnorflow.hw.threshold`, `xnorflow.hw.multi_threshold`): unsigned words that are wide
enough for "never". What comes off a stream has the width that the component before it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from amaranth import signed, unsigned
from amaranth.hdl import Shape
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw.join import narrowest
from xnorflow.hw.layouts import Lanes
from xnorflow.hw.multi_threshold import jumps
from xnorflow.hw.mvu import count_base, count_top, counts, score_unit
from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
    LoweredNetwork,
    LoweredPool,
    LoweredStage,
    LoweredThreshold,
)

__all__ = [
    "STREAMS",
    "TARGETS",
    "Comparator",
    "Place",
    "Region",
    "Spot",
    "comparators",
    "lanes_of",
    "regions",
    "spots",
]

#: What can be hit on the way: each frame has flips of its own.
STREAMS = ("activations", "inputs")

#: What can be hit; the first two are memories and stay damaged.
TARGETS = ("weights", "thresholds", *STREAMS)

Place = tuple[int, int | None]
"""A stage's index and None; or that of a join, and a number on its shortcut."""


@dataclass(frozen=True)
class Region:
    """Bits of one kind in one place.

    Attributes
    ----------
    target : str
        One of `TARGETS`.
    name : str
        The layer or pool that holds or sends the bits; ``input`` for the frame.
    stage : int
        Its index in the lowered network's stages, on a shortcut that of the join; -1 for the frame.
    words, width : int
        Words (of a stream: elements of a frame), and bits of a word.
    signed : bool
        Whether a word is in two's complement.
    side : int or None
        On a shortcut the index of the part that holds the bits, or how many parts are behind the
        stream.
    """

    target: str
    name: str
    stage: int
    words: int
    width: int
    signed: bool = False
    side: int | None = None

    @property
    def bits(self) -> int:
        """Number of bits."""
        return self.words * self.width

    @property
    def place(self) -> Place:
        """Stage and place on a shortcut."""
        return self.stage, self.side


@dataclass(frozen=True, eq=False)
class Spot:
    """A stage, or a part of a shortcut.

    Attributes
    ----------
    place, sends : Place
        Where it stands, and the stream that it sends on.
    name : str
    part : LoweredStage
    before, after : Shape
        Of an element that comes in (on the main way) and goes out, as the hardware has them; the
        shape of the last stage is that before the affine of the scores.
    """

    place: Place
    sends: Place
    name: str
    part: LoweredStage
    before: Shape
    after: Shape


@dataclass(frozen=True, eq=False)
class Comparator:
    """How hardware holds the thresholds of a stage: ``acc >= unit * word - base``.

    Of several thresholds a neuron, those that are equal for all neurons are held once, and a binary
    search finds how many are reached. Where a flip has moved one past another, what the search
    finds still rises with the count.

    Attributes
    ----------
    words : ndarray of int64, shape (MH,) or (held, MH)
        From 0 (always on) to ``top + 1`` (never).
    top : int
        Largest count that can come in.
    unit : int
    base : ndarray of int64, shape (MH,)
    rows : ndarray of int, shape (levels,), or None
        Of several thresholds, the row of `words` that each level is held in.
    """

    words: NDArray[np.int64]
    top: int
    unit: int
    base: NDArray[np.int64]
    rows: NDArray[np.intp] | None = None

    @classmethod
    def of(
        cls, least: NDArray[np.int64], top: int, unit: int, base: NDArray[np.int64]
    ) -> Comparator:
        """Return what holds thresholds on counts, shape (MH,) or (levels, MH)."""
        if least.ndim == 1:
            return cls(least, top, unit, base)
        held = jumps(least)
        return cls(least[held], top, unit, base, np.searchsorted(held, np.arange(len(least))))

    @property
    def width(self) -> int:
        """Bits of a word."""
        return bits_for(self.top + 1)

    def thresholds(self) -> NDArray[np.int64]:
        """Return what this memory means as thresholds on accumulators."""
        words = np.minimum(self.words, self.top + 1)
        if self.rows is not None:
            words = _found(words, self.top + 1)[self.rows]
        return self.unit * words - self.base


def _found(words: NDArray[np.int64], never: int) -> NDArray[np.int64]:
    """Return the least counts for which a binary search finds 1, 2, .. of `words`."""
    held = len(words)
    full = np.full(((1 << bits_for(held)) - 1, *words.shape[1:]), never, np.int64)
    full[:held] = words

    def search(part: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(part):
            return part
        half = len(part) // 2
        middle = part[half : half + 1]
        below, above = search(part[:half]), search(part[half + 1 :])
        return np.concatenate([np.minimum(below, middle), middle, np.maximum(above, middle)])

    return search(full)[:held]


def spots(lowered: LoweredNetwork) -> list[Spot]:
    """Return stages and parts of shortcuts, in data-flow order, those before their join."""
    result: list[Spot] = []
    shapes: list[Shape] = []
    before = unsigned(lowered.input.bits)
    for number, stage in enumerate(lowered.stages):
        if isinstance(stage, LoweredJoin):
            comes = shapes[stage.source]
            for side, part in enumerate(stage.path):
                # Layers have names of their own.
                own = isinstance(part, LoweredLayer)
                name = part.name if own else f"{part.name} (shortcut to {stage.name})"
                after = _sent(part, comes)
                spot = Spot((number, side), (number, side + 1), name, part, comes, after)
                result.append(spot)
                comes = after
        after = _sent(stage, before)
        result.append(Spot((number, None), (number, None), stage.name, stage, before, after))
        shapes.append(after)
        before = after
    return result


def _sent(part: LoweredStage, before: Shape) -> Shape:
    """Return the shape of an element that the hardware of a stage sends on.

    Sums get the width that `xnorflow.hw.score`, `xnorflow.hw.pool` and `xnorflow.hw.join` give
    them.
    """
    match part:
        case LoweredLayer(thresholds=None):
            ones, zeros = np.ones(part.mh, np.int64), np.zeros(part.mh, np.int64)
            unit = score_unit(
                part.signs, ones, zeros, part.planes, lanes_of(part), part.coefficients
            )
            return signed(unit.width)
        case LoweredLayer() | LoweredThreshold():
            return unsigned(bits_for(part.o_range[1]))
        case LoweredPool(op="sum"):
            taps = part.window.taps
            if before.signed:
                return signed(bits_for(-(taps << before.width - 1), require_sign_bit=True))
            return unsigned(bits_for(taps * ((1 << before.width) - 1)))
        case LoweredPool():
            return before
        case LoweredJoin():
            return narrowest(*part.o_range)


def comparators(found: Sequence[Spot]) -> dict[Place, Comparator]:
    """Return how each part that has thresholds holds them, by its place.

    Parameters
    ----------
    found : sequence of Spot
        See `spots`.
    """
    result: dict[Place, Comparator] = {}
    for spot in found:
        part = spot.part
        if isinstance(part, LoweredLayer) and part.thresholds is not None:
            lanes = lanes_of(part)
            words = counts(part.thresholds, part.signs, lanes, part.coefficients)
            result[spot.place] = Comparator.of(
                words,
                count_top(part.mw, lanes, part.coefficients),
                lanes.unit,
                count_base(part.signs, lanes, part.coefficients),
            )
        elif isinstance(part, LoweredThreshold):
            shape = spot.before
            top = (1 << shape.width) - 1
            base = np.full(part.shape[-1], 1 << shape.width - 1 if shape.signed else 0)
            words = np.clip(part.thresholds.astype(np.int64) + base, 0, top + 1)
            result[spot.place] = Comparator.of(words, top, 1, base)
    return result


def lanes_of(layer: LoweredLayer) -> Lanes:
    """Return how a layer's hardware counts; with true zeros a tap's channels share a flag."""
    if not layer.zero_padded or layer.levels > 1:
        return Lanes(layer.input_bits)
    assert layer.window is not None
    return Lanes(1, layer.window.shape[2] // layer.groups)


def regions(
    lowered: LoweredNetwork, found: Sequence[Spot], held: Mapping[Place, Comparator]
) -> tuple[Region, ...]:
    """Return all regions of a network's hardware, in data-flow order.

    Parameters
    ----------
    lowered : LoweredNetwork
    found : sequence of Spot
        See `spots`.
    held : mapping of Place to Comparator
        See `comparators`.
    """
    result = [Region("inputs", "input", -1, lowered.input.features, lowered.input.bits)]
    shapes = {spot.sends: spot.after for spot in found}
    last = len(lowered.stages) - 1
    for spot in found:
        stage, side = spot.place
        join = lowered.stages[stage]
        if isinstance(join, LoweredJoin) and side == (0 if join.path else None):
            source = lowered.stages[join.source]
            shape = shapes[join.source, None]
            name = f"{join.name} (shortcut)"
            result.append(_stream((stage, 0), name, source.o_shape, shape))
        result += _memories(spot, held)
        if spot.sends != (last, None):
            result.append(_stream(spot.sends, spot.name, spot.part.o_shape, spot.after))
    return tuple(result)


def _memories(spot: Spot, held: Mapping[Place, Comparator]) -> Iterator[Region]:
    stage, side = spot.place
    if isinstance(spot.part, LoweredLayer):
        yield Region("weights", spot.name, stage, spot.part.signs.size, 1, side=side)
    if spot.place in held:
        memory = held[spot.place]
        yield Region("thresholds", spot.name, stage, memory.words.size, memory.width, side=side)


def _stream(place: Place, name: str, shape: tuple[int, ...], element: Shape) -> Region:
    stage, side = place
    return Region("activations", name, stage, prod(shape), element.width, element.signed, side)
