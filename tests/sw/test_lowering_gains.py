"""Lowering of gains of pixels against exact arithmetic, frame by frame."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from exact_networks import best_class, run_exact, run_stages
from gain_networks import GainMaker
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorflow import golden
from xnorflow.errors import UserError
from xnorflow.float_model import evaluate
from xnorflow.lowered import LoweredJoin, LoweredMagnitude, LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import (
    Affine,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MaxPool,
    Network,
    PixelGain,
    Sign,
)

seeds = st.integers(0, 2**32 - 1)


def magnitudes(lowered: LoweredNetwork) -> list[LoweredMagnitude]:
    joins = (stage for stage in lowered.stages if isinstance(stage, LoweredJoin))
    return [part for join in joins for part in join.path if isinstance(part, LoweredMagnitude)]


def frames_of(network: Network, seed: int, count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, (count, *network.input_shape)).astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, exact=st.booleans())
def test_random_networks_mean_what_exact_arithmetic_says(seed, exact):
    network = GainMaker(seed, exact).network()
    lowered, frames = lower(network), frames_of(network, seed)
    got = golden.predict(lowered, frames)
    errors = [magnitude.error for magnitude in magnitudes(lowered)]
    tensors = list(evaluate(network, frames, errors))[1:]
    # In frames without a doubtful sign only the sums themselves are off, by their blur.
    sure = ~np.any([tensor.doubtful.reshape(len(frames), -1).any(axis=1) for tensor in tensors], 0)
    for number, frame in enumerate(frames):
        assert run_stages(lowered, frame)[-1].ravel().tolist() == got.scores[number].tolist()
        if any(errors) and not sure[number]:
            continue
        logits = run_exact(network, frame)[-1].ravel()
        off = np.abs(got.logits[number] - logits.astype(float))
        assert np.all(off <= 1e-9 * (1 + np.abs(got.logits[number])) + tensors[-1].blur)
        if not np.any(tensors[-1].blur):
            assert best_class(logits) == got.classes[number]


def network_of(rng: np.random.Generator, exact: bool, *, bias=(0, 0, 0), padding=1) -> Network:
    """Return a network with one gain, and a bias behind it."""

    def weights(*shape):
        return rng.choice([-1, 1], shape)

    if exact:
        norm: Affine | BatchNorm = Affine(
            "norm", (Fraction(1, 4), Fraction(-1, 8)), (Fraction(1, 2), Fraction(3, 4))
        )
    else:
        norm = BatchNorm("norm", *rng.normal(0.5, 1, (3, 2)), rng.uniform(0.1, 9, 2), 1e-5)
    ops = (
        Sign("in"),
        Conv2d("first", weights(2, 3, 3, 1)),
        norm,
        Sign("s"),
        Conv2d("conv", weights(3, 3, 3, 2), padding=(padding,) * 4),
        PixelGain("k", 3, (3, 3), padding=(padding,) * 4),
        Affine("alpha", (Fraction(3, 16), Fraction(1, 16), Fraction(5, 16)), tuple(bias)),
        Sign("t"),
        Flatten("flat"),
        Dense("last", weights(3, 3 * (4 + 2 * padding) ** 2 // (1 if padding else 4))),
    )
    return Network("one", (8, 8, 1), ops)


def before_sign(network: Network) -> Network:
    """Return the network up to what its second sign is of."""
    return replace(network, ops=network.ops[:7])


class TestSigns:
    """Where gains are rounded, signs may differ within the bound and nowhere else."""

    def bits(self, network, frame):
        """Return the second sign's bits, in which a turned channel is turned back."""
        lowered = lower(network)
        *_, bits, _ = golden.activations(lowered, golden.quantize(lowered, frame))
        return bits.reshape(1, 6, 6, 3)

    @pytest.mark.parametrize("seed", range(6))
    def test_differ_only_within_the_bound(self, seed):
        plain = network_of(np.random.default_rng(seed), False)
        frame = np.random.default_rng(seed).normal(size=(1, 8, 8, 1)).astype(np.float32)
        error = magnitudes(lower(plain))[0].error
        *_, tensor = evaluate(before_sign(plain), frame, [error])
        exact = run_exact(before_sign(plain), frame[0])[-1]
        place = tuple(np.random.default_rng(seed).integers(0, 6, 2))
        differing = 0
        for part in (-1.01, -0.5, -0.01, 0, 0.01, 0.5, 1.01):
            # One value of each channel is so far from zero, in parts of the bound.
            bias = [
                Fraction(part) * Fraction(blur) - Fraction(value)
                for blur, value in zip(tensor.blur.tolist(), exact[place], strict=True)
            ]
            network = network_of(np.random.default_rng(seed), False, bias=bias)
            got = self.bits(network, frame)[0]
            values = exact.astype(float) + np.array(bias, float)
            wrong = got != (values >= 0)
            assert np.all(
                np.abs(values[wrong]) <= np.broadcast_to(tensor.blur, values.shape)[wrong]
            )
            *_, sign = evaluate(replace(network, ops=network.ops[:8]), frame, [error])
            assert np.all(sign.doubtful[0][wrong])
            differing += int(wrong.sum())
            if abs(part) > 1:
                assert not wrong[place].any()
        assert differing < 30

    def test_some_differ(self):
        """The bound is needed: at a tie of real numbers rounding decides."""
        count = 0
        for seed in range(4):
            plain = network_of(np.random.default_rng(seed), False)
            frame = np.random.default_rng(seed).normal(size=(1, 8, 8, 1)).astype(np.float32)
            exact = run_exact(before_sign(plain), frame[0])[-1]
            for place in [(0, 0), (2, 3), (5, 1)]:
                bias = [-Fraction(value) for value in exact[place]]
                network = network_of(np.random.default_rng(seed), False, bias=bias)
                count += int((~self.bits(network, frame)[0][place]).sum())
        assert count > 0

    @pytest.mark.parametrize("seed", range(3))
    def test_never_differ_where_gains_are_exact(self, seed):
        plain = network_of(np.random.default_rng(seed), True)
        frame = np.random.default_rng(seed).normal(size=(1, 8, 8, 1)).astype(np.float32)
        assert magnitudes(lower(plain))[0].error == 0
        exact = run_exact(before_sign(plain), frame[0])[-1]
        for place in [(0, 0), (2, 3), (5, 1)]:
            for off in (0, Fraction(1, 10**9), -Fraction(1, 10**9)):
                # The values are fractions of 9 * 128 and no others.
                bias = [off - Fraction(round(value * 9 * 1024), 9 * 1024) for value in exact[place]]
                network = network_of(np.random.default_rng(seed), True, bias=bias)
                values = [float(v) + float(b) for v, b in zip(exact[place], bias, strict=True)]
                assert max(map(abs, values)) < 1e-8
                assert np.all(self.bits(network, frame)[0][place] == (off >= 0))


class TestForms:
    def test_magnitudes_of_bits_matter_at_the_border_only(self):
        rng = np.random.default_rng(0)
        network = network_of(rng, True)
        ops = list(network.ops)
        ops[5] = PixelGain("k", 4, (3, 3), padding=(1,) * 4)
        lowered = lower(replace(network, ops=tuple(ops)))
        (magnitude,) = magnitudes(lowered)
        # |2 * bit - 1| of two channels.
        assert magnitude.o_range == (0, 2)
        assert magnitude.error == 0

    def test_a_negative_gain_of_a_channel_turns_its_weights(self):
        rng = np.random.default_rng(0)
        network = network_of(rng, True)
        ops = list(network.ops)
        ops[5:7] = [Affine("alpha", (Fraction(-3, 16), Fraction(1, 16), Fraction(0))), ops[5]]
        ops.insert(7, MaxPool("pool", (6, 6), (1, 1)))
        ops[-1] = Dense("last", rng.choice([-1, 1], (3, 3)))
        network = replace(network, ops=tuple(ops))
        lowered, frames = lower(network), frames_of(network, 1)
        got = golden.predict(lowered, frames)
        for frame, logits in zip(frames, got.logits, strict=True):
            exact = run_exact(network, frame)[-1].ravel()
            np.testing.assert_allclose(logits, exact.astype(float), rtol=1e-9, atol=1e-9)

    def test_an_integer_sum_that_is_pooled_before_its_quantizer(self):
        """A max pool between a join and a sign goes behind the thresholds."""
        rng = np.random.default_rng(3)
        network = network_of(rng, True)
        ops = list(network.ops)
        ops[5:7] = [Join("add", 2, (Affine("half", (Fraction(1, 2),)),), "add")]
        ops[4] = Conv2d("conv", rng.choice([-1, 1], (2, 3, 3, 2)), padding=(1,) * 4)
        ops.insert(6, MaxPool("pool", (2, 2), (2, 2)))
        ops[-1] = Dense("last", rng.choice([-1, 1], (3, 18)))
        network = replace(network, ops=tuple(ops))
        lowered, frames = lower(network), frames_of(network, 1)
        got = golden.predict(lowered, frames)
        for frame, logits in zip(frames, got.logits, strict=True):
            exact = run_exact(network, frame)[-1].ravel()
            np.testing.assert_allclose(logits, exact.astype(float), rtol=1e-9, atol=1e-9)


class TestRefusals:
    def refused(self, change) -> str:
        network = network_of(np.random.default_rng(0), True)
        ops = list(network.ops)
        change(ops)
        with pytest.raises(UserError) as info:
            lower(replace(network, ops=tuple(ops)))
        return str(info.value)

    def test_of_raw_frames(self):
        def change(ops):
            ops[5] = PixelGain("k", 0, (3, 3))

        assert "'k' are magnitudes of the raw frame" in self.refused(change)

    def test_of_a_tensor_that_comes_later(self):
        def change(ops):
            ops[5] = PixelGain("k", 7, (3, 3))

        assert "does not come before them" in self.refused(change)

    def test_that_multiply_no_sums_of_a_layer(self):
        def change(ops):
            ops.insert(5, Sign("again"))

        assert "put them directly behind the layer" in self.refused(change)

    def test_that_multiply_a_bias(self):
        def change(ops):
            ops.insert(5, Affine("bias", offset=(Fraction(1),)))

        assert "put the bias behind them" in self.refused(change)

    def test_of_other_windows(self):
        def change(ops):
            ops[5] = PixelGain("k", 3, (3, 3), padding=(1, 0, 0, 1))

        assert "are of (5, 5) windows" in self.refused(change)
