"""The reference renderer: numbers of views and clips to pixels with NumPy and OpenCV on the host."""

from __future__ import annotations

import math

import numpy as np

from bridge.datum.colour import LUMA
from bridge.datum.steps import Numbers
from bridge.datum.video import ClipNumbers
from bridge.datum.views import SampleSet, ViewNumbers

_OPENCV_LIMIT = 32_000  # warpAffine keeps positions in 16 bits


def render(views: SampleSet, n: np.ndarray) -> np.ndarray:
    """Samples `n` (integers [batch]) of a view set or clip set, as `render_numbers` draws them."""
    return render_numbers(views.numbers(n), views)


def render_numbers(numbers: Numbers, views: SampleSet) -> np.ndarray:
    """Draw a batch of views or clips.

    Args:
        numbers: of one batch, as `views.numbers` gives them.
        views: whose atlas and recipe they belong to.

    Returns:
        float32 [batch, size, size, 3], or of clips [batch, frames, size, size, 3]; in [0, 1], RGB.
    """
    return _render_clips(numbers, views) if isinstance(numbers, ClipNumbers) else _render_views(numbers, views)


def _render_clips(numbers: ClipNumbers, clips: SampleSet) -> np.ndarray:
    size, frames = clips.recipe.size, clips.recipe.frames
    out = np.empty((len(numbers.affine), frames, size, size, 3), dtype=np.float32)
    for k, clip in enumerate(out):
        for f, image in enumerate(clip):
            level = clips.atlas.level(*map(int, numbers.level[k, f]))
            image[:] = _sample(level, numbers.affine[k, f], numbers.frame[k, f], size)
        tall = clip.reshape(-1, size, 3)  # all frames share one mean, or the light would flicker
        for colour in numbers.colour[k]:
            tall[:] = _jitter(tall, colour)
    return out


def _render_views(numbers: ViewNumbers, views: SampleSet) -> np.ndarray:
    import cv2

    size = views.recipe.size
    out = np.zeros((len(numbers.affine), size, size, 3), dtype=np.float32)
    for k, image in enumerate(out):
        sampled = _sample(views.atlas.level(*map(int, numbers.level[k])), numbers.affine[k], numbers.frame[k], size)
        left, top, right, bottom = (max(0, math.ceil(edge)) for edge in numbers.window[k])
        seen = sampled[top:bottom, left:right]
        # What lies outside the padded view stays black whatever the first jitter, that of the view inside it.
        image[top:bottom, left:right] = _jitter(seen, numbers.colour[k, 0]) if numbers.colour.shape[1] else seen
        for colour in numbers.colour[k, 1:]:
            image[:] = _jitter(image, colour)
        grey, threshold = numbers.tone[k]
        if grey:
            image[:] = (image @ LUMA.astype(np.float32))[:, :, None]
        if threshold <= 1:  # `np.where` branches at every pixel, and takes 25 times as long
            cv2.copyTo(1 - image, (image >= threshold).view(np.uint8), image)
    return out


def _jitter(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """One colour stage (`bridge.datum.colour`) of float32 [height, width, 3]."""
    import cv2

    offset = colour[9] * np.dot(cv2.mean(image)[:3], LUMA)
    matrix = np.column_stack([colour[:9].reshape(3, 3), np.full(3, offset)])
    out = cv2.transform(image, matrix)
    return np.clip(out, 0, 1, out=out)


def _sample(level: np.ndarray, affine: np.ndarray, frame: np.ndarray, size: int) -> np.ndarray:
    """One bilinear sampling of a pyramid level, black outside the frame: float32 [size, size, 3] in [0, 1].

    OpenCV 4 rounds positions to 1/32 of a pixel, OpenCV 5 does not; both give bytes.
    """
    import cv2

    matrix = affine.reshape(2, 3).astype(np.float64)
    x, y = _positions(matrix, np.array([0, size - 1]))  # rounding keeps order, so the corners are the extremes
    whole = bool(x.min() >= frame[0] and x.max() <= frame[2] and y.min() >= frame[1] and y.max() <= frame[3])
    if max(level.shape[:2]) > _OPENCV_LIMIT:  # cut out what the view can see
        left, top = (
            int(np.clip(np.floor(v.min()) - 1, 0, s - 1)) for v, s in ((x, level.shape[1]), (y, level.shape[0]))
        )
        level = level[top : top + int(np.ptp(y)) + 4, left : left + int(np.ptp(x)) + 4]
        shifted = matrix - [[0, 0, left], [0, 0, top]]
    else:
        shifted = matrix
    seen = cv2.warpAffine(
        np.ascontiguousarray(level), shifted, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    if not whole:
        x, y = _positions(matrix, np.arange(size))
        inside = (x >= frame[0]) & (x <= frame[2]) & (y >= frame[1]) & (y <= frame[3])
        seen = cv2.copyTo(seen, inside.view(np.uint8))
    return np.multiply(seen, np.float32(1 / 255), dtype=np.float32)


def _positions(matrix: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the level the pixels of these columns and rows come from: x and y, float64 [rows, columns]."""
    x, y = (row[0] * index[None, :] + (row[1] * index + row[2])[:, None] for row in matrix)
    return x, y
