"""Components between two streams, small ones, and what each makes of its frames."""

from math import lcm

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.hdl import Shape, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from stream_rules import StreamClaim

from xnorflow.hw.argmax import ArgMax
from xnorflow.hw.fifo import StreamFIFO
from xnorflow.hw.gain import GainUnit
from xnorflow.hw.join import JoinUnit, StreamFork
from xnorflow.hw.magnitude import MagnitudeUnit
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.parallel_window import ParallelWindow
from xnorflow.hw.pool import PoolUnit
from xnorflow.hw.replay_buffer import ReplayBuffer
from xnorflow.hw.resize import VectorResizer
from xnorflow.hw.skid import SkidBuffer
from xnorflow.hw.sliding_window import SlidingWindow
from xnorflow.hw.threshold_stage import ScoreStage, ThresholdStage
from xnorflow.hw.width_converter import WidthConverter

__all__ = ["ADDRESS_CASES", "CASES", "case_name", "subject"]


def case_name(make, parameters: dict) -> str:
    """Return the name of a case, as ``fifo-depth=3``."""
    values = ",".join(f"{name}={value}".replace(" ", "") for name, value in parameters.items())
    return f"{make.__name__}-{values}" if values else make.__name__


def subject(component) -> str:
    """Return the name of the class that a case proves something of."""
    return getattr(component, "proves", type(component).__name__)


def chunks(value: Value, width: int) -> list[Value]:
    return [value[start : start + width] for start in range(0, len(value), width)]


def converter(i_lanes: int, o_lanes: int):
    elements = lcm(i_lanes, o_lanes)
    claim = StreamClaim(
        elements // i_lanes,
        elements // o_lanes,
        lambda beats: chunks(Cat(beats), 2 * o_lanes),
        held=3,
        patience=3,
    )
    return WidthConverter(2, i_lanes, o_lanes), claim


def fifo(depth: int):
    return StreamFIFO(2, depth), StreamClaim(1, 1, lambda beats: beats, held=depth, patience=2)


def skid():
    return SkidBuffer(3), StreamClaim(1, 1, lambda beats: beats, held=1, patience=0)


def replay(length: int, times: int, registers: bool = False):
    claim = StreamClaim(length, length * times, lambda beats: [*beats] * times, held=3, patience=3)
    return ReplayBuffer(2, length, times, registers), claim


def resizer(lanes: int, i_elements: int, o_elements: int):
    def resized(beats):
        joined = Cat(Cat(beats), Const(0, 2 * max(0, o_elements - i_elements)))
        return chunks(joined[: 2 * o_elements], 2 * component.o.payload.shape().length)

    both = (lanes, lanes) if lanes else (i_elements, o_elements)
    component = VectorResizer(2, *both, i_elements, o_elements)
    return component, StreamClaim(component.i_beats, component.o_beats, resized, held=1, patience=1)


def pad_of(component, channel: int, width: int) -> Const:
    return Const(int(component._pad_values[channel]), width)


def window(shape, kernel, lanes=1, groups=1, zero_flag=False, pad_values=None, **places):
    component = SlidingWindow(
        1,
        shape,
        kernel,
        lanes=lanes,
        groups=groups,
        zero_flag=zero_flag,
        pad_values=None if pad_values is None else np.array(pad_values),
        **places,
    )
    geometry, (height, width, channels) = component.geometry, shape
    folds = channels // lanes

    def windows(beats):
        answer = []
        for oy, ox, group, ky, kx, fold in np.ndindex(
            *geometry.outputs, groups, *kernel, folds // groups
        ):
            y, x = int(geometry.taps(0)[oy, ky]), int(geometry.taps(1)[ox, kx])
            beat = group * (folds // groups) + fold
            inside = 0 <= y < height and 0 <= x < width
            if inside:
                lanes_now = beats[(y * width + x) * folds + beat]
            else:
                first = beat * lanes
                lanes_now = Cat(pad_of(component, first + lane, 1) for lane in range(lanes))
            answer.append(Cat(lanes_now, Const(not inside, 1)) if zero_flag else lanes_now)
        return answer

    claim = StreamClaim(
        height * width * folds,
        int(np.prod(geometry.outputs)) * kernel[0] * kernel[1] * folds,
        windows,
        held=3,
        patience=4,
    )
    return component, claim


def parallel(shape, kernel, zero_flag=False, **places):
    component = ParallelWindow(1, shape, kernel, zero_flag=zero_flag, **places)
    geometry, (height, width, channels) = component.geometry, shape

    def windows(beats):
        answer = []
        for oy, ox in np.ndindex(*geometry.outputs):
            parts = []
            for ky, kx in np.ndindex(*kernel):
                y, x = int(geometry.taps(0)[oy, ky]), int(geometry.taps(1)[ox, kx])
                inside = 0 <= y < height and 0 <= x < width
                parts.append(beats[y * width + x] if inside else Const(0, channels))
                if zero_flag:
                    parts.append(Const(not inside, 1))
            answer.append(Cat(parts))
        return answer

    claim = StreamClaim(
        height * width,
        int(np.prod(geometry.outputs)),
        windows,
        held=3,
        patience=component.cycles_per_frame + 2,
        alone=True,  # a frame's last windows move on with the next one's pixels
    )
    return component, claim


def pool(element, shape, kernel, lanes, op, registers=False, falling=()):
    turned = np.isin(np.arange(shape[2]), falling)
    options = {"lanes": lanes, "op": op, "registers": registers}
    options["falling"] = turned if falling else None
    component = PoolUnit(element, shape, kernel, **options)
    rows, columns, channels = component.o_shape
    width, folds = component.element.width, channels // lanes

    def pooled(beats):
        answer = []
        for y, x, fold in np.ndindex(rows, columns, folds):
            taps = [
                beats[((y * kernel[0] + ky) * shape[1] + x * kernel[1] + kx) * folds + fold]
                for ky, kx in np.ndindex(*kernel)
            ]
            lanes_now = []
            for lane in range(lanes):
                cells = [tap[lane * width : (lane + 1) * width] for tap in taps]
                if component.element.signed:
                    cells = [cell.as_signed() for cell in cells]
                total: Value = cells[0]
                for cell in cells[1:]:
                    if turned[fold * lanes + lane]:
                        total = Mux(total < cell, total, cell)
                    elif op == "max":
                        total = Mux(total > cell, total, cell)
                    else:
                        total = total | cell if op == "or" else total + cell
                result = Signal(component.o_element.width)
                lanes_now.append(Cat(total, Const(0, len(result)))[: len(result)])
            answer.append(Cat(lanes_now))
        return answer

    claim = StreamClaim(
        shape[0] * shape[1] * folds,
        rows * columns * folds,
        pooled,
        held=2,
        patience=3,
    )
    return component, claim


def unit(shape, pe, simd, scores=False, levels=1, coefficients=None, **options):
    rng = np.random.default_rng(7)
    mh, mw = shape
    planes = 1
    if coefficients is not None:
        coefficients = np.array(coefficients)
        planes = len(coefficients)
    rows = rng.choice([-1, 1], (planes * mh, mw))
    options = {**options, "pe": pe, "simd": simd, "coefficients": coefficients}
    if scores:
        scale, offset = rng.integers(-3, 4, mh), rng.integers(-5, 6, mh)
        component = MatrixVectorUnit(rows, scale=scale, offset=offset, **options)
    else:
        thresholds = rng.integers(-1, 2, mh)
        if levels > 1:
            thresholds = np.sort(rng.integers(-mw, mw + 2, (levels, mh)), axis=0)
        component = MatrixVectorUnit(rows, thresholds=thresholds, **options)
    weights = rows
    if coefficients is not None:
        weights = np.einsum("mj,jmi->ji", coefficients, rows.reshape(mh, planes, mw))

    def product(beats):
        lanes = Cat(beats)
        answers = []
        for row in range(mh):
            acc: Value = Const(0, signed(8))
            for column in range(mw):
                weight = int(weights[row, column])
                acc = acc + Mux(lanes[column], weight, -weight)
            if scores:
                full = Signal(signed(16))
                value = acc * int(scale[row]) + int(offset[row])
                answers.append(Cat(value, value[-1].replicate(len(full))))
            else:
                limits = thresholds.reshape(-1, mh)[:, row].tolist()
                reached = sum((acc >= limit for limit in limits[1:]), acc >= limits[0])
                answers.append(Cat(reached, Const(0, 8)))
        width = len(Value.cast(component.o.payload)) // component.o_lanes
        return [
            Cat(answer[:width] for answer in answers[first : first + component.o_lanes])
            for first in range(0, mh, component.o_lanes)
        ]

    claim = StreamClaim(
        mw // simd,
        component.neuron_folds,
        product,
        held=4 + component.latency,
        patience=component.latency + 3,
    )
    return component, claim


def threshold_stage(lanes: int, levels: int = 1):
    thresholds = np.array([[-2, 1, 3, -4], [0, 2, 3, -3], [0, 3, 4, 2]])[:levels]
    component = ThresholdStage(signed(3), thresholds, lanes=lanes)
    width = levels.bit_length()

    def compared(beats):
        answers = []
        for cell, limits in zip(chunks(Cat(beats), 3), thresholds.T.tolist(), strict=True):
            compares = [cell.as_signed() >= limit for limit in limits]
            reached = sum(compares[1:], compares[0])
            answers.append(Cat(reached, Const(0, width))[:width])
        return [Cat(answers[first : first + lanes]) for first in range(0, 4, lanes)]

    claim = StreamClaim(
        4 // lanes,
        4 // lanes,
        compared,
        held=component.latency + 1,
        patience=component.latency + 2,
    )
    return component, claim


class Harness(wiring.Component):
    """What makes one stream in and one out of a component that has more of them.

    `free` may be anything; but nobody waits for it for more than a cycle.
    """

    def __init__(self, proves: str, i_shape, o_shape):
        self.proves, self.free = proves, {}
        super().__init__({"i": In(stream.Signature(i_shape)), "o": Out(stream.Signature(o_shape))})

    def whim(self, m: Module, name: str, wanted: Value) -> Value:
        """Return a free bit that is 1 in the second of two cycles in which it is wanted."""
        bit, waited = Signal(name=name), Signal(name=f"{name}_waited")
        self.free[name] = bit
        m.d.sync += waited.eq(wanted & ~(bit | waited))
        return bit | waited

    def gate(self, m: Module, name: str, source, sink, payload: Value) -> None:
        """Connect streams; an offer comes late at times."""
        offered = Signal(name=f"{name}_offered")
        now = offered | self.whim(m, name, source.valid & ~offered)
        m.d.comb += [
            sink.valid.eq(source.valid & now),
            Value.cast(sink.payload).eq(payload),
            source.ready.eq(sink.ready & now),
        ]
        m.d.sync += offered.eq(sink.valid & ~sink.ready)


class ForkHarness(Harness):
    """A fork with a second consumer that has whims; what goes in is taken at once."""

    def __init__(self, looked_at: str):
        self.looked_at = looked_at
        super().__init__("StreamFork", 2, 2)

    def elaborate(self, platform):
        m = Module()
        m.submodules.skid = skid = SkidBuffer(2)
        m.submodules.fork = fork = StreamFork(2)
        wiring.connect(m, wiring.flipped(self.i), skid.i)
        wiring.connect(m, skid.o, fork.i)
        seen, other = (fork.o, fork.side) if self.looked_at == "o" else (fork.side, fork.o)
        wiring.connect(m, seen, wiring.flipped(self.o))
        m.d.comb += other.ready.eq(self.whim(m, "other", other.valid))
        return m


def fork(looked_at: str):
    return ForkHarness(looked_at), StreamClaim(1, 1, lambda beats: beats, held=2, patience=3)


class JoinHarness(Harness):
    """A join whose streams come from one: its beats in turn, or halves of each, at their time."""

    def __init__(self, join: JoinUnit):
        self.join = join
        self.widths = [Shape.cast(port.payload.shape()).width for port in (join.i, join.side)]
        together = sum(self.widths) if join.how == "add" else max(self.widths)
        super().__init__("JoinUnit", together, join.o.payload.shape())

    def elaborate(self, platform):
        m = Module()
        m.submodules.join = join = self.join
        wiring.connect(m, join.o, wiring.flipped(self.o))
        low = self.widths[0]
        if join.how == "add":
            m.submodules.skid = skid = SkidBuffer(sum(self.widths))
            m.submodules.fork = fork = StreamFork(sum(self.widths))
            wiring.connect(m, wiring.flipped(self.i), skid.i)
            wiring.connect(m, skid.o, fork.i)
            self.gate(m, "main", fork.o, join.i, fork.o.payload[:low])
            self.gate(m, "side", fork.side, join.side, fork.side.payload[low:])
            return m
        beat = Signal(range(join.o_beats))
        turn = beat >= join.beats[0] if join.how == "append" else beat < join.beats[1]
        m.d.comb += [
            join.i.valid.eq(self.i.valid & ~turn),
            join.side.valid.eq(self.i.valid & turn),
            self.i.ready.eq(Mux(turn, join.side.ready, join.i.ready)),
            Value.cast(join.i.payload).eq(self.i.payload[:low]),
            Value.cast(join.side.payload).eq(self.i.payload[: self.widths[1]]),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += beat.eq(Mux(beat == join.o_beats - 1, 0, beat + 1))
        return m


def joined(how, elements, channels, lanes=1, gains=None):
    component = JoinHarness(
        JoinUnit(
            elements,
            channels,
            lanes=lanes,
            how=how,
            gains=None if gains is None else np.array(gains),
        )
    )
    join, widths = component.join, component.widths

    def cells(beat: Value, number: int) -> list[Value]:
        """Return the elements of a beat of one of the streams."""
        first = widths[0] if number and how == "add" else 0
        shape = join.elements[number]
        parts = chunks(beat[first : first + widths[number]], shape.width)
        return [part.as_signed() if shape.signed else part for part in parts]

    def fitted(value: Value) -> Value:
        wide = value[-1].replicate(16) if value.shape().signed else Const(0, 16)
        return Cat(value, wide)[: join.o_element.width]

    def answer(beats):
        if how == "add":
            factors = np.ones((2, channels[0]), int) if gains is None else np.array(gains)
            factors = factors.reshape(2, -1, lanes).tolist()
            return [
                Cat(
                    fitted(main * a + side * b)
                    for main, side, a, b in zip(
                        cells(beat, 0),
                        cells(beat, 1),
                        factors[0][number],
                        factors[1][number],
                        strict=True,
                    )
                )
                for number, beat in enumerate(beats)
            ]
        order = [0] * join.beats[0] + [1] * join.beats[1]
        order = order if how == "append" else order[::-1]
        return [
            Cat(fitted(cell) for cell in cells(beat, number))
            for number, beat in zip(order, beats, strict=True)
        ]

    claim = StreamClaim(
        join.o_beats, join.o_beats, answer, held=join.latency + 2, patience=join.latency + 4
    )
    return component, claim


class GainHarness(Harness):
    """Gains whose streams come from one; of a pixel's beats the first one brings the gain."""

    def __init__(self, gain: GainUnit):
        self.gain = gain
        self.widths = [Shape.cast(port.payload.shape()).width for port in (gain.i, gain.side)]
        super().__init__("GainUnit", sum(self.widths), gain.o.payload.shape())

    def elaborate(self, platform):
        m = Module()
        m.submodules.gain = gain = self.gain
        wiring.connect(m, gain.o, wiring.flipped(self.o))
        m.submodules.skid = skid = SkidBuffer(sum(self.widths))
        m.submodules.fork = fork = StreamFork(sum(self.widths))
        wiring.connect(m, wiring.flipped(self.i), skid.i)
        wiring.connect(m, skid.o, fork.i)
        self.gate(m, "main", fork.o, gain.i, fork.o.payload[: self.widths[0]])
        beat = Signal(range(gain.o_beats))
        first = stream.Signature(sum(self.widths)).create()
        m.d.comb += [
            first.payload.eq(fork.side.payload),
            first.valid.eq(fork.side.valid & (beat == 0)),
            fork.side.ready.eq(first.ready | (beat != 0)),
        ]
        self.gate(m, "side", first, gain.side, first.payload[self.widths[0] :])
        with m.If(fork.side.valid & fork.side.ready):
            m.d.sync += beat.eq(Mux(beat == gain.o_beats - 1, 0, beat + 1))
        return m


def gain(channels: int):
    unit = GainUnit((signed(2), unsigned(2)), channels, lanes=1, ranges=((-2, 1), (0, 3)))
    component = GainHarness(unit)

    def multiplied(beats):
        factor = beats[0][2:]
        products = [beat[:2].as_signed() * factor for beat in beats]
        return [product[: unit.o_element.width] for product in products]

    claim = StreamClaim(channels, channels, multiplied, held=unit.latency + 2, patience=6)
    return component, claim


def magnitude(lanes: int, shift: int):
    gains, offsets = np.array([1, 3]), np.array([1, -2])
    component = MagnitudeUnit(signed(2), gains, offsets, shift=shift, lanes=lanes)

    def added(beats):
        moved = [
            cell.as_signed() * int(a) + int(b)
            for cell, a, b in zip(chunks(Cat(beats), 2), gains, offsets, strict=True)
        ]
        total = sum((Mux(value < 0, -value, value).as_unsigned() for value in moved), Const(0))
        return [((total + (1 << shift) // 2) >> shift)[: component.o_element.width]]

    latency = component.latency
    return component, StreamClaim(2 // lanes, 1, added, held=latency + 2, patience=latency + 2)


def score_stage(lanes: int):
    scale, offset = np.array([2, -3]), np.array([1, -4])
    component = ScoreStage(unsigned(3), scale, offset, lanes=lanes)

    def scored(beats):
        answers = []
        for cell, a, b in zip(chunks(Cat(beats), 3), scale, offset, strict=True):
            value = cell * int(a) + int(b)
            answers.append(Cat(value, value[-1].replicate(16))[: component.width])
        return [Cat(answers[first : first + lanes]) for first in range(0, 2, lanes)]

    return component, StreamClaim(2 // lanes, 2 // lanes, scored, held=4, patience=5)


def argmax(lanes: int, width: int, classes: int):
    component = ArgMax(lanes, width, classes)
    index_bits = component.o.payload.shape().members["index"]

    def ranked(beats):
        cells = [cell.as_signed() for cell in chunks(Cat(beats), width)]
        answer = []
        for beat in range(classes // lanes):
            so_far = cells[: (beat + 1) * lanes]
            # By definition: the first class that none exceeds.
            index: Value = Const(0, index_bits)
            for candidate in reversed(range(len(so_far))):
                best = Const(1)
                for other in so_far:
                    best = best & (so_far[candidate] >= other)
                index = Mux(best, Const(candidate, index_bits), index)
            last = Const(beat == classes // lanes - 1, 1)
            answer.append(Cat(beats[beat], index[: Const(0, index_bits).shape().width], last))
        return answer

    claim = StreamClaim(
        component.beats,
        component.beats,
        ranked,
        held=component.latency + 2,
        patience=component.latency + 2,
    )
    return component, claim


ONE = (1, 1, 1, 1)
CASES = [
    (skid, {}),
    *((fifo, {"depth": depth}) for depth in (1, 2, 4, 6)),
    *(
        (converter, {"i_lanes": i_lanes, "o_lanes": o_lanes})
        for i_lanes, o_lanes in ((1, 3), (4, 1), (2, 3), (3, 2), (2, 2))
    ),
    *((replay, {"length": a, "times": b}) for a, b in ((1, 2), (1, 3), (2, 2), (2, 1))),
    (replay, {"length": 2, "times": 2, "registers": True}),
    *(
        (resizer, {"lanes": lanes, "i_elements": a, "o_elements": b})
        for lanes, a, b in ((1, 2, 3), (2, 4, 2), (0, 3, 2), (0, 2, 3))
    ),
    (window, {"shape": (2, 2, 1), "kernel": (2, 2)}),
    (window, {"shape": (2, 2, 1), "kernel": (1, 1), "stride": (2, 2)}),
    (window, {"shape": (2, 1, 1), "kernel": (1, 1)}),
    (window, {"shape": (1, 3, 1), "kernel": (1, 2), "dilation": (1, 2)}),
    (window, {"shape": (1, 2, 2), "kernel": (1, 2), "groups": 2}),
    (window, {"shape": (1, 2, 1), "kernel": (1, 3), "padding": (0, 1, 0, 1), "zero_flag": True}),
    (window, {"shape": (1, 1, 2), "kernel": (1, 2), "padding": (0, 1, 0, 0), "pad_values": (1, 0)}),
    (parallel, {"shape": (3, 3, 1), "kernel": (2, 2)}),
    (parallel, {"shape": (2, 2, 1), "kernel": (3, 3), "padding": ONE, "zero_flag": True}),
    (parallel, {"shape": (3, 4, 1), "kernel": (2, 2), "stride": (2, 2)}),
    (pool, {"element": 1, "shape": (2, 4, 1), "kernel": (2, 2), "lanes": 1, "op": "or"}),
    (pool, {"element": 1, "shape": (3, 3, 1), "kernel": (2, 2), "lanes": 1, "op": "or"}),
    (pool, {"element": 1, "shape": (2, 2, 2), "kernel": (2, 1), "lanes": 1, "op": "sum"}),
    (
        pool,
        {
            "element": 1,
            "shape": (2, 4, 1),
            "kernel": (2, 2),
            "lanes": 1,
            "op": "or",
            "registers": True,
        },
    ),
    (pool, {"element": signed(2), "shape": (1, 4, 1), "kernel": (1, 2), "lanes": 1, "op": "max"}),
    (pool, {"element": 2, "shape": (2, 2, 1), "kernel": (2, 2), "lanes": 1, "op": "max"}),
    (
        pool,
        {
            "element": signed(2),
            "shape": (1, 2, 2),
            "kernel": (1, 2),
            "lanes": 1,
            "op": "max",
            "falling": [1],
        },
    ),
    (unit, {"shape": (2, 2), "pe": 1, "simd": 2}),
    (unit, {"shape": (2, 2), "pe": 2, "simd": 1}),
    (unit, {"shape": (2, 3), "pe": 2, "simd": 3}),
    (unit, {"shape": (2, 4), "pe": 2, "simd": 2}),
    (unit, {"shape": (2, 2), "pe": 2, "simd": 1, "scores": True}),
    (unit, {"shape": (2, 2), "pe": 2, "simd": 2, "levels": 3}),
    (unit, {"shape": (1, 2), "pe": 2, "simd": 1, "coefficients": [[1], [-2]]}),
    (fork, {"looked_at": "o"}),
    (fork, {"looked_at": "side"}),
    (joined, {"how": "add", "elements": (signed(2), unsigned(2)), "channels": (1, 1)}),
    (
        joined,
        {"how": "add", "elements": (2, signed(2)), "channels": (2, 2), "gains": [[1, 1], [3, -2]]},
    ),
    (joined, {"how": "append", "elements": (1, signed(2)), "channels": (2, 1)}),
    (joined, {"how": "prepend", "elements": (signed(2), 2), "channels": (2, 4), "lanes": 2}),
    (gain, {"channels": 1}),
    (gain, {"channels": 2}),
    (magnitude, {"lanes": 1, "shift": 1}),
    (magnitude, {"lanes": 2, "shift": 0}),
    (threshold_stage, {"lanes": 2}),
    (threshold_stage, {"lanes": 4, "levels": 3}),
    (threshold_stage, {"lanes": 4}),
    (score_stage, {"lanes": 1}),
    (score_stage, {"lanes": 2}),
    (argmax, {"lanes": 1, "width": 2, "classes": 3}),
    (argmax, {"lanes": 2, "width": 2, "classes": 4}),
    (argmax, {"lanes": 3, "width": 2, "classes": 3}),
]

#: Memories whose size is no power of two, of components too large for a proof of all rules.
ADDRESS_CASES = [
    (fifo, {"depth": 12}),
    (replay, {"length": 3, "times": 2}),
    (replay, {"length": 7, "times": 4}),
    (window, {"shape": (3, 3, 1), "kernel": (2, 2)}),
    (window, {"shape": (4, 5, 2), "kernel": (3, 3), "padding": ONE, "zero_flag": True}),
    (window, {"shape": (5, 5, 1), "kernel": (3, 3), "stride": (2, 2)}),
    (window, {"shape": (5, 6, 2), "kernel": (2, 3), "dilation": (2, 1), "groups": 2}),
    (parallel, {"shape": (6, 7, 1), "kernel": (3, 3), "padding": ONE}),
    (pool, {"element": 1, "shape": (4, 6, 3), "kernel": (2, 2), "lanes": 1, "op": "or"}),
    (unit, {"shape": (6, 10), "pe": 2, "simd": 2}),
]
