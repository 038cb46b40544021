"""What components cost: logic cells, block RAMs and what they hold, estimated before synthesis.

Each component lists the parts that it builds, in a function beside its class: adders and their
bits, registers, words of a memory. `PRICES` says what a part takes in a device family. The lists
follow the structure of the hardware, so that most prices are near those that the structure suggests
(a bit of an adder is a LUT); they are fitted by ``benchmarks/calibrate.py`` to what yosys and
nextpnr make of a grid of configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import ceil, expm1, floor, log1p

from xnorflow.hw.prices import PRICES

__all__ = [
    "FAMILIES",
    "NEAR_WORDS",
    "Cost",
    "Family",
    "Parts",
    "Storage",
    "distinct",
    "index_bits",
    "merge",
    "placed_parts",
    "product_parts",
    "storage_parts",
]

#: Most words of a memory that is kept in distributed RAM, where there is such, for its speed.
NEAR_WORDS = 64

#: How many of each part a component is made of.
Parts = dict[str, float]


@dataclass(frozen=True)
class Cost:
    """What is taken of a device.

    Attributes
    ----------
    lut : float
        iCE40: LUT4s. ECP5: what nextpnr calls TRELLIS_COMB: LUT4s with those of carry chains, two a
        slice and four to enter and leave a chain, and six for each distributed RAM.
    bram : int
        Block RAMs.
    ff : float
        Flip-flops.
    carry : float
        SB_CARRY or CCU2C.
    cells : float
        What runs out first: on iCE40 logic cells (a LUT, a carry and a flip-flop, which only go
        together where they are wired to each other), on ECP5 `lut`, or so much of `ff` as
        `FLIP_FLOP` says if that is more.
    dsp : int
        Multipliers.
    """

    lut: float = 0.0
    bram: int = 0
    ff: float = 0.0
    carry: float = 0.0
    cells: float = 0.0
    dsp: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.lut + other.lut,
            self.bram + other.bram,
            self.ff + other.ff,
            self.carry + other.carry,
            self.cells + other.cells,
            self.dsp + other.dsp,
        )


#: LUTs of ECP5 that a flip-flop counts for. There are as many of both, and of four flip-flops three
#: stand behind a LUT at the most densely placed; those that do not are wires besides.
FLIP_FLOP = 0.75


@dataclass(frozen=True)
class Storage:
    """Where yosys puts a memory.

    Attributes
    ----------
    place : str
        ``registers``, ``distributed`` or ``block``.
    rams : int
        RAMs of that kind.
    select : int
        Bits that choose between banks of them.
    """

    place: str
    rams: int
    select: int


@dataclass(frozen=True, eq=False)
class Family:
    """A device family.

    Attributes
    ----------
    name : str
    bram_latency : int
        2 where block RAM is so slow that its output is registered once more.
    bram_registers : bool
        Whether that register is one of the block RAM itself.
    leaf_latency : int
        2 where long wires end in leaves of several carry cells, which then are registered inside.
    bram_shapes : tuple of (int, int)
        Depth and width of a block RAM in each of its modes, the narrowest first.
    bram_bytes : tuple of int
        In each of the modes, the fewest bits that can be written by themselves.
    bram_price : int
        What yosys takes a block RAM for when it chooses, in bits of flip-flops.
    distributed : bool
        Whether there are distributed RAMs of 16 words of 4 bits; yosys takes one for 4 bits.
    carry_bits : int
        Bits of an adder in a carry cell.
    least_carry : int
        Narrowest adder that gets carry cells.
    multipliers : bool
        Whether yosys uses the device's multipliers.
    """

    name: str
    bram_latency: int
    bram_registers: bool
    leaf_latency: int
    bram_shapes: tuple[tuple[int, int], ...]
    bram_bytes: tuple[int, ...]
    bram_price: int
    distributed: bool
    carry_bits: int
    least_carry: int
    multipliers: bool

    def cost(self, parts: Mapping[str, float]) -> Cost:
        """Return what `parts` take; those called ``bram`` and ``dsp`` are such."""
        prices = PRICES[self.name]
        lut = ff = carry = cells = 0.0
        for part, count in parts.items():
            if count and part not in ("bram", "dsp"):
                price = prices[part]
                lut += count * price[0]
                ff += count * price[1]
                carry += count * price[2]
                cells += count * price[3]
        if self.carry_bits > 1:
            cells = max(lut, FLIP_FLOP * ff)
        return Cost(lut, int(parts.get("bram", 0)), ff, carry, cells, int(parts.get("dsp", 0)))

    @property
    def bram_bits(self) -> int:
        """Bits of a block RAM."""
        depth, width = self.bram_shapes[-1]
        return depth * width

    def adder(self, part: str, width: int, count: float = 1, lowest: float | None = None) -> Parts:
        """Return the parts of `count` adders, subtractors or comparators of `width` bits.

        Only `lowest` of their lowest bits differ, all of them by default; where a carry cell has
        two bits, they are not shared.
        """
        bits = width * count if lowest is None else (width - 1) * count + lowest
        if width < self.least_carry:
            return {f"short {part} bit": bits}
        if self.carry_bits > 1:
            bits = self.carry_bits * ceil(width / self.carry_bits) * count
        return {part: count, f"{part} bit": bits}

    def rom(self, words: int, width: int) -> Storage:
        """Return how block RAMs hold a read-only memory."""
        return _block(self, words, width, False, 2)[1]

    def ram(self, words: int, width: int, read_first: bool = False) -> Storage:
        """Return where yosys puts a memory that is written and read.

        Parameters
        ----------
        words, width : int
        read_first : bool
            A word that is read while it is written must be the old one; this takes additional
            logic around a block RAM.
        """
        return _ram(self, words, width, read_first)

    def near_ram(self, words: int, width: int) -> Storage:
        """Return where a memory of up to `NEAR_WORDS` goes that must not be slow.

        Block RAM gives data 5.8 ns after the clock on ECP5. Families without distributed RAM, and
        more words, are left to yosys.
        """
        if self.distributed and words <= NEAR_WORDS:
            return _distributed(words, width)
        return self.ram(words, width, True)


@cache
def _block(
    family: Family, words: int, width: int, written: bool, extra: float
) -> tuple[float, Storage]:
    """Return the least price of a memory in block RAM, and how it is put together.

    This is the choice of yosys' pass `memory_libmap` among the shapes: each RAM costs its price,
    and each bit that chooses between banks half a unit. Banks lie side by side where a RAM is wide
    enough and can be written in parts.
    """
    best: tuple[float, Storage] | None = None
    for (depth, unit), byte in zip(family.bram_shapes, family.bram_bytes, strict=True):
        banks = ceil(words / depth)
        step = byte if written else 1
        rams = ceil(banks * ceil(width / step) * step / unit)
        select = (banks - 1) * width
        writes = banks if written and banks > 1 else 0
        price = rams * family.bram_price + (select + writes) / 2 + extra
        # The pass keeps its best price as an integer.
        if best is None or price < floor(best[0]):
            best = price, Storage("block", rams, select + writes)
    assert best is not None
    return best


@cache
def _ram(family: Family, words: int, width: int, read_first: bool) -> Storage:
    bits = words * width
    lowest, best = float(bits), Storage("registers", bits, 0)
    if family.distributed:
        small = _distributed(words, width)
        price = small.rams * 4 + small.select / 2 + 2
        if price < lowest:
            lowest, best = floor(price), small
    price, block = _block(family, words, width, True, 14 if read_first else 2)
    return block if price < lowest else best


def _distributed(words: int, width: int) -> Storage:
    """Return how a memory is put together of distributed RAMs."""
    banks = ceil(words / 16)
    select = (banks - 1) * width + (banks if banks > 1 else 0)
    return Storage("distributed", banks * ceil(width / 4), select)


def storage_parts(family: Family, words: int, width: int, read_first: bool = False) -> Parts:
    """Return the parts of a memory that is written and read, wherever yosys puts it."""
    storage = family.ram(words, width, read_first)
    return placed_parts(storage, words, width, read_first)


def placed_parts(storage: Storage, words: int, width: int, read_first: bool) -> Parts:
    """Return the parts of a memory in a place."""
    if storage.place == "registers":
        return {
            "bare register": words * width,
            "stored word": words,
            "stored bit": words * width,
            "memory output bit": width,
        }
    if storage.place == "distributed":
        return {
            "distributed RAM": storage.rams,
            "select bit": storage.select,
            "memory output bit": width,
        }
    old = {"old word": 1, "old word bit": width} if read_first else {}
    return {
        "bram": storage.rams,
        "select bit": storage.select,
        "block RAM bit": 0 if read_first else width,
        **old,
    }


def distinct(bits: float, among: float) -> float:
    """Return how many distinct values `among` random ones of `bits` bits are expected to have.

    ``2 ** bits * (1 - (1 - 2 ** -bits) ** among)``: neurons share the logic that they have alike.
    """
    if bits > 50:
        return among
    values = 2.0**bits
    return -values * expm1(among * log1p(-1 / values)) if bits else 1.0


def index_bits(*counts: int) -> int:
    """Return the bits of counters of so many values."""
    return sum((count - 1).bit_length() for count in counts)


#: Bits of an operand of a multiplier, in two's complement.
MULTIPLIER_BITS = 18


def product_parts(family: Family, one: int, other: int, count: int) -> Parts:
    """Return the parts of `count` products of numbers of so many bits in two's complement."""
    if not family.multipliers:
        return {"product bit": one * other * count}
    pieces = ceil(one / MULTIPLIER_BITS) * ceil(other / MULTIPLIER_BITS)
    # What several multipliers give is added up.
    sums = family.adder("fixed adder", min(one, other) + 2, count * (pieces - 1))
    return merge({"dsp": count * pieces}, sums)


def merge(*lists: Mapping[str, float]) -> Parts:
    """Add up lists of parts."""
    total: Parts = {}
    for parts in lists:
        for part, count in parts.items():
            total[part] = total.get(part, 0.0) + count
    return total


FAMILIES = {
    "ice40": Family(
        name="ice40",
        bram_latency=1,
        bram_registers=False,
        leaf_latency=1,
        bram_shapes=((2048, 2), (1024, 4), (512, 8), (256, 16)),
        bram_bytes=(1, 1, 1, 1),
        bram_price=64,
        distributed=False,
        carry_bits=1,
        least_carry=0,
        multipliers=False,
    ),
    "ecp5": Family(
        name="ecp5",
        bram_latency=2,
        bram_registers=True,
        leaf_latency=2,
        bram_shapes=((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36)),
        bram_bytes=(1, 2, 4, 9, 9, 9),
        bram_price=128,
        distributed=True,
        carry_bits=2,
        least_carry=5,
        multipliers=True,
    ),
}
