"""Labelled evaluation sets of sounds by name or from a path; no framework needed.

Sounds are held in memory as 16-bit samples, 4,890 of a second in 150 MB; sets that would take more than 1 GiB are
decoded while they are used. Files are read by libsndfile everywhere, so that results do not depend on the environment.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bridge import audio_layouts, npz
from bridge.audio_facts import AUDIO_FACTS, AudioFacts
from bridge.audio_layouts import Listing
from bridge.batches import slices
from bridge.datasets import DATA_VARIABLE, data_folder
from bridge.datum.sources import some_names
from bridge.errors import DatasetError
from bridge.names import hint
from bridge.pictures import LAZY_BYTES
from bridge.sounds import FULL_SCALE, LabelledSounds, Sounds, readable_sounds

Fetch = Callable[[AudioFacts, str, int], LabelledSounds]
_SPLITS = ("train", "validation", "test")
_HELD_OUT = 10
_AT_ONCE = 512
_PACKED = "waveforms and labels, or x_train, y_train, x_test and y_test"


def load_audio(
    name_or_path: str | os.PathLike[str],
    split: str = "test",
    *,
    rate: int = 16_000,
    seconds: float = 1.0,
    class_names: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    lazy: bool | None = None,
    fetch: Fetch | None = None,
) -> LabelledSounds:
    """Load an evaluation set of sounds: a name in ``AUDIO_FACTS``, a folder, or an ``.npz``.

    By name it is looked for in the data folder (`bridge.audio_layouts` and `bridge.speech_commands` say how, and
    `AudioFacts.ours` what of its splits is ours). A folder has one folder per class, or parts train, val and test that
    have, or sounds without labels; one with the words of Speech Commands and its noise or lists is that set, by default
    with twelve classes, or those of ``class_names``. Long files count as all the pieces of `seconds` that fit in, from
    their beginning, but of Speech Commands the beginning alone; shorter ones get silence at the end.

    An ``.npz`` holds one set (``waveforms`` int16 or float in [-1, 1], [n, samples], and, if known, ``labels`` integers
    [n]), or ``x_train, y_train, x_test, y_test`` or only some of them; with either ``class_names`` and ``rate`` where
    known. Every tenth row of the training part is ``validation`` (ours).

    Sounds that cannot be used are named in a warning with the reason and skipped: damaged, empty, of a rate or number
    of channels that no recording has; or silent, but not of a class silence, nor of Speech Commands, whose results
    include those everywhere.

    Args:
        name_or_path: a name in ``AUDIO_FACTS``, or a path.
        split: ``train``, ``validation`` or ``test``.
        rate: samples per second; other files are resampled.
        seconds: of a sound.
        class_names: those of the model to be measured, in its order: classes are matched to them by name, whatever
            their case, spaces and underscores; some of them may be absent.
        data_dir: the data folder; None: ``$AIP_DATA``, or ``./data``.
        lazy: decode sounds while they are used; None: if they would take more than 1 GiB.
        fetch: where else to get a named set that is not in the data folder: called with its facts, the split and the
            samples of a sound, it gives the split, or raises a DatasetError.

    Raises:
        DatasetError: the set is unknown, missing, damaged or not of the kind described here.
    """
    if split not in _SPLITS:
        raise DatasetError(f"split is {split!r}: expected one of {', '.join(_SPLITS)}.")
    samples = round(rate * seconds)
    if rate < 1 or samples < 1:
        raise DatasetError(f"rate is {rate} and seconds is {seconds}: expected sounds of at least one sample.")
    facts = AUDIO_FACTS.get(name_or_path) if isinstance(name_or_path, str) else None
    if facts is not None:
        return _named(facts, split, rate, seconds, class_names, data_folder(data_dir), lazy, fetch)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        listing = audio_layouts.of_path(path, split, seconds, class_names)
        return _read(listing, path.resolve().name, samples, rate, lazy)
    if path.suffix == ".npz" and path.is_file():
        return _matched(_packed(path, split, samples, rate), class_names)
    raise DatasetError(
        f"no evaluation set of sounds {str(name_or_path)!r}: expected one of {', '.join(AUDIO_FACTS)}, an existing "
        f"folder of sounds or an .npz file.{hint(str(name_or_path), AUDIO_FACTS)}"
    )


def splits_of(name_or_path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that `load_audio` tells apart: of a named set, of a folder or an ``.npz`` with parts; else none.

    Raises:
        DatasetError: an ``.npz`` is damaged, or a folder cannot be read.
    """
    if isinstance(name_or_path, str) and name_or_path in AUDIO_FACTS:
        return _SPLITS
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return audio_layouts.splits_of(path)
    if path.suffix == ".npz" and path.is_file():
        found = npz.members(path, ())[1]
        return tuple(part for part in _SPLITS if f"x_{'test' if part == 'test' else 'train'}" in found)
    return ()


def _named(
    facts: AudioFacts,
    split: str,
    rate: int,
    seconds: float,
    class_names: Sequence[str] | None,
    folder: Path,
    lazy: bool | None,
    fetch: Fetch | None,
) -> LabelledSounds:
    name, samples = facts.name if split == "test" else f"{facts.name}/{split}", round(rate * seconds)
    listing = audio_layouts.find(facts.name, folder, split, seconds, class_names)
    if listing is None:
        failed = f"{facts.name} was not found: looked {audio_layouts.sought(facts.name, folder)}."
        mend = (
            f"Get it from {facts.source} and unpack it there, or say where it is: --data-dir FOLDER, ${DATA_VARIABLE}, "
            "or the path itself."
        )
        if fetch is None:
            raise DatasetError(f"{failed} {mend}")
        try:
            found = fetch(facts, split, samples)
        except DatasetError as error:
            raise DatasetError(f"{failed} {error} {mend}") from error
        found = _matched(found, class_names or facts.names)
    else:
        classes = len(listing.class_names or ())
        if class_names is None and classes != facts.classes:
            raise DatasetError(
                f"{listing.root} is not {facts.name}: it has {classes} classes; expected {facts.classes}. Give the "
                "path itself for a part of it."
            )
        found = _read(listing, name, samples, rate, lazy)
    expected, have = facts.splits[split], len(found.waveforms)
    if expected is not None and have != expected and class_names is None and (rate, seconds) == (16_000, 1.0):
        where = found.name if listing is None else listing.root
        counts = f"{have:,} sounds in its {split} split, {facts.name} has {expected:,}"
        warnings.warn(f"{where} has {counts}: results are not those of {facts.name}", stacklevel=3)
    return found if listing is not None else replace(found, classes=facts.classes)


def _read(listing: Listing, name: str, samples: int, rate: int, lazy: bool | None) -> LabelledSounds:
    """Sounds in files, decoded by several threads at once, or while they are used."""
    if listing.missing:
        known = f"{len(listing.files):,} of {len(listing.files) + len(listing.missing):,} sounds"
        warnings.warn(f"{listing.root} holds {known} of the list; not {some_names(listing.missing)}", stacklevel=4)
    if not listing.files:
        raise DatasetError(f"no usable sound in {listing.root}: expected sounds or class folders; found none.")
    sounds = Sounds(listing.files, samples, rate, listing.starts, listing.silent, listing.root)
    classes = len(listing.class_names) if listing.class_names else None
    data = LabelledSounds(sounds, listing.labels, listing.class_names, name, classes, rate)
    if sounds.nbytes > LAZY_BYTES if lazy is None else lazy:
        return data
    try:
        waveforms = np.empty(sounds.shape, np.int16)
        for rows in slices(len(sounds), _AT_ONCE, "reading", "sounds"):
            waveforms[rows] = sounds[rows]
    except MemoryError as error:
        raise DatasetError(
            f"{len(sounds)} sounds of {samples} samples in {listing.root} do not fit in memory: load them lazily."
        ) from error
    rows = readable_sounds(data, stacklevel=4)
    if len(rows) < len(waveforms):
        waveforms, labels = waveforms[rows], None if listing.labels is None else listing.labels[rows]
        return replace(data, waveforms=waveforms, labels=labels)
    return replace(data, waveforms=waveforms)


def _packed(path: Path, split: str, samples: int, rate: int) -> LabelledSounds:
    """The split of an ``.npz``."""
    found = npz.members(path, ())[1]
    part = None if "waveforms" in found else "test" if split == "test" else "train"
    values_key, labels_key = ("waveforms", "labels") if part is None else (f"x_{part}", f"y_{part}")
    stored, _ = npz.members(path, (values_key, labels_key, "class_names", "rate"))
    if values_key not in stored or (part is not None and labels_key not in stored):
        raise DatasetError(f"{path} holds {', '.join(found) or 'nothing'}: expected {_PACKED}, for this {split} split.")
    values, labels, names = stored[values_key], stored.get(labels_key), stored.get("class_names")
    if "rate" in stored and (stored["rate"].size != 1 or int(stored["rate"].ravel()[0]) != rate):
        raise DatasetError(f"{path} holds sounds at {stored['rate']} Hz: expected {rate} Hz; resample them first.")
    waveforms = _as_int16(values, f"{values_key} in {path}", samples)
    if labels is not None:
        labels = labels[:, 0] if labels.shape == (len(values), 1) else labels
        npz.check_labels(labels, len(values), names, f"{labels_key} in {path}", "sound")
        labels = labels.astype(np.int64)
    if part == "train":
        held = np.arange(len(waveforms)) % _HELD_OUT == _HELD_OUT - 1
        rows = np.flatnonzero(held == (split == "validation"))
        if not len(rows):
            raise DatasetError(f"{path} has a training part of {len(waveforms)} sounds, too few to hold some out.")
        waveforms, labels = waveforms[rows], None if labels is None else labels[rows]
    class_names = None if names is None else [str(name) for name in names]
    return LabelledSounds(
        waveforms=waveforms,
        labels=labels,
        class_names=class_names,
        name=path.stem if part is None or split == "test" else f"{path.stem}/{split}",
        classes=None if class_names is None else len(class_names),
        rate=rate,
    )


def _as_int16(values: np.ndarray, where: str, samples: int) -> np.ndarray:
    """int16 [n, samples] out of int16 or float in [-1, 1] of any length, cut off or with silence at the end."""
    given = f"{where} are {values.dtype} of shape {list(values.shape)}"
    floating = np.issubdtype(values.dtype, np.floating)
    if values.ndim != 2 or not values.size or not (floating or values.dtype == np.int16):
        raise DatasetError(f"{given}: expected int16 or float in [-1, 1], [n, samples].")
    if floating:
        peak = float(np.abs(values).max())
        if not np.isfinite(peak):
            raise DatasetError(f"{given} and hold NaN or infinity: expected values in [-1, 1].")
        if peak > 1:
            raise DatasetError(f"{given} with values to {peak:g}: expected [-1, 1]; divide them first.")
        values = np.clip(np.rint(values * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    values = values[:, :samples]
    return np.ascontiguousarray(np.pad(values, ((0, 0), (0, samples - values.shape[1]))))


def _matched(data: LabelledSounds, class_names: Sequence[str] | None) -> LabelledSounds:
    """The same with the labels of a model, matched by name."""
    if not class_names or data.labels is None or data.class_names is None:
        return data
    listing = audio_layouts.in_order_of(Listing(Path(data.name), [], data.labels, data.class_names), class_names)
    return replace(data, labels=listing.labels, class_names=listing.class_names, classes=len(class_names))
