"""Weights of a layer as integers of a few bits, times one scale for all neurons or for each.

Files hold them as floats, computed in float32 by exporters or by the nodes before the layer, so
that what was an integer times a scale comes with rounding errors. Those are told apart from
weights that are none by their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from xnorflow.planes import bit_planes

__all__ = ["IntegerWeights", "NoIntegers", "integer_weights"]

_BINARY_NOISE = 2.0**-18
"""Largest relative difference of weights that count as one magnitude.

A detach trick on weights, ``w + (sign(w) - w)``, rounds twice in float32: its outcome is off by
``2**-24 * (2 + |w|)`` at most. With gains a, where it is ``w + (a * sign(w) - w)``, that is
``2**-24 * (2 + |w| / a)`` of a, so the bound holds for latent weights up to 62 times their gain.
"""

_LEVEL_NOISE = 2.0**-21
"""As much, relative to the largest weight, where there are several magnitudes.

Weights that are no integers lie on some fine grid by chance, the easier the larger the tolerance;
those of DoReFa-Net, ``2 * q / n - 1`` behind a detach trick, are off by half of that.
"""

_LARGEST = 255
_ULPS = 2


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """``scales * integers``.

    Attributes
    ----------
    integers : ndarray of int32, shape (MH, MW)
    coefficients : ndarray of int32, shape (M, MH), or None
        Of their planes, see :mod:`xnorflow.planes`; None if all are -1 and +1.
    scales : tuple of Fraction
        One for all neurons or one for each; 0 where all weights of a neuron are.
    uneven : int
        Number of neurons whose stored weights are that but for rounding.
    noise : float
        What they are off by at most, relative to the largest.
    """

    integers: NDArray[np.int32]
    coefficients: NDArray[np.int32] | None
    scales: tuple[Fraction, ...]
    uneven: int = 0
    noise: float = 0.0

    @property
    def planes(self) -> Sequence[NDArray[np.int32]]:
        """The coefficients, plane by plane."""
        return () if self.coefficients is None else tuple(self.coefficients)

    def floats(self) -> NDArray[np.float64]:
        """Return the weights without rounding noise, shape (MH, MW)."""
        return self.integers * np.array([float(scale) for scale in self.scales])[:, None]


class NoIntegers(ValueError):
    """Weights that are no integers of up to 8 bits times a scale.

    Parameters
    ----------
    row : int
        A neuron of which that holds.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"the weights of neuron {row} are no few integers times a scale")
        self.row = row


def integer_weights(matrix: NDArray) -> IntegerWeights:
    """Write weights as integers times scales.

    Parameters
    ----------
    matrix : ndarray of float or int, shape (MH, MW)
        Finite, and not empty.

    Raises
    ------
    NoIntegers
        They are none; or all are zero.
    """
    # float64 holds every int8 and float32, and an int64 that is no weight stays one.
    matrix = matrix.astype(np.float64)
    if not matrix.any():
        raise NoIntegers(0)
    binary = _binary(matrix)
    return _levels(matrix) if binary is None else binary


def _binary(matrix: NDArray[np.float64]) -> IntegerWeights | None:
    """Return weights of which each neuron's have one magnitude, but for rounding, else None.

    The magnitude is the median where magnitudes differ; all neurons have the same if theirs differ
    by no more than the entries of a row may.
    """
    magnitudes = np.abs(matrix)
    rows = magnitudes.max(axis=1)
    uneven = np.flatnonzero(np.any(magnitudes != rows[:, None], axis=1))
    noise = 0.0
    if uneven.size:
        middle = magnitudes.shape[1] // 2
        rows[uneven] = np.partition(magnitudes[uneven], middle, axis=1)[:, middle]
        common = np.partition(rows, len(rows) // 2)[len(rows) // 2]
        if np.all(np.abs(rows - common) <= _BINARY_NOISE * common):
            rows[:] = common
        worst = np.abs(magnitudes - rows[:, None]).max(axis=1)
        noise = float(np.divide(worst, rows, out=np.ones_like(rows), where=rows > 0)[uneven].max())
    if not rows.any() or noise > _BINARY_NOISE:
        return None
    signs = np.where(matrix >= 0, 1, -1).astype(np.int32)
    scales = rows[:1] if np.all(rows == rows[0]) else rows
    return IntegerWeights(signs, None, _exact(scales), int(uneven.size), noise)


def _levels(matrix: NDArray[np.float64]) -> IntegerWeights:
    """Return weights of several magnitudes, on one grid or each neuron's on one of its own.

    That which takes fewer planes; if both take as many, one grid.
    """
    rows = [_grid(row) for row in matrix]
    found = [weights for grids in ([_grid(matrix)], rows) if (weights := _on_grids(matrix, grids))]
    if not found:
        largest = np.abs(matrix).max(axis=1)
        bits = [
            np.inf if grid is None else top / (grid or 1)
            for grid, top in zip(rows, largest, strict=True)
        ]
        raise NoIntegers(int(np.argmax(bits)))
    return min(found, key=lambda weights: len(weights.planes))


def _on_grids(
    matrix: NDArray[np.float64], grids: Sequence[Fraction | None]
) -> IntegerWeights | None:
    """Return weights on one grid or each neuron's on its own; None if they take too many bits."""
    scales = [grid for grid in grids if grid is not None]
    if len(scales) < len(grids):
        return None
    steps = np.array([[float(scale)] for scale in scales])
    # A neuron of zeros is one of -1 and +1 times 0.
    places = np.divide(matrix, steps, out=np.ones_like(matrix), where=steps > 0)
    integers = np.rint(places).astype(np.int32)
    try:
        multiples, coefficients, factor = bit_planes(integers)
    except ValueError:
        return None
    exact = integers * steps
    uneven = np.any(_single(exact) != matrix, axis=1)
    largest = np.abs(matrix[uneven]).max(axis=1, keepdims=True)
    noise = float((np.abs(matrix - exact)[uneven] / largest).max(initial=0))
    return IntegerWeights(
        multiples,
        coefficients,
        tuple(scale / factor for scale in scales),
        int(uneven.sum()),
        noise,
    )


def _grid(weights: NDArray[np.float64]) -> Fraction | None:
    """Return the coarsest grid on which weights lie, 0 if all are 0, None if there is none."""
    magnitudes = np.unique(np.abs(weights))
    magnitudes = magnitudes[magnitudes > 0]
    if not magnitudes.size:
        return Fraction(0)
    if magnitudes.size > _LARGEST:
        return None
    exact = _exact(magnitudes)
    denominator = lcm(*(value.denominator for value in exact))
    step = Fraction(reduce(gcd, (int(value * denominator) for value in exact)), denominator)
    if exact[-1] <= _LARGEST * step:
        return step
    counts = np.arange(1, _LARGEST + 1)[:, None]
    places = magnitudes / magnitudes[-1] * counts
    fits = np.all(np.abs(places - np.rint(places)) <= _LEVEL_NOISE * counts, axis=1)
    if not fits.any():
        return None
    steps = int(fits.argmax()) + 1
    return _single_scale(magnitudes, np.rint(places[steps - 1])) or exact[-1] / steps


def _single_scale(values: NDArray[np.float64], integers: NDArray[np.float64]) -> Fraction | None:
    """Return the float32 whose multiples, rounded to float32, are the values, if there is one."""
    guess = np.float32((values @ integers) / (integers @ integers))
    for ulps in range(-_ULPS, _ULPS + 1):
        scale = guess + np.float32(ulps) * np.spacing(guess)
        if np.array_equal(_single(integers * np.float64(scale)), values):
            return Fraction(float(scale))
    return None


def _single(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)


def _exact(values: NDArray[np.float64]) -> tuple[Fraction, ...]:
    return tuple(Fraction(value) for value in values.tolist())
