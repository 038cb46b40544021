"""``xnorflow predict``: run the golden model."""

from __future__ import annotations

import click
from rich.console import Console

from xnorflow.cli.common import (
    check_writable,
    data_option,
    divisor_option,
    frames_option,
    import_options,
    json_option,
    load_lowered,
    read_frames,
    write_json,
)
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import predict_quantized

__all__ = ["predict_command"]


@click.command("predict")
@click.argument("model")
@import_options
@data_option
@divisor_option
@frames_option(None)
@json_option
def predict_command(
    model: str,
    options: ImportOptions,
    verify_import: bool | None,
    data: str | None,
    divide_by: float | None,
    frames: int | None,
    json_file: str | None,
) -> None:
    """Classify frames with the golden model: the integers that the hardware computes."""
    check_writable(json_file, "--json")
    _, lowered = load_lowered(model, options, verify_import)
    chosen = read_frames(data, lowered, frames, divide_by)
    prediction = predict_quantized(lowered, chosen.quantized)
    classes = prediction.classes
    accuracy = None if chosen.y is None else float((classes == chosen.y).mean())
    console = Console()
    shown = " ".join(map(str, classes[:20].tolist()))
    console.print(f"classes: {shown}{' ...' if len(classes) > 20 else ''}", highlight=False)
    console.print(
        f"{len(classes):,} frames"
        + ("" if accuracy is None else f", accuracy {accuracy:.2%}")
        + (" (no labels in the data)" if accuracy is None else ""),
        highlight=False,
    )
    write_json(
        json_file,
        {
            "frames": len(classes),
            "accuracy": accuracy,
            "predictions": classes.tolist(),
            "logits": prediction.logits.tolist(),
            "accumulators": prediction.accumulators.tolist(),
        },
    )
