"""Rows and columns of a comparison: which value is best, and by how much they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isclose
from typing import Any, Literal

from xnorflow.errors import UserError

__all__ = ["Cell", "Column", "Comparison", "KnownFrom", "Row", "compare", "labelled", "plain"]

KnownFrom = Literal["place and route", "synthesis", "estimate"]
Better = Literal["higher", "lower"]

#: Resources that are compared, as people read them.
RESOURCES = {
    "lut": "LUT",
    "lc": "logic cells",
    "ff": "flip-flops",
    "bram": "block RAM",
    "dsp": "multipliers",
}


@dataclass(frozen=True, eq=False)
class Column:
    """One configuration.

    Attributes
    ----------
    report : dict
        As in ``report.json``; of an estimate, what can be known of it.
    source : str
        Where it comes from, for messages.
    known_from : str
        ``place and route``, ``synthesis`` (a quick look) or ``estimate``.
    variant : str
        What tells it from another configuration of the same model and board.
    label : str
        Its heading, see `labelled`; empty if it has none yet.
    """

    report: dict[str, Any]
    source: str
    known_from: KnownFrom
    variant: str
    label: str = ""

    @property
    def model(self) -> str:
        """Name of the model."""
        return plain(self.report["model"])

    @property
    def board(self) -> str | None:
        """Name of the board; None for an estimate without one."""
        name = self.report["board"]
        return None if name is None else plain(name)


@dataclass(frozen=True)
class Cell:
    """A value of a configuration.

    Attributes
    ----------
    value : number, str or None
        None is what is not known.
    estimated : bool
        Whether it was computed beforehand: neither measured nor told by a tool that built it.
    available : int or None
        Of a resource, what the device has.
    """

    value: float | str | None = None
    estimated: bool = False
    available: int | None = None

    @property
    def number(self) -> float | None:
        """The value, if it is a number."""
        return None if isinstance(self.value, str) else self.value

    @property
    def share(self) -> float | None:
        """Per cent of what the device has."""
        if self.number is None or not self.available:
            return None
        return 100 * self.number / self.available


@dataclass(frozen=True)
class Row:
    """A quantity, with its value in every configuration.

    Attributes
    ----------
    key : str
        For programs, such as ``fps``.
    name, unit : str
        As people read them; the unit may be empty.
    group : str
        Rows of a group stand together.
    better : str or None
        ``higher`` or ``lower`` is better; None where neither is.
    cells : tuple of Cell
        One a column.
    """

    key: str
    name: str
    unit: str
    group: str
    better: Better | None
    cells: tuple[Cell, ...]

    @cached_property
    def best(self) -> frozenset[int]:
        """Columns with the best value: all that are equally good, none if all values are alike."""
        numbers = {i: c.number for i, c in enumerate(self.cells) if c.number is not None}
        if self.better is None or not numbers:
            return frozenset()
        best = max(numbers.values()) if self.better == "higher" else min(numbers.values())
        found = frozenset(i for i, number in numbers.items() if isclose(number, best))
        return found if len(found) < len(numbers) else frozenset()

    def difference(self, column: int, baseline: int) -> float | None:
        """Return by how much a column differs from another.

        In per cent of the other's value, or in percentage points if the unit is per cent. None if
        that is not known: a value is missing or no number, or the other's is 0.
        """
        value, base = self.cells[column].number, self.cells[baseline].number
        if value is None or base is None:
            return None
        # Quotients that are the same may differ in their last bit.
        if isclose(value, base):
            return 0.0
        if self.unit == "%":
            return value - base
        if base == 0:
            return None
        return 100 * (value - base) / base


@dataclass(frozen=True, eq=False)
class Comparison:
    """Configurations side by side.

    Attributes
    ----------
    columns : tuple of Column
    rows : tuple of Row
        Those of which at least one column has a value.
    baseline : int
        The column that differences are taken against.
    notes : tuple of str
        What is to be known beside the numbers.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    baseline: int
    notes: tuple[str, ...]

    def groups(self) -> list[tuple[str, list[Row]]]:
        """Return the rows by their groups, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return list(found.items())

    def row(self, key: str) -> Row:
        """Return the row of a key.

        Raises
        ------
        KeyError
            If no column has a value of it.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)


def compare(
    columns: Sequence[Column], baseline: str | None = None, notes: Sequence[str] = ()
) -> Comparison:
    """Put configurations side by side.

    Parameters
    ----------
    columns : sequence of Column
        At least two, with labels.
    baseline : str, optional
        Label of the column that differences are taken against; the first by default.
    notes : sequence of str
        What came up before.

    Raises
    ------
    UserError
        If there are fewer than two columns, or none has the baseline's label.
    """
    if len(columns) < 2:
        raise UserError(
            f"there is only {columns[0].label if columns else 'nothing'} to compare; give a second "
            "report or model, or for a model more boards or foldings"
        )
    labels = [column.label for column in columns]
    if baseline is not None and baseline not in labels:
        raise UserError(
            f"`baseline` is {plain(baseline)!r}, which no column is called; give one of "
            f"{', '.join(labels)}"
        )
    rows = [
        row
        for row in (*_rows(columns), *_layer_rows(columns))
        if any(cell.value is not None for cell in row.cells)
    ]
    return Comparison(
        tuple(columns),
        tuple(rows),
        0 if baseline is None else labels.index(baseline),
        (*notes, *_notes(columns)),
    )


def labelled(columns: Sequence[Column], labels: Sequence[str] = ()) -> list[Column]:
    """Give every column a heading of its own.

    Parameters
    ----------
    columns : sequence of Column
    labels : sequence of str
        For the first columns; the rest are called by what they differ in: model, board, variant.

    Raises
    ------
    UserError
        If there are more labels than columns, or one is empty or occurs twice.
    """
    if len(labels) > len(columns):
        raise UserError(
            f"`labels` names {len(labels)} columns, but there are {len(columns)}; leave some out"
        )
    given = [plain(label).strip() for label in labels]
    if not all(given):
        raise UserError("`labels` has an empty name; give each column a name of its own")
    twice = [label for label in given if given.count(label) > 1]
    if twice:
        raise UserError(f"`labels` has {twice[0]!r} twice; give each column a name of its own")
    taken = set(given)
    named: list[Column] = []
    for column, label in zip(
        columns, (*given, *_default_labels(columns)[len(given) :]), strict=True
    ):
        if len(named) >= len(given):
            number, base = 2, label
            while label in taken:
                label, number = f"{base} ({number})", number + 1
            taken.add(label)
        named.append(replace(column, label=label))
    return named


def _default_labels(columns: Sequence[Column]) -> list[str]:
    one_model = len({column.model for column in columns}) == 1
    one_board = len({column.board for column in columns}) == 1
    pairs = [(column.model, column.board) for column in columns]
    labels = []
    for column, pair in zip(columns, pairs, strict=True):
        words = [] if one_model else [column.model]
        if not one_board:
            words.append(column.board or "no board")
        if pairs.count(pair) > 1:
            words.append(column.variant)
        labels.append(column.label or " ".join(words) or column.variant)
    return labels


def plain(text: str) -> str:
    """Return text in one line that can be shown: what cannot be printed is replaced."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _rows(columns: Sequence[Column]) -> Iterator[Row]:
    """Give the rows that are not about layers; some may be empty."""
    reports = [column.report for column in columns]
    planned = [column.known_from != "place and route" for column in columns]
    guessed = [column.known_from == "estimate" for column in columns]
    always, never = [True] * len(columns), [False] * len(columns)

    def row(
        group: str,
        key: str,
        name: str,
        unit: str,
        better: Better | None,
        values: Sequence[float | str | None],
        estimated: Sequence[bool],
    ) -> Row:
        cells = tuple(map(Cell, values, estimated))
        return Row(key, name, unit, group, better, cells)

    def value(key: str) -> list[Any]:
        return [report.get(key) for report in reports]

    def inner(key: str, name: str) -> list[Any]:
        return [(report.get(key) or {}).get(name) for report in reports]

    what = "configuration"
    yield row(what, "model", "model", "", None, [column.model for column in columns], never)
    yield row(what, "board", "board", "", None, [column.board for column in columns], never)
    devices = [None if name is None else plain(name) for name in value("device")]
    yield row(what, "device", "device", "", None, devices, never)
    known: list[str | None] = [column.known_from for column in columns]
    yield row(what, "known_from", "known from", "", None, known, never)
    bits = [_total(report.get("layers"), "weights_bits") for report in reports]
    yield row(what, "weights_bits", "weights", "bits", None, bits, never)

    speed = "speed"
    yield row(speed, "clock_mhz", "clock", "MHz", None, value("clock_mhz"), planned)
    yield row(speed, "fmax_mhz", "Fmax", "MHz", "higher", value("fmax_mhz"), never)
    yield row(speed, "fps", "frames/s", "", "higher", value("fps"), planned)
    yield row(
        speed, "cycles_per_frame", "cycles a frame", "", "lower", value("cycles_per_frame"), guessed
    )
    yield row(
        speed, "latency_cycles", "latency, cycles", "", "lower", value("latency_cycles"), guessed
    )
    yield row(speed, "latency_us", "latency", "µs", "lower", list(map(_latency, reports)), planned)

    for name, called in RESOURCES.items():
        yield from _resource_rows(columns, name, called)

    merit = "efficiency"
    uj = inner("energy", "uj_per_frame")
    yield row(merit, "uj_per_frame", "energy", "µJ/frame", "lower", uj, always)
    luts = [_used(report, "lut") for report in reports]
    per_klut = [
        1000 * report["fps"] / lut if lut else None
        for report, lut in zip(reports, luts, strict=True)
    ]
    yield row(merit, "fps_per_klut", "frames/s a kLUT", "", "higher", per_klut, planned)
    per_mhz = [report["fps"] / report["clock_mhz"] for report in reports]
    yield row(merit, "fps_per_mhz", "frames/s a MHz", "", "higher", per_mhz, guessed)

    checks = "checks"
    accuracy = [None if x is None else 100 * x for x in inner("accuracy", "accuracy")]
    frames = [
        count if known is not None else None
        for count, known in zip(inner("accuracy", "frames"), accuracy, strict=True)
    ]
    # A few frames say little beside many.
    alike = len({n for n, x in zip(frames, accuracy, strict=True) if x is not None}) < 2
    yield row(checks, "accuracy", "accuracy", "%", "higher" if alike else None, accuracy, never)
    yield row(checks, "accuracy_frames", "frames tested", "", None, frames, never)
    checked = inner("verification", "frames")
    mismatches = [
        count if frames else None
        for count, frames in zip(inner("verification", "mismatches"), checked, strict=True)
    ]
    yield row(checks, "mismatches", "mismatches", "", "lower", mismatches, never)
    yield row(checks, "simulated", "frames simulated", "", None, checked, never)
    seconds = [
        sum(spent for spent in table.values() if spent is not None) if table else None
        for table in value("seconds")
    ]
    yield row(checks, "seconds", "build time", "s", "lower", seconds, never)


def _resource_rows(columns: Sequence[Column], name: str, called: str) -> Iterator[Row]:
    """Give what is used of a resource and, where something is, what was estimated of it."""
    usages = [column.report["resources"].get(name) or {} for column in columns]
    cells = tuple(
        Cell(_used(column.report, name), usage.get("used") is None, usage.get("available"))
        for column, usage in zip(columns, usages, strict=True)
    )
    yield Row(name, called, "", "size", "lower", cells)
    both = any(usage.get("used") is not None and usage.get("estimated") for usage in usages)
    if both:
        cells = tuple(
            Cell(usage.get("estimated"), True, usage.get("available")) for usage in usages
        )
        yield Row(f"{name}_estimated", f"{called}, estimated", "", "size", None, cells)


def _used(report: Mapping[str, Any], name: str) -> float | None:
    """Return what is used of a resource, or what is estimated where nothing was synthesised."""
    usage = report["resources"].get(name) or {}
    used: float | None = usage.get("used")
    return usage.get("estimated") if used is None else used


def _latency(report: Mapping[str, Any]) -> float | None:
    """Return the latency in microseconds."""
    said, cycles = report.get("latency_us"), report.get("latency_cycles")
    if said is None and cycles is not None:
        return float(cycles / report["clock_mhz"])
    return None if said is None else float(said)


def _total(layers: Sequence[Mapping[str, Any]] | None, key: str) -> int | None:
    """Return the sum over all layers, if all of them tell."""
    values = [layer.get(key) for layer in layers or ()]
    if not values:
        return None
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _layer_rows(columns: Sequence[Column]) -> Iterator[Row]:
    """Give folding and cycles of every layer; networks that differ have layers of their own."""
    networks: dict[str, list[int]] = {}
    for index, column in enumerate(columns):
        if column.report.get("layers"):
            digest = column.report.get("digest")
            # Without a digest nobody knows whether two layers are the same.
            key = f"column {index}" if digest is None else f"digest {digest}"
            networks.setdefault(key, []).append(index)
    models = [columns[members[0]].model for members in networks.values()]
    for members, model in zip(networks.values(), models, strict=True):
        prefix, group = "", "layers"
        if len(networks) > 1:
            first = columns[members[0]]
            whose = model if models.count(model) == 1 else first.label
            prefix, group = f"{whose}.", f"layers of {whose}"
        by_column = {
            index: {layer["name"]: layer for layer in columns[index].report["layers"]}
            for index in members
        }
        names = dict.fromkeys(name for layers in by_column.values() for name in layers)
        for name in names:
            layers = [by_column.get(index, {}).get(name) or {} for index in range(len(columns))]
            shown = plain(name)
            key = prefix + shown
            foldings = tuple(Cell(_folding(layer)) for layer in layers)
            yield Row(f"{key}.folding", f"{shown} PE×SIMD", "", group, None, foldings)
            cycles = tuple(
                Cell(layer.get("cycles"), column.known_from == "estimate")
                for layer, column in zip(layers, columns, strict=True)
            )
            yield Row(f"{key}.cycles", f"{shown} cycles", "", group, "lower", cycles)


def _folding(layer: Mapping[str, Any]) -> str | None:
    if layer.get("pe") is None or layer.get("simd") is None:
        return None
    return f"{layer['pe']}×{layer['simd']}"


def _notes(columns: Sequence[Column]) -> Iterator[str]:
    """Say what the numbers alone would hide."""
    for column in columns:
        if column.known_from == "estimate":
            found = column.report.get("notes")
            for note in found if isinstance(found, list) else ():
                yield f"{column.label}: {plain(str(note))}"
        run = column.report.get("verification") or {}
        if run.get("mismatches"):
            yield f"{column.label}: the hardware differs from the golden model in simulation"
    networks: dict[str, set[str]] = {}
    for column in columns:
        if column.report.get("digest") is not None:
            networks.setdefault(column.model, set()).add(column.report["digest"])
    for model, digests in networks.items():
        if len(digests) > 1:
            yield f"{len(digests)} different networks are called {model}"
    frames = {
        (column.report.get("accuracy") or {}).get("frames")
        for column in columns
        if (column.report.get("accuracy") or {}).get("accuracy") is not None
    }
    if len(frames) > 1:
        yield "the accuracies were taken on different numbers of frames"
