"""What a folding costs: LUTs and block RAMs of every layer, estimated before synthesis.

The structure of the formulas is that of the hardware (see `xnorflow.hw.mvu`); the coefficients are
fitted to what yosys makes of single layers. `benchmarks/cost.py` measures and compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from xnorflow.folding import Folding, LayerFolding
from xnorflow.lowered import LoweredLayer, LoweredNetwork, LoweredOutput

__all__ = ["FAMILIES", "Cost", "Family", "estimate", "estimate_layer"]


@dataclass(frozen=True)
class Cost:
    """LUT4s (logic cells on iCE40) and block RAMs."""

    lut: float = 0.0
    bram: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.lut + other.lut, self.bram + other.bram)


@dataclass(frozen=True)
class Family:
    """Coefficients of a device family.

    Attributes
    ----------
    lane, constant_lane : float
        LUTs of a synapse lane, XNOR and its share of the popcount: with weights from a memory, and
        with constant ones, where neurons share what they have in common.
    neuron_bit : float
        LUTs of a PE for each bit of its accumulator and comparator.
    buffer_bit : float
        LUTs or cells for a bit of an input buffer that is kept in flip-flops.
    distributed_words : int
        Deepest input buffer that yosys puts into distributed RAM; 0 where the family has none.
    fixed : float
        LUTs of a layer's control.
    bram_latency : int
        2 where block RAM is so slow that its output is registered once more.
    bram_shapes : tuple of (int, int)
        Depth and width of a block RAM in each of its modes.
    """

    lane: float
    constant_lane: float
    neuron_bit: float
    buffer_bit: float
    distributed_words: int
    fixed: float
    bram_latency: int
    bram_shapes: tuple[tuple[int, int], ...]

    def brams(self, depth: int, width: int) -> int:
        """Return the block RAMs of a memory of `depth` words of `width` bits."""
        return min(ceil(depth / d) * ceil(width / w) for d, w in self.bram_shapes)


FAMILIES = {
    "ice40": Family(
        lane=2.1,
        constant_lane=0.7,
        neuron_bit=2.0,
        buffer_bit=1.9,
        distributed_words=0,
        fixed=110,
        bram_latency=1,
        bram_shapes=((256, 16), (512, 8), (1024, 4), (2048, 2)),
    ),
    "ecp5": Family(
        lane=2.55,
        constant_lane=1.1,
        neuron_bit=3.0,
        buffer_bit=1.9,
        distributed_words=64,
        fixed=110,
        bram_latency=2,
        bram_shapes=((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)),
    ),
}


def _rom_luts(depth: int, width: int) -> float:
    """Return the LUTs of a ROM in logic: a LUT4 holds 16 words of a bit, more need multiplexers."""
    if depth <= 2:
        return 0.0  # at most one address bit, which fits into the LUT that uses the word
    if depth <= 4:
        return 0.5 * width
    leaves = ceil(depth / 16)
    return width * (leaves + 0.75 * (leaves - 1))


def _score_luts(layer: LoweredLayer, choice: LayerFolding, output: LoweredOutput) -> float:
    """Return the LUTs of the last layer's affine: a multiplier only if the scales differ."""
    gain_bits = int(np.abs(output.scale).max()).bit_length()
    offset_bits = int(np.abs(output.offset).max()).bit_length()
    count_bits = layer.mw.bit_length()
    rom_width, multiplier = offset_bits, 0
    if np.any(output.scale != output.scale[0]):
        rom_width, multiplier = offset_bits + gain_bits, gain_bits * count_bits
    adder = max(count_bits + gain_bits + 1, offset_bits)
    return choice.pe * (adder + multiplier) + _rom_luts(
        layer.mh // choice.pe, choice.pe * rom_width
    )


def _argmax_luts(layer: LoweredLayer, choice: LayerFolding, output: LoweredOutput) -> float:
    """Return the LUTs of the arg-max, with the serializer before it, at one score a cycle."""
    top = int((np.abs(output.scale) * layer.mw + np.abs(output.offset)).max())
    width = top.bit_length() + 1
    serializer = 2.0 * width * choice.pe if choice.pe > 1 else 0.0
    return 4.0 * width + serializer + 20


def estimate_layer(
    family: Family, layer: LoweredLayer, choice: LayerFolding, output: LoweredOutput
) -> Cost:
    """Return the cost of a layer: input buffer, weights, thresholds or scores and arg-max."""
    neuron_folds, synapse_folds = layer.mh // choice.pe, layer.mw // choice.simd
    depth, lanes = neuron_folds * synapse_folds, choice.pe * choice.simd
    count_bits = layer.mw.bit_length()
    lane = family.constant_lane if choice.weights_in == "constant" else family.lane
    lut = family.fixed + lane * lanes
    lut += family.neuron_bit * choice.pe * count_bits * (1.0 if synapse_folds > 1 else 0.5)
    bram = 0

    if choice.weights_in == "bram":
        bram += family.brams(depth, lanes)
    elif choice.weights_in == "lut":
        lut += _rom_luts(depth, lanes)

    if layer.thresholds is not None:
        lut += _rom_luts(neuron_folds, choice.pe * count_bits)
    else:
        lut += _score_luts(layer, choice, output) + _argmax_luts(layer, choice, output)

    if neuron_folds > 1:
        words = 2 * synapse_folds
        bits = words * choice.simd
        if choice.buffer_in == "registers":
            lut += family.buffer_bit * bits
        elif words <= family.distributed_words:
            # A RAM of 16 words of 4 bits takes the LUTs of two slices.
            lut += 4 * ceil(words / 16) * ceil(choice.simd / 4)
        else:
            bram += family.brams(words, choice.simd)
    return Cost(lut, bram)


def converter_cost(i_lanes: int, o_lanes: int) -> Cost:
    """Return the cost of a width converter: a register and a multiplexer a lane."""
    if i_lanes == o_lanes:
        return Cost()
    return Cost(lut=1.2 * (i_lanes + o_lanes) + 15)


def estimate(family: Family, lowered: LoweredNetwork, folding: Folding) -> dict[str, Cost]:
    """Return the cost of every layer by name, each with the converter before it."""
    costs = {}
    lanes = None
    for layer in lowered.layers:
        choice = folding[layer.name]
        cost = estimate_layer(family, layer, choice, lowered.output)
        if lanes is not None:
            cost += converter_cost(lanes, choice.simd)
        lanes = choice.pe
        costs[layer.name] = cost
    return costs
