"""Lowering of convolutions, pools and quantized frames against exact arithmetic, frame by frame."""

from decimal import Decimal
from fractions import Fraction
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from exact_networks import best_class, run_exact, run_stages
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_cnn, random_frames, reference_logits

from xnorflow import golden
from xnorflow.errors import UserError
from xnorflow.lowered import LoweredLayer, LoweredNetwork, LoweredPool, LoweredThreshold
from xnorflow.lowering import lower
from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Op,
    Quantize,
    Sign,
)
from xnorflow.scores import integer_scores
from xnorflow.surd import Surd

seeds = st.integers(0, 2**32 - 1)
SIGNS = np.array([-1, 1], np.int8)


def affine(scale: object, offset: object = 0, name: str = "affine") -> Affine:
    scales, offsets = (
        tuple(Fraction(v) for v in (values if isinstance(values, tuple) else (values,)))
        for values in (scale, offset)
    )
    return Affine(name, scales, offsets)


def conv(name: str, neurons: int, kernel: int, channels: int, **options: object) -> Conv2d:
    rng = np.random.default_rng(len(name) + neurons + kernel + channels)
    return Conv2d(name, rng.choice(SIGNS, (neurons, kernel, kernel, channels)), **options)


def dense(name: str, neurons: int, inputs: int) -> Dense:
    return Dense(name, np.random.default_rng(inputs).choice(SIGNS, (neurons, inputs)))


def check_frames(source: Network, lowered: LoweredNetwork, frames: np.ndarray) -> None:
    """Compare what enters every layer, and how the classes rank."""
    exact = [run_exact(source, x) for x in frames]
    stages = [run_stages(lowered, x) for x in frames]
    # Before each layer's flatten and maps: what a sign, quantizer or pool has left there.
    places = []
    last = None
    for index, op in enumerate(source.ops):
        if isinstance(op, Sign | Quantize | MaxPool | AveragePool):
            last = index
        if isinstance(op, Dense | Conv2d):
            places.append(last)
    inputs = [i for i, stage in enumerate(lowered.stages) if isinstance(stage, LoweredLayer)]
    for place, index in zip(places, inputs, strict=True):
        seen: dict[tuple[int, int], Decimal] = {}
        for x, tensors, sent in zip(frames, exact, stages, strict=True):
            values = x.astype(object) if place is None else tensors[place]
            values = values.reshape(-1, values.shape[-1])
            for (pixel, channel), unit in np.ndenumerate(sent[index].reshape(values.shape)):
                value = Decimal(values[pixel, channel])
                # One unit of a channel stands for one value.
                assert abs(seen.setdefault((channel, int(unit)), value) - value) < Decimal("1e-50")
    for tensors, sent in zip(exact, stages, strict=True):
        logits, scores = tensors[-1].ravel(), sent[-1]
        assert best_class(logits) == int(scores.argmax())
        for c, d in combinations(range(len(scores)), 2):
            assert (scores[c] >= scores[d]) == (logits[c] - logits[d] >= -Decimal("1e-50"))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(seeds, st.booleans())
def test_random_cnns_have_the_exact_bits_and_classes(seed, dyadic):
    rng = np.random.default_rng(seed)
    source = random_cnn(rng, exact=dyadic)
    check_frames(source, lower(source), random_frames(rng, source, 3))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seeds)
def test_float64_is_exact_on_dyadic_cnns(seed):
    rng = np.random.default_rng(seed)
    source = random_cnn(rng)
    frames = random_frames(rng, source, 8)
    lowered = lower(source)
    expected = reference_logits(source, frames).argmax(axis=1)
    assert [int(run_stages(lowered, x)[-1].argmax()) for x in frames] == expected.tolist()


def all_bits(shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return np.array(list(product([-1.0, 1.0], repeat=count)), np.float32).reshape(-1, *shape)


PADS = {
    "minus one": (None, -1, [0, 0]),
    "plus one": (None, 1, [1, 1]),
    "zero": (None, 0, None),
    "a scale's": (affine(Fraction(1, 3)), Fraction(-1, 3), [0, 0]),
    "signs'": (affine((2, -2)), 2, [1, 0]),
    "an offset's low": (affine(1, 5), 4, [0, 0]),
    "midway": (affine((1, -1), 5), 5, None),
    "offsets'": (affine((1, 1), (1, -1)), 0, [0, 1]),
}


@pytest.mark.parametrize("case", PADS)
def test_padding_of_bits_holds_minus_one_plus_one_or_nothing(case):
    between, value, pad = PADS[case]
    ops = [Sign("s"), *([between] if between else [])]
    layer = conv("c", 3, 3, 2, padding=(1, 0, 0, 2), pad_value=Fraction(value))
    ops += [layer, affine(1, (1, 2, 3)), Sign("t"), Flatten("f"), dense("last", 3, 3)]
    source = Network("pads", (2, 1, 2), tuple(ops))
    lowered = lower(source)
    window = lowered.layers[0].window
    assert (None if window.pad is None else window.pad.tolist()) == pad
    check_frames(source, lowered, all_bits((2, 1, 2)))


@pytest.mark.parametrize(
    ("scales", "value", "pad"),
    [
        ((1, 1), 0, [8, 8]),
        ((1, -1), 0, [8, 7]),
        ((-1, 2), Fraction(7, 4), [0, 15]),
        ((-1, 0), -2, [15, 0]),
    ],
)
def test_padding_of_integers_is_one_of_them(scales, value, pad):
    quantize = Quantize("q", Fraction(1, 4), Fraction(0), -8, 7)
    layer = conv("c", 3, 3, 2, padding=(1, 1, 1, 1), pad_value=Fraction(value))
    ops = (affine(scales), quantize, layer, AveragePool("gap"), Flatten("f"))
    source = Network("pads", (2, 2, 2), ops)
    lowered = lower(source)
    assert lowered.layers[0].window.pad.tolist() == pad
    check_frames(source, lowered, random_frames(np.random.default_rng(1), source, 30))


@pytest.mark.parametrize(
    ("maps", "levels", "pad"),
    [
        ([affine(Fraction(2, 255), -1)], 510, [255, 255]),
        ([affine(Fraction(1, 255)), affine(2, -1)], 510, [255, 255]),
        ([affine((Fraction(2, 255), Fraction(-2, 255)), (-1, 1))], 510, [255, 255]),
        ([affine(1, (Fraction(-1, 3), Fraction(-7, 2)))], 1530, [2, 21]),
        ([affine(Fraction(1, 255))], 255, [0, 0]),
        ([affine(1, Fraction(-1, 257))], 65535, [1, 1]),
    ],
)
def test_padding_between_bytes_counts_them_in_finer_units(maps, levels, pad):
    layer = conv("c", 3, 3, 2, padding=(1, 1, 0, 1))
    ops = (*maps, layer, affine(1, (1, 2, 3)), Sign("t"), Flatten("f"), dense("last", 3, 27))
    source = Network("pads", (4, 3, 2), ops)
    lowered = lower(source)
    assert (lowered.input.levels, lowered.layers[0].levels) == (levels, levels)
    assert lowered.layers[0].window.pad.tolist() == pad
    assert lowered.input.is_bytes
    frames = np.random.default_rng(1).integers(0, 256, (20, 4, 3, 2)).astype(np.float32)
    check_frames(source, lowered, frames)
    expected = [best_class(run_exact(source, x)[-1]) for x in frames]
    assert golden.predict(lowered, frames).classes.tolist() == expected
    with pytest.raises(UserError, match="whole numbers from 0 to 255"):
        golden.predict(lowered, frames + np.float32(0.5))


def test_padding_between_quantized_levels_counts_them_in_finer_units():
    quantize = Quantize("q", Fraction(1, 4), Fraction(0), -8, 7)
    layer = conv("c", 3, 3, 2, padding=(1, 1, 1, 1), pad_value=Fraction(-3, 16))
    ops = (affine((1, -1), (0, 3)), quantize, layer, AveragePool("gap"), Flatten("f"))
    source = Network("pads", (2, 2, 2), ops)
    lowered = lower(source)
    assert (lowered.input.levels, lowered.layers[0].window.pad.tolist()) == (60, [29, 31])
    check_frames(source, lowered, random_frames(np.random.default_rng(1), source, 30))


def test_windows_without_padding_hold_zeros_in_their_pads():
    ops = (Sign("s"), conv("c", 3, 2, 2), MaxPool("m", (2, 2), (1, 1)), Sign("t"), Flatten("f"))
    lowered = lower(Network("pads", (3, 3, 2), (*ops, dense("last", 3, 3))))
    assert [s.window.pad.tolist() for s in lowered.stages[:2]] == [[0] * 2, [0] * 3]


POOL = MaxPool("pool", (2, 2), (1, 1))
GAMMAS = affine((-1, 0, 2, -2, 0), (Fraction(1, 2), 0, -1, 0, -1))
POSITIVE = affine((1, 3, 2, Fraction(1, 2), 0), (0, 1, -1, 0, 2))
ORDERS = {
    "before the norm": (POOL, GAMMAS, Sign("t")),
    "behind the norm": (GAMMAS, POOL, Sign("t")),
    "behind the sign": (GAMMAS, Sign("t"), POOL),
    "behind the sign and a falling scale": (
        Sign("t"),
        affine((-1, 1, -1, 1, -1)),
        POOL,
    ),
    "between two norms": (GAMMAS, POOL, POSITIVE, Sign("t")),
    "between falling norms": (GAMMAS, POOL, affine(-1, 1), Sign("t")),
    "behind two signs": (Sign("t"), GAMMAS, POOL, Sign("u")),
    "on both sides of the sign": (GAMMAS, POOL, Sign("t"), MaxPool("wide", (1, 2), (1, 1))),
    "twice before the sign": (GAMMAS, POOL, POSITIVE, MaxPool("wide", (1, 2), (1, 1)), Sign("t")),
    "of sums": (AveragePool("a", (1, 2), (1, 1)), GAMMAS, POOL, Sign("t")),
}


@pytest.mark.parametrize("order", ORDERS)
def test_max_pools_are_exact_with_scales_of_any_sign(order):
    # On every frame of 2 by 3 pixels, padded so that pools have more to compare.
    layer = conv("c", 5, 2, 1, padding=(1, 1, 1, 1))
    ops = [Sign("s"), layer, *ORDERS[order]]
    shape = [3, 4]
    for op in ORDERS[order]:
        if isinstance(op, MaxPool | AveragePool):
            shape = [size - k + 1 for size, k in zip(shape, op.kernel, strict=True)]
    ops += [Flatten("f", True), dense("hidden", 6, 5 * shape[0] * shape[1]), Sign("h")]
    source = Network("pools", (2, 3, 1), (*ops, dense("last", 3, 6)))
    lowered = lower(source)
    assert all(s.op == "or" for s in lowered.stages if isinstance(s, LoweredPool) and s.high == 1)
    check_frames(source, lowered, all_bits((2, 3, 1)))


def test_a_falling_scale_before_the_pool_complements_the_bits_of_its_channel():
    ops = [Sign("s"), Conv2d("c", np.ones((2, 1, 1, 1))), affine((1, -1)), Sign("t")]
    ops += [affine(-1), MaxPool("m", (2, 1), (2, 1)), Flatten("f"), dense("last", 2, 2)]
    lowered = lower(Network("pools", (2, 1, 1), tuple(ops)))
    assert [type(stage) for stage in lowered.stages] == [LoweredLayer, LoweredPool, LoweredLayer]
    # max(-sign(x)) = max(sign'(-x)), where sign' takes zero for -1: no accumulator is zero here.
    assert lowered.stages[0].weights[:, 0].tolist() == [-1, 1]
    assert lowered.stages[0].thresholds.tolist() == [1, 1]


def test_pools_of_single_pixels_leave_no_stage():
    ops = [Sign("s"), conv("c", 3, 2, 1), MaxPool("m", (1, 1), (1, 1)), Sign("t")]
    ops += [AveragePool("a", (1, 1), (1, 1)), Flatten("f"), dense("last", 2, 3)]
    lowered = lower(Network("pools", (2, 2, 1), tuple(ops)))
    assert [stage.name for stage in lowered.stages] == ["c", "last"]


def test_both_flatten_orders_give_the_hardware_one_order():
    rng = np.random.default_rng(3)
    weights = rng.choice(SIGNS, (4, 2, 3, 5))
    scale = rng.choice([1, -1], (2, 3, 5))
    offset = rng.integers(-2, 3, (2, 3, 5))
    digests = set()
    for first in (False, True):
        order = (2, 0, 1) if first else (0, 1, 2)
        maps = affine(
            tuple(scale.transpose(order).ravel().tolist()),
            tuple(offset.transpose(order).ravel().tolist()),
        )
        matrix = weights.transpose(0, *(1 + axis for axis in order)).reshape(4, -1)
        ops = (conv("c", 5, 2, 2), Sign("t"), Flatten("f", first), maps, Dense("last", matrix))
        source = Network("flat", (3, 4, 2), (Sign("s"), *ops))
        lowered = lower(source)
        digests.add(lowered.digest())
        check_frames(source, lowered, random_frames(rng, source, 5))
        # And of the frame itself, binarized feature by feature.
        ops = (Flatten("f", first), maps, Sign("s"), Dense("last", matrix))
        digests.add(lower(Network("flat", (2, 3, 5), ops)).digest())
    assert len(digests) == 2


def test_flattened_pixels_need_one_threshold_a_channel():
    frames = all_bits((2, 1, 1))
    for first in (False, True):
        alike, apart = (1, 1, -2, -2), (1, 2, -2, -2)
        if not first:
            alike, apart = (1, -2, 1, -2), (1, -2, 2, -2)
        flat = (Sign("s"), conv("c", 2, 1, 1), Flatten("f", first))
        last = (Sign("t"), dense("last", 2, 4))
        source = Network("flat", (2, 1, 1), (*flat, affine(alike, Fraction(1, 2)), *last))
        lowered = lower(source)
        for x in frames:
            exact = best_class(run_exact(source, x)[-1])
            assert int(run_stages(lowered, x)[-1].argmax()) == exact
        with pytest.raises(UserError, match="pixels of one channel"):
            lower(Network("flat", (2, 1, 1), (*flat, affine(apart, 1), *last)))


quantizers = st.builds(
    lambda scale, zero, low, levels: Quantize("q", scale, zero, low, low + levels),
    st.sampled_from([Fraction(1, 4), Fraction(1, 7), Fraction(3), Fraction(1, 255)]),
    st.sampled_from([Fraction(0), Fraction(-3), Fraction(1, 2), Fraction(1, 3), Fraction(200)]),
    st.sampled_from([0, 1, -4, -7]),
    st.sampled_from([1, 2, 7, 15]),
)
norms = st.builds(
    lambda gamma, beta, mean, var: BatchNorm("bn", [gamma], [beta], [mean], [var], 1e-5),
    st.sampled_from([1.0, -1.0, 0.0, 0.3, -5.0]),
    st.sampled_from([0.0, 1.0, -0.1]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([1.0, 0.25, 2.0]),
)
maps = st.builds(
    affine,
    st.sampled_from([1, -1, 0, Fraction(1, 255), Fraction(-2, 3), Fraction(10**40)]),
    st.sampled_from([0, Fraction(1, 8), -1]),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(quantizers, st.one_of(norms, maps))
def test_quantizer_thresholds_are_the_smallest_float32_of_their_level(quantizer, before):
    weights = np.ones((1, 1), np.int8)
    lowered = lower(Network("k", (1,), (before, quantizer, Dense("last", weights))))
    thresholds = lowered.input.thresholds[:, 0]
    assert len(thresholds) == quantizer.high - quantizer.low
    assert np.all(thresholds[1:] >= thresholds[:-1])
    with np.errstate(over="ignore"):
        around = np.concatenate(
            [
                thresholds,
                np.nextafter(thresholds, np.float32(-np.inf)),
                np.nextafter(thresholds, np.float32(np.inf)),
                np.array([-3e38, -1, 0, 0.125, 1, 3e38], np.float32),
            ]
        )
    frames = around[np.isfinite(around)]
    values: dict[int, Decimal] = {}
    for x in frames:
        exact = run_exact(Network("k", (1,), (before, quantizer)), np.array([x]))[-1][0]
        unit = int(lowered.input.quantize(np.array([[x]]))[0, 0])
        assert abs(values.setdefault(unit, exact) - exact) < Decimal("1e-50"), x
    # As many values as integers, in steps of the scale.
    steps = sorted(values)
    for one, two in pairwise(steps):
        expected = (two - one) * quantizer.scale
        assert abs(abs(values[two] - values[one]) - Decimal(float(expected))) < Decimal("1e-9")


def test_sixteen_bit_frames_have_their_thresholds_at_the_halves():
    quantize = Quantize("q", Fraction(1, 256), Fraction(0), -(1 << 15), (1 << 15) - 1)
    lowered = lower(Network("k", (4,), (affine(-1), quantize, dense("last", 2, 4))))
    thresholds = lowered.input.thresholds
    assert thresholds.shape == (65535, 1)
    # q = round(-256 * x) counts down from 32767, so x passes k - 1/2 for k = -32766 .. 32768; at
    # the half q is the even one of 1 - k and -k, so the lane rises there where k is even.
    k = np.arange(-32766, 32769)
    halves = ((k - 0.5) / 256).astype(np.float32)
    above = np.nextafter(halves, np.float32(np.inf))
    np.testing.assert_array_equal(thresholds[:, 0], np.where(k % 2 == 0, halves, above))


def test_quantized_frames_of_alike_features_share_one_column():
    quantize = Quantize("q", Fraction(1, 4), Fraction(0), 0, 3)
    last = (conv("c", 2, 2, 2), Flatten("f"))
    shared = lower(Network("k", (2, 2, 2), (affine(3, 1), quantize, *last)))
    assert shared.input.thresholds.shape == (3, 1)
    own = lower(Network("k", (2, 2, 2), (affine((3, 2), 1), quantize, *last)))
    assert own.input.thresholds.shape == (3, 8)
    np.testing.assert_array_equal(own.input.thresholds[:, :2], own.input.thresholds[:, 2:4])


def test_a_raw_frame_is_taken_as_bytes():
    means = affine(Fraction(1, 64), (Fraction(-1, 2), Fraction(-1, 3)))
    source = Network("raw", (2, 2, 2), (means, conv("c", 3, 2, 2), Flatten("f")))
    lowered = lower(source)
    assert lowered.input.thresholds[:, 0].tolist() == list(range(1, 256))
    assert lowered.layers[0].levels == 255
    check_frames(source, lowered, random_frames(np.random.default_rng(2), source, 20))


def test_a_depthwise_layer_takes_channels_of_different_scales():
    layer = conv("depthwise", 4, 2, 1, groups=2)
    ops = (affine((Fraction(1, 3), -2), (0, 1)), layer, AveragePool("gap"), Flatten("f"))
    source = Network("raw", (3, 3, 2), ops)
    check_frames(source, lower(source), random_frames(np.random.default_rng(2), source, 20))


def test_average_pools_are_sums_with_thresholds_of_their_own():
    rng = np.random.default_rng(5)
    norm = affine((1, -1, 0, 3), (0, Fraction(1, 9), 0, -1))
    ops = [Sign("s"), conv("c", 4, 2, 1), AveragePool("a", (3, 3), (3, 3)), norm, Sign("t")]
    ops += [AveragePool("b"), affine((-1, 1, 1, 0), Fraction(1, 3)), Sign("u")]
    source = Network("sums", (8, 7, 1), (*ops, Flatten("f", True), dense("last", 3, 4)))
    lowered = lower(source)
    assert [(type(s), s.name) for s in lowered.stages] == [
        (LoweredLayer, "c"),
        (LoweredPool, "a"),
        (LoweredThreshold, "a_threshold"),
        (LoweredPool, "b"),
        (LoweredThreshold, "b_threshold"),
        (LoweredLayer, "last"),
    ]
    assert [s.o_range for s in lowered.stages if isinstance(s, LoweredPool)] == [(-36, 36), (0, 4)]
    check_frames(source, lowered, random_frames(rng, source, 40))


@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (1, 1, 1, 1)])
@pytest.mark.parametrize("scale", [(1, 1, 1), (1, -2, 0), (Fraction(1, 3), 1, -1)])
def test_averaged_accumulators_rank_as_their_logits(pad, scale):
    norm = affine(scale, (0, Fraction(1, 7), Fraction(-1, 7)))
    ops = (Sign("s"), conv("c", 3, 2, 1, padding=pad), AveragePool("gap"), norm, Flatten("f"))
    source = Network("gap", (3, 3, 1), ops)
    check_frames(source, lower(source), all_bits((3, 3, 1))[::3])


def test_averaged_bits_may_be_the_classes():
    ops = (Sign("s"), conv("c", 3, 2, 1), affine((1, -1, 1), (0, 1, 1)), Sign("t"))
    source = Network("gap", (3, 3, 1), (*ops, AveragePool("gap"), affine(2, 1), Flatten("f")))
    check_frames(source, lower(source), all_bits((3, 3, 1))[::5])


def test_stages_of_one_name_are_told_apart():
    ops = (Sign("s"), conv("c", 2, 2, 1), Sign("t"), MaxPool("c", (2, 2), (1, 1)), Flatten("f"))
    lowered = lower(Network("names", (3, 3, 1), (*ops, dense("last", 2, 2))))
    assert [stage.name for stage in lowered.stages] == ["c", "c_2", "last"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(-60, 60), st.integers(0, 40), st.integers(0, 60)),
        min_size=3,
        max_size=4,
    ),
    st.integers(1, 2),
)
def test_scores_rank_on_lattices_of_their_own(classes, step):
    # In sevenths; with one lattice a class, of accumulators that need not be symmetric.
    chain = [(Surd.of(Fraction(s, 7)), Surd.of(Fraction(o, 7))) for s, o, _, _ in classes]
    scale, offset, low, count = np.array(classes).T
    low = -low * step
    high = low + count * step
    scales, offsets = integer_scores(chain, low, high, step, "test")
    for c, d in combinations(range(len(classes)), 2):
        a = np.arange(low[c], high[c] + 1, step)[:, None]
        b = np.arange(low[d], high[d] + 1, step)
        np.testing.assert_array_equal(
            scales[c] * a + offsets[c] >= scales[d] * b + offsets[d],
            scale[c] * a + offset[c] >= scale[d] * b + offset[d],
        )


def test_wide_lattices_of_irrational_scales_rank_exactly():
    # On 20,000 sums a class; ties are impossible, so 40 digits tell.
    chain = [(Surd.of(1, n), Surd.of(Fraction(n, 3))) for n in (2, 3, 5)]
    low, high = np.full(3, -20_000), np.full(3, 20_000)
    scales, offsets = integer_scores(chain, low, high, 2, "test")
    rng = np.random.default_rng(0)
    for c, d in combinations(range(3), 2):
        roots = [Decimal(n).sqrt() for n in (2, 3, 5)]
        for a in (2 * rng.integers(-10_000, 10_001, 300)).tolist():
            # The b next to a tie, where a wrong score shows first.
            logit = roots[c] * a + Decimal((2, 3, 5)[c]) / 3
            nearest = int((logit - Decimal((2, 3, 5)[d]) / 3) / roots[d]) // 2 * 2
            for b in range(nearest - 4, nearest + 6, 2):
                if abs(b) <= 20_000:
                    ahead = logit >= roots[d] * b + Decimal((2, 3, 5)[d]) / 3
                    assert (scales[c] * a + offsets[c] >= scales[d] * b + offsets[d]) == ahead


def test_more_sums_than_can_be_ranked_one_by_one_are_ranked_by_multiples_of_one_scale():
    sizes = np.full(3, 1 << 24)
    chain = [(Surd.of(Fraction(n, 48), 3), Surd.of(Fraction(4 * n, 48), 3)) for n in (3, 5, 0)]
    scales, offsets = integer_scores(chain, -sizes, sizes, 1, "test")
    assert scales.tolist() == [3, 5, 0]
    assert (offsets - offsets[2]).tolist() == [12, 20, 0]
    chain[0] = (Surd.of(Fraction(1, 16), 2), Surd.of(0))
    with pytest.raises(UserError, match="too many to rank exactly"):
        integer_scores(chain, -sizes, sizes, 1, "test")


def bits(*ops: Op) -> tuple[Op, ...]:
    return (Sign("s"), *ops)


HALF = Quantize("q", Fraction(1, 2), Fraction(0), 0, 3)
CONV = conv("c", 2, 2, 2)
WIDE = MaxPool("m", (2, 2), (1, 1))
GAP = AveragePool("gap")
BAD = {
    "channels": (bits(conv("c", 2, 2, 3)), ["'c'", "2 channels"]),
    "groups": (bits(conv("c", 3, 2, 1, groups=2)), ["'c'", "2 groups", "evenly"]),
    "kernel": (bits(conv("c", 2, 5, 2)), ["'c'", "(5, 5)", "smaller kernel"]),
    "dilated kernel": (bits(conv("c", 2, 3, 2, dilation=(2, 1))), ["'c'", "smaller kernel"]),
    "stride": (bits(conv("c", 2, 2, 2, stride=(0, 1))), ["'c'", "stride (0, 1)"]),
    "pool's kernel": (bits(CONV, MaxPool("m", (4, 1), (1, 1))), ["'m'", "(4, 1)"]),
    "pool of padding": (
        bits(CONV, MaxPool("m", (1, 1), (1, 1), (1, 1), (1, 0, 0, 0))),
        ["'m'", "padding only"],
    ),
    "image": (bits(Flatten("f"), CONV), ["'c'", "(32,)", "Flatten"]),
    "vector pool": (bits(Flatten("f"), GAP), ["'gap'", "(32,)", "Flatten"]),
    "matrix of an image": (bits(dense("d", 2, 2)), ["'d'", "Flatten is missing"]),
    "pad of bits": (
        bits(conv("c", 2, 2, 2, padding=(1, 1, 1, 1), pad_value=Fraction(1, 2))),
        ["'c'", "pads with 0.5", "-1 or 1"],
    ),
    "mixed pads": (
        bits(affine(1, (0, 1)), conv("c", 2, 2, 2, padding=(1, 1, 1, 1))),
        ["'c'", "pads with 0", "all channels"],
    ),
    "pad of integers": (
        (HALF, conv("c", 2, 2, 2, padding=(1, 1, 1, 1), pad_value=Fraction(1, 1 << 16))),
        ["'c'", "pads with 1.5", "n * 0.5", "up to 3"],
    ),
    "pad beyond integers": (
        (HALF, conv("c", 2, 2, 2, padding=(1, 1, 1, 1), pad_value=Fraction(2))),
        ["'c'", "pads with 2"],
    ),
    "magnitudes of pixels": (
        (affine((1, 2)), conv("c", 2, 2, 2)),
        ["'c'", "channel 1", "standard deviation", "quantizer behind"],
    ),
    "pooled pixels": ((WIDE, Sign("s"), CONV), ["'m'", "raw pixels"]),
    "pooled integers": ((HALF, WIDE, CONV), ["'m'", "raw pixels"]),
    "averaged pixels": ((GAP, Sign("s"), CONV), ["'gap'", "raw pixels"]),
    "sign of integers": ((HALF, Sign("s"), CONV), ["'s'", "leave out one"]),
    "quantizer's scale": ((Quantize("q", Fraction(-1), Fraction(0), 0, 3), CONV), ["'q'", "-1"]),
    "quantizer's range": (
        (Quantize("q", Fraction(1), Fraction(0), 0, 1 << 16), CONV),
        ["'q'", "65536", "16 bits"],
    ),
    "two layers": (bits(CONV, conv("d", 2, 2, 2)), ["'d'", "'c'", "BipolarQuant"]),
    "average without a sign": (bits(CONV, GAP, conv("d", 2, 1, 2)), ["'d'", "BipolarQuant"]),
    "minimum of accumulators at the end": (
        bits(CONV, affine(-1), MaxPool("m", (3, 3), (1, 1))),
        ["'m'", "minimum", "positive"],
    ),
    "both directions": (bits(CONV, WIDE, Sign("t"), affine(-1), WIDE, conv("d", 2, 1, 2)), ["'m'"]),
    "minimum of the frame": (bits(affine(-1), WIDE, CONV), ["'m'", "minimum", "positive"]),
    "bits at the end": (bits(CONV, Sign("end")), ["'end'", "'c'"]),
    "image at the end": (bits(CONV), ["(3, 3, 2)", "global average"]),
    "flat image at the end": (bits(CONV, Flatten("f")), ["(3, 3, 2)", "Dense"]),
    "falling sums at the end": (bits(CONV, Sign("t"), GAP, affine(-1)), ["'c'", "negative"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_cnn_is_refused_by_the_name_at_fault(case):
    ops, words = BAD[case]
    with pytest.raises(UserError) as error:
        lower(Network("bad", (4, 4, 2), ops))
    assert all(word in str(error.value) for word in words), error.value


def test_layers_and_sums_beyond_their_integers_are_refused():
    wide = Quantize("q", Fraction(1), Fraction(0), 0, (1 << 16) - 1)
    ones = np.ones((1, (1 << 15) + 1), np.int8)
    with pytest.raises(UserError, match="32 bits"):
        lower(Network("wide", (ones.size,), (wide, Dense("d", ones))))
    layer = Conv2d("c", np.ones((1, 1, 1, 1)))
    sums = (Sign("s"), layer, Sign("t"), AveragePool("gap"), Flatten("f"), dense("last", 2, 1))
    with pytest.raises(UserError, match="65536"):
        lower(Network("wide", (256, 256, 1), sums))
