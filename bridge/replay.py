"""Stored answers in training: what they belong to, and which of them is shown when."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bridge.answers import AnswerStore, order
from bridge.datum.mixing import Mixing
from bridge.datum.steps import Shown
from bridge.datum.views import CountedSet
from bridge.errors import ConfigError
from bridge.teachers.asking import check_budget


def identity_of(teacher: Any, view_set: CountedSet, mixing: Mixing, seed: int) -> dict[str, Any]:
    """What must be the same for stored answers to be used again, beside the number and size of the batches.

    Args:
        teacher: of either backend.
        view_set, mixing: what it answers.
        seed: of the mixing.

    Raises:
        ConfigError: the teacher cannot be told from others.
    """
    if teacher.classes is None or teacher.digest is None:
        raise ConfigError(
            "Stored answers need a teacher that can be told from others; give Teacher(..., digest=…, classes=…)."
        )
    return {
        "teacher": teacher.digest,
        "outputs": teacher.outputs,
        "teacher_dtype": teacher.dtype,
        "datum": view_set.source.sha256,
        "recipe": view_set.recipe.digest,
        "views": view_set.views,
        "seed": view_set.seed,
        "mixing": dataclasses.asdict(mixing),
        "mixing_seed": seed,
    }


def require_store(teacher: Any, store_teacher: Any) -> None:
    """Refuse to train with a teacher who is asked outside of steps, if its answers are not stored.

    Raises:
        ConfigError: where to store them is not said.
    """
    if teacher.asked is not None and store_teacher is None:
        raise ConfigError(
            f"{teacher.asked.name} is no network that a training step could compute, and a step must not wait for it. "
            "Say where its answers are to be stored: fit(..., store_teacher=FOLDER) (--store-teacher FOLDER)."
        )


def remember(teacher: Any, folder: str | Path, steps: int, batch: int) -> None:
    """Let a teacher who is asked outside of steps look up and log its answers in the store's folder; before it is made.

    Raises:
        ConfigError: its budget is less than the views.
        RunError: the log cannot be read.
    """
    if teacher.asked is not None:
        check_budget(teacher.asked.budget, steps, batch)
        teacher.asked.remember(folder)


def first_guesses(
    folder: str | Path, teacher: Any, view_set: CountedSet, mixing: Mixing, seed: int, steps: int, batch: int, most: int
) -> np.ndarray:
    """The classes a teacher gave to the first of the stored views: int64 [up to most, by whole batches].

    Raises:
        RunError: the folder holds no such answers.
    """
    identity = identity_of(teacher, view_set, mixing, seed)
    store = AnswerStore.open(folder, identity=identity, steps=steps, batch=batch, classes=teacher.classes, create=False)
    return np.concatenate([store.read(step).argmax(-1) for step in range(min(steps, max(1, most // batch)))])


def replay(store: AnswerStore, seed: int) -> Shown:
    """Which of the stored batches is shown at which steps: every epoch all of them, in another order."""
    return partial(_shown, seed, store.steps)  # which processes that draw views can be sent


def _shown(seed: int, stored: int, steps: np.ndarray) -> np.ndarray:
    epochs, places = np.divmod(steps, stored)
    return np.array([order(seed, int(e), stored)[p] for e, p in zip(epochs, places)], dtype=np.int64)
