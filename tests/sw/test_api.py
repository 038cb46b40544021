"""The four calls of a notebook: what they give, and what they say of wrong arguments."""

import gc
import json
import re
import runpy
import subprocess
import sys
import weakref
from fractions import Fraction
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from random_networks import random_network, to_qonnx

import xnorflow
from xnorflow import api
from xnorflow.boards.flow import BuildResult, Placement
from xnorflow.boards.pll import solve
from xnorflow.boards.reports import Usage
from xnorflow.cli.main import main
from xnorflow.golden import predict
from xnorflow.lowering import lower
from xnorflow.network import Affine

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "python_api.py"
PAGE = ROOT / "docs" / "python.md"
MINI = str(resources.files("xnorflow.models") / "mnist_mini.onnx")


@pytest.fixture
def network():
    """12 inputs, 6 neurons, 3 classes."""
    return random_network(np.random.default_rng(1), [12, 6, 3])


@pytest.fixture
def frames():
    rng = np.random.default_rng(2)
    x = rng.integers(-8, 9, (30, 12)).astype(np.float32) / 8
    return x, rng.integers(0, 3, 30)


@pytest.fixture
def files(tmp_path, network, frames):
    """The same as files."""
    model, data = tmp_path / "tiny.onnx", tmp_path / "tiny.npz"
    onnx.save(to_qonnx(network), model)
    np.savez(data, x=frames[0], y=frames[1])
    return model, data


def blocks(page):
    """Return the Python code of a page, section by section."""
    sections = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    names, bodies = sections[1::2], sections[2::2]
    return {
        name: re.findall(r"^```python\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
        for name, body in zip(names, bodies, strict=True)
    }


class TestPage:
    def test_the_first_four_sections_are_the_example(self):
        code = blocks(PAGE.read_text(encoding="utf-8"))
        pieces = [*code["Load"], *code["Predict"], *code["Simulate"], *code["Build"]]
        assert len(pieces) == 4
        _, _, body = EXAMPLE.read_text(encoding="utf-8").partition('"""\n\n')
        assert "\n".join(pieces) == body

    def test_every_other_block_is_python(self):
        for section, pieces in blocks(PAGE.read_text(encoding="utf-8")).items():
            for piece in pieces:
                compile(piece, f"docs/python.md, {section}", "exec")

    def test_the_example_prints_what_the_page_says_up_to_the_simulation(self, monkeypatch, capsys):
        monkeypatch.chdir(ROOT)
        source, _, _ = EXAMPLE.read_text(encoding="utf-8").partition("design = ")
        exec(compile(source, str(EXAMPLE), "exec"), {})
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) == 5
        page = PAGE.read_text(encoding="utf-8")
        # Cycles follow the folding, which is chosen by estimates that are refitted now and then.
        assert all(f"\n    {line}\n" in page for line in printed if " cycles a frame" not in line)

    @pytest.mark.slow
    def test_the_whole_example_runs(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "models").symlink_to(ROOT / "models")
        monkeypatch.chdir(tmp_path)
        result = runpy.run_path(str(EXAMPLE))["design"]
        assert result.bitstream.is_file()
        assert result.page.is_file()
        assert result.verification.mismatches == 0
        assert "frames/s at" in capsys.readouterr().out


class TestImport:
    def run(self, code):
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout

    def test_the_package_alone_imports_nothing_heavy(self):
        code = (
            "import sys, xnorflow; print(*{'onnx', 'amaranth', 'numpy', 'torch'} & {*sys.modules})"
        )
        assert self.run(code).strip() == ""

    def test_a_file_is_loaded_without_torch(self):
        code = f"import sys, xnorflow; xnorflow.load({MINI!r}); print('torch' in sys.modules)"
        assert self.run(code).strip() == "False"

    def test_the_four_calls_are_listed_and_found(self):
        for name in ("build", "load", "predict", "simulate"):
            assert getattr(xnorflow, name) is getattr(api, name)
            assert name in dir(xnorflow)
        with pytest.raises(AttributeError, match="no attribute 'guess'"):
            _ = xnorflow.guess


class TestLoad:
    def test_a_file_is_named_after_its_stem_or_as_told(self, files):
        assert xnorflow.load(files[0]).name == "tiny"
        assert xnorflow.load(str(files[0]), name="own").name == "own"

    @pytest.mark.parametrize("name", ["", " ", "a/b", "a\\b", "a\nb"])
    def test_a_name_that_is_no_folder_name_is_refused(self, files, name):
        with pytest.raises(xnorflow.UserError, match="`name` is"):
            xnorflow.load(files[0], name=name)

    @pytest.mark.parametrize("scale", [1 / 255, Fraction(1, 255)])
    def test_an_input_scale_is_exact(self, files, scale):
        network = xnorflow.load(files[0], input_scale=scale, input_offset=-0.5)
        first = next(op for op in network.ops if isinstance(op, Affine))
        assert (Fraction(1, 255), Fraction(-1, 2)) == (*first.scale, *first.offset)

    def test_a_float_that_is_near_no_simple_fraction_is_taken_as_it_is(self):
        value = 0.12345678901234567
        assert api._exact(value, "input_scale") == Fraction(value)

    @pytest.mark.parametrize("scale", ["1/255", float("nan"), float("inf"), None, 0])
    def test_an_input_scale_is_a_number(self, files, scale):
        with pytest.raises(xnorflow.UserError, match=r"input.scale"):
            xnorflow.load(files[0], input_scale=scale)

    def test_what_is_no_model_is_refused(self, files):
        with pytest.raises(xnorflow.UserError, match="from a int; give the path"):
            xnorflow.load(5)
        with pytest.raises(xnorflow.UserError, match="leave `input_shape` out"):
            xnorflow.load(files[0], input_shape=(12,))
        with pytest.raises(xnorflow.UserError, match="no such file"):
            xnorflow.load("absent.onnx")


class TestPredict:
    def test_gives_what_the_golden_model_says_as_arrays(self, network, files, frames):
        expected = predict(lower(network), frames[0])
        for model in (network, files[0], str(files[0])):
            prediction = xnorflow.predict(model, frames[0])
            for name in ("classes", "scores", "accumulators", "logits"):
                array = getattr(prediction, name)
                assert isinstance(array, np.ndarray)
                assert np.array_equal(array, getattr(expected, name))

    def test_frames_may_be_divided(self, network, frames):
        x = np.round(frames[0] * 8).astype(np.float32)
        divided = xnorflow.predict(network, x, divide_by=8)
        assert np.array_equal(divided.scores, xnorflow.predict(network, frames[0]).scores)

    def test_a_likely_wrong_scale_is_warned_of(self):
        network = random_network(np.random.default_rng(2), [12, 3], preprocess=False)
        with pytest.warns(UserWarning, match="give `divide_by=255`") as caught:
            xnorflow.predict(network, np.full((3, 12), 200, np.uint8))
        assert caught[0].filename == __file__

    def test_channels_may_not_come_first_unless_there_is_one(self):
        mini = xnorflow.load(MINI)
        x = np.random.default_rng(3).integers(0, 256, (5, 28, 28, 1), np.uint8)
        expected = xnorflow.predict(mini, x).classes
        for shape in ((5, 1, 28, 28), (5, 28, 28), (5, 784)):
            assert np.array_equal(xnorflow.predict(mini, x.reshape(shape)).classes, expected)

    def test_a_network_is_lowered_once_and_forgotten_when_it_goes(self, frames, monkeypatch):
        count = []
        monkeypatch.setattr(api, "lower", lambda network: count.append(1) or lower(network))
        network = random_network(np.random.default_rng(1), [12, 6, 3])
        for _ in range(3):
            xnorflow.predict(network, frames[0])
        assert len(count) == 1
        gone = weakref.ref(network)
        del network
        gc.collect()
        assert gone() is None
        assert len(api._lowered) == 0


class TestSimulate:
    def test_the_hardware_says_what_the_golden_model_says(self, network, frames):
        x, y = frames[0][:6], frames[1][:6]
        expected = xnorflow.predict(network, x)
        result = xnorflow.simulate(network, x, y, layers=True, stall=0.3, seed=4)
        assert result.mismatches == 0
        assert set(result.layer_mismatches.values()) == {0}
        for array, same in ((result.classes, expected.classes), (result.scores, expected.scores)):
            assert isinstance(array, np.ndarray)
            assert array.dtype == np.int64
            assert np.array_equal(array, same)
        assert result.accuracy == (expected.classes == y).mean()
        assert result.plan.notes[0] == "no board given: 100 MHz are assumed"

    def test_gives_what_the_command_gives(self, files, frames, tmp_path, capsys):
        model, data = files
        output = tmp_path / "out.json"
        arguments = ["simulate", model, "--data", data, "--frames", "5", "--board", "ulx3s-85f"]
        with pytest.raises(SystemExit):
            main([*map(str, arguments), "--target-fps", "5e6", "--json", str(output)])
        x, y = frames
        result = xnorflow.simulate(model, x[:5], y[:5], board="ulx3s-85f", target_fps=5e6)
        ours, theirs = result.as_json(), json.loads(output.read_text())
        assert ours.pop("seconds") > 0
        assert theirs.pop("seconds") > 0
        assert ours == theirs

    def test_a_folding_is_a_table_or_a_file_or_that_of_a_plan(self, network, frames, tmp_path):
        table = {"fc0": {"pe": np.int64(3), "simd": 4}, "fc1": {"pe": 1, "simd": 6}}
        file = tmp_path / "folding.json"
        file.write_text(json.dumps({"fc0": {"pe": 3, "simd": 4}, "fc1": {"pe": 1, "simd": 6}}))
        first = xnorflow.simulate(network, frames[0][:3], folding=table)
        assert (first.plan.folding["fc0"].pe, first.plan.folding["fc0"].simd) == (3, 4)
        for folding in (file, str(file), first.plan.folding):
            again = xnorflow.simulate(network, frames[0][:3], folding=folding)
            assert again.plan.folding == first.plan.folding
            assert again.cycles_per_frame == first.cycles_per_frame == 6

    def test_progress_is_told_and_nothing_is_printed(self, network, frames, tmp_path, capsys):
        told = []
        waves = tmp_path / "waves.vcd"
        xnorflow.simulate(
            network, frames[0][:3], vcd=waves, progress=lambda *state: told.append(state)
        )
        assert told == [("simulate", "3 frames", done, 3) for done in range(4)]
        assert waves.stat().st_size
        assert capsys.readouterr() == ("", "")

    def test_nothing_is_printed_at_the_end_of_the_process_either(self):
        code = (
            "import numpy, xnorflow; xnorflow.simulate("
            f"{MINI!r}, numpy.zeros((1, 784), numpy.uint8), board='icebreaker')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"stall": 1}, "`stall` is 1 but must be at least 0 and below 1"),
            ({"seed": -1}, "`seed` is -1 but"),
            ({"engine": "magic"}, "`engine` is 'magic' but must be one of auto, amaranth"),
            ({"vcd": "absent/waves.vcd"}, "`vcd` absent/waves.vcd: the folder absent does not"),
            ({"board": "icebraker"}, "did you mean icebreaker"),
            ({"target_fps": 0}, "`target_fps` is 0 but must be a positive number"),
            ({"target_fps": 1e9}, "`target_fps=1000000000` cannot be reached"),
            ({"target_fps": 1, "folding": {}}, "only one of `target_fps`, `folding`"),
            (
                {"folding": {"fc0": {"pe": 7, "simd": 1}, "fc1": {"pe": 1, "simd": 1}}},
                "`folding`, layer 'fc0': pe is",
            ),
            ({"folding": {"fc9": {}}}, "`folding` names layer 'fc9'"),
            ({"folding": [8, 16]}, "`folding` must map each of the layers"),
            ({"folding": "absent.json"}, "folding file absent.json cannot be read"),
            ({"divide_by": 0}, "`divide_by` is 0 but must be a positive number"),
            ({"y": [0, 1]}, r"'y' has shape \(2,\), but 30 frames need labels"),
            ({"y": np.zeros(30)}, "'y' is float64, but labels are integers"),
            ({"x": np.zeros((3, 5), np.float32)}, r"the network takes frames of shape \(12,\)"),
            ({"x": [[1.0] * 12]}, "dtype float64.*convert them to float32 or uint8"),
            ({"x": [[1], [1, 2]]}, "`x` is no array"),
            ({"x": np.full((1, 12), "a"), "divide_by": 2}, "the data have dtype <U1"),
            ({"network": "absent.onnx"}, "no such file"),
            ({"network": 5}, "`network` is a int; give what xnorflow.load returns"),
        ],
    )
    def test_a_wrong_argument_is_named(self, network, frames, arguments, message):
        with pytest.raises(xnorflow.UserError, match=message) as refusal:
            xnorflow.simulate(**{"network": network, "x": frames[0], **arguments})
        assert "--" not in str(refusal.value)


class TestBuild:
    @pytest.fixture
    def flow(self, monkeypatch):
        """Leave synthesis, place and route out."""

        def build(top, board, clock_mhz, folder, progress, **options):
            fast = options["fast"]
            if not fast:
                (folder / "tiny.bin").write_bytes(b"bits")
            progress("route", "fast")
            used = {"lut": Usage(1, 2)}
            placements = [Placement(24.0, seed, 30.0 - seed) for seed in options["seeds"]]
            return BuildResult(
                board=board.name,
                device="chip",
                setting=solve(board, 24.0),
                clock_mhz=clock_mhz or 24.0,
                fmax_mhz=None if fast else 30.0,
                attempts=() if fast else ((24.0, 30.0),),
                seed=None if fast else options["seeds"][0],
                seeds=() if fast else tuple(placements),
                resources=used,
                core_resources=used,
                seconds={"route": 0.5},
                tools={"yosys": "1"},
                bitstream=None if fast else "tiny.bin",
                logs=(),
            )

        class Ready:
            def __init__(self, tools):
                pass

            def wait(self, tool):
                pass

        monkeypatch.setattr("xnorflow.builder.build_bitstream", build)
        monkeypatch.setattr("xnorflow.builder.WarmUp", Ready)

    def test_gives_report_paths_and_figures(self, network, frames, flow, tmp_path, capsys):
        told = []
        design = xnorflow.build(
            network,
            "icebreaker",
            *frames,
            target_fps=1e6,
            clock_mhz=24,
            output=tmp_path / "out",
            frames=3,
            progress=lambda *state: told.append(state[0]),
        )
        assert design.output == tmp_path / "out"
        assert design.bitstream.read_bytes() == b"bits"
        assert "24 MHz" in design.page.read_text(encoding="utf-8")
        assert json.loads((design.output / "report.json").read_text()) == design.report
        assert design.clock_mhz == 24
        assert design.fps == 24e6 / design.plan.cycles_per_frame >= 1e6
        assert design.latency_us == pytest.approx(design.verification.latency_cycles / 24)
        assert design.verification.classes.shape == (3,)
        assert design.report["accuracy"]["frames"] == 30
        assert list(dict.fromkeys(told)) == ["simulate", "prepare", "route"]
        assert capsys.readouterr() == ("", "")

    def test_energy_is_an_estimate_with_formula_and_source(self, network, frames, flow, tmp_path):
        design = xnorflow.build(
            network, "icebreaker", *frames, clock_mhz=24, output=tmp_path / "out", frames=1
        )
        energy = design.report["energy"]
        power_mw = energy["static_mw"] + energy["dynamic_mw"]
        assert energy["uj_per_frame"] == pytest.approx(power_mw * 1000 / design.fps)
        assert energy["formula"]
        assert energy["source"]
        page = design.page.read_text(encoding="utf-8")
        assert "Energy, an estimate" in page

    def test_a_quick_look_says_that_nothing_was_routed(self, network, frames, flow, tmp_path):
        design = xnorflow.build(
            network, "icebreaker", *frames, fast=True, output=tmp_path / "out", frames=1
        )
        assert design.bitstream is None
        assert design.clock_mhz == 24
        for key in ("fmax_mhz", "bitstream", "program", "seed"):
            assert design.report[key] is None
        assert design.report["fast"] is True
        assert design.report["energy"]["uj_per_frame"] > 0
        assert "not placed and routed" in design.page.read_text(encoding="utf-8")

    def test_the_seed_that_won_and_all_others_are_told(self, network, frames, flow, tmp_path):
        design = xnorflow.build(
            network, "icebreaker", *frames, seeds=(2, 5), output=tmp_path / "out", frames=1
        )
        assert design.report["seed"] == 2
        assert design.report["seeds"] == [
            {"clock_mhz": 24.0, "seed": 2, "fmax_mhz": 28.0},
            {"clock_mhz": 24.0, "seed": 5, "fmax_mhz": 25.0},
        ]

    def test_a_folder_is_named_after_network_and_board(self, flow, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        network = xnorflow.load(MINI, name="own")
        design = xnorflow.build(network, "ice40-hx8k", fastest=True, frames=1)
        assert design.output == Path("build-own-ice40-hx8k")
        assert (tmp_path / design.bitstream).is_file()
        assert design.report["accuracy"]["frames"] == 1000

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"x": None, "y": None}, "not MNIST digits; give your own with `x`"),
            ({"x": None}, "`y` are labels of `x`"),
            ({"frames": 0}, "`frames` is 0 but must be at least 1"),
            ({"seeds": ()}, r"`seeds` is \[\] but must be one or more different integers"),
            ({"clock_mhz": -1}, "`clock_mhz` is -1 but must be a positive number"),
            ({"fastest": True, "target_fps": 1}, "only one of"),
            ({"output": "file"}, "another folder with `output`|cannot be written"),
        ],
    )
    def test_a_wrong_argument_is_named(
        self, network, frames, tmp_path, monkeypatch, arguments, message
    ):
        monkeypatch.chdir(tmp_path)
        Path("file").write_text("mine")
        with pytest.raises(xnorflow.UserError, match=message) as refusal:
            xnorflow.build(
                **{
                    "network": network,
                    "board": "icebreaker",
                    "x": frames[0],
                    "y": frames[1],
                    **arguments,
                }
            )
        assert "--" not in str(refusal.value)
        assert Path("file").read_text() == "mine"
