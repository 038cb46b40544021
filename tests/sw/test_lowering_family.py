"""Lowering of levels, planes and shortcuts against exact arithmetic, frame by frame."""

from fractions import Fraction

import numpy as np
import pytest
from exact_networks import best_class, run_exact, run_stages
from family_networks import FamilyMaker, weighted
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from random_networks import to_qonnx
from residual_networks import random_residual

from xnorflow import golden
from xnorflow.errors import UserError
from xnorflow.frontend.reader import graph_of
from xnorflow.frontend.walk import import_graph
from xnorflow.import_check import check_import
from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
    LoweredNetwork,
    LoweredPool,
    LoweredThreshold,
)
from xnorflow.lowering import lower
from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MaxPool,
    MultiThreshold,
    Network,
    Op,
    Quantize,
    Sign,
)
from xnorflow.planes import bit_planes, plane_signs

seeds = st.integers(0, 2**32 - 1)
FRAMES = 4


def check(network: Network, lowered: LoweredNetwork, frames: np.ndarray) -> None:
    got = golden.predict(lowered, frames)
    for frame, logits, chosen, scores in zip(
        frames, got.logits, got.classes, got.scores, strict=True
    ):
        exact = run_exact(network, frame)[-1].ravel()
        np.testing.assert_allclose(logits, exact.astype(float), rtol=1e-9, atol=1e-9)
        assert best_class(exact) == chosen
        assert run_stages(lowered, frame)[-1].ravel().tolist() == scores.tolist()


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_random_networks_mean_what_exact_arithmetic_says(seed):
    network = FamilyMaker(seed).network()
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 5, (FRAMES, *network.input_shape)).astype(np.uint8)
    try:
        lowered = lower(network)
    except UserError as error:
        # Zero is no level of some quantizers.
        if "pads with" in str(error):
            reject()
        raise
    check(network, lowered, frames)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_random_networks_with_layers_on_shortcuts_mean_what_exact_arithmetic_says(seed):
    network = random_residual(seed)
    try:
        lowered = lower(network)
    except UserError as error:
        # Zero is no level of some quantizers, and a concatenation may have steps of two sizes.
        if "pads with" in str(error) or "different magnitude" in str(error):
            reject()
        raise
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 5, (FRAMES, *network.input_shape)).astype(np.uint8)
    check(network, lowered, frames)
    sent = golden.activations(lowered, golden.quantize(lowered, frames))
    for number, frame in enumerate(frames):
        for tensor, slow in zip(sent[:-1], run_stages(lowered, frame)[1:-2], strict=True):
            assert np.array_equal(tensor[number].ravel(), slow.ravel())


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_random_networks_with_layers_on_shortcuts_survive_the_way_through_a_file(seed):
    network = random_residual(seed)
    imported = import_graph(graph_of(to_qonnx(network, batch="N"), "net.onnx"))
    kinds = [[type(step.op) for step in one.flow()] for one in (network, imported.network)]
    if kinds[0] == kinds[1]:
        names = [f"{layer.name}_out" for layer in network.layers()]
        assert [layer.name for layer in imported.network.layers()] == names
    try:
        lowered = lower(imported.network)
    except UserError:
        reject()
    check_import(imported, lowered, seed=seed)
    frames = np.random.default_rng(seed).integers(0, 5, (FRAMES, *network.input_shape))
    ours, theirs = (
        golden.predict(one, frames.astype(np.uint8)).logits for one in (lower(network), lowered)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_planes_give_the_weights_back(seed):
    rng = np.random.default_rng(seed)
    weights, planes = weighted(rng, (4, 3, 2))
    if planes:
        signs = plane_signs(weights, planes["coefficients"])
        assert np.all(np.abs(signs) == 1)
        again = np.einsum("mj,mj...->j...", planes["coefficients"], signs)
        assert np.array_equal(again, weights)


def test_weights_of_eight_bits_take_nine_planes_and_more_are_refused():
    _, coefficients, factor = bit_planes(np.array([[-128, 0, 127]]))
    assert (factor, len(coefficients)) == (2, 9)
    with pytest.raises(ValueError, match="take 10 planes"):
        bit_planes(np.array([[-256, 0]]))
    assert len(bit_planes(np.array([[-255, 1, 255]]))[1]) == 8
    assert len(bit_planes(np.array([[-1, 0, 1]]))[1]) == 2


def test_weights_that_no_signs_give_are_refused():
    with pytest.raises(ValueError, match=r"'fc'.*neuron 1"):
        Dense("fc", np.array([[3, 1], [2, 1]]), coefficients=np.array([[1, 1], [2, 2]]))
    with pytest.raises(ValueError, match="have coefficients"):
        Dense("fc", np.array([[3, 1]]))


def residual(*ops: Op, how: str = "add", source: int = 2, path: tuple[Op, ...] = ()) -> Network:
    ones = np.ones((2, 1, 1, 2), np.int8)
    return Network(
        "residual",
        (2, 2, 2),
        (
            Sign("s"),
            Conv2d("a", ones),
            Sign("t"),
            Conv2d("b", ones),
            *ops,
            Join("join", source, path, how),
            Sign("u"),
            Flatten("f"),
            Dense("last", np.ones((2, 8))),
        ),
    )


def test_a_shortcut_of_sums_is_sent_on_as_it_is():
    lowered = lower(residual())
    kinds = [type(stage).__name__ for stage in lowered.stages]
    assert kinds == [
        "LoweredLayer",
        "LoweredThreshold",
        "LoweredLayer",
        "LoweredJoin",
        "LoweredThreshold",
        "LoweredLayer",
    ]
    join = lowered.stages[3]
    assert isinstance(join, LoweredJoin)
    assert (join.source, join.o_range, join.gains.tolist()) == (0, (-4, 4), [[1, 1], [1, 1]])


BAD = {
    "irrational": (
        residual(BatchNorm("bn", *np.ones((3, 2)), np.full(2, 2.0), 0.0)),
        ["'join'", "channel 0", "before batch norm"],
    ),
    "shapes": (
        residual(path=(MaxPool("m", (2, 2), (2, 2)),)),
        ["'join'", "(2, 2, 2)", "(1, 1, 2)"],
    ),
    "rows": (
        residual(how="append", path=(MaxPool("m", (2, 2), (2, 2)),)),
        ["'join'", "rows and columns"],
    ),
    "frame": (residual(source=0), ["'join'", "raw frame", "first layer"]),
    "later": (residual(source=9), ["'join'", "operation 9"]),
    "large": (
        residual(path=(Affine("gain", (Fraction(1, 40000),)),)),
        ["'join'", "no small integers"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_shortcut_is_refused_by_its_name(case):
    network, words = BAD[case]
    with pytest.raises(UserError) as error:
        lower(network)
    assert all(word in str(error.value) for word in words), error.value


def test_shortcuts_have_no_shortcuts():
    with pytest.raises(ValueError, match="'join': a shortcut has no joins"):
        Join("join", 1, (Join("inner", 1, (), "add"),), "add")
    with pytest.raises(ValueError, match="how must be"):
        Join("join", 1, (), "multiply")


def test_maxima_of_levels_and_of_sums_are_maxima():
    ones = np.ones((2, 1, 1, 2), np.int8)
    pool = MaxPool("m", (2, 2), (1, 1), padding=(1, 1, 0, 0))
    three = Quantize("q", Fraction(1), Fraction(0), -2, 1)
    for ops in ((three, pool), (pool, three), (Affine("gain", (Fraction(-1),)), three, pool)):
        network = Network(
            "pools",
            (3, 3, 2),
            (
                Sign("s"),
                Conv2d("a", ones),
                *ops,
                Conv2d("b", ones),
                MaxPool("m2", (3, 3), (1, 1)),
                Flatten("f"),
            ),
        )
        lowered = lower(network)
        check(network, lowered, np.random.default_rng(1).normal(size=(4, 3, 3, 2)).astype("f4"))
        assert [s.op for s in lowered.stages if isinstance(s, LoweredPool)] == ["max", "max"]


@pytest.mark.parametrize("first", ["pool", "sign"])
def test_a_shortcut_pools_the_minimum_behind_a_falling_scale(first):
    ones = np.ones((2, 1, 1, 2), np.int8)
    pool = MaxPool("m", (2, 2), (1, 1), padding=(1, 1, 0, 0))
    maps = Affine("turn", (Fraction(-1), Fraction(1)), (Fraction(1),))
    order = (
        (pool, Sign("u"))
        if first == "pool"
        else (Sign("u"), Affine("again", (Fraction(-1),)), pool)
    )
    path = (maps, *order, Conv2d("side", ones))
    network = Network(
        "falling",
        (3, 3, 2),
        (
            *(Sign("s"), Conv2d("a", ones), Sign("t"), Conv2d("b", ones)),
            *(
                Join("join", 2, path, "add"),
                Sign("v"),
                Flatten("f"),
                Dense("last", np.ones((3, 18))),
            ),
        ),
    )
    lowered = lower(network)
    check(network, lowered, np.random.default_rng(1).normal(size=(4, 3, 3, 2)).astype("f4"))
    (join,) = (stage for stage in lowered.stages if isinstance(stage, LoweredJoin))
    threshold, minimum, _ = join.path
    # Bits are pooled, not sums.
    assert (type(threshold), minimum.op, minimum.high) == (LoweredThreshold, "or", 1)
    assert minimum.falling.tolist() == ([True, False] if first == "pool" else [False, True])


def test_one_pool_of_a_layer_is_an_or_and_the_other_one_an_and():
    ones = np.ones((2, 1, 1, 2), np.int8)
    turn = Affine("turn", (Fraction(-1), Fraction(1)))
    pools = [MaxPool(name, (2, 2), (1, 1)) for name in "mn"]
    three = Quantize("t", Fraction(1), Fraction(0), -2, 1)
    for quantizer in (Sign("t"), three):
        ops = (Sign("s"), Conv2d("a", ones), quantizer, pools[0], turn, pools[1], Flatten("f"))
        network = Network("both", (4, 4, 2), (*ops, Dense("last", np.ones((3, 8)))))
        lowered = lower(network)
        check(network, lowered, np.random.default_rng(1).normal(size=(4, 4, 4, 2)).astype("f4"))
        first, second = (stage for stage in lowered.stages if isinstance(stage, LoweredPool))
        assert first.falling is None
        assert second.falling.tolist() == [True, False]


def test_sums_at_which_a_shortcut_begins_may_be_pooled_before_their_sign():
    ones = np.ones((2, 3, 3, 2), np.int8)
    pool = MaxPool("m", (2, 2), (2, 2))
    network = Network(
        "pooled",
        (4, 4, 2),
        (
            *(Sign("s"), Conv2d("a", ones, padding=(1, 1, 1, 1)), pool, Sign("t")),
            *(Conv2d("b", ones, padding=(1, 1, 1, 1)), Join("join", 2, (pool,), "add")),
            *(Sign("u"), Flatten("f"), Dense("last", np.ones((3, 8)))),
        ),
    )
    lowered = lower(network)
    check(network, lowered, np.random.default_rng(1).normal(size=(4, 4, 4, 2)).astype("f4"))


def test_padding_between_levels_counts_in_finer_units():
    ones = np.ones((2, 3, 3, 2), np.int8)
    halves = MultiThreshold("q", ((Fraction(-1), Fraction(1)),), tuple(map(Fraction, (-3, -1, 1))))
    network = Network(
        "finer",
        (3, 3, 2),
        (
            Sign("s"),
            Conv2d("a", ones[:, :1, :1]),
            halves,
            Conv2d("b", ones, padding=(1, 1, 1, 1)),
            AveragePool("gap"),
            Flatten("f"),
        ),
    )
    lowered = lower(network)
    check(network, lowered, np.random.default_rng(1).normal(size=(4, 3, 3, 2)).astype("f4"))
    first, second = (s for s in lowered.stages if isinstance(s, LoweredLayer))
    assert (first.o_levels, second.levels, second.window.pad.tolist()) == (4, 4, [3, 3])


def test_many_classes_of_one_scale_are_ranked_by_their_offsets():
    rng = np.random.default_rng(2)
    network = Network(
        "many",
        (40,),
        (
            Affine("middle", offset=(Fraction(-1, 2),)),
            Sign("s"),
            Affine("zero_one", (Fraction(1, 2),), (Fraction(1, 2),)),
            Dense("fc", rng.choice([-1, 1], (200, 40))),
        ),
    )
    lowered = lower(network)
    assert np.all(lowered.output.scale == 1)
    check(network, lowered, rng.integers(0, 2, (6, 40)).astype(np.uint8))
