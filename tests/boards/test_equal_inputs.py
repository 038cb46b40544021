"""A LUT reads each net once, and what it computes stays."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnorflow.boards.equal_inputs import LUTS, part_equal_inputs

NETS = (2, 3, 4, 5)


def cell(kind, table=None, output="O", **pins):
    parameters = {} if table is None else {LUTS[kind][1]: f"{table:016b}"}
    return {
        "type": kind,
        "parameters": parameters,
        "connections": {pin: [bit] for pin, bit in pins.items()},
        "port_directions": {pin: "output" if pin == output else "input" for pin in pins},
    }


def netlist(**cells):
    return {"modules": {"top": {"cells": cells, "ports": {}}}}, cells


def lut(cell, given):
    inputs, table = LUTS[cell["type"]]
    index = sum(
        given.get(cell["connections"][pin][0], cell["connections"][pin][0] == "1") << place
        for place, pin in enumerate(inputs)
    )
    return int(cell["parameters"][table][::-1][index])


@given(
    st.sampled_from(sorted(LUTS)),
    st.integers(0, 2**16 - 1),
    st.lists(st.sampled_from([*NETS, "0", "1"]), min_size=4, max_size=4),
)
def test_every_lut_computes_what_it_did(kind, table, bits):
    pins = dict(zip(LUTS[kind][0], bits, strict=True))
    design, cells = netlist(lut=cell(kind, table, **pins, O=9))
    before = [
        lut(cells["lut"], dict(zip(NETS, each, strict=True))) for each in product((0, 1), repeat=4)
    ]
    assert part_equal_inputs(design) == []
    after = [cells["lut"]["connections"][pin][0] for pin in LUTS[kind][0]]
    nets = [bit for bit in after if isinstance(bit, int)]
    assert sorted(nets) == sorted({bit for bit in bits if isinstance(bit, int)})
    assert before == [
        lut(cells["lut"], dict(zip(NETS, each, strict=True))) for each in product((0, 1), repeat=4)
    ]


def test_a_carry_that_begins_with_a_bit_takes_it_once():
    design, cells = netlist(carry=cell("SB_CARRY", output="CO", I0=2, I1=2, CI="0", CO=3))
    assert part_equal_inputs(design) == []
    pins = {pin: bits[0] for pin, bits in cells["carry"]["connections"].items()}
    for bit in 0, 1:
        taken = [bit if net == 2 else int(net) for net in (pins["I0"], pins["I1"], pins["CI"])]
        assert (sum(taken) >= 2) == bit
    assert pins["I0"] != pins["I1"]


@pytest.mark.parametrize("driver", ["SB_DFFESR", "SB_LUT4"])
def test_a_chain_that_goes_on_with_a_bit_takes_it_from_two_flip_flops(driver):
    def made():
        source = (
            cell("SB_DFFESR", output="Q", C=6, D=7, E=8, R=9, Q=2)
            if driver == "SB_DFFESR"
            else cell("SB_LUT4", 0x8000, I0=6, I1=7, I2=8, I3=9, O=2)
        )
        return netlist(
            bit=source,
            lut=cell("SB_LUT4", 0x6996, I0="0", I1=2, I2=2, I3=4, O=5),
            carry=cell("SB_CARRY", output="CO", I0=2, I1=2, CI=4, CO=3),
        )

    design, cells = made()
    copies = part_equal_inputs(design)
    if driver == "SB_LUT4":
        # A LUT is not copied: it may stand in a chain itself.
        assert (design, copies) == (made()[0], [])
        return
    [copy] = copies
    original = {**cells["bit"]["connections"], "Q": cells[copy]["connections"]["Q"]}
    assert cells[copy]["connections"] == original
    assert cells[copy]["type"] == driver
    lut, carry = cells["lut"]["connections"], cells["carry"]["connections"]
    assert lut["I1"] == carry["I0"] == [2]
    assert lut["I2"] == carry["I1"] == original["Q"] != [2]
    assert lut["I3"] == carry["CI"]
    assert cells["lut"]["parameters"] == {"LUT_INIT": f"{0x6996:016b}"}
    assert design["modules"]["top"]["cells"].keys() == {"bit", "lut", "carry", copy}
