"""A core and a link small enough to build in seconds."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from amaranth import Cat, Module, Signal
from amaranth.build import Pins, Resource, Subsignal
from amaranth.hdl import Fragment
from amaranth.lib import io, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from xnorflow.boards import Board
from xnorflow.boards.pll import PLLSetting
from xnorflow.boards.top import BoardTop
from xnorflow.hw import layouts

LANES = 8


class TinyCore(wiring.Component):
    """Gives the complement of each beat, a cycle later."""

    i: In(stream.Signature(layouts.bits(LANES)))
    o: Out(stream.Signature(layouts.bits(LANES)))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid)
            m.d.sync += self.o.payload.as_value().eq(~self.i.payload.as_value())
        return m


class TinyLink(wiring.Component):
    """Shifts in one bit a cycle, hands on what it has after a one, and sends results serially."""

    rx: In(1)
    tx: Out(1, init=1)
    o: Out(stream.Signature(layouts.bits(LANES)))
    i: In(stream.Signature(layouts.bits(LANES)))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rx, taken, given = Signal(init=1), Signal(LANES), Signal(LANES)
        left = Signal(range(LANES + 1))
        m.submodules.rx_sync = FFSynchronizer(self.rx, rx, init=1)
        m.d.sync += taken.eq(Cat(rx, taken[:-1]))
        m.d.comb += [
            self.o.valid.eq(taken[0]),
            self.o.payload.as_value().eq(taken),
            self.i.ready.eq(left == 0),
        ]
        with m.If(left):
            m.d.sync += [left.eq(left - 1), given.eq(given >> 1), self.tx.eq(given[0])]
        with m.Elif(self.i.valid):
            m.d.sync += [left.eq(LANES), given.eq(self.i.payload.as_value())]
        return m


class StandInPlatform:
    """Gives simulation ports where the real one gives pins."""

    default_clk = "clk12"

    def __init__(self):
        self.clk = io.SimulationPort("i", 1)
        self.rx, self.tx = io.SimulationPort("i", 1), io.SimulationPort("o", 1)
        self.led = io.SimulationPort("o", 1)

    def lookup(self, name: str, number: int = 0) -> Resource:
        if name == "uart":
            rx, tx = Subsignal("rx", Pins("1", dir="i")), Subsignal("tx", Pins("2", dir="o"))
            return Resource("uart", number, rx, tx)
        return Resource(name, number, Pins("3", dir="o"))

    def request(self, name: str, number: int = 0, dir: object = None) -> object:
        if name == "uart":
            assert dir == {"rx": "-", "tx": "-"}
            return SimpleNamespace(rx=self.rx, tx=self.tx)
        assert dir == "-"
        return {"clk12": self.clk, "led": self.led}[name]


def simulate_top(top: BoardTop, rx: str, pin: str = "tx") -> str:
    """Put one bit of `rx` a cycle at the pin; return what `pin` shows after each cycle."""
    platform = StandInPlatform()
    sim = Simulator(Fragment.get(top, platform))
    shown = []

    async def bench(ctx):
        for bit in rx:
            ctx.set(platform.rx.i, int(bit))
            ctx.set(platform.clk.i, 1)
            await ctx.delay(1e-6 / 24)
            ctx.set(platform.clk.i, 0)
            await ctx.delay(1e-6 / 24)
            shown.append(str(ctx.get(getattr(platform, pin).o)))

    sim.add_testbench(bench)
    sim.run()
    return "".join(shown)


def make_tiny_top(board: Board) -> Callable[[PLLSetting], BoardTop]:
    return lambda setting: BoardTop(TinyCore(), TinyLink(), board, setting)


@pytest.fixture
def tiny_top() -> Callable[[Board], Callable[[PLLSetting], BoardTop]]:
    """A board's top level around the tiny core, as a function of the clock."""
    return make_tiny_top


@pytest.fixture
def tiny_parts() -> tuple[type[TinyCore], type[TinyLink]]:
    """The classes of the tiny core and link."""
    return TinyCore, TinyLink


@pytest.fixture
def pins_of() -> Callable[..., str]:
    """What a top level on its oscillator shows at a pin for the bits at rx, one a cycle."""
    return simulate_top


@pytest.fixture
def tx_of() -> Callable[[BoardTop, str], str]:
    """What a top level on its oscillator sends at tx for the bits at rx, one a cycle."""
    return simulate_top
