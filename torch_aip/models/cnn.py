"""A small convolutional network for digits and other easy sets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridge.networks import Plan, whole_number
from torch_aip.models.layers import Head, batch_norm, convolution, finished


def small_cnn(classes: int, width: int = 16, **options: Any) -> nn.Module:
    """Three times convolution, BatchNorm, ReLU and max-pool, then a dense head on the flattened map. Ours.

    The map (4 × 4 at 32 px) is flattened rather than averaged: on digits, where a stroke lies matters.

    Args:
        classes: Number of logits.
        width: Channels of the first block; the second and third have twice as many.
        **options: ``image_size, mean, std`` as in :func:`torch_aip.models.build`.

    Returns:
        RGB float32 ``[batch, 3, image_size, image_size]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: A value cannot work.
    """
    width = whole_number("width", width, at_least=1)
    plan = Plan("small_cnn", classes, smallest=8, arguments={"width": width}, **options)
    return finished(plan, SmallCnn(classes, width, plan.image_size))


class SmallCnn(nn.Module):
    """See :func:`small_cnn`."""

    def __init__(self, classes: int, width: int, image_size: int) -> None:
        super().__init__()
        self.block1 = Block(3, width)
        self.block2 = Block(width, 2 * width)
        self.block3 = Block(2 * width, 2 * width)
        self.fc = Head(2 * width * (image_size // 8) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.block3(self.block2(self.block1(x))), 1))


class Block(nn.Module):
    """Convolution, BatchNorm, ReLU, max-pool over 2 × 2 pixels."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv = convolution(channels, filters)
        self.bn = batch_norm(filters)

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.relu(self.bn(self.conv(x))), 2)
