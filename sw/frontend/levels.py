"""Quantizers to several levels that are thresholds: `MultiThreshold`, and all modes of rounding."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.chain import Chain
from xnorflow.frontend.comparisons import compare, spread_alike
from xnorflow.frontend.graph import Node
from xnorflow.frontend.squashing import settle
from xnorflow.network import MultiThreshold

__all__ = ["MODES", "append_levels", "multi_threshold", "steps_of_rounding"]

_HALF = Fraction(1, 2)
_LAYOUTS = {2: "NC", 3: "NWC", 4: "NCHW"}
_BEYOND = Fraction(1 << 140)
"""Beyond every number that float32 holds: a threshold that is never met."""


class _Step(NamedTuple):
    """Where a mode of rounding goes from one integer to the next, between 0 and 1."""

    place: Fraction
    above: bool
    mirrored: bool


_UP, _DOWN = (Fraction(0), True), (Fraction(1), False)
MODES = {
    "CEIL": _Step(*_UP, False),
    "DOWN": _Step(*_DOWN, True),
    "FLOOR": _Step(*_DOWN, False),
    "HALF_DOWN": _Step(_HALF, True, True),
    "HALF_UP": _Step(_HALF, False, True),
    "UP": _Step(*_UP, True),
}
"""All but ROUND and HALF_EVEN: from where on numbers between 0 and 1 are rounded up, whether only
above it, and whether negative numbers are rounded as their magnitudes are."""


def steps_of_rounding(mode: str, low: int, high: int) -> tuple[list[Fraction], bool] | None:
    """Return where rounding steps from each integer to the next.

    Parameters
    ----------
    mode : str
        One of `MODES`.
    low, high : int
        The least and the largest integer.

    Returns
    -------
    steps : list of Fraction
        ``high - low`` numbers in rising order.
    above : bool
        Whether the larger integer stands above the number only; otherwise from it on.

        None instead of both where some steps are the one and some the other.
    """
    step = MODES[mode]
    steps = []
    for integer in range(low, high):
        if step.mirrored and integer < 0:
            # From integer to integer + 1 as from -integer - 1 to -integer, from the other side.
            steps.append((integer + 1 - step.place, not step.above))
        else:
            steps.append((integer + step.place, step.above))
    sides = {above for _, above in steps}
    return ([place for place, _ in steps], sides.pop()) if len(sides) == 1 else None


def append_levels(
    chain: Chain,
    node: Node,
    columns: Sequence[Sequence[Fraction]],
    values: Sequence[Fraction],
    *,
    above: bool = False,
) -> None:
    """Append a quantizer that gives ``values[n]``, n the number of thresholds up to ``x``.

    Parameters
    ----------
    chain : Chain
    node : Node
    columns : sequence of sequences of Fraction
        L thresholds in rising order, each one for all channels or one for each.
    values : sequence of Fraction
        L + 1 numbers in rising order.
    above : bool
        Whether n is the number of thresholds below ``x`` instead.
    """
    settle(chain, node, columns, above=above)
    size = max(map(len, columns))
    rows = list(zip(*(tuple(column) * (size // len(column)) for column in columns), strict=True))
    rows = rows[:1] if len(set(rows)) == 1 else rows
    if not above:
        chain.quantize(node, MultiThreshold(node.name, tuple(rows), tuple(values)))
        return
    # x > t where not -x >= -t.
    mirrored = tuple(tuple(-threshold for threshold in row[::-1]) for row in rows)
    chain.affine(node, (Fraction(-1),))
    chain.quantize(
        node, MultiThreshold(node.name, mirrored, tuple(-value for value in values[::-1]))
    )
    chain.affine(node, (Fraction(-1),))


def multi_threshold(chain: Chain, node: Node) -> None:
    """``out_scale * (number of thresholds <= x) + out_bias``, FINN's quantizer.

    The matrix of thresholds has one row for all channels or one for each; they may be infinite.
    """
    chain.require_data(node, "first input, and the thresholds as the second")
    chain.require_float(node)
    matrix = chain.constants.value(node, 1, "matrix of thresholds")
    if matrix.ndim != 2 or matrix.dtype.kind not in "iuf" or not matrix.size:
        chain.graph.refuse(
            node, f"has thresholds of shape {matrix.shape}", "give a matrix (channels, levels - 1)"
        )
    if np.isnan(matrix).any():
        chain.graph.refuse(node, "has thresholds that are NaN", "export the model again")
    finite = np.isfinite(matrix)
    always = (matrix == -np.inf).sum(axis=1)
    steps = finite.sum(axis=1)
    scale, bias = (
        Fraction(chain.graph.number(node, key, default))
        for key, default in (("out_scale", 1.0), ("out_bias", 0.0))
    )
    place = _place_of_channels(chain, node)
    shape = [1] * (len(chain.shape) + 1)
    shape[place] = -1
    rows = np.sort(matrix.astype(np.float64), axis=1)
    highest = np.where(finite, matrix, -np.inf).max(axis=1)
    if np.any(highest > np.where(finite, matrix, np.inf).min(axis=1)):
        _several(chain, node, [column.reshape(shape) for column in rows.T], scale, bias)
        return
    thresholds = np.where(steps > 0, highest, 0)
    low, step, threshold = spread_alike(
        chain, node, *(array.reshape(shape) for array in (always, steps, thresholds))
    )
    compare(chain, node, threshold)
    half = [scale * n / 2 for n in step]
    chain.affine(node, half, (bias + scale * n + h for n, h in zip(low, half, strict=True)))


def _several(
    chain: Chain, node: Node, columns: Sequence[NDArray], scale: Fraction, bias: Fraction
) -> None:
    """Append the quantizer of several thresholds, given in rising order."""
    limit = float(_BEYOND)
    numbers = spread_alike(chain, node, *(np.clip(column, -limit, limit) for column in columns))
    values = [Fraction(n) for n in range(len(columns) + 1)]
    if scale > 0:
        values = [scale * value + bias for value in values]
    append_levels(chain, node, numbers, values)
    if scale <= 0:
        chain.affine(node, (scale,), (bias,))


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
