"""How long work tells what it is doing: the command line draws it, notebooks may print it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "quiet"]

#: ``progress(step, message, done, total)``: `done` of `total` where it can be counted, else 0 and
#: None.
Progress = Callable[[str, str, int, int | None], None]


def quiet(step: str, message: str, done: int, total: int | None) -> None:
    """Say nothing; a `Progress`."""
