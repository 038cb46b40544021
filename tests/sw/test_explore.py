"""Exploring: estimated fronts, the choice of points, workers that die, and what is kept."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import chores
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnorflow.boards.board import load as load_board
from xnorflow.cli.main import main
from xnorflow.errors import UserError, WorkFailed
from xnorflow.explore import points, session
from xnorflow.explore.cache import Cache
from xnorflow.explore.candidates import choose, estimated_front
from xnorflow.explore.front import on_front
from xnorflow.explore.output import COLUMNS, write_results
from xnorflow.explore.points import Point, tool_versions
from xnorflow.explore.session import explore
from xnorflow.explore.work import Outcome, Task
from xnorflow.explore.workers import on_cluster, on_this_machine
from xnorflow.frames import prepare
from xnorflow.frontend import load
from xnorflow.lowering import lower

MODEL = Path(__file__).parents[2] / "models" / "mnist_mini.onnx"
LOWERED = lower(load(MODEL))
BOARDS = [load_board("icebreaker"), load_board("ulx3s-25f")]
FRAMES = prepare(LOWERED, np.zeros((2, 784), np.uint8), np.zeros(2, np.int64))
FRONTS = [estimated_front(LOWERED, board) for board in BOARDS]


def report(point: Point, factor: float = 1.0) -> dict:
    """What a build of the point could report."""
    budget, estimated = point.board.budget, point.estimated
    resources = {
        "lut": {"used": round(estimated["lut"]), "available": budget.lut, "estimated": None},
        "bram": {"used": estimated["bram"], "available": budget.bram, "estimated": None},
    }
    return {
        "model": "mnist_mini",
        "board": point.board.name,
        "fps": factor * estimated["fps"],
        "clock_mhz": 24.0,
        "fmax_mhz": 25.0,
        "latency_us": 3.5,
        "resources": resources,
        "cycles_per_frame": int(estimated["cycles_per_frame"]),
        "seconds": {"pack": 1.0},
    }


def built(task: Task) -> Outcome:
    return Outcome({"report": report(task.point), "failed": None, "reason": None}, {"a.bin": b"1"})


@pytest.fixture
def at_once(monkeypatch):
    """Build in no time, in this process; return the points that were built."""
    seen: list[Point] = []

    def outcomes(work, tasks, jobs):
        for index, task in enumerate(tasks):
            seen.append(task.point)
            yield index, built(task)

    monkeypatch.setattr(session, "on_this_machine", outcomes)
    return seen


class TestCandidates:
    @pytest.mark.parametrize("front", FRONTS)
    def test_a_front_gets_slower_and_smaller(self, front):
        assert len(front) > 3
        fps = [point.estimated["fps"] for point in front]
        assert fps == sorted(fps, reverse=True)
        assert len(set(fps)) == len(fps)
        for faster, slower in pairwise(front):
            # Cells are rounded, so that the same number may be a smaller estimate.
            assert (
                slower.estimated["cells"] <= faster.estimated["cells"]
                or slower.estimated["bram"] < faster.estimated["bram"]
            )

    def test_a_network_that_fits_no_folding_has_no_front(self):
        large = lower(load(MODEL.with_name("cifar10_cnv.onnx")))
        assert estimated_front(large, load_board("icebreaker")) == []

    @given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 60))
    def test_a_choice_has_the_ends_first_and_shares_the_budget(self, sizes, budget):
        fronts = [[(board, i) for i in range(size)] for board, size in enumerate(sizes)]
        chosen = choose(fronts, budget)
        assert len(chosen) == len(set(chosen)) == min(budget, sum(sizes))
        counts = [sum(board == n for board, _ in chosen) for n in range(len(sizes))]
        short = [count for count, size in zip(counts, sizes, strict=True) if count < size]
        assert not short or max(counts) - min(short) <= 1
        for board, size in enumerate(sizes):
            if counts[board] > 1:
                assert {(board, 0), (board, size - 1)} <= set(chosen)

    def test_a_budget_of_nothing_is_refused(self):
        with pytest.raises(UserError, match="budget"):
            choose(FRONTS, 0)


class TestKeys:
    def test_a_key_depends_on_all_that_a_result_depends_on(self):
        point = FRONTS[0][0]
        versions = tool_versions(BOARDS[0])
        keys = {point.key(versions), FRONTS[0][1].key(versions), FRONTS[1][0].key(versions)}
        keys |= {point.key({**versions, "yosys": "0.1"})}
        for name, value in (("seed", 2), ("clock_mhz", 12.0), ("frames", 9), ("digest", "x")):
            other = {key: getattr(point, key) for key in Point.__dataclass_fields__} | {name: value}
            keys.add(Point(**other).key(versions))
        assert len(keys) == 8
        assert point.key(versions) == estimated_front(LOWERED, BOARDS[0])[0].key(versions)

    def test_a_key_depends_on_the_package_s_own_source(self, tmp_path, monkeypatch):
        before = tool_versions(BOARDS[0])
        copies = {}
        for package in points.PACKAGES:
            copies[package] = tmp_path / package
            shutil.copytree(str(files(package)), copies[package])
        monkeypatch.setattr(points, "files", copies.__getitem__)
        points.source_digest.cache_clear()
        assert tool_versions(BOARDS[0]) == before
        with (copies["xnorflow.hw"] / "mvu.py").open("a") as module:
            module.write("# changed")
        points.source_digest.cache_clear()
        assert tool_versions(BOARDS[0]) != before
        points.source_digest.cache_clear()


class TestCache:
    def test_a_result_and_its_files_come_back(self, tmp_path):
        cache = Cache(tmp_path / "deep" / "cache")
        outcome = Outcome({"report": {"fps": 1.5}, "failed": None, "reason": None}, {"b.bin": b"x"})
        assert cache.get("k") is None
        cache.put("k", outcome)
        cache.put("k", outcome)
        assert Cache(cache.folder).get("k") == outcome.result
        assert (cache.path("k") / "b.bin").read_bytes() == b"x"
        assert [path.name for path in cache.folder.iterdir()] == ["k"]

    def test_what_was_cut_off_while_it_was_written_does_not_count(self, tmp_path):
        cache = Cache(tmp_path)
        cache.path("k").mkdir()
        (cache.path("k") / "result.json").write_text('{"report": ')
        assert cache.get("k") is None

    def test_a_folder_that_cannot_be_written_is_refused(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="another folder"):
            Cache(tmp_path / "file" / "cache")


class TestFront:
    def test_only_what_no_other_beats_is_on_it(self):
        def one(fps, lut, bram, board="a"):
            usage = {"lut": {"used": lut}, "bram": {"used": bram}}
            return {"board": board, "fps": fps, "resources": usage}

        points = [one(10, 5, 1), one(10, 6, 1), one(9, 4, 1), one(9, 5, 0), one(9, 5, 2)]
        points += [one(10, 5, 1), one(1, 99, 99, "b")]
        assert on_front(points) == [True, False, True, True, False, True, True]


@pytest.fixture
def known_fronts(monkeypatch):
    """Estimate each front once for all tests."""
    fronts = {board.name: front for board, front in zip(BOARDS, FRONTS, strict=True)}
    monkeypatch.setattr(
        session, "estimated_front", lambda lowered, board, **options: fronts[board.name]
    )


@pytest.mark.usefixtures("known_fronts")
class TestSession:
    def test_points_are_built_once(self, at_once, tmp_path):
        first = explore(LOWERED, BOARDS, FRAMES, Cache(tmp_path), budget=4)
        assert len(at_once) == len(first.points) == 4
        assert {point["board"] for point in first.points} == {"icebreaker", "ulx3s-25f"}
        assert first.reused == 0
        again = explore(LOWERED, BOARDS, FRAMES, Cache(tmp_path), budget=6)
        assert len(at_once) == 6
        assert again.reused == 4
        assert [p["key"] for p in again.points][:4] == [p["key"] for p in first.points]

    def test_an_interrupted_run_loses_nothing(self, monkeypatch, tmp_path):
        def interrupted(work, tasks, jobs):
            yield 1, built(tasks[1])
            raise KeyboardInterrupt

        monkeypatch.setattr(session, "on_this_machine", interrupted)
        with pytest.raises(KeyboardInterrupt):
            explore(LOWERED, BOARDS, FRAMES, Cache(tmp_path), budget=3)
        seen = []

        def outcomes(work, tasks, jobs):
            seen.extend(tasks)
            yield from ((index, built(task)) for index, task in enumerate(tasks))

        monkeypatch.setattr(session, "on_this_machine", outcomes)
        assert explore(LOWERED, BOARDS, FRAMES, Cache(tmp_path), budget=3).reused == 1
        assert len(seen) == 2

    def test_a_failure_is_a_result(self, monkeypatch, tmp_path):
        def outcomes(work, tasks, jobs):
            failed = Outcome({"report": None, "failed": "too large", "reason": "fit"})
            for index, task in enumerate(tasks):
                yield index, built(task) if index else failed

        monkeypatch.setattr(session, "on_this_machine", outcomes)
        result = explore(LOWERED, BOARDS[:1], FRAMES, Cache(tmp_path), budget=2)
        assert [point["failed"] for point in result.points] == ["too large", None]
        assert [point["front"] for point in result.points] == [False, True]
        assert explore(LOWERED, BOARDS[:1], FRAMES, Cache(tmp_path), budget=2).reused == 2
        page = write_results(result, tmp_path).read_text(encoding="utf-8")
        assert "too large" in page

    def test_nothing_that_fits_is_an_honest_failure(self, tmp_path, monkeypatch):
        monkeypatch.setattr(session, "estimated_front", lambda *_, **__: [])
        with pytest.raises(WorkFailed, match="take a larger board"):
            explore(LOWERED, BOARDS[:1], FRAMES, Cache(tmp_path))

    def test_no_process_is_too_few(self, tmp_path):
        with pytest.raises(UserError, match="jobs"):
            explore(LOWERED, BOARDS, FRAMES, Cache(tmp_path), jobs=0)


@pytest.mark.usefixtures("known_fronts")
class TestOutput:
    def test_table_and_page_hold_every_point(self, at_once, tmp_path):
        result = explore(LOWERED, BOARDS, FRAMES, Cache(tmp_path / "cache"), budget=5)
        page = write_results(result, tmp_path)
        with (tmp_path / "points.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == COLUMNS
        assert [float(row["fps"]) for row in rows] == [point["fps"] for point in result.points]
        assert len(json.loads((tmp_path / "points.json").read_text())["points"]) == 5
        text = page.read_text(encoding="utf-8")
        assert text.count("<tr") == 6
        assert "<script" in text
        assert "http://" not in text.replace("http://www.w3.org", "")[:20_000]

    def test_the_command_writes_all_of_it(self, at_once, tmp_path, capsys):
        places = {"cache": "cache", "output": "out", "json": "out.json"}
        options = [f"--{name}={tmp_path / place}" for name, place in places.items()]
        with pytest.raises(SystemExit) as ended:
            main(["explore", str(MODEL), "--board=icebreaker,ulx3s-25f", "--budget=3", *options])
        assert ended.value.code == 0
        assert "icebreaker" in capsys.readouterr().out
        assert len(json.loads((tmp_path / "out.json").read_text())["points"]) == 3
        assert (tmp_path / "out" / "explore.html").exists()

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--board", "icebreaker,"],
            ["--board", "nonesuch"],
            ["--board", "icebreaker", "--seeds", "x"],
            ["--board", "icebreaker", "--clock", "fast"],
            ["--board", "icebreaker", "--frames", "0"],
            ["--board", "icebreaker", "--budget", "0"],
        ],
    )
    def test_a_wrong_option_is_one_sentence(self, arguments, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main(["explore", str(MODEL), *arguments, "--cache", str(tmp_path / "cache")])
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("Error: ")


class TestWorkersHere:
    def test_every_task_is_done(self):
        assert dict(on_this_machine(chores.double, [5, 6, 7], 2)) == {0: 10, 1: 12, 2: 14}

    def test_a_process_that_is_killed_costs_only_time(self, tmp_path):
        tasks = [(n, str(tmp_path)) for n in range(4)]
        assert dict(on_this_machine(chores.die_once, tasks, 2)) == {n: 2 * n for n in range(4)}
        assert (tmp_path / "died").exists()

    def test_a_task_that_kills_its_process_ends_the_run(self):
        with pytest.raises(WorkFailed, match="died"):
            dict(on_this_machine(chores.die_whenever, [0, 1], 1))

    def test_processes_end_with_the_run_that_is_killed(self, tmp_path):
        code = f"dict(on_this_machine(chores.linger, [{str(tmp_path)!r}] * 2, 2))"
        imports = "import chores; from xnorflow.explore.workers import on_this_machine"
        script = tmp_path / "run.py"
        script.write_text(f"{imports}\nif __name__ == '__main__':\n    {code}\n")
        paths = os.pathsep.join([str(Path(chores.__file__).parent), *filter(None, sys.path)])
        with subprocess.Popen(
            [sys.executable, script], env={**os.environ, "PYTHONPATH": paths}
        ) as run:
            _soon(lambda: len(list(tmp_path.glob("linger-*"))) == 2)
            run.kill()
        workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("linger-*")]
        _soon(lambda: not any(map(_runs, workers)))


class TestCluster:
    def test_a_worker_that_is_killed_costs_only_time(self, tmp_path):
        distributed = pytest.importorskip("distributed")
        with distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=None
        ) as cluster:
            tasks = [(n, str(tmp_path)) for n in range(9)]
            killer = threading.Thread(target=_kill_a_worker, args=(tmp_path,))
            killer.start()
            results = dict(on_cluster(chores.slowly, tasks, cluster.scheduler_address))
            killer.join()
        assert results == {n: 2 * n for n in range(9)}
        begun = [path.name.split("-") for path in tmp_path.iterdir()]
        assert len({process for _, process in begun}) >= 3
        assert len(begun) > 9  # what the killed worker had begun was begun again

    def test_a_scheduler_that_is_not_there_is_named(self):
        pytest.importorskip("distributed")
        with pytest.raises(UserError, match=r"127\.0\.0\.1:1"):
            dict(on_cluster(chores.double, [1], "tcp://127.0.0.1:1"))


def _soon(condition: Callable[[], bool]) -> None:
    """Wait for what must come true."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("waited for a minute in vain")


def _runs(process: int) -> bool:
    """Tell whether a process is there and not merely waiting for someone to ask how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _kill_a_worker(folder: Path) -> None:
    """Kill the process of the first task that has begun."""
    while not (begun := list(folder.iterdir())):
        time.sleep(0.02)
    os.kill(int(begun[0].name.split("-")[1]), signal.SIGKILL)
