"""Pictures in files as one array that decodes what is asked for, and the way from a picture to a square.

Squares of 96 pixels and more come about as everywhere for ImageNet: the short side to size · 256 / 224 (bilinear,
antialiased), then the middle; equal to the pixel to torchvision's Resize(256) and CenterCrop(224) on the same pixels.
Two things differ from torchvision's folders, both of `bridge.datum.sources`: EXIF orientation is applied, and pictures
above 32 million pixels are reduced first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bridge.datum.sources import read_image, some_names
from bridge.errors import DatumError
from bridge.lazy import Lazy

LAZY_BYTES = 2**30
"""Sets that take more memory than this are decoded while they are used. Ours."""
LARGE = 96
"""From this side on pictures are resized beyond the size asked for and cropped, in pixels. Ours."""
# Longer strips lose their ends before they are resized, which else could fill the memory.
_LONGEST = 16


def fitted(image: np.ndarray, size: int) -> np.ndarray:
    """The centre square of an image, resized; an image of just that size stays untouched.

    Args:
        image: uint8 [h, w, 3].
        size: side in pixels; from 96 on the short side is resized to size · 256 / 224 before the crop, below to size.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if (height, width) == (size, size):
        return image
    if size >= LARGE:
        return _as_imagenet(image, size)
    top, left = (height - short) // 2, (width - short) // 2
    if short == size:
        return image[top : top + size, left : left + size]
    # Cropping and resizing in one go: a long strip would fill the memory if it were resized first.
    box = (left, top, left + short, top + short)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))


def _as_imagenet(image: np.ndarray, size: int) -> np.ndarray:
    short, side = min(image.shape[:2]), round(size * 256 / 224)
    top, left = (max(length - _LONGEST * short, 0) // 2 for length in image.shape[:2])
    image = image[top : top + _LONGEST * short, left : left + _LONGEST * short]
    height, width = (int(side * length / short) for length in image.shape[:2])
    picture = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


class Pictures(Lazy):
    """uint8 [n, size, size, 3] out of files, each decoded whenever it is asked for.

    Slices and integer arrays give arrays, decoded by as many threads as there are cores; after a slice the next one of
    the same length is decoded ahead. What cannot be decoded comes out black and is kept in mind: see `unreadable`.

    Args:
        files: the pictures.
        size: side in pixels; how pictures come to it `fitted` says.
        root: a folder that holds all of them, left out of their names in messages.
    """

    def __init__(self, files: Sequence[Path], size: int, root: Path | None = None) -> None:
        super().__init__()
        self.files, self.size, self.root = list(files), size, root
        self._unreadable: set[int] = set()
        self._next: tuple[tuple[int, int], np.ndarray, list[Future[None]]] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[n, size, size, 3]"""
        return len(self.files), self.size, self.size, 3

    @property
    def unreadable(self) -> list[int]:
        """Rows, sorted, of the files asked for so far that are no usable image."""
        return sorted(self._unreadable)

    def names(self, rows: Sequence[int]) -> str:
        """The first few of these files, for messages."""
        paths = [self.files[row] for row in rows]
        return some_names([(p.relative_to(self.root) if self.root else p).as_posix() for p in paths])

    def take(self, rows: np.ndarray, axis: int = 0) -> Pictures:
        """Some of them, still undecoded, as `numpy.ndarray.take` along axis 0."""
        if axis != 0:
            raise ValueError(f"axis (={axis}) must be 0.")
        return Pictures([self.files[row] for row in np.asarray(rows).tolist()], self.size, self.root)

    def read(self, row: int, finish: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
        """One picture in full size, uint8 [h, w, 3], through `finish`; None, kept in mind, if it cannot be decoded."""
        if row not in self._unreadable:
            try:
                return finish(read_image(self.files[row]))
            except DatumError:
                self._unreadable.add(row)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "size": self.size, "root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _slice(self, start: int, stop: int) -> np.ndarray:
        with self._turn:
            ahead, self._next = self._next, None
            if ahead is None or ahead[0] != (start, stop) or not self._has_threads():
                out, tasks = self._begin(range(start, stop))
            else:
                _, out, tasks = ahead
            then = range(stop, min(2 * stop - start, len(self.files)))
            for task in tasks:
                task.result()
            if len(then):
                self._next = ((then.start, then.stop), *self._begin(then))
        return out

    def _decoded(self, rows: Sequence[int]) -> np.ndarray:
        out, tasks = self._begin(rows)
        for task in tasks:
            task.result()
        return out

    def _begin(self, rows: Sequence[int]) -> tuple[np.ndarray, list[Future[None]]]:
        out = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        return out, [self.submit(self._write, row, out[position]) for position, row in enumerate(rows)]

    def _write(self, row: int, out: np.ndarray) -> None:
        image = self.read(row, lambda pixels: fitted(pixels, self.size))
        out[...] = 0 if image is None else image
