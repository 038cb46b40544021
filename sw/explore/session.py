"""An exploration: what is estimated, what is built, and what came out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xnorflow.boards.board import Board
from xnorflow.errors import UserError, WorkFailed
from xnorflow.explore.cache import Cache
from xnorflow.explore.candidates import choose, estimated_front
from xnorflow.explore.front import on_front
from xnorflow.explore.points import Point, tool_versions
from xnorflow.explore.work import Task, work
from xnorflow.explore.workers import on_cluster, on_this_machine
from xnorflow.frames import PreparedFrames
from xnorflow.lowered import LoweredNetwork
from xnorflow.progress import Progress, quiet

__all__ = ["Exploration", "explore"]


@dataclass(frozen=True, eq=False)
class Exploration:
    """What came out.

    Attributes
    ----------
    model : str
    estimated : list of Point
        The estimated fronts of all boards.
    points : list of dict
        What was built: the object of ``report.json`` (or ``failed``, a sentence, and ``reason``),
        with ``point`` (what was asked for and estimated), ``key``, ``folder`` and ``front``:
        whether no other point of its board beats it.
    reused : int
        How many of the points were finished before.
    """

    model: str
    estimated: list[Point]
    points: list[dict[str, Any]]
    reused: int


def explore(
    lowered: LoweredNetwork,
    boards: Sequence[Board],
    frames: PreparedFrames,
    cache: Cache,
    *,
    budget: int = 8,
    clocks: Sequence[float | None] = (None,),
    seeds: Sequence[int] = (1,),
    simulated: int = 1,
    jobs: int | None = None,
    scheduler: str | None = None,
    progress: Progress = quiet,
) -> Exploration:
    """Estimate the fronts of a network on some boards, and build some of their points.

    Parameters
    ----------
    lowered : LoweredNetwork
    boards : sequence of Board
    frames : PreparedFrames
        The first `simulated` of them are simulated before each build.
    cache : Cache
        Finished points are taken from here and put here.
    budget : int
        Most points to build, those of the cache included.
    clocks : sequence of float or None
        Clocks to build for, MHz; None finds what a design reaches.
    seeds : sequence of int
        Seeds of placement.
    simulated : int
    jobs : int, optional
        Processes on this machine; by default one for each core.
    scheduler : str, optional
        Address of a Dask scheduler to use instead.
    progress : callable
        Told how many points are done.

    Returns
    -------
    Exploration

    Raises
    ------
    UserError
        If an argument is wrong.
    WorkFailed
        If nothing fits any of the boards.
    """
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    if jobs < 1:
        raise UserError(f"`jobs` is {jobs} but must be at least 1")
    simulated = min(simulated, len(frames))
    fronts = []
    for board in boards:
        for clock_mhz in clocks:
            progress("estimate", f"foldings for {board.name}", 0, None)
            fronts.append(
                estimated_front(lowered, board, clock_mhz=clock_mhz, seeds=seeds, frames=simulated)
            )
    points = choose(fronts, budget)
    if not points:
        names = ", ".join(board.name for board in boards)
        raise WorkFailed(f"no folding of {lowered.name} fits {names}; take a larger board")
    versions = {board.name: tool_versions(board) for board in boards}
    keys = [point.key(versions[point.board.name]) for point in points]
    results = [cache.get(key) for key in keys]
    missing = [index for index, result in enumerate(results) if result is None]
    reused = len(points) - len(missing)

    def tell(done: int) -> None:
        again = f" ({reused} finished before)" if reused else ""
        progress("build", f"{len(points)} points{again}", done, len(points))

    tell(reused)
    sent = PreparedFrames(
        frames.x[:simulated],
        None if frames.y is None else frames.y[:simulated],
        frames.quantized[:simulated],
    )
    tasks = [Task(lowered, sent, points[index]) for index in missing]
    if scheduler is None:
        outcomes = on_this_machine(work, tasks, jobs)
    else:
        outcomes = on_cluster(work, tasks, scheduler)
    for done, (number, outcome) in enumerate(outcomes, start=reused + 1):
        index = missing[number]
        cache.put(keys[index], outcome)
        results[index] = outcome.result
        tell(done)
    return Exploration(
        lowered.name,
        [point for front in fronts for point in front],
        _described(points, keys, [result for result in results if result is not None], cache),
        reused,
    )


def _described(
    points: Sequence[Point], keys: Sequence[str], results: Sequence[dict[str, Any]], cache: Cache
) -> list[dict[str, Any]]:
    """Return the results as the command line writes them."""
    built = [result["report"] for result in results if result["report"] is not None]
    front = iter(on_front(built))
    described = []
    for point, key, result in zip(points, keys, results, strict=True):
        extra = {"point": point.as_json(), "key": key, "folder": str(cache.path(key))}
        if result["report"] is None:
            failure = {"failed": result["failed"], "reason": result["reason"], "front": False}
            described.append({"board": point.board.name, **failure, **extra})
        else:
            described.append({**result["report"], "failed": None, "front": next(front), **extra})
    return described
