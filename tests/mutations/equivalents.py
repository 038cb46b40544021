"""Changes of the hardware's text that change nothing that a user could notice, and why."""

from dataclasses import dataclass

__all__ = ["EQUIVALENTS", "Equivalent"]


@dataclass(frozen=True)
class Equivalent:
    """A change that no test can notice.

    Attributes
    ----------
    file : str
    old, new : str
        As in `sweep.Change`.
    reason : str
    """

    file: str
    old: str
    new: str
    reason: str


EQUIVALENTS: tuple[Equivalent, ...] = (
    Equivalent(
        "hw/core.py",
        "lanes for lanes in range(1, given + 1) if given % lanes == 0 and classes // lanes <= pace",
        "lanes for lanes in range(1, given + (2)) "
        "if given % lanes == 0 and classes // lanes <= pace",
        "No number above `given` divides it.",
    ),
    Equivalent(
        "hw/link/protocol.py",
        "rates = sorted({clock_hz // nearest, clock_hz // (nearest + 1), *usual} - {0, baud})",
        "rates = sorted({clock_hz // nearest, clock_hz // (nearest + (2)), *usual} - {0, baud})",
        "Another legal rate is as good a proposal; the tests try all that are proposed.",
    ),
    Equivalent(
        "hw/link/uart.py",
        'super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})',
        'super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=(0))})',
        "`tx` is a wire of the shift register, whose first bit starts at 1.",
    ),
    Equivalent(
        "hw/pool.py",
        "complete.eq(x.inside & y.inside & x.last_tap & y.last_tap),",
        "complete.eq((x.inside | y.inside) & x.last_tap & y.last_tap),",
        "Places that fill no window are fewer than a window's taps: none is a last tap.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "chosen = Mux(between(index, first, last, len(keys) - 1), values[key], chosen)",
        "chosen = Mux(between(index, first, last, (len(keys) + 1)), values[key], chosen)",
        "The largest index only tells which comparison is the cheaper one.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "freeing = np.searchsorted(self.frees(), np.arange(len(alone)) - capacity + 1).tolist()",
        "freeing = np.searchsorted(self.frees(), (np.arange(len(alone)) - capacity - 1)).tolist()",
        "The rows are so many that space is never what a window waits for; 4,000 random windows "
        "and arrivals gave the same schedule.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "init=(self._tap_address(following) + wraps - self._tap_address(first)) % depth,",
        "init=((self._tap_address(following) - wraps) - self._tap_address(first)) % depth,",
        "With a single tap in all, a frame is a whole number of rings, so that nothing moves.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "excess = Signal(range(-capacity - unread, 1), init=-capacity)",
        "excess = Signal(range(-capacity - unread, (0)), init=-capacity)",
        "The bits for negative numbers hold 0 too.",
    ),
    Equivalent(
        "hw/link/cobs.py",
        'encodable = data.StructLayout({"data": 8, "last": 1})',
        'encodable = data.StructLayout({"data": 8, "last": (2)})',
        "The flag's second bit is never set.",
    ),
    Equivalent(
        "hw/link/cobs.py",
        'decoded = data.StructLayout({"data": 8, "end": 1, "whole": 1})',
        'decoded = data.StructLayout({"data": 8, "end": (2), "whole": 1})',
        "The flag's second bit is never set, and both ends share the layout.",
    ),
    Equivalent(
        "hw/mvu.py",
        "return (ends[:, None] + synapse_folds * giving).reshape(-1) + latency",
        "return (ends[:, None] + synapse_folds * giving).reshape(-(2)) + latency",
        "To numpy any negative size is the one that is left.",
    ),
    Equivalent(
        "hw/pool.py",
        'self.window = Signal(range(windows + (rest > 0)), name=f"{name}_window")',
        'self.window = Signal(range(windows + ((rest >= 0))), name=f"{name}_window")',
        "A register that is wider than it need be.",
    ),
    Equivalent(
        "hw/pool.py",
        "rows = self.o_shape[0] if rest_y else 1",
        "rows = self.o_shape[0] if rest_y else (0)",
        "Without rows that are dropped nothing asks which row of windows it is.",
    ),
    Equivalent(
        "hw/pool.py",
        "columns = self.o_shape[1] if rest_x or self.kernel[0] > 1 else 1",
        "columns = self.o_shape[1] if rest_x or (self.kernel[0] >= 1) else 1",
        "The columns are counted even where nothing asks for them.",
    ),
    Equivalent(
        "hw/rom.py",
        "width = min(widest, self.width - start)",
        "width = min(widest, (self.width + start))",
        "The last piece gets bits that no word has and that nothing reads.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "above = Const(1) if low <= 0 else index != 0 if low == 1 else index >= low",
        "above = Const(1) if low <= 0 else index != 0 if low == (0) else index >= low",
        "Of numbers from 0 on, those at least 1 are those that are not 0.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "chosen = Mux(between(index, first, last, len(keys) - 1), values[key], chosen)",
        "chosen = Mux(between(index, first, last, len(keys) - (0)), values[key], chosen)",
        "The largest index only tells which comparison is the cheaper one.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "taken, pixel = int(arrivals[0]) - 1, 0",
        "taken, pixel = int(arrivals[0]) - (2), 0",
        "The first pixel's own arrival is what counts.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "unread = max(0, int((freed[1:] - self._required).max()))",
        "unread = max(0, int(((freed[1:] + self._required)).max()))",
        "A register that is wider than it need be.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "_among(count, np.flatnonzero(on_image).tolist(), len(on_image) - 1)",
        "_among(count, np.flatnonzero(on_image).tolist(), len(on_image) - (0))",
        "The largest index only tells which comparison is the cheaper one.",
    ),
    Equivalent(
        "hw/argmax.py",
        '{"score": signed(self.width), "lane": max(1, ceil_log2(self.lanes))}',
        '{"score": signed(self.width), "lane": max((2), ceil_log2(self.lanes))}',
        "A register that is wider than it need be.",
    ),
    Equivalent(
        "hw/link/protocol.py",
        "*(500_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000, 6_000_000, 12_000_000),",
        "*(500_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000, (5999999), 12_000_000),",
        "Another legal rate is as good a proposal; the tests try all that are proposed.",
    ),
    Equivalent(
        "hw/parallel_window.py",
        'attrs={"no_rw_check": 1},',
        'attrs={"no_rw_check": (2)},',
        "For yosys every number but 0 is a yes.",
    ),
    Equivalent(
        "hw/resize.py",
        "return passed.reshape(-1, longer)[:, : self.o_beats].reshape(-1)",
        "return passed.reshape(-1, longer)[:, : self.o_beats].reshape(-(2))",
        "To numpy any negative size is the one that is left.",
    ),
    Equivalent(
        "hw/sliding_window.py",
        "below = Const(1) if high >= top else index != top if high == top - 1 else index <= high",
        "below = Const(1) if high >= top else index != top if high == top - (0) else index <= high",
        "Of numbers up to `top`, those below it are those that are not it.",
    ),
)
