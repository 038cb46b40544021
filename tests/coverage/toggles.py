"""A pytest plugin that keeps which bits of the hardware's signals were seen at 0 and at 1.

``--toggles FOLDER`` leaves a file there for each process of pytest. A signal is known by the line
of ``hw/`` that makes it and by its name; all that one line makes, in all simulations of Amaranth's
simulator, count together.
"""

import json
import os
from pathlib import Path

import pytest
from amaranth.hdl import Signal
from amaranth.sim import pysim

__all__ = ["HARDWARE", "Seen", "watch"]

HARDWARE = Path(__file__).parents[2] / "hw"

#: File and line, name: the bits seen at 1, those seen at 0, and the most bits that there were.
Seen = dict[tuple[str, str], list[int]]


def _place(signal: Signal) -> str | None:
    """Return file and line of a signal of the hardware, None for others."""
    file, line = signal.src_loc
    parts = Path(file).parts
    if "hw" not in parts:
        return None
    # In a checkout as in an installed package; a folder above may be called hw, too.
    inner = Path(*parts[len(parts) - parts[::-1].index("hw") :])
    return f"hw/{inner}:{line}" if (HARDWARE / inner).is_file() else None


def watch(seen: Seen) -> None:
    """From now on note the values of the hardware's signals in `seen`."""

    class Watched(pysim._PySignalState):
        __slots__ = ("record",)

        def __init__(self, signal: Signal, pending: object) -> None:
            super().__init__(signal, pending)
            place = _place(signal)
            self.record = None
            if place is not None:
                self.record = seen.setdefault((place, signal.name), [0, 0, 0])
                self.record[2] = max(self.record[2], len(signal))
                self._note()

        def _note(self) -> None:
            mask = (1 << len(self.signal)) - 1
            self.record[0] |= self.next & mask
            self.record[1] |= ~self.next & mask

        def commit(self) -> bool:
            if self.record is not None and self.curr != self.next:
                self._note()
            return super().commit()

    pysim._PySignalState = Watched


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--toggles", help="folder for what was seen of the hardware's signals")


_seen: Seen = {}


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--toggles"):
        watch(_seen)


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.getoption("--toggles")
    if folder and _seen:
        rows = [[*key, *record] for key, record in _seen.items()]
        (Path(folder) / f"toggles-{os.getpid()}.json").write_text(json.dumps(rows))
