"""FIFO depths from the stages' known schedules: no simulation of hardware, no search.

Stages differ in *when* within a frame they take and give pixels: a sliding window starts only when
its first rows have come, a pooling layer gives nothing for a row and then a row at once. A FIFO
before a stage must hold what comes early. How much that is follows from a run of the pipeline on
paper, pixel by pixel, in which the source is paced at the initiation interval and every FIFO is
as large as it likes: the most that ever waits is the depth.

The depths are enough for full throughput. In the paper run no stage ever finds its output
blocked, and no FIFO holds more than its depth; so the same times are a legal run of the pipeline
with these finite FIFOs, and since every stage starts as soon as it can, a real run is never later
(such pipelines are monotonic: Baccelli et al., *Synchronization and Linearity*, 1992). The same
argument excludes deadlock. The FIFOs at the end of a shortcut are of that kind: one of them holds
what the layers of the other branch have not given yet. The times on paper round up where they leave
out details, and each depth that is not zero gets `SLACK` beats on top.

What the registers of a unit add to its times delays all that follows alike, so that it is left out
but where branches meet: there the difference between both of them counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from xnorflow.hw.sliding_window import WindowGeometry
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
)
from xnorflow.stage_delay import stage_delay

__all__ = ["Depths", "Fifo", "fifo_depths", "fifos"]

#: Frames of the paper run: the first ones fill the pipeline.
FRAMES = 4

#: Beats that a FIFO gets on top of what the paper run found.
SLACK = 2


@dataclass(frozen=True)
class Fifo:
    """A FIFO before a stage.

    Attributes
    ----------
    stage : int
        Index of the stage in the pipeline.
    words : int
        Beats that it holds.
    width : int
        Bits of a beat.
    place : int or None
        On a shortcut to that stage, the index of the stage behind the FIFO; None for the main way.
    """

    stage: int
    words: int
    width: int
    place: int | None = None


@dataclass(frozen=True)
class Depths:
    """FIFO depths, in beats of what comes; 0 for none.

    Attributes
    ----------
    main : list of int
        Before each stage of the pipeline.
    sides : dict of int to list of int
        For each join, before each stage of its shortcut and before the join itself.
    """

    main: list[int]
    sides: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Node:
    """A window with its layer, or another stage, as the paper run sees it.

    Attributes
    ----------
    stage, last : int
        Indices of its first and last stage in the pipeline; a FIFO stands before the first one.
    pixels : int
        Input pixels of a frame.
    needs : ndarray of int, shape (outputs,)
        The last input pixel that each output needs, counted from 0.
    frees : ndarray of int, shape (outputs,)
        Input pixels whose places are free once the output is under way.
    capacity : int
        Input pixels that fit inside.
    accept : int
        Cycles that it takes to take a pixel.
    service : int
        Cycles that an output keeps it busy.
    read : int
        Cycles of those in which it reads its input.
    beats : int
        Beats of an input pixel.
    moves : bool
        Whether its input stands still while an output waits (a parallel window).
    """

    stage: int
    last: int
    pixels: int
    needs: NDArray[np.int64]
    frees: NDArray[np.int64]
    capacity: int
    accept: int
    service: int
    read: int
    beats: int
    moves: bool = False


def fifo_depths(stages: list[Stage]) -> Depths:
    """Return the depths of the FIFOs before the stages.

    Parameters
    ----------
    stages : list of Stage
        See `xnorflow.pipeline.pipeline`.
    """
    pace = max(stage.cycles for stage in stages)
    nodes = _nodes(stages)
    depths = Depths([0] * len(stages))
    first = before = nodes[0]
    frame = np.arange(FRAMES)[:, None] * pace
    arrivals = (frame + np.arange(first.pixels) * pace // first.pixels).reshape(-1)
    branches = any(isinstance(stage, JoinStage) for stage in stages)
    lag = 0
    times: dict[int, tuple[_Node, NDArray[np.int64], int]] = {}
    for node in nodes:
        stage = stages[node.last]
        if isinstance(stage, JoinStage):
            source, begins, lag_before = times[stage.source]
            inner, side, lag_of_side = _shortcut(stage, source, begins)
            # In times of the main way, to which its own converter belongs.
            before_join = sum(map(stage_delay, stages[node.stage : node.last]))
            side = side + lag_before + lag_of_side - lag - before_join
            taken = given = _both(arrivals, side, node.service)
            depths.sides[node.last] = [*inner, _side_depth(stage, side, taken)]
        else:
            taken, given = _run(node, arrivals)
        if node is not first:
            depths.main[node.stage] = _depth(before, node, arrivals, taken)
        lag += _lag(stages, node) if branches else 0
        times[node.last] = node, given, lag
        arrivals, before = given, node
    return depths


def _shortcut(
    stage: JoinStage, before: _Node, arrivals: NDArray[np.int64]
) -> tuple[list[int], NDArray[np.int64], int]:
    """Return the depths before a shortcut's stages, when pixels come to its end, and their lag."""
    depths = [0] * len(stage.side)
    lag, done = 0, 0
    for node in _nodes(stage.side, len(before.needs)):
        taken, given = _run(node, arrivals)
        depths[node.stage] = _depth(before, node, arrivals, taken)
        arrivals, before = given, node
        lag, done = lag + _lag(stage.side, node), node.last + 1
    return depths, arrivals, lag + sum(map(stage_delay, stage.side[done:]))


def _lag(stages: Sequence[Stage], node: _Node) -> int:
    """Return how many cycles later than on paper a pixel leaves a node if it waits for nothing."""
    on_paper = node.service
    if not isinstance(stages[node.last], JoinStage):
        on_paper += node.accept
    return sum(map(stage_delay, stages[node.stage : node.last + 1])) - on_paper


def _both(main: NDArray[np.int64], side: NDArray[np.int64], service: int) -> NDArray[np.int64]:
    """Return when pixels of two streams that are taken together are done."""
    ready, turns = np.maximum(main, side), np.arange(len(main)) * service
    return np.maximum.accumulate(ready - turns) + turns + service


def _side_depth(stage: JoinStage, arrivals: NDArray[np.int64], taken: NDArray[np.int64]) -> int:
    """Return the beats that wait at the end of a shortcut at most."""
    beats = stage.join.side_channels // stage.side_lanes
    return int(_waiting(arrivals, taken).max()) * beats + SLACK


def fifos(stages: list[Stage]) -> list[Fifo]:
    """Return the FIFOs of a pipeline."""
    depths = fifo_depths(stages)
    result = [
        Fifo(index, words, stages[index].i_bits) for index, words in enumerate(depths.main) if words
    ]
    for index, sides in depths.sides.items():
        join = stages[index]
        assert isinstance(join, JoinStage)
        widths = [*(stage.i_bits for stage in join.side), join.side_bits]
        result += [
            Fifo(index, words, width, place)
            for place, (words, width) in enumerate(zip(sides, widths, strict=True))
            if words
        ]
    return result


def _depth(
    before: _Node, node: _Node, arrivals: NDArray[np.int64], taken: NDArray[np.int64]
) -> int:
    """Return the beats that wait between two nodes at most."""
    waiting = _waiting(arrivals, taken)
    most = int(waiting[taken > arrivals + node.accept].max(initial=0))
    # Elsewhere than behind a parallel window, which must not be held up, one pixel may always be
    # under way in the registers of the stages around.
    kept = most if before.moves else most - 1
    return kept * node.beats + SLACK if kept > 0 else 0


def _waiting(arrivals: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many pixels wait when each is taken: all that arrived until then."""
    return np.searchsorted(arrivals, taken, side="right") - np.arange(len(taken))


def _run(node: _Node, arrivals: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return when each input pixel is taken in whole, and when each output is given."""
    outputs, frames = len(node.needs), len(arrivals) // node.pixels
    base = (np.arange(frames) * node.pixels)[:, None]
    needs = (base + node.needs).reshape(-1).tolist()
    frees = (base + node.frees).reshape(-1).tolist()
    came = arrivals.tolist()
    taken: list[int] = []
    given: list[int] = []
    read_until = busy_until = now = freed = 0
    free_at: list[tuple[int, int]] = []  # (pixels freed, when), for each output
    index = 0
    for output in range(outputs * frames):
        while len(taken) <= needs[output]:
            pixel = len(taken)
            while pixel >= freed + node.capacity:
                freed, when = free_at[index]
                now = max(now, when)
                index += 1
            now = max(now, came[pixel]) + node.accept
            taken.append(now)
        start = max(read_until, taken[needs[output]] if needs[output] >= 0 else 0)
        # The vector after the next waits for room in the unit's buffer of two vectors.
        if output > 1:
            start = max(start, given[output - 2])
        read_until = start + node.read
        busy_until = max(busy_until + node.service, start + node.service)
        given.append(busy_until)
        free_at.append((frees[output], read_until))
    while len(taken) < len(came):
        pixel = len(taken)
        while pixel >= freed + node.capacity and index < len(free_at):
            freed, when = free_at[index]
            now = max(now, when)
            index += 1
        now = max(now, came[pixel]) + node.accept
        taken.append(now)
    return np.array(taken), np.array(given)


def _nodes(stages: Sequence[Stage], given: int = 1) -> list[_Node]:
    """Join windows and converters with the layer that they feed.

    `given` are the pixels that come, for a first stage that does not know them itself.
    """
    nodes: list[_Node] = []
    start = 0
    for index, stage in enumerate(stages):
        parts = stages[start : index + 1]
        pixels = len(nodes[-1].needs) if nodes else given
        match stage:
            case WindowStage() if stage.parallel:
                nodes.append(_parallel_node(start, parts, stage))
            case ConverterStage() | ResizeStage() | WindowStage():
                continue
            case MatrixStage():
                nodes.append(_matrix_node(start, parts, stage, pixels))
            case PoolStage():
                nodes.append(_pool_node(start, parts, stage))
            case ThresholdStage() | ScoreStage() | MagnitudeStage():
                nodes.append(_pixel_node(start, parts, pixels, stage.cycles // pixels))
            case JoinStage():  # whose cycles are those of its shortcut too
                nodes.append(_pixel_node(start, parts, pixels, stage.o_beats // pixels))
        start = index + 1
    return nodes


def _window(parts: Sequence[Stage]) -> WindowStage | None:
    return next((part for part in parts if isinstance(part, WindowStage)), None)


def _entry(parts: Sequence[Stage]) -> tuple[int, int]:
    """Return the cycles in which, and the beats as which, a frame comes in."""
    first = parts[0]
    leading = takewhile(lambda part: isinstance(part, ConverterStage | ResizeStage), parts)
    slowest = max((part.cycles for part in leading), default=first.i_beats)
    return slowest, first.i_beats


def _matrix_node(start: int, parts: Sequence[Stage], stage: MatrixStage, pixels: int) -> _Node:
    """Return the node of a layer; `pixels` is what the node before gives a frame."""
    layer = stage.layer
    slide = _window(parts)
    if slide is not None:
        return _window_node(start, parts, slide, stage.cycles // layer.positions)
    if layer.window is not None:
        return _pixel_node(start, parts, layer.positions, stage.cycles // layer.positions)
    # A dense layer takes the whole frame as one vector, and keeps two of them. It works while the
    # vector comes, so that after the last pixel only the later neuron folds remain.
    cycles, beats = _entry(parts)
    last = stage.cycles - stage.i_beats + 1
    return _Node(
        stage=start,
        last=start + len(parts) - 1,
        pixels=pixels,
        needs=np.array([pixels - 1]),
        frees=np.array([pixels]),
        capacity=2 * pixels,
        accept=max(1, cycles // pixels),
        service=last,
        read=last,
        beats=max(1, beats // pixels),
    )


def _pixel_node(start: int, parts: Sequence[Stage], pixels: int, service: int) -> _Node:
    """Return the node of a stage that works pixel by pixel."""
    cycles, beats = _entry(parts)
    line = np.arange(pixels)
    return _Node(
        stage=start,
        last=start + len(parts) - 1,
        pixels=pixels,
        needs=line,
        frees=line + 1,
        capacity=2,
        accept=max(1, cycles // pixels),
        service=service,
        read=service,
        beats=max(1, beats // pixels),
    )


def _parallel_node(start: int, parts: Sequence[Stage], slide: WindowStage) -> _Node:
    """Return the node of a parallel window, which keeps no more than it shows."""
    cycles, beats = _entry(parts)
    geometry = slide.geometry
    pixels = slide.window.shape[0] * slide.window.shape[1]
    needs = np.maximum.accumulate(geometry.needs())
    return _Node(
        stage=start,
        last=start + len(parts) - 1,
        pixels=pixels,
        needs=needs,
        frees=needs + 1,
        capacity=2 * pixels,
        accept=max(1, cycles // pixels),
        service=1,
        read=1,
        beats=max(1, beats // pixels),
        moves=True,
    )


def _window_node(start: int, parts: Sequence[Stage], slide: WindowStage, service: int) -> _Node:
    cycles, beats = _entry(parts)
    window = slide.window
    geometry = slide.geometry
    pixels = window.shape[0] * window.shape[1]
    read = slide.o_beats // window.positions
    return _Node(
        stage=start,
        last=start + len(parts) - 1,
        pixels=pixels,
        needs=geometry.needs(),
        frees=geometry.frees(),
        capacity=slide.rows * window.shape[1],
        accept=max(1, cycles // pixels),
        service=max(service, read),
        read=read,
        beats=max(1, beats // pixels),
    )


def _pool_node(start: int, parts: Sequence[Stage], stage: PoolStage) -> _Node:
    slide = _window(parts)
    if slide is not None:
        return _window_node(start, parts, slide, slide.o_beats // slide.window.positions)
    window = stage.pool.window
    geometry = WindowGeometry(window.shape, window.kernel, window.stride)
    pixels = window.shape[0] * window.shape[1]
    fold = stage.cycles // pixels
    return _Node(
        stage=start,
        last=start + len(parts) - 1,
        pixels=pixels,
        needs=geometry.needs(),
        frees=geometry.frees(),
        capacity=2 * pixels,
        accept=fold,
        service=fold,
        read=0,
        beats=fold,
    )
