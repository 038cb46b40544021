"""What each Keras and Larq layer is in operators of ONNX and QONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.graph import MAX_FRAME
from xnorflow.frontend.keras.builder import Builder, Pad, Tensor
from xnorflow.frontend.keras.files import Weights
from xnorflow.frontend.keras.model import Layer
from xnorflow.frontend.keras.quantizers import BINARY, Function, Kernel, binary_kernel, function
from xnorflow.frontend.keras.settings import Refused, simple_fraction

__all__ = ["LAYERS", "Translator"]

_SIGN = 'use Activation("ste_sign"), or input_quantizer="ste_sign" in the next layer'
_LEAST_VARIANCE = 1e-14  # Keras divides by 1e-7 at least
_INPUT = 'give the layer input_quantizer="ste_sign"'
_MOST_BITS = 8
_MAX_RANK = 8
_MAX_WEIGHTS = 1 << 28
_JOINS = {"Add": "Sum", "Concatenate": "Concat", "Subtract": "Sub"}
"""Layers at which branches meet, as operators."""
_NOT_BINARY_LAYERS = ("PReLU", "ThresholdedReLU")
_SQUASHING: dict[str, tuple[str, tuple[float, ...]]] = {
    "elu": ("Elu", ()),
    "gelu": ("Gelu", ()),
    "hard_sigmoid": ("HardSigmoid", ()),
    "hard_tanh": ("Clip", (-1, 1)),
    "leaky_relu": ("LeakyRelu", ()),
    "relu": ("Relu", ()),
    "relu6": ("Clip", (0, 6)),
    "selu": ("Selu", ()),
    "sigmoid": ("Sigmoid", ()),
    "softplus": ("Softplus", ()),
    "softsign": ("Softsign", ()),
    "tanh": ("Tanh", ()),
}
"""Keras' activations as operators with their constants."""
_NOT_ZERO_AT_ZERO = ("HardSigmoid", "Sigmoid", "Softplus")


class Translator:
    """Turns layers into nodes.

    Parameters
    ----------
    builder : Builder
    weights : Weights
    """

    def __init__(self, builder: Builder, weights: Weights) -> None:
        self.builder, self.weights = builder, weights
        self.size = 0

    def translate(self, layer: Layer, x: Tensor) -> Tensor:
        """Append a layer of one input, or what stands for it if it is refused.

        Parameters
        ----------
        layer : Layer
        x : Tensor
            Of known shape.

        Returns
        -------
        Tensor
            Its shape is None where nobody knows it.
        """
        try:
            if layer.kind in _TRANSPOSED:
                return transposed_conv_2d(self, layer, x)
            if layer.kind not in LAYERS:
                raise _unknown(layer, x)
            return LAYERS[layer.kind](self, layer, x)
        except _RefusedAt as refused:
            y = self.builder.refused(layer, refused.x, refused, refused.kind, refused.shape)
            return replace(y, sums=layer if refused.kind in ("Conv", "Gemm") else None)
        except Refused as refused:
            return self.builder.refused(layer, x, refused, "Reshape", None)

    def join(self, layer: Layer, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
        """Append a layer at which branches meet, which gives frames of a shape."""
        attributes: dict[str, object] = {}
        if layer.kind == "Concatenate":
            rank = len(shape) + 1
            if layer.settings.numbers("axis", -1) not in ([-1], [rank - 1]):
                raise Refused("joins its inputs along an axis that is not the last", "give axis=-1")
            attributes = {"axis": -1}
        elif layer.kind not in _JOINS:
            raise Refused(
                f"takes {len(inputs)} inputs", f"let branches meet in {' or '.join(_JOINS)}"
            )
        builder = self.builder
        inputs = [builder.last(layer, builder.padded(x)) for x in inputs]
        y = builder.node(layer, _JOINS[layer.kind], inputs, shape=shape, attributes=attributes)
        sums = next((x.sums for x in inputs if x.sums is not None), None)
        return replace(y, sums=sums, frame=all(x.frame for x in inputs))

    # Weights and quantizers

    def variables(self, layer: Layer, roles: Sequence[str]) -> list[NDArray]:
        """Return a layer's arrays, one for each role."""
        found = self.weights.of(layer.place, layer.names)
        if len(found) != len(roles):
            names = ", ".join(roles)
            raise Refused(
                f"has {len(found)} arrays of weights in the file where {len(roles)} belong "
                f"({names})"
            )
        for variable, role in zip(found, roles, strict=True):
            if variable.name and not variable.name.startswith(role):
                raise Refused(f"has the weights {variable.name!r} in the place of its {role}")
        arrays = [variable.values for variable in found]
        return [a.astype(np.float32) if a.dtype == np.float16 else a for a in arrays]

    def apply(self, layer: Layer, x: Tensor, what: Function | None, part: str) -> Tensor:
        """Append a quantizer of data or an activation."""
        if what is None:
            return x
        builder = self.builder
        match what.name:
            case name if name in BINARY:
                return _with_pad(builder.sign(layer, x, part), 1.0)
            case "SteHeaviside":
                return self.heaviside(layer, x, part)
            case "DoReFa":
                return self.dorefa(layer, x, what, part)
            case "softmax" | "log_softmax":
                x = builder.last(layer, builder.padded(x))
                kind = "Softmax" if what.name == "softmax" else "LogSoftmax"
                return builder.elementwise(layer, kind, x, part=part, attributes={"axis": -1})
            case name if name in _SQUASHING:
                return self.squash(layer, x, name, part)
        return self.refused(layer, x, *_not_binary(what, part))

    def squash(
        self, layer: Layer, x: Tensor, name: str, part: str, alpha: float | None = None
    ) -> Tensor:
        """An activation of which the walk tells whether a sign behind it sees it."""
        kind, ends = _SQUASHING[name]
        constants = [np.array(end, np.float32) for end in ends]
        attributes = {} if alpha is None else {"alpha": float(alpha)}
        if kind in _NOT_ZERO_AT_ZERO:
            x = self.builder.padded(x)
        x = self.builder.elementwise(layer, kind, x, *constants, part=part, attributes=attributes)
        # Whether that leaves sums is for the walk to say.
        return replace(x, sums=None)

    def heaviside(self, layer: Layer, x: Tensor, part: str) -> Tensor:
        """1 where x > 0, else 0: half of 1 minus the sign of -x, which is +1 for 0."""
        builder = self.builder
        x = builder.elementwise(layer, "Neg", x, part=f"{part}/minus")
        x = builder.sign(layer, x, part)
        x = builder.elementwise(layer, "Mul", x, np.array(-0.5, np.float32), part=f"{part}/half")
        x = builder.elementwise(layer, "Add", x, np.array(0.5, np.float32), part=f"{part}/plus")
        return _with_pad(x, 0.0)

    def dorefa(self, layer: Layer, x: Tensor, what: Function, part: str) -> Tensor:
        """``round(clip(x, 0, 1) * n) / n`` with n = 2 ** bits - 1, halves to even."""
        builder = self.builder
        bits = what.settings.integer("k_bit", 2)
        if what.settings.text("mode", "activations") != "activations":
            raise Refused("quantizes activations as if they were weights", _SIGN)
        if bits == 1:
            # 0.5 goes to the even 0.
            half = np.array(0.5, np.float32)
            x = builder.elementwise(layer, "Sub", x, half, part=f"{part}/middle")
            return self.heaviside(layer, x, part)
        if bits > _MOST_BITS:
            problem = f"quantizes {'the frame' if x.frame else 'activations'} to {bits} bits"
            return self.refused(layer, x, problem, f"give k_bit up to {_MOST_BITS}")
        steps = np.array((1 << bits) - 1, np.float32)
        x = builder.elementwise(layer, "Mul", x, steps, part=f"{part}/times")
        x = replace(builder.quantize(layer, x, bits, part), sums=None, frame=False)
        return _with_pad(builder.elementwise(layer, "Div", x, steps, part=f"{part}/over"), 0.0)

    def input_of(self, layer: Layer, x: Tensor) -> Tensor:
        """Append a layer's input quantizer."""
        what = function(layer.settings.get("input_quantizer"))
        return self.apply(layer, x, what, "input_quantizer")

    def refused(self, layer: Layer, x: Tensor, problem: str, mend: str) -> Tensor:
        """Append what stands for a quantizer or activation that is not supported."""
        x = self.builder.refused(layer, x, Refused(problem, mend), "Activation", x.shape)
        return replace(x, frame=False)

    def output_of(self, layer: Layer, x: Tensor) -> Tensor:
        """Append a layer's activation."""
        return self.apply(layer, x, function(layer.settings.get("activation")), "activation")

    def kernel(self, layer: Layer, values: NDArray, key: str) -> NDArray[np.float32]:
        """Return a kernel as it works."""
        quantizer = function(layer.settings.get(key))
        larq = layer.kind.startswith("Quant")
        return binary_kernel(Kernel(values, quantizer, key, larq))

    def weigh(
        self,
        layer: Layer,
        kind: str,
        x: Tensor,
        weights: Callable[[], list[NDArray]],
        shape: tuple[int, ...],
        **attributes: object,
    ) -> Tensor:
        """Append a layer that adds products; what is wrong with its weights is told as well."""
        try:
            constants = weights()
            self.size += constants[0].size
            if self.size > _MAX_WEIGHTS:
                raise Refused(f"is beyond the first {_MAX_WEIGHTS} weights", "give less layers")
        except Refused as refused:
            raise _RefusedAt(x, refused.problem, refused.mend, kind=kind, shape=shape) from None
        if x.sums is not None:
            raise _RefusedAt(
                x,
                f"takes the sums of {x.sums}, which nothing makes binary",
                _INPUT,
                kind=kind,
                shape=shape,
            )
        x = self.builder.node(layer, kind, [x], constants, shape=shape, attributes=attributes)
        return replace(x, sums=layer, frame=False)

    def bias(self, layer: Layer) -> tuple[str, ...]:
        """Return the role of a bias, if the layer has one."""
        return ("bias",) if layer.settings.flag("use_bias", True) else ()


class _RefusedAt(Refused):
    """A refusal behind which the translation can go on.

    Parameters
    ----------
    x : Tensor
        What would have been taken.
    kind : str
        Of the node in its place.
    shape : tuple of int or None
        Of what it would have given.
    """

    def __init__(
        self, x: Tensor, problem: str, mend: str, *, kind: str, shape: tuple[int, ...] | None
    ) -> None:
        super().__init__(problem, mend)
        self.x, self.kind, self.shape = x, kind, shape


def _with_pad(x: Tensor, value: float) -> Tensor:
    """Return a quantized tensor: quantizing a padded 0 gives `value`."""
    return x if x.pad is None else replace(x, pad=replace(x.pad, value=value))


def _unknown(layer: Layer, x: Tensor) -> Refused:
    if layer.kind in _NOT_BINARY_LAYERS:
        problem = "is an activation that is not binary"
        return _RefusedAt(x, problem, _SIGN, kind="Activation", shape=x.shape)
    if layer.kind == "Lambda":
        return Refused("runs Python code, which no file may do here", "use layers in its place")
    kinds = ", ".join(sorted(LAYERS))
    return Refused("is of a kind that is not supported", f"accepted are {kinds}")


def _not_binary(what: Function, part: str) -> tuple[str, str]:
    data = "its inputs" if part == "input_quantizer" else "activations"
    mend = _INPUT if part == "input_quantizer" else _SIGN
    if what.name == "SteTern":
        return f"makes {data} ternary by SteTern, which is not supported", mend
    if what.name == "MagnitudeAwareSign":
        return f"scales {data} by their mean, which differs from frame to frame", mend
    if part == "input_quantizer":
        return f"has the input_quantizer {what.name!r}, which is not known", mend
    return f"has the activation {what.name!r}, which is not binary", mend


# Layers with weights


def dense(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """``x @ kernel + bias`` along the last axis."""
    units = layer.settings.integer("units", 0)
    inputs, shape = x.sizes[-1], (*x.sizes[:-1], units)
    if len(shape) not in (1, 3):
        raise Refused(f"takes frames of shape {x.shape}", "put a Flatten before it")
    x = t.builder.padded(t.input_of(layer, x))

    def weights() -> list[NDArray]:
        kernel, *bias = t.variables(layer, ("kernel", *t.bias(layer)))
        _check_shapes(kernel, (inputs, units), bias)
        return [t.kernel(layer, kernel, "kernel_quantizer"), *bias]

    if len(shape) == 3:
        # A convolution of single pixels.
        x = t.builder.first(layer, x)
        x = t.weigh(layer, "Conv", x, lambda: _hwio(weights()), shape)
    else:
        x = t.weigh(layer, "Gemm", x, weights, shape)
    return t.output_of(layer, x)


def conv_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Kernels of shape (KH, KW, C / groups, M)."""
    filters = layer.settings.integer("filters", 0)
    groups = layer.settings.integer("groups", 1)
    size = layer.settings.pair("kernel_size", (0, 0))

    def weights() -> list[NDArray]:
        kernel, *bias = t.variables(layer, ("kernel", *t.bias(layer)))
        _check_shapes(kernel, (*size, x.sizes[-1] // groups, filters), bias)
        return _hwio([t.kernel(layer, kernel, "kernel_quantizer"), *bias])

    return _convolved(t, layer, x, weights, filters, groups)


def depthwise_conv_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Kernels of shape (KH, KW, C, multiplier), each for one channel."""
    _image(x)
    channels = x.sizes[-1]
    outputs = channels * layer.settings.integer("depth_multiplier", 1)

    def weights() -> list[NDArray]:
        kernel, *bias = t.variables(layer, ("depthwise_kernel", *t.bias(layer)))
        return _hwio([_depthwise(t, layer, kernel, outputs, bias), *bias])

    return _convolved(t, layer, x, weights, outputs, channels)


def separable_conv_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """A depthwise and a pointwise convolution, whose kernels multiply to one binary kernel."""
    _image(x)
    channels = x.sizes[-1]
    filters = layer.settings.integer("filters", 0)
    multiplier = layer.settings.integer("depth_multiplier", 1)

    def weights() -> list[NDArray]:
        roles = ("depthwise_kernel", "pointwise_kernel", *t.bias(layer))
        depthwise, pointwise, *bias = t.variables(layer, roles)
        outputs = channels * multiplier
        _check_shapes(pointwise, (1, 1, outputs, filters), bias)
        if multiplier > 1:
            raise Refused(
                f"adds {multiplier} sums of each channel, which nothing makes binary",
                "give it depth_multiplier=1, or make a QuantDepthwiseConv2D and a QuantConv2D "
                'with input_quantizer="ste_sign" of it',
            )
        first = _depthwise(t, layer, depthwise, outputs, [])[:, :, 0, :, None]
        second = t.kernel(layer, pointwise, "pointwise_quantizer")[0, 0]
        kernel = first.astype(np.float64) * second
        magnitudes = np.abs(kernel).reshape(-1, filters)
        if np.any(magnitudes != magnitudes[0]):
            raise Refused(
                "has depthwise and pointwise kernels whose products have several magnitudes",
                'give it depthwise_quantizer="ste_sign" and pointwise_quantizer="ste_sign"',
            )
        return _hwio([kernel, *bias])

    return _convolved(t, layer, x, weights, filters, 1)


def _depthwise(
    t: Translator, layer: Layer, kernel: NDArray, outputs: int, bias: list[NDArray]
) -> NDArray[np.float32]:
    """Return a depthwise kernel as it works, shape (KH, KW, 1, outputs)."""
    size = layer.settings.pair("kernel_size", (0, 0))
    if kernel.ndim != 4 or kernel.size != prod(size) * outputs:
        raise Refused(f"has a depthwise kernel of shape {kernel.shape} for {outputs} outputs")
    stretched = (*size, 1, outputs)
    if function(layer.settings.get("depthwise_quantizer")) is None:
        kernel = kernel.reshape(stretched)
    kernel = t.kernel(layer, kernel, "depthwise_quantizer").reshape(stretched)
    _check_shapes(kernel, stretched, bias)
    return kernel


def _check_shapes(kernel: NDArray, shape: tuple[int, ...], bias: list[NDArray]) -> None:
    if kernel.shape != shape:
        raise Refused(f"has a kernel of shape {kernel.shape} where {shape} belongs")
    for values in bias:
        if values.shape != shape[-1:]:
            raise Refused(f"has a bias of shape {values.shape} for {shape[-1]} outputs")


def _hwio(arrays: list[NDArray]) -> list[NDArray]:
    """Turn a kernel (KH, KW, inputs, outputs) or (inputs, outputs) into (M, C, KH, KW)."""
    kernel, *bias = arrays
    if kernel.ndim == 2:
        kernel = kernel[None, None]
    return [kernel.transpose(3, 2, 0, 1), *bias]


def _image(x: Tensor) -> None:
    if len(x.sizes) != 3:
        raise Refused(
            f"takes images, but gets frames of shape {x.shape}",
            "give it frames of shape (rows, columns, channels)",
        )


def _convolved(
    t: Translator,
    layer: Layer,
    x: Tensor,
    weights: Callable[[], list[NDArray]],
    filters: int,
    groups: int,
) -> Tensor:
    settings, builder = layer.settings, t.builder
    _image(x)
    kernel = settings.pair("kernel_size", (0, 0))
    stride, dilation = settings.pair("strides", (1, 1)), settings.pair("dilation_rate", (1, 1))
    x = t.input_of(layer, x)
    pad, shape = _padding(layer, x, kernel, stride, dilation)
    quantizer = function(settings.get("input_quantizer"))
    binary = quantizer is not None and quantizer.name in BINARY
    if binary and pad is not None and abs(pad.value) not in (0, 1):
        problem = f"pads with {pad.value:g} what is -1 or +1"
        mend = "give pad_values of -1, 0 or 1"
        raise _RefusedAt(x, problem, mend, kind="Conv", shape=(*shape, filters))
    if pad is not None and pad.value:
        x, pad = builder.padded(replace(builder.first(layer, x), pad=pad)), None
    else:
        x = replace(builder.first(layer, x), pad=None)
    x = t.weigh(
        layer,
        "Conv",
        x,
        weights,
        (*shape, filters),
        strides=list(stride),
        dilations=list(dilation),
        group=groups,
        pads=list(pad.sizes) if pad is not None else [0] * 4,
    )
    return t.output_of(layer, x)


def _padding(
    layer: Layer,
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[Pad | None, tuple[int, int]]:
    """Return what is padded, by the layer and by what waits before it, and the windows' number."""
    settings = layer.settings
    if settings.text("data_format", "channels_last") != "channels_last":
        raise Refused("keeps the channels first", 'give data_format="channels_last"')
    sizes = (0, 0, 0, 0) if x.pad is None else x.pad.sizes
    around = [x.sizes[axis] + sizes[axis] + sizes[axis + 2] for axis in range(2)]
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    match settings.text("padding", "valid"):
        case "valid":
            own = (0, 0, 0, 0)
        case "same":
            # As many windows as strides begin in the image; of an odd rest more at the end.
            totals = [
                max((-(-n // s) - 1) * s + e - n, 0)
                for n, e, s in zip(around, extents, stride, strict=True)
            ]
            own = (totals[0] // 2, totals[1] // 2, -(-totals[0] // 2), -(-totals[1] // 2))
        case other:
            raise Refused(f"has padding={other!r}", 'give padding="valid" or "same"')
    windows = [
        (n + own[axis] + own[axis + 2] - e) // s + 1
        for axis, (n, e, s) in enumerate(zip(around, extents, stride, strict=True))
    ]
    if min(windows) < 1:
        raise Refused(
            f"has windows of {extents[0]} x {extents[1]} pixels on an image of {around[0]} x "
            f"{around[1]}",
            "give a smaller kernel or a larger image",
        )
    padded = [n + own[axis] + own[axis + 2] for axis, n in enumerate(around)]
    if prod(padded) > MAX_FRAME:
        raise Refused(f"pads its image to {padded[0]} x {padded[1]} pixels", "pad less")
    return _merged(layer, x.pad, own), (windows[0], windows[1])


def _merged(layer: Layer, waiting: Pad | None, own: tuple[int, int, int, int]) -> Pad | None:
    if not any(own):
        return waiting
    value = layer.settings.number("pad_values", 0.0)
    if waiting is None:
        return Pad(layer, own, value)
    if waiting.value != value:
        raise Refused(
            f"pads with {value:g} what {waiting.layer} pads with {waiting.value:g}",
            "leave the padding to one of the two",
        )
    top, left, bottom, right = (a + b for a, b in zip(own, waiting.sizes, strict=True))
    return Pad(layer, (top, left, bottom, right), value)


def batch_normalization(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` along the last axis."""
    settings = layer.settings
    rank = len(x.sizes)
    if rank not in (1, 3):
        raise Refused(f"takes frames of shape {x.shape}", "put a Flatten before it")
    if settings.numbers("axis", -1) not in ([-1], [rank]):
        raise Refused(f"works along axis {settings.get('axis')}", "give axis=-1, the channels")
    if settings.flag("renorm", False):
        raise Refused("renormalizes", "give renorm=False")
    scale, center = settings.flag("scale", True), settings.flag("center", True)
    roles = [*["gamma"] * scale, *["beta"] * center, "moving_mean", "moving_variance"]
    arrays = dict(zip(roles, t.variables(layer, roles), strict=True))
    channels = x.sizes[-1:]
    for role, values in arrays.items():
        if values.shape != channels:
            raise Refused(f"has {role} of shape {values.shape} for {channels[0]} channels")
    gamma = arrays.get("gamma", np.ones(channels, np.float32))
    beta = arrays.get("beta", np.zeros(channels, np.float32))
    epsilon = float(np.float32(settings.number("epsilon", 1e-3)))
    x = t.builder.padded(x)
    return t.builder.elementwise(
        layer,
        "BatchNormalization",
        t.builder.first(layer, x) if rank == 3 else x,
        gamma,
        beta,
        arrays["moving_mean"],
        arrays["moving_variance"],
        attributes={"epsilon": epsilon},
    )


# Layers without weights


def max_pooling_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Maximum over windows; what is padded never wins."""
    return _pooled(t, layer, x, "MaxPool")


def average_pooling_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Mean over windows that lie in the image."""
    return _pooled(t, layer, x, "AveragePool")


def _pooled(t: Translator, layer: Layer, x: Tensor, kind: str) -> Tensor:
    _image(x)
    x = t.builder.padded(x)
    kernel = layer.settings.pair("pool_size", (2, 2))
    stride = layer.settings.pair("strides", kernel)
    pad, shape = _padding(layer, x, kernel, stride)
    pads = [0] * 4 if pad is None else list(pad.sizes)
    channels = x.sizes[-1]
    if any(pads) and kind == "AveragePool":
        raise _RefusedAt(
            x,
            "divides by other numbers at the borders of its image",
            'give padding="valid"',
            kind=kind,
            shape=(*shape, channels),
        )
    attributes = {"kernel_shape": list(kernel), "strides": list(stride), "pads": pads}
    x = t.builder.first(layer, x)
    return t.builder.node(layer, kind, [x], shape=(*shape, channels), attributes=attributes)


def global_max_pooling_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Maximum over the image."""
    return _pooled_whole(t, layer, x, "GlobalMaxPool")


def global_average_pooling_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Mean over the image."""
    return _pooled_whole(t, layer, x, "GlobalAveragePool")


def _pooled_whole(t: Translator, layer: Layer, x: Tensor, kind: str) -> Tensor:
    _image(x)
    if layer.settings.text("data_format", "channels_last") != "channels_last":
        raise Refused("keeps the channels first", 'give data_format="channels_last"')
    channels = x.sizes[-1]
    x = t.builder.first(layer, t.builder.padded(x))
    x = t.builder.node(layer, kind, [x], shape=(1, 1, channels))
    if layer.settings.flag("keepdims", False):
        return x
    return flatten(t, layer, x)


def flatten(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Frames as vectors, images row by row with the channels last."""
    if layer.settings.text("data_format", "channels_last") != "channels_last":
        raise Refused("keeps the channels first", 'give data_format="channels_last"')
    x = t.builder.last(layer, t.builder.padded(x))
    shape = (prod(x.sizes),)
    part = "" if layer.kind == "Flatten" else "flatten"
    return t.builder.node(layer, "Flatten", [x], shape=shape, part=part)


def reshape(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Frames of another shape."""
    target = layer.settings.get("target_shape")
    size = prod(x.sizes)
    if not isinstance(target, list) or not 0 < len(target) <= _MAX_RANK:
        raise Refused("has no list of sizes as its target_shape")
    if not all(isinstance(n, int) and -1 <= n <= size for n in target):
        raise Refused(f"makes frames of shape {target} of {x.shape}", "give as many values")
    known = prod(n for n in target if n != -1)
    if target.count(-1) == 1 and known > 0 and size % known == 0:
        target = [size // known if n == -1 else n for n in target]
    if min(target) < 1 or prod(target) != size:
        raise Refused(f"makes frames of shape {target} of {x.shape}", "give as many values")
    x = t.builder.last(layer, t.builder.padded(x))
    shape = np.array([0, *target], np.int64)
    return t.builder.node(layer, "Reshape", [x], [shape], shape=tuple(target))


def zero_padding_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Rows and columns of 0 around an image, which the next convolution adds."""
    _image(x)
    value = layer.settings.get("padding")
    sides = value if isinstance(value, list) else [value, value]
    pairs = [side if isinstance(side, list) else [side, side] for side in sides]
    sizes = [n for pair in pairs for n in pair]
    legal = len(pairs) == 2 and all(len(pair) == 2 for pair in pairs)
    if not legal or not all(isinstance(n, int) and 0 <= n < 1 << 16 for n in sizes):
        raise Refused(f"has padding = {value!r}"[:80], "give integers that are not negative")
    (top, bottom), (left, right) = pairs
    x = t.builder.padded(x)
    return replace(x, pad=Pad(layer, (top, left, bottom, right), 0.0))


def activation(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """A quantizer or activation as a layer."""
    return t.output_of(layer, x)


def softmax(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Softmax over the last axis."""
    if layer.settings.numbers("axis", -1) not in ([-1], [len(x.sizes)]):
        raise Refused("does not work along the last axis", "give axis=-1")
    x = t.builder.last(layer, t.builder.padded(x))
    return t.builder.elementwise(layer, "Softmax", x, attributes={"axis": -1})


def quantizer(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """A quantizer of Larq in the place of a layer."""
    return t.apply(layer, x, Function(layer.kind, layer.settings), "quantizer")


def relu(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """``max(x, 0)``, with a slope below 0 or a largest value."""
    settings = layer.settings
    slope, largest = settings.number("negative_slope", 0.0), settings.get("max_value")
    if settings.number("threshold", 0.0) or (slope and largest is not None) or slope < 0:
        problem = "is an activation that is not binary"
        raise _RefusedAt(x, problem, _SIGN, kind="Activation", shape=x.shape)
    if largest is not None:
        ends = (np.array(0, np.float32), np.array(settings.number("max_value", 0), np.float32))
        return replace(t.builder.elementwise(layer, "Clip", x, *ends), sums=None)
    if slope:
        return t.squash(layer, x, "leaky_relu", "", slope)
    return t.squash(layer, x, "relu", "")


def leaky_relu(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """``x`` from 0 on, below times a slope."""
    key = "alpha" if layer.settings.get("alpha") is not None else "negative_slope"
    return t.squash(layer, x, "leaky_relu", "", layer.settings.number(key, 0.3))


def elu(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """``x`` from 0 on, below ``alpha * (exp(x) - 1)``."""
    return t.squash(layer, x, "elu", "", layer.settings.number("alpha", 1.0))


def transposed_conv_2d(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Refused; what lies behind it can be examined."""
    _image(x)
    settings = layer.settings
    kernel, stride = settings.pair("kernel_size", (0, 0)), settings.pair("strides", (1, 1))
    same = settings.text("padding", "valid") == "same"
    plain = settings.get("output_padding") is None
    sizes = [
        n * s if same else (n - 1) * s + max(k, s)
        for n, k, s in zip(x.sizes, kernel, stride, strict=False)
    ]
    shape = (*sizes, settings.integer("filters", 0)) if plain and prod(sizes) < MAX_FRAME else None
    problem, mend = "is a transposed convolution, which is not supported", "leave it out"
    raise _RefusedAt(x, problem, mend, kind="Conv", shape=shape)


def normalization(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """``(x - mean) / sqrt(variance)``, along the last axis or all alike."""
    settings = layer.settings
    rank = len(x.sizes)
    axis = settings.get("axis")
    if rank not in (1, 3) or settings.flag("invert", False):
        raise Refused("does more than to normalize the channels of images or vectors", "leave it")
    if axis not in (None, -1, rank, [], [-1], [rank]):
        raise Refused(f"works along axis {axis!r}"[:80], "give axis=-1, the channels, or None")
    if settings.get("mean") is None:
        mean, variance, _ = t.variables(layer, ("mean", "variance", "count"))
    else:
        mean, variance = (
            np.array(settings.numbers(key, 1), np.float32) for key in ("mean", "variance")
        )
    channels = x.sizes[-1]
    if {mean.size, variance.size} - {1, channels}:
        raise Refused(f"has {mean.size} means for {channels} channels", "give one for each")
    mean, variance = (np.resize(values.reshape(-1), channels) for values in (mean, variance))
    if not np.all(variance > _LEAST_VARIANCE):
        raise Refused("divides by the square root of a variance of 0", "adapt it to other data")
    x = t.builder.padded(x)
    return t.builder.elementwise(
        layer,
        "BatchNormalization",
        t.builder.first(layer, x) if rank == 3 else x,
        np.ones(channels, np.float32),
        np.zeros(channels, np.float32),
        mean,
        variance,
        attributes={"epsilon": 0.0},
    )


def rescaling(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """``scale * x + offset``, by the simple fractions that a file's decimals stand for."""
    x = t.builder.last(layer, t.builder.padded(x))
    scale, offset = (
        [simple_fraction(value) for value in layer.settings.numbers(key, default)]
        for key, default in (("scale", 1), ("offset", 0))
    )
    if not {len(scale), len(offset)} <= {1, x.sizes[-1]}:
        raise Refused("has other numbers of scales or offsets than channels", "give one of each")
    divisor = [value.denominator for value in scale]
    x = _arithmetic(t, layer, "Mul", x, [value.numerator for value in scale])
    x = _arithmetic(t, layer, "Div", x, divisor)
    divisor = [value.denominator for value in offset]
    x = _arithmetic(t, layer, "Mul", x, divisor)
    x = _arithmetic(t, layer, "Add", x, [value.numerator for value in offset])
    return _arithmetic(t, layer, "Div", x, divisor)


def _arithmetic(t: Translator, layer: Layer, kind: str, x: Tensor, values: list[int]) -> Tensor:
    """Append an operation with integers, unless it changes nothing."""
    if set(values) == {0 if kind == "Add" else 1}:
        return x
    # float64 holds the numerators and denominators of every float32 but the tiniest.
    return t.builder.elementwise(layer, kind, x, np.array(values, np.float64), part=kind.lower())


def dropped(t: Translator, layer: Layer, x: Tensor) -> Tensor:
    """Layers that act in training only."""
    return t.builder.elementwise(layer, "Dropout", x)


LAYERS: dict[str, Callable[[Translator, Layer, Tensor], Tensor]] = {
    "Activation": activation,
    "AveragePooling2D": average_pooling_2d,
    "BatchNormalization": batch_normalization,
    "Conv2D": conv_2d,
    "Dense": dense,
    "DepthwiseConv2D": depthwise_conv_2d,
    "ELU": elu,
    "Flatten": flatten,
    "GlobalAveragePooling2D": global_average_pooling_2d,
    "GlobalMaxPooling2D": global_max_pooling_2d,
    "LeakyReLU": leaky_relu,
    "MaxPooling2D": max_pooling_2d,
    "Normalization": normalization,
    "QuantConv2D": conv_2d,
    "QuantDense": dense,
    "QuantDepthwiseConv2D": depthwise_conv_2d,
    "QuantSeparableConv2D": separable_conv_2d,
    "ReLU": relu,
    "Rescaling": rescaling,
    "Reshape": reshape,
    "SeparableConv2D": separable_conv_2d,
    "Softmax": softmax,
    "ZeroPadding2D": zero_padding_2d,
    **dict.fromkeys(
        (
            *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout"),
            *("GaussianNoise", "RandomBrightness", "RandomContrast", "RandomFlip"),
            *("RandomRotation", "RandomTranslation", "RandomZoom", "SpatialDropout2D"),
        ),
        dropped,
    ),
    **dict.fromkeys((*BINARY, "DoReFa", "SteHeaviside"), quantizer),
}
"""How each kind of layer is translated."""

_TRANSPOSED = ("Conv2DTranspose", "QuantConv2DTranspose")
