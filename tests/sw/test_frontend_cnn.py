"""The frontend reads convolutional networks to the network that onnxruntime and QONNX execute."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from qonnx_graphs import CNN_FORMS, CnnForm, Graphs, cnn, evaluate, execute
from random_networks import reference_logits

from xnorflow.frontend import load
from xnorflow.golden import predict
from xnorflow.lowering import lower
from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Op,
    Quantize,
    Sign,
)
from xnorflow.train.export import HiddenLayer, Norm, OutputLayer, Signs, TrainedNetwork, to_qonnx

DATA = Path(__file__).parents[1] / "data"


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def frames(
    rng: np.random.Generator, count: int, shape: tuple[int, ...], pixels: str = "sign"
) -> np.ndarray:
    """Draw frames (N, H, W, C) of multiples of 1/8, or of bytes."""
    if pixels == "bytes":
        return rng.integers(0, 256, (count, *shape)).astype(np.float32)
    return (rng.integers(-16, 17, (count, *shape)) / 8).astype(np.float32)


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def assert_same(model: onnx.ModelProto, network: Network, x: np.ndarray, first: bool) -> None:
    """Compare the scores of frames (N, H, W, C), which the graph takes channels first or last."""
    ranking = [n for n in model.graph.node if n.op_type in ("Softmax", "ArgMax")]
    tensor = ranking[0].input[0] if ranking else model.graph.output[0].name
    expected = evaluate(model, channels_first(x) if first else x, tensor)
    got = reference_logits(network, x)
    np.testing.assert_allclose(got, expected.reshape(len(x), -1), rtol=1e-4, atol=1e-3)


forms = st.builds(CnnForm, **{key: st.sampled_from(values) for key, values in CNN_FORMS.items()})
SHAPE = (9, 8, 2)


@settings(max_examples=150)
@given(form=forms, channels=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_any_form_means_what_onnxruntime_computes(form, channels, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    shape = (9, 8, channels)
    model = cnn(rng, shape, form)
    network = load(saved(model, tmp_path_factory.mktemp("forms")))
    assert network.input_shape == shape
    x = frames(rng, 2, shape, form.pixels)
    assert_same(model, network, x, form.frame == "NCHW")


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in CNN_FORMS.items() for value in values]
)
def test_each_form_is_accepted(key, value, tmp_path):
    rng = np.random.default_rng(5)
    form = CnnForm(**{"pool": "max", key: value})
    model = cnn(rng, SHAPE, form)
    x = frames(rng, 2, SHAPE, form.pixels)
    assert_same(model, load(saved(model, tmp_path)), x, form.frame == "NCHW")


@pytest.mark.parametrize(
    "form",
    [
        CnnForm(batch=2, pixels="signed", padding="pads", pool="max"),
        CnnForm(batch=2, pixels="narrow", padding="SAME_LOWER", stride=(2, 2), bias=True),
        CnnForm(batch=2, pixels="unsigned", weights="channel scale", pool="average"),
        CnnForm(batch=2, frame="NHWC", groups=True, padding="Pad", flatten="GlobalAveragePool"),
        CnnForm(batch=2, pixels="bytes", dilation=(2, 1), pool="padded", pool_first=False),
    ],
)
def test_qonnx_executor_agrees(form, tmp_path):
    rng = np.random.default_rng(6)
    model = cnn(rng, SHAPE, form)
    network, x = load(saved(model, tmp_path)), frames(rng, 2, SHAPE, form.pixels)
    expected = execute(model, channels_first(x) if form.frame == "NCHW" else x)
    np.testing.assert_allclose(reference_logits(network, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("name", ["pooled", "averaged"])
def test_brevitas_exports_give_the_logits_of_brevitas(name, exporter):
    network = load(DATA / f"brevitas_{name}_cnn_{exporter}.onnx")
    assert network.input_shape == (9, 8, 2)
    assert network.notes == ()
    expected = np.load(DATA / f"brevitas_{name}_cnn.npz")
    x = np.moveaxis(expected["units"] / 256, 1, -1)
    np.testing.assert_allclose(reference_logits(network, x), expected["logits"], atol=1e-5)
    predicted = predict(lower(network), x.astype(np.float32))
    np.testing.assert_allclose(predicted.logits, expected["logits"], atol=1e-5)
    np.testing.assert_array_equal(predicted.classes, expected["logits"].argmax(axis=1))


def test_brevitas_exports_have_the_layers_of_the_model():
    network = load(DATA / "brevitas_pooled_cnn_legacy.onnx")
    assert [layer.name for layer in network.layers()] == ["conv1", "conv2", "fc1", "fc2"]
    (quantize,) = (op for op in network.ops if isinstance(op, Quantize))
    assert (quantize.scale, quantize.zero_point) == (Fraction(1, 128), 0)
    assert (quantize.low, quantize.high) == (-128, 127)


def trained(rng: np.random.Generator, threshold: float | None) -> TrainedNetwork:
    """Draw a network as the trainer saves it, of two convolutions and two dense layers."""

    def hidden(*shape: int, padding: int = 0, pool: int = 1) -> HiddenLayer:
        weights = rng.choice(np.array([-1, 1], np.int8), shape)
        channels = shape[0]
        gamma, beta, mean = (rng.normal(0, s, channels).astype(np.float32) for s in (1, 0.5, 2))
        var = rng.uniform(1, 4, channels).astype(np.float32)
        norm = Norm(gamma, beta, mean, var, 1e-5)
        return HiddenLayer(Signs(weights), norm, padding=padding, pool=pool)

    layers = (
        hidden(6, 2, 3, 3, padding=1, pool=2),
        hidden(5, 6, 2, 2),
        hidden(7, 5 * 3 * 3),
    )
    signs = rng.choice(np.array([-1, 1], np.int8), (4, 7))
    output = OutputLayer(Signs(signs), 0.25, rng.normal(0, 1, 4).astype(np.float32))
    return TrainedNetwork("trained", (8, 9, 2), threshold, layers, output)


@pytest.mark.parametrize("threshold", [127.5, None])
def test_trained_networks_give_the_logits_of_the_qonnx_executor(threshold, tmp_path):
    rng = np.random.default_rng(8)
    model = to_qonnx(trained(rng, threshold), {})
    network = load(saved(model, tmp_path))
    assert network.input_shape == (8, 9, 2)
    assert [layer.name for layer in network.layers()] == ["conv0", "conv1", "fc2", "fc3"]
    assert [type(op) for op in network.ops].count(Flatten) == 1
    assert len(network.notes) == (threshold is None)
    x = rng.integers(0, 256, (6, 8, 9, 2)).astype(np.float32)
    np.testing.assert_allclose(reference_logits(network, x), execute(model, x), atol=1e-5)


@pytest.mark.parametrize("threshold", [127.5, None])
def test_trained_networks_lower_to_integers_that_give_their_logits(threshold, tmp_path):
    rng = np.random.default_rng(9)
    network = load(saved(to_qonnx(trained(rng, threshold), {}), tmp_path))
    x = frames(rng, 6, network.input_shape, "bytes")
    expected = reference_logits(network, x)
    np.testing.assert_allclose(predict(lower(network), x).logits, expected, atol=1e-6)


def image_graph(**options) -> tuple[Graphs, str]:
    """Begin a graph of one sign on images of 2 channels, 4 rows and 5 columns."""
    graph = Graphs(("N", 2, 4, 5), **options)
    return graph, graph.bipolar("x")


def signs(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], shape)


def imported(graph: Graphs, folder: Path) -> Network:
    """End a graph of images with a global average, load it and compare it."""
    graph.node("GlobalAveragePool", f"t{len(graph.nodes) - 1}")
    network = load(graph.save(folder))
    x = frames(np.random.default_rng(1), 3, network.input_shape)
    assert_same(graph.model(), network, x, first=True)
    return network


def only(network: Network, kind: type[Op]) -> Op:
    (op,) = (op for op in network.ops if isinstance(op, kind))
    return op


def test_a_convolution_keeps_all_that_it_says(tmp_path):
    graph, x = image_graph()
    kernel, bias = signs(1, 6, 1, 2, 3), [1, 2, 3, 4, 5, 6]
    scale = np.arange(1, 7).reshape(6, 1, 1, 1) / 4
    graph.node(
        "Conv",
        x,
        graph.constant(kernel * scale),
        graph.constant(bias),
        name="first",
        group=2,
        strides=[2, 1],
        dilations=[1, 2],
        pads=[1, 0, 2, 3],
        kernel_shape=[2, 3],
    )
    _, op, gain, offset, _ = imported(graph, tmp_path).ops
    assert isinstance(op, Conv2d)
    assert (op.name, op.groups, op.stride, op.dilation) == ("first", 2, (2, 1), (1, 2))
    assert (op.padding, op.pad_value) == ((1, 0, 2, 3), 0)
    np.testing.assert_array_equal(op.weights, kernel.transpose(0, 2, 3, 1))
    assert isinstance(gain, Affine)
    assert gain.scale == tuple(Fraction(n, 4) for n in range(1, 7))
    assert isinstance(offset, Affine)
    assert offset.offset == tuple(map(Fraction, bias))


@pytest.mark.parametrize(
    ("auto_pad", "padding"),
    [("SAME_UPPER", (0, 1, 1, 1)), ("SAME_LOWER", (1, 1, 0, 1)), ("VALID", (0, 0, 0, 0))],
)
@pytest.mark.parametrize("kind", ["Conv", "MaxPool"])
def test_auto_pad_puts_the_odd_row_where_it_says(kind, auto_pad, padding, tmp_path):
    graph, x = image_graph()
    options = {"auto_pad": auto_pad, "strides": [2, 1], "kernel_shape": [3, 3]}
    inputs = [graph.constant(signs(2, 2, 2, 3, 3))] if kind == "Conv" else []
    y = graph.node(kind, x, *inputs, **options)
    if kind == "MaxPool":
        graph.node("Conv", y, graph.constant(signs(2, 3, 2, 1, 1)))
    op = only(imported(graph, tmp_path), Conv2d if kind == "Conv" else MaxPool)
    assert isinstance(op, Conv2d | MaxPool)
    assert op.padding == padding


@pytest.mark.parametrize("opset", [10, 11, 18])
@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5])
def test_a_pad_becomes_the_padding_of_the_convolution(opset, value, tmp_path):
    graph, x = image_graph(opset=opset)
    pads = [0, 0, 1, 2, 0, 0, 0, 1]
    if opset == 10:
        x = graph.node("Pad", x, pads=pads, value=value)
    elif opset == 11:
        x = graph.node("Pad", x, graph.constant(pads, np.int64), graph.constant(value))
    else:
        inputs = [[1, 2, 0, 1], [2, -1]]
        sizes, axes = (graph.constant(values, np.int64) for values in inputs)
        x = graph.node("Pad", x, sizes, graph.constant([value]), axes)
    graph.node("Conv", graph.node("Identity", x), graph.constant(signs(3, 2, 2, 2, 2)))
    op = only(imported(graph, tmp_path), Conv2d)
    assert isinstance(op, Conv2d)
    assert (op.padding, op.pad_value) == ((1, 2, 0, 1), Fraction(value))


def test_a_pad_of_nothing_may_stand_anywhere(tmp_path):
    graph, x = image_graph()
    x = graph.bipolar(graph.node("Pad", x, graph.constant([0] * 8, np.int64)))
    graph.node("Conv", x, graph.constant(signs(3, 2, 2, 2, 2)))
    op = only(imported(graph, tmp_path), Conv2d)
    assert isinstance(op, Conv2d)
    assert op.padding == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({"bits": 8}, -128, 127),
        ({"bits": 8, "narrow": 1}, -127, 127),
        ({"bits": 8, "signed": 0}, 0, 255),
        ({"bits": 8, "signed": 0, "narrow": 1}, 0, 254),
        ({"bits": 2}, -2, 1),
        ({"bits": 3, "rounding_mode": "HALF_EVEN", "zero_point": 2}, -4, 3),
        ({"bits": 4, "scale": [[[0.5]], [[0.5]]]}, -8, 7),
    ],
)
@pytest.mark.parametrize("kind", ["Quant", "IntQuant"])
def test_quant_of_the_frame_has_the_range_that_qonnx_executes(kind, options, low, high, tmp_path):
    graph = Graphs((3, 2, 4, 5))
    x = graph.quant("x", **options)
    graph.nodes[0].op_type = kind
    graph.node("Conv", x, graph.constant(signs(4, 3, 2, 4, 5)))
    graph.node("Flatten", "t1")
    network = load(graph.save(tmp_path))
    op = only(network, Quantize)
    assert isinstance(op, Quantize)
    assert (op.low, op.high) == (low, high)
    # Halves between integers, and frames far beyond the range.
    x = np.random.default_rng(2).integers(-600, 601, (3, 4, 5, 2)) / 4
    expected = execute(graph.model(), channels_first(x).astype(np.float32))
    np.testing.assert_array_equal(reference_logits(network, x), expected)


def test_parameters_of_images_are_one_per_channel(tmp_path):
    graph = Graphs(("N", 2, 4, 5))
    x = graph.node("Sub", "x", graph.constant([[[1]], [[2]]]))
    x = graph.node("Div", x, graph.constant(np.full((1, 2, 4, 5), 0.5)))
    x = graph.node("Conv", graph.bipolar(x), graph.constant(signs(5, 3, 2, 2, 2)))
    graph.node("BatchNormalization", x, *[graph.constant([1, 2, 3])] * 4)
    sub, div, _, _, norm, _ = imported(graph, tmp_path).ops
    assert isinstance(sub, Affine)
    assert sub.offset == (-1, -2)
    assert isinstance(div, Affine)
    assert div.scale == (2, 2)
    assert isinstance(norm, BatchNorm)
    assert norm.gamma.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "channels_first_frame"), [("Conv", True), ("Transpose", False), ("Reshape", True)]
)
def test_the_frame_is_an_image_as_its_first_user_takes_it(kind, channels_first_frame, tmp_path):
    graph = Graphs(("N", 3, 4, 5))
    x = graph.bipolar(graph.node("Neg", "x"))
    channels = 3
    if kind == "Transpose":
        x, channels = graph.node("Transpose", x, perm=[0, 3, 1, 2]), 5
    if kind == "Reshape":
        x = graph.node("Reshape", x, graph.constant([-1, 3, 4, 5], np.int64))
    x = graph.node("Conv", x, graph.constant(signs(6, 2, channels, 2, 2)))
    graph.node("GlobalAveragePool", x)
    network = load(graph.save(tmp_path))
    assert network.input_shape == ((4, 5, 3) if channels_first_frame else (3, 4, 5))
    x = frames(np.random.default_rng(3), 3, network.input_shape)
    assert_same(graph.model(), network, x, channels_first_frame)


@pytest.mark.parametrize("order", ["C, H, W", "H, W, C"])
def test_vectors_list_images_in_the_order_of_the_graph(order, tmp_path):
    graph, x = image_graph()
    x = graph.node("Conv", x, graph.constant(signs(7, 3, 2, 1, 1)))
    x = graph.bipolar(x)
    if order == "H, W, C":
        x = graph.node("Transpose", x, perm=[0, 2, 3, 1])
    x = graph.node("Reshape", x, graph.constant([-1, 60], np.int64))
    graph.node("MatMul", x, graph.constant(signs(8, 60, 2)))
    network = load(graph.save(tmp_path))
    op = only(network, Flatten)
    assert isinstance(op, Flatten)
    assert op.channels_first == (order == "C, H, W")
    assert_same(graph.model(), network, frames(np.random.default_rng(4), 5, (4, 5, 2)), True)


def test_a_perceptron_keeps_the_shape_of_its_frames(tmp_path):
    graph, x = image_graph()
    graph.node("MatMul", graph.node("Flatten", x), graph.constant(signs(9, 40, 2)))
    network = load(graph.save(tmp_path))
    assert network.input_shape == (2, 4, 5)
    assert only(network, Dense)


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
@pytest.mark.parametrize("number", [TensorProto.FLOAT, TensorProto.UINT8])
def test_a_first_layer_without_quantizer_takes_bytes(kind, number, tmp_path):
    graph = Graphs(("N", 2, 4, 5), kind=number)
    x = graph.node("Cast", "x", to=TensorProto.FLOAT)
    x = graph.node("Mul", x, graph.constant(1 / 256))
    if kind == "Conv":
        x = graph.node("Conv", x, graph.constant(signs(1, 3, 2, 4, 5)), name="first")
    else:
        x = graph.node("Flatten", x)
        x = graph.node("Gemm", x, graph.constant(signs(1, 40, 3)), name="first")
    network = load(graph.save(tmp_path))
    assert network.notes == (
        (
            f"node 'first' ({kind}): there is no quantizer before the first layer, so frames must "
            f"hold whole numbers from 0 to 255.",
        )
        if number == TensorProto.FLOAT
        else ()
    )


@pytest.mark.parametrize("axis", [1, -3])
def test_classes_may_be_the_channels_of_an_image_of_one_pixel(axis, tmp_path):
    graph, x = image_graph()
    x = graph.node("Conv", x, graph.constant(signs(1, 3, 2, 4, 5)))
    graph.node("ArgMax", x, axis=axis)
    network = load(graph.save(tmp_path))
    assert network.classes == 3


def test_sign_is_accepted_behind_a_convolution_of_an_odd_number_of_bits(tmp_path):
    graph = Graphs(("N", 1, 5, 5))
    x = graph.bipolar("x")
    for seed in range(2):
        x = graph.node("Conv", x, graph.constant(signs(seed, 1, 1, 3, 3)))
        x = graph.node("Sign", x) if seed == 0 else x
    network = load(graph.save(tmp_path))
    assert [type(op) for op in network.ops] == [Sign, Conv2d, Sign, Conv2d]


def test_average_pools_keep_their_windows(tmp_path):
    graph, x = image_graph()
    x = graph.node("AveragePool", x, kernel_shape=[2, 3], strides=[2, 1], ceil_mode=1)
    graph.node("Conv", x, graph.constant(signs(2, 3, 2, 1, 1)))
    first, second = (op for op in imported(graph, tmp_path).ops if isinstance(op, AveragePool))
    assert (first.kernel, first.stride) == ((2, 3), (2, 1))
    assert second.kernel is None
