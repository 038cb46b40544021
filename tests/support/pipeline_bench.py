"""Drive a pipeline that has a clock enable but no streams."""

import numpy as np
from amaranth.hdl import Value
from amaranth.sim import Simulator

__all__ = ["lanes_of", "mixed", "run_pipeline"]


def run_pipeline(component, inputs, outputs, latency, *, seed):
    """Feed a row of `inputs` (port name -> raw values) per enabled cycle; sample each row's output.

    The enable falls at random, and the inputs are garbage while it is low.
    """
    sim = Simulator(component)
    sim.add_clock(1e-6)
    rng = np.random.default_rng(seed)
    names = list(inputs)
    rows = list(zip(*inputs.values(), strict=True))
    sampled = []

    async def testbench(ctx):
        for step in range(len(rows) + latency):
            while rng.random() < 0.3:
                ctx.set(component.en, 0)
                for name in names:
                    port = Value.cast(getattr(component, name))
                    ctx.set(port, int(rng.integers(0, 2)))
                await ctx.tick()
            ctx.set(component.en, 1)
            for name, value in zip(names, rows[min(step, len(rows) - 1)], strict=True):
                ctx.set(Value.cast(getattr(component, name)), value)
            if step >= latency:
                sampled.append([ctx.get(Value.cast(getattr(component, o))) for o in outputs])
            await ctx.tick()

    sim.add_testbench(testbench)
    sim.run()
    return sampled


def mixed(unit, a):
    """Return inputs (..., simd) as `unit.mix` gives them: encoded, but not inverted."""
    return unit.encode(a) ^ unit.encode(np.zeros_like(a))


def lanes_of(raw, width, lanes, *, signed=False):
    values = [(raw >> (width * lane)) & ((1 << width) - 1) for lane in range(lanes)]
    return [v - (1 << width) if signed and v >> (width - 1) else v for v in values]
