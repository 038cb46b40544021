"""The pipeline as it is drawn: one box a layer, sized after its folding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

__all__ = ["Stage", "stages"]

#: Side of the largest and the smallest array of lanes that is drawn, in pixels.
LARGEST, SMALLEST = 72.0, 10.0


@dataclass(frozen=True)
class Stage:
    """A layer in the drawing.

    Attributes
    ----------
    name, weights_in : str
    mw, mh, pe, simd, cycles : int
        The layer and its folding.
    busy : float
        Share of the initiation interval in which the layer works, in percent.
    slowest : bool
        Whether no layer takes longer.
    width, height : float
        Size in pixels of the array of lanes: SIMD wide, PE high, both on a logarithmic scale.
    """

    name: str
    weights_in: str
    mw: int
    mh: int
    pe: int
    simd: int
    cycles: int
    busy: float
    slowest: bool
    width: float
    height: float


def stages(layers: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """Return the drawing's boxes for the ``layers`` of a report."""
    slowest = max(layer["cycles"] for layer in layers)
    most = max(max(layer["pe"], layer["simd"]) for layer in layers)

    def side(lanes: int) -> float:
        if most == 1:
            return SMALLEST
        return SMALLEST + (LARGEST - SMALLEST) * log2(lanes) / log2(most)

    return [
        Stage(
            name=layer["name"],
            weights_in=layer["weights_in"],
            mw=layer.get("mw", 0),
            mh=layer.get("mh", 0),
            pe=layer["pe"],
            simd=layer["simd"],
            cycles=layer["cycles"],
            busy=100 * layer["cycles"] / slowest,
            slowest=layer["cycles"] == slowest,
            width=side(layer["simd"]),
            height=side(layer["pe"]),
        )
        for layer in layers
    ]
