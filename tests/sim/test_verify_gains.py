"""Cores with gains of pixels against the golden model, bit and cycle."""

import numpy as np
import pytest
from foldings import random_folding
from gain_networks import GainMaker

from xnorflow.assemble import assemble
from xnorflow.cost import FAMILIES, estimate
from xnorflow.fifo_sizing import fifo_depths
from xnorflow.golden import quantize
from xnorflow.lowering import lower
from xnorflow.pipeline import JoinStage, MagnitudeStage, cycles_per_frame, pipeline
from xnorflow.search import Budget, smallest
from xnorflow.sim.verify import verify
from xnorflow.timing import latency_cycles

#: Seeds of networks in which no second stage is nearly as slow as the slowest one.
PACED = (0, 1, 14, 21)


def drawn(seed, exact):
    """Return a random network, lowered, with a folding and three quantized frames."""
    network = GainMaker(seed, exact).network()
    lowered = lower(network)
    rng = np.random.default_rng(seed)
    foldings = [random_folding(rng, lowered) for _ in range(4)]
    # Neither many cycles nor many units in parallel, which take long to simulate.
    folding = min(foldings, key=lambda one: abs(cycles_per_frame(lowered, one) - 200))
    frames = rng.integers(0, 5, (3, *network.input_shape)).astype(np.uint8)
    return lowered, folding, quantize(lowered, frames)


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_are_bit_exact_under_back_pressure(seed):
    lowered, folding, frames = drawn(seed, seed % 2 == 0)
    core = assemble(lowered, folding)
    stall = [0.0, 0.2, 0.7][seed // 2]
    result = verify(core, lowered, frames, stall=stall, seed=seed, watch_layers=True)
    assert result.mismatches == 0
    assert not any(result.layer_mismatches.values())
    # What came before a frame leaves nothing behind.
    assert verify(core, lowered, frames[-1:]).classes[0] == result.classes[-1]


@pytest.mark.parametrize("seed", PACED)
def test_cycles_and_latency_are_the_predicted_ones(seed):
    lowered, folding, frames = drawn(seed, seed % 2 == 0)
    busiest = sorted(stage.cycles for stage in pipeline(lowered, folding))[-2:]
    assert busiest[0] <= 0.9 * busiest[1]
    core = assemble(lowered, folding)
    result = verify(core, lowered, np.concatenate([frames, frames]))
    assert core.latency == latency_cycles(lowered, folding)
    assert core.latency <= result.latency_cycles <= 1.05 * core.latency
    assert result.cycles_per_frame == core.cycles_per_frame == cycles_per_frame(lowered, folding)


@pytest.fixture(scope="module")
def gained():
    """Return a network with a gain of pixels, lowered."""
    for seed in range(100):
        lowered = lower(GainMaker(seed, False).network())
        joins = [s for s in lowered.stages if getattr(s, "how", "") == "multiply"]
        if any(len(join.path) == 2 and join.path[1].window.taps >= 6 for join in joins):
            return lowered
    raise AssertionError("no such network")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=str)
def test_a_search_keeps_to_its_cycles_and_counts_the_units(gained, family):
    paced = smallest(gained, family, Budget(1e6, 1000), 3000)
    assert paced.cycles <= 3000
    assert paced.cycles == cycles_per_frame(gained, paced.folding)
    stages = pipeline(gained, paced.folding)
    joins = [stage for stage in stages if isinstance(stage, JoinStage)]
    assert all(isinstance(join.side[0], MagnitudeStage) for join in joins)
    costs = estimate(family, gained, paced.folding)
    assert (sum(cost.dsp for cost in costs.values()) > 0) == family.multipliers


def test_no_folding_is_faster_than_the_boxes(gained):
    folding = random_folding(np.random.default_rng(0), gained)
    for stage in pipeline(gained, folding):
        if isinstance(stage, JoinStage):
            # It is known before the shortcut's stages are.
            assert JoinStage(stage.join, stage.lanes).cycles >= max(
                (part.cycles for part in stage.side[1:]), default=0
            )


def test_the_gains_wait_for_the_layer_that_they_multiply(gained):
    stages = pipeline(gained, random_folding(np.random.default_rng(0), gained))
    depths = fifo_depths(stages)
    assert all(depths.sides[stages.index(s)][-1] for s in stages if isinstance(s, JoinStage))
