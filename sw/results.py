"""The parts that the JSON objects of several commands share."""

from __future__ import annotations

from typing import Any

from xnorflow.lowered import LoweredJoin, LoweredLayer, LoweredNetwork, LoweredThreshold
from xnorflow.pipeline import Segment, segments
from xnorflow.planning import Plan

__all__ = ["kind", "layer_results"]

#: What the ways to join are called.
JOINS = {
    "add": "add",
    "append": "concatenate",
    "prepend": "concatenate",
    "multiply": "gain of each pixel",
}


def kind(segment: Segment) -> str:
    """Return what a layer and the stages behind it are, e.g. ``conv 3x3, max 2x2``."""
    layer = segment.layer
    window = layer.window
    words = "dense"
    if window is not None:
        words = f"conv {window.kernel[0]}x{window.kernel[1]}"
        if window.stride != (1, 1):
            words += f" / {window.stride[0]}x{window.stride[1]}"
        if window.dilation != (1, 1):
            words += f" dilation {window.dilation[0]}x{window.dilation[1]}"
        if layer.groups > 1:
            words += f", {layer.groups} groups"
        if any(window.padding):
            value = "zero" if window.pad is None else "constant"
            words += f", {value} pad"
    for stage in segment.tail:
        if isinstance(stage, LoweredThreshold):
            words += ", threshold"
            continue
        if isinstance(stage, LoweredJoin):
            words += f", {JOINS[stage.how]}"
            continue
        name = "sum" if stage.op == "sum" else "max"
        words += f", {name} {stage.window.kernel[0]}x{stage.window.kernel[1]}"
    return words


def layer_results(lowered: LoweredNetwork, plan: Plan) -> list[dict[str, Any]]:
    """Return one object a layer: its shape, its folding and its estimated cost.

    ``binary_ops`` are the XNORs and additions of one bit that a frame takes, two for every weight
    bit, output pixel and bit of the input. Shapes are those of the network, before any padding.
    """
    results = []
    padded = segments(lowered, plan.folding)
    for segment, hardware in zip(segments(lowered), padded, strict=True):
        layer = segment.layer
        choice, cost = plan.folding[layer.name], plan.costs[layer.name]
        results.append(
            {
                "name": layer.name,
                "kind": kind(segment),
                "i_shape": list(layer.i_shape),
                "o_shape": list((segment.tail[-1] if segment.tail else layer).o_shape),
                "input_bits": layer.input_bits,
                "positions": layer.positions,
                "mw": layer.mw,
                "mh": layer.mh,
                "binary_ops": 2 * layer.macs * layer.input_bits,
                "planes": layer.planes,
                "pe": choice.pe,
                "simd": choice.simd,
                "cycles": choice.cycles(hardware.layer),
                "lut_estimated": round(cost.lut),
                "cells_estimated": round(cost.cells),
                "ff_estimated": round(cost.ff),
                "bram_estimated": cost.bram,
                "weights_bits": layer.mw * layer.rows,
                "weights_in": choice.weights_in,
                "buffer_in": choice.buffer_in,
                "rom_latency": choice.rom_latency,
                "leaf_latency": choice.leaf_latency,
                "outputs": choice.outputs,
                "inputs": choice.inputs,
                "threshold_count": sum(
                    stage.thresholds.size
                    for stage in (layer, *segment.tail)
                    if isinstance(stage, LoweredLayer | LoweredThreshold)
                    and stage.thresholds is not None
                ),
            }
        )
    return results
