"""Testbench helpers for streams in Amaranth's simulator."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Value
from amaranth.sim import SimulatorContext

__all__ = ["collect", "drive", "pack_bits", "unpack_bits"]


def pack_bits(bits: np.ndarray, lanes: int) -> list[int]:
    """Cut rows of bits into beats of `lanes`, lane 0 in the least significant bit.

    Parameters
    ----------
    bits : ndarray of bool, shape (N, F)
    lanes : int
        Divides F.

    Returns
    -------
    list of int
        ``N * F / lanes`` payloads in stream order.
    """
    packed = np.packbits(bits.reshape(-1, lanes), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def unpack_bits(payloads: Sequence[int], lanes: int, features: int) -> np.ndarray:
    """Undo `pack_bits`: return bits of shape (N, features)."""
    size = -(-lanes // 8)
    raw = np.frombuffer(b"".join(p.to_bytes(size, "little") for p in payloads), np.uint8)
    bits = np.unpackbits(raw.reshape(-1, size), axis=1, count=lanes, bitorder="little")
    return bits.reshape(-1, features).astype(bool)


async def drive(
    ctx: SimulatorContext,
    stream: Any,
    payloads: Iterable[int],
    *,
    rng: np.random.Generator | None = None,
    stall: float = 0.0,
) -> None:
    """Offer `payloads` to an input stream, one after the other.

    Parameters
    ----------
    ctx : SimulatorContext
    stream : stream interface
    payloads : iterable of int
        Raw payload bits.
    rng : Generator, optional
        Needed when `stall` is above 0.
    stall : float
        Probability that a cycle passes with `valid` low before a beat, again and again.
    """
    raw = Value.cast(stream.payload)
    for payload in payloads:
        while rng is not None and rng.random() < stall:
            ctx.set(stream.valid, 0)
            await ctx.tick()
        ctx.set(raw, payload)
        ctx.set(stream.valid, 1)
        await ctx.tick().until(stream.ready)
    ctx.set(stream.valid, 0)


async def collect(
    ctx: SimulatorContext,
    stream: Any,
    count: int,
    *,
    rng: np.random.Generator | None = None,
    stall: float = 0.0,
    beats: list[int] | None = None,
    word: Value | None = None,
) -> list[int]:
    """Take `count` beats from an output stream and return their raw payload bits.

    Parameters
    ----------
    ctx : SimulatorContext
    stream : stream interface
    count : int
    rng : Generator, optional
        Needed when `stall` is above 0.
    stall : float
        Probability that a cycle passes with `ready` low before a beat, again and again.
    beats : list of int, optional
        Appended to as beats arrive, for a caller that watches the progress.
    word : Value, optional
        Sampled with each beat instead of the raw payload.
    """
    raw = Value.cast(stream.payload) if word is None else word
    taken = [] if beats is None else beats
    for _ in range(count):
        while rng is not None and rng.random() < stall:
            ctx.set(stream.ready, 0)
            await ctx.tick()
        ctx.set(stream.ready, 1)
        (payload,) = await ctx.tick().sample(raw).until(stream.valid)
        taken.append(payload)
    ctx.set(stream.ready, 0)
    return taken
