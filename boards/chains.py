"""Carry chains of ECP5 without what nextpnr spends on constants and on their ends.

nextpnr gives every chain a slice for the carry that comes in, if only a constant, and one for that
which goes out, if something is wired to it. A chain of `xnorflow.hw.carry_chain` ignores the one
and has no use for the other; ABC9 of yosys connects both.

A pin of a carry cell that is 0 is wired to a LUT somewhere that gives 0, by the thousand in a large
design (nextpnr 0.11, `set_net_constant` in ``ecp5/pack.cc``): those nets alone crowd the routing.
One that is 1 needs no wire, since that is what a pin without one is.
"""

from __future__ import annotations

from typing import Any

from xnorflow.boards.netlist import Netlist, Reader, readers, table

__all__ = ["free_chain_ends", "raise_low_pins"]

#: What stands for a bit that nothing is connected to.
NOTHING = "x"


def free_chain_ends(design: Netlist) -> int:
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
        reading = readers(module)
        reading[NOTHING] = []
        follower = {cell["connections"]["CIN"][0]: cell for cell in cells}
        for cell in cells:
            if not _ignores_carry(cell, reading):
                continue
            chains += 1
            cell["connections"]["CIN"] = [NOTHING]
            end: Netlist = cell
            while _out(end) in follower and len(reading[_out(end)]) == 1:
                end = follower[_out(end)]
            if _out(end) != NOTHING and not reading[_out(end)]:
                end["connections"]["COUT"] = [NOTHING]
    return chains


def raise_low_pins(design: Netlist) -> int:
    """Connect pins of carry cells that are 0 to 1, with truth tables that expect it.

    Parameters
    ----------
    design : dict
        See `free_chain_ends`.

    Returns
    -------
    int
        How many pins.
    """
    raised = 0
    for module in design["modules"].values():
        for cell in module["cells"].values():
            if cell["type"] != "CCU2C":
                continue
            pins, parameters = cell["connections"], cell["parameters"]
            for half in "01":
                init = table(cell, f"INIT{half}")
                for bit, name in enumerate("ABCD"):
                    if pins.get(name + half) != ["0"]:
                        continue
                    # The LUT gives for a 1 there what it gave for a 0, and so does the half of it
                    # that makes the carry, which takes C and D for 0 whatever their pins are.
                    init = sum((init >> (n & ~(1 << bit)) & 1) << n for n in range(16))
                    pins[name + half] = ["1"]
                    raised += 1
                parameters[f"INIT{half}"] = f"{init:016b}"
    return raised


def _out(cell: Netlist) -> Any:
    return cell["connections"]["COUT"][0]


def _ignores_carry(cell: Netlist, reading: dict[Any, list[Reader]]) -> bool:
    """Return whether a cell starts a chain, and neither a sum nor a carry depends on its carry."""
    pins, parameters = cell["connections"], cell["parameters"]
    if pins["CIN"][0] not in ("0", "1", NOTHING) or parameters["INJECT1_0"] != "NO":
        return False
    init = table(cell, "INIT0")
    # With D = 1 the LUT gives 0: nothing propagates.
    propagates = init >> 8 or pins["D0"][0] != "1"
    return not propagates and not reading[pins["S0"][0]]
