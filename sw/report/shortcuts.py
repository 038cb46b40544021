"""Shortcuts as they are drawn: lines above the boxes of the layers.

The boxes stand in rows that break like text, however wide the page is. So a line is drawn box by
box: one that leaves its row at the right goes on at the left of the next. Shortcuts beside each
other have lanes of their own, the shortest one lowest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xnorflow.report.pipeline import cut

__all__ = ["Cell", "Shortcut", "Text", "arcs"]

#: Width of a box with the arrow behind it, in pixels.
WIDTH = 174

#: Upper edge of a box; height of the arrow to the next one.
TOP, ARROW = 2, 68

#: Where a shortcut leaves: on the arrow, or the box's right edge and the height of that.
BEHIND, RIGHT, INSIDE = 157, 150, 40

#: Where a shortcut that ends in the box where it began leaves it.
LOOP = 14

#: Where the last shortcut of a box comes down, and how far left of it each one before.
DOWN, APART = 136, 20

#: Left edge of a frame of texts, from its right edge to where its shortcut comes down, and from
#: its edges to the texts.
LEFT, SPACE, INDENT = 12, 10, 7

#: Height of a line of text, of the frame around all of them, and from lane to lane.
LINE, FRAME, GAP = 15, 8, 12

#: Width of a character of the texts, in a wide font.
CHARACTER = 7

#: Height that the signs where shortcuts end take above the boxes.
SIGNS = 16

#: Radius of a corner.
CORNER = 6

#: What is done with what comes; channels that are put beside others are no arithmetic.
HOW = {"add": "added", "multiply": "a factor"}

#: Stages that are not drawn; those on the layers' way are not either.
HIDDEN = {"converter", "window"}


@dataclass(frozen=True)
class Shortcut:
    """A shortcut between two boxes.

    Attributes
    ----------
    name : str
        The join's.
    begin, end : int
        The boxes where it leaves the others' way and comes back.
    inside : bool
        Whether it leaves from inside of the first box rather than behind it.
    how : str
        ``added`` or ``put beside``.
    way : tuple of str
        What stands on it, FIFOs included.
    """

    name: str
    begin: int
    end: int
    inside: bool
    how: str
    way: tuple[str, ...]

    @property
    def height(self) -> int:
        """Height of what stands on it."""
        return FRAME + LINE * len(self.way)

    @property
    def span(self) -> tuple[int, int]:
        """What it takes of a lane, in half boxes: a box, then the arrow behind it."""
        loops = self.begin == self.end
        return 2 * self.begin + (not loops), 2 * self.end + 1


@dataclass(frozen=True)
class Text:
    """What stands on a shortcut: a frame with lines of text.

    Attributes
    ----------
    x, y, width, height : int
    lines : list of (x, y, str)
        Where they begin, and what they say.
    """

    x: int
    y: int
    width: int
    height: int
    lines: list[tuple[int, int, str]]


@dataclass(frozen=True)
class Cell:
    """What a box shows of the shortcuts.

    Attributes
    ----------
    wires : list of str
        Paths.
    dots : list of (x, y)
        Where shortcuts begin.
    texts : list of Text
    signs : list of (x, y, how)
        Where shortcuts end.
    words : list of str
        The same for those who do not see it.
    """

    wires: list[str] = field(default_factory=list)
    dots: list[tuple[int, int]] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    signs: list[tuple[int, int, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def arcs(
    shortcuts: Sequence[Mapping[str, Any]], layers: Sequence[str]
) -> tuple[list[Shortcut], list[Cell], int]:
    """Return the shortcuts, what each box shows, and the height that this takes above the boxes.

    Parameters
    ----------
    shortcuts : sequence of mapping
        Those of a report.
    layers : sequence of str
        Names of the boxes.
    """
    drawn = [_shortcut(each, layers) for each in shortcuts]
    cells = [Cell() for _ in layers]
    ends = Counter(each.end for each in drawn)
    come = Counter[int]()
    level = TOP - SIGNS
    for lane in _lanes(drawn):
        height = max(each.height for each in lane)
        for each in lane:
            come[each.end] += 1
            # The higher one comes from, the further right, so that no text is in the way.
            down = DOWN - APART * (ends[each.end] - come[each.end])
            _draw(each, level - height // 2, down, cells, layers)
        level -= height + GAP
    return drawn, cells, TOP - GAP - level if drawn else 0


def _shortcut(shortcut: Mapping[str, Any], layers: Sequence[str]) -> Shortcut:
    way = []
    for stage in [*shortcut["stages"], {"kind": "", "fifo": shortcut["fifo"]}]:
        if stage["fifo"]:
            way.append(f"FIFO {stage['fifo']:,}")
        if stage["kind"] and stage["kind"] not in HIDDEN:
            way.append(stage["kind"])
    return Shortcut(
        name=shortcut["name"],
        begin=layers.index(shortcut["from_layer"]),
        end=layers.index(shortcut["to_layer"]),
        inside=shortcut["inside"],
        how=HOW.get(shortcut["how"], "put beside"),
        way=tuple(way),
    )


def _lanes(drawn: Sequence[Shortcut]) -> list[list[Shortcut]]:
    """Give the shortcuts lanes in which no two meet, the lowest first."""
    lanes: list[list[Shortcut]] = []
    for each in sorted(drawn, key=lambda each: (each.end - each.begin, each.begin)):
        start, stop = each.span
        for lane in lanes:
            if all(stop <= other.span[0] or other.span[1] <= start for other in lane):
                lane.append(each)
                break
        else:
            lanes.append([each])
    return lanes


def _draw(shortcut: Shortcut, y: int, down: int, cells: list[Cell], layers: Sequence[str]) -> None:
    """Draw a shortcut at height `y` that comes down at `down`."""
    first, last = cells[shortcut.begin], cells[shortcut.end]
    what = f"from {layers[shortcut.begin]} to {layers[shortcut.end]}"
    first.words.append(f"a shortcut {what} begins here")
    last.words.append(f"a shortcut {what} is {shortcut.how} here")
    if shortcut.way:
        last.words[-1] += f", through {', '.join(shortcut.way)}"
    if first is last:
        first.dots.append((LOOP, TOP))
        first.wires.append(f"M{LOOP} {TOP} V{y}")
    else:
        start = (RIGHT, INSIDE) if shortcut.inside else (BEHIND, ARROW)
        rise = f"H{BEHIND} V{y + CORNER} q0 {-CORNER} {CORNER} {-CORNER} H{WIDTH}"
        first.dots.append(start)
        first.wires.append("M{} {} {}".format(*start, rise))
        for cell in cells[shortcut.begin + 1 : shortcut.end]:
            cell.wires.append(f"M0 {y} H{WIDTH}")
        last.wires.append(f"M0 {y} H{LEFT}")
    last.wires.append(f"M{LEFT} {y} H{down - CORNER} q{CORNER} 0 {CORNER} {CORNER} V{TOP}")
    last.signs.append((down, TOP, shortcut.how))
    if shortcut.way:
        top, width = y - shortcut.height // 2, down - SPACE - LEFT
        fits = (width - 2 * INDENT) // CHARACTER
        lines = [
            (LEFT + INDENT, top + LINE * (n + 1), cut(text, fits))
            for n, text in enumerate(shortcut.way)
        ]
        last.texts.append(Text(LEFT, top, width, shortcut.height, lines))
