"""Named training recipes: everything besides the data that a trained model depends on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """A binarized multi-layer perceptron and how it is trained.

    Attributes
    ----------
    name : str
        Name on the command line.
    summary : str
        One line for the help.
    hidden : tuple of int
        Neurons of each hidden layer, in data-flow order.
    epochs : int
        Passes over the training digits.
    gain : float
        Step of the logits for one accumulator step, a power of two. It sets how sharp the softmax
        of the loss can get, and matters: halving 1/4 took mnist_mini from 95.6 % to 96.3 % on
        validation after 20 epochs, halving it again took it back.
    threshold : float
        A pixel (0..255) is bit 1 where it is at least this.
    batch : int
        Digits a step.
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
    validation : int
        Digits of the training set that are held out to choose the epoch.
    """

    name: str
    summary: str
    hidden: tuple[int, ...]
    epochs: int
    gain: float
    threshold: float = 127.5
    batch: int = 128
    peak_rate: float = 0.01
    shift: float = 1.0
    rotate: float = 5.0
    scale: float = 0.05
    elastic: float = 0.3
    validation: int = 5000

    @property
    def widths(self) -> tuple[int, ...]:
        """Sizes of all tensors from the pixels to the classes."""
        return (784, *self.hidden, 10)

    @property
    def weight_bits(self) -> int:
        """Number of binary weights."""
        return sum(a * b for a, b in pairwise(self.widths))


_ALL = (
    Recipe(
        name="mnist_sfc",
        summary="784-256-256-256-10, the SFC of the FINN paper",
        hidden=(256, 256, 256),
        epochs=100,
        gain=1 / 32,
        rotate=7.0,
        scale=0.07,
        elastic=0.4,
    ),
    Recipe(
        name="mnist_mini",
        summary="784-144-80-10, sized for the block RAMs of an iCE40UP5K",
        hidden=(144, 80),
        epochs=150,
        gain=1 / 8,
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
