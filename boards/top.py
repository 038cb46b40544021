"""What goes into the chip: clock and reset, the link's pins, a lamp, and the core between them."""

from collections.abc import Iterable
from math import ceil
from typing import Any, cast

from amaranth import ClockDomain, ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.build import Platform, Subsignal
from amaranth.lib import io, wiring
from amaranth.lib.cdc import ResetSynchronizer

from xnorflow.boards.board import Board
from xnorflow.boards.pll import PLLSetting
from xnorflow.errors import UserError

__all__ = ["BoardTop", "ClockReset"]

RESET_US = 15
"""Reset once the clock is good: iCE40 block RAM reads zeros for its first 3 µs; times five."""


class ClockReset(wiring.Component):
    """Drive the domain ``sync`` from the board's oscillator, straight or through the PLL.

    Reset is held until the PLL has locked and `RESET_US` more microseconds have passed; it comes
    back at once, without a clock, when the lock is lost.

    The domain itself belongs to the module above.

    Parameters
    ----------
    setting : PLLSetting
        The clock to make.
    """

    def __init__(self, setting: PLLSetting):
        self.setting = setting
        super().__init__({})

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        pin = platform.request(platform.default_clk, dir="-")
        clock, locked = Signal(name="core_clk"), Signal()
        if self.setting.kind == "SB_PLL40_PAD":
            m.submodules.pll = self._ice40({"i_PACKAGEPIN": pin.io}, clock, locked)
        else:
            m.submodules.buffer = buffer = io.Buffer("i", pin)
            if self.setting.kind == "SB_PLL40_CORE":
                m.submodules.pll = self._ice40({"i_REFERENCECLK": buffer.i}, clock, locked)
            elif self.setting.kind == "EHXPLLL":
                m.submodules.pll = self._ecp5(buffer.i, clock, locked)
            else:
                m.d.comb += [clock.eq(buffer.i), locked.eq(1)]

        m.domains.por = ClockDomain(local=True)
        m.d.comb += [ClockSignal("por").eq(clock), ClockSignal("sync").eq(clock)]
        if self.setting.kind == "oscillator":
            m.d.comb += ResetSignal("por").eq(0)
        else:
            m.submodules.locked = ResetSynchronizer(~locked, domain="por")
        cycles = ceil(RESET_US * self.setting.frequency)
        timer, ready = Signal(range(cycles + 1)), Signal()
        with m.If(timer == cycles):
            m.d.por += ready.eq(1)
        with m.Else():
            m.d.por += timer.eq(timer + 1)
        # A flip-flop for the whole device, without a LUT's detour, and another one in front of it:
        # so it can be copied (`boards/fanout.py`). They wake up low, as all do on iCE40, so the
        # design runs for two cycles, with nothing to do, before it is held.
        waiting, held = Signal(reset_less=True), Signal(reset_less=True)
        m.d.por += [waiting.eq(~ready), held.eq(waiting)]
        m.d.comb += ResetSignal("sync").eq(held)
        return m

    def _ice40(self, reference: dict[str, object], clock: Signal, locked: Signal) -> Instance:
        divider = dict(self.setting.parameters)
        return Instance(
            self.setting.kind,
            p_FEEDBACK_PATH="SIMPLE",
            p_PLLOUT_SELECT="GENCLK",
            p_DIVR=Const(divider["DIVR"], 4),
            p_DIVF=Const(divider["DIVF"], 7),
            p_DIVQ=Const(divider["DIVQ"], 3),
            p_FILTER_RANGE=Const(divider["FILTER_RANGE"], 3),
            **reference,
            i_RESETB=Const(1),
            i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=clock,
            o_LOCK=locked,
        )

    def _ecp5(self, reference: Signal, clock: Signal, locked: Signal) -> Instance:
        divider = dict(self.setting.parameters)
        feedback = Signal(name="pll_feedback")
        return Instance(
            "EHXPLLL",
            # Loop filter as the vendor's tool sets it for these frequencies.
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=divider["CLKI_DIV"],
            p_CLKFB_DIV=divider["CLKFB_DIV"],
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=divider["CLKOP_DIV"],
            p_CLKOP_CPHASE=divider["CLKOP_DIV"] - 1,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_DIV=divider["CLKOS_DIV"],
            p_CLKOS_CPHASE=divider["CLKOS_DIV"] - 1,
            p_CLKOS_FPHASE=0,
            i_CLKI=reference,
            i_CLKFB=feedback,
            i_RST=Const(0),
            i_STDBY=Const(0),
            i_PLLWAKESYNC=Const(0),
            i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0),
            i_PHASEDIR=Const(0),
            i_PHASESTEP=Const(0),
            i_PHASELOADREG=Const(0),
            i_ENCLKOP=Const(0),
            i_ENCLKOS=Const(0),
            o_CLKOP=feedback,
            o_CLKOS=clock,
            o_LOCK=locked,
        )


class BoardTop(wiring.Component):
    """A core on a board: ``link.o → core.i``, ``core.o → link.i``, the link at the UART's pins.

    ::

        oscillator ─► PLL ─► sync clock, reset until locked
               rx ─────────────► link ─► core ─┐
               tx ◄───────────── link ◄────────┘
              led ◄─ blinks once a second; eight times while results pass

    Parameters
    ----------
    core : Component
        With the streams ``i`` and ``o``.
    link : Component
        With ``rx`` (In(1), asynchronous), ``tx`` (Out(1)), and the streams ``o`` (to the core) and
        ``i`` (from it).
    board : Board
        The board; it has a link.
    setting : PLLSetting
        The clock.

    Raises
    ------
    UserError
        If the board declares no link.
    """

    def __init__(
        self, core: wiring.Component, link: wiring.Component, board: Board, setting: PLLSetting
    ):
        if board.link is None:
            raise UserError(f"board {board.name} has no [link] to a host; add one to its file")
        self.core, self.link, self.board, self.setting = core, link, board, setting
        self._uart = board.link.resource
        super().__init__({})

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clock = ClockReset(self.setting)
        m.submodules.link = link = cast(Any, self.link)
        m.submodules.core = core = cast(Any, self.core)
        wiring.connect(m, link.o, core.i)
        wiring.connect(m, core.o, link.i)

        uart = _request(platform, self._uart, self.board)
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [link.rx.eq(rx.i), tx.o.eq(link.tx)]

        if self.board.led is not None:
            pin = _request(platform, self.board.led.resource, self.board)
            m.submodules.led = led = io.Buffer("o", pin)
            bits = ceil(self.setting.frequency * 10**6).bit_length()
            time, passing = Signal(bits), Signal()
            # Nothing else waits for the lamp, so it may be a cycle late.
            moved, turned = Signal(), Signal()
            m.d.sync += [
                time.eq(time + 1),
                moved.eq(core.o.valid & core.o.ready),
                turned.eq(time[:-1] == 0),
            ]
            with m.If(moved):
                m.d.sync += passing.eq(1)
            with m.Elif(turned):
                m.d.sync += passing.eq(0)
            with m.If(passing):
                m.d.comb += led.o.eq(time[-4])
            with m.Else():
                m.d.comb += led.o.eq(time[-1])
        return m


def _request(platform: Platform, resource: tuple[str, int], board: Board) -> Any:
    """Ask the platform for the bare pins of a resource."""
    try:
        ios: Iterable[object] = platform.lookup(*resource).ios
        parts = [part for part in ios if isinstance(part, Subsignal)]
        return platform.request(*resource, dir={p.name: "-" for p in parts} if parts else "-")
    except Exception as error:
        raise UserError(
            f"board {board.name}: the platform {board.platform} does not give the resource "
            f"{resource[0]} {resource[1]} ({error}); name one that it has"
        ) from None
