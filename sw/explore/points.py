"""One configuration to build, and the key under which its result is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from xnorflow import __version__
from xnorflow.boards.board import Board
from xnorflow.boards.tools import find

__all__ = ["Point", "source_digest", "tool_versions"]

#: What turns a folding into a bitstream; in an editable install each has its own folder.
PACKAGES = ("xnorflow", "xnorflow.boards", "xnorflow.hw")


@dataclass(frozen=True, eq=False)
class Point:
    """One configuration of one network.

    Attributes
    ----------
    digest : str
        Of the lowered network.
    board : Board
    folding : mapping of str to mapping
        The content of a folding file.
    seed : int
        Of placement.
    clock_mhz : float or None
        None finds the clock that the design reaches.
    frames : int
        Frames to simulate before the build.
    estimated : mapping of str to float
        ``fps`` at the board's planned clock (or `clock_mhz`), ``cycles_per_frame``, and of the
        whole design ``lut``, ``cells`` (logic cells on iCE40, else LUTs), ``ff`` and ``bram``;
        ``uj`` a frame where the board's power is known.
    """

    digest: str
    board: Board
    folding: Mapping[str, Mapping[str, Any]]
    seed: int
    clock_mhz: float | None
    frames: int
    estimated: Mapping[str, float]

    def key(self, versions: Mapping[str, str]) -> str:
        """Return what the result depends on as 64 hexadecimal digits (SHA-256).

        Parameters
        ----------
        versions : mapping of str to str
            Of the tools, see `tool_versions`.
        """
        content = {
            "digest": self.digest,
            "board": asdict(self.board),
            "folding": self.folding,
            "seed": self.seed,
            "clock_mhz": self.clock_mhz,
            "frames": self.frames,
            "versions": dict(versions),
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return what identifies the point to people."""
        return {
            "board": self.board.name,
            "folding": {name: dict(choice) for name, choice in self.folding.items()},
            "seed": self.seed,
            "clock_mhz": self.clock_mhz,
            "estimated": dict(self.estimated),
        }


def tool_versions(board: Board) -> dict[str, str]:
    """Return the versions of what builds for a board, which results depend on."""
    tools = (find("yosys"), find(f"nextpnr-{board.family}"))
    ours = f"{__version__} {source_digest()}"
    return {"xnorflow": ours, **{tool.name: tool.version for tool in tools}}


@cache
def source_digest() -> str:
    """Return the SHA-256 of the package's own modules: between two versions, too, they change."""
    content = hashlib.sha256()
    for package in PACKAGES:
        for module in sorted(Path(str(files(package))).rglob("*.py")):
            content.update(module.read_bytes())
    return content.hexdigest()
