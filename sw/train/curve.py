"""The curve of a training as a page: loss and validation accuracy by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from xnorflow.report.plots import COLOURS

__all__ = ["curve_page"]


def curve_page(title: str, epochs: Sequence[Mapping[str, float]]) -> str:
    """Return the page: HTML that needs no network.

    Parameters
    ----------
    title : str
    epochs : sequence of mapping
        ``epoch``, ``loss`` and ``validation_accuracy`` (0..1) of each.
    """
    numbers = [epoch["epoch"] for epoch in epochs]
    lines = (
        ("training loss", [epoch["loss"] for epoch in epochs], "y"),
        ("validation accuracy, %", [100 * e["validation_accuracy"] for e in epochs], "y2"),
    )
    figure = go.Figure(
        [
            go.Scatter(
                x=numbers,
                y=values,
                yaxis=axis,
                name=name,
                mode="lines+markers",
                line={"color": colour},
            )
            for (name, values, axis), colour in zip(lines, COLOURS, strict=False)
        ]
    )
    figure.update_layout(
        title={"text": title, "font": {"size": 14}},
        template="plotly_white",
        xaxis={"title": {"text": "epoch"}, "dtick": max(1, len(numbers) // 10)},
        yaxis={"title": {"text": lines[0][0]}, "rangemode": "tozero"},
        yaxis2={"title": {"text": lines[1][0]}, "overlaying": "y", "side": "right"},
        legend={"orientation": "h", "y": -0.2},
    )
    html: str = figure.to_html(include_plotlyjs=True, config={"displayModeBar": False})
    return html
