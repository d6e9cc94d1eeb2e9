"""What a run needs to continue, as one file per saved step that is either whole or not there."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bridge.errors import RunError
from bridge.files import TEMPORARY_SUFFIX, replacing, sync_folder

_FILE_NAME = re.compile(r"state-(\d{8,})\.npz")
_FORMAT = 1


@dataclass(frozen=True)
class State:
    """A saved state.

    Attributes:
        step: Number of training steps done.
        arrays: Name to array, in the order and with the dtypes they were saved with.
        meta: What was saved beside the arrays, as JSON gives it back (tuples become lists).
    """

    step: int
    arrays: dict[str, NDArray]
    meta: dict[str, Any]


class StateStore:
    """The newest states of a run in one folder, ``state-00000600.npz`` for step 600. Ours.

    A kill or a full disk at any instant leaves the states saved before readable. Only one process may save.

    Args:
        folder: Where the states are; made by the first ``save``.
        keep: How many of the newest states to keep, at least 1. Two, because the newest may turn out damaged.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise RunError(f"keep (={keep}) must be at least 1: without a state a run cannot be continued.")
        self.folder = Path(folder)
        self.keep = keep

    def steps(self) -> list[int]:
        """Return the steps that have a state file, damaged or not, oldest first."""
        if not self.folder.is_dir():
            return []
        matches = (_FILE_NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Return the file that holds, or would hold, the state of ``step``."""
        return self.folder / f"state-{step:08d}.npz"

    def save(self, step: int, arrays: dict[str, NDArray], meta: dict[str, Any]) -> Path:
        """Save a state, then remove the ones no longer wanted.

        Files of later steps are removed too: ``load`` found them damaged, or the run has gone back before
        them.

        Args:
            step: Number of training steps done, at least 0.
            arrays: Any names; any NumPy dtype but objects and records, and those of ml_dtypes (bfloat16).
            meta: Whatever JSON can hold.

        Returns:
            The file written.

        Raises:
            RunError: The folder cannot be written, the disk is full (the states before stay as they are), or
                the content cannot be stored.
        """
        if step < 0:
            raise RunError(f"step (={step}) must be at least 0.")
        stored = [_storable(name, np.asarray(array)) for name, array in arrays.items()]
        header = {
            "format": _FORMAT,
            "step": int(step),
            "names": list(arrays),
            "dtypes": [np.asarray(array).dtype.name for array in arrays.values()],
            "meta": meta,
        }
        try:
            encoded = np.frombuffer(json.dumps(header).encode("utf-8"), dtype=np.uint8)
        except (TypeError, ValueError) as error:
            raise RunError(f"The notes of the state at step {step} cannot be written as JSON: {error}.") from error
        path = self.path(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            with replacing(path) as file:
                _write_archive(file, encoded, stored)
            self._remove_others(step)
        except OSError as error:
            raise RunError(
                f"Cannot save the state of step {step} in {self.folder}: {error}. The states saved before "
                f"are as they were; free some disk space or make the folder writable, then resume."
            ) from error
        return path

    def load(self) -> State | None:
        """Return the newest readable state, or ``None`` where none was ever saved.

        A damaged file is named in a warning and the one before it is used.

        Raises:
            RunError: There are states and every one is damaged.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                state = self._read(step)
            # A flipped bit can make zip, header and array reading fail in a dozen ways.
            except Exception as error:
                damaged.append(f"{self.path(step).name} ({type(error).__name__}: {error})")
                continue
            if damaged:
                warnings.warn(
                    f"In {self.folder} damaged: {'; '.join(damaged)}. Continuing from step {step} instead.",
                    stacklevel=2,
                )
            return state
        if damaged:
            raise RunError(
                f"No state in {self.folder} can be read: {'; '.join(damaged)}. Expected at least one whole "
                f"file; restore one from a backup, or start again in another folder."
            )
        return None

    def _read(self, step: int) -> State:
        with np.load(self.path(step), allow_pickle=False) as file:
            encoded, digest = file["header"], file["sha256"]
            header = json.loads(encoded.tobytes())
            if header["format"] != _FORMAT:
                raise ValueError(f"written in format {header['format']}, this version reads {_FORMAT}")
            stored = [file[f"array{number}"] for number in range(len(header["names"]))]
        if not np.array_equal(_digest(encoded, stored), digest):
            raise ValueError("its content does not match its SHA-256")
        if header["step"] != step:
            raise ValueError(f"it holds step {header['step']}")
        restored = (_restored(array, name) for array, name in zip(stored, header["dtypes"], strict=True))
        arrays = dict(zip(header["names"], restored, strict=True))
        return State(step=step, arrays=arrays, meta=header["meta"])

    def _remove_leftovers(self) -> None:
        for entry in self.folder.glob(f".state-*{TEMPORARY_SUFFIX}"):
            entry.unlink(missing_ok=True)

    def _remove_others(self, newest: int) -> None:
        kept = [step for step in self.steps() if step <= newest][-self.keep :]
        for step in self.steps():
            if step not in kept:
                self.path(step).unlink(missing_ok=True)
        sync_folder(self.folder)


def _storable(name: str, array: NDArray) -> NDArray:
    """Return an array whose dtype survives an ``.npz``: one of ml_dtypes as unsigned integers of its size."""
    if array.dtype.hasobject or array.dtype.names is not None:
        raise RunError(f"The array {name!r} has dtype {array.dtype}; expected numbers, booleans or text.")
    array = np.asarray(array, order="C")
    if np.dtype(array.dtype.str) == array.dtype:
        return array
    return array.view(f"u{array.dtype.itemsize}")


def _restored(array: NDArray, dtype_name: str) -> NDArray:
    if array.dtype.name == dtype_name:
        return array
    import ml_dtypes

    return array.view(getattr(ml_dtypes, dtype_name))


def _write_archive(file: BinaryIO, header: NDArray, arrays: list[NDArray]) -> None:
    """Write an ``.npz``; ``np.savez`` of NumPy 1 would leave the archive open when the disk is full."""
    members = {"header": header, "sha256": _digest(header, arrays)}
    # Numbered, because a variable may have a name that is none for a file.
    members |= {f"array{number}": array for number, array in enumerate(arrays)}
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, array in members.items():
            # A ZipInfo of its own has a fixed date: equal states are equal files.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _digest(header: NDArray, arrays: list[NDArray]) -> NDArray[np.uint8]:
    """Return the SHA-256 over the header and every array's dtype, shape and bytes, uint8 ``[32]``."""
    digest = hashlib.sha256()
    for array in [header, *arrays]:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)
