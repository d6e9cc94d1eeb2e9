"""What the distiller's steps are fed with: views and the mixing of their step, shared out over devices and hosts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from bridge.datum.mixing import Mixing, MixingNumbers, mixing_numbers
from bridge.datum.steps import Shard, Shown, shard_rows
from bridge.errors import ConfigError
from keras_aip.hosts import number_of_hosts
from keras_aip.stream import ahead, stream
from keras_aip.views import view_dataset

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
) -> Any:
    """Endless batches {"views": …, "mixing": `MixingNumbers`}, and with stored answers {…, "teacher": …}.

    Over several hosts a data set of `single_image_dataset` is drawn anew so that each host draws its own rows alone;
    any other one is read by every host, which keeps its share of each batch.

    Args:
        views: batches of images or `ViewNumbers`; batch sizes are those of a whole step.
        mixing, seed: which mixing of which step.
        first_step: number of the first batch.
        strategy: the one that trains.
        stored: the teacher's answers, if they are known already; only with a data set of `single_image_dataset`.

    Returns:
        A `tf.data.Dataset`, or over several hosts a distributed one.
    """
    hosts = number_of_hosts(strategy)
    ours: Any = views
    if hosts > 1 and hasattr(views, "view_set"):
        return strategy.distribute_datasets_from_function(
            lambda context: _share(ours, mixing, seed, first_step, context, stored)
        )
    if stored is not None:
        views = view_dataset(
            ours.view_set, ours.batch_size, start_step=first_step, render=ours.render, shown=stored.shown
        )
    data = _with_mixing(views.repeat(), mixing, seed, first_step, stored=stored)
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
) -> tf.data.Dataset:
    """One host's rows of each step, in as many batches as it has devices."""
    shard = (context.input_pipeline_id, context.num_input_pipelines)
    own = view_dataset(
        views.view_set, views.batch_size, start_step=first_step, render=views.render, shard=shard,
        shown=None if stored is None else stored.shown,
    )  # fmt: skip
    data = _with_mixing(own, mixing, seed, first_step, shard, stored)
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
) -> tf.data.Dataset:
    """Zip each batch with the mixing of its step, and with the answers if they are stored."""
    spec = tf.nest.flatten(views.element_spec)[0]
    rows = spec.shape[0] if spec.shape.rank else None
    if rows is None:  # the last batch of a pass may be smaller than the others
        steps = tf.data.Dataset.counter(first_step)
        return ahead(
            tf.data.Dataset.zip((views, steps)).map(
                lambda data, step: {"views": data, "mixing": _mixing_of(data, mixing, seed, step)}
            )
        )
    batch = rows * shard[1]
    kept = shard_rows(batch, shard)

    def draw(steps: np.ndarray) -> list[np.ndarray]:
        wanted = (np.arange(len(steps))[:, None] * batch + kept).ravel()
        steps = steps if stored is None else stored.shown(steps)
        numbers = [part[wanted] for part in mixing_numbers(mixing, seed, steps, batch)]
        if stored is not None:
            numbers.append(np.concatenate([stored.read(int(step))[kept] for step in steps]).astype(np.float32))
        return numbers

    def named(*tensors: tf.Tensor) -> dict[str, Any]:
        answers = {} if stored is None else {"teacher": tensors[3]}
        return {"mixing": MixingNumbers(*tensors[:3]), **answers}

    numbers = stream(draw, rows, start_step=first_step, at_once=_MIXINGS_AT_ONCE, finish=named)
    data = tf.data.Dataset.zip((views, numbers)).map(lambda data, drawn: {"views": data, **drawn})
    return ahead(data)


def _mixing_of(data: Any, mixing: Mixing, seed: int, step: tf.Tensor) -> MixingNumbers:
    """The mixing of one batch whose size only it knows."""

    def draw(step: np.int64, rows: np.int32) -> list[np.ndarray]:
        return list(mixing_numbers(mixing, seed, int(step), int(rows)))

    rows = tf.shape(tf.nest.flatten(data)[0])[0]
    numbers = tf.numpy_function(draw, [step, rows], [tf.int32, tf.float32, tf.float32], stateful=False)
    for tensor, shape in zip(numbers, ([None], [None, 4], [None])):
        tensor.set_shape(shape)
    return MixingNumbers(*numbers)
