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
)
