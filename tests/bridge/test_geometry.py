"""Affine maps do what they say, and pyramids hold the image at every size."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.datum.atlas import Atlas, mip_pyramid
from bridge.datum.geometry import area_crop, compose, rotation_shear_map


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.floats(-180, 180), st.floats(-80, 80), st.integers(1, 400), st.floats(-50, 450), st.floats(-50, 450))
def test_rotation_and_shear_undo_torchvisions_affine(angle, shear, size, x, y):
    """torchvision documents its forward matrix; centre c, angle a, shear s along x: C · RSS · C⁻¹."""
    a, t = math.radians(angle), math.tan(math.radians(shear))
    forward = np.array([[math.cos(a), -math.cos(a) * t - math.sin(a)], [math.sin(a), -math.sin(a) * t + math.cos(a)]])
    point, centre = np.array([x, y]), np.full(2, size / 2)
    moved = forward @ (point - centre) + centre
    back = rotation_shear_map(np.array([angle]), np.array([shear]), size)[0]
    assert np.allclose(back @ [*moved, 1], point, atol=1e-6 * (1 + abs(t)) ** 2 * 1000)


MAPS = st.lists(st.floats(-3, 3), min_size=6, max_size=6).map(lambda values: np.array(values).reshape(1, 2, 3))


@settings(max_examples=60, deadline=None)
@given(MAPS, MAPS, MAPS, st.floats(-9, 9), st.floats(-9, 9))
def test_composed_maps_do_what_one_after_the_other_does(one, two, three, x, y):
    point = np.array([x, y])
    for step in (three, two, one):
        point = step[0] @ [*point, 1]
    assert np.allclose(compose(one, two, three)[0] @ [x, y, 1], point, atol=1e-9)
    assert np.allclose(compose(one, compose(two, three)), compose(compose(one, two), three), atol=1e-9)
    assert np.array_equal(compose(one), one)


def test_a_crop_that_never_fits_is_clipped_to_the_square():
    left, top, width, height = area_crop(np.full((18, 1), 0.5), 10.0, (1.0, 1.0), (2.0, 2.0))[0]
    assert (width, left) == (10, 0) and top >= 0 and top + height <= 10


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_a_pixel_of_a_level_covers_whole_blocks_of_the_image(height, width):
    image = image_of(height, width)
    for k, level in enumerate(mip_pyramid(image)):
        assert level.shape == (-(-height // 2**k), -(-width // 2**k), 3)
        block = image[: 2**k, : 2**k].astype(np.float64)
        if block.shape[:2] == (2**k, 2**k):
            assert np.abs(level[0, 0] - block.mean(axis=(0, 1))).max() < 0.51


def test_an_atlas_finds_every_level_of_every_image():
    images = [image_of(40, 30), image_of(9, 70)]
    atlas = Atlas(images)
    for image, levels, depth in zip(images, atlas.table, atlas.depths):
        for expected, place in zip(mip_pyramid(image), levels):
            assert np.array_equal(atlas.level(*map(int, place))[..., :3], expected)
        assert (levels[depth:] == levels[depth - 1]).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_a_constant_image_stays_constant_at_every_level(height, width, value):
    for level in mip_pyramid(np.full((height, width, 3), value, np.uint8)):
        assert (level == value).all()
