"""Weight layers: `Gemm`, `MatMul` and `Conv`."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from xnorflow.frontend.chain import Chain, Content, exact
from xnorflow.frontend.graph import Node
from xnorflow.frontend.windows import window
from xnorflow.network import Conv2d

__all__ = ["conv", "gemm", "matmul"]


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
    padding, value = _merged_padding(chain, node, places.padding)
    signs, magnitudes = _signs(chain, node, weights.reshape(len(weights), -1))
    signs = signs.reshape(weights.shape).transpose(0, 2, 3, 1)
    op = Conv2d("", signs, places.stride, places.dilation, padding, value, groups)
    chain.conv(node, op, places.out)
    chain.affine(node, scale=magnitudes)
    if node.has_input(2):
        bias = chain.constants.numbers(node, 2, "bias")
        if bias.shape != (len(weights),):
            chain.graph.refuse(
                node,
                f"has a bias of shape {bias.shape} for {len(weights)} outputs",
                "give one value for each",
            )
        chain.affine(node, offset=exact(bias))


def _merged_padding(
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
    """Append ``gain * matrix @ x``, as a `Dense` of -1 and +1 and an `Affine`."""
    if matrix.shape[1] != chain.shape[-1]:
        chain.graph.refuse(
            node,
            f"has weights for {matrix.shape[1]} inputs but gets {chain.shape[-1]}",
            "make both sizes equal",
        )
    signs, magnitudes = _signs(chain, node, matrix)
    chain.dense(node, signs)
    chain.affine(node, scale=(gain * value for value in magnitudes))


def _signs(
    chain: Chain, node: Node, matrix: NDArray
) -> tuple[NDArray[np.int8], tuple[Fraction, ...]]:
    """Split weights into signs and magnitudes, and check what the layer takes.

    Parameters
    ----------
    chain : Chain
    node : Node
    matrix : ndarray, shape (MH, MW)

    Returns
    -------
    signs : ndarray of int8, shape (MH, MW)
    magnitudes : tuple of Fraction
        One for all neurons or one for each.
    """
    _check_content(chain, node)
    # float64 holds every int8 and float32, and an int64 that is no weight stays one.
    magnitudes = np.abs(matrix.astype(np.float64))
    rows = magnitudes.max(axis=1)
    uneven = np.flatnonzero(np.any(magnitudes != rows[:, None], axis=1))
    if uneven.size or not rows.any():
        _refuse_weights(chain, node, matrix, int(uneven[0]) if uneven.size else 0)
    silent = int(np.count_nonzero(rows == 0))
    if silent:
        chain.note(
            f"{node}: {silent} of {len(rows)} neurons have only zero weights; each is a layer "
            f"output with the scale 0."
        )
    signs = np.where(matrix >= 0, 1, -1).astype(np.int8)
    return signs, exact(rows[:1] if np.all(rows == rows[0]) else rows)


def _check_content(chain: Chain, node: Node) -> None:
    if chain.content is Content.ACCUMULATORS:
        chain.graph.refuse(
            node,
            f"takes the sums of {chain.source}, which nothing makes binary",
            "put a BipolarQuant between the two",
        )
    if chain.content is not Content.FRAME:
        return
    chain.require_float(node)
    if chain.graph.input_type == TensorProto.INT8:
        chain.graph.refuse(
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
    chain.graph.refuse(
        node,
        f"has weights that are not binary (neuron {row} has {shown})",
        "put a BipolarQuant between the stored weights and this node, or store -1 and +1, "
        "times one magnitude for each neuron",
    )
