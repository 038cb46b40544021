"""``xnorflow run`` against a simulated board."""

import json

import numpy as np
import pytest
from foldings import random_folding
from link_bench import LinkedCore, SerialBench
from random_networks import random_network

from xnorflow.assemble import assemble
from xnorflow.cli.run import run_command
from xnorflow.errors import UserError, WorkFailed
from xnorflow.golden import predict_quantized
from xnorflow.host import Device
from xnorflow.lowering import lower

CLOCK, BAUD = 4_000_000, 1_000_000


class TestRunCommand:
    @pytest.fixture
    def desk(self, tmp_path, monkeypatch):
        """A model, its board at a port, and a data file; returns how to call the command."""
        rng = np.random.default_rng(2)
        network = random_network(rng, [12, 6, 3], preprocess=False)
        lowered = lower(network)
        x = rng.random((9, 12)).astype(np.float32)
        y = predict_quantized(lowered, lowered.input.quantize(x)).classes
        y[0] = (y[0] + 1) % 3
        np.savez(tmp_path / "data.npz", x=x, y=y)
        core = assemble(lowered, random_folding(rng, lowered))
        bench = SerialBench(LinkedCore(core, lowered.digest()), CLOCK, BAUD)

        def opened(port, baud):
            return Device(bench, BAUD, timeout=2e-4, clock=bench.clock)

        monkeypatch.setattr("xnorflow.cli.run.load_lowered", lambda *_: (network, lowered))
        monkeypatch.setattr("xnorflow.cli.run.Device", opened)

        def call(*options):
            arguments = ["model.onnx", "--port", "P", "--data", str(tmp_path / "data.npz")]
            result = tmp_path / "run.json"
            run_command.main([*arguments, "--json", str(result), *options], standalone_mode=False)
            return json.loads(result.read_text())

        call.lowered, call.monkeypatch = lowered, monkeypatch
        return call

    def test_compares_the_board_with_the_golden_model(self, desk, capsys):
        result = desk()
        assert (result["engine"], result["frames"], result["mismatches"]) == ("device", 9, 0)
        assert result["accuracy"] == pytest.approx(8 / 9)
        assert result["fps_measured"] > 0
        assert result["seconds"] > 0
        assert "9 frames on P: 0 mismatches, accuracy 88.89%" in capsys.readouterr().out

    def test_takes_as_many_frames_as_asked_for(self, desk):
        assert desk("--frames", "4")["frames"] == 4

    def test_a_mismatch_is_a_failure(self, desk):
        def wrong(lowered, bits):
            prediction = predict_quantized(lowered, bits)
            prediction.scores[3, 1] += 1
            return prediction

        desk.monkeypatch.setattr("xnorflow.cli.run.predict_quantized", wrong)
        with pytest.raises(WorkFailed, match=r"1 of 9 frames differ .* first frame 3"):
            desk()

    def test_a_baud_rate_of_zero_is_refused(self, desk):
        with pytest.raises(UserError, match="--baud is 0"):
            desk("--baud", "0")
