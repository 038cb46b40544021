"""Vectors get zeros behind their elements, or lose their last ones, in the declared cycles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_bench import run_stream

from xnorflow.hw.resize import VectorResizer
from xnorflow.hw.rom import pack_lanes

WIDTH = 3  # bits of an element

sizes = st.tuples(st.integers(1, 5), st.integers(1, 5))
stalls = st.sampled_from([0.0, 0.3, 0.8])


def resized(vectors, elements):
    """Return `vectors` with zeros behind, or cut."""
    longer = np.pad(vectors, ((0, 0), (0, max(0, elements - vectors.shape[1]))))
    return longer[:, :elements]


def resizer(lanes, beats):
    """Return a resizer of vectors in beats of `lanes`, or side by side with `lanes` of 0."""
    if lanes:
        return VectorResizer(WIDTH, lanes, lanes, *(lanes * n for n in beats))
    return VectorResizer(WIDTH, *beats, *beats)


@settings(max_examples=40)
@given(
    lanes=st.integers(0, 3), beats=sizes, i_stall=stalls, o_stall=stalls, seed=st.integers(0, 1000)
)
def test_vectors_get_zeros_or_lose_their_end(lanes, beats, i_stall, o_stall, seed):
    unit = resizer(lanes, beats)
    given_, wanted = (n * max(1, lanes) for n in beats)
    vectors = np.random.default_rng(seed).integers(0, 1 << WIDTH, (8, given_))
    expected = pack_lanes(resized(vectors, wanted).reshape(-1, lanes or wanted), WIDTH)
    sent = pack_lanes(vectors.reshape(-1, lanes or given_), WIDTH)
    got, taken, _ = run_stream(
        unit, sent, len(expected), seed=seed, i_stall=i_stall, o_stall=o_stall
    )
    assert got == expected
    assert len(taken) >= len(sent) - max(0, unit.i_beats - unit.o_beats)


@settings(max_examples=25)
@given(lanes=st.integers(0, 3), beats=sizes)
def test_takes_the_cycles_of_the_longer_side_and_keeps_its_schedule(lanes, beats):
    unit = resizer(lanes, beats)
    sent = [1] * (6 * unit.i_beats)
    _, taken, left = run_stream(unit, sent, 6 * unit.o_beats)
    assert left == unit.schedule(np.arange(len(sent))).tolist()
    longer = max(unit.i_beats, unit.o_beats)
    assert left[:: unit.o_beats] == [longer * n for n in range(6)]
    assert taken[:: unit.i_beats] == [longer * n for n in range(6)]


@settings(max_examples=25)
@given(lanes=st.integers(0, 3), beats=sizes, seed=st.integers(0, 99))
def test_keeps_its_schedule_when_beats_come_late(lanes, beats, seed):
    unit = resizer(lanes, beats)
    sent = [1] * (4 * unit.i_beats)
    _, taken, left = run_stream(unit, sent, 4 * unit.o_beats, seed=seed, i_stall=0.6)
    # Beats that are dropped behind the last vector's own need not have been taken.
    late = np.array(taken + [0] * (len(sent) - len(taken)))
    assert left == unit.schedule(late).tolist()


@pytest.mark.parametrize("lanes", [(2, 3), (4, 4), (0, 0), (6, 4)])
def test_refuses_lanes_that_do_not_divide_both_sizes(lanes):
    with pytest.raises(ValueError, match=r"lanes must be \(6, 12\), or twice one divisor of 6"):
        VectorResizer(1, *lanes, 6, 12)
