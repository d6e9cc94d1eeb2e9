"""How good a student is, and how close to its teacher: plain NumPy in float64, the same for both backends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridge.errors import DatasetError, TeacherError

METRIC_KEYS = ("teacher_top1", "student_top1", "teacher_top5", "student_top5", "agreement", "kl", "ece")
CALIBRATION_BINS = 15
# 50,000 x 1,000 logits of two models would be 800 MB in float64; the sums need them only piece by piece.
_ROWS_AT_ONCE = 4096


def softmax_log(logits: ArrayLike) -> NDArray[np.float64]:
    """Return the logarithm of the softmax over the last axis.

    Args:
        logits: Any real numbers, ``[..., classes]``.

    Returns:
        float64 ``[..., classes]``, natural logarithm, each at most 0.
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def mean_over_views(logits: ArrayLike, views: int) -> NDArray[np.float64]:
    """Answers for videos out of answers for their clips: the mean of their softmax (Asano & Saeed 2023).

    Args:
        logits: ``[videos * views, classes]``, the views of a video one after the other. A teacher that gives
            probabilities p passes log(max(p, 1e-7)).
        views: Clips per video, times crops per clip.

    Returns:
        float64 ``[videos, classes]``, natural logarithm of the mean probability, at most 0: log-space, so that it is
        what ``evaluate_logits`` takes.

    Raises:
        TeacherError: Logits that are no rows of classes.
        DatasetError: ``views`` is below 1, or the rows are no multiple of it.
    """
    array = _checked_logits(logits, "model")
    if views < 1 or len(array) % views:
        raise DatasetError(
            f"There are {len(array)} rows of logits and {views} views per video; expected at least 1, and as many "
            f"rows for each video. Pass all views of every video."
        )
    means = np.empty((len(array) // views, array.shape[1]))
    at_once = max(1, _ROWS_AT_ONCE // views)
    for first in range(0, len(means), at_once):
        logs = softmax_log(array[first * views : (first + at_once) * views]).reshape(-1, views, array.shape[1])
        highest = logs.max(axis=1)
        means[first : first + at_once] = highest + np.log(np.exp(logs - highest[:, None]).mean(axis=1))
    return means


def evaluate_logits(
    student_logits: ArrayLike,
    labels: ArrayLike | None = None,
    teacher_logits: ArrayLike | None = None,
) -> dict[str, float | None]:
    """Score a student, and its teacher if there is one, on one evaluation set. Ours.

    Of equal logits the class with the lowest number counts as the first guess, as in ``argmax``.

    Args:
        student_logits: ``[samples, classes]``, finite.
        labels: The true classes, integers ``[samples]`` in [0, classes), or ``None`` for a set without
            labels.
        teacher_logits: ``[samples, classes]`` of the same samples in the same order, or ``None``. A teacher
            that gives probabilities p passes log(max(p, 1e-7)).

    Returns:
        A dict that always has these keys, ``None`` where one has no meaning:

        - ``teacher_top1``, ``student_top1``: share of samples whose first guess is right, in [0, 1].
        - ``teacher_top5``, ``student_top5``: share whose true class is among the first five guesses, in
          [0, 1]; ``None`` for five classes or fewer.
        - ``agreement``: share of samples on which both have the same first guess, in [0, 1].
        - ``kl``: mean over the samples of KL(teacher‖student) at τ = 1, in nats, at least 0.
        - ``ece``: expected calibration error of the student over 15 confidence bins of equal width, in
          [0, 1].

    Raises:
        TeacherError: Logits that are not finite, not ``[samples, classes]``, or of another shape than the
            other's.
        DatasetError: No samples, or labels that are not one integer in [0, classes) per sample.
    """
    student = _checked_logits(student_logits, "student")
    teacher = None if teacher_logits is None else _checked_logits(teacher_logits, "teacher")
    if teacher is not None and teacher.shape != student.shape:
        raise TeacherError(
            f"The teacher's logits have shape {list(teacher.shape)}, the student's {list(student.shape)}; "
            f"both must be [samples, classes] of the same samples and classes. Evaluate both on the same "
            f"set, and give the student as many classes as the teacher has."
        )
    samples, classes = student.shape
    truth = None if labels is None else _checked_labels(labels, samples, classes, "labels")

    sums = {key: 0.0 for key in METRIC_KEYS}
    bins = np.zeros(CALIBRATION_BINS)
    for rows in _pieces(samples):
        student_log = softmax_log(student[rows])
        if teacher is not None:
            teacher_log = softmax_log(teacher[rows])
            sums["agreement"] += float((student[rows].argmax(1) == teacher[rows].argmax(1)).sum())
            sums["kl"] += float((np.exp(teacher_log) * (teacher_log - student_log)).sum())
        if truth is not None:
            ranks = _ranks(student[rows], truth[rows])
            sums["student_top1"] += float((ranks < 1).sum())
            sums["student_top5"] += float((ranks < 5).sum())
            confidence = np.exp(student_log.max(axis=1))
            bins += np.bincount(
                calibration_bin(confidence), weights=(ranks < 1) - confidence, minlength=CALIBRATION_BINS
            )
            if teacher is not None:
                ranks = _ranks(teacher[rows], truth[rows])
                sums["teacher_top1"] += float((ranks < 1).sum())
                sums["teacher_top5"] += float((ranks < 5).sum())
    sums["ece"] = min(float(np.abs(bins).sum()), float(samples))
    # Rounding can leave the divergence of two equal distributions a hair below zero.
    sums["kl"] = max(sums["kl"], 0.0)

    has_meaning = {
        "teacher_top1": truth is not None and teacher is not None,
        "student_top1": truth is not None,
        "teacher_top5": truth is not None and teacher is not None and classes > 5,
        "student_top5": truth is not None and classes > 5,
        "agreement": teacher is not None,
        "kl": teacher is not None,
        "ece": truth is not None,
    }
    return {key: sums[key] / samples if has_meaning[key] else None for key in METRIC_KEYS}


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count how often each true class was taken for each class.

    Args:
        labels: The true classes, integers ``[samples]`` in [0, classes).
        predictions: The guessed classes, integers ``[samples]`` in [0, classes).
        classes: Number of classes.

    Returns:
        int64 ``[classes, classes]``: rows are the truth, columns the guesses.

    Raises:
        DatasetError: Labels or predictions that are not one integer in [0, classes) per sample.
    """
    labels = np.asarray(labels)
    truth = _checked_labels(labels, labels.size, classes, "labels")
    guesses = _checked_labels(predictions, labels.size, classes, "predictions")
    counts = np.bincount(truth * classes + guesses, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class_accuracy(confusion: ArrayLike) -> NDArray[np.float64]:
    """Return the share of each class's samples that were recognised.

    Args:
        confusion: Counts ``[classes, classes]``, rows are the truth, as ``confusion_matrix`` gives them.

    Returns:
        float64 ``[classes]`` in [0, 1]; NaN for a class without samples.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    totals = counts.sum(axis=1)
    return np.divide(np.diag(counts), totals, out=np.full(len(counts), np.nan), where=totals > 0)


class ClassAccuracies(NamedTuple):
    """How well each class is recognised.

    Attributes:
        samples: int64 ``[classes]``: how many there are.
        student: float64 ``[classes]``: share of them that the student names, in [0, 1]; NaN for a class without any.
        teacher: the same of the teacher; ``None`` without one.
    """

    samples: NDArray[np.int64]
    student: NDArray[np.float64]
    teacher: NDArray[np.float64] | None


def class_accuracies(
    labels: ArrayLike, student_classes: ArrayLike, teacher_classes: ArrayLike | None, classes: int
) -> ClassAccuracies:
    """Compare student and teacher class by class.

    Args:
        labels: The true classes, integers ``[samples]`` in [0, classes).
        student_classes: The student's guesses, integers ``[samples]`` in [0, classes).
        teacher_classes: The teacher's, or ``None``.
        classes: Number of classes.

    Raises:
        DatasetError: Labels or guesses that are not one integer in [0, classes) per sample.
    """
    confusion = confusion_matrix(labels, student_classes, classes)
    teacher = (
        None if teacher_classes is None else per_class_accuracy(confusion_matrix(labels, teacher_classes, classes))
    )
    return ClassAccuracies(confusion.sum(axis=1), per_class_accuracy(confusion), teacher)


def calibration_bin(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of 15 bins of equal width in [0, 1] each is in, open below and closed above (Guo et al. 2017)."""
    return np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)


def _pieces(samples: int) -> Iterator[slice]:
    for start in range(0, samples, _ROWS_AT_ONCE):
        yield slice(start, start + _ROWS_AT_ONCE)


def _ranks(logits: NDArray, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many classes stand before the true one: 0 for a right first guess, int64 ``[samples]``."""
    true_logit = np.take_along_axis(logits, labels[:, None], axis=1)
    equal_and_earlier = (logits == true_logit) & (np.arange(logits.shape[1]) < labels[:, None])
    return ((logits > true_logit) | equal_and_earlier).sum(axis=1)


def _checked_logits(logits: ArrayLike, whose: str) -> NDArray:
    array = np.asarray(logits)
    if array.ndim != 2 or array.shape[1] == 0:
        raise TeacherError(
            f"The {whose}'s logits have shape {list(array.shape)}; expected [samples, classes]. "
            f"Pass one row of class scores per sample."
        )
    if len(array) == 0:
        raise DatasetError(
            f"There are no samples to evaluate the {whose} on (logits of shape {list(array.shape)}); "
            f"expected at least one. Check the split and the folder of the evaluation set."
        )
    for rows in _pieces(len(array)):
        # Half precisions are widened first: NumPy cannot tell whether a bfloat16 is finite on every version.
        finite = np.isfinite(array[rows].astype(np.float64)).all(axis=1)
        if not finite.all():
            first = rows.start + int(np.argmin(finite))
            raise TeacherError(
                f"The {whose}'s logits hold NaN or infinity, first at sample {first}; expected finite "
                f"numbers. Check the {whose}'s weights and that its input is in the range its card asks for."
            )
    # The half precisions also compare and sort slowly or not at all.
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _checked_labels(labels: ArrayLike, samples: int, classes: int, what: str) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.shape != (samples,):
        raise DatasetError(
            f"The {what} have shape {list(array.shape)}; expected [{samples}], one class number per sample. "
            f"One-hot rows become class numbers by argmax."
        )
    if samples and not np.issubdtype(array.dtype, np.integer):
        raise DatasetError(f"The {what} are {array.dtype}; expected integers in [0, {classes}).")
    wrong = (array < 0) | (array >= classes)
    if wrong.any():
        raise DatasetError(
            f"The {what} hold class {array[wrong][0]}; expected [0, {classes}), because the network has "
            f"{classes} classes. Use a network with as many classes as the evaluation set."
        )
    return array.astype(np.int64)
