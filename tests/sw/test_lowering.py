"""Lowering against brute force in decimals of 300 digits, over all accumulators."""

from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_networks import random_network

from xnorflow import golden
from xnorflow.errors import UserError
from xnorflow.lowered import LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import Affine, BatchNorm, Dense, Flatten, Network, Op, Sign

seeds = st.integers(0, 2**32 - 1)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
moderate = st.floats(-64, 64, width=32)
dyadic = st.integers(-16, 16).map(lambda n: n / 4)
# Smallest numbers, zeros of both signs and ordinary ones.
gammas = st.one_of(moderate, dyadic, st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1e-20, -3e38]))
offsets = st.one_of(moderate, dyadic, float32s)
variances = st.one_of(
    st.floats(0, 2**10, width=32), st.sampled_from([0.0, 1e-45, 1 / 4, 1.0, 4.0, 9.0, 3e38])
)
epsilons = st.sampled_from([0.0, 1e-5, 1e-3, 2.0**-10])
fractions = st.fractions(-8, 8, max_denominator=12)


def batch_norm(columns: list[tuple[float, float, float, float]], eps: float) -> BatchNorm:
    gamma, beta, mean, var = np.array(columns, np.float32).T
    # A zero variance needs an epsilon.
    return BatchNorm("bn", gamma, beta, mean, np.where(var + np.float32(eps) > 0, var, 1), eps)


def batch_norms(channels: int) -> st.SearchStrategy[BatchNorm]:
    columns = st.tuples(gammas, offsets, offsets, variances)
    return st.builds(batch_norm, st.lists(columns, min_size=channels, max_size=channels), epsilons)


def affines(channels: int) -> st.SearchStrategy[Affine]:
    values = st.lists(fractions, min_size=channels, max_size=channels).map(tuple)
    return st.builds(Affine, st.just("affine"), values, values)


def chains(channels: int) -> st.SearchStrategy[tuple[Op, ...]]:
    one = st.one_of(batch_norms(channels), affines(channels))
    return st.lists(one, min_size=1, max_size=3).map(tuple)


def evaluate(ops: tuple[Op, ...], channel: int, unit: Fraction | int) -> Decimal:
    """Evaluate a chain with 300 digits; what is below 1e-150 is zero."""
    with localcontext() as context:
        context.prec = 300
        unit = Fraction(unit)
        y = Decimal(unit.numerator) / Decimal(unit.denominator)
        for op in ops:
            if isinstance(op, BatchNorm):
                gamma, beta, mean, var = (
                    Decimal(float(v[channel])) for v in (op.gamma, op.beta, op.mean, op.var)
                )
                root = (var + Decimal(float(np.float32(op.eps)))).sqrt()
                y = gamma * (y - mean) / root + beta
            elif isinstance(op, Affine):
                scale, offset = (v[channel] for v in (op.scale, op.offset))
                y = y * scale.numerator / scale.denominator
                y += Decimal(offset.numerator) / offset.denominator
        return y if abs(y) > Decimal("1e-150") else Decimal(0)


def network(mw: int, mh: int, ops: tuple[Op, ...], rng: np.random.Generator) -> Network:
    """Return a hidden layer followed by `ops` and a sign, then a last layer of two classes."""
    signs = np.array([-1, 1], np.int8)
    return Network(
        "test",
        (mw,),
        (
            Sign("in"),
            Dense("first", rng.choice(signs, (mh, mw))),
            *ops,
            Sign("hidden"),
            Dense("last", rng.choice(signs, (2, mh))),
        ),
    )


def check_threshold(lowered: LoweredNetwork, source: Network, ops: tuple[Op, ...]) -> None:
    """Compare every neuron's bit with the chain's sign, over all accumulators."""
    layer, (original, _) = lowered.layers[0], source.layers()
    mw = layer.mw
    for neuron, threshold in enumerate(layer.thresholds.tolist()):
        assert -mw <= threshold <= mw + 1
        assert threshold == mw + 1 or (threshold - mw) % 2 == 0
        flips = layer.weights[neuron] * original.weights[neuron]
        assert np.all(flips == flips[0])
        for acc in range(-mw, mw + 1, 2):
            bit = acc * int(flips[0]) >= threshold
            assert bit == (evaluate(ops, neuron, acc) >= 0), (neuron, acc)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(1, 9), chains(3), seeds)
def test_thresholds_are_exact_for_every_accumulator(mw, ops, seed):
    source = network(mw, 3, ops, np.random.default_rng(seed))
    check_threshold(lower(source), source, ops)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.integers(1, 12),
    st.integers(-14, 14),
    st.sampled_from([-2.0, -1.0, 0.5, 1.0, 3.0]),
    st.sampled_from([0.1, 0.3, 1.0, 2.0, 7.0]),
    st.integers(-4, 4),
)
def test_a_tie_at_zero_is_plus_one_however_its_parameters_round(mw, tie, gamma, var, shift):
    # The chain is zero at acc = tie exactly, though its scale is irrational.
    ops = (
        Affine("shift", (Fraction(1),), (Fraction(shift),)),
        batch_norm([(gamma, 0, tie + shift, var)], 1e-5),
    )
    source = network(mw, 1, ops, np.random.default_rng(0))
    check_threshold(lower(source), source, ops)
    layer = lower(source).layers[0]
    reachable = abs(tie) <= mw and (tie - mw) % 2 == 0
    if reachable:
        assert layer.thresholds[0] == (tie if gamma > 0 else -tie)


def test_one_unit_in_the_last_place_of_beta_moves_the_threshold():
    for beta, expected in ((-3.0, 3), (np.nextafter(np.float32(-3), np.float32(-4)), 5)):
        ops = (BatchNorm("bn", [1], [beta], [0], [1], 0.0),)
        source = network(9, 1, ops, np.random.default_rng(0))
        assert lower(source).layers[0].thresholds.tolist() == [expected]


def test_epsilon_is_the_float32_that_the_file_stores():
    # Dividing by the square root of one epsilon twice, gamma = epsilon leaves acc * epsilon, and
    # zero at acc = 3 exactly; the float64 nearest 1e-5 would miss it.
    eps = np.float32(1e-5)
    ops = (
        BatchNorm("one", [eps], [0], [0], [0], float(eps)),
        BatchNorm("two", [eps], [0], [0], [0], 1e-5),
        Affine("off", (Fraction(1),), (-3 * Fraction(float(eps)),)),
    )
    source = network(9, 1, ops, np.random.default_rng(0))
    assert lower(source).layers[0].thresholds.tolist() == [3]


def test_zero_scales_are_always_on_or_dead():
    columns = [(0, beta, 5, 1) for beta in (1, 0, -0.0, -1e-45)]
    source = network(7, 4, (batch_norm(columns, 1e-5),), np.random.default_rng(0))
    assert lower(source).layers[0].thresholds.tolist() == [-7, -7, -7, 8]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seeds)
def test_negating_scales_and_rows_together_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    source = random_network(rng, [12, 7, 5, 4], preprocess=False)
    names = {op.name for op in source.ops if isinstance(op, BatchNorm)}
    negated: list[Op] = []
    for op in source.ops:
        if isinstance(op, Dense) and op.name.replace("fc", "bn") in names:
            op = replace(op, weights=-op.weights)
        elif isinstance(op, BatchNorm):
            op = replace(op, gamma=-op.gamma, mean=-op.mean)
        negated.append(op)
    one, two = lower(source), lower(replace(source, ops=tuple(negated)))
    bits = rng.random((200, 12)) < 0.5
    for a, b in zip(golden.activations(one, bits), golden.activations(two, bits), strict=True):
        np.testing.assert_array_equal(a, b)


def check_order(lowered: LoweredNetwork, source: Network, ops: tuple[Op, ...]) -> None:
    """Compare the ranking of every two classes at all pairs of accumulators."""
    output, layer = lowered.output, lowered.layers[-1]
    flips = (layer.weights * source.layers()[-1].weights)[:, 0].tolist()
    accs = range(-layer.mw, layer.mw + 1, 2)
    exact = [[evaluate(ops, c, acc * flips[c]) for acc in accs] for c in range(layer.mh)]
    scores = [
        [int(output.scale[c]) * acc + int(output.offset[c]) for acc in accs]
        for c in range(layer.mh)
    ]
    for c in range(layer.mh):
        for d in range(c + 1, layer.mh):
            for i, j in product(range(len(accs)), repeat=2):
                with localcontext() as context:
                    context.prec = 300
                    ahead = exact[c][i] - exact[d][j] >= -Decimal("1e-150")
                assert (scores[c][i] >= scores[d][j]) == ahead, (c, d, i, j)


def last_layer(mw: int, ops: tuple[Op, ...], classes: int, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    weights = rng.choice(np.array([-1, 1], np.int8), (classes, mw))
    return Network("test", (mw,), (Sign("in"), Dense("last", weights), *ops))


nice_columns = st.tuples(
    st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 1.5]),
    dyadic,
    dyadic,
    st.sampled_from([0.25, 1.0, 4.0, 0.5, 2.0]),
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.integers(1, 8),
    st.lists(nice_columns, min_size=4, max_size=4).map(lambda columns: (batch_norm(columns, 0.0),)),
)
def test_scores_rank_as_logits_with_ties_and_irrational_scales(mw, ops):
    source = last_layer(mw, ops, 4)
    check_order(lower(source), source, ops)


float_columns = st.tuples(
    st.one_of(st.floats(0.125, 4, width=32), st.floats(-4, -0.125, width=32)),
    moderate,
    moderate,
    st.floats(2.0**-6, 64, width=32),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 8),
    st.lists(float_columns, min_size=3, max_size=3).map(lambda columns: batch_norm(columns, 1e-5)),
    affines(3),
)
def test_scores_rank_as_logits_with_float_parameters(mw, norm, affine):
    source = last_layer(mw, (norm, affine), 3)
    check_order(lower(source), source, (norm, affine))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.integers(1, 10),
    st.lists(fractions, min_size=5, max_size=5),
    st.sampled_from([Fraction(1, 3), Fraction(5)]),
)
@example(6, [Fraction(n, 4) for n in range(5)], Fraction(1))
def test_equal_scales_need_at_most_one_level_per_two_classes(mw, shifts, scale):
    ops = (Affine("affine", (scale,) * 5, tuple(shifts)),)
    source = last_layer(mw, ops, 5)
    lowered = lower(source)
    check_order(lowered, source, ops)
    # A step of the accumulators is 2 * scale, which tells 2 * scale fractional parts apart.
    assert lowered.output.scale.max() <= 3


@pytest.mark.parametrize(
    "ops",
    [
        (),
        (Affine("gain", (Fraction(1, 7),), (Fraction(-3, 5),)),),
        (BatchNorm("bn", [2] * 4, [1] * 4, [3] * 4, [5] * 4, 1e-5),),
        (BatchNorm("bn", [-2] * 4, [1] * 4, [3] * 4, [5] * 4, 1e-5),),
    ],
)
def test_a_common_affine_leaves_the_accumulators_as_scores(ops):
    lowered = lower(last_layer(9, ops, 4))
    assert lowered.output.is_identity


def test_negative_scales_of_the_last_layer_flip_its_rows():
    ops = (Affine("gain", (Fraction(1), Fraction(-2), Fraction(0)), (Fraction(1),) * 3),)
    source = last_layer(5, ops, 3)
    lowered = lower(source)
    flips = (lowered.layers[-1].weights * source.layers()[0].weights)[:, 0]
    assert flips.tolist() == [1, -1, 1]
    assert lowered.output.logit_scale.tolist() == [1, 2, 0]
    check_order(lowered, source, ops)


input_chains = st.one_of(
    affines(3).map(lambda op: (op,)), batch_norms(3).map(lambda op: (op,)), chains(3)
)


def neighbour(x: np.float32, direction: int) -> np.float32:
    with np.errstate(over="ignore"):
        return np.nextafter(x, np.float32(np.inf * direction))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(input_chains)
def test_input_thresholds_are_the_smallest_float32_with_bit_one(ops):
    weights = np.ones((1, 3), np.int8)
    lowered = lower(Network("test", (3,), (*ops, Sign("in"), Dense("last", weights))))
    largest = np.finfo(np.float32).max
    for j, threshold in enumerate(lowered.input.thresholds[0]):
        candidates = {-largest, -1, 0, 1, largest}
        candidates |= {threshold, neighbour(threshold, 1), neighbour(threshold, -1)}
        for x in (np.float32(c) for c in candidates if np.isfinite(c)):
            product_of_bit = (1 if x >= threshold else -1) * int(lowered.layers[0].weights[0, j])
            expected = 1 if evaluate(ops, j, Fraction(float(x))) >= 0 else -1
            assert product_of_bit == expected, (j, x)


def test_two_x_minus_one_is_a_threshold_at_one_half():
    pre = Affine("pre", (Fraction(2),), (Fraction(-1),))
    weights = np.ones((1, 4), np.int8)
    lowered = lower(Network("test", (4,), (pre, Sign("in"), Dense("last", weights))))
    assert lowered.input.thresholds.tolist() == [[0.5] * 4]


def test_a_falling_input_map_flips_the_column_and_keeps_the_tie():
    pre = Affine("pre", (Fraction(-1),), (Fraction(1, 2),))
    weights = np.ones((1, 2), np.int8)
    lowered = lower(Network("test", (2,), (pre, Sign("in"), Dense("last", weights))))
    assert lowered.layers[0].weights.tolist() == [[-1, -1]]
    x = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)
    assert golden.predict(lowered, x).accumulators.tolist() == [[2], [0]]


def test_a_quantizer_scale_with_signs_and_offsets_moves_behind_the_matrix():
    rng = np.random.default_rng(4)
    scale = (Fraction(1, 3), Fraction(-1, 3), Fraction(1, 3))
    offset = (Fraction(0), Fraction(1, 2), Fraction(-1, 5))
    weights = rng.choice(np.array([-1, 1], np.int8), (6, 3))
    shift = Affine("shift", (Fraction(1),), tuple(Fraction(n, 7) for n in range(-3, 3)))
    ops = (
        Sign("in"),
        Affine("quantizer", scale, offset),
        Dense("first", weights),
        shift,
        Sign("hidden"),
        Dense("last", np.ones((2, 6), np.int8)),
    )
    lowered = lower(Network("test", (3,), ops))
    for bits in product([-1, 1], repeat=3):
        inputs = [s * b + o for s, b, o in zip(scale, bits, offset, strict=True)]
        exact = [
            sum(int(w) * v for w, v in zip(row, inputs, strict=True)) + shift.offset[i] >= 0
            for i, row in enumerate(weights)
        ]
        hidden, _ = golden.activations(lowered, np.array([bits]) > 0)
        assert hidden[0].tolist() == exact


def test_a_second_sign_of_the_same_bits_changes_nothing():
    source = random_network(np.random.default_rng(8), [10, 6, 3], preprocess=False)
    twice: list[Op] = []
    for op in source.ops:
        twice.append(op)
        if isinstance(op, Sign):
            twice += [Affine("half", (Fraction(1, 2),), (Fraction(1, 4),)), Sign("again")]
    assert lower(replace(source, ops=tuple(twice))).digest() == lower(source).digest()


def test_lowering_is_deterministic_and_keeps_names():
    source = random_network(np.random.default_rng(9), [16, 8, 4])
    assert lower(source).digest() == lower(source).digest()
    assert [layer.name for layer in lower(source).layers] == ["fc0", "fc1"]


ONES = np.ones((2, 4), np.int8)
BAD = {
    "two layers without a sign": (
        (Sign("s"), Dense("a", np.ones((4, 4))), Dense("b", ONES)),
        ["'b'", "'a'", "BipolarQuant"],
    ),
    "width": ((Sign("s"), Dense("fc", np.ones((2, 5)))), ["'fc'", "5 inputs", "(4,)"]),
    "sign at the end": ((Sign("s"), Dense("fc", ONES), Sign("end")), ["'end'", "'fc'"]),
    "no layer": ((Sign("s"),), ["'bad'", "no weight layer"]),
    "nothing": ((), ["'bad'", "no weight layer"]),
    "magnitudes": (
        (Sign("s"), Affine("q", (Fraction(1), Fraction(2)) * 2), Dense("fc", ONES)),
        ["'fc'", "channel 1", "one quantizer scale"],
    ),
    "channels": (
        (Sign("s"), Affine("q", (Fraction(1),) * 3), Dense("fc", ONES)),
        ["'q'", "3 channels", "has 4"],
    ),
    "scale and offset": (
        (Affine("q", (Fraction(1),) * 2, (Fraction(1),) * 4), Sign("s"), Dense("fc", ONES)),
        ["'q'", "2 scales", "4 offsets"],
    ),
    "norm's channels": (
        (Sign("s"), Dense("fc", ONES), BatchNorm("bn", [1] * 2, [0] * 2, [0] * 3, [1] * 2, 1e-5)),
        ["'bn'", "mean"],
    ),
    "NaN": (
        (Sign("s"), Dense("fc", ONES), BatchNorm("bn", [1, 1], [0, np.nan], [0, 0], [1, 1], 1e-5)),
        ["'bn'", "beta", "finite"],
    ),
    "epsilon": (
        (Sign("s"), Dense("fc", ONES), BatchNorm("bn", [1, 1], [0, 0], [0, 0], [1, 1], np.inf)),
        ["'bn'", "epsilon"],
    ),
    "variance": (
        (Sign("s"), Dense("fc", ONES), BatchNorm("bn", [1, 1], [0, 0], [0, 0], [1, -1], 1e-5)),
        ["'bn'", "positive"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_network_is_refused_by_the_name_of_its_layer(case):
    ops, words = BAD[case]
    with pytest.raises(UserError) as error:
        lower(Network("bad", (4,), ops))
    assert all(word in str(error.value) for word in words), error.value


def test_an_image_without_flatten_is_refused_with_the_mend():
    with pytest.raises(UserError, match="Flatten"):
        lower(Network("bad", (2, 2, 1), (Sign("s"), Dense("fc", ONES))))
    flat = (Sign("s"), Flatten("f"), Dense("fc", ONES))
    assert lower(Network("good", (2, 2, 1), flat)).input.shape == (2, 2, 1)


def test_logits_too_close_for_the_widest_score_are_refused(monkeypatch):
    scale = tuple(Fraction(n) for n in (101, 103, 107))
    source = last_layer(50, (Affine("gain", scale, (Fraction(1, 2), Fraction(2), Fraction(3))),), 3)
    lower(source)
    monkeypatch.setattr("xnorflow.scores._PRODUCT_BITS", 10)
    with pytest.raises(UserError, match="10 bits"):
        lower(source)


@pytest.mark.parametrize("mw", [7, 8])
@pytest.mark.parametrize("scale", [1, Fraction(1, 2), Fraction(1, 3), 0])
def test_scales_a_hair_apart_still_give_narrow_scores(mw, scale):
    hair = Fraction(1, 1 << 160)
    ops = (Affine("gain", (Fraction(1), scale + hair, scale + 2 * hair), (Fraction(0),) * 3),)
    source = last_layer(mw, ops, 3)
    lowered = lower(source)
    check_order(lowered, source, ops)
    assert lowered.output.scale.max() < 100
