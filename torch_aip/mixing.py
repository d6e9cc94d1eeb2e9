"""Applying mixing numbers to a batch in PyTorch: no random op, no host synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor

from bridge.datum.mixing import MixingNumbers


def mix(images: Tensor, numbers: MixingNumbers) -> Tensor:
    """Mix every image with its partner.

    Args:
        images: float32 [batch, channels, height, width], before normalisation.
        numbers: of the same rows, as tensors on the same device.

    Returns:
        float32 of the same shape, channels last in memory: the partner inside the box; (1 − weight) · image + weight ·
        partner outside it.
    """
    partner, box, weight = numbers
    channels, height, width = images.shape[1:]
    # Columns and channels as one dimension, as they lie in memory: a mask that is broadcast along three channels, the
    # innermost dimension, makes all of this 1.7 times as slow on a CPU.
    lines = images.permute(0, 2, 3, 1).flatten(2)
    partners = lines[torch.arange(len(images), device=images.device) + partner]
    left, top, right, bottom = (edge.view(-1, 1, 1) for edge in box.unbind(-1))
    x = ((torch.arange(width, dtype=torch.float32, device=images.device) + 0.5) / width).repeat_interleave(channels)
    y = ((torch.arange(height, dtype=torch.float32, device=images.device) + 0.5) / height).view(-1, 1)
    inside = ((x > left) & (x < right)) & ((y > top) & (y < bottom))
    mixed = torch.where(inside, partners, torch.lerp(lines, partners, weight.view(-1, 1, 1)))
    return mixed.unflatten(2, (width, channels)).permute(0, 3, 1, 2)
