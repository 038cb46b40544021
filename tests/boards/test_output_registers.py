"""Which flip-flops behind a block RAM become the register at its output."""

import json

import pytest

from xnorflow.boards.output_registers import absorb_output_registers


def design(**changes):
    """Return a block RAM of 18 bits whose port B reads two bits into registers.

    `changes` are of cells' pins and parameters, by ``CELL_NAME``; None takes one away.
    """
    cells = {
        "ram": {
            "type": "DP16KD",
            "parameters": {"DATA_WIDTH_A": 18, "DATA_WIDTH_B": f"{18:032b}", "REGMODE_B": "NOREG"},
            "connections": {
                "CLKA": ["0"], "CEA": ["0"], "OCEA": ["0"], "RSTA": ["0"],
                "CLKB": [2], "CEB": [3], "OCEB": ["1"], "RSTB": ["0"],
                "DOA0": [40], "DOB0": [10], "DOB1": [11], "DOB2": [12],
            },
        },
        **{
            name: {
                "type": "TRELLIS_FF",
                "parameters": {"CEMUX": "CE", "CLKMUX": "CLK", "REGSET": "RESET"},
                "connections": {"CLK": [2], "CE": [3], "LSR": ["0"], "DI": [d], "Q": [q]},
            }
            for name, d, q in (("low", 10, 20), ("high", 11, 21))
        },
        "inverter": {
            "type": "LUT4",
            "parameters": {"INIT": f"{0x0F0F:016b}"},
            "connections": {"A": ["0"], "B": ["0"], "C": [4], "D": ["0"], "Z": [3]},
        },
        "reader": {
            "type": "LUT4",
            "parameters": {"INIT": f"{0x8000:016b}"},
            "connections": {"A": [20], "B": [21], "C": ["1"], "D": ["1"], "Z": [30]},
        },
    }  # fmt: skip
    for key, value in changes.items():
        cell, name = key.split("_", 1)
        group = "connections" if name in cells[cell]["connections"] else "parameters"
        cells[cell][group][name] = value
    for cell in cells.values():
        outputs = ("Q", "Z", "DO")
        cell["port_directions"] = {
            pin: "output" if pin.startswith(outputs) else "input" for pin in cell["connections"]
        }
    ports = {"o": {"direction": "output", "bits": [30]}}
    return {"modules": {"top": {"cells": cells, "ports": ports}}}


def of(netlist):
    return netlist["modules"]["top"]["cells"]


def test_they_go_and_what_read_them_reads_the_memory():
    netlist = design()
    assert absorb_output_registers(netlist) == 2
    cells = of(netlist)
    ram = cells["ram"]
    assert set(cells) == {"ram", "inverter", "reader"}
    assert ram["parameters"]["REGMODE_B"] == "OUTREG"
    assert "REGMODE_A" not in ram["parameters"]
    assert [ram["connections"][f"DOB{n}"] for n in range(3)] == [[20], [21], [12]]


def test_an_inverted_enable_is_inverted_at_the_pins():
    netlist = design(low_CE=[4], low_CEMUX="INV", high_CE=[4], high_CEMUX="INV")
    assert absorb_output_registers(netlist) == 2
    ram = of(netlist)["ram"]
    for pin in ("CEB", "OCEB"):
        assert ram["connections"][pin] == [4]
        assert ram["parameters"][f"{pin}MUX"] == "INV"


def test_registers_that_are_always_enabled():
    netlist = design(ram_CEB=["1"], low_CEMUX="1 ", high_CEMUX="1 ")
    assert absorb_output_registers(netlist) == 2
    ram = of(netlist)["ram"]
    assert (ram["connections"]["OCEB"], ram["parameters"]["OCEBMUX"]) == (["1"], "OCEB")


@pytest.mark.parametrize("written", [18, 36])
def test_a_port_of_both_halves_has_one_enable(written):
    netlist = design(ram_DATA_WIDTH_A=36, ram_DATA_WIDTH_B=written, ram_DOA0=[11], ram_DOB1=["x"])
    assert absorb_output_registers(netlist) == 2
    ram = of(netlist)["ram"]
    assert {ram["parameters"][f"REGMODE_{port}"] for port in "AB"} == {"OUTREG"}
    assert (ram["connections"]["OCEA"], ram["connections"]["OCEB"]) == (["1"], [4])
    assert (ram["connections"]["DOA0"], ram["connections"]["DOB0"]) == ([21], [20])


def test_each_port_is_judged_by_itself():
    netlist = design(ram_CLKA=[2], ram_CEA=[3], ram_DOA0=[11], ram_DOB1=["x"], low_CE=[7])
    assert absorb_output_registers(netlist) == 1
    assert of(netlist)["ram"]["parameters"]["REGMODE_A"] == "OUTREG"
    assert of(netlist)["ram"]["parameters"]["REGMODE_B"] == "NOREG"
    assert "low" in of(netlist)


@pytest.mark.parametrize(
    "change",
    [
        {"low_CE": [7]},
        {"low_CEMUX": "INV"},
        {"low_CEMUX": "1 "},
        {"low_CLK": [8]},
        {"low_LSR": [9]},
        {"low_REGSET": "SET"},
        {"low_CLKMUX": "INV"},
        {"ram_RSTB": [9]},
        {"reader_C": [10]},
        {"reader_A": [10], "reader_B": [11]},
        {"reader_C": [12]},
        {"inverter_INIT": f"{0xF0F0:016b}", "low_CE": [4], "low_CEMUX": "INV"},
    ],
    ids=str,
)
def test_anything_else_stays(change):
    netlist = design(**change)
    before = json.dumps(netlist)
    assert absorb_output_registers(netlist) == 0
    assert json.dumps(netlist) == before


def test_a_port_has_one_register_and_no_second():
    netlist = design()
    of(netlist)["ram"]["parameters"]["REGMODE_B"] = "OUTREG"
    assert absorb_output_registers(netlist) == 0


def test_an_output_of_the_design_is_read():
    netlist = design()
    netlist["modules"]["top"]["ports"]["o"]["bits"] = [10]
    assert absorb_output_registers(netlist) == 0
