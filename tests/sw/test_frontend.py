"""The frontend reads every accepted form of a graph to the network that QONNX executes."""

from __future__ import annotations

from fractions import Fraction
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from qonnx_graphs import FORMS, Form, Graphs, evaluate, execute, mlp
from random_networks import random_frames, random_network, reference_logits, to_qonnx

from xnorflow import golden
from xnorflow.datasets import sample_digits
from xnorflow.errors import UserError
from xnorflow.frontend import load
from xnorflow.frontend.quantizers import zero_is_reachable
from xnorflow.frontend.walk import layer_names
from xnorflow.lowering import lower
from xnorflow.network import Affine, BatchNorm, Dense, Flatten, Network, Op, Sign

DATA = Path(__file__).parents[1] / "data"


def saved(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def frames(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(-0.5, 1.5, (count, *shape)).astype(np.float32)


def scores_tensor(model: onnx.ModelProto) -> str:
    """Name of the tensor that the graph's last operators only rank."""
    ranking = [n for n in model.graph.node if n.op_type in ("Softmax", "ArgMax", "TopK")]
    return ranking[0].input[0] if ranking else model.graph.output[0].name


def assert_same(model: onnx.ModelProto, network: Network, x: np.ndarray) -> None:
    expected = evaluate(model, x, scores_tensor(model))
    got = reference_logits(network, x)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


forms = st.builds(Form, **{key: st.sampled_from(values) for key, values in FORMS.items()})
frame_shapes = st.sampled_from([(), (1, 2, 3), (2, 3, 1), (6, 1, 1), (1, 6)])


@settings(max_examples=200)
@given(
    form=forms,
    frame=frame_shapes,
    hidden=st.lists(st.integers(1, 9), max_size=2),
    classes=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_form_means_what_qonnx_executes(form, frame, hidden, classes, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    model = mlp(rng, [6, *hidden, classes], form, frame)
    network = load(saved(model, tmp_path_factory.mktemp("forms")))
    assert len(network.layers()) == len(hidden) + 1
    assert network.input_shape == (frame or (6,))
    assert_same(model, network, frames(rng, 3, network.input_shape))


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in FORMS.items() for value in values]
)
def test_each_form_is_accepted(key, value, tmp_path):
    rng = np.random.default_rng(5)
    model = mlp(rng, [12, 7, 3], Form(**{key: value}), (1, 3, 4))
    assert_same(model, load(saved(model, tmp_path)), frames(rng, 3, (1, 3, 4)))


@pytest.mark.parametrize(
    "form",
    [
        Form(batch=3),
        Form(batch=3, domain="onnx.brevitas", opset=9, weights="plain", layer="MatMul"),
        Form(batch=3, weights="int8", scale=0.1, weights_first=True, shared=True, named=False),
    ],
)
def test_qonnx_executor_agrees(form, tmp_path):
    rng = np.random.default_rng(6)
    model = mlp(rng, [12, 7, 3], form)
    x = frames(rng, 3, (12,))
    network = load(saved(model, tmp_path))
    np.testing.assert_allclose(reference_logits(network, x), execute(model, x), rtol=1e-4)


@given(
    widths=st.lists(st.integers(1, 8), min_size=2, max_size=4),
    preprocess=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_networks_survive_a_round_trip_exactly(widths, preprocess, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    network = random_network(rng, widths, preprocess=preprocess)
    loaded = load(saved(to_qonnx(network, "N"), tmp_path_factory.mktemp("trip")))
    for ours, theirs in zip(network.layers(), loaded.layers(), strict=True):
        np.testing.assert_array_equal(ours.weights, theirs.weights)
    x = random_frames(rng, network, 16)
    np.testing.assert_array_equal(reference_logits(loaded, x), reference_logits(network, x))


@pytest.mark.parametrize("name", ["mnist_mini", "mnist_sfc"])
def test_shipped_models_classify_as_onnxruntime_does(name):
    path = Path(str(resources.files("xnorflow.models") / f"{name}.onnx"))
    network, x = load(path), sample_digits().x[:200].astype(np.float32)
    assert network.name == name
    x = x.reshape(-1, *network.input_shape)
    expected = evaluate(onnx.load(path), x).argmax(axis=1)
    np.testing.assert_array_equal(reference_logits(network, x).argmax(axis=1), expected)


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_brevitas_exports_give_the_logits_of_brevitas(exporter):
    network = load(DATA / f"brevitas_mlp_{exporter}.onnx")
    assert [layer.name for layer in network.layers()] == ["fc1", "fc2", "fc3"]
    assert network.input_shape == (1, 6, 6)
    expected = np.load(DATA / "brevitas_mlp.npz")
    x = (expected["eighths"] / 8).astype(np.float32)
    np.testing.assert_allclose(reference_logits(network, x), expected["logits"], atol=1e-6)
    lowered = golden.predict(lower(network), x)
    np.testing.assert_allclose(lowered.logits, expected["logits"], atol=1e-6)
    np.testing.assert_array_equal(lowered.classes, expected["logits"].argmax(axis=1))


WEIGHTS = np.array([[1, -1, 1, 1, -1, 1], [-1, -1, 1, -1, 1, 1]], np.float32)


def layer_graph(x: str | None = None, **attributes) -> tuple[Graphs, str]:
    """Begin a graph that is only a quantizer, whose output is returned too."""
    graph = Graphs(**attributes)
    return graph, graph.bipolar(x or "x")


def ops_of(graph: Graphs, folder: Path, *outputs: str) -> tuple[Op, ...]:
    return load(graph.save(folder, *outputs)).ops


def affine_of(op: Op) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    assert isinstance(op, Affine)
    return op.scale, op.offset


@pytest.mark.parametrize(
    ("kind", "first", "scale", "offset"),
    [
        ("Add", True, 1, Fraction(3602879701896397, 2**55)),
        ("Sub", True, 1, -Fraction(3602879701896397, 2**55)),
        ("Sub", False, -1, Fraction(3602879701896397, 2**55)),
        ("Mul", False, Fraction(3602879701896397, 2**55), 0),
        ("Div", True, 1 / Fraction(3602879701896397, 2**55), 0),
    ],
)
def test_arithmetic_is_the_exact_stored_number(kind, first, scale, offset, tmp_path):
    graph = Graphs(kind=TensorProto.DOUBLE)
    constant = graph.constant(0.1, np.float64)
    x = graph.node(kind, *(("x", constant) if first else (constant, "x")))
    graph.node("MatMul", graph.bipolar(x), graph.constant(WEIGHTS.T))
    assert affine_of(ops_of(graph, tmp_path)[0]) == ((Fraction(scale),), (Fraction(offset),))


def test_float32_parameters_keep_their_float32_value(tmp_path):
    graph = Graphs()
    x = graph.node("Mul", "x", graph.constant(0.1))
    graph.node("MatMul", graph.bipolar(x), graph.constant(WEIGHTS.T))
    assert affine_of(ops_of(graph, tmp_path)[0])[0] == (Fraction(float(np.float32(0.1))),)


def test_quantizer_scale_becomes_an_affine_behind_the_sign(tmp_path):
    graph = Graphs()
    x = graph.bipolar("x", [0.5, 1, 2, 0.25, 4, 8])
    graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    sign, affine, dense = ops_of(graph, tmp_path)
    assert isinstance(sign, Sign)
    assert affine_of(affine)[0] == tuple(map(Fraction, (0.5, 1, 2, 0.25, 4, 8)))
    assert isinstance(dense, Dense)


def test_latent_weights_of_zero_are_plus_one(tmp_path):
    graph, x = layer_graph()
    latent = np.array([[0.0, -0.0, 1e-30, -1e-30, 5, -5]], np.float32)
    graph.node("Gemm", x, graph.bipolar(graph.constant(latent)), transB=1)
    (layer,) = load(graph.save(tmp_path)).layers()
    np.testing.assert_array_equal(layer.weights, [[1, 1, 1, -1, 1, -1]])


@pytest.mark.parametrize(
    ("magnitudes", "scale"), [([3, 3], (3,)), ([3, 0.5], (3, 0.5)), ([0, 2], (0, 2))]
)
def test_magnitudes_of_weights_become_an_affine(magnitudes, scale, tmp_path):
    graph, x = layer_graph()
    graph.node("MatMul", x, graph.constant(WEIGHTS.T * magnitudes))
    _, dense, affine = ops_of(graph, tmp_path)
    assert isinstance(dense, Dense)
    assert np.array_equal(dense.weights[1], WEIGHTS[1])
    assert affine_of(affine) == (tuple(map(Fraction, scale)), (Fraction(0),))


def test_a_neuron_of_zero_weights_is_noted(tmp_path):
    graph, x = layer_graph()
    graph.node("MatMul", x, graph.constant(WEIGHTS.T * [0, 1]), name="last")
    (note,) = load(graph.save(tmp_path)).notes
    assert "'last' (MatMul)" in note
    assert "1 of 2 neurons" in note


def test_gemm_alpha_beta_and_bias_are_exact(tmp_path):
    graph, x = layer_graph()
    bias = graph.constant([[0.5, -3]])
    graph.node("Gemm", x, graph.constant(WEIGHTS * 2), bias, transB=1, alpha=0.75, beta=-2.0)
    _, _, gain, offset = ops_of(graph, tmp_path)
    assert affine_of(gain) == ((Fraction(3, 2),), (Fraction(0),))
    assert affine_of(offset) == ((Fraction(1),), (Fraction(-1), Fraction(6)))


@pytest.mark.parametrize(
    "parameter", [(3, 1, 1), (1, 3, 1, 1), (4,), (2, 1), (1, 2, 4), (3, 2, 4), (1, 1, 1, 1)]
)
def test_parameters_broadcast_over_frames_as_in_onnx(parameter, tmp_path):
    rng = np.random.default_rng(1)
    graph = Graphs(("N", 3, 2, 4))
    x = graph.node("Sub", "x", graph.constant(rng.random(parameter)))
    norm = [graph.constant(values) for values in rng.random((4, 3))]
    x = graph.node("BatchNormalization", x, *norm)
    x = graph.node("Mul", x, graph.constant(rng.normal(0, 1, parameter)))
    x = graph.node("Flatten", graph.bipolar(x))
    graph.node("MatMul", x, graph.constant(rng.choice([-1, 1], (24, 5))))
    network = load(graph.save(tmp_path))
    assert_same(graph.model(), network, frames(rng, 20, (3, 2, 4)))
    assert sum(isinstance(op, Flatten) for op in network.ops) == 1


RESHAPES = {
    "no change": lambda g, x: g.node("Reshape", x, g.constant([0, 1, 2, 3], np.int64)),
    "free batch": lambda g, x: g.node("Reshape", x, g.constant([-1, 6], np.int64)),
    "batch of one": lambda g, x: g.node("Reshape", x, g.constant([1, -1], np.int64)),
    "there and back": lambda g, x: g.node(
        "Flatten", g.node("Reshape", x, g.constant([0, 3, 2], np.int64))
    ),
    "part of a shape": lambda g, x: g.node(
        "Reshape",
        x,
        g.node("Concat", g.node("Shape", x, end=1), g.constant([-1], np.int64), axis=0),
    ),
    "shape of a constant": lambda g, x: g.node(
        "Reshape", x, g.node("Shape", g.constant(np.zeros((1, 6))))
    ),
    "flatten axis": lambda g, x: g.node("Flatten", x, axis=-2),
    "moved ones": lambda g, x: g.node("Transpose", x, perm=[0, 2, 1, 3]),
    "more ones": lambda g, x: g.node("Unsqueeze", x, g.constant([1, -1], np.int64)),
    "squeezed": lambda g, x: g.node("Squeeze", x, g.constant([-3], np.int64)),
    "identity": lambda g, x: g.node("Dropout", g.node("Identity", x)),
}


@pytest.mark.parametrize("change", RESHAPES)
def test_frames_may_be_reshaped_whole(change, tmp_path):
    graph = Graphs(("N", 1, 2, 3), opset=15)
    x = graph.node("Flatten", RESHAPES[change](graph, graph.bipolar("x")), axis=1)
    graph.node("Gemm", x, graph.constant(WEIGHTS), transB=1)
    rng = np.random.default_rng(2)
    count = 1 if change in ("batch of one", "shape of a constant") else 7
    assert_same(graph.model(), load(graph.save(tmp_path)), frames(rng, count, (1, 2, 3)))


def test_reshape_that_changes_nothing_leaves_nothing(tmp_path):
    graph = Graphs(("N", 1, 6))
    x = graph.node("Reshape", "x", graph.constant([0, 1, 6], np.int64))
    x = graph.node("Mul", x, graph.constant([1, 2, 3, 4, 5, 6]))
    graph.node("MatMul", graph.bipolar(x), graph.constant(WEIGHTS.T))
    kinds = [type(op) for op in ops_of(graph, tmp_path)]
    assert kinds == [Affine, Sign, Flatten, Dense]


def test_matmul_takes_rows_of_one(tmp_path):
    graph, x = layer_graph(shape=("N", 1, 6))
    graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    network = load(graph.save(tmp_path))
    assert network.input_shape == (1, 6)
    x = frames(np.random.default_rng(3), 4, (1, 6))
    np.testing.assert_array_equal(
        reference_logits(network, x), evaluate(graph.model(), x).reshape(4, 2)
    )


@pytest.mark.parametrize("batch", [None, "batch", 0, 1, 64])
def test_batch_is_left_out_of_the_input_shape(batch, tmp_path):
    graph, x = layer_graph(shape=(batch, 6))
    graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    assert load(graph.save(tmp_path)).input_shape == (6,)


def test_network_is_named_after_the_file(tmp_path):
    graph, x = layer_graph()
    graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    assert load(str(graph.save(tmp_path, name="tiny.v2.onnx"))).name == "tiny.v2"


@pytest.mark.parametrize(("name", "layer"), [("hidden.0", "hidden_0"), ("", "fc1"), (None, "fc1")])
def test_layer_is_named_after_a_node_that_has_a_name(name, layer, tmp_path):
    graph, x = layer_graph()
    graph.node("MatMul", x, graph.constant(WEIGHTS.T), name=name)
    assert load(graph.save(tmp_path)).layers()[0].name == layer


def test_order_of_nodes_in_the_file_does_not_matter(tmp_path):
    graph, x = layer_graph()
    graph.node("MatMul", x, graph.bipolar(graph.constant(WEIGHTS.T)))
    model = graph.model()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert len(load(saved(model, tmp_path)).layers()) == 1


def test_initializers_may_be_listed_as_inputs(tmp_path):
    graph, x = layer_graph()
    graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    model = graph.model()
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.ValueInfoProto(name=tensor.name))
    assert len(load(saved(model, tmp_path)).layers()) == 1


def test_nodes_that_no_output_needs_are_noted(tmp_path):
    graph, x = layer_graph()
    graph.node("Relu", x, name="probe")
    last = graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    assert any("'probe'" in note for note in load(graph.save(tmp_path, last)).notes)


@pytest.mark.parametrize("attribute", ["value_float", "value_floats", "value"])
def test_constant_nodes_are_parameters(attribute, tmp_path):
    values = {
        "value_float": 0.5,
        "value_floats": [0.5],
        "value": numpy_helper.from_array(np.float32(0.5)),
    }
    graph = Graphs()
    x = graph.node("Mul", graph.node("Constant", **{attribute: values[attribute]}), "x")
    graph.node("MatMul", graph.bipolar(x), graph.constant(WEIGHTS.T))
    assert affine_of(ops_of(graph, tmp_path)[0])[0] == (Fraction(1, 2),)


def test_constants_may_be_computed_as_the_runtime_does(tmp_path):
    graph, x = layer_graph()
    x = graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    var = graph.node("Add", graph.constant(2), graph.constant(1e-5))
    graph.node("Div", x, graph.node("Sqrt", var))
    root = np.sqrt(np.float32(2) + np.float32(1e-5))
    assert affine_of(ops_of(graph, tmp_path)[-1])[0] == (1 / Fraction(float(root)),)


def test_external_weights_are_read_from_beside_the_model(tmp_path):
    graph, x = layer_graph()
    graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    path = tmp_path / "net.onnx"
    onnx.save(graph.model(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").exists()
    np.testing.assert_array_equal(load(path).layers()[0].weights, WEIGHTS)


@pytest.mark.parametrize("tail", ["Softmax", "LogSoftmax", "ArgMax", "TopK"])
def test_dropped_ends_are_noted(tail, tmp_path):
    graph, x = layer_graph()
    x = graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    if tail == "TopK":
        x = graph.node(tail, x, graph.constant([1], np.int64), outputs=2, name="end")
        outputs: tuple[str, ...] = (x, x + "_")
    else:
        x = graph.node(tail, x, axis=1, name="end")
        outputs = (graph.node("Identity", x),)
    network = load(graph.save(tmp_path, *outputs))
    assert isinstance(network.ops[-1], Dense)
    assert network.notes == (
        f"node 'end' ({tail}): dropped, because "
        + (
            "it does not change which class is largest."
            if "Softmax" in tail
            else "the class is taken from the scores anyway."
        ),
    )


def test_a_class_behind_softmax_may_be_taken_too(tmp_path):
    graph, x = layer_graph()
    x = graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    x = graph.node("ArgMax", graph.node("Softmax", x), axis=-1, keepdims=1)
    graph.node("Squeeze", x, graph.constant([1], np.int64))
    assert len(load(graph.save(tmp_path)).notes) == 2


def test_onnx_sign_is_accepted_where_its_input_is_never_zero(tmp_path):
    graph = Graphs(kind=TensorProto.UINT8)
    x = graph.node("Sub", graph.node("Cast", "x", to=TensorProto.FLOAT), graph.constant(127.5))
    x = graph.node("MatMul", graph.node("Sign", x), graph.constant(WEIGHTS[:, :5].T))
    graph.inputs[0].type.tensor_type.shape.dim[1].dim_value = 5
    x = graph.node("MatMul", graph.node("Sign", x), graph.constant(WEIGHTS[:, :2].T))
    network = load(graph.save(tmp_path))
    assert [isinstance(op, Sign) for op in network.ops] == [False, True, False, True, False]
    assert len(network.notes) == 2
    x = np.random.default_rng(4).integers(0, 256, (50, 5)).astype(np.uint8)
    np.testing.assert_array_equal(reference_logits(network, x), evaluate(graph.model(), x))


@pytest.mark.parametrize(("bias", "accepted"), [(5, True), (6, False), (-6, False), (8, True)])
def test_a_bias_may_keep_the_sums_off_zero(bias, accepted, tmp_path):
    graph, x = layer_graph()
    x = graph.node("MatMul", x, graph.constant(WEIGHTS.T))
    x = graph.node("Sign", graph.node("Add", x, graph.constant([bias, 1])))
    graph.node("MatMul", x, graph.constant(WEIGHTS[:, :2].T))
    path = graph.save(tmp_path)
    if accepted:
        assert len(load(path).layers()) == 2
    else:
        with pytest.raises(UserError, match="gives 0 where its input is 0"):
            load(path)


@pytest.mark.parametrize(
    ("scale", "offset", "accepted"),
    [
        (0.5, 0, True),
        (-2, 0, True),
        ([2, 2, 2], 0, True),
        ([1, 1, 2], 0, False),
        (1, 1 / 3, True),
        (1, 1, False),
        (1, [0, 0, 1 / 3], False),
    ],
)
def test_what_lies_before_a_layer_may_bring_its_sums_to_zero(scale, offset, accepted, tmp_path):
    graph = Graphs(("N", 3))
    x = graph.node("Mul", graph.bipolar("x"), graph.constant(scale))
    x = graph.node("Add", x, graph.constant(offset))
    x = graph.node("Sign", graph.node("MatMul", x, graph.constant(WEIGHTS[:, :3].T)))
    graph.node("MatMul", x, graph.constant(WEIGHTS[:, :2].T))
    path = graph.save(tmp_path)
    if accepted:
        assert len(load(path).layers()) == 2
    else:
        with pytest.raises(UserError, match="gives 0 where its input is 0"):
            load(path)


small = st.integers(-6, 6).map(lambda n: Fraction(n, 2))


@given(
    start=st.integers(-7, 0),
    step=st.integers(1, 2),
    affines=st.lists(st.tuples(small, small), max_size=2),
    norm=st.none() | st.tuples(small, small, small, st.sampled_from([0.25, 1, 2, 4])),
)
def test_zero_is_found_reachable_exactly_where_it_is(start, step, affines, norm):
    values = range(start, -start + 1, step)
    maps: list[Affine | BatchNorm] = [Affine("", (s,), (o,)) for s, o in affines]
    outputs = [Fraction(v) for v in values]
    for scale, offset in affines:
        outputs = [scale * v + offset for v in outputs]
    if norm is None:
        reached = 0 in outputs
    else:
        gamma, beta, mean, var = (np.array([float(v)]) for v in norm)
        maps.append(BatchNorm("", gamma, beta, mean, var, 0.0))
        # gamma * (v - mean) = -beta * sqrt(var), compared by sign and square.
        left = [norm[0] * (v - norm[2]) for v in outputs]
        square = norm[1] ** 2 * Fraction(norm[3])
        reached = any(v * v == square and v * norm[1] <= 0 for v in left)
    assert zero_is_reachable(values, maps) == reached


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        (["fc0", "fc1"], ["fc0", "fc1"]),
        (["/fc1/Gemm", "/features.3/MatMul"], ["fc1", "features_3"]),
        (["Gemm_4", "MatMul", "node_linear_1", ""], ["fc1", "fc2", "fc3", "fc4"]),
        (["t7", "12", "t7"], ["fc1", "fc2", "fc3"]),
        (["linear", "linear_out"], ["fc1", "linear_out"]),
        (["fc2", "/Gemm"], ["fc2", "fc2_"]),
        (["größe", "a" * 41, "a b"], ["gr_e", "fc2", "a_b"]),
    ],
)
def test_layer_names_are_readable_and_unique(nodes, names):
    assert layer_names(nodes, ["fc"] * len(nodes)) == names


def test_convolutions_are_named_after_their_kind():
    nodes = ["conv0", "/features/3/Conv", "Conv_12", "node_conv2d_1", "fc0"]
    stems = ["conv"] * 4 + ["fc"]
    assert layer_names(nodes, stems) == ["conv0", "features_3", "conv3", "conv4", "fc0"]
