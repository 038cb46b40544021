"""Binarized networks in torch: convolutions, dense layers, batch norm and quantizers.

What weights and hidden activations are is left to :mod:`xnorflow.train.quantizers`.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnorflow.train.export import PIXEL_CENTER, HiddenLayer, OutputLayer, TrainedNetwork
from xnorflow.train.norms import make_norm, stored_norm
from xnorflow.train.quantizers import (
    ActivationQuantizer,
    WeightQuantizer,
    activation_quantizer,
    weight_quantizer,
)
from xnorflow.train.recipes import Conv, Dense, Recipe

__all__ = ["BinarizedNet", "QuantizedConv", "QuantizedLinear"]


class QuantizedLinear(nn.Module):
    """``y = quantizer(latent) @ x`` with trainable latent weights in -1..1."""

    def __init__(self, inputs: int, outputs: int, quantizer: WeightQuantizer) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.empty(outputs, inputs).uniform_(-1, 1) * 0.1)
        self.quantizer = quantizer

    def forward(self, x: Tensor, magnitudes: Tensor | None = None) -> Tensor:
        """Map (N, inputs) to sums of shape (N, outputs), times the mean of `magnitudes`."""
        y = F.linear(x.flatten(1), self.quantizer(self.latent))
        return y if magnitudes is None else y * magnitudes.flatten(1).mean(1, keepdim=True)


class QuantizedConv(nn.Module):
    """Convolution with quantized latent weights in -1..1, and max-pooling of its sums."""

    def __init__(self, inputs: int, layer: Conv, quantizer: WeightQuantizer) -> None:
        super().__init__()
        self.layer = layer
        shape = (layer.channels, inputs, layer.kernel, layer.kernel)
        latent = torch.empty(shape).uniform_(-1, 1) * 0.1
        # On a CPU several times as fast as channels first.
        self.latent = nn.Parameter(latent.to(memory_format=torch.channels_last))
        self.quantizer = quantizer

    def forward(self, x: Tensor, magnitudes: Tensor | None = None) -> Tensor:
        """Map (N, inputs, H, W) to (N, channels, H', W').

        The sums are multiplied by XNOR-Net's K of `magnitudes`, of the shape of `x`.
        """
        kernel, padding = self.layer.kernel, self.layer.padding
        y = F.conv2d(x, self.quantizer(self.latent), padding=padding)
        if magnitudes is not None:
            pixels = magnitudes.mean(1, keepdim=True)
            y = y * F.avg_pool2d(pixels, kernel, stride=1, padding=padding)
        return F.max_pool2d(y, self.layer.pool) if self.layer.pool > 1 else y


class BinarizedNet(nn.Module):
    """A network with quantized weights and hidden activations; the first inputs may be pixels.

    The last layer has one gain and, per class, a bias. Where its sums are of signs, the bias is in
    whole accumulator steps, so that the class is an integer comparison; elsewhere it is any number,
    which leaves no ties for rounding to break.

    Parameters
    ----------
    recipe : Recipe
        Layers, method, pixel threshold and gain.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        shapes = recipe.shapes
        specs = (*recipe.hidden, Dense(*shapes[-1]))
        self.layers: list[QuantizedLinear | QuantizedConv] = []
        for index, (spec, before) in enumerate(zip(specs, shapes, strict=False)):
            quantizer = self.weight_quantizer(index == 0, index == len(recipe.hidden))
            self.layers.append(
                QuantizedConv(before[-1], spec, quantizer)
                if isinstance(spec, Conv)
                else QuantizedLinear(prod(before), spec.neurons, quantizer)
            )
        self.norms = [
            make_norm(recipe.batch_norm, shape[-1], isinstance(spec, Conv))
            for spec, shape in zip(recipe.hidden, shapes[1:], strict=False)
        ]
        self.activations = [self.activation_quantizer() for _ in recipe.hidden]
        # Lists keep the types; torch finds the parameters through this one.
        self.registered = nn.ModuleList([*self.layers, *self.norms, *self.activations])
        self.gain = recipe.gain
        self.bias = nn.Parameter(torch.zeros(*shapes[-1]))

    def weight_quantizer(self, first: bool, last: bool) -> WeightQuantizer:
        """Return what makes the weights of the first, the last or another layer."""
        return weight_quantizer(self.recipe.method, first, last)

    def activation_quantizer(self) -> ActivationQuantizer:
        """Return what makes the hidden activations of a layer."""
        return activation_quantizer(self.recipe.method)

    def offset(self) -> Tensor:
        """Return what is added to the last layer's sums, with a straight-through gradient."""
        exact = self.bias / self.gain
        method = self.recipe.method
        if method.name != "bnn" or method.last_bits is not None:
            return exact
        return exact + (exact.round() - exact).detach()

    def forward(self, pixels: Tensor) -> Tensor:
        """Map raw pixels (N, C, H, W), 0..255, to logits (N, 10)."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        if isinstance(self.layers[0], QuantizedLinear):
            # Flattened in the order of the frame, (H, W, C), as the exported file does.
            pixels = pixels.permute(0, 2, 3, 1)
        if self.recipe.threshold is None:
            x = (pixels - PIXEL_CENTER) / PIXEL_CENTER
        else:
            x = torch.where(pixels >= self.recipe.threshold, 1.0, -1.0)
        # Evaluation stays in float32, in which all sums of signs are exact.
        fast = self.training and self.recipe.bfloat16
        with torch.autocast("cpu", torch.bfloat16) if fast else nullcontext():
            sums, magnitudes = x, None
            for spec, layer, norm, activation in zip(
                self.recipe.hidden, self.layers, self.norms, self.activations, strict=False
            ):
                before = sums
                sums = layer(x, magnitudes)
                if isinstance(spec, Conv) and spec.shortcut:
                    sums = sums + before
                latent = norm(sums)
                x = activation(latent)
                magnitudes = latent.abs() if self.recipe.method.pixel_gains else None
        return self.gain * (self.layers[-1](x.float()) + self.offset())

    def clip(self) -> None:
        """Keep the latent weights where gradients pass."""
        with torch.no_grad():
            for layer in self.layers:
                layer.latent.clamp_(-1, 1)

    def trained(self) -> TrainedNetwork:
        """Return the parameters as plain arrays."""
        recipe = self.recipe
        hidden = []
        for index, (spec, layer, norm, activation) in enumerate(
            zip(recipe.hidden, self.layers, self.norms, self.activations, strict=False)
        ):
            weights = layer.quantizer.stored(layer.latent)
            conv = spec if isinstance(spec, Conv) else Conv(spec.neurons)
            hidden.append(
                HiddenLayer(
                    weights,
                    stored_norm(norm),
                    activation.stored(),
                    conv.padding,
                    conv.pool,
                    conv.shortcut,
                    recipe.method.pixel_gains and index > 0,
                )
            )
        last = self.layers[-1]
        bias = (self.gain * self.offset()).detach().numpy().astype(np.float32)
        output = OutputLayer(last.quantizer.stored(last.latent), self.gain, bias)
        return TrainedNetwork(
            recipe.name, recipe.image_shape, recipe.threshold, tuple(hidden), output
        )
