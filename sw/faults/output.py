"""A study as CSV, one line a point, and its numbers as text."""

from __future__ import annotations

import csv
import io

from xnorflow.faults.study import Series, Study

__all__ = ["COLUMNS", "as_csv", "critical"]

#: Columns of the CSV; `share` is of the bits, the last six are accuracies or agreements.
COLUMNS = (
    *("model", "target", "layer", "bits", "flips", "share", "trials", "frames", "seed", "metric"),
    *("mean", "deviation", "interval_low", "interval_high", "min", "max"),
)


def as_csv(study: Study) -> str:
    """Return the points with a heading; what is not known is empty."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for series in study.series:
        for point in series.points:
            writer.writerow(
                [
                    *(study.model, series.target, series.layer, series.bits, point.flips),
                    *(point.share, study.trials, study.frames, study.seed, study.metric),
                    *(point.mean, point.deviation, *(point.interval or (None, None))),
                    *(min(point.values), max(point.values)),
                ]
            )
    return stream.getvalue()


def critical(series: Series) -> tuple[str, str]:
    """Return the flips that cost a percentage point, and their share of the bits in per cent."""
    flips = series.critical_flips
    if flips is None:
        return "not reached", "–"
    digits = f"{flips:,.0f}" if flips >= 10 else f"{flips:.1f}"
    return digits, f"{100 * flips / series.bits:.2g}"
