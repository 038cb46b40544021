"""What is changed in a netlist of ECP5 cells between yosys and nextpnr."""

from __future__ import annotations

from typing import Any

from xnorflow.boards.chains import free_chain_ends, raise_low_pins
from xnorflow.boards.fanout import split_fanout
from xnorflow.boards.output_registers import absorb_output_registers

__all__ = ["refine"]


def refine(design: dict[str, Any]) -> tuple[int, list[str]]:
    """Change a netlist in place to one that does the same with less, or faster.

    Parameters
    ----------
    design : dict
        As yosys' ``write_json`` makes it.

    Returns
    -------
    int
        How many flip-flops are gone, all of them behind block RAMs.
    list of str
        Cells that are new.
    """
    free_chain_ends(design)
    raise_low_pins(design)
    gone = absorb_output_registers(design)
    return gone, split_fanout(design)
