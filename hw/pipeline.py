"""Register chains that share a clock enable."""

from amaranth import Module, Signal
from amaranth.hdl import Value, ValueLike

__all__ = ["delay"]


def delay(
    m: Module,
    value: ValueLike,
    cycles: int,
    en: Value,
    name: str = "delayed",
    *,
    reset: bool = False,
) -> ValueLike:
    """Return `value` as it was `cycles` enabled clock cycles ago (zero before that).

    Data are not reset, only what says whether there are any: a reset of every register of a large
    layer takes wires through the whole device, and on iCE40 logic cells must share it.

    Parameters
    ----------
    m : Module
        The module that gets the registers.
    value : ValueLike
        A value or a view of one.
    cycles : int
        0 returns `value` itself.
    en : Value
        Clock enable.
    name : str
        Name of the registers, followed by the stage's number.
    reset : bool
        Whether the clock domain's reset makes the registers zero too.
    """
    for stage in range(cycles):
        register = Signal.like(value, name=f"{name}_{stage}", reset_less=not reset)
        with m.If(en):
            m.d.sync += register.eq(value)
        value = register
    return value
