"""Broken components do not pass: the checker finds the fault and names the rule that breaks."""

import sys
from types import ModuleType

import pytest
import stream_cases
from mutant import ROOT
from stream_rules import prove_stream

pytestmark = pytest.mark.prove

#: What is wrong, where, the text that goes and the one that comes, a case, and what may break.
FAULTS = [
    (
        "a full FIFO takes beats",
        "fifo.StreamFIFO",
        "self.i.ready.eq(fifo.w_rdy)",
        "self.i.ready.eq(1)",
        (stream_cases.fifo, {"depth": 2}),
        {"content", "crowded", "stuck"},
    ),
    (
        "a FIFO gives its first beat again and again",
        "fifo.StreamFIFO",
        "fifo.r_en.eq(self.o.ready)",
        "fifo.r_en.eq(0)",
        (stream_cases.fifo, {"depth": 2}),
        {"orphan", "content"},
    ),
    (
        "a payload changes while it waits",
        "skid.SkidBuffer",
        "m.d.comb += self.o.payload.eq(caught)",
        "m.d.comb += self.o.payload.eq(self.i.payload)",
        (stream_cases.skid, {}),
        {"stable", "content"},
    ),
    (
        "lanes are swapped",
        "width_converter.WidthConverter",
        "self.o.payload.eq(word.as_value()[:width])",
        "self.o.payload.eq(word.as_value()[-width:])",
        (stream_cases.converter, {"i_lanes": 4, "o_lanes": 1}),
        {"content"},
    ),
    (
        "an empty converter is not ready",
        "width_converter.WidthConverter",
        "step = ~some | self.o.ready",
        "step = some & self.o.ready",
        (stream_cases.converter, {"i_lanes": 4, "o_lanes": 1}),
        {"stuck"},
    ),
    (
        "an address counts one too far",
        "replay_buffer.ReplayBuffer",
        "Mux(pointer == depth - 1, 0, pointer + 1)",
        "Mux(pointer == depth, 0, pointer + 1)",
        (stream_cases.replay, {"length": 3, "times": 2}),
        {"address", "content"},
    ),
    (
        "a buffer wakes up with a word that never came",
        "replay_buffer.ReplayBuffer",
        'depth, 0, "fresh"',
        'depth, 1, "fresh"',
        (stream_cases.replay, {"length": 2, "times": 2}),
        {"orphan", "content", "stable"},
    ),
    (
        "a tie goes to the higher class",
        "argmax.ArgMax",
        "Mux(_more(right.score, left.score), right, left)",
        "Mux(_more(left.score, right.score), left, right)",
        (stream_cases.argmax, {"lanes": 2, "width": 2, "classes": 4}),
        {"content"},
    ),
]


@pytest.fixture
def break_component(monkeypatch):
    """Put a changed class in the place of the one that cases are made of."""

    def replace(where: str, old: str, new: str) -> None:
        file, kind = where.split(".")
        path = ROOT / "hw" / f"{file}.py"
        text = path.read_text()
        assert text.count(old) == 1, f"{path.name} holds the text {text.count(old)} times, not once"
        module = ModuleType(f"broken_{file}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text.replace(old, new), str(path), "exec"), module.__dict__)
        monkeypatch.setattr(stream_cases, kind, getattr(module, kind))

    return replace


@pytest.mark.parametrize(
    ("where", "old", "new", "case", "breaks"),
    [fault[1:] for fault in FAULTS],
    ids=[fault[0].replace(" ", "-") for fault in FAULTS],
)
def test_a_fault_has_a_counterexample(where, old, new, case, breaks, break_component):
    break_component(where, old, new)
    make, parameters = case
    verdict = prove_stream(*make(**parameters))
    assert not verdict.proved
    assert verdict.cycles > 0
    assert verdict.failed
    assert set(verdict.failed) <= breaks


def test_a_valid_that_waits_for_ready_is_seen(break_component):
    offer = "self.o.valid.eq(full | self.i.valid)"
    break_component("skid.SkidBuffer", offer, offer.replace("(full", "(self.o.ready & (full") + ")")
    assert prove_stream(*stream_cases.skid()).tangled == {"valid"}
