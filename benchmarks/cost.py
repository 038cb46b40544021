"""Compare the cost model with what the tools make of configurations that it was not fitted to.

    python benchmarks/cost.py [--family ice40|ecp5] [--measure] [--jobs N] [--json FILE]

The measurements are read from `benchmarks/data/cost.json`; ``--measure`` makes those anew whose
hardware has changed. Ends with status 1 if the estimates are not within the limits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from configurations import calibration, cores, describe, held_out, parts_of
from measurements import Measurement, Measurements
from rich.console import Console
from rich.table import Table

from xnorflow.cost import FAMILIES

#: Limits on the relative error of LUTs and logic cells, of the median and of the worst.
MEDIAN, WORST = 0.10, 0.25

#: Below so many LUTs an error of so many counts instead of the relative one.
SMALL, SMALL_ERROR = 100, 25


def compare(measurement: Measurement) -> dict[str, Any]:
    """Return measured and estimated figures of a configuration."""
    family = measurement.family
    cost = FAMILIES[family].cost(parts_of(FAMILIES[family], measurement.config))
    kinds = ("lut", "cells", "ff", "carry", "bram", "dsp")
    return {
        "family": family,
        "what": describe(measurement.config),
        "kind": measurement.config["kind"],
        **{kind: getattr(measurement.area, kind) for kind in kinds},
        **{f"{kind}_estimated": round(getattr(cost, kind)) for kind in kinds},
    }


def error(row: dict[str, Any], kind: str) -> float:
    """Return the relative error of an estimate."""
    return row[f"{kind}_estimated"] / max(row[kind], 1) - 1


def verdict(rows: list[dict[str, Any]], kind: str) -> tuple[str, bool]:
    """Return what is said of a list of estimates, and whether it is within the limits."""
    large = [abs(error(row, kind)) for row in rows if row[kind] >= SMALL]
    small = [abs(row[f"{kind}_estimated"] - row[kind]) for row in rows if row[kind] < SMALL]
    median, worst, off = float(np.median(large)), max(large), max(small, default=0)
    words = (
        f"{kind}: {len(large)} configurations of {SMALL} or more: median error {median:.1%}, "
        f"worst {worst:.1%}; {len(small)} smaller ones: at most {off} off"
    )
    return words, median <= MEDIAN and worst <= WORST and off <= SMALL_ERROR


@click.command()
@click.option("--family", type=click.Choice(sorted(FAMILIES)), multiple=True)
@click.option("--measure", is_flag=True, help="Synthesise what is new.")
@click.option("--jobs", default=1, show_default=True, help="Tools that run side by side.")
@click.option("--json", "json_file", metavar="FILE")
def main(family: tuple[str, ...], measure: bool, jobs: int, json_file: str | None) -> None:
    """Compare estimates with measurements for the families asked for, all of them by default."""
    console, measurements = Console(), Measurements()
    families = family or tuple(sorted(FAMILIES))
    drawn = {name: [*held_out(name), *cores(name)] for name in families}
    if measure:
        wanted = [(name, config) for name in families for config in drawn[name]]
        measurements.measure(wanted, jobs, lambda one: console.print(one.family, one.config))
    rows: list[dict[str, Any]] = []
    passed = True
    console.print(
        f"Limits: median {MEDIAN:.0%}, worst {WORST:.0%} from {SMALL} LUTs (cells) on, "
        f"{SMALL_ERROR} below; block RAMs and multipliers exact."
    )
    for name in families:
        measured = measurements.of(name, drawn[name])
        if len(measured) < len(drawn[name]):
            sys.exit(f"{len(drawn[name]) - len(measured)} are not measured: give --measure")
        # Some drawn stages are, as hardware, what the grid has too.
        grid = {one.digest for one in measurements.of(name, calibration(name))}
        mine = [compare(one) for one in measured if one.digest not in grid]
        console.print(
            f"{name}: {len(mine)} drawn, {len(measured) - len(mine)} more are in the grid"
        )
        rows += mine
        table = Table(f"{name}: stages of the shipped networks, and whole cores")
        for heading in (
            "LUT",
            "est.",
            "error",
            "cells",
            "est.",
            "error",
            "FF",
            "est.",
            "BRAM",
            "est.",
        ):
            table.add_column(heading, justify="right")
        for row in mine:
            table.add_row(
                row["what"],
                *(
                    text
                    for kind in ("lut", "cells")
                    for text in (
                        f"{row[kind]:,}",
                        f"{row[f'{kind}_estimated']:,}",
                        f"{error(row, kind):+.1%}",
                    )
                ),
                *(f"{row[key]:,}" for key in ("ff", "ff_estimated", "bram", "bram_estimated")),
            )
        console.print(table)
        for kind in ("lut", "cells") if name == "ice40" else ("lut",):
            words, good = verdict(mine, kind)
            passed &= good
            console.print(f"{name}, {words}", style="" if good else "red")
        wrong = [
            row["what"]
            for row in mine
            if any(row[kind] != row[f"{kind}_estimated"] for kind in ("bram", "dsp"))
        ]
        passed &= not wrong
        console.print(f"{name}: block RAMs and multipliers wrong in {len(wrong)} of {len(mine)}")
    if json_file is not None:
        Path(json_file).write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
