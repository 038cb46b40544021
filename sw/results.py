"""The parts that the JSON objects of several commands share."""

from __future__ import annotations

from typing import Any

from xnorflow.lowered import LoweredNetwork
from xnorflow.planning import Plan

__all__ = ["layer_results"]


def layer_results(lowered: LoweredNetwork, plan: Plan) -> list[dict[str, Any]]:
    """Return one object a layer: its shape, its folding and its estimated cost."""
    results = []
    for layer in lowered.layers:
        choice, cost = plan.folding[layer.name], plan.costs[layer.name]
        results.append(
            {
                "name": layer.name,
                "kind": "dense",
                "mw": layer.mw,
                "mh": layer.mh,
                "pe": choice.pe,
                "simd": choice.simd,
                "cycles": choice.cycles(layer),
                "lut_estimated": round(cost.lut),
                "bram_estimated": cost.bram,
                "weights_bits": layer.mw * layer.mh,
                "weights_in": choice.weights_in,
                "buffer_in": choice.buffer_in,
                "rom_latency": choice.rom_latency,
                "threshold_count": 0 if layer.thresholds is None else layer.mh,
            }
        )
    return results
