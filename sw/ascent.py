"""Foldings of low latency, and a bound on the latency of all foldings that fit."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import combinations, count, pairwise, product
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from xnorflow.lowered import LoweredNetwork
from xnorflow.options import Budget, Complete, Options, Tables, unrolled
from xnorflow.pipeline import segments
from xnorflow.stage_delay import link_delay
from xnorflow.timing import marks

__all__ = ["Ascent"]

#: Steps of the ascent to the best multipliers.
STEPS = 120

#: Factors on the best prices that give foldings to start from, and how many of these are used.
FACTORS, STARTS = (0.9, 1.0, 1.05, 1.15, 1.4, 2.0, 4.0), 1

#: Times that a folding is changed for a lower latency, and changes that are tried each time.
ROUNDS, TRIALS = 8, 3

#: Options of each layer that are tried.
PROMISING = 24

#: Cycles of the fastest arg-max.
LEAST_ARGMAX = 1


class Ascent:
    """A bound on the latency from below, as high as multipliers make it.

    Of the frame that comes to a layer, let the pixel that its first output waits for come at
    ``m`` and the last one at ``l``. With the layer's `Delays` the next layer has these times at
    ``m + first`` and ``max(l + last, m + work)`` or later. So the latency is at least the length of
    each path through the pipeline: first delays up to some layer, that layer's work, and last
    delays from there on. Where a layer waits for its whole frame both times are one, and a path
    ends and another one begins. The latency is at least any average of these paths, and with
    budgets charged by multipliers (Held, Karp, 1971) that is a sum over layers::

        latency >= sum over paths of share * length + price * (LUTs - budget) + ...

    Its minimum over all foldings is found by dynamic programming; the shares and prices that make
    it largest, by projected subgradient steps (Polyak, 1969).

    Parameters
    ----------
    lowered : LoweredNetwork
    tables : Tables
    budget : Budget
    fitting : callable
        Completes a folding with its FIFOs; None if it does not fit.

    Attributes
    ----------
    best : float
        The highest bound so far.
    """

    def __init__(
        self,
        lowered: LoweredNetwork,
        tables: Tables,
        budget: Budget,
        fitting: Callable[[list[int]], Complete | None],
    ):
        self.fitting = fitting
        self.budget = np.array([budget.lut, budget.bram], float)
        self.layers = tables.layers
        # Layers on shortcuts only make the pipeline wait, and add nothing to the bound.
        aside = sum(layer.aside for layer in self.layers)
        # Links and layers in turn are the elements of a path.
        self.elements = 2 * len(self.layers)
        places = marks([part for part in segments(lowered) if not part.aside])
        # Converters also depend on how far apart a layer's beats are: exits are told apart by it.
        self.leave: list[NDArray[np.int64]] = []
        self.prices_of_links: list[NDArray[np.float64]] = []
        self.delays: list[NDArray[np.float64]] = []
        exits = np.zeros((1, 2), np.int64)
        for place, (layer, link) in enumerate(zip(self.layers, tables.links, strict=True)):
            self.prices_of_links.append(link.lut[exits[:, 0]])
            self.delays.append(np.zeros((len(exits), len(layer.entries), 3)))
            main = place - aside
            if main > 0:
                self.delays[-1][:] = _waits(self.layers[place - 1], layer, exits)[..., None]
            delays = np.zeros((len(layer), 3))
            if main >= 0:
                delays[:] = layer.delays(places[main], places[main + 1], source=main == 0)
            self.delays.append(delays)
            pairs = np.stack([layer.leave, layer.spreads()], axis=1)
            if main < 0 or place == len(self.layers) - 1:
                pairs = np.zeros_like(pairs)
            exits, leave = np.unique(pairs, axis=0, return_inverse=True)
            self.leave.append(leave.reshape(-1))
        # Where both marks are one, paths end and begin anew.
        starts = {
            2 * n for n, mark in enumerate(places[:-1], start=aside) if mark.first == mark.last
        }
        starts |= {0, 2 * aside}
        self.blocks = [slice(*ends) for ends in pairwise([*sorted(starts), self.elements])]
        self.shares = np.zeros(self.elements)
        for block in self.blocks:
            # The path of last delays alone is that of the block's first layer at work.
            own = self.delays[block.start + 1]
            own[:, 2] = own[:, 1:].max(axis=1)
            self.shares[block] = 1 / (block.stop - block.start)
        self.prices = np.zeros(2)
        self.best = -inf
        self.best_at = self.shares, self.prices

    def _weights(self, shares: NDArray, prices: NDArray) -> list[NDArray[np.float64]]:
        """Return what each link and each option adds to the sum."""
        before = np.concatenate([np.cumsum(shares[block]) for block in self.blocks]) - shares
        after = 1 - before - shares
        result = []
        for n, array in enumerate(self.delays):
            layer = self.layers[n // 2]
            weight = array @ np.array([after[n], before[n], shares[n]])
            if n % 2:
                result.append(weight + prices[0] * layer.lut + prices[1] * layer.bram)
            else:
                lut = self.prices_of_links[n // 2]
                taken = np.where(np.isfinite(lut), lut, 0)
                result.append(np.where(np.isfinite(lut), weight + prices[0] * taken, inf))
        return result

    def _rest(self, weights: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Return the least sum from each layer on, for each form of the stream before it."""
        rest = [np.zeros(1)]
        for place in reversed(range(len(self.layers))):
            layer = self.layers[place]
            entries = np.full(len(layer.entries), inf)
            np.minimum.at(entries, layer.entry, weights[2 * place + 1] + rest[0][self.leave[place]])
            rest.insert(0, (weights[2 * place] + entries).min(axis=1))
        return rest

    def _path(
        self, weights: list[NDArray[np.float64]], rest: list[NDArray[np.float64]]
    ) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]]:
        """Return the folding of the least sum, the lengths of its paths, and what it takes."""
        path, form = [], 0
        taken = np.zeros(2)
        parts = np.zeros((self.elements, 3))
        for place, layer in enumerate(self.layers):
            total = weights[2 * place + 1] + rest[place + 1][self.leave[place]]
            option = int(np.argmin(weights[2 * place][form, layer.entry] + total))
            entry = int(layer.entry[option])
            taken += [
                self.prices_of_links[place][form, entry] + layer.lut[option],
                layer.bram[option],
            ]
            parts[2 * place] = self.delays[2 * place][form, entry]
            parts[2 * place + 1] = self.delays[2 * place + 1][option]
            path.append(option)
            form = int(self.leave[place][option])
        lengths = np.zeros(self.elements)
        for block in self.blocks:
            first, last, work = parts[block].T
            lengths[block] = np.cumsum(first) - first + work + np.cumsum(last[::-1])[::-1] - last
        return path, lengths, taken

    def climb(self) -> Complete | None:
        """Raise the bound, and return the best folding that was met on the way."""
        best: Complete | None = None
        scale = np.maximum(self.budget, 1)
        step_up, idle = 0.0, 0
        for _ in range(STEPS):
            weights = self._weights(self.shares, self.prices)
            rest = self._rest(weights)
            bound = float(rest[0][0] - self.prices @ self.budget) + LEAST_ARGMAX
            path, lengths, taken = self._path(weights, rest)
            length = sum(lengths[block].max() for block in self.blocks)
            if np.all(taken <= self.budget) and (best is None or length < best.latency):
                complete = self.fitting(path)
                if complete and (best is None or complete.latency < best.latency):
                    best = complete
            slope = np.concatenate(
                [lengths[block] - lengths[block].mean() for block in self.blocks]
            )
            over = (taken - self.budget) / scale
            idle += 1
            if bound > self.best:
                step_up = step_up or bound
                if bound > self.best + step_up / 2 and idle > 1:
                    step_up *= 1.5
                self.best, idle = bound, 0
                self.best_at = self.shares.copy(), self.prices.copy()
            elif idle >= 5:
                # The aim was too high: a lower one, from the best place so far.
                step_up, idle = step_up / 2, 0
                self.shares, self.prices = (values.copy() for values in self.best_at)
                continue
            norm = float(slope @ slope) / length**2 + float(over @ over)
            if norm < 1e-12:
                break
            size = (self.best + step_up - bound) / norm
            for block in self.blocks:
                self.shares[block] = _simplex(self.shares[block] + size * slope[block] / length**2)
            self.prices = np.maximum(self.prices + size * over / scale, 0)
        return best

    def starts(self) -> list[Complete]:
        """Return foldings that the best shares give with other prices, the most promising ones."""
        shares, prices = self.best_at
        paths = set()
        for factors in product(FACTORS, FACTORS):
            weights = self._weights(shares, prices * factors)
            paths.add(tuple(self._path(weights, self._rest(weights))[0]))
        candidates = np.array(sorted(paths))
        models, fit = self._models(candidates)
        order = [n for n in np.argsort(models, kind="stable") if fit[n]]
        complete = (self.fitting(candidates[n].tolist()) for n in order[:STARTS])
        return [start for start in complete if start is not None]

    def _models(self, paths: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the bound of each folding's latency, and whether it fits without FIFOs.

        Parameters
        ----------
        paths : ndarray of int, shape (foldings, layers)
        """
        form = np.zeros(len(paths), np.int64)
        first = last = np.zeros(len(paths))
        taken = np.zeros((len(paths), 2))
        starts = {block.start for block in self.blocks}
        for place, (layer, option) in enumerate(zip(self.layers, paths.T, strict=True)):
            if 2 * place in starts:
                first = last = np.maximum(first, last)
            entry = layer.entry[option]
            taken[:, 0] += self.prices_of_links[place][form, entry] + layer.lut[option]
            taken[:, 1] += layer.bram[option]
            for delays in (self.delays[2 * place][form, entry], self.delays[2 * place + 1][option]):
                last = np.maximum(last + delays[:, 1], first + delays[:, 2])
                first = first + delays[:, 0]
            form = self.leave[place][option]
        return last + LEAST_ARGMAX, np.all(taken <= self.budget, axis=1)

    def polish(self, best: Complete) -> Complete:
        """Return what changes of one layer, or of two at a time, make of a folding."""
        options = self._promising()
        for _ in range(ROUNDS):
            paths = self._neighbours(best.path, options)
            models, fit = self._models(paths)
            good = np.flatnonzero(fit & (models < best.latency))
            order = good[np.argsort(models[good], kind="stable")]
            better = None
            for n in order[:TRIALS]:
                complete = self.fitting(paths[n].tolist())
                if complete and complete.latency < (better or best).latency:
                    better = complete
            if better is None:
                break
            best = better
        return best

    @staticmethod
    def _neighbours(path: list[int], options: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return foldings that differ in one layer or in two, shape (n, layers)."""
        result = []
        own = [np.append(some, option) for some, option in zip(options, path, strict=True)]
        for pair in combinations(range(len(path)), 2) if len(path) > 1 else [(0,)]:
            ways = np.meshgrid(*(own[place] for place in pair), indexing="ij")
            changed = np.tile(np.array(path), (ways[0].size, 1))
            for place, way in zip(pair, ways, strict=True):
                changed[:, place] = way.reshape(-1)
            result.append(changed)
        return np.concatenate(result)

    def _promising(self) -> list[NDArray[np.int64]]:
        """Return the options of each layer through which the best sums lead."""
        weights = self._weights(*self.best_at)
        rest = self._rest(weights)
        result, before = [], np.zeros(1)
        for place, layer in enumerate(self.layers):
            entries = (before[:, None] + weights[2 * place]).min(axis=0)
            through = entries[layer.entry] + weights[2 * place + 1]
            total = through + rest[place + 1][self.leave[place]]
            result.append(np.argsort(total, kind="stable")[:PROMISING])
            before = np.full(len(rest[place + 1]), inf)
            np.minimum.at(before, self.leave[place], through)
        return result

    def walk(self, bounds: list[NDArray[np.float64]]) -> Iterator[tuple[float, list[int] | None]]:
        """Yield as `_Search.walk` does, for the latency; `bounds` are those of the LUTs."""
        shares, prices = self.best_at
        weights = self._weights(shares, prices)
        rest = self._rest(weights)
        lut_budget, bram_budget = self.budget
        base = LEAST_ARGMAX - float(prices @ self.budget)
        ticket = count()
        queue: list[tuple[float, int, int, int, int, float, float, tuple]] = [
            (base + float(rest[0][0]), next(ticket), 0, 0, 0, 0.0, base, ())
        ]
        while queue:
            value, _, place, form, spent, lut, total, path = heapq.heappop(queue)
            # Cycles are whole.
            value = ceil(value - 1e-6)
            if place == len(self.layers):
                yield value, unrolled(path)
                continue
            yield value, None
            layer, leave = self.layers[place], self.leave[place]
            luts = lut + self.prices_of_links[place][form, layer.entry] + layer.lut
            left = int(bram_budget) - spent - layer.bram
            needed = luts
            if place + 1 < len(self.layers):
                needed = luts + bounds[place + 1][layer.leave, np.maximum(left, 0)]
            sums = total + weights[2 * place][form, layer.entry] + weights[2 * place + 1]
            values = sums + rest[place + 1][leave]
            good = np.flatnonzero((left >= 0) & (needed <= lut_budget) & np.isfinite(values))
            for option in good.tolist():
                node = (
                    float(values[option]),
                    next(ticket),
                    place + 1,
                    int(leave[option]),
                    spent + int(layer.bram[option]),
                    float(luts[option]),
                    float(sums[option]),
                    (path, option),
                )
                heapq.heappush(queue, node)


def _waits(before: Options, after: Options, exits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the least delays of converters from `exits` (form, spread) to a layer's entries."""
    result = np.zeros((len(exits), len(after.entries)), np.int64)
    for n, (form, spread) in enumerate(exits.tolist()):
        o_lanes, o_width = before.exits[form]
        for m, (lanes, width) in enumerate(after.entries):
            if o_width == width and o_lanes != lanes:
                result[n, m] = link_delay(o_lanes, lanes, width, spread)
    return result


def _simplex(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest numbers of 0 or more whose sum is 1 (Held, Wolfe, Crowder, 1974)."""
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(values) + 1)
    return np.maximum(values - excess[np.flatnonzero(falling > excess)[-1]], 0)
