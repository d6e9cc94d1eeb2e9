"""Stored teacher answers: a fixed set of mixed batches, each of which the teacher answers once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from bridge.answers import AnswerStore
from bridge.datum.mixing import Mixing, MixingNumbers
from bridge.errors import ConfigError
from bridge.replay import identity_of, remember
from keras_aip.feed import feed
from keras_aip.hosts import number_of_hosts
from keras_aip.mixing import mix
from keras_aip.teacher import Teacher

_SECONDS_BETWEEN_FLUSHES = 5.0


def answered(
    folder: str | Path,
    teacher: Teacher,
    views: Any,
    mixing: Mixing,
    seed: int,
    steps: int,
    *,
    progress: Callable[[int], object] | None = None,
) -> AnswerStore:
    """Let the teacher answer the first `steps` mixed batches of a run, or find that it has.

    The store fits every student, loss and temperature, and only this teacher, datum, recipe, mixing, seed and batch
    size. Killed, it goes on behind the last answers that reached the disk; of one who is `Asked`, these are all that
    came.

    Args:
        folder: of the store.
        teacher: who answers.
        views: a data set of `single_image_dataset` or `single_audio_dataset`, as it came.
        mixing, seed: as in `Distiller`.
        steps: fixed batches, those of one epoch.
        progress: called with the number of steps answered so far.

    Returns:
        The complete store.

    Raises:
        RunError: the folder holds the answers to something else, or cannot be written.
        ConfigError: the views are not those of one datum, or several hosts meet an incomplete store.
    """
    if not hasattr(views, "view_set"):
        raise ConfigError(
            "Stored answers need the data set of single_image_dataset(...) or single_audio_dataset(...) as it came: "
            "only its views can be drawn again. Pass it without .map, .take and the like."
        )
    identity = identity_of(teacher, views.view_set, mixing, seed)
    remember(teacher, folder, steps, views.batch_size)
    alone = number_of_hosts(tf.distribute.get_strategy()) == 1
    store = AnswerStore.open(
        folder, identity=identity, steps=steps, batch=views.batch_size, classes=teacher.classes or 0, create=alone
    )
    if not store.missing:
        return store
    if not alone:
        store.close()
        raise ConfigError(f"{folder} is not complete yet; let one host alone finish it before several read it.")
    with store:
        _answer(store, teacher, views, mixing, seed, progress)
    return store


def _answer(
    store: AnswerStore,
    teacher: Teacher,
    views: Any,
    mixing: Mixing,
    seed: int,
    progress: Callable[[int], object] | None,
) -> None:
    first = store.missing.start
    again = views.redrawn(start_step=first, render="host")
    shown = tf.function(lambda step: mix(step["views"], MixingNumbers(*step["mixing"])))
    ask = tf.function(lambda step: teacher(shown(step)))
    if teacher.asked is not None:
        ask = lambda step: teacher(shown(step))  # noqa: E731
    flushed = time.monotonic()
    batches = feed(again, mixing, seed, first, tf.distribute.get_strategy()).take(len(store.missing))
    for number, batch in enumerate(batches, start=first):
        store.write(number, ask(batch).numpy())
        if progress is not None:
            progress(number + 1)
        if time.monotonic() - flushed > _SECONDS_BETWEEN_FLUSHES:
            store.flush()
            flushed = time.monotonic()
