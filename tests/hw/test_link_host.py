"""Frames reach the core whole or not at all, and every packet has its answer."""

from itertools import pairwise

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st
from link_bench import DIGEST, ByteBench, dummy_scores, frame_packets, tiny_parameters

from xnorflow.host.packets import Identity, Status, encode_packet, unpack_result
from xnorflow.hw.link.frame_slots import FrameSlots
from xnorflow.hw.link.protocol import (
    CRC_BYTES,
    HEADER_BYTES,
    IDENTITY,
    STATUS,
    VERSION,
    Fault,
    Reply,
    Request,
    crc32,
)

TINY = tiny_parameters()

parameters = st.builds(
    lambda i_lanes, i_beats, o_lanes, o_beats, width, credits, segment_bytes: tiny_parameters(
        i_lanes=i_lanes,
        i_beats=i_beats,
        o_lanes=o_lanes,
        o_beats=o_beats,
        width=width,
        classes=o_lanes * o_beats,
        credits=credits,
        segment_bytes=segment_bytes,
    ),
    i_lanes=st.integers(1, 20),
    i_beats=st.integers(1, 4),
    o_lanes=st.integers(1, 4),
    o_beats=st.integers(1, 4),
    width=st.integers(2, 33),
    credits=st.sampled_from([1, 2, 4]),
    segment_bytes=st.sampled_from([1, 2, 4, 128]),
)


def frames_of(count, p=TINY, seed=3):
    return np.random.default_rng(seed).random((count, p.i_bits)) < 0.5


def hello(first):
    """Identify, so that the next segment has the number `first`."""
    return encode_packet(Request.IDENTIFY, first - 1 & 0xFF)


def frame_packet(bits, sequence, p=TINY):
    return b"".join(frame_packets(bits, sequence, p))


def results_of(packets):
    return [packet for packet in packets if packet.kind == Reply.RESULT]


def check_results(packets, bits, numbers, p=TINY):
    """Check that `packets` are the results of these frames with these numbers."""
    assert [(packet.kind, packet.sequence) for packet in packets] == [
        (Reply.RESULT, number) for number in numbers
    ]
    for packet, frame in zip(packets, bits, strict=True):
        expected = dummy_scores(frame, p.classes, p.width)
        chosen, scores = unpack_result(packet.body, p.classes, p.width)
        assert scores.tolist() == expected.tolist()
        assert chosen == expected.argmax()


def statuses(packets):
    return [Status.unpack(p.body) for p in packets if p.kind == Reply.STATUS]


def errors(packets):
    return [(Fault(p.body[0]), p.sequence) for p in packets if p.kind == Reply.STATUS]


class TestFrames:
    @settings(max_examples=10)
    @given(p=parameters, stall=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 99))
    def test_go_to_the_core_and_their_results_come_back(self, p, stall, seed):
        bits = frames_of(5, p, seed)
        bench = ByteBench(p, seed, stall)

        async def source(ctx):
            await bench.put(ctx, hello(254))
            for number, frame in enumerate(bits):
                while number - len(results_of(bench.packets)) >= p.credits:
                    await ctx.tick()
                await bench.put(ctx, frame_packet(frame, 254 + number * p.segments, p))

        packets = bench.run(source)
        assert np.array_equal(bench.core.frames, bits)
        check_results(packets[1:], bits, range(5), p)
        assert bench.reader.damaged == 0

    def test_longer_than_a_piece_of_the_framing_pass_whole(self):
        p = tiny_parameters(
            i_lanes=64,
            i_beats=33,
            o_lanes=150,
            o_beats=1,
            classes=150,
            width=16,
            segment_bytes=512,
        )
        bits = frames_of(1, p) | True  # no zero byte: the longest pieces
        packets = ByteBench(p).send(hello(9) + frame_packet(bits[0], 9, p), rest=3000)
        check_results(packets[1:], bits, [0], p)

    @pytest.mark.parametrize("best", [255, 256, 299])
    def test_classes_beyond_a_byte_come_whole(self, best):
        p = tiny_parameters(i_lanes=8, i_beats=1, o_lanes=30, o_beats=10, classes=300, width=4)
        bench = ByteBench(p)

        async def core(ctx):
            ctx.set(bench.link.o.ready, 1)
            await ctx.tick().until(bench.link.o.valid)
            ctx.set(bench.link.i.valid, 1)
            for beat in range(p.o_beats):
                last = beat == p.o_beats - 1
                ctx.set(
                    bench.link.i.payload, {"scores": [0] * 30, "index": best * last, "last": last}
                )
                await ctx.tick().until(bench.link.i.ready)
            ctx.set(bench.link.i.valid, 0)

        bench.core.run = core
        (_, packet) = bench.send(hello(1) + frame_packet(frames_of(1, p)[0], 1), rest=1000)
        assert unpack_result(packet.body, p.classes, p.width)[0] == best

    def test_wait_while_the_core_takes_none(self):
        bits = frames_of(4)
        bench = ByteBench(TINY)
        bench.core.blocked = True

        async def source(ctx):
            await bench.put(ctx, hello(0))
            for number, frame in enumerate(bits):
                await bench.put(ctx, frame_packet(frame, number))
            await ctx.tick().repeat(500)
            assert not results_of(bench.packets)
            bench.core.blocked = False

        check_results(bench.run(source)[1:], bits, range(4))

    def test_are_numbered_from_one_host_to_the_next(self):
        bits = frames_of(4)
        first, second = bits[:3], bits[3:]
        wire = hello(7) + b"".join(frame_packet(frame, 7 + n) for n, frame in enumerate(first))
        bench = ByteBench(TINY)

        async def source(ctx):
            await bench.put(ctx, wire)
            while len(bench.packets) < 4:
                await ctx.tick()
            await bench.put(ctx, hello(200) + frame_packet(second[0], 200))

        packets = bench.run(source)
        assert Identity.unpack(packets[4].body).oldest == 3
        check_results(results_of(packets), bits, range(4))


class TestSegments:
    p = tiny_parameters(i_lanes=7, i_beats=5, segment_bytes=2)  # 5 bytes in 3 segments

    def exchange(self, make, first=0):
        """Send what `make` gives for two frames' packets; return the frames and what came."""
        bits = frames_of(2, self.p)
        packets = [
            packet
            for number, frame in enumerate(bits)
            for packet in frame_packets(frame, first + 3 * number, self.p)
        ]
        bench = ByteBench(self.p)
        answers = bench.send(hello(first) + b"".join(make(packets)))[1:]
        return bits, bench.core.frames, answers

    def test_again_and_out_of_order_are_refused_and_change_nothing(self):
        bits, seen, answers = self.exchange(
            lambda s: [s[0], s[0], s[2], s[1], s[5], s[2], s[3], s[0], s[4], s[3], s[5]]
        )
        assert np.array_equal(seen, bits)
        check_results(results_of(answers), bits, range(2), self.p)
        refused = [(fault, sequence) for fault, sequence in errors(answers)]
        # While one answer waits, others are dropped.
        assert refused
        assert {fault for fault, _ in refused} == {Fault.ORDER}

    def test_a_status_tells_what_is_known(self):
        poll = encode_packet(Request.POLL, 99)
        _, _, answers = self.exchange(lambda s: [*s[:4], b"\0" * 400, poll], first=100)
        (status,) = statuses(answers)
        assert (status.fault, status.expected) == (None, 104)
        assert status.oldest + status.held == 1
        (packet,) = (packet for packet in answers if packet.kind == Reply.STATUS)
        assert packet.sequence == 99

    def test_to_identify_drops_a_frame_that_was_begun(self):
        bits, seen, answers = self.exchange(
            lambda s: [*s[:2], hello(3), *s[3:]]  # the first frame's third segment never comes
        )
        assert np.array_equal(seen, bits[1:])
        check_results(results_of(answers), bits[1:], [0], self.p)

    def test_are_refused_before_the_host_has_said_hello(self):
        bits = frames_of(1, self.p)
        wire = b"".join(frame_packets(bits[0], 0, self.p)[:1]) + b"\0" * 99
        poll = encode_packet(Request.POLL, 5)
        answers = ByteBench(self.p).send(wire + poll)
        assert [status.fault for status in statuses(answers)] == [Fault.STRANGER] * 2
        assert [packet.sequence for packet in answers] == [0, 5]

    def test_of_another_length_are_refused_by_their_place(self):
        # The first two have two bytes, the last one has one.
        def wrong(s):
            short = encode_packet(Request.SEGMENT, 0, b"\1")
            long = encode_packet(Request.SEGMENT, 2, b"\1\2")
            rest = b"\0" * 400  # until the answer is on its way
            return [rest, short, rest, *s[:2], long, rest, *s[2:]]

        bits, seen, answers = self.exchange(wrong)
        assert np.array_equal(seen, bits)
        assert errors(answers) == [(Fault.LENGTH, 0), (Fault.LENGTH, 2)]


class TestCredits:
    @settings(max_examples=4)
    @given(seed=st.integers(0, 999), credits=st.sampled_from([1, 2, 4]))
    def test_a_host_that_keeps_to_them_never_overruns_the_device(self, seed, credits):
        p = tiny_parameters(credits=credits)
        bits = frames_of(12, p, seed)
        bench = ByteBench(p, seed)
        bench.core.stall = 0.9

        async def source(ctx):
            await bench.put(ctx, hello(0))
            for number, frame in enumerate(bits):
                while number - len(results_of(bench.packets)) >= credits:
                    await ctx.tick()
                await bench.put(ctx, frame_packet(frame, number))

        check_results(bench.run(source, rest=1000)[1:], bits, range(12), p)

    @pytest.mark.parametrize("credits", [1, 2, 8])
    def test_frames_beyond_them_are_answered_overrun_and_never_reach_the_core(self, credits):
        p = tiny_parameters(credits=credits)
        bits = frames_of(credits + 3, p)
        bench = ByteBench(p)
        bench.core.blocked = True

        async def source(ctx):
            await bench.put(ctx, hello(0))
            for number, frame in enumerate(bits):
                await bench.put(ctx, frame_packet(frame, min(number, credits)))
                await ctx.tick().repeat(200)
            bench.core.blocked = False

        packets = bench.run(source)[1:]
        assert errors(packets) == [(Fault.OVERRUN, credits)] * 3
        check_results(packets[3:], bits[:credits], range(credits), p)
        assert np.array_equal(bench.core.frames, bits[:credits])

    def test_a_frame_that_began_before_a_slot_was_free_is_refused_whole(self):
        p = tiny_parameters(credits=1)
        bits = frames_of(3, p)
        bench = ByteBench(p)
        bench.core.blocked = True

        async def source(ctx):
            await bench.put(ctx, hello(0) + frame_packet(bits[0], 0))
            late = frame_packet(bits[1], 1)
            await bench.put(ctx, late[:-6])
            bench.core.blocked = False
            while len(bench.packets) < 2:
                await ctx.tick()
            await bench.put(ctx, late[-6:])
            await bench.put(ctx, frame_packet(bits[2], 1))

        packets = bench.run(source)[1:]
        assert errors(packets) == [(Fault.OVERRUN, 1)]
        check_results([packets[0], packets[2]], bits[[0, 2]], [0, 1], p)


def exchange(*damages):
    """Send each damage between two good frames; return the errors that each one brings.

    Both good frames, and nothing else, must reach the core and be answered.
    """
    bits = frames_of(2 * len(damages), seed=8)
    bench = ByteBench(TINY)
    ends = []

    async def source(ctx):
        for number, damage in enumerate(damages):
            first, last = bits[2 * number : 2 * number + 2]
            await bench.put(ctx, hello(1))
            while bench.packets[-1:] == [] or bench.packets[-1].kind != Reply.IDENTITY:
                await ctx.tick()  # else the answer to the damage would be dropped
            await bench.put(ctx, frame_packet(first, 1) + damage + frame_packet(last, 2))
            for _ in range(600):
                await ctx.tick()
                if len(results_of(bench.packets)) == 2 * (number + 1):
                    break
            ends.append(len(bench.packets))

    packets = bench.run(source, rest=100)
    assert np.array_equal(bench.core.frames, bits)
    check_results(results_of(packets), bits, [number & 0xFF for number in range(len(bits))])
    assert len(packets) == ends[-1]
    return [errors(packets[start:end]) for start, end in pairwise([0, *ends])]


class TestDamage:
    """A good frame, a damaged one, a good one: the damage must not reach either good one."""

    victim = frame_packet(frames_of(1, seed=4)[0], 2)
    inside = range(2, len(victim) - 1)  # behind the first code byte

    def test_a_corrupted_byte_costs_its_frame_only(self):
        damages = []
        for place in range(1, len(self.victim) - 1):
            for flip in (0x01, 0x80):
                damaged = bytearray(self.victim)
                damaged[place] ^= flip
                damages.append(bytes(damaged))
        assert all(exchange(*damages))

    def test_a_lost_byte_costs_its_frame_only(self):
        places = range(1, len(self.victim) - 1)
        assert all(exchange(*(self.victim[:k] + self.victim[k + 1 :] for k in places)))

    def test_a_lost_delimiter_costs_nothing(self):
        # The last one of a frame, the first one of the next: the other still stands between them.
        bits = frames_of(3, seed=8)
        first, second, third = (frame_packet(frame, k) for k, frame in enumerate(bits))
        packets = ByteBench(TINY).send(hello(0) + first[:-1] + second + third[1:])
        check_results(packets[1:], bits, range(3))

    def test_a_byte_turned_into_a_delimiter_costs_its_frame_only(self):
        damages = (self.victim[:k] + b"\0" + self.victim[k + 1 :] for k in self.inside)
        assert all(exchange(*damages))

    def test_an_extra_byte_costs_its_frame_only(self):
        assert all(exchange(*(self.victim[:k] + b"\x09" + self.victim[k:] for k in self.inside)))

    def test_a_truncated_frame_does_not_harm_one_that_follows_at_once(self):
        assert all(exchange(*(self.victim[:k] for k in self.inside if k > 2)))

    @settings(max_examples=3)
    @given(garbage=st.lists(st.binary(max_size=60), min_size=10, max_size=20))
    def test_garbage_between_frames_harms_neither(self, garbage):
        exchange(*garbage)

    def test_extra_delimiters_say_nothing(self):
        assert exchange(b"\0\0\0", b"", b"\x07") == [[], [], []]

    def test_a_whole_packet_of_wrong_length_is_refused_with_its_number(self):
        # The long ones would bring an overflowing counter back to the right length.
        lengths = (0, 1, 3, 4, 5, 10, 18, 34, 66, 258)
        damages = [encode_packet(Request.SEGMENT, 2, bytes(length)) for length in lengths]
        assert exchange(*damages) == [[(Fault.LENGTH, 2)]] * len(damages)

    def test_a_last_piece_cut_short_is_damage_though_the_check_value_is_right(self):
        cut = bytearray(self.victim)
        place = 1
        while cut[place + cut[place]]:
            place += cut[place]
        cut[place] += 1
        assert exchange(bytes(cut)) == [[(Fault.DAMAGED, 2)]]

    @pytest.mark.parametrize("request_", [Request.IDENTIFY, Request.POLL])
    def test_a_question_with_a_body_is_refused(self, request_):
        assert exchange(encode_packet(request_, 6, b"\x01")) == [[(Fault.LENGTH, 6)]]

    def test_an_unknown_type_is_refused_with_its_number(self):
        damages = [encode_packet(kind, 9, bytes(TINY.i_bytes)) for kind in (0x00, 0x04, 0x81, 0xFF)]
        assert exchange(*damages) == [[(Fault.TYPE, 9)]] * len(damages)

    def test_a_header_alone_is_refused(self):
        headers = (b"\x02", b"\x02\x05", b"\x02\x05\x01")
        found = exchange(*(b"\0" + bytes([len(h) + 1]) + h + b"\0" for h in headers))
        assert found == [[(Fault.DAMAGED, 0)], [(Fault.DAMAGED, 5)], [(Fault.DAMAGED, 5)]]

    @settings(max_examples=4)
    @given(seed=st.integers(0, 999))
    def test_no_storm_of_errors_makes_the_device_send_a_damaged_packet(self, seed):
        rng = np.random.default_rng(seed)
        noise = rng.choice([0, 1, 2, 3, 200], 300).astype(np.uint8).tobytes()
        bench = ByteBench(TINY, seed)
        packets = bench.send(noise + b"\0" * 200 + hello(1) + frame_packet(frames_of(1)[0], 1))
        assert bench.reader.damaged == 0
        check_results(packets[-1:], frames_of(1), [0])


class TestIdentity:
    def test_says_what_the_device_is(self):
        p = tiny_parameters(credits=2, clock_hz=48_000_000, digest=DIGEST + "f" * 48)
        (packet,) = ByteBench(p).send(encode_packet(Request.IDENTIFY, 200))
        assert (packet.kind, packet.sequence) == (Reply.IDENTITY, 200)
        assert Identity.unpack(packet.body) == Identity(
            version=2,
            credits=2,
            oldest=0,
            held=0,
            digest=DIGEST,
            i_bits=15,
            classes=4,
            width=11,
            clock_hz=48_000_000,
            segment_bytes=128,
        )

    def test_counts_the_frames_that_wait_for_an_answer(self):
        bench = ByteBench(TINY)
        bench.core.blocked = True
        ask = encode_packet(Request.IDENTIFY, 1)
        bits = frames_of(3)

        async def source(ctx):
            await bench.put(ctx, hello(0))
            for number, frame in enumerate(bits):
                await bench.put(ctx, frame_packet(frame, number))
            await bench.put(ctx, ask)
            await ctx.tick().repeat(400)
            bench.core.blocked = False
            while len(bench.packets) < 5:
                await ctx.tick()
            await bench.put(ctx, ask)

        packets = bench.run(source)
        identities = [Identity.unpack(p.body) for p in packets if p.kind == Reply.IDENTITY]
        assert [(each.oldest, each.held) for each in identities] == [(0, 0), (0, 3), (3, 0)]
        check_results(packets[2:5], bits, range(3))

    def test_goes_before_results_that_wait(self):
        bench = ByteBench(TINY)
        bench.hold = True

        async def source(ctx):
            await bench.put(ctx, encode_packet(Request.IDENTIFY, 1))
            await bench.put(ctx, frame_packet(frames_of(1)[0], 2))
            await ctx.tick().repeat(100)
            bench.hold = False
            while len(bench.raw) < IDENTITY.size + 2:  # the check value is still to come
                await ctx.tick()
            bench.hold = True
            await bench.put(ctx, encode_packet(Request.IDENTIFY, 3))
            bench.hold = False

        assert [packet.kind for packet in bench.run(source)] == [
            *(Reply.IDENTITY, Reply.IDENTITY, Reply.RESULT),
        ]

    def test_an_answer_that_waits_is_not_changed_by_another(self):
        bench = ByteBench(TINY)
        bench.hold = True

        async def source(ctx):
            await bench.put(ctx, encode_packet(0x04, 9) + encode_packet(Request.POLL, 5))
            await ctx.tick().repeat(10)
            bench.hold = False

        assert errors(bench.run(source)) == [(Fault.TYPE, 9)]


class TestFrameSlots:
    @pytest.mark.parametrize(("i_lanes", "i_beats"), [(1, 1), (1, 8), (3, 5), (15, 1), (8, 4)])
    def test_give_frames_in_the_cycles_that_they_declare(self, i_lanes, i_beats):
        slots = FrameSlots(tiny_parameters(i_lanes=i_lanes, i_beats=i_beats))
        sim = Simulator(slots)
        sim.add_clock(1e-6)
        beats = []

        async def bench(ctx):
            ctx.set(slots.o.ready, 1)
            ctx.set(slots.commit, 1)
            for cycle in range(3 * slots.cycles_per_frame + 10):
                _, _, valid = await ctx.tick().sample(slots.o.valid)
                if valid:
                    beats.append(cycle)
                ctx.set(slots.commit, cycle < 2)

        sim.add_testbench(bench)
        sim.run()
        ends = beats[i_beats - 1 :: i_beats]
        assert ends == [slots.latency + frame * slots.cycles_per_frame for frame in range(3)]


class TestParameters:
    def test_mnist_frames_take_107_bytes_and_results_31(self):
        p = tiny_parameters(
            i_lanes=16, i_beats=49, o_lanes=1, o_beats=10, classes=10, width=16, clock_hz=12_000_000
        )
        assert (p.i_bytes, p.frame_wire_bytes, p.result_wire_bytes) == (98, 107, 31)
        assert p.divisor == 12
        assert p.frames_per_second() == pytest.approx(1e6 / 1070)

    @given(p=parameters)
    def test_no_packet_is_longer_than_declared(self, p):
        for fill in (0, 1):
            bits = np.full(p.i_bits, fill, bool)
            assert len(frame_packet(bits, 255, p)) <= p.frame_wire_bytes

    @pytest.mark.parametrize("credits", [1, 2, 4, 8, 16, 32, 64, 128])
    def test_credits_are_powers_of_two(self, credits):
        assert tiny_parameters(credits=credits).credits == credits

    def test_classes_have_two_bytes(self):
        most = (1 << 16) - 1
        assert tiny_parameters(o_lanes=1, o_beats=most, classes=most).classes == most
        with pytest.raises(ValueError, match="at most 65535, not 65536"):
            tiny_parameters(o_lanes=1, o_beats=most + 1, classes=most + 1)

    def test_a_slow_host_is_limited_by_its_credits(self):
        p = tiny_parameters(credits=2)
        slow = p.frames_per_second(turnaround=0.01)
        assert slow == pytest.approx(2 / 0.01, rel=0.05)
        assert slow < p.frames_per_second()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"i_lanes": 0}, "i_lanes must be at least 1, not 0"),
            ({"classes": 5}, "classes must be o_lanes . o_beats = 4"),
            ({"width": 65}, "width must be 1 to 64 bits, not 65"),
            ({"credits": 3}, "credits must be a power of two from 1 to 128, not 3"),
            ({"segment_bytes": 3}, "segment_bytes must be a power of two up to 1024, not 3"),
            ({"segment_bytes": 2048}, "segment_bytes must be a power of two up to 1024"),
            ({"digest": "0123"}, "digest must be at least 16 lower-case hex digits"),
            ({"clock_hz": 2**32}, "must be below 2..32"),
            ({"baud": 3_000_000}, "legal rates are"),
        ],
    )
    def test_what_is_out_of_range_is_refused_by_name(self, change, message):
        with pytest.raises(ValueError, match=message):
            tiny_parameters(**change)


def test_the_numbers_of_the_protocol_are_those_of_its_document():
    assert (Request.IDENTIFY, Request.SEGMENT, Request.POLL) == (0x01, 0x02, 0x03)
    assert (Reply.IDENTITY, Reply.RESULT, Reply.STATUS) == (0x81, 0x82, 0x83)
    assert (Fault.DAMAGED, Fault.TYPE, Fault.ORDER, Fault.LENGTH) == (1, 2, 3, 4)
    assert (Fault.OVERRUN, Fault.STRANGER) == (5, 6)
    assert (VERSION, HEADER_BYTES, CRC_BYTES, IDENTITY.size, STATUS.size) == (2, 2, 4, 25, 4)
    p = tiny_parameters(credits=2, clock_hz=48_000_000, baud=1_000_000)
    assert p.identity.hex() == "020200000123456789abcdef0f00000004000b006cdc028000"


def test_the_check_value_is_the_published_one():
    assert crc32(b"123456789") == 0xCBF43926
