"""UART: bytes over one wire each way, 8 data bits, no parity, one stop bit."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from xnorflow.hw.link.protocol import BITS_PER_BYTE, LEAST_DIVISOR

__all__ = ["UARTReceiver", "UARTTransmitter"]


def _checked(divisor: int) -> int:
    if divisor < LEAST_DIVISOR:
        raise ValueError(f"UART divisor must be at least {LEAST_DIVISOR}, not {divisor!r}")
    return divisor


class UARTReceiver(wiring.Component):
    """Take bytes off a wire.

    ::

        rx ▔▔▔╲▁▁▁╱▔0▔╳▔1▔╳ … ╳▔7▔╱▔▔▔▔
               start            stop
                 ^   ^   ^     ^   ^      samples, half a bit after each edge

    The start bit must still be low in its middle, else it was a glitch. A byte whose stop bit is
    low is dropped, and the next one waits for the line to be high. A byte that is complete
    before the one ahead of it is taken is lost.

    Latency: 3 cycles (synchroniser, byte register) from the middle of the stop bit.

    Parameters
    ----------
    divisor : int
        Clock cycles of a bit, at least 4; see `xnorflow.hw.link.protocol.uart_divisor`.

    Members
    -------
    rx : In(1)
        Asynchronous; high when idle.
    o : Out(stream.Signature(8))
    """

    def __init__(self, divisor: int):
        self.divisor = _checked(divisor)
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rx = Signal(init=1)
        m.submodules.rx_sync = FFSynchronizer(self.rx, rx, init=1)

        timer = Signal(range(self.divisor))
        due = Signal()  # the timer is 0: a flip-flop, since much is decided by it
        bits = Signal(range(BITS_PER_BYTE))  # samples still to take
        word = Signal(8)
        m.d.sync += due.eq(0)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        with m.FSM():
            with m.State("IDLE"):
                # Samples fall half a bit after the edge, counted from the next cycle on.
                m.d.sync += [timer.eq((self.divisor - 1) // 2), bits.eq(BITS_PER_BYTE - 1)]
                with m.If(~rx):
                    m.next = "RECEIVE"
            with m.State("RECEIVE"):
                m.d.sync += [timer.eq(timer - 1), due.eq(timer == 1)]
                with m.If(due):
                    m.d.sync += [timer.eq(self.divisor - 1), bits.eq(bits - 1)]
                    with m.If((bits == BITS_PER_BYTE - 1) & rx):
                        m.next = "IDLE"
                    with m.Elif(bits != 0):
                        # The start bit, first in, falls out at the other end.
                        m.d.sync += word.eq(Cat(word[1:], rx))
                    with m.Elif(rx):
                        with m.If(~self.o.valid | self.o.ready):
                            m.d.sync += [self.o.payload.eq(word), self.o.valid.eq(1)]
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "BREAK"
            with m.State("BREAK"), m.If(rx):
                m.next = "IDLE"
        return m


class UARTTransmitter(wiring.Component):
    """Put bytes on a wire.

    Cycles: ``10 * divisor`` a byte, with no gap while bytes are there.

    Parameters
    ----------
    divisor : int
        Clock cycles of a bit, at least 4; see `xnorflow.hw.link.protocol.uart_divisor`.

    Members
    -------
    i : In(stream.Signature(8))
    tx : Out(1)
        High when idle.
    """

    def __init__(self, divisor: int):
        self.divisor = _checked(divisor)
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timer = Signal(range(self.divisor))
        bits = Signal(range(BITS_PER_BYTE + 1))  # bits still to be started
        word = Signal(BITS_PER_BYTE - 1, init=-1)
        # A flip-flop, not a comparison: what hands bytes over looks at it before all else.
        idle = Signal(init=1)
        m.d.comb += [self.tx.eq(word[0]), self.i.ready.eq(idle)]
        with m.If(timer != 0):
            m.d.sync += [timer.eq(timer - 1), idle.eq((bits == 0) & (timer == 1))]
        with m.Elif(bits != 0):
            # Ones move in behind the data: the stop bit and the idle line.
            m.d.sync += [word.eq(Cat(word[1:], 1)), bits.eq(bits - 1), timer.eq(self.divisor - 1)]
        with m.Elif(self.i.valid):
            m.d.sync += [
                idle.eq(0),
                word.eq(Cat(0, self.i.payload)),
                bits.eq(BITS_PER_BYTE - 1),
                timer.eq(self.divisor - 1),
            ]
        return m
