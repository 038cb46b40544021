"""What interactive plots have in common: colours, frame, the menu of what the axis shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["COLOURS", "as_html", "framed"]

#: Colours that differ to people who see few colours (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def as_html(
    figure: Any,
    choices: Mapping[str, Sequence[Any]],
    *,
    xaxis: Mapping[str, Any],
    yaxis: Mapping[str, Any],
) -> str:
    """Return a figure as HTML with its script, and a menu above it.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
    choices : mapping of str to sequence
        What the horizontal axis can show: its title, and the values of every trace. The first one
        is shown at first.
    xaxis, yaxis : mapping
        Layout of the axes; the menu gives the horizontal one its title.
    """
    buttons = [
        {"label": label, "method": "update", "args": [{"x": x}, {"xaxis.title.text": label}]}
        for label, x in choices.items()
    ]
    figure.update_layout(
        xaxis={"title": {"text": next(iter(choices))}, **xaxis},
        yaxis=yaxis,
        legend={"orientation": "h", "y": -0.2},
        updatemenus=[
            {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        ],
    )
    return framed(figure)


def framed(figure: Any) -> str:
    """Return a figure as HTML with its script, as large as the page has room for."""
    figure.update_layout(
        template="plotly_white", height=560, margin={"l": 60, "r": 10, "t": 50, "b": 50}
    )
    # The bar of buttons would lie on the menu of a narrow page.
    config = {"responsive": True, "displayModeBar": False}
    html: str = figure.to_html(full_html=False, include_plotlyjs=True, config=config)
    return html
