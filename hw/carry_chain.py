"""Carry chains that add several small numbers side by side."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import xor

from amaranth import Cat, Const, Instance, Module, Mux, Signal
from amaranth.hdl import Value

from xnorflow.hw.cost import Family, Parts
from xnorflow.hw.counting import Counting, lut4

__all__ = ["Slot", "add", "chain_parts", "chain_sums", "inject", "number_sums"]

#: Most slots of a chain of several numbers, but for the last one: tools do not see that carries end
#: on the way, and take a chain for as slow as it is long. Each chain ends in a slot more.
LONGEST = 32
LONGEST_CCU2C = 16


def _chains(sizes: Sequence[int], longest: int) -> Iterator[tuple[int, int]]:
    """Yield the first number of each chain and the one behind its last, given their slots."""
    first = length = 0
    for place, size in enumerate(sizes):
        if length and length + size > longest:
            yield first, place
            first, length = place, 0
        length += size
    if length:
        yield first, len(sizes)


@cache
def chain_parts(family: Family, sizes: tuple[int, ...], injected: bool) -> Parts:
    """Return the parts of `number_sums`.

    Parameters
    ----------
    family : Family
    sizes : tuple of int
        Slots of each number.
    injected : bool
        Whether the first carry of a chain is not 0.
    """
    longest = LONGEST_CCU2C if family.carry_bits > 1 else LONGEST
    lengths = [sum(sizes[first:end]) for first, end in _chains(sizes, longest)]
    if family.carry_bits > 1:
        return {"chain bit": sum(length + 2 - length % 2 for length in lengths)}
    return {"chain bit": sum(lengths), "chain start": len(lengths) * injected}


@dataclass(frozen=True, eq=False)
class Slot:
    """A bit of a carry chain: the chain adds `x`, `y` and the carry.

    Attributes
    ----------
    x, y : tuple of Value
        One or two bits each; of two, their XOR counts.
    new : bool
        The carry out is `x`, whatever comes in.
    beside : Value or None
        Changes the sum, by XOR, and not the carry; iCE40 only.
    keep : Value or None
        `x` is one bit then, and of `y` the first is added where `keep` is 1, else the second.
    """

    x: tuple[Value, ...]
    y: tuple[Value, ...] = ()
    new: bool = False
    beside: Value | None = None
    keep: Value | None = None

    @property
    def operands(self) -> tuple[Value, Value]:
        """The two bits that are added."""
        x = _joined(self.x)
        if self.keep is not None:
            return x, Mux(self.keep, *self.y)
        return (x, x) if self.new else (x, _joined(self.y))

    def lut(self) -> int:
        """Return the INIT of half a CCU2C for the inputs `pins`.

        The half-cell propagates where the LUT gives 1, and else its carry is what the LUT gives for
        C = D = 0.
        """
        init = 0
        for index in range(16):
            bits = [index >> n & 1 for n in range(4)]
            result = sum(bits[: len(self.x)]) % 2
            if self.keep is not None:
                result ^= bits[1] if bits[3] else bits[2]
            elif self.new:
                # D is 1 then: nothing propagates, so the sum is the carry that comes in.
                result = 0 if bits[3] else result
            else:
                result ^= sum(bits[2 : 2 + len(self.y)]) % 2
            init |= int(result) << index
        return init

    def pins(self) -> tuple[Value, Value, Value, Value]:
        """Return what a half-cell's inputs A to D are wired to: `x`, then `y`."""
        low, high = Const(0, 1), Const(1, 1)
        if self.keep is not None:
            return self.x[0], *self.y, self.keep
        x = [*self.x, low, low][:2]
        y = [low, high] if self.new else [*self.y, low, low][:2]
        return x[0], x[1], y[0], y[1]


def _joined(bits: tuple[Value, ...]) -> Value:
    return reduce(xor, bits) if bits else Const(0, 1)


def inject(*x: Value) -> Slot:
    """Return the slot that starts a number with the carry `x`; its sum is the carry before it."""
    return Slot(tuple(x), new=True)


def add(x: Iterable[Value], y: Iterable[Value], *, keep: Value | None = None) -> Slot:
    """Return the slot that adds `x`, `y` and the carry."""
    return Slot(tuple(x), tuple(y), keep=keep)


def chain_sums(m: Module, slots: list[Slot], counting: Counting, name: str) -> list[Value]:
    """Return the sum of each slot of a carry chain.

    An `inject` between two numbers gives out the last carry of one and the first carry of the next,
    so a number of n bits takes n + 1 slots, and all bits of a design's small sums may stand in one
    chain::

        inject d ─► add x0, y0 ─► add x1, y1 ─► inject e ─► add ...
                        │             │            │
                      sum 0         sum 1       carry out

    Parameters
    ----------
    m : Module
    slots : list of Slot
        The lowest bit first; nothing is carried into it.
    counting : Counting
        `Counting.CCU2C`: those of ECP5, whose LUT4s take in the XOR before the sum.
        `Counting.SB_LUT4`: cells of iCE40. Otherwise an addition, for any device and simulation.
    name : str
        Of the chain's signals.
    """
    if counting is Counting.CCU2C:
        return _ccu2c(m, slots, name)
    operands = [slot.operands for slot in slots]
    if counting is Counting.SB_LUT4:
        carries = _sb_carry(m, operands, name)
        sums: list[Value] = []
        for n, (slot, (x, y), carry) in enumerate(zip(slots, operands, carries, strict=True)):
            beside = Const(0, 1) if slot.beside is None else slot.beside
            # nextpnr packs a carry with the LUT that has its operands at I1 and I2.
            sums.append(
                lut4(
                    m, f"{name}_{n}", lambda b, x, y, c: b ^ x ^ y ^ c, (beside, x, y, carry), True
                )
            )
        return sums
    x, y = zip(*operands, strict=True)
    total = Signal(len(slots), name=name)
    m.d.comb += total.eq(Cat(*x) + Cat(*y))
    return [
        bit if slot.beside is None else bit ^ slot.beside
        for slot, bit in zip(slots, total, strict=True)
    ]


def number_sums(
    m: Module,
    numbers: Sequence[Sequence[Slot]],
    counting: Counting,
    name: str,
    beside: Sequence[Value] | None = None,
) -> list[list[Value]]:
    """Return the bits of small sums, several of which share a carry chain.

    Parameters
    ----------
    m : Module
    numbers : sequence of sequence of Slot
        Each an `inject` and then a slot a bit; the carry out of the last one is a bit more.
    counting, name
        See `chain_sums`.
    beside : sequence of Value, optional
        A bit for each number, which its carry out is added to without a carry.
    """
    bits: list[list[Value]] = []
    above = [None] * len(numbers) if beside is None else beside
    longest = LONGEST_CCU2C if counting is Counting.CCU2C else LONGEST
    for first, end in _chains([len(number) for number in numbers], longest):
        slots: list[Slot] = []
        before: Value | None = None
        for number, highest in zip(numbers[first:end], above[first:end], strict=True):
            slots += [replace(number[0], beside=before), *number[1:]]
            before = highest
        sums = chain_sums(
            m, [*slots, replace(inject(), beside=before)], counting, f"{name}_{first}"
        )
        for number in numbers[first:end]:
            bits.append(sums[1 : 1 + len(number)])
            sums = sums[len(number) :]
    return bits


def _sb_carry(m: Module, operands: list[tuple[Value, Value]], name: str) -> list[Value]:
    """Return the carry into each bit, in cells of iCE40."""
    carries: list[Value] = [Const(0, 1)]
    for n, (x, y) in enumerate(operands[:-1]):
        carry = Signal(name=f"{name}_carry_{n}")
        m.submodules[f"{name}_cell_{n}"] = Instance(
            "SB_CARRY", i_I0=x, i_I1=y, i_CI=carries[-1], o_CO=carry
        )
        carries.append(carry)
    return carries


def _ccu2c(m: Module, slots: list[Slot], name: str) -> list[Value]:
    sums: list[Value] = []
    carry = None
    for start in range(0, len(slots), 2):
        pair = [*slots[start : start + 2], inject()][:2]
        out, after = Signal(2, name=f"{name}_{start}"), Signal(name=f"{name}_carry_{start}")
        ports = {"o_COUT": after} if start + 2 < len(slots) else {}
        if carry is not None:
            ports["i_CIN"] = carry
        for half, slot in enumerate(pair):
            ports |= {f"p_INIT{half}": Const(slot.lut(), 16), f"p_INJECT1_{half}": "NO"}
            ports |= {f"i_{pin}{half}": bit for pin, bit in zip("ABCD", slot.pins(), strict=True)}
            ports[f"o_S{half}"] = out[half]
        m.submodules[f"{name}_cell_{start}"] = Instance("CCU2C", **ports)
        sums += list(out)
        carry = after
    return sums[: len(slots)]
