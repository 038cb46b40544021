"""From trained parameters to a QONNX file; plain numpy and onnx, no torch.

The file reads ``image`` (N, H, W, C), raw 0..255, and writes ``logits`` (N, classes)::

    Transpose (if a convolution follows, else Flatten)
      -> Sub(threshold) -> BipolarQuant, or for 8-bit pixels Sub(128) -> Mul(1/128)
      -> Conv -> MaxPool -> BatchNormalization -> BipolarQuant   for each hidden convolution
      -> Gemm(transB=1) -> BatchNormalization -> BipolarQuant    for each hidden dense layer
      -> Gemm(transB=1) -> Mul(gain) -> Add(bias)                for the last

with each layer's weights from ``int8 initializer -> Cast -> BipolarQuant``.

`BipolarQuant` is QONNX's quantizer to -1 and +1, with ``sign(0) = +1``. The bytes depend on the
parameters alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xnorflow.errors import UserError

__all__ = [
    "PIXEL_CENTER",
    "HiddenLayer",
    "OutputLayer",
    "TrainedNetwork",
    "save_qonnx",
    "to_qonnx",
]

#: Pixels of 8 bits enter as ``(pixel - 128) / 128``, which float32 holds exactly.
PIXEL_CENTER = 128.0

QONNX_DOMAIN = "qonnx.custom_op.general"
_OPSET = 13
_IR_VERSION = 8


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_weights(weights: NDArray) -> None:
    _require(
        weights.dtype == np.int8 and weights.ndim in (2, 4) and bool(np.all(np.abs(weights) == 1)),
        "weights must be int8 of shape (MH, MW) or (MH, C, K, K), each -1 or +1",
    )


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """A binary layer: ``sign(batch_norm(max_pool(weights @ x)))``, or a convolution alike.

    Attributes
    ----------
    weights : ndarray of int8, shape (MH, MW), or (MH, C, K, K) of a convolution
        Each -1 or +1.
    gamma, beta, mean, var : ndarray of float32, shape (MH,)
        Batch norm at inference.
    eps : float
        Its epsilon.
    padding : int
        Zeros around the image of a convolution.
    pool : int
        Size of the max-pooling windows; 1 for none.
    """

    weights: NDArray[np.int8]
    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]
    mean: NDArray[np.float32]
    var: NDArray[np.float32]
    eps: float
    padding: int = 0
    pool: int = 1

    def __post_init__(self) -> None:
        _check_weights(self.weights)
        for key in ("gamma", "beta", "mean", "var"):
            value = getattr(self, key)
            _require(
                value.dtype == np.float32 and value.shape == self.weights.shape[:1],
                f"{key} must be float32 of shape {self.weights.shape[:1]}",
            )


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """The last layer: ``logits = gain * (weights @ x) + bias``.

    Attributes
    ----------
    weights : ndarray of int8, shape (classes, MW)
        Each -1 or +1.
    gain : float
        Positive, one for all classes.
    bias : ndarray of float32, shape (classes,)
        Added after the gain.
    """

    weights: NDArray[np.int8]
    gain: float
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check_weights(self.weights)
        _require(self.gain > 0, "gain must be positive")
        _require(
            self.bias.dtype == np.float32 and self.bias.shape == self.weights.shape[:1],
            f"bias must be float32 of shape {self.weights.shape[:1]}",
        )


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained binarized network in plain arrays.

    Attributes
    ----------
    name : str
        Name of the graph.
    image_shape : tuple of int
        Shape of one raw frame, (H, W, C).
    threshold : float or None
        A raw pixel enters as +1 where it is at least this, else as -1; with None it enters as
        ``(pixel - PIXEL_CENTER) / PIXEL_CENTER``.
    hidden : tuple of HiddenLayer
        In data-flow order.
    output : OutputLayer
        The last layer.
    """

    name: str
    image_shape: tuple[int, int, int]
    threshold: float | None
    hidden: tuple[HiddenLayer, ...]
    output: OutputLayer

    def __post_init__(self) -> None:
        shape: tuple[int, ...] = self.image_shape
        for layer in self.hidden:
            shape = _shape_after(layer, shape)
        width = int(np.prod(shape))
        _require(self.output.weights.shape[1:] == (width,), f"the last layer must take {width}")


def _shape_after(layer: HiddenLayer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a frame behind a layer, (H, W, C) or (F,)."""
    if layer.weights.ndim == 2:
        width = int(np.prod(shape))
        _require(layer.weights.shape[1] == width, f"a layer does not take {width} inputs")
        return layer.weights.shape[:1]
    kernel = layer.weights.shape[2]
    _require(
        len(shape) == 3 and layer.weights.shape[1:] == (shape[-1], kernel, kernel),
        f"a convolution does not take frames of shape {shape}",
    )
    rows, columns = ((size + 2 * layer.padding - kernel + 1) // layer.pool for size in shape[:2])
    _require(rows > 0 and columns > 0, f"a convolution is larger than frames of shape {shape}")
    return rows, columns, layer.weights.shape[0]


def to_qonnx(model: TrainedNetwork, metadata: dict[str, str]) -> onnx.ModelProto:
    """Build the QONNX model.

    Parameters
    ----------
    model : TrainedNetwork
        The parameters.
    metadata : dict of str to str
        Stored as the model's metadata properties, sorted by key.

    Returns
    -------
    onnx.ModelProto
        Opset 13 plus the QONNX domain.
    """
    graph = _Graph()
    images = any(layer.weights.ndim == 4 for layer in model.hidden)
    if images:
        x = graph.node("Transpose", "channels_first", ["image"], perm=[0, 3, 1, 2])
    else:
        x = graph.node("Flatten", "flatten", ["image"], axis=1)
    threshold = None
    if model.threshold is not None:
        threshold = graph.constant("threshold", np.float32(model.threshold))
    one = graph.constant("one", np.float32(1))
    if threshold is None:
        x = graph.node("Sub", "center", [x, graph.constant("middle", np.float32(PIXEL_CENTER))])
        x = graph.node("Mul", "unit", [x, graph.constant("step", np.float32(1 / PIXEL_CENTER))])
    else:
        x = graph.node("Sub", "center", [x, threshold])
        x = graph.sign("input_sign", x, one)
    for index, layer in enumerate(model.hidden):
        if layer.weights.ndim == 4:
            x = graph.conv(f"conv{index}", x, layer, one)
        else:
            if images:
                x = graph.node("Flatten", "flatten", [x], axis=1)
                images = False
            x = graph.dense(f"fc{index}", x, layer.weights, one)
        norm = f"bn{index}"
        parameters = [
            graph.constant(f"{norm}_{key}", getattr(layer, key))
            for key in ("gamma", "beta", "mean", "var")
        ]
        x = graph.node("BatchNormalization", norm, [x, *parameters], epsilon=layer.eps)
        x = graph.sign(f"sign{index}", x, one)
    if images:
        x = graph.node("Flatten", "flatten", [x], axis=1)
    x = graph.dense(f"fc{len(model.hidden)}", x, model.output.weights, one)
    x = graph.node("Mul", "gain", [x, graph.constant("gain_value", np.float32(model.output.gain))])
    bias = graph.constant("bias_value", model.output.bias)
    graph.node("Add", "bias", [x, bias], output="logits")

    classes = model.output.weights.shape[0]
    shape: list[str | int | None] = ["N", *model.image_shape]
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
            graph.constants,
        ),
        producer_name="xnorflow",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(QONNX_DOMAIN, 1)],
    )
    helper.set_model_props(proto, dict(sorted(metadata.items())))
    return proto


def save_qonnx(model: TrainedNetwork, path: str | Path, metadata: dict[str, str]) -> None:
    """Write the QONNX file; same parameters and metadata, same bytes.

    Parameters
    ----------
    model : TrainedNetwork
        The parameters.
    path : str or Path
        The file; its folder must exist.
    metadata : dict of str to str
        See `to_qonnx`.

    Raises
    ------
    UserError
        The file cannot be written.
    """
    content = to_qonnx(model, metadata).SerializeToString(deterministic=True)
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise UserError(
            f"cannot write the model to {path}: {error.strerror}; name another file with --output"
        ) from error


class _Graph:
    """Nodes and constants in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(
        self,
        kind: str,
        name: str,
        inputs: list[str],
        output: str | None = None,
        domain: str = "",
        **attributes: int | float | list[int],
    ) -> str:
        result = output or f"{name}_out"
        node = helper.make_node(kind, inputs, [result], name, domain=domain)
        node.attribute.extend(helper.make_attribute(*item) for item in sorted(attributes.items()))
        self.nodes.append(node)
        return result

    def sign(self, name: str, x: str, scale: str) -> str:
        return self.node("BipolarQuant", name, [x, scale], domain=QONNX_DOMAIN)

    def weights(self, name: str, weights: NDArray[np.int8], scale: str) -> str:
        # One byte a weight instead of four; the cast gives back the float that the layer wants.
        stored = self.constant(f"{name}_weights", weights)
        cast = self.node("Cast", f"{name}_cast", [stored], to=TensorProto.FLOAT)
        return self.sign(f"{name}_weight_sign", cast, scale)

    def dense(self, name: str, x: str, weights: NDArray[np.int8], scale: str) -> str:
        return self.node("Gemm", name, [x, self.weights(name, weights, scale)], transB=1)

    def conv(self, name: str, x: str, layer: HiddenLayer, scale: str) -> str:
        kernel = list(layer.weights.shape[2:])
        y = self.node(
            "Conv",
            name,
            [x, self.weights(name, layer.weights, scale)],
            kernel_shape=kernel,
            pads=[layer.padding] * 4,
        )
        if layer.pool == 1:
            return y
        size = [layer.pool] * 2
        return self.node("MaxPool", f"{name}_pool", [y], kernel_shape=size, strides=size)
