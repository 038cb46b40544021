"""The rules of streams, as properties of one component between a free source and a free sink."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amaranth import Array, Const, Module, Mux, Signal, signed
from amaranth.hdl import Fragment, Value
from proving import Verdict, ports_of_memories, prove

__all__ = ["StreamClaim", "prove_addresses", "prove_stream"]

Reference = Callable[[Sequence[Value]], Sequence[Value]]


@dataclass(frozen=True)
class StreamClaim:
    """What a component makes of its stream.

    Parameters
    ----------
    i_beats, o_beats : int
        Beats of a frame on either side.
    reference : callable
        Gives the output beats of a frame for its input beats, all as plain values.
    held : int
        Frames that are at most begun and not yet given.
    patience : int
        Cycles in which no beat moves at most, of those with a ready sink and a source that offers
        or a whole frame within. With `held`, that excludes a deadlock.
    alone : bool
        A whole frame within need only come out while no part of a next one is within.
    """

    i_beats: int
    o_beats: int
    reference: Reference
    held: int
    patience: int
    alone: bool = False


def prove_stream(component, claim: StreamClaim, *, limit_s: int = 120) -> Verdict:
    """Prove the rules of streams and the function of `component`.

    The source offers any beats at any time but keeps an offer until it is taken; the sink is ready
    at any time. One frame, any, is noted as it goes in, and its beats are compared as they come
    out: nothing is lost, doubled, reordered or changed. Further properties are ``stable`` (an
    offer is kept), ``orphan`` (no beat of a frame that has not begun), ``crowded`` (no more frames
    within than claimed), ``stuck`` and ``address`` (within every memory). What a component lists
    as `free` (name to Signal) may be anything at any time, too.
    """
    m = Module()
    fragment = Fragment.get(component, None)
    m.submodules.dut = fragment
    i, o = component.i, component.o
    i_payload, o_payload = Value.cast(i.payload), Value.cast(o.payload)

    offer, pick, ready = Signal(), Signal(), Signal()
    fresh = Signal(len(i_payload))
    kept, waiting = Signal(len(i_payload)), Signal()
    m.d.comb += [
        i.valid.eq(offer | waiting),
        i_payload.eq(Mux(waiting, kept, fresh)),
        o.ready.eq(ready),
    ]
    m.d.sync += [waiting.eq(i.valid & ~i.ready), kept.eq(i_payload)]

    taken, given = i.valid & i.ready, o.valid & o.ready
    i_beat, o_beat = Signal(range(claim.i_beats)), Signal(range(claim.o_beats))
    begins = taken & (i_beat == 0)
    comes = taken & (i_beat == claim.i_beats - 1)
    leaves = given & (o_beat == claim.o_beats - 1)
    with m.If(taken):
        m.d.sync += i_beat.eq(Mux(comes, 0, i_beat + 1))
    with m.If(given):
        m.d.sync += o_beat.eq(Mux(leaves, 0, o_beat + 1))
    held = Signal(range(claim.held + 2))
    crowded = (held == claim.held) & begins & ~leaves
    with m.If(~crowded):
        m.d.sync += held.eq(held + begins - leaves)

    # The frame that is picked: how many leave before it, and its beats.
    active, noting = Signal(), Signal()
    ahead = Signal(range(claim.held + 2))
    picked = begins & pick & ~active
    active_now, ahead_now = active | picked, Mux(active, ahead, held)
    noting_now = noting | picked
    mine = active_now & (ahead_now == 0)
    with m.If(picked):
        m.d.sync += active.eq(1)
    with m.If(leaves & mine):
        m.d.sync += active.eq(0)
    m.d.sync += ahead.eq(ahead_now - (leaves & ~mine))
    m.d.sync += noting.eq(noting_now & ~comes)
    beats = []
    for number in range(claim.i_beats):
        note = Signal(len(i_payload), name=f"note_{number}")
        now = Signal(len(i_payload), name=f"now_{number}")
        hit = noting_now & taken & (i_beat == number)
        m.d.comb += now.eq(Mux(hit, i_payload, note))
        m.d.sync += note.eq(now)
        beats.append(now)
    answers = list(claim.reference(beats))
    assert len(answers) == claim.o_beats
    expected = Signal(len(o_payload))
    # A noted frame that has left before its last beats came is noted on: shorter vectors do so.
    m.d.comb += expected.eq(Array(Value.cast(answer) for answer in answers)[o_beat])

    before, pending = Signal(len(o_payload)), Signal()
    m.d.sync += [before.eq(o_payload), pending.eq(o.valid & ~o.ready)]

    whole = Signal(signed(len(held) + 1))
    m.d.sync += whole.eq(whole + comes - leaves)
    owed = (whole > 0) & (i_beat == 0) if claim.alone else whole > 0
    idle = Signal(range(claim.patience + 2))
    with m.If(given | taken):
        m.d.sync += idle.eq(0)
    with m.Elif(ready & (i.valid | owed) & (idle <= claim.patience)):
        m.d.sync += idle.eq(idle + 1)

    paused = Signal()  # so that the cover asks for a sink that has waited
    with m.If(pending):
        m.d.sync += paused.eq(1)
    return prove(
        m,
        {
            "offer": offer,
            "pick": pick,
            "ready": ready,
            "fresh": fresh,
            **getattr(component, "free", {}),
        },
        {
            "content": given & mine & (o_payload != expected),
            "orphan": given & (held == 0) & ~begins,
            "crowded": crowded,
            "stable": pending & (~o.valid | (o_payload != before)),
            "stuck": idle > claim.patience,
            "address": _beyond(fragment),
        },
        cover={"whole_frame_after_a_pause": leaves & mine & paused},
        show={"valid": o.valid, "payload": o_payload},
        apart="ready",
        limit_s=limit_s,
    )


def prove_addresses(component, *, limit_s: int = 120) -> Verdict:
    """Prove that no memory of `component` is addressed beyond its end, whatever streams do."""
    m = Module()
    fragment = Fragment.get(component, None)
    m.submodules.dut = fragment
    valid, ready = Signal(), Signal()
    m.d.comb += [component.i.valid.eq(valid), component.o.ready.eq(ready)]
    beyond = _beyond(fragment)
    return prove(
        m,
        {"valid": valid, "ready": ready},
        {"address": beyond},
        cover={"moves": component.o.valid & ready},
        limit_s=limit_s,
    )


def _beyond(fragment: Fragment) -> Value:
    """Return whether a port of a memory has an address beyond its end; 0 if none can have."""
    beyond: Value = Const(0)
    for enable, address, size in ports_of_memories(fragment):
        if 1 << len(address) > size:
            beyond = beyond | (enable.any() & (address >= size))
    return beyond
