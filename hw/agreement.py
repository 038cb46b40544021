"""Agreements of an input vector with the weights of many neurons, counted in few LUT4s."""

from collections.abc import Callable
from functools import cache, reduce
from operator import xor
from typing import Any

import numpy as np
from amaranth import Cat, Module
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw.carry_chain import Slot, add, chain_parts, inject, number_sums
from xnorflow.hw.cost import Family, Parts, distinct, merge
from xnorflow.hw.counting import COUNTING, Counting, lut4
from xnorflow.hw.pipeline import delay

__all__ = [
    "AgreementTree",
    "agreement_latency",
    "agreement_parts",
    "leaf_sizes",
    "mixing_parts",
    "tree_level_parts",
]

#: Most lanes of a leaf.
LEAF = 7

#: Bits, the lowest first, and the largest number that they are.
_Node = tuple[list[Value], int]

#: Of a leaf with so many lanes, those whose XOR stands in place of each input and each weight.
FORMS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((0,),),
    2: ((0,), (0, 1)),
    3: ((0, 1), (0, 2), (0, 1, 2)),
    4: ((0, 1), (0, 2), (0, 1, 2), (0, 1, 2, 3)),
    5: ((0, 1), (0, 2), (0, 1, 2), (3,), (3, 4)),
    6: ((0, 1), (0, 2), (3, 4), (3, 5), (0, 1, 2), (0, 1, 2, 3, 4, 5)),
    7: ((0, 1), (0, 2), (3, 4), (3, 5), (3, 4, 5), (3, 4, 5, 6), (0, 1, 2, 6)),
}


@cache
def leaf_sizes(lanes: int, late: bool) -> tuple[int, ...]:
    """Return the lanes of each leaf of an `AgreementTree`; the others are added behind them."""
    leaves = max(1, -(-(lanes + 1 - late) // (LEAF + 1)))
    first = min(lanes, LEAF * leaves)
    return tuple(first // leaves + (n < first % leaves) for n in range(leaves))


def agreement_latency(lanes: int, late: bool, leaf_latency: int = 1) -> int:
    """Return `AgreementTree.latency`: ``leaf_latency + ceil(log2(leaves))``."""
    return leaf_latency + (len(leaf_sizes(lanes, late)) - 1).bit_length()


#: Of a leaf in LUTs, by its lanes: LUT4s of each neuron.
LEAF_LUTS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 7, 6: 6, 7: 7}


def mixing_parts(family: Family, simd: int, late: bool) -> Parts:
    """Return the parts of `AgreementTree.mix` as inputs are counted in a family."""
    if not COUNTING[family.name].in_luts:
        return {}
    forms = [form for size in leaf_sizes(simd, late) for form in FORMS[size]]
    return {"shared LUT": sum(len(form) > 1 for form in forms)}


def tree_level_parts(
    family: Family, pe: int, sizes: tuple[int, ...], behind: int, *, shared: bool
) -> Parts:
    """Return the parts of the adders behind leaves.

    Parameters
    ----------
    family : Family
    pe : int
        Neurons.
    sizes : tuple of int
        Lanes of each leaf.
    behind : int
        Lanes that the adders take.
    shared : bool
        Whether the lanes that wait are the same for all neurons, as they are and inverted.
    """
    copies = 2 if shared else pe + (not COUNTING[family.name].in_luts)
    lists: list[Parts] = []
    nodes, waiting = list(sizes), behind
    while len(nodes) > 1:
        taken = min(len(nodes) // 2, waiting)
        pairs = list(zip(nodes[::2], nodes[1::2], strict=False))
        lists.append(
            chain_parts(family, tuple(bits_for(max(p)) + 1 for p in pairs) * pe, taken > 0)
        )
        tops = [sum(pair) + (n < taken) for n, pair in enumerate(pairs)]
        lists.append({"register": sum(map(bits_for, tops)) * pe})
        if len(nodes) % 2:
            # A leaf that passes is shared too.
            rows = distinct(nodes[-1], pe) if shared and len(nodes) == len(sizes) else pe
            lists.append({"bare register": bits_for(nodes[-1]) * rows})
        waiting -= taken
        lists.append({"bare register": waiting * copies})
        nodes = [*tops, *nodes[len(nodes) - len(nodes) % 2 :]]
    return merge(*lists)


@cache
def agreement_parts(
    family: Family, pe: int, simd: int, late: bool, weight_bits: int, leaf_latency: int = 1
) -> Parts:
    """Return the parts of an `AgreementTree` as it is counted in a family, but for `mixing_parts`.

    Parameters
    ----------
    family, pe, simd, late, leaf_latency
        See `AgreementTree`.
    weight_bits : int
        Words that the weights come from; neurons with the same few share their leaves.
    """
    sizes = leaf_sizes(simd, late)
    behind = simd - sum(sizes)
    again = leaf_latency - 1
    lists: list[Parts] = [{"register": sum(map(bits_for, sizes)) * pe}]
    if COUNTING[family.name].in_luts:
        for size in sizes:
            copies = distinct(weight_bits * size, pe)
            lists.append({"leaf LUT": LEAF_LUTS[size] * copies})
        lists.append({"leaf LUT": behind * pe, "register": behind * pe})
        lists.append({"bare register": again * (sum(map(bits_for, sizes)) + behind) * pe})
    else:
        triples = sum(1 + (size > 3) for size in sizes) * pe
        lists.append(chain_parts(family, (2,) * triples, True))
        lists.append(chain_parts(family, (3,) * sum(size > 3 for size in sizes) * pe, True))
        lists.append({"bare register": leaf_latency * behind * (pe + 1)})
        lists.append({"register": again * 2 * triples})
        lists.append({"bare register": again * sum(size > 6 for size in sizes) * (pe + 1)})
    return merge(*lists, tree_level_parts(family, pe, sizes, behind, shared=False))


class AgreementTree(wiring.Component):
    """Count, for `pe` neurons, the inputs that agree with their weights.

    ``o[p] + late[p] = number of s with a[s] == weight[p, s]``, as a pipelined tree::

        a --+--[leaf: up to 7 lanes]--|reg|--[+]--|reg|-- ... --[+]--|reg|-- o[p]
        w --'   7 lanes                       ^ one lane more each        late[p]

    With n leaves, n - 1 adders take one lane more each as their carry in, and with `late` whoever
    adds `o` to something takes the last one, so that n leaves are for 8 n lanes.

    The weights come encoded (see `encode`), so that a lane counts where ``a ^ w`` is 1. There are
    two kinds of leaves:

    - In LUTs. The lowest bit of a count is the parity of all inputs and weights, and three lanes
      have a carry where, of a parity 1, all three or, of a parity 0, not all are alike: one LUT4 of
      two XORs of inputs and two of weights. So if those are stored in place of the weights, which
      takes no more memory, and stand in place of the inputs too (see `mix`), made once for all
      neurons, a lane takes a LUT4 in leaves of up to seven lanes (five take 7).
    - In carry chains. A carry that is injected between two sums (see `chain_sums`) makes a full
      adder of any three lanes in two bits of a chain, XORs included in CCU2C; seven lanes take 7.

    Latency: `agreement_latency`. One sum a cycle.

    Parameters
    ----------
    pe, simd : int
        Neurons; inputs, which all of them share.
    counting : Counting
        Kind of the leaves.
    late : bool
        Whether a lane may be left to `late`.
    leaf_latency : int
        1, or 2 for one more register in the leaves, between threes and seven, or behind them where
        they are in LUTs.

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
        Mixed inputs.
    w : In(ArrayLayout(simd, pe))
        Encoded weights.
    o : Out(ArrayLayout(range(top + 1), pe))
    late : Out(pe)
    en : In(1)
        Clock enable of every register.
    """

    def __init__(
        self,
        pe: int,
        simd: int,
        counting: Counting,
        *,
        late: bool = False,
        leaf_latency: int = 1,
    ):
        self.pe, self.simd, self.counting, self.leaf_latency = pe, simd, counting, leaf_latency
        self.sizes = leaf_sizes(simd, late)
        # Lanes that are added behind the leaves.
        self._behind = simd - sum(self.sizes)
        self.uses_late = self._behind == len(self.sizes)
        self.top = simd - self.uses_late
        self.latency = agreement_latency(simd, late, leaf_latency)
        super().__init__(
            {
                "a": In(simd),
                "w": In(data.ArrayLayout(simd, pe)),
                "o": Out(data.ArrayLayout(bits_for(self.top), pe)),
                "late": Out(pe),
                "en": In(1),
            }
        )

    @property
    def _forms(self) -> list[list[int]]:
        """The lanes whose XOR stands in place of each lane."""
        forms: list[list[int]] = []
        if self.counting.in_luts:
            for size in self.sizes:
                first = len(forms)
                forms += [[first + lane for lane in form] for form in FORMS[size]]
        return forms + [[lane] for lane in range(len(forms), self.simd)]

    def mix(self, a: Value) -> Value:
        """Return what `a` is for inputs: XORs of some of them.

        They come before the register that `a` comes from, and cost no depth behind it.
        """
        return Cat(reduce(xor, (a[lane] for lane in form)) for form in self._forms)

    def encode(self, positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return what `w` is for weights.

        Parameters
        ----------
        positive : ndarray of bool, shape (..., simd)
            Where the weights are +1.

        Returns
        -------
        ndarray of bool, shape (..., simd)
        """
        # A lane agrees where the input differs from the weight's inverse.
        inverse = ~positive
        forms = [np.bitwise_xor.reduce(inverse[..., form], axis=-1) for form in self._forms]
        return np.stack(forms, axis=-1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        nodes = self._lut_leaves(m) if self.counting.in_luts else self._chain_leaves(m)
        # Lanes that wait for their adder: with their XOR taken, or both bits of each.
        behind = range(self.simd - self._behind, self.simd)
        pairs = [[(self.a[lane], self.w[p][lane]) for lane in behind] for p in range(self.pe)]
        waiting: list[list[tuple[Value, ...]]]
        if self.counting.in_luts:
            waiting = [[(a ^ w,) for a, w in row] for row in pairs]
        else:
            waiting = [[*row] for row in pairs]
        for cycle in range(self.leaf_latency):
            waiting = self._wait(m, waiting, cycle)
        level = self.leaf_latency - 1
        while len(nodes[0]) > 1:
            level += 1
            taken = min(len(nodes[0]) // 2, len(waiting[0]))
            nodes = self._level(m, nodes, waiting, level)
            waiting = self._wait(m, [row[taken:] for row in waiting], level)
        for p in range(self.pe):
            m.d.comb += self.o[p].eq(Cat(*nodes[p][0][0]))
            if self.uses_late:
                bits = waiting[p][0]
                m.d.comb += self.late[p].eq(bits[0] if len(bits) == 1 else bits[0] ^ bits[1])
        return m

    def _register(self, m: Module, bits: list[Value], name: str) -> list[Value]:
        return list(delay(m, Cat(*bits), 1, self.en, name))

    def _wait(
        self, m: Module, waiting: list[list[tuple[Value, ...]]], level: int
    ) -> list[list[tuple[Value, ...]]]:
        """Return bits a cycle later; those of the input are registered once for all neurons."""
        if not waiting[0]:
            return waiting
        own = [[bits[-1] for bits in row] for row in waiting]
        own = [self._register(m, row, f"wait_{level}_{p}") for p, row in enumerate(own)]
        if self.counting.in_luts:
            return [[(bit,) for bit in row] for row in own]
        shared = self._register(m, [a for a, _ in waiting[0]], f"wait_{level}_a")
        return [list(zip(shared, row, strict=True)) for row in own]

    def _later(self, m: Module, lanes: list[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
        """Return the seventh lanes of the leaves a cycle later; inputs wait once for all PEs."""
        inputs: dict[int, Value] = {}
        later: list[tuple[Value, ...]] = []
        for n, lane in enumerate(lanes):
            if not lane:
                later.append(())
                continue
            place = n % len(self.sizes)
            if place not in inputs:
                inputs[place] = Value.cast(delay(m, lane[0], 1, self.en, f"seventh_a_{place}"))
            later.append((inputs[place], Value.cast(delay(m, lane[1], 1, self.en, f"seventh_{n}"))))
        return later

    def _level(
        self,
        m: Module,
        nodes: list[list[_Node]],
        waiting: list[list[tuple[Value, ...]]],
        level: int,
    ) -> list[list[_Node]]:
        """Add the nodes of every neuron in pairs."""
        after: list[list[_Node]] = [[] for _ in nodes]
        numbers, places = [], []
        for p, row in enumerate(nodes):
            for n in range(len(row) // 2):
                (x, x_top), (y, y_top) = row[2 * n : 2 * n + 2]
                lane = waiting[p][n] if n < len(waiting[p]) else ()
                numbers.append([inject(*lane), *_added(x, y)])
                places.append((p, n, x_top + y_top + bool(lane)))
        sums = number_sums(m, numbers, self.counting, f"sums_{level}")
        for (p, n, top), bits in zip(places, sums, strict=True):
            register = self._register(m, bits[: bits_for(top)], f"sum_{level}_{p}_{n}")
            after[p].append((register, top))
        for p, row in enumerate(nodes):
            if len(row) % 2:
                register = self._register(m, row[-1][0], f"pass_{level}_{p}")
                after[p].append((register, row[-1][1]))
        return after

    def _lut_leaves(self, m: Module) -> list[list[_Node]]:
        """Return the bits and lanes of each neuron's leaves."""
        cell = self.counting is Counting.SB_LUT4
        rows: list[list[_Node]] = [[] for _ in range(self.pe)]
        first = 0
        for leaf, size in enumerate(self.sizes):
            for p in range(self.pe):
                weights = list(self.w[p][first : first + size])
                inputs = list(self.a[first : first + size])
                leaf_unit = _LutLeaf(m, f"{leaf}_{p}", inputs, weights, cell, self.en)
                bits = leaf_unit.bits()
                if self.leaf_latency > 1:
                    bits = self._register(m, bits, f"again_{leaf}_{p}")
                rows[p].append((bits, size))
            first += size
        return rows

    def _chain_leaves(self, m: Module) -> list[list[_Node]]:
        """Return the bits and lanes of each neuron's leaves."""
        # First three lanes each, of which a leaf has one or two times as many.
        triples: list[list[Slot]] = []
        seventh: list[tuple[Value, ...]] = []
        for p in range(self.pe):
            lane = 0
            for size in self.sizes:
                lanes = list(zip(self.a[lane:], self.w[p][lane:], strict=True))[:size]
                for n in range(0, min(size, 6), 3):
                    parts = [*lanes[n : min(n + 3, size)], (), ()]
                    triples.append([inject(*parts[2]), add(parts[0], parts[1])])
                seventh.append(lanes[6] if size > 6 else ())
                lane += size
        threes = number_sums(m, triples, self.counting, "triples")
        if self.leaf_latency > 1:
            threes = [self._register(m, bits, f"three_{n}") for n, bits in enumerate(threes)]
            seventh = self._later(m, seventh)
        sums = iter(threes)
        # Then two of them and a seventh lane.
        leaves = [
            [next(sums) for _ in range(1 + (size > 3))]
            for _ in range(self.pe)
            for size in self.sizes
        ]
        pairs = [
            [inject(*lane), *_added(*leaf)]
            for lane, leaf in zip(seventh, leaves, strict=True)
            if len(leaf) > 1
        ]
        counts = iter(number_sums(m, pairs, self.counting, "leaves"))
        rows: list[list[_Node]] = [[] for _ in range(self.pe)]
        for number, leaf in enumerate(leaves):
            p, place = divmod(number, len(self.sizes))
            size = self.sizes[place]
            bits = next(counts) if len(leaf) > 1 else leaf[0]
            name = f"leaf_{p}_{place}"
            rows[p].append((self._register(m, bits[: bits_for(size)], name), size))
        return rows


def _added(x: Value | list[Value], y: Value | list[Value]) -> list[Slot]:
    """Return the slots that add two numbers."""
    return [
        add(tuple(x[bit : bit + 1]), tuple(y[bit : bit + 1])) for bit in range(max(len(x), len(y)))
    ]


class _LutLeaf:
    """A leaf in LUT4s; `FORMS` says what its inputs and its weights are.

    Of three lanes, `u` is set where they are not all alike, and then a carry is ``u ^ parity``.
    """

    def __init__(
        self,
        m: Module,
        place: str,
        a: list[Value],
        w: list[Value],
        cell: bool,
        en: Value,
    ):
        self.m, self.place, self.a, self.w, self.cell, self.en = m, place, a, w, cell, en

    def x(self, *lanes: int) -> Value:
        """Return the XOR of the inputs of `lanes`."""
        return self.a[FORMS[len(self.a)].index(lanes)]

    def lut(self, name: str, function: Callable[..., Any], *inputs: Value) -> Value:
        return lut4(self.m, f"{name}_{self.place}", function, inputs, self.cell)

    def register(self, bits: list[Value]) -> list[Value]:
        return list(delay(self.m, Cat(*bits), 1, self.en, f"leaf_{self.place}"))

    def unlike(self, name: str, x0: Value, w0: Value, x1: Value, w1: Value) -> Value:
        return self.lut(name, lambda a, b, c, d: (a ^ b) | (c ^ d), x0, w0, x1, w1)

    def bits(self) -> list[Value]:
        """Return the count of a cycle ago, its lowest bit first."""
        counts = (
            self._of_1,
            self._of_2,
            self._of_3,
            self._of_4,
            self._of_5,
            self._of_6,
            self._of_7,
        )
        return counts[len(self.w) - 1]()

    def _of_1(self) -> list[Value]:
        return self.register([self.lut("b0", lambda a, w: a ^ w, self.x(0), self.w[0])])

    def _of_2(self) -> list[Value]:
        x, w = self.x, self.w
        b0 = self.lut("b0", lambda a, b: a ^ b, x(0, 1), w[1])
        b1 = self.lut("b1", lambda a, w, b, v: (a ^ w) & (a ^ w ^ b ^ v), x(0), w[0], x(0, 1), w[1])
        return self.register([b0, b1])

    def _of_3(self) -> list[Value]:
        x, w = self.x, self.w
        u = self.unlike("u", x(0, 1), w[0], x(0, 2), w[1])
        b0 = self.lut("b0", lambda a, b: a ^ b, x(0, 1, 2), w[2])
        b1 = self.lut("b1", lambda u, s, t: u ^ s ^ t, u, x(0, 1, 2), w[2])
        return self.register([b0, b1])

    def _of_4(self) -> list[Value]:
        x, w = self.x, self.w
        u = self.unlike("u", x(0, 1), w[0], x(0, 2), w[1])
        b0 = self.lut("b0", lambda a, b: a ^ b, x(0, 1, 2, 3), w[3])
        three = x(0, 1, 2), w[2]
        b1 = self.lut("b1", lambda u, b0, a, b: u ^ ((a ^ b) & b0), u, b0, *three)
        b2 = self.lut("b2", lambda u, b0, a, b: (u ^ 1) & (b0 ^ 1) & (a ^ b), u, b0, *three)
        return self.register([b0, b1, b2])

    def _of_5(self) -> list[Value]:
        x, w = self.x, self.w
        u = self.unlike("u", x(0, 1), w[0], x(0, 2), w[1])
        s = self.lut("s", lambda a, b: a ^ b, x(0, 1, 2), w[2])
        b0 = self.lut("b0", lambda s, a, b: s ^ a ^ b, s, x(3, 4), w[4])
        both = self.lut(
            "both", lambda a, w, b, v: (a ^ w) & (a ^ w ^ b ^ v), x(3), w[3], x(3, 4), w[4]
        )
        c = self.lut("c", lambda both, s, a, b: both | (s & (a ^ b)), both, s, x(3, 4), w[4])
        b1 = self.lut("b1", lambda u, s, c: u ^ s ^ c, u, s, c)
        b2 = self.lut("b2", lambda u, s, c: (u ^ s) & c, u, s, c)
        return self.register([b0, b1, b2])

    def _of_6(self) -> list[Value]:
        x, w = self.x, self.w
        u = self.unlike("u", x(0, 1), w[0], x(0, 2), w[1])
        v = self.unlike("v", x(3, 4), w[2], x(3, 5), w[3])
        s = self.lut("s", lambda a, b: a ^ b, x(0, 1, 2), w[4])
        b0 = self.lut("b0", lambda a, b: a ^ b, x(0, 1, 2, 3, 4, 5), w[5])

        # The other three lanes' parity is s ^ b0.
        def one(u: Any, v: Any, s: Any, b0: Any) -> Any:
            return u ^ s ^ v ^ s ^ b0 ^ (s & (s ^ b0))

        def two(u: Any, v: Any, s: Any, b0: Any) -> Any:
            c, d, e = u ^ s, v ^ s ^ b0, s & (s ^ b0)
            return (c & d) | (e & (c ^ d))

        b1, b2 = (self.lut(n, f, u, v, s, b0) for n, f in (("b1", one), ("b2", two)))
        return self.register([b0, b1, b2])

    def _of_7(self) -> list[Value]:
        x, w = self.x, self.w
        u = self.unlike("u", x(0, 1), w[0], x(0, 2), w[1])
        v = self.unlike("v", x(3, 4), w[2], x(3, 5), w[3])
        # The parities of both threes and the seventh lane are three lanes again.
        t = self.unlike("t", x(3, 4, 5, 6), w[5], x(0, 1, 2, 6), w[6])
        b0 = self.lut("b0", lambda a, b, e, f: a ^ b ^ e ^ f, x(0, 1, 2, 6), w[6], x(3, 4, 5), w[4])
        # Three carries c, d, e of weight two, each of a parity and whether its lanes are unlike:
        # c ^ e, then c ^ d ^ e; where c and e differ, the carry of all three is d.
        k = self.lut("k", lambda u, t, a, b: u ^ t ^ a ^ b, u, t, x(3, 4, 5, 6), w[5])
        b1 = self.lut("b1", lambda k, v, a, b: k ^ v ^ a ^ b, k, v, x(3, 4, 5), w[4])
        b0, b1, k, t = self.register([b0, b1, k, t])
        b2 = self.lut(
            "b2", lambda k, b1, t, b0: (k & (b1 ^ 1)) | ((k ^ 1) & (t ^ b0)), k, b1, t, b0
        )
        return [b0, b1, b2]
