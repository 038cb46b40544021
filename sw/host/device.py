"""A device that frames can be sent to, over a serial port."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import serial
from numpy.typing import NDArray
from serial.tools import list_ports

from xnorflow.errors import UserError, WorkFailed
from xnorflow.host.packets import (
    Identity,
    Packet,
    PacketReader,
    Status,
    encode_packet,
    pack_frame,
    unpack_result,
)
from xnorflow.host.transfer import NUMBERS, Transfer, Trouble
from xnorflow.hw.link.protocol import (
    BITS_PER_BYTE,
    IDENTITY,
    RESULT_TAIL,
    VERSION,
    Fault,
    Reply,
    Request,
    wire_bytes,
)

__all__ = ["Device", "DeviceRun", "Transport"]

STALL = 10
"""Times the time-out after which a device that answers, but gets no further, is given up."""


class Transport(Protocol):
    """What is needed of a serial port; `serial.Serial` is one."""

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once."""

    def read(self, size: int = 1, /) -> bytes:
        """Return up to `size` bytes; fewer, even none, once the port's own time-out is over."""

    def write(self, data: bytes, /) -> int | None:
        """Send all of `data`."""


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
    trouble : Trouble
        What went wrong on the line and was mended.
    """

    classes: NDArray[np.int64]
    scores: NDArray[np.int64]
    seconds: float
    resent: int
    trouble: Trouble


class _Vanished(Exception):
    """The port does not work any more."""


class _RoundTrip:
    """How long answers take, to know when one is lost (RFC 6298)."""

    def __init__(self, timeout: float):
        self.least, self.patience = timeout / 100, timeout / 8
        self._smooth: float | None = None
        self._spread = 0.0

    def took(self, seconds: float) -> None:
        """Take a time from a question to its answer; never of one that was asked twice."""
        if self._smooth is None:
            self._smooth, self._spread = seconds, seconds / 2
        else:
            self._spread += (abs(seconds - self._smooth) - self._spread) / 4
            self._smooth += (seconds - self._smooth) / 8
        self.patience = max(self.least, self._smooth + 4 * self._spread)


class Device:
    """A board with a core behind the link.

    What is lost or damaged on the line is sent again until it has come whole; a result is only ever
    given to the frame that it is of. `trouble` tells what was mended.

    Parameters
    ----------
    port : str or Transport
        Name of a serial port, or an open one. A port by its name that vanishes is opened again when
        it is back within `timeout`.
    baud : int
        Bit rate of the wire.
    timeout : float
        Seconds without a sound packet after which the device is given up.
    clock : callable
        Gives the time in seconds; a simulated board has its own.

    Attributes
    ----------
    trouble : Trouble
        Since the port was opened.

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
        timeout: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.baud, self.timeout = baud, timeout
        self._name = port if isinstance(port, str) else "the transport"
        self._opened: serial.Serial | None = None
        self._transport: Transport
        if isinstance(port, str):
            self._transport = self._opened = _open(port, baud)
        else:
            self._transport = port
        self._clock = clock
        self._round_trip = _RoundTrip(timeout)
        self._heard = self._line_free = clock()
        # Not where an earlier host may have begun: its answers could still be on their way.
        self._question = random.randrange(NUMBERS)
        self.trouble = Trouble()
        self._reader, self._damaged = PacketReader(), 0
        self._arrived: list[Packet] = []

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the port if this object opened it."""
        if self._opened is not None:
            self._opened.close()

    def identity(self) -> Identity:
        """Ask the device what it is; what was begun there is dropped.

        Raises
        ------
        WorkFailed
            If it does not answer, or speaks another version of the protocol.
        """
        self._heard = self._clock()
        while True:
            try:
                return self._identity()
            except _Vanished as error:
                self._reopen(error)

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
            If the device does not answer any more, or gets no further with a frame.
        """
        identity = self.identity()
        if bits.ndim != 2 or bits.shape[1] != identity.i_bits:
            raise UserError(
                f"the frames have shape {bits.shape}, but the device takes {identity.i_bits} bits "
                f"a frame; give an array of shape (N, {identity.i_bits})"
            )
        classes = np.zeros(len(bits), np.int64)
        scores = np.zeros((len(bits), identity.classes), np.int64)

        def take(frame: int, result: tuple[int, NDArray[np.int64]]) -> None:
            classes[frame], scores[frame] = result
            if progress is not None:
                progress(transfer.done)

        transfer = Transfer(len(bits), lambda frame: pack_frame(bits[frame]), self.trouble)
        work = _Work(transfer, take, identity)
        started = None
        while not transfer.finished:
            try:
                self._begin(work)
                started = self._clock() if started is None else started
                self._transfer(work)
            except _Vanished as error:
                self._reopen(error)
        seconds = self._clock() - (self._clock() if started is None else started)
        return DeviceRun(classes, scores, seconds, transfer.resent, self.trouble)

    def _begin(self, work: _Work) -> None:
        """Wait until the device holds no frame, from whomever it came, and start with it."""
        deadline = self._clock() + STALL * self.timeout
        while (identity := self._identity()).held:
            if self._clock() > deadline:
                raise WorkFailed(
                    f"{self._name}: the device holds {identity.held} frames and answers none of "
                    "them; reset the board"
                )
            self._receive(self._round_trip.patience)
        if (identity.digest, identity.i_bits) != (work.identity.digest, work.identity.i_bits):
            raise WorkFailed(
                f"the board at {self._name} was given another network while it was in use"
            )
        work.transfer.begin(identity, (self._question + 1) % NUMBERS)

    def _transfer(self, work: _Work) -> None:
        """Send what may be sent and take what comes, until all is done or the device is reset."""
        transfer, identity = work.transfer, work.identity
        score_bytes = identity.classes * -(-identity.width // 8)
        answer = self._wire(wire_bytes(score_bytes + RESULT_TAIL.size))
        state, moved, calm = (-1, -1), self._clock(), 1
        while not transfer.finished:
            while (packet := transfer.packet()) is not None:
                self._write(packet)
            received = None
            if not transfer.crowded:
                received = self._receive(calm * self._round_trip.patience + answer)
            if received is not None and received.kind == Reply.RESULT:
                self._result(work, received)
            elif received is None or self._refused(received):
                # The answer tells of everything that was sent before the question.
                reply = self._ask(Request.POLL, Reply.STATUS, work)
                status = Status.unpack(reply.body)
                if status is None or status.fault == Fault.STRANGER or not transfer.status(status):
                    self.trouble.resets += 1
                    return
            now = max(self._clock(), self._line_free)
            if state != (transfer.done, transfer.taken):
                state, moved, calm = (transfer.done, transfer.taken), now, 1
            elif received is None:
                # The core may be slow: ask less often.
                calm = min(2 * calm, 16)
            if now - moved > STALL * self.timeout:
                raise WorkFailed(self._stuck(transfer))

    def _result(self, work: _Work, packet: Packet) -> None:
        identity = work.identity
        result = unpack_result(packet.body, identity.classes, identity.width)
        if result is None:
            raise WorkFailed(
                f"{self._name}: a result of {len(packet.body)} bytes does not fit the device's "
                "identity; program the board again"
            )
        frame = work.transfer.result(packet.sequence)
        if frame is not None:
            work.take(frame, result)

    def _refused(self, packet: Packet) -> bool:
        """Note what the device did not take."""
        status = Status.unpack(packet.body) if packet.kind == Reply.STATUS else None
        if status is None or status.fault is None:
            return False
        self.trouble.refused[status.fault] += 1
        return True

    def _stuck(self, transfer: Transfer) -> str:
        seconds = f"{STALL * self.timeout:g} s"
        if not transfer.holds:
            return (
                f"{self._name}: frame {transfer.waiting} got no result and no further in {seconds} "
                f"({'; '.join(self.trouble.sentences())}); check the cable and the baud rate, or "
                "use a slower one"
            )
        return (
            f"{self._name}: the device holds frame {transfer.waiting} and has not answered it in "
            f"{seconds}; reset the board"
        )

    def _identity(self) -> Identity:
        packet = self._ask(Request.IDENTIFY, Reply.IDENTITY)
        identity = Identity.unpack(packet.body)
        if not packet.body or packet.body[0] != VERSION or identity is None:
            raise WorkFailed(
                f"the board at {self._name} speaks another protocol than version {VERSION}; build "
                "its bitstream again with this xnorflow"
            )
        return identity

    def _ask(self, request: Request, reply: Reply, work: _Work | None = None) -> Packet:
        """Ask until the answer to the very question comes; results that come first are taken."""
        patience = self._round_trip.patience
        answer = self._wire(wire_bytes(IDENTITY.size))
        first = True
        while True:
            self._question = (self._question + 1) % NUMBERS
            self._write(encode_packet(request, self._question))
            asked = max(self._clock(), self._line_free)
            while (packet := self._receive(patience + answer)) is not None:
                if (packet.kind, packet.sequence) == (reply, self._question):
                    if first:
                        self._round_trip.took(self._clock() - asked)
                    return packet
                if packet.kind == Reply.RESULT and work is not None:
                    self._result(work, packet)
                else:
                    self._refused(packet)
                if self._clock() - asked > patience + answer:
                    break
            first = False
            self.trouble.silences += 1
            patience = min(2 * patience, self.timeout / 4)
            if self._clock() - self._heard > self.timeout:
                raise WorkFailed(
                    f"no answer from {self._name} at {self.baud} baud in {self.timeout:g} s; check "
                    "that the board is programmed, the port is its UART and the rate is the "
                    "bitstream's"
                )

    def _wire(self, count: int) -> float:
        """Return the seconds that `count` bytes take on the wire."""
        return count * BITS_PER_BYTE / self.baud

    def _write(self, data: bytes) -> None:
        self._line_free = max(self._clock(), self._line_free) + self._wire(len(data))
        try:
            self._transport.write(data)
        except OSError as error:
            raise _Vanished(error) from error

    def _receive(self, patience: float) -> Packet | None:
        """Return the next packet, or None `patience` seconds after all bytes sent have left."""
        deadline = max(self._clock(), self._line_free) + patience
        while not self._arrived:
            try:
                data = self._transport.read(max(1, self._transport.in_waiting))
            except OSError as error:
                raise _Vanished(error) from error
            self._arrived = self._reader.feed(data)
            self.trouble.damaged = self._damaged + self._reader.damaged
            if not self._arrived and self._clock() >= deadline:
                return None
        self._heard = self._clock()
        return self._arrived.pop(0)

    def _reopen(self, error: _Vanished) -> None:
        """Wait for a port that vanished, such as an unplugged one, to come back."""
        reason = WorkFailed(
            f"{self._name} stopped working ({error}); is the board still connected?"
        )
        if self._opened is None:
            raise reason from error
        self._opened.close()
        deadline = self._clock() + self.timeout
        while True:
            with suppress(UserError):
                self._transport = self._opened = _open(self._name, self.baud)
                break
            if self._clock() > deadline:
                raise reason from error
            time.sleep(self.timeout / 30)
        self.trouble.reconnected += 1
        self._reader, self._damaged = PacketReader(), self.trouble.damaged
        self._arrived = []
        self._heard = self._clock()


@dataclass(frozen=True)
class _Work:
    """Frames on their way, and where their results go."""

    transfer: Transfer
    take: Callable[[int, tuple[int, NDArray[np.int64]]], None]
    identity: Identity


def _open(port: str, baud: int) -> serial.Serial:
    # serial.SerialException is an OSError.
    try:
        opened = serial.Serial(port, baud, timeout=0.01)
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
