"""Input vector buffer of a matrix-vector unit."""

import numpy as np
from amaranth import Module, Mux, Signal
from amaranth.hdl import Shape, ShapeLike, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import NEAR_WORDS, Family, Parts, Storage, index_bits, merge, placed_parts

__all__ = ["ReplayBuffer", "replay_parts"]


def replay_parts(
    family: Family, width: int, length: int, times: int, registers: bool = False
) -> Parts:
    """Return the parts of a `ReplayBuffer` for payloads of `width` bits."""
    if times == 1:
        return {}
    words = 2 * length
    storage = Storage("registers", words * width, 0) if registers else family.near_ram(words, width)
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
    distributed : bool
        The device has distributed RAM, which up to `NEAR_WORDS` words go to: it is faster than
        block RAM.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def __init__(
        self,
        shape: ShapeLike,
        length: int,
        times: int,
        registers: bool = False,
        distributed: bool = False,
    ):
        for name, value in (("length", length), ("times", times)):
            if value < 1:
                raise ValueError(f"ReplayBuffer {name} must be at least 1, not {value!r}")
        self.shape, self.length, self.times = shape, length, times
        self._style: dict[str, str] = {}
        if registers:
            self._style = {"ram_style": "logic"}
        elif distributed and 2 * length <= NEAR_WORDS:
            self._style = {"ram_style": "distributed"}
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
            attrs=self._style,
        )
        write, read = ring.write_port(), ring.read_port()

        def after(pointer: Value) -> Value:
            return Mux(pointer == depth - 1, 0, pointer + 1)

        accept, fetch = Signal(), Signal()
        # What decides is known a cycle before, in flip-flops: fetching goes far, and `i.ready` on
        # through converters. The first round waits for words that came, the others have them.
        first_round, last_round = Signal(init=1), Signal()
        beat, ending = Signal(range(self.length)), Signal(init=self.length == 1)
        room = _some(m, fetch & last_round, accept, depth, depth, "free")
        fresh = _some(m, accept, fetch & first_round, depth, 0, "fresh")
        m.d.comb += [
            self.i.ready.eq(room),
            accept.eq(self.i.valid & room),
            # Where nothing comes, what the next word's place holds does not matter.
            write.en.eq(room),
            write.data.eq(self.i.payload),
            fetch.eq((~first_round | fresh) & (~self.o.valid | self.o.ready)),
            read.en.eq(fetch),
            self.o.payload.eq(read.data),
        ]
        with m.If(accept):
            m.d.sync += write.addr.eq(after(write.addr))

        # No condition around it: on iCE40 a flip-flop's enable must be joined with its reset, which
        # comes from far away.
        m.d.sync += self.o.valid.eq(fetch | (self.o.valid & ~self.o.ready))

        turn = Signal(range(self.times))
        start = Signal(range(depth))  # address of the current vector's first word
        with m.If(fetch):
            m.d.sync += [
                beat.eq(Mux(ending, 0, beat + 1)),
                read.addr.eq(Mux(ending & ~last_round, start, after(read.addr))),
            ]
            if self.length > 1:
                m.d.sync += ending.eq(beat == self.length - 2)
        with m.If(fetch & ending):
            m.d.sync += [
                turn.eq(Mux(last_round, 0, turn + 1)),
                first_round.eq(last_round),
                last_round.eq(turn == self.times - 2),
            ]
            with m.If(last_round):
                m.d.sync += start.eq(after(read.addr))
        return m


def _some(m: Module, up: Value, down: Value, top: int, init: int, name: str) -> Signal:
    """Return a flip-flop that says whether a number is not 0, at once after each change.

    Parameters
    ----------
    m : Module
    up, down : Value
        Whether the number becomes greater or less by one.
    top, init : int
        Its largest value, and the first.
    name : str
    """
    some = Signal(init=init > 0, name=f"{name}_some")
    several = Signal(init=init > 1, name=f"{name}_several")
    # The count itself comes a cycle late, so that `up` and `down` need not reach through its sum.
    count = Signal(range(top + 1), init=init, name=name)
    more, less = Signal(name=f"{name}_more"), Signal(name=f"{name}_less")
    many = (count > 3) | ((count == 3) & ~less) | ((count == 2) & more)
    m.d.sync += [
        more.eq(up & ~down),
        less.eq(down & ~up),
        count.eq(count + more - less),
        several.eq(many | (several & (up | ~down)) | (some & up & ~down)),
        some.eq(several | up | (some & ~down)),
    ]
    return some
