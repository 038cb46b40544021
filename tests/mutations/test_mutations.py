"""The catalogue of mutations is up to date, and a trial tells what it should."""

from collections import Counter

import mutant
import pytest
from catalogue import MUTATIONS, Mutation, StaleMutation
from equivalents import EQUIVALENTS
from sweep import COMPONENTS, changes
from trials import Trial, Verdict, run

#: What is changed between yosys and nextpnr is hardware too.
CHANGES_NETLISTS = {
    f"boards/{name}.py" for name in ("chains", "equal_inputs", "fanout", "output_registers")
}

#: Nothing to break: names of packages, and a table of fitted numbers.
PLAIN = {"hw/__init__.py", "hw/link/__init__.py", "hw/prices.py"}

SKID = (mutant.ROOT / "hw/skid.py").read_text()
SKID_TEST = "tests/hw/test_stream_stages.py::TestSkidBuffer::test_passes_every_beat"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_changes_its_file(mutation):
    text = (mutant.ROOT / mutation.file).read_text()
    changed = mutation.apply(text)
    assert changed != text
    compile(changed, mutation.file, "exec")


def test_names_are_unique():
    assert max(Counter(mutation.name for mutation in MUTATIONS).values()) == 1


def test_every_file_of_the_hardware_has_a_mutation():
    files = {str(path.relative_to(mutant.ROOT)) for path in mutant.ROOT.glob("hw/**/*.py")}
    assert (
        files | CHANGES_NETLISTS | {"boards/top.py"}
        == {mutation.file for mutation in MUTATIONS} | PLAIN
    )


def test_a_sweep_changes_operators_conditions_and_statements():
    found = {(change.old, change.new) for change in changes("hw/skid.py")}
    full = "m.d.sync += full.eq(self.o.valid & ~self.o.ready)"
    assert {
        ("with m.If(full):", "with m.If((~full)):"),
        (full, "m.d.sync += full.eq((self.o.valid | ~self.o.ready))"),
        (full, "m.d.sync += full.eq(self.o.valid & (self.o.ready))"),
        (full, "pass"),
        ("self.i.ready.eq(~full),", "[],"),
    } < found


@pytest.mark.parametrize("file", COMPONENTS)
def test_every_change_of_a_sweep_is_python(file):
    for change in changes(file)[::5]:
        compile(change.text, file, "exec")


def test_changes_that_change_nothing_are_those_of_a_sweep():
    known = {change.key for file in COMPONENTS for change in changes(file)}
    assert [e for e in EQUIVALENTS if (e.file, e.old, e.new) not in known] == []


@pytest.mark.parametrize("old", ["no such line", "Signal"])
def test_a_mutation_whose_text_is_not_there_once_is_stale(old):
    mutation = Mutation("broken", "hw/skid.py", old, "", SKID_TEST)
    with pytest.raises(StaleMutation, match=r"'broken' is stale: hw/skid\.py holds its text"):
        mutation.apply(SKID)


def test_trials_tell_what_tests_say():
    payload = "o.payload.eq(caught)"
    trials = [
        Trial((SKID_TEST,)),
        Trial((SKID_TEST,), "hw/skid.py", SKID.replace(payload, "o.payload.eq(self.i.payload)")),
        Trial((SKID_TEST,), "hw/skid.py", SKID.replace(payload, "o.nonsense.eq(1)")),
        Trial((SKID_TEST + "_that_is_not_there",)),
    ]
    outcomes = dict(run(trials))
    assert [outcomes[number].verdict for number in range(4)] == [
        Verdict.PASSED,
        Verdict.MISMATCH,
        Verdict.ERROR,
        Verdict.ERROR,
    ]
    assert outcomes[1].test.endswith("test_passes_every_beat")
    assert outcomes[2].message.startswith("AttributeError")


def test_a_trial_that_does_not_end_is_stopped():
    endless = Trial((SKID_TEST,), "hw/skid.py", SKID + "\nwhile True:\n    pass\n")
    ((_, outcome),) = run([endless], limit=3)
    assert outcome.verdict is Verdict.TIMEOUT
