"""The fixed point of XNOR-Net's K: magnitudes of affine maps of integers, as integers.

A pixel's gain is the mean of ``|s * y + o|`` over its channels, with integers y. Here every channel
gets integers a and b, so that ``|a * y + b|`` counts the magnitude in one unit u that all channels
share.

- *Exact*: where all s and o are small multiples of one number, that is the unit (it may be
  irrational, as where all channels have one batch norm), and nothing is rounded.
- *Rounded*: otherwise a window's sum gets `SUM_BITS` bits, or `WIDE_SUM_BITS` of integers y that
  are wide themselves, as products with other gains are: of their range only a small part is used.
  That leaves so many bits for a pixel's sum, and the unit is a power of two that gives the largest
  s as many; a and b are the nearest integers, and low bits of the sum are rounded away. A channel
  is then off by no more than ``|(a * u - s) * y + (b * u - o)|`` is at one of the ends of y, and
  the sum by half of what is shifted out, which is of that size too; `FixedPoint.error` adds that
  up.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, frexp, gcd, lcm

import numpy as np
from numpy.typing import NDArray

from xnorflow.affine import Chain
from xnorflow.surd import ONE, Surd

__all__ = ["SUM_BITS", "WIDE_SUM_BITS", "FixedPoint", "fixed_point"]

SUM_BITS = 20
"""Bits of a window's sum where it is rounded: of 3 x 3 pixels, gains have 17 bits and a sign."""

WIDE_SUM_BITS = 26
"""The same of wide integers."""

_WIDE = 1 << 17
"""From this magnitude on integers are wide: a multiplier of 18 bits does not take them."""

_MOST_BITS = 60
"""Bits of a pixel's sum before anything is shifted out."""

_FEWEST_BITS = 8
"""Bits of a pixel's sum that are worth a multiplication."""

_GUARD = 1 + 1e-9
"""Covers the roundings of the bound itself, which is computed in floating point."""


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """Magnitudes of pixels as integers, see `xnorflow.lowered.LoweredMagnitude`.

    Attributes
    ----------
    gains, offsets : ndarray of int64, shape (C,)
    shift : int
    unit : Surd
        What a step of the sum stands for, the shift included.
    error : float
        Bound on the error of the channels' mean; 0 where it is exact.
    """

    gains: NDArray[np.int64]
    offsets: NDArray[np.int64]
    shift: int
    unit: Surd
    error: float


def fixed_point(chain: Chain, low: int, high: int, taps: int, most: int) -> FixedPoint | None:
    """Choose the integers.

    Parameters
    ----------
    chain : list of (scale, offset)
        Per channel, from integers to the numbers of which the magnitudes are.
    low, high : int
        Range of the integers.
    taps : int
        Pixels of a window.
    most : int
        Largest sum of a window that what follows can take.

    Returns
    -------
    FixedPoint or None
        None if `most` leaves less than `_FEWEST_BITS` bits for a pixel.
    """
    exact = _exact(chain)
    if exact is not None:
        gains, offsets, unit = exact
        if _largest(gains, offsets, low, high) * taps <= most:
            return FixedPoint(*_arrays(gains, offsets), 0, unit, 0.0)
    return _rounded(chain, low, high, taps, most)


def _arrays(gains: list[int], offsets: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return integers with the signs of both turned where a gain is negative."""
    signs = [-1 if gain < 0 else 1 for gain in gains]
    first, second = (
        np.array([sign * value for sign, value in zip(signs, values, strict=True)], np.int64)
        for values in (gains, offsets)
    )
    return first, second


def _largest(gains: list[int], offsets: list[int], low: int, high: int) -> int:
    """Return the largest sum of magnitudes."""
    return sum(
        max(abs(a * end + b) for end in (low, high)) for a, b in zip(gains, offsets, strict=True)
    )


def _exact(chain: Chain) -> tuple[list[int], list[int], Surd] | None:
    """Return integers and the unit of which all numbers are multiples, if there is one."""
    numbers = [number for one in chain for number in one]
    base = next((number for number in numbers if len(number.terms) == 1), ONE)
    ratios: list[Fraction] = []
    for number in numbers:
        ratio = (number / base).rational()
        if ratio is None:
            return None
        ratios.append(ratio)
    denominator = lcm(*(ratio.denominator for ratio in ratios))
    integers = [int(ratio * denominator) for ratio in ratios]
    common = gcd(*integers) or 1
    integers = [value // common for value in integers]
    unit = base * Surd.of(Fraction(common, denominator))
    return integers[::2], integers[1::2], abs(unit)


def _rounded(chain: Chain, low: int, high: int, taps: int, most: int) -> FixedPoint | None:
    numbers = [(float(scale), float(offset)) for scale, offset in chain]
    slope = max(abs(scale) for scale, _ in numbers) or max(abs(offset) for _, offset in numbers)
    reach = max(-low, high)
    most = min(most, (1 << (SUM_BITS if reach < _WIDE else WIDE_SUM_BITS)) - 1) // taps
    if most >> _FEWEST_BITS == 0:
        return None
    total = sum(abs(scale) * reach + abs(offset) for scale, offset in numbers)
    bits = min(most.bit_length() - frexp(slope)[1], _MOST_BITS - frexp(total)[1])
    step = Surd.of(Fraction(2) ** bits)
    half = Surd.of(Fraction(1, 2))
    gains = [floor(scale * step + half) for scale, _ in chain]
    offsets = [floor(offset * step + half) for _, offset in chain]
    largest = _largest(gains, offsets, low, high)
    shift = 0
    while largest + ((1 << shift) // 2) >> shift > most:
        shift += 1
    unit = Fraction(1, 2**bits) if bits >= 0 else Fraction(2**-bits)
    off = 0.0
    for (scale, offset), gain, constant in zip(chain, gains, offsets, strict=True):
        slope_error = scale - Surd.of(gain * unit)
        rest = offset - Surd.of(constant * unit)
        off += max(abs(float(slope_error * Surd.of(end) + rest)) for end in (low, high))
    off += float(unit * ((1 << shift) // 2))
    return FixedPoint(
        *_arrays(gains, offsets), shift, Surd.of(unit * (1 << shift)), off / len(chain) * _GUARD
    )
