"""A damaged model file ends in one sentence, or means what it still says.

Files are untrusted: no damage may end in a traceback, a hang, or memory without bound.
"""

from __future__ import annotations

import faulthandler
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from damage import damaged_bytes, damaged_model
from hypothesis import HealthCheck, given, settings
from qonnx_graphs import CNN_FORMS, FORMS, CnnForm, Form, cnn, mlp

from xnorflow.errors import UserError
from xnorflow.frontend import load
from xnorflow.lowering import lower

#: Bytes that a process may take on top of what it has.
MEMORY = 3 << 30

#: Seconds until a file counts as one that hangs.
PATIENCE = 30

MLPS = [Form(**{key: value}) for key, values in FORMS.items() for value in values]
CNNS = [CnnForm(**{key: value}) for key, values in CNN_FORMS.items() for value in values]
FILES = [
    *(mlp(np.random.default_rng(0), [4, 3, 2], form).SerializeToString() for form in MLPS),
    *(cnn(np.random.default_rng(0), (5, 6, 1), form).SerializeToString() for form in CNNS),
]


@pytest.fixture(scope="module", autouse=True)
def limits() -> Iterator[None]:
    """Bound the memory; a hang ends the process with a traceback of where it is."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    faulthandler.cancel_dump_traceback_later()
    resource.setrlimit(resource.RLIMIT_AS, before)


def examine(content: bytes, path: Path) -> None:
    """Import a file, and check that it ends in a network or in one sentence."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    path.write_bytes(content)
    try:
        lower(load(path))
    except UserError as error:
        sentence = str(error)
        assert path.stem in sentence
        assert "; " in sentence
        assert "\n" not in sentence


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(relaxed, max_examples=150)
@given(damaged_bytes(FILES))
def test_damaged_bytes(path, content):
    examine(content, path)


@settings(relaxed, max_examples=150)
@given(damaged_model(FILES))
def test_damaged_fields(path, content):
    examine(content, path)


@pytest.mark.slow
@settings(relaxed, max_examples=5_000)
@given(damaged_bytes(FILES))
def test_5000_files_of_damaged_bytes(path, content):
    examine(content, path)


@pytest.mark.slow
@settings(relaxed, max_examples=5_000)
@given(damaged_model(FILES))
def test_5000_files_of_damaged_fields(path, content):
    examine(content, path)
