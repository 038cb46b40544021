"""Estimates follow the structure of the hardware."""

import numpy as np
import pytest
from lowered_networks import lowered_network

from xnorflow.cost import FAMILIES, Cost, estimate, stage_cost
from xnorflow.folding import LayerFolding
from xnorflow.lowered import LoweredLayer, LoweredPool, Window
from xnorflow.pipeline import ConverterStage, MatrixStage, PoolStage, WindowStage

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
    assert FAMILIES[family].brams(depth, width) == brams


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
    assert registers.lut > auto.lut + 784


def test_twice_the_lanes_cost_less_than_twice_the_layer():
    one = first_layer(LayerFolding(4, 16, "bram"))
    two = first_layer(LayerFolding(4, 28, "bram"))
    assert one.lut < two.lut < 2 * one.lut


def test_every_layer_is_estimated_with_the_converter_before_it():
    folding = {"fc1": LayerFolding(4, 16, "bram"), "fc2": LayerFolding(1, 8, "bram")}
    costs = estimate(ICE40, NETWORK, folding)
    unit = MatrixStage(NETWORK.layers[1], folding["fc2"], "scores")
    alone = stage_cost(ICE40, unit, NETWORK.output)
    converter = stage_cost(ICE40, ConverterStage("", 1, 4, 8, 256), NETWORK.output)
    assert costs["fc2"].lut == alone.lut + converter.lut > alone.lut
    assert estimate(ICE40, NETWORK, {**folding, "fc2": LayerFolding(1, 4, "bram")})["fc2"].lut < (
        alone.lut
    )


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


def integer_layer(mh: int, mw: int, choice: LayerFolding) -> MatrixStage:
    weights = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (mh, mw))
    layer = LoweredLayer("conv", weights, np.zeros(mh, np.int32), levels=255)
    return MatrixStage(layer, choice, "thresholds")


# What yosys 0.70 makes of them; `benchmarks/stages.py` measures these and more.
@pytest.mark.parametrize(
    ("stage", "ice40", "ecp5"),
    [
        (window((28, 28, 1), 1), (116, 1), (185, 0)),
        (window((13, 13, 32), 1), (153, 1), (141, 1)),
        (window((30, 30, 64), 8), (151, 3), (153, 1)),
        (window((32, 32, 3), 3, bits=8, padding=1), (138, 2), (131, 1)),
        (window((28, 28, 1), bits=8, padding=1), (211, 1), (192, 0)),
        (window((13, 13, 32)), (371, 4), (109, 0)),
        (window((14, 14, 64), padding=1), (1207, 8), (680, 0)),
        (pool("or", (28, 28, 64), (2, 2), 64), (280, 4), (208, 0)),
        (pool("or", (28, 28, 64), (2, 2), 16), (62, 1), (167, 0)),
        (pool("sum", (7, 7, 64), (7, 7), 4), (117, 2), (94, 0)),
        (pool("sum", (1, 9, 32), (1, 9), 8), (207, 0), (55, 0)),
        (integer_layer(64, 27, LayerFolding(8, 3, "bram")), (812, 4), (929, 1)),
        (integer_layer(64, 784, LayerFolding(4, 16, "bram")), (1564, 24), (1696, 8)),
        (integer_layer(16, 9, LayerFolding(16, 9, "constant")), (657, 0), (929, 0)),
        (integer_layer(32, 27, LayerFolding(32, 27, "constant")), (4370, 0), (5507, 0)),
    ],
)
def test_estimates_are_near_what_was_synthesised(stage, ice40, ecp5):
    for family, (lut, bram) in (("ice40", ice40), ("ecp5", ecp5)):
        cost = stage_cost(FAMILIES[family], stage, NETWORK.output)
        assert cost.lut == pytest.approx(lut, rel=0.15)
        assert cost.bram == bram


def test_small_memories_take_no_block_ram():
    narrow, wide = window((28, 28, 1)), window((28, 28, 1), bits=8)
    assert stage_cost(ICE40, narrow, NETWORK.output).bram == 0  # 56 bits
    assert stage_cost(ICE40, wide, NETWORK.output).bram == 1  # 448 bits


def test_flags_for_true_zeros_widen_the_input_buffer():
    layer = LoweredLayer("conv", np.ones((32, 288), np.int8), np.zeros(32, np.int32))
    choice = LayerFolding(8, 32, "bram")
    plain, flagged = (
        stage_cost(ICE40, MatrixStage(layer, choice, "thresholds", granule), NETWORK.output)
        for granule in (0, 32)
    )
    assert flagged.bram == plain.bram + 1


def test_constant_neurons_of_integers_share_sums():
    few, more = (
        stage_cost(ICE40, integer_layer(mh, 9, LayerFolding(mh, 9, "constant")), NETWORK.output)
        for mh in (16, 32)
    )
    assert few.lut < more.lut < 2 * few.lut
    wide = integer_layer(1, 3072, LayerFolding(1, 3072, "constant"))
    assert stage_cost(ICE40, wide, NETWORK.output).lut > 3071 * 8 * ICE40.shared_bit
