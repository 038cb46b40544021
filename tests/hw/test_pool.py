"""Pools and the stages after them agree with numpy, at the cycles they declare."""

import numpy as np
import pytest
from amaranth import ResetInserter, Signal, signed, unsigned
from amaranth.hdl import Shape
from amaranth.sim import Simulator
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from stream_bench import run_stream

from xnorflow.hw.pool import PoolUnit
from xnorflow.hw.threshold_stage import ScoreStage, ThresholdStage
from xnorflow.sim.streams import collect, drive

stalls = st.sampled_from([0.0, 0.3, 0.8])
seeds = st.integers(0, 1000)
folds = st.integers(1, 3)
widths = st.integers(1, 2)
registers = st.booleans()
kinds = st.sampled_from(
    [
        ("or", unsigned(1)),
        ("sum", unsigned(1)),
        ("sum", unsigned(3)),
        ("sum", signed(4)),
        ("max", unsigned(1)),
        ("max", unsigned(3)),
        ("max", signed(4)),
        ("max", signed(1)),
    ]
)
quick = settings(deadline=None, phases=[Phase.explicit, Phase.generate])


@st.composite
def places(draw):
    """Return an image's height and width and a kernel that fits, often with a rest."""
    kernel = draw(st.sampled_from([(2, 2), (2, 2), (1, 2), (2, 1), (3, 2), (1, 3), (1, 1), (3, 3)]))
    size = tuple(k * draw(st.integers(1, 3)) + draw(st.integers(0, k - 1)) for k in kernel)
    return size, kernel


def limits(element):
    """Return an element's lowest and largest number."""
    shape = Shape.cast(element)
    return (
        -(1 << shape.width - 1) if shape.signed else 0,
        (1 << shape.width - shape.signed) - 1,
    )


def random_values(seed, element, shape):
    """Return values of which the lowest and largest are frequent."""
    rng = np.random.default_rng(seed)
    low, high = limits(element)
    values = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([low, high], shape), values)


def pack(values, lanes, element):
    """Cut rows of elements into payloads of `lanes`, lane 0 lowest."""
    width = Shape.cast(element).width
    rows = (values.reshape(-1, lanes) & ((1 << width) - 1)).tolist()
    return [sum(v << (n * width) for n, v in enumerate(row)) for row in rows]


def pooled(images, kernel, op, falling=False):
    """Return windows' maxima (minima in falling channels) or sums of images (N, H, W, C)."""
    count, height, width, channels = images.shape
    rows, columns = height // kernel[0], width // kernel[1]
    inside = images[:, : rows * kernel[0], : columns * kernel[1]]
    windows = inside.reshape(count, rows, kernel[0], columns, kernel[1], channels)
    if op == "sum":
        return windows.sum(axis=(2, 4))
    return np.where(falling, windows.min(axis=(2, 4)), windows.max(axis=(2, 4)))


def check_pool(unit, seed=0, frames=3, **options):
    """Pool random frames, compare every beat and return the transfers' cycles."""
    images = random_values(seed, unit.element, (frames, *unit.shape))
    expected = pooled(images, unit.kernel, unit.op, unit.falling)
    expected = pack(expected, unit.lanes, unit.o_element)
    sent = pack(images, unit.lanes, unit.element)
    got, taken, given_ = run_stream(unit, sent, len(expected), seed=seed, **options)
    assert got == expected
    return taken, given_


class TestPoolUnit:
    @settings(quick, max_examples=100)
    @given(
        place=places(),
        folds=folds,
        lanes=widths,
        kind=kinds,
        registers=registers,
        i_stall=stalls,
        o_stall=stalls,
        seed=seeds,
    )
    def test_pools_every_window(self, place, folds, lanes, kind, registers, i_stall, o_stall, seed):
        (size, kernel), (op, element) = place, kind
        shape = (*size, folds * lanes)
        unit = PoolUnit(element, shape, kernel, lanes=lanes, op=op, registers=registers)
        check_pool(unit, seed, i_stall=i_stall, o_stall=o_stall)

    @settings(quick, max_examples=40)
    @given(
        place=places(),
        folds=folds,
        lanes=widths,
        kind=kinds.filter(lambda kind: kind[0] != "sum"),
        registers=registers,
        stall=stalls,
        seed=seeds,
    )
    def test_falling_channels_take_the_minimum(
        self, place, folds, lanes, kind, registers, stall, seed
    ):
        (size, kernel), (op, element) = place, kind
        falling = np.random.default_rng(seed).random(folds * lanes) < 0.5
        options = {"lanes": lanes, "op": op, "registers": registers, "falling": falling}
        unit = PoolUnit(element, (*size, folds * lanes), kernel, **options)
        check_pool(unit, seed, o_stall=stall)

    @settings(quick, max_examples=25)
    @given(place=places(), folds=folds, registers=registers)
    def test_takes_a_beat_every_cycle_and_keeps_its_schedule(self, place, folds, registers):
        size, kernel = place
        unit = PoolUnit(1, (*size, folds), kernel, lanes=1, op="or", registers=registers)
        taken, given_ = check_pool(unit)
        beats = len(given_) // 3
        assert taken == list(range(taken[-1] + 1))
        assert (np.diff(np.reshape(given_, (3, beats)), axis=0) == unit.cycles_per_frame).all()
        assert given_[:beats] == unit.schedule(np.arange(unit.cycles_per_frame)).tolist()

    @settings(quick, max_examples=15)
    @given(place=places(), folds=folds, registers=registers, seed=seeds)
    def test_keeps_its_schedule_when_beats_come_late(self, place, folds, registers, seed):
        size, kernel = place
        unit = PoolUnit(unsigned(2), (*size, folds), kernel, lanes=1, op="sum", registers=registers)
        taken, given_ = check_pool(unit, seed, frames=1, i_stall=0.5)
        # Beats after the last window need not have been taken by the time its output has left.
        late = np.array(taken + [0] * (unit.cycles_per_frame - len(taken)))
        assert given_ == unit.schedule(late).tolist()

    @pytest.mark.parametrize("registers", [False, True])
    @pytest.mark.parametrize("folds", [1, 2, 4])
    def test_pools_an_image_globally(self, folds, registers):
        unit = PoolUnit(
            signed(5), (7, 5, 2 * folds), (7, 5), lanes=2, op="sum", registers=registers
        )
        _, given_ = check_pool(unit)
        assert unit.words == folds
        assert given_ == [
            35 * folds * n + 34 * folds + k + 1 for n in range(3) for k in range(folds)
        ]

    @pytest.mark.parametrize("registers", [False, True])
    @pytest.mark.parametrize("folds", [1, 2, 4])
    def test_pools_the_taps_of_a_sliding_window(self, folds, registers):
        unit = PoolUnit(1, (1, 9, 2 * folds), (1, 9), lanes=2, op="or", registers=registers)
        taken, _ = check_pool(unit, frames=20)
        assert unit.words == folds
        assert taken == list(range(20 * 9 * folds))
        assert unit.cycles_per_frame == 9 * folds

    @pytest.mark.parametrize(
        ("element", "kernel", "o_element"),
        [
            (unsigned(1), (2, 2), unsigned(3)),
            (unsigned(8), (2, 2), unsigned(10)),
            (unsigned(2), (1, 5), unsigned(4)),
            (signed(4), (2, 2), signed(6)),
            (signed(4), (3, 3), signed(8)),
            (signed(4), (1, 1), signed(4)),
        ],
    )
    def test_sums_are_just_wide_enough(self, element, kernel, o_element):
        unit = PoolUnit(element, (4, 5, 1), kernel, lanes=1, op="sum")
        assert unit.o_element == o_element
        for value in limits(element):
            images = np.full((1, 4, 5, 1), value)
            expected = pack(pooled(images, kernel, "sum"), 1, o_element)
            got, *_ = run_stream(unit, pack(images, 1, element), len(expected))
            assert got == expected

    @pytest.mark.parametrize("registers", [False, True])
    @pytest.mark.parametrize(("columns", "folds"), [(2, 3), (3, 2), (5, 3), (3, 5), (4, 1), (7, 1)])
    def test_keeps_the_partials_of_a_row_apart(self, columns, folds, registers):
        shape = (4, 2 * columns + 1, folds)
        unit = PoolUnit(unsigned(4), shape, (2, 2), lanes=1, op="sum", registers=registers)
        assert unit.words == columns * folds
        check_pool(unit)

    def test_takes_input_up_to_the_next_output_while_one_waits(self):
        unit = PoolUnit(1, (4, 4, 1), (2, 2), lanes=1, op="or")
        taken = []

        async def offer(ctx):
            ctx.set(unit.i.valid, 1)
            for _ in range(20):
                taken.append(ctx.get(unit.i.ready))
                await ctx.tick()

        sim = Simulator(unit)
        sim.add_clock(1e-6)
        sim.add_testbench(offer)
        sim.run()
        assert taken == [1] * 7 + [0] * 13  # beats 5 and 7 complete the first windows

    @pytest.mark.parametrize("registers", [False, True])
    @pytest.mark.parametrize("folds", [1, 2])
    def test_a_maximum_may_be_the_lowest_number(self, folds, registers):
        unit = PoolUnit(signed(3), (2, 4, folds), (2, 2), lanes=1, op="max", registers=registers)
        assert unit.o_element == signed(3)
        images = np.full((2, 2, 4, folds), -4)
        images[1] = -3
        expected = pack(pooled(images, (2, 2), "max"), 1, signed(3))
        got, *_ = run_stream(unit, pack(images, 1, signed(3)), len(expected))
        assert got == expected

    @pytest.mark.parametrize("kind", ["memory", "registers"])
    @pytest.mark.parametrize("op", ["or", "max", "sum"])
    def test_nothing_is_left_of_a_frame_that_a_reset_cut_off(self, op, kind):
        unit = PoolUnit(1, (4, 4, 2), (2, 2), lanes=1, op=op, registers=kind == "registers")
        reset = Signal()
        sim = Simulator(ResetInserter(reset)(unit))
        sim.add_clock(1e-6)
        got = []

        async def source(ctx):
            await drive(ctx, unit.i, [1] * 7)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            await drive(ctx, unit.i, [0] * 32)

        async def sink(ctx):
            await collect(ctx, unit.o, 8, beats=got)

        sim.add_testbench(source)
        sim.add_testbench(sink)
        sim.run()
        assert got == [0] * 8

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kernel": (5, 2)}, "kernel's height must be in 1 .. 4"),
            ({"kernel": (2, 0)}, "kernel's width must be in 1 .. 4"),
            ({"lanes": 4}, "lanes must divide the 6 channels, which 4 does not"),
            ({"op": "min"}, "op must be 'or', 'max' or 'sum', not 'min'"),
            ({"element": 2}, "element must be unsigned\\(1\\) with op 'or'"),
            ({"shape": (4, 0, 6)}, "every number in shape must be at least 1"),
            ({"falling": np.ones(5, bool)}, r"falling must have shape \(6,\) and op be 'or'"),
            ({"op": "sum", "falling": np.ones(6, bool)}, "op be 'or' or 'max', not .* 'sum'"),
        ],
    )
    def test_refuses_an_illegal_parameter(self, options, message):
        legal = {"element": 1, "shape": (4, 4, 6), "kernel": (2, 2), "lanes": 2, "op": "or"}
        with pytest.raises(ValueError, match=message):
            PoolUnit(**(legal | options))


elements = st.sampled_from([unsigned(1), unsigned(5), signed(1), signed(4)])


class TestThresholdStage:
    @settings(quick, max_examples=25)
    @given(
        element=elements,
        folds=folds,
        lanes=st.integers(1, 3),
        i_stall=stalls,
        o_stall=stalls,
        seed=seeds,
    )
    def test_compares_every_channel(self, element, folds, lanes, i_stall, o_stall, seed):
        low, high = limits(element)
        rng = np.random.default_rng(seed)
        thresholds = rng.integers(low - 2, high + 4, folds * lanes)
        pixels = random_values(seed, element, (20, folds * lanes))
        stage = ThresholdStage(element, thresholds, lanes=lanes)
        expected = pack((pixels >= thresholds).astype(int), lanes, 1)
        sent = pack(pixels, lanes, element)
        got, *_ = run_stream(
            stage, sent, len(expected), seed=seed, i_stall=i_stall, o_stall=o_stall
        )
        assert got == expected

    @pytest.mark.parametrize("element", [unsigned(3), signed(3)])
    def test_thresholds_beyond_the_element_are_always_and_never_on(self, element):
        low, high = limits(element)
        thresholds = np.array([low - 1000, low, high, high + 1, high + 1000])
        pixels = np.repeat(np.arange(low, high + 1)[:, None], 5, axis=1)
        stage = ThresholdStage(element, thresholds, lanes=1)
        got, *_ = run_stream(stage, pack(pixels, 1, element), pixels.size)
        expected = np.array([[1, 1, value == high, 0, 0] for value in range(low, high + 1)])
        assert got == expected.reshape(-1).tolist()

    @pytest.mark.parametrize("folds", [1, 3])
    def test_takes_a_beat_every_cycle_and_keeps_its_schedule(self, folds):
        stage = ThresholdStage(signed(4), np.zeros(2 * folds, int), lanes=2)
        _, taken, given_ = run_stream(stage, [0] * 30, 30)
        assert taken == list(range(len(taken)))
        assert given_ == stage.schedule(np.arange(30)).tolist()

    @settings(quick, max_examples=25)
    @given(
        element=elements,
        folds=folds,
        lanes=st.integers(1, 3),
        levels=st.integers(2, 8),
        i_stall=stalls,
        o_stall=stalls,
        seed=seeds,
    )
    def test_counts_the_thresholds_that_every_channel_reaches(
        self, element, folds, lanes, levels, i_stall, o_stall, seed
    ):
        low, high = limits(element)
        rng = np.random.default_rng(seed)
        thresholds = np.sort(rng.integers(low - 2, high + 4, (levels, folds * lanes)), axis=0)
        pixels = random_values(seed, element, (20, folds * lanes))
        stage = ThresholdStage(element, thresholds, lanes=lanes)
        assert stage.o.payload.shape().elem_shape == levels.bit_length()
        reached = (pixels[:, None, :] >= thresholds).sum(axis=1)
        expected = pack(reached, lanes, levels.bit_length())
        sent = pack(pixels, lanes, element)
        got, *_ = run_stream(
            stage, sent, len(expected), seed=seed, i_stall=i_stall, o_stall=o_stall
        )
        assert got == expected

    @pytest.mark.parametrize("folds", [1, 3])
    def test_levels_keep_their_schedule(self, folds):
        thresholds = np.arange(-3, 2)[:, None] + np.arange(2 * folds)
        stage = ThresholdStage(signed(4), thresholds, lanes=2)
        assert stage.latency == (2 if folds == 1 else 6)
        _, taken, given_ = run_stream(stage, [0] * 30, 30)
        assert taken == list(range(len(taken)))
        assert given_ == stage.schedule(np.arange(30)).tolist()

    def test_refuses_channels_that_do_not_fold(self):
        with pytest.raises(ValueError, match="lanes must divide the 6 channels"):
            ThresholdStage(signed(4), np.zeros((3, 6), int), lanes=4)
        with pytest.raises(ValueError, match="lanes must divide the 6 channels"):
            ThresholdStage(signed(4), np.zeros(6, int), lanes=4)


class TestScoreStage:
    @settings(quick, max_examples=25)
    @given(
        element=elements,
        folds=folds,
        lanes=st.integers(1, 3),
        scale=st.sampled_from([0, 1, 5]),
        i_stall=stalls,
        o_stall=stalls,
        seed=seeds,
    )
    def test_scales_every_channel(self, element, folds, lanes, scale, i_stall, o_stall, seed):
        rng = np.random.default_rng(seed)
        scales = (
            rng.integers(-scale, scale + 1, folds * lanes)
            if scale > 1
            else (np.full(folds * lanes, scale))
        )
        offsets = rng.integers(-20, 21, folds * lanes)
        pixels = random_values(seed, element, (20, folds * lanes))
        stage = ScoreStage(element, scales, offsets, lanes=lanes)
        expected = pack(pixels * scales + offsets, lanes, signed(stage.width))
        sent = pack(pixels, lanes, element)
        got, *_ = run_stream(
            stage, sent, len(expected), seed=seed, i_stall=i_stall, o_stall=o_stall
        )
        assert got == expected

    def test_scores_are_just_wide_enough(self):
        stage = ScoreStage(signed(4), np.array([1, -3]), np.array([0, 7]), lanes=1)
        assert stage.width == 6  # -14 .. 31

    @pytest.mark.parametrize("folds", [1, 3])
    def test_takes_a_beat_every_cycle_and_keeps_its_schedule(self, folds):
        scale = np.arange(2 * folds)
        stage = ScoreStage(signed(4), scale, scale, lanes=2)
        _, taken, given_ = run_stream(stage, [0] * 30, 30)
        assert taken == list(range(len(taken)))
        assert given_ == stage.schedule(np.arange(30)).tolist()

    def test_refuses_shapes_that_differ(self):
        with pytest.raises(ValueError, match="scale and offset must have one shape"):
            ScoreStage(signed(4), np.zeros(2, int), np.zeros(3, int), lanes=1)
