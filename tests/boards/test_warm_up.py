"""Tools are made ready in the background, and nobody waits for one that is not there."""

import pytest

from xnorflow.boards import tools
from xnorflow.boards.tools import Tool, WarmUp
from xnorflow.errors import UserError


def test_each_yowasp_tool_is_run_once_in_order(monkeypatch):
    ran = []
    monkeypatch.setattr(tools, "find", lambda name: Tool(name, (name,), "1.0 (YoWASP)"))
    monkeypatch.setattr(tools.subprocess, "run", lambda command, **_: ran.append(command))
    warm = WarmUp(["yosys", "nextpnr-ice40"])
    warm.wait("nextpnr-ice40")
    assert ran == [["yosys", "--version"], ["nextpnr-ice40", "--version"]]


def test_native_tools_are_left_alone(monkeypatch):
    ran = []
    monkeypatch.setattr(tools, "find", lambda name: Tool(name, (name,), "0.70"))
    monkeypatch.setattr(tools.subprocess, "run", lambda command, **_: ran.append(command))
    WarmUp(["yosys"]).wait("yosys")
    assert ran == []


@pytest.mark.parametrize("error", [UserError("not installed"), OSError("no such file")])
def test_a_tool_that_is_not_there_is_not_waited_for(monkeypatch, error):
    def find(name):
        raise error

    monkeypatch.setattr(tools, "find", find)
    WarmUp(["yosys"]).wait("yosys")
