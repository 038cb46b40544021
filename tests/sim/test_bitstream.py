"""A bitstream, unpacked and simulated, is the network that it was built from."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from random_networks import random_network

from xnorflow import boards
from xnorflow.builder import Request, build
from xnorflow.errors import UserError
from xnorflow.frames import prepare
from xnorflow.golden import predict_quantized
from xnorflow.host import Device
from xnorflow.lowering import lower
from xnorflow.sim.bitstream import circuit_of_build, pin_names, unpack
from xnorflow.sim.virtual_board import VirtualBoard

LOWERED = lower(random_network(np.random.default_rng(29), [12, 24, 4]))

needs_icestorm = pytest.mark.skipif(
    shutil.which("icebox_vlog") is None, reason="icebox_vlog (package fpga-icestorm) is missing"
)


@needs_icestorm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "clock", "weights_in", "brams"),
    [("icebreaker", 24, "bram", True), ("ice40-hx8k", 12, "lut", False)],
)
def test_a_bitstream_gives_what_the_golden_model_gives(tmp_path, board, clock, weights_in, brams):
    # One board through the PLL at its pad, the other one straight from its oscillator.
    rng = np.random.default_rng(3)
    x = rng.integers(-8, 9, (60, 12)).astype(np.float32) / 8
    folding = {
        layer.name: {"pe": 4, "simd": 6, "weights_in": weights_in} for layer in LOWERED.layers
    }
    request = Request(
        LOWERED, boards.load(board), folding=folding, simulated=4, clock_mhz=float(clock)
    )
    build(request, prepare(LOWERED, x, None), tmp_path / "out")
    report, circuit = circuit_of_build(tmp_path / "out")
    assert (report["resources"]["bram"]["used"] > 0) == brams
    virtual = VirtualBoard(circuit)
    device = Device(virtual, virtual.baud, timeout=0.05, clock=virtual.clock)
    assert device.check(LOWERED.digest()).clock_hz == clock * 1_000_000
    bits = rng.random((60, 12)) < 0.5
    run = device.run(bits)
    expected = predict_quantized(LOWERED, bits)
    assert np.array_equal(run.scores, expected.scores)
    assert np.array_equal(run.classes, expected.classes)
    assert not run.trouble
    before = virtual.lamp_changes
    virtual.advance(0.2)
    assert virtual.lamp_changes >= before


def test_pins_are_those_of_the_board():
    assert pin_names(boards.load("icebreaker")) == {"clk": "35", "rx": "6", "tx": "9", "led": "11"}
    assert pin_names(boards.load("ice40-hx8k"))["rx"] == "B10"


def test_a_board_without_a_link_is_refused():
    board = dataclasses.replace(boards.load("icebreaker"), link=None)
    with pytest.raises(UserError, match="has no \\[link\\] to a host"):
        pin_names(board)


def test_a_family_without_an_unpacker_is_refused(tmp_path):
    with pytest.raises(UserError, match="no open tool turns into a netlist; emulate the model"):
        unpack(tmp_path / "x.bit", boards.load("ulx3s-25f"))


def test_a_missing_tool_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="icebox_vlog, which reads bitstreams, is not on the PATH"):
        unpack(tmp_path / "x.bin", boards.load("icebreaker"))


class TestFolders:
    def report(self, folder, **changes):
        content = {
            "model": "m",
            "board": "icebreaker",
            "clock_mhz": 24.0,
            "cycles_per_frame": 24,
            "latency_cycles": 30,
            "fps": 1e6,
            "resources": {},
            "bitstream": "icebreaker.bin",
            "link": {"baud": 1_000_000, "bytes_per_frame": 13},
        }
        content |= changes
        (folder / "report.json").write_text(json.dumps(content))

    def test_that_is_no_build_is_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"holds neither report\.json"):
            circuit_of_build(tmp_path)

    def test_of_a_quick_look_is_refused(self, tmp_path):
        self.report(tmp_path, bitstream=None)
        with pytest.raises(UserError, match="holds no bitstream"):
            circuit_of_build(tmp_path)

    def test_whose_report_lacks_the_link_is_refused(self, tmp_path):
        self.report(tmp_path, link={})
        with pytest.raises(UserError, match="its report lacks 'baud'; build again"):
            circuit_of_build(tmp_path)

    @needs_icestorm
    def test_without_its_bitstream_is_refused(self, tmp_path):
        self.report(tmp_path)
        with pytest.raises(UserError, match=r"icebreaker\.bin cannot be read"):
            circuit_of_build(tmp_path)

    @needs_icestorm
    def test_with_a_damaged_bitstream_is_refused(self, tmp_path):
        self.report(tmp_path)
        (tmp_path / "icebreaker.bin").write_bytes(b"no bitstream at all" * 50)
        with pytest.raises(UserError, match=r"icebreaker\.bin is no iCE40 bitstream"):
            circuit_of_build(tmp_path)
