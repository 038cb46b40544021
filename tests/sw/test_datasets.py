"""The readers of data files and data sets, on good files and on every kind of bad one."""

import gzip
import hashlib
import io
import pickle
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xnorflow import datasets
from xnorflow.datasets import (
    CIFAR10,
    FASHION_MNIST,
    MNIST,
    SVHN,
    Frames,
    PublishedSet,
    Split,
    download,
    load_dataset,
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


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_read_as_frames_in_nhwc(idx_folder: Path, name: str) -> None:
    splits: tuple[tuple[Split, str, int], ...] = (("train", "train", 6), ("test", "t10k", 4))
    for split, part, count in splits:
        frames = load_dataset(name, split, idx_folder)
        assert frames.x.shape == (count, 28, 28, 1)
        assert frames.y is not None
        assert frames.y.dtype == np.int64
        labels = gzip.decompress((idx_folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
        assert frames.y.tolist() == list(labels[8:])
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
                load_dataset("mnist", "test", idx_folder)
    path.write_bytes(whole)
    labels = idx_folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(np.array([0, 1, 10, 2]))))
    with pytest.raises(UserError, match="go up to 10"):
        load_dataset("mnist", "test", idx_folder)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        read_idx(path)
    with pytest.raises(UserError, match="`data_dir="):
        load_dataset("mnist", "test", idx_folder / "absent")


def cifar_records(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Return images (N, 32, 32, 3), labels (N,) and the bytes that hold them."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    y = rng.integers(0, 10, count, np.uint8)
    planes = [b"".join(image[:, :, colour].tobytes() for colour in range(3)) for image in x]
    return x, y, b"".join(bytes([label]) + plane for label, plane in zip(y, planes, strict=True))


CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"


def write_archive(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / CIFAR_ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        root = tarfile.TarInfo("cifar-10-batches-bin")
        root.type = tarfile.DIRTYPE
        archive.addfile(root)
        # Not in the order of the numbers, as in the published archive.
        for name, content in reversed(members.items()):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_the_cifar_archive_reads_as_frames_in_nhwc_in_the_order_of_the_batches(
    tmp_path: Path,
) -> None:
    batches = {name: cifar_records(seed, 3) for seed, name in enumerate(CIFAR_FILES)}
    write_archive(tmp_path, {name: content for name, (_, _, content) in batches.items()})
    splits: tuple[tuple[Split, tuple[str, ...]], ...] = (
        ("train", CIFAR_FILES[:5]),
        ("test", CIFAR_FILES[5:]),
    )
    for split, names in splits:
        frames = load_dataset("cifar10", split, tmp_path)
        np.testing.assert_array_equal(frames.x, np.concatenate([batches[n][0] for n in names]))
        assert frames.x.dtype == np.uint8
        assert frames.y is not None
        assert frames.y.dtype == np.int64
        np.testing.assert_array_equal(frames.y, np.concatenate([batches[n][1] for n in names]))


def test_a_wrong_cifar_archive_is_refused(tmp_path: Path) -> None:
    content = cifar_records(1, 2)[2]
    path = write_archive(tmp_path, {"test_batch.bin": content})
    whole = path.read_bytes()
    assert len(load_dataset("cifar10", "test", tmp_path)) == 2

    def refused(split: Split, says: str) -> None:
        with pytest.raises(UserError, match=says) as caught:
            load_dataset("cifar10", split, tmp_path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("train", "not CIFAR-10's binary version")
    wrong = [content[:-1], b"", b"\x0a" + content[1:]]
    for damaged in (*wrong, content + b"\0"):
        write_archive(tmp_path, {"test_batch.bin": damaged})
        refused("test", "not CIFAR-10's binary version; fetch it again")
    for damaged in (b"", b"hello", gzip.compress(b"hello"), whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        refused("test", "not CIFAR-10's binary version; fetch it again")
    path.unlink()
    refused("test", "No such file")
    path.mkdir()
    refused("test", "directory")


def test_svhn_files_read_as_frames_in_nhwc_and_ten_is_the_digit_0(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    rng = np.random.default_rng(7)
    for split, compressed in (("train", True), ("test", False)):
        x = rng.integers(0, 256, (32, 32, 3, 12), np.uint8)
        y = np.array([[10, *range(1, 11), 1]], np.uint8).T
        path = tmp_path / f"{split}_32x32.mat"
        scipy_io.savemat(path, {"X": x, "y": y}, do_compression=compressed)
        frames = load_dataset("svhn", split, tmp_path)
        assert frames.y is not None
        assert frames.x.shape == (12, 32, 32, 3)
        np.testing.assert_array_equal(frames.x[5, 1, 2], x[1, 2, :, 5])
        assert frames.y.tolist() == [0, *range(1, 10), 0, 1]


def test_a_wrong_svhn_file_is_refused(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "train_32x32.mat"
    x, y = np.zeros((32, 32, 3, 2), np.uint8), np.array([[1], [10]], np.uint8)

    def refused(says: str) -> None:
        with pytest.raises(UserError, match=says):
            load_dataset("svhn", "train", tmp_path)

    refused("No such file")
    wrong: tuple[dict[str, np.ndarray], ...] = (
        {"X": x},
        {"X": x.astype(np.float32), "y": y},
        {"X": x[..., :1], "y": y},
        {"X": x[:31], "y": y},
        {"X": x, "y": y - np.uint8(1)},
        {"X": x[..., :0], "y": y[:0]},
    )
    for content in wrong:
        scipy_io.savemat(path, content)
        refused("not a file of SVHN's cropped digits; fetch it again")
    scipy_io.savemat(path, {"X": x, "y": y}, do_compression=True)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        refused("not a file of SVHN's cropped digits; fetch it again")


def test_without_scipy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io.matlab", None)
    with pytest.raises(UserError, match=r"needs scipy; .*pip install 'xnorflow\[train\]'"):
        load_dataset("svhn", "train", tmp_path)


@pytest.mark.parametrize("dataset", [MNIST, FASHION_MNIST, CIFAR10, SVHN])
def test_a_folder_of_npz_files_stands_for_any_set(tmp_path: Path, dataset: PublishedSet) -> None:
    rng = np.random.default_rng(4)
    name = dataset.name.replace("_", "-")
    splits: tuple[tuple[Split, int], ...] = (("train", 5), ("test", 2))
    for split, count in splits:
        x = rng.integers(0, 256, (count, *dataset.image_shape), np.uint8)
        y = rng.integers(0, 10, count, np.uint8)
        np.savez(tmp_path / f"{split}.npz", x=x, y=y)
        frames = load_dataset(name, split, tmp_path)
        np.testing.assert_array_equal(frames.x, x)
        assert frames.y is not None
        assert frames.y.dtype == np.int64
        np.testing.assert_array_equal(frames.y, y)


IMAGES = np.zeros((3, 32, 32, 3), np.uint8)
CLASSES = np.zeros(3, np.int64)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": IMAGES}, "no array 'y'"),
        ({"y": CLASSES}, "no array 'x'"),
        ({"x": IMAGES.astype(np.float32), "y": CLASSES}, r"shape \(32, 32, 3\), float32"),
        ({"x": IMAGES.reshape(3, -1), "y": CLASSES}, r"shape \(3072,\), uint8"),
        ({"x": IMAGES.transpose(0, 3, 1, 2), "y": CLASSES}, r"CIFAR-10 are \(32, 32, 3\), uint8"),
        ({"x": IMAGES, "y": CLASSES + 10}, "'y' goes up to 10.*classes 0 to 9"),
        ({"x": IMAGES, "y": CLASSES - 1}, "below 0"),
        ({"x": IMAGES, "y": CLASSES[:2]}, "3 frames need labels"),
    ],
)
def test_an_npz_file_that_is_not_the_set_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    path = tmp_path / "test.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=says) as caught:
        load_dataset("cifar10", "test", tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_with_half_of_the_npz_files_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=IMAGES, y=CLASSES)
    with pytest.raises(UserError, match=r"test\.npz: No such file"):
        load_dataset("cifar10", "test", tmp_path)


def test_an_unknown_set_is_refused_with_the_names_of_the_known(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="'letters'; choose one of: mnist, fashion-mnist, cifar10, svhn"
    ):
        load_dataset("letters", "test", tmp_path)


def test_a_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is not a folder"):
        load_dataset("mnist", "test", path)


@pytest.fixture
def mirrored(idx_folder: Path) -> PublishedSet:
    names = sorted(path.name for path in idx_folder.iterdir())
    md5 = [hashlib.md5((idx_folder / name).read_bytes()).hexdigest() for name in names]
    missing = (idx_folder / "nowhere").as_uri() + "/"
    mirrors = (missing, idx_folder.as_uri() + "/")
    return PublishedSet("toy", "Toy", (28, 28, 1), mirrors, tuple(zip(names, md5, strict=True)))


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
    with pytest.raises(WorkFailed, match=r"MD5 differs.*`data_dir`"):
        download(mirrored, cache)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_named(mirrored: PublishedSet, idx_folder: Path) -> None:
    blocked = idx_folder / "blocked"
    blocked.write_text("a file where the cache folder should be")
    with pytest.raises(UserError, match="blocked"):
        download(mirrored, blocked / "toy")


def test_without_data_dir_the_cache_folder_is_used(
    mirrored: PublishedSet,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path_factory.mktemp("xdg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setitem(datasets._SETS, "mnist", mirrored)
    assert len(load_dataset("mnist", "test")) == 4
    assert (cache / "xnorflow" / "toy" / "t10k-images-idx3-ubyte.gz").is_file()
