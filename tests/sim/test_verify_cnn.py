"""Convolutional cores against the golden model and onnxruntime, and what their FIFOs hold."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import onnxruntime
from amaranth import Cat, Module, Signal
from amaranth.sim import Simulator
from foldings import random_folding
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import random_cnn, random_frames, to_plain_onnx

from xnorflow.assemble import assemble
from xnorflow.fifo_sizing import Depths
from xnorflow.folding import LayerFolding
from xnorflow.golden import predict, quantize
from xnorflow.hw.fifo import StreamFIFO
from xnorflow.lowering import lower
from xnorflow.network import (
    Affine,
    AveragePool,
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Sign,
)
from xnorflow.pipeline import cycles_per_frame, pipeline
from xnorflow.sim.streams import collect, drive, pack_bits
from xnorflow.sim.verify import verify

seeds = st.integers(0, 1_000_000)


def drawn(seed):
    """Return a random network, lowered, with a folding and six frames."""
    rng = np.random.default_rng(seed)
    network = random_cnn(rng)
    lowered = lower(network)
    return network, lowered, random_folding(rng, lowered), random_frames(rng, network, 6)


@settings(max_examples=20)
@given(seed=seeds, stall=st.sampled_from([0.0, 0.2, 0.7]))
def test_random_networks_are_bit_exact_under_back_pressure(seed, stall):
    _, lowered, folding, x = drawn(seed)
    core = assemble(lowered, folding)
    frames = quantize(lowered, x)
    result = verify(core, lowered, frames, stall=stall, seed=seed, watch_layers=True)
    assert result.mismatches == 0
    assert not any(result.layer_mismatches.values())
    # What came before a frame leaves nothing behind.
    assert verify(core, lowered, frames[-1:]).classes[0] == result.classes[-1]


def test_zero_padding_between_bytes_is_bit_exact():
    rng = np.random.default_rng(8)
    signs = np.array([-1, 1], np.int8)
    conv = Conv2d("conv", rng.choice(signs, (3, 3, 3, 2)), (2, 2), (1, 1), (0, 1, 1, 1))
    ops = (
        Affine("pixels", (Fraction(2, 255),), (Fraction(-1),)),
        conv,
        Affine("bias", (Fraction(1),), (Fraction(1), Fraction(-1, 2), Fraction(0))),
        Sign("sign"),
        AveragePool("pool"),
        Flatten("flatten"),
        Dense("dense", rng.choice(signs, (4, 3))),
    )
    lowered = lower(Network("centred", (5, 4, 2), ops))
    assert lowered.layers[0].levels == 510
    x = rng.integers(0, 256, (12, 5, 4, 2)).astype(np.uint8)
    core = assemble(lowered, random_folding(rng, lowered))
    result = verify(core, lowered, quantize(lowered, x), stall=0.2, seed=1, watch_layers=True)
    assert result.mismatches == 0


@settings(max_examples=60)
@given(seed=seeds)
def test_the_golden_model_gives_what_onnxruntime_gives(seed):
    network, lowered, _, x = drawn(seed)
    # A third of an integer is no float32: then sums at a threshold may fall on either side.
    sizes = [op.kernel for op in network.ops if isinstance(op, AveragePool)]
    assume(all(size is not None and (size[0] * size[1]).bit_count() == 1 for size in sizes))
    session = onnxruntime.InferenceSession(to_plain_onnx(network).SerializeToString())
    (logits,) = session.run(None, {"input": x})
    prediction = predict(lowered, x)
    assert prediction.classes.tolist() == logits.reshape(len(x), -1).argmax(axis=1).tolist()


def balanced():
    """Return a network and a folding in which two layers wait for rows that come in bursts."""
    rng = np.random.default_rng(0)
    ops = [Sign("sign_in")]
    for index, (depth, count) in enumerate(pairwise((1, 4, 4, 8))):
        weights = rng.choice(np.array([-1, 1], np.int8), (count, 3, 3, depth))
        ops.append(Conv2d(f"conv{index}", weights))
        if index < 2:
            ops += [Affine(f"half{index}", offset=(Fraction(1, 2),)), Sign(f"sign{index}")]
    ops.insert(-1, MaxPool("pool", (2, 2), (2, 2)))
    lowered = lower(Network("balanced", (18, 18, 1), (*ops, AveragePool("average"))))
    choices = {"conv0": (4, 9), "conv1": (2, 36), "conv2": (2, 9)}
    return lowered, {name: LayerFolding(*pair, "lut") for name, pair in choices.items()}


FRAMES = np.random.default_rng(1).random((6, 18 * 18)) < 0.5


def test_without_fifos_the_slowest_layer_starves_and_with_them_it_does_not(monkeypatch):
    lowered, folding = balanced()
    with_fifos = verify(assemble(lowered, folding), lowered, FRAMES)
    assert with_fifos.cycles_per_frame == cycles_per_frame(lowered, folding) == 400
    assert with_fifos.mismatches == 0
    monkeypatch.setattr("xnorflow.assemble.fifo_depths", lambda stages: Depths([0] * len(stages)))
    without = verify(assemble(lowered, folding), lowered, FRAMES)
    assert without.cycles_per_frame > 440
    assert without.mismatches == 0


def test_fifos_are_filled_as_far_as_was_foreseen():
    lowered, folding = balanced()
    core = assemble(lowered, folding)
    fifos = [stage.unit for stage in core.stages if isinstance(stage.unit, StreamFIFO)]
    top = Module()
    top.submodules.core = core
    cycle = Signal(32)
    top.d.sync += cycle.eq(cycle + 1)
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    most = [0] * len(fifos)

    async def source(ctx):
        beats = pack_bits(FRAMES, core.i_lanes)
        for number, beat in enumerate(beats):
            # Paced at the initiation interval, as the sizing assumes.
            while ctx.get(cycle) < number * 400 // 324:
                await ctx.tick()
            await drive(ctx, core.i, [beat])

    async def sink(ctx):
        await collect(ctx, core.o, len(FRAMES) * core.o_beats)

    async def gauge(ctx):
        levels = Cat(fifo.level for fifo in fifos)
        async for _clk, _rst, value in ctx.tick().sample(levels):
            for index, fifo in enumerate(fifos):
                most[index] = max(most[index], value & (1 << len(fifo.level)) - 1)
                value >>= len(fifo.level)

    simulator.add_testbench(source)
    simulator.add_testbench(sink)
    simulator.add_testbench(gauge, background=True)
    simulator.run()
    for fifo, level in zip(fifos, most, strict=True):
        assert 0.7 * fifo.depth <= level <= fifo.depth


@settings(max_examples=15)
@given(seed=seeds)
def test_cycles_and_latency_are_the_predicted_ones(seed):
    _, lowered, folding, x = drawn(seed)
    stages = pipeline(lowered, folding)
    # Where a second stage has hardly a cycle to spare, nothing makes up for a cycle that the
    # pipeline's registers cost.
    busiest = sorted(stage.cycles for stage in stages)[-2:]
    assume(busiest[-1] >= 40 and busiest[0] <= 0.9 * busiest[-1])
    core = assemble(lowered, folding)
    result = verify(core, lowered, quantize(lowered, np.concatenate([x, x])))
    # The prediction leaves out that a stage may hold up the one before it within a frame.
    assert core.latency <= result.latency_cycles <= 1.05 * core.latency
    assert result.cycles_per_frame == core.cycles_per_frame == cycles_per_frame(lowered, folding)
