"""A core with flat ports, whatever it is made of: what the compiled engines drive."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Module, Signal
from amaranth.hdl import Elaboratable, Value

from xnorflow.hw.core import CoreStage, StreamingCore

__all__ = ["CoreWrapper"]


class CoreWrapper(Elaboratable):
    """The two streams of a core as plain signals, and what passes on watched streams.

    Parameters
    ----------
    core : StreamingCore
    watched : sequence of CoreStage
        Stages of the core whose output streams get ports.

    Attributes
    ----------
    ports : list of Signal
        ``i_payload``, ``i_valid``, ``i_ready``, ``o_payload``, ``o_valid``, ``o_ready``, and for
        the watched stage *n* ``tap_n_payload`` and ``tap_n_fire`` (1 while a beat passes).
    """

    def __init__(self, core: StreamingCore, watched: Sequence[CoreStage] = ()):
        self._core, self._watched = core, watched
        self._signals = {
            f"{stream}_{name}": Signal(
                len(Value.cast(getattr(port, name))), name=f"{stream}_{name}"
            )
            for stream, port in (("i", core.i), ("o", core.o))
            for name in ("payload", "valid", "ready")
        }
        self._taps = [
            (
                Signal(len(Value.cast(stage.unit.o.payload)), name=f"tap_{number}_payload"),
                Signal(name=f"tap_{number}_fire"),
            )
            for number, stage in enumerate(watched)
        ]
        self.ports = [*self._signals.values(), *(signal for tap in self._taps for signal in tap)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self._core
        s = self._signals
        m.d.comb += [
            Value.cast(core.i.payload).eq(s["i_payload"]),
            core.i.valid.eq(s["i_valid"]),
            s["i_ready"].eq(core.i.ready),
            s["o_payload"].eq(Value.cast(core.o.payload)),
            s["o_valid"].eq(core.o.valid),
            core.o.ready.eq(s["o_ready"]),
        ]
        for stage, (payload, fire) in zip(self._watched, self._taps, strict=True):
            stream = stage.unit.o
            m.d.comb += [
                payload.eq(Value.cast(stream.payload)),
                fire.eq(stream.valid & stream.ready),
            ]
        return m
