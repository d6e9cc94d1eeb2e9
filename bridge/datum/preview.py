"""What the student will see: base views, augmented views and mixed ones, as pictures."""

from __future__ import annotations

import numpy as np

from bridge.datum.mixing import Mixing, MixingNumbers, mixing_numbers
from bridge.datum.render import render
from bridge.datum.views import ViewSet


def previews(view_set: ViewSet, mixing: Mixing, count: int) -> dict[str, np.ndarray]:
    """The first views of a run.

    Returns:
        Caption → uint8 [count, size, size, 3].
    """
    n = np.arange(count)
    augmented = render(view_set, n)
    mixed = mix(augmented, mixing_numbers(mixing, view_set.seed, 0, count))
    return {
        "base views, cut from the one image": to_bytes(render(base_views(view_set), n)),
        "the same ones, augmented for training": to_bytes(augmented),
        f"mixed ({mixing.kind}): what teacher and student are shown": to_bytes(mixed),
    }


def base_views(view_set: ViewSet) -> ViewSet:
    """The same views before augmentation, in the same order."""
    return ViewSet(view_set.source, view_set.recipe.without_augmentation(), views=view_set.views, seed=view_set.seed)


def mix(images: np.ndarray, numbers: MixingNumbers) -> np.ndarray:
    """`keras_aip.mixing.mix` in NumPy.

    Args:
        images: float32 [batch, height, width, channels].
        numbers: of the same rows.

    Returns:
        float32 of the same shape.
    """
    height, width = images.shape[1:3]
    partners = images[np.arange(len(images)) + numbers.partner]
    left, top, right, bottom = (edge[:, None, None, None] for edge in numbers.box.T)
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, None, :, None]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[None, :, None, None]
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    return np.where(inside, partners, images + numbers.weight[:, None, None, None] * (partners - images))


def to_bytes(images: np.ndarray) -> np.ndarray:
    """float [0, 1] → uint8."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
