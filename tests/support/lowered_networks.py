"""Lowered networks of given widths, without a file behind them."""

from itertools import pairwise

import numpy as np

from xnorflow.lowered import InputQuantizer, LoweredLayer, LoweredNetwork, LoweredOutput

__all__ = ["lowered_network"]


def lowered_network(widths: list[int], seed: int = 0) -> LoweredNetwork:
    """Return a network of random weights and thresholds; layers are fc1, fc2, ..."""
    rng = np.random.default_rng(seed)
    layers = []
    for index, (mw, mh) in enumerate(pairwise(widths), start=1):
        last = index == len(widths) - 1
        weights = rng.choice(np.array([-1, 1], np.int8), (mh, mw))
        thresholds = None if last else (2 * rng.integers(-2, 3, mh) + mw % 2).astype(np.int32)
        layers.append(LoweredLayer(f"fc{index}", weights, thresholds))
    classes = widths[-1]
    return LoweredNetwork(
        "random",
        InputQuantizer((widths[0],), np.full((1, 1), 127.5, np.float32)),
        tuple(layers),
        LoweredOutput(
            np.ones(classes, np.int64),
            rng.integers(-9, 10, classes),
            np.ones(classes),
            np.zeros(classes),
        ),
    )
