# amaranth: UnusedElaboratable=no
"""From a lowered network and a folding to the streaming core."""

from __future__ import annotations

from typing import Any

from amaranth import unsigned
from amaranth.hdl import ShapeLike
from amaranth.lib import data

from xnorflow.fifo_sizing import fifo_depths
from xnorflow.folding import Folding, widths
from xnorflow.hw.core import CoreStage, Shortcut, StreamingCore, StreamUnit
from xnorflow.hw.counting import COUNTING, Counting
from xnorflow.hw.fifo import StreamFIFO
from xnorflow.hw.layouts import Lanes
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.parallel_window import ParallelWindow
from xnorflow.hw.pool import PoolUnit
from xnorflow.hw.resize import VectorResizer
from xnorflow.hw.rom import ROMStyle
from xnorflow.hw.sliding_window import SlidingWindow
from xnorflow.hw.threshold_stage import ScoreStage as ScoreUnit
from xnorflow.hw.threshold_stage import ThresholdStage as ThresholdUnit
from xnorflow.hw.width_converter import WidthConverter
from xnorflow.lowered import LoweredNetwork, LoweredOutput
from xnorflow.padding import pad
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
    make_join,
    make_magnitude,
    pipeline,
)

__all__ = ["assemble", "component"]


def assemble(lowered: LoweredNetwork, folding: Folding, family: str | None = None) -> StreamingCore:
    """Return the core that computes `lowered`, each layer folded as `folding` says.

    Parameters
    ----------
    lowered : LoweredNetwork
    folding : dict of LayerFolding
        A legal folding for every layer.
    family : str, optional
        Device family whose cells may be instantiated; no core with such can be simulated before
        synthesis. All give the same outputs in the same cycles.
    """
    stages = pipeline(lowered, folding)
    output = pad(lowered, widths(lowered, folding)).output
    depths = fifo_depths(stages)
    built: list[CoreStage] = []
    places: list[int] = []  # of the pipeline's stages in the core
    payload: data.ArrayLayout = data.ArrayLayout(unsigned(lowered.input.bits), 1)
    for index, (stage, depth) in enumerate(zip(stages, depths.main, strict=True)):
        built += _fifo(stage.name, payload, depth, built[-1].o_beats if built else 0)
        shortcut: Shortcut | None = None
        if isinstance(stage, JoinStage):
            source = places[stage.source]
            side = _side(stage, depths.sides[index], built[source], output, family)
            elements = payload.elem_shape, _payload([built[source], *side]).elem_shape
            unit: StreamUnit = make_join(stage.join, stage.lanes, elements)
            shortcut = Shortcut(source, tuple(side))
        else:
            unit = component(stage, payload, output, family)
        built.append(
            CoreStage(stage.name, unit, stage.i_beats, stage.o_beats, stage.cycles, shortcut)
        )
        places.append(len(built) - 1)
        payload = _payload(built)
    return StreamingCore(built)


def _payload(stages: list[CoreStage]) -> data.ArrayLayout:
    """Return what the last of some stages gives."""
    payload = stages[-1].unit.o.payload.shape()
    if isinstance(payload, data.StructLayout):
        return data.ArrayLayout(payload, 1)  # lanes and their flag for true zeros
    return payload


def _fifo(name: str, payload: data.ArrayLayout, depth: int, beats: int) -> list[CoreStage]:
    """Return a FIFO before a stage, if it has one."""
    if not depth:
        return []
    return [CoreStage(f"{name}_fifo", StreamFIFO(payload, depth), beats, beats, beats)]


def _side(
    join: JoinStage,
    depths: list[int],
    source: CoreStage,
    output: LoweredOutput,
    family: str | None,
) -> list[CoreStage]:
    """Return the stages of a shortcut, FIFOs included."""
    built: list[CoreStage] = []
    *inner, last = depths
    for stage, depth in zip(join.side, inner, strict=True):
        before = [source, *built]
        built += _fifo(stage.name, _payload(before), depth, before[-1].o_beats)
        unit = component(stage, _payload([source, *built]), output, family)
        built.append(CoreStage(stage.name, unit, stage.i_beats, stage.o_beats, stage.cycles))
    before = [source, *built]
    built += _fifo(f"{join.name}_side", _payload(before), last, before[-1].o_beats)
    return built


def component(
    stage: Stage, payload: data.ArrayLayout, output: LoweredOutput, family: str | None = None
) -> StreamUnit:
    """Return the hardware of a stage that has one input.

    Parameters
    ----------
    stage : Stage
    payload : ArrayLayout
        What the stage before gives: elements, or lanes with their flag for true zeros.
    output : LoweredOutput
        The padded network's affine, for the stage that gives the scores.
    family : str, optional
        See `assemble`.
    """
    match stage:
        case ConverterStage():
            return _converter(stage, payload)
        case ResizeStage():
            return VectorResizer(
                payload.elem_shape, stage.i_lanes, stage.o_lanes, stage.i_elements, stage.o_elements
            )
        case WindowStage():
            return _window(stage, payload.elem_shape)
        case MatrixStage():
            return _matrix(stage, output, family)
        case PoolStage():
            return _pool(stage, payload.elem_shape)
        case ThresholdStage():
            return ThresholdUnit(payload.elem_shape, stage.stage.thresholds, lanes=stage.lanes)
        case MagnitudeStage():
            return make_magnitude(stage, payload.elem_shape)
        case ScoreStage():
            return ScoreUnit(payload.elem_shape, output.scale, output.offset, lanes=stage.lanes)
        case JoinStage():
            raise TypeError("a join has two inputs")


def _converter(stage: ConverterStage, payload: data.ArrayLayout) -> WidthConverter:
    # Behind a window with true zeros an element is a granule of lanes and their flag.
    granule = stage.i_lanes // payload.length
    return WidthConverter(payload.elem_shape, payload.length, stage.o_lanes // granule)


def _window(stage: WindowStage, element: ShapeLike) -> SlidingWindow | ParallelWindow:
    window = stage.window
    common: dict[str, Any] = {
        "stride": window.stride,
        "dilation": window.dilation,
        "padding": window.padding,
        "pad_values": window.pad,
        "zero_flag": stage.granule > 0,
    }
    if stage.parallel:
        granule = stage.granule or window.shape[2]
        return ParallelWindow(element, window.shape, window.kernel, granule=granule, **common)
    return SlidingWindow(
        element, window.shape, window.kernel, lanes=stage.lanes, groups=stage.groups, **common
    )


def _matrix(stage: MatrixStage, output: LoweredOutput, family: str | None) -> MatrixVectorUnit:
    layer, choice = stage.layer, stage.choice
    head: dict[str, Any] = {}
    match stage.head:
        case "thresholds":
            head = {"thresholds": layer.thresholds}
        case "scores":
            head = {"scale": output.scale, "offset": output.offset}
        case "accumulators":
            head = {"accumulators": True}
    return MatrixVectorUnit(
        layer.signs,
        coefficients=layer.coefficients,
        pe=choice.pe,
        simd=choice.simd,
        lanes=Lanes(layer.input_bits, stage.granule or None),
        groups=layer.groups,
        weights_in=ROMStyle(choice.weights_in),
        buffer_in_registers=choice.buffer_in == "registers",
        rom_latency=choice.rom_latency,
        leaf_latency=choice.leaf_latency,
        counting=Counting.LUTS if family is None else COUNTING[family],
        **head,
    )


def _pool(stage: PoolStage, element: ShapeLike) -> PoolUnit:
    return PoolUnit(
        element,
        stage.shape,
        stage.kernel,
        lanes=stage.lanes,
        op=stage.pool.op,
        falling=stage.pool.falling,
        registers=stage.words * stage.lanes * stage.bits <= POOL_REGISTER_BITS,
    )
