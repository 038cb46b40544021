"""What is synthesised to calibrate the cost model, and what to test it with.

A configuration is a plain JSON object: a component with its parameters, or a stage of a network
that is shipped, with its folding.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from amaranth import signed, unsigned
from amaranth.hdl import Shape
from amaranth.lib import data, wiring

from xnorflow.assemble import assemble, component
from xnorflow.cost import FAMILIES, Family, component_parts
from xnorflow.folding import Folding, LayerFolding, default_weights_in, legal_pe, legal_simd
from xnorflow.frontend import load
from xnorflow.hw.argmax import ArgMax, argmax_parts
from xnorflow.hw.cost import Parts, merge
from xnorflow.hw.fifo import StreamFIFO, fifo_parts
from xnorflow.hw.link.host_link import UARTHostLink, link_parts
from xnorflow.hw.link.protocol import LinkParameters
from xnorflow.hw.mvu import MatrixVectorUnit
from xnorflow.hw.resize import VectorResizer, resizer_parts
from xnorflow.hw.width_converter import WidthConverter, converter_parts
from xnorflow.lowered import (
    LoweredLayer,
    LoweredNetwork,
    LoweredOutput,
    LoweredPool,
    LoweredThreshold,
    Window,
)
from xnorflow.lowering import lower
from xnorflow.pipeline import (
    ConverterStage,
    MatrixStage,
    PoolStage,
    ScoreStage,
    Stage,
    ThresholdStage,
    WindowStage,
    pipeline,
)

__all__ = ["Config", "calibration", "cores", "describe", "held_out", "parts_of", "unit_of"]

Config = dict[str, Any]

#: Seed of the held-out configurations.
SEED = 5


def _output(classes: int, spread: int) -> LoweredOutput:
    """Return an affine whose scales differ by up to `spread`."""
    rng = np.random.default_rng(classes)
    scale = 1 + rng.integers(0, spread + 1, classes)
    offset = rng.integers(-200, 200, classes)
    return LoweredOutput(scale, offset, scale.astype(float), offset.astype(float))


def _margins(kernel: tuple[int, int], pad: str) -> tuple[int, int, int, int]:
    half = (kernel[0] // 2, kernel[1] // 2)
    return (*half, *half) if pad else (0, 0, 0, 0)


def _matrix(c: Config) -> MatrixStage:
    mh, mw, levels = c["mh"], c["mw"], c.get("levels", 1)
    rng = np.random.default_rng([mh, mw])
    weights = rng.choice(np.array([-1, 1], np.int8), (mh, mw))
    thresholds = None
    if c.get("head", "thresholds") == "thresholds":
        deviation = mw**0.5 * (levels + 1) / 2
        thresholds = np.rint(rng.normal(0, deviation, mh)).astype(np.int32)
        if levels > 1:
            thresholds += np.rint(weights.sum(axis=1) * levels / 2).astype(np.int32)
    layer = LoweredLayer("fc", weights, thresholds, None, c.get("groups", 1), levels)
    choice = LayerFolding(
        c["pe"], c["simd"], c["weights"], c.get("buffer", "auto"), c.get("latency", 1)
    )
    return MatrixStage(layer, choice, c.get("head", "thresholds"), c.get("granule", 0))


def _window(c: Config) -> WindowStage:
    shape, kernel, pad = tuple(c["shape"]), tuple(c.get("kernel", (3, 3))), c.get("pad", "")
    values = np.zeros(shape[2], np.uint16) if pad == "value" else None
    window = Window(
        shape,
        kernel,
        tuple(c.get("stride", (1, 1))),
        tuple(c.get("dilation", (1, 1))),
        tuple(c.get("padding", _margins(kernel, pad))),
        values,
    )
    lanes, parallel = c.get("lanes") or shape[2], not c.get("lanes")
    granule = c.get("granule", lanes) if pad == "zero" else 0
    return WindowStage("w", window, c.get("groups", 1), c.get("bits", 1), lanes, parallel, granule)


def _pool(c: Config) -> PoolStage:
    shape, kernel = tuple(c["shape"]), tuple(c["kernel"])
    pool = LoweredPool("p", c["op"], Window(shape, kernel, kernel), c.get("low", 0), c["high"])
    return PoolStage(pool, shape, kernel, 1, c["lanes"])


def _thresholds(c: Config) -> ThresholdStage:
    rng = np.random.default_rng(c["channels"])
    thresholds = rng.integers(-c["top"] // 4, c["top"] // 4, c["channels"]).astype(np.int32)
    part = LoweredThreshold("t", thresholds, (1, 1, c["channels"]))
    return ThresholdStage(part, c["lanes"], -c["top"], c["top"])


def _link(c: Config) -> LinkParameters:
    return LinkParameters(
        i_lanes=c["i_lanes"],
        i_beats=c["i_beats"],
        o_lanes=1,
        o_beats=c["classes"],
        width=c["width"],
        classes=c["classes"],
        clock_hz=50_000_000,
        baud=1_000_000,
        digest="0" * 64,
    )


def _element(bits: int, is_signed: bool = False) -> data.ArrayLayout:
    return data.ArrayLayout(signed(bits) if is_signed else unsigned(bits), 1)


def stage_of(c: Config) -> tuple[Stage, LoweredOutput, data.ArrayLayout]:
    """Return a component's stage, the affine of the scores, and the payload that comes in."""
    output = _output(c.get("mh", c.get("channels", 1)), c.get("spread", 0))
    match c["kind"]:
        case "matrix":
            return _matrix(c), output, _element(1)
        case "window":
            stage = _window(c)
            return stage, output, _element(stage.bits)
        case "pool":
            pool = _pool(c)
            low, high = pool.pool.low, pool.pool.high
            width = max(-low - 1, high).bit_length() + 1 if low < 0 else high.bit_length()
            return pool, output, _element(width, low < 0)
        case "converter":
            ratio = c["i_lanes"] * c["o_lanes"]
            converter = ConverterStage("c", c["bits"], c["i_lanes"], c["o_lanes"], ratio)
            return converter, output, data.ArrayLayout(unsigned(c["bits"]), c["i_lanes"])
        case "thresholds":
            return _thresholds(c), output, _element(c["top"].bit_length() + 1, True)
        case "scores":
            score = ScoreStage(c["channels"], c["lanes"], -c["top"], c["top"])
            return score, output, _element(c["top"].bit_length() + 1, True)
    raise ValueError(c)


@cache
def lowered(model: str) -> LoweredNetwork:
    """Return a network that is shipped."""
    return lower(load(str(files("xnorflow.models") / f"{model}.onnx")))


def folding_of(c: Config) -> Folding:
    """Return the folding of a configuration of a shipped network."""
    return {name: LayerFolding(*choice) for name, choice in c["folding"].items()}


def unit_of(c: Config, family: str) -> wiring.Component:
    """Return the hardware of a configuration, as it is built for a family."""
    match c["kind"]:
        case "core":
            return assemble(lowered(c["model"]), folding_of(c), family)
        case "stage":
            core = assemble(lowered(c["model"]), folding_of(c), family)
            return next(stage.unit for stage in core.stages if stage.name == c["stage"])
        case "fifo":
            return StreamFIFO(unsigned(c["width"]), c["words"])
        case "argmax":
            return ArgMax(c["lanes"], c["width"], c["classes"])
        case "resizer":
            sizes = c["i_elements"], c["o_elements"]
            return VectorResizer(unsigned(c["bits"]), c["lanes"], c["lanes"], *sizes)
        case "link":
            return UARTHostLink(_link(c))
    stage, output, payload = stage_of(c)
    return component(stage, payload, output, family)


def _units(family: str) -> Iterator[Config]:
    """Yield matrix-vector units: neurons, synapses, PE, SIMD, where weights are, and the rest."""
    big = family == "ecp5"
    latency = FAMILIES[family].bram_latency

    def unit(mh: int, mw: int, pe: int, simd: int, weights: str, **more: Any) -> Config:
        slow = {"latency": latency} if weights == "bram" and latency > 1 else {}
        return {
            "kind": "matrix",
            "mh": mh,
            "mw": mw,
            "pe": pe,
            "simd": simd,
            "weights": weights,
        } | (slow | more)

    # Every size of a leaf, and trees of them.
    for mh, mw, pe, simd in [
        (16, 64, 8, 1), (64, 512, 1, 2), (16, 64, 8, 2), (24, 72, 8, 3), (24, 64, 8, 4),
        (20, 100, 10, 5), (24, 96, 8, 6), (14, 98, 7, 7), (32, 128, 8, 8), (16, 144, 4, 9),
        (24, 288, 4, 12), (14, 784, 7, 14), (64, 256, 4, 16), (16, 288, 4, 24), (12, 54, 4, 27),
        (12, 256, 6, 32), (8, 784, 2, 49), (16, 576, 4, 64), (4, 784, 2, 98), (64, 1024, 1, 64),
        (128, 1152, 2, 18), (8, 1024, 1, 128),
    ]:  # fmt: skip
        yield unit(mh, mw, pe, simd, "bram")
    if big:
        yield unit(24, 96, 8, 6, "bram", latency=1)
        yield unit(128, 128, 64, 32, "bram")
        yield unit(64, 256, 32, 32, "lut")
        yield unit(256, 576, 16, 48, "bram")
        yield unit(100, 100, 50, 50, "lut")
    else:
        yield unit(48, 96, 24, 24, "lut")
    # A neuron a step; all neurons at once.
    for mh, mw, pe, simd in [(32, 27, 8, 27), (16, 64, 4, 64), (64, 9, 16, 9), (40, 784, 40, 2)]:
        yield unit(mh, mw, pe, simd, "lut" if mh // pe * mw // simd <= 16 else "bram")
    # Weights in LUTs.
    for mh, mw, pe, simd in [
        (16, 32, 8, 32), (32, 16, 32, 8), (16, 32, 8, 16), (16, 64, 8, 16), (32, 64, 8, 16),
        (32, 128, 8, 16), (32, 256, 4, 32), (64, 256, 8, 16), (80, 144, 80, 1), (64, 64, 4, 6 + 2),
        (48, 27, 12, 9), (30, 96, 10, 12),
    ]:  # fmt: skip
        yield unit(mh, mw, pe, simd, "lut")
    # Constants.
    for mh, mw in [(16, 9), (32, 27), (10, 64), (64, 16), (5, 100), (24, 48)]:
        yield unit(mh, mw, mh, mw, "constant")
    if big:
        yield unit(64, 64, 64, 64, "constant")
        yield unit(16, 256, 16, 256, "constant")
    # Integers.
    for mh, mw, pe, simd, weights, levels in [
        (16, 27, 8, 3, "bram", 255), (32, 25, 4, 5, "bram", 255), (32, 27, 4, 9, "lut", 255),
        (16, 784, 2, 16, "bram", 255), (16, 72, 8, 1, "bram", 255), (24, 144, 6, 8, "bram", 15),
        (32, 144, 8, 6, "bram", 3), (16, 9, 16, 9, "constant", 255),
        (16, 27, 16, 27, "constant", 15), (24, 9, 24, 9, "constant", 3), (16, 64, 2, 4, "lut", 255),
    ]:  # fmt: skip
        yield unit(mh, mw, pe, simd, weights, levels=levels)
    # True zeros.
    for mh, mw, pe, simd, granule in [
        (32, 288, 4, 32, 32), (16, 144, 4, 16, 16), (16, 72, 8, 8, 8), (16, 9, 8, 3, 1),
        (16, 27, 4, 9, 3), (24, 36, 8, 4, 4), (16, 144, 4, 24, 8), (32, 18, 8, 6, 2),
    ]:  # fmt: skip
        yield unit(mh, mw, pe, simd, "bram" if mw > 30 else "lut", granule=granule)
    # What stands behind: scores with one scale and with many, or the accumulators.
    for mh, mw, pe, simd, more in [
        (10, 128, 1, 16, {}), (10, 64, 2, 16, {}), (10, 64, 10, 8, {}),
        (10, 64, 5, 8, {"spread": 7}), (10, 64, 2, 8, {"spread": 100}),
        (10, 32, 10, 32, {"spread": 30}),
    ]:  # fmt: skip
        weights = "constant" if mh * mw == pe * simd else "bram"
        yield unit(mh, mw, pe, simd, weights, head="scores", **more)
    yield unit(16, 64, 8, 16, "bram", head="accumulators")
    yield unit(16, 72, 4, 9, "bram", head="accumulators", granule=9)
    # Buffers in registers; groups.
    for mh, mw, pe, simd in [(16, 64, 4, 8), (16, 256, 4, 16), (20, 120, 2, 4)]:
        yield unit(mh, mw, pe, simd, "bram", buffer="registers")
    for mh, mw, pe, simd, groups in [(32, 9, 1, 1, 32), (64, 36, 8, 4, 4), (32, 18, 4, 2, 8)]:
        yield unit(mh, mw, pe, simd, "bram", groups=groups)


def _windows() -> Iterator[Config]:
    for shape, lanes, more in [
        ((28, 28, 1), 1, {}), ((28, 28, 1), 1, {"pad": "zero"}),
        ((28, 28, 1), 1, {"bits": 8, "pad": "value"}), ((32, 32, 3), 1, {"bits": 8}),
        ((32, 32, 3), 3, {"bits": 8, "pad": "value"}), ((13, 13, 32), 1, {}), ((13, 13, 32), 8, {}),
        ((13, 13, 32), 32, {}), ((14, 14, 64), 16, {"pad": "zero"}),
        ((14, 14, 64), 32, {"pad": "value"}), ((30, 30, 64), 8, {}),
        ((30, 30, 64), 64, {"pad": "zero"}), ((5, 5, 64), 32, {}),
        ((13, 13, 32), 4, {"stride": (2, 2)}), ((28, 28, 16), 8, {"pad": "zero"}),
        ((28, 28, 1), 1, {"bits": 8, "pad": "value", "kernel": (5, 5)}),
        ((16, 16, 16), 4, {"dilation": (2, 2)}), ((12, 12, 32), 4, {"groups": 4}),
        ((8, 8, 128), 128, {"pad": "value"}), ((64, 48, 24), 24, {"bits": 2}),
    ]:  # fmt: skip
        yield {"kind": "window", "shape": shape, "lanes": lanes} | more
    for shape, more in [
        ((28, 28, 1), {"pad": "zero"}), ((28, 28, 1), {"bits": 8, "pad": "value"}),
        ((32, 32, 3), {"bits": 8}), ((13, 13, 32), {}), ((14, 14, 32), {"pad": "zero"}),
        ((14, 14, 32), {"pad": "value"}), ((30, 30, 64), {}),
        ((28, 28, 1), {"bits": 8, "kernel": (5, 5)}),
        ((8, 8, 16), {"pad": "zero", "stride": (2, 2)}), ((10, 40, 12), {"kernel": (1, 3)}),
        ((20, 20, 8), {"dilation": (2, 2)}),        ((16, 16, 16), {"bits": 2, "pad": "value"}),
    ]:  # fmt: skip
        yield {"kind": "window", "shape": shape} | more


def _rest() -> Iterator[Config]:
    for op, shape, kernel, lanes, low, high in [
        ("or", (26, 26, 16), (2, 2), 1, 0, 1), ("or", (28, 28, 64), (2, 2), 16, 0, 1),
        ("or", (11, 11, 32), (2, 2), 8, 0, 1), ("or", (28, 28, 64), (2, 2), 64, 0, 1),
        ("or", (10, 10, 64), (2, 2), 32, 0, 1), ("or", (4, 4, 32), (2, 2), 16, 0, 1),
        ("or", (1, 9, 64), (1, 9), 64, 0, 1), ("sum", (7, 7, 64), (7, 7), 4, 0, 1),
        ("sum", (28, 28, 16), (2, 2), 4, -144, 144), ("sum", (1, 9, 32), (1, 9), 8, 0, 1),
        ("sum", (8, 8, 32), (8, 8), 32, 0, 1), ("sum", (12, 12, 8), (2, 2), 8, 0, 255),
        ("sum", (6, 6, 48), (3, 3), 12, -64, 64),
    ]:  # fmt: skip
        yield {"kind": "pool", "op": op, "shape": shape, "kernel": kernel, "lanes": lanes} | (
            {"low": low, "high": high}
        )
    for bits, i_lanes, o_lanes in [
        (1, 1, 16), (1, 16, 1), (1, 8, 128), (1, 128, 8), (1, 6, 9), (8, 9, 3), (8, 1, 9),
        (1, 64, 4), (1, 27, 3), (1, 14, 4), (2, 10, 15), (1, 256, 64), (10, 10, 1),
    ]:  # fmt: skip
        yield {"kind": "converter", "bits": bits, "i_lanes": i_lanes, "o_lanes": o_lanes}
    for width, words in [
        (1, 5), (8, 4), (8, 18), (16, 12), (16, 66), (32, 34), (64, 20), (64, 130), (1, 100),
        (4, 600), (128, 10),
    ]:  # fmt: skip
        yield {"kind": "fifo", "width": width, "words": words}
    for channels, lanes, top in [(64, 4, 500), (64, 16, 2000), (32, 32, 144), (128, 8, 100000)]:
        yield {"kind": "thresholds", "channels": channels, "lanes": lanes, "top": top}
    for lanes, top, spread in [(1, 500, 0), (2, 2000, 0), (2, 500, 50), (10, 500, 9)]:
        yield {"kind": "scores", "channels": 10, "lanes": lanes, "top": top, "spread": spread}
    for lanes, width, classes in [(1, 9, 10), (1, 16, 100), (2, 10, 10), (10, 10, 10), (1, 22, 10)]:
        yield {"kind": "argmax", "lanes": lanes, "width": width, "classes": classes}
    for bits, lanes, i_elements, o_elements in [
        (1, 16, 144, 160), (1, 8, 128, 120), (8, 4, 12, 16), (1, 64, 576, 640), (2, 32, 320, 288),
    ]:  # fmt: skip
        yield {"kind": "resizer", "bits": bits, "lanes": lanes} | (
            {"i_elements": i_elements, "o_elements": o_elements}
        )
    for i_lanes, i_beats, width, classes in [
        (16, 49, 16, 10), (1, 784, 9, 10), (98, 8, 12, 100), (8, 784, 16, 10), (24, 1024, 20, 10),
    ]:  # fmt: skip
        yield {"kind": "link", "i_lanes": i_lanes, "i_beats": i_beats} | (
            {"width": width, "classes": classes}
        )


def calibration(family: str) -> list[Config]:
    """Return the grid that coefficients are fitted to."""
    return [*_rest(), *_windows(), *_units(family)]


#: Stages that are drawn of each shipped network.
DRAWN = {"mnist_mini": 4, "mnist_sfc": 8, "mnist_cnn": 10, "fashion_cnn": 10, "cifar10_cnv": 12}

#: Most lanes of a drawn unit, in bits of its inputs, and most bits of weights in LUTs.
MOST_LANES = {"ice40": 160, "ecp5": 512}
MOST_LUT_BITS = 8192

#: Share of units among the drawn stages; the others are windows, pools, converters and FIFOs.
UNITS = 0.6


def _draw(rng: np.random.Generator, family: str, layer: LoweredLayer) -> LayerFolding:
    """Draw a folding of a layer that is neither tiny nor takes minutes to synthesise."""
    while True:
        pe, simd = (int(rng.choice(legal(layer))) for legal in (legal_pe, legal_simd))
        lanes, depth = pe * simd, layer.mh * layer.mw // (pe * simd)
        if not 4 <= lanes * layer.input_bits <= MOST_LANES[family]:
            continue
        places = ["constant"] if depth == 1 else ["bram"]
        if depth > 1 and depth * lanes <= MOST_LUT_BITS:
            places.append("lut")
        weights_in = str(rng.choice(places))
        kept = 2 * layer.mw * layer.input_bits
        registers = pe * layer.groups < layer.mh and kept <= 512 and rng.random() < 0.3
        latency = FAMILIES[family].bram_latency if weights_in == "bram" else 1
        return LayerFolding(pe, simd, weights_in, "registers" if registers else "auto", latency)


def held_out(family: str) -> list[Config]:
    """Draw stages of the shipped networks at random foldings, the same ones every time."""
    rng = np.random.default_rng([SEED, len(family)])
    drawn: list[Config] = []
    for model, wanted in DRAWN.items():
        for _ in range(wanted):
            folding = {layer.name: _draw(rng, family, layer) for layer in lowered(model).layers}
            stages = assemble(lowered(model), folding).stages
            units = [s for s in stages if isinstance(s.unit, MatrixVectorUnit)]
            others = [s for s in stages if s not in units]
            chosen = units if not others or rng.random() < UNITS else others
            name = chosen[int(rng.integers(len(chosen)))].name
            drawn.append({"kind": "stage", "model": model, "stage": name} | _table(folding))
    return drawn


def _table(folding: Folding) -> Config:
    return {
        "folding": {
            layer: [c.pe, c.simd, c.weights_in, c.buffer_in, c.rom_latency]
            for layer, c in folding.items()
        }
    }


def parts_of(family: Family, c: Config) -> Parts:
    """Return the parts that the cost model lists for the component of a configuration."""
    match c["kind"]:
        case "fifo":
            return fifo_parts(family, c["width"], c["words"])
        case "argmax":
            return argmax_parts(family, c["lanes"], c["width"], c["classes"])
        case "resizer":
            beats = c["i_elements"] // c["lanes"], c["o_elements"] // c["lanes"]
            return resizer_parts(c["bits"] * c["lanes"], *beats)
        case "link":
            return link_parts(
                family,
                i_bits=c["i_lanes"] * c["i_beats"],
                i_lanes=c["i_lanes"],
                classes=c["classes"],
                score_bits=c["width"],
            )
        case "stage":
            return _core_parts(family, c)[c["stage"]]
        case "core":
            return merge(*_core_parts(family, c).values())
    stage, output, _ = stage_of(c)
    return component_parts(family, stage, output)


def _core_parts(family: Family, c: Config) -> dict[str, Parts]:
    """Return the parts of every component of a core by its name."""
    network, core = lowered(c["model"]), assemble(lowered(c["model"]), folding_of(c))
    stages = {stage.name: stage for stage in pipeline(network, folding_of(c))}
    parts: dict[str, Parts] = {}
    for built in core.stages:
        unit = built.unit
        if isinstance(unit, StreamFIFO):
            parts[built.name] = fifo_parts(family, Shape.cast(unit.shape).width, unit.depth)
        elif built.name in stages:
            parts[built.name] = component_parts(family, stages[built.name], network.output)
        elif isinstance(unit, WidthConverter):  # the serializer
            width = Shape.cast(unit.element).width
            parts[built.name] = converter_parts(width, unit.i_lanes, unit.o_lanes)
    results = core.o.payload.shape()["scores"].shape
    width = results.elem_shape.width
    parts["argmax"] = argmax_parts(family, core.o_lanes, width, core.classes)
    return parts


#: Whole cores: a network, and the most cycles that a layer takes a frame.
CORES = {
    "ice40": [("mnist_mini", 20_000), ("mnist_mini", 4000), ("mnist_cnn", 60_000)],
    "ecp5": [
        ("mnist_mini", 1000),
        ("mnist_sfc", 10_000),
        ("mnist_sfc", 2000),
        ("mnist_cnn", 8000),
        ("fashion_cnn", 15_000),
        ("cifar10_cnv", 2_000_000),
    ],
}


def cores(family: str) -> list[Config]:
    """Return whole cores, each layer folded to the fewest lanes that keep pace."""
    configs: list[Config] = []
    for model, cycles in CORES[family]:
        folding = {}
        for layer in lowered(model).layers:
            fast = [
                LayerFolding(pe, simd, "bram")
                for pe in legal_pe(layer)
                for simd in legal_simd(layer)
                if LayerFolding(pe, simd, "bram").cycles(layer) <= cycles
            ]
            least = min(fast, key=lambda choice: (choice.pe * choice.simd, choice.pe))
            depth = layer.mh * layer.mw // (least.pe * least.simd)
            weights_in = default_weights_in(depth)
            latency = FAMILIES[family].bram_latency if weights_in == "bram" else 1
            folding[layer.name] = LayerFolding(least.pe, least.simd, weights_in, "auto", latency)
        configs.append({"kind": "core", "model": model} | _table(folding))
    return configs


def describe(c: Config) -> str:
    """Name a configuration of a shipped network in a few words."""
    if c["kind"] == "core":
        lanes = ", ".join(f"{choice[0]}x{choice[1]}" for choice in c["folding"].values())
        return f"{c['model']}, core: {lanes}"
    words = f"{c['model']} {c['stage']}"
    if c["stage"] in c["folding"]:
        pe, simd, weights_in, *_ = c["folding"][c["stage"]]
        words += f": {pe}x{simd}, {weights_in}"
    return words
