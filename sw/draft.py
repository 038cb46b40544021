"""A layer whose thresholds and signs of rows are not settled yet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.affine import Chain, turned
from xnorflow.levels import Levels
from xnorflow.lowered import LoweredLayer, LoweredPool, LoweredStage, LoweredThreshold, Window

__all__ = ["Draft"]


@dataclass
class Draft:
    """A layer, the sums behind it, and the quantizer behind these, as far as they are known.

    Attributes
    ----------
    layer : LoweredLayer
        Without thresholds.
    sums : list of (name, Window)
        Pools that add its accumulators.
    quantized : list of (scale, offset) or None
        Per neuron the map from accumulators to what `levels` quantize.
    levels : Levels or None
    """

    layer: LoweredLayer
    sums: list[tuple[str, Window]] = field(default_factory=list)
    quantized: Chain | None = None
    levels: Levels | None = None

    @property
    def step(self) -> int:
        """Distance of accumulators that can occur."""
        return 1 if self.layer.levels > 1 or self.layer.zero_padded else 2

    def stages(self, polarity: NDArray[np.int64]) -> list[LoweredStage]:
        """Return the stages that send on the quantizer's bits or levels, turned where told so.

        Parameters
        ----------
        polarity : ndarray of int64, shape (MH,)
            -1 for the complement (``top - n`` of levels), else 1.
        """
        assert self.quantized is not None
        assert self.levels is not None
        layer, pools, low, high, chain = self.folded(turned(self.quantized, polarity))
        thresholds = self.levels.thresholds(chain, polarity, low, high, self.step)
        if not pools:
            return [replace(layer, thresholds=thresholds)]
        last = pools[-1]
        return [
            layer,
            *pools,
            LoweredThreshold(f"{last.name}_threshold", thresholds, last.o_shape),
        ]

    def sent_on(self) -> tuple[list[LoweredStage], int, int]:
        """Return the stages that send on accumulators or sums as they are, and their range."""
        low, high = self.layer.o_range
        pools = self._pools(low, high)
        if pools:
            low, high = pools[-1].o_range
        return [self.layer, *pools], low, high

    def folded(
        self, chain: Chain
    ) -> tuple[LoweredLayer, list[LoweredPool], NDArray[np.int64], NDArray[np.int64], Chain]:
        """Make every scale non-negative: ``scale * acc = (-scale) * (-acc)``.

        Returns
        -------
        layer : LoweredLayer
        pools : list of LoweredPool
            The sums behind it.
        low, high : ndarray of int64, shape (MH,)
            Range of what they send on.
        chain : list of (scale, offset)
            From there on.
        """
        signs = np.array([-1 if scale.sign() < 0 else 1 for scale, _ in chain], np.int8)
        layer = replace(self.layer, weights=self.layer.weights * signs[:, None])
        low, high = layer.acc_min, layer.acc_max
        taps = prod(prod(window.kernel) for _, window in self.sums)
        pools = self._pools(int(low.min()), int(high.max()))
        chain = [(abs(scale), offset) for scale, offset in chain]
        return layer, pools, low * taps, high * taps, chain

    def _pools(self, low: int, high: int) -> list[LoweredPool]:
        pools: list[LoweredPool] = []
        for name, window in self.sums:
            pools.append(LoweredPool(name, "sum", window, low, high))
            low, high = pools[-1].o_range
        return pools
