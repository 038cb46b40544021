"""Time the golden model beside onnxruntime: one thread, the same file, the same frames.

    python benchmarks/golden.py --data-dir DIR
    python benchmarks/golden.py --model models/cifar10_cnv.onnx --dataset cifar10 --data-dir DIR

Without ``--data-dir`` the 1,000 shipped digits are used, or random bytes where the model takes
none. onnxruntime runs the file with ``BipolarQuant`` written in standard operators, in float32.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Before numpy loads its linear algebra.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import click
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from xnorflow import golden
from xnorflow.datasets import Frames, load_dataset, sample_digits
from xnorflow.frontend import load
from xnorflow.lowering import lower

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3


def best_of(work: Callable[[], NDArray[np.int64]]) -> tuple[float, NDArray[np.int64]]:
    """Return the shortest of some runs in seconds, and the classes that they gave."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        classes = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), classes


def session(
    model: onnx.ModelProto, level: onnxruntime.GraphOptimizationLevel
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@click.command()
@click.option("--model", default=str(ROOT / "models" / "mnist_sfc.onnx"), show_default=True)
@click.option("--dataset", default="mnist", show_default=True)
@click.option("--data-dir", metavar="DIR", help="Folder with the data set.")
@click.option("--frames", type=int, help="Take the first N frames only.")
def main(model: str, dataset: str, data_dir: str | None, frames: int | None) -> None:
    """Time the golden model and onnxruntime on test frames."""
    # The tests' helpers are not installed.
    sys.path.append(str(ROOT / "tests" / "support"))
    from random_networks import without_bipolar_quant

    start = time.perf_counter()
    lowered = lower(load(model))
    lowering = time.perf_counter() - start
    chosen = _frames(dataset, data_dir, lowered.input.shape)
    chosen = chosen.first(frames or len(chosen))
    x = chosen.x.astype(np.float32)
    levels = onnxruntime.GraphOptimizationLevel
    plain = without_bipolar_quant(onnx.load(model))
    default, as_written = (
        session(plain, level) for level in (levels.ORT_ENABLE_ALL, levels.ORT_DISABLE_ALL)
    )
    name = default.get_inputs()[0].name
    runs: dict[str, Callable[[], NDArray[np.int64]]] = {
        "golden model, packed bits": lambda: golden.predict(lowered, chosen.x).classes,
        "onnxruntime, optimised": lambda: default.run(None, {name: x})[0].argmax(axis=1),
        "onnxruntime, as written": lambda: as_written.run(None, {name: x})[0].argmax(axis=1),
    }
    table = Table(
        "one thread",
        *("seconds", "frames/s", "accuracy", "classes as golden"),
        title=f"{Path(model).name}, {len(x):,} frames",
    )
    golden_classes = runs["golden model, packed bits"]()
    for title, work in runs.items():
        seconds, classes = best_of(work)
        table.add_row(
            title,
            f"{seconds:.3f}",
            f"{len(x) / seconds:,.0f}",
            "-" if chosen.y is None else f"{np.mean(classes == chosen.y):.2%}",
            f"{np.sum(classes == golden_classes):,}",
        )
    console = Console()
    console.print(table)
    console.print(f"Reading and lowering took {lowering:.2f} s; times are the best of {REPEATS}.")


def _frames(dataset: str, data_dir: str | None, shape: tuple[int, ...]) -> Frames:
    if data_dir is not None:
        return load_dataset(dataset, "test", data_dir)
    digits = sample_digits()
    if digits.x.shape[1:] == shape:
        return digits
    return Frames(np.random.default_rng(0).integers(0, 256, (500, *shape), np.uint8))


if __name__ == "__main__":
    main()
