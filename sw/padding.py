"""Padding: more channels than the network has, so that there are more ways to fold its layers.

127 neurons can only be folded into 1 or 127; as 128 they have eight foldings. This module adds
channels that mean nothing: a neuron that is added never fires, and in the layer behind it the
synapses that are added take what such a neuron gives, a constant -1, with weights of +1 and -1 in
turn. Pairs cancel out; what is left of an odd number is the same for every frame and moves the
thresholds. So the padded network computes what the network does, bit for bit, in the channels that
were there before.

Where more is needed than other weights, the pipeline has a stage that adds zeros to the frame's
channels or takes classes away (`xnorflow.hw.resize`). A neuron that is added to the last layer or
before an average pool is a copy of the first one.

A *width* is a number of channels that pass between two layers. Widths come as a list: that of the
frame first, then that of each layer's outputs, without layers on shortcuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xnorflow.lowered import (
    LoweredJoin,
    LoweredLayer,
    LoweredMagnitude,
    LoweredNetwork,
    LoweredOutput,
    LoweredPool,
    LoweredStage,
    LoweredThreshold,
    Window,
)

__all__ = ["MOST_PADDING", "blocks", "cut", "legal_widths", "own_widths", "pad", "pad_block"]

#: Largest share of channels that padding may add.
MOST_PADDING = 1 / 3

Tail = tuple[LoweredPool | LoweredThreshold | LoweredJoin, ...]
"""Stages that have no weights."""

Block = tuple[LoweredLayer, Tail]
"""A layer, and the stages behind it that have no weights."""


def blocks(lowered: LoweredNetwork) -> list[Block]:
    """Cut the main way of a network into its layers, each with what follows it."""
    return cut(lowered.stages)[1]


def cut(stages: Sequence[LoweredStage]) -> tuple[tuple[LoweredStage, ...], list[Block]]:
    """Cut stages into what comes before the first layer, and the layers with what follows each."""
    before: list[LoweredStage] = []
    parts: list[tuple[LoweredLayer, list[LoweredPool | LoweredThreshold | LoweredJoin]]] = []
    for stage in stages:
        if isinstance(stage, LoweredLayer):
            parts.append((stage, []))
        elif not parts:
            before.append(stage)
        else:
            assert not isinstance(stage, LoweredMagnitude)  # of what a shortcut begins with
            parts[-1][1].append(stage)
    return tuple(before), [(layer, tuple(tail)) for layer, tail in parts]


def own_widths(lowered: LoweredNetwork) -> list[int]:
    """Return the widths of a network as it is."""
    layers = lowered.main_layers
    channels = layers[0].mw if layers[0].window is None else layers[0].window.shape[2]
    return [channels, *(layer.mh for layer in layers)]


def legal_widths(lowered: LoweredNetwork) -> list[list[int]]:
    """Return the legal widths at each place, in rising order, the network's own first.

    These are the next multiples of the powers of two, with at most `MOST_PADDING` added. Channels
    of grouped convolutions are not padded, nor is a network with shortcuts. An even number must be
    added where nothing but pairs that cancel out can be exact: before a convolution with true zeros
    at the border, and before an average pool.
    """
    parts = blocks(lowered)
    if any(isinstance(stage, LoweredJoin) for stage in lowered.stages):
        return [[width] for width in own_widths(lowered)]
    result = []
    for place, width in enumerate(own_widths(lowered)):
        around = [layer for layer, _ in parts[max(place - 1, 0) : place + 1]]
        legal = {width}
        if all(layer.groups == 1 for layer in around):
            powers = [1 << n for n in range(width.bit_length() + 1)]
            legal |= {-(-width // power) * power for power in powers}
        legal = {w for w in legal if w <= width * (1 + MOST_PADDING)}
        if place < len(parts):
            legal = {w for w in legal if (w - width) % 2 == 0 or not _needs_pairs(parts[place])}
        result.append(sorted(legal))
    return result


def _needs_pairs(block: Block) -> bool:
    """Return whether only an even number of channels can be added before a layer."""
    layer, tail = block
    return layer.levels == 1 and (layer.zero_padded or (layer.thresholds is None and bool(tail)))


def _added_weights(layer: LoweredLayer, count: int) -> NDArray[np.integer]:
    """Return weights of synapses that are added, shape (MH, 1, count), of all planes alike."""
    signs = np.where(np.arange(count) % 2, 1, -1) if layer.levels == 1 else np.ones(count, int)
    gains = np.ones(layer.mh, int)
    if layer.coefficients is not None:
        gains = layer.coefficients.sum(axis=0, dtype=np.int64)
    return (gains[:, None, None] * signs).astype(layer.weights.dtype)


def pad(lowered: LoweredNetwork, widths: Sequence[int]) -> LoweredNetwork:
    """Return the network with `widths`, one of `legal_widths` at each place.

    Its layers take frames and give scores of these widths too; its input is that of `lowered`.
    """
    own = own_widths(lowered)
    if list(widths) == own:
        return lowered
    stages: list[LoweredStage] = []
    output = lowered.output
    for place, block in enumerate(blocks(lowered)):
        (layer, tail), output = pad_block(block, output, own[place], *widths[place : place + 2])
        stages += [layer, *tail]
    return replace(lowered, stages=tuple(stages), output=output)


def pad_block(
    block: Block, output: LoweredOutput, channels: int, width: int, o_width: int
) -> tuple[Block, LoweredOutput]:
    """Pad a layer, what follows it and, if it is the last one, the affine.

    Parameters
    ----------
    block : (LoweredLayer, tuple)
    output : LoweredOutput
        Of the network; it changes only behind the last layer.
    channels, width : int
        Channels that come in, as they are and as they shall be.
    o_width : int
        Neurons that the layer shall have.
    """
    layer, tail = block
    last = layer.thresholds is None and not any(isinstance(p, LoweredThreshold) for p in tail)
    added, neurons = width - channels, o_width - layer.mh
    if added == neurons == 0:
        return block, output
    # Each pixel (or each tap of a window) has its channels side by side.
    pixels = layer.weights.reshape(layer.mh, -1, channels)
    extra = _added_weights(layer, added)
    columns = np.broadcast_to(extra, (layer.mh, pixels.shape[1], added))
    weights = np.concatenate([pixels, columns], axis=2).reshape(layer.mh, -1)
    # A bit that is added is 0, which means -1; an integer is 0.
    shift = np.zeros(layer.mh, np.int64)
    if layer.levels == 1:
        shift = -extra.sum(axis=(1, 2), dtype=np.int64) * pixels.shape[1]
    weights = np.concatenate([weights, np.repeat(weights[:1], neurons, axis=0)])
    coefficients = layer.coefficients
    if coefficients is not None:
        copies = np.repeat(coefficients[:, :1], neurons, axis=1)
        coefficients = np.concatenate([coefficients, copies], axis=1)
    window = _widened(layer.window, width)
    padded = replace(layer, weights=weights, coefficients=coefficients, window=window)
    if layer.thresholds is not None:
        never = int(padded.acc_max[0]) + 1
        thresholds = _with_never(layer.thresholds.astype(np.int64) + shift, neurons, never)
        padded = replace(padded, thresholds=thresholds)
    elif last:
        output = _padded_output(output, shift, neurons)
    high = int(layer.acc_max.max())
    parts: list[LoweredPool | LoweredThreshold] = []
    for part in tail:
        assert not isinstance(part, LoweredJoin)
        if isinstance(part, LoweredThreshold):
            thresholds = _with_never(part.thresholds, neurons, high + 1)
            shape = (*part.shape[:-1], o_width)
            parts.append(replace(part, thresholds=thresholds, shape=shape))
        else:
            window = _widened(part.window, o_width)
            assert window is not None
            falling = part.falling
            if falling is not None:
                falling = _extended(falling, neurons, False)
            parts.append(replace(part, window=window, falling=falling))
            high = part.o_range[1]
    return (padded, tuple(parts)), output


def _widened(window: Window | None, width: int) -> Window | None:
    """Return a window on an image of `width` channels; padded taps of added ones hold 0."""
    if window is None:
        return None
    pad_values = window.pad
    if pad_values is not None:
        pad_values = _extended(pad_values, width - len(pad_values), 0)
    return replace(window, shape=(*window.shape[:2], width), pad=pad_values)


def _with_never(thresholds: NDArray[np.integer], neurons: int, never: int) -> NDArray[np.int32]:
    """Return thresholds of so many more channels, none of which is ever reached."""
    more = np.full((*thresholds.shape[:-1], neurons), never)
    return np.concatenate([thresholds, more], axis=-1).astype(np.int32)


def _padded_output(output: LoweredOutput, shift: NDArray[np.int64], neurons: int) -> LoweredOutput:
    """Return the affine of accumulators that are larger by `shift`, and of copies of class 0."""
    values = (
        output.scale,
        output.offset - shift * output.scale,
        output.logit_scale,
        output.logit_offset - shift * output.logit_scale,
    )
    return LoweredOutput(*(_extended(array, neurons, array[0]) for array in values))


def _extended(array: NDArray, count: int, value: float) -> NDArray:
    return np.concatenate([array, np.full(count, value, array.dtype)])
