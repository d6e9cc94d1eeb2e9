"""The layers all networks are put together from; they compute what those of the Keras twins compute."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridge.errors import TeacherError
from bridge.networks import Plan

BATCH_NORM_EPSILON = 1e-5
KERAS_BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.1  # how much of the new statistics is taken; Keras calls the same thing 0.9
# What we put on models: the module that normalises, what builds them again, and their input size where that is silent.
NORMALISE = "aip_normalise"
ARCHITECTURE = "aip_architecture"
SIZE = "aip_input_size"


class Normalise(nn.Module):
    """Subtract a mean and divide by a standard deviation per channel, before everything else.

    Computed in float32 also in a model that was converted to another precision; only the result is cast, because
    bfloat16 cannot tell two neighbouring 8-bit pixel values apart. The constants stand in no state dict. Ours.

    Args:
        mean: One value per channel, in the units of the images ([0, 1]).
        std: One value per channel, greater than zero.

    Call: images ``[batch, channels, height, width]`` or clips ``[batch, channels, frames, height, width]`` in [0, 1] ->
    the same shape, in the dtype of the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            constant = torch.tensor([float(value) for value in values]).view(-1, 1, 1)
            self.register_buffer(name, constant, persistent=False)
        self.dtype = torch.float32

    def forward(self, images: Tensor) -> Tensor:
        mean, std = self.mean, self.std
        if images.ndim == 5:
            mean, std = mean.unsqueeze(-1), std.unsqueeze(-1)
        return ((images.float() - mean) / std).to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Normalise:
        exact = self.mean, self.std
        super()._apply(fn, recurse)  # moves, and rounds where the model is made less precise
        self.dtype = self.mean.dtype
        self.mean, self.std = (constant.to(self.mean.device) for constant in exact)
        return self


def store_channels_last(model: nn.Module) -> None:
    """Lay out the kernels of images with the channels last in memory, which is faster and changes no answer."""
    tensors = [*model.parameters(), *model.buffers()]
    if not any(tensor.ndim == 5 for tensor in tensors):  # of video, which PyTorch will not convert so
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class PaddedShortcut(nn.Module):
    """The parameter-free shortcut of CIFAR ResNets: take every stride-th pixel, fill new channels with zeros.

    He et al. 2016, option A; the zeros go on both sides of the channels, as in the code whose weights are around.

    Args:
        stride: Step between the pixels kept.
        channels_before: Zero channels put before the old ones.
        channels_after: Zero channels put after them.

    Call: ``[batch, channels, height, width]`` -> ``[batch, channels_before + channels + channels_after,
    ceil(height / stride), ceil(width / stride)]``.
    """

    def __init__(self, stride: int, channels_before: int, channels_after: int) -> None:
        super().__init__()
        self.stride = stride
        self.channels_before = channels_before
        self.channels_after = channels_after

    def forward(self, x: Tensor) -> Tensor:
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, self.channels_before, self.channels_after))


class TensorflowConvolution(nn.Conv2d):
    """Pad as TensorFlow's "same" does: at stride 2 and an even size, at the right and bottom only."""

    def forward(self, input: Tensor) -> Tensor:
        padding = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            wanted = max((-(-int(size) // stride) - 1) * stride + kernel - int(size), 0)
            padding += [wanted // 2, wanted - wanted // 2]
        return super().forward(functional.pad(input, padding))


class Head(nn.Linear):
    """Average over all pixels where there are some, and map features to logits; in float32 under any precision."""

    def forward(self, input: Tensor) -> Tensor:
        # bfloat16 has only 8 significant bits
        with torch.autocast(input.device.type, enabled=False):
            features = input.float().mean((2, 3)) if input.ndim == 4 else input.float()
            return functional.linear(features, self.weight.float(), self.bias.float())


def convolution(
    channels: int, filters: int, kernel_size: int = 3, stride: int = 1, bias: bool = False, tensorflow: bool = False
) -> nn.Conv2d:
    """Convolve with ``kernel_size // 2`` zeros on every side at any stride (but `tensorflow`); He initialisation."""
    if tensorflow and stride > 1:
        layer: nn.Conv2d = TensorflowConvolution(channels, filters, kernel_size, stride, bias=bias)
    else:
        layer = nn.Conv2d(channels, filters, kernel_size, stride, kernel_size // 2, bias=bias)
    # He et al. 2015 with fan_out, as the Keras twins: it keeps the size of the gradients.
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def batch_norm(channels: int, tensorflow: bool = False) -> nn.BatchNorm2d:
    """Normalise over the batch with PyTorch's ε (but `tensorflow`) and momentum."""
    epsilon = KERAS_BATCH_NORM_EPSILON if tensorflow else BATCH_NORM_EPSILON
    return nn.BatchNorm2d(channels, eps=epsilon, momentum=BATCH_NORM_MOMENTUM)


def finished(plan: Plan, model: nn.Module) -> nn.Module:
    """Return the model of a plan, normalising by itself, with what builds it again."""
    setattr(model, ARCHITECTURE, json.dumps(plan.described()))
    return normalised(model, plan.mean, plan.std)


def normalised(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Make a model take raw images in [0, 1]: they are normalised, in float32, before it sees them.

    Its state dict stays as it is, and it may be moved, converted, traced and compiled as before. Ours.

    Args:
        model: Takes normalised images ``[batch, channels, height, width]``, or clips, as its first argument.
        mean: One value per channel, in the units of the images.
        std: One value per channel, greater than zero.

    Returns:
        The same model.

    Raises:
        TeacherError: The model is a bare sequence, which would run the normalisation as its last layer.
    """
    if type(model).forward is nn.Sequential.forward:
        raise TeacherError("A bare nn.Sequential cannot carry its normalisation: put it into a module of your own.")
    model.add_module(NORMALISE, Normalise(mean, std))
    model.register_forward_pre_hook(_normalise)
    return model


def _normalise(model: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *further = arguments
    return (getattr(model, NORMALISE)(images), *further)
