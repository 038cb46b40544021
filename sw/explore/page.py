"""The page of an exploration: an interactive plot of speed against size, and a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from xnorflow.explore.points import Point
from xnorflow.explore.session import Exploration
from xnorflow.report.plots import COLOURS, as_html
from xnorflow.report.templates import environment

__all__ = ["render"]

#: What the horizontal axis can show: key, label, whether the estimate has it too.
AXES = (
    ("cells", "LUTs (logic cells on iCE40)", True),
    ("cell_share", "share of the device's LUTs, %", True),
    ("bram", "block RAMs", True),
    ("bram_share", "share of the device's block RAMs, %", True),
    ("uj", "energy a frame, µJ (estimate)", False),
)


def render(result: Exploration) -> str:
    """Return the page: HTML that needs no network."""
    built = sorted(
        (point for point in result.points if not point["failed"]),
        key=lambda point: (point["board"], -point["fps"]),
    )
    return (
        environment()
        .get_template("explore.html")
        .render(
            model=result.model,
            boards=list(dict.fromkeys(point["board"] for point in result.points)),
            plot=_plot(result, built),
            built=[_row(point) for point in built],
            energy=any(point.get("energy") for point in built),
            failed=[point for point in result.points if point["failed"]],
            estimated=len(result.estimated),
        )
    )


def _row(point: dict[str, Any]) -> dict[str, Any]:
    """Return what the table and the plot show of a built point."""
    resources = point["resources"]
    cells = resources.get("lc", resources["lut"])
    energy = point.get("energy")
    folding = point["point"]["folding"]
    return {
        "board": point["board"],
        "fps": point["fps"],
        "clock": point["clock_mhz"],
        "cycles": point["cycles_per_frame"],
        "latency": point["latency_us"],
        "cells": cells["used"],
        "cell_share": 100 * cells["used"] / cells["available"],
        "bram": resources["bram"]["used"],
        "bram_share": 100 * resources["bram"]["used"] / resources["bram"]["available"],
        "uj": energy["uj_per_frame"] if energy else None,
        "seed": point["point"]["seed"],
        "front": point["front"],
        "folding": ", ".join(f"{name} {one['pe']}x{one['simd']}" for name, one in folding.items()),
        "folder": point["folder"],
    }


def _estimated_row(point: Point) -> dict[str, float]:
    """Return the same of an estimated point, as far as it goes."""
    budget = point.board.budget
    cells, bram = point.estimated["cells"], point.estimated["bram"]
    return {
        "fps": point.estimated["fps"],
        "cells": cells,
        "cell_share": 100 * cells / budget.lut,
        "bram": bram,
        "bram_share": 100 * bram / budget.bram if budget.bram else 0.0,
        **({"uj": point.estimated["uj"]} if "uj" in point.estimated else {}),
    }


def _plot(result: Exploration, built: Sequence[dict[str, Any]]) -> str:
    """Return the plot as HTML with its script."""
    # Plotly takes a second to import, which other commands need not wait for.
    from plotly import graph_objects

    traces, columns = [], []
    boards = dict.fromkeys(point.board.name for point in result.estimated)
    for board, colour in zip(boards, COLOURS * (len(boards) // len(COLOURS) + 1), strict=False):
        estimated = [_estimated_row(p) for p in result.estimated if p.board.name == board]
        estimated.sort(key=lambda row: row["fps"])
        rows = [_row(point) for point in built if point["board"] == board]
        traces.append(
            graph_objects.Scatter(
                name=f"{board}, estimated",
                mode="lines+markers",
                line={"dash": "dot", "width": 1, "color": colour},
                marker={"size": 4},
                y=[row["fps"] for row in estimated],
                hovertemplate="%{y:,.0f} frames/s estimated<br>%{x:,.4g}<extra>"
                + board
                + "</extra>",
            )
        )
        columns.append(_columns(estimated))
        traces.append(
            graph_objects.Scatter(
                name=f"{board}, built",
                mode="markers",
                marker={
                    "size": [14 if row["front"] else 9 for row in rows],
                    "color": colour,
                    "symbol": ["diamond" if row["front"] else "circle" for row in rows],
                    "line": {"width": 1, "color": "white"},
                },
                y=[row["fps"] for row in rows],
                text=[_hover(row) for row in rows],
                hovertemplate="%{text}<extra>" + board + "</extra>",
            )
        )
        columns.append(_columns(rows))
    for trace, column in zip(traces, columns, strict=True):
        trace.x = column[AXES[0][0]]
    return as_html(
        graph_objects.Figure(traces),
        {
            label: [column[key] for column in columns]
            for key, label, _ in AXES
            if any(value is not None for column in columns for value in column[key])
        },
        xaxis={"rangemode": "tozero"},
        yaxis={"title": {"text": "frames a second"}, "type": "log"},
    )


def _columns(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each axis; None leaves a point out."""
    table = list(rows)
    return {key: [row.get(key) for row in table] for key, _, _ in AXES}


def _hover(row: dict[str, Any]) -> str:
    lines = [
        f"<b>{row['fps']:,.0f} frames/s</b> at {row['clock']:g} MHz",
        f"{row['cycles']:,} cycles a frame, latency {row['latency']:,.1f} µs",
        f"{row['cells']:,} LUTs ({row['cell_share']:.0f} %), {row['bram']} block RAMs "
        f"({row['bram_share']:.0f} %)",
        row["folding"].replace("<", "&lt;"),
    ]
    if row["uj"] is not None:
        lines.insert(3, f"about {row['uj']:.3g} µJ a frame")
    return "<br>".join(lines)
