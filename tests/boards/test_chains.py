"""Ends of carry chains that nothing depends on."""

import json

from xnorflow.boards.chains import free_chain_ends


def cell(cin, cout, *, init, s0, d0="1"):
    names = ("CIN", "COUT", "S0", "D0")
    pins = dict(zip(names, ([cin], [cout], [s0], [d0]), strict=True))
    directions = dict(zip(names, ("input", "output", "output", "input"), strict=True))
    return {
        "type": "CCU2C",
        "parameters": {"INIT0": init, "INJECT1_0": "NO"},
        "connections": pins,
        "port_directions": directions,
    }


def design(*cells, read=()):
    ports = {"o": {"direction": "output", "bits": list(read)}}
    return {
        "modules": {"top": {"cells": dict(enumerate(cells)), "ports": ports}},
    }


def pins(netlist):
    return [each["connections"] for each in netlist["modules"]["top"]["cells"].values()]


INJECTS, ADDS = f"{0x00AA:016b}", f"{0x96AA:016b}"


def test_a_chain_that_ignores_its_carry_loses_both_ends():
    netlist = design(cell("0", 2, init=INJECTS, s0=3), cell(2, 4, init=ADDS, s0=5), read=[5])
    assert free_chain_ends(netlist) == 1
    assert [(each["CIN"], each["COUT"]) for each in pins(netlist)] == [(["x"], [2]), ([2], ["x"])]


def test_a_carry_that_is_read_stays():
    netlist = design(cell("0", 2, init=INJECTS, s0=3), cell(2, 4, init=ADDS, s0=5), read=[4])
    free_chain_ends(netlist)
    assert pins(netlist)[1]["COUT"] == [4]


def test_a_chain_whose_sum_or_carry_depends_on_the_one_before_stays_as_it_is():
    for first, read in [
        (cell("0", 2, init=ADDS, s0=3), []),
        (cell("0", 2, init=INJECTS, s0=3), [3]),
        (cell("0", 2, init=INJECTS, s0=3, d0=9), []),
        (cell(8, 2, init=INJECTS, s0=3), []),
    ]:
        netlist = design(first, read=read)
        before = json.dumps(netlist)
        assert free_chain_ends(netlist) == 0
        assert json.dumps(netlist) == before


def test_pins_that_yosys_left_out_are_there_for_nextpnr():
    bare = cell("0", 2, init=INJECTS, s0=3)
    for pin in ("CIN", "COUT"):
        del bare["connections"][pin], bare["port_directions"][pin]
    netlist = design(bare)
    assert free_chain_ends(netlist) == 1
    assert pins(netlist)[0] == {"S0": [3], "D0": ["1"], "CIN": ["x"], "COUT": ["x"]}
    assert bare["port_directions"]["CIN"] == "input"
    assert bare["port_directions"]["COUT"] == "output"
