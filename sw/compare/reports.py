"""Reports of builds and explorations, read from files and checked before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xnorflow.compare.table import Column, KnownFrom, plain
from xnorflow.errors import UserError

__all__ = ["check_report", "is_report_file", "read_reports"]

#: Keys that a report must have, and that are positive numbers in it.
NUMBERS = ("fps", "clock_mhz", "cycles_per_frame")

#: Keys that hold a number or null, if there are any.
OPTIONAL_NUMBERS = ("fmax_mhz", "latency_cycles", "latency_us", "target_fps")

#: Objects that may be there, and the numbers in them that are compared.
OBJECTS = {
    "energy": ("uj_per_frame",),
    "accuracy": ("accuracy", "frames"),
    "verification": ("mismatches", "frames"),
}

#: Sizes between which all numbers of a report lie.
LEAST, MOST = 1e-9, 1e18

REPORT, POINTS = "report.json", "points.json"

_MEND = "give a report.json of xnorflow build, or a points.json of xnorflow explore"


def is_report_file(path: str | Path) -> bool:
    """Say whether a path is a folder or JSON, and not a model file."""
    file = Path(path)
    if file.is_dir() or file.suffix.lower() == ".json":
        return True
    try:
        with file.open("rb") as stream:
            return stream.read(64).lstrip()[:1] in (b"{", b"[")
    # Whoever reads it will say so.
    except (OSError, ValueError):
        return False


def read_reports(path: str | Path, front: bool = False) -> tuple[list[Column], list[str]]:
    """Read a build's report, or the points of an exploration or of another comparison.

    Parameters
    ----------
    path : str or Path
        ``report.json`` or ``points.json``, or the folder that holds one of them.
    front : bool
        Of an exploration, take only what is on the front of its board.

    Returns
    -------
    columns : list of Column
        Without labels.
    notes : list of str
        What was left out.

    Raises
    ------
    UserError
        If there is no such file, or it is damaged or no report; the message names the key at fault.
    """
    file = _file(Path(path))
    content = _parsed(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object, so it is no report; {_MEND}")
    if "points" not in content:
        check_report(content, str(file))
        return [_column(content, str(file), _variant(content, file))], []
    points = content["points"]
    if not isinstance(points, list) or not points:
        raise UserError(f"{file}: points is no list with points in it; {_MEND}")
    columns, failed = [], 0
    for number, point in enumerate(points, start=1):
        source = f"{file}, point {number}"
        if not isinstance(point, dict):
            raise UserError(f"{source} is no JSON object; {_MEND}")
        if point.get("failed"):
            failed += 1
            continue
        if front and not point.get("front"):
            continue
        check_report(point, source)
        # An earlier comparison has labels.
        label = plain(point["label"]) if _is_text(point.get("label")) else ""
        columns.append(replace(_column(point, source, f"point {number}"), label=label))
    if not columns:
        which = "on the front" if front else "that was built"
        raise UserError(f"{file} has no point {which}; {_MEND}")
    left_out = f"{file}: {failed} of {len(points)} points could not be built and are left out"
    return columns, [left_out] if failed else []


def _file(path: Path) -> Path:
    """Return the file that a path stands for."""
    if not path.is_dir():
        return path
    for name in (REPORT, POINTS):
        if (path / name).is_file():
            return path / name
    raise UserError(
        f"folder {path} holds neither {REPORT} nor {POINTS}; give the output folder of xnorflow "
        "build or xnorflow explore"
    )


def _parsed(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); {_MEND}") from None
    except ValueError:
        raise UserError(f"{file} is no UTF-8 text, so it is no report; {_MEND}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file} is damaged or no JSON ({error}); build again, or copy it again"
        ) from None
    # Numbers of thousands of digits, or brackets nested as deep.
    except (ValueError, RecursionError):
        raise UserError(f"{file} is JSON that no report is made of; {_MEND}") from None


def check_report(report: Mapping[str, Any], source: str) -> None:
    """Refuse what cannot be compared.

    Parameters
    ----------
    report : mapping
        The object of ``report.json``, see docs/report.md; what is not compared may be missing.
    source : str
        What messages call it.

    Raises
    ------
    UserError
        If a key is missing that every report has, or holds what no report holds.
    """
    if report and all(isinstance(v, dict) and {"pe", "simd"} <= set(v) for v in report.values()):
        raise UserError(f"{source} is a folding; give it with --folding, beside a model")
    missing = [key for key in ("model", "board", *NUMBERS, "resources") if key not in report]
    if missing:
        raise UserError(f"{source} is no report: it lacks {', '.join(missing)}; {_MEND}")
    if not _is_text(report["model"]):
        raise _wrong(source, "model", report["model"], "a name")
    for key in ("board", "device", "digest"):
        if report.get(key) is not None and not _is_text(report[key]):
            raise _wrong(source, key, report[key], "a name or null")
    for key in NUMBERS:
        if not _is_number(report[key]) or report[key] <= 0:
            raise _wrong(source, key, report[key], "a positive number")
    for key in OPTIONAL_NUMBERS:
        _check_number(report, key, source, key)
    for key, names in OBJECTS.items():
        found = report.get(key)
        if found is None:
            continue
        if not isinstance(found, dict):
            raise _wrong(source, key, found, "an object or null")
        for name in names:
            _check_number(found, name, source, f"{key}.{name}")
    _check_resources(report["resources"], source)
    _check_seconds(report.get("seconds"), source)
    _check_layers(report.get("layers"), source)


def _check_resources(resources: Any, source: str) -> None:
    if not isinstance(resources, dict):
        raise _wrong(source, "resources", resources, "an object")
    for name, usage in resources.items():
        if not isinstance(usage, dict):
            raise _wrong(source, f"resources.{plain(name)}", usage, "an object")
        for key in ("used", "available", "estimated"):
            _check_number(usage, key, source, f"resources.{plain(name)}.{key}")


def _check_seconds(seconds: Any, source: str) -> None:
    if seconds is None:
        return
    if not isinstance(seconds, dict):
        raise _wrong(source, "seconds", seconds, "an object")
    for name in seconds:
        _check_number(seconds, name, source, f"seconds.{plain(name)}")


def _check_layers(layers: Any, source: str) -> None:
    if layers is None:
        return
    if not isinstance(layers, list):
        raise _wrong(source, "layers", layers, "a list")
    names = []
    for number, layer in enumerate(layers, start=1):
        if not isinstance(layer, dict) or not _is_text(layer.get("name")):
            raise _wrong(source, f"layers, number {number},", layer, "an object with a name")
        for key in ("pe", "simd", "cycles", "weights_bits"):
            _check_number(layer, key, source, f"layers.{plain(layer['name'])}.{key}")
        names.append(layer["name"])
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{source}: two layers are called {plain(twice[0])}; build it again")


def _check_number(table: Mapping[str, Any], key: str, source: str, path: str) -> None:
    value = table.get(key)
    if value is not None and (not _is_number(value) or value < 0):
        raise _wrong(source, path, value, "a number that is not negative, or null")


def _wrong(source: str, key: str, value: Any, wanted: str) -> UserError:
    found = plain(repr(value))
    shown = found if len(found) <= 40 else f"{found[:37]}..."
    return UserError(f"{source}: {key} is {shown} but must be {wanted}; build it again")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that can be computed with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # What lies outside is no quantity of a design, and a quotient of such might be infinite.
    return value == 0 or LEAST <= abs(value) <= MOST


def _column(report: dict[str, Any], source: str, variant: str) -> Column:
    known: KnownFrom
    if report.get("known_from") == "estimate":
        known = "estimate"
    elif report.get("fast", report.get("fmax_mhz") is None):
        known = "synthesis"
    else:
        known = "place and route"
    return Column(report=report, source=plain(source), known_from=known, variant=variant)


def _variant(report: Mapping[str, Any], file: Path) -> str:
    """Return what tells a report from another of the same model and board."""
    folder = file.absolute().parent.name
    if file.name != REPORT:
        return plain(file.stem)
    if folder == f"build-{report['model']}-{report['board']}" or not folder:
        return "quick look" if report.get("fast") else "built"
    return plain(folder)
