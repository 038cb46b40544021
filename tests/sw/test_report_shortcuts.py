"""Shortcuts in the report: what the object says of them, and that they are drawn as it says."""

import re
from xml.etree import ElementTree

import numpy as np
from family_networks import FamilyMaker
from foldings import random_folding
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorflow.errors import UserError
from xnorflow.fifo_sizing import fifos
from xnorflow.folding import folding_json
from xnorflow.lowered import LoweredJoin
from xnorflow.lowering import lower
from xnorflow.pipeline import pipeline
from xnorflow.planning import plan
from xnorflow.report import render
from xnorflow.report.shortcuts import DOWN, WIDTH, arcs
from xnorflow.results import shortcut_results

NAMES = [f"conv{k}" for k in range(6)]

LAYERS = [
    {"name": name, "pe": 1, "simd": 2, "cycles": 9, "weights_in": "lut", "mw": 2, "mh": 2}
    for name in NAMES
]

POOL = {"name": "pool", "kind": "max 3x3", "fifo": 7}


def shortcut(begin, end, how="add", inside=False, stages=(), fifo=1234):
    return {
        "name": f"join{begin}{end}",
        "how": how,
        "from": f"conv{begin}",
        "from_layer": f"conv{begin}",
        "inside": inside,
        "to_layer": f"conv{end}",
        "stages": list(stages),
        "fifo": fifo,
    }


def drawings(*shortcuts):
    tree = ElementTree.fromstring(render({"layers": LAYERS, "shortcuts": list(shortcuts)}))
    return tree, tree.findall(".//ol[@class='pipeline']/li/svg")


def steps(path):
    """Return where a path passes, corners as the points at their ends."""
    x = y = 0
    points = []
    for letter, numbers in re.findall(r"([MHVq])([^MHVq]*)", path):
        values = [int(value) for value in numbers.split()]
        match letter:
            case "M":
                x, y = values
            case "H":
                (x,) = values
            case "V":
                (y,) = values
            case "q":
                x, y = x + values[2], y + values[3]
        points.append((x, y))
    return points


def test_a_chain_is_drawn_as_ever():
    plain = render({"layers": LAYERS})
    assert plain == render({"layers": LAYERS, "shortcuts": []})
    assert 'height="252" viewBox="0 0 174 252"' in plain
    assert not re.search(r'class="(wire|dot|sign)"|shortcut leaves|<ul class="soft', plain)


def test_fork_fifo_and_join_are_drawn_where_they_are():
    tree, cells = drawings(shortcut(1, 3, stages=[POOL]))
    dots = [len(cell.findall("circle[@class='dot']")) for cell in cells]
    signs = [len(cell.findall("circle[@class='sign']")) for cell in cells]
    assert dots == [0, 1, 0, 0, 0, 0]
    assert signs == [0, 0, 0, 1, 0, 0]
    assert {"FIFO 7", "max 3x3", "FIFO 1,234"} <= {text.text for text in cells[3].iter("text")}
    heard = [cell.findtext("desc") for cell in cells]
    assert "a shortcut from conv1 to conv3 begins here" in heard[1]
    assert "is added here, through FIFO 7, max 3x3, FIFO 1,234" in heard[3]
    assert "shortcut" not in heard[2]
    listed = " ".join(tree.find(".//ul[@class='soft shortcuts']/li").itertext())
    assert listed == "join13: from conv1 to conv3, added; FIFO 7, max 3x3, FIFO 1,234"


def test_converters_and_windows_are_no_more_drawn_than_those_of_layers():
    hidden = [{"name": kind, "kind": kind, "fifo": 0} for kind in ("converter", "window")]
    drawn, _, _ = arcs([shortcut(0, 1, stages=hidden)], NAMES)
    assert drawn[0].way == ("FIFO 1,234",)


def test_sums_and_channels_side_by_side_have_signs_of_their_own():
    _, cells = drawings(shortcut(0, 1), shortcut(1, 2, "append"), shortcut(2, 3, "prepend"))
    signs = [cell.findall("path[@class='wire']")[-1].get("d") for cell in cells[1:4]]
    assert [sign.count("h8") for sign in signs] == [1, 2, 2]
    assert [sign.count("v8") for sign in signs] == [1, 0, 0]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans(), st.integers(0, 2)),
        max_size=6,
    )
)
def test_every_shortcut_is_one_line_in_a_lane_of_its_own(ends):
    ends = [(min(a, b), max(a, b), inside, pools) for a, b, inside, pools in ends]
    given_ = [shortcut(a, b, inside=i, stages=[POOL] * pools) for a, b, i, pools in ends]
    drawn, cells, above = arcs(given_, NAMES)
    assert [(each.begin, each.end) for each in drawn] == [(a, b) for a, b, *_ in ends]
    crossing = []
    for place, cell in enumerate(cells):
        levels = []
        for path in cell.wires:
            points = steps(path)
            assert all(0 <= x <= WIDTH and y >= -above for x, y in points)
            levels += {y for x, y in points if x == WIDTH}
        # What leaves a cell at the right comes into the next one at the left, and nothing else.
        crossing.append(sorted(levels))
        assert len(set(levels)) == len(levels)
        came = sorted(steps(p)[0][1] for p in cell.wires if steps(p)[0][0] == 0)
        assert came == (crossing[place - 1] if place else [])
        assert len(cell.signs) == sum(b == place for _, b, *_ in ends)
        assert len({x for x, *_ in cell.signs}) == len(cell.signs)
        assert len(cell.dots) == sum(a == place for a, *_ in ends)
        boxes = [(text.y, text.y + text.height) for text in cell.texts]
        for n, (top, bottom) in enumerate(boxes):
            assert -above <= top < bottom <= 2
            assert all(bottom <= y or top >= end for y, end in boxes[:n])


def test_lines_of_nested_shortcuts_do_not_run_through_texts():
    _, cells, _ = arcs([shortcut(0, 4), shortcut(2, 4), shortcut(3, 4)], NAMES)
    texts = sorted(cells[4].texts, key=lambda text: text.y)
    downs = sorted(x for x, *_ in cells[4].signs)
    assert downs[-1] == DOWN
    # The highest text's line comes down at the right of all texts below.
    for n, down in enumerate(reversed(downs)):
        assert all(text.x + text.width < down for text in texts[n:])


def test_the_object_names_every_shortcut_and_every_fifo_once():
    found = set()
    for seed in range(40):
        try:
            lowered = lower(FamilyMaker(seed).network())
        except UserError:  # no hardware can do it, see xnorflow.lowering
            continue
        joins = [stage for stage in lowered.stages if isinstance(stage, LoweredJoin)]
        folding = random_folding(np.random.default_rng(seed), lowered)
        planned = plan(lowered, None, folding=folding_json(folding))
        stages = pipeline(lowered, folding)
        # No two FIFOs share a name.
        assert list(planned.fifos.values()) == [fifo.words for fifo in fifos(stages)]
        results = shortcut_results(lowered, planned)
        assert [each["name"] for each in results] == [join.name for join in joins]
        layers = [layer.name for layer in lowered.layers]
        for join, result in zip(joins, results, strict=True):
            source = lowered.stages[join.source]
            assert result["from"] == source.name
            begin, end = layers.index(result["from_layer"]), layers.index(result["to_layer"])
            assert begin <= end
            behind = lowered.stages[join.source + 1]
            assert result["inside"] == (behind not in lowered.layers)
            assert result["fifo"] == planned.fifos[f"{join.name} (shortcut)"]
            words = [each["kind"] for each in result["stages"]]
            kinds = [word for word in words if word not in ("converter", "window")]
            assert len(kinds) == len(join.path)
            found |= set(words)
    assert found == {"max 3x3", "threshold", "converter", "window"}
