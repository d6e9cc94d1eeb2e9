"""Small networks for several tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from torch_aip import models


def pixels(batch: int = 4, size: int = 8, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((batch, 3, size, size), dtype=np.float32))


def clips(batch: int = 2, frames: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    numbers = np.random.default_rng(seed).random((batch, 3, frames, size, size), dtype=np.float32)
    return torch.from_numpy(numbers)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """In inference mode, with random scales and statistics, so that forgotten ones show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.2, generator=generator)
    return model.eval()


def a_network(classes: int = 3, seed: int = 0, **arguments) -> nn.Module:
    return randomised(models.small_cnn(classes, width=2, image_size=8, **arguments), seed)


class Foreign(nn.Module):
    """A network that torch_aip.models does not know; its BatchNorm and dropout tell whether it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(torch.relu(self.bn(self.conv(x)))).mean((2, 3)))
