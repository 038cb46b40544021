"""Both sides of an addition as integers of one unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xnorflow.affine import Chain
from xnorflow.errors import UserError
from xnorflow.surd import ONE, ZERO, Surd

__all__ = ["added", "of_lanes"]

_LARGEST_GAIN = (1 << 15) - 1
"""Largest magnitude of the factor that a side is multiplied by."""


def of_lanes(chain: Chain) -> Chain:
    """Return maps of bits -1 and +1 as those of lanes 0 and 1: a bit is ``2 * lane - 1``."""
    return [(scale + scale, offset - scale) for scale, offset in chain]


def added(main: Chain, side: Chain, what: str) -> tuple[NDArray[np.int32], Chain]:
    """Return what integers of both sides are to be multiplied by, and the map of their sum.

    ``s * u + t * v = unit * (p * u + q * v)`` with integers p and q where ``t / s`` is rational.

    Parameters
    ----------
    main, side : list of (scale, offset)
        C of them each.
    what : str
        The addition, for the error.

    Returns
    -------
    gains : ndarray of int32, shape (2, C)
    chain : list of (scale, offset)

    Raises
    ------
    UserError
        If a ratio is no rational number, or none of small integers.
    """
    gains, chain = [], []
    for channel, ((s, o), (t, p)) in enumerate(zip(main, side, strict=True)):
        pair, unit = _ratio(s, t)
        if pair is None or max(map(abs, pair)) > _LARGEST_GAIN:
            raise UserError(
                f"{what} adds values in steps of {float(s):g} and {float(t):g} in channel "
                f"{channel}, which are no small integers of one unit; add the sums before batch "
                f"norm, or give both sides scales of a simple ratio"
            )
        gains.append(pair)
        chain.append((unit, o + p))
    return np.array(gains, np.int32).T, chain


def _ratio(s: Surd, t: Surd) -> tuple[tuple[int, int] | None, Surd]:
    """Return integers (p, q) and a unit with ``s = p * unit`` and ``t = q * unit``."""
    if not s.terms:
        return ((0, 1), t) if t.terms else ((0, 0), ONE)
    if not t.terms:
        return (1, 0), s
    ratio = (t / s).rational()
    if ratio is None:
        return None, ZERO
    return (ratio.denominator, ratio.numerator), s / Surd.of(ratio.denominator)
