"""Binarized networks in torch: convolutions, dense layers, batch norm and sign.

Binarized networks after Courbariaux et al. ("Binarized neural networks", 2016): weights and hidden
activations are signs in the forward pass, with a substitute gradient. Sign(0) is +1 throughout.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnorflow.train.export import PIXEL_CENTER, HiddenLayer, OutputLayer, TrainedNetwork
from xnorflow.train.recipes import Conv, Recipe

__all__ = ["BinarizedNet"]


class _WeightSign(torch.autograd.Function):
    """Sign whose gradient is the identity's; the latent weights are kept in -1..1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _ActivationSign(torch.autograd.Function):
    """Sign with the gradient of tanh, which on validation did better than the clipped identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * (1 - torch.tanh(x) ** 2)


class BinaryLinear(nn.Module):
    """``y = sign(latent) @ x`` with trainable latent weights in -1..1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.empty(outputs, inputs).uniform_(-1, 1) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs) to integers of shape (N, outputs)."""
        return F.linear(x.flatten(1), _WeightSign.apply(self.latent))

    def signs(self) -> np.ndarray:
        """Return the binary weights, int8 of shape (outputs, inputs)."""
        return _signs(self.latent)


class BinaryConv(nn.Module):
    """Convolution with the signs of latent weights in -1..1, and max-pooling of its sums."""

    def __init__(self, inputs: int, layer: Conv) -> None:
        super().__init__()
        self.layer = layer
        shape = (layer.channels, inputs, layer.kernel, layer.kernel)
        latent = torch.empty(shape).uniform_(-1, 1) * 0.1
        # On a CPU several times as fast as channels first.
        self.latent = nn.Parameter(latent.to(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, channels, H', W')."""
        y = F.conv2d(x, _WeightSign.apply(self.latent), padding=self.layer.padding)
        return F.max_pool2d(y, self.layer.pool) if self.layer.pool > 1 else y

    def signs(self) -> np.ndarray:
        """Return the binary weights, int8 of shape (channels, inputs, K, K)."""
        return _signs(self.latent)


def _signs(latent: Tensor) -> np.ndarray:
    return np.where(latent.detach().numpy() >= 0, 1, -1).astype(np.int8)


class BinarizedNet(nn.Module):
    """A network with binary weights and hidden activations; the first inputs may be pixels.

    The last layer has one gain and, per class, a bias of whole accumulator steps, so that the
    class is an integer comparison.

    Parameters
    ----------
    recipe : Recipe
        Layers, pixel threshold and gain.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        shapes = recipe.shapes
        self.layers: list[BinaryLinear | BinaryConv] = [
            BinaryConv(before[-1], layer)
            if isinstance(layer, Conv)
            else BinaryLinear(prod(before), layer.neurons)
            for layer, before in zip(recipe.hidden, shapes, strict=False)
        ]
        self.layers.append(BinaryLinear(prod(shapes[-2]), *shapes[-1]))
        self.norms = [
            nn.BatchNorm2d(layer.channels)
            if isinstance(layer, Conv)
            else nn.BatchNorm1d(layer.neurons)
            for layer in recipe.hidden
        ]
        # Lists keep the types; torch finds the parameters through this one.
        self.registered = nn.ModuleList([*self.layers, *self.norms])
        self.gain = recipe.gain
        self.bias = nn.Parameter(torch.zeros(*shapes[-1]))

    def steps(self) -> Tensor:
        """Return the bias in whole accumulator steps, with a straight-through gradient."""
        exact = self.bias / self.gain
        return exact + (exact.round() - exact).detach()

    def forward(self, pixels: Tensor) -> Tensor:
        """Map raw pixels (N, C, H, W), 0..255, to logits (N, 10)."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        if isinstance(self.layers[0], BinaryLinear):
            # Flattened in the order of the frame, (H, W, C), as the exported file does.
            pixels = pixels.permute(0, 2, 3, 1)
        if self.recipe.threshold is None:
            x = (pixels - PIXEL_CENTER) / PIXEL_CENTER
        else:
            x = torch.where(pixels >= self.recipe.threshold, 1.0, -1.0)
        # Evaluation stays in float32, in which all sums are exact.
        fast = self.training and self.recipe.bfloat16
        with torch.autocast("cpu", torch.bfloat16) if fast else nullcontext():
            for layer, norm in zip(self.layers, self.norms, strict=False):
                x = _ActivationSign.apply(norm(layer(x)))
        return self.gain * (self.layers[-1](x.float()) + self.steps())

    def clip(self) -> None:
        """Keep the latent weights where gradients pass."""
        with torch.no_grad():
            for layer in self.layers:
                layer.latent.clamp_(-1, 1)

    def trained(self) -> TrainedNetwork:
        """Return the parameters as plain arrays."""
        hidden = []
        for layer, norm in zip(self.layers, self.norms, strict=False):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            gamma, beta, mean, var = (n.detach().numpy().astype(np.float32) for n in numbers)
            padding, pool = (
                (layer.layer.padding, layer.layer.pool) if isinstance(layer, BinaryConv) else (0, 1)
            )
            hidden.append(
                HiddenLayer(layer.signs(), gamma, beta, mean, var, norm.eps, padding, pool)
            )
        bias = (self.gain * self.steps()).detach().numpy().astype(np.float32)
        output = OutputLayer(self.layers[-1].signs(), self.gain, bias)
        recipe = self.recipe
        return TrainedNetwork(
            recipe.name, recipe.image_shape, recipe.threshold, tuple(hidden), output
        )
