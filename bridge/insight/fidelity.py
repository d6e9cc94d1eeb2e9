"""How faithful a student is to its teacher, out of the answers of both: plain NumPy in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridge.metrics import (
    CALIBRATION_BINS,
    ClassAccuracies,
    calibration_bin,
    class_accuracies,
    evaluate_logits,
    softmax_log,
)

FIRST = 5
"""Answers that count as the first ones."""
_ROWS_AT_ONCE = 4096
_NORMAL = 1.959963984540054
"""Standard deviations of a 95 % interval."""


class Calibration(NamedTuple):
    """How often a network is right, by its confidence: 15 bins of equal width over [0, 1].

    Attributes:
        samples: int64 ``[15]``: how many are in each.
        confidence, right: float64 ``[15]``: mean confidence, and share that is right; NaN where there are none.
        error: Mean gap between the two, weighted by the samples (ECE), in [0, 1].
    """

    samples: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]
    error: float


class Parted(NamedTuple):
    """Two classes on which teacher and student part.

    Attributes:
        teacher, student: What each says.
        times: How often.
        share: Of the samples that the teacher says this of, in (0, 1].
        teacher_right, student_right: How often each has the label; ``None`` without labels.
    """

    teacher: int
    student: int
    times: int
    share: float
    teacher_right: int | None
    student_right: int | None


@dataclass(frozen=True)
class Fidelity:
    """What was found.

    Attributes:
        figures: As `compare` describes them.
        teacher, student: int64 ``[samples]``: the first answer of each.
        teacher_sure, student_sure: float64 ``[samples]``: its probability.
        apart: float64 ``[samples]``: total variation distance of the two answers, in [0, 1]; class numbers count as
            certain.
        kl: float64 ``[samples]``, in nats; ``None`` where it has no meaning.
        calibration: Of the student, where being right is to say what the teacher says; ``None`` of class numbers.
        label_calibration: The same against labels; ``None`` without.
        parted: The most frequent first.
        per_class: Of the samples that the teacher puts into each class: how many, and the share that the student puts
            there too.
    """

    figures: dict[str, float | int | None]
    teacher: NDArray[np.int64]
    student: NDArray[np.int64]
    teacher_sure: NDArray[np.float64]
    student_sure: NDArray[np.float64]
    apart: NDArray[np.float64]
    kl: NDArray[np.float64] | None
    calibration: Calibration | None
    label_calibration: Calibration | None
    parted: list[Parted]
    per_class: ClassAccuracies

    def most_apart(self, count: int) -> NDArray[np.int64]:
        """Samples on whose first answer they part, the largest distance first; at most so many."""
        rows = np.flatnonzero(self.teacher != self.student)
        # rounded, or the last bits of a backend would order those that are as far apart as can be
        return rows[np.argsort(-self.apart[rows].round(4), kind="stable")][:count]


def compare(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    teacher_labels: bool = False,
    student_labels: bool = False,
) -> Fidelity:
    """Hold a student's answers against its teacher's. Ours.

    Of equal answers the class with the lowest number comes first, as in ``argmax``.

    Args:
        student_logits: In log space ``[samples, classes]``, finite.
        teacher_logits: Of the same samples.
        labels: The true classes, integers ``[samples]``, or ``None``.
        teacher_labels, student_labels: It tells class numbers alone: what speaks of its probabilities, or of its
            further answers, has no meaning.

    Returns:
        Its ``figures`` always have these keys, ``None`` where one has no meaning. Shares are of the samples, in [0, 1].

        - ``n``, ``classes``.
        - ``agreement``, ``agreement_low``, ``agreement_high``: share with the same first answer, and its 95 % interval
          (Wilson 1927).
        - ``agreement_at_5``: share where the student's first answer is among the teacher's first five; of six classes
          or more, as the next two.
        - ``teacher_in_5``: share where the teacher's first answer is among the student's first five.
        - ``overlap_at_5``: mean share of the first five answers that both have.
        - ``kl``, ``kl_median``, ``kl_95``: KL(teacher‖student) at τ = 1 in nats: mean, median, 95th percentile.
        - ``total_variation``: mean over the samples of ½ Σ |teacher − student| over the classes, in [0, 1].
        - ``teacher_confidence``, ``student_confidence``: mean probability of the first answer.
        - ``teacher_ece``: gap between the student's confidence and how often it says what the teacher says (15 bins).
        - ``teacher_top1``, ``student_top1``, ``teacher_top5``, ``student_top5``, ``ece``: against labels, as of
          `bridge.metrics.evaluate_logits`.
        - ``parted``: samples with different first answers; ``parted_teacher_right``, ``parted_student_right``,
          ``parted_both_wrong``: shares of these.

    Raises:
        TeacherError: Answers that are not finite, or of different shapes.
        DatasetError: No samples, or labels that do not fit.
    """
    base = evaluate_logits(student_logits, labels, teacher_logits)
    student, teacher = np.asarray(student_logits), np.asarray(teacher_logits)
    truth = None if labels is None else np.asarray(labels, np.int64)
    count, classes = student.shape
    parts = [_rows(student[k : k + _ROWS_AT_ONCE], teacher[k : k + _ROWS_AT_ONCE], teacher_labels, student_labels)
             for k in range(0, count, _ROWS_AT_ONCE)]  # fmt: skip
    found = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    first, teachers = found["student"], found["teacher"]
    soft, several = not (teacher_labels or student_labels), classes > FIRST
    agree = first == teachers
    apart = ~agree
    low, high = wilson(int(agree.sum()), count)
    calibration = None if student_labels else calibrated(found["student_sure"], agree)
    figures: dict[str, float | int | None] = {
        "n": count,
        "classes": classes,
        "agreement": float(agree.mean()),
        "agreement_low": low,
        "agreement_high": high,
        "agreement_at_5": float(found["in_teacher"].mean()) if several and not teacher_labels else None,
        "teacher_in_5": float(found["in_student"].mean()) if several and not student_labels else None,
        "overlap_at_5": float(found["overlap"].mean()) if several and soft else None,
        "kl": base["kl"] if soft else None,
        "kl_median": float(np.median(found["kl"])) if soft else None,
        "kl_95": float(np.quantile(found["kl"], 0.95)) if soft else None,
        "total_variation": float(found["apart"].mean()) if soft else None,
        "teacher_confidence": None if teacher_labels else float(found["teacher_sure"].mean()),
        "student_confidence": None if student_labels else float(found["student_sure"].mean()),
        "teacher_ece": None if calibration is None else calibration.error,
        "teacher_top1": base["teacher_top1"],
        "student_top1": base["student_top1"],
        "teacher_top5": None if teacher_labels else base["teacher_top5"],
        "student_top5": None if student_labels else base["student_top5"],
        "ece": None if student_labels else base["ece"],
        "parted": int(apart.sum()),
        **_who_is_right(apart, teachers, first, truth),
    }
    by_label = None if truth is None or student_labels else calibrated(found["student_sure"], first == truth)
    return Fidelity(
        figures=figures,
        teacher=teachers,
        student=first,
        teacher_sure=found["teacher_sure"],
        student_sure=found["student_sure"],
        apart=found["apart"],
        kl=found["kl"] if soft else None,
        calibration=calibration,
        label_calibration=by_label,
        parted=_parted(teachers, first, truth, classes),
        per_class=class_accuracies(teachers, first, None, classes),
    )


def calibrated(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> Calibration:
    """Compare confidence with how often it is right.

    Args:
        confidence: ``[samples]`` in [0, 1].
        right: ``[samples]``.
    """
    place = calibration_bin(confidence)
    count = np.bincount(place, minlength=CALIBRATION_BINS)
    sums = [np.bincount(place, weights=values, minlength=CALIBRATION_BINS) for values in (confidence, right)]
    means = [np.divide(some, count, out=np.full(CALIBRATION_BINS, np.nan), where=count > 0) for some in sums]
    return Calibration(count, means[0], means[1], min(float(np.abs(sums[1] - sums[0]).sum()) / len(confidence), 1.0))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), for independent samples.

    Args:
        hits: Of the samples.
        count: Samples, at least 1.
    """
    share, square = hits / count, _NORMAL**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _rows(student: NDArray, teacher: NDArray, teacher_labels: bool, student_labels: bool) -> dict[str, NDArray]:
    """What each sample tells."""
    logs = [softmax_log(student), softmax_log(teacher)]
    first = [student.argmax(1), teacher.argmax(1)]
    shares = [np.exp(some) for some in logs]
    for k, certain in enumerate((student_labels, teacher_labels)):
        if certain:
            shares[k] = np.eye(student.shape[1])[first[k]]
    five = [np.argsort(-some.astype(np.float64), axis=1, kind="stable")[:, :FIRST] for some in (student, teacher)]
    return {
        "student": first[0],
        "teacher": first[1],
        "student_sure": np.take_along_axis(shares[0], first[0][:, None], 1)[:, 0],
        "teacher_sure": np.take_along_axis(shares[1], first[1][:, None], 1)[:, 0],
        # rounding can leave the divergence of two equal distributions a hair below zero
        "kl": np.maximum((np.exp(logs[1]) * (logs[1] - logs[0])).sum(1), 0),
        "apart": np.minimum(np.abs(shares[0] - shares[1]).sum(1) / 2, 1),
        "in_teacher": (five[1] == first[0][:, None]).any(1),
        "in_student": (five[0] == first[1][:, None]).any(1),
        "overlap": (five[0][:, :, None] == five[1][:, None, :]).sum((1, 2)) / FIRST,
    }


def _who_is_right(apart: NDArray, teacher: NDArray, student: NDArray, truth: NDArray | None) -> dict[str, Any]:
    keys = ("parted_teacher_right", "parted_student_right", "parted_both_wrong")
    if truth is None or not apart.any():
        return dict.fromkeys(keys)
    right = [float((some == truth)[apart].mean()) for some in (teacher, student)]
    wrong = float(((teacher != truth) & (student != truth))[apart].mean())
    return dict(zip(keys, (*right, wrong)))


def _parted(teacher: NDArray, student: NDArray, truth: NDArray | None, classes: int) -> list[Parted]:
    """Pairs of classes, the most frequent first."""
    rows = np.flatnonzero(teacher != student)
    said = np.bincount(teacher, minlength=classes)
    pairs, place, counts = np.unique(teacher[rows] * classes + student[rows], return_inverse=True, return_counts=True)
    right = None
    if truth is not None:
        right = [
            np.bincount(place, weights=some[rows] == truth[rows], minlength=len(pairs)) for some in (teacher, student)
        ]
    found = []
    for k in np.argsort(-counts, kind="stable").tolist():
        a, b = divmod(int(pairs[k]), classes)
        who = (None, None) if right is None else (int(right[0][k]), int(right[1][k]))
        found.append(Parted(a, b, int(counts[k]), float(counts[k] / said[a]), *who))
    return found
