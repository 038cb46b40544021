"""Decisions: comparisons with a constant, and what makes numbers of the booleans they give.

Exporters write them for ``(x >= 0).float() * 2 - 1`` and ``torch.where(x >= 0, 1.0, -1.0)``.
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
    "negation",
    "spread_alike",
    "where",
]

_HALF, _ONE = Fraction(1, 2), Fraction(1)

COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_MIRRORED = dict(zip(COMPARISONS, (*COMPARISONS[2:], *COMPARISONS[:2]), strict=True))


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
    settle(chain, node, [thresholds], above=above)
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
