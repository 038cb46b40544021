"""The golden model: the lowered network on packed bits, the meaning hardware is checked against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.flow import outcomes
from xnorflow.lowered import (
    InputQuantizer,
    LoweredJoin,
    LoweredLayer,
    LoweredMagnitude,
    LoweredNetwork,
    LoweredPool,
    LoweredStage,
    LoweredThreshold,
)
from xnorflow.packed import accumulate, fire, join, magnitudes, pool, reached

__all__ = ["Disturbance", "Prediction", "activations", "predict", "predict_quantized", "quantize"]

Disturbance = Callable[[int, int | None, NDArray], NDArray]
"""Given a stage's index, None and what it sends on, returns what arrives; -1 sends the frames. On a
shortcut it is given the join's index, how many stages of its way are behind, and what comes there.
"""

_CHUNK_BYTES = 1 << 25
"""Size of the largest temporary of `predict`, as far as frames are taken a few at a time."""


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


def quantize(lowered: LoweredNetwork, x: NDArray) -> NDArray:
    """Return raw frames as bits or small integers (N, F); parameters and errors as `predict`."""
    x = np.asarray(x)
    _check_frames(lowered.input, x)
    return lowered.input.quantize(x)


def predict(lowered: LoweredNetwork, x: NDArray) -> Prediction:
    """Classify raw frames.

    Parameters
    ----------
    lowered : LoweredNetwork
    x : ndarray, shape (N, *lowered.input.shape) or (N, F)
        Frames in the network's own units: float32, float16, or integers of up to 16 bits.
        Dimensions of size 1 may be left out or added. A network with a flat input takes frames of
        any shape with F values, in row-major order.

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        If the shape or dtype is another, there are no frames, or a value is NaN.
    """
    x = np.asarray(x)
    _check_frames(lowered.input, x)
    return _predict(lowered, x, lowered.input.quantize)


def predict_quantized(lowered: LoweredNetwork, frames: NDArray) -> Prediction:
    """Classify frames that are bits or small integers already.

    Parameters
    ----------
    lowered : LoweredNetwork
    frames : ndarray of bool or integers, shape (N, F)
        In row-major order, (H, W, C) for images; integers from 0 to ``lowered.input.levels``.

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        If the shape is another, there are no frames, or a value is out of range.
    """
    return _predict(lowered, _check_quantized(lowered, np.asarray(frames)), lambda chunk: chunk)


def _predict(
    lowered: LoweredNetwork, frames: NDArray, prepare: Callable[[NDArray], NDArray]
) -> Prediction:
    """Classify frames a few at a time, so that temporaries do not grow with their number."""
    step = max(1, _CHUNK_BYTES // _bytes_per_frame(lowered))
    accumulators = np.concatenate(
        [
            _last(lowered, prepare(frames[start : start + step]))
            for start in range(0, len(frames), step)
        ]
    )
    scores = _scores(lowered, accumulators)
    output = lowered.output
    return Prediction(
        classes=scores.argmax(axis=1),
        accumulators=accumulators.astype(np.int32),
        scores=scores,
        logits=output.logit_scale * accumulators + output.logit_offset,
    )


def activations(
    lowered: LoweredNetwork, frames: NDArray, disturb: Disturbance | None = None
) -> list[NDArray]:
    """Return what every stage sends on, for a check of the hardware's streams.

    Parameters
    ----------
    lowered : LoweredNetwork
    frames : ndarray of bool or integers, shape (N, F)
        See `predict_quantized`; all are computed at once.
    disturb : Disturbance, optional
        What faults make of the streams between the stages; it returns tensors of the shapes and
        dtypes that it is given, and must leave these themselves alone.

    Returns
    -------
    list of ndarray, one per stage of `LoweredNetwork.flow`, each of shape (N, *stage.o_shape)
        bool for bits, uint16 for levels, int64 for accumulators and sums; the last are the scores,
        (N, classes).

    Raises
    ------
    UserError
        As :func:`predict_quantized`.
    """
    *inner, accumulators = _run(lowered, _check_quantized(lowered, np.asarray(frames)), disturb)
    return [*inner, _scores(lowered, accumulators.reshape(len(frames), -1))]


def _run(
    lowered: LoweredNetwork, frames: NDArray, disturb: Disturbance | None = None
) -> Iterator[NDArray]:
    """Yield what every stage sends on."""
    steps = lowered.flow()
    places = _places(lowered)
    disturb = disturb or _undisturbed

    def compute(number: int, taken: Sequence[NDArray]) -> NDArray:
        (stage, behind), op = places[number], steps[number].op
        # What leaves for the shortcut, before its first stage or its end.
        if behind == 1 or (isinstance(op, LoweredJoin) and not op.path):
            taken = [*taken[:-1], disturb(stage, 0, taken[-1])]
        return disturb(stage, behind, _sent(op, *taken))

    yield from outcomes(steps, disturb(-1, None, frames), compute)


def _places(lowered: LoweredNetwork) -> list[tuple[int, int | None]]:
    """Return where each step of the flow stands, as a `Disturbance` is told."""
    result: list[tuple[int, int | None]] = []
    for number, stage in enumerate(lowered.stages):
        if isinstance(stage, LoweredJoin):
            result += [(number, behind) for behind in range(1, len(stage.path) + 1)]
        result.append((number, None))
    return result


def _undisturbed(stage: int, behind: int | None, x: NDArray) -> NDArray:
    return x


def _sent(stage: LoweredStage, x: NDArray, *side: NDArray) -> NDArray:
    """Return what a stage sends on, given what it takes."""
    x = x.reshape(len(x), *stage.i_shape)
    match stage:
        case LoweredLayer():
            return accumulate(stage, x) if stage.thresholds is None else fire(stage, x)
        case LoweredJoin():
            return join(stage, x, *side)
        case LoweredPool():
            return pool(stage, x)
        case LoweredThreshold():
            return reached(x, stage.thresholds)
        case LoweredMagnitude():
            return magnitudes(stage, x)


def _last(lowered: LoweredNetwork, frames: NDArray) -> NDArray[np.int64]:
    """Return the last accumulators, shape (N, classes)."""
    last = frames
    for tensor in _run(lowered, frames):
        last = tensor
    return last.reshape(len(frames), -1)


def _bytes_per_frame(lowered: LoweredNetwork) -> int:
    """Return the size of the largest temporary, as arrays of the widest dtype that occurs."""
    sizes = [8 * lowered.input.features]  # as they are searched for among the thresholds
    for step in lowered.flow():
        match stage := step.op:
            case LoweredLayer():
                lane = 1 if stage.is_binary else 8  # float64 at worst
                sizes.append(stage.positions * (lane * stage.mw + 8 * stage.mh))
            case LoweredPool():
                lane = 1 if (stage.low, stage.high) == (0, 1) else 8
                window = stage.window
                sizes.append(lane * window.positions * window.taps * window.shape[2])
            case LoweredJoin():
                sizes.append(3 * 8 * max(prod(part.i_shape) for part in (stage, *stage.path)))
    return max(sizes)


def _scores(lowered: LoweredNetwork, accumulators: NDArray) -> NDArray[np.int64]:
    return lowered.output.scale * accumulators.astype(np.int64) + lowered.output.offset


def _check_frames(expected: InputQuantizer, x: NDArray) -> None:
    features = prod(expected.shape)
    legal = _without_ones(x.shape[1:]) in (_without_ones(expected.shape), (features,))
    if len(expected.shape) == 1:
        legal = prod(x.shape[1:]) == features
    if x.ndim < 2 or not legal:
        sizes = ", ".join(str(size) for size in expected.shape)
        mend = f"give an array of shape (N, {sizes})"
        if x.shape[1:] == (*expected.shape[2:], *expected.shape[:2]):
            mend = "put the channels last with x.transpose(0, 2, 3, 1)"
        raise UserError(
            f"the data have shape {x.shape}, but the network takes frames of shape "
            f"{expected.shape}; {mend}"
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
    if expected.is_bytes and x.dtype != np.uint8 and not all(map(_holds_bytes, x)):
        raise UserError(
            "the data hold other values than whole numbers from 0 to 255, which is what the "
            "network takes; give the raw bytes of the pixels"
        )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _holds_bytes(frame: NDArray) -> bool:
    return bool(np.all((frame == np.rint(frame)) & (frame >= 0) & (frame <= 255)))


def _check_quantized(lowered: LoweredNetwork, frames: NDArray) -> NDArray:
    features, levels = lowered.input.features, lowered.input.levels
    if frames.ndim != 2 or frames.shape[1] != features:
        raise UserError(
            f"the frames have shape {frames.shape}, but the network takes {features} values a "
            f"frame; give an array of shape (N, {features})"
        )
    if not len(frames):
        raise UserError("there are no frames; give at least one")
    if frames.dtype.kind not in "bui" or (
        frames.dtype != np.bool_ and not 0 <= frames.min() <= frames.max() <= levels
    ):
        raise UserError(
            f"the frames hold other values than whole numbers from 0 to {levels}; quantize raw "
            "frames first"
        )
    return frames.astype(bool if levels == 1 else np.uint16, copy=False)
