"""The pipeline as it is drawn: one box a layer, sized after its folding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

__all__ = ["Stage", "cut", "stages"]

#: Side of the largest and the smallest array of lanes that is drawn, in pixels.
LARGEST, SMALLEST = 76.0, 10.0

#: Characters of a layer's name that fit its box, in a wide font.
FITS = 14

#: Places of weights as people read them.
PLACES = {"bram": "block RAM", "lut": "LUT ROM", "constant": "constants"}


@dataclass(frozen=True)
class Stage:
    """A layer in the drawing.

    Attributes
    ----------
    name, short : str
        The layer, and its name cut to what fits the box.
    place : str
        Where the weights are.
    mw, mh : int or None
        Inputs and outputs, if the report says so.
    pixels : int
        Output pixels of a frame, each of which takes all inputs to all outputs.
    pe, simd, cycles : int
        The folding.
    busy : float
        Share of the initiation interval in which the layer works, in percent.
    slowest : bool
        Whether no layer takes longer.
    aside : bool
        Whether the layer stands on a shortcut.
    width, height : float
        Size in pixels of the array of lanes: SIMD wide, PE high, both on a logarithmic scale.
    """

    name: str
    short: str
    place: str
    mw: int | None
    mh: int | None
    pixels: int
    pe: int
    simd: int
    cycles: int
    busy: float
    slowest: bool
    aside: bool
    width: float
    height: float


def stages(layers: Sequence[Mapping[str, Any]], interval: int | None = None) -> list[Stage]:
    """Return the drawing's boxes.

    Parameters
    ----------
    layers : sequence of mapping
        The ``layers`` of a report.
    interval : int or None
        Cycles a frame, the initiation interval; the slowest layer's cycles if None.
    """
    slowest = max((layer["cycles"] for layer in layers), default=1)
    most = max((max(layer["pe"], layer["simd"]) for layer in layers), default=1)

    def side(lanes: int) -> float:
        if most == 1:
            return SMALLEST
        return SMALLEST + (LARGEST - SMALLEST) * log2(lanes) / log2(most)

    return [
        Stage(
            name=layer["name"],
            short=cut(layer["name"], FITS),
            place=PLACES.get(layer["weights_in"], layer["weights_in"]),
            mw=layer.get("mw"),
            mh=layer.get("mh"),
            pixels=layer.get("positions", 1),
            pe=layer["pe"],
            simd=layer["simd"],
            cycles=layer["cycles"],
            busy=100 * layer["cycles"] / (interval or slowest),
            slowest=layer["cycles"] == slowest,
            aside=layer.get("on_shortcut", False),
            width=side(layer["simd"]),
            height=side(layer["pe"]),
        )
        for layer in layers
    ]


def cut(name: str, fits: int) -> str:
    """Cut a name in the middle: both its ends tell layers apart."""
    if len(name) <= fits:
        return name
    kept = fits - 1
    return name[: kept // 2] + "…" + name[-(kept - kept // 2) :]
