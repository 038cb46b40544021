"""The reference executor computes what onnxruntime and QONNX's own executor compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from qonnx_graphs import CNN_FORMS, FORMS, CnnForm, Form, Graphs, cnn, evaluate, execute, mlp

from xnorflow.frontend.graph import Graph
from xnorflow.frontend.reader import graph_of
from xnorflow.reference import ReferenceFailed
from xnorflow.reference import execute as reference

ROUNDINGS = ["ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]


def read(model: onnx.ModelProto) -> Graph:
    return graph_of(model, "net.onnx")


def output(graph: Graph, x: np.ndarray, sign_zero: int | None = None) -> np.ndarray:
    (name,) = graph.outputs
    return reference(graph, x, [name], sign_zero)[name]


def eighths(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw multiples of 1/8, on which thresholds and halves lie."""
    return (rng.integers(-24, 25, shape) / 8).astype(np.float32)


def in_onnxruntime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray | None:
    """Return the output, or None where onnxruntime refuses the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return session.run(None, {"x": x})[0]
    except Exception:
        return None


class TestQonnx:
    @given(st.integers(0, 1 << 32))
    @settings(max_examples=60)
    def test_quant(self, seed):
        rng = np.random.default_rng(seed)
        graph = Graphs((2, 3, 4))
        signed, narrow = (int(n) for n in rng.integers(0, 2, 2))
        graph.quant(
            "x",
            rng.choice([0.125, 0.25, 0.5, 1], (3, 1) if seed % 2 else ()),
            rng.choice([0, 1, -2, 0.5]),
            float(rng.integers(1, 5)),
            signed=signed,
            narrow=narrow,
            rounding_mode=str(rng.choice(ROUNDINGS)),
        )
        x = eighths(rng, 2, 3, 4)
        np.testing.assert_array_equal(output(read(graph.model()), x), execute(graph.model(), x))

    def test_bipolar_quant(self):
        graph = Graphs((2, 3))
        graph.bipolar("x", [0.5, 1, 3])
        x = np.array([[0, -0.0, 1], [-1e-30, 2, -3]], np.float32)
        np.testing.assert_array_equal(output(read(graph.model()), x), [[0.5, 1, 3], [-0.5, 1, -3]])
        np.testing.assert_array_equal(output(read(graph.model()), x), execute(graph.model(), x))

    @pytest.mark.parametrize(
        ("shape", "layout"),
        [
            ((2, 5), ""),
            ((2, 5), "NC"),
            ((2, 3, 5), ""),
            ((2, 5, 3), "NCW"),
            ((2, 5, 3, 4), ""),
            ((2, 5, 3, 4), "NCHW"),
            ((2, 3, 4, 5), "NHWC"),
        ],
    )
    @pytest.mark.parametrize("rows", [1, 5])
    def test_multi_threshold(self, shape, layout, rows):
        rng = np.random.default_rng(len(shape) * rows)
        graph = Graphs(shape)
        thresholds = graph.constant(np.sort(eighths(rng, rows, 3), axis=1))
        options = {"data_layout": layout} if layout else {}
        graph.node(
            "MultiThreshold",
            "x",
            thresholds,
            domain=graph.domain,
            out_dtype="INT4",
            out_scale=0.5,
            out_bias=-0.75,
            **options,
        )
        x = eighths(rng, *shape)
        np.testing.assert_array_equal(output(read(graph.model()), x), execute(graph.model(), x))

    def test_xnor_popcount(self):
        graph = Graphs((2, 6))
        weights = np.random.default_rng(0).integers(0, 2, (6, 4))
        graph.node("XnorPopcountMatMul", "x", graph.constant(weights), domain=graph.domain)
        x = np.random.default_rng(1).integers(0, 2, (2, 6)).astype(np.float32)
        equal = (x[:, :, None] == weights).sum(axis=1)
        np.testing.assert_array_equal(output(read(graph.model()), x), equal)


class TestWindows:
    """Convolutions and pools are ours, see the module's docstring."""

    @given(st.integers(0, 1 << 32))
    @settings(max_examples=150)
    def test_agree_with_onnxruntime(self, seed):
        rng = np.random.default_rng(seed)
        kind = str(rng.choice(["Conv", "MaxPool", "AveragePool"]))
        channels, sizes = 2 * int(rng.integers(1, 3)), rng.integers(4, 9, 2).tolist()
        kernel = rng.integers(1, 4, 2).tolist()
        options = {"strides": rng.integers(1, 4, 2).tolist()}
        auto = str(rng.choice(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
        if auto == "NOTSET":
            options["pads"] = rng.integers(0, min(kernel), 4).tolist()
        else:
            options["auto_pad"] = auto
        graph = Graphs((2, channels, *sizes), opset=int(rng.choice([11, 13, 18])))
        constants = []
        if kind == "Conv":
            groups = int(rng.integers(1, 3))
            options["group"] = groups
            constants.append(graph.constant(eighths(rng, 4, channels // groups, *kernel)))
            if rng.integers(2):
                constants.append(graph.constant(eighths(rng, 4)))
        else:
            options["kernel_shape"] = kernel
        if kind == "AveragePool":
            options["count_include_pad"] = int(rng.integers(2))
        elif auto in ("NOTSET", "VALID"):
            options["dilations"] = [
                2 if 2 * k - 1 <= n and rng.integers(2) else 1
                for k, n in zip(kernel, sizes, strict=True)
            ]
        graph.node(kind, "x", *constants, **options)
        x = eighths(rng, 2, channels, *sizes)
        expected = in_onnxruntime(graph.model(), x)
        if expected is not None:
            np.testing.assert_allclose(output(read(graph.model()), x), expected, atol=1e-5)

    def test_a_last_window_beyond_the_image_is_not_computed(self):
        graph = Graphs((1, 1, 4, 4))
        graph.node("MaxPool", "x", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1)
        with pytest.raises(ReferenceFailed, match="beyond its image"):
            output(read(graph.model()), np.zeros((1, 1, 4, 4)))


@pytest.mark.parametrize("opset", [9, 13, 15])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_batch_norm_is_that_of_inference_in_every_operator_set(opset, shape):
    rng = np.random.default_rng(opset)
    graph = Graphs(shape, opset=opset)
    parameters = [*rng.normal(0, 1, (3, 3)), rng.uniform(0.5, 2, 3)]
    graph.node("BatchNormalization", "x", *map(graph.constant, parameters), epsilon=1e-3)
    x = eighths(rng, *shape)
    expected = in_onnxruntime(graph.model(), x)
    np.testing.assert_allclose(output(read(graph.model()), x), expected, atol=1e-5)


class TestForms:
    @given(st.integers(0, 1 << 32))
    @settings(max_examples=40)
    def test_perceptrons_agree_with_onnxruntime(self, seed):
        rng = np.random.default_rng(seed)
        form = Form(**{key: values[rng.integers(len(values))] for key, values in FORMS.items()})
        model = mlp(rng, [12, 7, 5], replace(form, end="scores"), (3, 4, 1))
        # No ties, at which float32 and float64 may go different ways.
        x = rng.normal(0, 1, (6, 3, 4, 1)).astype(np.float32)
        expected = evaluate(model, x)
        got = output(read(model), x)
        assert got.dtype == np.float64
        assert np.mean(np.abs(got - expected) > 1e-3) < 0.2

    @given(st.integers(0, 1 << 32))
    @settings(max_examples=30)
    def test_convolutional_ones_agree_with_onnxruntime(self, seed):
        rng = np.random.default_rng(seed)
        form = CnnForm(
            **{key: values[rng.integers(len(values))] for key, values in CNN_FORMS.items()}
        )
        form = replace(form, end="Gemm", padding="none", pool="max", stride=(1, 1), norm="scalar")
        model = cnn(rng, (9, 10, 2), form)
        shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])
        x = rng.integers(0, 256, (4, *shape)).astype(np.float32)
        np.testing.assert_allclose(output(read(model), x), evaluate(model, x), atol=1e-3)


class TestArithmetic:
    def test_of_constants_is_done_in_the_stored_type(self):
        graph = Graphs((1, 2))
        third = graph.node("Div", graph.constant([1.0]), graph.constant([3.0]))
        graph.node("Mul", "x", third)
        single = np.float64(np.float32(1) / np.float32(3))
        x = np.array([[3.0, 1.0]])
        np.testing.assert_array_equal(output(read(graph.model()), x), x * single)

    def test_of_data_is_done_in_float64(self):
        graph = Graphs((1, 2))
        x = graph.node("Cast", "x", to=TensorProto.FLOAT)
        graph.node("Div", x, graph.constant([3.0]))
        x = np.array([[1.0, 2.0]])
        np.testing.assert_array_equal(output(read(graph.model()), x), x / 3)

    def test_rounding_noise_of_weights_is_evened_out(self):
        graph = Graphs((1, 3))
        signs = np.array([[1, -1, 1], [-1, -1, 1]], np.float32)
        noisy = signs * np.float32(0.1)
        noisy[0, 1] = np.nextafter(noisy[0, 1], np.float32(0))
        graph.node("Gemm", "x", graph.constant(noisy), transB=1)
        got = output(read(graph.model()), np.ones((1, 3)))
        np.testing.assert_array_equal(got, signs.sum(axis=1)[None] * np.float64(np.float32(0.1)))

    @pytest.mark.parametrize(("zero", "expected"), [(None, 0), (1, 1), (-1, -1)])
    def test_sign_of_zero_is_what_the_user_says(self, zero, expected):
        graph = Graphs((1, 3))
        graph.node("Sign", "x")
        x = np.array([[-2.0, 0.0, 0.5]])
        np.testing.assert_array_equal(output(read(graph.model()), x, zero), [[-1, expected, 1]])


def test_initializers_may_be_arrays():
    graph = Graphs((1, 3))
    graph.node("Add", "x", graph.constant([1, 2, 3]))
    plain = read(graph.model())
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in plain.initializers.items()}
    x = np.ones((1, 3))
    np.testing.assert_array_equal(output(replace(plain, initializers=arrays), x), [[2, 3, 4]])


def test_frames_are_taken_as_the_graph_takes_them():
    graph = Graphs((2, 3))
    graph.node("Reshape", "x", graph.constant([2, 3], np.int64))
    x = np.arange(18.0).reshape(6, 3)
    np.testing.assert_array_equal(output(read(graph.model()), x), x)


def test_an_unknown_operator_is_told():
    graph = Graphs((1, 3))
    graph.node("Nonsense", "x")
    with pytest.raises(ReferenceFailed, match="Nonsense"):
        output(read(graph.model()), np.zeros((1, 3)))
