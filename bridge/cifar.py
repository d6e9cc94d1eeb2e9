"""CIFAR-10 and CIFAR-100 as their authors distribute them; no framework, and nothing in a file is executed."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bridge.errors import DatasetError
from bridge.facts import FACTS

SIZES = {"train": 50_000, "test": 10_000}
"""Images in the two parts, of CIFAR-10 and CIFAR-100 alike."""
_SIDE = 32
_PIXELS = 3 * _SIDE**2
_AGAIN = "Download it again from the CIFAR page (cs.toronto.edu/~kriz)."


@dataclass(frozen=True)
class Layout:
    """One of the four forms in which the authors give the data.

    Attributes:
        name: the data set, a key of `FACTS`.
        archive: the file to be downloaded.
        folder: what lies in it.
        parts: ``train`` and ``test`` → the files in the folder, in the order of the images.
        label_bytes: bytes before an image's pixels, of which the last is the (fine) label; 0: the files are pickles.
    """

    name: str
    archive: str
    folder: str
    parts: Mapping[str, Sequence[str]]
    label_bytes: int

    @property
    def files(self) -> list[str]:
        """The files of both parts."""
        return [file for files in self.parts.values() for file in files]


def _cifar10(archive: str, folder: str, suffix: str, label_bytes: int) -> Layout:
    batches = [f"data_batch_{number}{suffix}" for number in range(1, 6)]
    return Layout("cifar10", archive, folder, {"train": batches, "test": [f"test_batch{suffix}"]}, label_bytes)


def _cifar100(archive: str, folder: str, suffix: str, label_bytes: int) -> Layout:
    parts = {"train": [f"train{suffix}"], "test": [f"test{suffix}"]}
    return Layout("cifar100", archive, folder, parts, label_bytes)


LAYOUTS = (
    _cifar10("cifar-10-python.tar.gz", "cifar-10-batches-py", "", 0),
    _cifar10("cifar-10-binary.tar.gz", "cifar-10-batches-bin", ".bin", 1),
    _cifar100("cifar-100-python.tar.gz", "cifar-100-python", "", 0),
    _cifar100("cifar-100-binary.tar.gz", "cifar-100-binary", ".bin", 2),
)


def sought(name: str) -> list[str]:
    """Names under which a data set may lie in a data folder, best first: an ``.npz``, folders, archives."""
    layouts = [layout for layout in LAYOUTS if layout.name == name]
    return [f"{name}.npz", *(layout.folder for layout in layouts), *(layout.archive for layout in layouts)]


def find(name: str, folder: Path) -> Path | None:
    """The first of `sought` that is there, in the data folder or one level down in a folder named as the data set."""
    places = [place / entry for place in (folder, folder / name) for entry in sought(name)]
    return next((path for path in places if path.exists()), None)


def layout_of(path: Path) -> Layout | None:
    """In which form a file or folder holds CIFAR; None where it is something else.

    Known by its original name, or a folder by holding all files of a form, or an archive by what it begins with.
    """
    for layout in LAYOUTS:
        if (path.is_dir() and path.name == layout.folder) or (path.is_file() and path.name == layout.archive):
            return layout
        if path.is_dir() and all((path / file).is_file() for file in layout.files):
            return layout
    if path.is_file() and path.name.endswith((".tar", ".tar.gz", ".tgz")):
        try:
            with tarfile.open(path) as archive:
                inside = {part for member in islice(archive, 10) for part in PurePosixPath(member.name).parts}
        except (tarfile.TarError, EOFError, zlib.error, OSError):
            return None
        return next((layout for layout in LAYOUTS if layout.folder in inside), None)
    return None


def read(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the training or the test part from an archive or an extracted folder.

    Args:
        path: what `layout_of` knows.
        part: ``train`` or ``test``.

    Returns:
        Images uint8 [n, 32, 32, 3] and labels int64 [n] (of CIFAR-100 the fine ones), in the order of the files.

    Raises:
        DatasetError: a file is missing, damaged, of the wrong size or holds anything but images and labels.
    """
    layout = layout_of(path)
    if layout is None:
        raise DatasetError(f"{path} is no CIFAR archive and no folder out of one.")
    files, classes = layout.parts[part], FACTS[layout.name].classes
    count = SIZES[part] // len(files)
    images = np.empty((SIZES[part], _SIDE, _SIDE, 3), np.uint8)
    labels = np.empty(SIZES[part], np.int64)
    missing = set(files)
    for file, content in _contents(path, layout, files, count):
        where = f"{file} in {path}"
        planes, found = _decoded(content, layout, count, where)
        if found.min() < 0 or found.max() >= classes:
            expected = f"{layout.name} has 0 to {classes - 1}"
            raise DatasetError(f"{where} has labels from {found.min()} to {found.max()}; {expected}. {_AGAIN}")
        rows = slice(files.index(file) * count, (files.index(file) + 1) * count)
        images[rows] = planes.reshape(count, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        labels[rows] = found
        missing.discard(file)
    if missing:
        expected = f"expected {', '.join(layout.files)} in {layout.folder}"
        raise DatasetError(f"{path} lacks {', '.join(sorted(missing))}: {expected}. {_AGAIN}")
    return images, labels


def _contents(path: Path, layout: Layout, files: Sequence[str], count: int) -> Iterator[tuple[str, bytes]]:
    """The files wanted, whole, in the order they come in; those that are missing are left out."""
    try:
        if path.is_dir():
            for file in files:
                if (path / file).is_file():
                    _check_size((path / file).stat().st_size, layout, count, f"{file} in {path}")
                    yield file, (path / file).read_bytes()
            return
        with tarfile.open(path) as archive:
            left = set(files)
            for member in archive:
                folder, file = ("", *PurePosixPath(member.name).parts)[-2:]
                if folder == layout.folder and file in left and member.isreg():
                    _check_size(member.size, layout, count, f"{file} in {path}")
                    stream = archive.extractfile(member)
                    assert stream is not None
                    yield file, stream.read()
                    left.discard(file)
                if not left:
                    return
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        first = str(error).partition("\n")[0].rstrip(":")
        raise DatasetError(f"{path} cannot be read ({first}): damaged or only partly there. {_AGAIN}") from error


def _check_size(size: int, layout: Layout, count: int, where: str) -> None:
    exact = count * (layout.label_bytes + _PIXELS)
    # Beside the pixels, a pickle holds labels and file names; far more than that is something else, not read at all.
    fits = size == exact if layout.label_bytes else exact < size < 2 * exact + 2**16
    if not fits:
        expected = f"{exact:,}" if layout.label_bytes else f"a little over {exact:,}"
        raise DatasetError(f"{where} has {size:,} bytes, expected {expected}. {_AGAIN}")


def _decoded(content: bytes, layout: Layout, count: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [count, 3072] (planes of red, green, blue) and labels int64 [count]."""
    if layout.label_bytes:
        records = np.frombuffer(content, np.uint8).reshape(count, layout.label_bytes + _PIXELS)
        return records[:, layout.label_bytes :], records[:, layout.label_bytes - 1].astype(np.int64)
    batch = _unpickled(content, where)
    labels_key = "fine_labels" if layout.name == "cifar100" else "labels"
    held = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    data, labels = held.get("data"), held.get(labels_key)
    pixels = data.pixels if isinstance(data, _Array) else None
    if pixels is None or pixels.shape != (count, _PIXELS):
        found = "no data" if pixels is None else f"data of shape {list(pixels.shape)}"
        raise DatasetError(f"{where} has {found}, expected [{count}, {_PIXELS}]. {_AGAIN}")
    if not isinstance(labels, list) or len(labels) != count or any(type(label) is not int for label in labels):
        raise DatasetError(f"{where} has no {labels_key} for its {count:,} images. {_AGAIN}")
    try:
        return pixels, np.array(labels, np.int64)
    except OverflowError as error:
        raise DatasetError(f"{where} has labels of more than 64 bits. {_AGAIN}") from error


# What a batch names stands for these classes. Each has a __setstate__, without which a pickle could write to the class.
class _Dtype:
    """In place of `numpy.dtype`: only remembers which type was asked for."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order and fields: single bytes have none."""


class _Array:
    """In place of `numpy.ndarray` and what reconstructs it: made only of plain bytes, whatever the file says."""

    pixels: np.ndarray | None = None

    def __init__(self, *_: Any) -> None:
        """Whatever the file says of type and size comes again in the state."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", "|u1", "uint8"):
            raise ValueError(f"an array of {getattr(dtype, 'code', dtype)!r} where bytes were expected")
        self.pixels = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Latin1(bytes):
    """In place of `_codecs.encode`, by which Python 3 writes bytes in Python 2's format."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> _Latin1:
        if encoding != "latin1":
            raise ValueError(f"text in {encoding!r}")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: Any) -> None:
        """Nothing beside the bytes."""


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Latin1,
}


class _Unpickler(pickle._Unpickler):
    """Builds dictionaries, lists, numbers, text and byte arrays; whatever else a file names is refused.

    By Python's own implementation: the one in C takes as much memory as a damaged file tells it to.
    """

    def __init__(self, content: bytes, where: str) -> None:
        # As bytes: Python 2 wrote the pixels as text.
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise DatasetError(
                f"{self._where} is refused: it names {module}.{name}, which is no part of images and labels. It is not "
                f"the authors' file; nothing in it was run. {_AGAIN}"
            )
        return _STAND_INS[module, name]


def _unpickled(content: bytes, where: str) -> dict[Any, Any]:
    try:
        batch = _Unpickler(content, where).load()
    except DatasetError:
        raise
    # A damaged pickle raises anything, from UnpicklingError and EOFError to IndexError and MemoryError.
    except Exception as error:
        raise DatasetError(f"{where} cannot be read ({type(error).__name__}: {error}). {_AGAIN}") from error
    if not isinstance(batch, dict):
        expected = "expected a dictionary of images and labels"
        raise DatasetError(f"{where} holds a {type(batch).__name__}, {expected}. {_AGAIN}")
    return batch
