# amaranth: UnusedElaboratable=no
"""When a core answers: its latency, from the stages alone, without making the hardware.

`latency` composes the stages' schedules as `xnorflow.hw.core` does. A component's schedule does not
depend on how wide its elements are, so that components of single bits stand for the real ones.

`Delays` bounds a layer's part of the latency from below by three numbers, for a search. Schedules
are monotonic and shift with their input, so that the least delays hold wherever a layer stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import takewhile
from math import gcd, prod

import numpy as np
from amaranth import unsigned
from numpy.typing import NDArray

from xnorflow.fifo_sizing import Depths, fifo_depths
from xnorflow.folding import Folding
from xnorflow.hw.argmax import argmax_latency
from xnorflow.hw.core import score_lanes
from xnorflow.hw.fifo import StreamFIFO
from xnorflow.hw.mvu import unit_schedule
from xnorflow.hw.parallel_window import ParallelWindow
from xnorflow.hw.pool import PoolUnit
from xnorflow.hw.resize import VectorResizer
from xnorflow.hw.sliding_window import SlidingWindow, WindowGeometry
from xnorflow.hw.width_converter import WidthConverter
from xnorflow.lowered import LoweredNetwork, LoweredPool, WindowKey
from xnorflow.pipeline import (
    ConverterStage,
    JoinStage,
    MagnitudeStage,
    MatrixStage,
    PoolStage,
    ResizeStage,
    ScoreStage,
    Segment,
    Stage,
    ThresholdStage,
    WindowStage,
    join_unit,
    magnitude_unit,
    pipeline,
)
from xnorflow.stage_delay import (
    channel_latency,
    folds,
    stage_delay,
    stage_unit_latency,
)

__all__ = [
    "Delays",
    "Marks",
    "arrivals",
    "delays",
    "latency",
    "latency_cycles",
    "marks",
]

BIT = unsigned(1)


def latency(stages: list[Stage], depths: Depths, paced: bool = False) -> int:
    """Return the latency of a core in cycles, see `xnorflow.hw.core.StreamingCore`.

    Parameters
    ----------
    stages : list of Stage
    depths : Depths
    paced : bool
        Whether the frame comes no faster than frames follow each other. Then no FIFO is ever full
        (`xnorflow.fifo_sizing`), and since no stage is later where the frame is earlier, this is
        the most that a frame can take in an idle core.
    """
    pace = max(stage.cycles for stage in stages)
    beats = stages[0].i_beats
    times = np.arange(beats)
    if paced:
        times = times * pace // beats
    given: list[NDArray[np.int64]] = []
    for index, (stage, depth) in enumerate(zip(stages, depths.main, strict=True)):
        times = _waited(times, depth)
        if isinstance(stage, JoinStage):
            side = given[stage.source]
            *inner, last = depths.sides[index]
            for part, words in zip(stage.side, inner, strict=True):
                side = _schedule(part, _waited(side, words))
            times = join_unit(stage).schedule(times, _waited(side, last))
        else:
            times = _schedule(stage, times)
        given.append(times)
    lanes_given = stages[-1].o_lanes
    classes = lanes_given * stages[-1].o_beats
    lanes = score_lanes(classes, lanes_given, pace)
    if lanes != lanes_given:
        times = _converter(lanes_given, lanes).schedule(times)
    return int(times[-1]) + argmax_latency(lanes, classes)


def latency_cycles(lowered: LoweredNetwork, folding: Folding) -> int:
    """Return the latency of the core that `folding` makes of `lowered`."""
    stages = pipeline(lowered, folding)
    return latency(stages, fifo_depths(stages))


def _waited(times: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """Return when beats leave a FIFO, if there is one."""
    return StreamFIFO(BIT, depth).schedule(times) if depth else times


def _schedule(stage: Stage, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
    match stage:
        case JoinStage():
            raise TypeError("a join has two inputs")
        case ConverterStage(i_lanes=i_lanes, o_lanes=o_lanes):
            return _converter(i_lanes, o_lanes).schedule(arrivals)
        case ResizeStage():
            i_beats, o_beats = stage.i_beats // stage.vectors, stage.o_beats // stage.vectors
            return VectorResizer(BIT, 1, 1, i_beats, o_beats).schedule(arrivals)
        case WindowStage():
            return _window(stage).schedule(arrivals)
        case MatrixStage():
            length, rounds = folds(stage)
            steps = max(1, stage.layer.planes // stage.choice.pe)
            return unit_schedule(arrivals, length, rounds, stage_unit_latency(stage), steps)
        case PoolStage():
            return _pool(stage).schedule(arrivals)
        case MagnitudeStage():
            return magnitude_unit(stage).schedule(arrivals)
        case ThresholdStage() | ScoreStage():
            beats = np.arange(len(arrivals))
            return np.maximum.accumulate(arrivals - beats) + beats + channel_latency(stage)


def _converter(i_lanes: int, o_lanes: int) -> WidthConverter:
    common = gcd(i_lanes, o_lanes)
    return _small_converter(i_lanes // common, o_lanes // common)


@cache
def _small_converter(i_lanes: int, o_lanes: int) -> WidthConverter:
    return WidthConverter(BIT, i_lanes, o_lanes)


@lru_cache(maxsize=1024)
def _window(stage: WindowStage) -> SlidingWindow | ParallelWindow:
    rows, columns, channels = stage.window.shape
    _, kernel, stride, dilation, padding = stage.window.key
    if stage.parallel:
        return ParallelWindow(
            BIT, (rows, columns, 1), kernel, stride=stride, dilation=dilation, padding=padding
        )
    return SlidingWindow(
        BIT,
        (rows, columns, channels // stage.lanes),
        kernel,
        lanes=1,
        stride=stride,
        dilation=dilation,
        padding=padding,
    )


@lru_cache(maxsize=1024)
def _pool(stage: PoolStage) -> PoolUnit:
    rows, columns, channels = stage.shape
    shape = (rows, columns, channels // stage.lanes)
    return PoolUnit(BIT, shape, stage.kernel, lanes=1, op="or", registers=True)


@dataclass(frozen=True)
class Marks:
    """The pixels of the frame that comes to a layer whose times matter, as indices.

    Attributes
    ----------
    first : int
        The one that the layer's first output waits for.
    last : int
        The last one that the scores depend on.
    """

    first: int
    last: int


@dataclass(frozen=True)
class Delays:
    """The least delays of a part of the pipeline, in cycles, between marks.

    Attributes
    ----------
    first : int
        From the first mark of what comes in to the first one of what goes out.
    last : int
        From the last mark to the last one.
    work : int
        From the first mark to the last one.
    """

    first: int
    last: int
    work: int


def marks(parts: list[Segment]) -> list[Marks]:
    """Return the marks of the frame before each layer, and behind the last one."""
    end = _pixels(parts[-1]) - 1
    result = [Marks(end, end)]
    for before, part in zip([None, *parts[:-1]][::-1], reversed(parts), strict=True):
        window, last = part.layer.window, _source(part, result[0].last)
        if window is not None:
            needs = _needs(window.key)
            result.insert(0, Marks(int(needs[0]), int(needs[last])))
        else:  # all pixels at once
            end = 0 if before is None else _pixels(before) - 1
            result.insert(0, Marks(end, end))
    return result


def _pixels(part: Segment) -> int:
    """Return the pixels that a layer and its tail give."""
    return prod((part.tail[-1] if part.tail else part.layer).o_shape[:-1])


def _source(part: Segment, pixel: int) -> int:
    """Return the pixel of a layer that a pixel behind its pools waits for."""
    for stage in reversed(part.tail):
        if isinstance(stage, LoweredPool):
            pixel = int(_needs(stage.window.key)[pixel])
    return pixel


def arrivals(stages: list[Stage], pixels: int, at: Marks) -> tuple[list[Stage], int, int]:
    """Return the stages behind those that only bring a frame into form, and when its marks come.

    Parameters
    ----------
    stages : list of Stage
        Of the first layer; the frame comes a beat a cycle.
    pixels : int
        Of the frame.
    at : Marks
        Of the frame.
    """
    front = list(takewhile(lambda stage: isinstance(stage, ConverterStage | ResizeStage), stages))
    times = np.arange(stages[0].i_beats)
    for stage in front:
        times = _schedule(stage, times)
    beats = len(times) // pixels
    first, last = (int(times[(pixel + 1) * beats - 1]) for pixel in (at.first, at.last))
    return stages[len(front) :], first, last


def delays(part: Segment, stages: list[Stage], i_marks: Marks, o_marks: Marks) -> Delays:
    """Return the least delays of a layer and what follows it.

    Parameters
    ----------
    part : Segment
    stages : list of Stage
        The hardware of `part`.
    i_marks, o_marks : Marks
        Of what comes in and goes out.
    """
    layer = part.layer
    (unit,) = (stage for stage in stages if isinstance(stage, MatrixStage))
    index = stages.index(unit)
    before, behind = stages[: index + 1], stages[index + 1 :]
    # A pixel's way, from the last beat that it needs to its own last one.
    way = sum(map(stage_delay, before))
    if part.kept is not None:
        # The last class that is kept may come some rounds before the last neuron.
        beats = layer.mh // unit.o_lanes
        rounds = beats - -(-part.kept // unit.o_lanes)
        way -= rounds * (unit.choice.depth(layer) // beats)
        behind = [stage for stage in behind if isinstance(stage, PoolStage | ScoreStage)]
    way += sum(map(stage_delay, behind))
    # Pixels leave the unit one behind the other.
    service = max(_service(stage, layer.positions) for stage in before)
    first, last = _source(part, o_marks.first), _source(part, o_marks.last)
    waiting = 1
    if layer.window is not None:
        waiting = last + 1 - int(np.searchsorted(_needs(layer.window.key), i_marks.last))
    return Delays(way + first * service, way + (waiting - 1) * service, way + last * service)


@lru_cache(maxsize=256)
def _needs(key: WindowKey) -> NDArray[np.int64]:
    """Return the last pixel that each window waits for."""
    return WindowGeometry(*key).required() - 1


def _service(stage: Stage, positions: int) -> int:
    """Return the cycles that each of a layer's pixels keeps a stage busy."""
    match stage:
        case MatrixStage():
            return stage.cycles // positions
        case WindowStage(parallel=False):
            return stage.o_beats // positions
        case _:
            return 0
