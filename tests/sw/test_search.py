"""The search finds the optimum over all legal foldings, FIFOs counted, for every objective."""

from dataclasses import replace
from functools import cache, partial
from math import inf

import numpy as np
import pytest
from foldings import all_foldings, random_folding
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import lowered_network
from random_networks import random_cnn, random_network

from xnorflow.assemble import assemble
from xnorflow.cost import FAMILIES
from xnorflow.errors import WorkFailed
from xnorflow.estimate import estimate_core
from xnorflow.fifo_sizing import fifo_depths
from xnorflow.folding import check_folding
from xnorflow.lowering import lower
from xnorflow.network import Conv2d, Dense, Flatten, Join, MaxPool, Network, Sign
from xnorflow.options import FILLING
from xnorflow.padding import legal_widths, own_widths
from xnorflow.pipeline import cycles_per_frame, pipeline
from xnorflow.search import Budget, fastest, least, quickest, smallest
from xnorflow.timing import latency, latency_cycles

PM = np.array([-1, 1], np.int8)


@cache
def small_network(name):
    """Return a network with few enough foldings to try them all."""
    rng = np.random.default_rng(7)
    if name == "dense":
        return lowered_network([3, 3, 2], seed=3)
    if name == "prime":
        return lowered_network([2, 5, 2], seed=4)
    if name == "shortcut":
        main, side = (Dense(name, rng.choice(PM, (2, 1))) for name in ("main", "side"))
        ops = (
            *(Sign("sign_in"), Dense("first", rng.choice(PM, (1, 2))), Sign("sign"), main),
            *(
                Join("add", 3, (side,), "add"),
                Sign("sign_2"),
                Dense("last", rng.choice(PM, (2, 2))),
            ),
        )
        return lower(Network("shortcut", (2,), ops))
    ops = (
        Sign("sign_in"),
        Conv2d("conv", rng.choice(PM, (2, 2, 2, 1))),
        Sign("sign"),
        MaxPool("pool", (2, 2), (2, 2)),
        Flatten("flatten"),
        Dense("dense", rng.choice(PM, (2, 8))),
    )
    return lower(Network("burst", (5, 5, 1), ops))


@cache
def measured(name, device):
    """Return cost, cycles and latency of all foldings of a small network."""
    lowered, family = small_network(name), FAMILIES[device]
    rows, timings = [], {}
    for number, folding in enumerate(all_foldings(lowered, family)):
        if number % 500 == 0:
            assert check_folding(folding, lowered, "brute force") == folding
        total = estimate_core(family, lowered, folding).total
        key = tuple((c.pe, c.simd, c.rom_latency, c.outputs, c.inputs) for c in folding.values())
        if key not in timings:
            timings[key] = cycles_per_frame(lowered, folding), latency_cycles(lowered, folding)
        rows.append((total.cells, total.bram, *timings[key]))
    return np.array(rows).T


BUDGETS = [Budget(20_000, 40), Budget(700, 3), Budget(450, 1), Budget(500, 0)]


@pytest.mark.parametrize("device", ["ice40", "ecp5"])
@pytest.mark.parametrize("name", ["dense", "prime", "burst", "shortcut"])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
class TestNoOtherFoldingIsBetter:
    def fitting(self, name, device, budget):
        cells, bram, cycles, latencies = measured(name, device)
        fits = (cells <= budget.lut) & (bram <= budget.bram)
        share = cells / budget.lut + bram / max(budget.bram, 1)
        return cells[fits], cycles[fits], latencies[fits], share[fits]

    def test_smallest(self, name, device, budget):
        _, cycles, _, share = self.fitting(name, device, budget)
        for limit in sorted({*np.unique(cycles)[::4].tolist(), 1}):
            reached = share[cycles <= limit]
            if not len(reached):
                with pytest.raises(WorkFailed, match="does not fit"):
                    smallest(small_network(name), FAMILIES[device], budget, int(limit), None)
                continue
            found = smallest(small_network(name), FAMILIES[device], budget, int(limit), None)
            assert found.proved
            assert found.value == pytest.approx(reached.min())
            assert budget.holds(found.cost)

    def test_fastest(self, name, device, budget):
        _, cycles, _, _ = self.fitting(name, device, budget)
        if not len(cycles):
            with pytest.raises(WorkFailed, match="take a larger board"):
                fastest(small_network(name), FAMILIES[device], budget, None)
            return
        found = fastest(small_network(name), FAMILIES[device], budget, None)
        assert found.proved
        assert found.cycles == cycles.min()
        cells, brams, cycles, _ = measured(name, device)
        quickest = (cells <= budget.lut) & (brams <= budget.bram) & (cycles == found.cycles)
        filled = cells / budget.lut + FILLING * brams / max(budget.bram, 1)
        cost = found.cost.cells / budget.lut + FILLING * found.cost.bram / max(budget.bram, 1)
        assert cost == pytest.approx(filled[quickest].min())

    def test_least(self, name, device, budget):
        cells, *_ = self.fitting(name, device, budget)
        if len(cells):
            found = least(small_network(name), FAMILIES[device], budget, None)
            assert found.proved
            assert found.cost.cells == pytest.approx(cells.min(), abs=1e-3)

    def test_quickest(self, name, device, budget):
        _, _, latencies, _ = self.fitting(name, device, budget)
        if len(latencies):
            lowered = small_network(name)
            found = quickest(lowered, FAMILIES[device], budget, None)
            assert found.proved
            assert found.value == latencies.min() == latency_cycles(lowered, found.folding)
            assert budget.holds(found.cost)


def test_small_networks_have_fifos_and_padded_foldings():
    for folding in all_foldings(small_network("burst"), FAMILIES["ecp5"]):
        if any(fifo_depths(pipeline(small_network("burst"), folding)).main):
            break
    else:
        pytest.fail("no folding has a FIFO")
    assert len(legal_widths(small_network("prime"))[1]) > 1


@settings(max_examples=40)
@given(seed=st.integers(0, 100_000))
def test_the_latency_is_that_of_the_core(seed):
    rng = np.random.default_rng(seed)
    if rng.random() < 0.3:
        network = random_network(rng, [int(n) for n in rng.integers(3, 24, 4)])
    else:
        network = random_cnn(rng, channels=8, classes=5)
    lowered = lower(network)
    folding = random_folding(rng, lowered, padded=True)
    stages = pipeline(lowered, folding)
    assert latency(stages, fifo_depths(stages)) == assemble(lowered, folding).latency


@settings(max_examples=8)
@given(
    seed=st.integers(0, 1000),
    lut=st.integers(400, 4000),
    bram=st.integers(0, 12),
    widths=st.lists(st.integers(2, 14), min_size=3, max_size=4),
)
def test_what_is_found_with_little_effort_fits_and_its_bounds_hold(seed, lut, bram, widths):
    lowered, family, budget = lowered_network(widths, seed), FAMILIES["ice40"], Budget(lut, bram)
    for search in (fastest, least, quickest, partial(smallest, cycles=10 * lut)):
        try:
            found = search(lowered, family, budget, effort=5)
        except WorkFailed:
            continue
        assert budget.holds(found.cost)
        assert found.value >= found.bound - 1e-6
        assert found.bound <= search(lowered, family, budget).value + 1e-6


def test_a_prime_number_of_neurons_is_padded_where_that_is_smaller(monkeypatch):
    lowered, budget = lowered_network([64, 127, 10]), Budget(20_000, 50)
    found = smallest(lowered, FAMILIES["ecp5"], budget, 200)
    assert found.folding["fc1"].outputs == 128
    monkeypatch.setattr("xnorflow.options.legal_widths", lambda net: [[w] for w in own_widths(net)])
    alone = smallest(replace(lowered), FAMILIES["ecp5"], budget, 200)
    assert found.cost.cells < 0.8 * alone.cost.cells
    assert found.cost.bram <= alone.cost.bram


def test_nothing_fits_at_infinite_cycles_only_if_nothing_fits():
    with pytest.raises(WorkFailed, match=r"even the smallest folding takes about \d+ LUT"):
        least(lowered_network([64, 32, 10]), FAMILIES["ice40"], Budget(50, 8))
    assert least(lowered_network([64, 32, 10]), FAMILIES["ice40"], Budget(5000, 8)).cycles < inf


def test_weights_beyond_all_memories_are_refused_at_once_with_their_bits():
    weights = np.ones((512, 40_000), np.int8)
    lowered = lower(Network("large", (40_000,), (Sign("s"), Dense("fc", weights))))
    with pytest.raises(WorkFailed, match=r"weights are 20,480,000 bits.*hold 40,960.*320,000"):
        fastest(lowered, FAMILIES["ice40"], Budget(20_000, 10))
