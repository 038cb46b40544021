"""Readers of model files: from a file to a :class:`~xnorflow.network.Network`.

This version reads QONNX files of perceptrons and convolutional networks whose weights and hidden
activations are one bit each; ``docs/importing.md`` lists the accepted graphs. In the order in which
a file is read:

- :mod:`~xnorflow.frontend.reader`: bytes to a plain :class:`~xnorflow.frontend.graph.Graph`,
- :mod:`~xnorflow.frontend.constants`: the subgraphs that do not depend on the input (weights),
- :mod:`~xnorflow.frontend.chain`: what is known of the data while the graph is walked,
- :mod:`~xnorflow.frontend.registry`: operator to handler; ``layers``, ``pools``, ``windows``,
  ``quantizers``, ``elementwise``, ``shapes`` and ``scores`` hold the handlers,
- :mod:`~xnorflow.frontend.walk`: follows the data from the input to the output.
"""

from __future__ import annotations

from pathlib import Path

from xnorflow.frontend.options import ImportOptions
from xnorflow.frontend.reader import read_graph
from xnorflow.frontend.walk import Imported, import_graph
from xnorflow.network import Network

__all__ = ["load", "read"]


def read(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read a trained network from a model file, together with the graph that it comes from.

    Parameters and errors are those of :func:`load`.
    """
    return import_graph(read_graph(path), options)


def load(path: str | Path, options: ImportOptions | None = None) -> Network:
    """Read a trained network from a model file.

    Parameters
    ----------
    path : str or Path
        A QONNX file (``.onnx``) whose graph is a chain of one-bit layers.
    options : ImportOptions, optional
        What the file does not tell.

    Returns
    -------
    Network
        Named after the file's stem. Weights are int8 in {-1, +1}; parameters are the exact stored
        numbers; ``notes`` tell what was dropped or assumed.

    Raises
    ------
    UserError
        The file cannot be read or is damaged; the message names the file.
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
    return read(path, options).network
