"""Integer scores: scale and offset per class that rank classes exactly as real logits do."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from xnorflow.affine import Chain
from xnorflow.errors import UserError
from xnorflow.surd import ZERO, Surd

__all__ = ["integer_scores"]

_PRODUCT_BITS = 48
"""Largest size of a score's product ``scale * acc`` before the search gives up."""


@dataclass(frozen=True, eq=False)
class _Boundaries:
    """The pairs of accumulators (a, b) of two classes (c, d) next to the line of equal logits.

    Attributes
    ----------
    c, d : ndarray of int64, shape (pairs,)
        The two classes; every a of class c has its entry.
    start : ndarray of int64, shape (pairs,)
        Where a pair's entries start in `a` and `b`.
    a, b : ndarray of int64, shape (entries,)
    """

    c: NDArray[np.int64]
    d: NDArray[np.int64]
    start: NDArray[np.int64]
    a: NDArray[np.int64]
    b: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: list[tuple[int, int, NDArray, NDArray]]) -> _Boundaries:
        """Join pairs (c, d, a, b), leaving out those without entries."""
        pairs = [pair for pair in pairs if len(pair[2])]
        sizes = np.array([len(a) for _, _, a, _ in pairs], np.int64)
        none = np.zeros(0, np.int64)
        return cls(
            c=np.array([c for c, _, _, _ in pairs], np.int64),
            d=np.array([d for _, d, _, _ in pairs], np.int64),
            start=np.cumsum(sizes) - sizes,
            a=np.concatenate([none, *(a for _, _, a, _ in pairs)]),
            b=np.concatenate([none, *(b for _, _, _, b in pairs)]),
        )

    def differences(self, scales: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return ``scale_c * a - scale_d * b``, shape (entries,)."""
        sizes = np.diff(self.start, append=len(self.a))
        of_c, of_d = np.repeat(scales[self.c], sizes), np.repeat(scales[self.d], sizes)
        return of_c * self.a - of_d * self.b


def integer_scores(
    chain: Chain, low: NDArray[np.int64], high: NDArray[np.int64], step: int, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return integers whose ``scale * acc + offset`` ranks classes as the exact logits do.

    Classes c < d are ranked alike when ``score_c(a) >= score_d(b)`` exactly where
    ``logit_c(a) >= logit_d(b)``, for all accumulators a and b: equal logits go to the lower index,
    as arg-max does. Given the integer scales, each pair of classes bounds ``offset_d - offset_c``
    from both sides; such difference constraints have a solution if and only if shortest paths
    settle (Cormen et al., *Introduction to Algorithms*, section "Difference constraints"), and
    the settled distances are one. So each candidate is accepted or refused exactly.

    Candidates are the logit scales times a growing number, rounded, and the same with scales that
    differ by a hair kept apart. The search ends: lower the logits of class c by ``c * e``, with
    ``classes * e`` below the least gap between unequal logits; then no two are equal, the ranking
    is the same, and every rounding finer than the remaining gaps keeps it.

    Parameters
    ----------
    chain : list of (scale, offset)
        The exact logits per class, scales not negative.
    low, high : ndarray of int64, shape (classes,)
        Least and largest accumulator of each class.
    step : int
        Accumulators are ``low, low + step, .. high``.
    where : str
        Network and layer, for the error.

    Returns
    -------
    scale, offset : ndarray of int64, shape (classes,)

    Raises
    ------
    UserError
        If no candidate ranks exactly whose products with accumulators fit `_PRODUCT_BITS`.
    """
    # A class whose logit is constant has a single accumulator value as far as ranking goes.
    lattices = [
        np.arange(first, last + 1, step, dtype=np.int64) if scale.terms else np.zeros(1, np.int64)
        for (scale, _), first, last in zip(chain, low, high, strict=True)
    ]
    wins, losses = _boundaries(chain, lattices, step)
    largest = ZERO
    for scale, _ in chain:
        largest = scale if (scale - largest).sign() > 0 else largest
    ratios = [(scale / largest).bounds(256)[0] if scale.terms else 0 for scale, _ in chain]
    widest = int(max(np.abs(low).max(), np.abs(high).max()))
    multiplier = 1
    while multiplier * widest < 1 << _PRODUCT_BITS:
        rounded = np.array([(multiplier * r + (1 << 255)) >> 256 for r in ratios], np.int64)
        apart = _increasing(rounded, ratios)
        for scales in [rounded] if np.array_equal(rounded, apart) else [rounded, apart]:
            offsets = _offsets(scales, wins, losses)
            if offsets is not None:
                return scales, _shifted(scales, offsets, low, high)
        multiplier += max(1, multiplier // 16)
    raise UserError(
        f"{where}: its logits come so close to each other that ranking them exactly takes more "
        f"than {_PRODUCT_BITS} bits; use one batch-norm scale for all classes"
    )


def _shifted(
    scales: NDArray[np.int64],
    offsets: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Shift all offsets alike, which is free, so that scores need the fewest bits."""
    if np.all(offsets == offsets[0]):
        return np.zeros_like(offsets)
    middle = int((offsets + scales * high).max() + (offsets + scales * low).min())
    return offsets - ceil(Fraction(middle, 2))


def _increasing(rounded: NDArray[np.int64], ratios: list[int]) -> NDArray[np.int64]:
    """Return `rounded`, raised where needed so that larger ratios have larger integers."""
    scales = {0: 0}
    last = 0
    for ratio, value in sorted(zip(ratios, rounded.tolist(), strict=True)):
        if ratio not in scales:
            last = scales[ratio] = max(value, last + 1)
    return np.array([scales[ratio] for ratio in ratios], np.int64)


def _boundaries(
    chain: Chain, lattices: list[NDArray[np.int64]], step: int
) -> tuple[_Boundaries, _Boundaries]:
    """Find the boundary of every pair of classes c < d, from both sides.

    The first result holds, for each a, the largest b that ranks behind it, the second the
    smallest b that ranks before it; all other b follow because scores rise with accumulators.
    """
    wins, losses = [], []
    for c, d in combinations(range(len(chain)), 2):
        a, b = lattices[c], lattices[d]
        if chain[c][0].terms and not (chain[c][0] - chain[d][0]).terms:
            won, lost = _alike(chain[c], chain[d], a, b, step)
        else:
            count = _count_behind(chain[c], chain[d], a, b, step)
            some, rest = count > 0, count < len(b)
            won = a[some], b[count[some] - 1]
            lost = a[rest], b[count[rest]]
        wins.append((c, d, *won))
        losses.append((c, d, *lost))
    return _Boundaries.of(wins), _Boundaries.of(losses)


def _alike(
    of_c: tuple[Surd, Surd],
    of_d: tuple[Surd, Surd],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    step: int,
) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """Return the boundary of two classes of one scale: only ``a - b`` counts, so one entry each.

    The entries are the least difference that wins and the largest that loses, with a b of zero.
    """
    (scale, offset_c), (_, offset_d) = of_c, of_d
    lowest, highest = int(a[0] - b[-1]), int(a[-1] - b[0])
    # The differences are lowest, lowest + step, .. highest; those from `least` on win.
    count = max(0, ceil(((offset_d - offset_c) / scale - Surd.of(lowest)) / Surd.of(step)))
    least = lowest + step * count
    won = [least] if least <= highest else []
    lost = [min(least - step, highest)] if least > lowest else []
    wins, losses = np.array(won, np.int64), np.array(lost, np.int64)
    return (wins, np.zeros_like(wins)), (losses, np.zeros_like(losses))


def _count_behind(
    of_c: tuple[Surd, Surd],
    of_d: tuple[Surd, Surd],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    step: int,
) -> NDArray[np.int64]:
    """Return for each a how many b have ``logit_d(b) <= logit_c(a)``, 0 .. len(b)."""
    (scale_c, offset_c), (scale_d, offset_d) = of_c, of_d
    if scale_d.terms:
        # With b = step * k + b[0] the k that do are all up to slope * a + start.
        slope = scale_c / scale_d / Surd.of(step)
        start = ((offset_c - offset_d) / scale_d - Surd.of(int(b[0]))) / Surd.of(step)
        counts = [k + 1 for k in _floors(slope, start, a)]
    else:
        signs = [(scale_c * Surd.of(n) + offset_c - offset_d).sign() for n in a.tolist()]
        counts = [int(sign >= 0) for sign in signs]
    return np.array([min(max(n, 0), len(b)) for n in counts], np.int64)


def _floors(slope: Surd, start: Surd, a: NDArray[np.int64]) -> list[int]:
    """Return ``floor(slope * a + start)`` exactly for all a."""
    bits = 64
    (low, high), (start_low, start_high) = slope.bounds(bits), start.bounds(bits)
    floors = []
    for n in a.tolist():
        ends = (low * n, high * n)
        below, above = (min(ends) + start_low) >> bits, (max(ends) + start_high) >> bits
        floors.append(below if below == above else floor(slope * Surd.of(n) + start))
    return floors


def _offsets(
    scales: NDArray[np.int64], wins: _Boundaries, losses: _Boundaries
) -> NDArray[np.int64] | None:
    """Return offsets that rank every pair of classes rightly, or None if there are none."""
    # reach[i, j] is the upper bound of offset_j - offset_i.
    reach = np.full((len(scales), len(scales)), np.int64(1) << 60)
    if len(wins.c):
        reach[wins.c, wins.d] = np.minimum.reduceat(wins.differences(scales), wins.start)
    if len(losses.c):
        worst = np.maximum.reduceat(losses.differences(scales), losses.start)
        reach[losses.d, losses.c] = -1 - worst
    offsets = np.zeros(len(scales), np.int64)
    for _ in range(len(scales) + 1):
        shorter = np.minimum(offsets, (offsets[:, None] + reach).min(axis=0))
        if np.array_equal(shorter, offsets):
            return offsets
        offsets = shorter
    return None
