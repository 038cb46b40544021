"""Shortcuts: a stream that goes two ways, and two streams that become one."""

from typing import Literal

import numpy as np
from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.hdl import Shape, ShapeLike, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, index_bits, merge
from xnorflow.hw.pipeline import delay
from xnorflow.hw.rom import ROM, ROMStyle, rom_parts, varying_bits

__all__ = ["JoinUnit", "Range", "StreamFork", "fork_parts", "join_parts", "narrowest"]

#: Least and largest number.
Range = tuple[int, int]


def narrowest(low: int, high: int) -> Shape:
    """Return the narrowest shape that holds the integers from `low` to `high`."""
    if low >= 0:
        return unsigned(bits_for(high))
    return signed(max(bits_for(low, True), bits_for(high, True)))


def _full_range(element: Shape) -> Range:
    if element.signed:
        return -(1 << element.width - 1), (1 << element.width - 1) - 1
    return 0, (1 << element.width) - 1


def fork_parts() -> Parts:
    """Return the parts of a `StreamFork`."""
    # Two offers that are masked, two flags, and whether both have taken.
    return {"masked bit": 2, "register": 2, "comparator LUT": 3}


class StreamFork(wiring.Component):
    """Give every beat of a stream to two consumers, each of which takes it when it likes.

    A beat is taken off the input as soon as both have it; a flag notes which one has already. An
    offer depends on flags and the input only, never on whether a consumer is ready.

    Latency: 0. Cycles: a beat a cycle where both consumers are ready.

    Parameters
    ----------
    shape : ShapeLike
        Payload of all streams.

    Members
    -------
    i : In(stream.Signature(shape))
    o, side : Out(stream.Signature(shape))
    """

    def __init__(self, shape: ShapeLike):
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "side": Out(stream.Signature(shape)),
            }
        )

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which beats leave at both outputs, given those of their offers.

        Parameters
        ----------
        arrivals : ndarray of int, shape (beats,)

        Returns
        -------
        ndarray of int, shape (beats,)
            For consumers that are always ready.
        """
        return _one_by_one(arrivals)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        has = []
        for output, name in ((self.o, "main"), (self.side, "side")):
            had = Signal(name=f"{name}_had")
            now = Signal(name=f"{name}_has")
            m.d.comb += [
                output.payload.eq(self.i.payload),
                output.valid.eq(self.i.valid & ~had),
                now.eq(had | output.ready),
            ]
            m.d.sync += had.eq(self.i.valid & now & ~self.i.ready)
            has.append(now)
        m.d.comb += self.i.ready.eq(has[0] & has[1])
        return m


def _one_by_one(arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return when beats that arrive so are taken, at most one a cycle."""
    beats = np.arange(len(arrivals))
    return np.maximum.accumulate(arrivals - beats) + beats


def join_parts(family: Family, unit: "JoinUnit") -> Parts:
    """Return the parts of a `JoinUnit`."""
    width, lanes = unit.o_element.width, unit.lanes
    if unit.how != "add":
        beats = sum(unit.beats)
        return {
            "resizer": 1,
            "resizer counter bit": index_bits(beats),
            "resized bit": width * lanes,
        }
    lists: list[Parts] = [
        {"channel stage": 1, "bare register": unit.latency - 1},
        family.adder("fixed adder", width, lanes),
        {"register": width * lanes},
    ]
    gains = unit.gains
    if gains is None or unit.latency == 1:
        return merge(*lists)
    varying = np.any(gains != gains[:, :1])
    lists.append({"channel counter bit": index_bits(gains.shape[1]) if varying else 0})
    for element, rows in zip(unit.elements, gains, strict=True):
        if varying:
            lists.append({"bare register": lanes * element.width})
        if np.any(rows != rows[0]):
            bits = varying_bits(rows, _width(rows))
            lists.append(rom_parts(family, len(rows), bits, ROMStyle.LUT))
            lists.append({"register": bits + lanes * element.width})
            lists.append(
                {"dsp": lanes} if family.multipliers else {"product bit": bits * element.width}
            )
            continue
        for gain in np.abs(rows[0]).tolist():
            ones = gain.bit_count()
            lists.append({"register" if ones > 1 else "bare register": element.width})
            if ones > 1 and family.multipliers:
                lists.append({"dsp": 1})
            else:
                lists.append({"shifted addend bit": max(0, ones - 1) * element.width})
    return merge(*lists)


def _width(gains: NDArray[np.int64]) -> int:
    """Return the bits of gains in two's complement."""
    return narrowest(min(-1, int(gains.min())), int(gains.max())).width


class JoinUnit(wiring.Component):
    """Make one stream of two: add them, or put their channels side by side.

    With "add", ``o = gains[0][channel] * i + gains[1][channel] * side``::

        i ----(x)--|reg|--.
        side -(x)--|reg|-(+)--|reg|-- o
               ^
              ROM(channels)

    A beat leaves for each pair of beats. Gains that are not all 1 are made of constants where each
    lane has one gain, of a ROM otherwise; if all are powers of two and constants, wires multiply.

    With "append" a pixel's beats of `i` go first and then those of `side`, with "prepend" the other
    way round; elements keep their values in the output's shape.

    Latency: `latency` cycles. "append" and "prepend": 0. "add": 1, one more if anything multiplies
    and one more for a ROM.
    Cycles: a beat a cycle, without idle ones.

    Parameters
    ----------
    elements : (ShapeLike, ShapeLike)
        Shapes of an element of `i` and of `side`, signed or unsigned.
    channels : (int, int)
        Channels of a pixel of `i` and of `side`, C each with "add".
    lanes : int
        Channels of a beat of each stream; divides both.
    how : "add", "append" or "prepend"
    gains : ndarray of int, shape (2, C), optional
        With "add"; all 1 by default.
    ranges : (Range, Range), optional
        Least and largest element of `i` and of `side`; those of the shapes by default.

    Attributes
    ----------
    o_element : Shape
        Shape of an output element, the narrowest for the ranges.
    o_range : Range
        The least and the largest output element.
    beats : (int, int)
        Beats of a pixel of `i` and of `side`.
    o_beats : int
        Beats of a pixel that go out.
    latency : int

    Members
    -------
    i : In(stream.Signature(ArrayLayout(elements[0], lanes)))
    side : In(stream.Signature(ArrayLayout(elements[1], lanes)))
    o : Out(stream.Signature(ArrayLayout(o_element, lanes)))

    Raises
    ------
    ValueError
        If a parameter is illegal; the message says what would be legal.
    """

    def __init__(
        self,
        elements: tuple[ShapeLike, ShapeLike],
        channels: tuple[int, int],
        *,
        lanes: int,
        how: Literal["add", "append", "prepend"],
        gains: NDArray[np.integer] | None = None,
        ranges: tuple[Range, Range] | None = None,
    ):
        if how not in ("add", "append", "prepend"):
            raise ValueError(f"how must be 'add', 'append' or 'prepend', not {how!r}")
        if min(channels) < 1:
            raise ValueError(f"channels must be at least 1 in each stream, not {channels}")
        if how == "add" and channels[0] != channels[1]:
            raise ValueError(f"both streams must have as many channels, not {channels}")
        if lanes < 1 or channels[0] % lanes or channels[1] % lanes:
            raise ValueError(
                f"lanes must divide {channels[0]} and {channels[1]} channels, which {lanes!r} "
                "does not"
            )
        if gains is not None and (how != "add" or gains.shape != (2, channels[0])):
            raise ValueError(
                f"gains must have shape (2, {channels[0]}) and how be 'add', not {gains.shape} and "
                f"{how!r}"
            )
        self.elements = tuple(Shape.cast(element) for element in elements)
        fits = tuple(_full_range(element) for element in self.elements)
        ranges = ranges or (fits[0], fits[1])
        for (low, high), (least, largest) in zip(ranges, fits, strict=True):
            if not least <= low <= high <= largest:
                raise ValueError(
                    f"ranges must lie in {fits[0]} and {fits[1]}, as the elements, not {ranges}"
                )
        self.lanes, self.how = lanes, how
        self.beats = (channels[0] // lanes, channels[1] // lanes)
        self.o_beats = self.beats[0] if how == "add" else sum(self.beats)
        self.gains: NDArray[np.int64] | None = None
        if gains is not None:
            self.gains = gains.astype(np.int64).reshape(2, -1, lanes)
        self.o_range = self._o_range(ranges)
        self.o_element = narrowest(*self.o_range)
        self._varying = self.gains is not None and bool(np.any(self.gains != self.gains[:, :1]))
        wired = self.gains is None or (
            not self._varying
            and bool(np.all((self.gains > 0) & (self.gains & self.gains - 1 == 0)))
        )
        self.latency = 0 if how != "add" else 1 + (not wired) + self._varying
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(self.elements[0], lanes))),
                "side": In(stream.Signature(data.ArrayLayout(self.elements[1], lanes))),
                "o": Out(stream.Signature(data.ArrayLayout(self.o_element, lanes))),
            }
        )

    def _o_range(self, ranges: tuple[Range, Range]) -> Range:
        ends = np.array(ranges, np.int64)  # (stream, end)
        if self.how != "add":
            return int(ends.min()), int(ends.max())
        gains = np.ones((2, 1), np.int64) if self.gains is None else self.gains.reshape(2, -1)
        products = gains[:, :, None] * ends[:, None, :]
        return (
            int(products.min(axis=2).sum(axis=0).min()),
            int(products.max(axis=2).sum(axis=0).max()),
        )

    def schedule(self, main: NDArray[np.int64], side: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which beats leave, given those from which on each is offered.

        Parameters
        ----------
        main, side : ndarray of int, shape (pixels * beats[n],)
            Of beats that wait for room in a queue, the cycles at which they joined it.

        Returns
        -------
        ndarray of int, shape (pixels * o_beats,)
            For a consumer that is always ready.
        """
        if self.how == "add":
            return _one_by_one(np.maximum(main, side)) + self.latency
        pair = [main.reshape(-1, self.beats[0]), side.reshape(-1, self.beats[1])]
        ordered = pair if self.how == "append" else pair[::-1]
        return _one_by_one(np.concatenate(ordered, axis=1).reshape(-1))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.how == "add":
            self._add(m)
        else:
            self._put_beside(m)
        return m

    def _put_beside(self, m: Module) -> None:
        own, other = (self.i, self.side) if self.how == "append" else (self.side, self.i)
        first = self.beats[0 if self.how == "append" else 1]
        beat = Signal(range(self.o_beats))
        turn = Signal()  # of the one behind
        m.d.comb += [
            turn.eq(beat >= first),
            self.o.valid.eq(Mux(turn, other.valid, own.valid)),
            own.ready.eq(~turn & self.o.ready),
            other.ready.eq(turn & self.o.ready),
        ]
        for result, early, late in zip(self.o.payload, own.payload, other.payload, strict=True):
            m.d.comb += result.eq(Mux(turn, late, early))
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += beat.eq(Mux(beat == self.o_beats - 1, 0, beat + 1))

    def _add(self, m: Module) -> None:
        en = Signal()
        both = Signal()
        valid = Signal(self.latency)  # bit n: a beat has taken n + 1 steps
        m.d.comb += [
            en.eq(~self.o.valid | self.o.ready),
            both.eq(self.i.valid & self.side.valid),
            self.i.ready.eq(en & self.side.valid),
            self.side.ready.eq(en & self.i.valid),
            self.o.valid.eq(valid[-1]),
        ]
        with m.If(en):
            m.d.sync += valid.eq(valid << 1 | both)
        fold = Signal(range(self.beats[0]))
        if self._varying:
            with m.If(en & both):
                m.d.sync += fold.eq(Mux(fold == self.beats[0] - 1, 0, fold + 1))
        terms = [self._products(m, number, fold, en) for number in range(2)]
        with m.If(en):
            m.d.sync += [
                result.eq(main + side)
                for result, main, side in zip(self.o.payload, *terms, strict=True)
            ]

    def _products(self, m: Module, number: int, fold: Signal, en: Value) -> list[Value]:
        """Return the elements of a stream times their gains."""
        stream_in = (self.i, self.side)[number]
        if self.gains is None:
            return list(stream_in.payload)
        gains = self.gains[number]
        payload = delay(m, stream_in.payload, int(self._varying), en, f"element_{number}")
        factors: list[Value | int] = [int(gain) for gain in gains[0]]
        if np.any(gains != gains[0]):
            width = _width(gains)
            rom = ROM.of_lanes(gains, width, ROMStyle.LUT)
            m.submodules[f"gains_{number}"] = rom
            m.d.comb += [rom.addr.eq(fold), rom.en.eq(en)]
            factors = list(data.View(data.ArrayLayout(signed(width), self.lanes), rom.data))
        products = [element * factor for element, factor in zip(payload, factors, strict=True)]
        if self.latency == 1:
            return products
        registers = []
        for lane, product in enumerate(products):
            register = Signal(product.shape(), name=f"product_{number}_{lane}", reset_less=True)
            with m.If(en):
                m.d.sync += register.eq(product)
            registers.append(register)
        return registers
