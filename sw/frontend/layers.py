"""Weight layers: `Gemm` and `MatMul`."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.chain import Chain, Content, exact
from xnorflow.frontend.graph import Node

__all__ = ["gemm", "matmul"]


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
    if chain.content is not Content.BITS:
        _refuse_content(chain, node)
    if matrix.shape[1] != chain.shape[-1]:
        chain.graph.refuse(
            node,
            f"has weights for {matrix.shape[1]} inputs but gets {chain.shape[-1]}",
            "make both sizes equal",
        )
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
    chain.dense(node, np.where(matrix >= 0, 1, -1).astype(np.int8))
    scale = exact(rows[:1] if np.all(rows == rows[0]) else rows)
    chain.affine(node, scale=(gain * value for value in scale))


def _refuse_content(chain: Chain, node: Node) -> None:
    if chain.content is Content.FRAME:
        chain.graph.refuse(
            node,
            "is the first layer and takes inputs that nothing makes binary",
            "put a BipolarQuant before it (inputs of one bit are what this version takes)",
        )
    chain.graph.refuse(
        node,
        f"takes the sums of {chain.source}, which nothing makes binary",
        "put a BipolarQuant between the two",
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
