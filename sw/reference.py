"""What a graph computes by the reference executor that comes with onnx, in float64.

It is the other opinion that an import is checked against (:mod:`xnorflow.import_check`): software
that was not written with our frontend in mind, on the graph as it was read, and no new dependency.
Operators that it lacks or is too slow at are here, written from their public definitions:

- those of QONNX, which onnx does not know,
- convolutions and pools, for which the executor runs Python loops over pixels (for convolutions up
  to onnx 1.22) and whose max pool disagrees with onnxruntime on ``auto_pad`` and uneven padding,
- batch norms, which below operator set 14 the executor takes for ones in training,
- `Sign`, where the user has said what it gives for 0.

float64 instead of float32 makes rounding noise so small, some 1e-15 of a value, that it can be told
from a difference. What does not depend on the input is computed in the type that the file stores,
as every runtime does it; where that leaves rounding noise on a layer's weights, which the import
takes for integers times a scale, they are evened out here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from xnorflow.frontend.constants import Constants
from xnorflow.frontend.evaluators import signed_again
from xnorflow.frontend.graph import QONNX, STANDARD, Graph, Node
from xnorflow.frontend.weights import NoIntegers, integer_weights

__all__ = ["ReferenceFailed", "execute"]

_SINGLE = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_LAYERS = ("Conv", "Gemm", "MatMul")


class ReferenceFailed(Exception):
    """The executor cannot run the graph; the message says why."""


def execute(
    graph: Graph, frames: NDArray, tensors: Sequence[str], sign_zero: int | None = None
) -> dict[str, NDArray]:
    """Return tensors of a graph for some frames.

    Parameters
    ----------
    graph : Graph
    frames : ndarray, shape (N, *graph.input_shape)
        Integers if the graph's input are integers, else numbers that become float64. Where the
        graph fixes the batch size, N is a multiple of it.
    tensors : sequence of str
        Names of tensors that depend on the input.
    sign_zero : int, optional
        What `Sign` gives for 0, by default 0.

    Returns
    -------
    dict of str to ndarray, shape (N, ...)
        Floats are float64.

    Raises
    ------
    ReferenceFailed
        An operator is not known or gets what it does not take.
    """
    try:
        with np.errstate(all="ignore"):
            return _execute(graph, frames, tensors, sign_zero)
    # The executor raises about anything, from KeyError to its own classes.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ReferenceFailed(reason[0]) from error


def _execute(
    graph: Graph, frames: NDArray, tensors: Sequence[str], sign_zero: int | None
) -> dict[str, NDArray]:
    from onnx.reference import ReferenceEvaluator

    constant, data = _split(graph)
    operators = [*_operators(), *_sign(sign_zero)]
    values = _stored(graph)
    if constant:
        names = [output for node in constant for output in node.outputs[:1]]
        model = _model(graph, constant, names, sign_zero, single=True)
        results = ReferenceEvaluator(model, new_ops=operators).run(names, values)
        values.update(zip(names, results, strict=True))
    values = {name: _double(value) for name, value in values.items()}
    for node in data:
        if node.kind in _LAYERS and node.opset == STANDARD and node.inputs[1] in values:
            values[node.inputs[1]] = _evened(node, values[node.inputs[1]])
    model = _model(graph, data, tensors, sign_zero, single=False)
    evaluator = ReferenceEvaluator(model, new_ops=operators)
    batch = graph.batch or 1
    batches: list[Any] = [
        evaluator.run(list(tensors), {**values, graph.input: _double(frames[at : at + batch])})
        for at in range(0, len(frames), batch)
    ]
    return {
        name: np.concatenate([np.asarray(results[index]) for results in batches])
        for index, name in enumerate(tensors)
    }


def _split(graph: Graph) -> tuple[list[Node], list[Node]]:
    """Return the nodes that frames cannot change, their shapes neither, and the others."""
    varying = set(graph.computed)
    constant, data = [], []
    for node in graph.live:
        if varying.isdisjoint(node.inputs):
            constant.append(node)
        else:
            varying.update(filter(None, node.outputs))
            data.append(node)
    return constant, data


def _stored(graph: Graph) -> dict[str, Any]:
    """Return the initializers that are in use."""
    constants = Constants(graph)
    used = dict.fromkeys(tensor for node in graph.live for tensor in node.inputs)
    stored = {name: graph.initializers[name] for name in used if name in graph.initializers}
    return {
        name: value if isinstance(value, np.ndarray) else constants.array(value, name)
        for name, value in stored.items()
    }


def _double(value: Any) -> NDArray:
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _evened(node: Node, weights: NDArray) -> NDArray:
    """Return weights without the rounding noise on integers times a scale."""
    transposed = node.kind == "MatMul" or (
        node.kind == "Gemm" and not node.attributes.get("transB")
    )
    rows = weights.T if transposed else weights
    try:
        even = integer_weights(rows.reshape(len(rows), -1)).floats().reshape(rows.shape)
    except NoIntegers:
        return weights
    return even.T if transposed else even


def _model(
    graph: Graph,
    nodes: Iterable[Node],
    outputs: Iterable[str],
    sign_zero: int | None,
    *,
    single: bool,
) -> onnx.ModelProto:
    """Return a model without weights, which are fed."""
    proto = helper.make_graph(
        [_node(graph, node, _domain(graph, node, sign_zero), single) for node in nodes],
        "graph",
        [],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    opsets = [helper.make_opsetid(domain, 1) for domain in ("qonnx", "xnorflow")]
    opsets.append(helper.make_opsetid("", graph.version))
    return helper.make_model(proto, opset_imports=opsets)


def _domain(graph: Graph, node: Node, sign_zero: int | None) -> str:
    if node.opset != STANDARD:
        return "qonnx" if node.opset == QONNX else node.domain
    # A zero that a second sign decides is no matter of the user's word.
    own = node.kind == "Sign" and sign_zero is not None and not signed_again(graph, node)
    return "xnorflow" if own else ""


def _node(graph: Graph, node: Node, domain: str, single: bool) -> onnx.NodeProto:
    outputs = list(node.outputs)
    # Second outputs that nobody reads, such as a dropout's mask.
    while len(outputs) > 1 and node.kind != "TopK" and not _in_use(graph, outputs[-1]):
        outputs.pop()
    proto = helper.make_node(node.kind, node.inputs, outputs, node.name, domain=domain)
    for key, value in node.attributes.items():
        if node.kind == "Cast" and key == "to" and value in _SINGLE and not single:
            value = TensorProto.DOUBLE
        if isinstance(value, TensorProto) and value.data_type in _SINGLE and not single:
            value = numpy_helper.from_array(_double(numpy_helper.to_array(value)))
        empty = isinstance(value, list) and not value
        kind = AttributeProto.INTS if empty else None
        proto.attribute.append(helper.make_attribute(key, value, attr_type=kind))
    return proto


def _in_use(graph: Graph, tensor: str) -> bool:
    return tensor in graph.output_tensors or bool(graph.readers(tensor))


@cache
def _operators() -> tuple[type, ...]:
    """Return our operators, once onnx's executor is needed: it takes 0.1 s to import."""
    from onnx.reference.op_run import OpRun

    class BipolarQuant(OpRun):
        op_domain = "qonnx"

        def _run(self, x: NDArray, scale: NDArray) -> tuple[NDArray]:
            return (np.where(x >= 0, scale, -scale),)

    class IntQuant(OpRun):
        op_domain = "qonnx"

        def _run(
            self, x: NDArray, scale: NDArray, zero: NDArray, bits: NDArray, **attributes: Any
        ) -> tuple[NDArray]:
            return (_quantize(x, scale, zero, bits, **attributes),)

    class Quant(IntQuant):
        op_domain = "qonnx"

    class MultiThreshold(OpRun):
        op_domain = "qonnx"

        def _run(self, x: NDArray, thresholds: NDArray, **attributes: Any) -> tuple[NDArray]:
            return (_count_thresholds(x, thresholds, **attributes),)

    class XnorPopcountMatMul(OpRun):
        op_domain = "qonnx"

        def _run(self, x: NDArray, weights: NDArray) -> tuple[NDArray]:
            return (x @ weights + (1.0 - x) @ (1.0 - weights),)

    class Conv(OpRun):
        op_domain = ""

        def _run(
            self, x: NDArray, weights: NDArray, bias: NDArray | None = None, **attributes: Any
        ) -> tuple[NDArray]:
            return (_convolve(x, weights, bias, attributes),)

    class BatchNormalization(OpRun):
        op_domain = ""

        def _run(self, x: NDArray, *parameters: NDArray, **attributes: Any) -> tuple[NDArray]:
            return (_normalize(x, parameters, attributes["epsilon"]),)

    class MaxPool(OpRun):
        op_domain = ""

        def _run(self, x: NDArray, **attributes: Any) -> tuple[NDArray]:
            lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
            return (_windows(x, attributes["kernel_shape"], attributes, lowest).max(axis=(4, 5)),)

    class AveragePool(OpRun):
        op_domain = ""

        def _run(self, x: NDArray, **attributes: Any) -> tuple[NDArray]:
            return (_average(x, attributes),)

    of_qonnx = (BipolarQuant, IntQuant, Quant, MultiThreshold, XnorPopcountMatMul)
    return (*of_qonnx, Conv, BatchNormalization, MaxPool, AveragePool)


def _sign(zero: int | None) -> tuple[type, ...]:
    """Return the operator `Sign` that gives for 0 what the user says, if he says it."""
    if zero is None:
        return ()
    from onnx.reference.op_run import OpRun

    class Sign(OpRun):
        op_domain = "xnorflow"

        def _run(self, x: NDArray) -> tuple[NDArray]:
            return (np.where(x == 0, np.array(zero, x.dtype), np.sign(x)),)

    return (Sign,)


def _quantize(
    x: NDArray,
    scale: NDArray,
    zero_point: NDArray,
    bits: NDArray,
    signed: int = 1,
    narrow: int = 1,
    rounding_mode: str = "ROUND",
    **_: Any,
) -> NDArray:
    """Return what QONNX's `Quant` gives; a signed bit is -1 or +1, as in QONNX's executor."""
    integers = x / scale + zero_point
    if signed and np.all(bits == 1):
        integers = np.where(integers >= 0, 1.0, -1.0)
    else:
        size = 2.0 ** np.asarray(bits, np.float64)
        low = narrow - size / 2 if signed else 0.0
        high = size / 2 - 1 if signed else size - 1 - narrow
        integers = _ROUNDINGS[rounding_mode.upper()](np.clip(integers, low, high))
    return np.asarray((integers - zero_point) * scale, x.dtype)


_ROUNDINGS: Mapping[str, Any] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.copysign(np.ceil(np.abs(x)), x),
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
    "HALF_DOWN": lambda x: np.copysign(np.ceil(np.abs(x) - 0.5), x),
}


def _count_thresholds(
    x: NDArray,
    thresholds: NDArray,
    out_scale: float = 1.0,
    out_bias: float = 0.0,
    data_layout: str = "",
    **_: Any,
) -> NDArray:
    """Return ``out_scale * (number of thresholds up to x) + out_bias``.

    `thresholds` has shape (C, levels) or (1, levels); without a `data_layout`, tensors of rank 3
    have their channels last and others second.
    """
    layout = data_layout or ("NWC" if x.ndim == 3 else "NC")
    axis = layout.index("C")
    channels_last = np.moveaxis(x, axis, -1)
    counts = (channels_last[..., None] >= thresholds).sum(axis=-1)
    return np.moveaxis(out_scale * counts.astype(np.float64) + out_bias, -1, axis)


def _convolve(
    x: NDArray, weights: NDArray, bias: NDArray | None, attributes: Mapping[str, Any]
) -> NDArray:
    groups = attributes.get("group") or 1
    parts = [
        # (M, C, KH, KW) and (N, C, rows, columns, KH, KW) over C, KH and KW.
        np.tensordot(
            kernel, _windows(part, kernel.shape[2:], attributes, 0), ((1, 2, 3), (1, 4, 5))
        )
        for part, kernel in zip(np.split(x, groups, 1), np.split(weights, groups), strict=True)
    ]
    sums = np.moveaxis(np.concatenate(parts), 0, 1)
    return sums if bias is None else sums + bias.reshape(-1, 1, 1)


def _normalize(x: NDArray, parameters: Sequence[NDArray], epsilon: float) -> NDArray:
    shape = (-1, *[1] * (x.ndim - 2))
    gamma, beta, mean, var = (array.reshape(shape) for array in parameters)
    return gamma * (x - mean) / np.sqrt(var + epsilon) + beta


def _average(x: NDArray, attributes: Mapping[str, Any]) -> NDArray:
    kernel = attributes["kernel_shape"]
    sums = _windows(x, kernel, attributes, 0).sum(axis=(4, 5))
    inside = np.ones((1, 1, *x.shape[2:]))
    border = 1 if attributes.get("count_include_pad") else 0
    return sums / _windows(inside, kernel, attributes, border).sum(axis=(4, 5))


def _windows(
    x: NDArray, kernel: Sequence[int], attributes: Mapping[str, Any], fill: float
) -> NDArray:
    """Return the windows of images (N, C, H, W), shape (N, C, rows, columns, KH, KW)."""
    if x.ndim != 4:
        raise ValueError(f"windows over a tensor of shape {x.shape}")
    strides = attributes.get("strides") or (1, 1)
    dilations = attributes.get("dilations") or (1, 1)
    extents = [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = _pads(x.shape[2:], extents, strides, attributes)
    sides = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    padded = np.pad(x, sides, constant_values=fill)
    if attributes.get("ceil_mode"):
        rests = [size - extent for size, extent in zip(padded.shape[2:], extents, strict=True)]
        if any(rest % stride for rest, stride in zip(rests, strides, strict=True)):
            raise ValueError("a last window that reaches beyond its image (ceil_mode = 1)")
    places = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=(2, 3))
    (down, across), (rows, columns) = strides, dilations
    return places[:, :, ::down, ::across, ::rows, ::columns]


def _pads(
    sizes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
    attributes: Mapping[str, Any],
) -> tuple[int, ...]:
    """Return the rows and columns to add: top, left, bottom, right."""
    auto = attributes.get("auto_pad") or "NOTSET"
    if not auto.startswith("SAME"):
        explicit = attributes.get("pads") if auto == "NOTSET" else None
        return tuple(explicit or (0, 0, 0, 0))
    totals = [
        max((-(-size // stride) - 1) * stride + extent - size, 0)
        for size, extent, stride in zip(sizes, extents, strides, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (*small, *large) if auto == "SAME_UPPER" else (*large, *small)
