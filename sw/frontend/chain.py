"""What is known of the data while the graph is walked, and the operations found so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from math import prod
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from xnorflow.frontend.constants import FREE_BATCH, Constants
from xnorflow.frontend.graph import Graph, Node
from xnorflow.frontend.obstacles import Obstacle
from xnorflow.frontend.options import ImportOptions
from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MaxPool,
    MultiThreshold,
    Op,
    PixelGain,
    Quantize,
    Sign,
)

__all__ = ["BITS", "Chain", "Content", "Layout", "Padding", "Squashing", "exact"]

BITS = range(-1, 2, 2)
"""What a sign gives."""


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
    INTEGERS = "numbers of a few levels"
    BITS = "bits"
    AVERAGES = "averages of bits"
    ACCUMULATORS = "accumulators"


class Layout(Enum):
    """How the network's tensor relates to the graph's."""

    SAME = "of the same shape"
    CHANNELS_FIRST = "(C, H, W) in the graph, (H, W, C) in the network"
    FLAT = "one dimension in the network, in row-major order of the graph's"


@dataclass(frozen=True)
class Padding:
    """A `Pad` that waits for its convolution.

    Attributes
    ----------
    node : Node
    value : Fraction
    sizes : tuple of int
        (top, left, bottom, right).
    """

    node: Node
    value: Fraction
    sizes: tuple[int, int, int, int]


@dataclass(frozen=True)
class Squashing:
    """An activation that rises everywhere, or is flat at its ends, and waits for a sign.

    Attributes
    ----------
    node : Node
    low, high : Fraction or None
        Ends of the range in which it gives ``x`` itself; None where there is no end.
    keeps_sign : bool
        Whether it gives ``x`` nowhere but keeps its sign everywhere.
    behind : int
        Number of the chain's maps before it.
    """

    node: Node
    low: Fraction | None
    high: Fraction | None
    keeps_sign: bool
    behind: int


class Chain:
    """The tensor at hand, and the operations that gave it.

    Shapes leave the batch dimension out. The network's images are (H, W, C), the graph's mostly
    (C, H, W). The network's tensor may be flat already where the graph's is not yet: parameters
    that are not one per channel need one value per element.

    Parameters
    ----------
    graph : Graph
    layout : Layout
        Of the frame: `CHANNELS_FIRST` if the graph takes it as an image (C, H, W), else `SAME`.
    options : ImportOptions, optional

    Attributes
    ----------
    constants : Constants
    obstacles : list of Obstacle
        Why the model cannot be used, as far as it was examined; all copies share it.
    ops : list of Op
    tensors : list of str
    layouts : list of Layout
        See :class:`~xnorflow.frontend.walk.Imported`.
    paths : dict of Join to list of (str, Layout)
        The same for the operations on shortcuts.
    notes : list of str
    tensor : str
        Name of the tensor at hand.
    shape : tuple of int
        Its shape in the graph, with the rows and columns that `padding` adds.
    layout : Layout
    padding : Padding or None
        What a convolution has to pad with.
    input_shape : tuple of int
        A frame's shape in the network.
    integer_type : bool
        Whether it is stored as integers, on which ONNX arithmetic would wrap and truncate.
    boolean : bool
        Whether it is stored as booleans, which are no numbers before a `Cast`.
    squashings : list of Squashing
        Activations since the frame, the bits or the accumulators.
    content : Content
    values : range or None
        What the entries were before `maps`, where that is known.
    maps : list of Affine or BatchNorm
        Operations since the frame, the bits or the accumulators.
    source : Node or None
        The last layer or quantizer.
    scored : Node or None
        The node after which only the ranking of the scores counts.
    """

    def __init__(
        self, graph: Graph, layout: Layout = Layout.SAME, options: ImportOptions | None = None
    ) -> None:
        self.graph = graph
        self.options = options or ImportOptions()
        self.constants = Constants(graph, self.options.sign_zero)
        self.obstacles = self.constants.obstacles
        self.ops: list[Op] = []
        self.tensors: list[str] = []
        self.layouts: list[Layout] = []
        self.paths: dict[Join, list[tuple[str, Layout]]] = {}
        self.notes: list[str] = []
        self.tensor = graph.input
        self.shape = self.input_shape = graph.input_shape
        self.layout = layout
        if layout is Layout.CHANNELS_FIRST:
            self.input_shape = (*self.shape[1:], self.shape[0])
        self.padding: Padding | None = None
        self.integer_type = graph.input_type in _INTEGERS
        self.boolean = False
        self.squashings: list[Squashing] = []
        self.content = Content.FRAME
        self.values: range | None = _INTEGERS.get(graph.input_type)
        self.maps: list[Affine | BatchNorm] = []
        self.source: Node | None = None
        self.scored: Node | None = None
        # Why the network's tensor is flat, and the mend, for a node that wants an image.
        self._flattened = (
            f"input {graph.input!r} holds vectors",
            "give the graph an input of shape (N, C, H, W)",
        )
        if len(self.shape) == 1:
            self.layout = Layout.FLAT
        self.arrive(graph.input)

    def arrive(self, tensor: str) -> None:
        """Make `tensor` the one at hand, of the present shape."""
        self.tensor = tensor
        batch = FREE_BATCH if self.graph.batch is None else self.graph.batch
        self.constants.shapes[tensor] = (batch, *self.shape)

    def copy(self) -> Chain:
        """Return a chain that goes its own way from here."""
        other = copy(self)
        other.ops = [*self.ops]
        other.tensors, other.layouts = [*self.tensors], [*self.layouts]
        other.paths = {**self.paths}
        other.notes, other.maps = [*self.notes], [*self.maps]
        other.squashings = [*self.squashings]
        return other

    def record(self, tensor: str = "") -> None:
        """Say that the last operation, if there is a new one, gives the graph's `tensor`."""
        new = len(self.ops) - len(self.tensors)
        if new:
            # Behind an activation that waits for its sign the values are others.
            self.tensors += [""] * (new - 1) + ["" if self.squashings else tensor]
            self.layouts += [self.layout] * new

    def obstacle(self, node: Node, problem: str, mend: str) -> None:
        """Refuse a node whose handler goes on, so that what lies behind it is examined too."""
        self.obstacles.append(Obstacle(str(node), problem, mend))

    def suppose(self, node: Node, shape: tuple[int, ...], *, layer: bool, linear: bool) -> None:
        """Go on behind a refused node with what it would have given if it were legal.

        Parameters
        ----------
        node : Node
        shape : tuple of int
            Of a frame.
        layer, linear : bool
            Whether it gives sums; whether bits stay bits and sums sums. Other nodes give bits.
        """
        if len(shape) != 3 and self.layout is not Layout.FLAT:
            self.layout = Layout.FLAT
            self._flattened = (f"{node} makes vectors of them", "leave it out")
        self.shape, self.padding, self.integer_type, self.boolean = shape, None, False, False
        if layer:
            self._begin(Content.ACCUMULATORS, node)
        elif linear:
            self.values, self.maps = None, []
        else:
            self._begin(Content.BITS, node)

    def note(self, sentence: str) -> None:
        """Record what was dropped or assumed."""
        self.notes.append(sentence)

    def flatten(
        self,
        node: Node,
        how: str = "makes vectors of them",
        mend: str = "leave it out, or put it behind the last convolution and pool",
    ) -> None:
        """Make the network's tensor flat, if it is not yet; the graph's shape stays.

        Parameters
        ----------
        node : Node
        how, mend : str
            Why, and what to do about it, should a later node need an image.
        """
        if self.layout is Layout.FLAT:
            return
        self.require_no_pad(node)
        channels_first = self.layout is Layout.CHANNELS_FIRST
        self.ops.append(Flatten(node.name, channels_first))
        self.layout, self._flattened = Layout.FLAT, (f"{node} {how}", mend)
        if channels_first and any(_channels(op) > 1 for op in self.maps):
            # These are one per channel, and channels lie apart now.
            self.values = None

    def require_no_pad(self, node: Node) -> None:
        """Refuse a node between a `Pad` and its convolution."""
        if self.padding is not None:
            self.graph.refuse(
                self.padding.node,
                f"pads the input of {node}",
                "put the Pad directly before a Conv",
            )

    def image(self, node: Node) -> tuple[int, int, int]:
        """Return rows, columns and channels of the image at hand, or refuse the node."""
        if self.layout is Layout.FLAT:
            how, mend = self._flattened
            self.graph.refuse(node, f"takes images, but {how}", mend)
        if len(self.shape) != 3:
            self.graph.refuse(
                node,
                f"takes frames of shape {self.shape}",
                "give it images of shape (N, C, H, W); a signal is an image of one row",
            )
        if self.layout is Layout.SAME:
            self.graph.refuse(
                node,
                "takes images whose channels are the last dimension",
                "put a Transpose with perm = 0, 3, 1, 2 before it",
            )
        channels, height, width = self.shape
        return height, width, channels

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
        """Refuse arithmetic on a tensor of integers or booleans."""
        if self.boolean:
            self.graph.refuse(
                node,
                f"computes with tensor {self.tensor!r}, which holds booleans",
                "put a Cast to FLOAT before it",
            )
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
            C is the last axis of the network's tensor, which is made flat if need be, as where
            an image has other parameters for each pixel.
        """
        rank = len(self.shape) + 1
        batched = values.ndim == rank
        if batched and values.shape[0] == self.graph.batch and np.all(values == values[:1]):
            values = values[:1]
        if values.ndim > rank or (batched and values.shape[0] != 1):
            self._refuse_shape(node, values)
        per_frame = values[0] if batched else values
        try:
            full = np.broadcast_to(per_frame, self.shape)
        except ValueError:
            self._refuse_shape(node, values)
        if values.size == 1:
            return values.reshape(1)
        if self.layout is not Layout.FLAT:
            first = self.layout is Layout.CHANNELS_FIRST
            pixels = np.moveaxis(full, 0, -1) if first else full
            pixels = pixels.reshape(-1, pixels.shape[-1])
            if np.all(pixels == pixels[0]):
                return pixels[0]
        self.flatten(
            node,
            "has parameters that differ between the pixels of one channel",
            "give one value for all pixels of a channel",
        )
        return full.reshape(-1)

    def _refuse_shape(self, node: Node, values: NDArray) -> NoReturn:
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
            self.map(op)

    def map(self, op: Affine | BatchNorm) -> None:
        """Append a map of every element."""
        self.ops.append(op)
        self.maps.append(op)

    def sign(self, node: Node) -> None:
        """Append a sign."""
        self.ops.append(Sign(node.name))
        self._begin(Content.BITS, node, BITS)

    def quantize(self, node: Node, op: Quantize | MultiThreshold) -> None:
        """Append a quantizer to several levels."""
        self.ops.append(op)
        self._begin(Content.INTEGERS, node)

    def dense(self, node: Node, op: Dense) -> None:
        """Append a layer, for the time being under its node's own name."""
        self.flatten(node)
        self.ops.append(replace(op, name=_layer_name(node)))
        self.shape = (*self.shape[:-1], op.weights.shape[0])
        self._begin_sums(node, op)

    def conv(self, node: Node, op: Conv2d, shape: tuple[int, int]) -> None:
        """Append a convolution whose outputs have `shape` rows and columns, named as `dense`."""
        self.ops.append(replace(op, name=_layer_name(node)))
        self.shape, self.padding = (op.weights.shape[0], *shape), None
        self._begin_sums(node, op, op.pad_value if any(op.padding) else None)

    def pool(self, node: Node, op: MaxPool | AveragePool, shape: tuple[int, int]) -> None:
        """Append a pool whose outputs have `shape` rows and columns."""
        self.ops.append(op)
        size, self.shape = self.shape[1:], (self.shape[0], *shape)
        if isinstance(op, AveragePool):
            self._begin_means(prod(op.kernel or size))
            if self.content is Content.BITS:
                self.content, self.source = Content.AVERAGES, node

    def _begin(self, content: Content, node: Node, values: range | None = None) -> None:
        self.content, self.source, self.values = content, node, values
        self.maps, self.squashings = [], []

    def _begin_means(self, taps: int) -> None:
        """Go on with means of so many entries, of which the maps are those of the entries."""
        if self.values is not None:
            first, last, step = self.values[0], self.values[-1], self.values.step
            self.values = range(taps * first, taps * last + 1, step)
            self.maps = [Affine("", (Fraction(1, taps),)), *self.maps]

    def _begin_sums(self, node: Node, op: Dense | Conv2d, pad: Fraction | None = None) -> None:
        """Begin with sums of bits by rows of -1 and +1, if the bits are the same numbers all.

        The numbers are ``scale * b + offset`` of b = -1 and +1; taps of the padding hold `pad`.
        """
        ends = [Fraction(end) for end in BITS]
        uniform = self.content is Content.BITS and op.coefficients is None
        for map_ in self.maps:
            uniform = uniform and isinstance(map_, Affine) and _channels(map_) == 1
            if isinstance(map_, Affine):
                ends = [map_.scale[0] * end + map_.offset[0] for end in ends]
        scale, offset = (ends[1] - ends[0]) / 2, (ends[1] + ends[0]) / 2
        weights = op.weights.reshape(len(op.weights), -1)
        terms = weights.shape[1]
        if not uniform or (pad is not None and pad not in ends and (pad or offset)):
            self._begin(Content.ACCUMULATORS, node)
            return
        step = 1 if pad is not None and pad not in ends else 2
        self._begin(Content.ACCUMULATORS, node, range(-terms, terms + 1, step))
        sums = weights.sum(axis=1, dtype=np.int64).tolist() if offset else [0]
        self.maps = [Affine(node.name, (scale,), tuple(offset * total for total in sums))]

    def unmap(self, fork: int) -> None:
        """Take back all operations but the first `fork`; the others are maps."""
        kept = len(self.maps) - (len(self.ops) - fork)
        for entries in (self.ops, self.tensors, self.layouts):
            del entries[fork:]
        del self.maps[kept:]

    def rewrite(self, node: Node, fork: int, ops: Sequence[Op]) -> None:
        """Put layers or a quantizer of `node` in the place of all operations but the first.

        Parameters
        ----------
        node : Node
        fork : int
            Number of operations that stay.
        ops : sequence of Op
            What gives a tensor of the same shape.
        """
        for entries in (self.tensors, self.layouts):
            del entries[fork:]
        self.ops[fork:] = ops
        layer = any(isinstance(op, Dense | Conv2d) for op in ops)
        self._begin(Content.ACCUMULATORS if layer else Content.INTEGERS, node)

    @property
    def channels(self) -> int:
        """Number of channels, or of the values of a vector."""
        return self.shape[0 if self.layout is Layout.CHANNELS_FIRST else -1]

    def join(self, node: Node, op: Join, side: Chain, content: Content, channels: int) -> None:
        """Append the end of a shortcut, which makes `content` and adds so many channels."""
        self.ops.append(op)
        side.record()
        places = zip(side.tensors, side.layouts, strict=True)
        self.paths[op] = list(places)[len(side.ops) - len(op.path) :]
        self.paths |= side.paths
        if self.layout is Layout.CHANNELS_FIRST:
            self.shape = (self.shape[0] + channels, *self.shape[1:])
        else:
            self.shape = (*self.shape[:-1], self.shape[-1] + channels)
        self._begin(content, node)

    def gain(self, node: Node, op: PixelGain) -> None:
        """Append gains of pixels, which sums have as they are."""
        self.ops.append(op)
        self._begin(Content.ACCUMULATORS, node)

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

    def move_channels(self, layout: Layout) -> None:
        """Move the channels of an image to the first or the last axis of the graph's tensor."""
        if layout is Layout.CHANNELS_FIRST:
            self.shape = (self.shape[-1], *self.shape[:-1])
        else:
            self.shape = (*self.shape[1:], self.shape[0])
        self.layout = layout


def _channels(op: Affine | BatchNorm) -> int:
    """Return the number of channels that have a map of their own."""
    if isinstance(op, BatchNorm):
        return len(op.gamma)
    pairs = (
        (op.scale[channel % len(op.scale)], op.offset[channel % len(op.offset)])
        for channel in range(max(len(op.scale), len(op.offset)))
    )
    return len(set(pairs))


def _layer_name(node: Node) -> str:
    return node.name if node.named else ""
