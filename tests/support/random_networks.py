"""Random networks for tests, as `Network`, as QONNX and as ONNX of standard operators only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil, prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MaxPool,
    MultiThreshold,
    Network,
    Op,
    Quantize,
    Sign,
)
from xnorflow.planes import bit_planes

__all__ = [
    "EXTRAS",
    "random_cnn",
    "random_frames",
    "random_network",
    "reference_logits",
    "to_plain_onnx",
    "to_qonnx",
    "without_bipolar_quant",
]

_EPS = 2.0**-10

EXTRAS = ("levels", "thresholds", "weights", "joins")
"""What random convolutional networks may have beyond bits: hidden quantizers to several levels,
`MultiThreshold`, integer weights and bases, and shortcuts and concatenations."""


def random_network(
    rng: np.random.Generator,
    widths: Sequence[int],
    *,
    exact: bool = True,
    input_shape: tuple[int, ...] | None = None,
    preprocess: bool = True,
) -> Network:
    """Draw a network with every oddity that a trained file may hold.

    Neurons are now and then dead, always on, at the first or last threshold that can fire, of
    negative, zero or tiny batch-norm scale; quantizers may have a scale, layers a gain.

    Parameters
    ----------
    rng : Generator
    widths : sequence of int
        Features, hidden widths, classes.
    exact : bool
        Draw parameters that are small dyadic fractions, with ``var + eps`` a power of four: then
        float32 arithmetic makes no rounding error, and ties at zero occur and are exact.
        Otherwise draw any float32, but keep thresholds off the accumulators' values.
    input_shape : tuple of int, optional
        Shape of a frame with ``widths[0]`` values; ``(widths[0],)`` by default.
    preprocess : bool
        Put maps before the first sign, of negative and zero scale too.
    """
    shape = input_shape or (widths[0],)
    ops: list[Op] = []
    if len(shape) > 1:
        if preprocess:
            # Channels last, so the maps before the flatten are per channel of the frame.
            ops.append(_affine(rng, "frame", shape[-1]))
        ops.append(Flatten("flatten"))
    if preprocess:
        match rng.integers(3):
            case 0:
                ops.append(Affine("pre", (Fraction(2),), (Fraction(-1),)))
            case 1:
                ops.append(_affine(rng, "pre", widths[0]))
            case 2:
                ops.append(_batch_norm(rng, "pre", widths[0], 1, exact, hidden=True))
    ops.append(Sign("sign0"))
    for i, (mw, mh) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        if rng.random() < 0.3:
            ops.append(_quantizer_scale(rng, f"quant{i}", mw))
        ops.append(Dense(f"fc{i}", rng.choice(np.array([-1, 1], np.int8), (mh, mw))))
        if rng.random() < 0.3:
            ops.append(Affine(f"gain{i}", (Fraction(1, 2),)))
        if not last or rng.random() < 0.8:
            ops.append(_batch_norm(rng, f"bn{i}", mh, mw, exact, hidden=not last))
        if not last:
            ops.append(Sign(f"sign{i + 1}"))
    return Network("random", shape, tuple(ops))


def _affine(rng: np.random.Generator, name: str, channels: int) -> Affine:
    scale = rng.choice([-2, -1, -0.5, 0, 0.5, 1, 2], channels)
    offset = rng.integers(-8, 9, channels) / 8
    return Affine(name, _fractions(scale), _fractions(offset))


def _quantizer_scale(rng: np.random.Generator, name: str, channels: int) -> Affine:
    """Draw a scale of one magnitude with signs of its own per channel, and an offset."""
    scale = float(rng.choice([0.5, 1, 2])) * rng.choice([1, 1, 1, -1], channels)
    offset = rng.choice([0, 0, 0, 0.25, -0.5], channels)
    return Affine(name, _fractions(scale), _fractions(offset))


def _fractions(values: NDArray[np.float64]) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(v)) for v in values)


def _batch_norm(
    rng: np.random.Generator, name: str, mh: int, mw: int, exact: bool, hidden: bool
) -> BatchNorm:
    if not exact:
        gamma = rng.choice([-1, 1, 1], mh) * np.exp(rng.normal(0, 0.5, mh))
        # Accumulators (times a gain of 1/2, or a scale of 1/2 to 2 and offsets in quarters) are
        # multiples of 1/8: at 1/16 from all of them the sign is beyond float32's errors.
        mean = rng.integers(-mw, mw + 1, mh) + (2 * rng.integers(0, 8, mh) + 1) / 16
        var = rng.uniform(0.5, 2, mh) * mw
        beta = np.zeros(mh) if hidden else rng.normal(0, 0.5, mh)
        return BatchNorm(name, gamma, beta, mean, var, 1e-5)
    gamma = rng.choice([-2, -1, -0.5, 0.25, 0.5, 0.75, 1, 1.5], mh)
    beta = rng.integers(-4, 5, mh) / 4
    mean = rng.integers(-2 * mw, 2 * mw + 1, mh) / 2
    var = rng.choice([0.25, 1, 4], mh) - _EPS
    for c in range(mh):
        match rng.integers(12):
            case 0:
                gamma[c] = 0
            case 1 if hidden:
                # So small that the offset alone decides, unless it is zero.
                gamma[c] *= 2.0**-30
                beta[c] = rng.choice([-1, 0, 1])
            case 2 | 3:
                # First and last threshold that can fire, always on, dead, and one beyond.
                mean[c] = int(rng.choice([-1, 1])) * (mw + int(rng.integers(-1, 4)))
                beta[c] = 0
    return BatchNorm(name, gamma, beta, mean, var, _EPS)


def random_cnn(
    rng: np.random.Generator,
    *,
    exact: bool = True,
    input_shape: tuple[int, int, int] | None = None,
    channels: int = 4,
    classes: int = 3,
    extras: Collection[str] = (),
) -> Network:
    """Draw a convolutional network with every form that the lowering takes.

    Frames become bits, integers of 2 to 8 bits (rising, falling and constant channels) or are
    bytes; convolutions have any kernel, stride, dilation, groups and padding; max pools stand
    before or behind batch norm, sign and scale, average pools before or behind a sign, and the
    network ends in dense layers, a convolution or a global average pool.

    Parameters
    ----------
    rng : Generator
    exact : bool
        As in :func:`random_network`.
    input_shape : tuple of int, optional
        (H, W, C); 4 to 7 rows and columns and 1 to 3 channels by default.
    channels : int
        Most neurons of a hidden layer.
    classes : int
    extras : collection of str
        Of `EXTRAS`; without them, networks of a seed are always the same.
    """
    shape = input_shape or (
        int(rng.integers(4, 8)),
        int(rng.integers(4, 8)),
        int(rng.integers(1, 4)),
    )
    return _CnnDraw(rng, exact, shape, channels, classes, extras).network()


class _CnnDraw:
    """Draws a network, one operation after the other.

    `scale` and `offset` tell what values its bits or integers have: ``offset + n * scale`` with n
    in `units`, each channel with a sign of its own.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        exact: bool,
        shape: tuple[int, int, int],
        channels: int,
        classes: int,
        extras: Collection[str],
    ):
        self.extras = extras
        # Places at which shortcuts may begin: operations before, and the shape there; of sums,
        # and of what quantizers give.
        self.taps: dict[str, list[tuple[int, tuple[int, ...]]]] = {"sums": [], "levels": []}
        # Whether channels hold other numbers than each other.
        self.mixed = False
        self.rng, self.exact, self.channels, self.classes = rng, exact, channels, classes
        self.input_shape = self.shape = shape
        self.ops: list[Op] = []
        self.scale, self.offset = Fraction(1), Fraction(0)
        self.units: Sequence[int] = (-1, 0, 1)
        self.values = 1

    def network(self) -> Network:
        self.draw_input()
        for i in range(int(self.rng.integers(1, 3)) + ("joins" in self.extras)):
            self.draw_block(i)
        self.draw_end()
        return Network("random_cnn", self.input_shape, tuple(self.ops))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, *values: Fraction | int) -> Fraction:
        return Fraction(values[int(self.rng.integers(len(values)))])

    def draw_input(self) -> None:
        rng, channels = self.rng, self.shape[2]
        match rng.integers(3):
            case 0:
                if self.chance(0.5):
                    self.ops.append(_affine(rng, "pre", channels))
                self.ops.append(Sign("sign_in"))
            case 1:
                if self.chance(0.6):
                    self.ops.append(_affine(rng, "pre", channels))
                bits = int(rng.integers(1, 9))
                low = 0 if self.chance(0.5) else -(1 << bits - 1)
                low, high = low, low + (1 << bits) - 1 - int(bits > 1 and self.chance(0.3))
                # Frames are multiples of 1/8, so that these scales make ties.
                scale = self.pick(Fraction(1, 4), Fraction(1, 16), Fraction(1, 64), 1)
                zero = self.pick(0, 0, 1, -3, Fraction(1, 2))
                self.ops.append(Quantize("quantize", scale, zero, low, high))
                self.scale, self.offset = scale, -scale * zero
                self.units = range(low, high + 1)
                self.values = high - low
            case 2:
                self.scale, self.offset = Fraction(1, 64), self.pick(0, -2)
                self.ops.append(Affine("pre", (self.scale,), (self.offset,)))
                self.units, self.values = range(256), 255

    def draw_block(self, i: int) -> None:
        """Draw a convolution, its sign and pools."""
        self.draw_scale(f"scale{i}")
        self.draw_convolution(f"conv{i}")
        order = int(self.rng.integers(6))
        if order == 0:
            self.draw_average_pool(f"average{i}", 0.5)
        if order == 1:
            self.draw_max_pool(f"max{i}")
        self.draw_norm(f"bn{i}", hidden=True)
        if self.wants("joins", 0.6):
            self.draw_join(f"join{i}", "sums", "levels")
        self.tap("sums")
        if order == 2:
            self.draw_max_pool(f"max{i}")
        self.draw_quantizer(f"sign{i}", several=order in (0, 1, 3))
        self.tap("levels")
        if self.wants("joins", 0.3):
            self.draw_join(f"levels{i}", "levels")
        if order in (2, 3) and self.chance(0.5):
            self.draw_max_pool(f"max{i}_bits")
        if order == 4:
            # Falling channels take the minimum of their bits, constant ones do not matter.
            signs = self.rng.choice([1, 1, -1, 0], self.shape[2])
            signs[0] = self.rng.choice([1, -1])
            offset = self.pick(0, Fraction(1, 2), Fraction(-1, 2))
            self.ops.append(Affine(f"turn{i}", _fractions(signs), (offset,)))
            self.draw_max_pool(f"max{i}")
            self.ops.append(Sign(f"sign{i}_again"))
        if order == 5:
            self.draw_average_pool(f"average{i}", 0.5)

    def wants(self, extra: str, probability: float) -> bool:
        return extra in self.extras and self.chance(probability)

    def draw_quantizer(self, name: str, several: bool = True) -> None:
        """Draw a quantizer of sums: a sign, or to several levels if that is wanted."""
        self.mixed = False
        if several and self.wants("levels", 0.6):
            bits = int(self.rng.integers(2, 5))
            low = 0 if self.chance(0.5) else -(1 << bits - 1)
            high = low + (1 << bits) - 1
            self.scale = self.pick(Fraction(1, 2), 1, 2)
            zero = self.pick(0, 0, 1, Fraction(1, 2))
            self.ops.append(Quantize(name, self.scale, zero, low, high))
            self.offset, self.units, self.values = (
                -self.scale * zero,
                range(low, high + 1),
                1 << bits,
            )
        elif several and self.wants("thresholds", 0.6):
            levels, rows = int(self.rng.integers(2, 6)), 1 if self.chance(0.5) else self.shape[-1]
            thresholds = np.sort(self.rng.integers(-12, 13, (rows, levels)), axis=1) / 4
            steps = self.rng.integers(1, 4, levels)
            self.units = np.cumsum([int(self.rng.integers(-3, 2)), *steps]).tolist()
            self.scale, self.offset = Fraction(1, 2), self.pick(0, Fraction(1, 4))
            values = tuple(self.offset + self.scale * unit for unit in self.units)
            places = tuple(map(_fractions, thresholds))
            self.ops.append(MultiThreshold(name, places, values))
            self.values = int(np.abs(self.units).max())
        else:
            self.ops.append(Sign(name))
            self.scale, self.offset, self.units, self.values = (
                Fraction(1),
                Fraction(0),
                (-1, 0, 1),
                1,
            )

    def draw_weights(self, shape: tuple[int, ...]) -> tuple[NDArray, NDArray | None]:
        """Draw signs, or integers and the coefficients of their planes if that is wanted."""
        rng = self.rng
        if not self.wants("weights", 0.6):
            return rng.choice(np.array([-1, 1], np.int8), shape), None
        if self.chance(0.4):
            coefficients = rng.integers(1, 20, (int(rng.integers(2, 4)), shape[0]))
            signs = rng.choice([-1, 1], (len(coefficients), *shape))
            weights = np.einsum("mj,mj...->j...", coefficients, signs)
        else:
            most = int(rng.choice([1, 3, 7, 20]))
            weights = rng.integers(-most, most + 1, shape)
            weights[0].flat[0] = 1
            weights, coefficients, _ = bit_planes(weights)
        self.values *= int(coefficients.sum(axis=0).max())
        return weights, coefficients

    def tap(self, kind: str) -> None:
        """Let shortcuts begin here."""
        self.taps[kind].append((len(self.ops), self.shape))

    def draw_join(self, name: str, *kinds: str) -> None:
        """Draw the end of a shortcut, if one can end here."""
        taps = [tap for kind in kinds for tap in self.taps[kind]]
        suitable = [tap for tap in taps if tap[1][:2] == self.shape[:2]]
        larger = [
            tap
            for tap in taps
            if all(
                big in (small, 2 * small)
                for big, small in zip(tap[1][:2], self.shape[:2], strict=True)
            )
            and tap not in suitable
        ]
        if not (suitable or larger):
            return
        source, shape = (suitable or larger)[int(self.rng.integers(len(suitable or larger)))]
        path: list[Op] = []
        if shape[:2] != self.shape[:2]:
            kernel = tuple(
                big // small for big, small in zip(shape[:2], self.shape[:2], strict=True)
            )
            kind = AveragePool if self.chance(0.7) else MaxPool
            path.append(kind(f"{name}_pool", kernel, kernel))
        if self.chance(0.4):
            path.append(Affine(f"{name}_scale", (self.pick(Fraction(1, 2), 2, -1),)))
        how = str(self.rng.choice(["add", "append", "prepend"]))
        if shape[2] != self.shape[2] and how == "add":
            how = "append"
        self.ops.append(Join(name, source, tuple(path), how))
        if how != "add":
            self.shape = (*self.shape[:2], self.shape[2] + shape[2])
        self.mixed = True

    def draw_scale(self, name: str) -> None:
        """Draw a scale of one magnitude with signs per channel."""
        if not self.mixed and self.chance(0.4):
            scale, offset = self.pick(Fraction(1, 2), 2), self.pick(0, Fraction(1, 4))
            # Behind it the values of channels with other signs are the same if these mirror.
            mirrored = self.offset == 0 and tuple(self.units) == (-1, 0, 1)
            signs = self.rng.choice([1, -1] if mirrored else [1], self.shape[2])
            scales = tuple(scale * int(sign) for sign in signs)
            self.ops.append(Affine(name, scales, (offset,)))
            self.scale, self.offset = self.scale * scale, self.offset * scale + offset

    def draw_convolution(self, name: str) -> None:
        rng = self.rng
        height, width, depth = self.shape
        padding = (0, 0, 0, 0)
        if not self.mixed and self.chance(0.6):
            padding = tuple(int(n) for n in rng.integers(0, 3, 4))
        kernel, dilation, stride = [], [], []
        for size in (height + padding[0] + padding[2], width + padding[1] + padding[3]):
            kernel.append(int(rng.integers(1, min(3, size) + 1)))
            most = (size - 1) // max(kernel[-1] - 1, 1)
            dilation.append(2 if most >= 2 and self.chance(0.25) else 1)
            stride.append(int(rng.choice([1, 1, 1, 2, 3])))
        if self.wants("joins", 0.6):
            # As many rows and columns as before, so that shortcuts can end behind it.
            side = 0 if self.mixed else int(rng.integers(0, 2))
            padding, dilation, stride = (side,) * 4, [1, 1], [1, 1]
            kernel = [2 * side + 1] * 2
        groups = int(rng.choice([g for g in range(1, depth + 1) if depth % g == 0]))
        neurons = groups * int(rng.integers(1, max(self.channels // groups, 1) + 1))
        weights, coefficients = self.draw_weights((neurons, *kernel, depth // groups))
        unit = Fraction(int(rng.choice(self.units)))
        first = not any(isinstance(op, Conv2d) for op in self.ops)
        if first and len(self.units) > 3 and unit > self.units[0] and self.chance(0.3):
            # Between two integers of the frame.
            unit -= self.pick(Fraction(1, 2), Fraction(1, 4))
        pad = self.offset + self.scale * unit
        op = Conv2d(
            name,
            weights,
            tuple(stride),
            tuple(dilation),
            padding,
            pad,
            groups,
            coefficients=coefficients,
        )
        self.ops.append(op)
        self.slide(kernel, stride, dilation, padding, neurons)
        self.values *= weights[0].size

    def slide(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        padding: Sequence[int],
        channels: int,
    ) -> None:
        sizes = (self.shape[0] + padding[0] + padding[2], self.shape[1] + padding[1] + padding[3])
        rows, columns = (
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
        )
        self.shape = (rows, columns, channels)

    def draw_norm(self, name: str, hidden: bool) -> None:
        if self.chance(0.3):
            self.ops.append(Affine(f"{name}_gain", (self.pick(Fraction(1, 2), -1, 2),)))
        # Accumulators of integers are multiples of the scale around what the offset adds.
        mw = max(1, ceil(self.values * self.scale))
        self.ops.append(_batch_norm(self.rng, name, self.shape[-1], mw, self.exact, hidden=hidden))

    def draw_max_pool(self, name: str) -> None:
        rng = self.rng
        kernel = [int(rng.integers(1, min(3, size) + 1)) for size in self.shape[:2]]
        stride = [int(rng.integers(1, k + 1)) for k in kernel]
        padding = tuple(int(rng.integers(0, k)) for k in (*kernel, *kernel))
        if self.chance(0.5):
            padding = (0, 0, 0, 0)
        self.ops.append(MaxPool(name, tuple(kernel), tuple(stride), (1, 1), padding))
        self.slide(kernel, stride, (1, 1), padding, self.shape[2])

    def draw_average_pool(self, name: str, whole: float) -> None:
        """Draw one of a power of two taps, for exact floats."""
        rows, columns = self.shape[:2]
        taps = rows * columns
        if self.chance(whole) and taps & (taps - 1) == 0:
            self.ops.append(AveragePool(name))
            kernel, stride = [rows, columns], [1, 1]
        else:
            kernel = [int(self.rng.integers(1, min(2, size) + 1)) for size in (rows, columns)]
            stride = [int(n) for n in self.rng.integers(1, 3, 2)]
            self.ops.append(AveragePool(name, tuple(kernel), tuple(stride)))
        self.slide(kernel, stride, (1, 1), (0, 0, 0, 0), self.shape[2])
        taps = kernel[0] * kernel[1]
        # Of bits: the mean of -1 and +1 is offset + n * scale for n in -taps .. taps by twos.
        self.scale /= taps
        step = 2 if tuple(self.units) == (-1, 0, 1) else 1
        self.units = range(taps * self.units[0], taps * self.units[-1] + 1, step)

    def draw_end(self) -> None:
        """Draw dense layers, or a convolution whose accumulators are averaged."""
        rng = self.rng
        rows, columns, depth = self.shape
        taps = rows * columns
        if self.chance(0.4) and taps & (taps - 1) == 0:
            weights, coefficients = self.draw_weights((self.classes, 1, 1, depth))
            self.ops.append(Conv2d("last", weights, coefficients=coefficients))
            self.shape = (rows, columns, self.classes)
            self.values *= depth
            if self.chance(0.5):
                self.draw_norm("bn_last", hidden=False)
            self.ops.append(AveragePool("average_last"))
            self.ops.append(Flatten("flatten", self.chance(0.5)))
            return
        self.ops.append(Flatten("flatten", self.chance(0.5)))
        width = rows * columns * depth
        if not self.mixed and len(self.units) == 3 and self.chance(0.5):
            offset = rng.choice([0, 0.25, -0.5], width)
            scale = rng.choice([1, 1, -1], width)
            self.ops.append(Affine("feature_scale", _fractions(scale), _fractions(offset)))
        self.values *= width
        if self.chance(0.5):
            hidden = int(rng.integers(1, 6))
            weights, coefficients = self.draw_weights((hidden, width))
            self.ops.append(Dense("hidden", weights, coefficients=coefficients))
            self.shape = (hidden,)
            self.draw_norm("bn_hidden", hidden=True)
            self.draw_quantizer("sign_hidden")
            self.values, width = self.values * hidden, hidden
        weights, coefficients = self.draw_weights((self.classes, width))
        self.ops.append(Dense("last", weights, coefficients=coefficients))
        self.shape = (self.classes,)
        if self.chance(0.8):
            self.draw_norm("bn_last", hidden=False)


def random_frames(rng: np.random.Generator, network: Network, count: int) -> NDArray[np.float32]:
    """Draw frames of multiples of 1/8 in -1 .. 1, where thresholds of random networks lie.

    Networks that neither binarize nor quantize them get bytes.
    """
    shape = (count, *network.input_shape)
    for op in network.ops:
        if isinstance(op, Sign | Quantize):
            break
        if isinstance(op, Dense | Conv2d):
            return rng.integers(0, 256, shape).astype(np.float32)
    return (rng.integers(-8, 9, shape) / 8).astype(np.float32)


def reference_logits(network: Network, x: NDArray) -> NDArray[np.float64]:
    """Evaluate the operations one by one in float64: exact for exact networks."""
    tensors = [np.asarray(x, np.float64)]
    for op in network.ops:
        tensors.append(_reference(op, tensors))
    return tensors[-1].reshape(len(x), -1)


def _reference(op: Op, tensors: Sequence[NDArray]) -> NDArray:
    """Evaluate an operation; `tensors` are those of all operations before it."""
    y = tensors[-1]
    match op:
        case Flatten():
            y = np.moveaxis(y, -1, 1) if op.channels_first else y
            y = y.reshape(len(y), -1)
        case Affine():
            y = y * np.array(op.scale, float) + np.array(op.offset, float)
        case BatchNorm():
            gamma, beta, mean, var = (v.astype(float) for v in (op.gamma, op.beta, op.mean, op.var))
            y = gamma * (y - mean) / np.sqrt(var + float(np.float32(op.eps))) + beta
        case Sign():
            y = np.where(y >= 0, 1.0, -1.0)
        case Quantize():
            scale, zero = float(op.scale), float(op.zero_point)
            y = scale * (np.clip(np.rint(y / scale + zero), op.low, op.high) - zero)
        case Dense():
            y = y @ op.weights.T.astype(float)
        case Conv2d():
            y = _convolved(op, y)
        case MaxPool():
            windows = _windows(y, op.kernel, op.stride, op.dilation, op.padding, pad_value=-np.inf)
            y = windows.max(axis=(3, 4))
        case AveragePool():
            kernel, stride = (op.kernel, op.stride) if op.kernel else (y.shape[1:3], (1, 1))
            y = _windows(y, kernel, stride).mean(axis=(3, 4))
        case MultiThreshold():
            rows = np.array(op.thresholds, float)
            y = np.array(op.values, float)[(y[..., None] >= rows).sum(axis=-1)]
        case Join():
            side = tensors[op.source]
            for step in op.path:
                side = _reference(step, [side])
            pair = (side, y) if op.how == "prepend" else (y, side)
            y = y + side if op.how == "add" else np.concatenate(pair, axis=-1)
    return y


def _windows(
    y: NDArray,
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    pad_value: float = 0.0,
) -> NDArray:
    """Return the windows of images (N, H, W, C), shape (N, H', W', KH, KW, C)."""
    top, left, bottom, right = padding
    y = np.pad(y, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad_value)
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(y, extent, axis=(1, 2))
    windows = windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    return np.moveaxis(windows, 3, -1)


def _convolved(op: Conv2d, y: NDArray) -> NDArray:
    _, *kernel, depth = op.weights.shape
    windows = _windows(y, tuple(kernel), op.stride, op.dilation, op.padding, float(op.pad_value))
    parts = [
        np.tensordot(
            windows[..., g * depth : (g + 1) * depth], rows.astype(float), ([3, 4, 5], [1, 2, 3])
        )
        for g, rows in enumerate(np.split(op.weights, op.groups))
    ]
    return np.concatenate(parts, axis=-1)


def to_qonnx(network: Network, batch: int | str = 1, seed: int = 0) -> onnx.ModelProto:
    """Return the network as QONNX: `BipolarQuant` on activations and on latent float weights.

    The output of operation ``op`` is the tensor ``op.name + "_out"``.

    Parameters
    ----------
    network : Network
    batch : int or str
        Batch size, or the name of a free one; QONNX's executor wants a size.
    seed : int
        Of the latent weights' magnitudes.
    """
    return _Exporter(network, batch, np.random.default_rng(seed)).model()


def to_plain_onnx(network: Network, batch: int | str = "N") -> onnx.ModelProto:
    """Return the network in standard operators."""
    return without_bipolar_quant(to_qonnx(network, batch))


def without_bipolar_quant(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which each `BipolarQuant` is ``scale * Where(x >= 0, 1, -1)``.

    That is its definition in QONNX's operator set, in operators that onnxruntime knows.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    nodes = list(graph.node)
    del graph.node[:]
    for value, name in ((0, "bipolar_zero"), (1, "bipolar_high"), (-1, "bipolar_low")):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    for node in nodes:
        if node.op_type != "BipolarQuant":
            graph.node.append(node)
            continue
        (x, scale), (y,) = node.input, node.output
        graph.node.extend(
            [
                helper.make_node("GreaterOrEqual", [x, "bipolar_zero"], [f"{y}_ge"]),
                helper.make_node(
                    "Where", [f"{y}_ge", "bipolar_high", "bipolar_low"], [f"{y}_sign"]
                ),
                helper.make_node("Mul", [f"{y}_sign", scale], [y]),
            ]
        )
    onnx.checker.check_model(plain)
    return plain


class _Exporter:
    """Builds a graph, one operation after the other."""

    def __init__(self, network: Network, batch: int | str, latent: np.random.Generator):
        self.network, self.batch, self.latent = network, batch, latent
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = network.input_shape
        # ONNX convolves images whose channels come first.
        self.images = any(isinstance(op, Conv2d) for op in network.ops)

    def model(self) -> onnx.ModelProto:
        tensor = "input"
        if self.images:
            tensor = self.node("Transpose", [tensor], "channels_first", perm=[0, 3, 1, 2])
        # The tensor behind so many operations, and its shape.
        self.tensors = [(tensor, self.shape)]
        for op in self.network.ops:
            tensor = self.add(op, tensor)
            self.tensors.append((tensor, self.shape))
        graph = helper.make_graph(
            self.nodes,
            self.network.name,
            [self.value("input", self.network.input_shape)],
            [self.value(tensor, self.o_shape())],
            self.constants,
        )
        opsets = [
            helper.make_opsetid("", 13),
            helper.make_opsetid("qonnx.custom_op.general", 1),
        ]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model)
        return model

    def o_shape(self) -> tuple[int, ...]:
        if self.images and len(self.shape) == 3:
            return self.shape[2], *self.shape[:2]
        return self.shape

    def value(self, name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.batch, *shape])

    def constant(self, name: str, values: object) -> str:
        array = np.asarray(values, np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def bipolar(self, tensor: str, output: str) -> str:
        inputs = [tensor, self.constant(f"{output}_scale", 1)]
        return self.node("BipolarQuant", inputs, output, domain="qonnx.custom_op.general")

    def per_channel(self, name: str, values: Sequence[Fraction]) -> str:
        image = self.images and len(self.shape) == 3
        array = np.array([float(v) for v in values]).reshape((-1, 1, 1) if image else -1)
        return self.constant(name, array)

    def convolution(self, op: Conv2d, tensor: str, output: str) -> str:
        top, left, bottom, right = op.padding
        if any(op.padding):
            pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            self.constants.append(numpy_helper.from_array(pads, f"{op.name}_pads"))
            value = self.constant(f"{op.name}_pad_value", float(op.pad_value))
            inputs = [tensor, f"{op.name}_pads", value]
            tensor = self.node("Pad", inputs, f"{op.name}_padded")
        weights = self.weights(op, op.weights.transpose(0, 3, 1, 2))
        kernel = op.weights.shape[1:3]
        self.slide(kernel, op.stride, op.dilation, op.padding, len(op.weights))
        return self.node(
            "Conv",
            [tensor, weights],
            output,
            kernel_shape=kernel,
            strides=op.stride,
            dilations=op.dilation,
            group=op.groups,
        )

    def slide(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        padding: Sequence[int],
        channels: int,
    ) -> None:
        rows, columns = (
            (self.shape[a] + padding[a] + padding[a + 2] - dilation[a] * (kernel[a] - 1) - 1)
            // stride[a]
            + 1
            for a in (0, 1)
        )
        self.shape = (rows, columns, channels)

    def add(self, op: Op, tensor: str) -> str:
        output = f"{op.name}_out"
        match op:
            case Flatten(channels_first=channels_first):
                if self.images and len(self.shape) == 3 and not channels_first:
                    name = f"{op.name}_channels_last"
                    tensor = self.node("Transpose", [tensor], name, perm=[0, 2, 3, 1])
                self.shape = (prod(self.shape),)
                return self.node("Flatten", [tensor], output, axis=1)
            case Affine():
                scale = self.per_channel(f"{op.name}_scale", op.scale)
                offset = self.per_channel(f"{op.name}_offset", op.offset)
                product = self.node("Mul", [tensor, scale], f"{op.name}_product")
                return self.node("Add", [product, offset], output)
            case Quantize():
                name = op.name
                for kind, value in (("Div", op.scale), ("Add", op.zero_point)):
                    constant = self.constant(f"{name}_{kind}", float(value))
                    tensor = self.node(kind, [tensor, constant], f"{name}_{kind}_out")
                tensor = self.node("Round", [tensor], f"{name}_round")
                limits = [self.constant(f"{name}_{v}", v) for v in (op.low, op.high)]
                tensor = self.node("Clip", [tensor, *limits], f"{name}_clip")
                zero = self.constant(f"{name}_zero", float(op.zero_point))
                tensor = self.node("Sub", [tensor, zero], f"{name}_Sub_out")
                scale = self.constant(f"{name}_scale", float(op.scale))
                return self.node("Mul", [tensor, scale], output)
            case Conv2d():
                return self.convolution(op, tensor, output)
            case MaxPool():
                self.slide(op.kernel, op.stride, op.dilation, op.padding, self.shape[2])
                return self.node(
                    "MaxPool",
                    [tensor],
                    output,
                    kernel_shape=op.kernel,
                    strides=op.stride,
                    dilations=op.dilation,
                    pads=op.padding,
                )
            case AveragePool(kernel=None):
                self.shape = (1, 1, self.shape[2])
                return self.node("GlobalAveragePool", [tensor], output)
            case AveragePool():
                self.slide(op.kernel, op.stride, (1, 1), (0, 0, 0, 0), self.shape[2])
                return self.node(
                    "AveragePool", [tensor], output, kernel_shape=op.kernel, strides=op.stride
                )
            case BatchNorm():
                inputs = [tensor]
                for key in ("gamma", "beta", "mean", "var"):
                    inputs.append(self.constant(f"{op.name}_{key}", getattr(op, key)))
                return self.node("BatchNormalization", inputs, output, epsilon=op.eps)
            case Sign():
                return self.bipolar(tensor, output)
            case Dense():
                self.shape = (op.weights.shape[0],)
                return self.node("MatMul", [tensor, self.weights(op, op.weights.T)], output)
            case MultiThreshold():
                return self.staircase(op, tensor, output)
            case Join():
                return self.join(op, tensor, output)

    def weights(self, op: Dense | Conv2d, values: NDArray) -> str:
        """Add integers as they are, and signs as those of latent weights."""
        if op.coefficients is not None:
            return self.constant(f"{op.name}_weights", values)
        latent = values * self.latent.uniform(0.1, 1, values.shape)
        return self.bipolar(self.constant(f"{op.name}_weights", latent), f"{op.name}_bipolar")

    def staircase(self, op: MultiThreshold, tensor: str, output: str) -> str:
        """Add a sum of steps."""
        steps = []
        for n, column in enumerate(zip(*op.thresholds, strict=True)):
            name = f"{op.name}_{n}"
            place = self.per_channel(f"{name}_threshold", column)
            low = self.constant(f"{name}_low", float(op.values[0] if n == 0 else 0))
            high = op.values[1] if n == 0 else op.values[n + 1] - op.values[n]
            above = self.node("GreaterOrEqual", [tensor, place], f"{name}_above")
            chosen = [above, self.constant(f"{name}_high", float(high)), low]
            steps.append(self.node("Where", chosen, f"{name}_step"))
        return self.node("Sum", steps, output)

    def join(self, op: Join, tensor: str, output: str) -> str:
        shape = self.shape
        side, self.shape = self.tensors[op.source]
        for step in op.path:
            side = self.add(step, side)
        channels, self.shape = self.shape[-1], shape
        if op.how == "add":
            return self.node("Add", [tensor, side], output)
        self.shape = (*shape[:-1], shape[-1] + channels)
        pair = [tensor, side] if op.how == "append" else [side, tensor]
        return self.node("Concat", pair, output, axis=1)
