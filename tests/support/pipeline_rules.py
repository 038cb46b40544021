"""The function of a pipeline with a clock enable, as a property that holds through every pause."""

from collections.abc import Mapping, Sequence

from amaranth import Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring
from proving import Verdict, prove

__all__ = ["at_most", "prove_pipeline"]


def at_most(value: Signal, top: int) -> Value:
    """Return `value` where it is no larger than `top`, and `top` otherwise."""
    return Mux(value > top, top, value)


def prove_pipeline(
    component: wiring.Component,
    m: Module,
    inputs: Mapping[str, Signal],
    expected: Sequence[tuple[Value, Value]],
    *,
    latency: int,
    limit_s: int = 120,
) -> Verdict:
    """Prove that outputs are what they should be, `latency` enabled cycles later.

    The enable may fall at any time and for as long as it likes, and inputs be anything meanwhile.

    Parameters
    ----------
    component : Component
        With a clock enable `en`.
    m : Module
        The harness; it drives the component's other inputs.
    inputs : mapping of str to Signal
        What may be anything at any time.
    expected : sequence of (Value, Value)
        Outputs, and what this cycle's inputs have them be after `latency` enabled cycles.
    latency : int
    """
    m.submodules.dut = component
    en = Signal()
    m.d.comb += component.en.eq(en)
    late = [Value.cast(claim) for _, claim in expected]
    full = Signal(latency)  # bit n: there have been n + 1 enabled cycles
    for stage in range(latency):
        kept = [Signal.like(claim, name=f"late_{stage}") for claim in late]
        with m.If(en):
            m.d.sync += [after.eq(now) for after, now in zip(kept, late, strict=True)]
        late = kept
    paused = Signal()
    with m.If(en):
        m.d.sync += full.eq(full << 1 | 1)
    with m.Else():
        m.d.sync += paused.eq(1)
    ready = full[-1] if latency else 1
    return prove(
        m,
        {**inputs, "enable": en},
        {
            f"output_{number}": ready & (output != claim)
            for number, ((output, _), claim) in enumerate(zip(expected, late, strict=True))
        },
        cover={"result_after_a_pause": ready & paused},
        limit_s=limit_s,
    )
