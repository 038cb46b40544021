"""The host's end of the link: packets in Python, and a device that frames can be sent to.

The packets are described in ``docs/protocol.md``; the numbers shared with the hardware stand in
`xnorflow.hw.link.protocol`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import serial
from numpy.typing import NDArray
from serial.tools import list_ports

from xnorflow.errors import UserError, WorkFailed
from xnorflow.hw.link.protocol import (
    BITS_PER_BYTE,
    CRC_BYTES,
    HEADER_BYTES,
    IDENTITY,
    RESULT_TAIL,
    VERSION,
    Fault,
    Reply,
    Request,
    crc16,
    wire_bytes,
)

__all__ = [
    "Device",
    "DeviceRun",
    "Identity",
    "Packet",
    "PacketReader",
    "Transport",
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

_SEQUENCES = 256


class Transport(Protocol):
    """What is needed of a serial port; `serial.Serial` is one."""

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once."""

    def read(self, size: int = 1, /) -> bytes:
        """Return up to `size` bytes; fewer, even none, once the port's own time-out is over."""

    def write(self, data: bytes, /) -> int | None:
        """Send all of `data`."""


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
    packet += crc16(packet).to_bytes(CRC_BYTES, "big")
    return b"\0" + cobs_encode(packet) + b"\0"


def pack_frame(bits: NDArray[np.bool_]) -> bytes:
    """Return the body of a frame packet: bit k of byte j is feature 8j + k.

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
                whole = len(packet) >= HEADER_BYTES + CRC_BYTES
                if whole and crc16(packet[:-CRC_BYTES]).to_bytes(CRC_BYTES, "big") == packet[-2:]:
                    packets.append(Packet(packet[0], packet[1], packet[HEADER_BYTES:-CRC_BYTES]))
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
    """

    version: int
    credits: int
    held: int
    digest: str
    i_bits: int
    classes: int
    width: int
    clock_hz: int

    @classmethod
    def unpack(cls, body: bytes) -> Identity | None:
        """Read the body of an identity packet; None if it cannot be one."""
        if len(body) != IDENTITY.size:
            return None
        version, credits, held, digest, i_bits, classes, width, clock_hz = IDENTITY.unpack(body)
        return cls(version, credits, held, digest.hex(), i_bits, classes, width, clock_hz)


@dataclass(frozen=True, eq=False)
class DeviceRun:
    """What a device said about N frames, and how it went.

    Attributes
    ----------
    classes : ndarray of int64, shape (N,)
    scores : ndarray of int64, shape (N, classes)
    seconds : float
        From the first byte sent to the last answer.
    resent : int
        Frames sent again.
    """

    classes: NDArray[np.int64]
    scores: NDArray[np.int64]
    seconds: float
    resent: int


@dataclass
class _Transfer:
    """Frames on their way: which are still to be sent, which wait for an answer."""

    todo: list[int]  # frame numbers, the next one last
    sent: dict[int, int] = field(default_factory=dict)  # sequence number: frame, oldest first
    tries: dict[int, int] = field(default_factory=dict)  # frame: times sent
    reason: str = ""  # why a frame was last put back
    overrun: bool = False  # the device has no room until it gives a result
    resent: int = 0

    def again(self, sequence: int, reason: str) -> None:
        """Put a frame that was lost in front of all others."""
        self.todo.append(self.sent.pop(sequence))
        self.reason = reason
        self.resent += 1


class Device:
    """A board with a core behind the link.

    Every answer is waited for `timeout` seconds beyond the time that the bytes take on the wire;
    what is lost or refused is sent again, `attempts` times in all.

    Parameters
    ----------
    port : str or Transport
        Name of a serial port, or an open one.
    baud : int
        Bit rate of the wire.
    timeout : float
        Seconds.
    attempts : int
    clock : callable
        Gives the time in seconds; a simulated board has its own.

    Raises
    ------
    UserError
        If the port cannot be opened.

    Examples
    --------
    >>> with Device("/dev/ttyUSB1", 1_000_000) as device:  # doctest: +SKIP
    ...     run = device.run(lowered.input.quantize(x))
    """

    def __init__(
        self,
        port: str | Transport,
        baud: int,
        *,
        timeout: float = 0.5,
        attempts: int = 5,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.baud, self.timeout, self.attempts = baud, timeout, attempts
        self._name = port if isinstance(port, str) else "the transport"
        self._opened: serial.Serial | None = None
        self._transport: Transport
        if isinstance(port, str):
            self._transport = self._opened = _open(port, baud)
        else:
            self._transport = port
        self._clock = clock
        self._reader = PacketReader()
        self._arrived: list[Packet] = []
        # Not where an earlier host may have begun: its answers could still be on their way.
        self._sequence = random.randrange(_SEQUENCES)
        self._identity: Identity | None = None

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the port if this object opened it."""
        if self._opened is not None:
            self._opened.close()

    @property
    def damaged(self) -> int:
        """Packets from the device that arrived damaged."""
        return self._reader.damaged

    def identity(self) -> Identity:
        """Ask the device what it is.

        Raises
        ------
        WorkFailed
            If it does not answer, or speaks another version of the protocol.
        """
        for _ in range(self.attempts):
            sequence = self._next_sequence()
            self._write(encode_packet(Request.IDENTIFY, sequence))
            patience = self._patience(2 * wire_bytes(IDENTITY.size))
            while (packet := self._receive(patience)) is not None:
                if (packet.kind, packet.sequence) == (Reply.IDENTITY, sequence):
                    return self._understood(packet)
        raise WorkFailed(
            f"no answer from {self._name} at {self.baud} baud in {self.attempts} attempts; check "
            "that the board is programmed, the port is its UART and the rate is the bitstream's"
        )

    def check(self, digest: str) -> Identity:
        """Make sure that the device holds the network with this digest.

        Raises
        ------
        UserError
            If it holds another one.
        """
        identity = self.identity()
        if identity.digest != digest[: len(identity.digest)]:
            raise UserError(
                f"the board at {self._name} holds network {identity.digest}, but the model is "
                f"{digest[: len(identity.digest)]}; program the bitstream that was built from it"
            )
        return identity

    def run(
        self, bits: NDArray[np.bool_], progress: Callable[[int], None] | None = None
    ) -> DeviceRun:
        """Send frames and take their results.

        Parameters
        ----------
        bits : ndarray of bool, shape (N, F)
            True means +1.
        progress : callable, optional
            Told the number of finished frames as it grows.

        Raises
        ------
        UserError
            If a frame has another number of bits than the device takes.
        WorkFailed
            If the device does not answer, or keeps refusing a frame.
        """
        identity = self._idle()
        if bits.ndim != 2 or bits.shape[1] != identity.i_bits:
            raise UserError(
                f"the frames have shape {bits.shape}, but the device takes {identity.i_bits} bits "
                f"a frame; give an array of shape (N, {identity.i_bits})"
            )
        classes = np.zeros(len(bits), np.int64)
        scores = np.zeros((len(bits), identity.classes), np.int64)
        score_bytes = -(-identity.width // 8)
        patience = self._patience(
            wire_bytes(-(-identity.i_bits // 8)) * identity.credits
            + wire_bytes(identity.classes * score_bytes + RESULT_TAIL.size)
        )
        transfer = _Transfer(list(range(len(bits)))[::-1])
        done = 0
        started = self._clock()
        while transfer.todo or transfer.sent:
            if transfer.overrun and not transfer.sent:
                self._idle()
                transfer.overrun = False
            while transfer.todo and len(transfer.sent) < identity.credits and not transfer.overrun:
                self._send(transfer, bits)
            packet = self._receive(patience)
            if packet is None:
                for sequence in reversed(list(transfer.sent)):
                    transfer.again(sequence, "no answer")
                self._idle()
            elif packet.sequence not in transfer.sent:
                continue
            elif packet.kind == Reply.ERROR:
                transfer.again(packet.sequence, _reason(packet.body))
                transfer.overrun |= packet.body == bytes([Fault.OVERRUN])
            elif packet.kind == Reply.RESULT:
                result = unpack_result(packet.body, identity.classes, identity.width)
                if result is None:
                    raise WorkFailed(
                        f"{self._name}: a result of {len(packet.body)} bytes does not fit the "
                        "device's identity; program the board again"
                    )
                # Results come in the order of the frames: what was sent before this is lost.
                lost = list(transfer.sent)[: list(transfer.sent).index(packet.sequence)]
                for sequence in reversed(lost):
                    transfer.again(sequence, "passed over")
                transfer.overrun = False
                frame = transfer.sent.pop(packet.sequence)
                classes[frame], scores[frame] = result
                done += 1
                if progress is not None:
                    progress(done)
        return DeviceRun(classes, scores, self._clock() - started, transfer.resent)

    def _send(self, transfer: _Transfer, bits: NDArray[np.bool_]) -> None:
        frame = transfer.todo.pop()
        tries = transfer.tries[frame] = transfer.tries.get(frame, 0) + 1
        if tries > self.attempts:
            raise WorkFailed(
                f"{self._name}: frame {frame} got no result in {self.attempts} attempts "
                f"({transfer.reason}); check the cable and the baud rate, or use a slower one"
            )
        sequence = self._next_sequence()
        transfer.sent[sequence] = frame
        self._write(encode_packet(Request.FRAME, sequence, pack_frame(bits[frame])))

    def _idle(self) -> Identity:
        """Wait until the device holds no frame, from whomever it came."""
        for _ in range(self.attempts):
            identity = self.identity()
            if identity.held == 0:
                return identity
            self._receive(self._patience(0))
        raise WorkFailed(
            f"{self._name}: the device holds {identity.held} frames and answers none of them; "
            "reset the board"
        )

    def _understood(self, packet: Packet) -> Identity:
        identity = Identity.unpack(packet.body)
        if not packet.body or packet.body[0] != VERSION or identity is None:
            raise WorkFailed(
                f"the board at {self._name} speaks another protocol than version {VERSION}; build "
                "its bitstream again with this xnorflow"
            )
        return identity

    def _next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) % _SEQUENCES
        return self._sequence

    def _patience(self, wire: int) -> float:
        return self.timeout + wire * BITS_PER_BYTE / self.baud

    def _write(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except OSError as error:
            raise self._gone(error) from error

    def _receive(self, patience: float) -> Packet | None:
        """Return the next packet from the device, or None after `patience` seconds without one."""
        deadline = self._clock() + patience
        while not self._arrived:
            try:
                data = self._transport.read(max(1, self._transport.in_waiting))
            except OSError as error:
                raise self._gone(error) from error
            self._arrived = self._reader.feed(data)
            if not self._arrived and self._clock() >= deadline:
                return None
        return self._arrived.pop(0)

    def _gone(self, error: OSError) -> WorkFailed:
        return WorkFailed(f"{self._name} stopped working ({error}); is the board still connected?")


def _reason(body: bytes) -> str:
    """Name the fault that an error packet's body holds."""
    known = {int(fault): fault.name.lower() for fault in Fault}
    return known.get(body[0] if body else 0, "refused")


def _open(port: str, baud: int) -> serial.Serial:
    # serial.SerialException is an OSError.
    try:
        opened = serial.Serial(port, baud, timeout=0.05)
    except (OSError, ValueError) as error:
        known = ", ".join(sorted(found.device for found in list_ports.comports()))
        raise UserError(
            f"cannot open the serial port {port} at {baud} baud ({error}); "
            f"ports found: {known or 'none'}"
        ) from error
    opened.reset_input_buffer()
    # FTDI converters otherwise keep short answers back for 16 ms.
    with suppress(AttributeError, NotImplementedError, OSError, ValueError):
        opened.set_low_latency_mode(True)
    return opened
