"""Fake clips: from the number of a sample to the numbers of a box that wanders over one image.

As with views of images, a sample's base clip is keyed on a permuted index of the finite set, its training-time
augmentation on the sample's own number. Augmentation, crop and flip are composed with the box of every frame, so pixels
are sampled once.
"""

from __future__ import annotations

from math import comb
from typing import Any, NamedTuple

import numpy as np

from bridge.datum.augmix import augmix_draws, augmix_numbers
from bridge.datum.colour import COLOUR_NUMBERS, JITTER_DRAWS, jitter_numbers
from bridge.datum.counter import shuffled_index, uniforms
from bridge.datum.geometry import CROP_DRAWS, area_crop, box_map, compose, flip_map, shift_map
from bridge.datum.video_recipes import MOTIONS, VideoRecipe, video_recipe
from bridge.datum.views import SampleSet
from bridge.errors import RecipeError

_HEAD_DRAWS = 3 + 2 + JITTER_DRAWS  # initial crop; vertical flip and moment; jitter
_BOX_DRAWS = CROP_DRAWS + 1  # and its angle
_AUGMENTATION_DRAWS = 5  # moment, short side, crop and flip


class ClipNumbers(NamedTuple):
    """Everything a renderer needs to draw a batch of clips; as in `ViewNumbers`, with a frame axis.

    Attributes:
        affine: float32 [batch, frames, 6].
        frame: float32 [batch, frames, 4]; outside it a frame is black.
        level: int32 [batch, frames, 3].
        colour: float32 [batch, stages, 10]: one for all frames, whose mean luma is taken together.
    """

    affine: Any
    frame: Any
    level: Any
    colour: Any


class ClipSet(SampleSet):
    """All clips of one datum.

    Args:
        source: whatever `load_source` takes, or a `Source`.
        recipe: a `VideoRecipe`.
        views: size of the finite set of base clips that every epoch shows again in a new order and freshly augmented;
            None draws new ones for ever.
        seed: 0 ≤ seed < 2**64.
    """

    recipe: VideoRecipe

    def __init__(self, source: Any, recipe: VideoRecipe, *, views: int | None = None, seed: int = 0):
        super().__init__(source, recipe, views=views, seed=seed)

    def numbers(self, n: np.ndarray) -> ClipNumbers:
        """The numbers of samples `n` (integers [batch]): see `ClipNumbers`."""
        n = np.asarray(n, dtype=np.int64)
        recipe, frames = self.recipe, self.recipe.frames
        base, points = recipe.base, MOTIONS[recipe.base.motion]
        index = shuffled_index(self.seed, n, self.views)
        u = uniforms(self.seed, "base", index, _HEAD_DRAWS + points * _BOX_DRAWS)
        first, span, augmentation, augmix = self._augmentation(n)
        if base.motion == "none":
            first, span = u[4], 0.0
        times = np.asarray(first)[..., None] + span * np.linspace(0, 1, frames)
        image, boxes, frame = self._boxes(u, np.broadcast_to(times, (len(n), frames)))
        flip = flip_map(u[3] < base.vertical_flip, recipe.base_size, axis=1)
        whole = np.repeat(compose(flip, augmentation), frames, axis=0)
        affine, frame, level = self._on_levels(np.repeat(image, frames), compose(boxes, whole), frame)
        stages = [] if base.jitter is None else [jitter_numbers(u[5:_HEAD_DRAWS], base.jitter)]
        stages += [] if augmix is None else [augmix]
        colour = np.stack(stages, axis=1) if stages else np.zeros((len(n), 0, COLOUR_NUMBERS))
        affine, frame, level = (part.reshape(len(n), frames, -1) for part in (affine, frame, level))
        return ClipNumbers(affine, frame, level, colour.astype(np.float32))

    def _boxes(self, u: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the box is at `times` ([n, frames], 0 to 1).

        Returns:
            image [n], maps from base frames to source pixels [n · frames, 2, 3], and what may be seen of the source:
            left, top, right, bottom [n · frames, 4].
        """
        base, size = self.recipe.base, float(self.recipe.base_size)
        n, frames = times.shape
        image, corner, side = self._initial_crop(u[:3])
        points = MOTIONS[base.motion]
        drawn = u[_HEAD_DRAWS:].reshape(points, _BOX_DRAWS, n)
        boxes = np.stack([area_crop(one[:CROP_DRAWS], side, base.area, base.aspect) for one in drawn], axis=1)
        boxes[..., :2] += corner[:, None]
        # On a Bézier curve every box lies within the hull of the given ones, and so in the initial crop. The ends are
        # the first two drawn, so that they are the same whatever the motion.
        order = [0, *range(2, points), 1]
        weights = [comb(points - 1, k) * times**k * (1 - times) ** (points - 1 - k) for k in range(points)]
        path = np.einsum("pnf,npk->nfk", weights, boxes[:, order]).reshape(-1, 4)
        out = box_map(path, size)
        if base.motion != "smooth":
            return image, out, self._frame(path)
        angles = np.radians(base.rotation * (2 * drawn[order, CROP_DRAWS] - 1))
        angle = np.einsum("pnf,pn->nf", weights, angles).ravel()
        # A turned box keeps to the upright one when it shrinks; by the same factor all the way, or it would pulsate.
        widest, ratio = np.abs(angles).max(axis=0), boxes[..., 2] / boxes[..., 3]
        longest = np.maximum(ratio, 1 / ratio).max(axis=1)
        shrink = np.repeat(1 / (np.cos(widest) + longest * np.sin(widest)), frames)
        cos, sin = np.cos(angle) * shrink, np.sin(angle) * shrink
        turn = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=1)
        out[:, :, :2] = turn @ out[:, :, :2]
        out[:, :, 2] = path[:, :2] + path[:, 2:] / 2 - out[:, :, :2].sum(axis=2) * size / 2
        crop = np.concatenate([corner, side[:, None], side[:, None]], axis=1)
        return image, out, self._frame(np.repeat(crop, frames, axis=0))

    def _augmentation(self, n: np.ndarray) -> tuple[Any, float, np.ndarray, np.ndarray | None]:
        """First moment of the clip [n], how much of the way it shows, map from output to base frames, colour."""
        recipe, size, base_size = self.recipe, float(self.recipe.size), float(self.recipe.base_size)
        extra = recipe.augmentation
        if extra is None:
            return np.zeros(len(n)), 1.0, shift_map(np.zeros((len(n), 2))), None
        more = 0 if extra.augmix is None else augmix_draws(extra.augmix)
        u = uniforms(self.seed, "augmentation", n, _AUGMENTATION_DRAWS + more)
        low, high = extra.short_side
        side = low + np.floor(u[1] * (high - low + 1))
        corner = np.floor(u[2:4] * (side - size + 1))
        box = np.stack([*corner, np.full(len(n), size), np.full(len(n), size)], axis=1) * (base_size / side)[:, None]
        cut = compose(box_map(box, size), flip_map(u[4] < extra.flip, size, axis=0))
        first = u[0] * (1 - extra.span)
        if extra.augmix is None:
            return first, extra.span, cut, None
        moved, colour = augmix_numbers(u[_AUGMENTATION_DRAWS:], extra.augmix, base_size)
        return first, extra.span, compose(moved, cut), colour


def make_clip_set(
    image: Any, size: int, frames: int, motion: str, recipe: str | VideoRecipe | None, *, clips: int | None, seed: int
) -> ClipSet:
    """A clip set from options.

    Args:
        image: whatever `load_source` takes.
        size: side of a frame in pixels.
        frames: of a clip.
        motion: "linear", "smooth" or "none".
        recipe: a `VideoRecipe` of these, the name of one, or None for "video".
        clips, seed: as `views` and `seed` of `ClipSet`.

    Raises:
        DatumError: the image cannot be read. RecipeError: a value is out of range.
    """
    if clips is not None and clips < 1:
        raise RecipeError(f"clips (={clips}) must be at least 1, or None for endless fresh clips.")
    if not isinstance(recipe, VideoRecipe):
        recipe = video_recipe(recipe, size, frames, motion)
    given = {"image_size": size, "frames": frames, "motion": motion}
    own = {"size": recipe.size, "frames": recipe.frames, "base.motion": recipe.base.motion}
    for (asked, value), (name, of_recipe) in zip(given.items(), own.items()):
        if value != of_recipe:
            raise RecipeError(f"{asked} (={value!r}) and recipe.{name} (={of_recipe!r}) must be equal.")
    return ClipSet(image, recipe, views=clips, seed=seed)
