"""Quantizers: `BipolarQuant`, ONNX `Sign` where it does the same, and `Quant` of the frame."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import NoReturn

from xnorflow.frontend.chain import Chain, Content, exact
from xnorflow.frontend.constants import bipolar_scale, refuse_multi_bit
from xnorflow.frontend.graph import Node
from xnorflow.network import Affine, BatchNorm, Quantize

__all__ = ["bipolar_quant", "other_quant", "quant", "sign", "zero_is_reachable"]

_MOST_BITS = 8


def bipolar_quant(chain: Chain, node: Node) -> None:
    """``scale * (+1 where x >= 0, else -1)``."""
    chain.require_data(node, "first input, and the scale as the second")
    scale = chain.spread(node, bipolar_scale(chain.constants, node))
    chain.sign(node)
    chain.integer_type = False
    chain.affine(node, scale=exact(scale))


def quant(chain: Chain, node: Node) -> None:
    """``scale * (clip(round(x / scale + zero_point)) - zero_point)`` of the frame."""
    if chain.content is not Content.FRAME:
        other_quant(chain, node)
    chain.require_data(node, "first input")
    chain.require_float(node)
    bits = _number(chain, node, 3, "bit width")
    if bits == 1:
        other_quant(chain, node)
    if bits not in range(2, _MOST_BITS + 1):
        chain.graph.refuse(
            node,
            f"quantizes the frame to {float(bits):g} bits",
            f"give 2 to {_MOST_BITS} bits, or a BipolarQuant for one",
        )
    for key in ("signed", "narrow"):
        if key not in node.attributes:
            chain.graph.refuse(node, f"has no attribute {key!r}", "export the model again")
    rounding = chain.graph.text(node, "rounding_mode", "ROUND")
    if rounding not in ("ROUND", "HALF_EVEN"):
        chain.graph.refuse(
            node, f"rounds in the mode {rounding}", "give ROUND, which takes halves to even"
        )
    scale = _number(chain, node, 1, "scale")
    if scale <= 0:
        chain.graph.refuse(
            node, f"has the scale {float(scale):g}", "the scale of a Quant must be positive"
        )
    narrow = chain.graph.integer(node, "narrow", 0) != 0
    half = 1 << (int(bits) - 1)
    if chain.graph.integer(node, "signed", 1):
        low, high = -half + narrow, half - 1
    else:
        low, high = 0, 2 * half - 1 - narrow
    zero_point = _number(chain, node, 2, "zero point")
    chain.quantize(node, Quantize(node.name, scale, zero_point, low, high))


def _number(chain: Chain, node: Node, index: int, role: str) -> Fraction:
    """Return a parameter that is the same for all channels."""
    values = set(exact(chain.constants.numbers(node, index, role)))
    if len(values) != 1:
        chain.graph.refuse(
            node,
            f"has a {role} for each channel",
            "give one for all, and what differs between channels as a Mul and Add before it",
        )
    return values.pop()


def other_quant(chain: Chain, node: Node) -> NoReturn:
    """Refuse a quantizer to several bits."""
    what = "the input" if chain.content is Content.FRAME else "activations"
    refuse_multi_bit(chain.constants, node, what)


def sign(chain: Chain, node: Node) -> None:
    """Accept ONNX's sign, which gives 0 for 0, where its input cannot be 0."""
    if chain.values is None or zero_is_reachable(chain.values, chain.maps):
        chain.graph.refuse(
            node,
            "gives 0 where its input is 0, which may happen here, and 0 is not binary",
            "use BipolarQuant, whose sign of 0 is +1, or a bias that keeps the sums off 0",
        )
    chain.note(f"{node}: taken as BipolarQuant, because its input is never 0.")
    chain.sign(node)


def zero_is_reachable(values: range, maps: list[Affine | BatchNorm]) -> bool:
    """Say whether a chain of maps takes some integer to exactly zero in some channel.

    Parameters
    ----------
    values : range
        The integers.
    maps : list of Affine or BatchNorm
        Applied in order.

    Returns
    -------
    bool
        False only if proven; a batch norm is followed through as the last map alone.
    """
    *first, last = maps or [Affine("")]
    affines = [op for op in first if isinstance(op, Affine)]
    if len(affines) < len(first):
        return True
    channels = max(max(len(op.scale), len(op.offset)) for op in [*affines, Affine("")])
    if isinstance(last, Affine):
        affines.append(last)
        channels = max(channels, len(last.scale), len(last.offset))
    else:
        channels = max(channels, len(last.gamma))
    for channel in range(channels):
        scale, offset = Fraction(1), Fraction(0)
        for op in affines:
            gain = op.scale[channel % len(op.scale)]
            scale, offset = gain * scale, gain * offset + op.offset[channel % len(op.offset)]
        targets: list[Fraction] | None = [Fraction(0)]
        if isinstance(last, BatchNorm):
            targets = _batch_norm_zero(last, channel % len(last.gamma))
        if targets is None:
            return True
        for target in targets:
            if scale == 0:
                if offset == target:
                    return True
                continue
            preimage = (target - offset) / scale
            if preimage.denominator == 1 and preimage.numerator in values:
                return True
    return False


def _batch_norm_zero(op: BatchNorm, channel: int) -> list[Fraction] | None:
    """Return the rational inputs at which a batch norm gives zero; None means all of them."""
    gamma, beta, mean, var = (
        Fraction(float(array[channel])) for array in (op.gamma, op.beta, op.mean, op.var)
    )
    if gamma == 0:
        return None if beta == 0 else []
    if beta == 0:
        return [mean]
    square = var + Fraction(op.eps)
    # sqrt(p / q) = sqrt(p * q) / q is rational exactly if p * q is a square.
    product = square.numerator * square.denominator
    root = isqrt(product)
    if root * root != product:
        return []
    return [mean - beta * Fraction(root, square.denominator) / gamma]
