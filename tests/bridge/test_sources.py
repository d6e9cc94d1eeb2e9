"""Every kind of picture ends as the right RGB bytes; every unusable one is named."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bridge.datum.sources import load_source, read_image
from bridge.errors import DatumError


def pixels_of(image, **options) -> np.ndarray:
    """The only image of a source that is to be read without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (pixels,) = load_source(image, **options).images
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    return pixels


def random_image(height=70, width=90, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth_image(height=70, width=90) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, np.full(x.shape, 90)], axis=-1).astype(np.uint8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 24), st.integers(1, 24), st.data())
def test_png_round_trips_exactly(height, width, data):
    raw = data.draw(st.binary(min_size=height * width * 3, max_size=height * width * 3))
    array = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.png")
        Image.fromarray(array).save(path)
        assert np.array_equal(pixels_of(path, min_side=1), array)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_rgb_formats_give_the_stored_pixels(tmp_path, suffix):
    array = random_image()
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(pixels_of(tmp_path / f"a.{suffix}"), array)
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), array)


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_composited_over_black_and_opaque_pixels_stay_exact(tmp_path, channels):
    array = random_image()[..., :channels]
    alpha = np.full((70, 90, 1), 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 128
    Image.fromarray(np.dstack([array, alpha]), "RGBA" if channels == 3 else "LA").save(tmp_path / "a.png")
    pixels = pixels_of(tmp_path / "a.png")
    assert (pixels[20:] == array[20:]).all() and (pixels[:10] == 0).all()
    assert np.abs(pixels[10:20] - array[10:20] * (128 / 255)).max() <= 1


@pytest.mark.parametrize("transparency", [None, 2, bytes([255, 255, 0, 255])])
def test_palette_with_and_without_transparency(tmp_path, transparency):
    colours = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 250], [7, 7, 7]], np.uint8)
    index = np.random.default_rng(0).integers(0, 4, (70, 90), dtype=np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    expected = colours[index]
    if transparency is not None:
        expected[index == 2] = 0
    assert np.array_equal(pixels_of(tmp_path / "a.png"), expected)


def test_colour_key_transparency_becomes_black(tmp_path):
    array = random_image()
    Image.fromarray(array).save(tmp_path / "a.png", transparency=tuple(array[3, 4].tolist()))
    array[3, 4] = 0
    assert np.array_equal(pixels_of(tmp_path / "a.png"), array)


def test_grey_and_one_bit_images_fill_three_equal_channels(tmp_path):
    grey = random_image()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey > 127).save(tmp_path / "bit.png")
    assert np.array_equal(pixels_of(tmp_path / "grey.png"), np.dstack([grey] * 3))
    assert np.array_equal(pixels_of(tmp_path / "bit.png"), np.dstack([np.where(grey > 127, 255, 0)] * 3))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_other_colour_spaces_come_back_as_rgb(tmp_path, mode, suffix):
    array = smooth_image()
    Image.fromarray(array).convert(mode).save(tmp_path / f"a.{suffix}", quality=98)
    assert np.abs(pixels_of(tmp_path / f"a.{suffix}").astype(int) - array).mean() < 3


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, 70 * 90).reshape(70, 90).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(pixels_of(tmp_path / f"a.{suffix}")[..., 2], np.rint(values / 257).astype(np.uint8))


def test_float_image_is_scaled_between_its_extremes(tmp_path):
    values = np.linspace(-3, 5, 70 * 90, dtype=np.float32).reshape(70, 90)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.abs(pixels_of(tmp_path / "a.tif")[..., 0] - (values + 3) / 8 * 255).max() <= 0.51


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (90, 70), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels_of(tmp_path / "a.gif") == (255, 0, 0)).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    array = smooth_image()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", exif=exif)
    expected = np.rot90(array, -1 if orientation == 6 else 2).astype(int)
    pixels = pixels_of(tmp_path / f"a.{suffix}")
    assert pixels.shape == expected.shape and np.abs(pixels - expected).mean() < 2


def test_arrays_and_pil_images_are_taken_as_they_are():
    array = random_image()
    assert np.array_equal(pixels_of(array), array)
    assert np.array_equal(pixels_of(array[..., 0]), np.dstack([array[..., 0]] * 3))
    assert np.array_equal(pixels_of((array / 255).astype(np.float32)), array)
    assert np.array_equal(pixels_of(Image.fromarray(array)), array)


def test_source_does_not_follow_later_changes_of_the_callers_array():
    array = random_image()
    source = load_source(array)
    array[:] = 0
    assert np.array_equal(source.images[0], random_image())
    assert not source.images[0].flags.writeable


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((70, 90, 4), np.uint8), r"\[70, 90, 4\]"),
        (np.zeros((70, 90, 3), np.int64), "int64"),
        (np.full((70, 90, 3), 200.0), "200"),
        (np.full((70, 90, 3), np.nan), "nan"),
        (np.zeros((0, 90, 3), np.uint8), r"\[0, 90, 3\]"),
        (np.zeros((2, 70, 90, 3), np.uint8), r"\[2, 70, 90, 3\]"),
    ],
)
def test_other_arrays_are_refused_naming_what_they_are(array, named):
    with pytest.raises(DatumError, match=f"{named}.*expected uint8"):
        load_source(array)


def test_hash_depends_on_pixels_and_shape_only(tmp_path):
    array = random_image()
    Image.fromarray(array).save(tmp_path / "a.png")
    Image.fromarray(array).save(tmp_path / "b.bmp")
    source = load_source(array)
    assert source.sha256 == load_source(tmp_path / "a.png").sha256 == load_source(tmp_path / "b.bmp").sha256
    changed = array ^ np.uint8(1)
    assert load_source(changed).sha256 != source.sha256
    assert load_source(np.zeros((64, 96, 3), np.uint8)).sha256 != load_source(np.zeros((96, 64, 3), np.uint8)).sha256


def test_control_sources_are_the_same_everywhere():
    noise, constant = load_source("control:noise"), load_source("control:constant")
    assert noise.images[0].shape == constant.images[0].shape == (512, 512, 3)
    assert noise.sha256 == "b5fc6acbcc082cc8f70393297271dbd15a765cb104cda3d08a64b7a9e153aeff"
    assert abs(noise.images[0].mean() - 127.5) < 0.5 and (constant.images[0] == 128).all()


def test_scikit_learns_photographs_have_names():
    assert pixels_of("sklearn:china.jpg").shape == (427, 640, 3)
    with pytest.raises(DatumError, match=r"sklearn:flower\.jpg"):
        load_source("sklearn:flowers.jpg")


def test_very_small_image_is_upscaled_with_a_warning(tmp_path):
    Image.fromarray(smooth_image(20, 30)).save(tmp_path / "small.png")
    with pytest.warns(UserWarning, match=r"small\.png \(30 x 20 to 96 x 64\)"):
        (pixels,) = load_source(tmp_path / "small.png").images
    assert pixels.shape == (64, 96, 3)
    assert np.abs(pixels.mean((0, 1)) - smooth_image(20, 30).mean((0, 1))).max() < 2


# JPEG is decoded at half size first, so its factor is 2 x 2 where the others need only 3.
@pytest.mark.parametrize(("suffix", "used"), [("jpg", "150 x 100"), ("png", "200 x 134")])
def test_large_image_is_reduced_within_the_bound_with_a_warning(tmp_path, suffix, used):
    array = smooth_image(400, 600)
    Image.fromarray(array).save(tmp_path / f"a.{suffix}")
    with pytest.warns(UserWarning, match=f"600 x 400 stored, {used} used"):
        (pixels,) = load_source(tmp_path / f"a.{suffix}", max_pixels=30_000).images
    assert 64 * 64 < pixels.shape[0] * pixels.shape[1] <= 30_000
    assert np.abs(pixels.mean((0, 1)) - array.mean((0, 1))).max() < 3


def test_array_and_pil_image_are_reduced_too_and_left_alone_themselves():
    image = Image.fromarray(smooth_image(400, 600))
    for given_image in (image, smooth_image(400, 600)):
        with pytest.warns(UserWarning, match="reduced"):
            assert load_source(given_image, max_pixels=60_000).images[0].shape == (200, 300, 3)
    assert image.size == (600, 400)


def test_folder_is_read_in_sorted_order_and_skips_what_is_no_image(tmp_path):
    arrays = [random_image(seed=seed) for seed in range(3)]
    (tmp_path / "b").mkdir()
    for name, array in zip(["z.png", "b/2.png", "a.png"], arrays, strict=True):
        Image.fromarray(array).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    whole = (tmp_path / "z.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"2 of 5 files.*cut\.png, notes\.txt"):
        source = load_source(tmp_path)
    for got, expected in zip(source.images, [arrays[2], arrays[1], arrays[0]], strict=True):
        assert np.array_equal(got, expected)


def test_folder_shares_the_budget_and_leaves_small_images_alone(tmp_path):
    Image.fromarray(smooth_image(1200, 1600)).save(tmp_path / "large.png")
    for number in range(4):
        Image.fromarray(random_image(64, 64, number)).save(tmp_path / f"patch{number}.png")
    with pytest.warns(UserWarning, match="reduced"):
        shapes = [image.shape[:2] for image in load_source(tmp_path, max_pixels=600_000).images]
    assert shapes == [(600, 800)] + [(64, 64)] * 4


def test_folder_of_patches_above_the_budget_is_not_reduced_but_has_a_limit(tmp_path):
    for number in range(17):
        Image.fromarray(random_image(64, 64, number)).save(tmp_path / f"{number:02d}.png")
    with pytest.raises(DatumError, match=r"17 images.*max_pixels"):
        load_source(tmp_path, max_pixels=4096, min_side=8)
    (tmp_path / "00.png").unlink()
    images = load_source(tmp_path, max_pixels=4096, min_side=8).images
    assert {image.shape for image in images} == {(64, 64, 3)}


def test_folder_with_nothing_usable_and_folder_for_a_file_are_refused(tmp_path):
    with pytest.raises(DatumError, match=r"no usable image.*no files"):
        load_source(tmp_path)
    with pytest.raises(DatumError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ("cut.png", r"cut\.png cannot be decoded"),
        ("text.png", r"text\.png is not an image"),
        ("empty.png", r"empty\.png is empty"),
        ("gone.png", r"gone\.png does not exist"),
        ("text.png/inside.png", "does not exist"),
        ("x" * 300, "cannot reach"),
        ("nul\0.png", "cannot reach"),
        ("", "path is empty"),
        (3, "int: expected"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (Image.new("I", (90, 70), 65536), r"65536.*expected 0\.\.65535"),
        (Image.new("F", (90, 70), float("nan")), "NaN"),
        (Image.new("RGB", (60_000, 1)), "too elongated"),
    ],
)
def test_unusable_images_are_named(tmp_path, monkeypatch, image, named):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(random_image()).save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:9000])
    Path("text.png").write_bytes(b"hello")
    Path("empty.png").touch()
    with pytest.raises(DatumError, match=named):
        load_source(image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DatumError, match="neither a file nor a folder"):
        load_source(tmp_path / "pipe.png")
    with pytest.raises(DatumError, match=r"no usable image.*pipe\.png"):
        load_source(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind us")
def test_folder_and_file_without_permission_are_named(tmp_path):
    (folder := tmp_path / "closed").mkdir()
    Image.fromarray(random_image()).save(folder / "a.png")
    (folder / "a.png").chmod(0)
    with pytest.raises(DatumError, match=r"a\.png may not be read"):
        load_source(folder / "a.png")
    folder.chmod(0)
    try:
        with pytest.raises(DatumError, match=r"closed.*permissions"):
            load_source(folder)
        with pytest.raises(DatumError, match=r"closed.*permissions"):
            load_source(folder / "a.png")
    finally:
        folder.chmod(0o700)


def test_bomb_is_refused_and_an_image_just_below_is_quietly_reduced(tmp_path, monkeypatch):
    Image.fromarray(random_image(100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load_source(tmp_path / "a.png", max_pixels=5_000, min_side=1).images[0].shape == (50, 50, 3)
    assert [warning.category for warning in caught] == [UserWarning]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_999)
    with pytest.raises(DatumError, match=r"a\.png is too large.*MAX_IMAGE_PIXELS"):
        load_source(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_not_cost_a_good_photograph(tmp_path):
    Image.fromarray(random_image()).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert np.array_equal(load_source(tmp_path / "a.png").images[0], random_image())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_give_an_image_or_a_named_error(tmp_path, monkeypatch, data):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # a damaged header may promise anything
    suffix = data.draw(st.sampled_from(["png", "jpg", "gif", "tif", "bmp", "webp"]))
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(smooth_image(16, 16)).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert load_source(path, min_side=1, max_pixels=1_000_000).images[0].size
        except DatumError as error:
            assert path.name in str(error)
