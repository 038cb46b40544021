"""The order in which a chain with shortcuts is computed.

Networks, before and after lowering, are chains in which a join looks back, past the steps that its
shortcut skips, and holds the shortcut's own steps. Here all of them stand in one list: those of a
shortcut before the join at its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Step", "flow", "outcomes"]

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Step(Generic[S]):
    """A step, and whose outcome it takes.

    Attributes
    ----------
    op : S
        An operation or a stage.
    takes : tuple of int
        Places in the list of the steps whose outcomes it takes, -1 for the frame: one; of a join
        two, that of the main way and that of the shortcut.
    """

    op: S
    takes: tuple[int, ...]


def flow(chain: Sequence[S], shortcut: Callable[[S], tuple[int, Sequence[S]] | None]) -> list[Step]:
    """Return all steps in the order of the data flow.

    Parameters
    ----------
    chain : sequence of S
    shortcut : callable
        Of a join, the place in `chain` of the step where its shortcut begins (-1 for the frame),
        and the shortcut's steps; None of any other step.
    """
    steps: list[Step] = []
    places = [-1]  # of the frame and of each step of the chain
    for op in chain:
        takes: tuple[int, ...] = (places[-1],)
        found = shortcut(op)
        if found is not None:
            source, path = found
            side = places[source + 1]
            for inner in path:
                steps.append(Step(inner, (side,)))
                side = len(steps) - 1
            takes = (places[-1], side)
        steps.append(Step(op, takes))
        places.append(len(steps) - 1)
    return steps


def outcomes(
    steps: Sequence[Step], frames: T, compute: Callable[[int, Sequence[T]], T]
) -> Iterator[T]:
    """Yield the outcome of every step; one that no later step takes is not kept.

    Parameters
    ----------
    steps : sequence of Step
    frames : T
    compute : callable
        Of a step's place and what it takes.
    """
    uses = Counter(place for step in steps for place in step.takes)
    kept = {-1: frames}
    for number, step in enumerate(steps):
        taken = [kept[place] for place in step.takes]
        for place in step.takes:
            uses[place] -= 1
            if not uses[place]:
                del kept[place]
        outcome = compute(number, taken)
        if uses[number]:
            kept[number] = outcome
        yield outcome
