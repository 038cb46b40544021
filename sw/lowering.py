"""Lowering: from what a network means to the integers that the hardware computes, exactly.

Between two matrices a channel undergoes a chain of affine maps whose scales may hold square roots
(batch norm divides by ``sqrt(var + eps)``). Every decision below - is this value at least zero,
which logit is larger - is taken on such numbers without rounding, see :mod:`xnorflow.surd`;
float32 arithmetic, which may round a near-tie the other way, is never consulted.

The walk over the operations keeps, per channel, the affine map ``value = scale * unit + offset``
from the last *unit* to the tensor at hand, where the unit is the raw frame, an unsigned integer of
the quantized frame, a bit in {-1, +1}, an integer accumulator or a sum of bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction
from math import ceil, floor, lcm, prod

import numpy as np
from numpy.typing import NDArray

from xnorflow.affine import Chain, apply, same
from xnorflow.errors import UserError
from xnorflow.input_thresholds import quantizer_thresholds, sign_threshold
from xnorflow.lowered import (
    InputQuantizer,
    LoweredLayer,
    LoweredNetwork,
    LoweredOutput,
    LoweredPool,
    LoweredStage,
    LoweredThreshold,
    Window,
)
from xnorflow.network import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Op,
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
    ACCUMULATOR = "accumulators"
    SUM = "sums of bits"


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
    - *Max pools*, before a sign or behind it: rising maps turn the maximum into an OR of bits,
      falling ones into an AND, for which the layer before sends on the complement of its bit: the
      hardware has only the OR.
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
    for op in network.ops:
        walk.step(op)
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


@dataclass
class _Draft:
    """A layer whose thresholds and signs of rows are not settled yet.

    Attributes
    ----------
    layer : LoweredLayer
        Without thresholds.
    sums : list of (name, Window)
        Pools that add its accumulators.
    signed : list of (scale, offset) or None
        Per neuron the map whose sign the layer's bits are.
    """

    layer: LoweredLayer
    sums: list[tuple[str, Window]] = field(default_factory=list)
    signed: Chain | None = None

    @property
    def step(self) -> int:
        """Distance of accumulators that can occur."""
        return 1 if self.layer.levels > 1 or self.layer.zero_padded else 2

    def stages(self, polarity: NDArray[np.int64]) -> list[LoweredStage]:
        """Return the stages that send on the bits `signed`, complemented where told so.

        Parameters
        ----------
        polarity : ndarray of int64, shape (MH,)
            -1 for the complement, else 1.
        """
        assert self.signed is not None
        # The complement of v >= 0 is -v > 0.
        chain = [
            (scale, offset) if p > 0 else (-scale, -offset)
            for (scale, offset), p in zip(self.signed, polarity, strict=True)
        ]
        layer, pools, low, high, chain = self.folded(chain)
        thresholds = _thresholds(chain, polarity < 0, low, high, self.step)
        if not pools:
            return [replace(layer, thresholds=thresholds)]
        last = pools[-1]
        return [
            layer,
            *pools,
            LoweredThreshold(f"{last.name}_threshold", thresholds, last.o_shape),
        ]

    def folded(
        self, chain: Chain
    ) -> tuple[LoweredLayer, list[LoweredPool], NDArray[np.int64], NDArray[np.int64], Chain]:
        """Make every scale non-negative: ``scale * acc = (-scale) * (-acc)``.

        Returns
        -------
        layer : LoweredLayer
        pools : list of LoweredPool
            The sums behind it.
        low, high : ndarray of int64, shape (MH,)
            Range of what they send on.
        chain : list of (scale, offset)
            From there on.
        """
        signs = np.array([-1 if scale.sign() < 0 else 1 for scale, _ in chain], np.int8)
        layer = replace(self.layer, weights=self.layer.weights * signs[:, None])
        low, high = layer.acc_min, layer.acc_max
        pools = []
        for name, window in self.sums:
            pools.append(LoweredPool(name, "sum", window, int(low.min()), int(high.max())))
            taps = prod(window.kernel)
            low, high = low * taps, high * taps
        return layer, pools, low, high, [(abs(scale), offset) for scale, offset in chain]


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
    levels : int
        Largest INTEGER or SUM.
    frame : InputQuantizer or None
    stages : list of LoweredStage
        Settled ones.
    draft : _Draft or None
        The layer behind them, of ACCUMULATOR or BIT; BIT without a draft is settled.
    pools : list of _Pool
        Behind stages and draft.
    layer : str
        Name of the last layer.
    """

    def __init__(self, network: Network):
        self.network = network
        self.where = f"network {network.name!r}"
        self.shape = self.image = tuple(network.input_shape)
        self.order: NDArray[np.int64] | None = None
        self.unit = _Unit.FRAME
        self.chain: Chain = [(ONE, ZERO)] * self.shape[-1]
        self.levels = 1
        self.frame: InputQuantizer | None = None
        self.stages: list[LoweredStage] = []
        self.draft: _Draft | None = None
        self.pools: list[_Pool] = []
        self.layer = ""
        self.sign = ""

    def step(self, op: Op) -> None:
        """Take one operation."""
        match op:
            case Flatten():
                self._flatten(op)
            case Affine() | BatchNorm():
                self.chain = apply(op, self.chain, self.where)
            case Sign():
                self._sign(op)
            case Quantize():
                self._quantize(op)
            case Dense() | Conv2d():
                self._layer(op)
            case MaxPool():
                self._max_pool(op)
            case AveragePool():
                self._average_pool(op)

    def finish(self) -> LoweredNetwork:
        """Return the lowered network, the last layer's accumulators being the logits'."""
        if not self.layer or self.frame is None:
            raise UserError(
                f"{self.where} has no weight layer; give a network with at least one Dense or "
                f"Conv2d"
            )
        if self.unit is _Unit.BIT:
            raise UserError(
                f"{self.where}: sign {self.sign!r} follows the last layer {self.layer!r}, which "
                f"leaves only binary outputs that no arg-max can rank; remove it so that the "
                f"layer gives scores"
            )
        if self.pools:
            raise UserError(
                f"{self.where}: max pool {self.pools[0].name!r} follows the last layer "
                f"{self.layer!r} without a sign, and its maxima would take comparators; remove it "
                f"or use an average pool"
            )
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
            low = np.zeros(len(chain), np.int64)
            high = np.full(len(chain), self.levels, np.int64)
            if any(scale.sign() < 0 for scale, _ in chain):
                raise UserError(
                    f"{where}: its sums of bits have a negative scale at the end of the network; "
                    f"end with a layer or with positive scales"
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

    def _sign(self, op: Sign) -> None:
        self.sign = op.name
        match self.unit:
            case _Unit.FRAME:
                cache: dict[tuple[Surd, Surd], np.float32] = {}
                for one in self.chain:
                    if one not in cache:
                        cache[one] = sign_threshold(*one)
                self._of_frame([np.array([cache[one]]) for one in self.chain])
                self.chain = [(_unit_sign(scale), ZERO) for scale, _ in self.chain]
            case _Unit.INTEGER:
                raise UserError(
                    f"{self.where}: sign {op.name!r} follows the quantizer of the frame without a "
                    f"layer between; leave out one of the two"
                )
            case _Unit.BIT:
                self.chain = [_sign_of_bit(scale, offset) for scale, offset in self.chain]
            case _Unit.ACCUMULATOR:
                assert self.draft is not None
                self.draft.signed = self._of_channels(f"sign {op.name!r}")
                self._turn_pools(self.draft.signed)
                self.chain = [(ONE, ZERO)] * len(self.chain)
            case _Unit.SUM:
                # The bit is the one that rises with the sum, so its threshold is settled.
                chain = self._of_channels(f"sign {op.name!r}")
                falling = np.array([scale.sign() < 0 for scale, _ in chain])
                rising = [
                    (-s, -o) if down else (s, o)
                    for (s, o), down in zip(chain, falling, strict=True)
                ]
                low = np.zeros(len(chain), np.int64)
                thresholds = _thresholds(rising, falling, low, low + self.levels, 1)
                last = self.stages[-1]
                self.stages.append(
                    LoweredThreshold(f"{last.name}_threshold", thresholds, last.o_shape)
                )
                self.chain = [(_unit_sign(scale), ZERO) for scale, _ in self.chain]
        self.unit, self.levels = _Unit.BIT, 1

    def _quantize(self, op: Quantize) -> None:
        if self.unit is not _Unit.FRAME:
            raise UserError(
                f"{self.where}: quantizer {op.name!r} makes integers of {self.unit.value}; only "
                f"the frame may be quantized to more than one bit, so use a BipolarQuant"
            )
        levels = op.high - op.low
        if op.scale <= 0 or not 1 <= levels <= _LARGEST_LANE:
            raise UserError(
                f"{self.where}: quantizer {op.name!r} has the scale {float(op.scale):g} and the "
                f"range {op.low} .. {op.high}; give a positive scale and 1 to 16 bits"
            )
        cache: dict[tuple[Surd, Surd], NDArray[np.float32]] = {}
        for one in self.chain:
            if one not in cache:
                cache[one] = quantizer_thresholds(op, *one)
        if len(cache) == 1 and levels > 1:
            (thresholds,) = cache.values()
            self.frame = InputQuantizer(self.network.input_shape, thresholds[:, None])
        else:
            self._of_frame([cache[one] for one in self.chain])
        step = Surd.of(op.scale)
        ends = [Surd.of(op.scale * (end - op.zero_point)) for end in (op.low, op.high)]
        # A falling scale counts down from the high end.
        self.chain = [
            (-step, ends[1]) if scale.sign() < 0 else (step, ends[0]) for scale, _ in self.chain
        ]
        self.unit, self.levels = _Unit.INTEGER, levels
        if levels == 1:
            self.unit = _Unit.BIT
            half = Surd.of(Fraction(1, 2))
            self.chain = [(scale * half, offset + scale * half) for scale, offset in self.chain]

    # Layers

    def _layer(self, op: Dense | Conv2d) -> None:
        if self.unit is _Unit.ACCUMULATOR:
            raise UserError(
                f"{self.where}: layer {op.name!r} takes accumulators of layer {self.layer!r} that "
                f"no sign has made binary; put a BipolarQuant before it"
            )
        if self.unit is _Unit.FRAME:
            self.unit, self.levels = _Unit.INTEGER, 255
            thresholds = np.arange(1, 256, dtype=np.float32)[:, None]
            self.frame = InputQuantizer(self.network.input_shape, thresholds)
        if self.unit is _Unit.BIT:
            self._settle()
        if self.pools:
            raise UserError(
                f"{self.where}: max pool {self.pools[0].name!r} compares {self.unit.value} before "
                f"layer {op.name!r}; put a BipolarQuant before the layer"
            )
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
        layer = LoweredLayer(op.name, weights.reshape(mh, -1), None, window, groups, levels)
        if levels * layer.mw > _LARGEST_ACCUMULATOR:
            raise UserError(
                f"{self.where}: layer {op.name!r} adds {layer.mw} integers of up to {levels}, "
                f"which takes accumulators of more than 32 bits; use fewer or narrower inputs"
            )
        self.draft, self.order = _Draft(layer), None
        self.shape = self.image = layer.o_shape
        self.unit, self.levels, self.layer = _Unit.ACCUMULATOR, 1, op.name

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
        """Count the frame in `steps` finer units, if lanes and memory hold them.

        A padded tap may lie between two integers, as where pixels are ``n / 127.5 - 1`` and the
        padding is 0: n would be 127.5. With every threshold twice, n counts in halves.
        """
        frame = self.frame
        if self.unit is not _Unit.INTEGER or frame is None:
            return False
        if self.levels * steps > _LARGEST_LANE or frame.thresholds.size * steps > _MOST_THRESHOLDS:
            return False
        self.frame = replace(frame, thresholds=np.repeat(frame.thresholds, steps, axis=0))
        share = Surd.of(Fraction(1, steps))
        self.chain = [(scale * share, offset) for scale, offset in self.chain]
        self.levels *= steps
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
        """Settle bits: which of them the stages complement so that every pool is an OR."""
        polarity = np.zeros(self.image[-1], np.int64)
        for pool in self.pools:
            clash = polarity * pool.rising < 0
            polarity = np.where(polarity == 0, pool.rising, polarity)
            if np.any(clash if self.draft is not None else pool.rising < 0):
                raise UserError(
                    f"{self.where}: max pool {pool.name!r} takes the minimum of bits of which an "
                    f"earlier stage needs the maximum, because a negative scale lies between; "
                    f"make the scale positive"
                )
        polarity[polarity == 0] = 1
        channels = [place % len(polarity) for place in self._places()]
        if self.draft is not None:
            self._free_constants(channels, polarity)
            self.stages += self.draft.stages(polarity)
            self.draft = None
        for pool in self.pools:
            self.stages.append(LoweredPool(pool.name, "or", pool.window, 0, 1))
        self.pools = []
        self.chain = [
            (scale if polarity[channel] > 0 else -scale, offset)
            for (scale, offset), channel in zip(self.chain, channels, strict=True)
        ]

    def _places(self) -> list[int]:
        return list(range(len(self.chain))) if self.order is None else self.order.tolist()

    def _free_constants(self, channels: list[int], polarity: NDArray[np.int64]) -> None:
        """Let bits that do not matter be 1, with the scale of the others: a dot product needs it.

        ``0 * bit + offset`` becomes ``scale * constant + other``, with the others' offset where
        that gives a constant bit, so that padded taps fit too.
        """
        assert self.draft is not None
        assert self.draft.signed is not None
        used = {c for c, (scale, _) in zip(channels, self.chain, strict=True) if scale.terms}
        if not used or len(used) == len(polarity):
            return
        magnitude, other = next((abs(s), o) for s, o in self.chain if s.terms)
        free = {c: offset for c, (_, offset) in zip(channels, self.chain, strict=True)}
        for channel in free.keys() - used:
            dead = same((magnitude, free[channel]), (magnitude, other - magnitude))
            constant = -ONE if dead else ONE
            self.draft.signed[channel] = (ZERO, constant)
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
        if self.unit is _Unit.BIT:
            self._settle()
        if self.pools:
            raise UserError(
                f"{self.where}: {what} adds the maxima of max pool {self.pools[0].name!r} before "
                f"any sign, which would take comparators; put a BipolarQuant between the two"
            )
        share = Surd.of(Fraction(1, taps))
        if self.unit is _Unit.ACCUMULATOR:
            assert self.draft is not None
            self.draft.sums.append((op.name, window))
            largest = self.draft.layer.levels * self.draft.layer.mw
            largest *= prod(prod(w.kernel) for _, w in self.draft.sums)
            limit = _LARGEST_ACCUMULATOR
            self.chain = [(scale * share, offset) for scale, offset in self.chain]
        else:
            self.stages.append(LoweredPool(op.name, "sum", window, 0, self.levels))
            if self.unit is _Unit.BIT:
                # A bit is 2 * lane - 1 for the lane 0 or 1 that is added.
                self.chain = [(scale + scale, offset - scale) for scale, offset in self.chain]
            self.chain = [(scale * share, offset) for scale, offset in self.chain]
            self.levels = largest = taps * self.levels
            limit = _LARGEST_LANE
            self.unit = _Unit.SUM
        if largest > limit:
            raise UserError(
                f"{self.where}: {what} gives sums of up to {largest}, more than {limit}; use a "
                f"smaller kernel"
            )
        self.shape = self.image = (*window.out_shape, self.shape[-1])

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
    """Number the names of pools and thresholds that another stage has."""
    taken = {stage.name for stage in stages if isinstance(stage, LoweredLayer)}
    named: list[LoweredStage] = []
    for stage in stages:
        name, number = stage.name, 1
        while name in taken and not isinstance(stage, LoweredLayer):
            number += 1
            name = f"{stage.name}_{number}"
        taken.add(name)
        named.append(stage if name == stage.name else replace(stage, name=name))
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


def _unit_sign(scale: Surd) -> Surd:
    return -ONE if scale.sign() < 0 else ONE


def _sign_of_bit(scale: Surd, offset: Surd) -> tuple[Surd, Surd]:
    """Return the map from a bit to the sign of ``scale * bit + offset``."""
    high = 1 if (offset + scale).sign() >= 0 else -1
    low = 1 if (offset - scale).sign() >= 0 else -1
    return Surd.of((high - low) // 2), Surd.of((high + low) // 2)


def _solve(scale: Surd, value: Surd) -> Fraction | None:
    """Return the unit with ``scale * unit = value``, None if there is no rational one."""
    if not scale.terms:
        return None if value.terms else Fraction(0)
    return (value / scale).rational()


def _pull_through(
    name: str, weights: NDArray[np.int8], groups: int, chain: Chain, where: str
) -> tuple[NDArray[np.int8], Chain]:
    """Move the maps of a layer's inputs behind its weights.

    ``W @ (m * s * units + o) = m * (W * s) @ units + W @ o`` with signs ``s`` and one magnitude
    ``m`` in a group.

    Parameters
    ----------
    name : str
        The layer's, for the error.
    weights : ndarray of int8, shape (MH, .., C // groups)
    groups : int
    chain : list of (scale, offset)
        Per channel, C of them.
    where : str
        Network, for the error.

    Returns
    -------
    weights : ndarray of int8, shape (MH, .., C // groups)
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


def _thresholds(
    chain: Chain,
    strict: NDArray[np.bool_],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    step: int,
) -> NDArray[np.int32]:
    """Return the least accumulators for which ``scale * acc + offset`` is at least zero.

    Parameters
    ----------
    chain : list of (scale, offset)
        C of them, scales not negative.
    strict : ndarray of bool, shape (C,)
        Whether zero is too small.
    low, high : ndarray of int64, shape (C,)
        Range of the accumulators.
    step : int
        Accumulators are ``low, low + step, .. high``.

    Returns
    -------
    ndarray of int32, shape (C,)
        `low` for always, ``high + 1`` for never.
    """
    thresholds = []
    for (scale, offset), above, first, last in zip(
        chain, strict.tolist(), low.tolist(), high.tolist(), strict=True
    ):
        if not scale.terms:
            always = offset.sign() >= int(above)
            thresholds.append(first if always else last + 1)
            continue
        steps = (-offset / scale - Surd.of(first)) / Surd.of(step)
        count = floor(steps) + 1 if above else ceil(steps)
        threshold = first + step * max(count, 0)
        thresholds.append(threshold if threshold <= last else last + 1)
    return np.array(thresholds, np.int32)
