"""Who builds the points: processes on this machine, or a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from xnorflow.errors import UserError, WorkFailed

__all__ = ["TRIES", "on_cluster", "on_this_machine"]

T = TypeVar("T")
R = TypeVar("R")

#: Times that a task is begun before the workers' dying counts as the task's fault.
TRIES = 3


def on_this_machine(
    work: Callable[[T], R], tasks: Sequence[T], jobs: int
) -> Iterator[tuple[int, R]]:
    """Work in processes of this machine; yield each task's index and outcome as it ends.

    Parameters
    ----------
    work : callable
        Of a module; tasks and outcomes are pickled.
    tasks : sequence
    jobs : int
        Processes.

    Raises
    ------
    WorkFailed
        If a task's process died `TRIES` times.
    """
    waiting = dict.fromkeys(range(len(tasks)), 0)
    while waiting:
        # A fresh interpreter each: no locks or threads of this one are inherited.
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(min(jobs, len(waiting)), context, _end_with_parent)
        futures: dict[Future[R], int] = {}
        try:
            futures = {executor.submit(work, tasks[index]): index for index in waiting}
            running = set(futures)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    del waiting[futures[future]]
                    yield futures[future], outcome
        except BrokenProcessPool:
            # It is not told whose process died: whoever was begun may have been it.
            for future, index in futures.items():
                if index in waiting and (future.running() or future.done()):
                    waiting[index] += 1
            _check_tries(waiting)
        finally:
            _end(executor)


def _end_with_parent() -> None:
    """End this process when the one that began it ends, which may be killed without a word."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        # A tool that is running ends too: nobody reads what it prints.
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _check_tries(waiting: dict[int, int]) -> None:
    worst = max(waiting.values(), default=0)
    if worst >= TRIES:
        raise WorkFailed(
            f"worker processes died {worst} times while they built the same points; the machine "
            f"may be short of memory, so give fewer `jobs`"
        )


def _end(executor: ProcessPoolExecutor) -> None:
    """End the processes at once: what they were building is lost, what they built is not."""
    processes = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def on_cluster(
    work: Callable[[T], R], tasks: Sequence[T], scheduler: str
) -> Iterator[tuple[int, R]]:
    """Work on a Dask cluster, whose workers need this package; otherwise as `on_this_machine`.

    A worker that is lost loses nothing but time: the scheduler gives its task to another.

    Parameters
    ----------
    work, tasks
        See `on_this_machine`.
    scheduler : str
        Address such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    UserError
        If Dask is not installed or the scheduler does not answer.
    WorkFailed
        If workers were lost `TRIES` times with the same task.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise UserError(
            "a cluster needs Dask; install it with: pip install 'xnorflow[cluster]'"
        ) from None
    try:
        client: Any = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"scheduler {scheduler!r} cannot be reached ({reason}); give the address that "
            f"`dask scheduler` printed, such as tcp://10.0.0.1:8786"
        ) from None
    with client, client.as_current():
        # Large inputs are sent to a worker only when it takes the task.
        futures = {
            client.submit(work, task, pure=False, retries=TRIES): index
            for index, task in enumerate(tasks)
        }
        try:
            for future in as_completed(list(futures)):
                try:
                    yield futures[future], future.result()
                except KilledWorker:
                    raise WorkFailed(
                        "workers of the cluster died several times while they built the same "
                        "point; they may be short of memory"
                    ) from None
        finally:
            client.cancel(list(futures))
