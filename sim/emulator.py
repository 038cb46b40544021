"""A virtual board as a serial port of this computer, for the host program to find."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from xnorflow.errors import UserError
from xnorflow.sim.line import Line, LineFaults
from xnorflow.sim.virtual_board import VirtualBoard

try:
    import pty
    import tty
except ImportError:  # Windows
    _PTYS = False
else:
    _PTYS = True

__all__ = ["Emulator"]

#: Seconds of simulation between two looks at the port.
TURN_S = 0.005

#: Seconds without a port after the cable was pulled.
UNPLUGGED_S = 0.2

#: Bytes taken from the port at once: what a USB converter holds.
BUFFER = 512


class Emulator:
    """A virtual board behind a pseudo-terminal.

    ::

        host program ─► pseudo-terminal ─► line ─► rx pin
        host program ◄─ pseudo-terminal ◄─ line ◄─ tx pin

    The board is simulated while it has something to do and sleeps otherwise.

    Parameters
    ----------
    make : callable
        Gives the virtual board when it is given the line to it and the one from it.
    link : str or Path, optional
        Where the port is to be found, a symbolic link; without it, only at `port`.
    faults : LineFaults
        Of the line, in both directions.
    seed : int
        Of the faults.

    Attributes
    ----------
    port : str
        Name of the port. It changes when the cable was pulled; the link then points to the new one.
    board : VirtualBoard
    to_board, from_board : Line

    Raises
    ------
    UserError
        If there are no pseudo-terminals here, the link cannot be made, or faults unplug a board
        that has no link.
    """

    def __init__(
        self,
        make: Callable[[Line, Line], VirtualBoard],
        link: str | Path | None = None,
        faults: LineFaults | None = None,
        seed: int = 0,
    ):
        if not _PTYS:
            raise UserError(
                "this system has no pseudo-terminals, which emulation needs; use Linux or macOS"
            )
        faults = faults or LineFaults()
        if faults.unplug and link is None:
            raise UserError(
                f"`unplug={faults.unplug:g}` needs `port`: a link that points to the new port each "
                "time"
            )
        self._link = None if link is None else Path(link)
        if self._link is not None and self._link.exists() and not self._link.is_symlink():
            raise UserError(f"`port={link}` exists and is no link; name another place")
        self.to_board, self.from_board = Line(faults, f"to {seed}"), Line(faults, f"from {seed}")
        self.board = make(self.to_board, self.from_board)
        self.port = ""
        self._ends: list[int] = []
        self._pulled = 0  # pulls that have been carried out
        self._plug()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the port away."""
        self._pull()

    def serve(self, until: Callable[[], bool] = lambda: False) -> None:
        """Be a board until `until` says so, which is asked about a hundred times a second."""
        turn = 1000
        while not until():
            idle = self.board.asleep
            # Never more on its way than a converter holds: the rest waits in the host's buffers.
            ends = self._ends[:1] if self.board.unsent < BUFFER else []
            readable, _, _ = select.select(ends, [], [], 0.01 if idle else 0)
            if readable:
                with suppress(BlockingIOError):
                    self.board.write(os.read(self._ends[0], BUFFER))
            elif idle:
                continue
            start, cycles = time.perf_counter(), self.board.cycles
            self.board.work(turn)
            elapsed = time.perf_counter() - start
            if self.board.cycles - cycles >= turn:
                turn = max(1000, int(turn * min(2.0, TURN_S / max(elapsed, 1e-9))))
            self._give(self.board.read(self.board.in_waiting))
            if self._pulls != self._pulled:
                self._pulled = self._pulls
                self._pull()
                time.sleep(UNPLUGGED_S)
                self._plug()

    def as_json(self) -> dict[str, Any]:
        """Return what went over the line, and what happened to it."""

        def counts(line: Line) -> dict[str, int]:
            names = ("passed", "dropped", "flipped", "inserted", "flooded", "unplugged")
            return {name: getattr(line, name) for name in names}

        return {
            "cycles": self.board.cycles,
            "clock_mhz": self.board.clock_hz / 1e6,
            "baud": self.board.baud,
            "to_board": counts(self.to_board),
            "from_board": counts(self.from_board),
            "bad_stop_bits": self.board.bad_stop_bits,
        }

    @property
    def _pulls(self) -> int:
        return self.to_board.unplugged + self.from_board.unplugged

    def _give(self, data: bytes) -> None:
        while data:
            # Nobody may be there: what a full buffer does not take is lost, as on a real line.
            try:
                data = data[os.write(self._ends[0], data) :]
            except BlockingIOError:
                return

    def _plug(self) -> None:
        # Our own copy of the host's end keeps the port alive between two hosts.
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        self._ends, self.port = [ours, theirs], os.ttyname(theirs)
        if self._link is not None:
            new = self._link.with_name(f".{self._link.name}.new")
            try:
                new.unlink(missing_ok=True)
                new.symlink_to(self.port)
                new.replace(self._link)
            except OSError as error:
                self._pull()
                raise UserError(
                    f"`port={self._link}` cannot be made ({error.strerror}); name a place that "
                    "can be written"
                ) from None

    def _pull(self) -> None:
        if self._link is not None and self._link.is_symlink():
            self._link.unlink(missing_ok=True)
        for end in self._ends:
            os.close(end)
        self._ends = []
