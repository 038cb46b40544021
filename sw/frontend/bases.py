"""Sums of binary layers and of quantizers: one layer of several planes, and one quantizer.

ABC-Net (Lin, Zhao, Pan, 2017) computes ``sum of alpha[m] * beta[n] * conv(a[n], w[m])`` over all m
and n with binary activations ``a[n]`` of one tensor and binary weights ``w[m]``. That is one
convolution of ``sum of beta[n] * a[n]`` with ``sum of alpha[m] * w[m]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from math import gcd, lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.chain import Chain
from xnorflow.frontend.graph import Node
from xnorflow.frontend.staircases import NoStaircase, Row, compose, staircase, sum_of
from xnorflow.network import Affine, Conv2d, Dense, Flatten, Op
from xnorflow.planes import MOST_PLANES

__all__ = ["common_ops", "merge_bases"]

_LARGEST = 1 << 15
_NO_PRODUCTS = (
    "adds layers with factors that are no products of one for the weights and one for the inputs",
    "give each pair of bases the product of the two factors, without rounding",
)
_MONOTONE = "give the bases factors of one sign, or keep one of them"


def common_ops(chains: Sequence[Chain]) -> int:
    """Return the number of operations that chains have in common, from the first on."""
    count = 0
    for ops in zip(*(chain.ops for chain in chains), strict=False):
        if any(op is not ops[0] for op in ops):
            break
        count += 1
    return count


def merge_bases(terms: Sequence[Chain], node: Node) -> list[Chain]:
    """Merge the terms of a sum that are bases of one layer or of one quantizer.

    Parameters
    ----------
    terms : sequence of Chain
    node : Node
        The sum, for messages.

    Returns
    -------
    list of Chain
        The terms that remain, in the order of the first of each group.
    """
    terms = _grouped(terms, _both_affine, lambda group: _merge_affine(group, node))
    merged = _grouped(terms, _same_weights, lambda group: _merge_inputs(group, node))
    if len(merged) < len(terms) and any(_unequal_inputs(merged[0], term) for term in merged[1:]):
        return [_refuse(merged, node, *_NO_PRODUCTS)]
    merged = _grouped(merged, _same_input, lambda group: _merge_weights(group, node))
    return _grouped(merged, _same_tensor, lambda group: _merge_quantizers(group, node))


def _grouped(
    terms: Sequence[Chain],
    alike: Callable[[Chain, Chain], bool],
    merge: Callable[[list[Chain]], Chain | None],
) -> list[Chain]:
    """Replace groups of terms that are like each group's first by what they merge to."""
    groups: list[list[Chain]] = []
    for term in terms:
        group = next((group for group in groups if alike(group[0], term)), None)
        if group is None:
            groups.append([term])
        else:
            group.append(term)
    result = []
    for group in groups:
        one = merge(group) if len(group) > 1 else None
        result += group if one is None else [one]
    return result


# Arithmetic


def _both_affine(first: Chain, second: Chain) -> bool:
    fork = common_ops([first, second])
    return all(compose(chain.ops[fork:]) is not None for chain in (first, second))


def _merge_affine(terms: list[Chain], node: Node) -> Chain:
    """Merge multiples of one tensor."""
    fork = common_ops(terms)
    maps = [maps for term in terms if (maps := compose(term.ops[fork:])) is not None]
    chain = terms[0].copy()
    chain.unmap(fork)
    chain.map(Affine(node.name, *(_total(rows) for rows in zip(*maps, strict=True))))
    return _with_notes(chain, terms)


# Layers


class _Layer(NamedTuple):
    """A term that ends in a layer and an affine map."""

    before: Sequence[Op]
    layer: Dense | Conv2d
    scale: Row
    offset: Row


def _split(term: Chain) -> _Layer | None:
    for at in range(len(term.ops) - 1, -1, -1):
        op = term.ops[at]
        if isinstance(op, Dense | Conv2d):
            maps = compose(term.ops[at + 1 :])
            return None if maps is None else _Layer(term.ops[:at], op, *maps)
    return None


def _same_weights(first: Chain, second: Chain) -> bool:
    ours, theirs = _split(first), _split(second)
    if ours is None or theirs is None or ours.layer is theirs.layer:
        return False
    return _alike(ours.layer, theirs.layer, but=("name", "pad_value"))


def _same_input(first: Chain, second: Chain) -> bool:
    ours, theirs = _split(first), _split(second)
    if ours is None or theirs is None or ours.layer is theirs.layer:
        return False
    if len(ours.before) != len(theirs.before):
        return False
    return all(map(_alike, ours.before, theirs.before)) and _alike(
        ours.layer, theirs.layer, but=("name", "weights", "coefficients")
    )


def _unequal_inputs(first: Chain, second: Chain) -> bool:
    """Whether layers take different quantizers of one tensor."""
    ours, theirs = _split(first), _split(second)
    if ours is None or theirs is None or _same_input(first, second):
        return False
    fork = common_ops([first, second])
    tails = (_without_flatten(part.before[fork:])[0] for part in (ours, theirs))
    return all(staircase(tail) is not None for tail in tails)


def _alike(first: Op, second: Op, but: Sequence[str] = ("name",)) -> bool:
    """Whether two operations compute the same."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    pairs = [
        (getattr(first, field.name), getattr(second, field.name))
        for field in fields(first)
        if field.name not in but
    ]
    shapes = {op.weights.shape for op in (first, second) if isinstance(op, Dense | Conv2d)}
    if len(shapes) > 1:
        return False
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else a == b
        for a, b in pairs
    )


def _merge_inputs(terms: list[Chain], node: Node) -> Chain | None:
    """Merge layers of the same weights whose inputs are quantizers of one tensor."""
    parts = [part for term in terms if (part := _split(term))]
    fork = common_ops(terms)
    tails = [_without_flatten(part.before[fork:]) for part in parts]
    steps = [one for tail, _ in tails if (one := staircase(tail)) is not None]
    gain = parts[0].scale
    if len(steps) < len(terms) or len({len(moves) for _, moves in tails}) > 1 or not any(gain):
        return None
    ratios = [ratio for part in parts if (ratio := _ratio(part.scale, gain)) is not None]
    if len(ratios) < len(terms):
        return _refuse(terms, node, *_NO_PRODUCTS)
    try:
        scaled = [one.scaled(ratio) for one, ratio in zip(steps, ratios, strict=True)]
        before = sum_of(scaled).ops(node.name)
    except NoStaircase as reason:
        return _refuse(terms, node, str(reason), _MONOTONE)
    layer = parts[0].layer
    if isinstance(layer, Conv2d):
        pads = [part.layer.pad_value for part in parts if isinstance(part.layer, Conv2d)]
        pad = sum((a * b for a, b in zip(ratios, pads, strict=True)), Fraction(0))
        layer = replace(layer, pad_value=pad)
    after = Affine(node.name, gain, _total([part.offset for part in parts]))
    return _rewritten(terms, node, fork, [*before, *tails[0][1], layer, after])


def _ratio(row: Row, other: Row) -> Fraction | None:
    """Return the number that makes one row of the other, or None."""
    size = max(len(row), len(other))
    pairs = [(row[n % len(row)], other[n % len(other)]) for n in range(size)]
    factor = next((a / b for a, b in pairs if b), Fraction(0))
    return factor if all(a == factor * b for a, b in pairs) else None


def _merge_weights(terms: list[Chain], node: Node) -> Chain | None:
    """Merge layers of the same input into one whose planes are theirs."""
    parts = [part for term in terms if (part := _split(term))]
    first = parts[0].layer
    neurons = len(first.weights)
    scales, rows = [], []
    for neuron in range(neurons):
        gains = [part.scale[neuron % len(part.scale)] for part in parts]
        denominator = lcm(*(gain.denominator for gain in gains))
        whole = [int(gain * denominator) for gain in gains]
        divisor = gcd(*whole)
        scales.append(Fraction(divisor, denominator))
        rows.append([number // divisor if divisor else 1 for number in whole])
    if max(abs(number) for row in rows for number in row) > _LARGEST:
        return _refuse(
            terms,
            node,
            f"adds layers whose factors are no multiples up to {_LARGEST} of one number",
            "round the factors to fewer bits behind the binary point, such as 8",
        )
    # (bases, MH)
    factors = np.array(rows, np.int64).T
    weights, planes = np.zeros(first.weights.shape, np.int64), []
    for factor, part in zip(factors, parts, strict=True):
        layer = part.layer
        weights += factor.reshape(-1, *[1] * (first.weights.ndim - 1)) * layer.weights
        planes += [factor * row for row in _coefficients(layer) if np.any(factor * row)]
    if len(planes) > MOST_PLANES:
        return _refuse(
            terms, node, f"adds {len(planes)} binary layers", f"give {MOST_PLANES} at most"
        )
    coefficients = np.abs(planes)
    single = len(planes) == 1 and bool(np.all(coefficients == 1))
    layer = replace(first, weights=weights, coefficients=None if single else coefficients)
    after = Affine(node.name, tuple(scales), _total([part.offset for part in parts]))
    return _rewritten(terms, node, len(parts[0].before), [layer, after])


def _coefficients(layer: Dense | Conv2d) -> NDArray[np.integer]:
    if layer.coefficients is None:
        return np.ones((1, len(layer.weights)), np.int64)
    return layer.coefficients


def _total(rows: Sequence[Row]) -> Row:
    size = max(map(len, rows))
    return tuple(sum((row[n % len(row)] for row in rows), Fraction(0)) for n in range(size))


# Quantizers


def _same_tensor(first: Chain, second: Chain) -> bool:
    fork = common_ops([first, second])
    return all(
        staircase(_without_flatten(chain.ops[fork:])[0]) is not None for chain in (first, second)
    )


def _merge_quantizers(terms: list[Chain], node: Node) -> Chain | None:
    """Merge quantizers of one tensor."""
    fork = common_ops(terms)
    tails = [_without_flatten(term.ops[fork:]) for term in terms]
    steps = [one for tail, _ in tails if (one := staircase(tail)) is not None]
    if len(steps) < len(terms) or len({len(moves) for _, moves in tails}) > 1:
        return None
    try:
        ops = sum_of(steps).ops(node.name)
    except NoStaircase as reason:
        return _refuse(terms, node, str(reason), _MONOTONE)
    return _rewritten(terms, node, fork, [*ops, *tails[0][1]])


def _without_flatten(ops: Sequence[Op]) -> tuple[Sequence[Op], Sequence[Op]]:
    """Return operations without a last `Flatten`, and that."""
    return (ops[:-1], ops[-1:]) if ops and isinstance(ops[-1], Flatten) else (ops, [])


def _refuse(terms: Sequence[Chain], node: Node, problem: str, mend: str) -> Chain:
    """Refuse the sum, and go on with its first term."""
    terms[0].obstacle(node, problem, mend)
    return terms[0]


def _rewritten(terms: Sequence[Chain], node: Node, fork: int, ops: Sequence[Op]) -> Chain:
    """Return the first of the terms with other operations from the fork on."""
    chain = terms[0].copy()
    chain.rewrite(node, fork, ops)
    return _with_notes(chain, terms)


def _with_notes(chain: Chain, terms: Sequence[Chain]) -> Chain:
    for term in terms[1:]:
        chain.notes += [note for note in term.notes if note not in chain.notes]
    return chain
