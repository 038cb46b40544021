"""Operators on constants, computed in the type that the file stores, as an ONNX runtime does it.

What comes out is then taken as exact. The values of quantizers are exact in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from xnorflow.frontend.graph import QONNX, STANDARD, Graph, Node

if TYPE_CHECKING:
    from xnorflow.frontend.constants import Constants

__all__ = [
    "EVALUATORS",
    "FREE_BATCH",
    "MOST_BITS",
    "Evaluator",
    "bipolar_scale",
    "other_quantizer",
    "signed_again",
    "size_of_result",
]

FREE_BATCH: Final = -(1 << 62)
"""Stands for a free batch size among the sizes that `Shape` gives."""

Evaluator = Callable[["Constants", Node, Sequence[Any]], Any]
"""Returns what a node gives; inputs that are omitted or no constants are None."""

EVALUATORS: dict[tuple[str, str], Evaluator] = {}
"""Evaluators by operator set and operator."""

MOST_BITS = 8
"""Of weights and activations."""

_QUANT_MEND = f"use a Quant of 1 to {MOST_BITS} bits, or BipolarQuant, which gives -1 and +1"
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def _evaluates(*kinds: str, opset: str = STANDARD) -> Callable[[Evaluator], Evaluator]:
    def register(evaluator: Evaluator) -> Evaluator:
        for kind in kinds:
            EVALUATORS[opset, kind] = evaluator
        return evaluator

    return register


def size_of_result(node: Node, inputs: Sequence[Any]) -> int:
    """Return a bound of the number of values that a node gives, before any is computed."""
    arrays = [array for array in inputs if array is not None]
    match node.kind:
        case "ConstantOfShape":
            return prod(_sizes(inputs[0]))
        case "Expand":
            return prod(np.broadcast_shapes(inputs[0].shape, _sizes(inputs[1])))
        case "Tile":
            return inputs[0].size * prod(_sizes(inputs[1]))
        case "Gather":
            axis = node.attributes.get("axis", 0)
            return inputs[0].size // max(inputs[0].shape[axis], 1) * inputs[1].size
        case "Concat":
            return sum(array.size for array in arrays)
        case _ if node.kind in _BROADCAST or node.opset == QONNX:
            return prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    return max((array.size for array in arrays), default=0)


def _sizes(values: NDArray) -> tuple[int, ...]:
    """Return a shape; a constant that is as large as the batch is the same for all frames."""
    sizes = [int(size) for size in values]
    return tuple(1 if n == FREE_BATCH and i == 0 else n for i, n in enumerate(sizes))


@_evaluates("Constant")
def _constant(constants: Constants, node: Node, _: Sequence[Any]) -> Any:
    (kind, value), *others = node.attributes.items()
    if others or kind not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        constants.graph.refuse(node, "has no plain value", "give a dense tensor")
    if kind == "value":
        return constants.array(value, node.outputs[0])
    return np.array(value, np.float32 if "float" in kind else np.int64)


@_evaluates("ConstantOfShape")
def _constant_of_shape(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    fill = np.zeros(1, np.float32)
    if "value" in node.attributes:
        fill = constants.array(node.attributes["value"], node.outputs[0])
    return np.full(_sizes(inputs[0]), fill.reshape(()))


@_evaluates("Identity", "Dropout")
def _identity(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return inputs[0]


@_evaluates("Cast")
def _cast(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    kind = helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    if kind.kind not in "biufV":
        constants.graph.refuse(node, f"casts a constant to {kind}", "cast it to a number")
    if kind != np.int64:
        _refuse_batch(constants, node, inputs)
    result = inputs[0].astype(kind)
    # ml_dtypes (bfloat16, float8, int4) are no numbers to numpy, but float32 holds them all.
    return result.astype(np.float32) if kind.kind == "V" else result


# Shapes


@_evaluates("Shape")
def _shape(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    tensor = node.inputs[0]
    shape = constants.shapes.get(tensor) if inputs[0] is None else inputs[0].shape
    if shape is None:
        constants.graph.refuse(
            node,
            f"asks for the shape of tensor {tensor!r}, which is not known at that point",
            "export with constant shapes",
        )
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape, np.int64)[start:end]


@_evaluates("Transpose")
def _transpose(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.transpose(inputs[0], node.attributes.get("perm"))


@_evaluates("Reshape")
def _reshape(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    array, sizes = inputs
    keep = not node.attributes.get("allowzero", 0)
    target = [array.shape[i] if n == 0 and keep else int(n) for i, n in enumerate(sizes)]
    return array.reshape(target)


@_evaluates("Flatten")
def _flatten(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    axis = node.attributes.get("axis", 1)
    rows = int(np.prod(inputs[0].shape[:axis]))
    return inputs[0].reshape(rows, -1)


def _axes(node: Node, inputs: Sequence[Any]) -> Any:
    """Return the axes, an attribute before operator set 13 and an input since, or None."""
    given = inputs[1] if len(inputs) > 1 else node.attributes.get("axes")
    return None if given is None else tuple(int(axis) for axis in given)


@_evaluates("Squeeze")
def _squeeze(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.squeeze(inputs[0], _axes(node, inputs))


@_evaluates("Unsqueeze")
def _unsqueeze(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.expand_dims(inputs[0], _axes(node, inputs))


@_evaluates("Concat")
def _concat(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.concatenate(inputs, axis=node.attributes["axis"])


@_evaluates("Gather")
def _gather(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.take(inputs[0], inputs[1], axis=node.attributes.get("axis", 0))


@_evaluates("Slice")
def _slice(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    array = inputs[0]
    starts, ends, axes, steps = (
        inputs[i] if i < len(inputs) else node.attributes.get(key)
        for i, key in enumerate(("starts", "ends", "axes", "steps"), start=1)
    )
    if starts is None or ends is None:
        raise ValueError("no starts and ends")
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    places = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        places[int(axis)] = slice(int(start), int(end), int(step))
    return array[tuple(places)]


@_evaluates("Expand")
def _expand(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    sizes = _sizes(inputs[1])
    return np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, sizes))


@_evaluates("Tile")
def _tile(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.tile(inputs[0], _sizes(inputs[1]))


# Arithmetic


def _refuse_batch(constants: Constants, node: Node, inputs: Sequence[Any]) -> None:
    """Refuse to compute with a batch size that is free."""
    if any(a is not None and a.dtype.kind == "i" and np.any(a == FREE_BATCH) for a in inputs):
        constants.graph.refuse(
            node, "computes with the batch size, which is free", "export with constant shapes"
        )


_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": np.reciprocal,
    "Round": np.rint,
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
}

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Or": np.logical_or,
    "Sub": np.subtract,
    "Xor": np.logical_xor,
}

_BROADCAST = (*_BINARY, "Clip", "Div", "Pow", "Where")


@_evaluates(*_UNARY)
def _unary(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    (array,) = inputs
    _refuse_batch(constants, node, inputs)
    return _UNARY[node.kind](array).astype(array.dtype, copy=False)


@_evaluates(*_BINARY)
def _binary(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    if node.kind != "Equal":
        _refuse_batch(constants, node, inputs)
    first, *others = inputs
    for other in others:
        if first.dtype != other.dtype:
            raise TypeError(f"types {first.dtype} and {other.dtype}")
        first = _BINARY[node.kind](first, other)
    return first


@_evaluates("Div")
def _div(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    _refuse_batch(constants, node, inputs)
    dividend, divisor = inputs
    if dividend.dtype.kind == "f":
        return np.divide(dividend, divisor)
    if np.any(divisor == 0):
        raise ZeroDivisionError("division of integers by zero")
    # ONNX rounds towards zero, numpy down.
    quotient = np.abs(dividend) // np.abs(divisor)
    return np.where((dividend < 0) != (divisor < 0), -quotient, quotient).astype(dividend.dtype)


@_evaluates("Pow")
def _pow(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    _refuse_batch(constants, node, inputs)
    return np.power(*inputs).astype(inputs[0].dtype, copy=False)


@_evaluates("Clip")
def _clip(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    array = inputs[0]
    low, high = (
        inputs[i] if i < len(inputs) else node.attributes.get(key)
        for i, key in enumerate(("min", "max"), start=1)
    )
    if low is not None:
        array = np.maximum(array, np.asarray(low, array.dtype))
    return array if high is None else np.minimum(array, np.asarray(high, array.dtype))


@_evaluates("Where")
def _where(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    condition, chosen, other = inputs
    if condition.dtype != np.bool_ or chosen.dtype != other.dtype:
        raise TypeError(f"types {condition.dtype}, {chosen.dtype} and {other.dtype}")
    return np.where(condition, chosen, other)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL1": lambda x, **how: np.sum(np.abs(x), **how),
    "ReduceL2": lambda x, **how: np.sqrt(np.sum(x * x, **how)),
    "ReduceMax": np.max,
    "ReduceMean": np.mean,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
    "ReduceSumSquare": lambda x, **how: np.sum(x * x, **how),
}


@_evaluates(*_REDUCTIONS)
def _reduce(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    _refuse_batch(constants, node, inputs)
    array, axes = inputs[0], _axes(node, inputs)
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return array
        axes = None
    keep = bool(node.attributes.get("keepdims", 1))
    result = _REDUCTIONS[node.kind](array, axis=axes, keepdims=keep)
    return result.astype(array.dtype, copy=False)


# Quantizers


@_evaluates("Sign")
def _sign(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    _check_latent(constants, node, inputs[0])
    signs = np.sign(inputs[0])
    zero = signs == 0
    if not np.any(zero) or signed_again(constants.graph, node):
        return signs
    if constants.sign_zero is None:
        constants.obstacle(
            node,
            "gives 0 for the weights that are 0, but a one-bit weight is -1 or +1",
            "use BipolarQuant, which gives +1 for 0, or say with --sign-zero +1 what it is to give",
        )
    signs[zero] = constants.sign_zero or 1
    return signs


def signed_again(graph: Graph, node: Node) -> bool:
    """Whether signs are shifted and taken again, as in sign(sign(x) + 0.1)."""
    for kinds in (("Add", "Sub"), ("Sign", "BipolarQuant", *_COMPARISONS)):
        readers = graph.readers(node.outputs[0])
        if len(readers) != 1 or readers[0].kind not in kinds:
            return False
        (node,) = readers
    return True


@_evaluates("BipolarQuant", opset=QONNX)
def _bipolar_quant(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    _check_latent(constants, node, inputs[0])
    scale = bipolar_scale(constants, node)
    return np.where(inputs[0] >= 0, np.float32(1), np.float32(-1)) * scale


@_evaluates("Quant", "IntQuant", opset=QONNX)
def _quant(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    latent = inputs[0]
    _check_latent(constants, node, latent)
    bits = constants.numbers(node, 3, "bit width")
    scale, zero_point = bipolar_scale(constants, node), constants.numbers(node, 2, "zero point")
    signed = constants.graph.integer(node, "signed", 1)
    narrow = constants.graph.integer(node, "narrow", 0)
    mode = constants.graph.text(node, "rounding_mode", "ROUND")
    if set(bits.reshape(-1).tolist()) - set(range(1, MOST_BITS + 1)) or mode not in _ROUNDED:
        fault = f"to {float(bits.max(initial=0)):g} bits"
        if mode not in _ROUNDED:
            fault = f"in the unknown rounding mode {mode}"
        constants.obstacle(node, f"quantizes weights {fault}", _QUANT_MEND)
        return np.where(latent >= 0, np.float32(1), np.float32(-1))
    integers = latent / scale + zero_point
    if signed and np.all(bits == 1):
        integers = np.where(integers >= 0, np.float32(1), np.float32(-1))
    else:
        half = np.exp2(bits.astype(np.float32)) / 2
        low, high = (narrow - half, half - 1) if signed else (0, 2 * half - 1 - narrow)
        integers = _ROUNDED[mode](np.clip(integers, low, high))
    return ((integers - zero_point) * scale).astype(latent.dtype, copy=False)


_ROUNDED: dict[str, Callable[..., Any]] = {
    "CEIL": np.ceil,
    "DOWN": np.trunc,
    "FLOOR": np.floor,
    "HALF_DOWN": lambda x: np.copysign(np.ceil(np.abs(x) - 0.5), x),
    "HALF_EVEN": np.rint,
    "HALF_UP": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
    "ROUND": np.rint,
    "UP": lambda x: np.copysign(np.ceil(np.abs(x)), x),
}


@_evaluates("FloatQuant", "Trunc", opset=QONNX)
def _other_quant(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    constants.obstacle(node, *other_quantizer("weights"))
    return np.where(inputs[0] >= 0, np.float32(1), np.float32(-1))


def other_quantizer(what: str) -> tuple[str, str]:
    """Return what is wrong with a quantizer that is not supported, and the mend."""
    return f"quantizes {what} in a way that is not supported", _QUANT_MEND


def bipolar_scale(constants: Constants, node: Node) -> NDArray:
    """Return the positive scale of a quantizer to one bit, or refuse the node."""
    scale = constants.numbers(node, 1, "scale")
    if scale.dtype.kind != "f":
        constants.graph.refuse(node, f"has a scale of type {scale.dtype}", "give floats")
    if not np.all(scale > 0):
        constants.graph.refuse(
            node,
            f"has the scale {float(scale.min()):g}",
            f"the scale of a {node.kind} must be positive",
        )
    return scale


def _check_latent(constants: Constants, node: Node, latent: NDArray) -> None:
    if not np.all(np.isfinite(latent)):
        constants.graph.refuse(
            node,
            "has weights that hold NaN or infinity",
            "export the model again with finite parameters",
        )
