"""LUTs with one net on two inputs, which nextpnr may route in circles.

nextpnr may swap a LUT's inputs, and takes the wire to one of two that want the same net as the
cheapest way to the other. Where a neighbour drives it and reaches one of them only, router1 of
nextpnr 0.11 rips up the one for the other for ever, and router2 ends with two wires too many.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from xnorflow.boards.netlist import Netlist, first_free

__all__ = ["part_equal_inputs"]

#: Kinds of LUTs: their inputs, the lowest bit of the table's index first, and what holds the table.
LUTS = {
    "SB_LUT4": (("I0", "I1", "I2", "I3"), "LUT_INIT"),
    "LUT4": (("A", "B", "C", "D"), "INIT"),
}


def part_equal_inputs(design: Netlist) -> list[str]:
    """Give each net of a LUT one input.

    The others are freed, unless a carry of iCE40 takes both: a chain of
    `xnorflow.hw.carry_chain` goes on in the cell where another ends with a bit that it adds to
    itself. One input gets that bit from a copy of its flip-flop (a LUT may stand in a chain itself
    and is not copied); where a chain begins, a carry in of 1 does the same.

    Parameters
    ----------
    design : dict
        A netlist of iCE40 or ECP5 cells, as yosys' ``write_json`` makes it; changed in place.

    Returns
    -------
    list of str
        The copies.
    """
    return [copy for module in design["modules"].values() for copy in _part(module)]


def _part(module: Netlist) -> list[str]:
    cells = module["cells"]
    carries: dict[tuple[Any, Any], Netlist] = {}
    registers: dict[Any, str] = {}
    for name, cell in cells.items():
        pins = cell["connections"]
        if cell["type"] == "SB_CARRY" and pins["I0"] == pins["I1"]:
            if pins["CI"] == ["0"]:
                pins["CI"], pins["I1"] = ["1"], ["0"]
            else:
                carries[pins["CI"][0], pins["I0"][0]] = cell
        elif cell["type"].startswith("SB_DFF"):
            registers[pins["Q"][0]] = name
    free = first_free(module)
    copies: dict[str, Netlist] = {}
    for cell in cells.values():
        if cell["type"] not in LUTS:
            continue
        pins = cell["connections"]
        inputs, table = LUTS[cell["type"]]
        carry = None
        if "I3" in pins and pins["I1"] == pins["I2"]:
            carry = carries.get((pins["I3"][0], pins["I1"][0]))
        if carry is None:
            cell["parameters"][table] = _free_inputs(pins, inputs, cell["parameters"][table])
        elif (name := registers.get(pins["I1"][0])) is not None:
            copy = f"{name}$copy{len(copies)}"
            copies[copy] = register = deepcopy(cells[name])
            register["connections"]["Q"] = pins["I2"] = carry["connections"]["I1"] = [free]
            free += 1
    cells.update(copies)
    return list(copies)


def _free_inputs(pins: Netlist, inputs: tuple[str, ...], table: str) -> str:
    """Disconnect all inputs but the first of each net; return the table without them."""
    for place, pin in enumerate(inputs):
        bit = pins[pin][0]
        first = next(place for place, other in enumerate(inputs) if pins[other][0] == bit)
        if first == place or not isinstance(bit, int):
            continue
        values = table[::-1]
        table = "".join(
            values[index & ~(1 << place) | (index >> first & 1) << place]
            for index in range(len(values))
        )[::-1]
        pins[pin] = ["0"]
    return table
