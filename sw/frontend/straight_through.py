"""Branches of straight-through estimators, which cancel each other in inference.

``clip(x) + (sign(x) - clip(x)).detach()`` is ``sign(x)``; its second half passes gradients only. So
are all sums of branches in which every term but one cancels, whatever the terms are (such as the
polynomial of Liu et al., *Bi-Real Net*, 2018): what is computed from ``x`` by operations on single
elements is written as a linear combination of terms that are not linear in each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.frontend.chain import Chain
from xnorflow.frontend.constants import FREE_BATCH
from xnorflow.frontend.graph import Node

__all__ = ["Region", "straight_through"]

_MOST_NODES = 256

_LINEAR = ("Add", "Div", "Dropout", "Identity", "Mul", "Neg", "Sub")
_TERMS = (
    *("Abs", "BipolarQuant", "Cast", "Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "Greater"),
    *("GreaterOrEqual", "HardSigmoid", "IntQuant", "LeakyRelu", "Less", "LessOrEqual", "Max"),
    *("Min", "Not", "And", "Or", "Pow", "Quant", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign"),
    *("Softplus", "Softsign", "Sqrt", "Tanh", "Where", "Xor", "Equal"),
)


@dataclass(frozen=True)
class Region:
    """What lies between a tensor that goes several ways and the node at which all ways meet.

    Attributes
    ----------
    nodes : frozenset of Node
        All nodes in between, and the last.
    steps : tuple of Node or (scale, offset)
        What they amount to, one after the other: nodes, and numbers that multiply and add.
    last : Node
    """

    nodes: frozenset[Node]
    steps: tuple[Node | tuple[Fraction, Fraction], ...]
    last: Node


_Terms = dict[int, Fraction]
"""A linear combination: coefficients by term; term 0 is the tensor that goes several ways."""


def straight_through(chain: Chain, tensor: str) -> Region | None:
    """Say what the branches that begin at the tensor at hand amount to.

    Parameters
    ----------
    chain : Chain
        At `tensor`; the shapes of tensors within the branches are added to its constants.
    tensor : str

    Returns
    -------
    Region or None
        None if no sum of branches has all terms but one cancel, so that they are true branches.
        Where some do and others go elsewhere, as a shortcut does, the region is theirs.
    """
    try:
        return _Branches(chain, tensor).whole() or _Branches(chain, tensor).closed()
    # A constant that cannot be told; whoever follows the branches says so.
    except UserError:
        return None


class _Branches:
    """The combinations that tensors behind a fork are.

    Attributes
    ----------
    nodes : list of Node
        Those followed so far.
    """

    def __init__(self, chain: Chain, tensor: str) -> None:
        self.chain, self.graph = chain, chain.graph
        self.nodes: list[Node] = []
        self._combinations: dict[str, tuple[_Terms, Fraction]] = {
            tensor: ({0: Fraction(1)}, Fraction(0))
        }
        self._terms: list[Node | None] = [None]
        self._origins: dict[str, Node] = {}
        self._known: dict[tuple, int] = {}
        self._fork = tensor

    def whole(self) -> Region | None:
        """Return all branches, if they amount to one way."""
        last = self._meet()
        steps = None if last is None else self.steps(last.outputs[0])
        if last is None or steps is None:
            return None
        return Region(frozenset(self.nodes), steps, last)

    def closed(self) -> Region | None:
        """Return the first branches that amount to one way and lead nowhere else."""
        waiting = [*self.graph.readers(self._fork)]
        inner: dict[Node, frozenset[Node]] = {}
        while waiting and len(self.nodes) < _MOST_NODES:
            node = waiting.pop(0)
            if node in inner or self._ways(node) or not self._follow(node):
                continue
            self.nodes.append(node)
            output = node.outputs[0]
            sources = [one for one in self.nodes if set(one.outputs) & set(node.inputs)]
            inner[node] = frozenset([node]).union(*(inner[one] for one in sources))
            region = inner[node]
            data = set(node.inputs) & self._combinations.keys()
            if len(data) > 1 and self._leads_nowhere_else(region, node):
                steps = self.steps(output)
                if steps is not None:
                    return Region(region, steps, node)
            if output not in self.graph.output_tensors:
                waiting += self.graph.readers(output)
        return None

    def _leads_nowhere_else(self, region: frozenset[Node], last: Node) -> bool:
        return all(
            node is last
            or (
                node.outputs[0] not in self.graph.output_tensors
                and region.issuperset(self.graph.readers(node.outputs[0]))
            )
            for node in region
        )

    def _meet(self) -> Node | None:
        """Follow the branches to the first node at which they all meet, or return None."""
        waiting = {node: self._ways(node) for node in self.graph.readers(self._fork)}
        while waiting:
            node = next((node for node, ways in waiting.items() if ways == 0), None)
            if node is None or len(self.nodes) == _MOST_NODES or not self._follow(node):
                return None
            del waiting[node]
            self.nodes.append(node)
            if not waiting:
                return node
            output = node.outputs[0]
            if output in self.graph.output_tensors:
                return None
            for reader in self.graph.readers(output):
                waiting[reader] = self._ways(reader)
        return None

    def _ways(self, node: Node) -> int:
        """Return the number of a node's inputs that are computed and not known yet."""
        inputs = set(node.inputs) & self.graph.computed
        return sum(tensor not in self._combinations for tensor in inputs)

    def _follow(self, node: Node) -> bool:
        """Write what a node gives as a combination; return False if it is none."""
        if node.kind not in (*_LINEAR, *_TERMS) or not node.opset or any(node.outputs[1:]):
            return False
        inputs = [self._input(node, index) for index in range(len(node.inputs))]
        if any(value is None for value in inputs):
            return False
        combination = self._linear(node, inputs) if node.kind in _LINEAR else None
        if combination is None:
            combination = {self._term(node, inputs): Fraction(1)}, Fraction(0)
            self._origins[node.outputs[0]] = node
        self._combinations[node.outputs[0]] = combination
        self.chain.constants.shapes[node.outputs[0]] = self._shape
        return True

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.chain.constants.shapes[self._fork]

    def _input(self, node: Node, index: int) -> tuple[_Terms, Fraction] | NDArray | str | None:
        """Return an input: a combination, a constant that leaves the shape, or an empty string."""
        tensor = node.inputs[index]
        if not tensor or tensor in self._combinations:
            return self._combinations[tensor] if tensor else ""
        values = self.chain.constants.value(node, index, "constant")
        batch, *frame = self._shape
        shapes = [(batch, *frame), (1, *frame)] if batch != FREE_BATCH else [(1, *frame)]
        try:
            legal = any(np.broadcast_shapes(values.shape, shape) == shape for shape in shapes)
        except ValueError:
            return None
        return values if legal else None

    def _linear(
        self, node: Node, inputs: Sequence[tuple[_Terms, Fraction] | NDArray | str | None]
    ) -> tuple[_Terms, Fraction] | None:
        """Return a sum, difference, or product with a number; None for any other product."""
        values: list[tuple[_Terms, Fraction]] = []
        for value in inputs:
            if isinstance(value, tuple):
                values.append(value)
            elif isinstance(value, np.ndarray) and _is_number(value):
                values.append(({}, Fraction(value.item())))
            else:
                return None
        match node.kind, values:
            case "Dropout" | "Identity", [first, *_]:
                return first
            case "Neg", [first]:
                return _scaled(first, Fraction(-1))
            case "Add", [first, second]:
                return _sum(first, second)
            case "Sub", [first, second]:
                return _sum(first, _scaled(second, Fraction(-1)))
            case "Mul", [first, second] if not second[0]:
                return _scaled(first, second[1])
            case "Mul", [first, second] if not first[0]:
                return _scaled(second, first[1])
            case "Div", [first, second] if not second[0] and second[1]:
                return _scaled(first, 1 / second[1])
        return None

    def _term(self, node: Node, inputs: Sequence[object]) -> int:
        """Return the number of a term; terms that are the same function have the same one."""
        parts: list[object] = []
        for value in inputs:
            if isinstance(value, np.ndarray):
                parts.append((value.dtype.str, value.shape, value.tobytes()))
            elif isinstance(value, tuple):
                parts.append((frozenset(value[0].items()), value[1]))
            else:
                parts.append(value)
        attributes = repr(sorted(node.attributes.items()))
        key = (node.opset, node.kind, attributes, *parts)
        if key not in self._known:
            self._known[key] = len(self._terms)
            self._terms.append(node)
        return self._known[key]

    def steps(self, tensor: str) -> tuple[Node | tuple[Fraction, Fraction], ...] | None:
        """Return the way from the fork to a tensor, or None if there is not exactly one."""
        steps: list[Node | tuple[Fraction, Fraction]] = []
        while True:
            terms, number = self._combinations[tensor]
            if len(terms) != 1:
                return None
            ((term, factor),) = terms.items()
            if (factor, number) != (1, 0):
                steps.append((factor, number))
            # Of nodes that compute the same, the one on the way.
            node = self._origins.get(tensor, self._terms[term])
            if node is None:
                return tuple(reversed(steps))
            sources = [source for source in node.inputs if source in self._combinations]
            if len(sources) != 1:
                return None
            steps.append(node)
            (tensor,) = sources


def _is_number(values: NDArray) -> bool:
    return prod(values.shape) == 1 and values.dtype.kind == "f" and bool(np.isfinite(values).all())


def _scaled(combination: tuple[_Terms, Fraction], factor: Fraction) -> tuple[_Terms, Fraction]:
    terms, number = combination
    if not factor:
        return {}, Fraction(0)
    return {term: factor * value for term, value in terms.items()}, factor * number


def _sum(
    first: tuple[_Terms, Fraction], second: tuple[_Terms, Fraction]
) -> tuple[_Terms, Fraction]:
    terms = dict(first[0])
    for term, value in second[0].items():
        terms[term] = terms.get(term, Fraction(0)) + value
    return {term: value for term, value in terms.items() if value}, first[1] + second[1]
