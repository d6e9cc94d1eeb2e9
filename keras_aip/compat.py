"""What differs between Keras 3 / TensorFlow 2.21 and the TF 2.15 set (Keras 2, Addons, I/O), in one place.

Everything else in the package is the same source on both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

KERAS_3 = int(keras.__version__.split(".")[0]) >= 3
HAS_ADDONS = not KERAS_3 and importlib.util.find_spec("tensorflow_addons") is not None
HAS_IO = not KERAS_3 and importlib.util.find_spec("tensorflow_io") is not None
XLA_TRANSFORMS = KERAS_3
"""Whether XLA's Fourier transform on a CPU is a good one; that of 2.15 is 4 times slower and errs by 1e-4."""


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


@keras.saving.register_keras_serializable(package="aip")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """BatchNorm over the last axis of images by TensorFlow's fused kernel, for Keras 3, which has it in pieces. Ours.

    A training step of a wide ResNet gains a tenth in float32 and a quarter in bfloat16, one of a small CNN a quarter.
    The moving variance is the unbiased one, as in Keras 2 and PyTorch; Keras 3 keeps the biased one.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # the kernel wants images in any precision, statistics in float32

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        images = tf.cast(inputs, self.compute_dtype)
        moving: list[Any] = [self.moving_mean, self.moving_variance]
        scale = 1.0 if self.gamma is None else self.gamma
        gamma = tf.broadcast_to(tf.cast(scale, tf.float32), [images.shape[-1]])
        beta, mean, variance = (tf.cast(weight, tf.float32) for weight in (self.beta, *moving))
        if not (training and self.trainable):
            return _fused_batch_norm(images, gamma, beta, mean, variance, self.epsilon, False)[0]
        images, now, spread = _fused_batch_norm(images, gamma, beta, [], [], self.epsilon, True)[:3]
        for kept, before, new in zip(moving, (mean, variance), (now, spread)):
            kept.assign(before * self.momentum + new * (1 - self.momentum))
        return images


def _fused_batch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, train: bool) -> Any:
    # Not tf.nn's, which raises an ε of 1e-5 a little.
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=train
    )


# Keras 2 uses that kernel by itself.
BatchNormalization: Any = FusedBatchNormalization if KERAS_3 else keras.layers.BatchNormalization


def is_compiled(model: keras.Model) -> bool:
    """Whether `model.compile` has been called."""
    return bool(model.compiled if KERAS_3 else model._is_compiled)


def averaging_of_statistics(model: keras.Model, strategy: tf.distribute.Strategy) -> Callable[[], None]:
    """A function that makes BatchNorm's moving statistics those of all replicas' data.

    Keras 2 averages them whenever they are read; in Keras 3 each replica keeps its own and the first one's are saved.
    They are linear in what they have seen, so averaging now and then is as good as after every step.
    """
    statistics = [variable for variable in model.non_trainable_variables if "float" in str(variable.dtype)]
    if not KERAS_3 or strategy.num_replicas_in_sync == 1 or not statistics:
        return lambda: None

    @tf.function(autograph=False)
    def means() -> list[tf.Tensor]:
        each = strategy.run(lambda: [tf.identity(variable.value) for variable in statistics])
        return [strategy.reduce("MEAN", values, axis=None) for values in each]

    def average() -> None:
        with strategy.scope():
            for variable, mean in zip(statistics, means()):
                variable.assign(mean)

    return average
