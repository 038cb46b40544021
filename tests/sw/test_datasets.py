"""The readers of data files and data sets, on good files and on every kind of bad one."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xnorflow import datasets
from xnorflow.datasets import (
    Frames,
    PublishedSet,
    download,
    load_fashion_mnist,
    load_mnist,
    load_npz,
    read_idx,
    sample_digits,
)
from xnorflow.errors import UserError, WorkFailed


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for part, count in (("train", 6), ("t10k", 4)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = tmp_path / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx_bytes(array)))
    return tmp_path


def test_the_sample_is_1000_labelled_digits_of_every_class() -> None:
    digits = sample_digits()
    assert digits.x.shape == (1000, 28, 28, 1)
    assert digits.x.dtype == np.uint8
    assert digits.y is not None
    assert digits.y.dtype == np.int64
    assert sorted(set(digits.y.tolist())) == list(range(10))
    # The test set of MNIST begins 7, 2, 1, 0, 4, 1, 4, 9, 5, 9.
    assert digits.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert digits.x.min() == 0
    assert digits.x.max() == 255


def test_first_takes_frames_with_their_labels() -> None:
    digits = sample_digits().first(3)
    assert len(digits) == 3
    assert digits.y is not None
    assert digits.y.tolist() == [7, 2, 1]
    assert Frames(digits.x).first(2).y is None


@given(
    x=hnp.arrays(
        st.sampled_from([np.uint8, np.float32]),
        st.one_of(
            st.tuples(st.integers(1, 4), st.integers(1, 9)),
            st.tuples(*[st.integers(1, 4)] * 4),
        ),
        elements=st.integers(0, 200),
    ),
    labelled=st.booleans(),
)
def test_a_good_file_reads_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, x: np.ndarray, labelled: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "good.npz"
    y = np.arange(len(x), dtype=np.uint8)
    if labelled:
        np.savez(path, x=x, y=y)
    else:
        np.savez(path, x=x)
    frames = load_npz(path)
    assert frames.x.dtype == x.dtype
    np.testing.assert_array_equal(frames.x, x)
    if labelled:
        assert frames.y is not None
        assert frames.y.dtype == np.int64
        np.testing.assert_array_equal(frames.y, y)
    else:
        assert frames.y is None


GOOD = np.zeros((3, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "no array 'x'"),
        ({"images": GOOD}, r"no array 'x'.*images"),
        ({"x": GOOD.astype(np.int64)}, "'x' is int64"),
        ({"x": GOOD.astype(np.float64)}, "'x' is float64"),
        ({"x": GOOD.astype(bool)}, "'x' is bool"),
        ({"x": np.array(["a", "b"])}, "'x' is <U1"),
        ({"x": np.array([{}, None])}, "Python objects"),
        ({"x": np.zeros((0, 4), np.uint8)}, "holds no frames"),
        ({"x": np.zeros((3, 0), np.uint8)}, "holds no frames"),
        ({"x": np.uint8(3)}, r"shape \(\)"),
        ({"x": np.zeros(4, np.uint8)}, r"shape \(4,\)"),
        ({"x": np.zeros((2, 3, 4), np.uint8)}, r"shape \(2, 3, 4\)"),
        ({"x": np.array([[0], [1], [np.nan]], np.float32)}, "first in frame 2"),
        ({"x": np.array([[0], [-np.inf]], np.float32)}, "first in frame 1"),
        ({"x": GOOD, "y": np.zeros(2, np.int64)}, "3 frames need labels"),
        ({"x": GOOD, "y": np.zeros((3, 1), np.int64)}, "3 frames need labels"),
        ({"x": GOOD, "y": np.zeros(3, np.float32)}, "'y' is float32"),
        ({"x": GOOD, "y": np.array([0, -1, 2])}, "below 0"),
        ({"x": GOOD, "y": np.array([0, 2**63, 2], np.uint64)}, r"above 2\^63"),
        ({"x": GOOD, "y": np.array([None, 1, 2])}, "Python objects"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused_by_name(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    path = tmp_path / "frames.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=says) as caught:
        load_npz(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_npz(tmp_path / "absent.npz")
    with pytest.raises(UserError, match="directory"):
        load_npz(tmp_path)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frames.npz"
    with path.open("wb") as file:
        np.save(file, GOOD)
    for content in (path.read_bytes(), b"", b"hello", pickle.dumps(GOOD)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"not an \.npz"):
            load_npz(path)


def test_a_damaged_npz_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    path = tmp_path / "frames.npz"
    rng = np.random.default_rng(7)
    np.savez_compressed(path, x=rng.integers(0, 256, (4, 8), np.uint8), y=np.arange(4))
    whole = path.read_bytes()
    good = load_npz(path)
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            frames = load_npz(path)
        except UserError:
            refused += 1
        else:
            # Bytes that carry no data (time stamps, flags) may differ.
            np.testing.assert_array_equal(frames.x, good.x)
    assert refused > len(whole) // 2
    path.write_bytes(whole[:-30])
    with pytest.raises(UserError):
        load_npz(path)


@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
def test_idx_files_read_as_frames_in_nhwc(idx_folder: Path, load: object) -> None:
    assert callable(load)
    for split, part, count in (("train", "train", 6), ("test", "t10k", 4)):
        frames = load(split, idx_folder)
        assert frames.x.shape == (count, 28, 28, 1)
        assert frames.y.dtype == np.int64
        raw = gzip.decompress((idx_folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
        assert frames.x.tobytes() == raw[16:]


def test_wrong_idx_files_are_refused(idx_folder: Path) -> None:
    path = idx_folder / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    idx = gzip.decompress(whole)
    bad = {
        "not a whole gzip": [b"plain", whole[:-9], whole[:40]],
        "not an idx": [gzip.compress(b""), gzip.compress(b"\0\0\x0d\3" + idx[4:])],
        "idx header": [gzip.compress(idx[:-1]), gzip.compress(idx + b"\0"), gzip.compress(idx[:9])],
        "shapes": [gzip.compress(idx_bytes(np.zeros((3, 28, 28))))],
    }
    for says, contents in bad.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(UserError, match=says):
                load_mnist("test", idx_folder)
    path.write_bytes(whole)
    labels = idx_folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(np.array([0, 1, 10, 2]))))
    with pytest.raises(UserError, match="go up to 10"):
        load_mnist("test", idx_folder)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        read_idx(path)
    with pytest.raises(UserError, match="--data-dir"):
        load_mnist("test", idx_folder / "absent")


@pytest.fixture
def mirrored(idx_folder: Path) -> PublishedSet:
    names = sorted(path.name for path in idx_folder.iterdir())
    md5 = [hashlib.md5((idx_folder / name).read_bytes()).hexdigest() for name in names]
    missing = (idx_folder / "nowhere").as_uri() + "/"
    return PublishedSet(
        "toy", "Toy", (missing, idx_folder.as_uri() + "/"), tuple(zip(names, md5, strict=True))
    )


def test_a_download_goes_to_the_next_mirror_and_is_kept(
    mirrored: PublishedSet, idx_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache") / "toy"
    said: list[str] = []
    download(mirrored, cache, said.append)
    assert len(said) == 4
    for name, _ in mirrored.md5:
        assert (cache / name).read_bytes() == (idx_folder / name).read_bytes()
    assert len(list(cache.iterdir())) == 4
    download(mirrored, cache, said.append)
    assert len(said) == 4


def test_a_download_that_is_not_the_published_file_is_not_kept(
    mirrored: PublishedSet, idx_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache") / "toy"
    (idx_folder / mirrored.md5[0][0]).write_bytes(b"something else")
    with pytest.raises(WorkFailed, match=r"MD5 differs.*--data-dir"):
        download(mirrored, cache)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_named(mirrored: PublishedSet, idx_folder: Path) -> None:
    blocked = idx_folder / "blocked"
    blocked.write_text("a file where the cache folder should be")
    with pytest.raises(UserError, match="blocked"):
        download(mirrored, blocked / "toy")


def test_without_data_dir_the_cache_folder_is_used(
    mirrored: PublishedSet, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("xdg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(datasets, "MNIST", mirrored)
    assert len(load_mnist("test")) == 4
    assert (cache / "xnorflow" / "toy" / "t10k-images-idx3-ubyte.gz").is_file()
