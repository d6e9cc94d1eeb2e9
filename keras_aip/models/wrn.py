"""Wide residual networks for CIFAR-size images: Zagoruyko & Komodakis 2016, with pre-activation."""

from __future__ import annotations

from typing import Any

import keras

from bridge.networks import wide_blocks
from keras_aip.models.layers import Network


def wrn(depth: int, width: int, classes: int, reference: bool = False, **options: Any) -> keras.Model:
    """Build WRN-depth-width, with the layer names of the PyTorch implementation in common use.

    Args:
        depth: Convolutional layers: 10, 16, 22, 28, 34, 40, … (6 for every further block per stage).
        width: How many times wider than a ResNet of that depth; channels are 16, 32 and 64 times this.
        classes: Number of logits.
        reference: TensorFlow's "same" padding, BatchNorm ε 1e-3, and every stage's first shortcut after BatchNorm and
            ReLU, as the reference code's checkpoints need.
        **options: ``image_size, mean, std, l2, dtype`` as in :func:`keras_aip.models.build`.

    Returns:
        RGB float32 ``[batch, image_size, image_size, 3]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such depth, or a value cannot work.
    """
    blocks = wide_blocks(depth, width, reference)
    # Recorded only where it is on: otherwise the network is the one it has always been.
    arguments = {"reference": True} if reference else {}
    net = Network(f"wrn_{depth}_{width}", classes, smallest=8, arguments=arguments, tensorflow=reference, **options)
    inputs = net.inputs()
    x = net.convolution(net.normalise(inputs), 16, "conv1")
    channels = 16
    for stage in (1, 2, 3):
        filters = 16 * width * 2 ** (stage - 1)
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _block(net, x, channels, filters, stride, f"block{stage}.layer.{block}")
            channels = filters
    x = net.relu(net.batch_norm(x, "bn1"), "relu")
    return net.model(inputs, net.head(net.average(x, "pool"), "fc"))


def _block(net: Network, x: Any, channels: int, filters: int, stride: int, name: str) -> Any:
    active = net.relu(net.batch_norm(x, f"{name}.bn1"), f"{name}.relu1")
    y = net.convolution(active, filters, f"{name}.conv1", stride=stride)
    y = net.relu(net.batch_norm(y, f"{name}.bn2"), f"{name}.relu2")
    y = net.convolution(y, filters, f"{name}.conv2")
    if channels != filters:
        x = net.convolution(active, filters, f"{name}.convShortcut", kernel_size=1, stride=stride)
    elif net.tensorflow and name.endswith(".0"):
        x = active  # at width 1, where the first stage has 16 channels already
    return net.add(x, y, f"{name}.add")


def wrn_16_4(classes: int, **options: Any) -> keras.Model:
    """Build WRN-16-4, the paper's student on CIFAR. See :func:`wrn`."""
    return wrn(16, 4, classes, **options)


def wrn_40_4(classes: int, **options: Any) -> keras.Model:
    """Build WRN-40-4, the paper's teacher on CIFAR. See :func:`wrn`."""
    return wrn(40, 4, classes, **options)
