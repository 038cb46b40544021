"""Random legal foldings, and all of them."""

import itertools
from collections.abc import Iterator

import numpy as np

from xnorflow.cost import Family
from xnorflow.folding import Folding, LayerFolding, legal_pe, legal_simd, usual_latencies
from xnorflow.lowered import LoweredNetwork
from xnorflow.padding import legal_widths, own_widths, pad

__all__ = ["all_foldings", "random_folding"]


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
        single = pe == layer.rows and simd == layer.mw
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
            leaf_latency=1 + int(pe + simd) % 2,
        )
    return folding


def all_foldings(lowered: LoweredNetwork, family: Family) -> Iterator[Folding]:
    """Yield every legal folding; latencies are the usual ones of the device."""
    own = own_widths(lowered)
    for widths in itertools.product(*legal_widths(lowered)):
        layers = []
        for place, layer in enumerate(pad(lowered, widths).layers):
            outputs = widths[place + 1] if widths[place + 1] != own[place + 1] else None
            inputs = widths[0] if place == 0 and widths[0] != own[0] else None
            choices = []
            for pe, simd in itertools.product(legal_pe(layer), legal_simd(layer)):
                single = pe == layer.rows and simd == layer.mw
                for weights_in in ["constant"] if single else ["lut", "bram"]:
                    depth = layer.rows * layer.mw // (pe * simd)
                    form = {"outputs": outputs, "inputs": inputs, "weights_in": weights_in}
                    form |= usual_latencies(family, weights_in, depth, pe * simd)
                    for buffer_in in ["auto", "registers"]:
                        choices.append(LayerFolding(pe, simd, buffer_in=buffer_in, **form))
            layers.append(choices)
        names = [layer.name for layer in lowered.layers]
        for choice in itertools.product(*layers):
            yield dict(zip(names, choice, strict=True))
