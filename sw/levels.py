"""Quantizers as steps, and the integer thresholds that steps become on accumulators."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, gcd, lcm

import numpy as np
from numpy.typing import NDArray

from xnorflow.affine import Chain
from xnorflow.network import MultiThreshold, Quantize, Sign
from xnorflow.surd import Surd

__all__ = ["Levels", "Step"]

Step = tuple[Fraction, bool]
"""A number, and whether only larger ones reach the step."""

_HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Levels:
    """What a quantizer gives: ``low + step * n`` with n the number of steps that ``x`` reaches.

    Attributes
    ----------
    steps : tuple of tuple of Step
        One row (all channels alike) or one for each channel, each of `top` rising steps; equal
        ones make n jump.
    low, step : Fraction
        `step` is positive.
    """

    steps: tuple[tuple[Step, ...], ...]
    low: Fraction
    step: Fraction

    @classmethod
    def of(cls, op: Sign | Quantize | MultiThreshold, most: int) -> Levels | None:
        """Return the levels of an operation, None if it takes more than `most` steps."""
        if isinstance(op, Sign):
            return cls((((Fraction(0), False),),), Fraction(-1), Fraction(2))
        if isinstance(op, Quantize):
            if op.high - op.low > most:
                return None
            # The tie below k belongs to even k.
            row = tuple(
                (op.scale * (k - _HALF - op.zero_point), k % 2 == 1)
                for k in range(op.low + 1, op.high + 1)
            )
            return cls((row,), op.scale * (op.low - op.zero_point), op.scale)
        rises = [above - below for below, above in zip(op.values, op.values[1:], strict=False)]
        denominator = lcm(*(rise.denominator for rise in rises))
        step = Fraction(gcd(*(int(rise * denominator) for rise in rises)) or 1, denominator)
        counts = [int(rise / step) for rise in rises]
        if not 0 < sum(counts) <= most:
            return None
        rows = (
            tuple((t, False) for t, n in zip(row, counts, strict=True) for _ in range(n))
            for row in op.thresholds
        )
        return cls(tuple(rows), op.values[0], step)

    @property
    def top(self) -> int:
        """Largest number of steps."""
        return len(self.steps[0])

    def row(self, channel: int) -> tuple[Step, ...]:
        """Return the steps of a channel."""
        return self.steps[channel % len(self.steps)]

    def reached(self, channel: int, value: Surd) -> int:
        """Return how many steps a value reaches."""
        return sum((value - Surd.of(t)).sign() >= int(strict) for t, strict in self.row(channel))

    def thresholds(
        self,
        chain: Chain,
        polarity: NDArray[np.int64],
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        distance: int,
    ) -> NDArray[np.int32]:
        """Return the least accumulators at which steps are reached, n or ``top - n`` of them.

        Parameters
        ----------
        chain : list of (scale, offset)
            From accumulators to what is quantized, C of them, times `polarity`: no scale is
            negative.
        polarity : ndarray of int, shape (C,)
            -1 where ``top - n`` is to come out, else 1.
        low, high : ndarray of int64, shape (C,)
            Range of the accumulators.
        distance : int
            Accumulators are ``low, low + distance, .. high``.

        Returns
        -------
        ndarray of int32, shape (C,) with a single step, else (top, C)
            `low` for always, ``high + 1`` for never.
        """
        columns = []
        for channel, (scale, offset) in enumerate(chain):
            steps = self.row(channel)
            if polarity[channel] < 0:
                # No more than top - k steps of v are reached where -v is beyond the next one.
                steps = tuple((-t, not strict) for t, strict in reversed(steps))
            ends = int(low[channel]), int(high[channel])
            columns.append(_least(scale, offset, steps, *ends, distance))
        table = np.array(columns, np.int32).T
        return table[0] if self.top == 1 else np.ascontiguousarray(table)


def _least(
    scale: Surd, offset: Surd, steps: tuple[Step, ...], low: int, high: int, distance: int
) -> list[int]:
    """Return the least accumulators for which ``scale * acc + offset`` reaches each step."""
    result: list[int] = []
    last: Step | None = None
    for step in steps:
        if step == last:
            result.append(result[-1])
            continue
        last = step
        rest, above = Surd.of(step[0]) - offset, step[1]
        if not scale.terms:
            always = rest.sign() <= -int(above)
            result.append(low if always else high + 1)
            continue
        count = (rest / scale - Surd.of(low)) / Surd.of(distance)
        places = floor(count) + 1 if above else ceil(count)
        threshold = low + distance * max(places, 0)
        result.append(threshold if threshold <= high else high + 1)
    return result
