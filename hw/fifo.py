"""First-in first-out buffer between streams."""

import numpy as np
from amaranth import Module
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, index_bits, merge, storage_parts

__all__ = ["StreamFIFO", "fifo_parts"]


def fifo_parts(family: Family, width: int, depth: int) -> Parts:
    """Return the parts of a `StreamFIFO` for payloads of `width` bits."""
    # Its last word lies in the output register of the memory of the others.
    words = depth - 1
    if words == 0:
        return {"fifo": 1, "bare register": width}
    return merge(
        {
            "fifo": 1,
            "fifo address bit": 2 * index_bits(words),
            "fifo counter bit": index_bits(words + 1),
        },
        storage_parts(family, words, width, read_first=True),
    )


class StreamFIFO(wiring.Component):
    """Hold up to `depth` beats of a stream.

    Latency: 2 cycles from `i` to `o` when empty. Throughput: one beat a cycle.

    Parameters
    ----------
    shape : ShapeLike
        Payload of both streams.
    depth : int
        Beats that fit, at least 1.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    level : Out(range(depth + 1))
        Beats held now.
    """

    def __init__(self, shape: ShapeLike, depth: int):
        if depth < 1:
            raise ValueError(f"FIFO depth must be at least 1, not {depth!r}")
        self.shape, self.depth = shape, depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which beats leave, given those at which they arrive.

        Parameters
        ----------
        arrivals : ndarray of int, shape (beats,)

        Returns
        -------
        ndarray of int, shape (beats,)
            For an empty FIFO and a consumer that is always ready.
        """
        beats = np.arange(len(arrivals))
        return np.maximum.accumulate(arrivals - beats) + beats + 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = Shape.cast(self.shape).width
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=width, depth=self.depth)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            self.level.eq(fifo.level),
        ]
        return m
