"""Thresholds and affines of pixels whose values are complete: after a pool."""

import numpy as np
from amaranth import Module, Mux, Signal
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import Parts, index_bits, merge
from xnorflow.hw.multi_threshold import MultiThresholdUnit
from xnorflow.hw.score import ScoreUnit
from xnorflow.hw.threshold import ThresholdUnit

__all__ = ["ScoreStage", "ThresholdStage", "channel_stage_parts"]


def channel_stage_parts(folds: int, unit: Parts) -> Parts:
    """Return the parts of a `ThresholdStage` or `ScoreStage`, given those of its unit."""
    return merge({"channel stage": 1, "channel counter bit": index_bits(folds)}, unit)


class _ChannelStage(wiring.Component):
    """Stream around a unit that counts from 0: gives it each beat and its channel fold.

    Parameters
    ----------
    element : Shape
        Shape of an element.
    unit : ThresholdUnit, MultiThresholdUnit or ScoreUnit
        What is done, for numbers above the element's lowest one.
    """

    def __init__(self, element: Shape, unit: ThresholdUnit | MultiThresholdUnit | ScoreUnit):
        self.element, self.unit = element, unit
        self.lanes, self.folds, self.latency = unit.pe, unit.folds, unit.latency
        self.cycles_per_pixel = unit.folds
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(element, self.lanes))),
                "o": Out(stream.Signature(unit.o.shape())),
            }
        )

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which beats leave, given those from which on each is offered.

        Parameters
        ----------
        arrivals : ndarray of int, shape (beats,)

        Returns
        -------
        ndarray of int, shape (beats,)
            For a consumer that is always ready.
        """
        beats = np.arange(len(arrivals))
        return np.maximum.accumulate(arrivals - beats) + beats + self.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit
        en = Signal()
        valid = Signal(self.latency)  # bit n: a beat has taken n + 1 steps
        fold = Signal(range(self.folds))
        m.d.comb += [
            en.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(en),
            self.o.valid.eq(valid[-1]),
            self.o.payload.eq(unit.o),
            unit.en.eq(en),
            unit.fold.eq(fold),
        ]
        # Above the lowest number: in two's complement only the sign bit turns.
        lowest = 1 << self.element.width - 1 if self.element.signed else 0
        m.d.comb += [
            count.eq(element.as_unsigned() ^ lowest)
            for count, element in zip(unit.i, self.i.payload, strict=True)
        ]
        with m.If(en):
            m.d.sync += valid.eq(valid << 1 | self.i.valid)
        with m.If(en & self.i.valid):
            m.d.sync += fold.eq(Mux(fold == self.folds - 1, 0, fold + 1))
        return m


def _lowest(element: Shape) -> int:
    """Return an element's lowest number."""
    return -(1 << element.width - 1) if element.signed else 0


def _fold(
    values: NDArray[np.integer], name: str, lanes: int, levels: bool = False
) -> NDArray[np.int64]:
    """Return `values` of each channel as those of each lane, shape (..., C / lanes, lanes)."""
    if not values.size or values.ndim not in ((1, 2) if levels else (1,)):
        legal = "(C,) or (levels, C)" if levels else "(C,)"
        raise ValueError(f"{name} must have shape {legal}, not {values.shape}")
    channels = values.shape[-1]
    if lanes < 1 or channels % lanes:
        raise ValueError(f"lanes must divide the {channels} channels, which {lanes!r} does not")
    return values.astype(np.int64).reshape(*values.shape[:-1], -1, lanes)


class ThresholdStage(_ChannelStage):
    """``o[p] = (i[p] >= thresholds[channel])`` for every beat of a pixel, one beat a cycle.

    The comparison is that of a matrix-vector unit's `ThresholdUnit`, of integers that something
    else, as a pool, has completed. A threshold above the element's largest number never fires, one
    at or below its lowest always does. With several thresholds a channel, out is the number of
    those that are reached, see `MultiThresholdUnit`.

    Latency: `latency` cycles: 2, of which the ROM takes one (1 with all channels in a beat); with
    several thresholds `search_latency`.
    Cycles: one for each beat, ``C / lanes`` a pixel.

    Parameters
    ----------
    element : ShapeLike
        Shape of an input element, signed or unsigned.
    thresholds : ndarray of int, shape (C,) or (levels, C)
        Rising along the first axis of two.
    lanes : int
        Channels of a beat; divides C.

    Members
    -------
    i : In(stream.Signature(ArrayLayout(element, lanes)))
    o : Out(stream.Signature(ArrayLayout(range(levels + 1), lanes)))

    Raises
    ------
    ValueError
        If the channels do not fold or the thresholds do not rise; the message says what is legal.
    """

    def __init__(self, element: ShapeLike, thresholds: NDArray[np.integer], *, lanes: int):
        shape = Shape.cast(element)
        top = (1 << shape.width) - 1
        # Counted from the lowest number, as the elements are.
        counts = np.clip(_fold(thresholds, "thresholds", lanes, True) - _lowest(shape), 0, top + 1)
        counts = counts.reshape(-1, *counts.shape[-2:])
        several = len(counts) > 1
        unit = MultiThresholdUnit(counts, top) if several else ThresholdUnit(counts[0], top)
        super().__init__(shape, unit)


class ScoreStage(_ChannelStage):
    """``o[p] = scale[channel] * i[p] + offset[channel]`` for every beat, one beat a cycle.

    Where all folds have the scale 1 (or one power of two a lane) nothing multiplies.

    Latency: `latency` cycles: 3 (ROM, multiply, add), 2 with all channels in a beat.
    Cycles: one for each beat, ``C / lanes`` a pixel.

    Parameters
    ----------
    element : ShapeLike
        Shape of an input element, signed or unsigned.
    scale, offset : ndarray of int, shape (C,)
    lanes : int
        Channels of a beat; divides C.

    Attributes
    ----------
    width : int
        Bits of a score, two's complement: the smallest that holds every score that can occur.

    Members
    -------
    i : In(stream.Signature(ArrayLayout(element, lanes)))
    o : Out(stream.Signature(ArrayLayout(signed(width), lanes)))

    Raises
    ------
    ValueError
        If the channels do not fold; the message says what would.
    """

    def __init__(
        self,
        element: ShapeLike,
        scale: NDArray[np.integer],
        offset: NDArray[np.integer],
        *,
        lanes: int,
    ):
        shape = Shape.cast(element)
        if scale.shape != offset.shape:
            raise ValueError(
                f"scale and offset must have one shape (C,), not {scale.shape} and {offset.shape}"
            )
        scales, offsets = _fold(scale, "scale", lanes), _fold(offset, "offset", lanes)
        base = np.full_like(scales, -_lowest(shape))
        unit = ScoreUnit(scales, offsets, (1 << shape.width) - 1, unit=1, base=base)
        self.width = unit.width
        super().__init__(shape, unit)
