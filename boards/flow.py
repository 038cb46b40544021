"""From a top level to a bitstream whose timing is met.

::

    elaborate ─► synthesise core ─► synthesise top ─► place and route ─► pack
        ▲         (once)                                   │
        └───────── another clock, if `clock` is auto ◄─────┘

The core does not depend on the clock, only the PLL, the reset delay and the link's divider do. So
the module `core` of the top level is synthesised by itself, once, and each attempt at a clock maps
only what is around it.
"""

import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.build.run import BuildPlan

from xnorflow.boards import reports
from xnorflow.boards.board import Board
from xnorflow.boards.pll import PLLSetting, solve
from xnorflow.boards.refine import refine
from xnorflow.boards.reports import PNRReport, Usage
from xnorflow.boards.tools import Progress, Tool, ToolFailed, find, run
from xnorflow.elaboration import uncollected
from xnorflow.errors import UserError, WorkFailed
from xnorflow.hw.link.protocol import uart_divisor

__all__ = [
    "SEED",
    "BuildResult",
    "DoesNotFit",
    "Placement",
    "TimingNotMet",
    "build",
    "check_seeds",
    "first_clock",
    "staged",
    "synthesis_command",
]

MARGIN = Fraction(3, 100)
"""How far below the frequency that one attempt reached the next one aims: another clock is another
placement, and those differ by a few percent."""

ATTEMPTS = 4
"""Most clocks that `auto` tries."""

MARKER = ".xnorflow"
"""Empty file that says that a folder is ours to replace."""

SEED = 1
"""nextpnr's random seed unless another is given: the same design gives the same bitstream."""

NO_PLACE = r"no B[Ee]Ls remaining|[Uu]nable to (?:find|place)|[Ff]ailed to (?:place|find)"
"""What nextpnr's error lines say when a device is too full, although each resource would do."""

CROWDED = 0.4
"""Share of an ECP5's LUTs or block RAMs above which its design is placed by another algorithm.

Measured with nextpnr 0.11 on an 85F, 30 % of the LUTs and 87 % of the block RAMs: the usual placer
leaves wires of 395,000 tiles, for which there are no routes in sight after half an hour; the other
one 284,000, and they are routed in four minutes, at 102 MHz. A small design comes out slower so."""

CORE = "top.core"
"""RTLIL name of the core below a top level called `top`."""

READ = "read_rtlil top.il\nrename -hide w:*]"
"""Read the design without Amaranth's alias wires for the parts of a layout.

ABC9 takes such a wire, ``\\o__payload[1]``, for that bit of a port ``\\o__payload`` and then loses
logic without a word: https://github.com/YosysHQ/yosys/issues/4349.
"""

SYNTHESIS = {
    # UltraPlus is slower than LP and HX by different factors, which ABC should know.
    "ice40": "synth_ice40 -device {speed}",
    # Wide LUTs double the area of XNOR-popcount (measured: 4.97 against 2.56 LUT4 a lane).
    "ecp5": "synth_ecp5 -nowidelut",
}


def synthesis_command(board: Board) -> str:
    """Return yosys' command that maps a design to the cells of a board's device."""
    speeds = {"iCE40UP": "u", "iCE5LP": "u", "iCE40LP": "lp"}
    speed = next((s for d, s in speeds.items() if board.device.startswith(d)), "hx")
    return SYNTHESIS[board.family].format(speed=speed)


class DoesNotFit(WorkFailed):
    """A design needs more than the device has.

    Attributes
    ----------
    board : str
        Name of the board.
    resources : dict of str to Usage
        All that is known of what the design takes.
    exceeded : tuple of str
        The resources that do not suffice; empty when each does but the placer found no place.
    """

    def __init__(self, board: Board, resources: dict[str, Usage], reason: str = ""):
        self.board, self.resources = board.name, resources
        self.exceeded = tuple(n for n, each in resources.items() if each.used > each.available)
        if self.exceeded:
            parts = [
                f"{resources[n].used} {n} of {resources[n].available} available"
                for n in self.exceeded
            ]
            message = f"the design does not fit {board.name}: it needs {' and '.join(parts)}"
        else:
            message = f"the design does not fit {board.name}: {reason}"
        super().__init__(message)


class TimingNotMet(WorkFailed):
    """A design does not reach the clock.

    Attributes
    ----------
    board : str
        Name of the board.
    wanted_mhz, fmax_mhz : float
        The clock asked for and the one reached.
    possible_mhz : float or None
        A clock that the board can make and that should work; None if there is none.
    """

    def __init__(
        self, board: Board, wanted_mhz: float, fmax_mhz: float, possible_mhz: float | None
    ):
        self.board, self.wanted_mhz, self.fmax_mhz = board.name, wanted_mhz, fmax_mhz
        self.possible_mhz = possible_mhz
        mend = (
            f"`clock_mhz={self.possible_mhz:g}` should work"
            if self.possible_mhz is not None
            else "no clock that the board can make is slow enough"
        )
        short = 100 * (1 - fmax_mhz / self.wanted_mhz)
        super().__init__(
            f"timing is not met on {board.name}: the design reaches {fmax_mhz:.2f} MHz, "
            f"{short:.1f} % short of {self.wanted_mhz:g} MHz; {mend}"
        )


@dataclass(frozen=True)
class Placement:
    """What one seed gave.

    Attributes
    ----------
    clock_mhz : float
        The clock that was asked for.
    seed : int
        nextpnr's.
    fmax_mhz : float or None
        The frequency reached; None if this seed found no place.
    """

    clock_mhz: float
    seed: int
    fmax_mhz: float | None


@dataclass(frozen=True)
class BuildResult:
    """A bitstream, or after synthesis alone none, and what is known of it.

    Attributes
    ----------
    board, device : str
        Name of the board and its chip.
    setting : PLLSetting
        How the clock is made.
    clock_mhz : float
        The clock of the core.
    fmax_mhz : float or None
        The greatest clock that place and route reached, which is not less; None if that did not
        run, and then nothing says that `clock_mhz` can be met.
    resources : dict of str to Usage
        What the whole top level takes, by ``lut``, ``ff``, ``bram``, ``dsp`` and, once placed,
        ``io``, ``pll`` and, on iCE40, ``lc`` (logic cells) and ``spram``.
    core_resources : dict of str to Usage
        What the core alone takes after synthesis: ``lut``, ``ff``, ``bram``, ``dsp``.
    tools : dict of str to str
        Versions.
    seconds : dict of str to float
        Wall time by step, all attempts together.
    attempts : tuple of (float, float)
        Each clock that was tried and the frequency reached, with the best seed, MHz.
    bitstream : str or None
        The file to load into the FPGA, in the output folder.
    logs : tuple of str
        What the tools printed, paths from the output folder.
    seed : int or None
        The seed of the placement that the bitstream has.
    seeds : tuple of Placement
        Every placement, by clock and then in the order that the seeds were given.
    """

    board: str
    device: str
    setting: PLLSetting
    clock_mhz: float
    fmax_mhz: float | None
    resources: dict[str, Usage]
    core_resources: dict[str, Usage]
    tools: dict[str, str]
    seconds: dict[str, float]
    attempts: tuple[tuple[float, float], ...]
    bitstream: str | None
    logs: tuple[str, ...]
    seed: int | None = None
    seeds: tuple[Placement, ...] = ()


@dataclass(frozen=True)
class _Attempt:
    """One placed and routed design."""

    setting: PLLSetting
    seed: int
    folder: Path
    pack: list[str]
    report: PNRReport
    resources: dict[str, Usage]

    @property
    def met(self) -> bool:
        return self.report.fmax_mhz >= self.setting.frequency


def build(
    top: Callable[[PLLSetting], Any],
    board: Board,
    clock: float | None,
    outdir: Path,
    progress: Progress | None = None,
    usable: Callable[[PLLSetting], bool] | None = None,
    enough_mhz: float | None = None,
    seeds: Sequence[int] = (SEED,),
    fast: bool = False,
) -> BuildResult:
    """Make a bitstream.

    Parameters
    ----------
    top : callable
        Gives a new top level, such as a :class:`~xnorflow.boards.top.BoardTop`, for a clock. What
        it calls its submodule ``core`` must not depend on the clock.
    board : Board
        What to build for.
    clock : float or None
        Core clock in MHz: the nearest that the board can make and that is not above it. None means
        *auto*: the board's planned clock first, then what that attempt showed to be possible.
    outdir : Path
        An existing folder for the bitstream and, in ``build/``, the tools' files and logs. After a
        failure the logs are there too. See :func:`staged`.
    progress : Progress, optional
        Told each step and what goes on in it.
    usable : callable, optional
        Says whether the link can work at a clock; others are passed over for the next lower one.
        By default a clock will do whose whole divisor comes near enough to the board's baud rate.
    enough_mhz : float, optional
        With *auto*: no faster clock is looked for once this one is met.
    seeds : sequence of int
        Of placement; another one gives another clock, a few percent up or down. Several are placed
        and routed side by side, one a processor, and the best is kept.
    fast : bool
        Stop after synthesis, at `clock` or the planned one: no place and route, no bitstream.

    Raises
    ------
    DoesNotFit
        If the design takes more than the device has.
    TimingNotMet
        If the clock asked for, or with *auto* every clock tried, is not reached.
    ToolFailed
        If a tool ends with an error.
    UserError
        If a tool is not installed or the board cannot make such a clock.
    """
    outdir = Path(outdir)
    usable = usable or _divisible(board)
    setting = first_clock(board, clock, usable)
    check_seeds(seeds)
    flow = _Flow(
        top, board, outdir / "build", progress or (lambda step, message: None), tuple(seeds), fast
    )
    if fast:
        cells = flow.netlist(setting)[2]
        return flow.result(outdir, setting, reports.mapped(cells, board))
    attempt = flow.attempt(setting)
    best = attempt if attempt.met else None
    while clock is None and len(flow.tried) < ATTEMPTS:
        if best is not None and enough_mhz is not None and best.setting.mhz >= enough_mhz:
            break
        following = _next(board, usable, attempt, best)
        if following is None:
            break
        attempt = flow.attempt(following)
        if attempt.met:
            best = attempt
            break
    if best is None:
        fmax_mhz = attempt.report.fmax_mhz
        possible = _below(board, usable, Fraction(fmax_mhz) * (1 - MARGIN))
        possible_mhz = None if possible is None else possible.mhz
        raise TimingNotMet(board, attempt.setting.mhz, fmax_mhz, possible_mhz)
    bitstream = flow.pack(best, outdir)
    return flow.result(outdir, best.setting, best.resources, best, bitstream)


def first_clock(
    board: Board,
    clock: float | None = None,
    usable: Callable[[PLLSetting], bool] | None = None,
) -> PLLSetting:
    """Return the clock that `build` begins with; the parameters are those of `build`.

    Raises
    ------
    UserError
        If the board cannot make such a clock.
    """
    mhz = board.clock.planned_mhz if clock is None else clock
    return solve(board, mhz, usable or _divisible(board))


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that nextpnr would not take, or would repeat.

    Raises
    ------
    UserError
        If they are not one or more different integers from 0 on.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(
            f"`seeds` is {list(seeds)} but must be one or more different integers from 0 on"
        )


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Give a folder ``<output>.partial`` that is renamed to `output` when all went well.

    On success an earlier `output` is replaced. On failure it stays as it was, and what was written,
    the logs above all, stays in ``<output>.partial`` until the next try.

    Parameters
    ----------
    output : Path
        The folder to make.

    Yields
    ------
    Path
        The folder to write in.

    Raises
    ------
    UserError
        If `output` cannot be written, or is there and is not a folder of an earlier build.
    """
    output = Path(output)
    try:
        # A name such as ".." has no sibling; the real one has.
        output = output.resolve()
        partial = output.with_name(output.name + ".partial")
        for folder in (output, partial):
            if folder.exists() and not (folder / MARKER).exists() and _occupied(folder):
                raise UserError(
                    f"{folder} exists and was not made by xnorflow; give another folder with "
                    "`output`"
                )
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        (partial / MARKER).touch()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"output {output} cannot be written ({reason}); give another folder with `output`"
        ) from None
    yield partial
    if output.exists():
        shutil.rmtree(output)
    partial.replace(output)


def _occupied(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())


def _divisible(board: Board) -> Callable[[PLLSetting], bool]:
    """Return whether the board's UART can keep its rate, as a function of the clock."""

    def divisible(setting: PLLSetting) -> bool:
        if board.link is None:
            return True
        try:
            uart_divisor(setting.hz, board.link.baud)
        except ValueError:
            return False
        return True

    return divisible


def _below(board: Board, usable: Callable[[PLLSetting], bool], mhz: Fraction) -> PLLSetting | None:
    """Return the usable clock nearest to `mhz` and not above it, if there is one."""
    try:
        return solve(board, mhz, usable)
    except UserError:
        return None


def _next(
    board: Board,
    usable: Callable[[PLLSetting], bool],
    last: _Attempt,
    best: _Attempt | None,
) -> PLLSetting | None:
    """Return the clock to try after `last`, or None if there is none or it would gain little."""
    aim = Fraction(last.report.fmax_mhz) * (1 - MARGIN)
    if not last.met:
        # Never the same clock again, whatever was reached.
        aim = min(aim, last.setting.frequency * (1 - MARGIN))
    setting = _below(board, usable, aim)
    if (
        setting is not None
        and best is not None
        and setting.frequency <= best.setting.frequency * (1 + MARGIN)
    ):
        return None
    return setting


@dataclass
class _Flow:
    """The steps of a build, with what they share."""

    top: Callable[[PLLSetting], Any]
    board: Board
    folder: Path
    progress: Progress
    seeds: tuple[int, ...]
    fast: bool
    tried: list[tuple[float, float]] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    logs: list[Path] = field(default_factory=list)
    core_resources: dict[str, Usage] = field(default_factory=dict)
    core_source: str = ""
    core_cells: dict[str, int] = field(default_factory=dict)
    tools: list[Tool] = field(init=False)

    def __post_init__(self) -> None:
        family = self.board.family
        self.yosys = find("yosys")
        self.tools = [self.yosys]
        if not self.fast:
            self.nextpnr = find(f"nextpnr-{family}")
            self.packer = find("icepack" if family == "ice40" else "ecppack")
            self.tools += [self.nextpnr, self.packer]

    def result(
        self,
        outdir: Path,
        setting: PLLSetting,
        resources: dict[str, Usage],
        best: _Attempt | None = None,
        bitstream: str | None = None,
    ) -> BuildResult:
        """Say all that is known; `best` and `bitstream` are None after synthesis alone."""
        return BuildResult(
            board=self.board.name,
            device=self.board.device,
            setting=setting,
            clock_mhz=setting.mhz,
            fmax_mhz=None if best is None else best.report.fmax_mhz,
            resources=resources,
            core_resources=self.core_resources,
            tools={"amaranth": version("amaranth"), **{t.name: t.version for t in self.tools}},
            seconds={step: round(value, 3) for step, value in self.seconds.items()},
            attempts=tuple(self.tried),
            bitstream=bitstream,
            # Seeds start in any order.
            logs=tuple(sorted(log.relative_to(outdir).as_posix() for log in self.logs)),
            seed=None if best is None else best.seed,
            seeds=tuple(self.placements),
        )

    @contextmanager
    def step(self, name: str, message: str) -> Iterator[None]:
        """Announce a step and add up its time."""
        self.progress(name, message)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def run(self, tool: Tool, arguments: list[str], folder: Path, log: str, step: str) -> None:
        path = folder / log
        self.logs.append(path)
        run(tool, arguments, folder, path, step, self.progress)

    def netlist(self, setting: PLLSetting) -> tuple[Path, list[list[str]], dict[str, int]]:
        """Elaborate and synthesise for one clock; return folder, tool commands and cells."""
        number = len(self.tried) + 1
        folder = self.folder / f"attempt-{number}"
        with self.step("elaborate", f"{setting.mhz:g} MHz"):
            try:
                folder.mkdir(parents=True)
            except OSError as error:
                raise UserError(
                    f"folder {folder} cannot be made ({error.strerror}); give an empty, writable "
                    "folder for the output"
                ) from None
            platform = self.board.make_platform()
            # Source locations would make the files depend on where the package is installed.
            with uncollected():
                plan = platform.prepare(self.top(setting), "top", emit_src=False)
            commands = _write(plan, folder)
        return folder, commands, self.synthesise(folder)

    def attempt(self, setting: PLLSetting) -> _Attempt:
        """Elaborate, synthesise, place and route for one clock; return the best seed's design."""
        folder, commands, cells = self.netlist(setting)
        step = "place and route"
        several = len(self.seeds) > 1

        def place(seed: int) -> _Attempt | WorkFailed:
            own = folder
            if several:
                own = folder / f"seed-{seed}"
                own.mkdir()
                for file in (*folder.glob("top.json"), *folder.glob("top.[lp][pc]f")):
                    shutil.copyfile(file, own / file.name)
            try:
                return self.place(setting, seed, own, commands, cells)
            except WorkFailed as error:
                return error

        with (
            self.step(step, f"{self.board.device} at {setting.mhz:g} MHz"),
            ThreadPoolExecutor(min(len(self.seeds), os.cpu_count() or 1)) as pool,
        ):
            # nextpnr is a process of its own, so threads do.
            placed = list(pool.map(place, self.seeds))
        done = [each for each in placed if isinstance(each, _Attempt)]
        for seed, each in zip(self.seeds, placed, strict=True):
            fmax_mhz = each.report.fmax_mhz if isinstance(each, _Attempt) else None
            self.placements.append(Placement(setting.mhz, seed, fmax_mhz))
        if not done:
            raise next(each for each in placed if isinstance(each, WorkFailed))
        best = max(done, key=lambda each: each.report.fmax_mhz)
        fmax_mhz = best.report.fmax_mhz
        self.tried.append((setting.mhz, fmax_mhz))
        verdict = "met" if best.met else "not met"
        winner = f" with seed {best.seed}" if several else ""
        self.progress(step, f"reached {fmax_mhz:.1f} MHz{winner}, {setting.mhz:g} MHz {verdict}")
        return best

    def synthesise(self, folder: Path) -> dict[str, int]:
        """Map the design to cells; return how many of each."""
        command = synthesis_command(self.board)
        source = (folder / "top.il").read_text(encoding="utf-8")
        core = _modules(source, CORE)
        script = [f"{READ}\n{command} -top top"]
        if core:
            mapped_core = self.folder / "core.il"
            if core != self.core_source:
                self.synthesise_core(folder, command, mapped_core)
                self.core_source = core
            shutil.copyfile(mapped_core, folder / "core.il")
            script = [
                f"{READ}\nblackbox {CORE}\n{command} -top top\ndelete {CORE}",
                "read_rtlil core.il\nhierarchy -check -top top\nflatten\nopt_clean -purge",
            ]
        script += ["tee -q -o stat.json stat -json", "write_json top.json", ""]
        (folder / "top.ys").write_text("\n".join(script), encoding="utf-8")
        with self.step("synthesise", "clock, link and pins" if core else "the design"):
            self.run(self.yosys, ["top.ys"], folder, "yosys.log", "synthesise")
        cells = reports.read_stat((folder / "stat.json").read_text(encoding="utf-8"))
        core_cells = self.core_cells
        netlist = folder / "top.json"
        design = json.loads(netlist.read_text(encoding="utf-8"))
        before = {name: cell["type"] for name, cell in design["modules"]["top"]["cells"].items()}
        refine(design)
        netlist.write_text(json.dumps(design), encoding="utf-8")
        after = {name: cell["type"] for name, cell in design["modules"]["top"]["cells"].items()}
        cells, core_cells = (
            dict(
                Counter(counts)
                + Counter(kind for name, kind in after.items() if name.startswith(place))
                - Counter(kind for name, kind in before.items() if name.startswith(place))
            )
            for counts, place in ((cells, ""), (core_cells, "core."))
        )
        if core:
            self.core_resources = reports.mapped(core_cells, self.board)
        self.check(reports.mapped(cells, self.board))
        return cells

    def synthesise_core(self, folder: Path, command: str, mapped_core: Path) -> None:
        """Map the core alone."""
        (folder / "core.ys").write_text(
            f"{READ}\n{command} -top {CORE}\n"
            "tee -q -o core-stat.json stat -json\nwrite_rtlil core.il\n",
            encoding="utf-8",
        )
        with self.step("synthesise", "the core"):
            self.run(self.yosys, ["core.ys"], folder, "yosys-core.log", "synthesise")
        (folder / "core.il").replace(mapped_core)
        text = (folder / "core-stat.json").read_text(encoding="utf-8")
        self.core_cells = reports.read_stat(text)
        needed = reports.mapped(self.core_cells, self.board)
        # Some flip-flops will move into block RAMs.
        self.check({name: usage for name, usage in needed.items() if name != "ff"})

    def place(
        self,
        setting: PLLSetting,
        seed: int,
        folder: Path,
        commands: list[list[str]],
        cells: dict[str, int],
    ) -> _Attempt:
        """Place and route with one seed; timing is judged by the caller."""
        # nextpnr's own verdict on timing would hide its report from us.
        options = ["--report", "report.json", "--seed", str(seed), "--timing-allow-fail"]
        options += place_options(self.board.family, reports.mapped(cells, self.board))
        arguments = [word for word in commands[1][1:] if word != "--quiet"] + options
        log = folder / "nextpnr.log"
        try:
            self.run(self.nextpnr, arguments, folder, log.name, "place and route")
        except ToolFailed as error:
            lines = reports.usage_lines(log.read_text(encoding="utf-8", errors="replace"))
            usage = reports.placed(lines, cells, self.board)
            self.check(usage)
            if re.search(NO_PLACE, error.error):
                raise DoesNotFit(self.board, usage, error.error) from error
            raise
        report = reports.read_report((folder / "report.json").read_text(encoding="utf-8"))
        if not report.clocks:
            raise WorkFailed(
                f"nextpnr found no path between flip-flops, so the design for {self.board.name} is "
                f"empty (the whole log: {log})"
            )
        usage = reports.placed(report.cells, cells, self.board)
        self.check(usage)
        return _Attempt(setting, seed, folder, commands[2][1:], report, usage)

    def pack(self, attempt: _Attempt, outdir: Path) -> str:
        """Write the bitstream of a routed design; return the name of its file."""
        with self.step("pack", "bitstream"):
            self.run(self.packer, attempt.pack, attempt.folder, "pack.log", "pack")
        suffix = ".bin" if self.board.family == "ice40" else ".bit"
        bitstream = self.board.name + suffix
        shutil.copyfile(attempt.folder / f"top{suffix}", outdir / bitstream)
        return bitstream

    def check(self, usage: dict[str, Usage]) -> None:
        if any(each.used > each.available for each in usage.values()):
            raise DoesNotFit(self.board, usage)


def place_options(family: str, usage: Mapping[str, Usage]) -> list[str]:
    """Return how nextpnr places and routes a design, other than by its defaults.

    Parameters
    ----------
    family : str
    usage : mapping of str to Usage
        What the netlist takes at the least.
    """
    fullest = max(usage[name].used / usage[name].available for name in ("lut", "bram"))
    if family == "ecp5" and fullest > CROWDED:
        return ["--placer", "static"]
    return []


def _write(plan: BuildPlan, folder: Path) -> list[list[str]]:
    """Write the design and its pins into `folder`; return Amaranth's tool commands."""
    for name in plan.files:
        if name.endswith((".il", ".pcf", ".lpf")):
            content = plan.files[name]
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(data)
    commands: list[list[str]] = json.loads(plan.files["build_top.json"])["commands"]
    return commands


def _modules(rtlil: str, name: str) -> str:
    """Return the RTLIL of module `name` and of those below it; empty if there is none."""
    text = re.findall(
        rf"^module \\{re.escape(name)}(?:\.\S*)?$.*?^end$", rtlil, re.MULTILINE | re.DOTALL
    )
    return "\n".join(text)
