"""Comparing: which value is best, by how much others differ, and what is no report."""

from __future__ import annotations

import csv
import json
import math
import os
import threading
from copy import deepcopy

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_networks import random_network, to_qonnx

from xnorflow.api import predict
from xnorflow.boards.board import load as load_board
from xnorflow.cli.main import main
from xnorflow.compare import Column, Wanted, compare, estimated, labelled, read_reports
from xnorflow.compare.output import as_json, as_markdown
from xnorflow.compare.page import render
from xnorflow.compare.reports import check_report
from xnorflow.compare.table import Cell, Row
from xnorflow.compare.text import difference, number, value
from xnorflow.errors import UserError
from xnorflow.files import write_files
from xnorflow.folding import folding_json
from xnorflow.frontend import load
from xnorflow.lowering import lower
from xnorflow.planning import plan

NETWORK = random_network(np.random.default_rng(1), [12, 6, 3])
LOWERED = lower(NETWORK)

REPORT = {
    "model": "net",
    "digest": "d1",
    "board": "icebreaker",
    "device": "iCE40UP5K",
    "clock_mhz": 30.0,
    "fmax_mhz": 33.0,
    "cycles_per_frame": 1000,
    "latency_cycles": 1500,
    "latency_us": 50.0,
    "fps": 30000.0,
    "target_fps": None,
    "fast": False,
    "energy": {"uj_per_frame": 0.84},
    "resources": {
        "lut": {"used": 2000, "available": 5280, "estimated": 1900},
        "lc": {"used": 2640, "available": 5280, "estimated": 2500},
        "bram": {"used": 10, "available": 30, "estimated": 10},
        "pll": {"used": 1, "available": 1, "estimated": None},
    },
    "layers": [
        {"name": "fc0", "pe": 4, "simd": 8, "cycles": 1000, "weights_bits": 320},
        {"name": "fc1", "pe": 1, "simd": 2, "cycles": 500, "weights_bits": 64},
    ],
    "verification": {"frames": 20, "mismatches": 0},
    "accuracy": {"frames": 1000, "accuracy": 0.96},
    "seconds": {"synthesise": 60.0, "place and route": 40.0},
}


def changed(**keys) -> dict:
    """The report with other values; ``resources__lut__used=3`` goes inside."""
    report = deepcopy(REPORT)
    for path, new in keys.items():
        *outer, last = path.split("__")
        place = report
        for key in outer:
            place = place[key]
        place[last] = new
    return report


def without(*keys: str) -> dict:
    return {key: entry for key, entry in deepcopy(REPORT).items() if key not in keys}


def column(report: dict, label: str, known_from="place and route") -> Column:
    return Column(report, f"{label}.json", known_from, label, label)


def side_by_side(*reports: dict, **options):
    return compare([column(r, f"c{i}") for i, r in enumerate(reports)], **options)


@pytest.fixture
def files(tmp_path):
    """Write objects as JSON files; return their paths."""

    def write(*contents):
        paths = []
        for index, content in enumerate(contents):
            path = tmp_path / f"r{index}.json"
            path.write_text(content if isinstance(content, str) else json.dumps(content))
            paths.append(path)
        return paths

    return write


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model file of that network."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(to_qonnx(NETWORK), path)
    return path


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run the command on a console of so many columns; return status, stdout and stderr."""

    def run(*arguments, width=100):
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as end:
            main(["compare", *map(str, arguments)])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


def refused(result, *words, status=2):
    """Check for the status, one sentence and no traceback; return the sentence."""
    code, out, err = result
    assert code == status, out + err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("Error: " if status == 2 else "Failed: ")
    for word in words:
        assert str(word) in lines[0]
    return lines[0]


def row(better, *values, unit=""):
    return Row("key", "name", unit, "group", better, tuple(map(Cell, values)))


class TestBest:
    def test_it_is_the_highest_or_the_lowest(self):
        assert row("higher", 3, 7.5, 2).best == {1}
        assert row("lower", 3, 7.5, 2).best == {2}
        assert row(None, 3, 7.5, 2).best == frozenset()

    def test_all_that_are_equally_good_are_best(self):
        assert row("lower", 2, 3, 2.0).best == {0, 2}
        assert row("higher", 0.1 + 0.2, 0.3, 0.1).best == {0, 1}

    def test_none_is_where_all_are_alike_or_nothing_is_compared(self):
        assert row("lower", 2, 2).best == frozenset()
        assert row("lower", 2, None).best == frozenset()
        assert row("lower", None, None).best == frozenset()
        assert row("lower", None, 4, 5).best == {1}

    @given(
        st.lists(st.none() | st.integers(0, 5), min_size=2), st.sampled_from(["higher", "lower"])
    )
    def test_none_is_better_than_the_best(self, values, better):
        best = row(better, *values).best
        known = [v for v in values if v is not None]
        if len(set(known)) > 1:
            wanted = max(known) if better == "higher" else min(known)
            assert {values[i] for i in best} == {wanted}
            assert len(best) == known.count(wanted)
        else:
            assert not best


class TestDifferences:
    def test_they_are_per_cent_of_the_baseline(self):
        quantity = row("higher", 8, 10, 4, None)
        assert [quantity.difference(i, 0) for i in range(4)] == [0.0, 25.0, -50.0, None]
        assert [quantity.difference(i, 1) for i in range(4)] == [-20.0, 0.0, -60.0, None]
        assert quantity.difference(0, 3) is None

    def test_of_per_cents_they_are_points(self):
        assert row("higher", 50.0, 52.5, unit="%").difference(1, 0) == 2.5

    def test_nothing_is_a_share_of_zero(self):
        zero = row("lower", 0, 3, 0)
        assert [zero.difference(i, 0) for i in range(3)] == [0.0, None, 0.0]

    def test_the_baseline_can_be_chosen(self):
        pair = (changed(fps=20000.0), REPORT)
        assert side_by_side(*pair).row("fps").difference(1, 0) == 50.0
        result = side_by_side(*pair, baseline="c1")
        assert result.baseline == 1
        assert difference(result, result.row("fps"), 0) == "-33.3 %"
        assert difference(result, result.row("fps"), 1) == ""

    @pytest.mark.parametrize(
        ("new", "text"),
        [
            (60000.0, "+100 %"),
            (30000.0, "="),
            (30300.0, "+1.0 %"),
            (29997.0, "-0.01 %"),
            (3.0e7, "+99,900 %"),
        ],
    )
    def test_they_are_written_as_precisely_as_it_makes_sense(self, new, text):
        result = side_by_side(REPORT, changed(fps=new))
        assert difference(result, result.row("fps"), 1) == text


class TestRows:
    def test_what_is_derived_is_right(self):
        result = side_by_side(REPORT, changed(resources__lut__used=1500, fps=12000.0))
        values = {r.key: [cell.value for cell in r.cells] for r in result.rows}
        assert values["fps_per_klut"] == [15000.0, 8000.0]
        assert values["fps_per_mhz"] == [1000.0, 400.0]
        assert values["seconds"] == [100.0, 100.0]
        assert values["weights_bits"] == [384, 384]
        assert values["accuracy"] == [96.0, 96.0]
        assert values["fc0.folding"] == ["4×8", "4×8"]
        assert values["fc1.cycles"] == [500, 500]
        assert values["lut_estimated"] == [1900, 1900]
        assert "dsp" not in values
        assert result.row("lc").cells[0].share == 50.0
        assert value(result.row("lc"), result.row("lc").cells[0]) == "2,640 (50 %)"

    def test_latency_comes_from_cycles_where_the_report_lacks_it(self):
        result = side_by_side(REPORT, changed(latency_us=None))
        assert [cell.value for cell in result.row("latency_us").cells] == [50.0, 50.0]

    def test_what_no_report_has_makes_no_row(self):
        keys = ("layers", "energy", "accuracy", "verification", "seconds", "fmax_mhz", "device")
        result = side_by_side(without(*keys), without(*keys))
        assert not {"uj_per_frame", "accuracy", "mismatches", "seconds", "fmax_mhz"} & {
            r.key for r in result.rows
        }
        with pytest.raises(KeyError):
            result.row("fmax_mhz")

    def test_a_quick_look_plans_its_clock_but_counts_its_cells(self):
        fast = changed(fast=True, fmax_mhz=None)
        result = compare([column(REPORT, "a"), column(fast, "b", "synthesis")])
        guessed = {r.key for r in result.rows if r.cells[1].estimated}
        assert {"clock_mhz", "fps", "latency_us", "uj_per_frame"} <= guessed
        assert not {"lut", "cycles_per_frame", "fc0.cycles", "mismatches"} & guessed
        assert not any(r.cells[0].estimated for r in result.rows if r.key in ("fps", "lut"))

    def test_accuracies_on_different_frames_are_not_ranked(self):
        few = changed(accuracy={"frames": 1, "accuracy": 1.0})
        result = side_by_side(REPORT, few)
        assert not result.row("accuracy").best
        assert any("different numbers of frames" in note for note in result.notes)
        assert side_by_side(REPORT, changed(accuracy__accuracy=0.97)).row("accuracy").best == {1}

    def test_mismatches_are_told_in_words_too(self):
        result = side_by_side(REPORT, changed(verification__mismatches=3))
        assert result.row("mismatches").best == {0}
        assert result.notes == ("c1: the hardware differs from the golden model in simulation",)

    def test_layers_meet_only_if_the_network_is_the_same(self):
        other = changed(digest="d2", model="other")
        result = side_by_side(REPORT, other, REPORT)
        groups = dict(result.groups())
        assert list(groups)[-2:] == ["layers of net", "layers of other"]
        cycles = {r.key: [cell.value for cell in r.cells] for r in result.rows}
        assert cycles["net.fc0.cycles"] == [1000, None, 1000]
        assert cycles["other.fc0.cycles"] == [None, 1000, None]

    def test_different_networks_of_one_name_are_told(self):
        result = side_by_side(REPORT, changed(digest="d2"))
        assert result.notes == ("2 different networks are called net",)
        assert [group for group, _ in result.groups()][-2:] == ["layers of c0", "layers of c1"]

    def test_layers_of_networks_without_a_digest_are_kept_apart(self):
        result = side_by_side(without("digest"), without("digest"))
        assert [group for group, _ in result.groups()][-2:] == ["layers of c0", "layers of c1"]

    def test_one_is_nothing_to_compare(self):
        with pytest.raises(UserError, match="only c0 to compare"):
            side_by_side(REPORT)


class TestLabels:
    def labels(self, *reports, given=()):
        columns = [Column(r, "", "place and route", f"v{i}") for i, r in enumerate(reports)]
        return [c.label for c in labelled(columns, given)]

    def test_they_tell_what_differs(self):
        other = changed(board="ulx3s-25f")
        assert self.labels(REPORT, other) == ["icebreaker", "ulx3s-25f"]
        assert self.labels(REPORT, changed(model="m2", digest="d2")) == ["net", "m2"]
        assert self.labels(REPORT, REPORT) == ["v0", "v1"]
        assert self.labels(REPORT, REPORT, other) == ["icebreaker v0", "icebreaker v1", "ulx3s-25f"]

    @given(st.lists(st.sampled_from([REPORT, changed(board="b"), changed(model="m")]), min_size=1))
    def test_they_are_unique(self, reports):
        columns = [Column(r, "", "place and route", "same") for r in reports]
        labels = [c.label for c in labelled(columns, ["same (2)"])]
        assert len(set(labels)) == len(labels)
        assert all(labels)

    def test_those_given_come_first(self):
        assert self.labels(REPORT, REPORT, given=["mine"]) == ["mine", "v1"]

    @pytest.mark.parametrize("given_", [["a", "a"], [" "], ["a", "b", "c"]])
    def test_wrong_ones_are_refused(self, given_):
        with pytest.raises(UserError, match="`labels`"):
            self.labels(REPORT, REPORT, given=given_)


class TestEstimates:
    def test_they_are_the_plan_and_never_look_built(self):
        board = load_board("icebreaker")
        one = estimated(LOWERED, board, Wanted("max", {"fastest": True}))
        planned = plan(LOWERED, board, fastest=True)
        result = compare(labelled([one, column(REPORT, "built")]))
        cells = {r.key: r.cells[0] for r in result.rows}
        assert cells["fps"] == Cell(planned.fps, True)
        assert cells["cycles_per_frame"] == Cell(planned.cycles_per_frame, True)
        whole = planned.total + planned.link
        assert cells["lut"] == Cell(round(whole.lut), True, 5280)
        assert cells["lc"] == Cell(round(whole.cells), True, 5280)
        assert cells["known_from"].value == "estimate"
        facts = {"model", "board", "device", "known_from", "weights_bits"}
        for key, cell in cells.items():
            if cell.value is not None and key not in facts and not key.endswith(".folding"):
                assert cell.estimated, key
        for key in ("fmax_mhz", "mismatches", "seconds", "accuracy"):
            assert cells[key].value is None

    def test_they_pass_as_reports_in_form_only(self):
        one = estimated(LOWERED, None, Wanted("max", {"fastest": True}))
        check_report(one.report, "estimate")
        assert one.report["known_from"] == "estimate"
        assert all(usage["used"] is None for usage in one.report["resources"].values())


class TestReading:
    def test_a_file_and_its_folder_are_the_same(self, tmp_path):
        (tmp_path / "report.json").write_text(json.dumps(REPORT))
        for path in (tmp_path, tmp_path / "report.json"):
            (one,), notes = read_reports(path)
            assert (one.report, one.variant, notes) == (REPORT, tmp_path.name, [])

    def test_points_that_failed_are_left_out_and_told(self, tmp_path):
        points = [
            {**REPORT, "failed": None, "front": True},
            {"board": "icebreaker", "failed": "does not fit", "front": False},
            {**REPORT, "failed": None, "front": False},
        ]
        (tmp_path / "points.json").write_text(json.dumps({"points": points}))
        columns, (note,) = read_reports(tmp_path)
        assert [c.variant for c in columns] == ["point 1", "point 3"]
        assert "1 of 3 points" in note
        columns, _ = read_reports(tmp_path, front=True)
        assert [c.variant for c in columns] == ["point 1"]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "damaged or no JSON"),
            ('{"model": "net", ', "damaged or no JSON"),
            ("[1, 2]", "no JSON object"),
            ("{}", "lacks model, board, fps"),
            ("[" * 100_000, "no report is made of"),
            ('{"fps": ' + "9" * 5000 + "}", "no report is made of"),
            ({"points": []}, "no list with points"),
            ({"points": [3]}, "point 1 is no JSON object"),
            ({"points": [{"failed": "no"}]}, "has no point that was built"),
            ({"points": [{"model": "x"}]}, "point 1 is no report: it lacks board"),
            ({"fc0": {"pe": 1, "simd": 2}}, "is a folding; give it with --folding"),
            (without("resources"), "it lacks resources"),
            (changed(model=""), "model is '' but must be a name"),
            (changed(board=7), "board is 7"),
            (changed(fps=None), "fps is None but must be a positive number"),
            (changed(fps=True), "fps is True"),
            (changed(fps="fast"), "fps is 'fast'"),
            (changed(fps=math.nan), "fps is nan"),
            (changed(clock_mhz=math.inf), "clock_mhz is inf"),
            (changed(clock_mhz=0), "clock_mhz is 0"),
            (changed(cycles_per_frame=10**400), "cycles_per_frame is 1000000"),
            (changed(cycles_per_frame=-5), "cycles_per_frame is -5"),
            (changed(fmax_mhz="33"), "fmax_mhz is '33'"),
            (changed(energy=3), "energy is 3 but must be an object or null"),
            (changed(energy={"uj_per_frame": []}), "energy.uj_per_frame is []"),
            (changed(resources=[]), "resources is [] but must be an object"),
            (changed(resources__lut=5), "resources.lut is 5"),
            (changed(resources__lut__used=-1), "resources.lut.used is -1"),
            (changed(seconds=[1]), "seconds is [1]"),
            (changed(seconds={"pack": "1"}), "seconds.pack is '1'"),
            (changed(layers={}), "layers is {} but must be a list"),
            (changed(layers=[{"pe": 1}]), "layers, number 1, is"),
            (changed(layers=[{"name": "a", "pe": "1"}]), "layers.a.pe is '1'"),
            (changed(layers=[{"name": "a"}, {"name": "a"}]), "two layers are called a"),
        ],
    )
    def test_what_is_no_report_is_refused_by_name(self, cli, files, content, words):
        good, bad = files(REPORT, content)
        refused(cli(good, bad), bad, words)

    @given(st.data())
    def test_no_damage_ends_in_anything_but_one_sentence(self, tmp_path_factory, data):
        """A report with anything in any place is compared, or refused with a `UserError`."""
        report = deepcopy(REPORT)
        for _ in range(data.draw(st.integers(1, 3))):
            place = report
            while True:
                keys = list(place) if isinstance(place, dict) else list(range(len(place)))
                key = data.draw(st.sampled_from(keys))
                inner = place[key]
                if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
                    break
                place = inner
            leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
            place[key] = data.draw(
                st.recursive(
                    leaves,
                    lambda inner: (
                        st.lists(inner, max_size=2)
                        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
                    ),
                    max_leaves=4,
                )
            )
        folder = tmp_path_factory.mktemp("damaged")
        (folder / "r.json").write_text(json.dumps(report), encoding="utf-8")
        sentence, columns, notes = "", [], []
        try:
            columns, notes = read_reports(folder / "r.json")
        except UserError as error:
            sentence = str(error)
        if sentence:
            assert "\n" not in sentence
            assert "r.json" in sentence
            return
        result = compare(labelled([*columns, column(REPORT, "good")]), notes=notes)
        for text in (render(result), as_markdown(result), json.dumps(as_json(result))):
            text.encode("utf-8")

    @given(st.integers(0, len(json.dumps(REPORT)) - 1), st.binary(max_size=3))
    def test_no_broken_file_ends_in_anything_but_one_sentence(
        self, tmp_path_factory, where, instead
    ):
        folder = tmp_path_factory.mktemp("broken")
        content = json.dumps(REPORT).encode()
        (folder / "r.json").write_bytes(content[:where] + instead)
        with pytest.raises(UserError, match=r"r\.json"):
            read_reports(folder / "r.json")


class TestOutput:
    def test_csv_has_a_line_for_each_column(self, cli, files, tmp_path):
        table = tmp_path / "t.csv"
        status, _, _ = cli(*files(REPORT, changed(fps=15000.0, fast=True)), "--csv", table)
        assert status == 0
        with table.open(newline="", encoding="utf-8") as file:
            first, second = csv.DictReader(file)
        assert [line["label"] for line in (first, second)] == ["r0", "r1"]
        assert (float(second["fps"]), float(second["fps_percent"])) == (15000.0, -50.0)
        assert (first["lut"], first["lut_available"]) == ("2000", "5280")
        assert "fps" not in first["estimated"].split()
        assert "fps" in second["estimated"].split()

    def test_markdown_marks_the_best_and_escapes(self, files, cli, tmp_path):
        page = tmp_path / "t.md"
        cli(*files(changed(model="a|b_c"), changed(fps=60000.0)), "--markdown", page)
        lines = page.read_text(encoding="utf-8").splitlines()
        assert "| model | a\\|b\\_c | net |" in lines
        assert "| frames/s | 30,000 | **60,000** \\* +100 % |" in lines
        assert "- \\* best of the row" in lines

    def test_the_page_shows_every_value_and_escapes(self):
        result = side_by_side(changed(model="<b>&"), REPORT)
        page = render(result)
        assert "<b>&" not in page
        assert "&lt;b&gt;&amp;" in page
        for each in result.rows:
            for cell in each.cells:
                if each.key != "model":
                    assert value(each, cell) in page
        assert "<script" not in page
        assert "http" not in page

    def test_json_can_be_compared_again(self, cli, model, files, tmp_path):
        out, again = tmp_path / "out.json", tmp_path / "again.json"
        options = ["--board", "icebreaker", "--max"]
        assert cli(model, *files(REPORT), *options, "--json", out)[0] == 0
        first = json.loads(out.read_text())
        assert [point["known_from"] for point in first["points"]] == ["estimate", "place and route"]
        assert first["points"][1]["layers"] == REPORT["layers"]
        assert cli(out, "--json", again)[0] == 0
        assert json.loads(again.read_text())["rows"] == first["rows"]

    def test_files_are_written_all_or_none(self, tmp_path):
        old = tmp_path / "old.csv"
        old.write_text("before")
        link = tmp_path / "link.csv"
        link.symlink_to(old)
        missing = tmp_path / "missing" / "x.csv"
        with pytest.raises(UserError, match=r"--html .*cannot be written"):
            write_files({"--csv": (str(old), "new"), "--html": (str(missing), "new")})
        assert old.read_text() == "before"
        write_files({"--csv": (str(link), "new")})
        assert old.read_text() == "new"
        assert link.is_symlink()
        assert {path.name for path in tmp_path.iterdir()} == {"old.csv", "link.csv"}

    def test_a_pipe_is_written_to_and_stays(self, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        read: list[str] = []
        reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
        reader.start()
        write_files({"--csv": (str(pipe), "text")})
        reader.join(10)
        assert read == ["text"]
        assert pipe.is_fifo()

    def test_numbers_have_the_digits_that_matter(self):
        assert number(23809.52) == "23,810"
        assert number(1000) == "1,000"
        assert number(9.99999) == "10.00"
        assert number(0.012345) == "0.01235"
        energy = Row("uj_per_frame", "", "", "", None, ())
        shown = [value(energy, Cell(v, True)) for v in (2.002, 0.6521, 123.4, 0.0)]
        assert shown == ["~2.0", "~0.65", "~120", "~0"]


class TestCommand:
    def test_columns_stand_side_by_side_where_they_fit(self, cli, files):
        status, out, _ = cli(*files(REPORT, changed(fps=60000.0)), width=80)
        assert status == 0
        assert max(map(len, out.splitlines())) <= 80
        (fps,) = [line.split() for line in out.splitlines() if line.startswith("frames/s  ")]
        assert fps == ["frames/s", "30,000", "60,000*", "+100", "%"]

    @pytest.mark.parametrize("width", [60, 80, 100])
    def test_many_columns_are_lines(self, cli, files, width):
        reports = [changed(fps=1000.0 * n, board=f"board{n}") for n in range(1, 13)]
        status, out, _ = cli(*files(*reports), width=width)
        assert status == 0
        lines = out.splitlines()
        assert max(len(line) for line in lines if not line.startswith("the same")) <= width
        assert any(line.startswith("board12 ") and "12,000*" in line for line in lines)
        assert "the same for all: model net;" in out

    def test_a_model_is_estimated_on_every_board_with_every_folding(self, cli, model, tmp_path):
        out, folding = tmp_path / "out.json", tmp_path / "mine.json"
        lowered = lower(load(model))
        chosen = plan(lowered, load_board("icebreaker"), target_fps=2000).folding
        folding.write_text(json.dumps(folding_json(chosen)))
        status, _, _ = cli(
            *(model, "--board", "icebreaker,ulx3s-25f", "--target-fps", "500,5000"),
            *("--folding", folding, "--max", "--min-area", "--json", out),
        )
        assert status == 0
        points = json.loads(out.read_text())["points"]
        wanted = ("mine", "500 fps", "5,000 fps", "max", "min-area")
        boards = ("icebreaker", "ulx3s-25f")
        assert [p["label"] for p in points] == [f"{b} {w}" for b in boards for w in wanted]
        assert all(p["known_from"] == "estimate" for p in points)
        for point in points[1:3]:
            assert point["fps"] >= point["target_fps"]

    def test_what_does_not_fit_is_told_and_the_rest_compared(self, cli, model):
        options = ["--board", "icebreaker", "--utilization", "0.195", "--target-fps"]
        status, out, _ = cli(model, *options, "1000,2000,1.2e7")
        assert status == 0
        assert "note: left out: tiny on icebreaker, 12,000,000 fps: --target-fps 12000000" in out
        refused(cli(model, *options, "1000,1.2e7"), "tiny on icebreaker", status=1)

    def test_labelled_frames_give_models_an_accuracy(self, cli, model, tmp_path):
        rng = np.random.default_rng(5)
        x = rng.integers(-8, 9, (40, 12)).astype(np.float32) / 8
        data, out = tmp_path / "d.npz", tmp_path / "o.json"
        classes = predict(NETWORK, x).classes
        y = np.where(np.arange(40) < 30, classes, (classes + 1) % 3)
        np.savez(data, x=x, y=y)
        options = ["--board", "icebreaker,ulx3s-25f", "--data", data, "--json", out]
        assert cli(model, *options)[0] == 0
        rows = {r["key"]: r for r in json.loads(out.read_text())["rows"]}
        assert rows["accuracy"]["values"] == [75.0, 75.0]
        np.savez(data, x=x)
        refused(cli(model, *options), "--data", "no labels")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--board", "icebraker"], "did you mean icebreaker"),
            (["--board", "icebreaker,"], "--board is 'icebreaker,'"),
            (["--target-fps", "1,x"], "--target-fps has 'x'"),
            (["--target-fps", "-1"], "--target-fps has '-1'"),
            (["--folding", "none.json"], "folding file none.json cannot be read"),
            (["--utilization", "2", "--board", "icebreaker"], "--utilization is 2"),
            (["--baseline", "nobody"], "--baseline is 'nobody', which no column is called"),
            (["--label", "a", "--label", "a"], "--label has 'a' twice"),
            (["--label", ""], "--label has an empty name"),
            (["--front"], "--front is for the output of explore"),
            (["--csv", "no/such/x.csv"], "--csv no/such/x.csv"),
        ],
    )
    def test_a_wrong_option_is_refused_by_name(self, cli, model, files, options, words):
        refused(cli(model, *files(REPORT), *options), words)

    def test_options_of_models_are_refused_without_one(self, cli, files):
        paths = files(REPORT, REPORT)
        for option in (["--board", "icebreaker"], ["--max"], ["--target-fps", "5"]):
            refused(cli(*paths, *option), option[0], "none is given")

    def test_no_file_is_written_twice_or_over_an_input(self, cli, files, tmp_path):
        one, two = files(REPORT, REPORT)
        out = tmp_path / "x"
        refused(cli(one, two, "--csv", out, "--html", out), "--html", "the file of --csv")
        refused(cli(one, two, "--json", two), "--json", "an input")
        assert json.loads(two.read_text()) == REPORT
        assert not out.exists()

    def test_inputs_that_are_not_there_are_refused(self, cli, files, tmp_path):
        (one,) = files(REPORT)
        refused(cli(one, tmp_path / "none.json"), "none.json cannot be read")
        refused(cli(one, tmp_path / "none.onnx"), "none.onnx", "no such file")
        (tmp_path / "empty").mkdir()
        refused(cli(one, tmp_path / "empty"), "neither report.json nor points.json")
        refused(cli(one), "only r0 to compare")
        assert cli()[0] == 2
