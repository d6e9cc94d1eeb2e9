"""What commands do without a framework: all of `views`, and `evaluate` but for the networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bridge.config import EvaluateConfig, ViewsConfig, mixing_of
from bridge.errors import ConfigError, DatumError
from bridge.shell import Command

# The reference's own spellings of options of `distill`.
REFERENCE = {
    "--student-arch": "--student",
    "--teacher-arch": "--teacher",
    "--traindir": "--patches --image",
}
# What `--smoke` sets, by command.
SMOKE: dict[str, dict[str, Any]] = {
    "distill": {"epochs": 2, "steps_per_epoch": 5, "batch_size": 16, "steps_per_execution": 1},
    "sweep": {"seeds": 1},
    "train-teacher": {"epochs": 1, "steps_per_epoch": 10, "batch_size": 16},
}


def views(config: ViewsConfig) -> None:
    """Write a picture of what the student will see and, if asked for, the views themselves.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    from bridge.datum.export import write_views
    from bridge.datum.preview import base_views, previews, to_bytes
    from bridge.datum.render import render
    from bridge.datum.views import make_view_set
    from bridge.files import atomic_write
    from bridge.grids import image_grid, png_bytes

    if config.image is None:
        raise ConfigError("Which image? Give --image FILE.")
    view_set = make_view_set(
        config.image,
        config.image_size or 32,
        config.recipe,
        patches=config.patches,
        views=config.views,
        seed=config.seed,
    )
    if config.kind == "base" and view_set.views is not None and config.count > view_set.views:
        raise ConfigError(
            f"--count {config.count} is more than the {view_set.views} distinct base views; raise --views (None: no "
            "limit) or write --kind augmented."
        )
    out = Path(config.out)
    mixing = mixing_of(config, view_set.recipe)
    pictures = previews(view_set, mixing, config.grid**2)
    scale = max(1, 64 // view_set.recipe.size)
    for name, images in zip(("base", "augmented", "mixed"), pictures.values()):
        path = out / f"{name}.png"
        try:
            out.mkdir(parents=True, exist_ok=True)
            atomic_write(path, png_bytes(image_grid(images, columns=config.grid, scale=scale)))
        except OSError as error:
            raise DatumError(f"Cannot write {path}: {error.strerror}. Choose another --out.") from error
        print(f"{path}: {len(images)} views, {next(c for c, i in pictures.items() if i is images)}")
    if not config.count:
        return
    # The reference stores base views and augments them in training; both kinds are written without remainder.
    chosen = base_views(view_set) if config.kind == "base" else view_set
    manifest = {
        "source": view_set.source.name, "source_sha256": view_set.source.sha256, "recipe": chosen.recipe.digest,
        "kind": config.kind, "size": chosen.recipe.size, "views": config.views, "seed": config.seed,
    }  # fmt: skip
    written = write_views(
        lambda n: to_bytes(render(chosen, np.asarray(n))), config.count, out / "files", layout=config.layout,
        image_format=config.image_format, manifest=manifest,
    )  # fmt: skip
    print(f"{out / 'files'}: {config.count} {config.kind} views of {chosen.recipe.size} pixels, {written} written now")


def measure(
    config: EvaluateConfig, load: Callable[..., Any], load_teacher: Callable[..., Any], evaluate: Callable[..., Any]
) -> dict[str, Any]:
    """Measure a network, print what came out and, if asked for, write it.

    Args:
        config: resolved options.
        load, load_teacher, evaluate: the backend's.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    from bridge.datasets import check_classes, thinned
    from bridge.files import atomic_write, json_text

    if config.model is None:
        raise ConfigError("Which network? Give --model FOLDER, such as runs/distill/student.")
    model = load_teacher(config.model, dataset=config.dataset)
    teacher = load_teacher(config.teacher, dataset=config.dataset) if config.teacher else None
    if model.input_size and len(model.input_size) != 2:
        raise ConfigError(f"{config.model} does not take images; so far only networks that do are measured here.")
    size = model.input_size[0] if model.input_size else None
    data = load(
        config.testdir or config.dataset, split=config.split, image_size=size, class_names=model.class_names,
        data_dir=config.data_dir,
    )  # fmt: skip
    data = check_classes(thinned(data, 512) if config.smoke else data, model.classes or 0, model.class_names)
    result = evaluate(model, data, teacher=teacher, batch_size=config.batch_size)
    if result["student_top1"] is None and teacher is None:
        raise ConfigError(f"{config.dataset} has no labels; give --teacher FOLDER to measure agreement with it.")
    text = json_text(result)
    print(text)
    if config.out:
        atomic_write(Path(config.out), text)
    return result


VIEWS = Command(ViewsConfig, views, smoke={"grid": 4}, aliases={})
