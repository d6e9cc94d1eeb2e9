"""Where evaluation sets of videos lie on disk, and which label each video has.

Kinetics-400 as the official csv files and clips named id_start_end.mp4, UCF101 as its authors unpack it with their
lists, or one folder per class, in folders train, val and test or alone. Nothing is downloaded.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from bridge.class_folders import files_of_export, sub_folders
from bridge.datum.sources import list_files, some_names
from bridge.errors import DatasetError, DatumError

FOLDERS = {
    "k400": ("k400", "kinetics400", "kinetics-400", "kinetics_400", "Kinetics400", "Kinetics-400", "kinetics"),
    "ucf101": ("ucf101", "UCF101", "UCF-101", "ucf-101", "ucf"),
}
"""Names of the folders of each set within the data folder."""
_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
THERE = {
    "k400": "val.csv (or validate.csv, also in annotations/) and the clips, or val/ with one folder per class",
    "ucf101": "UCF-101/ApplyEyeMakeup and so on, the lists in ucfTrainTestlist/ if at hand, or val/ or test/ with one "
    "folder per class",
}
"""What must be in them, for messages."""
# Nobody had the labels of Kinetics' test videos, so its validation videos are what is tested on, as in the paper.
_SPLITS = {
    "train": ("train",),
    "validation": ("val", "validation", "validate"),
    "test": ("test", "val", "validation", "validate"),
}
_KINETICS_TESTED = ("val", "validate", "validation")
_LISTS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "annotations", "lists", ".")
_GROUP = re.compile(r"_g(\d+)_c\d+$")
# Clips of one group are cut from one video, so whole groups are held out for validation. Ours.
_HELD_GROUPS = 2
_HELD_OUT = 10


@dataclass(frozen=True)
class Listing:
    """The videos of one split.

    Attributes:
        root: the folder that holds them.
        files: the videos.
        labels: int64 [n], 0-based, or None if there are none.
        class_names: in the order of the labels, where the set says them.
        missing: names of those that a list has and the folder has not.
    """

    root: Path
    files: list[Path]
    labels: np.ndarray | None
    class_names: list[str] | None = None
    missing: tuple[str, ...] = ()


AnyListing = TypeVar("AnyListing", bound=Listing)


def find(name: str, folder: Path, split: str, fold: int = 1) -> Listing | None:
    """One split of a named set; None if it is not in the data folder.

    Validation is held out of the training part: of UCF101 the last two groups of videos, else one file in ten (ours).

    Args:
        name: a key of `FOLDERS`.
        folder: the data folder, or the folder of the set itself.
        split: ``train``, ``validation`` or ``test``. Kinetics is tested on its validation videos.
        fold: which of UCF101's three official splits.

    Raises:
        DatasetError: the set is there and damaged.
    """
    part = "test" if split == "test" else "train"
    for place in (*(folder / inner for inner in FOLDERS[name]), folder):
        if not place.is_dir():
            continue
        try:
            found = _kinetics(place, part) if name == "k400" else _ucf101(place, part, fold)
            if found is None and place.name in FOLDERS[name]:
                tested = _KINETICS_TESTED if name == "k400" else _SPLITS["test"]
                found = _first_part(place, tested if part == "test" else _SPLITS["train"])
        except (OSError, DatumError) as error:
            raise DatasetError(f"{name} in {place} cannot be read ({error}): unpack it again.") from error
        if found is not None:
            return found if part == "test" else _cut(found, split)
    return None


def of_path(path: Path, split: str, videos: Path | None = None, fold: int = 1) -> Listing:
    """The videos of a folder, of a csv of Kinetics or of a list of UCF101.

    Args:
        path: a folder with one folder per class; or with train/, val/ and test/ that have; or with videos alone. Or a
            .csv or .txt list. A folder called UCF-101 is that set, of which a part alone is tested on.
        split: which of several parts; `val` is taken for ``test`` where there is no `test`.
        videos: where the videos of a list lie; None: beside it.
        fold: which of UCF101's three official splits.

    Raises:
        DatasetError: nothing usable is there.
    """
    try:
        if path.is_file() and path.suffix == ".csv":
            return kinetics_csv(path, videos or _beside(path))
        if path.is_file() and path.suffix == ".txt":
            return ucf101_list(path, videos or _beside(path))
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise DatasetError(
                f"{path} {what}: expected a folder of videos, a .csv of Kinetics or a .txt list of UCF101."
            )
        inner = set(sub_folders(path))
        if inner and inner <= {name for names in _SPLITS.values() for name in names}:
            found = _first_part(path, _SPLITS[split])
            if found is None:
                raise DatasetError(f"{path} has no split {split!r}: found {', '.join(sorted(inner))}.")
            return found
        if path.name in FOLDERS["ucf101"]:
            part = "test" if split == "test" else "train"
            found = _ucf101(path, part, fold)
            if found is not None:
                return found if part == "test" else _cut(found, split)
        return _classes(path) if inner else Listing(path, list_files(path), None)
    except (OSError, DatumError, csv.Error) as error:
        raise DatasetError(f"cannot read {path}: {error}") from error


def kinetics_csv(path: Path, root: Path) -> Listing:
    """The videos of an official csv of Kinetics: columns label, youtube_id, time_start, time_end, split.

    Videos are named id_000010_000020, id_10_20 or id, with any ending, and may lie in folders.

    Args:
        path: the csv; without a column `label` there are no labels.
        root: below which the videos lie.

    Raises:
        DatasetError: it is no such csv.
    """
    # beside a video its downloader may have left a picture or a description of the same name
    there = {file.stem: file for file in sorted(list_files(root), key=lambda file: file.suffix.lower() in _ENDINGS)}
    files, labels, missing = [], [], []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = set(reader.fieldnames or ())
        if not {"youtube_id", "time_start", "time_end"} <= columns:
            expected = "label, youtube_id, time_start, time_end, split"
            raise DatasetError(
                f"{path} is no csv of Kinetics: it has the columns {sorted(columns)}; expected {expected}."
            )
        for row in reader:
            try:
                name, start, end = row["youtube_id"], int(float(row["time_start"])), int(float(row["time_end"]))
            except (TypeError, ValueError, OverflowError) as error:
                expected = "youtube_id, time_start and time_end in seconds"
                raise DatasetError(f"{path}, line {reader.line_num}: expected {expected}, found {row}.") from error
            stems = (f"{name}_{start:06d}_{end:06d}", f"{name}_{start}_{end}", name)
            file = next((there[stem] for stem in stems if stem in there), None)
            labels.append((row.get("label") or "").strip())
            files.append(file)
            missing += [stems[0]] if file is None else []
    if not all(labels) and any(labels):
        raise DatasetError(f"{path} has rows without a label: expected one in each or in none.")
    kept = [file for file in files if file is not None]
    if not any(labels):
        return Listing(root, kept, None, None, tuple(missing))
    names = sorted(set(labels))
    numbers = {name: number for number, name in enumerate(names)}
    of_kept = [numbers[label] for file, label in zip(files, labels) if file is not None]
    return Listing(root, kept, np.array(of_kept, np.int64), names, tuple(missing))


def ucf101_list(path: Path, root: Path) -> Listing:
    """The videos of testlist01.txt or trainlist01.txt: Class/v_Class_g01_c01.avi, and its number in the latter.

    Args:
        path: the list; classInd.txt beside it says all classes in their order, else those in the list are sorted.
        root: holds the class folders, or the videos themselves.

    Raises:
        DatasetError: it is no such list.
    """
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        if words and (len(words) > 2 or "/" not in words[0] or (len(words) == 2 and not words[1].isdigit())):
            raise DatasetError(f"{path}, line {number}: expected Class/video.avi, found {line[:60]!r}.")
        entries += words[:1]
    names = sorted({entry.split("/")[0] for entry in entries})
    numbered = path.parent / "classInd.txt"
    if numbered.is_file():
        pairs = [line.split() for line in numbered.read_text(encoding="utf-8", errors="replace").splitlines() if line]
        if not all(len(pair) == 2 and pair[0].isdigit() for pair in pairs):
            raise DatasetError(f"{numbered} is no list of classes: expected a number and a name per line.")
        names = [pair[1] for pair in sorted(pairs, key=lambda pair: int(pair[0]))]
    numbers = {key(name): number for number, name in enumerate(names)}
    files, labels, missing = [], [], []
    for entry in entries:
        name = entry.split("/")[0]
        if key(name) not in numbers:
            raise DatasetError(f"{path} has the class {name!r}, which is not in {numbered}.")
        file = next((f for f in (root / entry, root / Path(entry).name) if f.is_file()), None)
        if file is None:
            missing.append(entry)
        else:
            files.append(file)
            labels.append(numbers[key(name)])
    return Listing(root, files, np.array(labels, np.int64), names, tuple(missing))


def is_ucf101(listing: Listing) -> bool:
    """Whether all videos have the names of UCF101's, v_Class_g01_c01."""
    return bool(listing.files) and all(_group(file) and file.name.startswith("v_") for file in listing.files)


def in_order_of(listing: AnyListing, class_names: Sequence[str]) -> AnyListing:
    """The same with the labels of a model; names match whatever their case, spaces and underscores.

    Raises:
        DatasetError: there are other classes than the model's, or two of its names are the same.
    """
    if listing.labels is None:
        return replace(listing, class_names=list(class_names))
    numbers = {key(name): number for number, name in enumerate(class_names)}
    if len(numbers) < len(class_names):
        raise DatasetError("class_names holds a name twice: expected each class once.")
    found = listing.class_names or []
    if foreign := [name for name in found if key(name) not in numbers]:
        raise DatasetError(
            f"{listing.root} has classes that the model has not: {some_names(foreign)}; expected some of the "
            f"{len(class_names)} such as {some_names(class_names)}."
        )
    if len(found) < len(class_names):
        warnings.warn(
            f"{listing.root} holds {len(found)} of {len(class_names)} classes: results are of these alone",
            stacklevel=4,
        )
    of_model = np.array([numbers[key(name)] for name in found], np.int64)
    return replace(listing, labels=of_model[listing.labels], class_names=list(class_names))


def key(name: str) -> str:
    """What a class name is known by: "Air_drumming" and "air drumming" are one class."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _kinetics(place: Path, part: str) -> Listing | None:
    """The official lists; the clips in a folder named after the part, or anywhere."""
    names = _KINETICS_TESTED if part == "test" else ("train",)
    lists = [f"{start}{name}.csv" for name in names for start in ("", "kinetics-400_", "kinetics_", "kinetics_400_")]
    path = next((file for inner in (".", "annotations") for n in lists if (file := place / inner / n).is_file()), None)
    if path is None:
        return None
    return kinetics_csv(path, next((place / name for name in names if (place / name).is_dir()), place))


def _ucf101(place: Path, part: str, fold: int) -> Listing | None:
    """The official lists, or what they say: groups 1 to 7, 8 to 14 or 15 to 21 are tested on."""
    name = f"{part}list{fold:02d}.txt"
    own = place.name in FOLDERS["ucf101"]
    lists = [above / inner / name for inner in _LISTS for above in ((place, place.parent) if own else (place,))]
    root = next((place / inner for inner in ("UCF-101", "UCF101", "videos") if (place / inner).is_dir()), place)
    for path in lists:
        if path.is_file():
            return ucf101_list(path, root)
    folders = set(sub_folders(root)) if own or root != place else set()
    if not folders or folders <= {name for names in _SPLITS.values() for name in names}:
        return None
    found = _classes(root)
    groups = np.array([_group(file) for file in found.files])
    if not groups.all():
        return None
    return _rows(found, ((groups - 1) // 7 == fold - 1) == (part == "test"))


def _cut(found: Listing, split: str) -> Listing:
    """The training part without the videos held out, or those."""
    groups = np.array([_group(file) for file in found.files])
    if groups.all() and len(set(groups.tolist())) > _HELD_GROUPS:
        held = np.isin(groups, np.unique(groups)[-_HELD_GROUPS:])
    else:
        held = np.arange(len(found.files)) % _HELD_OUT == _HELD_OUT - 1
    return _rows(found, held == (split == "validation"))


def _rows(found: Listing, chosen: np.ndarray) -> Listing:
    files = [file for file, take in zip(found.files, chosen) if take]
    return replace(found, files=files, labels=None if found.labels is None else found.labels[chosen])


def _group(file: Path) -> int:
    match = _GROUP.search(file.stem)
    return int(match[1]) if match else 0


def _first_part(place: Path, names: Iterable[str]) -> Listing | None:
    return next((_classes(place / name) for name in names if (place / name).is_dir()), None)


def _classes(root: Path) -> Listing:
    """One folder per class, sorted; videos that lie in none are left out if there are folders."""
    exported = files_of_export(root)
    names = [] if exported else sub_folders(root)
    if not names:
        return Listing(root, exported or list_files(root), None)
    loose = [entry.name for entry in sorted(root.iterdir()) if entry.is_file() and entry.name[0] != "."]
    if loose:
        warnings.warn(f"{root}: left out, being in no class folder: {some_names(loose)}", stacklevel=4)
    listed = [(file, label) for label, name in enumerate(names) for file in list_files(root / name)]
    return Listing(root, [file for file, _ in listed], np.array([label for _, label in listed], np.int64), names)


def _beside(path: Path) -> Path:
    """Where the videos of a list lie: in the folder of the set, which may hold its lists in a folder of their own."""
    folder = path.parent
    if folder.name in ("annotations", "ucfTrainTestlist", "lists"):
        folder = folder.parent
    return next((folder / inner for inner in ("UCF-101", "UCF101", "videos") if (folder / inner).is_dir()), folder)
