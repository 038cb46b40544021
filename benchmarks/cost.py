"""Compare the cost model with what yosys makes of single layers.

    python benchmarks/cost.py [--family ice40|ecp5] [--json FILE]

Each layer is synthesised alone, without the width converter and the arg-max beside it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
import numpy as np
from amaranth.back import rtlil
from rich.console import Console
from rich.table import Table

from xnorflow.boards.tools import find, run
from xnorflow.cost import FAMILIES, stage_cost
from xnorflow.folding import LayerFolding
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.rom import ROMStyle
from xnorflow.lowered import LoweredLayer, LoweredOutput
from xnorflow.pipeline import MatrixStage

#: MH, MW, and the folding.
LAYERS = [
    (144, 784, LayerFolding(4, 14, "bram")),
    (140, 784, LayerFolding(28, 16, "bram")),
    (256, 784, LayerFolding(4, 98, "bram")),
    (256, 256, LayerFolding(8, 32, "bram")),
    (256, 256, LayerFolding(32, 8, "bram")),
    (256, 256, LayerFolding(16, 64, "lut")),
    (80, 144, LayerFolding(1, 6, "lut", "registers")),
    (80, 144, LayerFolding(80, 1, "lut")),
    (64, 64, LayerFolding(64, 64, "constant")),
]

COMMANDS = {"ice40": "synth_ice40", "ecp5": "synth_ecp5 -nowidelut"}

#: LUT4s that a cell stands for; carries of iCE40 sit beside a LUT.
LUTS = {"SB_LUT4": 1, "LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}
BRAMS = ("SB_RAM40_4K", "DP16KD")


def measure(family: str, mh: int, mw: int, choice: LayerFolding) -> tuple[int, int, int]:
    """Synthesise a layer of random weights; return its LUT4s, block RAMs and estimated LUT4s."""
    rng = np.random.default_rng(0)
    weights = rng.choice(np.array([-1, 1], np.int8), (mh, mw))
    thresholds = (2 * rng.integers(-mw // 8, mw // 8, mh) + mw % 2).astype(np.int32)
    unit = MatrixVectorUnit(
        weights,
        pe=choice.pe,
        simd=choice.simd,
        thresholds=thresholds,
        weights_in=ROMStyle(choice.weights_in),
        buffer_in_registers=choice.buffer_in == "registers",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "layer.il").write_text(rtlil.convert(unit, emit_src=False))
        # Hidden names: ABC9 of yosys 0.70 takes `\\x[1]` for a bit of the port `\\x`.
        (folder / "layer.ys").write_text(
            f"read_rtlil layer.il\nrename -hide w:*]\n{COMMANDS[family]} -top top\n"
            "tee -q -o stat.json stat -json\n"
        )
        log = folder / "yosys.log"
        run(find("yosys"), ["layer.ys"], folder, log, "synthesise", lambda step, message: None)
        cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    lut = sum(count * cells.get(kind, 0) for kind, count in LUTS.items())
    bram = sum(cells.get(kind, 0) for kind in BRAMS)
    ones = np.ones(mh, np.int64)
    output = LoweredOutput(ones, 0 * ones, ones.astype(float), 0.0 * ones)
    layer = LoweredLayer("fc", weights, thresholds)
    cost = stage_cost(FAMILIES[family], MatrixStage(layer, choice, "thresholds"), output)
    return lut, bram, round(cost.lut)


@click.command()
@click.option("--family", type=click.Choice(sorted(COMMANDS)), multiple=True)
@click.option("--json", "json_file", metavar="FILE")
def main(family: tuple[str, ...], json_file: str | None) -> None:
    """Measure every layer for the families asked for, all of them by default."""
    table = Table("family", "MH x MW", "PE x SIMD", "weights in")
    for heading in ("LUT4", "estimated", "error", "BRAM"):
        table.add_column(heading, justify="right")
    results = []
    for name in family or sorted(COMMANDS):
        for mh, mw, choice in LAYERS:
            lut, bram, estimated = measure(name, mh, mw, choice)
            table.add_row(
                name,
                f"{mh} x {mw}",
                f"{choice.pe} x {choice.simd}",
                choice.weights_in,
                f"{lut:,}",
                f"{estimated:,}",
                f"{estimated / lut - 1:+.0%}",
                str(bram),
            )
            results.append(
                {"family": name, "mh": mh, "mw": mw, "pe": choice.pe, "simd": choice.simd}
                | {"weights_in": choice.weights_in, "buffer_in": choice.buffer_in}
                | {"lut": lut, "bram": bram, "lut_estimated": estimated}
            )
    Console().print(table)
    if json_file is not None:
        Path(json_file).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
