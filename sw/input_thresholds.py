"""Exact float32 thresholds that turn the raw frame into bits or small integers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor, inf, lcm

import numpy as np
from numpy.typing import NDArray

from xnorflow.levels import Levels
from xnorflow.network import Quantize
from xnorflow.surd import ZERO, Surd

__all__ = ["quantizer_thresholds", "sign_threshold", "step_thresholds"]

_HALF = Fraction(1, 2)
_INFINITY = np.float32(np.inf)


def sign_threshold(scale: Surd, offset: Surd) -> np.float32:
    """Return the smallest float32 for which the bit of a sign is 1.

    The bit is ``scale * x + offset >= 0``; with a negative scale it is the complement of that, so
    that it rises with ``x``.
    """
    if not scale.terms:
        return np.float32(-np.inf if offset.sign() >= 0 else np.inf)
    return _first_float32s(-offset / scale, ZERO, [scale.sign() < 0])[0]


def quantizer_thresholds(op: Quantize, scale: Surd, offset: Surd) -> NDArray[np.float32]:
    """Return the smallest float32 for each level of a quantizer.

    The integer ``q = clip(round_half_even(y / op.scale + op.zero_point), low, high)`` of ``y =
    scale * x + offset`` counts up from `low`, or, with a negative scale, down from `high`, so that
    its distance from there rises with ``x``.

    Parameters
    ----------
    op : Quantize
    scale, offset : Surd

    Returns
    -------
    ndarray of float32, shape (high - low,)
        Rising; the n-th (from 1) is where the distance becomes n.
    """
    levels = op.high - op.low
    if not scale.terms:
        rounded = _round_half_even(offset / Surd.of(op.scale) + Surd.of(op.zero_point))
        level = min(max(rounded, op.low), op.high) - op.low
        return np.where(np.arange(levels) < level, -np.inf, np.inf).astype(np.float32)
    falling = scale.sign() < 0
    # q >= k where y >= op.scale * (k - 1/2 - op.zero_point); the tie belongs to even k.
    ks = range(op.high, op.low, -1) if falling else range(op.low + 1, op.high + 1)
    first = op.scale * (ks[0] - _HALF - op.zero_point)
    step = Surd.of(op.scale) / abs(scale)
    # Falling, x is to be beyond q >= k: the tie is out for even k.
    return _first_float32s(
        (Surd.of(first) - offset) / scale, step, [(k % 2 == 0) == falling for k in ks]
    )


def step_thresholds(levels: Levels, channel: int, scale: Surd, offset: Surd) -> NDArray[np.float32]:
    """Return the smallest float32 for each step of a channel, as `quantizer_thresholds` does."""
    if not scale.terms:
        reached = levels.reached(channel, offset)
        return np.where(np.arange(levels.top) < reached, -np.inf, np.inf).astype(np.float32)
    falling = scale.sign() < 0
    steps = levels.row(channel)
    return np.concatenate(
        [
            _first_float32s((Surd.of(t) - offset) / scale, ZERO, [strict != falling])
            for t, strict in (reversed(steps) if falling else steps)
        ]
    )


def _round_half_even(value: Surd) -> int:
    exact = value.rational()
    return floor(value + Surd.of(_HALF)) if exact is None else round(exact)


def _first_float32s(start: Surd, step: Surd, strict: Sequence[bool]) -> NDArray[np.float32]:
    """Return for each n the smallest float32 that is at least ``start + n * step``.

    Parameters
    ----------
    start, step : Surd
    strict : sequence of bool
        One for each n: whether equal is too small.

    Returns
    -------
    ndarray of float32, shape (len(strict),)
        Finite numbers or ``+inf``.
    """
    first, by = start.rational(), step.rational()
    if first is not None and by is not None:
        denominator = lcm(first.denominator, by.denominator)
        progressions = [(int(first * denominator), int(by * denominator))]
    else:
        # Square roots: between two progressions, which nearly always agree on the float32.
        denominator = 1 << 256
        progressions = list(zip(start.bounds(256), step.bounds(256), strict=True))
    columns = [_at_least(low, rise, denominator, strict) for low, rise in progressions]
    lowest, highest = columns[0], columns[-1]
    for n in np.flatnonzero(lowest < highest).tolist():
        while lowest[n] < highest[n]:
            rest = (Surd.of(Fraction(float(lowest[n]))) - start - step * Surd.of(n)).sign()
            if rest > 0 or (rest == 0 and not strict[n]):
                break
            lowest[n] = np.nextafter(lowest[n], _INFINITY)
    return lowest


def _at_least(first: int, by: int, denominator: int, strict: Sequence[bool]) -> NDArray[np.float32]:
    """Return the smallest float32 from ``(first + n * by) / denominator`` on, for each n."""
    numerators = [first + n * by for n in range(len(strict))]
    near = np.array([_quotient(numerator, denominator) for numerator in numerators])
    with np.errstate(over="ignore"):
        guess = near.astype(np.float32)
    # Rounding keeps the order, and keeps to the two float32 numbers around a quotient; so where
    # the guess differs from the float64 it differs from the quotient in the same direction.
    small = guess < near
    for n in np.flatnonzero(guess == near).tolist():
        if np.isinf(near[n]):
            small[n] = near[n] < 0
        else:
            p, q = float(near[n]).as_integer_ratio()
            rest = p * denominator - numerators[n] * q
            small[n] = rest < 0 or (rest == 0 and strict[n])
    with np.errstate(over="ignore"):
        # Adding zero leaves no negative one.
        return np.where(small, np.nextafter(guess, _INFINITY), guess) + np.float32(0)


def _quotient(numerator: int, denominator: int) -> float:
    try:
        return numerator / denominator
    except OverflowError:
        return inf if numerator > 0 else -inf
