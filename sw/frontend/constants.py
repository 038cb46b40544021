"""Values of tensors that do not depend on the input: weights, parameters, shapes.

Arithmetic on constants is done in the type that the file stores, as an ONNX runtime does it; what
comes out is then taken as exact. The values of `BipolarQuant` are exact in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xnorflow.errors import UserError
from xnorflow.frontend.graph import QONNX, STANDARD, Graph, Node
from xnorflow.frontend.obstacles import ModelRefused, Obstacle

__all__ = ["FREE_BATCH", "Constants", "bipolar_scale", "refuse_multi_bit"]

FREE_BATCH: Final = -(1 << 62)
"""Stands for a free batch size among the sizes that `Shape` gives."""

_Evaluator = Callable[["Constants", Node, Sequence[Any]], Any]


class Constants:
    """Evaluates tensors on demand.

    Parameters
    ----------
    graph : Graph

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Shapes of computed tensors with their batch dimension, as far as they are known; whoever
        walks the graph adds them.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._known: dict[str, NDArray] = {}

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
        try:
            array = numpy_helper.to_array(tensor, self.graph.folder)
        # A damaged tensor can raise about anything; a missing file has an error of onnx's own.
        except Exception as error:
            where = f"the values of tensor {name!r}"
            if tensor.data_location == TensorProto.EXTERNAL:
                location = {e.key: e.value for e in tensor.external_data}.get("location", "")
                problem = f"lie in another file, {location!r}, that cannot be read"
                mend = "put it beside the model or export the model as one file"
            else:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                problem = f"cannot be read ({reason})"
                mend = "the file may be damaged, so export it again"
            raise ModelRefused(self.graph.path, [Obstacle(where, problem, mend)]) from None
        # ml_dtypes (bfloat16, float8, int4) are no numbers to numpy, but float32 holds them all.
        return array.astype(np.float32) if array.dtype.kind == "V" else array

    def _stored(self, tensor: str) -> NDArray:
        if tensor not in self._known:
            stored = self.graph.initializers[tensor]
            if not isinstance(stored, np.ndarray):
                stored = self.array(stored, tensor)
            self._known[tensor] = stored
        return self._known[tensor]

    def _evaluate(self, node: Node) -> None:
        if node.outputs[0] in self._known:
            return
        evaluator = _evaluators.get((node.opset, node.kind))
        if evaluator is None:
            kinds = sorted(kind for opset, kind in _evaluators if opset == STANDARD)
            self.graph.refuse(
                node,
                "computes a constant in a way that is not supported",
                f"accepted on weights and parameters are {', '.join(kinds)}, and BipolarQuant",
            )
        given = [t not in self.graph.computed and t != "" for t in node.inputs]
        arguments = [
            self._stored(tensor) if there else None
            for tensor, there in zip(node.inputs, given, strict=True)
        ]
        try:
            with np.errstate(all="ignore"):
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


_evaluators: dict[tuple[str, str], _Evaluator] = {}


def _evaluates(*kinds: str, opset: str = STANDARD) -> Callable[[_Evaluator], _Evaluator]:
    def register(evaluator: _Evaluator) -> _Evaluator:
        for kind in kinds:
            _evaluators[opset, kind] = evaluator
        return evaluator

    return register


@_evaluates("Constant")
def _constant(constants: Constants, node: Node, _: Sequence[Any]) -> Any:
    (kind, value), *others = node.attributes.items()
    if others or kind not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        constants.graph.refuse(node, "has no plain value", "give a dense tensor")
    if kind == "value":
        return constants.array(value, node.outputs[0])
    return np.array(value, np.float32 if "float" in kind else np.int64)


@_evaluates("Identity", "Dropout")
def _identity(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return inputs[0]


@_evaluates("Cast")
def _cast(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return inputs[0].astype(helper.tensor_dtype_to_np_dtype(node.attributes["to"]))


@_evaluates("Transpose")
def _transpose(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.transpose(inputs[0], node.attributes.get("perm"))


@_evaluates("Reshape")
def _reshape(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    array, sizes = inputs
    keep = not node.attributes.get("allowzero", 0)
    target = [array.shape[i] if n == 0 and keep else int(n) for i, n in enumerate(sizes)]
    return array.reshape(target)


@_evaluates("Flatten")
def _flatten(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    axis = node.attributes.get("axis", 1)
    rows = int(np.prod(inputs[0].shape[:axis]))
    return inputs[0].reshape(rows, -1)


def _axes(node: Node, inputs: Sequence[Any]) -> Any:
    """Return the axes, an attribute before operator set 13 and an input since, or None."""
    given = inputs[1] if len(inputs) > 1 else node.attributes.get("axes")
    return None if given is None else tuple(int(axis) for axis in given)


@_evaluates("Squeeze")
def _squeeze(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.squeeze(inputs[0], _axes(node, inputs))


@_evaluates("Unsqueeze")
def _unsqueeze(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.expand_dims(inputs[0], _axes(node, inputs))


@_evaluates("Concat")
def _concat(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.concatenate(inputs, axis=node.attributes["axis"])


@_evaluates("Gather")
def _gather(_: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    return np.take(inputs[0], inputs[1], axis=node.attributes.get("axis", 0))


@_evaluates("Shape")
def _shape(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    tensor = node.inputs[0]
    shape = constants.shapes.get(tensor) if inputs[0] is None else inputs[0].shape
    if shape is None:
        constants.graph.refuse(
            node,
            f"asks for the shape of tensor {tensor!r}, which is not known at that point",
            "export with constant shapes",
        )
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape, np.int64)[start:end]


@_evaluates("Add", "Sub", "Mul", "Div", "Sqrt", "Neg")
def _arithmetic(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    if inputs[0].dtype.kind != "f":
        constants.graph.refuse(
            node, f"computes a constant from {inputs[0].dtype}", "cast it to float before"
        )
    functions: dict[str, Callable[..., Any]] = {
        "Add": np.add,
        "Sub": np.subtract,
        "Mul": np.multiply,
        "Div": np.divide,
        "Sqrt": np.sqrt,
        "Neg": np.negative,
    }
    return functions[node.kind](*inputs)


@_evaluates("Sign")
def _sign(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    if np.any(inputs[0] == 0):
        constants.graph.refuse(
            node,
            "gives 0 for the weights that are 0, but a one-bit weight is -1 or +1",
            "use BipolarQuant, which gives +1 for 0",
        )
    _check_latent(constants, node, inputs[0])
    return np.sign(inputs[0])


@_evaluates("BipolarQuant", opset=QONNX)
def _bipolar_quant(constants: Constants, node: Node, inputs: Sequence[Any]) -> Any:
    _check_latent(constants, node, inputs[0])
    scale = bipolar_scale(constants, node)
    return np.where(inputs[0] >= 0, np.float32(1), np.float32(-1)) * scale


@_evaluates("Quant", "IntQuant", "Trunc", "FloatQuant", opset=QONNX)
def _quant(constants: Constants, node: Node, _: Sequence[Any]) -> Any:
    refuse_multi_bit(constants, node, "weights")


def _check_latent(constants: Constants, node: Node, latent: NDArray) -> None:
    if not np.all(np.isfinite(latent)):
        constants.graph.refuse(
            node,
            "has weights that hold NaN or infinity",
            "export the model again with finite parameters",
        )


def bipolar_scale(constants: Constants, node: Node) -> NDArray:
    """Return the positive scale of a `BipolarQuant`, or refuse the node."""
    scale = constants.numbers(node, 1, "scale")
    if not np.all(scale > 0):
        constants.graph.refuse(
            node,
            f"has the scale {float(scale.min()):g}",
            "the scale of a BipolarQuant must be positive",
        )
    return scale


def refuse_multi_bit(constants: Constants, node: Node, what: str) -> NoReturn:
    """Refuse a quantizer other than `BipolarQuant`, telling its bits where it can."""
    bits = None
    # Inputs are (x, scale, zero point, bits, ..), but for FloatQuant, whose bits are in two parts.
    stored = node.has_input(3) and node.inputs[3] not in constants.graph.computed
    if stored and node.kind != "FloatQuant":
        values = constants.numbers(node, 3, "bit width").reshape(-1)
        bits = float(values.max()) if values.size else None
    if bits == 1:
        problem = (
            f"quantizes {what} to 1 bit as an integer, for which QONNX defines the values "
            f"{{-1, 0}} or {{0, 1}} while tools disagree"
        )
    else:
        size = "several bits" if bits is None else f"{bits:g} bits"
        problem = f"quantizes {what} to {size}, and this version takes one bit"
    constants.graph.refuse(node, problem, "use BipolarQuant, which gives -1 and +1")
