"""Optimizers and learning-rate schedules from options, by PyTorch's own classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

Schedule = Callable[[int], float]
"""Number of a step → the share of the peak rate it is taken with."""


def make_optimizer(
    parameters: Iterable[nn.Parameter], name: str, learning_rate: float, *, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """An optimizer.

    Args:
        parameters: what it trains.
        name: "adam", "adamw" or "sgd" (Nesterov momentum 0.9). ε is 1e-8.
        learning_rate: its peak.
        weight_decay: decoupled, of all weights as in the reference code; "adamw" only.
    """
    parameters = list(parameters)
    # One kernel for all weights; it wants them all floating and on devices that have such a kernel.
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    options: dict[str, Any] = {"lr": learning_rate, "fused": fused}
    if name == "adam":
        return torch.optim.Adam(parameters, eps=1e-8, **options)
    if name == "adamw":
        return torch.optim.AdamW(parameters, eps=1e-8, weight_decay=weight_decay, **options)
    return torch.optim.SGD(parameters, momentum=0.9, nesterov=True, **options)


def schedule_of(name: str, steps: int, warmup: float = 0.0) -> Schedule:
    """How the learning rate changes over a run.

    Args:
        name: "constant"; "step", halved at half and at three quarters of `steps` (reference code: at epochs 100 and 150
            of 200); or "cosine" to zero over `steps`.
        steps: of the whole run.
        warmup: share of `steps` over which the rate first rises linearly from zero ("cosine" only).
    """
    rising = round(warmup * steps)

    def cosine(step: int) -> float:
        if step < rising:
            return step / rising
        done = min((step - rising) / max(steps - rising, 1), 1.0)
        return 0.5 * (1 + math.cos(math.pi * done))

    def halved(step: int) -> float:
        return 0.5 ** ((step >= steps // 2) + (step >= steps * 3 // 4))

    return {"constant": lambda step: 1.0, "step": halved, "cosine": cosine}[name]


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Let the next step be taken with a share of the peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * share


def learning_rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The rate of the step taken last, or of the first one."""
    return float(optimizer.param_groups[0]["lr"])
