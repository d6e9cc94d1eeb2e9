"""How well each class is recognised, as rows of a page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.html import number, percent
from bridge.metrics import ClassAccuracies

LISTED_CLASSES, WORST_CLASSES = 100, 20
"""How many classes are all listed, and how many of more."""


def class_table(scores: ClassAccuracies, names: list[str]) -> dict[str, Any]:
    """A row for each class, the student's worst first; classes without samples come last, or not at all."""
    classes = len(scores.samples)
    order = np.argsort(np.where(scores.samples > 0, scores.student, 2.0), kind="stable")
    measured = int((scores.samples > 0).sum())
    if classes > LISTED_CLASSES:
        order = order[: min(WORST_CLASSES, measured)]

    def share(values: NDArray[np.float64] | None, place: int) -> tuple[str, float | None]:
        value = math.nan if values is None else float(values[place])
        return percent(value), None if math.isnan(value) else round(100 * value, 2)

    rows = [
        {
            "name": names[c],
            "count": number(int(scores.samples[c])),
            "student": share(scores.student, c),
            "teacher": share(scores.teacher, c),
        }
        for c in order
    ]
    return {
        "rows": rows,
        "teacher": scores.teacher is not None,
        "of": number(measured) if len(rows) < classes else None,
    }
