"""The reference renderer: numbers of views and clips to pixels with NumPy and OpenCV on the host."""

from __future__ import annotations

import math

import numpy as np

from bridge.datum.audio import AudioSet
from bridge.datum.audio_render import render_audio
from bridge.datum.colour import LUMA, UNCHANGED
from bridge.datum.steps import Numbers
from bridge.datum.video import ClipNumbers
from bridge.datum.views import CountedSet, SampleSet, ViewNumbers

_OPENCV_LIMIT = 32_000  # warpAffine keeps positions in 16 bits
_GREY = np.tile(LUMA, (3, 1))


def render(views: CountedSet, n: np.ndarray) -> np.ndarray:
    """Samples `n` (integers [batch]) of a set of views, clips or sounds: `render_numbers` or `render_audio` of them."""
    if isinstance(views, AudioSet):
        return render_audio(views, n)
    assert isinstance(views, SampleSet)
    return render_numbers(views.numbers(n), views)


def render_numbers(numbers: Numbers, views: SampleSet, out: np.ndarray | None = None) -> np.ndarray:
    """Draw a batch of views or clips.

    Args:
        numbers: of one batch, as `views.numbers` gives them.
        views: whose atlas and recipe they belong to.
        out: an array to draw into, of the shape and type of what is returned, contiguous.

    Returns:
        float32 [batch, size, size, 3], or of clips [batch, frames, size, size, 3]; in [0, 1], RGB.
    """
    out = np.empty((len(numbers.affine), *views.recipe.shape), np.float32) if out is None else out
    if isinstance(numbers, ClipNumbers):
        _render_clips(numbers, views, out)
    else:
        _render_views(numbers, views, out)
    return out


def _render_clips(numbers: ClipNumbers, clips: SampleSet, out: np.ndarray) -> None:
    size = clips.recipe.size
    for k, clip in enumerate(out):
        for f, image in enumerate(clip):
            level = clips.atlas.level(*map(int, numbers.level[k, f]))
            _sample(level, numbers.affine[k, f], numbers.frame[k, f], size, image)
        tall = clip.reshape(-1, size, 3)  # all frames share one mean, or the light would flicker
        for colour in numbers.colour[k]:
            _jitter(tall, colour)


def _render_views(numbers: ViewNumbers, views: SampleSet, out: np.ndarray) -> None:
    import cv2

    size = views.recipe.size
    for k, image in enumerate(out):
        level = views.atlas.level(*map(int, numbers.level[k]))
        _sample(level, numbers.affine[k], numbers.frame[k], size, image)
        left, top, right, bottom = (max(0, math.ceil(edge)) for edge in numbers.window[k])
        seen = image[top:bottom, left:right]
        first = numbers.colour.shape[1] > 0
        if seen.shape == image.shape:
            if first:
                _jitter(image, numbers.colour[k, 0])
        else:  # what lies outside the padded view stays black whatever the first jitter, that of the view inside it
            seen = seen.copy()
            if first:
                _jitter(seen, numbers.colour[k, 0])
            image[:] = 0
            image[top:bottom, left:right] = seen
        for colour in numbers.colour[k, 1:]:
            _jitter(image, colour)
        grey, threshold = numbers.tone[k]
        if grey:
            image[:] = cv2.transform(image, _GREY)
        if threshold <= 1:  # `np.where` branches at every pixel, and takes 25 times as long
            cv2.copyTo(1 - image, (image >= threshold).view(np.uint8), image)


def _jitter(image: np.ndarray, colour: np.ndarray) -> None:
    """One colour stage (`bridge.datum.colour`) of float32 [height, width, 3], contiguous, in place."""
    import cv2

    if np.array_equal(colour, UNCHANGED):
        return
    offset = colour[9] * np.dot(cv2.mean(image)[:3], LUMA)
    matrix = np.column_stack([colour[:9].reshape(3, 3), np.full(3, offset)])
    np.clip(cv2.transform(image, matrix), 0, 1, out=image)


def _sample(level: np.ndarray, affine: np.ndarray, frame: np.ndarray, size: int, out: np.ndarray) -> None:
    """One bilinear sampling of a pyramid level, black outside the frame, into float32 [size, size, 3] in [0, 1].

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
    if seen.shape[2] == 4:
        seen = cv2.cvtColor(seen, cv2.COLOR_RGBA2RGB)
    np.multiply(seen, np.float32(1 / 255), out=out)


def _positions(matrix: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the level the pixels of these columns and rows come from: x and y, float64 [rows, columns]."""
    x, y = (row[0] * index[None, :] + (row[1] * index + row[2])[:, None] for row in matrix)
    return x, y
