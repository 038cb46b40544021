"""What is changed in a netlist of ECP5 cells between yosys and nextpnr."""

from __future__ import annotations

from typing import Any

from xnorflow.boards.chains import free_chain_ends, raise_low_pins
from xnorflow.boards.output_registers import absorb_output_registers

__all__ = ["refine"]


def refine(design: dict[str, Any]) -> int:
    """Change a netlist in place to one that does the same with less.

    Parameters
    ----------
    design : dict
        As yosys' ``write_json`` makes it.

    Returns
    -------
    int
        How many flip-flops are gone, all of them behind block RAMs.
    """
    free_chain_ends(design)
    raise_low_pins(design)
    return absorb_output_registers(design)
