"""Which handler imports which operator; a new operator is a new line here and its handler."""

from __future__ import annotations

from collections.abc import Callable

from xnorflow.frontend import elementwise, layers, pools, quantizers, scores, shapes, windows
from xnorflow.frontend.chain import Chain
from xnorflow.frontend.graph import QONNX, STANDARD, Node

__all__ = ["HANDLERS", "Handler", "find"]

Handler = Callable[[Chain, Node], None]
"""Appends what a node means to the chain, or refuses the node."""

HANDLERS: dict[tuple[str, str], Handler] = {
    (STANDARD, "Add"): elementwise.arithmetic,
    (STANDARD, "ArgMax"): scores.arg_max,
    (STANDARD, "AveragePool"): pools.average_pool,
    (STANDARD, "BatchNormalization"): elementwise.batch_normalization,
    (STANDARD, "Cast"): shapes.cast,
    (STANDARD, "Conv"): layers.conv,
    (STANDARD, "Div"): elementwise.arithmetic,
    (STANDARD, "Dropout"): shapes.dropout,
    (STANDARD, "Flatten"): shapes.flatten,
    (STANDARD, "Gemm"): layers.gemm,
    (STANDARD, "GlobalAveragePool"): pools.global_average_pool,
    (STANDARD, "GlobalMaxPool"): pools.global_max_pool,
    (STANDARD, "Identity"): shapes.identity,
    (STANDARD, "LogSoftmax"): scores.softmax,
    (STANDARD, "MatMul"): layers.matmul,
    (STANDARD, "MaxPool"): pools.max_pool,
    (STANDARD, "Mul"): elementwise.arithmetic,
    (STANDARD, "Neg"): elementwise.negate,
    (STANDARD, "Pad"): windows.pad,
    (STANDARD, "ReduceMean"): pools.reduce_mean,
    (STANDARD, "Reshape"): shapes.reshape,
    (STANDARD, "Sign"): quantizers.sign,
    (STANDARD, "Softmax"): scores.softmax,
    (STANDARD, "Squeeze"): shapes.squeeze,
    (STANDARD, "Sub"): elementwise.arithmetic,
    (STANDARD, "TopK"): scores.top_k,
    (STANDARD, "Transpose"): shapes.transpose,
    (STANDARD, "Unsqueeze"): shapes.unsqueeze,
    (QONNX, "BipolarQuant"): quantizers.bipolar_quant,
    (QONNX, "FloatQuant"): quantizers.other_quant,
    (QONNX, "IntQuant"): quantizers.quant,
    (QONNX, "Quant"): quantizers.quant,
    (QONNX, "Trunc"): quantizers.other_quant,
}
"""Handlers by operator set and operator."""

_NOT_BINARY = "is an activation that is not binary"

_REASONS = {
    "Clip": _NOT_BINARY,
    "ConvTranspose": "is a transposed convolution, which is not supported",
    "Elu": _NOT_BINARY,
    "HardTanh": _NOT_BINARY,
    "LeakyRelu": _NOT_BINARY,
    "MultiThreshold": "is an activation of several levels, and this version takes one bit",
    "Relu": _NOT_BINARY,
    "Sigmoid": _NOT_BINARY,
    "Tanh": _NOT_BINARY,
}


def find(node: Node) -> Handler:
    """Return the handler of a node; for an unknown operator, the one that refuses it."""
    return HANDLERS.get((node.opset, node.kind), _refuse)


def _refuse(chain: Chain, node: Node) -> None:
    kinds = ", ".join(kind for opset, kind in HANDLERS if opset == STANDARD)
    reason = _REASONS.get(node.kind, "is an operator that is not supported")
    if not node.opset:
        reason = f"has the unknown operator domain {node.domain!r}"
    chain.graph.refuse(node, reason, f"accepted are BipolarQuant, Quant, {kinds}")
