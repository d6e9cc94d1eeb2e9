"""Views of one image in PyTorch: the renderer and `single_image_loader`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bridge.datum.colour import LUMA
from bridge.datum.recipes import ImageRecipe
from bridge.datum.render import render_numbers
from bridge.datum.steps import Numbers, Shard, Shown, check_stream, shard_rows, step_numbers, steps_at_once
from bridge.datum.views import SampleSet, make_view_set
from bridge.errors import AipError, ConfigError, RunError
from bridge.lazy import cores
from torch_aip.stream import Ahead, ahead

_PIECE = 2**21
"""Pixels of the largest piece of a step that one worker draws: 24 MiB, of which each keeps two in shared memory."""
_CACHED = 2**16
"""Pixels that one thread of a CPU renders at a time."""


class Renderer(nn.Module):
    """Draws view numbers as images, on whatever device it was moved to.

    All shapes are static and nothing waits for the device. It runs as it is and under `torch.compile`, which pays: two
    passes over the pixels in place of some eighty.

    Args:
        view_set: whose atlas and recipe the numbers belong to.
    """

    pixels: Tensor

    def __init__(self, view_set: SampleSet):
        super().__init__()
        self.recipe = view_set.recipe
        red, green, blue = torch.from_numpy(view_set.atlas.pixels).unbind(1)
        # A pixel in one number: it is gathered in one go, and its channels lie apart from then on. Both are faster
        # than rows of three, eagerly (1.5 times on a CPU) and compiled (5 times).
        packed = red.int() | green.int() << 8 | blue.int() << 16
        self.register_buffer("pixels", packed, persistent=False)

    def forward(self, numbers: Numbers) -> Tensor:
        """Numbers of one batch → float32 [batch, 3, size, size] in [0, 1], RGB, channels last in memory."""
        if numbers.affine.device.type == "cpu" and not torch.compiler.is_compiling():
            # A few at a time, whose temporaries stay in the cache: three times as fast.
            few = max(1, _CACHED * torch.get_num_threads() // self.recipe.pixels)
            parts = zip(*(table.split(few) for table in numbers))
            return torch.cat([self._draw(type(numbers)(*part)) for part in parts]).movedim(-1, 1)
        return self._draw(numbers).movedim(-1, 1)

    def _draw(self, numbers: Any) -> Tensor:
        """[batch, size, size, 3]"""
        image = self._sample(numbers.affine, numbers.frame, numbers.level)
        return torch.stack(self._colour(image, numbers.window, numbers.colour, numbers.tone), dim=-1)

    def _sample(self, affine: Tensor, frame: Tensor, level: Tensor) -> list[Tensor]:
        """One bilinear sampling of a pyramid level, black outside the frame: three channels [batch, size, size]."""
        column, row = self._grid(affine.device)
        a0, a1, a2, a3, a4, a5 = _columns(affine)
        left, top, right, bottom = _columns(frame)
        offset, width, height = _columns(level)
        x = a0 * column + (a1 * row + a2)
        y = a3 * column + (a4 * row + a5)
        whole = ((x >= left) & (x <= right) & (y >= top) & (y <= bottom)) * (1 / 255)
        x = x.clamp(min=0).minimum((width - 1).float())
        y = y.clamp(min=0).minimum((height - 1).float())
        # The last column and row are reached as the right and lower neighbour, with all the weight.
        x0 = x.int().minimum((width - 2).clamp(min=0))
        y0 = y.int().minimum((height - 2).clamp(min=0))
        fx, fy = x - x0, y - y0
        here = offset + y0 * width + x0
        right_of, below = (width - 1).clamp(max=1), torch.where(height > 1, width, 0)
        lower = fy * whole
        upper = whole - lower
        w01, w11 = fx * upper, fx * lower
        image = self._weighed(here, upper - w01)
        for step, weight in ((right_of, w01), (below, lower - w11), (right_of + below, w11)):
            image = [sum_ + part for sum_, part in zip(image, self._weighed(here + step, weight))]
        return image

    def _weighed(self, index: Tensor, weight: Tensor) -> list[Tensor]:
        """The channels of the pixels at `index`, times their weight."""
        pixel = self.pixels.index_select(0, index.flatten()).view(index.shape)
        return [channel * weight for channel in (pixel & 255, (pixel >> 8) & 255, pixel >> 16)]

    def _colour(self, image: list[Tensor], window: Any, colour: Tensor, tone: Any) -> list[Tensor]:
        """Colour stages, the padded border, grey and solarise; a recipe without the latter needs neither number."""
        recipe = self.recipe
        inside = None
        if recipe.has_window:
            column, row = self._grid(window.device)
            left, top, right, bottom = _columns(window)
            inside = ((column >= left) & (column < right) & (row >= top) & (row < bottom)).float()
        for stage in range(recipe.colour_stages):
            if stage == 0 and inside is not None:  # the mean is that of the view before padding
                mean = _mean(_luma(image) * inside) / _mean(inside).clamp(min=1e-6)
            else:
                mean = _mean(_luma(image))
            *matrix, factor = _columns(colour[:, stage])
            red, green, blue = image
            image = [
                (r * red + g * green + b * blue + mean * factor).clamp(0, 1)
                for r, g, b in (matrix[:3], matrix[3:6], matrix[6:])
            ]
            if stage == 0 and inside is not None:
                image = [channel * inside for channel in image]
        if recipe.colour_stages == 0:
            # four weights may add up to a rounding error more than one
            image = [channel.clamp(max=1) for channel in image]
            image = image if inside is None else [channel * inside for channel in image]
        if recipe.has_tone:
            grey, threshold = _columns(tone)
            luma = _luma(image)
            image = [torch.where(grey > 0, luma, channel) for channel in image]
            image = [torch.where(channel >= threshold, 1 - channel, channel) for channel in image]
        return image

    def _grid(self, device: torch.device) -> tuple[Tensor, Tensor]:
        column = torch.arange(self.recipe.size, dtype=torch.float32, device=device)
        return column, column[:, None]


def _luma(image: list[Tensor]) -> Tensor:
    red, green, blue = image
    return float(LUMA[0]) * red + float(LUMA[1]) * green + float(LUMA[2]) * blue


def _columns(table: Tensor) -> list[Tensor]:
    """[batch, k] → k tensors [batch, 1, 1]."""
    return [column.view(-1, 1, 1) for column in table.unbind(-1)]


def _mean(plane: Tensor) -> Tensor:
    """[batch, size, size] → [batch, 1, 1]."""
    return plane.mean((1, 2), keepdim=True)


def single_image_loader(
    image: Any,
    *,
    image_size: int = 224,
    batch_size: int = 512,
    views: int | None = 1_281_167,
    seed: int = 0,
    recipe: str | ImageRecipe | None = None,
    patches: bool = False,
    start_step: int = 0,
    render: str = "host",
    workers: int | None = None,
) -> ViewLoader:
    """An endless loader of batches of views of one image.

    Args:
        image: path of an image, of a folder of images or of ready-made patches; a PIL image; an array uint8
            [height, width, 3]; or "sklearn:china.jpg", "sklearn:flower.jpg", "control:noise", "control:constant".
        image_size: side of a view, in pixels.
        batch_size: rows per step over all devices and hosts.
        views: how many base views one epoch shows; later epochs show the same ones in another order, freshly
            augmented. None: never the same view twice. 1,281,167 for ImageNet, 50,000 for CIFAR (Asano & Saeed 2023).
        seed: 0 ≤ seed < 2**64.
        recipe: an `ImageRecipe`, "cifar", "steady", "imagenet", or None: by size (below 96 pixels "cifar").
        patches: the images of the folder are base views already, and are all of them, whatever `views` says; only the
            training-time augmentation is drawn.
        start_step: begin with this step, as if all before had been drawn.
        render: "host" yields images; "device" yields `ViewNumbers`, which `Distiller` renders inside its step.
        workers: processes that draw the images; 0: a thread of this one. None: 0 without CUDA, else one less than this
            process has cores, at most 8. The images are the same. Numbers are always drawn in a thread.

    Returns:
        A `ViewLoader`.

    Raises:
        DatumError: the image cannot be read. RecipeError, ConfigError: a value is out of range.
    """
    view_set = make_view_set(image, image_size, recipe, patches=patches, views=views, seed=seed)
    return view_loader(view_set, batch_size, start_step=start_step, render=render, workers=workers)


def view_loader(
    view_set: SampleSet,
    batch_size: int,
    *,
    start_step: int = 0,
    render: str = "host",
    shard: Shard = (0, 1),
    shown: Shown | None = None,
    workers: int | None = None,
) -> ViewLoader:
    """`single_image_loader` for a `ViewSet` that exists already; same arguments and result.

    Args:
        shard: (index, count): draw only process `index`'s rows of each step; no two processes draw the same ones.
        shown: which step's views are shown at each step, if not its own: int64 [k] → int64 [k].
    """
    return ViewLoader(
        view_set, batch_size, start_step=start_step, render=render, shard=shard, shown=shown, workers=workers
    )


class ViewLoader:
    """Endless batches of views, the next two always being prepared; iterating anew begins anew.

    Each is one step's rows of this shard: float32 [rows, 3, size, size] in [0, 1], RGB, channels last in memory; or
    with render="device" `ViewNumbers` of tensors, for `renderer`. In pinned memory where there is CUDA.

    Attributes:
        steps_per_epoch: None if the views never come again.
        start_step, batch_size, render, view_set, workers: as asked for.
    """

    def __init__(
        self,
        view_set: SampleSet,
        batch_size: int,
        *,
        start_step: int = 0,
        render: str = "host",
        shard: Shard = (0, 1),
        shown: Shown | None = None,
        workers: int | None = None,
    ):
        check_stream(batch_size, render)
        self._pinned = torch.cuda.is_available()
        if workers is None:
            own = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # as torchrun tells
            workers = max(0, min(8, own - 1)) if self._pinned else 0
        if workers < 0:
            raise ConfigError(f"workers (={workers}) must be at least 0, or None for as many as suit this machine.")
        self._pieces = _Pieces(view_set, batch_size, shard_rows(batch_size, shard), shown, render)
        self.steps_per_epoch = None if view_set.views is None else -(-view_set.views // batch_size)
        self.start_step, self.batch_size, self.render, self.workers = start_step, batch_size, render, workers
        self.view_set = view_set

    @cached_property
    def renderer(self) -> Renderer:
        """A `Renderer` of the view set, always the same one; on the CPU until it is moved."""
        return Renderer(self.view_set)

    def __iter__(self) -> Ahead[Any]:
        return ahead(self._steps())

    def look(self, rows: int) -> Any:
        """At most so many rows of the first step, drawn here and now."""
        numbers = self.start_step * self.batch_size + np.arange(min(rows, self.batch_size))
        drawn = self._pieces.drawn(self.view_set.numbers(numbers))
        return drawn if self.render == "device" else drawn.movedim(-1, 1)

    def _steps(self) -> Iterator[Any]:
        pieces = self._pieces
        first, skipped = divmod(self.start_step, pieces.at_once)
        drawn = self._drawn(first * pieces.parts)
        for group in count(first):
            if pieces.parts > 1:  # of images or clips
                yield self._whole(group, drawn).movedim(-1, 1)
                continue
            for step in _split(next(drawn), pieces.at_once)[skipped:]:
                yield self._finished(step)
            skipped = 0

    def _whole(self, step: int, drawn: Iterator[Tensor]) -> Tensor:
        """One step out of its pieces, which only the processes of a loader draw elsewhere first."""
        pieces = self._pieces
        rows = [len(part) for part in pieces.rows]
        whole = torch.empty((sum(rows), *self.view_set.recipe.shape), pin_memory=self._pinned)
        for part, place in enumerate(whole.split(rows)):
            if self.workers:
                place.copy_(next(drawn))
            else:
                pieces.draw(step * pieces.parts + part, place)
        return whole

    def _finished(self, step: Any) -> Any:
        if isinstance(step, Numbers):
            return type(step)(*(part.pin_memory() if self._pinned else part for part in step))
        return (step.pin_memory() if self._pinned else step).movedim(-1, 1)

    def _drawn(self, first: int) -> Iterator[Any]:
        """Pieces from the `first` on."""
        if not self.workers or self.render == "device":
            yield from map(self._pieces.draw, count(first))
            return
        loader = DataLoader(
            self._pieces, sampler=_From(first), batch_size=None, num_workers=self.workers, worker_init_fn=_begin_work,
            generator=torch.Generator(),  # a seed for the workers is drawn from it, else from the one all share
        )  # fmt: skip
        try:
            for piece in loader:
                if isinstance(piece, AipError):
                    raise piece
                yield piece
        except RuntimeError as error:
            if "DataLoader worker" in str(error) and "Traceback" not in str(error):
                raise RunError(
                    f"A process that draws views has ended: {error}. If memory is short (also in /dev/shm), take fewer "
                    f"workers (={self.workers}) or none, or draw with render='device'."
                ) from error
            raise


class _From:
    """All integers from one on, for a `DataLoader`, whose iterator asks for it in the thread that iterates."""

    def __init__(self, first: int):
        self.first = first

    def __iter__(self) -> Iterator[int]:
        return count(self.first)


class _Pieces(Dataset):
    """What is drawn in one go: several small steps, one, or part of a large one, by number.

    A row is always computed in the same company, wherever a loader starts and whatever the workers.
    """

    def __init__(self, view_set: SampleSet, batch_size: int, rows: np.ndarray, shown: Shown | None, render: str):
        self.view_set, self.batch_size, self.shown, self.render = view_set, batch_size, shown, render
        pixels = view_set.recipe.pixels
        self.at_once = steps_at_once(len(rows), pixels)
        self.parts = -(-len(rows) * pixels // _PIECE) if self.at_once == 1 and render == "host" else 1
        self.parts = min(self.parts, len(rows))
        self.rows = np.array_split(rows, self.parts)

    def draw(self, number: int, out: Tensor | None = None) -> Any:
        """What `render_numbers` gives, into `out` if given, or numbers, as tensors."""
        group, part = divmod(number, self.parts)
        steps = group * self.at_once + np.arange(self.at_once)
        return self.drawn(step_numbers(self.view_set, self.batch_size, steps, self.rows[part], self.shown), out)

    def drawn(self, numbers: Numbers, out: Tensor | None = None) -> Any:
        """NumPy's numbers as tensors, or as images."""
        if self.render == "device":
            return type(numbers)(*map(torch.from_numpy, numbers))
        return torch.from_numpy(render_numbers(numbers, self.view_set, None if out is None else out.numpy()))

    def __getitem__(self, number: int) -> Any:
        try:
            return self.draw(number)
        except AipError as error:  # a `DataLoader` would wrap a traceback of the worker around it
            return error


def _split(drawn: Any, count: int) -> list[Any]:
    """Several steps drawn at once, apart."""
    if isinstance(drawn, Numbers):
        return [type(drawn)(*step) for step in zip(*(part.chunk(count) for part in drawn))]
    return list(drawn.chunk(count))


def _begin_work(worker: int) -> None:
    """In a process of a `DataLoader`."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains; it ends this one
    cv2.setNumThreads(0)
