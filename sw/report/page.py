"""From a report object to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from xnorflow.report.pipeline import Stage, stages
from xnorflow.report.png import data_uri

__all__ = ["Digit", "render", "write"]

#: Names of resources as people read them.
RESOURCES = {
    "lut": "LUT",
    "ff": "flip-flops",
    "bram": "block RAM",
    "dsp": "multipliers",
    "lc": "logic cells",
    "spram": "SPRAM",
    "io": "pins",
    "pll": "PLL",
}


@dataclass(frozen=True, eq=False)
class Digit:
    """A frame that the report shows.

    Attributes
    ----------
    image : ndarray of uint8, shape (H, W), (H, W, 1) or (H, W, 3)
    label : int or None
        What it is, if known.
    predicted : int
        What the hardware says.
    scores : list of int, or None
        The hardware's scores.
    """

    image: NDArray[np.uint8]
    label: int | None
    predicted: int
    scores: list[int] | None = None


@dataclass(frozen=True)
class Bar:
    """A resource: used and estimated as shares of what is available."""

    name: str
    used: int
    available: int
    estimated: int | None

    @property
    def share(self) -> float:
        """Percentage used."""
        return 100 * self.used / self.available if self.available else 0.0

    @property
    def estimated_share(self) -> float | None:
        """Percentage estimated, at most 100."""
        if self.estimated is None or not self.available:
            return None
        return min(100.0, 100 * self.estimated / self.available)


def render(report: Mapping[str, Any], digits: Sequence[Digit] = ()) -> str:
    """Return the page.

    Parameters
    ----------
    report : mapping
        What `xnorflow.build.build` returns; see docs/report.md. Keys beyond the command line's
        contract may be missing.
    digits : sequence of Digit
        Frames to show with their classes.
    """
    environment = Environment(
        loader=PackageLoader("xnorflow.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["number"] = _number
    environment.filters["picture"] = data_uri
    bars = [
        Bar(RESOURCES.get(name, name), each["used"], each["available"], each.get("estimated"))
        for name, each in report["resources"].items()
    ]
    drawn: list[Stage] = stages(report["layers"])
    verification = report.get("verification")
    return environment.get_template("report.html").render(
        report=report,
        verification=verification,
        verified=verification is not None and not verification["mismatches"],
        accuracy=(report.get("accuracy") or {}).get("accuracy"),
        accuracy_frames=(report.get("accuracy") or {}).get("frames"),
        link=report.get("link"),
        latency_us=report["latency_cycles"] / report["clock_mhz"],
        bars=[bar for bar in bars if bar.available and bar.used],
        unused=[bar.name for bar in bars if not bar.used],
        stages=drawn,
        digits=digits,
        right=sum(digit.predicted == digit.label for digit in digits),
        labelled=any(digit.label is not None for digit in digits),
        seconds=report.get("seconds", {}),
        notes=report.get("notes", []),
        command=report.get("command"),
        program=report.get("program"),
    )


def write(report: Mapping[str, Any], path: Path, digits: Sequence[Digit] = ()) -> None:
    """Write the page to `path`; see `render`."""
    path.write_text(render(report, digits), encoding="utf-8")


def _number(value: float | None, digits: int = 0) -> str:
    """Write a number with thousands separators, or a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"
