"""A small convolutional network for digits and other easy sets."""

from __future__ import annotations

from typing import Any

import keras

from bridge.networks import whole_number
from keras_aip.models.layers import Network


def small_cnn(classes: int, width: int = 16, **options: Any) -> keras.Model:
    """Three times convolution, BatchNorm, ReLU and max-pool, then a dense head on the flattened map. Ours.

    The map (4 × 4 at 32 px) is flattened rather than averaged: on digits, where a stroke lies matters. It is
    flattened channels first, so that the head's weights are those of a PyTorch twin.

    Args:
        classes: Number of logits.
        width: Channels of the first block; the second and third have twice as many.
        **options: ``image_size, mean, std, l2, dtype`` as in :func:`keras_aip.models.build`.

    Returns:
        RGB float32 ``[batch, image_size, image_size, 3]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: A value cannot work.
    """
    width = whole_number("width", width, at_least=1)
    net = Network("small_cnn", classes, smallest=8, arguments={"width": width}, **options)
    inputs = net.inputs()
    x = net.normalise(inputs)
    for block, filters in enumerate((width, 2 * width, 2 * width), start=1):
        x = net.convolution(x, filters, f"block{block}.conv")
        x = net.batch_norm(x, f"block{block}.bn")
        x = net.relu(x, f"block{block}.relu")
        x = net.max_pool(x, f"block{block}.pool")
    x = keras.layers.Permute((3, 1, 2), dtype=net.policy, name="channels_first")(x)
    x = keras.layers.Flatten(dtype=net.policy, name="flatten")(x)
    return net.model(inputs, net.head(x, "fc"))
