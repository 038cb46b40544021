"""The streaming core's own rules: fitting layers together, and how many lanes the arg-max gets."""

import numpy as np
import pytest

from xnorflow.hw.core import StreamingCore
from xnorflow.hw.mvu import MatrixVectorUnit


def hidden(mh, mw, pe, simd):
    thresholds = np.zeros(mh, int)
    return MatrixVectorUnit(np.ones((mh, mw), int), pe=pe, simd=simd, thresholds=thresholds)


def last(mh, mw, pe, simd):
    ones = np.ones(mh, int)
    return MatrixVectorUnit(np.ones((mh, mw), int), pe=pe, simd=simd, scale=ones, offset=ones)


def test_layers_must_fit_together():
    with pytest.raises(ValueError, match="unit 1 must take the 4 bits that unit 0 gives, not 8"):
        StreamingCore([hidden(4, 8, 1, 1), last(2, 8, 1, 1)])


def test_scores_pass_one_by_one_where_that_keeps_pace():
    core = StreamingCore([last(10, 16, 10, 1)])
    assert (core.o_lanes, core.o_beats, core.cycles_per_frame) == (1, 10, 16)


def test_scores_pass_side_by_side_where_they_must():
    core = StreamingCore([last(10, 16, 10, 4)])
    assert (core.o_lanes, core.o_beats, core.cycles_per_frame) == (5, 2, 4)


def test_a_width_converter_can_be_the_slowest_stage():
    # 8 bits a frame from 4 lanes to 3 pass one by one: 24 cycles, more than either layer takes.
    core = StreamingCore([hidden(24, 6, 8, 6), last(2, 24, 2, 3)])
    assert core.cycles_per_frame == 24
