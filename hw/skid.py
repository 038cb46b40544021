"""Skid buffer: cuts a combinational `ready` path."""

from amaranth import Module, Signal
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorflow.hw.cost import Parts

__all__ = ["SkidBuffer", "skid_parts"]


def skid_parts(width: int) -> Parts:
    """Return the parts of a `SkidBuffer` for payloads of `width` bits."""
    return {"skid bit": width, "bare register": width}


class SkidBuffer(wiring.Component):
    """Pass a stream through with a registered `ready`.

    While the output waits, one more beat is caught in a register; `i.ready` says whether that
    register is free, and so depends on nothing combinationally.

    Latency: none. Throughput: one beat a cycle.

    Parameters
    ----------
    shape : ShapeLike
        Payload of both streams.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def __init__(self, shape: ShapeLike):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        caught = Signal.like(self.i.payload, reset_less=True)
        full = Signal()
        m.d.comb += [
            self.i.ready.eq(~full),
            self.o.valid.eq(full | self.i.valid),
        ]
        with m.If(full):
            m.d.comb += self.o.payload.eq(caught)
        with m.Else():
            m.d.comb += self.o.payload.eq(self.i.payload)
            m.d.sync += caught.eq(self.i.payload)
        m.d.sync += full.eq(self.o.valid & ~self.o.ready)
        return m
