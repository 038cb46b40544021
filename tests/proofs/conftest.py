"""The table of proofs that `make prove` ends with."""

import pytest
from proving import Verdict

COLUMNS = ("component", "proved", "parameters", "seconds")


@pytest.fixture
def proved(record_property):
    """Require a verdict to be a proof, and note it for the table."""

    def check(verdict: Verdict, component: str, what: str, parameters: str) -> None:
        assert not verdict.failed, f"{verdict.failed} fail after {verdict.cycles} cycles"
        assert verdict.proved, f"no proof within {verdict.seconds:.0f} s"
        seconds = f"{verdict.seconds:.1f}"
        record_property("proof", [component, what, parameters, seconds])

    return check


def pytest_terminal_summary(terminalreporter) -> None:
    rows = sorted(
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "proof"
    )
    if not rows:
        return
    widths = [max(len(row[n]) for row in [COLUMNS, *rows]) for n in range(len(COLUMNS))]
    terminalreporter.section("proofs")
    for row in [COLUMNS, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
