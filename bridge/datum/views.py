"""From the number of a sample to the numbers of its view: a few dozen per view, pure NumPy.

A sample's base view is keyed on a permuted index of the finite set, its training-time augmentation on the sample's own
number; so any step of a run can be drawn by itself, on any host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bridge.datum import geometry
from bridge.datum.atlas import Atlas
from bridge.datum.colour import COLOUR_NUMBERS, JITTER_DRAWS, jitter_numbers
from bridge.datum.counter import shuffled_index, uniforms
from bridge.datum.geometry import CROP_DRAWS, area_crop, box_map, compose, flip_map, rotation_shear_map, shift_map
from bridge.datum.recipes import ImageRecipe
from bridge.datum.recipes import recipe as named_recipe
from bridge.datum.sources import Source, load_source
from bridge.errors import RecipeError


class ViewNumbers(NamedTuple):
    """Everything a renderer needs to draw a batch of views. A tuple of arrays, so it travels through `tf.data`.

    Pixel positions are sample indices: the centre of a level's first pixel is 0.

    Attributes:
        affine: float32 [batch, 6]: x = a0·column + a1·row + a2, y = a3·column + a4·row + a5, from output to level.
        frame: float32 [batch, 4]: left, top, right, bottom in the level; outside it the view is black.
        window: float32 [batch, 4]: left, top, right, bottom in output pixels; outside it the view is black.
        level: int32 [batch, 3]: offset of the level in the atlas, its width and height.
        colour: float32 [batch, stages, 10]: see `bridge.datum.colour`.
        tone: float32 [batch, 2]: 1 to turn grey; the threshold above which to invert (2: none).
    """

    affine: Any
    frame: Any
    window: Any
    level: Any
    colour: Any
    tone: Any


class CountedSet:
    """One datum and the samples drawn from it by their numbers.

    Attributes:
        source, recipe, views, seed: as given, the source read.
    """

    source: Any
    recipe: Any

    def __init__(self, views: int | None, seed: int):
        if views is not None and views < 1:
            raise RecipeError(f"views (={views}) must be at least 1, or None for endless fresh views.")
        if not 0 <= seed < 2**64:
            raise RecipeError(f"seed (={seed}) must be in [0, 2**64).")
        self.views, self.seed = views, seed

    def numbers(self, n: np.ndarray) -> Any:
        """The numbers of samples `n` (integers [batch])."""
        raise NotImplementedError


class SampleSet(CountedSet):
    """What `ViewSet` and `bridge.datum.video.ClipSet` have in common: they are drawn from images.

    Attributes:
        atlas: the images of the source at every size.
    """

    def __init__(self, source: Any, recipe: Any, *, views: int | None = None, seed: int = 0, min_side: int = 64):
        super().__init__(views, seed)
        self.source = source if isinstance(source, Source) else load_source(source, min_side=min_side)
        self.recipe = recipe
        self.atlas = Atlas(self.source.images)

    def _initial_crop(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Uniforms [3, n] → image [n], and left and top [n, 2] and side [n] of a square of it in source pixels."""
        image = (u[0] * len(self.atlas.sizes)).astype(np.int64)
        extent = self.atlas.sizes[image].astype(np.float64)
        side = self.recipe.base.initial_crop * extent.min(axis=1)
        return image, u[1:3].T * (extent - side[:, None]), side

    def _frame(self, box: np.ndarray) -> np.ndarray:
        """What may be seen of the source: the box, or everything where borders extend."""
        if self.recipe.border == "extend":
            return np.tile([-1e9, -1e9, 1e9, 1e9], (len(box), 1))
        return np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)

    def _on_levels(
        self, image: np.ndarray, affine: np.ndarray, frame: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """From source pixels to a level of the pyramid: `affine`, `frame` and `level` of `ViewNumbers`.

        Args:
            image: which image of the source: [n].
            affine: from continuous output pixels to continuous source pixels: [n, 2, 3].
            frame: left, top, right, bottom in source pixels: [n, 4].
        """
        scale = geometry.scale_of(affine)
        depth = self.atlas.depths[image] - 1
        # Rounded down: PSNR against exact averages is up to 3 dB better than with the nearest level.
        level = np.clip(np.floor(np.log2(np.maximum(scale, 1e-12))), 0, depth).astype(np.int64)
        shrink = 2.0**-level
        # from continuous source pixels to sample indices of the level, from continuous output pixels to indices
        affine = affine * shrink[:, None, None]
        affine[:, :, 2] += 0.5 * (affine[:, :, 0] + affine[:, :, 1]) - 0.5
        return (
            affine.reshape(-1, 6).astype(np.float32),
            (frame * shrink[:, None] - 0.5).astype(np.float32),
            self.atlas.table[image, level],
        )


class ViewSet(SampleSet):
    """All views of one datum.

    Args:
        source: whatever `load_source` takes, or a `Source`.
        recipe: an `ImageRecipe`; for a folder of ready-made patches pass `recipe.for_patches()`.
        views: size of the finite set of base views that every epoch shows again in a new order and freshly
            augmented; None draws new ones for ever. With ready-made patches it is their number, whatever is given.
        seed: 0 ≤ seed < 2**64.
    """

    def __init__(self, source: Any, recipe: ImageRecipe, *, views: int | None = None, seed: int = 0):
        # a photograph is cut into pieces and must have pixels to spare; a patch is shown as it is
        super().__init__(source, recipe, views=views, seed=seed, min_side=64 if recipe.base is not None else 1)
        if recipe.base is None:  # ready-made patches are the finite set themselves
            self.views = len(self.source.images)

    def numbers(self, n: np.ndarray) -> ViewNumbers:
        """The numbers of samples `n` (integers [batch]): see `ViewNumbers`."""
        n = np.asarray(n, dtype=np.int64)
        image, base, frame, base_colour = self._base(shuffled_index(self.seed, n, self.views))
        augmentation, window, extra_colour, tone = self._augmentation(n)
        affine, frame, level = self._on_levels(image, compose(base, augmentation), frame)
        stages = [c for c in (base_colour, extra_colour) if c is not None]
        colour = np.stack(stages, axis=1) if stages else np.zeros((len(n), 0, COLOUR_NUMBERS))
        return ViewNumbers(
            affine,
            frame,
            window.astype(np.float32),
            level,
            colour.astype(np.float32),
            tone.astype(np.float32),
        )

    def _base(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Image [n], map from the base view to source pixels, frame [n, 4] in source pixels, colour."""
        recipe, size = self.recipe, float(self.recipe.base_size)
        base = recipe.base
        if base is None:
            return (*self._patch(index % len(self.atlas.sizes), size), None)
        u = uniforms(self.seed, "base", index, 1 + 2 + CROP_DRAWS + 3 + JITTER_DRAWS)
        image, corner, side = self._initial_crop(u[:3])
        crop = area_crop(u[3 : 3 + CROP_DRAWS], side, base.area, base.aspect)
        crop[:, :2] += corner
        turn = u[3 + CROP_DRAWS :]
        canvas = np.sqrt(2) * size  # so large that a turned square of `size` still fits
        margin = np.full((len(index), 2), (canvas - size) / 2)
        affine = compose(
            box_map(crop, canvas),
            rotation_shear_map(base.rotation * (2 * turn[0] - 1), base.shear * (2 * turn[1] - 1), canvas),
            flip_map(turn[2] < base.vertical_flip, canvas, axis=1),
            shift_map(margin),
        )
        colour = None if base.jitter is None else jitter_numbers(turn[3:], base.jitter)
        return image, affine, self._frame(crop), colour

    def _patch(self, image: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A ready-made patch: its centre square is the base view."""
        extent = self.atlas.sizes[image].astype(np.float64)
        side = extent.min(axis=1, keepdims=True)
        box = np.concatenate([(extent - side) / 2, side, side], axis=1)
        return image, box_map(box, size), self._frame(box)

    def _augmentation(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """Map from output to base view, window [n, 4] in output pixels, colour, tone [n, 2]."""
        recipe, size, base_size = self.recipe, float(self.recipe.size), float(self.recipe.base_size)
        extra = recipe.augmentation
        window = np.tile([0.0, 0.0, size, size], (len(n), 1))
        tone = np.tile([0.0, 2.0], (len(n), 1))
        if extra is None:
            return shift_map(np.zeros((len(n), 2))), window, None, tone
        only_shifts = extra.area is None and extra.jitter is None
        u = uniforms(self.seed, "augmentation", n, 5 if only_shifts else 3 + CROP_DRAWS + JITTER_DRAWS)
        flip = flip_map(u[0] < extra.flip, base_size, axis=0)
        if extra.area is not None:
            cut = box_map(area_crop(u[3 : 3 + CROP_DRAWS], base_size, extra.area, extra.aspect), size)
        else:
            shift = np.floor(u[3:5].T * (2 * extra.pad + 1)) - extra.pad
            cut = shift_map(shift)
            if recipe.border == "black":
                window = np.concatenate([np.maximum(-shift, 0), np.minimum(base_size - shift, size)], axis=1)
        if extra.grey:
            tone[:, 0] = u[1] < extra.grey
        if extra.solarise:
            tone[:, 1] = np.where(u[2] < extra.solarise, 0.5, 2.0)
        colour = None if extra.jitter is None else jitter_numbers(u[3 + CROP_DRAWS :], extra.jitter)
        return compose(flip, cut), window, colour, tone


def make_view_set(
    image: Any, size: int, recipe: str | ImageRecipe | None, *, patches: bool, views: int | None, seed: int
) -> ViewSet:
    """A view set from options.

    Args:
        image: whatever `load_source` takes.
        size: side of a view in pixels.
        recipe: an `ImageRecipe` of that size, the name of one, or None to choose by size.
        patches: the images are base views already.
        views, seed: as for `ViewSet`.

    Raises:
        DatumError: the image cannot be read. RecipeError: a value is out of range.
    """
    if not isinstance(recipe, ImageRecipe):
        recipe = named_recipe(recipe, size)
    if recipe.size != size:
        raise RecipeError(f"image_size (={size}) and recipe.size (={recipe.size}) must be equal.")
    return ViewSet(image, recipe.for_patches() if patches else recipe, views=views, seed=seed)
