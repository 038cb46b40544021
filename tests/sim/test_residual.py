"""Networks whose shortcuts have layers: from the file to the simulated core, bit and cycle."""

import numpy as np
import pytest
from foldings import random_folding
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from import_bench import Drawn
from qonnx_graphs import execute
from residual_networks import random_residual

from xnorflow import golden
from xnorflow.assemble import assemble
from xnorflow.cost import FAMILIES
from xnorflow.errors import UserError
from xnorflow.estimate import estimate_core
from xnorflow.fifo_sizing import fifo_depths
from xnorflow.folding import Folding, LayerFolding, check_folding, folding_json
from xnorflow.frontend import read
from xnorflow.import_check import lower_verified
from xnorflow.lowered import LoweredJoin, LoweredLayer, LoweredNetwork
from xnorflow.lowering import lower
from xnorflow.network import Conv2d, Dense, Flatten, Join, Network, Sign
from xnorflow.pipeline import JoinStage, MatrixStage, cycles_per_frame, pipeline
from xnorflow.search import Budget, smallest
from xnorflow.sim.verify import verify
from xnorflow.timing import latency_cycles

seeds = st.integers(0, 1_000_000)
BORDER = [1] * 4


class ResNet(Drawn):
    """A ResNet of two stages; the second one begins with a smaller and deeper image."""

    def conv(self, x: str, inputs: int, outputs: int, name: str, **options) -> str:
        """Add a binary convolution of 3 x 3 and a batch norm."""
        options = {"pads": BORDER, **options}
        size = 1 if options["pads"] == [0] * 4 else 3
        x = self.node("Conv", x, self.signs(outputs, inputs, size, size), name=name, **options)
        rng = self.rng
        norm = [rng.choice([-0.5, 0.25, 0.5], outputs), rng.integers(-2, 3, outputs) / 4]
        norm += [rng.integers(-3, 4, outputs) / 2, np.ones(outputs)]
        return self.node("BatchNormalization", x, *map(self.constant, norm), epsilon=0.0)

    def block(self, x: str, inputs: int, outputs: int, name: str) -> str:
        """Add two convolutions and a shortcut past both."""
        stride, side = {}, x
        if inputs != outputs:
            stride = {"strides": [2, 2]}
            side = self.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            side = self.conv(self.bipolar(side), inputs, outputs, f"{name}_down", pads=[0] * 4)
        y = self.conv(self.bipolar(x), inputs, outputs, f"{name}_a", **stride)
        y = self.conv(self.bipolar(y), outputs, outputs, f"{name}_b")
        return self.node("Add", y, side, name=f"{name}_add")

    def network(self) -> None:
        x = self.conv(self.bipolar("x"), 1, 3, "stem")
        x = self.block(x, 3, 3, "one")
        x = self.block(x, 3, 4, "two")
        x = self.node("Flatten", self.node("GlobalAveragePool", self.bipolar(x)))
        self.node("Gemm", self.bipolar(x), self.signs(4, 3), name="classes")


def test_a_small_resnet_runs_from_its_file_to_its_core(tmp_path):
    graph = ResNet(4, ("N", 1, 6, 6))
    graph.network()
    imported = read(graph.save(tmp_path))
    _, lowered = lower_verified(imported, True)
    names = [layer.name for layer in lowered.layers]
    assert names == ["stem", "one_a", "one_b", "two_a", "two_b", "two_down", "classes"]

    rng = np.random.default_rng(1)
    frames = (rng.integers(-8, 9, (24, 6, 6, 1)) / 8).astype(np.float32)
    scores = execute(graph.model(), np.moveaxis(frames, -1, 1)).reshape(24, 3)
    np.testing.assert_allclose(golden.predict(lowered, frames).logits, scores, atol=1e-4)

    family = FAMILIES["ecp5"]
    found = smallest(lowered, family, Budget(20_000, 56), 150)
    assert found.folding == check_folding(folding_json(found.folding), lowered, "it", family)
    assert list(found.folding) == names
    core = assemble(lowered, found.folding)
    quantized = golden.quantize(lowered, frames)
    result = verify(core, lowered, quantized[:2], stall=0.3, watch_layers=True)
    assert result.mismatches == 0
    assert {"two_down", "two_add"} < result.layer_mismatches.keys()
    result = verify(core, lowered, quantized, engine="cxxrtl", watch_layers=True)
    assert result.mismatches == 0
    assert result.cycles_per_frame == core.cycles_per_frame <= 150
    assert core.latency <= result.latency_cycles <= 1.02 * core.latency


def drawn(seed):
    """Return a random network, lowered, with a folding and six quantized frames."""
    network = random_residual(seed)
    try:
        lowered = lower(network)
    except UserError:
        reject()
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 5, (6, *network.input_shape)).astype(np.uint8)
    return lowered, random_folding(rng, lowered), golden.quantize(lowered, frames)


@settings(max_examples=6)
@given(seed=seeds, stall=st.sampled_from([0.0, 0.2, 0.7]))
def test_random_networks_are_bit_exact_under_back_pressure(seed, stall):
    lowered, folding, frames = drawn(seed)
    assume(cycles_per_frame(lowered, folding) < 150)
    core = assemble(lowered, folding)
    result = verify(core, lowered, frames[:3], stall=stall, seed=seed, watch_layers=True)
    assert result.mismatches == 0
    assert result.layer_mismatches.keys() == {step.op.name for step in lowered.flow()[:-1]}


@settings(max_examples=3)
@given(seed=seeds)
def test_cycles_and_latency_are_the_predicted_ones(seed):
    lowered, folding, frames = drawn(seed)
    stages = pipeline(lowered, folding)
    every = [part for stage in stages for part in (*getattr(stage, "side", ()), stage)]
    busiest = sorted(part.cycles for part in every if not isinstance(part, JoinStage))[-2:]
    assume(150 > busiest[-1] >= 40 and busiest[0] <= 0.7 * busiest[-1])
    core = assemble(lowered, folding)
    assert core.latency == latency_cycles(lowered, folding)
    result = verify(core, lowered, frames)
    # A branch that is slow to take its first pixels holds up the other one.
    assert core.latency <= result.latency_cycles <= 1.25 * core.latency
    assert result.cycles_per_frame == core.cycles_per_frame == cycles_per_frame(lowered, folding)


def test_random_networks_have_layers_on_shortcuts():
    found = {"add": 0, "append": 0, "prepend": 0}
    for seed in range(80):
        try:
            stages = lower(random_residual(seed)).stages
        except UserError:
            continue
        for join in stages:
            if isinstance(join, LoweredJoin):
                found[join.how] += any(isinstance(part, LoweredLayer) for part in join.path)
    assert min(found.values()) >= 10


def unequal(long: str, size: int, layers: int) -> tuple[LoweredNetwork, Folding]:
    """Return a network whose main branch or shortcut has more layers than the other one.

    Its images have 100 pixels, and its convolutions take one a cycle. The folding leaves out the
    last layer.
    """
    rng = np.random.default_rng(3)
    signs = np.array([-1, 1], np.int8)

    def conv(name: str, inputs: int, size: int) -> Conv2d:
        weights = rng.choice(signs, (4, size, size, inputs))
        return Conv2d(name, weights, padding=(size // 2,) * 4)

    names = [f"long{n}" for n in range(layers)]
    ops = [op for name in names for op in (conv(name, 4, size), Sign(f"{name}_sign"))][:-1]
    branches = ops, [conv("short", 4, 1)]
    main, side = branches if long == "main" else branches[::-1]
    whole = [Sign("in"), conv("first", 1, 3), Sign("s1"), *main]
    whole += [Join("add", 3, tuple(side), "add"), Sign("s3"), Flatten("flat")]
    whole.append(Dense("last", rng.choice(signs, (3, 400))))
    folding = {name: LayerFolding(4, 4 * size**2, "constant") for name in names}
    folding |= {"first": LayerFolding(4, 9, "constant"), "short": LayerFolding(4, 4, "constant")}
    return lower(Network("unequal", (10, 10, 1), tuple(whole))), folding


@pytest.mark.parametrize("long", ["main", "side"])
def test_the_shorter_branch_waits_in_a_fifo(long):
    lowered, folding = unequal(long, 3, 2)
    folding["last"] = LayerFolding(1, 8, "lut")
    stages = pipeline(lowered, folding)
    depths = fifo_depths(stages)
    (place,) = (n for n, stage in enumerate(stages) if isinstance(stage, JoinStage))
    on_main, on_side = depths.main[place], depths.sides[place][-1]
    # Two windows of 3 x 3 hold back a row and a pixel each.
    assert 22 <= (on_side if long == "main" else on_main) <= 40
    assert (on_main if long == "main" else on_side) <= 4
    core = assemble(lowered, folding)
    frames = np.random.default_rng(4).random((5, 100)) < 0.5
    result = verify(core, lowered, frames, watch_layers=True)
    assert (result.mismatches, result.cycles_per_frame) == (0, cycles_per_frame(lowered, folding))
    assert core.latency <= result.latency_cycles <= 1.1 * core.latency


@pytest.mark.parametrize("long", ["main", "side"])
def test_registers_of_the_longer_branch_cost_no_speed(long):
    lowered, folding = unequal(long, 1, 4)
    folding["last"] = LayerFolding(3, 20, "lut")
    core = assemble(lowered, folding)
    result = verify(core, lowered, np.random.default_rng(4).random((5, 100)) < 0.5)
    assert (result.mismatches, result.cycles_per_frame) == (0, 100)
    assert result.latency_cycles == core.latency


@pytest.mark.parametrize(
    ("key", "words"), [("inputs", "first layer only"), ("outputs", "shortcuts")]
)
def test_layers_on_shortcuts_are_not_padded(key, words):
    lowered = lower(random_residual(34))
    table = {layer.name: {"pe": 1, "simd": 1} for layer in lowered.layers}
    name = next(layer.name for layer in lowered.layers if layer not in lowered.main_layers)
    table[name][key] = 4
    with pytest.raises(UserError, match=f"layer {name!r}: {key} is .*{words}"):
        check_folding(table, lowered, "it")


def test_what_stands_on_a_shortcut_costs_and_takes_cycles():
    lowered = lower(random_residual(34))
    aside = {layer.name for layer in lowered.layers} - {x.name for x in lowered.main_layers}
    fast, slow = ({layer.name: {"pe": 1, "simd": 1} for layer in lowered.layers} for _ in "ab")
    family = FAMILIES["ice40"]
    for name in aside:
        layer = next(layer for layer in lowered.layers if layer.name == name)
        fast[name] = {"pe": layer.rows, "simd": layer.mw}
    pair = [check_folding(table, lowered, "it", family) for table in (fast, slow)]
    costs = [estimate_core(family, lowered, folding).costs for folding in pair]
    for name in aside:
        assert pair[0][name].cycles(next(x for x in lowered.layers if x.name == name)) > 0
        assert costs[0][name].ff > costs[1][name].ff
    stages = [part for join in pipeline(lowered, pair[1]) for part in getattr(join, "side", ())]
    assert {stage.name for stage in stages if isinstance(stage, MatrixStage)} == aside
