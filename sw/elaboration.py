"""Turning components into RTLIL without waiting for Python's garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch the collector of reference cycles off.

    Amaranth makes millions of small objects that stay until it has written its text, and the
    collector walks through all of them again and again: of `cifar10_cnv` that is two fifths of the
    time. What it would free meanwhile is little (60 MB there).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
