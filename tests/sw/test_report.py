"""The HTML report: whole, escaped, and true to the JSON object."""

import base64
import copy
import struct
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from xnorflow.report import Digit, render, write
from xnorflow.report.png import data_uri

VOID = {"meta", "img"}


def layer(name, mw, mh, pe, simd, cycles):
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
    }


REPORT = {
    "model": "mnist_sfc",
    "board": "ulx3s-85f",
    "device": "LFE5U-85F",
    "clock_mhz": 87.5,
    "fmax_mhz": 91.3,
    "cycles_per_frame": 640,
    "latency_cycles": 2138,
    "fps": 136_718.75,
    "resources": {
        "lut": {"used": 4906, "available": 83640, "estimated": 5211},
        "bram": {"used": 20, "available": 208, "estimated": 20},
        "dsp": {"used": 0, "available": 156, "estimated": None},
    },
    "layers": [
        layer("fc1", 784, 256, 4, 98, 512),
        layer("fc2", 256, 256, 4, 32, 512),
        layer("fc3", 256, 10, 1, 4, 640),
    ],
    "verification": {
        "engine": "amaranth",
        "frames": 20,
        "mismatches": 0,
        "accuracy": 1.0,
        "latency_cycles": 2138,
        "cycles_per_frame": 640,
        "cycles_per_frame_predicted": 640,
        "seconds": 7.1,
    },
    "accuracy": {"frames": 1000, "accuracy": 0.988},
    "link": {"baud": 1_000_000, "bytes_per_frame": 105, "fps": 947.0},
    "tools": {"yosys": "0.70", "nextpnr-ecp5": "0.11"},
    "bitstream": "ulx3s-85f.bit",
    "seconds": {"simulate": 7.1, "place and route": 122.2},
    "notes": ["one note"],
    "command": "xnorflow build mnist_sfc.onnx",
}


class Balanced(HTMLParser):
    """Checks that every tag is closed in turn, and gathers the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Drawing elements close themselves."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(page):
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    return " ".join(" ".join(parser.text).split())


def changed(**changes):
    report = copy.deepcopy(REPORT)
    report.update(changes)
    return report


def test_the_page_says_what_the_object_says():
    text = text_of(render(REPORT))
    for fact in (
        *("mnist_sfc on ulx3s-85f", "LFE5U-85F", "ulx3s-85f.bit", "136,719", "24.4 µs", "2,138"),
        *("640 cycles a frame measured", "87.50 MHz", "91.30 MHz", "98.80 %", "1,000 frames"),
        *("947", "1,000,000 baud", "105 bytes", "4,906 of 83,640", "estimated 5,211", "20 of 208"),
        *("784 → 256", "PE 4 × SIMD 98", "640 cycles, slowest", "weights: bram", "80 %"),
        *("200,704", "1,234", "yosys 0.70", "122.2", "one note", "xnorflow build mnist_sfc.onnx"),
    ):
        assert fact in text, fact
    assert "Verified:" in text
    assert "Unused: multipliers" in text


def test_the_drawing_is_well_formed():
    page = render(REPORT)
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    names = [node.text for node in svg.iter("text") if node.get("class") == "name"]
    assert names == ["fc1", "fc2", "fc3"]
    assert svg.find("title") is not None


def test_what_a_user_names_is_escaped():
    page = render(changed(model="<script>alert(1)</script>", notes=["a < b & c"]))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &lt; b &amp; c" in page


def test_mismatches_are_not_hidden():
    verification = {**REPORT["verification"], "mismatches": 3}
    text = text_of(render(changed(verification=verification)))
    assert "3 of 20 simulated frames differ" in text
    assert "Verified:" not in text


def test_optional_keys_may_be_missing():
    report = changed(verification=None)
    for key in ("accuracy", "link", "notes", "command"):
        del report[key]
    for each in report["layers"]:
        del each["bram_estimated"]
    text = text_of(render(report))
    assert "Not verified" in text
    assert "no labels" in text
    assert "baud" not in text


@pytest.mark.parametrize("count", [1, 16])
def test_few_and_many_layers(count):
    layers = [layer(f"fc{k}", 64, 64, 1, 1, 4096) for k in range(count)]
    text = text_of(render(changed(layers=layers)))
    assert f"fc{count - 1}" in text


def test_frames_are_shown_with_their_classes():
    image = np.zeros((4, 4, 1), np.uint8)
    page = render(REPORT, [Digit(image, 7, 7), Digit(image, 5, 6), Digit(image, None, 3)])
    assert page.count("data:image/png") == 3
    assert page.count('class="wrong"') == 1
    assert "1 of 3 right" in text_of(page)
    assert "is 5" in text_of(page)


def test_the_same_object_gives_the_same_page(tmp_path):
    write(REPORT, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(REPORT)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3)])
def test_pictures_are_png_files_of_the_same_pixels(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    png = base64.b64decode(data_uri(image).removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert (height, width) == shape[:2]
    start = png.index(b"IDAT") + 4
    size = struct.unpack(">I", png[start - 8 : start - 4])[0]
    rows = np.frombuffer(zlib.decompress(png[start : start + size]), np.uint8)
    rows = rows.reshape(height, -1)[:, 1:]
    assert np.array_equal(rows.reshape(shape), image)


def test_pictures_of_two_channels_are_refused():
    with pytest.raises(ValueError, match="1 or 3 channels"):
        data_uri(np.zeros((2, 2, 2), np.uint8))
