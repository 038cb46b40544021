"""The four calls that a notebook needs: load, predict, simulate, build.

They do what the commands of the same names do, quietly, and give numpy arrays. ``docs/python.md``
shows them at work.

Errors are `xnorflow.UserError` (a wrong argument, told in one sentence) and `xnorflow.WorkFailed`
(honest work that failed: a design that does not fit, timing not met).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from numpy.typing import ArrayLike

from xnorflow.assemble import assemble
from xnorflow.boards.board import Board
from xnorflow.boards.board import load as load_board
from xnorflow.boards.flow import SEED
from xnorflow.builder import Build, Request
from xnorflow.builder import build as build_bitstream
from xnorflow.errors import UserError
from xnorflow.frames import PreparedFrames, digits_for, prepare, scale_hint
from xnorflow.frontend import read
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import Prediction, predict_quantized
from xnorflow.import_check import lower_verified
from xnorflow.lowered import LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import Network
from xnorflow.planning import plan
from xnorflow.progress import Progress, quiet
from xnorflow.sim.verify import Verification, verify

if TYPE_CHECKING:
    import torch

__all__ = ["build", "load", "predict", "simulate"]

Folding = str | Path | Mapping[str, Any]
"""A folding file, or its content: layer name to ``{"pe": 8, "simd": 16}``."""

_lowered: WeakKeyDictionary[Network, LoweredNetwork] = WeakKeyDictionary()
"""What networks that are still in use were lowered to."""


def load(
    model: str | Path | torch.nn.Module,
    *,
    input_shape: tuple[int, ...] | None = None,
    sign_zero: int | None = None,
    input_scale: float | Fraction = 1,
    input_offset: float | Fraction = 0,
    name: str | None = None,
    verify_import: bool | None = None,
) -> Network:
    """Read a trained network from a file or from a live module.

    Parameters
    ----------
    model : str, Path or torch.nn.Module
        A model file, or a torch or Brevitas module, which is exported in memory; the page
        ``docs/importing.md`` tells which networks are accepted. A module is left as it was.
    input_shape : tuple of int, optional
        Of a module: the shape of one frame as the module takes it, without the batch dimension.
    sign_zero : int, optional
        What ``torch.sign`` and ONNX's Sign, which give 0 for 0, are to give for it: +1 or -1.
        Without it they are accepted where their input is never 0.
    input_scale, input_offset : float or Fraction
        The network was trained on ``input_scale * byte + input_offset``, and that arithmetic is not
        in the model; frames are then bytes. A float stands for the simplest fraction that it is
        the nearest float to, so that ``1 / 255`` is exactly that.
    name : str, optional
        The network's name; without it, the file's stem or the module's class.
    verify_import : bool, optional
        Whether to compare what was read with onnx's reference executor on random frames; without
        it, if that takes no more than half a second.

    Returns
    -------
    Network
        ``input_shape`` is the shape of its frames, images (H, W, C); ``notes`` say what was
        dropped or assumed.

    Raises
    ------
    UserError
        The model cannot be read or exported, or an argument is wrong.
    xnorflow.frontend.obstacles.ModelRefused
        A `UserError`: the model cannot become hardware. ``obstacles`` holds all the reasons.
    WorkFailed
        The import was checked and differs from the model.

    Examples
    --------
    >>> network = load("models/mnist_mini.onnx")
    >>> network.input_shape, network.classes
    ((28, 28, 1), 10)
    """
    options = ImportOptions(
        sign_zero, _exact(input_scale, "input_scale"), _exact(input_offset, "input_offset")
    )
    imported = read(model, options, input_shape=input_shape, name=name)
    network, lowered = lower_verified(imported, verify_import)
    _lowered[network] = lowered
    return network


def predict(
    network: Network | str | Path, x: ArrayLike, *, divide_by: float | None = None
) -> Prediction:
    """Classify frames with the golden model, which computes the integers that the hardware does.

    Parameters
    ----------
    network : Network, or str or Path of a model file
    x : array, shape (N, *network.input_shape) or (N, F)
        Frames in the network's own units: uint8, float32 or others that fit these.
    divide_by : float, optional
        Divide the frames by this first, in float32, such as 255 for a network trained on pixels
        from 0 to 1.

    Returns
    -------
    Prediction
        Arrays ``classes`` (N,), ``scores``, ``accumulators`` and ``logits`` (N, classes).

    Raises
    ------
    UserError
        The frames do not suit the network.

    Warns
    -----
    UserWarning
        If it is likely that the frames should be divided by 255.
    """
    lowered = _lower(network)[1]
    return predict_quantized(lowered, _frames(lowered, x, None, divide_by).quantized)


def simulate(
    network: Network | str | Path,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    board: str | Path | Board | None = None,
    target_fps: float | None = None,
    folding: Folding | None = None,
    fastest: bool = False,
    min_area: bool = False,
    latency: bool = False,
    utilization: float | None = None,
    engine: str = "auto",
    stall: float = 0.0,
    seed: int = 0,
    layers: bool = False,
    vcd: str | Path | None = None,
    divide_by: float | None = None,
    progress: Progress = quiet,
) -> Verification:
    """Send frames through the hardware in simulation and compare each with the golden model.

    Parameters
    ----------
    network, x, divide_by
        See :func:`predict`. A frame takes from a fraction of a second to minutes.
    y : array of int, shape (N,), optional
        Labels.
    board : str, Path or Board, optional
        What the folding is chosen for; without it, an ECP5 of any size at 100 MHz.
    target_fps : float, optional
        Take the smallest folding for so many frames a second.
    folding : dict, str or Path, optional
        Take this folding instead: a file, or its content, such as
        ``{"fc1": {"pe": 8, "simd": 16}, ...}``; the `folding` of a plan fits too.
    fastest, min_area, latency : bool
        Take the fastest folding that fits, that of fewest LUTs at any speed, or that of least
        latency. Without any of these, a target or a folding, the target is 10,000 frames a second,
        or as much of it as fits.
    utilization : float, optional
        Share of the board's LUTs and block RAMs that may be taken; by default 0.92 of the
        LUTs of an iCE40, 0.6 of an ECP5's, and all block RAMs.
    engine : str
        The simulator: ``amaranth``; ``cxxrtl``, which compiles the hardware to C++ first and is
        then hundreds of times faster; ``netlist``, which runs the cells that synthesis for `board`
        makes; or ``auto``, which takes one of the first two. All give the same.
    stall : float
        Probability of an idle cycle before every beat: random back-pressure.
    seed : int
        Seed of the stalls.
    layers : bool
        Check every layer's output stream too (slower).
    vcd : str or Path, optional
        Write the waveforms of all signals here.
    progress : callable
        ``progress(step, message, done, total)`` is told how far the work is.

    Returns
    -------
    Verification
        ``mismatches`` counts the frames in which any bit differs. ``classes`` (N,) and ``scores``
        (N, classes) are the hardware's; ``plan.folding`` is the folding that was simulated.

    Raises
    ------
    UserError
        An argument is wrong, or the target cannot be reached.
    WorkFailed
        No folding fits the board, or the hardware hangs.
    """
    lowered = _lower(network)[1]
    frames = _frames(lowered, x, y, divide_by)
    planned = plan(
        lowered,
        None if board is None else _board(board),
        target_fps=target_fps,
        folding=folding,
        fastest=fastest,
        min_area=min_area,
        latency=latency,
        utilization=utilization,
    )
    family = _board(board).family if board is not None and engine == "netlist" else None
    return verify(
        assemble(lowered, planned.folding, family),
        lowered,
        frames.quantized,
        frames.y,
        engine=engine,
        stall=stall,
        seed=seed,
        watch_layers=layers,
        vcd=vcd,
        progress=progress,
        plan=planned,
        board=None if board is None else _board(board),
    )


def build(
    network: Network | str | Path,
    board: str | Path | Board,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    target_fps: float | None = None,
    folding: Folding | None = None,
    fastest: bool = False,
    min_area: bool = False,
    latency: bool = False,
    utilization: float | None = None,
    clock_mhz: float | None = None,
    seeds: Sequence[int] = (SEED,),
    fast: bool = False,
    output: str | Path | None = None,
    frames: int = 20,
    engine: str = "auto",
    divide_by: float | None = None,
    progress: Progress = quiet,
) -> Build:
    """Verify the hardware in simulation, then build its bitstream and a report.

    Parameters
    ----------
    network, divide_by
        See :func:`predict`.
    board : str, Path or Board
        Name of a board, or a ``.toml`` file.
    x : array, optional
        Frames to simulate, and to take the accuracy of; without it, the MNIST digits that come with
        xnorflow.
    y : array of int, shape (N,), optional
        Labels of `x`.
    target_fps, folding, fastest, min_area, latency, utilization, engine, progress
        See :func:`simulate`.
    clock_mhz : float, optional
        Clock of the core; without it, what the design reaches, or what `target_fps` needs.
    seeds : sequence of int
        Of placement. Several are placed and routed side by side, and the best clock is kept; the
        report has them all.
    fast : bool
        A quick look: simulation and synthesis only. The report compares the resources used with the
        estimate; there is no bitstream, and frames a second are those of the planned clock, which
        nothing has shown to be met.
    output : str or Path, optional
        Folder to make, or an earlier build's to replace; without it ``build-NETWORK-BOARD``. It is
        left alone unless everything succeeds.
    frames : int
        Simulate the first so many frames.

    Returns
    -------
    Build
        ``report`` is the content of ``report.json``; ``bitstream`` and ``page`` are paths of the
        files, ``fps``, ``clock_mhz`` and ``latency_us`` what was reached, ``verification`` the
        simulation and ``plan`` the folding.

    Raises
    ------
    UserError
        An argument is wrong.
    WorkFailed
        A frame differs, the design does not fit, timing or the target is missed.
    """
    network, lowered = _lower(network)
    chosen = _board(board)
    if x is None:
        if y is not None:
            raise UserError("`y` are labels of `x`, which is not given; give both")
        x, y = digits_for(lowered)
    request = Request(
        lowered=lowered,
        board=chosen,
        target_fps=target_fps,
        folding=folding,
        fastest=fastest,
        min_area=min_area,
        latency=latency,
        utilization=utilization,
        simulated=frames,
        clock_mhz=clock_mhz,
        seeds=seeds,
        fast=fast,
        engine=engine,
        notes=network.notes,
    )
    return build_bitstream(
        request,
        _frames(lowered, x, y, divide_by),
        None if output is None else Path(output),
        progress,
    )


def _lower(network: Network | str | Path) -> tuple[Network, LoweredNetwork]:
    """Return a network and what it lowers to, which is computed once for each network."""
    if isinstance(network, str | Path):
        network = load(network)
    if not isinstance(network, Network):
        raise UserError(
            f"`network` is a {type(network).__name__}; give what xnorflow.load returns, or the "
            "path of a model file"
        )
    if network not in _lowered:
        _lowered[network] = lower(network)
    return network, _lowered[network]


def _frames(
    lowered: LoweredNetwork, x: ArrayLike, y: ArrayLike | None, divide_by: float | None
) -> PreparedFrames:
    frames = prepare(lowered, x, y, divide_by)
    hint = scale_hint(lowered, frames.x) if divide_by is None else None
    if hint is not None:
        warnings.warn(hint, stacklevel=3)
    return frames


def _board(board: str | Path | Board) -> Board:
    return board if isinstance(board, Board) else load_board(board)


def _exact(value: float | Fraction, name: str) -> Fraction:
    """Return a number as a fraction; of a float, the simplest that rounds to it."""
    if isinstance(value, Fraction):
        return value
    if not isinstance(value, Real) or not isfinite(value):
        raise UserError(f"`{name}` is {value!r} but must be a number")
    simple = Fraction(float(value)).limit_denominator(1 << 20)
    return simple if float(simple) == float(value) else Fraction(float(value))
