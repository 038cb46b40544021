"""LUTs and flip-flops of ECP5 that drive many pins, copied so that each drives those of one place.

Enables reach hundreds of pins behind one LUT, addresses of weight memories in LUTs a thousand: one
wire that spans all of them. Copies cost a cell each; the wires to them are few, and those behind
them short.
"""

from __future__ import annotations

import re
from copy import deepcopy
from itertools import groupby, pairwise

from xnorflow.boards.netlist import Netlist, first_free, readers

__all__ = ["split_fanout"]

#: Kinds of cells, their outputs, the most pins that one drives, and pins that stay with it. A LUT
#: has a wire in front of it in the same cycle. Slices share resets and enables, and more of them
#: than needed push flip-flops apart: SFC at 56 cycles came to 108 MHz for resets of accumulators.
DRIVERS = {
    "LUT4": ("Z", 40, {"LSR"}),
    "TRELLIS_FF": ("Q", 128, {"CE"}),
}

#: A cell that reads, its port, and the bit of that.
Pin = tuple[str, str, int]


def split_fanout(design: Netlist) -> list[str]:
    """Copy each cell of `DRIVERS` that drives too many pins, and share those out.

    Pins go together as their cells' names do: what belongs to one neuron has names that begin
    alike, and stands in one place. A LUT that drives a pin that stays is not copied. A flip-flop
    keeps those, which draw it into their middle; each component with others gets a copy for them.

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
        driven = [
            (reader, port, place)
            for reader, port, place in pins[cell["connections"][output][0]]
            if reader is not None
        ]
        if len(driven) <= most:
            continue
        driven.sort(key=lambda pin: _natural(pin[0]))
        if not any(port in alone for _, port, _ in driven):
            # The cell itself keeps the first share, and what is outside of the module.
            shares = _parts(driven, most)[1:]
        elif kind == "TRELLIS_FF":
            others = sorted((pin for pin in driven if pin[1] not in alone), key=_component)
            shares = [
                share
                for _, component in groupby(others, key=_component)
                for share in _parts(list(component), most)
            ]
        else:
            continue
        for part, share in enumerate(shares, 1):
            copies[f"{name}$copy{part}"] = copy = deepcopy(cell)
            copy["connections"][output] = [free]
            for reader, port, place in share:
                cells[reader]["connections"][port][place] = free
            free += 1
    cells.update(copies)
    return list(copies)


def _parts(driven: list[Pin], most: int) -> list[list[Pin]]:
    """Return `driven` in as few parts as possible, all of about the same length."""
    parts = -(-len(driven) // most)
    bounds = [len(driven) * part // parts for part in range(parts + 1)]
    return [driven[begin:end] for begin, end in pairwise(bounds)]


def _component(pin: Pin) -> str:
    """Return the name of what a pin's cell is part of: flattening puts it before the cell's."""
    return pin[0].rpartition(".")[0]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts ``acc_2`` before ``acc_10``."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]
