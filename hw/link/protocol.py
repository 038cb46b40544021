"""The link's protocol in numbers: what the hardware and the host driver must both know.

Nothing here needs Amaranth. The packets byte by byte, with an example of each, are in
``docs/protocol.md``.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "CRC_BYTES",
    "HEADER_BYTES",
    "IDENTITY",
    "RESULT_TAIL",
    "STATUS",
    "VERSION",
    "Fault",
    "LinkParameters",
    "Reply",
    "Request",
    "crc32",
    "uart_divisor",
    "wire_bytes",
]

#: Protocol version in the identity packet; another one is not understood.
VERSION = 2

#: Type and sequence number in front of every packet.
HEADER_BYTES = 2

#: Check value behind every packet, low byte first.
CRC_BYTES = 4

#: Body of an identity packet: protocol version, credits, number of the next result, frames in the
#: device, digest prefix, bits of an input frame, classes, bits of a score, clock in Hz, bytes of a
#: segment.
IDENTITY = struct.Struct("<BBBB8sIHBIH")

#: Body of a status packet: why the packet was refused or 0, number of the segment that comes next,
#: number of the next result, frames in the device.
STATUS = struct.Struct("<BBBB")

#: Behind the scores of a result packet: the class.
RESULT_TAIL = struct.Struct("<H")

#: Bits of a byte on the wire: start, 8 data, stop.
BITS_PER_BYTE = 10

#: Least clock cycles in a bit: the start edge is found a cycle late at worst, a quarter of a bit.
LEAST_DIVISOR = 4

#: Largest deviation from the nominal rate. 8N1 allows about 5 % for both ends together.
RATE_TOLERANCE = 0.02

_USUAL_RATES = (
    *(9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 921_600),
    *(500_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000, 6_000_000, 12_000_000),
)


class Request(IntEnum):
    """Type of a packet from the host."""

    IDENTIFY = 0x01
    SEGMENT = 0x02
    POLL = 0x03


class Reply(IntEnum):
    """Type of a packet from the device."""

    IDENTITY = 0x81
    RESULT = 0x82
    STATUS = 0x83


class Fault(IntEnum):
    """Code of a status packet: why the device did not take a packet."""

    DAMAGED = 1
    TYPE = 2
    ORDER = 3
    LENGTH = 4
    OVERRUN = 5
    STRANGER = 6


def crc32(packet: bytes) -> int:
    """Return the CRC-32/ISO-HDLC of `packet`, as Ethernet and zlib have it.

    Polynomial 0x04C11DB7, start 0xFFFFFFFF, reflected, result inverted; 0xCBF43926 for the ASCII
    digits 1 to 9. It finds every error of up to 3 bits in packets of up to 11,450 bytes (Koopman,
    *32-Bit Cyclic Redundancy Codes for Internet Applications*, DSN 2002) and every burst of up to
    32; of other damage one in 2**32 passes.
    """
    return zlib.crc32(packet)


def wire_bytes(body: int) -> int:
    """Return the most bytes that a packet with a body of `body` bytes takes on the wire.

    Delimiters in front and behind, and one code byte for every 254 bytes begun.
    """
    packet = HEADER_BYTES + body + CRC_BYTES
    return 2 + packet + 1 + packet // 254


def uart_divisor(clock_hz: int, baud: int) -> int:
    """Return the clock cycles of a bit, ``round(clock_hz / baud)``.

    Raises
    ------
    ValueError
        If the rate is more than `RATE_TOLERANCE` off, or there are too few cycles in a bit.
    """
    if clock_hz < 1 or baud < 1:
        raise ValueError(
            f"clock and baud rate must be positive, not {clock_hz!r} Hz and {baud!r} baud"
        )
    divisor = _divisor(clock_hz, baud)
    if divisor is None:
        usual = [rate for rate in _USUAL_RATES if _divisor(clock_hz, rate) is not None]
        nearest = max(LEAST_DIVISOR, round(clock_hz / baud))
        rates = sorted({clock_hz // nearest, clock_hz // (nearest + 1), *usual} - {0, baud})
        raise ValueError(
            f"a clock of {clock_hz} Hz gives no rate within {RATE_TOLERANCE:.0%} of {baud} baud "
            f"with at least {LEAST_DIVISOR} cycles in a bit; legal rates are "
            f"{', '.join(map(str, rates))}"
        )
    return divisor


def _divisor(clock_hz: int, baud: int) -> int | None:
    divisor = round(clock_hz / baud)
    if divisor < LEAST_DIVISOR or abs(clock_hz / divisor - baud) > RATE_TOLERANCE * baud:
        return None
    return divisor


@dataclass(frozen=True)
class LinkParameters:
    """Everything that the link is built from, and how fast that makes it.

    Attributes
    ----------
    i_lanes, i_beats : int
        Bits in a beat to the core, and beats of a frame.
    o_lanes, o_beats : int
        Scores in a beat from the core, and beats of a frame.
    width : int
        Bits of a score, two's complement; 1 to 64.
    classes : int
        Scores of a frame, ``o_lanes * o_beats``; at most 65,535.
    clock_hz : int
        Clock of the link and the core.
    baud : int
        Nominal bit rate of the wire.
    digest : str
        The network's digest in hex; the first 16 digits travel in the identity packet.
    credits : int
        Frames that the host may have sent without an answer: a power of two, at most 128. The
        device keeps so many frames, each in a power of two bytes; 4 of up to 1,024 bits fill one
        block RAM of 4 Kibit.
    segment_bytes : int
        Bytes of a frame in one packet, at most: a power of two up to 1,024. A longer packet takes
        less of the wire, a shorter one more often comes whole over a bad one.

    Raises
    ------
    ValueError
        If a value is out of range; the message says which and what would be legal.
    """

    i_lanes: int
    i_beats: int
    o_lanes: int
    o_beats: int
    width: int
    classes: int
    clock_hz: int
    baud: int
    digest: str
    credits: int = 4
    segment_bytes: int = 128

    def __post_init__(self) -> None:
        for name in ("i_lanes", "i_beats", "o_lanes", "o_beats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        if self.classes != self.o_lanes * self.o_beats or self.classes >= 1 << 16:
            raise ValueError(
                f"classes must be o_lanes * o_beats = {self.o_lanes * self.o_beats} and at most "
                f"65535, not {self.classes!r}"
            )
        if not 1 <= self.width <= 64:
            raise ValueError(f"width must be 1 to 64 bits, not {self.width!r}")
        if self.i_bits >= 1 << 32 or self.clock_hz >= 1 << 32:
            raise ValueError("bits of a frame and clock_hz must be below 2**32")
        if self.credits not in (1, 2, 4, 8, 16, 32, 64, 128):
            raise ValueError(f"credits must be a power of two from 1 to 128, not {self.credits!r}")
        if self.segment_bytes not in [1 << bits for bits in range(11)]:
            raise ValueError(
                f"segment_bytes must be a power of two up to 1024, not {self.segment_bytes!r}"
            )
        if len(self.digest) < 16 or not set(self.digest) <= set("0123456789abcdef"):
            raise ValueError(
                f"digest must be at least 16 lower-case hex digits, not {self.digest!r}"
            )
        uart_divisor(self.clock_hz, self.baud)

    @property
    def i_bits(self) -> int:
        """Bits of an input frame."""
        return self.i_lanes * self.i_beats

    @property
    def i_bytes(self) -> int:
        """Bytes of an input frame, packed."""
        return -(-self.i_bits // 8)

    @property
    def segments(self) -> int:
        """Packets of an input frame."""
        return -(-self.i_bytes // self.segment_bytes)

    @property
    def last_segment_bytes(self) -> int:
        """Bytes of a frame in its last packet."""
        return self.i_bytes - (self.segments - 1) * self.segment_bytes

    @property
    def score_bytes(self) -> int:
        """Bytes of a score, sign-extended."""
        return -(-self.width // 8)

    @property
    def result_bytes(self) -> int:
        """Bytes of a result packet's body."""
        return self.classes * self.score_bytes + RESULT_TAIL.size

    @property
    def frame_wire_bytes(self) -> int:
        """Bytes on the wire from the host for one frame, at most."""
        whole = (self.segments - 1) * wire_bytes(self.segment_bytes)
        return whole + wire_bytes(self.last_segment_bytes)

    @property
    def result_wire_bytes(self) -> int:
        """Bytes on the wire from the device for one frame, at most."""
        return wire_bytes(self.result_bytes)

    @property
    def delivery_cycles(self) -> int:
        """Clock cycles from a frame's slot to the core: one a bit and one more a beat."""
        return self.i_bits + self.i_beats

    @property
    def divisor(self) -> int:
        """Clock cycles of a bit."""
        return uart_divisor(self.clock_hz, self.baud)

    @property
    def identity(self) -> bytes:
        """The body of the identity packet of a device that has had no frame yet."""
        return IDENTITY.pack(
            VERSION,
            self.credits,
            0,
            0,
            bytes.fromhex(self.digest[:16]),
            self.i_bits,
            self.classes,
            self.width,
            self.clock_hz,
            self.segment_bytes,
        )

    def frames_per_second(self, turnaround: float = 0.0) -> float:
        """Return the frames a second that the link can carry, whatever the core could do.

        The busier of the two wires sets one limit. The credits set the other: within the time from
        a frame's first bit to its answer at the host, no more than `credits` frames are sent.

        Parameters
        ----------
        turnaround : float
            Seconds that the host and its USB converter need to answer a result with a new frame.
        """
        byte = BITS_PER_BYTE * max(1 / self.baud, self.divisor / self.clock_hz)
        wire = byte * max(self.frame_wire_bytes, self.result_wire_bytes)
        delivery = self.delivery_cycles / self.clock_hz
        way = byte * (self.frame_wire_bytes + self.result_wire_bytes) + delivery + turnaround
        return min(1 / wire, self.credits / way)
