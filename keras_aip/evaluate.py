"""Measuring a student: against labels, against its teacher, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.errors import DatasetError
from bridge.measuring import scored, takes_clips
from bridge.pictures import Pictures
from keras_aip.datasets import Labelled, batches, load
from keras_aip.teachers import Teacher


def predict(model: Any, images: np.ndarray | Pictures, batch_size: int = 256) -> np.ndarray:
    """Logits of a Keras model, or log-space answers of a `Teacher`, in inference mode.

    Args:
        model: takes float32 [batch, h, w, 3] in [0, 1].
        images: uint8 [n, h, w, 3]; of `Pictures` those that cannot be decoded are black, see `readable_rows`.
        batch_size: images per forward pass.

    Returns:
        float32 [n, classes].
    """
    return predict_all([model], images, batch_size)[0]


def predict_all(judged: Sequence[Any], images: np.ndarray | Pictures, batch_size: int = 256) -> list[np.ndarray]:
    """`predict` of several models, each picture decoded once."""
    # one graph for every batch size, so the last, smaller batch is not traced again
    shape = tf.TensorSpec([None, *images.shape[1:]], tf.float32)
    forward = [tf.function(_answer(model)).get_concrete_function(shape) for model in judged]
    answers: list[list[np.ndarray]] = [[] for _ in judged]
    for batch in batches(images, batch_size):
        for call, of_model in zip(forward, answers):
            of_model.append(call(tf.constant(batch)).numpy())
    return [np.concatenate(of_model) for of_model in answers]


def _answer(model: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    answer = model if isinstance(model, Teacher) else lambda x: model(x, training=False)
    return lambda x: tf.cast(answer(x), tf.float32)


def evaluate(
    model: keras.Model | Teacher,
    dataset: str | Labelled,
    *,
    teacher: Teacher | None = None,
    split: str = "test",
    batch_size: int = 256,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Measure a model.

    Args:
        model: a Keras model from float32 [batch, h, w, 3] in [0, 1] to logits, or a `Teacher`.
        dataset: a name in `FACTS`, such as "cifar10" or "in1k", a folder with one folder per class, a flat folder of
            images without labels, an .npz file, or a `Labelled`.
        teacher: for agreement and KL, and to be measured too.
        split: of a named data set.
        batch_size: images per forward pass.
        data_dir: where named sets are looked for; None: $AIP_DATA, or ./data.

    Returns:
        teacher_top1, student_top1, teacher_top5, student_top5, agreement, kl (nats, τ = 1), ece (15 bins), dataset, n.
        Fractions lie in [0, 1]; what has no meaning is None. Pictures that cannot be decoded are left out of all of
        them and of n, with a warning.

    Raises:
        DatasetError: the data cannot be read or do not fit the model.
    """
    for who, judged in (("model", model), ("teacher", teacher)):
        if len(_input_size(judged)) == 3:
            raise DatasetError(f"the {who} takes clips, and video is torch_aip's: measure it by torch_aip.evaluate.")
    if isinstance(dataset, Labelled):
        data = dataset
    else:
        takes_clips(dataset, _input_size(model))  # refuses sets of videos by name
        data = load(dataset, split=split, image_size=input_side(model), data_dir=data_dir)
    for who, judged in (("model", model), ("teacher", teacher)):
        expected = _input_size(judged)
        if any(want is not None and want != have for want, have in zip(expected, data.images.shape[1:3])):
            raise DatasetError(
                f"{data.name} has images of {list(data.images.shape[1:3])} pixels, the {who} wants {list(expected)}; "
                f"load it with image_size={expected[0]}."
            )
    return scored(data, *predict_all([model] if teacher is None else [model, teacher], data.images, batch_size))


@contextlib.contextmanager
def recalibrated(model: keras.Model, image_batches: Iterable[tf.Tensor]) -> Iterator[keras.Model]:
    """Inside the context, BatchNorm statistics are those of the given images; afterwards the old ones are back.

    The student's statistics come from mixed views. This asks what they would give on unmixed ones, and never takes
    test images.

    Args:
        model: with or without BatchNorm.
        image_batches: float32 [batch, h, w, 3] in [0, 1] each; every batch counts the same.
    """
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    weights, momenta = model.get_weights(), [layer.momentum for layer in norms]
    try:
        for number, images in enumerate(image_batches):
            for layer in norms:
                layer.momentum = 1 - 1 / (number + 1)  # the running mean over all batches so far
            model(images, training=True)
        yield model
    finally:
        for layer, momentum in zip(norms, momenta):
            layer.momentum = momentum
        model.set_weights(weights)


def input_side(model: Any) -> int | None:
    """Side of the images a model was built for in pixels, None where it takes any."""
    return _input_size(model)[0]


def _input_size(model: Any) -> tuple[int | None, ...]:
    """Height and width in pixels, each None where the model takes any or does not say (a subclassed one)."""
    if isinstance(model, Teacher):
        return model.input_size or (None, None)
    shape = getattr(model, "input_shape", None)
    return (shape[1], shape[2]) if isinstance(shape, tuple) and len(shape) == 4 else (None, None)
