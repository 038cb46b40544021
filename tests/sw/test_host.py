"""The host's codec, and the host's driver against the hardware in simulation."""

import dataclasses
import os
import random
import re
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from foldings import random_folding
from hypothesis import example, given, settings
from hypothesis import strategies as st
from link_bench import (
    DIGEST,
    DummyCore,
    LinkedCore,
    SerialBench,
    dummy_scores,
    frame_packets,
    tiny_parameters,
)
from random_networks import random_network

import xnorflow.host
from xnorflow.assemble import assemble
from xnorflow.errors import UserError, WorkFailed
from xnorflow.golden import predict_quantized
from xnorflow.host import Device, Identity, Status, Trouble
from xnorflow.host.packets import (
    PacketReader,
    cobs_decode,
    cobs_encode,
    encode_packet,
    pack_frame,
    reverse_cobs_decode,
    reverse_cobs_encode,
    unpack_result,
)
from xnorflow.host.transfer import AHEAD, Transfer
from xnorflow.hw.link.host_link import UARTHostLink
from xnorflow.hw.link.protocol import (
    CRC_BYTES,
    IDENTITY,
    STATUS,
    Fault,
    LinkParameters,
    Reply,
    Request,
    crc32,
    wire_bytes,
)
from xnorflow.lowering import lower

TINY = tiny_parameters()
CLOCK, BAUD = TINY.clock_hz, TINY.baud
PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"

long_packets = st.binary(max_size=600) | st.integers(240, 520).map(lambda n: b"\x01" * n)


def from_device(kind, sequence, body):
    """Return a packet from the device as it goes over the wire."""
    packet = bytes([kind, sequence]) + body
    return b"\0" + reverse_cobs_encode(packet + crc32(packet).to_bytes(CRC_BYTES, "little")) + b"\0"


def result_body(scores, width):
    size = -(-width // 8)
    raw = b"".join(int(score).to_bytes(size, "little", signed=True) for score in scores)
    return raw + int(np.argmax(scores)).to_bytes(2, "little")


class TestCodec:
    @given(packet=long_packets)
    @example(b"\x01" * 254)
    @example(b"\x01" * 254 + b"\0")
    @example(b"\x01" * 508 + b"\0" + b"\x01" * 254)
    def test_what_is_encoded_holds_no_zero_is_no_longer_than_declared_and_decodes(self, packet):
        for encode, decode in (
            (cobs_encode, cobs_decode),
            (reverse_cobs_encode, reverse_cobs_decode),
        ):
            coded = encode(packet)
            assert 0 not in coded
            assert decode(coded) == packet
            assert len(coded) + 2 <= wire_bytes(len(packet) - 6) or len(packet) < 6

    @given(coded=st.binary(max_size=300))
    def test_anything_that_decodes_at_all_decodes_to_what_gives_it(self, coded):
        for encode, decode in (
            (cobs_encode, cobs_decode),
            (reverse_cobs_encode, reverse_cobs_decode),
        ):
            packet = decode(coded)
            assert packet is None or decode(encode(packet)) == packet

    @given(
        scores=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=12),
        width=st.integers(2, 64),
    )
    def test_scores_of_every_width_come_back_with_their_sign(self, scores, width):
        half = 1 << (width - 1)
        scores = [min(max(score, -half), half - 1) for score in scores]
        chosen, found = unpack_result(result_body(scores, width), len(scores), width)
        assert found.dtype == np.int64
        assert found.tolist() == scores
        assert chosen == np.argmax(scores)

    def test_impossible_results_are_none(self):
        body = result_body([1, 2, 3], 8)
        assert unpack_result(body + b"\0", 3, 8) is None
        assert unpack_result(body[:3] + b"\x03\0", 3, 8) is None

    @given(bits=st.lists(st.booleans(), min_size=1, max_size=40))
    def test_feature_8j_plus_k_is_bit_k_of_byte_j(self, bits):
        body = pack_frame(np.array(bits))
        assert [bool(body[f // 8] >> f % 8 & 1) for f in range(len(bits))] == bits

    @given(
        bodies=st.lists(st.binary(max_size=20), min_size=1, max_size=5),
        cuts=st.lists(st.integers(0, 100), max_size=5),
    )
    def test_the_reader_finds_packets_wherever_the_stream_is_cut(self, bodies, cuts):
        wire = b"".join(from_device(Reply.RESULT, n, body) for n, body in enumerate(bodies))
        ends = sorted({min(cut, len(wire)) for cut in cuts} | {len(wire)})
        reader, packets, start = PacketReader(), [], 0
        for end in ends:
            packets += reader.feed(wire[start:end])
            start = end
        assert [(p.sequence, p.body) for p in packets] == list(enumerate(bodies))
        assert reader.damaged == 0

    @given(body=st.binary(max_size=12), place=st.integers(0, 99), flip=st.integers(1, 255))
    def test_the_reader_never_takes_a_packet_with_a_changed_byte(self, body, place, flip):
        first, wire = from_device(Reply.RESULT, 1, b"ab"), bytearray(from_device(7, 9, body))
        wire[place % len(wire)] ^= flip
        packets = PacketReader().feed(first + bytes(wire) + first)
        assert [(p.kind, p.sequence, p.body) for p in packets] == [(Reply.RESULT, 1, b"ab")] * 2


def virtual_board(parameters=TINY, stall=0.0, blocked=False, **wires):
    """Return the link in simulation with a dummy core, behind a serial port."""
    link = UARTHostLink(parameters)
    core = DummyCore(link, parameters, stall=stall, blocked=blocked)
    bench = SerialBench(link, parameters.clock_hz, parameters.baud, core.run, **wires)
    return bench, core


def device_at(bench, **options):
    options = {"timeout": 2e-3, **options}
    device = Device(bench, BAUD, clock=bench.clock, **options)
    device._question = 0  # else drawn at random
    return device


def frames_of(count, seed=0, bits=TINY.i_bits):
    return np.random.default_rng(seed).random((count, bits)) < 0.5


def check_run(run, bits, p=TINY):
    expected = np.array([dummy_scores(frame, p.classes, p.width) for frame in bits])
    assert np.array_equal(run.scores, expected)
    assert np.array_equal(run.classes, expected.argmax(axis=1))


@pytest.fixture
def terminal():
    """A serial port of the operating system; behind it a thread that answers identify."""
    pty = pytest.importorskip("pty", reason="needs POSIX terminals")
    ours, theirs = pty.openpty()

    def answer():
        received = bytearray()
        with suppress(OSError):
            while data := os.read(ours, 64):
                received += data
                while (end := received.find(0)) >= 0:
                    packet, received = cobs_decode(bytes(received[:end])), received[end + 1 :]
                    if packet:
                        os.write(ours, from_device(Reply.IDENTITY, packet[1], TINY.identity))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield os.ttyname(theirs)
    os.close(theirs)
    os.close(ours)


class Noise:
    """A wire that now and then flips bits, loses bytes or invents them."""

    def __init__(self, seed, rate):
        self.rng = np.random.default_rng(seed)
        self.rate = rate
        self.faults = 0

    def __call__(self, data):
        out = bytearray()
        for byte in data:
            kind = self.rng.integers(3) if self.rng.random() < self.rate else None
            self.faults += kind is not None
            if kind == 0:
                out.append(byte ^ 1 << self.rng.integers(8))
            elif kind == 2:
                out += bytes([byte, self.rng.integers(256)])
            elif kind is None:
                out.append(byte)
        return bytes(out)


class TestTransfer:
    """Which segments go when, against a device made of counters behind a line that loses."""

    identity = Identity(2, 4, 250, 0, DIGEST, 40, 4, 11, CLOCK, 2)  # 3 segments a frame

    @settings(max_examples=60)
    @given(
        seed=st.integers(0, 9999),
        base=st.integers(0, 255),
        segments=st.sampled_from([1, 3, 40]),
        frames=st.integers(1, 6),
        rate=st.sampled_from([0.0, 0.1, 0.4]),
    )
    def test_gives_every_result_to_its_frame_whatever_is_lost(
        self, seed, base, segments, frames, rate
    ):
        lost = random.Random(seed)
        identity = dataclasses.replace(self.identity, segment_bytes=2)
        bodies = [bytes([frame]) * (2 * segments) for frame in range(frames)]
        trouble = Trouble()
        transfer = Transfer(frames, lambda frame: bodies[frame], trouble)
        transfer.begin(identity, base)
        expected, oldest, place, partial = base, 250, 0, b""
        held: list[int] = []
        given_to: dict[int, int] = {}
        for _ in range(20_000):
            if transfer.finished:
                break
            refused = False
            while (packet := transfer.packet()) is not None:
                assert transfer._next - transfer._taken <= AHEAD
                if lost.random() < rate:
                    continue
                inside = cobs_decode(packet.strip(b"\0"))
                if inside[1] != expected:
                    refused = True
                    continue
                assert len(held) < identity.credits, "a frame too many"
                partial += inside[2:-CRC_BYTES]
                expected, place = (expected + 1) % 256, place + 1
                if place == segments:
                    assert partial in bodies, "segments of different frames"
                    held.append(partial[0])
                    place, partial = 0, b""
            for _ in range(lost.randint(0, len(held))):
                frame = held.pop(0)
                if lost.random() >= rate:
                    found = transfer.result(oldest)
                    assert found == frame
                    given_to[found] = frame
                oldest = (oldest + 1) % 256
            if refused or transfer.crowded or lost.random() < 0.3:
                assert transfer.status(Status(None, expected, oldest, len(held)))
        assert transfer.finished
        assert sorted(given_to) == list(range(frames))
        assert transfer.done == frames
        if rate == 0:
            assert not trouble
            assert transfer.resent == 0

    def test_sees_that_the_device_was_reset(self):
        transfer = Transfer(3, lambda frame: bytes(6), Trouble())
        transfer.begin(self.identity, 17)
        while transfer.packet() is not None:
            pass
        assert transfer.status(Status(None, 17 + 9, 250, 3))
        # Segments that were never sent; a count of frames that is not ours.
        assert not transfer.status(Status(None, 17 + 10, 250, 3))
        assert not transfer.status(Status(None, 17 + 9, 0, 0))

    def test_a_result_that_nobody_waits_for_is_no_ones(self):
        transfer = Transfer(1, lambda frame: bytes(6), Trouble())
        transfer.begin(self.identity, 0)
        assert transfer.result(250) is None  # not sent yet
        while transfer.packet() is not None:
            pass
        assert transfer.result(249) is None
        assert transfer.result(250) == 0


class TestDevice:
    def test_runs_frames_on_the_simulated_hardware(self):
        bench, core = virtual_board(stall=0.3)
        bits = frames_of(20)
        counts = []
        run = device_at(bench).run(bits, counts.append)
        check_run(run, bits)
        assert np.array_equal(core.frames, bits)
        assert counts == list(range(1, 21))
        assert run.resent == 0
        assert not run.trouble

    def test_keeps_the_wire_as_busy_as_the_parameters_promise(self):
        bench, _ = virtual_board()
        bits = frames_of(24)
        run = device_at(bench).run(bits)
        limit = TINY.frames_per_second()
        assert 0.9 * limit < len(bits) / run.seconds <= limit

    def test_numbers_wrap_around(self):
        bench, core = virtual_board(tiny_parameters(segment_bytes=1))
        device = device_at(bench)
        bits = frames_of(70)  # 140 segments
        check_run(device.run(bits), bits)
        bits = frames_of(70, seed=1)
        check_run(device.run(bits), bits)
        assert len(core.frames) == 140

    @settings(max_examples=3)
    @given(seed=st.integers(0, 999), segment_bytes=st.sampled_from([1, 128]))
    def test_gives_right_results_over_a_lossy_wire(self, seed, segment_bytes):
        there, back = Noise(seed, 0.02), Noise(seed + 1, 0.01)
        p = tiny_parameters(segment_bytes=segment_bytes)
        bench, core = virtual_board(p, stall=0.1, to_board=there, from_board=back)
        bits = frames_of(12, seed)
        run = device_at(bench, timeout=1e-2).run(bits)
        check_run(run, bits)
        assert there.faults
        assert run.trouble
        sent = {frame.tobytes() for frame in bits}
        assert all(frame.tobytes() in sent for frame in core.frames)

    def test_sends_again_what_was_lost_without_waiting_for_it(self):
        # Frame 2 of 10 never arrives; the device refuses the next one.
        count = 0

        def lose(data):
            nonlocal count
            count += 1
            return b"" if count == 5 else data

        bench, core = virtual_board(to_board=lose)
        device = device_at(bench, timeout=4e-2)  # an eighth of it is longer than the whole run
        bits = frames_of(10)
        run = device.run(bits)
        check_run(run, bits)
        assert run.trouble.again > 0
        assert run.trouble.refused[Fault.ORDER] > 0
        assert (run.resent, run.trouble.silences) == (0, 0)
        assert run.seconds < device.timeout / 8
        assert len(core.frames) == 10

    def test_asks_for_a_result_that_was_lost_alone(self):
        # The last result never arrives; nothing else is wrong.
        seen = bytearray()
        cut = False

        def lose(data):
            nonlocal cut
            seen.extend(data)
            if not cut and PacketReader().feed(bytes(seen))[-1:] and seen[-1] == 0:
                packets = PacketReader().feed(bytes(seen))
                if [p.kind for p in packets].count(Reply.RESULT) == 3:
                    cut = True
                    return b"\x01"
            return data

        bench, core = virtual_board(from_board=lose)
        bits = frames_of(3)
        run = device_at(bench).run(bits)
        check_run(run, bits)
        assert (run.trouble.lost, run.resent) == (1, 1)
        assert len(core.frames) == 4

    def test_waits_for_a_slow_core_without_sending_anything_twice(self):
        bench, core = virtual_board(stall=0.99)
        bits = frames_of(6)
        run = device_at(bench).run(bits)
        check_run(run, bits)
        assert len(core.frames) == 6
        assert not run.trouble

    def test_a_device_that_is_reset_midway_begins_anew(self):
        bench, _ = virtual_board()
        bits = frames_of(12)
        device = device_at(bench)

        def upset(done):
            # What a reset leaves, as far as the link can tell: another host's hello.
            if done == 5:
                bench.write(encode_packet(Request.IDENTIFY, device._question + 77 & 0xFF))

        run = device.run(bits, upset)
        check_run(run, bits)
        assert run.trouble.resets + run.trouble.again > 0

    def test_waits_for_frames_that_an_earlier_host_left_behind(self):
        bench, core = virtual_board(blocked=True)
        left = frames_of(3, seed=9)
        bench.write(encode_packet(Request.IDENTIFY, 0))
        for number, frame in enumerate(left):
            bench.write(b"".join(frame_packets(frame, number + 1, TINY)))
        bench.advance(8e-4)
        core.blocked = False  # the results come after the identity has been asked for
        bits = frames_of(4)
        check_run(device_at(bench).run(bits), bits)
        assert len(core.frames) == 7

    def test_identity_is_what_the_link_was_built_with(self):
        bench, _ = virtual_board()
        identity = device_at(bench).check(DIGEST + "0" * 48)
        assert (identity.credits, identity.i_bits, identity.classes) == (4, 15, 4)
        assert (identity.width, identity.clock_hz, identity.digest) == (11, CLOCK, DIGEST)

    def test_another_network_on_the_board_is_the_users_error(self):
        bench, _ = virtual_board()
        with pytest.raises(UserError, match=f"holds network {DIGEST}, but the model is f{{16}}"):
            device_at(bench).check("f" * 64)

    def test_frames_of_another_size_are_the_users_error(self):
        bench, _ = virtual_board()
        with pytest.raises(UserError, match=r"shape \(1, 14\), but the device takes 15 bits"):
            device_at(bench).run(frames_of(1, bits=14))

    def test_a_port_that_is_not_there_is_the_users_error(self):
        with pytest.raises(UserError, match=r"cannot open the serial port /dev/nowhere .* found"):
            Device("/dev/nowhere", 1_000_000)

    def test_opens_a_port_of_the_operating_system(self, terminal):
        with Device(terminal, 115_200) as device:
            assert device.check(DIGEST).i_bits == 15

    def test_a_dead_board_is_told_as_such(self):
        bench, _ = virtual_board(from_board=lambda data: b"")
        with pytest.raises(WorkFailed, match=r"no answer from .* in 0.002 s; check that"):
            device_at(bench).identity()

    def test_a_core_that_hangs_is_told_as_such(self):
        bench, _ = virtual_board(blocked=True)
        with pytest.raises(WorkFailed, match=r"holds frame 0 and has not answered it in 0.005 s"):
            device_at(bench, timeout=5e-4).run(frames_of(3))

    def test_a_core_that_hung_before_is_told_as_such(self):
        bench, _ = virtual_board(blocked=True)
        with pytest.raises(WorkFailed, match="holds frame 0"):
            device_at(bench, timeout=5e-4).run(frames_of(3))
        with pytest.raises(WorkFailed, match="holds 3 frames and answers none"):
            device_at(bench, timeout=5e-4).run(frames_of(3))

    def test_frames_that_never_arrive_are_told_as_such(self):
        # A segment of two bytes is longer than a question.
        bench, _ = virtual_board(to_board=lambda data: data if len(data) < 10 else b"")
        with pytest.raises(WorkFailed, match=r"frame 0 got no result and no further in 0.005 s"):
            device_at(bench, timeout=5e-4).run(frames_of(2))

    def test_a_frame_refused_again_and_again_is_told_with_the_reason(self):
        def cut(data):
            return data if len(data) < 10 else data[:-3] + b"\0"

        bench, _ = virtual_board(to_board=cut)
        with pytest.raises(WorkFailed, match=r"frame 0 got no result .*refused .* damaged"):
            device_at(bench, timeout=5e-4).run(frames_of(1))

    def test_another_version_of_the_protocol_is_told_as_such(self):
        class Other:
            in_waiting = 0

            def read(self, size=1):
                body = bytes([1]) + bytes(IDENTITY.size - 1)
                return b"".join(from_device(Reply.IDENTITY, n, body) for n in range(256))

            def write(self, data):
                return len(data)

        with pytest.raises(WorkFailed, match="another protocol than version 2"):
            Device(Other(), BAUD).identity()

    def test_a_port_that_vanishes_is_told_as_such(self):
        class Gone:
            in_waiting = 0

            def read(self, size=1):
                raise OSError("device disconnected")

            def write(self, data):
                return len(data)

        with pytest.raises(WorkFailed, match=r"stopped working \(device disconnected\)"):
            Device(Gone(), BAUD).identity()


@settings(max_examples=2)
@given(seed=st.integers(0, 999))
def test_a_real_core_behind_the_link_gives_what_the_golden_model_gives(seed):
    rng = np.random.default_rng(seed)
    lowered = lower(random_network(rng, [12, 6, 5]))
    core = assemble(lowered, random_folding(rng, lowered))
    bench = SerialBench(LinkedCore(core, lowered.digest()), CLOCK, BAUD)
    device = device_at(bench)
    device.check(lowered.digest())
    bits = frames_of(10, seed, 12)
    run = device.run(bits)
    expected = predict_quantized(lowered, bits)
    assert np.array_equal(run.scores, expected.scores)
    assert np.array_equal(run.classes, expected.classes)


def test_the_example_dumps_in_the_page_are_what_the_code_gives():
    dumps = [
        bytes.fromhex(dump)
        for dump in re.findall(r"^```hex\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    ]
    bits = np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1], bool)
    identity = LinkParameters(
        i_lanes=4,
        i_beats=3,
        o_lanes=1,
        o_beats=3,
        width=9,
        classes=3,
        clock_hz=12_000_000,
        baud=1_000_000,
        digest=DIGEST,
    ).identity
    assert dumps == [
        encode_packet(Request.IDENTIFY, 0x2A),
        encode_packet(Request.SEGMENT, 0x2B, pack_frame(bits)),
        encode_packet(Request.POLL, 0x55),
        from_device(Reply.IDENTITY, 0x2A, identity),
        from_device(Reply.RESULT, 0, result_body([-3, 200, 5], 9)),
        from_device(Reply.STATUS, 0x55, STATUS.pack(0, 0x2C, 1, 0)),
        from_device(Reply.STATUS, 0x2F, STATUS.pack(Fault.ORDER, 0x2C, 1, 0)),
    ]


def test_everything_public_is_there():
    assert all(hasattr(xnorflow.host, name) for name in xnorflow.host.__all__)
