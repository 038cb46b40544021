"""Popcount, PE array, thresholds, scores and ROMs against numpy, their clock enable stalled."""

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorflow.hw.pe_array import PEArray
from xnorflow.hw.popcount import Popcount
from xnorflow.hw.rom import ROM, ROMStyle, pack_lanes
from xnorflow.hw.score import ScoreUnit
from xnorflow.hw.threshold import ThresholdUnit
from xnorflow.sim.streams import pack_bits

seeds = st.integers(0, 1000)


def run_pipeline(component, inputs, outputs, latency, *, seed):
    """Feed a row of `inputs` (port name -> raw values) per enabled cycle; sample each row's output.

    The enable falls at random, and the inputs are garbage while it is low.
    """
    sim = Simulator(component)
    sim.add_clock(1e-6)
    rng = np.random.default_rng(seed)
    names = list(inputs)
    rows = list(zip(*inputs.values(), strict=True))
    sampled = []

    async def testbench(ctx):
        for step in range(len(rows) + latency):
            while rng.random() < 0.3:
                ctx.set(component.en, 0)
                for name in names:
                    port = Value.cast(getattr(component, name))
                    ctx.set(port, int(rng.integers(0, 2)))
                await ctx.tick()
            ctx.set(component.en, 1)
            for name, value in zip(names, rows[min(step, len(rows) - 1)], strict=True):
                ctx.set(Value.cast(getattr(component, name)), value)
            if step >= latency:
                sampled.append([ctx.get(Value.cast(getattr(component, o))) for o in outputs])
            await ctx.tick()

    sim.add_testbench(testbench)
    sim.run()
    return sampled


def lanes_of(raw, width, lanes, *, signed=False):
    values = [(raw >> (width * lane)) & ((1 << width) - 1) for lane in range(lanes)]
    return [v - (1 << width) if signed and v >> (width - 1) else v for v in values]


@settings(max_examples=12)
@given(width=st.integers(1, 70), seed=seeds)
def test_popcount_counts_ones(width, seed):
    bits = np.random.default_rng(seed).random((12, width)) < 0.6
    bits[0], bits[1] = False, True
    popcount = Popcount(width)
    got = run_pipeline(popcount, {"i": pack_bits(bits, width)}, ["o"], popcount.latency, seed=seed)
    assert [row[0] for row in got] == bits.sum(axis=1).tolist()


def test_popcount_refuses_no_bits():
    with pytest.raises(ValueError, match="width must be at least 1"):
        Popcount(0)


@settings(max_examples=12)
@given(pe=st.integers(1, 4), simd=st.integers(1, 9), folds=st.integers(1, 4), seed=seeds)
def test_pe_array_counts_agreeing_synapses(pe, simd, folds, seed):
    rng = np.random.default_rng(seed)
    neurons = 5
    a = rng.random((neurons * folds, simd)) < 0.5
    w = rng.random((neurons * folds, pe, simd)) < 0.5
    array = PEArray(pe, simd, folds)
    inputs = {
        "a": pack_bits(a, simd),
        "w": pack_bits(w, pe * simd),
        "valid": [1] * len(a),
        "first": [int(step % folds == 0) for step in range(len(a))],
    }
    got = run_pipeline(array, inputs, ["o"], array.latency, seed=seed)
    width = array.o.shape().elem_shape
    agree = (w == a[:, None, :]).sum(axis=2).reshape(neurons, folds, pe).sum(axis=1)
    settled = [lanes_of(row[0], width, pe) for row in got[folds - 1 :: folds]]
    assert settled == agree.tolist()


def test_pe_array_ignores_steps_that_are_not_valid():
    array = PEArray(1, 4, 2)
    inputs = {"a": [15, 15, 15], "w": [15, 15, 15], "valid": [1, 0, 1], "first": [1, 0, 0]}
    got = run_pipeline(array, inputs, ["o"], array.latency, seed=3)
    assert got[-1] == [8]


@settings(max_examples=12)
@given(folds=st.integers(1, 5), pe=st.integers(1, 4), top=st.integers(1, 40), seed=seeds)
def test_threshold_unit_compares_with_its_folds_threshold(folds, pe, top, seed):
    rng = np.random.default_rng(seed)
    thresholds = rng.integers(0, top + 2, (folds, pe))
    thresholds[0, 0], thresholds[-1, -1] = 0, top + 1
    counts = rng.integers(0, top + 1, (6 * folds, pe))
    counts[0], counts[1 % len(counts)] = 0, top
    unit = ThresholdUnit(thresholds, top)
    fold = np.arange(len(counts)) % folds
    inputs = {
        "i": pack_lanes(counts, unit.i.shape().elem_shape),
        "fold": fold.tolist(),
    }
    got = run_pipeline(unit, inputs, ["o"], unit.latency, seed=seed)
    assert [row[0] for row in got] == pack_bits(counts >= thresholds[fold], pe)


@pytest.mark.parametrize("bad", [-1, 10])
def test_threshold_unit_refuses_thresholds_out_of_range(bad):
    with pytest.raises(ValueError, match=r"thresholds must lie in 0\.\.9"):
        ThresholdUnit(np.array([[bad]]), 8)


@settings(max_examples=12)
@given(
    folds=st.integers(1, 4),
    pe=st.integers(1, 3),
    top=st.integers(1, 40),
    same=st.booleans(),
    seed=seeds,
)
def test_score_unit_is_the_integer_affine_of_the_accumulator(folds, pe, top, same, seed):
    rng = np.random.default_rng(seed)
    scale = rng.integers(-30, 31, (folds, pe)) if not same else np.ones((folds, pe), int)
    offset = rng.integers(-500, 501, (folds, pe))
    counts = rng.integers(0, top + 1, (6 * folds, pe))
    counts[0], counts[1 % len(counts)] = 0, top
    unit = ScoreUnit(scale, offset, top)
    fold = np.arange(len(counts)) % folds
    inputs = {"i": pack_lanes(counts, unit.i.shape().elem_shape), "fold": fold.tolist()}
    got = run_pipeline(unit, inputs, ["o"], unit.latency, seed=seed)
    expected = scale[fold] * (2 * counts - top) + offset[fold]
    assert [lanes_of(row[0], unit.width, pe, signed=True) for row in got] == expected.tolist()


@pytest.mark.parametrize("style", [ROMStyle.LUT, ROMStyle.BRAM])
def test_rom_gives_its_words_a_cycle_later(style):
    words = [5, 0, 7, 2, 6]
    got = run_pipeline(ROM(words, 3, style), {"addr": [0, 1, 2, 3, 4]}, ["data"], 1, seed=1)
    assert [row[0] for row in got] == words


def test_constant_rom_refuses_a_second_word():
    with pytest.raises(ValueError, match="use lut or bram"):
        ROM([1, 2], 3, ROMStyle.CONSTANT)


def test_rom_refuses_a_word_that_is_too_wide():
    with pytest.raises(ValueError, match="words of 3 bits"):
        ROM([8], 3, ROMStyle.CONSTANT)
