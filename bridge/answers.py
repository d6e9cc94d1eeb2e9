"""A teacher's answers to a fixed set of mixed batches, on disk: asked once, read by every later epoch and student.

A folder with ``answers.json`` (what the answers belong to, and how many there are) and ``answers.f16``, float16
``[steps, batch, classes]``. Fixed batches are those of the run's first epoch; every epoch shows all of them again, in
another ``order`` of steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import weakref
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridge.datum.counter import permutation
from bridge.errors import RunError, TeacherError
from bridge.files import atomic_write, json_text, plain, remove_leftovers, sync_folder
from bridge.folders import differences, explained, lock_folder, refuse_foreign

MANIFEST = "answers.json"
DATA = "answers.f16"
_FORMAT = 1
_DTYPE = np.dtype("<f2")
_LARGEST = float(np.finfo(np.float16).max)
# What must also be the same, beside the identity.
_LAYOUT = ("steps", "batch", "classes", "dtype")
_FULL = "What was flushed before is kept; free some disk space and start again to go on."
_REMEDY = "restore it, or remove the folder and let the teacher answer again."


class _Progress(NamedTuple):
    """What is known of the steps answered: how many, the CRC-32 of their bytes, the largest rounding error."""

    answered: int = 0
    crc32: int = 0
    rounding_error: float = 0.0


class AnswerStore:
    """The stored answers of one teacher to one fixed set of batches. Made by ``AnswerStore.open``; use it ``with``.

    One process writes at a time, steps in order; any number read. ``flush`` makes progress durable, so after a kill
    at any instant the store goes on behind the last step flushed.

    Attributes:
        folder: Where the store is.
        steps: Batches in the store.
        batch: Rows per batch.
        classes: Answers per row.
    """

    def __init__(
        self, folder: Path, wanted: Mapping[str, Any], progress: _Progress, lock: int | None, file: BinaryIO | None
    ) -> None:
        self.folder = folder
        self.steps, self.batch, self.classes = (int(wanted[key]) for key in ("steps", "batch", "classes"))
        self._wanted = wanted
        self._progress = self._durable = progress
        self._unlock = None if lock is None else weakref.finalize(self, os.close, lock)
        self._file = file

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        identity: Mapping[str, Any],
        steps: int,
        batch: int,
        classes: int,
        create: bool = True,
    ) -> AnswerStore:
        """Open a store, make a new one, or go on with one that is not complete. Ours.

        All answers there are read once and compared with their CRC-32: the fastest check that finds every flipped
        bit (SHA-256 took three times as long), well under a second per GB in memory. It guards against accidents;
        against a forger no hash beside the data would help.

        Args:
            folder: The store's folder; a new store needs it missing or empty.
            identity: What the answers are a function of, as JSON values: digests of teacher, datum and recipe,
                views, mixing, seed, image size. An existing store must have the same.
            steps: Fixed batches, at least 1.
            batch: Rows per batch, at least 1.
            classes: Answers per row, at least 1.
            create: False opens for reading only: nothing is written or locked, and a missing store is an error. A
                complete store is only read either way.

        Raises:
            RunError: The store belongs to something else, naming every difference; the folder holds other things;
                data or manifest are damaged; another process is writing; the disk is too full.
        """
        folder = Path(folder)
        for name, value in (("steps", steps), ("batch", batch), ("classes", classes)):
            if value < 1:
                raise RunError(f"{name} (={value}) must be at least 1 to store a teacher's answers.")
        wanted = {
            "format": _FORMAT,
            "identity": plain(identity),
            "steps": int(steps),
            "batch": int(batch),
            "classes": int(classes),
            "dtype": "float16",
        }
        with _using(folder, "Choose another folder, or make this one usable."):
            progress = _found(folder, wanted)
            if progress is None and not create:
                raise RunError(
                    f"{folder} holds no stored answers; expected a folder with {MANIFEST}. Let the teacher answer into "
                    f"it first, or correct its name."
                )
            if progress is not None and (progress.answered == steps or not create):
                _verify(folder, wanted, progress)
                return cls(folder, wanted, progress, None, None)
            _check_room(folder, wanted)
            folder.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(folder, "writing a teacher's answers into", "folder")
            try:
                # Once more, because another process may have been at work before this one got the lock.
                progress = _found(folder, wanted)
                remove_leftovers(folder)
                progress, file = _prepared(folder, wanted, progress)
            except BaseException:
                if lock is not None:
                    os.close(lock)
                raise
        return cls(folder, wanted, progress, lock, file)

    def close(self) -> None:
        """Flush, let other processes write, and take no more answers; what is there can still be read.

        Raises:
            RunError: As for ``flush``.
        """
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None
            if self._unlock is not None:
                self._unlock()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        # The error that ended the block is the one to see.
        with contextlib.suppress(RunError) if kind is not None else contextlib.nullcontext():
            self.close()

    @property
    def missing(self) -> range:
        """The steps that have no answer yet; those before them have."""
        return range(self._progress.answered, self.steps)

    @property
    def rounding_error(self) -> float:
        """The largest difference between an answer as given and as stored, over all steps answered."""
        return self._progress.rounding_error

    def write(self, step: int, answers: ArrayLike) -> None:
        """Store the answers to one batch, unchanged but for rounding to float16; durable after ``flush``.

        Args:
            step: ``missing[0]``.
            answers: Floats ``[batch, classes]``, finite and within ±65,504: logits or log-probabilities. Not
                probabilities: float16 keeps hardly a digit of those below 1e-6.

        Raises:
            TeacherError: The answers have another shape, are not finite or beyond float16.
            RunError: The step is another one, the store is open for reading only, or the disk is full. After an
                error the step is still missing and can be written again.
        """
        if self._file is None or not self.missing:
            state = "closed, or open for reading only" if self.missing else "complete"
            raise RunError(f"No answers can be added to {self.folder}: it is {state}. Ask `missing` what it needs.")
        if step != self.missing[0]:
            raise RunError(
                f"Answers to step {step} came to {self.folder}; expected step {self.missing[0]}. Write steps in order."
            )
        given = np.asarray(answers).astype(np.float64)
        if given.shape != (self.batch, self.classes):
            raise TeacherError(
                f"The teacher's answers to step {step} have shape {list(given.shape)}; expected "
                f"[{self.batch}, {self.classes}], one row per view and one column per class."
            )
        # Negated, because a comparison with NaN is false.
        if (bad := np.argwhere(~(np.abs(given) <= _LARGEST))).size:
            row, column = bad[0].tolist()
            raise TeacherError(
                f"The teacher's answer to step {step}, row {row}, class {column} is {given[row, column]:g}; stored "
                f"answers are float16 and must be finite and within ±{_LARGEST:,.0f}. Check the teacher and the mean "
                f"and std of its input, or do without stored answers."
            )
        stored = given.astype(_DTYPE)
        content = stored.tobytes()
        with _using(self.folder, _FULL):
            self._file.seek(step * len(content))
            left = memoryview(content)
            # Unbuffered, so that no later call trips over what a full disk refused.
            while left:
                left = left[self._file.write(left) :]
        self._progress = _Progress(
            step + 1,
            zlib.crc32(content, self._progress.crc32),
            max(self.rounding_error, float(np.abs(stored - given).max())),
        )

    def flush(self) -> None:
        """Make what was written survive a kill and a power cut: first the answers, then the manifest that says so.

        Raises:
            RunError: The disk is full or broken. Steps since the last flush are then missing again.
        """
        if self._file is None or self._progress == self._durable:
            return
        try:
            with _using(self.folder, _FULL):
                os.fsync(self._file.fileno())
                _write_manifest(self.folder, self._wanted, self._progress)
        except RunError:
            # After a failed fsync the kernel may have dropped pages, and the next one would not say so.
            self._progress = self._durable
            raise
        self._durable = self._progress

    def read(self, step: int) -> NDArray[np.float16]:
        """Return the answers to one batch: float16 ``[batch, classes]``, read-only, mapped from the file.

        Raises:
            RunError: The step has no answer yet, or is none of the store.
        """
        if not 0 <= step < self._progress.answered:
            raise RunError(
                f"{self.folder} holds no answers to step {step}; {self._progress.answered} of its {self.steps} steps "
                f"are answered. Let the teacher answer the others first."
            )
        return self._map[step]

    @cached_property
    def _map(self) -> NDArray[np.float16]:
        with _using(self.folder, "Check that its files may be read."):
            shape = (self.steps, self.batch, self.classes)
            return np.asarray(np.memmap(self.folder / DATA, dtype=_DTYPE, mode="r", shape=shape))


def order(seed: int, epoch: int, steps: int) -> NDArray[np.int64]:
    """Which stored step an epoch shows when: int64 ``[steps]``, a permutation of its own for every epoch.

    Also for the first, so that the epochs are all alike and the teacher answers all steps before training begins.
    Ours; the batches keep their rows.
    """
    return permutation(seed, epoch, steps, "stored_order")


def _using(folder: Path, advice: str) -> contextlib.AbstractContextManager[None]:
    return explained(f"Cannot use {folder} for a teacher's answers", advice)


def _size(wanted: Mapping[str, Any], steps: int) -> int:
    return steps * wanted["batch"] * wanted["classes"] * _DTYPE.itemsize


def _found(folder: Path, wanted: Mapping[str, Any]) -> _Progress | None:
    """The progress of the store in the folder, which must be the one wanted; None where there is nothing yet."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; expected a folder for a teacher's answers. Choose another name.")
    path = folder / MANIFEST
    if not path.exists():
        refuse_foreign(folder, "holds no stored answers", "folder")
        return None
    try:
        saved = dict(json.loads(path.read_bytes()))
        if (version := saved["format"]) != _FORMAT:
            raise RunError(
                f"{path} has format {version!r}; this version reads {_FORMAT}. Use the version that wrote it, or "
                f"choose another folder."
            )
        progress = _Progress(int(saved["answered"]), int(saved["crc32"]), float(saved["rounding_error"]))
        identity, layout = dict(saved["identity"]), {key: saved[key] for key in _LAYOUT}
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}: {error}); {_REMEDY}") from error
    changed = differences(identity, wanted["identity"])
    changed += differences(layout, {key: wanted[key] for key in _LAYOUT})
    if changed:
        raise RunError(
            f"The answers in {folder} belong to something else: {', '.join(changed)}. Choose another folder, "
            f"remove this one, or use its values."
        )
    if not 0 <= progress.answered <= wanted["steps"]:
        raise RunError(f"{path} is damaged ({progress.answered} of {wanted['steps']} steps answered); {_REMEDY}")
    return progress


def _verify(folder: Path, wanted: Mapping[str, Any], progress: _Progress) -> None:
    path, expected = folder / DATA, _size(wanted, wanted["steps"])
    size = path.stat().st_size if path.exists() else 0
    # Before the first answer the file may not have got its size yet.
    if progress.answered and size != expected:
        raise RunError(f"{path} has {size:,} bytes; expected {expected:,}: it is truncated or damaged; {_REMEDY}")
    if (crc := _crc32(path, _size(wanted, progress.answered))) != progress.crc32:
        raise RunError(
            f"{path} is damaged: its first {progress.answered:,} steps have CRC-32 {crc:08x}; {MANIFEST} says "
            f"{progress.crc32:08x}; {_REMEDY}"
        )


def _crc32(path: Path, length: int) -> int:
    """The CRC-32 of the first bytes of a file; read and not mapped, because a disk failing under a map kills."""
    crc = 0
    if length:
        with open(path, "rb") as file:
            while piece := file.read(min(length, 1 << 20)):
                crc = zlib.crc32(piece, crc)
                length -= len(piece)
    return crc


def _check_room(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse before the teacher is asked anything, if the disk has no room for what is missing."""
    path = folder / DATA
    # What the file has on the disk already, answered or not, needs no new room. (Windows does not say.)
    there = getattr(path.stat(), "st_blocks", 0) * 512 if path.exists() else 0
    needed = _size(wanted, wanted["steps"]) - there
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    if needed > free:
        raise RunError(
            f"Storing answers to {wanted['steps']:,} batches of {wanted['batch']:,} rows and {wanted['classes']:,} "
            f"classes in {folder} needs {needed:,} more bytes; {free:,} are free. Free some disk space, choose a "
            f"folder on another disk, or use fewer views."
        )


def _prepared(folder: Path, wanted: Mapping[str, Any], progress: _Progress | None) -> tuple[_Progress, BinaryIO | None]:
    """The progress, checked, and the data file, open for writing and of its full size; all under the lock."""
    if progress is None:
        progress = _Progress()
        # Before the data, so that a folder with answers always says whose they are.
        _write_manifest(folder, wanted, progress)
    _verify(folder, wanted, progress)
    if progress.answered == wanted["steps"]:
        return progress, None
    path = folder / DATA
    path.touch()
    # Written through the file and not through a map, where a full disk kills the process.
    file = open(path, "r+b", buffering=0)  # noqa: SIM115
    try:
        file.truncate(_size(wanted, wanted["steps"]))
        sync_folder(folder)
    except BaseException:
        file.close()
        raise
    return progress, file


def _write_manifest(folder: Path, wanted: Mapping[str, Any], progress: _Progress) -> None:
    atomic_write(folder / MANIFEST, json_text({**wanted, **progress._asdict()}))
