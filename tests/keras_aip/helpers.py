"""What several tests of the distiller use."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_aip import Distiller


def plain(values) -> list[np.ndarray]:
    """Copies of weights that no later step changes."""
    return [np.array(value) for value in values]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b))


def learnt(teacher, student, images: np.ndarray, batch_size: int, **options) -> Distiller:
    """A distiller after one epoch over the images, each step through Python: quick, since nothing is traced."""
    distiller = Distiller(student, teacher, **options)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    distiller.fit(tf.data.Dataset.from_tensor_slices(images).batch(batch_size), verbose=0)
    return distiller
