"""What the distiller's steps are fed with: views and the mixing of their step, shared out over devices and hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from bridge.datum.mixing import Mixing, MixingNumbers, mixing_numbers
from bridge.errors import ConfigError
from keras_aip.stream import Shard, shard_rows, stream
from keras_aip.views import view_dataset

_MIXINGS_AT_ONCE = 16


def feed(views: tf.data.Dataset, mixing: Mixing, seed: int, first_step: int, strategy: tf.distribute.Strategy) -> Any:
    """Endless batches {"views": …, "mixing": `MixingNumbers`}.

    Over several hosts a data set of `single_image_dataset` is drawn anew so that each host draws its own rows alone;
    any other one is read by every host, which keeps its share of each batch.

    Args:
        views: batches of images or `ViewNumbers`; batch sizes are those of a whole step.
        mixing, seed: which mixing of which step.
        first_step: number of the first batch.
        strategy: the one that trains.

    Returns:
        A `tf.data.Dataset`, or over several hosts a distributed one.
    """
    hosts = number_of_hosts(strategy)
    if hosts > 1 and hasattr(views, "view_set"):
        return strategy.distribute_datasets_from_function(
            lambda context: _share(views, mixing, seed, first_step, context)
        )
    data = _with_mixing(views.repeat(), mixing, seed, first_step)
    if hosts > 1:
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        data = data.with_options(options)
    return data


def number_of_hosts(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together; 1 but for a multi-worker strategy."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    spec = strategy.cluster_resolver.cluster_spec().as_dict()
    return sum(len(spec.get(job, [])) for job in ("chief", "worker"))


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
    views: Any, mixing: Mixing, seed: int, first_step: int, context: tf.distribute.InputContext
) -> tf.data.Dataset:
    """One host's rows of each step, in as many batches as it has devices."""
    shard = (context.input_pipeline_id, context.num_input_pipelines)
    own = view_dataset(views.view_set, views.batch_size, start_step=views.start_step, render=views.render, shard=shard)
    data = _with_mixing(own, mixing, seed, first_step, shard)
    per_device = context.get_per_replica_batch_size(views.batch_size)
    if per_device * context.num_input_pipelines == views.batch_size:
        return data
    return data.map(
        lambda step: tf.nest.map_structure(lambda t: tf.reshape(t, [-1, per_device, *t.shape[1:]]), step)
    ).unbatch()


def _with_mixing(
    views: tf.data.Dataset, mixing: Mixing, seed: int, first_step: int, shard: Shard = (0, 1)
) -> tf.data.Dataset:
    """Zip each batch with the mixing of its step."""
    spec = tf.nest.flatten(views.element_spec)[0]
    rows = spec.shape[0] if spec.shape.rank else None
    if rows is None:  # the last batch of a pass may be smaller than the others
        steps = tf.data.Dataset.counter(first_step)
        return tf.data.Dataset.zip((views, steps)).map(
            lambda data, step: {"views": data, "mixing": _mixing_of(data, mixing, seed, step)}
        )
    batch = rows * shard[1]
    kept = shard_rows(batch, shard)

    def draw(steps: np.ndarray) -> list[np.ndarray]:
        drawn = mixing_numbers(mixing, seed, steps, batch)
        return [
            part.reshape(len(steps), batch, *part.shape[1:])[:, kept].reshape(-1, *part.shape[1:]) for part in drawn
        ]

    numbers = stream(draw, rows, start_step=first_step, at_once=_MIXINGS_AT_ONCE, finish=MixingNumbers)
    data = tf.data.Dataset.zip((views, numbers)).map(lambda data, drawn: {"views": data, "mixing": drawn})
    return data.prefetch(tf.data.AUTOTUNE)


def _mixing_of(data: Any, mixing: Mixing, seed: int, step: tf.Tensor) -> MixingNumbers:
    """The mixing of one batch whose size only it knows."""

    def draw(step: np.int64, rows: np.int32) -> list[np.ndarray]:
        return list(mixing_numbers(mixing, seed, int(step), int(rows)))

    rows = tf.shape(tf.nest.flatten(data)[0])[0]
    numbers = tf.numpy_function(draw, [step, rows], [tf.int32, tf.float32, tf.float32], stateful=False)
    for tensor, shape in zip(numbers, ([None], [None, 4], [None])):
        tensor.set_shape(shape)
    return MixingNumbers(*numbers)
