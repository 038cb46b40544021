"""Lowering: from what a network means to the integers that the hardware computes, exactly.

Between two matrices a channel undergoes a chain of affine maps whose scales may hold square roots
(batch norm divides by ``sqrt(var + eps)``). Every decision below - is this value at least zero,
which logit is larger - is taken on such numbers without rounding, see :mod:`xnorflow.surd`;
float32 arithmetic, which may round a near-tie the other way, is never consulted.

The walk over the operations keeps, per channel, the affine map ``value = scale * unit + offset``
from the last *unit* to the tensor at hand, where the unit is the raw frame, an unsigned integer of
the quantized frame, a bit in {-1, +1}, an activation of several bits, an accumulator, or an integer
that a stage sends on.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from math import lcm, prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xnorflow.affine import Chain, apply, same, turned
from xnorflow.draft import Draft
from xnorflow.errors import UserError
from xnorflow.input_thresholds import quantizer_thresholds, sign_threshold, step_thresholds
from xnorflow.joins import added, of_lanes
from xnorflow.levels import Levels
from xnorflow.lowered import (
    InputQuantizer,
    LoweredJoin,
    LoweredLayer,
    LoweredMagnitude,
    LoweredNetwork,
    LoweredOutput,
    LoweredPool,
    LoweredStage,
    LoweredThreshold,
    Window,
)
from xnorflow.magnitudes import fixed_point
from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Join,
    MaxPool,
    MultiThreshold,
    Network,
    Op,
    PixelGain,
    Quantize,
    Sign,
)
from xnorflow.scores import integer_scores
from xnorflow.surd import ONE, ZERO, Surd

__all__ = ["lower"]

_LARGEST_LANE = (1 << 16) - 1
"""Largest integer that an input lane may hold."""

_LARGEST_ACCUMULATOR = (1 << 31) - 1
"""Largest magnitude of accumulators and of their sums."""

_MOST_THRESHOLDS = 1 << 24
"""Largest number of an input's thresholds that finer units may lead to."""


class _Unit(Enum):
    """What the chain starts from."""

    FRAME = "the raw frame"
    INTEGER = "the quantized frame"
    BIT = "bits"
    LEVEL = "activations of several bits"
    ACCUMULATOR = "accumulators"
    SUM = "integers"


def lower(network: Network) -> LoweredNetwork:
    """Lower a network to integers that give, for every frame, the exact network's class.

    - *Input*: the maps before the first `Sign` become one float32 threshold per feature, those
      before a `Quantize` one per level. Where the scale is negative the bit is the complement
      ``x > t`` and the integer counts from the other end, and the column of the first layer's
      weights changes sign. A raw frame is taken as bytes.
    - *Hidden layers*: the maps between a layer and its `Sign` become one integer threshold per
      neuron (Umuroglu et al., *FINN*, 2017, section 4.2.2). Where the scale is negative the row of
      weights changes sign, so ``acc >= threshold`` is the one comparison; a zero scale gives a
      neuron that is always on (``acc_min``) or dead (``acc_max + 1``).
    - *Bits and integers with a scale and offset*: a magnitude common to all channels of a group
      moves behind the next layer; signs go into its columns; offsets become one constant per
      neuron, and what padded taps hold is told in units.
    - *Activations of several bits*: a threshold for each level, and a true zero or any other level
      as padding. What comes out counts levels; scale and offset of the quantizer go on as above.
    - *Weights of several bits*, and sums of binary ones: integers, see :mod:`xnorflow.planes`.
    - *Max pools*, before a quantizer or behind it: rising maps turn the maximum into an OR of bits
      (a maximum of levels), falling ones into an AND, for which the layer before sends on the
      complement of its bit. Where another pool or a shortcut wants that bit as it is, the pool
      takes the AND (the minimum).
    - *Shortcuts*: the tensor where one begins is sent on as it is, bits or integers, and comes back
      at its join, through the shortcut's own layers if it has some. Both sides of an addition are
      integers of one unit, which needs a rational ratio of their scales.
    - *Gains of pixels* (XNOR-Net's K): sums of magnitudes in a fixed point, see
      :mod:`xnorflow.magnitudes`, which come to the layer's accumulators as a shortcut does.
    - *Padding of integers*: where a padded tap lies between two of them, all are counted in finer
      units.
    - *Average pools*: sums, whose number of taps divides the scale.
    - *Output*: the maps after the last layer become an integer scale and offset per class, see
      :mod:`xnorflow.scores`; a negative scale goes into the row of weights.

    Parameters
    ----------
    network : Network
        Layers with a `Sign` between, and the maps, pools and flattens that the hardware can
        absorb.

    Returns
    -------
    LoweredNetwork

    Raises
    ------
    UserError
        If the network has a form that bits, integers and ORs cannot give exactly, shapes
        disagree, or a parameter is not finite or out of range.
    """
    walk = _Walk(network)
    walk.follow(network.ops)
    return walk.finish()


@dataclass
class _Pool:
    """A max pool that no stage has taken up yet.

    Attributes
    ----------
    name : str
    window : Window
    rising : ndarray of int64, shape (C,)
        Per channel 1 where the pool takes the maximum of units, -1 where the minimum, 0 where
        units do not matter.
    """

    name: str
    window: Window
    rising: NDArray[np.int64]


class _Walk:
    """The state between two operations.

    Attributes
    ----------
    shape : tuple of int
        Of the tensor at hand.
    image : tuple of int
        Its shape before it was flattened.
    order : ndarray of int64, shape (F,), or None
        Of a flattened image, the place of every feature in (H, W, C) order.
    unit : _Unit
    chain : list of (scale, offset)
        From the unit to the tensor at hand, per channel (last axis).
    low, levels : int
        Least and largest INTEGER or SUM.
    frame : InputQuantizer or None
    stages : list of LoweredStage
        Settled ones.
    draft : Draft or None
        The layer behind them, of ACCUMULATOR, LEVEL or BIT; BIT without a draft is settled.
    pools : list of _Pool
        Behind stages and draft.
    layer, quantizer : str
        Names of the last ones.
    taps : dict of int to _Walk
        By number of operations, the state where a shortcut begins.
    tapped : set of int
        Stages at which one does.
    """

    def __init__(self, network: Network):
        self.network = network
        self.where = f"network {network.name!r}"
        self.shape = self.image = tuple(network.input_shape)
        self.order: NDArray[np.int64] | None = None
        self.unit = _Unit.FRAME
        self.chain: Chain = [(ONE, ZERO)] * self.shape[-1]
        self.low, self.levels = 0, 1
        self.frame: InputQuantizer | None = None
        self.stages: list[LoweredStage] = []
        self.draft: Draft | None = None
        self.pools: list[_Pool] = []
        self.layer = self.quantizer = ""
        self.taps: dict[int, _Walk] = {}
        self.tapped: set[int] = set()

    def follow(self, ops: Iterable[Op]) -> None:
        """Take the network's operations."""
        joins = {op.source: op for op in self.network.ops if isinstance(op, Join | PixelGain)}
        for done, op in enumerate(ops):
            if done in joins:
                self._tap(done, joins[done])
            self.step(op)

    def step(self, op: Op) -> None:
        """Take one operation."""
        match op:
            case Flatten():
                self._flatten(op)
            case Affine() | BatchNorm():
                self.chain = apply(op, self.chain, self.where)
            case Sign() | Quantize() | MultiThreshold():
                self._quantize(op)
            case Dense() | Conv2d():
                self._layer(op)
            case MaxPool():
                self._max_pool(op)
            case AveragePool():
                self._average_pool(op)
            case Join():
                self._join(op)
            case PixelGain():
                self._pixel_gain(op)

    def finish(self) -> LoweredNetwork:
        """Return the lowered network, the last layer's accumulators being the logits'."""
        if not self.layer or self.frame is None:
            raise UserError(
                f"{self.where} has no weight layer; give a network with at least one Dense or "
                f"Conv2d"
            )
        if self.stages and not isinstance(self.stages[0], LoweredLayer):
            raise UserError(
                f"{self.where}: pool {self.stages[0].name!r} comes before the first layer, where "
                f"the hardware has none; put it behind that layer or scale the frames down "
                f"beforehand"
            )
        if self.unit is _Unit.BIT:
            raise UserError(
                f"{self.where}: quantizer {self.quantizer!r} follows the last layer "
                f"{self.layer!r}, which leaves only bits that no arg-max can rank; remove it so "
                f"that the layer gives scores"
            )
        if self.pools or self.unit is _Unit.LEVEL:
            self._settled()
        if prod(self.image[:-1]) != 1:
            raise UserError(
                f"{self.where}: its output has the shape {self.image}, not one value per class; "
                f"put a global average pool or a Flatten and a Dense at its end"
            )
        where = f"{self.where}: layer {self.layer!r}"
        if self.draft is not None:
            layer, pools, low, high, chain = self.draft.folded(self.chain)
            self.stages += [layer, *pools]
            step = self.draft.step
        else:
            chain, step = self.chain, 1
            low = np.full(len(chain), self.low, np.int64)
            high = np.full(len(chain), self.levels, np.int64)
            if any(scale.sign() < 0 for scale, _ in chain):
                raise UserError(
                    f"{where}: its sums have a negative scale at the end of the network; end with "
                    f"a layer or with positive scales"
                )
        scale, offset = integer_scores(chain, low, high, step, where)
        output = LoweredOutput(
            scale,
            offset,
            np.array([float(s) for s, _ in chain]),
            np.array([float(o) for _, o in chain]),
        )
        return LoweredNetwork(self.network.name, self.frame, _named_apart(self.stages), output)

    def _flatten(self, op: Flatten) -> None:
        if len(self.shape) == 1:
            return
        places = np.arange(prod(self.shape), dtype=np.int64).reshape(self.shape)
        channels_first = op.channels_first
        self.order = (np.moveaxis(places, -1, 0) if channels_first else places).ravel()
        self.chain = [self.chain[place % self.shape[-1]] for place in self.order.tolist()]
        self.image, self.shape = self.shape, (len(self.chain),)

    def _in_place(self, of_features: list) -> list:
        """Return a list per feature of the tensor at hand in (H, W, C) order."""
        if self.order is None:
            return of_features
        return [of_features[feature] for feature in np.argsort(self.order).tolist()]

    def _of_channels(self, what: str) -> Chain:
        """Return the chain per channel of the hardware, of a flattened image too."""
        chain = self._in_place(self.chain)
        channels = self.image[-1]
        for feature, one in enumerate(chain):
            if not same(one, chain[feature % channels]):
                raise UserError(
                    f"{self.where}: {what} follows maps that differ between the pixels of one "
                    f"channel, for which the hardware has one threshold a channel only; put them "
                    f"before the flatten, one value per channel"
                )
        return chain[:channels]

    # The frame

    def _of_frame(self, of_channels: list[NDArray[np.float32]]) -> None:
        """Set the input's thresholds, given those per channel or per feature, (levels,) each."""
        columns = np.stack(self._in_place(of_channels), axis=1)
        repeats = prod(self.network.input_shape) // columns.shape[1]
        self.frame = InputQuantizer(self.network.input_shape, np.tile(columns, (1, repeats)))

    def _quantize_frame(self, op: Sign | Quantize | MultiThreshold, levels: Levels) -> None:
        """Set the input's thresholds; a falling scale counts down from the highest level."""
        kinds: dict[tuple, NDArray[np.float32]] = {}
        columns = []
        for channel, (scale, offset) in enumerate(self.chain):
            key = (scale, offset, channel % len(levels.steps))
            if key not in kinds:
                match op:
                    case Sign():
                        kinds[key] = np.array([sign_threshold(scale, offset)])
                    case Quantize():
                        kinds[key] = quantizer_thresholds(op, scale, offset)
                    case MultiThreshold():
                        kinds[key] = step_thresholds(levels, channel, scale, offset)
            columns.append(kinds[key])
        if len(kinds) == 1 and levels.top > 1:
            self.frame = InputQuantizer(self.network.input_shape, columns[0][:, None])
        else:
            self._of_frame(columns)
        self.chain = [self._turned(levels, scale.sign() < 0) for scale, _ in self.chain]

    @staticmethod
    def _turned(levels: Levels, falling: bool) -> tuple[Surd, Surd]:
        """Return the map from the unit that is made of levels, a bit -1 or +1 or an integer.

        Parameters
        ----------
        levels : Levels
        falling : bool
            Whether the unit counts down from the highest level.
        """
        first, step = levels.low, levels.step
        if falling:
            first, step = first + step * levels.top, -step
        if levels.top == 1:
            return Surd.of(step / 2), Surd.of(first + step / 2)
        return Surd.of(step), Surd.of(first)

    def _quantize(self, op: Sign | Quantize | MultiThreshold) -> None:
        levels = self._levels(op)
        self.quantizer = op.name
        match self.unit:
            case _Unit.FRAME:
                self._quantize_frame(op, levels)
                self.unit, self.levels = _Unit.INTEGER, levels.top
            case _Unit.INTEGER:
                raise UserError(
                    f"{self.where}: quantizer {op.name!r} follows the quantizer of the frame "
                    f"without a layer between; leave out one of the two"
                )
            case _Unit.BIT:
                ends = [
                    [self._value(levels, n, offset + bit * scale) for bit in (-ONE, ONE)]
                    for n, (scale, offset) in enumerate(self.chain)
                ]
                half = Fraction(1, 2)
                self.chain = [
                    (Surd.of((high - low) * half), Surd.of((high + low) * half))
                    for low, high in ends
                ]
                return
            case _Unit.ACCUMULATOR:
                assert self.draft is not None
                self.draft.quantized = self._of_channels(f"quantizer {op.name!r}")
                self.draft.levels = self._levels_of_channels(levels, op.name)
                self._turn_pools(self.draft.quantized)
                self.chain = [self._turned(levels, False)] * len(self.chain)
                self.unit = _Unit.LEVEL
            case _Unit.LEVEL | _Unit.SUM:
                if self.unit is _Unit.LEVEL:
                    self._settle()
                self._threshold(levels, op.name)
        if levels.top == 1:
            self.unit, self.levels = _Unit.BIT, 1

    def _levels(self, op: Sign | Quantize | MultiThreshold) -> Levels:
        if isinstance(op, Quantize) and (
            op.scale <= 0 or not 1 <= op.high - op.low <= _LARGEST_LANE
        ):
            raise UserError(
                f"{self.where}: quantizer {op.name!r} has the scale {float(op.scale):g} and the "
                f"range {op.low} .. {op.high}; give a positive scale and 1 to 16 bits"
            )
        levels = Levels.of(op, _LARGEST_LANE)
        if levels is None:
            raise UserError(
                f"{self.where}: quantizer {op.name!r} has values that are not 1 to "
                f"{_LARGEST_LANE} steps of one size apart; give it 1 to 16 bits"
            )
        if len(levels.steps) not in (1, len(self.chain)):
            raise UserError(
                f"{self.where}: quantizer {op.name!r} has thresholds for {len(levels.steps)} "
                f"channels but its input has {len(self.chain)}; give them for all or one each"
            )
        return levels

    @staticmethod
    def _value(levels: Levels, channel: int, value: Surd) -> Fraction:
        return levels.low + levels.step * levels.reached(channel, value)

    def _levels_of_channels(self, levels: Levels, name: str) -> Levels:
        """Return levels whose rows are those of the hardware's channels."""
        if len(levels.steps) == 1:
            return levels
        rows, channels = self._in_place(list(levels.steps)), self.image[-1]
        if any(row != rows[feature % channels] for feature, row in enumerate(rows)):
            raise UserError(
                f"{self.where}: quantizer {name!r} has thresholds that differ between the pixels "
                f"of one channel; put it before the flatten, with thresholds for each channel"
            )
        return replace(levels, steps=tuple(rows[:channels]))

    def _threshold(self, levels: Levels, name: str) -> None:
        """Quantize integers that a stage sends on: what comes out rises with them."""
        chain = self._of_channels(f"quantizer {name!r}")
        polarity = np.array([-1 if scale.sign() < 0 else 1 for scale, _ in chain], np.int64)
        low, high = (np.full(len(chain), end, np.int64) for end in (self.low, self.levels))
        rows = self._levels_of_channels(levels, name)
        thresholds = rows.thresholds(turned(chain, polarity), polarity, low, high, 1)
        # On a shortcut there may be no stage yet. Max pools come behind the thresholds.
        last = self.stages[-1].name if self.stages else self.layer
        shape = self.pools[0].window.shape if self.pools else self.image
        self.stages.append(LoweredThreshold(f"{last}_threshold", thresholds, shape))
        self.chain = [self._turned(levels, scale.sign() < 0) for scale, _ in self.chain]
        self.unit, self.low, self.levels = _Unit.SUM, 0, levels.top

    # Layers

    def _layer(self, op: Dense | Conv2d) -> None:
        if self.unit is _Unit.ACCUMULATOR or (self.unit is _Unit.SUM and self.low < 0):
            raise UserError(
                f"{self.where}: layer {op.name!r} takes accumulators of layer {self.layer!r} that "
                f"no quantizer has made small; put a BipolarQuant or a Quant before it"
            )
        if self.unit is _Unit.FRAME:
            self.unit, self.levels = _Unit.INTEGER, 255
            thresholds = np.arange(1, 256, dtype=np.float32)[:, None]
            self.frame = InputQuantizer(self.network.input_shape, thresholds)
        self._settled()
        window = self._convolution(op) if isinstance(op, Conv2d) else None
        groups = op.groups if isinstance(op, Conv2d) else 1
        if window is None:
            if self.shape != op.weights.shape[1:]:
                raise UserError(
                    f"{self.where}: layer {op.name!r} has {op.weights.shape[1]} inputs but gets a "
                    f"tensor of shape {self.shape}; make both sizes equal"
                    f"{' (a Flatten is missing)' if len(self.shape) > 1 else ''}"
                )
            weights = np.stack(self._in_place(list(op.weights.T)), axis=1)
            chain = self._in_place(self.chain)
        else:
            weights, chain = op.weights, self.chain
        weights, self.chain = _pull_through(op.name, weights, groups, chain, self.where)
        levels = 1 if self.unit is _Unit.BIT else self.levels
        mh = len(weights)
        layer = LoweredLayer(
            op.name, weights.reshape(mh, -1), None, window, groups, levels, op.coefficients
        )
        largest = int(np.abs(layer.weights).sum(axis=1, dtype=np.int64).max())
        if levels * largest > _LARGEST_ACCUMULATOR:
            raise UserError(
                f"{self.where}: layer {op.name!r} adds {layer.mw} integers of up to {levels}, "
                f"which takes accumulators of more than 32 bits; use fewer or narrower inputs"
            )
        self.draft, self.order = Draft(layer), None
        self.shape = self.image = layer.o_shape
        self.unit, self.low, self.levels, self.layer = _Unit.ACCUMULATOR, 0, 1, op.name

    def _convolution(self, op: Conv2d) -> Window:
        mh, *kernel, channels = op.weights.shape
        window = self._window(
            f"layer {op.name!r}", (kernel[0], kernel[1]), op.stride, op.dilation, op.padding
        )
        if op.groups < 1 or mh % op.groups or channels * op.groups != self.shape[-1]:
            raise UserError(
                f"{self.where}: layer {op.name!r} has {mh} outputs, {op.groups} groups and "
                f"{channels} inputs per group but gets an image of {self.shape[-1]} channels; the "
                f"groups must share both outputs and channels evenly"
            )
        if any(op.padding):
            window = replace(window, pad=self._pad(op))
        return window

    def _pad(self, op: Conv2d) -> NDArray[np.uint16] | None:
        """Return what padded taps hold, in units."""
        value = Surd.of(op.pad_value)
        units = [_solve(scale, value - offset) for scale, offset in self.chain]
        if self.unit is _Unit.BIT:
            if all(unit == 0 for unit in units):
                return None
            if all(unit is not None and abs(unit) == 1 for unit in units):
                return np.array([unit == 1 for unit in units], np.uint16)
        else:
            inside = [unit for unit in units if unit is not None and 0 <= unit <= self.levels]
            steps = lcm(*(unit.denominator for unit in inside))
            if len(inside) == len(units) and (steps == 1 or self._refine(steps)):
                return np.array([int(unit * steps) for unit in inside], np.uint16)
        scale, offset = (float(v) for v in self.chain[0])
        if self.unit is _Unit.BIT:
            holds = f"its inputs hold {offset - scale:g} or {offset + scale:g} in channel 0"
            mend = "pad with one of the two, or with the value midway, in all channels"
        else:
            holds = (
                f"its inputs hold {offset:g} + n * {scale:g}, n up to {self.levels}, in channel 0"
            )
            mend = "pad with one of these values, in all channels"
        raise UserError(
            f"{self.where}: layer {op.name!r} pads with {float(op.pad_value):g}, but {holds}; "
            f"{mend}, or put the padding before the maps that shift its inputs"
        )

    def _refine(self, steps: int) -> bool:
        """Count integers in `steps` finer units, if lanes and memory hold them.

        A padded tap may lie between two of them, as where pixels are ``n / 127.5 - 1`` and the
        padding is 0: n would be 127.5. With every threshold twice, n counts in halves.
        """
        frame = self.frame
        if self.levels * steps > _LARGEST_LANE or frame is None:
            return False
        if self.unit is _Unit.INTEGER:
            if frame.thresholds.size * steps > _MOST_THRESHOLDS:
                return False
            self.frame = replace(frame, thresholds=np.repeat(frame.thresholds, steps, axis=0))
        elif not self._refine_levels(steps):
            return False
        share = Surd.of(Fraction(1, steps))
        self.chain = [(scale * share, offset) for scale, offset in self.chain]
        self.levels *= steps
        return True

    def _refine_levels(self, steps: int) -> bool:
        """Repeat the thresholds of the last stage, behind which there may be max pools."""
        place = len(self.stages) - 1
        while place >= 0:
            stage = self.stages[place]
            if not isinstance(stage, LoweredPool) or stage.op != "max":
                break
            place -= 1
        if place < 0:
            return False
        stage = self.stages[place]
        if not isinstance(stage, LoweredLayer | LoweredThreshold) or any(
            n >= place for n in self.tapped
        ):
            return False
        if stage.thresholds is None or stage.thresholds.ndim == 1:
            return False
        thresholds = np.repeat(stage.thresholds, steps, axis=0)
        self.stages[place] = replace(stage, thresholds=thresholds)
        for later, pool in enumerate(self.stages[place + 1 :], start=place + 1):
            assert isinstance(pool, LoweredPool)
            self.stages[later] = replace(pool, high=pool.high * steps)
        return True

    # Pools

    def _max_pool(self, op: MaxPool) -> None:
        if self.unit in (_Unit.FRAME, _Unit.INTEGER):
            raise UserError(
                f"{self.where}: max pool {op.name!r} pools raw pixels; put it behind the first "
                f"layer or scale the frames down beforehand"
            )
        window = self._window(
            f"max pool {op.name!r}", op.kernel, op.stride, op.dilation, op.padding
        )
        _check_taps(window, f"{self.where}: max pool {op.name!r}")
        if window.is_pixel:
            return
        rising = np.array([scale.sign() for scale, _ in self.chain], np.int64)
        self._pool(op.name, window, rising)

    def _pool(self, name: str, window: Window, rising: NDArray[np.int64]) -> None:
        self.pools.append(_Pool(name, window, rising))
        self.shape = self.image = (*window.out_shape, self.shape[-1])

    def _turn_pools(self, chain: Chain) -> None:
        """Let the pools' directions refer to the signs of `chain` instead of its units."""
        signs = np.array([scale.sign() for scale, _ in chain], np.int64)
        for pool in self.pools:
            pool.rising = pool.rising * signs

    def _settle(self) -> None:
        """Settle bits or levels: which of them the stages turn so that every pool is an OR."""
        polarity = np.zeros(self.image[-1], np.int64)
        if self.draft is not None:
            for pool in self.pools:
                polarity = np.where(polarity == 0, pool.rising, polarity)
        polarity[polarity == 0] = 1
        channels = [place % len(polarity) for place in self._places()]
        top = 1
        if self.draft is not None:
            if self.unit is _Unit.BIT:
                self._free_constants(channels, polarity)
            assert self.draft.levels is not None
            top = self.draft.levels.top
            self.stages += self.draft.stages(polarity)
            self.draft = None
        self._settle_pools("or" if top == 1 else "max", polarity, 0, top)
        # A bit -1 or +1 turns to its negative, a level n to top - n.
        end = 0 if self.unit is _Unit.BIT else top
        self.chain = [
            (scale, offset) if polarity[channel] > 0 else (-scale, offset + scale * Surd.of(end))
            for (scale, offset), channel in zip(self.chain, channels, strict=True)
        ]
        if self.unit is _Unit.LEVEL:
            self.unit, self.low, self.levels = _Unit.SUM, 0, top

    def _settled(self) -> None:
        """Settle the tensor at hand, whatever it is made of: bits or integers of a stage."""
        if self.unit in (_Unit.BIT, _Unit.LEVEL):
            self._settle()
        if self.unit is _Unit.ACCUMULATOR:
            assert self.draft is not None
            stages, self.low, self.levels = self.draft.sent_on()
            self.stages += stages
            self.draft, self.unit = None, _Unit.SUM
        same_way = np.ones(self.image[-1], np.int64)
        self._settle_pools("max", same_way, self.low, self.levels)

    def _settle_pools(
        self, op: Literal["or", "max"], polarity: NDArray[np.int64], low: int, high: int
    ) -> None:
        """Settle the max pools behind integers of a range, which are turned as `polarity` says."""
        for pool in self.pools:
            falling = pool.rising * polarity < 0
            if not self.layer and falling.any():
                raise UserError(
                    f"{self.where}: max pool {pool.name!r} takes the minimum of the frame, because "
                    f"a negative scale lies before it; make the scale positive"
                )
            turned = falling if falling.any() else None
            self.stages.append(LoweredPool(pool.name, op, pool.window, low, high, turned))
        self.pools = []

    def _places(self) -> list[int]:
        return list(range(len(self.chain))) if self.order is None else self.order.tolist()

    def _free_constants(self, channels: list[int], polarity: NDArray[np.int64]) -> None:
        """Let bits that do not matter be 1, with the scale of the others: a dot product needs it.

        ``0 * bit + offset`` becomes ``scale * constant + other``, with the others' offset where
        that gives a constant bit, so that padded taps fit too.
        """
        assert self.draft is not None
        assert self.draft.quantized is not None
        assert self.draft.levels is not None
        used = {c for c, (scale, _) in zip(channels, self.chain, strict=True) if scale.terms}
        if not used or len(used) == len(polarity):
            return
        magnitude, other = next((abs(s), o) for s, o in self.chain if s.terms)
        free = {c: offset for c, (_, offset) in zip(channels, self.chain, strict=True)}
        for channel in free.keys() - used:
            dead = same((magnitude, free[channel]), (magnitude, other - magnitude))
            constant = -ONE if dead else ONE
            steps = self.draft.levels.row(channel)
            beyond = steps[0][0] - 1 if dead else steps[-1][0] + 1
            self.draft.quantized[channel] = (ZERO, Surd.of(beyond))
            polarity[channel] = 1
            free[channel] = constant
        self.chain = [
            one if channel in used else (magnitude, one[1] - magnitude * free[channel])
            for channel, one in zip(channels, self.chain, strict=True)
        ]

    def _average_pool(self, op: AveragePool) -> None:
        if self.unit in (_Unit.FRAME, _Unit.INTEGER):
            raise UserError(
                f"{self.where}: average pool {op.name!r} pools raw pixels; put it behind the first "
                f"layer or scale the frames down beforehand"
            )
        what = f"average pool {op.name!r}"
        if op.kernel is None and len(self.shape) == 3:
            window = self._window(what, (self.shape[0], self.shape[1]), (1, 1))
        else:
            window = self._window(what, op.kernel or (1, 1), op.stride)
        if window.is_pixel:
            return
        taps = prod(window.kernel)
        if self.unit is _Unit.BIT and taps == 1:
            # Bits of which some are left out stay bits.
            self._pool(op.name, window, np.zeros(window.shape[2], np.int64))
            return
        if self.unit is not _Unit.ACCUMULATOR or self.pools:
            self._settled()
        share = Surd.of(Fraction(1, taps))
        if self.unit is _Unit.ACCUMULATOR:
            assert self.draft is not None
            self.draft.sums.append((op.name, window))
            largest = self.draft.layer.levels * self.draft.layer.mw
            largest *= prod(prod(w.kernel) for _, w in self.draft.sums)
            limit = _LARGEST_ACCUMULATOR
            self.chain = [(scale * share, offset) for scale, offset in self.chain]
        else:
            self._as_integers()
            self.stages.append(LoweredPool(op.name, "sum", window, self.low, self.levels))
            self.chain = [(scale * share, offset) for scale, offset in self.chain]
            self.low, self.levels = taps * self.low, taps * self.levels
            largest = max(-self.low, self.levels)
            limit = _LARGEST_ACCUMULATOR if self.low < 0 else _LARGEST_LANE
        if largest > limit:
            raise UserError(
                f"{self.where}: {what} gives sums of up to {largest}, more than {limit}; use a "
                f"smaller kernel"
            )
        self.shape = self.image = (*window.out_shape, self.shape[-1])

    def _as_integers(self) -> None:
        """Take settled bits for the integers 0 and 1 that the hardware has."""
        if self.unit is _Unit.BIT:
            self.chain = of_lanes(self.chain)
            self.unit, self.low, self.levels = _Unit.SUM, 0, 1

    # Shortcuts

    def _tap(self, done: int, join: Join | PixelGain) -> None:
        """Settle what the tensor at hand is made of: two ways go on from here."""
        if isinstance(join, PixelGain) and self.unit in (_Unit.FRAME, _Unit.INTEGER):
            raise UserError(
                f"{self.where}: the gains of pixels {join.name!r} are magnitudes of "
                f"{self.unit.value}; put a layer without them first"
            )
        if self.unit in (_Unit.FRAME, _Unit.INTEGER):
            raise UserError(
                f"{self.where}: the shortcut to {join.name!r} begins at {self.unit.value}; let it "
                f"begin behind the first layer"
            )
        self._settled()
        self.taps[done] = copy(self)
        self.taps[done].stages = [*self.stages]
        self.tapped.add(len(self.stages) - 1)

    def _join(self, op: Join) -> None:
        what = f"{self.where}: join {op.name!r}"
        if op.source not in self.taps:
            raise UserError(
                f"{what} takes the tensor behind operation {op.source}, which does not come "
                f"before it; give a shortcut that goes forward"
            )
        side = copy(self.taps[op.source])
        source, side.stages, side.pools = len(side.stages) - 1, [], []
        side.tapped = set()
        for inner in op.path:
            side.step(inner)
        for walk in (self, side):
            walk._settled()
        path = tuple(stage for stage in side.stages if not isinstance(stage, LoweredJoin))
        if op.how == "add":
            self._add(op, what, source, path, side)
        else:
            self._append(op, what, source, path, side)

    def _add(
        self,
        op: Join,
        what: str,
        source: int,
        path: tuple[LoweredLayer | LoweredPool | LoweredThreshold | LoweredMagnitude, ...],
        side: _Walk,
    ) -> None:
        same_order = self._places() == side._places()
        if (self.shape, self.image) != (side.shape, side.image) or not same_order:
            raise UserError(
                f"{what} adds tensors of the shapes {self.shape} and {side.shape}; make both equal"
            )
        channels = self.image[-1]
        places = [place % channels for place in self._places()]
        for walk in (self, side):
            walk._as_integers()
            walk.chain = walk._of_channels(f"join {op.name!r}")
        gains, self.chain = added(self.chain, side.chain, what)
        low, high = (self.low, side.low), (self.levels, side.levels)
        join = LoweredJoin(op.name, source, path, op.how, self.image, channels, low, high, gains)
        self.stages.append(join)
        self.low, self.levels = join.o_range
        if max(-self.low, self.levels) > _LARGEST_ACCUMULATOR:
            raise UserError(
                f"{what} gives sums of up to {max(-self.low, self.levels)}, more than "
                f"{_LARGEST_ACCUMULATOR}; bring both scales nearer to a simple ratio"
            )
        self.chain = [self.chain[channel] for channel in places]

    def _append(
        self,
        op: Join,
        what: str,
        source: int,
        path: tuple[LoweredLayer | LoweredPool | LoweredThreshold | LoweredMagnitude, ...],
        side: _Walk,
    ) -> None:
        walks = [self, side] if op.how == "append" else [side, self]
        if any(len(walk.image) != len(walk.shape) and prod(walk.image[:-1]) > 1 for walk in walks):
            raise UserError(f"{what} appends images that are flattened; join them before that")
        if len(self.shape) != len(side.shape) or self.shape[:-1] != side.shape[:-1]:
            raise UserError(
                f"{what} appends channels of tensors of the shapes {self.shape} and {side.shape}; "
                f"make rows and columns equal"
            )
        if {self.unit, side.unit} != {_Unit.BIT}:
            for walk in walks:
                walk._as_integers()
        low, high = (self.low, side.low), (self.levels, side.levels)
        if self.unit is _Unit.BIT:
            low, high = (0, 0), (1, 1)
        join = LoweredJoin(op.name, source, path, op.how, self.shape, side.shape[-1], low, high)
        self.stages.append(join)
        self.chain = [one for walk in walks for one in walk.chain]
        self.order, self.shape = None, join.o_shape
        self.image = self.shape
        if self.unit is _Unit.SUM:
            self.low, self.levels = join.o_range

    def _pixel_gain(self, op: PixelGain) -> None:
        what = f"{self.where}: the gains of pixels {op.name!r}"
        if op.source not in self.taps:
            raise UserError(
                f"{what} are magnitudes of the tensor behind operation {op.source}, which does "
                f"not come before them; give one that does"
            )
        if self.unit is not _Unit.ACCUMULATOR or self.pools:
            raise UserError(
                f"{what} do not multiply what a layer gives; put them directly behind the layer"
            )
        assert self.draft is not None
        if any(offset.terms for _, offset in self.chain):
            raise UserError(
                f"{what} multiply sums with a constant, of the bias or of inputs that are not -1 "
                f"and +1; put the bias behind them"
            )
        layer, pools, least, largest, chain = self.draft.folded(self.chain)
        low, high = int(least.min()), int(largest.max())
        tap = self.taps[op.source]
        window = self._gain_window(op, what, tap)
        path, unit = self._magnitudes(what, tap, window, max(-low, high))
        _, most = path[-1].o_range
        ranges = (low, 0), (high, most)
        join = LoweredJoin(op.name, len(tap.stages) - 1, path, "multiply", self.shape, 1, *ranges)
        self.stages += [layer, *pools, join]
        self.chain = [(scale * unit, offset) for scale, offset in chain]
        self.draft, self.unit = None, _Unit.SUM
        self.low, self.levels = join.o_range

    def _gain_window(self, op: PixelGain, what: str, tap: _Walk) -> Window | None:
        """Return the windows whose magnitudes are added up; None where the tensor is a vector."""
        if op.kernel is not None:
            window = tap._window(what, op.kernel, op.stride, op.dilation, op.padding)
        elif len(tap.image) == 3:
            window = Window(tap.image, (tap.image[0], tap.image[1]))
        else:
            return None
        if window.out_shape != (self.shape[:-1] or (1, 1)):
            raise UserError(
                f"{what} are of {window.out_shape} windows but the layer's output has the shape "
                f"{self.shape}; give both one kernel, stride, dilation and padding"
            )
        return window

    def _magnitudes(
        self, what: str, tap: _Walk, window: Window | None, largest: int
    ) -> tuple[tuple[LoweredMagnitude | LoweredPool, ...], Surd]:
        """Return what adds magnitudes up, and what a step of the sum is of the mean.

        Parameters
        ----------
        what : str
            The gains, for errors.
        tap : _Walk
            At the tensor of which the magnitudes are.
        window : Window or None
        largest : int
            Largest magnitude that is multiplied by them.
        """
        tap = copy(tap)
        tap._as_integers()
        inputs = tap._of_channels(what.removeprefix(f"{self.where}: "))
        taps = 1 if window is None else window.taps
        low, high = tap.low, tap.levels
        point = fixed_point(inputs, low, high, taps, _LARGEST_ACCUMULATOR // max(largest, 1))
        if point is None:
            raise UserError(
                f"{what} multiply sums of up to {largest}, which leaves too few of 32 bits for "
                f"them; use fewer or narrower inputs"
            )
        numbers = point.gains, point.offsets, point.shift
        name = f"{self.layer}_magnitude"
        magnitude = LoweredMagnitude(name, *numbers, tap.image, low, high, point.error)
        unit = point.unit * Surd.of(Fraction(1, taps * len(inputs)))
        if window is None or window.is_pixel:
            return (magnitude,), unit
        window = replace(window, shape=(*window.shape[:2], 1), pad=np.zeros(1, np.uint16))
        box = LoweredPool(f"{self.layer}_box", "sum", window, *magnitude.o_range)
        return (magnitude, box), unit

    def _window(
        self,
        what: str,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> Window:
        """Return the window over the image at hand, its pad yet all zeros."""
        if len(self.shape) != 3:
            raise UserError(
                f"{self.where}: {what} gets a tensor of shape {self.shape}, not an image of rows, "
                f"columns and channels; put it before any Flatten"
            )
        if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
            raise UserError(
                f"{self.where}: {what} has the kernel {kernel}, stride {stride}, dilation "
                f"{dilation} and padding {padding}; give sizes of at least 1 and no negative "
                f"padding"
            )
        height, width, channels = self.shape
        zeros = np.zeros(channels, np.uint16)
        window = Window((height, width, channels), kernel, stride, dilation, padding, zeros)
        if min(window.out_shape) < 1:
            raise UserError(
                f"{self.where}: {what} has a kernel of {kernel} with dilation {dilation}, larger "
                f"than its image of {height} by {width} with padding {padding}; use a smaller "
                f"kernel or more padding"
            )
        return window


def _named_apart(stages: list[LoweredStage]) -> tuple[LoweredStage, ...]:
    """Number the names of stages without weights that another stage has."""
    paths = [part for stage in stages if isinstance(stage, LoweredJoin) for part in stage.path]
    taken = {stage.name for stage in (*stages, *paths) if isinstance(stage, LoweredLayer)}

    def apart(stem: str) -> str:
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        return name

    named: list[LoweredStage] = []
    for stage in stages:
        if isinstance(stage, LoweredJoin):
            path = tuple(
                part if isinstance(part, LoweredLayer) else replace(part, name=apart(part.name))
                for part in stage.path
            )
            stage = replace(stage, path=path)
        if not isinstance(stage, LoweredLayer):
            stage = replace(stage, name=apart(stage.name))
        named.append(stage)
    return tuple(named)


def _check_taps(window: Window, what: str) -> None:
    """Refuse windows that lie in the padding altogether: they have no maximum."""
    for axis in range(2):
        size, padding = window.shape[axis], window.padding[axis]
        for position in range(window.out_shape[axis]):
            start = position * window.stride[axis] - padding
            step = window.dilation[axis]
            first = max(-(start // step), 0)
            if first >= window.kernel[axis] or start + first * step >= size:
                raise UserError(
                    f"{what} has windows that see padding only; use less padding than the kernel"
                )


def _solve(scale: Surd, value: Surd) -> Fraction | None:
    """Return the unit with ``scale * unit = value``, None if there is no rational one."""
    if not scale.terms:
        return None if value.terms else Fraction(0)
    return (value / scale).rational()


def _pull_through(
    name: str, weights: NDArray[np.integer], groups: int, chain: Chain, where: str
) -> tuple[NDArray[np.integer], Chain]:
    """Move the maps of a layer's inputs behind its weights.

    ``W @ (m * s * units + o) = m * (W * s) @ units + W @ o`` with signs ``s`` and one magnitude
    ``m`` in a group.

    Parameters
    ----------
    name : str
        The layer's, for the error.
    weights : ndarray of int, shape (MH, .., C // groups)
    groups : int
    chain : list of (scale, offset)
        Per channel, C of them.
    where : str
        Network, for the error.

    Returns
    -------
    weights : ndarray of int, shape (MH, .., C // groups)
        ``W * s``.
    chain : list of (scale, offset)
        From the accumulators on, MH of them.
    """
    neurons, channels = len(weights) // groups, len(chain) // groups
    behind: Chain = []
    signed = weights.copy()
    for group in range(groups):
        rows = slice(group * neurons, (group + 1) * neurons)
        first = group * channels
        inputs = chain[first : first + channels]
        magnitude = abs(inputs[0][0])
        for scale in {scale for scale, _ in inputs}:
            if (abs(scale) - magnitude).terms:
                channel = next(j for j, (other, _) in enumerate(inputs) if other == scale)
                raise UserError(
                    f"{where}: the inputs of layer {name!r} have scales of different magnitude "
                    f"({float(inputs[0][0]):g} for channel {first}, {float(scale):g} for channel "
                    f"{first + channel}), which no dot product with weights of one bit gives; use "
                    f"one quantizer scale for all channels (for pixels: one standard deviation for "
                    f"all channels, or a quantizer behind the normalization)"
                )
        signs = np.array([-1 if scale.sign() < 0 else 1 for scale, _ in inputs], np.int8)
        signed[rows] *= signs
        offsets = [ZERO] * neurons
        kinds: dict[Surd, list[int]] = {}
        for j, (_, offset) in enumerate(inputs):
            kinds.setdefault(offset, []).append(j)
        for kind, members in kinds.items():
            if kind.terms:
                sums = weights[rows][..., members].reshape(neurons, -1).sum(axis=1, dtype=np.int64)
                offsets = [
                    o + kind * Surd.of(n) for o, n in zip(offsets, sums.tolist(), strict=True)
                ]
        behind += [(magnitude, offset) for offset in offsets]
    return signed, behind
