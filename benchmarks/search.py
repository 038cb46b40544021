"""Seconds that a search for a folding takes, and what it finds: ``python benchmarks/search.py``.

Each objective on each of the repository's networks, for an ULX3S-85F and an iCE40 HX8K, in a fresh
process' state (nothing cached); *options* are the layers' foldings that were estimated first. Then
a small network whose foldings are all tried, and what padding gains for widths with few divisors.
The exit status is 1 if one of those foldings is smaller than what the search finds.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from xnorflow.boards.board import load as load_board
from xnorflow.cost import FAMILIES, Family
from xnorflow.errors import WorkFailed
from xnorflow.estimate import estimate_core
from xnorflow.folding import LayerFolding, legal_pe, legal_simd
from xnorflow.frontend import load
from xnorflow.lowered import InputQuantizer, LoweredLayer, LoweredNetwork, LoweredOutput
from xnorflow.lowering import lower
from xnorflow.options import tables
from xnorflow.padding import own_widths
from xnorflow.planning import core_budget
from xnorflow.search import Budget, Found, fastest, least, quickest, smallest

MODELS = Path(__file__).parent.parent / "models"

Objective = Callable[[LoweredNetwork, Family, Budget], Found]

OBJECTIVES: dict[str, Objective] = {
    "smallest at 10,000 cycles": lambda *args: smallest(*args, 10_000),
    "fastest (--max)": fastest,
    "fewest LUTs (--min-area)": least,
    "least latency (--latency)": quickest,
}


def random_dense(widths: list[int]) -> LoweredNetwork:
    """Return a dense network of random weights."""
    rng, layers = np.random.default_rng(0), []
    for number, (mw, mh) in enumerate(itertools.pairwise(widths), start=1):
        weights = rng.choice(np.array([-1, 1], np.int8), (mh, mw))
        thresholds = (2 * rng.integers(-2, 3, mh) + mw % 2).astype(np.int32)
        last = number == len(widths) - 1
        layers.append(LoweredLayer(f"fc{number}", weights, None if last else thresholds))
    ones, zeros = np.ones(widths[-1], np.int64), np.zeros(widths[-1], np.int64)
    return LoweredNetwork(
        "-".join(map(str, widths)),
        InputQuantizer((widths[0],), np.full((1, 1), 127.5, np.float32)),
        tuple(layers),
        LoweredOutput(ones, zeros, ones.astype(float), zeros.astype(float)),
    )


def show(name: str, found: Found, seconds: float) -> None:
    """Print a line of the table of objectives."""
    proof = "proved" if found.proved else f"bound {found.bound:,.4g}"
    print(
        f"  {name:27} {seconds:5.2f} s  {found.cycles:>9,} cycles {found.cost.cells:>7,.0f} LUT "
        f"{found.cost.bram:>4} BRAM  value {found.value:,.5g}, {proof}"
    )


def measure() -> None:
    """Time every objective on the repository's networks."""
    for model, board_name in itertools.product(
        ("mnist_sfc", "mnist_cnn", "fashion_cnn", "cifar10_cnv"), ("ulx3s-85f", "ice40-hx8k")
    ):
        lowered, board = lower(load(MODELS / f"{model}.onnx")), load_board(board_name)
        family, budget = FAMILIES[board.family], core_budget(board, lowered)
        start = time.perf_counter()
        options = sum(len(layer) for layer in tables(lowered, family).layers)
        seconds = time.perf_counter() - start
        print(f"{model} on {board_name}: {options} options estimated in {seconds:.2f} s")
        for name, search in OBJECTIVES.items():
            start = time.perf_counter()
            try:
                found = search(lowered, family, budget)
            except WorkFailed as error:
                print(f"  {name:27} {time.perf_counter() - start:5.2f} s  {str(error)[:70]}...")
                continue
            show(name, found, time.perf_counter() - start)


def try_all() -> None:
    """Compare the search with all foldings of a small network, unpadded."""
    lowered, family, budget = random_dense([8, 8, 4]), FAMILIES["ecp5"], Budget(1500, 4)
    layers = [
        [
            LayerFolding(pe, simd, memory, buffer, 2 if memory == "bram" else 1)
            for pe, simd in itertools.product(legal_pe(layer), legal_simd(layer))
            for memory in (["constant"] if (pe, simd) == layer.weights.shape else ["lut", "bram"])
            for buffer in ("auto", "registers")
        ]
        for layer in lowered.layers
    ]
    start, totals = time.perf_counter(), []
    for pair in itertools.product(*layers):
        total = estimate_core(family, lowered, {"fc1": pair[0], "fc2": pair[1]}).total
        if budget.holds(total):
            totals.append(total.cells)
    brute = time.perf_counter() - start
    start = time.perf_counter()
    found = least(lowered, family, budget, None)
    seconds = time.perf_counter() - start
    print(
        f"8-8-4: {len(totals)} foldings that fit take {min(totals):.2f} LUT at least "
        f"({brute:.1f} s); the search finds {found.value:.2f} ({seconds:.2f} s)"
    )
    if found.value > min(totals) + 1e-3:
        sys.exit("the search missed the smallest folding")


def pad_gains() -> None:
    """Compare LUTs with and without padding at the same target."""
    print("padding, ECP5 with 20,000 LUT and 50 BRAM:   with        without")
    for widths, cycles in (
        ([64, 127, 10], 200),
        ([64, 127, 10], 1000),
        ([784, 127, 50, 10], 500),
        ([784, 127, 127, 10], 500),
        ([784, 127, 127, 10], 2000),
        ([593, 64, 64, 2], 1000),
    ):
        lowered, budget = random_dense(widths), Budget(20_000, 50)
        padded = smallest(lowered, FAMILIES["ecp5"], budget, cycles)
        with patch("xnorflow.options.legal_widths", lambda net: [[w] for w in own_widths(net)]):
            alone = smallest(replace(lowered), FAMILIES["ecp5"], budget, cycles)
        print(
            f"  {lowered.name:18} at {cycles:>5} cycles: {padded.cost.cells:7,.0f} LUT "
            f"{padded.cost.bram:>2} BRAM {alone.cost.cells:7,.0f} LUT {alone.cost.bram:>2} BRAM "
            f"({padded.cost.cells / alone.cost.cells - 1:+.0%} LUT)"
        )


if __name__ == "__main__":
    measure()
    try_all()
    pad_gains()
