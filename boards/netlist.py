"""What the changes between yosys and nextpnr ask of a netlist."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

__all__ = ["Netlist", "Reader", "first_free", "readers", "table"]

#: A netlist as yosys' ``write_json`` makes it, a module or a cell of it.
Netlist = dict[str, Any]


class Reader(NamedTuple):
    """Where a net is read.

    Attributes
    ----------
    cell : str or None
        None for the outside of the module.
    port : str
    place : int
        Which bit of the port, the lowest first.
    """

    cell: str | None
    port: str
    place: int


def readers(module: Netlist) -> defaultdict[Any, list[Reader]]:
    """Return the readers of each bit, also of the constants ``"0"``, ``"1"`` and ``"x"``.

    All ports of the module count, its inputs too: what is wired to one must stay.
    """
    found: defaultdict[Any, list[Reader]] = defaultdict(list)
    for name, cell in module["cells"].items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for place, bit in enumerate(bits):
                    found[bit].append(Reader(name, port, place))
    for port, outer in module["ports"].items():
        for place, bit in enumerate(outer["bits"]):
            found[bit].append(Reader(None, port, place))
    return found


def first_free(module: Netlist) -> int:
    """Return a number from which on no net of `module` has its own."""
    every = (
        *(bits for cell in module["cells"].values() for bits in cell["connections"].values()),
        *(port["bits"] for port in module["ports"].values()),
        *(net["bits"] for net in module.get("netnames", {}).values()),
    )
    return 1 + max((bit for bits in every for bit in bits if isinstance(bit, int)), default=1)


def table(cell: Netlist, parameter: str) -> int:
    """Return a truth table: bit ``n`` is the output for the inputs ``n``, the first the lowest."""
    value = cell["parameters"][parameter]
    return int(value, 2) if isinstance(value, str) else value
