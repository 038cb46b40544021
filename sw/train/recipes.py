"""Named training recipes: everything besides the data that a trained model depends on."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

__all__ = ["RECIPES", "Conv", "Dense", "Recipe"]


@dataclass(frozen=True)
class Conv:
    """Hidden binary convolution with stride 1.

    Attributes
    ----------
    channels : int
        Output channels.
    kernel : int
        Rows and columns of the window.
    padding : int
        Rows and columns of zeros on each side (true zeros: they add nothing).
    pool : int
        Max-pooling of the accumulators over windows of this size; 1 for none.
    """

    channels: int
    kernel: int = 3
    padding: int = 0
    pool: int = 1

    def size(self, before: int) -> int:
        """Return the output's rows or columns for an input's."""
        return (before + 2 * self.padding - self.kernel + 1) // self.pool


@dataclass(frozen=True)
class Dense:
    """Hidden fully connected binary layer.

    Attributes
    ----------
    neurons : int
        Outputs.
    """

    neurons: int


@dataclass(frozen=True)
class Recipe:
    """A binarized network and how it is trained.

    Attributes
    ----------
    name : str
        Name on the command line.
    summary : str
        One line for the help.
    dataset : str
        ``mnist``, ``fashion-mnist`` or ``cifar10``.
    image_shape : tuple of int
        Its frames, (H, W, C).
    hidden : tuple of Conv or Dense
        Hidden layers, in data-flow order; a dense layer of ten neurons follows.
    epochs : int
        Passes over the training frames.
    gain : float
        Step of the logits for one accumulator step, a power of two. It sets how sharp the softmax
        of the loss can get, and matters: halving 1/4 took mnist_mini from 95.6 % to 96.3 % on
        validation after 20 epochs, halving it again took it back.
    threshold : float or None
        A pixel (0..255) is bit 1 where it is at least this; None keeps all eight bits.
    batch : int
        Frames a step.
    peak_rate : float
        Adam's learning rate at the top of the one-cycle schedule (Smith and Topin, 2018).
    shift : float
        Largest random shift, in pixels, along each axis.
    rotate : float
        Largest random rotation, in degrees.
    scale : float
        Largest random relative change of size.
    elastic : float
        Standard deviation, in pixels, of the smooth random displacement field.
    flip : bool
        Mirror half of the frames left to right.
    bfloat16 : bool
        Compute the training's convolutions in bfloat16, in which -1 and +1 are exact.
    validation : int
        Frames of the training set that are held out to choose the epoch.
    """

    name: str
    summary: str
    dataset: str
    image_shape: tuple[int, int, int]
    hidden: tuple[Conv | Dense, ...]
    epochs: int
    gain: float
    threshold: float | None = 127.5
    batch: int = 128
    peak_rate: float = 0.01
    shift: float = 1.0
    rotate: float = 5.0
    scale: float = 0.05
    elastic: float = 0.3
    flip: bool = False
    bfloat16: bool = False
    validation: int = 5000

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of a frame from the pixels to the classes, (H, W, C) or (F,)."""
        shapes: list[tuple[int, ...]] = [self.image_shape]
        for layer in self.hidden:
            before = shapes[-1]
            if isinstance(layer, Conv):
                rows, columns = (layer.size(size) for size in before[:2])
                shapes.append((rows, columns, layer.channels))
            else:
                shapes.append((layer.neurons,))
        return (*shapes, (10,))

    @property
    def weight_bits(self) -> int:
        """Number of binary weights."""
        total = 0
        for layer, before in zip(self.hidden, self.shapes, strict=False):
            if isinstance(layer, Conv):
                total += layer.kernel**2 * before[-1] * layer.channels
            else:
                total += prod(before) * layer.neurons
        return total + prod(self.shapes[-2]) * 10


_DIGITS = (28, 28, 1)

_ALL = (
    Recipe(
        name="mnist_sfc",
        summary="MNIST, 784-256-256-256-10, the SFC of the FINN paper",
        dataset="mnist",
        image_shape=_DIGITS,
        hidden=(Dense(256), Dense(256), Dense(256)),
        epochs=100,
        gain=1 / 32,
        rotate=7.0,
        scale=0.07,
        elastic=0.4,
    ),
    Recipe(
        name="mnist_mini",
        summary="MNIST, 784-144-80-10, sized for the block RAMs of an iCE40UP5K",
        dataset="mnist",
        image_shape=_DIGITS,
        hidden=(Dense(144), Dense(80)),
        epochs=150,
        gain=1 / 8,
    ),
    Recipe(
        name="mnist_cnn",
        summary="MNIST, three 3x3 convolutions of 32, 48 and 64 channels, for an iCE40UP5K",
        dataset="mnist",
        image_shape=_DIGITS,
        hidden=(Conv(32, pool=2), Conv(48, pool=2), Conv(64)),
        epochs=25,
        gain=1 / 32,
        rotate=10.0,
        scale=0.1,
        elastic=0.4,
    ),
    Recipe(
        name="fashion_cnn",
        summary="Fashion-MNIST, 8-bit pixels, zero-padded 3x3 convolutions of 32 to 128 channels",
        dataset="fashion-mnist",
        image_shape=_DIGITS,
        hidden=(
            Conv(32, padding=1),
            Conv(64, padding=1, pool=2),
            Conv(64, padding=1, pool=2),
            Conv(128),
            Dense(128),
        ),
        epochs=14,
        gain=1 / 16,
        threshold=None,
        peak_rate=0.005,
        rotate=0.0,
        scale=0.05,
        elastic=0.0,
        flip=True,
        bfloat16=True,
    ),
    Recipe(
        name="cifar10_cnv",
        summary="CIFAR-10, 8-bit pixels, the CNV of the FINN paper",
        dataset="cifar10",
        image_shape=(32, 32, 3),
        hidden=(
            Conv(64),
            Conv(64, pool=2),
            Conv(128),
            Conv(128, pool=2),
            Conv(256),
            Conv(256),
            Dense(512),
            Dense(512),
        ),
        epochs=24,
        gain=1 / 32,
        threshold=None,
        batch=100,
        peak_rate=0.005,
        shift=4.0,
        rotate=0.0,
        scale=0.0,
        elastic=0.0,
        flip=True,
        bfloat16=True,
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
