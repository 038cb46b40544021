"""Two slow evaluators for tests: of a network in exact arithmetic, and of lowered stages.

Neither shares code with the lowering or with the golden model.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
    LoweredMagnitude,
    LoweredNetwork,
    LoweredPool,
    LoweredThreshold,
    Window,
)
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
    PixelGain,
    Quantize,
    Sign,
)

__all__ = ["best_class", "run_exact", "run_stages"]

_DIGITS = 120
_ZERO = Decimal("1e-70")
"""Below this a value is zero: what is zero exactly comes with rounding errors only."""
_CLEAR = Decimal("1e-50")
"""No other value may be smaller, lest its sign be in doubt."""


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def _snapped(value: Decimal) -> Decimal:
    """Return zero for what is zero but for rounding."""
    if abs(value) < _ZERO:
        return Decimal(0)
    assert abs(value) > _CLEAR, f"too close to a tie to tell: {value}"
    return value


def run_exact(network: Network, x: NDArray) -> list[NDArray]:
    """Evaluate a network on one frame, operation by operation as their docstrings say.

    Parameters
    ----------
    network : Network
    x : ndarray, shape `network.input_shape`

    Returns
    -------
    list of ndarray of object
        The tensor behind every operation, those on a shortcut before its end, elements `Decimal` of
        120 digits; the last one holds the logits.
    """
    with localcontext() as context:
        context.prec = _DIGITS
        y = np.array([Decimal(float(v)) for v in np.asarray(x).ravel()], object)
        y = y.reshape(network.input_shape)
        tensors, every = [y], []
        for op in network.ops:
            match op:
                case Join():
                    side = tensors[op.source]
                    for step in op.path:
                        side = _evaluate(step, side)
                        every.append(side)
                    y = _join(op, tensors[-1], side)
                case PixelGain():
                    y = _multiply(op, tensors)
                case _:
                    y = _evaluate(op, tensors[-1])
            tensors.append(y)
            every.append(y)
        return every


def _join(op: Join, main: NDArray, side: NDArray) -> NDArray:
    if op.how == "add":
        assert main.shape == side.shape
        return main + side
    pair = (main, side) if op.how == "append" else (side, main)
    return np.concatenate(pair, axis=-1)


def _multiply(op: PixelGain, tensors: list[NDArray]) -> NDArray:
    main, side = tensors[-1].copy(), tensors[op.source]
    if op.kernel is None:
        return main * (sum(abs(v) for v in side.ravel()) / side.size)
    for r, c in np.ndindex(main.shape[:2]):
        total = Decimal(0)
        for i, j in np.ndindex(*op.kernel):
            row = r * op.stride[0] + i * op.dilation[0] - op.padding[0]
            column = c * op.stride[1] + j * op.dilation[1] - op.padding[1]
            if 0 <= row < side.shape[0] and 0 <= column < side.shape[1]:
                total += sum(abs(v) for v in side[row, column])
        main[r, c] *= total / (op.kernel[0] * op.kernel[1] * side.shape[2])
    return main


def _evaluate(op: object, y: NDArray) -> NDArray:
    match op:
        case Flatten():
            if op.channels_first and y.ndim == 3:
                y = y.transpose(2, 0, 1)
            return y.reshape(-1)
        case Affine():
            scale = np.array([_decimal(v) for v in op.scale], object)
            return y * scale + np.array([_decimal(v) for v in op.offset], object)
        case BatchNorm():
            gamma, beta, mean, var = (
                np.array([Decimal(float(v)) for v in values], object)
                for values in (op.gamma, op.beta, op.mean, op.var)
            )
            root = np.array([(v + Decimal(float(np.float32(op.eps)))).sqrt() for v in var], object)
            return gamma * (y - mean) / root + beta
        case Sign():
            return _map(lambda v: Decimal(1 if _snapped(v) >= 0 else -1), y)
        case Quantize():
            return _map(lambda v: _quantize(op, v), y)
        case MultiThreshold():
            return _count(op, y)
        case Dense():
            return (op.weights.astype(int) * y).sum(axis=1)
        case Conv2d():
            return _convolve(op, y)
        case MaxPool():
            return _max_pool(op, y)
        case AveragePool():
            return _average_pool(op, y)
    raise TypeError(op)


def _map(function: object, y: NDArray) -> NDArray:
    result = np.empty(y.shape, object)
    for index in np.ndindex(y.shape):
        result[index] = function(y[index])
    return result


def _quantize(op: Quantize, value: Decimal) -> Decimal:
    exact = value / _decimal(op.scale) + _decimal(op.zero_point)
    below = Decimal(floor(exact))
    rest = _snapped(exact - below - Decimal("0.5"))
    # Halves go to the even neighbour.
    q = below + (int(below) % 2 if rest == 0 else int(rest > 0))
    q = min(max(q, Decimal(op.low)), Decimal(op.high))
    return _decimal(op.scale) * (q - _decimal(op.zero_point))


def _count(op: MultiThreshold, y: NDArray) -> NDArray:
    result = np.empty(y.shape, object)
    for index in np.ndindex(y.shape):
        row = op.thresholds[index[-1] % len(op.thresholds)]
        reached = sum(_snapped(y[index] - _decimal(threshold)) >= 0 for threshold in row)
        result[index] = _decimal(op.values[reached])
    return result


def _convolve(op: Conv2d, y: NDArray) -> NDArray:
    top, left, bottom, right = op.padding
    height, width, channels = y.shape
    mh, kh, kw, depth = op.weights.shape
    rows = (height + top + bottom - op.dilation[0] * (kh - 1) - 1) // op.stride[0] + 1
    columns = (width + left + right - op.dilation[1] * (kw - 1) - 1) // op.stride[1] + 1
    padding = _decimal(op.pad_value)
    result = np.empty((rows, columns, mh), object)
    for r, c, m in np.ndindex(rows, columns, mh):
        total = Decimal(0)
        for i, j, k in np.ndindex(kh, kw, depth):
            row = r * op.stride[0] + i * op.dilation[0] - top
            column = c * op.stride[1] + j * op.dilation[1] - left
            inside = 0 <= row < height and 0 <= column < width
            channel = m // (mh // op.groups) * (channels // op.groups) + k
            total += int(op.weights[m, i, j, k]) * (y[row, column, channel] if inside else padding)
        result[r, c, m] = total
    return result


def _max_pool(op: MaxPool, y: NDArray) -> NDArray:
    top, left, bottom, right = op.padding
    height, width, channels = y.shape
    rows = (height + top + bottom - op.dilation[0] * (op.kernel[0] - 1) - 1) // op.stride[0] + 1
    columns = (width + left + right - op.dilation[1] * (op.kernel[1] - 1) - 1) // op.stride[1] + 1
    result = np.empty((rows, columns, channels), object)
    for r, c, k in np.ndindex(result.shape):
        values = []
        for i, j in np.ndindex(*op.kernel):
            row = r * op.stride[0] + i * op.dilation[0] - top
            column = c * op.stride[1] + j * op.dilation[1] - left
            if 0 <= row < height and 0 <= column < width:
                values.append(y[row, column, k])
        result[r, c, k] = max(values)
    return result


def _average_pool(op: AveragePool, y: NDArray) -> NDArray:
    kernel, stride = (op.kernel, op.stride) if op.kernel else (y.shape[:2], (1, 1))
    rows = (y.shape[0] - kernel[0]) // stride[0] + 1
    columns = (y.shape[1] - kernel[1]) // stride[1] + 1
    result = np.empty((rows, columns, y.shape[2]), object)
    for r, c in np.ndindex(rows, columns):
        top, left = r * stride[0], c * stride[1]
        tile = y[top : top + kernel[0], left : left + kernel[1]]
        result[r, c] = tile.sum(axis=(0, 1)) / (kernel[0] * kernel[1])
    return result


def best_class(logits: NDArray) -> int:
    """Return the class of the largest logit, of equal ones the first."""
    flat, best = logits.ravel(), 0
    with localcontext() as context:
        context.prec = _DIGITS
        for c in range(1, len(flat)):
            if _snapped(flat[c] - flat[best]) > 0:
                best = c
    return best


def run_stages(lowered: LoweredNetwork, x: NDArray) -> list[NDArray[np.int64]]:
    """Evaluate lowered stages on one raw frame, in int64 loops.

    Parameters
    ----------
    lowered : LoweredNetwork
    x : ndarray, shape `lowered.input.shape`

    Returns
    -------
    list of ndarray of int64
        The quantized frame (F,) and what every stage sends on, those on a shortcut before its end:
        0 and 1, levels, accumulators or sums; the last one is the scores, shape (classes,).
    """
    flat = np.asarray(x, np.float32).reshape(-1)
    thresholds = np.broadcast_to(lowered.input.thresholds, (lowered.input.levels, flat.size))
    y = (flat >= thresholds).sum(axis=0).astype(np.int64)
    tensors, every = [y], [y]
    for stage in lowered.stages:
        y = y.reshape(stage.i_shape)
        if isinstance(stage, LoweredJoin):
            side = tensors[stage.source + 1]
            for part in stage.path:
                side = _chained(part, side)
                every.append(side)
            y = _joined(stage, y, side)
        else:
            y = _chained(stage, y)
        assert y.shape == stage.o_shape
        tensors.append(y)
        every.append(y)
    scores = lowered.output.scale * y.reshape(-1) + lowered.output.offset
    return [*every, scores]


def _chained(
    stage: LoweredLayer | LoweredPool | LoweredThreshold | LoweredMagnitude, y: NDArray
) -> NDArray:
    y = y.reshape(stage.i_shape)
    match stage:
        case LoweredLayer():
            y = _layer(stage, y)
        case LoweredPool():
            y = _pool(stage, y)
        case LoweredThreshold():
            y = _reached(stage.thresholds, y)
        case LoweredMagnitude():
            y = _magnitude(stage, y)
    assert y.shape == stage.o_shape
    return y


def _magnitude(stage: LoweredMagnitude, y: NDArray) -> NDArray:
    assert stage.low <= y.min() <= y.max() <= stage.high
    result = np.zeros(stage.o_shape, np.int64)
    for place in np.ndindex(stage.o_shape[:-1]):
        total = sum(
            abs(int(a) * int(v) + int(b))
            for a, b, v in zip(stage.gains, stage.offsets, y[place], strict=True)
        )
        # Halves go up.
        result[place] = floor(Fraction(total, 1 << stage.shift) + Fraction(1, 2))
    assert stage.o_range[0] <= result.min() <= result.max() <= stage.o_range[1]
    return result


def _reached(thresholds: NDArray, y: NDArray) -> NDArray:
    """Return how many thresholds of its channel every integer reaches."""
    rows = thresholds.reshape(-1, y.shape[-1])
    assert np.all(np.diff(rows.astype(np.int64), axis=0) >= 0)
    return sum((y >= row).astype(np.int64) for row in rows)


def _joined(stage: LoweredJoin, main: NDArray, side: NDArray) -> NDArray:
    for which, y in enumerate((main, side)):
        assert stage.low[which] <= y.min() <= y.max() <= stage.high[which]
    if stage.how == "multiply":
        result = np.zeros(stage.o_shape, np.int64)
        for place in np.ndindex(stage.o_shape):
            result[place] = int(main[place]) * int(
                side.reshape(*stage.o_shape[:-1], 1)[place[:-1]][0]
            )
        assert stage.o_range[0] <= result.min() <= result.max() <= stage.o_range[1]
        return result
    if stage.how != "add":
        return np.concatenate((main, side) if stage.how == "append" else (side, main), axis=-1)
    result = np.zeros(stage.o_shape, np.int64)
    for place in np.ndindex(stage.o_shape):
        gains = [int(gain) for gain in stage.gains[:, place[-1]]]
        result[place] = gains[0] * main[place] + gains[1] * side[place]
    assert stage.o_range[0] <= result.min() <= result.max() <= stage.o_range[1]
    return result


def _taps(window: Window, y: NDArray, r: int, c: int, i: int, j: int) -> NDArray | None:
    """Return the channels under tap (i, j) of window (r, c), None in the padding."""
    row = r * window.stride[0] + i * window.dilation[0] - window.padding[0]
    column = c * window.stride[1] + j * window.dilation[1] - window.padding[1]
    if 0 <= row < y.shape[0] and 0 <= column < y.shape[1]:
        return y[row, column]
    return None


def _layer(stage: LoweredLayer, y: NDArray) -> NDArray:
    assert y.min() >= 0
    assert y.max() <= stage.levels
    if stage.levels == 1:
        y = 2 * y - 1
    weights = stage.weights.astype(np.int64)
    if stage.window is None:
        acc = weights @ y
    else:
        window = stage.window
        pad = np.zeros(y.shape[2], np.int64)
        if window.pad is not None:
            pad = window.pad.astype(np.int64)
            pad = 2 * pad - 1 if stage.levels == 1 else pad
        rows, columns = window.out_shape
        acc = np.zeros((rows, columns, stage.mh), np.int64)
        depth, neurons = y.shape[2] // stage.groups, stage.mh // stage.groups
        cube = weights.reshape(stage.mh, *window.kernel, depth)
        for r, c, i, j in np.ndindex(rows, columns, *window.kernel):
            inside = _taps(window, y, r, c, i, j)
            lanes = pad if inside is None else inside
            for m in range(stage.mh):
                first = m // neurons * depth
                acc[r, c, m] += cube[m, i, j] @ lanes[first : first + depth]
    assert np.all(acc >= stage.acc_min)
    assert np.all(acc <= stage.acc_max)
    if stage.thresholds is None:
        return acc
    assert np.all(stage.thresholds >= stage.acc_min)
    assert np.all(stage.thresholds <= stage.acc_max + 1)
    return _reached(stage.thresholds, acc)


def _pool(stage: LoweredPool, y: NDArray) -> NDArray:
    assert y.min() >= stage.low
    assert y.max() <= stage.high
    assert stage.window.pad is not None
    assert not stage.window.pad.any()
    start = stage.low if stage.op == "max" else 0
    result = np.full(stage.o_shape, start, np.int64)
    falling = np.zeros(y.shape[2], bool) if stage.falling is None else stage.falling
    result[..., falling] = stage.high
    combine = {"or": np.bitwise_or, "max": np.maximum, "sum": np.add}[stage.op]
    for r, c, i, j in np.ndindex(*stage.window.out_shape, *stage.window.kernel):
        inside = _taps(stage.window, y, r, c, i, j)
        if inside is not None:
            least = np.minimum(result[r, c], inside)
            result[r, c] = np.where(falling, least, combine(result[r, c], inside))
    return result
