"""Cores of several levels, planes and shortcuts against the golden model, bit and cycle."""

from fractions import Fraction

import numpy as np
import pytest
from family_networks import FamilyMaker
from foldings import random_folding
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from xnorflow.assemble import assemble
from xnorflow.errors import UserError
from xnorflow.fifo_sizing import fifo_depths
from xnorflow.folding import LayerFolding
from xnorflow.golden import quantize
from xnorflow.lowering import lower
from xnorflow.network import Conv2d, Dense, Flatten, Join, Network, Quantize, Sign
from xnorflow.pipeline import JoinStage, cycles_per_frame, pipeline
from xnorflow.planes import bit_planes
from xnorflow.sim.verify import verify
from xnorflow.timing import latency

seeds = st.integers(0, 1_000_000)


def drawn(seed):
    """Return a random network, lowered, with a folding and three quantized frames."""
    network = FamilyMaker(seed).network()
    try:
        lowered = lower(network)
    except UserError:
        reject()
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 5, (3, *network.input_shape)).astype(np.uint8)
    return lowered, random_folding(rng, lowered), quantize(lowered, frames)


@settings(max_examples=8)
@given(seed=seeds, stall=st.sampled_from([0.0, 0.2, 0.7]))
def test_random_networks_are_bit_exact_under_back_pressure(seed, stall):
    lowered, folding, frames = drawn(seed)
    core = assemble(lowered, folding)
    result = verify(core, lowered, frames, stall=stall, seed=seed, watch_layers=True)
    assert result.mismatches == 0
    assert not any(result.layer_mismatches.values())
    # What came before a frame leaves nothing behind.
    assert verify(core, lowered, frames[-1:]).classes[0] == result.classes[-1]


@settings(max_examples=4)
@given(seed=seeds)
def test_cycles_and_latency_are_the_predicted_ones(seed):
    lowered, folding, frames = drawn(seed)
    assume(cycles_per_frame(lowered, folding) >= 40)
    hold_to_prediction(lowered, folding, frames)


def hold_to_prediction(lowered, folding, frames):
    stages = pipeline(lowered, folding)
    core = assemble(lowered, folding)
    result = verify(core, lowered, np.concatenate([frames, frames]))
    most = latency(stages, fifo_depths(stages), paced=True)
    assert core.latency <= result.latency_cycles <= most
    assert result.cycles_per_frame == core.cycles_per_frame == cycles_per_frame(lowered, folding)


@pytest.mark.parametrize(
    "seed",
    [
        *(55, 58),  # stages beside a shortcut with many registers, and no cycle to spare
        *(86, 99),  # a layer beside a shortcut, or the next frame, holds the first one up
    ],
)
def test_what_is_beside_a_shortcut_has_the_predicted_cycles(seed):
    hold_to_prediction(*drawn(seed))


def planes(rng, shape, bits):
    weights, coefficients, _ = bit_planes(rng.integers(-(1 << bits) + 1, 1 << bits, shape) | 1)
    return weights, {"coefficients": coefficients}


@pytest.mark.parametrize("pe", [1, 3, 6, 12])
def test_planes_one_behind_the_other_and_side_by_side(pe):
    rng = np.random.default_rng(5)
    weights, more = planes(rng, (4, 16), 3)
    last, last_more = planes(rng, (2, 4), 2)
    network = Network(
        "planes",
        (16,),
        (
            Quantize("in", Fraction(1), Fraction(0), 0, 3),
            Dense("fc", weights, **more),
            Quantize("levels", Fraction(8), Fraction(0), 0, 3),
            Dense("last", last, **last_more),
        ),
    )
    lowered = lower(network)
    folding = {"fc": LayerFolding(pe, 4, "lut"), "last": LayerFolding(2, 2, "lut")}
    frames = quantize(lowered, rng.integers(0, 4, (8, 16)).astype(np.uint8))
    result = verify(assemble(lowered, folding), lowered, frames, stall=0.2, watch_layers=True)
    assert result.mismatches == 0
    assert folding["fc"].cycles(lowered.layers[0]) == 12 // pe * 4


def test_a_shortcut_past_windows_has_the_fifo_that_full_speed_needs():
    rng = np.random.default_rng(3)
    signs = np.array([-1, 1], np.int8)
    conv = [rng.choice(signs, (4, 3, 3, n)) for n in (1, 4, 4)]
    border = (1, 1, 1, 1)
    network = Network(
        "residual",
        (10, 10, 1),
        (
            Sign("in"),
            Conv2d("first", conv[0], padding=border),
            Sign("s1"),
            Conv2d("a", conv[1], padding=border),
            Sign("s2"),
            Conv2d("b", conv[2], padding=border),
            Join("add", 2, (), "add"),
            Sign("s3"),
            Flatten("flat"),
            Dense("last", rng.choice(signs, (3, 400))),
        ),
    )
    lowered = lower(network)
    folding = {
        "first": LayerFolding(4, 9, "lut"),
        "a": LayerFolding(4, 36, "lut"),
        "b": LayerFolding(4, 36, "lut"),
        "last": LayerFolding(1, 8, "lut"),
    }
    frames = rng.random((5, 100)) < 0.5
    stages = pipeline(lowered, folding)
    (join,) = (n for n, stage in enumerate(stages) if isinstance(stage, JoinStage))
    # Two windows of 3 x 3 hold back a row and a pixel each.
    (depth,) = fifo_depths(stages).sides[join]
    assert 22 <= depth <= 48
    core = assemble(lowered, folding)
    result = verify(core, lowered, frames, watch_layers=True)
    assert (result.mismatches, result.cycles_per_frame) == (0, cycles_per_frame(lowered, folding))
    # Stages with no cycle to spare hold each other up while the pipeline fills.
    most = latency(stages, fifo_depths(stages), paced=True)
    assert core.latency <= result.latency_cycles <= most
