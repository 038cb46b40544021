"""Build one point; all that a worker process or a machine of a cluster needs is the package."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xnorflow.boards.flow import DoesNotFit, TimingNotMet
from xnorflow.builder import Request, build
from xnorflow.errors import WorkFailed
from xnorflow.explore.points import Point
from xnorflow.frames import PreparedFrames
from xnorflow.lowered import LoweredNetwork

__all__ = ["Outcome", "Task", "work"]


@dataclass(frozen=True, eq=False)
class Task:
    """What a worker is sent.

    Attributes
    ----------
    lowered : LoweredNetwork
    frames : PreparedFrames
        At least as many as the point simulates.
    point : Point
    """

    lowered: LoweredNetwork
    frames: PreparedFrames
    point: Point


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a worker sends back.

    Attributes
    ----------
    result : dict
        ``report``, the object of ``report.json``, or None; ``failed``, one sentence, or None; and
        ``reason``: ``fit``, ``timing`` or ``other`` for a failure, else None.
    files : dict of str to bytes
        Bitstream and reports by name.
    """

    result: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


def work(task: Task) -> Outcome:
    """Verify, synthesise, place and route a point.

    A design that does not fit or misses its clock is a result too: it says so in the `Outcome`.
    """
    point = task.point
    request = Request(
        lowered=task.lowered,
        board=point.board,
        folding=point.folding,
        simulated=point.frames,
        clock_mhz=point.clock_mhz,
        seeds=(point.seed,),
    )
    with tempfile.TemporaryDirectory(prefix="xnorflow-") as name:
        try:
            design = build(request, task.frames, Path(name) / "design")
        except WorkFailed as error:
            cause = error.__cause__ if isinstance(error.__cause__, WorkFailed) else error
            reasons = {DoesNotFit: "fit", TimingNotMet: "timing"}
            reason = reasons.get(type(cause), "other")
            return Outcome({"report": None, "failed": str(cause), "reason": reason})
        files = {path.name: path.read_bytes() for path in design.output.iterdir() if path.is_file()}
        return Outcome({"report": design.report, "failed": None, "reason": None}, files)
