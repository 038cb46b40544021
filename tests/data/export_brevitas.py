"""How the Brevitas exports beside this script were made; see README.md.

pip install torch==2.13.0 brevitas==0.13.4 onnxoptimizer onnxscript
python export_brevitas.py
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import onnx
import torch
from brevitas.export import export_qonnx
from brevitas.quant import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from torch import nn

FRAME = (1, 6, 6)
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


def perceptron() -> nn.Module:
    """Draw an untrained perceptron whose batch norms look trained, negative scales included."""
    layers: list[nn.Module] = [View(), quantizer()]
    for inputs, outputs in pairwise(WIDTHS[:-1]):
        norm = nn.BatchNorm1d(outputs)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias, std=0.5)
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.05, 0.3)
        layers += [nn.Dropout(0.2), linear(inputs, outputs, bias=False), norm, quantizer()]
    return nn.Sequential(*layers, linear(*WIDTHS[-2:], bias=True)).eval()


def export(model: nn.Module, name: str, **options: object) -> None:
    """Export, and leave only what the network is: no stack traces, all in one file."""
    path = FOLDER / name
    export_qonnx(model, args=(torch.zeros(2, *FRAME),), export_path=str(path), **options)
    proto = onnx.load(path)
    proto.graph.doc_string = ""
    del proto.metadata_props[:], proto.graph.metadata_props[:]
    values = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    for item in [*proto.graph.node, *proto.graph.initializer, *values]:
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.save(proto, path)
    path.with_suffix(".onnx.data").unlink(missing_ok=True)


def main() -> None:
    torch.manual_seed(1)
    model = perceptron()
    eighths = torch.randint(-8, 9, (64, *FRAME), dtype=torch.int8)
    with torch.no_grad():
        logits = model(eighths / 8)
    logits = getattr(logits, "value", logits).numpy()
    np.savez_compressed(FOLDER / "brevitas_mlp.npz", eighths=eighths.numpy(), logits=logits)
    frames = torch.export.Dim("N")
    export(model, "brevitas_mlp_dynamo.onnx", dynamic_shapes=({0: frames},))
    free = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}}
    export(model, "brevitas_mlp_legacy.onnx", dynamo=False, opset_version=13, **free)


if __name__ == "__main__":
    main()
