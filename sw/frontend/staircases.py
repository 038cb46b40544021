"""Sums of quantizers of one tensor, which are one quantizer of more levels.

ABC-Net (Lin, Zhao, Pan, 2017) writes activations as ``sum of beta[n] * sign(x - v[n])``: a
staircase over ``x``, with a step at each ``v[n]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from xnorflow.network import Affine, MultiThreshold, Op, Sign

__all__ = ["NoStaircase", "Row", "Staircase", "compose", "staircase", "sum_of"]

Row = tuple[Fraction, ...]
"""One number for all channels or one for each."""


class NoStaircase(ValueError):
    """A sum of staircases that is none which rises; the message reads on from the node's name."""


@dataclass(frozen=True)
class Staircase:
    """What steps of given heights at given places add up to, over ``x`` or over ``-x``.

    Attributes
    ----------
    mirrored : bool
        Whether over ``-x``.
    base : tuple of Fraction
        What it gives before all steps, for all channels or for each.
    steps : tuple of tuple of (tuple of Fraction)
        For each step its place and its height, each for all channels or for each.
    """

    mirrored: bool
    base: Row
    steps: tuple[tuple[Row, Row], ...]

    def scaled(self, factor: Fraction) -> Staircase:
        """Return it times a number."""
        steps = tuple(
            (place, tuple(factor * value for value in height)) for place, height in self.steps
        )
        return Staircase(self.mirrored, tuple(factor * value for value in self.base), steps)

    def ops(self, name: str) -> list[Op]:
        """Return the operations that compute it.

        Raises
        ------
        NoStaircase
            It does not rise or fall everywhere, or has steps of other heights in each channel.
        """
        channels = max(len(row) for row in (self.base, *(r for step in self.steps for r in step)))
        places, heights = [], []
        # Steps at one place may come in any order; take that of the first channel.
        ordered = sorted(self.steps, key=lambda step: step[0][0])
        for channel in range(channels):
            steps = [(_at(place, channel), _at(height, channel)) for place, height in ordered]
            steps.sort(key=lambda step: step[0])
            places.append(tuple(place for place, _ in steps))
            heights.append([height for _, height in steps])
        first = heights[0]
        if not any(first):
            raise NoStaircase("adds quantizers that cancel each other")
        largest = max(range(len(first)), key=lambda index: abs(first[index]))
        ratios = tuple(row[largest] / first[largest] for row in heights)
        if any(
            [ratio * height for height in first] != row
            for ratio, row in zip(ratios, heights, strict=True)
        ):
            raise NoStaircase("adds quantizers whose steps have other heights in each channel")
        turned = first[largest] < 0
        rising = [-height if turned else height for height in first]
        if min(rising) < 0:
            raise NoStaircase(
                "adds quantizers of one tensor to steps that neither all rise nor all fall"
            )
        values = tuple(accumulate(rising, initial=Fraction(0)))
        scale = tuple(-ratio if turned else ratio for ratio in ratios)
        if set(scale) == {1} and len(self.base) == 1:
            values, after = tuple(self.base[0] + value for value in values), []
        else:
            after = [Affine(name, scale if len(set(scale)) > 1 else scale[:1], self.base)]
        rows = places[:1] if len(set(places)) == 1 else places
        before = [Affine(name, (Fraction(-1),))] if self.mirrored else []
        return [*before, MultiThreshold(name, tuple(rows), values), *after]


def staircase(ops: Sequence[Op]) -> Staircase | None:
    """Return what maps, one quantizer by thresholds and maps compute; None for anything else."""
    quantizers = [n for n, op in enumerate(ops) if isinstance(op, Sign | MultiThreshold)]
    if len(quantizers) != 1:
        return None
    (at,) = quantizers
    before, after = compose(ops[:at]), compose(ops[at + 1 :])
    if before is None or after is None:
        return None
    scale, offset = before
    mirrored = scale[0] < 0
    if any(value == 0 or (value < 0) != mirrored for value in scale):
        return None
    op = ops[at]
    rows: Sequence[Row] = ((Fraction(0),),)
    values: Row = (Fraction(-1), Fraction(1))
    if isinstance(op, MultiThreshold):
        rows, values = op.thresholds, op.values
    gain, shift = after
    # scale * x + offset >= t from (t - offset) / scale on, or up to it if the scale is negative.
    return Staircase(
        mirrored,
        _rows(lambda g, s: g * values[0] + s, gain, shift),
        tuple(
            (
                _rows(lambda t, s, o: (t - o) / abs(s), column, scale, offset),
                tuple(value * (high - low) for value in gain),
            )
            for column, low, high in zip(
                zip(*rows, strict=True), values[:-1], values[1:], strict=True
            )
        ),
    )


def compose(ops: Sequence[Op]) -> tuple[Row, Row] | None:
    """Return scale and offset of a chain of affine maps; None if there is any other operation.

    Both have one number for all channels or one for each.
    """
    scale: Row = (Fraction(1),)
    offset: Row = (Fraction(0),)
    for op in ops:
        if not isinstance(op, Affine):
            return None
        scale, offset = (
            _rows(lambda a, b: a * b, op.scale, scale),
            _rows(lambda a, b, c: a * b + c, op.scale, offset, op.offset),
        )
    return scale, offset


def sum_of(terms: Sequence[Staircase]) -> Staircase:
    """Return a sum of staircases.

    Raises
    ------
    NoStaircase
        Some ask for ``x >= t`` and others for ``x > t``.
    """
    if len({term.mirrored for term in terms}) > 1:
        raise NoStaircase("adds quantizers of which some ask for x >= t and others for x > t")
    base = terms[0].base
    for term in terms[1:]:
        base = _rows(lambda a, b: a + b, base, term.base)
    return Staircase(terms[0].mirrored, base, tuple(s for term in terms for s in term.steps))


def _at(row: Row, channel: int) -> Fraction:
    return row[channel % len(row)]


def _rows(function: Callable[..., Fraction], *rows: Row) -> Row:
    """Compute with rows channel by channel."""
    size = max(map(len, rows))
    return tuple(function(*(_at(row, channel) for row in rows)) for channel in range(size))
