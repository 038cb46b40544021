"""A board as data: one TOML file says all that the rest needs to know about it."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import import_module, resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from amaranth.build import Platform

from xnorflow.errors import UserError

__all__ = ["Board", "Budget", "Clock", "Info", "Led", "Link", "PLLLimits", "Power", "load", "names"]

FAMILIES = {"ice40": ("SB_PLL40_PAD", "SB_PLL40_CORE"), "ecp5": ("EHXPLLL",)}
"""Families that the build flow knows, each with the kinds of PLL it can instantiate."""


@dataclass(frozen=True)
class Clock:
    """What the board is clocked with.

    Attributes
    ----------
    oscillator_mhz : float
        Frequency at the platform's default clock pin, MHz.
    planned_mhz : float
        The core clock that targets in frames a second are turned into cycles with, MHz.
    """

    oscillator_mhz: float
    planned_mhz: float


@dataclass(frozen=True)
class PLLLimits:
    """The kind of PLL and the data sheet's limits, all in MHz and inclusive.

    Attributes
    ----------
    kind : str
        Primitive: ``SB_PLL40_PAD`` (the clock pin is the PLL's own pad), ``SB_PLL40_CORE`` (the
        reference comes through the fabric) or ``EHXPLLL``.
    pfd_mhz, vco_mhz, output_mhz : tuple of float
        Least and greatest frequency at the phase detector, of the oscillator and at the output.
    """

    kind: str
    pfd_mhz: tuple[float, float]
    vco_mhz: tuple[float, float]
    output_mhz: tuple[float, float]


@dataclass(frozen=True)
class Link:
    """The serial line to the host.

    Attributes
    ----------
    resource : tuple of (str, int)
        Name and number of the platform's resource; it has the pins ``rx`` and ``tx``.
    baud : int
        Bits a second unless the user asks for another rate.
    """

    resource: tuple[str, int]
    baud: int


@dataclass(frozen=True)
class Led:
    """The lamp that shows life: `resource` is the name and number in the platform."""

    resource: tuple[str, int]


@dataclass(frozen=True)
class Budget:
    """What the device has.

    Attributes
    ----------
    lut, ff : int
        Four-input look-up tables and flip-flops.
    bram : int
        Block RAMs.
    bram_bits, bram_width : int
        Bits of one block RAM and the widest word that it gives in a cycle.
    dsp : int
        Multipliers.
    io : int
        User pins of the package.
    spram : int
        Large single-port RAMs without initial content.
    """

    lut: int
    ff: int
    bram: int
    bram_bits: int
    bram_width: int
    dsp: int
    io: int
    spram: int = 0


@dataclass(frozen=True)
class Power:
    """What the device draws when nothing switches.

    Attributes
    ----------
    static_mw : float
        Typical static power, mW.
    source : str
        Document and table that it comes from.
    """

    static_mw: float
    source: str


@dataclass(frozen=True)
class Info:
    """For people, not for the flow.

    Attributes
    ----------
    url : str
        Where the board is described.
    program : str
        Command that loads a bitstream; ``{bitstream}`` stands for the file.
    notes : str
        What else a user should know.
    price_usd : float or None
        About what it costs.
    """

    url: str = ""
    program: str = ""
    notes: str = ""
    price_usd: float | None = None


@dataclass(frozen=True)
class Board:
    """A board.

    Attributes
    ----------
    name, title : str
        What the user types and what reports print.
    family : str
        ``ice40`` or ``ecp5``.
    device, package : str
        The chip as its data sheet calls it.
    platform : str
        Amaranth platform as ``module:class``.
    clock, pll, link, led, budget, power, info
        See the classes of these tables; `pll`, `link` and `led` are None where the board has none,
        `power` where it is not known.
    """

    name: str
    title: str
    family: str
    device: str
    package: str
    platform: str
    clock: Clock
    budget: Budget
    link: Link | None = None
    pll: PLLLimits | None = None
    led: Led | None = None
    power: Power | None = None
    info: Info = Info()

    def make_platform(self) -> Platform:
        """Return a new instance of the Amaranth platform.

        Raises
        ------
        UserError
            If the module or the class does not exist or is no platform for `device`.
        """
        module, _, attribute = self.platform.partition(":")
        try:
            cls = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"board {self.name}: platform {self.platform!r} cannot be imported ({error}); give "
                'it as "module:Class" and install the package that has it'
            ) from None
        if not (isinstance(cls, type) and issubclass(cls, Platform)):
            raise UserError(
                f"board {self.name}: platform {self.platform!r} is not an Amaranth platform class; "
                'name one, such as "amaranth_boards.icebreaker:ICEBreakerPlatform"'
            )
        platform = cls()
        if platform.device != self.device:
            raise UserError(
                f"board {self.name}: its device is {self.device} but the platform "
                f"{self.platform!r} is for {platform.device}; make them agree"
            )
        return platform


def names() -> list[str]:
    """Return the names of the boards that come with xnorflow, sorted."""
    folder = resources.files("xnorflow.boards")
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def load(name: str | Path) -> Board:
    """Return a board by its name, or from a file of the user's.

    Parameters
    ----------
    name : str or Path
        One of :func:`names`, or the path of a ``.toml`` file.

    Raises
    ------
    UserError
        If there is no such board or file, or the file does not follow the form.

    Examples
    --------
    >>> load("icebreaker").budget.bram
    30
    """
    name = str(name)
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"board file {name} cannot be read: {error}") from None
        return _parse(text, name)
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(
            f"there is no board {name!r}{hint}; give one of {', '.join(known)} or the path of a "
            ".toml file of your own"
        )
    entry = resources.files("xnorflow.boards") / f"{name}.toml"
    return _parse(entry.read_text(encoding="utf-8"), f"{name}.toml")


def _parse(text: str, source: str) -> Board:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"board file {source} is not valid TOML: {error}") from None
    board = _table(Board, table, source, "")
    _check(board, source)
    return board


def _table(cls: Any, table: Mapping[str, object], source: str, where: str) -> Any:
    """Make a dataclass from a TOML table, holding each key to the field's type."""
    hints = get_type_hints(cls)
    for key in table:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            mend = f"did you mean {where}{close[0]}?" if close else f"known: {', '.join(hints)}"
            raise UserError(f"board file {source} has an unknown key {where}{key}; {mend}")
    values = {}
    for field in fields(cls):
        if field.name in table:
            values[field.name] = _value(
                hints[field.name], table[field.name], source, where + field.name
            )
        elif field.default is MISSING:
            raise UserError(f"board file {source} lacks {where}{field.name}; add it")
    return cls(**values)


def _value(hint: Any, value: object, source: str, where: str) -> object:
    """Return `value` as the type `hint`, or say which type `where` needs."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    if hasattr(hint, "__dataclass_fields__"):
        if isinstance(value, dict):
            return _table(hint, value, source, where + ".")
        raise UserError(f"board file {source}: {where} must be a table, not {value!r}")
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if isinstance(value, list) and len(value) == len(items):
            return tuple(
                _value(item, each, source, where) for item, each in zip(items, value, strict=True)
            )
        form = ", ".join(item.__name__ for item in items)
        raise UserError(f"board file {source}: {where} must be [{form}], not {value!r}")
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise UserError(
            f"board file {source}: {where} must be of type {hint.__name__}, not {value!r}"
        )
    return value


def _check(board: Board, source: str) -> None:
    """Hold the numbers of a board to what makes sense."""

    def refuse(what: str) -> None:
        raise UserError(f"board file {source}: {what}")

    if not re.fullmatch(r"\w[\w.-]*", board.name):
        refuse(f"name must be letters, digits, '_', '.' and '-', not {board.name!r}")
    if board.family not in FAMILIES:
        refuse(f"family must be one of {', '.join(FAMILIES)}, not {board.family!r}")
    for key in ("oscillator_mhz", "planned_mhz"):
        if not 0 < getattr(board.clock, key) < 10_000:
            refuse(f"clock.{key} must be a positive number of MHz")
    if board.pll is not None:
        kinds = FAMILIES[board.family]
        if board.pll.kind not in kinds:
            refuse(f"pll.kind must be one of {', '.join(kinds)} for {board.family}")
        for key in ("pfd_mhz", "vco_mhz", "output_mhz"):
            least, greatest = getattr(board.pll, key)
            if not 0 < least <= greatest < 10_000:
                refuse(f"pll.{key} must be [least, greatest] in MHz")
    if board.link is not None and board.link.baud <= 0:
        refuse("link.baud must be positive")
    if board.power is not None:
        if not 0 < board.power.static_mw < 100_000:
            refuse("power.static_mw must be a positive number of mW")
        if not board.power.source.strip():
            refuse("power.source must name the document that static_mw comes from")
    for field in fields(Budget):
        number = getattr(board.budget, field.name)
        least = 0 if field.name in ("bram", "bram_bits", "bram_width", "dsp", "spram") else 1
        if number < least:
            refuse(f"budget.{field.name} must be at least {least}, not {number}")
