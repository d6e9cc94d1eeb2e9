"""Every loss against NumPy in float64, and what all of them promise: float32, finite, no gradient to the teacher."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from bridge.errors import ConfigError
from keras_aip import losses

TEMPERATURES = (0.5, 1.0, 8.0)
# These never look at τ: raw logits, and a bare label.
WITHOUT_TEMPERATURE = ("logit_mse", "argmax")
# Cross-entropies have the teacher's entropy, or the student's doubt about the label, as their floor.
NEVER_ZERO = ("soft_cross_entropy", "argmax")


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    shifted = logits.astype(np.float64) / temperature
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p‖q): summed over classes, averaged over rows."""
    return (p * np.log(p / q)).sum(axis=1).mean()


def decoupled(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    """Zhao et al. 2022, equations 4–7, row by row, with the teacher's arg-max as target class; α 1, β 8."""
    total = 0.0
    for t, s in zip(softmax(teacher, temperature), softmax(student, temperature)):
        k = t.argmax()
        b_t, b_s = np.array([t[k], 1 - t[k]]), np.array([s[k], 1 - s[k]])
        others_t, others_s = np.delete(t, k) / (1 - t[k]), np.delete(s, k) / (1 - s[k])
        tckd = (b_t * np.log(b_t / b_s)).sum()
        nckd = (others_t * np.log(others_t / others_s)).sum()
        total += tckd + 8 * nckd
    return total / len(teacher)


def relations(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    """Huang et al. 2022: Pearson's correlation of every row and of every column."""
    t, s = softmax(teacher, temperature), softmax(student, temperature)
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(t, s)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(t.T, s.T)])
    return (1 - rows) + (1 - columns)


REFERENCE: dict[str, Callable[[np.ndarray, np.ndarray, float], float]] = {
    "kl": lambda t, s, tau: divergence(softmax(t, tau), softmax(s, tau)),
    "soft_cross_entropy": lambda t, s, tau: -(softmax(t, tau) * np.log(softmax(s, tau))).sum(axis=1).mean(),
    "logit_mse": lambda t, s, tau: ((t - s) ** 2).sum(axis=1).mean(),
    "l1": lambda t, s, tau: np.abs(softmax(t, tau) - softmax(s, tau)).sum(axis=1).mean(),
    "jensen_shannon": lambda t, s, tau: (
        (
            divergence(softmax(t, tau), (softmax(t, tau) + softmax(s, tau)) / 2)
            + divergence(softmax(s, tau), (softmax(t, tau) + softmax(s, tau)) / 2)
        )
        / 2
    ),
    "argmax": lambda t, s, tau: -np.log(softmax(s, 1.0)[np.arange(len(t)), t.argmax(axis=1)]).mean(),
    "dist": relations,
    "dkd": decoupled,
}


def two_answers(rows: int = 6, classes: int = 5, spread: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    teacher, student = generator.normal(0, spread, (2, rows, classes)).astype(np.float32)
    return teacher, student


def value(name: str, teacher: np.ndarray, student: np.ndarray, temperature: float = 1.0) -> float:
    return float(losses.get(name)(tf.constant(teacher), tf.constant(student), temperature))


def test_every_loss_has_a_reference_here():
    assert set(REFERENCE) == set(losses.LOSSES)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", REFERENCE)
def test_a_loss_is_its_formula(name, temperature):
    for seed in range(3):
        teacher, student = two_answers(seed=seed)
        expected = REFERENCE[name](teacher, student, temperature)
        assert value(name, teacher, student, temperature) == pytest.approx(expected, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("name", ["kl", "soft_cross_entropy", "argmax", "dkd"])
def test_the_teacher_comes_first(name):
    teacher, student = two_answers()
    assert value(name, teacher, student) != pytest.approx(value(name, student, teacher), rel=0.01)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_temperature_counts_but_for_raw_logits_and_bare_labels(name):
    teacher, student = two_answers()
    same = value(name, teacher, student, 1.0) == value(name, teacher, student, 4.0)
    assert same == (name in WITHOUT_TEMPERATURE)


@pytest.mark.parametrize("name", REFERENCE)
def test_a_loss_is_an_average_over_the_batch(name):
    teacher, student = two_answers()
    twice = value(name, np.concatenate([teacher, teacher]), np.concatenate([student, student]), 2.0)
    assert twice == pytest.approx(value(name, teacher, student, 2.0), rel=1e-5)


@pytest.mark.parametrize("name", ["kl", "soft_cross_entropy", "l1", "jensen_shannon", "dkd"])
def test_a_loss_of_distributions_does_not_see_what_is_added_to_all_logits(name):
    teacher, student = two_answers()
    moved = value(name, teacher + 7, student - 3, 2.0)
    assert moved == pytest.approx(value(name, teacher, student, 2.0), rel=1e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", REFERENCE)
def test_equal_answers_cost_nothing_beyond_the_floor_and_others_more(name, temperature):
    teacher, student = two_answers()
    floor = value(name, teacher, teacher, temperature)
    if name == "soft_cross_entropy":
        p = softmax(teacher, temperature)
        assert floor == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), rel=1e-5)
    elif name not in NEVER_ZERO:
        assert floor == pytest.approx(0, abs=2e-6)
    for scale in (1e-3, 0.1, 1.0):
        nearby = teacher + scale * student
        assert value(name, teacher, nearby, temperature) >= -2e-6
        if name != "argmax":
            assert value(name, teacher, nearby, temperature) >= floor - 2e-6


def test_jensen_shannon_is_symmetric_and_at_most_log_two():
    teacher, student = two_answers()
    assert value("jensen_shannon", teacher, student) == pytest.approx(value("jensen_shannon", student, teacher))
    apart = np.array([[1e3, 0.0]], np.float32)
    assert value("jensen_shannon", apart, apart[:, ::-1].copy()) == pytest.approx(np.log(2), rel=1e-6)


def test_l1_is_at_most_two():
    apart = np.array([[1e3, 0.0]], np.float32)
    assert value("l1", apart, apart[:, ::-1].copy()) == pytest.approx(2)


def test_dist_asks_for_relations_only():
    """A distribution stretched by another factor and shifted in every row alike keeps all its correlations."""
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(5), 6)
    squeezed = 0.3 * p + 0.7 / 5  # every row: a · p + b, still a distribution
    assert value("dist", np.log(p).astype(np.float32), np.log(squeezed).astype(np.float32)) == pytest.approx(
        0, abs=1e-5
    )
    assert value("kl", np.log(p).astype(np.float32), np.log(squeezed).astype(np.float32)) > 0.1
    shuffled = p[:, [1, 2, 3, 4, 0]]
    assert value("dist", np.log(p).astype(np.float32), np.log(shuffled).astype(np.float32)) > 0.5


def test_dist_looks_along_rows_and_along_columns():
    """Each half alone is at its worst here: rows agree where columns do not, and the other way round."""
    p = np.array([[0.5, 0.3, 0.2], [0.6, 0.25, 0.15]])
    q = np.array([[0.6, 0.25, 0.15], [0.5, 0.3, 0.2]])  # the rows alike, the columns turned round
    logs = [np.log(x).astype(np.float32) for x in (p, q)]
    assert value("dist", *logs) == pytest.approx(relations(*logs, 1.0), abs=1e-4)
    assert 1.9 < value("dist", *logs) < 2.1


def test_dkd_weighs_the_other_classes_eight_times():
    teacher = np.log(np.array([[0.6, 0.3, 0.1]], np.float32))
    student = np.log(np.array([[0.6, 0.1, 0.3]], np.float32))  # the target is right, only the others are not
    p, q = np.array([[0.75, 0.25]]), np.array([[0.25, 0.75]])
    assert value("dkd", teacher, student) == pytest.approx(8 * divergence(p, q), rel=1e-5)
    weighted = losses.dkd(tf.constant(teacher), tf.constant(student), 1.0, target_weight=0.0, other_weight=2.0)
    assert float(weighted) == pytest.approx(2 * divergence(p, q), rel=1e-5)


@pytest.mark.parametrize("name", REFERENCE)
def test_gradients_reach_the_student_and_never_the_teacher(name):
    teacher, student = (tf.constant(x) for x in two_answers())
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        loss = losses.get(name)(teacher, student, 2.0)
    to_teacher, to_student = tape.gradient(loss, [teacher, student])
    assert to_teacher is None
    assert np.abs(to_student.numpy()).max() > 1e-4


@pytest.mark.parametrize("name", REFERENCE)
def test_a_step_against_the_gradient_lowers_the_loss(name):
    teacher, student = (tf.constant(x) for x in two_answers(spread=1.0))
    with tf.GradientTape() as tape:
        tape.watch(student)
        before = losses.get(name)(teacher, student, 2.0)
    after = losses.get(name)(teacher, student - 0.01 * tape.gradient(before, student), 2.0)
    assert float(after) < float(before)


@pytest.mark.parametrize("temperature", [1.0, 8.0])
@pytest.mark.parametrize("name", REFERENCE)
def test_huge_logits_give_finite_values_and_gradients(name, temperature):
    extreme = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 5.0], [-1e4, -1e4, -1e4]], np.float32)
    mild = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [3.0, 2.0, 1.0]], np.float32)
    for teacher, student in ((extreme, -extreme), (extreme, extreme), (extreme, mild), (mild, extreme)):
        moving = tf.constant(student)
        with tf.GradientTape() as tape:
            tape.watch(moving)
            loss = losses.get(name)(tf.constant(teacher), moving, temperature)
        assert np.isfinite(float(loss))
        assert float(loss) >= -1e-5
        assert np.isfinite(tape.gradient(loss, moving).numpy()).all()


@pytest.mark.parametrize("name", REFERENCE)
def test_bfloat16_logits_are_reckoned_with_in_float32(name):
    teacher, student = (tf.cast(x, tf.bfloat16) for x in two_answers())
    loss = losses.get(name)(teacher, student, 8.0)
    assert loss.dtype == tf.float32 and loss.shape == ()
    exact = REFERENCE[name](*(tf.cast(x, tf.float64).numpy() for x in (teacher, student)), 8.0)
    assert float(loss) == pytest.approx(exact, rel=2e-5, abs=2e-6)


def test_a_name_or_a_function_gives_the_loss():
    def own(teacher, student, temperature):
        return tf.reduce_sum(teacher) + temperature

    assert losses.get("kl") is losses.kl
    assert losses.get(own) is own


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'jensen_shanon'.*'jensen_shannon'"):
        losses.get("jensen_shanon")
    with pytest.raises(ConfigError, match="soft_cross_entropy"):
        losses.get("zzz")
