"""Arithmetic of the golden model: windows of images, and dot products of packed bits.

Bits are packed 64 to a word, and a dot product of ``MW`` bipolar pairs is ``MW - 2 * d`` with ``d``
the pairs that differ, ``popcount(a XOR w)``; zeros behind the bits of a row agree on both sides.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
    LoweredMagnitude,
    LoweredPool,
    Window,
)

__all__ = ["accumulate", "fire", "join", "magnitudes", "pool", "reached"]

_BLOCK_BYTES = 1 << 18
"""Size of the largest temporary: it must stay in the second-level cache."""


def fire(layer: LoweredLayer, x: NDArray) -> NDArray:
    """Return the bits or levels of a layer that has thresholds; parameters as `accumulate`.

    Returns
    -------
    ndarray of bool or uint16, shape (N, *o_shape)
    """
    assert layer.thresholds is not None
    if not layer.is_binary or layer.zero_padded or layer.thresholds.ndim > 1:
        return reached(accumulate(layer, x), layer.thresholds)
    # acc >= T exactly where fewer than (MW - T) // 2 + 1 pairs differ: no need for accumulators.
    limits = np.clip((layer.mw - layer.thresholds) // 2 + 1, 0, layer.mw + 1)
    differing = _differing(layer, x)
    return (differing < limits.astype(differing.dtype)).reshape(len(x), *layer.o_shape)


def reached(x: NDArray, thresholds: NDArray[np.int32]) -> NDArray:
    """Return how many thresholds integers reach.

    Parameters
    ----------
    x : ndarray of int, shape (N, ..., C)
    thresholds : ndarray of int, shape (C,) or (levels, C)

    Returns
    -------
    ndarray of the shape of `x`, of bool in the first form and uint16 in the second
    """
    if thresholds.ndim == 1:
        return x >= thresholds
    count = np.zeros(x.shape, np.uint16)
    for row in thresholds:
        count += x >= row
    return count


def join(stage: LoweredJoin, main: NDArray, side: NDArray) -> NDArray:
    """Return what a join makes of both streams.

    Parameters
    ----------
    stage : LoweredJoin
    main, side : ndarray of bool or int, shape (N, ..., C) each

    Returns
    -------
    ndarray, shape (N, *stage.o_shape)
        int64 with ``add`` and ``multiply``, else of the wider dtype of both.
    """
    shape = (len(main), *stage.o_shape)
    if stage.how == "multiply":
        gains = side.reshape(*shape[:-1], 1).astype(np.int64)
        return main.reshape(shape).astype(np.int64) * gains
    if stage.gains is not None:
        main, side = (x.reshape(shape).astype(np.int64) for x in (main, side))
        return stage.gains[0] * main + stage.gains[1] * side
    pixels = [x.reshape(*shape[:-1], -1) for x in (main, side)]
    return np.concatenate(pixels if stage.how == "append" else pixels[::-1], axis=-1)


def magnitudes(stage: LoweredMagnitude, x: NDArray) -> NDArray[np.int64]:
    """Return the sums of magnitudes of pixels (N, ..., C), shape (N, ..., 1)."""
    sums = np.abs(stage.gains * x.astype(np.int64) + stage.offsets).sum(axis=-1, keepdims=True)
    return (sums + stage.half) >> stage.shift


def accumulate(layer: LoweredLayer, x: NDArray) -> NDArray:
    """Return the accumulators of a layer.

    Parameters
    ----------
    layer : LoweredLayer
    x : ndarray of bool or unsigned integers, shape (N, *i_shape)

    Returns
    -------
    ndarray of int64, shape (N, *o_shape)
    """
    shape = (len(x), *layer.o_shape)
    if not layer.is_binary:
        return _multiply(layer, x).reshape(shape)
    agreement = layer.mw - 2 * _differing(layer, x).astype(np.int64)
    if layer.window is not None and layer.zero_padded:
        # A padded tap was packed as zeros: take off what it counted, -1 for each weight of +1 and
        # +1 for each of -1.
        taps = layer.weights.reshape(layer.mh, layer.window.taps, -1).sum(axis=2, dtype=np.int64)
        padded = _padded_taps(layer.window).astype(np.int64)
        agreement = agreement.reshape(len(x), len(padded), layer.mh) + padded @ taps.T
    return agreement.reshape(shape)


def pool(stage: LoweredPool, x: NDArray) -> NDArray:
    """Return what a pool makes of images (N, H, W, C): bool for OR, int64 for sums.

    A maximum is of the dtype that comes in.
    """
    if stage.falling is not None:
        # The minimum of n is the maximum of its distance to the largest.
        x = np.where(stage.falling, stage.low + stage.high - x.astype(np.int64), x).astype(x.dtype)
        pooled = pool(replace(stage, falling=None), x)
        turned = stage.low + stage.high - pooled.astype(np.int64)
        return np.where(stage.falling, turned, pooled).astype(x.dtype)
    if stage.op == "max":
        # Padded taps hold the least integer, 0 once this is taken off.
        raised = _taps(stage.window, x.astype(np.int64) - stage.low).max(axis=3) + stage.low
        return raised.astype(x.dtype).reshape(len(x), *stage.o_shape)
    taps = _taps(stage.window, x)
    if stage.op == "or":
        return taps.any(axis=3).reshape(len(x), *stage.o_shape)
    return taps.sum(axis=3, dtype=np.int64).reshape(len(x), *stage.o_shape)


def _taps(window: Window, x: NDArray) -> NDArray:
    """Return the windows of images, shape (N, rows, columns, taps, C)."""
    top, left, bottom, right = window.padding
    if any(window.padding):
        padded = np.zeros(
            (len(x), top + x.shape[1] + bottom, left + x.shape[2] + right, x.shape[3]), x.dtype
        )
        if window.pad is not None:
            padded[:] = window.pad
        padded[:, top : top + x.shape[1], left : left + x.shape[2]] = x
        x = padded
    rows, columns = window.out_shape
    result = np.empty((len(x), rows, columns, window.taps, x.shape[3]), x.dtype)
    for tap in range(window.taps):
        y, x0 = (
            index * dilation
            for index, dilation in zip(divmod(tap, window.kernel[1]), window.dilation, strict=True)
        )
        down, across = window.stride
        result[:, :, :, tap] = x[
            :, y : y + down * (rows - 1) + 1 : down, x0 : x0 + across * (columns - 1) + 1 : across
        ]
    return result


def _padded_taps(window: Window) -> NDArray[np.bool_]:
    """Return which taps lie in the padding, shape (positions, taps)."""
    height, width, _ = window.shape
    inside = np.ones((1, height, width, 1), bool)
    return ~_taps(replace(window, pad=None), inside).reshape(-1, window.taps)


def _vectors(layer: LoweredLayer, x: NDArray, group: int) -> NDArray:
    """Return the vectors that a group's neurons see, shape (N * positions, MW)."""
    if layer.window is None:
        return x.reshape(len(x), -1)
    window, size = layer.window, layer.window.shape[2] // layer.groups
    channels = slice(group * size, (group + 1) * size)
    pad: NDArray | None = None if window.pad is None else window.pad[channels]
    if pad is not None and x.dtype == np.int8:
        pad = pad.astype(np.int8) * 2 - 1
    # Cut out first: else every group would copy the windows of all of them.
    return _taps(replace(window, pad=pad), x[..., channels]).reshape(-1, layer.mw)


def _multiply(layer: LoweredLayer, x: NDArray) -> NDArray[np.int64]:
    """Return the dot products of integers, exact in the floating point they are made in."""
    # A lane that a fault has changed may hold more than `levels`.
    largest = int(np.abs(layer.weights).sum(axis=1, dtype=np.int64).max())
    exact = largest << layer.input_bits < 1 << 24
    kind = np.float32 if exact else np.float64
    if layer.levels == 1:
        # Bits count -1 and +1, and padded ones 0 where the window has no other value.
        x = x.astype(np.int8) * 2 - 1
    rows = np.split(layer.weights.astype(kind), layer.groups)
    parts = [
        _vectors(layer, x, group).astype(kind) @ weights.T for group, weights in enumerate(rows)
    ]
    return np.concatenate(parts, axis=1).astype(np.int64)


def _differing(layer: LoweredLayer, x: NDArray[np.bool_]) -> NDArray:
    """Return how many pairs differ, uint16 or uint32 of shape (N * positions, MH)."""
    parts = []
    for group, weights in enumerate(np.split(layer.weights > 0, layer.groups)):
        a, w = _packed_windows(layer, x, weights, group)
        parts.append(_count(a, np.ascontiguousarray(w.T), layer.mw))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _packed_windows(
    layer: LoweredLayer, x: NDArray[np.bool_], weights: NDArray[np.bool_], group: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return windows and weights packed alike: tap by tap, or whole where that is shorter."""
    window = layer.window
    if window is None:
        return _pack(x.reshape(len(x), -1)), _pack(weights)
    size = window.shape[2] // layer.groups
    if -(-layer.mw // 64) < window.taps * -(-size // 64) or layer.groups > 1:
        return _pack(_vectors(layer, x, group)), _pack(weights)
    # Packed once a pixel, then only words are copied from tap to tap.
    pixels = _pack(x.reshape(-1, size)).reshape(*x.shape[:3], -1)
    words = pixels.shape[-1]
    pad = None if window.pad is None else _pack(window.pad[None] > 0)[0]
    packed = replace(window, shape=pixels.shape[1:], pad=pad)
    taps = _taps(packed, pixels).reshape(-1, window.taps * words)
    return taps, _pack(weights.reshape(-1, size)).reshape(len(weights), -1)


def _count(a: NDArray[np.uint64], w: NDArray[np.uint64], mw: int) -> NDArray:
    """Return ``popcount(a[i] XOR w[:, j])``, shape (vectors, MH), for `w` of shape (words, MH)."""
    neurons = w.shape[1]
    # Also MW + 1 must fit, the limit of a neuron that is always on.
    differing = np.empty((len(a), neurons), np.uint16 if mw + 1 < 1 << 16 else np.uint32)
    rows = max(1, _BLOCK_BYTES // (8 * neurons))
    mixed = np.empty((rows, neurons), np.uint64)
    counted = np.empty((rows, neurons), np.uint8)
    for start in range(0, len(a), rows):
        total = differing[start : start + rows]
        total[:] = 0
        many = len(total)
        for word in range(w.shape[0]):
            column = a[start : start + many, word, None]
            np.bitwise_xor(column, w[word], out=mixed[:many])
            np.bitwise_count(mixed[:many], out=counted[:many])
            total += counted[:many]
    return differing


def _pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack the last axis of (rows, bits), 64 bits to a word, zeros behind."""
    packed = np.packbits(bits, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)
