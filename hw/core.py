"""The streaming core: every layer of a network as hardware, one behind the other."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from amaranth import Module, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorflow.hw import layouts
from xnorflow.hw.argmax import ArgMax
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.width_converter import WidthConverter

__all__ = ["StreamingCore"]


class StreamingCore(wiring.Component):
    """A chain of matrix-vector units, width converters between them and an arg-max behind them.

    All layers work at once, each on a frame of its own; the slowest one sets the pace. Frames
    follow each other without an idle cycle.

    Parameters
    ----------
    units : sequence of MatrixVectorUnit
        In data-flow order; each takes as many bits as the one before gives. The last one gives
        scores, all others bits.

    Attributes
    ----------
    units : tuple of MatrixVectorUnit
        The layers.
    i_lanes, o_lanes, classes : int
        Bits in an input beat; scores in an output beat and in a frame.
    i_beats, o_beats : int
        Beats of a frame at the input and the output.
    cycles_per_frame : int
        The initiation interval (II): cycles between frames in steady state.
    latency : int
        Cycles from the one in which an idle core takes a frame's first beat to the one in which it
        gives the frame's last beat, with a source always valid and a sink always ready.

    Members
    -------
    i : In(stream.Signature(layouts.bits(simd of the first unit)))
    o : Out(stream.Signature(layouts.results(o_lanes, width, classes)))
    """

    def __init__(self, units: Sequence[MatrixVectorUnit]):
        for number, (unit, after) in enumerate(pairwise(units)):
            if unit.mh != after.mw:
                raise ValueError(
                    f"unit {number + 1} must take the {unit.mh} bits that unit {number} gives, "
                    f"not {after.mw}"
                )
        self.units = tuple(units)
        first, last = self.units[0], self.units[-1]
        width = last.output_shape.elem_shape.width
        self._stages: list[tuple[str, MatrixVectorUnit | WidthConverter]] = []
        cycles = []
        for number, unit in enumerate(self.units):
            lanes = self.units[number - 1].pe if number else unit.simd
            if lanes != unit.simd:
                converter = WidthConverter(1, lanes, unit.simd)
                self._stages.append((f"converter_{number}", converter))
                cycles.append(converter.cycles(unit.mw))
            self._stages.append((f"unit_{number}", unit))
            cycles.append(unit.cycles_per_frame)
        self.cycles_per_frame = max(cycles)
        # The fewest lanes that keep pace: comparators for all scores at once cost far more than
        # passing the scores one by one.
        lanes = next(
            lanes
            for lanes in range(1, last.pe + 1)
            if last.pe % lanes == 0 and last.mh // lanes <= self.cycles_per_frame
        )
        if lanes != last.pe:
            self._stages.append(("serializer", WidthConverter(signed(width), last.pe, lanes)))
        self._argmax = ArgMax(lanes, width, last.mh)

        self.i_lanes, self.o_lanes, self.classes = first.simd, lanes, last.mh
        self.i_beats, self.o_beats = first.synapse_folds, last.mh // lanes
        times = np.arange(self.i_beats)
        for _, stage in self._stages:
            times = stage.schedule(times)
        self.latency = int(times[-1]) + self._argmax.latency
        super().__init__(
            {
                "i": In(stream.Signature(layouts.bits(first.simd))),
                "o": Out(stream.Signature(layouts.results(lanes, width, last.mh))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        upstream = wiring.flipped(self.i)
        for name, stage in self._stages:
            m.submodules[name] = stage
            wiring.connect(m, upstream, stage.i)
            upstream = stage.o
        m.submodules.argmax = self._argmax
        wiring.connect(m, upstream, self._argmax.i)
        wiring.connect(m, self._argmax.o, wiring.flipped(self.o))
        return m
