"""Decisions: comparisons with a constant, and what makes numbers of the booleans they give.

Exporters write them for ``(x >= 0).float() * 2 - 1`` and ``torch.where(x >= 0, 1.0, -1.0)``;
`MultiThreshold` is how FINN writes a sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.chain import Chain, exact
from xnorflow.frontend.graph import Node
from xnorflow.frontend.squashing import settle

__all__ = [
    "COMPARISONS",
    "compare",
    "comparison",
    "decision",
    "multi_threshold",
    "negation",
    "spread_alike",
    "where",
]

_HALF, _ONE = Fraction(1, 2), Fraction(1)

COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_MIRRORED = dict(zip(COMPARISONS, (*COMPARISONS[2:], *COMPARISONS[:2]), strict=True))
_LAYOUTS = {2: "NC", 3: "NWC", 4: "NCHW"}


def compare(
    chain: Chain, node: Node, thresholds: Sequence[Fraction], *, above: bool = False
) -> None:
    """Append ``+1 where x >= threshold, else -1``.

    Parameters
    ----------
    chain : Chain
    node : Node
    thresholds : sequence of Fraction
        One for all channels or one for each.
    above : bool
        Whether +1 stands for ``x > threshold`` instead.
    """
    if chain.boolean:
        chain.require_float(node)
    settle(chain, node, thresholds, above=above)
    if above:
        # x > t where not t - x >= 0.
        chain.affine(node, (-_ONE,), thresholds)
        chain.sign(node)
        chain.affine(node, (-_ONE,))
    else:
        chain.affine(node, offset=(-threshold for threshold in thresholds))
        chain.sign(node)
    chain.integer_type = chain.boolean = False


def decision(chain: Chain, node: Node) -> tuple[tuple[Fraction, ...], bool, bool]:
    """Return what a comparison decides.

    Returns
    -------
    thresholds : tuple of Fraction
        One for all channels or one for each.
    above : bool
        Whether it distinguishes ``x > threshold`` from the rest, otherwise ``x >= threshold``.
    negated : bool
        Whether these are where it gives false.
    """
    data_first = chain.data_first(node)
    constant = chain.constants.numbers(node, 1 if data_first else 0, "constant")
    kind = node.kind if data_first else _MIRRORED[node.kind]
    thresholds = exact(chain.spread(node, constant))
    return thresholds, kind in ("Greater", "LessOrEqual"), kind in ("Less", "LessOrEqual")


def spread_alike(chain: Chain, node: Node, *arrays: NDArray) -> list[tuple[Fraction, ...]]:
    """Return parameters as `Chain.spread` does, all of them as one number or one per channel."""
    for array in arrays:
        # One of them may make the tensor flat, and then the others have to follow.
        chain.spread(node, array)
    values = [exact(chain.spread(node, array)) for array in arrays]
    size = max(map(len, values))
    return [numbers * (size // len(numbers)) for numbers in values]


def comparison(chain: Chain, node: Node) -> None:
    """``x > c``, ``x >= c``, ``x < c`` or ``x <= c``, or the same from the other side."""
    thresholds, above, negated = decision(chain, node)
    compare(chain, node, thresholds, above=above)
    chain.affine(node, (-_HALF if negated else _HALF,), (_HALF,))
    chain.integer_type = chain.boolean = True


def negation(chain: Chain, node: Node) -> None:
    """``not x``."""
    _require_boolean(chain, node)
    chain.affine(node, (-_ONE,), (_ONE,))


def where(chain: Chain, node: Node) -> None:
    """``a where x, else b``, with constants a and b."""
    chain.require_data(node, "condition")
    _require_boolean(chain, node)
    chosen, other = (chain.constants.numbers(node, index, f"input {index}") for index in (1, 2))
    kind = np.result_type(chosen, other).kind
    yes, no = spread_alike(chain, node, chosen, other)
    chain.affine(node, (a - b for a, b in zip(yes, no, strict=True)), no)
    chain.boolean, chain.integer_type = False, kind != "f"


def _require_boolean(chain: Chain, node: Node) -> None:
    if not chain.boolean:
        chain.graph.refuse(
            node, f"takes tensor {chain.tensor!r}, which holds no booleans", "compare it with 0"
        )


def multi_threshold(chain: Chain, node: Node) -> None:
    """``out_scale * (number of thresholds <= x) + out_bias``, with one threshold per channel.

    The matrix of thresholds has one row for all channels or one for each. Of several columns all
    but one value may be infinite.
    """
    chain.require_data(node, "first input, and the thresholds as the second")
    chain.require_float(node)
    matrix = chain.constants.value(node, 1, "matrix of thresholds")
    if matrix.ndim != 2 or matrix.dtype.kind not in "iuf" or not matrix.size:
        chain.graph.refuse(
            node, f"has thresholds of shape {matrix.shape}", "give a matrix (channels, 1)"
        )
    if np.isnan(matrix).any():
        chain.graph.refuse(node, "has thresholds that are NaN", "export the model again")
    finite = np.isfinite(matrix)
    highest = np.where(finite, matrix, -np.inf).max(axis=1)
    lowest = np.where(finite, matrix, np.inf).min(axis=1)
    several = np.flatnonzero(highest > lowest)
    if several.size:
        row = matrix[several[0]]
        chain.obstacle(
            node,
            f"is an activation of {len(row) + 1} levels (channel {several[0]} has the thresholds "
            f"{', '.join(f'{value:g}' for value in row[:4])}{', ...' if len(row) > 4 else ''}), "
            f"and this version takes two",
            "give one threshold for each channel",
        )
        chain.sign(node)
        return
    always = (matrix == -np.inf).sum(axis=1)
    steps = finite.sum(axis=1)
    thresholds = np.where(steps > 0, highest, 0)
    scale, bias = (
        Fraction(chain.graph.number(node, key, default))
        for key, default in (("out_scale", 1.0), ("out_bias", 0.0))
    )
    place = _place_of_channels(chain, node)
    shape = [1] * (len(chain.shape) + 1)
    shape[place] = -1
    low, step, threshold = spread_alike(
        chain, node, *(array.reshape(shape) for array in (always, steps, thresholds))
    )
    compare(chain, node, threshold)
    half = [scale * n / 2 for n in step]
    chain.affine(node, half, (bias + scale * n + h for n, h in zip(low, half, strict=True)))


def _place_of_channels(chain: Chain, node: Node) -> int:
    """Return the axis of the channels, batch included."""
    rank = len(chain.shape) + 1
    layout = chain.graph.text(node, "data_layout", "") or _LAYOUTS.get(rank, "")
    place = layout.index("C") if "C" in layout else 1
    if place not in range(1, rank):
        chain.graph.refuse(
            node, f"has data_layout {layout} for {rank} dimensions", "give NC, NCHW or NHWC"
        )
    return place
