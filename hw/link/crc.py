"""The check value of packets, a bit a cycle: a byte on the wire lasts 40 cycles at the least."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SerialCRC32"]

#: The polynomial 0x04C11DB7 in reverse: the least significant bit of a byte comes first.
_POLYNOMIAL = 0xEDB88320

#: What is left in the register behind a packet whose check value is right.
_RESIDUE = 0xDEBB20E3


class SerialCRC32(wiring.Component):
    """Compute CRC-32/ISO-HDLC (see `xnorflow.hw.link.protocol.crc32`) a bit a cycle.

    One LUT and one flip-flop a bit; a whole byte in a cycle would take two to three times as much.

    Members
    -------
    start : In(1)
        Forget all bits.
    bit : In(1)
        The next bit, least significant of its byte first.
    shift : In(1)
        Take it.
    drain : In(1)
        With `shift`: move the register on by a bit and take none.
    low : Out(8)
        The next eight bits of the check value.
    match : Out(1)
        The bits taken end in the check value of those before it.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "bit": In(1),
                "shift": In(1),
                "drain": In(1),
                "low": Out(8),
                "match": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        register = Signal(32, init=-1)
        feedback = Signal()
        m.d.comb += [
            feedback.eq((register[0] ^ self.bit) & ~self.drain),
            self.low.eq(~register[:8]),
            self.match.eq(register == _RESIDUE),
        ]
        with m.If(self.start):
            m.d.sync += register.eq(-1)
        with m.Elif(self.shift):
            m.d.sync += register.eq(register[1:] ^ Mux(feedback, Const(_POLYNOMIAL, 32), 0))
        return m
