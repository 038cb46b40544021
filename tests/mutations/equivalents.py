"""Changes of the hardware's text that change nothing that a user could notice, and why."""

from dataclasses import dataclass

__all__ = ["EQUIVALENTS", "Equivalent"]


@dataclass(frozen=True)
class Equivalent:
    """A change that no test can notice.

    Attributes
    ----------
    file : str
    old, new : str
        As in `sweep.Change`.
    reason : str
    """

    file: str
    old: str
    new: str
    reason: str


EQUIVALENTS: tuple[Equivalent, ...] = ()
