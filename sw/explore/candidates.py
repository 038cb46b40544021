"""The estimated front of a network on some boards, and the points of it that are worth building."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from xnorflow.boards.board import Board
from xnorflow.energy import planned_energy
from xnorflow.errors import UserError, WorkFailed
from xnorflow.explore.points import Point
from xnorflow.folding import folding_json
from xnorflow.lowered import LoweredNetwork
from xnorflow.planning import Plan, plan
from xnorflow.results import layer_results

__all__ = ["choose", "estimated_front"]

#: Factor between the targets that are tried, from the fastest down.
STEP = 2**-0.25

#: Targets in a row that may give the same folding before it counts as the smallest.
PATIENCE = 24


def estimated_front(
    lowered: LoweredNetwork,
    board: Board,
    *,
    clock_mhz: float | None = None,
    seeds: Sequence[int] = (1,),
    frames: int = 1,
) -> list[Point]:
    """Return the foldings between the fastest that fits a board and the smallest of all.

    Each is the smallest, by the estimate, of those that are at least as fast.

    Parameters
    ----------
    lowered : LoweredNetwork
    board : Board
    clock_mhz : float, optional
        A clock to build for, instead of the one that a design reaches.
    seeds : sequence of int
        Every folding occurs once with each.
    frames : int
        See `Point`.

    Returns
    -------
    list of Point
        From the fastest to the smallest; empty if none fits.
    """
    try:
        fastest = plan(lowered, board, fastest=True, clock_mhz=clock_mhz)
    except WorkFailed:
        return []
    plans, target, same = [fastest], fastest.fps, 0
    while same < PATIENCE and target >= 1:
        target *= STEP
        # The fastest may be larger than needed: only what is not larger takes a place.
        found = plan(lowered, board, target_fps=target, clock_mhz=clock_mhz)
        if found.folding == plans[-1].folding:
            same += 1
        else:
            plans.append(found)
            same = 0
    return [
        _point(lowered, board, one, clock_mhz, seed, frames)
        for one in _undominated(plans)
        for seed in seeds
    ]


def _undominated(plans: Iterable[Plan]) -> list[Plan]:
    """Return the plans that no faster one undercuts in both cells and block RAMs."""
    kept: list[Plan] = []
    for one in sorted(plans, key=lambda p: (-p.fps, p.total.cells, p.total.bram)):
        beaten = any(
            other.total.cells <= one.total.cells and other.total.bram <= one.total.bram
            for other in kept
        )
        if not beaten:
            kept.append(one)
    return kept


def _point(
    lowered: LoweredNetwork,
    board: Board,
    one: Plan,
    clock_mhz: float | None,
    seed: int,
    frames: int,
) -> Point:
    power = planned_energy(board, one, layer_results(lowered, one))
    whole = one.total + one.link
    return Point(
        digest=lowered.digest(),
        board=board,
        folding=folding_json(one.folding),
        seed=seed,
        clock_mhz=clock_mhz,
        frames=frames,
        estimated={
            "fps": one.fps,
            "cycles_per_frame": one.cycles_per_frame,
            "lut": round(whole.lut),
            "cells": round(whole.cells),
            "ff": round(whole.ff),
            "bram": whole.bram,
            **({} if power is None else {"uj": power["uj_per_frame"]}),
        },
    )


def choose(fronts: Sequence[Sequence[Point]], budget: int) -> list[Point]:
    """Choose points to build, spread evenly along each front.

    Parameters
    ----------
    fronts : sequence of sequences of Point
        One a board, each from the fastest to the smallest.
    budget : int
        Most points in all; boards share it evenly, and one whose front is short leaves the rest
        to the others.

    Returns
    -------
    list of Point
        The ends of every front first, as far as the budget goes.

    Raises
    ------
    UserError
        If the budget is below 1.
    """
    if budget < 1:
        raise UserError(f"`budget` is {budget} but must be at least 1")
    orders = [[front[i] for i in _spread(len(front))] for front in fronts]
    chosen: list[Point] = []
    for rank in range(max(map(len, orders), default=0)):
        chosen += [order[rank] for order in orders if rank < len(order)]
    return chosen[:budget]


def _spread(count: int) -> list[int]:
    """Return indices in an order whose every beginning is spread out: ends, then the middles."""
    order = [0, count - 1] if count > 1 else list(range(count))
    while len(order) < count:
        taken = sorted(order)
        gaps = [(right - left, left) for left, right in pairwise(taken)]
        width, left = max(gaps, key=lambda gap: (gap[0], -gap[1]))
        order.append(left + width // 2)
    return order
