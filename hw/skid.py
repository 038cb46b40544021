"""Skid buffer: cuts a combinational `ready` path."""

from amaranth import Module, Mux, Signal
from amaranth.hdl import ShapeLike, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorflow.hw.cost import Parts

__all__ = ["SkidBuffer", "skid_parts", "stall_register"]


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


def stall_register(m: Module, stall: Signal, skid: SkidBuffer, before: Value, done: Value) -> None:
    """Let `stall` say whether a pipeline waits, since a finished beat waits for room in `skid`.

    A flip-flop, since its net goes everywhere: `done` and what the skid buffer has caught as they
    will be in the next cycle.

    Parameters
    ----------
    m : Module
        That of both.
    stall : Signal
        Every register of the pipeline is enabled by its inverse.
    skid : SkidBuffer
    before, done : Value
        Whether a beat is in the pipeline's last register but one, and in its last: the skid
        buffer's `i.valid`.
    """
    m.d.sync += stall.eq(Mux(stall, done, before) & skid.o.valid & ~skid.o.ready)
