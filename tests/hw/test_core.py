"""The streaming core's own rules: fitting stages together, and how many lanes the arg-max gets."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil

from xnorflow.hw.core import CoreStage, StreamingCore
from xnorflow.hw.mvu import MatrixVectorUnit


def stage(name, unit):
    return CoreStage(
        name, unit, unit.synapse_folds, unit.neuron_folds, unit.neuron_folds * unit.synapse_folds
    )


def hidden(mh, mw, pe, simd):
    thresholds = np.zeros(mh, int)
    unit = MatrixVectorUnit(np.ones((mh, mw), int), pe=pe, simd=simd, thresholds=thresholds)
    return stage("hidden", unit)


def last(mh, mw, pe, simd):
    ones = np.ones(mh, int)
    unit = MatrixVectorUnit(np.ones((mh, mw), int), pe=pe, simd=simd, scale=ones, offset=ones)
    return stage("last", unit)


@pytest.mark.parametrize(("mw", "simd"), [(8, 1), (4, 2)])
def test_stages_must_fit_together(mw, simd):
    with pytest.raises(ValueError, match="stage last must take the 4 beats of 1 bits that stage"):
        StreamingCore([hidden(4, 8, 1, 1), last(2, mw, 1, simd)])


def test_scores_pass_one_by_one_where_that_keeps_pace():
    core = StreamingCore([last(10, 16, 10, 1)])
    assert (core.o_lanes, core.o_beats, core.cycles_per_frame) == (1, 10, 16)


def test_scores_pass_side_by_side_where_they_must():
    core = StreamingCore([last(10, 16, 10, 4)])
    assert (core.o_lanes, core.o_beats, core.cycles_per_frame) == (5, 2, 4)


def test_scores_are_put_in_a_row_behind_the_last_stage():
    core = StreamingCore([hidden(6, 4, 1, 4), last(4, 6, 4, 1)])
    assert [stage.name for stage in core.stages] == ["hidden", "last", "serializer"]
    serializer = core.stages[-1]
    assert (serializer.i_beats, serializer.o_beats, serializer.cycles) == (1, 4, 4)


def test_stages_may_have_any_names():
    units = [hidden(4, 8, 2, 4), last(2, 4, 2, 2)]
    core = StreamingCore([replace(units[0], name="argmax"), replace(units[1], name="argmax")])
    assert "argmax" in rtlil.convert(core)


def test_the_slowest_stage_sets_the_pace():
    core = StreamingCore([hidden(24, 6, 8, 6), last(2, 24, 2, 8)])
    assert core.cycles_per_frame == 3
    assert core.slowest.name == "hidden"
