"""Foldings: what is legal, what is smallest, what fits."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import lowered_network

from xnorflow.boards.board import load as load_board
from xnorflow.cost import FAMILIES, Cost, estimate
from xnorflow.errors import UserError, WorkFailed
from xnorflow.folding import LayerFolding, divisors, read_folding
from xnorflow.pipeline import cycles_per_frame
from xnorflow.planning import DEFAULT_FPS, core_budget, plan
from xnorflow.search import Budget, fastest, smallest

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
        ({"fc1": {"pe": 1, "simd": 1, "rom_latency": 3}, "fc2": FINE}, "rom_latency is 3 but must"),
    ],
)
def test_an_illegal_folding_is_refused_in_one_sentence(tmp_path, table, message):
    with pytest.raises(UserError, match=message):
        read_folding(folding_file(tmp_path, table), NETWORK)


def test_a_missing_folding_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json cannot be read"):
        read_folding(tmp_path / "nowhere.json", NETWORK)


@settings(max_examples=30)
@given(cycles=st.integers(1, 100))
def test_the_smallest_folding_reaches_the_target(cycles):
    folding, cost = smallest(NETWORK, FAMILIES["ecp5"], ROOMY, cycles)
    assert cycles_per_frame(NETWORK, folding) <= cycles
    assert cost == sum(estimate(FAMILIES["ecp5"], NETWORK, folding).values(), Cost())
    for layer in NETWORK.layers:
        assert layer.mh % folding[layer.name].pe == 0
        assert layer.mw % folding[layer.name].simd == 0


@pytest.mark.parametrize("cycles", [1, 3, 8, 20, 96])
def test_no_other_folding_is_smaller(cycles):
    network, family, budget = lowered_network([6, 4, 2]), FAMILIES["ice40"], Budget(2000, 4)

    def share(cost):
        return cost.cells / budget.lut + cost.bram / budget.bram

    choices = []
    for layer in network.layers:
        each = []
        for pe, simd in itertools.product(divisors(layer.mh), divisors(layer.mw)):
            single = pe == layer.mh and simd == layer.mw
            for weights_in in ["constant"] if single else ["lut", "bram"]:
                for buffer_in in ["auto", "registers"]:
                    each.append(LayerFolding(pe, simd, weights_in, buffer_in))
        choices.append(each)
    best = min(
        share(cost)
        for pair in itertools.product(*choices)
        if cycles_per_frame(network, folding := {"fc1": pair[0], "fc2": pair[1]}) <= cycles
        and budget.holds(cost := sum(estimate(family, network, folding).values(), Cost()))
    )
    _, cost = smallest(network, family, budget, cycles)
    assert share(cost) == pytest.approx(best)


def test_the_fastest_folding_fits_and_one_step_faster_does_not():
    network, family = lowered_network([64, 32, 10]), FAMILIES["ice40"]
    budget = Budget(lut=1500, bram=4)
    best = fastest(network, family, budget)
    cycles = cycles_per_frame(network, best)
    assert budget.holds(sum(estimate(family, network, best).values(), Cost()))
    with pytest.raises(WorkFailed, match=rf"does not fit.*{cycles} cycles a frame would fit"):
        smallest(network, family, budget, cycles - 1)


def test_a_network_too_large_for_any_folding_says_so():
    with pytest.raises(WorkFailed, match="take a larger board"):
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
