"""Flipped bits: what upsets in memories and on streams cost a network in accuracy."""

from xnorflow.faults.regions import TARGETS, Region
from xnorflow.faults.study import Point, Series, Study, study
from xnorflow.faults.upsets import Faulty, Upsets

__all__ = [
    "TARGETS",
    "Faulty",
    "Point",
    "Region",
    "Series",
    "Study",
    "Upsets",
    "study",
]
