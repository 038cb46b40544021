"""The run-time designs that `benchmarks/pe_array.py` counts can be made."""

from pathlib import Path

import pytest
from amaranth.back import rtlil

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("family", ["ecp5", "ice40"])
def test_every_design_becomes_hardware(monkeypatch, family):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from pe_array import designs

    for _, _, unit, *_ in designs(family, whole=False, run_time=True, fixed=False):
        assert "attribute \\top" in rtlil.convert(unit, emit_src=False)
