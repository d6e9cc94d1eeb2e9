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
        float32 of the same shape: the partner inside the box; (1 − weight) · image + weight · partner outside it.
    """
    partner, box, weight = numbers
    rows = torch.arange(len(images), device=images.device)
    partners = images[rows + partner]
    height, width = images.shape[-2:]
    left, top, right, bottom = (edge.view(-1, 1, 1, 1) for edge in box.unbind(-1))
    x = ((torch.arange(width, dtype=torch.float32, device=images.device) + 0.5) / width).view(1, 1, 1, -1)
    y = ((torch.arange(height, dtype=torch.float32, device=images.device) + 0.5) / height).view(1, 1, -1, 1)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    faded = images + weight.view(-1, 1, 1, 1) * (partners - images)
    return torch.where(inside, partners, faded)
