"""The network description: what a trained network *means*, before any hardware choice.

A :class:`Network` is a chain of operations on one tensor, each a small frozen dataclass. Frontends
build it, :mod:`xnorflow.lowering` turns it into integers; nothing else looks at the model file.

Conventions: batch dimension left out of every shape; dense tensors are ``(F,)``, images
``(H, W, C)``; weights are ``int8`` in {-1, +1}; parameters are kept as the exact float32 numbers
that the file stores, never as results of float arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Affine",
    "AveragePool",
    "BatchNorm",
    "Conv2d",
    "Dense",
    "Flatten",
    "MaxPool",
    "Network",
    "Op",
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

    QONNX's `Quant` on the raw frame; ``round`` takes halves to even.

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
class Dense:
    """Fully connected layer, ``y = weights @ x``; gains and biases follow as an `Affine`.

    Attributes
    ----------
    name : str
        Layer name, unique in the network; the name the folding file uses.
    weights : ndarray of int8, shape (MH, MW)
        Every entry -1 or +1.
    """

    name: str
    weights: NDArray[np.int8]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _frozen(np.asarray(self.weights, np.int8)))
        if self.weights.ndim != 2 or not np.all(np.abs(self.weights) == 1):
            raise ValueError(f"Dense {self.name!r}: weights must be a matrix of -1 and +1")


@dataclass(frozen=True, eq=False)
class Conv2d:
    """2-D convolution (cross-correlation) with weights of one bit; gains follow as an `Affine`.

    ``y[r, c, m] = sum over i, j, k of weights[m, i, j, k] * x[r', c', g + k]`` with
    ``r' = r * stride + i * dilation - padding`` and g the first channel of m's group; taps outside
    of the image read `pad_value`.

    Attributes
    ----------
    name : str
        Layer name, unique in the network; the name the folding file uses.
    weights : ndarray of int8, shape (MH, KH, KW, C // groups)
        Every entry -1 or +1.
    stride, dilation : tuple of int
        (vertical, horizontal).
    padding : tuple of int
        Rows and columns added (top, left, bottom, right).
    pad_value : Fraction
        What padded taps hold, in the units of the tensor that the layer takes.
    groups : int
        Neurons ``0 .. MH / groups - 1`` see the first ``C / groups`` channels, and so on.
    """

    name: str
    weights: NDArray[np.int8]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    pad_value: Fraction = Fraction(0)
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _frozen(np.asarray(self.weights, np.int8)))
        if self.weights.ndim != 4 or not np.all(np.abs(self.weights) == 1):
            raise ValueError(f"Conv2d {self.name!r}: weights must be (MH, KH, KW, C) of -1 and +1")


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


Op = Flatten | Affine | BatchNorm | Sign | Quantize | Dense | Conv2d | MaxPool | AveragePool


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
        Applied in order. The first layer's input comes from a `Sign`, a `Quantize` or is an
        image of bytes; a `Sign` stands between one layer (`Dense` or `Conv2d`) and the next.
    notes : tuple of str
        What the frontend dropped or assumed, one sentence each.
    """

    name: str
    input_shape: tuple[int, ...]
    ops: tuple[Op, ...]
    notes: tuple[str, ...] = ()

    def layers(self) -> Sequence[Dense | Conv2d]:
        """Return the weight layers in data-flow order."""
        return tuple(op for op in self.ops if isinstance(op, Dense | Conv2d))

    @property
    def classes(self) -> int:
        """Number of outputs of the last layer."""
        return int(self.layers()[-1].weights.shape[0])
