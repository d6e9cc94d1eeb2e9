"""X3D, small networks for video: Feichtenhofer 2020, and the wider, deeper student of Asano & Saeed 2023."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridge.networks import VIDEO_MEAN, VIDEO_STD, Plan, check_x3d
from torch_aip.models.layers import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, Head, finished

# Feichtenhofer 2020, table 1, before expansion.
_STEM, _CHANNELS, _BLOCKS = 12, (12, 24, 48, 96), (1, 2, 5, 3)
_BOTTLENECK = 2.25  # how much wider a block is inside
_SQUEEZE = 1 / 16
_HEAD = 2048


def x3d(
    name: str,
    classes: int,
    frames: int | None = None,
    image_size: int | None = None,
    width: float | None = None,
    depth: float | None = None,
    dropout: float | None = None,
    mean: Sequence[float] = VIDEO_MEAN,
    std: Sequence[float] = VIDEO_STD,
) -> nn.Module:
    """Build X3D; names, shapes and first weights are those of pytorchvideo's, whose checkpoints load as they are.

    It strides over height and width alone (32 in all) and averages the last map over all frames and pixels, so that
    the same weights serve clips of any length and size; pytorchvideo's does the same for clips of the size it is built
    for.

    Args:
        name: ``x3d_xs``, ``x3d_s``, ``x3d_m``, ``x3d_l``, or ``x3d_xs_e``, the paper's expanded student (width 5, depth
            3; Asano & Saeed 2023).
        classes: Number of logits.
        frames: Frames of a clip; None: 4, 13, 16, 16 and 4 of those names (as published).
        image_size: Height and width of a frame in pixels; None: 160, 160, 224, 312 and 160.
        width: By which 12, 24, 48 and 96 channels are multiplied, then rounded to eights; None: 2, of the student 5.
        depth: By which 1, 2, 5 and 3 blocks are multiplied, then rounded up; None: 2.2, of ``x3d_l`` 5, of the student
            3.
        dropout: Share of the last features that is dropped in training; None: 0.5, of the student 0 (reference code).
        mean: Mean per channel of RGB in [0, 1], subtracted inside the model; 0.45 unless told otherwise.
        std: Standard deviation per channel of RGB in [0, 1], divided by inside the model; 0.225.

    Returns:
        RGB float32 ``[batch, 3, frames, image_size, image_size]`` in [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such network, or a value cannot work.
    """
    known = check_x3d(name, width, depth, dropout)
    size = known.image_size if image_size is None else image_size
    arguments = {"width": known.width, "depth": known.depth, "dropout": known.dropout}
    plan = Plan(
        name, classes, 32, size, mean, std, arguments, frames=known.frames if frames is None else frames
    )  # fmt: skip
    return finished(plan, X3d(known.width, known.depth, known.dropout, classes))


class X3d(nn.Module):
    """See :func:`x3d`."""

    def __init__(self, width: float, depth: float, dropout: float, classes: int) -> None:
        super().__init__()
        before = _rounded(_STEM * width)
        self.blocks = nn.ModuleList([Stem(before)])
        inner = before
        for base, blocks in zip(_CHANNELS, _BLOCKS, strict=True):
            channels = _rounded(base * width)
            inner = int(_BOTTLENECK * channels)
            self.blocks.append(Stage(before, inner, channels, math.ceil(depth * blocks)))
            before = channels
        self.blocks.append(Classifier(before, inner, dropout, classes))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Stem(nn.Module):
    """A convolution over pixels with stride 2, then one over 5 frames channel by channel, BatchNorm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The published weights have it so: `conv_t` is the one over pixels, `conv_xy` the one over time.
        self.conv = nn.Sequential()
        self.conv.add_module("conv_t", _convolution(3, channels, (1, 3, 3), stride=2))
        self.conv.add_module("conv_xy", _convolution(channels, channels, (5, 1, 1), groups=channels))
        self.norm = _batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class Stage(nn.Module):
    """The blocks at one resolution, half of the one before; every second one, from the first, has a squeeze."""

    def __init__(self, channels: int, inner: int, filters: int, blocks: int) -> None:
        super().__init__()
        self.res_blocks = nn.Sequential()
        for block in range(blocks):
            stride, squeezes = 1 if block else 2, block % 2 == 0
            self.res_blocks.append(Block(filters if block else channels, inner, filters, stride, squeezes))

    def forward(self, x: Tensor) -> Tensor:
        return self.res_blocks(x)


class Block(nn.Module):
    """A bottleneck with a shortcut around it and a ReLU behind."""

    def __init__(self, channels: int, inner: int, filters: int, stride: int, squeezes: bool) -> None:
        super().__init__()
        same = channels == filters
        self.branch1_conv = None if same and stride == 1 else _convolution(channels, filters, stride=stride)
        self.branch1_norm = None if same else _batch_norm(filters)
        self.branch2 = Bottleneck(channels, inner, filters, stride, squeezes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch2(x)
        if self.branch1_conv is not None:
            x = self.branch1_conv(x)
        if self.branch1_norm is not None:
            x = self.branch1_norm(x)
        return functional.relu(x + y)


class Bottleneck(nn.Module):
    """1 × 1 × 1, channel by channel 3 × 3 × 3, perhaps a squeeze, and 1 × 1 × 1 convolution, each with BatchNorm."""

    def __init__(self, channels: int, inner: int, filters: int, stride: int, squeezes: bool) -> None:
        super().__init__()
        self.conv_a = _convolution(channels, inner)
        self.norm_a = _batch_norm(inner)
        self.conv_b = _convolution(inner, inner, (3, 3, 3), stride=stride, groups=inner)
        self.norm_b = nn.Sequential(_batch_norm(inner), Squeeze(inner) if squeezes else nn.Identity())
        self.conv_c = _convolution(inner, filters)
        self.norm_c = _batch_norm(filters)
        nn.init.zeros_(self.norm_c.weight)  # every block begins as its shortcut alone

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm_a(self.conv_a(x)))
        x = functional.silu(self.norm_b(self.conv_b(x)))
        return self.norm_c(self.conv_c(x))


class Squeeze(nn.Module):
    """Scale each channel by what a small network makes of all channels' means (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _rounded(channels * _SQUEEZE)
        self.block = nn.Sequential(
            _convolution(channels, squeezed, bias=True),
            nn.ReLU(),
            _convolution(squeezed, channels, bias=True),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.block(x.mean((2, 3, 4), keepdim=True))


class Classifier(nn.Module):
    """Pooled features, dropout, logits."""

    def __init__(self, channels: int, inner: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.pool = Pool(channels, inner)
        self.dropout = nn.Dropout(dropout)
        self.proj = Head(_HEAD, classes)
        nn.init.normal_(self.proj.weight, std=0.01)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.dropout(torch.flatten(self.pool(x), 1)))


class Pool(nn.Module):
    """Average over frames and pixels between two 1 × 1 × 1 convolutions, each with a ReLU behind."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.pre_conv = _convolution(channels, inner)
        self.pre_norm = _batch_norm(inner)
        self.post_conv = _convolution(inner, _HEAD)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.pre_norm(self.pre_conv(x)))
        return functional.relu(self.post_conv(x.mean((2, 3, 4), keepdim=True)))


def x3d_xs(classes: int, **options: Any) -> nn.Module:
    """Build X3D-XS, the paper's teacher on video: 4 frames of 160 pixels. See :func:`x3d`."""
    return x3d("x3d_xs", classes, **options)


def x3d_s(classes: int, **options: Any) -> nn.Module:
    """Build X3D-S: 13 frames of 160 pixels. See :func:`x3d`."""
    return x3d("x3d_s", classes, **options)


def x3d_m(classes: int, **options: Any) -> nn.Module:
    """Build X3D-M: 16 frames of 224 pixels. See :func:`x3d`."""
    return x3d("x3d_m", classes, **options)


def x3d_l(classes: int, **options: Any) -> nn.Module:
    """Build X3D-L: 16 frames of 312 pixels. See :func:`x3d`."""
    return x3d("x3d_l", classes, **options)


def x3d_xs_e(classes: int, **options: Any) -> nn.Module:
    """Build the paper's student on video, X3D of width 5 and depth 3: 4 frames of 160 pixels. See :func:`x3d`."""
    return x3d("x3d_xs_e", classes, **options)


def x3d_s_e(classes: int, **options: Any) -> nn.Module:
    """Build ``x3d_xs_e`` by the other name the reference code has for it. See :func:`x3d`."""
    return x3d_xs_e(classes, **options)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and never 10 % fewer."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _convolution(
    channels: int,
    filters: int,
    kernel: tuple[int, int, int] = (1, 1, 1),
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv3d:
    """Convolve over frames, height and width, with a stride over the last two; He initialisation."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    layer = nn.Conv3d(channels, filters, kernel, (1, stride, stride), padding, groups=groups, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _batch_norm(channels: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(channels, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)
