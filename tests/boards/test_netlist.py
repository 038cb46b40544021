"""Who reads a net, and which numbers are free."""

from xnorflow.boards.netlist import Reader, first_free, readers, table


def module():
    return {
        "cells": {
            "carry": {
                "type": "CCU2C",
                "parameters": {"INIT0": "0000000000000110", "INIT1": 6},
                "connections": {"A0": [2], "B0": ["1"], "S0": [3]},
                "port_directions": {"A0": "input", "B0": "input", "S0": "output"},
            },
            "ram": {
                "type": "RAM",
                "parameters": {},
                "connections": {"ADDR": [3, 2], "DATA": [7]},
                "port_directions": {"ADDR": "input", "DATA": "output"},
            },
        },
        "ports": {"byte": {"direction": "output", "bits": [7, 3]}},
    }


def test_readers_of_a_net_are_pins_of_cells_and_ports_of_the_module():
    found = readers(module())
    assert found[2] == [Reader("carry", "A0", 0), Reader("ram", "ADDR", 1)]
    assert found[3] == [Reader("ram", "ADDR", 0), Reader(None, "byte", 1)]
    assert found[7] == [Reader(None, "byte", 0)]
    assert found["1"] == [Reader("carry", "B0", 0)]
    assert found[4] == []


def test_the_first_free_number_is_above_all_that_cells_ports_and_names_have():
    assert first_free(module()) == 8
    named = {**module(), "netnames": {"gone": {"bits": ["x", 11]}}}
    assert first_free(named) == 12
    assert first_free({"cells": {}, "ports": {}}) == 2


def test_a_table_is_written_as_bits_or_as_a_number():
    cell = module()["cells"]["carry"]
    assert table(cell, "INIT0") == table(cell, "INIT1") == 6
