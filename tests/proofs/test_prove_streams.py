"""Every component keeps the rules of streams and gives its function of every frame, for ever."""

import pytest
from amaranth.hdl import Fragment
from proving import ports_of_memories
from stream_cases import ADDRESS_CASES, CASES, case_name, subject
from stream_rules import prove_addresses, prove_stream

pytestmark = pytest.mark.prove


def told(parameters: dict) -> str:
    return " ".join(f"{name}={value}".replace(" ", "") for name, value in parameters.items())


@pytest.mark.parametrize(("make", "parameters"), CASES, ids=[case_name(*case) for case in CASES])
def test_stream_rules_hold_at_all_times(make, parameters, proved):
    component, claim = make(**parameters)
    verdict = prove_stream(component, claim)
    proved(verdict, subject(component), "stream rules and function", told(parameters))
    assert verdict.covered == {"whole_frame_after_a_pause"}
    assert not verdict.tangled, "valid or payload depends on ready"


@pytest.mark.parametrize(
    ("make", "parameters"), ADDRESS_CASES, ids=[case_name(*case) for case in ADDRESS_CASES]
)
def test_no_memory_is_addressed_beyond_its_end(make, parameters, proved):
    component, _ = make(**parameters)
    assert any(1 << len(address) > depth for _, address, depth in ports_of(component))
    verdict = prove_addresses(component)
    proved(verdict, subject(component), "addresses in range", told(parameters))
    assert verdict.covered == {"moves"}


def ports_of(component) -> list:
    return ports_of_memories(Fragment.get(component, None))
