"""Which results no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["on_front"]


def on_front(reports: Sequence[dict[str, Any]]) -> list[bool]:
    """Say of each built point whether it is on the front of its board.

    It is if no other point of the board is at least as good in frames a second, LUTs (logic cells
    on iCE40) and block RAMs, and better in one of them.

    Parameters
    ----------
    reports : sequence of dict
        Objects of ``report.json``.
    """
    merits = [_merit(report) for report in reports]
    return [
        not any(
            other["board"] == report["board"]
            and all(theirs >= ours for theirs, ours in zip(merits[j], merits[i], strict=True))
            and merits[j] != merits[i]
            for j, other in enumerate(reports)
        )
        for i, report in enumerate(reports)
    ]


def _merit(report: dict[str, Any]) -> tuple[float, float, float]:
    """Return what is better the larger it is."""
    resources = report["resources"]
    cells = resources.get("lc", resources["lut"])["used"]
    return report["fps"], -cells, -resources["bram"]["used"]
