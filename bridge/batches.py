"""Labelled images in batches: slices with a bar, and the augmented pixels a teacher is trained on."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bridge.datum.counter import shuffled_index, uniforms
from bridge.errors import DatasetError
from bridge.pictures import Pictures
from bridge.progress import progress_bar

if TYPE_CHECKING:
    from bridge.clips import Clips
    from bridge.sounds import Sounds

_PATIENCE = 3.0  # seconds
_ATTEMPTS = 10  # torchvision's
_AREA, _ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


def slices(total: int, batch_size: int, doing: str = "measuring", unit: str = "images") -> Iterator[slice]:
    """`total` rows in order, `batch_size` at a time; with a bar on a terminal if it takes more than three seconds."""
    began, advance = time.monotonic(), None
    with contextlib.ExitStack() as stack:
        for start in range(0, total, batch_size):
            if advance is None and time.monotonic() - began > _PATIENCE and sys.stderr.isatty():
                advance = stack.enter_context(progress_bar(doing, unit, total, start))
            stop = min(start + batch_size, total)
            yield slice(start, stop)
            if advance is not None:
                advance(stop - start)


def padded_crops(
    images: np.ndarray, numbers: np.ndarray, *, pad: int, flip: bool, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images as the paper's teachers saw them: padded by black, cropped at random, half of them mirrored.

    Args:
        images: uint8 [n, h, w, 3].
        numbers: int64 [k], numbers of samples; everything drawn for a sample follows from its number.
        pad: pixels of border before the random crop.
        flip: mirror half of the images.
        seed: of order and augmentation.

    Returns:
        uint8 [k, h, w, 3]; which images these are, int64 [k]; the centre of each one's cutout, int32 [k, 2], row and
        column.
    """
    (count, height, width), rows = images.shape[:3], np.arange(len(numbers))
    picked = shuffled_index(seed, numbers, count)
    u = uniforms(seed, "teacher_training", numbers, 5)
    mirrored = (u[0] < 0.5) & flip
    top, left = np.floor(u[1:3] * (2 * pad + 1)).astype(np.int64)
    centre = np.floor(u[3:5].T * [height, width]).astype(np.int32)
    padded = np.pad(images[picked], ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # The three channels count as columns: whole rows of a crop are then copied at once, four times as fast.
    flat = padded.reshape(len(numbers), height + 2 * pad, -1)
    windows = np.lib.stride_tricks.sliding_window_view(flat, (height, 3 * width), axis=(1, 2))
    crops = windows[rows, top, 3 * left].reshape(len(numbers), height, width, 3)
    crops[mirrored] = crops[mirrored, :, ::-1]
    return crops, picked, centre


def cut_out(images: np.ndarray, side: int, centre: np.ndarray) -> None:
    """Blacken a square of each image in place, cut off at the border (DeVries & Taylor 2017).

    Args:
        images: uint8 [k, h, w, 3].
        side: of the square in pixels, even; 0 for none.
        centre: int [k, 2], row and column.
    """
    before, after = np.maximum(centre - side // 2, 0), centre + side // 2
    for image, (top, left), (bottom, right) in zip(images, before, after):
        image[top:bottom, left:right] = 0


def picture_crops(pictures: Pictures, numbers: np.ndarray, *, flip: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures in full size as ImageNet's networks are trained on them: `resized_crop`, drawn from a sample's number.

    In place of a picture that cannot be decoded comes the next one that can; a warning names it.

    Args:
        pictures: decoded by several threads.
        numbers: int64 [k], numbers of samples.
        flip: mirror half of them.
        seed: of order and augmentation.

    Returns:
        uint8 [k, size, size, 3]; which pictures these are, int64 [k].

    Raises:
        DatasetError: no picture can be decoded.
    """
    picked, draws = shuffled_index(seed, numbers, len(pictures)), crop_draws(numbers, seed)

    def read(row: int, position: int) -> np.ndarray | None:
        return pictures.read(row, lambda pixels: resized_crop(pixels, pictures.size, draws[position], flip))

    return usable(pictures, picked, read, "image")


def usable(
    files: Pictures | Clips | Sounds, picked: np.ndarray, read: Callable[[int, int], np.ndarray | None], what: str
) -> tuple[np.ndarray, np.ndarray]:
    """What several threads read of files; in place of one that cannot be decoded the next that can, with a warning.

    Args:
        files: whose threads read; `unreadable` says which cannot be decoded.
        picked: int64 [k], the files wanted.
        read: a file and its position among those wanted → array, all of one kind; None if it cannot be decoded.
        what: they are, for messages.

    Returns:
        [k, ...]; which files these are, int64 [k].

    Raises:
        DatasetError: no file can be decoded.
    """
    count, before = len(files.files), files.unreadable

    def draw(position: int) -> tuple[np.ndarray, int]:
        for further in range(count):
            row = int(picked[position] + further) % count
            pixels = read(row, position)
            if pixels is not None:
                return pixels, row
        raise DatasetError(
            f"no usable {what} in {files.root or what + 's given'}: found {files.names(files.unreadable)}."
        )

    drawn = [task.result() for task in [files.submit(draw, position) for position in range(len(picked))]]
    if files.unreadable != before:
        found = files.unreadable
        warnings.warn(
            f"{len(found)} of {count} files are no usable {what}s, others come in their place: {files.names(found)}",
            stacklevel=3,
        )
    return np.stack([pixels for pixels, _ in drawn]), np.array([row for _, row in drawn], np.int64)


def crop_draws(numbers: np.ndarray, seed: int) -> np.ndarray:
    """All that `resized_crop` needs for samples of these numbers: float64 [k, 23]."""
    return uniforms(seed, "teacher_training", numbers, 2 * _ATTEMPTS + 3).T


def crop_box(u: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """A random crop, drawn as torchvision's RandomResizedCrop draws it with its own scale and ratio.

    Of ten pairs of area (0.08 to 1 of the image, uniform) and aspect (3/4 to 4/3, log-uniform) the first that fits;
    else the middle, at the nearest aspect allowed.

    Args:
        u: float64 [23] out of `crop_draws`.
        height, width: of the picture.

    Returns:
        left, top, right, bottom in pixels.
    """
    for area, aspect in zip(u[3 : 3 + _ATTEMPTS], u[3 + _ATTEMPTS :]):
        pixels = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * area)
        ratio = _ASPECT[0] * (_ASPECT[1] / _ASPECT[0]) ** aspect
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(u[1] * (width - w + 1)), int(u[2] * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * _ASPECT[1])), min(height, round(width / _ASPECT[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized_crop(image: np.ndarray, size: int, u: np.ndarray, flip: bool = True) -> np.ndarray:
    """A random crop of a picture at a network's size, mirrored in half of the cases: uint8 [size, size, 3].

    Args:
        image: uint8 [h, w, 3].
        size: side in pixels.
        u: float64 [23], one row of `crop_draws`.
        flip: mirror half of them.
    """
    # Cut off before it is resized, as torchvision does: with a box alone pixels beside it would shine through.
    picture = Image.fromarray(image).crop(crop_box(u, *image.shape[:2]))
    out = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    return out[:, ::-1] if flip and u[0] < 0.5 else out
