"""What a backend can refuse before a grid of distillations starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.config import DistillConfig
from bridge.preparing import made_for


def inspector(
    load_teacher: Callable[..., Any], make_student: Callable[..., Any], distiller: Callable[..., Any]
) -> Callable[[DistillConfig], Mapping[str, str | None]]:
    """What `sweep` asks of every run: each teacher is loaded once, each kind of student built once.

    Args:
        load_teacher, make_student, distiller: those of the backend, which refuse what cannot work (an AipError).

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
        what = (*asked, run.loss, run.mixing, *student, run.image_size, run.frames, run.motion, run.patches)
        if what not in seen:
            seen.add(what)
            built = make_student(run, teacher.classes or 0, made_for(run, teacher))
            distiller(built, teacher, run.temperature, run.loss, run.mixing)
        return {f"teacher {name} for {run.dataset}": teacher.digest}

    return inspect
