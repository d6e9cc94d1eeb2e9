"""From the numbers of samples to an endless data set: what views of an image and of a sound have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from bridge.datum.steps import Shard, Shown, check_stream, shard_rows, step_numbers, steps_at_once
from bridge.datum.views import CountedSet
from keras_aip.stream import ahead, stream


def counted_dataset(
    sample_set: CountedSet,
    renderer_of: Callable[[Any], Any],
    batch_size: int,
    *,
    start_step: int = 0,
    render: str = "host",
    shard: Shard = (0, 1),
    shown: Shown | None = None,
) -> tf.data.Dataset:
    """An endless data set of batches of the samples of one datum.

    Args:
        sample_set: whose samples.
        renderer_of: makes the renderer of a set: from `renderer.numbers` of a batch to what they show.
        batch_size: rows per step over all devices and hosts.
        start_step: begin with this step, as if all before had been drawn.
        render: "host" yields what is rendered; "device" the numbers, to be rendered inside the training step.
        shard: (index, count): draw only host `index`'s rows of each step; no two hosts draw the same ones.
        shown: which step's samples are shown at each step, if not its own: int64 [k] → int64 [k].

    Returns:
        A `tf.data.Dataset` with the attributes `steps_per_epoch` (None if `views` of the set is None), `start_step`,
        `batch_size`, `view_set`, `renderer`, and `redrawn`, this function with the same set, batch size and render.

    Raises:
        RecipeError, ConfigError: a value is out of range.
    """
    check_stream(batch_size, render)
    renderer = renderer_of(sample_set)
    rows = shard_rows(batch_size, shard)

    def draw(steps: np.ndarray) -> Any:
        return step_numbers(sample_set, batch_size, steps, rows, shown)

    def finish(*numbers: tf.Tensor) -> Any:
        return renderer(renderer.numbers(*numbers)) if render == "host" else renderer.numbers(*numbers)

    few = steps_at_once(len(rows), sample_set.recipe.pixels)
    data = ahead(stream(draw, len(rows), start_step=start_step, at_once=few, finish=finish))
    data.steps_per_epoch = None if sample_set.views is None else -(-sample_set.views // batch_size)
    data.start_step, data.batch_size = start_step, batch_size
    data.view_set, data.renderer = sample_set, renderer
    # A renderer of its own: that of the data set at hand may be placed on devices by then.
    data.redrawn = partial(counted_dataset, sample_set, renderer_of, batch_size, render=render)
    return data
