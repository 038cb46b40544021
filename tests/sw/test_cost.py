"""Estimates follow the structure of the hardware."""

import pytest
from lowered_networks import lowered_network

from xnorflow.cost import FAMILIES, Cost, estimate, stage_cost
from xnorflow.folding import LayerFolding
from xnorflow.pipeline import ConverterStage, MatrixStage

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
