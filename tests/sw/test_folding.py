"""Foldings: what is legal, what is smallest, what fits."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import lowered_network

from xnorflow import load
from xnorflow.boards.board import load as load_board
from xnorflow.cost import FAMILIES
from xnorflow.errors import UserError, WorkFailed
from xnorflow.estimate import estimate_core
from xnorflow.folding import LayerFolding, folding_json, read_folding, widths
from xnorflow.lowering import lower
from xnorflow.padding import pad
from xnorflow.pipeline import cycles_per_frame
from xnorflow.planning import DEFAULT_FPS, core_budget, plan
from xnorflow.search import Budget, fastest, least, quickest, smallest
from xnorflow.timing import latency_cycles

FOLDINGS = Path(__file__).parents[2] / "examples/foldings"
EXAMPLES = {"mnist_sfc_ulx3s-85f": 16, "cifar10_cnv_ulx3s-85f": 28_800}  # cycles a frame

NETWORK = lowered_network([12, 8, 4])
ROOMY = Budget(lut=100_000, bram=200)
FINE = {"pe": 1, "simd": 1}


def folding_file(tmp_path, table):
    path = tmp_path / "folding.json"
    path.write_text(table if isinstance(table, str) else json.dumps(table))
    return path


def test_a_folding_file_is_read(tmp_path):
    path = folding_file(tmp_path, {"fc1": {"pe": 4, "simd": 6}, "fc2": {"pe": 4, "simd": 8}})
    folding = read_folding(path, NETWORK)
    assert folding["fc1"] == LayerFolding(4, 6, "lut")
    assert folding["fc2"] == LayerFolding(4, 8, "constant")
    assert cycles_per_frame(NETWORK, folding) == 4


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("no json", r"folding\.json cannot be read"),
        ("[]", "must map each of the layers"),
        ({"fc1": {"pe": 1, "simd": 1}}, "leaves out layer 'fc2'"),
        ({"fc1": {"pe": 1, "simd": 1}, "fc3": {}}, "names layer 'fc3'.*did you mean"),
        ({"fc1": {"pe": 3, "simd": 1}, "fc2": FINE}, r"pe is 3 but must divide 8.*\[1, 2, 4, 8\]"),
        ({"fc1": {"pe": 1, "simd": 5}, "fc2": FINE}, r"simd is 5 .*\[1, 2, 3, 4, 6, 12\]"),
        ({"fc1": {"pe": True, "simd": 1}, "fc2": FINE}, "pe is True but must divide"),
        ({"fc1": {"pe": 0, "simd": 1}, "fc2": FINE}, "pe is 0 but must divide"),
        ({"fc1": {"pe": 1.0, "simd": 1}, "fc2": FINE}, "pe is 1.0 but must divide"),
        ({"fc1": {"pe": 1}, "fc2": FINE}, "give an object with pe and simd"),
        ({"fc1": {"pe": 1, "simd": 1, "x": 1}, "fc2": FINE}, "give an object with pe and simd"),
        (
            {"fc1": {"pe": 1, "simd": 1, "weights_in": "constant"}, "fc2": FINE},
            "weights_in is 'constant' but must be one of",
        ),
        (
            {"fc1": {"pe": 1, "simd": 1, "buffer_in": "disk"}, "fc2": FINE},
            "buffer_in is 'disk' but must be one of",
        ),
        (
            {"fc1": {"pe": 1, "simd": 1, "rom_latency": 4}, "fc2": FINE},
            "rom_latency is 4 but must be 1, 2 or 3",
        ),
        (
            {"fc1": {"pe": 1, "simd": 1, "leaf_latency": 0}, "fc2": FINE},
            "leaf_latency is 0 but must be 1 or 2",
        ),
        (
            {"fc1": {"pe": 1, "simd": 1, "outputs": 9}, "fc2": FINE},
            r"'fc1': outputs is 9 but must be one of \[8\]",
        ),
        (
            {"fc1": {"pe": 1, "simd": 1, "inputs": 13}, "fc2": FINE},
            r"'fc1': inputs is 13 but must be one of \[12, 16\]",
        ),
        (
            {"fc1": FINE, "fc2": {"pe": 1, "simd": 1, "inputs": 8}},
            "'fc2': inputs is for the first layer only; give outputs in the layer before",
        ),
        (
            {"fc1": {"pe": 8, "simd": 16}, "fc2": FINE},
            r"simd is 16 but must divide 12",
        ),
    ],
)
def test_an_illegal_folding_is_refused_in_one_sentence(tmp_path, table, message):
    with pytest.raises(UserError, match=message):
        read_folding(folding_file(tmp_path, table), NETWORK)


def test_a_folding_file_chooses_memories_and_padding(tmp_path):
    table = {
        "fc1": {"pe": 2, "simd": 8, "weights_in": "bram", "inputs": 16, "buffer_in": "registers"},
        "fc2": {"pe": 4, "simd": 8, "weights_in": "bram", "rom_latency": 2},
    }
    folding = read_folding(folding_file(tmp_path, table), NETWORK)
    assert folding["fc1"] == LayerFolding(2, 8, "bram", "registers", 1, None, 16)
    assert folding["fc2"] == LayerFolding(4, 8, "bram", "auto", 2)
    assert cycles_per_frame(NETWORK, folding) == 4 * 2
    path = folding_file(tmp_path, folding_json(folding))
    assert read_folding(path, NETWORK) == folding


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_a_folding_fits_and_takes_the_cycles_that_the_readme_says(name):
    model, board = name.rsplit("_", 1)
    lowered, board = lower(load(str(files("xnorflow.models") / f"{model}.onnx"))), load_board(board)
    chosen = plan(lowered, board, folding=FOLDINGS / f"{name}.json")
    assert chosen.cycles_per_frame == EXAMPLES[name]
    assert core_budget(board, lowered, utilization=1.0).holds(chosen.total)


def test_every_example_of_a_folding_is_tested():
    assert {file.stem for file in FOLDINGS.iterdir()} == set(EXAMPLES)


def test_a_missing_folding_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json cannot be read"):
        read_folding(tmp_path / "nowhere.json", NETWORK)


@settings(max_examples=30)
@given(cycles=st.integers(1, 100))
def test_the_smallest_folding_reaches_the_target(cycles):
    found = smallest(NETWORK, FAMILIES["ecp5"], ROOMY, cycles)
    folding, cost = found.folding, found.cost
    assert cycles_per_frame(NETWORK, folding) <= cycles
    assert cost == estimate_core(FAMILIES["ecp5"], NETWORK, folding).total
    for layer in pad(NETWORK, widths(NETWORK, folding)).layers:
        assert layer.mh % folding[layer.name].pe == 0
        assert layer.mw % folding[layer.name].simd == 0


def test_the_fastest_folding_fits_and_one_step_faster_does_not():
    network, family = lowered_network([64, 32, 10]), FAMILIES["ice40"]
    budget = Budget(lut=1500, bram=4)
    best = fastest(network, family, budget)
    cycles = cycles_per_frame(network, best.folding)
    assert budget.holds(estimate_core(family, network, best.folding).total)
    with pytest.raises(WorkFailed, match=rf"does not fit.*{cycles} cycles a frame would fit"):
        smallest(network, family, budget, cycles - 1)


def test_a_network_too_large_for_any_folding_says_so():
    with pytest.raises(WorkFailed, match="take a board with"):
        fastest(lowered_network([512, 512, 10]), FAMILIES["ice40"], Budget(lut=300, bram=0))


class TestPlan:
    def test_a_target_is_turned_into_cycles_with_the_boards_clock(self):
        board = load_board("icebreaker")
        planned = plan(NETWORK, board, target_fps=1e6)
        assert planned.clock_mhz == board.clock.planned_mhz
        assert planned.cycles_per_frame <= board.clock.planned_mhz
        assert planned.fps >= 1e6

    def test_without_a_board_100_mhz_are_assumed_and_said(self):
        planned = plan(NETWORK, None, target_fps=1e6)
        assert planned.clock_mhz == 100
        assert planned.notes == ("no board given: 100 MHz are assumed",)

    def test_without_a_target_the_default_is_taken_and_said(self):
        planned = plan(NETWORK, load_board("ulx3s-85f"))
        assert planned.fps >= DEFAULT_FPS
        assert "no target given" in planned.notes[0]

    def test_a_target_beyond_a_cycle_a_frame_is_refused_with_the_most(self):
        with pytest.raises(UserError, match=r"24,000,000 is the most at 24 MHz"):
            plan(NETWORK, load_board("icebreaker"), target_fps=1e9)

    def test_a_target_that_does_not_fit_names_one_that_does(self):
        network = lowered_network([784, 128, 10])
        board = load_board("icebreaker")
        with pytest.raises(WorkFailed, match=r"does not fit.*`target_fps=(\d+)`") as failure:
            plan(network, board, target_fps=5e6)
        offered = float(str(failure.value).rsplit("=", 1)[1].strip("`"))
        assert core_budget(board, network).holds(plan(network, board, target_fps=offered).total)

    @pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
    def test_a_target_must_be_positive(self, fps):
        with pytest.raises(UserError, match="must be a positive number"):
            plan(NETWORK, None, target_fps=fps)

    def test_two_ways_to_choose_contradict_each_other(self):
        with pytest.raises(UserError, match="give only one of"):
            plan(NETWORK, None, target_fps=1.0, fastest=True)

    @pytest.mark.parametrize("objective", ["fastest", "min_area", "latency"])
    def test_objectives_reach_the_search(self, objective):
        board = load_board("icebreaker")
        planned = plan(NETWORK, board, **{objective: True})
        search = {"fastest": fastest, "min_area": least, "latency": quickest}[objective]
        found = search(NETWORK, FAMILIES["ice40"], core_budget(board, NETWORK))
        assert planned.folding == found.folding
        assert planned.total == found.cost
        assert planned.latency_cycles == latency_cycles(NETWORK, found.folding)

    def test_objectives_exclude_each_other(self):
        with pytest.raises(UserError, match="only one of"):
            plan(NETWORK, None, min_area=True, latency=True)

    def test_utilization_is_a_share_of_luts_and_block_rams(self):
        network, board = lowered_network([64, 64, 10]), load_board("icebreaker")
        for share in (0.4, 0.7):
            planned = plan(network, board, fastest=True, utilization=share)
            taken = planned.total + planned.link
            assert taken.cells <= share * board.budget.lut
            assert taken.bram <= share * board.budget.bram
            assert core_budget(board, network, utilization=share).holds(planned.total)
        slow = plan(network, board, fastest=True, utilization=0.4).cycles_per_frame
        assert plan(network, board, fastest=True, utilization=0.7).cycles_per_frame < slow

    @pytest.mark.parametrize("share", [0, 1.5, -0.1, float("nan")])
    def test_utilization_must_be_a_share(self, share):
        with pytest.raises(UserError, match="above 0 and at most 1"):
            plan(NETWORK, load_board("icebreaker"), fastest=True, utilization=share)

    def test_utilization_needs_a_board(self):
        with pytest.raises(UserError, match="give a `board` too"):
            plan(NETWORK, None, fastest=True, utilization=0.5)
