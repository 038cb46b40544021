"""Sums of magnitudes over the channels of a pixel."""

import numpy as np
from amaranth import Const, Module, Mux, Signal, signed
from amaranth.hdl import Shape, ShapeLike, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, index_bits, merge, product_parts
from xnorflow.hw.join import narrowest
from xnorflow.hw.pipeline import delay
from xnorflow.hw.rom import ROM, ROMStyle, rom_parts, varying_bits

__all__ = ["MagnitudeUnit", "magnitude_parts"]


def magnitude_parts(family: Family, unit: "MagnitudeUnit") -> Parts:
    """Return the parts of a `MagnitudeUnit`."""
    lanes, width = unit.lanes, unit.width
    varying = unit.gains.varies or unit.offsets.varies
    lists: list[Parts] = [
        {
            "channel stage": 1,
            "channel counter bit": index_bits(unit.folds),
            "bare register": unit.latency + int(varying) * lanes * unit.element.width,
        },
        unit.gains.parts(family),
        unit.offsets.parts(family),
        _product_parts(family, unit),
        # An offset is added, and a negative sum turned.
        family.adder("fixed adder", width + 1, lanes),
        family.adder("fixed adder", width + 1, lanes),
        {"register": 3 * lanes * width, "bare register": lanes * width},
    ]
    terms, bits = lanes, width
    while terms > 1:
        lists.append(family.adder("fixed adder", bits, terms // 2))
        lists.append({"register": (bits + 1) * (terms // 2), "bare register": bits * (terms % 2)})
        terms, bits = (terms + 1) // 2, bits + 1
    total = unit.total_bits
    lists.append(family.adder("accumulator", total))
    lists.append({"register": total, "masked bit": total * (unit.folds > 1)})
    return merge(*lists)


def _product_parts(family: Family, unit: "MagnitudeUnit") -> Parts:
    gains, bits = unit.gains, unit.element.width + (not unit.element.signed)
    if gains.varies:
        return product_parts(family, gains.width, bits, unit.lanes)
    ones = sum(max(0, int(gain).bit_count() - 1) for gain in gains.folded[0])
    if family.multipliers:
        return {"dsp": sum(int(gain).bit_count() > 1 for gain in gains.folded[0])}
    return {"shifted addend bit": ones * bits}


class _Table:
    """Numbers of each channel, as those of a beat's lanes.

    Parameters
    ----------
    values : ndarray of int64, shape (C,)
    lanes : int

    Attributes
    ----------
    folded : ndarray of int64, shape (C / lanes, lanes)
    varies : bool
        Whether beats differ.
    width : int
        Bits of a number in two's complement.
    """

    def __init__(self, values: NDArray[np.int64], lanes: int):
        self.folded = values.reshape(-1, lanes)
        self.varies = bool(np.any(self.folded != self.folded[0]))
        self.width = narrowest(min(-1, int(values.min())), int(values.max())).width

    def parts(self, family: Family) -> Parts:
        """Return the parts of `read`."""
        if not self.varies:
            return {}
        bits = varying_bits(self.folded, self.width)
        return rom_parts(family, len(self.folded), bits, ROMStyle.LUT)

    def read(self, m: Module, name: str, fold: Value, en: Value) -> list[Value]:
        """Return the numbers of a beat, a cycle later."""
        if not self.varies:
            return [Const(int(value), signed(self.width)) for value in self.folded[0]]
        lanes = self.folded.shape[1]
        m.submodules[name] = rom = ROM.of_lanes(self.folded, self.width, ROMStyle.LUT)
        m.d.comb += [rom.addr.eq(fold), rom.en.eq(en)]
        return list(data.View(data.ArrayLayout(signed(self.width), lanes), rom.data))


class MagnitudeUnit(wiring.Component):
    """``o = (sum over channels of |gain * i + offset| + half) >> shift`` for every pixel.

    A beat's lanes are worked on side by side and added up, and the beats of a pixel accumulated::

        i --|reg|--(x)--|reg|--(+)--|reg|--|abs|--|reg|--(adder tree)--(accumulator)-- o
                    ^           ^
            ROM(channels)   ROM(channels)

    `half` is half of the step that is shifted out. The ROM and the first register fall away where
    all beats of a pixel have the same numbers; registers stand behind every adder of the tree.

    Latency: `latency` cycles from a pixel's last beat: 4 (multiply, add, magnitude, accumulate),
    one more with a ROM, and one for every level of the tree.
    Cycles: a beat a cycle, without idle ones; ``C / lanes`` a pixel.

    Parameters
    ----------
    element : ShapeLike
        Shape of an input element, signed or unsigned.
    gains, offsets : ndarray of int64, shape (C,)
        No gain is negative.
    shift : int
        Low bits of the sum that are rounded away.
    lanes : int
        Channels of a beat; divides C.
    ends : (int, int), optional
        Least and largest element; those of the shape by default.

    Attributes
    ----------
    folds : int
        Beats of a pixel.
    width : int
        Bits of the largest magnitude.
    total_bits : int
        Bits of the largest sum before the shift.
    o_element : Shape
    latency : int

    Members
    -------
    i : In(stream.Signature(ArrayLayout(element, lanes)))
    o : Out(stream.Signature(ArrayLayout(o_element, 1)))

    Raises
    ------
    ValueError
        If a parameter is illegal; the message says what would be legal.
    """

    def __init__(
        self,
        element: ShapeLike,
        gains: NDArray[np.integer],
        offsets: NDArray[np.integer],
        *,
        shift: int,
        lanes: int,
        ends: tuple[int, int] | None = None,
    ):
        self.element = shape = Shape.cast(element)
        if gains.ndim != 1 or not gains.size or gains.shape != offsets.shape:
            raise ValueError(
                f"gains and offsets must have one shape (C,), not {gains.shape} and {offsets.shape}"
            )
        if gains.min() < 0:
            raise ValueError(f"gains must not be negative, not {gains.min()}: turn both signs")
        if lanes < 1 or len(gains) % lanes:
            raise ValueError(f"lanes must divide {len(gains)} channels, which {lanes!r} does not")
        if shift < 0:
            raise ValueError(f"shift must be at least 0, not {shift!r}")
        least = -(1 << shape.width - 1) if shape.signed else 0
        fits = least, least + (1 << shape.width) - 1
        low, high = ends or fits
        if not fits[0] <= low <= high <= fits[1]:
            raise ValueError(f"ends must lie in {fits}, as the elements, not {ends}")
        self.gains = _Table(gains.astype(np.int64), lanes)
        self.offsets = _Table(offsets.astype(np.int64), lanes)
        self.lanes, self.shift, self.folds = lanes, shift, len(gains) // lanes
        self.half = (1 << shift) // 2
        magnitudes = [
            max(abs(gain * end + offset) for end in (low, high))
            for gain, offset in zip(gains.tolist(), offsets.tolist(), strict=True)
        ]
        self.width = bits_for(max(magnitudes))
        largest = sum(magnitudes) + self.half
        self.total_bits = bits_for(largest)
        self.o_element = narrowest(0, largest >> shift)
        self._levels = ceil_log2(lanes)
        self._varying = int(self.gains.varies or self.offsets.varies)
        self.latency = 4 + self._varying + self._levels
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(shape, lanes))),
                "o": Out(stream.Signature(data.ArrayLayout(self.o_element, 1))),
            }
        )

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which sums leave, given those from which on each beat is offered.

        Parameters
        ----------
        arrivals : ndarray of int, shape (pixels * folds,)

        Returns
        -------
        ndarray of int, shape (pixels,)
            For a consumer that is always ready.
        """
        beats = np.arange(len(arrivals))
        taken = np.maximum.accumulate(arrivals - beats) + beats
        return taken[self.folds - 1 :: self.folds] + self.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        en = Signal()
        steps = self.latency - 1
        valid = Signal(steps)  # bit n: a beat has taken n + 1 steps
        fold = Signal(range(self.folds))
        o_valid = Signal()
        m.d.comb += [
            en.eq(~o_valid | self.o.ready),
            self.i.ready.eq(en),
            self.o.valid.eq(o_valid),
        ]
        first, last = (
            delay(m, fold == end, steps, en, name)
            for end, name in ((0, "first"), (self.folds - 1, "last"))
        )
        with m.If(en):
            m.d.sync += [valid.eq(valid << 1 | self.i.valid), o_valid.eq(valid[-1] & last)]
        with m.If(en & self.i.valid):
            m.d.sync += fold.eq(Mux(fold == self.folds - 1, 0, fold + 1))
        terms = self._magnitudes(m, fold, en)
        for level in range(self._levels):
            sums = [one + two for one, two in zip(terms[::2], terms[1::2], strict=False)]
            sums += terms[len(terms) - len(terms) % 2 :]
            terms = [_register(m, value, en, f"sum_{level}_{n}") for n, value in enumerate(sums)]
        total = Signal(self.total_bits, reset_less=True)
        with m.If(en & valid[-1]):
            m.d.sync += total.eq(Mux(first, self.half, total) + terms[0])
        m.d.comb += self.o.payload[0].eq(total >> self.shift)
        return m

    def _magnitudes(self, m: Module, fold: Value, en: Value) -> list[Value]:
        """Return the magnitudes of a beat's lanes."""
        payload = delay(m, self.i.payload, self._varying, en, "element")
        gains = self.gains.read(m, "gains", fold, en)
        offsets = self.offsets.read(m, "offsets", fold, en)
        result: list[Value] = []
        for lane, (element, gain, offset) in enumerate(zip(payload, gains, offsets, strict=True)):
            product = _register(m, element * gain, en, f"product_{lane}")
            offset = offset if isinstance(offset, Const) else _register(m, offset, en, f"b_{lane}")
            moved = Signal(signed(self.width + 1), name=f"moved_{lane}", reset_less=True)
            magnitude = Signal(self.width, name=f"magnitude_{lane}", reset_less=True)
            with m.If(en):
                m.d.sync += [
                    moved.eq(product + offset),
                    magnitude.eq(Mux(moved < 0, -moved, moved)),
                ]
            result.append(magnitude)
        return result


def _register(m: Module, value: Value, en: Value, name: str) -> Signal:
    register = Signal(value.shape(), name=name, reset_less=True)
    with m.If(en):
        m.d.sync += register.eq(value)
    return register
