"""Keras files that are damaged, hostile or no models: one sentence each, within limits."""

import io
import json
import os
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import KerasModel, read_here, save_h5, save_parts

from xnorflow.errors import UserError
from xnorflow.frontend import load
from xnorflow.frontend.keras import files, hdf5
from xnorflow.frontend.keras.files import KerasFile, Variable, Weights
from xnorflow.frontend.keras.reader import translate
from xnorflow.frontend.walk import import_graph
from xnorflow.lowering import lower


def small() -> KerasModel:
    return KerasModel((6,)).dense(5).batch_norm().dense(3)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, parts: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_a_file_is_taken_for_what_it_is_whatever_its_name(tmp_path):
    for form in ("keras", "h5"):
        path = small().save(tmp_path / form, form).rename(tmp_path / f"{form}.model")
        assert load(path).classes == 3
        assert lower(load(path)).name == form


def test_importing_takes_no_more_than_seconds(tmp_path):
    path = KerasModel((784,)).dense(256).batch_norm().dense(10).save(tmp_path / "m")
    load(path)
    begin = time.perf_counter()
    load(path)
    assert time.perf_counter() - begin < 5


def test_tensorflow_is_not_imported(tmp_path):
    path = small().save(tmp_path / "m")
    code = (
        "import sys; from xnorflow.frontend import load; load(sys.argv[1]);"
        "sys.exit(bool({'tensorflow', 'keras', 'tf_keras', 'h5py'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


@pytest.mark.parametrize("name", ["missing.keras", "missing.h5"])
def test_a_missing_file_is_named(name, tmp_path):
    assert "no such file" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"hello" * 100])
def test_what_is_no_keras_file_is_said_to_be_none(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_a_folder_is_no_file(tmp_path):
    path = tmp_path / "m.keras"
    path.mkdir()
    refusal(path)


def test_weights_without_a_model_are_refused(tmp_path):
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 2))
    assert "weights without the model" in refusal(path)
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file["dense/dense/kernel:0"] = np.zeros((2, 2))
    assert "model.save" in refusal(path)


def test_other_zip_files_are_refused(tmp_path):
    path = zipped(tmp_path / "checkpoint.pt", {"archive/data.pkl": b"cos\nsystem\n"})
    assert "export a PyTorch model to ONNX" in refusal(path)
    parts = parts_of(small().save(tmp_path / "m"))
    del parts["model.weights.h5"]
    assert "holds no model.weights.h5" in refusal(zipped(tmp_path / "n.keras", parts))


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED]
)
def test_only_usual_compressions_are_unpacked(method, tmp_path):
    parts = parts_of(small().save(tmp_path / "m"))
    path = zipped(tmp_path / "n.keras", parts, compression=method)
    if method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        assert load(path).classes == 3
    else:
        assert "cannot be unpacked" in refusal(path)


def test_an_encrypted_file_is_refused(tmp_path):
    content = bytearray(small().save(tmp_path / "m").read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(magic)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(magic, place + 1)
    path = tmp_path / "n.keras"
    path.write_bytes(content)
    assert "cannot be unpacked" in refusal(path)


def test_bombs_are_not_unpacked(tmp_path):
    parts = parts_of(small().save(tmp_path / "m"))
    bomb = parts | {"config.json": b" " * (1 << 26)}
    path = zipped(tmp_path / "a.keras", bomb, compression=zipfile.ZIP_DEFLATED)
    assert "more than 4 MiB" in refusal(path)
    # A size that the list of members tells wrongly.
    content = bytearray(path.read_bytes())
    size = struct.pack("<L", 1 << 26)
    while (place := content.find(size)) >= 0:
        content[place : place + 4] = struct.pack("<L", 1 << 20)
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_many_members_are_not_listed(tmp_path):
    parts = parts_of(small().save(tmp_path / "m"))
    path = zipped(tmp_path / "n.keras", parts | {f"part{n:0200}": b"" for n in range(5000)})
    assert "too many parts" in refusal(path)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"{",
        b'"text"',
        b"[" * 100_000,
        b'{"class_name": ' * 5000,
        b'{"a": %s1%s}' % (b"[" * 300, b"]" * 300),
        b"[%s]" % b",".join([b"[]"] * 300_000),
        b"\xff\xfe",
        b"9" * 10_000,
    ],
)
def test_configurations_that_are_none_are_refused(config, tmp_path):
    parts = parts_of(small().save(tmp_path / "m")) | {"config.json": config}
    assert "damaged" in refusal(zipped(tmp_path / "n.keras", parts))


def h5_file(write) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        write(file)
    return memory.getvalue()


def soft_link(file):
    file["layers/quant_dense/vars/0"] = h5py.SoftLink("/etc")


def external_link(file):
    file["layers/quant_dense/vars/0"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_storage(file):
    file.create_group("layers").create_dataset(
        "w", (10,), np.uint8, external=[("/etc/passwd", 0, 10)]
    )


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "w", (4,))
    file.create_group("layers").create_virtual_dataset("w", layout)


def cycle(file):
    group = file.create_group("layers/a/b")
    group["again"] = file["layers"]


def text(file):
    file["layers/w"] = "text"


def compound(file):
    file["layers/w"] = np.zeros(3, [("a", "f4"), ("b", "i4")])


def references(file):
    file["layers/w"] = np.array([file.ref], h5py.ref_dtype)


def never_written(file):
    file.create_group("layers").create_dataset("w", (1 << 40,), "f4", chunks=(1 << 20,))


def written_in_part(file):
    file.create_group("layers").create_dataset("w", (1 << 20,), "f4", chunks=(16,))[:16] = 1


def huge_chunks(file):
    file.create_group("layers").create_dataset("w", (1 << 28,), "u1", chunks=(1 << 28,))


def squeezed(file):
    zeros = np.zeros(1 << 27, np.uint8)
    file.create_group("layers").create_dataset("w", data=zeros, compression="gzip")


def many(file):
    group = file.create_group("layers")
    for n in range(10_000):
        group.create_group(str(n))


HOSTILE = {
    soft_link: "holds a link",
    external_link: "holds a link",
    external_storage: "in another file",
    virtual: "in another file",
    cycle: "the same object again",
    text: "no array of numbers",
    compound: "no array of numbers",
    references: "no array of numbers",
    never_written: "are stored",
    written_in_part: "of which 64 are stored",
    huge_chunks: "are stored",
    squeezed: "are stored",
    many: "objects",
}


@pytest.mark.parametrize("write", HOSTILE, ids=lambda write: write.__name__)
def test_weights_that_lead_elsewhere_or_are_too_large_are_refused(write, tmp_path):
    parts = parts_of(small().save(tmp_path / "m")) | {"model.weights.h5": h5_file(write)}
    assert HOSTILE[write] in refusal(zipped(tmp_path / "n.keras", parts))


def test_what_is_not_read_may_be_anything(tmp_path):
    path = small().save(tmp_path / "m", "h5")
    with h5py.File(path, "a") as file:
        file["optimizer_weights/link"] = h5py.ExternalLink("/etc/passwd", "/x")
        file.attrs["training_config"] = np.zeros(10)
    assert load(path).classes == 3


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        "while True: pass",
        "x = b'1' * (1 << 40)",
        "print('{')",
        "print('x' * (1 << 26))",
        "",
    ],
)
def test_a_library_that_crashes_or_hangs_is_a_damaged_file(code, tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text(code)
    monkeypatch.setattr(hdf5, "_WORKER", worker)
    monkeypatch.setattr(hdf5, "_SECONDS", 1)
    assert "truncated or damaged" in refusal(small().save(tmp_path / "m"))


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_the_reading_process_cannot_take_more_than_its_memory_and_time(tmp_path):
    worker = Path(hdf5.__file__).with_name("hdf5_worker.py")
    for code, seconds in (("bytes(1 << 31)", 5), ("[0 for _ in iter(int, 1)]", 1)):
        script = f"import runpy; w = runpy.run_path({str(worker)!r}); "
        script += f"w['_limit'](1 << 30, {seconds}, 1 << 20); {code}"
        begin = time.perf_counter()
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        result = subprocess.run(
            [sys.executable, "-c", script], stderr=subprocess.PIPE, env=environment, check=False
        )
        assert result.returncode != 0
        assert result.returncode < 0 or b"MemoryError" in result.stderr
        assert time.perf_counter() - begin < 10


def test_half_precision_and_double_weights_are_exact(tmp_path):
    model = small()
    for kind, config, weights in model.layers:
        dtype = np.float16 if kind == "QuantDense" else np.float64
        weights[:] = [(name, array.astype(dtype)) for name, array in weights]
        config["dtype"] = "float16"
    expected = small().save(tmp_path / "single")
    networks = [lower(load(p)) for p in (model.save(tmp_path / "half"), expected)]
    for one, two in zip(*(network.stages for network in networks), strict=True):
        np.testing.assert_array_equal(one.weights, two.weights)


def test_layers_of_tensorflow_2_12_lie_under_another_name(tmp_path):
    model = small()
    path = model.save(tmp_path / "m")
    parts = {
        f"_layer_checkpoint_dependencies/{name}": [array for _, array in weights]
        for name, (_, _, weights) in zip(
            ("quant_dense", "batch_normalization", "quant_dense_1"), model.layers, strict=True
        )
    }
    old = save_parts(tmp_path / "n.keras", model.config(), parts)
    assert lower(load(old)).digest() == lower(load(path)).digest()


def test_long_lists_of_weights_are_cut_in_h5(tmp_path):
    model = small()
    path = model.save(tmp_path / "m", "h5")
    whole = lower(load(path)).digest()
    with h5py.File(path, "a") as file:
        group = file["model_weights/batch_normalization"]
        names = list(group.attrs["weight_names"])
        del group.attrs["weight_names"]
        group.attrs["weight_names0"], group.attrs["weight_names1"] = names[:1], names[1:]
    assert lower(load(path)).digest() == whole


def test_weights_in_another_order_are_refused(tmp_path):
    model = small()
    model.layers[1][2].reverse()
    message = refusal(model.save(tmp_path / "m", "h5"))
    assert "has the weights 'moving_variance' in the place of its gamma" in message


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), form=st.sampled_from(["keras", "h5"]))
def test_damaged_bytes_end_in_a_sentence(data, form, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(small().save(folder / "m", form).read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(0, 20))):
        if content:
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] = data.draw(st.integers(0, 255))
    path = folder / f"n.{form}"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        # In a process of its own every one would take a quarter of a second.
        patch.setattr(files, "read_hdf5", _read_or_refuse)
        message = sentence(lambda: lower(load(path)))
    assert str(path) in message or "network 'n'" in message or not message


def sentence(step: Callable[[], object]) -> str:
    """Return how a step is refused, or nothing."""
    try:
        step()
    except UserError as error:
        return str(error)
    return ""


def _read_or_refuse(path, file, groups):
    try:
        return read_here(path, file, groups)
    except KeyError:
        raise UserError(f"{path}: damaged") from None


class Stored(Weights):
    def __init__(self, model: KerasModel) -> None:
        self.by_name = {config["name"]: weights for _, config, weights in model.layers}

    def of(self, place, names):
        return [Variable("", array) for _, array in self.by_name.get(names[-1], [])]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([10**30, -(10**400), 1 << 40, 1e300, float("nan"), float("inf"), -0.5])
    | st.sampled_from(["", "same", "valid", "ste_sign", "relu", "QuantDense", "Flatten", "input_1"])
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@st.composite
def damaged(draw: st.DrawFn, value):
    """Replace, drop or copy a value somewhere in nested JSON."""
    place = value
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner) or draw(st.integers(0, 5)) == 0:
            what = draw(st.integers(0, 5))
            if what == 0:
                del place[key]
            elif what == 1 and isinstance(place, list):
                place.append(inner)
            else:
                place[key] = draw(JSON)
            break
        place = inner
    return value


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data(), functional=st.booleans(), third=st.booleans())
def test_damaged_configurations_end_in_a_sentence(data, functional, third):
    model = KerasModel((6, 5, 2)).rescaling(0.5).conv(3, 2, quantizer=None, padding="same")
    model.batch_norm().pool("Max").zero_padding(1, 0, 0, 1).other("Dropout", rate=0.1)
    model.conv(0, 2, kind="QuantDepthwiseConv2D", padding="same").batch_norm().sign()
    model.conv(3, 1, kind="QuantSeparableConv2D", quantizer=None).global_pool("Average", True)
    model.reshape(3).dense(4, bias=True).other("Softmax", axis=-1)
    form = f"keras{' 3' * third}{' functional' * functional}"
    config = json.loads(json.dumps(model.config(form)))
    for _ in range(data.draw(st.integers(1, 3))):
        config = data.draw(damaged(config))
    file = KerasFile("n.keras", config, Stored(model))
    message = sentence(lambda: lower(import_graph(translate(file)).network))
    assert "n.keras" in message or "network 'n'" in message or not message


def test_h5_files_without_a_list_of_weights_are_refused(tmp_path):
    model = small()
    path = save_h5(tmp_path / "m.h5", model.config("h5"), [])
    assert "layer 'quant_dense' (QuantDense) has 0 arrays of weights" in refusal(path)
