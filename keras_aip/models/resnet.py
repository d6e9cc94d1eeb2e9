"""Residual networks for CIFAR-size images: He et al. 2016, section 4.2, with parameter-free shortcuts."""

from __future__ import annotations

from typing import Any

import keras

from bridge.networks import RESNET_DEPTHS, check_depth
from keras_aip.models.layers import Network, PaddedShortcut


def cifar_resnet(depth: int, classes: int, **options: Any) -> keras.Model:
    """Build a CIFAR ResNet, with the layer names of the PyTorch implementation in common use.

    Args:
        depth: Layers with weights: 20, 32, 44, 56 or 110.
        classes: Number of logits.
        **options: ``image_size, mean, std, l2, dtype`` as in :func:`keras_aip.models.build`.

    Returns:
        RGB float32 ``[batch, image_size, image_size, 3]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such depth, or a value cannot work.
    """
    check_depth("CIFAR ResNet", depth, RESNET_DEPTHS)
    return residual(Network(f"resnet{depth}", classes, smallest=8, **options), depth)


def residual(net: Network, depth: int) -> keras.Model:
    """Put a CIFAR ResNet together, for what a network is made for: its images, or the features of its waveforms."""
    inputs = net.inputs()
    x = net.convolution(net.normalise(inputs), 16, "conv1")
    x = net.relu(net.batch_norm(x, "bn1"), "relu")
    channels = 16
    for stage in (1, 2, 3):
        filters = 16 * 2 ** (stage - 1)
        for unit in range((depth - 2) // 6):
            stride = 2 if stage > 1 and unit == 0 else 1
            x = _unit(net, x, channels, filters, stride, f"layer{stage}.{unit}")
            channels = filters
    return net.model(inputs, net.head(net.average(x, "pool"), "linear"))


def _unit(net: Network, x: Any, channels: int, filters: int, stride: int, name: str) -> Any:
    y = net.convolution(x, filters, f"{name}.conv1", stride=stride)
    y = net.relu(net.batch_norm(y, f"{name}.bn1"), f"{name}.relu1")
    y = net.batch_norm(net.convolution(y, filters, f"{name}.conv2"), f"{name}.bn2")
    if stride > 1 or channels != filters:
        before = (filters - channels) // 2
        after = filters - channels - before
        x = PaddedShortcut(stride, before, after, dtype=net.policy, name=f"{name}.shortcut")(x)
    return net.relu(net.add(x, y, f"{name}.add"), f"{name}.relu2")


def resnet20(classes: int, **options: Any) -> keras.Model:
    """Build ResNet-20. See :func:`cifar_resnet`."""
    return cifar_resnet(20, classes, **options)


def resnet32(classes: int, **options: Any) -> keras.Model:
    """Build ResNet-32. See :func:`cifar_resnet`."""
    return cifar_resnet(32, classes, **options)


def resnet44(classes: int, **options: Any) -> keras.Model:
    """Build ResNet-44. See :func:`cifar_resnet`."""
    return cifar_resnet(44, classes, **options)


def resnet56(classes: int, **options: Any) -> keras.Model:
    """Build ResNet-56. See :func:`cifar_resnet`."""
    return cifar_resnet(56, classes, **options)


def resnet110(classes: int, **options: Any) -> keras.Model:
    """Build ResNet-110. See :func:`cifar_resnet`."""
    return cifar_resnet(110, classes, **options)
