"""Padding: channels that mean nothing change nothing."""

from dataclasses import replace

import numpy as np
from foldings import random_folding
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import random_cnn, random_frames, random_network

from xnorflow.assemble import assemble
from xnorflow.golden import activations, quantize
from xnorflow.lowered import InputQuantizer
from xnorflow.lowering import lower
from xnorflow.padding import legal_widths, own_widths, pad
from xnorflow.sim.verify import verify

seeds = st.integers(0, 1_000_000)


def drawn(seed):
    """Return a random network, lowered, and frames."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.3:
        widths = [int(n) for n in rng.integers(3, 24, rng.integers(3, 5))]
        network = random_network(rng, widths)
    else:
        network = random_cnn(rng, channels=12, classes=int(rng.choice([3, 5, 7])))
    return rng, lower(network), random_frames(rng, network, 5)


def widened(frames, lowered, width):
    """Return quantized frames with zeros behind each pixel's channels."""
    channels = own_widths(lowered)[0]
    pixels = frames.reshape(len(frames), -1, channels)
    return np.pad(pixels, ((0, 0), (0, 0), (0, width - channels))).reshape(len(frames), -1)


@settings(max_examples=100)
@given(seed=seeds)
def test_the_channels_that_were_there_before_stay_as_they_were(seed):
    rng, lowered, x = drawn(seed)
    widths = [int(rng.choice(legal)) for legal in legal_widths(lowered)]
    assume(widths != own_widths(lowered))
    frames = quantize(lowered, x)
    wider = widened(frames, lowered, widths[0])
    taken = InputQuantizer(wider.shape[1:], np.zeros((lowered.input.levels, 1), np.float32))
    padded = activations(replace(pad(lowered, widths), input=taken), wider)
    for expected, got in zip(activations(lowered, frames), padded, strict=True):
        assert np.array_equal(expected, got[..., : expected.shape[-1]])


@settings(max_examples=10)
@given(seed=seeds, stall=st.sampled_from([0.0, 0.2, 0.7]))
def test_padded_hardware_is_bit_exact_under_back_pressure(seed, stall):
    rng, lowered, x = drawn(seed)
    folding = random_folding(rng, lowered, padded=True)
    core = assemble(lowered, folding)
    frames = quantize(lowered, x)
    result = verify(core, lowered, frames, stall=stall, seed=seed, watch_layers=True)
    assert result.mismatches == 0
    assert not any(result.layer_mismatches.values())
