"""All foldings of each layer, with what they cost: what a search chooses from.

A layer meets the next one in a stream of so many lanes of a pixel of so many channels (padding
included). `Options` lists what a layer can be, by the form of the stream that it takes and the
one that it gives; `Links` holds the width converters between forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnorflow.cost import Cost, Family, stage_cost
from xnorflow.folding import Folding, LayerFolding, legal_pe, legal_simd, usual_latencies
from xnorflow.lowered import LoweredLayer, LoweredNetwork, LoweredPool
from xnorflow.padding import legal_widths
from xnorflow.pipeline import (
    ConverterStage,
    MatrixStage,
    Segment,
    Stage,
    WindowStage,
    linked,
    segment,
    segments,
)
from xnorflow.timing import Marks, arrivals, delays

__all__ = ["Budget", "Complete", "Form", "Links", "Options", "Tables", "tables", "unrolled"]

#: Longer than any time between two beats.
UNKNOWN = 1 << 40

Form = tuple[int, int]
"""Lanes of a stream, and channels of its pixels."""


#: What the share of the block RAMs counts, that of the LUTs being 1, where a board is filled: what
#: is hard to place and route then is LUTs, flip-flops and their wires.
FILLING = 0.25


@dataclass(frozen=True)
class Budget:
    """LUTs (on iCE40 logic cells) and block RAMs that the core may take."""

    lut: float
    bram: int

    def share(self, lut: Any, bram: Any, bram_weight: float = 1.0) -> Any:
        """Return the sum of two shares of the budget; of numbers or arrays."""
        return lut / self.lut + bram_weight * bram / max(self.bram, 1)

    def holds(self, cost: Cost) -> bool:
        """Return whether `cost` fits."""
        return cost.cells <= self.lut and cost.bram <= self.bram


@dataclass(frozen=True)
class Complete:
    """A folding of every layer, with its FIFOs.

    Attributes
    ----------
    path : list of int
        The option taken for each layer.
    lut : float
        Logic cells.
    bram : int
        Block RAMs.
    cycles : int
        The initiation interval.
    latency : int
        0 where none is wanted.
    """

    path: list[int]
    lut: float
    bram: int
    cycles: int
    latency: int

    def share(self, budget: Budget, bram_weight: float = 1.0) -> float:
        """Return `Budget.share`."""
        return float(budget.share(self.lut, self.bram, bram_weight))


@dataclass(frozen=True, eq=False)
class Options:
    """What a layer, with the window before it and the pools behind it, can be.

    Attributes
    ----------
    choices : list of LayerFolding
        The options.
    parts : list of Segment
        The layer, padded as each option says.
    entries, exits : list of Form
        Forms of the streams that come in and go out; of the last layer one stands for all.
    entry, leave : ndarray of int, shape (options,)
        Index of each option's form.
    cycles : ndarray of int, shape (options,)
        Of the slowest stage.
    lut : ndarray of float, shape (options,)
        Logic cells.
    bram : ndarray of int, shape (options,)
    aside : bool
        Whether the layer stands on a shortcut. Then the forms of its streams are left open, and
        what it costs is part of the shortcut's cost.
    """

    choices: list[LayerFolding]
    parts: list[Segment]
    entries: list[Form]
    exits: list[Form]
    entry: NDArray[np.int64]
    leave: NDArray[np.int64]
    cycles: NDArray[np.int64]
    lut: NDArray[np.float64]
    bram: NDArray[np.int64]
    aside: bool = False

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.parts[0].layer.name

    def __len__(self) -> int:
        return len(self.choices)

    def stages(self, option: int, lanes: int | None) -> list[Stage]:
        """Return the stages of an option, behind a stream of `lanes`."""
        return self.parts[option].stages(self.choices[option], lanes)

    def spreads(self) -> NDArray[np.int64]:
        """Return the cycles from a pixel's first beat to its last one, as far as that is known.

        Returns
        -------
        ndarray of int, shape (options,)
            Otherwise `UNKNOWN`, which is longer than any.
        """
        result = []
        for choice, part in zip(self.choices, self.parts, strict=True):
            layer, rest = part.layer, part.tail
            pools = [stage for stage in rest if isinstance(stage, LoweredPool)]
            known = layer.groups == 1 and all(pool.window.tiles for pool in pools)
            beats = layer.mh // choice.o_lanes(layer)
            spread = (beats - 1) * (choice.depth(layer) // beats)
            result.append(spread if known else UNKNOWN)
        return np.array(result)

    def delays(self, i_marks: Marks, o_marks: Marks, source: bool) -> NDArray[np.int64]:
        """Return the `Delays` of the options, shape (options, 3): first, last, work.

        Parameters
        ----------
        i_marks, o_marks : Marks
            See `xnorflow.timing.delays`.
        source : bool
            Whether the frame comes from outside, a beat a cycle from cycle 0 on, and delays count
            from there.
        """
        rows, seen = [], {}
        for choice, part in zip(self.choices, self.parts, strict=True):
            # The memories' places change nothing but the unit's latency.
            key = (part, choice.pe, choice.simd, choice.rom_latency)
            if key not in seen:
                stages = part.stages(choice, None)
                first = last = 0
                if source:
                    stages, first, last = arrivals(stages, prod(part.layer.i_shape[:-1]), i_marks)
                own = delays(part, stages, i_marks, o_marks)
                seen[key] = own.first + first, own.last + last, own.work + first
            rows.append(seen[key])
        return np.array(rows)


@dataclass(frozen=True, eq=False)
class Links:
    """What brings the stream between two layers into another form.

    Attributes
    ----------
    lut : ndarray of float, shape (exits, entries)
        Infinite where the widths differ.
    cycles : ndarray of int, shape (exits, entries)
    """

    lut: NDArray[np.float64]
    cycles: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tables:
    """Options of every layer, and the links before it; before the first layer there is a source.

    Attributes
    ----------
    lowered : LoweredNetwork
    layers : list of Options
        Those on shortcuts first.
    links : list of Links
        As many as layers.
    """

    lowered: LoweredNetwork
    layers: list[Options]
    links: list[Links]

    def stages(self, path: list[int]) -> list[Stage]:
        """Return the pipeline that an option for each layer makes."""
        stages: list[Stage] = []
        lanes: int | None = None
        for layer, option in zip(self.layers, path, strict=True):
            if not layer.aside:
                stages += layer.stages(option, lanes)
                lanes = stages[-1].o_lanes
        return linked(stages, self.lowered, self.folding(path))

    def folding(self, path: list[int]) -> Folding:
        """Return the folding that an option for each layer makes."""
        chosen = {
            layer.name: layer.choices[option]
            for layer, option in zip(self.layers, path, strict=True)
        }
        return {layer.name: chosen[layer.name] for layer in self.lowered.layers}

    def paces(self) -> list[int]:
        """Return every number of cycles that the slowest stage can take, in rising order."""
        arrays = [*(layer.cycles for layer in self.layers), *(link.cycles for link in self.links)]
        return np.unique(np.concatenate([array.reshape(-1) for array in arrays])).tolist()


@lru_cache(maxsize=4)
def tables(lowered: LoweredNetwork, family: Family) -> Tables:
    """Return what a search for a folding of `lowered` chooses from."""
    widths = legal_widths(lowered)
    aside = [
        _options(family, [(part, part.layer.mw, part.layer.mh)], True, True)
        for part in segments(lowered)
        if part.aside
    ]
    layers = []
    for place, pair in enumerate(pairwise(widths)):
        parts = [(segment(lowered, place, *chosen), *chosen) for chosen in product(*pair)]
        layers.append(_options(family, parts, place == 0, place == len(widths) - 2))
    free = Links(np.zeros((1, 1)), np.zeros((1, 1), int))
    links = [free] * (len(aside) + 1)
    links += [_links(family, before, after) for before, after in pairwise(layers)]
    return Tables(lowered, [*aside, *layers], links)


def _options(
    family: Family, padded: list[tuple[Segment, int, int]], first: bool, last: bool
) -> Options:
    """Return the options of a layer, given it with each width before and behind it.

    `first` and `last` say that nothing depends on the form of the stream that comes in or goes out.
    """
    choices, parts, entry, leave, cycles, lut, bram = [], [], [], [], [], [], []
    own = padded[0]
    for part, width, o_width in padded:
        inputs = width if first and width != own[1] else None
        outputs = o_width if o_width != own[2] else None
        for pe, simd in product(legal_pe(part.layer), legal_simd(part.layer)):
            variants = list(_variants(family, part.layer, pe, simd, outputs, inputs))
            stages = part.stages(variants[0], None)
            pace = max(stage.cycles for stage in stages)
            rest = [stage for stage in stages if not isinstance(stage, MatrixStage)]
            around = sum((stage_cost(family, stage, part.output) for stage in rest), Cost())
            lanes = stages[0].lanes if isinstance(stages[0], WindowStage) else simd
            (unit,) = (stage for stage in stages if isinstance(stage, MatrixStage))
            costs = [
                around
                + stage_cost(
                    family,
                    MatrixStage(part.layer, variant, unit.head, unit.granule, unit.cut),
                    part.output,
                )
                for variant in variants
            ]
            for variant, cost in _worthwhile(variants, costs):
                choices.append(variant)
                parts.append(part)
                entry.append((0, 0) if first else (lanes, width))
                leave.append((0, 0) if last else (stages[-1].o_lanes, o_width))
                cycles.append(pace)
                lut.append(cost.cells)
                bram.append(cost.bram)
    entries, exits = sorted(set(entry)), sorted(set(leave))
    places = [{form: n for n, form in enumerate(forms)} for forms in (entries, exits)]
    return Options(
        choices,
        parts,
        entries,
        exits,
        np.array([places[0][form] for form in entry]),
        np.array([places[1][form] for form in leave]),
        np.array(cycles),
        np.array(lut),
        np.array(bram),
        own[0].aside,
    )


def _variants(
    family: Family,
    layer: LoweredLayer,
    pe: int,
    simd: int,
    outputs: int | None,
    inputs: int | None,
) -> Iterator[LayerFolding]:
    """Yield every place for the weights and the input buffer."""
    depth = (layer.rows // pe) * (layer.mw // simd)
    buffers = ("auto", "registers") if pe * layer.groups < layer.rows else ("auto",)
    for weights_in in ("constant",) if depth == 1 else ("lut", "bram"):
        for buffer_in in buffers:
            latencies = usual_latencies(family, weights_in, depth, pe * simd)
            yield LayerFolding(
                pe, simd, weights_in, buffer_in, outputs=outputs, inputs=inputs, **latencies
            )


def _worthwhile(
    variants: list[LayerFolding], costs: list[Cost]
) -> Iterator[tuple[LayerFolding, Cost]]:
    """Yield the variants that no other one beats in everything: cells, block RAMs and latency."""
    ranks = [
        (cost.cells, cost.bram, variant.rom_latency, number)
        for number, (variant, cost) in enumerate(zip(variants, costs, strict=True))
    ]
    for variant, cost, own in zip(variants, costs, ranks, strict=True):
        beaten = any(
            other != own
            and all(theirs <= mine for theirs, mine in zip(other[:3], own[:3], strict=True))
            and other < own
            for other in ranks
        )
        if not beaten:
            yield variant, cost


def _links(family: Family, before: Options, after: Options) -> Links:
    shape = (len(before.exits), len(after.entries))
    lut, cycles = np.full(shape, np.inf), np.zeros(shape, np.int64)
    for n, (o_lanes, o_width) in enumerate(before.exits):
        for m, (lanes, width) in enumerate(after.entries):
            if o_width != width:
                continue
            lut[n, m] = 0.0
            if o_lanes != lanes:
                option = int(np.flatnonzero(after.entry == m)[0])
                part = after.parts[option]
                bits, elements = part.layer.input_bits, prod(part.layer.i_shape)
                converter = ConverterStage("", bits, o_lanes, lanes, elements)
                lut[n, m] = stage_cost(family, converter, part.output).cells
                cycles[n, m] = converter.cycles
    return Links(lut, cycles)


def unrolled(path: tuple) -> list[int]:
    """Return the options of a path, which is nested pairs (path so far, option)."""
    options = []
    while path:
        path, option = path
        options.append(option)
    return options[::-1]
