"""Read-only memories for weights and per-neuron constants."""

from enum import Enum
from functools import cache
from math import ceil

import numpy as np
from amaranth import Array, Cat, Const, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, distinct, index_bits
from xnorflow.hw.pipeline import delay

__all__ = [
    "ROM",
    "ROM_LATENCIES",
    "ROMStyle",
    "pack_lanes",
    "rom_parts",
    "usual_latency",
    "varying_bits",
]

#: Widest memory, in bits, that a ROM in LUTs is made of.
LUT_ROM_PIECE = 64

#: Words of a LUT4. More are read in two cycles: in one, ABC shares what columns have in common, and
#: wires it through the whole device.
LUT_WORDS = 16

#: Block RAMs that have room beside the logic that they feed, or nearly: the registers in more of
#: them are too far from it.
NEAR_RAMS = 8

#: Cycles that a ROM may take.
ROM_LATENCIES = (1, 2, 3)


class ROMStyle(Enum):
    """Where a read-only memory lives."""

    CONSTANT = "constant"
    LUT = "lut"
    BRAM = "bram"


def pack_lanes(values: NDArray[np.integer], width: int) -> list[int]:
    """Pack each row of `values` into one integer, lane 0 in the least significant bits.

    Parameters
    ----------
    values : ndarray of int, shape (depth, lanes)
        Two's complement where negative.
    width : int
        Bits of a lane.

    Returns
    -------
    list of int
        One non-negative integer of ``lanes * width`` bits a row.
    """
    shifts = np.arange(width)
    bits = (values.astype(np.int64)[:, :, None] >> shifts) & 1
    packed = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def usual_latency(family: Family | None, style: ROMStyle, words: int, width: int) -> int:
    """Return the `ROM.latency` that keeps up with the logic around a weight memory.

    Parameters
    ----------
    family : Family, optional
        None is one with fast block RAM and short wires.
    style : ROMStyle
    words, width : int
    """
    if style is ROMStyle.BRAM:
        if family is None:
            return 1
        far = family.bram_registers and family.rom(words, width).rams > NEAR_RAMS
        return family.bram_latency + far
    return 2 if style is ROMStyle.LUT and words > LUT_WORDS else 1


def _bank_words(words: int) -> int:
    """Return the words before each register in the middle of a ROM in LUTs."""
    # Many words would take many registers to choose among; three LUT4s are in front of one then.
    return LUT_WORDS if words <= 4 * LUT_WORDS else 4 * LUT_WORDS


def _banks(words: int, latency: int) -> int:
    """Return how many memories in LUTs `words` are in, one of which is chosen a cycle later."""
    return 1 if latency == 1 else ceil(words / _bank_words(words))


def rom_parts(family: Family, words: int, width: float, style: ROMStyle, latency: int = 1) -> Parts:
    """Return the parts of a `ROM`, its output register among them.

    Parameters
    ----------
    family : Family
    words : int
    width : float
        Bits that are not the same in all words.
    style : ROMStyle
    latency : int
    """
    if style is ROMStyle.CONSTANT:
        return {"bare register": width * (latency - 1)}
    if style is ROMStyle.BRAM:
        storage = family.rom(words, ceil(width))
        # One register is in the block RAM, if nothing is chosen before it.
        inside = int(family.bram_registers and not storage.select)
        again = width * max(0, latency - 1 - inside)
        return {"bram": storage.rams, "select bit": storage.select, "bare register": again}
    # Columns with the same content are one.
    columns = distinct(words, width)
    if words <= 2:
        return {"register": columns}  # the address bit itself, or its inverse
    parts: Parts = {"ROM LUT": columns * _rom_luts(words), "register": columns}
    banks = _banks(words, latency)
    parts["bare register"] = columns * (latency - 1)
    if banks > 1:
        # The one behind the choice is behind a LUT.
        parts["register"] += columns * banks
        parts["bare register"] += index_bits(banks) - columns
    return parts


@cache
def _rom_luts(words: int) -> int:
    """Return the LUT4s of a bit of a ROM: one for 16 words, two to choose between four of those."""
    leaves = luts = ceil(words / 16)
    while leaves > 1:
        full, rest = divmod(leaves, 4)
        luts += 2 * full + max(rest - 1, 0)
        leaves = full + (rest > 0)
    return luts


def varying_bits(values: NDArray[np.integer], width: int) -> int:
    """Return how many bits of a row of `values` are not the same in all rows.

    Parameters
    ----------
    values : ndarray of int, shape (depth, lanes)
    width : int
        Bits of a lane.
    """
    changes = np.bitwise_or.reduce(values.astype(np.int64) ^ values[0].astype(np.int64), axis=0)
    return int(np.bitwise_count(changes & ((1 << width) - 1)).sum())


class ROM(wiring.Component):
    """Read-only memory with a registered output.

    ``data = words[addr]``, `latency` enabled cycles after `addr`. `ROMStyle.CONSTANT` needs a
    single word, and the first register falls away, since its output never changes; `ROMStyle.LUT`
    is one LUT4 per bit and 16 words; `ROMStyle.BRAM` asks the tools for block RAM.

    The second cycle of block RAM is a register behind it, that of a ROM in LUTs is in its middle:
    banks of words with a register each, and then the choice between them. The third is another
    register behind either: the first one behind block RAM of ECP5 is in it, far from what it feeds.

    Parameters
    ----------
    words : sequence of int
        Contents, each below ``2 ** width``.
    width : int
        Bits of a word.
    style : ROMStyle
        Where the contents live.
    latency : int
        1, 2 or 3.

    Members
    -------
    addr : In(range(len(words)))
    data : Out(width)
    en : In(1)
        Clock enable of every register.
    """

    def __init__(self, words: list[int], width: int, style: ROMStyle, latency: int = 1):
        if not words or any(not 0 <= word < 1 << width for word in words):
            raise ValueError(f"ROM needs at least one word and words of {width} bits")
        if style is ROMStyle.CONSTANT and len(words) > 1:
            raise ValueError(f"a constant ROM holds one word, not {len(words)}: use lut or bram")
        if latency not in ROM_LATENCIES:
            raise ValueError(f"a ROM's latency must be 1, 2 or 3, not {latency!r}")
        self.words, self.width, self.style, self.latency = words, width, style, latency
        super().__init__({"addr": In(range(len(words))), "data": Out(width), "en": In(1)})

    @classmethod
    def of_lanes(
        cls, values: NDArray[np.integer], width: int, style: ROMStyle, latency: int = 1
    ) -> "ROM":
        """Build a ROM of rows of integers, packed by `pack_lanes`."""
        return cls(pack_lanes(values, width), width * values.shape[1], style, latency)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words: Value
        banks = _banks(len(self.words), self.latency)
        if self.style is ROMStyle.CONSTANT:
            words = Const(self.words[0], self.width)
        elif self.style is ROMStyle.BRAM:
            words = self._storage(m, "memory", self.words, "block")
        elif banks == 1:
            words = self._storage(m, "memory", self.words, "logic")
        else:
            size = _bank_words(len(self.words))
            parts = [
                self._storage(m, f"bank_{n}", self.words[first : first + size], "logic")
                for n, first in enumerate(range(0, len(self.words), size))
            ]
            high = self.addr[exact_log2(size) :]
            bank = Value.cast(delay(m, high, 1, self.en, "bank"))
            words = Signal(self.width)
            m.d.comb += words.eq(Array(parts)[bank])
        m.d.comb += self.data.eq(delay(m, words, self.latency - 1, self.en, "word"))
        return m

    def _storage(self, m: Module, name: str, words: list[int], style: str) -> Value:
        """Add a memory that holds `words`, and return what it reads."""
        # Without a word from us yosys makes block RAM of any ROM that it finds large enough; in
        # one piece, 64 Kibit of logic ROM trip an assertion in yosys 0.70.
        widest = LUT_ROM_PIECE if style == "logic" else self.width
        pieces = []
        for start in range(0, self.width, widest):
            width = min(widest, self.width - start)
            m.submodules[f"{name}_{start}"] = storage = memory.Memory(
                shape=width,
                depth=len(words),
                init=[word >> start & ((1 << width) - 1) for word in words],
                attrs={"rom_style": style},
            )
            port = storage.read_port()
            m.d.comb += [port.addr.eq(self.addr), port.en.eq(self.en)]
            pieces.append(port.data)
        return Cat(pieces)
