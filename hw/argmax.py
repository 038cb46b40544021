"""Arg-max: the class beside its scores."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorflow.hw import layouts
from xnorflow.hw.cost import Family, Parts, index_bits, merge
from xnorflow.hw.pipeline import delay
from xnorflow.hw.skid import SkidBuffer, skid_parts

__all__ = ["ArgMax", "argmax_parts"]


def argmax_parts(family: Family, lanes: int, width: int, classes: int) -> Parts:
    """Return the parts of an `ArgMax`."""
    scores, index = lanes * width, index_bits(classes)
    lane, beat, levels = index_bits(lanes), index_bits(classes // lanes), ceil_log2(lanes)
    # The pairs of the tree, and those that have no partner in a level.
    passed, left = 0, lanes
    while left > 1:
        passed += left % 2
        left = (left + 1) // 2
    return merge(
        {"argmax": 1, "argmax counter bit": beat},
        family.adder("maximum", width, lanes),
        {
            "winner bit": (lanes - 1) * (width + lane),
            "register": (lanes - 1) * (width + lane) + index,
            "bare register": passed * (width + lane)
            + levels * (scores + beat + 3)
            + scores
            + width,
        },
        skid_parts(scores + index + 1),
    )


class ArgMax(wiring.Component):
    """Pass scores through and say which class has the highest; ties go to the lowest index.

    Every beat of `o` is the beat of `i` with the best class so far; in a frame's last beat that is
    the frame's class. The lanes of a beat meet in a pipelined tree of comparators, whose winner
    then meets the best of the frame's earlier beats.

    Latency: `latency` cycles, ``ceil(log2(lanes)) + 1``. Throughput: one beat a cycle.

    Parameters
    ----------
    lanes : int
        Scores in a beat; divides `classes`.
    width : int
        Bits of a score, two's complement.
    classes : int
        Scores in a frame.

    Members
    -------
    i : In(stream.Signature(layouts.scores(lanes, signed(width))))
    o : Out(stream.Signature(layouts.results(lanes, width, classes)))
    """

    def __init__(self, lanes: int, width: int, classes: int):
        if lanes < 1 or classes % lanes:
            raise ValueError(f"ArgMax lanes must divide {classes} classes, not be {lanes!r}")
        self.lanes, self.width, self.classes = lanes, width, classes
        self.beats = classes // lanes
        self.latency = ceil_log2(lanes) + 1
        super().__init__(
            {
                "i": In(stream.Signature(layouts.scores(lanes, signed(width)))),
                "o": Out(stream.Signature(layouts.results(lanes, width, classes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.skid = skid = SkidBuffer(self.o.payload.shape())
        wiring.connect(m, skid.o, wiring.flipped(self.o))
        en = Signal()
        m.d.comb += [en.eq(~skid.i.valid | skid.i.ready), self.i.ready.eq(en)]

        beat = Signal(range(self.beats))
        first, last = beat == 0, beat == self.beats - 1
        with m.If(self.i.valid & en):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))

        # A contender is (score, index); in every pair the left one has the lower index and wins
        # a tie. The beat's number becomes the upper part of the index at the tree's root.
        contender = data.StructLayout(
            {"score": signed(self.width), "lane": max(1, ceil_log2(self.lanes))}
        )
        field = []
        for lane in range(self.lanes):
            entry = Signal(contender, name=f"entry_{lane}")
            m.d.comb += [entry.score.eq(self.i.payload[lane]), entry.lane.eq(lane)]
            field.append(entry)
        while len(field) > 1:
            round_winners = []
            for k in range(0, len(field) - 1, 2):
                left, right = field[k], field[k + 1]
                winner = Signal(contender, name=f"winner_{len(field)}_{k}")
                with m.If(en):
                    m.d.sync += winner.eq(Mux(right.score > left.score, right, left))
                round_winners.append(winner)
            if len(field) % 2:
                round_winners.append(delay(m, field[-1], 1, en, f"bye_{len(field)}"))
            field = round_winners
        winner = field[0]

        tree = self.latency - 1
        control = delay(m, Cat(self.i.valid, first, last), tree, en, "control", reset=True)
        number = delay(m, beat, tree, en, "number")
        payload = delay(m, self.i.payload, tree, en, "scores")

        result = Signal(self.o.payload.shape())
        best = Signal(signed(self.width))
        m.d.comb += skid.i.payload.eq(result)
        with m.If(en):
            m.d.sync += [
                skid.i.valid.eq(control[0]),
                result.scores.eq(payload),
                result.last.eq(control[2]),
            ]
            with m.If(control[0] & (control[1] | (winner.score > best))):
                m.d.sync += [
                    best.eq(winner.score),
                    result.index.eq(number * self.lanes + (winner.lane if self.lanes > 1 else 0)),
                ]
        return m
