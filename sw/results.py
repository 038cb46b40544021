"""The parts that the JSON objects of several commands share."""

from __future__ import annotations

from typing import Any

from xnorflow.estimate import fifo_name
from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
    LoweredNetwork,
    LoweredPool,
    LoweredThreshold,
)
from xnorflow.pipeline import (
    JoinStage,
    MagnitudeStage,
    MatrixStage,
    PoolStage,
    Segment,
    Stage,
    ThresholdStage,
    WindowStage,
    owned_pipeline,
    segments,
)
from xnorflow.planning import Plan

__all__ = ["kind", "layer_results", "shortcut_results"]

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
    words = "on a shortcut: dense" if segment.aside else "dense"
    if window is not None:
        words = words.replace("dense", f"conv {window.kernel[0]}x{window.kernel[1]}")
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
        words += f", {_pool(stage)}"
    return words


def _pool(pool: LoweredPool) -> str:
    name = "sum" if pool.op == "sum" else "max"
    return f"{name} {pool.window.kernel[0]}x{pool.window.kernel[1]}"


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
                "on_shortcut": segment.aside,
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


def shortcut_results(lowered: LoweredNetwork, plan: Plan) -> list[dict[str, Any]]:
    """Return one object a shortcut: where it begins and ends, what stands on it, and its FIFOs.

    ``inside`` is whether it begins before the last stage of its layer, and ``fifo`` the beats of
    the FIFO at its end, as that of each of its `stages` is those before it.
    """
    owned = owned_pipeline(lowered, plan.folding)
    results = []
    for stage, segment in owned:
        if not isinstance(stage, JoinStage):
            continue
        begin, owner = owned[stage.source]
        results.append(
            {
                "name": stage.name,
                "how": stage.join.how,
                "from": begin.name,
                "from_layer": owner.layer.name,
                "inside": owned[stage.source + 1][1] is owner,
                "to_layer": segment.layer.name,
                "stages": [
                    {
                        "name": part.name,
                        "kind": _side_kind(part),
                        "fifo": plan.fifos.get(fifo_name(stage, place), 0),
                    }
                    for place, part in enumerate(stage.side)
                ],
                "fifo": plan.fifos.get(fifo_name(stage, len(stage.side)), 0),
            }
        )
    return results


def _side_kind(stage: Stage) -> str:
    match stage:
        case PoolStage():
            return _pool(stage.pool)
        case ThresholdStage():
            return "threshold"
        case WindowStage():
            return "window"
        case MagnitudeStage():
            return "magnitudes"
        case MatrixStage():
            return "layer"
        case _:
            return "converter"
