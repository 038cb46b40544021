"""The compiled engine against Amaranth's simulator and the golden model."""

import os
from pathlib import Path

import numpy as np
import pytest
from foldings import random_folding
from random_networks import random_cnn, random_frames, random_network

from xnorflow.assemble import assemble
from xnorflow.boards.board import load as load_board
from xnorflow.cli.main import main
from xnorflow.datasets import sample_digits
from xnorflow.errors import UserError, WorkFailed
from xnorflow.frontend import load
from xnorflow.golden import quantize
from xnorflow.lowering import lower
from xnorflow.planning import plan
from xnorflow.sim import amaranth_engine, cxxrtl_engine
from xnorflow.sim.cxxrtl import compile, parts
from xnorflow.sim.cxxrtl.compile import Design, load_library
from xnorflow.sim.verify import verify

MODELS = Path(__file__).parents[2] / "models"


def drawn(seed):
    """Return a random network, dense for even seeds, lowered, its folding and eight frames."""
    rng = np.random.default_rng(seed)
    network = random_cnn(rng) if seed % 2 else random_network(rng, rng.integers(1, 20, 4).tolist())
    lowered = lower(network)
    frames = quantize(lowered, random_frames(rng, network, 8))
    return lowered, random_folding(rng, lowered), frames


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    network = random_network(rng, [6, 4, 3])
    lowered = lower(network)
    folding = random_folding(rng, lowered)
    return lowered, folding, quantize(lowered, random_frames(rng, network, 12))


@pytest.mark.parametrize("seed", range(6))
def test_every_bit_and_cycle_is_that_of_amaranths_simulator(seed):
    lowered, folding, frames = drawn(seed)
    bits = lowered.input.to_bits(frames)
    theirs = amaranth_engine.run_core(assemble(lowered, folding), bits, watch_layers=True)
    ours = cxxrtl_engine.run_core(assemble(lowered, folding), bits, watch_layers=True)
    assert np.array_equal(ours.scores, theirs.scores)
    assert np.array_equal(ours.classes, theirs.classes)
    assert ours.framed
    assert theirs.framed
    theirs_from = theirs.last_output_cycles - theirs.first_input_cycle
    assert np.array_equal(ours.last_output_cycles - ours.first_input_cycle, theirs_from)
    assert ours.stages.keys() == theirs.stages.keys()
    for name, sent in theirs.stages.items():
        assert np.array_equal(ours.stages[name], sent), name


def test_stalls_slow_a_core_down_and_change_no_bit(small):
    lowered, folding, frames = small
    core = assemble(lowered, folding)
    results = [
        verify(core, lowered, frames, engine="cxxrtl", stall=stall, seed=seed, watch_layers=True)
        for stall, seed in ((0.0, 0), (0.5, 0), (0.5, 0), (0.5, 1), (0.9, 1))
    ]
    assert not any(result.mismatches for result in results)
    alone, once, again, other, slow = (result.cycles_per_frame for result in results)
    assert once == again
    assert other != once
    assert alone < once < slow


def test_a_library_is_compiled_once(small, tmp_path, monkeypatch):
    lowered, folding, frames = small
    monkeypatch.setattr(compile, "cache_folder", lambda kind: tmp_path / kind)
    first = verify(assemble(lowered, folding), lowered, frames, engine="cxxrtl")
    (library,) = (tmp_path / "cxxrtl").iterdir()
    changed = library.stat().st_mtime_ns
    told = []
    second = verify(
        assemble(lowered, folding),
        lowered,
        frames,
        engine="cxxrtl",
        progress=lambda step, message, done, total: told.append(message),
    )
    assert "C++" not in told
    assert library.stat().st_mtime_ns == changed
    assert first.engine == second.engine == "cxxrtl"
    assert first.mismatches == second.mismatches == 0


def test_a_native_yosys_without_headers_leaves_the_work_to_yowasps(tmp_path, monkeypatch):
    native = tmp_path / "bin" / "yosys"
    native.parent.mkdir()
    native.write_text("#!/bin/sh\necho Yosys 0.63\n")
    native.chmod(0o755)
    monkeypatch.setenv("PATH", str(native.parent), prepend=os.pathsep)
    yosys, runtime = compile._with_runtime()
    assert yosys.version.endswith("(YoWASP)")
    assert (runtime / "cxxrtl" / "cxxrtl.h").exists()
    headers = tmp_path / "share" / "yosys" / "include" / "backends" / "cxxrtl" / "runtime"
    (headers / "cxxrtl").mkdir(parents=True)
    (headers / "cxxrtl" / "cxxrtl.h").touch()
    yosys, runtime = compile._with_runtime()
    assert yosys.version == "0.63"
    assert runtime == headers


@pytest.mark.parametrize("waveforms", [False, True])
def test_a_model_in_parts_does_the_same(small, waveforms, tmp_path, monkeypatch):
    lowered, folding, frames = small
    core = assemble(lowered, folding)
    bits = lowered.input.to_bits(frames)
    whole = cxxrtl_engine.run_core(core, bits, stall=0.3, watch_layers=True)
    made = []

    def cut(model):
        length = len(model.source)
        made.append(parts.cut(model, length // 4, length // 40))
        return made[-1]

    monkeypatch.setattr(compile, "cut", cut)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    vcd = tmp_path / "core.vcd" if waveforms else None
    again = cxxrtl_engine.run_core(core, bits, stall=0.3, watch_layers=True, vcd=vcd)
    assert len(made[0].parts) > 2
    assert np.array_equal(again.scores, whole.scores)
    assert np.array_equal(again.last_output_cycles, whole.last_output_cycles)
    for name, sent in whole.stages.items():
        assert np.array_equal(again.stages[name], sent), name


def test_a_core_that_stops_is_told(small, monkeypatch):
    lowered, folding, frames = small
    monkeypatch.setattr(cxxrtl_engine, "wait_at_most", lambda core, stall: 2)
    with pytest.raises(WorkFailed, match="no output for 2 cycles after 0 of 12 frames"):
        cxxrtl_engine.run_core(assemble(lowered, folding), lowered.input.to_bits(frames))


def test_waveforms_are_written(small, tmp_path):
    lowered, folding, frames = small
    path = tmp_path / "core.vcd"
    result = verify(assemble(lowered, folding), lowered, frames, engine="cxxrtl", vcd=path)
    assert result.mismatches == 0
    text = path.read_text()
    assert "$scope module core" in text
    assert text.count("\n#") > 2 * result.latency_cycles


class TestWithoutACompiler:
    def test_amaranths_simulator_does_it_and_says_so(self, small, monkeypatch):
        lowered, folding, frames = small
        monkeypatch.setenv("CXX", "no-such-compiler")
        result = verify(assemble(lowered, folding), lowered, frames, engine="cxxrtl")
        assert result.engine == "amaranth"
        assert result.mismatches == 0
        (note,) = result.notes
        assert "no-such-compiler" in note

    def test_a_short_run_needs_none(self, small, monkeypatch):
        lowered, folding, frames = small
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert verify(assemble(lowered, folding), lowered, frames, engine="auto").notes == ()

    def test_the_command_says_so(self, monkeypatch, capsys):
        monkeypatch.setenv("PATH", "")
        monkeypatch.delenv("CXX", raising=False)
        arguments = ["simulate", str(MODELS / "mnist_mini.onnx"), "--engine=cxxrtl", "--frames=1"]
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        told = capsys.readouterr().out
        assert "note: there is no C++ compiler" in told
        assert "1 frames in amaranth: 0 mismatches" in told

    def test_a_compiler_that_fails_is_named(self, small, tmp_path, monkeypatch):
        lowered, folding, frames = small
        broken = tmp_path / "broken-c++"
        broken.write_text(
            "#!/bin/sh\n[ $1 = --version ] || { echo 'x: error: no luck' >&2; exit 3; }\n"
        )
        broken.chmod(0o755)
        monkeypatch.setenv("CXX", str(broken))
        with pytest.raises(
            WorkFailed, match=r"broken-c\+\+ could not compile the simulation: x: error: no luck"
        ):
            verify(assemble(lowered, folding), lowered, frames, engine="cxxrtl")


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        load_library(Design("", {}), "core.cc")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "board", "fps", "stall"),
    [("mnist_sfc", "ulx3s-85f", 100_000, 0.0), ("mnist_cnn", "icebreaker", 1800, 0.05)],
)
def test_ten_thousand_frames_are_bit_exact(model, board, fps, stall):
    lowered = lower(load(MODELS / f"{model}.onnx"))
    digits = sample_digits()
    # The digits that come with the package, and nine more times with some pixels inverted.
    rng = np.random.default_rng(0)
    noise = rng.random((10, *digits.x.shape)) < np.linspace(0, 0.2, 10)[:, None, None, None, None]
    x = np.where(noise, 255 - digits.x, digits.x).reshape(-1, *digits.x.shape[1:])
    planned = plan(lowered, load_board(board), target_fps=fps)
    result = verify(
        assemble(lowered, planned.folding),
        lowered,
        quantize(lowered, x),
        np.tile(digits.y, 10),
        engine="cxxrtl",
        stall=stall,
    )
    assert result.frames == 10_000
    assert result.mismatches == 0
    assert stall or result.timing_as_predicted
