"""What is known of the data while the graph is walked, and the operations found so far."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from xnorflow.frontend.constants import FREE_BATCH, Constants
from xnorflow.frontend.graph import Graph, Node
from xnorflow.network import Affine, BatchNorm, Dense, Flatten, Op, Sign

__all__ = ["Chain", "Content", "exact"]


_INTEGERS: dict[int, range] = {
    TensorProto.UINT8: range(256),
    TensorProto.INT8: range(-128, 128),
}


def exact(values: NDArray) -> tuple[Fraction, ...]:
    """Return finite numbers of any numpy type as fractions, in row-major order."""
    return tuple(Fraction(value) for value in values.reshape(-1).tolist())


class Content(Enum):
    """What the tensor at hand is made of."""

    FRAME = "the frame"
    BITS = "bits"
    ACCUMULATORS = "accumulators"


class Chain:
    """The tensor at hand, and the operations that gave it.

    Shapes leave the batch dimension out. The network's tensor may be flat already where the
    graph's is not yet: parameters along other axes than the last need one value per element.

    Parameters
    ----------
    graph : Graph

    Attributes
    ----------
    constants : Constants
    ops : list of Op
    notes : list of str
    tensor : str
        Name of the tensor at hand.
    shape : tuple of int
        Its shape in the graph.
    integer_type : bool
        Whether it is stored as integers, on which ONNX arithmetic would wrap and truncate.
    content : Content
    values : range or None
        What a frame's or accumulator's entries can be, where that is known.
    maps : list of Affine or BatchNorm
        Operations since the frame, the bits or the accumulators.
    source : Node or None
        The last layer or quantizer.
    scored : Node or None
        The node after which only the ranking of the scores counts.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = Constants(graph)
        self.ops: list[Op] = []
        self.notes: list[str] = []
        self.tensor = graph.input
        self.shape = graph.input_shape
        self.integer_type = graph.input_type in _INTEGERS
        self.content = Content.FRAME
        self.values: range | None = _INTEGERS.get(graph.input_type)
        self.maps: list[Affine | BatchNorm] = []
        self.source: Node | None = None
        self.scored: Node | None = None
        self._flat = len(self.shape) == 1
        self.arrive(graph.input)

    def arrive(self, tensor: str) -> None:
        """Make `tensor` the one at hand, of the present shape."""
        self.tensor = tensor
        batch = FREE_BATCH if self.graph.batch is None else self.graph.batch
        self.constants.shapes[tensor] = (batch, *self.shape)

    def note(self, sentence: str) -> None:
        """Record what was dropped or assumed."""
        self.notes.append(sentence)

    def flatten(self, node: Node) -> None:
        """Make the network's tensor flat, if it is not yet; the graph's shape stays."""
        if not self._flat:
            self.ops.append(Flatten(node.name))
            self._flat = True

    def data_first(self, node: Node) -> bool:
        """Whether the tensor at hand is the first of a node's inputs; refuse two uses of it."""
        if node.inputs.count(self.tensor) > 1:
            self.graph.refuse(
                node, f"takes tensor {self.tensor!r} twice", "give one constant input"
            )
        return node.inputs[0] == self.tensor

    def require_data(self, node: Node, role: str) -> None:
        """Refuse a node that takes the tensor at hand anywhere but as its first input."""
        if not self.data_first(node):
            self.graph.refuse(
                node,
                f"takes the data as its input {node.inputs.index(self.tensor)}",
                f"give the data as its {role}",
            )

    def require_float(self, node: Node) -> None:
        """Refuse arithmetic on a tensor of integers."""
        if self.integer_type:
            self.graph.refuse(
                node,
                f"computes with tensor {self.tensor!r} in its integer type, which wraps around",
                "put a Cast to FLOAT before it",
            )

    def spread(self, node: Node, values: NDArray) -> NDArray:
        """Return parameters that broadcast over the tensor as one value, or one per channel.

        Parameters
        ----------
        node : Node
        values : ndarray
            Broadcast to the tensor with its batch dimension, as ONNX and numpy do.

        Returns
        -------
        ndarray, shape (1,) or (C,)
            C is the last axis of the network's tensor, which is made flat if need be.
        """
        rank = len(self.shape) + 1
        batched = values.ndim == rank
        if values.ndim > rank or (batched and values.shape[0] != 1):
            self._refuse_shape(node, values)
        per_frame = values[0] if batched else values
        try:
            full = np.broadcast_to(per_frame, self.shape)
        except ValueError:
            self._refuse_shape(node, values)
        if values.size == 1:
            return values.reshape(1)
        if not self._flat and per_frame.size == per_frame.shape[-1]:
            return per_frame.reshape(-1)
        self.flatten(node)
        return full.reshape(-1)

    def _refuse_shape(self, node: Node, values: NDArray) -> None:
        self.graph.refuse(
            node,
            f"has parameters of shape {values.shape} for frames of shape {self.shape}",
            "give one value for all channels or one for each",
        )

    def affine(
        self,
        node: Node,
        scale: Iterable[Fraction] = (Fraction(1),),
        offset: Iterable[Fraction] = (Fraction(0),),
    ) -> None:
        """Append ``scale * x + offset``, unless it changes nothing."""
        op = Affine(node.name, tuple(scale), tuple(offset))
        if set(op.scale) != {1} or set(op.offset) != {0}:
            self._map(op)

    def batch_norm(self, op: BatchNorm) -> None:
        """Append a batch norm."""
        self._map(op)

    def _map(self, op: Affine | BatchNorm) -> None:
        self.ops.append(op)
        self.maps.append(op)

    def sign(self, node: Node) -> None:
        """Append a sign."""
        self.ops.append(Sign(node.name))
        self._begin(Content.BITS, node, None)

    def dense(self, node: Node, weights: NDArray[np.int8]) -> None:
        """Append a layer of shape (MH, MW), for the time being under its node's own name."""
        self.flatten(node)
        self.ops.append(Dense(node.name if node.named else "", weights))
        inputs = weights.shape[1]
        self.shape = (*self.shape[:-1], weights.shape[0])
        self._begin(Content.ACCUMULATORS, node, range(-inputs, inputs + 1, 2))

    def _begin(self, content: Content, node: Node, values: range | None) -> None:
        self.content, self.source, self.values = content, node, values
        self.maps = []

    def reshape(self, node: Node, shape: tuple[int, ...]) -> None:
        """Give each frame another shape with the same values in row-major order."""
        if not shape or prod(shape) != prod(self.shape):
            self.graph.refuse(
                node,
                f"makes frames of shape {shape} from frames of shape {self.shape}",
                "give each frame a shape of as many values",
            )
        if shape != self.shape:
            self.flatten(node)
        self.shape = shape
