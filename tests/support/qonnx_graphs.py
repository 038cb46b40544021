"""Small ONNX graphs for tests of the frontend: a builder, and perceptrons in the forms in use."""

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

__all__ = ["FORMS", "Form", "Graphs", "evaluate", "execute", "mlp"]


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


def evaluate(model: onnx.ModelProto, x: NDArray, tensor: str | None = None) -> NDArray:
    """Return one tensor, by default the first output, as onnxruntime computes it.

    `BipolarQuant` is written as ``scale * (-1 where x < 0, else 1)``.

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


def execute(model: onnx.ModelProto, x: NDArray) -> NDArray:
    """Return the first output as QONNX's executor computes it, for as many frames as are given."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(x)
    wrapper = ModelWrapper(copy).transform(InferShapes())
    name = copy.graph.output[0].name
    return execute_onnx(wrapper, {copy.graph.input[0].name: x})[name]
