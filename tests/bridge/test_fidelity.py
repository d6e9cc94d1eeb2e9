"""Fidelity: every figure by hand on small answers, and a page that holds whatever comes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bridge.errors import DatasetError, RunError, TeacherError
from bridge.insight.fidelity import calibrated, compare, wilson
from bridge.insight.fidelity_page import Example, summary_of, write_fidelity_page
from bridge.metrics import evaluate_logits
from tests.bridge.test_report import HOSTILE, Page


def random_answers(samples=300, classes=8, seed=0):
    rng = np.random.default_rng(seed)
    teacher = 2 * rng.normal(size=(samples, classes)).astype(np.float32)
    return teacher + rng.normal(size=teacher.shape).astype(np.float32), teacher, rng.integers(0, classes, samples)


def test_figures_are_those_of_evaluate_where_both_have_them():
    student, teacher, labels = random_answers()
    found, known = compare(student, teacher, labels), evaluate_logits(student, labels, teacher)
    for key, value in known.items():
        assert found.figures[key] == pytest.approx(value, abs=1e-12), key
    assert found.label_calibration.error == pytest.approx(known["ece"])
    assert found.kl.mean() == pytest.approx(known["kl"])


def test_every_figure_by_hand():
    p = np.array([[0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02], [0.1, 0.6, 0.1, 0.1, 0.04, 0.03, 0.03]])
    q = np.array([[0.4, 0.3, 0.1, 0.1, 0.02, 0.05, 0.03], [0.03, 0.03, 0.04, 0.1, 0.1, 0.1, 0.6]])
    found = compare(np.log(q), np.log(p), np.array([0, 6]))
    figures = found.figures
    divergence = (p * np.log(p / q)).sum(1)
    assert figures["agreement"] == 0.5 and figures["parted"] == 1 and (figures["n"], figures["classes"]) == (2, 7)
    assert figures["agreement_at_5"] == 0.5  # of the second sample 6 comes last for the teacher
    assert figures["teacher_in_5"] == 0.5  # and 1 is sixth or seventh for the student
    assert figures["overlap_at_5"] == pytest.approx((4 / 5 + 3 / 5) / 2)
    assert figures["kl"] == pytest.approx(divergence.mean()) and figures["kl_median"] == pytest.approx(
        divergence.mean()
    )
    assert figures["total_variation"] == pytest.approx(np.abs(p - q).sum() / 4)
    assert figures["teacher_confidence"] == pytest.approx(0.55) and figures["student_confidence"] == pytest.approx(0.5)
    assert figures["teacher_ece"] == pytest.approx((0.6 + 0.6) / 2)
    assert (figures["parted_teacher_right"], figures["parted_student_right"], figures["parted_both_wrong"]) == (0, 1, 0)
    assert [tuple(pair) for pair in found.parted] == [(1, 6, 1, 1.0, 0, 1)]
    np.testing.assert_array_equal(found.per_class.samples, [1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.per_class.student[:2], [1, 0])
    assert found.most_apart(5).tolist() == [1]


def test_pairs_and_examples_come_worst_first():
    teacher = np.log(np.array([[0.8, 0.1, 0.1]] * 4 + [[0.1, 0.8, 0.1]] * 2))
    student = [[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.05, 0.05, 0.9], [0.1, 0.8, 0.1]]
    found = compare(np.log(student), teacher)
    assert [(pair.teacher, pair.student, pair.times, pair.share) for pair in found.parted] == [
        (0, 1, 2, 0.5), (0, 2, 1, 0.25), (1, 2, 1, 0.5)
    ]  # fmt: skip
    assert found.most_apart(9).tolist() == [4, 2, 3, 1] and found.most_apart(1).tolist() == [4]
    assert found.parted[0].teacher_right is None and found.label_calibration is None


def test_what_has_no_meaning_is_nothing():
    student, teacher, labels = random_answers(classes=5)
    figures = compare(student, teacher).figures
    assert figures["agreement_at_5"] is figures["overlap_at_5"] is figures["student_top1"] is figures["ece"] is None
    assert compare(teacher, teacher, labels).figures["parted_teacher_right"] is None
    student, teacher, labels = random_answers()
    certain = np.log(np.maximum(np.eye(8)[teacher.argmax(1)], 1e-7))
    told, soft = compare(student, certain, labels, teacher_labels=True), compare(student, teacher, labels)
    for key in ("kl", "kl_median", "kl_95", "total_variation", "agreement_at_5", "overlap_at_5", "teacher_confidence"):
        assert told.figures[key] is None and soft.figures[key] is not None, key
    for key in ("agreement", "teacher_in_5", "teacher_ece", "ece", "teacher_top1", "parted_both_wrong"):
        assert told.figures[key] == soft.figures[key] is not None, key
    assert told.kl is None and told.figures["teacher_top5"] is None
    rows = told.most_apart(300)
    # of a certain teacher the distance is what the student gives to other classes
    given = np.exp(student) / np.exp(student).sum(1, keepdims=True)
    np.testing.assert_allclose(told.apart, 1 - given[np.arange(300), teacher.argmax(1)], atol=1e-6)
    assert (np.diff(told.apart[rows]) < 1e-4).all()
    figures = compare(certain, teacher, labels, student_labels=True).figures
    assert figures["teacher_ece"] is figures["ece"] is figures["student_confidence"] is figures["kl"] is None
    assert figures["agreement_at_5"] == 1 and figures["agreement"] == 1


def test_the_interval_is_wilsons():
    # of the literature: 81 of 263 (Newcombe 1998)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(5, 5)[1] == 1 and 0.5 < wilson(5, 5)[0] < 0.6 and wilson(0, 5)[0] == 0


def test_calibration_counts_what_is_right_in_each_bin():
    found = calibrated(np.array([0.95, 0.99, 1.0, 1 / 15]), np.array([True, False, True, False]))
    assert found.samples[[0, 14]].tolist() == [1, 3] and found.samples.sum() == 4
    assert found.right[14] == pytest.approx(2 / 3) and found.right[0] == 0 and np.isnan(found.right[7])
    assert found.error == pytest.approx((0.94 + 1 / 15) / 4)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"teacher_logits": np.zeros((3, 4))}, TeacherError),
        ({"teacher_logits": np.full((3, 3), np.nan)}, TeacherError),
        ({"labels": np.array([0, 1, 3])}, DatasetError),
        ({"student_logits": np.zeros((0, 3)), "teacher_logits": np.zeros((0, 3))}, DatasetError),
    ],
)
def test_answers_that_do_not_fit_are_refused(changes, error):
    with pytest.raises(error):
        compare(**{"student_logits": np.zeros((3, 3)), "teacher_logits": np.zeros((3, 3)), **changes})


def page(tmp_path, student, teacher, labels=None, names=None, pictures=None, waveform=None, **how):
    found = compare(student, teacher, labels, **how)
    classes = student.shape[1]
    names = names or [f"class {k}" for k in range(classes)]
    rows = found.most_apart(4)
    told = [
        {
            "file": f"{HOSTILE}.png" if k else None, "number": int(row), "teacher": names[found.teacher[row]],
            "student": names[found.student[row]], "teacher_confidence": None if found.kl is None else 0.5,
            "student_confidence": 0.25, "label": None if labels is None else names[labels[row]],
        }
        for k, row in enumerate(rows)
    ]  # fmt: skip
    pairs = [
        {"teacher": names[pair.teacher], "student": names[pair.student], "times": pair.times} for pair in found.parted
    ]
    result = {
        **found.figures, "dataset": "some", "student": "a", "teacher": "b", "parted_classes": pairs, "config": {"x": 1},
    }  # fmt: skip
    size = (16, 16) if pictures is None else pictures
    examples = [Example(np.zeros((*size, 3), np.uint8), waveform, each) for each in told]
    write_fidelity_page(tmp_path / "fidelity.html", found, result, names, examples, rate=8000)
    html = (tmp_path / "fidelity.html").read_text(encoding="utf-8")
    return Page(html), html, summary_of(result)


def test_a_page_has_all_its_parts_and_nothing_from_elsewhere(tmp_path):
    read, html, told = page(tmp_path, *random_answers())
    assert {"result", "parted", "examples", "calibration", "classes", "config"} <= set(read.ids)
    assert all(link.startswith("data:") for link in read.links) and not re.search(r"url\(|@import|https?://", html)
    assert len(read.images) == 4 and read.tags.count("svg") == 2
    assert "teacher right" in read.text and "agreement at 5" in read.text and all(line in read.text for line in told)


@pytest.mark.parametrize("hostile", [[HOSTILE, '" onload="x', "a&b"]])
def test_names_of_classes_and_files_are_escaped(tmp_path, hostile):
    read, html, _ = page(tmp_path, *random_answers(classes=3), names=hostile)
    assert "<script" not in html and "script" not in read.tags and HOSTILE in read.text
    assert ' onload="' not in html


def test_two_that_never_part_are_said_to(tmp_path):
    student, _, labels = random_answers()
    read, _, _ = page(tmp_path, student, student, labels)
    assert "Nowhere: both give the same first answer" in read.text and "they agree on every sample" in read.text
    assert read.images == [] and "100.0 %" in read.text
    read, _, told = page(tmp_path, np.zeros((4, 1)), np.ones((4, 1)))
    assert any("one class only" in line for line in told) and "Nowhere" in read.text


def test_a_thousand_classes_are_a_short_page(tmp_path):
    read, html, _ = page(tmp_path, *random_answers(samples=500, classes=1000))
    assert len(html) < 60_000 and "20 worst of" in read.text and "20 most frequent of" in read.text


def test_a_teacher_of_class_numbers_and_sounds_on_a_page(tmp_path):
    student, teacher, _ = random_answers(samples=20)
    certain = np.log(np.maximum(np.eye(8)[teacher.argmax(1)], 1e-7))
    read, _, told = page(
        tmp_path, student, certain, pictures=(64, 98), waveform=np.zeros(800, np.float32), teacher_labels=True
    )
    assert any("class numbers alone" in line for line in told) and "nats" not in read.text
    assert read.tags.count("audio") == 4 and read.tags.count("svg") == 1


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(RunError, match="Cannot write"):
        page(tmp_path / "missing", *random_answers(samples=9))
