"""Popcount, PEs, thresholds, scores and ROMs are their definitions, whatever the enable does."""

from functools import reduce
from operator import add, xor

import numpy as np
import pytest
from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from pipeline_rules import at_most, prove_pipeline

from xnorflow.hw.layouts import Lanes
from xnorflow.hw.multi_threshold import MultiThresholdUnit
from xnorflow.hw.pe_array import PEArray
from xnorflow.hw.plane_sum import PlaneSum
from xnorflow.hw.popcount import AdderTree
from xnorflow.hw.rom import ROM, ROMStyle
from xnorflow.hw.score import ScoreUnit
from xnorflow.hw.threshold import ThresholdUnit

pytestmark = pytest.mark.prove


@pytest.mark.parametrize(
    ("lanes", "top", "granule"),
    [(1, 1, None), (6, 1, None), (8, 1, None), (13, 1, None), (3, 3, None), (4, 1, 2), (16, 1, 8)],
)
def test_an_adder_tree_gives_the_sum_of_its_lanes(lanes, top, granule, proved):
    tree, m = AdderTree(lanes, top, granule), Module()
    cells = [Signal(range(top + 1), name=f"lane_{n}") for n in range(lanes)]
    inputs = {f"lane_{n}": cell for n, cell in enumerate(cells)}
    pads = Signal(lanes // granule if granule else 1)
    m.d.comb += [tree.i[n].eq(cell) for n, cell in enumerate(cells)]
    counted: list[Value] = list(cells)
    if granule:
        inputs["pads"] = pads
        m.d.comb += tree.pad.eq(pads)
        # A padded granule counts for half of its lanes.
        counted = [
            Mux(pads[n // granule], n % granule < granule // 2, cell)
            for n, cell in enumerate(cells)
        ]
    verdict = prove_pipeline(
        tree, m, inputs, [(tree.o, reduce(add, counted))], latency=tree.latency
    )
    proved(verdict, "AdderTree", "sum of the lanes", f"{lanes=} {top=} {granule=}")
    assert verdict.covered


@pytest.mark.parametrize(
    ("pe", "simd", "folds", "lanes"),
    [
        (2, 3, 1, Lanes()),
        (1, 3, 2, Lanes()),
        (1, 2, 1, Lanes(width=2)),
        (1, 1, 3, Lanes(width=2)),
        (1, 2, 1, Lanes(granule=1)),
        (1, 2, 2, Lanes(granule=2)),
        (1, 8, 1, Lanes(granule=8)),
    ],
    ids=str,
)
def test_a_pe_array_gives_dot_products(pe, simd, folds, lanes, proved):
    array, m = PEArray(pe, simd, folds, lanes), Module()
    granule = lanes.granule or simd
    cells = [Signal(lanes.width, name=f"lane_{n}") for n in range(simd)]
    pads = [Signal(name=f"pad_{n}") for n in range(simd // granule)]
    weights = Signal(pe * simd)
    valid, restart = Signal(), Signal()
    inputs = {"weights": weights, "valid": valid, "restart": restart}
    inputs |= {signal.name: signal for signal in [*cells, *(pads if lanes.granule else ())]}

    # A neuron takes at most so many steps.
    steps = Signal(range(folds + 1), init=folds)
    first = restart | (steps == folds)
    m.d.comb += [
        array.w.as_value().eq(_encoded(array, weights)),
        array.valid.eq(valid),
        array.first.eq(first),
    ]
    if lanes.granule:
        for n, cell in enumerate(cells):
            m.d.comb += array.a[n // granule].lanes[n % granule].eq(cell)
        m.d.comb += [array.a[n].pad.eq(pad) for n, pad in enumerate(pads)]
    else:
        m.d.comb += array.a.as_value().eq(array.mix(Cat(cells)))
    with m.If(array.en & valid):
        m.d.sync += steps.eq(Mux(first, 1, steps + 1))

    expected = []
    for p in range(pe):
        products, base = [], []
        for n, cell in enumerate(cells):
            weight = weights[p * simd + n]
            if lanes.width > 1:
                products.append(Mux(weight, cell, -cell))
                base.append(Mux(weight, 0, lanes.top))
            else:
                product = Mux(cell == weight, Const(1), Const(-1))
                products.append(Mux(pads[n // granule], 0, product) if lanes.granule else product)
                base.append(Const(1))
        # What the count must be, so that ``unit * count - base`` is the dot product.
        doubled = reduce(add, products) + reduce(add, base)
        count = doubled >> (lanes.unit - 1)
        if folds > 1:
            total = Signal(len(array.o[p]), name=f"total_{p}")
            now = Signal.like(total, name=f"now_{p}")
            m.d.comb += now.eq(Mux(valid, Mux(first, 0, total) + count, total))
            with m.If(array.en):
                m.d.sync += total.eq(now)
            count = now
        expected.append((array.o[p], count))
    verdict = prove_pipeline(array, m, inputs, expected, latency=array.latency)
    kind = f"{pe=} {simd=} {folds=} bits={lanes.width} granule={lanes.granule}"
    proved(verdict, "PEArray", "dot products, padded lanes 0", kind)
    assert verdict.covered


@pytest.mark.parametrize(("folds", "pe", "top"), [(1, 2, 5), (2, 2, 3), (3, 1, 6)])
def test_a_threshold_unit_compares_with_its_folds_thresholds(folds, pe, top, proved):
    thresholds = np.random.default_rng(folds).integers(0, top + 2, (folds, pe))
    unit, m = ThresholdUnit(thresholds, top), Module()
    fold, counts, inputs = _counts_and_fold(m, unit)
    expected = [(unit.o[p], counts[p] >= _row(thresholds[:, p], fold)) for p in range(pe)]
    verdict = prove_pipeline(unit, m, inputs, expected, latency=unit.latency)
    proved(verdict, "ThresholdUnit", "comparison of each count", f"{folds=} {pe=} {top=}")
    assert verdict.covered


@pytest.mark.parametrize(
    ("levels", "folds", "pe", "top"),
    [(3, 1, 2, 5), (4, 1, 1, 6), (17, 1, 1, 20), (3, 2, 2, 3), (5, 3, 1, 4)],
)
def test_a_multi_threshold_unit_counts_the_thresholds_reached(levels, folds, pe, top, proved):
    rng = np.random.default_rng(levels + folds)
    thresholds = np.sort(rng.integers(0, top + 2, (levels, folds, pe)), axis=0)
    if levels == 5:  # a row twice, and with it a table
        thresholds[2] = thresholds[1]
    unit, m = MultiThresholdUnit(thresholds, top), Module()
    fold, counts, inputs = _counts_and_fold(m, unit)
    expected = [
        (
            unit.o[p],
            reduce(
                add, [counts[p] >= _row(thresholds[level, :, p], fold) for level in range(levels)]
            ),
        )
        for p in range(pe)
    ]
    verdict = prove_pipeline(unit, m, inputs, expected, latency=unit.latency)
    told = f"{levels=} {folds=} {pe=} {top=}"
    proved(verdict, "MultiThresholdUnit", "thresholds that each count reaches", told)
    assert verdict.covered


@pytest.mark.parametrize(
    ("coefficients", "pe", "top"),
    [
        ([[1, 1], [2, 2]], 4, 2),
        ([[1, 3], [2, 1]], 2, 2),
        ([[1, 1], [2, 2]], 1, 2),
        ([[1, 3], [2, 0]], 1, 2),
        ([[1], [1], [2], [4]], 2, 1),
    ],
)
def test_a_plane_sum_is_that_of_the_products(coefficients, pe, top, proved):
    gains = np.array(coefficients)
    unit, m = PlaneSum(gains, pe, top), Module()
    cells = [Signal(range(top + 1), name=f"count_{p}") for p in range(pe)]
    valid = Signal()
    legal = [at_most(cell, top) for cell in cells]
    m.d.comb += [unit.i[p].eq(cell) for p, cell in enumerate(legal)]
    m.d.comb += unit.valid.eq(valid)
    table = gains.T.reshape(-1, pe)
    beat = Signal(range(len(table)))
    with m.If(unit.en & valid):
        m.d.sync += beat.eq(Mux(beat == len(table) - 1, 0, beat + 1))
    products = [cell * _row(column, beat) for cell, column in zip(legal, table.T, strict=True)]
    last = beat % unit.steps == unit.steps - 1
    expected = [(unit.done, valid & last)]
    for lane in range(unit.lanes):
        each = min(pe, unit.planes)
        total = reduce(add, products[lane * each : (lane + 1) * each])
        if unit.steps > 1:
            before = Signal(range(unit.o_top + 1))
            kept = Mux(beat % unit.steps == 0, 0, before)
            now = Signal.like(before, name="now")
            m.d.comb += now.eq(Mux(valid, kept + total, before))
            with m.If(unit.en):
                m.d.sync += before.eq(now)
            total = now
        expected.append((unit.o[lane], total))
    inputs = {"valid": valid, **{cell.name: cell for cell in cells}}
    verdict = prove_pipeline(unit, m, inputs, expected, latency=unit.latency)
    told = f"{coefficients=} {pe=} {top=}".replace(" ", "").replace("]]", "]] ")
    proved(verdict, "PlaneSum", "products summed, at their time", told)
    assert verdict.covered


@pytest.mark.parametrize(
    ("scale", "offset", "top"),
    [([[2, -3]], [[1, -4]], 3), ([[2], [-3]], [[1], [0]], 3), ([[1], [1]], [[5], [-6]], 6)],
)
def test_a_score_unit_gives_the_affine_of_its_fold(scale, offset, top, proved):
    gain, shift = np.array(scale), np.array(offset)
    unit, m = ScoreUnit(gain, shift, top), Module()
    fold, counts, inputs = _counts_and_fold(m, unit)
    expected = []
    for p in range(unit.pe):
        # Of each fold by its own constants, then chosen.
        scores = [
            int(a) * (2 * counts[p] - top) + int(b)
            for a, b in zip(gain[:, p], shift[:, p], strict=True)
        ]
        expected.append((unit.o[p].as_unsigned(), Array(scores)[fold][: unit.width]))
    verdict = prove_pipeline(unit, m, inputs, expected, latency=unit.latency)
    parameters = f"{scale=} {offset=} {top=}".replace(" ", "").replace("]]", "]] ")
    proved(verdict, "ScoreUnit", "scale * acc + offset", parameters)
    assert verdict.covered


@pytest.mark.parametrize(
    ("style", "depth", "width", "latency"),
    [
        (ROMStyle.CONSTANT, 1, 5, 1),
        (ROMStyle.LUT, 5, 3, 1),
        (ROMStyle.LUT, 2, 66, 1),
        (ROMStyle.LUT, 34, 2, 2),
        (ROMStyle.LUT, 130, 2, 2),
        (ROMStyle.BRAM, 5, 3, 1),
        (ROMStyle.BRAM, 5, 3, 2),
        (ROMStyle.BRAM, 2, 66, 1),
    ],
)
def test_a_rom_gives_its_words_in_every_style(style, depth, width, latency, proved):
    rng = np.random.default_rng(depth)
    words = [int.from_bytes(rng.bytes(9), "little") % (1 << width) for _ in range(depth)]
    rom, m = ROM(words, width, style, latency), Module()
    free = Signal(range(depth))
    address = at_most(free, depth - 1)
    m.d.comb += rom.addr.eq(address)
    claim = Array(Const(word, width) for word in words)[address]
    cycles = 0 if style is ROMStyle.CONSTANT else latency
    verdict = prove_pipeline(rom, m, {"address": free}, [(rom.data, claim)], latency=cycles)
    bounds = f"style={style.value} {depth=} {width=} {latency=}"
    proved(verdict, "ROM", "the word of the address", bounds)
    assert verdict.covered


def _row(values, fold: Value) -> Value:
    return Array(Const(int(value), 8) for value in values)[fold]


def _encoded(array: PEArray, weights: Signal) -> Value:
    """Return the weights as the array stores them: XORs of some, which one-hot words show."""
    words = np.eye(len(weights), dtype=bool).reshape(-1, array.pe, array.simd)
    zero = array.encode(np.zeros_like(words[0])).reshape(-1)
    flips = array.encode(words).reshape(len(weights), -1) ^ zero
    return Cat(
        reduce(
            xor,
            [weights[n] for n in range(len(weights)) if flips[n, bit]],
            Const(int(zero[bit]), 1),
        )
        for bit in range(len(weights))
    )


def _counts_and_fold(m: Module, unit) -> tuple[Value, list[Value], dict[str, Signal]]:
    """Give the unit any counts and any fold that are in range; return them and what is free."""
    fold = Signal(range(unit.folds))
    counts = [Signal(range(unit.top + 1), name=f"count_{p}") for p in range(unit.pe)]
    legal = [at_most(count, unit.top) for count in counts]
    number = at_most(fold, unit.folds - 1)
    m.d.comb += [unit.i.as_value().eq(Cat(value[: len(unit.i[0])] for value in legal))]
    m.d.comb += unit.fold.eq(number)
    inputs = {"fold": fold, **{f"count_{p}": count for p, count in enumerate(counts)}}
    return number, legal, inputs
