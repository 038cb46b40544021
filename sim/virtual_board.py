"""A board without the board: the whole top level, pins included, compiled and run as a serial port.

::

    host driver ─► write ─► line ─► rx pin ─► link ─► core ─► link ─► tx pin ─► line ─► read
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_char_p, c_uint64, c_void_p
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from amaranth import Module, Signal
from amaranth.back import rtlil
from amaranth.build import Pins, Resource, Subsignal
from amaranth.hdl import Elaboratable, Fragment
from amaranth.lib import io

from xnorflow.boards.board import Board
from xnorflow.boards.top import RESET_US, BoardTop
from xnorflow.elaboration import uncollected
from xnorflow.hw.core import StreamingCore
from xnorflow.hw.link.host_link import UARTHostLink
from xnorflow.hw.link.protocol import BITS_PER_BYTE
from xnorflow.progress import Progress, quiet
from xnorflow.sim.cxxrtl.compile import Design, load_library
from xnorflow.sim.run import wait_at_most

__all__ = ["Circuit", "PinPlatform", "VirtualBoard", "circuit_of_top"]


class PinPlatform:
    """Gives a top level simulation ports where a board's platform gives pins.

    Parameters
    ----------
    board : Board
        Says what the resources are called.

    Attributes
    ----------
    clk, rx, tx, led : amaranth.lib.io.SimulationPort
    """

    default_clk = "clk"

    def __init__(self, board: Board):
        self._board = board
        self.clk = io.SimulationPort("i", 1)
        self.rx, self.tx = io.SimulationPort("i", 1), io.SimulationPort("o", 1)
        self.led = io.SimulationPort("o", 1)

    def lookup(self, name: str, number: int = 0) -> Resource:
        """Describe a resource as platforms of amaranth.build do."""
        if self._is_uart(name, number):
            rx, tx = Subsignal("rx", Pins("1", dir="i")), Subsignal("tx", Pins("2", dir="o"))
            return Resource(name, number, rx, tx)
        return Resource(name, number, Pins("3", dir="io"))

    def request(self, name: str, number: int = 0, dir: object = None) -> Any:
        """Return the ports of a resource."""
        if name == self.default_clk:
            return self.clk
        return SimpleNamespace(rx=self.rx, tx=self.tx) if self._is_uart(name, number) else self.led

    def _is_uart(self, name: str, number: int) -> bool:
        return self._board.link is not None and (name, number) == self._board.link.resource


class _PinsOnly(Elaboratable):
    """A top level whose pins are plain signals ``clk``, ``rx``, ``tx`` and, if any, ``led``."""

    def __init__(self, top: BoardTop):
        self._top = top
        self._pins = {name: Signal(name=name) for name in ("clk", "rx", "tx")}
        if top.board.led is not None:
            self._pins["led"] = Signal(name="led")
        self.ports = list(self._pins.values())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pins = PinPlatform(self._top.board)
        m.submodules.top = Fragment.get(self._top, pins)
        for name, signal in self._pins.items():
            port = getattr(pins, name)
            m.d.comb += port.i.eq(signal) if name in ("clk", "rx") else signal.eq(port.o)
        return m


@dataclass(frozen=True)
class Circuit:
    """What a chip is, and what must be known about it to drive its pins.

    Attributes
    ----------
    design : Design
        With the ports clk, rx, tx and, if it was compiled for one, led.
    clock_hz, baud : int
        Of the core, and of the link.
    patience : int
        Cycles of a quiet line after which nothing more comes by itself.
    """

    design: Design
    clock_hz: int
    baud: int
    patience: int


def circuit_of_top(top: BoardTop) -> Circuit:
    """Return the circuit of a top level, a `StreamingCore` behind a `UARTHostLink`.

    It must be without a PLL, of which there is no model; `PLLSetting.without_pll` has its clock.
    """
    core, link = cast(StreamingCore, top.core), cast(UARTHostLink, top.link).parameters
    pins = _PinsOnly(top)
    with uncollected():
        text = rtlil.convert(pins, name="top", ports=pins.ports, emit_src=False)
    defines = () if top.board.led is None else ("XNORFLOW_LED",)
    return Circuit(
        Design("read_rtlil top.il", {"top.il": text}, defines=defines),
        link.clock_hz,
        link.baud,
        wait_at_most(core, 0.0) + link.delivery_cycles,
    )


class VirtualBoard:
    """A core on a board, clock cycle by clock cycle, behind a serial line.

    It is a transport of `xnorflow.host.Device`. The line's rate is the host's own: its bits have
    their exact length, whatever the device divides its clock by. Time passes in the simulation
    only, while bytes are waited for; `clock` tells it.

    Parameters
    ----------
    circuit : Circuit
        See `circuit_of_top` and `xnorflow.sim.bitstream`.
    baud : int, optional
        The host's rate; the link's by default.
    to_board, from_board : callable
        The line in either direction: given the bytes that enter it, returns those that leave it.
    compiling : callable
        Told of the first run of a design, which takes seconds.

    Attributes
    ----------
    baud : int
    clock_hz : int
    patience : int
        Cycles of a quiet line after which nothing more comes from the board by itself.

    Raises
    ------
    CompilerMissing
        If there is no C++ compiler.

    Examples
    --------
    >>> top = board_top(core, lowered, board, setting.without_pll())  # doctest: +SKIP
    >>> board = VirtualBoard(circuit_of_top(top))  # doctest: +SKIP
    >>> device = Device(board, board.baud, clock=board.clock)  # doctest: +SKIP
    """

    def __init__(
        self,
        circuit: Circuit,
        *,
        baud: int | None = None,
        to_board: Callable[[bytes], bytes] = bytes,
        from_board: Callable[[bytes], bytes] = bytes,
        compiling: Progress = quiet,
    ):
        self.baud, self.clock_hz = baud or circuit.baud, circuit.clock_hz
        self.patience = circuit.patience
        self._to_board, self._from_board = to_board, from_board
        compiling("compile", "the board", 0, None)
        self._library = load_library(circuit.design, "board.cc", compiling)
        self._handle = c_void_p(
            self._call("new", c_void_p, c_uint64(self.clock_hz), c_uint64(self.baud))
        )
        self._arrived = bytearray()
        # The host does not talk to a board that is being reset.
        self.advance(2 * RESET_US * 1e-6)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._call("delete", None, self._handle)

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return self._call("cycle", c_uint64, self._handle)

    @property
    def asleep(self) -> bool:
        """Whether the board has nothing to do until more bytes come."""
        return not self.unsent and self._call("quiet", c_uint64, self._handle) >= self.patience

    @property
    def unsent(self) -> int:
        """Bytes to the board that are not on the wire yet."""
        return self._call("unsent", c_uint64, self._handle)

    @property
    def bad_stop_bits(self) -> int:
        """Bytes from the board that did not end in a high bit: 0 from a board that works."""
        return self._call("bad_stops", c_uint64, self._handle)

    @property
    def lamp_changes(self) -> int:
        """Times that the lamp has gone on or off."""
        return self._call("lamp_edges", c_uint64, self._handle)

    def clock(self) -> float:
        """Return the seconds of the board's clock so far."""
        return self.cycles / self.clock_hz

    def advance(self, seconds: float) -> None:
        """Let time pass, whether or not anything happens."""
        self._run(max(1, round(seconds * self.clock_hz)), 1 << 63, 1 << 63)

    def work(self, cycles: int) -> None:
        """Run for so many cycles, or until the board is `asleep`."""
        self._run(cycles, self.patience, 1 << 63)

    @property
    def in_waiting(self) -> int:
        """Bytes that `read` returns at once."""
        return len(self._arrived)

    def read(self, size: int = 1, /) -> bytes:
        """Return up to `size` bytes; wait for the first for as long as four bytes take."""
        if len(self._arrived) < size:
            byte = BITS_PER_BYTE * self.clock_hz // self.baud
            self._run(4 * byte, 1 << 63, size - len(self._arrived))
        data = bytes(self._arrived[:size])
        del self._arrived[:size]
        return data

    def write(self, data: bytes, /) -> int:
        """Put bytes on the line; they are sent while others are waited for."""
        sent = self._to_board(data)
        self._call("send", None, self._handle, c_char_p(sent), c_uint64(len(sent)))
        return len(data)

    def _run(self, cycles: int, patience: int, size: int) -> None:
        self._call("run", None, self._handle, c_uint64(cycles), c_uint64(patience), c_uint64(size))
        count = self._call("size", c_uint64, self._handle)
        if count:
            data = ctypes.string_at(self._call("incoming", c_void_p, self._handle), count)
            self._call("take", None, self._handle, c_uint64(count))
            self._arrived += self._from_board(data)

    def _call(self, name: str, result: Any, *arguments: object) -> int:
        function = self._library[f"xnorflow_{name}"]
        function.restype = result
        return function(*arguments)
