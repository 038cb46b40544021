"""Readers of models: from a file or a live module to a :class:`~xnorflow.network.Network`.

This version reads QONNX and Keras files of perceptrons and convolutional networks whose weights and
hidden activations have a few bits each; ``docs/importing.md`` lists the accepted graphs. In the
order in which a file is read:

- :mod:`~xnorflow.frontend.reader`: bytes to a plain :class:`~xnorflow.frontend.graph.Graph`,
- :mod:`~xnorflow.frontend.keras`: the same from a Keras or Larq file,
- :mod:`~xnorflow.frontend.live`: the same from a torch or Brevitas module in memory,
- :mod:`~xnorflow.frontend.constants`: the subgraphs that do not depend on the input (weights), by
  the operators of :mod:`~xnorflow.frontend.evaluators`,
- :mod:`~xnorflow.frontend.chain`: what is known of the data while the graph is walked,
- :mod:`~xnorflow.frontend.registry`: operator to handler; ``layers``, ``pools``, ``windows``,
  ``quantizers``, ``levels``, ``comparisons``, ``squashing``, ``elementwise``, ``shapes`` and
  ``scores`` hold the handlers, ``weights`` what a layer's weights are as integers,
- :mod:`~xnorflow.frontend.straight_through`: branches that cancel each other in inference,
- :mod:`~xnorflow.frontend.joins`: where branches meet, with ``bases`` and ``staircases`` for sums
  that are one layer or one quantizer, and ``pixel_gains`` for products with magnitudes,
- :mod:`~xnorflow.frontend.walk`: follows the data from the input to the output.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xnorflow.errors import UserError
from xnorflow.frontend.graph import Graph
from xnorflow.frontend.keras import is_keras, read_keras
from xnorflow.frontend.live import is_module, read_module
from xnorflow.frontend.options import ImportOptions
from xnorflow.frontend.reader import read_graph
from xnorflow.frontend.walk import Imported, import_graph
from xnorflow.network import Network

if TYPE_CHECKING:
    import torch

__all__ = ["load", "read"]


def read(
    model: str | Path | torch.nn.Module,
    options: ImportOptions | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    name: str | None = None,
) -> Imported:
    """Read a trained network, together with the graph that it comes from.

    Parameters and errors are those of :func:`load`.
    """
    imported = import_graph(_graph(model, input_shape), options)
    if name is None:
        return imported
    if not name.strip() or not name.isprintable() or set(name) & set("/\\"):
        raise UserError(f"`name` is {name!r}, but folders are named after it; give a plain word")
    return replace(imported, network=replace(imported.network, name=name))


def _graph(model: str | Path | torch.nn.Module, input_shape: tuple[int, ...] | None) -> Graph:
    if is_module(model):
        return read_module(model, input_shape)
    if not isinstance(model, str | Path):
        raise UserError(
            f"a network cannot be read from a {type(model).__name__}; give the path of a model "
            "file or a torch module"
        )
    if input_shape is not None:
        raise UserError(f"{model}: a file tells its own input shape; leave `input_shape` out")
    return read_keras(model) if is_keras(model) else read_graph(model)


def load(
    model: str | Path | torch.nn.Module,
    options: ImportOptions | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    name: str | None = None,
) -> Network:
    """Read a trained network from a model file or a live module.

    Parameters
    ----------
    model : str, Path or torch.nn.Module
        A QONNX file (``.onnx``), a Keras or Larq file (``.keras``, ``.h5``), or a torch or
        Brevitas module.
    options : ImportOptions, optional
        What the model does not tell.
    input_shape : tuple of int, optional
        Of a module: the shape of one frame without the batch dimension.
    name : str, optional
        The network's name; without it, the file's stem or the module's class.

    Returns
    -------
    Network
        Weights are -1 and +1 (int8) or integers with the coefficients of their planes (int32);
        parameters are the exact stored numbers; ``notes`` tell what was dropped or assumed.

    Raises
    ------
    UserError
        The file cannot be read or is damaged, or the module cannot be exported; the message names
        it.
    ModelRefused
        The graph is none that this version accepts; the message names the file, the node and its
        type, and what would be accepted, and `obstacles` holds all reasons at once.

    Examples
    --------
    >>> from xnorflow.frontend import load
    >>> network = load("models/mnist_mini.onnx")  # doctest: +SKIP
    >>> network.classes  # doctest: +SKIP
    10
    """
    return read(model, options, input_shape=input_shape, name=name).network
