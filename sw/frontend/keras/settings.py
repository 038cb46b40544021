"""Settings of layers: JSON of unknown origin, of which every value is checked before its use."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import isfinite, prod
from typing import Any

import numpy as np

from xnorflow.frontend.graph import MAX_FRAME

__all__ = ["Refused", "Settings", "frame_shape", "simple_fraction"]

_AGAIN = "save the model again"
_MAX_SIZE = 1 << 31
_MAX_WINDOW = 1 << 12
_MAX_RANK = 8
_LARGEST = float(np.finfo(np.float32).max)
_MOST_DENOMINATOR = 1 << 16


class Refused(Exception):
    """What is wrong with a layer, and the mend; `Obstacle` tells how both read."""

    def __init__(self, problem: str, mend: str = _AGAIN) -> None:
        super().__init__(problem)
        self.problem, self.mend = problem, mend


class Settings:
    """A layer's `config`.

    Parameters
    ----------
    values : mapping of str to Any
        As read from JSON.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, key: str) -> Any:
        """Return a setting of any type, None where there is none."""
        return self._values.get(key)

    def flag(self, key: str, default: bool) -> bool:
        """Return a truth value."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise _wrong(key, value, "neither true nor false")
        return value

    def text(self, key: str, default: str) -> str:
        """Return a word, in small letters."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise _wrong(key, value, "no word")
        return value.lower()

    def integer(self, key: str, default: int) -> int:
        """Return a positive integer."""
        value = self._values.get(key, default)
        if not _is_size(value):
            raise _wrong(key, value, "no positive integer")
        return value

    def number(self, key: str, default: float) -> float:
        """Return a finite number."""
        value = self._values.get(key, default)
        if not _is_number(value):
            raise _wrong(key, value, "no finite number")
        return value

    def numbers(self, key: str, default: float) -> list[float]:
        """Return one or several finite numbers."""
        value = self._values.get(key, default)
        values = value if isinstance(value, list) else [value]
        if not values or not all(map(_is_number, values)):
            raise _wrong(key, value, "neither a number nor a list of them")
        return values

    def pair(self, key: str, default: tuple[int, int]) -> tuple[int, int]:
        """Return two sizes of windows, given as one or both."""
        value = self._values.get(key)
        if value is None:
            return default
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) != 2 or not all(_is_size(size) and size <= _MAX_WINDOW for size in pair):
            raise _wrong(key, value, f"not one or two integers from 1 to {_MAX_WINDOW}")
        return pair[0], pair[1]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_SIZE


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (isinstance(value, int) or isfinite(value)) and abs(value) < _LARGEST


def _wrong(key: str, value: object, fault: str) -> Refused:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
    return Refused(f"has the setting {key} = {shown}, which is {fault}")


def frame_shape(value: object) -> tuple[int, ...] | None:
    """Return a frame's shape from a list of sizes whose first is the batch, if all are known."""
    if not isinstance(value, list) or not 2 <= len(value) <= _MAX_RANK:
        return None
    sizes = tuple(value[1:])
    if not all(map(_is_size, sizes)) or prod(sizes) > MAX_FRAME:
        return None
    return sizes


def simple_fraction(value: float) -> Fraction:
    """Return the simple fraction that a file's number stands for, such as 2/255.

    Python writes 2 / 255 as the nearest float64. Where no fraction of small numbers has that
    float64, the number is the nearest float32, with which Keras computes.
    """
    near = Fraction(value).limit_denominator(_MOST_DENOMINATOR)
    if float(near) == value and abs(near.numerator) < 1 << 24:
        return near
    return Fraction(float(np.float32(value)))
