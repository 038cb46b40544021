"""Where the windows of convolutions and pools lie, and `Pad`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from xnorflow.frontend.chain import Chain, Layout, Padding
from xnorflow.frontend.graph import MAX_FRAME, Node

__all__ = ["Window", "pad", "window"]

_NO_PADDING = (0, 0, 0, 0)


@dataclass(frozen=True)
class Window:
    """Windows over an image.

    Attributes
    ----------
    kernel, stride, dilation : tuple of int
        (vertical, horizontal).
    padding : tuple of int
        (top, left, bottom, right).
    out : tuple of int
        Rows and columns of windows.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    out: tuple[int, int]


def window(chain: Chain, node: Node, kernel: Sequence[int] | None = None) -> Window:
    """Return the windows that a node's attributes tell.

    Parameters
    ----------
    chain : Chain
        At an image.
    node : Node
    kernel : sequence of int, optional
        Size of the weights; the attribute `kernel_shape` may repeat it.
    """
    size = chain.image(node)[:2]
    kernel_shape = _pair(chain, node, "kernel_shape", kernel)
    if kernel is not None and kernel_shape != tuple(kernel):
        chain.graph.refuse(
            node,
            f"has the kernel_shape {kernel_shape} but weights of {tuple(kernel)}",
            "make both equal",
        )
    stride = _pair(chain, node, "strides", (1, 1))
    dilation = _pair(chain, node, "dilations", (1, 1))
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel_shape, dilation, strict=True))
    padding = _padding(chain, node, size, extent, stride)
    rest = [size[axis] + padding[axis] + padding[axis + 2] - extent[axis] for axis in range(2)]
    if min(rest) < 0:
        chain.graph.refuse(
            node,
            f"has windows of {extent[0]} x {extent[1]} pixels, larger than its image of "
            f"{size[0]} x {size[1]} with the padding {padding}",
            "give a smaller kernel or a larger image",
        )
    uneven = any(left % step for left, step in zip(rest, stride, strict=True))
    if uneven and chain.graph.integer(node, "ceil_mode", 0):
        chain.obstacle(
            node,
            "has a last window that reaches beyond its image (ceil_mode = 1)",
            "give ceil_mode = 0, and pads at the end if need be",
        )
    rows, columns = (left // step + 1 for left, step in zip(rest, stride, strict=True))
    if rows * columns > MAX_FRAME:
        chain.graph.refuse(node, f"makes images of {rows} x {columns} pixels", "give less padding")
    return Window(kernel_shape, stride, dilation, padding, (rows, columns))


def _pair(chain: Chain, node: Node, key: str, default: Sequence[int] | None) -> tuple[int, int]:
    """Return an attribute of two positive integers."""
    given = default is None or key in node.attributes
    values = chain.graph.integers(node, key) if given else list(default or ())
    if len(values) != 2 or min(values) < 1:
        chain.graph.refuse(
            node, f"has {key} = {values}", "give two positive integers, one for each axis"
        )
    return values[0], values[1]


def _padding(
    chain: Chain, node: Node, size: Sequence[int], extent: Sequence[int], stride: Sequence[int]
) -> tuple[int, int, int, int]:
    auto = chain.graph.text(node, "auto_pad", "NOTSET")
    if auto == "VALID":
        return _NO_PADDING
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        # As many windows as strides begin in the image, the padding split in two halves.
        totals = [
            max((-(-n // s) - 1) * s + e - n, 0)
            for n, e, s in zip(size, extent, stride, strict=True)
        ]
        less = [total // 2 for total in totals]
        more = [total - half for total, half in zip(totals, less, strict=True)]
        top, left, bottom, right = (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
        return top, left, bottom, right
    if auto != "NOTSET":
        chain.graph.refuse(
            node, f"has auto_pad = {auto}", "give NOTSET, VALID, SAME_UPPER or SAME_LOWER"
        )
    pads = chain.graph.integers(node, "pads") if "pads" in node.attributes else [0] * 4
    if len(pads) != 4 or min(pads) < 0:
        chain.graph.refuse(node, f"has pads = {pads}", "give four integers that are not negative")
    return pads[0], pads[1], pads[2], pads[3]


def pad(chain: Chain, node: Node) -> None:
    """Rows and columns of a constant around images, which the next convolution adds."""
    chain.require_data(node, "first input")
    if chain.graph.text(node, "mode", "constant") != "CONSTANT":
        chain.graph.refuse(node, "does not pad with a constant", "give mode = constant")
    value, pads = _constant(chain, node), _pads(chain, node)
    if not any(pads):
        return
    first = chain.layout is Layout.CHANNELS_FIRST
    if len(chain.shape) != 3 or chain.layout is Layout.FLAT:
        chain.image(node)
    height, width = (1, 2) if first else (0, 1)
    spatial = {height, width}
    begin, end = pads[1 : len(pads) // 2], pads[len(pads) // 2 + 1 :]
    others = [pads[0], pads[len(pads) // 2]]
    others += [n for sizes in (begin, end) for i, n in enumerate(sizes) if i not in spatial]
    if any(others) or min(pads) < 0:
        chain.graph.refuse(
            node,
            f"has pads = {pads}",
            "pad rows and columns only, by numbers that are not negative",
        )
    chain.padding = Padding(node, value, (begin[height], begin[width], end[height], end[width]))
    chain.shape = tuple(n + b + e for n, b, e in zip(chain.shape, begin, end, strict=True))


def _pads(chain: Chain, node: Node) -> list[int]:
    """Return the sizes before and then those behind, one for each axis and the batch first."""
    rank = len(chain.shape) + 1
    pads = (
        chain.constants.integers(node, 1, "list of pads")
        if node.has_input(1)
        else chain.graph.integers(node, "pads")
    )
    axes = list(range(rank))
    if node.has_input(3):
        given = chain.constants.integers(node, 3, "list of axes")
        axes = [axis + rank if axis < 0 else axis for axis in given]
    if len(pads) != 2 * len(axes) or not set(axes) <= set(range(rank)):
        chain.graph.refuse(
            node, f"has pads = {pads} for {rank} dimensions", "give two sizes for each"
        )
    full = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        full[axis], full[axis + rank] = pads[index], pads[index + len(axes)]
    return full


def _constant(chain: Chain, node: Node) -> Fraction:
    if node.has_input(2):
        values = chain.constants.numbers(node, 2, "constant")
        if values.size != 1:
            chain.graph.refuse(node, "has several constants", "give one number")
        return Fraction(values.reshape(-1).tolist()[0])
    return Fraction(chain.graph.number(node, "value", 0.0))
