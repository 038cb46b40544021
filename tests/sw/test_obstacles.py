"""All that stands in the way of a model is told at once; options tell what its file does not."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from qonnx_graphs import Graphs

from xnorflow.cli.main import main
from xnorflow.errors import UserError
from xnorflow.frontend import load, read
from xnorflow.frontend.obstacles import ModelRefused
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import predict
from xnorflow.lowering import lower

RNG = np.random.default_rng(5)


def signs(*shape):
    return RNG.choice([-1.0, 1.0], shape)


def refusal(path, **options) -> ModelRefused:
    with pytest.raises(ModelRefused) as info:
        read(path, ImportOptions(**options))
    return info.value


def residual() -> Graphs:
    """A real-valued residual block and a classifier, with nothing that suits."""
    g = Graphs((1, 2, 6, 6))
    x = g.node("Conv", "x", g.constant(RNG.normal(size=(3, 2, 3, 3))), pads=[1] * 4, name="stem")
    x = skip = g.node("Relu", x, name="relu1")
    x = g.node("Conv", x, g.constant(RNG.normal(size=(3, 3, 3, 3))), pads=[1] * 4, name="inner")
    x = g.node("Add", x, skip, name="skip")
    x = g.node("Relu", x, name="relu2")
    x = g.node("GlobalAveragePool", x, name="mean")
    x = g.node("Flatten", x, name="flat")
    g.node("Gemm", x, g.constant(RNG.normal(size=(3, 4))), name="head")
    return g


def with_shapes(g: Graphs) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(g.model())


def test_every_obstacle_is_told_with_its_node(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(with_shapes(residual()), path)
    error = refusal(path)
    places = [obstacle.where for obstacle in error.obstacles]
    assert places == [
        "node 'stem' (Conv)",
        "node 'relu1' (Relu)",
        "node 'inner' (Conv)",
        "node 'relu2' (Relu)",
        "node 'head' (Gemm)",
    ]
    assert str(error).startswith(f"{path}: {error.obstacles[0]}")
    assert "4 more" in str(error)
    assert all(obstacle.problem and obstacle.mend for obstacle in error.obstacles)


def test_inspect_lists_all_obstacles_and_ends_with_status_2(tmp_path, capsys):
    path = tmp_path / "net.onnx"
    onnx.save(with_shapes(residual()), path)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(path), "--json", str(tmp_path / "out.json")])
    assert ended.value.code == 2
    shown = capsys.readouterr().out
    assert "5 obstacles" in shown
    listed = json.loads((tmp_path / "out.json").read_text())["obstacles"]
    assert [o["where"] for o in listed] == [o.where for o in refusal(path).obstacles]
    assert all("where" in o and "problem" in o and "mend" in o for o in listed)


def test_one_obstacle_stays_one_sentence(tmp_path, capsys):
    g = Graphs()
    x = g.node("Gemm", g.bipolar("x"), g.constant(signs(6, 4)), name="fc1")
    x = g.node("Relu", x, name="relu")
    g.node("Gemm", x, g.constant(signs(4, 3)), name="fc2")
    path = g.save(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(path)])
    assert ended.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith(f"Error: {path}: node 'relu' (Relu) is an activation")
    assert sentence.count("\n") == 1


def test_what_a_node_of_unknown_shape_hides_is_said(tmp_path):
    g = Graphs((1, 2, 6, 6))
    x = g.node("ConvTranspose", "x", g.constant(signs(2, 3, 3, 3)), name="up")
    g.node("Gemm", g.node("Flatten", x), g.constant(RNG.normal(size=(192, 4))), name="fc")
    error = refusal(g.save(tmp_path))
    assert [o.where for o in error.obstacles] == ["node 'up' (ConvTranspose)"] * 2
    assert "was not examined" in error.obstacles[1].problem


def test_a_graph_without_obstacles_says_which_tensor_each_operation_gives(tmp_path):
    g = Graphs()
    bits = g.bipolar("x", 0.5)
    sums = g.node("Gemm", bits, g.constant(3 * signs(6, 4)), name="fc1")
    imported = read(g.save(tmp_path))
    kinds = [type(op).__name__ for op in imported.network.ops]
    assert kinds == ["Sign", "Affine", "Dense", "Affine"]
    assert imported.tensors == ("", bits, "", sums)


def test_nodes_in_any_order_are_followed_from_the_input(tmp_path):
    g = Graphs()
    bits = g.bipolar("x")
    g.node("Gemm", bits, g.constant(signs(6, 4)), name="fc1")
    out = g.nodes[-1].output[0]
    g.nodes.reverse()
    assert [op.name for op in load(g.save(tmp_path, out)).layers()] == ["fc1"]


class TestInputScale:
    @staticmethod
    def without_arithmetic() -> Graphs:
        g = Graphs((1, 1, 4, 4))
        x = g.node("Conv", "x", g.constant(signs(3, 1, 3, 3)), g.constant([0.5, -3, 1]), name="c")
        x = g.bipolar(x)
        g.node("Gemm", g.node("Flatten", x), g.constant(signs(12, 5)), name="fc")
        return g

    def test_scale_and_offset_mean_arithmetic_on_the_bytes(self, tmp_path):
        frames = RNG.integers(0, 256, (50, 4, 4, 1), np.uint8)
        scaled = load(
            self.without_arithmetic().save(tmp_path),
            ImportOptions(None, Fraction(2, 255), Fraction(-1)),
        )
        assert not any("no quantizer" in note for note in scaled.notes)
        layer = scaled.layers()[0]
        pixels = frames.astype(np.int64)[..., 0]
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), (1, 2))
        # In units of 1/255: 2 * pixel - 255 for each tap.
        sums = np.einsum("nrcij,mij->nrcm", 2 * windows - 255, layer.weights[..., 0].astype(int))
        bits = np.where(sums + np.array([127.5, -765, 255]) >= 0, 1, -1)
        flat = bits.transpose(0, 3, 1, 2).reshape(50, -1)
        logits = flat @ scaled.layers()[1].weights.T.astype(int)
        assert np.array_equal(predict(lower(scaled), frames).accumulators, logits)

    def test_integers_cannot_have_been_scaled(self, tmp_path):
        g = Graphs((1, 6), TensorProto.UINT8)
        x = g.node("Cast", "x", to=TensorProto.FLOAT)
        g.node("Gemm", x, g.constant(signs(6, 4)))
        with pytest.raises(UserError, match="input 'x' takes integers"):
            load(g.save(tmp_path), ImportOptions(None, Fraction(1, 255)))

    def test_zero_is_no_scale(self):
        with pytest.raises(UserError, match="input scale is 0"):
            ImportOptions(input_scale=Fraction(0))

    @pytest.mark.parametrize("text", ["1/0", "", "abc", "1e999999999", "nan", "1//2", "9" * 99])
    def test_a_number_that_is_none_is_a_usage_error(self, text, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["predict", "net.onnx", "--input-scale", text])
        assert ended.value.code == 2
        assert "is no number" in capsys.readouterr().err


def test_the_sign_of_zero_is_one_of_two():
    with pytest.raises(UserError, match="give \\+1 or -1"):
        ImportOptions(sign_zero=0)


def test_names_from_the_file_are_no_markup(tmp_path, capsys):
    g = residual()
    g.nodes[1].name = "[red]relu[/red]"
    onnx.save(with_shapes(g), tmp_path / "net.onnx")
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "net.onnx")])
    assert "[red]" in capsys.readouterr().out


def test_shapes_that_a_file_leaves_open_are_not_taken(tmp_path):
    g = Graphs()
    g.node("Gemm", g.bipolar("x"), g.constant(signs(6, 4)), name="fc1")
    model = g.model()
    model.graph.value_info.append(helper.make_tensor_value_info("t0", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "net.onnx")
    assert read(tmp_path / "net.onnx").graph.shapes == {}
