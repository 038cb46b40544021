"""What a folding costs in all: its layers, the FIFOs between them and the ways past them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xnorflow.cost import Cost, Family, component_cost, estimate, fifo_cost
from xnorflow.fifo_sizing import Fifo, fifos
from xnorflow.folding import Folding
from xnorflow.lowered import LoweredNetwork, LoweredOutput
from xnorflow.pipeline import JoinStage, Segment, Stage, owned_pipeline

__all__ = ["Estimate", "beside_layers", "estimate_core", "fifo_name"]


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a core.

    Attributes
    ----------
    costs : dict of str to Cost
        By layer, with the FIFOs before and in it and the shortcuts that end behind it.
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
    stages = [stage for stage, _ in owned]
    found = fifos(stages)
    for index, owner, cost in beside_layers(family, stages, found, lowered.output):
        costs[(owner or owned[index][1]).layer.name] += cost
    depths = {fifo_name(stages[fifo.stage], fifo.place): fifo.words for fifo in found}
    return Estimate(costs, depths)


def beside_layers(
    family: Family, stages: Sequence[Stage], found: Iterable[Fifo], output: LoweredOutput
) -> Iterator[tuple[int, Segment | None, Cost]]:
    """Yield what depends on several layers: the costs of FIFOs and of what is on shortcuts.

    Parameters
    ----------
    family : Family
    stages : sequence of Stage
    found : iterable of Fifo
        See `xnorflow.fifo_sizing.fifos`.
    output : LoweredOutput
        The network's affine.

    Yields
    ------
    index : int
        Of the stage behind the FIFO or at the end of the shortcut.
    owner : Segment or None
        The layer on the shortcut that it belongs to.
    cost : Cost
    """
    for fifo in found:
        stage = stages[fifo.stage]
        owner = None
        if isinstance(stage, JoinStage) and fifo.place is not None:
            owner = stage.owners[fifo.place] if fifo.place < len(stage.side) else None
        yield fifo.stage, owner, fifo_cost(family, fifo.width, fifo.words)
    for index, stage in enumerate(stages):
        if isinstance(stage, JoinStage):
            for part, owner in zip(stage.side, stage.owners, strict=True):
                yield index, owner, component_cost(family, part, output)


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
