"""Carry chains of ECP5 without the slices to enter and to leave them.

nextpnr gives every chain a slice for the carry that comes in, if only a constant, and one for that
which goes out, if something is wired to it. A chain of `xnorflow.hw.carry_chain` ignores the one
and has no use for the other; ABC9 of yosys connects both.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["free_chain_ends"]

#: What stands for a bit that nothing is connected to.
NOTHING = "x"


def free_chain_ends(design: dict[str, Any]) -> int:
    """Disconnect the ends of chains that ignore what is carried into them.

    Parameters
    ----------
    design : dict
        A netlist of ECP5 cells, as yosys' ``write_json`` makes it; changed in place.

    Returns
    -------
    int
        How many chains.
    """
    chains = 0
    for module in design["modules"].values():
        cells = [cell for cell in module["cells"].values() if cell["type"] == "CCU2C"]
        for cell in cells:
            # yosys may leave out what is not connected, which nextpnr does not take.
            for port, direction in (("CIN", "input"), ("COUT", "output"), ("S0", "output")):
                cell["connections"].setdefault(port, [NOTHING])
                cell["port_directions"].setdefault(port, direction)
        readers: Counter[Any] = Counter(
            bit
            for cell in module["cells"].values()
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "input"
            for bit in bits
            if bit != NOTHING
        )
        for outer in module["ports"].values():
            readers.update(outer["bits"])
        follower = {cell["connections"]["CIN"][0]: cell for cell in cells}
        for cell in cells:
            if not _ignores_carry(cell, readers):
                continue
            chains += 1
            cell["connections"]["CIN"] = [NOTHING]
            end: dict[str, Any] = cell
            while _out(end) in follower and readers[_out(end)] == 1:
                end = follower[_out(end)]
            if _out(end) != NOTHING and not readers[_out(end)]:
                end["connections"]["COUT"] = [NOTHING]
    return chains


def _out(cell: dict[str, Any]) -> Any:
    return cell["connections"]["COUT"][0]


def _ignores_carry(cell: dict[str, Any], readers: Counter[Any]) -> bool:
    """Return whether a cell starts a chain, and neither a sum nor a carry depends on its carry."""
    pins, parameters = cell["connections"], cell["parameters"]
    if pins["CIN"][0] not in ("0", "1", NOTHING) or parameters["INJECT1_0"] != "NO":
        return False
    init = parameters["INIT0"]
    init = int(init, 2) if isinstance(init, str) else init
    # With D = 1 the LUT gives 0: nothing propagates.
    propagates = init >> 8 or pins["D0"][0] != "1"
    return not propagates and not readers[pins["S0"][0]]
