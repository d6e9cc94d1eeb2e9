"""What commands do without a framework: all of `views`, and `evaluate` but for the networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.config import EvaluateConfig, ViewsConfig, mixing_of, refuse_video_options
from bridge.errors import ConfigError, DatumError
from bridge.shell import Command

if TYPE_CHECKING:
    from bridge.datum.views import SampleSet

_PIXELS_AT_A_TIME = 2**23
"""Rendered before they are written: 96 MiB. An interruption loses no more."""
_WIDEST = 1280
"""Pixels of a strip of frames in a picture."""

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
    """Write a picture of what the student will see and, if asked for, the views or clips themselves.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    from bridge.datum.export import write_views
    from bridge.datum.preview import base_views, previews, to_bytes
    from bridge.datum.render import render
    from bridge.files import atomic_write
    from bridge.grids import image_grid, png_bytes

    if config.image is None:
        raise ConfigError("Which image? Give --image FILE.")
    view_set = _view_set(config)
    frames = getattr(view_set.recipe, "frames", None)
    what = "views" if frames is None else "clips"
    image_format = _file_type(config, frames)
    if config.kind == "base" and view_set.views is not None and config.count > view_set.views:
        raise ConfigError(
            f"--count {config.count} is more than the {view_set.views} distinct base {what}; raise --views (None: no "
            "limit) or write --kind augmented."
        )
    out = Path(config.out)
    mixing = mixing_of(config, view_set.recipe)
    # Of clips one strip of frames in each row.
    columns = config.grid if frames is None else 1
    pictures = previews(view_set, mixing, config.grid * columns)
    scale = max(1, 64 // view_set.recipe.size)
    for name, (caption, images) in zip(("base", "augmented", "mixed"), pictures.items()):
        path = out / f"{name}.png"
        try:
            out.mkdir(parents=True, exist_ok=True)
            picture = image_grid(_narrowed(images) if frames else images, columns=columns, scale=scale)
            atomic_write(path, png_bytes(picture))
        except OSError as error:
            raise DatumError(f"Cannot write {path}: {error.strerror}. Choose another --out.") from error
        print(f"{path}: {len(images)} {what if frames is None else f'clips of {frames} frames'}, {caption}")
    if not config.count:
        return
    # The reference stores base views and augments them in training; both kinds are written without remainder.
    chosen = base_views(view_set) if config.kind == "base" else view_set
    manifest = {
        "source": view_set.source.name, "source_sha256": view_set.source.sha256, "recipe": chosen.recipe.digest,
        "kind": config.kind, "size": chosen.recipe.size, "views": config.views, "seed": config.seed,
        **({} if frames is None else {"frames": frames, "motion": config.motion}),
    }  # fmt: skip
    written = write_views(
        lambda n: to_bytes(render(chosen, np.asarray(n))), config.count, out / "files", layout=config.layout,
        image_format=image_format, rate=config.rate, batch=max(1, min(256, _PIXELS_AT_A_TIME // chosen.recipe.pixels)),
        manifest=manifest,
    )  # fmt: skip
    size = f"{chosen.recipe.size} pixels" + (f", {frames} frames at {config.rate:g} per second" if frames else "")
    print(f"{out / 'files'}: {config.count} {config.kind} {what} of {size}, {written} written now")


def _view_set(config: ViewsConfig) -> SampleSet:
    """What is looked at: clips where --frames or --recipe video is given, else images."""
    from bridge.datum.video import make_clip_set
    from bridge.datum.video_recipes import VideoRecipe
    from bridge.datum.views import make_view_set

    frames = config.frames or (VideoRecipe.frames if config.recipe == "video" else None)
    if frames is None:
        for option in ("motion", "rate"):
            if (value := getattr(config, option)) != getattr(ViewsConfig, option):
                raise ConfigError(
                    f"--{option} {value} is of clips; say how many --frames each has, such as --frames 8."
                )
        return make_view_set(
            config.image, config.image_size or 32, config.recipe, patches=config.patches, views=config.views,
            seed=config.seed,
        )  # fmt: skip
    if config.patches:
        raise ConfigError("--patches are ready-made views, which do not move; give an image to be set in motion.")
    return make_clip_set(
        config.image, config.image_size or VideoRecipe.size, frames, config.motion, config.recipe, clips=config.views,
        seed=config.seed,
    )  # fmt: skip


def _file_type(config: ViewsConfig, frames: int | None) -> str:
    """Of the files to be written; what cannot be written is refused."""
    from bridge.datum.clip_files import check_writable

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
) -> dict[str, Any]:
    """Measure a network, print what came out and, if asked for, write it.

    Args:
        config: resolved options.
        load, load_teacher, evaluate: the backend's.
        load_video: its way to videos; None where it has no networks for them.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    from bridge.clips import sampling_of, thinned_videos
    from bridge.datasets import check_classes, thinned
    from bridge.files import atomic_write, json_text
    from bridge.measuring import takes_clips

    if config.model is None:
        raise ConfigError("Which network? Give --model FOLDER, such as runs/distill/student.")
    model = load_teacher(config.model, dataset=config.dataset)
    teacher = load_teacher(config.teacher, dataset=config.dataset) if config.teacher else None
    size = model.input_size
    if size and len(size) == 3 and load_video is None:
        raise ConfigError(f"{config.model} takes clips, and video is torch_aip's: python -m torch_aip evaluate …")
    if size and len(size) not in (2, 3):
        raise ConfigError(f"{config.model} takes neither images nor clips; only networks that do are measured here.")
    name = config.testdir or config.dataset
    where = {"split": config.split, "class_names": model.class_names, "data_dir": config.data_dir}
    data: Any
    if takes_clips(name, size) and load_video:
        data = load_video(name, **where, **sampling_of(config, size))
        data = thinned_videos(data, 16) if config.smoke else data
    else:
        refuse_video_options(config, str(config.model))
        data = load(name, image_size=size[0] if size else None, **where)
        data = thinned(data, 512) if config.smoke else data
    data = check_classes(data, model.classes or 0, model.class_names)
    result = evaluate(model, data, teacher=teacher, batch_size=config.batch_size)
    if result["student_top1"] is None and teacher is None:
        raise ConfigError(f"{config.dataset} has no labels; give --teacher FOLDER to measure agreement with it.")
    text = json_text(result)
    print(text)
    if config.out:
        atomic_write(Path(config.out), text)
    return result


VIEWS = Command(ViewsConfig, views, smoke={"grid": 4}, aliases={})
