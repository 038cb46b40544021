"""`xnorflow emulate` and `xnorflow run`: two programs, and only a serial port between them."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib import resources

import numpy as np
import onnx
import pytest
from random_networks import random_network, to_qonnx

from xnorflow.cli.main import main

CNN = str(resources.files("xnorflow.models") / "mnist_cnn.onnx")


def xnorflow(*arguments) -> list[str]:
    call = "from xnorflow.cli.main import main; main()"
    return [sys.executable, "-c", call, *map(str, arguments)]


@contextmanager
def emulated(tmp_path, model, *options):
    """An emulated board; gives the port, and at the end what it told, as a list of one dict."""
    port, told = tmp_path / "board", tmp_path / "emulated.json"
    results: list[dict] = []
    log = (tmp_path / "log").open("w")
    command = xnorflow("emulate", model, "--port", port, "--json", told, *options)
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while not port.is_symlink():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield port, results
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        log.close()
    text = (tmp_path / "log").read_text()
    assert status == 0, text
    assert "Warning" not in text
    assert "Unused" not in text
    results.append(json.loads(told.read_text()))


def run(model, port, *options) -> tuple[int, str]:
    done = subprocess.run(
        xnorflow("run", model, "--port", port, *options), capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tiny(tmp_path):
    rng = np.random.default_rng(1)
    model, data = tmp_path / "tiny.onnx", tmp_path / "tiny.npz"
    onnx.save(to_qonnx(random_network(rng, [12, 6, 3])), model)
    np.savez(data, x=rng.integers(-8, 9, (30, 12)).astype(np.float32) / 8)
    return model, data


def test_a_network_runs_on_an_emulated_board(tmp_path, tiny):
    model, data = tiny
    with emulated(tmp_path, model, "--board", "icebreaker") as (port, results):
        status, text = run(model, port, "--data", data)
        assert status == 0, text
        assert "30 frames" in text
        assert "0 mismatches" in text
        assert "mended" not in text
        # Another network than the one that is on the board.
        status, text = run(CNN, port, "--frames", "3")
        assert status == 2
        assert "program the bitstream that was built from it" in text
    assert results[0]["to_board"]["passed"] > 30
    assert not port.is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [("--damage", "0.01"), ("--damage", "0.002", "--flood", "0.0003", "--unplug", "0.0002")],
    ids=["damaged", "flooded and unplugged"],
)
def test_two_hundred_digits_over_a_bad_line_get_exactly_the_golden_classes(tmp_path, faults):
    told = tmp_path / "run.json"
    folding = ("--board", "icebreaker", "--target-fps", "1800")
    with emulated(tmp_path, CNN, *folding, *faults) as (port, results):
        status, text = run(CNN, port, "--frames", "200", "--json", told)
    assert status == 0, text
    result = json.loads(told.read_text())
    # Classes and all scores: `run` compares them with the golden model.
    assert (result["frames"], result["mismatches"]) == (200, 0)
    assert result["trouble"]["again"] > 0
    assert "mended: " in text
    line = results[0]["to_board"]
    harmed = line["dropped"] + line["flipped"] + line["inserted"]
    assert harmed > 0.7 * float(faults[1]) * line["passed"]
    if "--unplug" in faults:
        assert result["trouble"]["reconnected"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--damage", "2"), "--damage 2 must be at least 0 and below 1"),
        (("--unplug", "0.1"), "--unplug 0.1 needs --port"),
        (("--clock", "0.001"), "cannot make a clock of 0.001 MHz"),
        (("--port", "/nowhere/board"), "--port /nowhere/board cannot be made"),
    ],
)
def test_wrong_input_is_told_in_one_sentence(capsys, tiny, options, message):
    with pytest.raises(SystemExit) as end:
        main(["emulate", str(tiny[0]), "--board", "icebreaker", *options])
    error = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2
    assert message in error[-1]
    assert not any("Traceback" in line for line in error)


def test_without_a_compiler_is_told_in_one_sentence(capsys, tiny, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit) as end:
        main(["emulate", str(tiny[0]), "--board", "icebreaker"])
    assert end.value.code == 2
    assert "no-such-compiler" in capsys.readouterr().err
