"""Which handler imports which operator; a new operator is a new line here and its handler."""

from __future__ import annotations

from collections.abc import Callable

from xnorflow.frontend import (
    comparisons,
    elementwise,
    joins,
    layers,
    levels,
    pools,
    quantizers,
    scores,
    shapes,
    squashing,
    windows,
)
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
    (STANDARD, "Concat"): joins.lonely,
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
    (STANDARD, "Round"): quantizers.rounding,
    (STANDARD, "Sign"): quantizers.sign,
    (STANDARD, "Softmax"): scores.softmax,
    (STANDARD, "Squeeze"): shapes.squeeze,
    (STANDARD, "Sub"): elementwise.arithmetic,
    (STANDARD, "Sum"): joins.lonely,
    (STANDARD, "TopK"): scores.top_k,
    (STANDARD, "Transpose"): shapes.transpose,
    (STANDARD, "Unsqueeze"): shapes.unsqueeze,
    **dict.fromkeys(((STANDARD, kind) for kind in comparisons.COMPARISONS), comparisons.comparison),
    (STANDARD, "Not"): comparisons.negation,
    (STANDARD, "Where"): comparisons.where,
    **dict.fromkeys(((STANDARD, kind) for kind in squashing.SQUASHES), squashing.squash),
    **dict.fromkeys(((STANDARD, kind) for kind in squashing.ACTIVATIONS), squashing.activation),
    (QONNX, "BipolarQuant"): quantizers.bipolar_quant,
    (QONNX, "FloatQuant"): quantizers.other_quant,
    (QONNX, "IntQuant"): quantizers.quant,
    (QONNX, "MultiThreshold"): levels.multi_threshold,
    (QONNX, "Quant"): quantizers.quant,
    (QONNX, "Trunc"): quantizers.other_quant,
    (QONNX, "XnorPopcountMatMul"): layers.xnor_popcount_matmul,
}
"""Handlers by operator set and operator."""

_REASONS = {
    "ConvTranspose": "is a transposed convolution, which is not supported",
}


def find(node: Node) -> Handler:
    """Return the handler of a node; for an unknown operator, the one that refuses it."""
    return HANDLERS.get((node.opset, node.kind), _refuse)


def _refuse(chain: Chain, node: Node) -> None:
    kinds = ", ".join(
        kind
        for (opset, kind), handler in HANDLERS.items()
        if opset == STANDARD and handler is not squashing.activation
    )
    reason = _REASONS.get(node.kind, "is an operator that is not supported")
    if not node.opset:
        reason = f"has the unknown operator domain {node.domain!r}"
    chain.graph.refuse(node, reason, f"accepted are BipolarQuant, MultiThreshold, Quant, {kinds}")
