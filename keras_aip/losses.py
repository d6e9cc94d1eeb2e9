"""Distillation losses: pure functions of the teacher's and the student's logits.

All take ``teacher, student: [batch, classes]`` in log space (logits; for a teacher that answers with probabilities the
logarithm of them) and give a float32 scalar: summed over classes, averaged over the batch. No gradient reaches the
teacher. τ² is never in here: the paper leaves it out, and `Distiller(tau_squared=True)` adds it.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bridge.names import lookup

Loss = Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]


def kl(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """KL(softmax(teacher/τ) ‖ softmax(student/τ)) in nats (Hinton et al. 2015; Asano & Saeed 2023)."""
    t, s = _log_probabilities(teacher, student, temperature)
    return _batch_mean(tf.exp(t) * (t - s))


def soft_cross_entropy(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Cross-entropy of the student under the teacher's distribution: KL plus the teacher's entropy."""
    t, s = _log_probabilities(teacher, student, temperature)
    return _batch_mean(-tf.exp(t) * s)


def logit_mse(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Squared difference of the raw logits; τ plays no part (Ba & Caruana 2014)."""
    del temperature
    return _batch_mean(tf.square(tf.stop_gradient(_float(teacher)) - _float(student)))


def l1(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Absolute difference of the two softened distributions (twice their total variation)."""
    t, s = _log_probabilities(teacher, student, temperature)
    return _batch_mean(tf.abs(tf.exp(t) - tf.exp(s)))


def jensen_shannon(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Jensen–Shannon divergence of the softened distributions, at most log 2 nats."""
    t, s = _log_probabilities(teacher, student, temperature)
    middle = tf.reduce_logsumexp(tf.stack([t, s]), axis=0) - tf.math.log(2.0)
    return _batch_mean(0.5 * (tf.exp(t) * (t - middle) + tf.exp(s) * (s - middle)))


def argmax(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Cross-entropy with the teacher's top class only, at τ = 1: clones a model that answers with a bare label."""
    del temperature
    label = tf.argmax(tf.stop_gradient(teacher), axis=-1)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(label, _float(student)))


def dist(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """One minus the correlation between rows, plus one minus that between columns (DIST: Huang et al. 2022)."""
    t, s = (tf.exp(log_p) for log_p in _log_probabilities(teacher, student, temperature))
    between_classes = 1.0 - tf.reduce_mean(_correlation(t, s, axis=1))
    within_classes = 1.0 - tf.reduce_mean(_correlation(t, s, axis=0))
    return between_classes + within_classes


def dkd(
    teacher: tf.Tensor, student: tf.Tensor, temperature: float, target_weight: float = 1.0, other_weight: float = 8.0
) -> tf.Tensor:
    """Decoupled distillation (Zhao et al. 2022), weights as published for CIFAR.

    There are no labels, so the teacher's arg-max stands for the target class.
    """
    t, s = _log_probabilities(teacher, student, temperature)
    target = tf.one_hot(tf.argmax(t, axis=-1), t.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    t_top = tf.reduce_sum(tf.where(target, t, 0.0), axis=-1)
    s_top = tf.reduce_sum(tf.where(target, s, 0.0), axis=-1)
    t_rest, s_rest = _log_one_minus(t, target), _log_one_minus(s, target)
    target_kl = tf.exp(t_top) * (t_top - s_top) + tf.exp(t_rest) * (t_rest - s_rest)
    # The distributions over the other classes alone. The target is taken out before exp, where it could overflow and
    # make the gradient NaN although its value is not used.
    t_other = tf.where(target, 0.0, t - t_rest[:, None])
    s_other = tf.where(target, 0.0, s - s_rest[:, None])
    other_kl = tf.reduce_sum(tf.exp(t_other) * (t_other - s_other), axis=-1)
    return tf.reduce_mean(target_weight * target_kl + other_weight * other_kl)


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


def _float(logits: tf.Tensor) -> tf.Tensor:
    return tf.cast(logits, tf.float32)


def _log_probabilities(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Both softened, in log space: float32 [batch, classes] each; the teacher is held fast."""
    t, s = (tf.nn.log_softmax(_float(logits) / temperature, axis=-1) for logits in (teacher, student))
    return tf.stop_gradient(t), s


def _batch_mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.reduce_sum(values, axis=-1))


def _log_one_minus(log_p: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Logarithm of the probability of all classes but the target: [batch]."""
    return tf.reduce_logsumexp(tf.where(target, -1e9, log_p), axis=-1)


def _correlation(a: tf.Tensor, b: tf.Tensor, axis: int) -> tf.Tensor:
    a = a - tf.reduce_mean(a, axis=axis, keepdims=True)
    b = b - tf.reduce_mean(b, axis=axis, keepdims=True)
    norm = tf.sqrt(tf.reduce_sum(a * a, axis=axis) * tf.reduce_sum(b * b, axis=axis) + 1e-16)
    return tf.reduce_sum(a * b, axis=axis) / norm
