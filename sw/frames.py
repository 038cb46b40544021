"""From raw frames to what a network's hardware takes, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xnorflow.datasets import check_labels, sample_digits
from xnorflow.errors import UserError
from xnorflow.golden import quantize
from xnorflow.lowered import LoweredNetwork

__all__ = ["PreparedFrames", "digits_for", "prepare", "scale_hint"]


@dataclass(frozen=True, eq=False)
class PreparedFrames:
    """Frames that suit a network.

    Attributes
    ----------
    x : ndarray, shape (N, ...)
        As they came.
    y : ndarray of int64, shape (N,), or None
        Labels.
    quantized : ndarray of bool or unsigned integers, shape (N, F)
        As the hardware takes them, see `xnorflow.golden.quantize`.
    """

    x: NDArray
    y: NDArray[np.int64] | None
    quantized: NDArray

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.x)


def prepare(
    lowered: LoweredNetwork,
    x: ArrayLike,
    y: ArrayLike | None = None,
    divide_by: float | None = None,
) -> PreparedFrames:
    """Check frames and labels and quantize the frames.

    Parameters
    ----------
    lowered : LoweredNetwork
    x : array, shape (N, *lowered.input.shape) or (N, F)
        See `xnorflow.golden.predict`.
    y : array of integers, shape (N,), optional
        Labels.
    divide_by : float, optional
        The network takes ``float32(x) / float32(divide_by)``, which is how torch's ToTensor scales
        pixels.

    Raises
    ------
    UserError
        If frames, labels or `divide_by` are not as above.
    """
    x = _array(x, "x")
    scaled = x
    if divide_by is not None:
        if not 0 < divide_by < float("inf"):
            raise UserError(f"`divide_by` is {divide_by:g} but must be a positive number")
        if x.dtype.kind not in "buif":
            raise UserError(f"the data have dtype {x.dtype}; give numbers")
        scaled = x.astype(np.float32) / np.float32(divide_by)
    quantized = quantize(lowered, scaled)
    return PreparedFrames(x, None if y is None else check_labels(_array(y, "y"), len(x)), quantized)


def digits_for(lowered: LoweredNetwork) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Return the digits that come with xnorflow and their labels, if the network takes digits.

    Raises
    ------
    UserError
        If it takes frames of another size.
    """
    if prod(lowered.input.shape) != 784:
        raise UserError(
            f"the network takes frames of shape {lowered.input.shape}, not MNIST digits; "
            "give your own with `x`"
        )
    digits = sample_digits()
    return digits.x, digits.y


def scale_hint(lowered: LoweredNetwork, x: NDArray) -> str | None:
    """Say so where pixels from 0 to 255 meet thresholds for pixels from 0 to 1."""
    thresholds = lowered.input.thresholds
    finite = thresholds[np.isfinite(thresholds)]
    if x.dtype == np.uint8 and finite.size and x.max() > 1 and np.all(np.abs(finite) <= 1):
        return (
            f"the frames go up to {x.max()}, but all thresholds of the network lie within -1 and "
            "1; if it was trained on pixels from 0 to 1, give `divide_by=255`"
        )
    return None


def _array(values: ArrayLike, name: str) -> NDArray:
    try:
        return np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:  # ragged lists, tensors on a GPU
        raise UserError(f"`{name}` is no array ({error}); give a numpy array") from None
