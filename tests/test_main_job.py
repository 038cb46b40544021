"""The whole way: a model becomes a verified bitstream and a report."""

import json
from importlib import resources

import pytest

from xnorflow.cli.main import main

SIMULATION = {
    *("engine", "frames", "mismatches", "accuracy", "latency_cycles", "cycles_per_frame"),
    *("cycles_per_frame_predicted", "seconds"),
}
BUILD = {
    *("model", "board", "device", "clock_mhz", "fmax_mhz", "cycles_per_frame", "latency_cycles"),
    *("fps", "resources", "layers", "verification", "tools", "bitstream", "seconds"),
}
LAYER = {"name", "kind", "pe", "simd", "cycles", "lut_estimated", "weights_bits", "weights_in"}


def build(*arguments, status=0):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == status


def check_report(output, board):
    """Hold report.json to the contract of the command line; return it."""
    report = json.loads((output / "report.json").read_text())
    assert set(report) >= BUILD
    assert set(report["verification"]) >= SIMULATION
    assert all(set(layer) >= LAYER for layer in report["layers"])
    for name in ("lut", "ff", "bram"):
        usage = report["resources"][name]
        assert 0 < usage["used"] <= usage["available"]
    assert report["board"] == board
    assert report["clock_mhz"] <= report["fmax_mhz"]
    assert report["verification"]["mismatches"] == 0
    assert report["verification"]["frames"] >= 4
    measured = report["verification"]["cycles_per_frame"]
    assert measured == report["verification"]["cycles_per_frame_predicted"]
    assert measured == report["cycles_per_frame"]
    assert report["fps"] == pytest.approx(report["clock_mhz"] * 1e6 / measured)
    assert (output / report["bitstream"]).stat().st_size > 10_000
    assert "<svg" in (output / "report.html").read_text()
    return report


@pytest.mark.slow
def test_demo(tmp_path, capsys):
    output = tmp_path / "demo"
    build("demo", "--output", output)
    report = check_report(output, "icebreaker")
    assert report["accuracy"]["frames"] == 1000
    assert report["accuracy"]["accuracy"] > 0.95
    assert report["resources"]["bram"]["used"] <= 30
    assert "0 mismatches" in capsys.readouterr().out


@pytest.mark.slow
def test_sfc_on_the_ulx3s_at_100000_frames_a_second(tmp_path):
    model = resources.files("xnorflow.models") / "mnist_sfc.onnx"
    output = tmp_path / "out"
    build(
        *("build", model, "--board", "ulx3s-85f", "--target-fps", "100000"),
        *("--output", output),
    )
    assert check_report(output, "ulx3s-85f")["fps"] >= 100_000
