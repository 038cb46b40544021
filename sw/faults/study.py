"""Accuracy against the number of flipped bits, over random draws."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.explore.workers import on_this_machine
from xnorflow.faults.regions import STREAMS, TARGETS, Region
from xnorflow.faults.upsets import Upsets
from xnorflow.frames import PreparedFrames
from xnorflow.golden import predict_quantized
from xnorflow.lowered import LoweredNetwork
from xnorflow.progress import Progress, quiet

__all__ = ["LOSS", "Point", "Series", "Study", "draw", "study", "t_quantile"]

#: The loss that the critical number of flips is given for: a percentage point.
LOSS = 0.01

#: Frames that draw their flips together.
BLOCK = 256

#: The default numbers of flips within a decade.
STEPS = (1, 3)


@dataclass(frozen=True)
class Point:
    """What came of one number of flips.

    Attributes
    ----------
    flips : int
        Flipped bits; of streams in each frame.
    share : float
        Of the bits that could have been.
    values : tuple of float
        Accuracy (or agreement) of each trial.
    """

    flips: int
    share: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the trials."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float | None:
        """Standard deviation of a trial, estimated from these; None with one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean over all draws (Student's t), within 0 and 1."""
        if self.deviation is None:
            return None
        trials = len(self.values)
        half = t_quantile(trials - 1) * self.deviation / sqrt(trials)
        return max(0.0, self.mean - half), min(1.0, self.mean + half)


@dataclass(frozen=True)
class Series:
    """Accuracy against flips in one target.

    Attributes
    ----------
    target : str
        One of `TARGETS`.
    layer : str or None
        Where the flips were; None for all places.
    bits : int
        Bits that could flip; of streams, in a frame.
    points : tuple of Point
        In rising order of flips.
    critical_flips : float or None
        Flips at which the mean has fallen by `LOSS`, between two points in proportion to the
        logarithm of the flips and before the first one to the flips; None if it never has.
    """

    target: str
    layer: str | None
    bits: int
    points: tuple[Point, ...]
    critical_flips: float | None

    @property
    def name(self) -> str:
        """Target, and the layer if it is only one."""
        return _name(self.target, self.layer)

    @property
    def transient(self) -> bool:
        """Whether each frame has flips of its own."""
        return self.target in STREAMS


@dataclass(frozen=True)
class Study:
    """Outcome of a study.

    Attributes
    ----------
    model : str
    frames : int
    labelled : bool
        Whether values are accuracies; else they are shares of frames with the class of the
        fault-free network.
    fault_free : float
        The value without flips.
    chance : float
        The value of a guess: one over the number of classes.
    trials, seed : int
    series : tuple of Series
    notes : tuple of str
        Sentences for the user.
    """

    model: str
    frames: int
    labelled: bool
    fault_free: float
    chance: float
    trials: int
    seed: int
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """``accuracy`` or ``agreement``."""
        return "accuracy" if self.labelled else "agreement"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of the command line."""
        return {
            "model": self.model,
            "frames": self.frames,
            "metric": self.metric,
            "fault_free": self.fault_free,
            "chance": self.chance,
            "trials": self.trials,
            "seed": self.seed,
            "series": [
                {
                    "target": series.target,
                    "layer": series.layer,
                    "bits": series.bits,
                    "per_frame": series.transient,
                    "flips_to_lose_1_point": series.critical_flips,
                    "points": [_point_json(point) for point in series.points],
                }
                for series in self.series
            ],
            "notes": list(self.notes),
        }


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "flips": point.flips,
        "share": point.share,
        "mean": point.mean,
        "deviation": point.deviation,
        "interval_95": point.interval,
        "min": min(point.values),
        "max": max(point.values),
        "values": list(point.values),
    }


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution.

    With ``t = sqrt(freedom) * tan(angle)`` its density is proportional to
    ``cos(angle) ** (freedom - 1)``.
    """
    angles = np.linspace(-pi / 2, pi / 2, 20001)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(sqrt(freedom) * np.tan(np.interp(0.975, below / below[-1], angles)))


def draw(rng: np.random.Generator, rows: int, bits: int, flips: int) -> NDArray[np.bool_]:
    """Draw `flips` different ones of `bits` for each row, shape (rows, bits).

    Places are drawn until there are enough; all sets are equally likely, since no place is treated
    unlike another.
    """
    if flips > bits // 2:
        return ~draw(rng, rows, bits, bits - flips)
    chosen = np.zeros((rows, bits), bool)
    missing = np.full(rows, flips)
    while missing.any():
        places = rng.integers(bits, size=missing.sum())
        chosen[np.repeat(np.arange(rows), missing), places] = True
        missing = flips - chosen.sum(axis=1)
    return chosen


@dataclass(frozen=True)
class _Plan:
    """A series to be: its regions and numbers of flips."""

    target: str
    layer: str | None
    parts: tuple[Region, ...]
    flips: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return _name(self.target, self.layer)

    @property
    def bits(self) -> int:
        return sum(part.bits for part in self.parts)


def study(
    lowered: LoweredNetwork,
    frames: PreparedFrames,
    *,
    hit: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    per_layer: bool = False,
    flips: Sequence[int] | None = None,
    rates: Sequence[float] | None = None,
    trials: int = 10,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress = quiet,
) -> Study:
    """Measure accuracy against flipped bits, target by target.

    Parameters
    ----------
    lowered : LoweredNetwork
    frames : PreparedFrames
        Without labels, agreement with the fault-free classes takes the place of accuracy.
    hit : sequence of str, optional
        Of `TARGETS`; by default all that the layers have.
    layers : sequence of str, optional
        Layers, pools, joins and parts of shortcuts that are hit; all by default.
    per_layer : bool
        Whether to study each of them alone.
    flips : sequence of int, optional
        Numbers of flips; of streams, in each frame.
    rates : sequence of float, optional
        Instead of these: shares of the bits. By default numbers from 1 to half of the bits.
    trials : int
        Draws for each number.
    seed : int
        Of the draws. Those of a point depend on it, the target, the layers, the flips and the
        trial alone.
    jobs : int
        Processes.
    progress : callable
        Told how many points are done.

    Raises
    ------
    UserError
        If an argument is out of range or names what the network does not have.
    WorkFailed
        If processes die again and again.
    """
    _check_numbers(flips, rates, trials, seed, jobs)
    upsets = Upsets(lowered)
    notes: list[str] = []
    plans = []
    for plan in _plans(upsets.regions, hit, layers, per_layer):
        numbers = _numbers(plan, flips, rates, notes)
        if numbers:
            plans.append(replace(plan, flips=numbers))
    if not plans:
        raise UserError("`rates` come to less than half a bit everywhere; give larger ones")
    truth, fault_free = predict_quantized(lowered, frames.quantized).classes, 1.0
    if frames.y is not None:
        truth, fault_free = frames.y, float((truth == frames.y).mean())

    tasks = [
        _Task(upsets, frames.quantized, truth, plan, number, seed, trials)
        for plan in plans
        for number in plan.flips
    ]
    found: dict[int, tuple[float, ...]] = {}
    progress("flip bits", plans[0].name, 0, len(tasks))
    for index, values in _outcomes(tasks, jobs):
        found[index] = values
        progress("flip bits", tasks[index].plan.name, len(found), len(tasks))
    points = iter([Point(t.flips, t.flips / t.plan.bits, found[n]) for n, t in enumerate(tasks)])
    series = []
    for plan in plans:
        mine = tuple(next(points) for _ in plan.flips)
        series.append(Series(plan.target, plan.layer, plan.bits, mine, _critical(mine, fault_free)))
    return Study(
        model=lowered.name,
        frames=len(frames),
        labelled=frames.y is not None,
        fault_free=fault_free,
        chance=1 / lowered.classes,
        trials=trials,
        seed=seed,
        series=tuple(series),
        notes=tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class _Task:
    """One number of flips, for a process of its own."""

    upsets: Upsets
    frames: NDArray
    truth: NDArray[np.int64]
    plan: _Plan
    flips: int
    seed: int
    trials: int


def _outcomes(tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Yield each task's index and values."""
    if min(jobs, len(tasks)) > 1:
        yield from on_this_machine(_values, tasks, jobs)
    else:
        yield from enumerate(map(_values, tasks))


def _values(task: _Task) -> tuple[float, ...]:
    """Return the share of frames with the true class, for each trial."""
    trials = [_trial(task, np.random.default_rng(_seeds(task, n))) for n in range(task.trials)]
    return tuple(float((classes == task.truth).mean()) for classes in trials)


def _seeds(task: _Task, trial: int) -> list[int]:
    """Return what the draws come from; it does not depend on what else is studied."""
    places = ",".join(map(_spot, task.plan.parts))
    return [task.seed, zlib.crc32(f"{task.plan.target} {places}".encode()), task.flips, trial]


def _spot(part: Region) -> str:
    return f"{part.stage}" if part.side is None else f"{part.stage}.{part.side}"


def _trial(task: _Task, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the classes of all frames with one draw of flips."""
    upsets, plan = task.upsets, task.plan
    blocks = [task.frames[start : start + BLOCK] for start in range(0, len(task.frames), BLOCK)]
    if plan.target not in STREAMS:
        faulty = upsets.stored(_split(plan, draw(rng, 1, plan.bits, task.flips)[0]))
        return np.concatenate([faulty.classes(block) for block in blocks])
    classes = []
    for block in blocks:
        flips = _split(plan, draw(rng, len(block), plan.bits, task.flips))
        classes.append(upsets.on_streams(flips).classes(block))
    return np.concatenate(classes)


def _split(plan: _Plan, chosen: NDArray[np.bool_]) -> list[tuple[Region, NDArray[np.bool_]]]:
    """Deal out bits, the last axis of `chosen`, to the regions."""
    ends = np.cumsum([part.bits for part in plan.parts])[:-1]
    return list(zip(plan.parts, np.split(chosen, ends, axis=-1), strict=True))


def _plans(
    found: Sequence[Region],
    hit: Sequence[str] | None,
    layers: Sequence[str] | None,
    per_layer: bool,
) -> Iterator[_Plan]:
    """Yield the series that are asked for, without their numbers of flips."""
    names = list(dict.fromkeys(part.name for part in found if part.target != "inputs"))
    for target in hit or ():
        if target not in TARGETS:
            raise UserError(f"`hit` has {target!r}; it can be {', '.join(TARGETS)}")
    for name in layers or ():
        if name not in names:
            raise UserError(f"`layers` has {name!r}, but the network has {', '.join(names)}")
    for target in TARGETS if hit is None else dict.fromkeys(hit):
        parts = [part for part in found if part.target == target]
        if layers is not None:
            parts = [part for part in parts if part.name in layers and target != "inputs"]
            missing = [name for name in layers if name not in {part.name for part in parts}]
            if missing and hit is not None:
                raise UserError(_without(target, missing[0]))
        elif not parts and hit is not None:
            raise UserError(f"the network has no {target}; leave them out of `hit`")
        if per_layer and target != "inputs":
            for name in dict.fromkeys(part.name for part in parts):
                yield _Plan(target, name, tuple(part for part in parts if part.name == name))
        elif parts:
            where = dict.fromkeys(part.name for part in parts)
            yield _Plan(target, None if layers is None else ", ".join(where), tuple(parts))


def _without(target: str, name: str) -> str:
    if target == "inputs":
        return "`hit` has inputs, which belong to no layer; leave out `layers` or inputs"
    return f"{name} has no {target}; choose other `layers` or leave {target} out of `hit`"


def _check_numbers(
    flips: Sequence[int] | None,
    rates: Sequence[float] | None,
    trials: int,
    seed: int,
    jobs: int,
) -> None:
    if flips is not None and rates is not None:
        raise UserError("`flips` and `rates` exclude each other; give one of them")
    for name, value, least in (("trials", trials, 1), ("jobs", jobs, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"`{name}` is {value} but must be at least {least}")
    for number in flips or ():
        if number < 0:
            raise UserError(f"`flips` has {number} but must not be negative")
    for rate in rates or ():
        if not 0 <= rate <= 1:
            raise UserError(f"`rates` has {rate:g} but must lie between 0 and 1")


def _numbers(
    plan: _Plan, flips: Sequence[int] | None, rates: Sequence[float] | None, notes: list[str]
) -> tuple[int, ...]:
    """Return the numbers of flips of a series in rising order, each once."""
    if flips is not None:
        if max(flips, default=0) > plan.bits:
            raise UserError(
                f"`flips` has {max(flips)}, more than the {plan.bits} bits of {plan.name}; give "
                "fewer or leave that out with `hit`"
            )
        return tuple(sorted(set(flips)))
    if rates is not None:
        numbers = set()
        for rate in rates:
            number = round(rate * plan.bits)
            if number or not rate:
                numbers.add(number)
            else:
                notes.append(f"{rate:g} of the {plan.bits} bits of {plan.name} is no bit: left out")
        return tuple(sorted(numbers))
    half = max(1, plan.bits // 2)
    decades = range(len(str(half)))
    below = {step * 10**power for power in decades for step in STEPS}
    return tuple(sorted({number for number in below if number < half} | {half}))


def _critical(points: Iterable[Point], fault_free: float) -> float | None:
    """Return `Series.critical_flips`."""
    wanted = fault_free - LOSS
    before, height = 0, fault_free
    for point in points:
        # A hair of tolerance: means of decimal fractions are not exact.
        if point.flips and point.mean <= wanted + 1e-9:
            part = (height - wanted) / (height - point.mean)
            if not before:
                return part * point.flips
            return exp(log(before) + part * log(point.flips / before))
        before, height = point.flips, point.mean
    return None


def _name(target: str, layer: str | None) -> str:
    return target if layer is None else f"{target} of {layer}"
