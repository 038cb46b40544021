"""Methods of binarization: their quantizers against the papers' formulas, their files, resuming."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from trained_networks import (
    channels_first,
    numpy_logits,
    qonnx_logits,
    run,
    write_sample_as_idx,
)

from xnorflow.datasets import sample_digits
from xnorflow.errors import UserError
from xnorflow.frontend import read
from xnorflow.golden import predict
from xnorflow.import_check import lower_verified
from xnorflow.network import PixelGain
from xnorflow.train.export import save_qonnx, to_qonnx
from xnorflow.train.methods import METHODS, Method
from xnorflow.train.recipes import DATASETS, RECIPES, TOPOLOGIES, Conv, Dense, Recipe, recipe_for

torch = pytest.importorskip("torch")

from xnorflow.train.loop import Epoch, train  # noqa: E402
from xnorflow.train.net import BinarizedNet  # noqa: E402
from xnorflow.train.norms import ShiftNorm, power_of_two, stored_norm  # noqa: E402
from xnorflow.train.quantizers import (  # noqa: E402
    BaseActivations,
    BaseWeights,
    GainWeights,
    LevelActivations,
    LevelWeights,
    SignActivations,
    SignWeights,
)


def latent(*shape: int, seed: int = 1) -> "torch.Tensor":
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 0.3).requires_grad_()


def gradient(function, x: "torch.Tensor", upstream: "torch.Tensor") -> np.ndarray:
    """Return what a gradient of the results becomes at `x`."""
    x = x.detach().clone().requires_grad_()
    function(x).backward(upstream)
    assert x.grad is not None
    return x.grad.numpy()


def test_signs_of_weights_pass_gradients_and_zero_is_plus_one() -> None:
    w = torch.tensor([[-0.5, 0.0, -0.0, 0.7]])
    assert SignWeights()(w).tolist() == [[-1, 1, 1, 1]]
    up = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(gradient(SignWeights(), w, up), up)


def test_signs_of_activations_have_the_gradient_of_tanh() -> None:
    x, up = latent(50), torch.linspace(-1, 1, 50)
    np.testing.assert_array_equal(SignActivations()(x).detach(), np.where(x.detach() >= 0, 1, -1))
    np.testing.assert_allclose(
        gradient(SignActivations(), x, up), gradient(torch.tanh, x, up), rtol=1e-5
    )


def test_the_gain_of_xnor_net_is_the_mean_of_a_channel_and_learns_as_in_its_paper() -> None:
    w, up = latent(5, 3, 2, 2), latent(5, 3, 2, 2, seed=2).detach()
    values = w.detach().numpy()
    alpha = np.abs(values).mean((1, 2, 3), keepdims=True)
    signs = np.where(values >= 0, 1.0, -1.0)
    quantizer = GainWeights(per_channel=True)
    np.testing.assert_allclose(quantizer(w).detach(), alpha * signs, rtol=1e-6)
    # d(alpha * sign(w)): alpha is sum(sign(w) * w) / n, and the sign counts as the identity.
    through_alpha = signs * (up.numpy() * signs).mean((1, 2, 3), keepdims=True)
    expected = through_alpha + alpha * up.numpy()
    np.testing.assert_allclose(gradient(quantizer, w, up), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_of_dorefa_net_are_its_formula_and_pass_the_gradient_of_tanh(bits: int) -> None:
    w, up = latent(6, 7), latent(6, 7, seed=2).detach()
    squashed = np.tanh(w.detach().numpy())
    unit = squashed / (2 * np.abs(squashed).max()) + 0.5
    steps = 2**bits - 1
    quantizer = LevelWeights(bits)
    values = quantizer(w).detach().numpy()
    np.testing.assert_allclose(values, 2 * np.round(steps * unit) / steps - 1, atol=1e-6)
    assert values.min() == -1 or values.max() == 1
    stored = quantizer.stored(w)
    np.testing.assert_allclose(stored.odd / steps, values, atol=1e-6)

    def smooth(x):
        t = torch.tanh(x)
        return t / t.abs().max()

    np.testing.assert_allclose(
        gradient(quantizer, w, up), gradient(smooth, w, up), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_activations_of_dorefa_net_are_levels_of_the_unit_interval(bits: int) -> None:
    x = (torch.arange(-50, 151) + 0.5) / 100
    steps = 2**bits - 1
    y = LevelActivations(bits)(x)
    expected = np.round(np.clip(x.numpy(), 0, 1) * steps) / steps
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert len(np.unique(y)) == 2**bits
    inside = gradient(LevelActivations(bits), x, torch.ones(201))
    np.testing.assert_array_equal(inside, (x >= 0) & (x <= 1))


@pytest.mark.parametrize("bases", [1, 2, 3])
def test_weights_of_abc_net_are_least_squares_on_shifted_signs(bases: int) -> None:
    w = latent(4, 60)
    values = w.detach().numpy().astype(np.float64)
    shifts = np.linspace(-1, 1, bases) if bases > 1 else np.zeros(1)
    centred = values - values.mean()
    signs = np.stack([np.where(centred + u * values.std() >= 0, 1.0, -1.0) for u in shifts])
    found, alphas = BaseWeights(bases, 7).bases(w)
    np.testing.assert_array_equal(found, signs)
    for channel in range(4):
        exact = np.linalg.lstsq(signs[:, channel].T, values[channel], rcond=None)[0]
        np.testing.assert_allclose(alphas[:, channel], exact, atol=0.01)
    quantizer = BaseWeights(bases, 4)
    rounded = quantizer.bases(w)[1].numpy()
    step = 2.0 ** (np.ceil(np.log2(alphas.abs().max().numpy())) - 4)
    np.testing.assert_array_equal(rounded, np.round(rounded / step) * step)
    assert np.abs(rounded / step).max() <= 16
    np.testing.assert_allclose(
        quantizer(w).detach(), (rounded[..., None] * signs).sum(0), atol=1e-6
    )
    up = latent(4, 60, seed=2).detach()
    np.testing.assert_allclose(
        gradient(quantizer, w, up), rounded.sum(0)[:, None] * up.numpy(), rtol=1e-5
    )


def test_bases_that_are_equal_share_the_weight() -> None:
    w = torch.tensor([[3.0, 3.0, -3.0, -3.0], [0.0, 0.0, 0.0, 0.0]])
    signs, alphas = BaseWeights(2, 4).bases(w)
    np.testing.assert_array_equal(signs[0, 0], signs[1, 0])
    assert alphas.tolist() == [[1.5, 0], [1.5, 0]]


@pytest.mark.parametrize("bases", [1, 2, 3, 5])
def test_activations_of_abc_net_rise_in_whole_eighths_of_at_most_five_bits(bases: int) -> None:
    quantizer = BaseActivations(bases)
    with torch.no_grad():
        quantizer.scale.copy_(torch.linspace(-1, 9, bases))
    y = quantizer(torch.linspace(-3, 3, 500)).detach().numpy() * 8
    np.testing.assert_array_equal(y, np.round(y))
    assert np.all(np.diff(y) >= 0)
    assert np.abs(y).max() <= 15
    assert len(np.unique(y)) == bases + 1


def test_betas_and_shifts_of_abc_net_learn() -> None:
    quantizer = BaseActivations(2)
    quantizer(latent(300)).square().sum().backward()
    for parameter in (quantizer.scale, quantizer.shift):
        assert parameter.grad is not None
        assert np.all(parameter.grad.numpy() != 0)


def test_ap2_is_the_nearest_power_of_two_by_its_exponent() -> None:
    x = torch.tensor([0.0, 1.0, 1.4, 1.5, -3.0, 0.3])
    assert power_of_two(x).tolist() == [0, 1, 1, 2, -4, 0.25]
    np.testing.assert_array_equal(gradient(power_of_two, x, torch.ones(6)), np.ones(6))


def test_shift_based_batch_norm_has_only_powers_of_two_for_factors() -> None:
    norm = ShiftNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.7, -0.4, 0.9]))
        norm.bias.normal_()
    x = latent(64, 3, 5, 5).detach() * torch.tensor([1.0, 9.0, 30.0]).view(1, 3, 1, 1) + 2
    y = norm(x)
    assert 0.3 < y[:, 0].std() / 2 < 2
    for _ in range(60):
        norm(x)
    norm.eval()
    stored = stored_norm(norm)
    assert np.all(np.frexp(np.abs(stored.gamma))[0] == 0.5)
    assert stored.eps == 0
    np.testing.assert_array_equal(stored.var, 1)
    each = (1, 3, 1, 1)
    expected = (x.numpy() - stored.mean.reshape(each)) * stored.gamma.reshape(each)
    np.testing.assert_allclose(norm(x).detach(), expected + stored.beta.reshape(each), rtol=1e-5)


TOY = replace(
    RECIPES["fashion_residual"],
    hidden=(Conv(6, pool=2), Conv(8, padding=1), Conv(8, padding=1, shortcut=True), Dense(12)),
    validation=200,
    batch=50,
)

CASES = {
    "bnn with a shortcut": TOY,
    "shift-based batch norm": replace(TOY, batch_norm="shift"),
    **{name: replace(TOY, method=Method(name), gain=0.25) for name in METHODS if name != "bnn"},
    "gains of pixels": replace(
        TOY,
        hidden=(Conv(6, pool=2), Conv(8, padding=1), Conv(8, pool=2), Dense(12), Dense(9)),
        method=Method("xnor", pixel_gains=True),
        gain=0.25,
    ),
    "one-bit levels": replace(
        TOY, method=Method("dorefa", weight_bits=1, activation_bits=1), gain=0.25
    ),
    "three and one bases": replace(
        TOY, method=Method("abc", weight_bases=3, activation_bases=1), gain=0.25
    ),
    "first and last layer of more bits": replace(TOY, method=Method(first_bits=8, last_bits=3)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_of_every_method_has_the_classes_of_torch(case: str) -> None:
    digits = sample_digits()
    training = train(CASES[case], digits, 2, 4, lambda epoch: None)
    x = digits.x[:300]
    with torch.inference_mode():
        logits = training.net(channels_first(x)).numpy()
    proto = to_qonnx(training.model, {})
    onnx.checker.check_model(proto)
    found = qonnx_logits(proto, x)
    assert len(np.unique(logits.argmax(1))) > 2
    np.testing.assert_array_equal(found.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(found, logits, atol=1e-3)
    np.testing.assert_allclose(numpy_logits(training.model, x), logits, atol=1e-3)


def test_gains_of_pixels_become_those_of_the_network(tmp_path: Path) -> None:
    training = train(CASES["gains of pixels"], sample_digits(), 1, 4, lambda epoch: None)
    path = tmp_path / "gains.onnx"
    save_qonnx(training.model, path, {})
    network, lowered = lower_verified(read(path), True)
    assert [op.kernel for op in network.ops if isinstance(op, PixelGain)] == [
        (3, 3),
        (3, 3),
        None,
        None,
    ]
    assert sum("are rounded to integers" in note for note in network.notes) == 4
    x = sample_digits().x[:100]
    with torch.inference_mode():
        classes = training.net(channels_first(x)).numpy().argmax(1)
    assert np.mean(predict(lowered, x).classes == classes) > 0.95


def test_gains_of_pixels_belong_to_one_method_and_have_no_shortcuts() -> None:
    assert Method.of("xnor", pixel_gains=True).text == "xnor, gains of pixels"
    with pytest.raises(UserError, match="--pixel-gains belongs to the method xnor, not bnn"):
        Method.of("bnn", pixel_gains=True)
    with pytest.raises(UserError, match="does not go with the shortcuts of the topology residual"):
        recipe_for("fashion-mnist", "residual", Method.of("xnor", pixel_gains=True))


class Killed(Exception):
    """Stands for a training that is killed."""


@pytest.mark.parametrize("case", ["bnn with a shortcut", "abc"])
def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path: Path, case: str) -> None:
    recipe, digits = CASES[case], sample_digits()
    checkpoint = tmp_path / "model.checkpoint"

    def killed(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise Killed

    with pytest.raises(Killed):
        train(recipe, digits, 4, 4, killed, checkpoint=checkpoint)
    seen: list[Epoch] = []
    resumed = train(recipe, digits, 4, 4, seen.append, checkpoint=checkpoint)
    whole = train(recipe, digits, 4, 4, lambda epoch: None)
    one, other = (
        to_qonnx(t.model, {}).SerializeToString(deterministic=True) for t in (resumed, whole)
    )
    assert one == other
    assert [e.number for e in seen] == [1, 2, 3, 4]
    assert [(e.loss, e.best) for e in resumed.epochs] == [(e.loss, e.best) for e in whole.epochs]


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    digits, checkpoint = sample_digits(), tmp_path / "model.checkpoint"
    train(TOY, digits, 1, 4, lambda epoch: None, checkpoint=checkpoint)

    def refused(says: str, recipe: Recipe = TOY, epochs: int = 1, seed: int = 4) -> None:
        with pytest.raises(UserError, match=says):
            train(recipe, digits, epochs, seed, lambda epoch: None, checkpoint=checkpoint)

    refused("another training, which differs in --epochs, --seed; .*delete", epochs=2, seed=5)
    refused("differs in the recipe", recipe=replace(TOY, batch_norm="shift"))
    whole = checkpoint.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2]):
        checkpoint.write_bytes(damaged)
        refused("not a whole checkpoint of a training; delete")


def test_patience_stops_a_training_that_gets_no_better() -> None:
    still = replace(TOY, peak_rate=1e-12)
    training = train(still, sample_digits(), 30, 4, lambda epoch: None, patience=2)
    assert len(training.epochs) < 30
    assert len(training.epochs) - training.best.number == 2


def test_the_command_of_a_combination_leaves_model_and_curve_and_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample_as_idx(tmp_path)
    monkeypatch.setitem(RECIPES, "fashion_dorefa", replace(TOY, method=Method("dorefa")))
    monkeypatch.chdir(tmp_path)
    run(
        *("--dataset", "fashion-mnist", "--topology", "residual", "--method", "dorefa"),
        *("--data-dir", ".", "--epochs", "2", "--output", "model.onnx"),
    )
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".gz"}
    assert left == {"model.onnx", "model.onnx.curve.html"}
    metadata = {p.key: p.value for p in onnx.load("model.onnx").metadata_props}
    assert metadata["method"] == "dorefa, 2-bit weights, 2-bit activations"
    assert "validation accuracy" in Path("model.onnx.curve.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_is_short_for_its_combination(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe_for(recipe.dataset, recipe.topology, recipe.method) is recipe


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_combination_makes_a_network_or_says_why_not(topology: str, method: str) -> None:
    for dataset in DATASETS:
        if topology == "cnv" and "mnist" in dataset:
            with pytest.raises(UserError, match="too small"):
                recipe_for(dataset, topology, Method(method))
            continue
        recipe = recipe_for(dataset, topology, Method(method))
        assert recipe.hidden == TOPOLOGIES[topology].hidden
        assert recipe.method.name == method
    assert BinarizedNet(recipe).trained().hidden
