"""The `sweep` command: what this backend can refuse before a grid of distillations starts."""

from __future__ import annotations

from typing import Any

from bridge.config import DistillConfig, SweepConfig
from bridge.sweep import Outcome
from bridge.sweep import sweep as run_sweep
from torch_aip.distill import make_student
from torch_aip.distiller import Distiller
from torch_aip.launch import refuse_several
from torch_aip.teachers import Teacher, load_teacher


def sweep(config: SweepConfig) -> list[Outcome]:
    """Run or resume a sweep, every run by `python -m torch_aip distill` in a process of its own.

    Args:
        config: resolved options.

    Returns:
        What became of every run.

    Raises:
        AipError: of the kind that names what is wrong; a RunError if some of the runs failed.
    """
    refuse_several("sweep")
    teachers: dict[tuple[str, str], Teacher] = {}
    seen: set[tuple[Any, ...]] = set()

    def inspect(run: DistillConfig) -> dict[str, str | None]:
        name = str(run.teacher)
        asked = (name, run.dataset)
        if asked not in teachers:
            teachers[asked] = load_teacher(name, dataset=run.dataset)
        teacher = teachers[asked]
        what = (*asked, run.loss, run.mixing, run.student, run.student_width, run.student_dtype, run.image_size)
        if what not in seen:
            seen.add(what)
            size = run.image_size or (teacher.input_size[0] if teacher.input_size else 32)
            student = make_student(run, teacher.classes or 0, size)
            Distiller(student, teacher, run.temperature, run.loss, run.mixing)
        return {f"teacher {name} for {run.dataset}": teacher.digest}

    return run_sweep(config, "torch_aip", inspect)
