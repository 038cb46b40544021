"""The bitstream itself, unpacked and simulated: what the chip will be, whatever made it.

::

    .bin ─► iceunpack ─► .asc ─► icebox_vlog ─► Verilog of LUTs, flip-flops, block RAMs ─► CXXRTL

Nothing of the design but the file is used: place and route, packing, block RAM contents and the
PLL's dividers are all in it. Only the iCE40 family has such tools.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from amaranth.build import Subsignal

from xnorflow.boards.board import Board, load
from xnorflow.boards.tools import ToolFailed, find, run
from xnorflow.compare.reports import read_reports
from xnorflow.errors import UserError, WorkFailed
from xnorflow.sim.cxxrtl.compile import Design
from xnorflow.sim.netlist_engine import MODELS, RESOLVE
from xnorflow.sim.run import Timed, wait_at_most
from xnorflow.sim.virtual_board import Circuit

__all__ = ["circuit_of_build", "pin_names", "unpack"]

#: Verilog around the chip. The clock that is simulated is the core's: a PLL hands on what it gets.
WRAPPER = """\
module top (input clk, rx, output tx{led});
chip chip (.clk(clk), .rx(rx), .tx(tx){connected});
endmodule
"""

PLL = """\
module {name} (input PACKAGEPIN, REFERENCECLK, output PLLOUTCORE, PLLOUTGLOBAL,
  input EXTFEEDBACK, input [7:0] DYNAMICDELAY, output LOCK, input BYPASS, RESETB, LATCHINPUTVALUE,
  output SDO, input SDI, SCLK);
{parameters}
assign PLLOUTCORE = {source};
assign PLLOUTGLOBAL = {source};
assign LOCK = 1;
endmodule
"""

#: Of the PLL's primitive; the model has no use for them.
PARAMETERS = (
    *("FEEDBACK_PATH", "DELAY_ADJUSTMENT_MODE_FEEDBACK", "DELAY_ADJUSTMENT_MODE_RELATIVE"),
    *("SHIFTREG_DIV_MODE", "FDA_FEEDBACK", "FDA_RELATIVE", "PLLOUT_SELECT", "DIVR", "DIVF"),
    *("DIVQ", "FILTER_RANGE", "ENABLE_ICEGATE", "TEST_MODE", "EXTERNAL_DIVIDE_FACTOR"),
)

#: The speed that yosys' models want to know makes no difference without delays.
SCRIPT = f"""\
{MODELS["ice40"].format(speed="U")}
delete SB_PLL40_PAD SB_PLL40_CORE
read_verilog chip.v
{RESOLVE}
"""


def pin_names(board: Board) -> dict[str, str]:
    """Return the package's pins by what the top level uses them for: clk, rx, tx and perhaps led.

    Raises
    ------
    UserError
        If the board has no link.
    """
    if board.link is None:
        raise UserError(f"board {board.name} has no [link] to a host; add one to its file")
    platform = board.make_platform()

    def pin(resource: tuple[str, int], part: str | None = None) -> str:
        ios = platform.lookup(*resource).ios
        if part is not None:
            ios = next(io.ios for io in ios if isinstance(io, Subsignal) and io.name == part)
        return ios[0].names[0]

    pins = {
        "clk": pin((platform.default_clk, 0)),
        "rx": pin(board.link.resource, "rx"),
        "tx": pin(board.link.resource, "tx"),
    }
    if board.led is not None:
        pins["led"] = pin(board.led.resource)
    return pins


def unpack(bitstream: Path, board: Board) -> Design:
    """Return what a bitstream for `board` makes of the device, ready for a virtual board.

    Parameters
    ----------
    bitstream : Path
    board : Board
        Of the iCE40 family; tells the pins.

    Raises
    ------
    UserError
        If the board is of another family, the file is no bitstream, or a tool is missing.
    WorkFailed
        If a tool fails.
    """
    if board.family != "ice40":
        raise UserError(
            f"board {board.name} is of the family {board.family}, whose bitstreams no open tool "
            "turns into a netlist; emulate the model instead"
        )
    vlog = shutil.which("icebox_vlog")
    if vlog is None:
        raise UserError(
            "icebox_vlog, which reads bitstreams, is not on the PATH; it comes with Project "
            "IceStorm (Debian and Ubuntu: the package fpga-icestorm)"
        )
    pins = pin_names(board)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            shutil.copyfile(bitstream, folder / "chip.bin")
        except OSError as error:
            raise UserError(f"{bitstream} cannot be read ({error.strerror})") from None
        try:
            unpacker, log = find("iceunpack"), folder / "unpack.log"
            run(unpacker, ["chip.bin", "chip.asc"], folder, log, "unpack", lambda step, text: None)
        except ToolFailed as failed:
            raise UserError(f"{bitstream} is no iCE40 bitstream ({failed.error})") from None
        constraints = "".join(f"set_io {signal} {pin}\n" for signal, pin in pins.items())
        (folder / "chip.pcf").write_text(constraints, encoding="utf-8")
        package = board.make_platform().package.lower()
        arguments = ["-s", "-n", "chip", "-p", "chip.pcf", "-d", package, "chip.asc"]
        done = subprocess.run([vlog, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorkFailed(f"icebox_vlog cannot read {bitstream}: {reason}")
    led = "led" in pins
    return Design(
        SCRIPT,
        {"chip.v": _verilog(done.stdout, led)},
        defines=("XNORFLOW_LED",) if led else (),
        optimise="-O1",
    )


def circuit_of_build(folder: Path) -> tuple[dict[str, Any], Circuit]:
    """Return the report of a build, and the circuit that its bitstream makes of the chip.

    Parameters
    ----------
    folder : Path
        The output folder of a build; timing, clock and rate are those of its report.

    Raises
    ------
    UserError
        If it is none, or is a quick look without a bitstream; and see `unpack`.
    WorkFailed
        If a tool fails.
    """
    columns, _ = read_reports(folder)
    report = columns[0].report
    name = report.get("bitstream")
    if len(columns) > 1 or not isinstance(name, str):
        raise UserError(f"{folder} holds no bitstream; give the output folder of xnorflow build")
    try:
        clock_hz = round(report["clock_mhz"] * 1e6)
        baud, wire = int(report["link"]["baud"]), int(report["link"]["bytes_per_frame"])
        times = SimpleNamespace(
            latency=int(report["latency_cycles"]), cycles_per_frame=int(report["cycles_per_frame"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: its report lacks {error}; build again with this xnorflow"
        ) from None
    # A frame goes from its slot to the core in at most two cycles a bit.
    patience = wait_at_most(cast(Timed, times), 0.0) + 16 * wire
    return report, Circuit(unpack(folder / name, load(report["board"])), clock_hz, baud, patience)


def _verilog(chip: str, led: bool) -> str:
    """Return the chip with its surroundings."""
    # An output that is off floats; here it is low, and then the link's tests tell.
    chip = chip.replace("1'bz", "1'b0")
    # The pad of a clock that feeds the PLL directly is no net inside the chip.
    chip = re.sub(r"\.PACKAGEPIN\(\w+\)", ".PACKAGEPIN(clk)", chip)
    parameters = "\n".join(f"parameter {name} = 0;" for name in PARAMETERS)
    plls = "".join(
        PLL.format(name=name, source=source, parameters=parameters)
        for name, source in (("SB_PLL40_PAD", "PACKAGEPIN"), ("SB_PLL40_CORE", "REFERENCECLK"))
    )
    led_port, led_pin = (", led", ", .led(led)") if led else ("", "")
    return chip + WRAPPER.format(led=led_port, connected=led_pin) + plls
