"""Synthesised cores against the golden model, and the models of cells that yosys has none of."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from foldings import random_folding
from random_networks import random_cnn, random_frames, random_network

from xnorflow.assemble import assemble
from xnorflow.boards import fanout
from xnorflow.boards.board import load as load_board
from xnorflow.cli.main import main
from xnorflow.datasets import sample_digits
from xnorflow.errors import UserError, WorkFailed
from xnorflow.folding import LayerFolding
from xnorflow.frontend import load
from xnorflow.golden import quantize
from xnorflow.hw.fifo import StreamFIFO
from xnorflow.hw.pipeline import delay
from xnorflow.hw.rom import ROM, ROMStyle
from xnorflow.lowering import lower
from xnorflow.network import (
    Affine,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Join,
    Network,
    PixelGain,
    Quantize,
    Sign,
)
from xnorflow.planning import plan
from xnorflow.sim.cxxrtl.compile import load_library
from xnorflow.sim.cxxrtl_engine import drive
from xnorflow.sim.netlist_engine import netlist
from xnorflow.sim.verify import verify

MODELS = Path(__file__).parents[2] / "models"
BOARDS = ["ice40-hx8k", "ulx3s-25f"]


@pytest.fixture(scope="module")
def small():
    """A network, a folding of both layers in LUTs, and twelve frames."""
    rng = np.random.default_rng(0)
    network = random_network(rng, [6, 4, 3])
    lowered = lower(network)
    names = [layer.name for layer in lowered.layers]
    folding = {name: LayerFolding(1, 2, "lut", "registers", 1) for name in names}
    return lowered, folding, quantize(lowered, random_frames(rng, network, 12))


@pytest.mark.parametrize("board", BOARDS)
def test_a_small_netlist_is_bit_exact_and_keeps_its_timing(small, board):
    lowered, folding, frames = small
    core = assemble(lowered, folding, load_board(board).family)
    result = verify(core, lowered, frames, engine="netlist", board=load_board(board))
    assert result.engine == "netlist"
    assert result.mismatches == 0
    assert result.timing_as_predicted
    stalled = verify(core, lowered, frames, engine="netlist", board=load_board(board), stall=0.4)
    assert stalled.mismatches == 0
    assert not stalled.timing_as_predicted


def test_copies_of_cells_that_drive_many_pins_are_bit_exact(small, monkeypatch):
    lowered, folding, frames = small
    # A core of its own, since netlists are kept.
    folding = {name: replace(choice, simd=1) for name, choice in folding.items()}
    monkeypatch.setattr(fanout, "DRIVERS", {"LUT4": ("Z", 2, set()), "TRELLIS_FF": ("Q", 3, set())})
    board = load_board("ulx3s-25f")
    core = assemble(lowered, folding, board.family)
    assert "$copy" in netlist(core, board).files["netlist.json"]
    result = verify(core, lowered, frames, engine="netlist", board=board, stall=0.4)
    assert result.mismatches == 0


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("inputs", [29, 40])
def test_a_familys_own_cells_count_like_those_that_are_simulated(board, inputs):
    """Leaves of 5 to 7 lanes, adders with and without a lane of their own, and a late lane."""
    rng = np.random.default_rng(inputs)
    network = random_network(rng, [2 * inputs, 9, 8, 2])
    lowered = lower(network)
    names = [layer.name for layer in lowered.layers]
    choices = [
        LayerFolding(3, inputs, "lut"),
        LayerFolding(8, 9, "constant"),
        LayerFolding(1, 4, "lut"),
    ]
    folding = dict(zip(names, choices, strict=True))
    frames = quantize(lowered, random_frames(rng, network, 40))
    core = assemble(lowered, folding, load_board(board).family)
    result = verify(core, lowered, frames, engine="netlist", board=load_board(board))
    assert result.mismatches == 0
    assert result.timing_as_predicted


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
def test_levels_planes_and_a_shortcut_are_bit_exact_as_cells(board):
    rng = np.random.default_rng(4)
    planes = np.array([[1] * 6, [2] * 6])
    pairs = [rng.choice([-3, -1, 1, 3], (6, inputs)) for inputs in (8, 6)]
    three = [Quantize(name, Fraction(6), Fraction(0), -1, 2) for name in "ab"]
    network = Network(
        "family",
        (8,),
        (
            Quantize("in", Fraction(1), Fraction(0), 0, 3),
            Dense("first", pairs[0], coefficients=planes),
            three[0],
            Dense("second", pairs[1], coefficients=planes),
            Join("add", 2, (), "add"),
            three[1],
            Dense("last", rng.choice([-1, 1], (3, 6))),
        ),
    )
    lowered = lower(network)
    folding = {
        "first": LayerFolding(1, 2, "lut"),
        "second": LayerFolding(4, 3, "lut"),
        "last": LayerFolding(1, 6, "lut"),
    }
    frames = quantize(lowered, rng.integers(0, 4, (30, 8)).astype(np.uint8))
    core = assemble(lowered, folding, load_board(board).family)
    given = {"engine": "netlist", "board": load_board(board)}
    result = verify(core, lowered, frames, **given, stall=0.3, seed=4)
    assert result.mismatches == 0
    assert len(np.unique(result.classes)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
def test_gains_of_pixels_are_bit_exact_as_cells(board):
    """Multipliers and LUTs multiply alike."""
    rng = np.random.default_rng(4)
    norm = BatchNorm("norm", *rng.normal(0.5, 1, (3, 4)), rng.uniform(0.1, 9, 4), 1e-5)
    network = Network(
        "gains",
        (4, 4, 1),
        (
            Sign("in"),
            Conv2d("first", rng.choice([-1, 1], (4, 2, 2, 1))),
            norm,
            Sign("s"),
            Conv2d("second", rng.choice([-1, 1], (2, 2, 2, 4)), padding=(1, 0, 0, 1)),
            PixelGain("k", 3, (2, 2), padding=(1, 0, 0, 1)),
            Affine("bias", offset=(Fraction(1), Fraction(-2))),
            Sign("t"),
            Flatten("flat"),
            Dense("last", rng.choice([-1, 1], (3, 18))),
        ),
    )
    lowered = lower(network)
    folding = {
        "first": LayerFolding(2, 2, "lut"),
        "second": LayerFolding(1, 4, "lut"),
        "last": LayerFolding(1, 6, "lut"),
    }
    frames = quantize(lowered, rng.normal(size=(20, 4, 4, 1)).astype(np.float32))
    core = assemble(lowered, folding, load_board(board).family)
    given = {"engine": "netlist", "board": load_board(board)}
    result = verify(core, lowered, frames, **given, stall=0.3, seed=4)
    assert result.mismatches == 0
    assert len(np.unique(result.classes)) > 1


class TestRefusals:
    def test_a_board_is_needed(self, small):
        lowered, folding, frames = small
        with pytest.raises(UserError, match="give a `board`"):
            verify(assemble(lowered, folding), lowered, frames, engine="netlist")

    @pytest.mark.parametrize("asked", [{"watch_layers": True}, {"vcd": "core.vcd"}])
    def test_synthesis_hides_what_is_inside(self, small, asked, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        lowered, folding, frames = small
        board = load_board(BOARDS[0])
        with pytest.raises(UserError, match="leave them out"):
            verify(
                assemble(lowered, folding), lowered, frames, engine="netlist", board=board, **asked
            )

    def test_the_command_names_the_option(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", str(MODELS / "mnist_mini.onnx"), "--engine=netlist", "--frames=1"])
        assert ended.value.code == 2
        assert "give a --board" in capsys.readouterr().err


class _Lookup(wiring.Component):
    """What a memory holds at the addresses that come in; a core's streams with a memory between."""

    def __init__(self, words, width, latency=1):
        self._rom = ROM(words, width, ROMStyle.BRAM, latency)
        super().__init__(
            {"i": In(stream.Signature(range(len(words)))), "o": Out(stream.Signature(width))}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.rom = rom = self._rom
        m.d.comb += [
            self.i.ready.eq(~self.o.valid | self.o.ready),
            rom.en.eq(self.i.ready),
            rom.addr.eq(self.i.payload),
            self.o.payload.eq(rom.data),
            self.o.valid.eq(delay(m, self.i.valid, rom.latency, self.i.ready, "valid", reset=True)),
        ]
        return m


def beats(values, width):
    """Return integers as a stream's beats, in whole bytes."""
    size = -(-width // 8)
    raw = b"".join(int(value).to_bytes(size, "little") for value in values)
    return np.frombuffer(raw, np.uint8).reshape(-1, size)


#: Widths and words that yosys maps to ECP5 block RAM of each width that a port can have.
MEMORIES = [
    (36, 512),
    (18, 1024),
    (9, 2048),
    (4, 4096),
    (2, 8192),
    (1, 16384),
    (40, 700),
    (7, 1500),
]


class TestBlockRAMOfECP5:
    @pytest.mark.slow
    @pytest.mark.parametrize("latency", [1, 2])
    @pytest.mark.parametrize(("width", "words"), MEMORIES)
    def test_a_memory_reads_what_it_holds(self, width, words, latency):
        self.check(width, words, latency)

    def test_a_register_behind_it_is_its_own(self):
        made = self.check(30, 40, 2)
        cells = json.loads(made)["modules"]["top"]["cells"].values()
        assert [c["parameters"]["REGMODE_B"] for c in cells if c["type"] == "DP16KD"] == ["OUTREG"]
        # What is left: whether either stage holds something.
        assert sum(cell["type"] == "TRELLIS_FF" for cell in cells) == 2

    def check(self, width, words, latency):
        """Compare what is read with the content; return the netlist."""
        rng = np.random.default_rng(width)
        content = [int.from_bytes(rng.bytes(8), "little") % (1 << width) for _ in range(words)]
        asked = rng.integers(0, words, 3000)
        design = netlist(_Lookup(content, width, latency), load_board("ulx3s-25f"))
        library = load_library(design, "core.cc")
        run = drive(library, beats(asked, (words - 1).bit_length()), len(asked), 0.2, 1, 10_000)
        expected = beats([content[address] for address in asked], width)
        assert np.array_equal(run.output.reshape(expected.shape), expected)
        return design.files["netlist.json"]

    @pytest.mark.slow
    @pytest.mark.parametrize(("width", "words"), MEMORIES)
    def test_a_fifo_gives_what_it_took(self, width, words):
        rng = np.random.default_rng(width)
        sent = [int.from_bytes(rng.bytes(8), "little") % (1 << width) for _ in range(3 * words)]
        design = netlist(StreamFIFO(width, words), load_board("ulx3s-25f"))
        library = load_library(design, "core.cc")
        expected = beats(sent, width)
        run = drive(library, expected, len(sent), 0.3, 1, 10_000)
        assert np.array_equal(run.output.reshape(expected.shape), expected)

    def test_a_mode_that_has_no_model_is_refused(self, small):
        lowered, folding, _ = small
        design = netlist(assemble(lowered, folding), load_board("ulx3s-25f"))
        ram = 'DP16KD #(.WRITEMODE_A("WRITETHROUGH")) ram (.CLKA(clk));'
        source = f"module top(input clk); {ram} endmodule"
        design.files["mode.v"] = source
        models = "read_verilog mode.v\nread_verilog ecp5_cells.v\nhierarchy -check -top top"
        with pytest.raises(WorkFailed, match="dp16kd_mode_that_is_not_modelled"):
            load_library(type(design)(models, design.files), "core.cc")


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("seed", range(6))
def test_random_netlists_are_bit_exact_under_back_pressure(seed, board):
    rng = np.random.default_rng(seed)
    network = random_cnn(rng) if seed % 2 else random_network(rng, rng.integers(1, 20, 4).tolist())
    lowered = lower(network)
    core = assemble(lowered, random_folding(rng, lowered), load_board(board).family)
    frames = quantize(lowered, random_frames(rng, network, 20))
    result = verify(
        core, lowered, frames, engine="netlist", board=load_board(board), stall=0.2, seed=seed
    )
    assert result.mismatches == 0


@pytest.mark.slow
@pytest.mark.parametrize(("board", "fps"), [("icebreaker", 1800), ("ulx3s-25f", 2000)])
def test_a_hundred_digits_through_the_netlist(board, fps):
    lowered = lower(load(MODELS / "mnist_cnn.onnx"))
    digits = sample_digits()
    planned = plan(lowered, load_board(board), target_fps=fps)
    result = verify(
        assemble(lowered, planned.folding, load_board(board).family),
        lowered,
        quantize(lowered, digits.x[:100]),
        digits.y[:100],
        engine="netlist",
        board=load_board(board),
        stall=0.05,
    )
    assert result.frames == 100
    assert result.mismatches == 0
