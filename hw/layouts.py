"""Payload layouts of the streams, so that no stage passes bare slices.

Lane 0 is the lowest channel (or class) and sits in the least significant bits.
"""

from amaranth import signed, unsigned
from amaranth.hdl import Shape
from amaranth.lib import data
from amaranth.utils import ceil_log2

__all__ = ["bits", "results", "scores"]


def bits(lanes: int) -> data.ArrayLayout:
    """Return the payload of `lanes` binary activations (bit 1 means +1)."""
    return data.ArrayLayout(unsigned(1), lanes)


def scores(lanes: int, shape: Shape) -> data.ArrayLayout:
    """Return the payload of `lanes` integers of `shape`: accumulators or scores."""
    return data.ArrayLayout(shape, lanes)


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
