"""The curve of a training as a page: loss and validation accuracy by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plotly import graph_objects
from plotly.subplots import make_subplots

from xnorflow.report.plots import COLOURS, framed
from xnorflow.report.templates import environment

__all__ = ["curve_page"]


def curve_page(
    name: str,
    summary: str,
    epochs: Sequence[Mapping[str, float]],
    *,
    best: int,
    test_accuracy: float,
    seed: int,
) -> str:
    """Return the page: HTML that needs no network.

    Parameters
    ----------
    name, summary : str
        Of the recipe.
    epochs : sequence of mapping
        ``epoch``, ``loss`` and ``validation_accuracy`` (0..1) of each.
    best : int
        Number of the epoch that was kept.
    test_accuracy : float
        Of that one, 0..1.
    seed : int
    """
    return (
        environment()
        .get_template("curve.html")
        .render(
            name=name,
            summary=summary,
            epochs=epochs,
            best=best,
            kept=next(epoch for epoch in epochs if epoch["epoch"] == best),
            test_accuracy=test_accuracy,
            seed=seed,
            plot=_plot(epochs, best),
        )
    )


def _plot(epochs: Sequence[Mapping[str, float]], best: int) -> str:
    """Return both curves, one above the other, as HTML with its script."""
    numbers = [epoch["epoch"] for epoch in epochs]
    curves = (
        ("validation accuracy, %", [100 * epoch["validation_accuracy"] for epoch in epochs]),
        ("training loss", [epoch["loss"] for epoch in epochs]),
    )
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06)
    for row, ((name, values), colour) in enumerate(zip(curves, COLOURS, strict=False), 1):
        trace = graph_objects.Scatter(
            x=numbers,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 6},
            hovertemplate="epoch %{x}: %{y:.4g}<extra></extra>",
        )
        figure.add_trace(trace, row=row, col=1)
        figure.update_yaxes(title={"text": name}, row=row, col=1)
    figure.add_vline(x=best, line={"dash": "dash", "width": 1, "color": "#55606b"})
    # Half an epoch beside the ends, so that no marker is cut; whole epochs, about ten of them.
    figure.update_xaxes(range=[0.5, len(numbers) + 0.5], dtick=max(1, -(-len(numbers) // 10)))
    figure.update_xaxes(title={"text": "epoch"}, row=2, col=1)
    figure.update_yaxes(rangemode="tozero", row=2, col=1)
    figure.update_layout(showlegend=False)
    return framed(figure)
