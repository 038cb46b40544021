"""The main job: model → folding → verified core → bitstream → report, in one output folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xnorflow import __version__
from xnorflow.assemble import assemble
from xnorflow.boards.board import Board
from xnorflow.boards.flow import SEED, BuildResult, DoesNotFit, check_seeds, staged
from xnorflow.boards.flow import build as build_bitstream
from xnorflow.boards.pll import PLLSetting
from xnorflow.boards.tools import WarmUp
from xnorflow.boards.top import BoardTop
from xnorflow.energy import activity, energy
from xnorflow.errors import UserError, WorkFailed
from xnorflow.frames import PreparedFrames
from xnorflow.golden import predict_quantized
from xnorflow.hw.core import StreamingCore
from xnorflow.hw.link.host_link import UARTHostLink
from xnorflow.hw.link.protocol import LinkParameters
from xnorflow.lowered import LoweredNetwork
from xnorflow.planning import Plan, core_budget, plan
from xnorflow.progress import Progress, quiet
from xnorflow.report import Digit, write
from xnorflow.results import layer_results, shortcut_results
from xnorflow.sim.verify import Verification, verify

__all__ = ["Build", "Request", "board_top", "build", "link_parameters"]

#: Times that the fastest folding is tried again with less of the device after a design did not fit.
RETRIES = 3

#: Digits that the report shows.
SHOWN = 12


@dataclass(frozen=True)
class Request:
    """What is to be built.

    Attributes
    ----------
    lowered : LoweredNetwork
    board : Board
    target_fps, folding, fastest, min_area, latency, utilization
        See `xnorflow.planning.plan`.
    simulated : int
        The first so many frames are simulated.
    clock_mhz : float or None
        None chooses the clock from what the design reaches.
    seeds : sequence of int
        Of placement; of several the one with the best clock is kept.
    fast : bool
        A quick look: synthesis only, no place and route and no bitstream.
    engine : str
        Of the simulation; see `xnorflow.sim.verify.verify`.
    command : str or None
        How to repeat the build, for the report.
    notes : tuple of str
        What came up before, one sentence each.
    """

    lowered: LoweredNetwork
    board: Board
    target_fps: float | None = None
    folding: str | Path | Mapping[str, Any] | None = None
    fastest: bool = False
    min_area: bool = False
    latency: bool = False
    utilization: float | None = None
    simulated: int = 20
    clock_mhz: float | None = None
    seeds: Sequence[int] = (SEED,)
    fast: bool = False
    engine: str = "auto"
    command: str | None = None
    notes: Sequence[str] = ()

    def plan(self, shrink: float = 1.0) -> Plan:
        """Choose the folding, with less of the device if `shrink` is below 1."""
        return plan(
            self.lowered,
            self.board,
            target_fps=self.target_fps,
            folding=self.folding,
            fastest=self.fastest,
            min_area=self.min_area,
            latency=self.latency,
            utilization=self.utilization,
            clock_mhz=self.clock_mhz,
            shrink=shrink,
        )


@dataclass(frozen=True, eq=False)
class Build:
    """A verified design and its bitstream, which a quick look lacks.

    Attributes
    ----------
    report : dict
        The content of ``report.json``; ``docs/report.md`` lists its keys.
    output : Path
        The folder with bitstream, reports and the tools' logs.
    verification : Verification
        The simulation before the build.
    plan : Plan
        The folding, and its estimated cost.
    """

    report: dict[str, Any]
    output: Path
    verification: Verification
    plan: Plan

    @property
    def bitstream(self) -> Path | None:
        """The file that is loaded into the device; None after a quick look."""
        name = self.report["bitstream"]
        return None if name is None else self.output / name

    @property
    def page(self) -> Path:
        """The report for people."""
        return self.output / "report.html"

    @property
    def clock_mhz(self) -> float:
        """Clock of the core, which place and route reached; after a quick look, the planned one."""
        return self.report["clock_mhz"]

    @property
    def fps(self) -> float:
        """Frames a second of the core at that clock."""
        return self.report["fps"]

    @property
    def latency_us(self) -> float:
        """From a frame's first input beat to its last output beat in an idle core."""
        return self.report["latency_us"]


def link_parameters(
    core: StreamingCore, lowered: LoweredNetwork, board: Board, clock_hz: int
) -> LinkParameters:
    """Return what the serial link of `core` on `board` is built from.

    Raises
    ------
    UserError
        If the board has no link, or its rate cannot be made from the clock.
    """
    if board.link is None:
        raise UserError(f"board {board.name} has no [link] to a host; add one to its file")
    layout = core.o.payload.shape()
    try:
        return LinkParameters(
            i_lanes=core.i_lanes,
            i_beats=core.i_beats,
            o_lanes=core.o_lanes,
            o_beats=core.o_beats,
            width=layout["scores"].shape.elem_shape.width,
            classes=core.classes,
            clock_hz=clock_hz,
            baud=board.link.baud,
            digest=lowered.digest(),
        )
    except ValueError as error:
        raise UserError(f"board {board.name}, link: {error}") from None


def board_top(
    core: StreamingCore, lowered: LoweredNetwork, board: Board, setting: PLLSetting
) -> BoardTop:
    """Return `core` behind the serial link of `board`, with everything else that the chip holds.

    Raises
    ------
    UserError
        If the board has no link, or its rate cannot be made from the clock.
    """
    link = UARTHostLink(link_parameters(core, lowered, board, setting.hz))
    return BoardTop(core, link, board, setting)


def build(
    request: Request,
    frames: PreparedFrames,
    output: Path | None = None,
    progress: Progress = quiet,
) -> Build:
    """Verify a network's hardware in simulation and build its bitstream.

    Nothing is left behind under `output` unless everything succeeded; then it holds the bitstream,
    ``report.json``, ``report.html`` and the tools' logs.

    Parameters
    ----------
    request : Request
    frames : PreparedFrames
    output : Path, optional
        Folder to make; an earlier build there is replaced. Without it ``build-NETWORK-BOARD``.
    progress : callable
        Told every step.

    Returns
    -------
    Build

    Raises
    ------
    UserError
        If an input is wrong.
    WorkFailed
        If a frame differs, the design does not fit, timing or the target is missed.
    """
    if request.simulated < 1:
        raise UserError(f"`frames` is {request.simulated} but must be at least 1")
    check_seeds(request.seeds)
    if output is None:
        output = Path(f"build-{request.lowered.name}-{request.board.name}")
    shrink = 1.0
    for attempt in range(RETRIES + 1):
        planned = request.plan(shrink)
        try:
            with staged(output) as folder:
                verification, report = _build(request, planned, frames, folder, progress)
            return Build(report, output, verification, planned)
        except DoesNotFit as error:
            shrink *= _overrun(error, request.board, planned)
            if not (request.fastest or request.latency) or attempt == RETRIES:
                raise WorkFailed(f"{error}{_what_fits(request, shrink)}") from error
            progress("fold", f"{error}; trying a smaller folding", 0, None)
    raise AssertionError("unreachable")


def _build(
    request: Request, planned: Plan, frames: PreparedFrames, folder: Path, progress: Progress
) -> tuple[Verification, dict[str, Any]]:
    lowered, board = request.lowered, request.board
    # While the simulation runs; only a first use takes long.
    tools = WarmUp(["yosys"] if request.fast else ["yosys", f"nextpnr-{board.family}"])
    start = time.monotonic()
    core = assemble(lowered, planned.folding, board.family)
    # The cells of a family are simulated as a netlist only.
    simulated = core if request.engine == "netlist" else assemble(lowered, planned.folding)
    seconds = {"assemble": time.monotonic() - start}

    count = min(request.simulated, len(frames))
    verification = verify(
        simulated,
        lowered,
        frames.quantized[:count],
        None if frames.y is None else frames.y[:count],
        engine=request.engine,
        progress=progress,
        plan=planned,
        board=board,
    )
    seconds["simulate"] = verification.seconds
    if verification.mismatches:
        raise WorkFailed(
            f"the hardware differs from the golden model in {verification.mismatches} of "
            f"{count} simulated frames; no bitstream was built"
        )

    progress("prepare", "YoWASP compiles the tools on their first use (up to a minute)", 0, None)
    tools.wait("yosys")

    enough_mhz = None
    if request.target_fps is not None:
        enough_mhz = request.target_fps * core.cycles_per_frame / 1e6
    result = build_bitstream(
        lambda setting: board_top(core, lowered, board, setting),
        board,
        request.clock_mhz,
        folder,
        lambda step, message: progress(step, message, 0, None),
        enough_mhz=enough_mhz,
        seeds=request.seeds,
        fast=request.fast,
    )
    seconds.update(result.seconds)
    report = _report(request, planned, core, frames, verification, result, seconds)
    wanted_fps = None if request.fast else request.target_fps
    if wanted_fps is not None and report["fps"] < wanted_fps:
        raise WorkFailed(
            f"`target_fps={wanted_fps:.0f}` is missed: {report['fps']:,.0f} frames/s at "
            f"{result.clock_mhz:g} MHz, {100 * (1 - report['fps'] / wanted_fps):.1f} % "
            f"short; plan for a slower clock with `clock_mhz={result.clock_mhz:g}`"
        )
    _write(report, frames, verification, lowered, folder)
    return verification, report


def _report(
    request: Request,
    planned: Plan,
    core: StreamingCore,
    frames: PreparedFrames,
    verification: Verification,
    result: BuildResult,
    seconds: dict[str, float],
) -> dict[str, Any]:
    lowered, board = request.lowered, request.board
    clock_hz = result.clock_mhz * 1e6
    link = link_parameters(core, lowered, board, round(clock_hz))
    total = planned.total + planned.link
    estimated = {kind: getattr(total, kind) for kind in ("lut", "ff", "bram", "dsp")}
    estimated["lc"] = total.cells
    ii = core.cycles_per_frame
    fps = clock_hz / ii
    layers = [
        {**row, "ii": ii, "busy": row["cycles"] / ii} for row in layer_results(lowered, planned)
    ]
    accuracy = None
    if frames.y is not None:
        accuracy = float((predict_quantized(lowered, frames.quantized).classes == frames.y).mean())
    return {
        "model": lowered.name,
        "digest": lowered.digest(),
        "board": board.name,
        "device": result.device,
        "clock_mhz": result.clock_mhz,
        "fmax_mhz": result.fmax_mhz,
        "cycles_per_frame": ii,
        "latency_cycles": core.latency,
        "latency_us": core.latency / result.clock_mhz,
        "fps": fps,
        "target_fps": request.target_fps,
        "fast": request.fast,
        "energy": energy(
            board,
            {name: usage.used for name, usage in result.resources.items()},
            activity=activity(layers, ii),
            clock_mhz=result.clock_mhz,
            fps=fps,
        ),
        "resources": {
            name: {
                "used": usage.used,
                "available": usage.available,
                "estimated": round(estimated[name]) if name in estimated else None,
            }
            for name, usage in result.resources.items()
        },
        "core_resources": {name: usage.used for name, usage in result.core_resources.items()},
        "layers": layers,
        "fifos": planned.fifos,
        "shortcuts": shortcut_results(lowered, planned),
        "verification": verification.as_json(),
        "accuracy": {"frames": len(frames.quantized), "accuracy": accuracy},
        "link": {
            "baud": link.baud,
            "bytes_per_frame": link.frame_wire_bytes,
            "fps": link.frames_per_second(),
        },
        "tools": {"xnorflow": __version__, **result.tools},
        "bitstream": result.bitstream,
        "program": (
            board.info.program.format(bitstream=result.bitstream) if result.bitstream else None
        ),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "attempts": [list(attempt) for attempt in result.attempts],
        "seed": result.seed,
        "seeds": [asdict(placement) for placement in result.seeds],
        "command": request.command,
        "notes": [*request.notes, *planned.notes, *verification.notes],
    }


def _write(
    report: dict[str, Any],
    frames: PreparedFrames,
    verification: Verification,
    lowered: LoweredNetwork,
    folder: Path,
) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write(report, folder / "report.html", _digits(frames, verification, lowered))


def _digits(
    frames: PreparedFrames, verification: Verification, lowered: LoweredNetwork
) -> list[Digit]:
    """Return the first simulated frames as pictures, if they are pictures."""
    shape = lowered.input.shape if len(lowered.input.shape) > 1 else frames.x.shape[1:]
    if frames.x.dtype != np.uint8 or len(shape) not in (2, 3):
        return []
    return [
        Digit(
            image=frames.x[k].reshape(shape),
            label=None if frames.y is None else int(frames.y[k]),
            predicted=int(verification.classes[k]),
            scores=verification.scores[k].tolist(),
        )
        for k in range(min(SHOWN, verification.frames))
    ]


def _overrun(error: DoesNotFit, board: Board, planned: Plan) -> float:
    """Return by which factor fewer LUTs must be planned with, after a design did not fit."""
    usage = error.resources.get("lc") or error.resources.get("lut")
    if usage is None or not usage.used:
        return 0.8
    estimated = (planned.total + planned.link).cells
    return min(0.9, estimated / usage.used)


def _what_fits(request: Request, shrink: float) -> str:
    """Say which folding should fit."""
    try:
        best = plan(
            request.lowered,
            request.board,
            fastest=True,
            clock_mhz=request.clock_mhz,
            shrink=shrink,
        )
    except WorkFailed:
        return "; take a larger board"
    budget = core_budget(request.board, request.lowered, shrink)
    return (
        f"; by the estimate {best.cycles_per_frame:,} cycles a frame would fit "
        f"({best.total.cells:.0f} of {budget.lut:.0f} LUT for the core): "
        f"`target_fps={int(best.fps)}`"
    )
