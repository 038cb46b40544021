"""Carry chains that add several small numbers side by side."""

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth import Cat, Const, Instance, Module, Signal
from amaranth.hdl import Value

from xnorflow.hw.cost import Family, Parts
from xnorflow.hw.counting import Counting, lut4

__all__ = ["Slot", "add", "chain_parts", "chain_sums", "chained", "inject"]

#: Most cells of a chain of iCE40 that has sums of several neurons: tools do not see that carries end
#: on the way, and 32 cells take 4.5 ns on HX8K.
LONGEST = 32

#: Neurons whose chains are one on ECP5, where a chain has an even number of bits.
CHAINED = 2


def chained(counting: Counting, slots: int) -> int:
    """Return how many neurons, of `slots` each, have their chains in one, which costs to start."""
    return max(1, (LONGEST - 1) // max(slots, 1)) if counting.in_luts else CHAINED


def chain_parts(family: Family, slots: int, injected: bool, count: float = 1) -> Parts:
    """Return the parts of `count` chains of `chain_sums`; `injected`: the first carry is not 0."""
    if family.carry_bits > 1:
        return {"chain bit": (slots + slots % 2) * count}
    return {"chain bit": (slots - 1) * count, "chain start": count * injected}


@dataclass(frozen=True, eq=False)
class Slot:
    """A bit of a carry chain: the chain adds `x`, `y` and the carry.

    Attributes
    ----------
    x, y : tuple of Value
        One or two bits each; of two, their XOR counts, or their OR where `either`.
    either : bool
        Of the two bits of `x`.
    new : bool
        The carry out is `x`, whatever comes in.
    beside : Value or None
        Changes the sum, by XOR, and not the carry; iCE40 only.
    """

    x: tuple[Value, ...]
    y: tuple[Value, ...] = ()
    either: bool = False
    new: bool = False
    beside: Value | None = None

    @property
    def operands(self) -> tuple[Value, Value]:
        """The two bits that are added."""
        x = _joined(self.x, self.either)
        return (x, x) if self.new else (x, _joined(self.y, False))

    def lut(self) -> int:
        """Return the INIT of half a CCU2C, with A, B for `x` and C, D for `y`.

        The half-cell propagates where the LUT gives 1, and else its carry is what the LUT gives for
        C = D = 0.
        """
        init = 0
        for index in range(16):
            bits = [index >> n & 1 for n in range(4)]
            x = bits[: len(self.x)]
            result = (any(x) if self.either else sum(x) % 2) if x else 0
            if self.new:
                # D is 1 then: nothing propagates, so the sum is the carry that comes in.
                result = 0 if bits[3] else result
            else:
                result ^= sum(bits[2 : 2 + len(self.y)]) % 2
            init |= int(result) << index
        return init

    def pins(self) -> tuple[Value, Value, Value, Value]:
        """Return what a half-cell's inputs A to D are wired to."""
        low, high = Const(0, 1), Const(1, 1)
        x = [*self.x, low, low][:2]
        y = [low, high] if self.new else [*self.y, low, low][:2]
        return x[0], x[1], y[0], y[1]


def _joined(bits: tuple[Value, ...], either: bool) -> Value:
    if not bits:
        return Const(0, 1)
    if len(bits) == 1:
        return bits[0]
    return bits[0] | bits[1] if either else bits[0] ^ bits[1]


def inject(*x: Value, beside: Value | None = None) -> Slot:
    """Return the slot that starts a number with the carry `x`; its sum is the carry before it.

    With `beside`, the sum is that of this bit and the carry: the highest bit of the number before.
    """
    return Slot(tuple(x), new=True, beside=beside)


def add(x: Iterable[Value], y: Iterable[Value], *, either: bool = False) -> Slot:
    """Return the slot that adds `x`, `y` and the carry."""
    return Slot(tuple(x), tuple(y), either)


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
        `Counting.SB_LUT4`: cells of iCE40. Otherwise an addition, for any device and for simulation.
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
