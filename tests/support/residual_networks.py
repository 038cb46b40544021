"""Random small residual networks, whose shortcuts have layers where the image gets smaller."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from family_networks import maps, quantizer, weighted

from xnorflow.network import (
    Affine,
    AveragePool,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MaxPool,
    Network,
    Op,
    Quantize,
    Sign,
)

__all__ = ["random_residual"]


def random_residual(seed: int) -> Network:
    """Return a network of images, or now and then of vectors, with one or two blocks."""
    return _Maker(np.random.default_rng(seed)).network()


class _Maker:
    """Draws a network, block by block.

    Attributes
    ----------
    shape : tuple of int
        Of the tensor at hand.
    """

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.ops: list[Op] = []
        self.count = 0
        rows, columns = (int(size) for size in rng.choice([2, 4, 6], 2))
        self.shape: tuple[int, ...] = (rows, columns, int(rng.integers(1, 4)))
        if rng.random() < 0.15:
            self.shape = (int(rng.integers(4, 9)),)

    def network(self) -> Network:
        rng, shape = self.rng, self.shape
        self.ops.append(Quantize("in", Fraction(1), Fraction(0), 0, int(rng.integers(1, 4))))
        self.ops += self.layer(3)
        if rng.random() < 0.6:
            self.ops += self.levels()
        for _ in range(int(rng.integers(1, 3))):
            self.block()
        self.ops += self.levels()
        if len(self.shape) > 1:
            self.ops.append(Flatten("flat", bool(rng.integers(2))))
            self.shape = (int(np.prod(self.shape)),)
        weights, planes = weighted(rng, (3, self.shape[0]))
        self.ops.append(Dense("last", weights, **planes))
        self.ops += maps(rng, 3, 2)
        return Network("residual", shape, tuple(self.ops))

    def named(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def levels(self) -> list[Op]:
        """Return a quantizer that has a level at zero, for padding, behind a norm or none."""
        result: list[Op] = []
        for op in maps(self.rng, self.shape[-1], 3):
            result.append(replace(op, name=self.named("norm")))
        while True:
            op = quantizer(self.rng, self.named("q"), 2)
            if isinstance(op, Sign):
                return [*result, op]
            if isinstance(op, Quantize):
                first, top = op.low - op.zero_point, op.high - op.zero_point
                if first.denominator == 1 and first <= 0 <= top:
                    return [*result, op]

    def layer(self, outputs: int, stride: tuple[int, int] = (1, 1)) -> list[Op]:
        """Return a layer, and change the shape."""
        if len(self.shape) == 1:
            weights, planes = weighted(self.rng, (outputs, self.shape[0]))
            self.shape = (outputs,)
            return [Dense(self.named("fc"), weights, **planes)]
        kernel = int(self.rng.choice([1, 3]))
        weights, planes = weighted(self.rng, (outputs, kernel, kernel, self.shape[2]))
        padding = (kernel // 2,) * 4
        rows, columns = (-(-size // step) for size, step in zip(self.shape, stride, strict=False))
        self.shape = (rows, columns, outputs)
        name = self.named("conv")
        return [Conv2d(name, weights, padding=padding, stride=stride, **planes)]

    def way(self, layers: int, outputs: int, stride: tuple[int, int]) -> list[Op]:
        """Return a branch of so many layers that ends in sums; pools or strides make it smaller."""
        rng, ops = self.rng, []
        pools = stride != (1, 1) and rng.random() < 0.5
        place = int(rng.integers(layers)) if layers else 0
        settled = isinstance(self.ops[-1], Sign | Quantize) and rng.random() < 0.8
        for n in range(max(layers, 1)):
            if pools and n == place:
                kind = AveragePool if rng.random() < 0.7 else MaxPool
                ops.append(kind(self.named("pool"), stride, stride))
                sizes = (size // step for size, step in zip(self.shape, stride, strict=False))
                self.shape = (*sizes, self.shape[-1])
                settled = False
            if n == layers:
                break
            if not settled:
                ops += self.levels()
            width = outputs if n == layers - 1 else int(rng.integers(1, 5))
            ops += self.layer(width, stride if n == place and not pools else (1, 1))
            settled = False
        return ops

    def block(self) -> None:
        """Append a block of two branches, both of which mostly have layers."""
        rng = self.rng
        begin, source = self.shape, len(self.ops)
        stride = (1, 1)
        if len(begin) > 1 and rng.random() < 0.7:
            stride = tuple(2 if size % 2 == 0 else 1 for size in begin[:2])
        how = str(rng.choice(["add", "add", "append", "prepend"]))
        outputs = int(rng.integers(1, 5))
        self.ops += self.way(int(rng.integers(1, 3)), outputs, stride)
        end, self.shape = self.shape, begin
        plain = how != "add" or begin[-1] == outputs
        layers = int(rng.choice([0, 1, 1, 2] if plain and stride == (1, 1) else [1, 1, 2]))
        ops = self.ops
        self.ops = ops[:source]
        side = self.way(layers, outputs if how == "add" else int(rng.integers(1, 4)), stride)
        self.ops = ops
        if how == "add":
            if rng.random() < 0.5:
                side.append(Affine(self.named("gain"), (Fraction(int(rng.integers(-3, 4))),)))
        elif rng.random() < 0.5:
            self.ops.append(Sign(self.named("s")))
            side.append(Sign(self.named("s")))
        self.ops.append(Join(self.named("join"), source, tuple(side), how))
        self.shape = end if how == "add" else (*end[:-1], end[-1] + self.shape[-1])
