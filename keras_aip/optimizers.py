"""Optimizers and learning-rate schedules from options, by Keras's own classes."""

from __future__ import annotations

from typing import Any

import keras


def make_optimizer(
    name: str, learning_rate: float, *, weight_decay: float = 0.0, schedule: str = "constant", steps: int = 0,
    warmup: float = 0.0, clip_norm: float | None = None,
) -> Any:  # fmt: skip
    """An optimizer with its schedule.

    Args:
        name: "adam", "adamw" or "sgd" (Nesterov momentum 0.9). ε is 1e-8 as in PyTorch.
        learning_rate: its peak.
        weight_decay: decoupled, "adamw" only.
        schedule: "constant"; "step", halved at half and at three quarters of `steps` (reference code: at epochs 100 and
            150 of 200); or "cosine" to zero over `steps`.
        steps: of the whole run.
        warmup: share of `steps` over which the rate first rises linearly from zero ("cosine" only).
        clip_norm: longest gradient over all weights; None leaves it as it is.

    Returns:
        A Keras optimizer.
    """
    rate: Any = learning_rate
    if schedule == "cosine":
        rising = round(warmup * steps)
        rate = (
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - rising, warmup_target=learning_rate, warmup_steps=rising
            )
            if rising
            else keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        )
    if schedule == "step":
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [steps // 2 - 1, steps * 3 // 4 - 1], [learning_rate, learning_rate / 2, learning_rate / 4]
        )
    if name == "adam":
        return keras.optimizers.Adam(rate, epsilon=1e-8, global_clipnorm=clip_norm)
    if name == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=weight_decay, epsilon=1e-8, global_clipnorm=clip_norm)
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, global_clipnorm=clip_norm)


def learning_rate_of(optimizer: Any) -> float:
    """The rate of the step about to be taken."""
    return float(optimizer.learning_rate.numpy())
