"""HDF5 files, read by another process so that a damaged file cannot take this one down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError

__all__ = ["MAX_BYTES", "Hdf5", "read_hdf5"]

MAX_BYTES = 1 << 30
"""Largest file of weights, and most bytes of arrays in it."""

_WORKER = Path(__file__).with_name("hdf5_worker.py")
_MAX_UNPACKED = 64
_SECONDS = 20
_BASE_MEMORY = 1 << 30  # what Python and its libraries reserve, most of it never used
_MAX_HEADER = 1 << 25


@dataclass(frozen=True, eq=False)
class Hdf5:
    """What a file holds.

    Attributes
    ----------
    attributes : mapping of str to mapping of str to str or list of str
        Of the groups, by their path; the root's is empty.
    arrays : mapping of str to ndarray
        By their path, such as ``layers/dense/vars/0``.
    """

    attributes: Mapping[str, Mapping[str, Any]]
    arrays: Mapping[str, NDArray]


def read_hdf5(path: str, file: IO[bytes], groups: tuple[str, ...]) -> Hdf5:
    """Read an HDF5 file.

    Parameters
    ----------
    path : str
        For messages.
    file : file object
        With a descriptor.
    groups : tuple of str
        What to read at the top, as far as it is there.

    Returns
    -------
    Hdf5

    Raises
    ------
    UserError
        The file is too large or damaged, or holds links or values that lie in other files.
    """
    size = os.fstat(file.fileno()).st_size
    if size > MAX_BYTES:
        raise UserError(f"{path}: holds more than {MAX_BYTES >> 30} GiB of weights; save less")
    most = min(max(size, 1 << 20) * _MAX_UNPACKED, MAX_BYTES)
    limits = [_BASE_MEMORY + 2 * size + 2 * most, _SECONDS, most]
    # -P: no module beside the worker is taken for one of the standard library.
    command = [sys.executable, "-P", str(_WORKER), *map(str, limits), *groups]
    # Threads of the linear algebra library would each reserve memory.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # The other process sees the descriptor's own position only.
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.run(
                command,
                stdin=file,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _damaged(path, f"reading it took more than {_SECONDS} seconds") from None
        if process.returncode:
            raise _damaged(path)
        output.seek(0)
        try:
            header = json.loads(output.readline(_MAX_HEADER))
        except ValueError:
            raise _damaged(path) from None
        if "error" in header:
            if header["error"]:
                raise UserError(f"{path}: {header['error']}; save the model again")
            raise _damaged(path)
        arrays = {}
        for name, dtype, shape in header["arrays"]:
            values = output.read(prod(shape) * np.dtype(dtype).itemsize)
            arrays[name] = np.frombuffer(values, dtype).reshape(shape)
    return Hdf5(header["attributes"], arrays)


def _damaged(path: str, why: str = "") -> UserError:
    reason = f" ({why})" if why else ""
    return UserError(
        f"{path}: its HDF5 data are truncated or damaged{reason}; copy it or save the model again"
    )
