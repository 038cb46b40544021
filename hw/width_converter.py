"""Stream width converter."""

from math import gcd

import numpy as np
from amaranth import Module, Signal
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import Parts, index_bits, merge

__all__ = ["WidthConverter", "converter_parts"]


def converter_parts(element_bits: int, i_lanes: int, o_lanes: int) -> Parts:
    """Return the parts of a `WidthConverter`."""
    narrow = gcd(i_lanes, o_lanes)
    lists: list[Parts] = []
    if i_lanes > narrow:
        lists.append(
            {
                "splitter": 1,
                "splitter bit": i_lanes * element_bits,
                "register": i_lanes * element_bits,
                "splitter counter bit": index_bits(i_lanes // narrow + 1),
            }
        )
    if o_lanes > narrow:
        lists.append(
            {
                "collector": 1,
                "bare register": o_lanes * element_bits,
                "collector counter bit": index_bits(o_lanes // narrow),
            }
        )
    return merge(*lists)


class _Widen(wiring.Component):
    """Collect `ratio` beats into one; `i.ready` falls only while a full word waits."""

    def __init__(self, element: ShapeLike, lanes: int, ratio: int):
        self.lanes, self.ratio = lanes, ratio
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(element, lanes))),
                "o": Out(stream.Signature(data.ArrayLayout(element, lanes * ratio))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = Signal.like(self.o.payload, reset_less=True)
        step = Signal(range(self.ratio))
        m.d.comb += [
            self.o.payload.eq(word),
            self.i.ready.eq(~self.o.valid | self.o.ready),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.valid & self.i.ready):
            # Shifted in from the top: after `ratio` beats the first one has reached lane 0.
            shifted = word.as_value() >> Shape.cast(self.i.payload.shape()).width
            top = self.i.payload.as_value() << (
                Shape.cast(self.i.payload.shape()).width * (self.ratio - 1)
            )
            m.d.sync += word.as_value().eq(shifted | top)
            with m.If(step == self.ratio - 1):
                m.d.sync += [step.eq(0), self.o.valid.eq(1)]
            with m.Else():
                m.d.sync += step.eq(step + 1)
        return m


class _Narrow(wiring.Component):
    """Give one beat in `ratio` parts; the next beat is taken as the last part leaves."""

    def __init__(self, element: ShapeLike, lanes: int, ratio: int):
        self.lanes, self.ratio = lanes, ratio
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(element, lanes * ratio))),
                "o": Out(stream.Signature(data.ArrayLayout(element, lanes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = Signal.like(self.i.payload, reset_less=True)
        left = Signal(range(self.ratio + 1))  # parts not yet given, the one at `o` included
        # Flip-flops, since `i.ready` goes on through other units: there is a part; the next one
        # comes from `i`.
        some, taking = Signal(), Signal(init=1)
        step = ~some | self.o.ready
        width = Shape.cast(self.o.payload.shape()).width
        m.d.comb += [
            self.o.valid.eq(some),
            self.o.payload.eq(word.as_value()[:width]),
            self.i.ready.eq(taking & step),
        ]
        with m.If(step):
            with m.If(taking):
                # Without a beat there is no part, whatever the register holds.
                m.d.sync += [
                    word.eq(self.i.payload),
                    left.eq(self.ratio),
                    some.eq(self.i.valid),
                    taking.eq(~self.i.valid),
                ]
            with m.Else():
                m.d.sync += [
                    word.as_value().eq(word.as_value() >> width),
                    left.eq(left - 1),
                    taking.eq(left == 2),
                ]
        return m


class WidthConverter(wiring.Component):
    """Change the number of lanes of a stream, keeping every element and their order.

    A multiple is collected or split directly. Otherwise the stream goes through the greatest
    common divisor: first split, then collected, at one such part a cycle.

    Latency: 1 cycle from the last beat that a word needs (2 through a common divisor).
    Cycles: `cycles(elements)`.

    Parameters
    ----------
    element : ShapeLike
        Shape of an element.
    i_lanes, o_lanes : int
        Elements in a beat.

    Members
    -------
    i : In(stream.Signature(ArrayLayout(element, i_lanes)))
    o : Out(stream.Signature(ArrayLayout(element, o_lanes)))
    """

    def __init__(self, element: ShapeLike, i_lanes: int, o_lanes: int):
        for name, value in (("i_lanes", i_lanes), ("o_lanes", o_lanes)):
            if value < 1:
                raise ValueError(f"WidthConverter {name} must be at least 1, not {value!r}")
        self.element, self.i_lanes, self.o_lanes = element, i_lanes, o_lanes
        self._narrow = gcd(i_lanes, o_lanes)
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(element, i_lanes))),
                "o": Out(stream.Signature(data.ArrayLayout(element, o_lanes))),
            }
        )

    def cycles(self, elements: int) -> int:
        """Return the cycles that `elements` take, a multiple of both lane counts."""
        return (
            elements // self._narrow if self.i_lanes != self.o_lanes else elements // self.i_lanes
        )

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which beats leave, given those at which they could be taken.

        Parameters
        ----------
        arrivals : ndarray of int, shape (beats in,)

        Returns
        -------
        ndarray of int, shape (beats out,)
            For a consumer that is always ready.
        """
        split, collected = self.i_lanes // self._narrow, self.o_lanes // self._narrow
        if split > 1:
            parts = np.repeat(arrivals, split) + 1
            beats = np.arange(len(parts))
            arrivals = np.maximum.accumulate(parts - beats) + beats
        if collected > 1:
            arrivals = arrivals[collected - 1 :: collected] + 1
        return arrivals

    def elaborate(self, platform: object) -> Module:
        m = Module()
        upstream = wiring.flipped(self.i)
        split, collected = self.i_lanes // self._narrow, self.o_lanes // self._narrow
        if split > 1:
            m.submodules.narrow = narrow = _Narrow(self.element, self._narrow, split)
            wiring.connect(m, upstream, narrow.i)
            upstream = narrow.o
        if collected > 1:
            m.submodules.widen = widen = _Widen(self.element, self._narrow, collected)
            wiring.connect(m, upstream, widen.i)
            upstream = widen.o
        wiring.connect(m, upstream, wiring.flipped(self.o))
        return m
