"""Writes a :class:`~xnorflow.frontend.graph.Graph` node by node, from Keras' layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.graph import Node
from xnorflow.frontend.keras.model import Layer
from xnorflow.frontend.keras.settings import Refused
from xnorflow.frontend.shapes import CHANNELS_FIRST, CHANNELS_LAST

__all__ = ["Builder", "Pad", "Tensor"]

_QONNX = "qonnx.custom_op.general"
_ON_IMAGES = ("AveragePool", "Conv")


@dataclass(frozen=True)
class Pad:
    """Rows and columns that the next convolution has to add.

    Attributes
    ----------
    layer : Layer
        Which asks for it.
    sizes : tuple of int
        (top, left, bottom, right).
    value : float
    """

    layer: Layer
    sizes: tuple[int, int, int, int]
    value: float


@dataclass(frozen=True)
class Tensor:
    """The data at some point.

    Attributes
    ----------
    name : str
        In the graph.
    shape : tuple of int or None
        Of a frame, with the channels last, and without `pad`; None if it is not known.
    first : bool
        Whether the graph keeps the channels first.
    pad : Pad or None
    sums : Layer or None
        The layer whose sums the data still are.
    frame : bool
        Whether they are pixels still.
    """

    name: str
    shape: tuple[int, ...] | None
    first: bool = False
    pad: Pad | None = None
    sums: Layer | None = None
    frame: bool = True

    @property
    def sizes(self) -> tuple[int, ...]:
        """`shape`, of a tensor that layers are asked to take."""
        assert self.shape is not None
        return self.shape


class Builder:
    """The graph so far.

    Attributes
    ----------
    nodes : list of Node
    initializers : dict of str to ndarray
    shapes : dict of str to tuple of int
        As of `Graph`.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.initializers: dict[str, NDArray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._names: set[str] = set()
        self._uses: Counter[str] = Counter()

    def forget(self) -> None:
        """Drop all nodes."""
        self.nodes.clear()
        self.initializers.clear()
        self.shapes.clear()

    def unique(self, name: str) -> str:
        """Return a name for a tensor or node that none has yet."""
        found = name
        while found in self._names:
            self._uses[name] += 1
            found = f"{name}_{self._uses[name] + 1}"
        self._names.add(found)
        return found

    def node(
        self,
        layer: Layer,
        kind: str,
        inputs: Sequence[Tensor],
        constants: Sequence[NDArray] = (),
        *,
        shape: tuple[int, ...] | None,
        part: str = "",
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
        refusal: tuple[str, str] | None = None,
    ) -> Tensor:
        """Append a node that takes tensors and then constants.

        Parameters
        ----------
        layer : Layer
            Which it belongs to, and whose name it has.
        kind, domain, attributes, refusal
            As of `Node`.
        inputs : sequence of Tensor
            The outcome has the properties of the first one.
        constants : sequence of ndarray
        shape : tuple of int or None
            Of the outcome.
        part : str
            What the node is within its layer; empty for the layer itself.
        """
        name = f"{layer.title}/{part}" if part else layer.title
        names = []
        for number, values in enumerate(constants):
            constant = self.unique(f"{name}/{kind}_constant_{number}")
            self.initializers[constant] = values
            names.append(constant)
        output = self.unique(name)
        result = replace(inputs[0], name=output, shape=shape)
        self.nodes.append(
            Node(
                name=name,
                named=True,
                kind=kind,
                domain=domain,
                inputs=(*(tensor.name for tensor in inputs), *names),
                outputs=(output,),
                attributes=attributes or {},
                label=str(layer),
                refusal=refusal,
            )
        )
        self.tell(result)
        return result

    def tell(self, x: Tensor) -> None:
        """Write down a tensor's shape."""
        if x.shape is not None:
            self.shapes[x.name] = (x.shape[-1], *x.shape[:-1]) if x.first else x.shape

    def elementwise(
        self,
        layer: Layer,
        kind: str,
        x: Tensor,
        *constants: NDArray,
        part: str = "",
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Append a node that keeps the shape."""
        return self.node(
            layer,
            kind,
            [x],
            constants,
            shape=x.shape,
            part=part,
            domain=domain,
            attributes=attributes,
        )

    def sign(self, layer: Layer, x: Tensor, part: str) -> Tensor:
        """Append a `BipolarQuant`: +1 from 0 on, else -1."""
        one = np.array(1, np.float32)
        x = self.elementwise(layer, "BipolarQuant", x, one, part=part, domain=_QONNX)
        return replace(x, sums=None, frame=False)

    def quantize(self, layer: Layer, x: Tensor, bits: int, part: str) -> Tensor:
        """Append a `Quant` to the integers from 0 on."""
        one, zero = np.array(1, np.float32), np.array(0, np.float32)
        width = np.array(bits, np.float32)
        attributes = {"signed": 0, "narrow": 0, "rounding_mode": b"ROUND"}
        return self.elementwise(
            layer, "Quant", x, one, zero, width, part=part, domain=_QONNX, attributes=attributes
        )

    def refused(
        self, layer: Layer, x: Tensor, why: Refused, kind: str, shape: tuple[int, ...] | None
    ) -> Tensor:
        """Append a node that stands for what is not supported, of a kind that is like it."""
        x = self.padded(x)
        image = kind in _ON_IMAGES and shape is not None
        x = self.first(layer, x) if image else self.last(layer, x)
        refusal = (why.problem, why.mend)
        # A Reshape of unknown outcome ends the walk, unless a later layer tells the shape.
        kind = "Reshape" if shape is None else kind
        result = self.node(layer, kind, [x], shape=shape, refusal=refusal)
        return replace(result, sums=None, frame=False)

    def padded(self, x: Tensor) -> Tensor:
        """Pad what waits for a convolution, if it does."""
        if x.pad is None:
            return x
        layer, (top, left, bottom, right) = x.pad.layer, x.pad.sizes
        rows, columns, channels = x.sizes
        if x.first:
            pads = [0, 0, top, left, 0, 0, bottom, right]
        else:
            pads = [0, top, left, 0, 0, bottom, right, 0]
        constants = (np.array(pads, np.int64), np.array(x.pad.value, np.float32))
        shape = (rows + top + bottom, columns + left + right, channels)
        return self.node(
            layer, "Pad", [replace(x, pad=None)], constants, shape=shape, part="padding"
        )

    def first(self, layer: Layer, x: Tensor) -> Tensor:
        """Return an image with its channels first."""
        if len(x.sizes) != 3:
            raise Refused(
                f"takes images, but gets frames of shape {x.shape}",
                "give it frames of shape (rows, columns, channels)",
            )
        if x.first:
            return x
        result = self.elementwise(
            layer, "Transpose", x, part="channels_first", attributes={"perm": CHANNELS_FIRST}
        )
        result = replace(result, first=True)
        self.tell(result)
        return result

    def last(self, layer: Layer, x: Tensor) -> Tensor:
        """Return frames with their channels last, as Keras has them."""
        if not x.first:
            return x
        result = self.elementwise(
            layer, "Transpose", x, part="channels_last", attributes={"perm": CHANNELS_LAST}
        )
        result = replace(result, first=False)
        self.tell(result)
        return result
