"""Choose a folding: the optimum over all legal foldings under the cost model.

Four objectives: the smallest folding that reaches a number of cycles, the fastest that fits, that
of fewest LUTs at any speed, and that of least latency. ``docs/folding.md`` explains them.

**Bound.** Layers are coupled through the width converters between them, that is through the lanes
and the channels of the stream that passes, and through the block RAMs that they share. So the
fewest LUTs that the layers from any one on can take, for every form of the stream that comes to it
and every number of block RAMs, follow exactly by dynamic programming from the last layer to the
first (Bellman, 1957). Layers on shortcuts stand before the first one, as if what comes to them and
goes from them always had the form that they like. That leaves out the FIFOs and the other stages of
shortcuts, which depend on several layers together and are never negative: it is a bound from below.

**Search.** Partial foldings, from the first layer on, are taken from a queue, those of the least
bound first (A*: Hart, Nilsson, Raphael, 1968), and complete ones are given their FIFOs. No
folding that is still in the queue can be better than the bound of the queue's head. Once that
is no better than the best complete folding, this one is the optimum; mostly that is the first one,
because few foldings need FIFOs. If the effort that is granted runs out before, `Found.bound` says
what no folding can beat.

Latency is no sum over layers, and is bounded by sums: see `xnorflow.ascent`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from itertools import count
from math import inf

import numpy as np
from numpy.typing import NDArray

from xnorflow.ascent import Ascent
from xnorflow.cost import Cost, Family
from xnorflow.errors import WorkFailed
from xnorflow.estimate import beside_layers, estimate_core
from xnorflow.fifo_sizing import fifo_depths, fifos
from xnorflow.folding import Folding
from xnorflow.lowered import LoweredNetwork
from xnorflow.options import FILLING, Budget, Complete, Tables, tables, unrolled
from xnorflow.timing import latency

__all__ = ["EFFORT", "Budget", "Found", "fastest", "least", "quickest", "smallest"]

#: Partial foldings that are looked at before a search is content with a bound.
EFFORT = 80

#: How many times more while nothing fits.
PATIENCE = 3

#: Partial foldings that the FIFOs of a complete one count for: they take about as long.
FIFO_STEPS = 10

#: Bits of a LUT4 as a memory.
LUT_BITS = 16

#: What a block RAM counts, in LUTs, where the fewest LUTs are asked for: it settles ties only.
TIE = 1e-6


@dataclass(frozen=True)
class Found:
    """A folding, and how good it is.

    Attributes
    ----------
    folding : dict of LayerFolding
    cost : Cost
        Of all layers and FIFOs.
    cycles : int
        The core's initiation interval.
    value : float
        What was made small: `Complete.share`, cycles, LUTs, or the latency.
    bound : float
        No legal folding that fits has less.
    """

    folding: Folding
    cost: Cost
    cycles: int
    value: float
    bound: float

    @property
    def proved(self) -> bool:
        """Whether no other folding is better."""
        return self.value <= self.bound * (1 + 1e-9) + 1e-9


class _Search:
    """What the objectives share: tables, bounds, and the queue.

    Parameters
    ----------
    family : Family
    lowered : LoweredNetwork
    budget : Budget
    timed : bool
        Whether latencies are wanted.
    """

    def __init__(
        self, family: Family, lowered: LoweredNetwork, budget: Budget, timed: bool = False
    ):
        _check_room(family, lowered, budget)
        self.timed = timed
        self.family, self.lowered, self.budget = family, lowered, budget
        self.tables: Tables = tables(lowered, family)
        self._fifos: dict[tuple, tuple[float, int, int, int]] = {}

    def bounds(self, cycles: float) -> list[NDArray[np.float64]]:
        """Return the fewest LUTs of the layers from each one on.

        Returns
        -------
        list of ndarray of float, one a layer, shape (forms of the stream before it, brams + 1)
            With at most so many block RAMs; infinite where nothing is as fast as `cycles`.
        """
        size = self.budget.bram + 1
        rest = np.zeros((1, size))
        result = []
        brams = np.arange(size)
        for layer, link in zip(
            reversed(self.tables.layers), reversed(self.tables.links), strict=True
        ):
            entries = np.full((len(layer.entries), size), np.inf)
            fast = np.flatnonzero((layer.cycles <= cycles) & (layer.bram < size))
            # Options of one entry side by side, so that their least is taken at once.
            fast = fast[np.argsort(layer.entry[fast], kind="stable")]
            if len(fast):
                left = brams - layer.bram[fast, None]
                total = rest[layer.leave[fast, None], np.maximum(left, 0)]
                total += layer.lut[fast, None]
                total[left < 0] = np.inf
                entry = layer.entry[fast]
                starts = np.flatnonzero(np.diff(entry, prepend=-1))
                entries[entry[starts]] = np.minimum.reduceat(total, starts, axis=0)
            price = np.where(link.cycles <= cycles, link.lut, np.inf)
            rest = (price[:, :, None] + entries).min(axis=1)
            result.append(rest)
        return result[::-1]

    def walk(
        self,
        cycles: float,
        bounds: list[NDArray[np.float64]],
        value: Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]],
    ) -> Iterator[tuple[float, list[int] | None]]:
        """Yield the least bound of what is left, and the folding that has it when it is complete.

        The bound is `value` of LUTs and block RAMs without FIFOs, over foldings that fit the budget
        without them; more of either never makes it less.
        """
        layers, links = self.tables.layers, self.tables.links
        size = self.budget.bram + 1
        brams = np.arange(size)
        ticket = count()
        queue: list[tuple[float, int, int, int, int, float, tuple]] = []
        heapq.heappush(queue, (0.0, next(ticket), 0, 0, 0, 0.0, ()))
        while queue:
            least, _, place, form, spent, lut, path = heapq.heappop(queue)
            if place == len(layers):
                yield least, unrolled(path)
                continue
            yield least, None
            layer, link = layers[place], links[place]
            price = np.where(link.cycles[form] <= cycles, link.lut[form], np.inf)[layer.entry]
            total = lut + price + layer.lut
            left = size - 1 - spent - layer.bram
            good = np.flatnonzero((layer.cycles <= cycles) & (left >= 0) & np.isfinite(total))
            rest = bounds[place + 1][layer.leave[good]] if place + 1 < len(layers) else None
            most = total[good, None] + (0.0 if rest is None else rest)
            most = np.broadcast_to(most, (len(good), size))
            fits = (brams <= left[good, None]) & (most <= self.budget.lut)
            taken = (spent + layer.bram[good])[:, None] + brams
            values = np.where(fits, value(most, taken), np.inf).min(axis=1)
            for option, least_value in zip(good.tolist(), values.tolist(), strict=True):
                if least_value < inf:
                    node = (
                        least_value,
                        next(ticket),
                        place + 1,
                        int(layer.leave[option]),
                        spent + int(layer.bram[option]),
                        float(total[option]),
                        (path, option),
                    )
                    heapq.heappush(queue, node)

    def complete(self, path: list[int]) -> Complete:
        """Count the FIFOs of a folding, and what it takes in all."""
        layers, links = self.tables.layers, self.tables.links
        key: list[tuple] = []
        lut, bram, form = 0.0, 0, 0
        for layer, link, option in zip(layers, links, path, strict=True):
            choice = layer.choices[option]
            if layer.aside:
                key.append(astuple(choice))
                continue
            key.append((choice.pe, choice.simd, choice.outputs, choice.inputs, choice.rom_latency))
            lut += float(link.lut[form, layer.entry[option]] + layer.lut[option])
            bram += int(layer.bram[option])
            form = int(layer.leave[option])
        known = self._fifos.get(tuple(key))
        if known is None:
            stages = self.tables.stages(path)
            beside = beside_layers(self.family, stages, fifos(stages), self.lowered.output)
            cost = sum((each for *_, each in beside), Cost())
            pace = max(stage.cycles for stage in stages)
            timed = latency(stages, fifo_depths(stages)) if self.timed else 0
            known = cost.cells, cost.bram, pace, timed
            self._fifos[tuple(key)] = known
        return Complete(path, lut + known[0], bram + known[1], known[2], known[3])

    def fitting(self, path: list[int]) -> Complete | None:
        """Return `complete` of a folding that fits with its FIFOs, None for others."""
        complete = self.complete(path)
        fits = complete.lut <= self.budget.lut and complete.bram <= self.budget.bram
        return complete if fits else None

    def best(
        self,
        walk: Iterator[tuple[float, list[int] | None]],
        value: Callable[[Complete], float],
        effort: int | None,
        known: Complete | None = None,
    ) -> tuple[Complete | None, float]:
        """Return the best folding of a walk, and what no folding can beat.

        Parameters
        ----------
        walk : iterator
            See `walk`.
        value : callable
            What is to be small; at least the walk's bound.
        effort : int or None
            See `EFFORT`; None for as many as it takes.
        known : Complete, optional
            A folding that fits.
        """
        best, spent = known, 0
        for bound, path in walk:
            if best is not None and bound >= value(best) - 1e-9:
                return best, value(best)
            if effort is not None and spent > effort * (1 if best is not None else PATIENCE):
                return best, bound
            spent += 1
            if path is not None:
                known_fifos = len(self._fifos)
                complete = self.fitting(path)
                spent += FIFO_STEPS * (len(self._fifos) - known_fifos)
                if complete and (best is None or value(complete) < value(best)):
                    best = complete
        return best, inf if best is None else value(best)

    def found(self, complete: Complete, value: float, bound: float) -> Found:
        """Return the result of a search."""
        folding = self.tables.folding(complete.path)
        cost = estimate_core(self.family, self.lowered, folding).total
        return Found(folding, cost, complete.cycles, value, bound)

    def smallest(
        self, cycles: float, effort: int | None, bram_weight: float = 1.0
    ) -> tuple[Complete | None, float]:
        """Return the least `Budget.share`, and what no folding can beat."""
        bounds = self.bounds(cycles)
        if bounds[0][0, -1] > self.budget.lut:
            return None, inf
        walk = self.walk(
            cycles, bounds, lambda lut, bram: self.budget.share(lut, bram, bram_weight)
        )
        return self.best(walk, lambda it: it.share(self.budget, bram_weight), effort)

    def fastest(self, effort: int | None) -> tuple[Complete | None, float]:
        """Return the fewest cycles, with the least share, and what no folding can beat."""
        paces = self.tables.paces()
        tried: dict[int, tuple[Complete | None, float]] = {}

        def attempt(index: int) -> bool:
            tried[index] = self.smallest(paces[index], effort)
            return tried[index][0] is not None

        # More cycles never need more hardware: each border is found by bisection.
        low = bisect_left(
            range(len(paces)),
            True,
            key=lambda n: bool(self.bounds(paces[n])[0][0, -1] <= self.budget.lut),
        )
        if low == len(paces):
            return None, inf
        # FIFOs seldom matter, so the border with them is near.
        step, high = 1, low
        while not attempt(high):
            if high == len(paces) - 1:
                return None, inf
            high, step = min(high + step, len(paces) - 1), 2 * step
        failed = max((n for n in tried if n < high), default=low - 1)
        while high - failed > 1:
            middle = (high + failed) // 2
            if attempt(middle):
                high = middle
            else:
                failed = middle
        best, _ = self.smallest(paces[high], effort, FILLING)
        best = best or tried[high][0]
        assert best is not None
        open_ = [n for n, (found, bound) in tried.items() if found is None and bound < inf]
        return best, float(min(paces[min([*open_, high])], best.cycles))

    def least(self, effort: int | None) -> tuple[Complete | None, float]:
        """Return the fewest LUTs, and what no folding can beat."""
        bounds = self.bounds(inf)
        if bounds[0][0, -1] > self.budget.lut:
            return None, inf
        walk = self.walk(inf, bounds, lambda lut, bram: lut + TIE * bram)
        return self.best(walk, lambda it: it.lut + TIE * it.bram, effort)

    def quickest(self, effort: int | None) -> tuple[Complete | None, float]:
        """Return the least latency, and what no folding can beat."""
        bounds = self.bounds(inf)
        if bounds[0][0, -1] > self.budget.lut:
            return None, inf
        ascent = Ascent(self.lowered, self.tables, self.budget, self.fitting)
        starts = [ascent.climb(), *ascent.starts()]
        starts += [] if any(starts) else [self.smallest(inf, effort)[0]]
        polished = [ascent.polish(start) for start in starts if start is not None]
        known = min(polished, key=lambda it: it.latency, default=None)
        return self.best(ascent.walk(bounds), lambda it: it.latency, effort, known)


def smallest(
    lowered: LoweredNetwork,
    family: Family,
    budget: Budget,
    cycles: int,
    effort: int | None = EFFORT,
) -> Found:
    """Return the smallest folding that takes at most `cycles` a frame.

    Smallest is what takes the least sum of two shares: of the budget's LUTs and of its block RAMs.

    Parameters
    ----------
    lowered : LoweredNetwork
    family : Family
        The device family.
    budget : Budget
        What the core may take.
    cycles : int
        At least 1.
    effort : int or None
        Steps of the search after its first folding; None for as many as a proof takes.

    Raises
    ------
    WorkFailed
        If no such folding fits the budget; the message says what it would take and the fewest
        cycles that would fit.
    """
    search = _Search(family, lowered, budget)
    best, bound = search.smallest(cycles, effort)
    if best is not None:
        return search.found(best, best.share(budget), bound)
    needed = f"no folding takes as few as {cycles} cycles a frame within {budget.bram} block RAMs"
    lut = search.bounds(cycles)[0][0, -1]
    if lut < inf:
        needed = (
            f"{cycles} cycles a frame would take about {lut:.0f} LUT, but {budget.lut:.0f} are to "
            f"be had, with {budget.bram} block RAMs"
        )
    fastest_, _ = search.fastest(effort)
    if fastest_ is None:
        raise WorkFailed(f"the network does not fit: {needed}; take a larger board")
    raise WorkFailed(
        f"the folding does not fit: {needed}; {fastest_.cycles} cycles a frame would fit"
    )


def fastest(
    lowered: LoweredNetwork, family: Family, budget: Budget, effort: int | None = EFFORT
) -> Found:
    """Return the folding of fewest cycles a frame that fits.

    Of several, the one of the least sum of shares, that of the block RAMs counting `FILLING`.

    Parameters
    ----------
    lowered, family, budget, effort
        See `smallest`.

    Raises
    ------
    WorkFailed
        If not even the slowest folding fits.
    """
    search = _Search(family, lowered, budget)
    best, bound = search.fastest(effort)
    best = _fitting(search, best)
    return search.found(best, best.cycles, bound)


def least(
    lowered: LoweredNetwork, family: Family, budget: Budget, effort: int | None = EFFORT
) -> Found:
    """Return the folding of fewest LUTs at any speed; of several, that of fewest block RAMs.

    Parameters
    ----------
    lowered, family, budget, effort
        See `smallest`.

    Raises
    ------
    WorkFailed
        If no folding fits.
    """
    search = _Search(family, lowered, budget)
    best, bound = search.least(effort)
    best = _fitting(search, best)
    proved = bound >= best.lut + TIE * best.bram
    return search.found(best, best.lut, best.lut if proved else bound - TIE * budget.bram)


def quickest(
    lowered: LoweredNetwork, family: Family, budget: Budget, effort: int | None = EFFORT
) -> Found:
    """Return the folding of least latency that fits.

    Parameters
    ----------
    lowered, family, budget, effort
        See `smallest`.

    Raises
    ------
    WorkFailed
        If no folding fits.
    """
    search = _Search(family, lowered, budget, timed=True)
    best, bound = search.quickest(effort)
    best = _fitting(search, best)
    return search.found(best, best.latency, bound)


def _fitting(search: _Search, best: Complete | None) -> Complete:
    """Return what was found, or say what the network needs."""
    if best is not None:
        return best
    budget = search.budget
    lut = search.bounds(inf)[0][0, -1]
    needed = (
        f"even the smallest folding takes about {lut:.0f} LUT with {budget.bram} block RAMs, but "
        f"{budget.lut:.0f} are to be had"
        if lut < inf
        else f"its memories alone take more than {budget.bram} block RAMs"
    )
    raise WorkFailed(f"the network does not fit: {needed}; take a larger board")


def _check_room(family: Family, lowered: LoweredNetwork, budget: Budget) -> None:
    """Refuse weights that no folding can hold, before all foldings are listed.

    Raises
    ------
    WorkFailed
        If they are more bits than block RAMs and LUTs hold; the message says how many.
    """
    bits = sum(layer.rows * layer.mw for layer in lowered.layers)
    rams, luts = budget.bram * family.bram_bits, int(budget.lut) * LUT_BITS
    if bits > rams + luts:
        raise WorkFailed(
            f"the network does not fit: its weights are {bits:,} bits, but the block RAMs to be "
            f"had hold {rams:,} and the LUTs together {luts:,}; take a board with {bits:,} bits of "
            "block RAM, or fewer or narrower layers"
        )
