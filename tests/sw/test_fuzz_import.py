"""A damaged model file ends in one sentence, or means what it still says.

Files are untrusted: no damage may end in a traceback, a hang, or memory without bound.
"""

from __future__ import annotations

import faulthandler
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sign_idioms
from damage import Files, damaged_bytes, damaged_keras, damaged_model
from hypothesis import HealthCheck, given, settings
from keras_files import FORMS as KERAS_FORMS
from keras_files import KerasModel, read_here
from qonnx_graphs import CNN_FORMS, FORMS, CnnForm, Form, cnn, mlp

from xnorflow.errors import UserError
from xnorflow.frontend import read
from xnorflow.frontend.keras import files as keras_reader
from xnorflow.import_check import check_import
from xnorflow.lowering import lower

#: Bytes that a process may take on top of what it has.
MEMORY = 3 << 30

#: Seconds until a file counts as one that hangs.
PATIENCE = 30

MLPS = [Form(**{key: value}) for key, values in FORMS.items() for value in values]
CNNS = [CnnForm(**{key: value}) for key, values in CNN_FORMS.items() for value in values]
FILES = Files(
    [
        *(mlp(np.random.default_rng(0), [4, 3, 2], form).SerializeToString() for form in MLPS),
        *(cnn(np.random.default_rng(0), (5, 6, 1), form).SerializeToString() for form in CNNS),
        *(model.SerializeToString() for model in sign_idioms.models()),
    ]
)


def keras_files() -> Iterator[tuple[str, bytes]]:
    """Yield the form and the bytes of small models in every form of file."""
    vectors = KerasModel((6,)).dense(4).batch_norm().dense(3).batch_norm(scale=False)
    images = KerasModel((6, 5, 2)).conv(3, 3, quantizer=None, padding="same").pool("Max")
    images.batch_norm().conv(4, 2, padding="same").batch_norm().flatten().dense(3, bias=True)
    with tempfile.TemporaryDirectory() as folder:
        for model in (vectors, images):
            for form in KERAS_FORMS:
                yield form, model.save(Path(folder) / "net", form).read_bytes()


KERAS = Files(content for form, content in keras_files() if form.startswith("keras"))
ARCHIVES = Files(content for _, content in keras_files())


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
    """Import a file; it must end in one sentence, or mean what the reference executor computes."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    path.write_bytes(content)
    try:
        imported = read(path)
        check_import(imported, lower(imported.network), frames=2)
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


@pytest.fixture
def hdf5_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read HDF5 that is whole in this process: another one for each file would take longest."""
    monkeypatch.setattr(keras_reader, "read_hdf5", read_here)


@settings(relaxed, max_examples=150)
@given(damaged_keras(KERAS))
def test_damaged_configurations(hdf5_here, path, content):
    examine(content, path)


@settings(relaxed, max_examples=20)
@given(damaged_bytes(ARCHIVES))
def test_damaged_archives(path, content):
    examine(content, path)


@pytest.mark.slow
@settings(relaxed, max_examples=5_000)
@given(damaged_keras(KERAS))
def test_5000_damaged_configurations(hdf5_here, path, content):
    examine(content, path)


@pytest.mark.slow
@settings(relaxed, max_examples=250)
@given(damaged_bytes(ARCHIVES))
def test_250_damaged_archives(path, content):
    examine(content, path)
