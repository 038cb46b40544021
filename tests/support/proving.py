"""Prove safety properties of Amaranth modules with the model checker that yosys brings along.

A property is a one-bit output that is never 1. The design becomes an and-inverter graph, and ABC,
which is a part of yosys and of YoWASP's yosys, searches a proof for it: property-directed
reachability (Bradley, *SAT-Based Model Checking without Unrolling*, VMCAI 2011) finds the inductive
invariant by itself, so what it proves holds at all times. Nothing but yosys is needed.
"""

import random
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from amaranth import ClockDomain, Module, Signal
from amaranth.back import rtlil
from amaranth.hdl import Fragment, Value

from xnorflow.boards import tools

__all__ = ["Circuit", "Verdict", "ports_of_memories", "prove"]

# Undefined bits, such as words beyond a memory's end, may be anything at any time.
_TO_GRAPH = (
    "read_rtlil design.il; hierarchy -top top; proc; flatten; opt; memory_collect; memory_map; opt;"
    " setundef -undriven -anyseq; techmap; opt; dffunmap; opt_clean; aigmap; opt_clean;"
    " write_aiger -ascii -symbols -zinit all.aag;"
    " delete -output o:cover_* o:show_*; opt_clean; write_aiger -zinit bad.aig"
)


@dataclass(frozen=True)
class Verdict:
    """What came of a proof.

    Attributes
    ----------
    proved : bool
        No property can fail, at any time.
    failed : tuple of str
        Properties that the counterexample breaks; empty if there is none.
    cycles : int
        Length of the counterexample, 0 without one.
    covered : frozenset of str
        Covers that random inputs reached.
    tangled : frozenset of str
        Shown values that depend on `apart` within the cycle.
    seconds : float
    """

    proved: bool
    failed: tuple[str, ...]
    cycles: int
    covered: frozenset[str]
    tangled: frozenset[str]
    seconds: float


class Circuit:
    """An and-inverter graph with registers, in the ASCII form of AIGER (Biere, 2011)."""

    def __init__(self, text: str):
        lines = text.splitlines()
        _, inputs, latches, outputs, gates = (int(word) for word in lines[0].split()[1:6])
        rows = iter(lines[1:])
        self.inputs = [int(next(rows)) for _ in range(inputs)]
        self.latches = [[int(word) for word in next(rows).split()][:2] for _ in range(latches)]
        self.outputs = [int(next(rows)) for _ in range(outputs)]
        self.gates = [[int(word) for word in next(rows).split()] for _ in range(gates)]
        self.input_names = [f"input_{n}" for n in range(inputs)]
        self.output_names = [f"output_{n}" for n in range(outputs)]
        for row in rows:
            if row == "c":
                break
            place, name = row.split(maxsplit=1)
            if place[0] == "i":
                self.input_names[int(place[1:])] = name
            elif place[0] == "o":
                self.output_names[int(place[1:])] = name

    def run(self, stimuli: Iterable[list[int]], width: int) -> Iterable[dict[str, int]]:
        """Simulate `width` copies side by side; give the outputs of each cycle.

        Parameters
        ----------
        stimuli : iterable of list of int
            For each cycle a word an input; bit n is for copy n.
        width : int
        """
        ones = (1 << width) - 1
        values = [0] * (2 + 2 * max((row[0] // 2 for row in [[0], *self.gates]), default=0))
        size = max([1, *self.inputs, *(row[0] for row in self.latches)])
        values += [0] * max(0, size + 2 - len(values))
        values[1] = ones
        state = [0] * len(self.latches)
        for words in stimuli:
            for literal, word in zip(self.inputs, words, strict=True):
                values[literal], values[literal ^ 1] = word, word ^ ones
            for (literal, _), word in zip(self.latches, state, strict=True):
                values[literal], values[literal ^ 1] = word, word ^ ones
            for gate, left, right in self.gates:
                word = values[left] & values[right]
                values[gate], values[gate ^ 1] = word, word ^ ones
            yield {
                name: values[literal]
                for name, literal in zip(self.output_names, self.outputs, strict=True)
            }
            state = [values[after] for _, after in self.latches]

    def covered(self, cycles: int, copies: int = 256) -> frozenset[str]:
        """Return the outputs that are 1 at some time under random inputs, busy and idle ones."""
        rng = random.Random(1)

        def stimuli() -> Iterable[list[int]]:
            for _ in range(cycles):
                # A quarter of the copies has mostly ones, so that streams run freely there.
                busy = (1 << copies // 4) - 1
                yield [
                    rng.getrandbits(copies) | (rng.getrandbits(copies) & busy) for _ in self.inputs
                ]

        return frozenset(
            name
            for outputs in self.run(stimuli(), copies)
            for name, word in outputs.items()
            if word
        )

    def depending(self, name: str) -> frozenset[str]:
        """Return the outputs that depend on the input `name` within the cycle."""
        reached = {
            literal // 2
            for literal, other in zip(self.inputs, self.input_names, strict=True)
            if other.split("[")[0] == name
        }
        for gate, left, right in self.gates:
            if left // 2 in reached or right // 2 in reached:
                reached.add(gate // 2)
        return frozenset(
            output
            for output, literal in zip(self.output_names, self.outputs, strict=True)
            if literal // 2 in reached
        )


def ports_of_memories(fragment: Fragment) -> list[tuple[Value, Value, int]]:
    """Return enable, address and depth of each port of each memory within `fragment`."""
    found = []
    for part, _, _ in fragment.subfragments:
        for port in [*getattr(part, "_read_ports", ()), *getattr(part, "_write_ports", ())]:
            found.append((Value.cast(port._en), Value.cast(port._addr), part._data.depth))
        found += ports_of_memories(part)
    return found


def prove(
    harness: Module,
    inputs: Mapping[str, Signal],
    bad: Mapping[str, Value],
    *,
    cover: Mapping[str, Value] | None = None,
    show: Mapping[str, Value] | None = None,
    apart: str = "",
    limit_s: int = 120,
) -> Verdict:
    """Prove that no value of `bad` is ever other than 0.

    Parameters
    ----------
    harness : Module
        What is examined. Its clock domain has no reset.
    inputs : mapping of str to Signal
        Signals that may be anything at any time.
    bad, cover : mapping of str to Value
        Properties, and what must be possible so that the proof says something.
    show : mapping of str to Value
        Values that must not depend on the input `apart` within the cycle.
    limit_s : int
        Seconds after which the search gives up.
    """
    start = time.monotonic()
    clock = ClockDomain("sync", reset_less=True)
    harness.domains += clock
    ports: list[Signal] = [clock.clk]
    for name, signal in inputs.items():
        signal.name = name
        ports.append(signal)
    for kind, values in (("bad", bad), ("cover", cover or {}), ("show", show or {})):
        for name, value in values.items():
            value = Value.cast(value)
            port = Signal(len(value) if kind == "show" else 1, name=f"{kind}_{name}")
            harness.d.comb += port.eq(value if kind == "show" else value.any())
            ports.append(port)
    text = rtlil.convert(harness, name="top", ports=ports)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        (place / "design.il").write_text(text)
        # ABC is reached through the pass that maps logic with it, on a gate of our own.
        (place / "gate.il").write_text(
            "module \\gate\n  wire input 1 \\a\n  wire input 2 \\b\n  wire output 3 \\y\n"
            "  cell $_AND_ \\g\n    connect \\A \\a\n    connect \\B \\b\n    connect \\Y \\y\n"
            "  end\nend\n"
        )
        steps = f"strash; backup; read_aiger bad.aig; pdr -T {limit_s};"
        steps += " write_status status; restore; map"
        script = (
            f"{_TO_GRAPH}; design -reset; read_rtlil gate.il;"
            f' abc -script "+{steps.replace("; ", ";").replace(" ", ",")}"'
        )
        tool = tools.find("yosys")
        done = subprocess.run(
            [*tool.command, "-q", "-l", "log", "-p", script],
            cwd=place,
            capture_output=True,
            text=True,
        )
        status = place / "status"
        if not status.exists():
            log = (place / "log").read_text()[-2000:] if (place / "log").exists() else ""
            raise RuntimeError(f"yosys wrote no status: {done.stderr[-2000:]}\n{log}")
        words = status.read_text().split("\n")
        circuit = Circuit((place / "all.aag").read_text())
        # Yosys may have simplified every property to 0; without a register ABC's search refuses.
        header, *lines = (place / "bad.aig").read_bytes().split(b"\n")
        latches, outputs, gates = (int(word) for word in header.split()[3:6])
        trivial = not gates and not latches and set(lines[:outputs]) == {b"0"}
    verdict = words[0].split()[0]
    failed: list[str] = []
    cycles = 0
    if verdict == "snl_SAT":
        # The counterexample is run again here: the solver is not believed on its word.
        stimulus = [int(bit) for bit in words[2].strip()]
        count = len(circuit.inputs)
        cycles = len(stimulus) // count
        rows = [stimulus[cycle * count : (cycle + 1) * count] for cycle in range(cycles)]
        for outputs_now in circuit.run(rows, 1):
            failed += [
                name[4:] for name, word in outputs_now.items() if name[:4] == "bad_" and word
            ]
    reached = circuit.covered(200) if cover else frozenset()
    return Verdict(
        proved=trivial or verdict == "snl_UNSAT",
        failed=tuple(dict.fromkeys(failed)),
        cycles=cycles,
        covered=frozenset(name[6:] for name in reached if name.startswith("cover_")),
        tangled=frozenset(
            name[5:].split("[")[0]
            for name in (circuit.depending(apart) if apart else ())
            if name.startswith("show_")
        ),
        seconds=time.monotonic() - start,
    )
