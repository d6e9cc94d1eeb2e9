"""Stored answers in training: what they belong to, and which of them is shown when."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from bridge.answers import AnswerStore, order
from bridge.datum.mixing import Mixing
from bridge.datum.steps import Shown
from bridge.datum.views import SampleSet
from bridge.errors import ConfigError


def identity_of(teacher: Any, view_set: SampleSet, mixing: Mixing, seed: int) -> dict[str, Any]:
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


def replay(store: AnswerStore, seed: int) -> Shown:
    """Which of the stored batches is shown at which steps: every epoch all of them, in another order."""
    return partial(_shown, seed, store.steps)  # which processes that draw views can be sent


def _shown(seed: int, stored: int, steps: np.ndarray) -> np.ndarray:
    epochs, places = np.divmod(steps, stored)
    return np.array([order(seed, int(e), stored)[p] for e, p in zip(epochs, places)], dtype=np.int64)
