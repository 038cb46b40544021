"""The UART takes and gives bytes at every legal divisor, and nothing that is not a byte."""

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st
from link_bench import SerialBench

from xnorflow.hw.link.protocol import uart_divisor
from xnorflow.hw.link.uart import UARTReceiver, UARTTransmitter


class Echo(wiring.Component):
    """Sends every byte back."""

    def __init__(self, divisor):
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UARTReceiver(self.divisor)
        m.submodules.transmitter = transmitter = UARTTransmitter(self.divisor)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        wiring.connect(m, receiver.o, transmitter.i)
        return m


def echoed(data, divisor, rate=1.0, bad_stop_bits=()):
    """Return what comes back from an echo whose host runs at `rate` times the device's rate."""
    bench = SerialBench(Echo(divisor), 1e6 * divisor, 1e6 * rate)
    bench.bad_stop_bits = set(bad_stop_bits)
    bench.write(bytes(data))
    bench.advance((10 * len(data) + 30) * 1.05 * bench.bit)
    return bench.read(bench.in_waiting)


class TestUART:
    @settings(max_examples=8)
    @given(data=st.binary(min_size=1, max_size=20), divisor=st.sampled_from([4, 5, 6, 7, 12, 25]))
    def test_passes_every_byte_at_every_divisor(self, data, divisor):
        assert echoed(data, divisor) == data

    @pytest.mark.parametrize("rate", [0.97, 0.98, 1.02, 1.03])
    def test_bears_a_host_that_is_off_its_rate(self, rate):
        # The wire back is slower or faster than the wire there: one byte at a time.
        for byte in (0x00, 0x55, 0x80, 0xFF):
            assert echoed([byte], 16, rate) == bytes([byte])

    def test_drops_a_byte_whose_stop_bit_is_low_and_takes_the_next_one(self):
        assert echoed([1, 2, 3, 4], 8, bad_stop_bits=[1]) == bytes([1, 3, 4])

    def test_sends_bytes_without_a_gap(self):
        assert echoed(b"ab", 5) == b"ab"
        transmitter = UARTTransmitter(5)
        sim = Simulator(transmitter)
        sim.add_clock(1e-6)
        taken = []

        async def bench(ctx):
            ctx.set(transmitter.i.valid, 1)
            for cycle in range(120):
                _, _, ready = await ctx.tick().sample(transmitter.i.ready)
                if ready:
                    taken.append(cycle)

        sim.add_testbench(bench)
        sim.run()
        assert taken == [0, 50, 100]


def received(levels, divisor=8):
    """Return the bytes taken from a wire with these levels, each for one cycle."""
    receiver = UARTReceiver(divisor)
    sim = Simulator(receiver)
    sim.add_clock(1e-6)
    taken = []

    async def bench(ctx):
        ctx.set(receiver.o.ready, 1)
        for level in levels:
            ctx.set(receiver.rx, level)
            _, _, valid, byte = await ctx.tick().sample(receiver.o.valid, receiver.o.payload)
            if valid:
                taken.append(byte)

    sim.add_testbench(bench)
    sim.run()
    return taken


def levels_of(byte, divisor=8):
    return [level for level in (0, *(byte >> k & 1 for k in range(8)), 1) for _ in range(divisor)]


class TestUARTReceiver:
    def test_takes_no_byte_from_a_glitch(self):
        idle = [1] * 20
        assert received([*idle, 0, 0, 0, *idle, *levels_of(0x5A), *idle]) == [0x5A]

    def test_takes_nothing_from_a_line_held_low_and_works_again_after(self):
        idle = [1] * 20
        assert received([*idle, *[0] * 500, *idle, *levels_of(0xC3), *idle]) == [0xC3]

    def test_keeps_a_byte_until_it_is_taken_and_loses_those_after_it(self):
        receiver = UARTReceiver(4)
        sim = Simulator(receiver)
        sim.add_clock(1e-6)

        async def bench(ctx):
            for level in [*levels_of(0x12, 4), *levels_of(0x34, 4), *[1] * 50]:
                ctx.set(receiver.rx, level)
                await ctx.tick()
            assert ctx.get(receiver.o.valid)
            assert ctx.get(receiver.o.payload) == 0x12

        sim.add_testbench(bench)
        sim.run()


class TestUARTTransmitter:
    def test_keeps_the_line_high_from_the_first_cycle_on(self):
        transmitter = UARTTransmitter(4)
        sim = Simulator(transmitter)
        sim.add_clock(1e-6)
        levels = []

        async def bench(ctx):
            for _ in range(60):
                levels.append(ctx.get(transmitter.tx))
                await ctx.tick()

        sim.add_testbench(bench)
        sim.run()
        assert levels == [1] * 60


class TestDivisor:
    @given(clock=st.integers(1_000_000, 200_000_000), baud=st.integers(1200, 12_000_000))
    def test_is_close_to_the_rate_or_refused_with_legal_rates(self, clock, baud):
        try:
            divisor = uart_divisor(clock, baud)
        except ValueError as error:
            legal = str(error).partition("legal rates are ")[2]
            assert legal
            for rate in legal.split(", "):
                uart_divisor(clock, int(rate))
        else:
            assert abs(clock / divisor - baud) <= 0.02 * baud
            assert divisor >= 4

    def test_refuses_a_rate_that_the_clock_cannot_give(self):
        with pytest.raises(
            ValueError, match=r"within 2% of 2200000 baud .* legal rates are .*2000000"
        ):
            uart_divisor(12_000_000, 2_200_000)

    def test_a_rate_may_be_2_percent_off(self):
        assert uart_divisor(4_080_000, 1_000_000) == uart_divisor(3_920_000, 1_000_000) == 4
        for clock in (4_080_001, 3_919_999):
            with pytest.raises(ValueError, match="within 2%"):
                uart_divisor(clock, 1_000_000)

    def test_refuses_a_rate_of_zero(self):
        with pytest.raises(ValueError, match="must be positive"):
            uart_divisor(12_000_000, 0)

    @pytest.mark.parametrize("component", [UARTReceiver, UARTTransmitter])
    def test_refuses_too_few_cycles_in_a_bit(self, component):
        with pytest.raises(ValueError, match="divisor must be at least 4, not 3"):
            component(3)
