"""The same numbers give the same pixels: OpenCV on the host, TensorFlow eagerly, in tf.data and under XLA, PyTorch."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import tensorflow as tf
import torch

from bridge.datum.recipes import Augmentation, BaseView, ImageRecipe, Jitter, cifar, imagenet, steady
from bridge.datum.render import render, render_numbers
from bridge.datum.sources import Source, load_source
from bridge.datum.views import ViewNumbers, ViewSet
from bridge.errors import RecipeError
from keras_aip import single_image_dataset
from keras_aip.views import Renderer, view_dataset
from torch_aip import views as torch_views

BATCH = 24
PHOTO = load_source("sklearn:china.jpg")
FLOWER = load_source("sklearn:flower.jpg")
FOLDER = Source("folder", (PHOTO.images[0], FLOWER.images[0], PHOTO.images[0][:70, :90]), "")
PATCHES = Source("patches", tuple(PHOTO.images[0][k : k + 40, k : k + 44] for k in range(0, 300, 60)), "")
ALL_TONES = Augmentation(area=(0.3, 1.0), jitter=Jitter(probability=1.0), grey=1.0, solarise=1.0)
RECIPES = {
    "cifar": (PHOTO, cifar(32)),
    "steady": (PHOTO, steady(32)),
    "imagenet": (PHOTO, imagenet(48)),
    "large": (PHOTO, ImageRecipe(size=112, base_size=112, augmentation=None)),
    "extended border": (PHOTO, dataclasses.replace(cifar(32), border="extend")),
    "patches": (PATCHES, cifar(32).for_patches()),
    "patches, imagenet": (PATCHES, imagenet(48).for_patches()),
    "grey and solarised": (PHOTO, ImageRecipe(size=32, base_size=40, augmentation=ALL_TONES)),
    "solarised": (PHOTO, ImageRecipe(augmentation=Augmentation(solarise=1.0, pad=4))),
    "several images": (FOLDER, cifar(32)),
    "no colour": (PHOTO, ImageRecipe(base=BaseView(jitter=None), augmentation=Augmentation(pad=4))),
    "base views": (PHOTO, ImageRecipe(augmentation=None)),
    "odd size": (PHOTO, cifar(29)),
}


# OpenCV 4 rounds positions to 1/32 of a pixel, which shows at hard edges; OpenCV 5 does not.
ALIKE = 0.999 if int(cv2.__version__.split(".")[0]) >= 5 else 0.997


def assert_equal_images(ours: np.ndarray, host: np.ndarray) -> None:
    """But for a few pixels: where the frame ends, a pixel may fall on its other side."""
    assert ours.shape == host.shape and ours.dtype == host.dtype == np.float32
    assert ours.min() >= 0 and ours.max() <= 1 and host.min() >= 0 and host.max() <= 1
    assert (np.abs(ours - host).max(axis=-1) <= 3 / 255).mean() >= ALIKE
    assert np.abs(ours - host).mean() < 1 / 255


@pytest.mark.parametrize("name", RECIPES)
def test_tensorflow_draws_what_the_host_draws(name):
    source, recipe = RECIPES[name]
    views = ViewSet(source, recipe, views=40, seed=2)
    numbers = views.numbers(np.arange(30, 30 + BATCH))
    host = render_numbers(numbers, views)
    assert host.std() > 0.05  # black against black would be equal too
    assert_equal_images(Renderer(views)(numbers).numpy(), host)


def in_torch(view_set: ViewSet, numbers: ViewNumbers) -> np.ndarray:
    image = torch_views.Renderer(view_set)(ViewNumbers(*map(torch.from_numpy, numbers)))
    return image.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("name", RECIPES)
def test_pytorch_draws_what_the_host_and_tensorflow_draw(name):
    source, recipe = RECIPES[name]
    views = ViewSet(source, recipe, views=40, seed=2)
    numbers = views.numbers(np.arange(30, 30 + BATCH))
    ours, host, theirs = in_torch(views, numbers), render_numbers(numbers, views), Renderer(views)(numbers).numpy()
    assert_equal_images(ours, host)
    # the two device renderers do the same sums, but for the order in which a mean is added up
    assert (np.abs(ours - theirs).max(axis=-1) < 1e-3).mean() > 0.999
    assert np.abs(ours - theirs).mean() < 1e-4


def compiled(renderer: Renderer):
    return tf.function(lambda *numbers: renderer(ViewNumbers(*numbers)), jit_compile=True)


@pytest.mark.parametrize("name", ["cifar", "imagenet"])
def test_eager_tf_data_and_one_xla_program_agree(name):
    source, recipe = RECIPES[name]
    views = ViewSet(source, recipe, views=40, seed=3)
    renderer = Renderer(views)
    numbers = ViewNumbers(*map(tf.constant, views.numbers(np.arange(BATCH))))
    eager = renderer(numbers)
    mapped = next(iter(tf.data.Dataset.from_tensors(numbers).map(renderer)))
    whole = compiled(renderer)(*numbers)
    for other in (mapped, whole):
        assert (np.abs(other - eager).max(axis=-1) < 1e-3).mean() > 0.999
        assert np.abs(other - eager).mean() < 1e-4


@pytest.mark.parametrize(("height", "width"), [(2, 2), (1, 1), (1, 64), (64, 1), (3, 5)])
def test_the_smallest_images_are_sampled_right_and_no_index_leaves_the_atlas(height, width):
    """Compiled, and as ordinary operations, which refuse an index out of range where there is no neighbour."""
    source = Source("small", (PHOTO.images[0][:height, :width],), "")
    views = ViewSet(source, dataclasses.replace(cifar(32).for_patches(), border="extend"))
    renderer, numbers = Renderer(views), views.numbers(np.arange(4))
    host = render_numbers(numbers, views)
    image = renderer._sample_plain(renderer._pixels, *map(tf.constant, (numbers.affine, numbers.frame, numbers.level)))
    plain = renderer._colour_plain(image, *map(tf.constant, (numbers.window, numbers.colour, numbers.tone)))
    assert_equal_images(plain.numpy(), host)
    assert_equal_images(renderer(numbers).numpy(), host)
    assert_equal_images(in_torch(views, numbers), host)


@pytest.mark.parametrize("kind", ["host", "device"])
def test_every_shape_of_the_data_set_is_static(kind):
    data = view_dataset(ViewSet(PHOTO, cifar(32), views=100), BATCH, render=kind)
    for spec in tf.nest.flatten(data.element_spec):
        assert spec.shape.is_fully_defined() and spec.shape[0] == BATCH
    if kind == "host":
        assert data.element_spec == tf.TensorSpec([BATCH, 32, 32, 3], tf.float32)
    else:
        assert isinstance(data.element_spec, ViewNumbers)
        lowered = compiled(data.renderer).get_concrete_function(*data.element_spec)
        assert lowered.structured_outputs.shape == [BATCH, 32, 32, 3]


def test_device_numbers_rendered_are_the_images_of_the_host():
    options = {"batch_size": BATCH, "views": 50, "seed": 6}
    images = single_image_dataset("sklearn:china.jpg", **options)
    numbers = single_image_dataset("sklearn:china.jpg", render="device", **options)
    for image, drawn in zip(images.take(3), numbers.take(3)):
        # the host draws several steps at once, and XLA adds up otherwise for another number of rows
        assert np.allclose(image, numbers.renderer(drawn), rtol=0, atol=2e-6)


def test_the_data_set_shows_samples_in_the_order_of_their_numbers():
    data = single_image_dataset("sklearn:china.jpg", batch_size=BATCH, views=50, seed=6)
    assert data.steps_per_epoch == 3  # 50 views in batches of 24: nothing is dropped
    views = ViewSet("sklearn:china.jpg", cifar(32), views=50, seed=6)
    for step, image in enumerate(data.take(5)):  # two epochs and more
        assert_equal_images(image.numpy(), render(views, step * BATCH + np.arange(BATCH)))


def test_two_epochs_show_the_same_base_views_in_another_order():
    views, batch = 48, 24
    recipe = ImageRecipe(augmentation=None)
    data = single_image_dataset("sklearn:china.jpg", batch_size=batch, views=views, recipe=recipe)
    rows = np.concatenate([image.numpy() for image in data.take(4)]).reshape(2, views, -1)
    first, second = ([row.tobytes() for row in epoch] for epoch in rows)
    assert len(set(first)) == views and set(first) == set(second) and first != second
    again = np.concatenate([image.numpy() for image in data.take(2)]).reshape(views, -1)
    assert np.array_equal(rows[0], again)  # iterating anew begins anew


@pytest.mark.parametrize("kind", ["host", "device"])
def test_starting_at_a_step_is_skipping_the_batches_before_it(kind):
    options = {"batch_size": 16, "views": 40, "seed": 1, "render": kind}
    skipped = single_image_dataset("sklearn:china.jpg", **options).skip(3).take(2)
    started = single_image_dataset("sklearn:china.jpg", start_step=3, **options)
    assert started.start_step == 3
    for one, two in zip(skipped, started.take(2)):
        for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(two)):
            assert np.array_equal(left, right)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"render": "gpu"}, "gpu"),
        ({"recipe": cifar(48)}, "48"),
        ({"recipe": "sharp"}, "sharp"),
        ({"views": 0}, "views"),
        ({"seed": -1}, "seed"),
        ({"image_size": 0}, "size"),
    ],
)
def test_impossible_options_are_named(options, named):
    with pytest.raises(RecipeError, match=named):
        single_image_dataset("sklearn:china.jpg", **options)
