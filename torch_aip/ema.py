"""A moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """Exponential moving average of all weights and statistics; never waits for the device.

    PyTorch's own `AveragedModel` asks the device in every step how often it has averaged.

    Args:
        model: what is averaged; it goes on training.
        decay: share of the average that stays in a step; less in the first steps, (1 + n) / (10 + n) after n, so that
            the first weights are soon forgotten (as in TensorFlow).

    Attributes:
        model: a copy of the network that holds the average.
        steps: taken so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay, self.steps = decay, 0
        pairs = list(zip(self._tensors(self.model), self._tensors(model)))
        floating = [(kept, new) for kept, new in pairs if kept.is_floating_point()]
        self._kept, self._new = [kept for kept, _ in floating], [new for _, new in floating]
        self._counters = [(kept, new) for kept, new in pairs if not kept.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of the step just made."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._kept, self._new, 1 - decay)
        for kept, new in self._counters:
            kept.copy_(new)
        self.steps += 1

    @staticmethod
    def _tensors(model: nn.Module) -> list[torch.Tensor]:
        return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
