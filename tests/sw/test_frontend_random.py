"""Random networks of levels, planes and shortcuts survive the way through a file."""

from __future__ import annotations

import numpy as np
import pytest
from exact_networks import run_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import EXTRAS, random_cnn, random_frames, reference_logits, to_qonnx

from xnorflow.float_model import evaluate
from xnorflow.frontend.reader import graph_of
from xnorflow.frontend.walk import import_graph
from xnorflow.import_check import compare_network
from xnorflow.network import Join, MultiThreshold, Network, Quantize

SEEDS = st.integers(0, 1 << 32)


@pytest.mark.parametrize("exact", [True, False])
@given(seed=SEEDS)
@settings(max_examples=60)
def test_imported_network_computes_what_its_graph_does(exact, seed):
    rng = np.random.default_rng(seed)
    network = random_cnn(rng, exact=exact, extras=EXTRAS)
    imported = import_graph(graph_of(to_qonnx(network, batch="N"), "net.onnx"))
    x = random_frames(rng, network, 4)
    _, own, conclusive = compare_network(imported, x)
    expected = reference_logits(network, x)[conclusive]
    got = own[-1].values.reshape(4, -1)[conclusive]
    np.testing.assert_allclose(
        got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max(initial=1)
    )


@pytest.mark.parametrize("extra", EXTRAS)
@given(seed=SEEDS)
@settings(max_examples=8)
def test_float_model_is_exact_but_for_rounding(extra, seed):
    rng = np.random.default_rng(seed)
    network = random_cnn(rng, extras=[extra])
    (frame,) = random_frames(rng, network, 1)
    tensors = list(evaluate(network, frame[None]))[1:]
    for tensor, exact in zip(tensors, run_exact(network, frame), strict=True):
        np.testing.assert_allclose(tensor.values[0], exact.astype(float), atol=1e-9)


def test_random_networks_have_every_extra():
    def has(network: Network, extra: str) -> bool:
        kinds = {"levels": Quantize, "thresholds": MultiThreshold, "joins": Join}
        if extra == "weights":
            return any(layer.coefficients is not None for layer in network.layers())
        # A quantizer of the frame is none of a hidden tensor.
        return any(isinstance(op, kinds[extra]) for op in network.ops[2:])

    networks = [random_cnn(np.random.default_rng(seed), extras=EXTRAS) for seed in range(60)]
    assert all(sum(has(network, extra) for network in networks) > 15 for extra in EXTRAS)
