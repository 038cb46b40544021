"""Random legal foldings."""

import numpy as np

from xnorflow.folding import Folding, LayerFolding, legal_pe, legal_simd
from xnorflow.lowered import LoweredNetwork
from xnorflow.padding import legal_widths, own_widths, pad

__all__ = ["random_folding"]


def random_folding(
    rng: np.random.Generator, lowered: LoweredNetwork, padded: bool = False
) -> Folding:
    """Draw any legal PE, SIMD and memory for every layer, and any padding if `padded`."""
    widths = own_widths(lowered)
    if padded:
        widths = [int(rng.choice(legal)) for legal in legal_widths(lowered)]
    folding = {}
    for place, layer in enumerate(pad(lowered, widths).layers):
        pe, simd = rng.choice(legal_pe(layer)), rng.choice(legal_simd(layer))
        single = pe == layer.mh and simd == layer.mw
        weights_in = "constant" if single else str(rng.choice(["lut", "bram"]))
        buffer_in = str(rng.choice(["auto", "registers"]))
        latency = int(rng.integers(1, 3))
        folding[layer.name] = LayerFolding(
            int(pe),
            int(simd),
            weights_in,
            buffer_in,
            latency,
            outputs=widths[place + 1] if padded else None,
            inputs=widths[0] if padded and place == 0 else None,
        )
    return folding
