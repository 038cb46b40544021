"""A second opinion on every import: the graph and what it became, on a few random frames.

Three computations are compared, so that a difference can be placed:

- the graph, by the reference executor of onnx (:mod:`xnorflow.reference`), which knows nothing of
  our frontend; it comes with the package that reads the files, so there is nothing to install,
- the imported `Network` in float64 (:mod:`xnorflow.float_model`), tensor by tensor: the first one
  that differs tells which node was imported wrongly,
- the golden model, which the hardware is checked against: if only this one differs, the lowering
  is wrong.

The golden model is exact, as if computed with real numbers; the other two have rounding noise.
Where the input of a sign or quantizer lies on a step but for noise, either side of the step may be
right as far as they can tell. A frame in which such a number differs is put aside from there on,
and counted; this is no difference, and no agreement either.

Frames are drawn around the first thresholds, some of them right on and right below these, so that
bits are balanced and a threshold that is off by one float32 shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from xnorflow import golden
from xnorflow.errors import WorkFailed
from xnorflow.float_model import Tensor, evaluate
from xnorflow.frontend.chain import Layout
from xnorflow.frontend.graph import Graph
from xnorflow.frontend.walk import Imported
from xnorflow.lowered import LoweredJoin, LoweredLayer, LoweredMagnitude, LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import (
    AveragePool,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MaxPool,
    MultiThreshold,
    Network,
    PixelGain,
    Quantize,
    Sign,
)
from xnorflow.reference import ReferenceFailed, execute

__all__ = ["ImportCheck", "check_import", "compare_network", "lower_verified", "verify"]

_FRAMES = 4
_TOLERANCE = 1e-11
"""Difference of two tensors that is none, relative to the terms they were added up from."""

_BUDGET = 400_000_000
"""Multiplications that are done unasked; they take up to half a second."""

_PER_WEIGHT = 20
"""Multiplications that take as long as reading one weight."""

_MOST_VALUES = 1 << 24
"""Numbers of a batch that are computed at once."""

_SMALLEST = 1e-30
"""Smallest magnitude of a threshold that is no noise next to zero; its inverse is the largest."""

_STEP = 0.25
"""Distance at which two integers are different."""

_INTEGERS: dict[int, type] = {TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8}
_MEND = "please report it with the file, or go on without this check with `verify_import=False`"


@dataclass(frozen=True)
class ImportCheck:
    """What was compared, without a difference.

    Attributes
    ----------
    frames : int
        Random frames that were computed.
    tensors : int
        Tensors of the graph that were compared.
    inconclusive : int
        Frames put aside somewhere on the way.
    seconds : float
        What it took.
    note : str
        What the user should know, one sentence: that nothing was compared, or how many frames were
        put aside; else empty.
    """

    frames: int
    tensors: int
    inconclusive: int
    seconds: float
    note: str = ""


def lower_verified(
    imported: Imported, wanted: bool | None = None
) -> tuple[Network, LoweredNetwork]:
    """Lower an imported network and check both steps, as :func:`verify` says.

    Returns
    -------
    network : Network
        The imported one; its notes tell what is rounded, and if it was not checked.
    lowered : LoweredNetwork

    Raises
    ------
    UserError
        The network cannot be lowered.
    WorkFailed
        The check found a difference.
    """
    network = imported.network
    lowered = lower(network)
    check = verify(imported, lowered, wanted)
    notes = [_rounding_note(part) for part in _magnitudes(lowered) if part.error]
    if check is not None and check.note:
        notes.append(check.note)
    if notes:
        network = replace(network, notes=(*network.notes, *notes))
    return network, lowered


def _magnitudes(lowered: LoweredNetwork) -> list[LoweredMagnitude]:
    """Return what a network's gains of pixels are made of, in their order."""
    paths = (stage.path for stage in lowered.stages if isinstance(stage, LoweredJoin))
    return [part for path in paths for part in path if isinstance(part, LoweredMagnitude)]


def _rounding_note(magnitude: LoweredMagnitude) -> str:
    layer = magnitude.name.removesuffix("_magnitude")
    return (
        f"The gains of pixels (XNOR-Net's K) of layer {layer!r} are rounded to integers: each is "
        f"off by at most {magnitude.error:.2g}."
    )


def verify(
    imported: Imported, lowered: LoweredNetwork, wanted: bool | None = None
) -> ImportCheck | None:
    """Check an import as the user wants it.

    Parameters
    ----------
    imported : Imported
    lowered : LoweredNetwork
        What its network was lowered to.
    wanted : bool, optional
        Whether to check; without it, if that takes no more than about half a second, with fewer
        frames if need be.

    Returns
    -------
    ImportCheck or None
        None if it is not wanted.

    Raises
    ------
    WorkFailed
        As :func:`check_import`; also if the check is wanted but the graph cannot be executed.
    """
    if wanted is False:
        return None
    frames = _FRAMES if wanted else _affordable_frames(imported, lowered)
    if not frames:
        macs = sum(layer.macs for layer in lowered.layers)
        why = f"that would take a while, with {macs:,} operations a frame"
        return ImportCheck(0, 0, 0, 0.0, _not_checked(why))
    check = check_import(imported, lowered, frames=frames)
    if wanted and not check.frames:
        raise WorkFailed(f"{imported.graph.path}: {check.note}")
    return check


def _affordable_frames(imported: Imported, lowered: LoweredNetwork) -> int:
    """Return the number of frames that are computed unasked."""
    layers = lowered.layers
    macs = sum(layer.macs for layer in layers)
    left = _BUDGET - _PER_WEIGHT * sum(layer.weights.size for layer in layers)
    # The windows of an image are the largest temporaries.
    windows = max(layer.positions * layer.mw for layer in layers)
    frames = min(left // macs, _MOST_VALUES // windows)
    return min(frames, _FRAMES) if frames >= (imported.graph.batch or 1) else 0


def check_import(
    imported: Imported, lowered: LoweredNetwork, *, frames: int = _FRAMES, seed: int = 0
) -> ImportCheck:
    """Compare a graph, the network that it became, and what that was lowered to.

    Parameters
    ----------
    imported : Imported
    lowered : LoweredNetwork
        What its network was lowered to.
    frames : int
        Number of random frames; more where the graph fixes a larger batch.
    seed : int
        Of the frames.

    Returns
    -------
    ImportCheck
        If there is no difference. Without any frame if the reference executor cannot run the
        graph; `note` says why.

    Raises
    ------
    WorkFailed
        There is a difference; the message names the first tensor that differs and its node, or the
        first layer that was lowered wrongly.
    """
    start = perf_counter()
    graph = imported.graph
    batch = graph.batch or 1
    if batch * prod(graph.input_shape) > _MOST_VALUES:
        why = f"its batch of {batch} frames takes too much memory"
        return ImportCheck(0, 0, 0, perf_counter() - start, _not_checked(why))
    x = _frames(imported, lowered, -(-frames // batch) * batch, np.random.default_rng(seed))
    errors = [part.error for part in _magnitudes(lowered)]
    try:
        reference, own, conclusive = compare_network(imported, x, errors)
    except ReferenceFailed as failure:
        why = f"onnx's reference executor does not run it ({failure})"
        return ImportCheck(0, 0, 0, perf_counter() - start, _not_checked(why))
    _compare_golden(imported, lowered, x, own, conclusive)
    _compare_outputs(imported, lowered, reference, own[-1], conclusive)
    inconclusive = int(np.count_nonzero(~conclusive))
    note = ""
    if inconclusive:
        note = (
            f"The check of the import was inconclusive for {inconclusive} of {len(x)} random "
            f"frames, in which a quantizer's input lies on a step but for rounding noise."
        )
    tensors = len(set(filter(None, imported.tensors)))
    return ImportCheck(len(x), tensors, inconclusive, perf_counter() - start, note)


def compare_network(
    imported: Imported, x: NDArray, errors: Sequence[float] = ()
) -> tuple[dict[str, NDArray], list[Tensor], NDArray[np.bool_]]:
    """Compare a graph and the network that it became, tensor by tensor.

    Parameters
    ----------
    imported : Imported
    x : ndarray, shape (N, *network.input_shape)
        Frames; a multiple of the graph's batch.
    errors : sequence of float
        Bounds on what the lowered network's gains of pixels are off.

    Returns
    -------
    reference : dict of str to ndarray
        Tensors of the graph that the network has as well, its outputs, and the scores that classes
        were made of.
    own : list of Tensor
        The frames and the tensor behind every operation of the network, see `Network.flow`.
    conclusive : ndarray of bool, shape (N,)
        Frames in which rounding noise decided no sign another way.

    Raises
    ------
    WorkFailed
        There is a difference; the message names the first tensor that differs and its node.
    ReferenceFailed
        The reference executor cannot run the graph.
    """
    graph = imported.graph
    ranked = filter(None, (_ranked(graph, output) for output in graph.outputs))
    compared = filter(None, imported.tensors)
    wanted = list(dict.fromkeys([*compared, *graph.outputs, *ranked]))
    reference = execute(graph, _in_graph(imported, x), wanted, imported.options.sign_zero)
    own = list(evaluate(imported.network, x, errors))
    conclusive = np.ones(len(x), bool)
    aside = np.zeros(len(x), bool)
    for index, step in enumerate(imported.network.flow()):
        if isinstance(step.op, Dense | Conv2d):
            conclusive &= ~aside
        if name := imported.tensors[index]:
            aside = _compare(imported, index, reference[name], own[index + 1], conclusive)
    return reference, own, conclusive & ~aside


def _not_checked(why: str) -> str:
    return (
        f"The import was not checked against onnx's reference executor: {why}; --verify-import "
        f"(in Python, verify_import=True) insists on it."
    )


# Frames


def _frames(
    imported: Imported, lowered: LoweredNetwork, count: int, rng: np.random.Generator
) -> NDArray:
    """Draw frames, shape (count, *network.input_shape)."""
    quantizer, input_type = lowered.input, imported.graph.input_type
    shape = (count, *quantizer.shape)
    if quantizer.is_bytes:
        return rng.integers(0, 256, shape, np.uint8)
    # The smallest numbers stand for "above zero" and the largest for never: neither can be met.
    magnitudes = np.abs(quantizer.thresholds)
    met = (magnitudes >= _SMALLEST) & (magnitudes <= 1 / _SMALLEST)
    thresholds = np.where(met, quantizer.thresholds, 0).astype(np.float32)
    levels, features = thresholds.shape
    column = np.arange(quantizer.features) % features
    near = thresholds[rng.integers(0, levels, (count, quantizer.features)), column]
    spread = np.abs(thresholds).max(axis=0)
    if levels > 1:
        spread = np.maximum(np.ptp(thresholds, axis=0), spread) / levels
    spread = np.where(spread == 0, 1, spread)[column].astype(np.float64)
    noise = rng.uniform(-1, 1, near.shape)
    if input_type in _INTEGERS or imported.options.scales_input:
        limits = np.iinfo(_INTEGERS.get(input_type, np.uint8))
        x = np.rint(near + np.maximum(spread, 1) * noise)
        return np.clip(x, int(limits.min), int(limits.max)).astype(limits.dtype).reshape(shape)
    # A grid, on which sums are exact, if thresholds are.
    grid = 2.0 ** (np.floor(np.log2(spread)) - 8)
    x = (np.rint((near + spread * noise) / grid) * grid).astype(np.float32)
    below = np.where(near == 0, -grid, np.nextafter(near, np.float32(-np.inf)))
    place = rng.integers(0, 8, near.shape)
    x = np.where(place == 0, near, np.where(place == 1, below, x))
    return x.astype(np.float32).reshape(shape)


def _in_graph(imported: Imported, x: NDArray) -> NDArray:
    """Return frames as the graph takes them."""
    graph, options = imported.graph, imported.options
    if options.scales_input:
        x = x * float(options.input_scale) + float(options.input_offset)
    if imported.frame_layout is Layout.CHANNELS_FIRST:
        x = np.moveaxis(x, -1, 1)
    return x.astype(_INTEGERS.get(graph.input_type, np.float64))


# The graph and the network


def _compare(
    imported: Imported,
    index: int,
    reference: NDArray,
    own: Tensor,
    conclusive: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Compare the tensor behind an operation; return the frames in which noise made it differ.

    Up to the next layer a later sign may set that right again, as in ``sign(sign(x) + 0.1)``.
    """
    name, layout = imported.tensors[index], imported.layouts[index]

    def as_in_graph(array: NDArray) -> NDArray:
        moved = np.moveaxis(array, -1, 1) if layout is Layout.CHANNELS_FIRST else array
        return moved.reshape(reference.shape) if layout is Layout.FLAT else moved

    frames = len(own.values)
    if layout is Layout.FLAT:
        same_shape = reference.size == own.values.size and len(reference) == frames
    else:
        same_shape = reference.shape == as_in_graph(own.values).shape
    if not same_shape:
        _fail(
            imported,
            name,
            f"frames of shape {reference.shape[1:]}",
            f"frames of shape {own.values.shape[1:]}",
        )
    values = as_in_graph(own.values)
    size = as_in_graph(np.broadcast_to(own.size, own.values.shape))
    with np.errstate(invalid="ignore"):
        differs = ~(np.abs(reference - values) <= _TOLERANCE * size)
    differs[~conclusive] = False
    clear = differs & ~as_in_graph(own.near)
    if clear.any():
        frame, *element = (int(n) for n in np.argwhere(clear)[0])
        place = (frame, *element)
        where = f" (frame {frame}, element {', '.join(map(str, element))})"
        _fail(imported, name, f"{reference[place]:.9g}", f"{values[place]:.9g}", where)
    return differs.reshape(frames, -1).any(axis=1)


def _fail(imported: Imported, name: str, expected: str, got: str, where: str = "") -> None:
    graph = imported.graph
    writer = next((node for node in graph.nodes if name in node.outputs), None)
    raise WorkFailed(
        f"{graph.path}: the import of {writer} is wrong: for tensor {name!r} onnx's reference "
        f"executor gives {expected} and the imported network {got}{where}; {_MEND}"
    )


def _compare_outputs(
    imported: Imported,
    lowered: LoweredNetwork,
    reference: dict[str, NDArray],
    own: Tensor,
    conclusive: NDArray[np.bool_],
) -> None:
    """Compare the classes, which may come after nodes that the import dropped."""
    graph, classes, frames = imported.graph, lowered.classes, len(conclusive)
    best = own.values.reshape(frames, -1).argmax(axis=1)
    for name in graph.outputs:
        given = output = reference[name].reshape(frames, -1)
        source = _ranked(graph, name)
        if source is not None:
            output = reference[source].reshape(frames, -1)
        if output.shape[1] != classes or (source and given.dtype.kind not in "iu"):
            continue
        chosen = given[:, 0] if source else output.argmax(axis=1)
        legal = (chosen >= 0) & (chosen < classes)
        largest = output.max(axis=1)
        noise = _TOLERANCE * np.abs(output).max()
        right = legal & (_at(output, chosen * legal) >= largest - noise)
        right &= _at(output, best) >= largest - noise
        wrong = np.flatnonzero(conclusive & ~right)
        if wrong.size:
            frame = int(wrong[0])
            numbers = f"class {chosen[frame]}", f"class {best[frame]}"
            _fail(imported, name, *numbers, f" (frame {frame})")


def _ranked(graph: Graph, tensor: str) -> str | None:
    """Return what `ArgMax` or `TopK` made classes of, or None if they did not make this tensor."""
    for node in reversed(graph.live):
        if tensor in node.outputs:
            tensor = next((source for source in node.inputs if source in graph.computed), "")
            if node.kind in ("ArgMax", "TopK"):
                return tensor
    return None


def _at(rows: NDArray, columns: NDArray) -> NDArray:
    return rows[np.arange(len(rows)), columns]


# The network and the golden model


def _compare_golden(
    imported: Imported,
    lowered: LoweredNetwork,
    x: NDArray,
    own: Sequence[Tensor],
    conclusive: NDArray[np.bool_],
) -> None:
    """Compare the golden model, layer by layer; mark the frames in which it is inconclusive."""
    frames = len(x)
    quantized = golden.quantize(lowered, x)
    sent = [quantized, *golden.activations(lowered, quantized)]
    steps = lowered.flow()

    def layer_before(place: int) -> str:
        while place >= 0 and not isinstance(steps[place].op, LoweredLayer):
            place = steps[place].takes[0]
        return f"layer {steps[place].op.name!r}" if place >= 0 else "the frame"

    for step in steps:
        stage, place = step.op, step.takes[0]
        if not isinstance(stage, LoweredLayer):
            continue
        values, doubtful = _input_of(imported, own, stage.name)
        differs = _unlike(sent[place + 1].reshape(values.shape), values, doubtful)
        clear = conclusive & (differs & ~doubtful).reshape(frames, -1).any(axis=1)
        if clear.any():
            what = "bits" if stage.levels == 1 else "numbers"
            _blame(imported, layer_before(place), clear, f"other {what} than")
        conclusive &= ~differs.reshape(frames, -1).any(axis=1)
    prediction = golden.predict_quantized(lowered, quantized)
    logits = own[-1].values.reshape(frames, -1)
    bound = _TOLERANCE * own[-1].size + own[-1].blur
    noise = np.broadcast_to(bound, own[-1].values.shape).reshape(frames, -1)
    wrong = (np.abs(prediction.logits - logits) > noise).any(axis=1)
    wrong |= _at(logits, prediction.classes) < logits.max(axis=1) - noise.max(axis=1)
    if np.any(wrong & conclusive):
        frame = int(np.flatnonzero(wrong & conclusive)[0])
        scores = f"{_shown(prediction.logits[frame])} instead of {_shown(logits[frame])} by"
        _blame(imported, layer_before(len(steps) - 1), wrong & conclusive, scores)


def _blame(imported: Imported, layer: str, frames: NDArray[np.bool_], what: str) -> None:
    raise WorkFailed(
        f"{imported.graph.path}: the lowering of {layer} is wrong: for frame "
        f"{np.flatnonzero(frames)[0]} the golden model gives {what} the imported network, which "
        f"agrees with onnx's reference executor; {_MEND}"
    )


def _shown(logits: NDArray) -> str:
    numbers = [f"{value:.6g}" for value in logits[:10].tolist()]
    return f"({', '.join(numbers)}{', ...' if len(logits) > len(numbers) else ''})"


def _input_of(
    imported: Imported, own: Sequence[Tensor], layer: str
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return the bits, integers or sums that a layer takes, and where noise decided them.

    Maps between these and the layer are left out: they are the business of the layer.

    Returns
    -------
    values, doubtful : ndarray, shape (N, H, W, C) or (N, F)
        In the order of the golden model, rows, columns, channels.
    """
    steps = imported.network.flow()
    (place,) = (
        step.takes[0]
        for step in steps
        if isinstance(step.op, Dense | Conv2d) and step.op.name == layer
    )
    way = []  # the steps before the layer, the nearest first
    while place >= 0:
        way.append(place)
        place = steps[place].takes[0]
    kinds = Sign | Quantize | MultiThreshold | MaxPool | AveragePool | Join | PixelGain
    first = next((n for n, place in enumerate(way) if isinstance(steps[place].op, kinds)), len(way))
    way = way[first:]
    tensor = own[way[0] + 1] if way else own[0]
    values, doubtful = tensor.values, tensor.doubtful
    hidden = any(isinstance(steps[place].op, Dense | Conv2d) for place in way)
    for place in way:
        op, shape = steps[place].op, own[steps[place].takes[0] + 1].values.shape
        if isinstance(op, Dense) or values.ndim > 2:
            break
        if isinstance(op, Flatten) and len(shape) == 4:
            # Bits of the frame may be complemented feature by feature, others only by channels.
            flat = not hidden
            return _as_image(values, op, shape, flat), _as_image(doubtful, op, shape, flat)
    return values, doubtful


def _as_image(array: NDArray, op: Flatten, shape: tuple[int, ...], flat: bool) -> NDArray:
    """Return what a `Flatten` made of images (N, H, W, C) in that order, as images or flat."""
    frames, height, width, channels = shape
    if op.channels_first:
        array = np.moveaxis(array.reshape(frames, channels, height, width), 1, -1)
    return array.reshape((frames, -1) if flat else shape)


def _unlike(integers: NDArray, values: NDArray, doubtful: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where integers are not to values as elsewhere in the channel.

    The lowering may complement bits and count in other units, so that all that can be said is that
    a channel's integers lie on a line over its values.

    Parameters
    ----------
    integers, values, doubtful : ndarray, shape (N, ..., C)
        Doubtful ones are not used to tell the line.
    """
    channels = values.shape[-1]
    x, y = values.reshape(-1, channels), integers.reshape(-1, channels).astype(np.float64)
    hidden = doubtful.reshape(-1, channels)
    first = np.where(hidden, np.inf, x).argmin(axis=0)
    last = np.where(hidden, -np.inf, x).argmax(axis=0)
    (x0, x1), (y0, y1) = (
        (array[first, np.arange(channels)], array[last, np.arange(channels)]) for array in (x, y)
    )
    varies = x1 > x0
    slope = np.divide(y1 - y0, x1 - x0, out=np.zeros(channels), where=varies)
    unlike = np.abs(y - y0 - (x - x0) * slope) > _STEP
    # Different values must be different integers.
    unlike |= (y0 == y1) & (x == x1)
    # Without two values that are sure the others must be alike, or unlike, in both; if none is
    # sure, all of them.
    like = (x == x0) == (y == y0)
    like &= ~hidden.all(axis=0) | like.all(axis=0)
    unknown = hidden & ~varies & ~like
    return (unlike & varies | unknown).reshape(values.shape)
