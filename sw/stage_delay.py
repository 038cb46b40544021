"""How long a stage of the pipeline takes to give a pixel, from the stage alone."""

from __future__ import annotations

from functools import cache, lru_cache
from math import gcd

from xnorflow.hw.layouts import Lanes
from xnorflow.hw.multi_threshold import distinct_levels, search_latency
from xnorflow.hw.mvu import counts, head_latency, unit_latency
from xnorflow.hw.plane_sum import plane_latency
from xnorflow.hw.sliding_window import WindowGeometry, window_latency
from xnorflow.lowered import LoweredLayer, WindowKey
from xnorflow.pipeline import (
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
)

__all__ = ["channel_latency", "folds", "link_delay", "stage_delay", "stage_unit_latency"]


def folds(stage: MatrixStage) -> tuple[int, int]:
    """Return the synapse folds of a unit, and how often it reads a vector."""
    layer, choice = stage.layer, stage.choice
    return layer.mw // choice.simd, layer.rows // layer.groups // choice.pe


def stage_unit_latency(stage: MatrixStage) -> int:
    """Return the latency of a unit, see `xnorflow.hw.mvu.MatrixVectorUnit`."""
    layer, choice = stage.layer, stage.choice
    folds = layer.mw // choice.simd
    lanes = _lanes(layer.input_bits, stage.granule)
    planes = 1 if layer.coefficients is None else max(2, layer.planes)  # even one has a sum
    head = head_latency(
        layer.mh // choice.o_lanes(layer),
        folds,
        stage.head == "thresholds",
        planes=planes,
        levels=layer.o_levels,
        distinct=_distinct(layer, lanes),
    )
    if layer.coefficients is not None:
        head += plane_latency(layer.coefficients, choice.pe)
    return unit_latency(
        choice.pe,
        choice.simd,
        folds,
        rom_latency=choice.rom_latency,
        leaf_latency=choice.leaf_latency,
        lanes=lanes,
        head=head,
        fixed=choice.weights_in == "constant",
        late=stage.is_plain,
    )


@lru_cache(maxsize=1024)
def _distinct(layer: LoweredLayer, lanes: Lanes) -> int:
    """Return how many rows of a layer's thresholds differ, as its unit has them."""
    if layer.o_levels == 1:
        return 1
    assert layer.thresholds is not None
    return distinct_levels(counts(layer.thresholds, layer.signs, lanes, layer.coefficients))


@cache
def _lanes(bits: int, granule: int) -> Lanes:
    return Lanes(bits, granule or None)


def channel_latency(stage: ThresholdStage | ScoreStage) -> int:
    """Return the latency of thresholds or scores, see `xnorflow.hw.threshold_stage`."""
    if isinstance(stage, ScoreStage):
        return 2 + (stage.lanes < stage.classes)
    folds = stage.stage.shape[-1] // stage.lanes
    if stage.stage.thresholds.ndim == 1:
        return 1 + (folds > 1)
    levels = len(stage.stage.thresholds)
    return search_latency(levels, distinct_levels(stage.stage.thresholds), folds)


def link_delay(o_lanes: int, lanes: int, channels: int, spread: int) -> int:
    """Return the least delay of a converter between two layers, for a pixel's last beat.

    Parameters
    ----------
    o_lanes, lanes : int
        Lanes that come in and go out.
    channels : int
        Of a pixel.
    spread : int
        Cycles from its first beat that comes in to its last one.
    """
    part = gcd(o_lanes, lanes)
    split = o_lanes // part
    collect = int(lanes > part)
    if split == 1:
        return collect
    # A part leaves in each cycle, so that beats may wait behind the pixel's first one.
    return max(split, channels // part - spread) + collect


def stage_delay(stage: Stage) -> int:
    """Return the delay from the last beat that a pixel needs to its own last beat."""
    match stage:
        case MatrixStage():
            length, rounds = folds(stage)
            return length * (rounds - 1) + stage_unit_latency(stage) + (0 if rounds == 1 else 2)
        case WindowStage():
            if stage.parallel:
                return 1
            return _window_latency(stage.window.key) + stage.o_beats // stage.window.positions - 1
        case PoolStage():
            return int(stage.kernel != (1, 1))
        case JoinStage():
            return join_unit(stage).latency
        case MagnitudeStage():
            return magnitude_unit(stage).latency
        case ThresholdStage() | ScoreStage():
            return channel_latency(stage)
        case ResizeStage():
            return max(stage.o_beats - stage.i_beats, 0) // stage.vectors
        case ConverterStage():
            return link_delay(stage.i_lanes, stage.o_lanes, 0, 0)


@lru_cache(maxsize=256)
def _window_latency(key: WindowKey) -> int:
    return window_latency(WindowGeometry(*key))
