"""Thresholds of several levels against numpy, their clock enable stalled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_bench import lanes_of, run_pipeline

from xnorflow.hw.cost import FAMILIES
from xnorflow.hw.multi_threshold import (
    MultiThresholdUnit,
    distinct_levels,
    multi_threshold_parts,
    search_latency,
)
from xnorflow.hw.rom import pack_lanes

seeds = st.integers(0, 1000)


def check(thresholds, top, seed):
    """Give every count that matters to every fold, and compare all levels."""
    _, folds, pe = thresholds.shape
    unit = MultiThresholdUnit(thresholds, top)
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, top + 1, (10 * folds, pe))
    near = thresholds[rng.integers(0, len(thresholds), 10 * folds), np.arange(10 * folds) % folds]
    counts = np.where(rng.random(counts.shape) < 0.6, near - rng.integers(0, 2, near.shape), counts)
    counts = counts.clip(0, top)
    counts[0], counts[1] = 0, top
    fold = np.arange(len(counts)) % folds
    inputs = {"i": pack_lanes(counts, unit.i.shape().elem_shape), "fold": fold.tolist()}
    got = run_pipeline(unit, inputs, ["o"], unit.latency, seed=seed)
    expected = (counts >= thresholds[:, fold]).sum(axis=0)
    width = unit.o.shape().elem_shape
    assert width == len(thresholds).bit_length()
    assert [lanes_of(row[0], width, pe) for row in got] == expected.tolist()


@settings(max_examples=60)
@given(
    levels=st.integers(1, 20),
    folds=st.integers(1, 5),
    pe=st.integers(1, 3),
    top=st.integers(1, 40),
    repeat=st.booleans(),
    seed=seeds,
)
def test_levels_are_the_number_of_thresholds_reached(levels, folds, pe, top, repeat, seed):
    rng = np.random.default_rng(seed)
    thresholds = np.sort(rng.integers(0, top + 2, (levels, folds, pe)), axis=0)
    if repeat:  # rows that are equal for all neurons
        thresholds = np.sort(thresholds[rng.integers(0, levels, levels)], axis=0)
    check(thresholds, top, seed)


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("levels", [2, 3, 4, 7, 8, 16, 17, 31])
def test_every_count_finds_its_level(levels, folds):
    rng = np.random.default_rng(levels)
    thresholds = np.sort(rng.integers(0, 42, (levels, folds, 1)), axis=0)
    thresholds[0, 0], thresholds[-1, -1] = 0, 41  # always reached, and never
    unit = MultiThresholdUnit(thresholds, 40)
    counts = np.tile(np.arange(41), folds)
    fold = np.repeat(np.arange(folds), 41)
    got = run_pipeline(
        unit, {"i": counts.tolist(), "fold": fold.tolist()}, ["o"], unit.latency, seed=levels
    )
    expected = (counts >= thresholds[:, fold, 0]).sum(axis=0)
    assert [row[0] for row in got] == expected.tolist()


@pytest.mark.parametrize(
    ("rows", "distinct", "latency"),
    [
        ([[3, 4]] * 5, 1, (2, 3)),  # a step and the table
        ([[1, 2], [1, 2], [3, 4], [3, 4]], 2, (2, 5)),
        ([[1, 2], [1, 3], [3, 4]], 3, (2, 4)),
        ([[1, 2], [1, 3], [3, 4], [5, 6]], 4, (2, 6)),
        ([[n, n] for n in range(17)], 17, (5, 10)),
        ([[n // 2, n // 2] for n in range(34)], 17, (6, 11)),
    ],
)
def test_equal_rows_are_searched_once(rows, distinct, latency):
    thresholds = np.array(rows)
    assert distinct_levels(thresholds) == distinct
    for folds, expected in zip((1, 2), latency, strict=True):
        unit = MultiThresholdUnit(thresholds.reshape(len(rows), folds, -1), 20)
        assert unit.distinct == distinct
        assert unit.latency == search_latency(len(rows), distinct, folds) == expected
        check(thresholds.reshape(len(rows), folds, -1), 20, distinct)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([[[-1]], [[3]]], r"thresholds must lie in 0\.\.9"),
        ([[[1]], [[10]]], r"thresholds must lie in 0\.\.9"),
        ([[[3]], [[2]]], "thresholds must rise along the first axis"),
        ([[3, 2]], r"shape \(levels, folds, pe\), not \(1, 2\)"),
    ],
)
def test_illegal_thresholds_are_refused(thresholds, message):
    with pytest.raises(ValueError, match=message):
        MultiThresholdUnit(np.array(thresholds), 8)


@pytest.mark.parametrize("levels", [7, 31])
@pytest.mark.parametrize("folds", [1, 4])
def test_a_search_costs_less_than_a_comparator_a_level(folds, levels):
    device = FAMILIES["ice40"]
    rng = np.random.default_rng(1)
    thresholds = np.sort(rng.integers(1, 1024, (levels, folds, 8)), axis=0)
    cost = device.cost(multi_threshold_parts(device, thresholds, 1023))
    # Each with a ROM of its own, or of three LUT4s and a multiplexer.
    side_by_side = 8 * levels * (20 if folds > 1 else 4.5)
    assert cost.lut < side_by_side
