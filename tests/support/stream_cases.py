"""Components between two streams, small ones, and what each makes of its frames."""

from math import lcm

import numpy as np
from amaranth import Cat, Const, Mux, Signal, signed, unsigned
from amaranth.hdl import Value
from stream_rules import StreamClaim

from xnorflow.hw.argmax import ArgMax
from xnorflow.hw.fifo import StreamFIFO
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.parallel_window import ParallelWindow
from xnorflow.hw.pool import PoolUnit
from xnorflow.hw.replay_buffer import ReplayBuffer
from xnorflow.hw.resize import VectorResizer
from xnorflow.hw.skid import SkidBuffer
from xnorflow.hw.sliding_window import SlidingWindow
from xnorflow.hw.threshold_stage import ScoreStage, ThresholdStage
from xnorflow.hw.width_converter import WidthConverter

__all__ = ["ADDRESS_CASES", "CASES", "case_name"]


def case_name(make, parameters: dict) -> str:
    """Return the name of a case, as ``fifo-depth=3``."""
    values = ",".join(f"{name}={value}".replace(" ", "") for name, value in parameters.items())
    return f"{make.__name__}-{values}" if values else make.__name__


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


def pool(element, shape, kernel, lanes, op, registers=False):
    component = PoolUnit(element, shape, kernel, lanes=lanes, op=op, registers=registers)
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
                total: Value = cells[0]
                for cell in cells[1:]:
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


def unit(shape, pe, simd, scores=False, **options):
    rng = np.random.default_rng(7)
    weights = rng.choice([-1, 1], shape)
    mh, mw = shape
    if scores:
        scale, offset = rng.integers(-3, 4, mh), rng.integers(-5, 6, mh)
        component = MatrixVectorUnit(
            weights, pe=pe, simd=simd, scale=scale, offset=offset, **options
        )
    else:
        thresholds = rng.integers(-1, 2, mh)
        component = MatrixVectorUnit(weights, pe=pe, simd=simd, thresholds=thresholds, **options)

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
                answers.append(acc >= int(thresholds[row]))
        width = len(Value.cast(component.o.payload)) // pe
        return [
            Cat(answer[:width] for answer in answers[first : first + pe])
            for first in range(0, mh, pe)
        ]

    claim = StreamClaim(
        mw // simd,
        mh // pe,
        product,
        held=4 + component.latency,
        patience=component.latency + 3,
    )
    return component, claim


def threshold_stage(lanes: int):
    thresholds = np.array([-2, 1, 3, -4])
    component = ThresholdStage(signed(3), thresholds, lanes=lanes)

    def compared(beats):
        answers = [
            cell.as_signed() >= int(threshold)
            for cell, threshold in zip(chunks(Cat(beats), 3), thresholds, strict=True)
        ]
        return [Cat(answers[first : first + lanes]) for first in range(0, 4, lanes)]

    return component, StreamClaim(4 // lanes, 4 // lanes, compared, held=3, patience=4)


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
    (unit, {"shape": (2, 2), "pe": 1, "simd": 2}),
    (unit, {"shape": (2, 2), "pe": 2, "simd": 1}),
    (unit, {"shape": (2, 3), "pe": 2, "simd": 3}),
    (unit, {"shape": (2, 4), "pe": 2, "simd": 2}),
    (unit, {"shape": (2, 2), "pe": 2, "simd": 1, "scores": True}),
    (threshold_stage, {"lanes": 2}),
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
