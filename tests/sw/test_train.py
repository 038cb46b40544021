"""Training recipes, the QONNX export and the command; what needs torch is skipped without it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from math import frexp, prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from trained_networks import (
    channels_first,
    numpy_logits,
    qonnx_logits,
    run,
    write_sample_as_idx,
)

from xnorflow.cli.train import train_command
from xnorflow.datasets import sample_digits
from xnorflow.errors import UserError
from xnorflow.train.export import (
    QONNX_DOMAIN,
    BaseActivation,
    Bases,
    HiddenLayer,
    Levels,
    Norm,
    OutputLayer,
    Signs,
    TrainedNetwork,
    Weights,
    save_qonnx,
    to_qonnx,
)
from xnorflow.train.recipes import RECIPES, Conv, Dense, Recipe


def random_net(
    seed: int,
    hidden: Sequence[Conv | Dense],
    image_shape: tuple[int, int, int],
    threshold: float | None = 99.5,
    classes: int = 10,
) -> TrainedNetwork:
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.choice(np.array([-1, 1], np.int8), shape)

    shapes = Recipe("random", "", "", image_shape, tuple(hidden), 1, 1.0).shapes
    layers = []
    for layer, before, after in zip(hidden, shapes, shapes[1:], strict=False):
        outputs = after[-1]
        gamma, beta, mean = rng.normal(size=(3, outputs)).astype(np.float32)
        var = rng.uniform(0.5, 9, outputs).astype(np.float32)
        if isinstance(layer, Conv):
            kernel = weights(outputs, before[-1], layer.kernel, layer.kernel)
            padding, pool = layer.padding, layer.pool
        else:
            kernel, padding, pool = weights(outputs, prod(before)), 0, 1
        norm = Norm(gamma, beta, mean, var, 1e-5)
        layers.append(HiddenLayer(Signs(kernel), norm, padding=padding, pool=pool))
    bias = rng.integers(-3, 4, classes).astype(np.float32)
    output = OutputLayer(Signs(weights(classes, prod(shapes[-2]))), 0.25, bias)
    return TrainedNetwork("random", image_shape, threshold, tuple(layers), output)


def signs_of(weights: Weights) -> np.ndarray:
    assert isinstance(weights, Signs)
    return weights.signs


@st.composite
def topologies(draw: st.DrawFn) -> tuple[tuple[int, int, int], list[Conv | Dense]]:
    """Draw the shape of an image, and up to three convolutions and two dense layers that fit."""
    image_shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)))
    hidden: list[Conv | Dense] = []
    rows, columns = image_shape[:2]
    for _ in range(draw(st.integers(0, 3))):
        layer = Conv(*(draw(st.integers(*limits)) for limits in ((1, 6), (1, 3), (0, 2), (1, 2))))
        if min(layer.size(rows), layer.size(columns)) < 1:
            break
        rows, columns = layer.size(rows), layer.size(columns)
        hidden.append(layer)
    hidden += [Dense(draw(st.integers(1, 12))) for _ in range(draw(st.integers(0, 2)))]
    return image_shape, hidden


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    topology=topologies(),
    threshold=st.sampled_from([None, 99.5]),
    classes=st.integers(2, 10),
)
def test_the_exported_file_computes_what_the_parameters_mean(
    seed: int,
    topology: tuple[tuple[int, int, int], list[Conv | Dense]],
    threshold: float | None,
    classes: int,
) -> None:
    image_shape, hidden = topology
    model = random_net(seed, hidden, image_shape, threshold, classes)
    proto = to_qonnx(model, {})
    onnx.checker.check_model(proto)
    x = np.random.default_rng(seed).integers(0, 256, (8, *image_shape), np.uint8)
    np.testing.assert_array_equal(qonnx_logits(proto, x), numpy_logits(model, x))


NETS: dict[str, tuple[tuple[int, int, int], tuple[Conv | Dense, ...], float | None]] = {
    "dense, three colours": ((4, 3, 3), (Dense(16), Dense(12)), 99.5),
    "no hidden layer": ((4, 3, 3), (), None),
    "binary pixels": ((7, 6, 1), (Conv(5), Conv(4)), 99.5),
    "bytes": ((6, 7, 3), (Conv(5), Conv(4)), None),
    "padding of binary pixels": ((5, 4, 2), (Conv(5, padding=1), Conv(4, 5, padding=2)), 99.5),
    "padding of bytes": ((5, 4, 3), (Conv(5, padding=1), Conv(4, padding=2)), None),
    "pooling leaves a row out": ((7, 9, 1), (Conv(6, 2, pool=2), Conv(4, 1, pool=2)), 99.5),
    "dense after convolution": ((7, 8, 3), (Conv(5, padding=1, pool=3), Dense(9)), None),
}


@pytest.mark.parametrize("case", NETS)
def test_torch_the_file_and_the_parameters_agree(case: str) -> None:
    torch = pytest.importorskip("torch")
    from xnorflow.train.net import BinarizedNet

    image_shape, hidden, threshold = NETS[case]
    torch.set_num_threads(1)
    torch.manual_seed(6)
    net = BinarizedNet(Recipe("toy", "", "", image_shape, hidden, 1, 0.25, threshold=threshold))
    x = np.random.default_rng(6).integers(0, 256, (64, *image_shape), np.uint8)
    with torch.no_grad():
        net.bias.uniform_(-1, 1)
        for norm in net.norms:
            norm.weight.normal_()
            norm.bias.normal_()
        for _ in range(20):
            net(channels_first(x))
    net.eval()
    with torch.inference_mode():
        logits = net(channels_first(x)).numpy()
    model = net.trained()
    assert len(np.unique(logits, axis=0)) > 4
    np.testing.assert_array_equal(numpy_logits(model, x), logits)
    np.testing.assert_array_equal(qonnx_logits(to_qonnx(model, {}), x), logits)


def test_a_pixel_at_the_threshold_is_plus_one() -> None:
    model = random_net(0, (), (1, 1, 1), classes=1)
    at, below = np.float32(99.5), np.nextafter(np.float32(99.5), np.float32(0))
    logits = qonnx_logits(to_qonnx(model, {}), np.array([at, below]).reshape(2, 1, 1, 1))
    weight, bias = signs_of(model.output.weights)[0, 0], model.output.bias[0]
    assert logits[:, 0].tolist() == [0.25 * weight + bias, -0.25 * weight + bias]


def test_a_byte_enters_exactly_as_its_distance_from_the_middle() -> None:
    model = random_net(0, (), (1, 1, 1), None, classes=1)
    x = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    logits = qonnx_logits(to_qonnx(model, {}), x)[:, 0]
    weight, bias = signs_of(model.output.weights)[0, 0], model.output.bias[0]
    np.testing.assert_array_equal((logits - bias) / 0.25 * weight * 128, np.arange(-128, 128))


def test_same_parameters_give_the_same_bytes_and_metadata_in_key_order(tmp_path: Path) -> None:
    model = random_net(3, (Dense(4),), (4, 4, 1))
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    save_qonnx(model, one, {"seed": "3", "recipe": "random"})
    save_qonnx(random_net(3, (Dense(4),), (4, 4, 1)), two, {"recipe": "random", "seed": "3"})
    assert one.read_bytes() == two.read_bytes()
    proto = onnx.load(one)
    assert [(p.key, p.value) for p in proto.metadata_props] == [("recipe", "random"), ("seed", "3")]
    assert {o.domain: o.version for o in proto.opset_import} == {"": 13, QONNX_DOMAIN: 1}


def test_a_model_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    model = random_net(3, (Dense(4),), (4, 4, 1))
    with pytest.raises(UserError, match="absent"):
        save_qonnx(model, tmp_path / "absent" / "model.onnx", {})


def test_parameters_that_do_not_fit_together_are_refused() -> None:
    good = random_net(3, (Dense(4),), (4, 4, 1))
    layer, signs = good.hidden[0], signs_of(good.hidden[0].weights)
    with pytest.raises(ValueError, match="each -1 or"):
        Signs(signs * np.int8(2))
    with pytest.raises(ValueError, match="scale must be float32"):
        Signs(signs, np.ones(3, np.float32))
    with pytest.raises(ValueError, match="scale of weights must be positive"):
        Signs(signs, np.float32(0) * np.ones((), np.float32))
    with pytest.raises(ValueError, match="odd, of 2 bits"):
        Levels(signs.astype(np.int16) * np.int16(5), 2)
    with pytest.raises(ValueError, match="2 to 8 bits, not 1"):
        Levels(signs.astype(np.int16), 1)
    with pytest.raises(ValueError, match="alphas"):
        Bases(signs[None], np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match="betas must be positive"):
        BaseActivation(np.zeros(1, np.float32), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="gamma"):
        HiddenLayer(Signs(signs[:3]), layer.norm)
    with pytest.raises(ValueError, match="gain"):
        OutputLayer(good.output.weights, 0.0, good.output.bias)
    with pytest.raises(ValueError, match="15 inputs"):
        TrainedNetwork("bad", (5, 3, 1), 1.0, good.hidden, good.output)
    with pytest.raises(ValueError, match="last layer must take 16"):
        TrainedNetwork("bad", (4, 4, 1), 1.0, (), good.output)
    cnn = random_net(3, (Conv(4),), (4, 4, 1))
    with pytest.raises(ValueError, match=r"not take frames of shape \(4, 4, 3\)"):
        TrainedNetwork("bad", (4, 4, 3), 1.0, cnn.hidden, cnn.output)
    with pytest.raises(ValueError, match=r"not take frames of shape \(4,\)"):
        TrainedNetwork("bad", (4, 4, 1), 1.0, (layer, *cnn.hidden), cnn.output)
    with pytest.raises(ValueError, match="larger than"):
        TrainedNetwork("bad", (4, 2, 1), 1.0, cnn.hidden, cnn.output)
    with pytest.raises(ValueError, match=r"no shortcut leads from \(4, 4, 1\)"):
        TrainedNetwork("bad", (4, 4, 1), 1.0, (replace(cnn.hidden[0], shortcut=True),), cnn.output)


# Shapes and sums by hand: kernel rows x columns x input channels x output channels, or inputs x
# neurons.
SMALL_CNN = (
    [(28, 28, 1), (12, 12, 16), (6, 6, 24), (6, 6, 24), (6, 6, 32), (6, 6, 32), (2, 2, 64), (10,)],
    400 + 3456 + 5184 + 6912 + 9216 + 18432 + 2560,
)
COUNTED = {
    **{f"fashion_{name}": (SMALL_CNN[0], SMALL_CNN[1]) for name in ("bnn", "xnor", "residual")},
    **{f"fashion_{name}": (SMALL_CNN[0], 2 * SMALL_CNN[1]) for name in ("dorefa", "abc")},
    "mnist_sfc": ([(28, 28, 1), (256,), (256,), (256,), (10,)], 200704 + 2 * 65536 + 2560),
    "mnist_mini": ([(28, 28, 1), (144,), (80,), (10,)], 112896 + 11520 + 800),
    "mnist_cnn": (
        [(28, 28, 1), (13, 13, 32), (5, 5, 48), (3, 3, 64), (10,)],
        288 + 13824 + 27648 + 5760,
    ),
    "fashion_cnn": (
        [(28, 28, 1), (28, 28, 32), (14, 14, 64), (7, 7, 64), (5, 5, 128), (128,), (10,)],
        288 + 18432 + 36864 + 73728 + 409600 + 1280,
    ),
    "cifar10_cnv": (
        [
            (32, 32, 3),
            (30, 30, 64),
            (14, 14, 64),
            (12, 12, 128),
            (5, 5, 128),
            (3, 3, 256),
            (1, 1, 256),
            (512,),
            (512,),
            (10,),
        ],
        1728 + 36864 + 73728 + 147456 + 294912 + 589824 + 131072 + 262144 + 5120,
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_shapes_and_weight_bits_counted_by_hand(name: str) -> None:
    shapes, weight_bits = COUNTED[name]
    assert list(RECIPES[name].shapes) == shapes
    assert RECIPES[name].weight_bits == weight_bits


def test_cnv_has_the_weights_of_the_finn_paper() -> None:
    recipe = RECIPES["cifar10_cnv"]
    widths = [shape[-1] for shape in recipe.shapes[1:]]
    assert widths == [64, 64, 128, 128, 256, 256, 512, 512, 10]
    assert recipe.weight_bits == 1_542_848


@pytest.mark.parametrize("name", RECIPES)
def test_the_torch_network_of_a_recipe_has_its_weights(name: str) -> None:
    pytest.importorskip("torch")
    from xnorflow.train.net import BinarizedNet

    model = BinarizedNet(RECIPES[name]).trained()
    shapes = [layer.weights.shape for layer in (*model.hidden, model.output)]
    assert tuple(prod(shape) for shape in shapes) == RECIPES[name].weights
    assert [shape[0] for shape in shapes] == [shape[-1] for shape in RECIPES[name].shapes[1:]]


def test_gains_are_powers_of_two() -> None:
    assert {frexp(recipe.gain)[0] for recipe in RECIPES.values()} == {0.5}


def test_mnist_mini_fits_28_block_rams_of_4096_bits_and_few_luts() -> None:
    first, *later = pairwise(prod(shape) for shape in RECIPES["mnist_mini"].shapes)
    assert first[0] * first[1] <= 28 * 4096
    assert sum(inputs * outputs for inputs, outputs in later) <= 13_000


STILL = replace(RECIPES["cifar10_cnv"], shift=0.0, rotate=0.0, scale=0.0, elastic=0.0, flip=False)


def deformed(images: np.ndarray, recipe: Recipe, seed: int = 2) -> np.ndarray:
    torch = pytest.importorskip("torch")
    from xnorflow.train.augment import deform

    generator = torch.Generator().manual_seed(seed)
    result: np.ndarray = deform(torch.from_numpy(images), recipe, generator).numpy()
    return result


def random_images(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(8).integers(1, 256, (count, *shape)).astype(np.float32)


def test_no_deformation_is_the_image_itself() -> None:
    images = random_images(5, (3, 6, 7))
    np.testing.assert_array_equal(deformed(images, STILL), images)


def test_a_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    images = random_images(200, (3, 4, 5))
    results = deformed(images, replace(STILL, flip=True))
    mirrored = 0
    for image, result in zip(images, results, strict=True):
        flipped = np.array_equal(result, image[:, :, ::-1])
        assert flipped or np.array_equal(result, image)
        mirrored += flipped
    assert 70 <= mirrored <= 130


def test_a_shift_moves_all_channels_by_whole_pixels_and_fills_with_zeros() -> None:
    images = random_images(300, (3, 6, 7))
    results = deformed(images, replace(STILL, shift=2.0))
    framed = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = []
    for frame, result in zip(framed, results, strict=True):
        windows = sliding_window_view(frame, (6, 7), (1, 2)).transpose(1, 2, 0, 3, 4)
        places = np.argwhere((windows == result).all((2, 3, 4)))
        assert len(places) == 1
        seen.append(tuple(places[0]))
    assert set(seen) == {(row, column) for row in range(5) for column in range(5)}


def test_a_bend_repeats_with_its_seed_and_is_small() -> None:
    ramp = np.broadcast_to(np.arange(28, dtype=np.float32) * 4, (20, 1, 28, 28)).copy()
    recipe = RECIPES["mnist_cnn"]
    results = deformed(ramp, recipe)
    np.testing.assert_array_equal(deformed(ramp, recipe), results)
    assert not np.array_equal(deformed(ramp, recipe, seed=3), results)
    # A pixel of the ramp is 4: in the middle the shift, the turn and the bend move by few pixels.
    moved = np.abs(results - ramp)[:, :, 10:18, 10:18] / 4
    assert 0.1 < moved.mean() < moved.max() < 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cifar"], "no recipe 'cifar'.*mnist_sfc, mnist_mini"),
        (["mnist_cnn", "--data-dir", "absent"], "`data_dir=absent` is not a folder"),
        (["mnist_mini", "--epochs", "0"], "--epochs 0"),
        ([], "nothing to train; give RECIPE, or --dataset and --topology"),
        (["--dataset", "mnist"], "nothing to train; give RECIPE, or --dataset and --topology"),
        (["mnist_mini", "--method", "abc"], "mnist_mini has its method; leave --method or mnist"),
        (["--dataset", "letters", "--topology", "mlp"], "no data set 'letters'.*svhn"),
        (["--dataset", "mnist", "--topology", "lstm"], "no topology 'lstm'.*residual"),
        (["--dataset", "mnist", "--topology", "cnv"], "too small for the topology cnv"),
        (
            ["--dataset", "mnist", "--topology", "mlp", "--method", "twn"],
            "no method 'twn'.*bnn, xnor, dorefa, abc",
        ),
        (["mnist_mini", "--weight-bits", "2"], "--weight-bits belongs to the method dorefa, not"),
        (["fashion_dorefa", "--weight-bits", "9"], "--weight-bits 9 is out of range; give 1 to 8"),
        (["mnist_mini", "--last-bits", "0"], "--last-bits 0 is out of range"),
        (["mnist_mini", "--patience", "0"], "--patience 0"),
        (["mnist_mini", "--rate", "0"], "--rate 0.0 is out of range"),
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
    # The options are wrong with and without torch.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
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


SMALL = {
    "dense": replace(RECIPES["mnist_mini"], validation=200, batch=50),
    "binary pixels": replace(
        RECIPES["mnist_cnn"], hidden=(Conv(6, pool=2), Conv(8, pool=2)), validation=200, batch=50
    ),
    "flipped bytes, padded, in bfloat16": replace(
        RECIPES["fashion_cnn"],
        hidden=(Conv(6, padding=1, pool=2), Conv(8, pool=2), Dense(20)),
        validation=200,
        batch=50,
    ),
    "shifted by whole pixels": replace(
        RECIPES["cifar10_cnv"],
        image_shape=(28, 28, 1),
        hidden=(Conv(6, pool=2), Dense(20)),
        validation=200,
        batch=50,
    ),
}


@pytest.mark.parametrize("case", SMALL)
def test_a_trained_file_agrees_with_torch_and_repeats_byte_for_byte(
    tmp_path: Path, case: str
) -> None:
    torch = pytest.importorskip("torch")
    from xnorflow.train.loop import train

    recipe = SMALL[case]
    digits = sample_digits()
    epochs: list[float] = []

    def once(path: Path) -> np.ndarray:
        training = train(recipe, digits, 2, 4, lambda e: epochs.append(e.validation_accuracy))
        assert training.best.validation_accuracy > 0.15
        save_qonnx(training.model, path, {})
        assert training.best.validation_accuracy == max(epochs)
        with torch.inference_mode():
            logits: np.ndarray = training.net(channels_first(digits.x[:64])).numpy()
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
    with pytest.raises(UserError, match="at least 5128 training frames, but the data has 1000"):
        run("mnist_mini", "--data-dir", str(tmp_path), "--output", str(output))
    assert not output.exists()


def test_frames_of_another_shape_are_refused() -> None:
    pytest.importorskip("torch")
    from xnorflow.train.loop import train

    with pytest.raises(UserError, match=r"\(32, 32, 3\), but the data has \(28, 28, 1\).*cifar10"):
        train(RECIPES["cifar10_cnv"], sample_digits(), 1, 1, lambda epoch: None)


SHIPPED = sorted(
    path.name.removesuffix(".onnx")
    for path in resources.files("xnorflow.models").iterdir()
    if path.name.endswith(".onnx")
)


def shipped(name: str) -> onnx.ModelProto:
    return onnx.load_model_from_string(
        resources.files("xnorflow.models").joinpath(f"{name}.onnx").read_bytes()
    )


def test_every_shipped_model_has_a_recipe() -> None:
    assert {"mnist_mini", "mnist_sfc"} <= set(SHIPPED) <= set(RECIPES)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_model_has_the_recipes_shape_and_its_stated_accuracy(name: str) -> None:
    proto, recipe = shipped(name), RECIPES[name]
    arrays = [i for i in proto.graph.initializer if i.data_type == onnx.TensorProto.INT8]
    weights = [
        (layer.channels, before[-1], layer.kernel, layer.kernel)
        if isinstance(layer, Conv)
        else (layer.neurons, prod(before))
        for layer, before in zip((*recipe.hidden, Dense(10)), recipe.shapes, strict=False)
    ]
    bases = recipe.method.weight_bases if recipe.method.name == "abc" else 1
    assert [tuple(array.dims) for array in arrays] == [w for w in weights for _ in range(bases)]
    metadata = {p.key: p.value for p in proto.metadata_props}
    assert metadata["recipe"] == name
    assert metadata["epochs"] == str(recipe.epochs)
    if recipe.dataset != "mnist":
        return
    digits = sample_digits()
    predicted = qonnx_logits(proto, digits.x).argmax(1)
    # A thousand digits are a sample: three standard errors of the stated accuracy.
    stated = float(metadata["test_accuracy"])
    slack = 3 * (stated * (1 - stated) / len(digits)) ** 0.5
    assert abs((predicted == digits.y).mean() - stated) < slack


@pytest.mark.parametrize("name", ["mnist_mini", "mnist_sfc"])
def test_the_exporter_still_writes_the_bytes_of_a_shipped_model(name: str, tmp_path: Path) -> None:
    proto, recipe = shipped(name), RECIPES[name]
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    eps = [n.attribute[0].f for n in proto.graph.node if n.op_type == "BatchNormalization"]
    hidden = tuple(
        HiddenLayer(
            Signs(arrays[f"fc{index}_weights"]),
            Norm(
                *(arrays[f"bn{index}_{key}"] for key in ("gamma", "beta", "mean", "var")),
                eps=eps[index],
            ),
        )
        for index in range(len(recipe.hidden))
    )
    output = OutputLayer(
        Signs(arrays[f"fc{len(hidden)}_weights"]),
        float(arrays["gain_value"]),
        arrays["bias_value"],
    )
    model = TrainedNetwork(name, recipe.image_shape, recipe.threshold, hidden, output)
    save_qonnx(model, tmp_path / "again.onnx", {p.key: p.value for p in proto.metadata_props})
    original = resources.files("xnorflow.models").joinpath(f"{name}.onnx").read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == original
