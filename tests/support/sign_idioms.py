"""How exporters write a sign, for tests of the frontend: on data, and of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from qonnx_graphs import Graphs

__all__ = [
    "SIGNS",
    "WEIGHTS",
    "Drawn",
    "Idiom",
    "clip",
    "convolutional",
    "models",
    "perceptron",
    "with_weights",
]

Idiom = Callable[[Graphs, str], str]
"""Adds nodes that make -1 and +1 of a tensor."""

FLOAT = TensorProto.FLOAT


def clip(g: Graphs, x: str, low: float = -1, high: float = 1) -> str:
    return g.node("Clip", x, g.constant(low), g.constant(high))


def where(g: Graphs, x: str) -> str:
    condition = g.node("GreaterOrEqual", x, g.constant(0))
    return g.node("Where", condition, g.constant(1), g.constant(-1))


def where_less(g: Graphs, x: str) -> str:
    condition = g.node("Less", x, g.constant(0))
    return g.node("Where", condition, g.constant(-1), g.constant(1))


def where_constant_first(g: Graphs, x: str) -> str:
    condition = g.node("LessOrEqual", g.constant(0.0), x)
    return g.node("Where", condition, g.constant([1]), g.constant(-1))


def where_ones_like(g: Graphs, x: str) -> str:
    """As TorchScript's exporter writes ``where(x >= 0, ones_like(x), -ones_like(x))``."""
    one = numpy_helper.from_array(np.ones(1, np.float32))
    condition = g.node("GreaterOrEqual", x, g.constant(0))
    ones = g.node("ConstantOfShape", g.node("Shape", x), value=one)
    return g.node("Where", condition, ones, g.node("Neg", ones))


def where_expanded(g: Graphs, x: str) -> str:
    condition = g.node("Greater", x, g.constant(0))
    ones = g.node("Expand", g.constant(1), g.node("Shape", x))
    return g.node("Where", condition, ones, g.constant(-1))


def cast(g: Graphs, x: str) -> str:
    bits = g.node("Cast", g.node("GreaterOrEqual", x, g.constant(0)), to=FLOAT)
    return g.node("Sub", g.node("Mul", bits, g.constant(2)), g.constant(1))


def cast_less(g: Graphs, x: str) -> str:
    bits = g.node("Cast", g.node("LessOrEqual", x, g.constant(0)), to=FLOAT)
    return g.node("Sub", g.constant(1), g.node("Mul", g.constant(2), bits))


def cast_twice(g: Graphs, x: str) -> str:
    bits = g.node("Cast", g.node("Greater", x, g.constant(0)), to=TensorProto.INT64)
    bits = g.node("Cast", bits, to=FLOAT)
    return g.node("Sub", g.node("Mul", bits, g.constant(2)), g.constant(1))


def negated(g: Graphs, x: str) -> str:
    bits = g.node("Not", g.node("Less", x, g.constant(0)))
    return g.node("Where", bits, g.constant(1), g.constant(-1))


def other_threshold(g: Graphs, x: str) -> str:
    condition = g.node("Greater", x, g.constant(0.25))
    return g.node("Where", condition, g.constant(1), g.constant(-1))


def sign_of_shifted_sign(g: Graphs, x: str) -> str:
    return g.node("Sign", g.node("Add", g.node("Sign", x), g.constant(0.1)))


def sign_of_lowered_sign(g: Graphs, x: str) -> str:
    return g.node("Sign", g.node("Sub", g.node("Sign", x), g.constant(0.5)))


def comparison_of_sign(g: Graphs, x: str) -> str:
    return where_less(g, g.node("Mul", g.constant(-3), g.node("Sign", x)))


def straight(sign: Idiom, latent: Idiom, *, detached_first: bool = False) -> Idiom:
    """``latent(x) + (sign(x) - latent(x)).detach()``, or its terms in another order."""

    def idiom(g: Graphs, x: str) -> str:
        y = latent(g, x)
        if detached_first:
            return g.node("Add", g.node("Sub", sign(g, x), latent(g, x)), y)
        return g.node("Add", y, g.node("Sub", sign(g, x), y))

    return idiom


def polynomial(g: Graphs, x: str) -> str:
    """A term that takes the data twice, as the approximation of Bi-Real Net does."""
    bits = g.node("Cast", g.node("Less", x, g.constant(0)), to=FLOAT)
    square = g.node("Mul", x, x)
    part = g.node("Mul", g.node("Add", square, g.node("Mul", x, g.constant(2))), bits)
    rest = g.node("Mul", g.node("Sub", x, square), g.node("Sub", g.constant(1), bits))
    return g.node("Add", part, rest)


def scaled(g: Graphs, x: str) -> str:
    """A gain within the trick: ``x / 2 + (sign(x) - x / 2)``, doubled."""
    half = g.node("Div", x, g.constant(2))
    bits = g.node("Add", half, g.node("Sub", where(g, x), half))
    return g.node("Sub", g.node("Add", bits, bits), g.node("Neg", g.node("Neg", bits)))


def rounded(g: Graphs, x: str) -> str:
    """As DoReFa-Net has activations of one bit."""
    bits = g.node("Round", clip(g, x, 0, 1))
    return g.node("Sub", g.node("Mul", bits, g.constant(2)), g.constant(1))


def rounded_hard_sigmoid(g: Graphs, x: str) -> str:
    """As BinaryNet's first code writes its sign: ``2 * round((clip(x, -1, 1) + 1) / 2) - 1``."""
    y = g.node("Div", g.node("Add", clip(g, x), g.constant(1)), g.constant(2))
    return g.node("Sub", g.node("Mul", g.constant(2), g.node("Round", y)), g.constant(1))


def rounded_up(g: Graphs, x: str) -> str:
    """Halves between 1 and 2 go up."""
    bits = g.node("Round", g.node("Add", clip(g, x, -0.25, 0.75), g.constant(1.25)))
    return g.node("Sub", g.node("Mul", bits, g.constant(2)), g.constant(3))


def identity(g: Graphs, x: str) -> str:
    return g.node("Identity", x)


def tanh(g: Graphs, x: str) -> str:
    return g.node("Tanh", x)


SIGNS: dict[str, Idiom] = {
    "where": where,
    "where, less": where_less,
    "where, constant first": where_constant_first,
    "where, ones_like": where_ones_like,
    "where, expanded": where_expanded,
    "cast": cast,
    "cast, less": cast_less,
    "cast twice": cast_twice,
    "not": negated,
    "another threshold": other_threshold,
    "sign(sign(x) + c)": sign_of_shifted_sign,
    "sign(sign(x) - c)": sign_of_lowered_sign,
    "sign(x) compared": comparison_of_sign,
    "detached identity": straight(where, lambda g, x: x),
    "detached copy": straight(cast, identity),
    "detached clip": straight(where, clip),
    "detached clip, sign": straight(sign_of_shifted_sign, clip),
    "detached clip, computed twice": straight(cast, clip, detached_first=True),
    "detached tanh": straight(where, tanh, detached_first=True),
    "detached polynomial": straight(where_less, polynomial, detached_first=True),
    "detached, scaled": scaled,
    "hard tanh": lambda g, x: where(g, clip(g, x)),
    "hard tanh by operator set 6": lambda g, x: where(g, clip(g, x, -0.5, 2)),
    "tanh": lambda g, x: cast(g, tanh(g, x)),
    "soft sign": lambda g, x: where_less(g, g.node("Softsign", x)),
    "leaky relu": lambda g, x: where(g, g.node("LeakyRelu", x, alpha=0.25)),
    "relu": lambda g, x: other_threshold(g, g.node("Relu", x)),
    "hard sigmoid": lambda g, x: _half(
        g, clip(g, g.node("Mul", g.node("Add", x, g.constant(1)), g.constant(0.5)), 0, 1)
    ),
    "hard tanh, shifted": lambda g, x: _half(
        g, g.node("Div", g.node("Sub", clip(g, x), g.constant(1)), g.constant(-2))
    ),
    "rounded": rounded,
    "rounded hard sigmoid": rounded_hard_sigmoid,
    "rounded up": rounded_up,
    "rounded, detached": straight(rounded, lambda g, x: clip(g, x, 0, 1)),
    "hard tanh, detached": lambda g, x: straight(where, clip)(g, clip(g, x)),
}
"""Idioms by name; where a sign could give 0, other operators see to it that it does not matter."""


def _half(g: Graphs, x: str) -> str:
    condition = g.node("Greater", x, g.constant(0.5))
    return g.node("Where", condition, g.constant(1), g.constant(-1))


def _alpha(g: Graphs, w: str, *, keep: int = 1) -> str:
    """The mean magnitude of each row, XNOR-Net's gain; axes are an attribute before set 18."""
    return g.node("ReduceMean", g.node("Abs", w), axes=[1], keepdims=keep)


def _standardized(g: Graphs, w: str) -> str:
    """The sign of weights less their mean, over their deviation."""
    mean = g.node("ReduceMean", w, axes=[1], keepdims=1)
    centred = g.node("Sub", w, mean)
    variance = g.node("ReduceMean", g.node("Pow", centred, g.constant(2)), axes=[1], keepdims=1)
    return g.node("Sign", g.node("Div", centred, g.node("Sqrt", variance)))


_OF_DATA = ("soft sign", "leaky relu", "relu")

WEIGHTS: dict[str, Idiom] = {
    **{name: idiom for name, idiom in SIGNS.items() if name not in _OF_DATA},
    "sign": lambda g, w: g.node("Sign", w),
    "gain": lambda g, w: g.node("Mul", _alpha(g, w), g.node("Sign", w)),
    "gain, detached": lambda g, w: straight(
        lambda g, w: g.node("Mul", _alpha(g, w), g.node("Sign", w)), clip, detached_first=True
    )(g, w),
    "gain, unsqueezed": lambda g, w: g.node(
        "Mul", g.node("Unsqueeze", _alpha(g, w, keep=0), g.constant([1], np.int64)), where(g, w)
    ),
    "gain, expanded": lambda g, w: g.node(
        "Mul", g.node("Expand", _alpha(g, w), g.node("Shape", w)), where(g, w)
    ),
    "gain by sum": lambda g, w: g.node(
        "Div",
        g.node(
            "Mul", g.node("ReduceSum", g.node("Abs", w), g.constant([-1], np.int64)), cast(g, w)
        ),
        g.constant(16),
    ),
    "standardized": _standardized,
    "quantized": lambda g, w: g.bipolar(w, 0.3),
}
"""Ways from a matrix (outputs, inputs) of latent weights to those of a layer."""


class Drawn(Graphs):
    """A graph with layers of random weights.

    Biases are fractions of an odd denominator, so that no sum lies on a threshold.
    """

    def __init__(self, seed: int, shape: tuple = ("N", 12), **how) -> None:
        super().__init__(shape, **how)
        self.rng = np.random.default_rng(seed)

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        weights = self.constant(self.rng.choice([-1, 1], (outputs, inputs)))
        bias = self.constant(self.rng.integers(-9, 9, outputs) / 7 + 0.01)
        return self.node("Gemm", x, weights, bias, transB=1)

    def conv(self, x: str, inputs: int, outputs: int, **options) -> str:
        weights = self.constant(self.rng.choice([-1, 1], (outputs, inputs, 3, 3)))
        bias = self.constant(self.rng.integers(-9, 9, outputs) / 7 + 0.01)
        return self.node("Conv", x, weights, bias, **options)

    def norm(self, x: str, size: int) -> str:
        rng = self.rng
        parameters = [rng.normal(1, 1, size), rng.normal(0, 1, size), rng.normal(0, 2, size)]
        constants = [self.constant(p) for p in (*parameters, rng.uniform(0.5, 4, size))]
        return self.node("BatchNormalization", x, *constants)


def perceptron(g: Drawn, sign: Idiom) -> None:
    x = g.gemm(sign(g, "x"), 12, 9)
    x = g.gemm(sign(g, g.norm(x, 9)), 9, 7)
    g.gemm(sign(g, x), 7, 4)


def convolutional(g: Drawn, sign: Idiom) -> None:
    x = g.conv(sign(g, "x"), 2, 5, pads=[1, 1, 1, 1])
    x = g.norm(g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 5)
    x = g.conv(sign(g, x), 5, 6)
    g.gemm(g.node("Flatten", sign(g, x)), 6 * 2, 4)


def with_weights(idiom: Idiom) -> Drawn:
    """Return a graph of two layers whose weights are made of latent ones by an idiom."""
    g = Drawn(10)
    latent = [g.constant(g.rng.normal(0.05, 0.3, size)) for size in ((9, 12), (4, 9))]
    x = g.node("Gemm", g.bipolar("x"), idiom(g, latent[0]), transB=1)
    x = g.bipolar(g.node("Add", x, g.constant(g.rng.normal(0, 1, 9))))
    g.node("Gemm", x, idiom(g, latent[1]), transB=1)
    return g


def models() -> Iterator[onnx.ModelProto]:
    """Yield a perceptron and a convolutional network with each idiom on data, and of weights."""
    for idiom in SIGNS.values():
        vectors, images = Drawn(1), Drawn(2, ("N", 2, 6, 8))
        perceptron(vectors, idiom)
        convolutional(images, idiom)
        yield vectors.model()
        yield images.model()
    yield from (with_weights(idiom).model() for idiom in WEIGHTS.values())
