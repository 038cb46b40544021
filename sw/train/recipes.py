"""Training recipes: everything besides the data that a trained model depends on.

A recipe is a data set, a topology, a method of binarization, and the settings of the training.
`recipe_for` makes one of any combination; `RECIPES` are the ones with a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Any

from xnorflow.errors import UserError
from xnorflow.train.methods import Method

__all__ = ["DATASETS", "RECIPES", "TOPOLOGIES", "Conv", "Dense", "Recipe", "Topology", "recipe_for"]


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
    shortcut : bool
        Add the accumulators of the layer before, as they enter its batch norm (Liu et al.,
        "Bi-Real Net", 2018). Both layers' outputs must have one shape, and nothing is pooled.
    """

    channels: int
    kernel: int = 3
    padding: int = 0
    pool: int = 1
    shortcut: bool = False

    def __post_init__(self) -> None:
        if self.shortcut and self.pool != 1:
            raise ValueError("a convolution with a shortcut does not pool")

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
class Topology:
    """The hidden layers of a network, for frames of any shape.

    Attributes
    ----------
    summary : str
        One line for the help.
    hidden : tuple of Conv or Dense
        In data-flow order; a dense layer of ten neurons follows.
    gain : float
        See `Recipe`.
    """

    summary: str
    hidden: tuple[Conv | Dense, ...]
    gain: float


@dataclass(frozen=True)
class Recipe:
    """A binarized network and how it is trained.

    Attributes
    ----------
    name : str
        Name on the command line, or made of the three that follow.
    dataset, topology : str
        Of `DATASETS` and `TOPOLOGIES`.
    method : Method
        What weights and hidden activations are.
    image_shape : tuple of int
        Its frames, (H, W, C).
    hidden : tuple of Conv or Dense
        Hidden layers, in data-flow order; a dense layer of ten neurons follows.
    epochs : int
        Passes over the training frames.
    batch_norm : str
        ``plain``, or ``shift``: factors are powers of two (Hubara et al., 2016).
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
    dataset: str
    topology: str
    image_shape: tuple[int, int, int]
    hidden: tuple[Conv | Dense, ...]
    epochs: int
    gain: float
    method: Method = field(default_factory=Method)
    batch_norm: str = "plain"
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
                if layer.shortcut and shapes[-1] != before:
                    raise ValueError(f"no shortcut leads from {before} to {shapes[-1]}")
            else:
                shapes.append((layer.neurons,))
        return (*shapes, (10,))

    @property
    def weights(self) -> tuple[int, ...]:
        """Number of weights of each layer, from the pixels to the classes."""
        layers = (*self.hidden, Dense(10))
        return tuple(
            layer.kernel**2 * before[-1] * layer.channels
            if isinstance(layer, Conv)
            else prod(before) * layer.neurons
            for layer, before in zip(layers, self.shapes, strict=False)
        )

    @property
    def weight_bits(self) -> int:
        """Number of bits of all weights, the coefficients of bases left aside."""
        last = len(self.hidden)
        return sum(
            count * self.method.bits_per_weight(index == 0, index == last)
            for index, count in enumerate(self.weights)
        )

    @property
    def summary(self) -> str:
        """One line for people."""
        norm = ", shift-based batch norm" if self.batch_norm == "shift" else ""
        return f"{self.dataset}, {TOPOLOGIES[self.topology].summary}; {self.method.text}{norm}"


_STAGES = (
    Conv(16, kernel=5, pool=2),
    Conv(24, padding=1, pool=2),
    Conv(24, padding=1),
    Conv(32, padding=1),
    Conv(32, padding=1),
    Conv(64, pool=2),
)

TOPOLOGIES = {
    "mlp": Topology(
        "256-256-256, the SFC of the FINN paper", (Dense(256), Dense(256), Dense(256)), 1 / 32
    ),
    "mlp-mini": Topology(
        "144-80, sized for the block RAMs of an iCE40UP5K", (Dense(144), Dense(80)), 1 / 8
    ),
    "cnn": Topology(
        "three 3x3 convolutions of 32, 48 and 64 channels",
        (Conv(32, pool=2), Conv(48, pool=2), Conv(64)),
        1 / 32,
    ),
    "cnn-small": Topology("six convolutions of 16 to 64 channels", _STAGES, 1 / 16),
    "residual": Topology(
        "cnn-small with two shortcuts",
        tuple(replace(layer, shortcut=index in (2, 4)) for index, layer in enumerate(_STAGES)),
        1 / 16,
    ),
    "cnn-padded": Topology(
        "four 3x3 convolutions of 32 to 128 channels, 128",
        (
            Conv(32, padding=1),
            Conv(64, padding=1, pool=2),
            Conv(64, padding=1, pool=2),
            Conv(128),
            Dense(128),
        ),
        1 / 16,
    ),
    "cnv": Topology(
        "six 3x3 convolutions of 64 to 256 channels, 512-512, the CNV of the FINN paper",
        (
            Conv(64),
            Conv(64, pool=2),
            Conv(128),
            Conv(128, pool=2),
            Conv(256),
            Conv(256),
            Dense(512),
            Dense(512),
        ),
        1 / 32,
    ),
}

# What a data set's frames look like, and how they may be deformed and still be of their class.
_GREY: dict[str, Any] = {"image_shape": (28, 28, 1)}
_BYTES: dict[str, Any] = {"threshold": None, "peak_rate": 0.005}
_COLOURS: dict[str, Any] = {**_BYTES, "image_shape": (32, 32, 3), "batch": 100}
DATASETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mnist": {**_GREY, "epochs": 25, "rotate": 10.0, "scale": 0.1, "elastic": 0.4},
        "fashion-mnist": {
            **_GREY,
            **_BYTES,
            "epochs": 10,
            "flip": True,
            "rotate": 0.0,
            "scale": 0.05,
            "elastic": 0.0,
        },
        "cifar10": {
            **_COLOURS,
            "epochs": 24,
            "flip": True,
            "shift": 4.0,
            "rotate": 0.0,
            "scale": 0.0,
            "elastic": 0.0,
        },
        "svhn": {
            **_COLOURS,
            "epochs": 24,
            "shift": 2.0,
            "rotate": 5.0,
            "scale": 0.1,
            "elastic": 0.0,
        },
    }
)


def _made(
    name: str, dataset: str, topology: str, method: Method | None = None, **settings: Any
) -> Recipe:
    chosen = TOPOLOGIES[topology]
    method = method or Method()
    gain = chosen.gain * method.gain
    common = {"hidden": chosen.hidden, "gain": gain, "method": method, **DATASETS[dataset]}
    return Recipe(name, dataset, topology, **{**common, **settings})


_SMALL: dict[str, Any] = {"epochs": 5, "scale": 0.0}

_ALL = (
    _made("mnist_sfc", "mnist", "mlp", epochs=100, rotate=7.0, scale=0.07),
    _made("mnist_mini", "mnist", "mlp-mini", epochs=150, rotate=5.0, scale=0.05, elastic=0.3),
    _made("mnist_cnn", "mnist", "cnn"),
    _made("fashion_cnn", "fashion-mnist", "cnn-padded", epochs=14, bfloat16=True),
    _made("cifar10_cnv", "cifar10", "cnv", bfloat16=True),
    _made("fashion_bnn", "fashion-mnist", "cnn-small", Method("bnn"), **_SMALL),
    _made("fashion_xnor", "fashion-mnist", "cnn-small", Method("xnor"), **_SMALL),
    _made("fashion_dorefa", "fashion-mnist", "cnn-small", Method("dorefa"), **_SMALL),
    _made("fashion_abc", "fashion-mnist", "cnn-small", Method("abc"), **_SMALL),
    _made("fashion_residual", "fashion-mnist", "residual", **_SMALL),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def recipe_for(dataset: str, topology: str, method: Method) -> Recipe:
    """Return the recipe of a combination.

    One with a name is that recipe. Others of a named recipe's data set and topology have its
    settings of the training, the rest those of the data set.

    Parameters
    ----------
    dataset, topology : str
        Of `DATASETS` and `TOPOLOGIES`.
    method : Method

    Raises
    ------
    UserError
        There is no such data set or topology, or its layers do not fit the frames.
    """
    for kind, name, known in (
        ("data set", dataset, DATASETS),
        ("topology", topology, TOPOLOGIES),
    ):
        if name not in known:
            raise UserError(f"there is no {kind} '{name}'; choose one of: {', '.join(known)}")
    alike = [r for r in RECIPES.values() if (r.dataset, r.topology) == (dataset, topology)]
    for recipe in alike:
        if recipe.method == method:
            return recipe
    if method.pixel_gains and any(
        isinstance(layer, Conv) and layer.shortcut for layer in TOPOLOGIES[topology].hidden
    ):
        raise UserError(
            f"--pixel-gains does not go with the shortcuts of the topology {topology}, whose sums "
            f"have gains of their own; choose another topology"
        )
    name = f"{dataset}_{topology}_{method.name}"
    made = _made(name, dataset, topology, method)
    if alike:
        made = replace(alike[0], name=name, method=method, gain=made.gain)
    if min(min(shape) for shape in made.shapes) < 1:
        raise UserError(
            f"the images of {dataset} are too small for the topology {topology}; "
            f"choose another of: {', '.join(TOPOLOGIES)}"
        )
    return made
