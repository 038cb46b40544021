"""The golden model on images against loops that share no code with it, and against mutations."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from exact_networks import run_stages
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_cnn, random_frames

from xnorflow import golden
from xnorflow.errors import UserError
from xnorflow.lowered import (
    InputQuantizer,
    LoweredLayer,
    LoweredNetwork,
    LoweredOutput,
    LoweredPool,
    LoweredStage,
    LoweredThreshold,
    Window,
)
from xnorflow.lowering import lower
from xnorflow.network import Dense, Flatten, Network
from xnorflow.packed import accumulate

seeds = st.integers(0, 2**32 - 1)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.one_of(
    st.just((0, 0, 0, 0)), st.just((1, 1, 1, 1)), st.tuples(*[st.integers(0, 2)] * 4)
)
PADDING_KINDS = ["zero", "constant"]


def signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice(np.array([-1, 1], np.int8), shape)


@st.composite
def windows(draw: st.DrawFn, channels: int) -> Window:
    """Draw a window that fits its image, with zeros as its pad."""
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    padding = draw(paddings)
    size = [
        max(1, d * (k - 1) + 1 - before - after) + draw(st.integers(0, 4))
        for k, d, before, after in zip(kernel, dilation, padding[:2], padding[2:], strict=True)
    ]
    pad = np.zeros(channels, np.uint16)
    return Window((size[0], size[1], channels), kernel, stride, dilation, padding, pad)


def thresholds(rng: np.random.Generator, layer: LoweredLayer, x: np.ndarray) -> np.ndarray:
    """Return thresholds among a layer's accumulators, a few of them dead or always on.

    `x` holds the frames (N, *i_shape); for bits the parity is the one that accumulators have.
    """
    seen = accumulate(layer, x).reshape(-1, layer.mh)
    chosen = seen[rng.integers(0, len(seen), layer.mh), np.arange(layer.mh)]
    if layer.levels == 1 and not layer.zero_padded:
        dead = np.full(layer.mh, layer.mw + 1)
    else:
        dead = layer.acc_max + 1
    kind = rng.integers(0, 8, layer.mh)
    chosen = np.where(kind == 0, dead, np.where(kind == 1, layer.acc_min, chosen))
    return chosen.astype(np.int32)


def network(stages: list[LoweredStage], levels: int = 1) -> LoweredNetwork:
    """Return a network of these stages, whose frames are integers or bits already."""
    classes = int(np.prod(stages[-1].o_shape))
    rng = np.random.default_rng(classes)
    steps = np.arange(1, levels + 1, dtype=np.float32)[:, None]
    return LoweredNetwork(
        "hand-made",
        InputQuantizer(stages[0].i_shape, steps),
        tuple(stages),
        LoweredOutput(
            rng.integers(1, 9, classes),
            rng.integers(-9, 10, classes),
            np.ones(classes),
            np.zeros(classes),
        ),
    )


def with_dense(rng: np.random.Generator, stages: list[LoweredStage]) -> list[LoweredStage]:
    return [*stages, LoweredLayer("last", signs(rng, 3, int(np.prod(stages[-1].o_shape))), None)]


def check(lowered: LoweredNetwork, x: np.ndarray) -> None:
    """Compare all that every stage sends on, and the prediction, with loops; `x` raw frames."""
    frames = golden.quantize(lowered, x)
    bits = lowered.input.levels == 1
    assert frames.dtype == (np.bool_ if bits else np.uint16)
    got = golden.activations(lowered, frames)
    assert len(got) == len(lowered.stages)
    for n, frame in enumerate(x):
        quantized, *inner, accumulators, scores = run_stages(lowered, frame)
        np.testing.assert_array_equal(frames[n], quantized)
        for stage, tensor, expected in zip(lowered.stages, got, inner, strict=False):
            assert tensor.shape == (len(x), *stage.o_shape)
            np.testing.assert_array_equal(tensor[n], expected)
        np.testing.assert_array_equal(got[-1][n], scores)
        prediction = golden.predict(lowered, x[n : n + 1])
        np.testing.assert_array_equal(prediction.accumulators[0], accumulators.reshape(-1))
        np.testing.assert_array_equal(prediction.scores[0], scores)
        assert prediction.classes[0] == scores.argmax()
    for stage, tensor in zip(lowered.stages[:-1], got, strict=False):
        sums = isinstance(stage, LoweredPool) and stage.op == "sum"
        counts = isinstance(stage, LoweredLayer) and stage.thresholds is None
        assert tensor.dtype == (np.int64 if sums or counts else np.bool_)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), seeds, st.sampled_from([1, 1, 1, 2, 3, 255, 65535]))
def test_convolutions_of_any_geometry_equal_loops(data, seed, levels):
    rng = np.random.default_rng(seed)
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    channels = groups * data.draw(st.sampled_from([1, 2, 3, 7, 21, 64, 65]))
    window = data.draw(windows(channels))
    if data.draw(st.booleans()):
        pad = rng.integers(0, levels + 1, channels).astype(np.uint16)
        window = replace(window, pad=pad)
    else:
        window = replace(window, pad=None)
    mh = groups * int(rng.integers(1, 4))
    layer = LoweredLayer(
        "conv", signs(rng, mh, window.taps * channels // groups), None, window, groups, levels
    )
    x = rng.integers(0, levels + 1, (2, *window.shape)).astype(np.uint16)
    stages: list[LoweredStage] = [layer]
    if data.draw(st.booleans()):
        stages = [replace(layer, thresholds=thresholds(rng, layer, x.astype(lane(levels))))]
    else:
        # Accumulators go on to a sum over all positions, and its thresholds.
        low, high = int(layer.acc_min.min()), int(layer.acc_max.max())
        zeros = np.zeros(mh, np.uint16)
        everything = Window(layer.o_shape, layer.o_shape[:2], pad=zeros)
        stages.append(LoweredPool("sum", "sum", everything, low, high))
        sums = accumulate(layer, x.astype(lane(levels))).sum(axis=(1, 2))
        stages.append(LoweredThreshold("sums", sums[0].astype(np.int32), (1, 1, mh)))
    check(network(with_dense(rng, stages), levels), x)


def lane(levels: int) -> type:
    return np.bool_ if levels == 1 else np.uint16


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data(), seeds, st.sampled_from(["or", "sum"]), st.integers(1, 5))
def test_pools_of_any_geometry_equal_loops(data, seed, op, channels):
    rng = np.random.default_rng(seed)
    pool = LoweredPool("pool", op, data.draw(windows(channels)), 0, 1)
    x = rng.integers(0, 2, (3, *pool.i_shape)).astype(np.uint8)
    stages: list[LoweredStage] = [pool]
    if op == "sum":
        levels = rng.integers(0, pool.window.taps + 2, channels).astype(np.int32)
        stages.append(LoweredThreshold("counts", levels, pool.o_shape))
    first = LoweredLayer(
        "pixels", signs(rng, channels, channels), None, Window(pool.i_shape, (1, 1))
    )
    stages.insert(0, replace(first, thresholds=thresholds(rng, first, x.astype(bool))))
    check(network(with_dense(rng, stages)), x)


@pytest.mark.parametrize("channels", [1, 7, 8, 63, 64, 65, 128, 129])
@pytest.mark.parametrize("kind", PADDING_KINDS)
def test_channels_at_word_boundaries_equal_loops(channels, kind):
    rng = np.random.default_rng(channels)
    pad = rng.integers(0, 2, channels).astype(np.uint16) if kind == "constant" else None
    window = Window((4, 3, channels), (3, 2), padding=(1, 0, 2, 1), pad=pad)
    layer = LoweredLayer("conv", signs(rng, 4, 6 * channels), None, window)
    x = rng.integers(0, 2, (3, *window.shape)).astype(np.uint8)
    layer = replace(layer, thresholds=thresholds(rng, layer, x.astype(bool)))
    check(network(with_dense(rng, [layer])), x)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seeds)
def test_every_stage_of_lowered_random_networks_equals_loops(seed):
    rng = np.random.default_rng(seed)
    source = random_cnn(rng)
    check(lower(source), random_frames(rng, source, 3))


def small_network(seed: int) -> tuple[LoweredNetwork, np.ndarray]:
    """Return pixels, both paddings, groups, an OR pool and a dense layer; and raw frames.

    Every threshold is the median of what its neuron gives on the frames.
    """
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (40, 6, 6, 3)).astype(np.uint16)
    ones = (1, 1, 1, 1)
    pixels = Window((6, 6, 3), (3, 3), padding=ones, pad=np.array([200, 0, 90], np.uint16))
    zero = Window((6, 6, 4), (3, 3), padding=ones)
    pool = Window((6, 6, 4), (2, 2), (2, 2), pad=np.zeros(4, np.uint16))
    constant = Window(
        (3, 3, 4), (2, 2), padding=(0, 1, 1, 0), pad=np.array([0, 1, 1, 0], np.uint16)
    )
    plan: list[LoweredStage] = [
        LoweredLayer("pixels", signs(rng, 4, 27), None, pixels, 1, 255),
        LoweredLayer("zero", signs(rng, 4, 18), None, zero, 2),
        LoweredPool("or", "or", pool, 0, 1),
        LoweredLayer("constant", signs(rng, 4, 16), None, constant),
    ]
    stages: list[LoweredStage] = []
    for stage in plan:
        if isinstance(stage, LoweredLayer):
            # Accumulators as loops have them.
            seen = [run_stages(network([*stages, stage], 255), frame)[-2] for frame in x[:4]]
            middle = np.median(np.concatenate(seen).reshape(-1, stage.mh), axis=0)
            parity = 0 if stage.levels > 1 or stage.zero_padded else stage.mw % 2
            fitting = middle.astype(np.int32) // 2 * 2 + parity
            stage = replace(stage, thresholds=fitting)
        stages.append(stage)
    return network(with_dense(rng, stages), 255), x


def mutant(lowered: LoweredNetwork, index: int, **changes: object) -> LoweredNetwork:
    stages = list(lowered.stages)
    stages[index] = replace(stages[index], **changes)
    return replace(lowered, stages=tuple(stages))


def sent(lowered: LoweredNetwork, x: np.ndarray, index: int) -> np.ndarray:
    return golden.activations(lowered, x.reshape(len(x), -1))[index]


def test_the_network_of_the_mutations_equals_loops():
    lowered, x = small_network(7)
    check(lowered, x[:6])


@pytest.mark.parametrize("index", [0, 1, 3, 4])
def test_flipping_any_weight_changes_what_its_layer_sends(index):
    lowered, x = small_network(7)
    right = sent(lowered, x, index)
    layer = lowered.stages[index]
    for where in np.ndindex(layer.weights.shape):
        weights = layer.weights.copy()
        weights[where] *= -1
        wrong = sent(mutant(lowered, index, weights=weights), x, index)
        changed = np.any(wrong != right, axis=tuple(range(right.ndim - 1)))
        assert changed.tolist() == [neuron == where[0] for neuron in range(layer.mh)]


@pytest.mark.parametrize("index", [0, 1, 3])
def test_moving_any_threshold_changes_what_its_layer_sends(index):
    lowered, x = small_network(7)
    right = sent(lowered, x, index)
    layer = lowered.stages[index]
    # Pixels are many levels apart.
    step = 64 if index == 0 else 2
    for neuron in range(layer.mh):
        moved = layer.thresholds.copy()
        moved[neuron] += step
        wrong = sent(mutant(lowered, index, thresholds=moved), x, index)
        changed = np.any(wrong != right, axis=tuple(range(right.ndim - 1)))
        assert changed.tolist() == [n == neuron for n in range(layer.mh)]


@pytest.mark.parametrize("index", [0, 3])
def test_the_pad_of_any_channel_matters_at_the_border_only(index):
    lowered, x = small_network(7)
    right = sent(lowered, x, index)
    window = lowered.stages[index].window
    top, left, bottom, right_side = window.padding
    rows, columns = window.out_shape
    inner = np.s_[:, top : rows - bottom, left : columns - right_side]
    for channel in range(len(window.pad)):
        pad = window.pad.copy()
        pad[channel] = 255 - pad[channel] if index == 0 else 1 - pad[channel]
        wrong = sent(mutant(lowered, index, window=replace(window, pad=pad)), x, index)
        assert np.any(wrong != right)
        np.testing.assert_array_equal(wrong[inner], right[inner])


def test_true_zeros_are_neither_bit():
    lowered, x = small_network(7)
    right = sent(lowered, x, 1)
    window = lowered.stages[1].window
    for bit in (0, 1):
        pad = np.full(4, bit, np.uint16)
        wrong = sent(mutant(lowered, 1, window=replace(window, pad=pad)), x, 1)
        assert np.any(wrong != right)
        np.testing.assert_array_equal(wrong[:, 1:-1, 1:-1], right[:, 1:-1, 1:-1])


def test_a_frame_reaches_a_dense_layer_in_the_order_rows_columns_channels():
    height, width, channels = shape = (2, 3, 2)
    copy = LoweredLayer(
        "copy",
        np.ones((channels, 1), np.int8),
        np.ones(channels, np.int32),
        Window(shape, (1, 1)),
        groups=channels,
    )
    size = height * width * channels
    # Class k has its largest accumulator where bit k is the only one.
    last = LoweredLayer("last", (2 * np.eye(size) - 1).astype(np.int8), None)
    lowered = network([copy, last])
    for row, column, channel in np.ndindex(shape):
        x = np.zeros((1, *shape), np.uint8)
        x[0, row, column, channel] = 1
        accumulators = golden.predict(lowered, x).accumulators[0]
        assert accumulators.argmax() == (row * width + column) * channels + channel
        assert accumulators.max() == size


def test_integer_products_are_exact_beyond_float32():
    # Their sum is odd and above 2**24, which float32 cannot hold.
    layer = LoweredLayer("wide", np.ones((1, 301), np.int8), None, None, 1, 65535)
    x = np.full((1, 301), 65535, np.uint16)
    assert float(np.float32(301 * 65535)) != 301 * 65535
    assert accumulate(layer, x).tolist() == [[301 * 65535]]


@pytest.mark.parametrize("size", [1, 7, 40, 41])
def test_frames_taken_a_few_at_a_time_give_the_same(size, monkeypatch):
    lowered, x = small_network(7)
    whole = golden.predict(lowered, x)
    monkeypatch.setattr(golden, "_CHUNK_BYTES", size * golden._bytes_per_frame(lowered))
    parts = golden.predict(lowered, x)
    frames = golden.predict_quantized(lowered, x.reshape(len(x), -1))
    for prediction in (parts, frames):
        for field in ("classes", "accumulators", "scores", "logits"):
            np.testing.assert_array_equal(getattr(prediction, field), getattr(whole, field))


def test_memory_does_not_grow_with_the_number_of_frames(monkeypatch):
    lowered, x = small_network(7)
    monkeypatch.setattr(golden, "_CHUNK_BYTES", 10 * golden._bytes_per_frame(lowered))
    peaks = []
    for count in (1, 20):
        many = np.tile(x, (count, 1, 1, 1))
        tracemalloc.start()
        golden.predict(lowered, many)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The frames alone would take 8 bytes a feature while they are quantized.
    answers = 20 * len(x) * 3 * 40
    assert peaks[1] - peaks[0] < answers < 20 * len(x) * lowered.input.features * 8 / 4


@pytest.mark.parametrize(
    "frames",
    [
        np.full((2, 108), 256),
        np.full((2, 108), -1),
        np.full((2, 108), 0.5),
        np.zeros((2, 107), np.uint16),
        np.zeros((2, 6, 6, 3), np.uint16),
    ],
)
def test_wrong_integers_are_refused(frames):
    lowered, _ = small_network(7)
    for function in (golden.predict_quantized, golden.activations):
        with pytest.raises(UserError, match=r"from 0 to 255|\(N, 108\)"):
            function(lowered, frames)


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0])
def test_a_network_on_bytes_takes_whole_bytes_only(value):
    network = Network("bytes", (2, 2, 1), (Flatten("flat"), Dense("fc", np.ones((2, 4), np.int8))))
    lowered = lower(network)
    x = np.full((1, 2, 2, 1), 7.0, np.float32)
    assert golden.predict(lowered, x).accumulators.tolist() == [[28, 28]]
    assert golden.predict(lowered, x.astype(np.uint8)).accumulators.tolist() == [[28, 28]]
    x[0, 1, 0, 0] = value
    with pytest.raises(UserError, match="whole numbers from 0 to 255"):
        golden.predict(lowered, x)
