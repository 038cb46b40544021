"""Whole frames between the wire and the core."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorflow.hw import layouts
from xnorflow.hw.link.protocol import LinkParameters

__all__ = ["FrameSlots"]


class FrameSlots(wiring.Component):
    """Keep frames until they are known to be good, then give them to the core.

    There are as many slots as credits, used in turn. Three counters go round them: where the next
    frame is written, which frame is being given to the core, which frame the core answers next. A
    slot is free again when its frame has been answered, so a host that keeps to its credits always
    finds one free::

        store ─► |slot 0|slot 1|slot 2|slot 3| ─► bit by bit ─► |beat| ─► o
                  answer  read          write

    The bytes of a frame are stored at their offsets; `commit` makes the frame one that is given to
    the core. Without it the slot is written again: the core never sees what was there.

    Latency: `latency` cycles from `commit` to the frame's last beat, when `o` is always ready.
    Cycles: `cycles_per_frame`, a bit a cycle and one more a beat; at most two fifths of what the
    frame takes on the wire at the least divisor.

    Parameters
    ----------
    parameters : LinkParameters

    Attributes
    ----------
    cycles_per_frame, latency : int

    Members
    -------
    data, offset, store : In
        Byte `data` of the frame being received stands at `offset`. Only where `full` is low.
    commit : In(1)
        The frame received is whole. Only where `full` is low.
    answered : In(1)
        The oldest frame has been answered. Only where `held` is not 0.
    full : Out(1)
        There is no free slot.
    held : Out(range(credits + 1))
        Frames committed and not answered.
    oldest : Out(8)
        Number of the oldest of them, or of the next one: frames are counted as they are answered.
    o : Out(stream.Signature(layouts.bits(i_lanes)))
    """

    def __init__(self, parameters: LinkParameters):
        self.parameters = parameters
        self.cycles_per_frame = parameters.delivery_cycles
        self.latency = self.cycles_per_frame + 3
        super().__init__(
            {
                "data": In(8),
                "offset": In(range(parameters.i_bytes)),
                "store": In(1),
                "commit": In(1),
                "answered": In(1),
                "full": Out(1),
                "held": Out(range(parameters.credits + 1)),
                "oldest": Out(8),
                "o": Out(stream.Signature(layouts.bits(parameters.i_lanes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self.parameters
        slot_bits = ceil_log2(p.credits)
        offset_bits = ceil_log2(p.i_bytes)

        # One bit more than a slot's number tells all slots used from none.
        writing, reading = (Signal(slot_bits + 1, name=name) for name in ("writing", "reading"))
        answering = Signal(8)
        m.submodules.bytes = storage = memory.Memory(
            shape=8,
            depth=p.credits << offset_bits,
            init=[],
            # What is read where a byte is written is not looked at: that slot is not whole yet.
            # yosys takes this for a port without clock and a register behind it only.
            attrs={"no_rw_check": 1},
        )
        write, read = storage.write_port(), storage.read_port(domain="comb")
        m.d.comb += [
            self.held.eq((writing - answering)[: slot_bits + 1]),
            self.full.eq(self.held == p.credits),
            write.addr.eq(Cat(self.offset[:offset_bits], writing[:slot_bits])),
            write.data.eq(self.data),
            write.en.eq(self.store),
            self.oldest.eq(answering),
        ]
        with m.If(self.commit):
            m.d.sync += writing.eq(writing + 1)
        with m.If(self.answered):
            m.d.sync += answering.eq(answering + 1)

        # Bit `position` of a frame is addressed in one cycle, its byte stands in a register of its
        # own two later, since block RAM is slow, and then it moves into the beat. Whatever decides
        # is known a cycle before, in a flip-flop: whether there is a frame, whether this is its
        # last bit or the beat's, and whether a bit moves.
        position = Signal(range(8 << offset_bits))
        some, ending = Signal(), Signal(init=p.i_bits == 1)
        fetched, place = Signal(), Signal(3)
        # ECP5's block RAM has the byte's register inside, if both are enabled as one.
        kept, byte, bit = Signal(), Signal(8, reset_less=True), Signal(3)
        lane = Signal(range(p.i_lanes))
        completing = Signal(init=p.i_lanes == 1)
        fetch, moving, advance = Signal(), Signal(), Signal()
        m.d.comb += [
            advance.eq(~kept | moving),
            fetch.eq(some & advance),
            read.addr.eq(Cat(position[3:], reading[:slot_bits])),
        ]
        m.d.sync += some.eq(Mux(fetch & ending, reading + 1, reading)[: slot_bits + 1] != writing)
        with m.If(fetch):
            m.d.sync += [
                place.eq(position[:3]),
                position.eq(Mux(ending, 0, position + 1)),
                reading.eq(reading + ending),
            ]
            if p.i_bits > 1:
                m.d.sync += ending.eq(position == p.i_bits - 2)
        output = Signal(8, reset_less=True)
        with m.If(advance):
            m.d.sync += [
                output.eq(read.data),
                byte.eq(output),
                bit.eq(place),
                fetched.eq(fetch),
            ]
        will_be_kept = fetched | (kept & ~moving)
        waits = (self.o.valid & ~self.o.ready) | (moving & completing)
        m.d.sync += [
            kept.eq(will_be_kept),
            self.o.valid.eq(waits),
            moving.eq(will_be_kept & ~waits),
        ]
        with m.If(moving):
            beat = self.o.payload.as_value()
            m.d.sync += [
                beat.eq(Cat(beat[1:], byte.bit_select(bit, 1))),
                lane.eq(Mux(completing, 0, lane + 1)),
            ]
            if p.i_lanes > 1:
                m.d.sync += completing.eq(lane == p.i_lanes - 2)
        return m
