"""Input vector buffer of a matrix-vector unit."""

import numpy as np
from amaranth import Module, Mux, Signal
from amaranth.hdl import Shape, ShapeLike, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, Storage, index_bits, merge, placed_parts

__all__ = ["ReplayBuffer", "replay_parts"]


def replay_parts(
    family: Family, width: int, length: int, times: int, registers: bool = False
) -> Parts:
    """Return the parts of a `ReplayBuffer` for payloads of `width` bits."""
    if times == 1:
        return {}
    words = 2 * length
    storage = (
        Storage("registers", words * width, 0) if registers else family.ram(words, width, True)
    )
    return merge(
        {
            "replay": 1,
            "replay address bit": 3 * index_bits(words),
            "replay counter bit": 2 * index_bits(words + 1) + index_bits(length, times),
        },
        placed_parts(storage, words, width, True),
    )


class ReplayBuffer(wiring.Component):
    """Give every vector of `length` beats `times` times, while the next one already comes in.

    A matrix-vector unit reads its input vector once for each neuron fold. Two vectors fit: words
    are written in a ring, the current vector is read over and over, and during its last round each
    word is freed as it is read::

        i --> |ring of 2 * length words| --> |output register| --> o

    The first round follows the writer word by word, so that no vector is waited for as a whole.
    With `times` of 1 nothing is kept and the stream passes straight through.

    Latency: 2 cycles from a word's arrival to its first appearance (0 with `times` of 1).
    Throughput: one beat a cycle, with no idle cycle between rounds or vectors.

    Parameters
    ----------
    shape : ShapeLike
        Payload of both streams.
    length : int
        Beats of a vector.
    times : int
        Rounds that a vector is given.
    registers : bool
        Keep the words in flip-flops instead of what the tools choose: saves a scarce block RAM
        where few words are kept and the device has no distributed RAM (iCE40).

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def __init__(self, shape: ShapeLike, length: int, times: int, registers: bool = False):
        for name, value in (("length", length), ("times", times)):
            if value < 1:
                raise ValueError(f"ReplayBuffer {name} must be at least 1, not {value!r}")
        self.shape, self.length, self.times = shape, length, times
        self.registers = registers
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which one vector's beats leave, given those at which they arrive.

        Parameters
        ----------
        arrivals : ndarray of int, shape (length,)

        Returns
        -------
        ndarray of int, shape (length * times,)
            For a consumer that is always ready.
        """
        if self.times == 1:
            return arrivals
        beats = np.arange(self.length)
        # Beat k leaves 2 cycles after it came, or a cycle after its forerunner.
        first = np.maximum.accumulate(arrivals + 2 - beats) + beats
        later = np.arange(1, self.length * (self.times - 1) + 1)
        return np.concatenate([first, first[-1] + later])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.times == 1:
            wiring.connect(m, wiring.flipped(self.i), wiring.flipped(self.o))
            return m

        depth = 2 * self.length
        m.submodules.ring = ring = memory.Memory(
            shape=Shape.cast(self.shape).width,
            depth=depth,
            init=[],
            attrs={"ram_style": "logic"} if self.registers else {},
        )
        write, read = ring.write_port(), ring.read_port()

        def after(pointer: Value) -> Value:
            return Mux(pointer == depth - 1, 0, pointer + 1)

        # Counted up and down in one step each, they never depend on `o.ready` in `i.ready`; whether
        # they are 0 is a flip-flop, since `i.ready` goes on through converters and far.
        free = Signal(range(depth + 1), init=depth)
        room = Signal(init=1)
        fresh = Signal(range(depth + 1))  # words that no round has read yet
        waiting = Signal()
        accept, fetch, take, release = Signal(), Signal(), Signal(), Signal()
        first_round, last_round = Signal(), Signal()

        m.d.comb += [
            self.i.ready.eq(room),
            accept.eq(self.i.valid & self.i.ready),
            write.en.eq(accept),
            write.data.eq(self.i.payload),
            fetch.eq((~first_round | waiting) & (~self.o.valid | self.o.ready)),
            take.eq(fetch & first_round),
            release.eq(fetch & last_round),
            read.en.eq(fetch),
            self.o.payload.eq(read.data),
        ]
        with m.If(accept):
            m.d.sync += write.addr.eq(after(write.addr))
        m.d.sync += [
            free.eq(free - accept + release),
            room.eq(release | (free > 1) | (room & ~accept)),
            fresh.eq(fresh + accept - take),
            waiting.eq(accept | (fresh > 1) | (waiting & ~take)),
        ]

        # No condition around it: on iCE40 a flip-flop's enable must be joined with its reset, which
        # comes from far away.
        m.d.sync += self.o.valid.eq(fetch | (self.o.valid & ~self.o.ready))

        beat = Signal(range(self.length))
        turn = Signal(range(self.times))
        start = Signal(range(depth))  # address of the current vector's first word
        m.d.comb += [first_round.eq(turn == 0), last_round.eq(turn == self.times - 1)]
        with m.If(fetch):
            with m.If(beat != self.length - 1):
                m.d.sync += [beat.eq(beat + 1), read.addr.eq(after(read.addr))]
            with m.Else():
                m.d.sync += beat.eq(0)
                with m.If(~last_round):
                    m.d.sync += [turn.eq(turn + 1), read.addr.eq(start)]
                with m.Else():
                    m.d.sync += [
                        turn.eq(0),
                        read.addr.eq(after(read.addr)),
                        start.eq(after(read.addr)),
                    ]
        return m
