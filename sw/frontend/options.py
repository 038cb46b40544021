"""What a model file does not tell of the network in it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from xnorflow.errors import UserError

__all__ = ["ImportOptions"]


@dataclass(frozen=True)
class ImportOptions:
    """What a user adds to a model file.

    Parameters
    ----------
    sign_zero : int or None
        What ONNX's and torch's sign, which gives 0 for 0, is to give for it: +1 or -1. None
        accepts a sign only where its input is never 0.
    input_scale, input_offset : Fraction
        The network was trained on ``input_scale * byte + input_offset``, such as 1/255 and 0 or
        2/255 and -1, and that arithmetic is not in its file; frames are then bytes.

    Raises
    ------
    UserError
        `sign_zero` is another number, or `input_scale` is zero.
    """

    sign_zero: int | None = None
    input_scale: Fraction = Fraction(1)
    input_offset: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if self.sign_zero not in (None, 1, -1):
            raise UserError(f"the sign of zero cannot be {self.sign_zero}; give +1 or -1")
        if not self.input_scale:
            raise UserError(
                "the input scale is 0, which makes all frames alike; give the factor of the pixels"
            )

    @property
    def scales_input(self) -> bool:
        """Whether frames are bytes that the options take to the network's numbers."""
        return (self.input_scale, self.input_offset) != (1, 0)
