"""``xnorflow boards``: the boards that a bitstream can be built for."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from xnorflow.boards.board import load, names
from xnorflow.cli.common import check_writable, json_option, write_json

__all__ = ["boards_command"]


@click.command("boards")
@json_option
def boards_command(json_file: str | None) -> None:
    """List the boards, their devices and what these hold."""
    check_writable(json_file, "--json")
    boards = [load(name) for name in names()]
    table = Table()
    for heading in ("board", "device", "LUT", "block RAM", "planned clock", "link"):
        table.add_column(heading, justify="left" if heading in ("board", "device") else "right")
    for board in boards:
        budget = board.budget
        table.add_row(
            board.name,
            f"{board.device} ({board.family})",
            f"{budget.lut:,}",
            f"{budget.bram} x {budget.bram_bits / 1024:g} kbit",
            f"{board.clock.planned_mhz:g} MHz",
            f"{board.link.baud:,} baud" if board.link else "none",
        )
    Console().print(table)
    write_json(json_file, {"boards": [asdict(board) for board in boards]})
