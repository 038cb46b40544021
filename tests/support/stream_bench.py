"""Run one component between streams under random back-pressure."""

import numpy as np
from amaranth import ClockDomain, Module
from amaranth.hdl import Value
from amaranth.sim import Simulator

from xnorflow.sim.streams import collect, drive

__all__ = ["run_stream", "run_streams"]


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
    taken, cycles = run_streams(
        component,
        {"i": payloads},
        {"o": count},
        seed=seed,
        stalls={"i": i_stall, "o": o_stall},
        timeout=timeout,
    )
    return taken["o"], cycles["i"], cycles["o"]


def run_streams(component, inputs, outputs, *, seed=0, stalls=None, timeout=None):
    """Drive streams with `inputs` (name -> raw payloads), collect `outputs` (name -> count).

    Each stream stalls at random, with a probability of ``stalls[name]``. Returns the payloads of
    each output and the cycles of the transfers of each stream.
    """
    top = Module()
    top.domains.sync = ClockDomain()  # a pass-through has no register of its own
    top.submodules.dut = component
    sim = Simulator(top)
    sim.add_clock(1e-6)
    stalls = stalls or {}
    taken: dict[str, list[int]] = {name: [] for name in outputs}
    cycles: dict[str, list[int]] = {name: [] for name in [*inputs, *outputs]}
    beats = sum(outputs.values())
    limit = timeout or 2000 + 40 * (sum(len(payloads) for payloads in inputs.values()) + beats)

    def source(name, number):
        async def process(ctx):
            rng = np.random.default_rng(number)
            port = getattr(component, name)
            await drive(ctx, port, inputs[name], rng=rng, stall=stalls.get(name, 0.0))

        return process

    def sink(name, number):
        async def process(ctx):
            rng, port = np.random.default_rng(number), getattr(component, name)
            stall, got = stalls.get(name, 0.0), taken[name]
            await collect(ctx, port, outputs[name], rng=rng, stall=stall, beats=got)

        return process

    def monitor(name):
        async def process(ctx):
            port = getattr(component, name)
            cycle, held = 0, None
            async for _clk, _rst, valid, ready, payload in ctx.tick().sample(
                port.valid, port.ready, Value.cast(port.payload)
            ):
                if valid and ready:
                    cycles[name].append(cycle)
                # A beat once offered stays offered, unchanged, until it is taken.
                if held is not None:
                    assert valid, "valid fell before ready"
                    assert payload == held, "payload changed before ready"
                held = payload if valid and not ready else None
                cycle += 1
                got = sum(len(some) for some in taken.values())
                assert cycle < limit, f"only {got} of {beats} beats in {limit} cycles"

        return process

    for number, name in enumerate(inputs):
        sim.add_testbench(source(name, seed + 2 * number))
    for number, name in enumerate(outputs):
        sim.add_testbench(sink(name, seed + 2 * number + 1))
    for name in cycles:
        sim.add_testbench(monitor(name), background=True)
    sim.run()
    return taken, cycles
