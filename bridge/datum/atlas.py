"""All source images with their mip pyramids in one flat array of pixels, so that one gather reaches any of them.

Minification is the norm (at 32 pixels the median crop is shrunk 14 times), so every view samples the level whose
pixels are about as large as its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

_PADDED = 2**26  # pixels


class Atlas:
    """Pixels of every level of every image.

    Attributes:
        pixels: uint8 [total, 3], RGB, images and levels one after another, row by row.
        sizes: int32 [images, 2]: width and height of each image at level 0.
        table: int32 [images, levels, 3]: offset into `pixels`, width and height of each level.
    """

    def __init__(self, images: Sequence[np.ndarray]):
        """Args: images: uint8 [height, width, 3] each."""
        pyramids = [mip_pyramid(image) for image in images]
        levels = max(len(pyramid) for pyramid in pyramids)
        self.sizes = np.array([[image.shape[1], image.shape[0]] for image in images], dtype=np.int32)
        self.table = np.empty((len(images), levels, 3), dtype=np.int32)
        offset = 0
        parts = []
        for row, pyramid in enumerate(pyramids):
            for level in range(levels):
                if level < len(pyramid):
                    height, width = pyramid[level].shape[:2]
                    self.table[row, level] = offset, width, height
                    offset += width * height
                    parts.append(pyramid[level].reshape(-1, 3))
                else:  # a small image repeats its last level
                    self.table[row, level] = self.table[row, level - 1]
        self.depths = np.array([len(pyramid) for pyramid in pyramids], dtype=np.int32)
        self.pixels = np.concatenate(parts)
        if offset >= 2**31:
            raise ValueError(f"{offset} pixels do not fit 32-bit offsets.")

    def level(self, offset: int, width: int, height: int) -> np.ndarray:
        """One level as an image, without a copy: uint8 [height, width, 3 or 4]; a fourth channel means nothing."""
        return self._padded[offset : offset + width * height].reshape(height, width, -1)

    @cached_property
    def _padded(self) -> np.ndarray:
        """`pixels`, with a fourth channel where it takes little memory: OpenCV warps four twice as fast as three."""
        if len(self.pixels) > _PADDED:
            return self.pixels
        return np.pad(self.pixels, ((0, 0), (0, 1)))


def mip_pyramid(image: np.ndarray) -> list[np.ndarray]:
    """Halve an image until one side is a single pixel, each level the mean of 2 × 2 pixels of the one before.

    An odd last row or column is repeated, so a pixel of level k covers exactly 2^k × 2^k source pixels.

    Args:
        image: uint8 [height, width, 3].

    Returns:
        uint8 images, the first being `image` itself.
    """
    levels = [image]
    exact = image.astype(np.float32)
    while min(exact.shape[:2]) > 1:
        exact = np.pad(exact, ((0, exact.shape[0] % 2), (0, exact.shape[1] % 2), (0, 0)), mode="edge")
        exact = 0.25 * (exact[::2, ::2] + exact[1::2, ::2] + exact[::2, 1::2] + exact[1::2, 1::2])
        levels.append(np.rint(exact).astype(np.uint8))
    return levels
