"""Networks read from QONNX mean what QONNX's own executor says."""

from importlib import resources

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes
from random_networks import random_frames, random_network, to_qonnx

import xnorflow
from xnorflow import api
from xnorflow.datasets import sample_digits
from xnorflow.frontend import load
from xnorflow.golden import predict
from xnorflow.lowering import lower

widths = st.lists(st.integers(1, 12), min_size=2, max_size=4)


@settings(max_examples=20)
@given(widths=widths, seed=st.integers(0, 1000))
def test_random_networks_survive_the_file(widths, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    network = random_network(rng, widths)
    path = tmp_path_factory.mktemp("models") / "random.onnx"
    onnx.save(to_qonnx(network, batch=5), path)
    x = random_frames(rng, network, 5)
    model = ModelWrapper(str(path)).transform(InferShapes())
    outputs = execute_onnx(model, {model.graph.input[0].name: x})
    expected = outputs[model.graph.output[0].name].argmax(axis=1)
    assert predict(lower(load(path)), x).classes.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["mnist_sfc", "mnist_mini"])
def test_shipped_models_agree_with_the_qonnx_executor(name):
    digits = sample_digits().x[:16]
    with resources.as_file(resources.files("xnorflow.models") / f"{name}.onnx") as path:
        network = load(path)
        model = ModelWrapper(str(path))
    model.set_tensor_shape(model.graph.input[0].name, (1, 28, 28, 1))
    model = model.transform(InferShapes())
    expected = []
    for digit in digits:
        x = digit[None].astype(np.float32)
        outputs = execute_onnx(model, {model.graph.input[0].name: x})
        expected.append(outputs[model.graph.output[0].name][0])
    prediction = predict(lower(network), digits)
    assert prediction.classes.tolist() == np.argmax(expected, axis=1).tolist()
    assert np.allclose(prediction.logits, expected, atol=1e-3)
    assert network.name == name
    assert len({layer.name for layer in network.layers()}) == len(network.layers())


def test_load_is_offered_by_the_package_itself():
    assert xnorflow.load is api.load
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = xnorflow.lode
