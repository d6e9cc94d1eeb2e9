"""Fake clips: boxes that wander over one image as Asano & Saeed 2023 draw them, known from their number alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import stats

from bridge.datum.augmix import augmix_draws, augmix_numbers
from bridge.datum.colour import LUMA
from bridge.datum.mixing import Mixing
from bridge.datum.preview import previews, strips
from bridge.datum.recipes import Jitter, cifar
from bridge.datum.render import render
from bridge.datum.sources import Source, load_source
from bridge.datum.video import ClipNumbers, ClipSet, make_clip_set
from bridge.datum.video_recipes import (
    MOTIONS,
    AugMix,
    BaseClip,
    ClipAugmentation,
    VideoRecipe,
    steady_video,
    video,
    video_recipe,
)
from bridge.datum.views import ViewSet
from bridge.errors import RecipeError

PHOTO = load_source("sklearn:china.jpg")
SQUARE = Source("square", (np.zeros((400, 400, 3), np.uint8),), "")


def base_only(motion: str = "linear", frames: int = 5, **base) -> VideoRecipe:
    return VideoRecipe(
        size=32, base_size=32, frames=frames, base=BaseClip(motion=motion, jitter=None, **base), augmentation=None
    )


def cut_only(**extra) -> VideoRecipe:
    """An augmentation of whose parts only those given do anything."""
    return VideoRecipe(
        size=32, base_size=46, frames=3, base=BaseClip(jitter=None),
        augmentation=ClipAugmentation(**{"span": 1.0, "augmix": None, "short_side": (32, 32), "flip": 0.0, **extra}),
    )  # fmt: skip


def corners(clips: ClipSet, n: np.ndarray) -> np.ndarray:
    """Where the corners of every frame lie in the source, in pixels: [n, frames, 4, 2]."""
    numbers, size = clips.numbers(n), clips.recipe.size
    image_level = {int(row[0]): k for table in clips.atlas.table for k, row in reversed(list(enumerate(table)))}
    by = 2.0 ** np.vectorize(image_level.__getitem__)(numbers.level[..., 0])
    points = np.array([[-0.5, -0.5, 1], [size - 0.5, -0.5, 1], [size - 0.5, size - 0.5, 1], [-0.5, size - 0.5, 1]])
    affine = numbers.affine.astype(np.float64).reshape(*numbers.affine.shape[:2], 2, 3)
    return (np.einsum("nfij,pj->nfpi", affine, points) + 0.5) * by[..., None, None]


def sides(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the upper and the left edge: [n, frames] each."""
    return (
        np.linalg.norm(quads[:, :, 1] - quads[:, :, 0], axis=-1),
        np.linalg.norm(quads[:, :, 3] - quads[:, :, 0], axis=-1),
    )


# --- the way of the box ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.integers(64, 300), st.integers(64, 300), st.integers(0, 2**40), st.sampled_from(list(MOTIONS)),
    st.sampled_from([0.5, 1.0]), st.sampled_from([0.0, 30.0, 45.0]),
)  # fmt: skip
def test_boxes_stay_inside_the_image(height, width, seed, motion, share, rotation):
    source = Source("made", (np.zeros((height, width, 3), np.uint8),), "")
    clips = ClipSet(source, base_only(motion, initial_crop=share, rotation=rotation), seed=seed)
    quads = corners(clips, np.arange(32))
    assert quads.min() > -1e-3 and (quads.max(axis=(0, 1, 2)) < [width + 1e-3, height + 1e-3]).all()
    assert (np.ptp(quads, axis=(1, 2)) <= share * min(height, width) + 1e-3).all()  # all frames in one initial crop


def test_a_linear_clip_goes_straight_from_its_first_box_to_its_last():
    quads = corners(ClipSet(SQUARE, base_only(frames=9)), np.arange(200))
    t = np.linspace(0, 1, 9)[:, None, None]
    assert np.allclose(quads, (1 - t) * quads[:, :1] + t * quads[:, -1:], atol=1e-3)
    assert np.allclose(quads[:, :, 0, 1], quads[:, :, 1, 1], atol=1e-3)  # upright


@pytest.mark.parametrize("end", [0, -1])
def test_both_ends_are_boxes_as_the_paper_draws_them(end):
    """Square boxes fit at once, so that their area is uniform; then place and area tell each other nothing."""
    clips = ClipSet(SQUARE, base_only(aspect=(1.0, 1.0), initial_crop=1.0))
    quads = corners(clips, np.arange(4000))[:, end]
    width = quads[:, 1, 0] - quads[:, 0, 0]
    assert stats.kstest((width / 400) ** 2, "uniform", (1 / 500, 1 - 1 / 500)).pvalue > 1e-3
    small = width < 399
    for axis in (0, 1):
        place = quads[small, 0, axis] / (400 - width[small])
        assert stats.kstest(place, "uniform").pvalue > 1e-3
    other = ClipSet(SQUARE, base_only()).numbers(np.arange(4000)).affine[:, end].astype(np.float64)
    assert (other[:, 0] / other[:, 4]).min() > 3 / 4 - 1e-4 and (other[:, 0] / other[:, 4]).max() < 4 / 3 + 1e-4


def test_the_two_ends_have_nothing_to_do_with_each_other():
    width, _ = sides(corners(ClipSet(SQUARE, base_only()), np.arange(3000)))
    assert abs(stats.spearmanr(width[:, 0], width[:, -1]).statistic) < 0.06


def test_a_smooth_clip_has_the_ends_of_the_linear_one_and_bends_between_them():
    linear, smooth = (
        corners(ClipSet(SQUARE, base_only(motion, frames=33, rotation=0.0)), np.arange(100))
        for motion in ("linear", "smooth")
    )
    assert np.allclose(linear[:, [0, -1]], smooth[:, [0, -1]], atol=1e-3)
    assert (np.abs(linear - smooth).max(axis=(1, 2, 3)) > 2).mean() > 0.9
    steps = np.diff(smooth, axis=1)
    assert np.abs(np.diff(steps, axis=1)).max() < 400 / 33**2 * 12  # no jerk: a cubic's second difference is bounded


def test_smooth_boxes_turn_and_keep_their_shape():
    quads = corners(ClipSet(SQUARE, base_only("smooth", frames=17, aspect=(1.0, 1.0))), np.arange(500))
    edge, left = quads[:, :, 1] - quads[:, :, 0], quads[:, :, 3] - quads[:, :, 0]
    assert np.allclose((edge * left).sum(axis=-1), 0, atol=0.3)
    assert np.allclose(*sides(quads), atol=1e-2)
    angle = np.degrees(np.arctan2(edge[..., 1], edge[..., 0]))
    assert np.abs(angle).max() <= 30.01 and np.abs(np.diff(angle, axis=1)).max() < 3 * 60 / 16
    assert stats.kstest(angle[:, 0], "uniform", (-30, 60)).pvalue > 1e-3
    assert stats.kstest(angle[:, -1], "uniform", (-30, 60)).pvalue > 1e-3
    assert np.ptp(angle, axis=1).mean() > 10


def test_no_motion_is_one_frame_of_the_linear_clip_at_any_moment():
    still, linear = (corners(ClipSet(SQUARE, base_only(motion)), np.arange(2000)) for motion in ("none", "linear"))
    assert (still == still[:, :1]).all()
    way = (linear[:, -1] - linear[:, 0]).reshape(len(still), -1)
    gone = (still[:, 0] - linear[:, 0]).reshape(len(still), -1)
    moment = (gone * way).sum(axis=1) / (way**2).sum(axis=1)
    assert np.allclose(gone, moment[:, None] * way, atol=1e-2)
    assert stats.kstest(moment, "uniform").pvalue > 1e-3


def test_a_still_clip_is_one_picture():
    images = render(ClipSet(PHOTO, video(32, 4, "none"), seed=3), np.arange(12))
    assert np.allclose(images, images[:, :1], rtol=0, atol=1e-6)
    moving = render(ClipSet(PHOTO, video(32, 4, "linear"), seed=3), np.arange(12))
    assert np.median([(clip[0] != clip[-1]).mean() for clip in moving]) > 0.5  # but for a clear sky


def test_one_frame_is_a_clip_too():
    for motion in MOTIONS:
        assert np.isfinite(ClipSet(SQUARE, base_only(motion, frames=1)).numbers(np.arange(4)).affine).all()


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_a_clip_shows_a_stretch_of_the_way_from_any_moment():
    n = np.arange(1500)
    whole, part = (corners(ClipSet(SQUARE, cut_only(span=span)), n) for span in (1.0, 0.4))
    way = (whole[:, -1] - whole[:, 0]).reshape(len(n), -1)
    moments = [
        ((part[:, k] - whole[:, 0]).reshape(len(n), -1) * way).sum(axis=1) / (way**2).sum(axis=1) for k in range(3)
    ]
    assert np.allclose(moments[2] - moments[0], 0.4, atol=1e-3) and np.allclose(moments[1] - moments[0], 0.2, atol=1e-3)
    assert stats.kstest(moments[0], "uniform", (0, 0.6)).pvalue > 1e-3


def test_frames_are_scaled_and_cut_as_the_reference_does():
    n = np.arange(3000)
    cut = cut_only(short_side=(37, 46))
    whole, part = (corners(ClipSet(SQUARE, recipe), n) for recipe in (cut_only(), cut))
    box = (whole[:, :1, 1, :1] - whole[:, :1, 0, :1], whole[:, :1, 3, 1:] - whole[:, :1, 0, 1:])
    scaled = 32 * box[0][:, 0, 0] / (part[:, 0, 1, 0] - part[:, 0, 0, 0])  # the side from which 32 pixels were cut
    assert np.allclose(scaled, np.rint(scaled), atol=1e-2)
    assert stats.chisquare(np.bincount(np.rint(scaled).astype(int) - 37, minlength=10)).pvalue > 1e-3
    for axis in (0, 1):
        left = (part[:, 0, 0, axis] - whole[:, 0, 0, axis]) / box[axis][:, 0, 0] * scaled  # in scaled pixels
        assert np.allclose(left, np.rint(left), atol=2e-2)
        assert left.min() > -1e-2 and (left <= scaled - 32 + 1e-2).all()
        assert stats.chisquare(np.bincount(np.rint(left[scaled > 45.5]).astype(int), minlength=15)).pvalue > 1e-3


@pytest.mark.parametrize("motion", MOTIONS)
def test_flips_are_the_same_for_all_frames(motion):
    recipe = video(32, 6, motion)
    recipe = dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, vertical_flip=0.3))
    affine = ClipSet(SQUARE, recipe).numbers(np.arange(2000)).affine
    along_x, along_y = affine[..., 0] < 0, affine[..., 4] < 0
    for flipped, chance in ((along_x, 0.5), (along_y, 0.3)):
        assert (flipped == flipped[:, :1]).all()
        assert flipped[:, 0].mean() == pytest.approx(chance, abs=0.04)


def test_the_light_does_not_flicker():
    """One change of colours explains all frames of a clip, however much their own brightness differs."""
    plain = dataclasses.replace(steady_video(24, 6), border="extend")
    strong = dataclasses.replace(plain.base, jitter=Jitter(probability=1.0))
    before, after = (
        render(ClipSet(PHOTO, dataclasses.replace(plain, base=base), seed=1), np.arange(24))
        for base in (plain.base, strong)
    )
    uneven = 0
    for was, became in zip(before.reshape(24, -1, 3), after.reshape(24, -1, 3)):
        seen = ((became > 0.002) & (became < 0.998)).all(axis=1)
        if seen.sum() < 100:  # burnt out
            continue
        known = np.column_stack([was, np.ones(len(was))])[seen]
        left = np.linalg.lstsq(known, became[seen], rcond=None)[0]
        assert np.abs(known @ left - became[seen]).max() < 1e-4
        uneven += np.ptp(was.reshape(6, -1).mean(axis=1)) > 0.1
    assert uneven > 5


# --- AugMix ----------------------------------------------------------------------------------------------------------

SATURATION, CONTRAST, BRIGHTNESS, SHIFT_X, ROTATE, NOTHING = ((k + 0.5) / 13 for k in (5, 6, 7, 3, 0, 12))


def augmix_uniforms(kept: float, layer: float, kinds: list[float], level: float, sign: float) -> np.ndarray:
    """Three chains of one operation each, equally weighted."""
    operations = np.array([[kind, NOTHING, NOTHING] for kind in kinds])
    rest = [np.full((3, 3), level), np.full((3, 3), sign)]
    return np.concatenate([[kept, layer], np.full(3, 0.5), np.full(3, 0.1), *map(np.ravel, [operations, *rest])])[
        :, None
    ]


def test_colours_are_mixed_as_pictures_would_be():
    image = Image.fromarray(PHOTO.images[0][:80, :80])
    level, kept = 0.5, 0.4
    u = augmix_uniforms(kept, 0.1, [SATURATION, CONTRAST, BRIGHTNESS], level, 0.1)
    moved, colour = augmix_numbers(u, AugMix(), 80.0)
    factor = 0.1 + 0.18 * (0.1 + 2.9 * level)
    enhanced = [
        kind(image).enhance(factor) for kind in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness)
    ]
    expected = kept * np.asarray(image) + sum((1 - kept) / 3 * np.asarray(one, np.float64) for one in enhanced)
    pixels = np.asarray(image) / 255
    ours = pixels @ colour[0, :9].reshape(3, 3).T + colour[0, 9] * (pixels @ LUMA).mean()
    assert np.abs(ours * 255 - expected).max() < 2  # pictures are rounded at every step
    assert np.allclose(moved, np.eye(3)[:2])


@pytest.mark.parametrize(("layer", "shown"), [(0.05, "shift"), (0.25, "turn"), (0.45, "nothing"), (0.9, "clip")])
def test_one_layer_gives_its_place_to_the_clip(layer, shown):
    u = augmix_uniforms(0.4, layer, [SHIFT_X, ROTATE, NOTHING], 0.5, 0.9)
    moved, colour = augmix_numbers(u, AugMix(), 80.0)
    amount = (0.1 + 2.9 * 0.5) / 10
    expected = np.eye(3)[:2]
    if shown == "shift":
        expected[0, 2] = 80 * amount / 3
    assert np.allclose(colour, [*np.eye(3).ravel(), 0])
    if shown != "turn":
        assert np.allclose(moved[0], expected)
        return
    assert np.degrees(np.arctan2(abs(moved[0, 0, 1]), moved[0, 0, 0])) == pytest.approx(30 * amount)
    assert np.allclose(moved[0] @ [40, 40, 1], 40)


def test_how_often_and_how_far_clips_are_moved():
    mix = AugMix()
    u = np.random.default_rng(0).random((augmix_draws(mix), 20_000))
    moved, colour = augmix_numbers(u, mix, 1.0)
    away = (np.abs(moved - np.eye(3)[:2]) > 1e-9).any(axis=(1, 2))
    chain = 1 - np.mean([(8 / 13) ** length for length in (1, 2, 3)])  # 5 of 13 operations move pixels
    assert away.mean() == pytest.approx(0.5 * chain, abs=0.012)
    assert np.abs(moved[:, :, 2]).max() < 0.6  # three shifts of a tenth, or turns about the centre
    brightness = colour[:, :9].reshape(-1, 3, 3) @ np.ones(3) @ LUMA + colour[:, 9]  # what becomes of white's luma
    assert brightness.min() > 0 and brightness.max() <= 1 + 1e-9
    each = 1 - 1 / 13 * (1 - 0.1 - 0.18 * 1.55)
    expected = 0.5 + 0.5 * np.mean([each**length for length in (1, 2, 3)])
    assert brightness.mean() == pytest.approx(expected, abs=0.004)


# --- counting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_number_gives_the_same_clip_in_any_company(motion):
    clips = ClipSet(PHOTO, video(16, 3, motion), views=30, seed=4)
    whole = clips.numbers(np.arange(90))
    assert [part.dtype for part in whole] == [np.float32, np.float32, np.int32, np.float32]
    assert [part.shape for part in whole] == [(90, 3, 6), (90, 3, 4), (90, 3, 3), (90, 2, 10)]
    for few in (np.array([77]), np.array([89, 3, 31])):
        for part, own in zip(whole, clips.numbers(few)):
            assert np.array_equal(part[few], own)
    other = ClipSet(PHOTO, video(16, 3, motion), views=30, seed=5).numbers(np.arange(90))
    assert not (whole.affine == other.affine).all(axis=(1, 2)).any()
    assert np.array_equal(render(clips, np.arange(5, 9))[2], render(clips, np.array([7]))[0])


def test_every_epoch_shows_each_base_clip_once_freshly_augmented():
    base = ClipSet(PHOTO, base_only(), views=40).numbers(np.arange(120)).affine.reshape(3, 40, -1)
    rows = [[row.tobytes() for row in epoch] for epoch in base]
    assert len(set(rows[0])) == 40 and set(rows[0]) == set(rows[1]) == set(rows[2])
    assert rows[0] != rows[1] != rows[2]
    augmented = ClipSet(PHOTO, video(16), views=40).numbers(np.arange(120))
    assert len(np.unique(augmented.affine, axis=0)) == 120
    assert len(np.unique(augmented.colour[:, 0], axis=0)) <= 40  # the base clip's own light comes again


def test_clips_come_from_every_image_of_a_folder():
    source = Source("folder", tuple(np.full((70, 90, 3), value, np.uint8) for value in (30, 120, 220)), "")
    images = render(ClipSet(source, base_only(frames=2)), np.arange(120))
    counts = np.bincount(np.rint(images[:, 0, 5, 5, 0] * 255).astype(int), minlength=221)[[30, 120, 220]]
    assert counts.sum() == 120 and counts.min() > 20
    assert np.array_equal(images[:, 0, 5, 5], images[:, 1, 5, 5])


# --- recipes, previews -----------------------------------------------------------------------------------------------


def test_the_recipe_of_the_paper():
    recipe = video()
    assert recipe == VideoRecipe() == video_recipe(None, 160, 4, "linear")
    assert recipe.augmentation is not None and recipe.augmentation.short_side == (183, 229)
    assert (recipe.size, recipe.frames, recipe.base_size, recipe.colour_stages) == (160, 4, 230, 2)
    assert steady_video().colour_stages == 0
    digests = {video(motion=motion).digest for motion in MOTIONS} | {video(frames=5).digest, steady_video().digest}
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"frames": 0}, "frames .*0"),
        ({"border": "white"}, "white"),
        ({"size": 0}, "size .*0"),
        ({"base": BaseClip(motion="liner")}, "liner.*linear"),
        ({"base": BaseClip(rotation=60)}, "rotation .*60"),
        ({"base": BaseClip(initial_crop=0)}, "initial_crop"),
        ({"base": BaseClip(area=(0.5, 0.1))}, "area"),
        ({"base": BaseClip(jitter=Jitter(hue=0.7))}, "hue"),
        ({"augmentation": None}, "base_size .*230"),
        ({"augmentation": ClipAugmentation(span=0)}, "span .*0"),
        ({"augmentation": ClipAugmentation(short_side=(150, 229))}, "short_side .*150.*160"),
        ({"augmentation": ClipAugmentation(flip=2)}, "flip .*2"),
        ({"augmentation": ClipAugmentation(augmix=AugMix(chains=0))}, "chains"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change, named):
    with pytest.raises(RecipeError, match=named):
        dataclasses.replace(video(), **change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": "video2"}, "video2.*video"),
        ({"recipe": video(64)}, "image_size .*48.*64"),
        ({"recipe": video(48, 7)}, "frames .*4.*7"),
        ({"recipe": video(48, 4, "smooth")}, "motion .*linear.*smooth"),
        ({"clips": 0}, "clips .*0"),
        ({"seed": -1}, "seed .*-1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(change, named):
    options = {"recipe": None, "clips": 10, "seed": 0, **change}
    recipe = options.pop("recipe")
    with pytest.raises(RecipeError, match=named):
        make_clip_set(PHOTO, 48, 4, "linear", recipe, **options)


def test_previews_are_strips_of_frames():
    clips = ClipSet(PHOTO, video(32, 3), views=10)
    base, augmented, mixed = previews(clips, Mixing("cutmix", 1.0, "sample"), 6).values()
    assert base.shape == (6, 46, 3 * 46, 3) and base.dtype == np.uint8
    assert augmented.shape == mixed.shape == (6, 32, 3 * 32, 3)
    frames = render(clips, np.arange(6))
    assert np.array_equal(augmented[4, :, 32:64], np.rint(frames[4, 1] * 255).astype(np.uint8))
    assert np.array_equal(strips(frames)[2, 7, 64 + 5], frames[2, 2, 7, 5])
    views = render(ViewSet(PHOTO, cifar(8)), np.arange(2))
    assert strips(views) is views


def test_numbers_are_a_tuple_of_arrays():
    assert ClipNumbers._fields == ("affine", "frame", "level", "colour")
