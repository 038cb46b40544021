"""The matrix-vector unit against numpy: every folding, every weight memory, any back-pressure."""

import numpy as np
import pytest
from amaranth.hdl import Shape
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_bench import run_stream

from xnorflow.hw import layouts
from xnorflow.hw.layouts import Lanes
from xnorflow.hw.mvu import MatrixVectorUnit, rom_widths
from xnorflow.hw.rom import ROMStyle, pack_lanes
from xnorflow.sim.streams import pack_bits, unpack_bits

stalls = st.sampled_from([0.0, 0.3, 0.8])


def bipolar(rng, shape):
    return rng.choice(np.array([-1, 1], np.int8), shape)


def divisors(number):
    return [d for d in range(1, number + 1) if number % d == 0]


@st.composite
def folded_layers(draw):
    mh, mw = draw(st.integers(1, 12)), draw(st.integers(1, 24))
    pe, simd = draw(st.sampled_from(divisors(mh))), draw(st.sampled_from(divisors(mw)))
    depth = (mh // pe) * (mw // simd)
    styles = [ROMStyle.CONSTANT] if depth == 1 else [ROMStyle.LUT, ROMStyle.BRAM]
    return mh, mw, pe, simd, draw(st.sampled_from(styles)), draw(st.integers(0, 1000))


def thresholded(layer):
    mh, mw, pe, simd, style, seed = layer
    rng = np.random.default_rng(seed)
    weights = bipolar(rng, (mh, mw))
    thresholds = rng.integers(-mw, mw + 2, mh)
    thresholds[0] = rng.choice([-mw, mw + 1])  # always on, or dead
    unit = MatrixVectorUnit(weights, pe=pe, simd=simd, thresholds=thresholds, weights_in=style)
    x = bipolar(rng, (5, mw))
    x[0] = weights[-1]  # one accumulator at its top
    expected = x.astype(int) @ weights.T.astype(int) >= thresholds
    return unit, x > 0, expected


@settings(max_examples=30)
@given(layer=folded_layers(), i_stall=stalls, o_stall=stalls)
def test_thresholded_layer_matches_numpy_under_back_pressure(layer, i_stall, o_stall):
    unit, bits, expected = thresholded(layer)
    beats = len(bits) * unit.neuron_folds
    got, *_ = run_stream(
        unit, pack_bits(bits, unit.simd), beats, seed=layer[-1], i_stall=i_stall, o_stall=o_stall
    )
    assert np.array_equal(unpack_bits(got, unit.pe, unit.mh), expected)


@settings(max_examples=15)
@given(layer=folded_layers(), i_stall=stalls, o_stall=stalls)
def test_scored_layer_matches_numpy_under_back_pressure(layer, i_stall, o_stall):
    mh, mw, pe, simd, style, seed = layer
    rng = np.random.default_rng(seed)
    weights, x = bipolar(rng, (mh, mw)), bipolar(rng, (4, mw))
    scale, offset = rng.integers(-9, 10, mh), rng.integers(-99, 100, mh)
    unit = MatrixVectorUnit(weights, pe=pe, simd=simd, scale=scale, offset=offset, weights_in=style)
    beats = len(x) * unit.neuron_folds
    got, *_ = run_stream(
        unit, pack_bits(x > 0, simd), beats, seed=seed, i_stall=i_stall, o_stall=o_stall
    )
    width = Shape.cast(unit.output_shape).width // pe
    raw = unpack_bits(got, pe * width, mh * width).reshape(len(x), mh, width).astype(np.int64)
    values = raw @ (1 << np.arange(width))
    values -= (values >> (width - 1)) << width
    assert np.array_equal(values, scale * (x.astype(int) @ weights.T.astype(int)) + offset)


@settings(max_examples=20)
@given(layer=folded_layers())
def test_latency_and_cycles_are_the_declared_ones(layer):
    unit, bits, _ = thresholded(layer)
    folds = unit.neuron_folds
    _, _, given_ = run_stream(unit, pack_bits(bits, unit.simd), len(bits) * folds)
    assert given_[:folds] == unit.schedule(np.arange(unit.synapse_folds)).tolist()
    frame_ends = given_[folds - 1 :: folds]
    assert np.all(np.diff(frame_ends) == unit.cycles_per_frame), "a bubble between vectors"


@st.composite
def laned_layers(draw, several_planes=False):
    """A unit of any kind of lanes and head, its input beats and its outputs by numpy."""
    granule = draw(st.sampled_from([None, None, 1, 2, 3, 4, 8]))
    lanes = Lanes(draw(st.integers(1, 6)) if granule is None else 1, granule)
    groups, taps = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 6))
    mw, neurons = taps * (granule or 1), draw(st.integers(1, 6))
    simd = (granule or 1) * draw(st.sampled_from(divisors(taps)))
    planes = draw(st.integers(1, 4)) if several_planes else 1
    foldings = [d for d in divisors(neurons * planes) if d % planes == 0 or planes % d == 0]
    pe = draw(st.sampled_from(foldings))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    mh, vectors = groups * neurons, 4 * groups
    weights, coefficients = bipolar(rng, (mh * planes, mw)), None
    if several_planes:
        coefficients = rng.integers(-7, 8, (planes, mh))
        if draw(st.booleans()):  # DoReFa-Net's
            coefficients = np.repeat(1 << np.arange(planes)[:, None], mh, axis=1)

    if granule is None:
        x = rng.integers(0, 1 << lanes.width, (vectors, mw))
        x[0], x[1 % vectors] = 0, lanes.top  # accumulators at their extremes
        payloads = pack_lanes(x.reshape(-1, simd), lanes.width)
        x = 2 * x - 1 if lanes.width == 1 else x
    else:
        bits = rng.integers(0, 2, (vectors, taps, granule))
        pad = rng.random((vectors, taps, 1)) < 0.4
        pad[0], pad[-1] = True, False
        flagged = np.concatenate([bits, pad], axis=2)
        payloads = pack_lanes(flagged.reshape(-1, simd // granule * (granule + 1)), 1)
        x = ((2 * bits - 1) * ~pad).reshape(vectors, mw)
    whole = weights
    if coefficients is not None:
        planes_of = weights.reshape(mh, planes, mw)
        whole = np.einsum("mj,jmi->ji", coefficients, planes_of.astype(int))
    acc = np.einsum("pgm,gnm->pgn", x.reshape(4, groups, mw), whole.reshape(groups, -1, mw))
    acc = acc.reshape(4, mh).astype(int)

    head = draw(st.sampled_from(["thresholds", "levels", "scores", "accumulators"]))
    if head == "levels":
        levels = draw(st.integers(2, 9))
        thresholds = rng.choice(acc.reshape(-1), (levels, mh)) + rng.integers(0, 2, (levels, mh))
        thresholds[0, 0], thresholds[-1, -1] = -(10**9), 10**9
        if draw(st.booleans()):  # an activation whose levels are not evenly spaced
            thresholds = thresholds[rng.integers(0, levels, levels)]
        thresholds.sort(axis=0)
        options = {"thresholds": thresholds}
        expected = (acc[:, None, :] >= thresholds).sum(axis=1)
    elif head == "thresholds":
        thresholds = acc[rng.integers(0, 4, mh), np.arange(mh)] + rng.integers(0, 2, mh)
        thresholds[0] = rng.choice([-(10**9), acc.min(), acc.max() + 1, 10**9])
        options, expected = {"thresholds": thresholds}, acc >= thresholds
    elif head == "scores":
        scale, offset = rng.integers(-9, 10, mh), rng.integers(-99, 100, mh)
        options, expected = {"scale": scale, "offset": offset}, scale * acc + offset
    else:
        options, expected = {"accumulators": True}, acc
    unit = MatrixVectorUnit(
        weights,
        pe=pe,
        simd=simd,
        lanes=lanes,
        groups=groups,
        coefficients=coefficients,
        **options,
    )
    return unit, payloads, expected


layers = st.one_of(laned_layers(), laned_layers(several_planes=True))


def values_of(payloads, unit):
    shape = Shape.cast(unit.output_shape.elem_shape)
    raw = unpack_bits(payloads, unit.o_lanes * shape.width, unit.mh * shape.width)
    raw = raw.reshape(-1, unit.mh, shape.width).astype(np.int64) @ (1 << np.arange(shape.width))
    return raw - ((raw >> (shape.width - 1)) << shape.width) if shape.signed else raw


@settings(max_examples=60)
@given(layer=layers, i_stall=stalls, o_stall=stalls)
def test_lanes_groups_and_heads_match_numpy_under_back_pressure(layer, i_stall, o_stall):
    unit, payloads, expected = layer
    count = len(expected) * unit.neuron_folds
    got, *_ = run_stream(
        unit, payloads, count, seed=len(payloads), i_stall=i_stall, o_stall=o_stall
    )
    assert np.array_equal(values_of(got, unit), expected)


@settings(max_examples=40)
@given(layer=layers)
def test_pixels_follow_each_other_without_a_bubble(layer):
    unit, payloads, expected = layer
    count = len(expected) * unit.neuron_folds
    _, _, given_ = run_stream(unit, payloads, count)
    assert given_ == unit.schedule(np.arange(len(payloads))).tolist()
    assert np.all(
        np.diff(given_[unit.neuron_folds - 1 :: unit.neuron_folds]) == unit.cycles_per_frame
    )


@settings(max_examples=40)
@given(layer=layers, stall=st.sampled_from([0.3, 0.8, 0.95]), seed=st.integers(0, 99))
def test_schedule_tells_when_beats_leave_whenever_they_arrive(layer, stall, seed):
    unit, payloads, expected = layer
    count = len(expected) * unit.neuron_folds
    _, arrivals, given_ = run_stream(unit, payloads, count, seed=seed, i_stall=stall)
    assert given_ == unit.schedule(np.array(arrivals)).tolist()


@pytest.mark.parametrize(
    ("lanes", "width"),
    [(Lanes(), 6), (Lanes(granule=4), 6), (Lanes(granule=5), 6), (Lanes(8), 13)],
)
def test_accumulators_are_no_wider_than_they_can_get(lanes, width):
    weights = np.ones((4, 20), np.int8)  # of bits -20 .. 20, of bytes 0 .. 5100 or -5100 .. 0
    weights[1] = -1
    unit = MatrixVectorUnit(weights, pe=2, simd=20, lanes=lanes, accumulators=True)
    assert Shape.cast(unit.output_shape.elem_shape) == Shape(width + (lanes.width > 1), signed=True)


def test_accumulators_of_planes_are_no_wider_than_they_can_get():
    # 3 * s - 2 * s and 3 * s + 2 * s: up to 4 * 1 and 4 * 5, though each plane gets to 4 * 3.
    weights = np.ones((4, 4), np.int8)
    weights[3] = -1
    coefficients = np.array([[3, 3], [-2, -2]])
    narrow = MatrixVectorUnit(
        weights[:2], pe=2, simd=4, accumulators=True, coefficients=coefficients[:, :1]
    )
    wide = MatrixVectorUnit(weights, pe=4, simd=4, accumulators=True, coefficients=coefficients)
    assert Shape.cast(narrow.output_shape.elem_shape) == Shape(4, signed=True)
    assert Shape.cast(wide.output_shape.elem_shape) == Shape(6, signed=True)


def test_planes_are_parallel_or_one_behind_the_other():
    weights, coefficients = np.ones((12, 6), np.int8), np.ones((3, 4), int)
    for pe, lanes, beats, cycles in ((1, 1, 4, 12), (3, 1, 4, 4), (6, 2, 2, 2), (12, 4, 1, 1)):
        unit = MatrixVectorUnit(
            weights, pe=pe, simd=6, accumulators=True, coefficients=coefficients
        )
        assert (unit.o_lanes, unit.neuron_folds, unit.cycles_per_frame) == (lanes, beats, cycles)


def test_one_row_of_levels_is_a_bit():
    weights = np.ones((4, 6), np.int8)
    unit = MatrixVectorUnit(weights, pe=2, simd=6, thresholds=np.zeros((1, 4), int))
    assert unit.output_shape == layouts.bits(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pe": 4}, r"pe must be one of \[1, 3, 6, 12\], not 4"),
        ({"coefficients": np.ones((3, 3), int)}, r"M \* MH = 12, not \(3, 3\)"),
        ({"coefficients": np.ones(12, int)}, r"M \* MH = 12, not \(12,\)"),
        ({"thresholds": np.zeros(12, int)}, r"shape \(4,\) or \(levels, 4\), not \(12,\)"),
        ({"thresholds": np.array([[1] * 4, [0] * 4])}, "thresholds must rise"),
    ],
)
def test_illegal_planes_and_levels_say_what_is_legal(options, message):
    legal = {
        "pe": 1,
        "simd": 6,
        "thresholds": np.zeros(4, int),
        "coefficients": np.ones((3, 4), int),
    }
    with pytest.raises(ValueError, match=message):
        MatrixVectorUnit(np.ones((12, 6), np.int8), **(legal | options))


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr("xnorflow.hw.mvu.GROUP_LANES", 6)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(
    ("pe", "simd", "groups"), [(2, 3, 1), (4, 3, 2), (12, 2, 4), (4, 6, 4), (3, 8, 3), (4, 12, 4)]
)
@pytest.mark.parametrize("latency", [1, 2, 3])
def test_groups_of_pes_work_one_behind_the_other(pe, simd, groups, latency):
    rng = np.random.default_rng(pe * simd)
    weights, x = bipolar(rng, (12, 24)), bipolar(rng, (5, 24))
    thresholds = rng.integers(-6, 7, 12)
    unit = MatrixVectorUnit(
        weights,
        pe=pe,
        simd=simd,
        thresholds=thresholds,
        rom_latency=latency,
        leaf_latency=min(latency, 2),
    )
    assert unit.pe_groups == groups
    count = len(x) * unit.neuron_folds
    beats = pack_bits(x > 0, simd)
    expected = x.astype(int) @ weights.T.astype(int) >= thresholds
    got, _, given_ = run_stream(unit, beats, count)
    assert np.array_equal(unpack_bits(got, pe, 12), expected)
    first = unit.schedule(np.arange(unit.synapse_folds))
    assert given_[: unit.neuron_folds] == first.tolist()
    assert np.all(np.diff(given_[unit.neuron_folds - 1 :: unit.neuron_folds]) == 288 // pe // simd)
    got, *_ = run_stream(unit, beats, count, seed=3, i_stall=0.3, o_stall=0.6)
    assert np.array_equal(unpack_bits(got, pe, 12), expected)


@pytest.mark.parametrize("steps", [2, 3])
def test_weights_that_are_alike_in_all_words_need_no_memory(steps):
    weights = np.ones((4, 4 * steps), np.int8)
    assert rom_widths(weights, 2, 4) == (0,)
    weights[3, 5] = -1  # PE 1, lane 1, in one of the words
    assert rom_widths(weights, 2, 4) == (1,)
    weights[:, 5] = -1  # PEs 0 and 1, lane 1, in the words of the second step
    assert rom_widths(weights, 2, 4) == (2,)


@pytest.mark.parametrize(
    ("name", "legal"), [("rom_latency", "1, 2 or 3"), ("leaf_latency", "1 or 2")]
)
def test_latencies_are_few_cycles(name, legal):
    with pytest.raises(ValueError, match=f"{name} must be {legal}, not 4"):
        MatrixVectorUnit(
            np.ones((4, 6), np.int8), pe=1, simd=1, thresholds=np.zeros(4, int), **{name: 4}
        )


def test_illegal_folding_lists_the_legal_divisors():
    weights = np.ones((4, 6), np.int8)
    with pytest.raises(ValueError, match=r"pe must be one of \[1, 2, 4\], not 3"):
        MatrixVectorUnit(weights, pe=3, simd=1, thresholds=np.zeros(4, int))
    with pytest.raises(ValueError, match=r"simd must be one of \[1, 2, 3, 6\], not 4"):
        MatrixVectorUnit(weights, pe=2, simd=4, thresholds=np.zeros(4, int))


def test_a_layer_needs_thresholds_or_scores():
    weights, zeros = np.ones((4, 6), np.int8), np.zeros(4, int)
    for heads in (
        {},
        {"scale": zeros},
        {"thresholds": zeros, "accumulators": True},
        {"scale": zeros, "offset": zeros, "accumulators": True},
    ):
        with pytest.raises(ValueError, match="thresholds or both scale and offset"):
            MatrixVectorUnit(weights, pe=1, simd=1, **heads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": Lanes(granule=4), "simd": 4}, "granule must divide the 6 synapses, unlike 4"),
        ({"lanes": Lanes(granule=2), "simd": 3}, r"simd must be one of \[2, 6\], not 3"),
        ({"groups": 3}, r"groups must be one of \[1, 2, 4\], not 3"),
        ({"groups": 2, "pe": 4}, r"pe must be one of \[1, 2\], not 4"),
    ],
)
def test_illegal_lanes_and_groups_say_what_is_legal(options, message):
    weights = np.ones((4, 6), np.int8)
    with pytest.raises(ValueError, match=message):
        MatrixVectorUnit(weights, **{"pe": 1, "simd": 1, "accumulators": True, **options})
