"""VGG with BatchNorm for CIFAR-size images: Simonyan & Zisserman 2015, with one linear layer as head."""

from __future__ import annotations

from typing import Any

import keras

from bridge.networks import VGG_CONVOLUTIONS, VGG_FILTERS, check_depth
from keras_aip.models.layers import Network


def cifar_vgg(depth: int, classes: int, **options: Any) -> keras.Model:
    """Build VGG-depth with BatchNorm; ``features`` is numbered as torchvision's, the head is ``classifier``.

    At 32 px the last map is one pixel; larger images are averaged over what is left.

    Args:
        depth: 11, 13, 16 or 19.
        classes: Number of logits.
        **options: ``image_size, mean, std, l2, dtype`` as in :func:`keras_aip.models.build`.

    Returns:
        RGB float32 ``[batch, image_size, image_size, 3]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such depth, or a value cannot work.
    """
    check_depth("VGG", depth, VGG_CONVOLUTIONS)
    net = Network(f"vgg{depth}", classes, smallest=32, **options)
    inputs = net.inputs()
    x = net.normalise(inputs)
    position = 0
    for filters, convolutions in zip(VGG_FILTERS, VGG_CONVOLUTIONS[depth], strict=True):
        for _ in range(convolutions):
            x = net.convolution(x, filters, f"features.{position}", bias=True)
            x = net.batch_norm(x, f"features.{position + 1}")
            x = net.relu(x, f"features.{position + 2}")
            position += 3
        x = net.max_pool(x, f"features.{position}")
        position += 1
    return net.model(inputs, net.head(net.average(x, "pool"), "classifier"))


def vgg11(classes: int, **options: Any) -> keras.Model:
    """Build VGG-11 with BatchNorm. See :func:`cifar_vgg`."""
    return cifar_vgg(11, classes, **options)


def vgg13(classes: int, **options: Any) -> keras.Model:
    """Build VGG-13 with BatchNorm. See :func:`cifar_vgg`."""
    return cifar_vgg(13, classes, **options)


def vgg16(classes: int, **options: Any) -> keras.Model:
    """Build VGG-16 with BatchNorm. See :func:`cifar_vgg`."""
    return cifar_vgg(16, classes, **options)


def vgg19(classes: int, **options: Any) -> keras.Model:
    """Build VGG-19 with BatchNorm. See :func:`cifar_vgg`."""
    return cifar_vgg(19, classes, **options)
