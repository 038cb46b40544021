"""Pools: `MaxPool`, `AveragePool`, and both over whole images."""

from __future__ import annotations

from xnorflow.frontend.chain import Chain, Layout
from xnorflow.frontend.graph import Node
from xnorflow.frontend.windows import window
from xnorflow.network import AveragePool, MaxPool

__all__ = ["average_pool", "global_average_pool", "global_max_pool", "max_pool", "reduce_mean"]


def max_pool(chain: Chain, node: Node) -> None:
    """Maximum over windows; what the padding adds never wins."""
    places = window(chain, node)
    op = MaxPool(node.name, places.kernel, places.stride, places.dilation, places.padding)
    chain.pool(node, op, places.out)


def average_pool(chain: Chain, node: Node) -> None:
    """Mean over windows that lie in the image."""
    chain.require_float(node)
    places = window(chain, node)
    if any(places.padding):
        chain.obstacle(
            node,
            f"pads its image by {places.padding}, whose borders other numbers divide",
            "give pads = 0",
        )
    if places.dilation != (1, 1):
        chain.obstacle(node, "has windows with gaps", "give dilations = 1")
    chain.pool(node, AveragePool(node.name, places.kernel, places.stride), places.out)


def global_max_pool(chain: Chain, node: Node) -> None:
    """Maximum over the image."""
    height, width, _ = chain.image(node)
    chain.pool(node, MaxPool(node.name, (height, width), (1, 1)), (1, 1))


def global_average_pool(chain: Chain, node: Node) -> None:
    """Mean over the image."""
    chain.require_float(node)
    chain.image(node)
    chain.pool(node, AveragePool(node.name), (1, 1))


def reduce_mean(chain: Chain, node: Node) -> None:
    """Mean over both axes of the image."""
    chain.require_float(node)
    chain.require_data(node, "first input")
    rank = len(chain.shape) + 1
    if node.has_input(1):
        axes = chain.constants.integers(node, 1, "list of axes")
    else:
        axes = chain.graph.integers(node, "axes") if "axes" in node.attributes else []
    spatial = {2, 3} if chain.layout is Layout.CHANNELS_FIRST else {1, 2}
    if rank != 4 or {axis + rank if axis < 0 else axis for axis in axes} != spatial:
        chain.graph.refuse(
            node,
            f"takes means along the axes {axes}",
            "take them along the rows and columns of images, as GlobalAveragePool does",
        )
    last = chain.layout is Layout.SAME
    if last:
        chain.move_channels(Layout.CHANNELS_FIRST)
    global_average_pool(chain, node)
    if last:
        chain.move_channels(Layout.SAME)
    if not chain.graph.integer(node, "keepdims", 1):
        chain.reshape(node, (max(chain.shape),))
