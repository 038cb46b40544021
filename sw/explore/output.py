"""What an exploration leaves: a table for programs and spreadsheets, and a page for people."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from xnorflow.errors import UserError
from xnorflow.explore.page import render
from xnorflow.explore.session import Exploration

__all__ = ["COLUMNS", "folder_for", "row", "write_results"]

#: Columns of ``points.csv``, with their units.
COLUMNS = (
    *("model", "board", "front", "failed", "fps", "clock_mhz", "fmax_mhz", "cycles_per_frame"),
    *("latency_us", "lut", "ff", "lc", "bram", "dsp", "uj_per_frame", "seed", "seconds"),
    *("estimated_fps", "estimated_lut", "estimated_bram", "folding", "key", "folder"),
)


def folder_for(path: str | Path) -> Path:
    """Return a folder to write results into, made if need be.

    Raises
    ------
    UserError
        If it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output {folder} cannot be made ({error.strerror}); give another folder with `output`"
        ) from None
    return folder


def row(model: str, point: dict[str, Any]) -> dict[str, Any]:
    """Return a point as a row of `COLUMNS`; what it does not have is left out."""
    asked = point["point"]
    values: dict[str, Any] = {
        "model": model,
        "seed": asked["seed"],
        "folding": json.dumps(asked["folding"], sort_keys=True),
        **{f"estimated_{name}": asked["estimated"][name] for name in ("fps", "lut", "bram")},
        **{name: point.get(name) for name in COLUMNS if isinstance(point.get(name), int | float)},
        **{name: point.get(name) for name in ("board", "front", "failed", "key", "folder")},
    }
    for name, usage in point.get("resources", {}).items():
        values[name] = usage["used"]
    if point.get("energy"):
        values["uj_per_frame"] = point["energy"]["uj_per_frame"]
    if "seconds" in point:
        values["seconds"] = round(sum(point["seconds"].values()), 1)
    return {name: values[name] for name in COLUMNS if values.get(name) is not None}


def write_results(result: Exploration, folder: Path) -> Path:
    """Write ``points.csv``, ``points.json`` and ``explore.html``; return the page's path."""
    with (folder / "points.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(row(result.model, point) for point in result.points)
    content = {"model": result.model, "points": result.points}
    (folder / "points.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    page = folder / "explore.html"
    page.write_text(render(result), encoding="utf-8")
    return page
