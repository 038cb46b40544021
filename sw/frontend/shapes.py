"""Operators that leave every value as it is: reshapes, casts, dropout."""

from __future__ import annotations

from math import prod

from onnx import TensorProto

from xnorflow.frontend.chain import Chain, Layout
from xnorflow.frontend.constants import FREE_BATCH
from xnorflow.frontend.graph import Node

__all__ = [
    "CHANNELS_FIRST",
    "CHANNELS_LAST",
    "axes_of",
    "cast",
    "dropout",
    "flatten",
    "identity",
    "reshape",
    "squeeze",
    "transpose",
    "unsqueeze",
]

CHANNELS_FIRST, CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
"""Orders of axes that move the channels of images."""

_INTEGERS = (
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
)
_NUMBERS = (*_INTEGERS, TensorProto.FLOAT16, TensorProto.BFLOAT16)

_KEEP_BATCH = "give a shape whose first dimension is the batch, such as (0, -1)"


def identity(chain: Chain, node: Node) -> None:
    """``x``."""


def cast(chain: Chain, node: Node) -> None:
    """``x`` as FLOAT or DOUBLE, which hold every value that the chain can have there.

    Every type but boolean holds what a comparison gives, 0 and 1.
    """
    if chain.scored is not None:
        return
    kind = chain.graph.integer(node, "to", 0)
    if kind not in (TensorProto.FLOAT, TensorProto.DOUBLE, *(_NUMBERS if chain.boolean else ())):
        chain.graph.refuse(node, "casts the data to another type", "cast to FLOAT or DOUBLE")
    chain.integer_type = chain.boolean and kind in _INTEGERS
    chain.boolean = False


def dropout(chain: Chain, node: Node) -> None:
    """``x`` at inference."""
    if node.has_input(2) and chain.constants.value(node, 2, "training mode").any():
        chain.graph.refuse(
            node, "is in training mode", "export the model for inference (model.eval() in torch)"
        )
    chain.note(f"{node}: dropped, because at inference it changes nothing.")


def flatten(chain: Chain, node: Node) -> None:
    """Frames as vectors."""
    rank = len(chain.shape) + 1
    axis = chain.graph.integer(node, "axis", 1)
    axis += rank if axis < 0 else 0
    if not 0 <= axis <= rank:
        chain.graph.refuse(node, f"has axis {axis} of {rank}", "give axis = 1")
    # Rows of the result, frames included: legal if every frame is one row.
    rows = prod(chain.shape[: axis - 1]) if axis else chain.graph.batch
    if rows != 1:
        chain.graph.refuse(
            node,
            f"with axis {axis} splits or joins frames",
            "give axis = 1, which keeps each whole",
        )
    chain.reshape(node, (prod(chain.shape),))


def reshape(chain: Chain, node: Node) -> None:
    """Frames in another shape, row-major."""
    chain.require_data(node, "first input")
    target = chain.constants.integers(node, 1, "shape")
    source = (FREE_BATCH if chain.graph.batch is None else chain.graph.batch, *chain.shape)
    if not chain.graph.integer(node, "allowzero", 0):
        if any(size == 0 and i >= len(source) for i, size in enumerate(target)):
            chain.graph.refuse(node, f"has the shape {target}", _KEEP_BATCH)
        target = [source[i] if size == 0 else size for i, size in enumerate(target)]
    shape = _frame_shape(chain, target)
    if shape is None:
        shown = ["batch" if size == FREE_BATCH else size for size in target]
        chain.graph.refuse(
            node,
            f"makes ({', '.join(map(str, shown))}) from frames of shape {chain.shape}, "
            f"which splits, joins or resizes frames",
            _KEEP_BATCH,
        )
    if target[0] == 1 and chain.graph.batch is None:
        chain.note(f"{node}: its batch size of 1 is taken as any.")
    chain.reshape(node, shape)


def _frame_shape(chain: Chain, target: list[int]) -> tuple[int, ...] | None:
    """Return a frame's shape after a reshape, or None if frames do not stay whole."""
    size = prod(chain.shape)
    if not target or target.count(-1) > 1:
        return None
    batch, *frame = target
    if -1 in frame:
        known = -prod(frame)
        if known <= 0 or size % known:
            return None
        frame[frame.index(-1)] = size // known
    if any(n <= 0 for n in frame) or prod(frame) != size:
        return None
    legal = {-1, 1, FREE_BATCH} if chain.graph.batch is None else {-1, chain.graph.batch}
    return tuple(frame) if batch in legal else None


def squeeze(chain: Chain, node: Node) -> None:
    """Drop dimensions of size 1 of each frame."""
    rank = len(chain.shape) + 1
    axes = axes_of(chain, node, rank)
    if axes is None:
        legal = chain.graph.batch not in (None, 1)
        axes = [i + 1 for i, size in enumerate(chain.shape) if size == 1]
    else:
        legal = all(0 < axis < rank and chain.shape[axis - 1] == 1 for axis in axes)
    if not legal:
        chain.graph.refuse(
            node, "drops the batch dimension or one that is not 1", "name other axes"
        )
    chain.reshape(node, tuple(n for i, n in enumerate(chain.shape) if i + 1 not in axes))


def unsqueeze(chain: Chain, node: Node) -> None:
    """Add dimensions of size 1 to each frame."""
    given = axes_of(chain, node, 0) or []
    rank = len(chain.shape) + 1 + len(given)
    axes = sorted(axis + rank if axis < 0 else axis for axis in given)
    if len(set(axes)) < len(axes) or any(not 0 < axis < rank for axis in axes):
        chain.graph.refuse(node, "adds a dimension before the batch", "name axes from 1 on")
    shape = list(chain.shape)
    for axis in axes:
        shape.insert(axis - 1, 1)
    chain.reshape(node, tuple(shape))


def axes_of(chain: Chain, node: Node, rank: int) -> list[int] | None:
    """Return the axes, an attribute before operator set 13 and an input since, or None."""
    if node.has_input(1):
        axes = chain.constants.integers(node, 1, "list of axes")
    elif "axes" in node.attributes:
        axes = chain.graph.integers(node, "axes")
    else:
        return None
    return [axis + rank if axis < 0 else axis for axis in axes]


def transpose(chain: Chain, node: Node) -> None:
    """Move the channels of images, which the network's tensor does not see, or dimensions of 1."""
    rank = len(chain.shape) + 1
    default = list(range(rank))[::-1]
    order = chain.graph.integers(node, "perm") if "perm" in node.attributes else default
    if order == CHANNELS_FIRST and chain.layout is Layout.SAME and rank == len(order):
        chain.move_channels(Layout.CHANNELS_FIRST)
        return
    if order == CHANNELS_LAST and chain.layout is Layout.CHANNELS_FIRST:
        chain.move_channels(Layout.SAME)
        return
    large = [axis for axis in order if axis > 0 and chain.shape[axis - 1 : axis] != (1,)]
    if sorted(order) != default[::-1] or order[0] != 0 or large != sorted(large):
        chain.graph.refuse(
            node,
            f"reorders the values of frames of shape {chain.shape}",
            "feed frames in the order that the first layer takes",
        )
    chain.reshape(node, tuple(chain.shape[axis - 1] for axis in order[1:]))
