"""Agreements of an input vector with constant weights: neurons share the counts of few inputs."""

from collections.abc import Callable
from functools import cache, reduce
from operator import xor
from typing import Any

import numpy as np
from amaranth import Cat, Const, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw.agreement import agreement_latency, leaf_sizes, tree_level_parts
from xnorflow.hw.carry_chain import add, inject, number_sums
from xnorflow.hw.cost import Family, Parts, distinct
from xnorflow.hw.counting import Counting, lut4

__all__ = ["SharedCounts", "shared_parts"]


@cache
def shared_parts(family: Family, pe: int, simd: int, late: bool) -> Parts:
    """Return the parts of a `SharedCounts` of random weights."""
    sizes = leaf_sizes(simd, late)
    parts = tree_level_parts(family, pe, sizes, simd - sum(sizes), shared=True)
    luts = 0.0
    for size in sizes:
        patterns = distinct(size, pe)
        # Parities, the lowest bit and its inverse; majorities; and the two upper bits.
        luts += 1 + min(size, 2) + (3 if size > 3 else 0)
        luts += distinct(2, pe) * (3 if size > 3 else size > 1)
        luts += patterns * (2 if size > 3 else size > 1)
        parts["register"] = parts.get("register", 0) + patterns * (bits_for(size) - 1) + 2
    parts["shared count LUT"] = luts
    return parts


class SharedCounts(wiring.Component):
    """Count, for many neurons with constant weights, the inputs that agree.

    ``o[p] + late[p] = number of s with a[s] == weight[p, s]``, as the tree of an `AgreementTree`,
    of which neurons have all leaves in common that are alike: seven lanes have 128 patterns of
    weights. The carry of three lanes is a majority, of which, up to its inverse, there are four, so
    that a leaf's carries are twelve LUT4s, for all patterns, and the two upper bits of each
    pattern's count a LUT4 of three of those; the lowest bit is the parity. With 256 neurons that is
    0.1 LUT4 a synapse. Behind the leaves each neuron has adders of its own, of which each takes one
    lane more as its carry in: ``4/15 + 5/31 + ...`` cells a lane, which is less than 0.6.

    Latency: `agreement_latency`. One sum a cycle.

    Parameters
    ----------
    positive : ndarray of bool, shape (pe, simd)
        Where the weights are +1.
    counting : Counting
        `Counting.CCU2C` and `Counting.SB_LUT4` instantiate those.
    late : bool
        Whether a lane may be left to `late`.

    Attributes
    ----------
    top : int
        The largest `o`.
    uses_late : bool
        Whether `late` is more than 0.
    latency : int

    Members
    -------
    a : In(simd)
    o : Out(ArrayLayout(range(top + 1), pe))
    late : Out(pe)
    en : In(1)
        Clock enable of every register.
    """

    def __init__(self, positive: NDArray[np.bool_], counting: Counting, *, late: bool = False):
        self.pe, self.simd = positive.shape
        self.positive, self.counting = positive, counting
        self.sizes = leaf_sizes(self.simd, late)
        self.uses_late = self.simd - sum(self.sizes) == len(self.sizes)
        self.top = self.simd - self.uses_late
        self.latency = agreement_latency(self.simd, late)
        super().__init__(
            {
                "a": In(self.simd),
                "o": Out(data.ArrayLayout(bits_for(self.top), self.pe)),
                "late": Out(self.pe),
                "en": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def register(bits: list[Value], name: str) -> Signal:
            result = Signal(len(bits), name=name, reset_less=True)
            with m.If(self.en):
                m.d.sync += result.eq(Cat(*bits))
            return result

        nodes: list[list[tuple[Signal, int]]] = [[] for _ in range(self.pe)]
        first = 0
        for leaf, size in enumerate(self.sizes):
            known: dict[tuple[bool, ...], Signal] = {}
            counts = _Leaf(m, str(leaf), self.a[first : first + size], self.counting)
            for p, row in enumerate(nodes):
                pattern = tuple(self.positive[p, first : first + size].tolist())
                if pattern not in known:
                    name = "".join(str(int(bit)) for bit in pattern)
                    known[pattern] = register(counts.of(pattern), f"leaf_{leaf}_{name}")
                row.append((known[pattern], size))
            first += size
        # Lanes that wait for their adder, as they are and inverted.
        lanes = range(first, self.simd)
        inputs = [self.a[lane] for lane in lanes]
        waiting = {True: inputs, False: [~bit for bit in inputs]}
        level = 0

        def wait(level: int) -> None:
            for kind in (False, True):
                if waiting[kind]:
                    waiting[kind] = list(register(waiting[kind], f"wait_{level}_{int(kind)}"))

        wait(0)
        while len(nodes[0]) > 1:
            level += 1
            pairs = len(nodes[0]) // 2
            taken = min(pairs, len(waiting[True]))
            after: list[list[tuple[Signal, int]]] = [[] for _ in nodes]
            numbers, places = [], []
            for p, row in enumerate(nodes):
                for n in range(pairs):
                    (x, x_top), (y, y_top) = row[2 * n : 2 * n + 2]
                    places.append((p, n, x_top + y_top + (n < taken)))
                    carry = []
                    if n < taken:
                        lane = self.simd - len(waiting[True]) + n
                        carry = [waiting[bool(self.positive[p, lane])][n]]
                    bits = range(max(len(x), len(y)))
                    added = (add(tuple(x[bit : bit + 1]), tuple(y[bit : bit + 1])) for bit in bits)
                    numbers.append([inject(*carry), *added])
            sums = number_sums(m, numbers, self.counting, f"sums_{level}")
            for (p, n, top), total in zip(places, sums, strict=True):
                after[p].append((register(total[: bits_for(top)], f"sum_{level}_{p}_{n}"), top))
            passed: dict[int, Signal] = {}
            for p, row in enumerate(nodes):
                if len(row) % 2:
                    last, top = row[-1]
                    if id(last) not in passed:
                        passed[id(last)] = register(list(last), f"pass_{level}_{p}")
                    after[p].append((passed[id(last)], top))
            nodes = after
            for kind in (False, True):
                waiting[kind] = waiting[kind][taken:]
            wait(level)
        for p in range(self.pe):
            m.d.comb += self.o[p].eq(nodes[p][0][0])
            if self.uses_late:
                m.d.comb += self.late[p].eq(waiting[bool(self.positive[p, -1])][0])
        return m


class _Leaf:
    """Counts of up to seven lanes for any pattern of weights."""

    def __init__(self, m: Module, name: str, a: Value, counting: Counting):
        self.m, self.name, self.a = m, name, a
        self.cell = counting is Counting.SB_LUT4
        self.made: dict[tuple[str | int, ...], Value] = {}

    def lut(
        self, key: tuple[str | int, ...], function: Callable[..., Any], *inputs: Value
    ) -> Value:
        """Return a LUT4, the same one for the same `key`."""
        if key not in self.made:
            name = f"leaf_{self.name}_" + "_".join(str(part) for part in key)
            self.made[key] = lut4(self.m, name, function, inputs, self.cell)
        return self.made[key]

    def carry(
        self, key: str, inputs: tuple[Value, ...], inverted: tuple[bool, ...]
    ) -> tuple[Value, bool]:
        """Return the majority of three bits, some of them inverted, and whether to invert it."""
        flip = inverted[0]
        turned = tuple(bit != flip for bit in inverted)

        def majority(a: Any, b: Any, c: Any) -> Any:
            b, c = b ^ int(turned[1]), c ^ int(turned[2])
            return (a & b) | (c & (a ^ b))

        return self.lut((key, *map(int, turned)), majority, *inputs), flip

    def parity(self, *lanes: int) -> Value:
        """Return the parity of lanes, of more than four that of those of threes."""
        if len(lanes) == 1:
            return self.a[lanes[0]]
        inputs = [self.a[lane] for lane in lanes]
        if len(lanes) > 4:
            low, high = lanes[:3], lanes[3:6]
            inputs = [self.parity(*low), *(self.a[lane] for lane in high), Const(0, 1)][:3]
            if len(lanes) > 5:
                last = self.a[lanes[6]] if len(lanes) > 6 else Const(0, 1)
                inputs = [self.parity(*low), self.parity(*high), last]
        return self.lut(("x", *lanes), lambda *bits: reduce(xor, bits), *inputs)

    def of(self, pattern: tuple[bool, ...]) -> list[Value]:
        """Return the count of lanes that are what `pattern` says, the lowest bit first."""
        size = len(pattern)
        # A lane counts where it differs from the inverse of the pattern.
        inverted = tuple(not bit for bit in pattern)
        a = [self.a[lane] for lane in range(size)] + [Const(0, 1)] * (7 - size)
        inverted += (False,) * (7 - size)
        odd = sum(inverted) % 2
        lowest = self.lut(("b0", odd), lambda s: s ^ odd, self.parity(*range(size)))
        if size == 1:
            return [lowest]
        c, c_flip = self.carry("c", tuple(a[:3]), inverted[:3])
        if size <= 3:
            return [lowest, self.lut(("b1", *map(int, pattern)), lambda c: c ^ int(c_flip), c)]
        d, d_flip = self.carry("d", tuple(a[3:6]), inverted[3:6])
        parities = (
            self.parity(0, 1, 2),
            self.parity(*range(3, min(size, 6))),
            a[6],
        )
        odds = (sum(inverted[:3]) % 2 == 1, sum(inverted[3:6]) % 2 == 1, inverted[6])
        e, e_flip = self.carry("e", parities, odds)

        def one(c: Any, d: Any, e: Any) -> Any:
            return c ^ d ^ e ^ int(c_flip ^ d_flip ^ e_flip)

        def two(c: Any, d: Any, e: Any) -> Any:
            c, d, e = c ^ int(c_flip), d ^ int(d_flip), e ^ int(e_flip)
            return (c & d) | (e & (c ^ d))

        return [
            lowest,
            self.lut(("b1", *map(int, pattern)), one, c, d, e),
            self.lut(("b2", *map(int, pattern)), two, c, d, e),
        ]
