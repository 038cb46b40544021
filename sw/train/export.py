"""From trained parameters to a QONNX file; plain numpy and onnx, no torch.

The file reads ``image`` (N, H, W, C), raw 0..255, and writes ``logits`` (N, classes)::

    Transpose (if a convolution follows, else Flatten)
      -> Sub(threshold) -> BipolarQuant, or for 8-bit pixels Sub(128) -> Mul(1/128)
      -> Conv -> MaxPool -> BatchNormalization -> activation     for each hidden convolution
      -> Gemm(transB=1) -> BatchNormalization -> activation      for each hidden dense layer
      -> Gemm(transB=1) -> Mul(gain) -> Add(bias)                for the last

A layer's weights and the activations are one of

- signs: ``int8 initializer -> Cast -> BipolarQuant``, with a scale where they have a gain;
  ``BipolarQuant``;
- levels: ``int8 initializer -> Cast -> Mul -> Quant``; ``Quant``;
- sums of signs: ``Add`` of ``Mul(alpha_m)`` of a ``Conv`` or ``Gemm`` with signs each; ``Add`` of
  ``Mul(beta_n)`` of ``Sub(shift_n) -> BipolarQuant``.

A shortcut is an ``Add`` of two layers' sums, before the batch norm. XNOR-Net's K is a ``Mul`` of a
layer's sums and ``Abs -> ReduceMean -> AveragePool`` of the batch norm before. `BipolarQuant` is
QONNX's quantizer to -1 and +1, with ``sign(0) = +1``. The bytes depend on the parameters alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xnorflow.errors import UserError

__all__ = [
    "PIXEL_CENTER",
    "Activation",
    "BaseActivation",
    "Bases",
    "HiddenLayer",
    "LevelActivation",
    "Levels",
    "Norm",
    "OutputLayer",
    "SignActivation",
    "Signs",
    "TrainedNetwork",
    "Weights",
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


def _check_signs(signs: NDArray, axes: tuple[int, ...], shape: str) -> None:
    _require(
        signs.dtype == np.int8 and signs.ndim in axes and bool(np.all(np.abs(signs) == 1)),
        f"weights must be int8 of shape {shape}, each -1 or +1",
    )


@dataclass(frozen=True, eq=False)
class Signs:
    """Weights ``scale * signs``.

    Attributes
    ----------
    signs : ndarray of int8, shape (MH, MW), or (MH, C, K, K) of a convolution
        Each -1 or +1.
    scale : ndarray of float32, shape () or (MH,)
        Positive: one for the layer, or one for each output channel.
    """

    signs: NDArray[np.int8]
    scale: NDArray[np.float32] = field(default_factory=lambda: np.ones((), np.float32))

    def __post_init__(self) -> None:
        _check_signs(self.signs, (2, 4), "(MH, MW) or (MH, C, K, K)")
        _require(
            self.scale.dtype == np.float32 and self.scale.shape in ((), self.signs.shape[:1]),
            f"scale must be float32 of shape () or {self.signs.shape[:1]}",
        )
        _require(bool(np.all(self.scale > 0)), "a scale of weights must be positive")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        return self.signs.shape


@dataclass(frozen=True, eq=False)
class Levels:
    """Weights ``odd / (2^bits - 1)``.

    Attributes
    ----------
    odd : ndarray of int16, shape (MH, MW), or (MH, C, K, K) of a convolution
        Odd integers from ``1 - 2^bits`` to ``2^bits - 1``.
    bits : int
        2 to 8.
    """

    odd: NDArray[np.int16]
    bits: int

    def __post_init__(self) -> None:
        _require(2 <= self.bits <= 8, f"levels must have 2 to 8 bits, not {self.bits}")
        _require(
            self.odd.dtype == np.int16
            and self.odd.ndim in (2, 4)
            and bool(np.all(self.odd % 2 == 1))
            and int(np.abs(self.odd).max(initial=1)) < 2**self.bits,
            f"levels must be int16 of shape (MH, MW) or (MH, C, K, K), odd, of {self.bits} bits",
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        return self.odd.shape


@dataclass(frozen=True, eq=False)
class Bases:
    """Weights ``sum over m of alphas[m] * signs[m]``.

    Attributes
    ----------
    signs : ndarray of int8, shape (M, MH, MW), or (M, MH, C, K, K) of a convolution
        Each -1 or +1.
    alphas : ndarray of float32, shape (M, MH)
        For each base and output channel.
    """

    signs: NDArray[np.int8]
    alphas: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check_signs(self.signs, (3, 5), "(M, MH, MW) or (M, MH, C, K, K)")
        _require(
            self.alphas.dtype == np.float32 and self.alphas.shape == self.signs.shape[:2],
            f"alphas must be float32 of shape {self.signs.shape[:2]}",
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        return self.signs.shape[1:]


Weights = Signs | Levels | Bases


@dataclass(frozen=True)
class SignActivation:
    """``sign(x)``."""


@dataclass(frozen=True)
class LevelActivation:
    """``round((2^bits - 1) * clip(x, 0, 1)) / (2^bits - 1)``, halves to even.

    Attributes
    ----------
    bits : int
    """

    bits: int


@dataclass(frozen=True, eq=False)
class BaseActivation:
    """``sum over n of betas[n] * sign(x - shifts[n])``.

    Attributes
    ----------
    betas, shifts : ndarray of float32, shape (N,)
        Betas are positive, so that the sum rises with ``x``.
    """

    betas: NDArray[np.float32]
    shifts: NDArray[np.float32]

    def __post_init__(self) -> None:
        _require(
            self.betas.shape == self.shifts.shape and bool(np.all(self.betas > 0)),
            "betas must be positive, as many as shifts",
        )


Activation = SignActivation | LevelActivation | BaseActivation


@dataclass(frozen=True, eq=False)
class Norm:
    """Batch norm at inference, ``gamma * (x - mean) / sqrt(var + eps) + beta``.

    Attributes
    ----------
    gamma, beta, mean, var : ndarray of float32, shape (MH,)
    eps : float
    """

    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]
    mean: NDArray[np.float32]
    var: NDArray[np.float32]
    eps: float


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """A hidden layer: ``activation(norm(max_pool(K * (weights @ x)) + shortcut))``.

    It is dense or a convolution.

    Attributes
    ----------
    weights : Weights
    norm : Norm
    activation : Activation
    padding : int
        Zeros around the image of a convolution.
    pool : int
        Size of the max-pooling windows; 1 for none.
    shortcut : bool
        Whether to add what enters the batch norm of the layer before.
    gains : bool
        Whether to multiply by XNOR-Net's K, the mean magnitude of what the batch norm of the layer
        before gives under each window; 1 without it.
    """

    weights: Weights
    norm: Norm
    activation: Activation = field(default_factory=SignActivation)
    padding: int = 0
    pool: int = 1
    shortcut: bool = False
    gains: bool = False

    def __post_init__(self) -> None:
        for key in ("gamma", "beta", "mean", "var"):
            value = getattr(self.norm, key)
            _require(
                value.dtype == np.float32 and value.shape == self.weights.shape[:1],
                f"{key} must be float32 of shape {self.weights.shape[:1]}",
            )


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """The last layer: ``logits = gain * (weights @ x) + bias``.

    Attributes
    ----------
    weights : Weights
        Of shape (classes, MW).
    gain : float
        Positive, one for all classes.
    bias : ndarray of float32, shape (classes,)
        Added after the gain.
    """

    weights: Weights
    gain: float
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
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
        for index, layer in enumerate(self.hidden):
            before, shape = shape, _shape_after(layer, shape)
            _require(not layer.gains or index > 0, "the first layer has no gains of pixels")
            _require(
                not layer.shortcut or (index > 0 and before == shape),
                f"no shortcut leads from {before} to {shape}",
            )
        width = prod(shape)
        _require(self.output.weights.shape[1:] == (width,), f"the last layer must take {width}")


def _shape_after(layer: HiddenLayer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a frame behind a layer, (H, W, C) or (F,)."""
    if len(layer.weights.shape) == 2:
        width = prod(shape)
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
    images = any(len(layer.weights.shape) == 4 for layer in model.hidden)
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
    sums = latent = ""
    for index, layer in enumerate(model.hidden):
        before = sums
        if len(layer.weights.shape) == 4:
            sums = graph.conv(index, x, layer, one, latent)
        else:
            if images:
                x = graph.node("Flatten", "flatten", [x], axis=1)
                images = False
            sums = graph.layer(f"fc{index}", x, layer.weights, one)
            if layer.gains:
                sums = graph.node("Mul", f"k{index}", [sums, graph.magnitudes(index, latent)])
        if layer.shortcut:
            sums = graph.node("Add", f"shortcut{index}", [sums, before])
        norm = f"bn{index}"
        parameters = [
            graph.constant(f"{norm}_{key}", getattr(layer.norm, key))
            for key in ("gamma", "beta", "mean", "var")
        ]
        latent = graph.node("BatchNormalization", norm, [sums, *parameters], epsilon=layer.norm.eps)
        following = model.hidden[index + 1 : index + 2]
        if images and any(behind.gains and len(behind.weights.shape) == 2 for behind in following):
            # The mean is over all that the dense layer takes.
            latent = graph.node("Flatten", "flatten", [latent], axis=1)
            images = False
        x = graph.activation(str(index), latent, layer.activation, one)
    if images:
        x = graph.node("Flatten", "flatten", [x], axis=1)
    x = graph.layer(f"fc{len(model.hidden)}", x, model.output.weights, one)
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
        **attributes: int | float | str | list[int],
    ) -> str:
        result = output or f"{name}_out"
        node = helper.make_node(kind, inputs, [result], name, domain=domain)
        node.attribute.extend(helper.make_attribute(*item) for item in sorted(attributes.items()))
        self.nodes.append(node)
        return result

    def sign(self, name: str, x: str, scale: str) -> str:
        return self.node("BipolarQuant", name, [x, scale], domain=QONNX_DOMAIN)

    def quant(self, name: str, x: str, scale: float, zero_point: float, bits: int) -> str:
        numbers = {"scale": scale, "zero_point": zero_point, "bits": float(bits)}
        inputs = [self.constant(f"{name}_{k}", np.float32(v)) for k, v in numbers.items()]
        return self.node(
            "Quant",
            name,
            [x, *inputs],
            domain=QONNX_DOMAIN,
            signed=0,
            narrow=0,
            rounding_mode="ROUND",
        )

    def activation(self, index: str, x: str, activation: Activation, one: str) -> str:
        if isinstance(activation, SignActivation):
            return self.sign(f"sign{index}", x, one)
        if isinstance(activation, LevelActivation):
            steps = 2**activation.bits - 1
            return self.quant(f"quant{index}", x, 1 / steps, 0.0, activation.bits)
        parts = []
        for n, (beta, shift) in enumerate(zip(activation.betas, activation.shifts, strict=True)):
            name = f"base{index}_{n}"
            y = self.node("Sub", f"{name}_shift", [x, self.constant(f"{name}_v", shift)])
            y = self.sign(f"{name}_sign", y, one)
            parts.append(self.node("Mul", f"{name}_mul", [y, self.constant(f"{name}_beta", beta)]))
        return self.total(f"act{index}", parts)

    def total(self, name: str, parts: list[str]) -> str:
        x, *others = parts
        for n, other in enumerate(others):
            x = self.node("Add", f"{name}_add{n}", [x, other])
        return x

    def signs(self, name: str, weights: Signs, one: str) -> str:
        # One byte a weight instead of four; the cast gives back the float that the layer wants.
        stored = self.constant(f"{name}_weights", weights.signs)
        cast = self.node("Cast", f"{name}_cast", [stored], to=TensorProto.FLOAT)
        scale = one
        if weights.scale.ndim or weights.scale != 1:
            shape = (*weights.scale.shape, *[1] * (weights.signs.ndim - 1))
            per_channel = weights.scale.reshape(shape) if weights.scale.ndim else weights.scale
            scale = self.constant(f"{name}_scale", per_channel)
        return self.sign(f"{name}_weight_sign", cast, scale)

    def levels(self, name: str, weights: Levels) -> str:
        steps = 2**weights.bits - 1
        kind = np.int8 if weights.bits < 8 else np.int16
        stored = self.constant(f"{name}_weights", weights.odd.astype(kind))
        cast = self.node("Cast", f"{name}_cast", [stored], to=TensorProto.FLOAT)
        latent = self.node(
            "Mul", f"{name}_unit", [cast, self.constant(f"{name}_step", np.float32(1 / steps))]
        )
        return self.quant(f"{name}_weight_quant", latent, 2 / steps, steps / 2, weights.bits)

    def layer(
        self,
        name: str,
        x: str,
        weights: Weights,
        one: str,
        conv: dict[str, list[int]] | None = None,
    ) -> str:
        """Add a dense layer, or a convolution with the attributes `conv`."""
        if isinstance(weights, Bases):
            parts = []
            for m, (signs, alphas) in enumerate(zip(weights.signs, weights.alphas, strict=True)):
                base = f"{name}_{m}"
                y = self.layer(base, x, Signs(signs), one, conv)
                shape = (1, -1, *[1] * (signs.ndim - 2))
                alpha = self.constant(f"{base}_alpha", alphas.reshape(shape))
                parts.append(self.node("Mul", f"{base}_mul", [y, alpha]))
            return self.total(name, parts)
        if isinstance(weights, Signs):
            stored = self.signs(name, weights, one)
        else:
            stored = self.levels(name, weights)
        if conv is None:
            return self.node("Gemm", name, [x, stored], transB=1)
        return self.node("Conv", name, [x, stored], None, "", **conv)

    def magnitudes(self, index: int, latent: str) -> str:
        """Add the mean magnitude over the channels of what a layer's signs are of."""
        magnitudes = self.node("Abs", f"abs{index}", [latent])
        return self.node("ReduceMean", f"mean{index}", [magnitudes], axes=[1])

    def conv(self, index: int, x: str, layer: HiddenLayer, one: str, latent: str) -> str:
        name = f"conv{index}"
        kernel = list(layer.weights.shape[2:])
        attributes = {"kernel_shape": kernel, "pads": [layer.padding] * 4}
        y = self.layer(name, x, layer.weights, one, attributes)
        if layer.gains:
            k = self.magnitudes(index, latent)
            k = self.node(
                "AveragePool", f"box{index}", [k], None, "", count_include_pad=1, **attributes
            )
            y = self.node("Mul", f"k{index}", [y, k])
        if layer.pool == 1:
            return y
        size = [layer.pool] * 2
        return self.node("MaxPool", f"{name}_pool", [y], kernel_shape=size, strides=size)
