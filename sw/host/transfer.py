"""Frames on their way to a device, and what must be sent again.

The device takes the segments of the frames in the order of their numbers and no others, and answers
the frames in their order. The line loses what it likes but turns nothing round. So one status of
the device, asked for behind everything that was sent, tells all: the segments that it has not taken
were lost, and so were the results of the frames that it has taken and no longer holds. Nothing is
sent again before that is known, so the device never has a frame twice without need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xnorflow.host.packets import Identity, Status, encode_packet
from xnorflow.hw.link.protocol import Fault, Request

__all__ = ["Transfer", "Trouble"]

NUMBERS = 256
"""Numbers that a byte has, for segments and for results."""

AHEAD = 128
"""Segments sent and not known to be taken, at most: fewer than there are numbers."""


@dataclass
class Trouble:
    """What went wrong on the line.

    Attributes
    ----------
    refused : Counter of Fault
        Packets that the device says it refused, by its reason.
    damaged : int
        Packets from the device that arrived damaged.
    again : int
        Segments sent again.
    lost : int
        Results that never arrived, whose frames were sent again.
    silences : int
        Times that an answer was waited for in vain.
    resets : int
        Times that the device had forgotten us.
    reconnected : int
        Times that the port vanished and came back.
    """

    refused: Counter[Fault] = field(default_factory=Counter)
    damaged: int = 0
    again: int = 0
    lost: int = 0
    silences: int = 0
    resets: int = 0
    reconnected: int = 0

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def as_json(self) -> dict[str, Any]:
        """Return the counts by name, refused packets by their reason."""
        refused = {fault.name.lower(): count for fault, count in self.refused.items()}
        return {**vars(self), "refused": refused}

    def sentences(self) -> list[str]:
        """Return what happened, in words."""
        count = sum(self.refused.values())
        kinds = ", ".join(f"{n:,} {fault.name.lower()}" for fault, n in self.refused.most_common())
        told = [
            (count, f"the board refused {count:,} packets ({kinds})"),
            (self.damaged, f"{self.damaged:,} packets from the board came damaged"),
            (self.silences, f"{self.silences:,} times no answer came in time"),
            (self.again, f"{self.again:,} packets were sent again"),
            (self.lost, f"{self.lost:,} results were lost and their frames sent again"),
            (self.resets, f"the board was reset {self.resets:,} times"),
            (self.reconnected, f"the port vanished and came back {self.reconnected:,} times"),
        ]
        return [text for number, text in told if number]


@dataclass
class _Sent:
    """A frame that the device has, or is being sent.

    Attributes
    ----------
    frame : int
    number : int
        That its result will have.
    first, end : int
        Its segments, counted from the transfer's start.
    packets : list of bytes
    """

    frame: int
    number: int
    first: int
    end: int
    packets: list[bytes]


class Transfer:
    """N frames from the first segment to the last result.

    Parameters
    ----------
    frames : int
        N.
    pack : callable
        Gives frame n, packed.
    trouble : Trouble
        Is kept up to date.

    Attributes
    ----------
    done : int
        Frames whose results have come.
    resent : int
        Frames begun anew.
    """

    def __init__(self, frames: int, pack: Callable[[int], bytes], trouble: Trouble):
        self._pack, self.trouble = pack, trouble
        self._todo = list(range(frames))[::-1]  # the next one last
        self._sent: list[_Sent] = []  # oldest first
        self.done = self.resent = 0

    def begin(self, identity: Identity, base: int) -> None:
        """Start, or start anew, with a device that has just been asked what it is.

        Parameters
        ----------
        identity : Identity
            Its answer; it holds no frame.
        base : int
            The number that the first segment is to have.
        """
        self.identity, self._base = identity, base
        self._again([sent.frame for sent in self._sent])
        self._sent = []
        self._number = identity.oldest
        self._next = self._taken = self._furthest = 0  # segments to send, known to be taken

    @property
    def finished(self) -> bool:
        """Whether all results have come."""
        return not self._todo and not self._sent

    @property
    def taken(self) -> int:
        """Segments that the device is known to have taken since `begin`."""
        return self._taken

    @property
    def crowded(self) -> bool:
        """Whether no more may be sent before a status has come, although a frame is half sent."""
        return self._next - self._taken >= AHEAD

    @property
    def holds(self) -> bool:
        """Whether the device is known to have taken the first frame without a result."""
        return bool(self._sent) and self._sent[0].end <= self._taken

    @property
    def waiting(self) -> int:
        """The first frame without a result."""
        return self._sent[0].frame if self._sent else self._todo[-1]

    def packet(self) -> bytes | None:
        """Return the next packet to send; None if the device must answer first."""
        if self.crowded:
            return None
        if not self._sent or self._sent[-1].end == self._next:
            if not self._todo or len(self._sent) == self.identity.credits:
                return None
            self._sent.append(self._cut(self._todo.pop()))
        sent = next(sent for sent in self._sent if sent.end > self._next)
        packet = sent.packets[self._next - sent.first]
        self._next += 1
        if self._next <= self._furthest:
            self.trouble.again += 1
        self._furthest = max(self._furthest, self._next)
        return packet

    def result(self, number: int) -> int | None:
        """Take a result's number; return its frame, or None if none waits for it.

        Results come in order: what the device took before this frame has lost its result.
        """
        for place, sent in enumerate(self._sent):
            if sent.number == number and sent.end <= self._next:
                passed, self._sent = self._sent[:place], self._sent[place + 1 :]
                self._lose(passed)
                self._taken = max(self._taken, sent.end)
                self.done += 1
                return sent.frame
        return None

    def status(self, status: Status) -> bool:
        """Take the answer to a question that was asked behind all packets sent so far.

        Returns
        -------
        bool
            False if the device cannot be in this state: it was reset, and must be begun anew.
        """
        taken = self._taken + (status.expected - self._base - self._taken) % NUMBERS
        have = [sent for sent in self._sent if sent.end <= taken]
        # The device counts its frames, too: the next one that it takes has the number we gave it.
        following = next((sent.number for sent in self._sent if sent.end > taken), self._number)
        if taken > self._next or (status.oldest + status.held) % NUMBERS != following:
            return False
        self._taken = self._next = taken
        passed = max(0, len(have) - status.held)
        self._sent = self._sent[passed:]
        self._lose(have[:passed])
        return True

    def _lose(self, gone: list[_Sent]) -> None:
        """Begin frames anew whose results were lost."""
        self.trouble.lost += len(gone)
        self._again([sent.frame for sent in gone])

    def _again(self, frames: list[int]) -> None:
        self._todo += frames[::-1]
        self.resent += len(frames)

    def _cut(self, frame: int) -> _Sent:
        """Cut a frame into packets, numbered from the next segment on."""
        body, size = self._pack(frame), self.identity.segment_bytes
        first = self._sent[-1].end if self._sent else self._next
        packets = [
            encode_packet(
                Request.SEGMENT, (self._base + first + n) % NUMBERS, body[start : start + size]
            )
            for n, start in enumerate(range(0, len(body), size))
        ]
        number, self._number = self._number, (self._number + 1) % NUMBERS
        return _Sent(frame, number, first, first + len(packets), packets)
