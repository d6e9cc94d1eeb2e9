"""Where evaluation sets of picture files lie on disk, and which label each picture has.

The authors' archives unpacked, under the names torchvision gives their folders, or a folder named after the set with
one folder per class in each of `train`, `val` (or `validation`) and `test`. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bridge.datum.sources import list_files
from bridge.errors import DatasetError, DatumError

# About so many images of a large training part are held out for validation. Ours.
_HELD_OUT = 10_000


@dataclass(frozen=True)
class Listing:
    """The pictures of one split.

    Attributes:
        root: the folder that holds them.
        files: the pictures; or, of sets that are no files, uint8 [n, h, w, 3].
        labels: int64 [n], 0-based.
        class_names: in the order of the labels, where the set says them.
    """

    root: Path
    files: list[Path] | np.ndarray
    labels: np.ndarray
    class_names: list[str] | None = None


@dataclass(frozen=True)
class _Layout:
    """How a set lies on disk.

    Attributes:
        folders: names of its folder within the data folder.
        there: what must be in it for this layout, for messages.
        part: (folder, "train", "validation" or "test") → that split as the authors' archives hold it, None if it does
            not lie there; None: there are folders of classes alone.
    """

    folders: tuple[str, ...]
    there: str
    part: Callable[[Path, str], Listing | None] | None


def find(name: str, folder: Path, split: str) -> Listing | None:
    """One split of a named set; None if it is not in the data folder.

    Args:
        name: a key of `FACTS` that `LAYOUTS` holds.
        folder: the data folder.
        split: ``train``, ``validation`` or ``test``. A set without a validation split gets one: evenly spaced images
            of its training part in the order of its files, one in ten, of large sets about 10,000 (ours).

    Raises:
        DatasetError: the set is there and damaged.
    """
    layout = LAYOUTS[name]
    for place in (*(folder / inner for inner in layout.folders), folder):
        try:
            found = layout.part(place, split) if layout.part else None
            if found is None and (place != folder or folder.name in layout.folders):
                found = _by_class(place, split, name)
            if found is not None:
                return found
        except (OSError, DatumError) as error:
            raise DatasetError(f"{name} in {place} cannot be read ({error}): unpack it again.") from error
    return None


def sought(name: str, folder: Path) -> str:
    """What was looked for where, for messages."""
    layout = LAYOUTS[name]
    places = ", ".join(layout.folders)
    return f"in {folder}, a folder {places} with {layout.there}, or with val/ or test/ that have one folder per class"


def _cut(part: Listing | None, split: str) -> Listing | None:
    """The training part without the images held out, or those."""
    if part is None:
        return None
    every = max(10, len(part.labels) // _HELD_OUT)
    held = np.arange(len(part.labels)) % every == every - 1
    rows = np.flatnonzero(held if split == "validation" else ~held)
    files = part.files[rows] if isinstance(part.files, np.ndarray) else [part.files[row] for row in rows]
    return replace(part, files=files, labels=part.labels[rows])


def _by_class(place: Path, split: str, name: str) -> Listing | None:
    """A folder per class in a folder per split. Of sets whose test labels nobody has, `val` is what is tested on."""

    def part(*folders: str) -> Listing | None:
        return next((found for inner in folders if (found := _classes(place / inner)) is not None), None)

    validation = ("val", "validation")
    if name in _TESTED_ON_VALIDATION:
        return part(*validation) if split == "test" else _cut(part("train"), split)
    if split == "test":
        return part("test")
    if (own := part(*validation)) is not None:
        return own if split == "validation" else part("train")
    return _cut(part("train"), split)


def _classes(root: Path) -> Listing | None:
    names = sorted(e.name for e in root.iterdir() if e.is_dir() and e.name[0] != ".") if root.is_dir() else []
    if not names:
        return None
    listed = [(file, label) for label, name in enumerate(names) for file in list_files(root / name)]
    return Listing(root, [file for file, _ in listed], np.array([label for _, label in listed], np.int64), names)


def _flowers(place: Path, split: str) -> Listing | None:
    """102flowers.tgz, imagelabels.mat and setid.mat of the authors: 1,020 + 1,020 + 6,149 images."""
    files = [place / "imagelabels.mat", place / "setid.mat"]
    if not (all(file.is_file() for file in files) and (place / "jpg").is_dir()):
        return None
    key = {"train": "trnid", "validation": "valid", "test": "tstid"}[split]
    from scipy.io import loadmat

    try:
        labels, chosen = (loadmat(str(file))[k].ravel() for file, k in zip(files, ("labels", key)))
        of_chosen = labels[chosen.astype(np.int64) - 1].astype(np.int64) - 1
    except Exception as error:  # SciPy raises almost anything on damaged files
        raise DatasetError(f"{files[0]} and {files[1].name} cannot be read ({error}): download them again.") from error
    return Listing(place, [place / "jpg" / f"image_{number:05d}.jpg" for number in chosen], of_chosen)


def _pets(place: Path, split: str) -> Listing | None:
    """images.tar.gz and annotations.tar.gz of the authors: 3,680 + 3,669 images."""
    path = place / "annotations" / ("test.txt" if split == "test" else "trainval.txt")
    if not (path.is_file() and (place / "images").is_dir()):
        return None
    pairs = [(words[0] + ".jpg", int(words[1]) - 1) for words in _lines(path, 2)]
    listed = Listing(place / "images", [place / "images" / file for file, _ in pairs], _labels(pairs))
    return listed if split == "test" else _cut(listed, split)


def _places(place: Path, split: str) -> Listing | None:
    """Lists and pictures of the authors: 1,803,460 to train, 36,500 for validation, which are tested on."""
    path = place / ("places365_val.txt" if split == "test" else "places365_train_standard.txt")
    folders = ("val_large", "val_256") if split == "test" else ("data_large_standard", "data_256_standard")
    folder = next((place / each for each in folders if (place / each).is_dir()), None)
    if not path.is_file() or folder is None:
        return None
    pairs = [(words[0].lstrip("/"), int(words[1])) for words in _lines(path, 2)]
    categories, names = place / "categories_places365.txt", None
    if categories.is_file():
        by_number = sorted((int(words[1]), words[0]) for words in _lines(categories, 2))
        names = [each.split("/", 2)[-1] for _, each in by_number]  # without the /a/ before it
    listed = Listing(folder, [folder / file for file, _ in pairs], _labels(pairs), names)
    return listed if split == "test" else _cut(listed, split)


def _stl10(place: Path, split: str) -> Listing | None:
    """stl10_binary.tar.gz of the authors: 5,000 + 8,000 images of 96 x 96 pixels, columns first."""
    part = "test" if split == "test" else "train"
    pixels, classes = place / f"{part}_X.bin", place / f"{part}_y.bin"
    if not (pixels.is_file() and classes.is_file()):
        return None
    labels = np.fromfile(classes, np.uint8).astype(np.int64) - 1
    if pixels.stat().st_size != len(labels) * 3 * 96 * 96 or len(labels) == 0:
        expected = f"expected {3 * 96 * 96:,} for each of the {len(labels):,} labels in {classes.name}"
        raise DatasetError(f"{pixels} has {pixels.stat().st_size:,} bytes: {expected}. Unpack it again.")
    images = np.fromfile(pixels, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    listed = Listing(place, np.ascontiguousarray(images), labels)
    return listed if split == "test" else _cut(listed, split)


def _lines(path: Path, words: int) -> Iterator[list[str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = line.split()
        if not found or found[0].startswith("#"):
            continue
        if len(found) < words or not found[1].isdigit():
            raise DatasetError(f"{path}, line {number}: expected a name and a number, found {line[:60]!r}.")
        yield found


def _labels(pairs: list[tuple[str, int]]) -> np.ndarray:
    return np.array([label for _, label in pairs], np.int64)


_TESTED_ON_VALIDATION = ("in1k", "in100", "places365")
LAYOUTS = {
    "in1k": _Layout(
        ("in1k", "imagenet", "imagenet1k", "imagenet-1k", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"),
        "val/n01440764 and so on (and train/, to train on)",
        None,
    ),
    "in100": _Layout(
        ("in100", "imagenet100", "imagenet-100", "ImageNet100"),
        "val/ with one folder for each of the 100 WordNet ids",
        None,
    ),
    "places365": _Layout(
        ("places365", "Places365", "places365_standard"),
        "places365_val.txt and val_large/ or val_256/ (train: places365_train_standard.txt and data_256_standard/)",
        _places,
    ),
    "flowers102": _Layout(
        ("flowers102", "flowers-102", "flowers101", "oxford-102-flowers"),
        "jpg/, imagelabels.mat and setid.mat",
        _flowers,
    ),
    "pets37": _Layout(
        ("pets37", "oxford-iiit-pet", "oxford_pets", "pets"),
        "images/ and annotations/test.txt, annotations/trainval.txt",
        _pets,
    ),
    "stl10": _Layout(
        ("stl10", "stl10_binary", "stl10/stl10_binary"),
        "test_X.bin and test_y.bin, train_X.bin and train_y.bin",
        _stl10,
    ),
}
"""The sets whose files are found here."""
