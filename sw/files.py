"""Files that are written at the end of long work."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from xnorflow.errors import UserError

__all__ = ["check_writable", "write_files"]


def check_writable(path: str | Path | None, argument: str) -> None:
    """Refuse, before minutes of work, a file that could not be written after it.

    Parameters
    ----------
    path : str, Path or None
        None is fine.
    argument : str
        What the user calls it, for the message.

    Raises
    ------
    UserError
        If `path` is a folder, or in no folder, or may not be written.
    """
    if path is None:
        return
    target = Path(path)
    if target.is_dir():
        raise UserError(f"{argument} {path} is a folder; name a file")
    if not target.absolute().parent.is_dir():
        raise UserError(f"{argument} {path}: the folder {target.parent} does not exist; make it")
    try:
        existed = target.exists()
        with target.open("ab"):
            pass
        if not existed:
            target.unlink()
    except OSError as error:
        raise UserError(f"{argument} {path} cannot be written: {error.strerror}") from None


def write_files(texts: Mapping[str, tuple[str, str]]) -> None:
    """Write several files; each holds all of its text, or what it held before.

    Parameters
    ----------
    texts : mapping of str to (str, str)
        What the user calls the file, to its path and its text.

    Raises
    ------
    UserError
        If one cannot be written; then none was.
    """
    fresh: list[tuple[Path, Path]] = []
    try:
        for argument, (path, text) in texts.items():
            # What a link points to is to be replaced, not the link.
            target = Path(os.path.realpath(path))
            try:
                if Path(path).exists() and not Path(path).is_file():
                    # A pipe or a terminal.
                    Path(path).write_text(text, encoding="utf-8", newline="")
                    continue
                partial = target.with_name(f".xnorflow-{secrets.token_hex(8)}")
                fresh.append((partial, target))
                partial.write_text(text, encoding="utf-8", newline="")
            except OSError as error:
                raise UserError(
                    f"{argument} {path} cannot be written ({error.strerror}); name another file"
                ) from None
        for partial, target in fresh:
            try:
                partial.replace(target)
            except OSError as error:
                raise UserError(
                    f"{target} cannot be replaced ({error.strerror}); name another file"
                ) from None
    finally:
        for partial, _ in fresh:
            partial.unlink(missing_ok=True)
