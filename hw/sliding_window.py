"""Sliding window of a convolution, one group of lanes of a tap at a time."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Array, Shape, ShapeLike, Value, ValueLike, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, index_bits, merge, storage_parts

__all__ = [
    "SlidingWindow",
    "WindowGeometry",
    "between",
    "pad_constants",
    "ring_rows",
    "window_parts",
]


@dataclass(frozen=True)
class WindowGeometry:
    """Places of a convolution's windows and taps on a padded image.

    Parameters
    ----------
    shape : tuple of int
        Height, width and channels ``(H, W, C)`` of the image.
    kernel, stride, dilation : tuple of int
        Vertical, horizontal; all at least 1.
    padding : tuple of int
        Top, left, bottom, right; all at least 0.

    Raises
    ------
    ValueError
        If a parameter is illegal; the message says what would be legal.
    """

    shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        for name, values, lowest in (
            ("shape", self.shape, 1),
            ("kernel", self.kernel, 1),
            ("stride", self.stride, 1),
            ("dilation", self.dilation, 1),
            ("padding", self.padding, 0),
        ):
            if min(values) < lowest:
                raise ValueError(f"every number in {name} must be at least {lowest}, not {values}")
        for axis, name in enumerate(("height", "width")):
            padded = self.shape[axis] + self.padding[axis] + self.padding[axis + 2]
            extent = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            if extent > padded:
                raise ValueError(
                    f"the kernel's {name} with dilation must be at most {padded}, "
                    f"that of the padded image, not {extent}"
                )

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        rows, columns = (
            (
                self.shape[axis]
                + self.padding[axis]
                + self.padding[axis + 2]
                - self.dilation[axis] * (self.kernel[axis] - 1)
                - 1
            )
            // self.stride[axis]
            + 1
            for axis in (0, 1)
        )
        return rows, columns

    def taps(self, axis: int) -> NDArray[np.int64]:
        """Return the image row (`axis` 0) or column (1) of every output and kernel position.

        Returns
        -------
        ndarray of int, shape (outputs, kernel)
            Below 0 or beyond the image in the padding.
        """
        outputs = np.arange(self.outputs[axis])[:, None] * self.stride[axis]
        return outputs + np.arange(self.kernel[axis]) * self.dilation[axis] - self.padding[axis]

    def inside(self, axis: int) -> NDArray[np.bool_]:
        """Return which of `taps` lie on the image, shape (outputs, kernel)."""
        taps = self.taps(axis)
        return (taps >= 0) & (taps < self.shape[axis])

    def _extremes(self, last: bool) -> NDArray[np.int64]:
        """Return each window's first or last pixel as a linear index, -1 if it has none."""
        pick = np.max if last else np.min
        none = -1 if last else np.iinfo(np.int64).max
        y, x = (pick(np.where(self.inside(axis), self.taps(axis), none), axis=1) for axis in (0, 1))
        some = self.inside(0).any(1, keepdims=True) & self.inside(1).any(1)
        return np.where(some, np.where(some, y[:, None], 0) * self.shape[1] + x, -1).reshape(-1)

    def needs(self) -> NDArray[np.int64]:
        """Return the last pixel that each window reads, as a linear index; -1 if none.

        Returns
        -------
        ndarray of int, shape (H_out * W_out,)
        """
        return self._extremes(last=True)

    def required(self) -> NDArray[np.int64]:
        """Return how many pixels must have come before each window starts.

        No window starts before its frame has.

        Returns
        -------
        ndarray of int, shape (H_out * W_out,)
        """
        return np.maximum.accumulate(np.maximum(self.needs() + 1, 1))

    @property
    def is_wire(self) -> bool:
        """Whether the windows are just the pixels."""
        return self.kernel == self.stride == (1, 1) and not any(self.padding)

    @property
    def is_padded(self) -> bool:
        """Whether some taps lie beyond the image."""
        return not all(self.inside(axis).all() for axis in (0, 1))

    def frees(self) -> NDArray[np.int64]:
        """Return how many pixels, in linear order, no window after each one reads.

        Returns
        -------
        ndarray of int, shape (H_out * W_out,)
            The last one is ``H * W``.
        """
        pixels = self.shape[0] * self.shape[1]
        first = self._extremes(last=False)
        later = np.append(np.where(first < 0, pixels, first)[1:], pixels)
        return np.minimum.accumulate(later[::-1])[::-1]


def window_latency(geometry: WindowGeometry) -> int:
    """Return the cycles from a window's last pixel to its first beat out of a `SlidingWindow`."""
    return 0 if geometry.is_wire else 2 + geometry.is_padded


def ring_rows(geometry: WindowGeometry, folds: int) -> int:
    """Return the image rows that a `SlidingWindow` keeps, with `folds` beats a pixel."""
    if geometry.is_wire:
        return 0
    return bisect_left(
        range(3 * geometry.shape[0] + 1),
        True,
        lo=1,
        key=lambda rows: _never_waits(geometry, folds, rows),
    )


def _never_waits(geometry: WindowGeometry, folds: int, rows: int) -> bool:
    """Return whether the slower of both streams never waits with so many rows."""
    height, width, _ = geometry.shape
    beats = folds * geometry.kernel[0] * geometry.kernel[1]
    pixels, capacity = height * width, rows * width
    frames = np.arange(capacity // pixels + 4)[:, None] * pixels
    needed = geometry.required()
    required = (frames + needed).reshape(-1)
    freed = (frames + geometry.frees()).reshape(-1)
    window = np.arange(len(required))
    pixel = np.arange(capacity, frames.size * pixels)  # those before always fit
    freeing = np.searchsorted(freed, pixel - capacity + 1)
    if len(needed) * beats >= pixels * folds:
        space = (freeing + 1) * beats - 1
        taken = np.maximum.accumulate(space - folds * pixel) + folds * (pixel + 1)
        late = required > capacity
        return bool((taken[required[late] - 1 - capacity] < window[late] * beats).all())
    came = folds * required  # the cycle after the last pixel's last beat
    start = np.maximum.accumulate(came - window * beats) + window * beats
    return bool((start[freeing] + beats - 1 < folds * pixel).all())


def between(index: Value, low: int, high: int, top: int) -> Value:
    """Return whether ``low <= index <= high``, at little cost where `index` ends at 0 or `top`."""
    if low > high:
        return Const(0)
    if low == high:
        return index == low
    above = Const(1) if low <= 0 else index != 0 if low == 1 else index >= low
    below = Const(1) if high >= top else index != top if high == top - 1 else index <= high
    return above & below


def _among(index: Value, members: Sequence[int], top: int) -> Value:
    """Return whether `index` is one of `members`, which follow each other without a gap."""
    return between(index, members[0], members[-1], top) if members else Const(0)


def pad_constants(
    element: ShapeLike, channels: int, pad_values: NDArray[np.integer] | None, zero_flag: bool
) -> NDArray[np.int64]:
    """Return the value of a padded tap for each channel, after checking it.

    Returns
    -------
    ndarray of int, shape (channels,)

    Raises
    ------
    ValueError
        If the values do not fit the channels or the element, or if padded taps are flagged.
    """
    if pad_values is None:
        return np.zeros(channels, np.int64)
    if zero_flag:
        raise ValueError("pad_values must be left out with zero_flag: flagged taps have no value")
    if pad_values.shape != (channels,):
        raise ValueError(f"pad_values must have shape ({channels},), not {pad_values.shape}")
    shape = Shape.cast(element)
    low = -(1 << shape.width - 1) if shape.signed else 0
    high = (1 << shape.width - shape.signed) - 1
    if pad_values.min() < low or pad_values.max() > high:
        raise ValueError(f"pad_values must be in {low} .. {high}, the range of an element")
    return pad_values.astype(np.int64)


def _runs(keys: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (key, first, last) of each run of equal keys."""
    cuts = [0, *(n for n in range(1, len(keys)) if keys[n] != keys[n - 1]), len(keys)]
    return [(keys[first], first, after - 1) for first, after in pairwise(cuts)]


def _choose(index: Value, keys: Sequence[int], values: dict[int, ValueLike]) -> Value:
    """Return ``values[keys[index]]``: the most frequent one but in other runs of keys."""
    common = max(values, key=list(keys).count)
    chosen = Value.cast(values[common])
    for key, first, last in _runs(keys):
        if key != common:
            chosen = Mux(between(index, first, last, len(keys) - 1), values[key], chosen)
    return chosen


def _lookup(row: Value, column: Value, table: NDArray[np.int64]) -> Value:
    """Return ``table[row, column]`` for a table of few distinct rows with long runs."""
    patterns, keys = np.unique(table, axis=0, return_inverse=True)
    width = bits_for(int(table.max()))
    values: dict[int, ValueLike] = {
        number: _choose(column, pattern, {value: Const(value, width) for value in set(pattern)})
        for number, pattern in enumerate(patterns.tolist())
    }
    return _choose(row, keys.reshape(-1).tolist(), values)


@cache
def window_parts(
    family: Family,
    geometry: WindowGeometry,
    *,
    element_bits: int,
    lanes: int,
    rows: int,
    zero_flag: bool,
    groups: int,
) -> Parts:
    """Return the parts of a `SlidingWindow` that keeps `rows` rows."""
    if geometry.is_wire:
        return {}
    _, width, channels = geometry.shape
    folds, beat = channels // lanes, lanes * element_bits
    words = rows * width * folds
    loops = (*geometry.outputs, groups, *geometry.kernel, channels // groups // lanes)
    address, nested = index_bits(words), sum(size > 1 for size in loops)
    parts: Parts = {
        "window": 1,
        "window address bit": address,
        "window step bit": nested * address,
        "window counter bit": index_bits(*loops, folds),
        "window pixel bit": index_bits(rows * width),
    }
    if any(geometry.padding):
        parts |= {"window padding": 1, "window padding bit": beat, "register": beat + zero_flag}
    return merge(parts, storage_parts(family, words, beat))


class SlidingWindow(wiring.Component):
    """Give every window of an image tap by tap: the input vectors of a convolution's MVU.

    Pixels come row by row, each in ``C / lanes`` beats. For every output position, row by row,
    and every channel group, the taps leave in the order (ky, kx, channel fold)::

        i --> |ring of rows * W pixels| --> (padding) --> |output register| --> o

    The ring is written and freed in linear pixel order: once a window has left, every pixel that
    no later window reads is free. A window starts when its last pixel has come. One counter tells
    how many pixels the current window lacks, another how many fit; both change by constants from
    window to window, and the read address by constants (modulo the ring) from tap to tap.

    Cycles per frame: ``max(H * W, H_out * W_out * KH * KW) * C / lanes``, one output beat a cycle
    without idle cycles at the borders of rows and frames, if the input keeps up.
    Latency: 2 cycles from a window's last pixel to its first beat, 3 with padding.
    A kernel of 1 x 1 with stride 1 and no padding is a wire: no memory, latency 0.

    Rows: the fewest for which neither stream ever waits for space. Let window k be fetched in the
    ``B`` cycles from ``k * B`` on, with k counted on from frame to frame; let it need ``Q(k)`` and
    free ``R(k)`` pixels, and let a pixel have ``F`` beats. Pixel p of a ring of N pixels finds
    space after cycle ``S(p) = (k + 1) * B - 1`` for the first k with ``R(k) > p - N`` and has come
    by cycle ``A(p) = max(S(j) + F * (p - j + 1) for j <= p)``. Enough are the rows with
    ``A(Q(k) - 1) < k * B`` for all k. Where the input takes longer than the output it must never
    wait instead: ``S(p) + F <= F * (p + 1) - 1`` with windows fetched as soon as their pixels come.
    Without padding, with stride 1 and an image wider than two kernels and not input-bound, this
    is ``2 * KH_eff - 1``: the last window's rows and the next frame's first, less what is free.

    Parameters
    ----------
    element : ShapeLike
        Shape of an element.
    shape, kernel, stride, dilation, padding
        See `WindowGeometry`. Rows and columns that no window reads are taken and dropped.
    lanes : int
        Elements in a beat; divides ``C / groups``.
    pad_values : ndarray of int, shape (C,), optional
        Value of a padded tap in each channel; zeros by default.
    zero_flag : bool
        Flag padded taps instead, for a consumer that makes them count as a true zero.
    groups : int
        Channel groups of a grouped convolution; divides C.

    Attributes
    ----------
    geometry : WindowGeometry
    rows : int
        Image rows that fit the ring, 0 for a wire.
    cycles_per_frame, latency : int
        See above.

    Members
    -------
    i : In(stream.Signature(ArrayLayout(element, lanes)))
    o : Out(stream.Signature(...))
        ``ArrayLayout(element, lanes)``, or with `zero_flag` a ``StructLayout`` of such ``lanes``
        and ``pad``, 1 for a padded tap; its lanes are then 0.

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
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        pad_values: NDArray[np.integer] | None = None,
        zero_flag: bool = False,
        groups: int = 1,
    ):
        self.geometry = WindowGeometry(shape, kernel, stride, dilation, padding)
        height, width, channels = shape
        if groups < 1 or channels % groups:
            legal = [divisor for divisor in range(1, channels + 1) if channels % divisor == 0]
            raise ValueError(f"groups must be one of {legal}, not {groups!r}")
        grouped = channels // groups
        if lanes < 1 or grouped % lanes:
            legal = [divisor for divisor in range(1, grouped + 1) if grouped % divisor == 0]
            raise ValueError(f"lanes must be one of {legal}, not {lanes!r}")
        self.lanes, self.groups, self.zero_flag = lanes, groups, zero_flag
        self._folds = channels // lanes
        self._pad_values = pad_constants(element, channels, pad_values, zero_flag)

        # The loops over the taps, outermost first: rows, columns, groups, ky, kx, channel folds.
        self._loops = (*self.geometry.outputs, groups, *kernel, grouped // lanes)
        self._beats = self._folds * kernel[0] * kernel[1]
        self.cycles_per_frame = max(
            height * width * self._folds, int(np.prod(self.geometry.outputs)) * self._beats
        )
        self._required = self.geometry.required()
        self._wire = self.geometry.is_wire
        self._padded = self.geometry.is_padded
        self.latency = window_latency(self.geometry)
        self.rows = ring_rows(self.geometry, self._folds)
        self._lanes = data.ArrayLayout(element, lanes)
        payload = (
            data.StructLayout({"lanes": self._lanes, "pad": unsigned(1)})
            if zero_flag
            else self._lanes
        )
        super().__init__(
            {"i": In(stream.Signature(self._lanes)), "o": Out(stream.Signature(payload))}
        )

    def needs(self) -> NDArray[np.int64]:
        """Return `WindowGeometry.needs`: the last pixel that each output position needs."""
        return self.geometry.needs()

    def frees(self) -> NDArray[np.int64]:
        """Return `WindowGeometry.frees`: the pixels freed when each output position has left."""
        return self.geometry.frees()

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which a frame's beats leave, given those at which they arrive.

        Parameters
        ----------
        arrivals : ndarray of int, shape (H * W * C / lanes,)
            Cycles at which the input beats can be taken.

        Returns
        -------
        ndarray of int, shape (H_out * W_out * KH * KW * C / lanes,)
            For an idle unit and a consumer that is always ready.
        """
        if self._wire:
            return np.maximum.accumulate(arrivals - np.arange(len(arrivals))) + np.arange(
                len(arrivals)
            )
        folds = self._folds
        # The cycle of each pixel's last beat, if nothing before or about space holds it up.
        alone = (arrivals.reshape(-1, folds) + np.arange(folds - 1, -1, -1)).max(1).tolist()
        capacity = self.rows * self.geometry.shape[1]
        freeing = np.searchsorted(self.frees(), np.arange(len(alone)) - capacity + 1).tolist()
        ends: list[int] = []
        taken, pixel = int(arrivals[0]) - 1, 0
        free_from = taken
        for required in self._required.tolist():
            while pixel < required:
                if pixel >= capacity:
                    taken = max(taken, ends[freeing[pixel]])
                taken = max(taken + folds, alone[pixel])
                pixel += 1
            free_from = max(free_from, taken + 1) + self._beats
            ends.append(free_from - 1)
        starts = np.array(ends)[:, None] - self._beats + self.latency
        return (starts + np.arange(self._beats)).reshape(-1)

    def _tap_address(self, loops: Sequence[int]) -> int:
        """Return the place of a tap in an endless memory, given the loops' counts."""
        oy, ox, group, ky, kx, fold = loops
        _, width, _ = self.geometry.shape
        y = self.geometry.taps(0)[oy, ky]
        x = self.geometry.taps(1)[ox, kx]
        return int((y * width + x) * self._folds + group * self._loops[-1] + fold)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._wire:
            m.d.comb += [
                self.o.valid.eq(self.i.valid),
                self.i.ready.eq(self.o.ready),
                Value.cast(self.o.payload).eq(self.i.payload),  # any pad flag is above the lanes
            ]
            return m

        height, width, _ = self.geometry.shape
        capacity = self.rows * width
        depth = capacity * self._folds
        # A word that is read is never being written, so that no logic need care for that case;
        # yosys takes this attribute for a port without clock and a register behind it only.
        m.submodules.ring = ring = memory.Memory(
            shape=unsigned(self._lanes.size), depth=depth, init=[], attrs={"no_rw_check": 1}
        )
        write, read = ring.write_port(), ring.read_port(domain="comb")
        tap = Signal(unsigned(self._lanes.size), reset_less=True)

        # Write side: a ring pointer, and the fold to tell whole pixels.
        accept, whole = Signal(), Signal()
        fold_in = Signal(range(self._folds))
        m.d.comb += [
            accept.eq(self.i.valid & self.i.ready),
            whole.eq(accept & (fold_in == self._folds - 1)),
            write.en.eq(accept),
            write.data.eq(self.i.payload),
        ]
        with m.If(accept):
            m.d.sync += [
                write.addr.eq(Mux(write.addr == depth - 1, 0, write.addr + 1)),
                fold_in.eq(Mux(fold_in == self._folds - 1, 0, fold_in + 1)),
            ]

        # The loops run one tap ahead of the address, so that what follows from them is registered.
        ahead = np.unravel_index(1 % int(np.prod(self._loops)), self._loops)
        names = ("row", "column", "group", "ky", "kx", "fold")
        counters = [
            Signal(range(size), name=name, init=int(start))
            for name, size, start in zip(names, self._loops, ahead, strict=True)
        ]
        row, column, group, ky, kx, fold = counters
        enable, fetch = Signal(), Signal()
        ends = [count == size - 1 for count, size in zip(counters, self._loops, strict=True)]
        carry: Value = Const(1)
        window_ends: Value = Const(1)
        for level in reversed(range(6)):
            with m.If(fetch & carry):
                m.d.sync += counters[level].eq(Mux(ends[level], 0, counters[level] + 1))
            carry = carry & ends[level]
            if level == 2:
                window_ends = carry

        # Address: from a tap to the next it moves by a constant for each loop that steps.
        last_tap = [size - 1 for size in self._loops]
        frame = height * width * self._folds
        step_value = Const(
            (self._tap_address([0] * 6) + frame - self._tap_address(last_tap)) % depth
        )
        for level, size in enumerate(self._loops):
            if size > 1:
                before = [0] * (level + 1) + last_tap[level + 1 :]
                after = [0] * level + [1] + [0] * (5 - level)
                move = (self._tap_address(after) - self._tap_address(before)) % depth
                step_value = Mux(ends[level], step_value, Const(move))
        first = [0] * 6
        following = [int(start) for start in ahead]
        wraps = frame if int(np.prod(self._loops)) == 1 else 0
        step = Signal(
            range(depth),
            init=(self._tap_address(following) + wraps - self._tap_address(first)) % depth,
        )
        address = Signal(range(depth), init=self._tap_address(first) % depth)
        beyond = Signal(signed(len(address) + 2))
        m.d.comb += [beyond.eq(address + step - depth), read.addr.eq(address)]
        last_beat = Signal(init=self._beats == 1)
        with m.If(fetch):
            m.d.sync += [
                address.eq(Mux(beyond < 0, address + step, beyond)),
                step.eq(step_value),
                tap.eq(read.data),
                last_beat.eq(window_ends),
            ]

        # Pixels that came less those that this window needs, and less those that fit: each counter
        # steers its side by its sign alone.
        needed = np.append(self._required, height * width + self._required[0])
        freed = np.append(0, self.frees())
        # Pixels may be freed before they come.
        unread = max(0, int((freed[1:] - self._required).max()))
        most = capacity + max(0, int((freed[:-1] - self._required).max()))
        spare = Signal(range(-int(np.diff(needed).max()), most + 1), init=-int(needed[0]))
        excess = Signal(range(-capacity - unread, 1), init=-capacity)
        for counter, totals in ((spare, needed), (excess, freed)):
            table = np.diff(totals).reshape(self._loops[:2])
            change = Signal(range(int(table.max()) + 1), init=int(table[0, 0]))
            with m.If(fetch & last_beat):
                m.d.sync += change.eq(_lookup(row, column, table))
            m.d.sync += counter.eq(counter + whole - Mux(fetch & last_beat, change, 0))
        m.d.comb += [
            self.i.ready.eq(excess < 0),
            # One enable for all stages behind the address.
            enable.eq(~self.o.valid | self.o.ready),
            fetch.eq(enable & (spare >= 0)),
        ]

        if not self._padded:
            with m.If(enable):
                m.d.sync += self.o.valid.eq(fetch)
            m.d.comb += Value.cast(self.o.payload).eq(tap)
            return m

        # Padding: a tap's flag and channel fold accompany its address, then its word.
        inside = [
            Cat(
                _among(count, np.flatnonzero(on_image).tolist(), len(on_image) - 1)
                for on_image in self.geometry.inside(axis).T
            ).bit_select(position, 1)
            for axis, (count, position) in enumerate(((row, ky), (column, kx)))
        ]
        outside = not all(self.geometry.inside(axis)[0, 0] for axis in (0, 1))
        fetched, pad_at_address, pad = Signal(), Signal(init=outside), Signal()
        folds = [group, fold]
        for stage in ("address", "word"):
            delayed = [
                Signal.like(count, name=f"{count.name}_at_{stage}", init=0) for count in folds
            ]
            with m.If(fetch):
                m.d.sync += [after.eq(now) for after, now in zip(delayed, folds, strict=True)]
            folds = delayed
        words = [
            self._lanes.const(values.tolist()).as_value()
            for values in self._pad_values.reshape(-1, self.lanes)
        ]
        constant: Value = words[0]
        if any(word.value != words[0].value for word in words):
            in_group = self._loops[-1]
            constant = Array(
                Array(words[first : first + in_group])[folds[1]]
                for first in range(0, len(words), in_group)
            )[folds[0]]
        with m.If(fetch):
            m.d.sync += [
                pad_at_address.eq(~(inside[0] & inside[1])),
                pad.eq(pad_at_address),
            ]
        with m.If(enable):
            word = Mux(pad, constant, tap)
            m.d.sync += [
                fetched.eq(fetch),
                self.o.valid.eq(fetched),
                Value.cast(self.o.payload).eq(Cat(word, pad) if self.zero_flag else word),
            ]
        return m
