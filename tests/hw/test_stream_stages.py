"""Skid buffer, FIFO, replay buffer and width converter keep every beat, in order."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_bench import run_stream

from xnorflow.hw.fifo import StreamFIFO
from xnorflow.hw.replay_buffer import ReplayBuffer
from xnorflow.hw.skid import SkidBuffer
from xnorflow.hw.width_converter import WidthConverter
from xnorflow.sim.streams import pack_bits

stalls = st.sampled_from([0.0, 0.3, 0.8])
seeds = st.integers(0, 1000)


def values(count, width, seed):
    return [int(v) for v in np.random.default_rng(seed).integers(0, 1 << width, count)]


class TestSkidBuffer:
    @settings(max_examples=10)
    @given(i_stall=stalls, o_stall=stalls, seed=seeds)
    def test_passes_every_beat(self, i_stall, o_stall, seed):
        sent = values(60, 8, seed)
        got, *_ = run_stream(SkidBuffer(8), sent, 60, seed=seed, i_stall=i_stall, o_stall=o_stall)
        assert got == sent

    def test_takes_and_gives_a_beat_every_cycle(self):
        _, taken, given_ = run_stream(SkidBuffer(8), values(30, 8, 0), 30)
        assert taken == given_ == list(range(30))


class TestStreamFIFO:
    @settings(max_examples=10)
    @given(depth=st.integers(1, 9), i_stall=stalls, o_stall=stalls, seed=seeds)
    def test_passes_every_beat(self, depth, i_stall, o_stall, seed):
        sent = values(60, 8, seed)
        fifo = StreamFIFO(8, depth)
        got, *_ = run_stream(fifo, sent, 60, seed=seed, i_stall=i_stall, o_stall=o_stall)
        assert got == sent

    def test_gives_a_beat_every_cycle(self):
        _, _, given_ = run_stream(StreamFIFO(8, 4), values(30, 8, 0), 30)
        assert given_ == list(range(2, 32))

    @settings(max_examples=8)
    @given(depth=st.integers(4, 9), stall=st.sampled_from([0.0, 0.3, 0.8]), seed=seeds)
    def test_keeps_its_schedule(self, depth, stall, seed):
        fifo = StreamFIFO(8, depth)
        _, taken, left = run_stream(fifo, values(30, 8, 0), 30, seed=seed, i_stall=stall)
        assert left == fifo.schedule(np.array(taken)).tolist()

    @pytest.mark.parametrize("depth", [1, 2, 3, 8])
    def test_holds_as_many_beats_as_asked_for(self, depth):
        fifo = StreamFIFO(8, depth)
        levels = []

        async def fill(ctx):
            ctx.set(fifo.i.valid, 1)
            for _ in range(depth + 6):
                levels.append(ctx.get(fifo.level))
                await ctx.tick()
            assert not ctx.get(fifo.i.ready)

        sim = Simulator(fifo)
        sim.add_clock(1e-6)
        sim.add_testbench(fill)
        sim.run()
        assert max(levels) == levels[-1] == depth

    def test_refuses_a_depth_of_zero(self):
        with pytest.raises(ValueError, match="depth must be at least 1"):
            StreamFIFO(8, 0)


class TestReplayBuffer:
    @settings(max_examples=20)
    @given(
        length=st.integers(1, 6),
        times=st.integers(1, 4),
        i_stall=stalls,
        o_stall=stalls,
        seed=seeds,
    )
    def test_gives_each_vector_so_many_times(self, length, times, i_stall, o_stall, seed):
        vectors = np.array(values(5 * length, 8, seed)).reshape(5, length)
        expected = np.repeat(vectors, times, axis=0).reshape(-1).tolist()
        buffer = ReplayBuffer(8, length, times)
        sent = vectors.reshape(-1).tolist()
        got, *_ = run_stream(
            buffer, sent, len(expected), seed=seed, i_stall=i_stall, o_stall=o_stall
        )
        assert got == expected

    @given(length=st.integers(1, 6), times=st.integers(1, 4))
    @settings(max_examples=12)
    def test_leaves_no_idle_cycle_and_keeps_its_schedule(self, length, times):
        buffer = ReplayBuffer(8, length, times)
        count = 4 * length * times
        _, _, given_ = run_stream(buffer, values(4 * length, 8, 1), count)
        assert given_ == list(range(given_[0], given_[0] + count))
        assert given_[: length * times] == buffer.schedule(np.arange(length)).tolist()

    def test_takes_the_next_vector_while_it_replays(self):
        _, taken, given_ = run_stream(ReplayBuffer(8, 4, 8), values(12, 8, 1), 96)
        assert taken[7] < given_[8]

    def test_refuses_zero_rounds(self):
        with pytest.raises(ValueError, match="times must be at least 1"):
            ReplayBuffer(8, 4, 0)


class TestWidthConverter:
    @settings(max_examples=25)
    @given(
        i_lanes=st.integers(1, 8),
        o_lanes=st.integers(1, 8),
        i_stall=stalls,
        o_stall=stalls,
        seed=seeds,
    )
    def test_keeps_every_element_in_order(self, i_lanes, o_lanes, i_stall, o_stall, seed):
        bits = np.random.default_rng(seed).random((6, i_lanes * o_lanes)) < 0.5
        converter = WidthConverter(1, i_lanes, o_lanes)
        expected = pack_bits(bits, o_lanes)
        got, *_ = run_stream(
            converter,
            pack_bits(bits, i_lanes),
            len(expected),
            seed=seed,
            i_stall=i_stall,
            o_stall=o_stall,
        )
        assert got == expected

    @settings(max_examples=25)
    @given(i_lanes=st.integers(1, 8), o_lanes=st.integers(1, 8))
    def test_takes_the_cycles_that_it_declares(self, i_lanes, o_lanes):
        converter = WidthConverter(1, i_lanes, o_lanes)
        elements = i_lanes * o_lanes
        bits = np.zeros((8, elements), bool)
        beats = elements // o_lanes
        _, _, given_ = run_stream(converter, pack_bits(bits, i_lanes), 8 * beats)
        assert given_[6 * beats] - given_[5 * beats] == converter.cycles(elements)
        assert given_[:beats] == converter.schedule(np.arange(elements // i_lanes)).tolist()
