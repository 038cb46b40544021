"""From a live torch or Brevitas module to a :class:`~xnorflow.frontend.graph.Graph`, in memory.

Modules are traced by torch's TorchScript exporter with every parameter as it is. It writes each
operation that it sees; the newer exporter folds batch norms into the layers before them, which
rounds, and a sum that lay on a threshold then falls on either side of it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from math import prod
from typing import TYPE_CHECKING, Any, TypeGuard

import onnx

from xnorflow.errors import UserError
from xnorflow.frontend.graph import MAX_FRAME, Graph
from xnorflow.frontend.reader import graph_of

if TYPE_CHECKING:
    import torch

__all__ = ["is_module", "read_module"]

_BATCH = 2
"""Frames that are traced; with a batch of 1 some modules drop that dimension."""

_OPSET = 17
"""Standard operator set, of 2022; every torch with this exporter knows it."""

_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
"""Usual ranges of pixels."""

_PACKAGES = "onnxoptimizer onnxscript"
"""What exporting needs besides onnx; neither torch nor Brevitas installs them."""


def is_module(model: object) -> TypeGuard[torch.nn.Module]:
    """Tell whether an object is a torch module, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def read_module(module: torch.nn.Module, input_shape: tuple[int, ...] | None) -> Graph:
    """Export a module, and read what was exported.

    The module is evaluated as in inference and left as it was. Nothing is written or printed.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor of frames (N, *input_shape) and gives one of scores.
    input_shape : tuple of int
        Shape of a frame without the batch dimension, as the module takes it: ``(1, 28, 28)``.

    Returns
    -------
    Graph
        With the class name of the module as its path.

    Raises
    ------
    UserError
        `input_shape` is missing or does not suit the module, the module branches by values, the
        exporter does not take it, or a package that exporting needs is missing.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    name = type(module).__name__
    shape = _frame_shape(input_shape, name)
    with _inference(module), _silence(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = _frames(module, shape)
        _try(module, frames, name)
        export = _export_brevitas if _is_brevitas(module) else _export_torch
        try:
            constant = _takes_one_path(module, frames)
            model = export(module, frames)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{name}: exporting the module needs other packages ({_first_line(error)}); "
                f"install them with: pip install {_PACKAGES}"
            ) from error
        except Exception as error:  # exporters raise whatever they meet
            raise UserError(
                f"{name}: torch cannot export the module ({_first_line(error)}); "
                "leave out what is no tensor operation, or export it to ONNX yourself"
            ) from error
    if not constant:
        raise UserError(
            f"{name}: what the module computes depends on the values of its frames in a way that "
            "cannot be exported, such as an if; compute the same for all frames"
        )
    return graph_of(model, name)


def _frame_shape(shape: Any, name: str) -> tuple[int, ...]:
    example = "such as (1, 28, 28)"
    if shape is None:
        raise UserError(
            f"{name}: a module does not tell what frames it takes; give `input_shape`, the shape "
            f"of one frame without the batch dimension, {example}"
        )
    sizes = tuple(shape) if isinstance(shape, list | tuple) else ()
    if not sizes or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise UserError(
            f"{name}: `input_shape` is {shape!r} but must be the shape of one frame without the "
            f"batch dimension, {example}"
        )
    if prod(sizes) > MAX_FRAME:
        raise UserError(
            f"{name}: `input_shape` has {prod(sizes)} values a frame; at most {MAX_FRAME} are legal"
        )
    return sizes


@contextmanager
def _inference(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into inference, and put everything back afterwards.

    A forward pass may change parameters too: Brevitas clips the weights that it quantizes.
    """
    import torch

    training = [(part, part.training) for part in module.modules()]
    tensors = [(t, t.detach().clone()) for t in [*module.parameters(), *module.buffers()]]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, state in training:
            part.training = state
        for tensor, value in tensors:
            tensor.data.copy_(value)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter from printing its whole graph when it fails; it has no option for that."""
    import torch

    log = getattr(torch._C, "_jit_onnx_log", None)
    if log is None:
        yield
        return
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


def _frames(module: torch.nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """Return frames of zeros, where and in which type the module computes."""
    import torch

    for parameter in module.parameters():
        if parameter.is_floating_point():
            return torch.zeros(_BATCH, *shape, dtype=parameter.dtype, device=parameter.device)
    return torch.zeros(_BATCH, *shape)


def _try(module: torch.nn.Module, frames: torch.Tensor, name: str) -> None:
    """Run a module once, so that its own errors are not taken for the exporter's."""
    shape = tuple(frames.shape[1:])
    try:
        module(frames)
    except Exception as error:  # modules raise whatever their authors chose
        raise UserError(
            f"{name}: the module does not take frames of shape {shape} ({_first_line(error)}); "
            "give the shape of one frame without the batch dimension as `input_shape`"
        ) from error


def _takes_one_path(module: torch.nn.Module, frames: torch.Tensor) -> bool:
    """Tell whether a module does with other frames what it does with these, which are traced."""
    import torch

    traced = torch.jit.trace(module, (frames,), check_trace=False)
    generator = torch.Generator().manual_seed(0)
    for low, high in _RANGES:
        values = low + (high - low) * torch.rand(frames.shape, generator=generator)
        given, again = module(values.to(frames)), traced(values.to(frames))
        if isinstance(given, torch.Tensor) and not torch.equal(given, again):
            return False
    return True


def _is_brevitas(module: torch.nn.Module) -> bool:
    """Tell whether a part of a module is of Brevitas, or of a class derived from it."""
    return any(
        base.__module__.partition(".")[0] == "brevitas"
        for part in module.modules()
        for base in type(part).__mro__
    )


def _options() -> dict[str, Any]:
    """Return the options of `torch.onnx.export` that leave the module's operations alone."""
    import torch

    return {
        "dynamo": False,
        "opset_version": _OPSET,
        "input_names": ["frames"],
        # The module is in inference already; asked for it, the exporter folds batch norms.
        "training": torch.onnx.TrainingMode.PRESERVE,
    }


def _export_torch(module: torch.nn.Module, frames: torch.Tensor) -> onnx.ModelProto:
    import torch

    content: Any = BytesIO()  # which this exporter takes, whatever its annotation says
    torch.onnx.export(module, (frames,), content, **_options())
    return onnx.load_model_from_string(content.getvalue())


def _export_brevitas(module: torch.nn.Module, frames: torch.Tensor) -> onnx.ModelProto:
    from brevitas.export import export_qonnx
    from brevitas.export.onnx.qonnx.manager import QONNXManager

    try:
        return export_qonnx(module, args=(frames,), **_options())
    except BaseException:
        QONNXManager.set_export_mode(module, enabled=False)
        raise


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
