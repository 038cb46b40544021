"""What a folding costs: LUTs and block RAMs of every layer, estimated before synthesis.

The structure of the formulas is that of the hardware (see `xnorflow.hw.mvu`); the coefficients are
fitted to what yosys makes of single layers. `benchmarks/cost.py` measures and compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from xnorflow.folding import Folding
from xnorflow.lowered import LoweredLayer, LoweredNetwork, LoweredOutput
from xnorflow.pipeline import (
    POOL_REGISTER_BITS,
    ConverterStage,
    MatrixStage,
    PoolStage,
    ScoreStage,
    Stage,
    ThresholdStage,
    WindowStage,
    segments,
)

__all__ = ["FAMILIES", "Cost", "Family", "estimate", "stage_cost"]


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
    integer_lane_bit : float
        LUTs of a lane for each bit of an input of several bits.
    window_fixed : float
        LUTs of a folded sliding window's control.
    window_bit : float
        LUTs or cells for each bit of a parallel window.
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
    integer_lane_bit: float
    window_fixed: float
    window_bit: float
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
        integer_lane_bit=2.2,
        window_fixed=140,
        window_bit=1.2,
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
        integer_lane_bit=2.5,
        window_fixed=140,
        window_bit=1.2,
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


def _score_luts(stage: MatrixStage, output: LoweredOutput) -> float:
    """Return the LUTs of the last layer's affine: a multiplier only if the scales differ."""
    layer, choice = stage.layer, stage.choice
    gain_bits = int(np.abs(output.scale).max()).bit_length()
    offset_bits = int(np.abs(output.offset).max()).bit_length()
    count_bits = _count_bits(layer)
    rom_width, multiplier = offset_bits, 0
    if np.any(output.scale != output.scale[0]):
        rom_width, multiplier = offset_bits + gain_bits, gain_bits * count_bits
    adder = max(count_bits + gain_bits + 1, offset_bits)
    return choice.pe * (adder + multiplier) + _rom_luts(
        layer.mh // choice.pe, choice.pe * rom_width
    )


def _argmax_luts(lanes: int, top: int) -> float:
    """Return the LUTs of the arg-max, with the serializer before it, at one score a cycle."""
    width = top.bit_length() + 1
    serializer = 2.0 * width * lanes if lanes > 1 else 0.0
    return 4.0 * width + serializer + 20


def _count_bits(layer: LoweredLayer) -> int:
    """Return the bits of a layer's sum of agreements."""
    return (layer.mw * layer.levels).bit_length()


def stage_cost(family: Family, stage: Stage, output: LoweredOutput) -> Cost:
    """Return the cost of one stage of the pipeline."""
    match stage:
        case ConverterStage():
            return Cost(lut=1.2 * stage.bits * (stage.i_lanes + stage.o_lanes) + 15)
        case WindowStage():
            return _window_cost(family, stage)
        case MatrixStage():
            return _matrix_cost(family, stage, output)
        case PoolStage():
            return _pool_cost(family, stage)
        case ThresholdStage():
            folds = stage.stage.shape[-1] // stage.lanes
            width = int(np.abs(stage.stage.thresholds).max()).bit_length() + 1
            return Cost(lut=3 * width * stage.lanes + _rom_luts(folds, width * stage.lanes) + 20)
        case ScoreStage():
            top = int(np.abs(output.offset).max()) + 1
            return Cost(lut=60 * stage.lanes + _argmax_luts(stage.lanes, top))


def _memory(family: Family, words: int, width: int) -> Cost:
    """Return the cost of a memory that is written and read, wherever the tools put it."""
    if words <= family.distributed_words:
        # A RAM of 16 words of 4 bits takes the LUTs of two slices.
        return Cost(lut=4 * ceil(words / 16) * ceil(width / 4))
    return Cost(bram=family.brams(words, width))


def _window_cost(family: Family, stage: WindowStage) -> Cost:
    _, columns, channels = stage.window.shape
    if stage.parallel:
        flags = stage.o_lanes // stage.granule if stage.granule else 0
        lut = 150 + family.window_bit * (stage.bits * stage.o_lanes + flags)
        lines = _memory(family, columns, stage.bits * channels)
        kept = stage.window.kernel[0]
        return Cost(lut + kept * lines.lut, kept * lines.bram)
    words = stage.rows * columns * channels // stage.lanes
    return Cost(lut=family.window_fixed + stage.bits * stage.lanes) + _memory(
        family, words, stage.bits * stage.lanes
    )


def _pool_cost(family: Family, stage: PoolStage) -> Cost:
    width = stage.bits * stage.lanes
    lut = 20 + (2.5 if stage.pool.op == "sum" else 1.0) * width
    if stage.words * width <= POOL_REGISTER_BITS:
        return Cost(lut)
    return Cost(lut) + _memory(family, stage.words, width)


def _matrix_cost(family: Family, stage: MatrixStage, output: LoweredOutput) -> Cost:
    """Return the cost of a unit: input buffer, weights, thresholds or scores and arg-max."""
    layer, choice = stage.layer, stage.choice
    folds = layer.mh // layer.groups // choice.pe  # rounds of a vector
    synapse_folds = layer.mw // choice.simd
    depth, lanes = layer.mh // choice.pe * synapse_folds, choice.pe * choice.simd
    count_bits = _count_bits(layer)
    lane = family.constant_lane if choice.weights_in == "constant" else family.lane
    if layer.levels > 1:
        lane = family.integer_lane_bit * layer.input_bits
    lut = family.fixed + lane * lanes
    lut += family.neuron_bit * choice.pe * count_bits * (1.0 if synapse_folds > 1 else 0.5)
    cost = Cost()

    if choice.weights_in == "bram":
        cost += Cost(bram=family.brams(depth, lanes))
    elif choice.weights_in == "lut":
        lut += _rom_luts(depth, lanes)

    if stage.head == "thresholds":
        lut += _rom_luts(layer.mh // choice.pe, choice.pe * count_bits)
    elif stage.head == "scores":
        top = int((np.abs(output.scale) * layer.mw * layer.levels + np.abs(output.offset)).max())
        lut += _score_luts(stage, output) + _argmax_luts(choice.pe, top)

    if folds > 1:
        width = choice.simd * layer.input_bits
        if choice.buffer_in == "registers":
            lut += family.buffer_bit * 2 * synapse_folds * width
        else:
            cost += _memory(family, 2 * synapse_folds, width)
    return cost + Cost(lut)


def estimate(family: Family, lowered: LoweredNetwork, folding: Folding) -> dict[str, Cost]:
    """Return the cost of every layer by name.

    A layer's cost includes the converter and the window before it and the pooling behind it.
    """
    costs = {}
    lanes: int | None = None
    for segment in segments(lowered):
        stages = segment.stages(folding[segment.layer.name], lanes)
        lanes = stages[-1].o_lanes
        costs[segment.layer.name] = sum(
            (stage_cost(family, stage, lowered.output) for stage in stages), Cost()
        )
    return costs
