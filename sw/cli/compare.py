"""``xnorflow compare``: reports, boards, foldings and models side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xnorflow.boards.board import Board
from xnorflow.boards.board import load as load_board
from xnorflow.cli.common import (
    check_files,
    divisor_option,
    import_options,
    in_options,
    json_option,
    load_lowered,
    read_frames,
)
from xnorflow.compare import (
    Column,
    Comparison,
    Row,
    Wanted,
    compare,
    estimated,
    is_report_file,
    labelled,
    read_reports,
)
from xnorflow.compare.output import as_csv, as_markdown, json_text
from xnorflow.compare.page import render
from xnorflow.compare.table import plain
from xnorflow.compare.text import DASH, difference, heading, legend, number, value
from xnorflow.errors import UserError, WorkFailed
from xnorflow.files import write_files
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import predict_quantized
from xnorflow.lowered import LoweredNetwork

__all__ = ["compare_command"]

#: A heading is broken where it is wider.
WIDEST_LABEL = 22

#: Blanks before a column where each configuration is a line.
GAP = 2


@click.command("compare")
@click.argument("things", nargs=-1, required=True, metavar="REPORT|FOLDER|MODEL...")
@import_options
@click.option("--board", "boards", metavar="BOARDS", help="Of a model: board names, by commas.")
@click.option(
    "--folding", "foldings", metavar="FILES", help="Of a model: folding files, by commas."
)
@click.option(
    "--target-fps", "targets", metavar="LIST", help="Of a model: frames a second, by commas."
)
@click.option("--max", "fastest", is_flag=True, help="Of a model: the fastest folding that fits.")
@click.option("--min-area", is_flag=True, help="Of a model: the folding of fewest LUTs.")
@click.option("--latency", is_flag=True, help="Of a model: the folding of least latency.")
@click.option(
    "--utilization",
    type=float,
    metavar="SHARE",
    help="Of a model: share of LUTs and block RAMs to use.",
)
@click.option(
    "--data", metavar="FILE.npz", help="Of a model: take its accuracy on frames x and labels y."
)
@divisor_option
@click.option(
    "--front", is_flag=True, help="Of an exploration: only the points on the front of their board."
)
@click.option("--label", "labels", multiple=True, metavar="NAME", help="Call the next column NAME.")
@click.option(
    "--baseline", metavar="LABEL", help="Take differences against this column, not the first."
)
@click.option("--csv", "csv_file", metavar="FILE", help="Also write a line for each column.")
@click.option("--markdown", "markdown_file", metavar="FILE", help="Also write a Markdown table.")
@click.option("--html", "html_file", metavar="FILE", help="Also write a page.")
@json_option
def compare_command(
    things: tuple[str, ...],
    options: ImportOptions,
    verify_import: bool | None,
    boards: str | None,
    foldings: str | None,
    targets: str | None,
    fastest: bool,
    min_area: bool,
    latency: bool,
    utilization: float | None,
    data: str | None,
    divide_by: float | None,
    front: bool,
    labels: tuple[str, ...],
    baseline: str | None,
    csv_file: str | None,
    markdown_file: str | None,
    html_file: str | None,
    json_file: str | None,
) -> None:
    """Put built, explored and estimated configurations side by side.

    REPORT is a report.json of build, FOLDER the output of build or explore, and MODEL a model file,
    of which each --board is estimated with each folding that --folding, --target-fps, --max,
    --min-area and --latency ask for. Nothing is built.
    """
    files = {
        "--csv": csv_file,
        "--markdown": markdown_file,
        "--html": html_file,
        "--json": json_file,
    }
    check_files(files, *things)
    asked = _Asked(
        [load_board(name) for name in _listed(boards, "--board")] or [None],
        list(_wanted(foldings, targets, fastest, min_area, latency)),
        utilization,
    )
    given = {
        "--board": boards,
        "--folding": foldings,
        "--target-fps": targets,
        "--max": fastest,
        "--min-area": min_area,
        "--latency": latency,
        "--utilization": utilization,
        "--data": data,
    }
    if all(map(is_report_file, things)):
        for option, setting in given.items():
            if setting not in (None, False):
                raise UserError(f"{option} is for model files, and none is given; name one too")
    columns: list[Column] = []
    notes: list[str] = []
    unfit: list[str] = []
    for thing in things:
        if is_report_file(thing):
            found, said = read_reports(thing, front)
            notes += said
        else:
            _, lowered = load_lowered(thing, options, verify_import)
            accuracy = None if data is None else _accuracy(data, lowered, divide_by)
            found, said = asked.columns(thing, lowered, accuracy)
            unfit += said
        columns += found
    if len(columns) < 2 and unfit:
        raise WorkFailed(unfit[0])
    if front and not any("front" in column.report for column in columns):
        raise UserError("--front is for the output of explore, and none is given; leave it out")
    notes += [f"left out: {in_options(note, _commands())}" for note in unfit]
    result = compare(labelled(columns, labels), baseline, notes)
    texts = {
        "--csv": as_csv(result),
        "--markdown": as_markdown(result),
        "--html": render(result),
        "--json": json_text(result),
    }
    write_files({name: (path, texts[name]) for name, path in files.items() if path is not None})
    show(Console(), result)


@dataclass(frozen=True)
class _Asked:
    """What is to be estimated of every model."""

    boards: Sequence[Board | None]
    wanted: Sequence[Wanted]
    utilization: float | None

    def columns(
        self, model: str, lowered: LoweredNetwork, accuracy: dict[str, Any] | None
    ) -> tuple[list[Column], list[str]]:
        """Return the estimates, and what fits nowhere."""
        columns, notes = [], []
        for board in self.boards:
            for wanted in self.wanted:
                try:
                    column = estimated(
                        lowered,
                        board,
                        wanted,
                        utilization=self.utilization,
                        accuracy=accuracy,
                        source=model,
                    )
                except WorkFailed as error:
                    name = "no board" if board is None else board.name
                    notes.append(f"{lowered.name} on {name}, {wanted.name}: {error}")
                    continue
                columns.append(column)
        return columns, notes


def _wanted(
    foldings: str | None, targets: str | None, fastest: bool, min_area: bool, latency: bool
) -> Iterator[Wanted]:
    """Give what the options ask for; the default target if that is nothing."""
    flags = {"max": fastest, "min-area": min_area, "latency": latency}
    arguments = {"max": "fastest", "min-area": "min_area", "latency": "latency"}
    if foldings is None and targets is None and not any(flags.values()):
        yield Wanted("estimated", {})
    for path in _listed(foldings, "--folding"):
        yield Wanted(plain(Path(path).stem), {"folding": path})
    for text in _listed(targets, "--target-fps"):
        fps = _fps(text)
        yield Wanted(f"{number(fps)} fps", {"target_fps": fps})
    for name, flag in flags.items():
        if flag:
            yield Wanted(name, {arguments[name]: True})


def _accuracy(data: str, lowered: LoweredNetwork, divide_by: float | None) -> dict[str, Any]:
    """Return the accuracy of the golden model, and so of any hardware of the network."""
    frames = read_frames(data, lowered, None, divide_by)
    if frames.y is None:
        raise UserError(f"--data {data} has no labels y, so nothing can be right; add them")
    classes = predict_quantized(lowered, frames.quantized).classes
    return {"frames": len(frames.quantized), "accuracy": float((classes == frames.y).mean())}


def _commands() -> Iterable[click.Command]:
    """Return all commands, by whose options messages are told."""
    root = click.get_current_context().find_root().command
    return root.commands.values() if isinstance(root, click.Group) else [root]


def _listed(text: str | None, option: str) -> list[str]:
    if text is None:
        return []
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserError(f"{option} is {text!r}; give one or more, separated by commas")
    return list(dict.fromkeys(words))


def _fps(text: str) -> float:
    try:
        fps = float(text)
    except ValueError:
        fps = 0.0
    if not isfinite(fps) or fps <= 0:
        raise UserError(f"--target-fps has {text!r}; give positive numbers, separated by commas")
    return fps


def show(console: Console, comparison: Comparison) -> None:
    """Print a comparison: columns side by side if they fit, else each as a line."""
    shown = {
        row.key: [_cell(comparison, row, index) for index in range(len(row.cells))]
        for row in comparison.rows
    }
    if not _side_by_side(console, comparison, shown):
        _below_each_other(console, comparison, shown)
    for text in (*legend(comparison), *(f"note: {note}" for note in comparison.notes)):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _cell(comparison: Comparison, row: Row, index: int) -> tuple[Text, str]:
    """Return a value with its mark, and its difference."""
    best = index in row.best
    text = Text(value(row, row.cells[index]) + ("*" if best else " "))
    if best:
        text.stylize("bold green")
    return text, difference(comparison, row, index)


def _joined(cell: tuple[Text, str], width: int) -> Text:
    """Return value and difference in one, the latter in a column of its own."""
    text, differs = cell
    if not width:
        return text
    return Text.assemble(text, (" " + differs.rjust(width), "dim"))


def _side_by_side(
    console: Console, comparison: Comparison, shown: dict[str, list[tuple[Text, str]]]
) -> bool:
    """Print a column for each configuration, if the console is wide enough."""
    names = {row.key: _indented(row) for row in comparison.rows}
    widths, parts = [], []
    for index, column in enumerate(comparison.columns):
        cells = [shown[row.key][index] for row in comparison.rows if _is_numeric(row)]
        right = max(len(differs) for _, differs in cells)
        left = max(text.cell_len for text, _ in cells)
        words = [shown[row.key][index][0] for row in comparison.rows if not _is_numeric(row)]
        longest = max(min(word.cell_len, WIDEST_LABEL) for word in words)
        label = min(max(map(len, column.label.split()), default=0), WIDEST_LABEL)
        widths.append(max(left + (right + 1 if right else 0), longest, label))
        parts.append(right)
    groups = comparison.groups()
    first = max(map(len, (*names.values(), *(group for group, _ in groups))))
    needed = first + sum(widths) + len(widths)
    if needed > console.width:
        return False
    # The box has a blank between columns already.
    gap = int(needed + len(widths) <= console.width)
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, gap), show_edge=False, pad_edge=False)
    table.add_column("", width=first)
    for column, width in zip(comparison.columns, widths, strict=True):
        table.add_column(Text(column.label), justify="right", width=width, overflow="fold")
    for index, (group, rows) in enumerate(groups):
        if index:
            table.add_row(Text(group, style="dim"))
        for row in rows:
            values = [
                _joined(cell, part if _is_numeric(row) else 0)
                for cell, part in zip(shown[row.key], parts, strict=True)
            ]
            table.add_row(Text(names[row.key]), *values)
    console.print(table)
    return True


def _below_each_other(
    console: Console, comparison: Comparison, shown: dict[str, list[tuple[Text, str]]]
) -> None:
    """Print a line for each configuration, in as many tables as it takes.

    What is the same everywhere is told once.
    """
    alike = {
        row.key: value(row, row.cells[0])
        for row in comparison.rows
        if len({(value(row, cell), cell.value) for cell in row.cells}) == 1
    }
    labels = [column.label for column in comparison.columns]
    for group, rows in comparison.groups():
        table, left = None, 0
        titles = (*labels, *group.split())
        first = min(max(map(len, titles)), console.width * 2 // 5)
        for row in rows:
            if row.key in alike:
                continue
            right = max(len(differs) for _, differs in shown[row.key])
            cells = [_joined(cell, right) for cell in shown[row.key]]
            widest = max(text.cell_len for text in cells)
            name = heading(row)
            width = max(widest, *map(len, name.split()))
            if table is None or width + GAP > left:
                if table is not None:
                    _print_lines(console, table, labels)
                table, left = _Lines(group, first, []), console.width - first
            table.columns.append((name, width, cells))
            left -= width + GAP
        if table is not None:
            _print_lines(console, table, labels)
    if alike:
        same = "; ".join(
            f"{row.name} {alike[row.key]} {row.unit}".rstrip()
            for row in comparison.rows
            if row.key in alike
        )
        console.print(f"the same for all: {same}", highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class _Lines:
    """A table to be: its title, the width of the labels, and heading, width and cells of others."""

    title: str
    first: int
    columns: list[tuple[str, int, list[Text]]]


def _print_lines(console: Console, lines: _Lines, labels: Sequence[str]) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, pad_edge=False)
    table.add_column(Text(lines.title), width=lines.first, overflow="fold")
    for name, width, _ in lines.columns:
        table.add_column(Text(name), justify="right", width=width, overflow="fold")
    for index, label in enumerate(labels):
        cells = [cells[index] for _, _, cells in lines.columns]
        # Another network has other layers.
        if any(cell.plain.strip() != DASH for cell in cells):
            table.add_row(Text(label), *cells)
    console.print(table)
    console.print()


def _is_numeric(row: Row) -> bool:
    return not any(isinstance(cell.value, str) for cell in row.cells)


def _indented(row: Row) -> str:
    """Return a row's heading; what was estimated stands below what is used."""
    return "  estimated" if row.key.endswith("_estimated") else heading(row)
