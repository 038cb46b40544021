"""Build, export and run Brevitas and torch networks: the samples that ``test_brevitas.py`` reads.

Run with the Python of an environment that has ``brevitas-requirements.txt``::

    python brevitas_models.py FOLDER [CASE ...]

For every case FOLDER then holds ``CASE.EXPORTER.onnx`` for each of its exporters:

- ``torchscript``: the older exporter, with a free batch size;
- ``dynamo``: the newer one, with a batch of 1, as in most people's code; it folds the batch norms
  of a torch network into the weights;
- ``free``: the newer one with a free batch size;
- ``opset9`` and ``opset13``: the older one with those operators;
- ``old``: a file as Brevitas wrote them in 2020, with weights of -1 and +1 behind ``MatMul``.

``CASE.json`` holds ``exporters``, ``options`` (import options), ``obstacles`` (where no one-bit
hardware can have the network: words in each of the reasons for which it has to be refused, in
order; else empty).

``CASE.npz``, unless it has to be refused, holds ``x`` (N, ...), the frames as the module takes
them; ``classes`` (N,); ``logits`` (N, classes); ``accumulators`` (N, classes), the last layer's
dot products in integers, summed over all pixels where a mean follows; ``slopes`` (classes,), the
signs of the scales behind them; ``margin``, the distance of the closest call: the least magnitude
other than 0 that a sign was taken of, or distance from the border of a level, in standard
deviations.

All parameters are random, with a seed for each case; some latent weights are exactly 0. Decisions
of floating point and of exact arithmetic are the same as long as nothing is nearly a tie. Exact
ties are only those of integers, of which both know which way they go: the sign of 0 is +1, and
among equal scores the lowest class wins. Where they may happen, scales are 1: with Brevitas' 0.1,
sums that are equal differ in floating point, by the order of the additions.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import time
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import onnx
import torch
from brevitas.core.function_wrapper import TensorClamp
from brevitas.core.quant import BinaryQuant, ClampedBinaryQuant
from brevitas.export import export_qonnx
from brevitas.inject.enum import RestrictValueType
from brevitas.quant import (
    Int4WeightPerTensorFloatDecoupled,
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryWeightPerTensorConst,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from brevitas_examples.bnn_pynq.models import model_with_cfg
from brevitas_examples.bnn_pynq.models.common import CommonActQuant, CommonWeightQuant
from brevitas_examples.bnn_pynq.models.tensor_norm import TensorNorm
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional

FRAMES = 1000
FEWEST_CLASSES = 5
ATTEMPTS = 8
SMALLEST_MARGIN = 5e-6
"""In standard deviations; float32 sums of a few hundred terms are good to about 1e-6."""
SMALLEST_LEAD = 1e-6
"""Of a class over the next, in parts of the largest logit."""

IMAGE = (2, 12, 11)
BOTH = ("torchscript", "dynamo")


class TooClose(RuntimeError):
    """A network that a comparison cannot do with."""


@dataclass(frozen=True)
class Case:
    """A network and what is to be fed to it.

    Attributes
    ----------
    build : callable
        Returns the module.
    shape : tuple of int
        One frame, as the module takes it.
    frames : str
        ``reals`` of a normal distribution, ``halves`` (multiples of 1/256 from -1.25 to 1.25, on
        which a quantizer in steps of 1/128 has ties), ``unit`` (bytes / 255) or ``bytes``.
    exporters : tuple of str
        See above.
    options : dict
        Import options.
    obstacles : tuple of str
        Words in each of the reasons for which the network has to be refused.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (40,)
    frames: str = "reals"
    exporters: tuple[str, ...] = ("torchscript",)
    options: dict[str, int] = field(default_factory=dict)
    obstacles: tuple[str, ...] = ()


# Quantizers


class LearnedAct(SignedBinaryActPerTensorConst):
    """An activation with a scale that is trained."""

    scaling_impl_type = "parameter"
    scaling_init = 0.7


class UnitWeight(CommonWeightQuant):
    """FINN's weights: scale 1."""

    bit_width = 1


class UnitAct(CommonActQuant):
    """FINN's activations: scale 1."""

    bit_width = 1


class ChannelWeight(SignedBinaryWeightPerTensorConst):
    """Weights with the mean magnitude of each neuron as its scale, as in XNOR-Net.

    The usual clamp is in place, and would change that mean with every pass.
    """

    tensor_clamp_impl = TensorClamp
    scaling_per_output_channel = True
    scaling_impl_type = "stats"
    scaling_stats_op = "ave"


class LearnedChannelWeight(ChannelWeight):
    """Weights with a scale for each neuron that is trained."""

    scaling_impl_type = "parameter_from_stats"


class LearnedWeight(SignedBinaryWeightPerTensorConst):
    """Weights with one scale that is trained."""

    scaling_impl_type = "parameter"
    scaling_init = 0.3


PIXELS = {"scaling_impl_type": "const", "restrict_scaling_type": RestrictValueType.POWER_OF_TWO}


def signed_pixels() -> nn.Module:
    """8 bits from -1 to 127/128, as in FINN's network for CIFAR-10."""
    return qnn.QuantIdentity(
        act_quant=Int8ActPerTensorFixedPoint, min_val=-1.0, max_val=127 / 128, **PIXELS
    )


def unsigned_pixels() -> nn.Module:
    """8 bits from 0 to 255/256."""
    return qnn.QuantIdentity(act_quant=Uint8ActPerTensorFixedPoint, max_val=255 / 256, **PIXELS)


def sign(quantizer: type = SignedBinaryActPerTensorConst, **options: object) -> nn.Module:
    """Return an activation of one bit."""
    return qnn.QuantIdentity(act_quant=quantizer, **options)


def linear(
    inputs: int,
    outputs: int,
    quantizer: type = SignedBinaryWeightPerTensorConst,
    bias: bool = False,
    **options: object,
) -> nn.Module:
    """Return a dense layer of one-bit weights."""
    return qnn.QuantLinear(inputs, outputs, bias=bias, weight_quant=quantizer, **options)


def conv(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 3,
    quantizer: type = SignedBinaryWeightPerTensorConst,
    bias: bool = False,
    **options: object,
) -> nn.Module:
    """Return a convolution of one-bit weights."""
    return qnn.QuantConv2d(inputs, outputs, kernel, bias=bias, weight_quant=quantizer, **options)


class Scaled(nn.Module):
    """``(x / divisor - mean) / std``, channel by channel."""

    def __init__(self, divisor: float, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.divisor = divisor
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x / self.divisor - self.mean) / self.std


class Residual(nn.Module):
    """Adds what a shortcut gives to what other steps give."""

    def __init__(self, inner: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.inner, self.shortcut = inner, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.shortcut(x)


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class View(nn.Module):
    """Frames as vectors, the way of older code."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], -1)


# Brevitas networks


def chain(**layers: nn.Module) -> nn.Module:
    """Return layers one behind the other, with their names."""
    return nn.Sequential(OrderedDict(layers))


def mlp(
    weight: type = SignedBinaryWeightPerTensorConst,
    act: type = SignedBinaryActPerTensorConst,
    first: nn.Module | None = None,
    last: nn.Module | None = None,
    bias: bool = False,
    **options: object,
) -> nn.Module:
    """Return three dense layers on 40 inputs; `options` go into the quantizers."""
    return chain(
        flatten=nn.Flatten(),
        first=first or sign(act, **options),
        fc1=linear(40, 33, weight, bias),
        norm1=nn.BatchNorm1d(33),
        sign1=sign(act, **options),
        fc2=linear(33, 25, weight, bias),
        norm2=nn.BatchNorm1d(25),
        sign2=sign(act, **options),
        fc3=linear(25, 10, weight, bias),
        norm3=last or nn.BatchNorm1d(10),
    )


def without_norms() -> nn.Module:
    """Return a network of sums of odd numbers of bits, which are never 0."""
    return chain(
        first=sign(UnitAct),
        fc1=linear(41, 33, UnitWeight),
        sign1=sign(UnitAct),
        fc2=linear(33, 25, UnitWeight),
        sign2=sign(UnitAct),
        fc3=linear(25, 10, UnitWeight),
    )


def ties() -> nn.Module:
    """Return a network of sums of even numbers of bits, of which many are 0."""
    return chain(
        first=sign(UnitAct),
        fc1=linear(40, 32, UnitWeight),
        sign1=sign(UnitAct),
        fc2=linear(32, 24, UnitWeight),
        sign2=sign(UnitAct),
        fc3=linear(24, 10, UnitWeight),
    )


def hard_tanh() -> nn.Module:
    """Return a network of the layers that older Brevitas had, with dropout and a softmax."""

    def activation() -> nn.Module:
        return qnn.QuantHardTanh(act_quant=SignedBinaryActPerTensorConst, min_val=-1.0, max_val=1.0)

    return chain(
        view=View(),
        first=activation(),
        drop1=nn.Dropout(0.2),
        fc1=linear(40, 33, bias=True),
        norm1=nn.BatchNorm1d(33, eps=1e-4),
        sign1=activation(),
        drop2=nn.Dropout(0.2),
        fc2=linear(33, 10, bias=True),
        norm2=nn.BatchNorm1d(10),
        softmax=nn.LogSoftmax(dim=1),
    )


def quant_tensors() -> nn.Module:
    """Return a network whose layers hand on scale and bit width with their values."""
    return chain(
        first=sign(return_quant_tensor=True),
        fc1=linear(40, 33, return_quant_tensor=False),
        norm1=nn.BatchNorm1d(33),
        sign1=sign(return_quant_tensor=True),
        fc2=linear(33, 10, bias=True),
    )


def sequences() -> nn.Module:
    """Return a network with 1-D batch norms on sequences, of one value too."""
    return chain(
        first=sign(),
        conv1=conv(3, 8, (1, 3), padding=(0, 1)),
        squeeze=Lambda(lambda x: x.squeeze(2)),
        norm1=nn.BatchNorm1d(8),
        sign1=sign(),
        flatten=nn.Flatten(),
        fc2=linear(8 * 15, 25),
        sequence2=Lambda(lambda x: x.unsqueeze(2)),
        norm2=nn.BatchNorm1d(25),
        vector2=Lambda(lambda x: x.squeeze(2)),
        sign2=sign(),
        fc3=linear(25, 10),
        norm3=nn.BatchNorm1d(10),
    )


def cnn(
    *middle: nn.Module,
    first: nn.Module | None = None,
    stem: dict[str, object] | None = None,
    head: bool = True,
    shape: tuple[int, ...] = IMAGE,
    weight: type = SignedBinaryWeightPerTensorConst,
    act: type = SignedBinaryActPerTensorConst,
    **options: object,
) -> nn.Module:
    """Return two convolutions, the second with `options`, and a dense layer.

    Parameters
    ----------
    *middle : Module
        What stands behind the second convolution, where not a batch norm and a sign.
    first : Module
        Quantizer of the pixels.
    stem : dict
        Options of the first convolution.
    head : bool
        Whether there is a dense layer.
    shape : tuple of int
        Image.
    weight, act : type
        Quantizers.
    **options : object
        Options of the second convolution.
    """
    filters = 12 if head else 10
    body = chain(
        first=first or sign(act),
        conv1=conv(shape[0], 8, quantizer=weight, **(stem or {})),
        norm1=nn.BatchNorm2d(8),
        sign1=sign(act),
        conv2=conv(8, filters, **{"kernel": 3, "quantizer": weight, **options}),
    )
    for number, layer in enumerate(middle or (nn.BatchNorm2d(filters), sign(act))):
        body.add_module(f"middle{number}", layer)
    body.add_module("flatten", nn.Flatten())
    if head:
        features = body(torch.zeros(1, *shape)).shape[1]
        body.add_module("fc", linear(features, 10, weight))
        body.add_module("norm", nn.BatchNorm1d(10))
    return body


def pooled(pool: Callable[[], nn.Module], place: str, padding: int, stride: int) -> nn.Module:
    """Return a network with a pool at one of three places."""
    layers = [nn.BatchNorm2d(12), sign()]
    places = ("before_norm", "after_norm", "after_sign")
    layers.insert(places.index(place), pool())
    return cnn(*layers, padding=padding, stride=stride)


def levels(**options: object) -> qnn.QuantReLU:
    """Return an activation of a few bits, from 0 on."""
    return qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, **options)


def signed_levels(bit_width: int) -> nn.Module:
    """Return an activation of a few bits on both sides of 0."""
    return qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=bit_width)


def mlp_of_levels() -> nn.Module:
    """Return dense layers with weights of two bits (-1, 0 and 1; then -2 to 1) and activations of
    three and four."""
    return chain(
        flatten=nn.Flatten(),
        first=sign(),
        fc1=linear(40, 33, Int8WeightPerTensorFloat, weight_bit_width=2),
        norm1=nn.BatchNorm1d(33),
        act1=signed_levels(3),
        fc2=linear(33, 25, Int8WeightPerTensorFloat, weight_bit_width=2, weight_narrow_range=False),
        norm2=nn.BatchNorm1d(25),
        act2=levels(bit_width=4),
        fc3=linear(25, 10),
        norm3=nn.BatchNorm1d(10),
    )


def cnn_of_levels() -> nn.Module:
    """Return convolutions with weights of two bits and activations of two bits, also in padding and
    a max pool."""
    return chain(
        first=unsigned_pixels(),
        conv1=conv(2, 8, quantizer=Int8WeightPerTensorFloat, weight_bit_width=2),
        norm1=nn.BatchNorm2d(8),
        act1=levels(bit_width=2),
        conv2=conv(8, 12, quantizer=Int8WeightPerTensorFloat, weight_bit_width=2, padding=1),
        pool=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(12),
        act2=levels(bit_width=2),
        flatten=nn.Flatten(),
        fc=linear(12 * 5 * 4, 10),
        norm3=nn.BatchNorm1d(10),
    )


def depthwise() -> nn.Module:
    """Return a network with depthwise and pointwise convolutions."""
    return chain(
        first=signed_pixels(),
        conv1=conv(2, 8, padding=1),
        norm1=nn.BatchNorm2d(8),
        sign1=sign(),
        depth2=conv(8, 8, padding=1, groups=8, stride=2),
        norm2=nn.BatchNorm2d(8),
        sign2=sign(),
        point2=conv(8, 12, 1),
        norm3=nn.BatchNorm2d(12),
        sign3=sign(),
        depth3=conv(12, 24, 2, groups=12),
        norm4=nn.BatchNorm2d(24),
        sign4=sign(),
        point3=conv(24, 10, 1),
        norm5=nn.BatchNorm2d(10),
        mean=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )


def deep() -> nn.Module:
    """Return a network of FINN's shape for CIFAR-10 with fewer channels."""
    layers: list[nn.Module] = [Scaled(0.5, (1.0,), (1.0,)), signed_pixels()]
    widths = ((3, 8, False), (8, 8, True), (8, 12, False), (12, 12, True), (12, 16, False))
    for inputs, outputs, pool in widths:
        layers += [conv(inputs, outputs, quantizer=UnitWeight)]
        layers += [nn.BatchNorm2d(outputs, eps=1e-4), sign(UnitAct)]
        layers += [nn.MaxPool2d(2)] * pool
    layers += [View(), linear(16, 24, UnitWeight), nn.BatchNorm1d(24), sign(UnitAct)]
    return nn.Sequential(*layers, linear(24, 10, UnitWeight), TensorNorm())


def finn(name: str) -> Callable[[], nn.Module]:
    """Return a builder of one of FINN's own networks, without its published parameters."""
    return lambda: model_with_cfg(name, pretrained=False)[0]


# Networks of plain torch


class Straight(torch.autograd.Function):
    """The sign, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def by_where(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))


def by_detaching(x: torch.Tensor) -> torch.Tensor:
    clipped = x.clamp(-1, 1)
    return clipped + (torch.sign(x) - clipped).detach()


SIGNS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sign": torch.sign,
    "where": by_where,
    "function": Straight.apply,
    "detach": by_detaching,
}


class Sign(nn.Module):
    """A sign, in one of many ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return SIGNS[self.way](x)


class Linear(nn.Linear):
    """A dense layer that takes the sign of its weights."""

    way = "where"

    def binary(self) -> torch.Tensor:
        return SIGNS[self.way](self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.binary(), self.bias)


class Conv2d(nn.Conv2d):
    """A convolution that takes the sign of its weights."""

    way = "where"

    def binary(self) -> torch.Tensor:
        return SIGNS[self.way](self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.binary(), self.bias)


class ScaledLinear(Linear):
    """A dense layer with XNOR-Net's gain."""

    def binary(self) -> torch.Tensor:
        return self.weight.abs().mean(1, keepdim=True) * SIGNS[self.way](self.weight)


def torch_mlp(way: str, dense: type[Linear] = Linear, inputs: int = 40) -> nn.Module:
    """Return three dense layers with batch norms."""
    return chain(
        first=Sign("where"),
        fc1=dense(inputs, 33, bias=False),
        norm1=nn.BatchNorm1d(33),
        sign1=Sign(way),
        fc2=dense(33, 25),
        norm2=nn.BatchNorm1d(25),
        sign2=Sign(way),
        fc3=dense(25, 10),
        norm3=nn.BatchNorm1d(10),
    )


def torch_cnn(way: str) -> nn.Module:
    """Return convolutions on bytes with padding, pools on both sides of the norm."""
    return chain(
        conv1=Conv2d(2, 8, 3, padding=1),
        norm1=nn.BatchNorm2d(8),
        pool1=nn.MaxPool2d(2),
        sign1=Sign(way),
        conv2=Conv2d(8, 12, 3, padding=1, bias=False),
        pool2=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(12),
        sign2=Sign(way),
        flatten=nn.Flatten(),
        fc=Linear(12 * 3 * 2, 10),
    )


def odd_signs() -> nn.Module:
    """Return signs of sums of odd numbers of bits, without a batch norm."""
    return chain(
        first=Sign("where"),
        fc1=Linear(41, 33, bias=False),
        sign1=Sign("sign"),
        fc2=Linear(33, 10, bias=False),
    )


# Networks that are no chains of one-bit layers


def real_valued() -> nn.Module:
    """Return a network with activations and a layer that are not binary."""
    return chain(
        first=sign(),
        fc1=linear(40, 33),
        norm1=nn.BatchNorm1d(33),
        relu1=nn.ReLU(),
        fc2=linear(33, 25),
        norm2=nn.BatchNorm1d(25),
        sign2=sign(),
        fc3=nn.Linear(25, 20),
        norm3=nn.BatchNorm1d(20),
        relu3=nn.ReLU(),
        fc4=linear(20, 10),
    )


def many_bits() -> nn.Module:
    """Return a network with weights and activations of more than eight bits."""
    return chain(
        first=sign(),
        fc1=qnn.QuantLinear(
            40,
            33,
            bias=False,
            weight_quant=Int4WeightPerTensorFloatDecoupled,
            weight_bit_width=10,
        ),
        norm1=nn.BatchNorm1d(33),
        sign1=sign(),
        fc2=qnn.QuantLinear(33, 25, bias=False, weight_quant=SignedTernaryWeightPerTensorConst),
        norm2=nn.BatchNorm1d(25),
        act2=qnn.QuantReLU(bit_width=9),
        fc3=linear(25, 10),
    )


def residual() -> nn.Module:
    """Return a network with a layer in its shortcut."""
    return chain(
        first=sign(),
        conv1=conv(2, 8, padding=1),
        norm1=nn.BatchNorm2d(8),
        sign1=sign(),
        block=Residual(chain(conv=conv(8, 8, padding=1)), chain(down=conv(8, 8, 1))),
        norm2=nn.BatchNorm2d(8),
        sign2=sign(),
        flatten=nn.Flatten(),
        fc=linear(8 * 12 * 11, 10),
        norm3=nn.BatchNorm1d(10),
    )


def other_layers() -> nn.Module:
    """Return a network with a pool over padded borders and a convolution the other way round."""
    return chain(
        first=sign(),
        conv1=conv(2, 8),
        norm1=nn.BatchNorm2d(8),
        sign1=sign(),
        up=qnn.QuantConvTranspose2d(
            8, 8, 3, bias=False, weight_quant=SignedBinaryWeightPerTensorConst
        ),
        norm2=nn.BatchNorm2d(8),
        mean=nn.AvgPool2d(3, 2, padding=1),
        sign2=sign(),
        flatten=nn.Flatten(),
        fc=linear(8 * 6 * 6, 10),
    )


POOLS = {
    "max": lambda: nn.MaxPool2d(2),
    "average": lambda: nn.AvgPool2d(2),
    "adaptive": lambda: nn.AdaptiveAvgPool2d(2),
}
PLACES = ("before_norm", "after_norm", "after_sign")


def pools() -> Iterator[tuple[str, Case]]:
    """Yield every pool at every place behind every convolution."""
    for (name, pool), place, padding, stride in product(POOLS.items(), PLACES, (0, 1), (1, 2)):
        if (name, place) in (("average", "after_sign"), ("adaptive", "after_sign")):
            continue  # a mean of bits is not a bit
        if name == "adaptive" and (padding, stride) in ((0, 1), (1, 2), (1, 1)):
            continue  # no windows of one size
        yield (
            f"cnn_{name}_{place}_pad{padding}_stride{stride}",
            Case(
                lambda pool=pool, place=place, padding=padding, stride=stride: pooled(
                    pool, place, padding, stride
                ),
                IMAGE,
            ),
        )


def convolutions() -> Iterator[tuple[str, Case]]:
    """Yield every kind of convolution without a pool."""
    for groups, padding, stride, bias in product((1, 2, 4), (0, 1), (1, 2), (False, True)):
        options = {"groups": groups, "padding": padding, "stride": stride, "bias": bias}
        name = f"cnn_groups{groups}_pad{padding}_stride{stride}" + "_bias" * bias
        yield name, Case(lambda options=options: cnn(**options), IMAGE)


STANDARD = {"mean": (0.485, 0.406), "std": (0.229, 0.225)}
"""Two of the channels of ImageNet."""

CASES = {
    "mlp": Case(mlp, exporters=("torchscript", "dynamo", "free", "opset9", "opset13")),
    "mlp_unit_scales": Case(lambda: mlp(UnitWeight, UnitAct), exporters=BOTH),
    "mlp_channel_scales": Case(lambda: mlp(ChannelWeight), exporters=BOTH),
    "mlp_learned_channel_scales": Case(
        lambda: mlp(LearnedChannelWeight, LearnedAct), exporters=BOTH
    ),
    "mlp_learned_scales": Case(lambda: mlp(LearnedWeight, LearnedAct)),
    "mlp_bias": Case(lambda: mlp(bias=True, last=nn.Identity())),
    "mlp_bias_channel_scales": Case(lambda: mlp(LearnedChannelWeight, bias=True)),
    "mlp_plain_norms": Case(lambda: mlp(last=nn.BatchNorm1d(10, affine=False))),
    "mlp_tensor_norm": Case(lambda: mlp(UnitWeight, UnitAct, last=TensorNorm())),
    "mlp_without_norms": Case(without_norms, (41,), exporters=BOTH),
    "mlp_ties": Case(ties),
    "mlp_hard_tanh": Case(hard_tanh, (1, 5, 8), exporters=BOTH),
    "mlp_quant_tensors": Case(quant_tensors),
    "mlp_signed_pixels": Case(lambda: mlp(first=signed_pixels()), (1, 5, 8), "halves", BOTH),
    "mlp_unsigned_pixels": Case(lambda: mlp(first=unsigned_pixels()), (1, 5, 8), "halves"),
    "mlp_float_pixels": Case(
        lambda: mlp(first=qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat)), frames="unit"
    ),
    "mlp_unsigned_float_pixels": Case(
        lambda: mlp(first=qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat)), frames="unit"
    ),
    "mlp_few_bits": Case(
        lambda: mlp(first=qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=3))
    ),
    "mlp_bytes": Case(lambda: mlp(first=nn.Identity()), (1, 5, 8), "bytes", BOTH),
    "mlp_bytes_one_layer": Case(
        lambda: chain(flatten=nn.Flatten(), fc=linear(40, 10, bias=True)), (1, 5, 8), "bytes"
    ),
    "mlp_bits_of_bytes": Case(
        lambda: chain(scale=Scaled(255, (0.5,), (0.5,)), mlp=mlp()), (1, 5, 8), "bytes", BOTH
    ),
    "mlp_standardized": Case(
        lambda: chain(scale=Scaled(255, (0.1307,), (0.3081,)), mlp=mlp(first=nn.Identity())),
        (1, 5, 8),
        "bytes",
        BOTH,
    ),
    "mlp_levels": Case(mlp_of_levels, exporters=BOTH),
    "cnn_levels": Case(cnn_of_levels, IMAGE, "halves", BOTH),
    "sequences": Case(sequences, (3, 1, 15), exporters=BOTH),
    **dict(pools()),
    **dict(convolutions()),
    "cnn_dynamo": Case(
        lambda: pooled(POOLS["max"], "before_norm", 1, 1), IMAGE, exporters=("dynamo", "free")
    ),
    "cnn_dynamo_average": Case(
        lambda: pooled(POOLS["average"], "after_norm", 0, 1), IMAGE, exporters=("dynamo",)
    ),
    "cnn_dynamo_depthwise": Case(depthwise, IMAGE, "halves", BOTH),
    "cnn_two_pools": Case(
        lambda: cnn(nn.MaxPool2d(2), nn.MaxPool2d(2, 1), nn.BatchNorm2d(12), sign(), padding=1),
        IMAGE,
    ),
    "cnn_overlapping_pool": Case(
        lambda: cnn(nn.MaxPool2d(3, 2), nn.BatchNorm2d(12), sign()), IMAGE
    ),
    "cnn_padded_pool": Case(
        lambda: cnn(nn.BatchNorm2d(12), sign(), nn.MaxPool2d(3, 2, padding=1)), IMAGE
    ),
    "cnn_wide_kernel": Case(
        lambda: cnn(kernel=(2, 5), padding=(1, 2), stride=(2, 1), dilation=(2, 1)), IMAGE
    ),
    "cnn_padding_same": Case(lambda: cnn(padding="same", kernel=(3, 5)), IMAGE),
    "cnn_channel_scales": Case(
        lambda: cnn(weight=LearnedChannelWeight, act=LearnedAct, padding=1), IMAGE, exporters=BOTH
    ),
    "cnn_global_average": Case(
        lambda: cnn(nn.BatchNorm2d(10), nn.AdaptiveAvgPool2d(1), head=False, padding=1), IMAGE
    ),
    "cnn_global_average_first": Case(
        lambda: cnn(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(10), head=False, bias=True), IMAGE
    ),
    "cnn_mean_of_convolution": Case(
        lambda: cnn(nn.AdaptiveAvgPool2d(1), head=False, weight=ChannelWeight), IMAGE
    ),
    "cnn_signed_pixels": Case(
        lambda: cnn(first=signed_pixels(), stem={"padding": 1}), IMAGE, "halves", BOTH
    ),
    "cnn_unsigned_pixels": Case(
        lambda: cnn(first=unsigned_pixels(), stem={"padding": 1}), IMAGE, "halves"
    ),
    "cnn_residual": Case(residual, IMAGE, exporters=BOTH),
    "cnn_bytes": Case(lambda: cnn(first=nn.Identity()), IMAGE, "bytes", BOTH),
    "cnn_bytes_padded": Case(
        lambda: cnn(first=nn.Identity(), stem={"padding": 1, "stride": 2}), IMAGE, "bytes"
    ),
    "cnn_standardized": Case(
        lambda: cnn(first=Scaled(255, (0.45,), (0.225,))), IMAGE, "bytes", BOTH
    ),
    "cnn_standardized_quantized": Case(
        lambda: cnn(
            first=chain(scale=Scaled(1, **STANDARD), pixels=signed_pixels()),
            stem={"padding": 1},
        ),
        IMAGE,
        "unit",
        BOTH,
    ),
    "cnn_like_cnv": Case(deep, (3, 26, 26), "unit", BOTH),
    "tfc_1w1a": Case(finn("tfc_1w1a"), (1, 28, 28), "unit", (*BOTH, "old")),
    "sfc_1w1a": Case(finn("sfc_1w1a"), (1, 28, 28), "unit"),
    "lfc_1w1a": Case(finn("lfc_1w1a"), (1, 28, 28), "unit"),
    "cnv_1w1a": Case(finn("cnv_1w1a"), (3, 32, 32), "unit", BOTH),
    "torch_where_mlp": Case(
        lambda: torch_mlp("where"), exporters=("torchscript", "dynamo", "free")
    ),
    "torch_function_mlp": Case(
        lambda: torch_mlp("function", ScaledLinear), exporters=("torchscript", "dynamo")
    ),
    "torch_detach_mlp": Case(lambda: torch_mlp("detach"), exporters=BOTH, options={"sign_zero": 1}),
    "torch_sign_mlp": Case(lambda: torch_mlp("sign"), exporters=BOTH, options={"sign_zero": 1}),
    "torch_odd_signs": Case(odd_signs, (41,), exporters=BOTH),
    "torch_where_cnn": Case(lambda: torch_cnn("where"), IMAGE, "bytes", BOTH),
    "torch_detach_cnn": Case(
        lambda: torch_cnn("detach"), IMAGE, "bytes", BOTH, options={"sign_zero": 1}
    ),
    "refused_real_valued": Case(real_valued, obstacles=("/relu1/", "/fc3/", "/relu3/")),
    "refused_real_valued_dynamo": Case(
        real_valued, exporters=("dynamo",), obstacles=("(Relu)", "(Gemm)", "(Relu)")
    ),
    "refused_many_bits": Case(many_bits, obstacles=("/fc1/", "/act2/")),
    "refused_many_bits_dynamo": Case(
        many_bits, exporters=("dynamo",), obstacles=("(Quant)", "(Quant)")
    ),
    "refused_torch_sign": Case(lambda: torch_mlp("sign"), obstacles=("/sign1/Sign",)),
    "refused_layers": Case(other_layers, IMAGE, obstacles=("/up/", "/up/")),
    "refused_conv1d": Case(
        lambda: chain(
            first=sign(),
            signal=qnn.QuantConv1d(
                2, 4, 3, bias=False, weight_quant=SignedBinaryWeightPerTensorConst
            ),
            norm=nn.BatchNorm1d(4),
        ),
        (2, 9),
        obstacles=("/signal/", "/signal/"),
    ),
}


# Parameters, frames and results


def is_weighted(layer: nn.Module) -> bool:
    """Return whether a module has a kernel."""
    return isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)


def is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | TensorNorm)


def takes_sign(layer: nn.Module) -> bool:
    """Return whether a module takes the sign of its input."""
    if isinstance(layer, qnn.QuantIdentity | qnn.QuantHardTanh):
        return any(isinstance(m, BinaryQuant | ClampedBinaryQuant) for m in layer.modules())
    return isinstance(layer, Sign)


def step_size(layer: nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    """Return the distance of a quantizer's levels; None where it is none, or gives bits."""
    if not isinstance(layer, qnn.QuantIdentity | qnn.QuantReLU) or takes_sign(layer):
        return None
    return layer.act_quant(x).scale


def is_step(layer: nn.Module) -> bool:
    """Return whether a module is one of the steps that are watched."""
    kinds = Sign | qnn.QuantIdentity | qnn.QuantReLU | qnn.QuantHardTanh | nn.LogSoftmax
    return is_weighted(layer) or is_norm(layer) or isinstance(layer, kinds)


def plain(value: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor, which Brevitas may have put together with their scale."""
    return getattr(value, "value", value)


@contextmanager
def watched(module: nn.Module, before: Callable | None, after: Callable | None) -> Iterator[None]:
    """Call functions before and after every step, with the step and its values."""
    steps = [part for part in module.modules() if is_step(part)]
    hooks = []
    for step in steps:
        if before:
            hooks.append(
                step.register_forward_pre_hook(lambda part, given: before(part, plain(given[0])))
            )
        if after:
            hooks.append(
                step.register_forward_hook(
                    lambda part, given, got: after(part, plain(given[0]), plain(got))
                )
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def randomize(module: nn.Module, frames: torch.Tensor) -> None:
    """Give a network random parameters with which every layer tells frames apart.

    Scales that Brevitas learns or measures are those of a pass in training.
    """
    for part in module.modules():
        if is_weighted(part):
            nn.init.normal_(part.weight, std=0.1)
            with torch.no_grad():
                part.weight[torch.rand_like(part.weight) < 0.02] = 0
    module.train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    with torch.no_grad():
        module(frames)
    module.eval()
    last = [part for part in module.modules() if is_weighted(part)][-1]
    behind = False

    def draw(part: nn.Module, x: torch.Tensor) -> None:
        nonlocal behind
        behind |= part is last
        if is_weighted(part) and part.bias is not None:
            fan_in = part.weight[0].numel()
            part.bias.normal_(
                0, 0.5 * float(kernel(part).abs().max() * x.abs().max()) * fan_in**0.5
            )
        if not is_norm(part):
            return
        channels = part.running_mean.numel()
        if behind and x.dim() == 4:
            x = x.mean((2, 3))  # as the network itself will
        values = x.transpose(0, 1).reshape(channels, -1) if channels > 1 else x.reshape(1, -1)
        spread = values.std(dim=1) + 0.1 * float(values.std()) + 1e-3
        part.running_mean.copy_(values.mean(dim=1) + 0.4 * torch.randn(channels) * spread)
        part.running_var.copy_(spread**2 * torch.empty(channels).uniform_(0.5, 2))
        if getattr(part, "weight", None) is None:
            return
        part.weight.uniform_(0.5, 1.5)
        part.weight[torch.rand(channels) < 0.33] *= -1
        if not behind:
            part.weight[torch.rand(channels) < 0.05] = 0
        part.bias.normal_(0, 0.3)

    with torch.no_grad(), watched(module, draw, None):
        module(frames)


def kernel(layer: nn.Module) -> torch.Tensor:
    """Return a layer's weights as it uses them."""
    weights = layer.binary() if isinstance(layer, Linear | Conv2d) else layer.quant_weight()
    return plain(weights).detach()


def magnitude(values: torch.Tensor) -> torch.Tensor:
    """Return by what values have to be divided to be integers: 1, or the magnitude of all."""
    if bool((values == values.round()).all()):
        return torch.ones(())
    sizes = values.abs()
    if float(sizes.max() - sizes.min()) > 1e-6 * float(sizes.max()):
        raise RuntimeError("a layer takes values that are neither bits nor integers")
    return sizes.max()


def integers(
    layer: nn.Module, x: torch.Tensor, y: torch.Tensor, step: torch.Tensor | None
) -> np.ndarray:
    """Return a layer's output in units of its scales, which is integers.

    Parameters
    ----------
    layer : Module
    x : Tensor
        Its input.
    y : Tensor, shape (N, outputs, ...)
        Its output.
    step : Tensor or None
        Distance of the levels of its input; None for bits and whole numbers.

    Returns
    -------
    ndarray of int64, shape (N, outputs)
        Summed over all pixels.
    """
    weights = kernel(layer).double().flatten(1)
    scales = weights.abs().amax(dim=1)
    if float((weights.abs() - scales[:, None]).abs().max()) > 1e-6 * float(scales.max()):
        raise RuntimeError("a layer has weights that are not bits")
    y = y.double().flatten(2) if y.dim() > 2 else y.double()[:, :, None]
    bias = 0 if layer.bias is None else layer.bias.double()[:, None]
    unit = magnitude(x) if step is None else step
    units = (y - bias) / (scales[:, None] * unit.double())
    sums = units.round()
    if float((units - sums).abs().max()) > 0.05:
        raise RuntimeError("a layer's sums are no integers")
    return sums.sum(dim=2).long().numpy()


def run(module: nn.Module, frames: torch.Tensor) -> dict[str, np.ndarray]:
    """Run a network and return what `CASE.npz` holds, but for the frames."""
    last = [part for part in module.modules() if is_weighted(part)][-1]
    slopes = np.ones(1, np.int8)
    margin, rounded, behind = np.inf, False, False
    step: torch.Tensor | None = None
    sums: list[np.ndarray] = []
    outputs: list[np.ndarray] = []
    logits: list[np.ndarray] = []

    def before(part: nn.Module, x: torch.Tensor) -> None:
        nonlocal margin, slopes, rounded, behind, step
        sizes = None
        if takes_sign(part):
            sizes, step = x.abs(), None
        elif (size := step_size(part, x)) is not None:
            # A level ends half a step from its middle.
            sizes, step = ((x / size).frac().abs() - 0.5).abs() * size, size
        if sizes is not None and rounded:
            if isinstance(part, Sign) and part.way in ("sign", "detach") and not sizes.all():
                raise TooClose("torch takes the sign of 0")
            margin = min(margin, float(sizes[sizes > 0].min() / x.std()))
            if margin < SMALLEST_MARGIN:
                raise TooClose(f"a sign hangs on rounding ({margin:.1e})")
        if behind and is_norm(part) and getattr(part, "weight", None) is not None:
            slopes = np.sign(part.weight.detach().numpy()).astype(np.int8)
        if isinstance(part, nn.LogSoftmax):
            logits.append(x.numpy())
        rounded |= is_weighted(part)
        behind |= part is last

    def after(part: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        if part is last:
            sums.append(integers(part, x, y, step))

    for chunk in frames.split(250):
        rounded = behind = False
        with torch.no_grad(), watched(module, before, after):
            outputs.append(plain(module(chunk)).numpy())
    accumulators, scores = np.concatenate(sums), np.concatenate(outputs)
    return {
        "classes": scores.argmax(axis=1),
        "logits": np.concatenate(logits or outputs),
        "accumulators": accumulators,
        "slopes": np.broadcast_to(slopes, accumulators.shape[1]),
        "margin": np.float64(margin),
    }


def frames_of(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Return frames as the module takes them; bytes as bytes."""
    size = (FRAMES, *case.shape)
    match case.frames:
        case "bytes":
            return rng.integers(0, 256, size, np.uint8)
        case "unit":
            return rng.integers(0, 256, size).astype(np.float32) / np.float32(255)
        case "halves":
            return rng.integers(-320, 321, size).astype(np.float32) / np.float32(256)
    return rng.normal(0, 1, size).astype(np.float32)


# Files


def export(module: nn.Module, shape: tuple[int, ...], exporter: str) -> onnx.ModelProto:
    """Export a network in inference."""
    newer = exporter in ("dynamo", "free")
    frames = torch.zeros(1 if exporter == "dynamo" else 2, *shape)
    options: dict[str, object] = {"dynamo": newer}
    if exporter == "free":
        options["dynamic_shapes"] = ({0: torch.export.Dim("N")},)
    if not newer:
        versions = {"opset9": 9, "opset13": 13, "old": 9}
        options["opset_version"] = versions.get(exporter, 17)
        options |= {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}}
    if any(type(part).__module__.startswith("brevitas.") for part in module.modules()):
        with redirect_stdout(StringIO()):
            model = export_qonnx(module, args=(frames,), **options)
        return old(model) if exporter == "old" else model
    content = BytesIO()
    if not newer:
        options["training"] = torch.onnx.TrainingMode.PRESERVE
    with redirect_stdout(StringIO()):
        program = torch.onnx.export(module, (frames,), None if newer else content, **options)
    return program.model_proto if newer else onnx.load_model_from_string(content.getvalue())


def old(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a file as older Brevitas wrote it, with weights that have been computed."""
    graph = model.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    gone = []
    for node in graph.node:
        if node.op_type == "BipolarQuant":
            node.domain = "onnx.brevitas"
        known = [arrays.get(name) for name in node.input]
        if node.op_type == "BipolarQuant" and all(array is not None for array in known):
            arrays[node.output[0]] = np.where(known[0] >= 0, known[1], -known[1])
            gone.append(node)
        if node.op_type == "Transpose" and known[0] is not None:
            arrays[node.output[0]] = known[0].T
            gone.append(node)
    for node in gone:
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    written = {name for node in graph.node for name in node.output}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(array, order="C"), name)
        for name, array in arrays.items()
        if name in read - written
    )
    inputs = [value for value in graph.input if value.name == "x" or value.name in read - written]
    del graph.input[:]
    graph.input.extend(inputs)
    if not {"MatMul", "Mul", "Sub"} <= {node.op_type for node in graph.node}:
        raise RuntimeError("the exporter writes other operators than it did")
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", 9), helper.make_opsetid("onnx.brevitas", 1)])
    return model


def attempt(name: str, case: Case, folder: Path, seed: int) -> str:
    """Write all files of a case and return a line about it; see `write`."""
    torch.manual_seed(seed)
    module = case.build()
    x = frames_of(case, np.random.default_rng(seed))
    frames = torch.from_numpy(x.astype(np.float32))
    module.eval()
    if not case.obstacles:
        randomize(module, frames[:100])
        results = run(module, frames)
        different = len(set(results["classes"]))
        if different < FEWEST_CLASSES:
            raise TooClose(f"the frames fall into {different} classes only")
        best = np.sort(results["logits"], axis=1)[:, -2:]
        lead = (best[:, 1] - best[:, 0]) / np.abs(results["logits"]).max()
        if ((lead > 0) & (lead < SMALLEST_LEAD)).any():
            raise TooClose("a class hangs on rounding")
        if name.startswith("torch"):
            exact = run(copy.deepcopy(module).double(), frames.double())
            if not np.array_equal(exact["accumulators"], results["accumulators"]):
                raise TooClose("float32 and float64 differ")
        np.savez(folder / f"{name}.npz", x=x, **results)
    for exporter in case.exporters:
        onnx.save(export(module, case.shape, exporter), folder / f"{name}.{exporter}.onnx")
    facts = {
        "exporters": case.exporters,
        "options": case.options,
        "obstacles": case.obstacles,
    }
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    if case.obstacles:
        return "to be refused"
    return f"{different} classes, margin {results['margin']:.1e}"


def write(name: str, folder: Path) -> str:
    """Write all files of a case and return a line about it.

    A network in which a sign hangs on rounding is thrown away for another one.
    """
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    start = time.perf_counter()
    for number in range(ATTEMPTS):
        try:
            outcome = attempt(name, CASES[name], folder, zlib.crc32(f"{name} {number}".encode()))
            seconds = time.perf_counter() - start
            return f"{name}: {outcome}, attempt {number + 1}, {seconds:.1f} s"
        except TooClose as error:
            reason = error
    raise RuntimeError(f"{name}: {reason}")


def main(folder: str, *names: str) -> None:
    """Write the cases named, or all, as many at once as there are processors; largest first."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    order = sorted(names or CASES, key=lambda name: -np.prod(CASES[name].shape))
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for outcome in as_completed([pool.submit(write, name, target) for name in order]):
            print(outcome.result(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
