"""VGG with BatchNorm for CIFAR-size images: Simonyan & Zisserman 2015, with one linear layer as head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bridge.networks import VGG_CONVOLUTIONS, VGG_FILTERS, Plan, check_depth
from torch_aip.models.layers import Head, batch_norm, convolution, finished


def cifar_vgg(depth: int, classes: int, **options: Any) -> nn.Module:
    """Build VGG-depth with BatchNorm; ``features`` is numbered as torchvision's, the head is ``classifier``.

    At 32 px the last map is one pixel; larger images are averaged over what is left.

    Args:
        depth: 11, 13, 16 or 19.
        classes: Number of logits.
        **options: ``image_size, mean, std`` as in :func:`torch_aip.models.build`.

    Returns:
        RGB float32 ``[batch, 3, image_size, image_size]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such depth, or a value cannot work.
    """
    check_depth("VGG", depth, VGG_CONVOLUTIONS)
    plan = Plan(f"vgg{depth}", classes, smallest=32, **options)
    return finished(plan, CifarVgg(VGG_CONVOLUTIONS[depth], classes))


class CifarVgg(nn.Module):
    """See :func:`cifar_vgg`."""

    def __init__(self, plan: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = 3
        for filters, convolutions in zip(VGG_FILTERS, plan, strict=True):
            for _ in range(convolutions):
                self.features.append(convolution(channels, filters, bias=True))
                self.features.append(batch_norm(filters))
                self.features.append(nn.ReLU())
                channels = filters
            self.features.append(nn.MaxPool2d(2))
        self.classifier = Head(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def vgg11(classes: int, **options: Any) -> nn.Module:
    """Build VGG-11 with BatchNorm. See :func:`cifar_vgg`."""
    return cifar_vgg(11, classes, **options)


def vgg13(classes: int, **options: Any) -> nn.Module:
    """Build VGG-13 with BatchNorm. See :func:`cifar_vgg`."""
    return cifar_vgg(13, classes, **options)


def vgg16(classes: int, **options: Any) -> nn.Module:
    """Build VGG-16 with BatchNorm. See :func:`cifar_vgg`."""
    return cifar_vgg(16, classes, **options)


def vgg19(classes: int, **options: Any) -> nn.Module:
    """Build VGG-19 with BatchNorm. See :func:`cifar_vgg`."""
    return cifar_vgg(19, classes, **options)
