"""A folder that belongs to one thing: who works in it, what else is in it, and whether the thing is still the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bridge.errors import RunError
from bridge.files import TEMPORARY_SUFFIX

LOCK_NAME = ".lock"


@contextlib.contextmanager
def explained(what: str, advice: str) -> Iterator[None]:
    """Turn what the file system refuses into a RunError that begins with ``what`` and ends with ``advice``."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what}: {error}. {advice}") from error


def refuse_foreign(folder: Path, why: str, other: str) -> None:
    """Refuse a folder with anything in it but what a process leaves that is killed before its first file.

    Args:
        folder: Where something new is to be made; it must exist.
        why: Why it cannot be taken for something to go on with, such as "is no run folder".
        other: What to choose another one of, such as "--out".

    Raises:
        RunError: There is something, naming it.
    """
    names = (entry.name for entry in folder.iterdir())
    foreign = sorted(name for name in names if name != LOCK_NAME and not name.endswith(TEMPORARY_SUFFIX))
    if foreign:
        raise RunError(
            f"{folder} is not empty (it holds {foreign[0]!r}) and {why}; expected an empty or new folder. Choose "
            f"another {other}."
        )


def lock_folder(folder: Path, doing: str, other: str) -> int | None:
    """Take a folder for this process alone, until the returned descriptor is closed; after a kill the kernel does.

    Args:
        folder: It must exist.
        doing: What another process that holds it is doing, such as "working on the run in".
        other: What to choose another one of, such as "--out".

    Returns:
        The descriptor of the lock file, or ``None`` on Windows, where the lock, a courtesy, is left out.

    Raises:
        RunError: Somebody else holds it.
        OSError: The lock file cannot be made.
    """
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise RunError(
                f"Another process is {doing} {folder}; expected to be the only one. Wait for it or stop it, or choose "
                f"another {other}."
            ) from error
        raise
    return descriptor


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say how two sets of JSON values differ, such as ``["mixing.kind was 'cutmix' and is now 'mixup'"]``.

    By value and not by text: 1 and 1.0 are the same.
    """
    before, now = _flat(before), _flat(now)

    def shown(values: Mapping[str, Any], key: str) -> str:
        return repr(values[key]) if key in values else "(not given)"

    changed = [key for key in {**before, **now} if (key in before, before.get(key)) != (key in now, now.get(key))]
    return [f"{key} was {shown(before, key)} and is now {shown(now, key)}" for key in changed]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, ``{"mixing": {"alpha": 1}}`` as ``{"mixing.alpha": 1}``, so a message can be exact."""
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat
