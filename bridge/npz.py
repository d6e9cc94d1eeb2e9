"""Labelled images in an ``.npz`` file: one set, or a training and a test part as Keras lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridge.errors import DatasetError


class Stored(NamedTuple):
    """What a file holds: images uint8 [n, h, w, 3], labels int64 [n], class names; the last two where known."""

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str] | None


def has_parts(path: Path) -> bool:
    """Whether a file holds ``x_train`` and ``x_test``, not one set of ``images``.

    Raises:
        DatasetError: the file is damaged, or no ``.npz``.
    """
    found = members(path, ())[1]
    return {"x_train", "x_test"} <= set(found) and "images" not in found


def read(path: Path, part: str | None = None) -> Stored:
    """Read one set, or one part of a file that has parts.

    One set is ``images`` uint8 [n, h, w, 3] or [n, h, w] and, where known, ``labels`` integers [n] and
    ``class_names``. Parts are Keras's ``x_train, y_train, x_test, y_test`` (labels also [n, 1]), with
    ``class_names`` where known. Grey images come back with three equal channels.

    Args:
        path: the file.
        part: ``train`` or ``test``; None: the file is one set.

    Raises:
        DatasetError: the file is damaged, or what it holds is of another kind.
    """
    images_key, labels_key = ("images", "labels") if part is None else (f"x_{part}", f"y_{part}")
    stored, found = members(path, (images_key, labels_key, "class_names"))
    expected = "images and labels" if part is None else "x_train, y_train, x_test and y_test"
    if images_key not in stored or (part is not None and labels_key not in stored):
        raise DatasetError(f"{path} holds {', '.join(found) or 'nothing'}: expected {expected}.")
    images, labels, names = stored[images_key], stored.get(labels_key), stored.get("class_names")
    grey = images.ndim == 3
    if images.dtype != np.uint8 or not (grey or images.shape[3:] == (3,)) or images.size == 0:
        given = f"{images_key} in {path} are {images.dtype} of shape {list(images.shape)}"
        raise DatasetError(f"{given}: expected uint8 [n, h, w, 3] or [n, h, w]; floats multiplied by 255.")
    if labels is not None:
        labels = labels[:, 0] if part is not None and labels.shape == (len(images), 1) else labels
        check_labels(labels, len(images), names, f"{labels_key} in {path}")
    return Stored(
        images=np.repeat(images[..., None], 3, axis=3) if grey else images,
        labels=None if labels is None else labels.astype(np.int64),
        class_names=None if names is None else [str(name) for name in names],
    )


def members(path: Path, wanted: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those of the arrays wanted that a file holds, and the names of all of them.

    Raises:
        DatasetError: the file is damaged, or no ``.npz``.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in wanted if key in archive}, list(archive.files)
    # On a damaged archive NumPy raises anything from BadZipFile to TokenError.
    except Exception as error:
        expected = "expected a whole .npz file of plain arrays; write it again with np.savez"
        raise DatasetError(f"{path} cannot be read ({error}): {expected}.") from error


def check_labels(labels: np.ndarray, count: int, names: np.ndarray | None, where: str, one: str = "image") -> None:
    """Refuse what are no labels of so many images, or of whatever `one` of them is called.

    Raises:
        DatasetError: another type, shape or range.
    """
    given = f"{where} are {labels.dtype} of shape {list(labels.shape)}"
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(f"{given}: expected integers of shape [{count}], one per {one}.")
    classes = np.inf if names is None else len(names)
    if labels.min() < 0 or labels.max() >= classes:
        limits = "0 or more" if names is None else f"below {len(names)}, the number of class_names"
        raise DatasetError(f"{given}, from {labels.min()} to {labels.max()}: expected {limits}.")
