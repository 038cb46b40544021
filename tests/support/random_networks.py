"""Random networks for tests, as `Network`, as QONNX and as ONNX of standard operators only."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xnorflow.network import Affine, BatchNorm, Dense, Flatten, Network, Op, Sign

__all__ = [
    "random_frames",
    "random_network",
    "reference_logits",
    "to_plain_onnx",
    "to_qonnx",
    "without_bipolar_quant",
]

_EPS = 2.0**-10


def random_network(
    rng: np.random.Generator,
    widths: Sequence[int],
    *,
    exact: bool = True,
    input_shape: tuple[int, ...] | None = None,
    preprocess: bool = True,
) -> Network:
    """Draw a network with every oddity that a trained file may hold.

    Neurons are now and then dead, always on, at the first or last threshold that can fire, of
    negative, zero or tiny batch-norm scale; quantizers may have a scale, layers a gain.

    Parameters
    ----------
    rng : Generator
    widths : sequence of int
        Features, hidden widths, classes.
    exact : bool
        Draw parameters that are small dyadic fractions, with ``var + eps`` a power of four: then
        float32 arithmetic makes no rounding error, and ties at zero occur and are exact.
        Otherwise draw any float32, but keep thresholds off the accumulators' values.
    input_shape : tuple of int, optional
        Shape of a frame with ``widths[0]`` values; ``(widths[0],)`` by default.
    preprocess : bool
        Put maps before the first sign, of negative and zero scale too.
    """
    shape = input_shape or (widths[0],)
    ops: list[Op] = []
    if len(shape) > 1:
        if preprocess:
            # Channels last, so the maps before the flatten are per channel of the frame.
            ops.append(_affine(rng, "frame", shape[-1]))
        ops.append(Flatten("flatten"))
    if preprocess:
        match rng.integers(3):
            case 0:
                ops.append(Affine("pre", (Fraction(2),), (Fraction(-1),)))
            case 1:
                ops.append(_affine(rng, "pre", widths[0]))
            case 2:
                ops.append(_batch_norm(rng, "pre", widths[0], 1, exact, hidden=True))
    ops.append(Sign("sign0"))
    for i, (mw, mh) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        if rng.random() < 0.3:
            ops.append(_quantizer_scale(rng, f"quant{i}", mw))
        ops.append(Dense(f"fc{i}", rng.choice(np.array([-1, 1], np.int8), (mh, mw))))
        if rng.random() < 0.3:
            ops.append(Affine(f"gain{i}", (Fraction(1, 2),)))
        if not last or rng.random() < 0.8:
            ops.append(_batch_norm(rng, f"bn{i}", mh, mw, exact, hidden=not last))
        if not last:
            ops.append(Sign(f"sign{i + 1}"))
    return Network("random", shape, tuple(ops))


def _affine(rng: np.random.Generator, name: str, channels: int) -> Affine:
    scale = rng.choice([-2, -1, -0.5, 0, 0.5, 1, 2], channels)
    offset = rng.integers(-8, 9, channels) / 8
    return Affine(name, _fractions(scale), _fractions(offset))


def _quantizer_scale(rng: np.random.Generator, name: str, channels: int) -> Affine:
    """Draw a scale of one magnitude with signs of its own per channel, and an offset."""
    scale = float(rng.choice([0.5, 1, 2])) * rng.choice([1, 1, 1, -1], channels)
    offset = rng.choice([0, 0, 0, 0.25, -0.5], channels)
    return Affine(name, _fractions(scale), _fractions(offset))


def _fractions(values: NDArray[np.float64]) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(v)) for v in values)


def _batch_norm(
    rng: np.random.Generator, name: str, mh: int, mw: int, exact: bool, hidden: bool
) -> BatchNorm:
    if not exact:
        gamma = rng.choice([-1, 1, 1], mh) * np.exp(rng.normal(0, 0.5, mh))
        # Accumulators (times a gain of 1/2, or a scale of 1/2 to 2 and offsets in quarters) are
        # multiples of 1/8: at 1/16 from all of them the sign is beyond float32's errors.
        mean = rng.integers(-mw, mw + 1, mh) + (2 * rng.integers(0, 8, mh) + 1) / 16
        var = rng.uniform(0.5, 2, mh) * mw
        beta = np.zeros(mh) if hidden else rng.normal(0, 0.5, mh)
        return BatchNorm(name, gamma, beta, mean, var, 1e-5)
    gamma = rng.choice([-2, -1, -0.5, 0.25, 0.5, 0.75, 1, 1.5], mh)
    beta = rng.integers(-4, 5, mh) / 4
    mean = rng.integers(-2 * mw, 2 * mw + 1, mh) / 2
    var = rng.choice([0.25, 1, 4], mh) - _EPS
    for c in range(mh):
        match rng.integers(12):
            case 0:
                gamma[c] = 0
            case 1 if hidden:
                # So small that the offset alone decides, unless it is zero.
                gamma[c] *= 2.0**-30
                beta[c] = rng.choice([-1, 0, 1])
            case 2 | 3:
                # First and last threshold that can fire, always on, dead, and one beyond.
                mean[c] = int(rng.choice([-1, 1])) * (mw + int(rng.integers(-1, 4)))
                beta[c] = 0
    return BatchNorm(name, gamma, beta, mean, var, _EPS)


def random_frames(rng: np.random.Generator, network: Network, count: int) -> NDArray[np.float32]:
    """Draw frames of multiples of 1/8 in -1 .. 1, where thresholds of random networks lie."""
    shape = (count, *network.input_shape)
    return (rng.integers(-8, 9, shape) / 8).astype(np.float32)


def reference_logits(network: Network, x: NDArray) -> NDArray[np.float64]:
    """Evaluate the operations one by one in float64: exact for exact networks."""
    y = np.asarray(x, np.float64)
    for op in network.ops:
        match op:
            case Flatten():
                y = y.reshape(len(y), -1)
            case Affine():
                y = y * np.array(op.scale, float) + np.array(op.offset, float)
            case BatchNorm():
                gamma, beta, mean, var = (
                    v.astype(float) for v in (op.gamma, op.beta, op.mean, op.var)
                )
                y = gamma * (y - mean) / np.sqrt(var + float(np.float32(op.eps))) + beta
            case Sign():
                y = np.where(y >= 0, 1.0, -1.0)
            case Dense():
                y = y @ op.weights.T.astype(float)
    return y


def to_qonnx(network: Network, batch: int | str = 1, seed: int = 0) -> onnx.ModelProto:
    """Return the network as QONNX: `BipolarQuant` on activations and on latent float weights.

    The output of operation ``op`` is the tensor ``op.name + "_out"``.

    Parameters
    ----------
    network : Network
    batch : int or str
        Batch size, or the name of a free one; QONNX's executor wants a size.
    seed : int
        Of the latent weights' magnitudes.
    """
    return _Exporter(network, batch, np.random.default_rng(seed)).model()


def to_plain_onnx(network: Network, batch: int | str = "N") -> onnx.ModelProto:
    """Return the network in standard operators."""
    return without_bipolar_quant(to_qonnx(network, batch))


def without_bipolar_quant(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which each `BipolarQuant` is ``scale * Where(x >= 0, 1, -1)``.

    That is its definition in QONNX's operator set, in operators that onnxruntime knows.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    nodes = list(graph.node)
    del graph.node[:]
    for value, name in ((0, "bipolar_zero"), (1, "bipolar_high"), (-1, "bipolar_low")):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    for node in nodes:
        if node.op_type != "BipolarQuant":
            graph.node.append(node)
            continue
        (x, scale), (y,) = node.input, node.output
        graph.node.extend(
            [
                helper.make_node("GreaterOrEqual", [x, "bipolar_zero"], [f"{y}_ge"]),
                helper.make_node(
                    "Where", [f"{y}_ge", "bipolar_high", "bipolar_low"], [f"{y}_sign"]
                ),
                helper.make_node("Mul", [f"{y}_sign", scale], [y]),
            ]
        )
    onnx.checker.check_model(plain)
    return plain


class _Exporter:
    """Builds a graph, one operation after the other."""

    def __init__(self, network: Network, batch: int | str, latent: np.random.Generator):
        self.network, self.batch, self.latent = network, batch, latent
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = network.input_shape

    def model(self) -> onnx.ModelProto:
        tensor = "input"
        for op in self.network.ops:
            tensor = self.add(op, tensor)
        graph = helper.make_graph(
            self.nodes,
            self.network.name,
            [self.value("input", self.network.input_shape)],
            [self.value(tensor, self.shape)],
            self.constants,
        )
        opsets = [
            helper.make_opsetid("", 13),
            helper.make_opsetid("qonnx.custom_op.general", 1),
        ]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model)
        return model

    def value(self, name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.batch, *shape])

    def constant(self, name: str, values: object) -> str:
        array = np.asarray(values, np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def bipolar(self, tensor: str, output: str) -> str:
        inputs = [tensor, self.constant(f"{output}_scale", 1)]
        return self.node("BipolarQuant", inputs, output, domain="qonnx.custom_op.general")

    def add(self, op: Op, tensor: str) -> str:
        output = f"{op.name}_out"
        match op:
            case Flatten():
                self.shape = (prod(self.shape),)
                return self.node("Flatten", [tensor], output, axis=1)
            case Affine():
                scale = self.constant(f"{op.name}_scale", [float(v) for v in op.scale])
                offset = self.constant(f"{op.name}_offset", [float(v) for v in op.offset])
                product = self.node("Mul", [tensor, scale], f"{op.name}_product")
                return self.node("Add", [product, offset], output)
            case BatchNorm():
                inputs = [tensor]
                for key in ("gamma", "beta", "mean", "var"):
                    inputs.append(self.constant(f"{op.name}_{key}", getattr(op, key)))
                return self.node("BatchNormalization", inputs, output, epsilon=op.eps)
            case Sign():
                return self.bipolar(tensor, output)
            case Dense():
                self.shape = (op.weights.shape[0],)
                magnitude = self.latent.uniform(0.1, 1, op.weights.T.shape)
                latent = self.constant(f"{op.name}_weights", op.weights.T * magnitude)
                weights = self.bipolar(latent, f"{op.name}_bipolar")
                return self.node("MatMul", [tensor, weights], output)
