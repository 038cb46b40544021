"""The command line: what each command gives, and how every wrong input ends."""

import json
from importlib import resources

import click
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from random_networks import random_network, to_qonnx

from xnorflow.boards import load as load_board
from xnorflow.cli.common import in_options
from xnorflow.cli.main import main
from xnorflow.folding import folding_json
from xnorflow.frontend import load
from xnorflow.lowering import lower
from xnorflow.network import Dense, Join, Network, Sign
from xnorflow.planning import plan

MINI = str(resources.files("xnorflow.models") / "mnist_mini.onnx")


@pytest.fixture
def cli(capsys):
    """Run a command line; return its exit status, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


@pytest.fixture
def tiny(tmp_path):
    """A network of 12 inputs and 3 classes, and 30 labelled frames for it."""
    rng = np.random.default_rng(1)
    model = tmp_path / "tiny.onnx"
    onnx.save(to_qonnx(random_network(rng, [12, 6, 3])), model)
    data = tmp_path / "tiny.npz"
    x = rng.integers(-8, 9, (30, 12)).astype(np.float32) / 8
    np.savez(data, x=x, y=rng.integers(0, 3, 30))
    return model, data


def refused(result):
    """Check for exit status 2, one sentence, no traceback; return the sentence."""
    status, _, err = result
    assert status == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("Error: ")
    assert "Traceback" not in err
    return lines[0]


class TestCommands:
    def test_help_names_every_command(self, cli):
        status, out, _ = cli("--help")
        assert status == 0
        for command in ("boards", "build", "demo", "inspect", "predict", "run", "simulate"):
            assert command in out

    def test_predict_gives_classes_logits_and_accuracy(self, cli, tmp_path):
        result = tmp_path / "out.json"
        status, out, _ = cli("predict", MINI, "--json", result, "--frames", "50")
        table = json.loads(result.read_text())
        assert status == 0
        assert "50 frames, accuracy" in out
        assert table["frames"] == len(table["predictions"]) == len(table["logits"]) == 50
        assert len(table["logits"][0]) == 10
        assert table["accuracy"] > 0.9

    def test_predict_without_labels_has_no_accuracy(self, cli, tiny, tmp_path):
        model, _ = tiny
        data, result = tmp_path / "bare.npz", tmp_path / "out.json"
        np.savez(data, x=np.zeros((4, 12), np.float32))
        assert cli("predict", model, "--data", data, "--json", result)[0] == 0
        assert json.loads(result.read_text())["accuracy"] is None

    def test_layers_on_shortcuts_are_shown_and_folded_as_all_others(self, cli, tmp_path):
        rng = np.random.default_rng(7)
        shapes = {"a": (4, 6), "b": (5, 4), "c": (3, 5), "down": (3, 4), "last": (2, 3)}
        a, b, c, down, last = (
            Dense(name, rng.choice([-1, 1], shape)) for name, shape in shapes.items()
        )
        join = Join("add", 3, (down,), "add")
        ops = (Sign("s"), a, Sign("t"), b, Sign("u"), c, join, Sign("v"), last)
        model, data, result, folding = (
            tmp_path / name for name in ("net.onnx", "x.npz", "out.json", "folding.json")
        )
        onnx.save(to_qonnx(Network("net", (6,), ops)), model)
        np.savez(data, x=np.random.default_rng(1).choice(np.float32([-1, 1]), (4, 6)))
        assert cli("inspect", model, "--json", result)[0] == 0
        report = json.loads(result.read_text())
        shown = {layer["name"]: layer["on_shortcut"] for layer in report["layers"]}
        assert shown == {f"{name}_out": name == "down" for name in shapes}
        report["folding"]["down_out"] = {"pe": 3, "simd": 2}
        folding.write_text(json.dumps(report["folding"]))
        command = ("simulate", model, "--data", data, "--folding", folding, "--layers")
        assert cli(*command, "--engine", "amaranth", "--json", result)[0] == 0
        simulated = json.loads(result.read_text())
        assert simulated["mismatches"] == 0
        assert {"down_out", "add_out"} <= simulated["layer_mismatches"].keys()

    def test_inspect_prints_layers_and_a_folding_that_can_be_used(self, cli, tiny, tmp_path):
        model, data = tiny
        result, folding = tmp_path / "out.json", tmp_path / "folding.json"
        status, out, _ = cli("inspect", model, "--target-fps", "2e7", "--json", result)
        assert status == 0
        assert "100 MHz are assumed" in out
        table = json.loads(result.read_text())
        assert [layer["name"] for layer in table["layers"]] == list(table["folding"])
        assert table["fps"] >= 2e7
        folding.write_text(json.dumps(table["folding"]))
        status, _, _ = cli(
            "simulate", model, "--data", data, "--folding", folding, "--json", result
        )
        assert status == 0
        assert json.loads(result.read_text())["cycles_per_frame"] == table["cycles_per_frame"]

    @pytest.mark.parametrize(
        ("option", "objective"),
        [("--max", "fastest"), ("--min-area", "min_area"), ("--latency", "latency")],
    )
    def test_a_folding_is_chosen_by_an_objective(self, cli, tiny, tmp_path, option, objective):
        model, result = tiny[0], tmp_path / "out.json"
        status, *_ = cli("inspect", model, "--board", "icebreaker", option, "--json", result)
        assert status == 0
        planned = plan(lower(load(model)), load_board("icebreaker"), **{objective: True})
        assert json.loads(result.read_text())["folding"] == folding_json(planned.folding)

    def test_objectives_exclude_each_other(self, cli, tiny):
        assert "only one of" in refused(cli("inspect", tiny[0], "--max", "--min-area"))

    def test_simulate_follows_the_contract(self, cli, tiny, tmp_path):
        model, data = tiny
        result, vcd = tmp_path / "out.json", tmp_path / "waves.vcd"
        status, out, _ = cli(
            *("simulate", model, "--data", data, "--frames", "12", "--json", result),
            *("--layers", "--vcd", vcd, "--target-fps", "5e6"),
        )
        table = json.loads(result.read_text())
        assert status == 0
        assert "12 frames in amaranth: 0 mismatches" in out
        assert (table["engine"], table["frames"], table["mismatches"]) == ("amaranth", 12, 0)
        assert table["cycles_per_frame"] == table["cycles_per_frame_predicted"] <= 20
        assert table["latency_cycles"] == table["latency_cycles_predicted"]
        assert 0 <= table["accuracy"] <= 1
        assert table["seconds"] > 0
        assert set(table["layer_mismatches"].values()) == {0}
        assert vcd.stat().st_size > 1000

    def test_simulate_under_back_pressure(self, cli, tiny):
        model, data = tiny
        status, out, _ = cli("simulate", model, "--data", data, "--stall", "0.5", "--frames", "5")
        assert status == 0
        assert "0 mismatches" in out

    def test_boards_lists_them(self, cli, tmp_path):
        result = tmp_path / "out.json"
        status, out, _ = cli("boards", "--json", result)
        assert status == 0
        assert "icebreaker" in out
        names = [board["name"] for board in json.loads(result.read_text())["boards"]]
        assert {"icebreaker", "ice40-hx8k", "ulx3s-12f", "ulx3s-85f"} <= set(names)


class TestModels:
    def test_missing(self, cli, tmp_path):
        assert "nowhere.onnx" in refused(cli("inspect", tmp_path / "nowhere.onnx"))

    def test_not_onnx(self, cli, tmp_path):
        path = tmp_path / "text.onnx"
        path.write_text("this is no model")
        assert "text.onnx" in refused(cli("inspect", path))

    def test_truncated(self, cli, tmp_path):
        path = tmp_path / "half.onnx"
        whole = resources.files("xnorflow.models").joinpath("mnist_mini.onnx").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert "half.onnx" in refused(cli("inspect", path))

    def test_multi_bit(self, cli, tiny, tmp_path):
        model = onnx.load(tiny[0])
        node = next(n for n in model.graph.node if n.op_type == "BipolarQuant")
        for name, value in (("zero", 0.0), ("bits", 4.0)):
            tensor = numpy_helper.from_array(np.float32(value), name)
            model.graph.initializer.append(tensor)
        node.op_type = "Quant"
        node.input.extend(["zero", "bits"])
        path = tmp_path / "multi.onnx"
        onnx.save(model, path)
        sentence = refused(cli("inspect", path))
        assert "Quant" in sentence
        assert "multi.onnx" in sentence

    def test_unsupported_operator(self, cli, tiny, tmp_path):
        model = onnx.load(tiny[0])
        last = model.graph.node[-1]
        model.graph.node.append(helper.make_node("Relu", [last.output[0]], ["relu"], name="act"))
        model.graph.output[0].name = "relu"
        path = tmp_path / "relu.onnx"
        onnx.save(model, path)
        sentence = refused(cli("predict", path))
        assert "act" in sentence
        assert "Relu" in sentence

    def test_nan_parameters(self, cli, tiny, tmp_path):
        model = onnx.load(tiny[0])
        node = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
        tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
        values = numpy_helper.to_array(tensor).copy()
        values[0] = np.nan
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        path = tmp_path / "nan.onnx"
        onnx.save(model, path)
        assert "nan.onnx" in refused(cli("inspect", path))


class TestData:
    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.zeros((4, 11), np.float32), "11"),
            (np.zeros(4, np.float32), "shape"),
            (np.zeros((4, 12), np.complex64), "complex64"),
            (np.full((4, 12), np.nan, np.float32), "NaN"),
            (np.zeros((0, 12), np.float32), "bad.npz"),
        ],
    )
    def test_wrong_frames(self, cli, tiny, tmp_path, x, message):
        path = tmp_path / "bad.npz"
        np.savez(path, x=x)
        sentence = refused(cli("simulate", tiny[0], "--data", path))
        assert message in sentence
        assert "bad.npz" in sentence

    def test_no_npz(self, cli, tiny, tmp_path):
        path = tmp_path / "bad.npz"
        path.write_text("hello")
        assert "bad.npz" in refused(cli("predict", tiny[0], "--data", path))

    def test_missing(self, cli, tiny, tmp_path):
        assert "no.npz" in refused(cli("predict", tiny[0], "--data", tmp_path / "no.npz"))

    def test_the_sample_digits_do_not_suit_every_network(self, cli, tiny):
        assert "--data" in refused(cli("predict", tiny[0]))

    @pytest.mark.parametrize("count", ["0", "-3"])
    def test_no_frames(self, cli, tiny, count):
        model, data = tiny
        assert "--frames" in refused(cli("predict", model, "--data", data, "--frames", count))

    def test_pixels_from_0_to_255_can_be_divided(self, cli, tmp_path):
        # The shipped model compares pixels with 127.5; divided by 255 none of them reaches it.
        whole, divided = tmp_path / "whole.json", tmp_path / "divided.json"
        cli("predict", MINI, "--frames", "20", "--json", whole)
        cli("predict", MINI, "--frames", "20", "--divide-by", "255", "--json", divided)
        assert len(set(json.loads(whole.read_text())["predictions"])) > 5
        assert len(set(json.loads(divided.read_text())["predictions"])) == 1

    def test_a_likely_wrong_scale_is_hinted_at(self, cli, tmp_path):
        model, path = tmp_path / "centred.onnx", tmp_path / "pixels.npz"
        rng = np.random.default_rng(2)
        onnx.save(to_qonnx(random_network(rng, [12, 3], preprocess=False)), model)
        np.savez(path, x=np.full((3, 12), 200, np.uint8))
        _, _, err = cli("predict", model, "--data", path)
        assert "--divide-by 255" in err

    def test_a_divisor_must_be_positive(self, cli, tiny):
        model, data = tiny
        assert "--divide-by" in refused(cli("predict", model, "--data", data, "--divide-by", "0"))


class TestOptions:
    def test_unknown_board(self, cli, tmp_path):
        output = tmp_path / "out"
        sentence = refused(cli("build", MINI, "--board", "icebraker", "--output", output))
        assert "did you mean icebreaker" in sentence
        assert not output.exists()

    def test_impossible_folding(self, cli, tiny, tmp_path):
        model, data = tiny
        path, output = tmp_path / "folding.json", tmp_path / "out"
        names = [layer.name for layer in load(model).layers()]
        path.write_text(json.dumps({name: {"pe": 5, "simd": 1} for name in names}))
        sentence = refused(
            cli(
                *("build", model, "--board", "icebreaker", "--data", data),
                *("--folding", path, "--output", output),
            )
        )
        assert "legal are [1, 2, 3, 6]" in sentence
        assert not output.exists()

    def test_unreachable_fps(self, cli, tmp_path):
        output = tmp_path / "out"
        sentence = refused(
            cli("build", MINI, "--board", "icebreaker", "--target-fps", "1e9", "--output", output)
        )
        assert "24,000,000 is the most" in sentence
        assert not output.exists()

    def test_fps_that_does_not_fit_fails_and_names_one_that_does(self, cli, tmp_path):
        output = tmp_path / "out"
        status, _, err = cli(
            "build", MINI, "--board", "icebreaker", "--target-fps", "4e6", "--output", output
        )
        assert status == 1
        assert err.startswith("Failed: ")
        assert "--target-fps" in err
        assert not output.exists()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--seeds", "1,x"], "--seeds is '1,x' but must be integers"),
            (["--seeds", "2,2"], "must be one or more different integers"),
            (["--seeds", "1,2", "--seed", "3"], "only one of --seed and --seeds"),
            (["--seed", "-1"], "must be one or more different integers"),
        ],
    )
    def test_bad_seeds(self, cli, options, words):
        assert words in refused(cli("build", MINI, "--board", "icebreaker", *options))

    @pytest.mark.parametrize("clock", ["fast", "0", "-3", "nan"])
    def test_bad_clock(self, cli, clock):
        sentence = refused(cli("build", MINI, "--board", "icebreaker", "--clock", clock))
        assert "number of MHz" in sentence

    def test_bad_stall(self, cli, tiny):
        model, data = tiny
        assert "--stall" in refused(cli("simulate", model, "--data", data, "--stall", "1"))

    def test_output_below_a_file(self, cli, tmp_path):
        blocker = tmp_path / "file"
        blocker.write_text("in the way")
        sentence = refused(cli("build", MINI, "--board", "icebreaker", "--output", blocker / "out"))
        assert "--output" in sentence
        assert blocker.read_text() == "in the way"

    def test_output_that_holds_something_else(self, cli, tmp_path):
        (tmp_path / "letter.txt").write_text("dear")
        sentence = refused(cli("build", MINI, "--board", "icebreaker", "--output", tmp_path))
        assert "--output" in sentence
        assert (tmp_path / "letter.txt").read_text() == "dear"

    @pytest.mark.parametrize("command", ["inspect", "predict", "simulate"])
    def test_json_that_cannot_be_written(self, cli, command, tmp_path):
        sentence = refused(cli(command, MINI, "--json", tmp_path / "none" / "out.json"))
        assert "--json" in sentence

    def test_unknown_option(self, cli):
        status, _, err = cli("predict", MINI, "--nonsense")
        assert status == 2
        assert "--nonsense" in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("`rate` is 0", "--rate is 0"),
        ("give `rate=5,000.5`; or", "give --rate 5,000.5; or"),
        ("give `checks=False`", "give --no-checks"),
        ("give `checks=True`", "give --checks"),
        ("give your own as `x`", "give your own as --data"),
        (
            "`xnorflow boards` tells, `other=1` does not",
            "`xnorflow boards` tells, `other=1` does not",
        ),
    ],
)
def test_arguments_in_messages_become_options(message, printed):
    @click.command()
    @click.option("--rate")
    @click.option("--checks/--no-checks")
    def command(rate, checks):
        pass

    assert in_options(message, [command]) == printed
