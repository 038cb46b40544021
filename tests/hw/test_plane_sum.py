"""Weighted sums of planes against numpy, their clock enable stalled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_bench import lanes_of, run_pipeline

from xnorflow.hw.cost import FAMILIES
from xnorflow.hw.plane_sum import PlaneSum, plane_latency, plane_sum_parts, positive_planes
from xnorflow.hw.rom import pack_lanes

seeds = st.integers(0, 1000)


def foldings(planes, neurons):
    rows = planes * neurons
    return [d for d in range(1, rows + 1) if rows % d == 0 and (d % planes == 0 or planes % d == 0)]


def make_coefficients(rng, kind, planes, neurons):
    """Return coefficients that wires, gated shifts or multipliers are made for."""
    powers = 1 << np.arange(planes)
    match kind:
        case "powers":  # the same for all neurons
            return np.repeat(powers[:, None], neurons, axis=1)
        case "shuffled powers":
            return np.stack([rng.permutation(powers) for _ in range(neurons)], axis=1)
        case "alike":
            return np.repeat(rng.integers(0, 12, (planes, 1)), neurons, axis=1)
        case _:
            return rng.integers(0, 12, (planes, neurons))


kinds = st.sampled_from(["powers", "shuffled powers", "alike", "any"])


@st.composite
def sums(draw):
    planes, neurons = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    pe = draw(st.sampled_from(foldings(planes, neurons)))
    seed = draw(seeds)
    coefficients = make_coefficients(np.random.default_rng(seed), draw(kinds), planes, neurons)
    return coefficients, pe, draw(st.integers(1, 20)), seed


def check(coefficients, pe, top, seed, gaps):
    """Feed three pixels, with beats between that are not valid, and compare every sum."""
    planes, neurons = coefficients.shape
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, top + 1, (3, neurons, planes))
    counts[0], counts[1, 0] = top, 0
    expected = (counts * coefficients.T).sum(axis=2).reshape(-1)
    unit = PlaneSum(coefficients, pe, top)
    rows = counts.reshape(-1, pe)
    valid = np.ones(len(rows), int)
    if gaps:
        places = np.sort(rng.integers(0, len(rows) + 1, len(rows)))
        rows = np.insert(rows, places, rng.integers(0, top + 1, (len(places), pe)), axis=0)
        valid = np.insert(valid, places, 0)
    inputs = {"i": pack_lanes(rows, unit.i.shape().elem_shape), "valid": valid.tolist()}
    got = run_pipeline(unit, inputs, ["o", "done"], unit.latency, seed=seed)
    # A sum belongs to the last valid beat of its neurons, `latency` before.
    last = np.flatnonzero(valid)[unit.steps - 1 :: unit.steps]
    assert [beat for beat, row in enumerate(got) if row[1]] == last.tolist()
    width = unit.o.shape().elem_shape
    values = [value for row in got if row[1] for value in lanes_of(row[0], width, unit.lanes)]
    assert values == expected.tolist()


@settings(max_examples=60)
@given(case=sums(), gaps=st.booleans())
def test_planes_are_summed_with_their_coefficients(case, gaps):
    check(*case, gaps)


@pytest.mark.parametrize("kind", ["powers", "shuffled powers", "alike", "any"])
@pytest.mark.parametrize("pe", [1, 2, 4, 8, 16])
def test_four_planes_are_summed_in_every_folding(kind, pe):
    coefficients = make_coefficients(np.random.default_rng(pe), kind, 4, 4)
    check(coefficients, pe, 9, pe, gaps=True)


@pytest.mark.parametrize(
    ("coefficients", "pe", "latency"),
    [
        ([[1, 1], [2, 2]], 4, 1),  # shifts are wires, one level of adders
        ([[1, 1], [2, 2]], 2, 1),
        ([[1, 1], [3, 3]], 2, 2),  # a product
        ([[1, 4], [2, 2]], 2, 3),  # that needs a ROM
        ([[1, 4], [2, 2]], 4, 1),
        ([[1, 1], [2, 2]], 1, 3),  # ROM, gated shift, accumulator
        ([[1, 1], [1, 1]], 1, 1),  # accumulator alone
        ([[1, 1, 1]] * 3, 3, 2),  # two levels
        ([[1, 1]], 2, 0),
    ],
)
def test_latency_is_that_of_what_is_there(coefficients, pe, latency):
    assert plane_latency(np.array(coefficients), pe) == latency
    assert PlaneSum(np.array(coefficients), pe, 5).latency == latency


def test_positive_planes_are_the_same_weights():
    rng = np.random.default_rng(1)
    planes = rng.choice([-1, 1], (3 * 4, 7))
    coefficients = rng.integers(-5, 6, (3, 4))
    rows, positive = positive_planes(planes, coefficients)
    assert positive.min() >= 0

    def weights(rows, coefficients):
        return np.einsum("mj,jmi->ji", coefficients, rows.reshape(4, 3, 7))

    assert np.array_equal(weights(rows, positive), weights(planes, coefficients))


@pytest.mark.parametrize(
    ("coefficients", "pe", "message"),
    [
        ([[1, -1]], 1, "none be negative"),
        ([1, 1], 1, r"shape \(M, MH\)"),
        ([[1, 1, 1], [1, 1, 1]], 3, r"pe must be one of \[1, 2, 6\], not 3"),
        ([[1]] * 4, 3, r"pe must be one of \[1, 2, 4\], not 3"),
    ],
)
def test_illegal_parameters_say_what_is_legal(coefficients, pe, message):
    with pytest.raises(ValueError, match=message):
        PlaneSum(np.array(coefficients), pe, 3)


@pytest.mark.parametrize("family", ["ice40", "ecp5"])
def test_wires_cost_less_than_products(family):
    device = FAMILIES[family]
    powers, others = np.array([[1] * 8, [2] * 8]), np.array([[3] * 8, [5] * 8])
    shifted = device.cost(plane_sum_parts(device, powers, 16, 100))
    multiplied = device.cost(plane_sum_parts(device, others, 16, 100))
    assert shifted.lut < multiplied.lut + 40 * multiplied.dsp
    assert shifted.dsp == 0


def test_one_plane_of_ones_costs_nothing():
    parts = plane_sum_parts(FAMILIES["ice40"], np.ones((1, 8), int), 4, 100)
    assert FAMILIES["ice40"].cost(parts).lut == 0
