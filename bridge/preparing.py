"""What the `distill` command reads from disk before anything is computed, and what its students are made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.clips import LabelledVideos, check_readable, sampling_of, thinned_videos
from bridge.config import DistillConfig, refuse_sound_options, refuse_video_options
from bridge.datasets import FACTS, Labelled, check_classes, thinned
from bridge.datum.audio import AudioSet
from bridge.datum.audio_recipes import AudioRecipe
from bridge.datum.video_recipes import VideoRecipe
from bridge.datum.views import CountedSet
from bridge.errors import ConfigError
from bridge.measuring import AnyData, samples_of, takes_clips, takes_sounds
from bridge.recipe_choice import chosen_views, mixing_of
from bridge.replay import require_store
from bridge.sounds import LabelledSounds, thinned_sounds
from bridge.teachers.asking import check_budget


@dataclass(frozen=True)
class Prepared:
    """What a distillation works on, read from disk before anything is computed.

    Attributes:
        teacher: the backend's.
        view_set: the views, clips or sounds.
        test: what is measured on; None on hosts that only follow.
        steps: per epoch.
    """

    teacher: Any
    view_set: CountedSet
    test: AnyData | None
    steps: int

    @property
    def made_for(self) -> dict[str, Any]:
        """What a student must be built for, as the function of that name gives it."""
        recipe = self.view_set.recipe
        if isinstance(recipe, AudioRecipe):
            return _of_sounds(self.teacher, recipe.samples)
        return {"image_size": recipe.size, **({"frames": recipe.frames} if isinstance(recipe, VideoRecipe) else {})}


@dataclass(frozen=True)
class Loaders:
    """A backend's ways to evaluation sets, and to a sound; None where it has no networks for such."""

    images: Callable[..., Labelled]
    videos: Callable[..., LabelledVideos] | None = None
    sounds: Callable[..., LabelledSounds] | None = None
    audio_set: Callable[..., AudioSet] | None = None


def prepare(config: DistillConfig, teacher: Any, load: Loaders, first_host: bool = True) -> Prepared:
    """All that is read from disk, each host for itself; the evaluation set only where it is measured.

    Args:
        config: resolved options.
        teacher: of the backend; says `classes`, `input_size`, `class_names`, and of sounds `rate` and `front_end`.
        load: the backend's.
        first_host: whether this process measures and writes.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    if teacher.classes is None:
        raise ConfigError("The teacher does not say how many classes it has; its card must hold `classes`.")
    require_store(teacher, config.store_teacher)
    if teacher.asked is not None:
        teacher.asked.budget = config.query_budget
    elif config.query_budget is not None:
        raise ConfigError("--query-budget counts questions to a service; this teacher is a network, and is free.")
    view_set = _view_set(config, teacher, load)
    mixing = mixing_of(config, view_set.recipe)  # says now if it cannot be
    if config.store_teacher is not None and (mixing.on != "input" or config.spec_augment):
        raise ConfigError(
            "--store-teacher keeps answers about waveforms: with --mixing-on spectrogram or --spec-augment the teacher "
            "has to be asked at every step. Leave one of them out."
        )
    steps = config.steps_per_epoch or (-(-view_set.views // config.batch_size) if view_set.views else None)
    if steps is None:
        raise ConfigError("Endless views (--views None) need --steps-per-epoch.")
    if not first_host:
        return Prepared(teacher, view_set, None, steps)
    test = check_classes(_test_set(config, teacher, view_set, load), teacher.classes, teacher.class_names)
    option = "--steps-per-epoch" if config.steps_per_epoch else "--views"
    check_budget(config.query_budget, steps, config.batch_size, len(samples_of(test)), option)
    return Prepared(teacher, view_set, test, steps)


def _test_set(config: DistillConfig, teacher: Any, view_set: CountedSet, load: Loaders) -> AnyData:
    """What the student is measured on; with `smoke` a part of it."""
    name, recipe = config.testdir or config.dataset, view_set.recipe
    names = None if teacher.class_names is None else list(teacher.class_names)
    where = {"split": config.split, "class_names": names, "data_dir": config.data_dir}
    if isinstance(recipe, AudioRecipe):
        assert load.sounds is not None
        if name == DistillConfig.dataset:  # what nobody asked for is of images
            name = "speech_commands"
        takes_sounds(name, (recipe.samples,))  # says so if these are no sounds
        sounds = load.sounds(name, rate=recipe.rate, seconds=recipe.samples / recipe.rate, **where)
        return thinned_sounds(sounds, 256) if config.smoke else sounds
    size = recipe.size
    if isinstance(recipe, VideoRecipe):
        assert load.videos is not None
        sampling = sampling_of(config, (recipe.frames, size, size))
        if config.smoke:
            sampling["clips"] = config.clips or 1
        takes_clips(name, (recipe.frames, size, size))  # says so if these are no videos
        videos = check_readable(load.videos(name, **where, **sampling))
        return thinned_videos(videos, 8) if config.smoke else videos
    takes_sounds(name, (size, size))  # says so if these are sounds
    images = load.images(name, image_size=size, **where)
    return thinned(images, 512) if config.smoke else images


def made_for(config: DistillConfig, teacher: Any) -> dict[str, Any]:
    """What student and views are made for, as far as a teacher and options leave it open.

    Returns:
        As `models.build` takes it: image_size, and of clips frames; of sounds rate, samples, and the front end of a
        teacher of the backend's own.

    Raises:
        ConfigError: options that do not go with the teacher.
    """
    input_size = teacher.input_size
    sides = len(input_size or ())
    if input_size and sides not in (1, 2, 3):
        raise ConfigError(f"{config.teacher} takes inputs of {list(input_size)}: no images, clips or sounds.")
    if input_size and sides == 1:
        _check_sound_options(config)
        if teacher.rate is None:
            raise ConfigError(f"{config.teacher} does not say at which rate it hears; its card must hold `rate`.")
        return _of_sounds(teacher, input_size[0])
    refuse_sound_options(config, str(config.teacher))
    if sides == 2 or (sides == 0 and config.frames is None):
        refuse_video_options(config, str(config.teacher))
        facts = FACTS.get(config.dataset)
        return {"image_size": config.image_size or (input_size[0] if input_size else facts.image_size if facts else 32)}
    if config.patches:
        raise ConfigError("--patches are ready-made views, which do not move; give an image to be set in motion.")
    frames, size = (input_size[0], input_size[1]) if input_size else (4, 160)
    return {"image_size": config.image_size or size, "frames": config.frames or frames}


def _of_sounds(teacher: Any, samples: int) -> dict[str, Any]:
    front_end = getattr(teacher, "front_end", None)
    return {"rate": teacher.rate, "samples": samples} | ({} if front_end is None else {"front_end": front_end})


def _check_sound_options(config: DistillConfig) -> None:
    """Raises: ConfigError: options of images or clips, where the teacher takes sounds."""
    for option in ("image", "image_size", "patches"):
        if (value := getattr(config, option)) not in (None, False):
            raise ConfigError(
                f"--{option.replace('_', '-')} {value} is of images, and {config.teacher} takes sounds: give --audio "
                "FILE instead."
            )
    refuse_video_options(config, str(config.teacher), "sounds")


def _view_set(config: DistillConfig, teacher: Any, load: Loaders) -> CountedSet:
    """The views, clips or sounds a teacher is asked about."""
    sizes = made_for(config, teacher)
    if "samples" in sizes and load.audio_set is None:
        raise ConfigError(f"{config.teacher} takes sounds; audio is keras_aip's: python -m keras_aip distill …")
    if "frames" in sizes and load.videos is None:
        raise ConfigError(f"{config.teacher} takes clips; video is torch_aip's: python -m torch_aip distill …")
    return chosen_views(config, sizes, audio_set=load.audio_set)


def check_inputs(config: DistillConfig) -> None:
    """Refuse a line that names no image or sound, or both, or no teacher.

    Raises:
        ConfigError: saying which.
    """
    if config.image is None and config.audio is None and config.resume:
        raise ConfigError(f"--resume: {config.out} holds no run; say where it is with --out.")
    if config.image is None and config.audio is None:
        raise ConfigError(
            "Which image? Give --image FILE (any photograph; rich, detailed ones work best), or if the teacher takes "
            "sounds --audio FILE (such as minutes of speech)."
        )
    if config.image is not None and config.audio is not None:
        raise ConfigError(f"--image {config.image} and --audio {config.audio}: a student learns from one of them.")
    if config.teacher is None:
        raise ConfigError("Which teacher? Give --teacher FOLDER; `train-teacher` makes one.")
