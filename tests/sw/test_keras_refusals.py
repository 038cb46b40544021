"""Models that cannot become hardware: each layer in the way is named, with the way out."""

import numpy as np
import pytest
from keras_files import KerasModel, read_here

from xnorflow.errors import UserError
from xnorflow.frontend import load
from xnorflow.frontend.keras import files
from xnorflow.frontend.obstacles import ModelRefused
from xnorflow.network import Join

SIGN = {"module": "larq.quantizers", "class_name": "SteSign", "config": {}}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Read HDF5 here: starting another process for each file would take most of the time."""
    monkeypatch.setattr(files, "read_hdf5", read_here)


def obstacles(model: KerasModel, tmp_path, form: str = "keras") -> list[str]:
    path = model.save(tmp_path / "model", form)
    with pytest.raises(ModelRefused) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: {error.value.obstacles[0]}")
    return [str(obstacle) for obstacle in error.value.obstacles]


def edited(model: KerasModel, index: int = -1, **settings: object) -> KerasModel:
    model.layers[index][1].update(settings)
    return model


def vector(**options) -> KerasModel:
    """A model whose second layer, 'quant_dense_1', has the given options."""
    return KerasModel((12,)).dense(8).batch_norm().dense(6, **options).batch_norm().dense(4)


def image(**options) -> KerasModel:
    """A model whose second layer, 'quant_conv2d_1', has the given options."""
    model = KerasModel((7, 7, 2)).conv(4, 2).batch_norm().conv(4, 3, **options)
    return model.batch_norm().flatten().dense(3)


def between(*layers: tuple[str, dict]) -> KerasModel:
    model = KerasModel((12,)).dense(8).batch_norm()
    for kind, config in layers:
        model.other(kind, **config)
    return model.dense(4)


def real_kernel() -> KerasModel:
    values = np.random.default_rng(1).normal(0, 1, (8, 6)).astype(np.float32)
    return vector(kernel=None, values=values)


def infinite_kernel() -> KerasModel:
    values = np.ones((8, 6), np.float32)
    values[3, 2] = np.inf
    return vector(values=values)


def wide_kernel() -> KerasModel:
    values = np.full((8, 6), 0.1)
    return vector(kernel=None, values=values)


def shapeless(role: int) -> KerasModel:
    model = vector(bias=True)
    name, array = model.layers[2][2][role]
    model.layers[2][2][role] = (name, array[:-1])
    return model


def without_weights() -> KerasModel:
    model = vector()
    model.layers[2][2].clear()
    return model


def with_kernel_quantizer(what: object) -> KerasModel:
    return edited(vector(), 2, kernel_quantizer=what)


def with_input_quantizer(what: object) -> KerasModel:
    return edited(vector(), 2, input_quantizer=what)


DENSE, CONV = "layer 'quant_dense_1' (QuantDense) ", "layer 'quant_conv2d_1' (QuantConv2D) "
REFUSED = {
    "real weights": (
        real_kernel,
        DENSE + "has a kernel that is neither binary nor integers of up to 8 bits times one scale ",
        'give the layer kernel_quantizer="ste_sign"',
    ),
    "infinite weights": (infinite_kernel, DENSE + "has a kernel that holds NaN or infinity", ""),
    "weights of float64": (wide_kernel, DENSE + "has a kernel that float32 cannot hold", ""),
    "kernel's shape": (
        lambda: shapeless(0),
        DENSE + "has a kernel of shape (7, 6) where (8, 6) belongs",
        "",
    ),
    "bias's shape": (lambda: shapeless(1), DENSE + "has a bias of shape (5,) for 6", ""),
    "no weights": (without_weights, DENSE + "has 0 arrays of weights in the file where 1", ""),
    "ternary weights": (
        lambda: with_kernel_quantizer("ste_tern"),
        DENSE + "makes its weights ternary",
        'kernel_quantizer="ste_sign"',
    ),
    "weights of 0 and 1": (
        lambda: with_kernel_quantizer({"class_name": "SteHeaviside", "config": {}}),
        DENSE + "has weights of 0 and 1",
        'kernel_quantizer="ste_sign"',
    ),
    "weights of two bits": (
        lambda: with_kernel_quantizer({"class_name": "DoReFa", "config": {"mode": "weights"}}),
        DENSE + "quantizes its weights to 2 bits by DoReFa",
        'kernel_quantizer="ste_sign"',
    ),
    "unknown weights": (
        lambda: with_kernel_quantizer({"class_name": "Mine", "config": {}}),
        DENSE + "has the kernel_quantizer 'Mine', which is not known",
        'kernel_quantizer="ste_sign"',
    ),
    "ternary inputs": (
        lambda: with_input_quantizer("ste_tern"),
        DENSE + "makes its inputs ternary",
        'input_quantizer="ste_sign"',
    ),
    "inputs of nine bits": (
        lambda: with_input_quantizer({"class_name": "DoReFa", "config": {"k_bit": 9}}),
        DENSE + "quantizes activations to 9 bits",
        "give k_bit up to 8",
    ),
    "inputs like weights": (
        lambda: with_input_quantizer({"class_name": "DoReFa", "config": {"mode": "weights"}}),
        DENSE + "quantizes activations as if they were weights",
        "ste_sign",
    ),
    "scaled inputs": (
        lambda: with_input_quantizer("magnitude_aware_sign"),
        DENSE + "scales its inputs by their mean",
        'input_quantizer="ste_sign"',
    ),
    "unknown inputs": (
        lambda: with_input_quantizer("mine"),
        DENSE + "has the input_quantizer 'mine', which is not known",
        'input_quantizer="ste_sign"',
    ),
    "lambda inputs": (
        lambda: with_input_quantizer({"class_name": "__lambda__", "config": {"value": "x"}}),
        DENSE + "computes with Python code",
        "name a quantizer",
    ),
    "sums": (
        lambda: vector(quantizer=None),
        DENSE + "takes the sums of layer 'quant_dense' (QuantDense), which nothing makes binary",
        'give the layer input_quantizer="ste_sign"',
    ),
    "padding": (
        lambda: image(padding="same", pad_values=0.5),
        CONV + "pads with 0.5",
        "pad_values of -1, 0 or 1",
    ),
    "causal padding": (
        lambda: edited(image(), 2, padding="causal"),
        CONV + "has padding='causal'",
        'padding="valid" or "same"',
    ),
    "channels first": (
        lambda: edited(image(), 2, data_format="channels_first"),
        CONV + "keeps the channels first",
        'data_format="channels_last"',
    ),
    "kernel": (
        lambda: edited(image(), 2, kernel_size=[9, 9]),
        CONV + "has windows of 9 x 9 pixels on an image of 6 x 6",
        "smaller kernel",
    ),
    "huge padding": (
        lambda: edited(image(padding="same"), 2, kernel_size=[4096, 4096], dilation_rate=4096),
        CONV + "pads its image to",
        "pad less",
    ),
    "strides": (
        lambda: edited(image(), 2, strides=[1, 0]),
        CONV + "has the setting strides = [1, 0]",
        "",
    ),
    "filters": (
        lambda: edited(image(), 2, filters="4"),
        CONV + "has the setting filters = '4'",
        "",
    ),
    "use_bias": (lambda: edited(image(), 2, use_bias=1), CONV + "has the setting use_bias = 1", ""),
    "pad_values": (
        lambda: edited(image(padding="same"), 2, pad_values=[[1.0]]),
        CONV + "has the setting pad_values = [[1.0]], which is no finite number",
        "",
    ),
    "convolution of vectors": (
        lambda: KerasModel((6, 6, 1)).conv(4, 3).other("Flatten").conv(3, 2),
        "layer 'quant_conv2d_1' (QuantConv2D) takes images, but gets frames of shape (64,)",
        "(rows, columns, channels)",
    ),
    "separable": (
        lambda: image(kind="QuantSeparableConv2D", multiplier=2),
        "layer 'quant_separable_conv2d' (QuantSeparableConv2D) adds 2 sums of each channel",
        "depth_multiplier=1",
    ),
    "average pool": (
        lambda: KerasModel((7, 7, 2)).conv(4, 3).pool("Average", 2, padding="same").global_pool(),
        "layer 'average_pooling2d' (AveragePooling2D) divides by other numbers at the borders",
        'padding="valid"',
    ),
    "zeros before a pool": (
        lambda: KerasModel((7, 7, 2)).conv(4, 3).zero_padding(1, 0, 0, 2).pool("Max").conv(3, 3),
        "layer 'zero_padding2d' (ZeroPadding2D) pads the input of layer 'max_pooling2d'",
        "directly before a Conv",
    ),
    "norm's axis": (
        lambda: edited(image(), 1, axis=[1]),
        "layer 'batch_normalization' (BatchNormalization) works along axis [1]",
        "axis=-1",
    ),
    "renorm": (
        lambda: edited(image(), 1, renorm=True),
        "layer 'batch_normalization' (BatchNormalization) renormalizes",
        "",
    ),
    "relu": (
        lambda: between(("ReLU", {"max_value": None, "negative_slope": 0.0, "threshold": 0.0})),
        "layer 'relu' (ReLU) ",
        "",
    ),
    "activation": (
        lambda: between(("Activation", {"activation": "swish"})),
        "layer 'activation' (Activation) has the activation 'swish', which is not binary",
        'Activation("ste_sign")',
    ),
    "PReLU": (lambda: between(("PReLU", {})), "layer 'prelu' (PReLU) is an activation that", ""),
    "lambda": (
        lambda: between(("Lambda", {"function": ["4wEAAAA=", None, None]})),
        "layer 'lambda' (Lambda) runs Python code, which no file may do here",
        "use layers",
    ),
    "unknown layer": (
        lambda: between(("LSTM", {"units": 8})),
        "layer 'lstm' (LSTM) is of a kind that is not supported",
        "QuantConv2D, QuantDense",
    ),
    "custom layer": (
        lambda: between(("Mine>Layer", {})),
        "layer 'mine>layer' (Layer) is of a kind that is not supported",
        "accepted are",
    ),
    "sign at the end": (
        lambda: KerasModel((12,)).dense(4).sign(),
        "layer 'activation' (Activation) follows the last layer",
        "end the network with the sums",
    ),
    "no layer": (lambda: KerasModel((12,)).sign(), "has no weight layer", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_in_the_way_is_named_with_the_way_out(case, tmp_path):
    build, problem, mend = REFUSED[case]
    (first, *_) = obstacles(build(), tmp_path)
    assert first.startswith(problem)
    assert mend in first.split("; ", 1)[1]


def test_all_obstacles_are_told_at_once(tmp_path):
    model = KerasModel((12,)).dense(8, kernel=None).batch_norm().other("LSTM", units=9)
    model.dense(6, quantizer="SteSign").batch_norm().dense(5, quantizer=None).batch_norm()
    model.activation("swish", lambda x: x).dense(4, kernel=None)
    edited(model, 3, kernel_quantizer="ste_tern")
    found = obstacles(model, tmp_path)
    assert [one.split(" (")[0] for one in found] == [
        "layer 'quant_dense'",
        "layer 'lstm'",
        "layer 'quant_dense_1'",
        "layer 'quant_dense_2'",
        "layer 'activation'",
        "layer 'quant_dense_3'",
    ]


def test_where_files_do_not_tell_shapes_what_follows_is_said_to_be_unseen(tmp_path):
    model = between(("LSTM", {"units": 8}))
    (found,) = obstacles(model, tmp_path, "h5")
    assert found.endswith("(what lies behind it was not examined)")


def joined(kind: str) -> tuple[KerasModel, str]:
    model = KerasModel((6, 6, 2)).conv(4, 3).batch_norm().conv(4, 3, padding="same").batch_norm()
    model.other(kind).conv(3, 4, kernel=None).global_pool()
    return model, kind.lower()


def with_shortcut(model: KerasModel, name: str, monkeypatch) -> None:
    """Let a layer take what the first batch norm gives as well."""
    whole = model.config

    def config(*arguments):
        entry = whole(*arguments)
        for layer in entry["config"]["layers"]:
            if layer.get("name") == name:
                (call,) = layer["inbound_nodes"]
                if isinstance(call, dict):
                    (main,) = call["args"]
                    other = {"keras_history": ["batch_normalization", 0, 0]}
                    skip = {"class_name": "__keras_tensor__", "config": other}
                    layer["inbound_nodes"] = [{"args": [[main, skip]], "kwargs": {}}]
                else:
                    call.append(["batch_normalization", 0, 0, {}])
        return entry

    monkeypatch.setattr(model, "config", config)


FUNCTIONAL = ["keras functional", "keras 3 functional", "h5 functional"]


@pytest.mark.parametrize("form", FUNCTIONAL)
@pytest.mark.parametrize("kind", ["Multiply", "Average"])
def test_branches_are_refused_where_they_meet_otherwise(form, kind, tmp_path, monkeypatch):
    model, name = joined(kind)
    with_shortcut(model, name, monkeypatch)
    found = obstacles(model, tmp_path, form)
    assert found[0].startswith(f"layer {name!r} ({kind}) takes 2 inputs")
    assert "(QuantConv2D) has a kernel that is neither binary nor" in found[1]


@pytest.mark.parametrize("form", FUNCTIONAL)
@pytest.mark.parametrize("kind", ["Add", "Subtract", "Concatenate"])
def test_branches_meet_in_sums_and_concatenations(form, kind, tmp_path, monkeypatch):
    channels = 8 if kind == "Concatenate" else 4
    model = KerasModel((6, 6, 2)).conv(4, 3, padding="same").batch_norm()
    model.conv(4, 3, quantizer="SteSign", padding="same").batch_norm()
    model.other(kind, **({"axis": -1} if kind == "Concatenate" else {}))
    model.shape = (6, 6, channels)
    model.conv(3, 1, quantizer="SteSign").global_pool()
    with_shortcut(model, kind.lower(), monkeypatch)
    network = load(model.save(tmp_path / "model", form))
    (join,) = (op for op in network.ops if isinstance(op, Join))
    assert join.name == kind.lower()
    assert [op.name for op in network.ops[: join.source]][-1] == "batch_normalization"
    assert network.layers()[-1].weights.shape == (3, 1, 1, channels)


def changed_config(model: KerasModel, tmp_path, change) -> str:
    """Return how a functional model with a changed configuration is refused."""
    whole = model.config

    def config(*arguments):
        entry = whole(*arguments)
        return change(entry) or entry

    model.config = config
    with pytest.raises(UserError) as error:
        load(model.save(tmp_path / "model", "keras functional"))
    return str(error.value)


def set_model(**values):
    return lambda entry: entry["config"].update(values)


def set_layer(which: str, /, **values):
    def change(entry):
        for layer in entry["config"]["layers"]:
            if layer["name"] == which:
                layer.update(values)

    return change


def second_input(entry):
    layers = entry["config"]["layers"]
    layers.append({**layers[0], "name": "input_2"})
    entry["config"]["input_layers"].append(["input_2", 0, 0])


MODELS = {
    "subclass": (
        lambda entry: entry.update(class_name="MyModel"),
        "holds a 'MyModel', which is no Sequential or functional model",
    ),
    "no layers": (set_model(layers=None), "without a list of layers"),
    "strange layers": (set_model(layers=[3]), "layers that are no objects"),
    "no class": (set_layer("quant_dense", class_name=None), "a layer without a class"),
    "two inputs": (second_input, "has 2 inputs"),
    "two outputs": (
        set_model(output_layers=[["quant_dense_2", 0, 0], ["quant_dense_1", 0, 0]]),
        "layer 'quant_dense_2' (QuantDense) gives one of 2 outputs",
    ),
    "no outputs": (set_model(output_layers=[]), "does not tell its inputs and outputs"),
    "unknown output": (set_model(output_layers=[["x", 0, 0]]), "does not tell its inputs and out"),
    "output of another call": (set_model(output_layers=[["quant_dense", 7, 0]]), "no layer gives"),
    "cycle": (
        set_layer("quant_dense", inbound_nodes=[[["quant_dense_2", 0, 0, {}]]]),
        "has layers whose inputs no layer gives",
    ),
    "no source": (set_layer("quant_dense", inbound_nodes=[]), "does not tell what layer 'quant_de"),
    "one name": (set_layer("quant_dense_1", name="quant_dense"), "gives two layers one name"),
    "free size": (
        set_layer("input_1", config={"batch_input_shape": [None, None], "name": "input_1"}),
        "has an input of shape [None, None]",
    ),
    "huge frame": (
        set_layer("input_1", config={"batch_input_shape": [None, 1 << 30], "name": "input_1"}),
        "has an input of shape",
    ),
    "integers": (
        set_layer(
            "input_1", config={"batch_input_shape": [None, 12], "dtype": "int32", "name": "i"}
        ),
        "takes frames of type int32",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_are_no_chain_of_layers_are_refused(case, tmp_path):
    change, problem = MODELS[case]
    assert problem in changed_config(vector(), tmp_path, change)


def test_models_too_deep_in_each_other_are_refused(tmp_path):
    def change(entry):
        for _ in range(12):
            entry["config"] = {"name": "m", "layers": [{**entry, "config": {**entry["config"]}}]}
            entry["class_name"] = "Sequential"

    assert "models more than 8 deep" in changed_config(vector(), tmp_path, change)


def test_a_layer_may_be_called_twice_and_weights_are_counted(tmp_path, monkeypatch):
    model = KerasModel((8,)).dense(8).batch_norm().dense(8).batch_norm().dense(3)
    whole = model.config

    def config(*arguments):
        entry = whole(*arguments)
        for layer in entry["config"]["layers"]:
            if layer["name"] == "quant_dense":
                layer["inbound_nodes"].append([["batch_normalization", 0, 0, {}]])
            if layer["name"] == "batch_normalization":
                layer["inbound_nodes"].append([["quant_dense", 1, 0, {}]])
            if layer["name"] == "quant_dense_1":
                layer["inbound_nodes"] = [[["batch_normalization", 1, 0, {}]]]
        return entry

    monkeypatch.setattr(model, "config", config)
    path = model.save(tmp_path / "model", "keras functional")
    names = [op.name for op in load(path).layers()]
    assert names == ["fc1", "fc2", "quant_dense_1", "quant_dense_2"]
    monkeypatch.setattr("xnorflow.frontend.keras.layers._MAX_WEIGHTS", 100)
    with pytest.raises(ModelRefused, match="is beyond the first 100 weights"):
        load(path)
