"""The page of a study: a plot of accuracy against flips, and tables."""

from __future__ import annotations

from xnorflow.faults.output import critical
from xnorflow.faults.study import Point, Series, Study
from xnorflow.report.plots import COLOURS, as_html
from xnorflow.report.templates import environment

__all__ = ["render"]

#: Marks of the series, so that colours are not needed to tell them apart.
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "x", "star")

#: Lines of the series, when all colours have been used once, twice, and so on.
DASHES = ("solid", "dash", "dot", "dashdot")


def render(study: Study) -> str:
    """Return the page: HTML that needs no network."""
    return (
        environment()
        .get_template("faults.html")
        .render(study=study, plot=_plot(study), critical=critical)
    )


def _plot(study: Study) -> str:
    """Return the plot as HTML with its script."""
    # Plotly takes a second to import, which other commands need not wait for.
    from plotly import graph_objects

    traces = []
    shares: list[list[float]] = []
    flips: list[list[int]] = []
    for number, series in enumerate(study.series):
        turn, colour = divmod(number, len(COLOURS))
        # A logarithmic axis has no place for no flips.
        points = [point for point in series.points if point.flips]
        shares.append([100 * point.share for point in points])
        flips.append([point.flips for point in points])
        means = [100 * point.mean for point in points]
        lows = [100 * (p.interval[0] if p.interval else p.mean) for p in points]
        highs = [100 * (p.interval[1] if p.interval else p.mean) for p in points]
        traces.append(
            graph_objects.Scatter(
                name=series.name,
                mode="lines+markers",
                line={"color": COLOURS[colour], "width": 2, "dash": DASHES[turn % len(DASHES)]},
                marker={"size": 8, "symbol": SYMBOLS[(colour + turn) % len(SYMBOLS)]},
                x=shares[-1],
                y=means,
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - mean for high, mean in zip(highs, means, strict=True)],
                    "arrayminus": [mean - low for low, mean in zip(lows, means, strict=True)],
                    "thickness": 1,
                },
                text=[_hover(series, point) for point in points],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure = graph_objects.Figure(traces)
    for level, text, dash in (
        (study.fault_free, "without faults", "dash"),
        (study.chance, "a guess", "dot"),
    ):
        figure.add_hline(
            y=100 * level,
            line={"dash": dash, "width": 1, "color": "#55606b"},
            annotation={"text": text, "font": {"color": "#55606b"}},
            annotation_position="bottom left",
        )
    return as_html(
        figure,
        {"share of the bits flipped, %": shares, "flipped bits": flips},
        xaxis={"type": "log", "exponentformat": "power", "dtick": 1},
        yaxis={"title": {"text": f"{study.metric}, %"}, "range": [0, 102]},
    )


def _hover(series: Series, point: Point) -> str:
    name = series.name.replace("&", "&amp;").replace("<", "&lt;")
    per = " in each frame" if series.transient else ""
    lines = [
        f"<b>{100 * point.mean:.2f} %</b> with {point.flips:,} flips{per}",
        f"{name}, {100 * point.share:.3g} % of {series.bits:,} bits",
        f"{100 * min(point.values):.2f} % to {100 * max(point.values):.2f} % in "
        f"{len(point.values)} trials",
    ]
    return "<br>".join(lines)
