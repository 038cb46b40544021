"""What a folding costs in all: its layers and the FIFOs between them."""

from __future__ import annotations

from dataclasses import dataclass

from xnorflow.cost import Cost, Family, estimate, fifo_cost
from xnorflow.fifo_sizing import fifos
from xnorflow.folding import Folding
from xnorflow.lowered import LoweredNetwork
from xnorflow.pipeline import JoinStage, Stage, owned_pipeline

__all__ = ["Estimate", "estimate_core", "fifo_name"]


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a core.

    Attributes
    ----------
    costs : dict of str to Cost
        By layer, with the FIFOs before and in it.
    fifos : dict of str to int
        Beats that the FIFO before a stage holds, by `fifo_name`.
    """

    costs: dict[str, Cost]
    fifos: dict[str, int]

    @property
    def total(self) -> Cost:
        """Cost of the core."""
        return sum(self.costs.values(), Cost())


def estimate_core(family: Family, lowered: LoweredNetwork, folding: Folding) -> Estimate:
    """Return what the core costs that `folding` makes of `lowered`."""
    costs = estimate(family, lowered, folding)
    owned = owned_pipeline(lowered, folding)
    depths = {}
    for fifo in fifos([stage for stage, _ in owned]):
        stage, part = owned[fifo.stage]
        costs[part.layer.name] += fifo_cost(family, fifo.width, fifo.words)
        depths[fifo_name(stage, fifo.place)] = fifo.words
    return Estimate(costs, depths)


def fifo_name(stage: Stage, place: int | None = None) -> str:
    """Return what a FIFO is called: after the stage behind it.

    Parameters
    ----------
    stage : Stage
        On the main way.
    place : int, optional
        On the shortcut that ends at `stage`, the index of the stage behind the FIFO.
    """
    if place is None:
        return stage.name
    assert isinstance(stage, JoinStage)
    if place == len(stage.side):
        return f"{stage.name} (shortcut)"
    return f"{stage.side[place].name} (shortcut to {stage.name})"
