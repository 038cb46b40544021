"""From a graph to a network: follow the data from the input to the output.

Every node on the data's way is imported by its handler. A node that is refused does not end the
walk: where it can be told what the node would give, what lies behind it is examined too, so that a
user learns of all obstacles at once. Branches are each followed by a chain of its own, until they
meet.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from xnorflow.errors import UserError
from xnorflow.frontend.chain import Chain, Content, Layout
from xnorflow.frontend.graph import Graph, Node
from xnorflow.frontend.joins import joined, joins, negated, waits
from xnorflow.frontend.obstacles import ModelRefused, Obstacle
from xnorflow.frontend.options import ImportOptions
from xnorflow.frontend.pixel_gains import Gain, multiplied, pixel_gain, read_gain
from xnorflow.frontend.registry import find
from xnorflow.frontend.scores import dropped_after, may_follow
from xnorflow.frontend.shapes import CHANNELS_LAST
from xnorflow.frontend.squashing import require_unsquashed
from xnorflow.frontend.straight_through import Region, straight_through
from xnorflow.network import Affine, Conv2d, Dense, Join, Network, Op

__all__ = ["Imported", "import_graph", "layer_names"]

_MAX_NAME = 40
_OPERATOR = re.compile(r"(node_)?((gemm|matmul|linear)(_?\d+)?|conv(2d)?(_\d+)?)", re.IGNORECASE)
_ON_IMAGES = (
    *("AveragePool", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
    "ReduceMean",
)
_RESHAPES = (
    *("Flatten", "Gemm", "MatMul", "Squeeze", "Transpose", "Unsqueeze", "XnorPopcountMatMul"),
)
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "XnorPopcountMatMul")
_LINEAR = (
    *("Add", "BatchNormalization", "Concat", "Div", "Identity", "Mul", "Neg", "Pad", "Sub", "Sum"),
)
_KEEPS_PAD = ("Conv", "Dropout", "Identity", "Transpose")


@dataclass(frozen=True, eq=False)
class Imported:
    """A network, and the graph that it was read from.

    Attributes
    ----------
    graph : Graph
    network : Network
    tensors : tuple of str
        For each operation of `Network.flow` the tensor of the graph that holds its outcome; empty
        where the graph has none, as between a layer and its gain.
    frame_layout : Layout
        Of the frames.
    layouts : tuple of Layout
        Of each of the tensors.
    options : ImportOptions
        What the user added to the graph.
    """

    graph: Graph
    network: Network
    tensors: tuple[str, ...]
    frame_layout: Layout
    layouts: tuple[Layout, ...]
    options: ImportOptions


def import_graph(graph: Graph, options: ImportOptions | None = None) -> Imported:
    """Turn a graph into a network.

    Parameters
    ----------
    graph : Graph
    options : ImportOptions, optional

    Returns
    -------
    Imported

    Raises
    ------
    ModelRefused
        With all obstacles, in the order of the data flow.
    """
    frame_layout = _layout_of_frames(graph)
    chain = Chain(graph, frame_layout, options or ImportOptions())
    if graph.dead:
        names = ", ".join(repr(node.name) for node in graph.dead)
        chain.note(f"Left out, because no output depends on them: {names}.")
    _scale_input(chain)
    end = _follow(chain)
    if end is not None:
        _collect(chain, lambda: _check_end(end))
    if chain.obstacles or end is None:
        raise ModelRefused(graph.path, list(dict.fromkeys(chain.obstacles)))
    network = Network(Path(graph.path).stem, end.input_shape, _named(end.ops), tuple(end.notes))
    tensors, layouts = zip(*_places(end), strict=True)
    return Imported(graph, network, tensors, frame_layout, layouts, chain.options)


def _places(chain: Chain) -> Iterator[tuple[str, Layout]]:
    """Yield the tensors of all operations and their layouts, those on a shortcut before its end."""
    for op, tensor, layout in zip(chain.ops, chain.tensors, chain.layouts, strict=True):
        if isinstance(op, Join):
            yield from chain.paths[op]
        yield tensor, layout


def _layout_of_frames(graph: Graph) -> Layout:
    """Tell from the first node that needs to know it whether frames are images (C, H, W)."""
    frames = {graph.input} if len(graph.input_shape) == 3 else set()
    for node in graph.live:
        if frames.isdisjoint(node.inputs) or node.kind in ("Shape", *_RESHAPES):
            if node.kind != "Transpose" or frames.isdisjoint(node.inputs):
                continue
            last = "perm" in node.attributes and graph.integers(node, "perm") == CHANNELS_LAST
            return Layout.CHANNELS_FIRST if last else Layout.SAME
        if node.kind in _ON_IMAGES:
            return Layout.CHANNELS_FIRST
        frames.update(node.outputs)
    return Layout.SAME


def _scale_input(chain: Chain) -> None:
    """Put what happened to the bytes of the frames outside of the file in front."""
    options = chain.options
    if not options.scales_input:
        return
    if chain.integer_type:
        raise UserError(
            f"{chain.graph.path}: input {chain.graph.input!r} takes integers, so that no scale or "
            f"offset can have been put on them before; leave the input scale and offset out"
        )
    chain.values = range(256)
    chain.map(Affine(chain.graph.input, (options.input_scale,), (options.input_offset,)))
    chain.record()


def _follow(chain: Chain) -> Chain | None:
    """Import every node on the data's way; return what is known at the output, or None."""
    graph = chain.graph
    if graph.output_tensors.isdisjoint(graph.computed):
        raise UserError(
            f"{graph.path}: no output depends on input {graph.input!r}; give a chain of layers"
        )
    walk = _Walk(chain)
    for node in graph.live:
        walk.visit(node)
    return _outcome(chain, walk.known)


class _Walk:
    """What is known of the tensors so far.

    Attributes
    ----------
    known : dict of str to Chain
    """

    def __init__(self, chain: Chain) -> None:
        self.graph = chain.graph
        self.known = {chain.graph.input: chain}
        # Terms of sums that are terms of another sum.
        self._terms: dict[str, list[Chain]] = {}
        self._done: set[Node] = set()
        # What each concatenation gives: dense connections repeat the tensors of the one before.
        self._concatenated: dict[tuple[str, ...], Chain] = {}
        # Products with a gain for each pixel: what they multiply, and the gain if it is legal.
        self._gains: dict[Node, tuple[str, Gain | None]] = {}
        self._told: set[str] = set()

    def visit(self, node: Node) -> None:
        """Import a node, if what it takes is known."""
        sources = [t for t in dict.fromkeys(node.inputs) if t in self.graph.computed]
        taken = [t for t in sources if t in self.known or t in self._terms]
        if node in self._done or node.kind == "Shape" or not taken:
            return
        if node in self._gains:
            self._multiply(node)
        elif joins(self.graph, node):
            self._join(node, sources)
        elif len(sources) > 1:
            self._refuse_meeting(node, taken)
        else:
            self._estimator(taken[0])
            if node not in self._done and not self._gain(node, taken[0]):
                self._import(node, taken[0])

    def _at(self, tensor: str) -> Chain:
        """Return a chain at a known tensor, one of its own where the tensor goes several ways."""
        chain = self.known[tensor]
        uses = self.graph.readers(tensor)
        inner = tensor in self.graph.output_tensors
        if inner and uses and tensor not in self._told:
            self._told.add(tensor)
            chain.obstacles.append(
                Obstacle(
                    f"tensor {tensor!r}",
                    f"goes to {' and '.join(map(str, uses))} and output {tensor!r}",
                    "give a network without inner outputs",
                )
            )
        if len(uses) > 1 or inner:
            chain = chain.copy()
        chain.arrive(tensor)
        return chain

    def _import(self, node: Node, tensor: str) -> None:
        chain = self._at(tensor)
        if _import(chain, node):
            self.known.update(dict.fromkeys(filter(None, node.outputs), chain))

    def _estimator(self, tensor: str) -> None:
        """Import the branches of a straight-through estimator that begin at a tensor, if any do."""
        readers = [node for node in self.graph.readers(tensor) if node not in self._done]
        if len(readers) < 2 or tensor in self.graph.output_tensors:
            return
        chain = self.known[tensor].copy()
        chain.arrive(tensor)
        region = straight_through(chain, tensor)
        if region is None or not region.nodes.isdisjoint(self._done):
            return
        self._done |= region.nodes
        if _import_region(chain, region):
            self.known[region.last.outputs[0]] = chain

    def _gain(self, node: Node, tensor: str) -> bool:
        """Read a gain for each pixel that begins at a node; say whether one does."""
        *inner, last = pixel_gain(self.graph, node) or (node,)
        if not inner:
            return False
        self._done.update(inner)
        main = next(
            t for t in last.inputs if t in self.graph.computed and t not in inner[-1].outputs
        )
        side = self._at(tensor).copy()
        gains: list[Gain] = []
        _collect(side, lambda: gains.append(read_gain(side, tuple(inner))))
        self._gains[last] = main, next(iter(gains), None)
        return True

    def _multiply(self, node: Node) -> None:
        """Multiply by a gain for each pixel; go on without one that was refused."""
        tensor, gain = self._gains[node]
        if tensor not in self.known:
            return
        chain = self._at(tensor).copy()
        result = [chain]
        if gain is not None:
            _collect(chain, lambda: result.append(multiplied(chain, gain, node)))
        result[-1].record(node.outputs[0])
        self.known[node.outputs[0]] = result[-1]

    def _join(self, node: Node, sources: Sequence[str]) -> None:
        """Join branches, or leave that to the sum of which this is a term."""
        output = node.outputs[0]
        if any(t not in self.known and t not in self._terms for t in sources):
            # The rest is hidden, which is an obstacle already.
            chain = next(self._chains(t)[0] for t in sources if t in self.known or t in self._terms)
            if _go_on(chain, node):
                self.known[output] = chain
            return
        terms = self._terms_of(node)
        if waits(self.graph, node):
            self._terms[output] = terms
            return
        chain = terms[0]
        result: list[Chain] = []
        if _collect(chain, lambda: result.append(joined(terms, node))):
            (chain,) = result
            chain.record(output)
            if node.kind == "Concat":
                self._concatenated[node.inputs] = chain.copy()
        elif not _go_on(chain, node):
            return
        self.known[output] = chain

    def _terms_of(self, node: Node) -> list[Chain]:
        """Return what a node joins; of a `Concat`, what an earlier one joined already as one."""
        count = 0
        if node.kind == "Concat":
            sizes = range(len(node.inputs), 1, -1)
            count = next((n for n in sizes if node.inputs[:n] in self._concatenated), 0)
        terms = [self._concatenated[node.inputs[:count]].copy()] if count else []
        for index, tensor in enumerate(node.inputs[count:]):
            if tensor in self.graph.computed:
                chains = self._chains(tensor)
                turned = node.kind == "Sub" and index == 1
                terms += [negated(chain, node) for chain in chains] if turned else chains
        return terms

    def _chains(self, tensor: str) -> list[Chain]:
        if tensor in self._terms:
            return self._terms[tensor]
        return [self._at(tensor).copy()]

    def _refuse_meeting(self, node: Node, taken: Sequence[str]) -> None:
        """Refuse a node at which branches meet in no way that a network can have."""
        chain = self._chains(taken[0])[0]
        names = " and ".join(repr(t) for t in node.inputs if t in self.graph.computed)
        chain.obstacle(
            node,
            f"computes with tensors {names}, which both depend on the input",
            "let branches meet in an Add or Concat",
        )
        if _go_on(chain, node):
            self.known[node.outputs[0]] = chain


def _import_region(chain: Chain, region: Region) -> bool:
    """Import what branches amount to; return whether their output is known."""
    last = region.last
    for step in region.steps:
        if isinstance(step, Node):
            chain.arrive(next(tensor for tensor in step.inputs if tensor in chain.graph.computed))
            if not _import(chain, step):
                return False
        else:
            scale, offset = step
            chain.affine(last, (scale,), (offset,))
    chain.record(last.outputs[0])
    taken = [str(step) for step in region.steps if isinstance(step, Node)]
    chain.note(
        f"{last}: branches of a straight-through estimator, taken as what they amount to "
        f"({', '.join(taken) or 'nothing'})."
    )
    return True


def _import(chain: Chain, node: Node) -> bool:
    """Import a node, or collect why it cannot be; return whether its output is known."""
    if _collect(chain, lambda: _handle(chain, node)):
        chain.record(next(filter(None, node.outputs)))
        return True
    return _go_on(chain, node)


def _handle(chain: Chain, node: Node) -> None:
    graph = chain.graph
    if node.refusal is not None:
        graph.refuse(node, *node.refusal)
    if chain.scored is not None and not may_follow(chain.scored, node):
        graph.refuse(
            node, f"follows {chain.scored}", "end the network there, or with ArgMax or TopK"
        )
    for tensor in node.outputs[1:]:
        used = tensor and (tensor in graph.output_tensors or graph.readers(tensor))
        if used and node.kind != "TopK":
            graph.refuse(node, f"has a second output {tensor!r} in use", "use its first one only")
    if node.kind not in _KEEPS_PAD:
        chain.require_no_pad(node)
    require_unsquashed(chain, node)
    if not dropped_after(chain.scored, node):
        find(node)(chain, node)


def _collect(chain: Chain, step: Callable[[], None]) -> bool:
    """Take a step of the walk; if it is refused, keep the obstacles and return False."""
    try:
        step()
    except ModelRefused as refusal:
        chain.obstacles.extend(refusal.obstacles)
        return False
    return True


def _go_on(chain: Chain, node: Node) -> bool:
    """Suppose what a refused node gives; return False where its shape is not known."""
    graph, output = chain.graph, next(filter(None, node.outputs))
    shape = graph.shapes.get(output)
    if shape is None and node.kind in (*_ON_IMAGES, *_RESHAPES, "Reshape"):
        if graph.readers(output):
            chain.obstacles.append(
                Obstacle(
                    str(node),
                    "hides what lies behind it, which was not examined",
                    "mend it, then inspect the model again",
                )
            )
        return False
    chain.suppose(
        node, shape or chain.shape, layer=node.kind in _LAYERS, linear=node.kind in _LINEAR
    )
    return True


def _outcome(chain: Chain, known: Mapping[str, Chain]) -> Chain | None:
    """Return what is known of the output, or None."""
    graph = chain.graph
    if not any(graph.output_tensors.issubset(node.outputs) for node in graph.live):
        names = ", ".join(map(repr, graph.outputs))
        chain.obstacles.append(
            Obstacle(
                "",
                f"has {len(graph.outputs)} outputs ({names})",
                "give a network with exactly one",
            )
        )
    return next((known[tensor] for tensor in graph.outputs if tensor in known), None)


def _check_end(chain: Chain) -> None:
    graph = chain.graph
    require_unsquashed(chain)
    if chain.padding is not None:
        graph.refuse(chain.padding.node, "pads the network's output", "leave it out")
    if not any(node.kind in _LAYERS for node in graph.live):
        graph.refuse_at(
            "", "has no weight layer", "give a network with at least one Gemm, MatMul or Conv"
        )
    supposed = str(chain.source) in {obstacle.where for obstacle in chain.obstacles}
    if chain.content is Content.BITS and chain.source is not None and not supposed:
        graph.refuse(
            chain.source,
            "follows the last layer, so that no scores are left to choose a class by",
            "end the network with the sums of the last layer",
        )
    if chain.layout is not Layout.FLAT and prod(chain.shape) != max(chain.shape):
        graph.refuse_at(
            "",
            f"ends in images of shape {chain.shape}, not in one score for each class",
            "end the network with a GlobalAveragePool or a Gemm",
        )


def _named(ops: Sequence[Op]) -> tuple[Op, ...]:
    """Give every layer its name."""
    every = [inner for op in ops for inner in (*(op.path if isinstance(op, Join) else ()), op)]
    layers = [op for op in every if isinstance(op, Dense | Conv2d)]
    stems = ["conv" if isinstance(op, Conv2d) else "fc" for op in layers]
    names = iter(layer_names([op.name for op in layers], stems))

    def named(op: Op) -> Op:
        if isinstance(op, Join):
            return replace(op, path=tuple(map(named, op.path)))
        return replace(op, name=next(names)) if isinstance(op, Dense | Conv2d) else op

    return tuple(map(named, ops))


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
