"""The reference renderer: view numbers to pixels with NumPy and OpenCV on the host."""

from __future__ import annotations

import numpy as np

from bridge.datum.colour import LUMA
from bridge.datum.views import ViewNumbers, ViewSet

_LUMA = LUMA.astype(np.float32)
_OPENCV_LIMIT = 32_000  # warpAffine keeps positions in 16 bits


def render(views: ViewSet, n: np.ndarray) -> np.ndarray:
    """Samples `n` (integers [batch]) of a view set: float32 [batch, size, size, 3] in [0, 1], RGB."""
    return render_numbers(views.numbers(n), views)


def render_numbers(numbers: ViewNumbers, views: ViewSet) -> np.ndarray:
    """Draw a batch of views.

    Args:
        numbers: of one batch, as `views.numbers` gives them.
        views: whose atlas and recipe they belong to.

    Returns:
        float32 [batch, size, size, 3] in [0, 1], RGB.
    """
    size = views.recipe.size
    out = np.empty((len(numbers.affine), size, size, 3), dtype=np.float32)
    index = np.arange(size, dtype=np.float32)
    for k in range(len(out)):
        image = _sample(views.atlas.level(*map(int, numbers.level[k])), numbers.affine[k], numbers.frame[k], size)
        left, top, right, bottom = numbers.window[k]
        inside = ((index >= top) & (index < bottom))[:, None] & ((index >= left) & (index < right))[None, :]
        for stage, colour in enumerate(numbers.colour[k]):
            seen = image[inside] if stage == 0 else image.reshape(-1, 3)
            mean = (seen @ _LUMA).mean() if len(seen) else 0.0
            image = np.clip(image @ colour[:9].reshape(3, 3).T + colour[9] * mean, 0, 1)
            if stage == 0:  # what lies outside the padded view is black whatever the jitter of the view inside it
                image = image * inside[:, :, None]
        if not len(numbers.colour[k]):
            image = image * inside[:, :, None]
        grey, threshold = numbers.tone[k]
        if grey:
            image = np.repeat((image @ _LUMA)[:, :, None], 3, axis=2)
        out[k] = np.where(image >= threshold, 1 - image, image)
    return out


def _sample(level: np.ndarray, affine: np.ndarray, frame: np.ndarray, size: int) -> np.ndarray:
    """One bilinear sampling of a pyramid level, black outside the frame: float32 [size, size, 3] in [0, 1]."""
    import cv2

    matrix = affine.reshape(2, 3).astype(np.float64)
    index = np.arange(size)
    x = matrix[0, 0] * index[None, :] + matrix[0, 1] * index[:, None] + matrix[0, 2]
    y = matrix[1, 0] * index[None, :] + matrix[1, 1] * index[:, None] + matrix[1, 2]
    if max(level.shape[:2]) > _OPENCV_LIMIT:  # cut out what the view can see
        left, top = (
            int(np.clip(np.floor(v.min()) - 1, 0, s - 1)) for v, s in ((x, level.shape[1]), (y, level.shape[0]))
        )
        level = level[top : top + int(np.ptp(y)) + 4, left : left + int(np.ptp(x)) + 4]
        matrix[:, 2] -= left, top
    seen = cv2.warpAffine(
        np.ascontiguousarray(level), matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    inside = (x >= frame[0]) & (x <= frame[2]) & (y >= frame[1]) & (y <= frame[3])
    return seen.astype(np.float32) * (inside[:, :, None] / np.float32(255))
