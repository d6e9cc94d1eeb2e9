"""Views are distributed as Asano & Saeed 2023 draw them, and known from their number alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import stats

from bridge.datum.colour import LUMA, colour_numbers
from bridge.datum.recipes import Augmentation, BaseView, ImageRecipe, Jitter, cifar, imagenet, recipe
from bridge.datum.render import render
from bridge.datum.sources import Source
from bridge.datum.views import ViewNumbers, ViewSet
from bridge.errors import RecipeError

MANY = 20_000
SIZE = 32
BASE_ONLY = ImageRecipe(augmentation=None)
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def source_of(*shapes: tuple[int, int], value: int | None = None) -> Source:
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    if value is not None:
        images = [np.full_like(image, value) for image in images]
    return Source("test", tuple(images), "")


PHOTO = source_of((240, 320))


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """Geometry of many base views, found again from their numbers."""
    views = ViewSet(PHOTO, BASE_ONLY, seed=1)
    return geometry_of(views, views.numbers(np.arange(MANY)))


def grown_by(views: ViewSet, numbers: ViewNumbers) -> np.ndarray:
    """Side of a pixel of each view's pyramid level, in pixels of the (only) image."""
    return 2.0 ** np.rint(np.log2(views.atlas.sizes[0, 0] / numbers.level[:, 1]))


def geometry_of(views: ViewSet, numbers: ViewNumbers) -> dict[str, np.ndarray]:
    """Crop in source pixels, angle and shear in degrees, mirrored or not: the affine map taken apart."""
    grown = grown_by(views, numbers)
    left, top, right, bottom = ((numbers.frame.astype(np.float64) + 0.5) * grown[:, None]).T
    canvas = math.sqrt(2) * views.recipe.base_size
    linear = numbers.affine.astype(np.float64).reshape(-1, 2, 3)[:, :, :2] * grown[:, None, None]
    turn = linear * canvas / np.stack([right - left, bottom - top], axis=1)[:, :, None]
    mirrored = np.linalg.det(turn) < 0
    turn[mirrored, :, 1] *= -1  # undo a vertical flip
    angle = np.arctan2(-turn[:, 1, 0], turn[:, 1, 1])
    along = turn[:, 0, 1] * np.cos(angle) - turn[:, 0, 0] * np.sin(angle)
    return {
        "left": left, "top": top, "width": right - left, "height": bottom - top, "mirrored": mirrored,
        "angle": np.degrees(angle), "shear": np.degrees(np.arctan(along)),
        "unit": np.hypot(turn[:, 1, 0], turn[:, 1, 1]),
    }  # fmt: skip


def accepted_crops(count: int, area: tuple[float, float], aspect: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Width, height, left and top as shares of a square: drawn until they fit, one after another."""
    draw = np.random.default_rng(12)
    found = []
    while len(found) < count:
        size, ratio = draw.uniform(*area), math.exp(draw.uniform(*np.log(aspect)))
        width, height = math.sqrt(size * ratio), math.sqrt(size / ratio)
        if width <= 1 and height <= 1:
            found.append((width, height, draw.uniform(0, 1 - width), draw.uniform(0, 1 - height)))
    return tuple(np.array(found).T)


def alike(one: np.ndarray, two: np.ndarray) -> bool:
    return stats.ks_2samp(one, two).pvalue > 1e-3


def uniform_in(values: np.ndarray, low: float, high: float) -> bool:
    return stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


# --- distribution of the base views -----------------------------------------------------------------------------------


def test_crops_have_the_areas_and_aspects_of_drawing_until_one_fits(drawn):
    side = 0.5 * 240
    width, height, _, _ = accepted_crops(MANY, (1 / 500, 1), (3 / 4, 4 / 3))
    assert alike(drawn["width"] * drawn["height"] / side**2, width * height)
    assert alike(drawn["width"] / drawn["height"], width / height)
    assert 1 / 500 - 1e-5 < (drawn["width"] * drawn["height"] / side**2).min() < 1 / 250


def test_areas_are_uniform_and_aspects_log_uniform_where_every_crop_fits(drawn):
    """Below an area of 3/4 nothing is ever refused, so the draws themselves show."""
    area = drawn["width"] * drawn["height"] / 120**2
    small = area < 3 / 4
    assert uniform_in(area[small], 1 / 500, 3 / 4)
    assert uniform_in(np.log(drawn["width"] / drawn["height"])[small], math.log(3 / 4), math.log(4 / 3))


def test_crops_lie_anywhere_in_a_first_crop_of_half_the_shorter_side(drawn):
    draw = np.random.default_rng(13)
    _, _, left, top = accepted_crops(MANY, (1 / 500, 1), (3 / 4, 4 / 3))
    assert alike(drawn["left"], 120 * left + draw.uniform(0, 320 - 120, MANY))
    assert alike(drawn["top"], 120 * top + draw.uniform(0, 240 - 120, MANY))


def test_angles_and_shears_are_uniform_and_independent(drawn):
    assert np.allclose(drawn["unit"], 1, atol=2e-3)  # the map is a rotation and a shear along x, nothing else
    assert uniform_in(drawn["angle"], -30, 30) and uniform_in(drawn["shear"], -30, 30)
    assert abs(np.corrcoef(drawn["angle"], drawn["shear"])[0, 1]) < 0.03
    assert not drawn["mirrored"].any()


def test_vertical_flips_come_as_often_as_asked():
    views = ViewSet(PHOTO, ImageRecipe(base=BaseView(vertical_flip=0.3), augmentation=None))
    assert abs(geometry_of(views, views.numbers(np.arange(MANY)))["mirrored"].mean() - 0.3) < 0.015


@pytest.mark.parametrize(("jitter", "stage"), [(Jitter(), 0), (Jitter(hue=0.4, probability=0.8), 1)])
def test_jitter_has_the_ranges_and_the_chance_of_the_recipe(jitter, stage):
    views = ViewSet(PHOTO, BASE_ONLY if stage == 0 else imagenet(32), seed=4)
    colour = views.numbers(np.arange(MANY)).colour[:, stage].astype(np.float64)
    matrix, offset = colour[:, :9].reshape(-1, 3, 3), colour[:, 9]
    applied = np.abs(matrix - np.eye(3)).max(axis=(1, 2)) > 1e-5
    assert abs(applied.mean() - jitter.probability) < 0.015 and np.abs(offset[~applied]).max() < 1e-6
    both = matrix[applied].sum(axis=2)  # white turns into brightness · contrast in every channel
    assert np.allclose(both, both[:, :1], atol=1e-5)
    brightness = both[:, 0] + offset[applied]
    chroma = (YIQ @ matrix[applied] @ np.linalg.inv(YIQ))[:, 1:, 1:] / both[:, :1, None]
    saturation = np.sqrt(np.linalg.det(chroma))
    hue = np.arctan2(chroma[:, 0, 1], chroma[:, 0, 0]) / (2 * np.pi)
    for factor, amount in (
        (brightness, jitter.brightness), (both[:, 0] / brightness, jitter.contrast), (saturation, jitter.saturation),
    ):  # fmt: skip
        assert uniform_in(factor, 1 - amount, 1 + amount)
    assert uniform_in(hue, -jitter.hue, jitter.hue)
    together = np.corrcoef([brightness, both[:, 0] / brightness, saturation, hue]) - np.eye(4)
    assert np.abs(together).max() < 0.04


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_brightness_contrast_and_saturation_are_pillows(name, enhancer, factor):
    pixels = np.random.default_rng(5).integers(70, 140, (16, 16, 3), dtype=np.uint8)  # so that nothing is clamped
    factors = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, name: factor}
    numbers = colour_numbers(*(np.array([value]) for value in factors.values()))[0]
    ours = pixels @ numbers[:9].reshape(3, 3).T + numbers[9] * (pixels @ LUMA).mean()
    theirs = np.asarray(enhancer(Image.fromarray(pixels)).enhance(factor), dtype=np.float64)
    assert np.abs(ours - theirs).max() <= 1.5  # Pillow rounds to bytes, its mean too


def test_hue_turns_red_towards_yellow_keeping_the_luma():
    one = np.ones(1)
    red = np.array([0.5, 0.1, 0.1])
    turned = colour_numbers(one, one, one, np.array([1 / 6]))[0, :9].reshape(3, 3) @ red
    assert turned[1] > 0.2 and turned[1] > 2 * turned[2] and turned @ LUMA == pytest.approx(red @ LUMA, abs=1e-3)
    back = colour_numbers(one, one, one, np.array([-1 / 6]))[0, :9].reshape(3, 3) @ red
    assert back[2] > back[1]


# --- training-time augmentation ---------------------------------------------------------------------------------------


def test_half_of_the_views_are_flipped():
    views = ViewSet(PHOTO, cifar(32))
    numbers = views.numbers(np.arange(MANY))
    mirrored = np.linalg.det(numbers.affine.astype(np.float64).reshape(-1, 2, 3)[:, :, :2]) < 0
    assert abs(mirrored.mean() - 0.5) < 0.015


def test_a_flip_mirrors_the_base_view():
    still = ImageRecipe(augmentation=Augmentation(flip=0.0))
    flipped = dataclasses.replace(still, augmentation=Augmentation(flip=1.0))
    plain, mirrored = (render(ViewSet(PHOTO, r), np.arange(4)) for r in (still, flipped))
    assert np.abs(plain[:, :, ::-1] - mirrored).max() < 0.1 and np.abs(plain - mirrored).max() > 0.3


def test_padded_crops_leave_13_4_percent_black_on_average():
    expected = 1 - (1 - (20 / 9) / 32) ** 2  # the mean of |−4|, …, |4| is 20/9 of 32 pixels, along both axes
    assert expected == pytest.approx(0.134, abs=5e-4)
    straight = ImageRecipe(base=BaseView(rotation=0, shear=0, jitter=None), augmentation=Augmentation(pad=4))
    views = ViewSet(source_of((240, 320), value=255), straight)
    window = views.numbers(np.arange(MANY)).window
    seen = (window[:, 2] - window[:, 0]) * (window[:, 3] - window[:, 1]) / 32**2
    assert 1 - seen.mean() == pytest.approx(expected, abs=0.002)
    images = render(views, np.arange(3000))
    assert np.isin(images, (0, 1)).all() and (images == 0).mean() == pytest.approx(expected, abs=0.005)


def test_padded_crops_shift_by_every_whole_number_alike():
    window = ViewSet(PHOTO, cifar(32)).numbers(np.arange(MANY)).window
    for low, high in ((window[:, 0], window[:, 2]), (window[:, 1], window[:, 3])):
        shift = np.where(low > 0, -low, 32 - high)
        assert set(shift) == set(range(-4, 5))
        assert stats.chisquare(np.bincount((shift + 4).astype(int))).pvalue > 1e-3


def test_an_augmented_view_is_the_flipped_base_view_padded_and_cropped():
    straight = ImageRecipe(base=BaseView(jitter=None), augmentation=Augmentation(flip=1.0, pad=4))
    augmented, base = ViewSet(PHOTO, straight, views=9), ViewSet(PHOTO, straight.without_augmentation(), views=9)
    window = augmented.numbers(np.arange(30)).window.astype(int)
    padded = np.pad(render(base, np.arange(30))[:, :, ::-1], ((0, 0), (4, 4), (4, 4), (0, 0)))
    for image, view, (left, top, right, bottom) in zip(render(augmented, np.arange(30)), padded, window):
        x, y = 4 + (32 - right if left == 0 else -left), 4 + (32 - bottom if top == 0 else -top)
        difference = np.abs(image - view[y : y + 32, x : x + 32]).max(axis=-1)
        assert (difference < 0.15).mean() > 0.98  # the frame's border may fall on its other side


def test_the_shift_moves_pixels_and_jitter_leaves_the_border_black():
    pad = Augmentation(flip=0, pad=4)
    bright = BaseView(rotation=0, shear=0, jitter=Jitter(0.4, 0.4, 0.4, 0.1, 1.0))
    views = ViewSet(source_of((240, 320), value=120), ImageRecipe(base=bright, augmentation=pad))
    images, window = render(views, np.arange(50)), views.numbers(np.arange(50)).window.astype(int)
    for image, (left, top, right, bottom) in zip(images, window):
        assert (image[top:bottom, left:right] > 0.1).all()
        assert image.sum() == pytest.approx(image[top:bottom, left:right].sum())


def test_the_imagenet_recipe_turns_a_fifth_grey_and_solarises_a_fifth():
    tone = ViewSet(PHOTO, imagenet(224)).numbers(np.arange(MANY)).tone
    grey, solarised = tone[:, 0] == 1, tone[:, 1] == 0.5
    assert set(np.unique(tone)) == {0, 0.5, 1, 2}
    assert abs(grey.mean() - 0.2) < 0.012 and abs(solarised.mean() - 0.2) < 0.012
    assert abs((grey & solarised).mean() - 0.04) < 0.006


def test_grey_and_solarised_views_are_just_that():
    still = BaseView(rotation=0, shear=0, jitter=None)
    plain, grey, solarised = (
        render(ViewSet(PHOTO, ImageRecipe(base=still, augmentation=Augmentation(flip=0, **tone))), np.arange(3))
        for tone in ({}, {"grey": 1.0}, {"solarise": 1.0})
    )
    assert np.allclose(grey, (plain @ LUMA)[..., None].repeat(3, axis=-1), atol=1e-5)
    assert np.allclose(solarised, np.where(plain >= 0.5, 1 - plain, plain), atol=1e-6)


def test_resized_crops_of_the_base_view_are_those_of_the_imagenet_recipe():
    patches = source_of((256, 256))
    views = ViewSet(patches, imagenet(224).for_patches())
    numbers = views.numbers(np.arange(MANY))
    linear = numbers.affine.astype(np.float64).reshape(-1, 2, 3)[:, :, :2] * grown_by(views, numbers)[:, None, None]
    width, height, _, _ = accepted_crops(MANY, (0.08, 1), (3 / 4, 4 / 3))
    assert alike(np.abs(np.linalg.det(linear)) * (224 / 256) ** 2, width * height)
    assert alike(np.abs(linear[:, 0, 0] / linear[:, 1, 1]), width / height)


# --- counted, not stored ----------------------------------------------------------------------------------------------


def rows_of(numbers: ViewNumbers) -> np.ndarray:
    return np.concatenate([np.asarray(part).reshape(len(part), -1) for part in numbers], axis=1)


@pytest.mark.parametrize("name", ["cifar", "imagenet"])
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**45), min_size=1, max_size=12), st.one_of(st.none(), st.integers(1, 50)), st.data())
def test_a_view_has_the_same_numbers_in_whatever_batch_it_is_drawn(name, n, count, data):
    views = ViewSet(PHOTO, recipe(name, 32), views=count, seed=data.draw(st.integers(0, 2**64 - 1)))
    whole = rows_of(views.numbers(np.array(n)))
    position = data.draw(st.integers(0, len(n) - 1))
    assert np.array_equal(rows_of(views.numbers(np.array(n[position : position + 1])))[0], whole[position])


def test_a_rendered_view_does_not_depend_on_its_batch():
    views = ViewSet(PHOTO, imagenet(32), views=10)
    assert np.array_equal(render(views, np.arange(5, 12))[3], render(views, np.array([8]))[0])


def test_every_epoch_shows_each_base_view_once_in_a_new_order_with_batches_across_its_border():
    views, epochs, batch = 50, 4, 16
    view_set = ViewSet(PHOTO, BASE_ONLY, views=views)
    batches = [rows_of(view_set.numbers(n)) for n in np.arange(views * epochs + 8).reshape(-1, batch)]
    rows = np.concatenate(batches)[: views * epochs].reshape(epochs, views, -1)
    sets = [{row.tobytes() for row in epoch} for epoch in rows]
    assert all(len(one) == views and one == sets[0] for one in sets)
    orders = [tuple(row.tobytes() for row in epoch) for epoch in rows]
    assert len(set(orders)) == epochs


def test_every_epoch_augments_afresh():
    views, epochs = 40, 3
    view_set = ViewSet(PHOTO, dataclasses.replace(cifar(32), base=BaseView(jitter=Jitter(probability=1))), views=views)
    numbers = view_set.numbers(np.arange(views * epochs))
    base = [row.tobytes() for row in numbers.colour]  # the base view's own jitter tells which one it is
    assert len(set(base)) == views
    shown = {(one, row.tobytes()) for one, row in zip(base, rows_of(numbers))}
    assert len(shown) > 0.95 * views * epochs  # of 162 augmentations two may be alike


@pytest.mark.parametrize("one", [BASE_ONLY, cifar(32), imagenet(32)], ids=["base", "cifar", "imagenet"])
def test_endless_views_never_repeat(one):
    affine = ViewSet(PHOTO, one, views=None).numbers(np.arange(MANY)).affine
    assert len(np.unique(affine, axis=0)) == MANY


def test_seeds_give_other_views():
    one, two = (ViewSet(PHOTO, cifar(32), seed=seed).numbers(np.arange(100)) for seed in (0, 1))
    assert not (one.affine == two.affine).all(axis=1).any()


def test_the_same_base_views_stand_under_any_augmentation():
    plain = ViewSet(PHOTO, BASE_ONLY, views=30, seed=2).numbers(np.arange(60))
    augmented = ViewSet(PHOTO, cifar(32), views=30, seed=2).numbers(np.arange(60))
    assert np.array_equal(plain.colour, augmented.colour) and not np.array_equal(plain.affine, augmented.affine)


@pytest.mark.parametrize("bad", [{"views": 0}, {"views": -3}, {"seed": -1}, {"seed": 2**64}])
def test_a_view_set_refuses_impossible_values_naming_them(bad):
    with pytest.raises(RecipeError, match=str(next(iter(bad.values())))):
        ViewSet(PHOTO, BASE_ONLY, **bad)


# --- where views look -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 1.0]))
def test_frames_lie_inside_the_image(height, width, seed, share):
    source = source_of((height, width))
    views = ViewSet(source, ImageRecipe(base=BaseView(initial_crop=share), augmentation=None), seed=seed)
    numbers = views.numbers(np.arange(64))
    level = np.array([[views.atlas.table[0, :, 0].tolist().index(row[0])] for row in numbers.level])
    left, top, right, bottom = ((numbers.frame.astype(np.float64) + 0.5) * 2.0**level).T
    slack = 1e-4 * max(height, width)
    assert min(left.min(), top.min()) >= -slack
    assert right.max() <= width + slack and bottom.max() <= height + slack
    assert (right > left).all() and (bottom > top).all()


def test_views_come_from_every_image_of_a_folder_in_equal_parts():
    views = ViewSet(source_of((100, 100), (60, 200), (90, 70)), BASE_ONLY)
    offset = views.numbers(np.arange(6000)).level[:, 0]
    image = np.searchsorted(views.atlas.table[:, 0, 0], offset, side="right") - 1
    assert stats.chisquare(np.bincount(image, minlength=3)).pvalue > 1e-3


def test_each_view_samples_a_level_at_most_twice_as_fine_as_itself():
    views = ViewSet(source_of((700, 800)), BASE_ONLY)
    numbers = views.numbers(np.arange(2000))
    scale = np.sqrt(np.abs(np.linalg.det(numbers.affine.astype(np.float64).reshape(-1, 2, 3)[:, :, :2])))
    assert scale.max() < 2 and (scale[numbers.level[:, 0] > 0] > 0.999).all()


def test_extended_borders_show_the_photograph_where_black_ones_stop():
    source = source_of((240, 320), value=200)
    plain = dataclasses.replace(cifar(32), base=BaseView(jitter=None))
    black, extended = (
        render(ViewSet(source, dataclasses.replace(plain, border=border)), np.arange(64))
        for border in ("black", "extend")
    )
    assert (black == 0).mean() > 0.13 and np.allclose(extended, 200 / 255, atol=1e-6)


def test_a_rendered_view_shows_what_lies_under_it():
    """A ramp of colours tells where every pixel of a view was looked up."""
    y, x = np.mgrid[:256, :256]
    ramp = Source("ramp", (np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8),), "")
    views = ViewSet(ramp, ImageRecipe(base=BaseView(jitter=None, area=(0.2, 0.5)), augmentation=None), seed=6)
    numbers, images = views.numbers(np.arange(20)), render(views, np.arange(20)) * 255
    grown = grown_by(views, numbers)
    for image, affine, by in zip(images, numbers.affine.reshape(-1, 2, 3), grown):
        for row, column in ((16, 16), (10, 20)):
            expected = (affine @ [column, row, 1] + 0.5) * by - 0.5
            assert np.abs(image[row, column, :2] - expected).max() < 1.5


# --- ready-made patches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [7, 14, None])
def test_ready_made_patches_are_covered_once_per_round(count):
    source = source_of(*[(32, 32)] * 7)
    views = ViewSet(source, cifar(32).for_patches(), views=count)
    for epoch in range(3):
        every = count or 7
        offset = views.numbers(np.arange(every) + epoch * every).level[:, 0]
        assert np.array_equal(np.sort(offset), np.sort(np.repeat(views.atlas.table[:, 0, 0], every // 7)))


def test_a_patch_without_augmentation_is_the_patch_itself():
    source = source_of((32, 32), (32, 40))
    images = render(ViewSet(source, BASE_ONLY.for_patches()), np.arange(2))
    assert np.allclose(images[0] * 255, source.images[0], atol=1e-3)
    assert np.allclose(images[1] * 255, source.images[1][:, 4:36], atol=1e-3)
