"""An estimate of the energy of an inference, from what a design takes and how much of it switches.

::

    P         = P_static + f · E_cycle
    E_cycle   = E_clock + activity · E_toggle · (cells + 4 · width · block RAMs)
    per frame = P / frames a second

It is no measurement and no vendor's calculator: take it as right within a factor of
`UNCERTAINTY` either way. It is for comparing foldings and boards with each other.

Static power is the board file's ``[power] static_mw``, which names its source. The coefficients of
what switches were taken from two published measurements:

- iCE40: https://github.com/tinyvision-ai-inc/ice40_power, an iCE40UP5K whose core rail was measured
  at 1.219 V. Between one and eight counters of 28 bits at 12 MHz the current grows by
  641.3 - 613.5 µA over 196 cells: 0.0144 pJ a cell and cycle. A binary counter toggles 2 of its 28
  bits a cycle, which makes 0.20 pJ a toggle. (Its multiplier of 180 cells takes 351 µA, 0.198 pJ a
  cell and cycle, about one toggle of each with the glitches.) Between 6 and 48 MHz a small design
  takes 42.8 µA/MHz more, nearly all of it the clock network: 52 pJ a cycle. With the PLL the line
  through 16 and 48 MHz begins 0.76 mA above the blank design, and the PLL's own rail takes
  0.12 mA: 1.1 mW. The HX8K, of the same 40 nm process and cells, is taken to be alike.
- ECP5: https://github.com/targeted/fpga-reg-power, all flip-flops of a device as one chain that
  toggles every cycle. From 10 to 100 MHz an LFE5U-25F board takes 61.5 to 557.9 mW for 24,288
  flip-flops and a ULX3S with the 85F 176.9 to 2102.1 mW for 83,640: 0.227 and 0.256 pJ a toggle.
  That was measured at the USB plug, so it holds the clock network and the regulators' losses too.

Two things have no source that could be cited, and are assumptions. A block RAM counts as four
toggling cells for each bit of its word, one for the output and three for the array, which makes
6.4 pJ an access on iCE40 and 17 pJ on ECP5. The activity is half a toggle for each cell and cycle
in which its layer works: bits that are as often 0 as 1 and know nothing of their neighbours,
without glitches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xnorflow.boards.board import Board
from xnorflow.planning import Plan

__all__ = ["UNCERTAINTY", "activity", "energy", "planned_energy"]

#: Factor either way within which an estimate is thought to be right.
UNCERTAINTY = 3.0

#: Toggles of a cell in a cycle in which its layer works, if its bits are random.
RANDOM = 0.5

#: Toggling cells that a bit of a block RAM's word counts as.
CELLS_PER_RAM_BIT = 4

FORMULA = (
    "uj_per_frame = (static_mw + dynamic_mw) / fps * 1000; dynamic_mw = pll_mw + clock_mhz * "
    "(clock_pj + activity * toggle_pj * (cells + 4 * bram_width * bram)) / 1000"
)


@dataclass(frozen=True)
class Coefficients:
    """What switching takes in a family.

    Attributes
    ----------
    clock_pj : float
        The clock network, pJ a cycle; 0 where it is part of `toggle_pj`.
    toggle_pj : float
        A cell whose output changes, with the wires that it drives, pJ.
    pll_mw : float
        The PLL, mW; 0 where it is part of the static power.
    source : str
        Where the three come from.
    """

    clock_pj: float
    toggle_pj: float
    pll_mw: float
    source: str


FAMILIES = {
    "ice40": Coefficients(
        52.0, 0.20, 1.1, "measurements of an iCE40UP5K, github.com/tinyvision-ai-inc/ice40_power"
    ),
    "ecp5": Coefficients(
        0.0, 0.24, 0.0, "measurements of LFE5U-25F and -85F, github.com/targeted/fpga-reg-power"
    ),
}


def activity(layers: Iterable[Mapping[str, Any]], cycles_per_frame: int) -> float:
    """Return the mean toggles of a cell in a cycle at the core's full frame rate.

    Parameters
    ----------
    layers : iterable of mapping
        Each with ``cycles`` a frame and ``lut_estimated``, as in the report.
    cycles_per_frame : int
        The core's initiation interval.
    """
    weights = [(max(row["lut_estimated"], 1), row["cycles"]) for row in layers]
    total = sum(lut for lut, _ in weights)
    if not total:
        return RANDOM
    return RANDOM * sum(lut * cycles for lut, cycles in weights) / (total * cycles_per_frame)


def energy(
    board: Board,
    resources: Mapping[str, float],
    *,
    activity: float,
    clock_mhz: float,
    fps: float,
) -> dict[str, Any] | None:
    """Return the estimate as the report has it, or None for a board without ``[power]``.

    Parameters
    ----------
    board : Board
    resources : mapping of str to number
        Used or estimated: ``lut``, ``ff``, ``bram`` and, on iCE40 where it is known, ``lc``.
    activity : float
        See `activity`.
    clock_mhz, fps : float
        Clock of the core, and the frames that it takes a second at that clock. With fewer frames
        the static power is shared by fewer, and a frame takes more.

    Returns
    -------
    dict or None
        ``uj_per_frame`` in microjoules, ``static_mw`` and ``dynamic_mw`` in milliwatts,
        ``activity`` in toggles a cell and cycle, ``uncertainty`` as a factor, ``formula`` and
        ``source``.
    """
    if board.power is None:
        return None
    family = FAMILIES[board.family]
    # A cell is a LUT and a flip-flop with one output that leaves it.
    cells = resources.get("lc") or max(resources.get("lut", 0), resources.get("ff", 0))
    ram_cells = CELLS_PER_RAM_BIT * board.budget.bram_width * resources.get("bram", 0)
    cycle_pj = family.clock_pj + activity * family.toggle_pj * (cells + ram_cells)
    # MHz times pJ are µW.
    dynamic_mw = family.pll_mw + clock_mhz * cycle_pj / 1000
    return {
        "uj_per_frame": (board.power.static_mw + dynamic_mw) * 1000 / fps,
        "static_mw": board.power.static_mw,
        "dynamic_mw": dynamic_mw,
        "activity": activity,
        "uncertainty": UNCERTAINTY,
        "formula": FORMULA,
        "source": f"static: {board.power.source}; dynamic: {family.source}",
    }


def planned_energy(
    board: Board, plan: Plan, layers: Iterable[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return the estimate for a plan, before anything is synthesised.

    Parameters
    ----------
    board : Board
    plan : Plan
        Gives estimated resources, the planned clock and its frames a second.
    layers : iterable of mapping
        See `activity`.
    """
    total = plan.total + plan.link
    resources = {"lut": total.lut, "ff": total.ff, "bram": total.bram}
    if board.family == "ice40":
        resources["lc"] = total.cells
    return energy(
        board,
        resources,
        activity=activity(layers, plan.cycles_per_frame),
        clock_mhz=plan.clock_mhz,
        fps=plan.fps,
    )
