"""The fixed point of gains of pixels: exact where it says so, elsewhere within its bound."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnorflow.magnitudes import SUM_BITS, WIDE_SUM_BITS, fixed_point
from xnorflow.surd import Surd

MOST = (1 << 31) - 1

rationals = st.fractions(-9, 9, max_denominator=1000)
small = st.integers(-40, 40).map(lambda n: Fraction(n, 8))
squares = st.sampled_from([Fraction(1), Fraction(2), Fraction(7, 3), Fraction(10)])


@st.composite
def chains(draw, numbers=rationals, alike=False):
    """Maps of some channels, with square roots; one root for all if `alike`."""
    root = draw(squares)
    return [
        (
            Surd.of(draw(numbers), root if alike else draw(squares)),
            Surd.of(draw(numbers), root) if alike else Surd.of(draw(numbers)),
        )
        for _ in range(draw(st.integers(1, 5)))
    ]


@st.composite
def cases(draw, **how):
    """A chain, the range of its integers, and pixels with the ends of the range among them."""
    low, high = draw(st.sampled_from([(0, 1), (-1, 1), (-288, 288), (-3, 900), (0, 255)]))
    chain = draw(chains(**how))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    pixels = rng.integers(low, high + 1, (20, len(chain)))
    pixels[:8] = rng.choice([low, high], (8, len(chain)))
    return chain, low, high, pixels


def errors(chain, point, pixels):
    """Return how far the means of magnitudes are off."""
    scale, offset = (np.array([float(one[n]) for one in chain]) for n in (0, 1))
    sums = np.abs(point.gains * pixels + point.offsets).sum(axis=1)
    counts = (sums + (1 << point.shift) // 2) >> point.shift
    means = np.abs(scale * pixels + offset).mean(axis=1)
    return np.abs(counts * float(point.unit) / len(chain) - means), means


@given(case=cases(), taps=st.sampled_from([1, 9, 49]))
def test_no_mean_is_off_by_more_than_the_bound(case, taps):
    chain, low, high, pixels = case
    point = fixed_point(chain, low, high, taps, MOST)
    off, means = errors(chain, point, pixels)
    assert np.all(off <= point.error + 1e-12 * (1 + means))
    assert np.all(point.gains >= 0)


@given(case=cases(numbers=small, alike=True))
def test_small_multiples_of_one_number_are_exact(case):
    chain, low, high, pixels = case
    point = fixed_point(chain, low, high, 9, MOST)
    assert (point.error, point.shift) == (0, 0)
    off, means = errors(chain, point, pixels)
    assert np.all(off <= 1e-12 * (1 + means))


@given(case=cases(), taps=st.sampled_from([1, 9, 49]), most=st.integers(1 << 14, MOST))
def test_sums_of_windows_are_no_larger_than_what_follows_can_take(case, taps, most):
    chain, low, high, _ = case
    point = fixed_point(chain, low, high, taps, most)
    magnitudes = [np.abs(point.gains * end + point.offsets) for end in (low, high)]
    largest = int(np.maximum(*magnitudes).sum()) + (1 << point.shift) // 2 >> point.shift
    assert largest * taps <= most
    if point.error:
        assert largest * taps < 1 << SUM_BITS
        assert point.gains.max() <= 1 << SUM_BITS
        # The bound is no idle one: less than a step of 1 / 256, and of a good many steps.
        full = float(point.unit) * largest / len(chain)
        assert point.error <= full / 128


def test_rounded_gains_use_all_bits():
    chain = [(Surd.of(Fraction(1, 3), n), Surd.of(n)) for n in (2, 3, 5)]
    point = fixed_point(chain, -100, 100, 9, MOST)
    # As many as a pixel's sum has.
    assert int(point.gains.max()).bit_length() == 17 == ((1 << SUM_BITS) // 9).bit_length()
    assert point.error < 1e-3 * float(point.unit) * (1 << SUM_BITS) / 27


def test_sums_of_wide_integers_have_more_bits():
    chain = [(Surd.of(Fraction(1, 3), n), Surd.of(n)) for n in (2, 3, 5)]
    ends = [(1 << 17) - 1, 1 << 17]
    narrow, wide = (fixed_point(chain, -end, end, 9, MOST) for end in ends)
    ratio = narrow.error / wide.error
    assert 1 << (WIDE_SUM_BITS - SUM_BITS - 1) < ratio < 1 << (WIDE_SUM_BITS - SUM_BITS + 1)


def test_constants_alone_are_exact_too():
    chain = [(Surd(), Surd.of(Fraction(3, 4))), (Surd(), Surd.of(Fraction(-1, 2)))]
    point = fixed_point(chain, -5, 5, 9, MOST)
    assert (point.gains.tolist(), np.abs(point.offsets).tolist()) == ([0, 0], [3, 2])
    assert (float(point.unit), point.error) == (0.25, 0)


def test_zeros_are_zeros():
    point = fixed_point([(Surd(), Surd())], -5, 5, 9, MOST)
    assert (point.gains.tolist(), point.offsets.tolist(), point.error) == ([0], [0], 0)


@pytest.mark.parametrize(("most", "there"), [(9 << 8, True), ((9 << 8) - 1, False)])
def test_less_than_eight_bits_for_a_pixel_are_too_few(most, there):
    chain = [(Surd.of(Fraction(1, 3), n), Surd.of(n)) for n in (2, 3)]
    assert (fixed_point(chain, -100, 100, 9, most) is not None) == there
