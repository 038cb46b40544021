"""Where branches meet: sums of bases, residual connections and concatenations.

A network is a chain, in which a `Join` looks back: of the branches that meet, one is the chain, and
the others are shortcuts, which begin somewhere on it and in which no branches meet. What chains
have in common are the operations before the tensor at which they parted.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from xnorflow.frontend.bases import common_ops, merge_bases
from xnorflow.frontend.chain import Chain, Content, Layout
from xnorflow.frontend.graph import STANDARD, Graph, Node
from xnorflow.frontend.obstacles import Obstacle
from xnorflow.frontend.squashing import require_unsquashed
from xnorflow.network import Conv2d, Dense, Join, MultiThreshold, Op, Quantize, Sign

__all__ = ["joined", "joins", "lonely", "negated", "waits"]

_SUMS = ("Add", "Sub", "Sum")


def joins(graph: Graph, node: Node) -> bool:
    """Whether branches meet at a node in a way that a network can have."""
    data = [tensor for tensor in node.inputs if tensor in graph.computed]
    if node.opset != STANDARD or len(data) < 2:
        return False
    return node.kind in (*_SUMS, "Concat") and (node.kind != "Sub" or len(set(data)) == 2)


def lonely(chain: Chain, node: Node) -> None:
    """Refuse a node that joins the one tensor at hand and constants."""
    chain.graph.refuse(
        node,
        "joins a tensor and constants",
        "give it tensors that depend on the input, and add a constant by an Add",
    )


def waits(graph: Graph, node: Node) -> bool:
    """Whether a sum is a term of one other sum, in which its terms can as well be added."""
    readers = graph.readers(node.outputs[0])
    return (
        node.kind in _SUMS
        and node.outputs[0] not in graph.output_tensors
        and len(readers) == 1
        and readers[0].kind in _SUMS
        and joins(graph, readers[0])
    )


def negated(term: Chain, node: Node) -> Chain:
    """Return a term with its sign turned."""
    term = term.copy()
    term.affine(node, (Fraction(-1),))
    return term


def joined(terms: Sequence[Chain], node: Node) -> Chain:
    """Return the chain behind a node at which branches meet.

    Parameters
    ----------
    terms : sequence of Chain
        In the order of the node's inputs, or of the terms of nested sums.
    node : Node

    Raises
    ------
    ModelRefused
        The branches do not suit each other.
    """
    graph = terms[0].graph
    if any(tensor and tensor not in graph.computed for tensor in node.inputs):
        graph.refuse(node, "joins branches and a constant", "add the constant by a node of its own")
    terms = [term.copy() for term in terms]
    for term in terms:
        term.require_no_pad(node)
        term.require_float(node)
        require_unsquashed(term)
    _check_shapes(terms, node)
    if node.kind != "Concat":
        terms = merge_bases(terms, node)
    if len(terms) == 1:
        return terms[0]
    main = _main(terms, node)
    if main is None:
        # As if all shortcuts were none.
        return max(terms, key=_length)
    place = terms.index(main)
    for side in terms[place + 1 :]:
        main = _join(main, side, node, "add" if node.kind != "Concat" else "append")
    for side in terms[:place][::-1]:
        main = _join(main, side, node, "add" if node.kind != "Concat" else "prepend")
    return main


def _check_shapes(terms: Sequence[Chain], node: Node) -> None:
    graph, first = terms[0].graph, terms[0]
    axis = 0
    if node.kind == "Concat":
        axis = _axis(first, node)
    for term in terms[1:]:
        if term.layout is not first.layout:
            graph.refuse(
                node,
                "joins an image and a vector, or images with the channels in other places",
                "put the same Flatten or Transpose into each branch",
            )
        ours, theirs = first.shape, term.shape
        if node.kind == "Concat" and len(ours) == len(theirs):
            ours, theirs = (shape[:axis] + shape[axis + 1 :] for shape in (ours, theirs))
        if ours != theirs:
            graph.refuse(
                node,
                f"joins frames of shape {first.shape} and {term.shape}",
                "make them alike: put a pool or a layer with the stride and the channels of the "
                "other branch into the shortcut",
            )


def _axis(chain: Chain, node: Node) -> int:
    """Return the axis of a frame along which a `Concat` works, which must be its channels."""
    rank = len(chain.shape) + 1
    axis = chain.graph.integer(node, "axis", 1)
    axis += rank if axis < 0 else 0
    first = chain.layout is Layout.CHANNELS_FIRST
    if rank != (2 if chain.layout is Layout.FLAT else 4) or axis != (1 if first else rank - 1):
        chain.graph.refuse(
            node,
            f"joins frames of shape {chain.shape} along the axis {axis}",
            "give the axis of the channels, 1 for images (N, C, H, W) and for vectors",
        )
    return axis - 1


def _length(term: Chain) -> tuple[int, int]:
    """Return the numbers of ends of shortcuts, which no shortcut has, and of layers."""
    ends = sum(isinstance(op, Join) for op in term.ops)
    return ends, sum(isinstance(op, Dense | Conv2d) for op in term.ops)


def _main(terms: Sequence[Chain], node: Node) -> Chain | None:
    """Return the branch that the others are shortcuts of; None, with an obstacle, if none is."""
    ranked = sorted(terms, key=_length, reverse=True)
    main, sides = ranked[0], ranked[1:]
    obstacles = []
    if any(isinstance(op, Join) for side in sides for op in _path(main, side)):
        obstacles.append(
            Obstacle(
                str(node),
                "joins a shortcut in which branches meet as well",
                "begin the shortcut behind the node at which they meet",
            )
        )
    # A layer of an earlier shortcut, or of two that end here.
    taken = [part for op in main.ops if isinstance(op, Join) for part in op.path]
    for side in sides:
        layers = [op for op in _path(main, side) if isinstance(op, Dense | Conv2d)]
        if any(layer is other for layer in layers for other in taken):
            obstacles.append(
                Obstacle(
                    str(node),
                    "joins a shortcut that begins on another shortcut, behind a layer",
                    "begin each shortcut on the longest branch",
                )
            )
        taken += layers
    main.obstacles += obstacles
    return None if obstacles else main


def _path(main: Chain, side: Chain) -> list[Op]:
    """Return what a branch does since it parted from another one."""
    return side.ops[common_ops([main, side]) :]


def _join(main: Chain, side: Chain, node: Node, how: Literal["add", "append", "prepend"]) -> Chain:
    """Return the main branch with a shortcut at its end."""
    fork = common_ops([main, side])
    contents = {main.content, side.content}
    if Content.FRAME in contents and contents != {Content.FRAME} and _quantizes_frame(main):
        main.obstacle(
            node,
            "joins the frame as it is before anything quantizes it",
            "begin the shortcut behind the quantizer of the frame",
        )
    content = Content.INTEGERS
    if Content.ACCUMULATORS in contents:
        content = Content.ACCUMULATORS
    elif len(contents) == 1 and how != "add":
        content = main.content
    channels = 0 if how == "add" else side.channels
    main.join(node, Join(node.name, fork, tuple(side.ops[fork:]), how), side, content, channels)
    main.notes += [note for note in side.notes if note not in main.notes]
    return main


def _quantizes_frame(chain: Chain) -> bool:
    kinds = Sign | Quantize | MultiThreshold | Dense | Conv2d
    first = next((op for op in chain.ops if isinstance(op, kinds)), None)
    return first is not None and not isinstance(first, Dense | Conv2d)
