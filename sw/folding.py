"""Folding: how many neurons (PE) and synapses (SIMD) of each layer work in parallel.

A layer with MH outputs and MW inputs takes ``(MH / PE) * (MW / SIMD)`` cycles for each of its
output pixels (Umuroglu et al., FINN, 2017, section 4.3.2). A folding file is JSON: layer name to
``pe``, ``simd`` and, if the user wants to choose them too, ``weights_in`` (``constant``, ``lut`` or
``bram``), ``buffer_in`` (``registers`` or ``auto``) and ``rom_latency`` (1 or 2).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xnorflow.errors import UserError
from xnorflow.lowered import LoweredLayer, LoweredNetwork

__all__ = [
    "Folding",
    "LayerFolding",
    "check_folding",
    "default_weights_in",
    "divisors",
    "legal_pe",
    "legal_simd",
    "read_folding",
]

WEIGHTS_IN = ("constant", "lut", "bram")
BUFFER_IN = ("auto", "registers")

#: Deepest weight memory that is cheaper in LUTs than in block RAM: a LUT4 holds 16 words of a bit.
LUT_ROM_DEPTH = 16


@dataclass(frozen=True)
class LayerFolding:
    """The hardware choices of one layer.

    Attributes
    ----------
    pe, simd : int
        See `legal_pe` and `legal_simd`.
    weights_in : str
        ``constant`` (a single fold only), ``lut`` or ``bram``.
    buffer_in : str
        Where the input vectors are kept: ``registers``, or ``auto`` for the tools' choice.
    rom_latency : int
        2 puts one more register behind the weight memory, for a faster clock; else 1.
    """

    pe: int
    simd: int
    weights_in: str
    buffer_in: str = "auto"
    rom_latency: int = 1

    def cycles(self, layer: LoweredLayer) -> int:
        """Return the cycles that the matrix-vector unit of `layer` takes a frame."""
        return layer.positions * (layer.mh // self.pe) * (layer.mw // self.simd)


#: Layer name to its folding, in data-flow order.
Folding = dict[str, LayerFolding]


def divisors(number: int) -> list[int]:
    """Return the divisors of `number` in rising order."""
    return [d for d in range(1, number + 1) if number % d == 0]


def default_weights_in(depth: int) -> str:
    """Return where the weights of a layer with `depth` folds live unless someone says."""
    if depth == 1:
        return "constant"
    return "lut" if depth <= LUT_ROM_DEPTH else "bram"


def legal_pe(layer: LoweredLayer) -> list[int]:
    """Return the legal PE of a layer in rising order: divisors of a group's neurons."""
    return divisors(layer.mh // layer.groups)


def legal_simd(layer: LoweredLayer) -> list[int]:
    """Return the legal SIMD of a layer in rising order: divisors of its synapses.

    A grouped convolution with a larger window than a pixel takes at most the channels of a group.
    """
    if layer.groups > 1 and layer.window is not None and not layer.window.is_pixel:
        return divisors(layer.window.shape[2] // layer.groups)
    return divisors(layer.mw)


def read_folding(path: str | Path, lowered: LoweredNetwork, bram_latency: int = 1) -> Folding:
    """Read and check a folding file.

    Parameters
    ----------
    path : str or Path
    lowered : LoweredNetwork
    bram_latency : int
        ``rom_latency`` of layers with weights in block RAM, where the file does not say.

    Raises
    ------
    UserError
        If the file cannot be read, is no JSON object, names an unknown layer, leaves one out, or
        asks for something illegal; the message lists the legal divisors.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"folding file {path} cannot be read ({error}); give a JSON object such as "
            '{"fc1": {"pe": 8, "simd": 16}}'
        ) from None
    return check_folding(table, lowered, f"folding file {path}", bram_latency)


def check_folding(
    table: Any, lowered: LoweredNetwork, source: str, bram_latency: int = 1
) -> Folding:
    """Check a folding, or say what is illegal in it.

    Parameters
    ----------
    table : mapping
        Layer name to a `LayerFolding`, or to a mapping as in a folding file.
    lowered : LoweredNetwork
    source : str
        What messages call the table.
    bram_latency : int
        See `read_folding`.

    Raises
    ------
    UserError
        As `read_folding`.
    """
    names = [layer.name for layer in lowered.layers]
    if not isinstance(table, Mapping):
        raise UserError(f"{source} must map each of the layers {names} to its pe and simd")
    for name in table:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the layers are {names}"
            raise UserError(f"{source} names layer {name!r}, which the network lacks{hint}")
    for name in names:
        if name not in table:
            raise UserError(f"{source} leaves out layer {name!r}; add its pe and simd")
    return {
        layer.name: _check_layer(table[layer.name], layer, source, bram_latency)
        for layer in lowered.layers
    }


def _check_layer(entry: Any, layer: LoweredLayer, source: str, bram_latency: int) -> LayerFolding:
    where = f"{source}, layer {layer.name!r}"
    if isinstance(entry, LayerFolding):
        entry = asdict(entry)
    keys = ("pe", "simd", "weights_in", "buffer_in", "rom_latency")
    if not isinstance(entry, Mapping) or not {"pe", "simd"} <= set(entry) <= set(keys):
        raise UserError(f"{where}: give an object with pe and simd, and at most {keys[2:]} besides")
    for key, legal in (("pe", legal_pe(layer)), ("simd", legal_simd(layer))):
        value = entry[key]
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value not in legal:
            raise UserError(
                f"{where}: {key} is {value!r} but must divide {legal[-1]}; legal are {legal}"
            )
    depth = (layer.mh // entry["pe"]) * (layer.mw // entry["simd"])
    weights_in = entry.get("weights_in", default_weights_in(depth))
    buffer_in = entry.get("buffer_in", "auto")
    if weights_in not in WEIGHTS_IN or (weights_in == "constant" and depth > 1):
        places = WEIGHTS_IN if depth == 1 else WEIGHTS_IN[1:]
        raise UserError(
            f"{where}: weights_in is {weights_in!r} but must be one of {places} with {depth} folds"
        )
    if buffer_in not in BUFFER_IN:
        raise UserError(f"{where}: buffer_in is {buffer_in!r} but must be one of {BUFFER_IN}")
    rom_latency = entry.get("rom_latency", bram_latency if weights_in == "bram" else 1)
    if type(rom_latency) is not int or rom_latency not in (1, 2):
        raise UserError(f"{where}: rom_latency is {rom_latency!r} but must be 1 or 2")
    return LayerFolding(int(entry["pe"]), int(entry["simd"]), weights_in, buffer_in, rom_latency)
