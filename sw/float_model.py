"""What a :class:`~xnorflow.network.Network` computes in float64, operation by operation.

The check of an import (:mod:`xnorflow.import_check`) compares these tensors with the graph's. They
come with what a comparison in floating point needs: bounds of the rounding noise, and the elements
behind a sign or a quantizer that noise may have decided.

Nothing here is shared with the lowering or the golden model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from math import gcd, lcm, prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.flow import outcomes
from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MaxPool,
    MultiThreshold,
    Network,
    Op,
    PixelGain,
    Quantize,
    Sign,
)

__all__ = ["NOISE", "Tensor", "evaluate"]

NOISE = 1e-12
"""Rounding noise of a tensor, relative to `Tensor.size`: 4,500 roundings of float64."""

_MANTISSA = 1 << 53


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor for N frames.

    Attributes
    ----------
    values : ndarray of float64, shape (N, ...)
        Images are (N, H, W, C).
    size : ndarray of float64, shape (C,)
        Bound for each channel (last axis) on the magnitude of the values and of all terms that
        they were added up from.
    near : ndarray of bool, shape (N, ...)
        Elements of a sign or quantizer whose input lay so near to the step that rounding noise may
        have decided them; kept up to the next layer, through further signs too.
    doubtful : ndarray of bool, shape (N, ...)
        Those whose input was not computed without any noise, or is rounded in integers.
    step : Fraction or None
        All values are multiples of it, without any rounding; None if that is not known.
    blur : ndarray of float64, shape (C,), or 0
        Bound for each channel on what integers in a fixed point are off.
    """

    values: NDArray[np.float64]
    size: NDArray[np.float64]
    near: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    step: Fraction | None = None
    blur: NDArray[np.float64] | float = 0.0


def evaluate(network: Network, frames: NDArray, errors: Sequence[float] = ()) -> Iterator[Tensor]:
    """Yield the frames and then the tensor behind every operation of `Network.flow`.

    What is zero but for rounding noise is taken as zero, whose sign is +1, and what lies midway
    between two levels of a quantizer but for noise as midway.

    Parameters
    ----------
    network : Network
    frames : ndarray, shape (N, *network.input_shape)
    errors : sequence of float
        For each of the network's `PixelGain` a bound on what the integers' gain is off; 0 by
        default. It has no influence on values.

    Raises
    ------
    ValueError
        The shape of a tensor does not suit an operation.
    """
    values = np.asarray(frames, np.float64)
    tensor = _tensor(values, _largest(values), _step_of_frames(values))
    yield tensor
    steps = network.flow()
    bounds = iter(errors)

    def compute(number: int, taken: Sequence[Tensor]) -> Tensor:
        match op := steps[number].op:
            case Join():
                return _join(op, *taken)
            case PixelGain():
                main, side = taken
                return _multiply(op, main, side, next(bounds, 0.0))
            case _:
                return _apply(op, *taken)

    yield from outcomes(steps, tensor, compute)


def _tensor(values: NDArray, size: NDArray, step: Fraction | None) -> Tensor:
    """Return a tensor that no sign has decided."""
    no = np.zeros(values.shape, bool)
    return _rounded(Tensor(values, size, no, no, step))


def _rounded(tensor: Tensor) -> Tensor:
    """Forget the step where float64 does not hold all of its multiples."""
    if tensor.step is None or float(tensor.size.max()) < tensor.step * _MANTISSA:
        return tensor
    return replace(tensor, step=None)


def _apply(op: Op, x: Tensor) -> Tensor:
    match op:
        case Flatten():
            return _flatten(op, x)
        case Affine():
            return _affine(op, x)
        case BatchNorm():
            return _batch_norm(op, x)
        case Sign():
            noise = NOISE * x.size
            bits = np.where(x.values >= (0 if x.step else -noise), 1.0, -1.0)
            near = np.abs(x.values) <= noise
            doubtful = x.doubtful | (near & (x.step is None)) | _blurred(x, x.values)
            return Tensor(bits, np.ones_like(x.size), x.near | near, doubtful, Fraction(1))
        case Quantize():
            return _quantize(op, x)
        case MultiThreshold():
            return _count(op, x)
        case Dense():
            weights = op.weights.astype(np.float64)
            return _tensor(x.values @ weights.T, np.abs(weights) @ x.size, x.step)
        case Conv2d():
            return _convolve(op, x)
        case MaxPool():
            values = _windows(op, op.kernel, x.values, -np.inf).max(axis=(4, 5))
            return replace(_pooled(op, op.kernel, x), values=values)
        case AveragePool():
            kernel = op.kernel or (x.values.shape[1], x.values.shape[2])
            values = _windows(op, kernel, x.values, 0).mean(axis=(4, 5))
            step = _binary(x.step and x.step / prod(kernel))
            return _rounded(replace(_pooled(op, kernel, x), values=values, step=step))
        case Join() | PixelGain():
            raise TypeError("a join takes two tensors")


def _blurred(x: Tensor, distance: NDArray) -> NDArray[np.bool_] | bool:
    """Return which elements integers may have on the other side of a step so far away."""
    if not np.any(x.blur):
        return False
    return np.asarray(np.abs(distance) <= x.blur + NOISE * x.size)


def _join(op: Join, x: Tensor, side: Tensor) -> Tensor:
    """Return `x` with what the shortcut brings."""
    common = None if x.step is None or side.step is None else _step_of([x.step, side.step])
    if op.how == "add":
        if x.values.shape != side.values.shape:
            raise ValueError(f"{x.values.shape} and {side.values.shape} cannot be added")
        return _rounded(
            Tensor(
                x.values + side.values,
                x.size + side.size,
                x.near | side.near,
                x.doubtful | side.doubtful,
                common,
                x.blur + side.blur,
            )
        )
    pair = (x, side) if op.how == "append" else (side, x)
    values, near, doubtful, size = (
        np.concatenate([getattr(tensor, key) for tensor in pair], axis=-1)
        for key in ("values", "near", "doubtful", "size")
    )
    blur = np.concatenate([np.broadcast_to(tensor.blur, tensor.size.shape) for tensor in pair])
    return _rounded(Tensor(values, size, near, doubtful, common, blur))


def _multiply(op: PixelGain, x: Tensor, side: Tensor, error: float) -> Tensor:
    """Return sums times the mean magnitudes of their windows, in which `error` may be."""
    magnitudes = np.abs(side.values)
    if op.kernel is None:
        gains = magnitudes.reshape(len(magnitudes), -1).mean(axis=1)
        gains = gains.reshape(-1, *[1] * (x.values.ndim - 1))
    else:
        pixels = magnitudes.mean(axis=3, keepdims=True)
        gains = np.asarray(_windows(op, op.kernel, pixels, 0).mean(axis=(4, 5)))
    if gains.shape[:-1] != x.values.shape[:-1] and op.kernel is not None:
        raise ValueError(f"gains {gains.shape} do not suit {x.values.shape}")
    # All magnitudes are in every gain.
    spread = np.broadcast_to(side.blur, side.size.shape).mean() + error
    largest = np.broadcast_to(side.size, side.values.shape[1:]).mean()
    blur = spread * _largest(x.values) + x.blur * largest
    return Tensor(x.values * gains, x.size * largest, x.near, x.doubtful, None, blur)


def _flatten(op: Flatten, x: Tensor) -> Tensor:
    size = np.broadcast_to(x.size, x.values.shape[1:])

    def flat(array: NDArray, first: int) -> NDArray:
        moved = np.moveaxis(array, -1, first) if op.channels_first and size.ndim == 3 else array
        return moved.reshape(*moved.shape[:first], -1)

    return replace(
        x,
        values=flat(x.values, 1),
        near=flat(x.near, 1),
        doubtful=flat(x.doubtful, 1),
        size=flat(size, 0),
        blur=flat(np.broadcast_to(x.blur, size.shape), 0),
    )


def _affine(op: Affine, x: Tensor) -> Tensor:
    scale = np.array([float(value) for value in op.scale])
    offset = np.array([float(value) for value in op.offset])
    step = None
    if x.step:
        steps = (x.step * value for value in set(op.scale))
        step = _step_of([*steps, *set(op.offset)])
    size = np.broadcast_to(np.abs(scale) * x.size + np.abs(offset), x.size.shape)
    blur = np.abs(scale) * x.blur
    return _rounded(replace(x, values=x.values * scale + offset, size=size, step=step, blur=blur))


def _batch_norm(op: BatchNorm, x: Tensor) -> Tensor:
    gamma, beta, mean, var = (
        array.astype(np.float64) for array in (op.gamma, op.beta, op.mean, op.var)
    )
    scale = gamma / np.sqrt(var + np.float64(op.eps))
    size = np.abs(scale) * (x.size + np.abs(mean)) + np.abs(beta)
    values = scale * (x.values - mean) + beta
    return replace(x, values=values, size=size, step=None, blur=np.abs(scale) * x.blur)


def _quantize(op: Quantize, x: Tensor) -> Tensor:
    scale, zero = float(op.scale), float(op.zero_point)
    noise = NOISE * (x.size / scale + abs(zero) + 1)
    integers = x.values / scale + zero
    halves = np.floor(integers) + 0.5
    inside = (op.low < halves) & (halves < op.high)
    near = (np.abs(integers - halves) <= noise) & inside
    doubtful = x.doubtful | near | (_blurred(x, scale * (integers - halves)) & inside)
    integers = np.clip(np.round(np.where(near, halves, integers)), op.low, op.high)
    size = np.full(x.size.shape, scale * (max(abs(op.low), abs(op.high)) + abs(zero)))
    step = _step_of([op.scale, op.scale * op.zero_point])
    values = scale * (integers - zero)
    return _rounded(Tensor(values, size, x.near | near, doubtful, step))


def _count(op: MultiThreshold, x: Tensor) -> Tensor:
    reached = np.zeros(x.values.shape, np.intp)
    near = np.zeros(x.values.shape, bool)
    doubtful = x.doubtful
    for column in zip(*op.thresholds, strict=True):
        thresholds = np.array([float(threshold) for threshold in column])
        noise = NOISE * (x.size + np.abs(thresholds))
        reached += x.values >= thresholds - noise
        near |= np.abs(x.values - thresholds) <= noise
        doubtful = doubtful | _blurred(x, x.values - thresholds)
    levels = np.array([float(value) for value in op.values])
    size = np.full(x.size.shape, np.abs(levels).max())
    step = _step_of(op.values)
    return _rounded(Tensor(levels[reached], size, x.near | near, doubtful | near, step))


def _convolve(op: Conv2d, x: Tensor) -> Tensor:
    pad = float(op.pad_value)
    padded = any(op.padding)
    _, *kernel, depth = op.weights.shape
    parts, sizes = [], []
    for group, weights in enumerate(np.split(op.weights, op.groups)):
        channels = slice(group * depth, (group + 1) * depth)
        # (N, rows, columns, C, KH, KW) and (M, KH, KW, C) over C, KH and KW.
        windows = _windows(op, kernel, x.values[..., channels], pad)
        weights = weights.astype(np.float64)
        parts.append(np.tensordot(windows, weights, ((3, 4, 5), (3, 1, 2))))
        taps = np.maximum(x.size[channels], abs(pad) if padded else 0)
        sizes.append((np.abs(weights) @ taps).sum(axis=(1, 2)))
    step = x.step
    if step and padded:
        step = _step_of([step, op.pad_value])
    return _tensor(np.concatenate(parts, axis=-1), np.concatenate(sizes), step)


def _pooled(op: MaxPool | AveragePool, kernel: Iterable[int], x: Tensor) -> Tensor:
    """Return a tensor whose elements are near or doubtful where one of a window is."""
    near, doubtful = (
        np.asarray(_windows(op, kernel, mask, False).any(axis=(4, 5)))
        for mask in (x.near, x.doubtful)
    )
    return replace(x, near=near, doubtful=doubtful)


def _windows(
    op: Conv2d | MaxPool | AveragePool | PixelGain,
    kernel: Iterable[int],
    x: NDArray,
    fill: float,
) -> NDArray:
    """Return the windows of images (N, H, W, C), shape (N, rows, columns, C, KH, KW)."""
    top, left, bottom, right = (0, 0, 0, 0) if isinstance(op, AveragePool) else op.padding
    down, across = (1, 1) if isinstance(op, AveragePool) else op.dilation
    sides = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, sides, constant_values=fill)
    height, width = kernel
    extent = (down * (height - 1) + 1, across * (width - 1) + 1)
    places = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(1, 2))
    return places[:, :: op.stride[0], :: op.stride[1], :, ::down, ::across]


def _largest(values: NDArray) -> NDArray[np.float64]:
    """Return the largest magnitude of every channel."""
    return np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)


def _step_of_frames(values: NDArray) -> Fraction | None:
    """Return a power of two that divides all numbers, if there is one that is not too small."""
    for bits in (0, 8, 16, 24, 32):
        scaled = values * 2.0**bits
        if np.array_equal(scaled, np.rint(scaled)):
            return Fraction(1, 1 << bits)
    return None


def _step_of(values: Iterable[Fraction]) -> Fraction | None:
    """Return the greatest common divisor, see `_binary`."""
    fractions = [value for value in values if value]
    if not fractions:
        return Fraction(1)
    denominator = lcm(*(value.denominator for value in fractions))
    numerators = (int(value * denominator) for value in fractions)
    return _binary(Fraction(reduce(gcd, numerators), denominator))


def _binary(step: Fraction | None) -> Fraction | None:
    """Return a step if float64 holds its multiples: its denominator is a power of two."""
    if not step or step.denominator & (step.denominator - 1):
        return None
    return step
