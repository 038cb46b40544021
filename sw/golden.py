"""The golden model: the lowered network on packed bits, the meaning hardware is checked against.

Bits are packed 64 to a word, and one layer is ``acc = MW - 2 * popcount(a XOR w)``: padding bits
are zero on both sides and never count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.lowered import InputQuantizer, LoweredLayer, LoweredNetwork

__all__ = ["Prediction", "activations", "binarize", "predict", "predict_bits"]

_BLOCK_BYTES = 1 << 18
"""Size of the largest temporary: it must stay in the second-level cache."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says about N frames.

    Attributes
    ----------
    classes : ndarray of int64, shape (N,)
        Arg-max of the scores, ties to the lowest index.
    accumulators : ndarray of int32, shape (N, classes)
        The last layer's accumulators.
    scores : ndarray of int64, shape (N, classes)
        ``scale * accumulators + offset`` in integers.
    logits : ndarray of float64, shape (N, classes)
        The network's own outputs, rounded to float64.
    """

    classes: NDArray[np.int64]
    accumulators: NDArray[np.int32]
    scores: NDArray[np.int64]
    logits: NDArray[np.float64]


def binarize(lowered: LoweredNetwork, x: NDArray) -> NDArray[np.bool_]:
    """Return the bits (N, F) of raw frames; parameters and errors as :func:`predict`."""
    x = np.asarray(x)
    _check_frames(lowered.input, x)
    return lowered.input.quantize(x)


def predict(lowered: LoweredNetwork, x: NDArray) -> Prediction:
    """Classify raw frames.

    Parameters
    ----------
    lowered : LoweredNetwork
    x : ndarray, shape (N, *lowered.input.shape) or (N, F)
        Frames in the network's own units: float32, float16, or integers of up to 16 bits. A
        network with a flat input takes frames of any shape with F values, in row-major order.

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        If the shape or dtype is another, there are no frames, or a value is NaN.
    """
    return predict_bits(lowered, binarize(lowered, x))


def predict_bits(lowered: LoweredNetwork, bits: NDArray) -> Prediction:
    """Classify frames that are bits already.

    Parameters
    ----------
    lowered : LoweredNetwork
    bits : ndarray of bool (or of integers 0 and 1), shape (N, F)
        Feature 0 first; True means +1.

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        If the shape is another or a value is neither 0 nor 1.
    """
    *_, accumulators = _run(lowered, bits)
    scores = _scores(lowered, accumulators)
    output = lowered.output
    return Prediction(
        classes=scores.argmax(axis=1),
        accumulators=accumulators,
        scores=scores,
        logits=output.logit_scale * accumulators + output.logit_offset,
    )


def activations(lowered: LoweredNetwork, bits: NDArray) -> list[NDArray]:
    """Return what every layer sends on, for a check of the hardware's streams.

    Parameters
    ----------
    lowered : LoweredNetwork
    bits : ndarray of bool (or of integers 0 and 1), shape (N, F)

    Returns
    -------
    list of ndarray, one per layer, shape (N, MH)
        bool for hidden layers, int64 scores for the last.

    Raises
    ------
    UserError
        As :func:`predict_bits`.
    """
    *hidden, accumulators = _run(lowered, bits)
    return [*hidden, _scores(lowered, accumulators)]


def _run(lowered: LoweredNetwork, bits: NDArray) -> Iterator[NDArray]:
    """Yield each hidden layer's bits and the last layer's accumulators."""
    bits = _check_bits(lowered, np.asarray(bits))
    for layer in lowered.layers:
        accumulators = _accumulate(layer, bits)
        if layer.thresholds is None:
            yield accumulators
        else:
            bits = accumulators >= layer.thresholds
            yield bits


def _accumulate(layer: LoweredLayer, bits: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the bipolar dot products (N, MH) of `bits` (N, MW) with the layer's rows."""
    a = _pack(bits)
    w = np.ascontiguousarray(_pack(layer.weights > 0).T)
    differing = np.empty((len(a), layer.mh), np.uint32)
    rows = max(1, _BLOCK_BYTES // (8 * layer.mh))
    for start in range(0, len(a), rows):
        block = a[start : start + rows]
        total = np.zeros((len(block), layer.mh), np.uint32)
        for word in range(w.shape[0]):
            total += np.bitwise_count(block[:, word, None] ^ w[word])
        differing[start : start + rows] = total
    return layer.mw - 2 * differing.astype(np.int32)


def _pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack the last axis, 64 bits to a word, zeros behind."""
    packed = np.packbits(bits, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def _scores(lowered: LoweredNetwork, accumulators: NDArray[np.int32]) -> NDArray[np.int64]:
    return lowered.output.scale * accumulators + lowered.output.offset


def _check_frames(expected: InputQuantizer, x: NDArray) -> None:
    features = prod(expected.shape)
    legal = x.shape[1:] in (expected.shape, (features,))
    if len(expected.shape) == 1 and x.ndim > 1:
        legal = prod(x.shape[1:]) == features
    if not legal:
        sizes = ", ".join(str(size) for size in expected.shape)
        raise UserError(
            f"the data have shape {x.shape}, but the network takes frames of shape "
            f"{expected.shape}; give an array of shape (N, {sizes})"
        )
    if not len(x):
        raise UserError("the data hold no frames; give at least one")
    # Only these fit float32, in which thresholds are exact.
    if x.itemsize > {"f": 4, "b": 1, "u": 2, "i": 2}.get(x.dtype.kind, 0):
        raise UserError(
            f"the data have dtype {x.dtype}, but frames of shape {expected.shape} are compared as "
            f"float32; convert them to float32 or uint8"
        )
    if x.dtype.kind == "f" and np.isnan(x).any():
        raise UserError("the data hold NaN; give frames whose values are all numbers")


def _check_bits(lowered: LoweredNetwork, bits: NDArray) -> NDArray[np.bool_]:
    features = lowered.layers[0].mw
    if bits.ndim != 2 or bits.shape[1] != features:
        raise UserError(
            f"the bits have shape {bits.shape}, but the network takes {features} a frame; "
            f"give an array of shape (N, {features})"
        )
    if bits.dtype != np.bool_ and not np.isin(bits, (0, 1)).all():
        raise UserError("the bits hold values other than 0 and 1; give a bool array")
    return bits.astype(bool, copy=False)
