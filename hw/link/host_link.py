"""The link between host and core: packets on a byte stream, frames and results on the other side.

The packets are described in ``docs/protocol.md``.
"""

from amaranth import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.hdl import ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from xnorflow.hw import layouts
from xnorflow.hw.cost import Family, Parts, index_bits, merge, storage_parts
from xnorflow.hw.link.cobs import CobsDecoder, ReverseCobsEncoder, decoded, encodable
from xnorflow.hw.link.crc import SerialCRC32
from xnorflow.hw.link.frame_slots import FrameSlots
from xnorflow.hw.link.protocol import (
    CRC_BYTES,
    IDENTITY,
    RESULT_TAIL,
    STATUS,
    Fault,
    LinkParameters,
    Reply,
    Request,
)
from xnorflow.hw.link.uart import UARTReceiver, UARTTransmitter

__all__ = ["HostLink", "PacketReceiver", "PacketSender", "UARTHostLink", "link_parts"]

#: An answer that carries no result: the identity, or a status with its code; the request's number.
answer = data.StructLayout({"identity": 1, "code": 3, "sequence": 8})

#: Places of the number of the next result and of the frames held, in both kinds of answer.
_OLDEST_OFFSET, _HELD_OFFSET = 2, 3


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
        storage_parts(family, words, 8),
    )


#: Cycles between two bytes, for the check value; a UART takes five times as many at the least.
BYTE_CYCLES = 8


class PacketReceiver(wiring.Component):
    """Take packets apart, put frames into a slot, and judge every packet at its end.

    A segment is accepted only if all of it is there, its check value, its number and its length are
    right and a slot was free from its first byte on; the next one then has the next number. The
    last segment commits the frame. To identify drops a frame that was begun and sets the number
    of the next segment. An empty packet says nothing and gets no answer, an accepted segment gets
    none either.

    Parameters
    ----------
    parameters : LinkParameters

    Members
    -------
    i : In(stream.Signature(decoded))
        A byte takes `BYTE_CYCLES`, the end of a packet three: it is compared with what it should
        be, judged, and then acted upon.
    data, offset, store, commit : Out
    full : In
        To `FrameSlots`.
    expected : Out(8)
        Number of the segment that comes next.
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
                "full": In(1),
                "expected": Out(8),
                "o": Out(stream.Signature(answer)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self.parameters
        m.submodules.crc = crc = SerialCRC32()
        compared, judged = Signal(), Signal()
        ended = self.i.valid & self.i.payload.end
        end = ended & judged
        bit = Signal(range(BYTE_CYCLES))
        checking = self.i.valid & ~self.i.payload.end
        byte = checking & (bit == BYTE_CYCLES - 1)
        typed, numbered = Signal(), Signal()  # type and sequence number have come
        segment, identify, poll = Signal(), Signal(), Signal()  # the packet's type
        sequence = Signal(8)
        blocked = Signal()  # a byte of the segment found no free slot
        greeted = Signal()  # a host has set the number of the next segment since reset
        place = Signal(range(p.segments))  # of the segment that comes next, in its frame
        last = place == p.segments - 1
        longest = p.last_segment_bytes if p.segments == 1 else p.segment_bytes
        length = Mux(last, p.last_segment_bytes, p.segment_bytes)
        count = Signal(range(longest + CRC_BYTES + 2))  # bytes of the body; the top: too many
        m.d.comb += [
            self.i.ready.eq(end | byte),
            crc.start.eq(end),
            crc.bit.eq(self.i.payload.data.bit_select(bit, 1)),
            crc.shift.eq(checking),
            self.data.eq(self.i.payload.data),
            self.offset.eq(count if p.segments == 1 else Cat(count[: exact_log2(longest)], place)),
        ]

        whole, ordered, sized = Signal(), Signal(), Signal()
        m.d.sync += [
            compared.eq(ended & ~end),
            judged.eq(compared & ~end),
            whole.eq(crc.match & self.i.payload.whole),
            ordered.eq(sequence == self.expected),
            sized.eq(count == Mux(segment, length + CRC_BYTES, CRC_BYTES)),
        ]
        fault = Signal(self.o.payload.code.shape())  # 0 if there is none
        with m.If(~whole):
            m.d.sync += fault.eq(Fault.DAMAGED)
        with m.Elif(~segment & ~identify & ~poll):
            m.d.sync += fault.eq(Fault.TYPE)
        with m.Elif(~identify & ~greeted):
            m.d.sync += fault.eq(Fault.STRANGER)
        with m.Elif(segment & ~ordered):
            m.d.sync += fault.eq(Fault.ORDER)
        with m.Elif(~sized):
            m.d.sync += fault.eq(Fault.LENGTH)
        with m.Elif(segment & blocked):
            m.d.sync += fault.eq(Fault.OVERRUN)
        with m.Else():
            m.d.sync += fault.eq(0)
        good = fault == 0

        with m.If(checking):
            m.d.sync += bit.eq(bit + 1)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(end):
            m.d.sync += [signal.eq(0) for signal in (typed, numbered, count, blocked, sequence)]
            with m.If(typed & good & ~poll):
                m.d.comb += self.commit.eq(segment & last)
                m.d.sync += [
                    self.expected.eq(sequence + 1),
                    place.eq(Mux(identify | last, 0, place + 1)),
                    greeted.eq(1),
                ]
            with m.If(typed & ~(good & segment) & ~self.o.valid):
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.payload.identity.eq(good & identify),
                    self.o.payload.code.eq(fault),
                    self.o.payload.sequence.eq(sequence),
                ]
        with m.Elif(byte & ~typed):
            m.d.sync += [
                typed.eq(1),
                segment.eq(self.data == Request.SEGMENT),
                identify.eq(self.data == Request.IDENTIFY),
                poll.eq(self.data == Request.POLL),
            ]
        with m.Elif(byte & ~numbered):
            m.d.sync += [numbered.eq(1), sequence.eq(self.data)]
        with m.Elif(byte & (count != longest + CRC_BYTES + 1)):
            m.d.sync += count.eq(count + 1)
            with m.If(segment & (count < length)):
                m.d.comb += self.store.eq(~self.full)
                with m.If(self.full):
                    m.d.sync += blocked.eq(1)
        return m


class PacketSender(wiring.Component):
    """Put packets together: answers first, then results.

    The core's beats are not copied: each is taken behind its last byte, so the core waits for the
    wire. The class stands behind the scores because only the last beat knows it.

    Parameters
    ----------
    parameters : LinkParameters

    Members
    -------
    answer : In(stream.Signature(answer))
    expected : In(8)
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
                "expected": In(8),
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
        m.submodules.crc = crc = SerialCRC32()

        # A byte register cuts the path from the scores to the wire, and that from the wire back: it
        # is filled when it is empty, which is long before the wire is free again.
        byte, last, offered, free = Signal(8), Signal(), Signal(), Signal()
        bit = Signal(range(BYTE_CYCLES + 1), init=BYTE_CYCLES)  # of the byte, for the check
        passed = bit == BYTE_CYCLES
        m.d.sync += free.eq(~self.o.valid & passed & ~(free & offered))
        m.d.comb += [
            crc.bit.eq(self.o.payload.data.bit_select(bit[:3], 1)),
            crc.shift.eq(~passed),
        ]
        with m.If(~passed):
            m.d.sync += bit.eq(bit + 1)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(free & offered):
            m.d.sync += [
                bit.eq(0),
                self.o.valid.eq(1),
                self.o.payload.data.eq(byte),
                self.o.payload.last.eq(last),
            ]

        # So is this: a result's beat is seen a cycle after it came, and the wire takes many for it.
        # And it leaves a cycle after its last byte: `ready` reaches far into the core.
        present, closing, taken = Signal(), Signal(), Signal()
        m.d.comb += self.i.ready.eq(taken)
        m.d.sync += [
            taken.eq(0),
            self.answered.eq(0),
            present.eq(self.i.valid),
            closing.eq(self.i.payload.last),
        ]
        result = Signal()  # the packet under way is a result, else an answer
        beat_bytes = p.o_lanes * p.score_bytes
        index = Signal(range(max(beat_bytes, IDENTITY.size)))  # byte of a beat, identity or class
        identity = self.answer.payload.identity
        scores = Signal(layouts.scores(p.o_lanes, signed(8 * p.score_bytes)))
        m.d.comb += [scores[lane].eq(self.i.payload.scores[lane]) for lane in range(p.o_lanes)]
        status = [self.answer.payload.code, self.expected, self.oldest, self.held]
        identities = Array(Const(value, 8) for value in p.identity)
        # A cycle late too: between two bytes there are as many as the check needs.
        body, body_ends = Signal(8), Signal()
        with m.If(result):
            m.d.sync += [
                body.eq(scores.as_value().word_select(index, 8)),
                body_ends.eq(index == beat_bytes - 1),
            ]
        with m.Else():
            with m.If(~identity | (index == _OLDEST_OFFSET) | (index == _HELD_OFFSET)):
                m.d.sync += body.eq(Array(status)[index[:2]])
            with m.Else():
                m.d.sync += body.eq(identities[index])
            m.d.sync += body_ends.eq(index == Mux(identity, IDENTITY.size, STATUS.size) - 1)

        def send(value: ValueLike) -> None:
            m.d.comb += [offered.eq(1), byte.eq(value)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += crc.start.eq(1)
                m.d.sync += [index.eq(0), result.eq(~self.answer.valid)]
                with m.If(self.answer.valid | present):
                    m.next = "TYPE"
            with m.State("TYPE"):
                send(Mux(result, Reply.RESULT, Mux(identity, Reply.IDENTITY, Reply.STATUS)))
                with m.If(free):
                    m.next = "SEQUENCE"
            with m.State("SEQUENCE"):
                send(Mux(result, self.oldest, self.answer.payload.sequence))
                with m.If(free):
                    m.next = "BODY"
            with m.State("BODY"), m.If(~result | present):
                send(body)
                with m.If(free):
                    m.d.sync += index.eq(index + 1)
                with m.If(free & body_ends):
                    m.d.sync += index.eq(0)
                    with m.If(~result):
                        m.d.comb += self.answer.ready.eq(1)
                        m.next = "CHECK"
                    with m.Elif(closing):
                        m.next = "CLASS"
                    with m.Else():
                        m.d.sync += taken.eq(1)
            with m.State("CLASS"):
                number = Signal(8 * RESULT_TAIL.size)
                m.d.comb += number.eq(self.i.payload.index)
                send(number.word_select(index[0], 8))
                with m.If(free):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index[0]):
                        m.d.sync += index.eq(0)
                        m.d.sync += [taken.eq(1), self.answered.eq(1)]
                        m.next = "CHECK"
            with m.State("CHECK"):
                # The register moves on by a byte while the byte before waits, whatever that is.
                m.d.comb += [crc.drain.eq(index != 0), last.eq(index == CRC_BYTES - 1)]
                send(crc.low)
                with m.If(free):
                    m.d.sync += index.eq(index + 1)
                    with m.If(last):
                        m.next = "LEAVE"
            with m.State("LEAVE"), m.If(free):
                m.next = "IDLE"
        return m


class HostLink(wiring.Component):
    """Packets on a byte stream, frames and results on the other side.

    ::

        rx ─► COBS decoder ─► packet receiver ─► frame slots ─► o (to the core)
                                    │ answers         │ frames' numbers
        tx ◄─ COBS encoder ◄─ packet sender ◄─────────┴──────── i (from the core)

    `rx` is always ready: a byte stream that cannot be held back loses nothing here. A frame reaches
    the core only whole and checked, and each that does gets exactly one result. A packet that is
    refused gets a status, unless that is dropped because another answer waits to be sent.

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
            sender.expected.eq(receiver.expected),
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
