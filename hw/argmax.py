"""Arg-max: the class beside its scores."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorflow.hw import layouts
from xnorflow.hw.cost import Family, Parts, index_bits, merge
from xnorflow.hw.pipeline import delay
from xnorflow.hw.skid import SkidBuffer, skid_parts, stall_register

__all__ = ["ArgMax", "argmax_latency", "argmax_parts"]


def argmax_parts(family: Family, lanes: int, width: int, classes: int) -> Parts:
    """Return the parts of an `ArgMax`."""
    scores, index = lanes * width, index_bits(classes)
    lane, beats = index_bits(lanes), classes // lanes
    beat, tree = index_bits(beats), _tree_latency(lanes, beats)
    again = beats > 1
    # The pairs of the tree, and those that have no partner in a level. A single lane needs no
    # registers of its own beside those of the scores.
    passed, left = 0, lanes
    while left > 1:
        passed += left % 2
        left = (left + 1) // 2
    return merge(
        {"argmax": 1, "argmax counter bit": beat},
        family.adder("maximum", width, lanes - 1 + 2 * again),
        {
            "winner bit": (lanes - 1) * (width + lane),
            "register": (lanes - 1) * (width + lane) + index,
            "bare register": passed * (width + lane)
            + again * (width + (width + lane) * (lanes > 1))
            + (tree + again) * (scores + beat + 3)
            + scores,
        },
        skid_parts(scores + index + 1),
    )


def _tree_latency(lanes: int, beats: int) -> int:
    """Return the registers up to a beat's winner, which others are compared with."""
    return max(ceil_log2(lanes), int(beats > 1))


def argmax_latency(lanes: int, classes: int) -> int:
    """Return `ArgMax.latency`."""
    beats = classes // lanes
    return _tree_latency(lanes, beats) + (beats > 1) + 1


class ArgMax(wiring.Component):
    """Pass scores through and say which class has the highest; ties go to the lowest index.

    Every beat of `o` is the beat of `i` with the best class so far; in a frame's last beat that is
    the frame's class. The lanes of a beat meet in a pipelined tree of comparators. Where a frame
    has several beats, its winner then meets the best of the earlier ones, a cycle ahead: it is
    compared with the beat in front of it and with the best of those before at once, and a flip-flop
    says which of the two counts::

        tree --|newer|--+--------------|latest|--+--|best|-- o
                        '--> latest?             |    |
                        '--> best?  <----------- | ---'
                             --|better|----------'

    Latency: `latency` cycles: ``ceil(log2(lanes)) + 1`` with one beat a frame, else one more, or
    two with one lane. Throughput: one beat a cycle.

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
        self._tree = _tree_latency(lanes, self.beats)
        self.latency = argmax_latency(lanes, classes)
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
        stall = Signal()
        en = ~stall
        m.d.comb += self.i.ready.eq(en)

        beat = Signal(range(self.beats))
        first, last = beat == 0, beat == self.beats - 1
        with m.If(self.i.valid & en):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))

        winner = self._winner(m, en)
        control = delay(m, Cat(self.i.valid, first, last), self._tree, en, "control", reset=True)
        number = delay(m, beat, self._tree, en, "number")
        better: Value = control[0]
        if self.beats > 1:
            best = Signal(signed(self.width), reset_less=True)
            latest = Signal.like(winner, reset_less=True)
            is_better = Signal()
            beats_it = Mux(is_better, _more(winner.score, latest.score), _more(winner.score, best))
            with m.If(en):
                m.d.sync += [
                    latest.eq(winner),
                    is_better.eq(control[0] & (control[1] | beats_it)),
                ]
            with m.If(en & is_better):
                m.d.sync += best.eq(latest.score)
            winner, better = latest, is_better
            control = delay(m, control, 1, en, "latest_control", reset=True)
            number = delay(m, number, 1, en, "latest_number")
        payload = delay(m, self.i.payload, self.latency - 1, en, "scores")

        result = Signal(self.o.payload.shape(), reset_less=True)
        done = Value.cast(delay(m, control[0], 1, en, "done", reset=True))
        m.d.comb += [skid.i.valid.eq(done), skid.i.payload.eq(result)]
        stall_register(m, stall, skid, control[0], done)
        with m.If(en):
            m.d.sync += [result.scores.eq(payload), result.last.eq(control[2])]
        with m.If(en & better):
            lane = winner.lane if self.lanes > 1 else 0
            m.d.sync += result.index.eq(number * self.lanes + lane)
        return m

    def _winner(self, m: Module, en: Value) -> data.View:
        """Return the best of a beat's lanes, `_tree` enabled cycles later.

        A contender is (score, index); in every pair the left one has the lower index and wins a
        tie. The beat's number becomes the upper part of the index afterwards.
        """
        contender = data.StructLayout(
            {"score": signed(self.width), "lane": max(1, ceil_log2(self.lanes))}
        )
        field = []
        for lane in range(self.lanes):
            entry = Signal(contender, name=f"entry_{lane}")
            m.d.comb += [entry.score.eq(self.i.payload[lane]), entry.lane.eq(lane)]
            field.append(entry)
        if self._tree > ceil_log2(self.lanes):
            field = [delay(m, field[0], 1, en, "alone")]
        while len(field) > 1:
            round_winners = []
            for k in range(0, len(field) - 1, 2):
                left, right = field[k], field[k + 1]
                winner = Signal(contender, name=f"winner_{len(field)}_{k}", reset_less=True)
                with m.If(en):
                    m.d.sync += winner.eq(Mux(_more(right.score, left.score), right, left))
                round_winners.append(winner)
            if len(field) % 2:
                round_winners.append(delay(m, field[-1], 1, en, f"bye_{len(field)}"))
            field = round_winners
        return field[0]


def _more(left: Value, right: Value) -> Value:
    """Return whether one score is greater: as numbers without sign, if they swap what says theirs.

    Written as "less", which is a carry alone; for "greater" yosys compares for equality beside it.
    """
    low = slice(len(left) - 1)
    return Cat(right[low], left[-1]) < Cat(left[low], right[-1])
