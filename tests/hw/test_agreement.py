"""Agreements, carry chains and accumulators with thresholds against numpy, and cells by truth."""

import re
from itertools import product
from unittest.mock import patch

import numpy as np
import pytest
from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.back import rtlil
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_bench import lanes_of, mixed, run_pipeline

from xnorflow.cost import FAMILIES
from xnorflow.hw import carry_chain
from xnorflow.hw.accumulator import ThresholdAccumulator
from xnorflow.hw.agreement import LEAF, AgreementTree, agreement_latency, leaf_sizes
from xnorflow.hw.carry_chain import (
    LONGEST,
    LONGEST_CCU2C,
    add,
    chain_parts,
    chain_sums,
    inject,
    number_sums,
)
from xnorflow.hw.counting import Counting, lut4
from xnorflow.hw.pe_array import PEArray
from xnorflow.hw.rom import pack_lanes
from xnorflow.hw.shared_counts import SharedCounts
from xnorflow.sim.streams import pack_bits

SIMULATED = [Counting.LUTS, Counting.CHAINS]

seeds = st.integers(0, 1000)


def counted(tree, a, w, seed):
    """Return what a tree counts of inputs (steps, simd) and weights (steps, pe, simd)."""
    encoded = tree.encode(w)
    inputs = {
        "a": pack_bits(mixed(tree, a), tree.simd),
        "w": pack_bits(encoded.reshape(len(a), -1), tree.pe * tree.simd),
    }
    got = run_pipeline(tree, inputs, ["o", "late"], tree.latency, seed=seed)
    width = tree.o.shape().elem_shape
    counts = np.array([lanes_of(row[0], width, tree.pe) for row in got])
    late = np.array([lanes_of(row[1], 1, tree.pe) for row in got])
    return counts + late


@pytest.mark.parametrize("counting", SIMULATED)
@pytest.mark.parametrize("lanes", range(1, LEAF + 1))
def test_a_leaf_counts_every_pattern(counting, lanes):
    patterns = np.array(list(product([False, True], repeat=lanes)))
    a = np.repeat(patterns, len(patterns), axis=0) if lanes < 5 else np.tile(patterns, (4, 1))
    rng = np.random.default_rng(lanes)
    w = np.tile(patterns, (len(patterns), 1)) if lanes < 5 else rng.random(a.shape) < 0.5
    tree = AgreementTree(1, lanes, counting)
    assert np.array_equal(counted(tree, a, w[:, None], 1)[:, 0], (a == w).sum(axis=1))


@settings(max_examples=25)
@given(
    pe=st.integers(1, 5),
    simd=st.integers(1, 70),
    counting=st.sampled_from(SIMULATED),
    late=st.booleans(),
    leaf=st.integers(1, 2),
    seed=seeds,
)
def test_agreement_tree_counts_agreeing_lanes(pe, simd, counting, late, leaf, seed):
    rng = np.random.default_rng(seed)
    a, w = rng.random((8, simd)) < 0.5, rng.random((8, pe, simd)) < 0.5
    a[0], w[0] = True, True  # all agree
    a[1], w[1] = True, False  # none
    tree = AgreementTree(pe, simd, counting, late=late, leaf_latency=leaf)
    assert np.array_equal(counted(tree, a, w, seed), (a[:, None] == w).sum(axis=2))


@settings(max_examples=25)
@given(pe=st.integers(1, 12), simd=st.integers(1, 70), late=st.booleans(), seed=seeds)
def test_shared_counts_are_those_of_constant_weights(pe, simd, late, seed):
    rng = np.random.default_rng(seed)
    weights, a = rng.random((pe, simd)) < 0.5, rng.random((9, simd)) < 0.5
    weights[0], weights[-1] = True, False
    a[0], a[1], a[2] = True, False, weights[pe // 2]
    counts = SharedCounts(weights, Counting.LUTS, late=late)
    inputs = {"a": pack_bits(a, simd)}
    got = run_pipeline(counts, inputs, ["o", "late"], counts.latency, seed=seed)
    width = counts.o.shape().elem_shape
    found = np.array([lanes_of(row[0], width, pe) for row in got])
    beside = np.array([lanes_of(row[1], 1, pe) for row in got])
    assert np.array_equal(found + beside, (a[:, None] == weights).sum(axis=2))
    assert counts.uses_late == (late and simd % 8 == 0) or not beside.any()


@pytest.mark.parametrize("lanes", range(1, LEAF + 1))
def test_shared_counts_are_right_for_every_pattern(lanes):
    patterns = np.array(list(product([False, True], repeat=lanes)))
    counts = SharedCounts(patterns, Counting.LUTS)
    inputs = {"a": pack_bits(patterns, lanes)}
    got = run_pipeline(counts, inputs, ["o"], counts.latency, seed=1)
    width = counts.o.shape().elem_shape
    found = [lanes_of(row[0], width, len(patterns)) for row in got]
    assert found == (patterns[:, None] == patterns).sum(axis=2).tolist()


def test_leaves_and_what_is_added_behind_them_are_all_lanes():
    for late in (False, True):
        for lanes in range(1, 300):
            sizes = leaf_sizes(lanes, late)
            assert max(sizes) <= LEAF
            assert 0 <= lanes - sum(sizes) <= len(sizes) - 1 + late
            depth = (len(sizes) - 1).bit_length()
            assert [agreement_latency(lanes, late, leaf) - depth for leaf in (1, 2)] == [1, 2]
    assert leaf_sizes(32, True) == (7, 7, 7, 7)


def ccu2c_half(init, bits, carry):
    """Return sum and carry of half a CCU2C, as yosys' model in `ecp5/cells_sim.v` says."""
    propagate = init >> sum(bit << n for n, bit in enumerate(bits)) & 1
    generate = init >> (bits[0] + 2 * bits[1]) & 1
    return propagate ^ carry, carry if propagate else generate


def ccu2c_model(m, slots, name):
    """Return the sums of a chain of CCU2C, for Amaranth's simulator, which has no such cell."""
    sums, carry = [], Const(0, 1)
    for n, slot in enumerate(slots):
        pins, after = Signal(4, name=f"{name}_pins_{n}"), Signal(name=f"{name}_after_{n}")
        table = Const(slot.lut(), 16)
        propagate, generate = table.bit_select(pins, 1), table.bit_select(pins[:2], 1)
        m.d.comb += [pins.eq(Cat(*slot.pins())), after.eq(Mux(propagate, carry, generate))]
        sums.append(propagate ^ carry)
        carry = after
    return sums


@pytest.mark.parametrize(
    "slot",
    [
        lambda a, b, c, d: inject(),
        lambda a, b, c, d: inject(a),
        lambda a, b, c, d: inject(a, b),
        lambda a, b, c, d: add((a,), ()),
        lambda a, b, c, d: add((), (c,)),
        lambda a, b, c, d: add((a,), (c,)),
        lambda a, b, c, d: add((a, b), (c,)),
        lambda a, b, c, d: add((a, b), (c, d)),
        lambda a, b, c, d: add((a,), (b, c), keep=d),
        lambda a, b, c, d: add((Const(0, 1),), (b, c), keep=d),
    ],
)
def test_half_a_ccu2c_adds_what_the_description_adds(slot):
    for *bits, carry in product([0, 1], repeat=5):
        values = [Const(bit, 1) for bit in bits]
        one = slot(*values)
        m = Module()
        x, y, pins = Signal(), Signal(), Signal(4)
        m.d.comb += [x.eq(one.operands[0]), y.eq(one.operands[1])]
        m.d.comb += [pins[n].eq(pin) for n, pin in enumerate(one.pins())]
        seen = []

        async def look(ctx, x=x, y=y, pins=pins, seen=seen):
            seen.extend([ctx.get(x), ctx.get(y), ctx.get(pins)])

        sim = Simulator(m)
        sim.add_testbench(look)
        sim.run()
        total = seen[0] + seen[1] + carry
        wired = [seen[2] >> n & 1 for n in range(4)]
        assert ccu2c_half(one.lut(), wired, carry) == (total & 1, total >> 1)


def test_an_injected_carry_starts_a_number_and_shows_the_one_before():
    m = Module()
    bits = [Const(bit, 1) for bit in (1, 1, 1, 0)]
    sums = chain_sums(
        m,
        [inject(bits[0]), add((bits[1],), (bits[2],)), inject(bits[3]), add((), ()), inject()],
        Counting.LUTS,
        "sums",
    )
    seen = []

    async def look(ctx):
        seen.extend(ctx.get(bit) for bit in sums)

    sim = Simulator(m)
    sim.add_testbench(look)
    sim.run()
    # 1 + 1 + 1 = 3: sum 1, carry out 1; then 0.
    assert seen[1:] == [1, 1, 0, 0]


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=14),
    beside=st.booleans(),
    seed=seeds,
)
def test_numbers_in_chains_are_added_as_if_each_were_alone(widths, beside, seed):
    rng = np.random.default_rng(seed)
    x, y = ([int(rng.integers(0, 1 << width)) for width in widths] for _ in range(2))
    carries, tops = (rng.integers(0, 2, len(widths)).tolist() for _ in range(2))
    m = Module()
    numbers = [
        [
            inject(Const(carry, 1)),
            *(add((Const(a, w)[n],), (Const(b, w)[n],)) for n in range(w)),
        ]
        for a, b, carry, w in zip(x, y, carries, widths, strict=True)
    ]
    above = [Const(top, 1) for top in tops] if beside else None
    sums = number_sums(m, numbers, Counting.LUTS, "sums", above)
    seen = []

    async def look(ctx):
        seen.extend(ctx.get(Cat(*bits)) for bits in sums)

    sim = Simulator(m)
    sim.add_testbench(look)
    sim.run()
    flips = [top << width if beside else 0 for top, width in zip(tops, widths, strict=True)]
    assert seen == [a + b + c ^ f for a, b, c, f in zip(x, y, carries, flips, strict=True)]


def test_a_chain_is_only_longer_than_the_longest_for_a_single_number():
    for family, starts in (("ice40", 4), ("ecp5", 0)):
        # Six of five slots are a chain of 30, and one of 40 is one of its own.
        parts = chain_parts(FAMILIES[family], (5,) * 13 + (40,), True)
        assert parts.get("chain start", 0) == starts
    assert chain_parts(FAMILIES["ice40"], (5,) * 13 + (40,), True)["chain bit"] == 105
    # Of an even number of bits each, with the last carry.
    assert chain_parts(FAMILIES["ecp5"], (5,) * 13 + (40,), True)["chain bit"] == 4 * 16 + 6 + 42
    assert (LONGEST, LONGEST_CCU2C) == (32, 16)


@pytest.mark.parametrize("text", ["0", "1"])
def test_cells_of_ice40_share_the_operands_of_their_carry(text):
    m = Module()
    x, y, top = Signal(name="x"), Signal(name="y"), Signal(name="top")
    slots = [[inject(x), add((x,), (y,))], [inject(y), add((x,), (y,))]]
    sums = number_sums(m, slots, Counting.SB_LUT4, "sums", [top, top] if text == "1" else None)
    out = Signal(4)
    m.d.comb += out.eq(Cat(*(bit for bits in sums for bit in bits)))
    rtl = rtlil.convert(m, ports=[x, y, top, out], emit_src=False)
    assert rtl.count("SB_CARRY") == 4
    assert rtl.count("cell \\SB_LUT4") == 5


def test_a_lut4_cell_has_the_functions_truth_table():
    m = Module()
    inputs, result = tuple(Signal(name=name) for name in "abc"), Signal()
    some = lut4(m, "some", lambda a, b, c: (a & b) ^ c ^ 1, inputs, cell=True)
    m.d.comb += result.eq(some)
    text = rtlil.convert(m, ports=[*inputs, result], emit_src=False)
    init = int(re.search(r"LUT_INIT 16'([01]{16})", text)[1], 2)
    for a, b, c in product([0, 1], repeat=3):
        assert init >> (a + 2 * b + 4 * c) & 1 == (a & b) ^ c ^ 1


@settings(max_examples=25)
@given(
    folds=st.integers(1, 4),
    pe=st.integers(1, 4),
    steps=st.integers(2, 4),
    step_top=st.integers(1, 20),
    late=st.booleans(),
    counting=st.sampled_from([*SIMULATED, Counting.CCU2C]),
    spread=st.sampled_from([None, 0.0, 0.3]),
    seed=seeds,
)
def test_accumulator_compares_with_its_folds_threshold(
    folds, pe, steps, step_top, late, counting, spread, seed
):
    rng = np.random.default_rng(seed)
    top = steps * (step_top + late)
    if spread is None:
        thresholds = rng.integers(0, top + 2, (folds, pe))
        thresholds[0, 0], thresholds[-1, -1] = 0, top + 1
    else:
        # As of a trained layer, whose accumulators are narrower.
        middle, about = rng.integers(0, top + 2), int(spread * top)
        around = middle + rng.integers(-about, about + 1, (folds, pe))
        thresholds = around.clip(0, top + 1)
    neurons = 4 * folds
    counts = rng.integers(0, step_top + 1, (neurons, steps, pe))
    more = rng.integers(0, 2, (neurons, steps, pe)) if late else np.zeros_like(counts)
    counts[0], counts[1] = 0, step_top
    unit = ThresholdAccumulator(thresholds, top, step_top, late=late, counting=counting)
    # A gap behind every neuron, whose counts must not matter, and flags a cycle before.
    gap = rng.integers(0, step_top + 1, (neurons, 1, pe))
    values = np.concatenate([counts, gap], axis=1).reshape(-1, pe)
    lates = np.concatenate([more, 0 * gap], axis=1).reshape(-1, pe)
    values, lates = (np.concatenate([0 * x[:1], x]) for x in (values, lates))
    step = np.arange(len(values)) % (steps + 1)
    valid, either = step < steps, rng.integers(0, 2, (2, len(values))) > 0
    inputs = {
        "i": pack_lanes(values, unit.i.shape().elem_shape),
        "late": pack_bits(lates > 0, pe),
        "valid": valid.tolist(),
        "first": np.where(valid, step == 0, either[0]).tolist(),
        "last": np.where(valid, step == steps - 1, either[1]).tolist(),
    }
    with patch.object(carry_chain, "_ccu2c", ccu2c_model):
        got = run_pipeline(unit, inputs, ["o"], 1, seed=seed)
    settled = [lanes_of(row[0], 1, pe) for row in got[steps :: steps + 1]]
    sums = (counts + more).sum(axis=1)
    expected = sums >= np.tile(thresholds, (4, 1))
    assert settled == expected.astype(int).tolist()


@pytest.mark.parametrize("bad", [-1, 10])
def test_accumulator_refuses_thresholds_out_of_range(bad):
    with pytest.raises(ValueError, match=r"thresholds must lie in 0\.\.9"):
        ThresholdAccumulator(np.array([[bad]]), 8, 4, late=False, counting=Counting.LUTS)


def test_accumulator_wants_a_row_of_thresholds_for_each_fold():
    with pytest.raises(ValueError, match=r"must have shape \(folds, pe\), not \(3,\)"):
        ThresholdAccumulator(np.zeros(3, int), 8, 4, late=False, counting=Counting.LUTS)


def test_accumulator_refuses_counts_that_come_in_a_single_step():
    with pytest.raises(ValueError, match="at most half of top, 8, not 8"):
        ThresholdAccumulator(np.array([[4]]), 8, 8, late=False, counting=Counting.LUTS)


def test_pe_array_leaves_a_lane_only_with_constants():
    with pytest.raises(ValueError, match="only with constants"):
        PEArray(1, 8, 1, late=True)


def test_pe_array_wants_one_step_for_constants():
    with pytest.raises(ValueError, match="only with one fold, not 2"):
        PEArray(1, 4, 2, constants=np.ones((1, 4), bool))


def test_pe_array_wants_several_steps_for_thresholds():
    with pytest.raises(ValueError, match="only with several folds, not 1"):
        PEArray(1, 4, 1, thresholds=np.zeros((1, 1), int))


@settings(max_examples=12)
@given(
    pe=st.integers(1, 4),
    simd=st.integers(1, 20),
    folds=st.integers(1, 4),
    counting=st.sampled_from(SIMULATED),
    seed=seeds,
)
def test_pe_array_counts_the_same_however_it_counts(pe, simd, folds, counting, seed):
    rng = np.random.default_rng(seed)
    steps = 5 * folds
    a, w = rng.random((steps, simd)) < 0.5, rng.random((steps, pe, simd)) < 0.5
    array = PEArray(pe, simd, folds, counting=counting)
    inputs = {
        "a": pack_bits(mixed(array, a), simd),
        "w": pack_bits(array.encode(w).reshape(steps, -1), pe * simd),
        "valid": [1] * steps,
        "first": [int(step % folds == 0) for step in range(steps)],
        "last": [int(step % folds == folds - 1) for step in range(steps)],
    }
    got = run_pipeline(array, inputs, ["o"], array.latency, seed=seed)
    width = array.o.shape().elem_shape
    agree = (w == a[:, None]).sum(axis=2).reshape(5, folds, pe).sum(axis=1)
    assert [lanes_of(row[0], width, pe) for row in got[folds - 1 :: folds]] == agree.tolist()
