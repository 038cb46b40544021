"""Geometry of the page's bar charts; the template only draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "RESOURCES",
    "ResourceBar",
    "ScoreBar",
    "ScoreChart",
    "StepBar",
    "resource_bars",
    "step_bars",
]

#: Names of resources as people read them.
RESOURCES = {
    "lut": "LUT",
    "ff": "flip-flops",
    "bram": "block RAM",
    "dsp": "multipliers",
    "lc": "logic cells",
    "spram": "SPRAM",
    "io": "pins",
    "pll": "PLL",
}

#: Size of a chart of scores, in pixels: its width, and the height of its bars.
SCORES_WIDTH, SCORES_HEIGHT = 132.0, 40.0

#: Up to this many classes every bar of a chart of scores has its class written below it.
LABELLED_CLASSES = 12


@dataclass(frozen=True)
class ResourceBar:
    """A resource of the device.

    Attributes
    ----------
    name : str
        As people read it.
    used, available : int
    estimated : int or None
        What was expected to be used, if it was estimated.
    """

    name: str
    used: int
    available: int
    estimated: int | None

    @property
    def share(self) -> float:
        """Percentage used, which may exceed 100."""
        return 100 * self.used / self.available if self.available else 0.0

    @property
    def drawn(self) -> float:
        """Length of the bar, in percent of the track."""
        return min(100.0, self.share)

    @property
    def tick(self) -> float | None:
        """Place of the estimate's tick, in percent of the track."""
        if self.estimated is None or not self.available:
            return None
        return min(100.0, 100 * self.estimated / self.available)


@dataclass(frozen=True)
class StepBar:
    """A step of the build: its name, its seconds and its share of the longest step in percent."""

    name: str
    seconds: float
    drawn: float


@dataclass(frozen=True)
class ScoreBar:
    """The score of one class, drawn from the zero line.

    Attributes
    ----------
    label, score : int
        The class, and its score.
    x, y, width, height : float
        The bar, in pixels.
    chosen, true : bool
        Whether the class is the prediction, and whether it is the label.
    labelled : bool
        Whether the class is written below the bar.
    """

    label: int
    score: int
    x: float
    y: float
    width: float
    height: float
    chosen: bool
    true: bool
    labelled: bool

    @property
    def middle(self) -> float:
        """Centre of the bar, in pixels."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class ScoreChart:
    """The scores of a frame: one bar a class.

    Attributes
    ----------
    bars : list of ScoreBar
    zero : float
        Height of the zero line, in pixels from the top.
    """

    bars: list[ScoreBar]
    zero: float

    @classmethod
    def of(cls, scores: Sequence[int], predicted: int, label: int | None) -> ScoreChart:
        """Lay out the chart; positive scores stand on the zero line, negative ones hang from it."""
        low, high = min(0, *scores), max(0, *scores)
        scale = SCORES_HEIGHT / ((high - low) or 1)
        zero = high * scale
        pitch = SCORES_WIDTH / len(scores)
        few = len(scores) <= LABELLED_CLASSES
        bars = [
            ScoreBar(
                label=k,
                score=score,
                x=(k + 0.1) * pitch,
                y=zero - max(0, score) * scale,
                width=0.8 * pitch,
                height=abs(score) * scale,
                chosen=k == predicted,
                true=k == label,
                labelled=few or k in (predicted, label),
            )
            for k, score in enumerate(scores)
        ]
        return cls(bars, zero)

    @property
    def described(self) -> str:
        """The scores in words."""
        return ", ".join(f"class {bar.label}: {bar.score:,}" for bar in self.bars)


def resource_bars(resources: Mapping[str, Mapping[str, Any]]) -> list[ResourceBar]:
    """Return a bar for each of the ``resources`` of a report."""
    return [
        ResourceBar(
            RESOURCES.get(name, name), each["used"], each["available"], each.get("estimated")
        )
        for name, each in resources.items()
    ]


def step_bars(seconds: Mapping[str, float]) -> list[StepBar]:
    """Return a bar for each of the ``seconds`` of a report."""
    longest = max(seconds.values(), default=0.0) or 1.0
    return [StepBar(name, value, 100 * value / longest) for name, value in seconds.items()]
