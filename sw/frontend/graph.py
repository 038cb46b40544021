"""A model file's graph in plain Python, and the sentence that refuses one of its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any, NoReturn

import onnx
from numpy.typing import NDArray

from xnorflow.frontend.obstacles import ModelRefused, Obstacle

__all__ = ["MAX_FRAME", "QONNX", "STANDARD", "Graph", "Node"]

MAX_FRAME = 1 << 24
"""Most values of a frame, and pixels of an image."""

STANDARD, QONNX = "standard", "qonnx"
"""The two operator sets, under whatever domain names files use for them."""

_QONNX_DOMAINS = ("onnx.brevitas", "finn.custom_op.general")


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes
    ----------
    name : str
        The node's name, or its first output's where the file gives none.
    named : bool
        Whether the file gives one.
    kind : str
        ONNX ``op_type``.
    domain : str
        As in the file.
    inputs, outputs : tuple of str
        Tensor names; an omitted optional one is empty.
    attributes : mapping
        Numbers, strings (bytes), tensors (protobuf) and lists of them.
    label : str
        What users know the node by, such as ``layer 'conv1' (QuantConv2D)``; empty for its name
        and kind.
    refusal : tuple of str or None
        Problem and mend of what a reader could not say in operators, as in `Obstacle`; the node
        then stands in its place, of a kind that is like it.
    """

    name: str
    named: bool
    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    label: str = ""
    refusal: tuple[str, str] | None = None

    def __str__(self) -> str:
        if self.label:
            return self.label
        kind = self.kind if self.kind.isprintable() else repr(self.kind)
        return f"node {self.name!r} ({kind})"

    @property
    def opset(self) -> str:
        """`STANDARD`, `QONNX` or, for any other domain, the empty string."""
        if self.domain in ("", "ai.onnx"):
            return STANDARD
        if self.domain in _QONNX_DOMAINS or self.domain.startswith("qonnx.custom_op."):
            return QONNX
        return ""

    def has_input(self, index: int) -> bool:
        """Whether the input of that index is there and not omitted."""
        return index < len(self.inputs) and self.inputs[index] != ""


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole file.

    Attributes
    ----------
    path : str
        As the user gave it, for messages.
    folder : str
        Where external tensor files lie.
    version : int
        Of the standard operator set.
    input : str
        Name of the one data input.
    input_type : int
        ``onnx.TensorProto.DataType``.
    batch : int or None
        Batch size, None if free.
    input_shape : tuple of int
        One frame's shape.
    outputs : tuple of str
    nodes : tuple of Node
        In topological order.
    initializers : mapping of str to onnx.TensorProto or ndarray
    shapes : mapping of str to tuple of int
        A frame's shape at other tensors, where the file says so; not checked.
    """

    path: str
    folder: str
    version: int
    input: str
    input_type: int
    batch: int | None
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    initializers: Mapping[str, onnx.TensorProto | NDArray]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def refuse(self, node: Node, problem: str, mend: str) -> NoReturn:
        """Raise the `ModelRefused` that says what is wrong with a node and what to do."""
        self.refuse_at(str(node), problem, mend)

    def refuse_at(self, where: str, problem: str, mend: str) -> NoReturn:
        """Raise the `ModelRefused` for a place that is no node, see `Obstacle`."""
        raise ModelRefused(self.path, [Obstacle(where, problem, mend)])

    def integer(self, node: Node, key: str, default: int) -> int:
        """Return an integer attribute."""
        value = node.attributes.get(key, default)
        if not isinstance(value, int):
            self._refuse_attribute(node, key, "no integer")
        return value

    def number(self, node: Node, key: str, default: float) -> float:
        """Return a finite float attribute."""
        value = node.attributes.get(key, default)
        if not isinstance(value, float) or not isfinite(value):
            self._refuse_attribute(node, key, "no finite float")
        return value

    def integers(self, node: Node, key: str) -> list[int]:
        """Return a list of integers that is an attribute."""
        value = node.attributes.get(key)
        if not isinstance(value, Sequence) or not all(isinstance(item, int) for item in value):
            self._refuse_attribute(node, key, "no list of integers")
        return list(value)

    def text(self, node: Node, key: str, default: str) -> str:
        """Return an attribute that is a word, in capitals."""
        value = node.attributes.get(key, default.encode())
        if not isinstance(value, bytes) or not value.isascii():
            self._refuse_attribute(node, key, "no text")
        return value.decode().upper()

    def _refuse_attribute(self, node: Node, key: str, fault: str) -> NoReturn:
        self.refuse(node, f"has an attribute {key!r} that is {fault}", "export the model again")

    @cached_property
    def computed(self) -> frozenset[str]:
        """Tensors whose values depend on the input (a tensor's shape is not its value)."""
        tensors = {self.input}
        for node in self.nodes:
            if node.kind != "Shape" and not tensors.isdisjoint(node.inputs):
                tensors.update(node.outputs)
        return frozenset(tensors - {""})

    @cached_property
    def output_tensors(self) -> frozenset[str]:
        """`outputs` as a set."""
        return frozenset(self.outputs)

    @cached_property
    def live(self) -> tuple[Node, ...]:
        """Nodes that an output depends on, in topological order."""
        needed = set(self.outputs)
        live = []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(node.inputs)
                live.append(node)
        return tuple(reversed(live))

    @property
    def dead(self) -> Sequence[Node]:
        """Nodes that no output depends on."""
        live = set(self.live)
        return [node for node in self.nodes if node not in live]

    def readers(self, tensor: str) -> Sequence[Node]:
        """Nodes that read the values of a tensor on the way to an output."""
        return self._readers.get(tensor, ())

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for node in self.live:
            for tensor in dict.fromkeys(node.inputs):
                if node.kind != "Shape":
                    readers.setdefault(tensor, []).append(node)
        return readers

    def ancestors(self, tensor: str) -> Sequence[Node]:
        """Nodes that a constant tensor is computed from, in topological order."""
        needed = {tensor}
        found = []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.outputs):
                found.append(node)
                needed.update(set(node.inputs) - self.computed)
        return found[::-1]
