"""Residual networks for CIFAR-size images: He et al. 2016, section 4.2, with parameter-free shortcuts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from bridge.networks import RESNET_DEPTHS, Plan, check_depth
from torch_aip.models.layers import Head, PaddedShortcut, batch_norm, convolution, finished


def cifar_resnet(depth: int, classes: int, **options: Any) -> nn.Module:
    """Build a CIFAR ResNet, with the layer names of the PyTorch implementation in common use.

    Args:
        depth: Layers with weights: 20, 32, 44, 56 or 110.
        classes: Number of logits.
        **options: ``image_size, mean, std`` as in :func:`torch_aip.models.build`.

    Returns:
        RGB float32 ``[batch, 3, image_size, image_size]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such depth, or a value cannot work.
    """
    check_depth("CIFAR ResNet", depth, RESNET_DEPTHS)
    plan = Plan(f"resnet{depth}", classes, smallest=8, **options)
    return finished(plan, CifarResNet((depth - 2) // 6, classes))


class CifarResNet(nn.Module):
    """See :func:`cifar_resnet`."""

    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        self.conv1 = convolution(3, 16)
        self.bn1 = batch_norm(16)
        self.layer1 = _stage(16, 16, 1, units)
        self.layer2 = _stage(16, 32, 2, units)
        self.layer3 = _stage(32, 64, 2, units)
        self.linear = Head(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))))


def _stage(channels: int, filters: int, stride: int, units: int) -> nn.Sequential:
    further = [Unit(filters, filters, 1) for _ in range(units - 1)]
    return nn.Sequential(Unit(channels, filters, stride), *further)


class Unit(nn.Module):
    """Convolution and BatchNorm, twice, with a shortcut around them and a ReLU behind."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels, filters, stride=stride)
        self.bn1 = batch_norm(filters)
        self.conv2 = convolution(filters, filters)
        self.bn2 = batch_norm(filters)
        before = (filters - channels) // 2
        same = stride == 1 and channels == filters
        self.shortcut = nn.Identity() if same else PaddedShortcut(stride, before, filters - channels - before)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(self.shortcut(x) + y)


def resnet20(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-20. See :func:`cifar_resnet`."""
    return cifar_resnet(20, classes, **options)


def resnet32(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-32. See :func:`cifar_resnet`."""
    return cifar_resnet(32, classes, **options)


def resnet44(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-44. See :func:`cifar_resnet`."""
    return cifar_resnet(44, classes, **options)


def resnet56(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-56. See :func:`cifar_resnet`."""
    return cifar_resnet(56, classes, **options)


def resnet110(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-110. See :func:`cifar_resnet`."""
    return cifar_resnet(110, classes, **options)
