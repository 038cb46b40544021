"""The network description: what a trained network *means*, before any hardware choice.

A :class:`Network` is a chain of operations on one tensor, each a small frozen dataclass; a
:class:`Join` adds or appends an earlier tensor of the chain, and a :class:`PixelGain` multiplies by
the magnitudes of one. Frontends build it,
:mod:`xnorflow.lowering` turns it into integers; nothing else looks at the model file.

Conventions: batch dimension left out of every shape; dense tensors are ``(F,)``, images
``(H, W, C)``; weights are -1 and +1, or integers that a few planes of -1 and +1 give
(:mod:`xnorflow.planes`); parameters are kept as the exact float32 numbers that the file stores,
never as results of float arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xnorflow.flow import Step, flow
from xnorflow.planes import check_planes

__all__ = [
    "Affine",
    "AveragePool",
    "BatchNorm",
    "Conv2d",
    "Dense",
    "Flatten",
    "Join",
    "MaxPool",
    "MultiThreshold",
    "Network",
    "Op",
    "PixelGain",
    "Quantize",
    "Sign",
]


def _frozen(array: NDArray) -> NDArray:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Flatten:
    """Flatten to one dimension.

    Attributes
    ----------
    name : str
        Node name in the source file.
    channels_first : bool
        Whether the vector lists an image channel by channel (C, H, W), as frameworks do that keep
        images so; otherwise it is row-major (H, W, C). Vectors stay as they are.
    """

    name: str
    channels_first: bool = False


@dataclass(frozen=True, eq=False)
class Affine:
    """``y = scale * x + offset``, exactly, per channel (last axis) or for all channels.

    Attributes
    ----------
    name : str
        Node name in the source file.
    scale, offset : tuple of Fraction
        Length 1 (all channels alike) or the number of channels.
    """

    name: str
    scale: tuple[Fraction, ...] = (Fraction(1),)
    offset: tuple[Fraction, ...] = (Fraction(0),)


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """``y = gamma * (x - mean) / sqrt(var + eps) + beta`` per channel (Ioffe and Szegedy, 2015).

    Attributes
    ----------
    name : str
        Node name in the source file.
    gamma, beta, mean, var : ndarray of float32, shape (C,)
        The stored parameters. ``var + eps`` is positive.
    eps : float
        The stored epsilon.
    """

    name: str
    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]
    mean: NDArray[np.float32]
    var: NDArray[np.float32]
    eps: float

    def __post_init__(self) -> None:
        for key in ("gamma", "beta", "mean", "var"):
            object.__setattr__(self, key, _frozen(np.asarray(getattr(self, key), np.float32)))


@dataclass(frozen=True, eq=False)
class Sign:
    """``y = +1 where x >= 0, else -1``; a quantizer's positive scale follows as an `Affine`.

    Attributes
    ----------
    name : str
        Node name in the source file.
    """

    name: str


@dataclass(frozen=True, eq=False)
class Quantize:
    """``y = scale * (q - zero_point)``, ``q = clip(round(x / scale + zero_point), low, high)``.

    QONNX's `Quant`, on the raw frame or on activations; ``round`` takes halves to even.

    Attributes
    ----------
    name : str
        Node name in the source file.
    scale : Fraction
        Positive.
    zero_point : Fraction
    low, high : int
        Least and largest integer, both included.
    """

    name: str
    scale: Fraction
    zero_point: Fraction
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class MultiThreshold:
    """``y = values[n]`` with n the number of thresholds up to ``x`` (FINN's `MultiThreshold`).

    Attributes
    ----------
    name : str
        Node name in the source file.
    thresholds : tuple of tuple of Fraction
        One row (all channels alike) or one for each channel, each of L numbers in rising order.
    values : tuple of Fraction
        L + 1 numbers in rising order.
    """

    name: str
    thresholds: tuple[tuple[Fraction, ...], ...]
    values: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.values) - 1 for row in self.thresholds):
            raise ValueError(f"MultiThreshold {self.name!r}: there must be a value more than rows")
        if any(list(row) != sorted(row) for row in (*self.thresholds, self.values)):
            raise ValueError(f"MultiThreshold {self.name!r}: thresholds and values must rise")


@dataclass(frozen=True, eq=False)
class _Weighted:
    """Name, weights and planes of a layer.

    Attributes
    ----------
    name : str
        Layer name, unique in the network; the name the folding file uses.
    weights : ndarray of int8 or int32, shape (MH, ...)
        -1 and +1, or integers as `coefficients` give them.
    coefficients : ndarray of int32, shape (M, MH), or None
        ``weights[j] = sum over m of coefficients[m, j] * s`` with signs ``s``; None for one plane.
    """

    name: str
    weights: NDArray[np.integer]
    coefficients: NDArray[np.int32] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        kind = np.int8 if self.coefficients is None else np.int32
        object.__setattr__(self, "weights", _frozen(np.asarray(self.weights, kind)))
        if self.coefficients is not None:
            frozen = _frozen(np.asarray(self.coefficients, np.int32))
            object.__setattr__(self, "coefficients", frozen)
        check_planes(f"{type(self).__name__} {self.name!r}", self.weights, self.coefficients)


@dataclass(frozen=True, eq=False)
class Dense(_Weighted):
    """Fully connected layer, ``y = weights @ x``; gains and biases follow as an `Affine`.

    Attributes
    ----------
    name : str
        Layer name, unique in the network; the name the folding file uses.
    weights : ndarray of int8 or int32, shape (MH, MW)
        -1 and +1, or integers as `coefficients` give them.
    coefficients : ndarray of int32, shape (M, MH), or None
        Of the weights' planes, see :mod:`xnorflow.planes`; None for one plane.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.ndim != 2:
            raise ValueError(f"Dense {self.name!r}: weights must be a matrix")


@dataclass(frozen=True, eq=False)
class Conv2d(_Weighted):
    """2-D convolution (cross-correlation) with integer weights; gains follow as an `Affine`.

    ``y[r, c, m] = sum over i, j, k of weights[m, i, j, k] * x[r', c', g + k]`` with
    ``r' = r * stride + i * dilation - padding`` and g the first channel of m's group; taps outside
    of the image read `pad_value`.

    Attributes
    ----------
    name : str
        Layer name, unique in the network; the name the folding file uses.
    weights : ndarray of int8 or int32, shape (MH, KH, KW, C // groups)
        -1 and +1, or integers as `coefficients` give them.
    coefficients : ndarray of int32, shape (M, MH), or None
        Of the weights' planes, see :mod:`xnorflow.planes`; None for one plane.
    stride, dilation : tuple of int
        (vertical, horizontal).
    padding : tuple of int
        Rows and columns added (top, left, bottom, right).
    pad_value : Fraction
        What padded taps hold, in the units of the tensor that the layer takes.
    groups : int
        Neurons ``0 .. MH / groups - 1`` see the first ``C / groups`` channels, and so on.
    """

    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    pad_value: Fraction = Fraction(0)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.ndim != 4:
            raise ValueError(f"Conv2d {self.name!r}: weights must have shape (MH, KH, KW, C)")


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Maximum over windows of an image, channel by channel; padded taps never win.

    Attributes
    ----------
    name : str
        Node name in the source file.
    kernel, stride, dilation : tuple of int
        (vertical, horizontal).
    padding : tuple of int
        Rows and columns added (top, left, bottom, right).
    """

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class AveragePool:
    """Mean over windows of an image, channel by channel, without padding.

    Attributes
    ----------
    name : str
        Node name in the source file.
    kernel, stride : tuple of int or None
        (vertical, horizontal); a kernel of None is the whole image (global average pooling).
    """

    name: str
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class Join:
    """Add an earlier tensor of the chain, or append its channels: where a shortcut ends.

    Attributes
    ----------
    name : str
        Node name in the source file.
    source : int
        Operations before the place where the shortcut begins: its tensor is what `Network.ops`
        number ``source - 1`` gives.
    path : tuple of Op
        What the shortcut does with it: any operations, layers among them, but no joins.
    how : str
        ``add``: both tensors, of one shape. ``append``: the shortcut's channels behind those of the
        tensor at hand; ``prepend``: before them.
    """

    name: str
    source: int
    path: tuple[Op, ...]
    how: Literal["add", "append", "prepend"]

    def __post_init__(self) -> None:
        if self.how not in ("add", "append", "prepend"):
            raise ValueError(f"Join {self.name!r}: how must be add, append or prepend")
        if any(isinstance(op, Join | PixelGain) for op in self.path):
            raise ValueError(f"Join {self.name!r}: a shortcut has no joins and no gains of pixels")


@dataclass(frozen=True, eq=False)
class PixelGain:
    """XNOR-Net's K: multiply a layer's sums by the mean magnitude of the inputs of each window.

    ``y[r, c, m] = x[r, c, m] * mean over the window at (r, c) of A``, with A at a pixel the mean
    magnitude of the channels of an earlier tensor; taps outside of the image count as zero
    (Rastegari et al., *XNOR-Net*, 2016, section 3.2).

    Attributes
    ----------
    name : str
        Node name in the source file.
    source : int
        Operations before that tensor, see `Join`.
    kernel : tuple of int or None
        (vertical, horizontal); None for a dense layer, whose window is the whole tensor.
    stride, dilation : tuple of int
        (vertical, horizontal).
    padding : tuple of int
        Rows and columns added (top, left, bottom, right).
    """

    name: str
    source: int
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


Op = (
    Flatten
    | Affine
    | BatchNorm
    | Sign
    | Quantize
    | MultiThreshold
    | Dense
    | Conv2d
    | MaxPool
    | AveragePool
    | Join
    | PixelGain
)


def _shortcut(op: Op) -> tuple[int, tuple[Op, ...]] | None:
    """Return where the shortcut of an operation begins, and its operations; see `flow`."""
    match op:
        case Join():
            return op.source - 1, op.path
        case PixelGain():
            return op.source - 1, ()
    return None


@dataclass(frozen=True, eq=False)
class Network:
    """A trained binarized network, as its file describes it.

    Attributes
    ----------
    name : str
        Short name for directories and reports (usually the file's stem).
    input_shape : tuple of int
        Shape of one frame without the batch dimension, e.g. ``(784,)`` or ``(28, 28, 1)``.
    ops : tuple of Op
        Applied in order. The first layer's input comes from a quantizer or is an image of bytes;
        a quantizer (`Sign`, `Quantize` or `MultiThreshold`) stands between one layer (`Dense` or
        `Conv2d`) and the next, on the main way and on shortcuts.
    notes : tuple of str
        What the frontend dropped or assumed, one sentence each.
    """

    name: str
    input_shape: tuple[int, ...]
    ops: tuple[Op, ...]
    notes: tuple[str, ...] = ()

    def flow(self) -> list[Step[Op]]:
        """Return all operations, those of a shortcut before its join; see `xnorflow.flow`."""
        return flow(self.ops, _shortcut)

    def layers(self) -> Sequence[Dense | Conv2d]:
        """Return the weight layers in data-flow order, see `flow`."""
        return tuple(step.op for step in self.flow() if isinstance(step.op, Dense | Conv2d))

    @property
    def classes(self) -> int:
        """Number of outputs of the last layer on the main way."""
        layers = (op for op in reversed(self.ops) if isinstance(op, Dense | Conv2d))
        return len(next(layers).weights)
