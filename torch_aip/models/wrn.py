"""Wide residual networks for CIFAR-size images: Zagoruyko & Komodakis 2016, with pre-activation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from bridge.networks import Plan, wide_blocks
from torch_aip.models.layers import Head, batch_norm, convolution, finished


def wrn(depth: int, width: int, classes: int, reference: bool = False, **options: Any) -> nn.Module:
    """Build WRN-depth-width, with the layer names of the PyTorch implementation in common use.

    Args:
        depth: Convolutional layers: 10, 16, 22, 28, 34, 40, … (6 for every further block per stage).
        width: How many times wider than a ResNet of that depth; channels are 16, 32 and 64 times this.
        classes: Number of logits.
        reference: TensorFlow's "same" padding, BatchNorm ε 1e-3, and every stage's first shortcut after BatchNorm and
            ReLU, as the reference code's checkpoints need.
        **options: ``image_size, mean, std`` as in :func:`torch_aip.models.build`.

    Returns:
        RGB float32 ``[batch, 3, image_size, image_size]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such depth, or a value cannot work.
    """
    blocks = wide_blocks(depth, width, reference)
    arguments = {"reference": True} if reference else {}
    plan = Plan(f"wrn_{depth}_{width}", classes, smallest=8, arguments=arguments, **options)
    return finished(plan, WideResNet(blocks, width, classes, reference))


class WideResNet(nn.Module):
    """See :func:`wrn`."""

    def __init__(self, blocks: int, width: int, classes: int, reference: bool) -> None:
        super().__init__()
        self.conv1 = convolution(3, 16)
        self.block1 = Stage(16, 16 * width, 1, blocks, reference)
        self.block2 = Stage(16 * width, 32 * width, 2, blocks, reference)
        self.block3 = Stage(32 * width, 64 * width, 2, blocks, reference)
        self.bn1 = batch_norm(64 * width, reference)
        self.fc = Head(64 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(functional.relu(self.bn1(x)))


class Stage(nn.Module):
    """The blocks at one resolution."""

    def __init__(self, channels: int, filters: int, stride: int, blocks: int, reference: bool) -> None:
        super().__init__()
        further = [Block(filters, filters, 1, False, reference) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(Block(channels, filters, stride, True, reference), *further)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Block(nn.Module):
    """BatchNorm, ReLU and convolution, twice, and a shortcut around them."""

    def __init__(self, channels: int, filters: int, stride: int, first: bool, reference: bool) -> None:
        super().__init__()
        self.bn1 = batch_norm(channels, reference)
        self.conv1 = convolution(channels, filters, stride=stride, tensorflow=reference)
        self.bn2 = batch_norm(filters, reference)
        self.conv2 = convolution(filters, filters)
        self.projects = channels != filters
        if self.projects:
            self.convShortcut = convolution(channels, filters, kernel_size=1, stride=stride, tensorflow=reference)
        # at width 1, where the first stage has 16 channels already
        self.activates = reference and first

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.bn1(x))
        y = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        if self.projects:
            x = self.convShortcut(active)
        elif self.activates:
            x = active
        return x + y


def wrn_16_4(classes: int, **options: Any) -> nn.Module:
    """Build WRN-16-4, the paper's student on CIFAR. See :func:`wrn`."""
    return wrn(16, 4, classes, **options)


def wrn_40_4(classes: int, **options: Any) -> nn.Module:
    """Build WRN-40-4, the paper's teacher on CIFAR. See :func:`wrn`."""
    return wrn(40, 4, classes, **options)
