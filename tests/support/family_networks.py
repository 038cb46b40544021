"""Random small networks of levels, planes and shortcuts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

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

__all__ = ["FamilyMaker", "weighted"]

SIDE = 5


def weighted(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, dict]:
    """Return weights of one or several planes, and their coefficients as keywords."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice([-1, 1], shape), {}
    if kind == 1:  # bases with coefficients of their own for each neuron
        coefficients = rng.integers(-9, 10, (int(rng.integers(1, 4)), shape[0]))
        signs = rng.choice([-1, 1], (len(coefficients), *shape))
        weights = np.einsum("mj,mj...->j...", coefficients, signs)
        return weights, {"coefficients": coefficients}
    largest = int(rng.integers(1, 8))
    weights = rng.integers(-largest, largest + 1, shape)
    weights = weights | 1 if kind == 2 else weights
    weights, coefficients, _ = bit_planes(weights)
    return weights, {"coefficients": coefficients}


def quantizer(rng: np.random.Generator, name: str, spread: float) -> Op:
    """Return a quantizer for values of about that magnitude."""
    kind = rng.integers(3)
    scale = (
        Fraction(int(rng.integers(1, 9)), int(rng.integers(1, 9))) * Fraction(max(spread, 1)) / 4
    )
    if kind == 0:
        return Sign(name)
    if kind == 1:
        low = int(rng.integers(-3, 1))
        zero = Fraction(int(rng.integers(-2, 3)), 2)
        return Quantize(name, scale, zero, low, low + int(rng.integers(1, 7)))
    count = int(rng.integers(1, 5))
    rows = np.sort(rng.integers(-6, 7, (1, count)), axis=1)
    values = np.sort(rng.choice(np.arange(-9, 10), count + 1, replace=False))
    return MultiThreshold(
        name,
        tuple(tuple(Fraction(int(t)) * scale / 3 for t in row) for row in rows),
        tuple(Fraction(int(v), 4) for v in values),
    )


def maps(rng: np.random.Generator, channels: int, spread: float) -> list[Op]:
    result: list[Op] = []
    if rng.random() < 0.6:
        gamma = rng.normal(size=channels)
        gamma[rng.random(channels) < 0.1] = 0
        normal = rng.normal(size=(2, channels))
        result.append(
            BatchNorm("bn", gamma, normal[0], spread * normal[1], rng.random(channels), 1e-3)
        )
    return result


class FamilyMaker:
    """Makes a random network of 5 x 5 pixels."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.ops: list[Op] = []
        self.channels = int(self.rng.integers(1, 4))
        self.shape = (SIDE, SIDE, self.channels)

    def conv(self, number: int, size: int, channels: int) -> None:
        kernel = int(self.rng.choice([1, 3]))
        padding = (kernel // 2,) * 4
        shape = (channels, kernel, kernel, self.channels)
        weights, planes = weighted(self.rng, shape)
        self.ops.append(Conv2d(f"conv{number}", weights, padding=padding, **planes))
        self.channels = channels

    def network(self) -> Network:
        rng = self.rng
        self.ops.append(Quantize("in", Fraction(1), Fraction(0), 0, int(rng.integers(1, 4))))
        channels = int(rng.integers(2, 5))
        self.conv(0, SIDE, channels)
        self.levels("q0")
        for block in range(int(rng.integers(1, 3))):
            self.block(block, channels)
        if rng.random() < 0.4:
            self.ops.append(AveragePool("average", (2, 2), (2, 2)))
            self.ops += [Affine("bias", offset=(Fraction(-1),)), self.quantizer("qa")]
            size = 2 * 2
        else:
            size = SIDE * SIDE
        self.ops.append(Flatten("flat", bool(rng.integers(2))))
        weights, planes = weighted(rng, (3, size * self.channels))
        self.ops.append(Dense("last", weights, **planes))
        self.ops += maps(rng, 3, 2)
        return Network("random", self.shape, tuple(self.ops))

    def quantizer(self, name: str) -> Op:
        # Padding with zero needs a level there.
        while True:
            op = quantizer(self.rng, name, 2)
            match op:
                case Sign():
                    return op
                case Quantize():
                    first = op.scale * (op.low - op.zero_point)
                    if (first / op.scale).denominator == 1 and first <= 0 <= first + op.scale * (
                        op.high - op.low
                    ):
                        return op
                case MultiThreshold():
                    if op.values[0] <= 0 <= op.values[-1] and len(op.values) > 2:
                        return op

    def levels(self, name: str) -> None:
        self.ops += maps(self.rng, self.channels, 3)
        self.ops.append(self.quantizer(name))

    def block(self, number: int, channels: int) -> None:
        """Append a block with a shortcut around it, of sums or of activations."""
        rng = self.rng
        kind = rng.integers(4)
        if kind == 0:
            self.conv(10 * number + 10, SIDE, channels)
            self.levels(f"q{number}")
            return
        if kind == 1:  # sums, added before batch norm
            source = len(self.ops)
            while source and not isinstance(self.ops[source - 1], Conv2d | Join):
                source -= 1
            self.conv(10 * number + 10, SIDE, channels)
            if source:
                self.ops.append(Join(f"add{number}", source, (), "add"))
            self.levels(f"q{number}")
            return
        source = len(self.ops)
        path: tuple[Op, ...] = ()
        if rng.random() < 0.5:
            path = (MaxPool("pool", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),)
        if kind == 2:  # activations, added to sums
            self.conv(10 * number + 10, SIDE, channels)
            scale = (Fraction(int(rng.integers(1, 4))),)
            self.ops.append(Join(f"add{number}", source, (*path, Affine("gain", scale)), "add"))
            self.levels(f"q{number}")
            return
        self.conv(10 * number + 10, SIDE, channels)
        self.ops += maps(rng, channels, 3)
        # Both sides of a concatenation need steps of one size.
        self.ops.append(Sign(f"q{number}"))
        self.ops.append(Join(f"cat{number}", source, (*path, Sign("side")), "append"))
        self.channels *= 2
        self.conv(10 * number + 11, SIDE, channels)
        self.levels(f"r{number}")
