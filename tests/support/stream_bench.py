"""Run one component with an input and an output stream under random back-pressure."""

import numpy as np
from amaranth import ClockDomain, Module
from amaranth.hdl import Value
from amaranth.sim import Simulator

from xnorflow.sim.streams import collect, drive

__all__ = ["run_stream"]


def run_stream(
    component,
    payloads,
    count,
    *,
    seed=0,
    i_stall=0.0,
    o_stall=0.0,
    timeout=None,
):
    """Drive ``component.i``, collect `count` raw payloads from ``component.o``.

    Returns the payloads, the cycles of the input transfers and those of the output transfers.
    """
    top = Module()
    top.domains.sync = ClockDomain()  # a pass-through has no register of its own
    top.submodules.dut = component
    sim = Simulator(top)
    sim.add_clock(1e-6)
    taken: list[int] = []
    i_cycles: list[int] = []
    o_cycles: list[int] = []
    limit = timeout or 2000 + 40 * (len(payloads) + count)

    async def source(ctx):
        await drive(ctx, component.i, payloads, rng=np.random.default_rng(seed), stall=i_stall)

    async def sink(ctx):
        rng = np.random.default_rng(seed + 1)
        await collect(ctx, component.o, count, rng=rng, stall=o_stall, beats=taken)

    async def monitor(ctx):
        i, o = component.i, component.o
        cycle = 0
        held = None
        async for _clk, _rst, iv, ir, ov, ordy, payload in ctx.tick().sample(
            i.valid, i.ready, o.valid, o.ready, Value.cast(o.payload)
        ):
            if iv and ir:
                i_cycles.append(cycle)
            if ov and ordy:
                o_cycles.append(cycle)
            # A beat once offered stays offered, unchanged, until it is taken.
            if held is not None:
                assert ov, "valid fell before ready"
                assert payload == held, "payload changed before ready"
            held = payload if ov and not ordy else None
            cycle += 1
            assert cycle < limit, f"only {len(taken)} of {count} beats in {limit} cycles"

    sim.add_testbench(source)
    sim.add_testbench(sink)
    sim.add_testbench(monitor, background=True)
    sim.run()
    return taken, i_cycles, o_cycles
