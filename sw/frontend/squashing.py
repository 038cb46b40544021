"""Activations that squash before a sign, which then does not see them, and all other activations.

Courbariaux and Hubara (2016) train with a hard tanh before each sign: ``sign(clip(x, -1, 1))`` is
``sign(x)``. Pools, reshapes and arithmetic may stand between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import cycle, takewhile
from math import isfinite

from xnorflow.frontend.chain import Chain, Content, Squashing
from xnorflow.frontend.graph import Graph, Node
from xnorflow.frontend.scores import RISING
from xnorflow.frontend.staircases import compose
from xnorflow.network import Affine, MultiThreshold, Quantize, Sign

__all__ = [
    "ACTIVATIONS",
    "SQUASHES",
    "activation",
    "clip_range",
    "drop",
    "limits",
    "require_unsquashed",
    "settle",
    "squash",
]

Limits = tuple[Fraction | None, Fraction | None]
"""The least and the largest number; None where there is none."""

_NOT_QUANTIZED = (
    "is an activation that nothing quantizes",
    "put a Quant of 2 to 8 bits behind it, or replace it by a sign (BipolarQuant)",
)

_KEEP_SIGN = ("Celu", "Elu", "LeakyRelu", "Selu", "Softsign", "Tanh")
_SIGNS = (
    *("BipolarQuant", "IntQuant", "MultiThreshold", "Quant", "Round", "Sign"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)
_ARITHMETIC = ("Add", "Div", "Mul", "Neg", "Sub")
_MOVES = (
    *("Cast", "Dropout", "Flatten", "GlobalMaxPool", "Identity", "MaxPool", "Reshape", "Squeeze"),
    *("Transpose", "Unsqueeze"),
)
SQUASHES = (*_KEEP_SIGN, "Clip", "Relu")
"""Activations that a sign behind them may not see."""

ACTIVATIONS = (
    *("Gelu", "HardSigmoid", "HardSwish", "Mish", "PRelu", "Sigmoid", "Softplus"),
    "ThresholdedRelu",
)
"""All others."""

_KEEP_SQUASHING = (*_SIGNS, *_ARITHMETIC, *_MOVES, *SQUASHES)
_RANKING = ("ArgMax", "LogSoftmax", "Softmax", "TopK")


def squash(chain: Chain, node: Node) -> None:
    """Leave it to the next sign to decide whether an activation can be dropped."""
    chain.require_float(node)
    chain.require_data(node, "first input")
    if node.kind in ("Clip", "Relu") and _leaves_levels(chain, node):
        chain.note(f"{node}: dropped, because it leaves every number that it gets.")
    elif node.kind in RISING and _ranks_follow(chain, node):
        chain.note(f"{node}: dropped, because it does not change which class is largest.")
        chain.scored = node
    elif _sign_follows(chain.graph, node) and _rises(chain, node):
        low, high = clip_range(chain, node)
        keeps_sign = node.kind in _KEEP_SIGN
        chain.squashings.append(Squashing(node, low, high, keeps_sign, len(chain.maps)))
    else:
        _refuse(chain, node)


def activation(chain: Chain, node: Node) -> None:
    """Refuse an activation, and go on as if it were a sign."""
    if node.kind in RISING and _ranks_follow(chain, node):
        squash(chain, node)
    else:
        _refuse(chain, node)


def _refuse(chain: Chain, node: Node) -> None:
    chain.obstacle(node, *_NOT_QUANTIZED)
    chain.sign(node)


def _rises(chain: Chain, node: Node) -> bool:
    return all(chain.graph.number(node, key, 1.0) > 0 for key in ("alpha", "gamma"))


def _sign_follows(graph: Graph, node: Node) -> bool:
    """Whether what an activation gives goes to a sign, if only on one of several ways."""
    ways = [node]
    while ways:
        for reader in graph.readers(ways.pop().outputs[0]):
            if reader.kind in _SIGNS:
                return True
            # Where ways meet, another node decides.
            if reader.kind in _KEEP_SQUASHING and len(graph.computed & set(reader.inputs)) == 1:
                ways.append(reader)
    return False


def _leaves_levels(chain: Chain, node: Node) -> bool:
    """Whether a clip behind a quantizer leaves all of its levels as they are."""
    count = sum(1 for _ in takewhile(lambda op: isinstance(op, Affine), reversed(chain.ops)))
    maps = compose(chain.ops[len(chain.ops) - count :])
    match chain.ops[-1 - count :][:1]:
        case [Sign()]:
            ends = [Fraction(-1), Fraction(1)]
        case [Quantize() as op]:
            ends = [op.scale * (level - op.zero_point) for level in (op.low, op.high)]
        case [MultiThreshold() as op]:
            ends = [op.values[0], op.values[-1]]
        case _:
            return False
    if maps is None:
        return False
    scales, offsets = maps
    pairs = list(zip(cycle(scales), cycle(offsets), range(max(map(len, maps))), strict=False))
    levels = [scale * end + offset for scale, offset, _ in pairs for end in ends]
    low, high = clip_range(chain, node)
    return (low is None or low <= min(levels)) and (high is None or max(levels) <= high)


def _ranks_follow(chain: Chain, node: Node) -> bool:
    """Whether nothing but a choice of the class follows."""
    if chain.content is not Content.ACCUMULATORS:
        return False
    while node.outputs[0] not in chain.graph.output_tensors:
        readers = chain.graph.readers(node.outputs[0])
        if len(readers) != 1 or readers[0].kind not in (*_MOVES, *_RANKING):
            return False
        (node,) = readers
    return True


def clip_range(chain: Chain, node: Node) -> tuple[Fraction | None, Fraction | None]:
    """Return the ends of the range in which an activation changes nothing, see `Squashing`."""
    if node.kind != "Clip":
        return Fraction(0), None
    low, high = (_end(chain, node, index, key) for index, key in enumerate(("min", "max"), start=1))
    return low, high


def _end(chain: Chain, node: Node, index: int, key: str) -> Fraction | None:
    if node.has_input(index):
        values = chain.constants.value(node, index, f"{key}imum")
        if values.size != 1 or values.dtype.kind not in "iuf":
            chain.graph.refuse(node, f"has no {key} that is one number", "give one number")
        value = values.reshape(-1)[0].item()
    else:
        value = node.attributes.get(key)
    if not isinstance(value, int | float) or not isfinite(value):
        return None
    return Fraction(value)


def limits(chain: Chain) -> Limits | None:
    """Return what the clips before a node limit its input to, in all channels alike.

    Returns
    -------
    tuple of Fraction or None, or None
        The least and the largest number, None where there is no limit; None if the activations are
        no clips, or leave each channel another range.
    """
    waiting, low, high = list(chain.squashings), None, None
    for place in range(len(chain.maps) + 1):
        while waiting and waiting[0].behind <= place:
            clip = waiting.pop(0)
            if clip.keeps_sign:
                return None
            low = clip.low if low is None else _within(low, clip)
            high = clip.high if high is None else _within(high, clip)
        if place == len(chain.maps):
            break
        op = chain.maps[place]
        if low is None and high is None:
            continue
        if not isinstance(op, Affine) or len(set(op.scale)) > 1 or len(set(op.offset)) > 1:
            return None
        low, high = (None if v is None else op.scale[0] * v + op.offset[0] for v in (low, high))
        if op.scale[0] < 0:
            low, high = high, low
    return low, high


def _within(value: Fraction, clip: Squashing) -> Fraction:
    value = value if clip.low is None else max(value, clip.low)
    return value if clip.high is None else min(value, clip.high)


def drop(chain: Chain, node: Node) -> None:
    """Drop the activations before a quantizer that does what they do."""
    for squashing in chain.squashings:
        _note_dropped(chain, squashing, node)
    chain.squashings = []


def _note_dropped(chain: Chain, squashing: Squashing, node: Node) -> None:
    chain.note(f"{squashing.node}: dropped, because {node} gives the same without it.")


def settle(
    chain: Chain,
    node: Node,
    columns: Sequence[Sequence[Fraction]],
    *,
    above: bool = False,
    both: bool = False,
) -> None:
    """Drop the activations before a quantizer that cannot change what it gives; refuse others.

    Parameters
    ----------
    chain : Chain
    node : Node
        The quantizer.
    columns : sequence of sequences of Fraction
        What it compares with, each one number for all channels or one for each.
    above : bool
        Whether it asks for ``x > threshold``; otherwise for ``x >= threshold``.
    both : bool
        Whether it asks for both.
    """
    for squashing in chain.squashings:
        if any(_is_seen(chain, squashing, column, above, both) for column in columns):
            chain.obstacle(
                squashing.node,
                f"changes what {node} gives, because not all of its thresholds lie within the "
                f"range that the activation leaves as it is",
                "leave the activation out",
            )
        else:
            _note_dropped(chain, squashing, node)
    chain.squashings = []


def _is_seen(
    chain: Chain, squashing: Squashing, thresholds: Sequence[Fraction], above: bool, both: bool
) -> bool:
    maps = chain.maps[squashing.behind :]
    affines = [op for op in maps if isinstance(op, Affine)]
    if len(affines) < len(maps):
        return True
    parameters = [thresholds, *(p for op in affines for p in (op.scale, op.offset))]
    # Channels of an image and features of the vector made of it are not told apart.
    if len({len(values) for values in parameters} - {1}) > 1:
        return True
    channels = max(len(values) for values in parameters)
    # One map with equal parameters everywhere needs one look only.
    seen = set()
    for place in zip(range(channels), *map(cycle, parameters), strict=False):
        threshold, *pairs = place[1:]
        for scale, offset in zip(pairs[-2::-2], pairs[-1::-2], strict=True):
            if scale == 0:
                break
            threshold = (threshold - offset) / scale
        else:
            falling = sum(scale < 0 for scale in pairs[::2]) % 2 == 1
            seen.add((threshold, above != falling))
    return any(not _is_kept(squashing, *one, both) for one in seen)


def _is_kept(squashing: Squashing, threshold: Fraction, above: bool, both: bool) -> bool:
    """Whether a comparison gives the same with an activation before it and without."""
    if squashing.keeps_sign:
        return threshold == 0
    low, high = squashing.low, squashing.high
    over = low is None or low < threshold or (low == threshold and above and not both)
    under = high is None or threshold < high or (threshold == high and not above and not both)
    return over and under


def require_unsquashed(chain: Chain, node: Node | None = None) -> None:
    """Refuse the activations before a node that is no sign, and go on as if they were signs.

    Without a node, the network ends there.
    """
    if (node and node.kind in _KEEP_SQUASHING) or not chain.squashings:
        return
    for squashing in chain.squashings:
        chain.obstacle(squashing.node, *_NOT_QUANTIZED)
    chain.sign(chain.squashings[0].node)
