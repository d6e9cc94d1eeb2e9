"""Writing views, clips and sounds out as files, for people who want files: a folder or tar shards, resumable.

Views are a function of their number, so an interrupted export only has to render the numbers whose files are
missing. A file gets its name only when it is whole: it is written beside and renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from bridge.datum.audio_files import encode_wav
from bridge.datum.clip_files import check_writable, encode_clip
from bridge.errors import DatumError
from bridge.files import remove_leftovers, replacing
from bridge.progress import progress_bar

FOLDER_SIZE = 1000
MANIFEST = "manifest.json"

Render = Callable[[np.ndarray], np.ndarray]


def write_views(
    render: Render,
    count: int,
    out: str | os.PathLike[str],
    *,
    layout: str = "folder",
    image_format: str = "png",
    quality: int = 95,
    rate: float = 12.0,
    batch: int = 256,
    shard_size: int = 10_000,
    labels: np.ndarray | None = None,
    manifest: dict[str, Any],
    progress: bool = True,
) -> int:
    """Render views 0..count-1 and write them out; go on where an earlier call with the same manifest left.

    ``folder`` writes ``000/00000012.png``, a thousand to a sub-folder; ``tar`` writes shards
    ``views-000000.tar`` with the keys ``00000012.png`` (WebDataset style), the same bytes for the same views.

    Args:
        render: view numbers int64 [n] to views uint8 [n, h, w, 3] RGB, to clips uint8 [n, frames, h, w, 3], or to
            sounds float32 [n, samples] in [-1, 1]; must depend on the numbers alone.
        count: how many views there are to be in the end.
        out: the folder; created if missing; refused if it holds anything but an earlier export.
        layout: ``folder`` or ``tar``.
        image_format: ``png`` (exact) or ``jpg``, without chroma subsampling; of clips ``mp4`` (`encode_clip`);
            of sounds ``wav`` (`encode_wav`).
        quality: JPEG quality, 1..100; unused for others.
        rate: of clips in frames per second, of sounds in samples per second; unused for images.
        batch: views rendered at a time; changes nothing in the files.
        shard_size: views per tar shard.
        labels: integers [count], one class per view: ``00000012.cls`` in the shards, or one ``labels.csv``.
        manifest: what the views are a function of (datum hash, recipe, seed, ...), as JSON values. Written to
            ``manifest.json`` before any view, with the arguments that change the files.
        progress: show a progress bar on stderr.

    Returns:
        How many views were written by this call: 0 if all were there.

    Raises:
        DatumError: arguments out of range, another export in the folder, views of another shape, a full disk; clips,
            and no PyAV.
    """
    _check(count, layout, image_format, quality, batch, shard_size, labels)
    if image_format == "mp4":
        check_writable(rate)
    out = Path(out).expanduser()
    _open_export(
        out,
        manifest,
        {
            "count": int(count),
            "layout": layout,
            "format": image_format,
            "quality": quality if image_format == "jpg" else None,
            "shard_size": shard_size if layout == "tar" else None,
            "labels_sha256": None if labels is None else _labels_hash(labels),
            **({"rate": float(rate)} if image_format in ("mp4", "wav") else {}),
        },
    )

    def encoded(numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for some in _batches(numbers, batch):
            views = _rendered(render, some, image_format)
            for number, view in zip(some.tolist(), views, strict=True):
                yield number, _encode(view, image_format, quality, rate)

    unit = "clips" if image_format == "mp4" else "views"

    if layout == "folder":
        if labels is not None:
            rows = [f"{_file_name(n, image_format)},{label}\n" for n, label in enumerate(labels.tolist())]
            _write_whole(out / "labels.csv", "".join(["file,label\n", *rows]).encode(), durable=True)
        missing = list(_missing_files(out, count, image_format))
        with progress_bar(f"writing {unit}", unit, count, count - len(missing), show=progress) as advance:
            for number, content in encoded(missing):
                _write_whole(out / _file_name(number, image_format), content, durable=False)
                advance(1)
        return len(missing)
    shards = [(start, min(start + shard_size, count)) for start in range(0, count, shard_size)]
    missing = [(start, stop) for start, stop in shards if not _shard(out, start, shard_size).is_file()]
    to_write = sum(stop - start for start, stop in missing)
    with progress_bar(f"writing {unit}", unit, count, count - to_write, show=progress) as advance:
        for start, stop in missing:
            views = encoded(range(start, stop))
            _write_shard(_shard(out, start, shard_size), views, image_format, labels, advance)
    return to_write


def _check(
    count: int,
    layout: str,
    image_format: str,
    quality: int,
    batch: int,
    shard_size: int,
    labels: np.ndarray | None,
) -> None:
    for name, value in (("count", count), ("batch", batch), ("shard_size", shard_size)):
        if value < 1:
            raise DatumError(f"{name} is {value}: expected 1 or more.")
    for name, value, known in (
        ("layout", layout, ("folder", "tar")),
        ("image_format", image_format, ("png", "jpg", "mp4", "wav")),
    ):
        if value not in known:
            raise DatumError(f"{name} is {value!r}: expected one of {', '.join(known)}.")
    if not 1 <= quality <= 100:
        raise DatumError(f"quality is {quality}: expected 1 to 100.")
    if labels is not None and not (labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer)):
        given = f"{labels.dtype} of shape {list(labels.shape)}"
        raise DatumError(f"labels are {given}: expected integers of shape [{count}], one per view.")


def _labels_hash(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def _open_export(out: Path, manifest: dict[str, Any], ours: dict[str, Any]) -> None:
    """Write the manifest, or make sure that the one there describes the same export."""
    if clash := sorted(manifest.keys() & ours.keys()):
        raise DatumError(f"the manifest has keys of our own: {', '.join(clash)}; expected others, rename them.")
    try:
        text = json.dumps({**manifest, **ours}, indent=2, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise DatumError(f"the manifest is no JSON ({error}): expected text, numbers, lists, dicts.") from error
    path = out / MANIFEST
    with _naming(out):
        out.mkdir(parents=True, exist_ok=True)
        others = [name for name in os.listdir(out) if not name.startswith(".")]
        found = path.read_bytes() if MANIFEST in others else None
    if found is None:
        if others:
            raise DatumError(
                f"{out} holds no {MANIFEST} but {sorted(others)[0]}: expected a new or "
                "empty folder or an earlier export; name another folder."
            )
        _write_whole(path, text.encode() + b"\n", durable=True)
        return
    now = json.loads(text)
    try:
        earlier = dict(json.loads(found))
    except (ValueError, TypeError) as error:
        raise DatumError(f"{path} is damaged ({error}): remove the folder or name another one.") from error
    differ = [key for key in sorted(earlier | now) if _short(earlier, key) != _short(now, key)]
    if differ:
        changes = "; ".join(f"{key}: there {_short(earlier, key)}, now {_short(now, key)}" for key in differ)
        raise DatumError(
            f"{out} holds another export, different in {changes}. Expected the same manifest: name "
            "another folder, remove this one, or use its values."
        )
    remove_leftovers(out)


def _short(manifest: dict[str, Any], key: str) -> str:
    if key not in manifest:
        return "nothing"
    text = json.dumps(manifest[key], sort_keys=True)
    if len(text) <= 80:
        return text
    return f"{text[:60]}... (sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"


def _missing_files(out: Path, count: int, image_format: str) -> Iterator[int]:
    for start in range(0, count, FOLDER_SIZE):
        folder = (out / _file_name(start, image_format)).parent
        with _naming(folder):
            folder.mkdir(exist_ok=True)
            # A power cut may leave a renamed file without its content.
            there = {entry.name for entry in os.scandir(folder) if entry.stat().st_size > 0}
        for number in range(start, min(start + FOLDER_SIZE, count)):
            if f"{number:08d}.{image_format}" not in there:
                yield number


def _file_name(number: int, image_format: str) -> str:
    return f"{number // FOLDER_SIZE:03d}/{number:08d}.{image_format}"


def _shard(out: Path, start: int, shard_size: int) -> Path:
    return out / f"views-{start // shard_size:06d}.tar"


def _batches(numbers: Iterable[int], size: int) -> Iterator[np.ndarray]:
    numbers = np.fromiter(numbers, dtype=np.int64)
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _rendered(render: Render, numbers: np.ndarray, image_format: str) -> np.ndarray:
    views = np.asarray(render(numbers))
    dtype, sides = {"mp4": ("uint8", "frames, h, w, 3"), "wav": ("float32", "samples")}.get(
        image_format, ("uint8", "h, w, 3")
    )
    right_shape = views.ndim == 2 + sides.count(",") and len(views) == len(numbers) and views.size > 0
    if views.dtype != dtype or not right_shape or (dtype == "uint8" and views.shape[-1] != 3):
        raise DatumError(
            f"render gave {views.dtype} of shape {list(views.shape)} for {len(numbers)} views: expected "
            f"{dtype} [{len(numbers)}, {sides}]."
        )
    return views


def _encode(view: np.ndarray, image_format: str, quality: int, rate: float) -> bytes:
    if image_format == "mp4":
        return encode_clip(view, rate)
    if image_format == "wav":
        return encode_wav(view, round(rate))
    buffer = io.BytesIO()
    if image_format == "png":
        # Views are small and noisy: more effort takes several times as long and saves next to nothing.
        Image.fromarray(view).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(view).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatumError(
            f"cannot write {path}: {error.strerror or error}. Expected a writable folder with room left: "
            "mend that and run the same again to go on."
        ) from error


@contextmanager
def _beside(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    with _naming(path), replacing(path, durable) as file:
        yield file


def _write_whole(path: Path, content: bytes, durable: bool) -> None:
    with _beside(path, durable) as file:
        file.write(content)


def _write_shard(
    path: Path,
    views: Iterator[tuple[int, bytes]],
    image_format: str,
    labels: np.ndarray | None,
    advance: Callable[[int], None],
) -> None:
    with _beside(path) as file:
        tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)
        for number, content in views:
            _add(tar, f"{number:08d}.{image_format}", content)
            if labels is not None:
                _add(tar, f"{number:08d}.cls", str(int(labels[number])).encode())
            advance(1)
        tar.close()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # TarInfo starts with user, group and time 0: nothing of this machine or hour gets into the shard.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
