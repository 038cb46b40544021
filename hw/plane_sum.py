"""Weighted sums of counts: neurons whose weights are sums of several planes of -1 and +1."""

import numpy as np
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, index_bits, merge
from xnorflow.hw.pipeline import delay
from xnorflow.hw.rom import ROM, ROMStyle, rom_parts, varying_bits

__all__ = ["PlaneSum", "plane_latency", "plane_sum_parts", "positive_planes"]


def positive_planes(
    weights: NDArray[np.integer], coefficients: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Return planes of the same weights without a negative coefficient.

    Parameters
    ----------
    weights : ndarray of int, shape (MH * M, MW)
        -1 or +1; row ``j * M + m`` is plane m of neuron j.
    coefficients : ndarray of int, shape (M, MH)

    Returns
    -------
    weights : ndarray of int, shape (MH * M, MW)
        Rows with a negative coefficient are negated.
    coefficients : ndarray of int64, shape (M, MH)
    """
    negative = (coefficients < 0).T.reshape(-1, 1)
    return np.where(negative, -weights, weights), np.abs(coefficients.astype(np.int64))


def _table(coefficients: NDArray[np.integer], pe: int) -> NDArray[np.int64]:
    """Return the coefficients of every beat, shape (beats, pe); one period if they repeat."""
    planes = len(coefficients)
    table = coefficients.astype(np.int64).T.reshape(-1, pe)
    for period in (1, max(1, planes // pe)):
        if np.all(table.reshape(-1, period, pe) == table[:period]):
            return table[:period]
    return table


def _one_hot(values: NDArray[np.int64]) -> bool:
    """Return whether all are powers of two, or 0."""
    return bool(np.all(values & (values - 1) == 0))


def _wired(table: NDArray[np.int64]) -> bool:
    """Return whether every product is a shift by a constant."""
    return len(table) == 1 and _one_hot(table)


def _levels(terms: int) -> int:
    return (terms - 1).bit_length()


def plane_latency(coefficients: NDArray[np.integer], pe: int) -> int:
    """Return `PlaneSum.latency`; the signs of `coefficients` do not matter."""
    planes, table = len(coefficients), _table(np.abs(coefficients), pe)
    adders = _levels(min(planes, pe))
    return (len(table) > 1) + (not _wired(table)) + adders + (pe < planes)


def plane_sum_parts(family: Family, coefficients: NDArray[np.integer], pe: int, top: int) -> Parts:
    """Return the parts of a `PlaneSum` but for the flag that goes with its sums."""
    planes, count_bits = len(coefficients), bits_for(top)
    coefficients = np.abs(coefficients.astype(np.int64))
    table = _table(coefficients, pe)
    terms, steps = min(planes, pe), max(1, planes // pe)
    lists: list[Parts] = []
    if len(table) > 1:
        width = bits_for(int(table.max()))
        rom = rom_parts(family, len(table), varying_bits(table, width), ROMStyle.LUT)
        lists.append(merge(rom, {"bare register": pe * count_bits}))
        lists.append({"fold bit": index_bits(len(table) if len(table) > steps else 1)})
    if not _wired(table):
        for column in table.T:
            lists.append({"register": bits_for(int(column.max()) * top)})
            if np.all(column == column[0]):
                ones = int(column[0]).bit_count()
                if ones > 1 and family.multipliers:
                    lists.append({"dsp": 1})
                else:
                    lists.append({"shifted addend bit": max(0, ones - 1) * count_bits})
            elif _one_hot(column):
                # A LUT4 ORs two gated bits.
                choices = int(np.bitwise_or.reduce(column)).bit_count()
                lists.append({"masked bit": choices * count_bits / 2})
            elif family.multipliers:
                lists.append({"dsp": 1})
            else:
                bits = varying_bits(column[:, None], bits_for(int(column.max())))
                lists.append({"product bit": bits * count_bits})
    # Sums of ever more terms.
    tops = [int(column.max()) * top for column in table.T][:terms]
    while len(tops) > 1:
        pairs = [sum(tops[n : n + 2]) for n in range(0, len(tops), 2)]
        lanes = pe // terms
        for number, total in enumerate(pairs):
            kind = "register" if 2 * number + 1 < len(tops) else "bare register"
            lists.append({kind: lanes * bits_for(total)})
            if kind == "register":
                lists.append(family.adder("fixed adder", bits_for(total), lanes))
        tops = pairs
    if steps > 1:
        width = bits_for(top * int(coefficients.sum(axis=0).max()))
        lists.append(family.adder("accumulator", width))
        flags = 2 * (plane_latency(coefficients, pe) - 1)
        lists.append({"register": width, "fold bit": index_bits(steps), "bare register": flags})
    return merge(*lists)


class PlaneSum(wiring.Component):
    """``o[j] = sum over m of coefficients[m, j] * i[j * M + m]``: M planes of a neuron as one.

    A weight of a neuron is ``sum over m of coefficients[m, j] * s[m]`` with signs s[m], so that its
    dot product is that sum of M binary ones (Lin, Zhao, Pan, *Towards Accurate Binary Convolutional
    Neural Network*, 2017; with powers of two, Zhou et al., *DoReFa-Net*, 2016). Counts of
    agreements come in the order of the rows, the plane fastest, `pe` of them a beat:

    - With ``pe % M == 0`` a beat has all planes of ``pe / M`` neurons.
    - With ``M % pe == 0`` a neuron takes ``M / pe`` beats, and its sum comes after the last::

        i[0] --(x)--|reg|--.
        i[1] --(x)--|reg|-(+)--|reg|--(+)--+--|acc|-- o
                ^                      ^---'
           ROM -'

    Coefficients that are the same in all beats are constants, and powers of two then shifts without
    a register. Powers of two that differ between beats gate shifted counts; anything else is
    multiplied.

    Latency: `latency` enabled cycles from a neuron's last beat to its sum: 1 for the ROM where
    coefficients differ between beats, 1 for the products unless they are shifts by constants, 1 a
    level of adders, 1 for the accumulator. A beat a cycle; no idle cycle is needed.

    Parameters
    ----------
    coefficients : ndarray of int, shape (M, MH)
        None negative (see `positive_planes`).
    pe : int
        Counts of a beat; divides ``M * MH`` and is a multiple or a divisor of M.
    top : int
        The largest count that can come in.

    Attributes
    ----------
    lanes : int
        Sums of a beat: ``max(1, pe / M)``.
    steps : int
        Beats that a sum takes: ``max(1, M / pe)``.
    o_top : int
        The largest sum.
    latency : int

    Members
    -------
    i : In(ArrayLayout(range(top + 1), pe))
    valid : In(1)
        A beat is present. Beats come in the order of the neurons, after the last one the first.
    o : Out(ArrayLayout(range(o_top + 1), lanes))
    done : Out(1)
        Sums are present.
    en : In(1)
        Clock enable of every register.

    Raises
    ------
    ValueError
        If a parameter is illegal; the message says what would be legal.
    """

    def __init__(self, coefficients: NDArray[np.integer], pe: int, top: int):
        if coefficients.ndim != 2 or not coefficients.size or coefficients.min() < 0:
            raise ValueError("coefficients must have shape (M, MH) and none be negative")
        planes, neurons = coefficients.shape
        rows = planes * neurons
        legal = [d for d in range(1, rows + 1) if not (rows % d or (d % planes and planes % d))]
        if pe not in legal:
            raise ValueError(f"pe must be one of {legal}, not {pe!r}")
        self.pe, self.top, self.planes = pe, top, planes
        self.lanes, self.steps = max(1, pe // planes), max(1, planes // pe)
        self.o_top = top * int(coefficients.astype(np.int64).sum(axis=0).max())
        self.latency = plane_latency(coefficients, pe)
        self._table = _table(coefficients, pe)
        super().__init__(
            {
                "i": In(data.ArrayLayout(bits_for(top), pe)),
                "valid": In(1),
                "o": Out(data.ArrayLayout(bits_for(self.o_top), self.lanes)),
                "done": Out(1),
                "en": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = Signal(range(self.steps))
        first, last = step == 0, step == self.steps - 1
        with m.If(self.en & self.valid):
            m.d.sync += step.eq(Mux(last, 0, step + 1))
        m.d.comb += self.done.eq(
            delay(m, self.valid & last, self.latency, self.en, "done", reset=True)
        )

        terms = min(self.planes, self.pe)
        products = self._products(m, step)
        sums = [self._sum(m, products[start : start + terms]) for start in range(0, self.pe, terms)]
        if self.steps == 1:
            m.d.comb += [self.o[lane].eq(total) for lane, total in enumerate(sums)]
            return m

        flags = delay(m, Cat(self.valid, first), self.latency - 1, self.en, "flags", reset=True)
        acc = Signal(range(self.o_top + 1), reset_less=True)
        with m.If(self.en & flags[0]):
            m.d.sync += acc.eq((acc & (~flags[1]).replicate(len(acc))) + sums[0])
        m.d.comb += self.o[0].eq(acc)
        return m

    def _products(self, m: Module, step: Signal) -> list[tuple[Value, int]]:
        """Return counts times coefficients, each with its largest value."""
        table, counts = self._table, self.i
        tops = [int(column.max()) * self.top for column in table.T]
        if _wired(table):
            return [
                (counts[p] << int(gain).bit_length() - 1 if gain else counts[p] & 0, tops[p])
                for p, gain in enumerate(table[0])
            ]
        width = bits_for(int(table.max()))
        gains: list[Value | int] = [int(gain) for gain in table[0]]
        if len(table) > 1:
            beat = step
            if len(table) > self.steps:
                beat = Signal(range(len(table)))
                with m.If(self.en & self.valid):
                    m.d.sync += beat.eq(Mux(beat == len(table) - 1, 0, beat + 1))
            m.submodules.rom = rom = ROM.of_lanes(table, width, ROMStyle.LUT)
            m.d.comb += [rom.addr.eq(beat), rom.en.eq(self.en)]
            counts = delay(m, counts, 1, self.en, "count")
            gains = [
                gain if np.all(column == column[0]) else rom.data.word_select(p, width)
                for p, (gain, column) in enumerate(zip(gains, table.T, strict=True))
            ]
        products = []
        for p, (gain, column) in enumerate(zip(gains, table.T, strict=True)):
            product = Signal(range(tops[p] + 1), name=f"product_{p}", reset_less=True)
            value: Value = counts[p] * gain
            if isinstance(gain, Value) and _one_hot(column):
                value = counts[p] & 0
                for bit in range(len(product)):
                    if np.any(column >> bit & 1):
                        value = value | ((counts[p] & gain[bit].replicate(len(counts[p]))) << bit)
            with m.If(self.en):
                m.d.sync += product.eq(value)
            products.append((product, tops[p]))
        return products

    def _sum(self, m: Module, level: list[tuple[Value, int]]) -> Value:
        """Return the sum of `level`, whose values come with the largest of each."""
        while len(level) > 1:
            pairs = []
            for start in range(0, len(level), 2):
                pair = level[start : start + 2]
                top = sum(largest for _, largest in pair)
                total = Signal(range(top + 1), name="total", reset_less=True)
                with m.If(self.en):
                    m.d.sync += total.eq(sum(value for value, _ in pair))
                pairs.append((total, top))
            level = pairs
        return level[0][0]
