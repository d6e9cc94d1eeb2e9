"""The `sweep` command: what this backend can refuse before a grid of distillations starts."""

from __future__ import annotations

from torch import nn

from bridge.config import DistillConfig, SweepConfig
from bridge.datum.mixing import Mixing
from bridge.sweep import Outcome
from bridge.sweep import sweep as run_sweep
from bridge.sweep.inspection import inspector
from torch_aip.distill import make_student
from torch_aip.distiller import Distiller
from torch_aip.launch import refuse_several
from torch_aip.teacher import Teacher
from torch_aip.teachers import load_teacher


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
    return run_sweep(config, "torch_aip", inspector(load_teacher, make_student, _distiller))


def _distiller(run: DistillConfig, student: nn.Module, teacher: Teacher, mixing: Mixing) -> Distiller:
    return Distiller(student, teacher, run.temperature, run.loss, mixing)
