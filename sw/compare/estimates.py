"""Models that were not built: a plan for a board, in the form of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xnorflow.boards.board import Board
from xnorflow.compare.table import Column, plain
from xnorflow.energy import planned_energy
from xnorflow.folding import folding_json
from xnorflow.lowered import LoweredNetwork
from xnorflow.planning import plan
from xnorflow.results import layer_results, shortcut_results

__all__ = ["Wanted", "estimated"]


@dataclass(frozen=True)
class Wanted:
    """What a folding is chosen by.

    Attributes
    ----------
    name : str
        As a label has it, such as ``max``.
    arguments : dict
        Of `xnorflow.planning.plan`.
    """

    name: str
    arguments: dict[str, Any]


def estimated(
    lowered: LoweredNetwork,
    board: Board | None,
    wanted: Wanted,
    *,
    utilization: float | None = None,
    accuracy: dict[str, Any] | None = None,
    source: str = "",
) -> Column:
    """Choose a folding and estimate what it takes; nothing is synthesised.

    Parameters
    ----------
    lowered : LoweredNetwork
    board : Board or None
        See `xnorflow.planning.plan`.
    wanted : Wanted
    utilization : float, optional
        See `xnorflow.planning.plan`.
    accuracy : dict, optional
        As in a report, where it is known.
    source : str
        The model file.

    Returns
    -------
    Column
        Its report has the keys of ``report.json`` that can be known; ``used`` is null throughout.

    Raises
    ------
    UserError
        If an argument is wrong.
    WorkFailed
        If no folding fits.
    """
    planned = plan(lowered, board, utilization=utilization, **wanted.arguments)
    layers = layer_results(lowered, planned)
    total = planned.total + planned.link
    costs = {"lut": total.lut, "ff": total.ff, "bram": total.bram, "dsp": total.dsp}
    if board is not None and board.family == "ice40":
        costs["lc"] = total.cells
    resources: dict[str, Any] = {}
    for name, cost in costs.items():
        available = None
        if board is not None:
            # A logic cell holds a LUT.
            available = getattr(board.budget, "lut" if name == "lc" else name)
        resources[name] = {"used": None, "available": available, "estimated": round(cost)}
    report = {
        "model": lowered.name,
        "digest": lowered.digest(),
        "board": None if board is None else board.name,
        "device": None if board is None else board.device,
        "known_from": "estimate",
        "clock_mhz": planned.clock_mhz,
        "fmax_mhz": None,
        "cycles_per_frame": planned.cycles_per_frame,
        "latency_cycles": planned.latency_cycles,
        "latency_us": planned.latency_cycles / planned.clock_mhz,
        "fps": planned.fps,
        "target_fps": wanted.arguments.get("target_fps"),
        "energy": None if board is None else planned_energy(board, planned, layers),
        "resources": resources,
        "layers": layers,
        "folding": folding_json(planned.folding),
        "fifos": planned.fifos,
        "shortcuts": shortcut_results(lowered, planned),
        "verification": None,
        "accuracy": accuracy,
        "seconds": {},
        "notes": list(planned.notes),
    }
    return Column(report=report, source=plain(source), known_from="estimate", variant=wanted.name)
