"""Sounds in files as one array of waveforms that decodes what is asked for, and labelled ones.

A sound shorter than asked for gets silence at its end, of a longer one the beginning is taken: what TensorFlow's own
code for Speech Commands does (`decode_wav` with `desired_samples`). TensorFlow Datasets leaves sounds as long as they
are recorded. Long files, where a set has them, are `pieces`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bridge.batches import slices
from bridge.datum import audio_files
from bridge.datum.audio_sources import CHANNELS, CUT_OFF, RATES, decoded, existing
from bridge.datum.sources import some_names
from bridge.errors import DatasetError, DatumError
from bridge.lazy import Lazy, cores

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".caf", ".m4a", ".wma")
"""What is taken for a sound in a folder, by its name; the last two only to be named as what cannot be read."""
FULL_SCALE = 32768
"""Of 16-bit samples, which stand for [-1, 1)."""
_SILENT = 3  # the largest value that counts as silence, as for the clip that views are cut from (1e-4)
_CONTEXT = 0.04  # seconds around a piece for the filter of another rate; a whole number of samples at all usual rates
_LONGEST = 24 * 3600.0  # seconds of a file: more is a header that lies
_AT_ONCE = 16  # sounds per task of a thread
_HEADERS = 1000


def read_sound(path: Path, samples: int, rate: int = 16_000, start: float = 0.0, silent: bool = True) -> np.ndarray:
    """A piece of a sound file, as it is recorded: nothing is scaled, no offset taken away.

    Several channels become their mean. Another rate is resampled; lower than `rate` it holds nothing above half of it.

    Args:
        path: of any kind that libsndfile reads.
        samples: how many; after the end of the file there is silence.
        rate: samples per second.
        start: of the piece, in seconds.
        silent: it may be silence.

    Returns:
        int16 [samples].

    Raises:
        DatumError: it is missing, damaged, empty, silent, no sound, holds NaN or values beyond full scale, or ends
            before the piece begins.
    """
    before = max(start - _CONTEXT, 0.0)
    length = start - before + samples / rate + _CONTEXT
    found = decoded(existing(path), lambda file: audio_files.decode(file, length, before))
    heard = found.samples[round((start - before) * found.rate) :]
    if not len(heard):
        raise DatumError(f"{path} ends before second {start:g}, though it claims {found.length / found.rate:.1f}.")
    if not np.isfinite(heard).all():
        raise DatumError(f"{path} holds NaN or infinity: expected samples in [-1, 1].")
    peak = float(np.abs(heard).max())
    if peak > CUT_OFF:
        raise DatumError(f"{path} holds values to {peak:g}, beyond full scale: expected samples in [-1, 1].")
    mono = found.samples[:, 0] if found.samples.shape[1] == 1 else found.samples.mean(axis=1)
    mono = audio_files.resample(mono, found.rate, rate)[round((start - before) * rate) :][:samples]
    out = np.zeros(samples, np.int16)
    out[: len(mono)] = np.clip(np.rint(mono * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    if not silent and not is_sound(out):
        raise DatumError(f"{path} is silent{f' at second {start:g}' if start else ''}: expected a sound.")
    return out


def is_sound(waveform: np.ndarray) -> bool:
    """Whether there is anything in it: int16 [samples]."""
    return bool(waveform.max(initial=0) > _SILENT or waveform.min(initial=0) < -_SILENT)


def pieces(
    files: Sequence[Path], seconds: float, hop: float | None = None, last: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Where long files are cut: pieces of one length that follow each other from the beginning, the rest left over.

    Only headers are read, by several threads. A file shorter than a piece, or one that cannot be read, is one.

    Args:
        files: of any length.
        seconds: of a piece.
        hop: seconds from one piece to the next; None: as long as a piece.
        last: a piece may end where its file ends; False: only before it, as TensorFlow Datasets cuts noise.

    Returns:
        int64 [pieces], which file each is of; float64 [pieces], where it begins in seconds.

    Raises:
        DatasetError: soundfile is not installed.
    """
    try:
        import soundfile  # noqa: F401
    except ImportError as error:
        raise DatasetError("sound files are read with soundfile, not installed: pip install soundfile") from error
    hop = seconds if hop is None else hop
    lengths = np.zeros(len(files))
    with ThreadPoolExecutor(min(cores(), 32)) as pool:
        for some in slices(len(files), _HEADERS, "measuring", "files"):
            lengths[some] = list(pool.map(_seconds, files[some]))
    # a rounded quotient may lie a little below a whole number
    counts = np.floor((lengths - seconds) / hop + 1e-9) + 1 if last else np.ceil((lengths - seconds) / hop - 1e-9)
    counts = np.maximum(counts, 1).astype(np.int64)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.arange(len(files)), counts), (np.arange(counts.sum()) - first) * hop


def _seconds(path: Path) -> float:
    import soundfile

    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return 0.0
        about = soundfile.info(path)
        length = about.frames / about.samplerate
        usual = RATES[0] <= about.samplerate <= RATES[1] and about.channels <= CHANNELS
        return length if usual and length <= _LONGEST else 0.0
    except Exception:  # whoever reads it says what is wrong
        return 0.0


class Sounds(Lazy):
    """int16 [n, samples] out of files, decoded when asked for. What cannot be used comes out silent: see `unreadable`.

    Args:
        files: of every row.
        samples: of a row.
        rate: samples per second.
        starts: where each row begins in its file, float64 [n] in seconds; None: at the beginning.
        silent: which rows may be silent, bool [n] or for all of them; others without a sound cannot be used.
        root: a folder that holds all files, left out of their names in messages.
    """

    dtype = np.dtype(np.int16)

    def __init__(
        self,
        files: Sequence[Path],
        samples: int,
        rate: int = 16_000,
        starts: np.ndarray | None = None,
        silent: np.ndarray | bool = False,
        root: Path | None = None,
    ) -> None:
        super().__init__()
        self.files, self.samples, self.rate, self.root = list(files), samples, rate, root
        self.starts = np.zeros(len(self.files)) if starts is None else starts
        self.silent = np.broadcast_to(silent, len(self.files))
        self._unreadable: dict[int, str] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """[n, samples]"""
        return len(self.files), self.samples

    @property
    def unreadable(self) -> list[int]:
        """Rows, sorted, of those asked for so far that cannot be used."""
        return sorted(self._unreadable)

    def names(self, rows: Sequence[int]) -> str:
        """The first few of these files, and why they cannot be used, for messages."""
        return some_names([self._name(row) for row in rows])

    def take(self, rows: np.ndarray, axis: int = 0) -> Sounds:
        """Some of them, still undecoded, as `numpy.ndarray.take` along axis 0."""
        if axis != 0:
            raise ValueError(f"axis (={axis}) must be 0.")
        rows = np.asarray(rows)
        files = [self.files[row] for row in rows.tolist()]
        return Sounds(files, self.samples, self.rate, self.starts[rows], self.silent[rows], self.root)

    def read(self, row: int) -> np.ndarray | None:
        """One of them, int16 [samples]; None, kept in mind, if it cannot be used."""
        if row not in self._unreadable:
            try:
                start, silent = float(self.starts[row]), bool(self.silent[row])
                return read_sound(self.files[row], self.samples, self.rate, start, silent)
            except DatumError as error:
                self._unreadable[row] = str(error)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("files", "samples", "rate", "starts", "silent", "root")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _name(self, row: int) -> str:
        path = self.files[row]
        name = (path.relative_to(self.root) if self.root else path).as_posix()
        return f"{name} ({self._unreadable[row].removeprefix(f'{path} ')})" if row in self._unreadable else name

    def _slice(self, start: int, stop: int) -> np.ndarray:
        return self._decoded(range(start, stop))

    def _decoded(self, rows: Sequence[int]) -> np.ndarray:
        out = np.zeros((len(rows), self.samples), np.int16)
        parts = range(0, len(rows), _AT_ONCE)
        tasks: list[Future[None]] = [
            self.submit(self._write, rows[first : first + _AT_ONCE], out[first : first + _AT_ONCE]) for first in parts
        ]
        for task in tasks:
            task.result()
        return out

    def _write(self, rows: Sequence[int], out: np.ndarray) -> None:
        for row, place in zip(rows, out):
            waveform = self.read(row)
            if waveform is not None:
                place[:] = waveform


@dataclass
class LabelledSounds:
    """Sounds with their labels.

    Attributes:
        waveforms: int16 [n, samples], in memory; or `Sounds`, decoded as they are used.
        labels: int64 [n], or None if there are none: then only agreement with a teacher can be measured.
        class_names: in the order of the labels, if known.
        name: the evaluation set, for reports.
        classes: their number, where it is known without names.
        rate: samples per second.
    """

    waveforms: np.ndarray | Sounds
    labels: np.ndarray | None
    class_names: list[str] | None
    name: str
    classes: int | None = None
    rate: int = 16_000

    def check(self, who: str, rate: int, samples: int) -> None:
        """Refuse a network that hears sounds of another length or rate.

        Args:
            who: the network is, for the message.
            rate: samples per second that it hears.
            samples: how many at once.

        Raises:
            DatasetError: naming both sides.
        """
        have = self.waveforms.shape[1]
        if (rate, samples) != (self.rate, have):
            raise DatasetError(
                f"{self.name} has {have} samples at {self.rate} Hz, the {who} wants {samples} at {rate} Hz; load it "
                f"with rate={rate}, seconds={samples / rate:g}."
            )


def floats(waveforms: np.ndarray) -> np.ndarray:
    """What networks hear of 16-bit samples: int16 [...] → float32 [...] in [-1, 1)."""
    return waveforms.astype(np.float32) / FULL_SCALE


def joined_sounds(parts: Sequence[LabelledSounds]) -> LabelledSounds:
    """Several parts of one set, which has labels, as one that is named after the first; undecoded if all are."""
    labels = [part.labels for part in parts if part.labels is not None]
    waveforms = [part.waveforms for part in parts]
    if len(parts) == 1:
        return parts[0]
    lazy = [each for each in waveforms if isinstance(each, Sounds)]
    if len(lazy) == len(waveforms):
        roots = {each.root for each in lazy}
        together: np.ndarray | Sounds = Sounds(
            [file for each in lazy for file in each.files],
            lazy[0].samples,
            lazy[0].rate,
            np.concatenate([each.starts for each in lazy]),
            np.concatenate([each.silent for each in lazy]),
            roots.pop() if len(roots) == 1 else None,
        )
    else:
        together = np.concatenate([np.asarray(each) for each in waveforms])
    return replace(parts[0], waveforms=together, labels=np.concatenate(labels))


def readable_sounds(data: LabelledSounds, stacklevel: int = 2) -> np.ndarray:
    """The rows that count, once all sounds have been asked for: those that could be used.

    A warning says how many could not, and names some with the reason.

    Returns:
        int64 [rows], sorted.

    Raises:
        DatasetError: none could be used.
    """
    sounds, rows = data.waveforms, np.arange(len(data.waveforms))
    if not isinstance(sounds, Sounds) or not (skipped := sounds.unreadable):
        return rows
    where = sounds.root or data.name
    if len(skipped) == len(rows):
        raise DatasetError(f"no usable sound in {where}: found {sounds.names(skipped)}.")
    warnings.warn(
        f"{where}: skipped {len(skipped)} of {len(rows)} sounds, which cannot be used: {sounds.names(skipped)}",
        stacklevel=stacklevel + 1,
    )
    return np.setdiff1d(rows, skipped)


def thinned_sounds(data: LabelledSounds, count: int) -> LabelledSounds:
    """At most so many of the sounds, evenly spaced: sets ordered by class keep all of theirs. Decodes none."""
    total = len(data.waveforms)
    if total <= count:
        return data
    rows = np.linspace(0, total - 1, count).astype(np.int64)
    labels = None if data.labels is None else data.labels[rows]
    return replace(data, waveforms=data.waveforms.take(rows, axis=0), labels=labels)
