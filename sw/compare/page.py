"""A comparison as a page of HTML in the look of the build report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xnorflow.compare.table import Comparison, Row
from xnorflow.compare.text import difference, heading, legend, value
from xnorflow.report.templates import environment

__all__ = ["render"]

#: What is drawn as bars.
DRAWN = ("fps", "latency_us", "lut", "bram", "uj_per_frame", "accuracy")


@dataclass(frozen=True)
class Shown:
    """A cell of the page.

    Attributes
    ----------
    label : str
        Of its column.
    text, difference : str
    best, estimated, baseline, number : bool
        `number` is whether it is one.
    drawn : float
        Length of its bar, in per cent of the row's longest.
    """

    label: str
    text: str
    difference: str
    best: bool
    estimated: bool
    baseline: bool
    number: bool
    drawn: float


def render(comparison: Comparison) -> str:
    """Return the page: HTML that needs no network and no script."""
    models = list(dict.fromkeys(column.model for column in comparison.columns))
    drawn = [row for row in comparison.rows if row.key in DRAWN and _worth_drawing(row)]
    return (
        environment()
        .get_template("compare.html")
        .render(
            models=models,
            columns=comparison.columns,
            baseline=comparison.columns[comparison.baseline].label,
            charts=[(heading(row), row.better, list(_cells(comparison, row))) for row in drawn],
            groups=[
                (group, [(heading(row), list(_cells(comparison, row))) for row in rows])
                for group, rows in comparison.groups()
            ],
            legend=legend(comparison),
            notes=comparison.notes,
        )
    )


def _worth_drawing(row: Row) -> bool:
    """Return whether there are bars of different lengths."""
    return len({cell.number for cell in row.cells if cell.number is not None}) > 1


def _cells(comparison: Comparison, row: Row) -> Iterator[Shown]:
    longest = max((cell.number for cell in row.cells if cell.number is not None), default=0.0)
    for index, cell in enumerate(row.cells):
        yield Shown(
            label=comparison.columns[index].label,
            text=value(row, cell),
            difference=difference(comparison, row, index),
            best=index in row.best,
            estimated=cell.estimated,
            baseline=index == comparison.baseline,
            number=cell.number is not None,
            drawn=100 * (cell.number or 0.0) / longest if longest else 0.0,
        )
