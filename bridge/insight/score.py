"""Which source a teacher can be distilled from: measures of its answers to views, without training or labels."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.config import DistillConfig
from bridge.datum.audio import AudioSet, make_audio_set
from bridge.datum.audio_preview import spectrogram_pictures
from bridge.datum.render import render
from bridge.datum.sources import load_source
from bridge.datum.views import CountedSet, SampleSet
from bridge.errors import ConfigError, DatumError
from bridge.files import atomic_write, json_text
from bridge.insight.measures import GROUP, HEADLINE, MEASURES, image_density, measures, sound_density
from bridge.insight.options import InspectConfig, ScoreConfig
from bridge.insight.score_picture import Scored, picture
from bridge.measuring import rows_at_once
from bridge.preparing import made_for
from bridge.progress import progress_bar
from bridge.recipe_choice import chosen_views
from bridge.teachers.remote import is_address

Ask = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Views, float32 [batch, (frames,) height, width, 3] in [0, 1] or [batch, samples] → answers in log space."""

_FRESH = 2**40
"""The first view's number: of such as no step of a distillation draws."""
_SMALLEST = 64
"""Pixels of the shorter side: smaller images are enlarged to it, as for `distill`."""


def score(
    config: ScoreConfig, teacher: Any, ask: Ask, audio_set: Callable[..., AudioSet] = make_audio_set
) -> list[Scored]:
    """Rank sources, and write score.png and score.json.

    Args:
        config: resolved options.
        teacher: of a backend: says `classes`, `input_size`, and of sounds `rate`.
        ask: it.
        audio_set: the backend's way to sounds.

    Returns:
        The sources, best first.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    given = list(dict.fromkeys(config.audio or config.images))
    _check_sources(config, teacher, given, audio_set)
    out = Path(config.out)
    found = []
    with progress_bar("asking the teacher", "views", config.views * len(given)) as advance:
        for name, source in zip(_names(given), given):
            view_set = view_set_of(config, teacher, source, audio_set)
            figures = measures(answers(ask, view_set, config.views, config.batch_size, advance))
            figures |= {"density": _density(view_set)}
            found.append(Scored(name, source, figures, _picture(view_set), isinstance(view_set, AudioSet)))
    found = ranked(found)
    out.mkdir(parents=True, exist_ok=True)
    told = {
        "config": dataclasses.asdict(config),
        "headline": HEADLINE,
        "measures": {key: dataclasses.asdict(measure) for key, measure in MEASURES.items()},
        "classes": teacher.classes,
        "sources": [{"name": one.name, "given": one.given, **one.figures} for one in found],
    }
    atomic_write(out / "score.json", json_text(told))
    title = f"Sources for {Path(str(config.teacher)).name}, highest spread first"
    atomic_write(out / "score.png", picture(found, title))
    return found


def check_score(config: ScoreConfig) -> None:
    """Refuse a line that names no source, both kinds, no teacher, or one that costs, before anything is loaded.

    Raises:
        ConfigError: saying which.
    """
    if config.teacher is None:
        raise ConfigError("Which teacher? Give --teacher FOLDER; `train-teacher` makes one.")
    if is_address(config.teacher):
        raise ConfigError(
            f"{config.teacher} is a service, whose every answer may cost, and `score` asks it {config.views:,} times "
            "per source, without a log or a budget; give a teacher folder."
        )
    if not config.images and not config.audio:
        raise ConfigError("Which sources? Give --images A.jpg B.jpg …, or of a teacher for sounds --audio A.wav B.wav.")
    if config.images and config.audio:
        raise ConfigError("--images and --audio: a teacher takes one of them.")
    if config.views < 2 * GROUP:
        raise ConfigError(f"--views (={config.views}) must be at least {2 * GROUP}; 2,048 are asked about by default.")


def ranked(found: Sequence[Scored]) -> list[Scored]:
    """Best first by the headline; those that are equal keep their order."""
    sign = 1 if MEASURES[HEADLINE].better == "low" else -1
    return sorted(found, key=lambda one: sign * one.figures[HEADLINE])


def answers(
    ask: Ask, view_set: CountedSet, views: int, batch_size: int = 256, advance: Callable[[int], None] = lambda n: None
) -> NDArray[np.float32]:
    """A teacher's answers to so many augmented, unmixed views, the same ones each time: float32 [views, classes]."""
    # All batches have one size, for which a graph is made; what the last one has too many is left out.
    rows = rows_at_once(min(batch_size, views), (views, *view_set.recipe.shape))
    found = []
    for first in range(0, views, rows):
        found.append(np.asarray(ask(render(view_set, _FRESH + first + np.arange(rows)))))
        advance(min(rows, views - first))
    return np.concatenate(found)[:views]


def view_set_of(
    config: ScoreConfig | InspectConfig,
    teacher: Any,
    source: str,
    audio_set: Callable[..., AudioSet] = make_audio_set,
) -> CountedSet:
    """Endless views of a source, as `distill` would make them for a teacher.

    Args:
        config: resolved options.
        teacher: of a backend.
        source: an image, a folder of images, or a sound.
        audio_set: the backend's way to sounds.

    Raises:
        AipError: the source cannot be read, is smaller than a view, or is of another kind than the teacher takes.
    """
    sounds = len(teacher.input_size or ()) == 1
    options = DistillConfig(
        teacher=config.teacher, dataset=config.dataset or "", image_size=config.image_size, recipe=config.recipe,
        without=config.without,
        image=None if sounds else source, audio=source if sounds else None, views=None, seed=config.seed,
    )  # fmt: skip
    sizes = made_for(options, teacher)
    if "samples" in sizes:
        return chosen_views(options, sizes, audio_set=audio_set)
    size = sizes["image_size"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "very small")
        read = load_source(source, min_side=1)
    smallest = min(min(image.shape[:2]) for image in read.images)
    if max(min(image.shape[:2]) for image in read.images) < size:
        height, width = read.images[0].shape[:2]
        raise DatumError(f"{source} is {width} x {height} pixels, smaller than a view of {size} x {size}")
    if smallest < _SMALLEST:
        read = load_source(source)  # enlarges it, and says so
    return chosen_views(options, sizes, read)


def _check_sources(config: ScoreConfig, teacher: Any, given: Sequence[str], audio_set: Callable[..., AudioSet]) -> None:
    """All of them are read once before anything long begins; one by one, to bound memory."""
    sounds = len(teacher.input_size or ()) == 1
    if sounds != bool(config.audio):
        takes, option = ("sounds", "--audio") if sounds else ("images", "--images")
        raise ConfigError(f"{config.teacher} takes {takes}: give its sources by {option}.")
    unusable = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when it is used
        for source in given:
            try:
                view_set_of(config, teacher, source, audio_set)
            except DatumError as error:
                unusable.append(str(error).rstrip("."))
    if unusable:
        count = f"{len(unusable)} of {len(given)} sources" if len(given) > 1 else "The source"
        raise DatumError(f"{count} cannot be scored: {'; '.join(unusable)}. Leave out or replace what is named here.")


def _density(view_set: CountedSet) -> float:
    if isinstance(view_set, AudioSet):
        return sound_density(view_set.source.samples, view_set.source.rate)
    return image_density(view_set.source.images)


def _picture(view_set: CountedSet) -> NDArray[np.uint8]:
    if isinstance(view_set, AudioSet):
        source = view_set.source
        some = source.samples[: min(len(source.samples), 10 * source.rate)]
        return spectrogram_pictures(some[None], source.rate)[0]
    assert isinstance(view_set, SampleSet)
    return view_set.source.images[0]


def _names(given: Sequence[str]) -> list[str]:
    """The last part of each path; all of it where two end alike."""
    short = [Path(name).name for name in given]
    return [whole if short.count(name) > 1 or not name else name for name, whole in zip(short, given)]
