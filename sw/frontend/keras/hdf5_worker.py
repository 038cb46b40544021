"""Reads an HDF5 file in a process of its own: the C library may crash or hang on a damaged one.

This module is run as a script, by :mod:`xnorflow.frontend.keras.hdf5`. The file's bytes come on
the standard input. What it holds goes to the standard output: a line of JSON, then the arrays one
after the other, little-endian and row-major. The line is ``{"attributes": {path: {key: value}},
"arrays": [[path, dtype, shape], ..]}``, or ``{"error": reason}``. The process limits its memory
and time before it looks at the bytes, and follows no link and nothing that leads out of the file.
"""

from __future__ import annotations

import json
import sys
from math import prod

import h5py
import numpy as np

__all__ = ["main", "read"]

_MAX_OBJECTS = 10_000
_MAX_DEPTH = 64
_MAX_RATIO = 1100
"""Most bytes that one stored byte can unpack to: deflate gives 1032."""
_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}
_FILTERS = {"gzip", "lzf", None}


class _Refused(Exception):
    """The file holds what is not read."""


def _limit(memory: int, seconds: int, output: int) -> None:
    """Limit what this process may use, where the system can."""
    try:
        import resource
    except ImportError:
        return
    limits = [
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, output),
    ]
    for kind, limit in limits:
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        try:
            resource.setrlimit(kind, (limit, limit))
        # Some systems do not know some limits.
        except (OSError, ValueError):
            continue


class _Reader:
    """Walks over groups; `most` is how many bytes of arrays may be read."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.attributes: dict[str, dict[str, object]] = {}
        self.arrays: list[tuple[str, np.ndarray]] = []
        self.seen: set[int] = set()

    def group(self, path: str, group: h5py.Group, below: tuple[str, ...]) -> None:
        """Take a group's attributes and what lies in it, at its top only what `below` names."""
        self._enter(path, group)
        if path.count("/") > _MAX_DEPTH:
            raise _Refused("holds groups too deep in each other")
        self.attributes[path] = {
            key: self._attribute(group, key)
            for key in group.attrs
            if key in ("model_config", "keras_version", "backend")
            or key.startswith(("weight_names", "layer_names"))
        }
        for key in group if not below else [key for key in below if key in group]:
            name = f"{path}/{key}" if path else key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise _Refused(f"holds a link at {name!r}")
            item = group[key]
            if isinstance(item, h5py.Group):
                self.group(name, item, ())
            elif isinstance(item, h5py.Dataset):
                self.dataset(name, item)
            else:
                raise _Refused(f"holds no array at {name!r}")

    def _enter(self, path: str, item: h5py.HLObject) -> None:
        address = hash(item.id)
        if address in self.seen:
            raise _Refused(f"holds the same object again at {path!r}")
        self.seen.add(address)
        if len(self.seen) > _MAX_OBJECTS:
            raise _Refused(f"holds more than {_MAX_OBJECTS} objects")

    def _attribute(self, group: h5py.Group, key: str) -> object:
        value = group.attrs[key]
        values = value.ravel().tolist() if isinstance(value, np.ndarray) else [value]
        texts = [v.decode("utf-8") if isinstance(v, bytes) else v for v in values]
        if not all(isinstance(text, str) for text in texts):
            raise _Refused(f"holds an attribute {key!r} that is no text")
        return texts if isinstance(value, np.ndarray) and value.ndim else texts[0]

    def dataset(self, path: str, dataset: h5py.Dataset) -> None:
        """Read an array, after its size has been compared with what the file stores for it."""
        self._enter(path, dataset)
        kind = dataset.dtype.str[1:]
        if dataset.shape is None or kind not in _TYPES or dataset.dtype.metadata:
            raise _Refused(f"holds {dataset.dtype} at {path!r}, which is no array of numbers")
        if dataset.is_virtual or dataset.external:
            raise _Refused(f"holds values at {path!r} that lie in another file")
        if dataset.compression not in _FILTERS:
            raise _Refused(f"holds values at {path!r} that are compressed in an unknown way")
        size = prod(dataset.shape) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        self.most -= size
        if size > stored * (_MAX_RATIO if dataset.chunks else 1) or self.most < 0:
            raise _Refused(f"holds {size} bytes at {path!r}, of which {stored} are stored")
        array = np.asarray(dataset[()], dtype=f"<{kind}", order="C")
        self.arrays.append((path, array))


def read(image: bytes, most: int, groups: tuple[str, ...]) -> tuple[dict[str, object], list]:
    """Read a file's bytes.

    Parameters
    ----------
    image : bytes
    most : int
        Most bytes of arrays.
    groups : tuple of str
        What to read at the top.

    Returns
    -------
    header : dict of str to object
        Of the output's first line.
    arrays : list of ndarray
    """
    reader = _Reader(most)
    try:
        with h5py.File(h5py.h5f.open_file_image(image)) as file:
            reader.group("", file, groups)
    except _Refused as refused:
        return {"error": str(refused)}, []
    # HDF5 raises about anything for damage.
    except Exception:
        return {"error": ""}, []
    shapes = [[path, array.dtype.str, array.shape] for path, array in reader.arrays]
    header: dict[str, object] = {"attributes": reader.attributes, "arrays": shapes}
    return header, [array for _, array in reader.arrays]


def main(arguments: list[str]) -> None:
    """Read the standard input.

    Parameters
    ----------
    arguments : list of str
        Most bytes of memory, seconds and bytes of arrays; then the names at the top to read.
    """
    memory, seconds, most = map(int, arguments[:3])
    _limit(memory, seconds, most + (1 << 24))
    header, arrays = read(sys.stdin.buffer.read(), most, tuple(arguments[3:]))
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n")
    for array in arrays:
        sys.stdout.buffer.write(array.tobytes())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
