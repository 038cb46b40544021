"""Build, save and run Larq networks: the samples that ``test_larq.py`` reads.

Run with the Python of an environment that has ``larq-requirements.txt``::

    python larq_models.py FOLDER [CASE ...]

For every case FOLDER then holds ``CASE.keras`` and ``CASE.h5``, the saved network;

- ``CASE.json``: ``frames`` (``bytes`` or ``reals``), ``options`` (how the frames were scaled, as
  import options) and ``obstacles`` (where no one-bit hardware can have the network: words in each
  of the reasons for which it has to be refused, in order; else empty);
- ``CASE.npz``, unless it has to be refused: ``x`` (N, ...), the frames; ``classes`` (N,);
  ``logits`` (N, classes), the network's outputs before a softmax; ``accumulators`` (N, classes),
  the last layer's dot products of bits, summed over all pixels where a mean follows; ``slopes``
  (classes,), the signs of the scales behind them; ``margin``, the distance of the closest call:
  the least magnitude other than 0 that a sign was taken of, in standard deviations.

All parameters are random, with a seed for each case. Decisions of floating point and of exact
arithmetic are the same as long as nothing is nearly a tie. Exact ties are only those of integers,
of which both know which way they go: the sign of 0 is +1, and among equal scores the lowest class
wins.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # Larq 0.14 does not work with Keras 3
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import larq as lq
import numpy as np
import tensorflow as tf

tf.get_logger().setLevel("ERROR")
keras = tf.keras
layers = tf.keras.layers
QuantConv2D = lq.layers.QuantConv2D
QuantDense = lq.layers.QuantDense
QuantDepthwiseConv2D = lq.layers.QuantDepthwiseConv2D

FRAMES = 1000
FEWEST_CLASSES = 5
ATTEMPTS = 5
SMALLEST_MARGIN = 1e-5
"""In standard deviations; float32 sums of a few hundred terms are good to about 1e-6."""

BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}
FIRST = {**BINARY, "input_quantizer": None}
"""A first layer, of which only the weights are bits."""


class TooClose(RuntimeError):
    """A network that a comparison cannot do with."""


@dataclass(frozen=True)
class Case:
    """A network and what is to be fed to it.

    Attributes
    ----------
    build : callable
        Returns the network.
    frames : str
        ``reals`` of a normal distribution, or ``bytes``.
    options : dict
        Import options: the network sees ``input_scale * byte + input_offset``.
    obstacles : tuple of str
        Words in each of the reasons for which the network has to be refused.
    trained : bool
        Whether the file is saved after a few steps of training, with its optimizer, loss and
        metrics in it.
    zeros : bool
        Whether some latent weights are exactly 0.
    bits : bool
        Whether the weights are stored as -1 and +1.
    """

    build: Callable[[], keras.Model]
    frames: str = "reals"
    options: dict[str, str] = field(default_factory=dict)
    obstacles: tuple[str, ...] = ()
    trained: bool = False
    zeros: bool = False
    bits: bool = False


def sequential(shape: tuple[int, ...], *chain: layers.Layer) -> keras.Model:
    """Return a Sequential network that takes frames of `shape`."""
    return keras.Sequential([layers.InputLayer(input_shape=shape), *chain])


def norm(**options: object) -> layers.Layer:
    """Return a batch norm."""
    return layers.BatchNormalization(**options)


def mlp(first: dict | None = None, norms: dict | None = None, **changes: object) -> keras.Model:
    """Return three dense layers with batch norms; `changes` go into each layer, then `first`."""
    options = {**BINARY, **changes}
    norms = norms or {}
    return sequential(
        (40,),
        QuantDense(32, **{**options, **(first or {})}),
        norm(**norms),
        QuantDense(24, **options),
        norm(**norms),
        QuantDense(10, **options),
        norm(**norms),
    )


def cnn(
    shape: tuple[int, int, int],
    *middle: layers.Layer,
    first: dict | None = None,
    head: bool = True,
    **conv: object,
) -> keras.Model:
    """Return two convolutions, the second with the options `conv`, and a dense layer.

    Parameters
    ----------
    shape : tuple of int
        Image.
    *middle : Layer
        What stands behind the second convolution, where not a batch norm.
    first : dict
        Options of the first convolution.
    head : bool
        Whether there is a dense layer.
    **conv : object
        Options of the second convolution.
    """
    options = {"filters": 12, "kernel_size": 3, **BINARY, **conv}
    tail = [layers.Flatten(), QuantDense(10, **BINARY), norm()] if head else []
    return sequential(
        shape,
        QuantConv2D(**{"filters": 8, "kernel_size": 3, **BINARY, **(first or {})}),
        norm(),
        QuantConv2D(**options),
        *(middle or (norm(),)),
        *tail,
    )


def same(pad: float, size: tuple[int, int], **conv: object) -> Case:
    """Return a case of which the second convolution takes `size` and pads with `pad`."""
    rows, columns = size
    conv = {"padding": "same", "pad_values": pad, **conv}
    return Case(lambda: cnn((rows + 2, columns + 2, 3), **conv))


def activation_layers() -> keras.Model:
    """Return a network with signs in layers of their own."""
    options = {**BINARY, "input_quantizer": None}
    return sequential(
        (40,),
        layers.Activation(lq.quantizers.SteSign()),
        QuantDense(32, **options),
        norm(),
        lq.quantizers.SteSign(clip_value=1.3),
        QuantDense(24, **options),
        norm(),
        layers.Activation(lq.quantizers.ApproxSign()),
        QuantDense(10, **options),
        norm(),
        layers.Activation("linear"),
    )


def activation_arguments() -> keras.Model:
    """Return a network with signs as activations of the layers before, and a softmax as well."""
    options = {**FIRST, "use_bias": True}
    return sequential(
        (41,),
        layers.Activation(lq.quantizers.SteSign()),
        QuantDense(32, activation=lq.quantizers.SteSign(), **options),
        QuantDense(24, activation=lq.quantizers.SwishSign(), **options),
        QuantDense(10, activation="softmax", **options),
    )


def heaviside() -> keras.Model:
    """Return a network with bits that count as 0 and 1."""
    return sequential(
        (40,),
        QuantDense(32, **BINARY),
        norm(),
        QuantDense(24, **{**BINARY, "input_quantizer": "ste_heaviside"}, name="unipolar"),
        norm(),
        QuantDense(10, **BINARY),
        norm(),
    )


def named() -> keras.Model:
    """Return a network of which the order of names is not that of the layers."""
    return sequential(
        (40,),
        QuantDense(24, **BINARY, name="zeta"),
        norm(name="norm_z"),
        QuantDense(24, **BINARY, name="quant_dense"),
        norm(name="batch_normalization_7"),
        QuantDense(24, **BINARY, name="alpha"),
        norm(name="a_norm"),
    )


def built_late() -> keras.Model:
    """Return a network that has not known its input's shape from the start."""
    model = keras.Sequential(
        [QuantDense(32, **BINARY), norm(), QuantDense(10, **BINARY), norm()], name="built_late"
    )
    model.build((None, 40))
    return model


def frozen() -> keras.Model:
    """Return a network of which not all layers are trained."""
    model = mlp(use_bias=True)
    for layer in model.layers[:3]:
        layer.trainable = False
    return model


def shared() -> keras.Model:
    """Return a network that uses a layer and a batch norm twice."""
    frame = x = keras.Input((32,))
    dense, twice = QuantDense(32, **BINARY, name="twice"), norm()
    x = twice(dense(x))
    x = twice(dense(x))
    return keras.Model(frame, QuantDense(10, **BINARY)(x))


def functional() -> keras.Model:
    """Return a network of the functional interface, with layers that do nothing at inference."""
    image = x = keras.Input((9, 8, 3), name="image")
    x = QuantConv2D(8, 3, **FIRST, padding="same", name="stem")(x)
    x = norm(name="stem_norm")(x)
    x = layers.Dropout(0.3)(x)
    x = QuantConv2D(12, (3, 2), **BINARY, strides=(2, 1), name="body")(x)
    x = layers.MaxPooling2D((1, 2))(x)
    x = norm(name="body_norm", epsilon=1e-5)(x)
    x = layers.SpatialDropout2D(0.1)(x)
    x = layers.Flatten()(x)
    x = layers.GaussianNoise(0.1)(x)
    x = QuantDense(10, **BINARY, name="head")(x)
    x = norm(name="head_norm")(x)
    x = layers.Softmax()(x)
    return keras.Model(image, x, name="functional")


def nested() -> keras.Model:
    """Return a network with a network in it."""
    stem = keras.Sequential(
        [
            layers.InputLayer(input_shape=(8, 8, 3)),
            QuantConv2D(8, 3, **FIRST, name="conv"),
            norm(name="norm"),
        ],
        name="stem",
    )
    return sequential(
        (8, 8, 3),
        stem,
        QuantConv2D(12, 3, **BINARY, name="conv"),
        norm(name="norm"),
        layers.Flatten(),
        QuantDense(10, **BINARY),
        norm(),
    )


def depthwise() -> keras.Model:
    """Return a network with depthwise convolutions."""
    options = {
        "input_quantizer": "ste_sign",
        "depthwise_quantizer": "ste_sign",
        "depthwise_constraint": "weight_clip",
        "use_bias": False,
    }
    return sequential(
        (9, 9, 3),
        QuantConv2D(8, 3, **FIRST),
        norm(),
        QuantDepthwiseConv2D(3, padding="same", pad_values=1.0, **options),
        norm(),
        QuantConv2D(6, 1, **BINARY),
        norm(),
        QuantDepthwiseConv2D(2, strides=2, depth_multiplier=2, **options),
        norm(),
        layers.Flatten(),
        QuantDense(10, **BINARY),
        norm(),
    )


def squashed() -> keras.Model:
    """Return a network with activations that keep the sign."""
    return sequential(
        (40,),
        QuantDense(32, **BINARY),
        norm(),
        layers.Activation("tanh"),
        QuantDense(24, **BINARY),
        norm(),
        layers.Activation("softsign"),
        QuantDense(10, **BINARY),
        norm(),
    )


def larq_mnist() -> keras.Model:
    """Return the network of Larq's tutorial on MNIST, with fewer channels and smaller images."""
    return keras.Sequential(
        [
            QuantConv2D(8, 3, **FIRST, input_shape=(16, 16, 1)),
            layers.MaxPooling2D((2, 2)),
            norm(scale=False),
            QuantConv2D(16, 3, **BINARY),
            layers.MaxPooling2D((2, 2)),
            norm(scale=False),
            QuantConv2D(16, 2, **BINARY),
            norm(scale=False),
            layers.Flatten(),
            QuantDense(32, **BINARY),
            norm(scale=False),
            QuantDense(10, **BINARY),
            norm(scale=False),
            layers.Activation("softmax"),
        ]
    )


def larq_cifar() -> keras.Model:
    """Return Larq's BinaryNet for CIFAR-10, with fewer channels and smaller images."""
    norms = {"momentum": 0.999, "scale": False}
    pool = {"pool_size": (2, 2), "strides": (2, 2)}
    return keras.Sequential(
        [
            QuantConv2D(8, 3, **FIRST, input_shape=(18, 18, 3)),
            norm(**norms),
            QuantConv2D(8, 3, padding="same", **BINARY),
            layers.MaxPool2D(**pool),
            norm(**norms),
            QuantConv2D(16, 3, padding="same", **BINARY),
            norm(**norms),
            QuantConv2D(16, 3, padding="same", **BINARY),
            layers.MaxPool2D(**pool),
            norm(**norms),
            QuantConv2D(24, 3, padding="same", **BINARY),
            norm(**norms),
            QuantConv2D(24, 3, padding="same", **BINARY),
            layers.MaxPool2D(**pool),
            norm(**norms),
            layers.Flatten(),
            QuantDense(48, **BINARY),
            norm(**norms),
            QuantDense(48, **BINARY),
            norm(**norms),
            QuantDense(10, **BINARY),
            norm(**norms),
            layers.Activation("softmax"),
        ]
    )


def real_valued() -> keras.Model:
    """Return a network with an activation and a layer that are not binary."""
    return sequential(
        (40,),
        QuantDense(32, **BINARY, name="fc1"),
        norm(name="bn1"),
        layers.Activation("relu", name="relu1"),
        QuantDense(24, **BINARY, name="fc2"),
        norm(name="bn2"),
        layers.ReLU(name="relu2"),
        layers.Dense(10, name="head"),
    )


def separable(depth_multiplier: int = 1) -> keras.Model:
    """Return a network with a separable convolution.

    With a multiplier of 1 the products of its two kernels are those of one binary convolution;
    with more, outputs add several of them.
    """
    return sequential(
        (8, 8, 3),
        QuantConv2D(8, 3, **FIRST, name="conv1"),
        norm(name="bn1"),
        lq.layers.QuantSeparableConv2D(
            12,
            3,
            input_quantizer="ste_sign",
            depthwise_quantizer="ste_sign",
            pointwise_quantizer="ste_sign",
            depthwise_constraint="weight_clip",
            pointwise_constraint="weight_clip",
            padding="same",
            pad_values=-1.0,
            depth_multiplier=depth_multiplier,
            use_bias=False,
            name="separable",
        ),
        norm(name="bn2"),
        layers.Flatten(name="flatten"),
        QuantDense(10, **BINARY, name="fc"),
    )


def many_bits() -> keras.Model:
    """Return a network of which quantizers have more than two levels."""
    dorefa = lq.quantizers.DoReFa(k_bit=9, mode="activations")
    weights = lq.quantizers.DoReFa(k_bit=2, mode="weights")
    return sequential(
        (40,),
        QuantDense(32, **BINARY, name="fc1"),
        norm(name="bn1"),
        QuantDense(24, **{**BINARY, "input_quantizer": dorefa}, name="dorefa_input"),
        norm(name="bn2"),
        QuantDense(24, **{**BINARY, "kernel_quantizer": weights}, name="dorefa_kernel"),
        norm(name="bn3"),
        QuantDense(24, **{**BINARY, "kernel_quantizer": "ste_tern"}, name="ternary_kernel"),
        norm(name="bn4"),
        QuantDense(
            24, **{**BINARY, "input_quantizer": "magnitude_aware_sign"}, name="magnitude_input"
        ),
        norm(name="bn5"),
        QuantDense(24, **{**BINARY, "kernel_quantizer": None}, name="real_kernel"),
        norm(name="bn6"),
        QuantDense(10, **{**BINARY, "input_quantizer": None}, name="no_input_quantizer"),
    )


def two_outputs() -> keras.Model:
    """Return a network with two outputs."""
    frame = keras.Input((40,), name="frame")
    x = norm(name="bn1")(QuantDense(32, **BINARY, name="fc1")(frame))
    outputs = [QuantDense(10, **BINARY, name=name)(x) for name in ("scores", "others")]
    return keras.Model(frame, outputs, name="two_outputs")


def other_layers() -> keras.Model:
    """Return a network of layers that no hardware is made for."""
    return sequential(
        (8, 8, 3),
        lq.layers.QuantConv2DTranspose(4, 3, **BINARY, name="transposed"),
        norm(name="bn1"),
        layers.AveragePooling2D(3, 2, padding="same", name="mean"),
        layers.Flatten(name="flatten"),
        QuantDense(10, **BINARY, name="fc"),
    )


def lambdas() -> keras.Model:
    """Return a network with a layer that is compiled Python in the file."""
    return sequential(
        (40,),
        QuantDense(32, **BINARY, name="fc1"),
        layers.Lambda(lambda x: -x, name="negate"),
        QuantDense(10, **BINARY, name="fc2"),
    )


CENTRED = {"input_scale": "2/255", "input_offset": "-1"}
"""Of images that were scaled with ``x / 127.5 - 1``."""

CASES = {
    "mlp_binary": Case(mlp),
    "mlp_bytes": Case(lambda: mlp({"input_quantizer": None}), "bytes"),
    "mlp_centred_bytes": Case(lambda: mlp({"input_quantizer": None}), "bytes", CENTRED),
    "mlp_no_scale": Case(lambda: mlp(norms={"scale": False})),
    "mlp_no_center": Case(lambda: mlp(norms={"center": False})),
    "mlp_neither": Case(lambda: mlp(norms={"scale": False, "center": False})),
    "mlp_approx_sign": Case(
        lambda: mlp(input_quantizer="approx_sign", kernel_quantizer="approx_sign")
    ),
    "mlp_swish_sign": Case(
        lambda: mlp(input_quantizer="swish_sign", kernel_quantizer=lq.quantizers.SwishSign(4.0))
    ),
    "mlp_magnitude_aware": Case(
        lambda: mlp(
            input_quantizer=lq.quantizers.ApproxSign(), kernel_quantizer="magnitude_aware_sign"
        )
    ),
    "mlp_bias": Case(lambda: mlp(use_bias=True)),
    "mlp_activation_layers": Case(activation_layers),
    "mlp_activation_arguments": Case(activation_arguments),
    "mlp_integer_scores": Case(
        lambda: sequential((40,), QuantDense(32, **BINARY), norm(), QuantDense(10, **BINARY))
    ),
    "mlp_zeros": Case(
        lambda: sequential(
            (40,), QuantDense(32, **BINARY), QuantDense(24, **BINARY), QuantDense(10, **BINARY)
        ),
        zeros=True,
    ),
    "mlp_one_layer": Case(lambda: sequential((40,), QuantDense(10, **FIRST), norm()), "bytes"),
    "mlp_of_images": Case(
        lambda: sequential(
            (6, 5, 2),
            layers.Flatten(),
            QuantDense(32, **FIRST),
            norm(),
            QuantDense(10, **BINARY),
            norm(),
        ),
        "bytes",
    ),
    "mlp_norm_first": Case(
        lambda: sequential(
            (40,), norm(), QuantDense(32, **BINARY), norm(), QuantDense(10, **BINARY)
        ),
        "bytes",
    ),
    "mlp_squashed": Case(squashed),
    "mlp_of_bits": Case(
        lambda: mlp(kernel_quantizer=lq.quantizers.NoOp(precision=1), kernel_constraint=None),
        bits=True,
    ),
    "mlp_of_keras": Case(
        lambda: sequential(
            (40,),
            lq.quantizers.SteSign(),
            layers.Dense(32),
            norm(),
            lq.quantizers.SteSign(),
            layers.Dense(10, use_bias=False),
            norm(),
        ),
        bits=True,
    ),
    "mlp_built_late": Case(built_late),
    "mlp_frozen": Case(frozen),
    "mlp_shared": Case(shared),
    "mlp_heaviside": Case(heaviside),
    "mlp_named": Case(named, trained=True),
    "cnn_valid": Case(lambda: cnn((8, 7, 3))),
    "cnn_bytes": Case(lambda: cnn((8, 7, 3), first={"input_quantizer": None}), "bytes"),
    "cnn_bytes_same": Case(
        lambda: cnn((8, 7, 3), first={"input_quantizer": None, "padding": "same"}), "bytes"
    ),
    "cnn_centred_bytes_same": Case(
        lambda: cnn((8, 7, 3), first={"input_quantizer": None, "padding": "same"}),
        "bytes",
        CENTRED,
    ),
    "cnn_same_zero": same(0.0, (6, 7)),
    "cnn_same_one": same(1.0, (6, 7)),
    "cnn_same_minus_one": same(-1.0, (6, 7)),
    "cnn_same_zero_stride_even": same(0.0, (6, 8), strides=2),
    "cnn_same_zero_stride_odd": same(0.0, (7, 9), strides=2),
    "cnn_same_one_stride_even": same(1.0, (6, 8), strides=2),
    "cnn_same_one_stride_odd": same(1.0, (7, 9), strides=2),
    "cnn_same_minus_one_stride_even": same(-1.0, (6, 8), strides=2),
    "cnn_same_minus_one_stride_odd": same(-1.0, (7, 9), strides=2),
    "cnn_same_even_kernel": same(0.0, (6, 7), kernel_size=(2, 4)),
    "cnn_same_even_kernel_one": same(1.0, (6, 7), kernel_size=(2, 4)),
    "cnn_same_wide_stride_one": same(1.0, (6, 7), kernel_size=(2, 3), strides=(3, 2)),
    "cnn_same_wide_stride": same(0.0, (6, 7), kernel_size=(2, 3), strides=(3, 2)),
    "cnn_dilated": Case(lambda: cnn((10, 9, 3), dilation_rate=2)),
    "cnn_dilated_same_zero": same(0.0, (6, 7), dilation_rate=(2, 1)),
    "cnn_dilated_same_one": same(1.0, (6, 7), dilation_rate=(2, 1)),
    "cnn_groups": Case(lambda: cnn((8, 7, 3), groups=4)),
    "cnn_magnitude_aware": Case(
        lambda: cnn((8, 7, 3), kernel_quantizer=lq.quantizers.MagnitudeAwareSign())
    ),
    "cnn_bias_same": same(0.0, (6, 7), use_bias=True),
    "cnn_pool_then_norm": Case(lambda: cnn((9, 8, 3), layers.MaxPooling2D(2), norm())),
    "cnn_norm_then_pool": Case(lambda: cnn((9, 8, 3), norm(), layers.MaxPooling2D(2))),
    "cnn_sign_then_pool": Case(
        lambda: cnn(
            (9, 8, 3), norm(), layers.Activation(lq.quantizers.SteSign()), layers.MaxPool2D(3, 2)
        )
    ),
    "cnn_pool_same": Case(
        lambda: cnn((9, 8, 3), layers.MaxPooling2D(3, 2, padding="same"), norm())
    ),
    "cnn_average_pool": Case(lambda: cnn((9, 8, 3), layers.AveragePooling2D(2), norm())),
    "cnn_global_average": Case(
        lambda: cnn((8, 7, 3), norm(), layers.GlobalAveragePooling2D(), head=False)
    ),
    "cnn_global_average_keepdims": Case(
        lambda: cnn(
            (8, 7, 3), layers.GlobalAvgPool2D(keepdims=True), layers.Flatten(), norm(), head=False
        )
    ),
    "cnn_global_average_then_dense": Case(
        lambda: cnn((8, 7, 3), norm(), layers.GlobalAveragePooling2D())
    ),
    "cnn_global_max": Case(lambda: cnn((8, 7, 3), layers.GlobalMaxPooling2D(), norm())),
    "cnn_zero_padding_layer": Case(
        lambda: sequential(
            (6, 7, 3),
            layers.Activation(lq.quantizers.SteSign()),
            layers.ZeroPadding2D(((1, 0), (2, 1))),
            QuantConv2D(8, 3, **FIRST),
            norm(),
            layers.Flatten(),
            QuantDense(10, **BINARY),
            norm(),
        )
    ),
    "cnn_zero_padding_then_sign": Case(
        lambda: sequential(
            (6, 7, 3),
            QuantConv2D(8, 3, **FIRST),
            norm(),
            layers.ZeroPadding2D(1),
            QuantConv2D(8, 3, **BINARY),
            norm(),
            layers.Flatten(),
            QuantDense(10, **BINARY),
            norm(),
        ),
        "bytes",
    ),
    "cnn_dense_per_pixel": Case(lambda: cnn((7, 7, 3), norm(), QuantDense(4, **BINARY), norm())),
    "cnn_activation_arguments": Case(
        lambda: sequential(
            (7, 7, 3),
            QuantConv2D(8, 3, activation=lq.quantizers.SteSign(), **{**FIRST, "use_bias": True}),
            layers.MaxPool2D(2, 1),
            QuantConv2D(12, 3, activation=lq.quantizers.SteSign(), **FIRST),
            layers.Flatten(),
            QuantDense(10, **FIRST),
        ),
        "bytes",
    ),
    "cnn_normalization": Case(
        lambda: sequential(
            (7, 7, 3),
            layers.Normalization(axis=None, mean=110.0, variance=70.0**2),
            QuantConv2D(8, 3, **FIRST),
            norm(),
            layers.Flatten(),
            QuantDense(10, **BINARY),
            norm(),
        ),
        "bytes",
    ),
    "cnn_rescaling": Case(
        lambda: sequential(
            (7, 7, 3),
            layers.Rescaling(1 / 127.5, offset=-1),
            QuantConv2D(8, 3, **FIRST),
            norm(),
            layers.Flatten(),
            QuantDense(10, **BINARY),
            norm(),
        ),
        "bytes",
    ),
    "cnn_depthwise": Case(depthwise, "bytes"),
    "cnn_separable": Case(separable, "bytes"),
    "cnn_functional": Case(functional, "bytes"),
    "cnn_nested": Case(nested, "bytes"),
    "cnn_reshape": Case(
        lambda: sequential(
            (64,),
            layers.Reshape((8, 8, 1)),
            QuantConv2D(8, 3, **FIRST),
            norm(),
            layers.Reshape((-1,)),
            QuantDense(10, **BINARY),
            norm(),
        ),
        "bytes",
    ),
    "larq_mnist": Case(larq_mnist, "bytes", CENTRED, trained=True),
    "larq_cifar": Case(larq_cifar, "bytes", CENTRED, trained=True),
    "refused_real_valued": Case(
        real_valued, obstacles=("layer 'relu1'", "layer 'relu2'", "layer 'head'")
    ),
    "refused_separable": Case(lambda: separable(2), obstacles=("layer 'separable'",)),
    "refused_many_bits": Case(
        many_bits,
        obstacles=(
            "layer 'dorefa_input'",
            "layer 'dorefa_kernel'",
            "layer 'ternary_kernel'",
            "layer 'magnitude_input'",
            "layer 'real_kernel'",
            "layer 'no_input_quantizer'",
        ),
    ),
    "refused_layers": Case(other_layers, obstacles=("layer 'transposed'", "layer 'mean'")),
    "refused_outputs": Case(two_outputs, obstacles=("layer 'scores'", "2 outputs")),
    "refused_padding": Case(
        lambda: cnn((6, 7, 3), padding="same", pad_values=0.5, name="half"),
        obstacles=("layer 'half'",),
    ),
    "refused_axis": Case(
        lambda: cnn((7, 7, 3), norm(axis=1, name="rows")), obstacles=("layer 'rows'",)
    ),
    "refused_lambda": Case(lambdas, obstacles=("layer 'negate'",)),
}


def chain_of(model: keras.Model) -> Iterator[layers.Layer]:
    """Yield the layers of a chain in the order of their calls, those of inner networks as well."""
    for depth in sorted(model._nodes_by_depth, reverse=True):  # the order in which Keras calls them
        (node,) = model._nodes_by_depth[depth]
        if isinstance(node.layer, keras.Model):
            yield from chain_of(node.layer)
        elif not isinstance(node.layer, layers.InputLayer):
            yield node.layer


def is_weighted(layer: layers.Layer) -> bool:
    """Return whether a layer has a kernel."""
    return isinstance(
        layer, layers.Dense | layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D
    )


def randomize(model: keras.Model, frames: np.ndarray, case: Case, rng: np.random.Generator) -> None:
    """Give a chain random parameters with which every layer tells frames apart.

    Parameters
    ----------
    model : Model
    frames : ndarray of float32
        Frames whose sums the batch norms are centred at, roughly.
    case : Case
    rng : Generator
    """
    x = tf.constant(frames)
    chain = list(chain_of(model))
    for place, layer in enumerate(chain):
        if layer in chain[:place]:
            pass
        elif is_weighted(layer):
            weights = [rng.normal(0, 0.5, w.shape) for w in layer.get_weights()]
            for kernel in weights[: len(weights) - layer.use_bias]:
                kernel += np.copysign(0.01, kernel)
                if case.bits:
                    kernel[:] = np.sign(kernel)
                if case.zeros:
                    kernel[rng.random(kernel.shape) < 0.1] = 0
            if layer.use_bias:
                weights[-1] *= 4
            layer.set_weights(weights)
        elif isinstance(layer, layers.BatchNormalization):
            values = x.numpy().reshape(-1, x.shape[-1])
            channels, spread = values.shape[1], values.std(axis=0) + 0.1
            gamma = rng.choice([-1, 1, 1], channels) * rng.uniform(0.5, 1.5, channels)
            if place + 1 < len(chain):
                gamma[rng.random(channels) < 0.06] = 0
            beta = rng.normal(0, 0.3, channels)
            layer.set_weights(
                [gamma] * layer.scale
                + [beta] * layer.center
                + [
                    values.mean(axis=0) + rng.normal(0, 0.4, channels) * spread,
                    spread**2 * rng.uniform(0.5, 2, channels),
                ]
            )
        x = layer(x, training=False)


def train(model: keras.Model, frames: np.ndarray, rng: np.random.Generator) -> None:
    """Train a few steps towards random classes."""
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(frames, rng.integers(0, 10, len(frames)), batch_size=50, epochs=1, verbose=0)


def takes_sign(layer: layers.Layer) -> bool:
    """Return whether a layer takes the sign of its input."""
    ways = [layer, getattr(layer, "input_quantizer", None)]
    if not is_weighted(layer):
        ways.append(getattr(layer, "activation", None))
    return any(isinstance(way, lq.quantizers.Quantizer) for way in ways)


def is_softmax(layer: layers.Layer) -> bool:
    """Return whether a layer ends in a softmax."""
    activation = getattr(layer, "activation", None)
    return isinstance(layer, layers.Softmax) or activation is keras.activations.softmax


def run(model: keras.Model, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Run a chain layer by layer and return what `CASE.npz` holds, but for frames and classes."""
    chain = list(chain_of(model))
    last = max(place for place, layer in enumerate(chain) if is_weighted(layer))
    x = tf.constant(frames)
    margin, rounded = np.inf, False
    result: dict[str, np.ndarray] = {}
    for place, layer in enumerate(chain):
        if takes_sign(layer) and rounded:
            values = np.abs(x.numpy())
            margin = min(margin, values[values > 0].min() / x.numpy().std())
        before, x = x, layer(x, training=False)
        rounded = rounded or bool(layer.weights)
        if place == last:
            sums = dot_products(layer, before)
            result["accumulators"] = sums.sum(axis=(1, 2)) if sums.ndim == 4 else sums
            result["slopes"] = np.ones(sums.shape[-1], np.int8)
        if place > last and isinstance(layer, layers.BatchNormalization) and layer.scale:
            result["slopes"] = np.sign(layer.gamma.numpy()).astype(np.int8)
        if is_weighted(layer) and is_softmax(layer):
            result["logits"] = dot_products(layer, before) + layer.bias.numpy()
        elif not is_softmax(layer):
            result["logits"] = x.numpy()
    result["logits"] = result["logits"].reshape(len(frames), -1)
    return {**result, "margin": np.float64(margin)}


def dot_products(layer: layers.Layer, x: tf.Tensor) -> np.ndarray:
    """Return a layer's sums of integers weighted with -1 and +1, before bias and scale."""
    config = {**layer.get_config(), "name": "bare", "use_bias": False, "activation": None}
    bare = type(layer).from_config(config)
    bare.build(x.shape)
    bare.set_weights([np.where(layer.get_weights()[0] >= 0, 1.0, -1.0)])
    sums = bare(x).numpy()
    if not np.array_equal(sums, np.rint(sums)):
        raise RuntimeError(f"{layer.name}: its sums are no integers")
    return sums.astype(np.int64)


def frames_of(case: Case, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return frames as the user of the hardware has them."""
    if case.frames == "bytes":
        return rng.integers(0, 256, (FRAMES, *shape), np.uint8)
    return rng.normal(0, 1, (FRAMES, *shape)).astype(np.float32)


def scaled(case: Case, x: np.ndarray) -> np.ndarray:
    """Return frames as the network takes them."""
    x = x.astype(np.float32)
    return x / np.float32(127.5) - 1 if case.options else x


def attempt(name: str, case: Case, folder: Path, seed: int) -> str:
    """Write all files of a case and return a line about it; see `write`."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = case.build()
    x = frames_of(case, model.input_shape[1:], rng)
    frames = scaled(case, x)
    if not case.obstacles:
        randomize(model, frames[:100], case, rng)
    if case.trained:
        train(model, frames[:300], rng)
    paths = [folder / f"{name}.keras", folder / f"{name}.h5"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
        for path in paths:
            model.save(path)
    facts = {"frames": case.frames, "options": case.options, "obstacles": case.obstacles}
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    if case.obstacles:
        return "to be refused"

    loaded = [keras.models.load_model(path, compile=False) for path in paths]
    outputs, other = (m.predict(frames, batch_size=250, verbose=0) for m in loaded)
    if not np.array_equal(outputs, other):
        raise RuntimeError(f"{name}: Larq's own predictions from the two files differ")
    results = run(model, frames)
    classes = outputs.reshape(FRAMES, -1).argmax(axis=1)
    if not np.array_equal(classes, results["logits"].argmax(axis=1)):
        raise RuntimeError(f"{name}: the network run layer by layer has other classes")
    different = len(set(classes))
    if different < FEWEST_CLASSES:
        raise TooClose(f"{name}: the frames fall into {different} classes only")
    if results["margin"] < SMALLEST_MARGIN:
        raise TooClose(f"{name}: a sign hangs on rounding ({results['margin']:.1e})")
    np.savez_compressed(folder / f"{name}.npz", x=x, classes=classes, **results)
    return f"{different} classes, margin {results['margin']:.1e}"


def write(name: str, case: Case, folder: Path) -> str:
    """Write all files of a case and return a line about it.

    Training does not give the same on every processor, and a network in which a sign hangs on
    rounding is thrown away for another one.
    """
    for number in range(ATTEMPTS):
        try:
            return attempt(name, case, folder, zlib.crc32(f"{name} {number}".encode()))
        except TooClose as error:
            reason = error
    raise reason


def main(folder: str, *names: str) -> None:
    """Write the cases named, or all."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name in names or CASES:
        start = time.perf_counter()
        outcome = write(name, CASES[name], target)
        print(f"{name}: {outcome}, {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
