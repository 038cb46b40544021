"""Flip bits, and compute what the hardware then computes.

What is stored stays flipped; on a stream each frame has flips of its own. The golden model does the
arithmetic (`xnorflow.golden.activations`).

Parts of a layer's batch norm that depend on its weights are in its thresholds (or in the constant
behind its accumulators) since it was built, and a weight that flips later does not change them.
With bits they do not depend on the weights; with integers of several bits they do, see
`xnorflow.hw.layouts.Lanes`.

Sums have the width of all that can occur without faults; beyond that they wrap, as the hardware's
do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from amaranth import signed
from amaranth.hdl import Shape
from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.faults.regions import (
    Comparator,
    Place,
    Region,
    comparators,
    lanes_of,
    regions,
    spots,
)
from xnorflow.golden import activations
from xnorflow.hw.join import narrowest
from xnorflow.hw.mvu import count_base, score_unit
from xnorflow.hw.plane_sum import positive_planes
from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
    LoweredMagnitude,
    LoweredNetwork,
    LoweredPool,
    LoweredStage,
    LoweredThreshold,
)

__all__ = ["Faulty", "Upsets"]

Bits = Sequence[tuple[Region, NDArray[np.bool_]]]
"""Regions, and which bits of each flip: word by word, least significant bit first."""


@dataclass(frozen=True, eq=False)
class Faulty:
    """A network with flipped bits.

    Attributes
    ----------
    lowered : LoweredNetwork
        With the weights and thresholds as they are stored now.
    shapes : dict of Place to Shape
        Of an element of each stream of sums, by its place.
    score_width : int
        Bits of a score.
    shifts : dict of Place to ndarray of int64, shape (MH,)
        What the constants behind a layer's accumulators add to what they would be for its weights,
        by the stream that it sends on.
    masks : dict of Place to (Region, ndarray, shape (N, elements))
        The bits that flip on a stream, word by word.
    """

    lowered: LoweredNetwork
    shapes: Mapping[Place, Shape]
    score_width: int
    shifts: Mapping[Place, NDArray[np.int64]] = field(default_factory=dict)
    masks: Mapping[Place, tuple[Region, NDArray]] = field(default_factory=dict)

    def activations(self, frames: NDArray) -> list[NDArray]:
        """Return what every stage sends on; see `xnorflow.golden.activations`."""
        *inner, scores = activations(self.lowered, frames, self._disturb)
        return [*inner, _wrapped(scores, signed(self.score_width))]

    def classes(self, frames: NDArray) -> NDArray[np.int64]:
        """Return the class of every frame, shape (N,)."""
        classes: NDArray[np.int64] = self.activations(frames)[-1].argmax(axis=1)
        return classes

    def _disturb(self, stage: int, side: int | None, x: NDArray) -> NDArray:
        place = stage, side
        if place in self.shifts:
            x = x + self.shifts[place]
        if place in self.shapes and x.dtype != np.bool_:
            x = _wrapped(x, self.shapes[place]).astype(x.dtype)
        if place not in self.masks:
            return x
        region, mask = self.masks[place]
        mask = mask.reshape(x.shape)
        if x.dtype == np.bool_:
            return x ^ mask
        element = Shape(region.width, region.signed)
        return _wrapped(x.astype(np.int64) ^ mask, element).astype(x.dtype)


def _wrapped(x: NDArray, shape: Shape) -> NDArray:
    """Return integers as they come out of so many bits."""
    low = x & ((1 << shape.width) - 1)
    return low - (low >> shape.width - 1 << shape.width) if shape.signed else low


class Upsets:
    """What flipped bits make of a network.

    Parameters
    ----------
    lowered : LoweredNetwork

    Attributes
    ----------
    lowered : LoweredNetwork
        As it is without faults.
    regions : tuple of Region
        Where bits can flip.

    Raises
    ------
    UserError
        If the network has gains of pixels.
    """

    def __init__(self, lowered: LoweredNetwork):
        for step in lowered.flow():
            if isinstance(step.op, LoweredMagnitude):
                raise UserError(
                    f"{step.op.name!r} is a gain of pixels (XNOR-Net's K), which the study of "
                    f"faults does not know; give a network without"
                )
        self.lowered = lowered
        found = spots(lowered)
        self._sends = {spot.place: spot.sends for spot in found}
        self._comparators: dict[Place, Comparator] = comparators(found)
        self._shapes = {spot.sends: spot.after for spot in found if _is_sum(spot.part)}
        self._score_width = _score_width(lowered, found[-1].after)
        self.regions = regions(lowered, found, self._comparators)

    def stored(self, flips: Bits) -> Faulty:
        """Flip bits of weights and thresholds.

        Parameters
        ----------
        flips : sequence of (Region, ndarray of bool, shape (region.bits,))
            Of memories; each at most once.
        """
        parts: dict[Place, LoweredStage] = {}
        held = dict(self._comparators)
        shifts: dict[Place, NDArray[np.int64]] = {}
        for region, bits in flips:
            place = region.place
            if region.target == "thresholds":
                words = held[place].words
                words = words ^ _words(bits, region.width).reshape(words.shape)
                held[place] = replace(held[place], words=words)
                continue
            layer = self._part(place)
            assert isinstance(layer, LoweredLayer)
            parts[place], base = _with_weights(layer, bits)
            if place in held:
                held[place] = replace(held[place], base=base)
            else:
                now = base - count_base(layer.signs, lanes_of(layer), layer.coefficients)
                shifts[self._sends[place]] = now
        for place in {region.place for region, _ in flips} & set(held):
            part = parts.get(place, self._part(place))
            parts[place] = _with_thresholds(part, held[place])
        return Faulty(
            self._with(parts),
            self._shapes,
            self._score_width,
            {place: shift for place, shift in shifts.items() if shift.any()},
        )

    def on_streams(self, flips: Bits) -> Faulty:
        """Flip bits that pass between the stages.

        Parameters
        ----------
        flips : sequence of (Region, ndarray of bool, shape (N, region.bits))
            Of streams, for N frames; each at most once.
        """
        masks = {region.place: (region, _words(bits, region.width)) for region, bits in flips}
        return Faulty(self.lowered, self._shapes, self._score_width, masks=masks)

    def _part(self, place: Place) -> LoweredStage:
        number, side = place
        stage = self.lowered.stages[number]
        if side is None:
            return stage
        assert isinstance(stage, LoweredJoin)
        return stage.path[side]

    def _with(self, parts: Mapping[Place, LoweredStage]) -> LoweredNetwork:
        """Return the network with some parts replaced."""
        stages = list(self.lowered.stages)
        for (number, side), part in parts.items():
            stage = stages[number]
            if side is not None:
                assert isinstance(stage, LoweredJoin)
                assert isinstance(part, LoweredLayer | LoweredPool | LoweredThreshold)
                path = (*stage.path[:side], part, *stage.path[side + 1 :])
                part = replace(stage, path=path)
            stages[number] = part
        return replace(self.lowered, stages=tuple(stages))


def _is_sum(part: LoweredStage) -> bool:
    """Return whether a part sends on what flipped bits before it may make too large for it."""
    if isinstance(part, LoweredLayer):
        return part.thresholds is None
    return isinstance(part, LoweredJoin)


def _score_width(lowered: LoweredNetwork, last: Shape) -> int:
    """Return the bits of a score, whose accumulator or sum has the shape `last`."""
    layer, output = lowered.stages[-1], lowered.output
    if isinstance(layer, LoweredLayer):
        unit = score_unit(
            layer.signs,
            output.scale,
            output.offset,
            layer.planes,
            lanes_of(layer),
            layer.coefficients,
        )
        return unit.width
    least = -(1 << last.width - 1) if last.signed else 0
    ends = [output.scale * end + output.offset for end in (least, least + (1 << last.width) - 1)]
    return narrowest(min(-1, int(np.min(ends))), int(np.max(ends))).width


def _with_weights(
    layer: LoweredLayer, bits: NDArray[np.bool_]
) -> tuple[LoweredLayer, NDArray[np.int64]]:
    """Return a layer with flipped bits of its rows, and what its counts are too large by now."""
    rows, gains = layer.signs, np.ones((1, layer.mh), np.int64)
    if layer.coefficients is not None:
        rows, gains = positive_planes(rows, layer.coefficients)
    rows = np.where(bits.reshape(rows.shape), -rows, rows)
    planes = rows.reshape(layer.mh, -1, layer.mw).astype(np.int64)
    weights = np.einsum("mj,jmi->ji", gains, planes).astype(layer.weights.dtype)
    own = None if layer.coefficients is None else gains
    return replace(layer, weights=weights), count_base(rows, lanes_of(layer), own)


def _words(bits: NDArray[np.bool_], width: int) -> NDArray:
    """Return bits as words of `width`, shape (..., words); those of one bit stay bool."""
    if width == 1:
        return bits
    return bits.reshape(*bits.shape[:-1], -1, width) @ (np.int64(1) << np.arange(width))


def _with_thresholds(stage: LoweredStage, comparator: Comparator) -> LoweredStage:
    """Return a stage with the thresholds that its memory holds."""
    assert isinstance(stage, LoweredLayer | LoweredThreshold)
    thresholds = comparator.thresholds()
    if isinstance(stage, LoweredLayer):
        # Within what a lowered layer may have; beyond lie only other always and never.
        thresholds = np.clip(thresholds, stage.acc_min, stage.acc_max + 1)
    return replace(stage, thresholds=thresholds.astype(np.int32))
