"""From ``model.onnx`` to TensorFlow: converted once by onnx2tf, then kept in a cache."""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from bridge.child import error_in, run_child
from bridge.errors import TeacherError
from bridge.files import atomic_write, json_text, sha256_file, sync_folder
from bridge.teachers.convert_child import PROGRAM

CACHE_VARIABLE = "AIP_CACHE"
DEFAULT_CACHE = Path("~/.cache/augmented-image-prior")
# Counted up whenever what stands in an entry changes.
FORMAT = 1
_MANIFEST = "conversion.json"
_NOTICE = 3.0  # seconds of silence before a wait is explained
_LONGEST = 3600.0  # seconds a conversion may take
_LAST_LINES = 15  # of a log that is not kept
_FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_folder() -> Path:
    """Where converted networks are kept: ``$AIP_CACHE``, by default ``~/.cache/augmented-image-prior``."""
    return Path(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE).expanduser()


def converted(onnx_path: str | Path, cache: str | Path | None = None) -> Path:
    """Return a TensorFlow SavedModel that computes what a canonical ``model.onnx`` does; made once, then cached. Ours.

    Its signature ``serving_default`` takes ``images``, float32 ``[batch, height, width, 3]`` in [0, 1] (or
    ``waveform``, ``[batch, samples]`` in [-1, 1]), and gives ``scores``, float32 ``[batch, classes]``. Its weights are
    constants. What enters the cache has answered two seeded batches as onnxruntime does. It is found again by the
    content of the file and the versions of onnx2tf and TensorFlow; safe with several processes at once.

    Args:
        onnx_path: A canonical ONNX file (see `bridge.teachers.onnx_file`).
        cache: The cache's folder; None: :func:`cache_folder`. One that cannot be written is replaced by a temporary one
            for this process, with a warning.

    Raises:
        TeacherError: The file is no canonical ONNX file or changes meanwhile, onnx2tf is not installed or cannot
            convert it (the node is named, and where the whole log lies), or the disk is full.
    """
    onnx_path = Path(onnx_path)
    versions = _versions()
    try:
        digest = sha256_file(onnx_path)
    except OSError as error:
        raise TeacherError(f"{onnx_path} cannot be read ({error}).") from error
    made_from = {"format": FORMAT, "onnx": digest, **versions}
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:40]
    root = (cache_folder() if cache is None else Path(cache).expanduser()).absolute() / "tensorflow"
    if _is_whole(root / key):
        return root / key
    from bridge.teachers.onnx_file import read_onnx

    read_onnx(onnx_path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{key}.lock").touch()
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(root, error) from error
        root = _temporary(root, error)
        if _is_whole(root / key):
            return root / key
    try:
        with _alone(root / f"{key}.lock", onnx_path) as alone:
            for leftover in root.glob(f".{key}.*.tmp") if alone else ():  # of processes that were killed
                shutil.rmtree(leftover, ignore_errors=True)
            if not _is_whole(root / key):  # another process may have been at it meanwhile
                _convert(onnx_path, root, key, made_from)
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(root, error) from error
        raise TeacherError(f"The converted form of {onnx_path} cannot be written to {root} ({error}).") from error
    return root / key


def _convert(onnx_path: Path, root: Path, key: str, made_from: dict[str, Any]) -> None:
    work = root / f".{key}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    saved, log = work / "saved", root / f"{key}.log"
    try:
        saved.parent.mkdir()
        copy = work / "model.onnx"
        shutil.copyfile(onnx_path, copy)
        if sha256_file(copy) != made_from["onnx"]:
            raise TeacherError(f"{onnx_path} changed while it was read; try again.")
        log.write_bytes(b"")
        words = [str(copy), str(saved)]
        code = run_child("bridge.teachers.convert_child", words, log, _notice(f"Converting {onnx_path} for TensorFlow"))
        if code != 0:
            if code < 0:
                why = f"it was ended by signal {-code}{'; perhaps the memory was full' if code == -9 else ''}"
            else:
                why = error_in(log, 0, PROGRAM).removesuffix(".")
            more = f"The whole log: {log}."
            if root == _temporary_folder:  # which nobody could look into afterwards
                more = f"The end of its log:\n{_end_of(log, work)}"
            raise TeacherError(f"{onnx_path} cannot be converted for TensorFlow: {why}. {more}")
        files = {path.relative_to(saved).as_posix(): sha256_file(path) for path in _files_in(saved)}
        for name in files:
            with open(saved / name, "rb") as file:
                os.fsync(file.fileno())
        atomic_write(saved / _MANIFEST, json_text({"made_from": made_from, "files": files}))
        if not _is_whole(root / key):
            if (root / key).exists():
                (root / key).rename(work / "damaged")
            saved.rename(root / key)
            sync_folder(root)
        log.unlink(missing_ok=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _end_of(log: Path, work: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").replace(f"{work}{os.sep}", "").splitlines()
    return "\n".join([line for line in lines if line.strip()][-_LAST_LINES:])


def _is_whole(entry: Path) -> bool:
    """Whether an entry holds what was written, to the byte."""
    try:
        files = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(sha256_file(entry / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def _alone(lock: Path, onnx_path: Path) -> Iterator[bool]:
    """Let one process at a time make an entry; the others wait for it, and say so. False: there are no locks here."""
    try:
        import fcntl
    except ImportError:  # Windows: two convert, and one renames first
        yield False
        return
    with open(lock, "ab") as file:
        tick = _notice(f"Waiting for another process that converts {onnx_path}")
        locked = None
        while locked is None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                tick()
                time.sleep(0.2)
            except OSError:  # some network file systems have none
                locked = False
        yield locked


def _notice(text: str) -> Callable[[], None]:
    """A function to call now and then, that says once what takes so long, and in the end that it takes too long."""
    began, said = time.monotonic(), False

    def tick() -> None:
        nonlocal said
        passed = time.monotonic() - began
        if passed > _NOTICE and not said:
            said = True
            print(f"{text} (once; the result is kept) …", file=sys.stderr, flush=True)
        if passed > _LONGEST:
            raise TeacherError(f"{text}: given up after {_LONGEST / 60:.0f} minutes.")

    return tick


_temporary_folder: Path | None = None


def _temporary(root: Path, error: OSError) -> Path:
    global _temporary_folder
    if _temporary_folder is None:
        _temporary_folder = Path(tempfile.mkdtemp(prefix="aip-"))
        atexit.register(shutil.rmtree, _temporary_folder, ignore_errors=True)
        warnings.warn(
            f"The cache {root} cannot be written ({error}): what is converted is forgotten when this process ends. Set "
            f"{CACHE_VARIABLE} to a folder that can.",
            stacklevel=3,
        )
    return _temporary_folder


def _disk_full(root: Path, error: OSError) -> TeacherError:
    return TeacherError(
        f"There is no room for a converted network in {root} ({error.strerror}). Make some, or set {CACHE_VARIABLE} to "
        "a folder on another disk."
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in ("onnx2tf", "onnx", "onnxruntime"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise TeacherError(
                f"Crossing to TensorFlow through ONNX needs the package {package}: pip install -r "
                "requirements/bridge.txt (of the source; it is in the TF 2.15 set)."
            ) from error
    try:
        import tensorflow as tf
    except ImportError as error:
        raise TeacherError("Converting an ONNX file for TensorFlow needs TensorFlow itself, installed.") from error
    return {"onnx2tf": found["onnx2tf"], "tensorflow": tf.__version__}
