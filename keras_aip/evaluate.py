"""Measuring a student: against labels, against its teacher, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.errors import DatasetError
from bridge.measuring import check_kind, samples_of, scored, takes_clips, takes_sounds
from bridge.pictures import Pictures
from bridge.sounds import LabelledSounds, Sounds
from keras_aip import models
from keras_aip.datasets import Labelled, batches, load, load_audio
from keras_aip.teacher import Teacher


def predict(model: Any, images: np.ndarray | Pictures | Sounds, batch_size: int = 256) -> np.ndarray:
    """Logits of a Keras model, or log-space answers of a `Teacher`, in inference mode.

    Args:
        model: takes float32 [batch, h, w, 3] in [0, 1], or [batch, samples] in [-1, 1].
        images: uint8 [n, h, w, 3]; of `Pictures` those that cannot be decoded are black, see `readable_rows`. Or
            sounds: int16 [n, samples].
        batch_size: images or sounds per forward pass.

    Returns:
        float32 [n, classes].
    """
    return predict_all([model], images, batch_size)[0]


def predict_all(
    judged: Sequence[Any], images: np.ndarray | Pictures | Sounds, batch_size: int = 256
) -> list[np.ndarray]:
    """`predict` of several models, each picture or sound decoded once."""
    # one graph for every batch size, so the last, smaller batch is not traced again
    shape = tf.TensorSpec([None, *images.shape[1:]], tf.float32)
    forward = [
        model if getattr(model, "asked", None) else tf.function(_answer(model)).get_concrete_function(shape)
        for model in judged
    ]
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
    dataset: str | Labelled | LabelledSounds,
    *,
    teacher: Teacher | None = None,
    split: str = "test",
    batch_size: int = 256,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Measure a model.

    Args:
        model: a Keras model from float32 [batch, h, w, 3] in [0, 1] or [batch, samples] in [-1, 1] to logits, or a
            `Teacher`.
        dataset: a name in `FACTS` or `AUDIO_FACTS`, such as "cifar10" or "speech_commands", a folder with one folder
            per class, a flat folder without labels, an .npz file, a `Labelled`, or `LabelledSounds`.
        teacher: for agreement and KL, and to be measured too.
        split: of a named data set.
        batch_size: images or sounds per forward pass.
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
    data = dataset if not isinstance(dataset, str) else _loaded(model, dataset, split, data_dir)
    for who, judged in (("model", model), ("teacher", teacher)):
        check_kind(data, who, _known(_input_size(judged)))
        _check_size(data, who, judged)
    answers = predict_all([model] if teacher is None else [model, teacher], samples_of(data), batch_size)
    return scored(data, *answers, teacher_labels=teacher is not None and teacher.outputs == "labels")


def _loaded(model: Any, dataset: str, split: str, data_dir: str | None) -> Labelled | LabelledSounds:
    """A set by name or path, of images or sounds as the model takes them."""
    size = _input_size(model)
    if takes_sounds(dataset, _known(size)):
        rate = rate_of(model)
        if rate is None or size[0] is None:
            raise DatasetError(
                "the model does not say at which rate it hears: wrap it as keras_aip.Teacher(model, rate=16000), or "
                "load the sounds (keras_aip.datasets.load_audio), and give them."
            )
        return load_audio(dataset, split, rate=rate, seconds=size[0] / rate, data_dir=data_dir)
    takes_clips(dataset, _known(size))  # refuses sets of videos by name
    return load(dataset, split=split, image_size=size[0], data_dir=data_dir)


def _check_size(data: Labelled | LabelledSounds, who: str, judged: Any) -> None:
    """Raises: DatasetError: images or sounds of another size, or sounds at another rate, than a network takes."""
    expected, sounds = _input_size(judged), isinstance(data, LabelledSounds)
    found = samples_of(data).shape[1:2] if sounds else samples_of(data).shape[1:3]
    if any(want is not None and want != have for want, have in zip(expected, found)):
        what, how = ("sounds", f"seconds={expected[0]} / rate") if sounds else ("images", f"image_size={expected[0]}")
        unit = "samples" if sounds else "pixels"
        raise DatasetError(
            f"{data.name} has {what} of {list(found)} {unit}, the {who} wants {list(expected)}; load it with {how}."
        )
    rate = rate_of(judged)
    if isinstance(data, LabelledSounds) and rate not in (None, data.rate):
        raise DatasetError(
            f"{data.name} has sounds at {data.rate} Hz, the {who} wants {rate}; load it with rate={rate}."
        )


def rate_of(model: Any) -> int | None:
    """Samples per second of the sounds a model was built for; None: it takes none, or does not say."""
    if isinstance(model, Teacher):
        return model.rate
    return (models.architecture_of(model) or {}).get("arguments", {}).get("rate")


@contextlib.contextmanager
def recalibrated(model: keras.Model, image_batches: Iterable[tf.Tensor]) -> Iterator[keras.Model]:
    """Inside the context, BatchNorm statistics are those of the given images; afterwards the old ones are back.

    The student's statistics come from mixed views. This asks what they would give on unmixed ones, and never takes
    test images.

    Args:
        model: with or without BatchNorm.
        image_batches: float32 [batch, h, w, 3] in [0, 1] or [batch, samples] in [-1, 1] each; every batch counts the
            same.
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


def _input_size(model: Any) -> tuple[int | None, ...]:
    """Height and width in pixels, or (samples,); None where a model takes any or does not say (a subclassed one)."""
    if isinstance(model, Teacher):
        return model.input_size or (None, None)
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 2:
        return shape[1:]
    return (shape[1], shape[2]) if isinstance(shape, tuple) and len(shape) == 4 else (None, None)


def _known(size: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
    """A size, or None of a model that says nothing of it."""
    return None if size == (None, None) else size
