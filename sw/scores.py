"""Integer scores: scale and offset per class that rank classes exactly as real logits do."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import ceil, floor, lcm

import numpy as np
from numpy.typing import NDArray

from xnorflow.affine import Chain
from xnorflow.errors import UserError
from xnorflow.surd import ZERO, Surd

__all__ = ["integer_scores"]

_PRODUCT_BITS = 60
"""Largest size of a score's product ``scale * acc`` before the search gives up."""

_MANY_CLASSES = 64
"""From more classes on, offsets that are integers are taken as they are: pairs take minutes."""

_LATTICE_POINTS = 1 << 20
"""Most accumulators a class for which scales of their own are ranked: it takes seconds."""

_FAR = np.int64(1) << 62
"""No bound at all; offsets stay so small that adding it to them fits 64 bits."""


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
    whole = _whole_offsets(chain) if len(chain) > _MANY_CLASSES else None
    if whole is not None and abs(whole).max() < 1 << _PRODUCT_BITS:
        scales = np.ones(len(chain), np.int64)
        return scales, _shifted(scales, whole, low, high)
    # A class whose logit is constant has a single accumulator value as far as ranking goes.
    lattices = [
        range(first, last + 1, step) if scale.terms else range(1)
        for (scale, _), first, last in zip(chain, low.tolist(), high.tolist(), strict=True)
    ]
    if max(map(len, lattices)) > _LATTICE_POINTS and not _one_scale(chain):
        multiples = _multiples(chain)
        if multiples is not None and _fits(*multiples, low, high):
            return multiples[0], _shifted(*multiples, low, high)
        raise UserError(
            f"{where}: its logits have scales of their own on up to {max(map(len, lattices))} "
            f"values each, too many to rank exactly; use one batch-norm scale for all classes"
        )
    wins, losses = _boundaries(chain, lattices, step)
    largest = ZERO
    for scale, _ in chain:
        largest = scale if (scale - largest).sign() > 0 else largest
    ratios = [(scale / largest).bounds(256)[0] if scale.terms else 0 for scale, _ in chain]
    widest = max(1, int(np.abs(low).max()), int(np.abs(high).max()))
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


def _whole_offsets(chain: Chain) -> NDArray[np.int64] | None:
    """Return the offsets in units of a scale that all classes have, if these are integers."""
    scale = chain[0][0]
    if not scale.terms or not _one_scale(chain):
        return None
    offsets = [(offset / scale).rational() for _, offset in chain]
    if any(offset is None or offset.denominator > 1 for offset in offsets):
        return None
    return np.array([int(offset) for offset in offsets if offset is not None], np.int64)


def _multiples(chain: Chain) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return scales and offsets in one unit, if they are multiples of it of up to 62 bits."""
    base = next(scale for scale, _ in chain if scale.terms)
    ratios = [(number / base).rational() for one in chain for number in one]
    exact = [ratio for ratio in ratios if ratio is not None]
    unit = lcm(*(ratio.denominator for ratio in exact))
    if len(exact) < len(ratios) or max(abs(ratio) * unit for ratio in exact) >= 1 << 62:
        return None
    numbers = np.array([int(ratio * unit) for ratio in exact], np.int64)
    numbers //= np.gcd.reduce(numbers)
    return numbers[::2], numbers[1::2]


def _fits(
    scales: NDArray[np.int64],
    offsets: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
) -> bool:
    """Return whether products and offsets have `_PRODUCT_BITS`."""
    widest = max(1, int(np.abs(low).max()), int(np.abs(high).max()))
    return max(int(scales.max()) * widest, int(np.abs(offsets).max())) < 1 << _PRODUCT_BITS


def _one_scale(chain: Chain) -> bool:
    return not any((scale - chain[0][0]).terms for scale, _ in chain)


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


def _boundaries(chain: Chain, lattices: list[range], step: int) -> tuple[_Boundaries, _Boundaries]:
    """Find the boundary of every pair of classes c < d, from both sides.

    The first result holds, for each a, the largest b that ranks behind it, the second the
    smallest b that ranks before it; all other b follow because scores rise with accumulators.
    """
    wins, losses = [], []
    for c, d in combinations(range(len(chain)), 2):
        if chain[c][0].terms and not (chain[c][0] - chain[d][0]).terms:
            won, lost = _alike(chain[c], chain[d], lattices[c], lattices[d], step)
        else:
            a, b = (
                np.arange(r.start, r.stop, step, dtype=np.int64) for r in (lattices[c], lattices[d])
            )
            count = _count_behind(chain[c], chain[d], a, b, step)
            some, rest = count > 0, count < len(b)
            won = _extreme(a[some], b[count[some] - 1], 1)
            lost = _extreme(a[rest], b[count[rest]], -1)
        wins.append((c, d, *won))
        losses.append((c, d, *lost))
    return _Boundaries.of(wins), _Boundaries.of(losses)


def _alike(
    of_c: tuple[Surd, Surd],
    of_d: tuple[Surd, Surd],
    a: range,
    b: range,
    step: int,
) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """Return the boundary of two classes of one scale: only ``a - b`` counts, so one entry each.

    The entries are the least difference that wins and the largest that loses, with a b of zero.
    """
    (scale, offset_c), (_, offset_d) = of_c, of_d
    lowest, highest = a[0] - b[-1], a[-1] - b[0]
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
    if not scale_d.terms:
        signs = [(scale_c * Surd.of(n) + offset_c - offset_d).sign() for n in a.tolist()]
        return np.array([sign >= 0 for sign in signs], np.int64)
    # With b = step * k + b[0] the k that do are all up to slope * a + start.
    slope = scale_c / scale_d / Surd.of(step)
    start = ((offset_c - offset_d) / scale_d - Surd.of(int(b[0]))) / Surd.of(step)
    return _floors(slope, start, a, -1, len(b) - 1) + 1


def _floors(
    slope: Surd, start: Surd, a: NDArray[np.int64], least: int, most: int
) -> NDArray[np.int64]:
    """Return ``floor(slope * a + start)`` for all a, clipped to least .. most, exactly."""
    try:
        rise, first = float(slope), float(start)
    except OverflowError:
        rise, first, error = 0.0, 0.0, np.full(len(a), np.inf)
    else:
        # Four roundings of at most 2**-53 each, and room to spare.
        error = (np.abs(rise * a) + abs(first)) * 2.0**-50
    near = rise * a + first
    floors = np.clip(np.floor(near), least, most).astype(np.int64)
    # Only what may lie on the other side of an integer that matters needs more than floats.
    unsure = (np.floor(near - error) != np.floor(near + error)) & (near + error >= least)
    for n in np.flatnonzero(unsure & (near - error <= most + 1)).tolist():
        exact = floor(slope * Surd.of(int(a[n])) + start)
        floors[n] = min(max(exact, least), most)
    return floors


def _extreme(a: NDArray[np.int64], b: NDArray[np.int64], side: int) -> tuple[NDArray, NDArray]:
    """Return the corners of the convex hull of points whose a rise, of its upper or lower side.

    A linear function with a positive factor of a and a negative one of b, as a difference of
    scores is, takes its least value at a corner of the upper side (``side=1``) and its largest at
    one of the lower (-1): all other points may go.
    """
    while len(a) > 2:
        before, behind = a[1:-1] - a[:-2], a[2:] - a[1:-1]
        up, on = b[1:-1] - b[:-2], b[2:] - b[1:-1]
        corner = np.full(len(a), True)
        corner[1:-1] = side * (up * behind - on * before) > 0
        if corner.all():
            break
        a, b = a[corner], b[corner]
    return a, b


def _offsets(
    scales: NDArray[np.int64], wins: _Boundaries, losses: _Boundaries
) -> NDArray[np.int64] | None:
    """Return offsets that rank every pair of classes rightly, or None if there are none."""
    # reach[i, j] is the upper bound of offset_j - offset_i.
    reach = np.full((len(scales), len(scales)), _FAR)
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
        if shorter.min() < -_FAR // 2:
            return None
        offsets = shorter
    return None
