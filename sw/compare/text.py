"""How values, differences and marks are written, in every form of a comparison."""

from __future__ import annotations

from math import floor, log10

from xnorflow.compare.table import Cell, Comparison, Row

__all__ = ["DASH", "LEGEND", "difference", "heading", "legend", "number", "value"]

DASH = "–"

#: What the marks say.
LEGEND = {
    "~": "~ estimated or planned, not measured",
    "*": "* best of the row",
    "%": "differences are against {baseline}",
    "pp": "pp: percentage points",
}


def number(value: float, digits: int = 4) -> str:
    """Write a number with thousands separators and so many significant digits, whole ones fully."""
    if value == int(value):
        return f"{int(value):,}"
    return _rounded(value, digits)


def _rounded(value: float, digits: int) -> str:
    rounded = float(f"{value:.{digits}g}")
    decimals = max(0, digits - 1 - floor(log10(abs(rounded)))) if rounded else 0
    return f"{rounded:,.{decimals}f}" if decimals else f"{value:,.0f}"


def value(row: Row, cell: Cell) -> str:
    """Write a cell: ``~`` before what is estimated, the share of the device behind a resource."""
    if cell.value is None:
        return DASH
    if isinstance(cell.value, str):
        return cell.value
    if row.unit == "%":
        text = f"{cell.value:.2f}"
    elif row.key == "uj_per_frame":
        # An estimate has no more than two digits.
        text = _rounded(float(f"{cell.value:.2g}"), 2)
    elif row.unit == "s":
        text = f"{cell.value:,.1f}"
    else:
        text = number(cell.value)
    share = "" if cell.share is None else f" ({cell.share:.0f} %)"
    return f"{'~' if cell.estimated else ''}{text}{share}"


def difference(comparison: Comparison, row: Row, column: int) -> str:
    """Write by how much a column differs from the baseline; empty where that says nothing."""
    found = row.difference(column, comparison.baseline)
    counted = row.key in ("accuracy_frames", "simulated")
    if column == comparison.baseline or found is None or counted:
        return ""
    unit = "pp" if row.unit == "%" else "%"
    if found == 0:
        return "="
    decimals = 0 if abs(found) >= 100 else 1 if abs(found) >= 0.1 else 2
    return f"{found:+,.{decimals}f} {unit}"


def heading(row: Row) -> str:
    """Return a row's name with its unit."""
    return f"{row.name}, {row.unit}" if row.unit else row.name


def legend(comparison: Comparison) -> list[str]:
    """Return what the marks say that occur in a comparison."""
    texts = [
        difference(comparison, row, column)
        for row in comparison.rows
        for column in range(len(comparison.columns))
    ]
    occur = {
        "~": any(
            cell.estimated and cell.value is not None for r in comparison.rows for cell in r.cells
        ),
        "*": any(row.best for row in comparison.rows),
        "%": any(text.endswith(" %") or text == "=" for text in texts),
        "pp": any(text.endswith("pp") for text in texts),
    }
    baseline = comparison.columns[comparison.baseline].label
    return [text.replace("{baseline}", baseline) for mark, text in LEGEND.items() if occur[mark]]
