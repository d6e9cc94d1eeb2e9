"""Many small images as one, for looking at."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from bridge.errors import DatumError

# A grey that is told from black borders and from white skies, on a bright page and on a dark one.
_GAP_GREY = 160


def image_grid(images: NDArray[np.uint8], columns: int = 8, scale: int = 1, gap: int = 2) -> NDArray[np.uint8]:
    """Lay images out row by row. Ours.

    Args:
        images: uint8 RGB ``[n, height, width, 3]`` in [0, 255], at least one.
        columns: Images per row; fewer images than that make a narrower grid.
        scale: Whole factor by which each is enlarged, every pixel staying a sharp square.
        gap: Grey pixels between neighbours; none around the outside.

    Returns:
        uint8 RGB ``[grid height, grid width, 3]``.

    Raises:
        DatumError: The images are not uint8 ``[n, height, width, 3]`` or there are none, or a number is too
            small.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or images.size == 0:
        raise DatumError(
            f"The images of a grid are {images.dtype} {list(images.shape)}; expected uint8 "
            f"[n, height, width, 3] with at least one. Views in [0, 1] become uint8 by "
            f"(views * 255).round().astype(numpy.uint8)."
        )
    if columns < 1 or scale < 1 or gap < 0:
        raise DatumError(
            f"columns (={columns}) and scale (={scale}) of a grid must be at least 1, gap (={gap}) at least 0."
        )
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, _ = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    grid = np.full(shape, _GAP_GREY, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """Return an image, uint8 ``[height, width, 3]`` or ``[height, width]``, as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    # Of large pictures the last per cent takes seconds.
    Image.fromarray(image).save(buffer, format="PNG", optimize=image.size < 2**20)
    return buffer.getvalue()
