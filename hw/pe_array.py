"""Processing elements: XNOR, popcount, accumulator."""

from functools import cache

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from xnorflow.hw.cost import Family, Parts, merge
from xnorflow.hw.layouts import BITS, Lanes
from xnorflow.hw.pipeline import delay
from xnorflow.hw.popcount import BIT_LEAF, AdderTree, tree_latency, tree_parts

__all__ = ["PEArray", "array_latency", "array_parts"]


def _tree_granule(lanes: Lanes) -> int | None:
    """Return the granule that the trees gate as a whole, None where lanes are gated one by one."""
    # Granules smaller than a leaf would make more leaves.
    gated = lanes.granule is not None and not lanes.halves and lanes.granule >= BIT_LEAF
    return lanes.granule if gated else None


@cache
def array_parts(
    family: Family, pe: int, simd: int, folds: int, lanes: Lanes, weight_bits: int
) -> Parts:
    """Return the parts of a `PEArray`; `weight_bits` is the words that the weights come from."""
    granule = _tree_granule(lanes)
    lists = [tree_parts(family, simd, lanes.top, granule, pe, weight_bits)]
    if lanes.granule is not None and granule is None:
        lists.append({"gated lane": pe * simd})
    if folds > 1:
        width = bits_for(folds * simd * lanes.top)
        # All neurons have the lowest bit in common that flags alone make.
        lowest = 1 if lanes.halves else pe
        lists.append(family.adder("accumulator", width, pe, lowest))
        flags = 2 * tree_latency(simd, lanes.top, granule)
        lists.append({"register": pe * (width - 1) + lowest, "bare register": flags})
    return merge(*lists)


def array_latency(simd: int, folds: int, lanes: Lanes = BITS) -> int:
    """Return `PEArray.latency`."""
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

    Attributes
    ----------
    top : int
        The largest count, ``folds * simd * lanes.top``.
    latency : int
        That of the adder tree, and 1 more for the accumulator when `folds` is above 1.

    Members
    -------
    a : In(lanes.payload(simd))
        Inputs of this step, shared by all PEs.
    w : In(ArrayLayout(simd, pe))
        Weight bits of this step.
    valid, first : In(1)
        A step is present; it is its neuron's first.
    o : Out(ArrayLayout(range(top + 1), pe))
    en : In(1)
        Clock enable of every register.
    """

    def __init__(self, pe: int, simd: int, folds: int, lanes: Lanes = BITS):
        for name, value in (("pe", pe), ("simd", simd), ("folds", folds)):
            if value < 1:
                raise ValueError(f"PEArray {name} must be at least 1, not {value!r}")
        granule = lanes.granule or 1
        if simd % granule:
            raise ValueError(f"PEArray simd must be a multiple of the granule {granule}")
        self.pe, self.simd, self.folds, self.lanes = pe, simd, folds, lanes
        self._tree_granule = _tree_granule(lanes)
        self.top = folds * simd * lanes.top
        self._tree_latency = tree_latency(simd, lanes.top, self._tree_granule)
        self.latency = array_latency(simd, folds, lanes)
        super().__init__(
            {
                "a": In(lanes.payload(simd)),
                "w": In(data.ArrayLayout(simd, pe)),
                "valid": In(1),
                "first": In(1),
                "o": Out(data.ArrayLayout(bits_for(self.top), pe)),
                "en": In(1),
            }
        )

    def _agreements(self, w: Value) -> Value:
        """Return what each lane counts for, lane by lane, where the tree does not gate it."""
        granule, width = self.lanes.granule, self.lanes.width
        if granule is None and width == 1:
            return ~(self.a.as_value() ^ w)
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
        counts = []
        for index in range(self.pe):
            m.submodules[f"tree_{index}"] = tree = AdderTree(
                self.simd, self.lanes.top, self._tree_granule
            )
            m.d.comb += [tree.i.eq(self._agreements(self.w[index])), tree.en.eq(self.en)]
            if self._tree_granule is not None:
                units = range(self.simd // self._tree_granule)
                m.d.comb += tree.pad.eq(Cat(self.a[unit].pad for unit in units))
            counts.append(tree.o)

        if self.folds == 1:
            m.d.comb += [self.o[index].eq(count) for index, count in enumerate(counts)]
            return m

        # The flags travel beside the counts.
        flags = delay(m, Cat(self.valid, self.first), self._tree_latency, self.en, "flags")
        valid, first = flags[0], flags[1]
        for index, count in enumerate(counts):
            acc = Signal(bits_for(self.top), name=f"acc_{index}")
            kept = Signal.like(acc, name=f"kept_{index}")
            # Masking the old value costs no LUT: it is the third input of the adder's LUT4.
            m.d.comb += [kept.eq(acc & (~first).replicate(len(acc))), self.o[index].eq(acc)]
            with m.If(self.en & valid):
                m.d.sync += acc.eq(kept + count)
        return m
