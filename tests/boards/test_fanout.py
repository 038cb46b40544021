"""Cells that drive many pins are copied, and what reads the copies reads the same."""

from collections import Counter
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnorflow.boards import fanout
from xnorflow.boards.fanout import split_fanout


def cell(kind, **pins):
    outputs = ("Q", "Z")
    return {
        "type": kind,
        "parameters": {"INIT": f"{0x6666:016b}"} if kind == "LUT4" else {},
        "connections": {pin: [bit] for pin, bit in pins.items()},
        "port_directions": {pin: "output" if pin in outputs else "input" for pin in pins},
    }


def design(readers):
    """Return a flip-flop and a LUT that enables `readers` flip-flops, and a port on it."""
    cells = {
        "valid": cell("TRELLIS_FF", CLK=2, DI=3, Q=4),
        "enable": cell("LUT4", A=4, B=5, C="0", D="0", Z=6),
    }
    for n in range(readers):
        cells[f"acc_{n}"] = cell("TRELLIS_FF", CLK=2, CE=6, DI=100 + n, Q=1000 + n)
    ports = {
        "clk": {"direction": "input", "bits": [2]},
        "stall": {"direction": "input", "bits": [5]},
        "enabled": {"direction": "output", "bits": [6]},
    }
    return {"modules": {"top": {"cells": cells, "ports": ports}}}


def drivers(cells):
    return {
        each["connections"][pin][0]: name
        for name, each in cells.items()
        for pin, direction in each["port_directions"].items()
        if direction == "output"
    }


@given(readers=st.integers(1, 100), most=st.integers(1, 40))
def test_each_copy_drives_no_more_than_that(readers, most):
    netlist = design(readers)
    cells = netlist["modules"]["top"]["cells"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fanout.DRIVERS, "LUT4", ("Z", most, set()))
        copies = split_fanout(netlist)
    assert len(copies) == -(-readers // most) - 1
    sources = drivers(cells)
    read = Counter(sources[cells[f"acc_{n}"]["connections"]["CE"][0]] for n in range(readers))
    assert set(read) == {"enable", *copies}
    assert max(read.values()) <= most
    for copy in copies:
        original = {**cells["enable"]["connections"], "Z": cells[copy]["connections"]["Z"]}
        assert cells[copy]["connections"] == original
        assert cells[copy]["parameters"] == cells["enable"]["parameters"]
    assert cells["enable"]["connections"]["Z"] == [6]


def test_neighbours_stay_together():
    netlist = design(100)
    cells = netlist["modules"]["top"]["cells"]
    split_fanout(netlist)
    nets = [cells[f"acc_{n}"]["connections"]["CE"][0] for n in range(100)]
    assert [a == b for a, b in pairwise(nets)].count(False) == 2


def test_few_pins_leave_a_netlist_as_it_is():
    netlist = design(40)
    assert split_fanout(netlist) == []
    assert netlist == design(40)


@pytest.mark.parametrize(("pin", "left"), [("LSR", True), ("CE", False)])
def test_resets_are_left_alone(pin, left):
    netlist = design(100)
    for name, each in netlist["modules"]["top"]["cells"].items():
        if name.startswith("acc_"):
            for pins in (each["connections"], each["port_directions"]):
                pins[pin] = pins.pop("CE")
    assert (split_fanout(netlist) == []) is left


def test_a_flip_flop_keeps_the_enables_and_each_component_gets_a_copy_for_its_luts():
    cells = {"core.fc.stall": cell("TRELLIS_FF", CLK=2, DI=3, Q=4)}
    for n in range(200):
        cells[f"core.fc.acc_{n}"] = cell("TRELLIS_FF", CLK=2, CE=4, DI=100 + n, Q=1000 + n)
    luts = {"core.fc.b": 2, "core.fc.replay.x": 3, "core.fc.z": 1, "core.fc.replay.rom.y": 300}
    for stem, number in luts.items():
        for n in range(number):
            cells[f"{stem}_{n}"] = cell("LUT4", A=5, B=4, C="0", D="0", Z=f"{stem}_{n}")
    netlist = {"modules": {"top": {"cells": cells, "ports": {}}}}
    copies = split_fanout(netlist)
    sources = drivers(cells)
    assert {sources[cells[f"core.fc.acc_{n}"]["connections"]["CE"][0]] for n in range(200)} == {
        "core.fc.stall"
    }
    read = Counter(
        (name.rpartition(".")[0], sources[each["connections"]["B"][0]])
        for name, each in cells.items()
        if each["type"] == "LUT4"
    )
    assert sorted(read.values()) == [3, 3, 100, 100, 100]
    assert {copy for _, copy in read} == set(copies)
    assert len(copies) == len(read)


def test_copies_of_a_lut_count_as_pins_of_what_drives_it():
    netlist = design(40 * 200)
    copies = split_fanout(netlist)
    kinds = Counter(netlist["modules"]["top"]["cells"][copy]["type"] for copy in copies)
    assert kinds == {"LUT4": 199, "TRELLIS_FF": 1}


def test_a_copied_cell_that_reads_a_copied_one():
    """Two LUTs in a row, both with many readers: every reader sees what it saw before."""
    cells = {
        "first": cell("LUT4", A=2, B=3, C="0", D="0", Z=4),
        "second": cell("LUT4", A=4, B=3, C="0", D="0", Z=5),
    }
    for n in range(90):
        cells[f"a_{n}"] = cell("LUT4", A=4, B="0", C="0", D="0", Z=1000 + n)
        cells[f"b_{n}"] = cell("LUT4", A=5, B="0", C="0", D="0", Z=2000 + n)
    netlist = {"modules": {"top": {"cells": cells, "ports": {}}}}
    assert len(split_fanout(netlist)) == 4
    sources = drivers(cells)

    def value(bit, given):
        if bit in given:
            return given[bit]
        pins = cells[sources[bit]]["connections"]
        return value(pins["A"][0], given) ^ (pins["B"][0] != "0" and value(pins["B"][0], given))

    for low, high in product((0, 1), repeat=2):
        given = {2: low, 3: high}
        for n in range(90):
            assert value(cells[f"a_{n}"]["connections"]["A"][0], given) == low ^ high
            assert value(cells[f"b_{n}"]["connections"]["A"][0], given) == low
