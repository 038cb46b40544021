"""Pooling over windows that do not overlap."""

from itertools import pairwise
from typing import Literal

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.hdl import Shape, ShapeLike, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, index_bits, merge, storage_parts

__all__ = ["PoolUnit", "pool_parts"]


def pool_parts(
    family: Family,
    element_bits: int,
    shape: tuple[int, int, int],
    kernel: tuple[int, int],
    *,
    lanes: int,
    op: Literal["or", "max", "sum"],
    registers: bool,
) -> Parts:
    """Return the parts of a `PoolUnit`; `element_bits` is those of an element that goes out.

    Falling channels cost nothing more: the LUTs that combine and give out also invert.
    """
    if op == "max" and element_bits == 1:
        op = "or"
    if kernel == (1, 1):
        return {}
    folds, width = shape[2] // lanes, lanes * element_bits
    columns = shape[1] // kernel[1] if kernel[0] > 1 else 1
    words = columns * folds
    # Rows and columns that fill no window are counted too.
    rests = [shape[axis] % kernel[axis] > 0 for axis in (0, 1)]
    rows = shape[0] // kernel[0] + 1 if rests[0] else 1
    counted = columns + rests[1] if rests[1] or kernel[0] > 1 else 1
    lists: list[Parts] = [
        {"pool": 1, "pool counter bit": index_bits(folds, rows, counted, *kernel)},
        {"dropped edge": sum(rests), "register": width},
        {"or bit": width}
        if op == "or"
        else family.adder("maximum" if op == "max" else "pool adder", element_bits, lanes),
    ]
    if registers or words == 1:
        far = (words - folds) * width
        lists.append(
            {"bare register": words * width, "near word bit": width, "far bit": width if far else 0}
        )
        return merge(*lists)
    lists.append(storage_parts(family, min(_depths(columns, folds)), width))
    # A window's first element is not added to what lies in the memory; the multiplexers of maxima
    # have room for half of that.
    lists.append({"first element bit": {"or": 0.0, "max": width / 2, "sum": width}[op]})
    if folds == 1:
        # Where it is not ORed, the same LUT leaves out the first element.
        lists.append({"latest word bit": width if op == "or" else 0, "bare register": width})
    return merge(*lists)


def _depths(columns: int, folds: int) -> tuple[int, int]:
    """Return the words of a memory for a row, with the fold or the column as the low address bits.

    An address is made of two numbers: there are holes where the low one's is no power of two.
    """
    bits = ceil_log2(folds), ceil_log2(columns)
    return ((columns - 1) << bits[0]) + folds, ((folds - 1) << bits[1]) + columns


def _sum_shape(element: Shape, terms: int) -> Shape:
    """Return the narrowest shape that holds every sum of `terms` elements."""
    if element.signed:
        return signed(bits_for(-(terms << element.width - 1), require_sign_bit=True))
    return unsigned(bits_for(terms * ((1 << element.width) - 1)))


class _Counter:
    """Counts windows and their taps along one axis.

    Parameters
    ----------
    m : Module
        The module that gets the registers.
    name : str
        Prefix of the registers' names.
    windows, kernel, rest : int
        Windows side by side, the taps of each, and the places after them that fill no window.
    en : Value
        Go on to the next place.
    """

    def __init__(self, m: Module, name: str, windows: int, kernel: int, rest: int, en: Value):
        self.window = Signal(range(windows + (rest > 0)), name=f"{name}_window")
        self.tap = Signal(range(kernel), name=f"{name}_tap")
        self.first_tap, self.last_tap = self.tap == 0, self.tap == kernel - 1
        if rest:
            self.inside = self.window != windows
            self.end = ~self.inside & (self.tap == rest - 1)
        else:
            self.inside = Const(1)
            self.end = (self.window == windows - 1) & self.last_tap
        self.next_window = Signal.like(self.window)
        m.d.comb += self.next_window.eq(
            Mux(en, Mux(self.end, 0, self.window + self.last_tap), self.window)
        )
        m.d.sync += self.window.eq(self.next_window)
        with m.If(en):
            m.d.sync += self.tap.eq(Mux(self.end | self.last_tap, 0, self.tap + 1))


class _DelayLine(wiring.Component):
    """Give each word back when its window goes on: the next tap, or the next row of taps.

    Members
    -------
    en : In(1)
        Store `i` and shift.
    clear : In(1)
        The window is complete: store 0 instead, with which its place's next window begins.
    row : In(1)
        A row of taps begins.
    i : In(shape)
    o : Out(shape)
        The word of `near` steps ago; where a row of taps begins, that of the row before it.
    """

    def __init__(self, shape: ShapeLike, near: int, words: int):
        self.shape, self.near, self.words = shape, near, words
        super().__init__(
            {
                "en": In(1),
                "clear": In(1),
                "row": In(1),
                "i": In(shape),
                "o": Out(shape),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = [Signal(self.shape, name=f"word_{n}") for n in range(self.words)]
        near, far = line[: self.near], line[self.near :]
        with m.If(self.en):
            m.d.sync += [word.eq(before) for before, word in pairwise([self.i, *near])]
        # Not a part of what is stored: this is the reset input of the first word's flip-flops.
        with m.If(self.clear):
            m.d.sync += line[0].eq(0)
        m.d.comb += self.o.eq(near[-1])
        if far:
            with m.If(self.row):
                m.d.comb += self.o.eq(far[-1])
            with m.If(self.en & self.row):
                m.d.sync += [word.eq(before) for before, word in pairwise([near[-1], *far])]
        return m


class PoolUnit(wiring.Component):
    """Pool the pixels of every window: OR of bits, maximum or sum of integers.

    The stride is the kernel and nothing is padded, so ``H_out = H // KH``, ``W_out = W // KW``;
    rows and columns at the end that fill no window are taken and dropped. Pixels come row by row,
    each in ``F = C / lanes`` beats, and leave in the same form. A beat is combined with what its
    window has so far, which is kept, or leaves if the beat completes the window::

        i --> (combine) --> |output register| --> o
               ^     |
               |     v
             |partials of a row of windows|

    Partials: ``W_out * F`` words, F with one row of taps or one column of windows. In a memory they
    lie at one address for each window and channel group, which is read one beat ahead. In
    flip-flops they circulate without addresses: a word is wanted again after F beats, but after the
    other ``W_out - 1`` windows when the next row of taps begins.

    Cycles per frame: ``H * W * F``, one input beat a cycle without idle cycles at the borders of
    windows, rows and frames. While an output beat waits, input is taken up to the beat that
    completes the next one.
    Latency: 1 cycle from a window's last beat to its output beat. A kernel of 1 x 1 is a wire:
    latency 0.

    Overlapping or padded windows come from a `SlidingWindow`, each as an image of
    ``1 x KH * KW`` pixels pooled with the kernel ``(1, KH * KW)``.

    Channels that are `falling` take the AND of bits or the minimum of integers: their elements are
    inverted on the way in, which turns their order around, and back on the way out.

    Parameters
    ----------
    element : ShapeLike
        Shape of an element: unsigned(1) with "or".
    shape : tuple of int
        Height, width and channels ``(H, W, C)`` of the image.
    kernel : tuple of int
        Height and width ``(KH, KW)`` of a window; that of the image pools globally.
    lanes : int
        Channels of a beat; divides C.
    op : "or", "max" or "sum"
        What is made of a window's elements. Partial maxima are kept above the element's lowest
        number, so that 0 is the least: in two's complement only the sign bit turns.
    registers : bool
        Keep the partials in flip-flops instead of what the tools choose: saves a scarce block RAM
        where few words are kept and the device has no distributed RAM (iCE40). A single word is
        always kept so.
    falling : ndarray of bool, shape (C,), optional
        Channels that take the minimum, with "or" and "max"; none by default.

    Attributes
    ----------
    o_element : Shape
        Shape of an output element; with "sum" the narrowest that holds every sum.
    o_shape : tuple of int
        Height, width and channels ``(H_out, W_out, C)`` of the pooled image.
    words : int
        Partials kept, of `lanes` output elements each; 0 with a kernel of 1 x 1.
    cycles_per_frame, latency : int

    Members
    -------
    i : In(stream.Signature(ArrayLayout(element, lanes)))
    o : Out(stream.Signature(ArrayLayout(o_element, lanes)))

    Raises
    ------
    ValueError
        If a parameter is illegal; the message says what would be legal.
    """

    def __init__(
        self,
        element: ShapeLike,
        shape: tuple[int, int, int],
        kernel: tuple[int, int],
        *,
        lanes: int,
        op: Literal["or", "max", "sum"],
        registers: bool = False,
        falling: NDArray[np.bool_] | None = None,
    ):
        if min(shape) < 1:
            raise ValueError(f"every number in shape must be at least 1, not {shape}")
        for axis, name in enumerate(("height", "width")):
            if not 1 <= kernel[axis] <= shape[axis]:
                raise ValueError(
                    f"the kernel's {name} must be in 1 .. {shape[axis]}, the image's {name}, "
                    f"not {kernel[axis]}"
                )
        if lanes < 1 or shape[2] % lanes:
            raise ValueError(f"lanes must divide the {shape[2]} channels, which {lanes!r} does not")
        if op not in ("or", "max", "sum"):
            raise ValueError(f"op must be 'or', 'max' or 'sum', not {op!r}")
        if falling is not None and (op == "sum" or falling.shape != shape[2:]):
            raise ValueError(
                f"falling must have shape ({shape[2]},) and op be 'or' or 'max', not "
                f"{falling.shape} and {op!r}"
            )
        self.element = Shape.cast(element)
        if op == "or" and self.element != unsigned(1):
            raise ValueError(f"element must be unsigned(1) with op 'or', not {self.element}")

        self.shape, self.kernel, self.lanes, self.op = shape, kernel, lanes, op
        self.taps = kernel[0] * kernel[1]
        self.o_element = self.element if op != "sum" else _sum_shape(self.element, self.taps)
        self._partial = unsigned(self.element.width) if op == "max" else self.o_element
        self.o_shape = (shape[0] // kernel[0], shape[1] // kernel[1], shape[2])
        self.folds = shape[2] // lanes
        self.falling = np.zeros(shape[2], bool) if falling is None else falling
        self._columns = self.o_shape[1] if kernel[0] > 1 else 1  # windows that are open at a time
        self.words = self._columns * self.folds if self.taps > 1 else 0
        self.registers = registers or self.words == 1
        self.cycles_per_frame = shape[0] * shape[1] * self.folds
        self.latency = 1 if self.taps > 1 else 0
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(self.element, lanes))),
                "o": Out(stream.Signature(data.ArrayLayout(self.o_element, lanes))),
            }
        )

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which the beats of images leave, given those at which they arrive.

        Parameters
        ----------
        arrivals : ndarray of int, shape (images * H * W * F,)
            Cycles from which on each input beat is offered.

        Returns
        -------
        ndarray of int, shape (images * H_out * W_out * F,)
            For an idle unit and a consumer that is always ready.
        """
        beats = np.arange(len(arrivals))
        taken = np.maximum.accumulate(arrivals - beats) + beats
        (rows, columns), (height, width) = self.o_shape[:2], self.kernel
        pixels = taken.reshape(-1, self.shape[0], self.shape[1], self.folds)
        last = pixels[:, height - 1 : rows * height : height, width - 1 : columns * width : width]
        return last.reshape(-1) + self.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.taps == 1:
            wiring.connect(m, wiring.flipped(self.i), wiring.flipped(self.o))
            return m

        # Nothing tells rows of windows apart unless rows are dropped, nor windows in one row of
        # taps unless columns are.
        accept = Signal()
        rest_y, rest_x = (self.shape[axis] % self.kernel[axis] for axis in (0, 1))
        rows = self.o_shape[0] if rest_y else 1
        columns = self.o_shape[1] if rest_x or self.kernel[0] > 1 else 1
        fold = _Counter(m, "fold", self.folds, 1, 0, accept)
        x = _Counter(m, "x", columns, self.kernel[1], rest_x, accept & fold.end)
        y = _Counter(m, "y", rows, self.kernel[0], rest_y, accept & fold.end & x.end)

        lanes = data.ArrayLayout(self._partial, self.lanes)
        partial, combined = Signal(lanes), Signal(lanes)
        keep, complete = Signal(), Signal()
        m.d.comb += [
            complete.eq(x.inside & y.inside & x.last_tap & y.last_tap),
            self.i.ready.eq(~self.o.valid | self.o.ready | ~complete),
            accept.eq(self.i.valid & self.i.ready),
            keep.eq(accept & x.inside & y.inside),
        ]
        if self.registers:
            m.submodules.line = line = _DelayLine(lanes, self.folds, self.words)
            m.d.comb += [
                line.en.eq(keep),
                line.row.eq(x.first_tap),
                line.clear.eq(keep & complete),
                line.i.eq(combined),
                partial.eq(line.o),
            ]
        else:
            self._store(m, fold, x, y, accept, keep, partial, combined)
        turned = self._turned(fold.window)
        for total, so_far, element, turn in zip(
            combined, partial, self.i.payload, turned, strict=True
        ):
            m.d.comb += total.eq(self._combine(so_far, element, turn))

        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(accept & complete):
            m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(self._given(combined, turned))]
        return m

    def _combine(self, partial: Value, element: Value, turned: int | Value) -> Value:
        """Return what a window has with one more element."""
        match self.op:
            case "or":
                return partial | (element if self._is_plain else element ^ turned)
            case "sum":
                return partial + element
            case _:
                above = element.as_unsigned() ^ turned
                # "Less" is a carry alone; for "greater" yosys compares for equality beside it.
                return Mux(partial < above, above, partial)

    @property
    def _is_plain(self) -> bool:
        """Whether partials are as elements are."""
        return not self.falling.any() and not (self.op == "max" and self.element.signed)

    def _turned(self, fold: Value) -> list[int | Value]:
        """Return, for each lane, the bits of an element that partials have inverted."""
        ones = (1 << self.element.width) - 1
        sign = 1 << self.element.width - 1 if self.op == "max" and self.element.signed else 0
        lanes: list[int | Value] = []
        for column in self.falling.reshape(self.folds, self.lanes).T.tolist():
            if len(set(column)) == 1:
                lanes.append(sign ^ ones if column[0] else sign)
                continue
            flags = Const(sum(1 << place for place, falls in enumerate(column) if falls))
            lanes.append(Mux(flags.bit_select(fold, 1), sign ^ ones, sign))
        return lanes

    def _given(self, combined: data.View, turned: list[int | Value]) -> Value:
        """Return combined partials as elements."""
        if self._is_plain:
            return combined.as_value()
        return Cat(partial ^ turn for partial, turn in zip(combined, turned, strict=True))

    def _store(
        self,
        m: Module,
        fold: _Counter,
        x: _Counter,
        y: _Counter,
        accept: Value,
        keep: Value,
        partial: data.View,
        combined: data.View,
    ) -> None:
        """Keep `combined` in a memory, and take `partial` from there."""
        # The order that leaves fewer holes is taken.
        bits = ceil_log2(self.folds), ceil_log2(self._columns)
        depths = _depths(self._columns, self.folds)

        def address(fold: Value, window: Value) -> Value:
            low, high = fold[: bits[0]], window[: bits[1]]
            return Cat(low, high) if depths[0] <= depths[1] else Cat(high, low)

        # The next beat's word is read now. It is being written only if there is one channel group,
        # and then not needed, so that no logic need care for that case; yosys takes this attribute
        # for a port without clock and a register behind it only.
        lanes = data.ArrayLayout(self._partial, self.lanes)
        m.submodules.words = words = memory.Memory(
            shape=lanes, depth=min(depths), init=[], attrs={"no_rw_check": 1}
        )
        write, read = words.write_port(), words.read_port(domain="comb")
        ahead = Signal(lanes, reset_less=True)
        m.d.comb += [
            write.addr.eq(address(fold.window, x.window)),
            write.data.eq(combined),
            write.en.eq(keep),
            read.addr.eq(address(fold.next_window, x.next_window)),
            partial.eq(ahead),
        ]
        with m.If(accept):
            m.d.sync += ahead.eq(read.data)
        if self.folds == 1:
            last = Signal(lanes, reset_less=True)
            with m.If(keep):
                m.d.sync += last.eq(combined)
            with m.If(~x.first_tap):
                m.d.comb += partial.eq(last)
        with m.If(x.first_tap & y.first_tap):
            m.d.comb += partial.eq(0)
