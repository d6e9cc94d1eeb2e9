"""Endless `tf.data` pipelines whose every step is a pure function of its number."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

PARALLEL = os.cpu_count() or 1
"""Calls of one stage at the same time, each single-threaded."""


def stream(
    draw: Callable[[np.ndarray], Sequence[np.ndarray]],
    rows: int,
    *,
    start_step: int = 0,
    at_once: int = 1,
    finish: Callable[..., Any] | None = None,
) -> tf.data.Dataset:
    """Steps `start_step`, `start_step` + 1, … drawn by NumPy.

    Args:
        draw: int64 [k] step numbers → arrays [k · rows, …], always of the same shapes for the same k.
        rows: per step.
        at_once: how many steps are drawn by one call, because every call into NumPy costs as much as a few dozen
            rows. Calls begin at multiples of it whatever `start_step` is, so that a row is always computed in the same
            company and comes out the same to the last bit.
        finish: what is done in TensorFlow with the tensors of one call, such as rendering.

    Returns:
        A data set of tensors [rows, …], in the structure `finish` gives (else a tuple).
    """
    example = draw(np.arange(at_once))

    def call(number: tf.Tensor) -> Any:
        drawn: Any = tf.numpy_function(
            lambda first: list(draw(first * at_once + np.arange(at_once))),
            [number],
            [array.dtype for array in example],
            stateful=False,
        )
        for tensor, array in zip(drawn, example):
            tensor.set_shape(array.shape)
        return tuple(drawn)

    def by_step(*tensors: Any) -> Any:
        structure: Any = tensors[0] if len(tensors) == 1 else tensors
        return tf.nest.map_structure(lambda t: tf.reshape(t, [at_once, rows, *t.shape[1:]]), structure)

    data = tf.data.Dataset.counter(start_step // at_once).map(call, num_parallel_calls=1)
    if finish is not None:
        data = data.map(finish, num_parallel_calls=PARALLEL)
    return data.map(by_step).unbatch().skip(start_step % at_once)


def ahead(data: tf.data.Dataset) -> tf.data.Dataset:
    """The same data, two batches prepared ahead, with tf.data's autotuner off.

    The autotuner wakes at intervals that double; where the end of an iteration just misses it, ending takes until it
    wakes again: 20 s after a training of 25 s, once in ten (TF 2.21). With fixed numbers there is nothing to tune.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.prefetch(2).with_options(options)
