# amaranth: UnusedElaboratable=no
"""The pipeline: the stages of the hardware, in order, that a network and a folding make.

A list of plain numbers: cost, timing, assembly and reports all read this one list, so that none
of them has its own idea of what is built. Lanes are the elements (channels) that a stream carries
in a beat.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from math import gcd, prod

import numpy as np
from amaranth.hdl import ShapeLike

from xnorflow.folding import Folding, LayerFolding, widths
from xnorflow.hw.gain import GainUnit
from xnorflow.hw.join import JoinUnit, narrowest
from xnorflow.hw.magnitude import MagnitudeUnit
from xnorflow.hw.parallel_window import shifts
from xnorflow.hw.sliding_window import WindowGeometry, ring_rows
from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
    LoweredMagnitude,
    LoweredNetwork,
    LoweredOutput,
    LoweredPool,
    LoweredThreshold,
    Window,
    WindowKey,
)
from xnorflow.padding import Tail, blocks, cut, own_widths, pad_block

__all__ = [
    "ConverterStage",
    "JoinStage",
    "MagnitudeStage",
    "MatrixStage",
    "PoolStage",
    "ResizeStage",
    "ScoreStage",
    "Segment",
    "Stage",
    "ThresholdStage",
    "WindowStage",
    "cycles_per_frame",
    "join_unit",
    "linked",
    "magnitude_unit",
    "make_join",
    "make_magnitude",
    "owned_pipeline",
    "pipeline",
    "segment",
    "segments",
    "side_segments",
]


#: Partial results of a pool that are kept in flip-flops rather than in a memory, bits.
POOL_REGISTER_BITS = 128

#: Longest pixel of a frame that comes in one beat where channels are added to it, elements.
WHOLE_PIXEL = 16


@dataclass(frozen=True)
class ConverterStage:
    """A width converter.

    Attributes
    ----------
    name : str
        The layer that it feeds, and what it is.
    bits : int
        Bits of an element.
    i_lanes, o_lanes : int
    elements : int
        Elements of a frame.
    granule : int
        Elements that share a flag for true zeros; 0 where there are none.
    """

    name: str
    bits: int
    i_lanes: int
    o_lanes: int
    elements: int
    granule: int = 0

    @property
    def i_bits(self) -> int:
        """Bits of a beat that comes in."""
        return self.bits * self.i_lanes

    @property
    def cycles(self) -> int:
        """Cycles a frame: through the greatest common divisor of both lane counts."""
        return self.elements // gcd(self.i_lanes, self.o_lanes)

    @property
    def i_beats(self) -> int:
        """Beats of a frame that come in."""
        return self.elements // self.i_lanes

    @property
    def o_beats(self) -> int:
        """Beats of a frame that go out."""
        return self.elements // self.o_lanes


@dataclass(frozen=True)
class WindowStage:
    """A sliding window, folded (`lanes` of a tap a cycle) or parallel (all taps in a cycle).

    Attributes
    ----------
    name : str
    window : Window
    groups : int
    bits : int
        Bits of an element.
    lanes : int
        Elements that come in and, in the folded form, go out a cycle.
    parallel : bool
    granule : int
        Elements that share a flag for true zeros; 0 where padding has none.
    """

    name: str
    window: Window
    groups: int
    bits: int
    lanes: int
    parallel: bool
    granule: int

    @property
    def i_bits(self) -> int:
        """Bits of a beat that comes in."""
        return self.bits * self.lanes

    @property
    def rows(self) -> int:
        """Rows of the image that are kept."""
        if self.parallel:
            return self.window.kernel[0]
        return _rows(self.window.key, self.window.shape[2] // self.lanes)

    @property
    def geometry(self) -> WindowGeometry:
        """Places of windows and taps."""
        return WindowGeometry(*self.window.key)

    @property
    def taps(self) -> int:
        """Taps of a window."""
        return prod(self.window.kernel)

    @property
    def o_lanes(self) -> int:
        """Elements that go out a cycle."""
        return self.taps * self.window.shape[2] if self.parallel else self.lanes

    @property
    def cycles(self) -> int:
        """Cycles a frame, see `xnorflow.hw.sliding_window` and `xnorflow.hw.parallel_window`."""
        if self.parallel:
            return shifts(self.geometry)
        return max(self.i_beats, self.o_beats)

    @property
    def i_beats(self) -> int:
        """Beats of a frame that come in."""
        return prod(self.window.shape) // self.lanes

    @property
    def o_beats(self) -> int:
        """Beats of a frame that go out."""
        return self.window.positions * self.taps * self.window.shape[2] // self.o_lanes


@dataclass(frozen=True)
class ResizeStage:
    """What adds channels to the frame's pixels, or takes classes away that are none.

    Attributes
    ----------
    name : str
    bits : int
        Bits of an element.
    i_lanes, o_lanes : int
        Equal, or a whole vector each.
    i_elements, o_elements : int
        Elements of a vector.
    vectors : int
        Vectors of a frame.
    last : bool
        Whether it gives the scores.
    """

    name: str
    bits: int
    i_lanes: int
    o_lanes: int
    i_elements: int
    o_elements: int
    vectors: int
    last: bool

    @property
    def i_bits(self) -> int:
        """Bits of a beat that comes in."""
        return self.bits * self.i_lanes

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        return max(self.i_beats, self.o_beats)

    @property
    def i_beats(self) -> int:
        """Beats of a frame that come in."""
        return self.vectors * self.i_elements // self.i_lanes

    @property
    def o_beats(self) -> int:
        """Beats of a frame that go out."""
        return self.vectors * self.o_elements // self.o_lanes


@dataclass(frozen=True)
class MatrixStage:
    """A matrix-vector unit.

    Attributes
    ----------
    layer : LoweredLayer
    choice : LayerFolding
    head : str
        ``thresholds``, ``scores`` or ``accumulators``.
    granule : int
        Lanes that share a flag for true zeros; 0 where padding has none.
    cut : bool
        Whether classes that are none are taken away behind it.
    """

    layer: LoweredLayer
    choice: LayerFolding
    head: str
    granule: int = 0
    cut: bool = False

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def is_plain(self) -> bool:
        """Whether nothing but one threshold a neuron stands behind the counts."""
        layer = self.layer
        return self.head == "thresholds" and layer.coefficients is None and layer.o_levels == 1

    @property
    def i_bits(self) -> int:
        """Bits of a beat that comes in, without flags for true zeros."""
        return self.layer.input_bits * self.choice.simd

    @property
    def o_lanes(self) -> int:
        """Elements that go out a cycle."""
        return self.choice.o_lanes(self.layer)

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        return self.choice.cycles(self.layer)

    @property
    def i_beats(self) -> int:
        """Beats of a frame that come in."""
        return self.layer.positions * self.layer.groups * self.layer.mw // self.choice.simd

    @property
    def o_beats(self) -> int:
        """Beats of a frame that go out."""
        return self.layer.positions * self.layer.mh // self.o_lanes


class _BeatByBeat(ABC):
    """A stage that takes a beat a cycle and gives beats of as many lanes."""

    lanes: int

    @property
    @abstractmethod
    def i_beats(self) -> int:
        """Beats of a frame that come in."""

    @property
    def o_beats(self) -> int:
        """Beats of a frame that go out."""
        return self.i_beats

    @property
    def o_lanes(self) -> int:
        """Elements that go out a cycle."""
        return self.lanes

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        return self.i_beats


@dataclass(frozen=True)
class PoolStage(_BeatByBeat):
    """A pool over windows that tile the image, or over the taps of windows that come in.

    Attributes
    ----------
    pool : LoweredPool
    shape : tuple of int
        (H, W, C) as the unit sees it; with a sliding window before it a "frame" is one window.
    kernel : tuple of int
    frames : int
        Such frames in a frame of the network.
    lanes : int
    """

    pool: LoweredPool
    shape: tuple[int, int, int]
    kernel: tuple[int, int]
    frames: int
    lanes: int

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.pool.name

    @property
    def i_bits(self) -> int:
        """Bits of a beat that comes in."""
        return _bits(self.pool.low, self.pool.high) * self.lanes

    @property
    def words(self) -> int:
        """Partial results that are kept, `lanes` elements each."""
        folds = self.shape[2] // self.lanes
        return self.shape[1] // self.kernel[1] * folds if self.kernel[0] > 1 else folds

    @property
    def bits(self) -> int:
        """Bits of an element that goes out."""
        return _bits(*self.pool.o_range)

    @property
    def i_beats(self) -> int:
        """Beats of a frame that come in."""
        return self.frames * prod(self.shape) // self.lanes

    @property
    def o_beats(self) -> int:
        """Beats of a frame that go out."""
        return prod(self.pool.o_shape) // self.lanes


@dataclass(frozen=True)
class ThresholdStage(_BeatByBeat):
    """Thresholds on integers.

    Attributes
    ----------
    stage : LoweredThreshold
    lanes : int
    low, high : int
        Range of an integer that comes in.
    """

    stage: LoweredThreshold
    lanes: int
    low: int
    high: int

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def i_bits(self) -> int:
        """Bits of a beat that comes in."""
        return _bits(self.low, self.high) * self.lanes

    @property
    def i_beats(self) -> int:
        """Beats of a frame that come in."""
        return prod(self.stage.shape) // self.lanes


@dataclass(frozen=True)
class MagnitudeStage(_BeatByBeat):
    """Sums of the magnitudes of pixels.

    Attributes
    ----------
    stage : LoweredMagnitude
    lanes : int
        That come in; a sum goes out by itself.
    """

    stage: LoweredMagnitude
    lanes: int

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def i_bits(self) -> int:
        """Bits of a beat that comes in."""
        return _bits(self.stage.low, self.stage.high) * self.lanes

    @property
    def i_beats(self) -> int:
        """Beats of a frame that come in."""
        return prod(self.stage.shape) // self.lanes

    @property
    def o_beats(self) -> int:
        """Beats of a frame that go out."""
        return prod(self.stage.o_shape)

    @property
    def o_lanes(self) -> int:
        """Elements that go out a cycle."""
        return 1


@dataclass(frozen=True)
class ScoreStage(_BeatByBeat):
    """The last affine, where sums come before it.

    Attributes
    ----------
    classes, lanes : int
    low, high : int
        Range of a sum.
    cut : bool
        Whether classes that are none are taken away behind it.
    """

    classes: int
    lanes: int
    low: int
    high: int
    name: str = "scores"
    cut: bool = False

    @property
    def i_bits(self) -> int:
        """Bits of a beat that comes in."""
        return _bits(self.low, self.high) * self.lanes

    @property
    def i_beats(self) -> int:
        """Beats of a frame that come in."""
        return self.classes // self.lanes


@dataclass(frozen=True)
class JoinStage:
    """The end of a shortcut.

    Attributes
    ----------
    join : LoweredJoin
    lanes : int
        Elements of a beat of both streams, and of what goes out; gains of pixels come one by one.
    source : int
        Index in the pipeline of the stage where the shortcut begins; -1 where that is not known.
    side : tuple of Stage
        What stands on the shortcut's way, converters included.
    owners : tuple of Segment or None
        For each of these the layer that it belongs to; None before the first layer, and for the
        converter before the join.
    """

    join: LoweredJoin
    lanes: int
    source: int = -1
    side: tuple[Stage, ...] = ()
    owners: tuple[Segment | None, ...] = ()

    @property
    def name(self) -> str:
        """The join's name."""
        return self.join.name

    @property
    def side_lanes(self) -> int:
        """Elements of a beat of the shortcut."""
        return 1 if self.join.how == "multiply" else self.lanes

    @property
    def side_bits(self) -> int:
        """Bits of a beat of the shortcut."""
        return _bits(self.join.low[1], self.join.high[1]) * self.side_lanes

    @property
    def i_bits(self) -> int:
        """Bits of a beat of the main stream."""
        return _bits(self.join.low[0], self.join.high[0]) * self.lanes

    @property
    def o_lanes(self) -> int:
        """Elements that go out a cycle."""
        return self.lanes

    @property
    def i_beats(self) -> int:
        """Beats of a frame of the main stream."""
        return prod(self.join.shape) // self.lanes

    @property
    def o_beats(self) -> int:
        """Beats of a frame that go out."""
        return prod(self.join.o_shape) // self.lanes

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        side = self.side
        if self.join.how == "multiply" and not side:
            # No folding changes what stands behind the sum of magnitudes, so it is known already.
            side = tuple(_boxes(self.join))
        return max(self.o_beats, *(stage.cycles for stage in side), 0)


Stage = (
    ConverterStage
    | JoinStage
    | MagnitudeStage
    | ResizeStage
    | WindowStage
    | MatrixStage
    | PoolStage
    | ThresholdStage
    | ScoreStage
)


def _bits(low: int, high: int) -> int:
    """Return the bits of an integer in ``low .. high``."""
    return max(-low - 1, high).bit_length() + 1 if low < 0 else high.bit_length()


@cache
def _rows(key: WindowKey, folds: int) -> int:
    return ring_rows(WindowGeometry(*key), folds)


@dataclass(frozen=True, eq=False)
class Segment:
    """A layer, and the stages behind it that have no weights.

    Attributes
    ----------
    layer : LoweredLayer
    tail : tuple of LoweredPool, LoweredThreshold or LoweredJoin
    output : LoweredOutput
        The network's affine.
    last : bool
        Whether it ends the network.
    given : int or None
        Channels of the frame, where more are added to it first.
    kept : int or None
        Classes, where the layer has more neurons.
    aside : bool
        Whether the layer stands on a shortcut.
    """

    layer: LoweredLayer
    tail: Tail
    output: LoweredOutput
    last: bool
    given: int | None = None
    kept: int | None = None
    aside: bool = False

    def stages(self, choice: LayerFolding, lanes: int | None) -> list[Stage]:
        """Return the hardware stages, given the lanes that come in (None: as the layer likes).

        Shortcuts that end here are without their stages, see `linked`.
        """
        layer = self.layer
        stages: list[Stage] = []
        if self.given is not None:
            stages.append(_input_resize(layer, self.given))
            lanes = stages[-1].o_lanes
        cut = self.kept is not None
        stages += _layer_stages(layer, choice, lanes, self.last and not self.tail, cut)
        out = choice.o_lanes(layer)
        if self.tail or cut:
            low, high = layer.o_range
        for part in self.tail:
            if isinstance(part, LoweredJoin):
                stages.extend(_join_stages(part, out))
            else:
                stages.extend(_weightless(part, out, low, high))
            out = stages[-1].o_lanes
            low, high = part.o_range
        if self.last and self.tail:
            classes = self.tail[-1].o_shape[-1]
            stages.append(ScoreStage(classes, out, low, high, cut=cut))
        if self.kept is not None:
            stages += self._class_stages(out, low, high, self.kept)
        return stages

    def _class_stages(self, lanes: int, low: int, high: int, kept: int) -> Iterator[Stage]:
        """Yield what takes classes away that are none."""
        classes = self.layer.mh
        ends = [self.output.scale * acc + self.output.offset for acc in (low, high)]
        bits = _bits(min(-1, *map(int, map(min, ends))), max(map(int, map(max, ends))))
        if lanes == classes:
            yield ResizeStage("classes", bits, lanes, kept, classes, kept, 1, True)
            return
        part = gcd(lanes, kept)
        if part != lanes:
            yield ConverterStage("classes_converter", bits, lanes, part, classes)
        yield ResizeStage("classes", bits, part, part, classes, kept, 1, True)


def segment(lowered: LoweredNetwork, place: int, width: int, o_width: int) -> Segment:
    """Return layer number `place` and what follows it, with so many channels before and behind.

    Parameters
    ----------
    lowered : LoweredNetwork
    place : int
    width, o_width : int
        See `xnorflow.padding.legal_widths`.
    """
    own, parts = own_widths(lowered), blocks(lowered)
    (layer, tail), output = pad_block(parts[place], lowered.output, own[place], width, o_width)
    last = place == len(parts) - 1
    given = own[0] if place == 0 and width != own[0] else None
    kept = own[-1] if last and o_width != own[-1] else None
    return Segment(layer, tail, output, last, given, kept)


@lru_cache(maxsize=256)
def side_segments(join: LoweredJoin, output: LoweredOutput) -> tuple[Segment, ...]:
    """Return the layers on a shortcut, each with what follows it there."""
    return tuple(
        Segment(layer, tail, output, False, aside=True) for layer, tail in cut(join.path)[1]
    )


def segments(lowered: LoweredNetwork, folding: Folding | None = None) -> list[Segment]:
    """Cut a network, padded as `folding` says, into its layers, each with what follows it.

    They are in the order of `LoweredNetwork.layers`: those on a shortcut come behind the layer that
    is followed by their join.
    """
    chosen = own_widths(lowered) if folding is None else widths(lowered, folding)
    result: list[Segment] = []
    for place, pair in enumerate(pairwise(chosen)):
        part = segment(lowered, place, *pair)
        result.append(part)
        for stage in part.tail:
            if isinstance(stage, LoweredJoin):
                result += side_segments(stage, lowered.output)
    return result


def pipeline(lowered: LoweredNetwork, folding: Folding) -> list[Stage]:
    """Return the stages in data-flow order.

    Parameters
    ----------
    lowered : LoweredNetwork
    folding : dict of LayerFolding
        A legal folding for every layer.
    """
    return [stage for stage, _ in owned_pipeline(lowered, folding)]


def owned_pipeline(lowered: LoweredNetwork, folding: Folding) -> list[tuple[Stage, Segment]]:
    """Return the stages in data-flow order, each with the segment that it belongs to."""
    stages: list[Stage] = []
    owners: list[Segment] = []
    lanes: int | None = None
    for part in segments(lowered, folding):
        if part.aside:
            continue
        stages += part.stages(folding[part.layer.name], lanes)
        lanes = stages[-1].o_lanes
        owners += [part] * (len(stages) - len(owners))
    return list(zip(linked(stages, lowered, folding), owners, strict=True))


def linked(stages: Iterable[Stage], lowered: LoweredNetwork, folding: Folding) -> list[Stage]:
    """Return a pipeline whose shortcuts have their stages, given those on the main way.

    Parameters
    ----------
    stages : iterable of Stage
    lowered : LoweredNetwork
    folding : dict of LayerFolding
        At least of the layers on shortcuts.
    """
    result: list[Stage] = []
    for stage in stages:
        if isinstance(stage, JoinStage):
            name = lowered.stages[stage.join.source].name
            source = next(n for n, before in enumerate(result) if before.name == name)
            owned = list(_side_stages(stage, result[source].o_lanes, lowered, folding))
            side, owners = (tuple(part) for part in zip(*owned, strict=True)) if owned else ((), ())
            stage = replace(stage, source=source, side=side, owners=owners)
        result.append(stage)
    return result


def _side_stages(
    end: JoinStage, lanes: int, lowered: LoweredNetwork, folding: Folding
) -> Iterator[tuple[Stage, Segment | None]]:
    """Yield what stands on a shortcut that begins with so many lanes, and whose it is."""
    source = lowered.stages[end.join.source]
    low, high = source.o_range
    before, _ = cut(end.join.path)
    for part in before:
        assert not isinstance(part, LoweredJoin | LoweredLayer)
        for stage in _weightless(part, lanes, low, high):
            yield stage, None
            lanes = stage.o_lanes
        low, high = part.o_range
    for owner in side_segments(end.join, lowered.output):
        stages = owner.stages(folding[owner.layer.name], lanes)
        yield from ((stage, owner) for stage in stages)
        lanes = stages[-1].o_lanes
    if lanes != end.side_lanes:
        last = end.join.path[-1] if end.join.path else source
        name, bits = f"{end.join.name}_side_converter", _bits(*last.o_range)
        yield ConverterStage(name, bits, lanes, end.lanes, prod(last.o_shape)), None


def _boxes(join: LoweredJoin) -> Iterator[Stage]:
    """Yield what adds up the gains of windows, which come one by one."""
    for part in join.path:
        if isinstance(part, LoweredPool):
            yield from _pool_stages(part, 1)


@cache
def magnitude_unit(stage: MagnitudeStage) -> MagnitudeUnit:
    """Return sums of magnitudes as the integers' range has them, see `join_unit`."""
    return make_magnitude(stage, narrowest(stage.stage.low, stage.stage.high))


def make_magnitude(stage: MagnitudeStage, element: ShapeLike) -> MagnitudeUnit:
    """Return the hardware of sums of magnitudes of elements of a shape."""
    own = stage.stage
    ends = (own.low, own.high)
    return MagnitudeUnit(
        element, own.gains, own.offsets, shift=own.shift, lanes=stage.lanes, ends=ends
    )


def join_unit(stage: JoinStage) -> JoinUnit | GainUnit:
    """Return a join as the integers' ranges have it, for what it costs and when it gives beats."""
    return _join_unit(stage.join, stage.lanes)


@cache
def _join_unit(join: LoweredJoin, lanes: int) -> JoinUnit | GainUnit:
    main, side = zip(join.low, join.high, strict=True)
    return make_join(join, lanes, (narrowest(*main), narrowest(*side)))


def make_join(
    join: LoweredJoin, lanes: int, elements: tuple[ShapeLike, ShapeLike]
) -> JoinUnit | GainUnit:
    """Return the hardware of a join whose streams, main and shortcut, have these elements."""
    main, side = zip(join.low, join.high, strict=True)
    if join.how == "multiply":
        return GainUnit(elements, join.shape[-1], lanes=lanes, ranges=(main, side))
    return JoinUnit(
        elements,
        (join.shape[-1], join.side_channels),
        lanes=lanes,
        how=join.how,
        gains=join.gains,
        ranges=(main, side),
    )


def _join_stages(join: LoweredJoin, lanes: int) -> Iterator[ConverterStage | JoinStage]:
    """Yield a join, and what makes beats of the main stream that suit the shortcut's channels."""
    common = gcd(lanes, join.side_channels) if join.how in ("append", "prepend") else lanes
    if common != lanes:
        bits = _bits(join.low[0], join.high[0])
        yield ConverterStage(f"{join.name}_converter", bits, lanes, common, prod(join.shape))
    yield JoinStage(join, common)


def _weightless(
    part: LoweredPool | LoweredThreshold | LoweredMagnitude, lanes: int, low: int, high: int
) -> Iterator[Stage]:
    """Yield the stages of a pool, of thresholds or of magnitudes of integers of a range."""
    match part:
        case LoweredThreshold():
            yield ThresholdStage(part, lanes, low, high)
        case LoweredMagnitude():
            yield MagnitudeStage(part, lanes)
        case LoweredPool():
            yield from _pool_stages(part, lanes)


def _input_resize(layer: LoweredLayer, channels: int) -> ResizeStage:
    """Return what adds channels to the frame's pixels, or to the frame where it is no image."""
    width, pixels = layer.mw, 1
    if layer.window is not None:
        rows, columns, width = layer.window.shape
        pixels = rows * columns
    lanes = (channels, width) if channels <= WHOLE_PIXEL else (gcd(channels, width),) * 2
    bits = layer.input_bits
    return ResizeStage("frame", bits, *lanes, channels, width, pixels, False)


def _layer_stages(
    layer: LoweredLayer, choice: LayerFolding, lanes: int | None, scores: bool, cut: bool
) -> Iterator[Stage]:
    """Yield the stages of one layer; `scores` says whether it gives them, `cut` if too many."""
    bits = layer.input_bits
    elements = prod(layer.i_shape)
    window = layer.window
    entry = choice.simd
    granule = 0
    if window is not None and not window.is_pixel:
        channels = window.shape[2] // layer.groups
        entry = _folded_lanes(layer, choice)
        parallel = entry == 0
        entry = entry or window.shape[2]
        if layer.zero_padded:
            granule = gcd(channels, choice.simd) if parallel else entry
        if lanes not in (None, entry):
            yield ConverterStage(f"{layer.name}_converter", bits, lanes, entry, elements)
        slide = WindowStage(
            f"{layer.name}_window", window, layer.groups, bits, entry, parallel, granule
        )
        yield slide
        if slide.o_lanes != choice.simd:
            yield ConverterStage(
                f"{layer.name}_window_converter",
                bits,
                slide.o_lanes,
                choice.simd,
                layer.positions * layer.mw,
                granule,
            )
    elif lanes not in (None, entry):
        yield ConverterStage(f"{layer.name}_converter", bits, lanes, entry, elements)
    head = "thresholds"
    if layer.thresholds is None:
        head = "scores" if scores else "accumulators"
    yield MatrixStage(layer, choice, head, granule, scores and cut)


def _folded_lanes(layer: LoweredLayer, choice: LayerFolding) -> int:
    """Return the lanes of a folded window that keeps up with its layer, or 0 if none does.

    SIMD itself where it divides the channels, else the fewest that a converter brings to SIMD.
    """
    window = layer.window
    assert window is not None
    channels, elements = window.shape[2] // layer.groups, layer.positions * layer.mw
    if channels % choice.simd == 0:
        return choice.simd
    for lanes in range(1, channels + 1):
        fits = channels % lanes == 0 and choice.simd % lanes == 0
        if fits and elements // lanes <= choice.cycles(layer):
            return lanes
    return 0


def _pool_stages(
    pool: LoweredPool, lanes: int
) -> Iterator[ConverterStage | WindowStage | PoolStage]:
    window = pool.window
    rows, columns, channels = window.shape
    if any(window.padding):  # padded taps never win
        if pool.falling is not None:
            window = replace(window, pad=np.where(pool.falling, pool.high, pool.low))
        elif pool.low < 0:
            window = replace(window, pad=np.full(channels, pool.low))
    if window.tiles:
        yield PoolStage(pool, window.shape, window.kernel, 1, lanes)
        return
    taps = prod(window.kernel)
    bits = _bits(pool.low, pool.high)
    # As many lanes as let the windows out as fast as the pixels come in.
    pixels = rows * columns * channels // lanes
    wide = next(
        width
        for width in range(lanes, channels + 1, lanes)
        if channels % width == 0
        and (window.positions * taps * channels // width <= pixels or width == channels)
    )
    if wide != lanes:
        name = f"{pool.name}_converter"
        yield ConverterStage(name, bits, lanes, wide, rows * columns * channels)
    yield WindowStage(f"{pool.name}_window", window, 1, bits, wide, False, 0)
    yield PoolStage(pool, (1, taps, channels), (1, taps), window.positions, wide)


def cycles_per_frame(lowered: LoweredNetwork, folding: Folding) -> int:
    """Return the initiation interval in cycles: that of the slowest stage."""
    return max(stage.cycles for stage in pipeline(lowered, folding))
