"""Finished points on disk: an interrupted exploration loses none, and none is built twice."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from xnorflow.errors import UserError
from xnorflow.explore.work import Outcome

__all__ = ["Cache"]

_RESULT = "result.json"


class Cache:
    """A folder of results, one sub-folder a point, named by its key.

    Parameters
    ----------
    folder : Path
        Made if it is not there.

    Raises
    ------
    UserError
        If the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(
                f"cache {folder} cannot be written ({error.strerror}); give another folder with "
                f"`cache`"
            ) from None

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a finished point's result, or None."""
        try:
            result = json.loads((self.folder / key / _RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) else None

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep a result and its files; whoever reads sees all of it or nothing."""
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            for name, content in outcome.files.items():
                (fresh / name).write_bytes(content)
            (fresh / _RESULT).write_text(json.dumps(outcome.result), encoding="utf-8")
            target = self.folder / key
            if target.exists():
                shutil.rmtree(target)
            fresh.replace(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def path(self, key: str) -> Path:
        """Return the folder of a finished point: its bitstream and reports."""
        return self.folder / key
