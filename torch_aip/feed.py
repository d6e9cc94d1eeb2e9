"""What the distiller's steps are fed with: views and the mixing of their step, shared out over processes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bridge.datum.mixing import Mixing, MixingNumbers, mixing_numbers
from bridge.datum.steps import Numbers, Shard, Shown, shard_rows
from bridge.errors import ConfigError, DatasetError
from torch_aip.views import ViewLoader

_MIXINGS_AT_ONCE = 16


@dataclass(frozen=True)
class Stored:
    """Fixed batches in place of ever new ones.

    Attributes:
        shown: which stored batch is shown at each step: int64 [k] → int64 [k].
        read: a stored batch's number → the teacher's answers, float16 [batch, classes].
    """

    shown: Shown
    read: Callable[[int], np.ndarray]


class Step(NamedTuple):
    """What one process needs for one step.

    Attributes:
        views: float32 [rows, 3, height, width] (clips: [rows, 3, frames, height, width]) in [0, 1], or their numbers.
        mixing: `MixingNumbers` of the same rows.
        teacher: stored answers float32 [rows, classes], or None.
    """

    views: Any
    mixing: MixingNumbers
    teacher: Tensor | None

    def to(self, device: torch.device) -> Step:
        """The same on a device, without waiting for it."""
        return mapped(self, lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, number: int, parts: int) -> Step:
        """Rows number · n / parts to (number + 1) · n / parts of the n there are."""
        rows = len(self.mixing.weight) // parts
        return mapped(self, lambda tensor: tensor[number * rows : (number + 1) * rows])


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A structure of tensors with every one of them changed."""
    if isinstance(value, tuple):
        return type(value)(*(mapped(part, change) for part in value))  # type: ignore[call-arg]
    return change(value) if isinstance(value, Tensor) else value


def feed(
    views: Iterable[Any], mixing: Mixing, seed: int, first_step: int, shard: Shard = (0, 1),
    stored: Stored | None = None,
) -> Iterator[Step]:  # fmt: skip
    """Endless steps of this process.

    A loader of `single_image_loader` is drawn anew so that each process draws its own rows alone. Any other one is
    taken to give each process rows of its own, as with PyTorch's DistributedSampler, and starts again at its end.

    Args:
        views: batches of images or clips, or their numbers.
        mixing, seed: which mixing of which step.
        first_step: number of the first batch.
        shard: this process's number, and how many there are.
        stored: the teacher's answers, if they are known already; only with a loader of `single_image_loader`.
    """
    pin = torch.cuda.is_available()
    if isinstance(views, ViewLoader) and (shard != (0, 1) or stored is not None):
        views = type(views)(
            views.view_set, views.batch_size, start_step=first_step, render=views.render, shard=shard,
            shown=None if stored is None else stored.shown, workers=views.workers,
        )  # fmt: skip
    drawn: dict[int, list[np.ndarray]] = {}

    def tensors(arrays: Iterable[np.ndarray]) -> list[Tensor]:
        made = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        return [tensor.pin_memory() for tensor in made] if pin else made

    for step, batch in enumerate(_endless(views), start=first_step):
        rows = len(batch.affine if isinstance(batch, Numbers) else batch)
        kept = shard_rows(rows * shard[1], shard)
        whole = rows * shard[1]
        shown = step if stored is None else int(stored.shown(np.array([step]))[0])
        if stored is None and isinstance(views, ViewLoader):  # always of one size, so several are drawn by one call
            block = step // _MIXINGS_AT_ONCE
            if block not in drawn:
                steps = block * _MIXINGS_AT_ONCE + np.arange(_MIXINGS_AT_ONCE)
                drawn = {block: [a.reshape(len(steps), whole, *a.shape[1:]) for a in mixing_numbers(
                    mixing, seed, steps, whole)]}  # fmt: skip
            numbers = [array[step % _MIXINGS_AT_ONCE][kept] for array in drawn[block]]
        else:
            numbers = [array[kept] for array in mixing_numbers(mixing, seed, shown, whole)]
        answers = None if stored is None else tensors([stored.read(shown)[kept].astype(np.float32)])[0]
        yield Step(batch, MixingNumbers(*tensors(numbers)), answers)


def steps_per_epoch(views: Any) -> int:
    """How many steps an epoch has, as the loader carries or counts it.

    Raises:
        ConfigError: it does not say.
    """
    steps = getattr(views, "steps_per_epoch", None)
    if steps is None and not isinstance(views, ViewLoader) and hasattr(views, "__len__"):
        steps = len(views)
    if not steps:
        raise ConfigError(
            "The loader does not say how long an epoch is (it is endless, empty or of unknown length); pass "
            "steps_per_epoch=... to fit."
        )
    return steps


def _endless(views: Iterable[Any]) -> Iterator[Any]:
    for epoch in itertools.count():
        count = 0
        set_epoch = getattr(getattr(views, "sampler", None), "set_epoch", None)
        if set_epoch is not None:  # PyTorch's DistributedSampler shuffles anew only if it is told
            set_epoch(epoch)
        for batch in views:
            count += 1
            yield batch
        if not count:
            raise DatasetError("The loader gave no batch; fit needs at least one batch of images.")
