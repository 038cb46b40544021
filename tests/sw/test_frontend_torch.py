"""What torch's exporters write of binarized modules, idiom by idiom, means what torch computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from qonnx_graphs import evaluate

from xnorflow.frontend import load
from xnorflow.frontend.obstacles import ModelRefused
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import predict
from xnorflow.lowering import lower

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn

FRAMES = 200


def function(forward: Callable) -> Callable:
    """Return a sign with a gradient of its own, as an autograd.Function."""

    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return forward(x)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    return Straight.apply


def detached_clip(x):
    clipped = x.clamp(-1, 1)
    return clipped + (torch.sign(x) - clipped).detach()


def detached_identity(x):
    return x + (torch.where(x >= 0, 1.0, -1.0) - x).detach()


def detached_tanh(x):
    return torch.sign(x).detach() - torch.tanh(x).detach() + torch.tanh(x)


def approximated(x):
    """The piecewise polynomial of Bi-Real Net."""
    low, middle, high = ((x < bound).float() for bound in (-1, 0, 1))
    curve = -low + (x * x + 2 * x) * (1 - low)
    curve = curve * middle + (-x * x + 2 * x) * (1 - middle)
    curve = curve * high + (1 - high)
    return torch.sign(x).detach() - curve.detach() + curve


def gain(sign: Callable) -> Callable:
    """XNOR-Net's weights: the sign times the mean magnitude of each row."""
    return lambda w: w.abs().flatten(1).mean(1).reshape(-1, *[1] * (w.dim() - 1)) * sign(w)


def bi_real(w):
    clipped = w.clamp(-1, 1)
    scale = w.abs().flatten(1).mean(1).reshape(-1, *[1] * (w.dim() - 1)).detach()
    return (scale * torch.sign(w)).detach() - clipped.detach() + clipped


SIGNS = {
    "Function of sign": function(torch.sign),
    "Function of where": function(lambda x: torch.where(x >= 0, 1.0, -1.0)),
    "Function of ge": function(lambda x: x.ge(0).to(x.dtype) * 2 - 1),
    "gt": lambda x: (x > 0).float() * 2 - 1,
    "not lt": lambda x: torch.where(~(x < 0), torch.ones_like(x), -torch.ones_like(x)),
    "ones_like": lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)),
    "long": lambda x: (x >= 0).long().float().mul(2).sub(1),
    "sign(sign + 0.1)": lambda x: x.sign().add(0.1).sign(),
    "detached clip": detached_clip,
    "detached identity": detached_identity,
    "detached tanh": detached_tanh,
    "Bi-Real Net": approximated,
}
WEIGHTS = {
    **SIGNS,
    "XNOR-Net": gain(torch.sign),
    "XNOR-Net, detached": gain(detached_clip),
    "Bi-Real Net's weights": bi_real,
}
NEVER_ZERO = "sign(sign + 0.1)"


class Perceptron(nn.Module):
    def __init__(self, sign: Callable, weight: Callable) -> None:
        super().__init__()
        self.sign, self.weight = sign, weight
        self.first, self.last = nn.Linear(20, 9, bias=False), nn.Linear(9, 4)
        self.norm = nn.BatchNorm1d(9)

    def forward(self, x):
        x = SIGNS["ones_like"](x.flatten(1))
        x = self.norm(nn.functional.linear(x, self.weight(self.first.weight)))
        x = self.sign(nn.functional.hardtanh(x))
        return nn.functional.linear(x, self.weight(self.last.weight), self.last.bias)


class Convolutional(nn.Module):
    def __init__(self, sign: Callable, weight: Callable) -> None:
        super().__init__()
        self.sign, self.weight = sign, weight
        self.first, self.second = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 6, 3, bias=False)
        self.norm, self.last_norm = nn.BatchNorm2d(5), nn.BatchNorm2d(6)

    def forward(self, x):
        conv2d = nn.functional.conv2d
        x = SIGNS["Function of where"](x)
        x = conv2d(x, self.weight(self.first.weight), self.first.bias, padding=1)
        x = nn.functional.max_pool2d(self.norm(x), 2)
        x = self.sign(nn.functional.hardtanh(x))
        x = self.last_norm(conv2d(x, self.weight(self.second.weight), padding=1))
        return nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)


SHAPES = {Perceptron: (1, 4, 5), Convolutional: (2, 6, 8)}


def drawn(kind: type, sign: str, weight: str):
    """Return a module in inference with parameters that leave no sum on a threshold."""
    torch.manual_seed(3)
    module = kind(SIGNS[sign], WEIGHTS[weight])
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(part.running_var, 0.5, 4)
    return module.eval()


def exported(module, shape: tuple[int, ...], *, dynamo: bool, batch: int | None) -> onnx.ModelProto:
    content = BytesIO()
    options: dict = {"dynamo": dynamo, "input_names": ["frames"]}
    if batch is None and dynamo:
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    elif batch is None:
        options["dynamic_axes"] = {"frames": {0: "batch"}}
    if dynamo:
        options["verbose"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(batch or 2, *shape),), content, **options)
    return onnx.load_model_from_string(content.getvalue())


def check(kind: type, sign: str, weight: str, folder: Path, *, dynamo: bool, batch: int | None):
    """Export a module, and compare its import with torch and with onnxruntime."""
    module, shape = drawn(kind, sign, weight), SHAPES[kind]
    model = exported(module, shape, dynamo=dynamo, batch=batch)
    path = folder / "net.onnx"
    onnx.save(model, path)
    network = load(path)
    frames = np.random.default_rng(2).normal(0, 1, (FRAMES, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(frames)).numpy()
    x = np.moveaxis(frames, 1, -1) if kind is Convolutional else frames
    got = predict(lower(network), x.reshape(-1, *network.input_shape))
    np.testing.assert_allclose(got.logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(got.classes, expected.argmax(axis=1))
    if batch is None:
        np.testing.assert_allclose(got.logits, evaluate(model, frames), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("kind", SHAPES)
def test_older_exporter(kind, sign, tmp_path):
    check(kind, sign, sign, tmp_path, dynamo=False, batch=None)


@pytest.mark.parametrize("weight", ["XNOR-Net", "XNOR-Net, detached", "Bi-Real Net's weights"])
@pytest.mark.parametrize("kind", SHAPES)
def test_older_exporter_of_weights_with_gains(kind, weight, tmp_path):
    check(kind, NEVER_ZERO, weight, tmp_path, dynamo=False, batch=3)


@pytest.mark.parametrize("kind", SHAPES)
def test_newer_exporter(kind, tmp_path):
    check(kind, "detached clip", "Bi-Real Net's weights", tmp_path, dynamo=True, batch=None)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("kind", SHAPES)
def test_newer_exporter_of_every_idiom(kind, weight, batch, tmp_path):
    sign = weight if weight in SIGNS else NEVER_ZERO
    check(kind, sign, weight, tmp_path, dynamo=True, batch=batch)


def test_real_valued_module_is_told_all_its_obstacles(tmp_path):
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
    )
    model = exported(module.eval(), (2, 6, 8), dynamo=False, batch=None)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelRefused) as info:
        load(tmp_path / "net.onnx")
    kinds = [obstacle.where.rpartition("(")[2] for obstacle in info.value.obstacles]
    assert kinds == ["Conv)", "Relu)", "Gemm)"]


def test_the_page_on_importing_shows_lines_that_work(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "importing.md").read_text()
    _, _, part = page.partition("**torch without Brevitas**")
    lines = part.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    variables: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(lines, variables)
    options = ImportOptions(None, Fraction(2, 255), Fraction(-1))
    network = load(tmp_path / "net.onnx", options)
    frames = np.random.default_rng(4).integers(0, 256, (FRAMES, 1, 28, 28), np.uint8)
    with torch.no_grad():
        x = torch.from_numpy(frames.astype(np.float64) / 127.5 - 1).float()
        expected = variables["model"](x).numpy()
    got = predict(lower(network), frames.reshape(-1, *network.input_shape))
    np.testing.assert_allclose(got.logits, expected, rtol=1e-4, atol=1e-4)
