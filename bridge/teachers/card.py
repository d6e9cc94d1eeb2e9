"""``card.json``: what a teacher's (or student's) folder says about the network in it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge.errors import TeacherError
from bridge.files import TEMPORARY_SUFFIX, atomic_write, sha256_file, sync_folder
from bridge.names import hint

CARD_NAME = "card.json"
PARITY_NAME = "parity.json"
SCHEMA_VERSION = 1
# A card is a page of text; a larger file is something else, and is not read into memory to find out.
LARGEST_CARD_BYTES = 4 << 20
CHOICES = {
    "layout": ("NHWC", "NCHW", "NCTHW"),
    "channel_order": ("RGB",),
    "outputs": ("logits", "probabilities", "labels"),
}
RANGES = {"image": (0, 1), "audio": (-1, 1), "video": (0, 1)}
SIZES = {"image": ("height", "width"), "audio": ("samples",), "video": ("frames", "height", "width")}
CHANNELS_FIRST = {"image": "NCHW", "video": "NCTHW"}
FORMS = {"safetensors": "weights.safetensors", "keras": "model.keras", "onnx": "model.onnx"}


@dataclass(frozen=True)
class Card:
    """What is known about one network, and the files that hold it. Ours.

    Args:
        classes: Number of classes.
        input_size: Height and width of the images in pixels, the frames, height and width of clips, or the samples of a
            waveform as one number; None: any.
        kind: What it listens to or looks at: ``image`` (RGB in [0, 1]), ``video`` (clips of such) or ``audio``
            (waveforms in [-1, 1]).
        rate: Samples per second of a waveform; None for images and clips.
        front_end: How a waveform becomes features inside the network, as `bridge.teachers.front_end` takes it; all
            forms take waveforms.
        architecture: The name both backends build it by; None: only its files know.
        arguments: What the architecture is built with (``classes``, ``image_size``, ``mean``, ``std``, …).
        class_names: One name per class, in the order of the outputs.
        layout: How the native form takes its images; `model.onnx` always takes ``NCHW``. Clips are always ``NCTHW``:
            the frames behind the channels.
        channel_order: ``RGB``.
        range: Lowest and highest value of images or waveforms, before any normalisation.
        mean: Mean per channel to subtract *before* the native form; None where it does so itself, as `model.onnx` does.
        std: Standard deviation per channel to divide by before the network; None as above.
        outputs: ``logits``, ``probabilities`` or ``labels``.
        parameters: Number of weights.
        accuracy: What was measured: ``{"top1": fraction, "dataset": name, "n": images}``; None: nothing.
        source: Where the network comes from.
        licence: Its licence.
        forms: Form (``safetensors``, ``keras``, ``onnx``) -> file name in the folder, each the one in `FORMS`.
        files: File name -> SHA-256 of its content, 64 hexadecimal digits.
        schema_version: Version of this description.

    Raises:
        TeacherError: A value does not make sense.
    """

    classes: int
    input_size: tuple[int, ...] | None
    kind: str = "image"
    rate: int | None = None
    front_end: dict[str, Any] | None = None
    architecture: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    layout: str = "NHWC"
    channel_order: str = "RGB"
    range: tuple[float, ...] = (0, 1)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    outputs: str = "logits"
    parameters: int = 0
    accuracy: dict[str, Any] | None = None
    source: str = ""
    licence: str = ""
    forms: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION or isinstance(self.schema_version, bool):
            raise TeacherError(
                f"The card has schema version {self.schema_version!r}; this version reads {SCHEMA_VERSION}. "
                "Update this package, or write the teacher again with the version installed."
            )
        _require(_whole(self.classes, 1), "classes", self.classes, "a whole number of at least 1")
        _require(self.kind in tuple(RANGES), "kind", self.kind, f"one of {', '.join(RANGES)}")
        for name in ("input_size", "class_names", "range", "mean", "std"):
            value = getattr(self, name)
            if value is not None:
                _require(isinstance(value, (list, tuple)), name, value, "a list")
                # JSON gives lists; tuples make a card that was read equal to the one that was written.
                object.__setattr__(self, name, tuple(value))
        if self.input_size is not None:
            fits = len(self.input_size) == len(SIZES[self.kind]) and all(_whole(side, 1) for side in self.input_size)
            _require(fits, "input_size", self.input_size, f"[{', '.join(SIZES[self.kind])}]")
        fits = _whole(self.rate, 1) if self.kind == "audio" else self.rate is None
        _require(fits, "rate", self.rate, "whole samples per second of audio, and null otherwise")
        if self.class_names is not None:
            fits = all(isinstance(name, str) for name in self.class_names)
            fits = fits and len(self.class_names) == self.classes
            _require(fits, "class_names", self.class_names, f"{self.classes} names, one per class")
        expected = RANGES[self.kind]
        _require(self.range == expected, "range", self.range, f"{list(expected)}, in which every {self.kind} is given")
        for name, choices in CHOICES.items():
            _require(getattr(self, name) in choices, name, getattr(self, name), f"one of {', '.join(choices)}")
        fits = (self.layout == CHANNELS_FIRST["video"]) == (self.kind == "video")
        _require(fits, "layout", self.layout, f"{CHANNELS_FIRST['video']} of video, and of nothing else")
        for name in ("mean", "std"):
            values = getattr(self, name)
            fits = values is None or (len(values) > 0 and all(_finite(value) for value in values))
            _require(fits, name, values, "finite numbers, one per channel")
        _require((self.mean is None) == (self.std is None), "std", self.std, "given together with mean, or not")
        if self.mean is not None and self.std is not None:
            fits = len(self.mean) == len(self.std) and min(self.std) > 0
            _require(fits, "std", self.std, f"{len(self.mean)} numbers greater than 0")
        _require(_whole(self.parameters, 0), "parameters", self.parameters, "a whole number")
        for name in ("arguments", "forms", "files"):
            _require(isinstance(getattr(self, name), Mapping), name, getattr(self, name), "an object")
        for name in ("accuracy", "front_end"):
            value = getattr(self, name)
            _require(value is None or isinstance(value, Mapping), name, value, "an object")
        top1 = (self.accuracy or {}).get("top1")
        _require(top1 is None or (_finite(top1) and 0 <= top1 <= 1), "accuracy: top1", top1, "a fraction in [0, 1]")
        given = self.arguments.get("classes", self.classes)
        _require(given == self.classes, "arguments: classes", given, f"{self.classes}, as classes says")
        for name in ("source", "licence"):
            _require(isinstance(getattr(self, name), str), name, getattr(self, name), "text")
        known = self.architecture is None or isinstance(self.architecture, str)
        _require(known, "architecture", self.architecture, "a name or null")
        self._check_files()

    def _check_files(self) -> None:
        for form in self.forms:
            if form not in FORMS:
                raise TeacherError(f"forms of the card has {form!r}; known are {', '.join(FORMS)}.")
        for name in (*self.forms.values(), *self.files):
            _require(isinstance(name, str) and name != "", "forms", name, "file names")
            if name in (".", "..") or re.search(r"[/\\:\0]", name):
                raise TeacherError(f"The card names the file {name!r}, which points outside its folder.")
        for form, name in self.forms.items():
            # By another name a file would be opened as something else than what it was checked as.
            if name != FORMS[form]:
                raise TeacherError(
                    f"forms of the card names {name!r} for {form}; expected {FORMS[form]!r}. Rename the file, in the "
                    "folder and in forms and files of its card."
                )
        for name, digest in self.files.items():
            fits = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)
            _require(bool(fits), f"files: {name}", digest, "a SHA-256 of 64 lower-case hexadecimal digits")

    def _require_hashes(self) -> None:
        # Not asked of a card in the making: the files it names may not be written yet.
        for name in self.forms.values():
            if name not in self.files:
                raise TeacherError(f"files of the card lacks the SHA-256 of {name!r}, named in forms.")

    @property
    def digest(self) -> str:
        """Identify what the network computes: a SHA-256 over its architecture and the hash of its primary form.

        That is the first it has of safetensors, keras and onnx, of which the others are made; one more changes nothing.
        """
        names = ("architecture", "arguments", "outputs", "mean", "std")
        parts = {name: getattr(self, name) for name in names}
        # Only of what is no image, so that the digests of images stay what they were before there was anything else.
        parts |= {name: getattr(self, name) for name in ("kind", "front_end") if self.kind != "image"}
        primary = next((name for form, name in FORMS.items() if form in self.forms), None)
        parts["files"] = [self.files[primary]] if primary in self.files else []
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def mark(self) -> str:
        """Identify the folder as it is, with all its forms: a SHA-256 over `digest` and every file's hash."""
        text = json.dumps({"digest": self.digest, "files": dict(self.files)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def sealed(self, folder: str | Path) -> Card:
        """Return this card with the SHA-256 of every form's file as it lies in ``folder`` now.

        Raises:
            TeacherError: A file is missing or unreadable.
        """
        hashes = {name: _hash(Path(folder), name) for name in sorted(set(self.forms.values()))}
        return dataclasses.replace(self, files=hashes)

    def save(self, folder: str | Path) -> None:
        """Write ``card.json`` into an existing folder; whoever looks sees the old card or the new one.

        Raises:
            TeacherError: The folder cannot be written, or a file's SHA-256 is not in the card yet.
        """
        self._require_hashes()
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
        try:
            atomic_write(Path(folder) / CARD_NAME, text)
        except OSError as error:
            raise TeacherError(f"{Path(folder) / CARD_NAME} cannot be written ({error}).") from error

    @classmethod
    def load(cls, folder: str | Path, verify: bool = True) -> Card:
        """Read the card of a folder and, unless told otherwise, check the SHA-256 of all its files.

        Raises:
            TeacherError: Folder, card or a file is missing, broken, or not what the card describes.
        """
        folder = Path(folder)
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "does not exist"
            raise TeacherError(f"{folder} {what}. A teacher is a folder with {CARD_NAME} and weights in it.")
        path = folder / CARD_NAME
        try:
            if path.stat().st_size > LARGEST_CARD_BYTES:
                raise TeacherError(f"{path} has {path.stat().st_size:,} bytes: far too many for a card.")
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise TeacherError(f"{folder} holds no {CARD_NAME}, so it is not a teacher folder.") from error
        except OSError as error:
            raise TeacherError(f"{path} cannot be read ({error}).") from error
        except (ValueError, RecursionError) as error:
            raise TeacherError(f"{path} is not valid JSON ({error}). Write the teacher again.") from error
        try:
            card = cls.from_dict(content)
            card._require_hashes()
        except TeacherError as error:
            raise TeacherError(f"{path}: {error}") from error
        if verify:
            card.verify(folder)
        return card

    @classmethod
    def from_dict(cls, content: Any) -> Card:
        """Make a card from what ``card.json`` holds.

        Raises:
            TeacherError: Keys are unknown (the nearest is named) or missing, or a value does not make sense.
        """
        if not isinstance(content, dict):
            raise TeacherError(f"A card is a JSON object, not a {type(content).__name__}.")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            # Said first: in a card of another version the other keys may rightly be unknown here.
            raise TeacherError(
                f"The card has schema version {version!r}; this version reads {SCHEMA_VERSION}. "
                "Update this package, or write the teacher again with the version installed."
            )
        known = [entry.name for entry in dataclasses.fields(cls)]
        for key in content:
            if key not in known:
                raise TeacherError(f"The card has an unknown key {key!r}; known: {', '.join(known)}.{hint(key, known)}")
        missing = [key for key in ("classes", "input_size") if key not in content]
        if missing:
            raise TeacherError(f"The card lacks {' and '.join(missing)}.")
        return cls(**content)

    def verify(self, folder: str | Path) -> None:
        """Check that every file of the card lies in the folder with the content the card describes.

        Raises:
            TeacherError: A file is missing, unreadable or another one; both hashes are named.
        """
        for name, expected in self.files.items():
            found = _hash(Path(folder), name)
            if found != expected:
                raise TeacherError(
                    f"{Path(folder) / name} is not the file its card describes: SHA-256 is {found}, the card "
                    f"says {expected}. It was changed or damaged; fetch or train this teacher again."
                )


def kind_of(input_size: Sequence[int] | None) -> str:
    """What a network takes by how many numbers its size has; ``image`` where that is open."""
    return next((kind for kind, names in SIZES.items() if len(names) == len(input_size or ())), "image")


@contextlib.contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """Give a fresh folder to write a teacher into; it takes its place if the block ends without error. Ours.

    What calls that were killed left beside it is removed.

    Args:
        folder: The teacher folder to make or to replace; folders above it are made.

    Raises:
        TeacherError: Something else than a teacher is there, or the place cannot be written.
    """
    folder = Path(folder).absolute()
    beside = place_beside(folder)
    try:
        _refuse_to_replace(folder)
        beside.mkdir(parents=True)
        yield beside
        for path in beside.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(beside)
        _put_in_place(beside, folder)
    except OSError as error:
        raise TeacherError(f"{folder} cannot be written ({error}). What it held before is untouched.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def place_beside(place: Path) -> Path:
    """A fresh hidden name beside ``place``, for what is to take its place by being renamed.

    What is left under such names by processes that no longer run on this machine is removed.
    """
    named = re.compile(rf"\.{re.escape(place.name)}\.(\d{{1,9}})-[0-9a-f]{{8}}\.(tmp|old)")
    with contextlib.suppress(OSError):  # what cannot be read or removed is in nobody's way
        for entry in list(place.parent.iterdir()):
            found = named.fullmatch(entry.name)
            # An old folder that stepped aside is all there is, if the kill came before the new one was in its place.
            if found and not _runs(int(found[1])) and (found[2] == "tmp" or place.exists()):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)
    return place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def _runs(process: int) -> bool:
    if os.name == "nt":  # where the question would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _refuse_to_replace(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise TeacherError(f"{folder} exists and is not a folder. Choose another name.")
    inside = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    inside = {name for name in inside if not (name.startswith(".") and name.endswith(TEMPORARY_SUFFIX))}
    strange = inside - {CARD_NAME, PARITY_NAME, *FORMS.values()}
    if strange or (inside and CARD_NAME not in inside):
        listed = ", ".join(sorted(strange or inside)[:5])
        raise TeacherError(
            f"{folder} exists and holds something other than a teacher ({listed}). "
            "Choose another folder, or empty this one."
        )


def _put_in_place(beside: Path, folder: Path) -> None:
    # A folder with files in it cannot be renamed over, so the old one steps aside for an instant.
    aside = beside.with_suffix(".old")
    if folder.exists():
        folder.rename(aside)
    try:
        beside.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _hash(folder: Path, name: str) -> str:
    try:
        return sha256_file(folder / name)
    except FileNotFoundError as error:
        raise TeacherError(f"{folder / name} is missing, though the card of {folder} names it.") from error
    except OSError as error:
        raise TeacherError(f"{folder / name} cannot be read ({error}).") from error


def _require(fits: bool, name: str, value: Any, expected: str) -> None:
    if not fits:
        raise TeacherError(f"{name} of the card is {value!r}; expected {expected}.")


def _whole(value: Any, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
