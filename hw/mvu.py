# amaranth: UnusedElaboratable=no
"""Matrix-vector unit (MVU): the arithmetic of one binary layer."""

from functools import cache

import numpy as np
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Shape, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw import layouts
from xnorflow.hw.agreement import mixing_parts
from xnorflow.hw.cost import Family, Parts, index_bits, merge
from xnorflow.hw.counting import Counting
from xnorflow.hw.multi_threshold import MultiThresholdUnit, search_latency
from xnorflow.hw.pe_array import PEArray, array_latency, array_parts, step_top
from xnorflow.hw.pipeline import delay
from xnorflow.hw.plane_sum import PlaneSum, positive_planes
from xnorflow.hw.replay_buffer import ReplayBuffer, replay_parts
from xnorflow.hw.rom import ROM, ROM_LATENCIES, ROMStyle, rom_parts
from xnorflow.hw.score import ScoreUnit
from xnorflow.hw.skid import SkidBuffer, skid_parts, stall_register
from xnorflow.hw.threshold import ThresholdUnit

__all__ = [
    "MatrixVectorUnit",
    "count_base",
    "count_top",
    "counts",
    "head_latency",
    "o_lanes",
    "rom_widths",
    "score_unit",
    "unit_latency",
    "unit_parts",
    "unit_schedule",
]

#: Most lanes that take their inputs and weight addresses straight from one register.
GROUP_LANES = 512


def _check_divisor(name: str, value: int, total: int, multiple: int = 1, planes: int = 1) -> None:
    """Refuse a `value` that is no divisor of `total` and multiple of `multiple`.

    It also is a multiple or a divisor of `planes`.
    """
    legal = [d for d in range(multiple, total + 1, multiple) if total % d == 0]
    legal = [d for d in legal if d % planes == 0 or planes % d == 0]
    if value not in legal:
        raise ValueError(f"{name} must be one of {legal}, not {value!r}")


def o_lanes(pe: int, planes: int) -> int:
    """Return the neurons of a beat that goes out, of `pe` rows that are `planes` of a neuron."""
    return max(1, pe // planes)


def count_top(
    mw: int, lanes: layouts.Lanes, coefficients: NDArray[np.integer] | None = None
) -> int:
    """Return the largest count of a neuron of `mw` synapses, that of its planes together."""
    gain = (
        1 if coefficients is None else int(np.abs(coefficients).sum(axis=0, dtype=np.int64).max())
    )
    return mw * lanes.top * gain


def count_base(
    weights: NDArray[np.integer], lanes: layouts.Lanes, coefficients: NDArray[np.integer] | None
) -> NDArray[np.int64]:
    """Return what each neuron's count is too large by, shape (MH,).

    Parameters
    ----------
    weights, lanes, coefficients
        See `MatrixVectorUnit`.
    """
    if coefficients is None:
        return lanes.base(weights)
    weights, coefficients = positive_planes(weights, coefficients)
    base = lanes.base(weights)
    return (coefficients * base.reshape(-1, len(coefficients)).T).sum(axis=0)


def counts(
    thresholds: NDArray[np.integer],
    weights: NDArray[np.integer],
    lanes: layouts.Lanes,
    coefficients: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Return thresholds on accumulators as those on counts, shape (MH,) or (levels, MH).

    Parameters
    ----------
    thresholds : ndarray of int, shape (MH,) or (levels, MH)
    weights, lanes, coefficients
        See `MatrixVectorUnit`.

    Returns
    -------
    ndarray of int64
        In ``0 .. count_top(MW, lanes, coefficients) + 1``.
    """
    if coefficients is not None:
        weights, coefficients = positive_planes(weights, coefficients)
    # acc = unit * count - base, so acc >= T when count >= ceil((T + base) / unit).
    base = count_base(weights, lanes, coefficients)
    least = -((thresholds.astype(np.int64) + base) // -lanes.unit)
    return least.clip(0, count_top(weights.shape[1], lanes, coefficients) + 1)


def score_unit(
    weights: NDArray[np.integer],
    scale: NDArray[np.integer],
    offset: NDArray[np.integer],
    pe: int,
    lanes: layouts.Lanes,
    coefficients: NDArray[np.integer] | None = None,
) -> ScoreUnit:
    """Return the unit that makes scores of a `MatrixVectorUnit`'s counts; parameters as there."""
    ends = None
    folded = (-1, pe)
    if coefficients is not None:
        weights, coefficients = positive_planes(weights, coefficients)
        folded = (-1, o_lanes(pe, len(coefficients)))
    base = count_base(weights, lanes, coefficients)
    if coefficients is not None:
        # Planes partly cancel out: no accumulator reaches the sum of all planes' ends.
        planes = weights.reshape(-1, len(coefficients), weights.shape[1])
        sums = np.einsum("mj,jmi->ji", coefficients, planes.astype(np.int64))
        low, high = np.minimum(sums, 0).sum(axis=1), np.maximum(sums, 0).sum(axis=1)
        if lanes.width == 1:
            low, high = low - high, high - low
        else:
            low, high = lanes.top * low, lanes.top * high
        ends = (np.stack([low, high]) + base) // lanes.unit
        ends = ends.reshape(2, *folded)
    return ScoreUnit(
        scale.reshape(folded),
        offset.reshape(folded),
        count_top(weights.shape[1], lanes, coefficients),
        lanes.unit,
        base.reshape(folded),
        ends,
    )


def _pe_groups(pe: int, simd: int, shared: bool) -> int:
    """Return into how many groups the PEs are cut; `shared`: see `SharedCounts`."""
    # Of shared counts no input goes to all neurons.
    if shared:
        return 1
    return next((g for g in range(1, pe) if pe % g == 0 and pe // g * simd <= GROUP_LANES), pe)


def rom_widths(weights: NDArray[np.integer], pe: int, simd: int) -> tuple[int, ...]:
    """Return the bits of each PE group's weight memory that are not the same in all words.

    Parameters
    ----------
    weights : ndarray of int, shape (rows, MW)
        With planes, as `positive_planes` gives them.
    pe, simd : int
    """
    folded = weights.reshape(-1, pe, weights.shape[1] // simd, simd)
    varying = (folded != folded[:1, :, :1]).any(axis=(0, 2))
    return tuple(varying.reshape(_pe_groups(pe, simd, False), -1).sum(axis=1).tolist())


@cache
def unit_parts(
    family: Family,
    *,
    mh: int,
    mw: int,
    pe: int,
    simd: int,
    o_bits: int,
    head_latency: int,
    weights_in: ROMStyle,
    buffer_in_registers: bool = False,
    rom_latency: int = 1,
    leaf_latency: int = 1,
    lanes: layouts.Lanes = layouts.BITS,
    groups: int = 1,
    widths: tuple[int, ...] | None = None,
    accumulator: int = 0,
    planes: int = 1,
    late: bool = False,
) -> Parts:
    """Return the parts of a `MatrixVectorUnit` but for those of what stands behind its counts.

    Parameters
    ----------
    family : Family
    o_bits : int
        Bits of a beat that goes out.
    head_latency : int
        Cycles of what stands behind the counts, sums of planes included.
    mh : int
        Rows of the matrix: `planes` times its neurons.
    mw, pe, simd, weights_in, buffer_in_registers, rom_latency, leaf_latency, lanes, groups
        See `MatrixVectorUnit`.
    widths : tuple of int, optional
        `rom_widths` where some bits may be alike in all words; yosys makes constants of those.
    accumulator : int
        Bits of the accumulators, if these have the thresholds so that nothing stands behind them.
    planes : int
        Rows of a neuron.
    late : bool
        Whether nothing but a `ThresholdUnit` stands behind the counts.
    """
    neuron_folds, synapse_folds = mh // pe, mw // simd
    depth = neuron_folds * synapse_folds
    shared = weights_in is ROMStyle.CONSTANT and lanes == layouts.BITS
    sets = _pe_groups(pe, simd, shared)
    each = pe // sets
    payload = simd * lanes.width + (simd // lanes.granule if lanes.granule else 0)
    weight_bits = 64 if weights_in is ROMStyle.BRAM else depth
    late = late and shared
    lists = []
    if lanes == layouts.BITS and not shared:
        lists.append(mixing_parts(family, simd, synapse_folds > 1))
    array = array_parts(
        family, each, simd, synapse_folds, lanes, weight_bits, accumulator, late, leaf_latency
    )
    if widths is None or weights_in is not ROMStyle.BRAM:
        widths = (each * simd,) * sets
    roms = [rom_parts(family, depth, width, weights_in, rom_latency) for width in widths]
    count_bits = each * (1 if accumulator else (mw * lanes.top).bit_length())
    o_beats = mh // planes // o_lanes(pe, planes)
    folds = index_bits(depth, synapse_folds, 1 if accumulator else o_beats)
    tree = array_latency(simd, 1, lanes, late, 1 if shared else leaf_latency) + sets
    registers = (
        sets * rom_latency * payload  # operands, of which the next group takes its own
        + sets * index_bits(depth)  # the next address, and addresses from group to group
        + count_bits * sets * (sets - 1) // 2  # counts that wait for the last group
        + tree
        + head_latency
    )
    return merge(
        {"unit": 1, "fold bit": folds, "bare register": registers},
        *lists,
        {part: count * sets for part, count in array.items()},
        *roms,
        replay_parts(family, payload, synapse_folds, neuron_folds // groups, buffer_in_registers),
        skid_parts(o_bits),
    )


def head_latency(
    neuron_folds: int,
    synapse_folds: int,
    thresholds: bool,
    *,
    planes: int = 1,
    levels: int = 1,
    distinct: int = 1,
) -> int:
    """Return the cycles of what stands behind a `MatrixVectorUnit`'s counts, or sums of planes.

    Parameters
    ----------
    neuron_folds : int
        Beats that a pixel gives.
    synapse_folds : int
    thresholds : bool
        Whether there are thresholds, and not scores or accumulators.
    planes : int
        Planes of the weights; 0 or 1 where there are no coefficients.
    levels, distinct : int
        Thresholds of a neuron, and how many rows of them differ: `distinct_levels` of `counts`.
    """
    if thresholds and levels > 1:
        return search_latency(levels, distinct, neuron_folds)
    if thresholds and synapse_folds > 1 and planes <= 1:
        return 0  # the accumulators have the thresholds
    return 1 + (neuron_folds > 1) + (not thresholds)


def unit_latency(
    pe: int,
    simd: int,
    synapse_folds: int,
    *,
    rom_latency: int,
    leaf_latency: int,
    lanes: layouts.Lanes,
    head: int,
    fixed: bool,
    late: bool,
) -> int:
    """Return `MatrixVectorUnit.latency`.

    Parameters
    ----------
    pe, simd, synapse_folds, rom_latency, leaf_latency, lanes
        See `MatrixVectorUnit`.
    head : int
        `head_latency`, with planes that and `plane_latency`.
    fixed : bool
        Whether the weights are constants.
    late : bool
        Whether nothing but a `ThresholdUnit` stands behind the counts.
    """
    shared = fixed and lanes == layouts.BITS
    groups = _pe_groups(pe, simd, shared)
    own = 1 if shared else leaf_latency
    array = array_latency(simd, synapse_folds, lanes, shared and late, own)
    return rom_latency + array + groups - 1 + head


def unit_schedule(
    arrivals: NDArray[np.int64], synapse_folds: int, rounds: int, latency: int, steps: int = 1
) -> NDArray[np.int64]:
    """Return `MatrixVectorUnit.schedule` for vectors that are read `rounds` times.

    With planes one behind the other, a beat goes out after every `steps` rounds.
    """
    beats = np.arange(synapse_folds)
    through = 0 if rounds == 1 else 2  # cycles from a beat to its first reading
    # Alone: no beat is read before it came, and the beats behind it take a cycle each.
    alone = (arrivals.reshape(-1, synapse_folds) - beats).max(axis=1) + through + synapse_folds - 1
    # Behind another vector, whose last round must end: a vector's cycles after its first ended.
    turns = np.arange(len(alone)) * synapse_folds * rounds
    ends = np.maximum.accumulate(alone - turns) + turns
    giving = np.arange(steps - 1, rounds, steps)
    return (ends[:, None] + synapse_folds * giving).reshape(-1) + latency


class MatrixVectorUnit(wiring.Component):
    """Multiply vectors by a ±1 matrix, then threshold or score each neuron.

    With `pe` neurons and `simd` synapses a cycle, a vector takes ``(MH / pe) * (MW / simd)``
    cycles; neuron folds are the outer loop, synapse folds the inner one (Umuroglu et al., FINN,
    2017, section 4.2.2)::

        i --ReplayBuffer--+--|a|--+--PEArray--[PlaneSum]--+--ThresholdUnit--+--SkidBuffer-- o
              address ----+--ROM--'                       +-- or ScoreUnit -'
                                                          +-- or nothing ---'

    All registers behind the buffer share one enable, which falls while a finished beat waits for
    room in the skid buffer. The elements of the vectors are ±1 unless `lanes` says otherwise: ±1
    with true zeros, or unsigned integers.

    For a grouped convolution a pixel has `groups` vectors, one behind the other, and each group of
    neurons sees its own: neurons ``0 .. MH / groups - 1`` the first one, and so on.

    Weights that are integers are sums of planes of ±1 times coefficients. Each plane of a neuron is
    a row of the matrix, and PEs take rows: several planes of a neuron at once, or one behind the
    other. `PlaneSum` then makes one count of a neuron's; see there.

    In a large layer the PEs stand in groups too, and inputs, addresses and flags pass from one to
    the next through registers, a cycle each: no net spans the whole layer.

    Parameters
    ----------
    weights : ndarray of int, shape (M * MH, MW)
        -1 or +1; MW counts the synapses of one group. M is 1 without `coefficients`; with them, row
        ``j * M + m`` is plane m of neuron j.
    pe, simd : int
        Rows and synapses a cycle; divisors of ``M * MH / groups`` and MW. `pe` is a multiple or a
        divisor of M, `simd` a multiple of the granule of `lanes`.
    thresholds : ndarray of int, shape (MH,) or (levels, MH), optional
        ``out = 1 iff acc >= threshold`` on the accumulator. Below its least value: always on;
        above its largest: never. With two dimensions, out is the number of thresholds that are
        reached; they rise along the first axis.
    scale, offset : ndarray of int, shape (MH,), optional
        Instead of thresholds: ``out = scale * acc + offset``.
    accumulators : bool
        Instead of both: ``out = acc``.
    weights_in : ROMStyle, optional
        Where the weights live; block RAM by default, constants with a single fold.
    buffer_in_registers : bool
        Keep the input vectors in flip-flops; see `ReplayBuffer`.
    rom_latency : int
        1, or 2 for one more register behind the weight memory or, in LUTs, in its middle: for a
        faster clock where block RAM is slow (ECP5: 5.8 ns from clock to output) or the words are
        many. 3 for another one behind it, where the memory is far from what it feeds. See
        `usual_latency`.
    leaf_latency : int
        1, or 2 for one more register where bits are counted, unless the weights are constants: for
        a faster clock where inputs come through long wires (ECP5).
    lanes : Lanes
        Kind of the vectors' elements; bits by default. Integers count as they are: an offset of
        theirs belongs into thresholds or offsets.
    groups : int
        Groups of a grouped convolution; a divisor of MH.
    counting : Counting
        How agreements of bits are counted.
    coefficients : ndarray of int, shape (M, MH), optional
        The weights of neuron j are ``sum over m of coefficients[m, j] * weights[j * M + m]``.

    Attributes
    ----------
    mh, mw : int
        Neurons, and synapses of each.
    planes : int
        M.
    o_lanes : int
        Neurons of a beat: ``max(1, pe / M)``.
    row_folds, neuron_folds, synapse_folds : int
        ``M * MH / pe``, ``MH / o_lanes`` and ``MW / simd``: how often a pixel's vectors are read,
        the beats that a pixel gives, and those of a vector.
    i_beats : int
        Beats that a pixel takes: ``groups * synapse_folds``.
    cycles_per_frame : int
        Cycles that a pixel takes (a vector, with one group): ``row_folds * synapse_folds``.
    base : ndarray of int, shape (MH,)
        ``acc = lanes.unit * count - base``.
    pe_groups : int
        Groups of PEs, each of at most `GROUP_LANES` lanes if that many groups divide `pe`.
    latency : int
        Cycles from the last step of a beat's neurons to it.

    Members
    -------
    i : In(stream.Signature(lanes.payload(simd)))
        Vectors of MW lanes, lane 0 first.
    o : Out(stream.Signature(...))
        ``ArrayLayout(range(levels + 1), o_lanes)`` with thresholds, bits with one level, or
        ``layouts.scores(o_lanes, signed(width))`` with scores or accumulators; the smallest width
        that holds every one that can occur.

    Raises
    ------
    ValueError
        If a parameter is illegal; the message says what would be legal.
    """

    def __init__(
        self,
        weights: NDArray[np.integer],
        *,
        pe: int,
        simd: int,
        thresholds: NDArray[np.integer] | None = None,
        scale: NDArray[np.integer] | None = None,
        offset: NDArray[np.integer] | None = None,
        accumulators: bool = False,
        weights_in: ROMStyle | None = None,
        buffer_in_registers: bool = False,
        rom_latency: int = 1,
        leaf_latency: int = 1,
        lanes: layouts.Lanes = layouts.BITS,
        groups: int = 1,
        counting: Counting = Counting.LUTS,
        coefficients: NDArray[np.integer] | None = None,
    ):
        rows, self.mw = weights.shape
        self.planes = 1 if coefficients is None else len(coefficients)
        self.mh = rows // self.planes
        if coefficients is not None:
            if coefficients.shape != (self.planes, self.mh) or self.mh * self.planes != rows:
                raise ValueError(
                    f"coefficients must have a shape (M, MH) with M * MH = {rows}, not "
                    f"{coefficients.shape}"
                )
            weights, coefficients = positive_planes(weights, coefficients)
        granule = lanes.granule or 1
        if self.mw % granule:
            raise ValueError(f"granule must divide the {self.mw} synapses, unlike {granule}")
        _check_divisor("groups", groups, self.mh)
        _check_divisor("pe", pe, rows // groups, planes=self.planes)
        _check_divisor("simd", simd, self.mw, granule)
        self.pe, self.simd, self.lanes, self.groups = pe, simd, lanes, groups
        self.o_lanes = o_lanes(pe, self.planes)
        self.row_folds, self.neuron_folds = rows // pe, self.mh // self.o_lanes
        self.synapse_folds = self.mw // simd
        self.i_beats = groups * self.synapse_folds
        self.cycles_per_frame = self.row_folds * self.synapse_folds
        single = self.cycles_per_frame == 1
        self.weights_in = weights_in or (ROMStyle.CONSTANT if single else ROMStyle.BRAM)
        self.weights = weights
        if rom_latency not in ROM_LATENCIES:
            raise ValueError(f"rom_latency must be 1, 2 or 3, not {rom_latency!r}")
        if leaf_latency not in (1, 2):
            raise ValueError(f"leaf_latency must be 1 or 2, not {leaf_latency!r}")
        self.rom_latency = rom_latency
        heads = (thresholds is not None, scale is not None or offset is not None, accumulators)
        if sum(heads) != 1 or (scale is None) != (offset is None):
            raise ValueError(
                "either thresholds or both scale and offset must be given, or accumulators be true"
            )

        self.base = count_base(weights, lanes, coefficients)
        if accumulators:
            scale, offset = np.ones(self.mh, np.int64), np.zeros(self.mh, np.int64)
        fixed = self.weights_in is ROMStyle.CONSTANT
        shared = fixed and lanes == layouts.BITS
        self.pe_groups = _pe_groups(pe, simd, shared)
        top = count_top(self.mw, lanes, coefficients)
        self._sum = None
        if coefficients is not None:
            self._sum = PlaneSum(coefficients, pe, self.mw * lanes.top)
        bits = thresholds is not None and thresholds.size == self.mh
        late = shared and bits and coefficients is None
        self._head: ThresholdUnit | MultiThresholdUnit | ScoreUnit | None = None
        kept: NDArray[np.int64] | None = None
        output = layouts.bits(self.o_lanes)
        if thresholds is not None:
            if thresholds.ndim not in (1, 2) or thresholds.shape[-1] != self.mh:
                raise ValueError(
                    f"thresholds must have shape ({self.mh},) or (levels, {self.mh}), not "
                    f"{thresholds.shape}"
                )
            least = counts(thresholds, weights, lanes, coefficients)
            least = least.reshape(-1, self.neuron_folds, self.o_lanes)
            if len(least) > 1:
                self._head = MultiThresholdUnit(least, top)
                output = self._head.o.shape()
            elif self.synapse_folds > 1 and self._sum is None:
                kept = least[0]  # for the accumulators
            else:
                _, beside = step_top(simd, 1, lanes, late)
                self._head = ThresholdUnit(least[0], top, late=beside)
        elif scale is not None and offset is not None:
            self._head = score_unit(weights, scale, offset, pe, lanes, coefficients)
            output = layouts.scores(self.o_lanes, signed(self._head.width))
        each = pe // self.pe_groups
        self._arrays = [
            PEArray(
                each,
                simd,
                self.synapse_folds,
                lanes,
                counting=counting,
                constants=weights[first : first + each] > 0 if fixed else None,
                thresholds=None if kept is None else kept[:, first : first + each],
                late=late,
                leaf_latency=leaf_latency,
            )
            for first in range(0, pe, each)
        ]
        payload = lanes.payload(simd)
        self._rounds = self.row_folds // groups
        self._replay = ReplayBuffer(
            payload,
            self.synapse_folds,
            self._rounds,
            buffer_in_registers,
            distributed=counting is Counting.CCU2C,
        )
        self._count_latency = rom_latency + self._arrays[0].latency + self.pe_groups - 1
        self.latency = unit_latency(
            pe,
            simd,
            self.synapse_folds,
            rom_latency=rom_latency,
            leaf_latency=leaf_latency,
            lanes=lanes,
            head=sum(unit.latency for unit in (self._sum, self._head) if unit is not None),
            fixed=fixed,
            late=late,
        )
        super().__init__({"i": In(stream.Signature(payload)), "o": Out(stream.Signature(output))})

    @property
    def output_shape(self) -> data.ArrayLayout:
        """Payload of the output stream."""
        return self.o.payload.shape()

    def rom_words(self) -> NDArray[np.int64]:
        """Return the weight bits in the order of the ROM, which holds them encoded by the PEs.

        Returns
        -------
        ndarray of int, shape (row_folds * synapse_folds, pe * simd)
            Entry ``[rf * synapse_folds + sf, p * simd + s]`` is 1 where
            ``weights[rf * pe + p, sf * simd + s]`` is +1, or -1 if its coefficient is negative.
        """
        folded = (self.weights > 0).reshape(self.row_folds, self.pe, self.synapse_folds, self.simd)
        return folded.transpose(0, 2, 1, 3).reshape(self.cycles_per_frame, -1).astype(np.int64)

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which the beats of pixels leave, given those at which they arrive.

        Parameters
        ----------
        arrivals : ndarray of int, shape (pixels * i_beats,)
            Rising; of beats that wait for room in a queue, the cycles at which they joined it.

        Returns
        -------
        ndarray of int, shape (pixels * neuron_folds,)
            For a unit that is idle at first and a consumer that is always ready.
        """
        steps = 1 if self._sum is None else self._sum.steps
        return unit_schedule(arrivals, self.synapse_folds, self._rounds, self.latency, steps)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.replay = replay = self._replay
        m.submodules.skid = skid = SkidBuffer(self.output_shape)
        wiring.connect(m, wiring.flipped(self.i), replay.i)
        wiring.connect(m, skid.o, wiring.flipped(self.o))

        stall = Signal()
        en = ~stall
        m.d.comb += replay.o.ready.eq(en)

        # Fetch: count the steps of a pixel, and within them those of a neuron.
        address = Signal(range(self.cycles_per_frame))
        # Nothing but a flip-flop in front of the address: ABC makes columns of the weight memory
        # from what it finds there, a counter's sums.
        following = Signal(range(self.cycles_per_frame), init=1 % self.cycles_per_frame)
        step = Signal(range(self.synapse_folds))
        first, last = step == 0, step == self.synapse_folds - 1
        with m.If(replay.o.valid & en):
            m.d.sync += [
                address.eq(following),
                following.eq(Mux(following == self.cycles_per_frame - 1, 0, following + 1)),
                step.eq(Mux(last, 0, step + 1)),
            ]
        settled: Value = replay.o.valid & last
        left = self._count_latency  # cycles until `settled` and the counts belong together
        if self._head is not None:
            settled = Value.cast(delay(m, settled, left, en, "settled", reset=True))

        # Compute: PE group g works g cycles behind the first one, and waits less for the last.
        width = Shape.cast(self.lanes.payload(self.simd)).width
        shape = (self.cycles_per_frame, self.pe_groups, self.pe // self.pe_groups, self.simd)
        words = self.rom_words().reshape(shape) > 0
        mixed = self._arrays[0].mix(Value.cast(replay.o.payload))
        ahead: Value = Cat(mixed, address)
        flags: Value = Cat(replay.o.valid, first, last)
        grouped = []
        for group, array in enumerate(self._arrays):
            if group:
                ahead = Value.cast(delay(m, ahead, 1, en, f"ahead_{group}"))
                flags = Value.cast(delay(m, flags, 1, en, f"ahead_flags_{group}", reset=True))
            encoded = array.encode(words[:, group]).reshape(len(words), -1).astype(np.int64)
            rom = ROM.of_lanes(encoded, 1, self.weights_in, self.rom_latency)
            m.submodules[f"rom_{group}"] = rom
            m.submodules[f"array_{group}"] = array
            cycles = self.rom_latency
            step_flags = delay(m, flags, cycles, en, f"flags_{group}", reset=True)
            m.d.comb += [
                rom.en.eq(en),
                rom.addr.eq(ahead[width:]),
                array.en.eq(en),
                array.a.eq(delay(m, ahead[:width], cycles, en, f"operands_{group}")),
                Cat(array.valid, array.first, array.last).eq(step_flags),
                array.w.eq(rom.data),
            ]
            grouped.append(
                delay(m, array.o.as_value(), self.pe_groups - 1 - group, en, f"wait_{group}")
            )
        outputs: Value = Cat(*grouped)
        if self._sum is not None:
            m.submodules.planes = planes = self._sum
            m.d.comb += [planes.i.eq(outputs), planes.valid.eq(settled), planes.en.eq(en)]
            settled, outputs = planes.done, planes.o.as_value()
        if self._head is not None:
            m.submodules.head = head = self._head
            fold = Signal(range(self.neuron_folds))
            with m.If(settled & en):
                m.d.sync += fold.eq(Mux(fold == self.neuron_folds - 1, 0, fold + 1))
            m.d.comb += [head.i.eq(outputs), head.fold.eq(fold), head.en.eq(en)]
            if isinstance(head, ThresholdUnit) and head.uses_late:
                # Where a lane is left to the thresholds there is one group.
                m.d.comb += head.late.eq(self._arrays[0].late)
            left = head.latency
            outputs = head.o.as_value()
        before = Value.cast(delay(m, settled, left - 1, en, "before", reset=True))
        done = delay(m, before, 1, en, "done", reset=True)
        stall_register(m, stall, skid, before, done)
        m.d.comb += [skid.i.valid.eq(done), skid.i.payload.eq(outputs)]
        return m
