"""Random legal foldings, and all of them."""

import itertools
from collections.abc import Iterator, Sequence

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
    padding = asked(lowered, widths) if padded else {}
    folding = {}
    for layer in pad(lowered, widths).layers:
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
            leaf_latency=1 + int(pe + simd) % 2,
            **padding.get(layer.name, {}),
        )
    return folding


def asked(lowered: LoweredNetwork, widths: Sequence[int]) -> dict[str, dict[str, int]]:
    """Return what a folding says of the layers that are not on shortcuts, for padding to widths."""
    names = [layer.name for layer in lowered.main_layers]
    said = {name: {"outputs": width} for name, width in zip(names, widths[1:], strict=True)}
    said[names[0]]["inputs"] = widths[0]
    return said


def all_foldings(lowered: LoweredNetwork, family: Family) -> Iterator[Folding]:
    """Yield every legal folding; latencies are the usual ones of the device."""
    own = own_widths(lowered)
    for widths in itertools.product(*legal_widths(lowered)):
        layers = []
        own_said = asked(lowered, own)
        said = {
            name: {key: width for key, width in pair.items() if width != own_said[name][key]}
            for name, pair in asked(lowered, widths).items()
        }
        for layer in pad(lowered, widths).layers:
            choices = []
            for pe, simd in itertools.product(legal_pe(layer), legal_simd(layer)):
                single = pe == layer.rows and simd == layer.mw
                for weights_in in ["constant"] if single else ["lut", "bram"]:
                    depth = layer.rows * layer.mw // (pe * simd)
                    form = {"weights_in": weights_in, **said.get(layer.name, {})}
                    form |= usual_latencies(family, weights_in, depth, pe * simd)
                    for buffer_in in ["auto", "registers"]:
                        choices.append(LayerFolding(pe, simd, buffer_in=buffer_in, **form))
            layers.append(choices)
        names = [layer.name for layer in lowered.layers]
        for choice in itertools.product(*layers):
            yield dict(zip(names, choice, strict=True))
