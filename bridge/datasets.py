"""Labelled evaluation data by name or from a path; no framework needed.

Images are held in memory as uint8, 10,000 of 32 pixels in 31 MB; sets of pictures that would take more than 1 GiB are
decoded while they are used, a slice ahead (`bridge.pictures`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bridge import cifar, layouts, npz, wordnet
from bridge.class_folders import from_files, in_imagenet, load_folder, readable_rows, sub_folders
from bridge.errors import DatasetError, TeacherError
from bridge.facts import FACTS, DatasetFacts, Labelled
from bridge.names import hint
from bridge.pictures import Pictures, fitted

if TYPE_CHECKING:
    from bridge.clips import LabelledVideos
    from bridge.sounds import LabelledSounds

__all__ = [
    "FACTS",
    "DatasetFacts",
    "Labelled",
    "check_classes",
    "data_folder",
    "joined",
    "load",
    "load_digits",
    "load_folder",
    "readable_rows",
    "splits_of",
    "thinned",
]

DATA_VARIABLE = "AIP_DATA"
DEFAULT_FOLDER = "data"
Fetch = Callable[[str, str], Labelled]
AnyLabelled = TypeVar("AnyLabelled", bound="Labelled | LabelledVideos | LabelledSounds")
_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def load(
    name_or_path: str | os.PathLike[str],
    split: str = "test",
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    lazy: bool | None = None,
    fetch: Fetch | None = None,
) -> Labelled:
    """Load an evaluation set: a name in ``FACTS``, a folder, an archive of CIFAR, or an ``.npz``.

    CIFAR by name is looked for in the data folder: an ``.npz`` of that name, the authors' archives or the folders out
    of them (`bridge.cifar.sought`). Its training part has 50,000 images: the first 45,000 in file order are
    ``train``, the last 5,000 ``validation`` (ours). Sets of pictures are found as their authors' archives unpack, or
    as folders of classes (`bridge.layouts`, which also says what is held out of them for validation).

    A folder whose only sub-folders are called train, validation (or val) and test holds one set per split,
    and ``split`` chooses; any other folder is one set whatever ``split`` says. An ``.npz`` is either one set
    (``images`` uint8 [n, h, w, 3] or [n, h, w] and, if known, ``labels`` integers [n], ``class_names``), or holds
    ``x_train, y_train, x_test, y_test`` as Keras lays them out; then ``validation`` is the last tenth of the training
    part and ``train`` the rest.

    Args:
        name_or_path: a name in ``FACTS``, or a path.
        split: ``train``, ``validation`` or ``test``.
        image_size: side in pixels of the images returned; needed for a folder, else that of ``FACTS`` or as stored.
        class_names: those of the model to be measured, in its order: class folders are matched to them by name, those
            with WordNet ids also to 1,000 names in English (`load_folder`).
        data_dir: the data folder; None: ``$AIP_DATA``, or ``./data``.
        lazy: decode pictures while they are used; None: if they would take more than 1 GiB. To train on pictures, True:
            crops are then cut from them in full size.
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
        facts, folder = FACTS[name_or_path], data_folder(data_dir)
        if facts.name in layouts.LAYOUTS:
            return _load_pictures(facts, split, image_size or facts.image_size, folder, lazy)
        return _load_named(facts, split, image_size, folder, fetch)
    path = Path(name_or_path).expanduser()
    if layout := cifar.layout_of(path):
        images, labels = cifar.read(path, _part_of(split))
        return _cut(npz.Stored(images, labels, FACTS[layout.name].names), layout.name, split, image_size)
    if path.is_dir():
        if image_size is None:
            raise DatasetError(f"{path} is a folder, whose images may have any size: say image_size.")
        return load_folder(_split_folder(path, split), image_size, class_names, lazy)
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
    """At most so many of the images, evenly spaced: sets ordered by class keep all of theirs. Decodes none."""
    if len(labelled.images) <= count:
        return labelled
    rows = np.linspace(0, len(labelled.images) - 1, count).astype(np.int64)
    labels = None if labelled.labels is None else labelled.labels[rows]
    return replace(labelled, images=labelled.images.take(rows, axis=0), labels=labels)


def joined(parts: Sequence[Labelled]) -> Labelled:
    """Several parts of one set, which has labels, as one that is named after the first; undecoded if all are."""
    images, labels = [part.images for part in parts], [part.labels for part in parts if part.labels is not None]
    if len(parts) == 1:
        return parts[0]
    pictures = [part for part in images if isinstance(part, Pictures)]
    if len(pictures) == len(images):
        together = Pictures([file for part in pictures for file in part.files], pictures[0].size)
    else:
        together = np.concatenate([np.asarray(part) for part in images])
    return replace(parts[0], images=together, labels=np.concatenate(labels))


def check_classes(data: AnyLabelled, classes: int, class_names: Sequence[str] | None = None) -> AnyLabelled:
    """Refuse labels that mean nothing to a model; those of ImageNet's ids become its numbers.

    Args:
        data: images, videos or sounds, with or without labels.
        classes: of the model.
        class_names: of the model, if known.

    Returns:
        What the model is measured on: the same; or, of some of ImageNet's classes by their WordNet ids and for a model
        of all 1,000, the same images with the labels of that model.

    Raises:
        DatasetError: there are WordNet ids that are none of ImageNet's 1,000 classes.
        TeacherError: naming both sides.
    """
    if data.labels is None:
        return data
    by_id = wordnet.are_ids(data.class_names) and classes == wordnet.CLASSES and not wordnet.are_ids(class_names)
    if by_id and len(data.class_names or ()) != classes:
        names, labels = in_imagenet(data.class_names or (), data.labels, data.name)
        return replace(data, class_names=names, labels=labels, classes=classes)
    known = len(data.class_names or ()) or data.classes
    found = max(known or 0, int(data.labels.max()) + 1)
    if found > classes or (known and found != classes):
        raise TeacherError(
            f"{data.name} has {found} classes, the model answers with {classes}. Evaluate on the data the teacher was "
            "made for, or on a folder without class folders for agreement alone."
        )
    # Names in English and ids are not compared: several classes of ImageNet have the same name.
    if class_names and data.class_names and not by_id and list(class_names) != list(data.class_names):
        differ = next(k for k, pair in enumerate(zip(class_names, data.class_names)) if pair[0] != pair[1])
        raise TeacherError(
            f"Class {differ} is {data.class_names[differ]!r} in {data.name} and {class_names[differ]!r} for the model; "
            "the same names in the same order are needed."
        )
    return data


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
        class_names=facts.names,
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
        stored, where = npz.Stored(np.asarray(fetched.images), fetched.labels, None), fetched.name
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
    return _cut(stored._replace(class_names=facts.names), facts.name, split, image_size)


def _load_pictures(facts: DatasetFacts, split: str, image_size: int, folder: Path, lazy: bool | None) -> Labelled:
    """A set whose pictures lie in files, out of the data folder."""
    listing = layouts.find(facts.name, folder, split)
    if listing is None:
        raise DatasetError(
            f"{facts.name} was not found: looked {layouts.sought(facts.name, folder)}. Nothing is downloaded: get it "
            f"from {facts.source} and unpack it there, or say where it is: --data-dir FOLDER, ${DATA_VARIABLE}, or "
            "--dataset PATH."
        )
    labels, names = listing.labels, listing.class_names or facts.names
    if len(labels) == 0:
        raise DatasetError(f"no usable image in {listing.root}: expected those of {facts.name}; found none.")
    if names is not None and len(names) != facts.classes and facts.name == "in1k" and wordnet.are_ids(names):
        names, labels = in_imagenet(names, labels, listing.root)
    if (names is not None and len(names) != facts.classes) or not 0 <= labels.min() <= labels.max() < facts.classes:
        found = f"{len(names)} classes" if names else f"labels from {labels.min()} to {labels.max()}"
        raise DatasetError(f"{listing.root} is not {facts.name}: it has {found}; expected {facts.classes} classes.")
    expected = facts.splits[split]
    if expected is not None and len(labels) != expected:
        counts = f"{len(labels):,} images in its {split} split, {facts.name} has {expected:,}"
        warnings.warn(f"{listing.root} has {counts}: results are not those of {facts.name}", stacklevel=3)
    name = facts.name if split == "test" else f"{facts.name}/{split}"
    if isinstance(listing.files, np.ndarray):
        loaded = Labelled(_resized(listing.files, image_size), labels, names, name)
    else:
        loaded = from_files(listing.root, listing.files, labels, image_size, names, lazy)
    return replace(loaded, name=name, classes=facts.classes)


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
    return np.stack([fitted(image, image_size) for image in images])


def _split_folder(path: Path, split: str) -> Path:
    folders = set(sub_folders(path))
    if not folders or not folders <= {name for names in _SPLIT_NAMES.values() for name in names}:
        return path
    for name in _SPLIT_NAMES[split]:
        if name in folders:
            return path / name
    raise DatasetError(f"{path} has no split {split!r}: expected one of {', '.join(sorted(folders))}.")
