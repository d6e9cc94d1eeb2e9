"""A teacher: a frozen network that answers in log space. `teachers` loads one from its folder."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.errors import TeacherError
from bridge.teachers.asking import Asked
from bridge.teachers.wrapped import SMALLEST_PROBABILITY, check_statements, number_of_classes
from keras_aip import models


class Teacher:
    """A frozen classifier, in inference mode whatever happens around it; its answers are in log space.

    Not a Keras layer: so a model that holds a teacher neither trains nor saves the teacher's weights.

    Args:
        model: A Keras model (frozen from then on), or any callable that takes a batch of images (or waveforms). One of
            NumPy arrays, such as of a service, is not asked in training steps; in `Asked(function)` not twice either.
        outputs: What the model gives: ``logits``, ``probabilities``, or ``labels`` (class numbers ``[batch]``
            or one-hot ``[batch, classes]``).
        mean: Mean per channel to subtract before the model, in float32; None where the model does it itself.
        std: Standard deviation per channel to divide by before the model; given together with ``mean``.
        class_names: One name per class.
        dtype: ``"bfloat16"`` makes a Keras model again in bfloat16; None or ``"float32"`` leaves it as it is.
        digest: What identifies the network; None: a SHA-256 over its weights, where it shows any.
        classes: Number of classes, needed only where the model's output shape does not tell.
        input_size: Height and width in pixels (or the samples of a waveform), needed only where the model's input shape
            does not tell.
        rate: Samples per second of waveforms; None: what a network of ``keras_aip.models`` was built for.

    Raises:
        TeacherError: The arguments contradict each other or the model.

    Example:
        >>> teacher = Teacher(model, outputs="probabilities")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: keras.Model | Callable[..., Any],
        outputs: str = "logits",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        dtype: str | None = None,
        digest: str | None = None,
        *,
        classes: int | None = None,
        input_size: tuple[int, ...] | None = None,
        rate: int | None = None,
    ) -> None:
        if not callable(model):
            raise TeacherError(f"A teacher is a Keras model or a function of images, not a {type(model).__name__}.")
        check_statements(outputs, mean, std)
        self._outputs = outputs
        self._mean = None if mean is None else tuple(float(value) for value in mean)
        self._std = None if std is None else tuple(float(value) for value in std)
        self._model: Any = model
        self._digest = digest
        self._asked = model if isinstance(model, Asked) else None
        if self._asked is not None and mean is not None:
            raise TeacherError("What is asked takes images as they are, in [0, 1]: leave out mean and std.")
        if dtype == "bfloat16":
            if not isinstance(model, keras.Model):
                raise TeacherError("dtype='bfloat16' needs a Keras model; this teacher is another callable.")
            # Of the exact weights: the copy is the same teacher, computed less precisely.
            self._digest = self.digest
            self._model = models.in_bfloat16(model)
        elif dtype not in (None, "float32"):
            raise TeacherError(f"dtype={dtype!r} must be None, 'float32' or 'bfloat16'.")
        is_keras = isinstance(model, keras.layers.Layer)
        if is_keras:
            self._model.trainable = False
        self._takes_training = is_keras or _takes_training(model)
        self.dtype = dtype or "float32"
        self.class_names = None if class_names is None else tuple(class_names)
        self._input_size = input_size or models.input_size_of(model)
        self._rate = rate or (models.architecture_of(self._model) or {}).get("arguments", {}).get("rate")
        self._classes = self._find_classes(classes)

    @property
    def classes(self) -> int | None:
        """Number of classes; None where neither model nor arguments tell it."""
        return self._classes

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """Height and width of the images in pixels, or (samples,) of the waveforms; None: any, or unknown."""
        return self._input_size

    @property
    def rate(self) -> int | None:
        """Samples per second of the waveforms; None of anything else, or where neither model nor arguments tell it."""
        return self._rate

    @property
    def front_end(self) -> dict[str, Any] | None:
        """What a network for sounds of ``keras_aip.models`` hears with, as :func:`keras_aip.models.build` takes it."""
        return (models.architecture_of(self._model) or {}).get("arguments", {}).get("front_end")

    @property
    def network(self) -> Any:
        """The model itself, where it is asked about samples as they are: not behind a mean and a deviation."""
        return self._model if self._mean is None else None

    @property
    def outputs(self) -> str:
        """What the model gives: logits, probabilities or labels (the teacher itself gives log space)."""
        return self._outputs

    @property
    def asked(self) -> Asked | None:
        """Who is asked outside of training steps, so that answers have to be stored; None of a network."""
        return self._asked

    @property
    def trainable_weights(self) -> list[Any]:
        """Return nothing: a teacher is frozen."""
        return []

    @property
    def digest(self) -> str | None:
        """Identify the network by a SHA-256; None for a callable that shows no weights."""
        if self._digest is None and getattr(self._model, "weights", None):
            state = hashlib.sha256(repr((self._outputs, self._mean, self._std)).encode())
            for weight in self._model.weights:
                values = np.ascontiguousarray(tf.convert_to_tensor(weight).numpy())
                state.update(f"{values.shape}{values.dtype}".encode())
                state.update(values.tobytes())
            self._digest = state.hexdigest()
        return self._digest

    def __call__(self, images: Any) -> tf.Tensor:
        """Answer a batch in log space; no gradient flows through.

        Args:
            images: RGB ``[batch, height, width, 3]`` in [0, 1]; waveforms ``[batch, samples]`` in [-1, 1].

        Returns:
            float32 ``[batch, classes]``: logits as the model gives them, or ``log(max(p, 1e-7))`` of its
            probabilities or of its labels as one-hot vectors.

        Raises:
            TeacherError: The model's answer is no batch of class scores, or has another number of classes.
        """
        scores = self.scores(images)
        if self._outputs != "logits":
            scores = tf.math.log(tf.maximum(scores, SMALLEST_PROBABILITY))
        return tf.stop_gradient(scores)

    def scores(self, images: Any) -> tf.Tensor:
        """Answer a batch as the model does, float32 ``[batch, classes]``: logits, probabilities or one-hot labels.

        Raises:
            TeacherError: As for a call.
        """
        if self._asked is not None:
            return self._ask(self._asked, images)
        x = tf.cast(images, tf.float32)
        if self._mean is not None and self._std is not None:
            x = (x - tf.constant(self._mean, tf.float32)) / tf.constant(self._std, tf.float32)
        answer = self._model(x, training=False) if self._takes_training else self._model(x)
        if isinstance(answer, dict):
            answer = list(answer.values())
        if isinstance(answer, (list, tuple)) and len(answer) == 1:
            answer = answer[0]
        if isinstance(answer, (list, tuple)):
            raise TeacherError(f"The teacher gives {len(answer)} outputs; expected one, the class scores.")
        scores = tf.convert_to_tensor(answer)
        if self._outputs == "labels" and scores.shape.rank == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if self._outputs == "labels" and scores.shape.rank == 1:
            scores = tf.one_hot(tf.cast(scores, tf.int64), self._classes)
        if scores.shape.rank != 2:
            raise TeacherError(
                f"The teacher answers with shape {tuple(scores.shape)}; expected [batch, classes]"
                + (", or [batch] class numbers." if self._outputs == "labels" else ".")
            )
        found = scores.shape[1]
        if self._classes is not None and found is not None and found != self._classes:
            raise TeacherError(f"The teacher answers for {found} classes; {self._classes} were announced.")
        return tf.cast(scores, tf.float32)

    def find_out(self, images: tf.Tensor) -> None:
        """Find out whether a plain function can be part of a graph; one of NumPy arrays is asked outside of it.

        Args:
            images: A batch as it will come; the function is not asked about it.

        Raises:
            TeacherError: It is asked outside of a graph, and behind a mean and a deviation. An error of its own, which
                says nothing of symbols, goes through as it is.
        """
        if self._asked is not None or isinstance(self._model, (keras.layers.Layer, tf.Module)):
            return
        try:
            tf.function(self.scores, autograph=False).get_concrete_function(tf.TensorSpec(images.shape, tf.float32))
        except (NotImplementedError, AttributeError, TypeError) as error:
            # What Python and NumPy call the images of a graph; and what those say who are indexed by a list.
            if not any(word in str(error).lower() for word in ("symbolic", "valid indices")):
                raise
            if self._mean is not None:
                raise TeacherError(
                    f"The teacher is a function that cannot be part of a graph ({str(error).splitlines()[0]}); such a "
                    "one is asked about images as they are, in [0, 1]: leave out mean and std."
                ) from error
            self._asked = Asked(self._model)

    def _ask(self, asked: Asked, images: Any) -> tf.Tensor:
        if not tf.executing_eagerly():
            raise TeacherError(f"{asked.name} can only be asked outside of a graph; store its answers first.")
        if self._classes is None:
            raise TeacherError(f"{asked.name} is asked with classes=…, how many it knows.")
        return tf.constant(asked.scores(np.asarray(images), self._outputs, self._classes))

    def _find_classes(self, classes: int | None) -> int | None:
        shape = getattr(self._model, "output_shape", None)
        found = shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None
        if self._outputs == "labels" and found == 1:
            found = None  # one class number per image, not one class
        named = None if self.class_names is None else len(self.class_names)
        return number_of_classes({"classes": classes, "class_names": named, "the model's output": found}, self._outputs)


def _takes_training(function: Callable[..., Any]) -> bool:
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
