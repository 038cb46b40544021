"""The top level: reset, pins and streams, on a stand-in platform in the simulator."""

import dataclasses
import re
from fractions import Fraction

import pytest

from xnorflow import boards
from xnorflow.boards.pll import solve
from xnorflow.boards.top import RESET_US, BoardTop
from xnorflow.errors import UserError

ICE40 = boards.load("icebreaker")


def test_bits_go_from_the_rx_pin_through_link_and_core_to_the_tx_pin(tiny_top, pins_of) -> None:
    top = tiny_top(ICE40)(solve(ICE40, 12))
    idle = 2 * RESET_US * 12
    out = pins_of(top, "0" * idle + "1" + "0" * 24)
    # The link sends what followed the one, complemented by the core: 0 then seven ones.
    assert "01111111" in out[idle:]
    assert "0" not in out[:idle]


def test_reset_is_held_for_the_time_that_block_ram_needs(tiny_top, pins_of) -> None:
    top = tiny_top(ICE40)(solve(ICE40, 12))
    # Ones at rx make the link send zeros at once when it may.
    out = pins_of(top, "1" * (RESET_US * 12 + 40))
    assert "0" not in out[: RESET_US * 12]
    assert "0" in out


def test_lamp_blinks_and_eight_times_as_fast_while_results_pass(tiny_top, pins_of) -> None:
    # At 64 Hz: half a period takes 64 cycles, or 8.
    setting = dataclasses.replace(solve(ICE40, 12), frequency=Fraction(64, 10**6))

    def lengths(rx: str) -> list[int]:
        lamp = pins_of(tiny_top(ICE40)(setting), rx, "led")
        return [len(run) for run in re.findall("0+|1+", lamp)]

    assert lengths("0" * 300)[1:4] == [64, 64, 64]
    # A one at rx makes results pass; the next time that the lamp would change, it is slow again.
    with_result = lengths("0" * 138 + "1" + "0" * 300)
    assert with_result[1] == 64
    assert with_result[4:10] == [8] * 6
    assert with_result[11:14] == [62, 64, 64]


@pytest.mark.parametrize("name", boards.names())
def test_pll_is_instantiated_with_the_setting(tiny_top, name: str) -> None:
    board = boards.load(name)
    setting = solve(board, board.clock.planned_mhz)
    plan = board.make_platform().prepare(tiny_top(board)(setting), "top", emit_src=False)
    rtlil = plan.files["top.il"]
    rtlil = rtlil.decode() if isinstance(rtlil, bytes) else rtlil
    cell = rtlil.split(f"cell \\{setting.kind} ")[1].split("\n  end\n")[0]
    for parameter, value in setting.parameters:
        word = cell.split(f"parameter \\{parameter} ")[1].split()[0]
        _, binary, bits = word.rpartition("'")
        assert int(bits, 2 if binary else 10) == value
    phases = re.findall(r"parameter (?:signed )?\\CLKO\w_FPHASE (\S+)", cell)
    assert [int(phase.rpartition("'")[2], 2) for phase in phases] == [0] * len(phases)
    assert len(phases) == (2 if setting.kind == "EHXPLLL" else 0)
    # All inputs but clocks and the reset of active-low sense are tied to 0.
    tied = re.findall(r"connect \\(\w+) 1'([01])", cell)
    assert {name for name, level in tied if level == "1"} <= {"RESETB"}
    assert len(tied) == {"SB_PLL40_PAD": 2, "SB_PLL40_CORE": 2, "EHXPLLL": 10}[setting.kind]


@pytest.mark.parametrize("name", boards.names())
def test_oscillator_alone_instantiates_no_pll(tiny_top, name: str) -> None:
    board = boards.load(name)
    setting = solve(board, board.clock.oscillator_mhz)
    plan = board.make_platform().prepare(tiny_top(board)(setting), "top", emit_src=False)
    assert board.pll is not None
    assert board.pll.kind not in str(plan.files["top.il"])


def test_board_without_a_link_is_refused(tiny_parts) -> None:
    core, link = tiny_parts
    board = dataclasses.replace(ICE40, link=None)
    with pytest.raises(UserError, match=r"icebreaker has no \[link\] to a host; add one"):
        BoardTop(core(), link(), board, solve(board, 24))


@pytest.mark.parametrize("part", ["link", "led"])
def test_resource_that_the_platform_lacks_is_refused(tiny_top, part: str) -> None:
    table = dataclasses.replace(getattr(ICE40, part), resource=("nothing", 3))
    board = dataclasses.replace(ICE40, **{part: table})
    with pytest.raises(UserError, match="does not give the resource nothing 3"):
        board.make_platform().prepare(tiny_top(board)(solve(board, 24)), "top")


def test_board_without_a_led_needs_none(tiny_top) -> None:
    board = dataclasses.replace(ICE40, led=None)
    plan = board.make_platform().prepare(tiny_top(board)(solve(board, 24)), "top")
    assert "led" not in str(plan.files["top.pcf"])
