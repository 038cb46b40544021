"""XNOR-Net's gain for each pixel, K: the mean magnitude of the inputs under each window.

Rastegari et al. (2016) multiply what a layer gives by it. It is recognised as a whole, so that one
sentence refuses it.
"""

from __future__ import annotations

from xnorflow.frontend.graph import STANDARD, Graph, Node

__all__ = ["PROBLEM", "pixel_gain"]

_BEGIN = ("Abs", "ReduceL1")
_BETWEEN = ("AveragePool", "Conv", "Div", "Identity", "Mul", "Pad", "ReduceMean", "ReduceSum")

PROBLEM = (
    "is a gain for each pixel, the mean magnitude of the inputs (XNOR-Net's K), which would have "
    "to be computed anew for every frame",
    "leave it out, in training too; gains for each channel are accepted",
)
"""What is wrong with it, and the mend."""


def pixel_gain(graph: Graph, node: Node) -> tuple[Node, ...]:
    """Return the nodes from the magnitudes to the product with a layer's sums.

    Parameters
    ----------
    graph : Graph
    node : Node
        That may be the first.

    Returns
    -------
    tuple of Node
        The last one is the `Mul`; empty if `node` begins no such gain.
    """
    if node.kind not in _BEGIN or node.opset != STANDARD:
        return ()
    found = [node]
    while True:
        readers = graph.readers(found[-1].outputs[0])
        if len(readers) != 1 or readers[0].kind not in _BETWEEN:
            return ()
        found.append(readers[0])
        if len(set(readers[0].inputs) & graph.computed) > 1:
            return tuple(found) if readers[0].kind == "Mul" else ()
