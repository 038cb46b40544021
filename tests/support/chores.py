"""Small tasks for tests of worker processes, which import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

__all__ = ["die_once", "die_whenever", "double", "linger", "slowly"]


def double(number: int) -> int:
    return 2 * number


def slowly(task: tuple[int, str]) -> int:
    """Leave the worker's process number in a folder, then take a while."""
    number, folder = task
    (Path(folder) / f"{number}-{os.getpid()}").touch()
    time.sleep(1.5)
    return 2 * number


def die_once(task: tuple[int, str]) -> int:
    """Kill the own process, if nobody has done so in that folder before."""
    number, folder = task
    mark = Path(folder) / "died"
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def die_whenever(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def linger(folder: str) -> int:
    """Write down this process and work for an hour."""
    (Path(folder) / f"linger-{os.getpid()}").touch()
    time.sleep(3600)
    return 0
