"""Load live Brevitas modules with xnorflow, and compare the two; needs both in one environment.

    pip install . torch brevitas onnxoptimizer
    python tests/interop/live_models.py

Prints a line for each check, and ends with status 1 at the first that fails.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "data"))

import export_brevitas  # noqa: E402  (networks that look trained, of every kind of layer)

import xnorflow  # noqa: E402

FRAMES = 1000

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "perceptron": (export_brevitas.perceptron, export_brevitas.FRAME, 8),
    "pooled_cnn": (export_brevitas.pooled_cnn, export_brevitas.IMAGE, 256),
    "averaged_cnn": (export_brevitas.averaged_cnn, export_brevitas.IMAGE, 256),
}
"""Module, frame, and steps between two whole numbers of a frame's values."""


def check(claim: str, holds: bool) -> None:
    """Print a claim; end here if it does not hold."""
    print(f"{'ok' if holds else 'FAILED'}: {claim}", flush=True)
    if not holds:
        sys.exit(1)


def draw(name: str) -> tuple[nn.Module, tuple[int, ...], torch.Tensor]:
    """Return a module in training mode, its frame, and frames."""
    build, shape, steps = CASES[name]
    torch.manual_seed(1)
    module = build()
    frames = torch.randint(-steps, steps + 1, (FRAMES, *shape)) / steps
    return module.train(), shape, frames


def says(module: nn.Module, frames: torch.Tensor) -> np.ndarray:
    """Return Brevitas' logits."""
    with torch.no_grad():
        logits = module.eval()(frames)
    return getattr(logits, "value", logits).numpy()


def channels_last(network: xnorflow.network.Network, frames: torch.Tensor) -> np.ndarray:
    """Return frames as the network takes them."""
    x = frames.numpy()
    return x if network.input_shape == x.shape[1:] else x.transpose(0, 2, 3, 1)


def compare(name: str) -> None:
    """Load a module; compare what xnorflow and Brevitas say, and the module before and after."""
    module, shape, frames = draw(name)
    modes = [part.training for part in module.modules()]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    network = xnorflow.load(module, input_shape=shape, name=name)
    after = module.state_dict()
    check(
        f"{name}: the module is left as it was",
        modes == [part.training for part in module.modules()]
        and all(torch.equal(after[key], value) for key, value in before.items()),
    )
    logits = says(module, frames)
    prediction = xnorflow.predict(network, channels_last(network, frames))
    differ = int((prediction.classes != logits.argmax(axis=1)).sum())
    check(f"{name}: {differ} of {FRAMES} classes differ from Brevitas'", differ == 0)
    worst = float(np.abs(prediction.logits - logits).max())
    check(f"{name}: logits differ by at most {worst:.1e}", worst < 1e-4)


def simulate(name: str) -> None:
    """Send frames through the hardware."""
    module, shape, frames = draw(name)
    network = xnorflow.load(module, input_shape=shape)
    result = xnorflow.simulate(network, channels_last(network, frames[:3]), layers=True)
    check(f"{name}: {result.mismatches} of 3 simulated frames differ", result.mismatches == 0)
    same = np.array_equal(result.classes, says(module, frames[:3]).argmax(axis=1))
    check(f"{name}: the hardware gives Brevitas' classes", same)


def page() -> None:
    """Run the page's Brevitas code."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    exec(next(piece for piece in code if "import QuantIdentity" in piece), scope)
    network = scope["network"]
    check("docs/python.md: the Brevitas module is loaded", network.classes == 10)


def failure() -> None:
    """Let the exporter fail; the module must still work."""
    module, shape, frames = draw("perceptron")
    expected = says(module, frames)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(self.module(x))

    try:
        xnorflow.load(Odd(), input_shape=shape)
        sentence = ""
    except xnorflow.UserError as error:
        sentence = str(error)
    check(f"refused: {sentence}", sentence.startswith("Odd: torch cannot export the module"))
    check("a module works after a refusal", np.array_equal(says(module, frames), expected))
    network = xnorflow.load(module, input_shape=shape)
    check("and can be loaded", network.classes == expected.shape[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in CASES:
            compare(name)
        simulate("pooled_cnn")
        page()
        failure()
        check("no file is left behind", not os.listdir(folder))
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
