"""From what the user asks (a board, frames a second) to a folding and a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from typing import Any

from xnorflow.boards.board import Board
from xnorflow.cost import FAMILIES, Cost, Family, link_cost
from xnorflow.errors import UserError, WorkFailed
from xnorflow.estimate import estimate_core
from xnorflow.folding import Folding, check_folding, read_folding
from xnorflow.lowered import LoweredNetwork
from xnorflow.pipeline import cycles_per_frame, pipeline
from xnorflow.search import Budget, Found, least, quickest, smallest
from xnorflow.search import fastest as fastest_folding
from xnorflow.timing import latency_cycles

__all__ = ["ASSUMED_CLOCK_MHZ", "DEFAULT_FPS", "Plan", "core_budget", "plan"]

#: Clock that a target is turned into cycles with when no board is given, MHz.
ASSUMED_CLOCK_MHZ = 100.0

#: Target in frames a second when the user gives none.
DEFAULT_FPS = 10_000.0

#: Share of a device's LUTs that a design may take and still be placed and routed, by family; block
#: RAMs may all be taken. On an 85F nextpnr found no legal places for 67 % of the LUTs with 79 % of
#: the flip-flops; 68 % of both with 58 % of the block RAMs were routed, and 41 % with 54 % of the
#: flip-flops and 87 % of the block RAMs. A budget has no flip-flops, so this stays below.
USABLE = {"ice40": 0.92, "ecp5": 0.6}

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
    latency_cycles : int
        From a frame's first beat to its last score, in an idle core.
    costs : dict of str to Cost
        Estimate by layer, with the FIFOs before and in it.
    fifos : dict of str to int
        Beats that the FIFO before a stage holds, by `xnorflow.estimate.fifo_name`.
    notes : tuple of str
        What was assumed.
    link : Cost
        Of the link, the clock and the reset beside the core.
    """

    folding: Folding
    clock_mhz: float
    cycles_per_frame: int
    latency_cycles: int
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


def core_budget(
    board: Board, lowered: LoweredNetwork, shrink: float = 1.0, utilization: float | None = None
) -> Budget:
    """Return what the core may take on `board`: its share of the device, less the link.

    Parameters
    ----------
    board : Board
    lowered : LoweredNetwork
        Whose frames the link holds.
    shrink : float
        Factor on the LUTs, where estimates have proved too low.
    utilization : float, optional
        Share of the device's LUTs and of its block RAMs that the design may take, link included;
        `USABLE` of the LUTs and all block RAMs by default.
    """
    link = link_cost(FAMILIES[board.family], lowered)
    lut_share, bram_share = (
        (USABLE[board.family], 1.0) if utilization is None else (utilization, utilization)
    )
    lut = (board.budget.lut * lut_share - link.cells) * shrink
    bram = int(board.budget.bram * bram_share) - link.bram
    return Budget(lut=max(lut, 1.0), bram=max(bram, 0))


def plan(
    lowered: LoweredNetwork,
    board: Board | None,
    *,
    target_fps: float | None = None,
    folding: str | Path | Mapping[str, Any] | None = None,
    fastest: bool = False,
    min_area: bool = False,
    latency: bool = False,
    utilization: float | None = None,
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
    fastest, min_area, latency : bool
        Take the folding of fewest cycles that fits instead, that of fewest LUTs, or that of least
        latency. With none of the five the target is `DEFAULT_FPS`, or as much of it as fits.
    utilization : float, optional
        See `core_budget`.
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
    if sum((target_fps is not None, folding is not None, fastest, min_area, latency)) > 1:
        raise UserError(
            "give only one of `target_fps`, `folding`, `fastest`, `min_area` and `latency`"
        )
    notes: list[str] = []
    if clock_mhz is not None:
        if not 0 < clock_mhz < inf:
            raise UserError(f"`clock_mhz` is {clock_mhz:g} but must be a positive number of MHz")
        clock = clock_mhz
    elif board is not None:
        clock = board.clock.planned_mhz
    else:
        clock = ASSUMED_CLOCK_MHZ
        notes.append(f"no board given: {clock:g} MHz are assumed")
    family = FAMILIES[board.family if board is not None else "ecp5"]
    budget = UNLIMITED
    if utilization is not None:
        if not 0 < utilization <= 1:
            raise UserError(
                f"`utilization` is {utilization:g} but must be above 0 and at most 1, a share of "
                "the device"
            )
        if board is None:
            raise UserError("`utilization` is a share of a device; give a `board` too")
    if board is not None:
        budget = core_budget(board, lowered, shrink, utilization)

    if isinstance(folding, str | Path):
        chosen = read_folding(folding, lowered, family)
    elif folding is not None:
        chosen = check_folding(folding, lowered, "`folding`", family)
    elif fastest:
        chosen = _noted(fastest_folding(lowered, family, budget), "cycles a frame", notes)
    elif min_area:
        chosen = _noted(least(lowered, family, budget), "LUT", notes)
    elif latency:
        chosen = _noted(quickest(lowered, family, budget), "cycles of latency", notes)
    elif target_fps is not None:
        cycles = _cycles(target_fps, clock)
        try:
            found = smallest(lowered, family, budget, cycles)
        except WorkFailed as error:
            raise WorkFailed(
                f"`target_fps={target_fps:.0f}` at {clock:g} MHz: {error}"
                + _as_fps(lowered, family, budget, clock)
            ) from None
        chosen = _noted(found, None, notes)
    else:
        chosen = _default(lowered, family, budget, clock, notes)
    estimate = estimate_core(family, lowered, chosen)
    lanes = lowered.input.features // pipeline(lowered, chosen)[0].i_beats
    return Plan(
        folding=chosen,
        clock_mhz=clock,
        cycles_per_frame=cycles_per_frame(lowered, chosen),
        latency_cycles=latency_cycles(lowered, chosen),
        costs=estimate.costs,
        fifos=estimate.fifos,
        notes=tuple(notes),
        link=link_cost(family, lowered, lanes),
    )


def _cycles(target_fps: float, clock: float) -> int:
    """Return the cycles that a frame may take."""
    if not 0 < target_fps < inf:
        raise UserError(f"`target_fps` is {target_fps:g} but must be a positive number")
    cycles = int(clock * 1e6 / target_fps)
    if cycles < 1:
        raise UserError(
            f"`target_fps={target_fps:.0f}` cannot be reached: a frame takes at least one "
            f"cycle, so {clock * 1e6:,.0f} is the most at {clock:g} MHz"
        )
    return cycles


def _noted(found: Found, unit: str | None, notes: list[str]) -> Folding:
    """Return what was found, and note how far it may be from the optimum."""
    if not found.proved:
        least_possible = f"no folding takes less than {ceil(found.bound):,} {unit}"
        if unit is None:
            gap = 1 - found.bound / found.value
            least_possible = f"no folding is smaller by more than {max(gap, 0.001):.1%}"
        notes.append(f"the search ended before it was sure of the optimum: {least_possible}")
    return found.folding


def _default(
    lowered: LoweredNetwork, family: Family, budget: Budget, clock: float, notes: list[str]
) -> Folding:
    try:
        found = smallest(lowered, family, budget, int(clock * 1e6 / DEFAULT_FPS))
    except WorkFailed:
        found = fastest_folding(lowered, family, budget)
        notes.append(
            f"no target given, and {DEFAULT_FPS:,.0f} frames/s do not fit: the fastest that does"
        )
        return _noted(found, "cycles a frame", notes)
    notes.append(f"no target given: the smallest folding for {DEFAULT_FPS:,.0f} frames/s")
    return _noted(found, None, notes)


def _as_fps(lowered: LoweredNetwork, family: Family, budget: Budget, clock: float) -> str:
    """Say which target would fit."""
    try:
        best = fastest_folding(lowered, family, budget)
    except WorkFailed:
        return ""
    return f", that is `target_fps={int(clock * 1e6 / best.cycles)}`"
