"""What a backend can refuse before a grid of distillations starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.config import DistillConfig, mixing_of
from bridge.datum.audio_recipes import AudioRecipe, audio_recipe
from bridge.datum.recipes import ImageRecipe, recipe
from bridge.datum.video_recipes import VideoRecipe, video_recipe
from bridge.preparing import made_for


def inspector(
    load_teacher: Callable[..., Any], make_student: Callable[..., Any], distiller: Callable[..., Any]
) -> Callable[[DistillConfig], Mapping[str, str | None]]:
    """What `sweep` asks of every run: each teacher is loaded once, each kind of student built once.

    Args:
        load_teacher, make_student: those of the backend, which refuse what cannot work (an AipError).
        distiller: the same, (run, student, teacher, mixing) → a Distiller.

    Returns:
        A function that gives the hash of a run's teacher, which must be the same when the sweep is resumed.
    """
    teachers: dict[tuple[str, str], Any] = {}
    seen: set[tuple[Any, ...]] = set()

    def inspect(run: DistillConfig) -> dict[str, str | None]:
        name = str(run.teacher)
        asked = (name, run.dataset)
        if asked not in teachers:
            teachers[asked] = load_teacher(name, dataset=run.dataset)
        teacher = teachers[asked]
        student = (run.student, run.student_width, run.student_depth, run.student_dtype)
        mixing = (run.mixing, run.mixing_alpha, run.mixing_per, run.mixing_on, run.spec_augment)
        views = (run.recipe, run.image_size, run.frames, run.motion, run.patches)
        what = (*asked, run.loss, *mixing, *student, *views)
        if what not in seen:
            seen.add(what)
            sizes = made_for(run, teacher)
            built = make_student(run, teacher.classes or 0, sizes)
            distiller(run, built, teacher, mixing_of(run, _recipe(run, sizes)))
        return {f"teacher {name} for {run.dataset}": teacher.digest}

    return inspect


def _recipe(run: DistillConfig, sizes: Mapping[str, Any]) -> ImageRecipe | VideoRecipe | AudioRecipe:
    """How the run's views will be made."""
    if "samples" in sizes:
        return audio_recipe(run.recipe, sizes["rate"], sizes["samples"])
    if "frames" in sizes:
        return video_recipe(run.recipe, sizes["image_size"], sizes["frames"], run.motion)
    return recipe(run.recipe, sizes["image_size"])
