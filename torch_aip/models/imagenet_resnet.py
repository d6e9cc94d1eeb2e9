"""Residual networks for ImageNet-size images: He et al. 2016, table 1, of any width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from bridge.networks import (
    IMAGENET_MEAN,
    IMAGENET_RESNET_BLOCKS,
    IMAGENET_STD,
    Plan,
    check_depth,
    imagenet_resnet_channels,
)
from torch_aip.models.layers import Head, batch_norm, convolution, finished


def imagenet_resnet(
    depth: int,
    classes: int,
    width: float = 1.0,
    image_size: int = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> nn.Module:
    """Build an ImageNet ResNet; names, numbers and first weights are those of torchvision's of that depth.

    From depth 50 on, the stride is in the 3 × 3 convolution, as in torchvision ("v1.5"; He et al. had it in the 1 × 1
    before).

    Args:
        depth: Layers with weights: 18, 34, 50 or 101.
        classes: Number of logits.
        width: By which all channels are multiplied (Asano & Saeed 2023 distil R50x2); its name is ``resnet50x2``.
        image_size: Height and width of the images in pixels.
        mean: Mean per channel of RGB in [0, 1], subtracted inside the model; ImageNet's unless told otherwise.
        std: Standard deviation per channel of RGB in [0, 1], divided by inside the model.

    Returns:
        RGB float32 ``[batch, 3, image_size, image_size]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such depth or width, or a value cannot work.
    """
    check_depth("ImageNet ResNet", depth, IMAGENET_RESNET_BLOCKS)
    channels = imagenet_resnet_channels(depth, width)
    name = f"resnet{depth}" if width == 1 else f"resnet{depth}x{channels / 64:g}"
    plan = Plan(name, classes, 32, image_size, mean, std)
    return finished(plan, ImagenetResNet(IMAGENET_RESNET_BLOCKS[depth], depth >= 50, channels, classes))


class ImagenetResNet(nn.Module):
    """See :func:`imagenet_resnet`."""

    def __init__(self, blocks: Sequence[int], bottleneck: bool, channels: int, classes: int) -> None:
        super().__init__()
        block, expansion = (BottleneckUnit, 4) if bottleneck else (BasicUnit, 1)
        self.conv1 = convolution(3, channels, 7, stride=2)
        self.bn1 = batch_norm(channels)
        before = channels
        for stage, units in enumerate(blocks):
            inner = channels * 2**stage
            layers = []
            for unit in range(units):
                layers.append(block(before, inner, 2 if stage and not unit else 1))
                before = inner * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = Head(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for stage in (1, 2, 3, 4):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x)


class BasicUnit(nn.Module):
    """Two 3 × 3 convolutions with a shortcut around them and a ReLU behind."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels, filters, stride=stride)
        self.bn1 = batch_norm(filters)
        self.conv2 = convolution(filters, filters)
        self.bn2 = batch_norm(filters)
        self.downsample = _shortcut(channels, filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x)))


class BottleneckUnit(nn.Module):
    """1 × 1, 3 × 3 and 1 × 1 convolution, the last to four times the filters, with a shortcut and a ReLU behind."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels, filters, 1)
        self.bn1 = batch_norm(filters)
        self.conv2 = convolution(filters, filters, stride=stride)
        self.bn2 = batch_norm(filters)
        self.conv3 = convolution(filters, 4 * filters, 1)
        self.bn3 = batch_norm(4 * filters)
        self.downsample = _shortcut(channels, 4 * filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


def _shortcut(channels: int, filters: int, stride: int) -> nn.Sequential | None:
    if channels == filters and stride == 1:
        return None
    return nn.Sequential(convolution(channels, filters, 1, stride=stride), batch_norm(filters))


def resnet18(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-18. See :func:`imagenet_resnet`."""
    return imagenet_resnet(18, classes, **options)


def resnet34(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-34. See :func:`imagenet_resnet`."""
    return imagenet_resnet(34, classes, **options)


def resnet50(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-50. See :func:`imagenet_resnet`."""
    return imagenet_resnet(50, classes, **options)


def resnet101(classes: int, **options: Any) -> nn.Module:
    """Build ResNet-101. See :func:`imagenet_resnet`."""
    return imagenet_resnet(101, classes, **options)
