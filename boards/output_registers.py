"""Registers behind ECP5's block RAM moved into it.

A DP16KD has a register of its own at each port's output: data come 0.9 ns after the clock instead
of 5.8 ns (speed grade 6 in nextpnr's database), and no flip-flops are taken elsewhere. yosys does
not infer it: https://github.com/YosysHQ/yosys/issues/5814.
"""

from __future__ import annotations

from typing import Any

from xnorflow.boards.netlist import Netlist, Reader, readers, table

__all__ = ["absorb_output_registers"]

#: Width of a port that takes the pins of both: A's if it writes, B's if it reads, and B's clock and
#: enables are those of all outputs then.
WIDE = 36


def absorb_output_registers(design: Netlist) -> int:
    """Replace flip-flops behind block RAMs by the registers at their outputs.

    A port gets one if each output that is used goes to a flip-flop and nowhere else, and all of
    these are enabled when the port is, start at 0 and have no reset.

    Parameters
    ----------
    design : dict
        A netlist of ECP5 cells, as yosys' ``write_json`` makes it; changed in place.

    Returns
    -------
    int
        How many flip-flops are gone.
    """
    return sum(_absorb(module) for module in design["modules"].values())


def _absorb(module: Netlist) -> int:
    cells = module["cells"]
    rams = [cell for cell in cells.values() if cell["type"] == "DP16KD"]
    if not rams:
        return 0
    reading = readers(module)
    inverted = {
        cell["connections"]["Z"][0]: source
        for cell in cells.values()
        if (source := _inverts(cell)) is not None
    }
    gone = 0
    for ram in rams:
        wide = WIDE in (_width(ram, "A"), _width(ram, "B"))
        for port, halves in (("B", "AB"),) if wide else (("A", "A"), ("B", "B")):
            registers = _registers(ram, port, halves, cells, reading, inverted)
            for pin, name in registers.items():
                ram["connections"][pin] = cells.pop(name)["connections"]["Q"]
            if registers:
                gone += len(registers)
                for half in halves:
                    ram["parameters"][f"REGMODE_{half}"] = "OUTREG"
                _enable(ram, port, inverted)
                if wide:
                    # Lattice's PDPW16KD has one enable for all outputs; what is not wired is 1.
                    ram["connections"]["OCEA"] = ["1"]
    return gone


def _registers(
    ram: Netlist,
    port: str,
    halves: str,
    cells: dict[str, Netlist],
    reading: dict[Any, list[Reader]],
    inverted: dict[Any, Any],
) -> dict[str, str]:
    """Return the flip-flop behind each output that is used; none if one is not as it must be."""
    pins = ram["connections"]
    found: dict[str, str] = {}
    taken = ram["parameters"].get(f"REGMODE_{port}") == "OUTREG"
    if taken or pins.get(f"RST{port}", ["0"]) != ["0"]:
        return found
    for half in halves:
        for pin in (f"DO{half}{n}" for n in range(WIDE // 2)):
            [bit] = pins.get(pin, "x")
            if not reading[bit]:
                continue
            name = reading[bit][0].cell
            if len(reading[bit]) > 1 or name is None:
                return {}
            enabled = _signal(pins[f"CE{port}"][0], True, inverted)
            if not _fits(cells[name], bit, pins[f"CLK{port}"], enabled, inverted):
                return {}
            found[pin] = name
    return found


def _fits(
    cell: Netlist,
    bit: Any,
    clock: list[Any],
    enabled: tuple[Any, bool],
    inverted: dict[Any, Any],
) -> bool:
    """Return whether a cell is a plain register of `bit` with this clock and enable."""
    if cell["type"] != "TRELLIS_FF":
        return False
    pins, parameters = cell["connections"], cell["parameters"]
    mux = parameters.get("CEMUX", "1").strip()
    own = ("1", True) if mux == "1" else _signal(pins["CE"][0], mux == "CE", inverted)
    return (
        pins["DI"] == [bit]
        and pins["CLK"] == clock
        and pins.get("LSR", ["0"]) == ["0"]
        and parameters.get("REGSET", "RESET") == "RESET"
        and parameters.get("CLKMUX", "CLK") == "CLK"
        and own == enabled
    )


def _signal(bit: Any, high: bool, inverted: dict[Any, Any]) -> tuple[Any, bool]:
    """Return what a signal comes from, without an inverter, and whether it is 1 when that is."""
    return (inverted[bit], not high) if bit in inverted else (bit, high)


def _enable(ram: Netlist, port: str, inverted: dict[Any, Any]) -> None:
    """Give the register the enable of its port, without an inverter."""
    bit, high = _signal(ram["connections"][f"CE{port}"][0], True, inverted)
    for pin in (f"CE{port}", f"OCE{port}"):
        ram["connections"][pin] = [bit]
        ram["parameters"][f"{pin}MUX"] = pin if high else "INV"


def _inverts(cell: Netlist) -> Any:
    """Return the only input of a LUT that inverts it, or None."""
    if cell["type"] != "LUT4":
        return None
    pins = [cell["connections"][name][0] for name in "ABCD"]
    inputs = [n for n, bit in enumerate(pins) if bit not in ("0", "1", "x")]
    if len(inputs) != 1:
        return None
    base = sum(1 << n for n, bit in enumerate(pins) if bit == "1")
    init = table(cell, "INIT")
    low, high = init >> base & 1, init >> (base | 1 << inputs[0]) & 1
    return pins[inputs[0]] if (low, high) == (1, 0) else None


def _width(ram: Netlist, port: str) -> int:
    width = ram["parameters"][f"DATA_WIDTH_{port}"]
    return int(width, 2) if isinstance(width, str) else width
