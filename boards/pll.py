"""Which clock a board's PLL can make: the arithmetic, apart from the primitive.

Both families are solved by trying every legal divider; all arithmetic is exact.

- iCE40, *simple* feedback (iCE40 sysCLOCK PLL Design and User Guide, FPGA-TN-02052)::

      f_PFD = f_REF / (DIVR + 1)
      f_VCO = f_PFD · (DIVF + 1)
      f_OUT = f_VCO / 2^DIVQ          DIVR 0…15, DIVF 0…127, DIVQ 1…6

- ECP5, feedback from CLKOP with CLKFB_DIV = 1 and the clock taken from CLKOS (ECP5 and ECP5-5G
  sysCLOCK PLL/DLL Design and User Guide, FPGA-TN-02200)::

      f_PFD = f_IN / CLKI_DIV         (= f_CLKOP)
      f_VCO = f_PFD · CLKOP_DIV
      f_OUT = f_VCO / CLKOS_DIV       each divider 1…128

  The second output costs nothing and divides the oscillator finely, where CLKOP alone could only
  give multiples of f_PFD.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import isfinite

from xnorflow.boards.board import Board, PLLLimits
from xnorflow.errors import UserError

__all__ = ["PLLSetting", "settings", "solve"]

FILTER_RANGES = ((17, 1), (26, 2), (44, 3), (66, 4), (101, 5))
"""iCE40 loop filter: (f_PFD in MHz below which, FILTER_RANGE); 6 above them all.

The data sheets leave the table to the vendor's tool; these are the steps of Project IceStorm's.
"""


@dataclass(frozen=True)
class PLLSetting:
    """A clock that the board can make.

    Attributes
    ----------
    kind : str
        The primitive, or ``oscillator`` when the board's clock is used as it is.
    reference : Fraction
        Frequency of the oscillator, MHz.
    frequency : Fraction
        Frequency of the core clock, MHz.
    vco, pfd : Fraction
        Frequency in the PLL's oscillator and at its phase detector, MHz; 0 without a PLL.
    parameters : tuple of (str, int)
        The primitive's dividers by name.
    """

    kind: str
    reference: Fraction
    frequency: Fraction
    vco: Fraction = Fraction(0)
    pfd: Fraction = Fraction(0)
    parameters: tuple[tuple[str, int], ...] = ()

    def without_pll(self) -> "PLLSetting":
        """Return the same clock from an oscillator, as simulation has it."""
        return PLLSetting("oscillator", self.frequency, self.frequency)

    @property
    def mhz(self) -> float:
        """Frequency of the core clock in MHz as a float."""
        return float(self.frequency)

    @property
    def hz(self) -> int:
        """Frequency of the core clock, rounded to hertz."""
        return round(self.frequency * 10**6)


@cache
def settings(board: Board) -> tuple[PLLSetting, ...]:
    """Return every clock that `board` can make, the slowest first.

    Of settings with the same frequency the better comes later: the oscillator itself is the best,
    then the fastest phase detector and the fastest PLL oscillator, which jitter least.
    """
    reference = Fraction(str(board.clock.oscillator_mhz))
    every = [PLLSetting("oscillator", reference, reference)]
    if board.pll is not None:
        solver = _ecp5 if board.pll.kind == "EHXPLLL" else _ice40
        every += solver(board.pll, reference)
    return tuple(sorted(every, key=lambda s: (s.frequency, s.kind == "oscillator", s.pfd, s.vco)))


def solve(
    board: Board,
    mhz: float | Fraction,
    usable: Callable[[PLLSetting], bool] = lambda setting: True,
) -> PLLSetting:
    """Return the usable clock nearest to `mhz` and not above it.

    Of several settings with that frequency it is the last of :func:`settings`.

    Parameters
    ----------
    board : Board
        The board.
    mhz : float or Fraction
        Wanted frequency, MHz.
    usable : callable, optional
        Says whether a clock will do, for example because the link's baud rate divides it well
        enough.

    Raises
    ------
    UserError
        If `mhz` is no number or below all usable clocks that the board can make.
    """
    if not isfinite(mhz):
        raise UserError(f"clock must be a number of MHz, not {mhz}")
    # A float names the decimal that it prints as: 33.3 means 333/10.
    wanted = mhz if isinstance(mhz, Fraction) else Fraction(str(mhz))
    every = settings(board)
    legal = bisect_right(every, wanted, key=lambda setting: setting.frequency)
    for setting in reversed(every[:legal]):
        if usable(setting):
            return setting
    least = next((setting for setting in every if usable(setting)), None)
    if least is None:
        raise UserError(f"board {board.name} can make no usable clock; choose another baud rate")
    raise UserError(
        f"board {board.name} cannot make a clock of {float(wanted):g} MHz; its slowest is "
        f"{least.mhz:g} MHz"
    )


def _within(limits: tuple[float, float], frequency: Fraction) -> bool:
    return limits[0] <= frequency <= limits[1]


def _ice40(limits: PLLLimits, reference: Fraction) -> Iterator[PLLSetting]:
    for divr in range(16):
        pfd = reference / (divr + 1)
        if not _within(limits.pfd_mhz, pfd):
            continue
        filter_range = next((value for below, value in FILTER_RANGES if pfd < below), 6)
        for divf in range(128):
            vco = pfd * (divf + 1)
            if not _within(limits.vco_mhz, vco):
                continue
            for divq in range(1, 7):
                frequency = vco / 2**divq
                if _within(limits.output_mhz, frequency):
                    parameters = (
                        ("DIVR", divr),
                        ("DIVF", divf),
                        ("DIVQ", divq),
                        ("FILTER_RANGE", filter_range),
                    )
                    yield PLLSetting(limits.kind, reference, frequency, vco, pfd, parameters)


def _ecp5(limits: PLLLimits, reference: Fraction) -> Iterator[PLLSetting]:
    for clki in range(1, 129):
        pfd = reference / clki
        if not (_within(limits.pfd_mhz, pfd) and _within(limits.output_mhz, pfd)):
            continue
        for clkop in range(1, 129):
            vco = pfd * clkop
            if not _within(limits.vco_mhz, vco):
                continue
            for clkos in range(1, 129):
                frequency = vco / clkos
                if _within(limits.output_mhz, frequency):
                    parameters = (
                        ("CLKI_DIV", clki),
                        ("CLKFB_DIV", 1),
                        ("CLKOP_DIV", clkop),
                        ("CLKOS_DIV", clkos),
                    )
                    yield PLLSetting(limits.kind, reference, frequency, vco, pfd, parameters)
