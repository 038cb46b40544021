"""Reading the tools' reports, from small recorded ones."""

import json

import pytest

from xnorflow import boards
from xnorflow.boards.reports import Usage, mapped, placed, read_report, read_stat, usage_lines

# Recorded from yosys 0.70 and nextpnr 0.11.1 on a small design, shortened.
ICE40_STAT = """{
   "creator": "Yosys 0.70", "invocation": "stat -json ",
   "modules": {"\\\\top": {"num_cells": 9, "num_cells_by_type": {"SB_LUT4": 1}}},
      "design": {
         "num_cells": 144, "num_submodules": 0,
         "num_cells_by_type": {
            "SB_CARRY": 30, "SB_DFF": 2, "SB_DFFESR": 12, "SB_DFFR": 2, "SB_DFFSR": 35,
            "SB_IO": 3, "SB_LUT4": 59, "SB_PLL40_PAD": 1, "SB_RAM40_4K": 3, "SB_RAM40_4KNR": 1
         }
      }
}"""
ICE40_REPORT = """{
  "critical_paths": [],
  "fmax": {"clk": {"achieved": 74.7719497680664, "constraint": 24.001535415649414}},
  "utilization": {
    "ICESTORM_DSP": {"available": 8, "used": 0},
    "ICESTORM_LC": {"available": 5280, "used": 76},
    "ICESTORM_PLL": {"available": 1, "used": 1},
    "ICESTORM_RAM": {"available": 30, "used": 4},
    "ICESTORM_SPRAM": {"available": 4, "used": 0},
    "SB_GB": {"available": 8, "used": 1},
    "SB_IO": {"available": 39, "used": 4}
  }
}"""
ECP5_STAT = """{"design": {"num_cells_by_type": {
    "CCU2C": 20, "DP16KD": 2, "EHXPLLL": 1, "LUT4": 23, "TRELLIS_DPR16X4": 1, "TRELLIS_FF": 55,
    "TRELLIS_IO": 4}}}"""
ECP5_REPORT = """{
  "fmax": {"$glbnet$clk": {"achieved": 275.7099609375, "constraint": 80}},
  "utilization": {
    "DP16KD": {"available": 56, "used": 2},
    "EHXPLLL": {"available": 2, "used": 1},
    "MULT18X18D": {"available": 28, "used": 0},
    "TRELLIS_COMB": {"available": 24288, "used": 79},
    "TRELLIS_FF": {"available": 24288, "used": 55},
    "TRELLIS_IO": {"available": 197, "used": 4}
  }
}"""
NEXTPNR_LOG = """Info: Device utilisation:
Info: \t         ICESTORM_LC:    6012/   5280   113%
Info: \t        ICESTORM_RAM:      12/     30    40%
Info: \t               SB_IO:       4/     39    10%

ERROR: Unable to place cell 'x', no BELs remaining to implement cell type 'ICESTORM_LC'
"""


def test_ice40_design_is_counted_from_both_reports() -> None:
    usage = placed(
        read_report(ICE40_REPORT).cells, read_stat(ICE40_STAT), boards.load("icebreaker")
    )
    assert usage == {
        "lut": Usage(59, 5280),
        "ff": Usage(51, 5280),
        "lc": Usage(76, 5280),
        "bram": Usage(4, 30),
        "dsp": Usage(0, 8),
        "spram": Usage(0, 4),
        "io": Usage(4, 39),
        "pll": Usage(1, 1),
    }


def test_ecp5_design_is_counted_by_nextpnr_within_the_budget() -> None:
    usage = placed(read_report(ECP5_REPORT).cells, read_stat(ECP5_STAT), boards.load("ulx3s-12f"))
    assert usage == {
        "lut": Usage(79, 12000),
        "ff": Usage(55, 12000),
        "bram": Usage(2, 32),
        "dsp": Usage(0, 28),
        "io": Usage(4, 197),
        "pll": Usage(1, 2),
    }


def test_ecp5_netlist_counts_carry_and_lut_ram_as_luts() -> None:
    usage = mapped(read_stat(ECP5_STAT), boards.load("ulx3s-25f"))
    assert usage["lut"] == Usage(23 + 2 * 20 + 6, 24288)


def test_clocks_carry_what_was_reached_and_asked() -> None:
    report = read_report(ICE40_REPORT)
    assert report.clocks == {"clk": (74.7719497680664, 24.001535415649414)}
    assert report.fmax_mhz == 74.7719497680664


def test_slowest_clock_counts() -> None:
    data = json.loads(ECP5_REPORT)
    data["fmax"]["other"] = {"achieved": 12.5, "constraint": 10}
    assert read_report(json.dumps(data)).fmax_mhz == 12.5


def test_utilisation_is_read_from_the_log_of_a_failed_placement() -> None:
    lines = usage_lines(NEXTPNR_LOG)
    assert lines["ICESTORM_LC"] == Usage(6012, 5280)
    usage = placed(lines, read_stat(ICE40_STAT), boards.load("icebreaker"))
    assert [name for name, each in usage.items() if each.used > each.available] == ["lc"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"design": 3}', '{"fmax": {"a": 1}}'])
def test_other_text_is_no_report(text: str) -> None:
    with pytest.raises(ValueError, match="not a report of `yosys"):
        read_stat(text)
    with pytest.raises(ValueError, match="not a report of nextpnr"):
        read_report(text)
