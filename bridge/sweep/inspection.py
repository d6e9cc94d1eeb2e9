"""What a backend can refuse before a grid of distillations starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.config import DistillConfig
from bridge.preparing import made_for
from bridge.recipe_choice import mixing_of, recipe_of


def inspector(
    load_teacher: Callable[..., Any], make_student: Callable[..., Any], distiller: Callable[..., Any]
) -> Callable[[DistillConfig], Mapping[str, str | None]]:
    """What `sweep` asks of every run: each teacher is loaded once, each kind of student built once.

    Args:
        load_teacher, make_student: those of the backend, which refuse what cannot work (an AipError).
        distiller: the same, (run, student, teacher, mixing) → a Distiller.

    Returns:
        A function that gives the hash of a run's teacher, which must be the same when the sweep is resumed.
    """
    teachers: dict[tuple[str, str], Any] = {}
    seen: set[tuple[Any, ...]] = set()

    def inspect(run: DistillConfig) -> dict[str, str | None]:
        name = str(run.teacher)
        asked = (name, run.dataset)
        if asked not in teachers:
            teachers[asked] = load_teacher(name, dataset=run.dataset)
        teacher = teachers[asked]
        student = (run.student, run.student_width, run.student_depth, run.student_dtype)
        mixing = (run.mixing, run.mixing_alpha, run.mixing_per, run.mixing_on, run.spec_augment)
        views = (run.recipe, run.without, run.image_size, run.frames, run.motion, run.patches)
        what = (*asked, run.loss, *mixing, *student, *views)
        if what not in seen:
            seen.add(what)
            sizes = made_for(run, teacher)
            built = make_student(run, teacher.classes or 0, sizes)
            distiller(run, built, teacher, mixing_of(run, recipe_of(run, sizes)))
        return {f"teacher {name} for {run.dataset}": teacher.digest}

    return inspect
