"""What trained networks mean, and what several tests of training share."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from click.testing import CliRunner
from numpy.lib.stride_tricks import sliding_window_view
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from xnorflow.cli.train import train_command
from xnorflow.datasets import sample_digits
from xnorflow.train.export import (
    Activation,
    LevelActivation,
    Levels,
    SignActivation,
    Signs,
    TrainedNetwork,
    Weights,
)


def as_floats(weights: Weights) -> np.ndarray:
    """Return what weights are, in float64."""
    if isinstance(weights, Signs):
        scale = weights.scale.astype(np.float64)
        return weights.signs * scale.reshape(*scale.shape, *[1] * (weights.signs.ndim - scale.ndim))
    if isinstance(weights, Levels):
        return weights.odd / (2**weights.bits - 1)
    return np.einsum("mo...,mo->o...", weights.signs, weights.alphas.astype(np.float64))


def activated(activation: Activation, x: np.ndarray) -> np.ndarray:
    """Return what an activation makes of numbers, in float64."""
    if isinstance(activation, SignActivation):
        return np.where(x >= 0, 1.0, -1.0)
    if isinstance(activation, LevelActivation):
        steps = 2**activation.bits - 1
        return np.round(np.clip(x, 0, 1) * steps) / steps
    pairs = zip(activation.betas.astype(np.float64), activation.shifts, strict=True)
    return np.sum([beta * np.where(x >= shift, 1.0, -1.0) for beta, shift in pairs], axis=0)


def numpy_logits(model: TrainedNetwork, x: np.ndarray) -> np.ndarray:
    """Compute the meaning of `TrainedNetwork` in float64, written independently of the exporter."""
    a = x.astype(np.float64)
    a = (a - 128) / 128 if model.threshold is None else np.where(a >= model.threshold, 1.0, -1.0)
    if any(len(layer.weights.shape) == 4 for layer in model.hidden):
        a = a.transpose(0, 3, 1, 2)
    sums = normed = np.zeros(())
    for layer in model.hidden:
        before, weights = sums, as_floats(layer.weights)
        if weights.ndim == 4:
            kernel, pad = weights.shape[2], layer.padding
            framed = np.pad(a, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
            windows = sliding_window_view(framed, (kernel, kernel), (2, 3))
            sums = np.einsum("nchwij,ocij->nohw", windows, weights)
            if layer.gains:
                pixels = np.abs(normed).mean(1, keepdims=True)
                framed = np.pad(pixels, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
                sums = sums * sliding_window_view(framed, (kernel, kernel), (2, 3)).mean((4, 5))
            pool = layer.pool
            pooled = sliding_window_view(sums, (pool, pool), (2, 3))[:, :, ::pool, ::pool]
            sums = pooled.max((4, 5))
        else:
            sums = a.reshape(len(a), -1) @ weights.T
            if layer.gains:
                sums = sums * np.abs(normed).reshape(len(a), -1).mean(1, keepdims=True)
        if layer.shortcut:
            sums = sums + before
        each, norm = (-1, *[1] * (sums.ndim - 2)), layer.norm
        var = norm.var.astype(np.float64).reshape(each) + norm.eps
        normed = (sums - norm.mean.reshape(each)) / np.sqrt(var)
        normed = normed * norm.gamma.reshape(each) + norm.beta.reshape(each)
        a = activated(layer.activation, normed)
    flat = a.reshape(len(a), -1)
    return model.output.gain * (flat @ as_floats(model.output.weights).T) + model.output.bias


def channels_first(x: np.ndarray) -> Any:
    """Return frames (N, H, W, C) as the tensor that the trained network takes."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)).astype(np.float32))


def qonnx_logits(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    model = ModelWrapper(proto)
    model.set_tensor_shape("image", list(x.shape))
    model = model.transform(InferShapes())
    logits: np.ndarray = execute_onnx(model, {"image": x.astype(np.float32)})["logits"]
    return logits


def run(*arguments: str) -> None:
    """Run the command and let its errors through, as the command line's entry point does."""
    CliRunner().invoke(train_command, arguments, standalone_mode=False, catch_exceptions=False)


def write_sample_as_idx(folder: Path) -> None:
    digits = sample_digits()
    assert digits.y is not None
    for part in ("train", "t10k"):
        images = struct.pack(">4I", 0x803, 1000, 28, 28) + digits.x.tobytes()
        labels = struct.pack(">2I", 0x801, 1000) + digits.y.astype(np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))
