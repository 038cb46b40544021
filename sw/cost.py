"""What a folding costs: LUTs and block RAMs of every layer, estimated before synthesis.

The structure of the formulas is that of the hardware (see `xnorflow.hw.mvu`); the coefficients are
fitted to what yosys makes of single stages. `benchmarks/cost.py` and `benchmarks/stages.py` measure
and compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, expm1, floor, inf, log1p

import numpy as np

from xnorflow.folding import Folding, divisors
from xnorflow.hw.mvu import GROUP_LANES
from xnorflow.hw.popcount import INTEGER_LEAF
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
    """LUT4s and block RAMs; windows and pools on iCE40 count flip-flops without a LUT as LUTs."""

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
    shared_bit : float
        LUTs for each bit of an adder of integers that neurons with constant weights share.
    window : tuple of float
        LUTs of a folded sliding window: fixed, for each bit of its address and of a pixel's place,
        for each bit of a beat, and with padding.
    parallel_window : tuple of float
        LUTs of a parallel window: fixed, for each bit of its place, and for each bit of a pixel.
    bare : float
        LUTs that are lost to a flip-flop behind none: 1 where both share a cell.
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
    bram_bytes : tuple of int
        In each of the modes, the fewest bits that can be written by themselves.
    bram_price, ram_price : float
        What yosys takes a block RAM and a distributed RAM of 16 words of 4 bits for when it
        chooses, in bits of flip-flops; infinite where the family has none.
    """

    lane: float
    constant_lane: float
    neuron_bit: float
    integer_lane_bit: float
    shared_bit: float
    window: tuple[float, float, float, float]
    parallel_window: tuple[float, float, float]
    bare: float
    buffer_bit: float
    distributed_words: int
    fixed: float
    bram_latency: int
    bram_shapes: tuple[tuple[int, int], ...]
    bram_bytes: tuple[int, ...]
    bram_price: float
    ram_price: float

    def brams(self, depth: int, width: int) -> int:
        """Return the block RAMs of a memory of `depth` words of `width` bits."""
        return min(ceil(depth / d) * ceil(width / w) for d, w in self.bram_shapes)


FAMILIES = {
    "ice40": Family(
        lane=2.1,
        constant_lane=0.7,
        neuron_bit=2.0,
        integer_lane_bit=2.1,
        shared_bit=0.93,
        window=(41, 4.2, 0.95, 8),
        parallel_window=(22, 4.3, 1.0),
        bare=1.0,
        buffer_bit=1.9,
        distributed_words=0,
        fixed=110,
        bram_latency=1,
        bram_shapes=((256, 16), (512, 8), (1024, 4), (2048, 2)),
        bram_bytes=(1, 8, 4, 2),
        bram_price=64,
        ram_price=inf,
    ),
    "ecp5": Family(
        lane=2.55,
        constant_lane=1.1,
        neuron_bit=3.0,
        integer_lane_bit=2.25,
        shared_bit=1.3,
        window=(-24, 8.1, 0.7, 15),
        parallel_window=(-31, 11, 0.0),
        bare=0.0,
        buffer_bit=1.9,
        distributed_words=64,
        fixed=110,
        bram_latency=2,
        bram_shapes=((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)),
        bram_bytes=(9, 9, 9, 4, 2, 1),
        bram_price=128,
        ram_price=4,
    ),
}


#: Fewest LUTs of a window's control, however small the image.
LEAST_CONTROL = 20


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


def _buffer(family: Family, words: int, width: int) -> Cost:
    """Return the cost of a unit's input buffer, wherever the tools put it."""
    if words <= family.distributed_words:
        # A RAM of 16 words of 4 bits takes the LUTs of two slices.
        return Cost(lut=4 * ceil(words / 16) * ceil(width / 4))
    return Cost(bram=family.brams(words, width))


def _banks(words: int, width: int, shape: tuple[int, int], byte: int) -> tuple[int, int]:
    """Return the banks that hold a memory's words, and the RAMs of `shape` that hold the banks.

    Banks lie side by side where a RAM is wide enough and can be written in parts.
    """
    banks = ceil(words / shape[0])
    return banks, ceil(banks * ceil(width / byte) * byte / shape[1])


def _memory(family: Family, words: int, width: int) -> Cost:
    """Return the cost of a memory that is written and read, where yosys puts it.

    The choice is that of its pass `memory_libmap`: flip-flops cost 1 a bit, a RAM its price and
    half a unit for each bit that chooses between banks.
    """
    flip_flops = words * width
    lowest, best = flip_flops, Cost(flip_flops * (1 + family.bare) - width + words)
    kinds = [
        (shape, byte, family.bram_price, Cost(bram=1))
        for shape, byte in zip(family.bram_shapes, family.bram_bytes, strict=True)
    ]
    if family.ram_price < inf:
        kinds.insert(0, ((16, 4), 4, family.ram_price, Cost(lut=4)))
    for shape, byte, price, cost in kinds:
        banks, rams = _banks(words, width, shape, byte)
        select = (banks - 1) * width + (banks if banks > 1 else 0)
        priced = rams * price + select / 2
        if priced < lowest:
            lowest, best = floor(priced), Cost(rams * cost.lut + select, rams * cost.bram)
    return best


def _index_bits(*counts: int) -> int:
    """Return the bits of counters of so many values."""
    return sum((count - 1).bit_length() for count in counts)


def _window_cost(family: Family, stage: WindowStage) -> Cost:
    rows, columns, channels = stage.window.shape
    if stage.parallel:
        return _parallel_window_cost(family, stage)
    words = stage.rows * columns * channels // stage.lanes
    width = stage.bits * stage.lanes
    fixed, place_bit, beat_bit, padding = family.window
    lut = max(fixed + place_bit * _index_bits(words, rows * columns), LEAST_CONTROL)
    lut += beat_bit * width
    if any(stage.window.padding):
        lut += padding
    return Cost(lut) + _memory(family, words, width)


def _parallel_window_cost(family: Family, stage: WindowStage) -> Cost:
    """Return the cost of control, row memory, columns in flip-flops and the taps' masks."""
    window, geometry = stage.window, stage.geometry
    height, width, channels = window.shape
    pixel = stage.bits * channels
    inside = [geometry.inside(axis).all(axis=0) for axis in (0, 1)]
    masked = window.taps - int(inside[0].sum() * inside[1].sum())
    kept_columns = (window.kernel[1] - 1) * window.dilation[1] + 1
    fixed, place_bit, pixel_bit = family.parallel_window
    lut = max(fixed + place_bit * _index_bits(height, width), LEAST_CONTROL)
    lut += (pixel_bit + masked) * pixel
    lut += family.bare * window.kernel[0] * kept_columns * pixel
    cost = Cost(lut)
    if window.kernel[0] > 1:
        pitch = max(width, (window.out_shape[1] - 1) * window.stride[1] + 1)
        rows = window.kernel[0] - 1
        cost += _memory(family, window.dilation[0] * pitch, rows * pixel)
    return cost


def _pool_cost(family: Family, stage: PoolStage) -> Cost:
    """Return the cost of counters, output register, what combines, and what keeps partials."""
    width, sums = stage.bits * stage.lanes, stage.pool.op == "sum"
    folds = stage.shape[2] // stage.lanes
    open_windows = stage.words // folds
    lut = 8 + 2.5 * _index_bits(folds, open_windows, *stage.kernel) + (1 + family.bare) * width
    if stage.words * width <= POOL_REGISTER_BITS or stage.words == 1:
        return Cost(lut + family.bare * stage.words * width)
    if sums:
        lut += width  # a window's first element is added to zero
    if folds == 1:
        lut += (1 + family.bare) * width  # the latest partial, for the element right behind it
    return Cost(lut) + _memory(family, stage.words, width)


def _shared_bits(layer: LoweredLayer) -> float:
    """Return the bits of all adders of a layer of integers with a single fold.

    Weights are constants, so that a group of PEs has no sum twice. Of the ``2 ** n`` signs that n
    synapses can have, so many are expected among p neurons: ``2 ** n * (1 - (1 - 2 ** -n) ** p)``.
    """
    groups = next(
        (g for g in divisors(layer.mh) if layer.mh // g * layer.mw <= GROUP_LANES), layer.mh
    )

    def bits(synapses: int) -> float:
        signs = 2.0 ** min(synapses, 60)  # enough that no two neurons share theirs
        distinct = -signs * expm1(layer.mh // groups * log1p(-1 / signs))
        return distinct * (synapses * layer.levels).bit_length()

    nodes = [min(INTEGER_LEAF, layer.mw - first) for first in range(0, layer.mw, INTEGER_LEAF)]
    total = sum(bits(node) for node in nodes if node > 1)
    while len(nodes) > 1:
        sums = [left + right for left, right in zip(nodes[::2], nodes[1::2], strict=False)]
        total += sum(bits(node) for node in sums)
        nodes = sums + (nodes[-1:] if len(nodes) % 2 else [])
    return groups * total


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
    if layer.levels > 1 and choice.weights_in == "constant":
        lut = family.shared_bit * _shared_bits(layer)
    else:
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
        flags = choice.simd // stage.granule if stage.granule else 0
        width = choice.simd * layer.input_bits + flags
        if choice.buffer_in == "registers":
            lut += family.buffer_bit * 2 * synapse_folds * width
        else:
            cost += _buffer(family, 2 * synapse_folds, width)
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
