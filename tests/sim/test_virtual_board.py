"""The whole top level behind a serial line, driven by the real host program's driver."""

import dataclasses
import threading
import time
from functools import cache

import numpy as np
import pytest
from foldings import random_folding
from random_networks import random_network

from xnorflow import boards
from xnorflow.assemble import assemble
from xnorflow.boards.pll import solve
from xnorflow.builder import board_top
from xnorflow.errors import UserError
from xnorflow.golden import predict_quantized
from xnorflow.host import Device
from xnorflow.host.packets import PacketReader
from xnorflow.hw.link.protocol import Fault, Reply
from xnorflow.lowering import lower
from xnorflow.sim.emulator import Emulator
from xnorflow.sim.line import Line, LineFaults
from xnorflow.sim.virtual_board import VirtualBoard, circuit_of_top

LOWERED = lower(random_network(np.random.default_rng(29), [12, 24, 4]))
FOLDING = random_folding(np.random.default_rng(11), LOWERED)
ICEBREAKER = boards.load("icebreaker")


@cache
def fast_board():
    """The shortest bits that a link can have: a byte takes 40 cycles."""
    return dataclasses.replace(
        ICEBREAKER, link=dataclasses.replace(ICEBREAKER.link, baud=3_000_000)
    )


def virtual_board(board=None, **options) -> VirtualBoard:
    board = board or fast_board()
    core = assemble(LOWERED, FOLDING)
    return VirtualBoard(
        circuit_of_top(board_top(core, LOWERED, board, solve(board, 12))), **options
    )


def frames_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 12)) < 0.5


def device_at(board: VirtualBoard) -> Device:
    return Device(board, board.baud, timeout=0.05, clock=board.clock)


def check_run(run, bits) -> None:
    expected = predict_quantized(LOWERED, bits)
    assert np.array_equal(run.scores, expected.scores)
    assert np.array_equal(run.classes, expected.classes)


class TestVirtualBoard:
    # What two clocks may differ by is half a bit in the ten of a byte.
    @pytest.mark.parametrize("host_baud", [2_940_000, 3_000_000, 3_060_000])
    def test_gives_what_the_golden_model_gives(self, host_baud):
        board = virtual_board(baud=host_baud)
        device = device_at(board)
        device.check(LOWERED.digest())
        bits = frames_of(40)
        run = device.run(bits)
        check_run(run, bits)
        assert not run.trouble
        assert board.bad_stop_bits == 0

    def test_keeps_the_line_as_busy_as_the_report_promises(self):
        board = virtual_board()
        bits = frames_of(100)
        run = device_at(board).run(bits)
        check_run(run, bits)
        core = assemble(LOWERED, FOLDING)
        parameters = board_top(core, LOWERED, fast_board(), solve(fast_board(), 12)).link.parameters
        limit = parameters.frames_per_second()
        assert 0.85 * limit < len(bits) / run.seconds <= 1.01 * limit

    def test_sleeps_when_nothing_is_left_to_do(self):
        board = virtual_board()
        assert not board.asleep
        board.work(10 * board.patience)
        assert board.asleep
        before = board.cycles
        board.work(1000)
        assert board.cycles == before
        device_at(board).run(frames_of(3))
        assert not board.asleep

    def test_lamp_blinks(self):
        board = virtual_board()
        before = board.lamp_changes
        board.advance(1.0)  # half a period takes 0.7 s
        assert 1 <= board.lamp_changes - before <= 2

    @pytest.mark.parametrize("seed", range(3))
    def test_gives_right_results_over_a_bad_line(self, seed):
        faults = LineFaults(damage=0.02, flood=0.0005)
        lines = Line(faults, f"to {seed}"), Line(faults, f"from {seed}")
        board = virtual_board(to_board=lines[0], from_board=lines[1])
        bits = frames_of(150, seed)
        run = device_at(board).run(bits)
        check_run(run, bits)
        assert run.trouble
        assert lines[0].dropped
        assert lines[0].flipped
        assert lines[0].inserted

    def test_no_garbage_makes_it_give_a_result(self):
        self.garbage(30_000)

    @pytest.mark.slow
    def test_no_million_bytes_of_garbage_make_it_give_a_result(self):
        self.garbage(1_000_000)

    def garbage(self, count: int) -> None:
        board = virtual_board()
        device = device_at(board)
        device.check(LOWERED.digest())
        rng = np.random.default_rng(17)
        reader, packets = PacketReader(), []
        left = count
        while left:
            # Many zeros, so that there are many packets, of types that the device knows.
            burst = rng.choice([0, 1, 2, 3, 4, 7, rng.integers(256)], rng.integers(1, 600))
            plain = rng.integers(0, 256, rng.integers(1, 600))
            data = np.concatenate([burst, plain]).astype(np.uint8).tobytes()[:left]
            left -= len(data)
            board.write(data)
            while board.unsent:
                board.work(100_000)
                packets += reader.feed(board.read(board.in_waiting))
            if rng.random() < 5000 / count:
                bits = frames_of(3, left)
                check_run(device.run(bits), bits)
        board.work(10 * board.patience)
        packets += reader.feed(board.read(board.in_waiting))
        assert len(packets) > count / 500
        assert reader.damaged <= 1 + len(packets) // 100
        assert {packet.kind for packet in packets} == {Reply.STATUS}
        assert {packet.body[0] for packet in packets} <= {Fault.DAMAGED, Fault.TYPE}
        bits = frames_of(20)
        check_run(device.run(bits), bits)


class TestLine:
    data = bytes(range(256)) * 40

    def test_without_faults_passes_everything(self):
        line = Line()
        assert line(self.data) == self.data
        assert (line.passed, line.dropped, line.flipped, line.inserted) == (10240, 0, 0, 0)

    def test_counts_what_it_does(self):
        line = Line(LineFaults(damage=0.03, flood=0.001), 5)
        out = line(self.data)
        assert len(out) == len(self.data) - line.dropped + line.inserted + line.flooded
        for count in (line.dropped, line.flipped, line.inserted):
            assert 60 < count < 150
        assert line.flooded > 0

    def test_does_the_same_to_the_same(self):
        once, twice, other = (Line(LineFaults(damage=0.1), seed)(self.data) for seed in (1, 1, 2))
        assert once == twice != other

    def test_that_is_pulled_loses_the_rest(self):
        line = Line(LineFaults(unplug=0.001), 3)
        out = line(self.data)
        assert line.unplugged == 1
        assert self.data.startswith(out)
        assert len(out) < len(self.data)

    @pytest.mark.parametrize("name", ["damage", "flood", "unplug"])
    @pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
    def test_refuses_what_is_no_probability(self, name, value):
        with pytest.raises(UserError, match=f"`{name}=.*` must be at least 0 and below 1"):
            LineFaults(**{name: value})


def make(to_board: Line, from_board: Line) -> VirtualBoard:
    return virtual_board(to_board=to_board, from_board=from_board)


class Served:
    """An emulator that serves in a thread of its own."""

    def __init__(self, *arguments, **options):
        self.emulator = Emulator(make, *arguments, **options)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self.emulator.serve, args=(self._over.is_set,))

    def __enter__(self) -> Emulator:
        self._thread.start()
        return self.emulator

    def __exit__(self, *error) -> None:
        self._over.set()
        self._thread.join()
        self.emulator.close()


class TestEmulator:
    def test_is_a_serial_port_for_one_host_after_the_other(self):
        with Served() as emulator:
            for seed in range(2):
                with Device(emulator.port, 3_000_000) as device:
                    device.check(LOWERED.digest())
                    bits = frames_of(20, seed)
                    check_run(device.run(bits), bits)

    def test_goes_on_after_the_cable_was_pulled(self, tmp_path):
        link = tmp_path / "board"
        with Served(link, LineFaults(unplug=0.004), seed=2) as emulator:
            with Device(str(link), 3_000_000) as device:
                bits = frames_of(60)
                run = device.run(bits)
            check_run(run, bits)
            assert run.trouble.reconnected > 0
            assert emulator.to_board.unplugged + emulator.from_board.unplugged > 0
        assert not link.is_symlink()

    def test_costs_no_processor_while_nobody_asks(self):
        with Served() as emulator:
            deadline = time.monotonic() + 20
            while not emulator.board.asleep and time.monotonic() < deadline:
                time.sleep(0.01)
            before = emulator.board.cycles
            time.sleep(0.1)
            assert emulator.board.cycles == before

    def test_tells_what_happened(self):
        with Served(faults=LineFaults(damage=0.01)) as emulator:
            with Device(emulator.port, 3_000_000) as device:
                device.run(frames_of(30))
            told = emulator.as_json()
        assert told["to_board"]["passed"] > 30 * 12
        assert sum(told["to_board"][kind] for kind in ("dropped", "flipped", "inserted")) > 0
        assert told["bad_stop_bits"] == 0
        assert (told["clock_mhz"], told["baud"]) == (12.0, 3_000_000)

    def test_refuses_to_replace_a_file(self, tmp_path):
        (tmp_path / "taken").write_text("precious")
        with pytest.raises(UserError, match=r"`port=.*taken` exists and is no link"):
            Emulator(make, tmp_path / "taken")
        assert (tmp_path / "taken").read_text() == "precious"

    def test_refuses_a_place_that_cannot_be_written(self, tmp_path):
        with pytest.raises(UserError, match=r"`port=.*/none/board` cannot be made \(No such file"):
            Emulator(make, tmp_path / "none" / "board")

    def test_refuses_to_unplug_what_nobody_would_find_again(self):
        with pytest.raises(UserError, match=r"`unplug=0\.1` needs `port`"):
            Emulator(make, faults=LineFaults(unplug=0.1))
