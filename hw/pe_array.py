# amaranth: UnusedElaboratable=no
"""Processing elements: XNOR, popcount, accumulator, threshold."""

from functools import cache

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from numpy.typing import NDArray

from xnorflow.hw import layouts
from xnorflow.hw.accumulator import ThresholdAccumulator, accumulator_parts
from xnorflow.hw.agreement import (
    AgreementTree,
    agreement_latency,
    agreement_parts,
    leaf_sizes,
)
from xnorflow.hw.cost import Family, Parts, merge
from xnorflow.hw.counting import Counting
from xnorflow.hw.layouts import BITS, Lanes
from xnorflow.hw.pipeline import delay
from xnorflow.hw.popcount import BIT_LEAF, AdderTree, tree_latency, tree_parts
from xnorflow.hw.shared_counts import SharedCounts, shared_parts

__all__ = ["PEArray", "array_latency", "array_parts", "step_top"]


def _tree_granule(lanes: Lanes) -> int | None:
    """Return the granule that the trees gate as a whole, None where lanes are gated one by one."""
    # Granules smaller than a leaf would make more leaves.
    gated = lanes.granule is not None and not lanes.halves and lanes.granule >= BIT_LEAF
    return lanes.granule if gated else None


def step_top(simd: int, folds: int, lanes: Lanes, late: bool = False) -> tuple[int, bool]:
    """Return the largest count of a step, and whether a lane comes beside it.

    The parameters are those of `PEArray`.
    """
    late = (folds > 1 or late) and lanes == BITS
    late = late and simd - sum(leaf_sizes(simd, True)) == len(leaf_sizes(simd, True))
    return simd * lanes.top - late, late


@cache
def array_parts(
    family: Family,
    pe: int,
    simd: int,
    folds: int,
    lanes: Lanes,
    weight_bits: int,
    width: int = 0,
    late: bool = False,
    leaf_latency: int = 1,
) -> Parts:
    """Return the parts of a `PEArray`, but for the thresholds themselves.

    Parameters
    ----------
    family, pe, simd, folds, lanes, late, leaf_latency
        See `PEArray`.
    weight_bits : int
        The words that the weights come from.
    width : int
        Bits of accumulators with thresholds, 0 if they have none; see `accumulator_width`.
    """
    granule = _tree_granule(lanes)
    if lanes == BITS and weight_bits == 1:
        lists = [shared_parts(family, pe, simd, late)]
    elif lanes == BITS:
        lists = [agreement_parts(family, pe, simd, folds > 1, weight_bits, leaf_latency)]
    else:
        lists = [tree_parts(family, simd, lanes.top, granule, pe, weight_bits)]
    if lanes.granule is not None and granule is None:
        lists.append({"gated lane": pe * simd})
    if folds > 1:
        top, flags = folds * simd * lanes.top, 3 if width else 2
        if width:
            _, beside = step_top(simd, folds, lanes)
            lists.append(accumulator_parts(family, pe, width, beside))
        else:
            # All neurons have the lowest bit in common that flags alone make.
            lowest = 1 if lanes.halves else pe
            lists.append(family.adder("accumulator", bits_for(top), pe, lowest))
            lists.append({"register": pe * (bits_for(top) - 1) + lowest})
        latency = array_latency(simd, 1, lanes, leaf_latency=leaf_latency)
        lists.append({"bare register": flags * latency})
    return merge(*lists)


def array_latency(
    simd: int, folds: int, lanes: Lanes = BITS, late: bool = False, leaf_latency: int = 1
) -> int:
    """Return `PEArray.latency`; of integers and constants, `leaf_latency` is 1."""
    if lanes == BITS:
        return agreement_latency(simd, folds > 1 or late, leaf_latency) + (folds > 1)
    return tree_latency(simd, lanes.top, _tree_granule(lanes)) + (folds > 1)


class PEArray(wiring.Component):
    """`pe` neurons side by side, each taking `simd` synapses a cycle.

    For a neuron whose vector comes in `folds` steps, ``o = sum over the steps of
    popcount(XNOR(a, w))``: the number of synapses at which input and weight agree, 0 to
    ``folds * simd``. The bipolar accumulator of the literature is ``2 * o - folds * simd``. `Lanes`
    tells what other lanes than bits count for::

        a ----+--XNOR--popcount--(+)--|acc|-- o[0]
        w[0] -'                   ^-----'
        ...                                        (pe times)

    With thresholds, `o` is whether that number reaches the neuron's threshold, see
    `ThresholdAccumulator`.

    Latency: `latency` enabled cycles from a neuron's last step to its count. No idle cycle is
    needed between neurons.

    Parameters
    ----------
    pe, simd : int
        Neurons in parallel; synapses a neuron a cycle.
    folds : int
        Steps a neuron takes.
    lanes : Lanes
        Kind of the inputs; bits by default.
    counting : Counting
        How agreements of bits are counted, see `AgreementTree`.
    constants : ndarray of bool, shape (pe, simd), optional
        Where weights are +1 that never change; `w` is not looked at then if the inputs are bits,
        see `SharedCounts`. Only with a single fold.
    thresholds : ndarray of int, shape (neuron folds, pe), optional
        Those of the neurons, one fold behind the other; only with several `folds`.
    late : bool
        Whether a lane may be left to `late`; only with constants.
    leaf_latency : int
        See `AgreementTree`, which it is for; others do not look at it.

    Attributes
    ----------
    top : int
        The largest count, ``folds * simd * lanes.top``.
    uses_late : bool
        Whether `late` is more than 0.
    latency : int
        That of the adder tree, and 1 more for the accumulator when `folds` is above 1.

    Members
    -------
    a : In(lanes.payload(simd))
        Inputs of this step, shared by all PEs, as `mix` gives them.
    w : In(ArrayLayout(simd, pe))
        Weight bits of this step, as `encode` gives them.
    valid, first, last : In(1)
        A step is present; it is its neuron's first, or last.
    o : Out(ArrayLayout(range(top + 1 - uses_late), pe))
        With thresholds ArrayLayout(1, pe).
    late : Out(pe)
        What is to be added to `o`.
    en : In(1)
        Clock enable of every register.
    """

    def __init__(
        self,
        pe: int,
        simd: int,
        folds: int,
        lanes: Lanes = BITS,
        *,
        counting: Counting = Counting.LUTS,
        constants: NDArray[np.bool_] | None = None,
        thresholds: NDArray[np.integer] | None = None,
        late: bool = False,
        leaf_latency: int = 1,
    ):
        for name, value in (("pe", pe), ("simd", simd), ("folds", folds)):
            if value < 1:
                raise ValueError(f"PEArray {name} must be at least 1, not {value!r}")
        granule = lanes.granule or 1
        if simd % granule:
            raise ValueError(f"PEArray simd must be a multiple of the granule {granule}")
        if constants is not None and folds > 1:
            raise ValueError(f"PEArray takes constants only with one fold, not {folds}")
        if thresholds is not None and folds == 1:
            raise ValueError("PEArray takes thresholds only with several folds, not 1")
        if late and constants is None:
            raise ValueError("PEArray leaves a lane to `late` only with constants")
        self.pe, self.simd, self.folds, self.lanes = pe, simd, folds, lanes
        self._tree_granule = _tree_granule(lanes)
        self.top = folds * simd * lanes.top
        self._agreement: AgreementTree | SharedCounts | None = None
        self.uses_late = False
        if lanes == BITS and constants is not None:
            self._agreement = SharedCounts(constants, counting, late=late)
            self.uses_late = self._agreement.uses_late
        elif lanes == BITS:
            self._agreement = AgreementTree(
                pe, simd, counting, late=folds > 1, leaf_latency=leaf_latency
            )
        own = leaf_latency if isinstance(self._agreement, AgreementTree) else 1
        self.latency = array_latency(simd, folds, lanes, late, own)
        self._tree_latency = self.latency - (folds > 1)
        self._accumulator: ThresholdAccumulator | None = None
        output = data.ArrayLayout(bits_for(self.top - self.uses_late), pe)
        if thresholds is not None:
            highest, late = step_top(simd, folds, lanes)
            self._accumulator = ThresholdAccumulator(
                thresholds, self.top, highest, late=late, counting=counting
            )
            output = layouts.bits(pe)
        super().__init__(
            {
                "a": In(lanes.payload(simd)),
                "w": In(data.ArrayLayout(simd, pe)),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "o": Out(output),
                "late": Out(pe),
                "en": In(1),
            }
        )

    def encode(self, positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return what `w` is for weights, shape (..., pe, simd); true where they are +1."""
        tree = self._agreement
        return tree.encode(positive) if isinstance(tree, AgreementTree) else positive

    def mix(self, a: Value) -> Value:
        """Return what `a` is for inputs; see `AgreementTree.mix`."""
        tree = self._agreement
        return tree.mix(a) if isinstance(tree, AgreementTree) else a

    def _agreements(self, w: Value) -> Value:
        """Return what each lane counts for, lane by lane, where the tree does not gate it."""
        granule, width = self.lanes.granule, self.lanes.width
        if granule is None:
            return Cat(self.a[lane] ^ ~w[lane].replicate(width) for lane in range(self.simd))
        lanes = []
        for index in range(self.simd):
            place = index % granule
            unit = self.a[index // granule]
            xnor = ~(unit.lanes[place] ^ w[index])
            if self._tree_granule is not None:
                lanes.append(xnor)
            elif self.lanes.halves:
                lanes.append(Cat(unit.pad, xnor & ~unit.pad))
            else:
                lanes.append(Mux(unit.pad, 1 - place % 2, xnor))
        return Cat(lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counts, late = self._counts(m)
        if self.folds == 1:
            m.d.comb += [self.o[index].eq(count) for index, count in enumerate(counts)]
            m.d.comb += self.late.eq(Cat(*late))
            return m

        # The flags travel beside the counts; with thresholds they come a cycle before.
        flags = Cat(self.valid, self.first, self.last)
        if self._accumulator is not None:
            flags = delay(m, flags, self._tree_latency - 1, self.en, "flags", reset=True)
            m.submodules.accumulator = accumulator = self._accumulator
            m.d.comb += [
                accumulator.valid.eq(flags[0]),
                accumulator.first.eq(flags[1]),
                accumulator.last.eq(flags[2]),
                accumulator.i.eq(Cat(*counts)),
                accumulator.late.eq(Cat(*late)),
                accumulator.en.eq(self.en),
                self.o.eq(accumulator.o),
            ]
            return m
        flags = delay(m, flags[:2], self._tree_latency, self.en, "flags", reset=True)
        valid, first = flags[0], flags[1]
        for index, (count, carry) in enumerate(zip(counts, late, strict=True)):
            acc = Signal(bits_for(self.top), name=f"acc_{index}", reset_less=True)
            kept = Signal.like(acc, name=f"kept_{index}")
            # Masking the old value costs no LUT: it is the third input of the adder's LUT4.
            m.d.comb += [kept.eq(acc & (~first).replicate(len(acc))), self.o[index].eq(acc)]
            with m.If(self.en & valid):
                m.d.sync += acc.eq(kept + count + carry)
        return m

    def _counts(self, m: Module) -> tuple[list[Value], list[Value]]:
        """Return each neuron's count of a step, and what is to be added to it."""
        late: list[Value] = [Const(0, 0)] * self.pe
        if self._agreement is not None:
            m.submodules.tree = tree = self._agreement
            m.d.comb += tree.a.eq(self.a)
            if isinstance(tree, AgreementTree):
                m.d.comb += tree.w.eq(self.w)
            if tree.uses_late:
                late = list(tree.late)
            m.d.comb += tree.en.eq(self.en)
            return [tree.o[index] for index in range(self.pe)], late
        counts: list[Value] = []
        for index in range(self.pe):
            m.submodules[f"tree_{index}"] = tree = AdderTree(
                self.simd, self.lanes.top, self._tree_granule
            )
            m.d.comb += [tree.i.eq(self._agreements(self.w[index])), tree.en.eq(self.en)]
            if self._tree_granule is not None:
                units = range(self.simd // self._tree_granule)
                m.d.comb += tree.pad.eq(Cat(self.a[unit].pad for unit in units))
            counts.append(tree.o)
        return counts, late
