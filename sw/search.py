"""Choose a folding: the smallest that reaches a number of cycles, or the fastest that fits.

Layers are coupled only through the width converters between them and through the block RAMs that
they share, so the fewest LUTs for every number of block RAMs and lanes between two layers are found
exactly by dynamic programming over the layers (Bellman, 1957).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.cost import Cost, Family, estimate, stage_cost
from xnorflow.errors import WorkFailed
from xnorflow.folding import Folding, LayerFolding, legal_pe, legal_simd
from xnorflow.lowered import LoweredLayer, LoweredNetwork, LoweredOutput
from xnorflow.pipeline import (
    ConverterStage,
    MatrixStage,
    Segment,
    WindowStage,
    cycles_per_frame,
    segments,
)

__all__ = ["Budget", "fastest", "smallest"]


@dataclass(frozen=True)
class Budget:
    """LUTs (on iCE40 logic cells) and block RAMs that the core may take."""

    lut: float
    bram: int

    def holds(self, cost: Cost) -> bool:
        """Return whether `cost` fits."""
        return cost.cells <= self.lut and cost.bram <= self.bram


class _Candidates:
    """All foldings of a layer: every (PE, SIMD), and every place for weights and buffer.

    Attributes
    ----------
    entry, exit : ndarray of int, shape (candidates,)
        Lanes that come in without a converter; lanes that go out behind pooling.
    cycles : ndarray of int, shape (candidates,)
        Of the slowest stage, the converter before the layer left out.
    lut, bram : ndarray, shape (candidates, variants)
    """

    def __init__(self, family: Family, segment: Segment, output: LoweredOutput):
        self.segment = segment
        self.variants: list[list[LayerFolding]] = []
        entry, leave, cycles, lut, bram = [], [], [], [], []
        for pe in legal_pe(segment.layer):
            for simd in legal_simd(segment.layer):
                variants = list(_variants(family, segment.layer, pe, simd))
                stages = segment.stages(variants[0], None)
                rest = [stage for stage in stages if not isinstance(stage, MatrixStage)]
                around = sum((stage_cost(family, stage, output) for stage in rest), Cost())
                costs = [
                    stage_cost(family, stage, output) + around
                    for variant in variants
                    for stage in segment.stages(variant, None)
                    if isinstance(stage, MatrixStage)
                ]
                # Pad to four variants with copies of the first, so that the costs are arrays.
                variants += variants[:1] * (4 - len(variants))
                costs += costs[:1] * (4 - len(costs))
                self.variants.append(variants)
                entry.append(stages[0].lanes if isinstance(stages[0], WindowStage) else simd)
                leave.append(stages[-1].o_lanes)
                cycles.append(max(stage.cycles for stage in stages))
                lut.append([cost.cells for cost in costs])
                bram.append([cost.bram for cost in costs])
        self.entry, self.exit, self.cycles = np.array(entry), np.array(leave), np.array(cycles)
        self.lut, self.bram = np.array(lut), np.array(bram)

    def converter(self, before: int, entry: int) -> ConverterStage | None:
        """Return the converter between lanes, or None where they agree."""
        if before == entry:
            return None
        layer = self.segment.layer
        return ConverterStage("", layer.input_bits, before, entry, prod(layer.i_shape))


@dataclass(frozen=True, eq=False)
class _Step:
    """How the best way to each exit of a layer, for every number of block RAMs, was found.

    Attributes
    ----------
    lut : ndarray of float, shape (brams,)
        Fewest LUTs of all layers so far.
    candidate, variant, before : ndarray of int, shape (brams,)
        What was taken, and the exit of the layer before.
    """

    lut: NDArray[np.float64]
    candidate: NDArray[np.int64]
    variant: NDArray[np.int64]
    before: NDArray[np.int64]


def _variants(family: Family, layer: LoweredLayer, pe: int, simd: int) -> Iterator[LayerFolding]:
    depth = (layer.mh // pe) * (layer.mw // simd)
    buffers = ("auto", "registers") if pe * layer.groups < layer.mh else ("auto",)
    for weights_in in ("constant",) if depth == 1 else ("lut", "bram"):
        for buffer_in in buffers:
            latency = family.bram_latency if weights_in == "bram" else 1
            yield LayerFolding(pe, simd, weights_in, buffer_in, latency)


class _Search:
    def __init__(self, family: Family, lowered: LoweredNetwork, budget: Budget):
        self.family, self.lowered, self.budget = family, lowered, budget
        self.layers = [
            _Candidates(family, segment, lowered.output) for segment in segments(lowered)
        ]

    def smallest(self, cycles: int) -> tuple[Folding, Cost] | None:
        """Return the folding of at most `cycles` with the least sum of both shares.

        Its LUTs may be more than there are, its block RAMs not. None if no folding is so fast.
        """
        budget, sizes = self.budget, np.arange(self.budget.bram + 1)
        none = np.zeros(len(sizes), np.int64)
        ways = {0: _Step(np.zeros(len(sizes)), none, none, none)}
        steps: list[dict[int, _Step]] = []
        for index, layer in enumerate(self.layers):
            ways = self._spend(layer, ways, cycles, first=index == 0)
            steps.append(ways)
        best: tuple[float, int, int] | None = None
        for leave, way in ways.items():
            shares = way.lut / budget.lut + sizes / max(budget.bram, 1)
            shares[way.lut > budget.lut] += 1e9  # what does not fit only when nothing fits
            brams = int(shares.argmin())
            if np.isfinite(shares[brams]) and (best is None or shares[brams] < best[0]):
                best = float(shares[brams]), leave, brams
        if best is None:
            return None
        _, leave, brams = best
        choices = []
        for layer, step in zip(reversed(self.layers), reversed(steps), strict=True):
            way = step[leave]
            candidate, variant = int(way.candidate[brams]), int(way.variant[brams])
            choices.append((layer.segment.layer.name, layer.variants[candidate][variant]))
            leave = int(way.before[brams])
            brams -= int(layer.bram[candidate, variant])
        folding = dict(reversed(choices))
        return folding, sum(estimate(self.family, self.lowered, folding).values(), Cost())

    def _spend(
        self, layer: _Candidates, ways: dict[int, _Step], cycles: int, first: bool
    ) -> dict[int, _Step]:
        """Add a layer to all ways to the exits of the one before."""
        size = self.budget.bram + 1
        # The best way to each of the layer's entries, converter included.
        entries: dict[int, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
        fast = np.flatnonzero(layer.cycles <= cycles)
        for entry in sorted(set(layer.entry[fast].tolist())):
            lut, origin = np.full(size, np.inf), np.zeros(size, np.int64)
            for leave, way in ways.items():
                price = 0.0
                converter = None if first else layer.converter(leave, entry)
                if converter is not None:
                    if converter.cycles > cycles:
                        continue
                    price = stage_cost(self.family, converter, self.lowered.output).cells
                better = way.lut + price < lut
                lut[better] = way.lut[better] + price
                origin[better] = leave
            entries[entry] = lut, origin
        result: dict[int, _Step] = {}
        for candidate in fast.tolist():
            lut, origin = entries[int(layer.entry[candidate])]
            leave = int(layer.exit[candidate])
            if leave not in result:
                zeros = [np.zeros(size, np.int64) for _ in range(3)]
                result[leave] = _Step(np.full(size, np.inf), *zeros)
            way = result[leave]
            for variant in range(layer.bram.shape[1]):
                brams = int(layer.bram[candidate, variant])
                room = size - brams
                if room <= 0:
                    continue
                total = lut[:room] + layer.lut[candidate, variant]
                gains = np.flatnonzero(total < way.lut[brams:])
                way.lut[brams + gains] = total[gains]
                way.candidate[brams + gains] = candidate
                way.variant[brams + gains] = variant
                way.before[brams + gains] = origin[gains]
        return result

    def fastest(self) -> Folding | None:
        """Return the folding of fewest cycles that fits, or None if none does."""
        legal = sorted({int(c) for layer in self.layers for c in layer.cycles})
        best = None
        low, high = 0, len(legal) - 1
        # More cycles never need more hardware, so the border is found by bisection.
        while low <= high:
            middle = (low + high) // 2
            found = self.smallest(legal[middle])
            if found is not None and self.budget.holds(found[1]):
                best, high = found[0], middle - 1
            else:
                low = middle + 1
        return best

    def slowest(self) -> tuple[Folding, Cost] | None:
        """Return the smallest folding of all."""
        return self.smallest(max(int(layer.cycles.max()) for layer in self.layers))


def smallest(
    lowered: LoweredNetwork, family: Family, budget: Budget, cycles: int
) -> tuple[Folding, Cost]:
    """Return the smallest folding that takes at most `cycles` a frame, with its estimated cost.

    Parameters
    ----------
    lowered : LoweredNetwork
    family : Family
        Prices of the device family.
    budget : Budget
        What the core may take.
    cycles : int
        At least 1.

    Raises
    ------
    WorkFailed
        If no such folding fits the budget; the message says what it would take and the fewest
        cycles that would fit.
    """
    search = _Search(family, lowered, budget)
    found = search.smallest(cycles)
    if found is not None and budget.holds(found[1]):
        return found
    if found is None:
        needed = (
            f"no folding takes as few as {cycles} cycles a frame within {budget.bram} block RAMs"
        )
    else:
        cost = found[1]
        needed = (
            f"{cycles} cycles a frame would take about {cost.cells:.0f} LUT and {cost.bram} block "
            f"RAMs, but {budget.lut:.0f} and {budget.bram} are to be had"
        )
    best = search.fastest()
    if best is None:
        raise WorkFailed(f"the network does not fit: {needed}; take a larger board")
    least = cycles_per_frame(lowered, best)
    raise WorkFailed(f"the folding does not fit: {needed}; {least} cycles a frame would fit")


def fastest(lowered: LoweredNetwork, family: Family, budget: Budget) -> Folding:
    """Return the folding of fewest cycles a frame that fits the budget.

    Raises
    ------
    WorkFailed
        If not even the slowest folding fits.
    """
    search = _Search(family, lowered, budget)
    best = search.fastest()
    if best is not None:
        return best
    found = search.slowest()
    least = (
        f"even one neuron and one synapse at a time take about {found[1].cells:.0f} LUT and "
        f"{found[1].bram} block RAMs"
        if found is not None
        else "its memories alone take more block RAMs"
    )
    raise WorkFailed(
        f"the network does not fit: {least}, but {budget.lut:.0f} and {budget.bram} are to be had; "
        "take a larger board"
    )
