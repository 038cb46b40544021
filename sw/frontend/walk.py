"""From a file to a network: follow the data from the input to the output."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from xnorflow.errors import UserError
from xnorflow.frontend.chain import Chain, Content, Layout
from xnorflow.frontend.graph import Graph, Node
from xnorflow.frontend.reader import read_graph
from xnorflow.frontend.registry import find
from xnorflow.frontend.scores import dropped_after, may_follow
from xnorflow.frontend.shapes import CHANNELS_LAST
from xnorflow.network import Conv2d, Dense, Network, Op

__all__ = ["layer_names", "network_of"]

_MAX_NAME = 40
_OPERATOR = re.compile(r"(node_)?((gemm|matmul|linear)(_?\d+)?|conv(2d)?(_\d+)?)", re.IGNORECASE)
_ON_IMAGES = ("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean")
_KEEPS_SHAPE = (
    *(
        "Add",
        "BatchNormalization",
        "BipolarQuant",
        "Cast",
        "Div",
        "Dropout",
        "Identity",
        "IntQuant",
    ),
    *("Mul", "Neg", "Pad", "Quant", "Reshape", "Sign", "Sub"),
)
_KEEPS_PAD = ("Conv", "Dropout", "Identity", "Transpose")


def network_of(path: str | Path) -> Network:
    """Read a QONNX file, see :func:`xnorflow.frontend.load`."""
    graph = read_graph(path)
    chain = Chain(graph, _layout_of_frames(graph))
    if graph.dead:
        names = ", ".join(repr(node.name) for node in graph.dead)
        chain.note(f"Left out, because no output depends on them: {names}.")
    step = _next(graph, (graph.input,))
    while step is not None:
        tensor, node = step
        chain.arrive(tensor)
        _import(chain, node)
        step = _next(graph, node.outputs)
    _check_end(chain)
    return Network(Path(path).stem, chain.input_shape, _named(chain.ops), tuple(chain.notes))


def _layout_of_frames(graph: Graph) -> Layout:
    """Tell from the first node that needs to know it whether frames are images (C, H, W)."""
    step = _next(graph, (graph.input,)) if len(graph.input_shape) == 3 else None
    while step is not None:
        _, node = step
        first = node.kind in _ON_IMAGES
        if node.kind == "Transpose":
            first = "perm" in node.attributes and graph.integers(node, "perm") == CHANNELS_LAST
        if first:
            return Layout.CHANNELS_FIRST
        step = _next(graph, node.outputs) if node.kind in _KEEPS_SHAPE else None
    return Layout.SAME


def _next(graph: Graph, tensors: Sequence[str]) -> tuple[str, Node] | None:
    """Return the one tensor of a node's outputs that is read, and its reader; None at the end."""
    reads = [(tensor, node) for tensor in tensors if tensor for node in graph.readers(tensor)]
    leaving = [tensor for tensor in tensors if tensor in graph.outputs]
    if len(reads) == 1 and not leaving:
        return reads[0]
    if reads:
        uses = [str(node) for _, node in reads] + [f"output {tensor!r}" for tensor in leaving]
        raise UserError(
            f"{graph.path}: tensor {reads[0][0]!r} goes to {' and '.join(uses)}; "
            f"give a chain of layers without branches, skip connections or inner outputs"
        )
    if not leaving:
        raise UserError(
            f"{graph.path}: no output depends on input {graph.input!r}; give a chain of layers"
        )
    if set(leaving) != set(graph.outputs):
        raise UserError(
            f"{graph.path}: has {len(graph.outputs)} outputs "
            f"({', '.join(map(repr, graph.outputs))}); give a network with exactly one"
        )
    return None


def _import(chain: Chain, node: Node) -> None:
    graph = chain.graph
    if chain.scored is not None and not may_follow(chain.scored, node):
        graph.refuse(
            node, f"follows {chain.scored}", "end the network there, or with ArgMax or TopK"
        )
    for tensor in node.outputs[1:]:
        if node.kind != "TopK" and tensor and (tensor in graph.outputs or graph.readers(tensor)):
            graph.refuse(node, f"has a second output {tensor!r} in use", "use its first one only")
    if node.kind not in _KEEPS_PAD:
        chain.require_no_pad(node)
    if not dropped_after(chain.scored, node):
        find(node)(chain, node)


def _check_end(chain: Chain) -> None:
    path = chain.graph.path
    if chain.padding is not None:
        chain.graph.refuse(chain.padding.node, "pads the network's output", "leave it out")
    if not any(isinstance(op, Dense | Conv2d) for op in chain.ops):
        raise UserError(
            f"{path}: has no weight layer; give a network with at least one Gemm, MatMul or Conv"
        )
    if chain.content is Content.BITS and chain.source is not None:
        chain.graph.refuse(
            chain.source,
            "follows the last layer, so that no scores are left to choose a class by",
            "end the network with the sums of the last layer",
        )
    if chain.layout is not Layout.FLAT and prod(chain.shape) != max(chain.shape):
        raise UserError(
            f"{path}: ends in images of shape {chain.shape}, not in one score for each class; "
            f"end the network with a GlobalAveragePool or a Gemm"
        )


def _named(ops: Sequence[Op]) -> tuple[Op, ...]:
    """Give every layer its name."""
    layers = [op for op in ops if isinstance(op, Dense | Conv2d)]
    stems = ["conv" if isinstance(op, Conv2d) else "fc" for op in layers]
    names = iter(layer_names([op.name for op in layers], stems))
    return tuple(
        replace(op, name=next(names)) if isinstance(op, Dense | Conv2d) else op for op in ops
    )


def layer_names(nodes: Sequence[str], stems: Sequence[str]) -> list[str]:
    """Return a unique, stable, readable name for each layer.

    It is the node's name without empty parts and without parts that only repeat the operator
    (``/features/3/MatMul`` gives ``features_3``, ``node_linear_5`` nothing). Where that leaves
    nothing, a name that does not start with a letter, or the name of two layers, the layer is
    its stem and N, the N-th one.

    Parameters
    ----------
    nodes : sequence of str
        Node names in data-flow order.
    stems : sequence of str
        For each what stands in for a name, such as ``fc``.

    Returns
    -------
    list of str
        Letters, digits and underscores, at most 40 of them.
    """
    names = [_readable(node) for node in nodes]
    counts = Counter(names)
    taken = {name for name in names if name and counts[name] == 1}
    result = []
    for number, (name, stem) in enumerate(zip(names, stems, strict=True), start=1):
        if name not in taken:
            name = f"{stem}{number}"
            while name in taken:
                name += "_"
            taken.add(name)
        result.append(name)
    return result


def _readable(node: str) -> str:
    parts = [p for p in re.split(r"[^A-Za-z0-9_]+", node) if p and not _OPERATOR.fullmatch(p)]
    name = "_".join(parts)
    return name if re.fullmatch(rf"[A-Za-z]\w{{0,{_MAX_NAME - 1}}}", name, re.ASCII) else ""
