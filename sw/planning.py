"""From what the user asks (a board, frames a second) to a folding and a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorflow.boards.board import Board
from xnorflow.cost import FAMILIES, Cost, Family, estimate, fifo_cost, link_cost
from xnorflow.errors import UserError, WorkFailed
from xnorflow.fifo_sizing import fifo_depths
from xnorflow.folding import Folding, check_folding, read_folding
from xnorflow.lowered import LoweredNetwork
from xnorflow.pipeline import (
    ConverterStage,
    MatrixStage,
    WindowStage,
    cycles_per_frame,
    pipeline,
    segments,
)
from xnorflow.search import Budget
from xnorflow.search import fastest as fastest_folding
from xnorflow.search import smallest as smallest_folding

__all__ = ["ASSUMED_CLOCK_MHZ", "DEFAULT_FPS", "Plan", "core_budget", "plan"]

#: Clock that a target is turned into cycles with when no board is given, MHz.
ASSUMED_CLOCK_MHZ = 100.0

#: Target in frames a second when the user gives none.
DEFAULT_FPS = 10_000.0

#: Share of a device's LUTs that a design may take and still be placed and routed.
USABLE = 0.92

#: Without a board: room for any network that a first look is taken at.
UNLIMITED = Budget(lut=200_000, bram=400)


@dataclass(frozen=True)
class Plan:
    """A folding, and what it is expected to give.

    Attributes
    ----------
    folding : dict of LayerFolding
    clock_mhz : float
        Clock that frames a second were turned into cycles with.
    cycles_per_frame : int
        The core's initiation interval.
    costs : dict of str to Cost
        Estimate by layer, with the FIFOs before and in it.
    fifos : dict of str to int
        Beats that the FIFO before a stage holds, by the stage's name.
    notes : tuple of str
        What was assumed.
    link : Cost
        Of the link, the clock and the reset beside the core.
    """

    folding: Folding
    clock_mhz: float
    cycles_per_frame: int
    costs: dict[str, Cost]
    fifos: dict[str, int]
    notes: tuple[str, ...]
    link: Cost

    @property
    def fps(self) -> float:
        """Frames a second at the planned clock."""
        return self.clock_mhz * 1e6 / self.cycles_per_frame

    @property
    def total(self) -> Cost:
        """Estimated cost of the core."""
        return sum(self.costs.values(), Cost())


def core_budget(board: Board, lowered: LoweredNetwork, shrink: float = 1.0) -> Budget:
    """Return what the core may take on `board`: its share of the device, less the link.

    Parameters
    ----------
    board : Board
    lowered : LoweredNetwork
        Whose frames the link holds.
    shrink : float
        Factor on the LUTs, where estimates have proved too low.
    """
    link = link_cost(FAMILIES[board.family], lowered)
    lut = (board.budget.lut * USABLE - link.cells) * shrink
    return Budget(lut=max(lut, 1.0), bram=max(board.budget.bram - link.bram, 0))


def plan(
    lowered: LoweredNetwork,
    board: Board | None,
    *,
    target_fps: float | None = None,
    folding: str | Path | Mapping[str, Any] | None = None,
    fastest: bool = False,
    clock_mhz: float | None = None,
    shrink: float = 1.0,
) -> Plan:
    """Choose a folding.

    Parameters
    ----------
    lowered : LoweredNetwork
    board : Board or None
        None plans for an ECP5 of any size at `ASSUMED_CLOCK_MHZ`.
    target_fps : float, optional
        Take the smallest folding that reaches it.
    folding : path or mapping, optional
        Take the user's folding instead: a file or its content, see `xnorflow.folding`.
    fastest : bool
        Take the folding of fewest cycles that fits instead. With none of the three the target is
        `DEFAULT_FPS`, or as much of it as fits.
    clock_mhz : float, optional
        Clock to plan with; the board's planned clock by default.
    shrink : float
        See `core_budget`.

    Raises
    ------
    UserError
        If options contradict each other or the target cannot be reached at the clock.
    WorkFailed
        If no folding fits.
    """
    if sum((target_fps is not None, folding is not None, fastest)) > 1:
        raise UserError("give only one of `target_fps`, `folding` and `fastest`")
    notes = []
    if clock_mhz is not None:
        if not 0 < clock_mhz < float("inf"):
            raise UserError(f"`clock_mhz` is {clock_mhz:g} but must be a positive number of MHz")
        clock = clock_mhz
    elif board is not None:
        clock = board.clock.planned_mhz
    else:
        clock = ASSUMED_CLOCK_MHZ
        notes.append(f"no board given: {clock:g} MHz are assumed")
    family = FAMILIES[board.family if board is not None else "ecp5"]
    budget = core_budget(board, lowered, shrink) if board is not None else UNLIMITED

    if isinstance(folding, str | Path):
        chosen = read_folding(folding, lowered, family.bram_latency)
    elif folding is not None:
        chosen = check_folding(folding, lowered, "`folding`", family.bram_latency)
    elif fastest:
        chosen = fastest_folding(lowered, family, budget)
    elif target_fps is not None:
        if not 0 < target_fps < float("inf"):
            raise UserError(f"`target_fps` is {target_fps:g} but must be a positive number")
        cycles = int(clock * 1e6 / target_fps)
        if cycles < 1:
            raise UserError(
                f"`target_fps={target_fps:.0f}` cannot be reached: a frame takes at least one "
                f"cycle, so {clock * 1e6:,.0f} is the most at {clock:g} MHz"
            )
        try:
            chosen, _ = smallest_folding(lowered, family, budget, cycles)
        except WorkFailed as error:
            raise WorkFailed(
                f"`target_fps={target_fps:.0f}` at {clock:g} MHz: {error}"
                + _as_fps(lowered, board, clock, shrink)
            ) from None
    else:
        chosen = _default(lowered, family, budget, clock, notes)
    costs, fifos = estimate(family, lowered, chosen), _fifos(lowered, chosen)
    for layer, _, words, width in fifos:
        costs[layer] += fifo_cost(family, width, words)
    lanes = lowered.input.features // pipeline(lowered, chosen)[0].i_beats
    return Plan(
        folding=chosen,
        clock_mhz=clock,
        cycles_per_frame=cycles_per_frame(lowered, chosen),
        costs=costs,
        fifos={name: words for _, name, words, _ in fifos},
        notes=tuple(notes),
        link=link_cost(family, lowered, lanes),
    )


def _fifos(lowered: LoweredNetwork, folding: Folding) -> list[tuple[str, str, int, int]]:
    """Return layer, stage, beats and bits of a beat of every FIFO."""
    depths = iter(fifo_depths(pipeline(lowered, folding)))
    result, lanes, bits = [], 1, lowered.input.bits
    before: int | None = None
    for segment in segments(lowered):
        for stage in segment.stages(folding[segment.layer.name], before):
            depth = next(depths)
            if isinstance(stage, ConverterStage | WindowStage):
                bits = stage.bits
            elif isinstance(stage, MatrixStage):
                bits = stage.layer.input_bits
            if depth:
                result.append((segment.layer.name, stage.name, depth, lanes * bits))
            lanes = before = stage.o_lanes
    return result


def _default(
    lowered: LoweredNetwork, family: Family, budget: Budget, clock: float, notes: list[str]
) -> Folding:
    try:
        folding, _ = smallest_folding(lowered, family, budget, int(clock * 1e6 / DEFAULT_FPS))
        notes.append(f"no target given: the smallest folding for {DEFAULT_FPS:,.0f} frames/s")
    except WorkFailed:
        folding = fastest_folding(lowered, family, budget)
        notes.append(
            f"no target given, and {DEFAULT_FPS:,.0f} frames/s do not fit: the fastest that does"
        )
    return folding


def _as_fps(lowered: LoweredNetwork, board: Board | None, clock: float, shrink: float) -> str:
    """Say which target would fit."""
    try:
        best = plan(lowered, board, fastest=True, clock_mhz=clock, shrink=shrink)
    except WorkFailed:
        return ""
    return f", that is `target_fps={int(best.fps)}`"
