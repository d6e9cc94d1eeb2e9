"""Stored teacher answers: a fixed set of mixed batches, each of which the teacher answers once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bridge.answers import AnswerStore
from bridge.datum.mixing import Mixing
from bridge.datum.steps import Numbers
from bridge.errors import ConfigError
from bridge.replay import identity_of, remember
from torch_aip.feed import feed
from torch_aip.launch import world_size
from torch_aip.mixing import mix
from torch_aip.stream import ahead
from torch_aip.teacher import Teacher
from torch_aip.views import ViewLoader

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
        views: a loader of `single_image_loader`, as it came.
        mixing, seed: as in `Distiller`.
        steps: fixed batches, those of one epoch.
        progress: called with the number of steps answered so far.

    Returns:
        The complete store.

    Raises:
        RunError: the folder holds the answers to something else, or cannot be written.
        ConfigError: the views are not those of one datum, or several processes meet an incomplete store.
    """
    if not isinstance(views, ViewLoader):
        raise ConfigError(
            "Stored answers need the loader of single_image_loader(...) as it came: only its views can be drawn "
            "again. Pass it unwrapped."
        )
    identity = identity_of(teacher, views.view_set, mixing, seed)
    remember(teacher, folder, steps, views.batch_size)
    alone = world_size() == 1
    store = AnswerStore.open(
        folder, identity=identity, steps=steps, batch=views.batch_size, classes=teacher.classes or 0, create=alone
    )
    if not store.missing:
        return store
    if not alone:
        store.close()
        raise ConfigError(f"{folder} is not complete yet; let one process alone finish it before several read it.")
    with store:
        _answer(store, teacher, views, mixing, seed, progress)
    return store


def _answer(
    store: AnswerStore,
    teacher: Teacher,
    views: ViewLoader,
    mixing: Mixing,
    seed: int,
    progress: Callable[[int], object] | None,
) -> None:
    first, device = store.missing.start, teacher.device
    again = type(views)(views.view_set, views.batch_size, start_step=first, render=views.render, workers=views.workers)
    renderer = again.renderer.to(device)
    flushed = time.monotonic()
    batches = ahead(feed(again, mixing, seed, first))
    try:
        for number in store.missing:
            step = next(batches).to(device)
            with torch.no_grad():
                images = renderer(step.views) if isinstance(step.views, Numbers) else step.views
                store.write(number, teacher(mix(images, step.mixing)).cpu().numpy())
            if progress is not None:
                progress(number + 1)
            if time.monotonic() - flushed > _SECONDS_BETWEEN_FLUSHES:
                store.flush()
                flushed = time.monotonic()
    finally:
        batches.close()
