"""Time the golden model beside onnxruntime: one thread, the same file, the same frames.

    python benchmarks/golden.py --data-dir DIR
    python benchmarks/golden.py --model models/cifar10_cnv.onnx --dataset cifar10 --data-dir DIR
    python benchmarks/golden.py --cnv

Without ``--data-dir`` the 1,000 shipped digits are used, or random bytes where the model takes
none. onnxruntime runs the file with ``BipolarQuant`` written in standard operators, in float32.

``--cnv`` takes random weights, thresholds and frames in the topology of CNV, without any file or
lowering; onnxruntime then computes the same integers in float32, where all of them are exact, and
all scores must be equal.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before numpy loads its linear algebra.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import click
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from xnorflow import golden
from xnorflow.datasets import Frames, load_dataset, sample_digits
from xnorflow.frontend import load
from xnorflow.lowered import (
    InputQuantizer,
    LoweredLayer,
    LoweredNetwork,
    LoweredOutput,
    LoweredPool,
    LoweredStage,
    Window,
)
from xnorflow.lowering import lower

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3
CNV = (64, 64, "pool", 128, 128, "pool", 256, 256)
"""Channels of its 3x3 convolutions, between pools of 2x2."""
CNV_DENSE = (512, 512, 10)


def best_of(work: Callable[[], NDArray]) -> tuple[float, NDArray]:
    """Return the shortest of some runs in seconds, and what they gave."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


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
@click.option("--frames", type=click.IntRange(min=1), help="Take the first N frames only.")
@click.option("--cnv", is_flag=True, help="Take random weights in the topology of CNV.")
def main(model: str, dataset: str, data_dir: str | None, frames: int | None, cnv: bool) -> None:
    """Time the golden model and onnxruntime on test frames."""
    if cnv:
        time_cnv(frames or 500)
        return
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


def time_cnv(frames: int) -> None:
    """Time random weights in the topology of CNV; fail unless all scores are equal."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (frames, 32, 32, 3), np.uint8)
    lowered = random_cnv(rng, x[:8])
    images = x.transpose(0, 3, 1, 2).astype(np.float32)
    run = session(float_model(lowered), onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    ours, scores = best_of(lambda: golden.predict(lowered, x).scores)
    theirs, floats = best_of(lambda: run.run(None, {"input": images})[0])
    table = Table("one thread", "seconds", "images/s", title=f"random CNV, {frames:,} frames")
    for title, seconds in (("golden model, packed bits", ours), ("onnxruntime, float32", theirs)):
        table.add_row(title, f"{seconds:.3f}", f"{frames / seconds:,.0f}")
    console = Console()
    console.print(table)
    differing = int(np.any(scores != floats, axis=1).sum())
    if differing:
        raise click.ClickException(f"the scores of {differing} of {frames} frames differ")
    console.print(f"All {scores.size:,} scores are equal; times are the best of {REPEATS}.")


def random_cnv(rng: np.random.Generator, x: NDArray[np.uint8]) -> LoweredNetwork:
    """Return CNV with random weights; thresholds are the medians on the frames `x`."""
    steps = np.arange(1, 256, dtype=np.float32)[:, None]
    quantizer = InputQuantizer((32, 32, 3), steps)
    stages: list[LoweredStage] = []
    shape: tuple[int, ...] = quantizer.shape

    def network() -> LoweredNetwork:
        size = int(np.prod(stages[-1].o_shape))
        ones, zeros = np.ones(size, np.int64), np.zeros(size, np.int64)
        output = LoweredOutput(ones, zeros, ones.astype(float), zeros.astype(float))
        return LoweredNetwork("cnv", quantizer, tuple(stages), output)

    for size in (*CNV, *CNV_DENSE):
        index = len(stages)
        if isinstance(size, str):
            height, width, channels = shape
            pad = np.zeros(channels, np.uint16)
            window = Window((height, width, channels), (2, 2), (2, 2), pad=pad)
            stages.append(LoweredPool(f"pool{index}", "or", window, 0, 1))
        else:
            conv = index < len(CNV)
            mw = 9 * shape[2] if conv else int(np.prod(shape))
            weights = rng.choice(np.array([-1, 1], np.int8), (size, mw))
            window = Window((shape[0], shape[1], shape[2]), (3, 3)) if conv else None
            levels = 1 if index else quantizer.levels
            layer = LoweredLayer(f"layer{index}", weights, None, window, levels=levels)
            stages.append(layer)
            if index < len(CNV) + len(CNV_DENSE) - 1:
                frames = golden.quantize(network(), x)
                seen = golden.activations(network(), frames)[-1].reshape(-1, size)
                middle = np.median(seen, axis=0).astype(np.int32)
                # Accumulators of bits are as even or odd as their number.
                fitting = middle if levels > 1 else middle - (middle - mw) % 2
                stages[-1] = LoweredLayer(layer.name, weights, fitting, window, levels=levels)
        shape = stages[-1].o_shape
    return network()


def float_model(lowered: LoweredNetwork) -> onnx.ModelProto:
    """Write convolutions, pools and dense layers in float32; images are (N, C, H, W)."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    tensor = "input"

    def add(op: str, *inputs: str | NDArray, **attributes: Any) -> str:
        names = []
        for value in inputs:
            if not isinstance(value, str):
                name = f"constant{len(constants)}"
                constants.append(numpy_helper.from_array(value, name))
                value = name
            names.append(value)
        output = f"tensor{len(nodes)}"
        nodes.append(helper.make_node(op, names, [output], **attributes))
        return output

    one = np.array(1, np.float32)
    shape = lowered.input.shape
    for stage in lowered.stages:
        if isinstance(stage, LoweredPool):
            kernel, strides = stage.window.kernel, stage.window.stride
            tensor = add("MaxPool", tensor, kernel_shape=kernel, strides=strides)
        elif isinstance(stage, LoweredLayer):
            weights = stage.weights.astype(np.float32)
            if stage.window:
                cube = weights.reshape(stage.mh, *stage.window.kernel, -1).transpose(0, 3, 1, 2)
                tensor = add("Conv", tensor, np.ascontiguousarray(cube))
            else:
                if len(shape) == 3:
                    tensor = add("Transpose", tensor, perm=(0, 2, 3, 1))
                    tensor = add("Flatten", tensor)
                tensor = add("MatMul", tensor, np.ascontiguousarray(weights.T))
            if stage.thresholds is not None:
                columns = (-1, 1, 1) if stage.window else (-1,)
                limits = stage.thresholds.astype(np.float32).reshape(columns)
                tensor = add("Where", add("GreaterOrEqual", tensor, limits), one, -one)
        shape = stage.o_shape
    graph = helper.make_graph(
        nodes,
        "cnv",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["N", lowered.classes])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _frames(dataset: str, data_dir: str | None, shape: tuple[int, ...]) -> Frames:
    if data_dir is not None:
        return load_dataset(dataset, "test", data_dir)
    digits = sample_digits()
    if digits.x.shape[1:] == shape:
        return digits
    return Frames(np.random.default_rng(0).integers(0, 256, (500, *shape), np.uint8))


if __name__ == "__main__":
    main()
