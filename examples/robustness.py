"""Accuracy of a binary network and of its real-valued twin on disturbed test images.

    python examples/robustness.py --data-dir DIR --epochs 3 --output robustness

Trains both alike: one recipe, once with signs, once with real weights and tanh for activations.
Disturbs the first test images by Gaussian noise, by salt and pepper, and by the fast gradient sign
method (Goodfellow, Shlens and Szegedy, 2015), each network by its own gradient; that of a sign is
the straight-through one. Writes OUTPUT.csv and OUTPUT.html. Needs xnorflow[train].
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from torch import Tensor

from xnorflow.datasets import Frames, load_dataset
from xnorflow.report.plots import COLOURS
from xnorflow.train.loop import train
from xnorflow.train.net import BinarizedNet
from xnorflow.train.quantizers import ActivationQuantizer, WeightQuantizer
from xnorflow.train.recipes import RECIPES

Disturbance = Callable[[BinarizedNet, Tensor, Tensor, float], Tensor]


class RealWeights(WeightQuantizer):
    """The latent weights as they are."""

    def forward(self, latent: Tensor) -> Tensor:
        """Return them."""
        return latent


class TanhActivations(ActivationQuantizer):
    """``tanh(x)``, whose gradient the signs of the binary network have too."""

    def forward(self, x: Tensor) -> Tensor:
        """Return numbers from -1 to 1."""
        return torch.tanh(x)


class RealNet(BinarizedNet):
    """The twin: the same layers with real numbers."""

    def weight_quantizer(self, first: bool, last: bool) -> WeightQuantizer:
        """Return the identity."""
        return RealWeights()

    def activation_quantizer(self) -> ActivationQuantizer:
        """Return tanh."""
        return TanhActivations()


def gaussian(net: BinarizedNet, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Add noise of a standard deviation of `size` of the range of pixels."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return x + 255 * size * noise


def salt_and_pepper(net: BinarizedNet, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Make a share `size` of the pixels black or white."""
    drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    return torch.where(drawn < size, torch.where(drawn < size / 2, 0.0, 255.0), x)


def gradient_sign(net: BinarizedNet, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Move every pixel by `size` of the range, to where the loss grows."""
    x = x.clone().requires_grad_()
    F.cross_entropy(net(x), y).backward()
    assert x.grad is not None
    return x.detach() + 255 * size * x.grad.sign()


KINDS: dict[str, tuple[Disturbance, tuple[float, ...]]] = {
    "Gaussian noise": (gaussian, (0.05, 0.1, 0.2, 0.3)),
    "salt and pepper": (salt_and_pepper, (0.02, 0.05, 0.1, 0.2)),
    "fast gradient sign": (gradient_sign, (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)),
}


def measure(net: BinarizedNet, test: Frames, kind: str, size: float) -> float:
    """Return the accuracy on disturbed frames, rounded and clipped to bytes as a camera's are."""
    assert test.y is not None
    x = torch.from_numpy(np.ascontiguousarray(test.x.transpose(0, 3, 1, 2))).float()
    y = torch.from_numpy(test.y)
    if size:
        x = KINDS[kind][0](net, x, y, size).round().clamp(0, 255)
    with torch.inference_mode():
        return float((net(x).argmax(1) == y).float().mean())


@click.command()
@click.option("--recipe", default="fashion_bnn", show_default=True, help="Of the method bnn.")
@click.option("--data-dir", metavar="DIR", help="Folder with the data set.")
@click.option("--epochs", default=5, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--frames", default=2000, show_default=True, help="Test images.")
@click.option("--output", default="robustness", show_default=True)
def main(
    recipe: str, data_dir: str | None, epochs: int, seed: int, frames: int, output: str
) -> None:
    """Train both networks, disturb the test images, write a table and a plot."""
    chosen = RECIPES[recipe]
    data = load_dataset(chosen.dataset, "train", data_dir, print)
    test = load_dataset(chosen.dataset, "test", data_dir, print).first(frames)
    rows = []
    for name, make in (("binary", BinarizedNet), ("real", RealNet)):
        net = train(chosen, data, epochs, seed, lambda epoch: print(epoch), make=make).net
        for kind, (_, sizes) in KINDS.items():
            for size in (0.0, *sizes):
                rows.append((kind, f"{size:.4f}", name, measure(net, test, kind, size)))
                print(*rows[-1], flush=True)
    with Path(f"{output}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("disturbance", "size", "network", "accuracy"), *rows])
    figure = go.Figure(
        [
            go.Scatter(
                x=[float(row[1]) for row in rows if (row[0], row[2]) == (kind, name)],
                y=[100 * row[3] for row in rows if (row[0], row[2]) == (kind, name)],
                name=f"{kind}, {name}",
                line={"color": colour, "dash": dash},
            )
            for kind, colour in zip(KINDS, COLOURS, strict=False)
            for name, dash in (("binary", "solid"), ("real", "dot"))
        ]
    )
    figure.update_layout(
        template="plotly_white",
        title={"text": f"{chosen.dataset}, {chosen.topology}"},
        xaxis={"title": {"text": "size of the disturbance, of the range of pixels or of pixels"}},
        yaxis={"title": {"text": "accuracy, %"}},
    )
    figure.write_html(f"{output}.html")


if __name__ == "__main__":
    main()
