"""Forks and joins of streams against numpy, under back-pressure on every stream."""

import numpy as np
import pytest
from amaranth import signed, unsigned
from amaranth.hdl import Shape
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_bench import run_streams

from xnorflow.hw.cost import FAMILIES
from xnorflow.hw.join import JoinUnit, StreamFork, fork_parts, join_parts, narrowest
from xnorflow.hw.rom import pack_lanes

seeds = st.integers(0, 1000)
stalls = st.sampled_from([0.0, 0.3, 0.8])
elements = st.sampled_from([unsigned(1), unsigned(3), signed(1), signed(4)])


def limits(element):
    """Return an element's lowest and largest number."""
    low = -(1 << element.width - 1) if element.signed else 0
    return low, low + (1 << element.width) - 1


def pack(values, lanes, element):
    """Cut rows of elements into payloads of `lanes`, lane 0 lowest."""
    return pack_lanes(values.reshape(-1, lanes), Shape.cast(element).width)


class TestStreamFork:
    @settings(max_examples=30)
    @given(i_stall=stalls, o_stall=stalls, side_stall=stalls, seed=seeds)
    def test_both_consumers_get_every_beat(self, i_stall, o_stall, side_stall, seed):
        sent = np.random.default_rng(seed).integers(0, 32, 40).tolist()
        got, _ = run_streams(
            StreamFork(5),
            {"i": sent},
            {"o": 40, "side": 40},
            seed=seed,
            stalls={"i": i_stall, "o": o_stall, "side": side_stall},
        )
        assert got == {"o": sent, "side": sent}

    def test_passes_a_beat_a_cycle(self):
        fork = StreamFork(5)
        _, cycles = run_streams(fork, {"i": list(range(30))}, {"o": 30, "side": 30})
        expected = fork.schedule(np.arange(30)).tolist()
        assert cycles == {"i": expected, "o": expected, "side": expected}

    @pytest.mark.parametrize("slow", ["o", "side"])
    def test_one_consumer_need_not_wait_for_the_other(self, slow):
        fast = {"o": "side", "side": "o"}[slow]
        _, cycles = run_streams(
            StreamFork(5),
            {"i": list(range(30))},
            {"o": 30, "side": 30},
            seed=3,
            stalls={slow: 0.8},
        )
        # It takes a beat as soon as the one before has gone both ways.
        assert cycles[fast][1:] == [cycle + 1 for cycle in cycles[slow][:-1]]


@st.composite
def joins(draw):
    """A join, the pixels of its inputs and what they give."""
    how = draw(st.sampled_from(["add", "add", "append", "prepend"]))
    shapes, lanes = (draw(elements), draw(elements)), draw(st.integers(1, 3))
    folds = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    if how == "add":
        folds = folds[:1] * 2
    channels = tuple(lanes * fold for fold in folds)
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    gains = None
    if how == "add":
        kind = draw(st.sampled_from(["none", "powers", "one", "any"]))
        if kind == "powers":
            gains = np.repeat([[4], [1]], channels[0], axis=1)
        elif kind == "one":  # of a stream alone
            gains = np.stack([np.ones(channels[0], int), rng.integers(-9, 10, channels[0])])
        elif kind == "any":
            gains = rng.integers(-9, 10, (2, channels[0]))
    ranges, pixels = [], []
    for shape, count in zip(shapes, channels, strict=True):
        low, high = np.sort(rng.integers(limits(shape)[0], limits(shape)[1] + 1, 2)).tolist()
        values = rng.integers(low, high + 1, (12, count))
        pixels.append(np.where(rng.random(values.shape) < 0.3, rng.choice([low, high]), values))
        ranges.append((low, high))
    unit = JoinUnit(shapes, channels, lanes=lanes, how=how, gains=gains, ranges=tuple(ranges))
    if how == "add":
        weights = np.ones((2, 1), int) if gains is None else gains
        expected = pixels[0] * weights[0] + pixels[1] * weights[1]
    else:
        expected = np.concatenate(pixels if how == "append" else pixels[::-1], axis=1)
    return unit, pixels, expected, seed


def payloads(unit, pixels):
    return {
        name: pack(values, unit.lanes, element)
        for name, values, element in zip(("i", "side"), pixels, unit.elements, strict=True)
    }


class TestJoinUnit:
    @settings(max_examples=100)
    @given(case=joins(), i_stall=stalls, side_stall=stalls, o_stall=stalls)
    def test_joins_every_pixel(self, case, i_stall, side_stall, o_stall):
        unit, pixels, expected, seed = case
        assert unit.o_range[0] <= expected.min() <= expected.max() <= unit.o_range[1]
        got, _ = run_streams(
            unit,
            payloads(unit, pixels),
            {"o": 12 * unit.o_beats},
            seed=seed,
            stalls={"i": i_stall, "side": side_stall, "o": o_stall},
        )
        assert got["o"] == pack(expected, unit.lanes, unit.o_element)

    @settings(max_examples=40)
    @given(case=joins(), stall=stalls)
    def test_keeps_its_schedule_without_a_bubble(self, case, stall):
        unit, pixels, _, seed = case
        _, cycles = run_streams(
            unit,
            payloads(unit, pixels),
            {"o": 12 * unit.o_beats},
            seed=seed,
            stalls={"i": stall, "side": stall},
        )
        given_ = unit.schedule(np.array(cycles["i"]), np.array(cycles["side"]))
        assert cycles["o"] == given_.tolist()
        if not stall:
            assert np.all(np.diff(given_) == 1)

    @pytest.mark.parametrize(
        ("options", "latency"),
        [
            ({"how": "append"}, 0),
            ({"how": "prepend"}, 0),
            ({"how": "add"}, 1),
            ({"how": "add", "gains": [[1] * 4, [2] * 4]}, 1),
            ({"how": "add", "gains": [[1] * 4, [3] * 4]}, 2),
            ({"how": "add", "gains": [[1] * 4, [1, 3, 1, 3]]}, 2),
            ({"how": "add", "gains": [[1] * 4, [1, 2, 3, 4]]}, 3),
        ],
    )
    def test_latency_is_that_of_what_is_there(self, options, latency):
        if "gains" in options:
            options = {**options, "gains": np.array(options["gains"])}
        unit = JoinUnit((signed(3), signed(3)), (4, 4), lanes=2, **options)
        assert unit.latency == latency

    @pytest.mark.parametrize(
        ("low", "high", "shape"),
        [
            (0, 0, unsigned(1)),
            (0, 7, unsigned(3)),
            (2, 8, unsigned(4)),
            (-1, 0, signed(1)),
            (-4, 3, signed(3)),
            (-4, 4, signed(4)),
            (-5, -2, signed(4)),
        ],
    )
    def test_the_narrowest_shape_holds_both_ends(self, low, high, shape):
        assert narrowest(low, high) == shape

    def test_elements_that_go_out_are_just_wide_enough(self):
        shapes = (unsigned(2), signed(4))
        beside = JoinUnit(shapes, (2, 4), lanes=2, how="append")
        assert (beside.o_range, beside.o_element, beside.o_beats) == ((-8, 7), signed(4), 3)
        added = JoinUnit(shapes, (2, 2), lanes=2, how="add", gains=np.array([[2, 2], [-1, -1]]))
        assert (added.o_range, added.o_element) == ((-7, 14), signed(5))
        known = JoinUnit(shapes, (2, 2), lanes=1, how="add", ranges=((0, 2), (0, 5)))
        assert (known.o_range, known.o_element) == ((0, 7), unsigned(3))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"how": "subtract"}, "how must be 'add', 'append' or 'prepend', not 'subtract'"),
            ({"channels": (4, 6)}, "as many channels"),
            ({"lanes": 3}, "lanes must divide 4 and 4 channels, which 3 does not"),
            ({"lanes": 0}, "lanes must divide"),
            ({"how": "append", "channels": (4, 0)}, "channels must be at least 1"),
            ({"gains": np.ones((2, 3), int)}, r"gains must have shape \(2, 4\)"),
            ({"how": "append", "gains": np.ones((2, 4), int)}, "how be 'add'"),
            ({"ranges": ((0, 8), (0, 3))}, r"ranges must lie in \(0, 7\) and \(-4, 3\)"),
            ({"ranges": ((0, 7), (3, 0))}, "ranges must lie in"),
        ],
    )
    def test_refuses_an_illegal_parameter(self, options, message):
        legal = {
            "elements": (unsigned(3), signed(3)),
            "channels": (4, 4),
            "lanes": 2,
            "how": "add",
        }
        with pytest.raises(ValueError, match=message):
            JoinUnit(**(legal | options))


@pytest.mark.parametrize("family", ["ice40", "ecp5"])
def test_constant_gains_cost_less_than_those_of_a_memory(family):
    device = FAMILIES[family]
    costs = []
    for gains in ([[1] * 8] * 2, [[1] * 8, [3] * 8], [[1] * 8, [1, 2, 3, 4, 5, 6, 7, 8]]):
        unit = JoinUnit((signed(8),) * 2, (8, 8), lanes=2, how="add", gains=np.array(gains))
        cost = device.cost(join_parts(device, unit))
        costs.append(cost.lut + 100 * cost.dsp)
    assert costs == sorted(costs)
    beside = JoinUnit((signed(8),) * 2, (8, 8), lanes=2, how="append")
    assert device.cost(join_parts(device, beside)).lut < 40
    assert device.cost(fork_parts()).lut < 8
