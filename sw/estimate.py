"""What a folding costs in all: its layers and the FIFOs between them."""

from __future__ import annotations

from dataclasses import dataclass

from xnorflow.cost import Cost, Family, estimate, fifo_cost
from xnorflow.fifo_sizing import fifos
from xnorflow.folding import Folding
from xnorflow.lowered import LoweredNetwork
from xnorflow.pipeline import JoinStage, owned_pipeline

__all__ = ["Estimate", "estimate_core"]


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a core.

    Attributes
    ----------
    costs : dict of str to Cost
        By layer, with the FIFOs before and in it.
    fifos : dict of str to int
        Beats that the FIFO before a stage holds, by the stage's name.
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
        name = stage.name
        if isinstance(stage, JoinStage) and fifo.place is not None:
            if fifo.place < len(stage.side):
                name, part = stage.side[fifo.place].name, stage.owners[fifo.place] or part
            else:
                name = f"{name} (shortcut)"
        costs[part.layer.name] += fifo_cost(family, fifo.width, fifo.words)
        depths[name] = fifo.words
    return Estimate(costs, depths)
