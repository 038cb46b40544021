"""What several sub-commands share: options, reading inputs, writing results."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from xnorflow.boards.board import Board
from xnorflow.boards.board import load as load_board
from xnorflow.datasets import Frames, load_npz, sample_digits
from xnorflow.errors import UserError
from xnorflow.frontend import load
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import quantize
from xnorflow.lowered import LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import Network
from xnorflow.planning import Plan, plan

__all__ = [
    "check_count",
    "check_writable",
    "data_option",
    "divisor_option",
    "folding_options",
    "frames_option",
    "import_options",
    "json_option",
    "load_lowered",
    "make_plan",
    "optional_board",
    "read_frames",
    "write_json",
]

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
    "divisor",
    type=float,
    metavar="D",
    help="Divide the data by D first, e.g. 255 for a network trained on pixels from 0 to 1.",
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
    """Add what a model file may not tell; the command gets it as `options`."""

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
    """Add --board, --target-fps and --folding."""
    for option in (
        click.option("--folding", metavar="FILE.json", help="PE and SIMD of every layer."),
        click.option("--target-fps", type=float, metavar="F", help="Frames a second to reach."),
        click.option("--board", metavar="BOARD", help="Board name or .toml file; see boards."),
    ):
        command = option(command)
    return command


def load_lowered(
    model: str, options: ImportOptions | None = None
) -> tuple[Network, LoweredNetwork]:
    """Read a model file and lower it."""
    network = load(model, options)
    return network, lower(network)


def optional_board(name: str | None) -> Board | None:
    """Return the board of that name, or None for None."""
    return None if name is None else load_board(name)


def check_count(frames: int | None) -> None:
    """Refuse a number of frames below 1."""
    if frames is not None and frames < 1:
        raise UserError(f"--frames is {frames} but must be at least 1")


def read_frames(
    data: str | None, lowered: LoweredNetwork, frames: int | None, divisor: float | None = None
) -> tuple[Frames, NDArray]:
    """Return the first `frames` frames of a data file, and quantized as the network takes them.

    With a `divisor` quantized is ``float32(x) / float32(divisor)``, as torch's ToTensor
    scales pixels.

    Raises
    ------
    UserError
        If the file or its frames do not suit the network.
    """
    check_count(frames)
    if data is None:
        if math.prod(lowered.input.shape) != 784:
            raise UserError(
                f"the network takes frames of shape {lowered.input.shape}, not MNIST digits; "
                "give frames with --data FILE.npz"
            )
        source = sample_digits()
    else:
        source = load_npz(data)
    chosen = Frames(source.x[:frames], None if source.y is None else source.y[:frames])
    name = data or "the digits that come with xnorflow"
    try:
        quantized = quantize(lowered, _scaled(chosen.x, divisor))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    if divisor is None:
        _hint_at_scale(lowered, chosen.x, name)
    return chosen, quantized


def _scaled(x: NDArray, divisor: float | None) -> NDArray:
    if divisor is None:
        return x
    if not (0 < divisor < float("inf")):
        raise UserError(f"--divide-by is {divisor:g} but must be a positive number")
    return x.astype(np.float32) / np.float32(divisor)


def _hint_at_scale(lowered: LoweredNetwork, x: NDArray, name: str) -> None:
    """Say so where pixels from 0 to 255 meet thresholds for pixels from 0 to 1."""
    thresholds = lowered.input.thresholds
    finite = thresholds[np.isfinite(thresholds)]
    if x.dtype == np.uint8 and finite.size and x.max() > 1 and np.all(np.abs(finite) <= 1):
        click.echo(
            f"note: {name} go up to {x.max()}, but all thresholds of the network lie within -1 and "
            "1; if it was trained on pixels from 0 to 1, give --divide-by 255",
            err=True,
        )


def make_plan(
    lowered: LoweredNetwork,
    board: Board | None,
    target_fps: float | None,
    folding: str | None,
    *,
    as_fast_as_fits: bool = False,
) -> Plan:
    """Choose a folding as the options say."""
    return plan(
        lowered,
        board,
        target_fps=target_fps,
        folding_file=folding,
        as_fast_as_fits=as_fast_as_fits,
    )


def check_writable(path: str | None, option: str) -> None:
    """Refuse, before minutes of work, a file that could not be written after it."""
    if path is None:
        return
    target = Path(path)
    if target.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file")
    if not target.absolute().parent.is_dir():
        raise UserError(f"{option} {path}: the folder {target.parent} does not exist; make it")
    try:
        existed = target.exists()
        with target.open("ab"):
            pass
        if not existed:
            target.unlink()
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written: {error.strerror}") from None


def write_json(path: str | None, result: Mapping[str, Any]) -> None:
    """Write the result of a command where the user asked for it."""
    if path is None:
        return
    try:
        Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path} cannot be written: {error.strerror}") from None
