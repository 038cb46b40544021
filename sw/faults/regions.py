"""Where bits can flip: weight and threshold memories, and the streams between the stages.

The words are those of the hardware without padded channels. A matrix-vector unit holds one bit a
synapse and, for each neuron, the least count of agreements that fires (`xnorflow.hw.threshold`): an
unsigned word that is wide enough for "never". What comes off a stream has the width that the
component before it gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from amaranth import signed, unsigned
from amaranth.hdl import Shape
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw.layouts import Lanes
from xnorflow.hw.mvu import counts
from xnorflow.lowered import LoweredLayer, LoweredNetwork, LoweredPool, LoweredThreshold

__all__ = [
    "STREAMS",
    "TARGETS",
    "Comparator",
    "Region",
    "comparators",
    "element_shapes",
    "lanes_of",
    "regions",
]

#: What can be hit on the way: each frame has flips of its own.
STREAMS = ("activations", "inputs")

#: What can be hit; the first two are memories and stay damaged.
TARGETS = ("weights", "thresholds", *STREAMS)


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
        Its index in the lowered network's stages; -1 for the frame.
    words, width : int
        Words (of a stream: elements of a frame), and bits of a word.
    signed : bool
        Whether a word is in two's complement.
    """

    target: str
    name: str
    stage: int
    words: int
    width: int
    signed: bool = False

    @property
    def bits(self) -> int:
        """Number of bits."""
        return self.words * self.width


@dataclass(frozen=True, eq=False)
class Comparator:
    """How hardware holds the thresholds of a stage: ``acc >= unit * word - base``.

    Attributes
    ----------
    words : ndarray of int64, shape (MH,)
        From 0 (always on) to ``top + 1`` (never).
    top : int
        Largest count that can come in.
    unit : int
    base : ndarray of int64, shape (MH,)
    """

    words: NDArray[np.int64]
    top: int
    unit: int
    base: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Bits of a word."""
        return bits_for(self.top + 1)

    def thresholds(self, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what `words` in this memory mean as thresholds on accumulators."""
        return self.unit * np.minimum(words, self.top + 1) - self.base


def comparators(lowered: LoweredNetwork, shapes: Sequence[Shape]) -> dict[int, Comparator]:
    """Return how each stage that has thresholds holds them, by its index.

    Parameters
    ----------
    lowered : LoweredNetwork
    shapes : sequence of Shape
        See `element_shapes`.
    """
    result: dict[int, Comparator] = {}
    for number, stage in enumerate(lowered.stages):
        if isinstance(stage, LoweredLayer) and stage.thresholds is not None:
            lanes = lanes_of(stage)
            words = counts(stage.thresholds, stage.weights, lanes)
            top = stage.mw * lanes.top
            result[number] = Comparator(words, top, lanes.unit, lanes.base(stage.weights))
        elif isinstance(stage, LoweredThreshold):
            shape = shapes[number - 1]
            top = (1 << shape.width) - 1
            base = np.full(len(stage.thresholds), 1 << shape.width - 1 if shape.signed else 0)
            words = np.clip(stage.thresholds.astype(np.int64) + base, 0, top + 1)
            result[number] = Comparator(words, top, 1, base)
    return result


def lanes_of(layer: LoweredLayer) -> Lanes:
    """Return how a layer's hardware counts; with true zeros a tap's channels share a flag."""
    if not layer.zero_padded or layer.levels > 1:
        return Lanes(layer.input_bits)
    assert layer.window is not None
    return Lanes(1, layer.window.shape[2] // layer.groups)


def regions(
    lowered: LoweredNetwork, shapes: Sequence[Shape], held: Mapping[int, Comparator]
) -> tuple[Region, ...]:
    """Return all regions of a network's hardware, in data-flow order.

    Parameters
    ----------
    lowered : LoweredNetwork
    shapes : sequence of Shape
        See `element_shapes`.
    held : mapping of int to Comparator
        See `comparators`.
    """
    found = [Region("inputs", "input", -1, lowered.input.features, lowered.input.bits)]
    for number, stage in enumerate(lowered.stages):
        if isinstance(stage, LoweredLayer):
            found.append(Region("weights", stage.name, number, stage.weights.size, 1))
        if number in held:
            words, width = len(held[number].words), held[number].width
            found.append(Region("thresholds", stage.name, number, words, width))
        if number < len(lowered.stages) - 1:
            words, width = prod(stage.o_shape), shapes[number].width
            signed = shapes[number].signed
            found.append(Region("activations", stage.name, number, words, width, signed))
    return tuple(found)


def element_shapes(lowered: LoweredNetwork) -> list[Shape]:
    """Return the shape of an element that the hardware of each stage sends on.

    Sums get the width that holds all that the hardware before them could send, as in
    `xnorflow.hw.score` and `xnorflow.hw.pool`; the shape of the last stage is that before the
    affine of the scores.
    """
    shapes: list[Shape] = []
    for stage in lowered.stages:
        shape = unsigned(1)
        if isinstance(stage, LoweredLayer) and stage.thresholds is None:
            lanes = lanes_of(stage)
            base = lanes.base(stage.weights)
            low, high = -int(base.max()), lanes.unit * stage.mw * lanes.top - int(base.min())
            shape = signed(max(bits_for(end, require_sign_bit=True) for end in (low, high)))
        elif isinstance(stage, LoweredPool) and stage.op == "sum":
            element, taps = shapes[-1], stage.window.taps
            shape = unsigned(bits_for(taps * ((1 << element.width) - 1)))
            if element.signed:
                least = -(taps << element.width - 1)
                shape = signed(bits_for(least, require_sign_bit=True))
        shapes.append(shape)
    return shapes
