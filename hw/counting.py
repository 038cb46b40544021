"""How agreements are counted, and the cells that a family does it with."""

from collections.abc import Callable
from enum import Enum

from amaranth import Const, Instance, Module, Signal
from amaranth.hdl import Value

__all__ = ["COUNTING", "Counting", "lut4"]


class Counting(Enum):
    """How a PE array counts agreements of bits; `AgreementTree` tells what each is.

    `LUTS` and `CHAINS` are for any device and for simulation. `SB_LUT4` (iCE40) and `CCU2C` (ECP5)
    are the same two in instantiated cells, of which the tools find fewer by themselves.
    """

    LUTS = "luts"
    SB_LUT4 = "sb_lut4"
    CHAINS = "chains"
    CCU2C = "ccu2c"

    @property
    def in_luts(self) -> bool:
        """Whether leaves are made of LUTs, and weights come as XORs of lanes."""
        return self in (Counting.LUTS, Counting.SB_LUT4)


#: What is best in each family.
COUNTING = {"ice40": Counting.SB_LUT4, "ecp5": Counting.CCU2C}


def lut4(
    m: Module, name: str, function: Callable[..., Value], inputs: tuple[Value, ...], cell: bool
) -> Value:
    """Return ``function(*inputs)`` of up to four bits.

    Parameters
    ----------
    m : Module
    name : str
        Of the signal.
    function : callable
        Made of ``& | ^`` only, so that it takes values and numbers.
    inputs : tuple of Value
    cell : bool
        An SB_LUT4, which ABC leaves as it is, instead of a description.
    """
    result = Signal(name=name)
    if not cell:
        m.d.comb += result.eq(function(*inputs))
        return result
    init = 0
    for index in range(16):
        # An input that is not used is 0.
        bits = [index >> n & 1 for n in range(len(inputs))]
        init |= (int(function(*bits)) & 1) << index
    pins = [*inputs, *[Const(0, 1)] * 4][:4]
    ports = {f"i_I{n}": pin for n, pin in enumerate(pins)}
    m.submodules[f"{name}_lut"] = Instance(
        "SB_LUT4", p_LUT_INIT=Const(init, 16), o_O=result, **ports
    )
    return result
