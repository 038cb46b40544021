"""The energy estimate: its formula by hand, what it depends on, and that it says what it is."""

import dataclasses
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnorflow import boards
from xnorflow.energy import FAMILIES, UNCERTAINTY, activity, energy, planned_energy
from xnorflow.frontend import load
from xnorflow.lowering import lower
from xnorflow.planning import plan
from xnorflow.results import layer_results

MINI = str(resources.files("xnorflow.models") / "mnist_mini.onnx")
USED = {"lut": 3000, "ff": 1500, "lc": 3500, "bram": 20, "dsp": 0}


def estimate(board="icebreaker", resources=USED, activity=0.25, clock_mhz=24.0, fps=12_000.0):
    return energy(boards.load(board), resources, activity=activity, clock_mhz=clock_mhz, fps=fps)


def test_ice40_is_the_formula_by_hand():
    # 52 pJ for the clock, 0.25 × 0.2 pJ × (3500 cells + 20 × 64), at 24 MHz; the PLL 1.1 mW.
    dynamic_mw = 1.1 + 24 * (52 + 0.05 * 4780) / 1000
    result = estimate()
    assert result["dynamic_mw"] == pytest.approx(dynamic_mw)
    assert result["static_mw"] == 0.13
    # mW by frames a second is mJ a frame.
    assert result["uj_per_frame"] == pytest.approx((0.13 + dynamic_mw) / 12_000 * 1000)


def test_ecp5_is_the_formula_by_hand():
    # Clock network and regulators are in the 0.24 pJ; LUTs and flip-flops share their cells.
    dynamic_mw = 65 * 0.25 * 0.24 * (3000 + 20 * 144) / 1000
    used = {"lut": 3000, "ff": 1500, "bram": 20}
    result = estimate("ulx3s-25f", used, clock_mhz=65.0)
    assert result["dynamic_mw"] == pytest.approx(dynamic_mw)
    assert result["static_mw"] == pytest.approx(77 * 1.1 + 16 * 2.5)


def test_coefficients_follow_from_the_measurements_they_name():
    counters_pj = (641.3 - 613.5) * 1.219 / 12 / 196
    assert pytest.approx(counters_pj * 28 / 2, rel=0.02) == FAMILIES["ice40"].toggle_pj
    clock_pj = (2184 - 388.4) * 1.219 / (48 - 6)
    assert pytest.approx(clock_pj, rel=0.01) == FAMILIES["ice40"].clock_pj
    core_ua = 1419 - 16 * (2573 - 1419) / (48 - 16) - 85.6
    assert pytest.approx((core_ua + 120) * 1.219 / 1000, rel=0.05) == FAMILIES["ice40"].pll_mw
    chains_pj = [
        (557.9 - 61.5) * 1000 / 90 / 24_288,
        (2102.1 - 176.9) * 1000 / 90 / 83_640,
    ]
    assert chains_pj[0] < FAMILIES["ecp5"].toggle_pj < chains_pj[1]


def test_says_formula_sources_and_uncertainty():
    result = estimate("ulx3s-85f")
    assert "FPGA-DS-02012" in result["source"]
    assert "fpga-reg-power" in result["source"]
    assert result["uncertainty"] == UNCERTAINTY
    for term in ("static_mw", "activity", "clock_mhz", "bram"):
        assert term in result["formula"]


def test_a_board_without_power_figures_has_no_estimate():
    board = dataclasses.replace(boards.load("icebreaker"), power=None)
    assert energy(board, USED, activity=0.25, clock_mhz=24, fps=1) is None


def test_fewer_frames_a_second_take_more_each():
    assert estimate(fps=6_000.0)["uj_per_frame"] == pytest.approx(2 * estimate()["uj_per_frame"])


@given(
    st.sampled_from(boards.names()),
    st.sampled_from(["lut", "bram", "clock", "activity"]),
    st.floats(1.1, 10),
)
def test_more_of_anything_takes_more_power(board, what, factor):
    used = {"lut": 1000, "ff": 100, "bram": 10}
    if what in used:
        more = estimate(board, {**used, what: used[what] * factor})
    else:
        clock = 24.0 * (factor if what == "clock" else 1)
        more = estimate(
            board, used, clock_mhz=clock, activity=0.25 * (factor if what == "activity" else 1)
        )
    assert more["dynamic_mw"] > estimate(board, used)["dynamic_mw"]


def test_activity_is_half_where_all_layers_always_work():
    rows = [{"lut_estimated": 100, "cycles": 64}, {"lut_estimated": 900, "cycles": 64}]
    assert activity(rows, 64) == pytest.approx(0.5)


def test_activity_weighs_layers_by_their_size():
    rows = [{"lut_estimated": 100, "cycles": 64}, {"lut_estimated": 300, "cycles": 16}]
    assert activity(rows, 64) == pytest.approx(0.5 * (100 * 1 + 300 * 0.25) / 400)


def test_a_plan_is_estimated_before_synthesis():
    lowered = lower(load(MINI))
    board = boards.load("icebreaker")
    planned = plan(lowered, board, target_fps=10_000)
    result = planned_energy(board, planned, layer_results(lowered, planned))
    total = planned.total + planned.link
    assert result["uj_per_frame"] == pytest.approx(
        (result["static_mw"] + result["dynamic_mw"]) / planned.fps * 1000
    )
    assert result == energy(
        board,
        {"lc": total.cells, "bram": total.bram},
        activity=result["activity"],
        clock_mhz=planned.clock_mhz,
        fps=planned.fps,
    )
    assert 0 < result["activity"] <= 0.5
