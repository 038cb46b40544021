"""Estimates follow the structure of the hardware, and are near what the tools made of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import lowered_network

from xnorflow.cost import FAMILIES, Cost, estimate, fifo_cost, stage_cost
from xnorflow.folding import LayerFolding
from xnorflow.lowered import LoweredLayer, LoweredPool, Window
from xnorflow.pipeline import ConverterStage, MatrixStage, PoolStage, WindowStage

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

NETWORK = lowered_network([784, 256, 10])
ICE40 = FAMILIES["ice40"]


def first_layer(choice: LayerFolding) -> Cost:
    return stage_cost(ICE40, MatrixStage(NETWORK.layers[0], choice, "thresholds"), NETWORK.output)


@pytest.mark.parametrize(
    ("family", "depth", "width", "brams"),
    [
        ("ice40", 256, 16, 1),
        ("ice40", 256, 17, 2),
        ("ice40", 257, 8, 1),
        ("ice40", 980, 112, 28),
        ("ecp5", 512, 36, 1),
        ("ecp5", 513, 36, 2),
        ("ecp5", 512, 392, 11),
    ],
)
def test_block_rams_follow_the_devices_modes(family, depth, width, brams):
    assert FAMILIES[family].rom(depth, width).rams == brams


def test_weights_take_block_ram_or_luts():
    bram = first_layer(LayerFolding(4, 16, "bram", "registers"))
    lut = first_layer(LayerFolding(4, 16, "lut", "registers"))
    assert bram.bram > 0
    assert lut.bram == 0
    assert lut.lut > bram.lut


def test_buffers_take_block_ram_or_registers():
    auto = first_layer(LayerFolding(4, 16, "lut", "auto"))
    registers = first_layer(LayerFolding(4, 16, "lut", "registers"))
    assert auto.bram == 1
    assert registers.bram == 0
    assert registers.cells > auto.cells + 784


def test_twice_the_lanes_cost_less_than_twice_the_layer():
    one = first_layer(LayerFolding(4, 16, "bram"))
    two = first_layer(LayerFolding(8, 16, "bram"))
    assert one.lut < two.lut < 2 * one.lut


def test_every_layer_is_estimated_with_the_converter_before_it():
    folding = {"fc1": LayerFolding(4, 16, "bram"), "fc2": LayerFolding(1, 8, "bram")}
    costs = estimate(ICE40, NETWORK, folding)
    unit = MatrixStage(NETWORK.layers[1], folding["fc2"], "scores")
    alone = stage_cost(ICE40, unit, NETWORK.output)
    converter = stage_cost(ICE40, ConverterStage("", 1, 4, 8, 256), NETWORK.output)
    assert costs["fc2"].lut == pytest.approx(alone.lut + converter.lut)
    assert converter.lut > 0


def window(
    shape: tuple[int, int, int], lanes: int = 0, bits: int = 1, padding: int = 0
) -> WindowStage:
    """Return a 3x3 window, parallel without `lanes`; its padding is of constants."""
    pad = np.zeros(shape[2], np.uint16)
    slide = Window(shape, (3, 3), padding=(padding,) * 4, pad=pad)
    return WindowStage("window", slide, 1, bits, lanes or shape[2], lanes == 0, 0)


def pool(op: str, shape: tuple[int, int, int], kernel: tuple[int, int], lanes: int) -> PoolStage:
    stage = LoweredPool("pool", op, Window(shape, kernel, kernel), 0, 1)
    return PoolStage(stage, shape, kernel, 1, lanes)


@pytest.mark.parametrize(
    ("columns", "channels", "brams"),
    [(6, 24, 1), (4, 32, 0), (8, 16, 0)],
)
def test_holes_in_a_pools_memory_are_words_too(columns, channels, brams):
    # 6 columns of 24 channels are 144 words, with holes 184; the others are 128 without any.
    stage = LoweredPool("pool", "max", Window((4, 2 * columns, channels), (2, 2), (2, 2)), 0, 31)
    cost = stage_cost(
        FAMILIES["ecp5"], PoolStage(stage, stage.i_shape, (2, 2), 1, 1), NETWORK.output
    )
    assert cost.bram == brams


def layer(mh: int, mw: int, levels: int = 1) -> LoweredLayer:
    rng = np.random.default_rng(0)
    weights = rng.choice(np.array([-1, 1], np.int8), (mh, mw))
    thresholds = rng.integers(-mw // 8, mw // 8 + 1, mh).astype(np.int32)
    return LoweredLayer("conv", weights, thresholds, levels=levels)


def unit_cost(family: str, layer: LoweredLayer, choice: LayerFolding, granule: int = 0) -> Cost:
    stage = MatrixStage(layer, choice, "thresholds", granule)
    return stage_cost(FAMILIES[family], stage, NETWORK.output)


def test_small_memories_take_no_block_ram():
    narrow, wide = window((28, 28, 1)), window((28, 28, 1), bits=8)
    assert stage_cost(ICE40, narrow, NETWORK.output).bram == 0  # 56 bits
    assert stage_cost(ICE40, wide, NETWORK.output).bram == 1  # 448 bits


def test_one_rule_says_where_a_memory_lies():
    ecp5 = FAMILIES["ecp5"]
    assert fifo_cost(ecp5, 16, 66).bram == 0  # distributed RAM
    assert fifo_cost(ecp5, 64, 130).bram == 2
    assert fifo_cost(ICE40, 16, 66).bram == 1
    assert fifo_cost(ICE40, 1, 40).bram == 0  # flip-flops


def test_flags_for_true_zeros_widen_the_input_buffer():
    choice = LayerFolding(8, 32, "bram")
    plain, flagged = (unit_cost("ice40", layer(32, 288), choice, n) for n in (0, 32))
    assert flagged.bram == plain.bram + 1


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_constant_neurons_share_what_they_have_alike(family):
    few, more = (
        unit_cost(family, layer(mh, 9, 255), LayerFolding(mh, 9, "constant")) for mh in (16, 32)
    )
    assert few.lut < more.lut < 2 * few.lut


def test_only_multipliers_of_different_scales_take_dsp():
    same, mixed = NETWORK.output, lowered_network([784, 256, 10]).output
    mixed = type(mixed)(np.arange(3, 13), mixed.offset, mixed.logit_scale, mixed.logit_offset)
    stage = MatrixStage(NETWORK.layers[1], LayerFolding(2, 8, "bram"), "scores")
    for family, dsp in (("ecp5", 2), ("ice40", 0)):
        one = type(same)(np.ones(10, np.int64), *(same.offset, same.logit_scale, same.logit_offset))
        assert stage_cost(FAMILIES[family], stage, one).dsp == 0
        assert stage_cost(FAMILIES[family], stage, mixed).dsp == dsp


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    neurons=st.integers(4, 8),
    synapses=st.integers(5, 10),
    pe=st.integers(2, 6),
    simd=st.integers(3, 6),
    levels=st.sampled_from([1, 3, 255]),
)
@settings(max_examples=60, deadline=None)
def test_twice_the_lanes_never_take_less(family, neurons, synapses, pe, simd, levels):
    # Below this a buffer or an accumulator would disappear, or what a counter saves outweigh lanes:
    # four of them take as long a chain as seven.
    pe, simd = 2 ** min(pe, neurons - 2), 2 ** min(simd, synapses - 2)
    matrix = layer(2**neurons, 2**synapses, levels)
    one = unit_cost(family, matrix, LayerFolding(pe, simd, "bram"))
    for twice in (LayerFolding(2 * pe, simd, "bram"), LayerFolding(pe, 2 * simd, "bram")):
        unfolded = unit_cost(family, matrix, twice)
        assert unfolded.lut > one.lut
        assert unfolded.cells > one.cells
        assert unfolded.ff > one.ff


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    words=st.integers(1, 5000),
    width=st.integers(1, 300),
    more=st.integers(0, 300),
)
@settings(deadline=None)
def test_no_memory_holds_more_bits_than_it_has(family, words, width, more):
    device = FAMILIES[family]
    bits = max(depth * unit for depth, unit in device.bram_shapes)
    for storage in (device.rom(words, width), device.ram(words, width)):
        if storage.place == "block":
            assert storage.rams * bits >= words * width
        elif storage.place == "distributed":
            assert storage.rams * 64 >= words * width
    assert device.rom(words, width + more).rams >= device.rom(words, width).rams


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    lanes=st.sampled_from([1, 2, 4, 8, 16]),
    bits=st.sampled_from([1, 2, 8]),
    padding=st.integers(0, 1),
    op=st.sampled_from(["or", "sum"]),
)
@settings(max_examples=40, deadline=None)
def test_every_part_of_every_stage_has_a_price(family, lanes, bits, padding, op):
    for stage in (
        window((6, 8, 16), lanes, bits, padding),
        window((6, 8, 16), 0, bits, padding),
        pool(op, (6, 9, 16), (2, 3), lanes),
        pool(op, (1, 9, 16), (1, 9), lanes),
        ConverterStage("", bits, lanes, 12, 48),
    ):
        cost = stage_cost(FAMILIES[family], stage, NETWORK.output)
        assert cost.lut > 0
        assert cost.ff > 0


def test_estimates_are_near_what_was_synthesised(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from configurations import parts_of

    rows = json.loads((BENCHMARKS / "data" / "cost.json").read_text())
    seen = 0
    for row in rows["measurements"][::4]:
        if row["config"]["kind"] == "core":
            continue
        area = dict(zip(rows["area"], row["area"], strict=True))
        family = FAMILIES[row["family"]]
        cost = family.cost(parts_of(family, row["config"]))
        assert (cost.bram, cost.dsp) == (area["bram"], area["dsp"]), row
        # An ECP5 has no cells of both, so what is measured of those is LUTs.
        for kind in ("lut", "cells") if row["family"] == "ice40" else ("lut",):
            assert getattr(cost, kind) == pytest.approx(area[kind], rel=0.25, abs=25), row
        assert cost.ff == pytest.approx(area["ff"], rel=0.12, abs=12), row
        seen += 1
    assert seen > 60
