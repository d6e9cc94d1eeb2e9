"""Teacher and student side by side: both are shown the same, and of sounds a front end they share runs once."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bridge.datum.masks import MaskNumbers, Masks
from bridge.datum.mixing import Mixing, MixingNumbers
from bridge.errors import ConfigError
from keras_aip.mixing import mix
from keras_aip.spectrograms import Parted, mask, parted, same_front_end
from keras_aip.teacher import Teacher


class Pair:
    """What a training step asks. Not a Keras object, so it owns no weights.

    Args:
        teacher, student: of a `Distiller`.
        mixing, masks: of which numbers the steps bring.

    Raises:
        ConfigError: spectrograms are to be mixed or masked, and the two do not share a front end.
    """

    def __init__(self, teacher: Teacher, student: keras.Model, mixing: Mixing, masks: Masks | None):
        self._teacher, self._student = teacher, student
        self._mixes_input = mixing.on == "input" or mixing.kind == "none"
        self._ends = _shared(teacher, student)
        if self._ends is not None:
            self._teacher = Teacher(self._ends[0].rest, outputs=teacher.outputs, classes=teacher.classes)
        if self._ends is None and not (self._mixes_input and masks is None):
            raise ConfigError(
                "Spectrograms can be mixed and masked only where teacher and student begin with the same front end, "
                "both as networks of keras_aip; build the student with front_end=... of the teacher's card, or mix "
                "waveforms (mixing on 'input', no masks)."
            )

    def shown(self, samples: tf.Tensor, mixing: MixingNumbers, masks: MaskNumbers | None) -> tf.Tensor:
        """What both are asked about: mixed images or waveforms, or mixed and masked spectrograms.

        Args:
            samples: images float32 [batch, height, width, 3] in [0, 1], or waveforms [batch, samples] in [-1, 1].
            mixing, masks: numbers of the same rows.
        """
        if self._mixes_input:
            samples = mix(samples, mixing)
        if self._ends is None:
            return samples
        spectrograms = self._ends[0].front_end.spectrogram(samples)
        if not self._mixes_input:
            # time goes from left to right
            pictures = tf.expand_dims(tf.transpose(spectrograms, [0, 2, 1]), -1)
            spectrograms = tf.transpose(tf.squeeze(mix(pictures, mixing), -1), [0, 2, 1])
        return spectrograms if masks is None else mask(spectrograms, masks)

    def teacher(self, shown: tf.Tensor) -> tf.Tensor:
        """The teacher's answers in log space: float32 [batch, classes]."""
        if self._ends is None:
            return self._teacher(shown)
        return self._teacher(self._ends[0].front_end.finish(shown))

    def student(self, shown: tf.Tensor) -> tf.Tensor:
        """The student's logits in training: [batch, classes]."""
        if self._ends is None:
            return self._student(shown, training=True)
        return self._ends[1].rest(self._ends[1].front_end.finish(shown), training=True)


def _shared(teacher: Teacher, student: Any) -> tuple[Parted, Parted] | None:
    """Both, parted behind a front end they share; None: they share none."""
    taught, learnt = parted(teacher.network), parted(student)
    if taught is None or learnt is None or not same_front_end(taught, learnt):
        return None
    return taught, learnt
