"""The binarized multi-layer perceptron in torch.

Binarized networks after Courbariaux et al. ("Binarized neural networks", 2016): weights and hidden
activations are signs in the forward pass, with a substitute gradient. Sign(0) is +1 throughout.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnorflow.train.export import HiddenLayer, OutputLayer, TrainedMlp
from xnorflow.train.recipes import Recipe

__all__ = ["BinarizedMlp"]

_IMAGE = (28, 28, 1)


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
        return torch.where(x >= 0, 1.0, -1.0)

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
        return F.linear(x, _WeightSign.apply(self.latent))

    def signs(self) -> np.ndarray:
        """Return the binary weights, int8 of shape (outputs, inputs)."""
        return np.where(self.latent.detach().numpy() >= 0, 1, -1).astype(np.int8)


class BinarizedMlp(nn.Module):
    """A perceptron with binary inputs, weights and hidden activations.

    The last layer has one gain and, per class, a bias of whole accumulator steps, so that the
    class is an integer comparison.

    Parameters
    ----------
    recipe : Recipe
        Widths, pixel threshold and gain.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        widths = recipe.widths
        self.layers = [BinaryLinear(inputs, outputs) for inputs, outputs in pairwise(widths)]
        self.norms = [nn.BatchNorm1d(width) for width in recipe.hidden]
        # Lists keep the types; torch finds the parameters through this one.
        self.registered = nn.ModuleList([*self.layers, *self.norms])
        self.gain = recipe.gain
        self.bias = nn.Parameter(torch.zeros(widths[-1]))

    def steps(self) -> Tensor:
        """Return the bias in whole accumulator steps, with a straight-through gradient."""
        exact = self.bias / self.gain
        return exact + (exact.round() - exact).detach()

    def forward(self, pixels: Tensor) -> Tensor:
        """Map raw pixels (N, 784), 0..255, to logits (N, 10)."""
        x = torch.where(pixels >= self.recipe.threshold, 1.0, -1.0)
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = _ActivationSign.apply(norm(layer(x)))
        return self.gain * (self.layers[-1](x) + self.steps())

    def clip(self) -> None:
        """Keep the latent weights where gradients pass."""
        with torch.no_grad():
            for layer in self.layers:
                layer.latent.clamp_(-1, 1)

    def trained(self) -> TrainedMlp:
        """Return the parameters as plain arrays."""
        hidden = []
        for layer, norm in zip(self.layers, self.norms, strict=False):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            gamma, beta, mean, var = (n.detach().numpy().astype(np.float32) for n in numbers)
            hidden.append(HiddenLayer(layer.signs(), gamma, beta, mean, var, norm.eps))
        bias = (self.gain * self.steps()).detach().numpy().astype(np.float32)
        output = OutputLayer(self.layers[-1].signs(), self.gain, bias)
        recipe = self.recipe
        return TrainedMlp(recipe.name, _IMAGE, recipe.threshold, tuple(hidden), output)
