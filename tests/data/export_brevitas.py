"""How the Brevitas exports beside this script were made; see README.md.

pip install torch==2.13.0 brevitas==0.13.4 onnxoptimizer onnxscript
python export_brevitas.py
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import onnx
import torch
from brevitas.export import export_qonnx
from brevitas.inject.enum import RestrictValueType
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
)
from torch import nn

FRAME = (1, 6, 6)
IMAGE = (2, 9, 8)
WIDTHS = (36, 24, 16, 10)
FOLDER = Path(__file__).parent


class View(nn.Module):
    """Frames as vectors, for any batch size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], -1)


def quantizer() -> nn.Module:
    return qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)


def linear(inputs: int, outputs: int, bias: bool) -> nn.Module:
    return qnn.QuantLinear(
        inputs, outputs, bias=bias, weight_quant=SignedBinaryWeightPerTensorConst
    )


def norm(kind: type[nn.Module], channels: int, variance: float) -> nn.Module:
    """Draw a batch norm that looks trained, negative scales included."""
    module = kind(channels)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias, std=0.5)
    module.running_mean.normal_(0, variance**0.5)
    module.running_var.uniform_(0.3 * variance, 2 * variance)
    return module


def conv(inputs: int, outputs: int, kernel: int, **options: object) -> nn.Module:
    weights = SignedBinaryWeightPerTensorConst
    return qnn.QuantConv2d(inputs, outputs, kernel, weight_quant=weights, **options)


def pixels() -> nn.Module:
    """8 bits from -1 to 127/128, as in FINN's network for CIFAR-10."""
    return qnn.QuantIdentity(
        act_quant=Int8ActPerTensorFixedPoint,
        scaling_impl_type="const",
        max_val=127 / 128,
        min_val=-1.0,
        restrict_scaling_type=RestrictValueType.POWER_OF_TWO,
    )


def pooled_cnn() -> nn.Module:
    """8-bit pixels, a true zero as padding, both orders of pool and sign, a dense layer."""
    layers: dict[str, nn.Module] = OrderedDict(
        pixels=pixels(),
        conv1=conv(2, 8, 3, padding=1, bias=False),
        pool1=nn.MaxPool2d(2),
        norm1=norm(nn.BatchNorm2d, 8, 0.05),
        sign1=quantizer(),
        conv2=conv(8, 12, 3, padding=1, bias=False),
        norm2=norm(nn.BatchNorm2d, 12, 0.01),
        sign2=quantizer(),
        pool2=nn.MaxPool2d(2),
        flatten=View(),
        fc1=linear(12 * 2 * 2, 16, bias=False),
        norm3=norm(nn.BatchNorm1d, 16, 0.01),
        sign3=quantizer(),
        fc2=linear(16, 10, bias=True),
    )
    return nn.Sequential(layers).eval()


def averaged_cnn() -> nn.Module:
    """Binary pixels, strides, dilation, groups, and a global average as the end."""
    layers: dict[str, nn.Module] = OrderedDict(
        pixels=quantizer(),
        conv1=conv(2, 8, (3, 2), stride=2, padding=(1, 0), bias=True),
        sign1=quantizer(),
        conv2=conv(8, 8, 3, dilation=(1, 2), groups=2, padding=(0, 2), bias=False),
        norm2=norm(nn.BatchNorm2d, 8, 0.01),
        sign2=quantizer(),
        conv3=conv(8, 10, 1, bias=False),
        norm3=norm(nn.BatchNorm2d, 10, 0.01),
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    return nn.Sequential(layers).eval()


def perceptron() -> nn.Module:
    """Draw an untrained perceptron whose batch norms look trained, negative scales included."""
    layers: list[nn.Module] = [View(), quantizer()]
    for inputs, outputs in pairwise(WIDTHS[:-1]):
        module = nn.BatchNorm1d(outputs)
        nn.init.normal_(module.weight)
        nn.init.normal_(module.bias, std=0.5)
        module.running_mean.normal_(0, 0.3)
        module.running_var.uniform_(0.05, 0.3)
        layers += [nn.Dropout(0.2), linear(inputs, outputs, bias=False), module, quantizer()]
    return nn.Sequential(*layers, linear(*WIDTHS[-2:], bias=True)).eval()


def export(model: nn.Module, name: str, frame: tuple[int, ...], **options: object) -> None:
    """Export, and leave only what the network is: no stack traces, all in one file."""
    path = FOLDER / name
    export_qonnx(model, args=(torch.zeros(2, *frame),), export_path=str(path), **options)
    proto = onnx.load(path)
    proto.graph.doc_string = ""
    del proto.metadata_props[:], proto.graph.metadata_props[:]
    values = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    for item in [*proto.graph.node, *proto.graph.initializer, *values]:
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.save(proto, path)
    path.with_suffix(".onnx.data").unlink(missing_ok=True)


def save(model: nn.Module, name: str, key: str, steps: int, count: int, shape: tuple) -> None:
    """Save frames, in units of ``1 / steps``, the logits of Brevitas and both exports."""
    units = torch.randint(-steps, steps + 1, (count, *shape), dtype=torch.int16)
    with torch.no_grad():
        logits = model(units / steps)
    logits = getattr(logits, "value", logits).numpy()
    arrays = {key: units.numpy() if steps > 127 else units.to(torch.int8).numpy()}
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays, logits=logits)
    frames = torch.export.Dim("N")
    export(model, f"{name}_dynamo.onnx", shape, dynamic_shapes=({0: frames},))
    free = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}}
    export(model, f"{name}_legacy.onnx", shape, dynamo=False, opset_version=13, **free)


def main() -> None:
    torch.manual_seed(1)
    save(perceptron(), "brevitas_mlp", "eighths", 8, 64, FRAME)
    torch.manual_seed(2)
    save(pooled_cnn(), "brevitas_pooled_cnn", "units", 256, 24, IMAGE)
    torch.manual_seed(3)
    save(averaged_cnn(), "brevitas_averaged_cnn", "units", 256, 24, IMAGE)


if __name__ == "__main__":
    main()
