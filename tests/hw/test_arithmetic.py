"""Popcount, PE array, thresholds, scores and ROMs against numpy, their clock enable stalled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_bench import lanes_of, mixed, run_pipeline

from xnorflow.hw.cost import FAMILIES
from xnorflow.hw.layouts import Lanes
from xnorflow.hw.pe_array import PEArray
from xnorflow.hw.popcount import AdderTree
from xnorflow.hw.rom import ROM, ROMStyle, pack_lanes, rom_parts
from xnorflow.hw.score import ScoreUnit
from xnorflow.hw.threshold import ThresholdUnit
from xnorflow.sim.streams import pack_bits

seeds = st.integers(0, 1000)


@settings(max_examples=12)
@given(lanes=st.integers(1, 70), top=st.sampled_from([1, 1, 2, 3, 255]), seed=seeds)
def test_adder_tree_sums_its_lanes(lanes, top, seed):
    values = np.random.default_rng(seed).integers(0, top + 1, (12, lanes))
    values[0], values[1] = 0, top
    tree = AdderTree(lanes, top)
    inputs = {"i": pack_lanes(values, top.bit_length())}
    got = run_pipeline(tree, inputs, ["o"], tree.latency, seed=seed)
    assert [row[0] for row in got] == values.sum(axis=1).tolist()


@pytest.mark.parametrize(("lanes", "top", "name"), [(0, 1, "lanes"), (3, 0, "top")])
def test_adder_tree_refuses_empty_sums(lanes, top, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        AdderTree(lanes, top)


@pytest.mark.parametrize(("top", "granule"), [(1, 3), (1, 8), (1, 0), (3, 2)])
def test_adder_tree_refuses_granules_that_have_no_half(top, granule):
    with pytest.raises(ValueError, match="granule must be an even divisor of the 12 lanes"):
        AdderTree(12, top, granule)


@settings(max_examples=12)
@given(pe=st.integers(1, 4), simd=st.integers(1, 9), folds=st.integers(1, 4), seed=seeds)
def test_pe_array_counts_agreeing_synapses(pe, simd, folds, seed):
    rng = np.random.default_rng(seed)
    neurons = 5
    a = rng.random((neurons * folds, simd)) < 0.5
    w = rng.random((neurons * folds, pe, simd)) < 0.5
    array = PEArray(pe, simd, folds)
    inputs = {
        "a": pack_bits(mixed(array, a), simd),
        "w": pack_bits(array.encode(w).reshape(len(w), -1), pe * simd),
        "valid": [1] * len(a),
        "first": [int(step % folds == 0) for step in range(len(a))],
    }
    got = run_pipeline(array, inputs, ["o"], array.latency, seed=seed)
    width = array.o.shape().elem_shape
    agree = (w == a[:, None, :]).sum(axis=2).reshape(neurons, folds, pe).sum(axis=1)
    settled = [lanes_of(row[0], width, pe) for row in got[folds - 1 :: folds]]
    assert settled == agree.tolist()


@settings(max_examples=30)
@given(
    granule=st.sampled_from([1, 2, 2, 3, 4, 4, 5, 6, 8, 11, 14]),
    units=st.integers(1, 4),
    folds=st.integers(1, 3),
    seed=seeds,
)
def test_pe_array_counts_nothing_for_padded_granules(granule, units, folds, seed):
    rng = np.random.default_rng(seed)
    lanes, simd, neurons, pe = Lanes(granule=granule), granule * units, 5, 2
    steps = neurons * folds
    a = rng.integers(0, 2, (steps, units, granule))
    pad = rng.random((steps, units, 1)) < rng.choice([0.0, 0.4, 1.0], (steps, 1, 1))
    w = rng.integers(0, 2, (steps, pe, simd))
    array = PEArray(pe, simd, folds, lanes)
    inputs = {
        "a": pack_bits(np.concatenate([a, pad], axis=2).astype(bool), units * (granule + 1)),
        "w": pack_bits(w.astype(bool), pe * simd),
        "valid": [1] * steps,
        "first": [int(step % folds == 0) for step in range(steps)],
    }
    got = run_pipeline(array, inputs, ["o"], array.latency, seed=seed)
    x = ((2 * a - 1) * ~pad).reshape(steps, 1, simd)
    acc = (x * (2 * w - 1)).sum(axis=2).reshape(neurons, folds, pe).sum(axis=1)
    width = array.o.shape().elem_shape
    counts = np.array([lanes_of(row[0], width, pe) for row in got[folds - 1 :: folds]])
    assert np.array_equal(lanes.unit * counts - folds * simd, acc)


def test_pe_array_takes_whole_granules():
    with pytest.raises(ValueError, match="simd must be a multiple of the granule 4"):
        PEArray(1, 6, 1, Lanes(granule=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be 1 to 16, not 0"),
        ({"width": 17}, "width must be 1 to 16, not 17"),
        ({"granule": 0}, "granule must be at least 1, not 0"),
        ({"width": 2, "granule": 4}, "granule must be None with lanes of 2 bits"),
    ],
)
def test_lanes_say_what_is_legal(options, message):
    with pytest.raises(ValueError, match=message):
        Lanes(**options)


@pytest.mark.parametrize("width", [1, 16])
def test_lanes_of_1_to_16_bits_are_legal(width):
    assert Lanes(width).top == (1 << width) - 1


def test_pe_array_ignores_steps_that_are_not_valid():
    array = PEArray(1, 4, 2)
    (w,) = pack_bits(array.encode(np.ones((1, 4), bool)), 4)
    (a,) = pack_bits(mixed(array, np.ones((1, 4), bool)), 4)
    inputs = {"a": [a, a, a], "w": [w, w, w], "valid": [1, 0, 1], "first": [1, 0, 0]}
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


@pytest.mark.parametrize("top", [1, 2, 7, 8, 15, 16, 100, 127, 128])
def test_constant_thresholds_are_reached_from_themselves_on(top):
    thresholds = np.arange(top + 2)
    counts = np.arange(top + 1)
    unit = ThresholdUnit(thresholds[None], top)
    rows = np.repeat(counts[:, None], top + 2, axis=1)
    inputs = {"i": pack_lanes(rows, unit.i.shape().elem_shape), "fold": [0] * len(rows)}
    got = run_pipeline(unit, inputs, ["o"], 1, seed=top)
    assert [row[0] for row in got] == pack_bits(rows >= thresholds, top + 2)


@pytest.mark.parametrize("top", [1, 2, 8, 9, 16, 17, 40])
def test_constant_thresholds_count_a_late_lane(top):
    thresholds = np.arange(top + 2)
    counts = np.repeat(np.arange(top), 2)
    late = np.arange(2 * top) % 2
    unit = ThresholdUnit(thresholds[None], top, late=True)
    rows, lates = (np.repeat(each[:, None], top + 2, axis=1) for each in (counts, late))
    inputs = {
        "i": pack_lanes(rows, unit.i.shape().elem_shape),
        "late": pack_bits(lates > 0, top + 2),
        "fold": [0] * len(rows),
    }
    got = run_pipeline(unit, inputs, ["o"], 1, seed=top)
    assert [row[0] for row in got] == pack_bits(rows + lates >= thresholds, top + 2)


def test_threshold_unit_takes_a_late_lane_only_with_one_fold():
    with pytest.raises(ValueError, match="only with one fold, not 2"):
        ThresholdUnit(np.ones((2, 1), int), 8, late=True)


@pytest.mark.parametrize("bad", [-1, 10])
def test_threshold_unit_refuses_thresholds_out_of_range(bad):
    with pytest.raises(ValueError, match=r"thresholds must lie in 0\.\.9"):
        ThresholdUnit(np.array([[bad]]), 8)


@settings(max_examples=12)
@given(
    folds=st.integers(1, 4),
    pe=st.integers(1, 3),
    top=st.integers(1, 40),
    unit=st.sampled_from([1, 2]),
    same=st.booleans(),
    seed=seeds,
)
def test_score_unit_is_the_integer_affine_of_the_accumulator(folds, pe, top, unit, same, seed):
    rng = np.random.default_rng(seed)
    scale = rng.integers(-30, 31, (folds, pe)) if not same else np.ones((folds, pe), int)
    offset = rng.integers(-500, 501, (folds, pe))
    counts = rng.integers(0, top + 1, (6 * folds, pe))
    counts[0], counts[1 % len(counts)] = 0, top
    base = rng.integers(0, 50, (folds, pe)) if unit == 1 else np.full((folds, pe), top)
    scores = ScoreUnit(scale, offset, top, *((1, base) if unit == 1 else ()))
    fold = np.arange(len(counts)) % folds
    inputs = {"i": pack_lanes(counts, scores.i.shape().elem_shape), "fold": fold.tolist()}
    got = run_pipeline(scores, inputs, ["o"], scores.latency, seed=seed)
    expected = scale[fold] * (unit * counts - base[fold]) + offset[fold]
    assert [lanes_of(row[0], scores.width, pe, signed=True) for row in got] == expected.tolist()


def test_score_unit_wants_constants_of_one_shape():
    ones = np.ones((2, 3), int)
    with pytest.raises(ValueError, match=r"one shape \(folds, pe\), not \(2, 3\) and \(1, 3\)"):
        ScoreUnit(ones, ones[:1], 5)
    with pytest.raises(ValueError, match=r"base must have shape \(2, 3\), not \(1, 3\)"):
        ScoreUnit(ones, ones, 5, 1, ones[:1])


@pytest.mark.parametrize("style", [ROMStyle.LUT, ROMStyle.BRAM])
def test_rom_gives_its_words_a_cycle_later(style):
    words = [5, 0, 7, 2, 6]
    addresses = np.random.default_rng(1).permutation([0, 1, 2, 3, 4] * 6).tolist()
    got = run_pipeline(ROM(words, 3, style), {"addr": addresses}, ["data"], 1, seed=1)
    assert [row[0] for row in got] == [words[address] for address in addresses]


@pytest.mark.parametrize("depth", [1, 2, 16, 17, 33, 64, 65, 130, 256, 300])
@pytest.mark.parametrize("style", [ROMStyle.LUT, ROMStyle.BRAM])
@pytest.mark.parametrize("latency", [2, 3])
def test_rom_in_several_cycles(latency, style, depth):
    rng = np.random.default_rng(depth)
    words = rng.integers(0, 128, depth).tolist()
    addresses = [*range(depth), *rng.integers(0, depth, 50).tolist(), 0, depth - 1, 0]
    got = run_pipeline(
        ROM(words, 7, style, latency), {"addr": addresses}, ["data"], latency, seed=1
    )
    assert [row[0] for row in got] == [words[address] for address in addresses]


def test_rom_takes_three_cycles_at_most():
    with pytest.raises(ValueError, match="latency must be 1, 2 or 3, not 4"):
        ROM([1, 2], 3, ROMStyle.LUT, 4)


@pytest.mark.parametrize("width", [64, 65, 200])
@pytest.mark.parametrize("style", [ROMStyle.LUT, ROMStyle.BRAM])
def test_wide_words_come_whole(style, width):
    rng = np.random.default_rng(width)
    words = [int.from_bytes(rng.bytes(25), "little") >> 200 - width for _ in range(6)]
    got = run_pipeline(ROM(words, width, style), {"addr": list(range(6))}, ["data"], 1, seed=2)
    assert [row[0] for row in got] == words


@pytest.mark.parametrize(
    ("words", "luts"),
    # A LUT for 16 words; then two choose among four of those, one between two.
    [(3, 1), (16, 1), (17, 3), (48, 5), (64, 6), (65, 8), (80, 8), (256, 26), (257, 28)],
)
def test_roms_take_luts_and_the_luts_that_choose_among_them(words, luts):
    parts = rom_parts(FAMILIES["ice40"], words, 1, ROMStyle.LUT)
    assert parts["ROM LUT"] == pytest.approx(luts, rel=0.02)


@pytest.mark.parametrize(
    ("family", "words", "registers"),
    [("ice40", 40, [0, 30, 60]), ("ecp5", 40, [0, 0, 30]), ("ecp5", 20_000, [0, 30, 60])],
)
def test_one_register_behind_block_ram_of_ecp5_is_in_it(family, words, registers):
    parts = [
        rom_parts(FAMILIES[family], words, 30, ROMStyle.BRAM, latency) for latency in (1, 2, 3)
    ]
    assert [part["bare register"] for part in parts] == registers


def test_constant_rom_refuses_a_second_word():
    with pytest.raises(ValueError, match="use lut or bram"):
        ROM([1, 2], 3, ROMStyle.CONSTANT)


def test_rom_refuses_a_word_that_is_too_wide():
    with pytest.raises(ValueError, match="words of 3 bits"):
        ROM([8], 3, ROMStyle.CONSTANT)
