"""Framing that no data byte can imitate: consistent overhead byte stuffing (COBS).

A zero byte stands between packets and never inside one, so after any loss the next zero starts
afresh. COBS (Cheshire and Baker, *Consistent Overhead Byte Stuffing*, IEEE/ACM Trans. Networking
7(2), 1999) cuts a packet, with a zero thought behind it, after every zero and after every 254
bytes without one, and writes instead of the zero how long the piece is: the code byte is the number
of its other bytes plus one, 255 for a piece that was cut for its length.

The code byte stands *before* its piece in plain COBS, which a receiver undoes on the fly but a
sender must look ahead for. From the device the code byte stands *behind* its piece, so that here,
too, the hardware needs no buffer; the host undoes it from the packet's end.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["CobsDecoder", "ReverseCobsEncoder", "decoded", "encodable"]

#: Code byte of a piece of 254 bytes that no zero follows.
_LONGEST = 0xFF

#: What comes out of the decoder: a byte of the packet, or its end and whether all of it came.
decoded = data.StructLayout({"data": 8, "end": 1, "whole": 1})

#: What goes into the encoder: a byte of the packet, and whether it is the last one.
encodable = data.StructLayout({"data": 8, "last": 1})


class CobsDecoder(wiring.Component):
    """Undo COBS on the fly.

    Every delimiter ends a packet, an empty one if nothing stood before it. `whole` is low if the
    last piece was cut short.

    Latency: one cycle. Throughput: one byte a cycle.

    Members
    -------
    i : In(stream.Signature(8))
    o : Out(stream.Signature(decoded))
    """

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(decoded))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(8, reset_less=True)  # bytes of the piece that are still to come
        code = Signal(init=1)  # none: a flip-flop, since a comparison would stand before `left`
        zero = Signal()  # the piece ends in a zero, unless the packet ends here
        delimiter = self.i.payload == 0
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.o.valid.eq(delimiter | ~code | zero),
                self.o.payload.end.eq(delimiter),
                self.o.payload.whole.eq(code),
                self.o.payload.data.eq(Mux(code, 0, self.i.payload)),
            ]
            m.d.sync += [
                left.eq(Mux(code, self.i.payload, left) - 1),
                code.eq(delimiter | (Mux(code, self.i.payload, left) == 1)),
            ]
            with m.If(delimiter):
                m.d.sync += zero.eq(0)
            with m.Elif(code):
                m.d.sync += zero.eq(self.i.payload != _LONGEST)
        return m


class ReverseCobsEncoder(wiring.Component):
    """Frame packets, with each code byte behind its piece.

    Latency: the delimiter in front takes one cycle. Throughput: a byte in two cycles, since what it
    is is looked at a cycle after it came.

    Members
    -------
    i : In(stream.Signature(encodable))
    o : Out(stream.Signature(8))
    """

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(encodable)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        code = Signal(8, init=1)
        taken = self.o.valid & self.o.ready
        # Flip-flops, since comparisons of bytes would stand between the sender and the wire.
        present, zero, full = Signal(), Signal(), Signal()
        m.d.sync += [
            present.eq(self.i.valid & ~self.i.ready),
            zero.eq(self.i.payload.data == 0),
            full.eq((code == _LONGEST) & ~taken),
        ]
        with m.FSM():
            with m.State("FRONT"):
                m.d.comb += self.o.valid.eq(present)
                with m.If(taken):
                    m.next = "PIECE"
            with m.State("PIECE"):
                m.d.comb += self.o.valid.eq(present)
                with m.If(full):
                    m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(code)]
                    with m.If(taken):
                        m.d.sync += code.eq(1)
                with m.Else():
                    m.d.comb += self.i.ready.eq(self.o.ready & present)
                    with m.If(zero):
                        m.d.comb += self.o.payload.eq(code)
                        with m.If(taken):
                            m.d.sync += code.eq(1)
                    with m.Else():
                        m.d.comb += self.o.payload.eq(self.i.payload.data)
                        with m.If(taken):
                            m.d.sync += code.eq(code + 1)
                    with m.If(taken & self.i.payload.last):
                        m.next = "END"
            with m.State("END"):
                # The zero that is thought behind the packet, in front of it a full piece if any.
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(code)]
                with m.If(taken):
                    m.d.sync += code.eq(1)
                    with m.If(code != _LONGEST):
                        m.next = "BEHIND"
            with m.State("BEHIND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(taken):
                    m.next = "FRONT"
        return m
