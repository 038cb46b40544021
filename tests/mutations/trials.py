"""Run tests on changed hardware, each in a process of its own, and say what became of them."""

import contextlib
import io
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection, wait

import mutant
import pytest
from hypothesis import Phase, settings

__all__ = ["Outcome", "Trial", "Verdict", "run"]

#: Settings of hypothesis while tests are expected to fail: the first example that does is enough.
PROFILE = "mutations"


class Verdict(Enum):
    """What a test says of changed hardware."""

    PASSED = "passed"
    MISMATCH = "mismatch"  # an assertion of the test, or an exception that it missed
    ERROR = "error"  # any other exception: the change is refused, or the test itself broke
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Trial:
    """Tests to run, in order until the first one fails, on one changed file.

    Attributes
    ----------
    tests : tuple of str
        Node ids or files, relative to the repository's root.
    file : str
        The changed file, relative to the root; empty for none.
    text : str
        What stands in it.
    """

    tests: tuple[str, ...]
    file: str = ""
    text: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes
    ----------
    verdict : Verdict
    test : str
        The test that failed, empty if none did.
    message : str
        The first line of its exception.
    seconds : float
    """

    verdict: Verdict
    test: str
    message: str
    seconds: float


class _Recorder:
    """A pytest plugin that keeps the first failure."""

    def __init__(self) -> None:
        self.ran = 0
        self.failure: tuple[Verdict, str, str] | None = None

    def _keep(self, verdict: Verdict, test: str, message: str) -> None:
        if self.failure is None:
            self.failure = verdict, test, message

    @pytest.hookimpl
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        self.ran += call.when == "call"
        if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
            return
        mismatch = call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))
        # An engine of the simulation found that the core hangs.
        mismatch = mismatch or call.excinfo.typename == "WorkFailed"
        verdict = Verdict.MISMATCH if mismatch and call.when == "call" else Verdict.ERROR
        line = str(call.excinfo.value).strip().partition("\n")[0]
        self._keep(verdict, item.nodeid, f"{call.excinfo.typename}: {line}"[:200])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            lines = str(report.longrepr).strip().splitlines()
            self._keep(Verdict.ERROR, report.nodeid, lines[-1][:200])


def _register_profile() -> None:
    settings.register_profile(
        PROFILE,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.generate],
    )


def _child(trial: Trial, results: Connection, limit: int) -> None:
    """Run a trial in a fresh process; its end by the alarm is the timeout."""
    signal.alarm(limit)
    os.chdir(mutant.ROOT)
    if trial.file:
        mutant.install(trial.file, trial.text)
    _register_profile()
    recorder = _Recorder()
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--hypothesis-profile={PROFILE}"]
    options += ["-m", "not slow and not interop"]  # a proof may be the test that is named
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main([*options, *trial.tests], plugins=[recorder])
    if recorder.failure is None and not recorder.ran:
        recorder.failure = Verdict.ERROR, "", "no test ran"
    results.send(recorder.failure or (Verdict.PASSED, "", ""))


def run(
    trials: Sequence[Trial], *, jobs: int = 2, limit: int = 120
) -> Iterator[tuple[int, Outcome]]:
    """Run trials side by side, and yield the number and the outcome of each as it ends.

    Parameters
    ----------
    trials : sequence of Trial
    jobs : int
        Processes at a time.
    limit : int
        Seconds that a trial may take.
    """
    # Children fork off a server that holds what all import anyway, but nothing of xnorflow.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["amaranth.sim", "hypothesis", "numpy", "pytest"])
    queue = list(enumerate(trials))[::-1]
    running: dict[Connection, tuple[int, multiprocessing.process.BaseProcess, float]] = {}
    while queue or running:
        while queue and len(running) < jobs:
            number, trial = queue.pop()
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(trial, theirs, limit))
            process.start()
            theirs.close()
            running[ours] = number, process, time.monotonic()
        for ready in wait(list(running)):
            assert isinstance(ready, Connection)
            number, process, start = running.pop(ready)
            try:
                verdict, test, message = ready.recv()
            except EOFError:
                verdict, test, message = Verdict.ERROR, "", "the process ended"
            process.join()
            if process.exitcode == -signal.SIGALRM:
                verdict, message = Verdict.TIMEOUT, f"no end after {limit} s"
            yield number, Outcome(verdict, test, message, time.monotonic() - start)
