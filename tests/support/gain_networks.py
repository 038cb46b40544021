"""Random networks with XNOR-Net's gains of pixels."""

from fractions import Fraction

import numpy as np

from xnorflow.network import (
    Affine,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Op,
    PixelGain,
    Quantize,
    Sign,
)

__all__ = ["GainMaker"]

SIDE = 5


class GainMaker:
    """Makes a random network of 5 x 5 pixels.

    Parameters
    ----------
    seed : int
    exact : bool
        Whether all maps before magnitudes are small multiples of one number.
    """

    def __init__(self, seed: int, exact: bool):
        self.rng = np.random.default_rng(seed)
        self.exact = exact
        self.ops: list[Op] = []
        self.shape = (SIDE, SIDE, int(self.rng.integers(1, 4)))

    def signs(self, *shape: int) -> np.ndarray:
        return self.rng.choice([-1, 1], shape)

    def fractions(self, count: int, low: int, high: int, denominator: int) -> tuple[Fraction, ...]:
        return tuple(Fraction(int(n), denominator) for n in self.rng.integers(low, high, count))

    def norm(self, name: str) -> None:
        """Append maps with scales of either sign, sometimes zero."""
        rng, channels = self.rng, self.shape[-1]
        if self.exact and rng.random() < 0.3:
            # The same irrational number for all.
            gamma = rng.choice([-1, -0.5, 0, 0.5, 1, 1], channels)
            beta = mean = np.zeros(channels)
            self.ops.append(BatchNorm(name, gamma, beta, mean, np.full(channels, 2.5), 1e-5))
        elif self.exact:
            scale = self.fractions(channels, -3, 6, 4)
            self.ops.append(Affine(name, scale, self.fractions(channels, -20, 20, 8)))
        else:
            gamma, beta, mean = rng.normal(0.5, 1, channels), *rng.normal(0, 1.5, (2, channels))
            self.ops.append(BatchNorm(name, gamma, beta, mean, rng.uniform(0.1, 9, channels), 1e-5))

    def gained(self, name: str, source: int, kernel: tuple[int, int] | None, **places) -> None:
        """Append what follows a layer: gains of pixels and channels."""
        rng, channels = self.rng, self.shape[-1]
        alpha = Affine(f"{name}_alpha", self.fractions(channels, 1, 9, 16))
        gain = PixelGain(f"{name}_k", source, kernel, **places)
        self.ops += [gain, alpha] if rng.random() < 0.5 else [alpha, gain]
        if rng.random() < 0.3:
            self.ops.append(
                Affine(f"{name}_bias", (Fraction(1),), self.fractions(channels, -9, 9, 8))
            )

    def block(self, name: str) -> None:
        """Append a convolution of signs with the gains of what the signs are of."""
        rng = self.rng
        rows, columns, channels = self.shape
        source = len(self.ops)
        self.ops.append(Sign(f"{name}_sign"))
        if rng.random() < 0.2:
            source += 1  # of the bits
        kernel = tuple(
            min(k, n) for k, n in zip(rng.integers(1, 4, 2).tolist(), (rows, columns), strict=True)
        )
        places = {"stride": tuple(rng.integers(1, 3, 2).tolist())}
        if rng.random() < 0.6:
            places["padding"] = tuple(rng.integers(0, 2, 4).tolist())
        if max(kernel) <= 2 and min(rows, columns) > 2 and rng.random() < 0.3:
            places["dilation"] = tuple(rng.integers(1, 3, 2).tolist())
        groups = channels if rng.random() < 0.2 else 1
        outputs = groups * int(rng.integers(1, 3)) if groups > 1 else int(rng.integers(2, 5))
        weights = self.signs(outputs, *kernel, channels // groups)
        conv = Conv2d(f"{name}_conv", weights, groups=groups, **places)
        self.ops.append(conv)
        sizes = []
        for axis, size in enumerate((rows, columns)):
            pads = conv.padding[axis] + conv.padding[axis + 2]
            extent = conv.dilation[axis] * (kernel[axis] - 1) + 1
            sizes.append((size + pads - extent) // conv.stride[axis] + 1)
        self.shape = (*sizes, len(conv.weights))
        self.gained(name, source, kernel, **places)
        if min(sizes) >= 2 and rng.random() < 0.4:
            self.ops.append(MaxPool(f"{name}_pool", (2, 2), (2, 2)))
            self.shape = (sizes[0] // 2, sizes[1] // 2, self.shape[-1])
        self.norm(f"{name}_norm")

    def network(self) -> Network:
        rng = self.rng
        if rng.random() < 0.5:
            self.ops.append(Quantize("in", Fraction(1), Fraction(0), 0, int(rng.integers(1, 4))))
        else:
            self.ops += [Affine("centre", (Fraction(1),), (Fraction(-3, 2),)), Sign("in")]
        channels = int(rng.integers(2, 5))
        weights = self.signs(channels, 3, 3, self.shape[-1])
        self.ops.append(Conv2d("first", weights, padding=(1, 1, 1, 1)))
        self.shape = (SIDE, SIDE, channels)
        if rng.random() < 0.3:
            self.ops.append(MaxPool("first_pool", (2, 2), (2, 2)))
            self.shape = (SIDE // 2, SIDE // 2, channels)
        self.norm("first_norm")
        if rng.random() < 0.8:
            self.block("a")
            if not self.exact and rng.random() < 0.4:
                self.block("b")
        flatten = Flatten("flat", bool(rng.integers(2)))
        if early := rng.random() < 0.5:
            self.ops.append(flatten)
        source = len(self.ops)
        self.ops += [Sign("last_sign")] if early else [Sign("last_sign"), flatten]
        hidden = self.signs(int(rng.integers(3, 6)), int(np.prod(self.shape)))
        self.ops.append(Dense("hidden", hidden))
        self.shape = (len(hidden),)
        if rng.random() < 0.7:
            self.gained("hidden", source, None)
        self.norm("hidden_norm")
        levels = Quantize("hidden_levels", Fraction(1, 2), Fraction(0), 0, 3)
        self.ops.append(levels if rng.random() < 0.3 else Sign("hidden_sign"))
        bits = isinstance(self.ops[-1], Sign)
        self.ops.append(Dense("last", self.signs(3, len(hidden))))
        self.shape = (3,)
        if bits and rng.random() < 0.3:
            self.gained("last", len(self.ops) - 2, None)
        return Network("gains", (SIDE, SIDE, self._input_channels()), tuple(self.ops))

    def _input_channels(self) -> int:
        return next(op for op in self.ops if isinstance(op, Conv2d)).weights.shape[-1]
