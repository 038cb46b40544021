"""A gain for each pixel: every channel of a pixel times one number of another stream."""

import numpy as np
from amaranth import Module, Mux, Signal
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, index_bits, merge, product_parts
from xnorflow.hw.join import Range, narrowest

__all__ = ["GainUnit", "gain_parts"]


def gain_parts(family: Family, unit: "GainUnit") -> Parts:
    """Return the parts of a `GainUnit`."""
    element, gain = (shape.width for shape in unit.elements)
    lanes = unit.lanes
    return merge(
        {
            "channel stage": 1,
            "channel counter bit": index_bits(unit.beats[0]),
            "bare register": 2 + lanes * element + gain,
            "register": lanes * unit.o_element.width,
        },
        # The gain has a sign that is always 0.
        product_parts(family, element, gain + 1, lanes),
    )


class GainUnit(wiring.Component):
    """``o = i * side`` for all channels of a pixel; `side` has one beat of one element a pixel.

    ::

        i ----|reg|--.
        side -|reg|-(x)--|reg|-- o

    A pixel's first beat takes the gain, and its register keeps it for the others.

    Latency: 2 cycles.
    Cycles: a beat a cycle, without idle ones.

    Parameters
    ----------
    elements : (ShapeLike, ShapeLike)
        Shapes of an element of `i` and of `side`.
    channels : int
        Channels of a pixel of `i`.
    lanes : int
        Channels of a beat of `i`; divides them.
    ranges : (Range, Range)
        Least and largest element of `i` and of `side`.

    Attributes
    ----------
    o_element : Shape
        Shape of an output element, the narrowest for the ranges.
    beats : (int, int)
        Beats of a pixel of `i` and of `side`.
    o_beats : int
        Beats of a pixel that go out.
    latency : int

    Members
    -------
    i : In(stream.Signature(ArrayLayout(elements[0], lanes)))
    side : In(stream.Signature(ArrayLayout(elements[1], 1)))
    o : Out(stream.Signature(ArrayLayout(o_element, lanes)))

    Raises
    ------
    ValueError
        If lanes do not divide the channels.
    """

    latency = 2

    def __init__(
        self,
        elements: tuple[ShapeLike, ShapeLike],
        channels: int,
        *,
        lanes: int,
        ranges: tuple[Range, Range],
    ):
        if lanes < 1 or channels % lanes:
            raise ValueError(f"lanes must divide {channels} channels, which {lanes!r} does not")
        self.elements = tuple(Shape.cast(element) for element in elements)
        self.lanes = lanes
        self.beats = (channels // lanes, 1)
        self.o_beats = self.beats[0]
        products = [one * two for one in ranges[0] for two in ranges[1]]
        self.o_element = narrowest(min(products), max(products))
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(self.elements[0], lanes))),
                "side": In(stream.Signature(data.ArrayLayout(self.elements[1], 1))),
                "o": Out(stream.Signature(data.ArrayLayout(self.o_element, lanes))),
            }
        )

    def schedule(self, main: NDArray[np.int64], side: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which beats leave, given those from which on each is offered.

        Parameters
        ----------
        main : ndarray of int, shape (pixels * beats[0],)
        side : ndarray of int, shape (pixels,)

        Returns
        -------
        ndarray of int, shape (pixels * o_beats,)
            For a consumer that is always ready.
        """
        offered = np.maximum(main, np.repeat(side, self.o_beats))
        beats = np.arange(len(offered))
        return np.maximum.accumulate(offered - beats) + beats + self.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        en = Signal()
        both = Signal()
        first = Signal()
        valid = Signal(2)  # bit n: a beat has taken n + 1 steps
        fold = Signal(range(self.o_beats))
        m.d.comb += [
            en.eq(~self.o.valid | self.o.ready),
            first.eq(fold == 0),
            both.eq(self.i.valid & (self.side.valid | ~first)),
            self.i.ready.eq(en & (self.side.valid | ~first)),
            self.side.ready.eq(en & self.i.valid & first),
            self.o.valid.eq(valid[-1]),
        ]
        elements = Signal.like(self.i.payload, name="elements", reset_less=True)
        gain = Signal(self.elements[1], reset_less=True)
        with m.If(en):
            m.d.sync += [
                valid.eq(valid << 1 | both),
                elements.eq(self.i.payload),
                *(
                    product.eq(element * gain)
                    for product, element in zip(self.o.payload, elements, strict=True)
                ),
            ]
        with m.If(en & first):
            m.d.sync += gain.eq(self.side.payload[0])
        with m.If(en & both):
            m.d.sync += fold.eq(Mux(fold == self.o_beats - 1, 0, fold + 1))
        return m
