"""What differs between Keras 3 / TensorFlow 2.21 and the TF 2.15 set (Keras 2, Addons, I/O), in one place.

Everything else in the package is the same source on both.
"""

from __future__ import annotations

import importlib.util

import keras
import tensorflow as tf

KERAS_3 = int(keras.__version__.split(".")[0]) >= 3
HAS_ADDONS = not KERAS_3 and importlib.util.find_spec("tensorflow_addons") is not None


def cutout(images: tf.Tensor, side: int, centre: tf.Tensor) -> tf.Tensor:
    """Blacken a square of each image (DeVries & Taylor 2017): by TensorFlow Addons where it runs.

    Args:
        images: float32 [batch, height, width, channels].
        side: side of the square in pixels, even (as Addons wants it).
        centre: int32 [batch, 2], row and column; the square is cut off at the image's border.

    Returns:
        float32 of the same shape.
    """
    if HAS_ADDONS:
        import tensorflow_addons as tfa

        return tfa.image.cutout(images, (side, side), offset=centre, constant_values=0)
    row, column = tf.split(centre, 2, axis=1)
    y, x = tf.range(tf.shape(images)[1])[None, :], tf.range(tf.shape(images)[2])[None, :]
    half = side // 2
    rows = (y >= row - half) & (y < row + half)
    columns = (x >= column - half) & (x < column + half)
    return tf.where((rows[:, :, None] & columns[:, None, :])[..., None], 0.0, images)


def is_compiled(model: keras.Model) -> bool:
    """Whether `model.compile` has been called."""
    return bool(model.compiled if KERAS_3 else model._is_compiled)
