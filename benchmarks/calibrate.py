"""Synthesise a grid of configurations and fit the prices of the cost model to it.

    python benchmarks/calibrate.py [--jobs N] [--fit-only]

What `benchmarks/data/cost.json` already holds of the same hardware is not measured again, so that
an interrupted run can be taken up. The prices are written to `hw/prices.py`.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from configurations import calibration, cores, held_out, parts_of
from measurements import Measurement, Measurements
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from xnorflow.cost import FAMILIES

PRICES = Path(__file__).parent.parent / "hw" / "prices.py"

#: What has carry cells: a price for each, and one for each bit.
ADDERS = {
    "adder": 1.0,
    "fixed adder": 1.0,
    "accumulator": 2.0,
    "comparator": 0.0,
    "maximum": 0.0,
    "score adder": 1.0,
    "pool adder": 1.0,
}

#: What the structure suggests for the others: LUTs, flip-flops and, on iCE40, cells beside LUTs.
STRUCTURE: dict[str, tuple[float, float, float]] = {
    # Shared.
    "register": (0, 1, 0),
    "bare register": (0, 1, 1),
    "select bit": (1, 0, 0),
    "distributed RAM": (6, 0, 0),
    "memory output bit": (0, 1, 1),
    "block RAM bit": (0, 0, 0),
    "old word": (3, 3, 3),
    "old word bit": (1, 2, 2),
    "stored word": (1, 0, 0),
    "stored bit": (0.5, 0, 0),
    # Matrix-vector units.
    "unit": (10, 0, 5),
    "fold bit": (2, 1.5, 0),
    "replay": (10, 2, 5),
    "replay address bit": (2, 1, 1),
    "replay counter bit": (2, 1, 1),
    "skid bit": (1, 0, 0),
    "gate": (1, 0, 0),
    "leaf of 1": (1, 0, 0),
    "leaf of 2": (2, 0, 0),
    "leaf of 3": (4, 0, 0),
    "leaf of 4": (6, 0, 0),
    "leaf of 5": (8, 0, 0),
    "leaf of 6": (9, 0, 0),
    "fixed leaf of 1": (0, 0, 1),
    "fixed leaf of 2": (2, 0, 0),
    "fixed leaf of 3": (2, 0, 0),
    "fixed leaf of 4": (4, 0, 0),
    "fixed leaf of 5": (6, 0, 0),
    "fixed leaf of 6": (7, 0, 0),
    "leaf LUT": (1, 0, 0),
    "shared LUT": (1, 0, 0),
    "chain bit": (1, 0, 0),
    "chain start": (0, 0, 1),
    "start bit": (1, 0, 0),
    "shared count LUT": (1, 0, 0),
    "comparator LUT": (1, 0, 0),
    "gated lane": (1, 0, 0),
    "padded sum bit": (0, 0, 0),
    "ROM LUT": (1, 0, 0),
    "inverted bit": (0.5, 0, 0),
    "product bit": (1.5, 0, 0),
    "shifted addend bit": (1, 0, 0),
    # Windows.
    "window": (30, 5, 5),
    "window address bit": (1, 1, 0),
    "window step bit": (0.5, 0.2, 0),
    "window counter bit": (2, 1, 0),
    "window pixel bit": (4, 3, 1),
    "window padding": (6, 4, 2),
    "window padding bit": (0.5, 0, 0),
    "parallel window": (5, 1, 0),
    "parallel counter bit": (2, 1, 0),
    "parallel address bit": (1, 1, 0),
    "mask": (2, 1, 0),
    "masked bit": (1, 0, 0),
    # Pools.
    "pool": (5, 1, 0),
    "pool counter bit": (2, 1, 0),
    "dropped edge": (1, 0, 0),
    "or bit": (1, 0, 0),
    "first element bit": (1, 0, 0),
    "latest word bit": (0.5, 0, 0),
    "near word bit": (0, 0, 0),
    "far bit": (0.5, 0, 0),
    # Converters, FIFOs, arg-max, stages of channels.
    "splitter": (1, 0, 0),
    "splitter bit": (1, 0, 0),
    "splitter counter bit": (2, 1, 0),
    "collector": (3, 1, 0),
    "collector counter bit": (2, 1, 0),
    "fifo": (5, 1, 0),
    "fifo address bit": (2, 1, 1),
    "fifo counter bit": (2, 1, 1),
    "argmax": (5, 2, 0),
    "argmax counter bit": (2, 1, 0),
    "winner bit": (1, 0, 0),
    "resizer": (2, 0, 0),
    "resizer counter bit": (2, 1, 0),
    "resized bit": (1, 0, 0),
    "link": (400, 200, 100),
    "link index bit": (3, 2, 0),
    "link score bit": (1, 0, 0),
    "channel stage": (2, 0, 0),
    "channel counter bit": (2, 1, 0),
}

#: How much a deviation from the structure's price, of one or of its own size, weighs beside a
#: relative error; of five values the best in a fivefold cross-validation on the grid.
TRUST = 0.05

#: Prices that are known.
KNOWN = ("register", "bare register")

#: Estimates below this are as good as their error in LUTs, not in per cent.
SMALL = 60


def structure(family: str) -> dict[str, NDArray[np.float64]]:
    """Return LUTs, flip-flops, carries and cells that the structure suggests for every part."""
    carry_bits = FAMILIES[family].carry_bits
    prices = {}
    for part, (lut, ff, beside) in STRUCTURE.items():
        prices[part] = np.array([lut, ff, 0, lut + beside])
    for part in ("chain bit", "chain start"):
        prices[part][2] = 1 / carry_bits
    for part, bit in ADDERS.items():
        # A chain of ECP5 takes four LUTs more, one of iCE40 a cell or two.
        ends = 4.0 if carry_bits > 1 else 0.0
        bit = max(bit, 1.0) if carry_bits > 1 else bit
        prices[part] = np.array([ends, 0, 0, ends + 1.5])
        prices[f"{part} bit"] = np.array([bit, 0, 1 / carry_bits, max(bit, 1.0)])
        prices[f"short {part} bit"] = np.array([1.5, 0, 0, 1.5])
    return prices


def nonnegative(
    a: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the x >= 0 of least ``|a @ x - y| ** 2``, by coordinate descent from `x` on."""
    h, g, x = a.T @ a, a.T @ y, x.copy()
    for _ in range(5000):
        before = x.copy()
        for j in range(len(x)):
            x[j] = max(0.0, x[j] + (g[j] - h[j] @ x) / h[j, j])
        if np.abs(x - before).max() < 1e-4:
            break
    return x


def fit(family: str, measured: list[Measurement]) -> dict[str, NDArray[np.float64]]:
    """Return the price of every part: LUTs, flip-flops, carries and cells."""
    prior = structure(family)
    names = list(prior)
    lists = [parts_of(FAMILIES[family], one.config) for one in measured]
    counts = np.array([[parts.get(name, 0.0) for name in names] for parts in lists])
    prices = np.zeros((len(names), 4))
    fitted = np.array([name not in KNOWN for name in names])
    for column, kind in enumerate(("lut", "ff", "carry", "cells")):
        wanted = np.array([getattr(one.area, kind) for one in measured], float)
        start = np.array([prior[name][column] for name in names])
        prices[:, column] = start
        wanted -= counts[:, ~fitted] @ start[~fitted]
        weights = 1 / np.maximum([getattr(one.area, kind) for one in measured], SMALL)
        free = start[fitted]
        trust = TRUST / np.maximum(free, 1)
        a = np.vstack([counts[:, fitted] * weights[:, None], np.diag(trust)])
        prices[fitted, column] = nonnegative(a, np.append(wanted * weights, trust * free), free)
    if FAMILIES[family].carry_bits > 1:
        prices[:, 3] = prices[:, 0]
    return dict(zip(names, prices.round(2), strict=True))


def write(prices: dict[str, dict[str, NDArray[np.float64]]]) -> None:
    """Write the prices as a module."""
    lines = [
        '"""Prices of parts, written by ``benchmarks/calibrate.py``.',
        "",
        "LUTs, flip-flops, carries and cells that a part takes; see `xnorflow.hw.cost`.",
        '"""',
        "",
        '__all__ = ["PRICES"]',
        "",
        "PRICES: dict[str, dict[str, tuple[float, float, float, float]]] = {",
    ]
    for family, table in prices.items():
        lines.append(f'    "{family}": {{')
        for part, price in table.items():
            lines.append(f'        "{part}": ({", ".join(f"{value:g}" for value in price)}),')
        lines.append("    },")
    PRICES.write_text("\n".join([*lines, "}", ""]))


@click.command()
@click.option("--jobs", default=1, show_default=True, help="Tools that run side by side.")
@click.option("--fit-only", is_flag=True, help="Measure nothing.")
def main(jobs: int, fit_only: bool) -> None:
    """Measure what is missing of the grid and of the held-out configurations, and fit."""
    console, measurements = Console(), Measurements()
    wanted = [
        (family, config)
        for family in sorted(FAMILIES)
        for config in (*calibration(family), *held_out(family))
    ]
    if not fit_only:
        measurements.measure(wanted, jobs, lambda one: console.print(one.family, one.config))
        measurements.keep(
            [*wanted, *((family, core) for family in FAMILIES for core in cores(family))]
        )
    prices = {}
    for family in sorted(FAMILIES):
        measured = measurements.of(family, calibration(family))
        prices[family] = fit(family, measured)
        table = Table(f"{family}, {len(measured)} configurations", "LUT", "FF", "carry", "cells")
        for part, price in prices[family].items():
            table.add_row(part, *(f"{value:g}" for value in price))
        console.print(table)
    write(prices)


if __name__ == "__main__":
    main()
