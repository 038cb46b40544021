"""The HTML report: whole, escaped, and true to the JSON object."""

import base64
import copy
import re
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorflow.report import Digit, render, write
from xnorflow.report.charts import SCORES_HEIGHT, ScoreChart
from xnorflow.report.png import data_uri


def layer(name, mw, mh, pe, simd, cycles, **more):
    return {
        "name": name,
        "kind": "dense",
        "mw": mw,
        "mh": mh,
        "pe": pe,
        "simd": simd,
        "cycles": cycles,
        "lut_estimated": 1234,
        "bram_estimated": 11,
        "weights_bits": mw * mh,
        "weights_in": "bram",
        **more,
    }


REPORT = {
    "model": "mnist_sfc",
    "digest": "60e9d665",
    "board": "ulx3s-85f",
    "device": "LFE5U-85F",
    "clock_mhz": 87.5,
    "fmax_mhz": 91.31,
    "cycles_per_frame": 640,
    "latency_cycles": 2138,
    "latency_us": 2138 / 87.5,
    "fps": 136_718.75,
    "target_fps": 130_000.0,
    "resources": {
        "lut": {"used": 4906, "available": 83640, "estimated": 5211},
        "bram": {"used": 20, "available": 208, "estimated": 21},
        "dsp": {"used": 0, "available": 156, "estimated": None},
        "odd": {"used": 3, "available": 6},
    },
    "core_resources": {"lut": 4321, "ff": 987, "dsp": 0},
    "layers": [
        layer("fc1", 784, 256, 4, 98, 512, threshold_count=257),
        layer("fc2", 250, 256, 8, 32, 500, weights_in="lut"),
        layer("fc3", 256, 10, 1, 5, 640, weights_in="constant"),
    ],
    "verification": {
        "engine": "amaranth",
        "frames": 20,
        "mismatches": 0,
        "layer_mismatches": None,
        "accuracy": 0.95,
        "latency_cycles": 2138,
        "latency_cycles_predicted": 2138,
        "cycles_per_frame": 640,
        "cycles_per_frame_predicted": 640,
        "stall": 0.0,
        "seed": 0,
        "seconds": 7.1,
    },
    "accuracy": {"frames": 1000, "accuracy": 0.988},
    "link": {"baud": 1_000_000, "bytes_per_frame": 105, "fps": 952.38},
    "tools": {"yosys": "0.70", "nextpnr-ecp5": "0.11"},
    "bitstream": "ulx3s-85f.bit",
    "program": "openFPGALoader ulx3s-85f.bit",
    "seconds": {"simulate": 7.1, "place and route": 122.2},
    "attempts": [[92.5, 91.25], [87.5, 91.31]],
    "seed": 2,
    "seeds": [
        {"clock_mhz": 87.5, "seed": 1, "fmax_mhz": None},
        {"clock_mhz": 87.5, "seed": 2, "fmax_mhz": 91.31},
    ],
    "fast": False,
    "energy": {
        "uj_per_frame": 2.345,
        "static_mw": 298.2,
        "dynamic_mw": 22.4,
        "activity": 0.41,
        "uncertainty": 3.0,
        "formula": "uj_per_frame = P / fps",
        "source": "static: a data sheet; dynamic: a measurement",
    },
    "command": "xnorflow build mnist_sfc.onnx",
    "notes": ["one note"],
}

#: What the command line's contract promises of every build, and no more.
CONTRACT = {
    *("model", "board", "device", "clock_mhz", "fmax_mhz", "cycles_per_frame", "latency_cycles"),
    *("fps", "resources", "layers", "verification", "tools", "bitstream", "seconds"),
}

#: Text that HTML can hold.
WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), max_size=40)


def tree_of(page):
    """Parse the page strictly: it is XML as well as HTML."""
    return ElementTree.fromstring(page)


def text_of(page):
    """Return what a reader sees, without titles and descriptions."""
    tree = tree_of(page)
    for parent in tree.iter():
        for child in [each for each in parent if each.tag in ("title", "desc", "style")]:
            parent.remove(child)
    return " ".join(" ".join(tree.itertext()).split())


def changed(**changes):
    return {**copy.deepcopy(REPORT), **changes}


def verified(**changes):
    return changed(verification={**REPORT["verification"], **changes})


@pytest.mark.parametrize(
    "fact",
    [
        *("mnist_sfc on ulx3s-85f", "Device LFE5U-85F, bitstream ulx3s-85f.bit"),
        *("20 frames simulated with 0 mismatches", "Right on 95.00 % of these frames"),
        *("a frame: 640 measured, 640 predicted", "2,138 cycles measured, 2,138 cycles predicted"),
        *("136,719 frames a second, the core alone; 130,000 asked for", "24.43 µs latency, 2,138"),
        *("640 cycles a frame", "87.50 MHz clock; Fmax 91.31 MHz", "98.80 % accuracy on 1,000"),
        "952.4 frames a second over the serial link",
        "1,000,000 baud and needs 105 bytes a frame",
        "no more than 952.4 frames a second: 0.7 % of what the core could do",
        "LUT 4,906 of 83,640 · 5.9 % · estimated 5,211",
        *(
            "block RAM 20 of 208 · 9.6 % · estimated 21",
            "multipliers (0 of 156)",
            "odd 3 of 6 · 50.0",
        ),
        "without link, clock and pins: 4,321 LUT, 987 flip-flops.",
        "fc1 784 → 256 PE 4 × SIMD 98 512 cycles weights: block RAM 80 % busy",
        "fc2 250 → 256 PE 8 × SIMD 32 500 cycles weights: LUT ROM 78 % busy",
        "▶ bottleneck fc3 256 → 10 PE 1 × SIMD 5 640 cycles weights: constants 100 % busy",
        "fc1 dense 784 256 1 4 98 512 80 % 200,704 block RAM 257 1,234 11",
        "fc3 dense 256 10 1 1 5 640 100 % 2,560 constants – 1,234 11",
        *("simulate 7.10 s", "place and route 122.20 s", "total 129.30 s"),
        *(
            "yosys 0.70",
            "nextpnr-ecp5 0.11",
            "xnorflow build mnist_sfc.onnx",
            "one note",
            "60e9d665",
        ),
        *(
            "92.50 MHz reached 91.25 MHz; 87.50 MHz reached 91.31 MHz",
            "openFPGALoader ulx3s-85f.bit",
        ),
    ],
)
def test_the_page_says_what_the_object_says(fact):
    assert fact in text_of(render(REPORT))


def test_the_page_loads_nothing():
    page = render(REPORT, [Digit(np.zeros((4, 4), np.uint8), 7, 7)])
    tags = {node.tag for node in tree_of(page).iter()}
    assert not tags & {"script", "link", "iframe", "object", "base"}
    assert not re.search(r"@import|url\(|https?:", page)
    assert all(node.get("src").startswith("data:") for node in tree_of(page).iter("img"))


def test_every_drawing_has_a_title():
    drawings = list(tree_of(render(REPORT)).iter("svg"))
    assert len(drawings) == 3 + 3 + 2
    for drawing in drawings:
        assert drawing.get("role") == "img"
        assert drawing.find("title").text.strip()


def test_layers_on_shortcuts_are_marked():
    first, *others = REPORT["layers"]
    assert "on a shortcut" not in render(REPORT)
    page = render({**REPORT, "layers": [{**first, "on_shortcut": True}, *others]})
    assert page.count("on a shortcut") == 1


def test_only_the_slowest_layers_are_the_bottleneck():
    names = [
        drawing.findtext("text[@class='name']")
        for drawing in tree_of(render(REPORT)).iter("svg")
        if drawing.find("text[@class='flag']") is not None
    ]
    assert names == ["fc3"]


def test_layers_are_busy_for_their_share_of_the_interval():
    text = text_of(render(changed(cycles_per_frame=1280)))
    assert "640 cycles weights: constants 50 % busy" in text


def test_bars_are_as_long_as_their_shares():
    resources = {"lut": {"used": 30, "available": 120, "estimated": 60}}
    page = tree_of(render(changed(resources=resources, link=None, target_fps=None)))
    bar = page.find(".//ul[@class='bars resources']/li/svg")
    assert bar.find("rect[@class='used']").get("width") == "25.0%"
    assert bar.find("line").get("x1") == "50.0%"


def test_no_bar_is_longer_than_its_track():
    resources = {"lut": {"used": 130, "available": 120, "estimated": 150}}
    page = render(changed(resources=resources))
    assert "130 of 120 · 108.3 %" in text_of(page)
    assert max(float(share) for share in re.findall(r'"([\d.]+)%"', page)) == 100


def test_what_a_user_names_is_escaped():
    page = render(changed(model="<script>alert(1)</script>", notes=["a < b & c"]))
    assert "<script>" not in page
    assert "<script>alert(1)</script> on ulx3s-85f" in text_of(page)
    assert "a < b & c" in text_of(page)


@settings(max_examples=30, deadline=None)
@given(WORDS.filter(bool))
def test_any_name_comes_out_as_it_went_in(name):
    report = changed(model=name, notes=[name], command=f"build {name}", tools={name: name})
    report["layers"][0]["name"] = name
    page = tree_of(render(report))
    assert page.find("head/title").text == f"{name} on ulx3s-85f – xnorflow"
    assert page.findtext(".//tbody/tr/th") == name
    assert page.findtext(".//dd/code") == f"build {name}"


def test_long_names_keep_the_ends_that_tell_them_apart():
    layers = [layer(f"features.block.dense_{k}", 64, 64, 1, 1, 640) for k in (10, 11)]
    drawn = [node.text for node in tree_of(render(changed(layers=layers))).iter("text")]
    assert "featur…ense_10" in drawn
    assert "featur…ense_11" in drawn


def test_mismatches_are_not_hidden():
    text = text_of(render(verified(mismatches=3, layer_mismatches={"fc1": 0, "fc2": 3})))
    assert "✗ Not verified: 3 of 20 simulated frames differ" in text
    assert "by layer: fc1 0, fc2 3." in text
    assert "✓" not in text


@pytest.mark.parametrize("verification", [None, {**REPORT["verification"], "frames": 0}])
def test_nothing_simulated_is_not_verified(verification):
    text = text_of(render(changed(verification=verification)))
    assert "Not verified: no frame of this hardware was simulated" in text
    assert "✓" not in text


def test_timing_other_than_predicted_is_said():
    text = text_of(render(verified(cycles_per_frame=641.5, latency_cycles=2140, stall=0.25)))
    assert "Cycles a frame: 641.5 measured, 640 predicted." in text
    assert "The measured cycles a frame is not the predicted one" in text
    assert "The measured latency is not the predicted one" in text
    assert "stalled in 25 %" in text
    assert "is not the predicted one" not in text_of(render(REPORT))


def test_energy_is_called_an_estimate_with_formula_and_source():
    text = text_of(render(REPORT))
    assert "≈ 2.3 µJ a frame, an estimate" in text
    assert "300 mW static and 22 mW dynamic" in text
    assert "within a factor of 3 either way" in text
    assert "uj_per_frame = P / fps" in text
    assert "static: a data sheet; dynamic: a measurement" in text
    assert "estimate" not in text_of(render(changed(energy=None))).split("Resources")[0]


def test_all_seeds_and_the_one_kept_are_told():
    text = text_of(render(REPORT))
    assert "seed 1 at 87.50 MHz found no place; seed 2 at 87.50 MHz reached 91.31 MHz" in text
    assert "Seed 2 was kept" in text


def test_a_quick_look_claims_no_clock_and_no_bitstream():
    text = text_of(
        render(changed(fast=True, fmax_mhz=None, bitstream=None, program=None, attempts=[]))
    )
    assert "A quick look: synthesised, but not placed and routed" in text
    assert "87.50 MHz planned clock; not routed" in text
    assert "at the planned clock, not routed" in text
    assert "quick look" not in text_of(render(REPORT))


def test_an_interval_that_one_frame_cannot_show_is_not_measured():
    text = text_of(render(verified(frames=1, cycles_per_frame=None, accuracy=None)))
    assert "1 frame simulated" in text
    assert "Cycles a frame: not measured, 640 predicted." in text
    assert "is not the predicted one" not in text
    assert "of these frames" not in text


def test_a_link_that_keeps_up_is_no_limit():
    text = text_of(render(changed(link={"baud": 3_000_000, "bytes_per_frame": 2, "fps": 150e3})))
    assert "3,000,000 baud and needs 2 bytes a frame, so it keeps up" in text
    assert "no more than" not in text


def test_the_contract_alone_is_enough():
    report = {key: copy.deepcopy(REPORT[key]) for key in CONTRACT}
    for each in report["layers"]:
        for key in ("mw", "mh", "bram_estimated", "threshold_count"):
            each.pop(key, None)
    report["verification"] = {key: REPORT["verification"][key] for key in ("frames", "mismatches")}
    text = text_of(render(report))
    assert "20 frames simulated with 0 mismatches" in text
    assert "24.43 µs" in text
    assert "accuracy not measured: no labelled data" in text
    assert "baud" not in text
    assert "None" not in text


@pytest.mark.parametrize("key", sorted(REPORT.keys() - CONTRACT | {"fmax_mhz", "verification"}))
def test_what_is_not_known_is_none_in_words(key):
    text = text_of(render(changed(**{key: None})))
    assert "None" not in text


def test_accuracy_without_labels_is_said():
    text = text_of(render(changed(accuracy={"frames": 1000, "accuracy": None})))
    assert "accuracy not measured: no labelled data" in text


@pytest.mark.parametrize("count", [1, 16])
def test_few_and_many_layers_are_all_drawn(count):
    layers = [layer(f"fc{k}", 64, 64, 1, 1, 4096) for k in range(count)]
    page = tree_of(render(changed(layers=layers, cycles_per_frame=4096)))
    drawn = [node.text for node in page.iter("text") if node.get("class") == "name"]
    assert drawn == [f"fc{k}" for k in range(count)]


def test_frames_are_shown_with_their_classes():
    image = np.zeros((4, 4, 1), np.uint8)
    digits = [Digit(image, 7, 7), Digit(image, 5, 6, [-3, 9]), Digit(image, None, 3)]
    page = tree_of(render(REPORT, digits))
    wrong = page.findall(".//li[@class='wrong']")
    assert len(wrong) == 1
    assert " ".join("".join(wrong[0].itertext()).split()).startswith("6✗ label 5")
    pictures = list(page.iter("img"))
    assert [each.get("alt") for each in pictures] == [
        "Frame 1: class 7, label 7",
        "Frame 2: class 6, label 5, wrong",
        "Frame 3: class 3",
    ]
    assert "class 0: -3, class 1: 9" in wrong[0].findtext("svg/desc")
    assert "2 of 3 are right" in text_of(render(REPORT, [*digits, digits[0]]))


def test_frames_without_labels_are_not_called_right():
    text = text_of(render(REPORT, [Digit(np.zeros((4, 4), np.uint8), None, 3)]))
    assert "the data have no labels" in text
    assert "are right" not in text
    assert "scores" not in text


def test_the_same_object_gives_the_same_page(tmp_path):
    write(REPORT, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(copy.deepcopy(REPORT))


def test_a_file_name_that_is_no_unicode_does_not_stop_the_report(tmp_path):
    write(changed(command="xnorflow build \udcff.onnx"), tmp_path / "report.html")
    assert "xnorflow build ?.onnx" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3)])
def test_pictures_are_png_files_of_the_same_pixels(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    png = base64.b64decode(data_uri(image).removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size]) == (
            zlib.crc32(kind + body),
        )
        chunks[kind] = body
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    colour = 2 if shape[2:] == (3,) else 0
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (5, 3, 8, colour, 0, 0, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(3, -1)
    assert not rows[:, 0].any()
    assert np.array_equal(rows[:, 1:].reshape(shape), image)


def test_pictures_of_two_channels_are_shown_as_the_grey_of_their_mean():
    image = np.array([[[0, 100]], [[255, 255]]], np.uint8)
    assert data_uri(image) == data_uri(np.array([[50], [255]], np.uint8))


def test_score_charts_stand_and_hang_from_the_zero_line():
    chart = ScoreChart.of([-10, 30, 0], predicted=1, label=0)
    assert chart.zero == SCORES_HEIGHT * 30 / 40
    assert [(bar.y, bar.height) for bar in chart.bars] == [(30, 10), (0, 30), (30, 0)]
    assert [bar.chosen for bar in chart.bars] == [False, True, False]
    assert [bar.true for bar in chart.bars] == [True, False, False]


@pytest.mark.parametrize("scores", [[0, 0], [-5, -1], [7]])
def test_score_charts_of_any_sign_stay_within_their_height(scores):
    for bar in ScoreChart.of(scores, 0, None).bars:
        assert 0 <= bar.y <= bar.y + bar.height <= SCORES_HEIGHT


def test_a_clock_beyond_fmax_is_said():
    assert "Timing is not met" in text_of(render(changed(fmax_mhz=80.0)))
    assert "Timing is not met" not in text_of(render(REPORT))
