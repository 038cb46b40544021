"""The collector of reference cycles during elaboration."""

import gc

import pytest

from xnorflow.elaboration import uncollected


@pytest.mark.parametrize("before", [True, False])
def test_collector_is_off_within_and_as_before_behind_even_after_an_error(before):
    enabled = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        seen = []

        def fail():
            with uncollected():
                seen.append(gc.isenabled())
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert seen == [False]
        assert gc.isenabled() == before
    finally:
        (gc.enable if enabled else gc.disable)()
