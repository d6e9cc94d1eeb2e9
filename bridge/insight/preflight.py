"""Looking a teacher over before hours are spent on it: only what a few hundred answers tell for certain."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.config import DistillConfig
from bridge.datum.audio import AudioSet, make_audio_set
from bridge.datum.render import render
from bridge.datum.views import CountedSet
from bridge.errors import ConfigError, TeacherError
from bridge.insight import checks
from bridge.insight.checks import Facts, Finding
from bridge.insight.options import InspectConfig
from bridge.insight.score import Ask, view_set_of
from bridge.measuring import rows_at_once
from bridge.preparing import Prepared
from bridge.teachers.card import Card
from bridge.teachers.remote import is_address
from bridge.teachers.shelf import find_folder

_FRESH = 2**40 + 2**39
_BATCH = 32
"""Views per question; of large clips fewer."""
_PATIENCE = 6.0
"""Seconds after which no further check begins."""


def facts_of(teacher: Any, name: str, dataset: str | None = None, temperature: float | None = None) -> Facts:
    """What a backend's teacher and its card say.

    Args:
        teacher: says `outputs` and `asked`.
        name: folder, name or address it was loaded by.
        dataset: it was wanted for.
        temperature: that the distillation will use.
    """
    source, mean, std = name, None, None
    if not is_address(name):
        try:
            card = Card.load(find_folder(name, dataset))
        except TeacherError:  # one out of a library
            pass
        else:
            source = f"{name} {card.source} {card.architecture or ''}"
            mean = card.mean or card.arguments.get("mean")
            std = card.std or card.arguments.get("std")
    return Facts(
        name, teacher.outputs, source, None if mean is None else tuple(mean), None if std is None else tuple(std),
        temperature, teacher.asked is not None,
    )  # fmt: skip


def check_inspect(config: InspectConfig) -> None:
    """Refuse a line that names no teacher, or both an image and a sound, before anything is loaded.

    Raises:
        ConfigError: saying which.
    """
    if config.teacher is None:
        raise ConfigError("Which teacher? Give --teacher FOLDER.")
    if config.image is not None and config.audio is not None:
        raise ConfigError(f"--image {config.image} and --audio {config.audio}: a teacher takes one of them.")


def shown(found: Sequence[Finding]) -> str:
    """Findings as lines of text; an error is raised, so that the command fails.

    Raises:
        TeacherError: nothing can be learned from the teacher.
    """
    if wrong := next((finding for finding in found if finding.level == "error"), None):
        raise TeacherError(wrong.text)
    return "\n".join(f"{finding.level:8s} {finding.text}" for finding in found)


def inspect_by(
    config: InspectConfig, teacher: Any, ask: Ask, audio_set: Callable[..., AudioSet] = make_audio_set
) -> list[Finding]:
    """What the command does with a backend's teacher; arguments as of `bridge.insight.score.score`.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    sounds = len(teacher.input_size or ()) == 1
    if (config.image if sounds else config.audio) is not None:
        takes, option = ("sounds", "--image") if sounds else ("images", "--audio")
        raise ConfigError(f"{config.teacher} takes {takes}; leave {option} out.")
    source = (config.audio or "control:noise") if sounds else (config.image or "sklearn:china.jpg")
    view_set = view_set_of(config, teacher, source, audio_set)
    return inspect(ask, view_set, facts_of(teacher, str(config.teacher), config.dataset), config.views)


def preflight(ask: Ask, view_set: CountedSet, facts: Facts | None = None, views: int = 256) -> list[Finding]:
    """What is done before every distillation: warns of what is probably wrong, and refuses what teaches nothing.

    Args:
        ask: the teacher: float32 views → float32 [batch, classes] in log space.
        view_set: of the distillation.
        facts: what is said about the teacher.
        views: at most; a slow teacher is asked about fewer.

    Returns:
        All findings, also those that are no warnings.

    Raises:
        TeacherError: it answers with what is no number, or all inputs alike.
    """
    found = inspect(ask, view_set, facts, views)
    for finding in found:
        if finding.level == "error":
            raise TeacherError(finding.text)
        if finding.level == "warning":
            warnings.warn(finding.text, stacklevel=2)
    return found


def look_over(config: DistillConfig, prepared: Prepared, ask: Ask) -> None:
    """Ask the teacher about a few views before hours are spent on it; warn of what looks wrong.

    Not again where a run is resumed, on hosts that follow, of a service, whose every answer counts, or with `smoke`.

    Args:
        config: resolved options.
        prepared: what it asks whom.
        ask: the backend's `insight.ask_of` the teacher.

    Raises:
        TeacherError: nothing can be learned from it: its answers are NaN, or always the same.
    """
    if prepared.test is None or config.resume or config.smoke or prepared.teacher.asked is not None:
        return
    taken = tuple(prepared.teacher.input_size or ())
    if prepared.view_set.recipe.shape[: len(taken)] != taken:
        return  # the distiller says so, naming the sizes of all three
    facts = facts_of(prepared.teacher, str(config.teacher), config.dataset, config.temperature)
    preflight(ask, prepared.view_set, facts)


def inspect(ask: Ask, view_set: CountedSet, facts: Facts | None = None, views: int = 256) -> list[Finding]:
    """Everything that can be told about a teacher; arguments as of `preflight`, which stops at errors.

    Raises:
        ConfigError: no views are asked about.
    """
    if views < 1:
        raise ConfigError(f"views (={views}) must be at least 1: a teacher is looked over by its answers to them.")
    facts, began = facts or Facts(), time.monotonic()
    rows = rows_at_once(min(_BATCH, views), (views, *view_set.recipe.shape))
    shown, logits = _answers(ask, view_set, views, rows, began)
    found = [checks.finite(logits, facts)]
    if found[0].level == "error":
        return found
    found += checks.outputs(logits, facts)
    further: list[Callable[[], list[Finding]]] = []
    if facts.costs:
        said = (
            f"{facts.name} was asked about {len(logits)} views, each of which may cost; what needs further questions "
            "(noise, BatchNorm, normalisation) was not looked at."
        )
        found.append(Finding("note", said))
    else:
        found += checks.alive(ask, shown, logits, rows, facts)
        further.append(lambda: checks.company(ask, shown, rows, facts))
        if not isinstance(view_set, AudioSet):
            further.append(lambda: checks.normalisation(ask, shown, logits, rows, facts))
    for number, check in enumerate(further):
        if time.monotonic() - began > _PATIENCE:
            left = "normalisation was" if number else "BatchNorm and normalisation were"
            found.append(Finding("note", f"{facts.name} answers slowly here: {left} not looked at."))
            break
        found += check()
    found += checks.soft_labels(logits, facts)
    found += checks.augmented(logits, facts)
    order = ("error", "warning", "note", "ok")
    return sorted(found, key=lambda finding: order.index(finding.level))


def _answers(
    ask: Ask, view_set: CountedSet, views: int, rows: int, began: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first views, and answers to as many as asked for, or as there is time for."""
    shown, answers = [], []
    for first in range(0, views, rows):
        if answers and time.monotonic() - began > _PATIENCE / 2:
            break
        batch = render(view_set, _FRESH + np.arange(first, min(first + rows, views)))
        answers.append(np.asarray(ask(batch), np.float32))
        if first < checks.VARIED:
            shown.append(batch)
    return np.concatenate(shown)[: checks.VARIED], np.concatenate(answers)
