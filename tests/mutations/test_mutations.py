"""The catalogue of mutations is up to date, and a trial tells what it should."""

from collections import Counter

import mutant
import pytest
from catalogue import MUTATIONS, Mutation, StaleMutation
from trials import Trial, Verdict, run

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
    assert files | {"boards/top.py"} == {mutation.file for mutation in MUTATIONS} | PLAIN


@pytest.mark.parametrize("old", ["no such line", "Signal"])
def test_a_mutation_whose_text_is_not_there_once_is_stale(old):
    mutation = Mutation("broken", "hw/skid.py", old, "", SKID_TEST)
    with pytest.raises(StaleMutation, match="'broken' is stale: hw/skid.py holds its text"):
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
