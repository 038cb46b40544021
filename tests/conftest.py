"""Settings that all tests share."""

from hypothesis import settings

# The same examples on every run and machine; a failure prints how to reproduce it.
settings.register_profile("xnorflow", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("xnorflow")


def pytest_report_header() -> str:
    return "hypothesis profile: xnorflow (derandomized, seed derived from each test)"
