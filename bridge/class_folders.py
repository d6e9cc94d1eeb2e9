"""Evaluation sets in folders of pictures: one folder per class, or pictures without labels."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridge import wordnet
from bridge.batches import slices
from bridge.datum.export import MANIFEST
from bridge.datum.sources import list_files, some_names
from bridge.errors import DatasetError, DatumError
from bridge.facts import Labelled
from bridge.pictures import LAZY_BYTES, Pictures

_AT_ONCE = 256


def load_folder(
    path: str | os.PathLike[str], image_size: int, class_names: Sequence[str] | None = None, lazy: bool | None = None
) -> Labelled:
    """Images of a folder with one folder per class; or, without class folders, images without labels.

    What a picture goes through `bridge.pictures` says; images of exactly the size asked for stay untouched. Files that
    are no usable image are named in a warning and skipped: at once, or, of a set decoded while it is used, by who
    measures. A folder written by ``bridge.datum.export`` counts as images without labels.

    Folders named by WordNet ids (n01440764) may be some of the classes of a network: with the names of 1,000 classes
    in English, or with ids, every label is the class's number in the network. `check_classes` does the same later on.

    Args:
        path: the folder.
        image_size: side in pixels.
        class_names: the folders in the order of the labels; by default their names sorted.
        lazy: decode while the images are used; None: if they would take more than 1 GiB.

    Raises:
        DatasetError: no folder, no usable image, or other class folders than ``class_names``.
    """
    path = Path(path).expanduser()
    try:
        exported = files_of_export(path)
        folders = [] if exported else sub_folders(path)
        if not folders:
            names = list(class_names) if class_names else None
            return from_files(path, exported or list_files(path), None, image_size, names, lazy)
        names = _classes_of(path, folders, class_names)
        labelled = [(file, names.index(name)) for name in sorted(folders) for file in list_files(path / name)]
        labelled.sort(key=lambda pair: pair[1])
        loose = [entry.name for entry in sorted(path.iterdir()) if entry.is_file()]
    except (DatumError, OSError) as error:
        raise DatasetError(f"cannot read the folder {path}: {error}") from error
    if loose:
        warnings.warn(f"{path}: left out, being in no class folder: {some_names(loose)}", stacklevel=2)
    files, labels = [file for file, _ in labelled], np.array([label for _, label in labelled], np.int64)
    return from_files(path, files, labels, image_size, names, lazy)


def from_files(
    root: Path,
    files: list[Path],
    labels: np.ndarray | None,
    image_size: int,
    names: list[str] | None,
    lazy: bool | None = None,
) -> Labelled:
    """Pictures with their labels, decoded by several threads at once, or while they are used.

    Args:
        root: the folder that holds them.
        files, labels: the pictures and int64 [n].
        image_size: side in pixels.
        names: of the classes.
        lazy: as of `load_folder`.

    Raises:
        DatasetError: no usable image.
    """
    pictures, name = Pictures(files, image_size, root), root.resolve().name
    if not files:
        raise DatasetError(f"no usable image in {root}: expected images or class folders; found no files.")
    if pictures.nbytes > LAZY_BYTES if lazy is None else lazy:
        return Labelled(pictures, labels, names, name)
    try:
        images = np.empty(pictures.shape, np.uint8)
        for rows in slices(len(files), _AT_ONCE, "reading"):
            images[rows] = pictures[rows]
    except MemoryError as error:
        held = f"{len(files)} images at {image_size} px"
        raise DatasetError(f"{held} in {root} do not fit in memory: give fewer or smaller ones.") from error
    rows = readable_rows(Labelled(pictures, labels, names, name), stacklevel=4)
    if len(rows) < len(files):
        images, labels = images[rows], None if labels is None else labels[rows]
    return Labelled(images, labels, names, name)


def readable_rows(data: Labelled, stacklevel: int = 2) -> np.ndarray:
    """The rows that count, once all images have been asked for: those that could be decoded.

    A warning says how many of an evaluation set's files are no usable images, and names some.

    Args:
        data: in memory, where every row counts, or `Pictures`.
        stacklevel: of the warning.

    Returns:
        int64 [rows], sorted.

    Raises:
        DatasetError: none could be decoded.
    """
    images, all_rows = data.images, np.arange(len(data.images))
    if not isinstance(images, Pictures) or not (skipped := images.unreadable):
        return all_rows
    where = images.root or data.name
    if len(skipped) == len(images):
        raise DatasetError(
            f"no usable image in {where}: expected images or class folders; found {images.names(skipped)}. (Videos are "
            "read where the network takes clips, such as x3d_xs.)"
        )
    warnings.warn(
        f"{where}: skipped {len(skipped)} of {len(images)} files, no usable images: {images.names(skipped)}",
        stacklevel=stacklevel + 1,
    )
    return np.setdiff1d(all_rows, skipped)


def sub_folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted; without those that begin with a dot.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"cannot read the folder {path}: {error.strerror}; check it.") from error


def in_imagenet(names: Sequence[str], labels: np.ndarray, where: object) -> tuple[list[str], np.ndarray]:
    """Labels among some of ImageNet's classes as labels among all 1,000; with the ids of these.

    Raises:
        DatasetError: as `bridge.wordnet.class_numbers`.
    """
    numbers = wordnet.class_numbers(names, where)
    ids = sorted(names) if len(names) == wordnet.CLASSES else list(wordnet.imagenet_ids())
    _remark_on_missing(where, len(numbers), wordnet.CLASSES)
    return ids, np.array([numbers[name] for name in names], np.int64)[labels]


def _classes_of(path: Path, folders: list[str], class_names: Sequence[str] | None) -> list[str]:
    """All classes in the order of the labels; the folders may be some of them if they have WordNet ids."""
    if class_names is None:
        return folders
    names = list(class_names)
    if wordnet.are_ids(folders):
        if len(names) == wordnet.CLASSES and not wordnet.are_ids(names):
            return in_imagenet(folders, np.arange(len(folders)), path)[0]
        if wordnet.are_ids(names) and set(folders) < set(names) and len(set(names)) == len(names):
            _remark_on_missing(path, len(folders), len(names))
            return names
    _check_classes(path, folders, names)
    return names


def _remark_on_missing(where: object, found: int, classes: int) -> None:
    if found < classes:
        warnings.warn(f"{where} holds {found} of {classes} classes: results are of these alone", stacklevel=4)


def files_of_export(path: Path) -> list[Path]:
    """The files of a folder written by bridge.datum.export, whose numbered sub-folders are no classes; else none."""
    try:
        exported = json.loads((path / MANIFEST).read_bytes()).get("layout") == "folder"
    except (OSError, ValueError, AttributeError):
        return []
    return [file for file in list_files(path) if file.parent != path] if exported else []


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
