# amaranth: UnusedElaboratable=no
"""What a folding costs: logic, flip-flops and block RAMs of every layer, before synthesis.

Each stage of the pipeline is a component of `xnorflow.hw`, and the function beside the component
says what it costs; here the stages are told in the components' terms. ``benchmarks/calibrate.py``
fits the prices, and ``benchmarks/cost.py`` compares estimates with what the tools make.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from amaranth.utils import bits_for

from xnorflow.folding import Folding
from xnorflow.hw.accumulator import accumulator_width, start_parts
from xnorflow.hw.argmax import argmax_parts
from xnorflow.hw.cost import FAMILIES, Cost, Family, Parts, merge
from xnorflow.hw.fifo import fifo_parts
from xnorflow.hw.gain import GainUnit, gain_parts
from xnorflow.hw.join import fork_parts, join_parts
from xnorflow.hw.layouts import Lanes
from xnorflow.hw.link.host_link import link_parts
from xnorflow.hw.magnitude import magnitude_parts
from xnorflow.hw.multi_threshold import distinct_levels, multi_threshold_parts, search_latency
from xnorflow.hw.mvu import (
    count_top,
    counts,
    head_latency,
    o_lanes,
    rom_widths,
    score_unit,
    unit_parts,
)
from xnorflow.hw.parallel_window import parallel_window_parts
from xnorflow.hw.pe_array import step_top
from xnorflow.hw.plane_sum import plane_latency, plane_sum_parts, positive_planes
from xnorflow.hw.pool import pool_parts
from xnorflow.hw.resize import resizer_parts
from xnorflow.hw.rom import ROMStyle
from xnorflow.hw.score import ScoreUnit, score_parts
from xnorflow.hw.sliding_window import window_parts
from xnorflow.hw.threshold import threshold_parts
from xnorflow.hw.threshold_stage import channel_stage_parts
from xnorflow.hw.width_converter import converter_parts
from xnorflow.lowered import LoweredLayer, LoweredNetwork, LoweredOutput, LoweredThreshold
from xnorflow.pipeline import (
    POOL_REGISTER_BITS,
    ConverterStage,
    JoinStage,
    MagnitudeStage,
    MatrixStage,
    PoolStage,
    ResizeStage,
    ScoreStage,
    Stage,
    ThresholdStage,
    WindowStage,
    join_unit,
    magnitude_unit,
    owned_pipeline,
)

__all__ = [
    "FAMILIES",
    "Cost",
    "Family",
    "component_cost",
    "component_parts",
    "estimate",
    "fifo_cost",
    "link_cost",
    "stage_cost",
]


def stage_cost(family: Family, stage: Stage, output: LoweredOutput) -> Cost:
    """Return the cost of one stage of the pipeline; what gives scores has the arg-max behind it.

    Parameters
    ----------
    family : Family
    stage : Stage
    output : LoweredOutput
        The network's affine.
    """
    cost = component_cost(family, stage, output)
    if isinstance(stage, ScoreStage) and not stage.cut:
        width = _sum_score_unit(stage, output).width
        return cost + _tail_cost(family, stage.lanes, width, stage.classes)
    if isinstance(stage, ResizeStage) and stage.last:
        return cost + _tail_cost(family, stage.o_lanes, stage.bits, stage.o_elements)
    if isinstance(stage, MatrixStage) and stage.head == "scores" and not stage.cut:
        bits = _score_bits(stage.layer, output)
        return cost + _tail_cost(family, stage.o_lanes, bits, stage.layer.mh)
    return cost


def component_cost(family: Family, stage: Stage, output: LoweredOutput) -> Cost:
    """Return the cost of a stage's component alone."""
    if isinstance(stage, MatrixStage):
        # A search asks for the same unit with other heads, and for the same head at other units.
        affine = output if stage.head == "scores" else None
        head = _head_cost(family, *_head_key(stage), affine)
        return _unit_cost(family, **_unit(family, stage, output)) + head
    return family.cost(component_parts(family, stage, output))


@lru_cache(maxsize=1 << 16)
def _unit_cost(family: Family, **unit: Any) -> Cost:
    return family.cost(unit_parts(family, **unit))


def fifo_cost(family: Family, width: int, words: int) -> Cost:
    """Return the cost of a FIFO of `words` beats of `width` bits."""
    return family.cost(fifo_parts(family, width, words))


#: Weight memories of more words have no bit that is the same in all of them.
FEW_WORDS = 64

#: Lanes that no device has block RAM for.
WIDEST = 8192

#: What the clock and the reset take beside the link.
BOARD_COSTS = {
    "ice40": Cost(lut=30, ff=30, carry=15, cells=30),
    "ecp5": Cost(lut=70, ff=27, carry=12, cells=70),
}


def link_cost(family: Family, lowered: LoweredNetwork, lanes: int = 16) -> Cost:
    """Return the cost of the serial link, the clock and the reset.

    Parameters
    ----------
    family : Family
    lowered : LoweredNetwork
    lanes : int
        Features of a beat that goes to the core: a flip-flop for each of their bits.
    """
    unit = link_parts(
        family,
        i_bits=lowered.input.features * lowered.input.bits,
        i_lanes=lanes * lowered.input.bits,
        classes=lowered.classes,
        score_bits=16,
    )
    return family.cost(unit) + BOARD_COSTS[family.name]


@lru_cache(maxsize=4096)
def _tail_cost(family: Family, lanes: int, width: int, classes: int) -> Cost:
    """Return the cost of the arg-max and of the serializer before it, at a score a cycle."""
    serializer = converter_parts(width, lanes, 1)
    return family.cost(merge(serializer, argmax_parts(family, 1, width, classes)))


def component_parts(family: Family, stage: Stage, output: LoweredOutput) -> Parts:
    """Return the parts that a stage's component is made of, see `xnorflow.hw.cost`."""
    match stage:
        case MatrixStage():
            affine = output if stage.head == "scores" else None
            head = _head(family, stage, affine)
            return merge(unit_parts(family, **_unit(family, stage, output)), head[0])
        case ConverterStage(i_lanes=i_lanes, o_lanes=o_lanes):
            # Lanes that share a flag travel with it, as one element.
            granule = stage.granule or 1
            bits = stage.bits * granule + (stage.granule > 0)
            return converter_parts(bits, i_lanes // granule, o_lanes // granule)
        case ResizeStage(bits=bits, i_lanes=i_lanes, o_lanes=o_lanes):
            beats = (stage.i_elements // i_lanes, stage.o_elements // o_lanes)
            return resizer_parts(bits * i_lanes, *beats)
        case WindowStage(parallel=True):
            return parallel_window_parts(family, stage.geometry, stage.bits)
        case WindowStage():
            return window_parts(
                family,
                stage.geometry,
                element_bits=stage.bits,
                lanes=stage.lanes,
                rows=stage.rows,
                zero_flag=stage.granule > 0,
                groups=stage.groups,
            )
        case PoolStage(pool=pool):
            return pool_parts(
                family,
                stage.bits,
                stage.shape,
                stage.kernel,
                lanes=stage.lanes,
                op=pool.op,
                registers=stage.words * stage.lanes * stage.bits <= POOL_REGISTER_BITS,
            )
        case ThresholdStage():
            unit = _sum_threshold_parts(family, stage.stage, stage.lanes, stage.low, stage.high)
            return channel_stage_parts(stage.stage.shape[-1] // stage.lanes, unit)
        case ScoreStage():
            scores = _sum_score_unit(stage, output)
            return channel_stage_parts(scores.folds, score_parts(family, scores))
        case MagnitudeStage():
            return magnitude_parts(family, magnitude_unit(stage))
        case JoinStage():
            unit = join_unit(stage)
            if isinstance(unit, GainUnit):
                return merge(gain_parts(family, unit), fork_parts())
            return merge(join_parts(family, unit), fork_parts())


def _unit(family: Family, stage: MatrixStage, output: LoweredOutput) -> dict[str, Any]:
    """Return the parameters of a unit as `unit_parts` takes them."""
    layer, choice = stage.layer, stage.choice
    affine = output if stage.head == "scores" else None
    _, o_bits, latency = _head(family, stage, affine)
    accumulates = stage.is_plain and choice.simd < layer.mw
    return {
        "mh": layer.rows,
        "mw": layer.mw,
        "pe": choice.pe,
        "simd": choice.simd,
        "o_bits": o_bits,
        "head_latency": latency,
        "weights_in": ROMStyle(choice.weights_in),
        "buffer_in_registers": choice.buffer_in == "registers",
        "rom_latency": choice.rom_latency,
        "leaf_latency": choice.leaf_latency,
        "lanes": _lanes(layer.input_bits, stage.granule),
        "groups": layer.groups,
        "accumulator": _accumulator(layer, stage.granule) if accumulates else 0,
        "planes": layer.planes,
        "late": stage.is_plain,
        "widths": (
            _rom_widths(layer, choice.pe, choice.simd) if choice.weights_in == "bram" else None
        ),
    }


@lru_cache(maxsize=4096)
def _accumulator(layer: LoweredLayer, granule: int) -> int:
    """Return the bits of accumulators that have a layer's thresholds."""
    assert layer.thresholds is not None
    lanes = _lanes(layer.input_bits, granule)
    least = counts(layer.thresholds, layer.weights, lanes)
    return accumulator_width(least, layer.mw * lanes.top)


@lru_cache(maxsize=1 << 14)
def _rom_widths(layer: LoweredLayer, pe: int, simd: int) -> tuple[int, ...] | None:
    """Return `rom_widths` of a layer with so few words that some bits may be alike in all."""
    words = layer.rows * layer.mw // (pe * simd)
    if words > FEW_WORDS or simd * pe > WIDEST:
        return None
    signs = layer.signs
    if layer.coefficients is not None:
        signs, _ = positive_planes(signs, layer.coefficients)
    return rom_widths(signs, pe, simd)


@cache
def _lanes(bits: int, granule: int) -> Lanes:
    return Lanes(bits, granule or None)


#: What a unit's head depends on: layer, PE, granule, kind, and SIMD where thresholds are in the
#: accumulators.
_HeadKey = tuple[LoweredLayer, int, int, str, int]


def _head_key(stage: MatrixStage) -> _HeadKey:
    layer, choice = stage.layer, stage.choice
    simd = choice.simd if stage.is_plain else layer.mw
    return layer, choice.pe, stage.granule, stage.head, simd


def _head(
    family: Family, stage: MatrixStage, output: LoweredOutput | None
) -> tuple[Parts, int, int]:
    """Return the parts of what stands behind a unit's counts, bits of a beat, and its latency."""
    return _head_of(family, *_head_key(stage), output)


@lru_cache(maxsize=4096)
def _head_of(
    family: Family,
    layer: LoweredLayer,
    pe: int,
    granule: int,
    head: str,
    simd: int,
    output: LoweredOutput | None,
) -> tuple[Parts, int, int]:
    lanes = _lanes(layer.input_bits, granule)
    given = o_lanes(pe, layer.planes)
    first: Parts = {}
    wait = 0
    if layer.coefficients is not None:
        first = plane_sum_parts(family, layer.coefficients, pe, layer.mw * lanes.top)
        wait = plane_latency(layer.coefficients, pe)
    if head == "thresholds":
        assert layer.thresholds is not None
        least = counts(layer.thresholds, layer.signs, lanes, layer.coefficients)
        least = least.reshape(-1, layer.mh // given, given)
        top, folds = count_top(layer.mw, lanes, layer.coefficients), layer.mw // simd
        if len(least) > 1:
            latency = search_latency(len(least), distinct_levels(least), layer.mh // given)
            parts = multi_threshold_parts(family, least, top)
            return merge(first, parts), given * bits_for(len(least)), latency + wait
        latency = head_latency(layer.mh // given, folds, True)
        plain = layer.coefficients is None
        if folds == 1:
            _, late = step_top(simd, 1, lanes, plain and layer.mh == pe)
            return merge(first, threshold_parts(family, least[0], top, late)), given, latency + wait
        highest, _ = step_top(simd, folds, lanes)
        return start_parts(family, least[0], top, highest), given, latency
    unit = _score_unit(layer, pe, lanes, output)
    parts = merge(first, score_parts(family, unit))
    return parts, unit.width * given, unit.latency + wait


@lru_cache(maxsize=4096)
def _head_cost(
    family: Family,
    layer: LoweredLayer,
    pe: int,
    granule: int,
    head: str,
    simd: int,
    output: LoweredOutput | None,
) -> Cost:
    return family.cost(_head_of(family, layer, pe, granule, head, simd, output)[0])


@lru_cache(maxsize=4096)
def _sum_threshold_parts(
    family: Family, stage: LoweredThreshold, lanes: int, low: int, high: int
) -> Parts:
    least = (stage.thresholds.astype(np.int64) - low).clip(0, high - low + 1)
    if least.ndim > 1:
        folded = least.reshape(len(least), -1, lanes)
        return multi_threshold_parts(family, folded, high - low)
    return threshold_parts(family, least.reshape(-1, lanes), high - low)


def _sum_score_unit(stage: ScoreStage, output: LoweredOutput) -> ScoreUnit:
    scale, offset = (values.reshape(-1, stage.lanes) for values in (output.scale, output.offset))
    base = np.full_like(scale, -stage.low)
    return ScoreUnit(scale, offset, stage.high - stage.low, 1, base)


@lru_cache(maxsize=4096)
def _score_unit(
    layer: LoweredLayer, pe: int, lanes: Lanes, output: LoweredOutput | None
) -> ScoreUnit:
    scale = np.ones(layer.mh, np.int64) if output is None else output.scale
    offset = np.zeros(layer.mh, np.int64) if output is None else output.offset
    return score_unit(layer.signs, scale, offset, pe, lanes, layer.coefficients)


def _score_bits(layer: LoweredLayer, output: LoweredOutput) -> int:
    return _score_unit(layer, layer.planes, _lanes(layer.input_bits, 0), output).width


def estimate(family: Family, lowered: LoweredNetwork, folding: Folding) -> dict[str, Cost]:
    """Return the cost of every layer by name.

    A layer's cost includes the converter and the window before it, and the pooling and the joins
    behind it; what stands on shortcuts is left out, see `xnorflow.estimate.beside_layers`.
    """
    costs = {layer.name: Cost() for layer in lowered.layers}
    for stage, part in owned_pipeline(lowered, folding):
        costs[part.layer.name] += stage_cost(family, stage, part.output)
    return costs
