"""Read-only memories for weights and per-neuron constants."""

from enum import Enum
from functools import cache
from math import ceil

import numpy as np
from amaranth import Const, Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw.cost import Family, Parts, distinct

__all__ = ["ROM", "ROMStyle", "pack_lanes", "rom_parts", "varying_bits"]

#: Widest memory, in bits, that a ROM in LUTs is made of.
LUT_ROM_PIECE = 64


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


def rom_parts(family: Family, words: int, width: float, style: ROMStyle) -> Parts:
    """Return the parts of a `ROM`, its output register among them.

    Parameters
    ----------
    family : Family
    words : int
    width : float
        Bits that are not the same in all words.
    style : ROMStyle
    """
    if style is ROMStyle.CONSTANT:
        return {}
    if style is ROMStyle.BRAM:
        storage = family.rom(words, ceil(width))
        return {"bram": storage.rams, "select bit": storage.select}
    # Columns with the same content are one.
    columns = distinct(words, width)
    if words <= 2:
        return {"register": columns}  # the address bit itself, or its inverse
    return {"ROM LUT": columns * _rom_luts(words), "register": columns}


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

    ``data = words[addr]``, one enabled cycle after `addr`. `ROMStyle.CONSTANT` needs a single word
    and has no register, since its output never changes; `ROMStyle.LUT` is one LUT4 per bit and 16
    words; `ROMStyle.BRAM` asks the tools for block RAM.

    Parameters
    ----------
    words : sequence of int
        Contents, each below ``2 ** width``.
    width : int
        Bits of a word.
    style : ROMStyle
        Where the contents live.

    Members
    -------
    addr : In(range(len(words)))
    data : Out(width)
    en : In(1)
        Clock enable of the output register.
    """

    def __init__(self, words: list[int], width: int, style: ROMStyle):
        if not words or any(not 0 <= word < 1 << width for word in words):
            raise ValueError(f"ROM needs at least one word and words of {width} bits")
        if style is ROMStyle.CONSTANT and len(words) > 1:
            raise ValueError(f"a constant ROM holds one word, not {len(words)}: use lut or bram")
        self.words, self.width, self.style = words, width, style
        super().__init__({"addr": In(range(len(words))), "data": Out(width), "en": In(1)})

    @classmethod
    def of_lanes(cls, values: NDArray[np.integer], width: int, style: ROMStyle) -> "ROM":
        """Build a ROM of rows of integers, packed by `pack_lanes`."""
        return cls(pack_lanes(values, width), width * values.shape[1], style)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.style is ROMStyle.CONSTANT:
            m.d.comb += self.data.eq(Const(self.words[0], self.width))
        elif self.style is ROMStyle.BRAM:
            self._storage(m, "memory", 0, self.width, {"rom_style": "block"})
        else:
            # Without a word from us yosys makes block RAM of any ROM that it finds large enough;
            # in one piece, 64 Kibit of logic ROM trip an assertion in yosys 0.70.
            for start in range(0, self.width, LUT_ROM_PIECE):
                width = min(LUT_ROM_PIECE, self.width - start)
                self._storage(m, f"memory_{start}", start, width, {"rom_style": "logic"})
        return m

    def _storage(self, m: Module, name: str, start: int, width: int, attrs: dict) -> None:
        """Add a memory that holds bits ``start .. start + width - 1`` of every word."""
        mask = (1 << width) - 1
        m.submodules[name] = storage = memory.Memory(
            shape=width,
            depth=len(self.words),
            init=[word >> start & mask for word in self.words],
            attrs=attrs,
        )
        port = storage.read_port()
        m.d.comb += [
            port.addr.eq(self.addr),
            port.en.eq(self.en),
            self.data[start : start + width].eq(port.data),
        ]
