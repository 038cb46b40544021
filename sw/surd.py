"""Exact real numbers with square roots, which batch norm's ``sqrt(var + eps)`` brings."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, isqrt

__all__ = ["ONE", "ZERO", "Surd"]


@dataclass(frozen=True)
class Surd:
    """An exact real number ``sum(c * sqrt(r) for r, c in terms)``.

    The radicands ``r`` are positive integers no two of which multiply to a square, and the
    coefficients are nonzero. Square roots of such radicands are linearly independent over the
    rationals (Besicovitch, *On the linear independence of fractional powers of integers*, 1940),
    so the number is zero exactly when it has no terms, and narrowing intervals find the sign of
    any other in finitely many steps. No radicand needs factoring.
    """

    terms: tuple[tuple[int, Fraction], ...] = ()

    @classmethod
    def of(cls, value: Fraction | int, square: Fraction | int = 1) -> Surd:
        """Return ``value * sqrt(square)``."""
        square = Fraction(square)
        # sqrt(p / q) = sqrt(p * q) / q
        radicand = square.numerator * square.denominator
        return cls._sum([(radicand, Fraction(value) / square.denominator)])

    @classmethod
    def _sum(cls, terms: list[tuple[int, Fraction]]) -> Surd:
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

    def __neg__(self) -> Surd:
        return Surd(tuple((r, -c) for r, c in self.terms))

    def __abs__(self) -> Surd:
        return -self if self.sign() < 0 else self

    def __add__(self, other: Surd) -> Surd:
        if not other.terms:
            return self
        if not self.terms:
            return other
        return self._sum([*self.terms, *other.terms])

    def __sub__(self, other: Surd) -> Surd:
        return self + -other

    def __mul__(self, other: Surd) -> Surd:
        return self._sum([(r * s, c * d) for r, c in self.terms for s, d in other.terms])

    def __truediv__(self, other: Surd) -> Surd:
        """Divide by a number of one term (every scale is one: a product of gains and roots)."""
        ((radicand, coefficient),) = other.terms
        return self * Surd(((radicand, 1 / (coefficient * radicand)),))

    def rational(self) -> Fraction | None:
        """Return the number as a fraction, or None if it is irrational."""
        if any(r != 1 for r, _ in self.terms):
            return None
        return sum((c for _, c in self.terms), Fraction(0))

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
        if (value := self.rational()) is not None:
            return floor(value)
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


ZERO = Surd()
ONE = Surd.of(1)
