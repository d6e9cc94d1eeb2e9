"""The `views` command, the same in every program since nothing in it needs a framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bridge.config import ViewsConfig, mixing_of
from bridge.errors import ConfigError, DatumError
from bridge.shell import Command


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


VIEWS = Command(ViewsConfig, views, smoke={"grid": 4}, aliases={})
