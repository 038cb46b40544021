"""Accumulators that start at their thresholds, so that the last carry is the comparison."""

from collections.abc import Iterator

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw import layouts
from xnorflow.hw.carry_chain import Slot, add, chain_parts, chain_sums, inject, number_sums
from xnorflow.hw.cost import Family, Parts, merge
from xnorflow.hw.counting import Counting
from xnorflow.hw.pipeline import delay
from xnorflow.hw.rom import LUT_ROM_PIECE, ROMStyle, pack_lanes, rom_parts, varying_bits

__all__ = ["ThresholdAccumulator", "accumulator_parts", "accumulator_width", "start_parts"]


def accumulator_width(thresholds: NDArray[np.integer], top: int) -> int:
    """Return the bits of a `ThresholdAccumulator`'s sums, of which the highest is the result.

    Parameters
    ----------
    thresholds, top
        See `ThresholdAccumulator`.
    """
    # 2 ** n - threshold must not be below 0, and with `top` added stay below 2 ** (n + 1).
    most, least = int(thresholds.max()), int(thresholds.min())
    return max(max(most - 1, 0).bit_length(), (top - least).bit_length(), 1) + 1


def accumulator_parts(family: Family, pe: int, width: int, late: bool) -> Parts:
    """Return the parts of a `ThresholdAccumulator` of `width` bits but for its starts."""
    registers = {"register": pe * width, "bare register": pe + 2}
    if family.carry_bits > 1:
        return merge({"chain bit": pe * (width + 1 + (width + 1) % 2)}, registers)
    return merge(chain_parts(family, (width,) * pe, late), registers)


def start_parts(family: Family, thresholds: NDArray[np.integer], top: int, step_top: int) -> Parts:
    """Return the parts of the starts of a `ThresholdAccumulator`."""
    folds = len(thresholds)
    width, step = accumulator_width(thresholds, top), bits_for(step_top)
    starts = _starts(thresholds, width)
    # Starts that are 0 in all folds are not there.
    low = int(np.bitwise_count(np.bitwise_or.reduce(starts, axis=0) & ((1 << step) - 1)).sum())
    parts: Parts = {"start bit": low} if family.carry_bits == 1 else {}
    if folds == 1:
        return merge(parts, {"bare register": 1})
    rom = rom_parts(family, folds, varying_bits(starts, width), ROMStyle.LUT)
    return merge(parts, rom, {"fold bit": (folds - 1).bit_length()})


def _starts(thresholds: NDArray[np.integer], width: int) -> NDArray[np.int64]:
    """Return what accumulators start at, of which the highest bit is set if the threshold is 0."""
    return (1 << width - 1) - thresholds.astype(np.int64)


class ThresholdAccumulator(wiring.Component):
    """``o[p] = (sum over a neuron's steps of i[p] + late[p]) >= thresholds[fold, p]``.

    A batch norm followed by a sign is one such comparison (Umuroglu et al., FINN, 2017, section
    4.2.2). It costs nothing here: the accumulator starts at ``2 ** n - threshold``, so that bit n
    of its last sum is the result (see `accumulator_width`)::

        start --|reg|--(first?)--(+)--+--|acc|--.
                          ^       ^   '--bit n, if last--|o|--
                          |    i, late          |
                          '---------------------'

    The adder takes the start in a neuron's first step and the accumulator in all others. In cells
    of ECP5 a flip-flop says which, for which their adders have an input left. Elsewhere the one
    that does not count is 0, so that no multiplexer is needed: `last` clears the accumulator, and
    above the bits of `i` an adder's input is free for the start.

    In cells of iCE40 several neurons have one carry chain, and the highest bit of one is the sum of
    the cell in which the next one's chain starts.

    Latency: 1 enabled cycle from a neuron's last step to `o`. The flags come a cycle before `i`.

    Parameters
    ----------
    thresholds : ndarray of int, shape (folds, pe)
        Each in ``0 .. top + 1``; 0 is always on, ``top + 1`` never fires. Neurons come in the order
        of the folds, and after the last one the first again.
    top : int
        The largest sum.
    step_top : int
        The largest `i`, at most half of `top`.
    late : bool
        Whether `late` counts.
    counting : Counting
        `Counting.CCU2C` instantiates those.

    Members
    -------
    first, last : In(1)
        The step that comes next is its neuron's first, or last.
    valid : In(1)
        There is a step next.
    i : In(ArrayLayout(range(step_top + 1), pe))
    late : In(pe)
    o : Out(ArrayLayout(1, pe))
    en : In(1)
        Clock enable of every register.
    """

    def __init__(
        self,
        thresholds: NDArray[np.integer],
        top: int,
        step_top: int,
        *,
        late: bool,
        counting: Counting,
    ):
        if thresholds.ndim != 2:
            raise ValueError(f"thresholds must have shape (folds, pe), not {thresholds.shape}")
        if thresholds.min() < 0 or thresholds.max() > top + 1:
            raise ValueError(f"thresholds must lie in 0..{top + 1}")
        self.folds, self.pe = thresholds.shape
        self.thresholds, self.top, self.counting = thresholds, top, counting
        self._uses_late = late
        self._width = accumulator_width(thresholds, top)
        if step_top >> self._width - 1:
            raise ValueError(f"step_top must be at most half of top, {top}, not {step_top}")
        super().__init__(
            {
                "first": In(1),
                "last": In(1),
                "valid": In(1),
                "i": In(data.ArrayLayout(bits_for(step_top), self.pe)),
                "late": In(self.pe),
                "o": Out(layouts.bits(self.pe)),
                "en": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self._width
        layout = data.ArrayLayout(width, self.pe)
        chosen = self._start(m, width)
        if self.counting is not Counting.CCU2C:
            chosen = Mux(self.first, chosen, 0)
        keep = Signal(reset_less=True)
        with m.If(self.en):
            m.d.sync += keep.eq(~self.first)
        if isinstance(chosen, Const):
            start = data.View(layout, chosen)
        else:
            start = Signal(layout, reset_less=True)
            with m.If(self.en):
                m.d.sync += start.eq(chosen)
        accs = [Signal(width, name=f"acc_{p}", reset_less=True) for p in range(self.pe)]
        totals = self._totals(m, accs, start, keep)
        following: list[Value] = totals
        flags = delay(m, Cat(self.valid, self.last, 1), 1, self.en, "flags", reset=True)
        valid = flags[0]
        if self.counting is not Counting.CCU2C:
            # The accumulators' own resets are taken by `last`, so a first cycle clears them.
            valid = valid | ~flags[2]
            cleared = flags[1] | ~flags[2]
            following = [Mux(cleared, 0, total) for total in totals]
        for acc, after in zip(accs, following, strict=True):
            with m.If(self.en & valid):
                m.d.sync += acc.eq(after)
        results = Cat(total[-1] for total in totals)
        m.d.comb += self.o.eq(delay(m, results, 1, self.en, "results"))
        return m

    def _totals(self, m: Module, accs: list[Signal], start: data.View, keep: Signal) -> list[Value]:
        """Return the next sum of every neuron."""
        bits, width = self.i.shape().elem_shape, self._width
        lates = [[self.late[p]] if self._uses_late else [] for p in range(self.pe)]

        def slots(p: int, count: int) -> Iterator[Slot]:
            for n in range(count):
                acc, begin = accs[p][n], start[p][n]
                if self.counting is Counting.CCU2C:
                    i = self.i[p][n] if n < bits else Const(0, 1)
                    yield add((i,), (acc, begin), keep=keep)
                else:
                    yield (
                        add((acc | begin,), (self.i[p][n],)) if n < bits else add((acc,), (begin,))
                    )

        totals: list[Value] = []
        if self.counting is Counting.CCU2C:
            for p in range(self.pe):
                chain = [inject(*lates[p]), *slots(p, width)]
                totals.append(Cat(*chain_sums(m, chain, self.counting, f"sum_{p}")[1:]))
            return totals
        highest = (self.thresholds == 0).any(axis=0).tolist()
        above = [acc[-1] | start[p][-1] if highest[p] else acc[-1] for p, acc in enumerate(accs)]
        numbers = [[inject(*lates[p]), *slots(p, width - 1)] for p in range(self.pe)]
        sums = number_sums(m, numbers, self.counting, "sums", above)
        return [Cat(*bits) for bits in sums]

    def _start(self, m: Module, width: int) -> Value:
        """Return the starts of the neurons that begin next, or are beginning."""
        words = pack_lanes(_starts(self.thresholds, width), width)
        bits = width * self.pe
        if self.folds == 1:
            return Const(words[0], bits)
        fold = Signal(range(self.folds))
        with m.If(self.en & self.valid & self.first):
            m.d.sync += fold.eq(Mux(fold == self.folds - 1, 0, fold + 1))
        pieces = []
        for first in range(0, bits, LUT_ROM_PIECE):
            piece = min(LUT_ROM_PIECE, bits - first)
            m.submodules[f"starts_{first}"] = storage = memory.Memory(
                shape=piece,
                depth=self.folds,
                init=[word >> first & ((1 << piece) - 1) for word in words],
                attrs={"rom_style": "logic"},
            )
            port = storage.read_port(domain="comb")
            m.d.comb += port.addr.eq(fold)
            pieces.append(port.data)
        return Cat(*pieces)
