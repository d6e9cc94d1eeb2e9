"""Recipes with augmentations left out, to see one by one what each is good for (ours)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from bridge.datum.audio_recipes import AudioRecipe
from bridge.datum.recipes import ImageRecipe
from bridge.datum.video_recipes import VideoRecipe
from bridge.errors import RecipeError

AnyRecipe = ImageRecipe | VideoRecipe | AudioRecipe
Recipe = TypeVar("Recipe", bound=AnyRecipe)

_OF_IMAGES: dict[str, dict[str, Any]] = {
    "zoom": {"base.area": (1.0, 1.0)},
    "aspect": {"base.aspect": (1.0, 1.0), "augmentation.aspect": (1.0, 1.0)},
    "rotation": {"base.rotation": 0.0},
    "shear": {"base.shear": 0.0},
    "crop": {"augmentation.pad": 0, "augmentation.area": (1.0, 1.0), "augmentation.aspect": (1.0, 1.0)},
    "flip": {"augmentation.flip": 0.0, "base.vertical_flip": 0.0},
    "jitter": {"base.jitter": None, "augmentation.jitter": None},
    "grey": {"augmentation.grey": 0.0},
    "solarise": {"augmentation.solarise": 0.0},
}
_OF_CLIPS: dict[str, dict[str, Any]] = {
    "zoom": {"base.area": (1.0, 1.0)},
    "aspect": {"base.aspect": (1.0, 1.0)},
    "rotation": {"base.rotation": 0.0},
    "span": {"augmentation.span": 1.0},
    "augmix": {"augmentation.augmix": None},
    "crop": {"augmentation.short_side": ("size", "size")},
    "flip": {"augmentation.flip": 0.0, "base.vertical_flip": 0.0},
    "jitter": {"base.jitter": None},
}
_OF_SOUNDS: dict[str, dict[str, Any]] = {
    "speed": {"base.speed": (1.0, 1.0)},
    "stretch": {"base.stretched": 0.0},
    "reverse": {"base.reverse": 0.0},
    "mixed": {"base.mixed": 0.0},
    "gain": {"augmentation.gain": (0.0, 0.0)},
    "shift": {"augmentation.shift": 0.0},
    "silence": {"augmentation.silence": 0.0},
    "noise": {"augmentation.noise": 0.0},
    "low_cut": {"augmentation.low_cut": 0.0},
    "high_cut": {"augmentation.high_cut": 0.0},
    "room": {"augmentation.room": 0.0},
}


def parts_of(recipe: AnyRecipe) -> list[str]:
    """The augmentations that a recipe has, by the names under which `leave_out` knows them."""
    return [name for name, neutral in _table(recipe).items() if _changes(recipe, neutral)]


def leave_out(recipe: Recipe, names: str) -> Recipe:
    """The same recipe with some augmentations left out.

    What is left of a view without any: of images the middle, 1/√2 as wide, of a crop of half the shorter side, which
    lies anywhere; of clips that crop, standing still; of sounds a stretch as it is. Without zoom a box other than
    square does not fit into its crop and is cut off there, so that half of the spread of aspect goes with it.

    Args:
        recipe: of images, clips or sounds.
        names: as `parts_of` says them, joined by "+", or "all": "jitter", "rotation+shear".

    Raises:
        RecipeError: a name it does not have.
    """
    own, table = parts_of(recipe), _table(recipe)
    wanted = own if names == "all" else names.split("+")
    if unknown := [name for name in wanted if name not in own]:
        raise RecipeError(
            f"This recipe has no {' and no '.join(map(repr, unknown))} to be left out; it has "
            + (f'{", ".join(own)}; join several by "+", or say "all".' if own else "none at all.")
        )
    for name in wanted:
        for place, value in _changes(recipe, table[name]).items():
            part, _, field = place.partition(".")
            changed = dataclasses.replace(getattr(recipe, part), **{field: value})
            recipe = dataclasses.replace(recipe, **{part: changed})
    return recipe


def _table(recipe: AnyRecipe) -> Mapping[str, Mapping[str, Any]]:
    if isinstance(recipe, AudioRecipe):
        return _OF_SOUNDS
    return _OF_CLIPS if isinstance(recipe, VideoRecipe) else _OF_IMAGES


def _changes(recipe: AnyRecipe, neutral: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be set to leave a part out; empty: it is not there."""
    changes = {}
    for place, value in neutral.items():
        part, _, field = place.partition(".")
        held = getattr(recipe, part)
        if held is None or not _in_use(held, field, recipe):
            continue
        if value == ("size", "size"):
            value = (recipe.size, recipe.size) if isinstance(recipe, VideoRecipe) else value
        if getattr(held, field) != value:
            changes[place] = value
    return changes


def _in_use(part: Any, field: str, recipe: AnyRecipe) -> bool:
    """Whether a value has any effect: some do only together with others."""
    if isinstance(recipe, ImageRecipe) and part is recipe.augmentation and field in ("area", "aspect"):
        return part.area is not None
    if isinstance(recipe, VideoRecipe) and part is recipe.base and field == "rotation":
        return part.motion == "smooth"
    return True
