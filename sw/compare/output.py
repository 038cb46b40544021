"""A comparison as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from xnorflow.compare.table import Comparison
from xnorflow.compare.text import difference, heading, legend, value

__all__ = ["as_csv", "as_json", "as_markdown", "json_text"]


def as_csv(comparison: Comparison) -> str:
    """Return a line for each configuration, with a heading; what is not known is empty.

    Columns are the rows' keys; behind what is better or worse stands ``KEY_percent``, the
    difference from the baseline, and behind a resource ``KEY_available``. ``estimated`` names the
    keys whose values are estimates.
    """
    lines: list[dict[str, Any]] = []
    for index, column in enumerate(comparison.columns):
        line: dict[str, Any] = {"label": column.label}
        guessed = []
        for row in comparison.rows:
            cell = row.cells[index]
            line[row.key] = cell.value
            if row.better is not None:
                name = f"{row.key}_{'points' if row.unit == '%' else 'percent'}"
                line[name] = row.difference(index, comparison.baseline)
            if any(other.available is not None for other in row.cells):
                line[f"{row.key}_available"] = cell.available
            if cell.estimated and cell.value is not None:
                guessed.append(row.key)
        lines.append({**line, "estimated": " ".join(guessed)})
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """Return a table in GitHub's Markdown, the best values in bold."""
    head = ["", *(_escaped(column.label) for column in comparison.columns)]
    lines = [_line(head), _line(["---", *["---:"] * len(comparison.columns)])]
    for group, rows in comparison.groups():
        lines.append(_line([f"**{_escaped(group)}**", *[""] * len(comparison.columns)]))
        for row in rows:
            cells = []
            for index, cell in enumerate(row.cells):
                text = _escaped(value(row, cell))
                if index in row.best:
                    text = f"**{text}** \\*"
                cells.append(f"{text} {difference(comparison, row, index)}".rstrip())
            lines.append(_line([_escaped(heading(row)), *cells]))
    notes = [*legend(comparison), *comparison.notes]
    return "\n".join([*lines, "", *(f"- {_escaped(note)}" for note in notes), ""])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Return text that Markdown takes as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", text)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the object that ``--json`` writes; its ``points`` can be compared again."""
    columns = comparison.columns
    return {
        "baseline": columns[comparison.baseline].label,
        "points": [
            {**column.report, "label": column.label, "known_from": column.known_from}
            for column in columns
        ],
        "rows": [
            {
                "key": row.key,
                "name": row.name,
                "unit": row.unit,
                "group": row.group,
                "better": row.better,
                "values": [cell.value for cell in row.cells],
                "estimated": [cell.estimated for cell in row.cells],
                "best": sorted(row.best),
                "percentage_points" if row.unit == "%" else "percent": [
                    row.difference(index, comparison.baseline) for index in range(len(columns))
                ],
            }
            for row in comparison.rows
        ],
        "notes": list(comparison.notes),
    }


def json_text(comparison: Comparison) -> str:
    """Return that object as text."""
    return json.dumps(as_json(comparison), indent=2) + "\n"
