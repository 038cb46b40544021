"""Training recipes, the QONNX export and the command; what needs torch is skipped without it."""

import gzip
import json
import struct
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from xnorflow.cli.train import train_command
from xnorflow.datasets import sample_digits
from xnorflow.errors import UserError
from xnorflow.train.export import (
    QONNX_DOMAIN,
    HiddenLayer,
    OutputLayer,
    TrainedMlp,
    save_qonnx,
    to_qonnx,
)
from xnorflow.train.recipes import RECIPES


def random_mlp(seed: int, widths: tuple[int, ...], image_shape: tuple[int, ...]) -> TrainedMlp:
    rng = np.random.default_rng(seed)

    def weights(outputs: int, inputs: int) -> np.ndarray:
        return rng.choice(np.array([-1, 1], np.int8), (outputs, inputs))

    hidden = []
    for inputs, outputs in pairwise(widths[:-1]):
        gamma, beta, mean = rng.normal(size=(3, outputs)).astype(np.float32)
        var = rng.uniform(0.5, 9, outputs).astype(np.float32)
        hidden.append(HiddenLayer(weights(outputs, inputs), gamma, beta, mean, var, 1e-5))
    bias = rng.integers(-3, 4, widths[-1]).astype(np.float32)
    output = OutputLayer(weights(widths[-1], widths[-2]), 0.25, bias)
    return TrainedMlp("random", image_shape, 99.5, tuple(hidden), output)


def numpy_logits(model: TrainedMlp, x: np.ndarray) -> np.ndarray:
    """Compute the meaning of `TrainedMlp` in float64, written independently of the exporter."""
    a = np.where(x.reshape(len(x), -1) >= model.threshold, 1, -1).astype(np.float64)
    for layer in model.hidden:
        norm = (a @ layer.weights.T - layer.mean) / np.sqrt(
            layer.var.astype(np.float64) + layer.eps
        )
        a = np.where(norm * layer.gamma + layer.beta >= 0, 1.0, -1.0)
    return model.output.gain * (a @ model.output.weights.T) + model.output.bias


def qonnx_logits(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    model = ModelWrapper(proto)
    model.set_tensor_shape("image", list(x.shape))
    model = model.transform(InferShapes())
    logits: np.ndarray = execute_onnx(model, {"image": x.astype(np.float32)})["logits"]
    return logits


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    hidden=st.lists(st.integers(1, 12), min_size=0, max_size=3),
    side=st.integers(1, 5),
)
def test_the_exported_file_computes_what_the_parameters_mean(
    seed: int, hidden: list[int], side: int
) -> None:
    model = random_mlp(seed, (side * side, *hidden, 3), (side, side, 1))
    proto = to_qonnx(model, {})
    onnx.checker.check_model(proto)
    x = np.random.default_rng(seed).integers(0, 256, (16, side, side, 1), np.uint8)
    np.testing.assert_array_equal(qonnx_logits(proto, x), numpy_logits(model, x))


def test_a_pixel_at_the_threshold_is_plus_one() -> None:
    model = random_mlp(0, (1, 1), (1, 1, 1))
    at, below = np.float32(99.5), np.nextafter(np.float32(99.5), np.float32(0))
    logits = qonnx_logits(to_qonnx(model, {}), np.array([at, below]).reshape(2, 1, 1, 1))
    weight, bias = model.output.weights[0, 0], model.output.bias[0]
    assert logits[:, 0].tolist() == [0.25 * weight + bias, -0.25 * weight + bias]


def test_same_parameters_give_the_same_bytes_and_metadata_in_key_order(tmp_path: Path) -> None:
    model = random_mlp(3, (16, 4, 2), (4, 4, 1))
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    save_qonnx(model, one, {"seed": "3", "recipe": "random"})
    save_qonnx(random_mlp(3, (16, 4, 2), (4, 4, 1)), two, {"recipe": "random", "seed": "3"})
    assert one.read_bytes() == two.read_bytes()
    proto = onnx.load(one)
    assert [(p.key, p.value) for p in proto.metadata_props] == [("recipe", "random"), ("seed", "3")]
    assert {o.domain: o.version for o in proto.opset_import} == {"": 13, QONNX_DOMAIN: 1}


def test_a_model_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    model = random_mlp(3, (16, 4, 2), (4, 4, 1))
    with pytest.raises(UserError, match="absent"):
        save_qonnx(model, tmp_path / "absent" / "model.onnx", {})


def test_parameters_that_do_not_fit_together_are_refused() -> None:
    good = random_mlp(3, (16, 4, 2), (4, 4, 1))
    layer = good.hidden[0]
    parameters = (layer.gamma, layer.beta, layer.mean, layer.var, layer.eps)
    with pytest.raises(ValueError, match="each -1 or"):
        HiddenLayer(layer.weights * np.int8(2), *parameters)
    with pytest.raises(ValueError, match="gamma"):
        HiddenLayer(layer.weights[:3], *parameters)
    with pytest.raises(ValueError, match="gain"):
        OutputLayer(good.output.weights, 0.0, good.output.bias)
    with pytest.raises(ValueError, match="15 inputs"):
        TrainedMlp("bad", (5, 3, 1), 1.0, good.hidden, good.output)


def test_mnist_mini_fits_28_block_rams_of_4096_bits_and_few_luts() -> None:
    first, *later = pairwise(RECIPES["mnist_mini"].widths)
    assert first[0] * first[1] <= 28 * 4096
    assert sum(inputs * outputs for inputs, outputs in later) <= 13_000


def run(*arguments: str) -> None:
    """Run the command and let its errors through, as the command line's entry point does."""
    CliRunner().invoke(train_command, arguments, standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cifar"], "no recipe 'cifar'.*mnist_sfc, mnist_mini"),
        (["mnist_mini", "--epochs", "0"], "--epochs 0"),
        (["mnist_mini", "--seed", "-1"], "--seed -1"),
        (["mnist_mini", "--output", "absent/model.onnx"], "--output absent/model.onnx"),
        (["mnist_mini", "--output", "."], "--output . is a folder"),
        (["mnist_mini", "--json", "absent/result.json"], "--json absent/result.json"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        run(*arguments)
    assert not list(tmp_path.iterdir())


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'xnorflow\[train\]'"):
        run("mnist_mini")


def test_the_command_and_the_exporter_do_not_import_torch() -> None:
    code = (
        "import sys, xnorflow.cli.train, xnorflow.train.export, xnorflow.datasets; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def write_sample_as_idx(folder: Path) -> None:
    digits = sample_digits()
    assert digits.y is not None
    for part in ("train", "t10k"):
        images = struct.pack(">4I", 0x803, 1000, 28, 28) + digits.x.tobytes()
        labels = struct.pack(">2I", 0x801, 1000) + digits.y.astype(np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))


def test_a_trained_file_agrees_with_torch_and_repeats_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from xnorflow.train.loop import train

    recipe = replace(RECIPES["mnist_mini"], validation=200, batch=50)
    digits = sample_digits()
    epochs: list[float] = []

    def once(path: Path) -> np.ndarray:
        training = train(recipe, digits, 2, 4, lambda e: epochs.append(e.validation_accuracy))
        save_qonnx(training.model, path, {})
        assert training.best.validation_accuracy == max(epochs)
        pixels = torch.from_numpy(digits.x[:64].reshape(64, -1).astype(np.float32))
        with torch.inference_mode():
            logits: np.ndarray = training.net(pixels).numpy()
        return logits

    logits = once(tmp_path / "one.onnx")
    once(tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert epochs[:2] == epochs[2:]
    np.testing.assert_array_equal(
        qonnx_logits(onnx.load(tmp_path / "one.onnx"), digits.x[:64]), logits
    )


def test_the_command_trains_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    write_sample_as_idx(tmp_path)
    small = replace(RECIPES["mnist_mini"], validation=200, batch=50)
    monkeypatch.setitem(RECIPES, "mnist_mini", small)
    output, result = tmp_path / "mini.onnx", tmp_path / "mini.json"
    arguments = ["mnist_mini", "--data-dir", str(tmp_path), "--epochs", "2", "--seed", "9"]
    done = CliRunner().invoke(
        train_command, [*arguments, "--output", str(output), "--json", str(result)]
    )
    assert done.exit_code == 0, done.output
    assert "epoch 2/2" in done.output
    report = json.loads(result.read_text())
    assert report["recipe"] == "mnist_mini"
    assert report["seed"] == 9
    assert report["epochs"] == 2
    assert report["seconds"] > 0
    assert report["output"] == str(output)
    assert 0.1 < report["test_accuracy"] <= 1
    metadata = {p.key: p.value for p in onnx.load(output).metadata_props}
    assert metadata["test_accuracy"] == f"{report['test_accuracy']:.4f}"
    assert metadata["validation_accuracy"] == f"{report['validation_accuracy']:.4f}"
    predicted = qonnx_logits(onnx.load(output), sample_digits().x).argmax(1)
    assert (predicted == sample_digits().y).mean() == report["test_accuracy"]


def test_too_few_digits_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    write_sample_as_idx(tmp_path)
    output = tmp_path / "mini.onnx"
    with pytest.raises(UserError, match="at least 5128 training digits, but the data has 1000"):
        run("mnist_mini", "--data-dir", str(tmp_path), "--output", str(output))
    assert not output.exists()


@pytest.mark.parametrize("name", RECIPES)
def test_the_shipped_model_has_the_recipes_shape_and_its_stated_accuracy(name: str) -> None:
    with resources.as_file(resources.files("xnorflow.models").joinpath(f"{name}.onnx")) as path:
        proto = onnx.load(path)
    weights = [i for i in proto.graph.initializer if i.data_type == onnx.TensorProto.INT8]
    widths = RECIPES[name].widths
    assert [tuple(w.dims) for w in weights] == [(b, a) for a, b in pairwise(widths)]
    metadata = {p.key: p.value for p in proto.metadata_props}
    assert metadata["recipe"] == name
    digits = sample_digits()
    predicted = qonnx_logits(proto, digits.x).argmax(1)
    # A thousand digits are a sample: three standard errors of the stated accuracy.
    stated = float(metadata["test_accuracy"])
    slack = 3 * (stated * (1 - stated) / len(digits)) ** 0.5
    assert abs((predicted == digits.y).mean() - stated) < slack
