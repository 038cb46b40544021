"""Pipelined adder tree: population counts and sums of small integers."""

from functools import cache

from amaranth import Module, Signal
from amaranth.hdl import Value, ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from xnorflow.hw.cost import Family, Parts, distinct
from xnorflow.hw.pipeline import delay

__all__ = ["AdderTree", "tree_latency", "tree_parts"]

#: Lanes summed before the first register: of bits, three full adders deep at most, whatever the
#: number of lanes; of integers, one adder behind the gates that make them.
BIT_LEAF, INTEGER_LEAF = 6, 2


def _leaf(top: int) -> int:
    return BIT_LEAF if top == 1 else INTEGER_LEAF


def _levels(nodes: int) -> int:
    return (nodes - 1).bit_length()


def tree_latency(lanes: int, top: int = 1, granule: int | None = None) -> int:
    """Return the enabled cycles that an `AdderTree` takes.

    ``1 + ceil(log2(ceil(lanes / leaf)))`` with 6 lanes a leaf for bits and 2 for integers; with
    granules ``1 + ceil(log2(ceil(granule / leaf))) + ceil(log2(lanes / granule))``.
    """
    granule = granule or lanes
    return 1 + _levels(-(-granule // _leaf(top))) + _levels(lanes // granule)


@cache
def tree_parts(
    family: Family, lanes: int, top: int, granule: int | None, neurons: int, weight_bits: int
) -> Parts:
    """Return the parts of the trees of `neurons`, with the gates before them.

    Parameters
    ----------
    family : Family
    lanes, top, granule
        See `AdderTree`.
    neurons : int
        Trees side by side, all with the same inputs.
    weight_bits : int
        Words that the weights come from: 1 for constants. Neurons that have the same few weights
        for a part of their inputs share its logic.
    """
    leaf, parts = _leaf(top), dict[str, float]()
    # With constant weights the gates are inverters, and sums of few inputs have parts in common.
    gates = "fixed " if weight_bits <= 2 else ""

    def add(part: str, count: float) -> None:
        parts[part] = parts.get(part, 0.0) + count

    def copies(synapses: int) -> float:
        return distinct(weight_bits * synapses, neurons)

    # The lowest bit is the parity of the inputs, which few words turn in few ways. Where padded
    # lanes count for half of an agreement, it is made of the flags alone.
    lowest = 1.0 if top == 2 else copies(1)

    def level(full: int, count: float, repeat: float) -> float:
        """Return the bits of `count` nodes of `full` lanes, `repeat` times."""
        return ((bits_for(full * top) - 1) * copies(full) + lowest) * count * repeat

    def adders(size: int, count: float) -> None:
        each = family.adder(f"{gates}adder", bits_for(size * top), copies(size), lowest)
        for part, number in each.items():
            add(part, number * count)

    if weight_bits == 2:
        add("gate", lanes * copies(1))
    span = granule or lanes
    roots = lanes // span
    # A level is so many equal nodes, and perhaps a smaller one at the end.
    count, tail = divmod(span, leaf)
    full = leaf
    for size, number in ((leaf, count), (tail, 1 if tail else 0)):
        if number:
            if top == 1:
                add(f"{gates}leaf of {size}", copies(size) * number * roots)
            else:
                if not gates:
                    add("gate", size * bits_for(top) * copies(size) * number * roots)
                if size > 1:
                    adders(size, number * roots)
            add("register", level(size, number, roots))

    def sums(count: int, full: int, tail: int, repeat: float) -> tuple[int, int, int]:
        """Add a level of adders; return what it gives."""
        pairs, odd = divmod(count, 2)
        after = full if odd and not tail else tail
        for size, number in ((2 * full, pairs), (full + tail if odd and tail else 0, 1)):
            if size and number:
                adders(size, number * repeat)
                add("register", level(size, number, repeat))
        if odd and tail:
            after = full + tail
        elif after:
            add("bare register", level(after, 1, repeat))
        return pairs, 2 * full, after

    while count + (tail > 0) > 1:
        count, full, tail = sums(count, full, tail, roots)
    if granule is not None:
        add("padded sum bit", bits_for(span * top) * neurons * roots)
        add("bare register", roots * _levels(-(-span // leaf)))
        count, full, tail = roots, span, 0
        while count + (tail > 0) > 1:
            count, full, tail = sums(count, full, tail, 1)
    return parts


class AdderTree(wiring.Component):
    """Sum `lanes` unsigned integers; of bits, that is the population count.

    ``o = sum(i)``, a pipelined binary tree::

        i --[leaf: 6 bits or 2 integers]--|reg|--[+]--|reg|-- ... --[+]--|reg|-- o

    One adder between two registers keeps the clock independent of `lanes`; on LUT4 devices the
    registers are free, since each sits behind the LUT that feeds it. With granules, each has a tree
    of its own, whose last register becomes ``granule / 2`` if the granule is padded: its
    flip-flops' set and reset, which costs next to no LUT.

    Latency: `tree_latency`. One sum a cycle.

    Parameters
    ----------
    lanes : int
        Number of integers, at least 1.
    top : int
        The largest integer that a lane can hold, at least 1; 1 for bits.
    granule : int, optional
        Bits that a pad flag is for; an even divisor of `lanes`.

    Attributes
    ----------
    latency : int
        Enabled clock cycles from `i` to `o`.

    Members
    -------
    i : In(ArrayLayout(range(top + 1), lanes))
    pad : In(lanes // granule)
        With granules: those that are padded.
    o : Out(range(lanes * top + 1))
    en : In(1)
        Clock enable of every register.
    """

    def __init__(self, lanes: int, top: int = 1, granule: int | None = None):
        for name, value in (("lanes", lanes), ("top", top)):
            if value < 1:
                raise ValueError(f"AdderTree {name} must be at least 1, not {value!r}")
        if granule is not None and (top > 1 or granule < 2 or granule % 2 or lanes % granule):
            raise ValueError(
                f"AdderTree granule must be an even divisor of the {lanes} lanes, which must be "
                f"bits, not {granule!r}"
            )
        self.lanes, self.top, self.granule = lanes, top, granule
        self.latency = tree_latency(lanes, top, granule)
        members = {
            "i": In(data.ArrayLayout(bits_for(top), lanes)),
            "o": Out(bits_for(lanes * top)),
            "en": In(1),
        }
        if granule is not None:
            members["pad"] = In(lanes // granule)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def registered(value: ValueLike, top: int) -> tuple[Signal, int]:
            # `top` is the largest sum, so no adder is a bit wider than its sum. Data need no reset;
            # with one, set and reset could not both be the pad's.
            register = Signal(range(top + 1), reset_less=True)
            with m.If(self.en):
                m.d.sync += register.eq(value)
            return register, top

        def tree(level: list[tuple[Signal, int]]) -> tuple[Signal, int]:
            while len(level) > 1:
                paired = []
                for left, right in zip(level[::2], level[1::2], strict=False):
                    paired.append(registered(left[0] + right[0], left[1] + right[1]))
                if len(level) % 2:
                    paired.append(registered(*level[-1]))
                level = paired
            return level[0]

        leaf = _leaf(self.top)
        roots = []
        for first in range(0, self.lanes, self.granule or self.lanes):
            after = first + (self.granule or self.lanes)
            level = []
            for start in range(first, after, leaf):
                group = range(start, min(start + leaf, after))
                level.append(registered(sum(self.i[lane] for lane in group), len(group) * self.top))
            roots.append(tree(level))
        if self.granule is not None:
            levels = _levels(-(-self.granule // leaf))
            pad = Value.cast(delay(m, self.pad, levels, self.en, "pad"))
            for index, (root, _) in enumerate(roots):
                with m.If(self.en & pad[index]):
                    m.d.sync += root.eq(self.granule // 2)
        m.d.comb += self.o.eq(tree(roots)[0])
        return m
