"""Choose a folding: the smallest that reaches a number of cycles, or the fastest that fits.

Layers are coupled only through the width converters between them and through the block RAMs that
they share, so the fewest LUTs for every number of block RAMs are found exactly by dynamic
programming over the layers (Bellman, 1957).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from xnorflow.cost import Cost, Family, converter_cost, estimate, estimate_layer
from xnorflow.errors import WorkFailed
from xnorflow.folding import Folding, LayerFolding, cycles_per_frame, divisors
from xnorflow.lowered import LoweredLayer, LoweredNetwork

__all__ = ["Budget", "fastest", "smallest"]


@dataclass(frozen=True)
class Budget:
    """LUTs and block RAMs that the core may take."""

    lut: float
    bram: int

    def holds(self, cost: Cost) -> bool:
        """Return whether `cost` fits."""
        return cost.lut <= self.lut and cost.bram <= self.bram


class _Candidates:
    """All foldings of a layer: every (PE, SIMD), and every place for weights and buffer."""

    def __init__(self, family: Family, layer: LoweredLayer, lowered: LoweredNetwork):
        pairs = [(pe, simd) for pe in divisors(layer.mh) for simd in divisors(layer.mw)]
        self.layer = layer
        self.pe, self.simd = np.array(pairs).T
        self.cycles = (layer.mh // self.pe) * (layer.mw // self.simd)
        self.variants: list[list[LayerFolding]] = []
        lut, bram = [], []
        for pe, simd in pairs:
            variants = list(_variants(family, layer, pe, simd))
            costs = [estimate_layer(family, layer, v, lowered.output) for v in variants]
            # Pad to four variants with copies of the first, so that the costs are arrays.
            variants += variants[:1] * (4 - len(variants))
            costs += costs[:1] * (4 - len(costs))
            self.variants.append(variants)
            lut.append([cost.lut for cost in costs])
            bram.append([cost.bram for cost in costs])
        self.lut, self.bram = np.array(lut), np.array(bram)

    def spend(
        self, before: NDArray[np.float64], cycles: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Add this layer to the LUTs (candidate, brams) of those before it.

        Returns the LUTs with it and the variant that was taken.
        """
        after = np.full_like(before, np.inf)
        variant = np.zeros(before.shape, np.int64)
        for candidate in np.flatnonzero(self.cycles <= cycles):
            for pick in range(self.bram.shape[1]):
                brams = self.bram[candidate, pick]
                room = before.shape[1] - brams
                if room <= 0:
                    continue
                total = before[candidate, :room] + self.lut[candidate, pick]
                row = after[candidate, brams:]
                better = total < row
                row[better] = total[better]
                variant[candidate, brams:][better] = pick
        return after, variant


def _variants(family: Family, layer: LoweredLayer, pe: int, simd: int) -> Iterator[LayerFolding]:
    depth = (layer.mh // pe) * (layer.mw // simd)
    buffers = ("auto", "registers") if pe < layer.mh else ("auto",)
    for weights_in in ("constant",) if depth == 1 else ("lut", "bram"):
        for buffer_in in buffers:
            latency = family.bram_latency if weights_in == "bram" else 1
            yield LayerFolding(pe, simd, weights_in, buffer_in, latency)


class _Search:
    def __init__(self, family: Family, lowered: LoweredNetwork, budget: Budget):
        self.family, self.lowered, self.budget = family, lowered, budget
        self.layers = [_Candidates(family, layer, lowered) for layer in lowered.layers]
        self.conversions = [_conversions(*pair) for pair in pairwise(self.layers)]

    def smallest(self, cycles: int) -> tuple[Folding, Cost]:
        """Return the folding of at most `cycles` with the least sum of both shares.

        Its LUTs may be more than there are, its block RAMs not.
        """
        budget = self.budget
        # luts[candidate, brams]: the fewest LUTs of all layers so far.
        luts = np.zeros((1, budget.bram + 1))
        steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for index, layer in enumerate(self.layers):
            if index:
                taken, converters = self.conversions[index - 1]
                edges = np.where(taken <= cycles, converters, np.inf)
                paths = luts[:, None, :] + edges[:, :, None]
                origin = paths.argmin(axis=0)
                before = paths.min(axis=0)
            else:
                before = np.repeat(luts, len(layer.pe), axis=0)
                origin = np.zeros(before.shape, np.int64)
            luts, variant = layer.spend(before, cycles)
            steps.append((origin, variant))
        shares = luts / budget.lut + np.arange(budget.bram + 1) / max(budget.bram, 1)
        shares[luts > budget.lut] += 1e9  # what does not fit only when nothing fits
        candidate, brams = (int(k) for k in np.unravel_index(shares.argmin(), shares.shape))
        choices = []
        for layer, (origin, variant) in zip(reversed(self.layers), reversed(steps), strict=True):
            pick = int(variant[candidate, brams])
            choices.append((layer.layer.name, layer.variants[candidate][pick]))
            brams -= int(layer.bram[candidate, pick])
            candidate = int(origin[candidate, brams])
        folding = dict(reversed(choices))
        return folding, sum(estimate(self.family, self.lowered, folding).values(), Cost())

    def fastest(self) -> Folding | None:
        """Return the folding of fewest cycles that fits, or None if none does."""
        most = max(int(layer.cycles.max()) for layer in self.layers)
        legal = sorted({int(c) for layer in self.layers for c in layer.cycles if c <= most})
        best = None
        low, high = 0, len(legal) - 1
        # More cycles never need more hardware, so the border is found by bisection.
        while low <= high:
            middle = (low + high) // 2
            folding, cost = self.smallest(legal[middle])
            if self.budget.holds(cost):
                best, high = folding, middle - 1
            else:
                low = middle + 1
        return best


def _conversions(
    before: _Candidates, after: _Candidates
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return cycles and LUTs of the width converter for every pair of candidates."""
    pe, simd = before.pe[:, None], after.simd[None, :]
    lanes = np.where(pe == simd, pe, np.gcd(pe, simd))
    luts = np.array([[converter_cost(a, b).lut for b in after.simd] for a in before.pe])
    return after.layer.mw // lanes, luts


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
    folding, cost = search.smallest(cycles)
    if budget.holds(cost):
        return folding, cost
    needed = (
        f"{cycles} cycles a frame would take about {cost.lut:.0f} LUT and {cost.bram} block RAMs, "
        f"but {budget.lut:.0f} and {budget.bram} are to be had"
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
    _, cost = search.smallest(max(int(layer.cycles.max()) for layer in search.layers))
    raise WorkFailed(
        f"the network does not fit: even one neuron and one synapse at a time take about "
        f"{cost.lut:.0f} LUT and {cost.bram} block RAMs, but {budget.lut:.0f} and {budget.bram} "
        "are to be had; take a larger board"
    )
