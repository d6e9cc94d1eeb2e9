"""What the distiller's steps are fed with: views and the mixing of their step, shared out over devices and hosts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from bridge.datum.audio import AudioNumbers
from bridge.datum.masks import MaskNumbers, Masks, mask_numbers
from bridge.datum.mixing import Mixing, MixingNumbers, mixing_numbers
from bridge.datum.steps import Shard, Shown, shard_rows
from bridge.errors import ConfigError
from keras_aip.hosts import number_of_hosts
from keras_aip.stream import ahead, stream

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


def feed(
    views: tf.data.Dataset,
    mixing: Mixing,
    seed: int,
    first_step: int,
    strategy: tf.distribute.Strategy,
    stored: Stored | None = None,
    masks: Masks | None = None,
) -> Any:
    """Endless batches {"views": …, "mixing": `MixingNumbers`}; with stored answers also "teacher", with masks "masks".

    Over several hosts a data set of `single_image_dataset` or `single_audio_dataset` is drawn anew so that each host
    draws its own rows alone; any other one is read by every host, which keeps its share of each batch.

    Args:
        views: batches of images or waveforms, or of their numbers; batch sizes are those of a whole step.
        mixing, seed: which mixing of which step.
        first_step: number of the first batch.
        strategy: the one that trains.
        stored: the teacher's answers, if they are known already; only with a data set of `single_image_dataset` or
            `single_audio_dataset`.
        masks: of spectrograms, if there are to be some; not with stored answers.

    Returns:
        A `tf.data.Dataset`, or over several hosts a distributed one.
    """
    hosts = number_of_hosts(strategy)
    ours: Any = views
    if hosts > 1 and hasattr(views, "view_set"):
        return strategy.distribute_datasets_from_function(
            lambda context: _share(ours, mixing, seed, first_step, context, stored, masks)
        )
    if stored is not None:
        views = ours.redrawn(start_step=first_step, shown=stored.shown)
    data = _with_mixing(views.repeat(), mixing, seed, first_step, stored=stored, masks=masks)
    if hosts > 1:
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        data = data.with_options(options)
    return data


def steps_per_epoch(views: tf.data.Dataset) -> int:
    """How many steps an epoch has, as the data set carries or counts it.

    Raises:
        ConfigError: it does not say.
    """
    steps = getattr(views, "steps_per_epoch", None)
    if steps is None:
        steps = int(views.cardinality())
    if steps <= 0:
        raise ConfigError(
            "The data set does not say how long an epoch is (it is endless or of unknown length); pass "
            "steps_per_epoch=... to fit."
        )
    return steps


def _share(
    views: Any,
    mixing: Mixing,
    seed: int,
    first_step: int,
    context: tf.distribute.InputContext,
    stored: Stored | None = None,
    masks: Masks | None = None,
) -> tf.data.Dataset:
    """One host's rows of each step, in as many batches as it has devices."""
    shard = (context.input_pipeline_id, context.num_input_pipelines)
    own = views.redrawn(start_step=first_step, shard=shard, shown=None if stored is None else stored.shown)
    data = _with_mixing(own, mixing, seed, first_step, shard, stored, masks)
    per_device = context.get_per_replica_batch_size(views.batch_size)
    if per_device * context.num_input_pipelines == views.batch_size:
        return data
    return data.map(
        lambda step: tf.nest.map_structure(lambda t: tf.reshape(t, [-1, per_device, *t.shape[1:]]), step)
    ).unbatch()


def _with_mixing(
    views: tf.data.Dataset,
    mixing: Mixing,
    seed: int,
    first_step: int,
    shard: Shard = (0, 1),
    stored: Stored | None = None,
    masks: Masks | None = None,
) -> tf.data.Dataset:
    """Zip each batch with the mixing of its step, with the masks, and with the answers if they are stored."""
    spec = tf.nest.flatten(views.element_spec)[0]
    axes = 1 if mixing.on == "input" and takes_sounds(views.element_spec) else 2
    rows = spec.shape[0] if spec.shape.rank else None

    def numbers_of(steps: np.ndarray, batch: int) -> list[np.ndarray]:
        drawn = list(mixing_numbers(mixing, seed, steps, batch, axes))
        return drawn if masks is None else [*drawn, *mask_numbers(masks, seed, steps, batch)]

    def named(*tensors: tf.Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {"mixing": MixingNumbers(*tensors[:3])}
        if masks is not None:
            found["masks"] = MaskNumbers(*tensors[3:5])
        if stored is not None:
            found["teacher"] = tensors[-1]
        return found

    if rows is None:  # the last batch of a pass may be smaller than the others
        steps = tf.data.Dataset.counter(first_step)
        shapes = [[None], [None, 4], [None], *([] if masks is None else [[None, masks.count, 2]] * 2)]

        def with_numbers(data: Any, step: tf.Tensor) -> dict[str, Any]:
            batch = tf.shape(tf.nest.flatten(data)[0])[0]
            kinds = [tf.int32] + [tf.float32] * (len(shapes) - 1)
            drawn = tf.numpy_function(
                lambda step, rows: numbers_of(np.array([step]), int(rows)), [step, batch], kinds, stateful=False
            )
            for tensor, shape in zip(drawn, shapes):
                tensor.set_shape(shape)
            return {"views": data, **named(*drawn)}

        return ahead(tf.data.Dataset.zip((views, steps)).map(with_numbers))
    batch = rows * shard[1]
    kept = shard_rows(batch, shard)

    def draw(steps: np.ndarray) -> list[np.ndarray]:
        wanted = (np.arange(len(steps))[:, None] * batch + kept).ravel()
        steps = steps if stored is None else stored.shown(steps)
        numbers = [part[wanted] for part in numbers_of(steps, batch)]
        if stored is not None:
            numbers.append(np.concatenate([stored.read(int(step))[kept] for step in steps]).astype(np.float32))
        return numbers

    numbers = stream(draw, rows, start_step=first_step, at_once=_MIXINGS_AT_ONCE, finish=named)
    data = tf.data.Dataset.zip((views, numbers)).map(lambda data, drawn: {"views": data, **drawn})
    return ahead(data)


def takes_sounds(element_spec: Any) -> bool:
    """Whether a data set of that kind yields sounds: waveforms [batch, samples], or their numbers."""
    if isinstance(element_spec, tuple):
        return isinstance(element_spec, AudioNumbers)
    return element_spec.shape.rank == 2
