"""What an engine gives back after it has run frames through a core."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["CoreRun"]


@dataclass(frozen=True, eq=False)
class CoreRun:
    """Outputs and timing of N frames.

    Attributes
    ----------
    scores : ndarray of int64, shape (N, classes)
    classes : ndarray of int64, shape (N,)
        The arg-max that the hardware gave in each frame's last beat.
    framed : bool
        Whether `last` was set in every frame's last beat and in no other.
    first_input_cycle : int
        Cycle in which the first frame's first beat was taken.
    last_output_cycles : ndarray of int64, shape (N,)
        Cycle in which each frame's last beat left.
    stages : dict of ndarray of int, each of shape (N, elements)
        What each stage of the core sent on, by name; empty unless asked for.
    """

    scores: NDArray[np.int64]
    classes: NDArray[np.int64]
    framed: bool
    first_input_cycle: int
    last_output_cycles: NDArray[np.int64]
    stages: dict[str, NDArray[np.int64]] = field(default_factory=dict)
