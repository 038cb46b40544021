"""Where results that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(kind: str) -> Path:
    """Return the user's folder for cached `kind`, by the XDG Base Directory Specification.

    ``$XDG_CACHE_HOME/xnorflow/<kind>``, below ``~/.cache`` where that is not set. It need not be
    there.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "xnorflow" / kind
