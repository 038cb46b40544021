"""The check of an import agrees with right ones and names what is wrong in others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from exact_networks import run_exact
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from qonnx_graphs import CNN_FORMS, FORMS, CnnForm, Form, Graphs, cnn, mlp
from random_networks import random_cnn, random_frames, random_network, to_plain_onnx, to_qonnx

from xnorflow import import_check
from xnorflow.cli.main import main
from xnorflow.errors import UserError, WorkFailed
from xnorflow.float_model import NOISE, evaluate
from xnorflow.frontend import read
from xnorflow.frontend.options import ImportOptions
from xnorflow.frontend.reader import graph_of
from xnorflow.frontend.walk import Imported, import_graph
from xnorflow.import_check import ImportCheck, _unlike, check_import, lower_verified, verify
from xnorflow.lowered import LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Op,
    Sign,
)

MODELS = resources.files("xnorflow.models")
DATA = Path(__file__).parents[1] / "data"


def imported(model: onnx.ModelProto, options: ImportOptions | None = None) -> Imported:
    return import_graph(graph_of(model, "net.onnx"), options)


def check(model: onnx.ModelProto, options: ImportOptions | None = None, **how) -> ImportCheck:
    """Import a model that can be lowered, and check that."""
    try:
        network = imported(model, options)
        lowered = lower(network.network)
    except UserError:
        assume(False)
    return check_import(network, lowered, **how)


class TestAgreement:
    @given(st.integers(0, 1 << 32), st.booleans())
    @settings(max_examples=25)
    def test_on_random_perceptrons(self, seed, exact):
        rng = np.random.default_rng(seed)
        network = random_network(rng, rng.integers(2, 24, 4).tolist(), exact=exact)
        for model in (to_qonnx(network), to_plain_onnx(network)):
            result = check(model)
            assert result.frames == 4
            assert result.tensors >= 6
            assert result.inconclusive <= 1

    @given(st.integers(0, 1 << 32), st.booleans())
    @settings(max_examples=25)
    def test_on_random_convolutional_networks(self, seed, exact):
        network = random_cnn(np.random.default_rng(seed), exact=exact)
        assert check(to_qonnx(network)).inconclusive <= 1

    @given(st.integers(0, 1 << 32))
    @settings(max_examples=25)
    def test_on_every_form_of_a_perceptron(self, seed):
        rng = np.random.default_rng(seed)
        form = Form(**{key: values[rng.integers(len(values))] for key, values in FORMS.items()})
        result = check(mlp(rng, [12, 7, 5], form, (3, 4, 1)))
        assert result.frames == (6 if form.batch == 3 else 4)
        assert result.inconclusive <= 1

    @given(st.integers(0, 1 << 32))
    @settings(max_examples=25)
    def test_on_every_form_of_a_convolutional_network(self, seed):
        rng = np.random.default_rng(seed)
        form = CnnForm(
            **{key: values[rng.integers(len(values))] for key, values in CNN_FORMS.items()}
        )
        assert check(cnn(rng, (9, 10, 3), form)).inconclusive <= 1

    @pytest.mark.parametrize("name", ["mnist_mini", "mnist_sfc", "mnist_cnn", "fashion_cnn"])
    def test_on_the_networks_that_ship(self, name):
        network = read(str(MODELS / f"{name}.onnx"))
        result = check_import(network, lower(network.network), frames=2)
        assert (result.frames, result.inconclusive, result.note) == (2, 0, "")

    @pytest.mark.parametrize("path", sorted(DATA.glob("*.onnx")), ids=lambda path: path.stem)
    def test_on_files_of_brevitas(self, path):
        network = read(path)
        result = check_import(network, lower(network.network), frames=64)
        assert (result.frames, result.inconclusive) == (64, 0)

    @pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8])
    def test_on_frames_of_integers(self, kind):
        graph = Graphs(("N", 8), kind=kind)
        x = graph.node("Sub", graph.node("Cast", "x", to=TensorProto.FLOAT), graph.constant(0.5))
        graph.node("MatMul", graph.bipolar(x), weights(graph, 8, 3))
        result = check(graph.model())
        assert (result.frames, result.inconclusive) == (4, 0)

    @pytest.mark.parametrize("zero", [1, -1])
    def test_on_signs_whose_zero_the_user_tells(self, zero):
        graph = Graphs(("N", 8))
        x = graph.node("MatMul", graph.node("Sign", "x"), weights(graph, 8, 6))
        graph.node("MatMul", graph.node("Sign", x), weights(graph, 6, 3))
        result = check(graph.model(), ImportOptions(zero), frames=32)
        assert (result.frames, result.inconclusive) == (32, 0)

    @pytest.mark.parametrize("first", ["bits", "bytes"])
    def test_on_bytes_that_options_scale(self, first):
        graph = Graphs(("N", 8))
        x = graph.bipolar("x") if first == "bits" else "x"
        graph.node("MatMul", x, weights(graph, 8, 3))
        options = ImportOptions(None, Fraction(2, 255), Fraction(-1))
        result = check(graph.model(), options, frames=32)
        assert (result.frames, result.inconclusive) == (32, 0)

    @pytest.mark.parametrize("end", ["ArgMax", "TopK", "Softmax", "Sigmoid"])
    def test_on_classes_instead_of_scores(self, end):
        graph = Graphs(("N", 9))
        x = graph.node("MatMul", graph.bipolar("x"), weights(graph, 9, 4))
        if end == "TopK":
            k = graph.constant([1], np.int64)
            graph.node("TopK", x, k, outputs=2)
            model = graph.model(*graph.nodes[-1].output)
        else:
            graph.node(end, x, **({"axis": 1} if end != "Sigmoid" else {}))
            model = graph.model()
        assert check(model, frames=32).inconclusive == 0


class TestIdioms:
    """Graphs that say more than one operation by several nodes, or by none."""

    def straight_through(self, graph: Graphs, x: str) -> str:
        clipped = graph.node("Clip", x, graph.constant(-1.0), graph.constant(1.0))
        return graph.node("Add", clipped, graph.node("Sub", graph.node("Sign", x), clipped))

    def where(self, graph: Graphs, x: str) -> str:
        above = graph.node("GreaterOrEqual", x, graph.constant(0.0))
        return graph.node("Where", above, graph.constant(0.5), graph.constant(-0.5))

    def less(self, graph: Graphs, x: str) -> str:
        below = graph.node("Not", graph.node("Less", x, graph.constant(0.0)))
        number = graph.node("Cast", below, to=TensorProto.FLOAT)
        return graph.node(
            "Sub", graph.node("Mul", number, graph.constant(2.0)), graph.constant(1.0)
        )

    def squashed(self, graph: Graphs, x: str) -> str:
        return graph.bipolar(graph.node("Mul", graph.node("Tanh", x), graph.constant(0.5)))

    def shifted(self, graph: Graphs, x: str) -> str:
        return graph.node("Sign", graph.node("Add", graph.node("Sign", x), graph.constant(0.1)))

    @pytest.mark.parametrize("idiom", ["straight_through", "where", "less", "squashed", "shifted"])
    def test_are_followed(self, idiom):
        graph = Graphs(("N", 7))
        # Sums of an odd number of bits, so that no sign meets zero but in the last one.
        x = graph.node("MatMul", graph.bipolar("x"), weights(graph, 7, 8))
        x = getattr(self, idiom)(graph, x)
        x = graph.node("MatMul", x, weights(graph, 8, 6))
        if idiom == "shifted":
            x = self.shifted(graph, x)
            x = graph.node("MatMul", x, weights(graph, 6, 3))
        result = check(graph.model(), frames=32)
        assert (result.frames, result.inconclusive) == (32, 0)


def weights(graph: Graphs, mw: int, mh: int) -> str:
    """Add the same weights of shape (mw, mh) each time."""
    return graph.constant(np.random.default_rng(mw * mh).choice([-1, 1], (mw, mh)))


class TestTies:
    @given(st.integers(0, 1 << 32))
    @settings(max_examples=50)
    def test_are_no_difference(self, seed):
        """Sums of an even number of bits, small integers between: zeros are everywhere."""
        rng = np.random.default_rng(seed)
        widths = (2 * rng.integers(1, 5, 4)).tolist()
        graph = Graphs(("N", widths[0]))
        x = graph.node("Sub", "x", graph.constant(rng.integers(-2, 3, widths[0])))
        for mw, mh in pairwise(widths):
            x = graph.bipolar(x, float(rng.choice([1, 0.1, 3])))
            x = graph.node("MatMul", x, graph.constant(rng.choice([-1, 1], (mw, mh))))
            match rng.integers(4):
                case 0:
                    x = graph.node("Add", x, graph.constant(rng.integers(-2, 3, mh)))
                case 1:
                    x = graph.node("Div", x, graph.constant(rng.choice([-3.0, 0.7, 49])))
                    x = graph.node("Mul", x, graph.constant(rng.choice([3.0, 0.3, 49])))
                case 2:
                    parameters = [rng.integers(-2, 3, mh) for _ in range(3)]
                    constants = [graph.constant(p) for p in (*parameters, rng.integers(1, 4, mh))]
                    x = graph.node("BatchNormalization", x, *constants, epsilon=0.0)
        check(graph.model(), frames=16)

    def noisy(self) -> Graphs:
        """``acc / 49 * 49 - 1`` is 0 where acc = 1, but below that in floating point."""
        graph = Graphs(("N", 3))
        x = graph.node("MatMul", graph.bipolar("x"), graph.constant(np.ones((3, 4))))
        for kind, number in (("Div", 49), ("Mul", 49), ("Sub", 1)):
            x = graph.node(kind, x, graph.constant(float(number)))
        graph.node("MatMul", graph.bipolar(x), weights(graph, 4, 3))
        return graph

    def test_that_noise_decides_put_frames_aside(self):
        network = imported(self.noisy().model())
        lowered = lower(network.network)
        result = check_import(network, lowered, frames=200)
        sums = 2 * lowered.input.quantize(drawn(network, lowered, 200)).sum(axis=1) - 3
        assert result.inconclusive == np.count_nonzero(sums == 1) > 20
        assert f"inconclusive for {result.inconclusive} of 200 random frames" in result.note

    def test_do_not_hide_what_other_frames_show(self):
        network = imported(self.noisy().model())
        lowered = lower(network.network)
        with pytest.raises(WorkFailed, match="the lowering of layer 'fc1' is wrong"):
            check_import(network, changed(lowered, 0, thresholds=np.full(4, 5, np.int32)))

    def test_that_are_sure_are_seen_by_the_golden_model(self):
        """Without rounding, zero is zero: greater instead of greater or equal is a difference."""
        graph = Graphs(("N", 8))
        x = graph.node("MatMul", graph.bipolar("x"), weights(graph, 8, 6))
        graph.node("MatMul", graph.bipolar(x), weights(graph, 6, 3))
        network = imported(graph.model())
        lowered = lower(network.network)
        assert np.all(lowered.layers[0].thresholds == 0)
        with pytest.raises(WorkFailed, match=r"the lowering of layer 'fc1' is wrong"):
            check_import(network, changed(lowered, 0, thresholds=np.full(6, 2, np.int32)))


def changed(lowered: LoweredNetwork, stage: int, **changes: object) -> LoweredNetwork:
    """Return a network with another stage."""
    stages = list(lowered.stages)
    stages[stage] = replace(stages[stage], **changes)
    return replace(lowered, stages=tuple(stages))


def drawn(network: Imported, lowered: LoweredNetwork, count: int) -> np.ndarray:
    return import_check._frames(network, lowered, count, np.random.default_rng(0))


SIGNS = np.array([-1, 1], np.int8)


def norm(name: str, channels: int, spread: float, seed: int) -> BatchNorm:
    rng = np.random.default_rng(seed)
    gamma = rng.choice([-1, 1], channels) * rng.uniform(0.5, 2, channels)
    beta, mean = rng.normal(0, 0.1, channels), rng.normal(0, spread / 4, channels)
    return BatchNorm(name, gamma, beta, mean, np.full(channels, spread**2), 1e-3)


def example() -> Network:
    """Return a network with an operation of nearly every kind; images of 6 x 6, then 6 x 7."""
    rng = np.random.default_rng(5)
    return Network(
        "example",
        (6, 6, 2),
        (
            Affine("pre", (Fraction(1, 2), Fraction(1)), (Fraction(-1, 4),)),
            Sign("sign_in"),
            Conv2d("conv", rng.choice(SIGNS, (6, 3, 3, 2)), padding=(1, 2, 1, 1), pad_value=-1),
            norm("bn1", 6, 4, 1),
            MaxPool("pool", (2, 2), (2, 2)),
            Sign("sign1"),
            AveragePool("average", (2, 2), (1, 1)),
            Sign("sign2"),
            Flatten("flatten", True),
            Dense("fc", rng.choice(SIGNS, (8, 24))),
            norm("bn2", 8, 5, 2),
            Sign("sign3"),
            Dense("last", rng.choice(SIGNS, (4, 8))),
            norm("bn3", 4, 3, 3),
        ),
    )


def opposite(op: Op, *index: int) -> Op:
    """Flip the sign of a weight."""
    assert isinstance(op, Conv2d | Dense)
    flipped = op.weights.copy()
    flipped[index] *= -1
    return replace(op, weights=flipped)


def off(op: Op, key: str, by: float) -> Op:
    """Change the first entry of a parameter."""
    values = getattr(op, key).copy()
    values[0] += by
    return replace(op, **{key: values})


MISTAKES: dict[str, tuple[str, Callable[[Op], Op]]] = {
    "scale off by a millionth": (
        "pre_product",
        lambda op: replace(op, scale=(Fraction(1, 2), Fraction(1000001, 1000000))),
    ),
    "channels exchanged": ("pre_product", lambda op: replace(op, scale=op.scale[::-1])),
    "sign left out": ("sign_in_out", lambda op: Affine(op.name)),
    "one weight": ("conv_out", lambda op: opposite(op, 2, 0, 1, 1)),
    "rows and columns of the kernel": (
        "conv_out",
        lambda op: replace(op, weights=op.weights.transpose(0, 2, 1, 3)),
    ),
    "value of the padding": ("conv_out", lambda op: replace(op, pad_value=Fraction(1))),
    "zero padding": ("conv_out", lambda op: replace(op, pad_value=Fraction(0))),
    "sides of the padding": ("conv_out", lambda op: replace(op, padding=(1, 1, 1, 2))),
    "batch norm left out": ("bn1_out", lambda op: Affine(op.name)),
    "epsilon": ("bn1_out", lambda op: replace(op, eps=1e-5)),
    "mean": ("bn1_out", lambda op: off(op, "mean", 0.001)),
    "smallest change of a float32": (
        "bn2_out",
        lambda op: off(op, "beta", float(np.spacing(op.beta[0]))),
    ),
    "average for maximum": ("pool_out", lambda op: AveragePool(op.name, op.kernel, op.stride)),
    "maximum for average": ("average_out", lambda op: MaxPool(op.name, op.kernel, op.stride)),
    "order of the channels": ("flatten_out", lambda op: Flatten(op.name, False)),
    "one weight of a dense layer": ("fc_out", lambda op: opposite(op, 7, 23)),
    "neurons exchanged": ("fc_out", lambda op: replace(op, weights=op.weights[::-1])),
    "scores": ("bn3_out", lambda op: off(op, "gamma", 0.01)),
}


class TestMistakesOfTheImport:
    @pytest.mark.parametrize("mistake", MISTAKES)
    def test_are_named_by_their_tensor(self, mistake):
        name, mutate = MISTAKES[mistake]
        right = imported(to_qonnx(example(), "N"))
        ops = tuple(mutate(op) if op.name == name else op for op in right.network.ops)
        assert ops != right.network.ops
        wrong = replace(right, network=replace(right.network, ops=ops))
        lowered = lower(right.network)
        assert check_import(right, lowered).inconclusive == 0
        with pytest.raises(WorkFailed) as failure:
            check_import(wrong, lowered)
        assert str(failure.value).startswith(f"net.onnx: the import of node '{name}")
        assert f"for tensor '{name}' onnx's reference executor gives" in str(failure.value)
        assert "report it with the file" in str(failure.value)

    def test_tell_both_numbers_and_their_place(self):
        graph = Graphs(("N", 2, 1, 3))
        graph.node("Add", "x", graph.constant([[[8.0]], [[16.0]]]), name="shift")
        x = graph.bipolar(graph.nodes[-1].output[0])
        x = graph.node("Conv", x, graph.constant(np.ones((3, 2, 1, 1))))
        graph.node("GlobalAveragePool", x)
        right = imported(graph.model())
        (shift, *others) = right.network.ops
        wrong = replace(shift, offset=(Fraction(8), Fraction(17)))
        network = replace(right.network, ops=(wrong, *others))
        lowered = lower(right.network)
        x = drawn(right, lowered, 4)
        with pytest.raises(WorkFailed) as failure:
            check_import(replace(right, network=network), lowered)
        first = f"{x[0, 0, 0, 1] + 16:.9g} and the imported network {x[0, 0, 0, 1] + 17:.9g}"
        assert str(failure.value).startswith(
            f"net.onnx: the import of node 'shift' (Add) is wrong: for tensor 't0' onnx's "
            f"reference executor gives {first} (frame 0, element 1, 0, 0); "
        )

    def test_of_shapes_are_told(self):
        right = imported(to_qonnx(example(), "N"))
        cut = replace(
            right,
            network=replace(
                right.network,
                ops=tuple(
                    replace(op, stride=(1, 1)) if isinstance(op, MaxPool) else op
                    for op in right.network.ops[:6]
                ),
            ),
            tensors=right.tensors[:6],
            layouts=right.layouts[:6],
        )
        with pytest.raises(
            WorkFailed, match=r"'pool_out' .* frames of shape \(6, 3, 3\) .* \(5, 6, 6\)"
        ):
            check_import(cut, lower(right.network))

    def test_behind_the_last_tensor_show_in_the_classes(self):
        graph = Graphs(("N", 9))
        x = graph.node("MatMul", graph.bipolar("x"), weights(graph, 9, 4))
        graph.node("ArgMax", graph.node("Neg", x), axis=1)
        right = imported(graph.model())
        assert isinstance(right.network.ops[-1], Affine)
        cut = replace(
            right,
            network=replace(right.network, ops=right.network.ops[:-1]),
            tensors=right.tensors[:-1],
            layouts=right.layouts[:-1],
        )
        with pytest.raises(WorkFailed, match=r"node 'argmax_3' \(ArgMax\) is wrong.*class"):
            check_import(cut, lower(cut.network))


def shifted(lowered: LoweredNetwork, stage: int, by: int) -> LoweredNetwork:
    return changed(lowered, stage, thresholds=lowered.stages[stage].thresholds + by)


def turned(lowered: LoweredNetwork, stage: int) -> LoweredNetwork:
    """Flip the sign of every neuron's first weight."""
    flipped = lowered.stages[stage].weights.copy()
    flipped[:, 0] *= -1
    return changed(lowered, stage, weights=flipped)


def nudged(lowered: LoweredNetwork) -> LoweredNetwork:
    """Move all thresholds of the frame by one float32."""
    thresholds = np.nextafter(lowered.input.thresholds, np.float32(np.inf))
    return replace(lowered, input=replace(lowered.input, thresholds=thresholds))


def scored(lowered: LoweredNetwork, **changes: np.ndarray) -> LoweredNetwork:
    return replace(lowered, output=replace(lowered.output, **changes))


SLIPS: dict[str, tuple[str, Callable[[LoweredNetwork], LoweredNetwork]]] = {
    "thresholds of the frame": ("the frame", nudged),
    "a threshold": ("layer 'conv_out'", lambda lowered: shifted(lowered, 0, 2)),
    "a weight": ("layer 'conv_out'", lambda lowered: turned(lowered, 0)),
    "padding": (
        "layer 'conv_out'",
        lambda lowered: changed(
            lowered, 0, window=replace(lowered.stages[0].window, pad=np.ones(2, np.uint16))
        ),
    ),
    "a pool's place": (
        "layer 'conv_out'",
        lambda lowered: changed(
            lowered, 1, window=replace(lowered.stages[1].window, kernel=(1, 2))
        ),
    ),
    "thresholds of sums": ("layer 'conv_out'", lambda lowered: shifted(lowered, 3, 1)),
    "thresholds of a dense layer": ("layer 'fc_out'", lambda lowered: shifted(lowered, 4, 2)),
    "a weight of the last layer": ("layer 'last_out'", lambda lowered: turned(lowered, 5)),
    "an offset of the scores": (
        "layer 'last_out'",
        lambda lowered: scored(lowered, offset=lowered.output.offset + np.arange(4) * 10**9),
    ),
    "the logits": (
        "layer 'last_out'",
        lambda lowered: scored(lowered, logit_scale=lowered.output.logit_scale * (1 + 1e-6)),
    ),
}


class TestMistakesOfTheLowering:
    @pytest.mark.parametrize("slip", SLIPS)
    def test_are_named_by_their_layer(self, slip):
        where, mutate = SLIPS[slip]
        network = imported(to_qonnx(example(), "N"))
        lowered = lower(network.network)
        assert [type(stage).__name__ for stage in lowered.stages][1:4] == [
            "LoweredPool",
            "LoweredPool",
            "LoweredThreshold",
        ]
        with pytest.raises(WorkFailed) as failure:
            check_import(network, mutate(lowered), frames=16)
        assert str(failure.value).startswith(f"net.onnx: the lowering of {where} is wrong: ")
        assert "agrees with onnx's reference executor" in str(failure.value)

    def test_of_flattened_images_are_named_by_their_layer(self):
        """Where the channels come first in the file, the golden model has another order."""
        rng = np.random.default_rng(3)
        shift = tuple(Fraction(int(n), 2) for n in rng.integers(-1, 2, 12))
        ops = (
            Sign("sign_in"),
            Conv2d("conv", rng.choice(SIGNS, (3, 2, 2, 1))),
            norm("bn1", 3, 2, 1),
            Sign("sign1"),
            Flatten("flatten", True),
            Affine("shift", (Fraction(1, 2),), shift),
            Dense("fc", rng.choice(SIGNS, (5, 12))),
            norm("bn2", 5, 3, 2),
            Sign("sign2"),
            Dense("last", rng.choice(SIGNS, (4, 5))),
        )
        network = imported(to_qonnx(Network("flat", (3, 3, 1), ops), "N"))
        lowered = lower(network.network)
        assert check_import(network, lowered).inconclusive == 0
        with pytest.raises(WorkFailed, match="the lowering of layer 'conv_out' is wrong"):
            check_import(network, turned(lowered, 0), frames=16)
        with pytest.raises(WorkFailed, match="the lowering of layer 'fc_out' is wrong"):
            check_import(network, turned(lowered, 1), frames=64)


class TestFrames:
    def test_of_bytes_are_bytes(self):
        network = read(str(MODELS / "cifar10_cnv.onnx"))
        x = drawn(network, lower(network.network), 8)
        assert x.dtype == np.uint8
        assert x.shape == (8, 32, 32, 3)
        assert 100 < x.mean() < 155

    @pytest.mark.parametrize("threshold", [0.0, 0.1307, -3.0, 127.5])
    def test_make_as_many_ones_as_zeros(self, threshold):
        graph = Graphs(("N", 500))
        x = graph.node("Sub", "x", graph.constant(threshold))
        graph.node("MatMul", graph.bipolar(x), weights(graph, 500, 3))
        network = imported(graph.model())
        lowered = lower(network.network)
        x = drawn(network, lowered, 4)
        assert 0.45 < lowered.input.quantize(x).mean() < 0.58
        assert np.any(x == lowered.input.thresholds)

    @pytest.mark.parametrize("scale", [1e-38, 1e38])
    def test_stay_finite_whatever_the_thresholds(self, scale):
        graph = Graphs(("N", 9))
        x = graph.node("Sub", graph.node("Mul", "x", graph.constant(scale)), graph.constant(3.0))
        graph.node("MatMul", graph.bipolar(x), weights(graph, 9, 3))
        network = imported(graph.model())
        lowered = lower(network.network)
        assert np.isfinite(drawn(network, lowered, 4)).all()
        assert check_import(network, lowered).frames == 4

    @pytest.mark.parametrize("bits", [2, 4, 8])
    def test_reach_every_level_of_a_quantizer(self, bits):
        graph = Graphs(("N", 500))
        x = graph.quant("x", 0.25, 0, bits)
        graph.node("MatMul", x, weights(graph, 500, 3))
        network = imported(graph.model())
        lowered = lower(network.network)
        found = np.unique(lowered.input.quantize(drawn(network, lowered, 16)))
        assert len(found) == 1 << bits

    def test_are_those_of_the_seed(self):
        network = read(DATA / "brevitas_mlp_legacy.onnx")
        lowered = lower(network.network)
        assert np.array_equal(drawn(network, lowered, 4), drawn(network, lowered, 4))


class TestWhatIsWanted:
    def network(self) -> tuple[Imported, LoweredNetwork]:
        network = read(DATA / "brevitas_mlp_legacy.onnx")
        return network, lower(network.network)

    def test_a_small_network_is_checked_unasked(self):
        assert verify(*self.network()).frames == 4

    def test_nothing_is_checked_against_the_users_will(self):
        network, lowered = self.network()
        assert verify(network, changed(lowered, 0, thresholds=None), False) is None

    def test_fewer_frames_are_taken_of_a_larger_network(self, monkeypatch):
        network, lowered = self.network()
        per_frame = sum(layer.macs for layer in lowered.layers)
        monkeypatch.setattr(import_check, "_PER_WEIGHT", 0)
        monkeypatch.setattr(import_check, "_BUDGET", 2 * per_frame)
        assert verify(network, lowered).frames == 2

    def test_fewer_frames_are_taken_where_windows_take_much_memory(self, monkeypatch):
        network, lowered = self.network()
        largest = max(layer.positions * layer.mw for layer in lowered.layers)
        monkeypatch.setattr(import_check, "_MOST_VALUES", 3 * largest + 1)
        assert verify(network, lowered).frames == 3
        monkeypatch.setattr(import_check, "_MOST_VALUES", largest - 1)
        assert "would take a while" in verify(network, lowered).note

    def test_a_batch_that_is_fixed_counts(self, monkeypatch):
        graph = Graphs((7, 8))
        graph.node("MatMul", graph.bipolar("x"), weights(graph, 8, 3))
        network = imported(graph.model())
        lowered = lower(network.network)
        monkeypatch.setattr(import_check, "_PER_WEIGHT", 0)
        monkeypatch.setattr(import_check, "_BUDGET", 7 * 8 * 3)
        assert verify(network, lowered).frames == 7
        monkeypatch.setattr(import_check, "_BUDGET", 7 * 8 * 3 - 1)
        assert verify(network, lowered).frames == 0

    def test_a_large_network_is_checked_only_if_asked(self, monkeypatch):
        network, lowered = self.network()
        monkeypatch.setattr(import_check, "_BUDGET", 1000)
        note = verify(network, lowered).note
        assert note == (
            "The import was not checked against onnx's reference executor: that would take a "
            "while, with 1,408 operations a frame; --verify-import (in Python, "
            "verify_import=True) insists on it."
        )
        assert lower_verified(network)[0].notes[-1] == note
        assert verify(network, lowered, True).frames == 4

    def test_a_graph_that_cannot_be_executed_is_told(self):
        network, lowered = self.network()
        nodes = tuple(replace(node, domain="other") for node in network.graph.nodes)
        unknown = replace(network, graph=replace(network.graph, nodes=nodes))
        result = verify(unknown, lowered)
        assert result.frames == 0
        assert "onnx's reference executor does not run it (Domain 'other'" in result.note
        with pytest.raises(WorkFailed, match="was not checked"):
            verify(unknown, lowered, True)


class TestCommandLine:
    MODEL = str(MODELS / "mnist_mini.onnx")

    @pytest.fixture
    def cli(self, capsys):
        """Run a command line; return its exit status and all that it prints, on one line."""

        def run(*arguments: str) -> tuple[object, str]:
            with pytest.raises(SystemExit) as end:
                main(list(arguments))
            captured = capsys.readouterr()
            return end.value.code, " ".join((captured.out + captured.err).split())

        return run

    @pytest.fixture
    def broken(self, monkeypatch):
        """Let every network be lowered wrongly."""
        monkeypatch.setattr(import_check, "lower", lambda network: turned(lower(network), -1))

    @pytest.mark.usefixtures("broken")
    def test_a_difference_ends_with_status_1(self, cli):
        status, printed = cli("inspect", self.MODEL)
        assert status == 1
        assert "mnist_mini.onnx: the lowering of layer 'fc2' is wrong" in printed
        assert "go on without this check with --no-verify-import" in printed

    @pytest.mark.usefixtures("broken")
    def test_the_check_can_be_left_out(self, cli):
        assert cli("predict", self.MODEL, "--frames", "2", "--no-verify-import")[0] == 0

    def test_a_large_network_gets_a_note(self, cli, monkeypatch):
        monkeypatch.setattr(import_check, "_BUDGET", 0)
        status, printed = cli("inspect", self.MODEL)
        assert status == 0
        assert "note: The import was not checked against" in printed
        status, printed = cli("inspect", self.MODEL, "--verify-import")
        assert status == 0
        assert "not checked" not in printed

    def test_starts_without_the_executor(self):
        code = "import sys, xnorflow.cli.main; print('onnx.reference' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.strip() == b"False"


class TestFloatModel:
    @given(st.integers(0, 1 << 32), st.booleans())
    @settings(max_examples=40)
    def test_is_the_exact_network_but_for_noise(self, seed, images):
        rng = np.random.default_rng(seed)
        if images:
            network = random_cnn(rng, exact=bool(seed % 2), channels=3)
        else:
            network = random_network(rng, rng.integers(1, 9, 4).tolist(), exact=bool(seed % 2))
        (x,) = random_frames(rng, network, 1)
        tensors = list(evaluate(network, x[None]))
        for op, tensor, exact in zip(network.ops, tensors[1:], run_exact(network, x), strict=True):
            (values,) = tensor.values
            assert values.shape == exact.shape
            size = np.broadcast_to(tensor.size, values.shape)
            assert np.all(np.abs(exact.astype(float)) <= size * (1 + 1e-9))
            wrong = np.abs(exact.astype(float) - values) > NOISE * size
            assert not np.any(wrong & ~tensor.near[0]), op
            if tensor.step is not None:
                assert not np.any(wrong & ~tensor.doubtful[0]), op
            assume(not np.any(wrong))

    def test_knows_steps_without_noise(self):
        ops = (
            Affine("shift", (Fraction(3, 4),), (Fraction(1, 2),)),
            Sign("a"),
            Affine("third", (Fraction(1, 3),)),
        )
        frames, shifted, signs, thirds = evaluate(Network("n", (2,), ops), np.array([[2.0, 6.0]]))
        assert (frames.step, shifted.step, signs.step) == (1, Fraction(1, 4), 1)
        assert thirds.step is None
        assert not np.any(signs.doubtful)


class TestDoubtfulChannels:
    """What noise may have decided is compared with what is sure, and put aside where nothing is."""

    def unlike(self, integers, values, doubtful):
        columns = (np.array(each)[:, None] for each in (integers, values, doubtful))
        return _unlike(*columns)[:, 0].tolist()

    def test_bits_that_are_sure_tell_of_the_others(self):
        assert self.unlike([1, 0, 0], [1, -1, 1], [False, False, True]) == [False, False, True]
        assert self.unlike([1, 0, 1], [1, -1, 1], [False, False, True]) == [False, False, False]

    def test_a_channel_without_any_is_unknown(self):
        assert self.unlike([1, 1, 0], [1, -1, 1], [True] * 3) == [True] * 3
        assert self.unlike([0, 1, 0], [1, -1, 1], [True] * 3) == [False] * 3
        assert self.unlike([1, 1, 0], [1, 1, 1], [True] * 3) == [True] * 3

    def test_with_one_of_them_so_is_what_is_not_like_it(self):
        doubtful = [False, True, True, True]
        assert self.unlike([1, 1, 0, 1], [1, 1, 1, -1], doubtful) == [False, False, True, True]
        assert self.unlike([1, 1, 1, 0], [1, 1, 1, -1], doubtful) == [False] * 4
