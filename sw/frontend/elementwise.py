"""Maps per element: arithmetic with a constant, and batch norm."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.chain import Chain, exact
from xnorflow.frontend.graph import Node
from xnorflow.network import BatchNorm

__all__ = ["arithmetic", "batch_normalization", "negate"]

_DEFAULT_EPSILON = float(np.float32(1e-5))


def arithmetic(chain: Chain, node: Node) -> None:
    """``x + c``, ``x - c``, ``c - x``, ``x * c`` or ``x / c``, exactly."""
    chain.require_float(node)
    data_first = chain.data_first(node)
    if node.kind == "Div" and not data_first:
        chain.graph.refuse(node, "divides a constant by the data", "divide the data by a constant")
    constant = chain.constants.numbers(node, 1 if data_first else 0, "constant")
    values = exact(chain.spread(node, constant))
    match node.kind:
        case "Add":
            chain.affine(node, offset=values)
        case "Sub" if data_first:
            chain.affine(node, offset=(-value for value in values))
        case "Sub":
            chain.affine(node, (Fraction(-1),), values)
        case "Mul":
            chain.affine(node, values)
        case "Div":
            if 0 in values:
                chain.graph.refuse(node, "divides by zero", "give divisors other than zero")
            chain.affine(node, (1 / value for value in values))


def negate(chain: Chain, node: Node) -> None:
    """``-x``."""
    chain.require_float(node)
    chain.affine(node, (Fraction(-1),))


def batch_normalization(chain: Chain, node: Node) -> None:
    """``gamma * (x - mean) / sqrt(var + epsilon) + beta`` per channel, the axis after batch."""
    chain.require_float(node)
    chain.require_data(node, "first input")
    if chain.graph.integer(node, "training_mode", 0) or not chain.graph.integer(node, "spatial", 1):
        chain.graph.refuse(
            node,
            "is in training mode or not per channel",
            "export the model for inference (model.eval() in torch)",
        )
    roles = ("gamma", "beta", "mean", "var")
    gamma, beta, mean, var = (
        _parameter(chain, node, index, role) for index, role in enumerate(roles, start=1)
    )
    eps = float(np.float32(chain.graph.number(node, "epsilon", _DEFAULT_EPSILON)))
    worst = Fraction(float(var.min())) + Fraction(eps)
    if worst <= 0:
        chain.graph.refuse(
            node,
            f"has var + epsilon = {float(worst):g}, whose square root divides",
            "export positive variances",
        )
    # One axis per dimension behind the channels, so that the parameters broadcast.
    shape = (-1, *[1] * (len(chain.shape) - 1))
    gamma, beta, mean, var = (
        chain.spread(node, array.reshape(shape)) for array in (gamma, beta, mean, var)
    )
    chain.map(BatchNorm(node.name, gamma, beta, mean, var, eps))


def _parameter(chain: Chain, node: Node, index: int, role: str) -> NDArray[np.float32]:
    values = chain.constants.numbers(node, index, role)
    if values.shape != chain.shape[:1]:
        chain.graph.refuse(
            node,
            f"has {role} of shape {values.shape} for {chain.shape[0]} channels",
            "give one value for each channel",
        )
    single = values.astype(np.float32)
    if not np.array_equal(single, values):
        chain.graph.refuse(
            node, f"has {role} that float32 cannot hold", "export the model in float32"
        )
    return single
