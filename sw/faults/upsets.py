"""Flip bits, and compute what the hardware then computes.

What is stored stays flipped; on a stream each frame has flips of its own. The golden model does the
arithmetic (`xnorflow.golden.activations`).

Parts of a layer's batch norm that depend on its weights are in its thresholds (or in the constant
behind its accumulators) since it was built, and a weight that flips later does not change them.
With bits they do not depend on the weights; with integers of several bits they do, see
`xnorflow.hw.layouts.Lanes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.faults.regions import (
    Comparator,
    Region,
    comparators,
    element_shapes,
    lanes_of,
    regions,
)
from xnorflow.golden import activations
from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
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
    shifts : dict of int to ndarray of int64, shape (MH,)
        What the constants behind a layer's accumulators add to what they would be for its weights,
        by the stage's index.
    masks : dict of int to (Region, ndarray, shape (N, elements))
        The bits that flip on a stream, word by word, by the index of the stage that sends it.
    """

    lowered: LoweredNetwork
    shifts: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    masks: Mapping[int, tuple[Region, NDArray]] = field(default_factory=dict)

    def activations(self, frames: NDArray) -> list[NDArray]:
        """Return what every stage sends on; see `xnorflow.golden.activations`."""
        return activations(self.lowered, frames, self._disturb)

    def classes(self, frames: NDArray) -> NDArray[np.int64]:
        """Return the class of every frame, shape (N,)."""
        classes: NDArray[np.int64] = self.activations(frames)[-1].argmax(axis=1)
        return classes

    def _disturb(self, stage: int, x: NDArray) -> NDArray:
        if stage in self.shifts:
            x = x + self.shifts[stage]
        if stage not in self.masks:
            return x
        region, mask = self.masks[stage]
        mask = mask.reshape(x.shape)
        if x.dtype == np.bool_:
            return x ^ mask
        flipped = (x.astype(np.int64) & ((1 << region.width) - 1)) ^ mask
        if region.signed:
            flipped -= (flipped >> region.width - 1) << region.width
        return flipped.astype(x.dtype)


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
        If a layer has weights or activations of several bits, or the network has shortcuts.
    """

    def __init__(self, lowered: LoweredNetwork):
        for stage in lowered.stages:
            if _several(stage):
                raise UserError(
                    f"stage {stage.name!r} has several bits a weight or an activation, or ends a "
                    f"shortcut, where the study of faults does not know the memories; give a "
                    f"network of single bits that is a chain"
                )
        self.lowered = lowered
        shapes = element_shapes(lowered)
        self._comparators: dict[int, Comparator] = comparators(lowered, shapes)
        self.regions = regions(lowered, shapes, self._comparators)

    def stored(self, flips: Bits) -> Faulty:
        """Flip bits of weights and thresholds.

        Parameters
        ----------
        flips : sequence of (Region, ndarray of bool, shape (region.bits,))
            Of memories; each at most once.
        """
        stages = list(self.lowered.stages)
        held = dict(self._comparators)
        shifts: dict[int, NDArray[np.int64]] = {}
        for region, bits in flips:
            number = region.stage
            if region.target == "thresholds":
                words = held[number].words ^ _words(bits, region.width)
                held[number] = replace(held[number], words=words)
                continue
            layer = stages[number]
            assert isinstance(layer, LoweredLayer)
            weights = np.where(bits.reshape(layer.weights.shape), -layer.weights, layer.weights)
            stages[number] = replace(layer, weights=weights)
            lanes = lanes_of(layer)
            base = lanes.base(weights)
            if number in held:
                held[number] = replace(held[number], base=base)
            else:
                shifts[number] = base - lanes.base(layer.weights)
        for number in {region.stage for region, _ in flips} & set(held):
            stages[number] = _with_thresholds(stages[number], held[number])
        return Faulty(
            replace(self.lowered, stages=tuple(stages)),
            {number: shift for number, shift in shifts.items() if shift.any()},
        )

    def on_streams(self, flips: Bits) -> Faulty:
        """Flip bits that pass between the stages.

        Parameters
        ----------
        flips : sequence of (Region, ndarray of bool, shape (N, region.bits))
            Of streams, for N frames; each at most once.
        """
        masks = {region.stage: (region, _words(bits, region.width)) for region, bits in flips}
        return Faulty(self.lowered, masks=masks)


def _several(stage: LoweredStage) -> bool:
    """Return whether a stage is none of those that a network of single bits has."""
    match stage:
        case LoweredLayer():
            return stage.coefficients is not None or stage.o_levels > 1
        case LoweredThreshold():
            return stage.thresholds.ndim > 1
        case LoweredPool():
            return stage.op == "max"
        case LoweredJoin():
            return True


def _words(bits: NDArray[np.bool_], width: int) -> NDArray:
    """Return bits as words of `width`, shape (..., words); those of one bit stay bool."""
    if width == 1:
        return bits
    return bits.reshape(*bits.shape[:-1], -1, width) @ (np.int64(1) << np.arange(width))


def _with_thresholds(stage: LoweredStage, comparator: Comparator) -> LoweredStage:
    """Return a stage with the thresholds that its memory holds."""
    assert isinstance(stage, LoweredLayer | LoweredThreshold)
    thresholds = comparator.thresholds(comparator.words)
    if isinstance(stage, LoweredLayer):
        # Within what a lowered layer may have; beyond lie only other always and never.
        thresholds = np.clip(thresholds, stage.acc_min, stage.acc_max + 1)
    return replace(stage, thresholds=thresholds.astype(np.int32))
