"""A network out of an ONNX file, as a function that TensorFlow can trace."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from bridge.errors import TeacherError
from bridge.teachers.card import Card
from bridge.teachers.crossing import converted


def from_onnx(path: Path, card: Card) -> Crossed:
    """Make a function of a canonical ``model.onnx``; nothing foreign is executed: the graph is made here.

    Args:
        path: The file; onnx2tf converts it the first time, in about 20 s, and the result is cached.
        card: What it should take and give.

    Returns:
        float32 ``[batch, height, width, 3]`` in [0, 1], or waveforms ``[batch, samples]`` -> the scores as the file
        gives them.

    Raises:
        TeacherError: The file is refused, cannot be converted, or is not what the card describes.
    """
    return Crossed(path, card)


class Crossed:
    """What :func:`from_onnx` makes."""

    def __init__(self, path: Path, card: Card) -> None:
        saved = converted(path)
        try:
            self._loaded = tf.saved_model.load(str(saved))  # kept: its functions live no longer than it does
            self._answer = self._loaded.signatures["serving_default"]
            ((self._name, given),) = self._answer.structured_input_signature[1].items()
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TeacherError(
                f"{saved}, made of {path}, cannot be loaded ({first}). Remove it, and try again."
            ) from error
        self._shape = given.shape
        expected = None if card.input_size is None else [*card.input_size, *([] if card.kind == "audio" else [3])]
        gives = self._answer.structured_outputs["scores"].shape
        if card.outputs != "labels" and gives.rank == 2 and gives[1] not in (None, card.classes):
            raise TeacherError(f"{path} answers for {gives[1]} classes, its card says {card.classes}.")
        if expected is not None and self._shape[1:].as_list() != expected:
            raise TeacherError(f"{path} takes {self._shape[1:].as_list()} per sample, its card says {expected}.")

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        if not self._shape.is_compatible_with(images.shape):
            raise TeacherError(f"The teacher takes {_listed(self._shape)}, not {_listed(images.shape)}.")
        return self._answer(**{self._name: images})["scores"]


def _listed(shape: tf.TensorShape) -> str:
    return str(shape).replace("None", "batch", 1) if shape.rank else str(shape)
