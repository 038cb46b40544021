"""The framing hardware and the host's codec undo each other, byte for byte."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from stream_bench import run_stream

from xnorflow.host.packets import cobs_encode, reverse_cobs_decode, reverse_cobs_encode
from xnorflow.hw.link.cobs import CobsDecoder, ReverseCobsEncoder

stalls = st.sampled_from([0.0, 0.4])
packets = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=4)
WHOLE, CUT = "whole", "cut"


def decode(wire, seed=0, i_stall=0.0, o_stall=0.0):
    """Return the packets that the decoder gives, each with whether it was whole."""
    # What a byte becomes is known only after the run: ask for one beat too many and wait it out.
    beats = []
    decoder = CobsDecoder()
    count = len(wire) - sum(code_bytes_that_give_nothing(wire))
    beats, *_ = run_stream(decoder, list(wire), count, seed=seed, i_stall=i_stall, o_stall=o_stall)
    found, packet = [], bytearray()
    for beat in beats:
        data, end, whole = beat & 0xFF, beat >> 8 & 1, beat >> 9
        if end:
            found.append((bytes(packet), WHOLE if whole else CUT))
            packet.clear()
        else:
            packet.append(data)
    return found


def code_bytes_that_give_nothing(wire):
    """Mark the first code byte of every packet and those behind a piece of 254 bytes."""
    left, silent = 0, True
    for byte in wire:
        if byte == 0:
            left, silent = 0, True
            yield False
        elif left:
            left -= 1
            yield False
        else:
            yield silent
            left, silent = byte - 1, byte == 255


class TestCobsDecoder:
    @settings(max_examples=15)
    @given(packets=packets, i_stall=stalls, o_stall=stalls, seed=st.integers(0, 99))
    def test_gives_what_the_host_encoded(self, packets, i_stall, o_stall, seed):
        wire = b"".join(cobs_encode(packet) + b"\0" for packet in packets)
        assert decode(wire, seed, i_stall, o_stall) == [(packet, WHOLE) for packet in packets]

    def test_gives_packets_longer_than_a_piece(self):
        packets = []
        for length in (253, 254, 255, 508):
            packet = bytes(1 + k % 250 for k in range(length))
            packets += [packet, packet + b"\0", b"\0" + packet]
        wire = b"".join(cobs_encode(packet) + b"\0" for packet in packets)
        assert decode(wire) == [(packet, WHOLE) for packet in packets]

    @given(garbage=st.binary(max_size=12), packet=st.binary(max_size=6))
    @settings(max_examples=15)
    def test_starts_afresh_behind_every_delimiter(self, garbage, packet):
        wire = garbage + b"\0" + cobs_encode(packet) + b"\0"
        assert decode(wire)[-1] == (packet, WHOLE)

    def test_tells_a_packet_that_was_cut(self):
        wire = cobs_encode(b"abcdef")[:-1] + b"\0"
        assert decode(wire) == [(b"abcde", CUT)]


class TestReverseCobsEncoder:
    @settings(max_examples=15)
    @given(packets=packets, i_stall=stalls, o_stall=stalls, seed=st.integers(0, 99))
    @example([bytes(range(1, 255))], 0.0, 0.0, 0)
    @example([bytes(range(1, 255)) + b"\0\x07"], 0.0, 0.0, 0)
    @example([bytes(range(1, 255)) * 2 + b"\x01"], 0.0, 0.0, 0)
    def test_gives_what_the_host_decodes(self, packets, i_stall, o_stall, seed):
        last = 1 << 8
        sent = [beat for packet in packets for beat in [*packet[:-1], packet[-1] | last]]
        expected = b"".join(b"\0" + reverse_cobs_encode(packet) + b"\0" for packet in packets)
        got, *_ = run_stream(
            ReverseCobsEncoder(), sent, len(expected), seed=seed, i_stall=i_stall, o_stall=o_stall
        )
        assert bytes(got) == expected
        pieces = [piece for piece in bytes(got).split(b"\0") if piece]
        assert [reverse_cobs_decode(piece) for piece in pieces] == packets
