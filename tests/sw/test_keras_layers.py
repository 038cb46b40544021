"""Keras and Larq files of every layer against float64 evaluations that share no code with them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import FORMS, KerasModel, read_here

from xnorflow import golden
from xnorflow.frontend import load
from xnorflow.frontend.keras import files
from xnorflow.frontend.options import ImportOptions
from xnorflow.lowering import lower
from xnorflow.network import Conv2d, Dense, MaxPool, Network


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Read HDF5 here: starting another process for each file would take most of the time."""
    monkeypatch.setattr(files, "read_hdf5", read_here)


CENTRED = ImportOptions(input_scale=Fraction(2, 255), input_offset=Fraction(-1))


def reals(model: KerasModel, count: int = 40) -> np.ndarray:
    return model.rng.normal(0, 1, (count, *model.input_shape)).astype(np.float32)


def pixels(model: KerasModel, count: int = 40) -> np.ndarray:
    return model.rng.integers(0, 256, (count, *model.input_shape)).astype(np.uint8)


def check(
    model: KerasModel,
    tmp_path,
    x: np.ndarray,
    form: str = "keras",
    options: ImportOptions | None = None,
) -> Network:
    """Compare all logits and classes of a saved model; return the network."""
    network = load(model.save(tmp_path / "model", form), options)
    assert network.name == "model"
    scaled = x
    if options is not None:
        scaled = x * float(options.input_scale) + float(options.input_offset)
    expected = model.predict(scaled).reshape(len(x), -1)
    got = golden.predict(lower(network), x)
    np.testing.assert_allclose(got.logits, expected, rtol=1e-5, atol=1e-5)
    assert got.classes.tolist() == expected.argmax(axis=1).tolist()
    return network


def perceptron(seed: int = 0, quantizers: str = "object") -> KerasModel:
    model = KerasModel((30,), seed, quantizers)
    model.dense(20).batch_norm().dense(16, bias=True).batch_norm(scale=False)
    return model.dense(5).batch_norm(center=False)


def pictures(seed: int = 0, quantizers: str = "object") -> KerasModel:
    model = KerasModel((9, 8, 3), seed, quantizers)
    model.conv(6, 3, quantizer=None, padding="valid").batch_norm().pool("Max")
    model.conv(8, 3, padding="same").batch_norm().flatten()
    return model.dense(12).batch_norm().dense(4, bias=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("quantizers", ["object", "legacy", "alias"])
def test_every_kind_of_file_gives_the_same_network(form, quantizers, tmp_path):
    model = perceptron(quantizers=quantizers)
    network = check(model, tmp_path, reals(model), form)
    assert [op.name for op in network.layers()] == ["quant_dense", "quant_dense_1", "quant_dense_2"]
    model = pictures(quantizers=quantizers)
    network = check(model, tmp_path, pixels(model), form)
    assert network.input_shape == (9, 8, 3)
    assert [op.name for op in network.layers()] == [
        "quant_conv2d",
        "quant_conv2d_1",
        "quant_dense",
        "quant_dense_1",
    ]


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 5)])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_same_padding_is_that_of_tensorflow(size, stride, kernel, value, tmp_path):
    model = KerasModel((size, size + 1, 2), size + stride)
    model.conv(4, kernel, strides=stride, padding="same", pad_values=value).batch_norm()
    model.conv(3, 2, padding="same", pad_values=value).global_pool()
    check(model, tmp_path, reals(model, 10))


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_same_padding_of_dilated_windows_is_that_of_tensorflow(value, tmp_path):
    model = KerasModel((7, 6, 2))
    model.conv(4, 3, padding="same", pad_values=value, dilation=(2, 1)).batch_norm()
    model.conv(3, (2, 3), dilation=(1, 2)).global_pool()
    check(model, tmp_path, reals(model, 10))


def test_pad_values_count_for_same_padding_only(tmp_path):
    model = KerasModel((6, 6, 2)).conv(4, 3, padding="valid", pad_values=1.0).batch_norm()
    check(model.global_pool(), tmp_path, reals(model, 10))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_frames_without_a_quantizer_are_bytes_and_padded_with_true_zeros(padding, tmp_path):
    model = KerasModel((6, 5, 3)).conv(4, 3, quantizer=None, padding=padding, strides=2)
    model.batch_norm().conv(4, 2).batch_norm().flatten().dense(3)
    network = check(model, tmp_path, pixels(model))
    assert any("whole numbers from 0 to 255" in note for note in network.notes)
    check(model, tmp_path, pixels(model), options=CENTRED)


@pytest.mark.parametrize(("scale", "offset"), [(1 / 127.5, -1.0), (1 / 255, 0.0), (0.5, -3.25)])
def test_rescaled_pixels_are_exact_fractions_of_bytes(scale, offset, tmp_path):
    model = KerasModel((6, 6, 2)).rescaling(scale, offset)
    model.conv(4, 3, quantizer=None, padding="same").batch_norm().conv(3, 4).flatten().dense(3)
    network = check(model, tmp_path, pixels(model))
    assert lower(network).input.levels == (255 if offset == 0 else 510)


def test_a_whole_number_of_bytes_may_be_rescaled_for_each_channel(tmp_path):
    model = KerasModel((5, 5, 2)).rescaling(1 / 51)
    model.layers[0][1].update(scale=[1 / 51, 1 / 51], offset=[-1.0, 2.0])
    offsets = np.array([-1.0, 2.0])
    model._functions[0] = lambda x: x / 51 + offsets
    check(model.conv(4, 3).batch_norm().flatten().dense(3), tmp_path, pixels(model))


@pytest.mark.parametrize("quantizer", ["SteSign", "ApproxSign", "SwishSign", "MagnitudeAwareSign"])
@pytest.mark.parametrize("written", ["object", "legacy", "alias"])
def test_quantizers_of_kernels_with_the_same_forward_pass(quantizer, written, tmp_path):
    model = KerasModel((6, 6, 3), quantizers=written)
    model.conv(5, 3, kernel=quantizer).batch_norm()
    model.conv(0, 2, kernel=quantizer, kind="QuantDepthwiseConv2D", multiplier=2).batch_norm()
    model.flatten().dense(4, kernel=quantizer)
    check(model, tmp_path, reals(model))


@pytest.mark.parametrize("quantizer", ["SteSign", "ApproxSign", "SwishSign", "SteHeaviside"])
@pytest.mark.parametrize("written", ["object", "legacy", "alias"])
@pytest.mark.parametrize("form", ["keras", "h5"])
def test_quantizers_of_inputs_with_two_levels(quantizer, written, form, tmp_path):
    model = KerasModel((6, 6, 3), quantizers=written)
    model.conv(5, 3, quantizer=quantizer).batch_norm()
    model.conv(6, 3, quantizer=quantizer, padding="same").batch_norm()
    model.flatten().dense(4, quantizer=quantizer)
    x = np.round(reals(model), 1)
    assert np.any(x == 0)
    check(model, tmp_path, x, form)


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_dorefa_quantizes_the_frame_to_several_bits(bits, padding, tmp_path):
    model = KerasModel((5, 5, 2))
    model.conv(5, 3, quantizer="DoReFa", settings={"k_bit": bits}, padding=padding).batch_norm()
    model.flatten().dense(4)
    # Sixteenths: of 1 bit the tie at 0.5 occurs.
    x = np.round(model.rng.uniform(-0.2, 1.2, (60, 5, 5, 2)) * 16) / 16
    check(model, tmp_path, x.astype(np.float32))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_dorefa_quantizes_activations(bits, tmp_path):
    model = KerasModel((12,)).dense(9).batch_norm()
    model.dense(8, quantizer="DoReFa", settings={"k_bit": bits}).batch_norm().dense(4)
    check(model, tmp_path, reals(model))


@pytest.mark.parametrize("place", ["layer", "argument", "own layer"])
@pytest.mark.parametrize("what", ["ste_sign", "function", "object"])
def test_quantizers_as_activations(place, what, tmp_path):
    sign = {
        "ste_sign": "ste_sign",
        "function": {"module": "builtins", "class_name": "function", "config": "ste_sign"},
        "object": {"module": "larq.quantizers", "class_name": "SteSign", "config": {}},
    }[what]
    model = KerasModel((12,))
    if place == "argument":
        model.dense(9, activation=sign)
    else:
        model.dense(9)
        step = lambda x: np.where(x >= 0, 1.0, -1.0)  # noqa: E731
        if place == "layer":
            model.activation(sign, step)
        else:
            model.add("SteSign", {"clip_value": 1.0}, step)
    model.dense(4, quantizer=None)
    check(model, tmp_path, reals(model))


ENDS = {
    "layer": lambda model: model.other("Softmax", axis=-1),
    "softmax": lambda model: model.activation("softmax", lambda x: x),
    "log_softmax": lambda model: model.activation("log_softmax", lambda x: x),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_layers_that_act_in_training_only_and_what_keeps_the_ranking(end, tmp_path):
    model = KerasModel((6, 6, 2)).other("GaussianNoise", stddev=0.1).conv(4, 3)
    model.other("ActivityRegularization").batch_norm().other("SpatialDropout2D", rate=0.1)
    model.activation("linear", lambda x: x).flatten().other("Dropout", rate=0.5).dense(5)
    end(model)
    notes = check(model, tmp_path, reals(model)).notes
    assert sum("Dropout" in note for note in notes) == 2
    assert "does not change which class is largest" in notes[-1]


@pytest.mark.parametrize("order", ["norm, pool", "pool, norm", "sign, pool"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 2), ((2, 3), (1, 2))])
def test_max_pools(order, padding, size, strides, tmp_path):
    model = KerasModel((9, 8, 2)).conv(5, 2)
    for what in order.split(", "):
        if what == "norm":
            model.batch_norm()
        elif what == "sign":
            model.batch_norm().sign()
        else:
            model.pool("Max", size, strides, padding)
    model.conv(4, 2, quantizer=None if order == "sign, pool" else "SteSign")
    check(model.global_pool(), tmp_path, reals(model, 15))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_average_pools_that_stay_in_their_images(padding, tmp_path):
    model = KerasModel((9, 9, 2)).conv(5, 2).pool("Average", 2, padding=padding).batch_norm()
    model.conv(4, 2).batch_norm().global_pool()
    check(model, tmp_path, reals(model, 15))


@pytest.mark.parametrize("kind", ["Average", "Max"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_pools_of_whole_images(kind, keepdims, tmp_path):
    model = KerasModel((6, 6, 2)).conv(5, 3).batch_norm()
    if kind == "Max":
        model.global_pool(kind, keepdims)
        model = model.conv(4, 1) if keepdims else model.dense(4)
    else:
        model.conv(4, 3).global_pool(kind, keepdims)
    model.other("Softmax", axis=-1) if not keepdims else model.flatten()
    check(model, tmp_path, reals(model, 15))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups(groups, tmp_path):
    model = KerasModel((6, 6, 4)).conv(8, 3, groups=groups, padding="same").batch_norm()
    check(model.conv(4, 2, groups=groups).batch_norm().global_pool(), tmp_path, reals(model, 15))


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_depthwise_convolutions(multiplier, value, tmp_path):
    model = KerasModel((6, 7, 2)).conv(3, 3).batch_norm()
    model.conv(
        0,
        (3, 2),
        kind="QuantDepthwiseConv2D",
        multiplier=multiplier,
        padding="same",
        pad_values=value,
        strides=2,
        bias=True,
    )
    check(model.batch_norm().flatten().dense(4), tmp_path, reals(model, 15))


@pytest.mark.parametrize("kernel", ["SteSign", "MagnitudeAwareSign"])
@pytest.mark.parametrize("form", ["keras", "h5"])
def test_separable_convolutions_are_one_binary_convolution(kernel, form, tmp_path):
    model = KerasModel((6, 7, 2)).conv(3, 3).batch_norm()
    model.conv(5, 3, kind="QuantSeparableConv2D", padding="same", bias=True, kernel=kernel)
    network = check(model.batch_norm().flatten().dense(4), tmp_path, reals(model, 15), form)
    assert [op.weights.shape for op in network.layers()][1] == (5, 3, 3, 3)


def test_kernels_that_are_binary_already_need_no_quantizer(tmp_path):
    rng = np.random.default_rng(3)
    signs = rng.choice([-1, 1], (3, 3, 2, 4)) * np.array([0.5, 1, 2, 0.25])
    model = KerasModel((6, 6, 2)).sign()
    model.conv(4, 3, kind="Conv2D", values=signs.astype(np.float32), bias=True).batch_norm()
    deep = (rng.choice([-1, 1], (2, 2, 4, 1)) * np.array([[1], [2], [3], [4]])).astype(np.float32)
    model.sign().conv(0, 2, kind="DepthwiseConv2D", values=deep).batch_norm().flatten().sign()
    matrix = rng.choice([-1.0, 1.0], (36, 5)).astype(np.float16)
    model.dense(5, kind="Dense", values=matrix, bias=True)
    check(model, tmp_path, reals(model))


def test_a_dense_layer_on_an_image_is_a_convolution_of_pixels(tmp_path):
    model = KerasModel((5, 4, 3)).dense(6, bias=True).batch_norm().flatten().dense(3)
    network = check(model, tmp_path, reals(model))
    assert [type(op) for op in network.layers()] == [Conv2d, Dense]


@pytest.mark.parametrize("form", FORMS)
def test_batch_norms_with_and_without_scale_and_center(form, tmp_path):
    model = KerasModel((6, 6, 2))
    for scale in (True, False):
        for center in (True, False):
            model.conv(4, 2).batch_norm(scale=scale, center=center, epsilon=1e-5 + scale, axis=-1)
    check(model.global_pool(), tmp_path, reals(model, 15), form)


def test_zeros_around_an_image_are_quantized_with_it(tmp_path):
    for quantizer in ("SteSign", "SteHeaviside"):
        model = KerasModel((5, 5, 2)).zero_padding(1, 0, 2, 1).other("Dropout")
        model.conv(4, 3, quantizer=quantizer).batch_norm().zero_padding(1, 1, 1, 1).conv(3, 3)
        check(model.global_pool(), tmp_path, reals(model, 15))
    model = KerasModel((5, 5, 2)).sign().zero_padding(1, 2, 2, 1)
    model.conv(4, 3, quantizer=None, padding="same", strides=2).batch_norm().flatten().dense(3)
    check(model, tmp_path, reals(model, 15))


@pytest.mark.parametrize("target", [(6, 6, 1), (6, -1, 1), (-1,)])
def test_a_reshape_of_the_frame_gives_its_shape(target, tmp_path):
    shape = (36,) if len(target) == 3 else (6, 6)
    model = KerasModel(shape).reshape(*target)
    model = model.conv(4, 3).batch_norm().flatten() if len(target) == 3 else model
    model.dense(4)
    network = load(model.save(tmp_path / "model"))
    assert network.input_shape == ((6, 6, 1) if len(target) == 3 else (36,))
    x = reals(model)
    got = golden.predict(lower(network), x.reshape(len(x), *network.input_shape))
    assert got.classes.tolist() == model.predict(x).argmax(axis=1).tolist()


@pytest.mark.parametrize("form", ["keras", "keras functional", "h5"])
def test_models_in_models(form, tmp_path):
    """A Sequential in a model, as files nest its configuration and its weights."""
    model = pictures(3)
    x = pixels(model)
    network = load(nested(model, tmp_path / "model", form))
    got = golden.predict(lower(network), x)
    assert got.classes.tolist() == model.predict(x).argmax(axis=1).tolist()
    assert [op.name for op in network.layers()][1:3] == [
        "features_quant_conv2d_1",
        "quant_dense",
    ]


def nested(model: KerasModel, path, form: str):
    """Save a model whose middle layers, from its second to its sixth, are a Sequential."""
    return model.save(path, form, nest=(1, 6))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), form=st.sampled_from(FORMS))
def test_random_models(seed, form, tmp_path_factory):
    rng = np.random.default_rng(seed)
    written = str(rng.choice(["object", "legacy", "alias"]))
    shape = (int(rng.integers(5, 10)), int(rng.integers(5, 10)), int(rng.integers(1, 4)))
    model = KerasModel(shape, seed, written)
    raw = bool(rng.random() < 0.4)
    for index in range(int(rng.integers(1, 4))):
        quantizer = None if raw and index == 0 else "SteSign"
        size = [int(rng.integers(1, min(n, 3) + 1)) for n in model.shape[:2]]
        options = {
            "padding": str(rng.choice(["same", "valid"])),
            "strides": int(rng.choice([1, 1, 2])),
            "bias": bool(rng.random() < 0.3),
            "quantizer": quantizer,
            "kernel": str(rng.choice(["SteSign", "MagnitudeAwareSign", "ApproxSign"])),
        }
        if not raw or index:
            options["pad_values"] = float(rng.choice([-1, 0, 1]))
        model.conv(int(rng.integers(2, 6)), size, **options)
        if min(model.shape[:2]) >= 2 and rng.random() < 0.4:
            model.pool("Max", 2, int(rng.integers(1, 3)), str(rng.choice(["same", "valid"])))
        model.batch_norm(scale=bool(rng.random() < 0.8), center=bool(rng.random() < 0.8))
    if rng.random() < 0.5:
        model.flatten().dense(4, bias=bool(rng.random() < 0.5))
    else:
        model.conv(4, 1).global_pool()
    if rng.random() < 0.5:
        model.batch_norm()
    x = pixels(model, 8) if raw else reals(model, 8)
    check(model, tmp_path_factory.mktemp("random"), x, form)


def test_a_pool_of_the_network_is_that_of_the_file(tmp_path):
    model = KerasModel((7, 7, 1)).conv(4, 2).pool("Max", 3, 2, "same").flatten().dense(3)
    (pool,) = [op for op in load(model.save(tmp_path / "m")).ops if isinstance(op, MaxPool)]
    assert (pool.kernel, pool.stride, pool.padding) == ((3, 3), (2, 2), (0, 0, 1, 1))


SQUASHING = {
    "tanh": np.tanh,
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softsign": lambda x: x / (1 + np.abs(x)),
}


@pytest.mark.parametrize("name", SQUASHING)
def test_activations_that_a_sign_does_not_see(name, tmp_path):
    model = KerasModel((6, 6, 2)).conv(4, 3).batch_norm().activation(name, SQUASHING[name])
    model.pool("Max").zero_padding(1, 0, 0, 1).conv(3, 2).batch_norm()
    model.activation(name, SQUASHING[name]).flatten().dense(4)
    check(model, tmp_path, reals(model))


def test_activation_layers_that_a_sign_does_not_see(tmp_path):
    model = KerasModel((12,)).dense(9).batch_norm()
    model.add("LeakyReLU", {"alpha": 0.25}, lambda x: np.where(x > 0, x, x / 4)).dense(8)
    model.batch_norm().add("ELU", {"alpha": 0.5}, lambda x: np.where(x > 0, x, x / 9)).dense(8)
    config = {"max_value": None, "negative_slope": 0.5, "threshold": 0.0}
    model.batch_norm().add("ReLU", config, lambda x: np.where(x > 0, x, x / 2)).dense(4)
    check(model, tmp_path, reals(model))


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("stored", [False, True])
def test_a_normalization_of_the_pixels(form, stored, tmp_path):
    mean, variance = np.float32(100), np.float32(55**2)
    config = {"axis": -1 if stored else None, "mean": None, "variance": None, "invert": False}
    weights = []
    if stored:
        values = [np.full(2, mean), np.full(2, variance), np.array(300, np.int64)]
        weights = list(zip(("mean", "variance", "count"), values, strict=True))
    else:
        config |= {"mean": 100.0, "variance": 55.0**2}
    model = KerasModel((5, 5, 2))
    model.add("Normalization", config, lambda x: (x - 100) / 55, weights)
    # The padding of 0 is the mean, a byte.
    model.conv(4, 3, quantizer=None, padding="same").batch_norm().flatten().dense(3)
    check(model, tmp_path, pixels(model), form)


def test_a_normalization_of_each_channel_before_a_quantizer(tmp_path):
    mean, variance = np.array([3, 90], np.float32), np.array([7, 5000], np.float32)
    config = {"axis": [3], "mean": None, "variance": None}
    weights = [("mean", mean), ("variance", variance), ("count", np.array(0))]
    model = KerasModel((5, 5, 2))
    model.add("Normalization", config, lambda x: (x - mean) / np.sqrt(variance), weights)
    check(model.conv(4, 3).batch_norm().flatten().dense(3), tmp_path, pixels(model))


def test_augmentation_is_dropped(tmp_path):
    model = KerasModel((5, 5, 2)).other("RandomFlip", mode="horizontal")
    model.other("RandomRotation", factor=0.1).conv(4, 3, quantizer=None).flatten().dense(3)
    notes = check(model, tmp_path, pixels(model)).notes
    assert sum("at inference it changes nothing" in note for note in notes) == 2


def test_frames_of_bytes_may_have_their_type(tmp_path, monkeypatch):
    model = KerasModel((5, 5, 2)).conv(4, 3).batch_norm().flatten().dense(3)
    whole = model.config

    def config(*arguments):
        entry = whole(*arguments)
        entry["config"]["layers"][0]["config"]["dtype"] = "uint8"
        return entry

    monkeypatch.setattr(model, "config", config)
    check(model, tmp_path, pixels(model))


def test_where_the_file_tells_the_shape_of_the_frame(tmp_path, monkeypatch):
    """Without an InputLayer: in the first layer, in the model or beside it."""
    model = perceptron()
    for place in ("first layer", "model", "beside"):
        whole = KerasModel.config(model)
        del whole["config"]["layers"][0], whole["build_config"]
        del whole["config"]["layers"][0]["build_config"]
        if place == "first layer":
            whole["config"]["layers"][0]["config"]["batch_input_shape"] = [None, 30]
        elif place == "model":
            whole["config"]["build_input_shape"] = [None, 30]
        else:
            whole["build_config"] = {"input_shape": [None, 30]}
        monkeypatch.setattr(model, "config", lambda *_, entry=whole: entry)
        check(model, tmp_path, reals(model))


def test_registered_names_may_have_their_package(tmp_path):
    model = perceptron()
    for kind, config, _ in model.layers:
        if kind == "QuantDense":
            for key in ("input_quantizer", "kernel_quantizer"):
                config[key] = {"class_name": "Larq>SteSign", "config": {"clip_value": 1.0}}
    check(model, tmp_path, reals(model))
