"""`score` and `inspect`: which source to distil a teacher from, and whether anything is wrong with it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bridge.datum.views import CountedSet
from bridge.insight import preflight, score
from bridge.insight.checks import Facts, Finding
from bridge.insight.options import InspectConfig, ScoreConfig
from bridge.insight.score_picture import Scored
from torch_aip.run import set_up
from torch_aip.teacher import Teacher
from torch_aip.teachers import load_teacher


def score_sources(config: ScoreConfig) -> list[Scored]:
    """Rank sources for a teacher, and write score.png and score.json.

    Returns:
        The sources, best first.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    score.check_score(config)
    set_up(config.threads, config.seed)
    teacher = _on_device(load_teacher(str(config.teacher), dataset=config.dataset))
    return score.score(config, teacher, ask_of(teacher))


def inspect_teacher(config: InspectConfig) -> list[Finding]:
    """Look a teacher over.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    preflight.check_inspect(config)
    set_up(config.threads, config.seed)
    teacher = _on_device(load_teacher(str(config.teacher), dataset=config.dataset))
    return preflight.inspect_by(config, teacher, ask_of(teacher))


def inspect(teacher: Teacher, view_set: CountedSet, facts: Facts | None = None, views: int = 256) -> list[Finding]:
    """The same of a teacher at hand, asked about some of these views.

    Args:
        teacher: of any kind.
        view_set: such as `single_image_loader(…).view_set`.
        facts: what is said about it; None: what it says itself.
        views: at most.

    Returns:
        What was found, the worst first.
    """
    facts = facts or Facts(outputs=teacher.outputs, costs=teacher.asked is not None)
    return preflight.inspect(ask_of(teacher), view_set, facts, views)


def ask_of(teacher: Teacher) -> score.Ask:
    """A teacher as a function of NumPy arrays."""

    def ask(views: NDArray[np.float32]) -> NDArray[np.float32]:
        given = torch.from_numpy(np.ascontiguousarray(views, np.float32)).to(teacher.device)
        return teacher(given if given.ndim == 2 else given.movedim(-1, 1)).float().cpu().numpy()

    return ask


def _on_device(teacher: Teacher) -> Teacher:
    return teacher.to("cuda" if torch.cuda.is_available() else "cpu")
