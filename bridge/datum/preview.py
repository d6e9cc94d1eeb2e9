"""What the student will see: base views, augmented views and mixed ones, as pictures."""

from __future__ import annotations

import numpy as np

from bridge.datum.mixing import Mixing, MixingNumbers, clip_frames, mixing_numbers
from bridge.datum.render import render
from bridge.datum.views import SampleSet


def previews(view_set: SampleSet, mixing: Mixing, count: int) -> dict[str, np.ndarray]:
    """The first views of a run.

    Returns:
        Caption → uint8 [count, size, size, 3]; of clips [count, size, frames · size, 3], one frame beside the other.
    """
    n = np.arange(count)
    augmented = render(view_set, n)
    mixed = mix(augmented, mixing_numbers(mixing, view_set.seed, 0, count))
    return {
        "base views, cut from the one image": strips(to_bytes(render(base_views(view_set), n))),
        "the same ones, augmented for training": strips(to_bytes(augmented)),
        f"mixed ({mixing.kind}): what teacher and student are shown": strips(to_bytes(mixed)),
    }


def strips(clips: np.ndarray) -> np.ndarray:
    """Clips [rows, frames, height, width, 3] → [rows, height, frames · width, 3]; images remain as they are."""
    if clips.ndim == 4:
        return clips
    rows, frames, height, width, channels = clips.shape
    return clips.transpose(0, 2, 1, 3, 4).reshape(rows, height, frames * width, channels)


def base_views(view_set: SampleSet) -> SampleSet:
    """The same views before augmentation, in the same order."""
    return type(view_set)(
        view_set.source, view_set.recipe.without_augmentation(), views=view_set.views, seed=view_set.seed
    )


def mix(images: np.ndarray, numbers: MixingNumbers) -> np.ndarray:
    """`keras_aip.mixing.mix` in NumPy.

    Args:
        images: float32 [batch, height, width, channels] or [batch, frames, height, width, channels].
        numbers: of the same rows.

    Returns:
        float32 of the same shape.
    """
    height, width = images.shape[-3:-1]
    each = (-1, *[1] * (images.ndim - 1))
    partners = images[np.arange(len(images)) + numbers.partner]
    left, top, right, bottom, *moments = (edge.reshape(each) for edge in numbers.box.T)
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[:, None]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None, None]
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    if moments:
        frames = clip_frames(images.shape, axis=1)
        t = ((np.arange(frames, dtype=np.float32) + 0.5) / frames)[:, None, None, None]
        inside = inside & (t > moments[0]) & (t < moments[1])
    return np.where(inside, partners, images + numbers.weight.reshape(each) * (partners - images))


def to_bytes(images: np.ndarray) -> np.ndarray:
    """float [0, 1] → uint8."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
