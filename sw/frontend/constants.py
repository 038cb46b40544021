"""Values of tensors that do not depend on the input: weights, parameters, shapes.

They are evaluated on demand. Files are untrusted: what a node would give is bounded before it is
computed, and tensors in other files are read from the model's folder only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xnorflow.errors import UserError
from xnorflow.frontend.evaluators import EVALUATORS, FREE_BATCH, size_of_result
from xnorflow.frontend.graph import STANDARD, Graph, Node
from xnorflow.frontend.obstacles import ModelRefused, Obstacle

__all__ = ["FREE_BATCH", "Constants"]

_FREE_BYTES = 1 << 26
"""Size of computed constants that any file may have."""

_GROWTH = 100
"""Number of computed constants, each as large as all stored ones, that a file may have."""


class Constants:
    """Evaluates tensors on demand.

    Parameters
    ----------
    graph : Graph
    sign_zero : int or None
        What `Sign` gives for weights of zero, see `ImportOptions`.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Shapes of computed tensors with their batch dimension, as far as they are known; whoever
        walks the graph adds them.
    obstacles : list of Obstacle
        Why constants are none that suit, although values stand in for them.
    """

    def __init__(self, graph: Graph, sign_zero: int | None = None) -> None:
        self.graph = graph
        self.sign_zero = sign_zero
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.obstacles: list[Obstacle] = []
        self._known: dict[str, NDArray] = {}
        self._stored_bytes = self._computed_bytes = 0

    def obstacle(self, node: Node, problem: str, mend: str) -> None:
        """Refuse a node whose evaluation goes on with a value that stands in for the true one."""
        self.obstacles.append(Obstacle(str(node), problem, mend))

    def value(self, node: Node, index: int, role: str) -> NDArray:
        """Return an input of a node that must be a constant.

        Parameters
        ----------
        node : Node
        index : int
            Of the input.
        role : str
            What it is to the node, for messages.

        Raises
        ------
        UserError
            The input is omitted, depends on the graph's input or cannot be evaluated.
        """
        if not node.has_input(index):
            self.graph.refuse(node, f"has no {role}", "export the model again")
        tensor = node.inputs[index]
        if tensor in self.graph.computed:
            self.graph.refuse(
                node,
                f"takes its {role} from tensor {tensor!r}, which depends on the input",
                "store it as an initializer or Constant",
            )
        if tensor not in self._known:
            for ancestor in self.graph.ancestors(tensor):
                self._evaluate(ancestor)
        return self._stored(tensor)

    def numbers(self, node: Node, index: int, role: str) -> NDArray:
        """Return `value` if it holds finite real numbers, else refuse the node."""
        values = self.value(node, index, role)
        if values.dtype.kind not in "iuf":
            self.graph.refuse(
                node, f"has a {role} of type {values.dtype}", "give integers or floats"
            )
        if not np.all(np.isfinite(values)):
            self.graph.refuse(
                node,
                f"has a {role} that holds NaN or infinity",
                "export the model again with finite parameters",
            )
        return values

    def integers(self, node: Node, index: int, role: str) -> list[int]:
        """Return a constant list of integers, or refuse the node."""
        values = self.value(node, index, role)
        if values.dtype.kind not in "iu" or values.ndim > 1:
            self.graph.refuse(
                node, f"has a {role} that is no list of integers", "export the model again"
            )
        return [int(v) for v in values.reshape(-1)]

    def array(self, tensor: onnx.TensorProto, name: str) -> NDArray:
        """Return a stored tensor, from its own file where it lies in one."""
        external = tensor.data_location == TensorProto.EXTERNAL
        try:
            if external:
                _check_external(tensor, self.graph.folder)
            array = numpy_helper.to_array(tensor, self.graph.folder)
        # A damaged tensor can raise about anything; a missing file has an error of onnx's own.
        except Exception as error:
            where = f"the values of tensor {name!r}"
            if external:
                location = _external_entries(tensor).get("location", "")
                problem = f"lie in another file, {location!r}, that cannot be read"
                mend = "put it beside the model or export the model as one file"
            else:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                problem = f"cannot be read ({reason})"
                mend = "the file may be damaged, so export it again"
            raise ModelRefused(self.graph.path, [Obstacle(where, problem, mend)]) from None
        self._stored_bytes += array.nbytes
        # ml_dtypes (bfloat16, float8, int4) are no numbers to numpy, but float32 holds them all.
        return array.astype(np.float32) if array.dtype.kind == "V" else array

    def _stored(self, tensor: str) -> NDArray:
        if tensor not in self._known:
            stored = self.graph.initializers[tensor]
            if not isinstance(stored, np.ndarray):
                stored = self.array(stored, tensor)
            else:
                self._stored_bytes += stored.nbytes
            self._known[tensor] = stored
        return self._known[tensor]

    def _evaluate(self, node: Node) -> None:
        if node.outputs[0] in self._known:
            return
        evaluator = EVALUATORS.get((node.opset, node.kind))
        if evaluator is None:
            kinds = sorted(kind for opset, kind in EVALUATORS if opset == STANDARD)
            self.graph.refuse(
                node,
                "computes a constant in a way that is not supported",
                f"accepted on weights and parameters are {', '.join(kinds)}, BipolarQuant and "
                f"Quant of 1 bit",
            )
        given = [t not in self.graph.computed and t != "" for t in node.inputs]
        arguments = [
            self._stored(tensor) if there else None
            for tensor, there in zip(node.inputs, given, strict=True)
        ]
        try:
            with np.errstate(all="ignore"):
                self._reserve(node, arguments)
                result = np.asarray(evaluator(self, node, arguments))
        except UserError:
            raise
        # Wrong shapes, axes, attributes: whatever numpy makes of them.
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.graph.refuse(
                node, f"has inputs that do not suit it ({reason})", "export the model again"
            )
        self._known[node.outputs[0]] = result
        if any(node.outputs[1:]):
            self.graph.refuse(node, "has several outputs", "give a node with one")

    def _reserve(self, node: Node, arguments: Sequence[Any]) -> None:
        """Refuse a node whose result is too large for what the file stores."""
        size = 8 * size_of_result(node, arguments)
        limit = _FREE_BYTES + _GROWTH * self._stored_bytes
        if self._computed_bytes + size > limit:
            self.graph.refuse(
                node,
                f"computes a constant of {size >> 23} million numbers, too many for what the file "
                f"stores",
                "store the weights themselves",
            )
        self._computed_bytes += size


def _external_entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _check_external(tensor: onnx.TensorProto, folder: str) -> None:
    """Raise unless the file lies in the folder and holds as many bytes as the tensor takes."""
    entries = _external_entries(tensor)
    root = os.path.realpath(folder)
    file = os.path.realpath(os.path.join(root, entries["location"]))
    if os.path.commonpath([root, file]) != root or not os.path.isfile(file):
        raise ValueError("not in the folder")
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    offset = int(entries.get("offset", 0))
    length = int(entries.get("length", os.path.getsize(file) - offset))
    if min(offset, length) < 0 or offset + length > os.path.getsize(file):
        raise ValueError("beyond its end")
    # Types of less than a byte are packed.
    if length > prod(tensor.dims) * kind.itemsize:
        raise ValueError("more than the tensor")
