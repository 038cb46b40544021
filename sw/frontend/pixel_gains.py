"""XNOR-Net's gain for each pixel, K: the mean magnitude of the inputs under each window.

Rastegari et al. (2016) multiply what a layer gives by it: `Abs`, the mean over the channels, a box
filter with the layer's windows, and the product. It is recognised as a whole, from the magnitudes
to the product, and becomes one `PixelGain`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.bases import common_ops
from xnorflow.frontend.chain import Chain, Content, Layout, exact
from xnorflow.frontend.graph import STANDARD, Graph, Node
from xnorflow.frontend.layers import merged_padding
from xnorflow.frontend.shapes import axes_of
from xnorflow.frontend.squashing import require_unsquashed
from xnorflow.frontend.windows import Window, pad, window
from xnorflow.network import PixelGain

__all__ = ["Gain", "multiplied", "pixel_gain", "read_gain"]

_BEGIN = ("Abs", "ReduceL1")
_REDUCES = ("ReduceL1", "ReduceMean", "ReduceSum")
_BETWEEN = (
    *("AveragePool", "Conv", "Div", "Identity", "Mul", "Pad", "ReduceMean", "ReduceSum"),
    "Unsqueeze",
)

_MEND = "give it the mean magnitude over the channels, then a box filter with the layer's windows"


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
        tensor = found[-1].outputs[0]
        readers = graph.readers(tensor)
        if len(readers) != 1 or readers[0].kind not in _BETWEEN or tensor in graph.output_tensors:
            return ()
        found.append(readers[0])
        if len(set(readers[0].inputs) & graph.computed) > 1:
            return tuple(found) if readers[0].kind == "Mul" else ()


@dataclass(frozen=True, eq=False)
class Gain:
    """A gain for each pixel.

    Attributes
    ----------
    side : Chain
        At the tensor of which the magnitudes are.
    places : Window or None
        Of the box filter; None for one gain a frame.
    scale : tuple of Fraction
        What the means are multiplied by: one number, or one for each of the layer's outputs.
    """

    side: Chain
    places: Window | None
    scale: tuple[Fraction, ...]


class _Reader:
    """What is known of a gain after some of its nodes.

    Parameters
    ----------
    side : Chain
        At the tensor of which the magnitudes are; it stays as it is.
    """

    def __init__(self, side: Chain) -> None:
        self.side, self.chain = side, side.copy()
        self.image = side.layout is not Layout.FLAT
        self.reduced = self.lacks_axis = False
        self.places: Window | None = None
        self.scale: tuple[Fraction, ...] = (Fraction(1),)

    def take(self, node: Node) -> None:
        """Take the next node."""
        chain = self.chain
        if node.kind in _REDUCES:
            self._reduce(node)
        elif node.kind not in ("Abs", "Identity"):
            if not self.reduced:
                self._refuse(node, "comes before the mean over the channels")
            if self.lacks_axis and node.kind != "Unsqueeze":
                self._refuse(node, "takes means that have lost the axis of the channels")
            match node.kind:
                case "Unsqueeze":
                    self._unsqueeze(node)
                case "Pad":
                    if self.places is not None or not self.image:
                        self._refuse(node, "pads what a box filter does not follow")
                    pad(chain, node)
                    if chain.padding is not None and chain.padding.value:
                        self._refuse(node, "pads magnitudes with another number than 0")
                case "AveragePool" | "Conv":
                    self._box(node)
                case _:
                    self._factor(node)
        chain.tensor = node.outputs[0]

    def _refuse(self, node: Node, problem: str) -> None:
        self.chain.graph.refuse(node, f"{problem}, in a gain for each pixel (XNOR-Net's K)", _MEND)

    def _reduce(self, node: Node) -> None:
        chain = self.chain
        rank = len(chain.shape) + 1
        if self.reduced or axes_of(chain, node, rank) != [1]:
            self._refuse(node, "takes other means than one over the channels")
        if node.kind != "ReduceMean":
            self.scale = (self.scale[0] * chain.shape[0],)
        self.reduced = True
        if not chain.graph.integer(node, "keepdims", 1):
            self.lacks_axis = True
        chain.shape = (1, *chain.shape[1:])

    def _unsqueeze(self, node: Node) -> None:
        if not self.lacks_axis or axes_of(self.chain, node, len(self.chain.shape) + 1) != [1]:
            self._refuse(node, "adds another axis than that of the channels")
        self.lacks_axis = False

    def _box(self, node: Node) -> None:
        chain = self.chain
        if self.places is not None:
            self._refuse(node, "is a second box filter")
        if len(self.scale) > 1:
            self._refuse(node, "comes behind gains of channels")
        kernel = None
        if node.kind == "Conv":
            weights = chain.constants.numbers(node, 1, "weight tensor")
            alike = weights.ndim == 4 and weights.shape[:2] == (1, 1) and weights.size
            if not alike or np.any(weights != weights.flat[0]) or node.has_input(2):
                self._refuse(node, "is no box filter: its weights are not all one number")
            kernel = weights.shape[2:]
            self.scale = (self.scale[0] * exact(weights.reshape(-1)[:1])[0] * weights.size,)
        places = window(chain, node, kernel)
        counts = node.kind == "Conv" or chain.graph.integer(node, "count_include_pad", 0)
        if any(places.padding) and not counts:
            self._refuse(node, "leaves padding out of its means (count_include_pad = 0)")
        padding, _ = merged_padding(chain, node, places.padding)
        self.places, chain.padding = replace(places, padding=padding), None
        chain.shape = (1, *places.out)

    def _factor(self, node: Node) -> None:
        chain = self.chain
        index = 1 if chain.data_first(node) else 0
        if node.kind == "Div" and not index:
            self._refuse(node, "divides a constant by magnitudes")
        values = self._of_channels(node, chain.constants.numbers(node, index, "constant"))
        if node.kind == "Div":
            if 0 in values:
                self._refuse(node, "divides by zero")
            values = tuple(1 / value for value in values)
        if len(self.scale) == 1:
            self.scale *= len(values)
        if len(values) not in (1, len(self.scale)):
            self._refuse(node, "has another number of gains than one before it")
        self.scale = tuple(one * values[i % len(values)] for i, one in enumerate(self.scale))

    def _of_channels(self, node: Node, values: NDArray) -> tuple[Fraction, ...]:
        """Return a constant that is one number or one for each channel."""
        place = 2 if self.image else 0  # of the channels, counted from the last axis
        shape = (1,) * max(0, place + 1 - values.ndim) + values.shape
        if values.size != 1 and prod(shape) != shape[len(shape) - 1 - place]:
            self._refuse(node, "has a constant that is not one number or one for each channel")
        return exact(values)


def read_gain(side: Chain, nodes: tuple[Node, ...]) -> Gain:
    """Return what nodes from the magnitudes to the last before the product compute.

    Parameters
    ----------
    side : Chain
        At the tensor of which the magnitudes are.
    nodes : tuple of Node
        See `pixel_gain`, without the product.

    Raises
    ------
    ModelRefused
        They are no gain for each pixel that a `PixelGain` has.
    """
    first, graph = nodes[0], side.graph
    side.require_no_pad(first)
    side.require_float(first)
    require_unsquashed(side, first)
    if side.content is Content.FRAME:
        graph.refuse(
            first,
            "begins a gain for each pixel (XNOR-Net's K) of the frame itself",
            "put a layer without it first",
        )
    if side.layout is Layout.SAME:
        graph.refuse(
            first,
            "begins a gain for each pixel of images whose channels are the last dimension",
            "put a Transpose with perm = 0, 3, 1, 2 before it",
        )
    reader = _Reader(side)
    for node in nodes:
        reader.take(node)
    if not reader.reduced or reader.lacks_axis or reader.chain.padding is not None:
        graph.refuse(nodes[-1], "ends a gain for each pixel that is not complete", _MEND)
    places = reader.places
    if places is None and reader.image:
        size = (reader.chain.shape[1], reader.chain.shape[2])
        places = Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), size)
    return Gain(side, places, reader.scale)


def multiplied(main: Chain, gain: Gain, node: Node) -> Chain:
    """Return the chain behind the product of a layer's sums and a gain for each pixel.

    Raises
    ------
    ModelRefused
        The gain does not suit the layer.
    """
    graph, chain, side = main.graph, main.copy(), gain.side
    chain.require_no_pad(node)
    chain.require_float(node)
    require_unsquashed(chain, node)
    source = len(side.ops)
    if chain.content is not Content.ACCUMULATORS or common_ops([chain, side]) != source:
        graph.refuse(
            node,
            "multiplies by a gain for each pixel (XNOR-Net's K) what is not the sums of a layer "
            "behind the same tensor",
            "put it directly behind the layer",
        )
    places = gain.places
    size = () if places is None else places.out
    if chain.shape[1:] != size:
        graph.refuse(
            node,
            f"multiplies frames of shape {chain.shape} by gains of {size or 'one pixel'}",
            "give the box filter the kernel, strides, dilations and padding of the layer",
        )
    if places is None:
        op = PixelGain(node.name, source)
    else:
        op = PixelGain(
            node.name, source, places.kernel, places.stride, places.dilation, places.padding
        )
    chain.gain(node, op)
    if len(gain.scale) not in (1, chain.channels):
        graph.refuse(
            node,
            f"has {len(gain.scale)} gains for {chain.channels} channels",
            "give one for each",
        )
    chain.affine(node, gain.scale)
    chain.notes += [note for note in side.notes if note not in chain.notes]
    return chain
