"""What several sub-commands share: options, reading inputs, writing results."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from xnorflow.boards.board import Board
from xnorflow.boards.board import load as load_board
from xnorflow.datasets import load_npz
from xnorflow.errors import UserError
from xnorflow.files import check_writable
from xnorflow.frames import PreparedFrames, digits_for, prepare, scale_hint
from xnorflow.frontend import read
from xnorflow.frontend.options import ImportOptions
from xnorflow.import_check import lower_verified
from xnorflow.lowered import LoweredNetwork
from xnorflow.network import Network
from xnorflow.planning import Plan, plan
from xnorflow.sim.verify import ENGINES

__all__ = [
    "check_count",
    "check_files",
    "check_writable",
    "data_option",
    "divisor_option",
    "engine_option",
    "folding_options",
    "frames_option",
    "import_options",
    "in_options",
    "json_option",
    "load_lowered",
    "make_plan",
    "objective_options",
    "optional_board",
    "read_frames",
    "write_json",
]

#: What a folding is chosen by, as arguments of `xnorflow.planning.plan`.
WANTED = ("target_fps", "fastest", "min_area", "latency", "folding", "utilization")

json_option = click.option(
    "--json", "json_file", metavar="FILE", help="Also write the result as one JSON object."
)
data_option = click.option(
    "--data",
    metavar="FILE.npz",
    help="Frames x and labels y; without it, the MNIST digits that come with xnorflow.",
)

divisor_option = click.option(
    "--divide-by",
    type=float,
    metavar="D",
    help="Divide the data by D first, e.g. 255 for a network trained on pixels from 0 to 1.",
)
engine_option = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="Simulator: cxxrtl is compiled first and then fast, netlist is the synthesised core; auto "
    "is amaranth for short runs and cxxrtl for others.",
)


class _Number(click.ParamType):
    """An exact number, such as 0.5, -1 or 1/255."""

    name = "number"
    _SHORT = re.compile(r"[+-]?[0-9.]{1,32}(e[+-]?[0-9]{1,2})?(/[0-9]{1,32})?", re.IGNORECASE)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction:
        """Return the number as a fraction."""
        if isinstance(value, Fraction):
            return value
        try:
            if self._SHORT.fullmatch(value):
                return Fraction(value)
        except (ValueError, ZeroDivisionError):
            pass
        self.fail(f"{value!r} is no number; give one such as 0.5, -1 or 1/255", param, ctx)


def import_options(command: Callable) -> Callable:
    """Add what a model file may not tell, as `options`, and whether to check the import."""

    @click.option(
        "--sign-zero",
        type=click.Choice(["+1", "-1"]),
        help="What ONNX's Sign, which gives 0 for 0, is to give for it.",
    )
    @click.option(
        "--input-scale",
        type=_Number(),
        default=Fraction(1),
        metavar="S",
        help="The network was trained on S * byte + O, such as 1/255 and 0; frames are bytes.",
    )
    @click.option(
        "--input-offset",
        type=_Number(),
        default=Fraction(0),
        metavar="O",
        help="See --input-scale.",
    )
    @click.option(
        "--verify-import/--no-verify-import",
        default=None,
        help="Compare the import with onnx's reference executor on random frames; without either, "
        "if it takes no more than half a second.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        sign_zero: str | None,
        input_scale: Fraction,
        input_offset: Fraction,
        **kwargs: Any,
    ) -> Any:
        sign = None if sign_zero is None else int(sign_zero)
        return command(*args, options=ImportOptions(sign, input_scale, input_offset), **kwargs)

    return wrapped


def frames_option(default: int | None) -> Callable[[Callable], Callable]:
    """Return the option --frames, which takes the first N frames of the data."""
    return click.option(
        "--frames",
        type=int,
        default=default,
        metavar="N",
        show_default=default is not None,
        help="Take the first N frames" + ("." if default is not None else " (default: all)."),
    )


def folding_options(command: Callable) -> Callable:
    """Add --board, and what a folding is chosen by; the command gets the latter as `wanted`."""

    @click.option("--board", metavar="BOARD", help="Board name or .toml file; see boards.")
    @objective_options
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped


def objective_options(command: Callable) -> Callable:
    """Add what a folding is chosen by; the command gets it as `wanted`, arguments of `plan`."""

    @click.option("--target-fps", type=float, metavar="F", help="Frames a second to reach.")
    @click.option("--max", "fastest", is_flag=True, help="The fastest folding that fits.")
    @click.option("--min-area", is_flag=True, help="The folding of fewest LUTs, at any speed.")
    @click.option("--latency", is_flag=True, help="The folding of least latency that fits.")
    @click.option("--folding", metavar="FILE.json", help="PE and SIMD of every layer.")
    @click.option(
        "--utilization",
        type=float,
        metavar="SHARE",
        help="Share of LUTs and block RAMs to use, such as 0.85 (default: all block RAMs, and "
        "0.92 of the LUTs of an iCE40, 0.6 of an ECP5's).",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        wanted = {name: kwargs.pop(name) for name in WANTED}
        return command(*args, wanted=wanted, **kwargs)

    return wrapped


def load_lowered(
    model: str, options: ImportOptions | None = None, verify_import: bool | None = None
) -> tuple[Network, LoweredNetwork]:
    """Read a model file and lower it; check both as :func:`xnorflow.import_check.verify` says."""
    return lower_verified(read(model, options), verify_import)


def optional_board(name: str | None) -> Board | None:
    """Return the board of that name, or None for None."""
    return None if name is None else load_board(name)


def check_count(frames: int | None) -> None:
    """Refuse a number of frames below 1."""
    if frames is not None and frames < 1:
        raise UserError(f"--frames is {frames} but must be at least 1")


def read_frames(
    data: str | None, lowered: LoweredNetwork, frames: int | None, divide_by: float | None = None
) -> PreparedFrames:
    """Return the first `frames` frames of a data file; `divide_by` is that of `prepare`.

    Raises
    ------
    UserError
        If the file or its frames do not suit the network.
    """
    check_count(frames)
    if data is None:
        x, y = digits_for(lowered)
    else:
        source = load_npz(data)
        x, y = source.x, source.y
    name = data or "the digits that come with xnorflow"
    try:
        chosen = prepare(lowered, x[:frames], None if y is None else y[:frames], divide_by)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    hint = scale_hint(lowered, chosen.x) if divide_by is None else None
    if hint is not None:
        here = [click.get_current_context().command]
        click.echo(f"note: {name}: {in_options(hint, here)}", err=True)
    return chosen


def make_plan(lowered: LoweredNetwork, board: Board | None, wanted: Mapping[str, Any]) -> Plan:
    """Choose a folding as the options of `folding_options` say."""
    return plan(lowered, board, **wanted)


def write_json(path: str | None, result: Mapping[str, Any]) -> None:
    """Write the result of a command where the user asked for it."""
    if path is None:
        return
    try:
        Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path} cannot be written: {error.strerror}") from None


def in_options(message: str, commands: Iterable[click.Command]) -> str:
    """Return a message of ours with options where it names arguments of Python functions.

    They have the same names, so that ```target_fps=5000``` becomes ``--target-fps 5000``, and a
    flag's ```flag=False``` becomes ``--no-flag``.
    """
    options = {"x": "--data"}
    opposites = {}
    for command in commands:
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name is not None:
                options[parameter.name] = parameter.opts[0]
                for opposite in parameter.secondary_opts:
                    opposites[parameter.name] = opposite

    def option(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if name not in options:
            return match[0]
        if name in opposites and value == "False":
            return opposites[name]
        return f"{options[name]} {value}" if value not in (None, "True") else options[name]

    return re.sub(r"`(?P<name>\w+)(=(?P<value>[^`]*))?`", option, message)


def check_files(files: Mapping[str, str | None], *inputs: str | None) -> None:
    """Refuse files that cannot be written, that are written twice, or that are read too.

    Parameters
    ----------
    files : mapping of str to str or None
        What is to be written, by option; None is fine.
    inputs : str or None
        What is read.

    Raises
    ------
    UserError
        That names the option.
    """
    used = {Path(name).resolve(): "an input" for name in inputs if name is not None}
    for option, path in files.items():
        check_writable(path, option)
        if path is None:
            continue
        place = Path(path).resolve()
        if place in used:
            raise UserError(f"{option} {path} is {used[place]} too; name another file")
        used[place] = f"the file of {option}"
