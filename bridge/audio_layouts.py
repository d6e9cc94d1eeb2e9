"""Where evaluation sets of sounds lie on disk, and which label each sound has.

Speech Commands as its archives unpack, MUSAN, VoxForge and LibriSpeech as theirs do, or one folder per class, in
folders train, val and test or alone. Nothing is downloaded. `bridge.speech_commands` has the rules of the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bridge import speech_commands, video_layouts
from bridge.audio_facts import AUDIO_FACTS, COMMANDS, SILENCE
from bridge.class_folders import files_of_export, sub_folders
from bridge.datum.sources import list_files, some_names
from bridge.errors import DatasetError, DatumError
from bridge.sounds import SUFFIXES, pieces
from bridge.video_layouts import in_order_of, key

_VERSIONS = {
    "speech_commands": "v0.02",
    "speech_commands_35": "v0.02",
    "speech_commands_v0.01": "v0.01",
    "speech_commands_30": "v0.01",
}
_FOLDERS = {
    "musan": ("musan", "MUSAN"),
    "voxforge": ("voxforge", "VoxForge", "Voxforge"),
    "librispeech100": (
        "LibriSpeech/train-clean-100",
        "librispeech/train-clean-100",
        "librispeech/LibriSpeech/train-clean-100",
        "train-clean-100",
        "librispeech100",
    ),
}
_THERE = {
    "musan": "music/, noise/ and speech/",
    "voxforge": "de/, en/, es/, fr/, it/ and ru/, and in them the archives of the speakers unpacked",
    "librispeech100": "19/198/19-198-0000.flac and so on",
}
_SPLITS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
_HELD_OUT = 10
_LANGUAGES = {"german": "de", "english": "en", "speechcorpus": "en", "spanish": "es", "french": "fr", "italian": "it"}
_LANGUAGES |= {"russian": "ru"} | {code: code for code in ("de", "en", "es", "fr", "it", "ru")}


@dataclass(frozen=True)
class Listing(video_layouts.Listing):
    """The sounds of one split.

    Attributes:
        starts: where each begins in its file, float64 [n] in seconds; None: at the beginning.
        silent: which may be silent, bool [n] or all.
    """

    starts: np.ndarray | None = None
    silent: np.ndarray | bool = False


def find(name: str, folder: Path, split: str, seconds: float, class_names: Sequence[str] | None) -> Listing | None:
    """One split of a named set; None if it is not in the data folder.

    Args:
        name: that of one of the `AUDIO_FACTS`, whose `ours` says what of the splits is ours.
        folder: the data folder, or the folder of the set itself.
        split: ``train``, ``validation`` or ``test``.
        seconds: of a piece.
        class_names: of the model.

    Raises:
        DatasetError: the set is there and damaged.
    """
    wanted = class_names or AUDIO_FACTS[name].names
    for place in (*(folder / inner for inner in _folders(name)), folder):
        if not place.is_dir():
            continue
        try:
            own = place != folder or folder.name in _folders(name)
            if own and _are_parts(sub_folders(place)):
                return _named(_cut_up(_part(place, split), seconds), wanted)
            if name in _VERSIONS:
                found = _commands(name, place, folder, split, seconds, wanted or ())
            else:
                found = _BY_NAME[name](place, split) if own or name != "librispeech100" else None
                found = None if found is None else _named(_cut_up(found, seconds), wanted)
            if found is not None:
                return found
        except (OSError, DatumError) as error:
            raise DatasetError(f"{name} in {place} cannot be read ({error}): unpack it again.") from error
    return None


def sought(name: str, folder: Path) -> str:
    """What was looked for where, for messages."""
    there = _THERE.get(name, "_background_noise_/, yes/ and so on, as the archive unpacks")
    return f"in {folder}, a folder {', '.join(_folders(name))} with {there}, or with train/ and test/ of class folders"


def of_path(path: Path, split: str, seconds: float, class_names: Sequence[str] | None) -> Listing:
    """The sounds of a folder.

    Args:
        path: with one folder per class; or with train/, val/ and test/ that have; or with sounds alone. The words of
            Speech Commands with its noise or its lists are that set.
        split: which of several parts; without a validation part every tenth sound of train/ is held out for it (ours).
        seconds: of a piece.
        class_names: of the model.

    Raises:
        DatasetError: nothing usable is there.
    """
    try:
        if speech_commands.is_here(path):
            return _tested(path, path.parent, split, seconds, class_names or COMMANDS)
        found = _part(path, split) if _are_parts(sub_folders(path)) else _classes(path)
        return _named(_cut_up(found, seconds), class_names)
    except (OSError, DatumError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from error


def splits_of(path: Path) -> tuple[str, ...]:
    """The splits that `of_path` finds in a folder; none if it is one set.

    Raises:
        DatasetError: it cannot be read.
    """
    folders = sub_folders(path)
    if speech_commands.is_here(path):
        return tuple(_SPLITS)
    if not _are_parts(folders):
        return ()
    there = {part for part, names in _SPLITS.items() if set(names) & set(folders)}
    return tuple(part for part in _SPLITS if part in there or (part == "validation" and "train" in there))


def _folders(name: str) -> tuple[str, ...]:
    if name not in _VERSIONS:
        return _FOLDERS[name]
    full = f"speech_commands_{_VERSIONS[name]}"
    return full, f"SpeechCommands/{full}", f"speech_commands/{full}", "speech_commands"


def _commands(
    name: str, place: Path, folder: Path, split: str, seconds: float, class_names: Sequence[str]
) -> Listing | None:
    """The archive of a version, with the one made for testing; to test the latter is enough."""
    version = _VERSIONS[name]
    if speech_commands.is_here(place):
        if version == "v0.01" and (place / "backward").is_dir():  # a word of the later one
            return None
        return _tested(place, folder, split, seconds, class_names, version)
    archive = speech_commands.test_folder(folder, version) if SILENCE in class_names and split == "test" else None
    return None if archive is None else _of_archive(archive, class_names)


def _tested(
    place: Path, folder: Path, split: str, seconds: float, class_names: Sequence[str], version: str | None = None
) -> Listing:
    """Speech Commands; tested on the archive made for that if it is at hand, and if it has the classes."""
    if split == "test" and {key(name) for name in class_names} == {key(name) for name in COMMANDS}:
        latest = (place / "backward").is_dir() or place.name.endswith("v0.02")
        version = version or ("v0.02" if latest else "v0.01")
        archive = next((a for f in (place.parent, folder) if (a := speech_commands.test_folder(f, version))), None)
        if archive is not None:
            return _of_archive(archive, class_names)
    found = speech_commands.listed(place, split, class_names, seconds)
    # Recordings without a sound count in the results of others, too.
    return Listing(place, *found, silent=True)


def _of_archive(archive: Path, class_names: Sequence[str]) -> Listing:
    """The archive made for testing: of every file the beginning, not all pieces of it."""
    return replace(in_order_of(_classes(archive), class_names), silent=True)


def _musan(place: Path, split: str) -> Listing | None:
    """musan.tar.gz: music/fma/music-fma-0000.wav and so on."""
    if not {"music", "noise", "speech"} <= set(sub_folders(place)):
        return None
    return _ours(_listed(place, ["music", "noise", "speech"]), split)


def _librispeech(place: Path, split: str) -> Listing | None:
    """train-clean-100.tar.gz: speaker/chapter/speaker-chapter-number.flac."""
    speakers = sorted((name for name in sub_folders(place) if name.isdigit()), key=int)
    if not speakers:
        return None
    return _ours(_listed(place, speakers[: AUDIO_FACTS["librispeech100"].classes]), split)


def _voxforge(place: Path, split: str) -> Listing | None:
    """The archives of the speakers unpacked below a folder for each language, or where wget -x puts them."""
    for root in (place, place / "downloads", place / "www.repository.voxforge1.org" / "downloads"):
        languages = [(name, code) for name in (sub_folders(root) if root.is_dir() else ()) if (code := _language(name))]
        if len(languages) > 1:
            break
    else:
        return None
    names = sorted({code for _, code in languages})
    files, labels, speakers = [], [], []
    for name, code in languages:
        inner = root / name / "Trunk" / "Audio" / "Main" / "16kHz_16bit"  # the same at other rates lies beside it
        for file in _sounds(inner if inner.is_dir() else root / name)[0]:
            files.append(file)
            labels.append(names.index(code))
            # Of an archive called speaker-20100101-abc, in whose folder wav/ or flac/ the sounds lie.
            speakers.append((file.parent.parent if file.parent.name in ("wav", "flac") else file.parent).name)
    of_split = _by_speaker([speaker.split("-")[0] for speaker in speakers], split)
    return _rows(Listing(root, files, np.array(labels, np.int64), names), of_split)


def _language(folder: str) -> str | None:
    return _LANGUAGES.get(folder.casefold().removeprefix("voxforge").strip("_-"))


_BY_NAME = {"musan": _musan, "voxforge": _voxforge, "librispeech100": _librispeech}


def _by_speaker(speakers: list[str], split: str) -> np.ndarray:
    """As TensorFlow Datasets shares speakers out: sorted, shuffled by a seed of 0, then 7 : 1 : 2."""
    groups = sorted(set(speakers))
    np.random.RandomState(0).shuffle(groups)
    borders = [0, int(0.7 * len(groups)), int((0.7 + 0.1) * len(groups)), len(groups)]
    part = list(_SPLITS).index(split)
    chosen = set(groups[borders[part] : borders[part + 1]])
    return np.array([speaker in chosen for speaker in speakers], bool)


def _ours(found: Listing, split: str) -> Listing:
    """Of ten files of a class that follow each other the ninth is for validation and the tenth for testing."""
    assert found.labels is not None
    first = np.searchsorted(found.labels, found.labels)  # the labels are sorted
    place = (np.arange(len(found.files)) - first) % 10
    return _rows(found, {"train": place < 8, "validation": place == 8, "test": place == 9}[split])


def _are_parts(folders: Sequence[str]) -> bool:
    return bool(folders) and set(folders) <= {name for names in _SPLITS.values() for name in names}


def _part(root: Path, split: str) -> Listing:
    """A part that lies in a folder of its own, or of the training part what is held out of it."""
    there = {part: next((root / n for n in names if (root / n).is_dir()), None) for part, names in _SPLITS.items()}
    own, train = there[split], there["train"]
    if own is None and (split == "test" or train is None):
        raise DatasetError(f"{root} has no split {split!r}: found {', '.join(sorted(sub_folders(root)))}.")
    found = _classes(own or train or root)
    if split == "test" or there["validation"] is not None:
        return found
    held = np.arange(len(found.files)) % _HELD_OUT == _HELD_OUT - 1
    return _rows(found, held == (split == "validation"))


def _classes(root: Path) -> Listing:
    """One folder per class; sounds that lie in none are left out if there are folders."""
    exported = files_of_export(root)
    names = [] if exported else [name for name in sub_folders(root) if name != speech_commands.NOISE]
    if not names:
        found, others = (exported, []) if exported else _sounds(root)
        listing = Listing(root, found, None)
    else:
        if {key(name) for name in names} == {key(name) for name in COMMANDS}:
            names.sort(key=_command_order)
        listing = _listed(root, names)
        others = [entry.name for entry in sorted(root.iterdir()) if entry.is_file() and entry.name[0] != "."]
        others = [name for name in others if Path(name).suffix.lower() in SUFFIXES]
    if others:
        why = "being in no class folder" if names else "being no sounds by their names"
        warnings.warn(f"{root}: left out, {why}: {some_names(others)}", stacklevel=4)
    return listing


def _command_order(name: str) -> int:
    return [key(command) for command in COMMANDS].index(key(name))


def _listed(root: Path, names: list[str]) -> Listing:
    """The sounds below so many folders, labelled by these."""
    labelled = [(file, label) for label, name in enumerate(names) for file in _sounds(root / name)[0]]
    labels = np.array([label for _, label in labelled], np.int64)
    silent = np.array([key(name) == key(SILENCE) for name in names])[labels]
    return Listing(root, [file for file, _ in labelled], labels, names, silent=silent)


def _sounds(folder: Path) -> tuple[list[Path], list[str]]:
    """Sounds below a folder, in order, and the names of what else is there."""
    files = list_files(folder)
    found = [file for file in files if file.suffix.lower() in SUFFIXES]
    return found, [file.name for file in files if file.suffix.lower() not in SUFFIXES]


def _rows(found: Listing, chosen: np.ndarray) -> Listing:
    def kept(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[chosen]

    silent = found.silent if isinstance(found.silent, bool) else found.silent[chosen]
    files = [file for file, take in zip(found.files, chosen) if take]
    return replace(found, files=files, labels=kept(found.labels), starts=kept(found.starts), silent=silent)


def _cut_up(found: Listing, seconds: float) -> Listing:
    """Every file as all of its pieces."""
    rows, starts = pieces(found.files, seconds)
    if len(rows) == len(found.files):
        return found
    return replace(
        found,
        files=[found.files[row] for row in rows.tolist()],
        labels=None if found.labels is None else found.labels[rows],
        starts=starts,
        silent=found.silent if isinstance(found.silent, bool) else found.silent[rows],
    )


def _named(found: Listing, class_names: Sequence[str] | None) -> Listing:
    return in_order_of(found, class_names) if class_names else found
