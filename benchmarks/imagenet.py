"""A ResNet-18 for ImageNet on paper: memory, bandwidth and frames a second, from the cost model.

    python benchmarks/imagenet.py [--json FILE]

The network is binarized as the small residual one of `models/` is: 3 x 3 convolutions of signs, the
sums of the one before added to each (Bi-Real Net, Liu et al., 2018, with integers). Where a stage
makes its image smaller, an average pool and two copies of each channel bring the sums along. The
first layer takes 8-bit pixels, the last one has 1,000 classes. Weights are random: nothing here
depends on them.

For each board: what the smallest folding takes, and what a time-multiplexed form would reach that
keeps no weights: one layer at a time on PEs that fill the board, weights from a memory outside.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from xnorflow.boards import board as boards
from xnorflow.cost import FAMILIES
from xnorflow.errors import WorkFailed
from xnorflow.hw.layouts import BITS
from xnorflow.hw.pe_array import array_parts
from xnorflow.lowered import LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import AveragePool, Conv2d, Dense, Flatten, Join, MaxPool, Network, Op, Sign
from xnorflow.planning import plan

SIMD = 64  # of the time-multiplexed form

BOARDS = ("ulx3s-25f", "ulx3s-85f")


def resnet18() -> Network:
    """Return the network: four stages of four convolutions, 64 to 512 channels."""
    rng = np.random.default_rng(1)

    def conv(name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> Conv2d:
        weights = rng.choice(np.array([-1, 1], np.int8), (outputs, kernel, kernel, inputs))
        border = kernel // 2
        return Conv2d(name, weights, (stride, stride), padding=(border,) * 4)

    ops: list[Op] = [
        conv("stem", 3, 64, 7, 2),
        MaxPool("stem_pool", (3, 3), (2, 2), padding=(1, 1, 1, 1)),
    ]
    channels = 64
    for stage in range(4):
        if stage:
            source = len(ops)
            pool = AveragePool(f"pool{stage}", (2, 2), (2, 2))
            ops += [pool, Join(f"double{stage}", source, (pool,), "append")]
            channels *= 2
        for number in range(4):
            source = len(ops)
            name = f"stage{stage}_{number}"
            ops += [Sign(f"{name}_sign"), conv(name, channels, channels, 3)]
            ops.append(Join(f"{name}_add", source, (), "add"))
    weights = rng.choice(np.array([-1, 1], np.int8), (1000, channels))
    ops += [Sign("last_sign"), AveragePool("average"), Flatten("flat"), Dense("classes", weights)]
    return Network("resnet18", (224, 224, 3), tuple(ops))


def multiplexed(lowered: LoweredNetwork, board_name: str) -> dict[str, Any]:
    """Return what one layer at a time on all PEs that fit would reach.

    A layer's weights are read once a frame and its activations stay on the chip; reading the next
    layer's weights overlaps with computing.
    """
    board = boards.load(board_name)
    family = FAMILIES[board.family]
    share = 0.6 * board.budget.lut
    pe = 1
    while family.cost(array_parts(family, 2 * pe, SIMD, 8, BITS, 64)).cells <= share:
        pe *= 2
    clock = board.clock.planned_mhz * 1e6
    layers = lowered.layers
    cycles = sum(
        layer.positions * -(-layer.rows // pe) * -(-layer.mw // SIMD) * layer.input_bits
        for layer in layers
    )
    bits = sum(layer.rows * layer.mw for layer in layers)
    fps = clock / cycles
    return {"pe": pe, "simd": SIMD, "cycles": cycles, "fps": fps, "mbyte_per_s": bits * fps / 8e6}


@click.command()
@click.option("--json", "json_file", metavar="FILE")
def main(json_file: str | None) -> None:
    """Print what the boards lack, and what they would reach."""
    lowered = lower(resnet18())
    bits = sum(layer.rows * layer.mw for layer in lowered.layers)
    operations = 2 * sum(layer.macs * layer.input_bits for layer in lowered.layers)
    console = Console(width=120)
    console.print(f"{bits:,} weight bits, {operations:,} binary operations a frame")
    table = Table("board", "streaming", "multiplexed: PE x SIMD", "cycles", "frames/s", "MB/s")
    rows = []
    for name in BOARDS:
        row = {"board": name, "weight_bits": bits, **multiplexed(lowered, name)}
        try:
            planned = plan(lowered, boards.load(name), min_area=True)
            row["streaming"] = f"fits, {planned.fps:,.1f} frames/s"
        except WorkFailed as failure:
            row["streaming"] = str(failure)
        rows.append(row)
        table.add_row(
            name,
            row["streaming"],
            f"{row['pe']} x {row['simd']}",
            f"{row['cycles']:,}",
            f"{row['fps']:,.1f}",
            f"{row['mbyte_per_s']:,.1f}",
        )
    console.print(table)
    if json_file is not None:
        Path(json_file).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
