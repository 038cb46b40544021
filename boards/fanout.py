"""LUTs and flip-flops of ECP5 that drive many pins, copied so that each drives those of one place.

Enables reach hundreds of pins behind one LUT, addresses of weight memories in LUTs a thousand: one
wire that spans all of them. Copies cost a cell each; the wires to them are few, and those behind
them short.
"""

from __future__ import annotations

import re
from copy import deepcopy

from xnorflow.boards.netlist import Netlist, first_free, readers

__all__ = ["split_fanout"]

#: Kinds of cells, their outputs, the most pins that one drives, and pins that are left alone. A LUT
#: has a wire in front of it in the same cycle. Slices share resets and enables, and more of them
#: than needed push flip-flops apart: SFC at 56 cycles came to 108 MHz for resets of accumulators.
DRIVERS = {
    "LUT4": ("Z", 40, {"LSR"}),
    "TRELLIS_FF": ("Q", 128, {"CE"}),
}


def split_fanout(design: Netlist) -> list[str]:
    """Copy each cell of `DRIVERS` that drives too many pins, and share those out.

    Pins go together as their cells' names do: what belongs to one neuron has names that begin
    alike, and stands in one place.

    Parameters
    ----------
    design : dict
        A netlist of ECP5 cells, as yosys' ``write_json`` makes it; changed in place.

    Returns
    -------
    list of str
        The copies.
    """
    return [
        copy
        for module in design["modules"].values()
        for kind, (output, most, alone) in DRIVERS.items()
        for copy in _split(module, kind, output, most, alone)
    ]


def _split(module: Netlist, kind: str, output: str, most: int, alone: set[str]) -> list[str]:
    cells = module["cells"]
    pins = readers(module)
    free = first_free(module)
    copies: dict[str, Netlist] = {}
    for name, cell in cells.items():
        if cell["type"] != kind:
            continue
        # The cell itself keeps the first share, and what is outside of the module.
        driven = [
            (reader, port, place)
            for reader, port, place in pins[cell["connections"][output][0]]
            if reader is not None
        ]
        parts = -(-len(driven) // most)
        if parts < 2 or any(port in alone for _, port, _ in driven):
            continue
        driven.sort(key=lambda pin: _natural(pin[0]))
        for part in range(1, parts):
            copies[f"{name}$copy{part}"] = copy = deepcopy(cell)
            copy["connections"][output] = [free]
            share = driven[len(driven) * part // parts : len(driven) * (part + 1) // parts]
            for reader, port, place in share:
                cells[reader]["connections"][port][place] = free
            free += 1
    cells.update(copies)
    return list(copies)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts ``acc_2`` before ``acc_10``."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]
