"""XNOR-Net's gains of pixels mean what the reference executor computes, or are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from import_bench import Drawn, compared, only, refusal

from xnorflow.errors import UserError, WorkFailed
from xnorflow.frontend import read
from xnorflow.import_check import check_import, lower_verified
from xnorflow.lowered import LoweredJoin
from xnorflow.lowering import lower
from xnorflow.network import Affine, PixelGain

SHAPE = (2, 6, 8)


class Gained(Drawn):
    """A graph of three layers, of which the second one has gains of pixels."""

    def __init__(self, seed: int = 4) -> None:
        super().__init__(seed, ("N", *SHAPE))
        x = self.node("Conv", self.bipolar("x"), self.signs(4, 2, 3, 3), pads=[1] * 4)
        norm = [[1, -1, 1.5, 2], [0.1, 0.2, 0.3, -0.5], [0.2, 0, 0, 0.5], [9, 4, 7, 20]]
        self.x = self.node("BatchNormalization", x, *map(self.constant, norm))

    def mean(self, form: str = "Abs", name: str = "k") -> str:
        """Add the mean magnitude over the channels."""
        x, over = self.x, {"axes": [1]}
        match form:
            case "Abs":
                return self.node("ReduceMean", self.node("Abs", x, name=name), **over)
            case "ReduceL1":
                return self.node(
                    "Mul", self.node("ReduceL1", x, name=name, **over), self.constant(0.25)
                )
            case "squeezed":
                k = self.node("ReduceMean", self.node("Abs", x), keepdims=0, **over)
                return self.node("Unsqueeze", k, self.constant([1], np.int64))
            case _:
                k = self.node("ReduceSum", self.node("Abs", x), self.constant([1], np.int64))
                return self.node("Div", self.node("Identity", k), self.constant(4))

    def box(self, k: str, form: str = "Conv", size: int = 3, **places) -> str:
        """Add the mean over windows."""
        places = places or {"pads": [1] * 4}
        match form:
            case "Conv":
                weights = np.full((1, 1, size, size), 1 / size**2)
                return self.node("Conv", k, self.constant(weights), **places)
            case "sums":
                k = self.node("Conv", k, self.constant(np.ones((1, 1, size, size))), **places)
                return self.node("Div", k, self.constant(size**2))
            case "Pad":
                pads = self.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
                return self.node("AveragePool", self.node("Pad", k, pads), kernel_shape=[size] * 2)
            case _:
                return self.node(
                    "AveragePool", k, kernel_shape=[size] * 2, count_include_pad=1, **places
                )

    def layer(self, **places) -> str:
        places = places or {"pads": [1] * 4}
        return self.node("Conv", self.bipolar(self.x), self.signs(3, 4, 3, 3), **places)

    def end(self, y: str, pixels: int = 48) -> None:
        y = self.bipolar(self.node("Add", y, self.constant(np.array([[[0.3]], [[-2]], [[1]]]))))
        self.node("Gemm", self.node("Flatten", y), self.signs(3 * pixels, 3))


class TestIsRead:
    @pytest.mark.parametrize("form", ["Abs", "ReduceL1", "squeezed", "sum"])
    @pytest.mark.parametrize("box", ["Conv", "sums", "AveragePool", "Pad"])
    def test_whatever_computes_it(self, form, box, tmp_path):
        g = Gained()
        g.end(g.node("Mul", g.layer(), g.box(g.mean(form), box)))
        op = only(compared(g, tmp_path, SHAPE, others=()), PixelGain)
        assert (op.source, op.kernel, op.padding) == (3, (3, 3), (1, 1, 1, 1))

    @pytest.mark.parametrize(
        ("places", "pixels"),
        [
            ({"strides": [2, 3]}, 4),
            ({"pads": [2, 1, 0, 1], "strides": [2, 2]}, 12),
            ({"dilations": [2, 1]}, 12),
        ],
    )
    def test_with_the_windows_of_the_layer(self, places, pixels, tmp_path):
        g = Gained()
        g.end(g.node("Mul", g.box(g.mean(), **places), g.layer(**places)), pixels)
        compared(g, tmp_path, SHAPE, others=())

    @pytest.mark.parametrize("where", ["sums", "gains", "product"])
    def test_with_gains_of_channels(self, where, tmp_path):
        g = Gained()
        alpha = g.constant(np.array([0.5, 0.25, 0.125]).reshape(3, 1, 1))
        k, y = g.box(g.mean()), g.layer()
        if where == "gains":
            k = g.node("Mul", alpha, g.node("Mul", k, g.constant(-2)))
        y = g.node("Mul", y, alpha) if where == "sums" else y
        y = g.node("Mul", k, y)
        g.end(g.node("Mul", y, alpha) if where == "product" else y)
        network = compared(g, tmp_path, SHAPE, others=())
        assert any(isinstance(op, Affine) and len(op.scale) == 3 for op in network.ops)

    def test_of_a_dense_layer(self, tmp_path):
        g = Drawn()
        x = g.node("Add", g.first(), g.constant(0.4))
        k = g.node("ReduceMean", g.node("Abs", x), axes=[1])
        x = g.node("Mul", k, g.node("Gemm", g.bipolar(x), g.signs(9, 7)))
        g.last(g.bipolar(g.node("Add", x, g.constant(0.7))), 7)
        assert only(compared(g, tmp_path, others=()), PixelGain).kernel is None

    def test_of_pixels_without_a_box(self, tmp_path):
        g = Gained()
        y = g.node("Conv", g.bipolar(g.x), g.signs(3, 4, 1, 1))
        g.end(g.node("Mul", y, g.mean()))
        assert only(compared(g, tmp_path, SHAPE, others=()), PixelGain).kernel == (1, 1)


class TestIsChecked:
    def imported(self, tmp_path):
        g = Gained()
        y = g.node("Mul", g.layer(), g.box(g.mean()))
        g.end(g.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 12)
        return read(g.save(tmp_path))

    def test_against_the_reference_and_the_golden_model(self, tmp_path):
        imported = self.imported(tmp_path)
        network, lowered = lower_verified(imported, True)
        assert "(XNOR-Net's K) of layer" in network.notes[-1]
        assert "are rounded to integers: each is off by at most " in network.notes[-1]
        (join,) = (stage for stage in lowered.stages if isinstance(stage, LoweredJoin))
        assert 0 < join.path[0].error < 1e-4
        result = check_import(imported, lowered, frames=16)
        assert result.frames == 16
        assert result.inconclusive <= 4

    def test_a_gain_that_is_off_by_more_than_its_bound_shows(self, tmp_path):
        imported = self.imported(tmp_path)
        lowered = lower(imported.network)
        place = next(n for n, s in enumerate(lowered.stages) if isinstance(s, LoweredJoin))
        join = lowered.stages[place]
        magnitude = replace(join.path[0], gains=join.path[0].gains + 2000)
        stages = list(lowered.stages)
        stages[place] = replace(join, path=(magnitude, *join.path[1:]))
        with pytest.raises(WorkFailed, match="the lowering of layer"):
            check_import(imported, replace(lowered, stages=tuple(stages)), frames=40)


class TestIsRefused:
    def test_of_the_frame(self, tmp_path):
        g = Drawn(4, ("N", *SHAPE))
        k = g.node("ReduceMean", g.node("Abs", "x", name="k"), axes=[1])
        y = g.node("Mul", g.node("Conv", g.bipolar("x"), g.signs(4, 2, 1, 1)), k)
        g.node("Gemm", g.node("Flatten", g.bipolar(y)), g.signs(192, 3))
        message = refusal(g, tmp_path)
        assert "node 'k' (Abs) begins a gain for each pixel (XNOR-Net's K) of the frame" in message
        assert "more" not in message

    @pytest.mark.parametrize(
        ("how", "what"),
        [
            ("weights", "is no box filter: its weights are not all one number"),
            ("twice", "is a second box filter"),
            ("borders", "leaves padding out of its means"),
            ("other windows", "by gains of (4, 6)"),
            ("rows", "takes other means than one over the channels"),
            ("late", "what is not the sums of a layer behind the same tensor"),
        ],
    )
    def test_whose_nodes_compute_something_else(self, how, what, tmp_path):
        g = Gained()
        k, y = g.mean(), g.layer()
        match how:
            case "weights":
                weights = g.constant(np.arange(9.0).reshape(1, 1, 3, 3))
                k = g.node("Conv", k, weights, pads=[1] * 4)
            case "twice":
                k = g.box(g.box(k))
            case "borders":
                k = g.node("AveragePool", k, kernel_shape=[3, 3], pads=[1] * 4)
            case "other windows":
                k = g.box(k, pads=[0] * 4)
            case "rows":
                k = g.node("ReduceMean", g.node("Abs", g.x), axes=[2])
            case "late":
                k, y = g.box(k), g.bipolar(y)
        g.end(g.node("Mul", y, k))
        message = refusal(g, tmp_path)
        assert what in message
        assert "more" not in message

    def test_before_a_bias(self, tmp_path):
        g = Gained()
        y = g.node("Add", g.layer(), g.constant(np.array([[[0.5]], [[1]], [[2]]])))
        g.end(g.node("Mul", y, g.box(g.mean())))
        with pytest.raises(UserError, match="put the bias behind them"):
            lower(read(g.save(tmp_path)).network)
