"""Random legal foldings."""

import numpy as np

from xnorflow.folding import Folding, LayerFolding, legal_pe, legal_simd
from xnorflow.lowered import LoweredNetwork

__all__ = ["random_folding"]


def random_folding(rng: np.random.Generator, lowered: LoweredNetwork) -> Folding:
    """Draw any legal PE, SIMD and memory for every layer."""
    folding = {}
    for layer in lowered.layers:
        pe, simd = rng.choice(legal_pe(layer)), rng.choice(legal_simd(layer))
        single = pe == layer.mh and simd == layer.mw
        weights_in = "constant" if single else str(rng.choice(["lut", "bram"]))
        buffer_in = str(rng.choice(["auto", "registers"]))
        latency = int(rng.integers(1, 3))
        folding[layer.name] = LayerFolding(int(pe), int(simd), weights_in, buffer_in, latency)
    return folding
