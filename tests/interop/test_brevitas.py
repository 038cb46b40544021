"""Networks that Brevitas and torch exported give what these gave: classes, sums and outputs.

``brevitas_models.py`` has written the files, with the frameworks' own results for 1,000 frames
each; nothing here needs Brevitas or torch.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from interop import Samples

from xnorflow.frontend import load
from xnorflow.frontend.obstacles import ModelRefused
from xnorflow.lowered import LoweredNetwork
from xnorflow.lowering import lower

pytestmark = pytest.mark.interop

BREVITAS = Samples("brevitas")


def files(names: list[str]) -> list[tuple[str, str]]:
    return [(name, exporter) for name in names for exporter in BREVITAS.facts[name]["exporters"]]


@cache
def network(name: str, exporter: str) -> LoweredNetwork:
    path = BREVITAS.folder / f"{name}.{exporter}.onnx"
    return lower(load(path, BREVITAS.options(name)))


def test_the_networks_have_been_exported():
    pools = {
        f"cnn_{pool}_{place}_pad{padding}_stride{stride}"
        for pool, place in (
            *(("max", place) for place in ("before_norm", "after_norm", "after_sign")),
            *(("average", place) for place in ("before_norm", "after_norm")),
        )
        for padding in (0, 1)
        for stride in (1, 2)
    }
    groups = {
        f"cnn_groups{groups}_pad{padding}_stride{stride}{bias}"
        for groups in (1, 2, 4)
        for padding in (0, 1)
        for stride in (1, 2)
        for bias in ("", "_bias")
    }
    finn = {"tfc_1w1a", "sfc_1w1a", "lfc_1w1a", "cnv_1w1a"}
    several_bits = {"mlp_levels", "cnn_levels"}
    some = {"mlp", "torch_where_mlp", "cnn_residual"} | several_bits
    assert pools | groups | finn | some <= set(BREVITAS.accepted)
    assert "refused_real_valued" in BREVITAS.refused


def test_some_scales_behind_the_last_layer_are_negative():
    assert any(
        (np.load(BREVITAS.folder / f"{name}.npz")["slopes"] < 0).any() for name in BREVITAS.accepted
    )


def test_levels_and_planes_are_those_of_the_module():
    inner = network("mlp_levels", "dynamo").layers
    # -1, 0 and 1 are planes of two signs, -2 to 1 take one more; 3 and 4 bits are 7 and 15 steps.
    assert [layer.planes for layer in inner] == [2, 3, 1]
    assert [layer.levels for layer in inner] == [1, 7, 15]


@pytest.mark.parametrize(("name", "exporter"), files(BREVITAS.accepted))
def test_every_frame_gets_the_class_and_the_sums_that_the_framework_gives(name, exporter):
    BREVITAS.compare(name, network(name, exporter))


@pytest.mark.parametrize(("name", "exporter"), files(BREVITAS.refused))
def test_every_reason_for_a_refusal_is_told_with_its_node(name, exporter):
    with pytest.raises(ModelRefused) as info:
        network(name, exporter)
    reasons = [obstacle.where for obstacle in info.value.obstacles]
    expected = BREVITAS.facts[name]["obstacles"]
    assert len(reasons) == len(expected)
    for reason, words in zip(reasons, expected, strict=True):
        assert words in reason
    assert f"{name}.{exporter}.onnx: {reasons[0]}" in str(info.value)


@pytest.mark.parametrize(
    ("name", "exporter", "target_fps", "frames"),
    [
        ("mlp", "dynamo", 200_000, 12),
        ("tfc_1w1a", "old", 200_000, 12),
        ("cnn_signed_pixels", "dynamo", 200_000, 12),
        ("cnn_dynamo_depthwise", "torchscript", 38_000, 6),
        ("cnn_like_cnv", "torchscript", 15_000, 3),
        ("torch_where_cnn", "dynamo", 200_000, 12),
        ("mlp_levels", "dynamo", 200_000, 12),
        ("cnn_levels", "torchscript", 38_000, 6),
    ],
)
def test_hardware_gives_the_classes_that_the_framework_gives(name, exporter, target_fps, frames):
    BREVITAS.simulate(name, network(name, exporter), target_fps, frames)
