"""Lowering of levels, planes and shortcuts against exact arithmetic, frame by frame."""

from fractions import Fraction

import numpy as np
import pytest
from exact_networks import best_class, run_exact, run_stages
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from xnorflow import golden
from xnorflow.errors import UserError
from xnorflow.lowered import LoweredJoin, LoweredLayer, LoweredNetwork, LoweredPool
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
SIDE, FRAMES = 5, 4


def weighted(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, dict]:
    """Return weights of one or several planes, and their coefficients as keywords."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice([-1, 1], shape), {}
    if kind == 1:  # bases with coefficients of their own for each neuron
        coefficients = rng.integers(-9, 10, (int(rng.integers(1, 4)), shape[0]))
        signs = rng.choice([-1, 1], (len(coefficients), *shape))
        weights = np.einsum("mj,mj...->j...", coefficients, signs)
        return weights, {"coefficients": coefficients}
    largest = int(rng.integers(1, 8))
    weights = rng.integers(-largest, largest + 1, shape)
    weights = weights | 1 if kind == 2 else weights
    weights, coefficients, _ = bit_planes(weights)
    return weights, {"coefficients": coefficients}


def quantizer(rng: np.random.Generator, name: str, spread: float) -> Op:
    """Return a quantizer for values of about that magnitude."""
    kind = rng.integers(3)
    scale = (
        Fraction(int(rng.integers(1, 9)), int(rng.integers(1, 9))) * Fraction(max(spread, 1)) / 4
    )
    if kind == 0:
        return Sign(name)
    if kind == 1:
        low = int(rng.integers(-3, 1))
        zero = Fraction(int(rng.integers(-2, 3)), 2)
        return Quantize(name, scale, zero, low, low + int(rng.integers(1, 7)))
    count = int(rng.integers(1, 5))
    rows = np.sort(rng.integers(-6, 7, (1, count)), axis=1)
    values = np.sort(rng.choice(np.arange(-9, 10), count + 1, replace=False))
    return MultiThreshold(
        name,
        tuple(tuple(Fraction(int(t)) * scale / 3 for t in row) for row in rows),
        tuple(Fraction(int(v), 4) for v in values),
    )


def maps(rng: np.random.Generator, channels: int, spread: float) -> list[Op]:
    result: list[Op] = []
    if rng.random() < 0.6:
        gamma = rng.normal(size=channels)
        gamma[rng.random(channels) < 0.1] = 0
        normal = rng.normal(size=(2, channels))
        result.append(
            BatchNorm("bn", gamma, normal[0], spread * normal[1], rng.random(channels), 1e-3)
        )
    return result


class Maker:
    """Makes a random network of 5 x 5 pixels."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.ops: list[Op] = []
        self.channels = int(self.rng.integers(1, 4))
        self.shape = (SIDE, SIDE, self.channels)

    def conv(self, number: int, size: int, channels: int) -> None:
        kernel = int(self.rng.choice([1, 3]))
        padding = (kernel // 2,) * 4
        shape = (channels, kernel, kernel, self.channels)
        weights, planes = weighted(self.rng, shape)
        self.ops.append(Conv2d(f"conv{number}", weights, padding=padding, **planes))
        self.channels = channels

    def network(self) -> Network:
        rng = self.rng
        self.ops.append(Quantize("in", Fraction(1), Fraction(0), 0, int(rng.integers(1, 4))))
        channels = int(rng.integers(2, 5))
        self.conv(0, SIDE, channels)
        self.levels("q0")
        for block in range(int(rng.integers(1, 3))):
            self.block(block, channels)
        if rng.random() < 0.4:
            self.ops.append(AveragePool("average", (2, 2), (2, 2)))
            self.ops += [Affine("bias", offset=(Fraction(-1),)), self.quantizer("qa")]
            size = 2 * 2
        else:
            size = SIDE * SIDE
        self.ops.append(Flatten("flat", bool(rng.integers(2))))
        weights, planes = weighted(rng, (3, size * self.channels))
        self.ops.append(Dense("last", weights, **planes))
        self.ops += maps(rng, 3, 2)
        return Network("random", self.shape, tuple(self.ops))

    def quantizer(self, name: str) -> Op:
        # Padding with zero needs a level there.
        while True:
            op = quantizer(self.rng, name, 2)
            match op:
                case Sign():
                    return op
                case Quantize():
                    first = op.scale * (op.low - op.zero_point)
                    if (first / op.scale).denominator == 1 and first <= 0 <= first + op.scale * (
                        op.high - op.low
                    ):
                        return op
                case MultiThreshold():
                    if op.values[0] <= 0 <= op.values[-1] and len(op.values) > 2:
                        return op

    def levels(self, name: str) -> None:
        self.ops += maps(self.rng, self.channels, 3)
        self.ops.append(self.quantizer(name))

    def block(self, number: int, channels: int) -> None:
        """Append a block with a shortcut around it, of sums or of activations."""
        rng = self.rng
        kind = rng.integers(4)
        if kind == 0:
            self.conv(10 * number + 10, SIDE, channels)
            self.levels(f"q{number}")
            return
        if kind == 1:  # sums, added before batch norm
            source = len(self.ops)
            while source and not isinstance(self.ops[source - 1], Conv2d | Join):
                source -= 1
            self.conv(10 * number + 10, SIDE, channels)
            if source:
                self.ops.append(Join(f"add{number}", source, (), "add"))
            self.levels(f"q{number}")
            return
        source = len(self.ops)
        path: tuple[Op, ...] = ()
        if rng.random() < 0.5:
            path = (MaxPool("pool", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),)
        if kind == 2:  # activations, added to sums
            self.conv(10 * number + 10, SIDE, channels)
            scale = (Fraction(int(rng.integers(1, 4))),)
            self.ops.append(Join(f"add{number}", source, (*path, Affine("gain", scale)), "add"))
            self.levels(f"q{number}")
            return
        self.conv(10 * number + 10, SIDE, channels)
        self.ops += maps(rng, channels, 3)
        # Both sides of a concatenation need steps of one size.
        self.ops.append(Sign(f"q{number}"))
        self.ops.append(Join(f"cat{number}", source, (*path, Sign("side")), "append"))
        self.channels *= 2
        self.conv(10 * number + 11, SIDE, channels)
        self.levels(f"r{number}")


def check(network: Network, frames: np.ndarray) -> LoweredNetwork:
    lowered = lower(network)
    got = golden.predict(lowered, frames)
    for frame, logits, chosen, scores in zip(
        frames, got.logits, got.classes, got.scores, strict=True
    ):
        exact = run_exact(network, frame)[-1].ravel()
        np.testing.assert_allclose(logits, exact.astype(float), rtol=1e-9, atol=1e-9)
        assert best_class(exact) == chosen
        assert run_stages(lowered, frame)[-1].ravel().tolist() == scores.tolist()
    return lowered


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_random_networks_mean_what_exact_arithmetic_says(seed):
    network = Maker(seed).network()
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 5, (FRAMES, *network.input_shape)).astype(np.uint8)
    try:
        check(network, frames)
    except UserError as error:
        # Zero is no level of some quantizers, and a shortcut may need the minimum of a pool.
        assert "pads with" in str(error) or "minimum" in str(error), error
        reject()


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


def test_shortcuts_have_no_layers():
    with pytest.raises(ValueError, match="no layers"):
        Join("join", 1, (Dense("d", np.ones((1, 1))),), "add")
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
        lowered = check(network, np.random.default_rng(1).normal(size=(4, 3, 3, 2)).astype("f4"))
        assert [s.op for s in lowered.stages if isinstance(s, LoweredPool)] == ["max", "max"]


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
    lowered = check(network, np.random.default_rng(1).normal(size=(4, 3, 3, 2)).astype("f4"))
    first, second = (s for s in lowered.stages if isinstance(s, LoweredLayer))
    assert (first.o_levels, second.levels, second.window.pad.tolist()) == (4, 4, [3, 3])
