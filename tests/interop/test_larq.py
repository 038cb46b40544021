"""Networks that Larq saved give what Larq gave for them: classes, sums and outputs.

``larq_models.py`` has written the files, with Larq's own results for 1,000 frames each; nothing
here needs Larq or TensorFlow.
"""

from __future__ import annotations

import json
import os
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from xnorflow.assemble import assemble
from xnorflow.errors import UserError
from xnorflow.frontend import load
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import predict, quantize
from xnorflow.lowered import LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.planning import plan
from xnorflow.sim.verify import verify

pytestmark = pytest.mark.interop

FOLDER = Path(os.environ.get("XNORFLOW_INTEROP", "build/interop")) / "larq"
FACTS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
ACCEPTED = [name for name, facts in FACTS.items() if not facts["obstacles"]]
REFUSED = [name for name, facts in FACTS.items() if facts["obstacles"]]
KINDS = (".keras", ".h5")
STRIDES = ("", "_stride_even", "_stride_odd")


@cache
def network(name: str, kind: str) -> LoweredNetwork:
    options = {key: Fraction(value) for key, value in FACTS[name]["options"].items()}
    return lower(load(FOLDER / f"{name}{kind}", ImportOptions(**options)))


def of_larq(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as results:
        return dict(results)


def test_the_networks_have_been_saved():
    pads = {f"cnn_same_{pad}{stride}" for pad in ("zero", "one", "minus_one") for stride in STRIDES}
    assert pads | {"mlp_binary", "mlp_bytes", "larq_mnist", "larq_cifar"} <= set(ACCEPTED)
    assert {"refused_real_valued", "refused_separable"} <= set(REFUSED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ACCEPTED)
def test_every_frame_gets_the_class_and_the_sums_that_larq_gives(name, kind):
    larq = of_larq(name)
    assert len(larq["x"]) >= 1000
    ours = predict(network(name, kind), larq["x"])
    # Lowering takes a row of weights times -1 where the scale behind it is negative.
    sums = np.where(larq["slopes"] < 0, -larq["accumulators"], larq["accumulators"])
    np.testing.assert_array_equal(ours.accumulators, sums)
    np.testing.assert_array_equal(ours.classes, larq["classes"])
    span = np.abs(larq["logits"]).max()
    np.testing.assert_allclose(ours.logits, larq["logits"], rtol=0, atol=1e-5 * span)


@pytest.mark.parametrize("name", ACCEPTED)
def test_both_files_of_a_network_hold_the_same(name):
    keras, h5 = (network(name, kind) for kind in KINDS)
    assert keras.digest() == h5.digest()
    assert [stage.name for stage in keras.stages] == [stage.name for stage in h5.stages]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REFUSED)
def test_every_reason_for_a_refusal_is_told_with_its_layer(name, kind):
    with pytest.raises(UserError) as info:
        network(name, kind)
    reasons = [str(obstacle) for obstacle in getattr(info.value, "obstacles", [info.value])]
    expected = FACTS[name]["obstacles"]
    # Without a shape, which .h5 files lack, the walk ends behind a layer of an unknown kind.
    if "was not examined" in reasons[-1]:
        assert kind == ".h5"
        expected = expected[: len(reasons)]
    assert len(reasons) == len(expected)
    for reason, words in zip(reasons, expected, strict=True):
        assert words in reason
    assert name in str(info.value)
    assert reasons[0] in str(info.value)


@pytest.mark.parametrize("name", ["mlp_binary", "cnn_same_zero_stride_odd", "larq_mnist"])
def test_hardware_gives_the_classes_that_larq_gives(name):
    lowered, larq = network(name, ".keras"), of_larq(name)
    core = assemble(lowered, plan(lowered, None, target_fps=200_000).folding)
    result = verify(core, lowered, quantize(lowered, larq["x"][:12]), watch_layers=True)
    assert result.mismatches == 0
    np.testing.assert_array_equal(result.classes, larq["classes"][:12])
