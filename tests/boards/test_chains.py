"""Ends of carry chains that nothing depends on, and constant pins."""

import json
from itertools import product

import numpy as np
import pytest

from xnorflow.boards.chains import free_chain_ends, raise_low_pins


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


def half(init, bits):
    """Return what a half-cell propagates and what else its carry is, as yosys' model has it."""
    table = int(init, 2) if isinstance(init, str) else init
    index = sum(bit << n for n, bit in enumerate(bits))
    return table >> index & 1, table >> (index & 3) & 1


@pytest.mark.parametrize("low", list(product([False, True], repeat=4)))
def test_cells_without_low_pins_add_the_same(low):
    rng = np.random.default_rng(sum(bit << n for n, bit in enumerate(low)))
    inits = rng.integers(0, 1 << 16, 2).tolist()
    names = [name + half for half in "01" for name in "ABCD"]
    pins = {name: ["0"] if low[n % 4] else [10 + n] for n, name in enumerate(names)}
    one = {
        "type": "CCU2C",
        "parameters": {"INIT0": f"{inits[0]:016b}", "INIT1": inits[1]},
        "connections": dict(pins),
    }
    netlist = {"modules": {"top": {"cells": {"one": one, "other": {"type": "LUT4"}}}}}
    assert raise_low_pins(netlist) == 2 * sum(low)
    assert one["connections"] == {n: ["1"] if b == ["0"] else b for n, b in pins.items()}
    for side, before in zip("01", inits, strict=True):
        for bits in product([0, 1], repeat=4):
            was = [0 if is_low else bit for bit, is_low in zip(bits, low, strict=True)]
            now = [1 if is_low else bit for bit, is_low in zip(bits, low, strict=True)]
            assert half(one["parameters"][f"INIT{side}"], now) == half(before, was)


def test_pins_that_are_high_or_not_connected_stay():
    one = {
        "type": "CCU2C",
        "parameters": {"INIT0": "1010101010101010", "INIT1": "0000000011111111"},
        "connections": {"A0": ["1"], "B0": ["x"], "C0": [5], "CIN": ["0"]},
    }
    before = json.dumps(one)
    assert raise_low_pins({"modules": {"top": {"cells": {"one": one}}}}) == 0
    assert json.dumps(one) == before
