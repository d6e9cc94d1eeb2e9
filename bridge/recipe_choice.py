"""The recipe, the views and the mixing that options ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bridge.config import ViewOptions
from bridge.datum.audio_recipes import AudioRecipe, audio_recipe
from bridge.datum.leave_out import AnyRecipe, leave_out
from bridge.datum.mixing import KINDS, Mixing
from bridge.datum.recipes import recipe
from bridge.datum.video_recipes import VideoRecipe, video_recipe
from bridge.errors import RecipeError

if TYPE_CHECKING:
    from bridge.datum.audio import AudioSet
    from bridge.datum.views import CountedSet


def recipe_of(options: ViewOptions, sizes: Mapping[str, Any]) -> AnyRecipe:
    """How the views are made that options ask for.

    Args:
        options: with `recipe`, `without`, `patches` and, of clips, `motion`.
        sizes: of sounds rate and samples; else image_size, and of clips frames.

    Raises:
        RecipeError: an unknown recipe, a value out of range, or something left out that it does not have.
    """
    made: AnyRecipe
    if "samples" in sizes:
        made = audio_recipe(options.recipe, sizes["rate"], sizes["samples"])
    elif "frames" in sizes:
        made = video_recipe(options.recipe, sizes["image_size"], sizes["frames"], options.motion)
    else:
        made = recipe(options.recipe, sizes["image_size"])
        made = made.for_patches() if options.patches else made
    return made if options.without is None else leave_out(made, options.without)


def chosen_views(
    options: ViewOptions, sizes: Mapping[str, Any], source: Any = None, audio_set: Callable[..., AudioSet] | None = None
) -> CountedSet:
    """The views, clips or sounds that options ask for.

    Args:
        options: of a command.
        sizes: as `recipe_of` takes them.
        source: an image or sound read already, or its name, in place of `options.image` or `options.audio`.
        audio_set: a backend's way to sounds; None: `make_audio_set`.

    Raises:
        DatumError: the source cannot be read. RecipeError: as of `recipe_of`.
    """
    from bridge.datum.audio import make_audio_set
    from bridge.datum.video import make_clip_set
    from bridge.datum.views import make_view_set

    chosen = recipe_of(options, sizes)
    if isinstance(chosen, AudioRecipe):
        sound = options.audio if source is None else source
        make = audio_set or make_audio_set
        return make(sound, chosen.rate, chosen.seconds, chosen, views=options.views, seed=options.seed)
    image = options.image if source is None else source
    if isinstance(chosen, VideoRecipe):
        return make_clip_set(
            image, chosen.size, chosen.frames, options.motion, chosen, clips=options.views, seed=options.seed
        )
    return make_view_set(image, chosen.size, chosen, patches=options.patches, views=options.views, seed=options.seed)


def mixing_of(options: ViewOptions, recipe: AnyRecipe) -> Mixing:
    """The mixing the options ask for, with the reference's λ for the recipe where none is given (of sounds: ours).

    Raises:
        RecipeError: a mixing that what the recipe makes cannot have.
    """
    alpha, of_clips, of_sounds = options.mixing_alpha, isinstance(recipe, VideoRecipe), isinstance(recipe, AudioRecipe)
    if alpha is None:
        by_area = of_clips or of_sounds or (recipe.augmentation is not None and recipe.augmentation.area is not None)
        alpha = 1.0 if by_area else 0.25
    mixing = Mixing(options.mixing, alpha, options.mixing_per, on=options.mixing_on)
    if mixing.kind not in KINDS and not of_clips:
        what = "sounds" if of_sounds else "images"
        raise RecipeError(f"--mixing {mixing.kind} cuts frames, and {what} have none; use one of {', '.join(KINDS)}.")
    if mixing.on != "input" and not of_sounds:
        raise RecipeError(f"--mixing-on {mixing.on} is of sounds; images and clips are mixed as they are.")
    return mixing
