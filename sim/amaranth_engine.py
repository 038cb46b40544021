"""Run a streaming core in Amaranth's own simulator."""

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from amaranth import Cat, ClockDomain, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data
from amaranth.sim import Simulator, SimulatorContext
from numpy.typing import NDArray

from xnorflow.hw.core import StreamingCore
from xnorflow.sim.run import CoreRun, beat_bytes, decode, hangs, has_elements, wait_at_most
from xnorflow.sim.streams import collect, drive, pack_bits

__all__ = ["run_core"]

#: Bits of the cycle counter; it stands above the payload in a sampled word.
CYCLE_BITS = 48

#: Clock period in seconds; only waveforms show it.
PERIOD = 1e-8


def run_core(
    core: StreamingCore,
    bits: NDArray[np.bool_],
    *,
    stall: float = 0.0,
    seed: int = 0,
    watch_layers: bool = False,
    vcd: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> CoreRun:
    """Send frames through `core` back to back and take what comes out.

    Parameters
    ----------
    core : StreamingCore
    bits : ndarray of bool, shape (N, i_beats * i_lanes)
        Frames; see `xnorflow.lowered.InputQuantizer.to_bits`.
    stall : float
        Probability of an idle cycle before every beat, at the input and at the output; below 1.
    seed : int
        Seed of the stalls.
    watch_layers : bool
        Also record what every stage sends on in elements of up to 32 bits (slower).
    vcd : Path, optional
        Write the waveforms of all signals here.
    progress : callable, optional
        Told the number of finished frames, after each of them.

    Raises
    ------
    WorkFailed
        If the core stops giving beats.
    """
    frames = len(bits)
    top = Module()
    top.domains.sync = ClockDomain()
    top.submodules.core = core
    cycle = Signal(CYCLE_BITS)
    top.d.sync += cycle.eq(cycle + 1)

    simulator = Simulator(top)
    simulator.add_clock(PERIOD)
    i_rng, o_rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    first_input: list[int] = []
    words: list[int] = []
    watched = [stage for _, stage in core.placed if watch_layers and has_elements(stage)]
    taps: dict[str, list[int]] = {stage.name: [] for stage in watched}

    async def source(ctx: SimulatorContext) -> None:
        await drive(ctx, core.i, pack_bits(bits, core.i_lanes), rng=i_rng, stall=stall)

    async def sink(ctx: SimulatorContext) -> None:
        word = Cat(core.o.payload, cycle)
        for frame in range(frames):
            await collect(ctx, core.o, core.o_beats, rng=o_rng, stall=stall, beats=words, word=word)
            if progress is not None:
                progress(frame + 1)
        # Pixels that no window needs may still be on their way when the last score leaves.
        while any(len(taps[stage.name]) < frames * stage.o_beats for stage in watched):
            await ctx.tick()

    async def entrance(ctx: SimulatorContext) -> None:
        first_input.extend(await ctx.tick().sample(cycle).until(core.i.valid & core.i.ready))

    async def watchdog(ctx: SimulatorContext) -> None:
        seen = -1
        while len(words) > seen:
            seen = len(words)
            await ctx.delay(PERIOD * patience)
        raise hangs(core, patience, seen, frames)

    patience = wait_at_most(core, stall)
    simulator.add_testbench(watchdog, background=True)
    simulator.add_testbench(source)
    simulator.add_testbench(sink)
    simulator.add_testbench(entrance, background=True)
    for stage in watched:
        simulator.add_testbench(_tap(stage.unit.o, taps[stage.name]), background=True)
    with simulator.write_vcd(str(vcd)) if vcd is not None else nullcontext():
        simulator.run()

    layout = data.Layout.cast(core.o.payload.shape())
    width = layout.size
    return decode(
        core,
        beat_bytes([word & ((1 << width) - 1) for word in words], layout),
        np.array([word >> width for word in words], np.int64),
        first_input[0],
        {
            stage.name: beat_bytes(taps[stage.name], data.Layout.cast(stage.unit.o.payload.shape()))
            for stage in watched
        },
    )


def _tap(stream: Any, beats: list[int]) -> Callable[[SimulatorContext], Coroutine[Any, Any, None]]:
    """Return a process that appends every beat that passes on `stream`."""

    async def process(ctx: SimulatorContext) -> None:
        transfer, raw = stream.valid & stream.ready, Value.cast(stream.payload)
        async for _clk, _rst, transferred, payload in ctx.tick().sample(transfer, raw):
            if transferred:
                beats.append(payload)

    return process
