"""Live torch modules: what they become, that they are left alone, and what is said of others."""

import re
import subprocess
import sys
import warnings
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import xnorflow

torch = pytest.importorskip("torch")
nn = torch.nn

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
MINI = str(resources.files("xnorflow.models") / "mnist_mini.onnx")


class Straight(torch.autograd.Function):
    """+1 from 0 on, else -1."""

    @staticmethod
    def forward(ctx, x):
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class TorchSign(torch.autograd.Function):
    """torch.sign, of which 0 gives 0."""

    @staticmethod
    def forward(ctx, x):
        return torch.sign(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def detached(x):
    """The sign forward, the clipped identity backward, without a class."""
    clipped = x.clamp(-1, 1)
    return clipped + (torch.sign(x) - clipped).detach()


ESTIMATORS = {"where": Straight.apply, "sign": TorchSign.apply, "detached": detached}


class Act(nn.Module):
    def __init__(self, estimator):
        super().__init__()
        self.estimator = estimator

    def forward(self, x):
        return self.estimator(x)


class Dense(nn.Linear):
    def __init__(self, inputs, outputs, estimator):
        super().__init__(inputs, outputs, bias=False)
        self.estimator = estimator

    def forward(self, x):
        return nn.functional.linear(x, self.estimator(self.weight))


class Conv(nn.Conv2d):
    def __init__(self, inputs, outputs, estimator, **options):
        super().__init__(inputs, outputs, 3, bias=False, **options)
        self.estimator = estimator

    def forward(self, x):
        return self._conv_forward(x, self.estimator(self.weight), None)


def norm(kind, channels, spread):
    """A batch norm that looks trained, negative scales included."""
    module = kind(channels)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias, std=0.5)
    module.running_mean.normal_(0, spread)
    module.running_var.uniform_(0.5 * spread**2, 2 * spread**2)
    return module


def centre(x):
    """Bytes become half-integers, whose sign is never 0."""
    return x - 127.5


class Perceptron(nn.Module):
    def __init__(self, estimator):
        super().__init__()
        self.layers = nn.Sequential(
            Dense(35, 21, estimator),
            norm(nn.BatchNorm1d, 21, 6.0),
            Act(estimator),
            nn.Dropout(),
            Dense(21, 10, estimator),
            norm(nn.BatchNorm1d, 10, 4.0),
        )
        self.estimator = estimator

    def forward(self, x):
        return self.layers(self.estimator(centre(x)).view(x.size(0), -1))


class Convolutional(nn.Module):
    def __init__(self, estimator):
        super().__init__()
        self.features = nn.Sequential(
            Conv(2, 8, estimator, padding=1),
            nn.MaxPool2d(2),
            norm(nn.BatchNorm2d, 8, 4.0),
            Act(estimator),
            Conv(8, 7, estimator, stride=2),
            norm(nn.BatchNorm2d, 7, 8.0),
            Act(estimator),
        )
        self.scores = nn.Sequential(Dense(7 * 2 * 1, 10, estimator), norm(nn.BatchNorm1d, 10, 4.0))
        self.estimator = estimator

    def forward(self, x):
        return self.scores(self.features(self.estimator(centre(x))).flatten(1)).log_softmax(1)


CASES = [(Perceptron, (1, 5, 7)), (Convolutional, (2, 10, 7))]


def trained(kind, estimator):
    torch.manual_seed(1)
    return kind(ESTIMATORS[estimator])


def bytes_of(count, shape):
    return np.random.default_rng(2).integers(0, 256, (count, *shape), np.uint8)


def outputs(module, x):
    """What torch says. No sum comes near a threshold, so float32 is as good as exact."""
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x).float()).numpy()


class TestNetworks:
    @pytest.mark.parametrize(("kind", "shape"), CASES, ids=["perceptron", "convolutional"])
    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_the_golden_model_says_what_torch_says(self, kind, shape, estimator):
        module = trained(kind, estimator)
        network = xnorflow.load(module, input_shape=shape, sign_zero=+1)
        x = bytes_of(1000, shape)
        logits = outputs(module, x)
        frames = x if network.input_shape == shape else x.transpose(0, 2, 3, 1)
        prediction = xnorflow.predict(network, frames)
        assert network.name == kind.__name__
        assert np.array_equal(prediction.classes, logits.argmax(axis=1))
        # The log-softmax is dropped: it adds the same to all logits of a frame.
        shift = prediction.logits - logits
        assert np.ptp(shift, axis=1).max() < 1e-4

    def test_one_goes_on_through_the_hardware(self):
        module = trained(Convolutional, "where")
        network = xnorflow.load(module, input_shape=(2, 10, 7), name="own")
        x = bytes_of(2, (2, 10, 7))
        result = xnorflow.simulate(network, x.transpose(0, 2, 3, 1), layers=True)
        assert network.name == "own"
        assert result.mismatches == 0
        assert np.array_equal(result.classes, outputs(module, x).argmax(axis=1))

    def test_batch_norms_stay_what_they_are(self):
        module = trained(Perceptron, "where")
        network = xnorflow.load(module, input_shape=(1, 5, 7))
        kinds = [type(op).__name__ for op in network.ops]
        assert kinds.count("BatchNorm") == 2

    def test_what_torch_compile_wraps_is_found(self):
        module = trained(Perceptron, "where")
        network = xnorflow.load(torch.compile(module), input_shape=(1, 5, 7))
        assert network.name == "Perceptron"

    @pytest.mark.parametrize("way", ["length", "squeeze", "sizes"])
    def test_frames_may_be_flattened_in_any_way(self, way):
        class Flattened(Perceptron):
            def forward(self, x):
                flat = {
                    "length": lambda: x.reshape(len(x), -1),
                    "squeeze": lambda: x.squeeze().reshape(-1, 35),
                    "sizes": lambda: x.view(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]),
                }[way]()
                return self.layers(self.estimator(centre(flat)))

        torch.manual_seed(1)
        network = xnorflow.load(Flattened(Straight.apply), input_shape=(1, 5, 7))
        assert network.layers()[0].weights.shape == (21, 35)

    def test_the_module_of_the_page_is_loaded(self):
        page = PAGE.read_text(encoding="utf-8")
        code = next(
            c for c in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "Digits(" in c
        )
        scope = {}
        exec(compile(code, str(PAGE), "exec"), scope)
        network, module = scope["network"], scope["module"].eval()
        x = bytes_of(20, (1, 28, 28))
        with torch.no_grad():
            expected = module(torch.from_numpy(x) / 255).numpy()
        logits = xnorflow.predict(network, x, divide_by=255).logits
        assert np.allclose(logits, expected, atol=1e-4)


class TestModuleIsLeftAlone:
    def test_modes_parameters_and_buffers_stay(self):
        class Counting(Perceptron):
            def __init__(self):
                super().__init__(Straight.apply)
                self.register_buffer("calls", torch.zeros(1))

            def forward(self, x):
                self.calls += 1
                return super().forward(x)

        module = Counting()
        module.train()
        module.layers[1].eval()
        modes = [part.training for part in module.modules()]
        before = {name: value.clone() for name, value in module.state_dict().items()}
        xnorflow.load(module, input_shape=(1, 5, 7))
        assert [part.training for part in module.modules()] == modes
        after = module.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert all(parameter.requires_grad for parameter in module.parameters())
        assert torch.is_grad_enabled()

    def test_modes_are_put_back_after_a_refusal(self):
        module = trained(Perceptron, "where").train()
        with pytest.raises(xnorflow.UserError):
            xnorflow.load(module, input_shape=(1, 5, 5))
        assert all(part.training for part in module.modules())

    def test_nothing_is_written_printed_or_warned(self, tmp_path, monkeypatch, capfd):
        monkeypatch.chdir(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            xnorflow.load(trained(Convolutional, "where"), input_shape=(2, 10, 7))
        assert not list(tmp_path.iterdir())
        assert capfd.readouterr() == ("", "")

    def test_a_file_is_read_without_torch(self):
        code = f"import sys, xnorflow; xnorflow.load({MINI!r}); print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "False"


class TestRefusals:
    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            (None, "Perceptron: a module does not tell what frames it takes; give `input_shape`"),
            (35, "`input_shape` is 35 but must be the shape of one frame"),
            ((), r"`input_shape` is \(\) but must be"),
            ((1, 0, 7), r"`input_shape` is \(1, 0, 7\) but must be"),
            ((1, 5.0, 7), "but must be the shape of one frame"),
            (
                (1, 5, 6),
                r"does not take frames of shape \(1, 5, 6\) \(mat1 and mat2 .*`input_shape`",
            ),
            ((1 << 13, 1 << 13), "has 67108864 values a frame; at most 16777216 are legal"),
        ],
    )
    def test_a_wrong_input_shape(self, shape, message):
        with pytest.raises(xnorflow.UserError, match=message):
            xnorflow.load(trained(Perceptron, "where"), input_shape=shape)

    def test_a_module_that_torch_cannot_export(self, capfd):
        class Odd(nn.Module):
            def forward(self, x):
                return torch.special.bessel_j0(x)

        with pytest.raises(
            xnorflow.UserError, match=r"Odd: torch cannot export the module \(.*bess"
        ):
            xnorflow.load(Odd(), input_shape=(4,))
        assert capfd.readouterr() == ("", "")

    def test_a_module_that_branches_by_values(self):
        class Scaling(Perceptron):
            def forward(self, x):
                return super().forward(x / 255 if x.max() > 1 else x)

        torch.manual_seed(1)
        with pytest.raises(xnorflow.UserError, match="Scaling: what the module computes depends"):
            xnorflow.load(Scaling(Straight.apply), input_shape=(1, 5, 7))

    def test_a_module_that_gives_no_tensor(self):
        class Several(nn.Module):
            def forward(self, x):
                return {"scores": x, "features": x}

        with pytest.raises(xnorflow.UserError, match="Several: "):
            xnorflow.load(Several(), input_shape=(4,))

    def test_a_layer_that_is_no_hardware_is_named(self):
        module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        with pytest.raises(xnorflow.UserError, match=r"Sequential: node '/0/Gemm'"):
            xnorflow.load(module, input_shape=(4,))

    def test_a_missing_package_is_named(self, monkeypatch):
        def export(module, frames):
            raise ModuleNotFoundError("No module named 'onnxoptimizer'", name="onnxoptimizer")

        monkeypatch.setattr("xnorflow.frontend.live._export_torch", export)
        with pytest.raises(xnorflow.UserError, match="pip install onnxoptimizer"):
            xnorflow.load(trained(Perceptron, "where"), input_shape=(1, 5, 7))
