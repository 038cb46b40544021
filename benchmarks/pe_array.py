"""At the limit of the devices: LUT4s of a lane and of a synapse, clocks, and compile time.

    python benchmarks/pe_array.py [--family ice40|ecp5] [--no-whole] [--no-clock] [--json FILE]

Counted is what nextpnr places for logic: on iCE40 SB_LUT4s, carries without a LUT and what it adds
to get carries out of a chain; on ECP5 TRELLIS_COMB, which are LUT4s, two a CCU2C and what chains
take to be entered and left. Input and output registers are outside, and so is the memory of weights
and thresholds, which come from registers; everything else is in: accumulators, comparisons, flags.

For each line the table has a target, what is built for the family, the floor of its structure (its
cells counted by pencil), and what plain synthesis makes of a description with a Python sum.
Other designs that were tried stand below.

Clocks are those of whole designs after place and route, asked for at the target, with the seed in
the table: one that reached it, where seed 1 did not. The large one takes a quarter of an hour or
more, and `--no-clock` leaves them out. Compile time is that of
`benchmarks/compilation.py`. Ends with status 1 if a target is not met.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import numpy as np
from amaranth import Cat, Const, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from synthesis import FAMILIES, Mapped, mapped

from xnorflow.assemble import assemble
from xnorflow.boards import board as boards
from xnorflow.boards.flow import TimingNotMet, build
from xnorflow.builder import board_top
from xnorflow.cost import FAMILIES as MODELS
from xnorflow.frontend import load
from xnorflow.hw.accumulator import ThresholdAccumulator, accumulator_width
from xnorflow.hw.agreement import AgreementTree
from xnorflow.hw.counting import COUNTING, Counting
from xnorflow.hw.layouts import BITS
from xnorflow.hw.mvu import counts
from xnorflow.hw.pe_array import array_parts, step_top
from xnorflow.hw.pipeline import delay
from xnorflow.hw.popcount import AdderTree
from xnorflow.hw.shared_counts import SharedCounts
from xnorflow.hw.threshold import ThresholdUnit, threshold_parts
from xnorflow.lowering import lower
from xnorflow.planning import plan

PE, SIMD, FOLDS = 8, 32, 8

#: The least and the largest threshold of each PE: no neuron is always or never on.
THRESHOLDS = np.array([[1] * PE, [SIMD * FOLDS] * PE])

#: LUT4s a lane with weights that change, and with constants; a synapse of a trained layer.
LANE, CONSTANT, SYNAPSE = 2.0, 1.3, 0.8

#: Neurons of the trained layer's slice, and the inputs and neurons of one that plain synthesis does
#: in seconds.
NEURONS, PLAIN = 32, (8, 32)


class RunTime(wiring.Component):
    """A PE array between registers; `kind` says how it counts.

    Parameters
    ----------
    kind : Counting or str
        ``sum``: a Python sum, an accumulator and a comparator. ``tree``: the same with an adder
        tree between registers.
    """

    def __init__(self, kind: Counting | str):
        self.kind, self.top = kind, SIMD * FOLDS
        self.width = accumulator_width(THRESHOLDS, self.top)
        super().__init__(
            {
                "a": In(SIMD),
                "w": In(data.ArrayLayout(SIMD, PE)),
                "t": In(data.ArrayLayout(self.width, PE)),
                "flags": In(3),
                "o": Out(PE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a: Value = self.a
        tree = None
        if isinstance(self.kind, Counting):
            m.submodules.tree = tree = AgreementTree(PE, SIMD, self.kind, late=True)
            a = tree.mix(a)
        a, w, t, flags = (
            delay(m, port, 1, Const(1), f"in_{n}")
            for n, port in enumerate((a, self.w, self.t, self.flags))
        )
        if tree is not None:
            self._built(m, tree, a, w, t, flags)
        else:
            self._plain(m, a, w, t, flags)
        return m

    def _built(
        self,
        m: Module,
        tree: AgreementTree,
        a: Value,
        w: data.View,
        t: data.View,
        flags: Value,
    ) -> None:
        m.submodules.accumulator = accumulator = _RunTimeStarts(
            THRESHOLDS, self.top, tree.top, late=tree.uses_late, counting=self.kind
        )
        accumulator.start = t.as_value()
        flags = delay(m, flags, tree.latency - 1, Const(1), "flags", reset=True)
        m.d.comb += [
            tree.a.eq(a),
            tree.w.eq(w),
            tree.en.eq(1),
            Cat(accumulator.valid, accumulator.first, accumulator.last).eq(flags),
            accumulator.i.eq(tree.o),
            accumulator.late.eq(tree.late),
            accumulator.en.eq(1),
            self.o.eq(accumulator.o),
        ]

    def _plain(self, m: Module, a: Value, w: data.View, t: data.View, flags: Value) -> None:
        latency = 0
        for p in range(PE):
            agree = ~(a ^ w[p])
            if self.kind == "sum":
                count: Value = sum(agree[lane] for lane in range(SIMD))
            else:
                m.submodules[f"tree_{p}"] = tree = AdderTree(SIMD)
                m.d.comb += [tree.i.eq(agree), tree.en.eq(1)]
                count, latency = tree.o, tree.latency
            if p == 0:
                flags = delay(m, flags, latency, Const(1), "flags", reset=True)
            acc = Signal(range(self.top + 1), name=f"acc_{p}")
            kept = acc & ~flags[1].replicate(len(acc))
            with m.If(flags[0]):
                m.d.sync += acc.eq(kept + count)
            m.d.sync += self.o[p].eq(acc >= t[p])


class _RunTimeStarts(ThresholdAccumulator):
    """An accumulator whose starts come from registers instead of a memory."""

    start: Value

    def _start(self, m: Module, width: int) -> Value:
        return self.start


class Fixed(wiring.Component):
    """Neurons with constant weights and thresholds between registers.

    Parameters
    ----------
    weights : ndarray of bool, shape (neurons, inputs)
    thresholds : ndarray of int, shape (neurons,)
        On counts.
    kind : Counting or str
        As of `RunTime`.
    """

    def __init__(
        self, weights: NDArray[np.bool_], thresholds: NDArray[np.integer], kind: Counting | str
    ):
        self.weights, self.kind = weights, kind
        self.neurons, self.inputs = weights.shape
        self.thresholds = thresholds.clip(0, self.inputs + 1)
        super().__init__({"a": In(self.inputs), "o": Out(self.neurons)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = delay(m, self.a, 1, Const(1), "in")
        if isinstance(self.kind, Counting):
            m.submodules.counts = unit = SharedCounts(self.weights, self.kind, late=True)
            m.submodules.head = head = ThresholdUnit(
                self.thresholds[None], self.inputs, late=unit.uses_late
            )
            m.d.comb += [unit.a.eq(a), unit.en.eq(1), head.i.eq(unit.o), head.en.eq(1)]
            m.d.comb += head.late.eq(unit.late)
            m.d.comb += self.o.eq(head.o.as_value())
            return m
        for p, row in enumerate(self.weights):
            agree = Cat(bit if positive else ~bit for bit, positive in zip(a, row, strict=True))
            if self.kind == "sum":
                count: Value = sum(agree)
            else:
                m.submodules[f"tree_{p}"] = tree = AdderTree(self.inputs)
                m.d.comb += [tree.i.eq(agree), tree.en.eq(1)]
                count = tree.o
            m.d.sync += self.o[p].eq(count >= int(self.thresholds[p]))
        return m


def logic(family: str, made: Mapped) -> int:
    """Return the LUT4s of a design, see the top of this file."""
    if family == "ecp5":
        return made.packed("TRELLIS_COMB")
    alone = made.line("LCs used as CARRY only") + made.line("LCs used to legalise carry chains.")
    return made.counts["SB_LUT4"] + alone


#: Board, model, folding (frames a second, or the fastest that fits), target in MHz, and seed. The
#: first one takes half of the device's block RAMs, with 56 cycles a frame; seeds 1 and 2 reach
#: 138.6 and 122.5 MHz, held back by 17 and 5 of 74,220 endpoints.
CLOCKS: tuple[tuple[str, str, float | None, float, int], ...] = (
    ("ulx3s-85f", "mnist_sfc", 150e6 / 56, 150.0, 3),
    ("ice40-hx8k", "mnist_mini", None, 120.0, 1),
    ("icebreaker", "mnist_cnn", 1800.0, 40.0, 1),
)

#: From CNV's file to RTLIL: seconds of processor time, and megabytes.
COMPILE, MEMORY = 10.0, 2000


@dataclass(frozen=True)
class Clock:
    """A whole design after place and route.

    Attributes
    ----------
    board, model : str
    target_mhz, fmax_mhz : float
    seed : int
    latency_cycles : int
    lut_share, bram_share : float
        Of the device; the plan's estimate for a design that misses its clock.
    seconds : float
    met : bool
    """

    board: str
    model: str
    target_mhz: float
    fmax_mhz: float
    seed: int
    latency_cycles: int
    lut_share: float
    bram_share: float
    seconds: float
    met: bool


def clock(board_name: str, model: str, fps: float | None, target: float, seed: int) -> Clock:
    """Place and route a design for its target clock."""
    start = time.monotonic()
    board = boards.load(board_name)
    lowered = lower(load(str(files("xnorflow.models") / f"{model}.onnx")))
    planned = plan(
        lowered,
        board,
        clock_mhz=target,
        target_fps=fps,
        fastest=fps is None,
    )
    core = assemble(lowered, planned.folding, board.family)
    used = (planned.total.lut, planned.total.bram)
    with tempfile.TemporaryDirectory() as folder:
        try:
            built = build(
                lambda setting: board_top(core, lowered, board, setting),
                board,
                target,
                Path(folder),
                seeds=(seed,),
            )
            fmax = built.fmax_mhz or 0.0
            used = (built.resources["lut"].used, built.resources["bram"].used)
        except TimingNotMet as missed:
            fmax = missed.fmax_mhz
    seconds = round(time.monotonic() - start, 1)
    return Clock(
        board_name,
        model,
        target,
        round(fmax, 1),
        seed,
        planned.latency_cycles,
        round(used[0] / board.budget.lut, 3),
        round(used[1] / board.budget.bram, 3),
        seconds,
        fmax >= target,
    )


@dataclass(frozen=True)
class Result:
    """A design and what it takes.

    Attributes
    ----------
    family, line, design : str
    lanes : int
        Lanes or synapses.
    lut, ff : int
        LUT4s; flip-flops without those of the inputs.
    each : float
        LUT4s a lane.
    floor, target : float or None
        Of the design that is built.
    seconds : float
    """

    family: str
    line: str
    design: str
    lanes: int
    lut: int
    ff: int
    each: float
    floor: float | None
    target: float | None
    seconds: float

    @property
    def met(self) -> bool:
        """Whether there is no target or it is met."""
        return self.target is None or self.each <= self.target


def measure(
    family: str,
    line: str,
    design: str,
    unit: wiring.Component,
    lanes: int,
    *,
    floor: float | None = None,
    target: float | None = None,
    command: str | None = None,
) -> Result:
    """Synthesise a design."""
    start = time.monotonic()
    made = mapped(family, unit, command)
    registers = sum(
        n for kind, n in made.counts.items() if kind.startswith(("SB_DFF", "TRELLIS_FF"))
    )
    inputs = sum(
        len(Value.cast(getattr(unit, name)))
        for name, member in unit.signature.members.items()
        if member.flow == In
    )
    lut = logic(family, made)
    seconds = round(time.monotonic() - start, 1)
    each = round(lut / lanes, 3)
    return Result(
        family, line, design, lanes, lut, registers - inputs, each, floor, target, seconds
    )


def pencil(family: str, neurons: int, inputs: int, folds: int, lanes: int) -> float:
    """Return the LUT4s a lane of the structure: each part that is a cell counts 1."""
    model = MODELS[family]
    width = accumulator_width(THRESHOLDS, SIMD * FOLDS) if folds > 1 else 0
    parts = array_parts(
        model, neurons, inputs, folds, BITS, 64 if folds > 1 else 1, width, folds == 1
    )
    if folds == 1:
        zeros = np.zeros((1, neurons), int)
        _, late = step_top(inputs, 1, BITS, True)
        parts |= threshold_parts(model, zeros, inputs, late)
    total = sum(n for part, n in parts.items() if part.endswith(("LUT", "chain bit", "start")))
    if folds > 1 and model.carry_bits == 1:
        total += neurons * bits_for(inputs - 1)  # the starts come in by an OR
    return round(total / lanes, 3)


def designs(family: str, whole: bool, run_time: bool, fixed: bool):
    """Yield the lines of the table."""
    built = COUNTING[family]
    lanes = PE * SIMD
    if run_time:
        line = f"run-time weights, PE {PE} x SIMD {SIMD}"
        floor = pencil(family, PE, SIMD, FOLDS, lanes)
        yield line, f"{built.value}", RunTime(built), lanes, floor, LANE, None
        yield line, "plain sum", RunTime("sum"), lanes, None, None, None
        yield line, "adder trees and comparators", RunTime("tree"), lanes, None, None, None
        for kind in (Counting.LUTS, Counting.CHAINS):
            yield line, f"{kind.value}, described", RunTime(kind), lanes, None, None, None
        if family == "ecp5":
            wide = FAMILIES[family][0].replace(" -nowidelut", "")
            for kind in (built, "sum"):
                name = kind.value if isinstance(kind, Counting) else "plain sum"
                yield line, f"{name}, with wide LUTs", RunTime(kind), lanes, None, None, wide
        else:
            other = FAMILIES[family][0] + " -abc9"
            for kind in (Counting.LUTS, "sum"):
                name = f"{kind.value}, described" if isinstance(kind, Counting) else "plain sum"
                yield line, f"{name}, with -abc9", RunTime(kind), lanes, None, None, other
    if not fixed:
        return
    rng = np.random.default_rng(0)
    weights = rng.random((PE, SIMD)) < 0.5
    thresholds = rng.integers(SIMD // 2 - 4, SIMD // 2 + 4, PE)
    line = f"constant weights, {PE} neurons x {SIMD}"
    floor = pencil(family, PE, SIMD, 1, lanes)
    unit = Fixed(weights, thresholds, built)
    yield line, f"{built.value}, shared", unit, lanes, floor, CONSTANT, None
    for kind, name in (("sum", "plain sum"), ("tree", "adder trees")):
        yield line, name, Fixed(weights, thresholds, kind), lanes, None, None, None

    layer = lower(load(str(files("xnorflow.models") / "mnist_sfc.onnx"))).layers[1]
    least = counts(layer.thresholds, layer.weights, BITS)
    positive = layer.weights > 0
    sizes = [(NEURONS, None)] + ([(layer.mh, SYNAPSE)] if whole else [])
    for neurons, target in sizes:
        synapses = neurons * layer.mw
        line = f"mnist_sfc {layer.name}, {neurons} of {layer.mh} neurons x {layer.mw}"
        floor = pencil(family, neurons, layer.mw, 1, synapses)
        unit = Fixed(positive[:neurons], least[:neurons], built)
        yield line, f"{built.value}, shared", unit, synapses, floor, target, None
    neurons, inputs = PLAIN
    line = f"mnist_sfc {layer.name}, {neurons} neurons x {inputs} inputs"
    part = positive[:neurons, :inputs]
    middle = part.sum(axis=1)
    yield line, "plain sum", Fixed(part, middle, "sum"), neurons * inputs, None, None, None


@click.command()
@click.option("--family", type=click.Choice(sorted(FAMILIES)), multiple=True)
@click.option("--whole/--no-whole", default=True, help="The whole trained layer: minutes.")
@click.option("--run-time/--no-run-time", default=True, help="Weights that change.")
@click.option("--fixed/--no-fixed", default=True, help="Constant weights.")
@click.option("--clock/--no-clock", "clocks", default=True, help="Whole designs: half an hour.")
@click.option("--compile/--no-compile", "compiled", default=True, help="Time to RTLIL.")
@click.option("--json", "json_file", metavar="FILE")
def main(
    family: tuple[str, ...],
    whole: bool,
    run_time: bool,
    fixed: bool,
    clocks: bool,
    compiled: bool,
    json_file: str | None,
) -> None:
    """Measure the PE array for the families asked for, all of them by default."""
    console, results = Console(), []
    console.width = max(console.width, 150)  # in a file too
    for name in family or tuple(sorted(FAMILIES)):
        table = Table(f"{name}: design")
        for heading in ("LUT4", "FF", "a lane", "floor", "target", "", "seconds"):
            table.add_column(heading, justify="right")
        line = ""
        for what, design, unit, lanes, floor, target, command in designs(
            name, whole, run_time, fixed
        ):
            result = measure(
                name, what, design, unit, lanes, floor=floor, target=target, command=command
            )
            results.append(result)
            if what != line:
                line = what
                table.add_section()
                table.add_row(f"[bold]{what}")
            table.add_row(
                design,
                f"{result.lut:,}",
                f"{result.ff:,}",
                f"{result.each:.2f}",
                "" if floor is None else f"{floor:.2f}",
                "" if target is None else f"{target:.2f}",
                "" if target is None else "met" if result.met else "[red]NOT MET",
                f"{result.seconds:.0f}",
            )
        console.print(table)
    verdicts = {True: "met", False: "[red]NOT MET"}
    met = [result.met for result in results]
    report: dict[str, Any] = {
        "area": [asdict(result) | {"met": result.met} for result in results],
    }
    if clocks:
        wanted = [each for each in CLOCKS if not family or boards.load(each[0]).family in family]
        placed = [clock(*each) for each in wanted]
        table = Table(
            "clock", "MHz", "target", "", "seed", "latency, cycles", "LUT", "block RAM", "seconds"
        )
        for one in placed:
            table.add_row(
                f"{one.model} on {one.board}",
                f"{one.fmax_mhz:.1f}",
                f"{one.target_mhz:.0f}",
                verdicts[one.met],
                str(one.seed),
                f"{one.latency_cycles:,}",
                f"{one.lut_share:.0%}",
                f"{one.bram_share:.0%}",
                f"{one.seconds:.0f}",
            )
        console.print(table)
        report["clocks"] = [asdict(one) for one in placed]
        met += [one.met for one in placed]
    if compiled:
        script = Path(__file__).with_name("compilation.py")
        done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
        taken = json.loads(done.stdout)
        fast = taken["cpu_seconds"] < COMPILE and taken["peak_mb"] < MEMORY
        console.print(
            f"{taken['model']} to RTLIL: {taken['cpu_seconds']} s of processor time (target "
            f"{COMPILE:.0f}), {taken['peak_mb']} MB (target {MEMORY}): {verdicts[fast]}"
        )
        report["compile"] = taken | {"target_seconds": COMPILE, "target_mb": MEMORY, "met": fast}
        met.append(fast)
    if json_file is not None:
        Path(json_file).write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
