"""Recipes with augmentations left out."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.config import DistillConfig
from bridge.datum.audio_recipes import audio_recipe
from bridge.datum.leave_out import leave_out, parts_of
from bridge.datum.recipes import recipe
from bridge.datum.render import render
from bridge.datum.video import make_clip_set
from bridge.datum.video_recipes import video_recipe
from bridge.datum.views import make_view_set
from bridge.errors import RecipeError
from bridge.recipe_choice import recipe_of

RECIPES = {
    "cifar": recipe("cifar", 32),
    "steady": recipe("steady", 32),
    "imagenet": recipe("imagenet", 112),
    "video": video_recipe("video", 64, 4, "smooth"),
    "audio": audio_recipe("audio", 16_000, 16_000),
}
NAMES = [(name, part) for name, made in RECIPES.items() for part in parts_of(made)]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)


@pytest.mark.parametrize(("name", "part"), NAMES)
def test_what_is_left_out_is_gone_and_the_rest_stays(name, part):
    made = RECIPES[name]
    left = leave_out(made, part)
    assert left.digest != made.digest and left.shape == made.shape
    assert [other for other in parts_of(made) if other != part] == parts_of(left)


@pytest.mark.parametrize("name", RECIPES)
def test_all_leaves_none_and_equals_leaving_out_each(name):
    made = RECIPES[name]
    assert parts_of(leave_out(made, "all")) == []
    assert leave_out(made, "all") == leave_out(made, "+".join(reversed(parts_of(made))))


def test_a_part_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(RecipeError, match="no 'jitter' to be left out; it has zoom, aspect, rotation, shear"):
        leave_out(RECIPES["steady"], "jitter")
    with pytest.raises(RecipeError, match="no 'grain'"):
        leave_out(RECIPES["cifar"], "flip+grain")
    with pytest.raises(RecipeError, match="no 'rotation'"):  # boxes turn in smooth motion only
        leave_out(video_recipe("video", 64, 4, "linear"), "rotation")


@pytest.mark.parametrize(("name", "size"), [("cifar", 32), ("steady", 32), ("imagenet", 28)])
def test_an_image_without_any_is_cut_out_upright(photo, name, size):
    """Its map has neither turn nor mirror, and takes the middle of a square of half the shorter side: 1/√2 of it."""
    views = make_view_set(photo, size, leave_out(recipe(name, size), "all"), patches=False, views=None, seed=0)
    affine = views.numbers(np.arange(16)).affine.reshape(-1, 2, 3)[:, :, :2]
    side = 48 / np.sqrt(2) / views.recipe.size  # pixels of the photograph, which is minified too little for a level
    np.testing.assert_allclose(affine, np.eye(2) * side + np.zeros_like(affine), atol=1e-4)
    assert np.ptp(render(views, np.arange(4)), axis=(1, 2, 3)).min() > 0.1


def test_patches_have_only_what_is_drawn_anew():
    with pytest.raises(RecipeError, match="no 'zoom' to be left out; it has crop, flip;"):
        recipe_of(DistillConfig(recipe="cifar", patches=True, without="zoom"), {"image_size": 32})
    with pytest.raises(RecipeError, match="it has none at all"):
        recipe_of(DistillConfig(recipe="crop", without="noise"), {"rate": 16_000, "samples": 16_000})


def test_a_clip_without_any_stands_still(photo):
    made = leave_out(video_recipe("video", 32, 3, "linear"), "all")
    clips = render(make_clip_set(photo, 32, 3, "linear", made, clips=None, seed=0), np.arange(3))
    np.testing.assert_allclose(clips, np.broadcast_to(clips[:, :1], clips.shape), atol=1e-5)


def test_options_say_what_is_left_out():
    chosen = recipe_of(DistillConfig(recipe="cifar", without="jitter+flip"), {"image_size": 32})
    assert chosen == leave_out(RECIPES["cifar"], "flip+jitter")
    heard = recipe_of(DistillConfig(without="noise"), {"rate": 16_000, "samples": 16_000})
    assert parts_of(heard) == [part for part in parts_of(RECIPES["audio"]) if part != "noise"]
