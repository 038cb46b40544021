"""``xnorflow inspect``: what a model is, how it would be folded, or all that stands in its way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xnorflow.cli.common import (
    check_writable,
    folding_options,
    import_options,
    json_option,
    load_lowered,
    make_plan,
    optional_board,
    write_json,
)
from xnorflow.folding import folding_json, legal_pe, legal_simd
from xnorflow.frontend.obstacles import ModelRefused
from xnorflow.frontend.options import ImportOptions
from xnorflow.lowered import LoweredNetwork
from xnorflow.results import layer_results

__all__ = ["inspect_command"]


@click.command("inspect")
@click.argument("model")
@import_options
@folding_options
@json_option
def inspect_command(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    board: str | None,
    wanted: dict[str, Any],
    json_file: str | None,
) -> None:
    """Show MODEL's layers, their legal PE and SIMD, and a folding with its estimated cost.

    For a model that cannot be used, show all that stands in the way, and end with status 2.
    """
    check_writable(json_file, "--json")
    console = Console()
    try:
        network, lowered = load_lowered(model, options, verify_import)
    except ModelRefused as refusal:
        write_json(json_file, _refusal_json(refusal))
        if len(refusal.obstacles) == 1:
            raise
        _show_obstacles(console, refusal)
        raise click.exceptions.Exit(2) from None
    plan = make_plan(lowered, optional_board(board), wanted)
    rows = layer_results(lowered, plan)
    console.print(
        f"{network.name}: input {_shape(network.input_shape)}, {lowered.classes} classes, "
        f"{sum(row['weights_bits'] for row in rows):,} weight bits, "
        f"{sum(row['binary_ops'] for row in rows):,} binary operations a frame",
        highlight=False,
    )
    for table in (_layer_table(rows), _legal_table(lowered), _folding_table(rows)):
        console.print(table)
    for stage, depth in plan.fifos.items():
        console.print(f"FIFO before {stage}: {depth} beats", highlight=False, soft_wrap=True)
    console.print(
        f"{plan.cycles_per_frame:,} cycles a frame: {plan.fps:,.0f} frames/s at "
        f"{plan.clock_mhz:g} MHz; latency {plan.latency_cycles:,} cycles",
        highlight=False,
    )
    notes = [*network.notes, *plan.notes]
    for note in notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    write_json(
        json_file,
        {
            "model": network.name,
            "obstacles": [],
            "input_shape": list(network.input_shape),
            "classes": lowered.classes,
            "digest": lowered.digest(),
            "layers": [
                {**row, "legal_pe": legal_pe(layer), "legal_simd": legal_simd(layer)}
                for row, layer in zip(rows, lowered.layers, strict=True)
            ],
            "folding": folding_json(plan.folding),
            "fifos": plan.fifos,
            "cycles_per_frame": plan.cycles_per_frame,
            "latency_cycles": plan.latency_cycles,
            "clock_mhz": plan.clock_mhz,
            "fps": plan.fps,
            "notes": notes,
        },
    )


def _layer_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return what the layers are, whatever the folding."""
    table = _table("layer")
    table.add_column("kind", min_width=12)
    for heading in ("in", "out", "binary ops", "weight bits", "thresholds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        bits = f" x {row['input_bits']} bit" if row["input_bits"] > 1 else ""
        table.add_row(
            row["name"],
            row["kind"],
            f"{_shape(row['i_shape'])}{bits}",
            _shape(row["o_shape"]),
            f"{row['binary_ops']:,}",
            f"{row['weights_bits']:,}",
            f"{row['threshold_count']:,}",
        )
    return table


def _legal_table(lowered: LoweredNetwork) -> Table:
    """Return what a folding file may choose from."""
    table = _table("layer", "legal PE", "legal SIMD")
    for layer in lowered.layers:
        numbers = (legal_pe(layer), legal_simd(layer))
        table.add_row(layer.name, *(" ".join(map(str, legal)) for legal in numbers))
    return table


def _folding_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return how the layers are folded, and what that costs."""
    table = _table("layer")
    for heading in ("PE", "SIMD", "cycles", "weights in", "LUT", "BRAM"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            str(row["pe"]),
            str(row["simd"]),
            f"{row['cycles']:,}",
            row["weights_in"],
            f"{row['lut_estimated']:,}",
            str(row["bram_estimated"]),
        )
    return table


def _show_obstacles(console: Console, refusal: ModelRefused) -> None:
    console.print(
        f"{refusal.path} cannot become hardware: {len(refusal.obstacles)} obstacles",
        highlight=False,
        soft_wrap=True,
    )
    table = _table("where", "what stands in the way", "the way out")
    alike: dict[tuple[str, str], list[str]] = {}
    for obstacle in refusal.obstacles:
        places = alike.setdefault((obstacle.problem, obstacle.mend), [])
        places.append(obstacle.where or "the model")
    for (problem, mend), places in alike.items():
        # Names come from the file: they are no markup.
        table.add_row(*map(Text, ("\n".join(places), problem, mend)), end_section=True)
    console.print(table)


def _refusal_json(refusal: ModelRefused) -> dict[str, Any]:
    return {
        "model": refusal.path,
        "obstacles": [
            {"where": o.where, "problem": o.problem, "mend": o.mend} for o in refusal.obstacles
        ],
    }


def _table(first: str, *others: str) -> Table:
    """Return a table with columns of text."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in (first, *others):
        table.add_column(heading, overflow="fold")
    return table


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
