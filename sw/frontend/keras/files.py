"""Keras files as they lie on the disk: the model's configuration and its weights.

- ``.keras`` (since TensorFlow 2.12, Keras 3 too): a zip of ``config.json`` and
  ``model.weights.h5``, in which the variables of a layer are ``layers/<class>_<n>/vars/0``, ``1``
  and so on;
- ``.h5`` (before): HDF5 with the configuration as the attribute ``model_config`` and the variables
  as ``model_weights/<layer>/<variable>``, whose order the attribute ``weight_names`` tells.

Sizes are checked before anything is unpacked; nothing in a file is executed or unpickled.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from xnorflow.errors import UserError
from xnorflow.frontend.keras.hdf5 import MAX_BYTES, Hdf5, read_hdf5

__all__ = ["KerasFile", "Variable", "Weights", "is_keras", "read_file"]

_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_SUFFIXES = (".keras", ".h5", ".hdf5")

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MAX_CONFIG = 1 << 22
_MAX_LIST = 1 << 20
_MAX_DEPTH = 100
_END_RECORD = struct.Struct("<4s4H2LH")
_SAVE = 'save the whole model with model.save("model.keras")'
_GROUPS = ("layers", "_layer_checkpoint_dependencies")
"""Where ``.keras`` files keep the layers; the second in TensorFlow 2.12."""


@dataclass(frozen=True, eq=False)
class Variable:
    """A layer's array.

    Attributes
    ----------
    name : str
        Such as ``kernel``; empty where the file does not tell.
    values : ndarray
    """

    name: str
    values: NDArray


class Weights(ABC):
    """Finds a layer's variables."""

    @abstractmethod
    def of(self, place: Sequence[str], names: Sequence[str]) -> list[Variable]:
        """Return a layer's variables in the order of their creation, trainable ones first.

        Parameters
        ----------
        place : sequence of str
            The layer's class in small letters with its number, such as ``quant_dense_1``, behind
            those of the models that it is in.
        names : sequence of str
            The layer's name, behind those of the models that it is in.
        """


class _ByPlace(Weights):
    """Of a ``.keras`` file."""

    def __init__(self, content: Hdf5) -> None:
        self._arrays = content.arrays
        self._top = next((group for group in _GROUPS if group in content.attributes), _GROUPS[0])

    def of(self, place: Sequence[str], names: Sequence[str]) -> list[Variable]:
        path = "/".join(f"{self._top}/{part}" for part in place)
        variables: list[Variable] = []
        while (key := f"{path}/vars/{len(variables)}") in self._arrays:
            variables.append(Variable("", self._arrays[key]))
        return variables


class _ByName(Weights):
    """Of a ``.h5`` file."""

    def __init__(self, content: Hdf5) -> None:
        self._content = content
        self._found: dict[str, dict[str, list[Variable]]] = {}

    def of(self, place: Sequence[str], names: Sequence[str]) -> list[Variable]:
        top = names[0]
        if top not in self._found:
            self._found[top] = self._by_layer(f"model_weights/{top}")
        # A model within the model keeps the variables of all its layers in one list.
        return self._found[top].get(names[-1] if len(names) > 1 else "", [])

    def _by_layer(self, group: str) -> dict[str, list[Variable]]:
        """Return a group's variables: those of each layer, and all under the empty name."""
        found: dict[str, list[Variable]] = {"": []}
        for path in self._paths(group):
            if (key := f"{group}/{path}") in self._content.arrays:
                *layers, name = path.split("/")
                variable = Variable(name.partition(":")[0], self._content.arrays[key])
                for layer in {"", *layers[-1:]}:
                    found.setdefault(layer, []).append(variable)
        return found

    def _paths(self, group: str) -> list[str]:
        attributes = self._content.attributes.get(group, {})
        paths: list[str] = []
        # Long lists are cut: weight_names0, weight_names1, ...
        for key in ("weight_names", *(f"weight_names{n}" for n in range(len(attributes)))):
            value = attributes.get(key, [])
            paths += value if isinstance(value, list) else [value]
        return paths


@dataclass(frozen=True, eq=False)
class KerasFile:
    """A model's parts.

    Attributes
    ----------
    path : str
        As the user gave it, for messages.
    config : mapping of str to Any
        The model: ``class_name``, ``config`` and more.
    weights : Weights
    """

    path: str
    config: Mapping[str, Any]
    weights: Weights


def is_keras(path: str | Path) -> bool:
    """Say whether a file is one of Keras, by how it begins or by its name."""
    try:
        with open(path, "rb") as file:
            magic = file.read(len(_HDF5))
    # Whoever reads it will say so.
    except (OSError, ValueError):
        return False
    return magic.startswith((_ZIP, _HDF5)) or Path(path).suffix.lower() in _SUFFIXES


def read_file(path: str | Path) -> KerasFile:
    """Read a ``.keras`` or ``.h5`` file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    KerasFile

    Raises
    ------
    UserError
        There is no such file, or it is damaged, too large or no whole Keras model.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(_HDF5)) == _HDF5:
                return _read_legacy(str(path), file)
            return _read_zip(str(path), file)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the name") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a readable Keras file"
        ) from None


def _read_legacy(path: str, file: IO[bytes]) -> KerasFile:
    content = read_hdf5(path, file, ("model_weights",))
    text = content.attributes.get("", {}).get("model_config")
    if not isinstance(text, str):
        raise UserError(f"{path}: holds weights without the model that they belong to; {_SAVE}")
    return KerasFile(path, _parse(path, text), _ByName(content))


def _read_zip(path: str, file: IO[bytes]) -> KerasFile:
    _check_directory(path, file)
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if _CONFIG not in names:
                raise UserError(
                    f"{path}: is a zip file without {_CONFIG}, so no Keras model; give a file that "
                    f"model.save wrote, or export a PyTorch model to ONNX"
                )
            if _WEIGHTS not in names:
                raise UserError(f"{path}: holds no {_WEIGHTS}; {_SAVE}")
            with tempfile.TemporaryFile() as config:
                _unpack(path, archive, _CONFIG, _MAX_CONFIG, config)
                text = config.read().decode("utf-8")
            with tempfile.TemporaryFile() as weights:
                _unpack(path, archive, _WEIGHTS, MAX_BYTES, weights)
                content = read_hdf5(path, weights, _GROUPS)
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeError, struct.error):
        raise _damaged(path) from None
    # Of zipfile, for what it cannot do: encrypted members, other compressions and versions.
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); {_SAVE}") from None
    return KerasFile(path, _parse(path, text), _ByPlace(content))


def _check_directory(path: str, file: IO[bytes]) -> None:
    """Check the size of the zip's list of members, each of which would take memory."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_RECORD.size - (1 << 16)))
    tail = file.read()
    file.seek(0)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END_RECORD.size:
        raise _damaged(path)
    listed = _END_RECORD.unpack_from(tail, place)[5]
    # A file of the large kind would tell another size elsewhere; Keras writes none.
    if listed > _MAX_LIST or tail[max(place - 20, 0) :].startswith(b"PK\x06\x07"):
        raise UserError(f"{path}: is a zip file of too many parts for a Keras model; {_SAVE}")


def _unpack(path: str, archive: zipfile.ZipFile, name: str, most: int, target: IO[bytes]) -> None:
    """Unpack a member into a file, and set that to its start."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("Keras does not compress in this way")
    if info.file_size > most:
        raise UserError(f"{path}: its {name} has more than {most >> 20} MiB; {_SAVE}")
    # It ends where the list of members says, at the latest.
    with archive.open(info) as source:
        shutil.copyfileobj(source, target)
    target.seek(0)


def _parse(path: str, text: str) -> Mapping[str, Any]:
    if len(text) > _MAX_CONFIG:
        raise UserError(f"{path}: its configuration has more than {_MAX_CONFIG >> 20} MiB; {_SAVE}")
    try:
        # Lists and objects take far more memory than their two characters.
        if len(re.findall(r"[\[{]", text)) > _MAX_CONFIG // 16:
            raise ValueError("too many lists")
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path) from None
    if not isinstance(config, dict) or _too_deep(config):
        raise _damaged(path)
    return config


def _too_deep(config: Any) -> bool:
    level = [config]
    for _ in range(_MAX_DEPTH):
        inner = [list(item.values()) if isinstance(item, dict) else item for item in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
    return bool(level)


def _damaged(path: str) -> UserError:
    return UserError(
        f"{path}: is no Keras file, or is truncated or damaged; give a file that model.save wrote"
    )
