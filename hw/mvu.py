"""Matrix-vector unit (MVU): one fully connected binary layer."""

import numpy as np
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from xnorflow.hw import layouts
from xnorflow.hw.pe_array import PEArray
from xnorflow.hw.pipeline import delay
from xnorflow.hw.replay_buffer import ReplayBuffer
from xnorflow.hw.rom import ROM, ROMStyle
from xnorflow.hw.score import ScoreUnit
from xnorflow.hw.skid import SkidBuffer
from xnorflow.hw.threshold import ThresholdUnit

__all__ = ["MatrixVectorUnit"]

#: Most lanes that take their inputs and weight addresses straight from one register.
GROUP_LANES = 512


class MatrixVectorUnit(wiring.Component):
    """Multiply ±1 vectors by a ±1 matrix, then threshold or score each neuron.

    With `pe` neurons and `simd` synapses a cycle, a vector takes ``(MH / pe) * (MW / simd)``
    cycles; neuron folds are the outer loop, synapse folds the inner one (Umuroglu et al., FINN,
    2017, section 4.2.2)::

        i --ReplayBuffer--+--|a|--+--PEArray--+--ThresholdUnit--+--SkidBuffer-- o
              address ----+--ROM--'           +-- or ScoreUnit -'

    All registers behind the buffer share one enable, which falls while a finished beat waits for
    room in the skid buffer. In a large layer the PEs stand in groups, and inputs, addresses and
    flags pass from group to group through registers, a cycle each: no net spans the whole layer.

    Parameters
    ----------
    weights : ndarray of int, shape (MH, MW)
        -1 or +1.
    pe, simd : int
        Neurons and synapses a cycle; divisors of MH and MW.
    thresholds : ndarray of int, shape (MH,), optional
        ``out = 1 iff acc >= threshold`` on the bipolar accumulator, in ``-MW .. MW + 1``.
    scale, offset : ndarray of int, shape (MH,), optional
        Instead of thresholds: ``out = scale * acc + offset``.
    weights_in : ROMStyle, optional
        Where the weights live; block RAM by default, constants with a single fold.
    buffer_in_registers : bool
        Keep the input vectors in flip-flops; see `ReplayBuffer`.
    rom_latency : int
        1, or 2 for one more register behind the weight memory: a flip-flop a lane for a faster
        clock where block RAM is slow (ECP5: 5.8 ns from clock to output).

    Attributes
    ----------
    mh, mw : int
        Rows and columns of the matrix.
    neuron_folds, synapse_folds : int
        ``MH / pe`` and ``MW / simd``.
    cycles_per_frame : int
        Cycles that a vector takes.
    groups : int
        Groups of PEs, each of at most `GROUP_LANES` lanes if that many groups divide `pe`.
    latency : int
        Cycles from a neuron fold's last step to its beat.

    Members
    -------
    i : In(stream.Signature(layouts.bits(simd)))
        Vectors of MW bits, lane 0 first.
    o : Out(stream.Signature(...))
        ``layouts.bits(pe)``, or ``layouts.scores(pe, signed(width))`` with scores.

    Raises
    ------
    ValueError
        If a parameter is illegal; the message says what would be legal.
    """

    def __init__(
        self,
        weights: NDArray[np.integer],
        *,
        pe: int,
        simd: int,
        thresholds: NDArray[np.integer] | None = None,
        scale: NDArray[np.integer] | None = None,
        offset: NDArray[np.integer] | None = None,
        weights_in: ROMStyle | None = None,
        buffer_in_registers: bool = False,
        rom_latency: int = 1,
    ):
        self.mh, self.mw = weights.shape
        for name, value, total in (("pe", pe, self.mh), ("simd", simd, self.mw)):
            if value < 1 or total % value:
                legal = [divisor for divisor in range(1, total + 1) if total % divisor == 0]
                raise ValueError(f"{name} must be one of {legal}, not {value!r}")
        self.pe, self.simd = pe, simd
        self.neuron_folds, self.synapse_folds = self.mh // pe, self.mw // simd
        self.cycles_per_frame = self.neuron_folds * self.synapse_folds
        single = self.cycles_per_frame == 1
        self.weights_in = weights_in or (ROMStyle.CONSTANT if single else ROMStyle.BRAM)
        self.weights = weights
        if rom_latency not in (1, 2):
            raise ValueError(f"rom_latency must be 1 or 2, not {rom_latency!r}")
        self.rom_latency = rom_latency

        folds = (self.neuron_folds, pe)
        self._head: ThresholdUnit | ScoreUnit
        if thresholds is not None:
            # acc = 2 * count - MW, so acc >= T exactly when count >= ceil((T + MW) / 2).
            counts = (thresholds.astype(np.int64) + self.mw + 1) // 2
            self._head = ThresholdUnit(counts.reshape(folds), top=self.mw)
            payload = layouts.bits(pe)
        elif scale is not None and offset is not None:
            self._head = ScoreUnit(scale.reshape(folds), offset.reshape(folds), top=self.mw)
            payload = layouts.scores(pe, signed(self._head.width))
        else:
            raise ValueError("either thresholds or both scale and offset must be given")
        self.groups = next(
            (g for g in range(1, pe) if pe % g == 0 and pe // g * simd <= GROUP_LANES), pe
        )
        self._arrays = [
            PEArray(pe // self.groups, simd, self.synapse_folds) for _ in range(self.groups)
        ]
        self._replay = ReplayBuffer(
            layouts.bits(simd), self.synapse_folds, self.neuron_folds, buffer_in_registers
        )
        self._count_latency = rom_latency + self._arrays[0].latency + self.groups - 1
        self.latency = self._count_latency + self._head.latency
        super().__init__(
            {"i": In(stream.Signature(layouts.bits(simd))), "o": Out(stream.Signature(payload))}
        )

    @property
    def output_shape(self) -> data.ArrayLayout:
        """Payload of the output stream."""
        return self.o.payload.shape()

    def rom_words(self) -> NDArray[np.int64]:
        """Return the weight bits as the ROM holds them.

        Returns
        -------
        ndarray of int, shape (neuron_folds * synapse_folds, pe * simd)
            Entry ``[nf * synapse_folds + sf, p * simd + s]`` is 1 where
            ``weights[nf * pe + p, sf * simd + s]`` is +1.
        """
        folded = (self.weights > 0).reshape(
            self.neuron_folds, self.pe, self.synapse_folds, self.simd
        )
        return folded.transpose(0, 2, 1, 3).reshape(self.cycles_per_frame, -1).astype(np.int64)

    def schedule(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cycles at which a vector's beats leave, given those at which they arrive.

        Parameters
        ----------
        arrivals : ndarray of int, shape (synapse_folds,)

        Returns
        -------
        ndarray of int, shape (neuron_folds,)
            For an idle unit and a consumer that is always ready.
        """
        steps = self._replay.schedule(arrivals)
        return steps[self.synapse_folds - 1 :: self.synapse_folds] + self.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.replay = replay = self._replay
        m.submodules.head = head = self._head
        m.submodules.skid = skid = SkidBuffer(self.output_shape)
        wiring.connect(m, wiring.flipped(self.i), replay.i)
        wiring.connect(m, skid.o, wiring.flipped(self.o))

        en = Signal()
        m.d.comb += [
            en.eq(~skid.i.valid | skid.i.ready),
            replay.o.ready.eq(en),
            head.en.eq(en),
        ]

        # Fetch: count the steps of a vector.
        address = Signal(range(self.cycles_per_frame))
        step = Signal(range(self.synapse_folds))
        first, last = step == 0, step == self.synapse_folds - 1
        with m.If(replay.o.valid & en):
            m.d.sync += [
                address.eq(Mux(address == self.cycles_per_frame - 1, 0, address + 1)),
                step.eq(Mux(last, 0, step + 1)),
            ]
        settled = delay(m, replay.o.valid & last, self._count_latency, en, "settled")

        # Compute: group g works g cycles behind the first one, and waits less for the last.
        words = self.rom_words().reshape(self.cycles_per_frame, self.groups, -1)
        ahead = Cat(replay.o.payload, replay.o.valid, first, address)
        counts = []
        for group, array in enumerate(self._arrays):
            if group:
                ahead = delay(m, ahead, 1, en, f"ahead_{group}")
            rom = ROM.of_lanes(words[:, group], 1, self.weights_in)
            m.submodules[f"rom_{group}"] = rom
            m.submodules[f"array_{group}"] = array
            operands = delay(m, ahead[: self.simd + 2], self.rom_latency, en, f"operands_{group}")
            m.d.comb += [
                rom.en.eq(en),
                rom.addr.eq(ahead[self.simd + 2 :]),
                array.en.eq(en),
                array.a.eq(operands[: self.simd]),
                array.valid.eq(operands[self.simd]),
                array.first.eq(operands[self.simd + 1]),
                array.w.eq(delay(m, rom.data, self.rom_latency - 1, en, f"weights_{group}")),
            ]
            counts.append(
                delay(m, array.o.as_value(), self.groups - 1 - group, en, f"wait_{group}")
            )
        fold = Signal(range(self.neuron_folds))
        with m.If(settled & en):
            m.d.sync += fold.eq(Mux(fold == self.neuron_folds - 1, 0, fold + 1))
        m.d.comb += [
            head.i.eq(Cat(*counts)),
            head.fold.eq(fold),
            skid.i.valid.eq(delay(m, settled, head.latency, en, "done")),
            skid.i.payload.eq(head.o),
        ]
        return m
