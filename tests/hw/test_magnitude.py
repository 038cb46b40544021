"""Sums of magnitudes and gains of pixels against numpy, under back-pressure on every stream."""

import numpy as np
import pytest
from amaranth import signed, unsigned
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_bench import run_stream, run_streams

from xnorflow.hw.cost import FAMILIES
from xnorflow.hw.gain import GainUnit, gain_parts
from xnorflow.hw.magnitude import MagnitudeUnit, magnitude_parts
from xnorflow.hw.rom import pack_lanes

PIXELS = 9

seeds = st.integers(0, 1000)
stalls = st.sampled_from([0.0, 0.3, 0.8])
elements = st.sampled_from([unsigned(1), unsigned(3), signed(2), signed(5)])


def limits(element):
    """Return an element's lowest and largest number."""
    low = -(1 << element.width - 1) if element.signed else 0
    return low, low + (1 << element.width) - 1


@st.composite
def magnitudes(draw):
    """A unit, the pixels that come in, what they give, and a seed."""
    element, lanes, folds = draw(elements), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    seed, shift = draw(seeds), draw(st.sampled_from([0, 0, 1, 4]))
    rng = np.random.default_rng(seed)
    gains = rng.integers(0, draw(st.sampled_from([2, 9, 300])), lanes * folds)
    offsets = rng.integers(-40, 41, lanes * folds)
    kind = draw(st.sampled_from(["any", "alike", "gains alike", "none"]))
    if kind in ("alike", "gains alike"):
        gains = np.tile(gains[:lanes], folds)
    if kind == "alike":
        offsets = np.tile(offsets[:lanes], folds)
    if kind == "none":
        gains, offsets = np.ones_like(gains), np.zeros_like(offsets)
    low, high = np.sort(rng.integers(limits(element)[0], limits(element)[1] + 1, 2)).tolist()
    pixels = rng.integers(low, high + 1, (PIXELS, lanes * folds))
    pixels = np.where(rng.random(pixels.shape) < 0.3, rng.choice([low, high]), pixels)
    pixels[0], pixels[1] = low, high
    unit = MagnitudeUnit(element, gains, offsets, shift=shift, lanes=lanes, ends=(low, high))
    sums = np.abs(gains * pixels + offsets).sum(axis=1)
    return unit, pixels, (sums + (1 << shift) // 2) >> shift, seed


class TestMagnitudeUnit:
    @settings(max_examples=40)
    @given(case=magnitudes(), i_stall=stalls, o_stall=stalls)
    def test_adds_up_every_pixel(self, case, i_stall, o_stall):
        unit, pixels, expected, seed = case
        beats = pack_lanes(pixels.reshape(-1, unit.lanes), unit.element.width)
        got, _, _ = run_stream(unit, beats, PIXELS, seed=seed, i_stall=i_stall, o_stall=o_stall)
        assert got == expected.tolist()

    @settings(max_examples=40)
    @given(case=magnitudes(), stall=stalls)
    def test_keeps_its_schedule_without_a_bubble(self, case, stall):
        unit, pixels, _, seed = case
        beats = pack_lanes(pixels.reshape(-1, unit.lanes), unit.element.width)
        _, taken, given_ = run_stream(unit, beats, PIXELS, seed=seed, i_stall=stall)
        assert given_ == unit.schedule(np.array(taken)).tolist()
        if not stall:
            assert np.all(np.diff(taken) == 1)

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"lanes": 3}, "lanes must divide 4 channels"),
            ({"gains": np.array([1, -1, 2, 2])}, "gains must not be negative"),
            ({"gains": np.ones(3, int)}, "gains and offsets must have one shape"),
            ({"shift": -1}, "shift must be at least 0"),
            ({"ends": (0, 8)}, "ends must lie in"),
        ],
    )
    def test_refuses_illegal_parameters(self, options, what):
        legal = {"gains": np.ones(4, int), "offsets": np.ones(4, int), "shift": 0, "lanes": 2}
        with pytest.raises(ValueError, match=what):
            MagnitudeUnit(unsigned(3), **(legal | options))


@st.composite
def gains(draw):
    """A unit, the pixels of both streams and what they give."""
    shapes = draw(elements), draw(st.sampled_from([unsigned(1), unsigned(6)]))
    lanes, folds, seed = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(seeds)
    rng = np.random.default_rng(seed)
    pixels, ranges = [], []
    for shape, count in zip(shapes, (lanes * folds, 1), strict=True):
        low, high = np.sort(rng.integers(limits(shape)[0], limits(shape)[1] + 1, 2)).tolist()
        values = rng.integers(low, high + 1, (PIXELS, count))
        values[0], values[1] = low, high
        pixels.append(values)
        ranges.append((low, high))
    unit = GainUnit(shapes, lanes * folds, lanes=lanes, ranges=tuple(ranges))
    return unit, pixels, pixels[0] * pixels[1], seed


def payloads(unit, pixels):
    main = pack_lanes(pixels[0].reshape(-1, unit.lanes), unit.elements[0].width)
    return {"i": main, "side": pixels[1].ravel().tolist()}


class TestGainUnit:
    @settings(max_examples=40)
    @given(case=gains(), i_stall=stalls, side_stall=stalls, o_stall=stalls)
    def test_multiplies_every_pixel(self, case, i_stall, side_stall, o_stall):
        unit, pixels, expected, seed = case
        got, _ = run_streams(
            unit,
            payloads(unit, pixels),
            {"o": PIXELS * unit.o_beats},
            seed=seed,
            stalls={"i": i_stall, "side": side_stall, "o": o_stall},
        )
        assert got["o"] == pack_lanes(expected.reshape(-1, unit.lanes), unit.o_element.width)

    @settings(max_examples=40)
    @given(case=gains(), stall=stalls)
    def test_keeps_its_schedule_without_a_bubble(self, case, stall):
        unit, pixels, _, seed = case
        _, cycles = run_streams(
            unit,
            payloads(unit, pixels),
            {"o": PIXELS * unit.o_beats},
            seed=seed,
            stalls={"i": stall},
        )
        # A gain that is there already when its pixel comes.
        early = np.zeros(PIXELS, int)
        given_ = unit.schedule(np.array(cycles["i"]), early)
        assert cycles["o"] == given_.tolist()
        if not stall:
            assert np.all(np.diff(given_) == 1)

    def test_waits_for_a_gain(self):
        unit = GainUnit((signed(3), unsigned(2)), 2, lanes=1, ranges=((-4, 3), (0, 3)))
        assert unit.schedule(np.arange(4), np.array([5, 6])).tolist() == [7, 8, 9, 10]

    def test_refuses_lanes_that_do_not_divide(self):
        with pytest.raises(ValueError, match="lanes must divide 4 channels"):
            GainUnit((signed(3), unsigned(2)), 4, lanes=3, ranges=((-4, 3), (0, 3)))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=str)
class TestCosts:
    def test_only_what_there_are_multipliers_for_is_multiplied_by_them(self, family):
        odd = MagnitudeUnit(signed(5), np.array([3, 5]), np.zeros(2, int), shift=0, lanes=2)
        even = MagnitudeUnit(signed(5), np.array([2, 4]), np.zeros(2, int), shift=0, lanes=2)
        gain = GainUnit((signed(5), unsigned(4)), 2, lanes=2, ranges=((-16, 15), (0, 15)))
        own = [magnitude_parts(family, odd), magnitude_parts(family, even)]
        count = 2 * family.multipliers
        assert [family.cost(parts).dsp for parts in own] == [count, 0]
        assert family.cost(gain_parts(family, gain)).dsp == count

    def test_more_lanes_cost_more(self, family):
        rng = np.random.default_rng(0)
        gains, offsets = rng.integers(0, 99, 8), rng.integers(-99, 99, 8)
        costs = [
            family.cost(
                magnitude_parts(
                    family, MagnitudeUnit(signed(6), gains, offsets, shift=0, lanes=lanes)
                )
            ).lut
            for lanes in (1, 2, 8)
        ]
        assert costs[0] < costs[1] < costs[2]
