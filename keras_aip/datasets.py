"""Labelled images as `tf.data`: for training a teacher, and for measuring."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from bridge.datasets import FACTS, Labelled, load
from bridge.datum.counter import shuffled_index, uniforms
from keras_aip import compat

__all__ = ["FACTS", "Labelled", "batches", "load", "training_batches"]


def batches(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """uint8 [n, h, w, 3] → float32 [≤ batch_size, h, w, 3] in [0, 1], in order."""
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size].astype(np.float32) / 255


def training_batches(
    labelled: Labelled, batch_size: int, *, pad: int = 4, flip: bool = True, cutout: int = 16, seed: int = 0
) -> tf.data.Dataset:
    """An endless, reproducible stream of augmented training batches.

    The paper's teachers saw flips, pad-4 crops and a 16 × 16 cutout (reference code). Every sample's augmentation is
    drawn from its number, as for views; remainders are carried over epoch borders.

    Args:
        labelled: with labels.
        batch_size: images per step.
        pad: pixels of border before the random crop.
        flip: mirror half of the images.
        cutout: side of the blackened square in pixels, even; 0 for none.
        seed: of order and augmentation.

    Returns:
        `tf.data.Dataset` of (float32 [batch, h, w, 3] in [0, 1], int64 [batch]).
    """
    images, labels = labelled.images, labelled.labels
    assert labels is not None
    count, (height, width) = len(images), images.shape[1:3]
    rows = np.arange(batch_size)

    def draw(step: np.int64) -> tuple[np.ndarray, ...]:
        n = step * batch_size + rows
        picked = shuffled_index(seed, n, count)
        u = uniforms(seed, "teacher_training", n, 5)
        mirrored = (u[0] < 0.5) & flip
        corner = np.floor(u[1:3].T * (2 * pad + 1)).astype(np.int64)
        centre = np.floor(u[3:5].T * [height, width]).astype(np.int32)
        out = np.zeros((batch_size, height, width, 3), dtype=np.uint8)
        for row, index in enumerate(picked):
            image = np.pad(images[index], ((pad, pad), (pad, pad), (0, 0)))
            top, left = corner[row]
            image = image[top : top + height, left : left + width]
            out[row] = image[:, ::-1] if mirrored[row] else image
        return out, labels[picked].astype(np.int64), centre

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        views, classes, centre = tf.numpy_function(draw, [step], [tf.uint8, tf.int64, tf.int32], stateful=False)
        views.set_shape([batch_size, height, width, 3])
        classes.set_shape([batch_size])
        centre.set_shape([batch_size, 2])
        pixels = tf.cast(views, tf.float32) / 255
        return (compat.cutout(pixels, cutout, centre) if cutout else pixels), classes

    return tf.data.Dataset.counter().map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
