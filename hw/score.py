"""Scores: the last layer's affine in integers."""

import numpy as np
from amaranth import Module, Signal, signed
from amaranth.hdl import Shape
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw import layouts
from xnorflow.hw.cost import Family, Parts, merge
from xnorflow.hw.pipeline import delay
from xnorflow.hw.rom import ROM, ROMStyle, rom_parts, varying_bits

__all__ = ["ScoreUnit", "score_parts"]


def _signed_width(low: int, high: int) -> int:
    return max(bits_for(low, require_sign_bit=True), bits_for(high, require_sign_bit=True))


def score_parts(family: Family, unit: "ScoreUnit") -> Parts:
    """Return the parts of a `ScoreUnit`."""
    pe, count_bits = unit.pe, bits_for(unit.top)
    lists: list[Parts] = [
        family.adder("score adder", unit.width, pe),
        {"register": pe * unit.width},
    ]
    gain_bits = _signed_width(int(unit.gain.min()), int(unit.gain.max()))
    if np.all(unit.gain == unit.gain[0]):
        # A product by a power of two is a shift.
        gains = [abs(int(gain)) for gain in unit.gain[0] if gain]
        factors = [gain for gain in gains if gain.bit_count() > 1]
        shifts = pe - len(factors)
        lists.append({"bare register": shifts * count_bits})
        for gain in factors:
            odd = gain // (gain & -gain)
            lists.append({"register": (odd * unit.top).bit_length()})
            terms = (gain.bit_count() - 1) * count_bits
            lists.append({"dsp": 1} if family.multipliers else {"shifted addend bit": terms})
    else:
        varying = varying_bits(unit.gain, gain_bits)
        lists.append(rom_parts(family, unit.folds, varying, ROMStyle.LUT))
        lists.append({"register": varying + pe * count_bits})
        lists.append({"dsp": pe} if family.multipliers else {"product bit": varying * count_bits})
    if not np.all(unit.bias == unit.bias[0]):
        bias_bits = _signed_width(int(unit.bias.min()), int(unit.bias.max()))
        biases = varying_bits(unit.bias, bias_bits)
        lists.append(rom_parts(family, unit.folds, biases, ROMStyle.LUT))
        lists.append({"bare register": biases})
    lists.append({"bare register": (unit.latency - 2) * pe * count_bits})
    return merge(*lists)


class ScoreUnit(wiring.Component):
    """``o[p] = scale[fold, p] * (unit * i[p] - base[fold, p]) + offset[fold, p]``.

    `i` counts agreements (see `Lanes`), so the bracket is the accumulator; as it stands, it is that
    of bits. Where all folds have the scale 1 (or one power of two a lane) nothing multiplies: the
    unit is one adder.

    Latency: `latency` enabled cycles: 3 (ROM, multiply, add), 2 with a single fold.

    Parameters
    ----------
    scale, offset : ndarray of int, shape (folds, pe)
    top : int
        The largest count that can come in (with bits, the layer's number of synapses).
    unit : int
        What a count adds to the accumulator.
    base : ndarray of int, shape (folds, pe), optional
        The accumulator of no counts, negated; `top` by default.
    ends : ndarray of int, shape (2, folds, pe), optional
        Each neuron's least and largest count; 0 and `top` by default.

    Attributes
    ----------
    width : int
        Bits of a score, two's complement: the smallest that holds every score that can occur.

    Members
    -------
    i : In(ArrayLayout(range(top + 1), pe))
    fold : In(range(folds))
    o : Out(ArrayLayout(signed(width), pe))
    en : In(1)
        Clock enable of every register.
    """

    def __init__(
        self,
        scale: NDArray[np.integer],
        offset: NDArray[np.integer],
        top: int,
        unit: int = 2,
        base: NDArray[np.integer] | None = None,
        ends: NDArray[np.integer] | None = None,
    ):
        if scale.ndim != 2 or scale.shape != offset.shape:
            raise ValueError(
                f"scale and offset must have one shape (folds, pe), not {scale.shape} and "
                f"{offset.shape}"
            )
        self.folds, self.pe = scale.shape
        if base is not None and base.shape != scale.shape:
            raise ValueError(f"base must have shape {scale.shape}, not {base.shape}")
        # Counts instead of accumulators: unit * scale and offset - base * scale.
        self.gain = unit * scale.astype(np.int64)
        zero = np.int64(top) if base is None else base.astype(np.int64)
        self.bias = offset.astype(np.int64) - zero * scale.astype(np.int64)
        least, largest = (0, top) if ends is None else ends.astype(np.int64)
        scores = np.stack([self.bias + self.gain * least, self.bias + self.gain * largest])
        self.width = _signed_width(int(scores.min()), int(scores.max()))
        self.top = top
        self.latency = 2 + (self.folds > 1)
        super().__init__(
            {
                "i": In(data.ArrayLayout(bits_for(top), self.pe)),
                "fold": In(range(self.folds)),
                "o": Out(layouts.scores(self.pe, signed(self.width))),
                "en": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = delay(m, self.i, self.latency - 2, self.en, "count")
        gain = self._constants(m, "gain", self.gain)
        bias = self._constants(m, "bias", self.bias)
        product = Signal(layouts.scores(self.pe, signed(self.width + 1)), reset_less=True)
        if not np.all(self.bias == self.bias[0]):
            bias = delay(m, bias, 1, self.en, "bias")
        with m.If(self.en):
            m.d.sync += [product[p].eq(gain[p] * count[p]) for p in range(self.pe)]
            m.d.sync += [self.o[p].eq(product[p] + bias[p]) for p in range(self.pe)]
        return m

    def _constants(self, m: Module, name: str, values: NDArray[np.int64]) -> data.View:
        """Return the row of `values` that belongs to the neuron fold in flight."""
        width = _signed_width(int(values.min()), int(values.max()))
        if np.all(values == values[0]):
            # All folds alike: no ROM, and a product by a constant power of two is a shift.
            rom = ROM.of_lanes(values[:1], width, ROMStyle.CONSTANT)
        else:
            rom = ROM.of_lanes(values, width, ROMStyle.LUT)
            m.d.comb += rom.addr.eq(self.fold)
        m.submodules[name] = rom
        m.d.comb += rom.en.eq(self.en)
        return data.View(layouts.scores(self.pe, Shape(width, signed=True)), rom.data)
