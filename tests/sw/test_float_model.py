"""Operations on levels, planes and shortcuts compute what their docstrings say."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from exact_networks import run_exact

from xnorflow.float_model import evaluate
from xnorflow.network import (
    Affine,
    AveragePool,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MultiThreshold,
    Network,
    Op,
    PixelGain,
    Quantize,
    Sign,
)
from xnorflow.planes import bit_planes

RNG = np.random.default_rng(3)
THIRD = Fraction(1, 3)


def weights(*shape: int, values: tuple[int, ...] = (-3, -1, 1, 3)) -> dict:
    integers, coefficients, _ = bit_planes(RNG.choice(values, shape))
    return {"weights": integers, "coefficients": coefficients}


def image(*ops: Op) -> Network:
    return Network("net", (4, 5, 2), ops)


LEVELS = MultiThreshold(
    "levels",
    ((Fraction(-3), Fraction(0), THIRD), (Fraction(1, 2), Fraction(2), Fraction(2))),
    (Fraction(-1), THIRD, Fraction(1), Fraction(7, 2)),
)
QUANTIZE = Quantize("quantize", Fraction(1, 2), Fraction(-1, 2), 0, 3)
CONV = Conv2d("conv", **weights(2, 3, 3, 2), padding=(1, 1, 1, 1), pad_value=Fraction(1, 2))

NETWORKS = {
    "multi-bit weights": image(CONV),
    "ternary weights": image(Flatten("f"), Dense("fc", **weights(3, 40, values=(-1, 0, 1)))),
    "hidden quantizer": image(Sign("s"), CONV, QUANTIZE),
    "levels of each channel": image(LEVELS, CONV, LEVELS),
    "added": image(Sign("s"), CONV, QUANTIZE, Join("join", 1, (), "add"), LEVELS),
    "appended frame": image(CONV, Join("join", 0, (), "append")),
    "prepended bits": image(CONV, Join("join", 1, (Affine("a", (-THIRD,)), Sign("s")), "prepend")),
    "pooled shortcut": image(
        Sign("s"),
        Conv2d("conv", **weights(2, 2, 2, 2), stride=(2, 2)),
        Join("join", 1, (AveragePool("mean", (2, 2), (2, 2)),), "add"),
        QUANTIZE,
        Join("twice", 4, (), "append"),
    ),
    "gains of pixels": image(
        Sign("s"),
        Conv2d("conv", **weights(2, 2, 3, 2), stride=(2, 1), padding=(1, 0, 0, 1)),
        PixelGain("k", 0, (2, 3), (2, 1), (1, 1), (1, 0, 0, 1)),
        Sign("t"),
        Flatten("flat", True),
        Dense("fc", **weights(3, 16)),
        PixelGain("mean", 3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_exact_arithmetic(name):
    network = NETWORKS[name]
    frames = RNG.integers(-8, 9, (3, *network.input_shape)) / 4
    tensors = list(evaluate(network, frames))[1:]
    for number, frame in enumerate(frames):
        for tensor, exact in zip(tensors, run_exact(network, frame), strict=True):
            np.testing.assert_allclose(tensor.values[number], exact.astype(float), atol=1e-12)


def test_joined_elements_are_as_doubtful_as_their_sources():
    network = Network("net", (2,), (Affine("third", (THIRD,)), Sign("s"), Join("j", 1, (), "add")))
    *_, tensor = evaluate(network, np.array([[0.0, 1.0]]))
    assert tensor.near.tolist() == [[True, False]]
    assert tensor.values.tolist() == [[1.0, 1.0 + 1 / 3]]
    assert tensor.size.tolist() == [1.0, 1.0 + 1 / 3]


def test_shapes_that_differ_cannot_be_added():
    network = image(Sign("s"), Flatten("f"), Join("j", 1, (), "add"))
    with pytest.raises(ValueError, match="cannot be added"):
        list(evaluate(network, np.zeros((1, 4, 5, 2))))
