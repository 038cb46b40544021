"""Small ONNX graphs for tests of the frontend: a builder, and networks in the forms in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

__all__ = [
    "CNN_FORMS",
    "FORMS",
    "CnnForm",
    "Form",
    "Graphs",
    "cnn",
    "evaluate",
    "execute",
    "mlp",
]


class Graphs:
    """Builds one graph node by node; each method returns the name of the tensor it adds.

    Parameters
    ----------
    shape : sequence of int, str or None
        Of the input tensor, batch first.
    kind : int
        Its element type.
    domain : str
        Of QONNX's operators.
    opset : int
        Standard operator set.
    """

    def __init__(
        self,
        shape: Sequence[int | str | None] = (1, 6),
        kind: int = TensorProto.FLOAT,
        domain: str = "qonnx.custom_op.general",
        opset: int = 13,
    ) -> None:
        self.inputs = [helper.make_tensor_value_info("x", kind, shape)]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.domain, self.opset = domain, opset

    def constant(self, values: ArrayLike, kind: type = np.float32) -> str:
        """Add an initializer."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def node(
        self, kind: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes
    ):
        """Add a node; its domain follows from its kind unless given."""
        domain = attributes.pop("domain", self.domain if kind.endswith("Quant") else "")
        number = len(self.nodes)
        names = [f"t{number}" + "_" * i for i in range(outputs)]
        self.nodes.append(
            helper.make_node(
                kind,
                inputs,
                names,
                f"{kind.lower()}_{number}" if name is None else name,
                domain=domain,
                **attributes,
            )
        )
        return names[0]

    def quant(
        self,
        x: str,
        scale: ArrayLike = 1.0,
        zero_point: ArrayLike = 0.0,
        bits: float = 8,
        **attributes,
    ) -> str:
        """Add a Quant."""
        inputs = [self.constant(value) for value in (scale, zero_point, bits)]
        options = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
        return self.node("Quant", x, *inputs, **options)

    def bipolar(self, x: str, scale: ArrayLike = 1.0, **attributes) -> str:
        """Add a BipolarQuant."""
        return self.node("BipolarQuant", x, self.constant(scale), **attributes)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """Return the model with these outputs, by default the last node's first."""
        names = outputs or (self.nodes[-1].output[0],)
        graph = helper.make_graph(
            self.nodes,
            "test",
            self.inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(self.domain, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def save(self, folder: Path, *outputs: str, name: str = "net.onnx") -> Path:
        """Write the model and return the file's path."""
        path = folder / name
        path.write_bytes(self.model(*outputs).SerializeToString())
        return path


FORMS: dict[str, Sequence[object]] = {
    "weights": ["latent", "int8", "plain", "scaled", "channel scale"],
    "layer": ["Gemm transB", "Gemm", "MatMul", "Transpose"],
    "norm": ["BatchNormalization", "vector", "scalar", "none"],
    "pre": ["2x - 1", "x - c", "c - x", "x / c", "batch norm", "none"],
    "scale": [1.0, 0.1],
    "bias": [False, True],
    "flatten": ["Flatten", "Reshape", "Shape", "Squeeze"],
    "end": ["scores", "Softmax", "ArgMax", "TopK"],
    "weights_first": [False, True],
    "shared": [False, True],
    "named": [False, True],
    "domain": ["qonnx.custom_op.general", "onnx.brevitas", "qonnx.custom_op.other"],
    "opset": [9, 11, 13, 17],
    "batch": ["N", 1, 3],
}
"""What each field of `Form` can be."""


@dataclass(frozen=True)
class Form:
    """How a perceptron is written as a graph, see `FORMS`."""

    weights: str = "latent"
    layer: str = "Gemm transB"
    norm: str = "BatchNormalization"
    pre: str = "2x - 1"
    scale: float = 1.0
    bias: bool = False
    flatten: str = "Flatten"
    end: str = "scores"
    weights_first: bool = False
    shared: bool = False
    named: bool = True
    domain: str = "qonnx.custom_op.general"
    opset: int = 13
    batch: int | str = "N"


def mlp(
    rng: np.random.Generator,
    widths: Sequence[int],
    form: Form = Form(),
    frame: tuple[int, ...] = (),
) -> onnx.ModelProto:
    """Draw a perceptron of these widths.

    Parameters
    ----------
    rng : Generator
    widths : sequence of int
        Inputs, hidden widths, classes.
    form : Form
    frame : tuple of int
        Shape of an input frame, ``(widths[0],)`` by default.
    """
    graph = _Mlp(rng, form, frame or (widths[0],))
    weights = [graph.weights(mw, mh) for mw, mh in pairwise(widths)] if form.weights_first else []
    x = graph.flatten("x")
    x = graph.preprocess(x, widths[0])
    for index, (mw, mh) in enumerate(pairwise(widths)):
        x = graph.bipolar_shared(x)
        x = graph.layer(x, weights[index] if weights else graph.weights(mw, mh), mh)
        x = graph.norm(x, mh, mw)
    return graph.end(x)


class _Mlp(Graphs):
    def __init__(self, rng: np.random.Generator, form: Form, frame: tuple[int, ...]) -> None:
        super().__init__((form.batch, *frame), domain=form.domain, opset=form.opset)
        self.rng, self.form, self.frame = rng, form, frame
        self._shared: dict[tuple, str] = {}

    def constant(self, values: ArrayLike, kind: type = np.float32) -> str:
        array = np.asarray(values, kind)
        key = (array.tobytes(), array.shape, array.dtype)
        if not self.form.shared:
            return super().constant(array, kind)
        if key not in self._shared:
            self._shared[key] = super().constant(array, kind)
        return self._shared[key]

    def node(self, kind: str, *inputs: str, **attributes) -> str:
        if not self.form.named:
            attributes["name"] = ""
        return super().node(kind, *inputs, **attributes)

    def flatten(self, x: str) -> str:
        if len(self.frame) == 1:
            return x
        ones = [axis for axis, size in enumerate(self.frame, start=1) if size == 1]
        match self.form.flatten:
            case "Squeeze" if len(ones) == len(self.frame) - 1:
                if self.form.opset < 13:
                    return self.node("Squeeze", x, axes=ones)
                return self.node("Squeeze", x, self.constant(ones, np.int64))
            case "Reshape":
                return self.node("Reshape", x, self.constant([0, -1], np.int64))
            case "Shape" if self.form.opset < 13:
                # As torch's older exporter writes x.view(x.shape[0], -1).
                batch = self.node(
                    "Gather", self.node("Shape", x), self.constant(0, np.int64), axis=0
                )
                sizes = [self.node("Unsqueeze", t, axes=[0]) for t in (batch, self.scalar(-1))]
                return self.node("Reshape", x, self.node("Concat", *sizes, axis=0))
        return self.node("Flatten", x, axis=1)

    def scalar(self, value: int) -> str:
        tensor = numpy_helper.from_array(np.array(value, np.int64))
        return self.node("Constant", value=tensor)

    def preprocess(self, x: str, width: int) -> str:
        match self.form.pre:
            case "2x - 1":
                x = self.node("Mul", self.constant(2), x)
                return self.node("Sub", x, self.constant([1]))
            case "x - c":
                return self.node("Sub", x, self.constant(self.rng.uniform(0, 1, (1, width))))
            case "c - x":
                return self.node("Sub", self.constant(self.rng.uniform(0, 1, width)), x)
            case "x / c":
                x = self.node("Div", x, self.constant(self.rng.choice([-0.5, 2, 3], width)))
                return self.node("Add", self.constant([[0.1]]), x)
            case "batch norm":
                return self.batch_norm(x, width, 0.5)
        return x

    def bipolar_shared(self, x: str) -> str:
        # Sums of 0.1 that cancel do not cancel in float32; without a norm they meet a sign as is.
        inexact = self.form.norm == "none"
        return self.bipolar(x, 0.125 if inexact and self.form.scale == 0.1 else self.form.scale)

    def weights(self, mw: int, mh: int) -> str:
        """Add the weights of one layer, of shape (out, in) where the layer transposes them."""
        transposed = self.form.layer in ("Gemm transB", "Transpose")
        shape = (mh, mw) if transposed else (mw, mh)
        signs = self.rng.choice([-1.0, 1.0], shape)
        per_channel = self.rng.integers(8, 32, (mh, 1) if transposed else (mh,)) / 16
        match self.form.weights:
            case "latent":
                latent = np.where(self.rng.random(shape) < 0.1, 0, signs * 0.3)
                w = self.bipolar_shared(self.constant(latent))
            case "int8":
                w = self.constant(self.rng.integers(-2, 3, shape), np.int8)
                w = self.bipolar(self.node("Cast", w, to=TensorProto.FLOAT))
            case "plain":
                w = self.constant(signs)
            case "scaled":
                w = self.constant(signs * 0.25)
            case _:
                w = self.bipolar(self.constant(signs), per_channel)
        return self.node("Transpose", w, perm=[1, 0]) if self.form.layer == "Transpose" else w

    def layer(self, x: str, weights: str, mh: int) -> str:
        bias = [self.constant(self.rng.normal(0, 1, mh))] if self.form.bias else []
        if self.form.layer.startswith("Gemm"):
            transposed = int(self.form.layer == "Gemm transB")
            # C is required before operator set 11.
            bias = bias or ([self.constant(np.zeros(mh))] if self.form.opset < 11 else [])
            return self.node("Gemm", x, weights, *bias, transB=transposed)
        x = self.node("MatMul", x, weights)
        return self.node("Add", x, *bias) if bias else x

    def norm(self, x: str, mh: int, mw: int) -> str:
        spread = mw**0.5
        match self.form.norm:
            case "BatchNormalization":
                return self.batch_norm(x, mh, spread)
            case "none":
                return x
        shape = (mh,) if self.form.norm == "vector" else ()
        x = self.node("Sub", x, self.constant(self.rng.normal(0, spread, shape)))
        x = self.node("Div", x, self.constant(self.rng.uniform(1, spread + 1, shape)))
        x = self.node("Mul", x, self.constant(self.rng.normal(0, 1, shape)))
        return self.node("Add", self.constant(self.rng.normal(0, 0.5, shape)), x)

    def batch_norm(self, x: str, mh: int, spread: float) -> str:
        parameters: list[NDArray] = [
            self.rng.normal(0, 1, mh),
            self.rng.normal(0, 0.5, mh),
            self.rng.normal(0, spread, mh),
            self.rng.uniform(0.5, 2, mh) * spread**2,
        ]
        constants = [self.constant(values) for values in parameters]
        return self.node("BatchNormalization", x, *constants, epsilon=1e-5)

    def end(self, x: str) -> onnx.ModelProto:
        self.scores = x
        match self.form.end:
            case "Softmax":
                self.node("Softmax", x, axis=1)
            case "ArgMax":
                self.node("ArgMax", x, axis=1)
            case "TopK":
                if self.form.opset < 10:
                    self.node("TopK", x, outputs=2, axis=-1, k=1)
                else:
                    self.node("TopK", x, self.constant([1], np.int64), outputs=2, axis=-1)
                return self.model(*self.nodes[-1].output)
        return self.model()


CNN_FORMS: dict[str, Sequence[object]] = {
    "frame": ["NCHW", "NHWC"],
    "pre": ["none", "scalar", "(C, 1, 1)", "(1, C, 1, 1)", "batch norm"],
    "pixels": ["sign", "signed", "narrow", "unsigned", "bytes", "channel scale"],
    "weights": ["latent", "int8", "plain", "channel scale"],
    "padding": [
        *("none", "pads", "uneven", "SAME_UPPER", "SAME_LOWER", "VALID"),
        *("Pad", "Pad and pads", "Pad in NHWC"),
    ],
    "stride": [(1, 1), (2, 2), (1, 3)],
    "dilation": [(1, 1), (2, 1)],
    "groups": [False, True],
    "bias": [False, True],
    "norm": ["BatchNormalization", "(C, 1, 1)", "(1, C, 1, 1)", "scalar"],
    "pool": ["none", "max", "overlapping", "padded", "dilated", "SAME_UPPER", "average"],
    "pool_first": [False, True],
    "flatten": [
        *("Flatten", "Reshape", "Shape", "NHWC", "GlobalAveragePool", "GlobalMaxPool"),
        *("ReduceMean", "ReduceMean without axes", "ReduceMean in NHWC"),
    ],
    "end": ["Gemm", "Conv", "Softmax", "ArgMax"],
    "opset": [11, 13, 18],
    "batch": ["N", 2],
}
"""What each field of `CnnForm` can be."""


@dataclass(frozen=True)
class CnnForm:
    """How a convolutional network is written as a graph, see `CNN_FORMS`."""

    frame: str = "NCHW"
    pre: str = "none"
    pixels: str = "sign"
    weights: str = "latent"
    padding: str = "none"
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: bool = False
    bias: bool = False
    norm: str = "BatchNormalization"
    pool: str = "none"
    pool_first: bool = True
    flatten: str = "Flatten"
    end: str = "Gemm"
    opset: int = 13
    batch: int | str = "N"


def cnn(
    rng: np.random.Generator, shape: tuple[int, int, int], form: CnnForm = CnnForm()
) -> onnx.ModelProto:
    """Draw a network of one or two convolutions and a dense layer.

    Parameters
    ----------
    rng : Generator
    shape : tuple of int
        Rows, columns and channels of a frame, which is in multiples of 1/8 or of bytes.
    form : CnnForm
    """
    return _Cnn(rng, form, shape).network()


class _Cnn(Graphs):
    """Keeps the shape (C, H, W) of the tensor at hand."""

    def __init__(
        self, rng: np.random.Generator, form: CnnForm, shape: tuple[int, int, int]
    ) -> None:
        height, width, channels = shape
        self.first = form.frame == "NCHW"
        frame = (channels, height, width) if self.first else shape
        super().__init__((form.batch, *frame), opset=form.opset)
        self.rng, self.form = rng, form
        self.channels, self.size = channels, (height, width)

    def network(self) -> onnx.ModelProto:
        rng, form = self.rng, self.form
        x = self.preprocess("x")
        if not self.first and form.padding != "Pad in NHWC":
            x = self.node("Transpose", x, perm=[0, 3, 1, 2])
        x = self.conv(x, 4 * (1 + form.groups), (3, 2), 2 if form.groups else 1)
        if form.pool_first:
            x = self.pool(x)
        x = self.bipolar(self.norm(x))
        if not form.pool_first:
            x = self.pool(x)
        if form.end == "Conv":
            weights = self.constant(rng.choice([-1, 1], (3, self.channels, 1, 1)))
            x, self.channels = self.node("Conv", x, weights), 3
            return self.scores(self.node("GlobalAveragePool", x))
        x, width = self.flatten(x)
        x = self.node("MatMul", x, self.constant(rng.choice([-1, 1], (width, 5))))
        return self.scores(x)

    def scores(self, x: str) -> onnx.ModelProto:
        if self.form.end in ("Softmax", "ArgMax"):
            self.node(self.form.end, x, axis=1)
        return self.model()

    def per_channel(self, values: NDArray, shape: str) -> str:
        """Add one parameter per channel, as the frame's layout or an image's needs it."""
        if shape == "scalar":
            return self.constant(values[0])
        if not self.first:
            return self.constant(values)
        ones = values.reshape(-1, 1, 1)
        return self.constant(ones[None] if shape == "(1, C, 1, 1)" else ones)

    def preprocess(self, x: str) -> str:
        rng, form = self.rng, self.form
        # Multiples of powers of two, so that ties are ties in any arithmetic.
        scale = rng.choice([-2.0, 0.5, 1.0, 2.0], self.channels)
        offset = rng.integers(-4, 5, self.channels) / 16
        if form.pre == "batch norm" and self.first:
            parameters = [scale, offset, offset[::-1], np.full(self.channels, 4.0)]
            constants = [self.constant(values) for values in parameters]
            x = self.node("BatchNormalization", x, *constants, epsilon=0.0)
        elif form.pre != "none":
            x = self.node("Mul", x, self.per_channel(scale, form.pre))
            x = self.node("Add", self.per_channel(offset, form.pre), x)
        match form.pixels:
            case "signed":
                return self.quant(x, 1 / 4, 0, 3)
            case "narrow":
                return self.quant(x, 1 / 16, 0, 4, narrow=1)
            case "unsigned":
                return self.quant(x, 1 / 2, 1, 2, signed=0)
            case "bytes":
                return x
            case "channel scale":
                scale = self.per_channel(rng.choice([0.5, 2.0], self.channels), "(C, 1, 1)")
                return self.node("BipolarQuant", x, scale)
        return self.bipolar(x)

    def conv(self, x: str, outputs: int, kernel: tuple[int, int], groups: int) -> str:
        rng, form = self.rng, self.form
        groups = groups if self.channels % groups == 0 else 1
        shape = (outputs, self.channels // groups, *kernel)
        options: dict[str, object] = {"strides": list(form.stride)}
        dilation = form.dilation if not form.padding.startswith("SAME") else (1, 1)
        if dilation != (1, 1):
            options["dilations"] = list(dilation)
        if groups > 1:
            options["group"] = groups
        pads = [0, 0, 0, 0]
        match form.padding:
            case "pads":
                pads = [1, 1, 1, 1]
            case "uneven":
                pads = [0, 1, 2, 0]
            case "Pad" | "Pad and pads":
                value = 0 if form.padding == "Pad and pads" else -1
                x = self.pad(x, [0, 0, 1, 0, 0, 0, 0, 2], value)
                pads = [0, 1, 1, 0] if form.padding == "Pad and pads" else pads
            case "Pad in NHWC":
                order = [0, 0, 1, 0, 0, 0, 0, 2] if self.first else [0, 1, 0, 0, 0, 0, 2, 0]
                x = self.pad(x, order, 1)
                if not self.first:
                    x = self.node("Transpose", x, perm=[0, 3, 1, 2])
            case "SAME_UPPER" | "SAME_LOWER" | "VALID":
                options["auto_pad"] = form.padding
        if any(pads):
            options["pads"] = pads
        signs = rng.choice([-1.0, 1.0], shape)
        match form.weights:
            case "latent":
                weights = self.bipolar(self.constant(np.where(rng.random(shape) < 0.1, 0, signs)))
            case "int8":
                stored = self.constant(rng.integers(-2, 3, shape), np.int8)
                weights = self.bipolar(self.node("Cast", stored, to=TensorProto.FLOAT))
            case "plain":
                weights = self.constant(signs / 4)
            case _:
                scale = rng.integers(8, 32, (outputs, 1, 1, 1)) / 16
                weights = self.bipolar(self.constant(signs), scale)
        bias = [self.constant(rng.normal(0, 1, outputs))] if form.bias else []
        self.channels, self.first = outputs, True
        return self.node("Conv", x, weights, *bias, **options)

    def pad(self, x: str, pads: list[int], value: float) -> str:
        return self.node("Pad", x, self.constant(pads, np.int64), self.constant(value))

    def pool(self, x: str) -> str:
        match self.form.pool:
            case "none":
                return x
            case "max":
                return self.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            case "overlapping":
                return self.node("MaxPool", x, kernel_shape=[3, 2], strides=[2, 1])
            case "padded":
                return self.node("MaxPool", x, kernel_shape=[3, 2], pads=[1, 0, 1, 1])
            case "dilated":
                return self.node("MaxPool", x, kernel_shape=[2, 1], dilations=[2, 1])
            case "SAME_UPPER":
                options = {"kernel_shape": [2, 3], "strides": [2, 2]}
                return self.node("MaxPool", x, auto_pad="SAME_UPPER", **options)
        return self.node("AveragePool", x, kernel_shape=[2, 2], strides=[1, 2])

    def norm(self, x: str) -> str:
        rng, size = self.rng, self.channels
        gamma, beta, mean = rng.normal(0, 1, size), rng.normal(0, 0.5, size), rng.normal(0, 2, size)
        if self.form.norm == "BatchNormalization":
            parameters = [gamma, beta, mean, rng.uniform(0.5, 4, size)]
            constants = [self.constant(values) for values in parameters]
            return self.node("BatchNormalization", x, *constants, epsilon=1e-5)
        x = self.node("Sub", x, self.per_channel(mean, self.form.norm))
        x = self.node("Mul", x, self.per_channel(gamma, self.form.norm))
        return self.node("Add", self.per_channel(beta, self.form.norm), x)

    def flatten(self, x: str) -> tuple[str, int]:
        """Return vectors and their width."""
        model = self.model(x)
        frame = np.zeros((2, *self.frame_shape()), np.float32)
        channels, height, width = evaluate(model, frame).shape[1:]
        form = self.form.flatten
        match form:
            case "Reshape":
                x = self.node("Reshape", x, self.constant([0, -1], np.int64))
            case "Shape" if self.opset >= 15:
                batch = self.node("Shape", x, start=0, end=1)
                shape = self.node("Concat", batch, self.constant([-1], np.int64), axis=0)
                x = self.node("Reshape", x, shape)
            case "GlobalAveragePool" | "GlobalMaxPool":
                x, height, width = self.node("Flatten", self.node(form, x)), 1, 1
            case "ReduceMean" | "ReduceMean without axes" | "ReduceMean in NHWC":
                axes = [2, 3]
                if form == "ReduceMean in NHWC":
                    x, axes = self.node("Transpose", x, perm=[0, 2, 3, 1]), [1, -2]
                keep = int(form != "ReduceMean without axes")
                if self.opset < 18:
                    x = self.node("ReduceMean", x, axes=axes, keepdims=keep)
                else:
                    x = self.node("ReduceMean", x, self.constant(axes, np.int64), keepdims=keep)
                x, height, width = (self.node("Flatten", x) if keep else x), 1, 1
            case "NHWC":
                x = self.node("Flatten", self.node("Transpose", x, perm=[0, 2, 3, 1]))
            case _:
                x = self.node("Flatten", x, axis=1)
        return x, channels * height * width

    def frame_shape(self) -> list[int]:
        return [dim.dim_value for dim in self.inputs[0].type.tensor_type.shape.dim[1:]]


def evaluate(model: onnx.ModelProto, x: NDArray, tensor: str | None = None) -> NDArray:
    """Return one tensor, by default the first output, as onnxruntime computes it.

    `BipolarQuant` is written as ``scale * (-1 where x < 0, else 1)`` and `Quant` as its definition.

    Parameters
    ----------
    model : ModelProto
    x : ndarray
        Frames.
    tensor : str, optional
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    graph.input[0].type.tensor_type.shape.dim[0].Clear()
    name = tensor or graph.output[0].name
    del graph.node[:], graph.output[:]
    graph.output.append(onnx.ValueInfoProto(name=name))
    for value, constant in ((0, "zero"), (1, "high"), (-1, "low")):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), constant))
    for node in model.graph.node:
        if node.op_type == "Quant":
            graph.node.extend(_plain_quant(graph, node, model.graph.initializer))
            continue
        if node.op_type != "BipolarQuant":
            graph.node.append(node)
            continue
        (value, scale), (result,) = node.input, node.output
        negative, sign = f"{result}_negative", f"{result}_sign"
        graph.node.append(helper.make_node("Less", [value, "zero"], [negative]))
        graph.node.append(helper.make_node("Where", [negative, "low", "high"], [sign]))
        graph.node.append(helper.make_node("Mul", [sign, scale], [result]))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(plain.SerializeToString(), options)
    return session.run([name], {graph.input[0].name: x})[0]


def _plain_quant(
    graph: onnx.GraphProto, node: onnx.NodeProto, constants: Sequence[onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """Return a `Quant` in standard operators."""
    (x, scale, zero_point, bits), (y,) = node.input, node.output
    options = {attribute.name: attribute.i for attribute in node.attribute}
    (stored,) = (numpy_helper.to_array(c) for c in constants if c.name == bits)
    size, narrow = 1 << int(stored), options["narrow"]
    low, high = (
        (-size // 2 + narrow, size // 2 - 1) if options["signed"] else (0, size - 1 - narrow)
    )
    for value, name in ((low, f"{y}_low"), (high, f"{y}_high")):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    steps = [
        ("Div", x, scale),
        ("Add", zero_point),
        ("Max", f"{y}_low"),
        ("Min", f"{y}_high"),
        ("Round",),
        ("Sub", zero_point),
        ("Mul", scale),
    ]
    nodes, tensor = [], ""
    for index, (kind, *inputs) in enumerate(steps):
        given = [tensor, *inputs] if tensor else inputs
        tensor = y if index == len(steps) - 1 else f"{y}_{index}"
        nodes.append(helper.make_node(kind, given, [tensor]))
    return nodes


def execute(model: onnx.ModelProto, x: NDArray) -> NDArray:
    """Return the first output as QONNX's executor computes it, for as many frames as are given."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(x)
    wrapper = ModelWrapper(copy).transform(InferShapes())
    name = copy.graph.output[0].name
    return execute_onnx(wrapper, {copy.graph.input[0].name: x})[name]
