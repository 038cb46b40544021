"""Chains of affine maps per channel, exactly: what stands between two matrices of a network."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.network import Affine, BatchNorm
from xnorflow.surd import Surd

__all__ = ["Chain", "apply", "same", "turned"]

Chain = list[tuple[Surd, Surd]]
"""Per channel the scale (of one term at most) and the offset since the last unit."""


def same(one: tuple[Surd, Surd], two: tuple[Surd, Surd]) -> bool:
    """Return whether two maps are equal; a number may be written in more than one way."""
    return one == two or not ((one[0] - two[0]).terms or (one[1] - two[1]).terms)


def turned(chain: Chain, polarity: NDArray[np.int64]) -> Chain:
    """Return the maps times `polarity`, -1 or 1 for each channel."""
    return [
        (scale, offset) if p > 0 else (-scale, -offset)
        for (scale, offset), p in zip(chain, polarity, strict=True)
    ]


def apply(op: Affine | BatchNorm, chain: Chain, where: str) -> Chain:
    """Append `op`, which has one parameter set for all channels or one each, to the chain.

    Raises
    ------
    UserError
        If the numbers of channels disagree, a parameter is not finite or a variance not positive.
    """
    if isinstance(op, BatchNorm):
        maps = _batch_norm(op, where)
    else:
        maps = [
            (Surd.of(op.scale[i % len(op.scale)]), Surd.of(op.offset[i % len(op.offset)]))
            for i in range(max(len(op.scale), len(op.offset)))
        ]
        if {len(op.scale), len(op.offset)} - {1, len(maps)}:
            raise UserError(
                f"{where}: node {op.name!r} has {len(op.scale)} scales and {len(op.offset)} "
                f"offsets; give one for all channels or one each"
            )
    if len(maps) not in (1, len(chain)):
        raise UserError(
            f"{where}: node {op.name!r} has parameters for {len(maps)} channels but its input has "
            f"{len(chain)}; give one for all channels or one each"
        )
    result = []
    cache: dict[tuple[int, Surd, Surd], tuple[Surd, Surd]] = {}
    for i, (scale, offset) in enumerate(chain):
        key = (i % len(maps), scale, offset)
        if key not in cache:
            gain, bias = maps[key[0]]
            cache[key] = (gain * scale, gain * offset + bias)
        result.append(cache[key])
    return result


def _batch_norm(op: BatchNorm, where: str) -> Chain:
    """Return scale ``gamma / sqrt(var + eps)`` and offset ``beta - scale * mean`` per channel."""
    for key in ("gamma", "beta", "mean", "var"):
        values = getattr(op, key)
        if values.shape != op.gamma.shape or values.ndim != 1:
            raise UserError(
                f"{where}: batch norm {op.name!r} has {key} of shape {values.shape}; "
                f"give gamma, beta, mean and var one value per channel"
            )
        if not np.all(np.isfinite(values)):
            raise UserError(
                f"{where}: batch norm {op.name!r} has a {key} that is not finite; "
                f"export the model again with finite parameters"
            )
    # ONNX attributes are float32; a Python float that came from one must not gain digits.
    eps = np.float32(op.eps)
    if not np.isfinite(eps):
        raise UserError(
            f"{where}: batch norm {op.name!r} has the epsilon {op.eps}; give a finite one"
        )
    maps = []
    for gamma, beta, mean, var in zip(op.gamma, op.beta, op.mean, op.var, strict=True):
        square = _exact(var) + _exact(eps)
        if square <= 0:
            raise UserError(
                f"{where}: batch norm {op.name!r} has var + epsilon = {float(square):g}; "
                f"its square root must be positive, so export positive variances"
            )
        scale = Surd.of(_exact(gamma), 1 / square)
        maps.append((scale, Surd.of(_exact(beta)) - scale * Surd.of(_exact(mean))))
    return maps


def _exact(value: np.float32) -> Fraction:
    return Fraction(float(value))
