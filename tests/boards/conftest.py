"""A core and a link small enough to build in seconds."""

from collections.abc import Callable

import pytest
from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

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
        taken, given, left = Signal(LANES), Signal(LANES), Signal(range(LANES + 1))
        m.d.sync += taken.eq(Cat(self.rx, taken[:-1]))
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
