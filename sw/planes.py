"""Weight planes: matrices of integers as weighted sums of matrices of -1 and +1.

A weight of a neuron is ``sum over m of coefficient[m] * s[m]`` with signs ``s[m]``, so that a dot
product with it is a weighted sum of M binary ones. DoReFa-Net's k-bit weights (Zhou et al., 2016)
are odd integers and have the coefficients 1, 2, 4, ..; ABC-Net's bases (Lin, Zhao, Pan, 2017) have
one for each base and neuron; weights that can be 0 are counted in halves and take one plane more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_PLANES", "bit_planes", "check_planes", "plane_signs"]

#: Most planes of a matrix: integers of eight bits, 0 among them.
MOST_PLANES = 9


def bit_planes(weights: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Return integers as those that few planes give, with coefficients that are powers of two.

    Parameters
    ----------
    weights : ndarray of int, shape (MH, ...)
        At most 8 bits each; the greatest common divisor of all must be 1.

    Returns
    -------
    weights : ndarray of int32, shape (MH, ...)
        `factor` times what was given.
    coefficients : ndarray of int32, shape (M, MH)
        1, 2, 4, .. if all weights are odd, else 1, 1, 2, 4, ..
    factor : int
        1 or 2.

    Raises
    ------
    ValueError
        If `MOST_PLANES` are not enough.
    """
    largest = int(np.abs(weights).max(initial=1))
    if np.all(weights % 2):
        factor, powers = 1, [1 << n for n in range(largest.bit_length())]
    else:
        # 2 * w = s + (an odd number up to 2 * |w| - 1).
        factor, powers = 2, [1, *(1 << n for n in range((2 * largest - 1).bit_length()))]
    if len(powers) > MOST_PLANES:
        raise ValueError(f"weights up to {largest} take {len(powers)} planes, not {MOST_PLANES}")
    coefficients = np.repeat(np.array(powers, np.int32)[:, None], len(weights), axis=1)
    return weights.astype(np.int32) * factor, coefficients, factor


def plane_signs(
    weights: NDArray[np.integer], coefficients: NDArray[np.integer]
) -> NDArray[np.int8]:
    """Return the signs that give the weights, the first that do where there are several.

    Parameters
    ----------
    weights : ndarray of int, shape (MH, ...)
    coefficients : ndarray of int, shape (M, MH)

    Returns
    -------
    ndarray of int8, shape (M, MH, ...)
        -1 and +1: ``weights[j] = sum over m of coefficients[m, j] * signs[m, j]``.

    Raises
    ------
    ValueError
        If a weight is no such sum.
    """
    planes, neurons = coefficients.shape
    # Row n of the patterns has bit m of n as the sign of plane m.
    patterns = np.where(np.arange(1 << planes)[:, None] >> np.arange(planes) & 1, 1, -1)
    sums = patterns @ coefficients.astype(np.int64)
    flat = weights.reshape(neurons, -1)
    result = np.empty((planes, *flat.shape), np.int8)
    for neuron, row in enumerate(flat):
        order = np.argsort(sums[:, neuron], kind="stable")
        place = np.searchsorted(sums[order, neuron], row)
        chosen = order[np.minimum(place, len(order) - 1)]
        if not np.array_equal(sums[chosen, neuron], row):
            raise ValueError(
                f"a weight of neuron {neuron} is no sum of plus or minus "
                f"{coefficients[:, neuron].tolist()}"
            )
        result[:, neuron] = patterns[chosen].T
    return result.reshape(planes, *weights.shape)


def check_planes(
    what: str, weights: NDArray[np.integer], coefficients: NDArray[np.integer] | None
) -> None:
    """Refuse weights that are neither -1 and +1 nor given by planes.

    Raises
    ------
    ValueError
        The message begins with `what`.
    """
    if coefficients is None:
        if not np.all(np.abs(weights) == 1):
            raise ValueError(f"{what}: weights must be -1 and +1, or have coefficients")
        return
    if coefficients.ndim != 2 or coefficients.shape[1] != len(weights):
        raise ValueError(f"{what}: coefficients must have shape (M, {len(weights)})")
    if not 1 <= len(coefficients) <= MOST_PLANES:
        raise ValueError(f"{what}: there must be 1 to {MOST_PLANES} planes")
    try:
        plane_signs(weights, coefficients)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
