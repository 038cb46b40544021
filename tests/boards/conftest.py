"""A core and a link small enough to build in seconds."""

from collections.abc import Callable

import pytest
from amaranth import Cat, Module, Signal
from amaranth.hdl import Fragment
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from xnorflow.boards import Board
from xnorflow.boards.pll import PLLSetting
from xnorflow.boards.top import BoardTop
from xnorflow.hw import layouts
from xnorflow.sim.virtual_board import PinPlatform

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


def simulate_top(top: BoardTop, rx: str, pin: str = "tx") -> str:
    """Put one bit of `rx` a cycle at the pin; return what `pin` shows after each cycle."""
    platform = PinPlatform(top.board)
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
