"""What commands do without a framework: all of `views`, and `evaluate` but for the networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.config import EvaluateConfig, ViewsConfig, refuse_video_options
from bridge.errors import ConfigError, DatumError
from bridge.recipe_choice import chosen_views, mixing_of
from bridge.shell import Command

if TYPE_CHECKING:
    from bridge.datum.views import CountedSet
    from bridge.measuring import AnyData

_PIXELS_AT_A_TIME = 2**23
"""Rendered before they are written: 96 MiB. An interruption loses no more."""
_SAMPLES_AT_A_TIME = 2**20
"""The same of sounds, which need some 100 bytes for each meanwhile."""
_WIDEST = 1280
"""Pixels of a strip of frames in a picture."""
_WIDEST_ROW = 1600
"""Pixels of a row of spectrograms, where there is more than one in it."""
_LARGEST_PICTURE = 2**25
"""Pixels or samples of all views of a picture."""
_KINDS = ("base", "augmented", "mixed")
_HEARD, _HEARD_SECONDS, _PAUSE = 8, 30, 0.3
"""Views in a file to listen to, at most; how long it may be if that makes less; and the silence after each."""
_OF_IMAGES = ("image", "patches", "frames", "motion", "image_size", "rate")
_OF_SOUNDS = ("audio", "sample_rate", "seconds", "mixing_on")

# The reference's own spellings of options of `distill`.
REFERENCE = {
    "--student-arch": "--student",
    "--teacher-arch": "--teacher",
    "--traindir": "--patches --image",
    "--test-data-path": "--testdir",
}
# What `--smoke` sets, by command.
SMOKE: dict[str, dict[str, Any]] = {
    "distill": {"epochs": 2, "steps_per_epoch": 5, "batch_size": 32, "steps_per_execution": 1},
    "sweep": {"seeds": 1},
    "train-teacher": {"epochs": 1, "steps_per_epoch": 10, "batch_size": 16},
}


def views(config: ViewsConfig) -> None:
    """Write a picture of what the student will see or hear and, if asked for, the views or clips themselves.

    Of sounds the picture shows spectrograms, and beside it stands a wav of several.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    from bridge.datum.audio import AudioSet
    from bridge.datum.preview import heard, previews
    from bridge.grids import image_grid, png_bytes

    _refuse_other_kind(config)
    view_set = _view_set(config)
    recipe, sounds = view_set.recipe, config.audio is not None
    frames = getattr(recipe, "frames", None)
    image_format = _file_type(config, frames)
    if config.kind == "base" and view_set.views is not None and config.count > view_set.views:
        raise ConfigError(
            f"--count {config.count} is more than the {view_set.views} distinct base {_what(frames)}; raise --views "
            "(None: no limit) or write --kind augmented."
        )
    out = Path(config.out)
    mixing = mixing_of(config, recipe)
    columns = _columns(config, frames, recipe.pixels)
    pictures = previews(view_set, mixing, config.grid * columns)
    for name, (caption, images) in zip(_KINDS, pictures.items()):
        path = out / f"{name}.png"
        images = _narrowed(images) if columns == 1 else images
        scale = max(1, min(2, _WIDEST_ROW // (columns * images.shape[2]))) if sounds else max(1, 64 // recipe.size)
        _write(path, png_bytes(image_grid(images, columns=columns, scale=scale)))
        shown = f"clips of {frames} frames" if frames else f"views of {recipe.seconds:g} s" if sounds else "views"
        print(f"{path}: {len(images)} {shown}, {caption}")
    if isinstance(view_set, AudioSet):
        count = min(config.grid * columns, _HEARD, max(2, int(_HEARD_SECONDS / recipe.seconds)))
        played = heard(view_set, mixing, count)
        for name, waveforms in zip(_KINDS, played.values()):
            _write(out / f"{name}.wav", _one_after_the_other(waveforms, recipe.rate))
            print(f"{out / name}.wav: the first {f'{count} of them, one after the other' if count > 1 else 'of them'}")
        if len(played) < len(_KINDS):
            (out / "mixed.wav").unlink(missing_ok=True)  # of other options
            print("Spectrograms that were mixed cannot be listened to.")
    if config.count:
        _write_files(config, view_set, image_format)


def _write_files(config: ViewsConfig, view_set: CountedSet, image_format: str) -> None:
    """The views, clips or sounds themselves, with a manifest."""
    from bridge.datum.export import write_views
    from bridge.datum.preview import base_views, to_bytes
    from bridge.datum.render import render

    # The reference stores base views and augments them in training; both kinds are written without remainder.
    chosen = base_views(view_set) if config.kind == "base" else view_set
    recipe, frames = chosen.recipe, getattr(chosen.recipe, "frames", None)
    if config.audio is not None:
        about, size, rate = {"samples": recipe.samples}, f"{recipe.seconds:g} s at {recipe.rate} Hz", recipe.rate
    elif frames:
        about, rate = {"size": recipe.size, "frames": frames, "motion": config.motion}, config.rate
        size = f"{recipe.size} pixels, {frames} frames at {rate:g} per second"
    else:
        about, size, rate = {"size": recipe.size}, f"{recipe.size} pixels", config.rate
    manifest = {
        "source": view_set.source.name, "source_sha256": view_set.source.sha256, "recipe": recipe.digest,
        "kind": config.kind, "views": config.views, "seed": config.seed, **about,
    }  # fmt: skip
    at_once = _PIXELS_AT_A_TIME if config.audio is None else _SAMPLES_AT_A_TIME
    written = write_views(
        lambda n: to_bytes(render(chosen, n)) if config.audio is None else render(chosen, n), config.count,
        Path(config.out) / "files", layout=config.layout, image_format=image_format, rate=rate,
        batch=max(1, min(256, at_once // recipe.pixels)), manifest=manifest,
    )  # fmt: skip
    print(
        f"{Path(config.out) / 'files'}: {config.count} {config.kind} {_what(frames)} of {size}, {written} written now"
    )


def _what(frames: int | None) -> str:
    return "views" if frames is None else "clips"


def _refuse_other_kind(config: ViewsConfig) -> None:
    """Refuse options of images where there is a sound, and the other way round."""
    if config.image is None and config.audio is None:
        raise ConfigError("Which image? Give --image FILE, or --audio FILE of a sound.")
    sounds = config.audio is not None
    names = _OF_IMAGES if sounds else _OF_SOUNDS
    given = {name: value for name in names if (value := getattr(config, name)) != getattr(ViewsConfig, name)}
    for name, of_sounds in (("recipe", ("audio", "crop")), ("image_format", ("wav",))):
        value = getattr(config, name)
        if value is not None and (value in of_sounds) != sounds:
            given[name] = value
    if not given:
        return
    options = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in given.items()]
    listed = ", ".join(options[:-1]) + " and " * (len(options) > 1) + options[-1]
    kind, datum = (
        ("images", f"--audio {config.audio} a sound") if sounds else ("sounds", f"--image {config.image} is none")
    )
    verb = "is" if len(options) == 1 else "are"
    raise ConfigError(f"{listed} {verb} of {kind}, and {datum}; leave out the one or the other.")


def _view_set(config: ViewsConfig) -> CountedSet:
    """What is looked at: sounds if there is --audio, clips if --frames or --recipe video is given, else images."""
    from bridge.datum.audio import samples_of_view
    from bridge.datum.video_recipes import VideoRecipe

    if config.audio is not None:
        samples = samples_of_view(config.sample_rate, config.seconds)
        return chosen_views(config, {"rate": config.sample_rate, "samples": samples})
    frames = config.frames or (VideoRecipe.frames if config.recipe == "video" else None)
    if frames is None:
        for option in ("motion", "rate"):
            if (value := getattr(config, option)) != getattr(ViewsConfig, option):
                raise ConfigError(
                    f"--{option} {value} is of clips; say how many --frames each has, such as --frames 8."
                )
        return chosen_views(config, {"image_size": config.image_size or 32})
    if config.patches:
        raise ConfigError("--patches are ready-made views, which do not move; give an image to be set in motion.")
    return chosen_views(config, {"image_size": config.image_size or VideoRecipe.size, "frames": frames})


def _file_type(config: ViewsConfig, frames: int | None) -> str:
    """Of the files to be written; what cannot be written is refused."""
    from bridge.datum.clip_files import check_writable

    if config.audio is not None:
        return "wav"
    chosen = config.image_format or ("png" if frames is None else "mp4")
    if frames is None and chosen == "mp4":
        raise ConfigError("--image-format mp4 is of clips; say how many --frames each has, or choose png or jpg.")
    if frames is not None and chosen != "mp4":
        raise ConfigError(f"--image-format {chosen} is of images; clips are written as mp4: leave it out.")
    if config.count and frames is not None:
        if frames == 1:
            raise ConfigError("--frames 1 makes no video; give 2 or more, or leave out --frames to write images.")
        check_writable(config.rate)
    return chosen


def _columns(config: ViewsConfig, frames: int | None, values: int) -> int:
    """Views beside each other in a picture; of clips one strip of frames, of long sounds as many as there is room."""
    # A spectrogram has 100 columns per second, shown twice as wide.
    room = config.grid if config.audio is None else max(1, int(_WIDEST_ROW / (200 * config.seconds)))
    columns = min(config.grid, room) if frames is None else 1
    if config.grid * columns * values > _LARGEST_PICTURE:
        rows = _LARGEST_PICTURE // values
        most = max(1, math.isqrt(rows) if columns == config.grid else rows // columns)
        raise ConfigError(
            f"--grid {config.grid} asks for a picture of {config.grid * columns:,} {_what(frames)}, too large to look "
            f"at: give at most --grid {most}. With --count as many as wanted are written as files."
        )
    return columns


def _one_after_the_other(waveforms: np.ndarray, rate: int) -> bytes:
    """float32 [count, samples] → a wav file with a short pause after each."""
    from bridge.datum.audio_files import encode_wav

    return encode_wav(np.pad(waveforms, ((0, 0), (0, round(_PAUSE * rate)))).ravel(), rate)


def _write(path: Path, content: bytes) -> None:
    from bridge.files import atomic_write

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    except OSError as error:
        raise DatumError(f"Cannot write {path}: {error.strerror}. Choose another --out.") from error


def _narrowed(strips: np.ndarray) -> np.ndarray:
    """Strips of frames uint8 [count, height, width, 3], made smaller where they are wider than most screens."""
    import cv2

    _, height, width, _ = strips.shape
    if width <= _WIDEST:
        return strips
    size = _WIDEST, max(1, round(height * _WIDEST / width))
    return np.stack([cv2.resize(strip, size, interpolation=cv2.INTER_AREA) for strip in strips])


def measure(
    config: EvaluateConfig,
    load: Callable[..., Any],
    load_teacher: Callable[..., Any],
    evaluate: Callable[..., Any],
    load_video: Callable[..., Any] | None = None,
    load_audio: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """Measure a network, print what came out and, if asked for, write it.

    Args:
        config: resolved options.
        load, load_teacher, evaluate: the backend's.
        load_video, load_audio: its ways to videos and to sounds; None where it has no networks for them.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    from bridge.files import atomic_write, json_text
    from bridge.measuring import at_most

    if config.model is None:
        raise ConfigError("Which network? Give --model FOLDER, such as runs/distill/student.")
    model = load_teacher(config.model, dataset=config.dataset)
    teacher = load_teacher(config.teacher, dataset=config.dataset) if config.teacher else None
    data = measured_on(config, model, config.testdir or config.dataset, load, load_video, load_audio)
    data = at_most(data, 512, 16)[0] if config.smoke else data
    result = evaluate(model, data, teacher=teacher, batch_size=config.batch_size)
    if result["student_top1"] is None and teacher is None:
        raise ConfigError(f"{config.dataset} has no labels; give --teacher FOLDER to measure agreement with it.")
    text = json_text(result)
    print(text)
    if config.out:
        atomic_write(Path(config.out), text)
    return result


def measured_on(
    config: Any,
    model: Any,
    name: str,
    load: Callable[..., Any],
    load_video: Callable[..., Any] | None = None,
    load_audio: Callable[..., Any] | None = None,
    **how: Any,
) -> AnyData:
    """Load what a network is measured on: images, videos or sounds, as it takes them.

    Args:
        config: of a command that measures `model`, which it names: with split, data_dir and the options of video.
        model: a teacher of a backend.
        name: of the set, or its path.
        load, load_video, load_audio: the backend's; None where it has no networks for videos or sounds.
        how: further arguments of `load` and `load_audio`.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    from bridge.clips import sampling_of
    from bridge.datasets import check_classes
    from bridge.measuring import takes_clips, takes_sounds

    size = model.input_size
    if size and len(size) == 3 and load_video is None:
        raise ConfigError(
            f"{config.model} takes clips, and video is torch_aip's: give the same line to python -m torch_aip."
        )
    if size and len(size) == 1 and (load_audio is None or model.rate is None):
        why = "only networks for images are measured here" if load_audio is None else "nobody knows at which rate"
        raise ConfigError(f"{config.model} takes waveforms; {why}.")
    where = {"split": config.split, "class_names": model.class_names, "data_dir": config.data_dir}
    data: Any
    if takes_sounds(name, size) and load_audio:
        refuse_video_options(config, str(config.model), "sounds")
        data = load_audio(name, rate=model.rate, seconds=size[0] / model.rate, **where, **how)
    elif takes_clips(name, size) and load_video:
        data = load_video(name, **where, **sampling_of(config, size))
    else:
        refuse_video_options(config, str(config.model))
        data = load(name, image_size=size[0] if size else None, **where, **how)
    return check_classes(data, model.classes or 0, model.class_names)


VIEWS = Command(ViewsConfig, views, smoke={"grid": 4}, aliases={})
