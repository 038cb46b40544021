"""Lowering: from what a network means to the integers that the hardware computes, exactly.

Between two matrices a channel undergoes a chain of affine maps whose scales may hold square roots
(batch norm divides by ``sqrt(var + eps)``). Every decision below - is this value at least zero,
which logit is larger - is taken on such numbers without rounding, see :class:`_Surd`; float32
arithmetic, which may round a near-tie the other way, is never consulted.

The walk over the operations keeps, per channel, the affine map ``value = scale * unit + offset``
from the last *unit* to the tensor at hand, where the unit is the raw frame, a bit in {-1, +1} or
an integer accumulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import combinations
from math import ceil, floor, isqrt, prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.lowered import InputQuantizer, LoweredLayer, LoweredNetwork, LoweredOutput
from xnorflow.network import Affine, BatchNorm, Dense, Flatten, Network, Sign

__all__ = ["lower"]


@dataclass(frozen=True)
class _Surd:
    """An exact real number ``sum(c * sqrt(r) for r, c in terms)``.

    The radicands ``r`` are positive integers no two of which multiply to a square, and the
    coefficients are nonzero. Square roots of such radicands are linearly independent over the
    rationals (Besicovitch, *On the linear independence of fractional powers of integers*, 1940),
    so the number is zero exactly when it has no terms, and narrowing intervals find the sign of
    any other in finitely many steps. No radicand needs factoring.
    """

    terms: tuple[tuple[int, Fraction], ...] = ()

    @classmethod
    def of(cls, value: Fraction | int, square: Fraction | int = 1) -> _Surd:
        """Return ``value * sqrt(square)``."""
        square = Fraction(square)
        # sqrt(p / q) = sqrt(p * q) / q
        radicand = square.numerator * square.denominator
        return cls._sum([(radicand, Fraction(value) / square.denominator)])

    @classmethod
    def _sum(cls, terms: list[tuple[int, Fraction]]) -> _Surd:
        sums: dict[int, Fraction] = {1: Fraction(0)}
        for radicand, coefficient in terms:
            for known in sums:
                root = isqrt(known * radicand)
                if root * root == known * radicand:
                    sums[known] += coefficient * Fraction(root, known)
                    break
            else:
                sums[radicand] = coefficient
        return cls(tuple((r, c) for r, c in sums.items() if c))

    def __neg__(self) -> _Surd:
        return _Surd(tuple((r, -c) for r, c in self.terms))

    def __abs__(self) -> _Surd:
        return -self if self.sign() < 0 else self

    def __add__(self, other: _Surd) -> _Surd:
        if not other.terms:
            return self
        if not self.terms:
            return other
        return self._sum([*self.terms, *other.terms])

    def __sub__(self, other: _Surd) -> _Surd:
        return self + -other

    def __mul__(self, other: _Surd) -> _Surd:
        return self._sum([(r * s, c * d) for r, c in self.terms for s, d in other.terms])

    def __truediv__(self, other: _Surd) -> _Surd:
        """Divide by a number of one term (every scale is one: a product of gains and roots)."""
        ((radicand, coefficient),) = other.terms
        return self * _Surd(((radicand, 1 / (coefficient * radicand)),))

    def bounds(self, bits: int) -> tuple[int, int]:
        """Return integers with ``low <= self * 2**bits <= high``, at most one apart a term."""
        low = high = 0
        for radicand, coefficient in self.terms:
            p, q = abs(coefficient.numerator), coefficient.denominator
            if radicand == 1:
                below, rest = divmod(p << bits, q)
                above = below + (rest > 0)
            else:
                below = isqrt((p * p * radicand << 2 * bits) // (q * q))
                above = below + 1
            if coefficient > 0:
                low, high = low + below, high + above
            else:
                low, high = low - above, high - below
        return low, high

    def sign(self) -> int:
        """Return -1, 0 or +1."""
        signs = {1 if c > 0 else -1 for _, c in self.terms}
        if len(signs) < 2:
            return signs.pop() if signs else 0
        bits = 64
        while True:
            low, high = self.bounds(bits)
            if low > 0 or high < 0:
                return 1 if low > 0 else -1
            bits *= 2

    def __floor__(self) -> int:
        if all(r == 1 for r, _ in self.terms):
            return floor(sum((c for _, c in self.terms), Fraction(0)))
        # Irrational, hence never an integer: the interval ends up between two of them.
        bits = 64
        while True:
            low, high = self.bounds(bits)
            if low >> bits == high >> bits:
                return low >> bits
            bits *= 2

    def __ceil__(self) -> int:
        return -floor(-self)

    def __float__(self) -> float:
        bits = 64
        while self.terms:
            low, high = self.bounds(bits)
            if (high - low) << 56 <= abs(low):
                return float(Fraction(low, 1 << bits))
            bits *= 2
        return 0.0


_ZERO, _ONE, _HALF = _Surd(), _Surd.of(1), _Surd.of(Fraction(1, 2))

_PRODUCT_BITS = 48
"""Largest size of a score's product ``scale * acc`` before lowering gives up."""

_Chain = list[tuple[_Surd, _Surd]]
"""Per channel the scale (of one term at most) and the offset since the last unit."""


class _Unit(Enum):
    """What the chain starts from."""

    FRAME = "the raw frame"
    BIT = "a bit"
    ACCUMULATOR = "an accumulator"


def lower(network: Network) -> LoweredNetwork:
    """Lower a network to integers that give, for every frame, the exact network's class.

    - *Input*: the maps before the first `Sign` become one float32 threshold per feature. Where
      the scale is negative the complement ``x > t`` is the bit, and the column of the first
      layer's weights changes sign.
    - *Hidden layers*: the maps between a `Dense` and its `Sign` become one integer threshold per
      neuron (Umuroglu et al., *FINN*, 2017, section 4.2.2). Where the scale is negative the row of
      weights changes sign, so ``acc >= threshold`` is the one comparison; a zero scale gives a
      neuron that is always on (``-MW``) or dead (``MW + 1``).
    - *Bits with a scale and offset* (a quantizer's scale): a magnitude common to all channels moves
      behind the next `Dense`; signs go into its columns; offsets become one constant per neuron.
    - *Output*: the maps after the last `Dense` become an integer scale and offset per class, see
      :func:`_integer_scores`; a negative scale goes into the row of weights.

    Parameters
    ----------
    network : Network
        Any chain that alternates `Dense` and `Sign`, with `Affine`, `BatchNorm` and `Flatten`
        anywhere between.

    Returns
    -------
    LoweredNetwork

    Raises
    ------
    UserError
        If the chain has another form, widths disagree, a parameter is not finite, a variance is
        not positive, or channels of a layer's input have different magnitudes.
    """
    where = f"network {network.name!r}"
    shape = network.input_shape
    unit = _Unit.FRAME
    chain: _Chain = [(_ONE, _ZERO)] * prod(shape)
    frame: InputQuantizer | None = None
    layers: list[LoweredLayer] = []
    # The layer whose accumulators are at hand, and the last operation that made bits.
    name, weights, sign = "", np.zeros((0, 0), np.int8), ""

    for op in network.ops:
        match op:
            case Flatten():
                shape = (len(chain),)
            case Affine() | BatchNorm():
                chain = _apply(op, chain, shape[-1], where)
            case Sign():
                sign = op.name
                if unit is _Unit.FRAME:
                    thresholds, chain = _binarize_input(chain)
                    frame = InputQuantizer(network.input_shape, thresholds[None, :])
                elif unit is _Unit.ACCUMULATOR:
                    layers.append(_threshold_layer(name, weights, chain))
                    chain = [(_ONE, _ZERO)] * len(chain)
                else:
                    chain = [_sign_of_bit(scale, offset) for scale, offset in chain]
                unit = _Unit.BIT
            case Dense():
                if unit is not _Unit.BIT:
                    raise UserError(
                        f"{where}: layer {op.name!r} takes {unit.value}"
                        f"{f' of layer {name!r}' if name else ''} that no sign has made binary; "
                        f"put a BipolarQuant before it"
                    )
                if shape != op.weights.shape[1:]:
                    raise UserError(
                        f"{where}: layer {op.name!r} has {op.weights.shape[1]} inputs but gets a "
                        f"tensor of shape {shape}; make both sizes equal"
                        f"{' (a Flatten is missing)' if len(shape) > 1 else ''}"
                    )
                name = op.name
                weights, chain = _pull_through(op, chain, where)
                shape = (len(chain),)
                unit = _Unit.ACCUMULATOR

    if not name or frame is None:
        raise UserError(f"{where} has no weight layer; give a network with at least one Dense")
    if unit is _Unit.BIT:
        raise UserError(
            f"{where}: sign {sign!r} follows the last layer {name!r}, which leaves only binary "
            f"outputs that no arg-max can rank; remove it so that the layer gives scores"
        )
    weights, chain = _fold_rows(weights, chain)
    scale, offset = _integer_scores(chain, weights.shape[1], f"{where}: layer {name!r}")
    output = LoweredOutput(
        scale,
        offset,
        np.array([float(s) for s, _ in chain]),
        np.array([float(o) for _, o in chain]),
    )
    layers.append(LoweredLayer(name, weights, None))
    return LoweredNetwork(network.name, frame, tuple(layers), output)


def _apply(op: Affine | BatchNorm, chain: _Chain, channels: int, where: str) -> _Chain:
    """Append `op`, which has one parameter set per channel of the last axis, to the chain."""
    if isinstance(op, BatchNorm):
        maps = _batch_norm(op, where)
    else:
        maps = [
            (_Surd.of(op.scale[i % len(op.scale)]), _Surd.of(op.offset[i % len(op.offset)]))
            for i in range(max(len(op.scale), len(op.offset)))
        ]
        if {len(op.scale), len(op.offset)} - {1, len(maps)}:
            raise UserError(
                f"{where}: node {op.name!r} has {len(op.scale)} scales and {len(op.offset)} "
                f"offsets; give one for all channels or one each"
            )
    if len(maps) not in (1, channels):
        raise UserError(
            f"{where}: node {op.name!r} has parameters for {len(maps)} channels but its input has "
            f"{channels}; give one for all channels or one each"
        )
    result = []
    cache: dict[tuple[int, _Surd, _Surd], tuple[_Surd, _Surd]] = {}
    for i, (scale, offset) in enumerate(chain):
        key = (i % len(maps), scale, offset)
        if key not in cache:
            gain, bias = maps[key[0]]
            cache[key] = (gain * scale, gain * offset + bias)
        result.append(cache[key])
    return result


def _batch_norm(op: BatchNorm, where: str) -> _Chain:
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
        scale = _Surd.of(_exact(gamma), 1 / square)
        maps.append((scale, _Surd.of(_exact(beta)) - scale * _Surd.of(_exact(mean))))
    return maps


def _exact(value: np.float32) -> Fraction:
    return Fraction(float(value))


def _binarize_input(chain: _Chain) -> tuple[NDArray[np.float32], _Chain]:
    """Return float32 thresholds (F,), and the chain from the bits ``x >= threshold`` on."""
    cache: dict[tuple[_Surd, _Surd], np.float32] = {}
    thresholds = np.empty(len(chain), np.float32)
    bits: _Chain = []
    for j, (scale, offset) in enumerate(chain):
        if (scale, offset) not in cache:
            cache[scale, offset] = _input_threshold(scale, offset)
        thresholds[j] = cache[scale, offset]
        bits.append((-_ONE if scale.sign() < 0 else _ONE, _ZERO))
    return thresholds, bits


def _input_threshold(scale: _Surd, offset: _Surd) -> np.float32:
    """Return the smallest float32 for which the bit is 1.

    The bit is ``scale * x + offset >= 0``; with a negative scale it is the complement of that, so
    that it rises with ``x``.
    """
    falling = scale.sign() < 0
    if not scale.terms:
        return np.float32(-np.inf if offset.sign() >= 0 else np.inf)

    def bit(x: np.float32) -> bool:
        value = (scale * _Surd.of(_exact(x)) + offset).sign()
        return value < 0 if falling else value >= 0

    # Bisect over the finite float32 numbers in order: n-th above zero, or -n-th below.
    infinity = 0x7F800000
    low, high = -infinity, infinity
    while high - low > 1:
        middle = (low + high) // 2
        if bit(_nth_float32(middle)):
            high = middle
        else:
            low = middle
    return _nth_float32(high)


def _nth_float32(n: int) -> np.float32:
    magnitude = np.uint32(abs(n)).view(np.float32)
    return -magnitude if n < 0 else magnitude


def _sign_of_bit(scale: _Surd, offset: _Surd) -> tuple[_Surd, _Surd]:
    """Return the map from a bit to the sign of ``scale * bit + offset``."""
    high = 1 if (offset + scale).sign() >= 0 else -1
    low = 1 if (offset - scale).sign() >= 0 else -1
    return _Surd.of((high - low) // 2), _Surd.of((high + low) // 2)


def _pull_through(op: Dense, chain: _Chain, where: str) -> tuple[NDArray[np.int8], _Chain]:
    """Move the maps of a layer's inputs behind its matrix.

    ``W @ (m * s * bits + o) = m * (W * s) @ bits + W @ o`` with signs ``s`` and one magnitude
    ``m``. Returns ``W * s`` and the chain from the accumulators on.
    """
    magnitude = abs(chain[0][0])
    for j, (scale, _) in enumerate(chain):
        if (abs(scale) - magnitude).terms:
            raise UserError(
                f"{where}: the inputs of layer {op.name!r} have scales of different magnitude "
                f"({float(chain[0][0]):g} for channel 0, {float(scale):g} for channel {j}), which "
                f"no dot product of single bits gives; use one quantizer scale for all channels"
            )
    signs = np.array([-1 if scale.sign() < 0 else 1 for scale, _ in chain], np.int8)
    offsets = [_ZERO] * op.weights.shape[0]
    kinds = [offset for _, offset in chain]
    for kind in set(kinds) - {_ZERO}:
        columns = np.array([offset == kind for offset in kinds])
        sums = op.weights[:, columns].sum(axis=1, dtype=np.int64)
        offsets = [o + kind * _Surd.of(int(n)) for o, n in zip(offsets, sums, strict=True)]
    return op.weights * signs, [(magnitude, offset) for offset in offsets]


def _fold_rows(weights: NDArray[np.int8], chain: _Chain) -> tuple[NDArray[np.int8], _Chain]:
    """Make every scale non-negative: ``scale * acc = (-scale) * (-acc)``."""
    signs = np.array([-1 if scale.sign() < 0 else 1 for scale, _ in chain], np.int8)
    return weights * signs[:, None], [(abs(scale), offset) for scale, offset in chain]


def _threshold_layer(name: str, weights: NDArray[np.int8], chain: _Chain) -> LoweredLayer:
    """Return the layer whose bits are ``scale * acc + offset >= 0``."""
    weights, chain = _fold_rows(weights, chain)
    mw = weights.shape[1]
    thresholds = []
    for scale, offset in chain:
        if not scale.terms:
            threshold = -mw if offset.sign() >= 0 else mw + 1
        else:
            # acc = 2 * count - mw, and count >= (mw - offset / scale) / 2.
            count = ceil((_Surd.of(mw) - offset / scale) * _HALF)
            threshold = 2 * max(count, 0) - mw if count <= mw else mw + 1
        thresholds.append(threshold)
    return LoweredLayer(name, weights, np.array(thresholds, np.int32))


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


def _integer_scores(
    chain: _Chain, mw: int, where: str
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
    mw : int
        Accumulators are ``-mw, -mw + 2, .. mw``.
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
        np.arange(-mw, mw + 1, 2, dtype=np.int64) if scale.terms else np.zeros(1, np.int64)
        for scale, _ in chain
    ]
    wins, losses = _boundaries(chain, lattices)
    largest = _ZERO
    for scale, _ in chain:
        largest = scale if (scale - largest).sign() > 0 else largest
    ratios = [(scale / largest).bounds(256)[0] if scale.terms else 0 for scale, _ in chain]
    multiplier = 1
    while multiplier * mw < 1 << _PRODUCT_BITS:
        rounded = np.array([(multiplier * r + (1 << 255)) >> 256 for r in ratios], np.int64)
        apart = _increasing(rounded, ratios)
        for scales in [rounded] if np.array_equal(rounded, apart) else [rounded, apart]:
            offsets = _offsets(scales, wins, losses)
            if offsets is not None:
                # Any common shift is free: centre the scores to need the fewest bits.
                middle = int((offsets + scales * mw).max() + (offsets - scales * mw).min())
                return scales, offsets - ceil(Fraction(middle, 2))
        multiplier += max(1, multiplier // 16)
    raise UserError(
        f"{where}: its logits come so close to each other that ranking them exactly takes more "
        f"than {_PRODUCT_BITS} bits; use one batch-norm scale for all classes"
    )


def _increasing(rounded: NDArray[np.int64], ratios: list[int]) -> NDArray[np.int64]:
    """Return `rounded`, raised where needed so that larger ratios have larger integers."""
    scales = {0: 0}
    last = 0
    for ratio, value in sorted(zip(ratios, rounded.tolist(), strict=True)):
        if ratio not in scales:
            last = scales[ratio] = max(value, last + 1)
    return np.array([scales[ratio] for ratio in ratios], np.int64)


def _boundaries(
    chain: _Chain, lattices: list[NDArray[np.int64]]
) -> tuple[_Boundaries, _Boundaries]:
    """Find the boundary of every pair of classes c < d, from both sides.

    The first result holds, for each a, the largest b that ranks behind it, the second the
    smallest b that ranks before it; all other b follow because scores rise with accumulators.
    """
    wins, losses = [], []
    for c, d in combinations(range(len(chain)), 2):
        a, b = lattices[c], lattices[d]
        behind = _count_behind(chain[c], chain[d], a, b)
        count = np.array([min(max(n, 0), len(b)) for n in behind], np.int64)
        some, rest = count > 0, count < len(b)
        wins.append((c, d, a[some], b[count[some] - 1]))
        losses.append((c, d, a[rest], b[count[rest]]))
    return _Boundaries.of(wins), _Boundaries.of(losses)


def _count_behind(
    of_c: tuple[_Surd, _Surd],
    of_d: tuple[_Surd, _Surd],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
) -> list[int]:
    """Return for each a how many b have ``logit_d(b) <= logit_c(a)``, not yet clipped."""
    (scale_c, offset_c), (scale_d, offset_d) = of_c, of_d
    if scale_d.terms:
        # With b = 2 * k + b[0] the k that do are all up to slope * a + start.
        slope = scale_c / scale_d * _HALF
        start = ((offset_c - offset_d) / scale_d - _Surd.of(int(b[0]))) * _HALF
        return [k + 1 for k in _floors(slope, start, a)]
    signs = [(scale_c * _Surd.of(n) + offset_c - offset_d).sign() for n in a.tolist()]
    return [int(sign >= 0) for sign in signs]


def _floors(slope: _Surd, start: _Surd, a: NDArray[np.int64]) -> list[int]:
    """Return ``floor(slope * a + start)`` exactly for all a, which rise by two."""
    if not (slope * _Surd.of(2) - _ONE).terms:
        # Alike scales: every step of two in a is a step of one.
        first = floor(slope * _Surd.of(int(a[0])) + start)
        return list(range(first, first + len(a)))
    bits = 64
    (low, high), (start_low, start_high) = slope.bounds(bits), start.bounds(bits)
    floors = []
    for n in a.tolist():
        ends = (low * n, high * n)
        below, above = (min(ends) + start_low) >> bits, (max(ends) + start_high) >> bits
        floors.append(below if below == above else floor(slope * _Surd.of(n) + start))
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
