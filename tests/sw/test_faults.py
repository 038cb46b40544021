"""Flipped bits: which flip, what the hardware makes of them, and how they are counted."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from math import comb

import numpy as np
import onnx
import pytest
from amaranth import Module, Signal, Value
from amaranth.hdl import Shape
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from family_networks import FamilyMaker
from foldings import random_folding
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import lowered_network
from random_networks import random_cnn, random_frames, random_network, to_qonnx
from residual_networks import random_residual

from xnorflow.assemble import assemble
from xnorflow.cli.main import main
from xnorflow.errors import UserError
from xnorflow.faults import TARGETS, Point, Study, Upsets, study
from xnorflow.faults.output import COLUMNS
from xnorflow.faults.regions import STREAMS, Comparator
from xnorflow.faults.study import _critical, draw, t_quantile
from xnorflow.folding import LayerFolding, legal_simd
from xnorflow.frames import prepare
from xnorflow.golden import activations, predict_quantized, quantize
from xnorflow.hw.accumulator import ThresholdAccumulator, accumulator_width
from xnorflow.hw.core import CoreStage, Shortcut, StreamingCore
from xnorflow.hw.join import JoinUnit
from xnorflow.hw.multi_threshold import MultiThresholdUnit
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.pool import PoolUnit
from xnorflow.hw.shared_counts import SharedCounts
from xnorflow.hw.threshold_stage import ThresholdStage
from xnorflow.lowered import InputQuantizer, LoweredJoin
from xnorflow.lowering import lower
from xnorflow.network import Dense, Network, Sign
from xnorflow.sim.amaranth_engine import run_core

DRAWN = lowered_network([24, 12, 8, 4], seed=3)
# Without large offsets, which would let one class win always.
SMALL = replace(DRAWN, output=replace(DRAWN.output, offset=np.arange(4)))
UPSETS = Upsets(SMALL)
FRAMES = np.random.default_rng(5).random((40, 24)) < 0.5
LABELS = predict_quantized(SMALL, FRAMES).classes
LABELS[:4] = (LABELS[:4] + 1) % 4
LABELLED = prepare(SMALL, FRAMES * np.uint8(255), LABELS)

#: Seeds of `random_cnn`: integers of few, many and odd numbers of levels, true zeros, groups,
#: average pools with thresholds behind them, and accumulators of integers that are sent on.
CNNS = (6, 7, 16, 17, 30, 35, 42)

#: Seeds of `FamilyMaker`: planes with coefficients of either sign, levels, average pools, sums and
#: channels put together, pools and thresholds on shortcuts.
FAMILY = (0, 3, 8, 10, 30, 34, 37, 39)

#: Seeds of `random_residual`: layers on shortcuts.
RESIDUAL = (0, 2, 4, 6, 14, 18)


def some_bits(rng, regions, share, rows=None):
    """Return regions with a random share of their bits, which is at least one bit of each."""
    result = []
    for region in regions:
        shape = (region.bits,) if rows is None else (rows, region.bits)
        bits = rng.random(shape) < share
        bits[..., rng.integers(region.bits)] = True
        result.append((region, bits))
    return result


def changed(lowered, other):
    """Return how many weights and thresholds differ, stage by stage."""
    counts = {}
    for stage, now in zip(lowered.stages, other.stages, strict=True):
        weights = int((stage.weights != now.weights).sum())
        thresholds = 0
        if stage.thresholds is not None:
            thresholds = int((stage.thresholds != now.thresholds).sum())
        counts[stage.name] = (weights, thresholds)
    return counts


class TestDraws:
    @settings(max_examples=60)
    @given(st.data())
    def test_each_row_has_exactly_the_flips_asked_for(self, data):
        bits = data.draw(st.integers(1, 200))
        flips = data.draw(st.integers(0, bits))
        chosen = draw(np.random.default_rng(data.draw(st.integers(0, 99))), 7, bits, flips)
        assert chosen.shape == (7, bits)
        assert (chosen.sum(axis=1) == flips).all()

    @pytest.mark.parametrize("flips", [2, 3])
    def test_all_sets_are_equally_likely(self, flips):
        rows = 20_000
        chosen = draw(np.random.default_rng(1), rows, 5, flips)
        _, counts = np.unique(chosen, axis=0, return_counts=True)
        assert len(counts) == comb(5, flips)
        expected = rows / len(counts)
        # Chi-squared with 9 degrees of freedom: 27.9 is exceeded once in a thousand times.
        assert ((counts - expected) ** 2 / expected).sum() < 27.9


class TestRegions:
    def test_a_perceptron_has_the_bits_that_its_topology_says(self):
        sizes = {(r.target, r.name): (r.words, r.width) for r in UPSETS.regions}
        assert sizes == {
            ("inputs", "input"): (24, 1),
            ("weights", "fc1"): (24 * 12, 1),
            # Counts from 0 to 24, and 25 for never.
            ("thresholds", "fc1"): (12, 5),
            ("activations", "fc1"): (12, 1),
            ("weights", "fc2"): (12 * 8, 1),
            ("thresholds", "fc2"): (8, 4),
            ("activations", "fc2"): (8, 1),
            ("weights", "fc3"): (8 * 4, 1),
        }

    def test_zero_flips_are_the_network_itself(self):
        nothing = [(r, np.zeros(r.bits, bool)) for r in UPSETS.regions if r.target not in STREAMS]
        assert UPSETS.stored(nothing).lowered.digest() == SMALL.digest()
        still = [(r, np.zeros((40, r.bits), bool)) for r in UPSETS.regions if r.target in STREAMS]
        for faulty in (UPSETS.stored(nothing), UPSETS.on_streams(still)):
            for got, expected in zip(
                faulty.activations(FRAMES), activations(SMALL, FRAMES), strict=True
            ):
                assert np.array_equal(got, expected)

    def test_all_weights_of_a_layer_flipped_turn_its_sums_around(self):
        last = next(r for r in UPSETS.regions if (r.target, r.name) == ("weights", "fc3"))
        faulty = UPSETS.stored([(last, np.ones(last.bits, bool))])
        accumulators = predict_quantized(SMALL, FRAMES).accumulators
        output = SMALL.output
        scores = -accumulators.astype(np.int64) * output.scale + output.offset
        assert np.array_equal(faulty.activations(FRAMES)[-1], scores)

    def test_a_flipped_weight_changes_that_weight_and_nothing_else(self):
        region = next(r for r in UPSETS.regions if (r.target, r.name) == ("weights", "fc2"))
        bits = draw(np.random.default_rng(2), 1, region.bits, 5)[0]
        faulty = UPSETS.stored([(region, bits)]).lowered
        assert changed(SMALL, faulty) == {"fc1": (0, 0), "fc2": (5, 0), "fc3": (0, 0)}
        flipped = faulty.layers[1].weights != SMALL.layers[1].weights
        assert np.array_equal(flipped.ravel(), bits)

    def test_a_flipped_threshold_bit_moves_one_threshold_by_its_weight_in_counts(self):
        region = next(r for r in UPSETS.regions if (r.target, r.name) == ("thresholds", "fc1"))
        layer = SMALL.layers[0]
        words = (layer.thresholds + 24) // 2
        for neuron, bit in ((0, 0), (3, 2), (11, 4)):
            bits = np.zeros(region.bits, bool)
            bits[neuron * region.width + bit] = True
            faulty = UPSETS.stored([(region, bits)]).lowered
            assert changed(SMALL, faulty) == {"fc1": (0, 1), "fc2": (0, 0), "fc3": (0, 0)}
            word = int(words[neuron]) ^ 1 << bit
            # Beyond 24 agreements it never fires.
            assert faulty.layers[0].thresholds[neuron] == min(2 * word - 24, 25)

    def test_flips_on_a_stream_change_it_and_nothing_before_it(self):
        region = next(r for r in UPSETS.regions if (r.target, r.name) == ("activations", "fc2"))
        bits = draw(np.random.default_rng(2), 40, region.bits, 3)
        got = UPSETS.on_streams([(region, bits)]).activations(FRAMES)
        expected = activations(SMALL, FRAMES)
        assert np.array_equal(got[0], expected[0])
        assert np.array_equal(got[1] ^ expected[1], bits)
        assert not np.array_equal(got[2], expected[2])

    def test_flipped_inputs_are_other_frames(self):
        region = next(r for r in UPSETS.regions if r.target == "inputs")
        bits = draw(np.random.default_rng(2), 40, region.bits, 6)
        got = UPSETS.on_streams([(region, bits)]).classes(FRAMES)
        assert np.array_equal(got, predict_quantized(SMALL, FRAMES ^ bits).classes)


class Flipper(wiring.Component):
    """A wire that turns chosen bits of its beats around; stands between two stages of a core."""

    def __init__(self, shape, masks):
        self.masks = masks
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def schedule(self, arrivals):
        return arrivals

    def elaborate(self, platform):
        m = Module()
        width = Shape.cast(self.i.payload.shape()).width
        m.submodules.masks = rom = memory.Memory(
            shape=width, depth=len(self.masks), init=self.masks
        )
        mask = rom.read_port(domain="comb")
        beat = Signal(range(len(self.masks) + 1))
        m.d.comb += [
            mask.addr.eq(beat),
            Value.cast(self.o.payload).eq(Value.cast(self.i.payload) ^ mask.data),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready),
        ]
        with m.If(self.i.valid & self.o.ready):
            m.d.sync += beat.eq(beat + 1)
        return m


def hardware(seed):
    """Return a random convolutional network, its faults, its core and four frames."""
    rng = np.random.default_rng(seed)
    network = random_cnn(rng)
    lowered = lower(network)
    folding = random_folding(rng, lowered)
    for layer in lowered.layers:
        if layer.zero_padded:
            # With an odd number of channels that share a flag a threshold has one bit more.
            simd, pe = legal_simd(layer)[-1], folding[layer.name].pe
            single = pe == layer.mh and simd == layer.mw
            weights_in = "constant" if single else "lut"
            folding[layer.name] = replace(folding[layer.name], simd=simd, weights_in=weights_in)
    frames = quantize(lowered, random_frames(rng, network, 4))
    return rng, lowered, Upsets(lowered), assemble(lowered, folding), frames


def family_hardware(seed):
    """Return the same of a network of levels, planes and shortcuts."""
    return hardware_of(seed, FamilyMaker(seed).network(), 5)


def residual_hardware(seed):
    """Return the same of a network whose shortcuts may have layers."""
    network = random_residual(seed)
    return hardware_of(seed, network, network.ops[0].high + 1)


def hardware_of(seed, network, levels):
    """Return the same of a network whose levels are searched for one behind the other."""
    rng = np.random.default_rng(seed)
    lowered = lower(network)
    folding = random_folding(rng, lowered)
    for layer in lowered.layers:
        choice = folding[layer.name]
        if layer.zero_padded:
            choice = replace(choice, simd=legal_simd(layer)[-1])
        if layer.o_levels > 1:
            # Few thresholds of all neurons at once are no search.
            choice = replace(choice, pe=1)
        single = choice.pe == layer.rows and choice.simd == layer.mw
        folding[layer.name] = replace(choice, weights_in="constant" if single else "lut")
    core = assemble(lowered, folding)
    assert not any(map(side_by_side, units_of(core).values()))
    frames = quantize(lowered, rng.integers(0, levels, (4, *lowered.input.shape)).astype(np.uint8))
    return rng, lowered, Upsets(lowered), core, frames


def side_by_side(unit):
    """Return whether a unit's levels are compared with in another order than a search does."""
    head = unit.unit if isinstance(unit, ThresholdStage) else getattr(unit, "_head", None)
    return (
        isinstance(head, MultiThresholdUnit) and head.folds == 1 and head.distinct not in (1, 3, 7)
    )


def stages_of(core):
    """Return which of a core's stages send on what the stages of the lowered network do."""
    kinds = (MatrixVectorUnit, PoolUnit, ThresholdStage, JoinUnit)

    def sending(stages):
        return [n for n, stage in enumerate(stages) if isinstance(stage.unit, kinds)]

    result = {}
    for number, index in enumerate(sending(core.stages)):
        shortcut = core.stages[index].shortcut
        if shortcut is not None:
            for side, place in enumerate(sending(shortcut.stages)):
                result[number, side] = index, place
        result[number, None] = index, None
    return result


def units_of(core):
    """Return the components by their places in the lowered network."""
    return {
        place: (
            core.stages[index].unit
            if side is None
            else core.stages[index].shortcut.stages[side].unit
        )
        for place, (index, side) in stages_of(core).items()
    }


def check(core, lowered, frames, faulty, flips=None):
    """Check the core against the faulty network; return whether any score is another now."""
    bits = lowered.input.to_bits(frames)
    run = run_core(core, bits if flips is None else bits ^ flips)
    scores = faulty.activations(frames)[-1]
    assert np.array_equal(run.scores, scores)
    assert np.array_equal(run.classes, scores.argmax(axis=1))
    return not np.array_equal(scores, activations(lowered, frames)[-1])


def flip_weights(unit, bits):
    flipped = bits.reshape(unit.weights.shape)
    unit.weights = np.where(flipped, -unit.weights, unit.weights)
    for first, array in enumerate(unit._arrays):
        if isinstance(array._agreement, SharedCounts):
            rows = slice(first * array.pe, (first + 1) * array.pe)
            array._agreement.positive = unit.weights[rows] > 0


def flip_thresholds(unit, region, bits):
    words = bits.reshape(region.words, region.width) @ (1 << np.arange(region.width))
    head = unit.unit if isinstance(unit, ThresholdStage) else unit._head
    if isinstance(head, MultiThresholdUnit):
        assert 1 << region.width > head.top + 1 >= 1 << region.width - 1
        head._kept = head._kept ^ words.reshape(head._kept.shape)
        return
    # With several steps a neuron the thresholds are in the accumulators.
    heads = [head] if head else [array._accumulator for array in unit._arrays]
    folds = heads[0].thresholds.shape[0]
    parts = np.split(words.reshape(folds, -1), len(heads), axis=1)
    for each, part in zip(heads, parts, strict=True):
        assert 1 << region.width > each.top + 1 >= 1 << region.width - 1
        # Above `top + 1` a threshold fires no less.
        each.thresholds = np.minimum(each.thresholds ^ part, each.top + 1)
        if isinstance(each, ThresholdAccumulator):
            # Its bits are those that its own thresholds need.
            each._width = accumulator_width(each.thresholds, each.top)


def flipper(before, region, bits, frames):
    """Return a stage that turns bits of what `before` sends on."""
    shape, beats = before.unit.o.payload.shape(), before.o_beats
    size = Shape.cast(shape).width
    assert region.bits == beats * size
    masks = [
        int("".join("01"[bit] for bit in row[::-1]), 2)
        for row in bits.reshape(frames * beats, size).astype(int)
    ]
    return CoreStage("flip", Flipper(shape, masks), beats, beats, beats)


def with_flippers(core, flips, frames):
    """Return a core whose streams are hit, those of shortcuts too."""
    wanted = {region.place: (region, bits) for region, bits in flips}
    at, joins = {}, {}
    for (number, side), (index, place) in stages_of(core).items():
        if side is None:
            joins[index] = number
            if (number, None) in wanted:
                at[index, None] = wanted[number, None]
        else:
            at[index, place] = wanted[number, side + 1]
    stages, moved = [], {}
    for index, stage in enumerate(core.stages):
        if stage.name == "serializer":
            continue
        if stage.shortcut is not None:
            before = core.stages[stage.shortcut.source]
            sides = [flipper(before, *wanted[joins[index], 0], frames)]
            for place, part in enumerate(stage.shortcut.stages):
                sides.append(part)
                if (index, place) in at:
                    sides.append(flipper(part, *at[index, place], frames))
            shortcut = Shortcut(moved[stage.shortcut.source], tuple(sides))
            stage = replace(stage, shortcut=shortcut)
        stages.append(stage)
        if (index, None) in at:
            stages.append(flipper(stage, *at[index, None], frames))
        moved[index] = len(stages) - 1
    return StreamingCore(stages)


#: Networks, their seeds, and how many of these must show the flips in a score.
HARDWARE = [(hardware, CNNS, 4), (family_hardware, FAMILY, 6), (residual_hardware, RESIDUAL, 4)]


class TestHardware:
    """What is injected is what happens when the bits flip in the simulated hardware."""

    @pytest.mark.parametrize(("make", "seeds", "least"), HARDWARE)
    def test_memories_of_a_core_that_is_built_already(self, make, seeds, least):
        differing = 0
        for seed in seeds:
            rng, lowered, upsets, core, frames = make(seed)
            units = units_of(core)
            flips = some_bits(rng, [r for r in upsets.regions if r.target not in STREAMS], 0.05)
            for region, bits in flips:
                if region.target == "weights":
                    flip_weights(units[region.place], bits)
                else:
                    flip_thresholds(units[region.place], region, bits)
            differing += check(core, lowered, frames, upsets.stored(flips))
        assert differing >= least

    @pytest.mark.parametrize(("make", "seeds", "least"), HARDWARE)
    def test_streams_between_the_stages(self, make, seeds, least):
        differing = 0
        for seed in seeds:
            rng, lowered, upsets, core, frames = make(seed)
            streams = [r for r in upsets.regions if r.target in STREAMS]
            flips = some_bits(rng, streams, 0.03, rows=len(frames))
            hit = with_flippers(core, flips[1:], len(frames))
            differing += check(hit, lowered, frames, upsets.on_streams(flips), flips[0][1])
        assert differing >= least

    def test_scores_too_large_for_their_bits_wrap(self):
        # Without faults both planes cancel out.
        zeros, ones = np.zeros((2, 4), int), np.ones((2, 2), int)
        last = Dense("last", zeros, coefficients=ones)
        lowered = lower(Network("zeros", (4,), (Sign("in"), last)))
        upsets = Upsets(lowered)
        core = assemble(lowered, {"last": LayerFolding(2, 2, "lut")})
        (region,) = (r for r in upsets.regions if r.target == "weights")
        bits = np.zeros(region.bits, bool)
        bits[:4] = True
        flip_weights(core.stages[0].unit, bits)
        frames = np.ones((1, 4), bool)
        faulty = upsets.stored([(region, bits)])
        check(core, lowered, frames, faulty)
        assert np.abs(activations(faulty.lowered, frames)[-1]).tolist() == [[8, 0]]
        assert faulty.activations(frames)[-1].tolist() == [[0, 0]]

    @settings(max_examples=60)
    @given(st.data())
    def test_thresholds_out_of_order_are_what_a_search_finds(self, data):
        held, top = data.draw(st.integers(1, 9)), 12
        words = np.array([data.draw(st.integers(0, 15)) for _ in range(held)])
        rows = np.array(sorted(data.draw(st.integers(0, held - 1)) for _ in range(held)))
        memory = Comparator(words[:, None], top, 1, np.zeros(1, int), rows)
        thresholds = memory.thresholds()[:, 0]
        table = [*words.tolist(), *[top + 1] * 15]
        for count in range(top + 1):
            found = 0
            for step in reversed(range(held.bit_length())):
                found += (count >= table[found + (1 << step) - 1]) << step
            assert (count >= thresholds).sum() == (rows < found).sum()

    def test_a_flipped_weight_under_integers_leaves_the_stored_threshold_as_it_is(self):
        # Its meaning on the sum moves: a lane of 2 bits with -1 adds ~u, which is 3 more than -u.
        tiny = lowered_network([4, 1, 2])
        weights, thresholds = np.array([[1, 1, -1, 1]], np.int8), np.array([2], np.int32)
        first = replace(tiny.layers[0], weights=weights, thresholds=thresholds, levels=3)
        quantizer = InputQuantizer((4,), np.arange(1, 4, dtype=np.float32)[:, None])
        upsets = Upsets(replace(tiny, input=quantizer, stages=(first, tiny.layers[1])))
        region = next(r for r in upsets.regions if r.target == "weights")
        faulty = upsets.stored([(region, np.array([True, False, False, False]))]).lowered
        now = faulty.layers[0]
        assert now.weights.tolist() == [[-1, 1, -1, 1]]
        assert now.thresholds is not None
        assert now.thresholds.tolist() == [-1]


class TestStudy:
    @pytest.mark.parametrize(
        ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (99, 1.984)]
    )
    def test_quantiles_are_those_of_the_tables(self, freedom, quantile):
        assert t_quantile(freedom) == pytest.approx(quantile, abs=1e-3)

    def test_a_point_has_the_statistics_of_its_trials(self):
        point = Point(3, 0.5, (0.5, 0.7, 0.9))
        assert point.mean == pytest.approx(0.7)
        assert point.deviation == pytest.approx(0.2)
        half = 4.303 * 0.2 / 3**0.5
        assert point.interval == pytest.approx((0.7 - half, 1.0), abs=1e-3)
        alone = Point(3, 0.5, (0.5,))
        assert alone.deviation is None
        assert alone.interval is None

    def test_the_loss_of_a_point_is_found_between_two_numbers_of_flips(self):
        def points(*pairs):
            return [Point(flips, 0.0, (value,)) for flips, value in pairs]

        assert _critical(points((10, 0.9), (1000, 0.88)), 0.9) == pytest.approx(100)
        assert _critical(points((4, 0.88), (8, 0.1)), 0.9) == pytest.approx(2)
        assert _critical(points((0, 0.9), (4, 0.89), (8, 0.1)), 0.9) == pytest.approx(4)
        assert _critical(points((4, 0.895), (8, 0.891)), 0.9) is None

    def test_it_is_the_same_for_the_same_seed_whatever_else_is_studied(self):
        whole = study(SMALL, LABELLED, flips=[2, 5], trials=3, seed=4)
        part = study(SMALL, LABELLED, hit=["activations"], flips=[5], trials=2, seed=4)
        assert [series.target for series in whole.series] == list(TARGETS)
        (only,) = part.series
        assert only.points[0].values == whole.series[2].points[1].values[:2]
        other = study(SMALL, LABELLED, flips=[2, 5], trials=3, seed=5)
        assert other.series != whole.series

    def test_processes_find_what_one_finds(self):
        options = {"hit": ["weights"], "flips": [3, 30], "trials": 2}
        assert study(SMALL, LABELLED, jobs=2, **options) == study(SMALL, LABELLED, **options)

    def test_no_flips_give_the_fault_free_accuracy_in_every_trial(self):
        result = study(SMALL, LABELLED, flips=[0], trials=2)
        expected = float(
            (predict_quantized(SMALL, LABELLED.quantized).classes == LABELLED.y).mean()
        )
        assert result.fault_free == expected
        for series in result.series:
            assert series.points[0].values == (0.9, 0.9)
            assert series.critical_flips is None

    def test_without_labels_it_is_agreement_with_the_fault_free_classes(self):
        bare = prepare(SMALL, LABELLED.x)
        result = study(SMALL, bare, hit=["weights"], flips=[0, 200], trials=2)
        assert result.metric == "agreement"
        assert result.fault_free == 1
        assert result.series[0].points[0].values == (1, 1)
        assert max(result.series[0].points[1].values) < 1

    def test_the_default_goes_from_one_flip_to_half_of_the_bits(self):
        result = study(SMALL, LABELLED, hit=["weights"], trials=1)
        (series,) = result.series
        assert [point.flips for point in series.points] == [1, 3, 10, 30, 100, 208]
        assert series.bits == 416

    def test_rates_are_shares_of_the_bits_and_less_than_half_a_bit_is_left_out(self):
        result = study(SMALL, LABELLED, hit=["weights", "inputs"], rates=[0.01, 0.25], trials=1)
        assert [[p.flips for p in s.points] for s in result.series] == [[4, 104], [6]]
        assert result.notes == ("0.01 of the 24 bits of inputs is no bit: left out",)

    def test_each_layer_alone(self):
        result = study(SMALL, LABELLED, per_layer=True, flips=[1], trials=1)
        assert [(series.target, series.layer) for series in result.series] == [
            *(("weights", name) for name in ("fc1", "fc2", "fc3")),
            *(("thresholds", name) for name in ("fc1", "fc2")),
            *(("activations", name) for name in ("fc1", "fc2")),
            ("inputs", None),
        ]
        chosen = study(SMALL, LABELLED, layers=["fc3"], flips=[1], trials=1)
        assert [(series.target, series.layer) for series in chosen.series] == [("weights", "fc3")]

    def test_shortcuts_have_names_of_their_own(self):
        lowered = lower(FamilyMaker(10).network())
        (join,) = (stage for stage in lowered.stages if isinstance(stage, LoweredJoin))
        shape = (6, *lowered.input.shape)
        frames = prepare(lowered, np.random.default_rng(0).integers(0, 5, shape).astype(np.uint8))
        result = study(lowered, frames, per_layer=True, flips=[1], trials=1)
        regions = {(series.target, series.layer): series.bits for series in result.series}
        assert len(regions) == len(result.series)
        threshold, pool = (f"{part.name} (shortcut to {join.name})" for part in join.path)
        source = lowered.stages[join.source]
        pixels = source.o_shape[0] * source.o_shape[1]
        assert regions["thresholds", threshold] % source.o_shape[2] == 0
        assert regions["activations", threshold] == pixels * source.o_shape[2]
        before = regions["activations", source.name]
        assert regions["activations", pool] == pixels * source.o_shape[2] < before
        assert regions["activations", f"{join.name} (shortcut)"] == before
        # Planes are rows of their own.
        for layer in lowered.layers:
            assert regions["weights", layer.name] == layer.rows * layer.mw

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"hit": ["weight"]}, "'weight'"),
            ({"layers": ["fc9"]}, "the network has fc1, fc2, fc3"),
            ({"layers": ["fc3"], "hit": ["thresholds"]}, "fc3 has no thresholds"),
            ({"layers": ["fc1"], "hit": ["inputs"]}, "belong to no layer"),
            ({"flips": [25]}, "more than the 20 bits of activations"),
            ({"flips": [-1]}, "must not be negative"),
            ({"flips": [1], "rates": [0.1]}, "exclude each other"),
            ({"rates": [1.5]}, "between 0 and 1"),
            ({"rates": [float("nan")]}, "between 0 and 1"),
            ({"rates": [1e-9]}, "less than half a bit"),
            ({"trials": 0}, "`trials` is 0"),
            ({"jobs": 0}, "`jobs` is 0"),
            ({"seed": -1}, "`seed` is -1"),
        ],
    )
    def test_wrong_arguments_are_told(self, options, says):
        with pytest.raises(UserError, match=says):
            study(SMALL, LABELLED, **options)

    def test_a_network_without_thresholds_has_none_to_hit(self):
        alone = lowered_network([6, 3])
        frames = prepare(alone, np.zeros((2, 6), np.uint8))
        with pytest.raises(UserError, match="no thresholds"):
            study(alone, frames, hit=["thresholds"])
        result: Study = study(alone, frames, trials=1)
        assert [series.target for series in result.series] == ["weights", "inputs"]


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run xnorflow faults on a tiny network; return exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    onnx.save(to_qonnx(random_network(rng, [12, 6, 3])), "tiny.onnx")
    x = rng.integers(-8, 9, (30, 12)).astype(np.float32) / 8
    np.savez("tiny.npz", x=x, y=rng.integers(0, 3, 30))
    np.savez("bare.npz", x=x)

    def command(*arguments, data="tiny.npz"):
        with pytest.raises(SystemExit) as end:
            main(["faults", "tiny.onnx", "--data", data, "--jobs", "1", *arguments])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return command


class TestCommand:
    def test_table_json_csv_and_page_tell_the_same(self, run, tmp_path):
        files = ("--json", "a.json", "--csv", "a.csv", "--plot", "a.html")
        status, out, err = run("--trials", "3", *files)
        assert status == 0, err
        table = json.loads((tmp_path / "a.json").read_text())
        with (tmp_path / "a.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert tuple(lines[0]) == COLUMNS
        points = [point for series in table["series"] for point in series["points"]]
        assert [int(line["flips"]) for line in lines] == [point["flips"] for point in points]
        assert [float(line["mean"]) for line in lines] == [point["mean"] for point in points]
        page = (tmp_path / "a.html").read_text()
        for series in table["series"]:
            assert f"{series['target']}: {series['bits']} bits" in out
            assert f"<h3>{series['target']}</h3>" in page
        assert "seed 1" in out
        assert f"{table['fault_free']:.2%} without faults" in out
        assert table["metric"] == "accuracy"

    def test_it_prints_the_same_twice(self, run):
        first, second = (run("--flips", "3,1e1", "--in", "weights") for _ in range(2))
        assert first[0] == 0
        assert first[1].split("bits", 1)[1] == second[1].split("bits", 1)[1]

    def test_without_labels_it_says_what_it_measures(self, run):
        status, out, _ = run("--flips", "1", "--trials", "1", data="bare.npz")
        assert status == 0
        assert "agreement with the fault-free classes" in out
        assert "no labels" in out

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--flips", "x"], "--flips is 'x'"),
            (["--flips", "1.5"], "--flips is '1.5'"),
            (["--flips", "nan"], "--flips is 'nan'"),
            (["--flips", "1,,2"], "separated by commas"),
            (["--flips", "99"], "--in"),
            (["--rates", "2"], "--rates has 2"),
            (["--layer", "nothing"], "--layer has 'nothing'"),
            (["--in", "bits"], "--in has 'bits'"),
            (["--trials", "0"], "--trials is 0"),
            (["--frames", "0"], "--frames is 0"),
            (["--plot", "a.png"], "ends in .html"),
            (["--plot", "a.html", "--csv", "a.html"], "is the file of --plot too"),
            (["--json", "tiny.npz"], "is an input too"),
            (["--csv", "nowhere/a.csv"], "does not exist"),
        ],
    )
    def test_wrong_input_is_one_sentence(self, run, arguments, says):
        status, _, err = run(*arguments)
        assert status == 2, err
        assert len(err.strip().splitlines()) == 1
        assert err.startswith("Error: ")
        assert says in err
