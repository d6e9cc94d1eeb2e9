"""Labelled evaluation data, and the facts of every evaluation set; no framework needed.

Everything is held in memory as uint8: 10,000 images take 31 MB at 32 px and 1.5 GB at 224 px.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bridge.datum.export import MANIFEST
from bridge.datum.sources import list_files, read_image, some_names
from bridge.errors import DatasetError, DatumError
from bridge.names import hint

_CIFAR_SPLITS = {"train": 50_000, "test": 10_000}
_CIFAR_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CIFAR_LICENCE = "none stated by its authors"
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
# The digits come ordered by writer, so the splits are contiguous blocks.
_DIGITS_BLOCKS = {"train": (0, 1000), "validation": (1000, 1297), "test": (1297, 1797)}


@dataclass(frozen=True)
class DatasetFacts:
    """What a model for an evaluation set has to know.

    Attributes:
        name: how the set is asked for.
        classes: number of classes.
        image_size: side in pixels when shown to a network.
        channels: always 3; grey sets are repeated.
        mean, std: per channel, red first, of pixels in [0, 1]; over the training split.
        splits: images per split.
        class_names: in the order of the labels.
        source, licence: where the set comes from.
    """

    name: str
    classes: int
    image_size: int
    channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    splits: dict[str, int]
    class_names: tuple[str, ...]
    source: str
    licence: str


FACTS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(
        name="digits",
        classes=10,
        image_size=32,
        channels=3,
        mean=(0.3071, 0.3071, 0.3071),
        std=(0.3241, 0.3241, 0.3241),
        splits={split: stop - start for split, (start, stop) in _DIGITS_BLOCKS.items()},
        class_names=tuple("0123456789"),
        source="scikit-learn load_digits, the test part of UCI Optical Recognition of Handwritten Digits",
        licence="CC BY 4.0",
    ),
    "cifar10": DatasetFacts(
        name="cifar10",
        classes=10,
        image_size=32,
        channels=3,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        splits=_CIFAR_SPLITS,
        class_names=tuple(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]),
        source=_CIFAR_SOURCE,
        licence=_CIFAR_LICENCE,
    ),
    "cifar100": DatasetFacts(
        name="cifar100",
        classes=100,
        image_size=32,
        channels=3,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        splits=_CIFAR_SPLITS,
        class_names=tuple(_CIFAR100_CLASSES.split()),
        source=_CIFAR_SOURCE,
        licence=_CIFAR_LICENCE,
    ),
}


@dataclass
class Labelled:
    """Images with their labels, in memory.

    Attributes:
        images: uint8 [n, h, w, 3] RGB in 0..255.
        labels: int64 [n], or None if there are none: then only agreement with a teacher can be measured.
        class_names: in the order of the labels, if known.
        name: the evaluation set, for reports.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str] | None
    name: str


def load(
    name_or_path: str | os.PathLike[str],
    split: str = "test",
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Labelled:
    """Load an evaluation set: ``digits``, a folder, or an ``.npz`` file.

    A folder whose only sub-folders are called train, validation (or val) and test holds one set per split,
    and ``split`` chooses; any other folder, and an ``.npz``, is one set whatever ``split`` says. An ``.npz``
    holds ``images`` uint8 [n, h, w, 3] or [n, h, w] and, if known, ``labels`` integers [n], ``class_names``.

    Args:
        name_or_path: a name in ``FACTS``, or a path.
        split: ``train``, ``validation`` or ``test``.
        image_size: side in pixels of the images returned; needed for a folder, else as stored (digits: 32).
        class_names: those of the model to be measured, in its order: class folders are matched to them by name.

    Raises:
        DatasetError: the set is unknown, missing, damaged or not of the kind described here.
    """
    if split not in _SPLIT_NAMES:
        raise DatasetError(f"split is {split!r}: expected one of {', '.join(_SPLIT_NAMES)}.")
    if image_size is not None and image_size < 1:
        raise DatasetError(f"image_size is {image_size}: expected 1 or more pixels.")
    if name_or_path == "digits":
        return load_digits(split, image_size or FACTS["digits"].image_size)
    if isinstance(name_or_path, str) and name_or_path in FACTS:
        mend = f"a path (./{name_or_path}) to a folder with one folder per class, or to an .npz file"
        raise DatasetError(f"{name_or_path} is not read by name yet: give {mend} with images and labels.")
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if image_size is None:
            raise DatasetError(f"{path} is a folder, whose images may have any size: say image_size.")
        return load_folder(_split_folder(path, split), image_size, class_names)
    if path.suffix == ".npz" and path.is_file():
        return _load_npz(path, image_size)
    raise DatasetError(
        f"no evaluation set {str(name_or_path)!r}: expected one of {', '.join(FACTS)}, an existing folder or "
        f"an existing .npz file.{hint(str(name_or_path), FACTS)}"
    )


def load_digits(split: str, image_size: int = 32) -> Labelled:
    """Scikit-learn's handwritten digits, 8 x 8 pixels resized bilinearly, grey repeated to three channels.

    They come ordered by writer (13 writers, borders unknown). The splits are contiguous blocks, first 1,000
    to train, next 297 to validate, last 500 to test: at most one writer straddles each of the two borders.

    Raises:
        DatasetError: an unknown split, or scikit-learn is not installed.
    """
    if split not in _DIGITS_BLOCKS:
        raise DatasetError(f"split is {split!r}: digits have {', '.join(_DIGITS_BLOCKS)}.")
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise DatasetError("digits come with scikit-learn, not installed: pip install scikit-learn") from error
    import cv2

    block = slice(*_DIGITS_BLOCKS[split])
    digits: Any = sklearn_digits()
    small = np.rint(digits.images[block] * (255 / 16)).astype(np.uint8)
    # The exact variant gives the same bits with every OpenCV and on every machine.
    size = (image_size, image_size)
    grey = np.stack([cv2.resize(digit, size, interpolation=cv2.INTER_LINEAR_EXACT) for digit in small])
    return Labelled(
        images=np.repeat(grey[..., None], 3, axis=3),
        labels=digits.target[block].astype(np.int64),
        class_names=list(FACTS["digits"].class_names),
        name="digits" if split == "test" else f"digits/{split}",
    )


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


def _load_npz(path: Path, image_size: int | None) -> Labelled:
    try:
        with np.load(path, allow_pickle=False) as archive:
            stored = {key: archive[key] for key in ("images", "labels", "class_names") if key in archive}
            found = archive.files
    # On a damaged archive NumPy raises anything from BadZipFile to TokenError.
    except Exception as error:
        expected = "expected a whole .npz file of plain arrays; write it again with np.savez"
        raise DatasetError(f"{path} cannot be read ({error}): {expected}.") from error
    if "images" not in stored:
        raise DatasetError(f"{path} holds {', '.join(found) or 'nothing'}: expected images and labels.")
    images, labels, names = stored["images"], stored.get("labels"), stored.get("class_names")
    grey = images.ndim == 3
    if images.dtype != np.uint8 or not (grey or images.shape[3:] == (3,)) or images.size == 0:
        given = f"images in {path} are {images.dtype} of shape {list(images.shape)}"
        raise DatasetError(f"{given}: expected uint8 [n, h, w, 3] or [n, h, w]; floats multiplied by 255.")
    if labels is not None:
        given = f"labels in {path} are {labels.dtype} of shape {list(labels.shape)}"
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise DatasetError(f"{given}: expected integers of shape [{len(images)}], one per image.")
        classes = np.inf if names is None else len(names)
        if labels.min() < 0 or labels.max() >= classes:
            limits = "0 or more" if names is None else f"below {len(names)}, the number of class_names"
            raise DatasetError(f"{given}, from {labels.min()} to {labels.max()}: expected {limits}.")
    if grey:
        images = np.repeat(images[..., None], 3, axis=3)
    if image_size is not None and images.shape[1:3] != (image_size, image_size):
        images = np.stack([_fit(image, image_size) for image in images])
    return Labelled(
        images=images,
        labels=None if labels is None else labels.astype(np.int64),
        class_names=None if names is None else [str(name) for name in names],
        name=path.stem,
    )
