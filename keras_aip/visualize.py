"""What units of a network like best, by gradient ascent, and where it looks, by Grad-CAM."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bridge.datum.audio_preview import pictures_of
from bridge.datum.counter import uniforms
from bridge.errors import TeacherError
from bridge.insight import visualizing
from bridge.insight.neurons import COLOURS, Ascent, Canvas, Unit
from bridge.insight.options import VisualizeConfig
from bridge.insight.visualizing import Found, cannot_draw, no_gradient, no_places
from bridge.teachers.wrapped import SMALLEST_PROBABILITY
from keras_aip.run import set_up
from keras_aip.spectrograms import parted
from keras_aip.teacher import Teacher
from keras_aip.teachers import load_teacher

_MOMENTA, _EPSILON = (0.9, 0.999), 1e-8
"""Of Adam (Kingma & Ba 2015)."""
_NO_LAYERS = (keras.layers.InputLayer, keras.layers.Permute, keras.layers.Reshape)
"""Of these, nothing is asked: they compute nothing, and their channels may lie elsewhere."""
_SILENCE = 1e-3
"""Loudness of white noise whose spectrogram is the lowest that is drawn; the highest is that of full scale. Ours."""


def visualize(config: VisualizeConfig) -> list[Path]:
    """Draw what units of one or two networks like best and, with images, where both look.

    Returns:
        The files written: neurons.png, with images maps.png, and visualize.json.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    # the same seed, the same picture
    set_up(config.threads, config.seed, deterministic=bool(tf.config.list_physical_devices("GPU")))
    return visualizing.visualize(config, inspected)


def inspected(name: str, dataset: str | None = None) -> Inspected:
    """A network to look into.

    Args:
        name: its folder, or a teacher's name.
        dataset: the data set it is wanted for.

    Raises:
        TeacherError: there is none, or it cannot be drawn of.
    """
    return Inspected(load_teacher(name, dataset=dataset), name)


class Inspected:
    """A network that is looked into.

    Args:
        teacher: the network, frozen.
        name: for messages.
        input_size: of a network that takes images of any size, what it is asked about.

    Raises:
        TeacherError: it has no gradient, or takes neither images nor, behind a front end of ours, sounds.
    """

    def __init__(self, teacher: Teacher, name: str, input_size: tuple[int, ...] | None = None) -> None:
        self._teacher = teacher
        self.name = name
        if teacher.outputs == "labels" or teacher.asked is not None:
            raise no_gradient(name, "keras_aip")
        self.input_size: tuple[int, ...] | None = teacher.input_size or input_size
        size: Any = self.input_size or ()
        self._network: Any = self._teacher.network
        self.sounds = len(size) == 1
        ends = parted(self._network) if self.sounds else None
        if len(size) not in (1, 2) or (self.sounds and ends is None):
            what = "sounds, with no front end of ours" if self.sounds else f"{size or 'any size'}, no images"
            raise TeacherError(
                f"Units are drawn of networks for images of one size, and of those of keras_aip for sounds; {name} "
                f"takes {what}."
            )
        self.shape: tuple[int, int] = (size[0], size[-1])
        if ends is not None:
            self._front_end, self._network = ends.front_end, ends.rest
            self.shape = (self._front_end.front_end.bands, self._front_end.front_end.frames)
            noise = 2 * uniforms(0, "neurons", np.array([0]), size[0])[:, 0] - 1
            loud = self._front_end.spectrogram(tf.constant(noise[None], tf.float32))
            quiet = self._front_end.spectrogram(tf.constant(_SILENCE * noise[None], tf.float32))
            self._lowest, self._highest = (tf.reduce_mean(some, axis=1, keepdims=True) for some in (quiet, loud))
        self.classes = int(self._teacher.classes or 0)
        self.class_names: Sequence[str] | None = self._teacher.class_names

    def layers(self) -> dict[str, int]:
        """How many channels each layer has, in the order in which they answer."""
        return {name: shape[-1] for name, shape in self._outputs().items()}

    def maximise(self, units: Sequence[Unit], ascent: Ascent, on_step: Callable[[int], None]) -> Found:
        """Make a picture for each unit of one layer, or for each class.

        Args:
            units: of the same layer.
            ascent: how.
            on_step: told how many steps are done.

        Raises:
            TeacherError: no gradient comes through the network, or it fails.
        """
        with _explained(self.name):
            return self._maximise(units, ascent, on_step)

    def _maximise(self, units: Sequence[Unit], ascent: Ascent, on_step: Callable[[int], None]) -> Found:
        canvas, indices = ascent.canvas, [unit.index for unit in units]
        layer = units[0].layer
        chosen = tf.one_hot(indices, self.classes if layer is None else self.layers()[layer])
        answer = self._answer(layer)

        def liked(parameters: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
            shown = _seen(pixels(parameters, canvas), rows, columns)
            return tf.reduce_sum(answer(self._input(shown)) * chosen, axis=1)

        @tf.function
        def step_of(parameters: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                value = tf.reduce_sum(liked(parameters, rows, columns))
            return tape.gradient(value, parameters)

        still = [tf.constant(matrix) for matrix in ascent.still()]
        parameters = tf.constant(canvas.first(ascent.seed, indices))
        before = liked(parameters, *still)
        mean, square = tf.zeros_like(parameters), tf.zeros_like(parameters)
        for step in range(ascent.steps):
            try:
                slope = step_of(parameters, *(tf.constant(matrix) for matrix in ascent.views(step)))
            except LookupError as error:  # an operation without gradient
                raise no_gradient(self.name, "keras_aip") from error
            if slope is None or (step == 0 and not np.any(slope.numpy())):
                raise no_gradient(self.name, "keras_aip")
            mean = _MOMENTA[0] * mean + (1 - _MOMENTA[0]) * slope
            square = _MOMENTA[1] * square + (1 - _MOMENTA[1]) * slope * slope
            done = [1 - momentum ** (step + 1) for momentum in _MOMENTA]
            change = mean / done[0] / (tf.sqrt(square / done[1]) + _EPSILON)
            parameters = parameters + ascent.learning_rate * change
            on_step(1)
        pictures = pixels(parameters, canvas)
        answers = self._answer(None)(self._input(_seen(pictures, *still)))
        after = liked(parameters, *still)
        return Found(self._drawn(pictures), before.numpy(), after.numpy(), answers.numpy())

    def maps(
        self, images: NDArray[np.uint8], classes: Sequence[int] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where the network looks: Grad-CAM (Selvaraju et al. 2017) at the last layer that knows places.

        Args:
            images: uint8 [n, height, width, 3].
            classes: for which class of each; None: for its own first one.

        Returns:
            float32 [n, rows, columns] of that layer, at least 0, and the answers, float32 [n, classes].

        Raises:
            TeacherError: no layer knows places, or no gradient comes through.
        """
        places = [name for name, shape in self._outputs().items() if len(shape) == 4 and min(shape[1:3]) > 1]
        if not places:
            raise no_places(self.name)
        kept_and_scores = keras.Model(
            self._network.inputs, [self._network.get_layer(places[-1]).output, self._network.outputs[0]]
        )
        with tf.GradientTape() as tape:
            kept, scores = kept_and_scores(tf.constant(images, tf.float32) / 255, training=False)
            tape.watch(kept)
            answers = self._in_log_space(scores)
            wanted = tf.argmax(answers, axis=1) if classes is None else tf.constant(classes, tf.int64)
            value = tf.reduce_sum(tf.gather(answers, wanted, axis=1, batch_dims=1))
        slope = tape.gradient(value, kept)
        if slope is None:
            raise no_gradient(self.name, "keras_aip")
        heat = tf.nn.relu(tf.reduce_sum(tf.reduce_mean(slope, axis=[1, 2], keepdims=True) * kept, axis=-1))
        return heat.numpy(), answers.numpy()

    def _input(self, pictures: tf.Tensor) -> tf.Tensor:
        """What the network takes, of pictures [n, channels, height, width] in (0, 1)."""
        if not self.sounds:
            return tf.transpose(pictures, [0, 2, 3, 1])
        return self._front_end.finish(self._spectrograms(pictures))

    def _spectrograms(self, pictures: tf.Tensor) -> tf.Tensor:
        """[n, 1, bands, frames] in (0, 1), high bands first → natural logarithms [n, frames, bands]."""
        levels = tf.transpose(pictures[:, 0], [0, 2, 1])[:, :, ::-1]
        return self._lowest + (self._highest - self._lowest) * levels

    def _drawn(self, pictures: tf.Tensor) -> NDArray[np.uint8]:
        if not self.sounds:
            return tf.cast(tf.round(tf.transpose(pictures, [0, 2, 3, 1]) * 255), tf.uint8).numpy()
        decibels = (20 if self._front_end.front_end.bases().root else 10) / math.log(10)
        return pictures_of(decibels * self._spectrograms(pictures).numpy())

    def _answer(self, layer: str | None) -> Callable[[tf.Tensor], tf.Tensor]:
        """What gives [n, classes] in log space, or the channels' means [n, channels]."""
        if layer is None:
            if self.sounds:
                return lambda x: self._in_log_space(self._network(x, training=False))
            return lambda x: self._in_log_space(self._teacher.scores(x))
        part = keras.Model(self._network.inputs, self._network.get_layer(layer).output)

        def mean(x: tf.Tensor) -> tf.Tensor:
            answer = tf.cast(part(x, training=False), tf.float32)
            return tf.reduce_mean(answer, axis=list(range(1, len(answer.shape) - 1)))

        return mean

    def _in_log_space(self, scores: tf.Tensor) -> tf.Tensor:
        scores = tf.cast(scores, tf.float32)
        return scores if self._teacher.outputs == "logits" else tf.math.log(tf.maximum(scores, SMALLEST_PROBABILITY))

    def _outputs(self) -> dict[str, tuple[int, ...]]:
        """The shapes that the network's layers answer with, by their names; what is computed last comes last."""
        shapes = {}
        for layer in getattr(self._network, "layers", ()):
            shape = getattr(getattr(layer, "output", None), "shape", ())
            if 2 <= len(shape) <= 4 and not isinstance(layer, _NO_LAYERS):
                shapes[layer.name] = tuple(shape)
        return shapes


def pixels(parameters: tf.Tensor, canvas: Canvas) -> tf.Tensor:
    """The pictures that parameters stand for: float32 [units, channels, height, width] in (0, 1)."""
    real, imaginary = tf.unstack(parameters * tf.constant(canvas.weights()), axis=-1)
    spectrum = tf.complex(real, imaginary)
    values = tf.signal.irfft2d(spectrum, [canvas.height, canvas.width])
    if canvas.channels == 3:
        values = tf.transpose(tf.tensordot(values, tf.constant(COLOURS), [[1], [1]]), [0, 3, 1, 2])
    return tf.sigmoid(values + canvas.offset)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever TensorFlow finds wrong with a foreign graph, or has no memory for, in one message."""
    try:
        yield
    except tf.errors.OpError as error:
        raise cannot_draw(name, error.message) from error


def _seen(pictures: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """``rows @ picture @ columns.T`` of each channel."""
    # products of two matrices: those of stacks, of which one is repeated, have crashed TensorFlow 2.21
    return tf.tensordot(tf.tensordot(pictures, rows, [[2], [1]]), columns, [[2], [1]])
