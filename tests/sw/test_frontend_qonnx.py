"""QONNX as Brevitas and FINN write it means what QONNX's executor computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from qonnx_graphs import Graphs, evaluate, execute

from xnorflow.errors import UserError
from xnorflow.frontend import load
from xnorflow.golden import predict
from xnorflow.lowering import lower
from xnorflow.network import Network

FRAMES = 200
INF = float("inf")


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def signs(seed: int, *shape: int) -> np.ndarray:
    return draw(seed).choice([-1.0, 1.0], shape)


def frames(shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/8, so that many lie on the thresholds of the tests."""
    return (draw(1).integers(-16, 17, (FRAMES, *shape)) / 8).astype(np.float32)


def same_as_qonnx(graph: Graphs, folder: Path, shape: tuple[int, ...]) -> Network:
    """Import a graph and check its logits against QONNX's executor; return the network."""
    network = load(graph.save(folder))
    x = frames(shape)
    expected = execute(graph.model(), x)
    images = len(network.input_shape) == 3 and network.input_shape != shape
    got = predict(lower(network), np.moveaxis(x, 1, -1) if images else x)
    np.testing.assert_allclose(got.logits, expected.reshape(FRAMES, -1), rtol=1e-5, atol=1e-5)
    return network


def refusal(graph: Graphs, folder: Path) -> str:
    with pytest.raises(UserError) as info:
        load(graph.save(folder))
    return str(info.value)


class TestQuantOfOneBit:
    @staticmethod
    def graph(x: str = "x", **how) -> tuple[Graphs, str]:
        graph = Graphs(("N", 6), **how)
        return graph, graph.node("Gemm", graph.bipolar("x"), graph.constant(signs(2, 6, 5)))

    @pytest.mark.parametrize("kind", ["Quant", "IntQuant"])
    @pytest.mark.parametrize("narrow", [0, 1])
    @pytest.mark.parametrize("scale", [1, 0.5, 0.3])
    def test_signed_is_bipolar(self, kind, narrow, scale, tmp_path):
        graph, sums = self.graph()
        parameters = map(graph.constant, (scale, 0, 1))
        x = graph.node(kind, sums, *parameters, signed=1, narrow=narrow, rounding_mode="ROUND")
        graph.node("MatMul", x, graph.constant(signs(3, 5, 4)))
        same_as_qonnx(graph, tmp_path, (6,))

    @pytest.mark.parametrize("zero_point", [0.5, -2, 4])
    @pytest.mark.parametrize("signed", [0, 1])
    def test_zero_point_moves_threshold_and_values(self, zero_point, signed, tmp_path):
        graph, sums = self.graph()
        x = graph.quant(sums, 0.5, zero_point, 1, signed=signed)
        graph.node("MatMul", x, graph.constant(signs(4, 5, 4)))
        same_as_qonnx(graph, tmp_path, (6,))

    @pytest.mark.parametrize(
        "mode", ["ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]
    )
    @pytest.mark.parametrize("scale", [4, 2, 0.75])
    def test_unsigned_is_zero_and_one_by_each_rounding(self, mode, scale, tmp_path):
        graph, sums = self.graph()
        x = graph.quant(sums, scale, 0, 1, signed=0, rounding_mode=mode)
        graph.node("MatMul", x, graph.constant(signs(5, 5, 4)))
        same_as_qonnx(graph, tmp_path, (6,))

    @pytest.mark.parametrize("signed", [0, 1])
    def test_frame(self, signed, tmp_path):
        graph = Graphs(("N", 6))
        x = graph.quant("x", 0.25, 0, 1, signed=signed)
        graph.node("MatMul", x, graph.constant(signs(6, 6, 4)))
        same_as_qonnx(graph, tmp_path, (6,))

    @pytest.mark.parametrize("signed", [0, 1])
    def test_scale_per_channel(self, signed, tmp_path):
        graph = Graphs(("N", 2, 4, 5))
        x = graph.node("Conv", graph.bipolar("x"), graph.constant(signs(7, 3, 2, 2, 2)))
        # A scale per channel has to be one for the next layer, so the rest is behind the last.
        x = graph.quant(x, [[[[2]], [[2]], [[2]]]], 0, 1, signed=signed)
        x = graph.node("Conv", x, graph.constant(signs(8, 4, 3, 3, 4)))
        graph.node("Flatten", x)
        same_as_qonnx(graph, tmp_path, (2, 4, 5))

    def test_relu_before_an_unsigned_one_is_dropped(self, tmp_path):
        """As Brevitas exports QuantReLU of one bit."""
        graph, sums = self.graph()
        x = graph.quant(graph.node("Relu", sums), 2, 0, 1, signed=0)
        graph.node("MatMul", x, graph.constant(signs(5, 5, 4)))
        network = same_as_qonnx(graph, tmp_path, (6,))
        assert any("(Relu): dropped" in note for note in network.notes)

    @pytest.mark.parametrize("scale", [0.5, [[0.5], [1], [2], [0.25]]])
    def test_weights(self, scale, tmp_path):
        graph = Graphs(("N", 6))
        latent = draw(9).normal(0, 1, (4, 6))
        latent[0, 0] = 0
        weights = graph.quant(graph.constant(latent), scale, 0, 1, narrow=1)
        graph.node("Gemm", graph.bipolar("x"), weights, transB=1)
        network = same_as_qonnx(graph, tmp_path, (6,))
        assert network.layers()[0].weights[0, 0] == 1


def thresholds(graph: Graphs, x: str, matrix: object, **attributes: object) -> str:
    domain = attributes.pop("domain", "qonnx.custom_op.general")
    return graph.node("MultiThreshold", x, graph.constant(matrix), domain=domain, **attributes)


BIPOLAR = {"out_dtype": "BIPOLAR", "out_scale": 2.0, "out_bias": -1.0}


class TestMultiThreshold:
    @staticmethod
    def perceptron(matrix: object, **attributes: object) -> Graphs:
        graph = Graphs(("N", 6))
        x = thresholds(graph, "x", [[0.25]], **BIPOLAR)
        x = graph.node("MatMul", x, graph.constant(signs(10, 6, 5)))
        x = thresholds(graph, x, matrix, **attributes)
        graph.node("MatMul", x, graph.constant(signs(11, 5, 4)))
        return graph

    @pytest.mark.parametrize(
        "matrix", [[[0]], [[2.0]], [[-2], [0], [2], [0.5], [4]], [[-99], [99], [0], [0], [0]]]
    )
    @pytest.mark.parametrize(
        "output",
        [BIPOLAR, {"out_dtype": "BINARY"}, {"out_dtype": "UINT1"}, {**BIPOLAR, "out_scale": -2.0}],
    )
    def test_one_threshold(self, matrix, output, tmp_path):
        same_as_qonnx(self.perceptron(matrix, **output), tmp_path, (6,))

    @pytest.mark.parametrize("domain", ["qonnx.custom_op.general", "finn.custom_op.general"])
    def test_domains_mean_the_same(self, domain, tmp_path):
        graph = Graphs(("N", 6))
        x = thresholds(graph, "x", [[0.5]], domain=domain, **BIPOLAR)
        graph.node("MatMul", x, graph.constant(signs(10, 6, 5)))
        (sign, *_) = [op for op in load(graph.save(tmp_path)).ops if hasattr(op, "scale")]
        assert sign.offset == (-0.5,)

    @pytest.mark.parametrize("layout", ["NCHW", "NHWC", ""])
    def test_images(self, layout, tmp_path):
        graph = Graphs(("N", 2, 4, 5))
        x = graph.node("Conv", graph.bipolar("x"), graph.constant(signs(12, 3, 2, 2, 2)))
        matrix = [[-2], [0], [2]]
        if layout == "NHWC":
            x = graph.node("Transpose", x, perm=[0, 2, 3, 1])
            x = thresholds(graph, x, matrix, data_layout=layout, **BIPOLAR)
            x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
        else:
            options = {"data_layout": layout} if layout else {}
            x = thresholds(graph, x, matrix, **options, **BIPOLAR)
        x = graph.node("Conv", x, graph.constant(signs(13, 4, 3, 3, 4)))
        graph.node("Flatten", x)
        same_as_qonnx(graph, tmp_path, (2, 4, 5))

    @pytest.mark.parametrize(
        "matrix", [[[0, 0]], [[-INF, 2, INF]], [[-INF, -2, -2], [0, 0, 0], *[[1, 1, 1]] * 3]]
    )
    def test_columns_that_add_no_level(self, matrix, tmp_path):
        graph = self.perceptron(matrix, out_dtype="UINT2", out_scale=0.5, out_bias=-0.25)
        if len(matrix) == 1:
            same_as_qonnx(graph, tmp_path, (6,))
        else:
            # Bits of another size for each channel suit no layer.
            with pytest.raises(UserError, match="magnitude"):
                lower(load(graph.save(tmp_path)))

    @pytest.mark.parametrize(
        ("matrix", "fault"),
        [
            ([0.0], "has thresholds of shape (1,)"),
            (np.zeros((0, 1)), "has thresholds of shape (0, 1)"),
            ([[float("nan")]], "has thresholds that are NaN"),
            ([[0], [1]], "has parameters of shape (1, 2) for frames of shape (5,)"),
        ],
    )
    def test_other_thresholds_are_refused(self, matrix, fault, tmp_path):
        assert fault in refusal(self.perceptron(matrix, **BIPOLAR), tmp_path)

    def test_layout_of_another_rank_is_refused(self, tmp_path):
        graph = self.perceptron([[0]], data_layout="NHWC", **BIPOLAR)
        assert "has data_layout NHWC for 2 dimensions" in refusal(graph, tmp_path)


class TestXnorPopcountMatMul:
    @staticmethod
    def graph(sign: dict, weights: object) -> Graphs:
        graph = Graphs(("N", 6))
        x = thresholds(graph, "x", [[0.25]], **sign)
        domain = "qonnx.custom_op.general"
        x = graph.node("XnorPopcountMatMul", x, graph.constant(weights), domain=domain)
        x = thresholds(graph, x, [[2], [3], [4], [3], [3]], **sign)
        bits = signs(14, 5, 4) > 0
        graph.node("XnorPopcountMatMul", x, graph.constant(bits), domain=domain, name="last")
        return graph

    def test_counts_equal_bits(self, tmp_path):
        graph = self.graph({"out_dtype": "BINARY"}, signs(15, 6, 5) > 0)
        network = same_as_qonnx(graph, tmp_path, (6,))
        assert [layer.name for layer in network.layers()][1] == "last"

    def test_takes_bits_only(self, tmp_path):
        message = refusal(self.graph(BIPOLAR, signs(15, 6, 5) > 0), tmp_path)
        assert "takes data that are not bits of 0 and 1" in message

    def test_takes_weights_of_bits_only(self, tmp_path):
        message = refusal(self.graph({"out_dtype": "BINARY"}, signs(15, 6, 5)), tmp_path)
        assert "has weights other than 0 and 1" in message


class TestFormsInUse:
    """Forms of the operators around the layers that files in the wild take."""

    @staticmethod
    def agrees(graph: Graphs, folder: Path, shape: tuple[int, ...]) -> Network:
        network = load(graph.save(folder))
        x = draw(20).normal(0, 1, (FRAMES, *shape)).astype(np.float32)
        expected = evaluate(graph.model(), x).reshape(FRAMES, -1)
        images = len(network.input_shape) == 3 and network.input_shape != shape
        got = predict(lower(network), np.moveaxis(x, 1, -1) if images else x)
        np.testing.assert_allclose(got.logits, expected, rtol=1e-4, atol=1e-4)
        return network

    @pytest.mark.parametrize("opset", [9, 11, 13, 17])
    def test_batch_norm_of_vectors_between_unsqueeze_and_squeeze(self, opset, tmp_path):
        graph = Graphs(("N", 6), opset=opset)
        x = graph.node("MatMul", graph.bipolar("x"), graph.constant(signs(16, 6, 5)))
        axes = graph.constant([2], np.int64)
        x = graph.node("Unsqueeze", x, axes) if opset > 12 else graph.node("Unsqueeze", x, axes=[2])
        rng = draw(17)
        parameters = [*rng.normal(0, 1, (3, 5)), rng.uniform(0.5, 2, 5)]
        x = graph.node("BatchNormalization", x, *map(graph.constant, parameters))
        x = graph.node("Squeeze", x, axes) if opset > 12 else graph.node("Squeeze", x, axes=[2])
        graph.node("MatMul", graph.bipolar(x), graph.constant(signs(18, 5, 4)))
        self.agrees(graph, tmp_path, (6,))

    @pytest.mark.parametrize("chain", ["Gather", "Slice", "Cast", "product", "constant -1"])
    def test_shape_arithmetic(self, chain, tmp_path):
        graph = Graphs(("N", 2, 3, 4), opset=13)
        x = graph.bipolar("x")
        ints = np.int64
        sizes = graph.node("Shape", x)
        batch = graph.node("Gather", sizes, graph.constant(0, ints), axis=0)
        rest = graph.constant([-1], ints)
        zero = graph.constant([0], ints)
        if chain == "Slice":
            one = graph.constant([1], ints)
            batch = graph.node("Squeeze", graph.node("Slice", sizes, zero, one), zero)
        elif chain == "Cast":
            batch = graph.node("Cast", batch, to=TensorProto.INT64)
        elif chain == "product":
            places = (graph.constant(i, ints) for i in (1, 2, 3))
            first, *others = (graph.node("Gather", sizes, place) for place in places)
            for other in others:
                first = graph.node("Mul", first, other)
            rest = graph.node("Unsqueeze", first, zero)
        first = graph.node("Unsqueeze", batch, zero) if chain != "constant -1" else rest
        last = rest if chain != "constant -1" else graph.constant([24], ints)
        target = graph.node("Concat", first, last, axis=0)
        x = graph.node("Reshape", x, target)
        graph.node("MatMul", x, graph.constant(signs(19, 24, 4)))
        self.agrees(graph, tmp_path, (2, 3, 4))

    @pytest.mark.parametrize("operator", ["Mul", "Add", "Div", "Sub"])
    def test_shapes_computed_with_a_free_batch_are_refused(self, operator, tmp_path):
        graph = Graphs(("N", 2, 3, 4))
        x = graph.bipolar("x")
        batch = graph.node("Gather", graph.node("Shape", x), graph.constant([0], np.int64))
        sizes = graph.node(operator, batch, graph.constant([2], np.int64), name="bad")
        sizes = graph.node("Concat", sizes, graph.constant([-1], np.int64), axis=0)
        graph.node("MatMul", graph.node("Reshape", x, sizes), graph.constant(signs(19, 12, 4)))
        assert f"'bad' ({operator}) computes with the batch size, which is free" in refusal(
            graph, tmp_path
        )

    @pytest.mark.parametrize("opset", [9, 13])
    def test_file_of_old_brevitas_and_finn(self, opset, tmp_path):
        """2x - 1 on the frame, weights (in, out), batch norm as Mul and Add, a trailing scale."""
        domain = "onnx.brevitas"
        graph = Graphs((1, 1, 4, 5), domain=domain, opset=opset)
        sizes = graph.node("Shape", "x")
        batch = graph.node("Gather", sizes, graph.constant(0, np.int64))
        if opset < 13:
            batch = graph.node("Unsqueeze", batch, axes=[0])
        else:
            batch = graph.node("Unsqueeze", batch, graph.constant([0], np.int64))
        target = graph.node("Concat", batch, graph.constant([-1], np.int64), axis=0)
        x = graph.node("Reshape", "x", target)
        x = graph.node("Sub", graph.node("Mul", x, graph.constant(2)), graph.constant(1))
        x = graph.bipolar(x)
        x = graph.node("MatMul", x, graph.constant(signs(21, 20, 7)))
        rng = draw(22)
        x = graph.node("Mul", x, graph.constant(rng.normal(0, 1, 7)))
        x = graph.node("Add", x, graph.constant(rng.normal(0, 1, 7)))
        x = graph.node("MatMul", graph.bipolar(x), graph.constant(0.5 * signs(23, 7, 4)))
        x = graph.node("Div", graph.node("Mul", x, graph.constant(0.3)), graph.constant(2))
        x = graph.node("Add", x, graph.constant(rng.normal(0, 1, 4)))
        graph.node("Sub", x, graph.constant(1))
        self.agrees(graph, tmp_path, (1, 4, 5))

    @pytest.mark.parametrize("trans_b", [0, 1])
    def test_one_initializer_of_weights_for_two_layers(self, trans_b, tmp_path):
        graph = Graphs(("N", 6))
        latent = graph.constant(draw(24).normal(0, 1, (6, 6)))
        scale, x = graph.constant(0.5), "x"
        for _ in range(2):
            weights = graph.node("BipolarQuant", latent, scale)
            bits = graph.node("BipolarQuant", x, scale)
            x = graph.node("Gemm", bits, weights, transB=trans_b)
        network = self.agrees(graph, tmp_path, (6,))
        first, second = network.layers()
        assert np.array_equal(first.weights, second.weights)

    def test_one_quantizer_of_weights_for_two_layers(self, tmp_path):
        graph = Graphs(("N", 6))
        weights = graph.bipolar(graph.constant(draw(25).normal(0, 1, (6, 6))))
        x = graph.node("MatMul", graph.bipolar("x"), weights)
        graph.node("MatMul", graph.bipolar(x), graph.node("Transpose", weights, perm=[1, 0]))
        first, second = self.agrees(graph, tmp_path, (6,)).layers()
        assert np.array_equal(first.weights, second.weights.T)
