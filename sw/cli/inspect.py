"""``xnorflow inspect``: what a model is, and how it would be folded."""

from __future__ import annotations

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from xnorflow.cli.common import (
    check_writable,
    folding_options,
    json_option,
    load_lowered,
    make_plan,
    optional_board,
    write_json,
)
from xnorflow.folding import legal_pe, legal_simd
from xnorflow.results import layer_results

__all__ = ["inspect_command"]

#: What a folding file holds of a layer.
KEYS = ("pe", "simd", "weights_in", "buffer_in", "rom_latency")


@click.command("inspect")
@click.argument("model")
@folding_options
@json_option
def inspect_command(
    model: str,
    board: str | None,
    target_fps: float | None,
    folding: str | None,
    json_file: str | None,
) -> None:
    """Show MODEL's layers, their legal PE and SIMD, and a folding with its estimated cost."""
    check_writable(json_file, "--json")
    network, lowered = load_lowered(model)
    plan = make_plan(lowered, optional_board(board), target_fps, folding)
    layers = layer_results(lowered, plan)
    console = Console()
    console.print(
        f"{network.name}: input {'x'.join(map(str, network.input_shape))}, "
        f"{lowered.classes} classes, {sum(r['weights_bits'] for r in layers):,} weight bits"
    )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", no_wrap=True)
    table.add_column("kind", min_width=10)
    for heading in ("in", "out", "pixels", "PE", "SIMD", "cycles"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("weights")
    for heading in ("LUT", "BRAM"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in layers:
        table.add_row(
            row["name"],
            row["kind"],
            str(row["mw"]),
            str(row["mh"]),
            f"{row['positions']:,}",
            str(row["pe"]),
            str(row["simd"]),
            f"{row['cycles']:,}",
            row["weights_in"],
            f"{row['lut_estimated']:,}",
            str(row["bram_estimated"]),
        )
    console.print(table)
    for layer in lowered.layers:
        console.print(
            f"{layer.name}: PE: {_listed(legal_pe(layer))}; SIMD: {_listed(legal_simd(layer))}",
            highlight=False,
            soft_wrap=True,
        )
    for stage, depth in plan.fifos.items():
        console.print(f"FIFO before {stage}: {depth} beats", highlight=False, soft_wrap=True)
    console.print(
        f"{plan.cycles_per_frame:,} cycles a frame: {plan.fps:,.0f} frames/s at "
        f"{plan.clock_mhz:g} MHz",
        highlight=False,
    )
    notes = [*network.notes, *plan.notes]
    for note in notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    write_json(
        json_file,
        {
            "model": network.name,
            "input_shape": list(network.input_shape),
            "classes": lowered.classes,
            "digest": lowered.digest(),
            "layers": [
                {**row, "legal_pe": legal_pe(layer), "legal_simd": legal_simd(layer)}
                for row, layer in zip(layers, lowered.layers, strict=True)
            ],
            "folding": {row["name"]: {key: row[key] for key in KEYS} for row in layers},
            "fifos": plan.fifos,
            "cycles_per_frame": plan.cycles_per_frame,
            "clock_mhz": plan.clock_mhz,
            "fps": plan.fps,
            "notes": notes,
        },
    )


def _listed(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))
