"""From a lowered network and a folding to the streaming core."""

from __future__ import annotations

from xnorflow.folding import Folding
from xnorflow.hw.core import StreamingCore
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.rom import ROMStyle
from xnorflow.lowered import LoweredNetwork

__all__ = ["assemble"]


def assemble(lowered: LoweredNetwork, folding: Folding) -> StreamingCore:
    """Return the core that computes `lowered`, each layer folded as `folding` says.

    Parameters
    ----------
    lowered : LoweredNetwork
    folding : dict of LayerFolding
        A legal folding for every layer.
    """
    units = []
    for layer in lowered.layers:
        choice = folding[layer.name]
        output = lowered.output
        units.append(
            MatrixVectorUnit(
                layer.weights,
                pe=choice.pe,
                simd=choice.simd,
                weights_in=ROMStyle(choice.weights_in),
                buffer_in_registers=choice.buffer_in == "registers",
                rom_latency=choice.rom_latency,
                **(
                    {"scale": output.scale, "offset": output.offset}
                    if layer.thresholds is None
                    else {"thresholds": layer.thresholds}
                ),
            )
        )
    return StreamingCore(units)
