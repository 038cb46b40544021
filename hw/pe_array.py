"""XNOR-popcount processing elements."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from xnorflow.hw.pipeline import delay
from xnorflow.hw.popcount import Popcount, popcount_latency

__all__ = ["PEArray"]


class PEArray(wiring.Component):
    """`pe` neurons side by side, each taking `simd` synapses a cycle.

    For a neuron whose vector comes in `folds` steps, ``o = sum over the steps of
    popcount(XNOR(a, w))``: the number of synapses at which input and weight agree, 0 to
    ``folds * simd``. The bipolar accumulator of the literature is ``2 * o - folds * simd``::

        a ----+--XNOR--popcount--(+)--|acc|-- o[0]
        w[0] -'                   ^-----'
        ...                                        (pe times)

    Latency: `latency` enabled cycles from a neuron's last step to its count. No idle cycle is
    needed between neurons.

    Parameters
    ----------
    pe, simd : int
        Neurons in parallel; synapses a neuron a cycle.
    folds : int
        Steps a neuron takes.

    Attributes
    ----------
    latency : int
        ``popcount_latency(simd)``, and 1 more for the accumulator when `folds` is above 1.

    Members
    -------
    a : In(simd)
        Input bits of this step, shared by all PEs.
    w : In(ArrayLayout(simd, pe))
        Weight bits of this step.
    valid, first : In(1)
        A step is present; it is its neuron's first.
    o : Out(ArrayLayout(range(folds * simd + 1), pe))
    en : In(1)
        Clock enable of every register.
    """

    def __init__(self, pe: int, simd: int, folds: int):
        for name, value in (("pe", pe), ("simd", simd), ("folds", folds)):
            if value < 1:
                raise ValueError(f"PEArray {name} must be at least 1, not {value!r}")
        self.pe, self.simd, self.folds = pe, simd, folds
        self._popcount_latency = popcount_latency(simd)
        self.latency = self._popcount_latency + (folds > 1)
        super().__init__(
            {
                "a": In(simd),
                "w": In(data.ArrayLayout(simd, pe)),
                "valid": In(1),
                "first": In(1),
                "o": Out(data.ArrayLayout(bits_for(folds * simd), pe)),
                "en": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counts = []
        for index in range(self.pe):
            m.submodules[f"popcount_{index}"] = popcount = Popcount(self.simd)
            m.d.comb += [popcount.i.eq(~(self.a ^ self.w[index])), popcount.en.eq(self.en)]
            counts.append(popcount.o)

        if self.folds == 1:
            m.d.comb += [self.o[index].eq(count) for index, count in enumerate(counts)]
            return m

        # The flags travel beside the counts.
        flags = delay(m, Cat(self.valid, self.first), self._popcount_latency, self.en, "flags")
        valid, first = flags[0], flags[1]
        for index, count in enumerate(counts):
            acc = Signal(bits_for(self.folds * self.simd), name=f"acc_{index}")
            kept = Signal.like(acc, name=f"kept_{index}")
            # Masking the old value costs no LUT: it is the third input of the adder's LUT4.
            m.d.comb += [kept.eq(acc & (~first).replicate(len(acc))), self.o[index].eq(acc)]
            with m.If(self.en & valid):
                m.d.sync += acc.eq(kept + count)
        return m
