"""Weight layers: `Gemm`, `MatMul` and `Conv`."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from xnorflow.frontend.chain import Chain, Content, exact
from xnorflow.frontend.graph import Node
from xnorflow.frontend.weights import IntegerWeights, NoIntegers, integer_weights
from xnorflow.frontend.windows import window
from xnorflow.network import Affine, Conv2d, Dense

__all__ = [
    "conv",
    "gemm",
    "matmul",
    "merged_padding",
    "xnor_popcount_matmul",
]


def gemm(chain: Chain, node: Node) -> None:
    """``alpha * x @ W' + beta * C``, with W' = W.T where ``transB`` is 1."""
    chain.require_data(node, "first input (A), and the weights as the second")
    if chain.graph.integer(node, "transA", 0):
        chain.graph.refuse(node, "transposes the data (transA = 1)", "give transA = 0")
    if len(chain.shape) != 1:
        _refuse_shape(chain, node)
    weights = _matrix(chain, node)
    if not chain.graph.integer(node, "transB", 0):
        weights = weights.T
    alpha = chain.graph.number(node, "alpha", 1.0)
    _dense(chain, node, weights, Fraction(alpha))
    if node.has_input(2):
        bias = chain.spread(node, chain.constants.numbers(node, 2, "bias"))
        beta = Fraction(chain.graph.number(node, "beta", 1.0))
        chain.affine(node, offset=(beta * value for value in exact(bias)))


def matmul(chain: Chain, node: Node) -> None:
    """``x @ W``, with W of shape (inputs, outputs)."""
    chain.require_data(node, "first input, and the weights as the second, of shape (in, out)")
    if prod(chain.shape[:-1]) != 1:
        _refuse_shape(chain, node)
    _dense(chain, node, _matrix(chain, node).T, Fraction(1))


def xnor_popcount_matmul(chain: Chain, node: Node) -> None:
    """Number of inputs that equal the weight, of bits and weights in {0, 1} (FINN)."""
    chain.require_data(node, "first input, and the weights as the second, of shape (in, out)")
    if prod(chain.shape[:-1]) != 1:
        _refuse_shape(chain, node)
    matrix = _matrix(chain, node).T
    if not np.all((matrix == 0) | (matrix == 1)):
        chain.graph.refuse(node, "has weights other than 0 and 1", "give bits")
    if not _are_zero_and_one(chain):
        chain.graph.refuse(node, "takes data that are not bits of 0 and 1", "give it bits")
    # With x = 2b - 1 of bits b in {0, 1}, the number of equal pairs is (w @ x + inputs) / 2.
    chain.affine(node, (Fraction(2),), (Fraction(-1),))
    _dense(chain, node, 2 * matrix.astype(np.int8) - 1, Fraction(1, 2))
    chain.affine(node, offset=(Fraction(matrix.shape[1], 2),))


def _are_zero_and_one(chain: Chain) -> bool:
    ends = [Fraction(-1), Fraction(1)]
    for op in chain.maps:
        if not isinstance(op, Affine) or len(set(op.scale)) > 1 or len(set(op.offset)) > 1:
            return False
        ends = [op.scale[0] * end + op.offset[0] for end in ends]
    return chain.content is Content.BITS and sorted(ends) == [0, 1]


def conv(chain: Chain, node: Node) -> None:
    """``x * W + B`` over images (N, C, H, W), with W of shape (M, C / group, KH, KW)."""
    chain.require_data(node, "first input, and the weights as the second")
    *_, channels = chain.image(node)
    weights = chain.constants.numbers(node, 1, "weight tensor")
    if weights.ndim != 4 or 0 in weights.shape:
        chain.graph.refuse(
            node,
            f"has weights of shape {weights.shape}",
            "give a tensor (M, C / group, KH, KW) that is not empty",
        )
    groups = chain.graph.integer(node, "group", 1)
    if groups < 1 or len(weights) % groups or weights.shape[1] * groups != channels:
        chain.graph.refuse(
            node,
            f"has weights for {len(weights)} outputs and {weights.shape[1]} channels in each of "
            f"{groups} groups but gets {channels} channels",
            "make both sizes equal",
        )
    places = window(chain, node, weights.shape[2:])
    padding, value = merged_padding(chain, node, places.padding)
    split = _integers(chain, node, weights.reshape(len(weights), -1))
    op = Conv2d(
        "",
        split.integers.reshape(weights.shape).transpose(0, 2, 3, 1),
        places.stride,
        places.dilation,
        padding,
        value,
        groups,
        coefficients=split.coefficients,
    )
    chain.conv(node, op, places.out)
    chain.affine(node, scale=split.scales)
    if node.has_input(2):
        bias = chain.constants.numbers(node, 2, "bias")
        if bias.shape != (len(weights),):
            chain.graph.refuse(
                node,
                f"has a bias of shape {bias.shape} for {len(weights)} outputs",
                "give one value for each",
            )
        chain.affine(node, offset=exact(bias))


def merged_padding(
    chain: Chain, node: Node, own: tuple[int, int, int, int]
) -> tuple[tuple[int, int, int, int], Fraction]:
    """Return the padding of a `Pad` before the convolution and of its own, and their value."""
    if chain.padding is None:
        return own, Fraction(0)
    if any(own) and chain.padding.value:
        chain.graph.refuse(
            node,
            f"pads with 0 what {chain.padding.node} pads with {float(chain.padding.value):g}",
            "give pads = 0, and the whole padding to the Pad",
        )
    top, left, bottom, right = (a + b for a, b in zip(own, chain.padding.sizes, strict=True))
    return (top, left, bottom, right), chain.padding.value


def _matrix(chain: Chain, node: Node) -> NDArray:
    matrix = chain.constants.numbers(node, 1, "weight matrix")
    if matrix.ndim != 2 or 0 in matrix.shape:
        chain.graph.refuse(
            node, f"has weights of shape {matrix.shape}", "give a matrix that is not empty"
        )
    return matrix


def _refuse_shape(chain: Chain, node: Node) -> None:
    chain.graph.refuse(
        node,
        f"takes frames of shape {chain.shape}",
        "put a Flatten before it, so that each frame is one vector",
    )


def _dense(chain: Chain, node: Node, matrix: NDArray, gain: Fraction) -> None:
    """Append ``gain * matrix @ x``, as a `Dense` of integers and an `Affine`."""
    if matrix.shape[1] != chain.shape[-1]:
        chain.graph.refuse(
            node,
            f"has weights for {matrix.shape[1]} inputs but gets {chain.shape[-1]}",
            "make both sizes equal",
        )
    weights = _integers(chain, node, matrix)
    chain.dense(node, Dense("", weights.integers, coefficients=weights.coefficients))
    chain.affine(node, scale=(gain * value for value in weights.scales))


def _integers(chain: Chain, node: Node, matrix: NDArray) -> IntegerWeights:
    """Return weights, shape (MH, MW), as integers and scales, and check what the layer takes."""
    _check_content(chain, node)
    try:
        weights = integer_weights(matrix)
    except NoIntegers as refusal:
        _refuse_weights(chain, node, matrix, refusal.row)
        weights = integer_weights(np.where(matrix >= 0, 1, -1))
    if weights.noise:
        chain.note(
            f"{node}: the weights of {weights.uneven} of {len(matrix)} neurons differ in magnitude "
            f"by up to {weights.noise:.1g} of it from integers times a scale, which is taken as "
            f"rounding."
        )
    silent = int(np.count_nonzero(~matrix.any(axis=1)))
    if silent and 0 in weights.scales:
        chain.note(
            f"{node}: {silent} of {len(matrix)} neurons have only zero weights; each is a layer "
            f"output with the scale 0."
        )
    return weights


def _check_content(chain: Chain, node: Node) -> None:
    if chain.boolean:
        chain.require_float(node)
    if chain.content is Content.ACCUMULATORS:
        chain.obstacle(
            node,
            f"takes the sums of {chain.source}, which nothing makes binary",
            "put a BipolarQuant or Quant between the two",
        )
    if chain.content is not Content.FRAME:
        return
    chain.require_float(node)
    if chain.graph.input_type == TensorProto.INT8:
        chain.obstacle(
            node,
            "is the first layer and takes frames of type INT8, which nothing quantizes",
            "put a BipolarQuant or Quant before it, or give frames of type UINT8",
        )
    if chain.graph.input_type != TensorProto.UINT8 and not chain.options.scales_input:
        chain.note(
            f"{node}: there is no quantizer before the first layer, so frames must hold whole "
            f"numbers from 0 to 255."
        )


def _refuse_weights(chain: Chain, node: Node, matrix: NDArray, row: int) -> None:
    found = np.unique(matrix[row])
    shown = ", ".join(f"{value:g}" for value in found[:4]) + (", ..." if found.size > 4 else "")
    chain.obstacle(
        node,
        f"has weights that are neither binary nor integers of up to 8 bits times one scale for "
        f"each neuron (neuron {row} has {shown})",
        "put a BipolarQuant or a Quant of 2 to 8 bits between the stored weights and this node",
    )
