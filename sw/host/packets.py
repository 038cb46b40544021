"""Packets in Python: what `hw/link` makes in hardware.

They are described in ``docs/protocol.md``; the numbers shared with the hardware stand in
`xnorflow.hw.link.protocol`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xnorflow.hw.link.protocol import (
    CRC_BYTES,
    HEADER_BYTES,
    IDENTITY,
    RESULT_TAIL,
    STATUS,
    Fault,
    crc32,
)

__all__ = [
    "Identity",
    "Packet",
    "PacketReader",
    "Status",
    "cobs_decode",
    "cobs_encode",
    "encode_packet",
    "pack_frame",
    "reverse_cobs_decode",
    "reverse_cobs_encode",
    "unpack_result",
]

_LONGEST = 254
"""Bytes without a zero in a COBS piece, at most."""


def cobs_encode(packet: bytes) -> bytes:
    """Return `packet` without zero bytes, each piece behind its code byte."""
    return b"".join(bytes([code]) + piece for code, piece in _pieces(packet))


def reverse_cobs_encode(packet: bytes) -> bytes:
    """Return `packet` without zero bytes, each piece in front of its code byte."""
    return b"".join(piece + bytes([code]) for code, piece in _pieces(packet))


def _pieces(packet: bytes) -> list[tuple[int, bytes]]:
    pieces = []
    for run in packet.split(b"\0"):
        for start in range(0, len(run) - _LONGEST + 1, _LONGEST):
            pieces.append((_LONGEST + 1, run[start : start + _LONGEST]))
        rest = run[len(run) // _LONGEST * _LONGEST :]
        pieces.append((len(rest) + 1, rest))
    return pieces


def cobs_decode(coded: bytes) -> bytes | None:
    """Undo `cobs_encode`; None if `coded` cannot come from it."""
    packet = bytearray()
    position = 0
    while position < len(coded):
        code = coded[position]
        piece = coded[position + 1 : position + code]
        if code == 0 or len(piece) != code - 1:
            return None
        packet += piece if code > _LONGEST else piece + b"\0"
        position += code
    return _without_last_zero(packet)


def reverse_cobs_decode(coded: bytes) -> bytes | None:
    """Undo `reverse_cobs_encode`; None if `coded` cannot come from it."""
    pieces = []
    end = len(coded)
    while end > 0:
        code = coded[end - 1]
        if code == 0 or code > end:
            return None
        piece = coded[end - code : end - 1]
        pieces.append(piece if code > _LONGEST else piece + b"\0")
        end -= code
    return _without_last_zero(b"".join(reversed(pieces)))


def _without_last_zero(packet: bytes | bytearray) -> bytes | None:
    # The last piece ends in the zero that is thought behind every packet.
    return bytes(packet[:-1]) if packet[-1:] == b"\0" else None


@dataclass(frozen=True)
class Packet:
    """A packet that arrived whole.

    Attributes
    ----------
    kind : int
        Its type, a `Request` or a `Reply`.
    sequence : int
        Its sequence number, 0 to 255.
    body : bytes
        What is between the header and the check value.
    """

    kind: int
    sequence: int
    body: bytes


def encode_packet(kind: int, sequence: int, body: bytes = b"") -> bytes:
    """Return a packet to the device as it goes over the wire, delimiters included."""
    packet = bytes([kind, sequence]) + body
    packet += crc32(packet).to_bytes(CRC_BYTES, "little")
    return b"\0" + cobs_encode(packet) + b"\0"


def pack_frame(bits: NDArray[np.bool_]) -> bytes:
    """Return a frame before it is cut into segments: bit k of byte j is feature 8j + k.

    Parameters
    ----------
    bits : ndarray of bool, shape (F,)
    """
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_result(body: bytes, classes: int, width: int) -> tuple[int, NDArray[np.int64]] | None:
    """Return class and scores of a result packet's body, or None if they are impossible.

    Parameters
    ----------
    body : bytes
    classes, width : int
        Scores of a frame, and bits of a score.

    Returns
    -------
    (int, ndarray of int64, shape (classes,)), or None
    """
    size = -(-width // 8)
    if len(body) != classes * size + RESULT_TAIL.size:
        return None
    raw = np.frombuffer(body, np.uint8, classes * size).reshape(classes, size)
    scores = np.zeros(classes, np.int64)
    for place in range(size):
        scores |= raw[:, place].astype(np.int64) << (8 * place)
    spare = 64 - 8 * size
    scores = (scores << spare) >> spare
    (chosen,) = RESULT_TAIL.unpack_from(body, classes * size)
    return (chosen, scores) if chosen < classes else None


@dataclass
class PacketReader:
    """Cut the device's bytes into packets.

    Attributes
    ----------
    damaged : int
        Pieces between delimiters that were no packet.
    """

    damaged: int = 0
    _rest: bytes = b""

    def feed(self, data: bytes) -> list[Packet]:
        """Take the next bytes of the stream and return the packets that they complete."""
        *pieces, self._rest = (self._rest + data).split(b"\0")
        packets = []
        for piece in pieces:
            if piece:
                packet = reverse_cobs_decode(piece) or b""
                body, check = packet[:-CRC_BYTES], packet[-CRC_BYTES:]
                whole = len(body) >= HEADER_BYTES
                if whole and crc32(body).to_bytes(CRC_BYTES, "little") == check:
                    packets.append(Packet(body[0], body[1], body[HEADER_BYTES:]))
                else:
                    self.damaged += 1
        return packets


@dataclass(frozen=True)
class Identity:
    """What a device says about itself.

    Attributes
    ----------
    version : int
        Protocol version.
    credits : int
        Frames that may be sent without an answer.
    oldest : int
        Number of the next result.
    held : int
        Frames that the device had taken and not answered when it sent this.
    digest : str
        The first 16 hex digits of the network's digest.
    i_bits : int
        Bits of an input frame.
    classes : int
        Scores of a frame.
    width : int
        Bits of a score, two's complement.
    clock_hz : int
        The device's clock.
    segment_bytes : int
        Bytes of a frame in one packet, at most.
    """

    version: int
    credits: int
    oldest: int
    held: int
    digest: str
    i_bits: int
    classes: int
    width: int
    clock_hz: int
    segment_bytes: int

    @classmethod
    def unpack(cls, body: bytes) -> Identity | None:
        """Read the body of an identity packet; None if it cannot be one."""
        if len(body) != IDENTITY.size:
            return None
        version, credits, oldest, held, digest, *others = IDENTITY.unpack(body)
        return cls(version, credits, oldest, held, digest.hex(), *others)


@dataclass(frozen=True)
class Status:
    """What a device says when it was asked, or refused a packet.

    Attributes
    ----------
    fault : Fault or None
        Why the packet was refused.
    expected : int
        Number of the segment that comes next.
    oldest : int
        Number of the next result.
    held : int
        Frames that the device had taken and not answered when it sent this.
    """

    fault: Fault | None
    expected: int
    oldest: int
    held: int

    @classmethod
    def unpack(cls, body: bytes) -> Status | None:
        """Read the body of a status packet; None if it cannot be one."""
        if len(body) != STATUS.size or body[0] not in (0, *Fault):
            return None
        code, expected, oldest, held = STATUS.unpack(body)
        return cls(Fault(code) if code else None, expected, oldest, held)
