"""Writing files so that whoever looks sees the old content or the new one, never half of either.

Also what stands in them: plain values and JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

TEMPORARY_SUFFIX = ".tmp"


def sync_folder(folder: Path) -> None:
    """Make a rename or removal inside ``folder`` survive a power cut, where the file system can."""
    # Some network file systems refuse to sync a folder; the rename itself has already happened there.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that takes its place when the block ends without an error.

    The bytes are on the disk before the name changes, so after a kill at any instant ``path`` holds either
    what it held before or everything that was written. After an error the file beside it is removed. Ours.

    Args:
        path: The file to write; its folder must exist.
        durable: Wait until the bytes are on the disk. Without it a power cut, but no kill, may leave the file
            empty; for many small files that can be written again.

    Raises:
        OSError: The folder cannot be written or the disk is full; what ``path`` held before is untouched.

    Example:
        >>> with replacing(Path("numbers.bin")) as file:  # doctest: +SKIP
        ...     file.write(b"123")
    """
    path = Path(path)
    # In the same folder, because a rename across file systems is a copy and a copy can be torn.
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        # "x" and not tempfile, whose files only their owner could read after the rename.
        with open(beside, "xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what calls that were killed left in ``folder`` and below: temporary files, and folders of them."""
    for leftover in list(folder.rglob(f".*{TEMPORARY_SUFFIX}")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a whole file at once: beside, to the disk, then renamed. Ours.

    Args:
        path: The file to write; its folder must exist.
        data: Its whole content; text is written as UTF-8 with the line ends it has.

    Raises:
        OSError: The folder cannot be written or the disk is full; what ``path`` held before is untouched.
    """
    with replacing(Path(path)) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits, reading it piece by piece.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """Return ``value`` as JSON and YAML know it.

    Mappings, lists, text, numbers; NaN and infinity become ``None``, what is none of these its text.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        item = value.item()
        # Long doubles and bfloat16 give themselves back.
        return plain(float(value) if isinstance(item, np.generic) else item)
    if value is None or isinstance(value, bool):
        return value
    # Through the base class, because YAML refuses subclasses such as an enumeration of strings.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value)


def json_text(value: Any) -> str:
    """Return ``value``, made ``plain``, as indented JSON with a line end."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
