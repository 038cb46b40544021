"""A serial line that damages what goes over it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from xnorflow.errors import UserError

__all__ = ["BURST", "Line", "LineFaults"]

#: Random bytes of a flood, at most.
BURST = 2000


@dataclass(frozen=True)
class LineFaults:
    """What goes wrong, as probabilities for every byte.

    Attributes
    ----------
    damage : float
        The byte is dropped, or one of its bits is flipped, or a random byte comes before it: one of
        the three, in equal shares.
    flood : float
        A burst of up to `BURST` random bytes comes before it.
    unplug : float
        The cable is pulled; the rest of what was on its way is lost.

    Raises
    ------
    UserError
        If one is no probability below 1.
    """

    damage: float = 0.0
    flood: float = 0.0
    unplug: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < 1:
                raise UserError(f"`{name}={value:g}` must be at least 0 and below 1")

    def __bool__(self) -> bool:
        return any(vars(self).values())


@dataclass
class Line:
    """One direction of a serial line: given the bytes that enter it, returns those that leave it.

    Parameters
    ----------
    faults : LineFaults
    seed : int or str
        The same seed gives the same damage to the same bytes.

    Attributes
    ----------
    passed : int
        Bytes that entered.
    dropped, flipped, inserted : int
        Bytes lost, changed, and added one by one.
    flooded : int
        Bytes added in bursts.
    unplugged : int
        Times that the cable was pulled.
    """

    faults: LineFaults = field(default_factory=LineFaults)
    seed: int | str = 0
    passed: int = 0
    dropped: int = 0
    flipped: int = 0
    inserted: int = 0
    flooded: int = 0
    unplugged: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __call__(self, data: bytes) -> bytes:
        if not self.faults:
            self.passed += len(data)
            return data
        out = bytearray()
        for byte in data:
            self.passed += 1
            if self._happens(self.faults.unplug):
                self.unplugged += 1
                break
            if self._happens(self.faults.flood):
                burst = self._random.randbytes(self._random.randint(1, BURST))
                self.flooded += len(burst)
                out += burst
            if self._happens(self.faults.damage):
                kind = self._random.randrange(3)
                if kind == 0:
                    self.dropped += 1
                    continue
                if kind == 1:
                    self.flipped += 1
                    byte ^= 1 << self._random.randrange(8)
                else:
                    self.inserted += 1
                    out.append(self._random.randrange(256))
            out.append(byte)
        return bytes(out)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability
