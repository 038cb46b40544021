"""Payload layouts of the streams, so that no stage passes bare slices.

Lane 0 is the lowest channel (or class) and sits in the least significant bits.
"""

from dataclasses import dataclass

import numpy as np
from amaranth import signed, unsigned
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import data
from amaranth.utils import ceil_log2
from numpy.typing import NDArray

__all__ = ["BITS", "Lanes", "bits", "granules", "results", "scores"]


def bits(lanes: int) -> data.ArrayLayout:
    """Return the payload of `lanes` binary activations (bit 1 means +1)."""
    return data.ArrayLayout(unsigned(1), lanes)


def scores(lanes: int, shape: Shape) -> data.ArrayLayout:
    """Return the payload of `lanes` integers of `shape`: accumulators or scores."""
    return data.ArrayLayout(shape, lanes)


def granules(element: ShapeLike, granule: int, count: int) -> data.ArrayLayout:
    """Return the payload of `count` granules, each of which is data or padding as a whole.

    Parameters
    ----------
    element : ShapeLike
        Shape of a lane.
    granule : int
        Lanes of a granule.
    count : int
        Granules in a beat.

    Returns
    -------
    ArrayLayout of StructLayout
        ``lanes`` (of `element`) and ``pad`` (1: the lanes are true zeros, whatever they hold).
    """
    lane = data.StructLayout({"lanes": data.ArrayLayout(element, granule), "pad": unsigned(1)})
    return data.ArrayLayout(lane, count)


@dataclass(frozen=True)
class Lanes:
    """The kind of a matrix-vector unit's input lanes, and how it counts them.

    Each lane gives an agreement between input and weight, and a neuron counts their sum N, from
    which its accumulator follows: ``acc = unit * N - base``, with a base for each neuron.

    ==========================  ===================================  ====  ====================
    lanes                       agreement                            unit  base
    ==========================  ===================================  ====  ====================
    bits                        ``XNOR(a, w)``                          2  MW
    even granules of bits       ``pad ? 1 of 2 lanes : XNOR``           2  MW
    odd granules of bits        ``pad ? 1 : 2 * XNOR``                  1  MW
    integers u of `width` bits  ``w ? u : ~u``                          1  top * (weights of -1)
    ==========================  ===================================  ====  ====================

    Half the lanes of a padded granule agree, so it adds nothing to the accumulator. ``~u`` is
    ``top - u``: the base takes off what it adds to ``-u``.

    Parameters
    ----------
    width : int
        Bits of a lane: 1 for -1 and +1, 2 to 16 for unsigned integers.
    granule : int, optional
        Lanes that a pad flag is for, with bits that can be true zeros.

    Raises
    ------
    ValueError
        If a parameter is illegal; the message says what would be legal.
    """

    width: int = 1
    granule: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 16:
            raise ValueError(f"width must be 1 to 16, not {self.width!r}")
        if self.granule is not None and self.granule < 1:
            raise ValueError(f"granule must be at least 1, not {self.granule!r}")
        if self.granule is not None and self.width > 1:
            raise ValueError(
                f"granule must be None with lanes of {self.width} bits: a padded integer is a 0"
            )

    @property
    def halves(self) -> bool:
        """Whether agreements are counted twice, so that a padded lane can be half of one."""
        return self.granule is not None and self.granule % 2 == 1

    @property
    def top(self) -> int:
        """Largest agreement of a lane."""
        return 2 if self.halves else (1 << self.width) - 1

    @property
    def unit(self) -> int:
        """What one agreement adds to the accumulator."""
        return 2 if self.top == 1 else 1

    def base(self, weights: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return what each neuron's agreements have to be lessened by, shape (MH,).

        Parameters
        ----------
        weights : ndarray of int, shape (MH, MW)
            -1 or +1.
        """
        if self.width == 1:
            return np.full(len(weights), weights.shape[1], np.int64)
        return self.top * (weights < 0).sum(axis=1, dtype=np.int64)

    def payload(self, simd: int) -> data.ArrayLayout:
        """Return the payload of `simd` lanes.

        Returns
        -------
        ArrayLayout
            ``bits(simd)``, ``granules(1, granule, simd // granule)`` or `simd` integers.
        """
        if self.granule is None:
            return data.ArrayLayout(unsigned(self.width), simd)
        return granules(unsigned(1), self.granule, simd // self.granule)


#: Plain bits.
BITS = Lanes()


def results(lanes: int, width: int, classes: int) -> data.StructLayout:
    """Return the payload of the core's output stream.

    Parameters
    ----------
    lanes : int
        Scores in a beat; divides `classes`.
    width : int
        Bits of a score, two's complement.
    classes : int
        Scores in a frame.

    Returns
    -------
    StructLayout
        ``scores`` (lanes of signed), ``index`` (the arg-max so far, lowest index on a tie; the
        frame's class in its last beat) and ``last`` (set in a frame's last beat).
    """
    return data.StructLayout(
        {
            "scores": scores(lanes, signed(width)),
            "index": unsigned(max(1, ceil_log2(classes))),
            "last": unsigned(1),
        }
    )
