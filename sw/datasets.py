"""Frames and labels: the shipped sample digits, ``.npz`` data files, and published data sets.

A data file is an ``.npz`` with ``x`` (N,H,W,C or N,F; uint8 or float32) and optionally ``y`` (N,).
The full data sets come as the files of their authors, either from a folder that the user names or
from a public mirror into the cache folder, where their checksums are verified; or as the user's own
data files. The idx format is the one described by LeCun, Cortes and Burges with MNIST, the records
of CIFAR-10's binary version those described by Krizhevsky, the arrays of SVHN's cropped digits
those described by Netzer et al. ("Reading digits in natural images", 2011).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from xnorflow.errors import UserError, WorkFailed

__all__ = [
    "CIFAR10",
    "FASHION_MNIST",
    "MNIST",
    "SVHN",
    "Frames",
    "PublishedSet",
    "Split",
    "check_labels",
    "download",
    "load_dataset",
    "load_npz",
    "read_idx",
    "sample_digits",
]

Split = Literal["train", "test"]

_SAMPLE = "mnist_test_1000.npz"
_DOWNLOAD_SECONDS = 30.0
# What the zip and array readers raise on damaged bytes.
_DAMAGE = (
    ArithmeticError,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames with or without labels.

    Attributes
    ----------
    x : ndarray of uint8 or float32, shape (N, H, W, C) or (N, F)
        At least one frame; every value finite.
    y : ndarray of int64, shape (N,), or None
        Class of each frame, counted from 0.
    """

    x: NDArray
    y: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.x)

    def first(self, count: int) -> Frames:
        """Return the first `count` frames, or all where there are fewer."""
        return Frames(self.x[:count], None if self.y is None else self.y[:count])


@dataclass(frozen=True)
class PublishedSet:
    """Where a data set comes from.

    Attributes
    ----------
    name : str
        Folder name in the cache.
    title : str
        Name for messages.
    image_shape : tuple of int
        Shape of a frame, (H, W, C).
    mirrors : tuple of str
        Base URLs, tried in order; each ends in ``/``.
    md5 : tuple of (str, str)
        File name and the published MD5 of the compressed file.
    """

    name: str
    title: str
    image_shape: tuple[int, int, int]
    mirrors: tuple[str, ...]
    md5: tuple[tuple[str, str], ...]


MNIST = PublishedSet(
    name="mnist",
    title="MNIST",
    image_shape=(28, 28, 1),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    md5=(
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
)

FASHION_MNIST = PublishedSet(
    name="fashion_mnist",
    title="Fashion-MNIST",
    image_shape=(28, 28, 1),
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    md5=(
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
)

CIFAR10 = PublishedSet(
    name="cifar10",
    title="CIFAR-10",
    image_shape=(32, 32, 3),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    md5=(("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d13530"),),
)

SVHN = PublishedSet(
    name="svhn",
    title="SVHN",
    image_shape=(32, 32, 3),
    mirrors=("http://ufldl.stanford.edu/housenumbers/",),
    # The authors publish no sums; these are torchvision's.
    md5=(
        ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    ),
)

_SETS = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST, "cifar10": CIFAR10, "svhn": SVHN}


def load_npz(path: str | Path) -> Frames:
    """Read a data file.

    Parameters
    ----------
    path : str or Path
        An ``.npz`` with ``x`` (N,H,W,C or N,F; uint8 or float32) and optionally ``y`` (N,).

    Returns
    -------
    Frames
        The frames as stored; labels widened to int64.

    Raises
    ------
    UserError
        The file is missing, is no ``.npz``, or breaks the contract above.
    """
    try:
        with open(path, "rb") as file:
            return _read_npz(file, str(path))
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise UserError(f"cannot read the data file {path}: {reason}") from error


def sample_digits() -> Frames:
    """Return the shipped sample: the first 1,000 test digits of MNIST.

    Returns
    -------
    Frames
        ``x`` uint8 of shape (1000, 28, 28, 1), 0 is paper and 255 ink; ``y`` of shape (1000,).
    """
    source = resources.files("xnorflow.data").joinpath(_SAMPLE)
    with source.open("rb") as file:
        return _read_npz(file, _SAMPLE)


def load_dataset(
    name: str,
    split: Split,
    data_dir: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Frames:
    """Load the training or the test frames of a data set.

    Parameters
    ----------
    name : str
        ``mnist``, ``fashion-mnist``, ``cifar10`` or ``svhn``.
    split : {"train", "test"}
        Which part.
    data_dir : str or Path, optional
        Folder with the published files, or with ``train.npz`` and ``test.npz`` (see `load_npz`;
        images of the set's shape with labels 0 to 9); without it the files are downloaded once
        into the cache folder.
    progress : callable, optional
        Called with one line before each download.

    Returns
    -------
    Frames
        ``x`` uint8 of shape (N, 28, 28, 1), of CIFAR-10 and SVHN (N, 32, 32, 3); ``y`` (N,).

    Raises
    ------
    UserError
        There is no such data set, or a file in `data_dir` is missing or is not what its name says,
        or SVHN's files are to be read without scipy.
    WorkFailed
        No mirror gave the published file.
    """
    if name not in _SETS:
        raise UserError(f"there is no data set {name!r}; choose one of: {', '.join(_SETS)}")
    dataset = _SETS[name]
    if data_dir is None:
        folder = _cache_folder() / dataset.name
        download(dataset, folder, progress)
    else:
        folder = Path(data_dir)
        if not folder.is_dir():
            raise UserError(f"`data_dir={folder}` is not a folder; name one with the data set")
        if any((folder / f"{part}.npz").is_file() for part in ("train", "test")):
            return _load_own(folder / f"{split}.npz", dataset)
    if dataset is SVHN:
        return _load_svhn(folder, split)
    return _load_cifar10(folder, split) if dataset is CIFAR10 else _load_idx(folder, split)


def download(
    dataset: PublishedSet, folder: Path, progress: Callable[[str], None] | None = None
) -> None:
    """Fetch the files of a data set that `folder` does not hold yet.

    A file is written under its name only after its MD5 has been found to be the published one.

    Parameters
    ----------
    dataset : PublishedSet
        What to fetch, from where.
    folder : Path
        Made where it is missing.
    progress : callable, optional
        Called with one line before each file.

    Raises
    ------
    UserError
        `folder` cannot be written.
    WorkFailed
        No mirror gave the published file.
    """
    for name, md5 in dataset.md5:
        target = folder / name
        if target.is_file():
            continue
        if progress is not None:
            progress(f"downloading {dataset.title}: {name}")
        content = _fetch(dataset, name, md5)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Written aside and renamed, so that a broken run never leaves half a file.
            part = target.with_suffix(f".part{os.getpid()}")
            part.write_bytes(content)
            part.replace(target)
        except OSError as error:
            raise UserError(
                f"cannot write {target}: {error.strerror}; "
                "name a folder that holds the files with `data_dir`"
            ) from error


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """Read one gzip-compressed idx file of unsigned bytes.

    Parameters
    ----------
    path : str or Path
        The file. Its header is two zero bytes, the element type (8: unsigned byte), the number
        of dimensions, then each dimension as a big-endian 32-bit integer.

    Returns
    -------
    ndarray of uint8
        In the shape that the header gives.

    Raises
    ------
    UserError
        The file is missing, is not gzip, or its header and length disagree.
    """
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file; fetch it again") from error
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise UserError(f"cannot read the data set file {path}: {reason}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise UserError(f"{path} is not an idx file of unsigned bytes; fetch it again")
    start = 4 + 4 * content[3]
    shape = struct.unpack_from(f">{content[3]}I", content, 4) if start <= len(content) else None
    if shape is None or len(content) - start != math.prod(shape):
        raise UserError(f"{path} does not hold what its idx header says; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "xnorflow"


def _load_own(path: Path, dataset: PublishedSet) -> Frames:
    frames = load_npz(path)
    shape = frames.x.shape[1:]
    if frames.x.dtype != np.uint8 or shape != dataset.image_shape:
        raise UserError(
            f"{path}: 'x' holds frames of shape {shape}, {frames.x.dtype}, but images of "
            f"{dataset.title} are {dataset.image_shape}, uint8; convert it"
        )
    if frames.y is None:
        raise UserError(f"{path} has no array 'y' with the labels; add it")
    if frames.y.max() > 9:
        raise UserError(
            f"{path}: 'y' goes up to {frames.y.max()}, but {dataset.title} has the classes 0 to 9"
        )
    return frames


def _load_cifar10(folder: Path, split: Split) -> Frames:
    """Read ``cifar-10-binary.tar.gz``: records of a label and 32x32 bytes each of R, G and B."""
    path = folder / CIFAR10.md5[0][0]
    files = [f"data_batch_{n}.bin" for n in range(1, 6)] if split == "train" else ["test_batch.bin"]
    try:
        with tarfile.open(path) as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}
            content = b""
            for file in files:
                part = archive.extractfile(members[file])
                assert part is not None
                content += part.read()
        records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read the data set file {path}: {error.strerror}") from error
    except (*_DAMAGE, tarfile.TarError) as error:
        raise UserError(f"{path} is not CIFAR-10's binary version; fetch it again") from error
    if not len(records) or records[:, 0].max() > 9:
        raise UserError(f"{path} is not CIFAR-10's binary version; fetch it again")
    x = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Frames(np.ascontiguousarray(x), records[:, 0].astype(np.int64))


def _load_svhn(folder: Path, split: Split) -> Frames:
    """Read ``X`` (32, 32, 3, N) and ``y`` (N, 1) of a ``.mat`` file, in which 10 is the digit 0."""
    path = folder / f"{split}_32x32.mat"
    try:
        from scipy.io.matlab import MatReadError, loadmat
    except ImportError as error:
        raise UserError(
            "reading SVHN's files needs scipy; install it with: pip install 'xnorflow[train]'"
        ) from error
    try:
        with open(path, "rb") as file:
            content = loadmat(file)
        x, y = np.asarray(content["X"]), np.asarray(content["y"]).reshape(-1)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read the data set file {path}: {error.strerror}") from error
    except (*_DAMAGE, IndexError, MatReadError) as error:
        raise UserError(f"{path} is not a file of SVHN's cropped digits; fetch it again") from error
    if (
        x.dtype != np.uint8
        or x.shape[:3] != SVHN.image_shape
        or x.shape[3:] != y.shape
        or not len(y)
        or not np.isin(y, np.arange(1, 11)).all()
    ):
        raise UserError(f"{path} is not a file of SVHN's cropped digits; fetch it again")
    return Frames(np.ascontiguousarray(x.transpose(3, 0, 1, 2)), y.astype(np.int64) % 10)


def _load_idx(folder: Path, split: Split) -> Frames:
    part = "train" if split == "train" else "t10k"
    images_path = folder / f"{part}-images-idx3-ubyte.gz"
    images = read_idx(images_path)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if images.shape[1:] != (28, 28) or not len(images) or labels.shape != images.shape[:1]:
        raise UserError(
            f"{images_path} and its labels have shapes {images.shape} and {labels.shape}, "
            "not (N, 28, 28) and (N,); fetch both again"
        )
    if labels.max() > 9:
        raise UserError(
            f"the labels of {images_path} go up to {labels.max()}, not 9; fetch both again"
        )
    return Frames(images[..., np.newaxis], labels.astype(np.int64))


def _fetch(dataset: PublishedSet, name: str, md5: str) -> bytes:
    faults = []
    for base in dataset.mirrors:
        try:
            with urllib.request.urlopen(base + name, timeout=_DOWNLOAD_SECONDS) as reply:
                content: bytes = reply.read()
        except (OSError, urllib.error.URLError) as error:
            faults.append(f"{base}: {getattr(error, 'reason', error)}")
            continue
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
            return content
        faults.append(f"{base}: not the published file (MD5 differs)")
    raise WorkFailed(
        f"could not download {name} of {dataset.title} ({'; '.join(faults)}); "
        "fetch its files yourself and name their folder with `data_dir`"
    )


def _read_npz(file: IO[bytes], name: str) -> Frames:
    if not zipfile.is_zipfile(file):
        raise UserError(
            f"{name} is not an .npz file; write one with numpy.savez(path, x=..., y=...)"
        )
    file.seek(0)
    try:
        with np.load(file, allow_pickle=False) as archive:
            members = archive.files
            if "x" not in members:
                found = ", ".join(members) or "nothing"
                raise UserError(f"{name} has no array 'x' with the frames (it holds {found})")
            x = _member(archive, "x", name)
            y = _member(archive, "y", name) if "y" in members else None
    except _DAMAGE as error:
        raise UserError(f"{name} is a damaged .npz file; write it again") from error
    _check_frames(x, name)
    return Frames(x, None if y is None else check_labels(y, len(x), f"{name}: "))


def _member(archive: np.lib.npyio.NpzFile, key: str, name: str) -> NDArray:
    try:
        value = archive[key]
    except _DAMAGE as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{name}: '{key}' holds Python objects; save a plain array of numbers"
            ) from error
        raise UserError(f"{name}: '{key}' is damaged; write the file again") from error
    if not isinstance(value, np.ndarray):
        raise UserError(f"{name}: '{key}' is not an array; write it with numpy.savez")
    return value


def _check_frames(x: NDArray, name: str) -> None:
    if x.dtype != np.uint8 and x.dtype != np.float32:
        raise UserError(f"{name}: 'x' is {x.dtype}, but frames are uint8 or float32; convert it")
    if x.ndim not in (2, 4):
        raise UserError(
            f"{name}: 'x' has shape {x.shape}, but frames are (N, H, W, C) or (N, F); reshape it"
        )
    if not x.size:
        raise UserError(f"{name}: 'x' has shape {x.shape}, which holds no frames")
    if x.dtype == np.float32 and not np.isfinite(x).all():
        frame = int(np.argwhere(~np.isfinite(x))[0, 0])
        raise UserError(f"{name}: 'x' holds NaN or infinity, first in frame {frame}; clean it")


def check_labels(y: NDArray, frames: int, source: str = "") -> NDArray[np.int64]:
    """Return the labels of so many frames, or say what is wrong with them.

    Parameters
    ----------
    y : ndarray
    frames : int
    source : str
        What messages begin with, such as ``data.npz:`` and a space.

    Raises
    ------
    UserError
        `y` does not hold one integer of at least 0 for each frame.
    """
    if y.dtype.kind not in "iu":
        raise UserError(f"{source}'y' is {y.dtype}, but labels are integers; convert it")
    if y.shape != (frames,):
        raise UserError(
            f"{source}'y' has shape {y.shape}, but {frames} frames need labels of shape ({frames},)"
        )
    if y.min() < 0 or y.max() > np.iinfo(np.int64).max:
        raise UserError(f"{source}'y' holds labels below 0 or above 2^63; classes count from 0")
    return y.astype(np.int64)
