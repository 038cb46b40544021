"""The lowered network: integers only, the one meaning that golden model and hardware share.

A frame enters as bits (bit 1 means +1). A hidden layer gives ``out = 1 iff acc >= threshold`` with
``acc = 2 * popcount(XNOR(a, w)) - MW``; the last layer gives ``score = scale * acc + offset`` per
class, and the class is the arg-max of the scores (ties: lowest index).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["InputThresholds", "LoweredDense", "LoweredNetwork", "LoweredOutput"]


@dataclass(frozen=True, eq=False)
class InputThresholds:
    """Binarization of the raw frame: ``bit = x >= threshold``, feature by feature.

    Attributes
    ----------
    shape : tuple of int
        Shape of a raw frame, without the batch dimension.
    thresholds : ndarray of float32, shape (F,)
        The smallest float32 for which the bit is 1 (``-inf``: always, ``+inf``: never); exact for
        every float32 and every integer input of up to 24 bits.
    """

    shape: tuple[int, ...]
    thresholds: NDArray[np.float32]

    def bits(self, x: NDArray) -> NDArray[np.bool_]:
        """Binarize frames ``x`` of shape (N, *shape) to bits of shape (N, F)."""
        flat = np.asarray(x).reshape(len(x), len(self.thresholds)).astype(np.float32, copy=False)
        return flat >= self.thresholds


@dataclass(frozen=True, eq=False)
class LoweredDense:
    """A binary layer in integers.

    Attributes
    ----------
    name : str
        The layer's name in the network.
    weights : ndarray of int8, shape (MH, MW)
        Entries -1 and +1; polarity folds already applied.
    thresholds : ndarray of int32, shape (MH,), or None
        Thresholds on the accumulator, in ``-MW .. MW + 1`` (always on .. dead) and of the
        parity that an accumulator can have or ``MW + 1``; None in the last layer.
    """

    name: str
    weights: NDArray[np.int8]
    thresholds: NDArray[np.int32] | None

    @property
    def mh(self) -> int:
        """Number of neurons (outputs)."""
        return int(self.weights.shape[0])

    @property
    def mw(self) -> int:
        """Number of synapses of a neuron (inputs)."""
        return int(self.weights.shape[1])


@dataclass(frozen=True, eq=False)
class LoweredOutput:
    """The last layer's affine, in integers.

    Attributes
    ----------
    scale, offset : ndarray of int64, shape (classes,)
        ``score = scale * acc + offset``; ranks the classes exactly as the network's real-valued
        logits do, equal ones by lowest index, for every accumulator value that can occur.
    logit_scale, logit_offset : ndarray of float64, shape (classes,)
        The network's own logits, ``logit_scale * acc + logit_offset``, for display.
    """

    scale: NDArray[np.int64]
    offset: NDArray[np.int64]
    logit_scale: NDArray[np.float64]
    logit_offset: NDArray[np.float64]

    @property
    def is_identity(self) -> bool:
        """Whether the scores are the accumulators themselves."""
        return bool(np.all(self.scale == 1) and np.all(self.offset == 0))


@dataclass(frozen=True, eq=False)
class LoweredNetwork:
    """What the hardware computes.

    Attributes
    ----------
    name : str
        The network's name.
    input : InputThresholds
        How a raw frame becomes bits (done by the host).
    layers : tuple of LoweredDense
        In data-flow order; only the last has no thresholds.
    output : LoweredOutput
        From last accumulators to scores.
    """

    name: str
    input: InputThresholds
    layers: tuple[LoweredDense, ...]
    output: LoweredOutput

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.layers[-1].mh

    def digest(self) -> str:
        """Return a 64-digit SHA-256 over everything that the outputs depend on."""
        h = hashlib.sha256()
        h.update(np.asarray(self.input.thresholds, "<f4").tobytes())
        for layer in self.layers:
            h.update(repr(layer.weights.shape).encode())
            h.update(layer.weights.tobytes())
            if layer.thresholds is not None:
                h.update(np.asarray(layer.thresholds, "<i4").tobytes())
        for values in (self.output.scale, self.output.offset):
            h.update(np.asarray(values, "<i8").tobytes())
        return h.hexdigest()
