"""Compare the cost model with what yosys makes of the stages of convolutional networks.

    python benchmarks/stages.py [--family ice40|ecp5] [--kind KIND] [--json FILE]

Each stage is synthesised alone. The model counts LUT4s; of windows and pools on iCE40, most of
whose flip-flops are not behind a LUT, it counts the cells that these take too.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import click
import numpy as np
from amaranth import signed, unsigned
from amaranth.back import rtlil
from amaranth.lib import wiring
from cost import BRAMS, COMMANDS, LUTS
from rich.console import Console
from rich.table import Table

from xnorflow.boards.tools import find, run
from xnorflow.cost import FAMILIES, stage_cost
from xnorflow.folding import LayerFolding
from xnorflow.hw.layouts import Lanes
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.parallel_window import ParallelWindow
from xnorflow.hw.pool import PoolUnit
from xnorflow.hw.rom import ROMStyle
from xnorflow.hw.sliding_window import SlidingWindow
from xnorflow.lowered import LoweredLayer, LoweredOutput, LoweredPool, Window
from xnorflow.pipeline import POOL_REGISTER_BITS, MatrixStage, PoolStage, Stage, WindowStage


@dataclass(frozen=True)
class Area:
    """What a unit takes after synthesis.

    Attributes
    ----------
    lut : int
        LUT4s; carries of ECP5 and distributed RAM as the LUTs that they stand for.
    ff : int
    cells : int
        LUT4s, and on iCE40 the flip-flops that share no cell with one.
    bram : int
    """

    lut: int
    ff: int
    cells: int
    bram: int


def synthesise(family: str, unit: wiring.Component) -> Area:
    """Synthesise a unit alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "unit.il").write_text(rtlil.convert(unit, emit_src=False))
        # Hidden names: ABC9 of yosys 0.70 takes `\\x[1]` for a bit of the port `\\x`.
        (folder / "unit.ys").write_text(
            f"read_rtlil unit.il\nrename -hide w:*]\n{COMMANDS[family]} -top top\n"
            "write_json unit.json\n"
        )
        log = folder / "yosys.log"
        run(find("yosys"), ["unit.ys"], folder, log, "synthesise", lambda step, message: None)
        module = json.loads((folder / "unit.json").read_text())["modules"]["top"]
    cells = module["cells"].values()
    types = Counter(cell["type"] for cell in cells)
    lut = sum(count * types[kind] for kind, count in LUTS.items())
    flip_flops = [cell for cell in cells if cell["type"].startswith(("SB_DFF", "TRELLIS_FF"))]
    bare = 0
    if family == "ice40":
        # A flip-flop goes into the cell of the LUT that feeds it and nothing else.
        readers = Counter(
            bit
            for cell in cells
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "input"
            for bit in bits
        )
        readers.update(
            bit
            for port in module["ports"].values()
            if port["direction"] == "output"
            for bit in port["bits"]
        )
        fed = {
            cell["connections"]["O"][0]
            for cell in cells
            if cell["type"] == "SB_LUT4" and readers[cell["connections"]["O"][0]] == 1
        }
        bare = sum(cell["connections"]["D"][0] not in fed for cell in flip_flops)
    return Area(lut, len(flip_flops), lut + bare, sum(types[kind] for kind in BRAMS))


def _window(
    shape: tuple[int, int, int],
    lanes: int = 0,
    *,
    bits: int = 1,
    pad: str = "",
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> WindowStage:
    """Return a folded window of `lanes`, or a parallel one; `pad` is empty, zero or value."""
    height, width = kernel
    margin = (height // 2, width // 2, height // 2, width // 2) if pad else (0, 0, 0, 0)
    values = np.zeros(shape[2], np.uint16) if pad == "value" else None
    window = Window(shape, kernel, stride, padding=margin, pad=values)
    granule = (lanes or shape[2]) if pad == "zero" else 0
    return WindowStage("window", window, groups, bits, lanes or shape[2], lanes == 0, granule)


def _pool(
    op: str,
    shape: tuple[int, int, int],
    kernel: tuple[int, int],
    lanes: int,
    high: int = 1,
    low: int = 0,
) -> PoolStage:
    pool = LoweredPool("pool", op, Window(shape, kernel, kernel), low, high)
    return PoolStage(pool, shape, kernel, 1, lanes)


def _matrix(
    mh: int, mw: int, pe: int, simd: int, weights_in: str, levels: int = 255
) -> MatrixStage:
    rng = np.random.default_rng(0)
    weights = rng.choice(np.array([-1, 1], np.int8), (mh, mw))
    thresholds = rng.integers(-mw * levels // 8, mw * levels // 8, mh).astype(np.int32)
    layer = LoweredLayer("conv", weights, thresholds, levels=levels)
    return MatrixStage(layer, LayerFolding(pe, simd, weights_in), "thresholds")


STAGES: dict[str, list[Stage]] = {
    "window": [
        _window((28, 28, 1), 1),
        _window((28, 28, 1), 1, pad="zero"),
        _window((28, 28, 1), 1, bits=8, pad="value"),
        _window((32, 32, 3), 1, bits=8),
        _window((32, 32, 3), 3, bits=8, pad="value"),
        _window((13, 13, 32), 1),
        _window((13, 13, 32), 8),
        _window((13, 13, 32), 32),
        _window((14, 14, 64), 16, pad="zero"),
        _window((14, 14, 64), 32, pad="value"),
        _window((30, 30, 64), 8),
        _window((30, 30, 64), 32, pad="zero"),
        _window((5, 5, 64), 32),
        _window((13, 13, 32), 4, stride=(2, 2)),
        _window((28, 28, 16), 8, pad="zero"),
        _window((28, 28, 1), 1, bits=8, pad="value", kernel=(5, 5)),
        _window((8, 8, 128), 64, pad="value"),
    ],
    "parallel": [
        _window((28, 28, 1), pad="zero"),
        _window((28, 28, 1), bits=8, pad="value"),
        _window((32, 32, 3), bits=8),
        _window((13, 13, 32)),
        _window((14, 14, 64), pad="zero"),
        _window((14, 14, 64), pad="value"),
        _window((30, 30, 64)),
        _window((28, 28, 1), bits=8, kernel=(5, 5)),
        _window((8, 8, 16), pad="zero", stride=(2, 2)),
    ],
    "pool": [
        _pool("or", (26, 26, 16), (2, 2), 1),
        _pool("or", (28, 28, 64), (2, 2), 16),
        _pool("or", (11, 11, 32), (2, 2), 8),
        _pool("or", (28, 28, 64), (2, 2), 64),
        _pool("sum", (7, 7, 64), (7, 7), 4),
        _pool("sum", (28, 28, 16), (2, 2), 4, 144, -144),
        _pool("sum", (1, 9, 32), (1, 9), 8),
        _pool("or", (10, 10, 64), (2, 2), 32),
        _pool("or", (4, 4, 32), (2, 2), 16),
    ],
    "matrix": [
        _matrix(64, 27, 8, 3, "bram"),
        _matrix(64, 27, 16, 9, "lut"),
        _matrix(16, 9, 16, 9, "constant"),
        _matrix(32, 27, 32, 27, "constant"),
        _matrix(64, 27, 64, 27, "constant", levels=15),
        _matrix(32, 25, 8, 5, "bram"),
        _matrix(64, 784, 4, 16, "bram"),
        _matrix(32, 144, 8, 8, "bram", levels=15),
        _matrix(32, 144, 8, 16, "bram", levels=3),
    ],
}


def build(stage: Stage) -> wiring.Component:
    """Return the hardware of a stage."""
    match stage:
        case WindowStage(window=window):
            common: dict[str, Any] = {
                "stride": window.stride,
                "padding": window.padding,
                "pad_values": window.pad,
                "zero_flag": stage.granule > 0,
            }
            element, places = unsigned(stage.bits), (window.shape, window.kernel)
            if stage.parallel:
                granule = stage.granule or window.shape[2]
                return ParallelWindow(element, *places, granule=granule, **common)
            return SlidingWindow(element, *places, lanes=stage.lanes, groups=stage.groups, **common)
        case PoolStage(pool=pool):
            low, high = pool.low, pool.high
            element = unsigned(high.bit_length())
            if low < 0:
                element = signed(max(-low - 1, high).bit_length() + 1)
            return PoolUnit(
                element,
                stage.shape,
                stage.kernel,
                lanes=stage.lanes,
                op="or" if pool.op == "or" else "sum",
                registers=stage.words * stage.lanes * stage.bits <= POOL_REGISTER_BITS,
            )
        case MatrixStage(layer=layer, choice=choice):
            return MatrixVectorUnit(
                layer.weights,
                pe=choice.pe,
                simd=choice.simd,
                thresholds=layer.thresholds,
                lanes=Lanes(layer.input_bits),
                weights_in=ROMStyle(choice.weights_in),
            )
    raise TypeError(stage)


def describe(stage: Stage) -> str:
    """Name a stage in a few words."""
    match stage:
        case WindowStage(window=window):
            height, width, channels = window.shape
            lanes = "all taps" if stage.parallel else f"{stage.lanes} lanes"
            pad = "" if not any(window.padding) else ", zeros" if stage.granule else ", values"
            stride = "" if prod(window.stride) == 1 else ", strided"
            return f"window {height}x{width}x{channels} of {stage.bits} b, {lanes}{pad}{stride}"
        case PoolStage(pool=pool):
            height, width, channels = stage.shape
            kernel = "x".join(map(str, stage.kernel))
            return f"{pool.op} {kernel} of {height}x{width}x{channels}, {stage.lanes} lanes"
        case MatrixStage(layer=layer, choice=choice):
            return (
                f"MVU {layer.mh}x{layer.mw}, {choice.pe}x{choice.simd}, {layer.input_bits} b, "
                f"{choice.weights_in}"
            )
    raise TypeError(stage)


@click.command()
@click.option("--family", type=click.Choice(sorted(COMMANDS)), multiple=True)
@click.option("--kind", type=click.Choice(list(STAGES)), multiple=True)
@click.option("--json", "json_file", metavar="FILE")
def main(family: tuple[str, ...], kind: tuple[str, ...], json_file: str | None) -> None:
    """Measure every stage for the families asked for, all of them by default."""
    table = Table("family", "stage")
    for heading in ("LUT4", "FF", "cells", "estimated", "error", "BRAM", "estimated"):
        table.add_column(heading, justify="right")
    one = np.ones(1, np.int64)
    output = LoweredOutput(one, 0 * one, one.astype(float), 0.0 * one)
    results = []
    for name in family or sorted(COMMANDS):
        for stage in (stage for key in kind or STAGES for stage in STAGES[key]):
            area = synthesise(name, build(stage))
            cost = stage_cost(FAMILIES[name], stage, output)
            counted = area.lut if isinstance(stage, MatrixStage) else area.cells
            table.add_row(
                name,
                describe(stage),
                f"{area.lut:,}",
                f"{area.ff:,}",
                f"{area.cells:,}",
                f"{cost.lut:,.0f}",
                f"{cost.lut / counted - 1:+.0%}",
                str(area.bram),
                str(cost.bram),
            )
            results.append(
                {"family": name, "stage": describe(stage), "lut": area.lut, "ff": area.ff}
                | {"cells": area.cells, "lut_estimated": round(cost.lut)}
                | {"bram": area.bram, "bram_estimated": cost.bram}
            )
    Console().print(table)
    if json_file is not None:
        Path(json_file).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
