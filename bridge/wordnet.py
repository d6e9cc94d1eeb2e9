"""ImageNet's classes by their WordNet ids, such as n01440764: which number each has, and what it is called.

Folders of ImageNet are named by these ids; class k is the k-th of the 1,000 ids in sorted order, as networks of
torchvision, timm and keras.applications count them.
"""

from __future__ import annotations

import csv
import importlib.util
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from bridge.datum.sources import some_names
from bridge.errors import DatasetError

CLASSES = 1000
_ID = re.compile(r"n\d{8}")


def are_ids(names: Sequence[str] | None) -> bool:
    """Whether these are names, every one a WordNet id."""
    return bool(names) and all(_ID.fullmatch(name) for name in names or ())


def imagenet_ids() -> tuple[str, ...]:
    """The ids of the 1,000 classes, in their order; out of timm's files, without importing it.

    Raises:
        DatasetError: timm is not installed.
    """
    path = _of_timm("imagenet_synsets.txt")
    ids = tuple(path.read_text(encoding="utf-8").split()) if path else ()
    if len(ids) != CLASSES:
        raise DatasetError(
            "Which of ImageNet's 1,000 classes a WordNet id is, timm's list tells, which is not installed: pip install "
            "timm. Without it the folders of all 1,000 classes must be there."
        )
    return ids


def class_numbers(names: Sequence[str], where: object) -> dict[str, int]:
    """The number of each class of ImageNet: of all 1,000 by their order, of some of them by timm's list.

    Args:
        names: distinct WordNet ids.
        where: what has these, for messages.

    Raises:
        DatasetError: some are not among ImageNet's classes, or only timm could tell and is not there.
    """
    if len(names) == CLASSES and _of_timm("imagenet_synsets.txt") is None:
        return {name: number for number, name in enumerate(sorted(names))}
    known = {name: number for number, name in enumerate(imagenet_ids())}
    if foreign := sorted(set(names) - set(known)):
        raise DatasetError(
            f"{where} has {some_names(foreign)}, no classes of ImageNet-1k: expected only folders of its 1,000 WordNet "
            "ids. Remove these, or measure a model made for them."
        )
    return {name: known[name] for name in names}


def readable(names: Iterable[str]) -> list[str]:
    """WordNet ids in English where timm is installed ("n01440764" → "tench"); other names as they are. For reports."""
    lemmas = _lemmas()
    return [lemmas.get(name, name) for name in names]


@lru_cache(maxsize=1)
def _lemmas() -> dict[str, str]:
    path = _of_timm("imagenet_synset_to_lemma.txt")
    if path is None:
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        return {row[0]: row[1].split(",")[0] for row in csv.reader(file, delimiter="\t") if len(row) == 2}


@lru_cache(maxsize=4)
def _of_timm(name: str) -> Path | None:
    # Found and not imported: timm would bring PyTorch along, also for those who use Keras.
    found = importlib.util.find_spec("timm")
    path = Path(found.origin).parent / "data" / "_info" / name if found and found.origin else None
    return path if path and path.is_file() else None
