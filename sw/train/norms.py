"""Batch norm in torch: plain, and with factors that are powers of two."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xnorflow.train.export import Norm

__all__ = ["ShiftNorm", "make_norm", "power_of_two", "stored_norm"]


class _PowerOfTwo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign() * 2.0 ** x.abs().clamp_min(2.0**-60).log2().round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def power_of_two(x: Tensor) -> Tensor:
    """Return ``AP2(x) = sign(x) * 2^round(log2 |x|)``, and 0 of 0, with the identity's gradient."""
    return _PowerOfTwo.apply(x)


class ShiftNorm(nn.Module):
    """Shift-based batch norm (Hubara, Courbariaux et al., 2016, algorithm 3).

    ``y = AP2(gamma) * AP2(1 / sqrt(var + eps)) * (x - mean) + beta`` where in training the variance
    is that of the algorithm, the mean of ``(x - mean) * AP2(x - mean)``: all products are shifts.

    Parameters
    ----------
    channels : int
        Along axis 1.
    eps, momentum : float
        As in torch's batch norm.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.eps, self.momentum = eps, momentum

    def factor(self, var: Tensor) -> Tensor:
        """Return what the centred inputs are multiplied by, a power of two for each channel."""
        return power_of_two(self.weight) * power_of_two((var + self.eps).rsqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, channels, ...)."""
        each = (1, -1, *[1] * (x.ndim - 2))
        mean, var = self.running_mean, self.running_var
        x = x.float()
        centred = x - mean.view(each)
        if self.training:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            mean = x.mean(axes)
            centred = x - mean.view(each)
            var = (centred * power_of_two(centred)).mean(axes)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var, self.momentum)
        return centred * self.factor(var).view(each) + self.bias.view(each)


def make_norm(kind: str, channels: int, image: bool) -> nn.BatchNorm1d | nn.BatchNorm2d | ShiftNorm:
    """Return a ``plain`` or ``shift`` batch norm."""
    if kind == "shift":
        return ShiftNorm(channels)
    return nn.BatchNorm2d(channels) if image else nn.BatchNorm1d(channels)


def stored_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d | ShiftNorm) -> Norm:
    """Return a batch norm at inference as plain arrays."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gamma: Tensor = norm.weight
    mean, var, eps = norm.running_mean, norm.running_var, norm.eps
    if isinstance(norm, ShiftNorm):
        # The root of 1 is 1: the factor is stored as it is.
        gamma, var, eps = norm.factor(var), torch.ones_like(var), 0.0
    return Norm(_array(gamma), _array(norm.bias), _array(mean), _array(var), eps)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().numpy().astype(np.float32)
