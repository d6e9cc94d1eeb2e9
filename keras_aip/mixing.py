"""Applying mixing numbers to a batch in TensorFlow: static shapes, no random op, XLA- and TPU-safe."""

from __future__ import annotations

import tensorflow as tf

from bridge.datum.mixing import MixingNumbers


def mix(images: tf.Tensor, numbers: MixingNumbers) -> tf.Tensor:
    """Mix every image with its partner.

    Args:
        images: float32 [batch, height, width, channels], before normalisation; or waveforms [batch, samples].
        numbers: of the same rows.

    Returns:
        float32 of the same shape: the partner inside the box; (1 − weight) · image + weight · partner outside it.
    """
    partner, box, weight = numbers
    rows = tf.range(tf.shape(images)[0])
    partners = tf.gather(images, rows + partner)
    if images.shape.rank == 2:
        begin, _, end, _ = tf.split(box, 4, axis=1)
        time = (tf.range(images.shape[1], dtype=tf.float32) + 0.5) / images.shape[1]
        faded = images + tf.expand_dims(weight, 1) * (partners - images)
        return tf.where((time > begin) & (time < end), partners, faded)
    height, width = images.shape[1], images.shape[2]
    left, top, right, bottom = (tf.reshape(edge, [-1, 1, 1, 1]) for edge in tf.unstack(box, axis=-1))
    x = tf.reshape((tf.range(width, dtype=tf.float32) + 0.5) / width, [1, 1, -1, 1])
    y = tf.reshape((tf.range(height, dtype=tf.float32) + 0.5) / height, [1, -1, 1, 1])
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    faded = images + tf.reshape(weight, [-1, 1, 1, 1]) * (partners - images)
    return tf.where(inside, partners, faded)
