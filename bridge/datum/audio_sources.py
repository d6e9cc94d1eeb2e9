"""Reading the one clip: from whatever holds sound to ``float32 [samples]`` in [-1, 1] at the rate of the views.

How the less usual kinds get there (ours):

- several channels: their mean;
- a constant offset: taken away, with a warning where it is large;
- values beyond ±1, as mp3 and floating-point files may hold: a little is cut off, much is scaled down with a warning;
- another rate: resampled; a warning where the file holds less than the views could.

Memory is bounded: of very long files the beginning is used.
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridge.datum.audio_files import SOUNDFILE, Decoded, Reader
from bridge.errors import DatumError

MAX_SAMPLES = 2**25
"""At the rate of the views: 35 minutes at 16 kHz."""
NAMED_AUDIO = ("control:noise", "control:constant")
_CONTROL_SECONDS = 60
RATES, CHANNELS = (4_000, 384_000), 8
"""Of recordings: lowest and highest rate in Hz, and how many channels at most."""
_SILENT = 1e-4
CUT_OFF = 1.25
"""Of full scale: what mp3 decoders overshoot stays below."""
_EXPECTED = "expected a sound file (wav, flac, ogg, mp3)"
_VIDEO = "is a video; take its sound out first: ffmpeg -i VIDEO -vn sound.wav"
# Where in the file, what stands there, what it is and what to do about it.
_KINDS = (
    (4, b"ftypM4A", "holds AAC, which is not read; convert it: ffmpeg -i SOUND sound.flac"),
    (4, b"ftyp", _VIDEO),
    (8, b"AVI ", _VIDEO),
    (0, b"\x1a\x45\xdf\xa3", _VIDEO),
    (0, b"FLV", _VIDEO),
    (0, b"\x00\x00\x01\xba", _VIDEO),
    (0, b"\x00\x00\x01\xb3", _VIDEO),
    (0, b"\x30\x26\xb2\x75", "is Windows Media, which is not read; convert it: ffmpeg -i SOUND sound.flac"),
    (0, b"\x89PNG", "is a picture"),
    (0, b"\xff\xd8\xff", "is a picture"),
    (0, b"GIF8", "is a picture"),
    (0, b"%PDF", "is a PDF"),
    (0, b"PK\x03\x04", "is a zip archive; unpack it first"),
    (0, b"\x1f\x8b", "is a gzip archive; unpack it first"),
    (0, b"MThd", "is MIDI, notes without sound"),
)


@dataclass(frozen=True)
class AudioSource:
    """The one clip, decoded.

    Attributes:
        name: short label for reports: the file's name, or that of a built-in source.
        samples: float32 [samples] in [-1, 1], read-only.
        rate: samples per second.
        sha256: hash over the samples and their rate.
    """

    name: str
    samples: np.ndarray
    rate: int
    sha256: str

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate

    def check(self, rate: int, samples: int) -> None:
        """Refuse views of this rate and length if they cannot be cut from it.

        Raises:
            DatumError: another rate, or shorter than a view.
        """
        if self.rate != rate:
            raise DatumError(f"{self.name} was read at {self.rate} Hz, but views have {rate} Hz: read it at that rate.")
        if len(self.samples) < samples:
            raise DatumError(
                f"{self.name} lasts {self.seconds:.3g} s: expected at least {samples / rate:g} s, the length of a "
                "view. Give a longer clip. Views for a teacher are as long as it hears; others can have fewer seconds."
            )


def load_audio(
    audio: str | os.PathLike[str] | np.ndarray, rate: int = 16_000, *, shortest: int = 1, reader: Reader = SOUNDFILE
) -> AudioSource:
    """Read the one clip that all views come from.

    Args:
        audio: a path to a sound file of at most 8 channels; an array at `rate`, float in [-1, 1] or int16, [samples]
            or [samples, channels]; or one of ``NAMED_AUDIO``: white noise, and a steady tone of 440 Hz.
        rate: samples per second of the views.
        shortest: of a clip, in samples at `rate`.
        reader: which library decodes.

    Raises:
        DatumError: the clip is missing, unreadable, damaged, empty, silent, too short, or no sound at all.
    """
    if isinstance(audio, np.ndarray):
        name, label, samples = "array", "the array", _from_array(audio)
    elif isinstance(audio, str) and audio.startswith("control:"):
        name, label, samples = audio, audio, _named(audio, rate)
    elif isinstance(audio, (str, os.PathLike)):
        path = existing(audio)
        name, label, samples = path.resolve().name, str(path), _from_file(path, rate, reader)
    else:
        raise DatumError(f"got a {type(audio).__name__}: expected a path, an array or {', '.join(NAMED_AUDIO)}.")
    if len(samples) > MAX_SAMPLES:
        warnings.warn(_too_long(label, len(samples) / rate, MAX_SAMPLES / rate), stacklevel=2)
        samples = samples[:MAX_SAMPLES]
    samples = np.ascontiguousarray(samples, np.float32)
    peak = float(np.abs(samples).max(initial=0))
    if peak < _SILENT:
        raise DatumError(f"{label} is silent (largest value {peak:.1g} of 1): expected sound to cut views from.")
    np.clip(samples, -1, 1, out=samples)  # filters overshoot
    digest = hashlib.sha256(repr((rate, samples.shape)).encode())
    digest.update(samples.data)
    samples.setflags(write=False)
    source = AudioSource(name, samples, rate, digest.hexdigest())
    source.check(rate, shortest)
    return source


def existing(given: str | os.PathLike[str]) -> Path:
    """The path of an ordinary file.

    Raises:
        DatumError: there is none.
    """
    if not os.fspath(given):
        raise DatumError(f"the path of the clip is empty: {_EXPECTED}.")
    path = Path(given).expanduser()
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatumError(f"{path} does not exist: {_EXPECTED}.") from error
    except (OSError, ValueError) as error:
        raise DatumError(f"cannot reach {str(path)!r} ({error}): check it and its permissions.") from error
    if stat.S_ISDIR(mode):
        raise DatumError(f"{path} is a folder: expected one sound file, for all views come from one clip.")
    # Opening a pipe or a device would wait or read for ever.
    if not stat.S_ISREG(mode):
        raise DatumError(f"{path} is no ordinary file: save the sound as a file first.")
    return path


def decoded(path: Path, decode: Callable[[Path], Decoded]) -> Decoded:
    """What a file holds, for those who know that it is an ordinary one.

    Args:
        path: the file.
        decode: what reads it.

    Raises:
        DatumError: it is damaged, empty or no sound, or of a rate or number of channels that no recording has.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DatumError(f"{path} may not be read ({error.strerror}): check its permissions.") from error
    if not head:
        raise DatumError(f"{path} is empty: {_EXPECTED}.")
    for place, mark, meaning in _KINDS:
        if head[place : place + len(mark)] == mark:
            raise DatumError(f"{path} {meaning}: {_EXPECTED}.")
    try:
        found = decode(path)
    except DatumError:
        raise
    except MemoryError as error:
        raise DatumError(f"{path} does not fit into memory: cut it, or take one channel.") from error
    except Exception as error:  # decoders raise almost anything on hostile files
        if _is_text(head):
            raise DatumError(f"{path} is a text file: {_EXPECTED}.") from error
        reason = " ".join(str(error).split())[:200]
        raise DatumError(
            f"{path} cannot be decoded ({reason}): it is damaged, cut off or of a kind that is not read; {_EXPECTED}."
        ) from error
    channels = found.samples.shape[1]
    if not found.length:
        raise DatumError(f"{path} holds no samples: {_EXPECTED}.")
    if not RATES[0] <= found.rate <= RATES[1] or channels > CHANNELS:
        low, high = RATES
        raise DatumError(
            f"{path} has {channels} channels of {found.rate} Hz: expected at most {CHANNELS} of {low} to {high} Hz."
        )
    return found


def _from_file(path: Path, rate: int, reader: Reader) -> np.ndarray:
    found = decoded(path, lambda file: reader.decode(file, MAX_SAMPLES / rate))
    length = len(found.samples)
    if not length:
        raise DatumError(f"{path} holds no samples: {_EXPECTED}.")
    if found.length > length:
        warnings.warn(_too_long(str(path), found.length / found.rate, length / found.rate), stacklevel=3)
    if found.rate < rate:
        warnings.warn(
            f"{path} was recorded at {found.rate} Hz: views at {rate} Hz hold nothing above {found.rate / 2:g} Hz.",
            stacklevel=3,
        )
    return reader.resample(_mono(found.samples, str(path), strict=False), found.rate, rate)


def _from_array(array: np.ndarray) -> np.ndarray:
    given = f"the array is {array.dtype} of shape {list(array.shape)}"
    expected = "expected float in [-1, 1] or int16, of shape [samples] or [samples, channels]"
    if array.ndim not in (1, 2) or not array.size or (array.ndim == 2 and array.shape[1] > CHANNELS):
        raise DatumError(f"{given}: {expected}.")
    if array.dtype == np.int16:
        array = array.astype(np.float32) / 32768
    if not np.issubdtype(array.dtype, np.floating):
        raise DatumError(f"{given}: {expected}; convert it first.")
    return _mono(array.reshape(len(array), -1), "the array", strict=True)


def _mono(samples: np.ndarray, label: str, *, strict: bool) -> np.ndarray:
    """One channel without offset: [samples, channels] → float32 [samples]."""
    if not np.isfinite(samples).all():
        raise DatumError(f"{label} holds NaN or infinity: expected samples in [-1, 1].")
    peak = float(np.abs(samples).max())
    if peak > 1 and strict:
        raise DatumError(f"{label} holds values to {peak:g}: expected samples in [-1, 1]; divide or clip it first.")
    if peak > CUT_OFF:
        warnings.warn(f"{label} holds values to {peak:g}, beyond full scale: scaled down to 1.", stacklevel=4)
        samples = samples / peak
    samples = np.clip(samples, -1, 1)
    flat = np.abs(samples) >= 0.999
    runs = flat[2:] & flat[1:-1] & flat[:-2]
    share = float(runs.mean()) if runs.size else 0.0
    if share > 1e-4:
        warnings.warn(
            f"{label} is clipped: {share:.2%} of it lies flat at full scale, and so will views.", stacklevel=4
        )
    mono = samples.mean(axis=1, dtype=np.float64)
    offset = mono.mean()
    if abs(offset) > 0.01:
        warnings.warn(f"{label} has a constant offset of {offset:.3f}: taken away.", stacklevel=4)
    mono = (mono - offset).astype(np.float32)
    if len(samples.T) > 1 and np.abs(mono).max() < _SILENT <= np.abs(samples - samples.mean(axis=0)).max():
        raise DatumError(f"the channels of {label} cancel each other: save one of them as a file of its own.")
    return mono


def _named(name: str, rate: int) -> np.ndarray:
    count = min(_CONTROL_SECONDS * rate, MAX_SAMPLES)
    if name == "control:constant":
        return (0.25 * np.sin(2 * np.pi * 440 * np.arange(count) / rate)).astype(np.float32)
    if name == "control:noise":
        # Raw generator words: the one thing NumPy promises never to change.
        words = np.random.PCG64(0).random_raw(-(-count // 4)).astype("<u8").view("<i2")[:count]
        return words.astype(np.float32) / 131072
    raise DatumError(f"unknown named clip {name!r}: expected one of {', '.join(NAMED_AUDIO)}.")


def _is_text(head: bytes) -> bool:
    """Whether this is how a text begins."""
    try:
        text = head.decode("utf-8", errors="ignore" if len(head) == 4096 else "strict")
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c.isspace() for c in text)


def _too_long(label: str, seconds: float, used: float) -> str:
    return f"{label} lasts {seconds:.0f} s: the first {used:.0f} s are used, to bound memory."
