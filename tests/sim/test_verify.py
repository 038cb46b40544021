"""Whole cores against the golden model and onnxruntime, and mutations that must be caught."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from foldings import random_folding
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_frames, random_network, to_plain_onnx

from xnorflow.assemble import assemble
from xnorflow.errors import WorkFailed
from xnorflow.folding import LayerFolding
from xnorflow.golden import activations, predict
from xnorflow.lowered import LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.pipeline import cycles_per_frame
from xnorflow.sim.amaranth_engine import run_core
from xnorflow.sim.verify import verify

widths = st.lists(st.integers(1, 16), min_size=2, max_size=4)
seeds = st.integers(0, 10_000)
stalls = st.sampled_from([0.0, 0.2, 0.7])


@settings(max_examples=25)
@given(widths=widths, seed=seeds, stall=stalls)
def test_random_networks_are_bit_exact_under_back_pressure(widths, seed, stall):
    rng = np.random.default_rng(seed)
    network = random_network(rng, widths)
    lowered = lower(network)
    x = random_frames(rng, network, 6)
    session = onnxruntime.InferenceSession(to_plain_onnx(network).SerializeToString())
    (logits,) = session.run(None, {session.get_inputs()[0].name: x})
    core = assemble(lowered, random_folding(rng, lowered))
    result = verify(
        core, lowered, lowered.input.quantize(x), stall=stall, seed=seed, watch_layers=True
    )
    assert result.mismatches == 0
    assert not any(result.layer_mismatches.values())
    assert list(result.classes) == logits.argmax(axis=1).tolist()


@settings(max_examples=40)
@given(widths=widths, seed=seeds)
def test_latency_and_cycles_per_frame_are_the_predicted_ones(widths, seed):
    rng = np.random.default_rng(seed)
    lowered = lower(random_network(rng, widths))
    folding = random_folding(rng, lowered)
    core = assemble(lowered, folding)
    bits = rng.random((12, widths[0])) < 0.5
    result = verify(core, lowered, bits)
    assert result.latency_cycles == core.latency
    assert result.cycles_per_frame == core.cycles_per_frame == cycles_per_frame(lowered, folding)


@pytest.fixture(scope="module")
def network():
    """A network, and one folding with several folds and PEs in every layer."""
    lowered = lower(random_network(np.random.default_rng(5), [24, 12, 8, 4], preprocess=False))
    names = [layer.name for layer in lowered.layers]
    folds = [LayerFolding(4, 6, "bram"), LayerFolding(2, 4, "lut"), LayerFolding(2, 2, "bram")]
    return lowered, dict(zip(names, folds, strict=True))


def bits_of(lowered: LoweredNetwork) -> np.ndarray:
    return np.random.default_rng(6).random((24, lowered.layers[0].mw)) < 0.5


def mutated(lowered: LoweredNetwork, index: int, **changes) -> LoweredNetwork:
    layers = list(lowered.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(lowered, stages=tuple(layers))


def mismatches(lowered, hardware, folding) -> int:
    """Check hardware made from `hardware` against the meaning of `lowered`."""
    core = assemble(hardware, folding)
    return verify(core, lowered, bits_of(lowered), watch_layers=True).mismatches


def test_the_unchanged_network_has_no_mismatch(network):
    lowered, folding = network
    assert mismatches(lowered, lowered, folding) == 0


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_one_flipped_weight_bit_is_caught(network, layer):
    lowered, folding = network
    weights = lowered.layers[layer].weights.copy()
    neuron = live_neuron(lowered, layer)
    weights[neuron, 1] *= -1
    assert mismatches(lowered, mutated(lowered, layer, weights=weights), folding) > 0


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("step", [-2, 2])
def test_one_threshold_moved_by_one_step_is_caught(network, layer, step):
    lowered, folding = network
    # An accumulator moves in steps of 2: a threshold one count of the popcount off.
    thresholds = lowered.layers[layer].thresholds.copy()
    thresholds[live_neuron(lowered, layer)] += step
    assert mismatches(lowered, mutated(lowered, layer, thresholds=thresholds), folding) > 0


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_two_swapped_lanes_are_caught(network, layer):
    lowered, folding = network
    weights = lowered.layers[layer].weights.copy()
    neuron = live_neuron(lowered, layer)
    left, right = next(
        (a, b)
        for a in range(weights.shape[1])
        for b in range(a)
        if weights[neuron, a] != weights[neuron, b]
    )
    weights[:, [left, right]] = weights[:, [right, left]]
    assert mismatches(lowered, mutated(lowered, layer, weights=weights), folding) > 0


def test_one_score_off_by_one_is_caught(network):
    lowered, folding = network
    offset = lowered.output.offset.copy()
    offset[-1] += 1
    hardware = replace(lowered, output=replace(lowered.output, offset=offset))
    assert mismatches(lowered, hardware, folding) > 0


def live_neuron(lowered: LoweredNetwork, layer: int) -> int:
    """Return a neuron whose output varies the most over the test's frames."""
    share = activations(lowered, bits_of(lowered))[layer]
    if share.dtype != bool:
        return 0
    return int(np.argmin(np.abs(share.mean(axis=0) - 0.5)))


def test_stalls_lower_the_throughput_but_not_the_outputs(network):
    lowered, folding = network
    core = assemble(lowered, folding)
    slow = verify(core, lowered, bits_of(lowered)[:6], stall=0.9, seed=1)
    assert slow.mismatches == 0
    assert slow.cycles_per_frame > core.cycles_per_frame


def test_accuracy_counts_the_hardwares_classes(network):
    lowered, folding = network
    bits = bits_of(lowered)
    core = assemble(lowered, folding)
    run = run_core(core, bits)
    labels = run.classes.copy()
    labels[:6] = (labels[:6] + 1) % lowered.classes
    result = verify(core, lowered, bits, labels)
    assert result.accuracy == 1 - 6 / len(bits)


def test_vcd_is_written(network, tmp_path):
    lowered, folding = network
    path = tmp_path / "core.vcd"
    core = assemble(lowered, folding)
    verify(core, lowered, bits_of(lowered)[:1], vcd=path)
    text = path.read_text()
    assert "$enddefinitions" in text
    assert all(f"module stage_{n}_{stage.name} " in text for n, stage in enumerate(core.stages))


def test_the_classes_are_those_of_predict():
    rng = np.random.default_rng(11)
    network = random_network(rng, [12, 6, 3])
    lowered = lower(network)
    x = random_frames(rng, network, 20)
    core = assemble(lowered, random_folding(rng, lowered))
    result = verify(core, lowered, lowered.input.quantize(x))
    assert list(result.classes) == predict(lowered, x).classes.tolist()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_core_that_hangs_is_reported(network):
    lowered, folding = network
    core = assemble(lowered, folding)
    core.o_beats += 1
    with pytest.raises(WorkFailed, match="no output for"):
        run_core(core, bits_of(lowered)[:2])
