"""The `sweep` command: what this backend can refuse before a grid of distillations starts."""

from __future__ import annotations

import contextlib

import keras
import tensorflow as tf

from bridge.config import DistillConfig, SweepConfig
from bridge.datum.masks import Masks
from bridge.datum.mixing import Mixing
from bridge.sweep import Outcome
from bridge.sweep import sweep as run_sweep
from bridge.sweep.inspection import inspector
from keras_aip.distill import make_student
from keras_aip.distiller import Distiller
from keras_aip.teacher import Teacher
from keras_aip.teachers import load_teacher


def sweep(config: SweepConfig) -> list[Outcome]:
    """Run or resume a sweep, every run by `python -m keras_aip distill` in a process of its own.

    Args:
        config: resolved options.

    Returns:
        What became of every run.

    Raises:
        AipError: of the kind that names what is wrong; a RunError if some of the runs failed.
    """
    # This process only looks on: memory it took on an accelerator would be missing in the runs.
    with contextlib.suppress(RuntimeError):  # TensorFlow has begun in this process
        tf.config.set_visible_devices([], "GPU")
    return run_sweep(config, "keras_aip", inspector(load_teacher, make_student, _distiller))


def _distiller(run: DistillConfig, student: keras.Model, teacher: Teacher, mixing: Mixing) -> Distiller:
    return Distiller(student, teacher, run.temperature, run.loss, mixing, masks=Masks(run.spec_augment))
