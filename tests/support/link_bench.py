"""Run the link in Amaranth's simulator: on its byte streams, or as a board behind a serial port."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from amaranth import ClockDomain, Module
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from xnorflow.host.packets import PacketReader, encode_packet, pack_frame
from xnorflow.hw.link.host_link import BYTE_CYCLES, HostLink, UARTHostLink
from xnorflow.hw.link.protocol import LinkParameters, Request
from xnorflow.sim.streams import unpack_bits

DIGEST = "0123456789abcdef"


def tiny_parameters(**changes) -> LinkParameters:
    """15 bits in beats of 3, 4 scores of 11 bits in beats of 2."""
    values = {"i_lanes": 3, "i_beats": 5, "o_lanes": 2, "o_beats": 2, "width": 11, "classes": 4}
    values |= {"clock_hz": 4_000_000, "baud": 1_000_000, "digest": DIGEST}
    return LinkParameters(**(values | changes))


def frame_packets(bits: np.ndarray, sequence: int, parameters: LinkParameters) -> list[bytes]:
    """Packets of a frame whose first segment has the number `sequence`."""
    body, size = pack_frame(bits), parameters.segment_bytes
    return [
        encode_packet(Request.SEGMENT, sequence + n & 0xFF, body[start : start + size])
        for n, start in enumerate(range(0, len(body), size))
    ]


def dummy_scores(bits: np.ndarray, classes: int, width: int) -> np.ndarray:
    """Scores of any sign that depend on every bit of a frame."""
    weights = np.random.default_rng(5).integers(-9, 10, (len(bits), classes))
    half = 1 << (width - 1)
    return (weights * (2 * bits[:, None] - 1)).sum(axis=0).clip(-half, half - 1)


@dataclass
class DummyCore:
    """A testbench in the core's place; keeps what it is given.

    With `stall` above 0, a cycle passes idle with this probability before every beat; while
    `blocked` is set, nothing is taken.
    """

    link: object
    parameters: LinkParameters
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    stall: float = 0.0
    blocked: bool = False
    frames: list[np.ndarray] = field(default_factory=list)

    async def run(self, ctx) -> None:
        p = self.parameters
        while True:
            beats = [await self._take(ctx) for _ in range(p.i_beats)]
            bits = unpack_bits(beats, p.i_lanes, p.i_bits)[0]
            self.frames.append(bits)
            scores = dummy_scores(bits, p.classes, p.width)
            for beat, part in enumerate(scores.reshape(p.o_beats, p.o_lanes).tolist()):
                last = beat == p.o_beats - 1
                index = int(scores.argmax()) if last else 0
                await self._give(ctx, {"scores": part, "index": index, "last": last})

    async def _pause(self, ctx) -> None:
        while self.blocked or self.rng.random() < self.stall:
            await ctx.tick()

    async def _take(self, ctx) -> int:
        await self._pause(ctx)
        ctx.set(self.link.o.ready, 1)
        valid = payload = 0
        while not valid:
            _, _, valid, payload = await ctx.tick().sample(
                self.link.o.valid, Value.cast(self.link.o.payload)
            )
        ctx.set(self.link.o.ready, 0)
        return payload

    async def _give(self, ctx, result) -> None:
        await self._pause(ctx)
        ctx.set(self.link.i.payload, result)
        ctx.set(self.link.i.valid, 1)
        ready = 0
        while not ready:
            _, _, ready = await ctx.tick().sample(self.link.i.ready)
        ctx.set(self.link.i.valid, 0)


class ByteBench:
    """`HostLink` with a dummy core; bytes go in and packets come out.

    Parameters
    ----------
    parameters : LinkParameters
    seed : int
    stall : float
        Probability of an idle cycle before every beat and byte, everywhere.
    """

    def __init__(self, parameters: LinkParameters, seed: int = 0, stall: float = 0.0):
        self.rng = np.random.default_rng(seed)
        self.stall = stall
        self.link = HostLink(parameters)
        self.core = DummyCore(self.link, parameters, np.random.default_rng(seed + 1), stall)
        self.reader = PacketReader()
        self.raw = bytearray()
        self.packets: list = []
        self.hold = False  # take no byte from the link
        self._quiet = 0

    def run(self, source: Callable, rest: int = 300) -> list:
        """Run until `source` has ended and `rest` cycles have passed without a byte."""
        sim = Simulator(self.link)
        sim.add_clock(1e-6)

        async def bench(ctx):
            await source(ctx)
            self._quiet = 0
            while self._quiet < rest:
                await ctx.tick()

        sim.add_testbench(bench)
        sim.add_testbench(self.core.run, background=True)
        sim.add_testbench(self._sink, background=True)
        sim.run()
        return self.packets

    def send(self, data: bytes, rest: int = 300) -> list:
        """Send `data` and return all packets that come."""

        async def source(ctx):
            await self.put(ctx, data)

        return self.run(source, rest)

    async def put(self, ctx, data: bytes) -> None:
        """Send `data`; the link must take every byte at once."""
        for byte in data:
            while self.rng.random() < self.stall:
                await ctx.tick()
            ctx.set(self.link.rx.payload, byte)
            ctx.set(self.link.rx.valid, 1)
            for _ in range(BYTE_CYCLES):
                _, _, ready = await ctx.tick().sample(self.link.rx.ready)
                if ready:
                    break
            assert ready, "the next byte from the wire is there"
            ctx.set(self.link.rx.valid, 0)
            self._quiet = 0

    async def _sink(self, ctx) -> None:
        while True:
            ctx.set(self.link.tx.ready, not self.hold and self.rng.random() >= self.stall)
            _, _, ready, valid, byte = await ctx.tick().sample(
                self.link.tx.ready, self.link.tx.valid, self.link.tx.payload
            )
            self._quiet += 1
            assert self._quiet < 4000, f"nothing comes after {len(self.packets)} packets"
            if ready and valid:
                self._quiet = 0
                self.raw.append(byte)
                self.packets += self.reader.feed(bytes([byte]))


class SerialBench:
    """Anything with pins ``rx`` and ``tx`` in simulation, used like a serial port.

    An independent UART in Python drives the pins. Time passes in the simulation only, while bytes
    are waited for; `clock` tells it.

    Parameters
    ----------
    board : Component
    clock_hz, baud : float
        The board's clock, and the host's own bit rate.
    to_board, from_board : callable
        The wire: given the bytes that enter it, returns those that leave it.
    testbenches : callables
        Run beside it.
    """

    def __init__(
        self,
        board: wiring.Component,
        clock_hz: float,
        baud: float,
        *testbenches: Callable,
        to_board: Callable[[bytes], bytes] = bytes,
        from_board: Callable[[bytes], bytes] = bytes,
    ):
        self.board, self.bit = board, 1 / baud
        self.to_board, self.from_board = to_board, from_board
        self.bad_stop_bits: set[int] = set()  # numbers of bytes sent with a low stop bit
        self._now = 0.0
        self._outgoing = bytearray()
        self._sent = 0
        self._incoming = bytearray()
        top = Module()
        top.domains.sync = ClockDomain()
        top.submodules.board = board
        self._sim = Simulator(top)
        self._sim.add_clock(1 / clock_hz)
        for testbench in (self._drive, self._listen, *testbenches):
            self._sim.add_testbench(testbench, background=True)
        self.advance(self.bit)

    def clock(self) -> float:
        """Seconds simulated so far."""
        return self._now

    @property
    def in_waiting(self) -> int:
        return len(self._incoming)

    def read(self, size: int = 1, /) -> bytes:
        for _ in range(4):
            if len(self._incoming) >= size:
                break
            self.advance(10 * self.bit)
        data = bytes(self._incoming[:size])
        del self._incoming[:size]
        return data

    def write(self, data: bytes, /) -> int:
        self._outgoing += self.to_board(data)
        return len(data)

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._sim.run_until(self._now)

    async def _drive(self, ctx) -> None:
        ctx.set(self.board.rx, 1)
        while True:
            if not self._outgoing:
                await ctx.delay(self.bit)
                continue
            byte = self._outgoing.pop(0)
            stop = self._sent not in self.bad_stop_bits
            self._sent += 1
            for level in [0, *(byte >> k & 1 for k in range(8)), stop]:
                ctx.set(self.board.rx, level)
                await ctx.delay(self.bit)
            if not stop:
                ctx.set(self.board.rx, 1)
                await ctx.delay(self.bit)

    async def _listen(self, ctx) -> None:
        while True:
            await ctx.negedge(self.board.tx)
            await ctx.delay(self.bit / 2)
            assert not ctx.get(self.board.tx), "start bit shorter than half a bit"
            byte = 0
            for k in range(8):
                await ctx.delay(self.bit)
                byte |= ctx.get(self.board.tx) << k
            await ctx.delay(self.bit)
            assert ctx.get(self.board.tx), "no stop bit"
            self._incoming += self.from_board(bytes([byte]))


class LinkedCore(wiring.Component):
    """A streaming core behind the link: what a board's pins see."""

    def __init__(self, core, digest, **changes):
        self.core = core
        layout = core.o.payload.shape()
        self.parameters = tiny_parameters(
            i_lanes=core.i_lanes,
            i_beats=core.i_beats,
            o_lanes=layout["scores"].shape.length,
            o_beats=core.o_beats,
            width=layout["scores"].shape.elem_shape.width,
            classes=core.classes,
            digest=digest,
            **changes,
        )
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = self.core
        m.submodules.link = link = UARTHostLink(self.parameters)
        m.d.comb += [link.rx.eq(self.rx), self.tx.eq(link.tx)]
        wiring.connect(m, link.o, self.core.i)
        wiring.connect(m, self.core.o, link.i)
        return m
