"""What a teacher made of a model must state about it, in either backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.errors import TeacherError
from bridge.teachers.card import CHOICES

SMALLEST_PROBABILITY = 1e-7
LARGEST_DIFFERENCE = 1e-3
"""Between two forms of a network, relative to the largest score; rounding stays far below. Ours."""


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
