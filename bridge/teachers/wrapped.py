"""What a teacher made of a model must state about it and when two forms of it are one, in either backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bridge.errors import TeacherError
from bridge.teachers.card import CHOICES

SMALLEST_PROBABILITY = 1e-7
LARGEST_DIFFERENCE = 1e-3
"""Between two forms of a network, relative to the largest score; rounding stays far below. Ours."""
_SMALLEST_SCALE = 1e-6  # what is smaller still is compared as if it were this large; ours


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """max|a−b| / max|a| of two arrays of one shape; infinite where either holds what is not finite.

    Args:
        a: What is right; where all of it is smaller than 1e-6, it is compared as if it reached that.
        b: What is held against it.
    """
    if a.size == 0:
        return 0.0
    # float64: class numbers may be unsigned.
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        found = float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), _SMALLEST_SCALE))
    return found if np.isfinite(found) else float("inf")


def check_statements(outputs: str, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Refuse what cannot be said of any model.

    Raises:
        TeacherError: ``outputs`` is unknown, or ``mean`` and ``std`` do not go together.
    """
    if outputs not in CHOICES["outputs"]:
        raise TeacherError(f"outputs={outputs!r} must be one of {', '.join(CHOICES['outputs'])}.")
    if (mean is None) != (std is None):
        raise TeacherError("Give mean and std together, or neither where the model normalises by itself.")
    if mean is not None and std is not None and (len(mean) != len(std) or min(std) <= 0):
        raise TeacherError(f"mean={mean!r} and std={std!r} must be equally long, with every std above 0.")


def number_of_classes(told: Mapping[str, int | None], outputs: str) -> int | None:
    """The number of classes on which all who know one agree.

    Args:
        told: Who says so -> how many; None: does not know.
        outputs: What the model gives.

    Raises:
        TeacherError: They contradict each other, or nobody knows and ``outputs`` are class numbers.
    """
    known = {what: count for what, count in told.items() if count is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{what}: {count}" for what, count in known.items())
        raise TeacherError(f"The number of classes is contradictory ({listed}). Correct the wrong one.")
    found = next(iter(known.values()), None)
    if found is None and outputs == "labels":
        raise TeacherError("A teacher that answers with class numbers needs classes=…, how many there are.")
    return found
