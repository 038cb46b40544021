"""The lowered network: integers only, the one meaning that golden model and hardware share.

A frame enters as bits (bit 1 means +1) or as unsigned integers of a few bits. Every stage is one
of four:

- :class:`LoweredLayer`: a matrix of integers, mostly -1 and +1, on a vector, or on every window of
  an image, and integer thresholds behind it (``out = 1 iff acc >= threshold``, or the number of
  thresholds reached) unless it is told to send on its accumulators;
- :class:`LoweredPool`: OR, maximum or sum over windows;
- :class:`LoweredThreshold`: thresholds of their own, behind a sum;
- :class:`LoweredJoin`: an earlier stage's output, added or appended, or the sum of its magnitudes
  in each window multiplied by.

The stages are a chain; only a join looks back, past the stages that its shortcut skips, and holds
the stages that stand on the shortcut.

The last stage's integers become ``score = scale * acc + offset`` per class, and the class is the
arg-max of the scores (ties: lowest index).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xnorflow.flow import Step, flow
from xnorflow.planes import plane_signs

__all__ = [
    "InputQuantizer",
    "LoweredJoin",
    "LoweredLayer",
    "LoweredMagnitude",
    "LoweredNetwork",
    "LoweredOutput",
    "LoweredPool",
    "LoweredStage",
    "LoweredThreshold",
    "Window",
    "WindowKey",
]


@dataclass(frozen=True, eq=False)
class InputQuantizer:
    """What the raw frame becomes, feature by feature: the number of thresholds up to ``x``.

    Attributes
    ----------
    shape : tuple of int
        Shape of a raw frame, without the batch dimension.
    thresholds : ndarray of float32, shape (levels, F) or (levels, 1)
        Rising along the first axis; the second form is for all features alike. Each is the
        smallest float32 from which on the integer is larger by one (``-inf``: always, ``+inf``:
        never), and equal ones make it jump; exact for every float32 and every integer input of up
        to 24 bits. One level makes bits.
    """

    shape: tuple[int, ...]
    thresholds: NDArray[np.float32]

    @property
    def features(self) -> int:
        """Number of values in a frame (F)."""
        return int(np.prod(self.shape))

    @property
    def levels(self) -> int:
        """Largest integer that a feature can become."""
        return int(self.thresholds.shape[0])

    @property
    def is_bytes(self) -> bool:
        """Whether the features are bytes as they are or times an integer, without a quantizer."""
        steps, rest = divmod(self.levels, 255)
        column = np.repeat(np.arange(1, 256, dtype=np.float32), steps)[:, None]
        return not rest and np.array_equal(self.thresholds, column)

    @property
    def bits(self) -> int:
        """Bits of a feature."""
        return self.levels.bit_length()

    def quantize(self, x: NDArray) -> NDArray:
        """Quantize frames.

        Parameters
        ----------
        x : ndarray, shape (N, *shape) or (N, F)

        Returns
        -------
        ndarray, shape (N, F), of bool with one level, of uint16 otherwise
        """
        flat = np.asarray(x).reshape(len(x), self.features).astype(np.float32, copy=False)
        if self.levels == 1:
            return flat >= self.thresholds
        if self.thresholds.shape[1] == 1:
            return np.searchsorted(self.thresholds[:, 0], flat, side="right").astype(np.uint16)
        counts = np.empty(flat.shape, np.uint16)
        for feature, column in enumerate(self.thresholds.T):
            counts[:, feature] = np.searchsorted(column, flat[:, feature], side="right")
        return counts

    def to_bits(self, frames: NDArray) -> NDArray[np.bool_]:
        """Return quantized frames as the hardware takes them.

        Parameters
        ----------
        frames : ndarray of bool or unsigned integers, shape (N, F)

        Returns
        -------
        ndarray of bool, shape (N, F * bits)
            Feature by feature, least significant bit first.
        """
        if self.bits == 1:
            return frames.astype(bool, copy=False)
        shifts = np.arange(self.bits, dtype=np.uint16)
        return ((frames[:, :, None] >> shifts) & 1).astype(bool).reshape(len(frames), -1)


WindowKey = tuple[
    tuple[int, int, int],
    tuple[int, int],
    tuple[int, int],
    tuple[int, int],
    tuple[int, int, int, int],
]
"""Image, kernel, stride, dilation and padding of a window."""


@dataclass(frozen=True, eq=False)
class Window:
    """A window that slides over an image.

    Attributes
    ----------
    shape : tuple of int
        The image, (H, W, C).
    kernel, stride, dilation : tuple of int
        (vertical, horizontal).
    padding : tuple of int
        Rows and columns added (top, left, bottom, right).
    pad : ndarray of uint16, shape (C,), or None
        The integer (or bit) that a padded tap holds, channel by channel; None is a true zero,
        which adds nothing to an accumulator.
    """

    shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    pad: NDArray[np.uint16] | None = None

    @property
    def key(self) -> WindowKey:
        """The geometry alone."""
        return self.shape, self.kernel, self.stride, self.dilation, self.padding

    @property
    def out_shape(self) -> tuple[int, int]:
        """Rows and columns of window positions."""
        top, left, bottom, right = self.padding
        sizes = (self.shape[0] + top + bottom, self.shape[1] + left + right)
        rows, columns = (
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                sizes, self.kernel, self.stride, self.dilation, strict=True
            )
        )
        return rows, columns

    @property
    def taps(self) -> int:
        """Pixels of a window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def positions(self) -> int:
        """Number of window positions in an image."""
        rows, columns = self.out_shape
        return rows * columns

    @property
    def zero_padded(self) -> bool:
        """Whether some taps are true zeros."""
        return self.pad is None and any(self.padding)

    @property
    def is_pixel(self) -> bool:
        """Whether the window is just each pixel in turn."""
        return self.kernel == self.stride == (1, 1) and not any(self.padding)

    @property
    def tiles(self) -> bool:
        """Whether windows neither overlap nor leave gaps nor reach into padding."""
        return self.kernel == self.stride and self.dilation == (1, 1) and not any(self.padding)


@dataclass(frozen=True, eq=False)
class LoweredLayer:
    """A layer in integers: ``acc = weights @ window``, for bits with -1 for bit 0.

    Attributes
    ----------
    name : str
        The layer's name in the network.
    weights : ndarray of int8 or int32, shape (MH, MW)
        Entries -1 and +1, or integers as `coefficients` give them; polarity folds already applied.
        For a convolution MW counts the synapses of one group in the order (KH, KW, C / groups).
    thresholds : ndarray of int32, shape (MH,) or (levels, MH), or None
        Thresholds on the accumulator, in ``acc_min .. acc_max + 1`` (always on .. dead); with one
        plane and without padding, thresholds on bits have a parity that an accumulator can have or
        are ``MW + 1``. One dimension gives bits; with two, what goes out is the number of
        thresholds that are reached, 0 to `levels`: they rise along the first axis, and equal ones
        make it jump. None sends on the accumulators.
    window : Window or None
        Of a convolution; None takes the whole frame as one vector (of an image: H, W, C).
    groups : int
        Groups of channels and neurons.
    levels : int
        Largest integer of an input lane; 1 means bits, which count as -1 and +1.
    coefficients : ndarray of int32, shape (M, MH), or None
        Of the weights' planes, see :mod:`xnorflow.planes`; None for one plane of -1 and +1.
    """

    name: str
    weights: NDArray[np.integer]
    thresholds: NDArray[np.int32] | None
    window: Window | None = None
    groups: int = 1
    levels: int = 1
    coefficients: NDArray[np.int32] | None = None

    @property
    def mh(self) -> int:
        """Number of neurons (outputs)."""
        return int(self.weights.shape[0])

    @property
    def mw(self) -> int:
        """Number of synapses of a neuron (inputs)."""
        return int(self.weights.shape[1])

    @property
    def planes(self) -> int:
        """Planes of the weights (M)."""
        return 1 if self.coefficients is None else len(self.coefficients)

    @property
    def rows(self) -> int:
        """Rows of the matrix as planes of -1 and +1: a neuron has `planes` of them."""
        return self.mh * self.planes

    @property
    def signs(self) -> NDArray[np.integer]:
        """The rows, -1 and +1, shape (rows, MW): planes of a neuron are side by side."""
        return self.weights if self.coefficients is None else _signs(self)

    @property
    def is_binary(self) -> bool:
        """Whether both inputs and weights are -1 and +1."""
        return self.levels == 1 and self.coefficients is None

    @property
    def o_levels(self) -> int:
        """Largest integer that goes out where there are thresholds; 1 means bits."""
        return _levels(self.thresholds)

    @property
    def o_range(self) -> tuple[int, int]:
        """Range of an element that goes out; a bit counts 0 or 1."""
        if self.thresholds is not None:
            return 0, self.o_levels
        return int(self.acc_min.min()), int(self.acc_max.max())

    @property
    def positions(self) -> int:
        """Vectors (output pixels) in a frame."""
        return self.window.positions if self.window else 1

    @property
    def input_bits(self) -> int:
        """Bits of an input lane."""
        return self.levels.bit_length()

    @property
    def zero_padded(self) -> bool:
        """Whether some inputs are true zeros."""
        return self.window is not None and self.window.zero_padded

    @property
    def i_shape(self) -> tuple[int, ...]:
        """Shape of a frame that comes in, (H, W, C) or (MW,)."""
        return self.window.shape if self.window else (self.mw,)

    @property
    def o_shape(self) -> tuple[int, ...]:
        """Shape of a frame that goes out, (H, W, MH) or (MH,)."""
        return (*self.window.out_shape, self.mh) if self.window else (self.mh,)

    @property
    def macs(self) -> int:
        """Binary multiplications a frame, those of all planes."""
        return self.positions * self.rows * self.mw

    @property
    def acc_min(self) -> NDArray[np.int64]:
        """Least accumulator of every neuron, shape (MH,)."""
        if self.levels == 1:
            return -self._magnitude
        return self.levels * np.minimum(self.weights, 0).sum(axis=1, dtype=np.int64)

    @property
    def acc_max(self) -> NDArray[np.int64]:
        """Largest accumulator of every neuron, shape (MH,)."""
        if self.levels == 1:
            return self._magnitude
        return self.levels * np.maximum(self.weights, 0).sum(axis=1, dtype=np.int64)

    @property
    def _magnitude(self) -> NDArray[np.int64]:
        return np.abs(self.weights).sum(axis=1, dtype=np.int64)


@lru_cache(maxsize=64)
def _signs(layer: LoweredLayer) -> NDArray[np.int8]:
    assert layer.coefficients is not None
    planes = plane_signs(layer.weights, layer.coefficients)
    return planes.transpose(1, 0, 2).reshape(layer.rows, layer.mw)


@dataclass(frozen=True, eq=False)
class LoweredPool:
    """OR of bits, or the maximum or sum of integers (a bit counts 0 or 1), over windows.

    Channels that are `falling` take the minimum in place of the maximum, and AND in place of OR.

    Attributes
    ----------
    name : str
        The node's name in the network.
    op : str
        ``or``, ``max`` or ``sum``.
    window : Window
        Its `pad` is zero for every channel.
    low, high : int
        Range of an element that comes in.
    falling : ndarray of bool, shape (C,), or None
        With ``or`` and ``max``; None where no channel is.
    """

    name: str
    op: Literal["or", "max", "sum"]
    window: Window
    low: int
    high: int
    falling: NDArray[np.bool_] | None = None

    @property
    def o_range(self) -> tuple[int, int]:
        """Range of an element that goes out."""
        taps = self.window.kernel[0] * self.window.kernel[1] if self.op == "sum" else 1
        return taps * self.low, taps * self.high

    @property
    def i_shape(self) -> tuple[int, ...]:
        """Shape of a frame that comes in, (H, W, C)."""
        return self.window.shape

    @property
    def o_shape(self) -> tuple[int, ...]:
        """Shape of a frame that goes out, (H, W, C)."""
        return (*self.window.out_shape, self.window.shape[2])


@dataclass(frozen=True, eq=False)
class LoweredThreshold:
    """Thresholds on the integers of the stage before, as those of a `LoweredLayer`.

    Attributes
    ----------
    name : str
        That of the stage whose integers they are, and ``_threshold``.
    thresholds : ndarray of int32, shape (C,) or (levels, C)
    shape : tuple of int
        Of a frame, (H, W, C) or (F,).
    """

    name: str
    thresholds: NDArray[np.int32]
    shape: tuple[int, ...]

    @property
    def o_range(self) -> tuple[int, int]:
        """Range of an element that goes out."""
        return 0, _levels(self.thresholds)

    @property
    def i_shape(self) -> tuple[int, ...]:
        """Shape of a frame that comes in."""
        return self.shape

    @property
    def o_shape(self) -> tuple[int, ...]:
        """Shape of a frame that goes out."""
        return self.shape


@dataclass(frozen=True, eq=False)
class LoweredMagnitude:
    """Sum of magnitudes over the channels of every pixel, in a fixed point.

    ``out = (sum over c of |gains[c] * x[c] + offsets[c]| + half) >> shift`` with half of the step
    that is shifted out, if one is; a bit counts 0 or 1.

    Attributes
    ----------
    name : str
        That of the stage whose integers they are, and ``_magnitude``.
    gains, offsets : ndarray of int64, shape (C,)
        Gains are not negative.
    shift : int
    shape : tuple of int
        Of a frame that comes in, (H, W, C) or (F,).
    low, high : int
        Range of an element that comes in.
    error : float
        Bound on the difference of ``out``, in the network's units, from the network's own mean
        magnitude; 0 where it is exact.
    """

    name: str
    gains: NDArray[np.int64]
    offsets: NDArray[np.int64]
    shift: int
    shape: tuple[int, ...]
    low: int
    high: int
    error: float

    @property
    def half(self) -> int:
        """What is added before the shift."""
        return (1 << self.shift) // 2

    @property
    def largest(self) -> int:
        """Largest sum before the shift, its half included."""
        ends = [np.abs(self.gains * end + self.offsets) for end in (self.low, self.high)]
        return int(np.maximum(*ends).sum()) + self.half

    @property
    def o_range(self) -> tuple[int, int]:
        """Range of an element that goes out."""
        return 0, self.largest >> self.shift

    @property
    def i_shape(self) -> tuple[int, ...]:
        """Shape of a frame that comes in."""
        return self.shape

    @property
    def o_shape(self) -> tuple[int, ...]:
        """Shape of a frame that goes out: of one channel."""
        return (*self.shape[:-1], 1)


@dataclass(frozen=True, eq=False)
class LoweredJoin:
    """The end of a shortcut: what an earlier stage sent on, added, put beside or multiplied by.

    ``out = gains[0] * main + gains[1] * shortcut``, the channels of both side by side, or
    ``main * shortcut`` with a shortcut of one channel. A bit counts 0 or 1.

    Attributes
    ----------
    name : str
        The node's name in the network.
    source : int
        Index of the stage where the shortcut begins.
    path : tuple of LoweredLayer, LoweredPool, LoweredThreshold or LoweredMagnitude
        What stands on the shortcut's way.
    how : str
        ``add``, ``append`` (the shortcut's channels behind the main ones), ``prepend`` or
        ``multiply``.
    shape : tuple of int
        Of the main stream's frames, (H, W, C) or (F,).
    side_channels : int
        Channels (features) of the shortcut's; with ``add`` those of the main stream, with
        ``multiply`` 1.
    low, high : tuple of int
        Ranges of an element, (main, shortcut).
    gains : ndarray of int32, shape (2, C), or None
        With ``add``, of (main, shortcut).
    """

    name: str
    source: int
    path: tuple[LoweredLayer | LoweredPool | LoweredThreshold | LoweredMagnitude, ...]
    how: Literal["add", "append", "prepend", "multiply"]
    shape: tuple[int, ...]
    side_channels: int
    low: tuple[int, int]
    high: tuple[int, int]
    gains: NDArray[np.int32] | None = None

    @property
    def o_range(self) -> tuple[int, int]:
        """Range of an element that goes out."""
        if self.how == "multiply":
            products = [main * side for main in self._ends(0) for side in self._ends(1)]
            return min(products), max(products)
        if self.gains is None:
            return min(self.low), max(self.high)
        ends = [self.gains * np.array(end, np.int64)[:, None] for end in (self.low, self.high)]
        return (
            int(np.minimum(*ends).sum(axis=0).min()),
            int(np.maximum(*ends).sum(axis=0).max()),
        )

    def _ends(self, stream: int) -> tuple[int, int]:
        return self.low[stream], self.high[stream]

    @property
    def i_shape(self) -> tuple[int, ...]:
        """Shape of the main stream's frames."""
        return self.shape

    @property
    def o_shape(self) -> tuple[int, ...]:
        """Shape of a frame that goes out."""
        if self.how in ("add", "multiply"):
            return self.shape
        return (*self.shape[:-1], self.shape[-1] + self.side_channels)


LoweredStage = LoweredLayer | LoweredPool | LoweredThreshold | LoweredMagnitude | LoweredJoin


def _levels(thresholds: NDArray[np.int32] | None) -> int:
    return 1 if thresholds is None or thresholds.ndim == 1 else len(thresholds)


@dataclass(frozen=True, eq=False)
class LoweredOutput:
    """The last stage's affine, in integers.

    Attributes
    ----------
    scale, offset : ndarray of int64, shape (classes,)
        ``score = scale * acc + offset``; ranks the classes exactly as the network's real-valued
        logits do, equal ones by lowest index, for every accumulator value that can occur.
    logit_scale, logit_offset : ndarray of float64, shape (classes,)
        The network's own logits, ``logit_scale * acc + logit_offset``, for display.
    """

    scale: NDArray[np.int64]
    offset: NDArray[np.int64]
    logit_scale: NDArray[np.float64]
    logit_offset: NDArray[np.float64]

    @property
    def is_identity(self) -> bool:
        """Whether the scores are the accumulators themselves."""
        return bool(np.all(self.scale == 1) and np.all(self.offset == 0))


@dataclass(frozen=True, eq=False)
class LoweredNetwork:
    """What the hardware computes.

    Attributes
    ----------
    name : str
        The network's name.
    input : InputQuantizer
        How a raw frame becomes bits or small integers (done by the host).
    stages : tuple of LoweredStage
        In data-flow order. The last one gives one integer a class: it is a layer without
        thresholds, a sum or an addition.
    output : LoweredOutput
        From last accumulators to scores.
    """

    name: str
    input: InputQuantizer
    stages: tuple[LoweredStage, ...]
    output: LoweredOutput

    @property
    def layers(self) -> tuple[LoweredLayer, ...]:
        """The layers that have weights, in data-flow order, see `flow`."""
        return tuple(step.op for step in self.flow() if isinstance(step.op, LoweredLayer))

    @property
    def main_layers(self) -> tuple[LoweredLayer, ...]:
        """The layers that do not stand on a shortcut."""
        return tuple(stage for stage in self.stages if isinstance(stage, LoweredLayer))

    def flow(self) -> list[Step[LoweredStage]]:
        """Return all stages, those of a shortcut before its join; see `xnorflow.flow`."""
        return flow(
            self.stages,
            lambda stage: (stage.source, stage.path) if isinstance(stage, LoweredJoin) else None,
        )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.stages[-1].o_shape[-1]

    def digest(self) -> str:
        """Return a 64-digit SHA-256 over everything that the outputs depend on."""
        h = hashlib.sha256()
        h.update(np.asarray(self.input.thresholds, "<f4").tobytes())
        for stage in self.stages:
            h.update(type(stage).__name__.encode())
            for part in stage.path if isinstance(stage, LoweredJoin) else (stage,):
                _digest(h, part)
            if isinstance(stage, LoweredJoin):
                h.update(repr((stage.source, stage.how, stage.shape, stage.o_range)).encode())
                if stage.gains is not None:
                    h.update(np.asarray(stage.gains, "<i4").tobytes())
        for values in (self.output.scale, self.output.offset):
            h.update(np.asarray(values, "<i8").tobytes())
        return h.hexdigest()


def _digest(
    h: hashlib._Hash, stage: LoweredLayer | LoweredPool | LoweredThreshold | LoweredMagnitude
) -> None:
    if isinstance(stage, LoweredMagnitude):
        h.update(repr((stage.shape, stage.shift)).encode())
        for values in (stage.gains, stage.offsets):
            h.update(np.asarray(values, "<i8").tobytes())
        return
    if not isinstance(stage, LoweredThreshold):
        window = stage.window
        if window is not None:
            pad = "zero" if window.pad is None else window.pad.tolist()
            h.update(repr((window.key, pad)).encode())
    if isinstance(stage, LoweredPool):
        h.update(stage.op.encode())
        if stage.falling is not None:
            h.update(stage.falling.tobytes())
        return
    if isinstance(stage, LoweredLayer):
        h.update(repr((stage.weights.shape, stage.groups, stage.levels)).encode())
        h.update(stage.weights.tobytes())
    if stage.thresholds is not None:
        if stage.thresholds.ndim > 1:
            h.update(repr(stage.thresholds.shape).encode())
        h.update(np.asarray(stage.thresholds, "<i4").tobytes())
