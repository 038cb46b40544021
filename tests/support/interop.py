"""What the scripts in ``tests/interop`` have written with the real frameworks."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnorflow.assemble import assemble
from xnorflow.frontend.options import ImportOptions
from xnorflow.golden import predict, quantize
from xnorflow.lowered import LoweredNetwork
from xnorflow.planning import plan
from xnorflow.sim.verify import verify

__all__ = ["Samples"]

FEWEST_FRAMES = 1000


class Samples:
    """The samples of one framework; its script tells what the files hold.

    Parameters
    ----------
    framework : str
        Folder in the one that the environment variable XNORFLOW_INTEROP names.

    Attributes
    ----------
    folder : Path
    facts : dict
        What ``CASE.json`` holds, case by case.
    accepted, refused : list of str
        Cases.
    """

    def __init__(self, framework: str) -> None:
        self.folder = Path(os.environ.get("XNORFLOW_INTEROP", "build/interop")) / framework
        paths = sorted(self.folder.glob("*.json"))
        self.facts: dict[str, dict[str, Any]] = {p.stem: json.loads(p.read_text()) for p in paths}
        self.accepted = [name for name, facts in self.facts.items() if not facts["obstacles"]]
        self.refused = [name for name, facts in self.facts.items() if facts["obstacles"]]

    def options(self, name: str) -> ImportOptions:
        """Return how a case has to be imported."""
        given = self.facts[name]["options"].items()
        values = {key: Fraction(value) if isinstance(value, str) else value for key, value in given}
        return ImportOptions(**values)

    def results(self, name: str, lowered: LoweredNetwork) -> dict[str, NDArray]:
        """Return the framework's results, with the frames `x` as our network takes them."""
        with np.load(self.folder / f"{name}.npz") as file:
            results = dict(file)
        x = results["x"]
        if x.ndim == 4 and x.shape[1:] != lowered.input.shape:
            results["x"] = x.transpose(0, 2, 3, 1)
        return results

    def compare(self, name: str, lowered: LoweredNetwork) -> None:
        """Check what the golden model gives for every frame."""
        theirs = self.results(name, lowered)
        assert len(theirs["x"]) >= FEWEST_FRAMES
        ours = predict(lowered, theirs["x"])
        # Lowering takes a row of weights times -1 where the scale behind it is negative.
        sums = np.where(theirs["slopes"] < 0, -theirs["accumulators"], theirs["accumulators"])
        # Levels are inverted where that makes a maximum of a minimum, which adds a constant.
        constant = ours.accumulators[0] - sums[0] if lowered.layers[-1].levels > 1 else 0
        np.testing.assert_array_equal(ours.accumulators, sums + constant)
        np.testing.assert_array_equal(ours.classes, theirs["classes"])
        span = np.abs(theirs["logits"]).max()
        np.testing.assert_allclose(ours.logits, theirs["logits"], rtol=0, atol=1e-5 * span)

    def simulate(
        self, name: str, lowered: LoweredNetwork, target_fps: int = 200_000, frames: int = 12
    ) -> None:
        """Check what the hardware gives for a few frames; the target is at 100 MHz."""
        theirs = self.results(name, lowered)
        core = assemble(lowered, plan(lowered, None, target_fps=target_fps).folding)
        result = verify(core, lowered, quantize(lowered, theirs["x"][:frames]), watch_layers=True)
        assert result.mismatches == 0
        np.testing.assert_array_equal(result.classes, theirs["classes"][:frames])
