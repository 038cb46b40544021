"""What the frontend does not accept it refuses in one sentence that names the file and the node."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from qonnx_graphs import CnnForm, Form, Graphs, cnn, mlp

from xnorflow.errors import UserError
from xnorflow.frontend import load
from xnorflow.network import Network

W = np.array([[1, -1, 1, 1, -1, 1], [-1, -1, 1, -1, 1, 1]], np.float32)
NAN, INF = float("nan"), float("inf")


def refusal(path: Path) -> str:
    """Load what cannot be loaded and return the sentence."""
    with pytest.raises(UserError) as info:
        load(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message


def refused(graph: Graphs, folder: Path, *outputs: str) -> str:
    return refusal(graph.save(folder, *outputs))


def test_missing_file(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "none.onnx")


def test_directory(tmp_path):
    assert "is a directory" in refusal(tmp_path)


def test_file_under_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be read" in refusal(tmp_path / "file" / "net.onnx")


def test_name_that_no_file_can_have():
    with pytest.raises(UserError, match="is no file name"):
        load("net\0.onnx")


def test_empty_file(tmp_path):
    (tmp_path / "net.onnx").touch()
    assert "is empty" in refusal(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n\0\0", b"hello, world\n", b"{}", b"\0", b"\n\0" * 9],
)
def test_file_that_is_not_onnx(content, tmp_path):
    (tmp_path / "net.onnx").write_bytes(content)
    assert "is not an ONNX file" in refusal(tmp_path / "net.onnx")


SMALL = mlp(np.random.default_rng(0), [4, 3, 2], Form(weights="int8")).SerializeToString()
IMAGES = cnn(
    np.random.default_rng(0),
    (5, 6, 1),
    CnnForm(pixels="signed", weights="int8", padding="Pad", stride=(2, 2), pool="max"),
).SerializeToString()


def outcome(content: bytes, folder: Path) -> Network | str:
    """Return the network in a file, or the sentence that refuses it."""
    path = folder / "net.onnx"
    path.write_bytes(content)
    try:
        return load(path)
    except UserError as error:
        return str(error)


def test_truncated_files_are_refused_unless_they_lack_nothing_but_a_version(tmp_path):
    complete = 0
    for size in range(1, len(SMALL)):
        result = outcome(SMALL[:size], tmp_path)
        if isinstance(result, Network):
            # The last field of the file is the version of QONNX's operator set.
            assert [layer.weights.shape for layer in result.layers()] == [(3, 4), (2, 3)]
            complete += 1
        else:
            assert "net.onnx: " in result
    assert complete == 1


byte = st.integers(0, 255)
place = st.floats(0, 1, exclude_max=True)


@settings(max_examples=300)
@given(
    original=st.sampled_from([SMALL, IMAGES]),
    changed=st.lists(st.tuples(place, byte), max_size=4),
    removed=st.tuples(place, st.integers(0, 8)),
)
def test_damaged_files_never_leak_another_error(original, changed, removed, tmp_path_factory):
    content = bytearray(original)
    for part, value in changed:
        content[int(part * len(content))] = value
    part, count = removed
    start = int(part * len(content))
    del content[start : start + count]
    result = outcome(bytes(content), tmp_path_factory.mktemp("damage"))
    assert isinstance(result, Network) or "net.onnx: " in result


def test_missing_external_data(tmp_path):
    graph = Graphs()
    graph.node("MatMul", graph.bipolar("x"), graph.constant(W.T))
    path = tmp_path / "net.onnx"
    onnx.save(graph.model(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    message = refusal(path)
    assert "'w.bin'" in message
    assert "put it beside the model" in message


def test_external_data_outside_the_folder(tmp_path):
    graph = Graphs()
    graph.node("MatMul", graph.bipolar("x"), graph.constant(W.T))
    model = graph.model()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "secret").write_bytes(W.tobytes())
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert "'../secret'" in refusal(path)


def test_several_inputs(tmp_path):
    graph = Graphs()
    graph.inputs.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6]))
    graph.node("MatMul", graph.bipolar("x"), graph.constant(W.T))
    assert "has 2 inputs ('x', 'y')" in refused(graph, tmp_path)


def test_no_input(tmp_path):
    graph = Graphs()
    graph.inputs.clear()
    graph.node("Neg", graph.constant(1))
    assert "has 0 inputs" in refused(graph, tmp_path)


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        (None, "has no shape"),
        ((6,), "has 1 dimensions"),
        (("N", None), "has shape (?, ?)"),
        ((1, "height", 6), "has shape (1, ?, 6)"),
        ((1, 0), "has shape (1, 0)"),
        ((1, 1 << 20, 1 << 20), "values a frame"),
    ],
)
def test_input_shape_that_is_not_fixed(shape, part, tmp_path):
    graph = Graphs()
    graph.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    graph.node("MatMul", graph.bipolar("x"), graph.constant(W.T))
    assert part in refused(graph, tmp_path)


def test_input_of_strings(tmp_path):
    graph = Graphs(kind=TensorProto.STRING)
    graph.node("MatMul", graph.bipolar("x"), graph.constant(W.T))
    assert "element type STRING" in refused(graph, tmp_path)


@pytest.mark.parametrize("opset", [0, 1, 6])
def test_operator_set_that_is_too_old(opset, tmp_path):
    graph = Graphs(opset=opset)
    graph.node("MatMul", graph.bipolar("x"), graph.constant(W.T))
    assert f"operator set {opset};" in refused(graph, tmp_path)


def test_inner_output(tmp_path):
    graph = Graphs()
    x = graph.bipolar("x")
    y = graph.node("MatMul", x, graph.constant(W.T))
    message = refused(graph, tmp_path, y, x)
    assert f"output {x!r}" in message
    assert "inner outputs" in message


def test_constant_output(tmp_path):
    graph = Graphs()
    y = graph.node("MatMul", graph.bipolar("x"), graph.constant(W.T))
    assert "has 2 outputs" in refused(graph, tmp_path, y, graph.constant(1))


def test_output_that_does_not_depend_on_the_input(tmp_path):
    graph = Graphs()
    assert "no output depends on input 'x'" in refused(graph, tmp_path, graph.constant(1))


def test_no_layers(tmp_path):
    graph = Graphs()
    graph.bipolar("x")
    assert "has no weight layer" in refused(graph, tmp_path)


def test_square_of_the_data(tmp_path):
    graph = Graphs()
    graph.node("Mul", "x", "x", name="square")
    assert "node 'square' (Mul) takes tensor 'x' twice" in refused(graph, tmp_path)


def test_second_output_in_use(tmp_path):
    graph = Graphs()
    y = graph.node("Dropout", "x", outputs=2)
    graph.node("MatMul", graph.bipolar(y + "_"), graph.constant(W.T))
    assert "has a second output" in refused(graph, tmp_path)


def test_cycle(tmp_path):
    graph = Graphs()
    graph.node("Add", "x", "t1", name="round")
    graph.node("Neg", "t0", name="about")
    message = refused(graph, tmp_path)
    assert "'round' (Add) lies on a cycle" in message


def test_tensor_from_nowhere(tmp_path):
    graph = Graphs()
    graph.node("MatMul", graph.bipolar("x"), "weights", name="fc")
    assert "node 'fc' (MatMul) reads tensor 'weights', which nothing" in refused(graph, tmp_path)


def test_tensor_with_two_origins(tmp_path):
    graph = Graphs()
    graph.node("Neg", "x")
    graph.nodes.append(helper.make_node("Neg", ["x"], ["t0"], name="again"))
    assert "node 'again' (Neg) writes tensor 't0'" in refused(graph, tmp_path)


Draw = Callable[[Graphs], object]

# For each refused node, named "bad": how it gets into a graph, and what the sentence says.
BAD: dict[str, tuple[Draw, str]] = {}


def bad(sentence: str) -> Callable[[Draw], Draw]:
    def register(draw: Draw) -> Draw:
        BAD[draw.__name__] = draw, sentence
        return draw

    return register


def layer(g: Graphs, x: str = "x", **options) -> str:
    return g.node("MatMul", g.bipolar(x), g.constant(W.T), **options)


@bad(r"\(ConvTranspose\) is a transposed convolution, .* not supported; accepted are .*Gemm")
def transposed_convolution(g):
    g.node("ConvTranspose", g.bipolar("x"), g.constant(np.ones((1, 1, 3, 3))), name="bad")


@bad(r"\(Relu\) is an activation that nothing quantizes; put a Quant .*, or replace it by a sign")
def relu(g):
    g.node("Relu", layer(g), name="bad")


@bad(r"\(Erf\) is an operator that is not supported; accepted are")
def unsupported_operator(g):
    g.node("Erf", layer(g), name="bad")


@bad(r"\(BipolarQuant\) has the unknown operator domain 'com\.example'; accepted are")
def unknown_domain(g):
    g.bipolar("x", name="bad", domain="com.example")


def quant(g: Graphs, x: str, bits: float, **attributes: int) -> str:
    inputs = [g.constant(value) for value in (1, 0, bits)]
    return g.node("Quant", x, *inputs, name="bad", **attributes)


@bad(r"\(Quant\) quantizes the frame to 9 bits; give 2 to 8 bits, or a BipolarQuant for one")
def nine_bit_input(g):
    quant(g, "x", 9)


@bad(r"\(Quant\) quantizes the frame to 2\.5 bits")
def bits_in_part(g):
    quant(g, "x", 2.5)


@bad(r"\(Quant\) has a narrow range of 1 bit, in which only 0 lies; use BipolarQuant")
def one_bit_of_one_value(g):
    quant(g, "x", 1, signed=0, narrow=1)


@bad(r"\(Quant\) rounds in the unknown mode NEAREST; use BipolarQuant")
def one_bit_that_rounds_somehow(g):
    quant(g, "x", 1, signed=0, narrow=0, rounding_mode="NEAREST")


@bad(r"\(Quant\) has the scale 0; the scale of a Quant must be positive")
def one_bit_by_zero(g):
    g.node("Quant", "x", *map(g.constant, (0, 0, 1)), name="bad", signed=1, narrow=1)


@bad(r"\(BipolarQuant\) has a scale of type int32; give floats")
def scale_of_integers(g):
    g.node("BipolarQuant", "x", g.constant(1, np.int32), name="bad")


@bad(r"\(FloatQuant\) quantizes the input in a way that is not supported; use a Quant of 1 to 8")
def float_quant(g):
    g.node("FloatQuant", "x", *[g.constant(1)] * 5, name="bad")


@bad(r"\(Quant\) has no attribute 'narrow'; export the model again")
def quant_of_unknown_range(g):
    quant(g, "x", 8, signed=1)


@bad(r"\(Quant\) rounds positive and negative numbers another way, in the mode UP; give ROUND")
def quant_that_rounds_up(g):
    quant(g, "x", 8, signed=1, narrow=0, rounding_mode="UP")


@bad(r"\(Quant\) rounds in the unknown mode SIDEWAYS; give ROUND")
def quant_of_unknown_rounding(g):
    quant(g, "x", 8, signed=1, narrow=0, rounding_mode="SIDEWAYS")


@bad(r"\(Quant\) has an attribute 'rounding_mode' that is no text")
def quant_that_rounds_by_number(g):
    quant(g, "x", 8, signed=1, narrow=0, rounding_mode=1)


@bad(r"\(Quant\) has a scale for each channel; give one for all, .* as a Mul and Add before it")
def quant_per_channel(g):
    inputs = [g.constant(value) for value in ([1, 2, 3, 4, 5, 6], 0, 8)]
    g.node("Quant", "x", *inputs, name="bad", signed=1, narrow=0)


@bad(r"\(Quant\) has the scale 0; the scale of a Quant must be positive")
def quant_by_zero(g):
    g.node("Quant", "x", *map(g.constant, (0, 0, 8)), name="bad", signed=1, narrow=0)


@bad(r"\(Quant\) quantizes activations to 9 bits; give 2 to 8 bits")
def nine_bit_activations(g):
    quant(g, layer(g), 9)


@bad(r"\(Quant\) quantizes weights to 9 bits; use a Quant of 1 to 8 bits, or BipolarQuant")
def nine_bit_weights(g):
    g.node("MatMul", g.bipolar("x"), quant(g, g.constant(W.T), 9, signed=1))


@bad(r"\(Quant\) quantizes weights in the unknown rounding mode SIDEWAYS; use a Quant")
def weights_of_unknown_rounding(g):
    weights = quant(g, g.constant(W.T), 3, signed=1, rounding_mode="SIDEWAYS")
    g.node("MatMul", g.bipolar("x"), weights)


@bad(r"\(MatMul\) takes the sums of node 'first' \(MatMul\), which nothing makes binary; put a")
def no_sign_between_layers(g):
    g.node("MatMul", layer(g, name="first"), g.constant(np.ones((2, 2))), name="bad")


@bad(r"\(BipolarQuant\) follows the last layer")
def sign_at_the_end(g):
    g.bipolar(layer(g), name="bad")


@bad(r"\(MatMul\) has weights that are neither .* \(neuron 1 has -0\.3, 0\.1, 0\.2, 0\.5, \.\.\.\)")
def float_weights(g):
    weights = np.stack([W[0], [0.1, 0.2, -0.3, 0.5, 0.7, np.pi]], axis=1)
    g.node("MatMul", g.bipolar("x"), g.constant(weights), name="bad")


@bad(r"\(MatMul\) has weights that are neither binary nor .* \(neuron 0 has 0\); put a BipolarQ")
def zero_weights(g):
    g.node("MatMul", g.bipolar("x"), g.constant(np.zeros((6, 2))), name="bad")


@bad(r"\(MatMul\) has a weight matrix that holds NaN or infinity")
def infinite_weights(g):
    g.node("MatMul", g.bipolar("x"), g.constant(W.T * INF), name="bad")


@bad(r"\(BipolarQuant\) has weights that hold NaN or infinity")
def nan_latent_weights(g):
    w = g.bipolar(g.constant(np.where(W > 0, W, NAN).T), name="bad")
    g.node("MatMul", g.bipolar("x"), w)


@bad(r"\(Sign\) gives 0 for the weights that are 0.*; use BipolarQuant")
def sign_of_zero_weights(g):
    w = g.node("Sign", g.constant([[0.0], *[[1.0]] * 5]), name="bad")
    g.node("MatMul", g.bipolar("x"), w)


@bad(r"\(Relu\) computes a constant in a way that is not supported; accepted on weights .*Cast")
def computed_weights(g):
    g.node("MatMul", g.bipolar("x"), g.node("Relu", g.constant(W.T), name="bad"))


@bad(r"\(Transpose\) has inputs that do not suit it")
def impossible_transpose(g):
    g.node("MatMul", g.bipolar("x"), g.node("Transpose", g.constant(W), perm=[0, 2], name="bad"))


@bad(r"\(Squeeze\) takes its list of axes from tensor 'x', which depends on the input; store")
def axes_from_data(g):
    g.node("Squeeze", "x", "x", name="bad")


@bad(r"\(MatMul\) has weights for 6 inputs but gets 2; make both sizes equal")
def wrong_width(g):
    g.node("MatMul", g.bipolar(layer(g)), g.constant(W.T), name="bad")


@bad(r"\(Gemm\) has weights for 2 inputs but gets 6")
def wrong_trans_b(g):
    g.node("Gemm", g.bipolar("x"), g.constant(W), name="bad")


@bad(r"\(MatMul\) has weights of shape \(6,\); give a matrix")
def weight_vector(g):
    g.node("MatMul", g.bipolar("x"), g.constant(W[0]), name="bad")


@bad(r"\(Gemm\) transposes the data")
def trans_a(g):
    g.node("Gemm", g.bipolar("x"), g.constant(W), name="bad", transA=1)


@bad(r"\(MatMul\) takes the data as its input 1; give the data as its first input")
def weights_on_the_left(g):
    g.node("MatMul", g.constant(W), g.bipolar("x"), name="bad")


@bad(r"\(Gemm\) has parameters of shape \(3,\) for frames of shape \(2,\)")
def bias_of_wrong_size(g):
    bias = g.constant([1, 2, 3])
    g.node("Gemm", g.bipolar("x"), g.constant(W), bias, name="bad", transB=1)


@bad(r"\(Gemm\) has an attribute 'alpha' that is no finite float")
def alpha_of_wrong_kind(g):
    g.node("Gemm", g.bipolar("x"), g.constant(W.T), name="bad", alpha=[1.0])


@bad(r"\(BipolarQuant\) has the scale 0; .* must be positive")
def zero_scale(g):
    g.bipolar("x", 0, name="bad")


@bad(r"\(BipolarQuant\) has the scale -0\.5; .* must be positive")
def negative_weight_scale(g):
    g.node("MatMul", g.bipolar("x"), g.bipolar(g.constant(W.T), [1, -0.5], name="bad"))


@bad(r"\(BipolarQuant\) has a scale that holds NaN or infinity")
def nan_scale(g):
    g.bipolar("x", NAN, name="bad")


@bad(r"\(BipolarQuant\) has no scale")
def no_scale(g):
    g.node("BipolarQuant", "x", name="bad")


@bad(r"\(Sign\) gives 0 where its input is 0.*; use BipolarQuant")
def sign_of_the_input(g):
    g.node("MatMul", g.node("Sign", "x", name="bad"), g.constant(W.T))


@bad(r"\(Sign\) gives 0 where its input is 0.*; use BipolarQuant")
def sign_of_sums_that_may_be_zero(g):
    g.node("Sign", layer(g), name="bad")


def batch_norm(g: Graphs, x: str, eps: float = 1e-5, **changes: object) -> str:
    values = {"gamma": [1, 1], "beta": [0, 0], "mean": [0, 0], "var": [1, 1], **changes}
    inputs = [g.constant(value) for value in values.values()]
    return g.node("BatchNormalization", x, *inputs, name="bad", epsilon=eps)


@bad(r"\(BatchNormalization\) has var \+ epsilon = -1,")
def negative_variance(g):
    batch_norm(g, layer(g), 0.0, var=[1, -1])


@bad(r"\(BatchNormalization\) has var \+ epsilon = 0,")
def zero_variance(g):
    batch_norm(g, layer(g), 0.0, var=[1, 0])


@bad(r"\(BatchNormalization\) has a gamma that holds NaN or infinity; export")
def nan_gamma(g):
    batch_norm(g, layer(g), gamma=[1, NAN])


@bad(r"\(BatchNormalization\) has a mean that holds NaN or infinity; export")
def infinite_mean(g):
    batch_norm(g, layer(g), mean=[-INF, 1])


@bad(r"\(BatchNormalization\) has an attribute 'epsilon' that is no finite float")
def nan_epsilon(g):
    batch_norm(g, layer(g), NAN)


@bad(r"\(BatchNormalization\) has beta of shape \(3,\) for 2 channels")
def batch_norm_of_wrong_size(g):
    batch_norm(g, layer(g), beta=[1, 2, 3])


@bad(r"\(BatchNormalization\) is in training mode")
def batch_norm_in_training(g):
    inputs = [g.constant([1, 1])] * 4
    g.node("BatchNormalization", layer(g), *inputs, name="bad", training_mode=1)


@bad(r"\(Dropout\) is in training mode")
def dropout_in_training(g):
    g.node("Dropout", "x", g.constant(0.5), g.constant(True, np.bool_), name="bad")


@bad(r"\(Div\) divides a constant by the data")
def constant_over_data(g):
    g.node("Div", g.constant(1), layer(g), name="bad")


@bad(r"\(Div\) divides by zero")
def division_by_zero(g):
    g.node("Div", layer(g), g.constant([1, 0]), name="bad")


@bad(r"\(Add\) has a constant that holds NaN or infinity")
def infinite_constant(g):
    g.node("Add", layer(g), g.constant([INF, 0]), name="bad")


@bad(r"\(Add\) has a constant of type bool")
def constant_of_booleans(g):
    g.node("Add", layer(g), g.constant([True, False], np.bool_), name="bad")


@bad(r"\(Mul\) has parameters of shape \(3,\) for frames of shape \(6,\); give one value")
def parameters_of_wrong_size(g):
    g.node("Mul", "x", g.constant([1, 2, 3]), name="bad")


@bad(r"\(Mul\) has parameters of shape \(2, 6\)")
def parameters_per_frame(g):
    g.node("Mul", "x", g.constant(W), name="bad")


@bad(r"\(Mul\) has parameters of shape \(1, 1, 1\)")
def parameters_that_add_a_dimension(g):
    g.node("Mul", "x", g.constant([[[1]]]), name="bad")


@bad(r"\(Cast\) casts the data to another type")
def cast_to_integer(g):
    g.node("Cast", layer(g), to=TensorProto.INT8, name="bad")


@bad(r"\(Cast\) casts the data to another type")
def cast_to_half(g):
    g.node("Cast", layer(g), to=TensorProto.FLOAT16, name="bad")


@bad(r"\(Reshape\) makes \(2, 3\) from frames of shape \(6,\), which splits")
def reshape_that_splits_frames(g):
    g.node("Reshape", "x", g.constant([2, 3], np.int64), name="bad")


@bad(r"\(Reshape\) makes \(-1, 3\) from frames of shape \(6,\), which splits")
def reshape_to_other_frames(g):
    g.node("Reshape", "x", g.constant([-1, 3], np.int64), name="bad")


@bad(r"\(Reshape\) makes \(-1\) from frames")
def reshape_without_batch(g):
    g.node("Reshape", "x", g.constant([-1], np.int64), name="bad")


@bad(r"\(Reshape\) has a shape that is no list of integers")
def reshape_by_floats(g):
    g.node("Reshape", "x", g.constant([1, 6]), name="bad")


@bad(r"\(Flatten\) with axis 2 splits or joins frames; give axis = 1")
def flatten_of_another_axis(g):
    g.node("Flatten", "x", axis=2, name="bad")


@bad(r"\(Flatten\) has axis 7 of 2")
def flatten_of_no_axis(g):
    g.node("Flatten", "x", axis=7, name="bad")


@bad(r"\(Squeeze\) drops the batch dimension")
def squeeze_of_the_batch(g):
    g.node("Squeeze", "x", g.constant([0], np.int64), name="bad")


@bad(r"\(Unsqueeze\) adds a dimension before the batch")
def unsqueeze_before_the_batch(g):
    g.node("Unsqueeze", "x", g.constant([0], np.int64), name="bad")


@bad(r"\(Transpose\) reorders the values")
def transpose_of_data(g):
    g.node("Transpose", "x", perm=[1, 0], name="bad")


@bad(r"\(Mul\) follows node 'softmax' \(Softmax\); end the network there")
def arithmetic_on_probabilities(g):
    g.node("Mul", g.node("Softmax", layer(g), name="softmax"), g.constant(2), name="bad")


@bad(r"\(Softmax\) works along axis 0; give axis = -1")
def softmax_over_frames(g):
    g.node("Softmax", layer(g), axis=0, name="bad")


@bad(r"\(ArgMax\) takes the highest index among equal scores")
def arg_max_of_the_last(g):
    g.node("ArgMax", layer(g), axis=1, select_last_index=1, name="bad")


@bad(r"\(TopK\) does not take the one largest score; give k = 1")
def top_two(g):
    g.node("TopK", layer(g), g.constant([2], np.int64), name="bad", outputs=2)


@bad(r"\(Shape\) asks for the shape of tensor 't0_', which is not known")
def shape_of_a_mask(g):
    x = g.node("Dropout", "x", outputs=2)
    g.node("Reshape", x, g.node("Shape", x + "_", name="bad"))


@pytest.mark.parametrize("name", BAD)
def test_bad_node_is_named_with_its_fault_and_mend(name, tmp_path):
    draw, sentence = BAD[name]
    graph = Graphs(("N", 6))
    draw(graph)
    message = refused(graph, tmp_path)
    assert re.search(rf": node 'bad' {sentence}", message), message


@pytest.mark.parametrize("node", ["Gemm", "MatMul"])
def test_frames_that_are_not_flat(node, tmp_path):
    graph = Graphs(("N", 2, 6))
    graph.node(node, graph.bipolar("x"), graph.constant(W.T), name="fc")
    message = refused(graph, tmp_path)
    assert f"node 'fc' ({node}) takes frames of shape (2, 6); put a Flatten before it" in message


# As BAD, for graphs of images of 2 channels, 4 rows and 5 columns.
BAD_IMAGE: dict[str, tuple[Draw, str]] = {}


def bad_image(sentence: str) -> Callable[[Draw], Draw]:
    def register(draw: Draw) -> Draw:
        BAD_IMAGE[draw.__name__] = draw, sentence
        return draw

    return register


def kernel(g: Graphs, *shape: int) -> str:
    return g.constant(np.ones(shape or (3, 2, 2, 2)))


def conv(g: Graphs, x: str = "x", *shape: int, **options) -> str:
    return g.node("Conv", g.bipolar(x), kernel(g, *shape), **options)


@bad_image(r"\(Conv\) has weights for 3 outputs and 1 channels in each of 1 groups but gets 2 cha")
def conv_of_other_channels(g):
    conv(g, "x", 3, 1, 2, 2, name="bad")


@bad_image(r"\(Conv\) has weights for 3 outputs and 1 channels in each of 2 groups but gets 2 cha")
def groups_that_do_not_share_the_outputs(g):
    conv(g, "x", 3, 1, 2, 2, name="bad", group=2)


@bad_image(r"\(Conv\) has weights of shape \(3, 2, 2\); give a tensor \(M, C / group, KH, KW\)")
def conv_of_a_signal(g):
    conv(g, "x", 3, 2, 2, name="bad")


@bad_image(
    r"\(Conv\) has weights that are neither .* \(neuron 1 has 200, 201\); put a BipolarQuant"
)
def conv_of_integers(g):
    weights = np.ones((3, 2, 2, 2))
    weights[1] = np.arange(8).reshape(2, 2, 2) % 2 + 200
    g.node("Conv", g.bipolar("x"), g.constant(weights), name="bad")


@bad_image(r"\(Conv\) has a bias of shape \(2,\) for 3 outputs; give one value for each")
def conv_bias_of_other_size(g):
    g.node("Conv", g.bipolar("x"), kernel(g), g.constant([1, 2]), name="bad")


@bad_image(r"\(Conv\) takes the data as its input 1; give the data as its first input")
def data_as_kernel(g):
    g.node("Conv", kernel(g), "x", name="bad")


@bad_image(r"\(Conv\) takes the sums of node 'first' \(Conv\), which nothing makes binary; put a")
def no_sign_between_convolutions(g):
    g.node("Conv", conv(g, name="first"), kernel(g, 1, 3, 2, 2), name="bad")


@bad_image(r"\(Conv\) has the kernel_shape \(3, 3\) but weights of \(2, 2\); make both equal")
def kernel_shape_of_other_size(g):
    conv(g, name="bad", kernel_shape=[3, 3])


@bad_image(r"\(Conv\) has windows of 7 x 2 pixels, larger than its image of 4 x 5 with the padding")
def kernel_larger_than_the_image(g):
    conv(g, name="bad", dilations=[6, 1], pads=[1, 0, 1, 0])


@bad_image(r"\(Conv\) makes images of 1000000003 x 4 pixels; give less padding")
def padding_without_end(g):
    conv(g, name="bad", pads=[0, 0, 10**9, 0])


@bad_image(r"\(Conv\) has strides = \[0, 1\]; give two positive integers")
def stride_of_zero(g):
    conv(g, name="bad", strides=[0, 1])


@bad_image(r"\(Conv\) has pads = \[1, 1\]; give four integers that are not negative")
def pads_of_one_axis(g):
    conv(g, name="bad", pads=[1, 1])


@bad_image(r"\(Conv\) has auto_pad = SAME; give NOTSET, VALID, SAME_UPPER or SAME_LOWER")
def auto_pad_of_no_side(g):
    conv(g, name="bad", auto_pad="SAME")


@bad_image(
    r"\(Conv\) takes images, but node 'flat' \(Flatten\) makes vectors of them; leave it out"
)
def conv_of_vectors(g):
    x = g.node("Flatten", "x", name="flat")
    conv(g, g.node("Reshape", x, g.constant([0, 2, 4, 5], np.int64)), name="bad")


@bad_image(
    r"\(Conv\) takes images, but node 'mean' \(Sub\) has parameters that differ between the p"
)
def conv_of_pixels_with_means_of_their_own(g):
    x = g.node("Sub", "x", g.constant(np.arange(40).reshape(2, 4, 5)), name="mean")
    conv(g, x, name="bad")


@bad_image(
    r"\(Conv\) takes images whose channels are the last dimension; put a Transpose with perm"
)
def conv_of_channels_last(g):
    x = g.node("Transpose", conv(g), perm=[0, 2, 3, 1])
    conv(g, x, 1, 4, 1, 1, name="bad")


@bad_image(r"\(Transpose\) reorders the values of frames of shape \(3, 3, 4\)")
def image_turned(g):
    g.node("Transpose", conv(g), perm=[0, 1, 3, 2], name="bad")


@bad_image(r"\(MaxPool\) has an attribute 'kernel_shape' that is no list of integers")
def pool_of_no_size(g):
    g.node("MaxPool", conv(g), name="bad")


@bad_image(
    r"\(MaxPool\) has a last window that reaches beyond its image \(ceil_mode = 1\); give ceil"
)
def pool_beyond_the_border(g):
    g.node("MaxPool", conv(g), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, name="bad")


@bad_image(r"\(MaxPool\) has a second output 't2_' in use")
def pool_with_places(g):
    y = g.node("MaxPool", conv(g), kernel_shape=[2, 2], name="bad", outputs=2)
    g.node("GlobalAveragePool", y + "_")


@bad_image(r"\(AveragePool\) pads its image by \(1, 0, 0, 0\), whose borders other numbers divide")
def average_with_padding(g):
    g.node("AveragePool", conv(g), kernel_shape=[2, 2], pads=[1, 0, 0, 0], name="bad")


@bad_image(r"\(AveragePool\) has windows with gaps; give dilations = 1")
def average_with_gaps(g):
    g.node("AveragePool", conv(g), kernel_shape=[2, 2], dilations=[2, 1], name="bad")


@bad_image(r"\(GlobalAveragePool\) takes images, but node 'flat' \(Flatten\) makes vectors of them")
def global_average_of_vectors(g):
    g.node("GlobalAveragePool", g.node("Flatten", conv(g), name="flat"), name="bad")


@bad_image(r"\(ReduceMean\) takes means along the axes \[1\]; take them along the rows and columns")
def mean_of_channels(g):
    g.node("ReduceMean", conv(g), axes=[1], name="bad")


@bad_image(r"\(ReduceMean\) takes means along the axes \[\]; take them along the rows and columns")
def mean_of_everything(g):
    g.node("ReduceMean", conv(g), name="bad")


def padded(g: Graphs, x: str, pads: list[int], value: float = 0, **options) -> str:
    return g.node("Pad", x, g.constant(pads, np.int64), g.constant(value), **options)


BORDER = [0, 0, 1, 1, 0, 0, 1, 1]


@bad_image(
    r"\(Conv\) pads with 0 what node 'pad' \(Pad\) pads with -1; give pads = 0, and the whole"
)
def two_paddings(g):
    x = padded(g, g.bipolar("x"), BORDER, -1, name="pad")
    g.node("Conv", x, kernel(g), pads=[1, 1, 1, 1], name="bad")


@bad_image(
    r"\(Pad\) pads the input of node 'sign' \(BipolarQuant\); put the Pad directly before a C"
)
def pad_before_the_sign(g):
    x = g.bipolar(padded(g, "x", BORDER, name="bad"), name="sign")
    g.node("Conv", x, kernel(g))


@bad_image(r"\(Pad\) pads the input of node 'pool' \(MaxPool\); put the Pad directly before a Conv")
def pad_before_a_pool(g):
    x = padded(g, conv(g), BORDER, name="bad")
    g.node("MaxPool", x, kernel_shape=[2, 2], name="pool")


@bad_image(
    r"\(Pad\) pads the input of node 'turn' \(Transpose\); put the Pad directly before a Conv"
)
def pad_before_a_turn(g):
    x = padded(g, conv(g, "x", 3, 2, 2, 5), [0, 0, 1, 0, 0, 0, 0, 0], name="bad")
    g.node("Transpose", x, perm=[0, 1, 3, 2], name="turn")


@bad_image(r"\(Pad\) pads the network's output; leave it out")
def pad_at_the_end(g):
    padded(g, conv(g), BORDER, name="bad")


@bad_image(r"\(Pad\) has pads = \[0, 1, 0, 0, 0, 0, 0, 0\]; pad rows and columns only")
def pad_of_channels(g):
    padded(g, conv(g), [0, 1, 0, 0, 0, 0, 0, 0], name="bad")


@bad_image(r"\(Pad\) has pads = \[0, 0, -1, 0, 0, 0, 0, 0\]; pad rows and columns only, by numbers")
def pad_that_crops(g):
    padded(g, conv(g), [0, 0, -1, 0, 0, 0, 0, 0], name="bad")


@bad_image(r"\(Pad\) has pads = \[1, 1\] for 4 dimensions; give two sizes for each")
def pad_of_one_axis(g):
    padded(g, conv(g), [1, 1], name="bad")


@bad_image(r"\(Pad\) does not pad with a constant; give mode = constant")
def pad_by_reflection(g):
    padded(g, conv(g), BORDER, name="bad", mode="reflect")


@bad_image(r"\(Pad\) has a constant that holds NaN or infinity")
def pad_with_infinity(g):
    padded(g, conv(g), BORDER, -INF, name="bad")


@bad_image(r"\(BipolarQuant\) follows the last layer")
def sign_of_the_last_convolution(g):
    g.bipolar(conv(g), name="bad")


@bad_image(r"\(Softmax\) works along axis 1; put a Flatten before it, and give axis = -1")
def softmax_over_pixels(g):
    g.node("Softmax", conv(g), axis=1, name="bad")


@bad_image(r"\(Gemm\) takes frames of shape \(3, 3, 4\); put a Flatten before it")
def gemm_of_images(g):
    g.node("Gemm", g.bipolar(conv(g)), g.constant(W), name="bad")


@pytest.mark.parametrize("name", BAD_IMAGE)
def test_bad_node_on_images_is_named_with_its_fault_and_mend(name, tmp_path):
    draw, sentence = BAD_IMAGE[name]
    graph = Graphs(("N", 2, 4, 5))
    draw(graph)
    message = refused(graph, tmp_path)
    assert re.search(rf": node 'bad' {sentence}", message), message


def test_convolution_of_a_graph_whose_frames_are_vectors(tmp_path):
    graph = Graphs(("N", 40))
    x = graph.node("Reshape", "x", graph.constant([0, 2, 4, 5], np.int64))
    conv(graph, x, name="first")
    assert (
        "node 'first' (Conv) takes images, but input 'x' holds vectors; give the graph an input "
        "of shape (N, C, H, W)"
    ) in refused(graph, tmp_path)


def test_convolution_of_signals(tmp_path):
    graph = Graphs(("N", 2, 40))
    conv(graph, "x", 3, 2, 5, name="first")
    message = refused(graph, tmp_path)
    assert "node 'first' (Conv) takes frames of shape (2, 40); give it images" in message


def test_scores_of_every_pixel(tmp_path):
    graph = Graphs(("N", 2, 4, 5))
    conv(graph)
    message = refused(graph, tmp_path)
    assert "ends in images of shape (3, 3, 4), not in one score for each class" in message


def test_bytes_of_the_wrong_sign(tmp_path):
    graph = Graphs(("N", 2, 4, 5), kind=TensorProto.INT8)
    x = graph.node("Cast", "x", to=TensorProto.FLOAT)
    graph.node("Conv", x, kernel(graph), name="first")
    message = refused(graph, tmp_path)
    assert "node 'first' (Conv) is the first layer and takes frames of type INT8" in message


@pytest.mark.parametrize("node", ["Conv", "GlobalAveragePool", "Quant"])
def test_arithmetic_on_images_of_integers(node, tmp_path):
    graph = Graphs(("N", 2, 4, 5), kind=TensorProto.UINT8)
    inputs = {"Conv": [kernel(graph)], "Quant": map(graph.constant, (1, 0, 8))}
    graph.node(node, "x", *inputs.get(node, []), name="first")
    message = refused(graph, tmp_path)
    assert f"node 'first' ({node}) computes with tensor 'x' in its integer type" in message


def test_transpose_that_reorders_frames(tmp_path):
    graph = Graphs(("N", 2, 3))
    x = graph.node("Transpose", "x", perm=[0, 2, 1], name="swap")
    layer(graph, graph.node("Flatten", x))
    message = refused(graph, tmp_path)
    assert "node 'swap' (Transpose) reorders the values of frames of shape (2, 3)" in message


def test_arithmetic_on_integers(tmp_path):
    graph = Graphs(kind=TensorProto.UINT8)
    layer(graph, graph.node("Sub", "x", graph.constant(127, np.uint8), name="sub"))
    message = refused(graph, tmp_path)
    assert "node 'sub' (Sub) computes with tensor 'x' in its integer type" in message


def test_reshape_to_a_fixed_number_of_frames(tmp_path):
    graph = Graphs((28, 28))
    layer(graph, graph.node("Reshape", "x", graph.constant([1, -1], np.int64), name="join"))
    assert "node 'join' (Reshape) makes (1, -1)" in refused(graph, tmp_path)


def test_node_without_a_name_is_named_by_its_output(tmp_path):
    graph = Graphs()
    graph.node("Erf", "x", name="")
    assert "node 't0' (Erf)" in refused(graph, tmp_path)


def test_damaged_tensor(tmp_path):
    graph = Graphs()
    layer(graph)
    graph.initializers[1].raw_data = b"\0" * 7
    assert "the values of tensor 'c1' cannot be read" in refused(graph, tmp_path)


def test_two_initializers_of_one_name(tmp_path):
    graph = Graphs()
    layer(graph)
    graph.initializers.append(graph.initializers[0])
    assert "two initializers one name" in refused(graph, tmp_path)


def test_operator_name_with_control_characters_stays_on_one_line(tmp_path):
    graph = Graphs()
    graph.node("Er\nf", "x", name="odd")
    assert r"node 'odd' ('Er\nf') is an operator" in refused(graph, tmp_path)


def test_sparse_constant(tmp_path):
    graph = Graphs()
    values = numpy_helper.from_array(np.ones(1, np.float32), "v")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    sparse = helper.make_sparse_tensor(values, indices, [6])
    graph.node("Add", "x", graph.node("Constant", name="sparse", sparse_value=sparse))
    assert "node 'sparse' (Constant) has no plain value" in refused(graph, tmp_path)
