"""The golden model against two executors, frame by frame, and against mutations."""

from dataclasses import replace
from itertools import product

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes
from random_networks import (
    random_frames,
    random_network,
    reference_logits,
    to_plain_onnx,
    to_qonnx,
)

from xnorflow import golden
from xnorflow.errors import UserError
from xnorflow.lowered import LoweredLayer, LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import Network, Sign
from xnorflow.packed import fire

seeds = st.integers(0, 2**32 - 1)
widths = st.builds(
    lambda hidden, classes: [*hidden, classes],
    st.lists(st.integers(1, 70), min_size=1, max_size=3),
    st.integers(1, 12),
)


def all_bits(count: int) -> np.ndarray:
    return np.array(list(product([False, True], repeat=count)))


def run_onnxruntime(network: Network, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # No fusion: float arithmetic in the order of the file.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = to_plain_onnx(network).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": x})
    return logits


def run_qonnx(network: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    model = ModelWrapper(to_qonnx(network, batch=len(x))).transform(InferShapes())
    return execute_onnx(model, {"input": x}, return_full_exec_context=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seeds, widths)
def test_logits_and_classes_equal_onnxruntime_on_networks_without_rounding(seed, widths):
    rng = np.random.default_rng(seed)
    network = random_network(rng, widths)
    x = random_frames(rng, network, 30)
    prediction = golden.predict(lower(network), x)
    logits = run_onnxruntime(network, x)
    np.testing.assert_array_equal(prediction.logits, logits)
    np.testing.assert_array_equal(prediction.classes, logits.argmax(axis=1))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seeds, widths)
def test_classes_equal_onnxruntime_on_float_parameters(seed, widths):
    rng = np.random.default_rng(seed)
    network = random_network(rng, widths, exact=False)
    x = random_frames(rng, network, 30)
    prediction = golden.predict(lower(network), x)
    logits = run_onnxruntime(network, x)
    # Bits agree if and only if logits do up to rounding: one bit moves a logit by far more.
    np.testing.assert_allclose(prediction.logits, logits, rtol=1e-4, atol=1e-4)
    best = np.sort(prediction.logits, axis=1)
    clear = np.ones(len(x), bool) if best.shape[1] == 1 else best[:, -1] - best[:, -2] > 1e-3
    np.testing.assert_array_equal(prediction.classes[clear], logits.argmax(axis=1)[clear])
    np.testing.assert_array_equal(prediction.classes, prediction.scores.argmax(axis=1))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seeds, widths)
def test_every_layer_equals_the_qonnx_executor(seed, widths):
    rng = np.random.default_rng(seed)
    network = random_network(rng, widths)
    x = random_frames(rng, network, 10)
    lowered = lower(network)
    tensors = run_qonnx(network, x)
    *hidden, scores = golden.activations(lowered, lowered.input.quantize(x))
    assert len(hidden) == len(widths) - 2
    for i, bits in enumerate(hidden):
        assert bits.dtype == np.bool_
        np.testing.assert_array_equal(bits, tensors[f"sign{i + 1}_out"] > 0)
    logits = tensors[f"{network.ops[-1].name}_out"]
    np.testing.assert_array_equal(scores.argmax(axis=1), logits.argmax(axis=1))


def test_frames_with_channels_match_onnxruntime():
    rng = np.random.default_rng(1)
    for _ in range(10):
        network = random_network(rng, [48, 20, 5], input_shape=(4, 4, 3))
        x = random_frames(rng, network, 40)
        lowered = lower(network)
        prediction = golden.predict(lowered, x)
        np.testing.assert_array_equal(prediction.logits, run_onnxruntime(network, x))
        flat = golden.predict(lowered, x.reshape(40, -1))
        np.testing.assert_array_equal(flat.scores, prediction.scores)


@pytest.mark.parametrize("seed", range(20))
def test_small_networks_are_right_for_every_input(seed):
    network = random_network(np.random.default_rng(seed), [7, 4, 5, 3], preprocess=False)
    bits = all_bits(7)
    logits = reference_logits(network, 2.0 * bits - 1)
    prediction = golden.predict_quantized(lower(network), bits)
    np.testing.assert_array_equal(prediction.logits, logits)
    np.testing.assert_array_equal(prediction.classes, logits.argmax(axis=1))


def plain_lowered(seed: int) -> LoweredNetwork:
    """Return 6-4-3 without dead or always-on neurons: a threshold in reach for each of them."""
    rng = np.random.default_rng(seed)
    lowered = lower(random_network(rng, [6, 4, 3], preprocess=False))
    first, last = lowered.layers
    reachable = rng.choice(np.arange(-4, 7, 2, dtype=np.int32), first.mh)
    return replace(lowered, stages=(replace(first, thresholds=reachable), last))


@pytest.mark.parametrize("index", range(2))
def test_flipping_any_weight_changes_an_output(index):
    lowered, bits = plain_lowered(5), all_bits(6)
    right = golden.predict_quantized(lowered, bits)
    layer = lowered.layers[index]
    for where in np.ndindex(layer.weights.shape):
        weights = layer.weights.copy()
        weights[where] *= -1
        layers = list(lowered.layers)
        layers[index] = replace(layer, weights=weights)
        mutant = golden.predict_quantized(replace(lowered, stages=tuple(layers)), bits)
        assert not np.array_equal(mutant.accumulators, right.accumulators)


@pytest.mark.parametrize("step", [-2, 2])
def test_moving_any_threshold_changes_an_output(step):
    lowered, bits = plain_lowered(6), all_bits(6)
    right = golden.predict_quantized(lowered, bits)
    first, last = lowered.layers
    for neuron in range(first.mh):
        thresholds = first.thresholds.copy()
        thresholds[neuron] += step
        mutant = replace(lowered, stages=(replace(first, thresholds=thresholds), last))
        outputs = golden.predict_quantized(mutant, bits)
        assert not np.array_equal(outputs.accumulators, right.accumulators)


def test_equal_scores_go_to_the_lowest_class():
    rng = np.random.default_rng(2)
    network = random_network(rng, [8, 6], preprocess=False)
    layer = replace(lower(network).layers[0], weights=np.ones((6, 8), np.int8))
    lowered = lower(network)
    output = replace(
        lowered.output, scale=np.ones(6, np.int64), offset=np.array([0, 0, 1, 0, 1, 1])
    )
    prediction = golden.predict_quantized(
        replace(lowered, stages=(layer,), output=output), all_bits(8)
    )
    assert np.all(prediction.classes == 2)


@pytest.mark.parametrize("width", [1, 63, 64, 65, 784])
def test_accumulators_are_dot_products_at_word_boundaries(width):
    rng = np.random.default_rng(width)
    lowered = lower(Network("one", (width,), random_network(rng, [width, 9]).ops))
    bits = rng.random((300, width)) < 0.5
    prediction = golden.predict_quantized(lowered, bits)
    bipolar = 2 * bits.astype(np.int64) - 1
    np.testing.assert_array_equal(prediction.accumulators, bipolar @ lowered.layers[0].weights.T)
    assert prediction.accumulators.dtype == np.int32
    assert prediction.scores.dtype == prediction.classes.dtype == np.int64
    assert prediction.logits.dtype == np.float64


@pytest.mark.parametrize("width", [254, 255, 256, 65534, 65535, 65536])
def test_neurons_that_are_always_on_or_dead_are_so_at_any_width(width):
    ends = np.array([-width, width, width + 1], np.int32)
    layer = LoweredLayer("dense", np.ones((3, width), np.int8), ends)
    same, opposite = fire(layer, np.array([[True] * width, [False] * width]))
    assert same.tolist() == [True, True, False]
    assert opposite.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((5, 7), np.float32), ["(5, 7)", "(N, 6)"]),
        (np.zeros(6, np.float32), ["(6,)", "(N, 6)"]),
        (np.zeros((0, 6), np.float32), ["no frames"]),
        (np.zeros((5, 6), np.float64), ["float64", "float32"]),
        (np.zeros((5, 6), np.int32), ["int32", "float32"]),
        (np.zeros((5, 6), np.complex64), ["complex64", "float32"]),
        (np.array([["a"] * 6]), ["<U1", "float32"]),
        (np.full((5, 6), np.nan, np.float32), ["NaN"]),
    ],
)
def test_wrong_data_are_refused_with_what_is_expected(x, words):
    with pytest.raises(UserError) as error:
        golden.predict(plain_lowered(0), x)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "bits",
    [np.zeros((5, 7), bool), np.zeros(6, bool), np.full((5, 6), 2), np.zeros((0, 6), bool)],
)
def test_wrong_bits_are_refused(bits):
    with pytest.raises(UserError, match=r"frames (have shape|hold)|no frames"):
        golden.predict_quantized(plain_lowered(0), bits)


def test_integer_frames_and_their_float_copies_give_the_same():
    rng = np.random.default_rng(3)
    network = random_network(rng, [20, 4], preprocess=False)
    lowered = lower(Network("shifted", (20,), (Sign("s"), *network.ops[1:])))
    x = rng.integers(-128, 128, (50, 20)).astype(np.int8)
    scores = golden.predict(lowered, x).scores
    np.testing.assert_array_equal(scores, golden.predict(lowered, x.astype(np.float32)).scores)
