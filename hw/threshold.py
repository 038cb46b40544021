"""Thresholds: batch norm and sign as one integer comparison per neuron."""

from math import ceil

import numpy as np
from amaranth import Cat, Const, Module
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw import layouts
from xnorflow.hw.cost import Family, Parts, merge
from xnorflow.hw.pipeline import delay
from xnorflow.hw.rom import ROM, ROMStyle, rom_parts, varying_bits

__all__ = ["ThresholdUnit", "reaches", "threshold_parts"]


def threshold_parts(
    family: Family, thresholds: NDArray[np.integer], top: int, late: bool = False
) -> Parts:
    """Return the parts of a `ThresholdUnit`."""
    folds, pe = thresholds.shape
    if folds == 1:
        bits = bits_for(top - late) + late
        return {"comparator LUT": pe * ceil((bits - 1) / 3), "register": pe}
    rom = rom_parts(family, folds, varying_bits(thresholds, bits_for(top + 1)), ROMStyle.LUT)
    return merge(
        family.adder("comparator", bits_for(top + 1), pe),
        # A carry chain takes the threshold inverted.
        {"inverted bit": rom["register"]},
        {"register": pe, "bare register": pe * bits_for(top)},
        rom,
    )


class ThresholdUnit(wiring.Component):
    """``o[p] = (i[p] + late[p] >= thresholds[fold, p])`` for the neuron fold that passes.

    A batch norm followed by a sign is one such comparison (Umuroglu et al., FINN, 2017, section
    4.2.2). A threshold of 0 is always on; one above `top` never fires.

    With a single fold, thresholds are constants: a LUT4 each for the four lowest bits, of which
    `late` may be one, and every three more.

    Latency: 2 enabled cycles, of which the ROM takes one (1 when there is a single fold).

    Parameters
    ----------
    thresholds : ndarray of int, shape (folds, pe)
        Each in ``0 .. top + 1``.
    top : int
        The largest count that can come in, `late` included.
    late : bool
        Whether `late` counts; only with a single fold.

    Members
    -------
    i : In(ArrayLayout(range(top + 1 - late), pe))
    late : In(pe)
    fold : In(range(folds))
    o : Out(ArrayLayout(1, pe))
    en : In(1)
        Clock enable of every register.
    """

    def __init__(self, thresholds: NDArray[np.integer], top: int, *, late: bool = False):
        if thresholds.ndim != 2:
            raise ValueError(f"thresholds must have shape (folds, pe), not {thresholds.shape}")
        if thresholds.min() < 0 or thresholds.max() > top + 1:
            raise ValueError(f"thresholds must lie in 0..{top + 1}")
        self.folds, self.pe = thresholds.shape
        if late and self.folds > 1:
            raise ValueError(f"ThresholdUnit takes late bits only with one fold, not {self.folds}")
        self.thresholds, self.top, self.uses_late = thresholds, top, late
        self.latency = 1 + (self.folds > 1)
        super().__init__(
            {
                "i": In(data.ArrayLayout(bits_for(top - late), self.pe)),
                "late": In(self.pe),
                "fold": In(range(self.folds)),
                "o": Out(layouts.bits(self.pe)),
                "en": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.folds == 1:
            lates = [self.late[p] if self.uses_late else None for p in range(self.pe)]
            reached = [
                reaches(self.i[p], int(threshold), late)
                for p, (late, threshold) in enumerate(zip(lates, self.thresholds[0], strict=True))
            ]
        else:
            width = bits_for(self.top + 1)
            m.submodules.rom = rom = ROM.of_lanes(self.thresholds, width, ROMStyle.LUT)
            count = delay(m, self.i, self.latency - 1, self.en, "count")
            threshold = data.View(data.ArrayLayout(width, self.pe), rom.data)
            m.d.comb += [rom.addr.eq(self.fold), rom.en.eq(self.en)]
            reached = [count[p] >= threshold[p] for p in range(self.pe)]
        with m.If(self.en):
            m.d.sync += [self.o[p].eq(value) for p, value in enumerate(reached)]
        return m


def reaches(count: Value, threshold: int, late: Value | None = None) -> Value:
    """Return ``count + late >= threshold`` as a chain of functions of four bits.

    Parameters
    ----------
    count : Value
        Unsigned.
    threshold : int
        Not negative.
    late : Value, optional
        A bit.
    """
    if not threshold:
        return Const(1, 1)
    reached: Value = Const(1, 1)
    first, step = 0, 4
    if late is not None:
        # From 1 to 8, so that what is above three bits need not know of `late`.
        first, step = 3, 3
        least, threshold = (threshold - 1) % 8 + 1, (threshold - 1) // 8 * 8
        low = Cat(late, count[:3])
        reached = low.matches(*(n for n in range(1 << len(low)) if (n >> 1) + (n & 1) >= least))
    if threshold >> len(count):
        return Const(0, 1)
    while first < len(count):
        bits = count[first : first + step]
        wanted = threshold >> first & ((1 << len(bits)) - 1)
        above = [number for number in range(1 << len(bits)) if number > wanted]
        reached = bits.matches(*above) | (bits.matches(wanted) & reached)
        first, step = first + step, 3
    return reached
