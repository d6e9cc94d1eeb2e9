"""What a distiller looks at before any work is lost: one batch, its rate, and how it is shared out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.datum.mixing import Mixing
from bridge.errors import ConfigError, DatasetError, TeacherError
from keras_aip import models
from keras_aip.teacher import Teacher


def check_batch(views: tf.Tensor, teacher: Teacher, student: keras.Model, eager: bool = False) -> None:
    """Refuse a batch that teacher and student cannot both be asked about; see `Distiller.check`.

    Args:
        views: the batch.
        teacher, student: of the distiller.
        eager: the step goes through Python, where any function may be a teacher.
    """
    sounds = views.shape.rank == 2
    if views.dtype != tf.float32 or views.shape.rank not in (2, 4):
        raise DatasetError(
            "Views must be float32, images [batch, height, width, channels] in [0, 1] or waveforms [batch, samples] in "
            f"[-1, 1]; got {views.dtype.name} {list(views.shape)}. Divide 8-bit images by 255, 16-bit sounds by "
            "32,768, and drop labels with .map."
        )
    low, high = float(tf.reduce_min(views)), float(tf.reduce_max(views))
    lowest = -1 if sounds else 0
    if not (low >= lowest - 1e-3 and high <= 1 + 1e-3):
        raise DatasetError(
            f"Views must lie in [{lowest}, 1]; got values from {low:.3g} to {high:.3g}. "
            + ("Divide 16-bit sounds by 32,768" if sounds else "Divide 8-bit images by 255")
            + "; normalisation belongs to the models."
        )
    taken = None if teacher.input_size is None else tuple(teacher.input_size)
    sizes = {
        "views": tuple(views.shape[1:]),
        "teacher": (*taken, None) if taken and len(taken) == 2 else taken,
        "student": _expected_shape(student),
    }
    if any(not _fits(sizes["views"], shape) for shape in sizes.values()):
        axes = "[samples]" if sounds else "[height, width, channels]"
        how = "seconds and rate" if sounds else "image_size"
        raise TeacherError(
            f"Views, teacher and student must agree on {axes}; got "
            + ", ".join(f"{name} {list(shape) if shape else 'any'}" for name, shape in sizes.items())
            + f". Nothing is resized silently: make the views with {how} of the teacher and build the student for it."
        )
    if not eager:
        teacher.find_out(views)
    guesses = student(views, training=False)
    # One who is asked is not asked twice, and nothing about which no student learns.
    answers = teacher(views) if teacher.asked is None else tf.zeros([len(views), teacher.classes or 0])
    if answers.shape[-1] != guesses.shape[-1]:
        raise TeacherError(
            f"Teacher and student must have the same classes; the teacher answers with {list(answers.shape)}, the "
            f"student with {list(guesses.shape)}. Build the student with classes={answers.shape[-1]}."
        )
    if not np.isfinite(answers.numpy()).all():
        raise TeacherError(
            f"The teacher's answers on the first {len(views)} views hold NaN or infinity; expected finite "
            f"{teacher.outputs}. Check its weights and whether it wants views in [{lowest}, 1]."
        )


def check_rate(views: Any, teacher: Teacher, student: keras.Model) -> None:
    """Refuse sounds at another rate than teacher or student hear them: only their length would be seen to agree.

    Args:
        views: a data set of `single_audio_dataset`; any other one says nothing of its rate.
        teacher, student: of a `Distiller`.

    Raises:
        TeacherError: naming all three.
    """
    rates = {
        "views": getattr(getattr(getattr(views, "view_set", None), "recipe", None), "rate", None),
        "teacher": teacher.rate,
        "student": (models.architecture_of(student) or {}).get("arguments", {}).get("rate"),
    }
    if len({rate for rate in rates.values() if rate is not None}) > 1:
        raise TeacherError(
            "Views, teacher and student must agree on the rate; got "
            + ", ".join(f"{name} {'any' if rate is None else f'{rate} Hz'}" for name, rate in rates.items())
            + ". Make the views with rate of the teacher, and build the student for it."
        )


def check_shares(shape: tf.TensorShape, mixing: Mixing, replicas: int, jit_compile: bool) -> None:
    """Refuse batches that replicas cannot share: a partner on another one cannot be reached.

    Some devices would quietly answer with zeros.

    Args:
        shape: of a batch.
        mixing: of the step.
        replicas: that train together.
        jit_compile: whether the step is compiled.

    Raises:
        ConfigError: naming both sides.
    """
    if replicas == 1:
        return
    devices = tf.config.list_logical_devices
    if jit_compile and not devices("GPU") and not devices("TPU"):
        raise ConfigError(
            f"jit_compile=True cannot work with {replicas} replicas on processors alone: XLA's programs would wait "
            "for each other. Leave it off, or use one device."
        )
    rows = shape[0] if shape.rank else None
    if rows is None:
        raise ConfigError(
            f"With {replicas} replicas every batch must have the same, known size; the data set's may differ. Make "
            "it with .batch(size, drop_remainder=True)."
        )
    block = 1 if mixing.kind == "none" else mixing.block
    if rows % (replicas * block):
        raise ConfigError(
            f"Each of {replicas} replicas must hold whole blocks of mixing partners; got {rows} rows per step and "
            f"blocks of {block}. Make the batch a multiple of {replicas * block}, or choose "
            "Distiller(..., mixing=Mixing(..., block=...))."
        )


def _expected_shape(model: Any) -> tuple[int | None, ...] | None:
    """[height, width, channels] or [samples] a model was built for, None where it takes any."""
    shape = getattr(model, "input_shape", None)
    return tuple(shape[1:]) if isinstance(shape, tuple) and len(shape) in (2, 4) else None


def _fits(given: tuple[int, ...], expected: tuple[int | None, ...] | None) -> bool:
    return expected is None or (
        len(given) == len(expected) and all(want is None or have == want for have, want in zip(given, expected))
    )
