"""From a report object to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnorflow.report.charts import RESOURCES, ScoreChart, resource_bars, step_bars
from xnorflow.report.pipeline import stages
from xnorflow.report.png import data_uri
from xnorflow.report.shortcuts import arcs
from xnorflow.report.templates import environment

__all__ = ["Digit", "render", "write"]

#: Keys that the template reads as they are, None where the report lacks them.
PLAIN = (
    *("model", "digest", "board", "device", "bitstream", "clock_mhz", "fmax_mhz"),
    *("cycles_per_frame", "latency_cycles", "fps", "target_fps", "verification", "link"),
    *("command", "program", "fast", "energy", "seed"),
)


@dataclass(frozen=True, eq=False)
class Digit:
    """A frame that the report shows.

    Attributes
    ----------
    image : ndarray of uint8, shape (H, W) or (H, W, C)
    label : int or None
        What it is, if known.
    predicted : int
        What the hardware says.
    scores : list of int, or None
        The hardware's scores, one a class.
    """

    image: NDArray[np.uint8]
    label: int | None
    predicted: int
    scores: list[int] | None = None

    @property
    def wrong(self) -> bool:
        """Whether the prediction is known to be wrong."""
        return self.label is not None and self.label != self.predicted

    @property
    def chart(self) -> ScoreChart | None:
        """The scores as they are drawn."""
        return ScoreChart.of(self.scores, self.predicted, self.label) if self.scores else None


def render(report: Mapping[str, Any], digits: Sequence[Digit] = ()) -> str:
    """Return the page: HTML, and XML too, that needs no network and no script.

    Parameters
    ----------
    report : mapping
        The ``build`` object of the command line; see docs/report.md. Any key may be missing, and
        the page then says what is not known.
    digits : sequence of Digit
        Frames to show with their classes.
    """
    pages = environment()
    pages.filters["number"] = _number
    pages.filters["rough"] = _rough
    pages.filters["picture"] = data_uri
    layers = report.get("layers") or []
    bars = resource_bars(report.get("resources") or {})
    seconds = report.get("seconds") or {}
    # Arrows lead from each box of the main way to the next one, and those of shortcuts follow.
    drawn = sorted(layers, key=lambda layer: layer.get("on_shortcut", False))
    shortcuts, cells, above = arcs(
        report.get("shortcuts") or [], [layer["name"] for layer in drawn]
    )
    labelled = [digit for digit in digits if digit.label is not None]
    return pages.get_template("report.html").render(
        {key: report.get(key) for key in PLAIN},
        latency_us=_latency_us(report),
        accuracy=report.get("accuracy") or {},
        bars=[bar for bar in bars if bar.used],
        unused=[bar for bar in bars if not bar.used],
        core_resources={
            RESOURCES.get(name, name): used
            for name, used in (report.get("core_resources") or {}).items()
            if used
        },
        layers=layers,
        stages=stages(drawn, report.get("cycles_per_frame")),
        shortcuts=shortcuts,
        cells=cells,
        above=above,
        digits=digits,
        labelled=len(labelled),
        scored=any(digit.scores for digit in digits),
        right=sum(not digit.wrong for digit in labelled),
        tools=report.get("tools") or {},
        steps=step_bars(seconds),
        total_seconds=sum(seconds.values()),
        attempts=report.get("attempts") or [],
        seeds=report.get("seeds") or [],
        notes=report.get("notes") or [],
    )


def write(report: Mapping[str, Any], path: Path, digits: Sequence[Digit] = ()) -> None:
    """Write the page to `path`; see `render`."""
    # A file name in the command may hold bytes that are no UTF-8.
    path.write_text(render(report, digits), encoding="utf-8", errors="replace")


def _latency_us(report: Mapping[str, Any]) -> float | None:
    """Return the latency in microseconds, from cycles and clock unless the report says it."""
    said: float | None = report.get("latency_us")
    cycles, clock_mhz = report.get("latency_cycles"), report.get("clock_mhz")
    if said is None and cycles is not None and clock_mhz:
        return float(cycles / clock_mhz)
    return said


def _rough(value: float) -> str:
    """Write an estimate with two significant digits, since it has no more."""
    return f"{float(f'{value:.2g}'):,g}"


def _number(value: float | None, digits: int | None = None) -> str:
    """Write a number with thousands separators, or a dash for None.

    With `digits` None a whole number is written as it is, another with four significant digits.
    """
    if value is None:
        return "–"
    if digits is None:
        digits = 0 if value == int(value) else max(0, 3 - floor(log10(abs(value))))
    return f"{value:,.{digits}f}"
