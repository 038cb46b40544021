"""Files that are written at the end of long work."""

from __future__ import annotations

from pathlib import Path

from xnorflow.errors import UserError

__all__ = ["check_writable"]


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
