"""Every way in which exporters write a sign means what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from qonnx_graphs import Graphs, evaluate
from sign_idioms import (
    SIGNS,
    WEIGHTS,
    Drawn,
    Idiom,
    clip,
    convolutional,
    perceptron,
    with_weights,
)

from xnorflow.errors import UserError
from xnorflow.frontend import read
from xnorflow.frontend.constants import Constants
from xnorflow.frontend.graph import Node
from xnorflow.frontend.obstacles import ModelRefused
from xnorflow.frontend.options import ImportOptions
from xnorflow.frontend.reader import read_graph
from xnorflow.golden import predict
from xnorflow.lowering import lower
from xnorflow.network import Network

FRAMES = 200


def same_logits(graph: Graphs, folder: Path, shape: tuple[int, ...], **options) -> Network:
    """Import a graph and check it on frames against onnxruntime; return the network."""
    path = graph.save(folder)
    network = read(path, ImportOptions(**options)).network
    frames = np.random.default_rng(11).normal(0.1, 1, (FRAMES, *shape)).astype(np.float32)
    expected = evaluate(onnx.load(path), frames)
    images = len(network.input_shape) == 3 and network.input_shape != shape
    got = predict(lower(network), np.moveaxis(frames, 1, -1) if images else frames)
    np.testing.assert_allclose(got.logits, expected, rtol=1e-4, atol=1e-4)
    assert len(np.unique(expected.argmax(axis=1))) > 1
    return network


def refusal(graph: Graphs, folder: Path, **options) -> str:
    with pytest.raises(ModelRefused) as info:
        read(graph.save(folder), ImportOptions(**options))
    return str(info.value)


@pytest.mark.parametrize("idiom", SIGNS)
def test_perceptron(idiom, tmp_path):
    graph = Drawn(1)
    perceptron(graph, SIGNS[idiom])
    network = same_logits(graph, tmp_path, (12,))
    assert len(network.layers()) == 3


@pytest.mark.parametrize("idiom", SIGNS)
def test_convolutional_network(idiom, tmp_path):
    graph = Drawn(2, ("N", 2, 6, 8))
    convolutional(graph, SIGNS[idiom])
    same_logits(graph, tmp_path, (2, 6, 8))


@pytest.mark.parametrize("idiom", ["where", "detached clip", "where, ones_like"])
@pytest.mark.parametrize("batch", [1, FRAMES])
def test_batch_that_is_fixed(idiom, batch, tmp_path):
    graph = Drawn(3, (batch, 12))
    perceptron(graph, SIGNS[idiom])
    same_logits(graph, tmp_path, (12,))


def test_constants_as_large_as_the_batch(tmp_path):
    """As torch's newer exporter writes ones_like of a batch of fixed size."""

    def sign(g: Graphs, x: str) -> str:
        condition = g.node("GreaterOrEqual", x, g.constant(0))
        width = {"x": 12}.get(x) or (9 if len(g.nodes) < 8 else 7)
        ones = np.ones((FRAMES, width))
        return g.node("Where", condition, g.constant(ones), g.constant(-ones))

    graph = Drawn(3, (FRAMES, 12))
    perceptron(graph, sign)
    same_logits(graph, tmp_path, (12,))


def test_values_of_where_differ_between_channels(tmp_path):
    graph = Drawn(4)
    scale = graph.rng.integers(1, 9, 12) / 4
    condition = graph.node("Greater", "x", graph.constant(graph.rng.normal(0, 0.3, (1, 12))))
    x = graph.node("Where", condition, graph.constant(scale), graph.constant(0))
    graph.gemm(SIGNS["cast"](graph, graph.gemm(x, 12, 9)), 9, 4)
    with pytest.raises(UserError, match="magnitude"):
        lower(read(graph.save(tmp_path)).network)


@pytest.mark.parametrize("kind", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize("data_first", [True, False])
def test_comparisons_of_equal_numbers(kind, data_first, tmp_path):
    graph = Drawn(5)
    x = graph.node("Gemm", graph.bipolar("x"), graph.constant(graph.rng.choice([-1, 1], (12, 9))))
    # Sums of 12 bits are even, and many lie on these thresholds.
    thresholds = graph.constant(2.0 * graph.rng.integers(-2, 3, 9))
    bits = graph.node(kind, *((x, thresholds) if data_first else (thresholds, x)))
    graph.gemm(graph.node("Cast", bits, to=TensorProto.FLOAT), 9, 4)
    same_logits(graph, tmp_path, (12,))


def test_comparison_of_bytes_needs_no_cast(tmp_path):
    graph = Drawn(6, ("N", 12), kind=TensorProto.UINT8)
    bits = graph.node("Greater", "x", graph.constant(127, np.uint8))
    graph.gemm(graph.node("Cast", bits, to=TensorProto.FLOAT), 12, 4)
    network = read(graph.save(tmp_path)).network
    frames = np.random.default_rng(1).integers(120, 135, (FRAMES, 12), np.uint8)
    expected = evaluate(graph.model(), frames)
    np.testing.assert_allclose(predict(lower(network), frames).logits, expected, rtol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 2), (-1, 0), (-0.4, 0.6), (0.6, 1.6)])
def test_halves_are_rounded_to_even(low, high, tmp_path):
    graph = Drawn(5)
    x = graph.node("Gemm", graph.bipolar("x"), graph.constant(graph.rng.choice([-1, 1], (12, 9))))
    x = graph.node("Mul", x, graph.constant(0.25))
    x = graph.node("Round", clip(graph, x, low, high))
    graph.gemm(x, 9, 4)
    same_logits(graph, tmp_path, (12,))


@pytest.mark.parametrize(
    "between",
    [
        lambda g, x: clip(g, x, -1, 256),
        lambda g, x: g.node("Relu", x),
        lambda g, x: x,
        lambda g, x: g.node("Mul", clip(g, x, 0, 1), g.constant(range(1, 10))),
        lambda g, x: g.node("Tanh", x),
    ],
)
def test_rounding_to_integers_without_limits_is_refused(between, tmp_path):
    graph = Drawn(5)
    x = graph.node("Gemm", graph.bipolar("x"), graph.constant(graph.rng.choice([-1, 1], (12, 9))))
    graph.gemm(graph.node("Round", between(graph, x), name="bad"), 9, 4)
    assert "'bad' (Round) rounds to integers that no clip limits to 256" in refusal(graph, tmp_path)


class TestSignOfZero:
    """ONNX's Sign gives 0 for 0."""

    @staticmethod
    def even_sums(g: Graphs, sign: Idiom) -> None:
        rng = np.random.default_rng(7)
        x = g.node("Gemm", g.bipolar("x"), g.constant(rng.choice([-1, 1], (12, 9))))
        g.node("Gemm", sign(g, x), g.constant(rng.choice([-1, 1], (9, 4))))

    @staticmethod
    def plain(g: Graphs, x: str) -> str:
        return g.node("Sign", x, name="sign")

    def test_is_refused_where_it_can_occur_with_all_ways_out(self, tmp_path):
        graph = Graphs(("N", 12))
        self.even_sums(graph, self.plain)
        message = refusal(graph, tmp_path)
        assert "node 'sign' (Sign) gives 0 where its input is 0" in message
        assert "torch.where(x >= 0, 1.0, -1.0)" in message
        assert "--sign-zero +1" in message

    @pytest.mark.parametrize("zero", [1, -1])
    def test_is_what_the_option_says(self, zero, tmp_path):
        graph, plain = Graphs(("N", 12)), Graphs(("N", 12))
        self.even_sums(graph, self.plain)
        self.even_sums(plain, SIGNS["where, less" if zero == 1 else "where, expanded"])
        network = read(graph.save(tmp_path), ImportOptions(sign_zero=zero)).network
        frames = np.random.default_rng(8).normal(0, 1, (FRAMES, 12)).astype(np.float32)
        expected = evaluate(plain.model(), frames)
        np.testing.assert_array_equal(predict(lower(network), frames).logits, expected)
        assert any("option for the sign of zero" in note for note in network.notes)

    @pytest.mark.parametrize("zero", [None, 1, -1])
    @pytest.mark.parametrize("shift", [0.1, -0.1, 0.999, -1e-30])
    def test_does_not_matter_to_a_shifted_sign(self, zero, shift, tmp_path):
        graph = Graphs(("N", 12))
        self.even_sums(
            graph, lambda g, x: g.node("Sign", g.node("Add", g.node("Sign", x), g.constant(shift)))
        )
        same_logits(graph, tmp_path, (12,), sign_zero=zero)

    @pytest.mark.parametrize("shift", [0, 1, -1])
    def test_matters_where_the_shift_leaves_it_open(self, shift, tmp_path):
        graph = Graphs(("N", 12))
        self.even_sums(
            graph, lambda g, x: g.node("Sign", g.node("Add", g.node("Sign", x), g.constant(shift)))
        )
        assert "(Sign) gives 0" in refusal(graph, tmp_path)

    def test_cannot_occur_behind_a_tiny_shift_of_sums(self, tmp_path):
        graph = Graphs(("N", 12))
        self.even_sums(graph, lambda g, x: g.node("Sign", g.node("Add", x, g.constant(1e-6))))
        same_logits(graph, tmp_path, (12,))

    def test_cannot_occur_behind_means_of_odd_sums(self, tmp_path):
        graph = Drawn(9, ("N", 1, 6, 8))
        x = graph.node("Conv", graph.bipolar("x"), graph.constant(signs(graph, 3, 1, 3, 3)))
        x = graph.node("AveragePool", x, kernel_shape=[1, 3])
        x = graph.node("Flatten", graph.node("Sign", x))
        graph.gemm(x, 48, 4)
        same_logits(graph, tmp_path, (1, 6, 8))

    def test_may_occur_behind_means_of_an_even_number(self, tmp_path):
        graph = Drawn(9, ("N", 1, 6, 8))
        x = graph.node("Conv", graph.bipolar("x"), graph.constant(signs(graph, 3, 1, 3, 3)))
        x = graph.node("AveragePool", x, kernel_shape=[1, 2])
        graph.gemm(graph.node("Flatten", graph.node("Sign", x)), 60, 4)
        assert "(Sign) gives 0" in refusal(graph, tmp_path)

    @pytest.mark.parametrize(("bias", "accepted"), [(0.3, True), (0.5, False), (1 / 8, True)])
    def test_may_occur_behind_means_and_a_bias(self, bias, accepted, tmp_path):
        graph = Drawn(9, ("N", 1, 6, 8))
        x = graph.node("Conv", graph.bipolar("x"), graph.constant(signs(graph, 3, 1, 3, 3)))
        x = graph.node(
            "Add", graph.node("AveragePool", x, kernel_shape=[1, 4]), graph.constant(bias)
        )
        graph.gemm(graph.node("Flatten", graph.node("Sign", x)), 36, 4)
        if accepted:
            same_logits(graph, tmp_path, (1, 6, 8))
        else:
            assert "(Sign) gives 0" in refusal(graph, tmp_path)

    @pytest.mark.parametrize(
        ("low", "high", "pad", "accepted"),
        [
            (-1, 1, None, True),
            (-1, 1, 0, False),  # nine bits, but four in the corners
            (-1, 1, 1, True),
            (-1, 1, -1, True),
            (-0.5, 0.5, 0.5, True),
            (-1, 1, 3, False),
            (-0.7, 1.3, None, True),
            (-0.7, 1.3, 0, False),
            (1, -1, None, True),
        ],
    )
    def test_may_occur_at_the_borders_of_padded_images(self, low, high, pad, accepted, tmp_path):
        graph = Drawn(9, ("N", 1, 6, 8))
        condition = graph.node("Less", "x", graph.constant(0))
        x = graph.node("Where", condition, graph.constant(low), graph.constant(high))
        sizes = [0, 0, 1, 1, 0, 0, 1, 1]
        if pad is not None:
            x = graph.node("Pad", x, graph.constant(sizes, np.int64), graph.constant(pad))
        x = graph.node("Conv", x, graph.constant(signs(graph, 3, 1, 3, 3)))
        x = graph.node("Flatten", graph.node("Sign", x))
        graph.gemm(x, 3 * (24 if pad is None else 48), 4)
        if accepted:
            same_logits(graph, tmp_path, (1, 6, 8))
        else:
            assert "(Sign) gives 0" in refusal(graph, tmp_path)

    def test_cannot_occur_of_bits(self, tmp_path):
        graph = Drawn(9)
        graph.gemm(graph.node("Sign", graph.bipolar("x")), 12, 4)
        same_logits(graph, tmp_path, (12,))


def signs(graph: Drawn, *shape: int) -> np.ndarray:
    return graph.rng.choice([-1.0, 1.0], shape)


class TestWeights:
    @pytest.mark.parametrize("idiom", WEIGHTS)
    def test_idiom(self, idiom, tmp_path):
        same_logits(with_weights(WEIGHTS[idiom]), tmp_path, (12,))

    def test_rounding_of_the_detach_trick_is_noted(self, tmp_path):
        network = same_logits(with_weights(WEIGHTS["gain, detached"]), tmp_path, (12,))
        assert any("taken as rounding" in note for note in network.notes)

    @staticmethod
    def layer(weights: np.ndarray) -> Graphs:
        graph = Graphs(("N", weights.shape[1]))
        graph.node("Gemm", graph.bipolar("x"), graph.constant(weights), transB=1, name="fc")
        return graph

    @pytest.mark.parametrize("gain", [1, 0.0371, -300])
    def test_rounding_leaves_the_most_frequent_magnitude(self, gain, tmp_path):
        weights = np.full((3, 7), gain, np.float32)
        weights[0, :3] = np.nextafter(weights[0, :3], np.float32(9e9))
        weights[2, 1] *= np.float32(1 - 2**-19)
        (_, dense, *gains) = read(self.layer(weights).save(tmp_path)).network.ops
        assert [op.scale for op in gains] == ([] if gain == 1 else [(abs(np.float32(gain)),)])
        assert np.all(dense.weights == np.sign(gain))

    def test_neurons_that_differ_by_rounding_get_one_magnitude(self, tmp_path):
        weights = np.full((3, 5), 0.3, np.float32)
        weights[1] = np.nextafter(weights[1], np.float32(1))
        weights[2, 1] = weights[1, 0]
        (_, _, affine) = read(self.layer(weights).save(tmp_path)).network.ops
        assert affine.scale == (Fraction(float(np.float32(0.3))),)

    def test_gains_of_rows_stay_apart(self, tmp_path):
        weights = np.array([[1, 1, -1.0000001], [2, -2, -2], [1.001, 1.001, 1.001]], np.float32)
        (_, _, affine) = read(self.layer(weights).save(tmp_path)).network.ops
        assert affine.scale == (1, 2, float(np.float32(1.001)))

    @pytest.mark.parametrize("difference", [2.0**-17, 0.001])
    def test_more_than_rounding_is_no_magnitude(self, difference, tmp_path):
        weights = np.array([[1, 1 + difference, -1], [1, 1, 1]], np.float32)
        assert "'fc' (Gemm) has weights that are neither binary nor" in refusal(
            self.layer(weights), tmp_path
        )

    def test_zeros_are_no_rounding(self, tmp_path):
        weights = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
        (layer,) = read(self.layer(weights).save(tmp_path)).network.layers()
        np.testing.assert_array_equal(layer.weights, 2 * weights)

    @pytest.mark.parametrize("zero", [1, -1])
    def test_sign_of_zero_is_what_the_option_says(self, zero, tmp_path):
        graph = Graphs(("N", 3))
        weights = graph.node("Sign", graph.constant([[0, -0.0, 3], [-1, 2, 0]]), name="sign")
        graph.node("Gemm", graph.bipolar("x"), weights, transB=1)
        assert "node 'sign' (Sign) gives 0 for the weights" in refusal(graph, tmp_path)
        network = read(graph.save(tmp_path), ImportOptions(sign_zero=zero)).network
        expected = [[zero, zero, 1], [-1, 1, zero]]
        np.testing.assert_array_equal(network.layers()[0].weights, expected)

    @pytest.mark.parametrize("zero", [None, 1, -1])
    def test_sign_of_zero_does_not_matter_to_a_shifted_sign(self, zero, tmp_path):
        graph = Graphs(("N", 3))
        weights = graph.node("Sign", graph.constant([[0, -0.0, 3], [-1, 2, 0]]))
        weights = graph.node("Sign", graph.node("Add", weights, graph.constant(0.1)))
        graph.node("Gemm", graph.bipolar("x"), weights, transB=1)
        network = read(graph.save(tmp_path), ImportOptions(sign_zero=zero)).network
        np.testing.assert_array_equal(network.layers()[0].weights, [[1, 1, 1], [-1, 1, 1]])


class TestSquashing:
    """What squashes between a layer and a sign is dropped if the sign cannot see it."""

    @staticmethod
    def graph(between: Idiom, sign: Idiom = SIGNS["where"]) -> Drawn:
        graph = Drawn(12, ("N", 2, 6, 8))
        x = graph.conv(graph.bipolar("x"), 2, 3)
        x = sign(graph, between(graph, x))
        graph.gemm(graph.node("Flatten", x), 72, 4)
        return graph

    @pytest.mark.parametrize(
        "between",
        [
            lambda g, x: g.node("Dropout", clip(g, x)),
            lambda g, x: g.node("MaxPool", clip(g, x), kernel_shape=[1, 1]),
            lambda g, x: clip(g, g.node("Tanh", clip(g, x))),
            lambda g, x: g.node("Mul", g.node("Tanh", x), g.constant(-2)),
            lambda g, x: g.node("Clip", x, g.constant(-1)),
            lambda g, x: g.node("Clip", x, "", g.constant(1)),
        ],
    )
    def test_is_dropped_with_a_note(self, between, tmp_path):
        network = same_logits(self.graph(between), tmp_path, (2, 6, 8))
        assert any("dropped, because" in note for note in network.notes)

    @pytest.mark.parametrize(
        "between",
        [
            lambda g, x: g.node("Clip", x, g.constant(0), g.constant(1), name="bad"),
            lambda g, x: g.node("Clip", x, g.constant(-1), g.constant(-0.5), name="bad"),
            lambda g, x: g.node("Relu", x, name="bad"),
            lambda g, x: g.node("Add", g.node("Tanh", x, name="bad"), g.constant(0.1)),
            lambda g, x: g.node(
                "Add", g.node("Clip", x, g.constant(-1), g.constant(1), name="bad"), g.constant(2)
            ),
            lambda g, x: g.norm(g.node("Tanh", x, name="bad"), 3),
        ],
    )
    def test_is_refused_where_the_sign_sees_it(self, between, tmp_path):
        message = refusal(self.graph(between), tmp_path)
        assert "node 'bad'" in message

    @pytest.mark.parametrize("kind", ["Relu", "Sigmoid", "Gelu", "HardSigmoid", "Tanh"])
    def test_is_refused_before_a_layer(self, kind, tmp_path):
        message = refusal(self.graph(lambda g, x: g.node(kind, x, name="bad"), identity), tmp_path)
        assert f"node 'bad' ({kind}) is an activation that nothing quantizes" in message
        assert message.endswith("or replace it by a sign (BipolarQuant)")

    def test_is_refused_before_a_mean(self, tmp_path):
        graph = self.graph(
            lambda g, x: g.node(
                "AveragePool",
                g.node("Clip", x, g.constant(-1), g.constant(1), name="bad"),
                kernel_shape=[1, 1],
            )
        )
        assert "node 'bad' (Clip) is an activation" in refusal(graph, tmp_path)

    def test_thresholds_within_the_range_are_not_changed(self, tmp_path):
        graph = self.graph(lambda g, x: clip(g, x, 0, 3), SIGNS["another threshold"])
        same_logits(graph, tmp_path, (2, 6, 8))

    @pytest.mark.parametrize("kind", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
    @pytest.mark.parametrize("gain", [1, -2])
    @pytest.mark.parametrize("threshold", [-3, -2, -1, 1, 2, 3])
    def test_is_dropped_only_where_it_makes_no_difference(self, kind, gain, threshold, tmp_path):
        def decide(x: np.ndarray) -> np.ndarray:
            compare = {
                "Greater": np.greater,
                "GreaterOrEqual": np.greater_equal,
                "Less": np.less,
                "LessOrEqual": np.less_equal,
            }
            return compare[kind](gain * x, gain * threshold)

        graph = Drawn(12, ("N", 9))
        x = graph.node("MatMul", graph.bipolar("x"), graph.constant(signs(graph, 9, 6)))
        x = graph.node("Mul", clip(graph, x, -2, 2), graph.constant(gain))
        x = graph.node(kind, x, graph.constant(gain * threshold))
        graph.gemm(graph.node("Cast", x, to=TensorProto.FLOAT), 6, 4)
        numbers = np.arange(-5, 5.5, 0.5)
        if np.array_equal(decide(numbers), decide(np.clip(numbers, -2, 2))):
            same_logits(graph, tmp_path, (9,))
        else:
            assert "(Clip) changes what node" in refusal(graph, tmp_path)

    def test_clip_of_what_a_quantizer_clips_is_dropped(self, tmp_path):
        graph = Drawn(13)
        x = graph.quant(clip(graph, "x"), 1 / 128, 0, signed=1, narrow=1)
        graph.gemm(x, 12, 4)
        same_logits(graph, tmp_path, (12,))

    def test_clip_to_less_than_a_quantizer_narrows_it(self, tmp_path):
        graph = Drawn(13)
        graph.gemm(graph.quant(clip(graph, "x"), 1 / 64, 0), 12, 4)
        network = same_logits(graph, tmp_path, (12,))
        assert (network.ops[0].low, network.ops[0].high) == (-64, 64)

    @pytest.mark.parametrize("kind", ["Tanh", "Sigmoid", "Softsign"])
    @pytest.mark.parametrize("end", ["", "ArgMax", "Softmax"])
    def test_of_the_scores_keeps_the_class(self, kind, end, tmp_path):
        graph = Drawn(14)
        scores = graph.gemm(graph.bipolar("x"), 12, 4)
        x = graph.node(kind, graph.node("Mul", scores, graph.constant(0.01)))
        if end:
            graph.node(end, x, axis=1)
        path = graph.save(tmp_path)
        frames = np.random.default_rng(1).normal(0, 1, (FRAMES, 12)).astype(np.float32)
        got = predict(lower(read(path).network), frames)
        expected = evaluate(graph.model(), frames, scores)
        np.testing.assert_array_equal(got.classes, expected.argmax(axis=1))


def identity(_: Graphs, x: str) -> str:
    return x


class TestBranches:
    """Branches that do not cancel are true ones, and refused."""

    @pytest.mark.parametrize(
        ("join", "sentence"),
        [
            (lambda g, x: g.node("Mul", x, SIGNS["where"](g, x)), "computes with tensors"),
            (lambda g, x: g.node("Sub", x, x), "twice"),
            (
                lambda g, x: g.node("Add", x, g.node("Sub", SIGNS["where"](g, x), clip(g, x))),
                "(Clip) is an activation that nothing quantizes",
            ),
            (
                lambda g, x: g.node("Sub", g.node("Add", clip(g, x), g.bipolar(x)), clip(g, x, -2)),
                "(Clip) is an activation that nothing quantizes",
            ),
        ],
    )
    def test_is_refused(self, join, sentence, tmp_path):
        graph = Drawn(15)
        x = graph.gemm(graph.bipolar("x"), 12, 9)
        graph.gemm(graph.bipolar(join(graph, x)), 9, 4)
        assert sentence in refusal(graph, tmp_path)

    def test_constants_that_make_frames_larger_are_not_cancelled(self, tmp_path):
        graph = Drawn(17, ("N", 1, 12))
        x = graph.bipolar("x")
        large = graph.node("Tanh", graph.node("Add", x, graph.constant(np.ones((5, 12)))))
        x = graph.node("Add", graph.node("Sub", x, large), large)
        graph.node("MatMul", x, graph.constant(signs(graph, 12, 4)))
        assert "has parameters of shape (5, 12)" in refusal(graph, tmp_path)

    def test_what_is_taken_is_noted(self, tmp_path):
        graph = Drawn(18)
        perceptron(graph, SIGNS["detached clip"])
        notes = read(graph.save(tmp_path)).network.notes
        assert sum("straight-through estimator" in note for note in notes) == 3

    def test_only_tensors_that_are_the_same_in_both_are_told(self, tmp_path):
        graph = Drawn(18)
        bits = SIGNS["sign(sign(x) + c)"](graph, "x")
        sums = graph.node("Gemm", bits, graph.constant(signs(graph, 12, 9)))
        half = graph.node("Mul", clip(graph, sums), graph.constant(0.5))
        other = SIGNS["where"](graph, half)
        graph.node("Gemm", other, graph.constant(signs(graph, 9, 4)))
        told = read(graph.save(tmp_path)).tensors
        assert {bits, sums, other} <= set(told)
        assert not {"t0", half} & set(told)


def test_all_obstacles_of_a_network_of_several_bits_are_told_in_order(tmp_path):
    graph = Graphs(("N", 2, 6, 8))

    def conv(x: str, inputs: int, outputs: int, name: str) -> str:
        weights = graph.constant(np.random.default_rng(1).normal(size=(outputs, inputs, 3, 3)))
        return graph.node("Conv", x, graph.quant(weights, 0.1, 0, 9), name=name)

    x = graph.node("Relu", conv("x", 2, 3, "stem"), name="relu1")
    x = graph.quant(x, 0.5, 0, 9, signed=0)
    x = graph.node("AveragePool", x, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1, name="pool")
    x = graph.node("Flatten", graph.node("Sign", x, name="sign"))
    x = graph.node(
        "Gemm", x, graph.constant(np.linspace(-1, 1, 9 * 5).reshape(9, 5) ** 3), name="fc1"
    )
    graph.node("Gemm", x, graph.constant(np.ones((5, 4))), name="fc2")
    with pytest.raises(ModelRefused) as info:
        read(graph.save(tmp_path))
    told = [obstacle.where.split("'")[1] for obstacle in info.value.obstacles]
    assert told == ["quant_0", "quant_3", "pool", "sign", "fc1", "fc2"]


INTS = np.int64
CONSTANTS: dict[str, Callable[[Graphs], str]] = {
    "Slice backwards": lambda g: _sliced(g, [-1], [-99], [0], [-1]),
    "Slice backwards in part": lambda g: _sliced(g, [5], [1], [0], [-2]),
    "Slice of two axes": lambda g: _sliced(g, [1, 0], [4, -1], [0, 1]),
    "Slice without axes": lambda g: _sliced(g, [1], [1 << 40]),
    "Div of integers": lambda g: g.node(
        "Div", g.constant([-7, 7, -7, 7, 0], INTS), g.constant([2, 2, -2, -2, 3], INTS)
    ),
    "arithmetic on integers": lambda g: g.node(
        "Sub", g.node("Mul", g.constant([3, -4], INTS), g.constant(5, INTS)), g.constant(1, INTS)
    ),
    "Clip above": lambda g: g.node("Clip", _ramp(g), "", g.constant(0.25)),
    "Clip below": lambda g: g.node("Clip", _ramp(g), g.constant(0.25)),
    "Max and Min of three": lambda g: g.node(
        "Max", g.node("Min", _ramp(g), g.constant(0.5), g.constant([0.25, 1])), g.constant(-0.5)
    ),
    "Round": lambda g: g.node("Round", g.node("Mul", _ramp(g), g.constant(6))),
    "Equal": lambda g: g.node("Equal", g.constant([1, -1, 2], INTS), g.constant(-1, INTS)),
    "Not, And, Or": lambda g: g.node(
        "And",
        g.node("Not", g.node("Greater", _ramp(g), g.constant(0.4))),
        g.node("Or", *(g.node("Less", _ramp(g), g.constant(c)) for c in (-0.5, 0.2))),
    ),
    "Expand to more": lambda g: g.node("Expand", _ramp(g), g.constant([3, 1, 2], INTS)),
    "Tile": lambda g: g.node("Tile", _ramp(g), g.constant([2, 3], INTS)),
    "ConstantOfShape": lambda g: g.node("ConstantOfShape", g.constant([2, 0, 3], INTS)),
    "Pow": lambda g: g.node("Pow", _ramp(g), g.constant(3)),
    "ReduceSum of all": lambda g: g.node("ReduceSum", _ramp(g)),
    "ReduceSum of nothing": lambda g: g.node("ReduceSum", _ramp(g), noop_with_empty_axes=1),
    "ReduceMean": lambda g: g.node("ReduceMean", _ramp(g), axes=[-2], keepdims=0),
    "ReduceMax": lambda g: g.node("ReduceMax", _ramp(g), axes=[0, 1]),
    "ReduceL1": lambda g: g.node("ReduceL1", _ramp(g), axes=[1]),
    "ReduceL2": lambda g: g.node("ReduceL2", _ramp(g), axes=[0]),
    "ReduceProd": lambda g: g.node("ReduceProd", _ramp(g), axes=[1]),
    "Gather": lambda g: g.node("Gather", _ramp(g), g.constant([[-1, 0]], INTS), axis=1),
    "Cast to integers": lambda g: g.node(
        "Cast", g.node("Mul", _ramp(g), g.constant(6)), to=TensorProto.INT32
    ),
    "Where of numbers": lambda g: g.node(
        "Where", g.node("Less", _ramp(g), g.constant(0)), _ramp(g), g.constant([7, 8])
    ),
}


def _ramp(g: Graphs) -> str:
    return g.constant(np.linspace(-1, 1.2, 12).reshape(6, 2))


def _sliced(g: Graphs, *limits: list[int]) -> str:
    return g.node("Slice", _ramp(g), *(g.constant(limit, INTS) for limit in limits))


@pytest.mark.parametrize("form", CONSTANTS)
def test_constants_are_what_the_runtime_computes(form, tmp_path):
    graph = Graphs(("N", 2))
    tensor = CONSTANTS[form](graph)
    model = graph.model(tensor, graph.node("Identity", "x"))
    expected = evaluate(model, np.zeros((1, 2), np.float32), tensor)
    onnx.save(model, tmp_path / "net.onnx")
    reader = Node("reader", True, "Add", "", ("x", tensor), ("y",), {})
    got = Constants(read_graph(tmp_path / "net.onnx")).value(reader, 1, "constant")
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-6)


class TestFilesAreUntrusted:
    @staticmethod
    def weights(draw: Idiom) -> Graphs:
        graph = Graphs(("N", 6))
        graph.node("MatMul", graph.bipolar("x"), draw(graph, graph.constant(np.ones((6, 2)))))
        return graph

    @pytest.mark.parametrize(
        "draw",
        [
            lambda g, w: g.node("ConstantOfShape", g.constant([1 << 20, 1 << 20], np.int64)),
            lambda g, w: g.node("Expand", w, g.constant([1 << 30, 6, 2], np.int64)),
            lambda g, w: g.node("Tile", w, g.constant([1 << 20, 1 << 20], np.int64)),
            lambda g, w: g.node("Add", *map(g.constant, (np.ones((9999, 1)), np.ones((1, 9999))))),
            lambda g, w: g.node(
                "Gather", g.constant(np.ones((1, 9999))), g.constant(np.zeros(9999), np.int64)
            ),
        ],
    )
    def test_no_constant_grows_without_bound(self, draw, tmp_path):
        message = refusal(self.weights(draw), tmp_path)
        assert "million numbers, too many for what the file stores" in message

    def test_nor_do_many_small_ones(self, tmp_path):
        def draw(g: Graphs, w: str) -> str:
            total = g.constant(np.ones(1 << 18))
            for _ in range(200):
                total = g.node("Neg", total)
            return total

        assert "too many for what the file stores" in refusal(self.weights(draw), tmp_path)

    @pytest.mark.parametrize(
        ("draw", "fault"),
        [
            (lambda g, w: g.node("Expand", w, g.constant([7, 7], np.int64)), "do not suit"),
            (lambda g, w: g.node("Tile", w, g.constant([-1, 1], np.int64)), "do not suit"),
            (lambda g, w: g.node("Slice", w), "do not suit"),
            (lambda g, w: g.node("Add", w, g.constant(1, np.int64)), "do not suit"),
            (lambda g, w: g.node("Where", w, w, w), "do not suit"),
            (lambda g, w: g.node("Cast", w, to=TensorProto.STRING), "casts a constant to"),
            (lambda g, w: g.node("ConstantOfShape", g.constant([-6, 2], np.int64)), "do not suit"),
            (lambda g, w: g.node("Greater", w, g.constant(0)), "weight matrix of type bool"),
        ],
    )
    def test_what_a_runtime_does_not_take_is_refused(self, draw, fault, tmp_path):
        assert fault in refusal(self.weights(draw), tmp_path)


class TestExternalData:
    @staticmethod
    def saved(folder: Path) -> Path:
        graph = Graphs(("N", 6))
        graph.node("MatMul", graph.bipolar("x"), graph.constant(np.ones((6, 2))))
        path = folder / "net.onnx"
        onnx.save(
            graph.model(), path, save_as_external_data=True, location="w.bin", size_threshold=0
        )
        return path

    @staticmethod
    def changed(path: Path, **entries: str) -> None:
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = entries.get(entry.key, entry.value)
        path.write_bytes(model.SerializeToString())

    def test_beside_the_model_is_read(self, tmp_path):
        assert read(self.saved(tmp_path)).network.classes == 2

    def test_link_out_of_the_folder_is_not_followed(self, tmp_path):
        folder = tmp_path / "model"
        folder.mkdir()
        path = self.saved(folder)
        (folder / "w.bin").rename(tmp_path / "secret")
        (folder / "w.bin").symlink_to(tmp_path / "secret")
        with pytest.raises(ModelRefused, match="cannot be read"):
            read(path)

    @pytest.mark.parametrize(
        "entries",
        [
            {"location": "/etc/passwd"},
            {"location": ""},
            {"offset": str(1 << 40)},
            {"offset": "-4"},
            {"length": str(1 << 40)},
            {"length": "-1"},
            {"length": "abc"},
        ],
    )
    def test_other_places_are_refused(self, entries, tmp_path):
        path = self.saved(tmp_path)
        self.changed(path, **entries)
        with pytest.raises(ModelRefused, match="cannot be read"):
            read(path)

    def test_file_that_is_longer_than_its_tensor_is_not_read(self, tmp_path):
        path = self.saved(tmp_path)
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            del tensor.external_data[1:]
        path.write_bytes(model.SerializeToString())
        with open(tmp_path / "w.bin", "ab") as file:
            file.truncate(1 << 40)  # sparse
        with pytest.raises(ModelRefused, match="cannot be read"):
            read(path)
