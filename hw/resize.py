"""Longer or shorter vectors: zeros behind each vector's elements, or its last elements dropped."""

from math import gcd

import numpy as np
from amaranth import Module, Mux, Signal
from amaranth.hdl import ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import Parts, index_bits

__all__ = ["VectorResizer", "resizer_parts"]


def resizer_parts(width: int, i_beats: int, o_beats: int) -> Parts:
    """Return the parts of a `VectorResizer` for beats of `width` bits, so many of a vector."""
    beats = max(i_beats, o_beats)
    if beats == 1:
        return {}
    return {"resizer": 1, "resizer counter bit": index_bits(beats), "resized bit": width}


class VectorResizer(wiring.Component):
    """Give vectors of `i_elements` as vectors of `o_elements`: with zeros at the end, or cut.

    Either whole vectors are beats, and this is wires, or vectors come and go in the same number of
    lanes, and a counter adds beats of zeros behind a vector's own or drops its last ones.

    Latency: 0. Cycles: a beat a cycle of the longer side.

    Parameters
    ----------
    element : ShapeLike
        Shape of an element.
    i_lanes, o_lanes : int
        Elements of a beat: equal and a divisor of both sizes, or the sizes themselves.
    i_elements, o_elements : int
        Elements of a vector.

    Attributes
    ----------
    i_beats, o_beats : int
        Beats of a vector.

    Members
    -------
    i : In(stream.Signature(ArrayLayout(element, i_lanes)))
    o : Out(stream.Signature(ArrayLayout(element, o_lanes)))

    Raises
    ------
    ValueError
        If the lanes are illegal; the message says what would be legal.
    """

    def __init__(
        self, element: ShapeLike, i_lanes: int, o_lanes: int, i_elements: int, o_elements: int
    ):
        sizes = (i_elements, o_elements)
        common = gcd(*sizes)
        if (i_lanes, o_lanes) != sizes and (i_lanes != o_lanes or i_lanes < 1 or common % i_lanes):
            raise ValueError(
                f"lanes must be {sizes}, or twice one divisor of {common}, not {i_lanes} and "
                f"{o_lanes}"
            )
        self.i_beats, self.o_beats = i_elements // i_lanes, o_elements // o_lanes
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(element, i_lanes))),
                "o": Out(stream.Signature(data.ArrayLayout(element, o_lanes))),
            }
        )

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which beats leave, given those at which they arrive.

        Parameters
        ----------
        arrivals : ndarray of int, shape (vectors * i_beats,)

        Returns
        -------
        ndarray of int, shape (vectors * o_beats,)
            For a consumer that is always ready.
        """
        came = arrivals.reshape(-1, self.i_beats)
        # A beat of zeros can go as soon as the vector's last beat has.
        longer = max(self.i_beats, self.o_beats)
        wanted = np.pad(came, ((0, 0), (0, longer - self.i_beats)), mode="edge").reshape(-1)
        beats = np.arange(len(wanted))
        passed = np.maximum.accumulate(wanted - beats) + beats
        return passed.reshape(-1, longer)[:, : self.o_beats].reshape(-1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        own = Signal()  # this beat is one that both vectors have
        common = min(len(self.i.payload), len(self.o.payload))
        for lane in range(common):
            m.d.comb += self.o.payload[lane].eq(self.i.payload[lane])
        longer = max(self.i_beats, self.o_beats)
        beat = Signal(range(longer))
        m.d.comb += own.eq(beat < min(self.i_beats, self.o_beats))
        m.d.comb += [
            self.o.valid.eq(Mux(own, self.i.valid, self.o_beats > self.i_beats)),
            self.i.ready.eq(Mux(own, self.o.ready, self.i_beats > self.o_beats)),
        ]
        with m.If(~own):
            m.d.comb += self.o.payload.as_value().eq(0)
        # A beat that one side only has is given as soon as it is wanted, or dropped as it comes.
        alone = self.o.ready if self.o_beats > self.i_beats else self.i.valid
        with m.If(Mux(own, self.i.valid & self.o.ready, alone)):
            m.d.sync += beat.eq(Mux(beat == longer - 1, 0, beat + 1))
        return m
