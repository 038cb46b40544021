"""What is changed in a netlist between yosys and nextpnr."""

from __future__ import annotations

from xnorflow.boards.chains import free_chain_ends, raise_low_pins
from xnorflow.boards.equal_inputs import part_equal_inputs
from xnorflow.boards.fanout import split_fanout
from xnorflow.boards.netlist import Netlist
from xnorflow.boards.output_registers import absorb_output_registers

__all__ = ["refine"]


def refine(design: Netlist) -> None:
    """Change a netlist in place to one that does the same with less, or faster.

    Parameters
    ----------
    design : dict
        A netlist of iCE40 or ECP5 cells, as yosys' ``write_json`` makes it.
    """
    free_chain_ends(design)
    raise_low_pins(design)
    absorb_output_registers(design)
    part_equal_inputs(design)
    split_fanout(design)
