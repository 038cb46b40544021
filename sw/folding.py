"""Folding: how many neurons (PE) and synapses (SIMD) of each layer work in parallel.

A layer with MH outputs and MW inputs takes ``(MH / PE) * (MW / SIMD)`` cycles for each of its
output pixels (Umuroglu et al., FINN, 2017, section 4.3.2); with weights of M planes MH counts rows,
M for each output. Where MH or MW has few divisors, the
layer can be padded (`xnorflow.padding`). A folding file is JSON: layer name to ``pe``, ``simd``
and, if the user wants to choose them too, ``weights_in`` (``constant``, ``lut`` or ``bram``),
``buffer_in`` (``registers`` or ``auto``), ``rom_latency`` (1 to 3) and ``leaf_latency`` (1 or 2),
``outputs`` and, for the first layer, ``inputs`` (channels after padding). ``docs/folding.md`` is
about all this.
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
from xnorflow.hw.cost import Family
from xnorflow.hw.rom import ROM_LATENCIES, ROMStyle, usual_latency
from xnorflow.lowered import LoweredLayer, LoweredNetwork
from xnorflow.padding import legal_widths, own_widths, pad

__all__ = [
    "Folding",
    "LayerFolding",
    "check_folding",
    "default_weights_in",
    "divisors",
    "folding_json",
    "legal_pe",
    "legal_simd",
    "read_folding",
    "usual_latencies",
    "widths",
]

WEIGHTS_IN = ("constant", "lut", "bram")
BUFFER_IN = ("auto", "registers")

#: What a folding file must and may say of a layer.
NEEDED = ("pe", "simd")
FREE = ("weights_in", "buffer_in", "rom_latency", "outputs", "inputs", "leaf_latency")

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
        2 puts one more register behind the weight memory, or in its middle where that is in LUTs,
        and 3 yet another one behind it, for a faster clock; else 1.
    outputs : int or None
        Neurons that the layer is padded to; None leaves it as it is.
    inputs : int or None
        In the first layer: channels that the frame's pixels are padded to.
    leaf_latency : int
        2 puts one more register where bits are counted, for a faster clock; else 1. Layers with
        constant weights or inputs of several bits do not look at it.
    """

    pe: int
    simd: int
    weights_in: str
    buffer_in: str = "auto"
    rom_latency: int = 1
    outputs: int | None = None
    inputs: int | None = None
    leaf_latency: int = 1

    def cycles(self, layer: LoweredLayer) -> int:
        """Return the cycles that the matrix-vector unit of `layer`, padded, takes a frame."""
        return layer.positions * self.depth(layer)

    def depth(self, layer: LoweredLayer) -> int:
        """Return the folds of `layer`, padded: words of its weight memory."""
        return (layer.rows // self.pe) * (layer.mw // self.simd)

    def o_lanes(self, layer: LoweredLayer) -> int:
        """Return the neurons that go out at once."""
        return max(1, self.pe // layer.planes)


#: Layer name to its folding, in data-flow order.
Folding = dict[str, LayerFolding]


def folding_json(folding: Folding) -> dict[str, dict[str, Any]]:
    """Return a folding as a folding file holds it, without what it leaves open."""
    return {name: _entry(choice, name) for name, choice in folding.items()}


def divisors(number: int) -> list[int]:
    """Return the divisors of `number` in rising order."""
    return [d for d in range(1, number + 1) if number % d == 0]


def default_weights_in(depth: int) -> str:
    """Return where the weights of a layer with `depth` folds live unless someone says."""
    if depth == 1:
        return "constant"
    return "lut" if depth <= LUT_ROM_DEPTH else "bram"


def legal_pe(layer: LoweredLayer) -> list[int]:
    """Return the legal PE of a layer in rising order: divisors of a group's rows.

    A neuron has a row for each plane of its weights. PEs hold whole neurons, or a part of one.
    """
    legal = divisors(layer.rows // layer.groups)
    return [pe for pe in legal if pe % layer.planes == 0 or layer.planes % pe == 0]


def legal_simd(layer: LoweredLayer) -> list[int]:
    """Return the legal SIMD of a layer in rising order: divisors of its synapses.

    A grouped convolution with a larger window than a pixel takes at most the channels of a group.
    """
    if layer.groups > 1 and layer.window is not None and not layer.window.is_pixel:
        return divisors(layer.window.shape[2] // layer.groups)
    return divisors(layer.mw)


def widths(lowered: LoweredNetwork, folding: Folding) -> list[int]:
    """Return the widths that `folding` pads the network to, see `xnorflow.padding`."""
    own, names = own_widths(lowered), [layer.name for layer in lowered.main_layers]
    outputs = [folding[name].outputs or own[n] for n, name in enumerate(names, start=1)]
    return [folding[names[0]].inputs or own[0], *outputs]


def read_folding(
    path: str | Path, lowered: LoweredNetwork, family: Family | None = None
) -> Folding:
    """Read and check a folding file.

    Parameters
    ----------
    path : str or Path
    lowered : LoweredNetwork
    family : Family, optional
        What latencies are meant for where the file does not say.

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
    return check_folding(table, lowered, f"folding file {path}", family)


def check_folding(
    table: Any, lowered: LoweredNetwork, source: str, family: Family | None = None
) -> Folding:
    """Check a folding, or say what is illegal in it.

    Parameters
    ----------
    table : mapping
        Layer name to a `LayerFolding`, or to a mapping as in a folding file.
    lowered : LoweredNetwork
    source : str
        What messages call the table.
    family : Family, optional
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
    entries = {name: _entry(table[name], f"{source}, layer {name!r}") for name in names}
    padded = pad(lowered, _check_widths(entries, lowered, source))
    return {
        layer.name: _check_layer(entries[layer.name], layer, source, family)
        for layer in padded.layers
    }


def _entry(entry: Any, where: str) -> dict[str, Any]:
    """Return what a folding says of a layer, without what it leaves open."""
    if isinstance(entry, LayerFolding):
        entry = asdict(entry)
    if isinstance(entry, Mapping):
        said = {key: value for key, value in entry.items() if value is not None}
        if set(NEEDED) <= set(said) <= {*NEEDED, *FREE}:
            return said
    raise UserError(f"{where}: give an object with pe and simd, and at most {FREE} besides")


def _check_widths(
    entries: Mapping[str, dict[str, Any]], lowered: LoweredNetwork, source: str
) -> list[int]:
    """Return the widths that a folding pads the network to, or say what is wrong with them."""
    result = own_widths(lowered)
    names = [layer.name for layer in lowered.main_layers]
    asked = [(names[0], "inputs"), *((name, "outputs") for name in names)]
    for name in entries:
        if "inputs" in entries[name] and name != names[0]:
            raise UserError(
                f"{source}, layer {name!r}: inputs is for the first layer only; give outputs in "
                "the layer before"
            )
        if "outputs" in entries[name] and name not in names:
            raise UserError(
                f"{source}, layer {name!r}: outputs is not for layers on shortcuts; leave it out"
            )
    for place, ((name, key), legal) in enumerate(zip(asked, legal_widths(lowered), strict=True)):
        value = entries[name].get(key, result[place])
        if not _is_whole(value) or value not in legal:
            raise UserError(
                f"{source}, layer {name!r}: {key} is {value!r} but must be one of {legal}"
            )
        result[place] = int(value)
    return result


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_layer(
    entry: dict[str, Any], layer: LoweredLayer, source: str, family: Family | None
) -> LayerFolding:
    """Check what a folding says of a layer, which is padded as it says."""
    where = f"{source}, layer {layer.name!r}"
    for key, legal in (("pe", legal_pe(layer)), ("simd", legal_simd(layer))):
        if not _is_whole(entry[key]) or entry[key] not in legal:
            raise UserError(
                f"{where}: {key} is {entry[key]!r} but must divide {legal[-1]}; legal are {legal}"
            )
    depth = (layer.rows // entry["pe"]) * (layer.mw // entry["simd"])
    weights_in = entry.get("weights_in", default_weights_in(depth))
    buffer_in = entry.get("buffer_in", "auto")
    if weights_in not in WEIGHTS_IN or (weights_in == "constant" and depth > 1):
        places = WEIGHTS_IN if depth == 1 else WEIGHTS_IN[1:]
        raise UserError(
            f"{where}: weights_in is {weights_in!r} but must be one of {places} with {depth} folds"
        )
    if buffer_in not in BUFFER_IN:
        raise UserError(f"{where}: buffer_in is {buffer_in!r} but must be one of {BUFFER_IN}")
    latencies = usual_latencies(family, weights_in, depth, entry["pe"] * entry["simd"])
    for key in latencies:
        latencies[key] = entry.get(key, latencies[key])
        cycles = ROM_LATENCIES if key == "rom_latency" else (1, 2)
        if type(latencies[key]) is not int or latencies[key] not in cycles:
            choices = " or ".join(", ".join(map(str, cycles)).rsplit(", ", 1))
            raise UserError(f"{where}: {key} is {latencies[key]!r} but must be {choices}")
    padded = {key: int(entry[key]) for key in ("outputs", "inputs") if key in entry}
    return LayerFolding(
        int(entry["pe"]), int(entry["simd"]), weights_in, buffer_in, **latencies, **padded
    )


def usual_latencies(
    family: Family | None, weights_in: str, depth: int, width: int
) -> dict[str, int]:
    """Return the latencies of a layer whose folding does not say.

    Parameters
    ----------
    family : Family, optional
        None is one with fast block RAM and short wires.
    weights_in : str
    depth, width : int
        Words of the weight memory, and bits of each.

    Returns
    -------
    dict of str to int
        ``rom_latency`` and ``leaf_latency``.
    """
    leaf = 1 if family is None or weights_in == "constant" else family.leaf_latency
    return {
        "rom_latency": usual_latency(family, ROMStyle(weights_in), depth, width),
        "leaf_latency": leaf,
    }
