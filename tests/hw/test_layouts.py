"""Where the fields of a payload lie."""

import pytest
from amaranth import signed, unsigned

from xnorflow.hw import layouts


@pytest.mark.parametrize(
    ("lanes", "width", "classes", "index"), [(2, 5, 10, 4), (1, 3, 1, 1), (4, 8, 16, 4)]
)
def test_a_results_class_and_flag_lie_above_its_scores(lanes, width, classes, index):
    result = layouts.results(lanes, width, classes)
    places = {name: (field.offset, field.width) for name, field in result}
    scores = lanes * width
    assert places == {"scores": (0, scores), "index": (scores, index), "last": (scores + index, 1)}
    assert result["scores"].shape.elem_shape == signed(width)


def test_the_flag_of_a_granule_lies_above_its_lanes():
    payload = layouts.granules(unsigned(1), 5, 3)
    assert payload.size == 18
    assert [payload[unit].offset for unit in range(3)] == [0, 6, 12]
    assert payload[0].shape["pad"].offset == 5


def test_lane_0_is_the_least_significant():
    payload = layouts.Lanes(width=4).payload(3)
    assert [payload[lane].offset for lane in range(3)] == [0, 4, 8]
