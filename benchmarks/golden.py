"""Time the golden model beside onnxruntime: one thread, the same file, the same digits.

    python benchmarks/golden.py --data-dir DIR

Without ``--data-dir`` the 1,000 shipped digits are used. onnxruntime runs the file with
``BipolarQuant`` written in standard operators, in float32.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from xnorflow import golden
from xnorflow.datasets import load_mnist, sample_digits
from xnorflow.frontend import load
from xnorflow.lowering import lower

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 7


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
@click.option("--data-dir", metavar="DIR", help="Folder with MNIST's four idx*-ubyte.gz files.")
def main(model: str, data_dir: str | None) -> None:
    """Time the golden model and onnxruntime on test digits."""
    # The tests' helpers are not installed.
    sys.path.append(str(ROOT / "tests" / "support"))
    from random_networks import without_bipolar_quant

    digits = load_mnist("test", data_dir) if data_dir else sample_digits()
    start = time.perf_counter()
    lowered = lower(load(model))
    lowering = time.perf_counter() - start
    x = digits.x.astype(np.float32)
    levels = onnxruntime.GraphOptimizationLevel
    plain = without_bipolar_quant(onnx.load(model))
    default, as_written = (
        session(plain, level) for level in (levels.ORT_ENABLE_ALL, levels.ORT_DISABLE_ALL)
    )
    name = default.get_inputs()[0].name
    runs: dict[str, Callable[[], NDArray[np.int64]]] = {
        "golden model, packed bits": lambda: golden.predict(lowered, digits.x).classes,
        "onnxruntime, optimised": lambda: default.run(None, {name: x})[0].argmax(axis=1),
        "onnxruntime, as written": lambda: as_written.run(None, {name: x})[0].argmax(axis=1),
    }
    widths = [lowered.layers[0].mw, *(layer.mh for layer in lowered.layers)]
    table = Table(
        "one thread",
        *("seconds", "frames/s", "accuracy", "classes as golden"),
        title=f"{Path(model).name}, {'-'.join(map(str, widths))}, {len(x):,} digits",
    )
    golden_classes = runs["golden model, packed bits"]()
    for title, work in runs.items():
        seconds, classes = best_of(work)
        table.add_row(
            title,
            f"{seconds:.3f}",
            f"{len(x) / seconds:,.0f}",
            f"{np.mean(classes == digits.y):.2%}",
            f"{np.sum(classes == golden_classes):,}",
        )
    console = Console()
    console.print(table)
    console.print(f"Reading and lowering took {lowering:.2f} s; times are the best of {REPEATS}.")


if __name__ == "__main__":
    main()
