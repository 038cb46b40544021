"""The lowered network: integers only, the one meaning that golden model and hardware share.

A frame enters as bits (bit 1 means +1) or as unsigned integers of a few bits. Every stage is one
of three:

- :class:`LoweredLayer`: a matrix of -1 and +1 on a vector, or on every window of an image, and
  integer thresholds behind it (``out = 1 iff acc >= threshold``) unless it is told to send on its
  accumulators;
- :class:`LoweredPool`: OR or sum over windows;
- :class:`LoweredThreshold`: thresholds of their own, behind a sum.

The last stage's integers become ``score = scale * acc + offset`` per class, and the class is the
arg-max of the scores (ties: lowest index).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "InputQuantizer",
    "LoweredLayer",
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
    """A binary layer in integers: ``acc = weights @ window``, for bits with -1 for bit 0.

    Attributes
    ----------
    name : str
        The layer's name in the network.
    weights : ndarray of int8, shape (MH, MW)
        Entries -1 and +1; polarity folds already applied. For a convolution MW counts the
        synapses of one group in the order (KH, KW, C / groups).
    thresholds : ndarray of int32, shape (MH,), or None
        Thresholds on the accumulator, in ``acc_min .. acc_max + 1`` (always on .. dead); without
        padding, thresholds on bits have a parity that an accumulator can have or are
        ``MW + 1``. None sends on the accumulators.
    window : Window or None
        Of a convolution; None takes the whole frame as one vector (of an image: H, W, C).
    groups : int
        Groups of channels and neurons.
    levels : int
        Largest integer of an input lane; 1 means bits, which count as -1 and +1.
    """

    name: str
    weights: NDArray[np.int8]
    thresholds: NDArray[np.int32] | None
    window: Window | None = None
    groups: int = 1
    levels: int = 1

    @property
    def mh(self) -> int:
        """Number of neurons (outputs)."""
        return int(self.weights.shape[0])

    @property
    def mw(self) -> int:
        """Number of synapses of a neuron (inputs)."""
        return int(self.weights.shape[1])

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
        """Binary multiplications a frame."""
        return self.positions * self.mh * self.mw

    @property
    def acc_min(self) -> NDArray[np.int64]:
        """Least accumulator of every neuron, shape (MH,)."""
        if self.levels == 1:
            return np.full(self.mh, -self.mw, np.int64)
        return -self.levels * (self.weights < 0).sum(axis=1, dtype=np.int64)

    @property
    def acc_max(self) -> NDArray[np.int64]:
        """Largest accumulator of every neuron, shape (MH,)."""
        if self.levels == 1:
            return np.full(self.mh, self.mw, np.int64)
        return self.levels * (self.weights > 0).sum(axis=1, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class LoweredPool:
    """OR of bits, or the sum of integers (a bit counts 0 or 1), over windows of an image.

    Attributes
    ----------
    name : str
        The node's name in the network.
    op : str
        ``or`` or ``sum``.
    window : Window
        Its `pad` is zero for every channel.
    low, high : int
        Range of an element that comes in.
    """

    name: str
    op: str
    window: Window
    low: int
    high: int

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
    """``out = 1 iff acc >= threshold`` on the sums of a pooling layer.

    Attributes
    ----------
    name : str
        The name of the layer whose sums they are.
    thresholds : ndarray of int32, shape (C,)
    shape : tuple of int
        Of a frame, (H, W, C).
    """

    name: str
    thresholds: NDArray[np.int32]
    shape: tuple[int, ...]

    @property
    def i_shape(self) -> tuple[int, ...]:
        """Shape of a frame that comes in."""
        return self.shape

    @property
    def o_shape(self) -> tuple[int, ...]:
        """Shape of a frame that goes out."""
        return self.shape


LoweredStage = LoweredLayer | LoweredPool | LoweredThreshold


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
        In data-flow order. The last one is a layer without thresholds or a sum, and gives one
        integer a class.
    output : LoweredOutput
        From last accumulators to scores.
    """

    name: str
    input: InputQuantizer
    stages: tuple[LoweredStage, ...]
    output: LoweredOutput

    @property
    def layers(self) -> tuple[LoweredLayer, ...]:
        """The layers that have weights, in data-flow order."""
        return tuple(stage for stage in self.stages if isinstance(stage, LoweredLayer))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.layers[-1].mh

    def digest(self) -> str:
        """Return a 64-digit SHA-256 over everything that the outputs depend on."""
        h = hashlib.sha256()
        h.update(np.asarray(self.input.thresholds, "<f4").tobytes())
        for stage in self.stages:
            h.update(type(stage).__name__.encode())
            if not isinstance(stage, LoweredThreshold):
                window = stage.window
                if window is not None:
                    pad = "zero" if window.pad is None else window.pad.tolist()
                    h.update(repr((window.key, pad)).encode())
            if isinstance(stage, LoweredPool):
                h.update(stage.op.encode())
                continue
            if isinstance(stage, LoweredLayer):
                h.update(repr((stage.weights.shape, stage.groups, stage.levels)).encode())
                h.update(stage.weights.tobytes())
            if stage.thresholds is not None:
                h.update(np.asarray(stage.thresholds, "<i4").tobytes())
        for values in (self.output.scale, self.output.offset):
            h.update(np.asarray(values, "<i8").tobytes())
        return h.hexdigest()
