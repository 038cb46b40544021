"""Quantizers in torch: what weights and hidden activations become in the forward pass.

Every quantizer is a module with a substitute gradient (straight-through estimator; Bengio, Léonard
and Courville, 2013). Those of weights map latent weights to the layer's weights, and say in
`stored` what the file keeps; those of activations map a batch norm's outputs, and say it in
`stored` too. Sign(0) is +1 throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xnorflow.train import export
from xnorflow.train.methods import Method

__all__ = [
    "ActivationQuantizer",
    "BaseActivations",
    "BaseWeights",
    "GainWeights",
    "LevelActivations",
    "LevelWeights",
    "SignActivations",
    "SignWeights",
    "WeightQuantizer",
    "activation_quantizer",
    "weight_quantizer",
]


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


def _through(exact: Tensor, wanted: Tensor) -> Tensor:
    """Return `wanted`, with the gradient of `exact`."""
    # Not exact + (wanted - exact).detach(), which rounds.
    return _Through.apply(exact, wanted)


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exact: Tensor, wanted: Tensor) -> Tensor:
        return wanted.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class WeightQuantizer(nn.Module):
    """Latent weights (MH, ...) to a layer's weights, of the same shape."""

    def forward(self, latent: Tensor) -> Tensor:
        """Return the weights, float32 of shape (MH, ...)."""
        raise NotImplementedError

    def stored(self, latent: Tensor) -> export.Weights:
        """Return the same weights as plain arrays."""
        raise NotImplementedError


class SignWeights(WeightQuantizer):
    """``sign(W)`` (Courbariaux et al., 2016)."""

    def forward(self, latent: Tensor) -> Tensor:
        """Return the weights, each -1 or +1."""
        return _WeightSign.apply(latent)

    def stored(self, latent: Tensor) -> export.Signs:
        """Return the signs."""
        return export.Signs(_int8(_signs(latent)))


class GainWeights(WeightQuantizer):
    """``alpha * sign(W)`` with the mean of \\|W\\| as alpha.

    XNOR-Net (Rastegari et al., 2016) has an alpha for each output channel (equation 6), which
    learns as the latent weights do. The one-bit weights of DoReFa-Net (Zhou et al., 2016, equation
    8) have one for the layer.

    Parameters
    ----------
    per_channel : bool
    """

    def __init__(self, per_channel: bool) -> None:
        super().__init__()
        self.per_channel = per_channel

    def gain(self, latent: Tensor) -> Tensor:
        """Return alpha, float32 of shape (MH, 1, ...) or ()."""
        if not self.per_channel:
            return latent.abs().mean()
        return latent.abs().mean(dim=tuple(range(1, latent.ndim)), keepdim=True)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the weights, each -alpha or +alpha."""
        return self.gain(latent) * _WeightSign.apply(latent)

    def stored(self, latent: Tensor) -> export.Signs:
        """Return the signs and alpha."""
        gain = self.gain(latent).detach().numpy()
        if self.per_channel:
            gain = gain.reshape(-1)
        return export.Signs(_int8(_signs(latent)), np.array(gain, np.float32))


class LevelWeights(WeightQuantizer):
    """``2 * quantize(tanh(W) / (2 * max |tanh(W)|) + 1/2) - 1`` (Zhou et al., 2016, equation 9).

    ``quantize(r) = round((2^k - 1) * r) / (2^k - 1)``, whose gradient is the identity's; those of
    tanh and of the maximum are their own.

    Parameters
    ----------
    bits : int
        At least 2.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.steps = 2**bits - 1

    def _unit(self, latent: Tensor) -> Tensor:
        squashed = torch.tanh(latent)
        return squashed / (2 * squashed.abs().max()) + 0.5

    def forward(self, latent: Tensor) -> Tensor:
        """Return the weights, 2^bits levels from -1 to +1."""
        unit = self._unit(latent)
        return 2 * _through(unit, (unit * self.steps).round() / self.steps) - 1

    def stored(self, latent: Tensor) -> export.Levels:
        """Return the odd integers that the levels are."""
        odd = 2 * (self._unit(latent) * self.steps).round() - self.steps
        return export.Levels(odd.detach().numpy().astype(np.int16), self.bits)


class BaseWeights(WeightQuantizer):
    """``sum over m of alpha_m * sign(W - mean(W) + u_m * std(W))`` (Lin, Zhao and Pan, 2017).

    ``u_m`` are equally spaced from -1 to +1 (equation 2), 0 for a single base. Each output channel
    has the alphas of least squares, ``min |W - sum of alpha_m B_m|^2`` (equation 4), here rounded
    to multiples of a power of two, so that training sees the coefficients that the hardware has.
    The gradient is the identity's for each base (equation 6).

    Parameters
    ----------
    bases : int
    fraction_bits : int
        The step is 2^-fraction_bits of the power of two next above the layer's largest alpha.
    """

    def __init__(self, bases: int, fraction_bits: int) -> None:
        super().__init__()
        self.shifts = torch.linspace(-1, 1, bases) if bases > 1 else torch.zeros(1)
        self.fraction_bits = fraction_bits

    def bases(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signs (M, MH, ...) and the alphas (M, MH), float32, without gradients."""
        latent = latent.detach()
        each = (-1, *[1] * latent.ndim)
        centred = latent - latent.mean()
        signs = _signs(centred + self.shifts.view(each) * latent.std(correction=0))
        rows = signs.flatten(2).transpose(0, 1)
        # The normal equations; the small term shares the weight between bases that are equal.
        gram = rows @ rows.transpose(1, 2) / rows.shape[2] + 1e-4 * torch.eye(len(signs))
        aim = (rows @ latent.flatten(1)[:, :, None]) / rows.shape[2]
        alphas = torch.linalg.solve(gram, aim)[:, :, 0].T
        step = 2.0 ** (alphas.abs().max().log2().ceil() - self.fraction_bits)
        return signs, (alphas / step).round() * step

    def forward(self, latent: Tensor) -> Tensor:
        """Return the weights, sums of +-alpha."""
        signs, alphas = self.bases(latent)
        alphas = alphas.view(*alphas.shape, *[1] * (latent.ndim - 1))
        return _through(alphas.sum(0) * latent, (alphas * signs).sum(0))

    def stored(self, latent: Tensor) -> export.Bases:
        """Return the signs and the alphas."""
        signs, alphas = self.bases(latent)
        return export.Bases(_int8(signs), np.ascontiguousarray(alphas.numpy()))


class ActivationQuantizer(nn.Module):
    """A tensor of any shape to one of few values."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations, of the shape and dtype of `x`."""
        raise NotImplementedError

    def stored(self) -> export.Activation:
        """Return the quantizer as plain numbers."""
        raise NotImplementedError


class SignActivations(ActivationQuantizer):
    """``sign(x)``, with the gradient of tanh."""

    def forward(self, x: Tensor) -> Tensor:
        """Return -1 and +1."""
        return _ActivationSign.apply(x)

    def stored(self) -> export.SignActivation:
        """Return the quantizer, which has no parameters."""
        return export.SignActivation()


class LevelActivations(ActivationQuantizer):
    """``quantize(clip(x, 0, 1))`` (Zhou et al., 2016, equation 11); see `LevelWeights`.

    Parameters
    ----------
    bits : int
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.steps = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        """Return one of 2^bits levels from 0 to 1."""
        clipped = x.clamp(0, 1)
        return _through(clipped, (clipped * self.steps).round() / self.steps)

    def stored(self) -> export.LevelActivation:
        """Return the quantizer."""
        return export.LevelActivation(self.bits)


class BaseActivations(ActivationQuantizer):
    """``sum over n of beta_n * sign(x - v_n)`` with trained beta and v (Lin et al., 2017).

    A layer has one beta and one v for each base. In the forward pass the betas are multiples of
    1/8, positive, so that more never becomes less, and small, so that the levels are whole eighths
    of at most five bits.

    Parameters
    ----------
    bases : int
    """

    STEP = 1 / 8
    LARGEST_SUM = 15

    def __init__(self, bases: int) -> None:
        super().__init__()
        # The cuts of 2N equal slices of a normal distribution's middle, one sigma to each side.
        places = (2 * torch.arange(bases) + 1) / bases - 1
        self.shift = nn.Parameter(places.float())
        self.scale = nn.Parameter(torch.full((bases,), 1 / bases))
        self.most = self.LARGEST_SUM // bases

    def betas(self) -> Tensor:
        """Return the rounded betas, with a straight-through gradient."""
        whole = (self.scale.detach() / self.STEP).round().clamp(1, self.most)
        return _through(self.scale, whole * self.STEP)

    def forward(self, x: Tensor) -> Tensor:
        """Return sums of +-beta."""
        total = torch.zeros_like(x)
        for beta, shift in zip(self.betas(), self.shift, strict=True):
            total = total + (beta * _ActivationSign.apply(x - shift)).to(x.dtype)
        return total

    def stored(self) -> export.BaseActivation:
        """Return betas and shifts."""
        return export.BaseActivation(
            self.betas().detach().numpy().copy(), self.shift.detach().numpy().copy()
        )


def weight_quantizer(method: Method, first: bool, last: bool) -> WeightQuantizer:
    """Return a method's quantizer of the weights of the first, the last or another layer."""
    chosen = method.first_bits if first else None
    if chosen is None and last:
        chosen = method.last_bits
    if chosen is None and method.name == "dorefa":
        chosen = method.weight_bits
    if chosen is not None:
        return LevelWeights(chosen) if chosen > 1 else GainWeights(per_channel=False)
    if method.name == "xnor":
        return GainWeights(per_channel=True)
    if method.name == "abc":
        return BaseWeights(method.weight_bases, method.fraction_bits)
    return SignWeights()


def activation_quantizer(method: Method) -> ActivationQuantizer:
    """Return a method's quantizer of hidden activations."""
    if method.name == "dorefa":
        return LevelActivations(method.activation_bits)
    if method.name == "abc":
        return BaseActivations(method.activation_bases)
    return SignActivations()


def _signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def _int8(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy().astype(np.int8)
