"""Progress on the screen: a live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

__all__ = ["Steps"]

#: Least seconds between two plain lines of one step.
PLAIN_EVERY = 10.0


class Steps:
    """Shows one step after the other, each with what it is doing and how long it has taken.

    Parameters
    ----------
    console : Console

    Examples
    --------
    >>> with Steps(Console()) as steps:
    ...     steps.progress("synthesise", "the core")
    """

    def __init__(self, console: Console):
        self._console = console
        self._live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            Elapsed(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._progress.add_task("", total=None, note="", visible=False)
        self._step = ""
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        self._progress.stop()

    def progress(self, step: str, message: str, done: int = 0, total: int | None = None) -> None:
        """Show that `step` is at `message`, and `done` of `total` if it can be counted."""
        now = time.monotonic()
        if step != self._step:
            self._finish()
            self._step, self._started, self._printed = step, now, now
            self._progress.reset(self._task, description=step, total=total, visible=True)
            if not self._live:
                self._console.print(f"{step}: {message}", highlight=False, soft_wrap=True)
        elif not self._live and now - self._printed > PLAIN_EVERY:
            self._printed = now
            count = f" {done}/{total}" if total else ""
            self._console.print(
                f"{step}:{count} {message} ({now - self._started:.0f} s)",
                highlight=False,
                soft_wrap=True,
            )
        note = message.splitlines()[-1][:60] if message else ""
        self._progress.update(self._task, completed=done, total=total, note=note)

    def _finish(self) -> None:
        """Leave a line behind for the step that has ended."""
        if self._step:
            seconds = time.monotonic() - self._started
            mark = "[green]✓[/]" if self._live else "done:"
            self._console.print(f"{mark} {self._step} ({seconds:.1f} s)", highlight=False)
            self._step = ""
