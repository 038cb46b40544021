"""Compare layers that pad with a constant with layers that pad with true zeros.

    python benchmarks/padding.py [--family ice40|ecp5] [--json FILE]

A constant (-1 or +1) is a bit like any other. A true zero comes with a flag for the lanes of a
tap, and makes half of them agree. Each matrix-vector unit is synthesised alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from synthesis import FAMILIES, synthesise

from xnorflow.hw.layouts import BITS, Lanes
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.rom import ROMStyle

#: MH, MW, PE and SIMD, which is the granule too: a beat is a part of one tap.
UNITS = [(32, 288, 8, 32), (16, 144, 4, 16)]


@click.command()
@click.option("--family", type=click.Choice(sorted(FAMILIES)), multiple=True)
@click.option("--json", "json_file", metavar="FILE")
def main(family: tuple[str, ...], json_file: str | None) -> None:
    """Measure both kinds of padding for the families asked for, all of them by default."""
    table = Table("family", "MH x MW", "PE x SIMD", "padding")
    for heading in ("LUT4", "FF", "BRAM", "LUT4 more", "FF more"):
        table.add_column(heading, justify="right")
    rng = np.random.default_rng(0)
    results = []
    for name in family or sorted(FAMILIES):
        for mh, mw, pe, simd in UNITS:
            weights = rng.choice(np.array([-1, 1], np.int8), (mh, mw))
            thresholds = (2 * rng.integers(-mw // 8, mw // 8, mh) + mw % 2).astype(np.int32)
            areas = []
            for padding, lanes in (("constant", BITS), ("true zero", Lanes(granule=simd))):
                unit = MatrixVectorUnit(
                    weights,
                    pe=pe,
                    simd=simd,
                    thresholds=thresholds,
                    weights_in=ROMStyle.BRAM,
                    lanes=lanes,
                )
                area = synthesise(name, unit)
                areas.append(area)
                table.add_row(
                    name,
                    f"{mh} x {mw}",
                    f"{pe} x {simd}",
                    padding,
                    f"{area.lut:,}",
                    f"{area.ff:,}",
                    str(area.bram),
                    f"{area.lut / areas[0].lut - 1:+.1%}" if area is not areas[0] else "",
                    f"{area.ff / areas[0].ff - 1:+.1%}" if area is not areas[0] else "",
                )
                results.append(
                    {"family": name, "mh": mh, "mw": mw, "pe": pe, "simd": simd}
                    | {"padding": padding}
                    | asdict(area)
                )
    Console().print(table)
    if json_file is not None:
        Path(json_file).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
