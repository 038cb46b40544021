# amaranth: UnusedElaboratable=no
"""The streaming core: every stage of a network as hardware, one behind the other."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from amaranth import Module, signed
from amaranth.hdl import Elaboratable, Shape, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw import layouts
from xnorflow.hw.argmax import ArgMax
from xnorflow.hw.gain import GainUnit
from xnorflow.hw.join import JoinUnit, StreamFork
from xnorflow.hw.width_converter import WidthConverter

__all__ = ["CoreStage", "Shortcut", "StreamUnit", "StreamingCore", "score_lanes"]


class StreamUnit(Protocol):
    """A component between two streams that knows its timing."""

    i: stream.Interface
    o: stream.Interface

    @property
    def schedule(self) -> Callable[..., NDArray[np.int64]]:
        """Return the cycles at which beats leave, given those at which they arrive.

        A `JoinUnit` or `GainUnit` takes the arrivals of both its streams.
        """
        ...


def score_lanes(classes: int, given: int, pace: int) -> int:
    """Return in how many lanes the scores of `classes` pass, of which `given` come at once.

    The fewest that take no more than `pace` cycles a frame: comparators for all scores at once cost
    far more than passing the scores one by one.
    """
    return next(
        lanes for lanes in range(1, given + 1) if given % lanes == 0 and classes // lanes <= pace
    )


@dataclass(frozen=True, eq=False)
class CoreStage:
    """A component of the core.

    Attributes
    ----------
    name : str
    unit : StreamUnit
    i_beats, o_beats : int
        Beats of a frame that it takes and gives.
    cycles : int
        Cycles that a frame keeps it busy.
    shortcut : Shortcut or None
        What comes to a `JoinUnit` or `GainUnit` besides.
    """

    name: str
    unit: StreamUnit
    i_beats: int
    o_beats: int
    cycles: int
    shortcut: "Shortcut | None" = None


@dataclass(frozen=True, eq=False)
class Shortcut:
    """A way past some stages of a core.

    Attributes
    ----------
    source : int
        Index of the stage whose output goes this way too.
    stages : tuple of CoreStage
        What stands on the way, in data-flow order.
    """

    source: int
    stages: tuple[CoreStage, ...]


class StreamingCore(wiring.Component):
    """A chain of stages, with shortcuts past some of them and an arg-max behind all.

    All stages work at once, each on a frame of its own; the slowest one sets the pace. Frames
    follow each other without an idle cycle.

    Parameters
    ----------
    stages : sequence of CoreStage
        In data-flow order; each takes the payload that the one before gives. The last one gives
        scores.

    Attributes
    ----------
    stages : tuple of CoreStage
        Those given and, where scores pass in fewer lanes, a width converter.
    placed : list of (str, CoreStage)
        All stages, those of a shortcut before their join, with the names of their modules.
    i_lanes : int
        Bits of an input beat.
    o_lanes, classes : int
        Scores in an output beat and in a frame.
    i_beats, o_beats : int
        Beats of a frame at the input and the output.
    cycles_per_frame : int
        The initiation interval (II): cycles between frames in steady state.
    slowest : CoreStage
        A stage that takes that long.
    latency : int
        Cycles from the one in which an idle core takes a frame's first beat to the one in which it
        gives the frame's last beat, with a source always valid and a sink always ready.

    Members
    -------
    i : In(stream.Signature(layouts.bits(i_lanes)))
        Elements of several bits come with their least significant bit in the lowest lane.
    o : Out(stream.Signature(layouts.results(o_lanes, width, classes)))

    Raises
    ------
    ValueError
        If a stage does not take what the one before gives.
    """

    def __init__(self, stages: Sequence[CoreStage]):
        for before, after in pairwise(stages):
            _check(before, after, after.unit.i, after.i_beats)
        for number, stage in enumerate(stages):
            if stage.shortcut is None:
                continue
            unit = stage.unit
            behind = 0 <= stage.shortcut.source < number
            if not isinstance(unit, JoinUnit | GainUnit) or not behind:
                raise ValueError(
                    f"stage {stage.name} has a shortcut, so it must be a join behind its source"
                )
            way = [stages[stage.shortcut.source], *stage.shortcut.stages]
            for before, after in pairwise(way):
                _check(before, after, after.unit.i, after.i_beats)
            beats = stage.i_beats // unit.beats[0] * unit.beats[1]
            _check(way[-1], stage, unit.side, beats)
        scores = stages[-1].unit.o.payload.shape()
        width, given = scores.elem_shape.width, scores.length
        self.classes = stages[-1].o_beats * given
        pace = max(stage.cycles for stage in stages)
        lanes = score_lanes(self.classes, given, pace)
        self.o_lanes, self.o_beats = lanes, self.classes // lanes
        if lanes != given:
            serializer = WidthConverter(signed(width), given, lanes)
            taken = stages[-1].o_beats
            stages = [
                *stages,
                CoreStage("serializer", serializer, taken, self.o_beats, self.o_beats),
            ]
        self._argmax = ArgMax(lanes, width, self.classes)
        self.stages = tuple(stages)
        self.slowest = max((stage for _, stage in self.placed), key=lambda stage: stage.cycles)
        self.cycles_per_frame = self.slowest.cycles

        first = stages[0]
        self.i_lanes = Shape.cast(first.unit.i.payload.shape()).width
        self.i_beats = first.i_beats
        self.latency = int(self._schedule()[-1]) + self._argmax.latency
        super().__init__(
            {
                "i": In(stream.Signature(layouts.bits(self.i_lanes))),
                "o": Out(stream.Signature(layouts.results(lanes, width, self.classes))),
            }
        )

    @property
    def placed(self) -> list[tuple[str, CoreStage]]:
        result = []
        for number, stage in enumerate(self.stages):
            inner = () if stage.shortcut is None else stage.shortcut.stages
            for place, part in enumerate(inner):
                result.append((f"side_{number}_{place}_{_identifier(part.name)}", part))
            result.append((f"stage_{number}_{_identifier(stage.name)}", stage))
        return result

    def _schedule(self) -> NDArray[np.int64]:
        """Return when the beats of a first frame leave the last stage."""
        times = np.arange(self.i_beats)
        given: list[NDArray[np.int64]] = []
        for stage in self.stages:
            others = []
            if stage.shortcut is not None:
                side = given[stage.shortcut.source]
                for part in stage.shortcut.stages:
                    side = part.unit.schedule(side)
                others.append(side)
            times = stage.unit.schedule(times, *others)
            given.append(times)
        return times

    def elaborate(self, platform: object) -> Module:
        m = Module()
        upstream: stream.Interface = wiring.flipped(self.i)
        joins = [(n, s.shortcut) for n, s in enumerate(self.stages) if s.shortcut is not None]
        sides: dict[int, stream.Interface] = {}
        names = {stage: name for name, stage in self.placed}
        for number, stage in enumerate(self.stages):
            _place(m, names[stage], stage)
            _connect(m, upstream, stage.unit.i)
            if isinstance(stage.unit, JoinUnit | GainUnit):
                _connect(m, sides[number], stage.unit.side)
            upstream = stage.unit.o
            for join, shortcut in joins:
                if shortcut.source != number:
                    continue
                m.submodules[f"fork_{number}_{join}"] = fork = StreamFork(upstream.payload.shape())
                _connect(m, upstream, fork.i)
                upstream, side = fork.o, fork.side
                for part in shortcut.stages:
                    _place(m, names[part], part)
                    _connect(m, side, part.unit.i)
                    side = part.unit.o
                sides[join] = side
        m.submodules.argmax = self._argmax
        _connect(m, upstream, self._argmax.i)
        wiring.connect(m, self._argmax.o, wiring.flipped(self.o))
        return m


def _identifier(name: str) -> str:
    """Return a name without what RTL does not like; numbers before it keep names apart."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def _place(m: Module, name: str, stage: CoreStage) -> None:
    assert isinstance(stage.unit, Elaboratable)
    m.submodules[name] = stage.unit


def _check(before: CoreStage, after: CoreStage, taken: stream.Interface, beats: int) -> None:
    """Refuse a stage that takes other beats than the one before gives."""
    gives, takes = (Shape.cast(s.payload.shape()).width for s in (before.unit.o, taken))
    if (before.o_beats, gives) != (beats, takes):
        raise ValueError(
            f"stage {after.name} must take the {before.o_beats} beats of {gives} bits that stage "
            f"{before.name} gives, not {beats} of {takes}"
        )


def _connect(m: Module, source: stream.Interface, sink: stream.Interface) -> None:
    """Connect streams whose payloads have one width; their layouts may group bits otherwise."""
    m.d.comb += [
        Value.cast(sink.payload).eq(Value.cast(source.payload)),
        sink.valid.eq(source.valid),
        source.ready.eq(sink.ready),
    ]
