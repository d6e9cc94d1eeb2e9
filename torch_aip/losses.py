"""Distillation losses: pure functions of the teacher's and the student's logits.

All take ``teacher, student: [batch, classes]`` in log space (logits; for a teacher that answers with probabilities the
logarithm of them) and give a float32 scalar: summed over classes, averaged over the batch. No gradient reaches the
teacher. τ² is never in here: the paper leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from bridge.names import lookup

Loss = Callable[[Tensor, Tensor, float], Tensor]


def kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher/τ) ‖ softmax(student/τ)) in nats (Hinton et al. 2015; Asano & Saeed 2023)."""
    t, s = _log_softmax(teacher.detach(), temperature), _log_softmax(student, temperature)
    return _batch_mean(t.exp() * (t - s))


def soft_cross_entropy(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the student under the teacher's distribution: KL plus the teacher's entropy."""
    t, s = _log_softmax(teacher.detach(), temperature), _log_softmax(student, temperature)
    return _batch_mean(-t.exp() * s)


def logit_mse(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Squared difference of the raw logits; τ plays no part (Ba & Caruana 2014)."""
    del temperature
    return _batch_mean((teacher.detach().float() - student.float()).square())


def l1(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Absolute difference of the two softened distributions (twice their total variation)."""
    t, s = _log_softmax(teacher.detach(), temperature), _log_softmax(student, temperature)
    return _batch_mean((t.exp() - s.exp()).abs())


def jensen_shannon(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Jensen–Shannon divergence of the softened distributions, at most log 2 nats."""
    t, s = _log_softmax(teacher.detach(), temperature), _log_softmax(student, temperature)
    middle = torch.logsumexp(torch.stack([t, s]), dim=0) - math.log(2.0)
    return _batch_mean(0.5 * (t.exp() * (t - middle) + s.exp() * (s - middle)))


def argmax(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Cross-entropy with the teacher's top class only, at τ = 1: clones a model that answers with a bare label."""
    del temperature
    return functional.cross_entropy(student.float(), teacher.argmax(-1))


def dist(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """One minus the correlation between rows, plus one minus that between columns (DIST: Huang et al. 2022)."""
    t = _log_softmax(teacher.detach(), temperature).exp()
    s = _log_softmax(student, temperature).exp()
    between_classes = 1.0 - _correlation(t, s, dim=1).mean()
    within_classes = 1.0 - _correlation(t, s, dim=0).mean()
    return between_classes + within_classes


def dkd(
    teacher: Tensor, student: Tensor, temperature: float, target_weight: float = 1.0, other_weight: float = 8.0
) -> Tensor:
    """Decoupled distillation (Zhao et al. 2022), weights as published for CIFAR.

    There are no labels, so the teacher's arg-max stands for the target class.
    """
    t, s = _log_softmax(teacher.detach(), temperature), _log_softmax(student, temperature)
    top = t.argmax(-1, keepdim=True)
    target = torch.zeros_like(t, dtype=torch.bool).scatter(-1, top, True)
    t_top, s_top = (answer.gather(-1, top).squeeze(-1) for answer in (t, s))  # by a mask the host would wait
    t_rest, s_rest = _log_one_minus(t, target), _log_one_minus(s, target)
    target_kl = t_top.exp() * (t_top - s_top) + t_rest.exp() * (t_rest - s_rest)
    # The distributions over the other classes alone. The target is taken out before exp, where it could overflow and
    # make the gradient NaN although its value is not used.
    t_other = (t - t_rest[:, None]).masked_fill(target, 0.0)
    s_other = (s - s_rest[:, None]).masked_fill(target, 0.0)
    other_kl = (t_other.exp() * (t_other - s_other)).sum(-1)
    return (target_weight * target_kl + other_weight * other_kl).mean()


LOSSES: dict[str, Loss] = {
    "kl": kl,
    "soft_cross_entropy": soft_cross_entropy,
    "logit_mse": logit_mse,
    "l1": l1,
    "jensen_shannon": jensen_shannon,
    "argmax": argmax,
    "dist": dist,
    "dkd": dkd,
}


def get(loss: str | Loss) -> Loss:
    """A loss by name; a function (teacher, student, temperature) → scalar is passed through.

    Raises:
        ConfigError: unknown name.
    """
    return loss if callable(loss) else lookup(LOSSES, loss, "loss")


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return functional.log_softmax(logits.float() / temperature, dim=-1)


def _batch_mean(values: Tensor) -> Tensor:
    return values.sum(-1).mean()


def _log_one_minus(log_p: Tensor, target: Tensor) -> Tensor:
    """Logarithm of the probability of all classes but the target: [batch]."""
    return torch.logsumexp(log_p.masked_fill(target, -1e9), dim=-1)


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    a = a - a.mean(dim=dim, keepdim=True)
    b = b - b.mean(dim=dim, keepdim=True)
    norm = ((a * a).sum(dim) * (b * b).sum(dim) + 1e-16).sqrt()
    return (a * b).sum(dim) / norm
