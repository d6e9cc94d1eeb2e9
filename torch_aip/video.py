"""Fake clips of one image in PyTorch: the renderer and `single_video_loader`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bridge.datum.steps import Shard, Shown
from bridge.datum.video import ClipNumbers, ClipSet, make_clip_set
from bridge.datum.video_recipes import VideoRecipe
from torch_aip.views import Renderer, ViewLoader


class ClipRenderer(Renderer):
    """Draws clip numbers as clips: `Renderer` of all their frames, whose colours share one mean.

    `ClipNumbers` of one batch → float32 [batch, 3, frames, size, size] in [0, 1], RGB, channels last in memory.

    Args:
        view_set: the `ClipSet` whose atlas and recipe the numbers belong to.
    """

    def _draw(self, numbers: ClipNumbers) -> Tensor:
        """[batch, frames, size, size, 3]"""
        size, frames = self.recipe.size, self.recipe.frames
        flat = (table.flatten(0, 1) for table in (numbers.affine, numbers.frame, numbers.level))
        # a clip as one tall image
        image = [channel.view(-1, frames * size, size) for channel in self._sample(*flat)]
        image = self._colour(image, None, numbers.colour, None)
        return torch.stack(image, dim=-1).view(-1, frames, size, size, 3)


class ClipLoader(ViewLoader):
    """Endless batches of clips: a `ViewLoader` of a `ClipSet`.

    Each is one step's rows of this shard: float32 [rows, 3, frames, size, size] in [0, 1], RGB, channels last in
    memory; or with render="device" `ClipNumbers` of tensors, for `renderer`. In pinned memory where there is CUDA.
    """

    @cached_property
    def renderer(self) -> ClipRenderer:
        """A `ClipRenderer` of the clip set, always the same one; on the CPU until it is moved."""
        return ClipRenderer(self.view_set)


def single_video_loader(
    image: Any,
    *,
    frames: int = 4,
    image_size: int = 160,
    batch_size: int = 128,
    clips: int | None = 200_000,
    seed: int = 0,
    motion: str = "linear",
    recipe: str | VideoRecipe | None = None,
    start_step: int = 0,
    render: str = "host",
    workers: int | None = None,
) -> ClipLoader:
    """An endless loader of batches of fake clips of one image.

    Args:
        image: path of an image or of a folder of images; a PIL image; an array uint8 [height, width, 3]; or
            "sklearn:china.jpg", "sklearn:flower.jpg", "control:noise", "control:constant".
        frames: of a clip.
        image_size: side of a frame, in pixels.
        batch_size: rows per step over all devices and hosts.
        clips: how many base clips one epoch shows; later epochs show the same ones in another order, freshly augmented.
            None: never the same clip twice. 200,000 (Asano & Saeed 2023).
        seed: 0 ≤ seed < 2**64.
        motion: "linear": a box moves straight to another (Asano & Saeed 2023); "smooth": on a curve, turning (ours);
            "none": one frame stands still, a control (ours).
        recipe: a `VideoRecipe`, "video", "steady", or None for "video".
        start_step: begin with this step, as if all before had been drawn.
        render: "host" yields clips; "device" yields `ClipNumbers`, for the loader's `renderer`.
        workers: processes that draw the clips; 0: a thread of this one. None: 0 without CUDA, else one less than this
            process has cores, at most 8. The clips are the same. Numbers are always drawn in a thread.

    Returns:
        A `ClipLoader`.

    Raises:
        DatumError: the image cannot be read. RecipeError, ConfigError: a value is out of range.
    """
    clip_set = make_clip_set(image, image_size, frames, motion, recipe, clips=clips, seed=seed)
    return clip_loader(clip_set, batch_size, start_step=start_step, render=render, workers=workers)


def clip_loader(
    clip_set: ClipSet,
    batch_size: int,
    *,
    start_step: int = 0,
    render: str = "host",
    shard: Shard = (0, 1),
    shown: Shown | None = None,
    workers: int | None = None,
) -> ClipLoader:
    """`single_video_loader` for a `ClipSet` that exists already; same arguments and result.

    Args:
        shard: (index, count): draw only process `index`'s rows of each step; no two processes draw the same ones.
        shown: which step's clips are shown at each step, if not its own: int64 [k] → int64 [k].
    """
    return ClipLoader(
        clip_set, batch_size, start_step=start_step, render=render, shard=shard, shown=shown, workers=workers
    )
