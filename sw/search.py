"""Choose a folding: the smallest that reaches a number of cycles, or the fastest that fits.

Layers are coupled only through the width converters between them, so the cheapest choice for a
chain is found by dynamic programming over the layers (Bellman, 1957) at a given price of a block
RAM in LUTs; a sweep over that price balances the two resources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xnorflow.cost import Cost, Family, converter_cost, estimate, estimate_layer
from xnorflow.errors import WorkFailed
from xnorflow.folding import Folding, LayerFolding, cycles_per_frame, divisors
from xnorflow.lowered import LoweredDense, LoweredNetwork

__all__ = ["Budget", "fastest", "smallest"]

#: Prices of a block RAM that are tried, as multiples of its share of the device.
PRICES = (0.0, 0.1, 0.3, 0.6, 1.0, 1.6, 3.0, 10.0, 1000.0)


@dataclass(frozen=True)
class Budget:
    """LUTs and block RAMs that the core may take."""

    lut: float
    bram: int

    def holds(self, cost: Cost) -> bool:
        """Return whether `cost` fits."""
        return cost.lut <= self.lut and cost.bram <= self.bram

    def share(self, cost: Cost, price: float = 1.0) -> float:
        """Return the sum of the shares of the device that `cost` takes."""
        return cost.lut / self.lut + price * cost.bram / max(self.bram, 1)


class _Candidates:
    """All foldings of a layer: every (PE, SIMD), and every place for weights and buffer."""

    def __init__(self, family: Family, layer: LoweredDense, lowered: LoweredNetwork):
        pairs = [(pe, simd) for pe in divisors(layer.mh) for simd in divisors(layer.mw)]
        self.layer = layer
        self.pe, self.simd = np.array(pairs).T
        self.cycles = (layer.mh // self.pe) * (layer.mw // self.simd)
        self.variants: list[list[LayerFolding]] = []
        lut, bram = [], []
        for pe, simd in pairs:
            variants = list(_variants(layer, pe, simd))
            costs = [estimate_layer(family, layer, v, lowered.output) for v in variants]
            # Pad to four variants with copies of the first, so that the costs are arrays.
            variants += variants[:1] * (4 - len(variants))
            costs += costs[:1] * (4 - len(costs))
            self.variants.append(variants)
            lut.append([cost.lut for cost in costs])
            bram.append([cost.bram for cost in costs])
        self.lut, self.bram = np.array(lut), np.array(bram)


def _variants(layer: LoweredDense, pe: int, simd: int) -> Iterator[LayerFolding]:
    depth = (layer.mh // pe) * (layer.mw // simd)
    buffers = ("auto", "registers") if pe < layer.mh else ("auto",)
    for weights_in in ("constant",) if depth == 1 else ("lut", "bram"):
        for buffer_in in buffers:
            yield LayerFolding(pe, simd, weights_in, buffer_in)


class _Search:
    def __init__(self, family: Family, lowered: LoweredNetwork, budget: Budget):
        self.family, self.lowered, self.budget = family, lowered, budget
        self.layers = [_Candidates(family, layer, lowered) for layer in lowered.layers]
        self.conversions = [
            _conversions(before, after)
            for before, after in zip(self.layers, self.layers[1:], strict=False)
        ]

    def at_price(self, cycles: int, price: float) -> Folding | None:
        """Return the cheapest folding of at most `cycles`, or None if there is none."""
        budget = self.budget
        choices: list[NDArray[np.int64]] = []
        origins: list[NDArray[np.int64]] = []
        total: NDArray[np.float64] | None = None
        for index, layer in enumerate(self.layers):
            costs = layer.lut / budget.lut + price * layer.bram / max(budget.bram, 1)
            choices.append(costs.argmin(axis=1))
            cost = np.where(layer.cycles <= cycles, costs.min(axis=1), np.inf)
            if total is not None:
                steps, luts = self.conversions[index - 1]
                paths = np.where(steps <= cycles, total[:, None] + luts / budget.lut, np.inf)
                origins.append(paths.argmin(axis=0))
                cost = cost + paths.min(axis=0)
            total = cost
        assert total is not None
        best = int(total.argmin())
        if not np.isfinite(total[best]):
            return None
        picked = [best]
        for origin in reversed(origins):
            picked.append(int(origin[picked[-1]]))
        return {
            layer.layer.name: layer.variants[pick][choice[pick]]
            for layer, choice, pick in zip(self.layers, choices, reversed(picked), strict=True)
        }

    def smallest(self, cycles: int) -> tuple[Folding, Cost]:
        """Return the cheapest folding of at most `cycles` that fits, else the one nearest to it."""
        found = []
        for price in PRICES:
            folding = self.at_price(cycles, price)
            if folding is not None:
                costs = estimate(self.family, self.lowered, folding).values()
                found.append((folding, sum(costs, Cost())))
        budget = self.budget
        fitting = [each for each in found if budget.holds(each[1])]
        if fitting:
            return min(fitting, key=lambda each: budget.share(each[1]))
        return min(
            found,
            key=lambda each: max(each[1].lut / budget.lut, each[1].bram / max(budget.bram, 1)),
        )

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
