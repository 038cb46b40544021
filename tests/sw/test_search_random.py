"""The search against all foldings of random small networks, with budgets that are tight."""

from itertools import islice

import numpy as np
import pytest
from foldings import all_foldings
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lowered_networks import lowered_network

from xnorflow.cost import FAMILIES
from xnorflow.errors import WorkFailed
from xnorflow.estimate import estimate_core
from xnorflow.lowering import lower
from xnorflow.network import Conv2d, Dense, Flatten, MaxPool, Network, Sign
from xnorflow.pipeline import cycles_per_frame
from xnorflow.search import Budget, fastest, least, quickest, smallest
from xnorflow.timing import latency_cycles

PM = np.array([-1, 1], np.int8)
MOST = 900  # foldings of a network that are tried


def random_convolution(rng):
    """Return a lowered network of a convolution, perhaps a pool, and a dense layer."""
    size, kernel = rng.integers(3, 6, 2), rng.integers(1, 4, 2)
    stride = tuple(int(n) for n in rng.integers(1, 3, 2))
    padding = tuple(int(n) for n in rng.integers(0, 2, 4))
    outputs, channels = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    rows, columns = (
        (int(size[k]) + padding[k] + padding[k + 2] - int(kernel[k])) // stride[k] + 1
        for k in (0, 1)
    )
    first = Sign("sign_in") if rng.random() < 0.7 else None
    ops = [] if first is None else [first]
    ops += [
        Conv2d("conv", rng.choice(PM, (outputs, *kernel, channels)), stride, (1, 1), padding),
        Sign("sign"),
    ]
    if min(rows, columns) >= 2 and rng.random() < 0.6:
        ops.append(MaxPool("pool", (2, 2), (2, 2)))
        rows, columns = rows // 2, columns // 2
    ops += [Flatten("flatten"), Dense("dense", rng.choice(PM, (2, rows * columns * outputs)))]
    return lower(Network("random", (*(int(n) for n in size), channels), tuple(ops)))


def tried(lowered, family):
    """Return LUTs, block RAMs, cycles and latency of every folding; None if there are many."""
    foldings = list(islice(all_foldings(lowered, family), MOST + 1))
    if len(foldings) > MOST:
        return None
    rows, timings = [], {}
    for folding in foldings:
        total = estimate_core(family, lowered, folding).total
        key = tuple((c.pe, c.simd, c.rom_latency, c.outputs, c.inputs) for c in folding.values())
        if key not in timings:
            timings[key] = cycles_per_frame(lowered, folding), latency_cycles(lowered, folding)
        rows.append((total.cells, total.bram, *timings[key]))
    return np.array(rows).T


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 100_000),
    dense=st.booleans(),
    device=st.sampled_from(["ice40", "ecp5"]),
    tightness=st.floats(0, 1),
    bram=st.integers(0, 6),
    pace=st.floats(0, 1),
)
def test_no_folding_of_a_random_network_is_better(seed, dense, device, tightness, bram, pace):
    rng, family = np.random.default_rng(seed), FAMILIES[device]
    widths = [int(n) for n in rng.integers(2, 5, 3)]
    lowered = lowered_network(widths, seed) if dense else random_convolution(rng)
    table = tried(lowered, family)
    assume(table is not None)
    cells, brams, cycles, latencies = table
    # From a budget that only the least folding fits to one that all fit.
    least_lut = cells[brams <= bram].min()
    budget = Budget(float(least_lut + tightness**2 * (cells.max() - least_lut)) + 0.01, bram)
    fits = (cells <= budget.lut) & (brams <= bram)
    share = cells / budget.lut + brams / max(bram, 1)

    assert least(lowered, family, budget, None).cost.cells == pytest.approx(
        cells[fits].min(), abs=1e-3
    )
    assert fastest(lowered, family, budget, None).cycles == cycles[fits].min()
    quick = quickest(lowered, family, budget, None)
    assert quick.proved
    assert quick.value == latencies[fits].min()
    assert quickest(lowered, family, budget).bound <= quick.value

    limit = int(np.quantile(cycles, pace))
    reached = share[fits & (cycles <= limit)]
    if len(reached):
        found = smallest(lowered, family, budget, limit, None)
        assert found.value == pytest.approx(reached.min())
        assert found.cycles <= limit
        assert budget.holds(found.cost)
    else:
        with pytest.raises(WorkFailed, match=f"{cycles[fits].min():.0f} cycles a frame would fit"):
            smallest(lowered, family, budget, limit, None)
