"""A recipe that cannot be is refused by name; those that can are told apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bridge.datum.recipes import Augmentation, BaseView, ImageRecipe, Jitter, cifar, imagenet, recipe, steady
from bridge.datum.render import render
from bridge.datum.views import ViewSet
from bridge.errors import RecipeError


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("border", lambda: ImageRecipe(border="grey")),
        ("size", lambda: ImageRecipe(size=0)),
        ("base_size", lambda: ImageRecipe(base_size=5000)),
        ("base_size", lambda: ImageRecipe(size=32, base_size=40)),
        ("base.area", lambda: ImageRecipe(base=BaseView(area=(0.5, 0.2)))),
        ("base.area", lambda: ImageRecipe(base=BaseView(area=(0.0, 1.0)))),
        ("base.area", lambda: ImageRecipe(base=BaseView(area=(0.5, 1.5)))),
        ("base.aspect", lambda: ImageRecipe(base=BaseView(aspect=(-1, 1)))),
        ("base.initial_crop", lambda: ImageRecipe(base=BaseView(initial_crop=0))),
        ("base.rotation", lambda: ImageRecipe(base=BaseView(rotation=200))),
        ("base.shear", lambda: ImageRecipe(base=BaseView(shear=90))),
        ("base.vertical_flip", lambda: ImageRecipe(base=BaseView(vertical_flip=1.1))),
        ("base.jitter.hue", lambda: ImageRecipe(base=BaseView(jitter=Jitter(hue=0.6)))),
        ("base.jitter.contrast", lambda: ImageRecipe(base=BaseView(jitter=Jitter(contrast=float("nan"))))),
        ("augmentation.pad", lambda: ImageRecipe(augmentation=Augmentation(pad=32))),
        ("augmentation.pad", lambda: ImageRecipe(augmentation=Augmentation(pad=-1))),
        ("pad or area", lambda: ImageRecipe(augmentation=Augmentation(pad=4, area=(0.1, 1)))),
        ("augmentation.area", lambda: ImageRecipe(augmentation=Augmentation(area=(0.1, 2)))),
        ("augmentation.flip", lambda: ImageRecipe(augmentation=Augmentation(flip=-0.1))),
        ("augmentation.solarise", lambda: ImageRecipe(augmentation=Augmentation(solarise=2))),
        ("augmentation.jitter.brightness", lambda: ImageRecipe(augmentation=Augmentation(jitter=Jitter(brightness=2)))),
        ("sharp", lambda: recipe("sharp", 32)),
    ],
)
def test_a_recipe_refuses_what_cannot_be_naming_it(name, make):
    with pytest.raises(RecipeError, match=name):
        make()


def test_recipes_are_chosen_by_size_and_told_apart_by_digest():
    assert recipe(None, 95) == cifar(95) and recipe(None, 96) == imagenet(96)
    every = [cifar(32), cifar(64), imagenet(32), ImageRecipe(augmentation=None), cifar(32).for_patches()]
    assert len({one.digest for one in every}) == len(every) and cifar(32).digest == cifar(32).digest


def test_defaults_are_those_read_in_the_reference_code():
    base = BaseView()
    assert (base.initial_crop, base.area, base.aspect) == (0.5, (1 / 500, 1.0), (3 / 4, 4 / 3))
    assert (base.rotation, base.shear, base.vertical_flip) == (30, 30, 0)
    assert base.jitter == Jitter(0.4, 0.4, 0.4, 0.1, probability=0.5)
    assert cifar(32).augmentation == Augmentation(flip=0.5, pad=4)
    large = imagenet(224)
    assert (large.size, large.base_size) == (224, 256)
    assert large.augmentation == Augmentation(
        flip=0.5,
        area=(0.08, 1.0),
        aspect=(3 / 4, 4 / 3),
        jitter=Jitter(0.4, 0.4, 0.4, 0.4, 0.8),
        grey=0.2,
        solarise=0.2,
    )


def test_steady_light_is_cifar_without_jitter_and_without_black():
    assert steady(32).colour_stages == 0 and steady(32).border == "extend"
    same = dataclasses.replace(steady(32), border="black", base=BaseView())
    assert same == cifar(32)
    grey = render(ViewSet("control:constant", steady(32)), np.arange(64))
    assert np.ptp(grey) < 1e-6  # nothing is left to learn from
