"""Arg-max against numpy, ties to the lowest index, scores untouched."""

import numpy as np
import pytest
from amaranth.lib import data
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_bench import run_stream

from xnorflow.hw.argmax import ArgMax
from xnorflow.hw.rom import pack_lanes

stalls = st.sampled_from([0.0, 0.3, 0.8])


def decode(argmax, raw):
    view = data.Const(argmax.o.payload.shape(), raw)
    return [view.scores[lane] for lane in range(argmax.lanes)], view.index, view.last


@settings(max_examples=30)
@given(
    lanes=st.integers(1, 7),
    beats=st.integers(1, 5),
    spread=st.sampled_from([0, 1, 127]),
    i_stall=stalls,
    o_stall=stalls,
    seed=st.integers(0, 1000),
)
def test_class_is_numpys_argmax(lanes, beats, spread, i_stall, o_stall, seed):
    frames, classes = 6, lanes * beats
    scores = np.random.default_rng(seed).integers(-spread - 1, spread + 1, (frames, classes))
    argmax = ArgMax(lanes, 8, classes)
    sent = pack_lanes(scores.reshape(-1, lanes), 8)
    got, *_ = run_stream(argmax, sent, len(sent), seed=seed, i_stall=i_stall, o_stall=o_stall)
    decoded = [decode(argmax, raw) for raw in got]
    assert [beat[0] for beat in decoded] == scores.reshape(-1, lanes).tolist()
    assert [beat[2] for beat in decoded] == [int(k % beats == beats - 1) for k in range(len(got))]
    classes_given = [beat[1] for beat in decoded if beat[2]]
    assert classes_given == scores.argmax(axis=1).tolist()


@pytest.mark.parametrize("lanes", [1, 2, 5, 10])
def test_latency_is_the_declared_one_and_no_cycle_is_idle(lanes):
    argmax = ArgMax(lanes, 8, 10)
    sent = [0] * (4 * argmax.beats)
    _, taken, given_ = run_stream(argmax, sent, len(sent))
    assert given_ == [cycle + argmax.latency for cycle in taken]
    assert taken == list(range(len(sent)))


def test_lanes_must_divide_the_classes():
    with pytest.raises(ValueError, match="must divide 10 classes"):
        ArgMax(3, 8, 10)
