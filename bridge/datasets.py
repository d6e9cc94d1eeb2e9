"""Labelled evaluation data by name or from a path; no framework needed.

Everything is held in memory as uint8: 10,000 images take 31 MB at 32 px and 1.5 GB at 224 px.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bridge import cifar, npz
from bridge.datum.export import MANIFEST
from bridge.datum.sources import list_files, read_image, some_names
from bridge.errors import DatasetError, DatumError, TeacherError
from bridge.facts import FACTS, DatasetFacts, Labelled
from bridge.names import hint

__all__ = [
    "FACTS",
    "DatasetFacts",
    "Labelled",
    "check_classes",
    "data_folder",
    "load",
    "load_digits",
    "load_folder",
    "splits_of",
    "thinned",
]

DATA_VARIABLE = "AIP_DATA"
DEFAULT_FOLDER = "data"
Fetch = Callable[[str, str], Labelled]
_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def load(
    name_or_path: str | os.PathLike[str],
    split: str = "test",
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    fetch: Fetch | None = None,
) -> Labelled:
    """Load an evaluation set: ``digits``, ``cifar10``, ``cifar100``, a folder, an archive of CIFAR, or an ``.npz``.

    CIFAR by name is looked for in the data folder: an ``.npz`` of that name, the authors' archives or the folders out
    of them (`bridge.cifar.sought`). Its training part has 50,000 images: the first 45,000 in file order are
    ``train``, the last 5,000 ``validation`` (ours).

    A folder whose only sub-folders are called train, validation (or val) and test holds one set per split,
    and ``split`` chooses; any other folder is one set whatever ``split`` says. An ``.npz`` is either one set
    (``images`` uint8 [n, h, w, 3] or [n, h, w] and, if known, ``labels`` integers [n], ``class_names``), or holds
    ``x_train, y_train, x_test, y_test`` as Keras lays them out; then ``validation`` is the last tenth of the training
    part and ``train`` the rest.

    Args:
        name_or_path: a name in ``FACTS``, or a path.
        split: ``train``, ``validation`` or ``test``.
        image_size: side in pixels of the images returned; needed for a folder, else as stored (digits: 32).
        class_names: those of the model to be measured, in its order: class folders are matched to them by name.
        data_dir: the data folder; None: ``$AIP_DATA``, or ``./data``.
        fetch: where else to get a named set that is not in the data folder: called with its name and the part,
            ``train`` (50,000) or ``test``, it gives the whole part in file order, or raises a DatasetError.

    Raises:
        DatasetError: the set is unknown, missing, damaged or not of the kind described here.
    """
    if split not in _SPLIT_NAMES:
        raise DatasetError(f"split is {split!r}: expected one of {', '.join(_SPLIT_NAMES)}.")
    if image_size is not None and image_size < 1:
        raise DatasetError(f"image_size is {image_size}: expected 1 or more pixels.")
    if isinstance(name_or_path, str) and name_or_path in FACTS:
        if name_or_path == "digits":
            return load_digits(split, image_size or FACTS["digits"].image_size)
        return _load_named(FACTS[name_or_path], split, image_size, data_folder(data_dir), fetch)
    path = Path(name_or_path).expanduser()
    if layout := cifar.layout_of(path):
        images, labels = cifar.read(path, _part_of(split))
        return _cut(npz.Stored(images, labels, list(FACTS[layout.name].class_names)), layout.name, split, image_size)
    if path.is_dir():
        if image_size is None:
            raise DatasetError(f"{path} is a folder, whose images may have any size: say image_size.")
        return load_folder(_split_folder(path, split), image_size, class_names)
    if path.suffix == ".npz" and path.is_file():
        if npz.has_parts(path):
            return _cut(npz.read(path, _part_of(split)), path.stem, split, image_size)
        images, labels, names = npz.read(path)
        return Labelled(_resized(images, image_size), labels, names, path.stem)
    raise DatasetError(
        f"no evaluation set {str(name_or_path)!r}: expected one of {', '.join(FACTS)}, an existing folder, CIFAR "
        f"archive or .npz file.{hint(str(name_or_path), FACTS)}"
    )


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder in which named sets are looked for: the one given, ``$AIP_DATA``, or ``./data``."""
    return Path(data_dir or os.environ.get(DATA_VARIABLE) or DEFAULT_FOLDER).expanduser()


def splits_of(name_or_path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits of a named set, of an archive of CIFAR or of an ``.npz`` with parts; none for anything else.

    Raises:
        DatasetError: an ``.npz`` is damaged.
    """
    if isinstance(name_or_path, str) and name_or_path in FACTS:
        return tuple(FACTS[name_or_path].splits)
    path = Path(name_or_path).expanduser()
    in_parts = cifar.layout_of(path) or (path.suffix == ".npz" and path.is_file() and npz.has_parts(path))
    return tuple(_SPLIT_NAMES) if in_parts else ()


def thinned(labelled: Labelled, count: int) -> Labelled:
    """At most so many of the images, evenly spaced, so that sets ordered by class keep all of theirs."""
    if len(labelled.images) <= count:
        return labelled
    rows = np.linspace(0, len(labelled.images) - 1, count).astype(np.int64)
    labels = None if labelled.labels is None else labelled.labels[rows]
    return replace(labelled, images=labelled.images[rows], labels=labels)


def check_classes(data: Labelled, classes: int, class_names: Sequence[str] | None = None) -> None:
    """Refuse labels that mean nothing to a model.

    Args:
        data: with or without labels.
        classes: of the model.
        class_names: of the model, if known.

    Raises:
        TeacherError: naming both sides.
    """
    if data.labels is None:
        return
    found = max(len(data.class_names or ()), int(data.labels.max()) + 1)
    if found > classes or (data.class_names and found != classes):
        raise TeacherError(
            f"{data.name} has {found} classes, the model answers with {classes}. Evaluate on the data the teacher was "
            "made for, or on a folder without class folders for agreement alone."
        )
    if class_names and data.class_names and list(class_names) != list(data.class_names):
        differ = next(k for k, pair in enumerate(zip(class_names, data.class_names)) if pair[0] != pair[1])
        raise TeacherError(
            f"Class {differ} is {data.class_names[differ]!r} in {data.name} and {class_names[differ]!r} for the model; "
            "the same names in the same order are needed."
        )


def load_digits(split: str, image_size: int = 32) -> Labelled:
    """Scikit-learn's handwritten digits, 8 x 8 pixels resized bilinearly, grey repeated to three channels.

    They come ordered by writer (13 writers, borders unknown). The splits are contiguous blocks, first 1,000
    to train, next 297 to validate, last 500 to test: at most one writer straddles each of the two borders.

    Raises:
        DatasetError: an unknown split, or scikit-learn is not installed.
    """
    facts = FACTS["digits"]
    if split not in facts.splits:
        raise DatasetError(f"split is {split!r}: digits have {', '.join(facts.splits)}.")
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise DatasetError("digits come with scikit-learn, not installed: pip install scikit-learn") from error
    import cv2

    # Ordered by writer, so the splits are contiguous blocks.
    start = sum(list(facts.splits.values())[: list(facts.splits).index(split)])
    block = slice(start, start + facts.splits[split])
    digits: Any = sklearn_digits()
    small = np.rint(digits.images[block] * (255 / 16)).astype(np.uint8)
    # The exact variant gives the same bits with every OpenCV and on every machine.
    size = (image_size, image_size)
    grey = np.stack([cv2.resize(digit, size, interpolation=cv2.INTER_LINEAR_EXACT) for digit in small])
    return Labelled(
        images=np.repeat(grey[..., None], 3, axis=3),
        labels=digits.target[block].astype(np.int64),
        class_names=list(facts.class_names),
        name="digits" if split == "test" else f"digits/{split}",
    )


def _load_named(facts: DatasetFacts, split: str, image_size: int | None, folder: Path, fetch: Fetch | None) -> Labelled:
    """CIFAR from the data folder or, if it is not there, from what the backend has."""
    part, path = _part_of(split), cifar.find(facts.name, folder)
    if path is None:
        sought = f"looked in {folder} and {folder / facts.name} for {', '.join(cifar.sought(facts.name))}"
        failed = f"{facts.name} was not found: {sought}."
        mend = (
            "Put one of these there (the archives are on the CIFAR page, cs.toronto.edu/~kriz), or say where it is: "
            f"--data-dir FOLDER, ${DATA_VARIABLE}, or --dataset PATH."
        )
        if fetch is None:
            raise DatasetError(f"{failed} {mend}")
        try:
            fetched = fetch(facts.name, part)
        except DatasetError as error:
            raise DatasetError(f"{failed} {error} {mend}") from error
        stored, where = npz.Stored(fetched.images, fetched.labels, None), fetched.name
    elif path.suffix == ".npz":
        stored, where = npz.read(path, part), str(path)
    else:
        stored, where = npz.Stored(*cifar.read(path, part), None), str(path)
    images, labels, _ = stored
    side = (facts.image_size, facts.image_size, facts.channels)
    if labels is None or images.shape[1:] != side or labels.min() < 0 or labels.max() >= facts.classes:
        found = "no labels" if labels is None else f"labels from {labels.min()} to {labels.max()}"
        raise DatasetError(
            f"{where} is not {facts.name}: its images have shape {list(images.shape[1:])} and it has {found}; expected "
            f"{list(side)} and labels from 0 to {facts.classes - 1}."
        )
    if len(images) != cifar.SIZES[part]:
        counts = f"{len(images):,} images in its {part} part, {facts.name} has {cifar.SIZES[part]:,}"
        warnings.warn(f"{where} has {counts}: results are not those of {facts.name}", stacklevel=3)
    return _cut(stored._replace(class_names=list(facts.class_names)), facts.name, split, image_size)


def _part_of(split: str) -> str:
    return "test" if split == "test" else "train"


def _cut(part: npz.Stored, name: str, split: str, image_size: int | None) -> Labelled:
    """The split asked for, out of the part that holds it: the last tenth of the training part is for validation."""
    images, labels, names = part
    assert labels is not None
    border = len(images) - max(1, len(images) // 10)
    rows = {"train": slice(0, border), "validation": slice(border, None), "test": slice(None)}[split]
    if len(images[rows]) == 0:
        raise DatasetError(f"{name} has a training part of {len(images)} image, too few to hold some out.")
    # A copy of the small slice, so that the whole part need not stay in memory for it.
    chosen = images[rows].copy() if split == "validation" else images[rows]
    return Labelled(
        images=_resized(chosen, image_size),
        labels=labels[rows],
        class_names=names,
        name=name if split == "test" else f"{name}/{split}",
    )


def _resized(images: np.ndarray, image_size: int | None) -> np.ndarray:
    if image_size is None or images.shape[1:3] == (image_size, image_size):
        return images
    return np.stack([_fit(image, image_size) for image in images])


def load_folder(path: str | os.PathLike[str], image_size: int, class_names: Sequence[str] | None = None) -> Labelled:
    """Images of a folder with one folder per class; or, without class folders, images without labels.

    The short side is resized to ``image_size`` (bilinear, antialiased) and the centre cropped; images of
    exactly that size stay untouched. Files that are no usable image are named in a warning and skipped. A
    folder written by ``bridge.datum.export`` counts as images without labels.

    Args:
        path: the folder.
        image_size: side in pixels.
        class_names: the folders in the order of the labels; by default their names sorted.

    Raises:
        DatasetError: no folder, no usable image, or other class folders than ``class_names``.
    """
    path = Path(path).expanduser()
    try:
        folders = [] if _is_export(path) else _sub_folders(path)
        if not folders:
            return _read_all(path, list_files(path), None, image_size, list(class_names) if class_names else None)
        names = folders if class_names is None else list(class_names)
        _check_classes(path, folders, names)
        labelled = [(file, label) for label, name in enumerate(names) for file in list_files(path / name)]
        loose = [entry.name for entry in sorted(path.iterdir()) if entry.is_file()]
    except (DatumError, OSError) as error:
        raise DatasetError(f"cannot read the folder {path}: {error}") from error
    if loose:
        warnings.warn(f"{path}: left out, being in no class folder: {some_names(loose)}", stacklevel=2)
    files, labels = [file for file, _ in labelled], [label for _, label in labelled]
    return _read_all(path, files, labels, image_size, names)


def _sub_folders(path: Path) -> list[str]:
    try:
        return sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"cannot read the folder {path}: {error.strerror}; check it.") from error


def _is_export(path: Path) -> bool:
    """Whether the folder was written by bridge.datum.export, whose numbered sub-folders are no classes."""
    try:
        return json.loads((path / MANIFEST).read_bytes()).get("layout") == "folder"
    except (OSError, ValueError, AttributeError):
        return False


def _split_folder(path: Path, split: str) -> Path:
    folders = set(_sub_folders(path))
    if not folders or not folders <= {name for names in _SPLIT_NAMES.values() for name in names}:
        return path
    for name in _SPLIT_NAMES[split]:
        if name in folders:
            return path / name
    raise DatasetError(f"{path} has no split {split!r}: expected one of {', '.join(sorted(folders))}.")


def _check_classes(path: Path, folders: list[str], names: list[str]) -> None:
    missing, extra = sorted(set(names) - set(folders)), sorted(set(folders) - set(names))
    if len(set(names)) != len(names):
        raise DatasetError(f"class_names holds a name twice: {names}; expected each class once.")
    if missing or extra:
        raise DatasetError(
            f"the folders in {path} are not the classes given. Classes without a folder: "
            f"{some_names(missing) or 'none'}; folders without a class: {some_names(extra) or 'none'}. "
            "Expected one folder per class: rename, add or remove the folders or the classes."
        )


def _read_all(
    path: Path, files: list[Path], labels: list[int] | None, image_size: int, names: list[str] | None
) -> Labelled:
    try:
        images = np.empty((len(files), image_size, image_size, 3), np.uint8)
    except MemoryError as error:
        held = f"{len(files)} images at {image_size} px"
        raise DatasetError(f"{held} in {path} do not fit in memory: give fewer or smaller ones.") from error
    kept, skipped = [], []
    for position, file in enumerate(files):
        try:
            images[len(kept)] = _fit(read_image(file), image_size)
            kept.append(position)
        except DatumError:
            skipped.append(file.relative_to(path).as_posix())
    if not kept:
        found = some_names(skipped) or "no files"
        raise DatasetError(f"no usable image in {path}: expected images or class folders; found {found}.")
    if skipped:
        count = f"{len(skipped)} of {len(files)} files"
        warnings.warn(f"{path}: skipped {count}, no usable images: {some_names(skipped)}", stacklevel=3)
    return Labelled(
        images=images[: len(kept)],
        labels=None if labels is None else np.array([labels[position] for position in kept], np.int64),
        class_names=None if names is None else list(names),
        name=path.resolve().name,
    )


def _fit(image: np.ndarray, size: int) -> np.ndarray:
    """The centre square of an image, resized; uint8 [h, w, 3] to uint8 [size, size, 3]."""
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    if short == size:
        return image[top : top + size, left : left + size]
    # Cropping and resizing in one go: a long strip would fill the memory if it were resized first.
    box = (left, top, left + short, top + short)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))
