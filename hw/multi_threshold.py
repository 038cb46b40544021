"""Several thresholds a neuron: activations of a few bits, found by binary search."""

import numpy as np
from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, merge
from xnorflow.hw.pipeline import delay
from xnorflow.hw.rom import ROM, ROMStyle, rom_parts, varying_bits
from xnorflow.hw.threshold import reaches

__all__ = [
    "MultiThresholdUnit",
    "distinct_levels",
    "jumps",
    "multi_threshold_parts",
    "search_latency",
]

#: Most constants a lane that are compared with side by side. A search takes a comparator with a
#: threshold that changes and a register for the count each step, so that it pays only for more.
SIDE_BY_SIDE = 16


def jumps(thresholds: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the last of each run of rows that are equal for all neurons."""
    differ = (thresholds[1:] != thresholds[:-1]).any(axis=tuple(range(1, thresholds.ndim)))
    return np.append(np.flatnonzero(differ), len(thresholds) - 1)


def distinct_levels(thresholds: NDArray[np.integer]) -> int:
    """Return how many rows of thresholds, shape (levels, ...), differ from the one before."""
    return len(jumps(thresholds))


def search_latency(levels: int, distinct: int, folds: int) -> int:
    """Return `MultiThresholdUnit.latency` for so many levels, of which `distinct_levels` differ."""
    if _side_by_side(distinct, folds):
        return 2
    return bits_for(distinct) * (1 + (folds > 1)) + (distinct < levels)


def _side_by_side(distinct: int, folds: int) -> bool:
    return folds == 1 and distinct <= SIDE_BY_SIDE


def _step_words(thresholds: NDArray[np.integer], top: int, step: int) -> NDArray[np.int64]:
    """Return a step's thresholds for each fold and the bits found so far.

    Parameters
    ----------
    thresholds : ndarray of int, shape (distinct, folds, pe)
    top : int
    step : int

    Returns
    -------
    ndarray of int64, shape (2 ** step, folds, pe)
        First index: the bits found, most significant first.
    """
    bits = bits_for(len(thresholds))
    # Threshold number n, from 1 on, is the least count whose result is n.
    never = np.full((1 << bits, *thresholds.shape[1:]), top + 1, np.int64)
    never[1 : len(thresholds) + 1] = thresholds
    half = 1 << bits - 1 - step
    return never[half :: 2 * half]


def _constant_luts(thresholds: NDArray[np.integer], count_bits: int) -> int:
    """Return the LUT4s that compare a count with constants, see `reaches`."""
    ends = range(4, count_bits + 3, 3)
    # Chains are shared as far as the constants' low bits are the same.
    return sum(len(np.unique(thresholds & ((1 << end) - 1))) for end in ends)


def multi_threshold_parts(family: Family, thresholds: NDArray[np.integer], top: int) -> Parts:
    """Return the parts of a `MultiThresholdUnit`."""
    levels, folds, pe = thresholds.shape
    kept = thresholds[jumps(thresholds)]
    bits, width = bits_for(len(kept)), bits_for(top + 1)
    if _side_by_side(len(kept), folds):
        used = int(((kept > 0) & (kept <= top)).sum())
        chosen = pe * max(0, len(kept) + 1 - bits_for(levels))
        registers = used + pe * bits_for(levels)
        compares = sum(_constant_luts(kept[:, 0, p], bits_for(top)) for p in range(pe))
        return {"comparator LUT": compares + chosen, "register": registers}
    lists: list[Parts] = []
    for step in range(bits):
        words = _step_words(kept, top, step)
        count = len(words)
        lists.append({"register": pe, "bare register": pe * step})
        if step < bits - 1:
            lists.append({"bare register": pe * bits_for(top)})
        lists.append(family.adder("comparator", width, pe))
        varying = varying_bits(words.reshape(count * folds, pe), width)
        # From the second step on, each lane has an address of its own.
        shared = pe if step == 0 else 1
        rom = rom_parts(family, count * folds, varying * shared / pe, ROMStyle.LUT)
        rom = {part: number * pe / shared for part, number in rom.items()}
        if folds == 1:
            lists.append({"ROM LUT": rom.get("ROM LUT", 0.0), "inverted bit": varying})
        else:
            lists.append(merge(rom, {"inverted bit": rom["register"]}))
            lists.append({"bare register": pe * (bits_for(top) + step)})
    if len(kept) < levels:
        lists.append({"comparator LUT": pe * bits_for(levels), "register": pe * bits_for(levels)})
    return merge(*lists)


class MultiThresholdUnit(wiring.Component):
    """``o[p]`` is how many of ``thresholds[:, fold, p]`` are no larger than ``i[p]``.

    A batch norm followed by a quantizer to several levels is such a staircase (Umuroglu, Jahre,
    *Streamlined Deployment for Quantized Neural Networks*, 2017). Thresholds rise, so
    a binary search finds the result, most significant bit first: each step is one comparison a
    lane, with the threshold that the bits found so far choose, and the next beat is a step behind::

        i ---+------------|reg|--+------------|reg|-- ...
             |                   |
            (>=)--|bit 2|--+----(>=)--|bit 1|--+-- ...
             ^             |     ^             |
            ROM(fold)      '-ROM(fold, bit 2)  '-ROM(fold, bits 2, 1)

    Where `n` thresholds are fewer than ``2 ** bits - 1``, the missing ones are never reached.
    Rows of thresholds that are equal for all neurons, as activations with unequal steps have them,
    are searched once, and a table gives the levels in the end.

    With a single fold and few levels, thresholds are constants, and each has a comparator of its
    own, which is little more than a wide gate (`SIDE_BY_SIDE`).

    Latency: `search_latency` enabled cycles: for each bit of the number of different rows 2, of
    which the ROM takes one (1 when there is a single fold), and 1 for the table. With comparators
    side by side 2: those, and the table.

    Parameters
    ----------
    thresholds : ndarray of int, shape (levels, folds, pe)
        Each in ``0 .. top + 1``, rising along the first axis: 0 is always reached, ``top + 1``
        never, and equal ones together.
    top : int
        The largest count that can come in.

    Attributes
    ----------
    levels : int
        The largest result.
    distinct : int
        Rows that differ.
    latency : int

    Members
    -------
    i : In(ArrayLayout(range(top + 1), pe))
    fold : In(range(folds))
    o : Out(ArrayLayout(range(levels + 1), pe))
    en : In(1)
        Clock enable of every register.

    Raises
    ------
    ValueError
        If the thresholds are illegal.
    """

    def __init__(self, thresholds: NDArray[np.integer], top: int):
        if thresholds.ndim != 3:
            raise ValueError(
                f"thresholds must have shape (levels, folds, pe), not {thresholds.shape}"
            )
        if thresholds.min() < 0 or thresholds.max() > top + 1:
            raise ValueError(f"thresholds must lie in 0..{top + 1}")
        if np.any(thresholds[1:] < thresholds[:-1]):
            raise ValueError("thresholds must rise along the first axis")
        self.levels, self.folds, self.pe = thresholds.shape
        self.top = top
        last = jumps(thresholds)
        self.distinct = len(last)
        self._kept, self._results = thresholds[last], [0, *(last + 1).tolist()]
        self.latency = search_latency(self.levels, self.distinct, self.folds)
        super().__init__(
            {
                "i": In(data.ArrayLayout(bits_for(top), self.pe)),
                "fold": In(range(self.folds)),
                "o": Out(data.ArrayLayout(bits_for(self.levels), self.pe)),
                "en": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if _side_by_side(self.distinct, self.folds):
            self._compare_with_all(m)
            return m
        counts, fold = self.i, self.fold
        found: list[Value] = [Const(0, 0)] * self.pe
        for step in range(bits_for(self.distinct)):
            words = _step_words(self._kept, self.top, step)
            if self.folds == 1:
                chosen = [_pick(words[:, 0, p].tolist(), bits) for p, bits in enumerate(found)]
            else:
                chosen = self._chosen(m, step, words, fold, found)
                counts = delay(m, counts, 1, self.en, f"read_{step}")
                fold = delay(m, fold, 1, self.en, f"read_fold_{step}")
                found = [delay(m, bits, 1, self.en, f"read_found_{step}") for bits in found]
            reached = [count >= limit for count, limit in zip(counts, chosen, strict=True)]
            counts = delay(m, counts, 1, self.en, f"count_{step}")
            fold = delay(m, fold, 1, self.en, f"fold_{step}")
            after = []
            for p in range(self.pe):
                bits = Signal(step + 1, name=f"found_{step}_{p}", reset_less=True)
                with m.If(self.en):
                    m.d.sync += bits.eq(found[p] << 1 | reached[p])
                after.append(bits)
            found = after
        if self.distinct == self.levels:
            m.d.comb += [self.o[p].eq(bits) for p, bits in enumerate(found)]
            return m
        with m.If(self.en):
            m.d.sync += [self.o[p].eq(_pick(self._results, bits)) for p, bits in enumerate(found)]
        return m

    def _compare_with_all(self, m: Module) -> None:
        for p, count in enumerate(self.i):
            flags = Signal(self.distinct, name=f"reached_{p}", reset_less=True)
            limits = self._kept[:, 0, p].tolist()
            with m.If(self.en):
                m.d.sync += [
                    flags.eq(Cat(reaches(count, limit) for limit in limits)),
                    self.o[p].eq(_choose(flags, self._results)),
                ]

    def _chosen(
        self, m: Module, step: int, words: NDArray[np.int64], fold: Value, found: list[Value]
    ) -> list[Value]:
        """Return each lane's threshold, a cycle later."""
        width = bits_for(self.top + 1)
        chosen: list[Value] = []
        for p, bits in enumerate(found):
            # The fold is in the address' high bits, so that there are no holes.
            rom = ROM.of_lanes(words[:, :, p].T.reshape(-1, 1), width, ROMStyle.LUT)
            m.submodules[f"rom_{step}_{p}"] = rom
            m.d.comb += [rom.addr.eq(Cat(bits, fold)), rom.en.eq(self.en)]
            chosen.append(rom.data)
        return chosen


def _pick(values: list[int], index: Value) -> Value:
    """Return the constant that `index` chooses."""
    return Array(Const(value, bits_for(max(values))) for value in values)[index]


def _choose(reached: Value, results: list[int]) -> Value:
    """Return the result of the last threshold that is reached; the first if none is."""
    if len(results) == 1:
        return Const(results[0])
    half = len(results) // 2
    above, below = _choose(reached[half:], results[half:]), _choose(reached, results[:half])
    return Mux(reached[half - 1], above, below)
