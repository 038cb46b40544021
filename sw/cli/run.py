"""``xnorflow run``: send frames to a board and compare its answers with the golden model."""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np
from rich.console import Console

from xnorflow.cli.common import (
    check_writable,
    data_option,
    frames_option,
    import_options,
    json_option,
    load_lowered,
    read_frames,
    write_json,
)
from xnorflow.cli.steps import Steps
from xnorflow.errors import UserError, WorkFailed
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import predict_quantized
from xnorflow.host import Device

__all__ = ["run_command"]


@click.command("run")
@click.argument("model")
@import_options
@click.option(
    "--port", required=True, metavar="PORT", help="The board's serial port, e.g. /dev/ttyUSB1."
)
@click.option(
    "--baud",
    type=int,
    default=1_000_000,
    show_default=True,
    metavar="B",
    help="Bit rate that the bitstream was built for; `xnorflow boards` tells it.",
)
@data_option
@frames_option(None)
@json_option
def run_command(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    port: str,
    baud: int,
    data: str | None,
    frames: int | None,
    json_file: str | None,
) -> None:
    """Run frames on a board that holds MODEL and compare every score with the golden model."""
    if baud < 1:
        raise UserError(f"--baud is {baud} but must be positive; `xnorflow boards` tells the rates")
    check_writable(json_file, "--json")
    started = time.perf_counter()
    _, lowered = load_lowered(model, options, verify_import)
    chosen = read_frames(data, lowered, frames)
    expected = predict_quantized(lowered, chosen.quantized)
    total = len(chosen)
    console = Console()
    with Device(port, baud) as device:
        identity = device.check(lowered.digest())
        with Steps(console) as steps:
            steps.progress("run", f"{total:,} frames on {port}", 0, total)
            run = device.run(
                lowered.input.to_bits(chosen.quantized),
                lambda done: steps.progress("run", f"{total:,} frames on {port}", done, total),
            )
    differ = (run.classes != expected.classes) | (run.scores != expected.scores).any(axis=1)
    mismatches = int(np.count_nonzero(differ))
    accuracy = None if chosen.y is None else float((run.classes == chosen.y).mean())
    result: dict[str, Any] = {
        "engine": "device",
        "frames": total,
        "mismatches": mismatches,
        "accuracy": accuracy,
        "seconds": time.perf_counter() - started,
        "fps_measured": total / run.seconds if run.seconds else None,
        "resent": run.resent,
        "trouble": run.trouble.as_json(),
        "port": port,
        "baud": baud,
        "clock_mhz": identity.clock_hz / 1e6,
        "digest": identity.digest,
        "predictions": run.classes.tolist(),
    }

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    line(
        f"{total:,} frames on {port}: {mismatches} mismatches"
        + ("" if accuracy is None else f", accuracy {accuracy:.2%}")
    )
    line(f"{total / max(run.seconds, 1e-9):,.0f} frames/s over the wire in {run.seconds:.2f} s")
    if run.trouble:
        line(f"mended: {'; '.join(run.trouble.sentences())}")
    write_json(json_file, result)
    if mismatches:
        first = int(np.flatnonzero(differ)[0])
        raise WorkFailed(
            f"{mismatches} of {total} frames differ from the golden model, first frame {first}; "
            "the bitstream misses its timing or is not the one built from the model"
        )
