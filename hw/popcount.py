"""Pipelined population count."""

from amaranth import Module, Signal
from amaranth.hdl import ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

__all__ = ["Popcount", "popcount_latency"]

#: Bits summed before the first register: three full adders deep at most, whatever the width.
LEAF = 6


def popcount_latency(width: int) -> int:
    """Return the enabled cycles that a `Popcount` takes: ``1 + ceil(log2(ceil(width / 6)))``."""
    return 1 + (-(-width // LEAF) - 1).bit_length()


class Popcount(wiring.Component):
    """Count the ones among `width` bits.

    ``o = sum(i)``, a pipelined binary tree::

        i --[leaf: 6 bits -> count]--|reg|--[+]--|reg|-- ... --[+]--|reg|-- o

    One adder between two registers keeps the clock independent of `width`; on LUT4 devices the
    registers are free, since each sits behind the LUT that feeds it.

    Latency: `popcount_latency` of the width. One count a cycle.

    Parameters
    ----------
    width : int
        Number of bits, at least 1.

    Attributes
    ----------
    latency : int
        Enabled clock cycles from `i` to `o`.

    Members
    -------
    i : In(width)
    o : Out(range(width + 1))
    en : In(1)
        Clock enable of every register.
    """

    def __init__(self, width: int):
        if width < 1:
            raise ValueError(f"Popcount width must be at least 1, not {width!r}")
        self.width = width
        self.latency = popcount_latency(width)
        super().__init__({"i": In(width), "o": Out(bits_for(width)), "en": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def registered(value: ValueLike, top: int) -> tuple[Signal, int]:
            # `top` is the largest count, so no adder is a bit wider than its sum.
            register = Signal(range(top + 1))
            with m.If(self.en):
                m.d.sync += register.eq(value)
            return register, top

        level = []
        for start in range(0, self.width, LEAF):
            group = self.i[start : start + LEAF]
            level.append(registered(sum(group[k] for k in range(len(group))), len(group)))
        while len(level) > 1:
            paired = []
            for left, right in zip(level[::2], level[1::2], strict=False):
                paired.append(registered(left[0] + right[0], left[1] + right[1]))
            if len(level) % 2:
                paired.append(registered(*level[-1]))
            level = paired
        m.d.comb += self.o.eq(level[0][0])
        return m
