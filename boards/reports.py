"""Reading what the tools report as data: `yosys stat -json` and `nextpnr --report`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from xnorflow.boards.board import Board

__all__ = ["PNRReport", "Usage", "mapped", "placed", "read_report", "read_stat", "usage_lines"]

NEXTPNR = {
    "ice40": {
        "lc": "ICESTORM_LC",
        "bram": "ICESTORM_RAM",
        "dsp": "ICESTORM_DSP",
        "spram": "ICESTORM_SPRAM",
        "io": "SB_IO",
        "pll": "ICESTORM_PLL",
    },
    "ecp5": {
        "lut": "TRELLIS_COMB",
        "ff": "TRELLIS_FF",
        "bram": "DP16KD",
        "dsp": "MULT18X18D",
        "io": "TRELLIS_IO",
        "pll": "EHXPLLL",
    },
}
"""nextpnr's names of the resources, by family.

An iCE40 logic cell (lc) is a LUT, a carry and a flip-flop that can be used apart; nextpnr counts
cells only, so LUTs and flip-flops come from yosys there.
"""


@dataclass(frozen=True)
class Usage:
    """How many of a resource a design takes and how many there are."""

    used: int
    available: int


@dataclass(frozen=True)
class PNRReport:
    """What nextpnr reports.

    Attributes
    ----------
    clocks : dict of str to (float, float)
        By clock net: the frequency reached and the one asked for, MHz.
    cells : dict of str to Usage
        By nextpnr's name of the cell.
    """

    clocks: dict[str, tuple[float, float]]
    cells: dict[str, Usage]

    @property
    def fmax_mhz(self) -> float:
        """The frequency that the slowest clock reached, MHz; our top level has one clock."""
        return min(reached for reached, _ in self.clocks.values())


def read_stat(text: str) -> dict[str, int]:
    """Return the number of cells by type from the output of `yosys stat -json`.

    Raises
    ------
    ValueError
        If `text` is something else.
    """
    try:
        cells = json.loads(text)["design"]["num_cells_by_type"]
        return {str(kind): int(count) for kind, count in cells.items()}
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a report of `yosys stat -json`: {error}") from None


def read_report(text: str) -> PNRReport:
    """Return the content of a file that `nextpnr --report` wrote.

    Raises
    ------
    ValueError
        If `text` is something else.
    """
    try:
        data = json.loads(text)
        clocks = {
            name: (float(each["achieved"]), float(each["constraint"]))
            for name, each in data["fmax"].items()
        }
        cells = {
            name: Usage(each["used"], each["available"])
            for name, each in data["utilization"].items()
        }
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a report of nextpnr: {error}") from None
    return PNRReport(clocks, cells)


def usage_lines(log: str) -> dict[str, Usage]:
    """Return the utilisation table of a nextpnr log: all there is when placement failed."""
    found = re.findall(r"^Info:\s+([A-Z]\w+):\s*(\d+)/\s*(\d+)\s+\d+%", log, re.MULTILINE)
    return {name: Usage(int(used), int(available)) for name, used, available in found}


def mapped(cells: Mapping[str, int], board: Board) -> dict[str, Usage]:
    """Return what a mapped netlist takes at the least, before placement.

    Parameters
    ----------
    cells : mapping of str to int
        From :func:`read_stat`.
    board : Board
        Gives family and budget.
    """
    budget = board.budget

    def count(*kinds: str) -> int:
        return sum(cells.get(kind, 0) for kind in kinds)

    if board.family == "ice40":
        used = {
            "lut": count("SB_LUT4"),
            "ff": sum(n for kind, n in cells.items() if kind.startswith("SB_DFF")),
            "bram": sum(n for kind, n in cells.items() if kind.startswith("SB_RAM40_4K")),
            "dsp": count("SB_MAC16"),
        }
    else:
        used = {
            # A CCU2C is two LUTs with a carry; a 16×4 LUT RAM takes four for data, two to write.
            "lut": count("LUT4") + 2 * count("CCU2C") + 6 * count("TRELLIS_DPR16X4"),
            "ff": count("TRELLIS_FF"),
            "bram": count("DP16KD", "PDPW16KD"),
            "dsp": count("MULT18X18D"),
        }
    return {name: Usage(number, getattr(budget, name)) for name, number in used.items()}


def placed(
    placed_cells: Mapping[str, Usage], mapped_cells: Mapping[str, int], board: Board
) -> dict[str, Usage]:
    """Return what a placed design takes of each resource.

    What is available is the board's budget or what nextpnr knows of, whichever is less.

    Parameters
    ----------
    placed_cells : mapping of str to Usage
        From a :class:`PNRReport` or :func:`usage_lines`.
    mapped_cells : mapping of str to int
        From :func:`read_stat`.
    board : Board
        Gives family and budget.
    """
    budgets = {
        "lut": board.budget.lut,
        "lc": board.budget.lut,
        "ff": board.budget.ff,
        "bram": board.budget.bram,
        "dsp": board.budget.dsp,
        "io": board.budget.io,
        "spram": board.budget.spram,
    }
    usage = mapped(mapped_cells, board)
    for name, cell in NEXTPNR[board.family].items():
        if cell in placed_cells:
            each = placed_cells[cell]
            usage[name] = Usage(each.used, min(each.available, budgets.get(name, each.available)))
    return usage
