"""Speech Commands (Warden 2018) as its archives unpack: which sound is for what, what is unknown and what silence.

As TensorFlow Datasets builds the twelve classes:

- to train: every word in neither of the two lists of the archive; words that are no command are unknown, all of them;
- for validation: ``validation_list.txt``, other words unknown again;
- to test: an archive of its own, ``speech_commands_test_set_v0.02``, with one folder per class;
- silence to train and for validation: pieces of the noises in ``_background_noise_``, a second long, one every half
  second, each ending before its file does. Those of ``running_tap.wav`` are for validation, all others to train.

Where the lists are absent the rule by which they were made is used, which the archive's own README gives: a hash of the
speaker. Where the archive for testing is absent ours stands in: the commands of ``testing_list.txt``, a tenth as many
unknown words, evenly spaced, and at most as many pieces of ``running_tap.wav``, which is not trained on; it warns.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bridge.audio_facts import COMMANDS, SILENCE, UNKNOWN
from bridge.class_folders import sub_folders
from bridge.datum.sources import list_files, some_names
from bridge.errors import DatasetError
from bridge.sounds import SUFFIXES, pieces
from bridge.video_layouts import key

NOISE = "_background_noise_"
_LISTS = {"test": "testing_list.txt", "validation": "validation_list.txt"}
_HELD_NOISE = "running_tap.wav"
_SHARE = 10  # percent: of the words for validation and for testing; of unknown words and silence in tests
_HASHES = 2**27  # as many values as the rule tells apart


def is_here(folder: Path) -> bool:
    """Whether a folder holds the words of Speech Commands, with its noises or its lists."""
    return (folder / NOISE).is_dir() or any((folder / name).is_file() for name in _LISTS.values())


def test_folder(folder: Path, version: str) -> Path | None:
    """Where the archive made for testing lies, if anywhere.

    Args:
        folder: the data folder.
        version: "v0.01" or "v0.02".
    """
    name = f"speech_commands_test_set_{version}"
    places = (folder / inner / name for inner in (".", "SpeechCommands", "speech_commands"))
    return next((place for place in places if place.is_dir()), None)


def part_of(name: str) -> str:
    """Whether a recording is for ``train``, ``validation`` or ``test`` by the rule in the README of the archive.

    All recordings of a speaker are on one side: of bed06fac_nohash_0.wav the part before _nohash_ counts.

    Args:
        name: of the file, with or without its folder.
    """
    speaker = re.sub(r"_nohash_.*$", "", Path(name).name)
    number = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % _HASHES
    percent = number * (100 / (_HASHES - 1))
    return "validation" if percent < _SHARE else "test" if percent < 2 * _SHARE else "train"


def listed(
    root: Path, split: str, class_names: Sequence[str], seconds: float = 1.0
) -> tuple[list[Path], np.ndarray, list[str], tuple[str, ...], np.ndarray]:
    """The recordings of one split.

    Args:
        root: holds a folder for each word.
        split: ``train``, ``validation`` or ``test``.
        class_names: the classes in the order of the labels: words, and if wanted _unknown_, to which then all other
            words belong, and _silence_.
        seconds: of a piece of noise.

    Returns:
        files; labels int64 [n]; class_names; names of recordings in the list that are not there; where each begins in
        its file, float64 [n] in seconds.

    Raises:
        DatasetError: a list is none, or two classes have the same name.
    """
    numbers = {key(name): label for label, name in enumerate(class_names)}
    if len(numbers) < len(class_names):
        raise DatasetError("class_names holds a name twice: expected each class once.")
    unknown, silence = numbers.pop(key(UNKNOWN), None), numbers.pop(key(SILENCE), None)
    words = [name for name in sub_folders(root) if key(name) not in (key(NOISE), key(UNKNOWN), key(SILENCE))]
    parts, missing = _parts(root, split)
    known, others = [], []
    for word in words:
        label = numbers.get(key(word), unknown)
        if label is None:
            continue
        for file in list_files(root / word):
            if file.suffix.lower() in SUFFIXES and parts(file) == split:
                (known if key(word) in numbers else others).append((file, label))
    noise, starts = _noise(root, split, seconds) if silence is not None else ([], np.zeros(0))
    if split == "test" and (unknown is not None or silence is not None):
        count = math.ceil(len(known) * _SHARE / 100)
        others, kept = [others[k] for k in _spaced(len(others), count)], _spaced(len(noise), count)
        noise, starts = [noise[k] for k in kept], starts[kept]
        _remark(root, class_names, len(others), len(noise))
    rows = sorted(known + others, key=lambda row: row[0].relative_to(root).parts)
    labels = [label for _, label in rows] + [silence or 0] * len(noise)
    if absent := [name for label, name in enumerate(class_names) if label not in set(labels)]:
        warnings.warn(f"{root} has no {some_names(absent)}: results are of the other classes alone", stacklevel=6)
    files = [file for file, _ in rows] + noise
    starts = np.concatenate([np.zeros(len(rows)), starts])
    return files, np.array(labels, np.int64), list(class_names), missing, starts


def _parts(root: Path, split: str) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    """Which split a file is for, and what the list of the split has and the folder has not."""
    lists = {part: root / name for part, name in _LISTS.items()}
    if not all(path.is_file() for path in lists.values()):
        return (lambda file: part_of(file.name)), ()
    entries: dict[str, str] = {}
    for part, path in lists.items():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if line.strip() and not re.fullmatch(r"[^/\\]+/[^/\\]+", line.strip()):
                raise DatasetError(f"{path}, line {number}: expected word/recording.wav, found {line[:60]!r}.")
            if line.strip():
                entries[line.strip()] = part
    missing = tuple(name for name, part in entries.items() if part == split and not (root / name).is_file())
    return (lambda file: entries.get(file.relative_to(root).as_posix(), "train")), missing


def _noise(root: Path, split: str, seconds: float) -> tuple[list[Path], np.ndarray]:
    """The pieces of noise that are the silence of a split."""
    folder = root / NOISE
    files = [file for file in list_files(folder) if file.suffix.lower() in SUFFIXES] if folder.is_dir() else []
    files = [file for file in files if (file.name == _HELD_NOISE) == (split != "train")]
    if not files:
        return [], np.zeros(0)
    rows, starts = pieces(files, seconds, hop=seconds / 2, last=False)
    return [files[row] for row in rows.tolist()], starts


def _spaced(total: int, count: int) -> np.ndarray:
    """So many of the numbers below `total`, or all, evenly spaced."""
    return np.linspace(0, total - 1, min(total, count)).astype(np.int64) if total else np.zeros(0, np.int64)


def _remark(root: Path, class_names: Sequence[str], unknown: int, silence: int) -> None:
    if {key(name) for name in class_names} == {key(name) for name in COMMANDS}:
        warnings.warn(
            f"{root}: speech_commands_test_set_v0.02 (or v0.01), the archive made for testing, does not lie beside it. "
            f"In its place come the commands of {_LISTS['test']} with {unknown} unknown words and {silence} pieces of "
            "noise of our choice: results are not those of others.",
            stacklevel=7,
        )
