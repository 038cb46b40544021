"""Quantizers: `BipolarQuant`, `Quant`, and ONNX's `Sign` and `Round`."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import isqrt

from xnorflow.errors import UserError
from xnorflow.frontend.chain import Chain, Content, exact
from xnorflow.frontend.comparisons import COMPARISONS, compare, decision, spread_alike
from xnorflow.frontend.elementwise import arithmetic, negate
from xnorflow.frontend.evaluators import MOST_BITS, bipolar_scale, other_quantizer
from xnorflow.frontend.graph import Node
from xnorflow.frontend.levels import MODES, append_levels, steps_of_rounding
from xnorflow.frontend.squashing import (
    clip_range,
    drop,
    limits,
    require_unsquashed,
    settle,
)
from xnorflow.network import Affine, BatchNorm, Quantize

__all__ = ["bipolar_quant", "other_quant", "quant", "rounding", "sign", "zero_is_reachable"]

_HALF = Fraction(1, 2)
_TO_EVEN = ("ROUND", "HALF_EVEN")


def bipolar_quant(chain: Chain, node: Node) -> None:
    """``scale * (+1 where x >= 0, else -1)``."""
    chain.require_data(node, "first input, and the scale as the second")
    scale = chain.spread(node, bipolar_scale(chain.constants, node))
    compare(chain, node, (Fraction(0),))
    chain.affine(node, scale=exact(scale))


def quant(chain: Chain, node: Node) -> None:
    """``scale * (clip(round(x / scale + zero_point)) - zero_point)``, of 1 to 8 bits."""
    chain.require_data(node, "first input")
    chain.require_float(node)
    bits = _number(chain, node, 3, "bit width")
    if bits == 1:
        _one_bit(chain, node)
        return
    if bits not in range(2, MOST_BITS + 1):
        what = "the frame" if chain.content is Content.FRAME else "activations"
        chain.obstacle(
            node,
            f"quantizes {what} to {float(bits):g} bits",
            f"give 2 to {MOST_BITS} bits, or a BipolarQuant for one",
        )
        chain.sign(node)
        return
    signed, narrow = _range(chain, node)
    mode = chain.graph.text(node, "rounding_mode", "ROUND")
    scale = _number(chain, node, 1, "scale")
    if scale <= 0:
        chain.graph.refuse(
            node, f"has the scale {float(scale):g}", "the scale of a Quant must be positive"
        )
    half = 1 << (int(bits) - 1)
    low, high = (-half + narrow, half - 1) if signed else (0, 2 * half - 1 - narrow)
    zero_point = _number(chain, node, 2, "zero point")
    if mode in _TO_EVEN:
        quantize(chain, node, Quantize(node.name, scale, zero_point, low, high))
        return
    steps = steps_of_rounding(mode, low, high) if mode in MODES else None
    if steps is None:
        problem = f"rounds in the unknown mode {mode}"
        if mode in MODES:
            problem = f"rounds positive and negative numbers another way, in the mode {mode}"
        chain.obstacle(node, problem, "give ROUND, which takes halves to even, or FLOOR")
        chain.sign(node)
        return
    places, above = steps
    append_levels(
        chain,
        node,
        [(scale * (place - zero_point),) for place in places],
        [scale * (level - zero_point) for level in range(low, high + 1)],
        above=above,
    )


def quantize(chain: Chain, node: Node, op: Quantize) -> None:
    """Append a quantizer; a clip before it is a smaller range of its integers."""
    clips = limits(chain)
    if clips is None:
        steps = ((op.scale * (level + _HALF - op.zero_point),) for level in range(op.low, op.high))
        settle(chain, node, list(steps), both=True)
    else:
        ends = (
            end if clip is None else round(clip / op.scale + op.zero_point)
            for clip, end in zip(clips, (op.low, op.high), strict=True)
        )
        least, largest = (min(max(end, op.low), op.high) for end in ends)
        drop(chain, node)
        op = replace(op, low=least, high=largest)
    chain.quantize(node, op)


def _range(chain: Chain, node: Node) -> tuple[bool, bool]:
    """Return the attributes `signed` and `narrow`."""
    for key in ("signed", "narrow"):
        if key not in node.attributes:
            chain.graph.refuse(node, f"has no attribute {key!r}", "export the model again")
    signed, narrow = (chain.graph.integer(node, key, 0) for key in ("signed", "narrow"))
    return signed != 0, narrow != 0


def _one_bit(chain: Chain, node: Node) -> None:
    """Import a quantizer to one bit as QONNX's executor computes it.

    Signed ones give -1 and +1, whatever the range of an integer of one bit may be, and unsigned
    ones 0 and 1.
    """
    signed, narrow = _range(chain, node)
    scales, zeros = spread_alike(
        chain,
        node,
        bipolar_scale(chain.constants, node),
        chain.constants.numbers(node, 2, "zero point"),
    )
    pairs = list(zip(scales, zeros, strict=True))
    if signed:
        compare(chain, node, tuple(-zero * scale for scale, zero in pairs))
        chain.affine(node, scales, (-zero * scale for scale, zero in pairs))
        return
    mode = chain.graph.text(node, "rounding_mode", "ROUND")
    if narrow or mode not in (*_TO_EVEN, *MODES):
        problem = (
            "has a narrow range of 1 bit, in which only 0 lies"
            if narrow
            else f"rounds in the unknown mode {mode}"
        )
        chain.obstacle(node, problem, "use BipolarQuant, which gives -1 and +1")
        chain.sign(node)
        return
    # Between 0 and 1 a half goes to the even 0.
    step, above = (_HALF, True) if mode in _TO_EVEN else MODES[mode][:2]
    thresholds = tuple((step - zero) * scale for scale, zero in pairs)
    compare(chain, node, thresholds, above=above)
    chain.affine(
        node,
        (scale / 2 for scale in scales),
        ((_HALF - zero) * scale for scale, zero in pairs),
    )


def _number(chain: Chain, node: Node, index: int, role: str) -> Fraction:
    """Return a parameter that is the same for all channels."""
    values = set(exact(chain.constants.numbers(node, index, role)))
    if len(values) != 1:
        chain.graph.refuse(
            node,
            f"has a {role} for each channel",
            "give one for all, and what differs between channels as a Mul and Add before it",
        )
    return values.pop()


def other_quant(chain: Chain, node: Node) -> None:
    """Refuse another quantizer, and go on as if it were a sign."""
    require_unsquashed(chain)
    what = "the input" if chain.content is Content.FRAME else "activations"
    chain.obstacle(node, *other_quantizer(what))
    chain.sign(node)


def rounding(chain: Chain, node: Node) -> None:
    """Round to the nearest integer, halves to even, what a clip before or behind it limits.

    DoReFa-Net's activations of k bits are ``round(clip(x, 0, 1) * n) / n`` with n = 2 ** k - 1.
    """
    chain.require_float(node)
    ends = _ends(chain, node)
    if ends is None or ends[1] - ends[0] not in range(1, 1 << MOST_BITS):
        chain.obstacle(
            node,
            f"rounds to integers that no clip limits to {1 << MOST_BITS} at most",
            "clip what it rounds to a range that holds as many, such as 0 to 1 times 2^bits - 1, "
            "or use a Quant",
        )
        chain.sign(node)
        return
    low, high = ends
    limited = limits(chain) not in (None, (None, None))
    if high > low + 1:
        quantize(chain, node, Quantize(node.name, Fraction(1), Fraction(0), low, high))
    else:
        # Halves go up where the integer below is odd.
        compare(chain, node, (low + _HALF,), above=low % 2 == 0)
        chain.affine(node, (_HALF,), (low + _HALF,))
    if not limited:
        # The graph's tensor holds what the clip behind it cuts off.
        chain.record()


def _ends(chain: Chain, node: Node) -> tuple[int, int] | None:
    """Return the least and the largest integer that rounding gives, or the clip behind it."""
    low, high = limits(chain) or (None, None)
    readers = chain.graph.readers(node.outputs[0])
    if (low is None or high is None) and len(readers) == 1 and readers[0].kind == "Clip":
        low, high = clip_range(chain, readers[0])
    return None if low is None or high is None else (round(low), round(high))


def sign(chain: Chain, node: Node) -> None:
    """Accept ONNX's sign, which gives 0 for 0, where this cannot be or does not matter."""
    chain.require_float(node)
    zero, never = 1, False
    if chain.values is not None and not zero_is_reachable(chain.values, chain.maps):
        never = True
        chain.note(f"{node}: taken as BipolarQuant, because its input is never 0.")
    elif (decided := _decided_by_next(chain, node)) is not None:
        zero = decided
        chain.note(f"{node}: what it gives for 0 is {zero:+} to the sign behind it.")
    elif chain.options.sign_zero is not None:
        zero = chain.options.sign_zero
        chain.note(f"{node}: gives {zero:+} for 0, as the option for the sign of zero says.")
    else:
        chain.obstacle(
            node,
            "gives 0 where its input is 0, which may happen here, and 0 is not binary",
            "use BipolarQuant or torch.where(x >= 0, 1.0, -1.0), a bias that keeps the sums off 0, "
            "or say with --sign-zero +1 what it is to give",
        )
    settle(chain, node, [(Fraction(0),)], both=True)
    compare(chain, node, (Fraction(0),), above=zero < 0)
    if not never:
        # The graph's tensor holds 0 where the network's does not.
        chain.record()


def _decided_by_next(chain: Chain, node: Node) -> int | None:
    """Return the bit that a sign behind this one makes of 0, as in ``sign(sign(x) + 0.1)``.

    Returns
    -------
    int or None
        +1 or -1, for all channels; None if no sign follows, or 0 stays apart.
    """
    probe = chain.copy()
    probe.sign(node)
    output = node.outputs[0]
    while output not in chain.graph.output_tensors:
        readers = chain.graph.readers(output)
        if len(readers) != 1:
            return None
        (reader,) = readers
        probe.arrive(output)
        try:
            if reader.kind in ("Add", "Sub", "Mul", "Div"):
                arithmetic(probe, reader)
            elif reader.kind == "Neg":
                negate(probe, reader)
            else:
                return _bit_of_zero(probe, reader)
        except UserError:
            return None
        output = reader.outputs[0]
    return None


def _bit_of_zero(chain: Chain, reader: Node) -> int | None:
    """Return which of -1 and +1 a sign treats as it does 0, before the chain's affine maps."""
    maps = [op for op in chain.maps if isinstance(op, Affine)]
    thresholds: tuple[Fraction, ...] = (Fraction(0),)
    above = False
    if reader.kind in COMPARISONS:
        thresholds, above, _ = decision(chain, reader)
    elif reader.kind not in ("Sign", "BipolarQuant"):
        return None
    bits = set()
    sizes = {len(thresholds), *(len(p) for op in maps for p in (op.scale, op.offset))}
    # Channels of an image and features of the vector made of it are not told apart.
    if len(sizes - {1}) > 1:
        return None
    for channel in range(max(sizes)):
        values = []
        for value in (Fraction(-1), Fraction(0), Fraction(1)):
            for op in maps:
                scale, offset = (p[channel % len(p)] for p in (op.scale, op.offset))
                value = scale * value + offset
            values.append(value - thresholds[channel % len(thresholds)])
        if reader.kind == "Sign" and 0 in values:
            return None
        low, zero, high = (value > 0 if above else value >= 0 for value in values)
        if low != high:
            bits.add(1 if zero == high else -1)
    return bits.pop() if len(bits) == 1 else None


def zero_is_reachable(values: range, maps: list[Affine | BatchNorm]) -> bool:
    """Say whether a chain of maps takes some integer to exactly zero in some channel.

    Parameters
    ----------
    values : range
        The integers.
    maps : list of Affine or BatchNorm
        Applied in order.

    Returns
    -------
    bool
        False only if proven; a batch norm is followed through as the last map alone.
    """
    *first, last = maps or [Affine("")]
    affines = [op for op in first if isinstance(op, Affine)]
    if len(affines) < len(first):
        return True
    channels = max(max(len(op.scale), len(op.offset)) for op in [*affines, Affine("")])
    if isinstance(last, Affine):
        affines.append(last)
        channels = max(channels, len(last.scale), len(last.offset))
    else:
        channels = max(channels, len(last.gamma))
    for channel in range(channels):
        scale, offset = Fraction(1), Fraction(0)
        for op in affines:
            gain = op.scale[channel % len(op.scale)]
            scale, offset = gain * scale, gain * offset + op.offset[channel % len(op.offset)]
        targets: list[Fraction] | None = [Fraction(0)]
        if isinstance(last, BatchNorm):
            targets = _batch_norm_zero(last, channel % len(last.gamma))
        if targets is None:
            return True
        for target in targets:
            if scale == 0:
                if offset == target:
                    return True
                continue
            preimage = (target - offset) / scale
            if preimage.denominator == 1 and preimage.numerator in values:
                return True
    return False


def _batch_norm_zero(op: BatchNorm, channel: int) -> list[Fraction] | None:
    """Return the rational inputs at which a batch norm gives zero; None means all of them."""
    gamma, beta, mean, var = (
        Fraction(float(array[channel])) for array in (op.gamma, op.beta, op.mean, op.var)
    )
    if gamma == 0:
        return None if beta == 0 else []
    if beta == 0:
        return [mean]
    square = var + Fraction(op.eps)
    # sqrt(p / q) = sqrt(p * q) / q is rational exactly if p * q is a square.
    product = square.numerator * square.denominator
    root = isqrt(product)
    if root * root != product:
        return []
    return [mean - beta * Fraction(root, square.denominator) / gamma]
