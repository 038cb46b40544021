"""What stands in the way of a model, each with its place, its reason and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xnorflow.errors import UserError

__all__ = ["ModelRefused", "Obstacle"]


@dataclass(frozen=True)
class Obstacle:
    """One reason why a model cannot become hardware.

    Attributes
    ----------
    where : str
        The node, layer or tensor, such as ``node 'relu1' (Relu)``; empty for the whole file.
    problem : str
        What is wrong with it; reads on from `where`.
    mend : str
        What would be accepted.
    """

    where: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.where} {self.problem}; {self.mend}".lstrip()


class ModelRefused(UserError):
    """A model that cannot be used.

    The message is the sentence of the first obstacle and tells the number of the others.

    Parameters
    ----------
    path : str
        The file, or the name of a live module.
    obstacles : sequence of Obstacle
        At least one, in the order of the data flow.

    Attributes
    ----------
    path : str
    obstacles : tuple of Obstacle
    """

    def __init__(self, path: str, obstacles: Sequence[Obstacle]) -> None:
        self.path = path
        self.obstacles = tuple(obstacles)
        more = len(self.obstacles) - 1
        others = f" (and {more} more; xnorflow inspect lists all of them)" if more else ""
        super().__init__(f"{path}: {self.obstacles[0]}{others}")
