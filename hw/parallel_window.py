"""Sliding window of a convolution, a whole window in each beat."""

from functools import cache
from math import gcd

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Shape, ShapeLike, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, index_bits, merge, storage_parts
from xnorflow.hw.sliding_window import WindowGeometry, between, pad_constants

__all__ = ["ParallelWindow", "parallel_window_parts", "shifts"]


def shifts(geometry: WindowGeometry) -> int:
    """Return the cycles that a frame takes a `ParallelWindow`."""
    height, width, _ = geometry.shape
    rows, columns = ((geometry.outputs[axis] - 1) * geometry.stride[axis] + 1 for axis in (0, 1))
    pitch = max(width, columns)
    return max((height - 1) * pitch + width, (rows - 1) * pitch + columns)


@cache
def parallel_window_parts(family: Family, geometry: WindowGeometry, element_bits: int) -> Parts:
    """Return the parts of a `ParallelWindow`."""
    height, width, channels = geometry.shape
    pixel = channels * element_bits
    inside = [geometry.inside(axis) for axis in (0, 1)]
    # Taps that lie on the image in some windows only are masked.
    whole = [axis.all(axis=0).sum() for axis in inside]
    used = [axis.any(axis=0) for axis in inside]
    masked = int(used[0].sum() * used[1].sum() - whole[0] * whole[1])
    spans = [
        (int(np.flatnonzero(axis)[-1]) - int(np.flatnonzero(axis)[0])) * step
        for axis, step in zip(used, geometry.dilation, strict=True)
    ]
    pitch = max(width, (geometry.outputs[1] - 1) * geometry.stride[1] + 1)
    step = geometry.dilation[0]
    words, word = step * pitch, spans[0] // step * pixel
    counters = index_bits(height, pitch, geometry.outputs[0] * geometry.stride[0], pitch)
    parts: Parts = {
        "parallel window": 1,
        "parallel counter bit": counters + index_bits(*geometry.stride),
        "mask": int(sum(used[axis].sum() - whole[axis] for axis in (0, 1))),
        "masked bit": masked * pixel,
        "bare register": int(used[0].sum()) * (spans[1] + 1) * pixel,
    }
    if not word:
        return parts
    if words == 1:
        return merge(parts, {"bare register": word})
    return merge(
        parts, {"parallel address bit": 2 * index_bits(words)}, storage_parts(family, words, word)
    )


class ParallelWindow(wiring.Component):
    """Give every window of an image in one beat: the input of a layer that takes a pixel a cycle.

    All pixels, row by row, go through one long shift register with a tap for each place of the
    kernel; rows lie in memory, the kernel's columns in flip-flops::

        i --+----------------> |columns| --+
            `-> |row memory| -> |columns| -+--> (padding) --> o
                     `-> ...               |

    The shift does not stop at borders: columns run on into the next row, rows into the next
    frame, and taps that do not lie on the image are masked by the window's position. When no
    further frame is there, idle shifts bring the last windows out.

    Cycles per frame: ``max((H - 1) * P + W, (H_v - 1) * P + W_v)`` shifts, one a cycle, where
    ``H_v = (H_out - 1) * stride + 1`` and ``W_v`` likewise are the extents of the windows' places
    and ``P = max(W, W_v)``. That is ``H * W`` unless padding makes the output larger than the
    image. Windows of a strided convolution come in bursts, every stride cycles in every stride
    rows. Latency: 1 cycle from the last pixel that a window waits for to its beat.

    Parameters
    ----------
    element : ShapeLike
        Shape of an element.
    shape, kernel, stride, dilation, padding
        See `WindowGeometry`. Rows and columns that no window reads are taken and dropped.
    pad_values : ndarray of int, shape (C,), optional
        Value of a padded tap in each channel; zeros by default.
    zero_flag : bool
        Flag padded taps instead, for a consumer that makes them count as a true zero.
    granule : int, optional
        With `zero_flag`, the channels that share a flag; divides C, which it is by default.

    Attributes
    ----------
    geometry : WindowGeometry
    pitch : int
        Shifts from an image row to the next: P above.
    cycles_per_frame, latency : int
        See above.
    row_words, row_word_pixels : int
        Words of the row memory and pixels in each.

    Members
    -------
    i : In(stream.Signature(ArrayLayout(element, C)))
        A pixel.
    o : Out(stream.Signature(...))
        ``ArrayLayout(element, KH * KW * C)`` in the order (ky, kx, c), or with `zero_flag` an
        ``ArrayLayout`` of ``KH * KW * C / granule`` structures of ``lanes``, ``granule``
        elements, and ``pad``, 1 for a padded tap; its lanes are then 0.

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
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        pad_values: NDArray[np.integer] | None = None,
        zero_flag: bool = False,
        granule: int | None = None,
    ):
        self.geometry = WindowGeometry(shape, kernel, stride, dilation, padding)
        channels = shape[2]
        granule = channels if granule is None else granule
        if granule < 1 or channels % granule:
            legal = [divisor for divisor in range(1, channels + 1) if channels % divisor == 0]
            raise ValueError(f"granule must be one of {legal}, not {granule!r}")
        self.granule, self.zero_flag = granule, zero_flag
        self._pad_values = pad_constants(element, channels, pad_values, zero_flag)

        outputs = self.geometry.outputs
        #: Shifts along each axis from the first window's place to the last one's, inclusive.
        self._extent = [(outputs[axis] - 1) * stride[axis] + 1 for axis in (0, 1)]
        self.pitch = max(shape[1], self._extent[1])
        self.cycles_per_frame = self._shifts = shifts(self.geometry)
        self.latency = 1

        # Kernel rows and columns that lie on the image in some window, relative to the image's
        # first; the others are not kept.
        self._used = [np.flatnonzero(self.geometry.inside(axis).any(0)) for axis in (0, 1)]
        low, high = (
            [
                (int(used[end]) if len(used) else 0) * dilation[axis]
                for axis, used in enumerate(self._used)
            ]
            for end in (0, -1)
        )
        # The newest row and column that are kept: a window's place is where they meet. It may
        # not come before the frame's first pixel.
        newest_row = max(high[0], padding[0])
        newest_column = high[1]
        if newest_row == padding[0] or not len(self._used[1]):
            newest_column = max(newest_column, padding[1])
        self._newest = (newest_row, newest_column)
        self._lag = (newest_row - padding[0]) * self.pitch + newest_column - padding[1]
        self._columns = newest_column - low[1] + 1
        # The row memory shifts by the greatest step that meets all rows that are read.
        gap = gcd(newest_row - high[0], dilation[0]) if high[0] > low[0] else newest_row - high[0]
        self._row_step = max(gap, 1)
        self.row_word_pixels = (newest_row - low[0]) // self._row_step
        self.row_words = self._row_step * self.pitch if self.row_word_pixels else 0

        self._pixel = data.ArrayLayout(element, channels)
        taps = kernel[0] * kernel[1]
        lanes = data.ArrayLayout(element, granule)
        payload = (
            data.ArrayLayout(
                data.StructLayout({"lanes": lanes, "pad": unsigned(1)}), taps * channels // granule
            )
            if zero_flag
            else data.ArrayLayout(element, taps * channels)
        )
        super().__init__(
            {"i": In(stream.Signature(self._pixel)), "o": Out(stream.Signature(payload))}
        )

    def _places(self) -> NDArray[np.int64]:
        """Return the shift of each window, counted from the one of its frame's first pixel."""
        rows, columns = (
            np.arange(outputs) * stride
            for outputs, stride in zip(self.geometry.outputs, self.geometry.stride, strict=True)
        )
        return (rows[:, None] * self.pitch + columns).reshape(-1) + self._lag

    def needs(self) -> NDArray[np.int64]:
        """Return the last pixel that each window waits for, as a linear index.

        Returns
        -------
        ndarray of int, shape (H_out * W_out,)
            With padding on the right this may be later than the last pixel that it reads.
        """
        height, width, _ = self.geometry.shape
        row, column = np.divmod(self._places(), self.pitch)
        pixel = row * width + np.minimum(column, width - 1)
        return np.minimum(pixel, height * width - 1)

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which a frame's windows leave, given those at which pixels arrive.

        Parameters
        ----------
        arrivals : ndarray of int, shape (H * W,)
            Cycles at which the pixels can be taken.

        Returns
        -------
        ndarray of int, shape (H_out * W_out,)
            For an idle unit and a consumer that is always ready.
        """
        height, width, _ = self.geometry.shape
        places = self._places()
        last = max(height * self.pitch, int(places[-1]) + 1)
        earliest = np.full(last, arrivals[0])
        pixels = np.arange(height)[:, None] * self.pitch + np.arange(width)
        earliest[pixels.reshape(-1)] = arrivals
        count = np.arange(last)
        return (np.maximum.accumulate(earliest - count) + count)[places] + self.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        height, width, _ = self.geometry.shape
        pitch, size = self.pitch, self._pixel.size
        enable, shift = Signal(), Signal()
        m.d.comb += enable.eq(~self.o.valid | self.o.ready)

        # Input: the place of the next shift within its frame. Between rows shorter than the pitch
        # and behind the last row there is no pixel; at the first place a frame may be awaited.
        last_row, last_column = divmod(self._shifts - 1, pitch)
        row, column = Signal(range(last_row + 1)), Signal(range(pitch))
        has_pixel, begins = Signal(), Signal()
        emitting = Signal()  # windows of a frame that has begun are outstanding
        m.d.comb += [
            begins.eq((row == 0) & (column == 0)),
            has_pixel.eq(
                between(row, 0, height - 1, last_row) & between(column, 0, width - 1, pitch - 1)
            ),
            shift.eq(enable & (self.i.valid | ~has_pixel | (begins & emitting))),
            self.i.ready.eq(enable & has_pixel),
        ]
        ends = (row == last_row) & (column == last_column)
        with m.If(shift & (self.i.valid | ~begins)):
            with m.If(ends):
                m.d.sync += [row.eq(0), column.eq(0)]
            with m.Elif(column == pitch - 1):
                m.d.sync += [row.eq(row + 1), column.eq(0)]
            with m.Else():
                m.d.sync += column.eq(column + 1)

        # Output: the place of the next window, from a fixed number of shifts behind the input's.
        first_row, first_column = divmod(self._lag, pitch)
        starts = (row == first_row) & (column == first_column) & (self.i.valid | ~begins)
        strides = self.geometry.stride
        place = [
            Signal(range(self._extent[0]), name="window_row"),
            Signal(range(pitch), name="window_column"),
        ]
        # Steps along the axis since the last place of a window; 0 where there is one.
        since = [
            Signal(range(stride), name=f"{name}s_since")
            for name, stride in zip(("row", "column"), strides, strict=True)
        ]
        last_place = place[1] == self._extent[1] - 1
        line_ends = place[1] == pitch - 1
        frame_ends = (place[0] == self._extent[0] - 1) & last_place
        gives = Signal()
        m.d.comb += gives.eq(
            (emitting | starts)
            & (since[0] == 0)
            & (since[1] == 0)
            & between(place[1], 0, self._extent[1] - 1, pitch - 1)
        )
        with m.If(shift & (emitting | starts)):
            m.d.sync += emitting.eq(~frame_ends)
            with m.If(frame_ends):
                m.d.sync += [signal.eq(0) for signal in (*place, *since)]
            with m.Elif(line_ends):
                m.d.sync += [place[1].eq(0), since[1].eq(0), place[0].eq(place[0] + 1)]
                m.d.sync += since[0].eq(_next(since[0], strides[0]))
            with m.Else():
                m.d.sync += [
                    place[1].eq(place[1] + 1),
                    since[1].eq(_next(since[1], strides[1])),
                ]
        with m.If(enable):
            m.d.sync += self.o.valid.eq(shift & gives)

        # Rows: each shift moves every pixel of a word one place on, `row_words` shifts later.
        rows: list[Value] = [self.i.payload.as_value()]
        if self.row_word_pixels:
            word = Signal(unsigned(self.row_word_pixels * size), reset_less=True)
            rows += [word.word_select(n, size) for n in range(self.row_word_pixels)]
            new_word = Cat(rows[:-1])
            if self.row_words == 1:
                with m.If(shift):
                    m.d.sync += word.eq(new_word)
            else:
                # The next word is read while this one is replaced, never at the same address.
                m.submodules.rows = store = memory.Memory(
                    shape=unsigned(self.row_word_pixels * size),
                    depth=self.row_words,
                    init=[],
                    attrs={"no_rw_check": 1},
                )
                write, read = store.write_port(), store.read_port(domain="comb")
                address = Signal(range(self.row_words))
                after = Signal(range(self.row_words), init=1)
                m.d.comb += [
                    write.en.eq(shift),
                    write.addr.eq(address),
                    write.data.eq(new_word),
                    read.addr.eq(after),
                ]
                with m.If(shift):
                    m.d.sync += [
                        word.eq(read.data),
                        address.eq(after),
                        after.eq(Mux(after == self.row_words - 1, 0, after + 1)),
                    ]

        # Columns: the newest is the one that the last shift brought. Masks go with the window.
        on_image: list[list[Value]] = []
        for axis, used in enumerate(self._used):
            masks: list[Value] = []
            inside = self.geometry.inside(axis)
            for k in range(self.geometry.kernel[axis]):
                offset = k * self.geometry.dilation[axis] - self.geometry.padding[axis]
                if k not in used or inside[:, k].all():
                    masks.append(Const(int(k in used)))
                    continue
                mask = Signal(name=f"on_image_{'yx'[axis]}{k}")
                top = (self._extent[0], pitch)[axis] - 1
                bound = self.geometry.shape[axis] - 1 - offset
                # Places beyond the last window's do not matter.
                high = top if bound >= self._extent[axis] - 1 else bound
                with m.If(shift):
                    m.d.sync += mask.eq(between(place[axis], max(0, -offset), high, top))
                masks.append(mask)
            on_image.append(masks)

        kept: dict[int, list[Signal]] = {}
        for ky in self._used[0].tolist():
            age = (self._newest[0] - ky * self.geometry.dilation[0]) // self._row_step
            kept[ky] = [
                Signal(unsigned(size), name=f"row{ky}_column{n}", reset_less=True)
                for n in range(self._columns)
            ]
            with m.If(shift):
                m.d.sync += [
                    column_register.eq(before)
                    for column_register, before in zip(
                        kept[ky], [rows[age], *kept[ky][:-1]], strict=True
                    )
                ]

        constant = self._pixel.const(self._pad_values.tolist()).as_value()
        step = self.granule * Shape.cast(self._pixel.elem_shape).width
        parts: list[Value] = []
        for ky, row_mask in enumerate(on_image[0]):
            for kx, column_mask in enumerate(on_image[1]):
                pad = Signal(name=f"pad_{ky}_{kx}")
                m.d.comb += pad.eq(~(row_mask & column_mask))
                pixel: Value = constant
                if ky in kept and kx in self._used[1]:
                    age = self._newest[1] - kx * self.geometry.dilation[1]
                    pixel = Mux(pad, constant, kept[ky][age])
                if self.zero_flag:
                    for low in range(0, size, step):
                        parts += [pixel[low : low + step], pad]
                else:
                    parts.append(pixel)
        m.d.comb += Value.cast(self.o.payload).eq(Cat(parts))
        return m


def _next(since: Value, stride: int) -> Value:
    """Return ``(since + 1) % stride``."""
    return Mux(since == stride - 1, 0, since + 1)
