"""Scores against values worked out by hand, and what must hold for any logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import DatasetError, TeacherError
from bridge.metrics import (
    METRIC_KEYS,
    class_accuracies,
    confusion_matrix,
    evaluate_logits,
    per_class_accuracy,
    softmax_log,
)


@st.composite
def scored_sets(draw):
    """Student logits, teacher logits and labels of a small random set, with many ties."""
    samples, classes = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 1.0, 30.0, 1e4]))
    shape = (samples, classes)
    student, teacher = (np.round(generator.normal(size=shape)) * scale for _ in range(2))
    return student, teacher, generator.integers(0, classes, samples)


def test_softmax_log_matches_hand_computed_values_and_survives_large_logits():
    np.testing.assert_allclose(softmax_log([0.0, math.log(3.0)]), np.log([0.25, 0.75]), rtol=1e-15)
    np.testing.assert_allclose(softmax_log([[1000.0, 1000.0]]), np.log([[0.5, 0.5]]), rtol=1e-15)


def test_scores_match_hand_computed_values():
    student = np.log([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])
    teacher = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])
    scores = evaluate_logits(student, [0, 2, 2, 1], teacher)
    kl_first = 0.5 * math.log(0.5 / 0.7) + 0.25 * math.log(0.25 / 0.2) + 0.25 * math.log(0.25 / 0.1)
    kl_second = 0.2 * math.log(0.2 / 0.5) + 0.7 * math.log(0.7 / 0.4)
    # Confidences .7 (right), .5 (wrong), .5 (right), .9 (wrong): three bins, the two .5 share one.
    ece = (abs(1 - 0.7) + abs(1 - 0.5 - 0.5) + abs(0 - 0.9)) / 4
    assert list(scores) == list(METRIC_KEYS)
    assert scores["student_top1"] == 0.5
    assert scores["teacher_top1"] == 0.75
    assert scores["agreement"] == 0.75
    assert scores["kl"] == pytest.approx((kl_first + kl_second) / 4, rel=1e-12)
    assert scores["ece"] == pytest.approx(ece, rel=1e-12)
    assert scores["teacher_top5"] is None and scores["student_top5"] is None


def test_kl_is_of_the_student_from_the_teacher_and_not_the_other_way():
    teacher, student = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert evaluate_logits(student, None, teacher)["kl"] == pytest.approx(expected, rel=1e-12)


def test_top_five_counts_the_first_five_guesses_of_six_classes():
    logits = np.tile(np.arange(6.0), (6, 1))
    scores = evaluate_logits(logits, np.arange(6))
    assert scores["student_top1"] == pytest.approx(1 / 6)
    assert scores["student_top5"] == pytest.approx(5 / 6)


def test_what_has_no_meaning_is_none():
    logits = np.eye(7)
    assert [key for key, value in evaluate_logits(logits).items() if value is not None] == []
    with_teacher = evaluate_logits(logits, None, logits)
    assert [key for key, value in with_teacher.items() if value is not None] == ["agreement", "kl"]
    with_labels = evaluate_logits(logits, np.arange(7))
    assert [key for key, value in with_labels.items() if value is not None] == [
        "student_top1",
        "student_top5",
        "ece",
    ]


@settings(deadline=None, max_examples=60)
@given(scored_sets())
def test_scores_stay_in_their_ranges_for_any_logits(scored):
    student, teacher, labels = scored
    scores = evaluate_logits(student, labels, teacher)
    for key in ("teacher_top1", "student_top1", "agreement", "ece"):
        assert 0.0 <= scores[key] <= 1.0, key
    assert scores["kl"] >= 0.0
    assert scores["student_top1"] == pytest.approx(np.mean(student.argmax(1) == labels))
    if student.shape[1] > 5:
        assert scores["student_top1"] <= scores["student_top5"] <= 1.0
        assert scores["teacher_top1"] <= scores["teacher_top5"] <= 1.0


@settings(deadline=None, max_examples=40)
@given(scored_sets(), st.floats(-50, 50))
def test_kl_is_zero_and_agreement_one_for_equal_networks_up_to_a_constant(scored, constant):
    student, _, _ = scored
    scores = evaluate_logits(student, None, student + constant)
    assert scores["kl"] == pytest.approx(0.0, abs=1e-8)
    assert evaluate_logits(student, None, student)["kl"] == 0.0
    assert evaluate_logits(student, None, student)["agreement"] == 1.0


def test_scores_do_not_depend_on_how_the_samples_are_cut_into_pieces(monkeypatch):
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(2, 50, 8))
    labels = generator.integers(0, 8, 50)
    whole = evaluate_logits(student, labels, teacher)
    monkeypatch.setattr("bridge.metrics._ROWS_AT_ONCE", 7)
    pieces = evaluate_logits(student, labels, teacher)
    assert pieces == pytest.approx(whole, rel=1e-12)


def test_float16_logits_score_like_the_same_numbers_in_float64():
    logits = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float16)
    labels = np.arange(20) % 6
    assert evaluate_logits(logits, labels) == evaluate_logits(logits.astype(np.float64), labels)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_logits_that_are_not_finite_are_named_with_their_sample(bad, whose):
    good, broken = np.zeros((3, 4)), np.zeros((3, 4))
    broken[1, 2] = bad
    student, teacher = (broken, good) if whose == "student" else (good, broken)
    with pytest.raises(TeacherError, match=f"{whose}.*NaN or infinity.*sample 1"):
        evaluate_logits(student, None, teacher)


def test_another_number_of_classes_names_both_shapes():
    with pytest.raises(TeacherError, match=r"\[4, 10\].*\[4, 7\]"):
        evaluate_logits(np.zeros((4, 7)), None, np.zeros((4, 10)))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1], r"\[2\].*\[3\]"),
        ([0, 1, 4], "class 4"),
        ([0, -1, 2], "class -1"),
        ([0.0, 1.0, 2.0], "float64"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, said):
    with pytest.raises(DatasetError, match=said):
        evaluate_logits(np.zeros((3, 4)), labels)


def test_an_empty_set_is_an_error_and_not_a_nan():
    with pytest.raises(DatasetError, match="no samples"):
        evaluate_logits(np.zeros((0, 4)), np.zeros(0, int))


def test_confusion_matrix_has_the_truth_in_rows():
    matrix = confusion_matrix([0, 0, 1, 2], [0, 1, 1, 0], classes=4)
    expected = [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, expected)
    np.testing.assert_array_equal(per_class_accuracy(matrix), [0.5, 1.0, 0.0, np.nan])


def test_confusion_matrix_refuses_a_prediction_outside_the_classes():
    with pytest.raises(DatasetError, match="predictions hold class 3"):
        confusion_matrix([0, 1], [0, 3], classes=3)


def test_student_and_teacher_are_compared_class_by_class():
    found = class_accuracies([0, 0, 1, 2], [0, 1, 1, 0], [0, 0, 1, 1], 4)
    assert found.samples.tolist() == [2, 1, 1, 0]
    np.testing.assert_array_equal(found.student, [0.5, 1, 0, np.nan])
    np.testing.assert_array_equal(found.teacher, [1, 1, 0, np.nan])
    assert class_accuracies([0], [0], None, 1).teacher is None
    with pytest.raises(DatasetError):
        class_accuracies([0, 4], [0, 0], None, 4)
