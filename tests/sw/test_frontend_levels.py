"""Activations and weights of several bits, bases and gains mean what the reference computes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from import_bench import Drawn, compared, kinds, only, refusal
from qonnx_graphs import evaluate, execute

from xnorflow.network import MultiThreshold, Quantize


class TestActivations:
    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize("signed", [0, 1])
    @pytest.mark.parametrize("mode", ["ROUND", "HALF_EVEN"])
    def test_of_two_to_eight_bits(self, bits, signed, mode, tmp_path):
        g = Drawn(bits)
        narrow = bits % 2
        x = g.quant(
            g.first(), 0.25, 0.5 * signed, bits, signed=signed, narrow=narrow, rounding_mode=mode
        )
        g.last(x)
        op = only(compared(g, tmp_path), Quantize)
        size = 1 << bits
        low, high = (narrow - size // 2, size // 2 - 1) if signed else (0, size - 1 - narrow)
        assert (op.scale, op.zero_point) == (Fraction(1, 4), Fraction(signed, 2))
        assert (op.low, op.high) == (low, high)

    @pytest.mark.parametrize("mode", ["FLOOR", "CEIL"])
    @pytest.mark.parametrize("signed", [0, 1])
    def test_of_other_roundings(self, mode, signed, tmp_path):
        g = Drawn()
        g.last(g.quant(g.first(), 0.1875, 0, 3, signed=signed, rounding_mode=mode))
        network = compared(g, tmp_path, others=(execute,))
        assert len(only(network, MultiThreshold).values) == 8

    @pytest.mark.parametrize("mode", ["UP", "DOWN", "HALF_UP", "HALF_DOWN"])
    def test_of_roundings_that_mirror_negative_numbers(self, mode, tmp_path):
        g = Drawn()
        g.last(g.quant(g.first(), 0.375, 0, 3, signed=0, rounding_mode=mode))
        compared(g, tmp_path, others=(execute,))
        g = Drawn()
        g.last(g.quant(g.first(), 0.375, 0, 3, signed=1, rounding_mode=mode))
        assert f"another way, in the mode {mode}" in refusal(g, tmp_path)

    @pytest.mark.parametrize("signed", [0, 1])
    @pytest.mark.parametrize("kind", ["Relu", "Clip"])
    def test_a_clip_before_it_narrows_its_range(self, kind, signed, tmp_path):
        g = Drawn()
        ends = [g.constant(-0.3), g.constant(0.8)] if kind == "Clip" else []
        x = g.node(kind, g.first(), *ends)
        x = g.node("Mul", x, g.constant(-1)) if kind == "Clip" else x
        g.last(g.quant(x, 0.25, 0, 4, signed=signed))
        op = only(compared(g, tmp_path), Quantize)
        assert (op.low, op.high) == {
            ("Relu", 0): (0, 15),
            ("Relu", 1): (0, 7),
            ("Clip", 0): (0, 1),
            ("Clip", 1): (-3, 1),
        }[kind, signed]

    def test_a_clip_of_another_range_in_each_channel_is_refused_if_it_shows(self, tmp_path):
        g = Drawn()
        x = g.node("Relu", g.first())
        x = g.node("Add", x, g.constant(np.arange(9) / 4))
        g.last(g.quant(x, 0.25, 0, 4))
        assert "(Relu) changes what node" in refusal(g, tmp_path)

    @pytest.mark.parametrize("bits", [1, 2, 3, 8])
    def test_of_dorefa_in_operators_of_onnx(self, bits, tmp_path):
        g = Drawn()
        steps = g.constant((1 << bits) - 1)
        x = g.node("Clip", g.first(), g.constant(0), g.constant(1))
        x = g.node("Div", g.node("Round", g.node("Mul", x, steps)), steps)
        g.last(x)
        network = compared(g, tmp_path)
        if bits > 1:
            op = only(network, Quantize)
            assert (op.scale, op.low, op.high) == (1, 0, (1 << bits) - 1)

    def test_a_clip_behind_the_rounding_limits_it_as_well(self, tmp_path):
        g = Drawn()
        x = g.node("Div", g.first(), g.constant(0.25))
        x = g.node("Clip", g.node("Round", x), g.constant(-4), g.constant(3))
        g.last(g.node("Mul", x, g.constant(0.25)))
        op = only(compared(g, tmp_path), Quantize)
        assert (op.low, op.high) == (-4, 3)

    @pytest.mark.parametrize("scale", [0.5, -0.5, 1.0])
    @pytest.mark.parametrize("rows", [1, 9])
    def test_of_multi_threshold(self, scale, rows, tmp_path):
        g = Drawn()
        thresholds = g.rng.integers(-8, 9, (rows, 5)) / 4
        if rows > 1:
            thresholds[:3, 0], thresholds[4, 4] = -np.inf, np.inf
        constant = g.constant(thresholds)
        options = {"out_scale": scale, "out_bias": -0.75, "domain": g.domain}
        g.last(g.node("MultiThreshold", g.first(), constant, **options))
        op = only(compared(g, tmp_path, others=()), MultiThreshold)
        assert len(op.values) == 6
        assert len(op.thresholds) == rows

    def test_pools_and_padding_between_levels(self, tmp_path):
        g = Drawn(3, ("N", 2, 6, 8))
        x = g.node("Conv", g.bipolar("x"), g.signs(4, 2, 3, 3), pads=[1] * 4)
        x = g.node("MaxPool", g.node("Relu", x), kernel_shape=[2, 2])
        x = g.quant(x, 0.75, 0, 2, signed=0)
        x = g.node("AveragePool", x, kernel_shape=[2, 2])
        x = g.node("Conv", x, g.signs(3, 4, 2, 3), pads=[1] * 4)
        g.node("Flatten", g.node("GlobalAveragePool", g.quant(x, 0.5, 1, 4)))
        assert kinds(compared(g, tmp_path, (2, 6, 8)))[3:6] == ["Quantize", "AveragePool", "Conv2d"]


class TestWeights:
    @pytest.mark.parametrize("bits", range(1, 9))
    @pytest.mark.parametrize("channels", [False, True])
    @pytest.mark.parametrize("zero", ["none", "half"])
    def test_of_quant(self, bits, channels, zero, tmp_path):
        if bits == 1 and zero == "half":
            pytest.skip("one bit has no half")
        g = Drawn(bits)
        size = 1 << bits
        latent = g.constant(g.rng.normal(0, 1, (9, 12)))
        scale = np.exp(g.rng.normal(-2, 0.3, (9, 1))) if channels else 0.1
        options = {"signed": 1, "narrow": 1} if zero == "none" else {"signed": 0, "narrow": 0}
        if zero == "half":
            w = g.quant(latent, 2 / (size - 1), (size - 1) / 2, bits, **options)
        else:
            w = g.quant(latent, scale, 0, bits, **options)
        x = g.node("Gemm", g.bipolar("x"), w, transB=1)
        g.last(g.bipolar(g.node("Sub", x, g.constant(0.05))))
        # Executors do not agree on one bit.
        layer = compared(g, tmp_path, others=(execute, evaluate) if bits > 1 else ()).layers()[0]
        if bits == 1:
            assert layer.coefficients is None
        elif zero == "half":
            assert layer.coefficients[:, 0].tolist() == [1 << n for n in range(bits)]
        else:
            assert len(layer.coefficients) <= bits + 1

    @pytest.mark.parametrize("values", [[-1, 0, 1], [-3, -1, 1, 3], [-128, 5, 127], [-255, 255, 3]])
    @pytest.mark.parametrize("scale", [1, 0.1, 3e-7])
    def test_of_constants(self, values, scale, tmp_path):
        g = Drawn()
        weights = g.rng.choice(values, (12, 9)) * np.float32(scale)
        x = g.node("MatMul", g.bipolar("x"), g.constant(weights))
        x = g.node("Div", x, g.constant(scale * max(values)))
        g.last(g.bipolar(g.node("Sub", x, g.constant(0.05))))
        network = compared(g, tmp_path)
        assert len(np.unique(network.layers()[0].weights)) == len(values)
        assert not any("rounding" in note for note in network.notes)

    def test_of_constants_with_a_scale_for_each_neuron(self, tmp_path):
        g = Drawn(2, ("N", 2, 6, 8))
        weights = g.rng.choice([-3, -1, 0, 1, 2], (4, 2, 3, 3)) * [
            [[[0.3]]],
            [[[7]]],
            [[[1]]],
            [[[0]]],
        ]
        x = g.node("Conv", g.bipolar("x"), g.constant(weights))
        g.node("Flatten", g.node("GlobalAveragePool", x))
        network = compared(g, tmp_path, (2, 6, 8))
        assert any("only zero weights" in note for note in network.notes)

    def test_of_dorefa_in_operators_of_onnx(self, tmp_path):
        g = Drawn()
        latent = g.rng.normal(0, 1, (12, 9)).astype(np.float32)
        unit = np.tanh(latent) / (2 * np.abs(np.tanh(latent)).max()) + np.float32(0.5)
        weights = 2 * (np.round(unit * 7) / np.float32(7)) - 1
        detached = latent + (weights - latent)
        x = g.node("MatMul", g.bipolar("x"), g.constant(detached))
        g.last(g.bipolar(g.node("Add", x, g.constant(0.05))))
        layer = compared(g, tmp_path).layers()[0]
        assert set(np.unique(layer.weights)) <= {-7, -5, -3, -1, 1, 3, 5, 7}

    @pytest.mark.parametrize(
        "weights",
        [
            np.random.default_rng(1).normal(0, 1, (12, 9)),
            np.random.default_rng(1).integers(0, 255, (12, 9)),
            np.random.default_rng(1).choice([-1, 1], (12, 9)) * np.arange(1.0, 13)[:, None] ** 0.5,
        ],
    )
    def test_that_are_no_integers_of_few_bits_are_refused(self, weights, tmp_path):
        g = Drawn()
        g.node("MatMul", g.bipolar("x"), g.constant(weights), name="bad")
        assert "'bad' (MatMul) has weights that are neither binary nor" in refusal(g, tmp_path)

    def test_of_more_bits_are_refused(self, tmp_path):
        g = Drawn()
        w = g.quant(g.constant(g.rng.normal(0, 1, (12, 9))), 0.01, 0, 10)
        g.node("MatMul", g.bipolar("x"), w)
        assert "quantizes weights to 10 bits" in refusal(g, tmp_path)


class TestGains:
    def test_of_each_channel_before_a_pool_and_a_norm(self, tmp_path):
        """XNOR-Net's order, with gains of any sign."""
        g = Drawn(4, ("N", 2, 6, 8))
        w = g.bipolar(g.constant(g.rng.normal(0, 1, (4, 2, 3, 3))))
        x = g.node("Conv", g.bipolar("x"), w)
        gains = np.array([0.3, -0.7, 0, 0.1]).reshape(4, 1, 1)
        x = g.node(
            "MaxPool", g.node("Mul", x, g.constant(gains)), kernel_shape=[2, 2], strides=[2, 2]
        )
        norm = [g.constant(v) for v in ([1, -1, 1, 2], [0.1] * 4, [0.2, 0, 0, 0.5], [1] * 4)]
        x = g.bipolar(g.node("BatchNormalization", x, *norm))
        g.node("Gemm", g.node("Flatten", x), g.signs(24, 3))
        network = compared(g, tmp_path, (2, 6, 8))
        assert kinds(network)[:5] == ["Sign", "Conv2d", "Affine", "MaxPool", "BatchNorm"]


class TestBases:
    @staticmethod
    def base(g: Drawn, x: str, place: float, beta: float, form: str) -> str:
        if form == "bipolar":
            x = g.bipolar(g.node("Sub", x, g.constant(place)), 1.0)
            return g.node("Mul", x, g.constant(beta))
        if form == "scale":
            return g.bipolar(g.node("Sub", x, g.constant(place)), beta)
        kind = "GreaterOrEqual" if form == "where" else "Greater"
        condition = g.node(kind, x, g.constant(place))
        return g.node("Where", condition, g.constant(beta), g.constant(-beta))

    @pytest.mark.parametrize("form", ["bipolar", "scale", "where", "above"])
    @pytest.mark.parametrize("how", ["Add", "Sum"])
    def test_of_activations(self, form, how, tmp_path):
        g = Drawn()
        x = g.first()
        bases = [
            self.base(g, x, place, beta, form)
            for place, beta in ((0.375, 0.5), (-0.375, 1.25), (1, 0.25))
        ]
        if how == "Sum":
            y = g.node("Sum", *bases)
        else:
            y = g.node("Add", g.node("Add", bases[0], bases[1]), bases[2])
        g.last(y)
        network = compared(g, tmp_path)
        op = only(network, MultiThreshold)
        rows = [-0.375, 0.375, 1] if form != "above" else [-1, -0.375, 0.375]
        assert op.thresholds == (tuple(map(Fraction, rows)),)
        steps = [2.5, 1, 0.5] if form != "above" else [0.5, 1, 2.5]
        assert [float(b - a) for a, b in zip(op.values, op.values[1:], strict=False)] == steps

    def test_of_activations_that_fall(self, tmp_path):
        g = Drawn()
        x = g.first()
        bases = [self.base(g, x, place, -0.5, "bipolar") for place in (0.375, -0.375)]
        g.last(g.node("Add", *bases))
        assert "MultiThreshold" in kinds(compared(g, tmp_path))

    def test_of_activations_that_neither_rise_nor_fall_are_refused(self, tmp_path):
        g = Drawn()
        x = g.first()
        bases = [self.base(g, x, v, b, "bipolar") for v, b in ((0.375, -0.5), (-0.375, 1))]
        g.last(g.node("Add", *bases, name="sum"))
        assert "'sum' (Add) adds quantizers of one tensor to steps that neither" in refusal(
            g, tmp_path
        )

    def test_of_activations_of_both_sides_are_refused(self, tmp_path):
        g = Drawn()
        x = g.first()
        bases = [self.base(g, x, 0.375, 1, form) for form in ("where", "above")]
        g.last(g.node("Add", *bases))
        assert "some ask for x >= t and others for x > t" in refusal(g, tmp_path)

    @pytest.mark.parametrize("kind", ["Gemm", "MatMul", "Conv"])
    @pytest.mark.parametrize("channels", [False, True])
    def test_of_weights(self, kind, channels, tmp_path):
        shape = (2, 6, 8) if kind == "Conv" else (12,)
        g = Drawn(6, ("N", *shape))
        x, terms = g.bipolar("x"), []
        for _ in range(3):
            alpha = g.rng.integers(1, 100, 9 if channels else 1) / 64 * g.rng.choice([-1, 1])
            if kind == "Conv":
                y = g.node("Conv", x, g.signs(9, 2, 3, 3), g.constant(g.rng.normal(0, 1, 9)))
                alpha = alpha.reshape(-1, 1, 1)
            else:
                y = g.node(kind, x, g.signs(12, 9))
            terms.append(g.node("Mul", y, g.constant(alpha)))
        y = g.node("Add", terms[0], g.node("Add", terms[1], terms[2]))
        if kind == "Conv":
            g.node("Flatten", g.node("GlobalAveragePool", y))
        else:
            g.last(g.bipolar(g.node("Sub", y, g.constant(0.005))))
        layer = compared(g, tmp_path, shape).layers()[0]
        assert layer.coefficients.shape == (3, 9)

    def test_of_weights_whose_factors_are_no_small_integers_are_refused(self, tmp_path):
        g = Drawn()
        x = g.bipolar("x")
        terms = [
            g.node("Mul", g.node("Gemm", x, g.signs(12, 9)), g.constant(a)) for a in (0.1, 0.3)
        ]
        g.node("Add", *terms, name="sum")
        message = refusal(g, tmp_path)
        assert "'sum' (Add) adds layers whose factors are no multiples up to 32768" in message
        assert "round the factors to fewer bits" in message

    @pytest.mark.parametrize("order", ["flat", "weights inside", "inputs inside"])
    @pytest.mark.parametrize("kind", ["Gemm", "Conv"])
    def test_of_both(self, order, kind, tmp_path):
        shape = (2, 6, 8) if kind == "Conv" else (12,)
        g = Drawn(7, ("N", *shape))
        places, betas, alphas = (-0.25, 0.5), (0.5, 0.375), (1.25, -0.5, 0.1875)
        bits = [g.bipolar(g.node("Sub", "x", g.constant(v))) for v in places]
        size = (9, 2, 3, 3) if kind == "Conv" else (12, 9)
        weights = [g.signs(*size) for _ in alphas]
        options = {"pads": [1] * 4} if kind == "Conv" else {}

        def sums(n: int, m: int, factor: float) -> str:
            return g.node("Mul", g.node(kind, bits[n], weights[m], **options), g.constant(factor))

        outer = []
        if order == "flat":
            outer = [sums(n, m, a * b) for n, b in enumerate(betas) for m, a in enumerate(alphas)]
        elif order == "weights inside":
            for n, b in enumerate(betas):
                inner = g.node("Sum", *(sums(n, m, a) for m, a in enumerate(alphas)))
                outer.append(g.node("Mul", inner, g.constant(b)))
        else:
            for m, a in enumerate(alphas):
                inner = g.node("Sum", *(sums(n, m, b) for n, b in enumerate(betas)))
                outer.append(g.node("Mul", inner, g.constant(a)))
        y = outer[0]
        for term in outer[1:]:
            y = g.node("Add", y, term)
        if kind == "Conv":
            g.node("Flatten", g.node("GlobalAveragePool", y))
        else:
            g.last(g.bipolar(g.node("Sub", y, g.constant(0.005))))
        network = compared(g, tmp_path, shape)
        # In units of the first base's factor.
        values = only(network, MultiThreshold).values
        assert values == tuple(Fraction(v) for v in (-1.75, 0.25, 1.75))
        assert network.layers()[0].coefficients[:, 0].tolist() == [20, 8, 3]

    def test_of_both_whose_factors_are_no_products_are_refused(self, tmp_path):
        g = Drawn()
        bits = [g.bipolar(g.node("Sub", "x", g.constant(v))) for v in (-0.25, 0.5)]
        weights = [g.signs(12, 9) for _ in range(2)]
        factors = iter((1.0, 0.5, 0.25, 0.75))
        terms = [
            g.node("Mul", g.node("Gemm", x, w), g.constant(next(factors)))
            for x in bits
            for w in weights
        ]
        g.node("Sum", *terms, name="sum")
        assert "'sum' (Sum) adds" in refusal(g, tmp_path)
