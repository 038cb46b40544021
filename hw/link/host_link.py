"""The link between host and core: packets on a byte stream, frames and results on the other side.

The packets are described in ``docs/protocol.md``.
"""

from amaranth import Array, Const, Module, Mux, Signal, signed
from amaranth.hdl import ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc import Processor
from amaranth.lib.crc.catalog import CRC16_GENIBUS
from amaranth.lib.wiring import In, Out

from xnorflow.hw import layouts
from xnorflow.hw.cost import Family, Parts, index_bits, merge, storage_parts
from xnorflow.hw.link.cobs import CobsDecoder, ReverseCobsEncoder, decoded, encodable
from xnorflow.hw.link.frame_slots import FrameSlots
from xnorflow.hw.link.protocol import (
    CRC_BYTES,
    IDENTITY,
    RESULT_TAIL,
    Fault,
    LinkParameters,
    Reply,
    Request,
)
from xnorflow.hw.link.uart import UARTReceiver, UARTTransmitter

__all__ = ["HostLink", "PacketReceiver", "PacketSender", "UARTHostLink", "link_parts"]

#: An answer that carries no result: the identity (code 0) or a fault, and the request's number.
answer = data.StructLayout({"code": 3, "sequence": 8})

_IDENTITY_CODE = 0

#: Place in the identity packet's body of the number of frames that the device holds.
_HELD_OFFSET = 2


def link_parts(
    family: Family, *, i_bits: int, i_lanes: int, classes: int, score_bits: int, credits: int = 4
) -> Parts:
    """Return the parts of a `UARTHostLink` that takes one score a beat.

    Parameters
    ----------
    family : Family
    i_bits, i_lanes : int
        Bits of a frame and of a beat.
    classes, score_bits : int
        Scores of a frame, and bits of each.
    credits : int
        See `LinkParameters`.
    """
    words = credits << index_bits(-(-i_bits // 8))
    return merge(
        {
            "link": 1,
            "link index bit": index_bits(i_bits, i_lanes, classes),
            "register": i_lanes,
            "link score bit": score_bits,
        },
        storage_parts(family, words, 8, read_first=True),
    )


class PacketReceiver(wiring.Component):
    """Take packets apart, put frames into a slot, and judge every packet at its end.

    A frame is committed only if its bytes are all there, its check value and its length are right
    and a slot was free from its first byte on. An empty packet says nothing and gets no answer.

    Parameters
    ----------
    parameters : LinkParameters

    Members
    -------
    i : In(stream.Signature(decoded))
        Always ready.
    data, offset, store, commit, sequence : Out
    full : In
        To `FrameSlots`.
    o : Out(stream.Signature(answer))
        What must be answered. One answer waits; while it does, others are dropped.
    """

    def __init__(self, parameters: LinkParameters):
        self.parameters = parameters
        super().__init__(
            {
                "i": In(stream.Signature(decoded)),
                "data": Out(8),
                "offset": Out(range(parameters.i_bytes)),
                "store": Out(1),
                "commit": Out(1),
                "sequence": Out(8),
                "full": In(1),
                "o": Out(stream.Signature(answer)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self.parameters
        m.submodules.crc = crc = Processor(CRC16_GENIBUS(data_width=8))
        end = self.i.valid & self.i.payload.end
        byte = self.i.valid & ~self.i.payload.end
        typed, numbered = Signal(), Signal()  # type and sequence number have come
        frame, identify = Signal(), Signal()  # the packet's type
        blocked = Signal()  # a byte of the frame found no free slot
        count = Signal(range(p.i_bytes + CRC_BYTES + 2))  # bytes of the body; the top: too many
        m.d.comb += [
            self.i.ready.eq(1),
            crc.start.eq(end),
            crc.data.eq(self.i.payload.data),
            crc.valid.eq(byte),
            self.data.eq(self.i.payload.data),
            self.offset.eq(count),
        ]

        verdict = Signal(self.o.payload.code.shape())
        with m.If(~crc.match_detected | ~self.i.payload.whole):
            m.d.comb += verdict.eq(Fault.DAMAGED)
        with m.Elif(~frame & ~identify):
            m.d.comb += verdict.eq(Fault.TYPE)
        with m.Elif(count != Mux(frame, p.i_bytes + CRC_BYTES, CRC_BYTES)):
            m.d.comb += verdict.eq(Fault.LENGTH)
        with m.Elif(frame & blocked):
            m.d.comb += verdict.eq(Fault.OVERRUN)
        with m.Else():
            m.d.comb += verdict.eq(_IDENTITY_CODE)

        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(end):
            m.d.sync += [signal.eq(0) for signal in (typed, numbered, count, blocked)]
            m.d.sync += self.sequence.eq(0)
            with m.If(typed):
                with m.If((verdict == _IDENTITY_CODE) & frame):
                    m.d.comb += self.commit.eq(1)
                with m.Elif(~self.o.valid):
                    m.d.sync += [
                        self.o.valid.eq(1),
                        self.o.payload.code.eq(verdict),
                        self.o.payload.sequence.eq(self.sequence),
                    ]
        with m.Elif(byte & ~typed):
            m.d.sync += [
                typed.eq(1),
                frame.eq(self.data == Request.FRAME),
                identify.eq(self.data == Request.IDENTIFY),
            ]
        with m.Elif(byte & ~numbered):
            m.d.sync += [numbered.eq(1), self.sequence.eq(self.data)]
        with m.Elif(byte & (count != p.i_bytes + CRC_BYTES + 1)):
            m.d.sync += count.eq(count + 1)
            with m.If(frame & (count < p.i_bytes)):
                m.d.comb += self.store.eq(~self.full)
                with m.If(self.full):
                    m.d.sync += blocked.eq(1)
        return m


class PacketSender(wiring.Component):
    """Put packets together: answers first, then results.

    The core's beats are not copied: each is taken when its last byte has been sent, so the core
    waits for the wire. The class stands behind the scores because only the last beat knows it.

    Parameters
    ----------
    parameters : LinkParameters

    Members
    -------
    answer : In(stream.Signature(answer))
        From `PacketReceiver`.
    i : In(stream.Signature(layouts.results(o_lanes, width, classes)))
    held, oldest, answered
        From and to `FrameSlots`.
    o : Out(stream.Signature(encodable))
    """

    def __init__(self, parameters: LinkParameters):
        self.parameters = p = parameters
        super().__init__(
            {
                "answer": In(stream.Signature(answer)),
                "i": In(stream.Signature(layouts.results(p.o_lanes, p.width, p.classes))),
                "held": In(range(p.credits + 1)),
                "oldest": In(8),
                "answered": Out(1),
                "o": Out(stream.Signature(encodable)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self.parameters
        m.submodules.crc = crc = Processor(CRC16_GENIBUS(data_width=8))

        # A byte register cuts the path from the scores to the wire.
        byte, last, offered, free = Signal(8), Signal(), Signal(), Signal()
        checked = Signal()  # the byte register holds one that the check value covers
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            crc.data.eq(self.o.payload.data),
            crc.valid.eq(self.o.valid & self.o.ready & checked),
        ]
        with m.If(free):
            m.d.sync += [
                self.o.valid.eq(offered),
                self.o.payload.data.eq(byte),
                self.o.payload.last.eq(last),
            ]

        result = Signal()  # the packet under way is a result, else an answer
        beat_bytes = p.o_lanes * p.score_bytes
        index = Signal(range(max(beat_bytes, IDENTITY.size)))  # byte of a beat, identity or class
        identity = self.answer.payload.code == _IDENTITY_CODE
        scores = Signal(layouts.scores(p.o_lanes, signed(8 * p.score_bytes)))
        m.d.comb += [scores[lane].eq(self.i.payload.scores[lane]) for lane in range(p.o_lanes)]
        constants = Array(Const(value, 8) for value in p.identity)
        body, body_ends = Signal(8), Signal()
        with m.If(result):
            m.d.comb += [
                body.eq(scores.as_value().word_select(index, 8)),
                body_ends.eq(index == beat_bytes - 1),
            ]
        with m.Elif(identity):
            m.d.comb += [
                body.eq(Mux(index == _HELD_OFFSET, self.held, constants[index])),
                body_ends.eq(index == IDENTITY.size - 1),
            ]
        with m.Else():
            m.d.comb += [body.eq(self.answer.payload.code), body_ends.eq(1)]

        def send(value: ValueLike) -> None:
            m.d.comb += [offered.eq(1), byte.eq(value)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += crc.start.eq(1)
                m.d.sync += [index.eq(0), checked.eq(1)]
                m.d.sync += result.eq(~self.answer.valid)
                with m.If(self.answer.valid | self.i.valid):
                    m.next = "TYPE"
            with m.State("TYPE"):
                send(Mux(result, Reply.RESULT, Mux(identity, Reply.IDENTITY, Reply.ERROR)))
                with m.If(free):
                    m.next = "SEQUENCE"
            with m.State("SEQUENCE"):
                send(Mux(result, self.oldest, self.answer.payload.sequence))
                with m.If(free):
                    m.next = "BODY"
            with m.State("BODY"), m.If(~result | self.i.valid):
                send(body)
                with m.If(free):
                    m.d.sync += index.eq(index + 1)
                with m.If(free & body_ends):
                    m.d.sync += index.eq(0)
                    with m.If(~result):
                        m.d.comb += self.answer.ready.eq(1)
                        m.next = "CHECK_HIGH"
                    with m.Elif(self.i.payload.last):
                        m.next = "CLASS"
                    with m.Else():
                        m.d.comb += self.i.ready.eq(1)
            with m.State("CLASS"):
                number = Signal(8 * RESULT_TAIL.size)
                m.d.comb += number.eq(self.i.payload.index)
                send(number.word_select(index[0], 8))
                with m.If(free):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index[0]):
                        m.d.comb += [self.i.ready.eq(1), self.answered.eq(1)]
                        m.next = "CHECK_HIGH"
            with m.State("CHECK_HIGH"), m.If(~self.o.valid):
                # Every byte before has left, so the check value covers them all.
                send(crc.crc[8:])
                m.d.sync += checked.eq(0)
                m.next = "CHECK_LOW"
            with m.State("CHECK_LOW"):
                send(crc.crc[:8])
                m.d.comb += last.eq(1)
                with m.If(free):
                    m.next = "LEAVE"
            with m.State("LEAVE"), m.If(free):
                m.next = "IDLE"
        return m


class HostLink(wiring.Component):
    """Packets on a byte stream, frames and results on the other side.

    ::

        rx ─► COBS decoder ─► packet receiver ─► frame slots ─► o (to the core)
                                    │ answers         │ sequence numbers
        tx ◄─ COBS encoder ◄─ packet sender ◄─────────┴──────── i (from the core)

    `rx` is always ready: a byte stream that cannot be held back loses nothing here. A frame reaches
    the core only whole and checked; each gets exactly one answer, a result or an error, unless an
    error is dropped because another one waits to be sent.

    Area on iCE40, UART included, for 784 bits in beats of 16, 10 scores of 16 bits and 4 credits:
    633 logic cells and 1 block RAM with one score in a beat, 746 with all ten.

    Parameters
    ----------
    parameters : LinkParameters

    Members
    -------
    rx : In(stream.Signature(8))
        Bytes from the host.
    tx : Out(stream.Signature(8))
        Bytes to the host.
    o : Out(stream.Signature(layouts.bits(i_lanes)))
        Frames to the core.
    i : In(stream.Signature(layouts.results(o_lanes, width, classes)))
        Results from the core, in the order of the frames.
    """

    def __init__(self, parameters: LinkParameters):
        self.parameters = p = parameters
        super().__init__(
            {
                "rx": In(stream.Signature(8)),
                "tx": Out(stream.Signature(8)),
                "o": Out(stream.Signature(layouts.bits(p.i_lanes))),
                "i": In(stream.Signature(layouts.results(p.o_lanes, p.width, p.classes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = decoder = CobsDecoder()
        m.submodules.receiver = receiver = PacketReceiver(self.parameters)
        m.submodules.slots = slots = FrameSlots(self.parameters)
        m.submodules.sender = sender = PacketSender(self.parameters)
        m.submodules.encoder = encoder = ReverseCobsEncoder()
        wiring.connect(m, wiring.flipped(self.rx), decoder.i)
        wiring.connect(m, decoder.o, receiver.i)
        wiring.connect(m, receiver.o, sender.answer)
        wiring.connect(m, slots.o, wiring.flipped(self.o))
        wiring.connect(m, wiring.flipped(self.i), sender.i)
        wiring.connect(m, sender.o, encoder.i)
        wiring.connect(m, encoder.o, wiring.flipped(self.tx))
        m.d.comb += [
            slots.data.eq(receiver.data),
            slots.offset.eq(receiver.offset),
            slots.store.eq(receiver.store),
            slots.commit.eq(receiver.commit),
            slots.sequence.eq(receiver.sequence),
            receiver.full.eq(slots.full),
            sender.held.eq(slots.held),
            sender.oldest.eq(slots.oldest),
            slots.answered.eq(sender.answered),
        ]
        return m


class UARTHostLink(wiring.Component):
    """`HostLink` on two wires.

    Parameters
    ----------
    parameters : LinkParameters

    Members
    -------
    rx : In(1)
        From the host; asynchronous, high when idle.
    tx : Out(1)
        To the host; high when idle.
    o : Out(stream.Signature(layouts.bits(i_lanes)))
    i : In(stream.Signature(layouts.results(o_lanes, width, classes)))
        As in `HostLink`.
    """

    def __init__(self, parameters: LinkParameters):
        self.parameters = p = parameters
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "o": Out(stream.Signature(layouts.bits(p.i_lanes))),
                "i": In(stream.Signature(layouts.results(p.o_lanes, p.width, p.classes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        divisor = self.parameters.divisor
        m.submodules.receiver = receiver = UARTReceiver(divisor)
        m.submodules.transmitter = transmitter = UARTTransmitter(divisor)
        m.submodules.link = link = HostLink(self.parameters)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        wiring.connect(m, receiver.o, link.rx)
        wiring.connect(m, link.tx, transmitter.i)
        wiring.connect(m, link.o, wiring.flipped(self.o))
        wiring.connect(m, wiring.flipped(self.i), link.i)
        return m
