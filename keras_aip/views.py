"""Views of one image in TensorFlow: the renderer and `single_image_dataset`."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from bridge.datum.colour import LUMA
from bridge.datum.recipes import ImageRecipe
from bridge.datum.views import ViewNumbers, ViewSet, make_view_set
from keras_aip.counted import counted_dataset
from keras_aip.strategy import on_other_devices


class Renderer:
    """Draws view numbers as images, on whatever device the graph it is called in runs on.

    Two XLA programs: sampling, then colour. In a single one the sampling would be fused into the mean that contrast
    needs and done again for every pixel's colour (16 times slower on a CPU). All shapes are static.

    Args:
        view_set: whose atlas and recipe the numbers belong to.
    """

    numbers = ViewNumbers

    def __init__(self, view_set: ViewSet):
        self.recipe = view_set.recipe
        self._pixels = tf.constant(view_set.atlas.pixels)
        self._sample = tf.function(self._sample_plain, jit_compile=True)
        self._colour = tf.function(self._colour_plain, jit_compile=True)

    def place(self, strategy: tf.distribute.Strategy) -> None:
        """Keep the source on the devices of a strategy, as a variable; a constant would be sent there every step."""
        if on_other_devices(strategy) and isinstance(self._pixels, tf.Tensor):
            with strategy.scope():
                self._pixels = tf.Variable(self._pixels, trainable=False)

    def __call__(self, numbers: ViewNumbers) -> tf.Tensor:
        """Numbers of one batch → float32 [batch, size, size, 3] in [0, 1], RGB."""
        numbers = ViewNumbers(*numbers)
        image = self._sample(tf.convert_to_tensor(self._pixels), numbers.affine, numbers.frame, numbers.level)
        return self._colour(image, numbers.window, numbers.colour, numbers.tone)

    def _sample_plain(self, pixels: tf.Tensor, affine: tf.Tensor, frame: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
        """One bilinear sampling of a pyramid level, black outside the frame."""
        size = self.recipe.size
        column = tf.reshape(tf.range(size, dtype=tf.float32), [1, 1, size])
        row = tf.reshape(tf.range(size, dtype=tf.float32), [1, size, 1])
        a0, a1, a2, a3, a4, a5 = _columns(affine)
        left, top, right, bottom = _columns(frame)
        offset, width, height = _columns(level)
        x = a0 * column + (a1 * row + a2)
        y = a3 * column + (a4 * row + a5)
        whole = tf.where((x >= left) & (x <= right) & (y >= top) & (y <= bottom), 1 / 255, 0.0)
        x = tf.clip_by_value(x, 0.0, tf.cast(width - 1, tf.float32))
        y = tf.clip_by_value(y, 0.0, tf.cast(height - 1, tf.float32))
        # The last column and row are reached as the right and lower neighbour, with all the weight.
        x0 = tf.minimum(tf.cast(x, tf.int32), tf.maximum(width - 2, 0))
        y0 = tf.minimum(tf.cast(y, tf.int32), tf.maximum(height - 2, 0))
        fx, fy = x - tf.cast(x0, tf.float32), y - tf.cast(y0, tf.float32)
        here = offset + y0 * width + x0
        right_of, below = tf.minimum(width - 1, 1), tf.where(height > 1, width, 0)
        # Four weights per pixel, made before the channels come in: twice as fast as interpolating each channel.
        lower = fy * whole
        upper = whole - lower
        w01, w11 = fx * upper, fx * lower
        w00, w10 = upper - w01, lower - w11
        return tf.add_n(
            [
                tf.cast(tf.gather(pixels, here + step), tf.float32) * tf.expand_dims(weight, -1)
                for step, weight in zip((0, right_of, below, right_of + below), (w00, w01, w10, w11))
            ]
        )

    def _colour_plain(self, image: tf.Tensor, window: tf.Tensor, colour: tf.Tensor, tone: tf.Tensor) -> tf.Tensor:
        """Colour stages, the padded border, grey and solarise."""
        recipe, size = self.recipe, self.recipe.size
        inside = None
        if recipe.augmentation is not None and recipe.augmentation.pad:
            index = tf.range(size, dtype=tf.float32)
            left, top, right, bottom = _columns(window)
            column, row = tf.reshape(index, [1, 1, size]), tf.reshape(index, [1, size, 1])
            seen = (column >= left) & (column < right) & (row >= top) & (row < bottom)
            inside = tf.expand_dims(tf.cast(seen, tf.float32), -1)
        for stage in range(recipe.colour_stages):
            if stage == 0 and inside is not None:  # the mean is that of the view before padding
                mean = _mean(_luma(image) * inside, size) / tf.maximum(_mean(inside, size), 1e-6)
            else:
                mean = _mean(_luma(image), size)
            # All three channels of a pixel side by side, as they lie in memory: apart and stacked again is slower.
            columns = tf.unstack(tf.reshape(colour[:, stage, :9], [-1, 1, 1, 3, 3]), axis=-1)
            offset = mean * tf.reshape(colour[:, stage, 9], [-1, 1, 1, 1])
            channels = tf.split(image, 3, axis=-1)
            image = tf.add_n([channel * column for channel, column in zip(channels, columns)]) + offset
            image = tf.clip_by_value(image, 0.0, 1.0)
            if stage == 0 and inside is not None:
                image *= inside
        if recipe.colour_stages == 0:
            image = tf.minimum(image, 1.0)  # four weights may add up to a rounding error more than one
            image = image if inside is None else image * inside
        if recipe.has_tone:
            grey, threshold = (tf.expand_dims(column, -1) for column in _columns(tone))
            image = tf.where(grey > 0, _luma(image), image)
            image = tf.where(image >= threshold, 1 - image, image)
        return image


def _luma(image: tf.Tensor) -> tf.Tensor:
    """[batch, height, width, 3] → [batch, height, width, 1]."""
    red, green, blue = tf.split(image, 3, axis=-1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _columns(table: tf.Tensor) -> list[tf.Tensor]:
    """[batch, k] → k tensors [batch, 1, 1]. (Indexing with None broke in graph mode on TF 2.21.)"""
    return [tf.reshape(column, [-1, 1, 1]) for column in tf.unstack(table, axis=-1)]


def _mean(plane: tf.Tensor, size: int) -> tf.Tensor:
    """[batch, size, size, 1] → [batch, 1, 1, 1]. Strips are added up first: one long sum would wait at every step."""
    strips = math.gcd(size, 8)
    return tf.reduce_mean(tf.add_n(tf.split(plane, strips, axis=1)), axis=[1, 2], keepdims=True) / strips


def single_image_dataset(
    image: Any,
    *,
    image_size: int = 32,
    batch_size: int = 512,
    views: int | None = 50_000,
    seed: int = 0,
    recipe: str | ImageRecipe | None = None,
    patches: bool = False,
    start_step: int = 0,
    render: str = "host",
) -> tf.data.Dataset:
    """An endless data set of batches of views of one image.

    Args:
        image: path of an image, of a folder of images or of ready-made patches; a PIL image; an array uint8
            [height, width, 3]; or "sklearn:china.jpg", "sklearn:flower.jpg", "control:noise", "control:constant".
        image_size: side of a view, in pixels.
        batch_size: rows per step over all devices and hosts.
        views: how many base views one epoch shows; later epochs show the same ones in another order, freshly
            augmented. None: never the same view twice. 50,000 for CIFAR, 1,281,167 for ImageNet (Asano & Saeed 2023).
        seed: 0 ≤ seed < 2**64.
        recipe: an `ImageRecipe`, "cifar", "steady", "imagenet", or None: by size (below 96 pixels "cifar").
        patches: the images of the folder are base views already, and are all of them, whatever `views` says; only the
            training-time augmentation is drawn.
        start_step: begin with this step, as if all before had been drawn.
        render: "host" yields images; "device" yields `ViewNumbers`, which `Distiller` renders inside its step.

    Returns:
        A `tf.data.Dataset` of float32 [batch_size, image_size, image_size, 3] in [0, 1], RGB, or of `ViewNumbers`,
        with the attributes `steps_per_epoch` (None if `views` is None), `start_step`, `view_set` and `renderer`.

    Raises:
        DatumError: the image cannot be read. RecipeError: a value is out of range.
    """
    view_set = make_view_set(image, image_size, recipe, patches=patches, views=views, seed=seed)
    return view_dataset(view_set, batch_size, start_step=start_step, render=render)


def view_dataset(view_set: ViewSet, batch_size: int, **options: Any) -> tf.data.Dataset:
    """`single_image_dataset` for a `ViewSet` that exists already; options as of `counted_dataset`."""
    return counted_dataset(view_set, Renderer, batch_size, **options)
