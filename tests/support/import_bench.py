"""Graphs for tests of the frontend, and what an import has to agree with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qonnx_graphs import Graphs, evaluate, execute

from xnorflow.frontend import read
from xnorflow.frontend.obstacles import ModelRefused
from xnorflow.import_check import compare_network
from xnorflow.network import Network, Op

__all__ = ["Drawn", "compared", "kinds", "only", "refusal"]

FRAMES = 40


class Drawn(Graphs):
    """Graphs of layers with drawn weights, by default for frames of 12 values."""

    def __init__(self, seed: int = 1, shape: Sequence[int | str | None] = ("N", 12)) -> None:
        super().__init__(shape)
        self.rng = np.random.default_rng(seed)

    def signs(self, *shape: int) -> str:
        """Add weights of -1 and +1."""
        return self.constant(self.rng.choice([-1, 1], shape))

    def first(self, width: int = 9) -> str:
        """Add a layer on bits of the frame, and a gain: multiples of 3/16."""
        x = self.node("Gemm", self.bipolar("x"), self.signs(12, width))
        return self.node("Mul", x, self.constant(0.1875))

    def last(self, x: str, width: int = 9) -> str:
        """Add a layer of four classes."""
        return self.node("Gemm", x, self.signs(width, 4))


def compared(
    graph: Graphs,
    folder: Path,
    shape: tuple[int, ...] = (12,),
    others: Sequence[Callable[..., NDArray]] = (execute, evaluate),
) -> Network:
    """Import a graph and compare all tensors with the reference executor's; return the network.

    Parameters
    ----------
    graph : Graphs
    folder : Path
    shape : tuple of int
        Of a frame in the graph.
    others : sequence of callable
        Further executors, in float32, that have to agree about the scores of nearly all frames.
    """
    imported = read(graph.save(folder))
    frames = np.random.default_rng(5).integers(-16, 17, (FRAMES, *shape)) / 8
    images = len(shape) == 3 and imported.network.input_shape != shape
    x = np.moveaxis(frames, 1, -1) if images else frames
    reference, own, conclusive = compare_network(imported, x)
    assert conclusive.mean() > 0.9
    (output,) = imported.graph.outputs
    expected = reference[output].reshape(FRAMES, -1)
    ours = own[-1].values.reshape(FRAMES, -1)
    np.testing.assert_allclose(ours[conclusive], expected[conclusive], atol=1e-9)
    assert np.ptp(expected, axis=0).any()
    for run in others:
        theirs = run(graph.model(), frames.astype(np.float32)).reshape(FRAMES, -1)
        close = np.isclose(theirs, expected, rtol=1e-3, atol=1e-3).all(axis=1)
        assert close[conclusive].mean() > 0.9
    return imported.network


def refusal(graph: Graphs, folder: Path) -> str:
    """Return the sentence that refuses a graph."""
    with pytest.raises(ModelRefused) as info:
        read(graph.save(folder))
    return str(info.value)


def kinds(network: Network) -> list[str]:
    """Return the operations' names."""
    return [type(op).__name__ for op in network.ops]


def only(network: Network, kind: type[Op]) -> Op:
    """Return the one operation of a kind."""
    (op,) = (op for op in network.ops if isinstance(op, kind))
    return op
