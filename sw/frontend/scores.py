"""What may follow the last layer's scores: operators that keep or take their ranking.

A `Network` ends in scores; the class is the index of the largest, the lowest at ties.
"""

from __future__ import annotations

from math import prod

from xnorflow.frontend.chain import Chain
from xnorflow.frontend.graph import Node

__all__ = ["RISING", "arg_max", "dropped_after", "may_follow", "softmax", "top_k"]

RISING = ("Sigmoid", "Softplus", "Softsign", "Tanh")
"""Activations that keep the ranking of scores."""

_SHAPES = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_CLASSES = ("ArgMax", "TopK")


def may_follow(scored: Node, node: Node) -> bool:
    """Whether `node` may come after `scored` without touching the ranking."""
    if scored.kind in RISING and node.kind in ("LogSoftmax", "Softmax"):
        return True
    return node.kind in _SHAPES or (scored.kind not in _CLASSES and node.kind in _CLASSES)


def dropped_after(scored: Node | None, node: Node) -> bool:
    """Whether `node` needs no import because it only reshapes what `scored` gave."""
    return scored is not None and node.kind in _SHAPES


def softmax(chain: Chain, node: Node) -> None:
    """Drop a softmax over the classes, which is monotonic."""
    _end(chain, node, chain.graph.integer(node, "axis", 1 if chain.graph.version < 13 else -1))
    chain.note(f"{node}: dropped, because it does not change which class is largest.")


def arg_max(chain: Chain, node: Node) -> None:
    """Drop an arg-max over the classes, which a network implies."""
    if chain.graph.integer(node, "select_last_index", 0):
        chain.graph.refuse(
            node, "takes the highest index among equal scores", "give select_last_index = 0"
        )
    _end(chain, node, chain.graph.integer(node, "axis", 0))
    chain.note(f"{node}: dropped, because the class is taken from the scores anyway.")


def top_k(chain: Chain, node: Node) -> None:
    """Drop a choice of the one largest class, which a network implies."""
    count = (
        chain.constants.integers(node, 1, "K")
        if node.has_input(1)
        else [chain.graph.integer(node, "k", 0)]
    )
    if count != [1] or not chain.graph.integer(node, "largest", 1):
        chain.graph.refuse(node, "does not take the one largest score", "give k = 1, largest = 1")
    _end(chain, node, chain.graph.integer(node, "axis", -1))
    chain.note(f"{node}: dropped, because the class is taken from the scores anyway.")


def _end(chain: Chain, node: Node, axis: int) -> None:
    place = axis + len(chain.shape) if axis < 0 else axis - 1
    if place not in range(len(chain.shape)) or chain.shape[place] != prod(chain.shape):
        mend = "give axis = -1, that of the classes"
        if len(chain.shape) > 1:
            mend = "put a Flatten before it, and give axis = -1"
        chain.graph.refuse(node, f"works along axis {axis}", mend)
    chain.scored = node
